//! What cprocessd answers, in lines of a chat: as few as will do, trouble first.
//!
//! Several cprocessds answer as one: rows of the same thing are told once, as the worse of them has it.

use crate::paint::{self, Look, clean, cut, pack};
use common::address::{HostName, Pattern};
use common::message::{
    AlarmRow, AlarmState, DownRow, Explanation, Ordered, ServerRow, ServerStatus, ServiceRow, SilenceRow, State,
    ValueRow,
};
use common::notifier::one_line;
use common::number;
use common::severity::Severity;
use common::time::{UnixMillis, for_people};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Nobody pages through more than this; there is the page for it.
const MAX_LINES: usize = 60;
/// Of a text, as in a message.
const MAX_TEXT_CHARS: usize = 200;
/// Of an address or a name, so that every line has room for one.
const MAX_NAME_BYTES: usize = 160;

/// What there is to say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Status {
        servers: Vec<ServerRow>,
        down: Vec<DownRow>,
    },
    Server(Box<ServerStatus>),
    Servers(Vec<ServerRow>),
    Services(HostName, Vec<ServiceRow>),
    Down(Vec<DownRow>),
    Values(Pattern, Vec<ValueRow>),
    Alarms(Vec<AlarmRow>),
    Rules(Vec<AlarmRow>),
    Silences(Vec<SilenceRow>),
    Explanation(Box<Explanation>),
    /// An order was carried out.
    Ordered(Ordered),
    /// It was not, or nobody answered. A phrase.
    Refused(String),
    /// An answer, and what is missing from it. A phrase.
    Partly(Box<Answer>, String),
}

/// How wide the lines are, whether coloured, and what time it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sheet {
    /// Bytes of a line.
    pub(crate) width: usize,
    pub(crate) colour: bool,
    pub(crate) now: UnixMillis,
}

impl Sheet {
    /// The lines of an answer: at least one, none too long, and not too many.
    pub(crate) fn lines(&self, answer: &Answer) -> Vec<String> {
        let mut lines = self.of(answer);
        if lines.len() > MAX_LINES {
            lines.truncate(MAX_LINES - 1);
            lines.push("there is more than fits here; the page has all of it".to_owned());
        }
        lines.iter().map(|line| cut(line, self.width)).collect()
    }

    fn of(&self, answer: &Answer) -> Vec<String> {
        match answer {
            Answer::Status { servers, down } => self.status(servers, down),
            Answer::Server(status) => self.server(status),
            Answer::Servers(rows) => self.servers(rows),
            Answer::Services(host, rows) => self.services(host, rows),
            Answer::Down(rows) if rows.is_empty() => vec!["nothing is down".to_owned()],
            Answer::Down(rows) => self.down(rows),
            Answer::Values(pattern, rows) => self.values(pattern, rows),
            Answer::Alarms(rows) => self.alarms(rows),
            Answer::Rules(rows) => self.rules(rows),
            Answer::Silences(rows) => self.silences(rows),
            Answer::Explanation(explanation) => self.explanation(explanation),
            Answer::Ordered(ordered) => self.ordered(ordered),
            Answer::Refused(why) => vec![text(why)],
            // First what is missing: the rest may be a page further.
            Answer::Partly(answer, note) => std::iter::once(text(note)).chain(self.of(answer)).collect(),
        }
    }

    fn status(&self, servers: &[ServerRow], down: &[DownRow]) -> Vec<String> {
        let hosts = counted(servers.len(), "host");
        let states = by_state(servers.iter().map(|row| row.state));
        let severities = Severity::ALL.into_iter().rev().filter_map(|severity| {
            let n = down.iter().filter(|row| row.severity == severity).count();
            (n > 0).then(|| format!("{n} {severity}"))
        });
        let open = match down.len() {
            0 => "nothing is open".to_owned(),
            n => format!("{n} open: {}", severities.collect::<Vec<_>>().join(", ")),
        };
        let untold = down.iter().filter(|row| row.acked || row.silenced || row.unreachable).count();
        let untold =
            if untold > 0 { format!(" ({untold} of them acked, silenced or unreachable)") } else { String::new() };
        let mut lines = vec![match servers.len() {
            0 => format!("no host is known; {open}{untold}"),
            _ => format!("{hosts}: {states}; {open}{untold}"),
        }];
        for state in [State::Down, State::Unknown] {
            lines.extend(self.hosts(state, servers.iter().filter(|row| row.state == state)));
        }
        lines
    }

