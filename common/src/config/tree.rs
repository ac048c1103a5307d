//! TOML as a tree in which every key and value knows the file and the line it came from.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::error::{self, ConfigError};

/// No configuration nests deeper; without a bound, a hostile one overflows the stack.
const MAX_DEPTH: usize = 64;

/// Where something is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Index into the list of the files that were loaded.
    pub(super) file: usize,
    /// Counted from 1.
    pub(super) line: usize,
}

/// A value and its place. For the table of a header, that is the line of the header.
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
    /// A mistake in it was found: it is read over from then on, so that the next one is found.
    taken_out: Cell<bool>,
}

pub(super) enum Value {
    String(String),
    Integer(i64),
    /// Only what is too large for `Integer`.
    Unsigned(u64),
    Float(f64),
    Bool(bool),
    /// Dates and times, as they are written.
    Date(String),
    /// A number that TOML allows and we do not.
    Unusable {
        text: String,
        must_be: &'static str,
    },
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

/// Reads `text` of the file `path`, which is the one at `index` in the list of files.
pub(super) fn parse(index: usize, path: &Path, text: &str) -> Result<Node, ConfigError> {
    let reader = Reader { file: index, line_ends: text.match_indices('\n').map(|(at, _)| at).collect() };
    let too_deep = |at| {
        let text = format!("is nested deeper than {MAX_DEPTH} levels");
        ConfigError::on_line(path, reader.line(at), text)
    };
    if let Some(at) = find_too_deep(text) {
        return Err(too_deep(at));
    }
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        ConfigError::on_line(path, reader.line(span.start), syntax_error(&error, text))
    })?;
    let entries = reader.entries(table.into_inner(), 0).map_err(too_deep)?;
    Ok(Node::new(Place { file: index, line: 1 }, Value::Table(entries)))
}

impl Node {
    fn new(place: Place, value: Value) -> Self {
        Self { place, value, taken_out: Cell::new(false) }
    }

    pub(super) fn take_out(&self) {
        self.taken_out.set(true);
    }

    pub(super) fn is_taken_out(&self) -> bool {
        self.taken_out.get()
    }

    /// Whether it is a table from which `key` was taken out.
    pub(super) fn lacks(&self, key: &str) -> bool {
        let Value::Table(entries) = &self.value else { return false };
        entries.iter().any(|entry| entry.key == key && entry.node.is_taken_out())
    }

    /// Lays `over`, of a later file, over this; [`super::load`] says how.
    pub(super) fn merge(&mut self, over: Node) {
        match (&mut self.value, over.value) {
            (Value::Table(base), Value::Table(over)) => merge_tables(base, over),
            (Value::Array(base), Value::Array(over)) if are_tables(base) && are_tables(&over) => {
                base.extend(over);
            }
            (base, over_value) => {
                *base = over_value;
                self.place = over.place;
            }
        }
    }
}

fn merge_tables(base: &mut Vec<Entry>, over: Vec<Entry>) {
    let known: HashMap<String, usize> =
        base.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
    for entry in over {
        match known.get(&entry.key) {
            Some(index) => base[*index].node.merge(entry.node),
            None => base.push(entry),
        }
    }
}

fn are_tables(nodes: &[Node]) -> bool {
    !nodes.is_empty() && nodes.iter().all(|node| matches!(node.value, Value::Table(_)))
}

struct Reader {
    file: usize,
    /// Byte offsets, ascending.
    line_ends: Vec<usize>,
}

