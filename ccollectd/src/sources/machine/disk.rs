//! How full the file systems are, from `/proc/self/mounts` and statvfs(3).
//!
//! Asking a network file system whose server is dead blocks, for hours if it is mounted that way,
//! and nothing cancels the call. So only what is on this machine is asked: file systems on a device
//! below `/dev`, the few that need none, and the root. A kind that is not known and has no device
//! is left alone rather than tried.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{Statvfs, statvfs};

use super::{Fault, Faults, Why, number, percentage};
use crate::sources::Reading;

/// File systems that other machines can hold up, even where a device below `/dev` is named.
const REMOTE: [&str; 20] = [
    "9p",
    "acfs",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "davfs",
    "gfs",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "smb3",
    "smbfs",
    "virtiofs",
];

/// Images that cannot be written: always full, and never anyone's problem.
const IMAGES: [&str; 6] = ["cramfs", "erofs", "iso9660", "romfs", "squashfs", "udf"];

/// File systems of their own that name no device: memory, storage pools, raw flash.
const WITHOUT_DEVICE: [&str; 4] = ["jffs2", "tmpfs", "ubifs", "zfs"];

/// Where small tmpfs come and go with services and containers.
const INTERNAL: [&str; 3] = ["/proc/", "/sys/", "/run/credentials/"];

/// The file systems of this machine.
///
/// Apart from [`Machine`](super::Machine), so that it can wait on a thread of its own: a device
/// that fails can hold up even a local file system.
#[derive(Debug, Default)]
pub(crate) struct Disks {
    faults: Faults,
}

impl Disks {
    /// Asks every local file system once. Blocks: call it where that hurts nobody.
    pub(crate) fn read_disks(&mut self) -> Vec<Reading> {
        let mut readings = Vec::new();
        let mut faults = Vec::new();
        match fs::read("/proc/self/mounts") {
            Ok(text) => {
                for mount_point in select(&text) {
                    match statvfs(&mount_point) {
                        Ok(answer) => readings.extend(reading(&mount_point, &Space::from(answer))),
                        Err(errno) => faults.push(fault(&mount_point, errno.into())),
                    }
                }
            }
            Err(source) => faults.push(fault(Path::new("/proc/self/mounts"), source)),
        }
        self.faults.settle(faults);
        readings
    }
}

fn fault(path: &Path, source: std::io::Error) -> Fault {
    Fault { what: path.display().to_string(), why: Why::Unreadable(source) }
}

/// One line of `/proc/self/mounts`.
struct Mount<'a> {
    device: Cow<'a, [u8]>,
    point: Cow<'a, [u8]>,
    kind: &'a str,
}

/// The mount points worth asking, each file system once, in the order of their names.
fn select(mounts: &[u8]) -> Vec<PathBuf> {
    // What is mounted later covers what was there before.
    let visible: HashMap<Vec<u8>, Mount<'_>> =
        mounts.split(|byte| *byte == b'\n').filter_map(parse_line).map(|mount| (mount.point.to_vec(), mount)).collect();

    let mut points = Vec::new();
    let mut by_device: HashMap<&[u8], &[u8]> = HashMap::new();
    for mount in visible.values().filter(|mount| is_local(mount)) {
        if mount.device.starts_with(b"/dev/") || mount.kind == "zfs" {
            let shortest = by_device.entry(&mount.device).or_insert(&mount.point);
            *shortest = shorter(shortest, &mount.point);
        } else {
            // All tmpfs name the same device and are different ones.
            points.push(mount.point.as_ref());
        }
    }
    points.extend(by_device.into_values());
    points.sort_unstable();
    points.into_iter().map(|point| PathBuf::from(OsStr::from_bytes(point))).collect()
}

/// The shorter one; of equally long ones the first by name, so that the choice is the same every
/// time.
fn shorter<'a>(one: &'a [u8], other: &'a [u8]) -> &'a [u8] {
    std::cmp::min_by_key(one, other, |point| (point.len(), *point))
}

