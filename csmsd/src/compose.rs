//! Writes the stories into one text: what is wrong, where, since when, in as few words as a telephone shows at a glance.

use crate::text::{Limit, cheap};
use common::address::HostName;
use common::config::HumanDuration;
use common::notifier::{Cluster, Common, Composed, Letter, Mark, Story, clusters};
use common::severity::Severity;
use common::time::{UnixMillis, for_people};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

/// What stands before a text that another provider may have delivered already.
pub(crate) const PERHAPS_AGAIN: &str = "(again?) ";
/// Of one event's text. More is left to the mail and the page.
const MAX_TEXT_CHARS: usize = 300;
/// Of one event's text among others.
const MAX_TEXT_CHARS_OF_MANY: usize = 60;

/// Of what is only counted, so many are named by what they have in common, or by their host.
const MAX_CLUSTERS: usize = 3;

/// Names wait for the next text, unless it took more texts than this to say them all.
const WORTH_WAITING: usize = 3;

/// What a text must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) limit: Limit,
    /// Characters of space for what may have to stand before it.
    pub(crate) reserve: usize,
    /// What is older is counted, where there is no room to name it.
    pub(crate) lifetime: Duration,
    /// The next text may have to wait for a bucket.
    pub(crate) is_rationed: bool,
    /// Texts pause behind this one, which says so; and so many stories waited for it.
    pub(crate) last_of: Option<usize>,
}

/// A text on its way: what the frame keeps as bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// The worst that it tells of.
    pub(crate) severity: Severity,
    /// For media with a title.
    pub(crate) title: String,
    /// The text itself, complete without the title.
    pub(crate) text: String,
}

/// Writes as many stories as fit.
///
/// All of them with their texts, or else by their names: many names serve better than one long text. Where not even these
/// fit, what is older than the lifetime is counted in one clause instead of filling one text after the other: whoever was
/// away has no use for a list of what was, hours later, and what is new must not wait behind it. And where texts are rationed and
/// [`WORTH_WAITING`] of them would not hold the names, the worst are named and all others counted: a storm is one text.
pub(crate) fn compose(letter: &Letter<'_>, form: Form) -> (Message, usize) {
    let Form { limit, reserve, .. } = form;
    let stories: Vec<&Story> = letter.stories.iter().collect();
    let start = if letter.again { "(again) " } else { "" };
    let spelt = |text: String| if limit.segments.is_some() { cheap(&text) } else { text };
    let write = |body: &str, told: usize| (spelt(format!("{start}{body}{}", pause(form, told))), told);
    let fits = |(text, _): &(String, usize)| limit.fits(text, reserve);
    let named = |text_chars| Some(write(&name_all(&stories, letter.now, text_chars), stories.len())).filter(fits);
    let folded = |told: usize, names| write(&fold(&stories[..told], letter.now, form.lifetime, names), told);
    // More stories, or more names, hardly ever make it shorter.
    let longest = |from: usize, write: &dyn Fn(usize) -> (String, usize)| {
        let sizes: Vec<usize> = (from..=stories.len()).collect();
        let most = sizes.partition_point(|&size| fits(&write(size)));
        sizes[..most].iter().rev().map(|&size| write(size)).find(fits)
    };
    let most_of_all = || {
        let some = longest(2, &|told| folded(told, usize::MAX));
        let told = some.as_ref().map_or(1, |(_, told)| *told);
        // What the last text before a pause does not name comes by mail, and it says so.
        let is_storm = form.is_rationed && form.last_of.is_none() && stories.len() > told * WORTH_WAITING;
        is_storm.then(|| longest(0, &|names| folded(stories.len(), names))).flatten().or(some)
    };
    let beginning_of_one = || {
        let pause = pause(form, 1);
        let text = spelt(format!("{start}{}", name_all(&stories[..1], letter.now, None)));
        (limit.cut(&text, reserve + pause.chars().count()) + &pause, 1)
    };
    let in_full = named(Some(MAX_TEXT_CHARS_OF_MANY)).or_else(|| named(None));
    let (text, told) = in_full.or_else(most_of_all).unwrap_or_else(beginning_of_one);
    let told_stories = &stories[..told];
    (Message { severity: worst(told_stories), title: title(told_stories), text }, told)
}

