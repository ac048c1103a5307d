//! Samples as cprocessd reads them, by the million: their texts are borrowed from the message, and all numbers of a batch are
//! in one list, so that a batch takes two allocations however much is in it. For everyone else there is [`Sample`].
//!
//! The MessagePack is read here by hand, as the library does not tell where a borrowed value ends, and takes twice as long.

use super::codec::{DecodeError, batch_size, checked_end};
use super::{MAX_DEPTH, Sample};
use crate::address::{HostName, Name, Unit};
use crate::time::UnixMillis;
use serde::de::Error as _;
use std::ops::Range;

/// A [`Sample`] whose texts are borrowed. They are what they should be: checked when they are read.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "they are documented in Sample")]
pub struct SampleRef<'a> {
    pub host: &'a str,
    pub service: &'a str,
    pub time: UnixMillis,
    pub interval_ms: u64,
    pub resource: &'a str,
    pub unit: &'a str,
    /// The numbers by attribute, in the order they were given.
    pub values: &'a [(&'a str, f64)],
    pub backfill: bool,
}

/// A batch of samples.
#[derive(Clone, Debug)]
pub struct Samples<'a> {
    heads: Vec<Head<'a>>,
    values: Vec<(&'a str, f64)>,
}

#[derive(Clone, Debug)]
struct Head<'a> {
    host: &'a str,
    service: &'a str,
    time: UnixMillis,
    interval_ms: u64,
    resource: &'a str,
    unit: &'a str,
    values: Range<usize>,
    backfill: bool,
}

impl<'a> Samples<'a> {
    /// A batch: an array of maps, or a single map. All of it is valid, or none of it is taken.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let batch = batch_size(bytes)?;
        // No sample and no number is smaller than this.
        let mut samples = Self {
            heads: Vec::with_capacity(batch.unwrap_or(1).min(bytes.len() / 64 + 1)),
            values: Vec::with_capacity(bytes.len() / 16),
        };
        let mut reader = Reader { rest: bytes };
        if batch.is_some() {
            reader.array()?;
        }
        for _ in 0..batch.unwrap_or(1) {
            samples.read(&mut reader)?;
        }
        checked_end(reader.rest)?;
        Ok(samples)
    }

    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        let (mut host, mut from, mut service, mut resource, mut unit) = (None, None, None, None, None);
        let (mut time, mut interval_ms, mut values, mut backfill) = (None, None, None, None);
        for _ in 0..reader.map()? {
            match reader.text()? {
                "host" => once(&mut host, reader.checked(HostName::accepts, "host name")?)?,
                "from" => once(&mut from, reader.checked(HostName::accepts, "host name")?)?,
                "service" => once(&mut service, reader.checked(Name::accepts, "name")?)?,
                "resource" => once(&mut resource, reader.checked(Name::accepts, "name")?)?,
                "unit" => once(&mut unit, reader.checked(Unit::accepts, "unit")?)?,
                "time" => once(&mut time, UnixMillis(reader.integer()?))?,
                "interval_ms" => once(&mut interval_ms, reader.integer()?)?,
                "backfill" => once(&mut backfill, reader.bool()?)?,
                "values" => {
                    let first = self.values.len();
                    for _ in 0..reader.map()? {
                        let attribute = reader.checked(Name::accepts, "name")?;
                        self.values.push((attribute, reader.number()?));
                    }
                    once(&mut values, first..self.values.len())?;
                }
                _ => reader.skip(MAX_DEPTH)?,
            }
        }
        // Who observed it plays no part in judging a number, but must be there.
        from.ok_or_else(|| missing("from"))?;
        self.heads.push(Head {
            host: host.ok_or_else(|| missing("host"))?,
            service: service.ok_or_else(|| missing("service"))?,
            time: time.ok_or_else(|| missing("time"))?,
            interval_ms: interval_ms.ok_or_else(|| missing("interval_ms"))?,
            resource: resource.ok_or_else(|| missing("resource"))?,
            unit: unit.ok_or_else(|| missing("unit"))?,
            values: values.ok_or_else(|| missing("values"))?,
            backfill: backfill.unwrap_or(false),
        });
        Ok(())
    }

    /// Each sample, in the order they were sent.
    pub fn iter(&self) -> impl Iterator<Item = SampleRef<'_>> {
        self.heads.iter().map(|head| SampleRef {
            host: head.host,
            service: head.service,
            time: head.time,
            interval_ms: head.interval_ms,
            resource: head.resource,
            unit: head.unit,
            values: &self.values[head.values.clone()],
            backfill: head.backfill,
        })
    }
}

impl<'a> From<&'a Sample> for Samples<'a> {
    fn from(sample: &'a Sample) -> Self {
        let values: Vec<_> = sample.values.0.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let head = Head {
            host: sample.host.as_str(),
            service: sample.service.as_str(),
            time: sample.time,
            interval_ms: sample.interval_ms,
            resource: sample.resource.as_str(),
            unit: sample.unit.as_str(),
            values: 0..values.len(),
            backfill: sample.backfill,
        };
        Self { heads: vec![head], values }
    }
}

