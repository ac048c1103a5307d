//! Turns a located tree into a raw struct.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::error;
use super::mistake::{Mistake, array_of, one_of};
use super::tree::{Entry, Node, Value};

/// Deserializes from a node of the tree.
///
/// Stricter than serde asks for: a struct is a table and never an array of its fields in order.
#[derive(Clone, Copy)]
pub(super) struct Located<'a>(pub(super) &'a Node);

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
            Value::Array(nodes) => visit_array(nodes, visitor),
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
            Value::Array(nodes) => visit_array(nodes, visitor),
            Value::Table(_) => Err(Mistake::not_doubled()),
            _ => Err(Mistake::not(&self.0.value, "an array")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Mistake> {
        match &self.0.value {
            Value::Array(nodes) => visit_array(nodes, visitor),
            _ => Err(Mistake::not(&self.0.value, array_of(length))),
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
            _ => Err(Mistake::not(&self.0.value, "a table")),
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
            _ => Err(Mistake::not(&self.0.value, one_of(variants))),
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

fn visit_array<'de, V: Visitor<'de>>(nodes: &[Node], visitor: V) -> Result<V::Value, Mistake> {
    let there = nodes.iter().filter(|node| !node.is_taken_out()).count();
    let mut elements = Elements(nodes.iter());
    let value = visitor.visit_seq(&mut elements)?;
    match elements.0.filter(|node| !node.is_taken_out()).count() {
        0 => Ok(value),
        unread => Err(Mistake::wrong(array_of(there), array_of(there - unread))),
    }
}

struct Elements<'a>(std::slice::Iter<'a, Node>);

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mistake> {
        let Some(node) = self.0.find(|node| !node.is_taken_out()) else {
            return Ok(None);
        };
        let element = seed.deserialize(Located(node));
        element.map(Some).map_err(|mistake| mistake.in_element(node))
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
        self.current = self.rest.find(|entry| !entry.node.is_taken_out());
        let Some(entry) = self.current else {
            return Ok(None);
        };
        let key = seed.deserialize(Key(&entry.key));
        key.map(Some).map_err(|mistake| mistake.in_key(entry))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Mistake> {
        let entry = self.current.take().expect("serde asks for a value only behind its key");
        seed.deserialize(Located(&entry.node)).map_err(|mistake| mistake.in_entry(entry))
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
        seed.deserialize(Located(&entry.node)).map_err(|mistake| mistake.in_entry(entry))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Mistake> {
        let entry = self.content()?;
        let read = Located(&entry.node).deserialize_tuple(length, visitor);
        read.map_err(|mistake| mistake.in_entry(entry))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let entry = self.content()?;
        let read = Located(&entry.node).deserialize_map(visitor);
        read.map_err(|mistake| mistake.in_entry(entry))
    }
}
