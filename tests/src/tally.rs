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

/// The addresses in a text. Those of drills have no spaces.
fn names(text: &str) -> impl Iterator<Item = String> {
    let words = text.split_whitespace().map(|word| word.trim_matches([',', ';', ':', '(', ')']));
    words.filter(|word| word.contains('!')).map(str::to_owned)
}

/// The number that a text begins with.
fn leading(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

/// The addresses of a cluster, by what they have in common, `port:www on 2 hosts` or `db1 (3)` or nothing, and a list of what
/// distinguishes them.
fn members(common: &str, list: &str) -> Vec<String> {
    let mut bare = String::new();
    let mut depth = 0;
    for c in list.chars() {
        depth += i32::from(c == '(');
        bare.extend((depth == 0).then_some(c));
        depth -= i32::from(c == ')');
    }
    let members = bare.split(',').map(str::trim).filter(|member| !member.is_empty());
    let name = |member: &str| match common.split([',', ' ']).next().unwrap_or_default() {
        "" => member.trim_end_matches(':').to_owned(),
        what if what.contains(':') || what == "alive" => format!("{member}!{what}"),
        host => format!("{host}!{member}"),
    };
    members.map(name).collect()
}

/// `[ DOWN ] ERR: port:www on 2 hosts: web1, web2; db1, more: port:3; a!b:c`.
fn names_of_summary(line: &str) -> Vec<String> {
    let (label, said) = line.split_once(" ] ").unwrap_or(("", line));
    let said = match said.split_once(": ") {
        Some((severity, said)) if !label.is_empty() && severity.chars().all(|c| c.is_ascii_uppercase()) => said,
        _ => said,
    };
    let part = |part: &str| match part.split_once(": ") {
        Some((common, list)) => members(common, list),
        None => members("", part),
    };
    said.split("; ").flat_map(part).collect()
}

impl Told {
    /// A mail, by its headers and its text.
    #[track_caller]
    pub fn by_mail(mail: &Mail) -> Self {
        let id = mail.header("Message-ID").trim_matches(['<', '>']).split('@').next().unwrap_or_default().to_owned();
        let stories = mail.header("X-Cairn-Stories").parse().expect("a number");
        let (words, numbers) = mail.body.split_once(" MORE, AS NUMBERS\n").unwrap_or((&mail.body, ""));
        let first_list = words.lines().position(|line| line.ends_with(", MORE")).unwrap_or(usize::MAX);
        let in_full = words.lines().take(first_list).filter(|line| line.starts_with('['));
        let in_full: Vec<String> = in_full.filter_map(|line| names(line).next()).collect();
        // `[ERR] port:www on 2 hosts DOWN`, and below it the hosts.
        let rows = words.lines().skip(first_list).collect::<Vec<_>>();
        let by_name: Vec<String> = rows
            .windows(2)
            .filter_map(|pair| {
                let (_, common) = pair[0].strip_prefix('[')?.split_once("] ")?;
                let (common, _word) = common.rsplit_once(' ').unwrap_or(("", common));
                Some(members(common, pair[1].trim_start()))
            })
            .flatten()
            .collect();
        let counted: usize = numbers.lines().filter_map(|line| leading(line.strip_prefix("    ")?)).sum();
        // What the head says and what the text says is the same.
        assert_eq!(in_full.len() + by_name.len() + counted, stories, "{}", mail.header("Subject"));
        Self {
            id: Some(id),
            again: !mail.header("X-Cairn-Resent").is_empty(),
            stories,
            names: in_full.into_iter().chain(by_name).collect(),
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
                told.push(Self { id: None, again, stories: 1, names: names(line).take(1).collect() });
                continue;
            };
            let counts = heading.split(" in the last ").next().expect("the beginning").split(", ");
            let stories: usize = counts.filter_map(leading).sum();
            let (mut named, mut said) = (BTreeSet::new(), 0);
            while said < stories
                && let Some(line) = rest.next_if(|line| !line.starts_with("== "))
            {
                match leading(line) {
                    Some(more) => said += more,
                    None => {
                        let of_line = names_of_summary(line);
                        said += of_line.len();
                        named.extend(of_line);
                    }
                }
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
            named.extend(names(part).take(1));
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
            "== 2 problems, 3 over in the last 3m 4s",
            "[ DOWN ] CRIT: a!d:2, b!d:3 (2 times)",
            "[ UP ] a!d:4 (for 3s)",
            "2 more (2 ERR) on 2 hosts: web1 (1), ...",
            "[ UP ] b!d:5 was down 3s (again?)",
            "== 4 problems",
            "[ DOWN ] ERR: a!d:1",
        ];
        let said = Told::by_lines(&lines.map(str::to_owned));
        let last = Told { again: true, ..told(1, &["b!d:5"]) };
        assert_eq!(said, [told(1, &["a!d:1"]), told(5, &["a!d:2", "b!d:3", "a!d:4"]), last]);
        let lines = [
            "== 6 problems",
            "[ DOWN ] ERR: port:www on 3 hosts: web1, web2 (3s ago); db1 (2): sql:1, sql:2 (2 times, 1m 0s ago)",
            "[ DOWN ] ERR: port:www, more: web3; a!b:c",
        ];
        let names = ["web1!port:www", "web2!port:www", "web3!port:www", "db1!sql:1", "db1!sql:2", "a!b:c"];
        assert_eq!(Told::by_lines(&lines.map(str::to_owned)), [told(6, &names)]);
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
