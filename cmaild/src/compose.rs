//! Writes a mail (RFC 5322) about one story, or about several that waited together.
//!
//! **Names.** A mail's Message-ID is the frame's id for that message at our host: a mail that is sent again keeps it, and no
//! two mails share one, whatever they tell of and to whom. The root of a thread is `<INCIDENT@HOST>`, which no mail bears
//! itself: every mail about one incident has it first in its References, as the mails of a bug tracker name their bug. Mail
//! readers thread by it, also where the first mail was deleted or went to somebody else, or the incident was told twice. An
//! end is a reply to the mail that told of the beginning, be that a summary of many. A summary has no root, or it would pull
//! the threads of all its incidents together.
//!
//! **Date** is when this attempt was composed, which is what RFC 5322 §3.6.1 wants; what happened when is in the text.
//!
//! **Others' words** reach the subject and the text only, made harmless by [`plain`]; sender and recipients come from the
//! configuration.

use crate::plain;
use common::address::HostName;
use common::message::IncidentId;
use common::notifier::{Composed, Letter, Mark, MessageId, Story};
use common::severity::Severity;
use common::time::{UnixMillis, for_people};
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder, SinglePart};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

/// The text of a mail, before it is encoded. What does not fit waits for the next mail.
const MAX_TEXT_BYTES: usize = 256 * 1024;
/// Kept free in it for what surrounds the stories.
const FRAME_BYTES: usize = 4096;
/// Characters of a subject, and of the address in it: the word after the address must survive.
const SUBJECT_CHARS: usize = 200;
const SUBJECT_ADDRESS_CHARS: usize = 120;
/// Characters of an address in the text. A unit may have a thousand.
const ADDRESS_CHARS: usize = 400;
/// Characters of an event's text, alone and among others.
const ALONE_CHARS: usize = 20_000;
const AMONG_OTHERS_CHARS: usize = 1000;
/// The rule of everything that is up or down, which says nothing to a reader.
const CHECK_RULE: &str = "check";
/// The last second that a mail's date can show, 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// What all our mails have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Composer {
    /// Our host, after the `@` of every Message-ID.
    pub host: HostName,
    /// The sender.
    pub from: Mailbox,
    /// For filters (RFC 2919), without the brackets.
    pub list_id: String,
}

impl Composer {
    /// Writes as many of the letter's stories as fit into one mail.
    pub fn compose(&self, to: &Mailbox, letter: &Letter<'_>) -> Composed {
        let (text, told) = text(letter);
        let stories = &letter.stories[..told];
        let text =
            format!("{text}\n-- \nCairn on {}, for {}\n", self.host, plain::line(letter.recipient, ADDRESS_CHARS));

        let mut mail = lettre::Message::builder().from(self.from.clone()).to(to.clone()).date(date(letter.now));
        mail = mail.message_id(Some(self.message_id(letter.id))).subject(subject(stories));
        mail = self.thread(mail, stories);
        mail = raw(mail, "Auto-Submitted", "auto-generated");
        mail = raw(mail, "List-Id", &format!("<{}>", self.list_id));
        mail = raw(mail, "X-Cairn-Severity", worst(stories).as_str());
        if let [story] = stories {
            mail = raw(mail, "X-Cairn-Incident", &story.incident().to_string());
            mail = raw(mail, "X-Cairn-Event", &story.event.id.to_string());
        }
        mail = raw(mail, "X-Cairn-Stories", &told.to_string());
        if letter.again {
            mail = raw(mail, "X-Cairn-Resent", "outcome unknown, sent again");
        }
        let mail = mail.singlepart(SinglePart::plain(text)).expect("it has a sender and a recipient");
        Composed { bytes: mail.formatted(), told }
    }

    fn message_id(&self, id: MessageId) -> String {
        format!("<{id}@{}>", self.host)
    }

    fn root(&self, incident: IncidentId) -> String {
        format!("<{incident}@{}>", self.host)
    }