    fn server(&self, status: &ServerStatus) -> Vec<String> {
        let ServerRow { host, state, since, last_seen, .. } = &status.server;
        let checks = match status.services.len() {
            0 => "no checks".to_owned(),
            n => format!("{}: {}", counted(n, "check"), by_state(status.services.iter().map(|row| row.state))),
        };
        let open = match status.incidents.len() {
            0 => "nothing is open".to_owned(),
            n => format!("{n} open"),
        };
        let (lasting, seen) = (self.age(*since), self.age(*last_seen));
        let host = paint::bold(self.colour, host.as_str());
        let mut lines = vec![format!("{host} is {state} for {lasting}, last seen {seen} ago; {checks}; {open}")];
        lines.extend(self.down(&status.incidents));
        lines
    }

    fn servers(&self, rows: &[ServerRow]) -> Vec<String> {
        if rows.is_empty() {
            return vec!["no host is known".to_owned()];
        }
        let mut lines = Vec::new();
        for state in [State::Down, State::Unknown, State::Up, State::Open, State::Resolved] {
            let mut rows: Vec<&ServerRow> = rows.iter().filter(|row| row.state == state).collect();
            rows.sort_by_key(|row| (Reverse(row.severity), row.host.clone()));
            lines.extend(self.hosts(state, rows.into_iter()));
        }
        lines
    }