fn is_local(mount: &Mount<'_>) -> bool {
    let kind = mount.kind;
    if REMOTE.contains(&kind) || IMAGES.contains(&kind) || kind == "fuse" || kind.starts_with("fuse.") {
        return false;
    }
    if INTERNAL.iter().any(|folder| mount.point.starts_with(folder.as_bytes())) {
        return false;
    }
    // The root of a container is an overlay without a device, and still the disk its programs fill.
    mount.device.starts_with(b"/dev/") || WITHOUT_DEVICE.contains(&kind) || mount.point.as_ref() == b"/"
}

/// Device, mount point and kind of a line like `/dev/vda / ext4 rw,relatime 0 0`.
fn parse_line(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
    if !point.starts_with(b"/") {
        return None;
    }
    Some(Mount { device: unescape(device), point: unescape(point), kind: std::str::from_utf8(kind).ok()? })
}

/// Undoes the kernel's `\040` for the characters that would end a field.
fn unescape(field: &[u8]) -> Cow<'_, [u8]> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(field);
    }
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some((byte, after)) = octal(rest) {
            bytes.push(byte);
            rest = after;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    Cow::Owned(bytes)
}

/// The byte that a text starting with a backslash and three octal digits begins with, and what
/// follows.
fn octal(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = text.strip_prefix(b"\\")?.split_at_checked(3)?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    Some((u8::from_str_radix(digits, 8).ok()?, after))
}

/// What a file system says of itself, in bytes and inodes.
#[derive(Debug, Clone, Copy)]
struct Space {
    total: u64,
    /// Including what only root may fill.
    unused: u64,
    available: u64,
    inodes: u64,
    inodes_unused: u64,
}

impl From<Statvfs> for Space {
    fn from(answer: Statvfs) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(answer.fragment_size());
        Self {
            total: bytes(answer.blocks()),
            unused: bytes(answer.blocks_free()),
            available: bytes(answer.blocks_available()),
            inodes: answer.files(),
            inodes_unused: answer.files_free(),
        }
    }
}