    /// In-Reply-To and References, where all stories agree on them.
    fn thread(&self, mut mail: MessageBuilder, stories: &[Story]) -> MessageBuilder {
        let root = common_to(stories, |story| Some(story.incident())).map(|incident| self.root(incident));
        let parent = common_to(stories, |story| story.told_in).map(|told_in| self.message_id(told_in));
        if let Some(parent) = &parent {
            mail = mail.in_reply_to(parent.clone());
        }
        let references: Vec<String> = root.into_iter().chain(parent).collect();
        if references.is_empty() { mail } else { mail.references(references.join(" ")) }
    }
}

/// What is the same in all stories.
fn common_to<T: PartialEq>(stories: &[Story], what: impl Fn(&Story) -> Option<T>) -> Option<T> {
    let first = what(stories.first()?)?;
    stories.iter().all(|story| what(story).as_ref() == Some(&first)).then_some(first)
}

fn raw(mail: MessageBuilder, name: &'static str, value: &str) -> MessageBuilder {
    mail.raw_header(HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned()))
}

fn date(now: UnixMillis) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(now.0 / 1000).unwrap_or(0).min(LAST_SECOND))
}

/// How bad the trouble is, or was: who filters by the subject gets the end with the beginning.
fn severity(story: &Story) -> Severity {
    match story.mark {
        Mark::Began | Mark::Passed | Mark::Ended => story.event.top_severity,
        Mark::Once => story.event.severity,
    }
}

fn worst(stories: &[Story]) -> Severity {
    stories.iter().map(severity).max().unwrap_or(Severity::Info)
}

fn subject(stories: &[Story]) -> String {
    let subject = match stories {
        [story] => headline(story, SUBJECT_ADDRESS_CHARS),
        stories => format!("[{}] {}", worst(stories), counts(stories)),
    };
    plain::line(&subject, SUBJECT_CHARS)
}

/// `[ERR] web1!port:smtp (25) UP after 3m 12s`.
fn headline(story: &Story, address_chars: usize) -> String {
    let address = plain::line(&story.event.address.to_string(), address_chars);
    let mut headline = format!("[{}] {address} {}", severity(story), story.word());
    match (story.mark, story.duration()) {
        (Mark::Ended | Mark::Passed, Some(duration)) => {
            let _ = write!(headline, " after {}", for_people(duration));
        }
        (Mark::Once, _) if !story.event.text.is_empty() => {
            let _ = write!(headline, ": {}", plain::line(&story.event.text, SUBJECT_CHARS));
        }
        _ => (),
    }
    if story.outages > 1 {
        let _ = write!(headline, " ({} outages)", story.outages);
    }
    plain::line(&headline, address_chars + SUBJECT_CHARS)
}

/// `7 problems on 3 hosts, 2 over`.
fn counts(stories: &[Story]) -> String {
    let of = |section: Section| stories.iter().filter(|story| Section::of(story) == section).count();
    // Where something is open, that is what people ask about.
    let matters = |story: &&Story| of(Section::Open) == 0 || Section::of(story) == Section::Open;
    let hosts = stories.iter().filter(matters).map(|story| &story.event.host).collect::<BTreeSet<_>>().len();
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let on = counted(hosts, "host");
    let mut counts = match (of(Section::Open), of(Section::Over)) {
        (0, 0) => return format!("{} on {on}", counted(of(Section::Other), "notice")),
        (0, over) => format!("{} over on {on}", counted(over, "problem")),
        (open, 0) => format!("{} on {on}", counted(open, "problem")),
        (open, over) => format!("{} on {on}, {over} over", counted(open, "problem")),
    };
    if of(Section::Other) > 0 {
        let _ = write!(counts, ", {}", counted(of(Section::Other), "notice"));
    }
    counts
}

/// Where in a summary a story stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Open,
    Over,
    Other,
}

impl Section {
    fn of(story: &Story) -> Self {
        match story.mark {
            Mark::Began => Section::Open,
            Mark::Ended | Mark::Passed => Section::Over,
            Mark::Once => Section::Other,
        }
    }
}