    fn hosts<'a>(&self, state: State, rows: impl Iterator<Item = &'a ServerRow>) -> Vec<String> {
        let entry = |row: &ServerRow| {
            let mut notes = Vec::new();
            if state != State::Up {
                notes.push(format!("for {}", self.age(row.since)));
            }
            if let Some(severity) = row.severity {
                notes.push(format!("{} open, {severity}", row.open));
            }
            noted(row.host.as_str(), &notes)
        };
        pack(&self.state(state), rows.map(entry), self.width)
    }

    fn services(&self, host: &HostName, rows: &[ServiceRow]) -> Vec<String> {
        if rows.is_empty() {
            return vec![format!("{host} has no checks")];
        }
        let name = |row: &ServiceRow| name(&format!("{}:{}", row.service, row.unit));
        let of = |state: State| rows.iter().filter(move |row| row.state == state);
        let mut lines = Vec::new();
        for row in of(State::Down) {
            let what = format!("{}{} for {}", self.state(State::Down), name(row), self.age(row.since));
            lines.push(with_text(&what, &row.text));
        }
        for state in [State::Unknown, State::Up] {
            lines.extend(pack(&self.state(state), of(state).map(name), self.width));
        }
        lines
    }

    /// A line for each open incident.
    fn down(&self, rows: &[DownRow]) -> Vec<String> {
        let line = |row: &DownRow| {
            let (word, rule) = match row.rule.as_str() {
                "check" => ("DOWN", String::new()),
                "silent" => ("ABSENT", String::new()),
                "clock" => ("CLOCK", String::new()),
                rule => ("ALARM", format!(" ({})", name(rule))),
            };
            let label = paint::label(self.colour, word, Look::of(row.severity));
            let address = name(&row.address.to_string());
            let what = format!("{label}{} {address}{rule} for {}", row.severity, self.age(row.since));
            let marks = marks(row);
            let tail =
                if marks.is_empty() { String::new() } else { cut(&format!(" ({})", marks.join(", ")), MAX_NAME_BYTES) };
            format!("{}{tail}", cut(&with_text(&what, &row.text), self.width.saturating_sub(tail.len())))
        };
        rows.iter().map(line).collect()
    }

    fn values(&self, pattern: &Pattern, rows: &[ValueRow]) -> Vec<String> {
        if rows.is_empty() {
            return vec![format!("no value matches {}", name(pattern.as_str()))];
        }
        let entry = |row: &ValueRow| {
            let stale = if row.stale { vec![format!("stale for {}", self.age(row.time))] } else { Vec::new() };
            noted(&format!("{} = {}", name(&row.address.to_string()), number::for_people(row.value)), &stale)
        };
        pack("", rows.iter().map(entry), self.width)
    }

    fn alarms(&self, rows: &[AlarmRow]) -> Vec<String> {
        let mut active: Vec<(&AlarmRow, &AlarmState)> =
            rows.iter().flat_map(|row| row.active.iter().map(move |active| (row, active))).collect();
        if active.is_empty() {
            return vec![format!("{}, and nothing is over its limit", counted(rows.len(), "rule"))];
        }
        active.sort_by_key(|(row, active)| (Reverse(active.open), Reverse(row.severity), active.since));
        let line = |(row, active): (&AlarmRow, &AlarmState)| {
            let (word, look) = if active.open { ("ALARM", Look::of(row.severity)) } else { ("PENDING", Look::Plain) };
            let label = paint::label(self.colour, word, look);
            let value = active.value.map_or_else(|| "absent".to_owned(), number::for_people);
            let (address, lasting) = (name(&active.address.to_string()), self.age(active.since));
            format!("{label}{} {address} = {value} for {lasting} ({})", row.severity, name(&row.name))
        };
        active.into_iter().map(line).collect()
    }

    fn rules(&self, rows: &[AlarmRow]) -> Vec<String> {
        if rows.is_empty() {
            return vec!["there is no rule".to_owned()];
        }
        let line = |row: &AlarmRow| {
            let mut notes = Vec::new();
            if let Some(author) = &row.author {
                notes.push(format!("by {}", name(author)));
            }
            if row.matches == 0 {
                notes.push("looks at nothing".to_owned());
            }
            // Without a name of its own its condition is the name.
            let named = if row.rule.starts_with(&row.name) { String::new() } else { format!("{}: ", name(&row.name)) };
            let tail = noted("", &notes);
            format!("{}{tail}", cut(&format!("{named}{}", text(&row.rule)), self.width.saturating_sub(tail.len())))
        };
        // What people added is what they look for.
        let (ordered, other): (Vec<&AlarmRow>, Vec<&AlarmRow>) = rows.iter().partition(|row| row.origin == "order");
        ordered.into_iter().chain(other).map(line).collect()
    }

    fn silences(&self, rows: &[SilenceRow]) -> Vec<String> {
        if rows.is_empty() {
            return vec!["nothing is silenced".to_owned()];
        }
        let line = |row: &SilenceRow| {
            let left = for_people(row.until.since(self.now));
            let what = if row.maintenance { "in maintenance" } else { "silenced" };
            let open = if row.open > 0 { format!(" ({} open)", row.open) } else { String::new() };
            let what = format!("{} is {what} for another {left} by {}{open}", name(&row.pattern), name(&row.author));
            with_text(&what, &row.reason)
        };
        rows.iter().map(line).collect()
    }

    fn explanation(&self, explanation: &Explanation) -> Vec<String> {
        let Explanation { address, state, since, why, last, .. } = explanation;
        let lasting = since.map(|since| format!(" for {}", self.age(since))).unwrap_or_default();
        let first = format!("{}{}{lasting}", self.state(*state), name(&address.to_string()));
        let mut lines = vec![with_text(&first, last.as_deref().unwrap_or_default())];
        lines.extend(why.iter().map(|why| text(why)));
        lines
    }

    fn ordered(&self, ordered: &Ordered) -> Vec<String> {
        let mut lines = vec![if ordered.text.is_empty() { "done".to_owned() } else { text(&ordered.text) }];
        lines.extend(pack("that is ", ordered.addresses.iter().map(|address| name(address)), self.width));
        if !ordered.unreached.is_empty() {
            lines.push(format!("could not reach {}", text(&ordered.unreached.join(", "))));
        }
        lines
    }

    fn state(&self, state: State) -> String {
        let look = match state {
            State::Up | State::Resolved => Look::Good,
            State::Down | State::Open => Look::Bad,
            State::Unknown => Look::Doubtful,
        };
        paint::label(self.colour, &state.to_string().to_uppercase(), look)
    }

    fn age(&self, since: UnixMillis) -> String {
        for_people(self.now.since(since))
    }
}

/// What stands beside an open incident: who looks after it, and why it is not told.
fn marks(row: &DownRow) -> Vec<String> {
    let mut marks: Vec<String> = Vec::new();
    let by: Vec<String> = row.suppressed_by.iter().filter_map(|cause| cause.strip_prefix("ack:")).map(name).collect();
    if row.acked {
        marks.push(if by.is_empty() { "acked".to_owned() } else { format!("acked by {}", by.join(", ")) });
    }
    if row.silenced {
        marks.push("silenced".to_owned());
    }
    if row.unreachable {
        marks.push("unreachable".to_owned());
    }
    marks
}

