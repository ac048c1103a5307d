//! Turns a located tree into a raw struct, and keeps the place and the key of whatever is refused.
//!
//! serde reports a mistake from the inside, without a place. On its way out it passes every table and array
//! it is in: the innermost adds the place, each adds its key.

use std::fmt::Display;
use std::path::PathBuf;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::error::{self, ConfigError};
use super::tree::{Entry, Node, Place, Value};

/// A mistake on its way out.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub(super) struct Mistake {
    what: What,
    /// None until the innermost value around the mistake is known.
    place: Option<Place>,
    /// From the inside to the outside.
    path: Vec<Step>,
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
        Self { what, place: None, path: Vec::new() }
    }

    fn wrong(got: impl Into<String>, must_be: impl Into<String>) -> Self {
        Self::new(What::Wrong { got: got.into(), must_be: must_be.into() })
    }

    /// The mistake is in `node`, unless something further inside has claimed it.
    fn within(mut self, node: &Node) -> Self {
        if self.place.is_none() {
            self.place = Some(node.place);
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
                What::MissingKey(_) | What::Wrong { .. } | What::NotDoubled => (),
            }
        }
        self
    }

    fn within_entry(self, entry: &Entry) -> Self {
        self.within(&entry.node).under(Step::Key(entry.key.clone()))
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
        _ => return text,
    };
    words.to_owned()
}

fn array_of(length: usize) -> String {
    format!("an array of {length}")
}

fn one_of(variants: &[&str]) -> String {
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
    fn as_text(&self) -> Option<String> {
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

/// Deserializes from a node of the tree.
///
/// Stricter than serde asks for: a struct is a table and never an array of its fields in order.
#[derive(Clone, Copy)]
pub(super) struct Located<'a>(pub(super) &'a Node);

impl<'a> Located<'a> {
    fn is_not(self, must_be: impl Into<String>) -> Mistake {
        Mistake::wrong(in_words(self.0.value.unexpected()), must_be)
    }

    fn visit_array<'de, V: Visitor<'de>>(self, nodes: &'a [Node], visitor: V) -> Result<V::Value, Mistake> {
        let mut elements = Elements(nodes.iter());
        let value = visitor.visit_seq(&mut elements)?;
        match elements.0.len() {
            0 => Ok(value),
            unread => Err(Mistake::wrong(array_of(nodes.len()), array_of(nodes.len() - unread))),
        }
    }
}

impl<'de> Deserializer<'de> for Located<'_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.0.value {
            Value::String(text) | Value::Date(text) => visitor.visit_str(text),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unusable { text, must_be } => Err(Mistake::wrong(text, *must_be)),
            Value::Array(nodes) => self.visit_array(nodes, visitor),
            Value::Table(entries) => visitor.visit_map(Entries { rest: entries.iter(), current: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.0.value {
            Value::Array(nodes) => self.visit_array(nodes, visitor),
            Value::Table(_) => Err(Mistake::new(What::NotDoubled)),
            _ => Err(self.is_not("an array")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Mistake> {
        match &self.0.value {
            Value::Array(nodes) => self.visit_array(nodes, visitor),
            _ => Err(self.is_not(array_of(length))),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.0.value {
            Value::Table(_) => self.deserialize_any(visitor),
            _ => Err(self.is_not("a table")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        self.deserialize_map(visitor)
    }

    /// A variant is its name, or a table with its name as the only key.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.0.value {
            Value::String(name) => visitor.visit_enum(Variant { name, entry: None }),
            Value::Table(entries) => match entries.as_slice() {
                [entry] => visitor.visit_enum(Variant { name: &entry.key, entry: Some(entry) }),
                _ => Err(Mistake::wrong(
                    format!("a table of {} keys", entries.len()),
                    format!("a table of one key: {}", one_of(variants)),
                )),
            },
            _ => Err(self.is_not(one_of(variants))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        identifier
    }
}

struct Elements<'a>(std::slice::Iter<'a, Node>);

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mistake> {
        let Some(node) = self.0.next() else {
            return Ok(None);
        };
        let element = seed.deserialize(Located(node));
        element.map(Some).map_err(|mistake| mistake.within(node).under(Step::Element))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, Entry>,
    /// The entry whose key was read and whose value was not.
    current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        self.current = self.rest.next();
        let Some(entry) = self.current else {
            return Ok(None);
        };
        let key = seed.deserialize(Key(&entry.key)).map_err(|mut mistake| {
            mistake.place = Some(entry.place);
            match mistake.what {
                // Says the key itself.
                What::UnknownKey { .. } => mistake,
                _ => mistake.under(Step::Key(entry.key.clone())),
            }
        })?;
        Ok(Some(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Mistake> {
        let entry = self.current.take().expect("serde asks for a value only behind its key");
        seed.deserialize(Located(&entry.node)).map_err(|mistake| mistake.within_entry(entry))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// Deserializes from the key of a table.
struct Key<'a>(&'a str);

impl<'de> Deserializer<'de> for Key<'_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        visitor.visit_enum(Variant { name: self.0, entry: None })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Variant<'a> {
    name: &'a str,
    /// None where the variant is given by its bare name.
    entry: Option<&'a Entry>,
}

impl<'a> Variant<'a> {
    fn content(&self) -> Result<&'a Entry, Mistake> {
        self.entry.ok_or_else(|| {
            let must_be = format!("a table, as in {{ {} = ... }}", error::key(self.name));
            Mistake::wrong(error::quoted(self.name), must_be)
        })
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Mistake;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Mistake> {
        let name: StrDeserializer<'_, Mistake> = self.name.into_deserializer();
        let variant = seed.deserialize(name)?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        match self.entry {
            None => Ok(()),
            Some(_) => Err(Mistake::wrong("a table", format!("only {}", error::quoted(self.name)))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Mistake> {
        let entry = self.content()?;
        seed.deserialize(Located(&entry.node)).map_err(|mistake| mistake.within_entry(entry))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Mistake> {
        let entry = self.content()?;
        let read = Located(&entry.node).deserialize_tuple(length, visitor);
        read.map_err(|mistake| mistake.within_entry(entry))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let entry = self.content()?;
        let read = Located(&entry.node).deserialize_map(visitor);
        read.map_err(|mistake| mistake.within_entry(entry))
    }
}
