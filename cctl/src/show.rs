//! Answers as tables for people, and what each means for a script.

use crate::failure::Outcome;
use crate::notify::Row;
use crate::orders::RuleList;
use crate::text::{Cell, Ink, Table, Tint, bytes_for_people, counted, escape};
use common::message::{
    AlarmRow, Delivery, DownRow, Event, EventsPage, Explanation, Health, MaintenanceRow, Ordered, RuleView, ServerRow,
    ServerStatus, ServiceRow, SilenceRow, State, StreamSnapshot, SubscriberRow, ValueRow,
};
use common::number;
use common::severity::Severity;
use common::time::UnixMillis;

/// An answer that can be printed.
pub(crate) trait Show {
    /// The text, each line with its end.
    fn show(&self, ink: Ink) -> String;

    /// Whether the exit code should say that something is wrong.
    fn outcome(&self) -> Outcome {
        Outcome::Fine
    }
}

impl Show for Vec<ServerRow> {
    fn show(&self, ink: Ink) -> String {
        if self.is_empty() {
            return "no host is known yet: is ccollectd running?\n".to_owned();
        }
        let mut table = Table::new(["HOST", "STATE", "SINCE", "FOR", "LAST SEEN", "CHECKS", "OPEN", "WORST"]);
        for row in self {
            table.row([
                Cell::new(&row.host),
                state(row.state),
                Cell::new(row.since.local()),
                Cell::new(ink.age(row.since)),
                Cell::new(format!("{} ago", ink.age(row.last_seen))),
                Cell::right(row.checks.to_string()),
                Cell::right(row.open.to_string()),
                row.severity.map_or_else(|| Cell::new(""), severity),
            ]);
        }
        table.render(ink)
    }

    fn outcome(&self) -> Outcome {
        Outcome::from_trouble(self.iter().any(|row| row.state != State::Up || row.open > 0))
    }
}

impl Show for ServerStatus {
    fn show(&self, ink: Ink) -> String {
        let server = &self.server;
        let mut text = format!(
            "{} is {} since {} (for {}), last seen {} ago\n",
            ink.paint(Tint::Strong, &escape(server.host.as_str())),
            ink.paint(server.state.into(), &server.state.to_string()),
            server.since.local(),
            ink.age(server.since),
            ink.age(server.last_seen)
        );
        text += &section(ink, "open incidents", &self.incidents);
        text += &section(ink, "checks", &self.services);
        text += &section(ink, "last values", &self.values);
        text
    }

    fn outcome(&self) -> Outcome {
        let down = self.server.state != State::Up || self.services.iter().any(|row| row.state != State::Up);
        Outcome::from_trouble(down || self.server.open > 0 || !self.incidents.is_empty())
    }
}

impl Show for Vec<ServiceRow> {
    fn show(&self, ink: Ink) -> String {
        if self.is_empty() {
            return "no check is known; they are configured in ccollectd.toml\n".to_owned();
        }
        let mut table = Table::new(["CHECK", "STATE", "SINCE", "FOR", "TEXT"]);
        for row in self {
            table.row([
                Cell::new(format!("{}!{}:{}", row.host, row.service, row.unit)),
                state(row.state),
                Cell::new(row.since.local()),
                Cell::new(ink.age(row.since)),
                Cell::new(&row.text),
            ]);
        }
        table.render(ink)
    }

    fn outcome(&self) -> Outcome {
        Outcome::from_trouble(self.iter().any(|row| row.state != State::Up))
    }
}

