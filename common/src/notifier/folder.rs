//! The medium that needs nothing: a folder of files. What a fresh install tells through until somebody configures better.

use crate::notifier::Outcome;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A folder in which each message becomes one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// Messages go to `dir`, which is made when the first one does.
    pub fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes one message: synced under another name, then renamed, so that a file that is there is whole. `name` must be
    /// the same for the same message, which then replaces itself instead of being doubled.
    pub async fn write(&self, name: &str, bytes: &[u8]) -> Outcome {
        let (dir, name, bytes) = (self.0.clone(), name.to_owned(), bytes.to_owned());
        let written = tokio::task::spawn_blocking(move || write(&dir, &name, &bytes)).await;
        match written.expect("it does not panic") {
            Ok(path) => Outcome::Sent(format!("written to {}", path.display())),
            Err(error) => Outcome::unreachable(format!("cannot write to {}: {error}", self.0.display())),
        }
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let (hidden, path) = (dir.join(format!(".{name}")), dir.join(name));
    let mut file = File::create(&hidden)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&hidden, &path)?;
    File::open(dir)?.sync_all()?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_that_is_written_again_is_there_once_and_whole() {
        let dir = tempfile::tempdir().expect("folder");
        let folder = Folder::new(dir.path().join("new/mail"));
        assert!(matches!(folder.write("1.eml", b"one").await, Outcome::Sent(_)));
        assert!(matches!(folder.write("1.eml", b"one, again").await, Outcome::Sent(_)));
        let names: Vec<_> = fs::read_dir(folder.path()).expect("list").map(|f| f.expect("file").file_name()).collect();
        assert_eq!(names, ["1.eml"]);
        assert_eq!(fs::read(folder.path().join("1.eml")).expect("read"), b"one, again");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_tried_again_later() {
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join("file"), "").expect("file");
        let outcome = Folder::new(dir.path().join("file/mail")).write("1.eml", b"one").await;
        assert!(matches!(outcome, Outcome::Retry { maybe_accepted: false, .. }), "{outcome:?}");
    }
}
