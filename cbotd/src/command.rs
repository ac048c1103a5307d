//! What people may say to the bot: a line becomes a [`Command`], or a phrase that says what is wrong with it.
//!
//! Units may hold spaces, so a pattern may. Where more than the pattern follows, the pattern ends at the first duration, or
//! stands in quotes: `!silence "web1!port:two words" 2h moving`.

use common::address::{HostName, Pattern};
use common::config::HumanDuration;
use common::severity::Severity;
use std::time::Duration;
use uuid::Uuid;

/// As cprocessd takes them.
const MAX_RULE_NAME_BYTES: usize = 100;
/// A word that is no command of ours, quoted to who said it.
const MAX_QUOTED_CHARS: usize = 20;

/// What each command is, in the order in which people need them: its word, its arguments, what it does.
const COMMANDS: [(&str, &str, &str); 16] = [
    ("status", "[HOST]", "how everything is, or one host"),
    ("down", "", "what is open, worst first"),
    ("servers", "", "all hosts, those in trouble first"),
    ("services", "HOST", "the checks of a host"),
    ("last", "PATTERN", "last values, as !last web*!machine.disk:/.free"),
    ("alarms", "", "what is over its limit"),
    ("rules", "", "the alarm rules"),
    ("explain", "ADDRESS", "why something is as it is"),
    ("silences", "", "what is not told for now"),
    (
        "ack",
        "WHAT [FOR] [REASON]",
        "you look after what is open there: an incident's id, or a pattern, in quotes if it holds spaces",
    ),
    ("unack", "WHAT", "nobody does any more"),
    ("silence", "PATTERN FOR REASON", "it is not told for so long, as !silence web* 2h upgrade"),
    ("unsilence", "PATTERN", "it is told again; as !silences shows it"),
    ("addrule", "[NAME] RULE", "as !addrule web*!machine.disk:/.free < 5g ERR"),
    ("delrule", "NAME", "a rule that was added goes; without a name, the rule as it was added"),
    ("more", "", "the rest of the last answer"),
];

/// What a line is to us.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    /// People talk to each other.
    Chatter,
    /// It looks like a command, perhaps of another bot.
    Unknown(String),
    /// A command of ours, but not like this. The phrase says what is wrong.
    Mistake(String),
    Command(Command),
}

/// What somebody wants.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    /// How to use this command; of all if there is none.
    Help(Option<String>),
    /// The rest of the last answer.
    More,
    Question(Question),
    Order(Order),
}

/// What may be asked by whoever is in a channel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Question {
    Status,
    Server(HostName),
    Down,
    Last(Pattern),
    Servers,
    Services(HostName),
    Alarms,
    Rules,
    Silences,
    /// One address, or a host for its own.
    Explain(String),
}

/// What changes something: for operators.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Order {
    /// Somebody looks after what is open.
    Ack { what: Target, lasting: Option<Duration>, reason: String },
    /// Nobody does any more.
    Unack { what: Target },
    /// It is not told for a while.
    Silence { pattern: Pattern, lasting: Duration, reason: String },
    /// What was silenced by this pattern, or by the order of this id, is told again.
    Unsilence { silence: String },
    /// A rule beside those of the configuration.
    AddRule { name: String, rule: String },
    /// And no longer.
    DelRule { name: String },
}

/// What an acknowledgement is about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    Incident(String),
    Pattern(Pattern),
}

/// Reads a line.
pub(crate) fn parse(line: &str) -> Heard {
    // Bold and colours, where somebody has copied a line of ours.
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    let Some(rest) = line.trim().strip_prefix('!') else { return Heard::Chatter };
    let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    // Not "!!!", nor "!?".
    if !word.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Heard::Chatter;
    }
    let word = word.to_ascii_lowercase();
    match command(&word, rest.trim()) {
        Some(Ok(command)) => Heard::Command(command),
        Some(Err(why)) => Heard::Mistake(why),
        None => Heard::Unknown(word.chars().take(MAX_QUOTED_CHARS).collect()),
    }
}

/// What `!help` says: of all commands, or of one.
pub(crate) fn help(about: Option<&str>) -> Vec<String> {
    let about = about.map(|word| word.trim_start_matches('!').to_ascii_lowercase());
    if let Some((_, _, does)) = about.as_deref().and_then(find) {
        return vec![format!("{}: {does}", usage(&about.unwrap_or_default()))];
    }
    let words: Vec<String> = COMMANDS.iter().map(|(word, ..)| format!("!{word}")).collect();
    vec![format!("{}; !help COMMAND says more of one", words.join(" "))]
}

