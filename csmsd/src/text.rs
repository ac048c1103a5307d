//! How long a text is. A short message carries 140 bytes: 160 characters of the GSM alphabet (3GPP TS 23.038), or 70 units
//! of UTF-16 as soon as one character is outside of it; a longer text is several messages that the telephone puts together
//! again, each of which is paid for and loses 6 bytes to the header that says so (3GPP TS 23.040).
//!
//! One typographic quotation mark would thus more than halve what fits, so common characters that the alphabet lacks are
//! replaced by their nearest relatives first. Latin letters with marks that it lacks lose the mark, but only where that saves
//! the whole text: a name changes no more than it must, and one in another script not at all.

use common::text::turns_direction;
use std::ops::RangeInclusive;

/// The basic table, without the escape to the extension. Each is one septet.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡\
                     ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// The extension table. Each is two septets: the escape, and itself.
const EXTENSION: &str = "\u{c}^{}\\[~]|€";

/// What a provider takes. A text fits if it is within all that are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Short messages that one text may be; with it, the text is written in plain characters.
    pub(crate) segments: Option<usize>,
    /// Characters (Unicode scalar values).
    pub(crate) chars: Option<usize>,
}

impl Limit {
    /// Whether `text` is within it, with this many characters of the basic table to come.
    pub(crate) fn fits(self, text: &str, reserve: usize) -> bool {
        self.chars.is_none_or(|most| text.chars().count() + reserve <= most)
            && self.segments.is_none_or(|most| segments(text, reserve) <= most)
    }

    /// `text`, with its end left out and the dots that say so, if it does not fit otherwise.
    pub(crate) fn cut(self, text: &str, reserve: usize) -> String {
        if self.fits(text, reserve) {
            return text.to_owned();
        }
        let dots = if self.segments.is_some() { "..." } else { "…" };
        let ends: Vec<usize> = text.char_indices().map(|(index, _)| index).collect();
        // What fits still fits with less: a shorter text is never in the dearer alphabet.
        let end = ends.partition_point(|&end| self.fits(&format!("{}{dots}", &text[..end]), reserve));
        format!("{}{dots}", &text[..ends[end.saturating_sub(1)]])
    }
}

/// Whether all of it is in the GSM alphabet.
pub(crate) fn is_gsm(text: &str) -> bool {
    text.chars().all(|c| septets(c).is_some())
}

fn septets(c: char) -> Option<usize> {
    if BASIC.contains(c) {
        Some(1)
    } else if EXTENSION.contains(c) {
        Some(2)
    } else {
        None
    }
}

/// How many short messages it takes to carry `text` and `reserve` more characters of the basic table. Neither an escape nor
/// a surrogate pair is split over two.
pub(crate) fn segments(text: &str, reserve: usize) -> usize {
    let gsm = is_gsm(text);
    let (alone, part) = if gsm { (160, 153) } else { (70, 67) };
    let costs = text.chars().map(|c| if gsm { septets(c).expect("all are in the alphabet") } else { c.len_utf16() });
    let costs = costs.chain(std::iter::repeat_n(1, reserve));
    if costs.clone().sum::<usize>() <= alone {
        return 1;
    }
    let (mut segments, mut used) = (1, 0);
    for cost in costs {
        if used + cost > part {
            segments += 1;
            used = 0;
        }
        used += cost;
    }
    segments
}

