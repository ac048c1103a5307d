//! Whether what was committed is still in the write-ahead log.
//!
//! SQLite takes from a log what is whole and forgets the rest without a word, since it cannot tell a commit that was never
//! finished from one that was damaged. The state then is an earlier one: sound, and wrong, because others hold places in
//! a journal that will be given out a second time. So the log is read before SQLite opens it: it is torn if whole frames of
//! the same log follow behind a broken one, or if the index beside it (`-shm`), which is written after the log is synced,
//! knows of more commits than the log has. <https://sqlite.org/walformat.html> has the formats.

use std::fs;
use std::path::Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Two copies of the header of the index, then how far the log was copied into the database.
const INDEX_HEADER: usize = 48;

/// True if commits that were synced are missing from the log of `database`. What cannot be read is not torn: SQLite
/// will say what is wrong with it.
pub(super) fn is_torn(wal: &Path, index: &Path) -> bool {
    let log = fs::read(wal).unwrap_or_default();
    let index = fs::read(index).ok().and_then(|bytes| Index::read(&bytes));
    let Some(log) = Log::read(&log) else {
        // A log is synced from its header on, so one that has frames had a header.
        return log.len() > HEADER + FRAME_HEADER || index.is_some_and(|index| index.is_needed());
    };
    let knows_more = |index: Index| index.salt == log.salt && index.is_needed() && index.committed > log.committed;
    log.is_broken || index.is_some_and(knows_more)
}

/// What a log has.
struct Log {
    salt: [u8; 8],
    /// The last frame that ends a commit, counted from 1; all up to it are whole.
    committed: u32,
    /// Frames of this log follow behind one that is not whole.
    is_broken: bool,
}

impl Log {
    /// None where there is no valid header.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (header, frames) = bytes.split_at_checked(HEADER)?;
        let big = match word(header, 0) {
            0x377f_0682 => false,
            0x377f_0683 => true,
            _ => return None,
        };
        let page_bytes = word(header, 8) as usize;
        if !page_bytes.is_power_of_two() || !(512..=65536).contains(&page_bytes) {
            return None;
        }
        let mut sum = add(big, (0, 0), &header[..24]);
        if sum != (word(header, 24), word(header, 28)) {
            return None;
        }
        let salt = header[16..24].try_into().ok()?;
        let (mut committed, mut is_whole, mut is_broken) = (0, true, false);
        for (frame, number) in frames.chunks_exact(FRAME_HEADER + page_bytes).zip(1..) {
            // Those of an earlier log in the same file have another salt.
            let is_ours = frame[8..16] == salt;
            sum = add(big, add(big, sum, &frame[..8]), &frame[FRAME_HEADER..]);
            let fits = is_ours && sum == (word(frame, 16), word(frame, 20));
            if is_whole && fits {
                let ends_commit = word(frame, 4) != 0;
                committed = if ends_commit { number } else { committed };
            } else if is_whole {
                is_whole = false;
            } else {
                is_broken |= is_ours;
            }
        }
        Some(Self { salt, committed, is_broken })
    }
}

/// What the index knows of the log.
struct Index {
    salt: [u8; 8],
    committed: u32,
    /// So many frames are in the database too.
    copied: u32,
}

impl Index {
    /// None where it is not whole, as after a power cut: it is never synced.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(INDEX_HEADER)?;
        if !rest.starts_with(header) {
            return None;
        }
        let native = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let salt = header[32..40].try_into().ok()?;
        Some(Self { salt, committed: native(header, 16)?, copied: native(rest, INDEX_HEADER)? })
    }

    fn is_needed(&self) -> bool {
        self.committed > self.copied
    }
}

/// The words of a log are big-endian, whatever its checksums are.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn add(big: bool, (mut first, mut second): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    for pair in bytes.chunks_exact(8) {
        let value = |at: usize| {
            let bytes = pair[at..at + 4].try_into().expect("four bytes");
            if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        first = first.wrapping_add(value(0)).wrapping_add(second);
        second = second.wrapping_add(value(4)).wrapping_add(first);
    }
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;
    use std::path::PathBuf;

    /// A log of 20 commits, copied while its database is open: what a crash leaves.
    fn left_by_a_crash(dir: &Path, copied: bool) -> (PathBuf, PathBuf) {
        let path = dir.join("x.db");
        let db = Connection::open(&path).expect("opens");
        db.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE a (n INTEGER)").expect("made");
        for n in 0..20 {
            db.execute("INSERT INTO a VALUES (?1)", [n]).expect("written");
        }
        if copied {
            db.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").expect("copied");
        }
        let (wal, index) = (dir.join("left-wal"), dir.join("left-shm"));
        fs::copy(dir.join("x.db-wal"), &wal).expect("copied");
        fs::copy(dir.join("x.db-shm"), &index).expect("copied");
        (wal, index)
    }

    fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).expect("read");
        change(&mut bytes);
        fs::write(path, bytes).expect("written");
    }

    #[test]
    fn what_a_crash_leaves_is_not_torn() {
        let dir = tempfile::tempdir().expect("folder");
        let (wal, index) = left_by_a_crash(dir.path(), false);
        assert!(!is_torn(&wal, &index));
        // The start of a transaction that was never committed.
        change(&wal, |bytes| bytes.extend(vec![7; 3000]));
        assert!(!is_torn(&wal, &index));
        assert!(!is_torn(&dir.path().join("none-wal"), &dir.path().join("none-shm")));
    }

    #[test]
    fn a_byte_in_the_middle_tears_it() {
        let dir = tempfile::tempdir().expect("folder");
        let (wal, index) = left_by_a_crash(dir.path(), false);
        change(&wal, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
        assert!(is_torn(&wal, &index));
        assert!(is_torn(&wal, &dir.path().join("none-shm")), "the log alone shows it");
    }

    #[test]
    fn a_log_cut_short_is_known_by_its_index() {
        let dir = tempfile::tempdir().expect("folder");
        let (wal, index) = left_by_a_crash(dir.path(), false);
        let whole = fs::metadata(&wal).expect("there").len();
        for left in [whole - 1, whole - 5000, 40, 0] {
            change(&wal, |bytes| bytes.truncate(usize::try_from(left).expect("small")));
            assert!(is_torn(&wal, &index), "{left}");
        }
        // What is in the database already may go.
        let dir = tempfile::tempdir().expect("folder");
        let (wal, index) = left_by_a_crash(dir.path(), true);
        change(&wal, |bytes| bytes.truncate(0));
        assert!(!is_torn(&wal, &index));
    }
}
