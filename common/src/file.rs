//! Files that a person names: the configuration, and what it names in turn. Any of them may be another one by mistake.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const MIB: usize = 1024 * 1024;

/// Where a file is that the configuration `config` names. A bare name is one of the service manager's credentials
/// (systemd.exec(5), LoadCredential=) where `credentials` has one of that name; whatever else does not begin at the root is
/// beside the configuration.
pub(crate) fn find(file: &Path, config: &Path, credentials: Option<&OsStr>) -> PathBuf {
    let is_bare = !file.as_os_str().as_bytes().contains(&b'/');
    let credential = credentials.filter(|_| is_bare).map(|dir| Path::new(dir).join(file)).filter(|path| path.is_file());
    // `join` keeps a path that begins at the root.
    credential.unwrap_or_else(|| config.parent().unwrap_or(Path::new("")).join(file))
}

/// Reads the file that the configuration `config` names by `key`, at most `most` bytes, and says where it was. The error is
/// a phrase with all three: key, path and reason.
pub(crate) fn read_named(key: &str, file: &Path, config: &Path, most: usize) -> Result<(PathBuf, Vec<u8>), String> {
    let path = find(file, config, std::env::var_os("CREDENTIALS_DIRECTORY").as_deref());
    let bytes = read(&path, most).map_err(|why| format!("{key}: {} {why}", path.display()))?;
    Ok((path, bytes))
}

/// Reads a regular file of at most `most` bytes. The error says why not, and the caller which.
pub(crate) fn read(path: &Path, most: usize) -> Result<Vec<u8>, String> {
    let reason = |error| why(&error);
    // Asked before opening: to open a pipe is to wait for its writer.
    let kind = fs::metadata(path).map_err(reason)?.file_type();
    if kind.is_dir() {
        return Err("is a directory, but must be a file".to_owned());
    }
    if !kind.is_file() {
        return Err("is a device, pipe or socket, but must be a file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes)).map_err(reason)?;
    if bytes.len() > most {
        let size = if most.is_multiple_of(MIB) { format!("{} MiB", most / MIB) } else { format!("{most} bytes") };
        return Err(format!("is larger than {size}"));
    }
    Ok(bytes)
}

/// Why a file cannot be used, as a phrase behind its name.
pub(crate) fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "cannot be read: permission denied".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_a_credential_first() {
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join("pw"), "x").expect("file");
        fs::create_dir(dir.path().join("sub")).expect("folder");
        fs::write(dir.path().join("sub/pw"), "x").expect("file");
        let (config, credentials) = (Path::new("/etc/cairn/cbotd.toml"), Some(dir.path().as_os_str()));
        let found = |file: &str, credentials| find(Path::new(file), config, credentials);
        assert_eq!(found("pw", credentials), dir.path().join("pw"));
        assert_eq!(found("pw2", credentials), Path::new("/etc/cairn/pw2"));
        assert_eq!(found("pw", None), Path::new("/etc/cairn/pw"));
        assert_eq!(found("/x/pw", credentials), Path::new("/x/pw"));
        for elsewhere in ["sub/pw", "./pw", "../pw", "sub"] {
            assert_eq!(found(elsewhere, credentials), Path::new("/etc/cairn").join(elsewhere));
        }
    }

    #[test]
    fn unreadable_files_say_why() {
        let message = |kind: io::ErrorKind| why(&kind.into());
        assert_eq!(message(io::ErrorKind::PermissionDenied), "cannot be read: permission denied");
        assert_eq!(message(io::ErrorKind::TimedOut), "cannot be read: timed out");
    }

    #[test]
    fn what_is_no_file_of_that_size_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("file");
        fs::write(&path, "12345").expect("file");
        assert_eq!(read(&path, 5), Ok(b"12345".to_vec()));
        assert_eq!(read(&path, 4), Err("is larger than 4 bytes".to_owned()));
        assert_eq!(read(dir.path(), 4), Err("is a directory, but must be a file".to_owned()));
        assert_eq!(read(Path::new("/dev/zero"), 4), Err("is a device, pipe or socket, but must be a file".to_owned()));
        let said = read_named("ca_file", Path::new("none"), &path, 4).expect_err("there is none");
        assert_eq!(said, format!("ca_file: {} does not exist", dir.path().join("none").display()));
    }
}
