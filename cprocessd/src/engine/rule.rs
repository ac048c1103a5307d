//! Alarm rules, read from the right, since a pattern may hold spaces:
//!
//! - `pattern operator number [for D] [clear number] severity`: the number is beyond a limit;
//! - `rate(pattern) operator number [for D] [clear number] severity`: its change per second is;
//! - `pattern operator number within D [over W] [for D] [clear number] severity`: it will be, as it goes on;
//! - `pattern full within D [over W] [for D] [clear number] severity`: the same with `>= 100`, for a percentage;
//! - `pattern absent for D severity`: nothing is heard of it.

use common::address::{Address, Pattern};
use common::config::HumanDuration;
use common::number::parse_bytes_number;
use common::severity::Severity;
use common::time::UnixMillis;
use std::fmt;
use std::time::Duration;

/// Nobody believes a straight line for longer.
const MAX_WITHIN_SECS: u64 = 366 * 86_400;
/// A longer window would take too long to notice that something has changed.
const MAX_OVER_SECS: u64 = 86_400;

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
    /// The change of a number from one sample to the next, per second of observation time, is beyond a limit. A number that
    /// falls is a counter that began anew, and has no rate then; so has one whose observer's clock was put back.
    Rate {
        /// How the rate compares.
        operator: Operator,
        /// With what.
        limit: f64,
        /// As in `Beyond`.
        clear: f64,
        /// As in `Beyond`.
        lasting: Duration,
    },
    /// A number will be beyond a limit before long, if it goes on as it did lately; or is already.
    Within {
        /// `<`, `<=`, `>` or `>=`.
        operator: Operator,
        /// With what it compares.
        limit: f64,
        /// As in `Beyond`, for what it will be.
        clear: f64,
        /// How far ahead to look.
        within: Duration,
        /// How far back.
        over: Duration,
        /// For at least this long it was expected to, in observation time.
        lasting: Duration,
    },
    /// A number or check is not heard of for this long, by our own clock.
    Absent {
        /// For how long.
        lasting: Duration,
    },
}

/// How a number compares with a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// How it compares.
    pub operator: Operator,
    /// Beyond this it is bad.
    pub limit: f64,
    /// Until it is no longer beyond this.
    pub clear: f64,
    /// And only after this long.
    pub lasting: Duration,
}

impl Condition {
    /// What is compared, unless it is about absence.
    pub fn limits(&self) -> Option<Limits> {
        match *self {
            Condition::Beyond { operator, limit, clear, lasting }
            | Condition::Rate { operator, limit, clear, lasting }
            | Condition::Within { operator, limit, clear, lasting, .. } => {
                Some(Limits { operator, limit, clear, lasting })
            }
            Condition::Absent { .. } => None,
        }
    }

    /// Whether former values play a part.
    pub fn remembers(&self) -> bool {
        matches!(self, Condition::Rate { .. } | Condition::Within { .. })
    }
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

