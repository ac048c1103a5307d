//! Text of others, made harmless to show. An address, a log line or a server's reply may hold anything; in a mail it must
//! neither begin a header, nor pose as another part of the mail, nor turn the reading direction around.

use common::text::turns_direction;

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

/// `text` as a paragraph, each of its lines indented: it cannot pose as a line of ours. At most `max_chars` characters.
pub(crate) fn indented(text: &str, max_chars: usize) -> String {
    let kept: String = text.chars().take(max_chars).collect();
    let mut paragraph = String::with_capacity(kept.len() + 16);
    for text_line in kept.lines() {
        paragraph.push_str("    ");
        paragraph.extend(text_line.trim_end().chars().map(|c| match c {
            '\t' => ' ',
            c => shown(c),
        }));
        paragraph.push('\n');
    }
    if text.chars().nth(max_chars).is_some() {
        paragraph.push_str("    … (cut here)\n");
    }
    paragraph
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
    fn a_paragraph_keeps_its_lines_and_cannot_pose_as_ours() {
        assert_eq!(indented("one\r\n\r\ntwo\u{1b}[31m\tthree", 100), "    one\n    \n    two␛[31m three\n");
        assert_eq!(indented("abcdef", 4), "    abcd\n    … (cut here)\n");
        assert_eq!(indented("", 4), "");
    }
}
