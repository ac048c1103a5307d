//! What is watched has an address, and what people write about it has a pattern.
//!
//! `host!service.resource:unit.attribute` names one number, `host!service:unit` one check. Units come
//! from the watched world (mount points, interfaces, titles) and may hold anything printable, so the
//! parts around them are kept narrow: neither host nor service can hold `!` or `:`, and an attribute
//! holds no dot. That is why an address reads one way only, without any escape.
//!
//! Everything here is checked when it is made. The parts share their text, so a clone copies nothing.

mod glob;
mod pattern;

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

pub use self::pattern::{Pattern, strip_comments};

/// A text that is no host name, name, unit, address or pattern, and why.
///
/// There are no variants, as every caller does the same with it: show it and refuse the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value} {fault}")]
pub struct AddressError {
    what: &'static str,
    /// Quoted, and cut when long.
    value: String,
    fault: String,
}

impl AddressError {
    fn new(what: &'static str, value: &str, fault: impl Into<String>) -> Self {
        Self { what, value: quoted(value), fault: fault.into() }
    }

    fn about(self, what: &'static str) -> Self {
        Self { what, ..self }
    }
}

/// Input from outside ends up in logs: it is escaped, and cannot fill them.
fn quoted(value: &str) -> String {
    const SHOWN_CHARS: usize = 60;
    match value.char_indices().nth(SHOWN_CHARS) {
        None => format!("{value:?}"),
        Some((end, _)) => format!("{:?}…", &value[..end]),
    }
}

/// What one part of an address may be.
struct Rule {
    what: &'static str,
    min_bytes: usize,
    max_bytes: usize,
    allows: fn(char) -> bool,
    allowed: &'static str,
}

const HOST_NAME: Rule = Rule {
    what: "host name",
    min_bytes: 1,
    max_bytes: 253,
    allows: |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'),
    allowed: "ASCII letters, digits, `.`, `-` and `_`",
};

const NAME: Rule = Rule {
    what: "name",
    min_bytes: 1,
    max_bytes: 64,
    allows: |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'),
    allowed: "ASCII letters, digits, `-` and `_`",
};

const UNIT: Rule = Rule {
    what: "unit",
    min_bytes: 0,
    max_bytes: 1024,
    allows: |c| !c.is_control(),
    allowed: "characters that are not control characters",
};

impl Rule {
    fn check(&self, text: &str) -> Result<(), AddressError> {
        let bytes = text.len();
        let fault = if bytes < self.min_bytes {
            "is empty".to_owned()
        } else if bytes > self.max_bytes {
            format!("has {bytes} bytes, but may have at most {}", self.max_bytes)
        } else if let Some(wrong) = self.first_wrong(text.chars()) {
            format!("holds {wrong:?}, but may hold only {}", self.allowed)
        } else {
            return Ok(());
        };
        Err(AddressError::new(self.what, text, fault))
    }

    /// As [`Self::check`], for texts that come by the million: most are ASCII, where a table is enough.
    fn accepts(&self, ascii: &[bool; 128], text: &str) -> bool {
        let plain = |byte: u8| ascii.get(usize::from(byte)).is_some_and(|allowed| *allowed);
        (self.min_bytes..=self.max_bytes).contains(&text.len())
            && (text.bytes().all(plain) || self.first_wrong(text.chars()).is_none())
    }

    /// Which ASCII characters it allows.
    fn ascii(&self) -> [bool; 128] {
        std::array::from_fn(|byte| u8::try_from(byte).is_ok_and(|byte| (self.allows)(char::from(byte))))
    }

    fn first_wrong(&self, mut chars: impl Iterator<Item = char>) -> Option<char> {
        chars.find(|&c| !(self.allows)(c))
    }
}

/// The ways into a type that is read from text, all through its `FromStr`.
macro_rules! read_from_text {
    ($type:ident, $expected:literal) => {
        impl TryFrom<&str> for $type {
            type Error = AddressError;

            fn try_from(text: &str) -> Result<Self, AddressError> {
                text.parse()
            }
        }

        impl TryFrom<String> for $type {
            type Error = AddressError;

            fn try_from(text: String) -> Result<Self, AddressError> {
                text.parse()
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(FromText::expecting($expected))
            }
        }
    };
}
use read_from_text;

/// Reads a text without a copy in between: every sample on the wire passes here.
struct FromText<T> {
    expected: &'static str,
    made: PhantomData<T>,
}

impl<T> FromText<T> {
    fn expecting(expected: &'static str) -> Self {
        Self { expected, made: PhantomData }
    }
}