impl Show for Vec<DownRow> {
    fn show(&self, ink: Ink) -> String {
        if self.is_empty() {
            return "nothing is down\n".to_owned();
        }
        let mut table = Table::new(["SEVERITY", "ADDRESS", "RULE", "SINCE", "FOR", "MARKS", "TEXT"]);
        for row in self {
            let marks = [(row.acked, "acked"), (row.silenced, "silenced"), (row.unreachable, "unreachable")];
            let mut marks: Vec<&str> = marks.into_iter().filter_map(|(set, word)| set.then_some(word)).collect();
            if marks.is_empty() && !row.suppressed_by.is_empty() {
                marks.push("not told");
            }
            table.row([
                severity(row.severity),
                Cell::new(row.address.to_string()),
                Cell::new(if row.rule == "check" { "" } else { &row.rule }),
                Cell::new(row.since.local()),
                Cell::new(ink.age(row.since)),
                Cell::new(marks.join(", ")),
                Cell::new(&row.text),
            ]);
        }
        table.render(ink)
    }

    fn outcome(&self) -> Outcome {
        Outcome::from_trouble(!self.is_empty())
    }
}

impl Show for Vec<ValueRow> {
    fn show(&self, ink: Ink) -> String {
        if self.is_empty() {
            return "no value\n".to_owned();
        }
        let mut table = Table::new(["ADDRESS", "VALUE", "TIME", "NOTE"]);
        for row in self {
            table.row([
                Cell::new(row.address.to_string()),
                Cell::right(number::for_people(row.value)),
                Cell::new(row.time.local()),
                if row.stale {
                    Cell::new(format!("stale for {}", ink.age(row.time))).tinted(Tint::Doubtful)
                } else {
                    Cell::new("")
                },
            ]);
        }
        table.render(ink)
    }
}

impl Show for Vec<AlarmRow> {
    fn show(&self, ink: Ink) -> String {
        if self.is_empty() {
            return "no alarm rule is set; they are configured in cprocessd.toml\n".to_owned();
        }
        let mut rules = Table::new(["ALARM", "SEVERITY", "STATE", "LOOKS AT", "RULE"]);
        let mut over = Table::new(["ALARM", "ADDRESS", "STATE", "VALUE", "SINCE", "FOR"]);
        for row in self {
            let open = row.active.iter().filter(|active| active.open).count();
            rules.row([
                Cell::new(&row.name),
                // How bad it would be is no news while it is quiet.
                if open > 0 { severity(row.severity) } else { Cell::new(row.severity.to_string()) },
                match (open, row.active.len()) {
                    (0, 0) => Cell::new("quiet").tinted(Tint::Good),
                    (0, n) => Cell::new(format!("{n} pending")).tinted(Tint::Doubtful),
                    (open, _) => Cell::new(format!("{open} open")).tinted(State::Open),
                },
                Cell::right(row.matches.to_string()),
                Cell::new(&row.rule),
            ]);
            for active in &row.active {
                over.row([
                    Cell::new(&row.name),
                    Cell::new(active.address.to_string()),
                    if active.open {
                        Cell::new("open").tinted(State::Open)
                    } else {
                        Cell::new("pending").tinted(Tint::Doubtful)
                    },
                    Cell::right(active.value.map_or_else(|| "absent".to_owned(), number::for_people)),
                    Cell::new(active.since.local()),
                    Cell::new(ink.age(active.since)),
                ]);
            }
        }
        let mut text = rules.render(ink);
        if self.iter().any(|row| !row.active.is_empty()) {
            text += "\nover the limit:\n";
            text += &over.render(ink);
        }
        text
    }

    fn outcome(&self) -> Outcome {
        Outcome::from_trouble(self.iter().flat_map(|row| &row.active).any(|active| active.open))
    }
}

impl Show for EventsPage<Event> {
    fn show(&self, ink: Ink) -> String {
        let mut text: String = self.events.iter().map(|event| crate::line::line(ink, event)).collect();
        match self.events.last() {
            None => text = format!("no such event; the newest is number {}\n", self.head_seq),
            Some(last) if last.seq < self.head_seq => {
                let more = format!("there are more, up to {}: cctl events --after {}\n", self.head_seq, last.seq);
                text += &ink.paint(Tint::Faint, &more);
            }
            Some(_) => {}
        }
        text
    }
}