/// The numbers as `df` shows them, or nothing for a file system that has no size.
///
/// The percentage is of what programs can use, so that 100 is when they get "no space left on
/// device", though root has a reserve. The numbers of inodes are left out where there are none to
/// run out of (btrfs, FAT).
fn reading(mount_point: &Path, space: &Space) -> Option<Reading> {
    if space.total == 0 {
        return None;
    }
    let used = space.total.saturating_sub(space.unused);
    let mut values = vec![
        ("total", number(space.total)),
        ("used", number(used)),
        ("free", number(space.available)),
        ("used_percentage", percentage(used, used.saturating_add(space.available))),
    ];
    if space.inodes > 0 {
        let inodes_used = space.inodes.saturating_sub(space.inodes_unused);
        values.extend([
            ("inodes_total", number(space.inodes)),
            ("inodes_used", number(inodes_used)),
            ("inodes_free", number(space.inodes_unused)),
            ("inodes_used_percentage", percentage(inodes_used, space.inodes)),
        ]);
    }
    Some(Reading::new("disk", &mount_point.to_string_lossy(), values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn expect_selected(mounts: &str, expected: &[&str]) {
        let selected = select(mounts.as_bytes());
        assert_eq!(selected, expected.iter().map(PathBuf::from).collect::<Vec<_>>());
    }

    #[test]
    fn a_server_shows_its_disks_and_nothing_made_up() {
        let expected = [
            "/",
            "/boot",
            "/boot/efi",
            "/dev/shm",
            "/home",
            "/media/USB stick",
            "/mnt/ntfs",
            "/run",
            "/run/lock",
            "/tank",
        ];
        expect_selected(include_str!("../testdata/mounts.server"), &expected);
    }

    #[test]
    fn a_container_shows_its_overlay() {
        expect_selected(include_str!("../testdata/mounts.container"), &["/", "/data", "/dev", "/dev/shm"]);
    }

    #[test]
    fn a_device_that_is_mounted_twice_is_asked_where_the_path_is_shortest() {
        let mounts = "/dev/sda1 /srv/chroot/var ext4 rw 0 0\n/dev/sda1 /var ext4 rw 0 0\n/dev/sda1 /opt ext4 rw 0 0\n";
        expect_selected(mounts, &["/opt"]);
    }

    #[test]
    fn every_tmpfs_is_asked() {
        expect_selected("tmpfs /tmp tmpfs rw 0 0\ntmpfs /run tmpfs rw 0 0\n", &["/run", "/tmp"]);
    }

    #[test]
    fn what_is_mounted_over_another_hides_it() {
        expect_selected("/dev/sdb1 /data ext4 rw 0 0\nserver:/data /data nfs4 rw 0 0\n", &[]);
        expect_selected("tmpfs /dev/shm tmpfs rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n", &["/dev/shm"]);
    }

    #[test]
    fn no_server_is_ever_waited_for() {
        for kind in REMOTE.into_iter().chain(["fuse", "fuse.sshfs", "fuse.glusterfs", "unheard_of"]) {
            expect_selected(&format!("server:/export /mnt {kind} rw 0 0\n"), &[]);
        }
        expect_selected("/dev/gpfs1 /gpfs gpfs rw 0 0\nserver:/root / nfs rw 0 0\n", &[]);
    }

    #[test]
    fn spaces_and_backslashes_in_a_path_are_restored_once() {
        let unescaped = |text: &str| String::from_utf8(unescape(text.as_bytes()).into_owned()).unwrap();
        assert_eq!(unescaped(r"/mnt/a\040b\011c\012d\043e"), "/mnt/a b\tc\nd#e");
        assert_eq!(unescaped(r"/mnt/a\134040b"), r"/mnt/a\040b");
        assert_eq!(unescaped(r"/mnt/\9\04\400\+12\"), r"/mnt/\9\04\400\+12\");
    }

    #[test]
    fn lines_that_make_no_sense_are_left_out() {
        let mounts = b"\n\n/dev/sda1\n/dev/sda1 /\n/dev/sda1 none swap sw 0 0\n/dev/sdb1 /caf\xe9 ext4 rw 0 0\n/dev/sdc1 /x \xff rw\n";
        let selected = select(mounts);
        assert_eq!(selected, [PathBuf::from(OsStr::from_bytes(b"/caf\xe9"))]);
    }

    const DISK: Space = Space { total: 1000, unused: 250, available: 200, inodes: 80, inodes_unused: 20 };

    #[test]
    fn the_numbers_are_those_of_df() {
        let reading = reading(Path::new("/var"), &DISK).unwrap();
        assert_eq!((reading.resource, reading.unit.as_str()), ("disk", "/var"));
        assert_eq!(
            reading.values,
            [
                ("total", 1000.0),
                ("used", 750.0),
                ("free", 200.0),
                ("used_percentage", 75_000.0 / 950.0),
                ("inodes_total", 80.0),
                ("inodes_used", 60.0),
                ("inodes_free", 20.0),
                ("inodes_used_percentage", 75.0),
            ]
        );
    }

    #[test]
    fn a_disk_that_programs_cannot_write_to_is_full_though_root_has_a_reserve() {
        let reading = reading(Path::new("/"), &Space { unused: 50, available: 0, ..DISK }).unwrap();
        assert_eq!(reading.values[3], ("used_percentage", 100.0));
    }

    #[test]
    fn a_file_system_without_inodes_never_runs_out_of_them() {
        let reading = reading(Path::new("/"), &Space { inodes: 0, inodes_unused: 0, ..DISK }).unwrap();
        assert_eq!(reading.values.len(), 4);
    }

    #[test]
    fn a_file_system_without_a_size_is_left_out() {
        assert_eq!(reading(Path::new("/x"), &Space { total: 0, unused: 0, available: 0, ..DISK }), None);
    }

    #[test]
    fn the_root_of_this_machine_is_told() {
        let readings = Disks::default().read_disks();
        let root = readings.iter().find(|reading| reading.unit == "/").expect("the root is always mounted");
        assert!(root.values[0].1 > 0.0);
        assert!((0.0..=100.0).contains(&root.values[3].1));
    }
}