impl<T: FromStr<Err = AddressError>> Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! part {
    ($(#[$doc:meta])* $type:ident, $rule:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether this text can be one.
            pub fn accepts(text: &str) -> bool {
                static ASCII: LazyLock<[bool; 128]> = LazyLock::new(|| $rule.ascii());
                $rule.accepts(&ASCII, text)
            }
        }

        impl FromStr for $type {
            type Err = AddressError;

            fn from_str(text: &str) -> Result<Self, AddressError> {
                $rule.check(text)?;
                Ok(Self(Arc::from(text)))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        read_from_text!($type, $expected);
    };
}

part! {
    /// A host: ASCII letters, digits, `.`, `-` and `_`, 1 to 253 bytes. Upper and lower case differ.
    HostName, HOST_NAME, "a host name"
}

part! {
    /// A service, resource or attribute: ASCII letters, digits, `-` and `_`, 1 to 64 bytes.
    Name, NAME, "a name"
}

part! {
    /// The one thing among its like: a mount point, an interface, a title. Any text without control
    /// characters, at most 1024 bytes; empty where there is only one.
    #[derive(Default)]
    Unit, UNIT, "a unit"
}

/// The address of a check, a thing that is up or down: `host!service:unit`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckAddress {
    /// The host it is about, which need not be the one that observed it.
    pub host: HostName,
    /// What kind of thing is checked, as in `port`.
    pub service: Name,
    /// Which of them.
    pub unit: Unit,
}

impl CheckAddress {
    /// `HOST!alive:`, the address of every host's own incident.
    pub fn alive(host: HostName) -> Self {
        Self { host, service: Name(Arc::from("alive")), unit: Unit::default() }
    }
}

/// The address of a number: `host!service.resource:unit.attribute`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueAddress {
    /// The host it is about, which need not be the one that observed it.
    pub host: HostName,
    /// What measured it, as in `machine`.
    pub service: Name,
    /// The kind of thing measured, as in `disk`.
    pub resource: Name,
    /// Which of them, as in `/var`.
    pub unit: Unit,
    /// What was measured of it, as in `used_percentage`.
    pub attribute: Name,
}

/// A glob over any one text, as the parts of a [`Pattern`] are: `*`, `?`, `[ab]`, escaped by `\`. For what has no address,
/// such as a command line.
#[derive(Debug, Clone)]
pub struct TextGlob(glob::Glob);

impl TextGlob {
    /// Whether it covers the whole of this text.
    pub fn matches(&self, text: &str) -> bool {
        self.0.matches(text)
    }
}

impl FromStr for TextGlob {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        glob::tokens(text)
            .map(|tokens| Self(glob::Glob::new(&tokens)))
            .map_err(|fault| AddressError::new("glob", text, fault))
    }
}

/// The address of a check or of a number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// One thing that is up or down.
    Check(CheckAddress),
    /// One number.
    Value(ValueAddress),
}

impl Address {
    /// The host it is about.
    pub fn host(&self) -> &HostName {
        match self {
            Self::Check(check) => &check.host,
            Self::Value(value) => &value.host,
        }
    }

    /// The service it belongs to.
    pub fn service(&self) -> &Name {
        match self {
            Self::Check(check) => &check.service,
            Self::Value(value) => &value.service,
        }
    }

    /// Which one of its service or resource it is.
    pub fn unit(&self) -> &Unit {
        match self {
            Self::Check(check) => &check.unit,
            Self::Value(value) => &value.unit,
        }
    }

    /// [`CheckAddress::alive`], as an address.
    pub fn alive(host: HostName) -> Self {
        Self::Check(CheckAddress::alive(host))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let lacks = |what| AddressError::new("address", text, what);
        let (host, rest) = text.split_once('!').ok_or_else(|| lacks("has no `!` after the host"))?;
        let (service, rest) = rest.split_once(':').ok_or_else(|| lacks("has no `:` after the service or resource"))?;
        let Some((service, resource)) = service.split_once('.') else {
            return Ok(Self::Check(CheckAddress {
                host: host.parse()?,
                service: name("service", service)?,
                unit: rest.parse()?,
            }));
        };
        let (unit, attribute) =
            rest.rsplit_once('.').ok_or_else(|| lacks("has a resource, but no `.` before an attribute"))?;
        Ok(Self::Value(ValueAddress {
            host: host.parse()?,
            service: name("service", service)?,
            resource: name("resource", resource)?,
            unit: unit.parse()?,
            attribute: name("attribute", attribute)?,
        }))
    }
}

fn name(what: &'static str, text: &str) -> Result<Name, AddressError> {
    text.parse().map_err(|error: AddressError| error.about(what))
}

impl FromStr for CheckAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.parse()? {
            Address::Check(check) => Ok(check),
            Address::Value(_) => Err(AddressError::new("address", text, "names a value, but must name a check")),
        }
    }
}