impl Show for StreamSnapshot {
    fn show(&self, ink: Ink) -> String {
        let mut text = format!(
            "journal {}, up to event {}: {}, {}, {}\n",
            escape(self.epoch.as_str()),
            self.seq,
            counted(self.hosts.len(), "host"),
            counted(self.checks.len(), "check"),
            counted(self.incidents.len(), "open incident")
        );
        text += &section(ink, "hosts", &self.hosts);
        text += &section(ink, "checks", &self.checks);
        text += &section(ink, "open incidents", &self.incidents);
        text
    }
}

impl Show for Health {
    fn show(&self, ink: Ink) -> String {
        let uptime = common::time::for_people(std::time::Duration::from_secs(self.uptime_secs));
        let mut text = format!(
            "{} {} runs for {uptime}, {} resident (at most {})\n",
            ink.paint(Tint::Strong, &escape(&self.daemon)),
            escape(&self.version),
            bytes_for_people(self.rss_bytes),
            bytes_for_people(self.peak_rss_bytes)
        );
        if let Some(epoch) = &self.epoch {
            let journal = format!("journal {}, up to {}\n", escape(epoch.as_str()), self.head_seq);
            text.push_str(&journal);
        }
        if self.counters.is_empty() {
            return text + "nothing was refused, dropped or lost\n";
        }
        let mut table = Table::new(["COUNTED", "COUNT"]);
        for (name, count) in &self.counters {
            table.row([Cell::new(name), Cell::right(count.to_string())]);
        }
        text.push('\n');
        text + &table.render(ink)
    }
}

impl Show for Vec<Row> {
    fn show(&self, ink: Ink) -> String {
        if self.is_empty() {
            return "nobody was told of anything\n".to_owned();
        }
        let mut table = Table::new(["TIME", "WHO", "BY", "KIND", "SEVERITY", "ADDRESS", "STATE", "RESULT"]);
        for Row { daemon, row } in self {
            let tint = match row.state {
                Delivery::Sent => Tint::Good,
                Delivery::Failed => Tint::Bad,
                Delivery::Waiting | Delivery::Sending => Tint::Doubtful,
                Delivery::Dropped | Delivery::Skipped | Delivery::Other => Tint::Faint,
            };
            table.row([
                Cell::new(row.queued.local()),
                Cell::new(&row.who),
                Cell::new(format!("{daemon} {}", row.via)),
                Cell::new(row.kind.to_string()),
                severity(row.severity),
                Cell::new(row.address.to_string()),
                Cell::new(row.state.to_string()).tinted(tint),
                Cell::new(&row.result),
            ]);
        }
        table.render(ink)
    }
}

impl Show for Ordered {
    fn show(&self, ink: Ink) -> String {
        let done = if self.text.is_empty() { "done" } else { &self.text };
        let line = |address: &String| format!("  {}\n", ink.paint(Tint::Strong, &escape(address)));
        let addresses: String = self.addresses.iter().map(line).collect();
        format!("{}\n{addresses}", escape(done))
    }
}

impl Show for Vec<SilenceRow> {
    fn show(&self, ink: Ink) -> String {
        if self.is_empty() {
            return "nothing is silenced\n".to_owned();
        }
        let mut table = Table::new(["PATTERN", "UNTIL", "STILL", "OPEN", "BY", "SINCE", "REASON", "KIND", "ID"]);
        for row in self {
            table.row([
                Cell::new(&row.pattern),
                Cell::new(row.until.local()),
                Cell::new(common::time::for_people(row.until.since(ink.now))),
                Cell::right(row.open.to_string()),
                Cell::new(&row.author),
                Cell::new(row.since.local()),
                Cell::new(&row.reason),
                Cell::new(if row.maintenance { "maintenance" } else { "silence" }),
                Cell::new(&row.id).tinted(Tint::Faint),
            ]);
        }
        table.render(ink)
    }
}

