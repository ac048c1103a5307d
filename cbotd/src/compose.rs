//! The lines of a message, in the manner of the bot of 2013: `[ DOWN ] web1!port:smtp (25): connection refused`.
//!
//! A few stories are a line each. More are a summary, which names addresses and leaves the texts to the page, and says once
//! what many have in common. Where more wait than a few summaries could name, the worst are named and the others counted: a
//! storm is three lines at a time, however large, so that what comes next need not wait behind it.

use crate::options::{Channel, Options};
use crate::paint::{self, Look, clean, cut, pack, pack_on};
use common::message::Kind;
use common::notifier::{Common, Composed, Letter, Mark, Story, clusters, one_line};
use common::severity::Severity;
use common::time::for_people;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Up to here, each story has its own line.
const MAX_SINGLE: usize = 5;
/// Names wait for the next summary, unless it took more of them than this to say them all.
const WORTH_WAITING: usize = 3;
/// Of a text. Longer ones are read on the page.
const MAX_TEXT_CHARS: usize = 200;
/// Of an address. Units may have a kilobyte, and every line has to hold at least one address whole or cut here.
const MAX_ADDRESS_BYTES: usize = 160;
/// And what several have in common.
const MAX_COMMON_BYTES: usize = 80;
/// So many that have something in common have lines of their own.
const MIN_CLUSTER: usize = 4;

/// Writes a message. Its bytes are its lines, without the command before them, separated by line feeds.
pub(crate) fn compose(options: &Options, to: &Channel, letter: &Letter<'_>) -> Composed {
    let page = Page { width: options.text_bytes(to), colour: to.colour };
    let stories = letter.stories;
    if stories.len() <= MAX_SINGLE.min(options.max_lines()) {
        let lines: Vec<String> = stories.iter().map(|story| page.single(story, letter)).collect();
        return Composed { bytes: lines.join("\n").into_bytes(), told: stories.len() };
    }
    let all = page.summary(stories, letter);
    if all.len() <= options.last_summary_lines() {
        return composed(&all, stories.len());
    }
    // A message that is sent again is to name what it named before, and its ages have grown since: there is room for that.
    let lines = if letter.again { options.last_summary_lines() } else { options.summary_lines() };
    // The heading and one address always fit, and one story more never makes the message shorter.
    let told = most(1, stories.len() - 1, |told| page.summary(&stories[..told], letter).len() <= lines);
    let is_storm = letter.again || stories.len() > told * WORTH_WAITING;
    if !is_storm {
        return composed(&page.summary(&stories[..told], letter), told);
    }
    let named = most(0, told, |named| page.storm(stories, named, letter).len() <= lines);
    composed(&page.storm(stories, named, letter), stories.len())
}

fn composed(lines: &[String], told: usize) -> Composed {
    Composed { bytes: lines.join("\n").into_bytes(), told }
}

/// The most, from `least` to `all`, for which this holds. It holds for `least`, and for none beyond the first for which it does
/// not.
fn most(least: usize, all: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut most, mut too_many) = (least, all + 1);
    while most + 1 < too_many {
        let middle = usize::midpoint(most, too_many);
        if holds(middle) {
            most = middle;
        } else {
            too_many = middle;
        }
    }
    most
}

/// The form of the lines of one channel.
struct Page {
    /// Bytes of a line.
    width: usize,
    colour: bool,
}

impl Page {
    fn single(&self, story: &Story, letter: &Letter<'_>) -> String {
        let mut tail = String::new();
        if let Some(age) = story.age(letter.now) {
            let _ = write!(tail, " ({age})");
        }
        if letter.again {
            tail.push_str(" (again?)");
        }
        let mut line = paint::label(self.colour, story.word(), look(story));
        if let Some(severity) = spoken(story) {
            let _ = write!(line, "{severity} ");
        }
        line.push_str(&address(story));
        let said = said(story);
        // `web1!alive:` has its colon already.
        line.push_str(if line.ends_with(':') { said.strip_prefix(':').unwrap_or(&said) } else { &said });
        let mut line = cut(&line, self.width - tail.len());
        line.push_str(&tail);
        line
    }

    /// A heading, and then the names.
    fn summary(&self, stories: &[Story], letter: &Letter<'_>) -> Vec<String> {
        let mut lines = vec![self.heading(stories, letter)];
        lines.extend(self.names(stories, letter));
        lines
    }

    /// The worst by name, and of all others how many, and what they have in common.
    fn storm(&self, stories: &[Story], named: usize, letter: &Letter<'_>) -> Vec<String> {
        let (named, others) = stories.split_at(named);
        let mut lines = vec![self.heading(stories, letter)];
        lines.extend(self.names(named, letter));
        lines.push(self.others(others));
        lines
    }