fn find(word: &str) -> Option<(&'static str, &'static str, &'static str)> {
    COMMANDS.into_iter().find(|(known, ..)| *known == word)
}

/// `!silence PATTERN FOR REASON`.
fn usage(word: &str) -> String {
    let arguments = find(word).map_or("", |(_, arguments, _)| arguments);
    format!("!{word} {arguments}").trim_end().to_owned()
}

/// None if there is no such command.
fn command(word: &str, rest: &str) -> Option<Result<Command, String>> {
    if word == "help" {
        return Some(Ok(Command::Help(Some(rest.to_owned()).filter(|rest| !rest.is_empty()))));
    }
    find(word)?;
    let read = match word {
        "more" => Ok(Command::More),
        "ack" | "unack" | "silence" | "unsilence" | "addrule" | "delrule" => order(word, rest).map(Command::Order),
        _ => question(word, rest).map(Command::Question),
    };
    Some(read)
}

fn question(word: &str, rest: &str) -> Result<Question, String> {
    let needed = || if rest.is_empty() { Err(usage(word)) } else { Ok(rest) };
    Ok(match word {
        "status" if rest.is_empty() => Question::Status,
        "status" => Question::Server(host(rest)?),
        "services" => Question::Services(host(needed()?)?),
        "last" => Question::Last(pattern(unquoted(needed()?))?),
        "explain" => Question::Explain(unquoted(needed()?).to_owned()),
        // What needs no argument is not particular about one: "!down please".
        "down" => Question::Down,
        "servers" => Question::Servers,
        "alarms" => Question::Alarms,
        "rules" => Question::Rules,
        _ => Question::Silences,
    })
}

fn order(word: &str, rest: &str) -> Result<Order, String> {
    let usage = || usage(word);
    if rest.is_empty() {
        return Err(usage());
    }
    Ok(match word {
        "ack" => {
            let (what, rest) = first(rest);
            let (next, behind) = split_word(rest);
            let (lasting, reason) = match next.parse::<HumanDuration>() {
                Ok(HumanDuration(lasting)) => (Some(lasting), behind),
                Err(_) => (None, rest),
            };
            Order::Ack { what: target(what)?, lasting, reason: reason.to_owned() }
        }
        "unack" => Order::Unack { what: target(unquoted(rest))? },
        "silence" => {
            let (what, lasting, reason) = until_duration(rest).ok_or_else(|| format!("for how long? {}", usage()))?;
            if what.is_empty() {
                return Err(usage());
            }
            if reason.is_empty() {
                return Err(format!("why? {}", usage()));
            }
            Order::Silence { pattern: pattern(what)?, lasting, reason: reason.to_owned() }
        }
        "unsilence" => Order::Unsilence { silence: unquoted(rest).to_owned() },
        "addrule" => add_rule(rest).ok_or_else(usage)?,
        _ => {
            let name = unquoted(rest);
            // A rule without a name has its condition for one.
            let name = if name.contains('!') { condition(name).0 } else { name };
            Order::DelRule { name: cut(name) }
        }
    })
}

/// `[NAME] CONDITION [SEVERITY]`: the condition alone is a rule. A name is in quotes, or one word without a `!`, which a
/// condition has in its first word.
fn add_rule(text: &str) -> Option<Order> {
    let (name, rule) = match quoted(text) {
        Some((name, rule)) => (Some(name), rule),
        None => match split_word(text) {
            (word, rule) if !word.contains('!') => (Some(word), rule),
            _ => (None, text),
        },
    };
    let (condition, severity) = condition(rule);
    if condition.is_empty() || name.is_some_and(str::is_empty) {
        return None;
    }
    let name = name.map_or_else(|| cut(condition), str::to_owned);
    Some(Order::AddRule { name, rule: format!("{condition} {severity}") })
}

/// A rule without its severity, and that: WARN where none stands at its end.
fn condition(rule: &str) -> (&str, Severity) {
    let split = rule.trim().rsplit_once(char::is_whitespace);
    match split.and_then(|(condition, word)| Some((condition.trim_end(), word.parse().ok()?))) {
        Some(parted) => parted,
        None => (rule.trim(), Severity::Warn),
    }
}

/// As long as the name of a rule may be.
fn cut(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_RULE_NAME_BYTES)].to_owned()
}

fn host(text: &str) -> Result<HostName, String> {
    text.parse().map_err(|error: common::address::AddressError| error.to_string())
}

fn pattern(text: &str) -> Result<Pattern, String> {
    text.parse().map_err(|error: common::address::AddressError| error.to_string())
}