impl Show for Vec<MaintenanceRow> {
    fn show(&self, ink: Ink) -> String {
        if self.is_empty() {
            return "no maintenance window is set; they are configured in cprocessd.toml, and cctl maintenance begins one now\n"
                .to_owned();
        }
        let mut windows = Table::new(["WINDOW", "STATE", "WHEN", "PATTERN"]);
        let mut next = Table::new(["WINDOW", "FROM", "TO", "IN", "LASTS"]);
        for row in self {
            windows.row([
                Cell::new(&row.name),
                match row.active_until {
                    Some(until) => Cell::new(format!("until {}", until.local())).tinted(Tint::Doubtful),
                    None => Cell::new(if row.next.is_empty() { "over" } else { "waiting" }).tinted(Tint::Faint),
                },
                Cell::new(&row.when),
                Cell::new(&row.pattern),
            ]);
            for (from, to) in &row.next {
                next.row([
                    Cell::new(&row.name),
                    Cell::new(from.local()),
                    Cell::new(to.local()),
                    Cell::new(common::time::for_people(from.since(ink.now))),
                    Cell::new(common::time::for_people(to.since(*from))),
                ]);
            }
        }
        let mut text = windows.render(ink);
        if self.iter().any(|row| !row.next.is_empty()) {
            let title = ink.paint(Tint::Faint, "next:");
            text.extend(["\n", &title, "\n", &next.render(ink)]);
        }
        text
    }
}

impl Show for Vec<SubscriberRow> {
    fn show(&self, ink: Ink) -> String {
        if self.is_empty() {
            return "nobody subscribed; the notifiers tell those of their configuration\n".to_owned();
        }
        let mut table = Table::new(["WHO", "VIA", "STATE", "FROM", "PATTERN", "BY", "SINCE"]);
        for row in self {
            table.row([
                Cell::new(&row.name),
                Cell::new(&row.via),
                Cell::new(if row.confirmed.is_some() { "confirmed" } else { "pending" }),
                severity(row.severity),
                Cell::new(&row.pattern),
                Cell::new(&row.author),
                Cell::new(row.since.local()),
            ]);
        }
        table.render(ink)
    }
}

impl Show for RuleList {
    fn show(&self, ink: Ink) -> String {
        if self.0.is_empty() {
            return "no alarm rule is set; cctl rule add makes one, or cprocessd.toml\n".to_owned();
        }
        let mut table = Table::new(["RULE", "FROM", "BY", "ADDED", "LOOKS AT", "AS WRITTEN"]);
        for row in &self.0 {
            table.row([
                Cell::new(&row.name),
                match row.origin.as_str() {
                    "order" => Cell::new("an order"),
                    "file" => Cell::new("the file"),
                    "default" => Cell::new("shipped").tinted(Tint::Faint),
                    other => Cell::new(other),
                },
                Cell::new(row.author.as_deref().unwrap_or_default()),
                Cell::new(row.added.map(UnixMillis::local).unwrap_or_default()),
                match row.matches {
                    0 => Cell::right("nothing").tinted(Tint::Doubtful),
                    n => Cell::right(n.to_string()),
                },
                Cell::new(&row.rule),
            ]);
        }
        table.render(ink)
    }
}

impl Show for Explanation {
    fn show(&self, ink: Ink) -> String {
        let since = |since: UnixMillis| format!(" since {} (for {})", since.local(), ink.age(since));
        let last = |last: &String| format!("last seen: {}\n", escape(last));
        let mut text = format!(
            "{} is {}{}\n{}",
            ink.paint(Tint::Strong, &escape(&self.address.to_string())),
            ink.paint(self.state.into(), &self.state.to_string()),
            self.since.map(since).unwrap_or_default(),
            self.last.as_ref().filter(|last| !last.is_empty()).map(last).unwrap_or_default(),
        );
        if !self.why.is_empty() {
            text += &paragraph(ink, "why", self.why.iter().map(|why| escape(why)));
        }
        if !self.incidents.is_empty() {
            text += &section(ink, "open incidents", &self.incidents);
        }
        text += &section(ink, "rules that look at it", &self.rules);
        text += &match self.suppressed_by.as_slice() {
            [] => "\nnothing keeps it from being told\n".to_owned(),
            causes => paragraph(ink, "not told because of", causes.iter().map(|cause| escape(cause))),
        };
        if self.depends_on.is_empty() {
            return text + "\nit depends on nothing\n";
        }
        let mut table = Table::new(["DEPENDS ON", "STATE"]);
        for (address, state) in &self.depends_on {
            table.row([Cell::new(address.to_string()), self::state(*state)]);
        }
        text.push('\n');
        text + &table.render(ink)
    }

