//! A mistake on its way from where serde finds it to the line that the operator reads.
//!
//! serde reports a mistake from the inside, without a place. On its way out it passes every table and array
//! it is in: the innermost adds the place, each adds its key.

use std::fmt::Display;
use std::path::PathBuf;

use serde::de::{self, Expected, Unexpected};

use super::error::{self, ConfigError};
use super::tree::{Entry, Node, Place, Value};

/// What serde refuses, so far without a file.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub(super) struct Mistake {
    what: What,
    /// None until the innermost value around the mistake is known.
    place: Option<Place>,
    /// From the inside to the outside.
    path: Vec<Step>,
    /// Only what follows from another: what is missing was taken out for a mistake of its own.
    follows: bool,
}

#[derive(Debug)]
enum What {
    UnknownKey {
        name: String,
        known: &'static [&'static str],
    },
    MissingKey(&'static str),
    /// Completes the sentence "KEY is `got`, but must be `must_be`".
    Wrong {
        got: String,
        must_be: String,
    },
    /// One table where an array of tables belongs: `[port]` was written for `[[port]]`.
    NotDoubled,
    /// The words of a `Deserialize` implementation outside this module, and the value they are about.
    Other {
        text: String,
        got: Option<String>,
    },
}

#[derive(Debug)]
enum Step {
    Key(String),
    /// An entry of an array. Not numbered: the line tells which, and drop-ins would shift the numbers.
    Element,
}

impl Mistake {
    fn new(what: What) -> Self {
        Self { what, place: None, path: Vec::new(), follows: false }
    }

    pub(super) fn wrong(got: impl Into<String>, must_be: impl Into<String>) -> Self {
        Self::new(What::Wrong { got: got.into(), must_be: must_be.into() })
    }

    pub(super) fn not(value: &Value, must_be: impl Into<String>) -> Self {
        Self::wrong(in_words(value.unexpected()), must_be)
    }

    pub(super) fn not_doubled() -> Self {
        Self::new(What::NotDoubled)
    }

    /// The mistake is in `node`, unless something further inside has claimed it.
    fn within(mut self, node: &Node) -> Self {
        if self.place.is_none() {
            self.place = Some(node.place);
            node.take_out();
            match &mut self.what {
                // Where serde buffers a table, the unknown key comes to light only behind it.
                What::UnknownKey { name, .. } => {
                    if let Value::Table(entries) = &node.value
                        && let Some(entry) = entries.iter().find(|entry| entry.key == *name)
                    {
                        self.place = Some(entry.place);
                    }
                }
                What::Other { got, .. } => *got = node.value.as_text(),
                What::MissingKey(name) => self.follows = node.lacks(name),
                What::Wrong { .. } | What::NotDoubled => (),
            }
        }
        self
    }

    /// Whether it is news, and not only what follows from another.
    pub(super) fn is_news(&self, root: &Node) -> bool {
        let follows = matches!(&self.what, What::MissingKey(name) if self.place.is_none() && root.lacks(name));
        !(self.follows || follows)
    }

    /// Whether there may be others behind it: something smaller than the file was taken out for it.
    pub(super) fn leaves_the_rest(&self) -> bool {
        self.place.is_some()
    }

    /// The mistake is in the value of `entry`.
    pub(super) fn in_entry(self, entry: &Entry) -> Self {
        self.within(&entry.node).under(Step::Key(entry.key.clone()))
    }

    /// The mistake is in `node`, an entry of an array.
    pub(super) fn in_element(self, node: &Node) -> Self {
        self.within(node).under(Step::Element)
    }

    /// The mistake is the key of `entry`.
    pub(super) fn in_key(mut self, entry: &Entry) -> Self {
        self.place = Some(entry.place);
        entry.node.take_out();
        match self.what {
            // Has the key in its own words.
            What::UnknownKey { .. } => self,
            What::MissingKey(_) | What::Wrong { .. } | What::NotDoubled | What::Other { .. } => {
                self.under(Step::Key(entry.key.clone()))
            }
        }
    }

