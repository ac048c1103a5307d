//! MessagePack maps with named fields, so that any language reads them.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How deep a message may nest. Ours need four; an attachment may use the rest.
pub const MAX_DEPTH: usize = 32;

/// Messages in a batch at most. Ours have hundreds; small ones without end would take many times their bytes.
pub const MAX_BATCH: u32 = 10_000;

/// Why bytes from a socket are no message. The caller counts and drops them.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not MessagePack, not the expected fields, or nested deeper than [`MAX_DEPTH`].
    #[error("{0}")]
    Invalid(#[from] rmp_serde::decode::Error),
    /// A whole message, and then more.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// A batch of more than [`MAX_BATCH`].
    #[error("a batch of {0} messages, but at most {MAX_BATCH} are taken")]
    TooMany(u32),
    /// Larger than any of its kind.
    #[error("{bytes} bytes, but at most {most} are taken")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        most: usize,
    },
    /// Its fields do not fit together, in this way.
    #[error("{0}")]
    Contradiction(&'static str),
    /// Neither a map nor an array of maps.
    #[error("neither a map nor an array of maps")]
    NoMap,
}

/// One message as a map with named fields.
///
/// Panics never: our message types have only string keys and bounded sizes.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(message).expect("our message types serialise into memory")
}

/// One message from a map. Fields it does not know are ignored.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.first() {
        Some(0x80..=0x8f | 0xde | 0xdf) => whole(bytes),
        _ => Err(DecodeError::NoMap),
    }
}

/// A batch: an array of maps, or a single map.
pub fn decode_batch<T: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<T>, DecodeError> {
    match batch_size(bytes)? {
        Some(_) => whole(bytes),
        None => whole(bytes).map(|one| vec![one]),
    }
}

/// How many messages an array claims to have; none for a single map.
pub(super) fn batch_size(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    let claimed = match *bytes {
        [n @ 0x90..=0x9f, ..] => u32::from(n & 0x0f),
        [0xdc, a, b, ..] => u32::from(u16::from_be_bytes([a, b])),
        [0xdd, a, b, c, d, ..] => u32::from_be_bytes([a, b, c, d]),
        [0x80..=0x8f | 0xde | 0xdf, ..] => return Ok(None),
        _ => return Err(DecodeError::NoMap),
    };
    if claimed > MAX_BATCH { Err(DecodeError::TooMany(claimed)) } else { Ok(Some(claimed as usize)) }
}

fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut rest = bytes;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    deserializer.set_max_depth(MAX_DEPTH);
    let message = T::deserialize(&mut deserializer)?;
    checked_end(rest)?;
    Ok(message)
}

/// Nothing may follow a message.
pub(super) fn checked_end(rest: &[u8]) -> Result<(), DecodeError> {
    match rest.len() {
        0 => Ok(()),
        n => Err(DecodeError::Trailing(n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    type Map = BTreeMap<String, rmpv::Value>;

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        let mut bytes = vec![0x81, 0xa1, b'a'];
        bytes.extend(vec![0x91; 1_000_000]);
        bytes.push(0xc0);
        assert!(decode::<Map>(&bytes).is_err());
    }

    #[test]
    fn a_length_that_is_not_there_is_an_error() {
        assert!(decode::<Map>(&[0xdf, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(decode_batch::<Map>(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(decode::<Map>(&[0x81, 0xa1, b'a', 0xdb, 0xff, 0xff, 0xff, 0xff]).is_err());
    }

    #[test]
    fn bytes_after_the_message_are_an_error() {
        assert!(matches!(decode::<Map>(&[0x80, 0xc0]), Err(DecodeError::Trailing(1))));
    }

    #[test]
    fn a_batch_is_one_map_or_an_array_of_maps() {
        assert_eq!(decode_batch::<Map>(&[0x80]).expect("one map").len(), 1);
        assert_eq!(decode_batch::<Map>(&[0x92, 0x80, 0x80]).expect("two maps").len(), 2);
        let many = [&[0xdd, 0, 0, 0x27, 0x11][..], &[0x80; 10_001]].concat();
        assert!(matches!(decode_batch::<Map>(&many), Err(DecodeError::TooMany(10_001))));
        assert!(matches!(decode_batch::<Map>(&[]), Err(DecodeError::NoMap)));
        assert!(matches!(decode_batch::<Map>(b"{}"), Err(DecodeError::NoMap)));
    }
}
