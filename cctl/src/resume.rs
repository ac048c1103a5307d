//! Where a file of events ends. `cctl watch --to FILE` may be killed at any moment, also by a power failure: the last
//! line may be torn, and what was written last may be zeros. What is behind the last whole event is cut off, and the
//! journal has it still.

use common::message::Epoch;
use common::subscriber::Cursor;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Read from the end of the file at first; doubled until there is a whole event in it.
const FIRST_LOOK_BYTES: u64 = 64 << 10;

/// What to do before the next event is appended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resume {
    /// The length to cut the file to.
    pub(crate) keep_bytes: u64,
    /// The last event in it; absent if there is none.
    pub(crate) last: Option<Cursor>,
}

/// Why nothing is cut off or appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResumeError {
    /// A wrong file name must not cost anybody a file.
    #[error("it holds something else than events")]
    NotEvents,
    /// The system said so.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The part of the file that was looked at says this.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Go on from here.
    Enough(Resume),
    /// The answer lies before the part.
    More,
    /// Neither events nor what is left of them.
    NotEvents,
}

/// Looks at the file from its end, as far as needed.
pub(crate) fn find(file: &mut File) -> Result<Resume, ResumeError> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut part_bytes = FIRST_LOOK_BYTES;
    loop {
        let starts_at = length.saturating_sub(part_bytes);
        file.seek(SeekFrom::Start(starts_at))?;
        let mut part = Vec::new();
        file.take(length - starts_at).read_to_end(&mut part)?;
        match look(&part, starts_at) {
            Look::Enough(resume) => return Ok(resume),
            Look::NotEvents => return Err(ResumeError::NotEvents),
            Look::More => part_bytes = part_bytes.saturating_mul(2),
        }
    }
}

/// Judges the end of a file: `part` begins at `starts_at` and goes to the end.
fn look(part: &[u8], starts_at: u64) -> Look {
    let mut end = part.len();
    loop {
        // From the end of the line before to `end`: a line, or at the very end what is left of one.
        let line_end = part[..end].strip_suffix(b"\n").map_or(end, <[u8]>::len);
        let start = part[..line_end].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        if start == 0 && starts_at > 0 {
            return Look::More;
        }
        let line = &part[start..line_end];
        if end == 0 {
            return Look::Enough(Resume { keep_bytes: 0, last: None });
        }
        let whole = line_end < end;
        if let (true, Some(last)) = (whole, place(line)) {
            return Look::Enough(Resume { keep_bytes: starts_at + end as u64, last: Some(last) });
        }
        // Of an event a beginning is left, or zeros that were never written.
        let remains_of_event = matches!(line.first(), Some(b'{' | 0));
        // A file without any whole event may be the remains of its first, not of many.
        let only_first = start == 0 && !whole;
        if !remains_of_event || (start == 0 && !only_first) {
            return Look::NotEvents;
        }
        end = start;
    }
}

/// The place that the event in this line has in its journal.
fn place(line: &[u8]) -> Option<Cursor> {
    #[derive(Deserialize)]
    struct Place {
        epoch: Epoch,
        seq: u64,
    }
    let Place { epoch, seq } = serde_json::from_slice(line).ok()?;
    Some(Cursor { epoch: Some(epoch), seq })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn event(seq: u64) -> String {
        format!("{{\"epoch\":\"e1\",\"seq\":{seq},\"text\":\"ü\"}}\n")
    }

    /// Looks at a file of this content, and says what is kept.
    fn found(content: &str) -> Result<(usize, Option<u64>), ResumeError> {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(content.as_bytes()).expect("written");
        let resume = find(&mut file)?;
        Ok((resume.keep_bytes.try_into().expect("small"), resume.last.map(|cursor| cursor.seq)))
    }

    #[track_caller]
    fn keeps(content: &str, kept: &str, last: Option<u64>) {
        assert_eq!(found(content).expect("events"), (kept.len(), last));
    }

    #[test]
    fn a_whole_file_goes_on_after_its_last_line() {
        keeps("", "", None);
        keeps(&event(1), &event(1), Some(1));
        let three = [event(1), event(2), event(3)].concat();
        keeps(&three, &three, Some(3));
    }

    #[test]
    fn wherever_the_last_line_was_torn_it_is_cut_off() {
        let (whole, torn) = (event(1), event(2));
        for length in 1..torn.len() {
            if torn.is_char_boundary(length) {
                keeps(&format!("{whole}{}", &torn[..length]), &whole, Some(1));
            }
        }
    }

    #[test]
    fn a_first_line_that_was_torn_leaves_nothing() {
        keeps("{\"epo", "", None);
        keeps("\0\0\0", "", None);
    }

    #[test]
    fn lines_that_a_power_failure_left_half_written_are_cut_off() {
        let whole = event(1);
        keeps(&format!("{whole}{{\"epoch\":\"e1\",\0\0\0\0}}\n"), &whole, Some(1));
        keeps(&format!("{whole}\0\0\0\0\n{{\"seq\":3}}\n{{\"a\""), &whole, Some(1));
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        for content in ["root:x:0:0:root\n", "hello", "\n", "[1]\n", "{\"a\": 1}\n", "{\"a\": 1}\nb"] {
            assert!(matches!(found(content), Err(ResumeError::NotEvents)), "{content:?}");
        }
        let mixed = format!("{}some text\n", event(1));
        assert!(matches!(found(&mixed), Err(ResumeError::NotEvents)));
    }

    #[test]
    fn an_event_longer_than_a_look_is_found() {
        let long = format!("{{\"epoch\":\"e1\",\"seq\":2,\"text\":\"{}\"}}\n", "x".repeat(300_000));
        let whole = format!("{}{long}", event(1));
        keeps(&whole, &whole, Some(2));
        keeps(&whole[..whole.len() - 1], &event(1), Some(1));
        keeps(&long, &long, Some(2));
    }
}
