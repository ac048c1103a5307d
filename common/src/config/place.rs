//! Where a mistake stands that was found behind the tree, by the words about it: `journal_age is 1s, but must be ...`.
//!
//! The checks between the raw struct and the checked type know keys and values, and no lines. Their phrases begin with the
//! key, perhaps behind the name of what it is in, so the place is looked up by them. Where that is not certain there is
//! none, and the file alone is named.

use super::tree::{Node, Value};
use super::{HumanBytes, HumanDuration};

/// What a phrase says of its place.
#[derive(Debug, PartialEq)]
struct Hint<'a> {
    /// The end of the path of keys.
    keys: Vec<&'a str>,
    /// The value as it was written, or in other units.
    value: Option<&'a str>,
    /// The name of the entry that it is in.
    name: Option<String>,
    /// It is about the second of two that are equal.
    is_second: bool,
}

/// The value that `text` is about.
pub(super) fn find<'a>(root: &'a Node, text: &str) -> Option<&'a Node> {
    let hint = Hint::read(text)?;
    let mut found = Vec::new();
    collect(root, &mut Vec::new(), None, &hint, &mut found);
    if let Some(name) = &hint.name
        && found.len() > 1
    {
        let of_name: Vec<_> = found.iter().copied().filter(|(_, table)| table.is_some_and(|t| has(t, name))).collect();
        found = if of_name.is_empty() { found } else { of_name };
    }
    let place = usize::from(hint.is_second);
    match found.len() {
        1 if !hint.is_second => Some(found[0].0),
        _ if hint.value.is_some() => found.get(place).map(|(node, _)| *node),
        _ => None,
    }
}

type Found<'a> = (&'a Node, Option<&'a Node>);

/// All values whose path ends as the hint says, with the table each is in.
fn collect<'a>(
    node: &'a Node,
    path: &mut Vec<&'a str>,
    table: Option<&'a Node>,
    hint: &Hint<'_>,
    found: &mut Vec<Found<'a>>,
) {
    if node.is_taken_out() {
        return;
    }
    if path.ends_with(&hint.keys) && hint.value.is_none_or(|value| is_written(node, value)) {
        found.push((node, table));
        return;
    }
    match &node.value {
        Value::Table(entries) => {
            for entry in entries {
                path.push(&entry.key);
                collect(&entry.node, path, Some(node), hint, found);
                path.pop();
            }
        }
        Value::Array(nodes) => nodes.iter().for_each(|element| collect(element, path, table, hint, found)),
        _ => {}
    }
}

fn has(table: &Node, name: &str) -> bool {
    let Value::Table(entries) = &table.value else { return false };
    entries.iter().any(|entry| matches!(&entry.node.value, Value::String(text) if text == name))
}

fn is_written(node: &Node, value: &str) -> bool {
    if node.value.as_text().is_some_and(|text| text == value) {
        return true;
    }
    let Value::String(text) = &node.value else { return false };
    let duration = text.parse::<HumanDuration>().is_ok_and(|duration| duration.to_string() == value);
    duration || HumanBytes::parse(text).is_some_and(|bytes| bytes.to_string() == value)
}

impl<'a> Hint<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (subject, value, is_second) = if let Some(subject) = text.strip_suffix(" stands twice") {
            let (subject, value) = subject.split_once(' ')?;
            (subject, Some(value), true)
        } else if let Some((subject, rest)) = text.split_once(" is ") {
            let value = rest.split(", ").next().unwrap_or(rest);
            let once = value.strip_suffix(" twice");
            (subject, Some(once.unwrap_or(value)), once.is_some())
        } else {
            (text.rsplit_once(": ").map_or(text, |(subject, _)| subject), None, false)
        };
        // `port "www": interval`: the key is behind what it is in.
        let (context, key) = subject.rsplit_once(": ").unwrap_or(("", subject));
        let is_key =
            |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let (kind, name) = context.split_once(' ').unwrap_or((context, ""));
        let mut keys: Vec<&str> = if is_key(kind) { vec![kind] } else { Vec::new() };
        keys.extend(key.split('.'));
        if !keys.iter().all(|key| is_key(key)) {
            return None;
        }
        let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).map(str::to_owned);
        Some(Self { keys, value, name, is_second })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;
    use std::path::Path;

    #[track_caller]
    fn line(toml: &str, text: &str) -> Option<usize> {
        let root = tree::parse(0, Path::new("x.toml"), toml).expect("TOML");
        find(&root, text).map(|node| node.place.line)
    }

    #[test]
    fn a_phrase_leads_to_its_line() {
        let file = "a = 1\n[judging]\nconfirm = 0\nafter = '1000ms'\n[[port]]\nname = 'x'\ninterval = '5ms'\n\
                    [[port]]\nname = 'y'\ninterval = '5ms'\n[[alarm]]\nname = 'x'\n[[alarm]]\nname = 'x'\n";
        for (text, found) in [
            ("a is 1, but must be 2 to 3", Some(1)),
            ("a is 7, but must be 2 to 3", None),
            ("judging.confirm is 0, but must be 1 to 1000", Some(3)),
            ("judging.after is 1s, but must be 3s to 1d", Some(4)),
            ("port \"y\": interval is 5ms, but must be 100ms to 1d", Some(10)),
            ("alarm.name \"x\" stands twice", Some(14)),
            ("port.name is \"x\" twice, but must be different for each port", None),
            ("judging.after: something", Some(4)),
            ("name: which of them", None),
            ("cannot read the host name", None),
        ] {
            assert_eq!(line(file, text), found, "{text}");
        }
    }
}