    /// `4806 more (9 CRIT, 4797 ERR): port:smtp (25) on 214 hosts, web1 (20), ...`.
    fn others(&self, stories: &[Story]) -> String {
        let mut severities: BTreeMap<Reverse<Severity>, usize> = BTreeMap::new();
        for severity in stories.iter().filter_map(grouped) {
            *severities.entry(Reverse(severity)).or_default() += 1;
        }
        let severities: Vec<String> =
            severities.into_iter().map(|(Reverse(severity), count)| format!("{count} {severity}")).collect();
        let severities = if severities.is_empty() { String::new() } else { format!(" ({})", severities.join(", ")) };
        let mut line = format!("{} more{severities}: ", stories.len());
        for (nth, cluster) in clusters(&stories.iter().collect::<Vec<_>>(), 2).iter().enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            let common = format!("{comma}{}", shortened(&cluster.to_string(), MAX_COMMON_BYTES));
            if line.len() + common.len() + ", ...".len() > self.width {
                line.push_str(", ...");
                break;
            }
            line.push_str(&common);
        }
        line
    }

    /// The addresses by what happened to them and how bad it is, in the order of the stories; among those what many have in
    /// common is said once.
    fn names(&self, stories: &[Story], letter: &Letter<'_>) -> Vec<String> {
        let mut groups: Vec<(&str, Option<Severity>, Vec<&Story>)> = Vec::new();
        for story in stories {
            let (word, severity) = (story.word(), grouped(story));
            match groups.iter_mut().find(|(w, s, _)| *w == word && *s == severity) {
                Some((_, _, members)) => members.push(story),
                None => groups.push((word, severity, vec![story])),
            }
        }
        let mut lines = Vec::new();
        for (word, severity, members) in groups {
            let label = paint::label(self.colour, word, look(members[0]));
            let begin = |what: &str| match severity {
                Some(severity) => format!("{label}{severity}{what}: "),
                None if what.is_empty() => label.clone(),
                None => format!("{label}{}: ", what.trim_start()),
            };
            let (together, alone): (Vec<_>, Vec<_>) =
                clusters(&members, MIN_CLUSTER).into_iter().partition(|cluster| cluster.stories.len() > 1);
            for cluster in together {
                let (Common::What(common) | Common::Host(common) | Common::All(common)) = &cluster.common;
                let first = begin(&format!(" {}", shortened(&cluster.to_string(), MAX_COMMON_BYTES)));
                let further = begin(&format!(" {}, more", shortened(common, MAX_COMMON_BYTES)));
                let entries = cluster.stories.iter().map(|story| entry(&cluster.name(story), story, letter));
                lines.extend(pack_on(&first, &further, entries, self.width));
            }
            let entries = alone.iter().flat_map(|cluster| &cluster.stories);
            let entries = entries.map(|story| entry(&story.event.address.to_string(), story, letter));
            lines.extend(pack(&begin(""), entries, self.width));
        }
        lines
    }

    fn heading(&self, stories: &[Story], letter: &Letter<'_>) -> String {
        let count = |wanted: &[Mark]| stories.iter().filter(|story| wanted.contains(&story.mark)).count();
        let (problems, over, other) =
            (count(&[Mark::Began]), count(&[Mark::Ended, Mark::Passed]), count(&[Mark::Once]));
        let mut parts = Vec::new();
        for (n, one, many) in [(problems, "problem", "problems"), (over, "over", "over"), (other, "note", "notes")] {
            if n > 0 {
                parts.push(format!("{n} {}", if n == 1 { one } else { many }));
            }
        }
        let mut line = format!("{}{}", paint::bold(self.colour, "== "), parts.join(", "));
        // Ages are said where each story would say its own.
        if let Some(oldest) = stories.iter().filter(|s| s.age(letter.now).is_some()).map(Story::happened).min() {
            let _ = write!(line, " in the last {}", for_people(letter.now.since(oldest)));
        }
        if letter.again {
            line.push_str(" (again?)");
        }
        line
    }
}

fn look(story: &Story) -> Look {
    match story.mark {
        Mark::Ended | Mark::Passed => Look::Good,
        Mark::Began | Mark::Once => match story.severity() {
            _ if story.is_test() => Look::Plain,
            Severity::Info if story.event.kind == Kind::Up => Look::Good,
            severity => Look::of(severity),
        },
    }
}

/// The severity, where it is not what the word makes one expect.
fn spoken(story: &Story) -> Option<Severity> {
    grouped(story).filter(|severity| matches!(severity, Severity::Crit | Severity::Warn))
}