/// Latin letters that the GSM alphabet lacks, behind what stands for them in it.
const RELATIVES: [(&str, &str); 51] = [
    ("A", "ÀÁÂÃĀĂĄ"),
    ("a", "áâãāăą"),
    ("C", "ĆĈĊČ"),
    ("c", "çćĉċč"),
    ("D", "ĎĐÐ"),
    ("d", "ďđð"),
    ("E", "ÈÊËĒĔĖĘĚ"),
    ("e", "êëēĕėęě"),
    ("G", "ĜĞĠĢ"),
    ("g", "ĝğġģ"),
    ("H", "ĤĦ"),
    ("h", "ĥħ"),
    ("I", "ÌÍÎÏĨĪĬĮİ"),
    ("i", "íîïĩīĭįı"),
    ("J", "Ĵ"),
    ("j", "ĵ"),
    ("K", "Ķ"),
    ("k", "ķĸ"),
    ("L", "ĹĻĽĿŁ"),
    ("l", "ĺļľŀł"),
    ("N", "ŃŅŇŊ"),
    ("n", "ńņňŉŋ"),
    ("O", "ÒÓÔÕŌŎ"),
    ("o", "óôõōŏ"),
    ("Ö", "Ő"),
    ("ö", "ő"),
    ("OE", "Œ"),
    ("oe", "œ"),
    ("R", "ŔŖŘ"),
    ("r", "ŕŗř"),
    ("S", "ŚŜŞŠȘ"),
    ("s", "śŝşšșſ"),
    ("SS", "ẞ"),
    ("T", "ŢŤŦȚ"),
    ("t", "ţťŧț"),
    ("Th", "Þ"),
    ("th", "þ"),
    ("U", "ÙÚÛŨŪŬŮŲ"),
    ("u", "úûũūŭůų"),
    ("Ü", "Ű"),
    ("ü", "ű"),
    ("W", "ŴẀẂẄ"),
    ("w", "ŵẁẃẅ"),
    ("Y", "ÝŶŸỲ"),
    ("y", "ýÿŷỳ"),
    ("Z", "ŹŻŽ"),
    ("z", "źżž"),
    ("AE", "Ǽ"),
    ("ae", "ǽ"),
    ("Ø", "Ǿ"),
    ("ø", "ǿ"),
];
/// Marks that stand behind their letter as characters of their own (the block of combining diacritical marks).
const MARKS: RangeInclusive<char> = '\u{300}'..='\u{36f}';

/// The text as short messages carry it for the least money: in the GSM alphabet, if punctuation and the marks of Latin letters
/// are all that is in the way.
pub(crate) fn cheap(text: &str) -> String {
    let plain = plain(text);
    if is_gsm(&plain) {
        return plain;
    }
    let mut cheap = String::with_capacity(plain.len());
    for c in plain.chars().filter(|c| !MARKS.contains(c)) {
        match RELATIVES.iter().find(|(_, lacking)| lacking.contains(c)) {
            Some((relative, _)) => cheap.push_str(relative),
            None => cheap.push(c),
        }
    }
    if is_gsm(&cheap) { cheap } else { plain }
}

