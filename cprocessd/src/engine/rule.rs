//! Alarm rules: `pattern operator number [for D] [clear number] severity`, or `pattern absent for D severity`.
//!
//! Read from the right, since a pattern may hold spaces.

use common::address::{Address, Pattern};
use common::config::HumanDuration;
use common::number::parse_bytes_number;
use common::severity::Severity;
use common::time::UnixMillis;
use std::fmt;
use std::time::Duration;

/// A named rule as it was configured, checked: its operator and numbers make sense together.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Names its incidents.
    pub name: String,
    /// As written, for `alarm-list`.
    pub text: String,
    /// What it looks at.
    pub pattern: Pattern,
    /// When it is broken.
    pub condition: Condition,
    /// How bad that is.
    pub severity: Severity,
    /// Where it comes from.
    pub origin: RuleOrigin,
}

/// Who says that a rule holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleOrigin {
    /// The configuration.
    File,
    /// The rules that are shipped.
    Default,
    /// Somebody's order.
    Order {
        /// Whose.
        author: String,
        /// When.
        added: UnixMillis,
    },
}

/// When a rule is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// A number is beyond a limit.
    Beyond {
        /// How the number compares.
        operator: Operator,
        /// With what.
        limit: f64,
        /// Back within this it is over. On the good side of `limit`, so that a number that wavers around the limit does
        /// not open and close an incident with every sample.
        clear: f64,
        /// For at least this long, in observation time.
        lasting: Duration,
    },
    /// A number or check is not heard of for this long, by our own clock.
    Absent {
        /// For how long.
        lasting: Duration,
    },
}

/// `<`, `<=`, `>`, `>=`, `==`, `!=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they say what they are")]
pub enum Operator {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

impl Operator {
    const ALL: [(&'static str, Operator); 6] = [
        ("<", Operator::Less),
        ("<=", Operator::LessOrEqual),
        (">", Operator::Greater),
        (">=", Operator::GreaterOrEqual),
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
    ];

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(text, _)| *text == word).map(|(_, operator)| operator)
    }

    #[expect(clippy::float_cmp, reason = "== and != in a rule mean what they say: a count, a status")]
    /// Whether the number is on the bad side.
    pub fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Operator::Less => value < limit,
            Operator::LessOrEqual => value <= limit,
            Operator::Greater => value > limit,
            Operator::GreaterOrEqual => value >= limit,
            Operator::Equal => value == limit,
            Operator::NotEqual => value != limit,
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.into_iter().find(|(_, operator)| operator == self).map_or("?", |(text, _)| text))
    }
}

/// What is wrong with a rule, in words that name the part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; a rule is: PATTERN < NUMBER [for DURATION] [clear NUMBER] SEVERITY, or PATTERN absent for DURATION SEVERITY"
)]
pub struct RuleError(String);

impl Rule {
    /// Reads a rule. Numbers take `k m g t` and `%`; durations are like `90s`, `5m`, `1h`.
    pub fn parse(name: &str, text: &str) -> Result<Self, RuleError> {
        let error = |what: String| RuleError(what);
        // Each word with where it begins, so that what is left of the operator stays as written.
        let mut words: Vec<(usize, &str)> = Vec::new();
        for word in text.split_whitespace() {
            let start = word.as_ptr() as usize - text.as_ptr() as usize;
            words.push((start, word));
        }
        let Some((_, last)) = words.pop() else {
            return Err(error("the rule is empty".into()));
        };
        let severity: Severity = last.parse().map_err(|e: common::severity::UnknownSeverity| error(e.to_string()))?;
        let Some(at) = words.iter().rposition(|(_, word)| *word == "absent" || Operator::parse(word).is_some()) else {
            return Err(error("there is no < <= > >= == != or absent".into()));
        };
        let (start, operator) = words[at];
        let pattern_text = text[..start].trim();
        if pattern_text.is_empty() {
            return Err(error(format!("there is no pattern before {operator}")));
        }
        let pattern: Pattern = pattern_text.parse().map_err(|e: common::address::AddressError| error(e.to_string()))?;
        let mut rest = words[at + 1..].iter().map(|(_, word)| *word);
        let condition = match Operator::parse(operator) {
            None => absent(&mut rest),
            Some(operator) => beyond(operator, &mut rest),
        }
        .map_err(error)?;
        Ok(Self {
            name: name.to_owned(),
            text: text.trim().to_owned(),
            pattern,
            condition,
            severity,
            origin: RuleOrigin::File,
        })
    }

    /// Whether it can have something open at this address. Of checks only the absence is judged.
    pub fn judges(&self, address: &Address) -> bool {
        match address {
            Address::Value(_) => self.pattern.matches(address),
            Address::Check(_) => self.pattern.matches(address) && !self.has_limit(),
        }
    }