/// What the last text before a pause says at its end.
fn pause(form: Form, told: usize) -> String {
    match form.last_of.map(|waiting| waiting.saturating_sub(told)) {
        None => String::new(),
        Some(0) => " TEXTS PAUSE, cost cap reached: the next by mail".to_owned(),
        Some(more) => format!(" TEXTS PAUSE, cost cap reached: {more} more by mail"),
    }
}

/// As the frame takes it.
pub(crate) fn composed(message: &Message, told: usize) -> Composed {
    Composed { bytes: serde_json::to_vec(message).expect("strings are JSON"), told }
}

fn worst(stories: &[&Story]) -> Severity {
    stories.iter().map(|story| story.severity()).max().expect("a letter has a story")
}

fn title(stories: &[&Story]) -> String {
    match stories {
        [story] => format!("{} {} {}", story.severity(), story.word(), story.event.host),
        _ => format!("{} {}", stories.len(), group(stories)),
    }
}

/// The severity that all have, or that they differ.
fn group(stories: &[&Story]) -> &'static str {
    match common_severity(stories) {
        Some(severity) => severity.as_str(),
        None => "events",
    }
}

fn common_severity(stories: &[&Story]) -> Option<Severity> {
    let first = stories.first()?.severity();
    stories.iter().all(|story| story.severity() == first).then_some(first)
}

/// Each by its name, and with so much of its text.
fn name_all(stories: &[&Story], now: UnixMillis, text_chars: Option<usize>) -> String {
    if let [story] = stories {
        return format!("{} {}", story.severity(), write_one(story, now, Some(MAX_TEXT_CHARS)));
    }
    let named = common_severity(stories).is_none();
    let lines = stories.iter().map(|story| {
        let line = write_one(story, now, text_chars);
        if named { format!("{} {line}", story.severity()) } else { line }
    });
    format!("{} {}: {}", stories.len(), group(stories), lines.collect::<Vec<_>>().join("; "))
}

/// What is new by name, at most so many, and all else by number; the worse of the two first.
fn fold(stories: &[&Story], now: UnixMillis, lifetime: Duration, most: usize) -> String {
    let is_old = |story: &Story| now.since(story.happened()) > lifetime;
    let (mut named, mut counted) = (Vec::new(), Vec::new());
    for &story in stories {
        if is_old(story) || named.len() >= most { counted.push(story) } else { named.push(story) }
    }
    let list = match &*named {
        [] => String::new(),
        [story] => format!("{} {}", story.severity(), write_one(story, now, None)),
        _ => name_all(&named, now, None),
    };
    if counted.is_empty() {
        return list;
    }
    let which = match (counted.iter().all(|story| is_old(story)), named.is_empty()) {
        (true, _) => format!(" older than {}", HumanDuration(lifetime)),
        (false, false) => " more".to_owned(),
        (false, true) => String::new(),
    };
    let count = count(&counted, &which);
    if named.is_empty() {
        count
    } else if worst(&named) < worst(&counted) {
        format!("{count}; {list}")
    } else {
        format!("{list}; {count}")
    }
}

/// `52 CRIT older than 1h, 49 still open: port:www on 40 hosts, db1 (7), web2 and 4 more hosts`.
fn count(stories: &[&Story], which: &str) -> String {
    let what = match common_severity(stories) {
        Some(severity) => severity.to_string(),
        None => format!("up to {}", worst(stories)),
    };
    let open = stories.iter().filter(|story| story.mark == Mark::Began).count();
    let open = match open {
        0 => "none open".to_owned(),
        all if all == stories.len() => "all still open".to_owned(),
        some => format!("{some} still open"),
    };
    let clusters = clusters(stories, 2);
    let (first, rest) = clusters.split_at(clusters.len().min(MAX_CLUSTERS));
    let name = |cluster: &Cluster<'_>| match &cluster.common {
        Common::All(_) => cluster.stories[0].event.address.host().to_string(),
        Common::What(_) | Common::Host(_) => cluster.to_string(),
    };
    let names: Vec<String> = first.iter().map(name).collect();
    let hosts = |clusters: &[Cluster<'_>]| -> BTreeSet<HostName> {
        let stories = clusters.iter().flat_map(|cluster| &cluster.stories);
        stories.map(|story| story.event.address.host().clone()).collect()
    };
    let more = hosts(rest).difference(&hosts(first)).count();
    let more = match more {
        0 => String::new(),
        1 => " and 1 more host".to_owned(),
        more => format!(" and {more} more hosts"),
    };
    format!("{} {what}{which}, {open}: {}{more}", stories.len(), names.join(", "))
}