/// The text in the GSM alphabet as far as punctuation goes.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '“' | '”' | '„' | '‟' | '«' | '»' | '″' => plain.push('"'),
            '‘' | '’' | '‚' | '‛' | '‹' | '›' | '′' | '´' | '`' => plain.push('\''),
            '‐' | '‑' | '‒' | '–' | '—' | '―' | '−' => plain.push('-'),
            '…' => plain.push_str("..."),
            '•' | '·' | '‣' => plain.push('*'),
            '×' => plain.push('x'),
            '→' => plain.push_str("->"),
            '←' => plain.push_str("<-"),
            '≤' => plain.push_str("<="),
            '≥' => plain.push_str(">="),
            '≠' => plain.push_str("!="),
            '°' => plain.push_str(" deg "),
            'µ' | 'μ' => plain.push('u'),
            '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}' => (),
            c if turns_direction(c) => (),
            // A text is one line. Form feed is in the alphabet, but nothing that people write.
            c if c.is_whitespace() || c.is_control() => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_have_the_standards_size() {
        // 128 places, one of which is the escape.
        assert_eq!(BASIC.chars().count(), 127);
        assert_eq!(EXTENSION.chars().count(), 10);
    }

    #[test]
    fn a_text_of_the_gsm_alphabet_is_counted_in_septets() {
        assert_eq!(segments("", 0), 1);
        assert_eq!(segments(&"a".repeat(160), 0), 1);
        assert_eq!(segments(&"a".repeat(161), 0), 2);
        assert_eq!(segments(&"ä".repeat(306), 0), 2);
        assert_eq!(segments(&"ä".repeat(307), 0), 3);
        assert_eq!(segments(&"€".repeat(80), 0), 1);
        // 76 escaped characters are 152 septets; the 77th would be torn, so it opens the next segment.
        assert_eq!(segments(&"€".repeat(152), 0), 2);
        assert_eq!(segments(&"€".repeat(153), 0), 3);
        assert_eq!(segments(&"a".repeat(155), 6), 2);
    }

    #[test]
    fn one_character_outside_of_it_costs_more_than_half() {
        assert_eq!(segments(&"я".repeat(70), 0), 1);
        assert_eq!(segments(&"я".repeat(71), 0), 2);
        assert_eq!(segments(&"я".repeat(134), 0), 2);
        assert_eq!(segments(&"я".repeat(135), 0), 3);
        // Pairs: 33 of them in a segment of 67 units, never half a pair.
        assert_eq!(segments(&"😀".repeat(35), 0), 1);
        assert_eq!(segments(&"😀".repeat(66), 0), 2);
        assert_eq!(segments(&"😀".repeat(67), 0), 3);
    }

    /// By libraries that are not ours: see tests/contracts/segments.cjs.
    #[test]
    fn twilios_calculator_and_split_sms_count_the_same() {
        let mut counted = 0;
        for line in include_str!("../fixtures/segments.jsonl").lines() {
            let (text, expected): (String, usize) = serde_json::from_str(line).expect("a text and a number");
            assert_eq!(segments(&text, 0), expected, "{text}");
            counted += 1;
        }
        assert!(counted > 400, "{counted}");
    }

    #[test]
    fn punctuation_does_not_force_the_dearer_alphabet() {
        let text = plain("“/var” – 95 % ≥ 90 %… `df`\u{a0}‘ok’\u{200b} 71°C");
        assert_eq!(text, "\"/var\" - 95 % >= 90 %... 'df' 'ok' 71 deg C");
        assert!(is_gsm(&text));
        assert_eq!(plain("Müller über Łódź"), "Müller über Łódź");
    }

    #[test]
    fn letters_lose_their_marks_only_where_that_saves_the_text() {
        assert_eq!(cheap("Müller über Łódź, “Árvíztűrő tükörfúrógép”"), "Müller über Lodz, \"Arviztürö tükörfurogép\"");
        assert_eq!(
            cheap("français, œuvre; İstanbul ağ; Žižkov; e\u{301}tat"),
            "francais, oeuvre; Istanbul ag; Zizkov; etat"
        );
        // What is in the alphabet stays.
        assert_eq!(
            cheap("é è ù ì ò Ç Ø ø Æ æ ß É Ñ ñ à ä ö ü Ä Ö Ü Å å"),
            "é è ù ì ò Ç Ø ø Æ æ ß É Ñ ñ à ä ö ü Ä Ö Ü Å å"
        );
        // Nothing is saved, so nothing changes.
        assert_eq!(cheap("Łódź и Москва"), "Łódź и Москва");
        assert_eq!(cheap("Łódź 😀"), "Łódź 😀");
        assert_eq!(cheap("сервер недоступен"), "сервер недоступен");
    }

    #[test]
    fn every_relative_is_in_the_alphabet_and_what_it_stands_for_is_not() {
        for (relative, lacking) in RELATIVES {
            assert!(is_gsm(relative), "{relative}");
            assert!(lacking.chars().all(|c| septets(c).is_none()), "{lacking}");
        }
    }

    #[test]
    fn what_is_too_long_ends_in_dots() {
        let one = Limit { segments: Some(1), chars: None };
        assert_eq!(one.cut(&"a".repeat(160), 0), "a".repeat(160));
        assert_eq!(one.cut(&"a".repeat(161), 0), format!("{}...", "a".repeat(157)));
        assert_eq!(one.cut(&"a".repeat(160), 9), format!("{}...", "a".repeat(148)));
        assert_eq!(one.cut(&"я".repeat(71), 0), format!("{}...", "я".repeat(67)));
        assert_eq!(one.cut(&"😀".repeat(40), 0), format!("{}...", "😀".repeat(33)));
        // Only the end is outside of the alphabet, and it is cut off.
        assert_eq!(one.cut(&format!("{}я", "a".repeat(150)), 0), format!("{}...", "a".repeat(150)));
        let push = Limit { segments: None, chars: Some(5) };
        assert_eq!(push.cut("abcdef", 0), "abcd…");
        assert_eq!(push.cut("я😀яяя", 0), "я😀яяя");
    }

    #[test]
    fn both_limits_hold() {
        let both = Limit { segments: Some(2), chars: Some(10) };
        assert!(both.fits("0123456789", 0) && !both.fits("01234567890", 0));
    }
}