fn once<T>(field: &mut Option<T>, value: T) -> Result<(), DecodeError> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(invalid("a field stands twice")),
    }
}

fn missing(field: &str) -> DecodeError {
    invalid(format!("missing field {field}"))
}

fn invalid(what: impl std::fmt::Display) -> DecodeError {
    DecodeError::Invalid(rmp_serde::decode::Error::custom(what))
}

/// Reads MessagePack from the front.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(|| invalid("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| invalid("it ends too early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn marker(&mut self) -> Result<u8, DecodeError> {
        self.bytes().map(|[marker]| marker)
    }

    fn len8(&mut self) -> Result<usize, DecodeError> {
        self.marker().map(usize::from)
    }

    fn len16(&mut self) -> Result<usize, DecodeError> {
        self.bytes().map(|bytes| usize::from(u16::from_be_bytes(bytes)))
    }

    fn len32(&mut self) -> Result<usize, DecodeError> {
        self.bytes().map(|bytes| u32::from_be_bytes(bytes) as usize)
    }

    fn map(&mut self) -> Result<usize, DecodeError> {
        match self.marker()? {
            n @ 0x80..=0x8f => Ok(usize::from(n & 0x0f)),
            0xde => self.len16(),
            0xdf => self.len32(),
            _ => Err(invalid("there must be a map")),
        }
    }

    fn array(&mut self) -> Result<usize, DecodeError> {
        match self.marker()? {
            n @ 0x90..=0x9f => Ok(usize::from(n & 0x0f)),
            0xdc => self.len16(),
            0xdd => self.len32(),
            _ => Err(invalid("there must be an array")),
        }
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let len = match self.marker()? {
            n @ 0xa0..=0xbf => usize::from(n & 0x1f),
            0xd9 => self.len8()?,
            0xda => self.len16()?,
            0xdb => self.len32()?,
            _ => return Err(invalid("there must be a text")),
        };
        std::str::from_utf8(self.take(len)?).map_err(invalid)
    }

    fn checked(&mut self, accepts: impl Fn(&str) -> bool, what: &str) -> Result<&'a str, DecodeError> {
        let text = self.text()?;
        if accepts(text) {
            return Ok(text);
        }
        let shown: String = text.chars().take(60).collect();
        Err(invalid(format!("{shown:?} is no {what}")))
    }

    fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.marker()? {
            0xc2 => Ok(false),
            0xc3 => Ok(true),
            _ => Err(invalid("there must be true or false")),
        }
    }

    fn integer<T: TryFrom<i128>>(&mut self) -> Result<T, DecodeError> {
        let marker = self.marker()?;
        let integer = self.integer_of(marker)?.ok_or_else(|| invalid("there must be an integer"))?;
        integer.try_into().map_err(|_| invalid(format!("{integer} is out of bounds")))
    }

    fn integer_of(&mut self, marker: u8) -> Result<Option<i128>, DecodeError> {
        Ok(Some(match marker {
            0x00..=0x7f => i128::from(marker),
            0xe0..=0xff => i128::from(i8::from_be_bytes([marker])),
            0xcc => i128::from(self.marker()?),
            0xcd => i128::from(u16::from_be_bytes(self.bytes()?)),
            0xce => i128::from(u32::from_be_bytes(self.bytes()?)),
            0xcf => i128::from(u64::from_be_bytes(self.bytes()?)),
            0xd0 => i128::from(i8::from_be_bytes(self.bytes()?)),
            0xd1 => i128::from(i16::from_be_bytes(self.bytes()?)),
            0xd2 => i128::from(i32::from_be_bytes(self.bytes()?)),
            0xd3 => i128::from(i64::from_be_bytes(self.bytes()?)),
            _ => return Ok(None),
        }))
    }

    fn number(&mut self) -> Result<f64, DecodeError> {
        match self.marker()? {
            0xcb => self.bytes().map(f64::from_be_bytes),
            0xca => self.bytes().map(|bytes| f64::from(f32::from_be_bytes(bytes))),
            marker => Ok(self.integer_of(marker)?.ok_or_else(|| invalid("there must be a number"))? as f64),
        }
    }

    /// Reads on behind a value of any kind.
    fn skip(&mut self, depth: usize) -> Result<(), DecodeError> {
        let Some(depth) = depth.checked_sub(1) else { return Err(invalid("it is nested too deep")) };
        let (bytes, values) = match self.marker()? {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (0, 0),
            n @ 0x80..=0x8f => (0, 2 * usize::from(n & 0x0f)),
            n @ 0x90..=0x9f => (0, usize::from(n & 0x0f)),
            n @ 0xa0..=0xbf => (usize::from(n & 0x1f), 0),
            0xc1 => return Err(invalid("a marker that MessagePack never uses")),
            0xc4 | 0xd9 => (self.len8()?, 0),
            0xc5 | 0xda => (self.len16()?, 0),
            0xc6 | 0xdb => (self.len32()?, 0),
            0xc7 => (self.len8()? + 1, 0),
            0xc8 => (self.len16()? + 1, 0),
            0xc9 => (self.len32()? + 1, 0),
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 | 0xd4 => (2, 0),
            0xd5 => (3, 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xd6 => (5, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            0xd7 => (9, 0),
            0xd8 => (17, 0),
            0xdc => (0, self.len16()?),
            0xdd => (0, self.len32()?),
            0xde => (0, 2 * self.len16()?),
            0xdf => (0, 2 * self.len32()?),
        };
        self.take(bytes)?;
        for _ in 0..values {
            self.skip(depth)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Values, decode_batch, encode};
    use proptest::prelude::*;

    fn sample(values: Vec<(&str, f64)>) -> Sample {
        let values = values.into_iter().map(|(name, value)| (name.parse().expect("a name"), value));
        Sample {
            host: "web1".parse().expect("a host"),
            from: "web2".parse().expect("a host"),
            service: "machine".parse().expect("a name"),
            time: UnixMillis(-5),
            interval_ms: 1000,
            resource: "disk".parse().expect("a name"),
            unit: "/värde (x)".parse().expect("a unit"),
            values: Values(values.collect()),
            backfill: false,
        }
    }

    /// What a sample holds, to compare.
    fn shown(sample: SampleRef<'_>) -> String {
        format!("{sample:?}")
    }

    #[track_caller]
    fn agrees(bytes: &[u8]) {
        let borrowed = Samples::decode(bytes);
        match decode_batch::<Sample>(bytes) {
            Ok(owned) => {
                let borrowed = borrowed.expect("as the owned form");
                let owned: Vec<_> = owned.iter().map(Samples::from).collect();
                let owned: Vec<_> = owned.iter().flat_map(Samples::iter).map(shown).collect();
                assert_eq!(borrowed.iter().map(shown).collect::<Vec<_>>(), owned);
            }
            Err(error) => assert!(borrowed.is_err(), "{error}, but it was taken"),
        }
    }

    #[test]
    fn a_batch_reads_as_the_owned_form_does() {
        let one = sample(vec![("free", 0.5), ("used", 7.0)]);
        agrees(&encode(&one));
        agrees(&encode(&[one.clone(), Sample { backfill: true, ..sample(vec![]) }, one]));
        agrees(&encode::<[Sample; 0]>(&[]));
    }

    #[test]
    fn whole_numbers_and_short_floats_are_numbers_too() {
        let mut fields = rmpv::decode::read_value(&mut encode(&sample(vec![])).as_slice()).expect("a value");
        let rmpv::Value::Map(fields) = &mut fields else { panic!("a map") };
        for (name, value) in fields.iter_mut() {
            if name.as_str() == Some("values") {
                let numbers = vec![("a".into(), 5.into()), ("b".into(), (-3).into()), ("c".into(), 1.5f32.into())];
                *value = rmpv::Value::Map(numbers);
            }
        }
        fields.push(("newer".into(), rmpv::Value::Array(vec![rmpv::Value::Nil])));
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &rmpv::Value::Map(fields.clone())).expect("in memory");
        agrees(&bytes);
        let samples = Samples::decode(&bytes).expect("a sample");
        assert_eq!(samples.values, [("a", 5.0), ("b", -3.0), ("c", 1.5)]);
    }

    #[test]
    fn names_are_checked() {
        let bytes = encode(&sample(vec![("free", 0.5)]));
        for (good, bad) in [(&b"web1"[..], &b"we!1"[..]), (b"web2", b"we 2"), (b"free", b"fr.e"), (b"disk", b"d/sk")] {
            let at = bytes.windows(good.len()).position(|window| window == good).expect("it is there");
            let mut wrong = bytes.clone();
            wrong[at..at + bad.len()].copy_from_slice(bad);
            assert!(Samples::decode(&wrong).is_err(), "{}", String::from_utf8_lossy(bad));
            agrees(&wrong);
        }
    }

    proptest! {
        #[test]
        fn broken_batches_are_refused_as_the_owned_form_refuses_them(at in 0..200usize, byte in any::<u8>(), cut in 0..250usize) {
            let mut bytes = encode(&[sample(vec![("free", 0.5)]), sample(vec![("a", 1.0), ("b", 2.0)])]);
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(cut);
            // An array in the place of a map is a sample to the owned form, and to nobody else.
            let is_map = |byte: &u8| matches!(byte, 0x80..=0x8f);
            prop_assume!(bytes.first() != Some(&0x92) || bytes.get(1).is_none_or(is_map));
            prop_assume!(!(0x90..=0x9f).contains(&byte) && !matches!(byte, 0xdc | 0xdd));
            agrees(&bytes);
        }
    }
}