/// The text, and how many stories it tells.
fn text(letter: &Letter<'_>) -> (String, usize) {
    let mut text = String::new();
    if letter.again {
        text.push_str("This mail may have reached you before: what became of it was not known.\n\n");
    }
    if let [story] = letter.stories {
        text.push_str(&block(story, ALONE_CHARS, letter.now));
        return (text, 1);
    }
    let mut room = MAX_TEXT_BYTES - FRAME_BYTES;
    let mut blocks = Vec::new();
    for story in letter.stories {
        let block = block(story, AMONG_OTHERS_CHARS, letter.now);
        let Some(left) = room.checked_sub(block.len()) else { break };
        room = left;
        blocks.push((Section::of(story), block));
    }
    let told = blocks.len();
    let _ = writeln!(text, "{}.", counts(&letter.stories[..told]));
    if told < letter.stories.len() {
        let _ = writeln!(text, "{} more in the next mail.", letter.stories.len() - told);
    }
    for (section, title) in [(Section::Open, "STILL OPEN"), (Section::Over, "OVER"), (Section::Other, "NOTICES")] {
        for (n, (_, block)) in blocks.iter().filter(|(of, _)| *of == section).enumerate() {
            if n == 0 {
                let _ = write!(text, "\n{title}\n");
            }
            let _ = write!(text, "\n{block}");
        }
    }
    (text, told)
}

/// One story: short lines, which do not wrap on a telephone.
fn block(story: &Story, text_chars: usize, now: UnixMillis) -> String {
    let event = &story.event;
    let mut block = headline(story, ADDRESS_CHARS);
    block.push('\n');
    if story.mark != Mark::Once || event.text.chars().nth(SUBJECT_CHARS).is_some() || event.text.contains('\n') {
        block.push_str(&plain::indented(&event.text, text_chars));
    }
    let mut say = |key: &str, value: &str| {
        let _ = writeln!(block, "{key}: {value}");
    };
    let age = story.age(now).map(|age| format!(", {age}")).unwrap_or_default();
    match story.mark {
        Mark::Began => say("Since", &format!("{}{age}", when(event.since))),
        Mark::Ended | Mark::Passed => {
            say("Began", &when(event.since));
            say("Ended", &format!("{}{age}", when(event.time)));
        }
        Mark::Once => say("At", &format!("{}{age}", when(event.time))),
    }
    if let Some(value) = event.value {
        say("Value", &number(value));
    }
    if event.rule != CHECK_RULE && !story.is_test() {
        say("Rule", &plain::line(&event.rule, ADDRESS_CHARS));
    }
    block
}