    /// Whether all that it holds for is below 0.
    fn only_below_zero(self, limit: f64) -> bool {
        match self {
            Operator::Less => limit <= 0.0,
            Operator::LessOrEqual | Operator::Equal => limit < 0.0,
            Operator::Greater | Operator::GreaterOrEqual | Operator::NotEqual => false,
        }
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
    "{0}; a rule is: PATTERN < NUMBER [for DURATION] [clear NUMBER] SEVERITY, the same with rate(PATTERN) or with NUMBER within \
     DURATION [over DURATION], PATTERN full within DURATION [over DURATION] SEVERITY, or PATTERN absent for DURATION SEVERITY"
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
        let begins_condition = |word: &str| matches!(word, "absent" | "full") || Operator::parse(word).is_some();
        let Some(at) = words.iter().rposition(|(_, word)| begins_condition(word)) else {
            return Err(error("there is no < <= > >= == != full or absent".into()));
        };
        let (start, operator) = words[at];
        let pattern_text = text[..start].trim();
        if pattern_text.is_empty() {
            return Err(error(format!("there is no pattern before {operator}")));
        }
        // A host's name holds no parenthesis, so it cannot be meant as a pattern.
        let rate = pattern_text.strip_prefix("rate(").map(|inner| inner.strip_suffix(')'));
        let (pattern_text, rate) = match rate {
            Some(Some(inner)) => (inner.trim(), true),
            Some(None) => return Err(error("rate( has no ) before the comparison".into())),
            None => (pattern_text, false),
        };
        let pattern: Pattern = pattern_text.parse().map_err(|e: common::address::AddressError| error(e.to_string()))?;
        let mut rest = words[at + 1..].iter().map(|(_, word)| *word);
        let condition = match Operator::parse(operator) {
            None if rate => Err(format!("rate() is compared with a number, but {operator} follows")),
            None if operator == "full" => full(&mut rest),
            None => absent(&mut rest),
            Some(operator) => {
                let limit = rest.next().ok_or_else(|| format!("there is no number after {operator}")).and_then(number);
                limit.and_then(|limit| beyond(operator, limit, rate, &mut rest))
            }
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
        self.condition.limits().is_some()
    }
}

fn absent<'a>(rest: &mut impl Iterator<Item = &'a str>) -> Result<Condition, String> {
    match (rest.next(), rest.next(), rest.next()) {
        (Some("for"), Some(lasting), None) => {
            let lasting = duration(lasting)?;
            if lasting.is_zero() {
                return Err("absent for 0s would be open all the time".into());
            }
            Ok(Condition::Absent { lasting })
        }
        _ => Err("after absent there must be: for DURATION".into()),
    }
}

fn full<'a>(rest: &mut impl Iterator<Item = &'a str>) -> Result<Condition, String> {
    match beyond(Operator::GreaterOrEqual, 100.0, false, rest)? {
        condition @ Condition::Within { .. } => Ok(condition),
        _ => Err("after full there must be: within DURATION".into()),
    }
}

