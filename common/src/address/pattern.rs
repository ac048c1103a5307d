//! Says which addresses a rule, a silence or a question is about.
//!
//! Patterns are typed by people and compared with every sample, so they are read and split once;
//! comparing walks over borrowed text. What could never match is refused where that can be seen: a
//! rule that silently watches nothing is the worst mistake a monitoring configuration can hold.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::glob::{self, Glob, Token};
use super::{
    Address, AddressError, CheckAddress, FromText, HOST_NAME, HostName, NAME, Name, Rule, UNIT, Unit, ValueAddress,
    read_from_text,
};

/// The longest pattern, without the backslashes that escape. Any address, however much of it must
/// be escaped, fits.
const MAX_BYTES: usize = 2048;

/// An address with globs: `hostglob[!serviceglob[.resourceglob][:rest]]`.
///
/// - In any part `*` stands for any text, `?` for one character, `[ab]`, `[a-z]` and `[!a]` for one
///   character of a set; `\` makes the next character an ordinary one.
/// - What is left out at the end matches everything: `web*` matches all of those hosts, `*!machine`
///   the checks and values of a service, `*!machine.disk` the values of a resource.
/// - With a resource it matches only values; with `:` and no resource only checks.
/// - For a value, `rest` is tried as `unit.attribute`, parted at its last unescaped dot, and as a
///   unit whose attributes all match: `*!machine.network:eth0.100` matches that interface. A glob
///   does not reach across the dot, or `network:*s` would match every `in_bytes_per_s`.
/// - An empty `rest` is the empty unit: `*!alive:` matches only the hosts' own checks.
/// - Without a parenthesis in `rest`, comments in the unit are ignored ([`strip_comments`]); with
///   one, the full text is compared.
///
/// It is equal, ordered, shown and sent as the text it was read from.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    host: Glob,
    scope: Scope,
    specificity: usize,
}

/// What a pattern selects of the hosts it matches.
#[derive(Clone)]
enum Scope {
    Everything,
    Service(Glob),
    Checks { service: Glob, rest: Rest },
    Values { service: Glob, resource: Glob, rest: Option<Rest> },
}

/// The part after `:`.
#[derive(Clone)]
struct Rest {
    as_unit: Glob,
    as_unit_and_attribute: Option<(Glob, Glob)>,
    ignores_comments: bool,
}

impl Pattern {
    /// The pattern for one address. For a unit without a comment it also matches the same unit with
    /// one, and for a value also a unit that reads like its unit and attribute together.
    pub fn exact(address: &Address) -> Self {
        let text = address.to_string();
        let mut escaped = String::with_capacity(text.len());
        for c in text.chars() {
            if matches!(c, '*' | '?' | '[' | '\\') {
                escaped.push('\\');
            }
            escaped.push(c);
        }
        escaped.parse().expect("an address without its glob characters is a pattern within the bound")
    }

    /// The text it was read from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it covers this address.
    pub fn matches(&self, address: &Address) -> bool {
        match address {
            Address::Check(check) => self.matches_check(check),
            Address::Value(value) => {
                self.matches_value(&value.host, &value.service, &value.resource, &value.unit, &value.attribute)
            }
        }
    }

    /// Whether it covers this check.
    pub fn matches_check(&self, check: &CheckAddress) -> bool {
        self.matches_host(&check.host)
            && match &self.scope {
                Scope::Everything => true,
                Scope::Service(service) => service.matches(check.service.as_str()),
                Scope::Checks { service, rest } => {
                    service.matches(check.service.as_str()) && rest.matches_unit(check.unit.as_str())
                }
                Scope::Values { .. } => false,
            }
    }

    /// Whether it covers this number. The parts come apart as samples carry them, so that no address
    /// is put together for each comparison.
    pub fn matches_value(
        &self,
        host: &HostName,
        service: &Name,
        resource: &Name,
        unit: &Unit,
        attribute: &Name,
    ) -> bool {
        self.matches_host(host) && self.matches_resource(service, resource) && self.matches_number(unit, attribute)
    }

    /// Whether its host part covers this host, whatever the other parts say.
    pub fn matches_host(&self, host: &HostName) -> bool {
        self.host.matches(host.as_str())
    }

    /// Whether it covers numbers of this service and resource on the hosts that it covers. With [`Self::matches_host`] and
    /// [`Self::matches_number`] this is [`Self::matches_value`] in three parts, each of which is asked once for many numbers.
    pub fn matches_resource(&self, service: &Name, resource: &Name) -> bool {
        match &self.scope {
            Scope::Everything => true,
            Scope::Service(own) => own.matches(service.as_str()),
            Scope::Checks { .. } => false,
            Scope::Values { service: own_service, resource: own_resource, .. } => {
                own_service.matches(service.as_str()) && own_resource.matches(resource.as_str())
            }
        }
    }