    fn outcome(&self) -> Outcome {
        let is_fine = matches!(self.state, State::Up | State::Resolved);
        Outcome::from_trouble(!is_fine || !self.incidents.is_empty())
    }
}

impl Show for Vec<RuleView> {
    fn show(&self, ink: Ink) -> String {
        if self.is_empty() {
            return "none\n".to_owned();
        }
        let mut table = Table::new(["RULE", "STATE", "SINCE", "FOR", "AS WRITTEN"]);
        for row in self {
            let tint = match row.phase.as_str() {
                "fine" => Tint::Good,
                "open" => Tint::Bad,
                _ => Tint::Doubtful,
            };
            table.row([
                Cell::new(&row.name),
                Cell::new(&row.phase).tinted(tint),
                Cell::new(row.since.map(UnixMillis::local).unwrap_or_default()),
                Cell::new(row.since.map(|since| ink.age(since)).unwrap_or_default()),
                Cell::new(&row.rule),
            ]);
        }
        table.render(ink)
    }
}

/// Lines under their title, indented.
pub(crate) fn paragraph(ink: Ink, title: &str, lines: impl Iterator<Item = String>) -> String {
    let mut text = format!("\n{}\n", ink.paint(Tint::Faint, &format!("{title}:")));
    for line in lines {
        text.extend(["  ", &line, "\n"]);
    }
    text
}

/// A table under its title; the line about emptiness stands alone.
pub(crate) fn section<T: Show>(ink: Ink, title: &str, rows: &T) -> String {
    format!("\n{}\n{}", ink.paint(Tint::Faint, &format!("{title}:")), rows.show(ink))
}

fn state(state: State) -> Cell {
    Cell::new(state.to_string()).tinted(state)
}

