//! Loads a configuration so that each mistake is reported where the operator made it.
//!
//! A daemon reads `NAME.toml` and every `NAME.d/*.toml`, and a mistake may be in any of them. So the files
//! are not merged as text: each becomes a tree whose values remember their file and line, the trees are
//! merged, and a deserializer of our own walks the result. The place and the key of an error are then known
//! from where the walk stands, and never guessed from a message.
//!
//! The raw struct of a daemon denies unknown fields. It avoids `#[serde(flatten)]` and untagged enums:
//! serde buffers what they read, and a mistake inside is then only known to be somewhere in the table around.
//! `nan`, `inf` and integers beyond 64 bits are refused in any place; a date is read as its text.

mod bytes;
mod check;
mod de;
mod duration;
mod error;
mod mistake;
#[cfg(test)]
mod tests;
mod tree;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use self::bytes::HumanBytes;
pub use self::check::{check_name, check_range, check_unique};
use self::de::Located;
pub use self::duration::{DurationError, HumanDuration};
pub use self::error::ConfigError;
use self::tree::Node;
use crate::file;

/// No configuration comes near this; a file that does was named by mistake.
const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Reads the configuration `path` with its drop-ins: `NAME.toml`, then `NAME.d/*.toml` sorted by name.
///
/// - The tables of a drop-in merge into those before it, key by key.
/// - Its arrays of tables (`[[port]]`) are appended.
/// - Any other value replaces the one before it, so `port = []` drops all the `[[port]]` so far.
///
/// Names that begin with a dot are skipped, as a shell skips them: editors keep locks and copies there.
/// The first mistake is returned, in the order of the files and of their lines.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let mut files = vec![path.to_owned()];
    let mut root = tree::parse(0, path, &read(path)?)?;
    for drop_in in drop_ins(path)? {
        let node = tree::parse(files.len(), &drop_in, &read(&drop_in)?)?;
        root.merge(node);
        files.push(drop_in);
    }
    check(&root, &files)
}

/// Reads a configuration that is no file here, such as one received from another host.
///
/// Errors name `origin` where those of [`load`] name the file.
pub fn parse<T: DeserializeOwned>(origin: &Path, text: &str) -> Result<T, ConfigError> {
    check(&tree::parse(0, origin, text)?, &[origin.to_owned()])
}

fn check<T: DeserializeOwned>(root: &Node, files: &[PathBuf]) -> Result<T, ConfigError> {
    T::deserialize(Located(root)).map_err(|mistake| mistake.at_root(root, files))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let bytes = file::read(path, MAX_FILE_BYTES).map_err(|why| ConfigError::in_file(path, why))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.split(|byte| *byte == b'\n').count();
        ConfigError::on_line(path, line, "is not UTF-8 text")
    })
}

fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let dir = path.with_extension("d");
    match fs::metadata(&dir) {
        // A main file without a drop-in directory, or itself called NAME.d.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(_) if dir == path => return Ok(Vec::new()),
        Ok(found) if !found.is_dir() => {
            return Err(ConfigError::in_file(&dir, "is a file, but must be a directory of drop-ins"));
        }
        Ok(_) | Err(_) => (),
    }

    let unreadable = |error| ConfigError::in_file(&dir, file::why(&error));
    let mut files = Vec::new();
    for entry in fs::read_dir(&dir).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if is_drop_in(&name) {
            files.push(dir.join(name));
        }
    }
    files.sort();
    Ok(files)
}

fn is_drop_in(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b".toml") && !name.starts_with(b".")
}