    /// Whether it covers this number, if it covers its host and its resource.
    pub fn matches_number(&self, unit: &Unit, attribute: &Name) -> bool {
        match &self.scope {
            Scope::Everything | Scope::Service(_) => true,
            Scope::Checks { .. } => false,
            Scope::Values { rest, .. } => {
                rest.as_ref().is_none_or(|rest| rest.matches_value(unit.as_str(), attribute.as_str()))
            }
        }
    }

    /// The number of characters that stand for themselves, separators included. Of two patterns that
    /// match an address the one with more is the more specific.
    pub fn specificity(&self) -> usize {
        self.specificity
    }

    /// The one address it names, if it is complete and free of globs: what it is about is then known
    /// before it was ever seen. For a value that is the reading as `unit.attribute`.
    pub fn literal(&self) -> Option<Address> {
        let host = self.host.literal()?.parse().ok()?;
        match &self.scope {
            Scope::Everything | Scope::Service(_) => None,
            Scope::Checks { service, rest } => Some(Address::Check(CheckAddress {
                host,
                service: service.literal()?.parse().ok()?,
                unit: rest.as_unit.literal()?.parse().ok()?,
            })),
            Scope::Values { service, resource, rest } => {
                let (unit, attribute) = rest.as_ref()?.as_unit_and_attribute.as_ref()?;
                Some(Address::Value(ValueAddress {
                    host,
                    service: service.literal()?.parse().ok()?,
                    resource: resource.literal()?.parse().ok()?,
                    unit: unit.literal()?.parse().ok()?,
                    attribute: attribute.literal()?.parse().ok()?,
                }))
            }
        }
    }
}

impl FromStr for Pattern {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        read(text).map_err(|fault| AddressError::new("pattern", text, fault))
    }
}

/// The error is a phrase about the pattern.
fn read(text: &str) -> Result<Pattern, String> {
    if text.is_empty() {
        return Err("is empty; `*` matches everything".to_owned());
    }
    check_length(text)?;
    if let Some(wrong) = UNIT.first_wrong(text.chars()) {
        return Err(format!("holds {wrong:?}, but may hold only {}", UNIT.allowed));
    }
    let tokens = glob::tokens(text)?;
    let (host, behind_host) = part(&tokens, '!');
    Ok(Pattern {
        text: Arc::from(text),
        host: narrow_glob("host", host, &HOST_NAME)?,
        // `web1!` is what topics look like, and means all of the host.
        scope: match behind_host {
            None | Some([]) => Scope::Everything,
            Some(tokens) => scope(tokens)?,
        },
        specificity: tokens.iter().filter_map(Token::literal).count(),
    })
}

fn check_length(text: &str) -> Result<(), String> {
    let mut escapes = 0;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'\\' && bytes.next().is_some() {
            escapes += 1;
        }
    }
    let length = text.len() - escapes;
    if length > MAX_BYTES {
        return Err(format!("has {length} bytes, but may have at most {MAX_BYTES}"));
    }
    Ok(())
}

fn scope(tokens: &[Token]) -> Result<Scope, String> {
    let (names, rest) = part(tokens, ':');
    let (service, resource) = part(names, '.');
    let service = narrow_glob("service", service, &NAME)?;
    let resource = match (resource, rest) {
        (None, None) => return Ok(Scope::Service(service)),
        (None, Some(rest)) => {
            return Ok(Scope::Checks { service, rest: Rest::new(rest) });
        }
        (Some([]), None) => Glob::Anything,
        (Some(resource), _) => narrow_glob("resource", resource, &NAME)?,
    };
    Ok(Scope::Values { service, resource, rest: rest.map(Rest::new) })
}

/// Splits at the first such separator.
fn part(tokens: &[Token], separator: char) -> (&[Token], Option<&[Token]>) {
    match tokens.iter().position(|token| *token == Token::Separator(separator)) {
        Some(at) => (&tokens[..at], Some(&tokens[at + 1..])),
        None => (tokens, None),
    }
}

/// A glob for a part that is never empty and holds few characters. Anything else in it would never
/// match, as in `machine.disk:/var`, where the host was forgotten.
fn narrow_glob(what: &str, tokens: &[Token], rule: &Rule) -> Result<Glob, String> {
    if tokens.is_empty() {
        return Err(format!("has an empty {what}; `*` matches every {what}"));
    }
    if let Some(wrong) = rule.first_wrong(tokens.iter().filter_map(Token::literal)) {
        return Err(format!("holds {wrong:?} in its {what}, which may hold only {}", rule.allowed));
    }
    Ok(Glob::new(tokens))
}