/// The severity by which a summary groups: what is over has none, and neither has what was never bad.
fn grouped(story: &Story) -> Option<Severity> {
    match story.mark {
        Mark::Began | Mark::Once => Some(story.severity()).filter(|severity| *severity >= Severity::Warn),
        Mark::Ended | Mark::Passed => None,
    }
}

/// An address in a summary, or what is left of it where the rest was said.
fn entry(name: &str, story: &Story, letter: &Letter<'_>) -> String {
    let mut notes = Vec::new();
    if story.outages > 1 {
        notes.push(format!("{} times", story.outages));
    }
    if let (Mark::Passed, Some(duration)) = (story.mark, story.duration()) {
        notes.push(format!("for {}", for_people(duration)));
    }
    notes.extend(story.age(letter.now));
    let name = shortened(name, MAX_ADDRESS_BYTES);
    if notes.is_empty() { name } else { format!("{name} ({})", notes.join(", ")) }
}

/// What follows the address.
fn said(story: &Story) -> String {
    let text = clean(&story.line(MAX_TEXT_CHARS));
    let mut said = String::new();
    match (story.mark, story.duration()) {
        (Mark::Ended | Mark::Passed, duration) => {
            let was = if story.event.kind == Kind::Up { "was down" } else { "lasted" };
            match duration.map(for_people) {
                Some(duration) if story.outages > 1 => {
                    let _ = write!(said, " {was} {} times, last for {duration}", story.outages);
                }
                Some(duration) => {
                    let _ = write!(said, " {was} {duration}");
                }
                None if story.outages > 1 => {
                    let _ = write!(said, " {} times", story.outages);
                }
                None => (),
            }
        }
        (Mark::Began, _) if story.outages > 1 => {
            let _ = write!(said, " {} times", story.outages);
        }
        (Mark::Began | Mark::Once, _) => (),
    }
    // That a check is up says it all; how fast it answered this time is no news.
    let is_plain_end = matches!(story.mark, Mark::Ended | Mark::Passed) && story.event.kind == Kind::Up;
    if !text.trim().is_empty() && !is_plain_end {
        let _ = write!(said, ": {}", text.trim());
    }
    said
}

fn address(story: &Story) -> String {
    shortened(&story.event.address.to_string(), MAX_ADDRESS_BYTES)
}