/// `1 up, 2 down`.
fn by_state(states: impl Iterator<Item = State>) -> String {
    let mut counts: BTreeMap<&str, (usize, State)> = BTreeMap::new();
    for state in states {
        let word = match state {
            State::Down | State::Open => "0",
            State::Unknown => "1",
            State::Up | State::Resolved => "2",
        };
        counts.entry(word).or_insert((0, state)).0 += 1;
    }
    counts.values().map(|(n, state)| format!("{n} {state}")).collect::<Vec<_>>().join(", ")
}

fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn noted(what: &str, notes: &[String]) -> String {
    if notes.is_empty() { what.to_owned() } else { format!("{what} ({})", notes.join(", ")) }
}

fn with_text(what: &str, says: &str) -> String {
    let says = text(says);
    if says.is_empty() { what.to_owned() } else { format!("{what}: {says}") }
}

/// Others' words on one line.
fn text(text: &str) -> String {
    clean(&one_line(text, MAX_TEXT_CHARS)).trim().to_owned()
}

/// An address or a name.
fn name(name: &str) -> String {
    cut(&clean(&one_line(name, MAX_NAME_BYTES * 2)), MAX_NAME_BYTES)
}

/// The rows of all who answered, as one list in the order of the first: of rows of the same `key` the worst is kept.
pub(crate) fn merged<T, K: Ord, W: Ord>(all: Vec<Vec<T>>, key: impl Fn(&T) -> K, worse: impl Fn(&T) -> W) -> Vec<T> {
    let mut places: BTreeMap<K, usize> = BTreeMap::new();
    let mut rows: Vec<T> = Vec::new();
    for row in all.into_iter().flatten() {
        match places.get(&key(&row)) {
            Some(place) if worse(&row) > worse(&rows[*place]) => rows[*place] = row,
            Some(_) => {}
            None => {
                places.insert(key(&row), rows.len());
                rows.push(row);
            }
        }
    }
    rows
}

