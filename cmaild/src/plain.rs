//! Text of others, made harmless to show. An address, a log line or a server's reply may hold anything; in a mail it must
//! neither begin a header, nor pose as another part of the mail, nor turn the reading direction around.

use common::text::turns_direction;

/// Characters of an address in a text. A unit may have a thousand.
pub(crate) const ADDRESS_CHARS: usize = 400;

/// `text` on one line of at most `max_chars` characters. What could begin an encoded word (RFC 2047) is broken up, or a
/// reader would decode what was not encoded.
pub(crate) fn line(text: &str, max_chars: usize) -> String {
    let mut line: String = text.chars().take(max_chars).map(|c| if c.is_control() { ' ' } else { shown(c) }).collect();
    if text.chars().nth(max_chars).is_some() {
        line.pop();
        line.push('…');
    }
    line.replace("=?", "= ?")
}

/// The lines of `text`. At most `max_chars` characters; says where it is cut.
pub(crate) fn lines(text: &str, max_chars: usize) -> Vec<String> {
    let kept: String = text.chars().take(max_chars).collect();
    let harmless = |line: &str| line.trim_end().chars().map(|c| if c == '\t' { ' ' } else { shown(c) }).collect();
    let mut lines: Vec<String> = kept.lines().map(harmless).collect();
    if text.chars().nth(max_chars).is_some() {
        lines.push("… (cut here)".to_owned());
    }
    lines
}

/// What cannot be seen, or turns what can be seen around, is shown as a mark in its place.
fn shown(c: char) -> char {
    match c {
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).expect("the control pictures follow each other"),
        '\u{7f}' => '\u{2421}',
        '\u{2028}' | '\u{2029}' => char::REPLACEMENT_CHARACTER,
        c if turns_direction(c) => char::REPLACEMENT_CHARACTER,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(line("a\r\nBcc: x@y\0\u{202e}z\u{85}", 100), "a  Bcc: x@y \u{fffd}z ");
        assert_eq!(line("abcdef", 4), "abc…");
        assert_eq!(line("=?utf-8?q?x?=", 100), "= ?utf-8?q?x?=");
    }

    #[test]
    fn a_text_keeps_its_lines() {
        assert_eq!(lines("one\r\n\r\ntwo\u{1b}[31m\tthree", 100), ["one", "", "two␛[31m three"]);
        assert_eq!(lines("abcdef", 4), ["abcd", "… (cut here)"]);
        assert_eq!(lines("", 4), Vec::<String>::new());
    }
}