impl Rest {
    fn new(tokens: &[Token]) -> Self {
        let last_dot = tokens.iter().rposition(|token| *token == Token::Separator('.'));
        Self {
            as_unit: Glob::new(tokens),
            as_unit_and_attribute: last_dot.map(|at| (Glob::new(&tokens[..at]), Glob::new(&tokens[at + 1..]))),
            ignores_comments: !tokens.iter().any(Token::names_parenthesis),
        }
    }

    fn matches_unit(&self, unit: &str) -> bool {
        self.as_unit.matches(&self.compared(unit))
    }

    fn matches_value(&self, unit: &str, attribute: &str) -> bool {
        let unit = self.compared(unit);
        self.as_unit.matches(&unit)
            || self
                .as_unit_and_attribute
                .as_ref()
                .is_some_and(|(own_unit, own_attribute)| own_attribute.matches(attribute) && own_unit.matches(&unit))
    }

    fn compared<'unit>(&self, unit: &'unit str) -> Cow<'unit, str> {
        if self.ignores_comments { strip_comments(unit) } else { Cow::Borrowed(unit) }
    }
}

/// The unit without its comments: balanced groups of (parentheses), nested or not, together with the
/// white space before them. A parenthesis without its partner is ordinary text.
pub fn strip_comments(unit: &str) -> Cow<'_, str> {
    if !unit.contains('(') {
        return Cow::Borrowed(unit);
    }
    let mut kept = String::with_capacity(unit.len());
    let mut opened = Vec::new();
    for c in unit.chars() {
        match c {
            '(' => opened.push(kept.len()),
            ')' => {
                if let Some(start) = opened.pop() {
                    kept.truncate(start);
                    kept.truncate(kept.trim_end().len());
                    continue;
                }
            }
            _ => (),
        }
        kept.push(c);
    }
    Cow::Owned(kept)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

