//! Reads globs and compares them with one part of an address.
//!
//! A pattern is read into tokens before it is split at its separators: only then is it known which
//! `!`, `.` and `:` separate, and which are escaped or stand inside `[...]`.

use std::str::Chars;

/// One element of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// This character.
    Literal(char),
    /// An unescaped `!`, `.` or `:`. Where it separates nothing it stands for itself.
    Separator(char),
    /// `?`, any one character.
    One,
    /// `*`, any characters, or none.
    Many,
    /// `[ab]`, `[a-z]` or `[!a]`: one character that is in a range, or in none of them.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Token {
    /// The character this token stands for, if it is only one.
    pub(super) fn literal(&self) -> Option<char> {
        match self {
            Self::Literal(c) | Self::Separator(c) => Some(*c),
            Self::One | Self::Many | Self::Class { .. } => None,
        }
    }

    /// Whether a parenthesis is written in it.
    pub(super) fn names_parenthesis(&self) -> bool {
        let is_parenthesis = |c: &char| matches!(c, '(' | ')');
        match self {
            Self::Literal(c) | Self::Separator(c) => is_parenthesis(c),
            Self::One | Self::Many => false,
            Self::Class { ranges, .. } => ranges.iter().any(|(from, to)| is_parenthesis(from) || is_parenthesis(to)),
        }
    }

    fn accepts(&self, c: char) -> bool {
        match self {
            Self::Literal(own) | Self::Separator(own) => *own == c,
            Self::One | Self::Many => true,
            Self::Class { negated, ranges } => ranges.iter().any(|&(from, to)| (from..=to).contains(&c)) != *negated,
        }
    }
}

/// Reads a pattern; the error is a phrase about it.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Many,
            '?' => Token::One,
            '[' => class(&mut chars)?,
            '\\' => Token::Literal(escaped(&mut chars)?),
            '!' | '.' | ':' => Token::Separator(c),
            _ => Token::Literal(c),
        });
    }
    Ok(tokens)
}

fn escaped(chars: &mut Chars<'_>) -> Result<char, String> {
    chars.next().ok_or_else(|| r"ends in `\`, which must have a character after it".to_owned())
}

/// Reads on behind a `[`.
fn class(chars: &mut Chars<'_>) -> Result<Token, String> {
    let negated = chars.as_str().starts_with('!');
    if negated {
        chars.next();
    }
    let mut ranges = Vec::new();
    while let Some(from) = member(chars)? {
        let to = if chars.as_str().starts_with('-') && !chars.as_str().starts_with("-]") {
            chars.next();
            member(chars)?.unwrap_or(from)
        } else {
            from
        };
        if from > to {
            return Err(format!("has the range `{from}-{to}`, which must go upwards"));
        }
        ranges.push((from, to));
    }
    if ranges.is_empty() {
        return Err(r"has an empty `[]`; a `]` inside is written `\]`".to_owned());
    }
    Ok(Token::Class { negated, ranges })
}

/// The next character of a class, or `None` at its end.
fn member(chars: &mut Chars<'_>) -> Result<Option<char>, String> {
    match chars.next() {
        None => Err("has a `[` without its `]`".to_owned()),
        Some(']') => Ok(None),
        Some('\\') => escaped(chars).map(Some),
        Some(c) => Ok(Some(c)),
    }
}

/// A glob for one part. The two forms that nearly all parts have are compared without a walk.
#[derive(Debug, Clone)]
pub(super) enum Glob {
    Anything,
    Literal(Box<str>),
    Mixed(Box<[Token]>),
}

impl Glob {
    pub(super) fn new(tokens: &[Token]) -> Self {
        if tokens == [Token::Many] {
            return Self::Anything;
        }
        match tokens.iter().map(Token::literal).collect::<Option<String>>() {
            Some(text) => Self::Literal(text.into()),
            None => Self::Mixed(tokens.into()),
        }
    }

    pub(super) fn literal(&self) -> Option<&str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Anything | Self::Mixed(_) => None,
        }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Literal(own) => **own == *text,
            Self::Mixed(tokens) => walk(tokens, text),
        }
    }
}

