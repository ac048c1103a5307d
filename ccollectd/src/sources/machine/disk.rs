//! How full the file systems are, from `/proc/1/mountinfo` (proc_pid_mountinfo(5)) and statvfs(3).
//!
//! That of process 1 and not our own: our unit puts us in a mount namespace, where every file system is read-only and
//! each writable folder is a mount of its own.
//!
//! Asking a network file system whose server is dead blocks, for hours if it is mounted that way,
//! and nothing cancels the call. So only what is on this machine is asked: file systems on a device
//! below `/dev`, the few that need none, and the root. A kind that is not known and has no device
//! is left alone rather than tried.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{Statvfs, statvfs};
use procfs::process::MountInfo;

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
const INTERNAL: [&str; 3] = ["/proc", "/sys", "/run/credentials"];

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
        match fs::read("/proc/1/mountinfo").or_else(|_| fs::read("/proc/self/mountinfo")) {
            Ok(text) => {
                for mount_point in select(&text) {
                    match statvfs(&mount_point) {
                        Ok(answer) => readings.extend(reading(&mount_point, &Space::from(answer))),
                        Err(errno) => faults.push(fault(&mount_point, errno.into())),
                    }
                }
            }
            Err(source) => faults.push(fault(Path::new("/proc/self/mountinfo"), source)),
        }
        self.faults.settle(faults);
        readings
    }
}

fn fault(path: &Path, source: std::io::Error) -> Fault {
    Fault { what: path.display().to_string(), why: Why::Unreadable(source) }
}

/// The mount points worth asking, each file system once, in the order of their names.
fn select(mountinfo: &[u8]) -> Vec<PathBuf> {
    // What is mounted later covers what was there before.
    let visible: HashMap<PathBuf, MountInfo> = mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .map(|mount| (mount.mount_point.clone(), mount))
        .collect();

    let mut by_number: HashMap<&str, &Path> = HashMap::new();
    let mut by_device: HashMap<&str, &Path> = HashMap::new();
    for mount in visible.values().filter(|mount| is_local(mount)) {
        let point = mount.mount_point.as_path();
        if device(mount).starts_with("/dev/") || mount.fs_type == "zfs" {
            let shortest = by_device.entry(device(mount)).or_insert(point);
            *shortest = shorter(shortest, point);
        } else {
            // All tmpfs name the same device and are different ones, unless they have one number (a bind mount).
            let shortest = by_number.entry(mount.majmin.as_str()).or_insert(point);
            *shortest = shorter(shortest, point);
        }
    }
    let mut points: Vec<&Path> = by_device.into_values().chain(by_number.into_values()).collect();
    points.sort_unstable();
    points.into_iter().map(Path::to_owned).collect()
}

/// The shorter one; of equally long ones the first by name, so that the choice is the same every
/// time.
fn shorter<'a>(one: &'a Path, other: &'a Path) -> &'a Path {
    std::cmp::min_by_key(one, other, |point| (point.as_os_str().len(), *point))
}

fn is_local(mount: &MountInfo) -> bool {
    let kind = mount.fs_type.as_str();
    if REMOTE.contains(&kind) || IMAGES.contains(&kind) || kind == "fuse" || kind.starts_with("fuse.") {
        return false;
    }
    if INTERNAL.iter().any(|folder| mount.mount_point.starts_with(folder)) {
        return false;
    }
    // The root of a container is an overlay without a device, and still the disk its programs fill.
    device(mount).starts_with("/dev/") || WITHOUT_DEVICE.contains(&kind) || mount.mount_point == Path::new("/")
}

/// What is mounted, as the kernel writes it: `/dev/vda`, `tmpfs`, `nas:/export`.
fn device(mount: &MountInfo) -> &str {
    mount.mount_source.as_deref().unwrap_or_default()
}