    /// Whether it looks at a number, which can be beyond a limit without anything being open yet.
    pub fn has_limit(&self) -> bool {
        matches!(self.condition, Condition::Beyond { .. })
    }
}

fn absent<'a>(rest: &mut impl Iterator<Item = &'a str>) -> Result<Condition, String> {
    match (rest.next(), rest.next(), rest.next()) {
        (Some("for"), Some(lasting), None) => Ok(Condition::Absent { lasting: duration(lasting)? }),
        _ => Err("after absent there must be: for DURATION".into()),
    }
}

fn beyond<'a>(operator: Operator, rest: &mut impl Iterator<Item = &'a str>) -> Result<Condition, String> {
    let limit = number(rest.next().ok_or_else(|| format!("there is no number after {operator}"))?)?;
    let (mut lasting, mut clear) = (Duration::ZERO, None);
    while let Some(word) = rest.next() {
        let argument = rest.next().ok_or_else(|| format!("nothing follows {word}"))?;
        match word {
            "for" => lasting = duration(argument)?,
            "clear" => clear = Some(number(argument)?),
            _ => return Err(format!("{word:?} is neither for nor clear")),
        }
    }
    let clear = clear.unwrap_or(limit);
    let good_side = match operator {
        Operator::Less | Operator::LessOrEqual => clear >= limit,
        Operator::Greater | Operator::GreaterOrEqual => clear <= limit,
        Operator::Equal | Operator::NotEqual => operator.holds(limit, limit) == operator.holds(clear, limit),
    };
    if !good_side {
        return Err(format!(
            "clear {clear} is on the bad side of {operator} {limit}: the alarm would end while it is broken"
        ));
    }
    Ok(Condition::Beyond { operator, limit, clear, lasting })
}

fn number(word: &str) -> Result<f64, String> {
    parse_bytes_number(word).map_err(|error| error.to_string())
}

fn duration(word: &str) -> Result<Duration, String> {
    word.parse::<HumanDuration>().map(|duration| duration.0).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn condition(text: &str) -> Condition {
        Rule::parse("r", text).expect("a rule").condition
    }

    fn complaint(text: &str) -> String {
        Rule::parse("r", text).expect_err("no rule").0
    }

    #[test]
    fn a_rule_has_a_pattern_a_limit_and_a_severity() {
        let rule = Rule::parse("r", "web*!machine.disk:/.free < 5g ERR").expect("a rule");
        assert_eq!(rule.pattern.to_string(), "web*!machine.disk:/.free");
        assert_eq!(rule.severity, Severity::Err);
        let limit = 5.0 * f64::from(1 << 30);
        assert_eq!(
            rule.condition,
            Condition::Beyond { operator: Operator::Less, limit, clear: limit, lasting: Duration::ZERO }
        );
    }

    #[test]
    fn for_and_clear_come_in_any_order() {
        let expected = Condition::Beyond {
            operator: Operator::Greater,
            limit: 90.0,
            clear: 80.0,
            lasting: Duration::from_mins(5),
        };
        assert_eq!(condition("*!machine.cpu:all.load > 90% for 5m clear 80% WARN"), expected);
        assert_eq!(condition("*!machine.cpu:all.load > 90 clear 80 for 5m WARN"), expected);
    }

    #[test]
    fn a_pattern_may_hold_spaces_and_operators() {
        let rule = Rule::parse("r", "*!app.queue:in > out (a).length > 7 CRIT").expect("a rule");
        assert_eq!(rule.pattern.to_string(), "*!app.queue:in > out (a).length");
    }

    #[test]
    fn absent_takes_a_duration() {
        assert_eq!(condition("*!backup absent for 25h ERR"), Condition::Absent { lasting: Duration::from_hours(25) });
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(complaint("").contains("empty"));
        assert!(complaint("a!b.c:d.e > 5").contains("\"5\" is no severity"));
        assert!(complaint("a!b.c:d.e WARN").contains("no < <="));
        assert!(complaint("> 5 WARN").contains("no pattern"));
        assert!(complaint("a!b.c:d.e > five WARN").contains("five"));
        assert!(complaint("a!b.c:d.e > 5 for WARN").contains("nothing follows for"));
        assert!(complaint("a!b.c:d.e > 5 within 3 WARN").contains("neither for nor clear"));
        assert!(complaint("a!b.c:d.e > 5 clear 6 WARN").contains("bad side"));
        assert!(complaint("a!b.c:d.e < 5 clear 4 WARN").contains("bad side"));
        assert!(complaint("a!b.c:d.e > nan WARN").contains("nan"));
        assert!(complaint("a!b absent 5m WARN").contains("for DURATION"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = Rule::parse("r", &text);
        }
    }
}