/// A number with at most three decimals.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Date and time of day with the zone of this machine.
fn when(time: UnixMillis) -> String {
    match jiff::Timestamp::from_millisecond(time.0) {
        Ok(timestamp) => timestamp.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
        Err(_) => time.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::message::{Event, Kind};
    use serde_json::json;

    const MINUTE: i64 = 60_000;
    const SINCE: i64 = 1_795_236_306_000;

    fn composer() -> Composer {
        Composer {
            host: "mon1".try_into().expect("a host"),
            from: "Cairn <cairn@mon1>".parse().expect("a mailbox"),
            list_id: "alerts.cairn.mon1".into(),
        }
    }

    fn id(n: u32) -> MessageId {
        MessageId::parse(&format!("00000000-0000-4000-8000-{n:012}")).expect("an id")
    }

    fn event(n: u32, host: &str, unit: &str) -> Event {
        serde_json::from_value(json!({
            "epoch": "00000000-0000-4000-8000-0000000000ee", "seq": n, "nth": n,
            "id": format!("00000000-0000-4000-8001-{n:012}"), "incident": format!("00000000-0000-4000-8002-{n:012}"),
            "kind": "down", "address": format!("{host}!port:{unit}"), "host": host, "service": "port", "unit": unit,
            "severity": "ERR", "top_severity": "ERR", "state": "down", "since": SINCE, "time": SINCE,
            "text": "connection refused", "rule": "check",
        }))
        .expect("an event")
    }

    fn began(n: u32, host: &str, unit: &str) -> Story {
        Story { mark: Mark::Began, event: event(n, host, unit), outages: 1, told_in: None }
    }

    fn ended(n: u32, host: &str, unit: &str, told_in: MessageId) -> Story {
        let mut event = event(n, host, unit);
        event.kind = Kind::Up;
        event.severity = Severity::Info;
        event.time = UnixMillis(SINCE + 3 * MINUTE);
        event.duration_ms = Some(180_000);
        event.text = "answers".into();
        Story { mark: Mark::Ended, event, outages: 1, told_in: Some(told_in) }
    }

    fn at(n: u32, stories: &[Story], now: i64) -> (String, usize) {
        let to = "ops@example.org".parse().expect("a mailbox");
        let letter = Letter { id: id(n), recipient: "ops", stories, again: false, now: UnixMillis(now) };
        let composed = composer().compose(&to, &letter);
        (String::from_utf8(composed.bytes).expect("ASCII"), composed.told)
    }

    fn mail(n: u32, stories: &[Story]) -> String {
        at(n, stories, SINCE).0
    }

    fn header<'a>(mail: &'a str, name: &str) -> Option<&'a str> {
        mail.split("\r\n\r\n").next()?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    #[test]
    fn a_beginning_and_its_end_are_one_thread() {
        let first = mail(1, &[began(7, "web1", "smtp (25)")]);
        assert_eq!(header(&first, "Subject"), Some("[ERR] web1!port:smtp (25) DOWN"));
        assert_eq!(header(&first, "Message-ID"), Some("<00000000-0000-4000-8000-000000000001@mon1>"));
        assert_eq!(header(&first, "References"), Some("<00000000-0000-4000-8002-000000000007@mon1>"));
        assert_eq!(header(&first, "In-Reply-To"), None);
        let second = mail(2, &[ended(7, "web1", "smtp (25)", id(1))]);
        assert_eq!(header(&second, "Subject"), Some("[ERR] web1!port:smtp (25) UP after 3m 0s"));
        assert_eq!(header(&second, "In-Reply-To"), header(&first, "Message-ID"));
        let unfolded = second.replace("\r\n ", " ");
        let references = format!(
            "{} {}",
            header(&first, "References").expect("it has one"),
            header(&first, "Message-ID").expect("it has one")
        );
        assert_eq!(header(&unfolded, "References"), Some(references.as_str()));
    }

    #[test]
    fn a_mail_is_complete() {
        let mail = mail(1, &[began(7, "web1", "smtp (25)")]);
        assert!(mail.is_ascii());
        for (name, value) in [
            ("From", "\"Cairn\" <cairn@mon1>"),
            ("To", "ops@example.org"),
            ("Date", "Sat, 21 Nov 2026 04:45:06 +0000"),
            ("Auto-Submitted", "auto-generated"),
            ("List-Id", "<alerts.cairn.mon1>"),
            ("X-Cairn-Severity", "ERR"),
            ("X-Cairn-Incident", "00000000-0000-4000-8002-000000000007"),
            ("X-Cairn-Event", "00000000-0000-4000-8001-000000000007"),
            ("MIME-Version", "1.0"),
            ("Content-Type", "text/plain; charset=utf-8"),
        ] {
            let found = header(&mail, name).map(|found| found.replace('"', ""));
            assert_eq!(found, Some(value.replace('"', "")), "{name} in {mail}");
        }
        let (_, text) = mail.split_once("\r\n\r\n").expect("a text");
        assert!(text.starts_with("[ERR] web1!port:smtp (25) DOWN\r\n    connection refused\r\nSince: "), "{text}");
        assert!(text.trim_end().ends_with("-- \r\nCairn on mon1, for ops"), "{text}");
    }

    #[test]
    fn the_same_letter_gives_the_same_bytes_and_again_says_so() {
        let stories = [began(7, "web1", "smtp (25)")];
        assert_eq!(mail(1, &stories), mail(1, &stories));
        let to = "ops@example.org".parse().expect("a mailbox");
        let letter = Letter { id: id(1), recipient: "ops", stories: &stories, again: true, now: UnixMillis(SINCE) };
        let again = String::from_utf8(composer().compose(&to, &letter).bytes).expect("ASCII");
        assert_eq!(header(&again, "Message-ID"), header(&mail(1, &stories), "Message-ID"));
        assert_eq!(header(&again, "X-Cairn-Resent"), Some("outcome unknown, sent again"));
        assert!(again.contains("This mail may have reached you before"), "{again}");
    }

    #[test]
    fn a_summary_counts_first_and_puts_what_is_open_before_what_is_over() {
        let stories =
            [began(1, "web1", "a"), began(2, "web2", "b"), ended(3, "web2", "c", id(9)), ended(4, "db1", "d", id(9))];
        let (mail, told) = at(1, &stories, SINCE + 15 * MINUTE);
        assert_eq!(told, 4);
        assert_eq!(header(&mail, "Subject"), Some("[ERR] 2 problems on 2 hosts, 2 over"));
        assert_eq!((header(&mail, "References"), header(&mail, "In-Reply-To")), (None, None));
        assert_eq!(header(&mail, "X-Cairn-Stories"), Some("4"));
        let (_, text) = mail.split_once("\r\n\r\n").expect("a text");
        let order = [
            "2 problems on 2 hosts, 2 over.",
            "STILL OPEN",
            "[ERR] web1!port:a DOWN",
            ", 15m 0s ago",
            "[ERR] web2!port:b DOWN",
            "OVER",
            "[ERR] web2!port:c UP after 3m 0s",
            ", 12m 0s ago",
            "[ERR] db1!port:d UP after 3m 0s",
        ];
        let places: Vec<_> = order.map(|line| text.find(line).unwrap_or_else(|| panic!("{line} in {text}"))).into();
        assert!(places.is_sorted(), "{text}");
    }

    #[test]
    fn ends_that_were_all_told_in_one_summary_answer_it() {
        let stories = [ended(3, "web2", "c", id(9)), ended(4, "db1", "d", id(9))];
        let mail = mail(1, &stories);
        assert_eq!(header(&mail, "Subject"), Some("[ERR] 2 problems over on 2 hosts"));
        assert_eq!(header(&mail, "In-Reply-To"), Some("<00000000-0000-4000-8000-000000000009@mon1>"));
        assert_eq!(header(&mail, "References"), header(&mail, "In-Reply-To"));
    }

    #[test]
    fn what_does_not_fit_waits_for_the_next_mail() {
        let mut stories: Vec<Story> = (0..2000).map(|n| began(n, "web1", &format!("unit {n}"))).collect();
        for story in &mut stories {
            story.event.text = "ü".repeat(5000);
        }
        let (mail, told) = at(1, &stories, SINCE);
        assert!((100..1000).contains(&told), "{told}");
        assert!(mail.len() < 3 * MAX_TEXT_BYTES, "{}", mail.len());
        let (alone, told) = at(1, &stories[..1], SINCE);
        assert_eq!(told, 1);
        assert!(alone.len() < MAX_TEXT_BYTES, "{}", alone.len());
    }

    #[test]
    fn a_long_unit_leaves_the_word_in_the_subject_and_every_line_short() {
        let long = mail(1, &[began(1, &"h".repeat(253), &"ü".repeat(500))]);
        assert!(long.lines().all(|line| line.len() <= 998), "{long}");
        let ascii = mail(1, &[began(1, "web1", &"u".repeat(1000))]);
        let subject = header(&ascii, "Subject").expect("a subject").to_owned();
        assert!(ascii.contains("u… DOWN") || subject.contains("=?utf-8?"), "{ascii}");
        assert!(ascii.lines().all(|line| line.len() <= 998), "{ascii}");
    }

    #[test]
    fn an_odd_clock_makes_a_date_all_the_same() {
        for now in [i64::MIN, -1, i64::MAX] {
            let (mail, _) = at(1, &[began(1, "web1", "a")], now);
            assert!(header(&mail, "Date").is_some_and(|date| date.ends_with("+0000")), "{mail}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([93.2, 5.0, 0.1 + 0.2, 1e12, -0.5].map(number), ["93.2", "5", "0.3", "1000000000000", "-0.5"]);
    }
}
