//! Passwords, tokens and channel keys: in files of their own, in no log, and in memory only where they are used.
//!
//! A key that ends in `_file` names the file. An absolute path is that file. A bare name is the credential of that name
//! which the service manager has given us (LoadCredential= in systemd.exec(5)); where there is none, it is beside the
//! configuration, as is every other relative path.

use crate::file;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::path::Path;
use std::sync::OnceLock;

/// More is another file, named by mistake.
const MAX_BYTES: usize = 4096;

/// A line of text that does not show itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// A text of 1 to 4096 bytes without control characters. The error says what is wrong with it, without it.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_BYTES {
            return Err(format!("has {} bytes, but must have 1 to {MAX_BYTES}", text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err("holds a control character, but must be one line of text".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads the file that the configuration `config` names by `key`: one line, whose line break does not belong to it. The
    /// error names key, path and reason.
    pub fn read(key: &str, file: &Path, config: &Path) -> Result<Self, String> {
        let (path, bytes) = file::read_named(key, file, config, MAX_BYTES + "\r\n".len())?;
        let say = |why: String| format!("{key}: {} {why}", path.display());
        // The error of the conversion would carry the bytes along.
        let text = std::str::from_utf8(&bytes).map_err(|_| say("is not UTF-8 text".to_owned()))?;
        let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        Self::new(line).map_err(say)
    }

    /// The text itself: for the line that carries it, and nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Changes with `settings`, secrets included, and tells nothing of them outside this process: its key is random and new at
/// each start.
pub fn fingerprint(settings: &impl Hash) -> String {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    format!("{:016x}", KEY.get_or_init(RandomState::new).hash_one(settings))
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
            Secret::read("key_file", Path::new("pw"), &config).map(|secret| secret.reveal().to_owned())
        };
        assert_eq!(read(b"a b\n"), Ok("a b".to_owned()));
        assert_eq!(read(b"a\r\n"), Ok("a".to_owned()));
        let longest = "x".repeat(4096);
        assert_eq!(read(format!("{longest}\r\n").as_bytes()), Ok(longest.clone()));
        let path = dir.path().join("pw").display().to_string();
        for (bytes, why) in [
            (&b"a\nhush\n"[..], "holds a control character, but must be one line of text"),
            (b"hush\n\n", "holds a control character, but must be one line of text"),
            (b"hush\0", "holds a control character, but must be one line of text"),
            (b"\n", "has 0 bytes, but must have 1 to 4096"),
            (b"hush\xff", "is not UTF-8 text"),
            (format!("{longest}x").as_bytes(), "has 4097 bytes, but must have 1 to 4096"),
            (&[b'x'; 5000], "is larger than 4098 bytes"),
        ] {
            assert_eq!(read(bytes), Err(format!("key_file: {path} {why}")));
        }
    }

    #[test]
    fn it_does_not_show_itself() {
        let secret = Secret::new("hush").expect("a line");
        assert_eq!(format!("{:?}", Some(&secret)), "Some(Secret)");
        assert!(!fingerprint(&secret).contains("hush"));
    }

    #[test]
    fn another_secret_has_another_fingerprint() {
        let of = |text: &str| fingerprint(&("user", Secret::new(text).expect("a line")));
        assert_eq!(of("hush"), of("hush"));
        assert_ne!(of("hush"), of("husk"));
    }
}
