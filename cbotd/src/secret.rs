//! Passwords and channel keys, which are in files of their own and in no log.

use std::fmt;
use std::path::{Path, PathBuf};

/// More than any server takes in one line.
const MAX_BYTES: usize = 400;

/// A text that does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// A text that was written down elsewhere. The error says what is wrong with it, without it.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_BYTES {
            return Err(format!("has {} bytes, but must have 1 to {MAX_BYTES}", text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err("holds a control character, but must be one line of text".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// The first line of a file; the line break at its end does not belong to it. A name without a folder is one of
    /// systemd's credentials, where there are any, and otherwise beside the configuration.
    pub(crate) fn read(file: &Path, config: &Path) -> Result<Self, String> {
        let path = found(file, config, std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).as_deref());
        let say = |what: String| format!("{} {what}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| say(format!("cannot be read: {error}")))?;
        Self::new(text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line))).map_err(say)
    }

    /// The text itself: for the line that carries it, and nothing else.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

/// Where a file of the configuration is.
pub(crate) fn found(file: &Path, config: &Path, credentials: Option<&Path>) -> PathBuf {
    let credential =
        credentials.map(|dir| dir.join(file)).filter(|path| file.components().count() == 1 && path.exists());
    // `join` keeps a path that begins at the root.
    credential.unwrap_or_else(|| config.parent().unwrap_or(Path::new("")).join(file))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_break_of_a_file_is_not_part_of_the_secret() {
        let dir = tempfile::tempdir().expect("folder");
        let config = dir.path().join("cbotd.toml");
        let read = |bytes: &[u8]| {
            std::fs::write(dir.path().join("pw"), bytes).expect("file");
            Secret::read(Path::new("pw"), &config).map(|secret| secret.reveal().to_owned())
        };
        assert_eq!(read(b"a b\n"), Ok("a b".to_owned()));
        assert_eq!(read(b"a\r\n"), Ok("a".to_owned()));
        assert!(read(b"a\nb\n").expect_err("two lines").ends_with("must be one line of text"));
        assert!(read(b"").expect_err("empty").ends_with("has 0 bytes, but must have 1 to 400"));
        assert!(read(b"\xff").is_err());
        assert!(Secret::read(Path::new("none"), &config).expect_err("none").contains("cannot be read"));
    }

    #[test]
    fn a_bare_name_is_a_credential_first() {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("pw"), "x").expect("file");
        let (config, credentials) = (Path::new("/etc/cairn/cbotd.toml"), Some(dir.path()));
        assert_eq!(found(Path::new("pw"), config, credentials), dir.path().join("pw"));
        assert_eq!(found(Path::new("pw2"), config, credentials), Path::new("/etc/cairn/pw2"));
        assert_eq!(found(Path::new("pw"), config, None), Path::new("/etc/cairn/pw"));
        assert_eq!(found(Path::new("/x/pw"), config, credentials), Path::new("/x/pw"));
    }

    #[test]
    fn it_does_not_show_itself() {
        assert_eq!(format!("{:?}", Secret::new("hush")), "Ok(Secret)");
    }
}