/// A line like `27 1 254:0 / /var rw,relatime - ext4 /dev/vda rw`, with the mount point as it is.
///
/// Line by line, because `MountInfos` refuses the whole file for one line that is not text, and a
/// mount point need not be any. The crate leaves the escapes of the kernel in the mount point.
fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let mut mount = MountInfo::from_line(&as_text(line)).ok()?;
    let escaped = mount.mount_point.into_os_string().into_vec();
    mount.mount_point = PathBuf::from(OsString::from_vec(unescape(&escaped)));
    Some(mount)
}

/// A line of any bytes as text: what is beyond ASCII becomes one more `\351` to undo.
fn as_text(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for byte in line {
        if byte.is_ascii() {
            text.push(char::from(*byte));
        } else {
            write!(text, "\\{byte:o}").expect("a String takes everything");
        }
    }
    text
}

/// Undoes the kernel's `\040` for the characters that would end a field.
fn unescape(field: &[u8]) -> Vec<u8> {
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
    bytes
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
    use procfs::FromRead;
    use procfs::process::MountInfos;

    use super::*;

    /// `/proc/self/mountinfo` for what `/proc/self/mounts` says, which is easier to read.
    fn mountinfo(mounts: &str) -> String {
        // Each file system has its own number.
        let line_of = |(number, line): (usize, &str)| {
            let mut fields = line.split(' ');
            let mut next = || fields.next().expect("each line has six fields");
            let (device, point, kind, options) = (next(), next(), next(), next());
            format!("27 1 254:{number} / {point} rw shared:1 - {kind} {device} {options}\n")
        };
        mounts.lines().enumerate().map(line_of).collect()
    }

    #[track_caller]
    fn expect_selected(mounts: &str, expected: &[&str]) {
        let selected = select(mountinfo(mounts).as_bytes());
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
    fn a_part_of_a_tmpfs_mounted_elsewhere_is_the_same_tmpfs() {
        let mounts = b"27 1 0:24 / /run rw - tmpfs tmpfs rw\n28 1 0:24 /cairn /run/cairn rw - tmpfs tmpfs rw\n";
        assert_eq!(select(mounts), [PathBuf::from("/run")]);
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
        let unescaped = |text: &str| String::from_utf8(unescape(text.as_bytes())).unwrap();
        assert_eq!(unescaped(r"/mnt/a\040b\011c\012d\043e"), "/mnt/a b\tc\nd#e");
        assert_eq!(unescaped(r"/mnt/a\134040b"), r"/mnt/a\040b");
        assert_eq!(unescaped(r"/mnt/\9\04\400\+12\"), r"/mnt/\9\04\400\+12\");
    }

    #[test]
    fn the_names_in_a_captured_mountinfo_are_those_of_the_folders() {
        let selected = select(include_bytes!("../testdata/mountinfo"));
        let expected = [&b"/"[..], b"/dev/shm", b"/mnt/a\\040b", b"/mnt/caf\xc3\xa9 1", b"/mnt/caf\xe9 2"];
        assert_eq!(selected, expected.map(|point| PathBuf::from(OsString::from_vec(point.to_vec()))));
    }

    #[test]
    fn lines_that_make_no_sense_are_left_out() {
        let mountinfo = b"\n\n27 1 8:1\n27 1 8:1 / /a rw - ext4\n27 1 8:1 / /b rw ext4 /dev/sdb rw\n\
                          27 1 8:1 / /caf\xe9 rw - ext4 /dev/sdc rw\n";
        let selected = select(mountinfo);
        assert_eq!(selected, [PathBuf::from(OsString::from_vec(b"/caf\xe9".to_vec()))]);
    }

    /// Why the lines are separated and unescaped here.
    #[test]
    fn the_crate_refuses_what_is_not_text_and_leaves_the_escapes() {
        assert!(MountInfos::from_read(&b"27 1 8:1 / /caf\xe9 rw - ext4 /dev/sdc rw\n"[..]).is_err());
        let mount = MountInfo::from_line(r"27 1 8:1 / /a\040b rw - ext4 /dev/sdc rw").unwrap();
        assert_eq!(mount.mount_point, Path::new(r"/a\040b"));
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