/// An address, or a part of one, on one line of at most so many bytes.
fn shortened(name: &str, max_bytes: usize) -> String {
    cut(&clean(&one_line(name, MAX_ADDRESS_BYTES * 8)), max_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::options;
    use common::message::{Epoch, Event, EventId, IncidentId, State};
    use common::notifier::MessageId;
    use common::time::UnixMillis;

    const NOW: UnixMillis = UnixMillis(1_795_236_306_000);

    fn story(mark: Mark, kind: Kind, severity: Severity, address: &str, text: &str) -> Story {
        let address: common::address::Address = address.parse().expect("address");
        let incident = IncidentId::new(&address, "check", NOW);
        let event = Event {
            epoch: Epoch::random(),
            seq: 1,
            nth: 1,
            id: EventId::new(incident, kind, 1),
            incident,
            kind,
            host: "web1".parse().expect("host"),
            service: "port".parse().expect("name"),
            unit: "".parse().expect("unit"),
            address,
            severity: if matches!(mark, Mark::Ended | Mark::Passed) { Severity::Info } else { severity },
            top_severity: severity,
            state: State::Down,
            since: NOW,
            time: NOW,
            text: text.to_owned(),
            value: None,
            rule: "check".into(),
            step: None,
            suppressed_by: Vec::new(),
            duration_ms: matches!(mark, Mark::Ended | Mark::Passed).then_some(192_000),
            data: None,
        };
        Story { mark, event, outages: 1, told_in: None }
    }

    fn aged(mut story: Story, secs: i64) -> Story {
        story.event.since = UnixMillis(NOW.0 - secs * 1000);
        story.event.time = story.event.since;
        story
    }

    fn written(stories: &[Story], colour: bool, again: bool) -> (Vec<String>, usize) {
        let options = options("channels");
        let channel = Channel { colour, ..options.channels[0].clone() };
        let id = MessageId::parse("00000000-0000-0000-0000-000000000000").expect("id");
        let letter = Letter { id, recipient: "lab/#ops", stories, again, now: NOW };
        let composed = compose(&options, &channel, &letter);
        let text = String::from_utf8(composed.bytes).expect("text");
        for line in text.lines() {
            let sent = format!(":{}!~cairn@{} PRIVMSG #ops :{line}\r\n", "n".repeat(16), "h".repeat(63));
            assert!(sent.len() <= 512, "{} bytes: {line}", sent.len());
        }
        (text.lines().map(str::to_owned).collect(), composed.told)
    }

    #[track_caller]
    fn one(story: Story, expected: &str) {
        assert_eq!(written(&[story], false, false), (vec![expected.to_owned()], 1));
    }

    #[test]
    fn one_story_is_one_line() {
        let down = || story(Mark::Began, Kind::Down, Severity::Err, "web1!port:smtp (25)", "connection refused");
        one(down(), "[ DOWN ] web1!port:smtp (25): connection refused");
        one(aged(down(), 125), "[ DOWN ] web1!port:smtp (25): connection refused (2m 5s ago)");
        one(Story { outages: 3, ..down() }, "[ DOWN ] web1!port:smtp (25) 3 times: connection refused");
        let up = || story(Mark::Ended, Kind::Up, Severity::Err, "web1!port:smtp (25)", "connected in 0.2 ms");
        one(up(), "[ UP ] web1!port:smtp (25) was down 3m 12s");
        one(
            Story { outages: 3, mark: Mark::Passed, ..aged(up(), 720) },
            "[ UP ] web1!port:smtp (25) was down 3 times, last for 3m 12s (12m 0s ago)",
        );
        let host = story(Mark::Began, Kind::Down, Severity::Crit, "web1!alive:", "no sign of life for 10s");
        one(host, "[ DOWN ] CRIT web1!alive: no sign of life for 10s");
        let alarm = story(Mark::Began, Kind::Alarm, Severity::Warn, "web1!machine.disk:/.free", "3g < 5g");
        one(alarm, "[ ALARM ] WARN web1!machine.disk:/.free: 3g < 5g");
        let solved = story(Mark::Ended, Kind::Solved, Severity::Warn, "web1!machine.disk:/.free", "back at 9g");
        one(solved, "[ SOLVED ] web1!machine.disk:/.free lasted 3m 12s: back at 9g");
        let started = story(Mark::Once, Kind::Started, Severity::Info, "web1!alive:", "");
        one(started, "[ STARTED ] web1!alive:");
    }

    #[test]
    fn colours_are_a_second_sign() {
        let stories = [
            story(Mark::Began, Kind::Down, Severity::Crit, "a!b:1", "x"),
            story(Mark::Began, Kind::Down, Severity::Err, "a!b:2", ""),
            story(Mark::Once, Kind::Blip, Severity::Warn, "a!b:3", ""),
            story(Mark::Ended, Kind::Up, Severity::Crit, "a!b:4", ""),
        ];
        let (lines, _) = written(&stories, true, true);
        assert_eq!(
            lines,
            [
                "\x02\x0304[ DOWN ]\x0f CRIT a!b:1: x (again?)",
                "\x0304[ DOWN ]\x0f a!b:2 (again?)",
                "\x0307[ BLIP ]\x0f WARN a!b:3 (again?)",
                "\x0303[ UP ]\x0f a!b:4 was down 3m 12s (again?)",
            ]
        );
    }

    #[test]
    fn nothing_breaks_out_of_its_line() {
        let unit = "a\u{202e}b\u{2028}c";
        let hostile = story(
            Mark::Began,
            Kind::Down,
            Severity::Err,
            &format!("web1!port:{unit}"),
            "x\r\nQUIT :bye\0\x01ACTION\x01 \x0304red\x0f",
        );
        one(hostile, "[ DOWN ] web1!port:ab c: x  QUIT :bye  ACTION   04red");
    }

    #[test]
    fn long_texts_and_units_are_cut_between_characters() {
        let long =
            story(Mark::Began, Kind::Down, Severity::Err, &format!("web1!port:{}", "ü".repeat(500)), &"ß".repeat(900));
        let (lines, _) = written(&[aged(long, 60)], true, true);
        assert!(lines[0].ends_with("ß… (1m 0s ago) (again?)"), "{}", lines[0]);
        assert!(lines[0].contains("ü…"));
    }

    #[test]
    fn more_than_five_are_a_summary_that_names_every_address() {
        let mut stories: Vec<Story> = (0..60)
            .map(|i| aged(story(Mark::Began, Kind::Down, Severity::Err, &format!("web{i}!port:smtp"), "refused"), i))
            .collect();
        stories.push(story(Mark::Ended, Kind::Up, Severity::Err, "db1!port:pg", ""));
        stories.push(aged(story(Mark::Passed, Kind::Up, Severity::Err, "db2!port:pg", ""), 90));
        let (lines, told) = written(&stories, false, false);
        assert_eq!(told, 62);
        assert_eq!(lines[0], "== 60 problems, 2 over in the last 1m 30s");
        let text = lines.join("\n");
        assert!((0..60).all(|i| text.contains(&format!("web{i}"))), "{text}");
        assert!(lines[1].starts_with("[ DOWN ] ERR port:smtp on 60 hosts: web0, web1, "), "{text}");
        assert!(lines[2].starts_with("[ DOWN ] ERR port:smtp, more: web"), "{text}");
        assert!(text.contains("web59 (59s ago)"));
        assert_eq!(lines.last().map(|l| &**l), Some("[ UP ] db2!port:pg (for 3m 12s, 1m 30s ago), db1!port:pg"));
        assert!(lines.len() <= 6, "{text}");
    }

    #[test]
    fn what_many_have_in_common_is_said_once_and_the_worst_first() {
        let down = |address: &str, severity| story(Mark::Began, Kind::Down, severity, address, "refused");
        let mut stories: Vec<Story> = (0..40).map(|i| down(&format!("web{i}!port:www"), Severity::Err)).collect();
        stories.extend((0..4).map(|i| down(&format!("db1!port:{i}"), Severity::Err)));
        stories.insert(0, down("nas!alive:", Severity::Crit));
        stories.push(down("nas!port:nfs", Severity::Err));
        let (lines, told) = written(&stories, false, false);
        assert_eq!(told, 46);
        assert_eq!(lines[..2], ["== 46 problems", "[ DOWN ] CRIT: nas!alive:"]);
        assert!(lines[2].starts_with("[ DOWN ] ERR port:www on 40 hosts: web0, web1, "), "{lines:?}");
        assert_eq!(lines[3..], ["[ DOWN ] ERR db1 (4): port:0, port:1, port:2, port:3", "[ DOWN ] ERR: nas!port:nfs"]);
    }

    fn addresses(n: usize) -> Vec<Story> {
        let address = |i| format!("web{}!port:{i}{}", i % 40, "x".repeat(30));
        (0..n).map(|i| story(Mark::Began, Kind::Down, Severity::Err, &address(i), "")).collect()
    }

    #[test]
    fn what_does_not_fit_waits_for_the_next_message() {
        let stories = addresses(42);
        let (lines, told) = written(&stories, true, false);
        assert_eq!(lines.len(), 3);
        assert!((14..42).contains(&told) && lines[0].contains(&format!("{told} problems")), "{told} in {lines:?}");
        let (next, _) = written(&stories[told..], true, false);
        assert!(next[1].contains(&format!("!port:{told}x")), "{next:?}");
        // Again and an hour later it names at least what it named.
        let later: Vec<Story> = stories[..told].iter().map(|story| aged(story.clone(), 3599)).collect();
        let (lines, again) = written(&later, true, true);
        assert!(again == told && lines.len() <= 6, "{again} of {told} in {lines:?}");
    }

    #[test]
    fn of_a_storm_the_worst_is_named_and_all_is_counted() {
        let mut stories = vec![story(Mark::Began, Kind::Down, Severity::Crit, "core!alive:", "")];
        stories.extend(addresses(9998));
        stories.push(story(Mark::Ended, Kind::Up, Severity::Err, "db1!port:pg", ""));
        for (again, mark) in [(false, ""), (true, " (again?)")] {
            let (lines, told) = written(&stories, false, again);
            assert_eq!((told, lines.len()), (10_000, if again { 6 } else { 3 }));
            assert_eq!(lines[0], format!("== 9999 problems, 1 over{mark}"));
            assert_eq!(&lines[1][.."[ DOWN ] CRIT: core!alive:".len()], "[ DOWN ] CRIT: core!alive:");
        }
        let (lines, _) = written(&stories, false, false);
        assert!(lines[2].starts_with("9999 more (9998 ERR): web0 (250), web1 (250), "), "{lines:?}");
        assert!(lines[2].ends_with(" (250), ..."), "{lines:?}");
    }

    #[test]
    fn every_line_of_a_summary_holds_the_longest_address() {
        let stories: Vec<Story> = (0..20)
            .map(|i| {
                let address = format!("{}!port:{i}{}", "h".repeat(100), "ü".repeat(500));
                Story { outages: 1000, ..aged(story(Mark::Passed, Kind::Up, Severity::Err, &address, ""), 900_000) }
            })
            .collect();
        let (lines, told) = written(&stories, true, true);
        assert!(told == 20 && lines.len() == 6, "{told} in {lines:?}");
        let (lines, told) = written(&stories[..6], true, false);
        assert!(told >= 2 && lines.len() == 3, "{told} in {lines:?}");
    }
}