/// `DOWN web1!port:smtp (25): refused 12m 3s ago`.
fn write_one(story: &Story, now: UnixMillis, text_chars: Option<usize>) -> String {
    let mut line = format!("{} {}", story.word(), story.event.address);
    if let Some(text) = text_chars.map(|most| story.line(most)).filter(|text| !text.trim().is_empty()) {
        // `web1!alive:` has its colon already.
        line.push_str(if line.ends_with(':') { " " } else { ": " });
        line.push_str(text.trim());
    }
    if story.outages > 1 {
        let _ = write!(line, " ({} times)", story.outages);
    }
    if let (Mark::Ended | Mark::Passed, Some(duration)) = (story.mark, story.duration()) {
        let _ = write!(line, " after {}", for_people(duration));
    }
    if let Some(age) = story.age(now) {
        line.push(' ');
        line.push_str(&age);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::message::{Event, Kind};
    use common::notifier::MessageId;

    const NOW: UnixMillis = UnixMillis(1_795_236_306_000);
    const FORM: Form = Form {
        limit: Limit { segments: Some(3), chars: None },
        reserve: 0,
        lifetime: Duration::from_hours(1),
        is_rationed: true,
        last_of: None,
    };

    fn story(mark: Mark, kind: Kind, severity: Severity, address: &str, text: &str, ago_secs: u64) -> Story {
        let time = NOW.minus(std::time::Duration::from_secs(ago_secs));
        let (host, unit) = address.split_once("!port:").expect("a port");
        let event = serde_json::json!({
            "epoch": "e", "seq": 1, "nth": 1,
            "id": "00000000-0000-0000-0000-000000000000", "incident": "00000000-0000-0000-0000-000000000000",
            "kind": kind, "address": address, "host": host, "service": "port", "unit": unit,
            "severity": severity, "top_severity": "CRIT", "state": "down",
            "since": time, "time": time, "text": text, "rule": "check",
        });
        let mut event: Event = serde_json::from_value(event).expect("an event");
        if mark == Mark::Ended {
            event.duration_ms = Some(723_000);
        }
        Story { mark, event, outages: 1, told_in: None }
    }

    fn down(address: &str, text: &str, ago_secs: u64) -> Story {
        story(Mark::Began, Kind::Down, Severity::Crit, address, text, ago_secs)
    }

    fn written(stories: &[Story], again: bool, segments: usize) -> (String, usize) {
        let id = MessageId::parse("00000000-0000-0000-0000-000000000001").expect("an id");
        let letter = Letter { id, recipient: "ops", stories, again, now: NOW };
        let limit = Limit { segments: Some(segments), chars: None };
        let (message, told) = compose(&letter, Form { limit, ..FORM });
        assert!(limit.fits(&message.text, 0), "{}", message.text);
        (message.text, told)
    }

    #[test]
    fn one_story_says_what_where_and_since_when() {
        let one = down("web1!port:smtp (25)", "refused", 723);
        assert_eq!(
            written(std::slice::from_ref(&one), false, 3).0,
            "CRIT DOWN web1!port:smtp (25): refused 12m 3s ago"
        );
        assert_eq!(written(&[one], true, 3).0, "(again) CRIT DOWN web1!port:smtp (25): refused 12m 3s ago");
        let up = story(Mark::Ended, Kind::Up, Severity::Info, "web1!port:smtp", "", 2);
        assert_eq!(written(&[up], false, 3).0, "INFO UP web1!port:smtp after 12m 3s");
        let mut often = down("web1!port:smtp", "“gone” –\r\nfor…", 0);
        often.outages = 3;
        assert_eq!(written(&[often], false, 3).0, "CRIT DOWN web1!port:smtp: \"gone\" -  for... (3 times)");
    }

    #[test]
    fn a_test_says_so() {
        let mut test = down("m!port:x", "", 0);
        test.event.rule = common::notifier::TEST_RULE.to_owned();
        assert_eq!(written(&[test], false, 3).0, "CRIT TEST m!port:x");
    }

    #[test]
    fn several_are_counted_and_named() {
        let stories = [down("web1!port:a", "refused", 5), down("db1!port:b", "timeout", 65)];
        let expected = "2 CRIT: DOWN web1!port:a: refused; DOWN db1!port:b: timeout 1m 5s ago";
        assert_eq!(written(&stories, false, 3), (expected.to_owned(), 2));
        let [one, two] = stories;
        let mixed = [one, two, story(Mark::Ended, Kind::Up, Severity::Info, "x!port:c", "", 0)];
        let (text, _) = written(&mixed, false, 3);
        assert!(text.starts_with("3 events: CRIT DOWN web1!port:a: refused; "), "{text}");
        assert!(text.ends_with("; INFO UP x!port:c after 12m 3s"), "{text}");
    }

    #[test]
    fn what_does_not_fit_waits_for_the_next_text() {
        let stories: Vec<Story> = (0..30)
            .map(|n| down(&format!("web{n}!port:smtp (25)"), "connection refused by the other side", 0))
            .collect();
        let (text, told) = written(&stories, false, 3);
        assert!((10..30).contains(&told), "{told}");
        assert!(text.starts_with(&format!("{told} CRIT: DOWN web0!port:smtp (25); DOWN web1!")), "{text}");
        // What the frame does next: the same letter again, with no more stories than fit.
        assert_eq!(written(&stories[..told], false, 3).1, told);
        assert_eq!(written(&stories[..3], false, 1).1, 3);
    }

    fn formed(stories: &[Story], form: Form) -> (String, usize) {
        let id = MessageId::parse("00000000-0000-0000-0000-000000000001").expect("an id");
        let letter = Letter { id, recipient: "ops", stories, again: false, now: NOW };
        let (message, told) = compose(&letter, form);
        assert!(form.limit.fits(&message.text, form.reserve), "{}", message.text);
        (message.text, told)
    }

    #[test]
    fn what_is_old_is_counted_where_it_cannot_be_named() {
        let old = |n: usize| down(&format!("web{n}!port:smtp (25)"), "refused", 3601);
        let few: Vec<Story> = (0..3).map(old).collect();
        assert_eq!(formed(&few, FORM).0.matches("DOWN web").count(), 3, "there is room to name them");
        let mut many: Vec<Story> = (0..200).map(old).collect();
        let all_old = "200 CRIT older than 1h, all still open: port:smtp (25) on 200 hosts";
        assert_eq!(formed(&many, FORM), (all_old.to_owned(), 200));
        many.insert(0, down("db1!port:a", "gone", 5));
        many.push(story(Mark::Ended, Kind::Up, Severity::Info, "x!port:c", "", 4000));
        let (text, told) = formed(&many, FORM);
        let expected =
            "CRIT DOWN db1!port:a; 201 up to CRIT older than 1h, 200 still open: port:smtp (25) on 200 hosts, x";
        assert_eq!((text.as_str(), told), (expected, 202));
        // What is worse stands first, however old.
        many[0] = story(Mark::Once, Kind::Blip, Severity::Warn, "db1!port:a", "", 5);
        many.rotate_left(1);
        let (text, told) = formed(&many, FORM);
        assert!(text.starts_with("201 up to CRIT older than 1h") && text.ends_with("; WARN BLIP db1!port:a"), "{text}");
        assert_eq!(told, 202);
        // The same letter again, with no more stories than fit.
        assert_eq!(formed(&many[..told], FORM).1, told);
    }

    #[test]
    fn what_is_counted_is_counted_by_what_it_has_in_common() {
        let mut old: Vec<Story> = (0..40).map(|n| down(&format!("web{n}!port:www"), "refused", 3601)).collect();
        old.extend((0..7).map(|n| down(&format!("db1!port:{n}"), "refused", 3601)));
        old.extend((0..4).map(|n| down(&format!("x{n}!port:of {n}"), "refused", 3601)));
        let (text, told) = formed(&old, FORM);
        let expected = "51 CRIT older than 1h, all still open: port:www on 40 hosts, db1 (7), x0 and 3 more hosts";
        assert_eq!((text.as_str(), told), (expected, 51));
    }

    #[test]
    fn what_is_new_is_still_named_in_turn() {
        let stories: Vec<Story> = (0..60)
            .map(|n| down(&format!("web{n}!port:smtp (25)"), "refused", if n % 2 == 0 { 5 } else { 4000 }))
            .collect();
        let (text, told) = formed(&stories, FORM);
        assert!(
            text.contains("DOWN web0!") && text.contains("CRIT older than 1h, all still open: port:smtp (25) on "),
            "{text}"
        );
        assert!((20..60).contains(&told), "{told}");
        assert_eq!(formed(&stories[..told], FORM).1, told);
    }

    #[test]
    fn a_storm_is_one_text_with_the_worst_by_name_and_the_rest_by_number() {
        let stories: Vec<Story> = (0..3000)
            .map(|n| story(Mark::Began, Kind::Down, Severity::Crit, &format!("web{}!port:{n}", n / 10), "refused", 5))
            .collect();
        let (text, told) = formed(&stories, FORM);
        assert_eq!(told, 3000);
        assert!(text.contains(" CRIT: DOWN web0!port:0; DOWN web0!port:1; "), "{text}");
        let (_, rest) = text.rsplit_once("; ").expect("a clause");
        assert!(rest.contains(" CRIT more, all still open: web") && rest.ends_with(" more hosts"), "{text}");
        let one = Limit { segments: Some(1), chars: None };
        assert_eq!(formed(&stories, Form { limit: one, ..FORM }).1, 3000);
        // Whoever takes as many texts as there are gets every name.
        let (text, told) = formed(&stories, Form { is_rationed: false, ..FORM });
        assert!(text.starts_with(&format!("{told} CRIT: ")) && (15..50).contains(&told), "{text}");
    }

    #[test]
    fn the_last_text_says_that_texts_pause_and_how_much_is_left_to_the_mail() {
        let stories: Vec<Story> = (0..50).map(|n| down(&format!("web{n}!port:smtp (25)"), "refused", 5)).collect();
        let (text, told) = formed(&stories, Form { last_of: Some(50), ..FORM });
        let end = format!(" TEXTS PAUSE, cost cap reached: {} more by mail", 50 - told);
        assert!(text.ends_with(&end) && told > 5, "{text}");
        // The frame composes again with what fits: the number is of what waited, not of what it is offered then.
        assert_eq!(formed(&stories[..told], Form { last_of: Some(50), ..FORM }), (text, told));
        let (text, _) = formed(&stories[..1], Form { last_of: Some(1), ..FORM });
        assert_eq!(text, "CRIT DOWN web0!port:smtp (25): refused TEXTS PAUSE, cost cap reached: the next by mail");
        let long = down("web1!port:smtp", &"x".repeat(500), 5);
        let limit = Limit { segments: Some(1), chars: None };
        let (text, _) = formed(&[long], Form { limit, last_of: Some(2), ..FORM });
        assert!(text.ends_with("... TEXTS PAUSE, cost cap reached: 1 more by mail"), "{text}");
    }

    #[test]
    fn a_long_story_is_cut_and_still_told() {
        let long = down(&format!("web1!port:{}", "x".repeat(250)), &"я".repeat(5000), 0);
        for segments in 1..=8 {
            let (text, told) = written(&[long.clone(), long.clone()], false, segments);
            assert!(told >= 1 && text.contains("web1!port:xxx"), "{text}");
        }
    }

    #[test]
    fn a_push_has_a_title_and_keeps_its_dashes() {
        let id = MessageId::parse("00000000-0000-0000-0000-000000000001").expect("an id");
        let stories = [down("web1!port:a", "gone – really", 0)];
        let letter = Letter { id, recipient: "ops", stories: &stories, again: false, now: NOW };
        let limit = Limit { segments: None, chars: Some(1024) };
        let (message, _) = compose(&letter, Form { limit, ..FORM });
        assert_eq!(message.title, "CRIT DOWN web1");
        assert_eq!(message.text, "CRIT DOWN web1!port:a: gone – really");
        assert_eq!(message.severity, Severity::Crit);
    }
}