fn beyond<'a>(
    operator: Operator,
    limit: f64,
    rate: bool,
    rest: &mut impl Iterator<Item = &'a str>,
) -> Result<Condition, String> {
    let (mut lasting, mut clear, mut within, mut over) = (Duration::ZERO, None, None, None);
    while let Some(word) = rest.next() {
        let argument = rest.next().ok_or_else(|| format!("nothing follows {word}"))?;
        match word {
            "for" => lasting = duration(argument)?,
            "clear" => clear = Some(number(argument)?),
            "within" => within = Some(span(word, argument, 1, MAX_WITHIN_SECS)?),
            "over" => over = Some(span(word, argument, 60, MAX_OVER_SECS)?),
            _ => return Err(format!("{word:?} is neither for nor clear nor within nor over")),
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
    match (within, over) {
        (Some(_), _) if rate => Err("within looks ahead for a number, not for a rate()".into()),
        (Some(_), _) if matches!(operator, Operator::Equal | Operator::NotEqual) => {
            Err(format!("within needs < <= > or >=, not {operator}: a number that moves passes by any other"))
        }
        (Some(within), over) => {
            let over = over.unwrap_or_else(|| usual_window(within));
            Ok(Condition::Within { operator, limit, clear, within, over, lasting })
        }
        (None, Some(_)) => Err("over says how far back within looks, but there is no within".into()),
        // A counter that goes down has begun anew.
        (None, None) if rate && operator.only_below_zero(limit) => {
            Err(format!("rate() is never {operator} {limit}: it is never below 0"))
        }
        (None, None) if rate => Ok(Condition::Rate { operator, limit, clear, lasting }),
        (None, None) => Ok(Condition::Beyond { operator, limit, clear, lasting }),
    }
}

/// How far back to look for what is to come: a quarter of the way ahead, as what was longer ago says little about now.
fn usual_window(within: Duration) -> Duration {
    (within / 4).clamp(Duration::from_mins(10), Duration::from_secs(MAX_OVER_SECS))
}

fn span(word: &str, text: &str, least_secs: u64, most_secs: u64) -> Result<Duration, String> {
    let span = duration(text)?;
    let (least, most) = (Duration::from_secs(least_secs), Duration::from_secs(most_secs));
    if (least..=most).contains(&span) {
        return Ok(span);
    }
    Err(format!("{word} is {text}, but must be {} to {}", HumanDuration(least), HumanDuration(most)))
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
    fn a_rate_is_compared_as_a_number_is() {
        let rule = Rule::parse("r", "rate(*!app.queue:in (a).errors) > 1k for 5m clear 10 WARN").expect("a rule");
        assert_eq!(rule.pattern.to_string(), "*!app.queue:in (a).errors");
        let (operator, lasting) = (Operator::Greater, Duration::from_mins(5));
        assert_eq!(rule.condition, Condition::Rate { operator, limit: 1024.0, clear: 10.0, lasting });
    }

    #[test]
    fn a_prediction_looks_back_for_a_quarter_of_the_way_ahead_if_not_said_otherwise() {
        let within = |text: &str| match condition(text) {
            Condition::Within { operator, limit, within, over, .. } => {
                (operator, limit, within.as_secs(), over.as_secs())
            }
            other => panic!("{other:?}"),
        };
        let at_least = Operator::GreaterOrEqual;
        assert_eq!(within("*!machine.disk:*.used_percentage full within 24h ERR"), (at_least, 100.0, 86_400, 21_600));
        assert_eq!(within("*!machine.disk:*.used_percentage full within 10m ERR"), (at_least, 100.0, 600, 600));
        assert_eq!(
            within("*!machine.disk:*.used_percentage full within 30d ERR"),
            (at_least, 100.0, 2_592_000, 86_400)
        );
        let free = within("*!machine.disk:*.free < 1g within 4h over 30m for 5m clear 2g ERR");
        assert_eq!(free, (Operator::Less, f64::from(1 << 30), 14_400, 1800));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(complaint("").contains("empty"));
        assert!(complaint("a!b.c:d.e > 5").contains("\"5\" is no severity"));
        assert!(complaint("a!b.c:d.e WARN").contains("no < <="));
        assert!(complaint("> 5 WARN").contains("no pattern"));
        assert!(complaint("a!b.c:d.e > five WARN").contains("five"));
        assert!(complaint("a!b.c:d.e > 5 for WARN").contains("nothing follows for"));
        assert!(complaint("a!b.c:d.e > 5 since 3 WARN").contains("neither for nor clear nor within nor over"));
        assert!(complaint("a!b.c:d.e > 5 within 3 WARN").contains('3'));
        assert!(complaint("a!b.c:d.e > 5 over 1h WARN").contains("there is no within"));
        assert!(complaint("a!b.c:d.e > 5 within 1h over 5s WARN").contains("over is 5s, but must be 1m to 1d"));
        assert!(complaint("a!b absent for 0s WARN").contains("open all the time"));
        assert!(complaint("rate(a!b.c:d.e) < -5 WARN").contains("it is never below 0"));
        assert!(complaint("a!b.c:d.e == 5 within 1h WARN").contains("not =="));
        assert!(complaint("a!b.c:d.e full WARN").contains("after full there must be: within"));
        assert!(complaint("a!b.c:d.e full for 5m WARN").contains("after full there must be: within"));
        assert!(complaint("rate(a!b.c:d.e > 5 WARN").contains("rate( has no )"));
        assert!(complaint("rate(a!b.c:d.e) > 5 within 1h WARN").contains("not for a rate()"));
        assert!(complaint("rate(a!b.c:d.e) absent for 1h WARN").contains("absent follows"));
        assert!(complaint("rate() > 5 WARN").contains("empty"));
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