/// How bad a state is, for [`merged`].
pub(crate) fn badness(state: State) -> u8 {
    match state {
        State::Up | State::Resolved => 0,
        State::Unknown => 1,
        State::Down | State::Open => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::message::{IncidentId, RuleView};

    const NOW: UnixMillis = UnixMillis(1_795_236_306_000);

    fn sheet() -> Sheet {
        Sheet { width: 380, colour: false, now: NOW }
    }

    #[track_caller]
    fn says(answer: &Answer, expected: &[&str]) {
        assert_eq!(sheet().lines(answer), expected);
    }

    fn ago(secs: i64) -> UnixMillis {
        UnixMillis(NOW.0 - secs * 1000)
    }

    fn server(host: &str, state: State, open: u64) -> ServerRow {
        let severity = (open > 0).then_some(Severity::Err);
        let host = host.parse().expect("a host");
        ServerRow { host, state, since: ago(300), last_seen: ago(1), severity, checks: 3, open }
    }

    fn down(address: &str, rule: &str, severity: Severity) -> DownRow {
        let address: common::address::Address = address.parse().expect("an address");
        DownRow {
            incident: IncidentId::new(&address, rule, ago(303)),
            address,
            rule: rule.to_owned(),
            kind: None,
            severity,
            since: ago(303),
            text: "connection refused".to_owned(),
            acked: false,
            silenced: false,
            unreachable: false,
            step: None,
            suppressed_by: Vec::new(),
        }
    }

    fn service(unit: &str, state: State) -> ServiceRow {
        ServiceRow {
            host: "web1".parse().expect("a host"),
            service: "port".parse().expect("a name"),
            unit: unit.parse().expect("a unit"),
            state,
            since: ago(65),
            text: "refused".to_owned(),
        }
    }

    #[test]
    fn the_state_of_everything_is_a_line_and_those_in_trouble() {
        let servers =
            vec![server("web1", State::Up, 1), server("db1", State::Down, 1), server("db2", State::Unknown, 0)];
        let acked = DownRow { acked: true, ..down("db1!alive:", "check", Severity::Crit) };
        let down = vec![acked, down("web1!port:www", "check", Severity::Err)];
        says(
            &Answer::Status { servers: servers.clone(), down },
            &[
                "3 hosts: 1 down, 1 unknown, 1 up; 2 open: 1 CRIT, 1 ERR (1 of them acked, silenced or unreachable)",
                "[ DOWN ] db1 (for 5m 0s, 1 open, ERR)",
                "[ UNKNOWN ] db2 (for 5m 0s)",
            ],
        );
        let fine = Answer::Status { servers: vec![server("web1", State::Up, 0)], down: Vec::new() };
        says(&fine, &["1 host: 1 up; nothing is open"]);
        says(&Answer::Status { servers: vec![], down: vec![] }, &["no host is known; nothing is open"]);
        says(
            &Answer::Servers([servers, vec![server("app", State::Up, 0)]].concat()),
            &["[ DOWN ] db1 (for 5m 0s, 1 open, ERR)", "[ UNKNOWN ] db2 (for 5m 0s)", "[ UP ] web1 (1 open, ERR), app"],
        );
        says(&Answer::Servers(vec![]), &["no host is known"]);
    }

    #[test]
    fn a_host_and_its_checks() {
        let status = ServerStatus {
            server: server("web1", State::Up, 1),
            services: vec![service("www", State::Down), service("ssh", State::Up), service("smtp", State::Up)],
            incidents: vec![down("web1!port:www", "check", Severity::Err)],
            values: vec![],
        };
        says(
            &Answer::Server(Box::new(status.clone())),
            &[
                "web1 is up for 5m 0s, last seen 1.0s ago; 3 checks: 1 down, 2 up; 1 open",
                "[ DOWN ] ERR web1!port:www for 5m 3s: connection refused",
            ],
        );
        let web1: HostName = "web1".parse().expect("a host");
        let services = Answer::Services(web1.clone(), status.services);
        says(&services, &["[ DOWN ] port:www for 1m 5s: refused", "[ UP ] port:ssh, port:smtp"]);
        says(&Answer::Services(web1, vec![]), &["web1 has no checks"]);
    }

    #[test]
    fn what_is_open_says_who_looks_after_it() {
        let mut acked = down("web1!port:www", "check", Severity::Err);
        (acked.acked, acked.suppressed_by) = (true, vec!["ack:bob".to_owned(), "silence:7".to_owned()]);
        acked.silenced = true;
        let alarm = down("web1!machine.disk:/.free", "disk full", Severity::Warn);
        says(
            &Answer::Down(vec![acked, alarm, down("web1!port:x", "silent", Severity::Warn)]),
            &[
                "[ DOWN ] ERR web1!port:www for 5m 3s: connection refused (acked by bob, silenced)",
                "[ ALARM ] WARN web1!machine.disk:/.free (disk full) for 5m 3s: connection refused",
                "[ ABSENT ] WARN web1!port:x for 5m 3s: connection refused",
            ],
        );
        says(&Answer::Down(vec![]), &["nothing is down"]);
    }

    #[test]
    fn values_alarms_and_rules() {
        let pattern: Pattern = "*!machine.cpu".parse().expect("a pattern");
        let value = |unit: &str, stale| ValueRow {
            address: format!("web1!machine.cpu:{unit}.load").parse().expect("an address"),
            value: 93.25,
            time: ago(90),
            stale,
        };
        says(
            &Answer::Values(pattern.clone(), vec![value("all", false), value("core1", true)]),
            &["web1!machine.cpu:all.load = 93.25, web1!machine.cpu:core1.load = 93.25 (stale for 1m 30s)"],
        );
        says(&Answer::Values(pattern, vec![]), &["no value matches *!machine.cpu"]);
        let rule = |name: &str, rule: &str, active| AlarmRow {
            name: name.to_owned(),
            rule: rule.to_owned(),
            severity: Severity::Err,
            matches: 1,
            active,
            origin: "file".to_owned(),
            author: None,
            added: None,
        };
        let over = |open, value| AlarmState {
            address: "web1!machine.disk:/.free".parse().expect("an address"),
            open,
            since: ago(60),
            value,
        };
        let disk = "web*!machine.disk:/.free < 5g";
        let ordered = AlarmRow {
            origin: "order".to_owned(),
            author: Some("irc:lab/alice".to_owned()),
            matches: 0,
            ..rule(disk, &format!("{disk} ERR"), vec![])
        };
        let rules = vec![
            rule("disk", "*!machine.disk:*.free < 1g ERR", vec![over(false, None), over(true, Some(0.5))]),
            ordered,
        ];
        says(
            &Answer::Alarms(rules.clone()),
            &[
                "[ ALARM ] ERR web1!machine.disk:/.free = 0.5 for 1m 0s (disk)",
                "[ PENDING ] ERR web1!machine.disk:/.free = absent for 1m 0s (disk)",
            ],
        );
        says(
            &Answer::Rules(rules),
            &[
                "web*!machine.disk:/.free < 5g ERR (by irc:lab/alice, looks at nothing)",
                "disk: *!machine.disk:*.free < 1g ERR",
            ],
        );
        says(&Answer::Alarms(vec![rule("a", "b", vec![])]), &["1 rule, and nothing is over its limit"]);
        says(&Answer::Rules(vec![]), &["there is no rule"]);
    }

    #[test]
    fn silences_explanations_and_what_was_done() {
        let silence = SilenceRow {
            id: "7".to_owned(),
            pattern: "web*".to_owned(),
            until: UnixMillis(NOW.0 + 3_660_000),
            since: ago(5),
            author: "bob".to_owned(),
            reason: "upgrade".to_owned(),
            maintenance: false,
            open: 2,
        };
        says(&Answer::Silences(vec![silence]), &["web* is silenced for another 1h 1m by bob (2 open): upgrade"]);
        says(&Answer::Silences(vec![]), &["nothing is silenced"]);
        let explanation = Explanation {
            address: "web1!port:www".parse().expect("an address"),
            state: State::Down,
            since: Some(ago(60)),
            why: vec!["it is down".to_owned(), "bob silenced it".to_owned()],
            last: Some("refused".to_owned()),
            incidents: vec![],
            rules: vec![RuleView { name: "r".into(), rule: "r".into(), phase: "fine".into(), since: None }],
            suppressed_by: vec![],
            depends_on: vec![],
        };
        says(
            &Answer::Explanation(Box::new(explanation)),
            &["[ DOWN ] web1!port:www for 1m 0s: refused", "it is down", "bob silenced it"],
        );
        let done = Ordered {
            text: "bob silenced web*".to_owned(),
            addresses: vec!["web1!port:a".to_owned(), "web1!port:b".to_owned()],
            unreached: vec![],
        };
        let done = Answer::Ordered(done);
        says(&done, &["bob silenced web*", "that is web1!port:a, web1!port:b"]);
        let note = "1 of 2 cprocessds did not answer";
        let partly = Answer::Partly(Box::new(Answer::Down(vec![])), note.to_owned());
        says(&partly, &[note, "nothing is down"]);
        says(&Answer::Refused("there is no rule \"x\"".to_owned()), &["there is no rule \"x\""]);
    }

    #[test]
    fn the_words_of_others_break_out_of_nothing() {
        let hostile = "a\r\nQUIT :b\0\u{1}\u{3}04\u{202e}c";
        let mut row = down(&format!("web1!port:{}", "ü".repeat(400)), "check", Severity::Err);
        row.text = format!("{hostile}{}", "x".repeat(900));
        (row.acked, row.suppressed_by) = (true, vec![format!("ack:{hostile}{}", "y".repeat(190))]);
        let rows = vec![row; 100];
        for colour in [true, false] {
            let lines = Sheet { colour, ..sheet() }.lines(&Answer::Down(rows.clone()));
            assert_eq!(lines.len(), MAX_LINES);
            assert!(lines.last().is_some_and(|line| line.contains("the page has all of it")));
            for line in &lines {
                assert!(line.len() <= 380, "{line}");
                assert!(!line.contains(['\r', '\n', '\0', '\u{1}', '\u{202e}']), "{line:?}");
            }
            assert!(colour || !lines.concat().contains('\u{3}'));
        }
    }

    #[test]
    fn of_several_answers_the_worse_row_is_told_once() {
        let all = vec![vec![("a", 1), ("b", 5)], vec![("b", 2), ("a", 3), ("c", 0)]];
        assert_eq!(merged(all, |row| row.0, |row| row.1), [("a", 3), ("b", 5), ("c", 0)]);
    }
}
