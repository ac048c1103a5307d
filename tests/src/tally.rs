//! What people were told, counted where they read it, beside what a notifier's ledger says.
//!
//! A message names what it tells of, or counts it. So each is read for both, and then compared with the ledger's rows of the same
//! message: the numbers have to be equal, and whoever is named has to be among them.

use crate::exim::Mail;
use crate::kannel::Text;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A message as its reader has it, or one line of several that stand for themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The message, where the medium says which.
    pub id: Option<String>,
    /// It says that it may be a copy.
    pub again: bool,
    /// How many things it tells of, named or counted.
    pub stories: usize,
    /// The addresses that it names.
    pub names: BTreeSet<String>,
}

/// The first address in a text. Those of drills have no spaces.
fn name(text: &str) -> Option<String> {
    let mut words = text.split_whitespace().map(|word| word.trim_matches([',', ';', ':', '(', ')']));
    words.find(|word| word.contains('!')).map(str::to_owned)
}

/// The addresses of a list, `drill:b (3s ago), drill:c`, behind what they have in common: `web1 (2)`, `web1, more`, or
/// `drill:b on 2 hosts` for a list of hosts.
fn listed(common: &str, list: &str) -> Vec<String> {
    let common = common.trim_end_matches(", more").split(" on ").next().unwrap_or_default();
    let common = common.split(" (").next().unwrap_or_default();
    let mut depth = 0;
    let entries = list.split(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    let names = entries.map(|entry| entry.trim().split(" (").next().unwrap_or_default());
    let whole = |name: &str| match common {
        _ if name.contains('!') => name.to_owned(),
        what if what.contains(':') => format!("{name}!{what}"),
        host => format!("{host}!{name}"),
    };
    names.filter(|name| !name.is_empty()).map(whole).collect()
}

/// The number that a text begins with.
fn leading(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

impl Told {
    /// A mail, by its headers and its text.
    #[track_caller]
    pub fn by_mail(mail: &Mail) -> Self {
        let id = mail.header("Message-ID").trim_matches(['<', '>']).split('@').next().unwrap_or_default().to_owned();
        let stories = mail.header("X-Cairn-Stories").parse().expect("a number");
        let body = mail.body.split("\n-- \n").next().unwrap_or_default();
        let (shown, counted) = body.split_once(" MORE, BY HOST\n").unwrap_or((body, ""));
        let counted: usize = counted.lines().filter_map(|line| leading(line.strip_prefix("    ")?)).sum();
        let mut names = Vec::new();
        let mut in_full = true;
        let mut lines = shown.lines().peekable();
        while let Some(line) = lines.next() {
            in_full &= !line.ends_with(", MORE");
            let Some(rest) = line.strip_prefix('[') else { continue };
            match lines.peek() {
                Some(list) if !in_full => {
                    // `[ERR] web1 (12) DOWN`, and their names.
                    let common = rest
                        .split_once("] ")
                        .map_or("", |(_, rest)| rest.rsplit_once(' ').map_or("", |(common, _)| common));
                    names.extend(listed(common, list));
                }
                _ => names.extend(name(rest)),
            }
        }
        // What the head says and what the text says is the same.
        assert_eq!(names.len() + counted, stories, "{}", mail.header("Subject"));
        Self {
            id: Some(id),
            again: !mail.header("X-Cairn-Resent").is_empty(),
            stories,
            names: names.into_iter().collect(),
        }
    }

    /// What was said in a channel without colours: lines of their own, and summaries of several. The last may not be
    /// complete yet, or never be: then it is left out.
    #[track_caller]
    pub fn by_lines(lines: &[String]) -> Vec<Self> {
        let mut told: Vec<Self> = Vec::new();
        let mut rest = lines.iter().peekable();
        while let Some(line) = rest.next() {
            let again = line.contains("(again?)");
            let Some(heading) = line.strip_prefix("== ") else {
                told.push(Self { id: None, again, stories: 1, names: name(line).into_iter().collect() });
                continue;
            };
            let counts = heading.split(" in the last ").next().expect("the beginning").split(", ");
            let stories: usize = counts.filter_map(leading).sum();
            let (mut named, mut said) = (BTreeSet::new(), 0);
            while said < stories
                && let Some(line) = rest.next_if(|line| !line.starts_with("== "))
            {
                // `[ DOWN ] ERR web1 (12): drill:b, drill:c`, or `4 more (4 ERR): web1 (3), ...`.
                let list = line.split_once(" ] ").map_or("", |(_, rest)| rest);
                let (common, list) = list.split_once(": ").unwrap_or(("", list));
                let severity = ["CRIT", "ERR", "WARN"].into_iter().find(|severity| common.starts_with(severity));
                let of_line = listed(common.trim_start_matches(severity.unwrap_or_default()).trim_start(), list);
                said += leading(line).unwrap_or(of_line.len());
                named.extend(of_line);
            }
            if said >= stories {
                assert_eq!(said, stories, "{line}");
                told.push(Self { id: None, again, stories, names: named });
            }
        }
        told
    }

    /// A text, by its words.
    pub fn by_text(text: &Text) -> Self {
        let again = text.body.starts_with("(again");
        let body = if again { text.body.split_once(") ").map_or("", |(_, body)| body) } else { &text.body };
        let (mut stories, mut listed) = (0, 0);
        let mut named = BTreeSet::new();
        for part in body.split("; ") {
            let before = part.split(": ").next().unwrap_or_default();
            match leading(part) {
                _ if listed > 0 => listed -= 1,
                // `4990 CRIT more, all still open: web1, web2`.
                Some(count) if before.contains(',') => {
                    stories += count;
                    continue;
                }
                // `3 CRIT: DOWN a!b:c`, and two more after it.
                Some(count) => {
                    stories += count;
                    listed = count - 1;
                }
                None => stories += 1,
            }
            named.extend(name(part));
        }
        Self { id: None, again, stories, names: named }
    }
}

/// What a notifier says that it has told: for each message the addresses, and whether it may have gone more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The message's id.
    pub message: String,
    /// Of everything that it tells of.
    pub names: BTreeSet<String>,
    /// How many events these are.
    pub events: usize,
    /// It was sent again, since its outcome was not known.
    pub again: bool,
}

/// The messages of a ledger's rows that were sent, in the order of their first event.
#[track_caller]
pub fn sent(rows: &[Value]) -> Vec<Sent> {
    let mut messages: Vec<Sent> = Vec::new();
    let mut place: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows.iter().filter(|row| row["state"] == "sent") {
        let message = row["message"].as_str().expect("a message");
        let at = *place.entry(message).or_insert_with(|| {
            let message = message.to_owned();
            messages.push(Sent { message, names: BTreeSet::new(), events: 0, again: false });
            messages.len() - 1
        });
        let sent = &mut messages[at];
        sent.names.insert(row["address"].as_str().expect("an address").to_owned());
        sent.events += 1;
        sent.again |= row["again"].as_u64().expect("a number") > 0;
    }
    messages
}

/// How often something that was sent has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// All of it.
    pub whole: usize,
    /// Any part of it: what is told in lines of their own may have arrived in part.
    pub most: usize,
}