read_from_text!(Pattern, "a pattern");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::address;
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    fn named(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[track_caller]
    fn matching(text: &str, addresses: &[&str]) {
        for address in addresses {
            assert!(pattern(text).matches(&named(address)), "{text} should match {address}");
        }
    }

    #[track_caller]
    fn not_matching(text: &str, addresses: &[&str]) {
        for address in addresses {
            assert!(!pattern(text).matches(&named(address)), "{text} should not match {address}");
        }
    }

    #[track_caller]
    fn refused(text: &str) -> String {
        text.parse::<Pattern>().unwrap_err().to_string()
    }

    /// A unit without comments, and the same with some.
    fn commented_unit() -> impl Strategy<Value = (String, String)> {
        let comment = r"[a .:!]{0,5}".prop_recursive(3, 8, 2, |inner| {
            (inner.clone(), inner).prop_map(|(left, right)| format!("{left}({right})"))
        });
        let piece = (r"[ab.:! ]{0,3}[ab.]", comment);
        prop::collection::vec(piece, 1..4).prop_map(|pieces| {
            let bare = pieces.iter().map(|(text, _)| text.as_str()).collect();
            let commented = pieces.iter().flat_map(|(text, comment)| [text, " (", comment, ")"]).collect();
            (bare, commented)
        })
    }

    proptest! {
        #[test]
        fn an_exact_pattern_matches_its_address(address in address()) {
            let exact = Pattern::exact(&address);
            prop_assert!(exact.matches(&address));
            prop_assert_eq!(exact.literal(), Some(address));
        }

        #[test]
        fn an_exact_pattern_reads_back_as_it_was_written(address in address()) {
            let exact = Pattern::exact(&address);
            let again = pattern(&exact.to_string());
            prop_assert_eq!(&again, &exact);
            prop_assert!(again.matches(&address));
        }

        #[test]
        fn a_comment_never_matters_to_a_pattern_without_parentheses(
            rest in r"([ab.:! *?]|\[ab\]|\[!a\]){0,6}",
            (bare, commented) in commented_unit(),
        ) {
            let check = pattern(&format!("*!s:{rest}"));
            prop_assert_eq!(
                check.matches(&named(&format!("h!s:{bare}"))),
                check.matches(&named(&format!("h!s:{commented}")))
            );
            let value = pattern(&format!("*!s.r:{rest}"));
            prop_assert_eq!(
                value.matches(&named(&format!("h!s.r:{bare}.a"))),
                value.matches(&named(&format!("h!s.r:{commented}.a")))
            );
        }

        #[test]
        fn stripping_comments_leaves_what_was_outside((bare, commented) in commented_unit()) {
            prop_assert_eq!(strip_comments(&commented), bare);
        }

        #[test]
        fn comments_are_stripped_once_and_for_all(unit in r"[a() ]{0,16}") {
            let once = strip_comments(&unit).into_owned();
            prop_assert_eq!(strip_comments(&once), &*once);
        }

        #[test]
        fn no_text_makes_a_pattern_panic(
            text in prop_oneof![any::<String>(), r"[a*?!.:\[\]\\()-]{0,16}"],
            address in address(),
        ) {
            if let Ok(pattern) = text.parse::<Pattern>() {
                pattern.matches(&address);
                pattern.specificity();
                prop_assert_eq!(pattern.to_string(), text);
                if let Some(named) = pattern.literal() {
                    prop_assert!(pattern.matches(&named));
                }
            }
        }
    }

    #[test]
    fn a_host_alone_matches_all_of_it() {
        let all = ["web1!alive:", "web1!port:http", "web1!machine.disk:/var.free"];
        matching("web*", &all);
        matching("web1!", &all);
        not_matching("web1", &["web10!alive:", "db1!alive:"]);
    }

    #[test]
    fn a_service_alone_matches_its_checks_and_values() {
        matching("*!machine", &["w!machine.disk:/var.free", "w!machine:x"]);
        not_matching("*!machine", &["w!machine2.disk:/var.free", "w!port:machine"]);
    }

    #[test]
    fn a_resource_matches_only_values() {
        matching("*!machine.disk", &["w!machine.disk:/var.free", "w!machine.disk:.free"]);
        not_matching("*!machine.disk", &["w!machine.io:sda.x", "w!machine:disk"]);
        matching("*!machine.", &["w!machine.disk:/var.free"]);
        not_matching("*!machine.", &["w!machine:"]);
    }

    #[test]
    fn a_colon_without_a_resource_matches_only_checks() {
        matching("*!port:*", &["w!port:http", "w!port:"]);
        not_matching("*!port:*", &["w!port.latency:http.ms"]);
        matching("*!alive:", &["w!alive:"]);
        not_matching("*!alive:", &["w!alive:x"]);
    }

    #[test]
    fn the_rest_is_tried_as_unit_and_as_unit_and_attribute() {
        matching(
            "*!machine.network:eth0.100",
            &["r!machine.network:eth0.100.in_bytes_per_s", "r!machine.network:eth0.100"],
        );
        not_matching("*!machine.network:eth0.100", &["r!machine.network:eth0.in_bytes_per_s"]);
        matching("*!machine.disk:/var.used_percentage", &["w!machine.disk:/var.used_percentage"]);
        not_matching(
            "*!machine.disk:/var.used_percentage",
            &["w!machine.disk:/var.free", "w!machine.disk:/.used_percentage"],
        );
        matching("*!machine.load_average:.1m", &["w!machine.load_average:.1m"]);
        matching("*!machine.load_average:", &["w!machine.load_average:.1m"]);
    }

    #[test]
    fn a_glob_does_not_reach_from_the_unit_into_the_attribute() {
        let number = ["w!machine.network:eth0.in_bytes_per_s"];
        not_matching("*!machine.network:*s", &number);
        matching("*!machine.network:*.*s", &number);
    }

    #[test]
    fn an_escaped_dot_does_not_begin_an_attribute() {
        matching(r"*!m.n:eth0\.100", &["r!m.n:eth0.100.in"]);
        not_matching(r"*!m.n:eth0\.100", &["r!m.n:eth0.100"]);
    }

    #[test]
    fn separators_inside_a_class_separate_nothing() {
        matching("web[!2]!port:a[.:!]b", &["web1!port:a:b", "web1!port:a!b"]);
        not_matching("web[!2]!port:a[.:!]b", &["web2!port:a:b"]);
    }

    #[test]
    fn a_comment_is_ignored_unless_the_pattern_has_parentheses() {
        let port = ["w!port:UnrealIRCd (6667)"];
        matching("*!port:UnrealIRCd", &port);
        matching("*!port:*IRCd", &port);
        matching("*!port:UnrealIRCd (6667)", &port);
        matching("*!port:UnrealIRCd (66*)", &port);
        not_matching("*!port:UnrealIRCd (6697)", &port);
        not_matching("*!port:*6667*", &port);
        not_matching("*!port:UnrealIRCd (6667)", &["w!port:UnrealIRCd"]);
        matching("*!port.latency:UnrealIRCd.ms", &["w!port.latency:UnrealIRCd (6667).ms"]);
    }

    #[test]
    fn only_balanced_comments_are_stripped() {
        for (unit, bare) in [
            ("UnrealIRCd (6667)", "UnrealIRCd"),
            ("a (b (c) d) e", "a e"),
            ("a (b) (c)", "a"),
            ("a(b)c", "ac"),
            ("a (b", "a (b"),
            ("a (b (c)", "a (b"),
            ("a) b", "a) b"),
            ("(all)", ""),
        ] {
            assert_eq!(strip_comments(unit), bare, "{unit}");
        }
        assert!(matches!(strip_comments("/var"), Cow::Borrowed("/var")));
    }

    #[test]
    fn the_host_part_can_be_asked_alone() {
        let host = "web1".parse().unwrap();
        assert!(pattern("web*!machine.disk").matches_host(&host));
        assert!(!pattern("db*!machine.disk").matches_host(&host));
    }

    #[test]
    fn more_literal_characters_are_more_specific() {
        let ordered = [
            "*",
            "*!*.*",
            "*!machine",
            "*!machine.disk",
            "*!machine.disk:/va?.[fu]*",
            "*!machine.disk:/var.free",
            "web*!machine.disk:/var.free",
        ];
        assert!(ordered.is_sorted_by_key(|text| pattern(text).specificity()));
        assert_eq!(pattern(r"w?[ab]*!p:\*").specificity(), 5);
    }

    #[test]
    fn only_a_complete_pattern_without_globs_names_an_address() {
        for text in ["web1!port:http", "web1!alive:", "web1!machine.disk:/var.free"] {
            assert_eq!(pattern(text).literal(), Some(named(text)));
        }
        assert_eq!(pattern(r"w!p:a\*b").literal(), Some(named("w!p:a*b")));
        for text in [
            "web1",
            "web1!machine",
            "web1!machine.disk",
            "web1!machine.disk:/var",
            "web1!machine.disk:/mnt/a.b/c",
            "web*!port:http",
            "web1!port:htt?",
        ] {
            assert_eq!(pattern(text).literal(), None, "{text}");
        }
    }

    #[test]
    fn the_longest_address_has_an_exact_pattern() {
        let (host, name, unit) = ("h".repeat(253), "n".repeat(64), "*".repeat(1024));
        let address = named(&format!("{host}!{name}.{name}:{unit}.{name}"));
        assert_eq!(Pattern::exact(&address).literal(), Some(address));
    }

    #[test]
    fn a_refusal_says_what_is_wrong_with_the_pattern() {
        for (text, expected) in [
            ("", r#"pattern "" is empty; `*` matches everything"#),
            ("web[1", r#"pattern "web[1" has a `[` without its `]`"#),
            ("web\\", r#"pattern "web\\" ends in `\`, which must have a character after it"#),
            ("web\t", r#"pattern "web\t" holds '\t', but may hold only characters that are not control characters"#),
            ("!machine", r#"pattern "!machine" has an empty host; `*` matches every host"#),
            ("*!:x", r#"pattern "*!:x" has an empty service; `*` matches every service"#),
            ("*!a.:x", r#"pattern "*!a.:x" has an empty resource; `*` matches every resource"#),
            (
                "machine.disk:/var",
                r#"pattern "machine.disk:/var" holds ':' in its host, which may hold only ASCII letters, digits, `.`, `-` and `_`"#,
            ),
        ] {
            assert_eq!(refused(text), expected);
        }
    }

    #[test]
    fn the_longest_pattern_is_accepted_and_one_byte_more_is_not() {
        assert!("w".repeat(2048).parse::<Pattern>().is_ok());
        let shown = "w".repeat(60);
        assert_eq!(
            refused(&"w".repeat(2049)),
            format!(r#"pattern "{shown}"… has 2049 bytes, but may have at most 2048"#)
        );
    }

    #[test]
    fn a_pattern_is_a_checked_string_on_the_wire() {
        let disk = pattern("*!machine.disk");
        let packed = rmp_serde::to_vec(&disk).unwrap();
        assert_eq!(packed, b"\xae*!machine.disk");
        assert_eq!(rmp_serde::from_slice::<Pattern>(&packed).unwrap(), disk);
        let error = serde_json::from_str::<Pattern>(r#""web[""#).unwrap_err();
        assert!(error.to_string().starts_with(r#"pattern "web[" has a `[`"#));
    }
}