/// Going back to the last `*` alone is enough: whatever an earlier one could take differently, the
/// last one can take too. So the cost is at most the product of the lengths.
fn walk(tokens: &[Token], text: &str) -> bool {
    let mut chars = text.chars();
    let mut at = 0;
    let mut retry: Option<(usize, Chars<'_>)> = None;
    loop {
        let before = chars.clone();
        match (tokens.get(at), chars.next()) {
            (Some(Token::Many), _) => {
                at += 1;
                if at == tokens.len() {
                    return true;
                }
                retry = Some((at, before.clone()));
                chars = before;
                continue;
            }
            (Some(token), Some(c)) if token.accepts(c) => {
                at += 1;
                continue;
            }
            // A later start leaves even less text.
            (Some(_), None) => return false,
            (None, None) => return true,
            (Some(_) | None, Some(_)) => (),
        }
        let Some((after, from)) = &mut retry else {
            return false;
        };
        from.next();
        at = *after;
        chars = from.clone();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn matches(glob: &str, text: &str) -> bool {
        Glob::new(&tokens(glob).unwrap()).matches(text)
    }

    #[track_caller]
    fn refused(glob: &str) -> String {
        tokens(glob).unwrap_err()
    }

    /// The definition of a glob, exponential and plainly right.
    fn naive(glob: &[&str], text: &[char]) -> bool {
        let Some((first, glob)) = glob.split_first() else {
            return text.is_empty();
        };
        if *first == "*" {
            return (0..=text.len()).any(|taken| naive(glob, &text[taken..]));
        }
        let Some((c, text)) = text.split_first() else {
            return false;
        };
        let accepted = match *first {
            "?" => true,
            "[ab]" => "ab".contains(*c),
            "[!a]" => *c != 'a',
            "[b-ä]" => ('b'..='ä').contains(c),
            r"\*" => *c == '*',
            literal => literal.starts_with(*c),
        };
        accepted && naive(glob, text)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_glob_agrees_with_its_definition(
            glob in prop::collection::vec(
                prop::sample::select(vec!["a", "b", "ä", "*", "*", "?", "[ab]", "[!a]", "[b-ä]", r"\*"]),
                0..8,
            ),
            text in "[abcä*]{0,8}",
        ) {
            let chars: Vec<char> = text.chars().collect();
            prop_assert_eq!(matches(&glob.concat(), &text), naive(&glob, &chars));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in r"[\[\]!\\*a-c-]{0,12}") {
            let _ = tokens(&text);
        }
    }

    #[test]
    fn a_class_holds_characters_ranges_and_escapes() {
        assert!(matches("[a-c]", "b"));
        assert!(!matches("[a-c]", "d"));
        assert!(matches("[!a-c]", "d"));
        assert!(!matches("[!a-c]", ""));
        assert!(matches("[a-]", "-"));
        assert!(matches("[-a]", "-"));
        assert!(matches(r"[\]]", "]"));
        assert!(matches(r"[\!a]", "!"));
        assert!(matches(r"[+-\]]", "A"));
    }

    #[test]
    fn an_escape_makes_a_literal() {
        assert!(matches(r"\*\?\[\\", r"*?[\"));
        assert!(!matches(r"\*", "a"));
        assert!(matches("a]", "a]"));
    }

    #[test]
    fn a_broken_glob_is_refused_with_the_reason() {
        assert_eq!(refused("web[12"), "has a `[` without its `]`");
        assert_eq!(refused("web[1-"), "has a `[` without its `]`");
        assert_eq!(refused("web\\"), r"ends in `\`, which must have a character after it");
        assert_eq!(refused("[!]"), r"has an empty `[]`; a `]` inside is written `\]`");
        assert_eq!(refused("[z-a]"), "has the range `z-a`, which must go upwards");
    }

    #[test]
    fn many_stars_on_a_long_text_take_no_time() {
        let started = Instant::now();
        let glob = format!("{}b", "*a".repeat(500));
        assert!(!matches(&glob, &"a".repeat(1024)));
        assert!(matches(&glob, &format!("{}b", "a".repeat(1024))));
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}