impl FromStr for ValueAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.parse()? {
            Address::Value(value) => Ok(value),
            Address::Check(_) => Err(AddressError::new("address", text, "names a check, but must name a value")),
        }
    }
}

impl fmt::Display for CheckAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}!{}:{}", self.host.0, self.service.0, self.unit.0)
    }
}

impl fmt::Display for ValueAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}!{}.{}:{}.{}", self.host.0, self.service.0, self.resource.0, self.unit.0, self.attribute.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check(check) => check.fmt(f),
            Self::Value(value) => value.fmt(f),
        }
    }
}

impl From<CheckAddress> for Address {
    fn from(check: CheckAddress) -> Self {
        Self::Check(check)
    }
}

impl From<ValueAddress> for Address {
    fn from(value: ValueAddress) -> Self {
        Self::Value(value)
    }
}

macro_rules! written_as_displayed {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

written_as_displayed!(CheckAddress);
written_as_displayed!(ValueAddress);
written_as_displayed!(Address);
read_from_text!(CheckAddress, "the address of a check");
read_from_text!(ValueAddress, "the address of a value");
read_from_text!(Address, "an address");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn host() -> impl Strategy<Value = HostName> {
        "[a-zA-Z0-9._-]{1,20}".prop_map(|text| text.parse().unwrap())
    }

    fn name() -> impl Strategy<Value = Name> {
        "[a-zA-Z0-9_-]{1,12}".prop_map(|text| text.parse().unwrap())
    }

    fn unit() -> impl Strategy<Value = Unit> {
        prop_oneof![r"[.()!:*?\[\]\\ a-]{0,16}", r"\PC{0,24}"].prop_map(|text| text.parse().unwrap())
    }

    fn check() -> impl Strategy<Value = CheckAddress> {
        (host(), name(), unit()).prop_map(|(host, service, unit)| CheckAddress { host, service, unit })
    }

    fn value() -> impl Strategy<Value = ValueAddress> {
        (host(), name(), name(), unit(), name()).prop_map(|(host, service, resource, unit, attribute)| ValueAddress {
            host,
            service,
            resource,
            unit,
            attribute,
        })
    }

    pub(super) fn address() -> impl Strategy<Value = Address> {
        prop_oneof![check().prop_map(Address::from), value().prop_map(Address::from)]
    }

    #[track_caller]
    fn refused<T: FromStr<Err = AddressError> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err().to_string()
    }

    proptest! {
        #[test]
        fn an_address_reads_back_as_it_was_written(address in address()) {
            prop_assert_eq!(&address.to_string().parse::<Address>().unwrap(), &address);
        }

        #[test]
        fn a_check_address_reads_back_as_it_was_written(check in check()) {
            prop_assert_eq!(&check.to_string().parse::<CheckAddress>().unwrap(), &check);
        }

        #[test]
        fn a_value_address_reads_back_as_it_was_written(value in value()) {
            prop_assert_eq!(&value.to_string().parse::<ValueAddress>().unwrap(), &value);
        }

        #[test]
        fn an_address_survives_json_and_messagepack(address in address()) {
            let json = serde_json::to_string(&address).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Address>(&json).unwrap(), &address);
            let packed = rmp_serde::to_vec(&address).unwrap();
            prop_assert_eq!(&rmp_serde::from_slice::<Address>(&packed).unwrap(), &address);
        }

        #[test]
        fn whatever_is_accepted_is_written_as_it_was_read(text in r"[a!.: \PC]{0,24}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string(), text);
            }
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>()) {
            let _ = text.parse::<HostName>();
            let _ = text.parse::<Name>();
            let _ = text.parse::<Unit>();
            let _ = text.parse::<Address>();
            let _ = text.parse::<CheckAddress>();
            let _ = text.parse::<ValueAddress>();
        }
    }

    #[test]
    fn a_text_glob_covers_text_that_is_no_address() {
        let glob: TextGlob = "*/java *-jar tomcat[89].jar?*".parse().unwrap();
        assert!(glob.matches("/usr/bin/java -Xmx1g -jar tomcat9.jar --port=80!"));
        assert!(!glob.matches("/usr/bin/java -jar tomcat7.jar -v"));
        assert!("a.b:c!".parse::<TextGlob>().unwrap().matches("a.b:c!"));
        assert_eq!(refused::<TextGlob>("x["), "glob \"x[\" has a `[` without its `]`");
    }

    #[test]
    fn the_examples_of_the_design_read_as_it_says() {
        let disk: ValueAddress = "web1!machine.disk:/var.used_percentage".parse().unwrap();
        assert_eq!(disk.host.as_str(), "web1");
        assert_eq!(disk.service.as_str(), "machine");
        assert_eq!(disk.resource.as_str(), "disk");
        assert_eq!(disk.unit.as_str(), "/var");
        assert_eq!(disk.attribute.as_str(), "used_percentage");
        let port: CheckAddress = "web1!port:UnrealIRCd (6667)".parse().unwrap();
        assert_eq!(port.unit.as_str(), "UnrealIRCd (6667)");
    }

    #[test]
    fn the_attribute_starts_after_the_last_dot() {
        let interface: ValueAddress = "r1!machine.network:eth0.100.in_bytes_per_s".parse().unwrap();
        assert_eq!(interface.unit.as_str(), "eth0.100");
        let load: ValueAddress = "r1!machine.load_average:.1m".parse().unwrap();
        assert_eq!(load.unit.as_str(), "");
        assert_eq!(load.attribute.as_str(), "1m");
    }

    #[test]
    fn a_unit_may_hold_every_separator() {
        let odd: CheckAddress = "web1!http:https://[::1]:80/!a.b".parse().unwrap();
        assert_eq!(odd.unit.as_str(), "https://[::1]:80/!a.b");
    }

    #[test]
    fn a_hosts_own_incident_is_its_alive_check() {
        let host: HostName = "web1".parse().unwrap();
        assert_eq!(CheckAddress::alive(host.clone()).to_string(), "web1!alive:");
        assert_eq!(Address::alive(host), "web1!alive:".parse().unwrap());
    }

    #[test]
    fn a_refusal_says_what_is_wrong_with_which_value() {
        for (message, expected) in [
            (
                refused::<HostName>("web 1"),
                r#"host name "web 1" holds ' ', but may hold only ASCII letters, digits, `.`, `-` and `_`"#,
            ),
            (refused::<HostName>(""), r#"host name "" is empty"#),
            (
                refused::<Unit>("a\nb"),
                r#"unit "a\nb" holds '\n', but may hold only characters that are not control characters"#,
            ),
            (refused::<Address>("web1"), r#"address "web1" has no `!` after the host"#),
            (refused::<Address>("web1!machine"), r#"address "web1!machine" has no `:` after the service or resource"#),
            (
                refused::<Address>("web1!machine.disk:/var"),
                r#"address "web1!machine.disk:/var" has a resource, but no `.` before an attribute"#,
            ),
            (refused::<Address>("web1!machine.disk:/var."), r#"attribute "" is empty"#),
            (
                refused::<Address>("web1!mächine:"),
                r#"service "mächine" holds 'ä', but may hold only ASCII letters, digits, `-` and `_`"#,
            ),
            (
                refused::<CheckAddress>("web1!machine.disk:/.free"),
                r#"address "web1!machine.disk:/.free" names a value, but must name a check"#,
            ),
            (
                refused::<ValueAddress>("web1!port:http"),
                r#"address "web1!port:http" names a check, but must name a value"#,
            ),
        ] {
            assert_eq!(message, expected);
        }
    }

    #[test]
    fn the_longest_parts_are_accepted_and_one_byte_more_is_not() {
        assert!("h".repeat(253).parse::<HostName>().is_ok());
        assert!("n".repeat(64).parse::<Name>().is_ok());
        assert!("u".repeat(1024).parse::<Unit>().is_ok());
        assert!("h".repeat(254).parse::<HostName>().is_err());
        assert!("u".repeat(1025).parse::<Unit>().is_err());
        let shown = "n".repeat(60);
        assert_eq!(
            refused::<Name>(&"n".repeat(65)),
            format!(r#"name "{shown}"… has 65 bytes, but may have at most 64"#)
        );
    }

    #[test]
    fn what_comes_off_the_wire_is_checked() {
        let error = serde_json::from_str::<HostName>(r#""web!1""#).unwrap_err();
        assert!(error.to_string().starts_with(r#"host name "web!1" holds '!', but"#));
        let error = serde_json::from_str::<Unit>("7").unwrap_err();
        assert!(error.to_string().contains("expected a unit"), "{error}");
    }

    #[test]
    fn the_parts_are_plain_strings_on_the_wire_and_as_keys() {
        let host: HostName = "web1".parse().unwrap();
        assert_eq!(rmp_serde::to_vec(&host).unwrap(), b"\xa4web1");
        let check = CheckAddress::alive(host.clone());
        assert_eq!(rmp_serde::to_vec(&check).unwrap(), b"\xabweb1!alive:");
        let by_host = BTreeMap::from([(host, 1)]);
        assert_eq!(by_host.get("web1"), Some(&1));
        assert_eq!(serde_json::to_string(&by_host).unwrap(), r#"{"web1":1}"#);
    }
}
