//! Sizes as people write them: `64m`, `1g`.

use crate::number::parse_bytes_number;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// A number of bytes: an integer, or text with one of `k m g t`, powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanBytes(pub u64);

/// In the largest unit that leaves it whole.
impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "t"), (30, "g"), (20, "m"), (10, "k")];
        match units.into_iter().find(|(bits, _)| self.0 > 0 && self.0.trailing_zeros() >= *bits) {
            Some((bits, unit)) => write!(f, "{}{unit}", self.0 >> bits),
            None => write!(f, "{}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for HumanBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Size)
    }
}

struct Size;

impl Visitor<'_> for Size {
    type Value = HumanBytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size, as \"64m\" or \"1g\"")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<HumanBytes, E> {
        Ok(HumanBytes(bytes))
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<HumanBytes, E> {
        let bytes = u64::try_from(bytes);
        bytes.map(HumanBytes).map_err(|_| E::custom("a size is not negative"))
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: a whole number below 2^53")]
    fn visit_str<E: Error>(self, text: &str) -> Result<HumanBytes, E> {
        match parse_bytes_number(text) {
            Ok(bytes) if (0.0..9e15).contains(&bytes) && bytes.fract() == 0.0 && !text.ends_with('%') => {
                Ok(HumanBytes(bytes as u64))
            }
            Ok(_) | Err(_) => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn read(text: &str) -> Result<u64, String> {
        let read = parse::<BTreeMap<String, HumanBytes>>(Path::new("x.toml"), &format!("size = {text}"));
        read.map(|map| map["size"].0).map_err(|error| error.to_string())
    }

    #[test]
    fn a_size_is_a_number_or_has_a_unit() {
        for (text, bytes) in [("7", 7), ("'64m'", 64 << 20), ("'1g'", 1 << 30), ("'1.5k'", 1536), ("'100'", 100)] {
            assert_eq!(read(text), Ok(bytes), "{text}");
        }
        for text in ["-1", "'-1'", "'many'", "'5%'", "'0.5'", "true", "'999999t'"] {
            assert!(read(text).is_err_and(|said| said.starts_with("x.toml:1: size is ")), "{text}: {:?}", read(text));
        }
    }

    #[test]
    fn it_is_shown_in_its_largest_whole_unit() {
        for (bytes, shown) in [(0, "0"), (1000, "1000"), (1536, "1536"), (64 << 20, "64m"), (1 << 30, "1g")] {
            assert_eq!(HumanBytes(bytes).to_string(), shown);
        }
    }
}
