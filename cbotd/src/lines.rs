//! Lines out of what a server sends, however it is cut or made up.

/// Of a message without tags, with its line break (RFC 2812 section 2.3).
pub(crate) const MAX_LINE_BYTES: usize = 512;
/// Of the tags before it (IRCv3 message tags).
const MAX_TAG_BYTES: usize = 8191;
const MAX_BYTES: usize = MAX_LINE_BYTES + MAX_TAG_BYTES;

/// More without a line break than any line has: not a server's speech.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {MAX_BYTES} bytes")]
pub(crate) struct Endless;

/// What was received and not yet read. Holds at most one line and what was added last.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    bytes: Vec<u8>,
    read: usize,
    /// Lines that are longer than they may be, and were dropped.
    pub(crate) too_long: u64,
}

impl Lines {
    /// Adds what was received. Read every line before the next is added.
    pub(crate) fn add(&mut self, received: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(received);
    }

    /// The next whole line without its end. Empty ones are skipped, and so is what is too long; what is no UTF-8 is
    /// replaced by U+FFFD.
    pub(crate) fn next(&mut self) -> Result<Option<String>, Endless> {
        loop {
            let rest = &self.bytes[self.read..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                if rest.len() <= MAX_BYTES {
                    return Ok(None);
                }
                self.too_long += 1;
                return Err(Endless);
            };
            let line = &rest[..end];
            self.read += end + 1;
            let most = if line.starts_with(b"@") { MAX_BYTES } else { MAX_LINE_BYTES };
            if end + 1 > most {
                self.too_long += 1;
                continue;
            }
            let line = String::from_utf8_lossy(line);
            let line = line.trim_end_matches('\r');
            if !line.is_empty() {
                return Ok(Some(line.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines, received: &[u8]) -> Result<Vec<String>, Endless> {
        lines.add(received);
        let mut found = Vec::new();
        while let Some(line) = lines.next()? {
            found.push(line);
        }
        Ok(found)
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let mut lines = Lines::default();
        assert_eq!(all(&mut lines, b"PING :a\r\nPI"), Ok(vec!["PING :a".to_owned()]));
        assert_eq!(all(&mut lines, b"NG :b\r"), Ok(vec![]));
        assert_eq!(all(&mut lines, b"\n\r\n\nx\xff\n"), Ok(vec!["PING :b".to_owned(), "x\u{fffd}".to_owned()]));
    }

    #[test]
    fn long_lines_are_dropped_and_endless_ones_refused() {
        let mut lines = Lines::default();
        let long = [&[b'x'; 512][..], b"\nshort\n"].concat();
        assert_eq!(all(&mut lines, &long), Ok(vec!["short".to_owned()]));
        assert_eq!(lines.too_long, 1);
        let tagged = [b"@", &[b'x'; 8000][..], b" PING :a\n"].concat();
        assert_eq!(all(&mut lines, &tagged).map(|l| l.len()), Ok(1));
        assert_eq!(all(&mut lines, &[b'x'; MAX_BYTES]), Ok(vec![]));
        assert_eq!(all(&mut lines, b"x"), Err(Endless));
    }
}