impl Reader {
    fn line(&self, offset: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < offset)
    }

    fn place(&self, offset: usize) -> Place {
        Place { file: self.file, line: self.line(offset) }
    }

    /// The entries in the order of the file, which `toml` sorts by name. The error is the offset of what is
    /// too deep.
    fn entries(&self, table: DeTable<'_>, depth: usize) -> Result<Vec<Entry>, usize> {
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
            .into_iter()
            .map(|(key, value)| {
                let place = self.place(key.span().start);
                let node = self.node(value, depth + 1)?;
                Ok(Entry { key: key.into_inner().into_owned(), place, node })
            })
            .collect()
    }

    fn node(&self, value: Spanned<DeValue<'_>>, depth: usize) -> Result<Node, usize> {
        let start = value.span().start;
        if depth > MAX_DEPTH {
            return Err(start);
        }
        let value = match value.into_inner() {
            DeValue::String(text) => Value::String(text.into_owned()),
            DeValue::Integer(integer) => integer_value(&integer),
            DeValue::Float(float) => float_value(float.as_str()),
            DeValue::Boolean(bool) => Value::Bool(bool),
            DeValue::Datetime(date) => Value::Date(date.to_string()),
            DeValue::Array(array) => {
                let nodes = array.into_iter().map(|element| self.node(element, depth + 1));
                Value::Array(nodes.collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => Value::Table(self.entries(table, depth)?),
        };
        Ok(Node::new(self.place(start), value))
    }
}

fn integer_value(integer: &DeInteger<'_>) -> Value {
    let (digits, radix) = (integer.as_str(), integer.radix());
    if let Ok(value) = i64::from_str_radix(digits, radix) {
        Value::Integer(value)
    } else if let Ok(value) = u64::from_str_radix(digits, radix) {
        Value::Unsigned(value)
    } else {
        Value::Unusable { text: integer.to_string(), must_be: "an integer of at most 64 bits" }
    }
}

fn float_value(text: &str) -> Value {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Value::Float(value),
        Ok(_) | Err(_) => Value::Unusable { text: text.to_owned(), must_be: "a finite number" },
    }
}

/// What `toml` says, and the text it says it of.
fn syntax_error(error: &toml::de::Error, text: &str) -> String {
    let message = error.message();
    let at = error.span().and_then(|span| text.get(span)).unwrap_or_default();
    if message == "duplicate key" {
        format!("duplicate key {}", error::key(at))
    } else if message.starts_with("string values must be quoted") {
        // Also said where there is no value at all.
        if at.is_empty() {
            "missing value".to_owned()
        } else {
            format!("text must be in quotes: {}", error::quoted(at))
        }
    } else if at.is_empty() {
        message.to_owned()
    } else {
        format!("{message}, at {}", error::quoted(at))
    }
}

/// The offset of what is nested too deep, found without building anything.
///
/// `toml` bounds brackets to 80 in each other and dotted keys to 80 parts, but these multiply: a file of 13
/// kB makes a tree of 6400 levels, and to drop that takes over 1 MiB of stack. So both are counted together,
/// over the smallest stretch that can nest: a header, or a key with its value. A header and a key of 64 each
/// pass, which is left to the exact count of [`Reader::node`].
fn find_too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    // The depth at which the entries of each open bracket begin.
    let mut open = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b'#' => end_of_line(bytes, at),
            b'"' | b'\'' => end_of_string(bytes, at),
            _ => at + 1,
        };
        match byte {
            b'[' | b'{' => {
                depth += 1;
                open.push(depth);
            }
            b'.' => depth += 1,
            b']' | b'}' => {
                open.pop();
            }
            b',' => depth = open.last().copied().unwrap_or(0),
            b'\n' if open.is_empty() => depth = 0,
            _ => (),
        }
        if depth > MAX_DEPTH {
            return Some(at - 1);
        }
    }
    None
}

fn end_of_line(bytes: &[u8], start: usize) -> usize {
    let length = bytes[start..].iter().position(|byte| *byte == b'\n');
    length.map_or(bytes.len(), |length| start + length)
}

/// The offset behind the string that begins at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let is_triple = |at: usize| bytes[at..].starts_with(&[quote; 3]);
    let is_long = is_triple(start);
    let mut at = start + if is_long { 3 } else { 1 };
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quote == b'"' && matches!(bytes.get(at + 1), Some(b'"' | b'\\')) => at += 1,
            b'\n' if !is_long => return at,
            _ if *byte == quote && !is_long => return at + 1,
            _ if *byte == quote && is_triple(at) => {
                // Up to two quotes may stand directly before the closing three.
                let more = bytes[at + 3..].iter().take(2).take_while(|byte| **byte == quote).count();
                return at + 3 + more;
            }
            _ => (),
        }
        at += 1;
    }
    bytes.len()
}