    fn under(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    /// The finished error, now that the mistake has left the tree.
    pub(super) fn at_root(self, root: &Node, files: &[PathBuf]) -> ConfigError {
        let place = self.place.unwrap_or(root.place);
        let file = &files[place.file];
        match &self.what {
            // About several keys at once: the first line is not where it is.
            What::Other { text, .. } if self.path.is_empty() => ConfigError::in_file(file, text),
            What::UnknownKey { .. }
            | What::MissingKey(_)
            | What::Wrong { .. }
            | What::NotDoubled
            | What::Other { .. } => ConfigError::on_line(file, place.line, self.text()),
        }
    }

    fn text(&self) -> String {
        match &self.what {
            What::UnknownKey { name, known } => {
                let key = self.key_of(name);
                if let Some(nearest) = error::nearest(name, known) {
                    format!("unknown key {key}, did you mean {nearest}?")
                } else if known.is_empty() {
                    format!("unknown key {key}, none is known here")
                } else {
                    format!("unknown key {key}, known here: {}", known.join(", "))
                }
            }
            What::MissingKey(name) => format!("missing key {}", self.key_of(name)),
            What::Wrong { got, must_be } => {
                format!("{} is {got}, but must be {must_be}", self.subject())
            }
            What::NotDoubled => {
                let path = self.path();
                format!("{} is a table, but must be an array: write [[{path}]]", self.subject())
            }
            What::Other { text, got: Some(got) } if !text.contains(got.as_str()) => {
                format!("{} is {got}: {text}", self.subject())
            }
            What::Other { text, .. } => format!("{}: {text}", self.subject()),
        }
    }

    /// The full name of the key `name` in the table that the mistake is in.
    fn key_of(&self, name: &str) -> String {
        let mut path = self.path();
        if !path.is_empty() {
            path.push('.');
        }
        path + &error::key(name)
    }

    fn subject(&self) -> String {
        match self.path.first() {
            Some(Step::Key(_)) => self.path(),
            Some(Step::Element) => format!("an entry of {}", self.path()),
            None => "the file".to_owned(),
        }
    }

    fn path(&self) -> String {
        let keys = self.path.iter().rev().filter_map(|step| match step {
            Step::Key(name) => Some(error::key(name)),
            Step::Element => None,
        });
        keys.collect::<Vec<_>>().join(".")
    }
}

impl de::Error for Mistake {
    fn custom<T: Display>(text: T) -> Self {
        Self::new(What::Other { text: text.to_string(), got: None })
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::wrong(in_words(unexpected), expectation(expected))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::wrong(in_words(unexpected), expectation(expected))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::wrong(array_of(length), expectation(expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::wrong(error::quoted(variant), one_of(expected))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(What::UnknownKey { name: field.to_owned(), known: expected })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(What::MissingKey(field))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::custom(format_args!("{field} is set twice, under two of its names"))
    }
}

fn in_words(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => format!("{value:?}"),
        Unexpected::Str(text) => error::quoted(text),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        Unexpected::Other(text) => text.to_owned(),
        other => other.to_string(),
    }
}

/// What serde expects, in the words of TOML.
fn expectation(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    let words = match text.as_str() {
        "i8" => "an integer from -128 to 127",
        "i16" => "an integer from -32768 to 32767",
        "i32" => "an integer from -2147483648 to 2147483647",
        "i64" | "isize" => "an integer",
        "u8" => "an integer from 0 to 255",
        "u16" => "an integer from 0 to 65535",
        "u32" => "an integer from 0 to 4294967295",
        "u64" | "usize" => "an integer of at least 0",
        "a nonzero u8" => "an integer from 1 to 255",
        "a nonzero u16" => "an integer from 1 to 65535",
        "a nonzero u32" => "an integer from 1 to 4294967295",
        "a nonzero u64" | "a nonzero usize" => "an integer of at least 1",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "a table",
        "path string" => "a path",
        _ if text.starts_with("struct ") => "a table",
        _ => match text.strip_prefix("a tuple of size ") {
            Some(length) => return format!("an array of {length}"),
            None => return text,
        },
    };
    words.to_owned()
}

pub(super) fn array_of(length: usize) -> String {
    format!("an array of {length}")
}

pub(super) fn one_of(variants: &[&str]) -> String {
    format!("one of {}", variants.join(", "))
}

impl Value {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::String(text) => Unexpected::Str(text),
            Self::Integer(value) => Unexpected::Signed(*value),
            Self::Unsigned(value) => Unexpected::Unsigned(*value),
            Self::Float(value) => Unexpected::Float(*value),
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Date(text) | Self::Unusable { text, .. } => Unexpected::Other(text),
            Self::Array(_) => Unexpected::Seq,
            Self::Table(_) => Unexpected::Map,
        }
    }

    /// A value short enough to be quoted.
    pub(super) fn as_text(&self) -> Option<String> {
        match self {
            Self::Array(_) | Self::Table(_) => None,
            Self::String(_)
            | Self::Integer(_)
            | Self::Unsigned(_)
            | Self::Float(_)
            | Self::Bool(_)
            | Self::Date(_)
            | Self::Unusable { .. } => Some(in_words(self.unexpected())),
        }
    }
}