/// In its colour.
pub(crate) fn severity(severity: Severity) -> Cell {
    Cell::new(severity.to_string()).tinted(severity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::message::{AlarmState, Epoch, EventId, IncidentId, Kind, LedgerRow};

    const NOW: UnixMillis = UnixMillis(1_795_236_306_000);
    const INK: Ink = Ink { colour: false, now: NOW };

    fn ago(secs: i64) -> UnixMillis {
        UnixMillis(NOW.0 - secs * 1000)
    }

    fn server(host: &str, state: State, open: u64) -> ServerRow {
        ServerRow {
            host: host.parse().expect("a host"),
            state,
            since: ago(243),
            last_seen: ago(1),
            severity: (open > 0).then_some(Severity::Err),
            checks: 3,
            open,
        }
    }

    fn service(unit: &str, state: State, text: &str) -> ServiceRow {
        ServiceRow {
            host: "web1".parse().expect("a host"),
            service: "port".parse().expect("a name"),
            unit: unit.parse().expect("a unit"),
            state,
            since: ago(243),
            text: text.to_owned(),
        }
    }

    fn down(address: &str) -> DownRow {
        let address: common::address::Address = address.parse().expect("an address");
        DownRow {
            incident: IncidentId::new(&address, "check", NOW),
            address,
            rule: "check".into(),
            kind: None,
            severity: Severity::Crit,
            since: ago(243),
            text: "refused\x1b[2J".into(),
            acked: true,
            silenced: false,
            unreachable: true,
            step: None,
            suppressed_by: Vec::new(),
        }
    }

    fn alarm(active: Vec<AlarmState>) -> AlarmRow {
        AlarmRow {
            name: "disk".into(),
            rule: "*!machine.disk:*.used_percentage > 90% ERR".into(),
            severity: Severity::Err,
            matches: 4,
            active,
            origin: "file".into(),
            author: None,
            added: None,
        }
    }

    fn over(open: bool) -> AlarmState {
        let address = "web1!machine.disk:/.used_percentage".parse().expect("an address");
        AlarmState { address, open, since: ago(243), value: Some(94.25) }
    }

    #[test]
    fn a_host_is_a_row() {
        let since = ago(243).local();
        assert_eq!(
            vec![server("web1", State::Up, 0), server("db1", State::Down, 2)].show(INK),
            format!(
                "HOST  STATE  SINCE                FOR    LAST SEEN  CHECKS  OPEN  WORST\n\
                 web1  up     {since}  4m 3s  1.0s ago        3     0\n\
                 db1   down   {since}  4m 3s  1.0s ago        3     2  ERR\n"
            )
        );
    }

    #[test]
    fn an_incident_shows_its_marks_and_cannot_clear_the_screen() {
        let since = ago(243).local();
        assert_eq!(
            vec![down("web1!port:www (443)")].show(INK),
            format!(
                "SEVERITY  ADDRESS              SINCE                FOR    MARKS               TEXT\n\
                 CRIT      web1!port:www (443)  {since}  4m 3s  acked, unreachable  refused\\u{{1b}}[2J\n"
            )
        );
    }

    #[test]
    fn an_alarm_shows_its_rule_and_what_is_over_it() {
        let text = vec![alarm(vec![over(true), over(false)])].show(INK);
        assert!(
            text.contains("disk   ERR       1 open         4  *!machine.disk:*.used_percentage > 90% ERR\n"),
            "{text}"
        );
        assert!(text.contains("disk   web1!machine.disk:/.used_percentage  open     94.25"), "{text}");
        assert!(text.contains("disk   web1!machine.disk:/.used_percentage  pending  94.25"), "{text}");
    }

    #[test]
    fn nothing_is_said_in_words() {
        let lines = [
            Vec::<ServerRow>::new().show(INK),
            Vec::<ServiceRow>::new().show(INK),
            Vec::<DownRow>::new().show(INK),
            Vec::<ValueRow>::new().show(INK),
            Vec::<AlarmRow>::new().show(INK),
            Ordered::default().show(INK),
            Vec::<SilenceRow>::new().show(INK),
            Vec::<MaintenanceRow>::new().show(INK),
            Vec::<SubscriberRow>::new().show(INK),
            RuleList(vec![]).show(INK),
            Vec::<RuleView>::new().show(INK),
        ];
        assert!(lines.iter().all(|line| line.len() > 4 && line.ends_with('\n')), "{lines:?}");
        assert_eq!(lines[0], "no host is known yet: is ccollectd running?\n");
        assert_eq!(lines[2], "nothing is down\n");
    }

    #[test]
    fn an_explanation_reads_from_the_state_to_its_causes() {
        let explanation = Explanation {
            address: "web1!machine.disk:/.used_percentage".parse().expect("an address"),
            state: State::Open,
            since: Some(ago(243)),
            why: vec!["94.25 is above 90, the limit of the rule disk, for longer than 1m".into()],
            last: Some("94.25".into()),
            incidents: vec![DownRow {
                rule: "disk".into(),
                text: "94.25 > 90".into(),
                acked: false,
                unreachable: false,
                silenced: true,
                ..down("web1!machine.disk:/.used_percentage")
            }],
            rules: vec![
                RuleView {
                    name: "disk".into(),
                    rule: "*!machine.disk:*.used_percentage > 90% for 1m WARN".into(),
                    phase: "open".into(),
                    since: Some(ago(243)),
                },
                RuleView {
                    name: "disk full".into(),
                    rule: "*!machine.disk:*.used_percentage > 97% ERR".into(),
                    phase: "fine".into(),
                    since: None,
                },
            ],
            suppressed_by: vec!["silence:4711".into()],
            depends_on: vec![("web1!alive:".parse().expect("an address"), State::Up)],
        };
        let since = ago(243).local();
        assert_eq!(
            explanation.show(INK),
            format!(
                "web1!machine.disk:/.used_percentage is open since {since} (for 4m 3s)\n\
                 last seen: 94.25\n\
                 \n\
                 why:\n  94.25 is above 90, the limit of the rule disk, for longer than 1m\n\
                 \n\
                 open incidents:\n\
                 SEVERITY  ADDRESS                              RULE  SINCE                FOR    MARKS     TEXT\n\
                 CRIT      web1!machine.disk:/.used_percentage  disk  {since}  4m 3s  silenced  94.25 > 90\n\
                 \n\
                 rules that look at it:\n\
                 RULE       STATE  SINCE                FOR    AS WRITTEN\n\
                 disk       open   {since}  4m 3s  *!machine.disk:*.used_percentage > 90% for 1m WARN\n\
                 disk full  fine                               *!machine.disk:*.used_percentage > 97% ERR\n\
                 \n\
                 not told because of:\n  silence:4711\n\
                 \n\
                 DEPENDS ON   STATE\nweb1!alive:  up\n"
            )
        );
        assert_eq!(explanation.outcome(), Outcome::Trouble);
        let fine = Explanation {
            state: State::Up,
            since: None,
            why: vec![],
            last: None,
            incidents: vec![],
            rules: vec![],
            suppressed_by: vec![],
            depends_on: vec![],
            ..explanation
        };
        assert_eq!(
            fine.show(INK),
            "web1!machine.disk:/.used_percentage is up\n\nrules that look at it:\nnone\n\n\
             nothing keeps it from being told\n\nit depends on nothing\n"
        );
        assert_eq!(fine.outcome(), Outcome::Fine);
    }

    #[test]
    fn what_people_ordered_shows_who_and_until_when() {
        let silence = SilenceRow {
            id: "4711".into(),
            pattern: "web*".into(),
            until: UnixMillis(NOW.0 + 5_400_000),
            since: ago(60),
            author: "anna".into(),
            reason: "new disks\x1b[2J".into(),
            maintenance: false,
            open: 2,
        };
        let (until, since) = (silence.until.local(), silence.since.local());
        assert_eq!(
            vec![silence].show(INK),
            format!(
                "PATTERN  UNTIL                STILL   OPEN  BY    SINCE                REASON              KIND     ID\n\
                 web*     {until}  1h 30m     2  anna  {since}  new disks\\u{{1b}}[2J  silence  4711\n"
            )
        );
        let window = MaintenanceRow {
            name: "backup".into(),
            pattern: "db*".into(),
            when: "daily 02:00-03:00 Europe/Berlin".into(),
            active_until: None,
            next: vec![(UnixMillis(NOW.0 + 3_600_000), UnixMillis(NOW.0 + 7_200_000))],
        };
        let text = vec![window].show(INK);
        assert!(text.contains("backup  waiting  daily 02:00-03:00 Europe/Berlin  db*\n"), "{text}");
        assert!(text.contains("1h 0m  1h 0m\n"), "{text}");
        let ordered =
            AlarmRow { origin: "order".into(), author: Some("anna".into()), added: Some(ago(60)), ..alarm(vec![]) };
        let text = RuleList(vec![alarm(vec![]), ordered]).show(INK);
        assert!(text.contains("disk  the file ") && text.contains("disk  an order  anna"), "{text}");
        let row = SubscriberRow {
            name: "anna".into(),
            via: "mail".into(),
            severity: Severity::Err,
            pattern: "*".into(),
            author: "anna".into(),
            since: ago(60),
            confirmed: None,
        };
        assert!(vec![row.clone()].show(INK).contains("anna  mail  pending  ERR   *        anna"));
        let agreed = SubscriberRow { confirmed: Some(ago(30)), ..row };
        assert!(vec![agreed].show(INK).contains("anna  mail  confirmed  ERR   *        anna"));
    }

    #[test]
    fn a_status_and_a_snapshot_show_all_their_parts() {
        let status = ServerStatus {
            server: server("web1", State::Up, 0),
            services: vec![service("www", State::Up, "")],
            incidents: vec![],
            values: vec![ValueRow {
                address: "web1!machine.cpu:all.load".parse().expect("an address"),
                value: 0.5,
                time: ago(90),
                stale: true,
            }],
        };
        let text = status.show(INK);
        assert!(text.starts_with(&format!("web1 is up since {} (for 4m 3s), last seen 1.0s ago\n", ago(243).local())));
        for part in ["nothing is down", "web1!port:www", "web1!machine.cpu:all.load    0.5", "stale for 1m 30s"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let snapshot = StreamSnapshot {
            epoch: Epoch::random(),
            seq: 9,
            hosts: vec![server("web1", State::Up, 0)],
            checks: vec![],
            incidents: vec![down("web1!port:x")],
        };
        assert!(snapshot.show(INK).contains("up to event 9: 1 host, 0 checks, 1 open incident\n"));
    }

    #[test]
    fn health_shows_its_counters() {
        let health = Health {
            daemon: "cprocessd".into(),
            version: "0.1.0".into(),
            epoch: None,
            head_seq: 0,
            rss_bytes: 11 << 20,
            peak_rss_bytes: (11 << 20) + (1 << 19),
            databases: Vec::new(),
            uptime_secs: 62,
            counters: [("query.undecodable".to_owned(), 3)].into(),
        };
        assert_eq!(
            health.show(INK),
            "cprocessd 0.1.0 runs for 1m 2s, 11.0 MiB resident (at most 11.5 MiB)\n\n\
             COUNTED            COUNT\nquery.undecodable      3\n"
        );
    }

    #[test]
    fn the_ledger_shows_what_became_of_each() {
        let row = LedgerRow {
            item: 1,
            who: "ops".into(),
            via: "smtp".into(),
            queued: ago(60),
            kind: Kind::Down,
            address: "web1!port:www".parse().expect("an address"),
            severity: Severity::Err,
            incident: IncidentId::new(&"web1!port:www".parse().expect("an address"), "check", NOW),
            event: EventId::of_origin("a", "b"),
            text: "refused".into(),
            state: Delivery::Failed,
            changed: ago(50),
            attempts: 1,
            again: 0,
            message: None,
            result: "550 no such user".into(),
        };
        let queued = ago(60).local();
        assert_eq!(
            vec![Row { daemon: "cmaild", row }].show(INK),
            format!(
                "TIME                 WHO  BY           KIND  SEVERITY  ADDRESS        STATE   RESULT\n\
                 {queued}  ops  cmaild smtp  down  ERR       web1!port:www  failed  550 no such user\n"
            )
        );
        assert_eq!(Vec::<Row>::new().show(INK), "nobody was told of anything\n");
    }

    #[test]
    fn trouble_is_what_a_script_should_hear_of() {
        assert_eq!(vec![server("a", State::Up, 0)].outcome(), Outcome::Fine);
        assert_eq!(vec![server("a", State::Up, 1)].outcome(), Outcome::Trouble);
        assert_eq!(vec![server("a", State::Unknown, 0)].outcome(), Outcome::Trouble);
        assert_eq!(vec![service("a", State::Up, "")].outcome(), Outcome::Fine);
        assert_eq!(vec![service("a", State::Unknown, "")].outcome(), Outcome::Trouble);
        assert_eq!(Vec::<DownRow>::new().outcome(), Outcome::Fine);
        assert_eq!(vec![down("a!b:c")].outcome(), Outcome::Trouble);
        assert_eq!(vec![alarm(vec![over(false)])].outcome(), Outcome::Fine);
        assert_eq!(vec![alarm(vec![over(true)])].outcome(), Outcome::Trouble);
    }
}