/// How often each message that was sent has arrived; or what has arrived and is not known to have been sent.
pub fn copies(sent: &[Sent], told: &[Told]) -> Result<Vec<Copies>, Told> {
    // By the part: all of a message, or the line of it that names this.
    let mut parts: Vec<BTreeMap<Option<&str>, usize>> = vec![BTreeMap::new(); sent.len()];
    for told in told {
        let part_of = |sent: &Sent| match &told.id {
            Some(id) => (*id == sent.message && told.stories == sent.names.len()).then_some(None),
            None if !told.names.is_subset(&sent.names) || told.names.is_empty() => None,
            None if told.stories == sent.names.len() => Some(None),
            None => (told.stories == 1).then(|| told.names.first().map(String::as_str)),
        };
        let fitting = sent.iter().enumerate().filter_map(|(at, sent)| Some((at, part_of(sent)?)));
        // In their order: what has arrived already arrives once more only if nothing else can be meant.
        let first = fitting.min_by_key(|(at, part)| (parts[*at].get(part).copied().unwrap_or(0), *at));
        let (at, part) = first.ok_or_else(|| told.clone())?;
        *parts[at].entry(part).or_default() += 1;
    }
    let of = |(sent, mut parts): (&Sent, BTreeMap<Option<&str>, usize>)| {
        let whole = parts.remove(&None).unwrap_or(0);
        let lines = if parts.len() == sent.names.len() { parts.values().copied().min().unwrap_or(0) } else { 0 };
        Copies { whole: whole + lines, most: whole + parts.values().copied().max().unwrap_or(0) }
    };
    Ok(sent.iter().zip(parts).map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stories: usize, names: &[&str]) -> Told {
        Told { id: None, again: false, stories, names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn what_is_said_in_a_channel_is_counted() {
        let lines = [
            "[ DOWN ] a!d:1: refused",
            "== 4 problems, 3 over in the last 3m 4s",
            "[ DOWN ] CRIT: a!d:2, b!d:3 (2 times, 3s ago)",
            "[ UP ] a (3): d:4 (for 3s), d:5",
            "[ UP ] a, more: d:6",
            "2 more (2 ERR): web1 (2), ...",
            "[ UP ] b!d:5 was down 3s (again?)",
            "== 3 problems",
            "[ DOWN ] ERR d:7 on 2 hosts: a, b",
            "[ DOWN ] ERR d:7, more: c",
            "== 4 problems",
            "[ DOWN ] ERR: a!d:1",
        ];
        let said = Told::by_lines(&lines.map(str::to_owned));
        let expected = [
            told(1, &["a!d:1"]),
            told(7, &["a!d:2", "b!d:3", "a!d:4", "a!d:5", "a!d:6"]),
            Told { again: true, ..told(1, &["b!d:5"]) },
            told(3, &["a!d:7", "b!d:7", "c!d:7"]),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn what_a_mail_says_is_counted() {
        let raw = "Message-ID: <m1@mon>\nX-Cairn-Stories: 9\nSubject: x\n\n9 problems on 3 hosts.\n- [ERR] d:7 on 3 hosts\n\n\
                   STILL OPEN\n\n[ERR] a!d:1 DOWN\n    refused\nSince: now\n\nSTILL OPEN, MORE\n\n[ERR] d:7 on 2 hosts DOWN\n    \
                   a, b\n\n[ERR] DOWN\n    c!d:8\n\n5 MORE, BY HOST\n\nweb1\n    4: 4 still open, at worst ERR\n\n1 more host\n    \
                   1: 1 over\n\n-- \nCairn on mon\n";
        let expected = Told { id: Some("m1".to_owned()), ..told(9, &["a!d:1", "a!d:7", "b!d:7", "c!d:8"]) };
        assert_eq!(Told::by_mail(&Mail::parse(raw)), expected);
    }

    #[test]
    fn what_a_text_says_is_counted() {
        let read = |body: &str| Told::by_text(&Text { to: String::new(), body: body.to_owned(), segments: 1 });
        assert_eq!(read("ERR DOWN a!d:1: refused"), told(1, &["a!d:1"]));
        assert_eq!(read("2 ERR: DOWN a!d:1; DOWN b!d:2 3m ago"), told(2, &["a!d:1", "b!d:2"]));
        assert_eq!(read("2 events: ERR DOWN a!d:1: x; INFO UP b!d:2"), told(2, &["a!d:1", "b!d:2"]));
        assert_eq!(read("CRIT DOWN a!d:1; 7 ERR more, 3 still open: web1, web2"), told(8, &["a!d:1"]));
        assert_eq!(
            read("7 ERR older than 1h, none open: web1; 2 INFO: UP a!d:1; UP a!d:2"),
            told(9, &["a!d:1", "a!d:2"])
        );
        assert!(read("(again) ERR DOWN a!d:1").again);
    }

    #[test]
    fn what_was_sent_is_found_and_nothing_else() {
        let sent =
            |names: &[&str]| Sent { message: String::new(), names: told(0, names).names, events: 1, again: false };
        let sent = [sent(&["a!d:1"]), sent(&["a!d:2", "a!d:3"]), sent(&["a!d:4", "a!d:5", "a!d:6"]), sent(&["a!d:7"])];
        let arrived =
            [told(1, &["a!d:1"]), told(1, &["a!d:2"]), told(1, &["a!d:3"]), told(3, &["a!d:5"]), told(1, &["a!d:2"])];
        let of = |sent: &[Sent], told: &[Told]| -> Vec<(usize, usize)> {
            copies(sent, told)
                .expect("all of it was sent")
                .into_iter()
                .map(|Copies { whole, most }| (whole, most))
                .collect()
        };
        assert_eq!(of(&sent, &arrived), [(1, 1), (1, 2), (1, 1), (0, 0)]);
        // An outage and its end have one name.
        let twice = [sent[0].clone(), sent[0].clone()];
        assert_eq!(of(&twice, &[told(1, &["a!d:1"]), told(1, &["a!d:1"]), told(1, &["a!d:1"])]), [(2, 2), (1, 1)]);
        assert!(copies(&sent, &[told(2, &["a!d:4"])]).is_err());
    }
}