fn target(text: &str) -> Result<Target, String> {
    match Uuid::try_parse(text) {
        Ok(_) => Ok(Target::Incident(text.to_owned())),
        Err(_) => pattern(text).map(Target::Pattern),
    }
}

/// What stands in quotes at the beginning, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let (inner, rest) = text.strip_prefix('"')?.split_once('"')?;
    Some((inner.trim(), rest.trim_start()))
}

/// Without the quotes around all of it.
fn unquoted(text: &str) -> &str {
    match quoted(text) {
        Some((inner, "")) => inner,
        _ => text,
    }
}

fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// The first thing and the rest: what is in quotes, or a word and the comment in parentheses behind it, as addresses are
/// shown: `web1!port:ircd (6667)`.
fn first(text: &str) -> (&str, &str) {
    if let Some(parted) = quoted(text) {
        return parted;
    }
    let (word, rest) = split_word(text);
    match rest.starts_with('(').then(|| rest.find(')')).flatten() {
        // The parentheses around a reason do not stand behind a unit.
        Some(end) if word.contains(':') => {
            let behind = &rest[end + 1..];
            let what = &text[..text.len() - behind.len()];
            (what, behind.trim_start())
        }
        _ => (word, rest),
    }
}

/// What stands before the first duration, that, and what follows.
fn until_duration(text: &str) -> Option<(&str, Duration, &str)> {
    let (begin, mut rest) = quoted(text).unwrap_or(("", text));
    let whole = rest;
    loop {
        let (word, behind) = split_word(rest);
        if let Ok(HumanDuration(lasting)) = word.parse() {
            let before = whole[..whole.len() - rest.len()].trim_end();
            // Nothing stands between a pattern in quotes and its duration.
            return match (begin.is_empty(), before.is_empty()) {
                (true, _) => Some((before, lasting, behind)),
                (false, true) => Some((begin, lasting, behind)),
                (false, false) => None,
            };
        }
        if behind.is_empty() {
            return None;
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn question(line: &str, expected: Question) {
        assert_eq!(parse(line), Heard::Command(Command::Question(expected)), "{line}");
    }

    #[track_caller]
    fn order(line: &str, expected: Order) {
        assert_eq!(parse(line), Heard::Command(Command::Order(expected)), "{line}");
    }

    #[track_caller]
    fn mistake(line: &str, expected: &str) {
        match parse(line) {
            Heard::Mistake(why) => assert!(why.contains(expected), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("a pattern")
    }

    fn host(text: &str) -> HostName {
        text.parse().expect("a host")
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn questions_are_read() {
        question("!status", Question::Status);
        question("  !STATUS  web1 ", Question::Server(host("web1")));
        question("!down please", Question::Down);
        question("!servers", Question::Servers);
        question("!services web1", Question::Services(host("web1")));
        question("!last *!machine.disk:/my data.free", Question::Last(pattern("*!machine.disk:/my data.free")));
        question("!alarms", Question::Alarms);
        question("!rules", Question::Rules);
        question("!silences", Question::Silences);
        question("!explain web1!port:ircd (6667)", Question::Explain("web1!port:ircd (6667)".to_owned()));
        assert_eq!(parse("!more"), Heard::Command(Command::More));
        assert_eq!(parse("!help"), Heard::Command(Command::Help(None)));
    }

    #[test]
    fn people_may_talk() {
        for line in ["", "!", "!!!", "!?", "! down", "it is !down", "\u{1}ACTION !down\u{1}", "[ DOWN ] web1!port:x"] {
            assert_eq!(parse(line), Heard::Chatter, "{line}");
        }
        assert_eq!(parse("!weather in Oslo"), Heard::Unknown("weather".to_owned()));
        assert_eq!(parse(&format!("!{}", "x".repeat(400))), Heard::Unknown("x".repeat(20)));
    }

    #[test]
    fn a_silence_has_a_pattern_an_end_and_a_reason() {
        let silence = |text: &str, reason: &str| Order::Silence {
            pattern: pattern(text),
            lasting: HOUR,
            reason: reason.to_owned(),
        };
        order("!silence web* 1h new disk", silence("web*", "new disk"));
        order("!silence web1!port:two words 1h it moves for 2h", silence("web1!port:two words", "it moves for 2h"));
        order("!silence \"web1!port:every 5m\" 60m tests", silence("web1!port:every 5m", "tests"));
        mistake("!silence", "!silence PATTERN FOR REASON");
        mistake("!silence web1", "for how long? !silence PATTERN");
        mistake("!silence web1 1 hour", "for how long?");
        mistake("!silence web1 1h", "why? !silence PATTERN");
        mistake("!silence 1h new disk", "!silence PATTERN");
        mistake("!silence \"web1\" really 1h x", "for how long?");
        mistake("!silence web1!!x 1h x", "pattern \"web1!!x\"");
        order("!unsilence \"web1\"", Order::Unsilence { silence: "web1".to_owned() });
    }

    #[test]
    fn an_acknowledgement_takes_an_address_as_it_is_shown() {
        let ack = |text: &str, lasting, reason: &str| Order::Ack {
            what: Target::Pattern(pattern(text)),
            lasting,
            reason: reason.to_owned(),
        };
        order("!ack web1", ack("web1", None, ""));
        order("!ack web1!port:www back in 5m", ack("web1!port:www", None, "back in 5m"));
        order("!ack web1!port:ircd (6667) 1h on it", ack("web1!port:ircd (6667)", Some(HOUR), "on it"));
        order("!ack web1 (I am on it)", ack("web1", None, "(I am on it)"));
        order("!ack \"web1!port:two words\" on it", ack("web1!port:two words", None, "on it"));
        let id = "6a9a9b79-19e7-55f6-83d2-03b9319fa76c";
        order(&format!("!unack {id}"), Order::Unack { what: Target::Incident(id.to_owned()) });
        mistake("!ack", "!ack WHAT [FOR] [REASON]");
        mistake("!ack a!!b", "pattern");
    }

    #[test]
    fn a_rule_needs_neither_name_nor_severity() {
        let added = |name: &str, rule: &str| Order::AddRule { name: name.to_owned(), rule: rule.to_owned() };
        let disk = "web*!machine.disk:/.free < 5g";
        order(&format!("!addrule {disk}"), added(disk, &format!("{disk} WARN")));
        order(&format!("!addrule {disk} err"), added(disk, &format!("{disk} ERR")));
        order(&format!("!addrule disk {disk} CRIT"), added("disk", &format!("{disk} CRIT")));
        order(&format!("!addrule \"disk full\" {disk}"), added("disk full", &format!("{disk} WARN")));
        let rate = "rate(*!app.requests:*.failed) > 2 for 1m clear 1";
        order(&format!("!addrule {rate}"), added(rate, &format!("{rate} WARN")));
        order(&format!("!delrule {disk} ERR"), Order::DelRule { name: disk.to_owned() });
        order("!delrule \"disk full\"", Order::DelRule { name: "disk full".to_owned() });
        order("!delrule disk full", Order::DelRule { name: "disk full".to_owned() });
        for line in ["!addrule", "!addrule disk", "!addrule \"\" a!b.c:d.e > 1", "!addrule \"disk\""] {
            mistake(line, "!addrule [NAME] RULE");
        }
        let long = format!("web1!machine.disk:/{}.free < 5g", "ü".repeat(100));
        match parse(&format!("!addrule {long}")) {
            Heard::Command(Command::Order(Order::AddRule { name, rule })) => {
                assert!(name.len() <= 100 && long.starts_with(&name));
                assert_eq!(rule, format!("{long} WARN"));
                order(&format!("!delrule {long}"), Order::DelRule { name });
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_command_is_read_and_has_its_help() {
        for (word, arguments, does) in COMMANDS {
            assert!(!matches!(parse(&format!("!{word}")), Heard::Unknown(_) | Heard::Chatter), "{word}");
            assert_eq!(help(Some(word)), [format!("{}: {does}", format!("!{word} {arguments}").trim_end())]);
        }
        let all = help(None);
        assert!(COMMANDS.iter().all(|(word, ..)| all[0].contains(&format!("!{word}"))), "{all:?}");
        assert_eq!(help(Some("!DOWN")), ["!down: what is open, worst first"]);
        assert_eq!(help(Some("nonsense")), all);
    }

    #[test]
    fn noise_breaks_nothing() {
        let words =
            ["!", "\"", "silence", "ack", "1h", "(", ")", ":", "addrule", " ", "ü", "delrule", "WARN", "!x", "\u{0}"];
        let mut state: u64 = 7;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).expect("31 bits")
        };
        for _ in 0..20_000 {
            let command = ["!silence ", "!ack ", "!addrule ", "!delrule ", "!unsilence ", "!last ", ""][random() % 7];
            let noise: String = (0..random() % 10).map(|_| words[random() % words.len()]).collect();
            drop(parse(&format!("{command}{noise}")));
        }
    }
}
