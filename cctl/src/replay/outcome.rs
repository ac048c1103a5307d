//! What a replay has come to: the incidents that would have been, and how often each rule would have spoken.

use crate::recording::Broken;
use crate::show::{Show, paragraph, section, severity};
use crate::text::{Cell, Ink, Table, Tint, counted, escape};
use common::message::{AlarmRow, IncidentId, Kind};
use common::severity::Severity;
use common::time::UnixMillis;
use cprocessd::engine::Draft;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

/// Incidents that are listed. Further ones are counted for their rule, and it is said how many they are.
const LISTED: usize = 10_000;

/// An incident that would have been.
#[derive(Clone, Debug, Serialize)]
struct Row {
    incident: IncidentId,
    address: String,
    rule: String,
    /// The worst it was.
    severity: Severity,
    /// The time of its first bad observation.
    since: UnixMillis,
    /// When it would have been told.
    raised: UnixMillis,
    /// Absent while it is open.
    duration_ms: Option<u64>,
    text: String,
    /// Why it would not have been told.
    suppressed_by: Vec<String>,
}

/// What a rule would have raised.
#[derive(Clone, Debug, Default, Serialize)]
struct Sum {
    name: String,
    /// As written; absent for what cprocessd judges by itself.
    rule: Option<String>,
    severity: Option<Severity>,
    /// How many numbers or checks it looks at.
    matches: u64,
    raised: u64,
    open: u64,
    /// Of those that ended, and of the open ones until the end of the recording.
    total_ms: u64,
    longest_ms: u64,
}

/// What the engine has said so far.
#[derive(Debug, Default)]
pub(super) struct Story {
    rows: Vec<Row>,
    unlisted: u64,
    /// What is open, and its place in `rows` if it has one.
    open: HashMap<IncidentId, (Row, Option<usize>)>,
    sums: BTreeMap<String, Sum>,
    /// What neither begins nor ends an incident.
    said: BTreeMap<String, u64>,
    messages: u64,
    undecodable: u64,
}

impl Story {
    pub(super) fn count_message(&mut self) {
        self.messages += 1;
    }

    /// Whether it is the first.
    pub(super) fn count_undecodable(&mut self) -> bool {
        self.undecodable += 1;
        self.undecodable == 1
    }

    /// The engine would have said this.
    pub(super) fn take(&mut self, draft: Draft) {
        if let Some(duration_ms) = draft.duration_ms {
            self.close(&draft, duration_ms);
            return;
        }
        match draft.kind {
            Kind::Down | Kind::Alarm | Kind::Absent => self.open(draft),
            // The first sight of something that is up is said, but told to nobody.
            Kind::Up => {}
            other => *self.said.entry(other.to_string()).or_default() += 1,
        }
    }

    fn open(&mut self, draft: Draft) {
        let sum = self.sums.entry(draft.rule.clone()).or_default();
        sum.raised += 1;
        let row = Row {
            incident: draft.incident,
            address: draft.address.to_string(),
            rule: draft.rule,
            severity: draft.top_severity,
            since: draft.since,
            raised: draft.time,
            duration_ms: None,
            text: draft.text,
            suppressed_by: draft.suppressed_by,
        };
        let place = (self.rows.len() < LISTED).then_some(self.rows.len());
        match place {
            Some(_) => self.rows.push(row.clone()),
            None => self.unlisted += 1,
        }
        self.open.insert(row.incident, (row, place));
    }

    fn close(&mut self, draft: &Draft, duration_ms: u64) {
        let Some((row, place)) = self.open.remove(&draft.incident) else { return };
        self.sums.entry(row.rule).or_default().lasted(duration_ms);
        if let Some(row) = place.and_then(|place| self.rows.get_mut(place)) {
            row.duration_ms = Some(duration_ms);
            row.severity = row.severity.max(draft.top_severity);
        }
    }

    /// The whole of it. With `only_rules` what cprocessd judges by itself is left out.
    pub(super) fn end(
        mut self,
        file: &Path,
        began: UnixMillis,
        lasted: Duration,
        rules: &[AlarmRow],
        only_rules: bool,
    ) -> Told {
        let ended = UnixMillis(began.0.saturating_add(i64::try_from(lasted.as_millis()).unwrap_or(i64::MAX)));
        for (row, _) in self.open.values() {
            let sum = self.sums.entry(row.rule.clone()).or_default();
            sum.open += 1;
            sum.lasted(ended.millis_since(row.since));
        }
        let mut sums: Vec<Sum> = Vec::new();
        for rule in rules {
            let sum = self.sums.remove(&rule.name).unwrap_or_default();
            let (name, text) = (rule.name.clone(), Some(rule.rule.clone()));
            sums.push(Sum { name, rule: text, severity: Some(rule.severity), matches: rule.matches, ..sum });
        }
        if only_rules {
            self.rows.retain(|row| rules.iter().any(|rule| rule.name == row.rule));
            self.said.clear();
        } else {
            sums.extend(self.sums.into_iter().map(|(name, sum)| Sum { name, ..sum }));
        }
        Told {
            file: file.display().to_string(),
            began,
            ended,
            messages: self.messages,
            undecodable: self.undecodable,
            incidents: self.rows,
            unlisted: self.unlisted,
            rules: sums,
            said: self.said,
        }
    }
}

impl Sum {
    fn lasted(&mut self, ms: u64) {
        self.total_ms += ms;
        self.longest_ms = self.longest_ms.max(ms);
    }
}

/// What a replay came to.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    file: String,
    began: UnixMillis,
    ended: UnixMillis,
    /// What was recorded and taken.
    messages: u64,
    undecodable: u64,
    incidents: Vec<Row>,
    /// Those that are only counted.
    unlisted: u64,
    rules: Vec<Sum>,
    /// How often what neither begins nor ends an incident, by kind.
    said: BTreeMap<String, u64>,
}

impl Told {
    /// For programs, with how the file ends if it does before its end.
    pub(super) fn json(&self, broken: Option<&Broken>) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value["broken"] = broken.map_or(Value::Null, |broken| json!(broken.to_string()));
        value
    }
}

impl Show for Told {
    fn show(&self, ink: Ink) -> String {
        let mut text = format!(
            "{}: {} from {} to {}, {}\n\n",
            escape(&self.file),
            common::time::for_people(self.ended.since(self.began)),
            self.began.local(),
            self.ended.local(),
            counted(usize::try_from(self.messages).unwrap_or(usize::MAX), "message")
        );
        if self.incidents.is_empty() {
            text += "nothing would have been raised\n";
        } else {
            text += &self.incident_table(ink);
        }
        if self.unlisted > 0 {
            let more = format!("and {} more, which are only counted below\n", self.unlisted);
            text.push_str(&more);
        }
        if !self.rules.is_empty() {
            text += &section(ink, "by rule", &self.rules);
        }
        if !self.said.is_empty() {
            let said: Vec<String> = self.said.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            text += &paragraph(ink, "also said", said.into_iter());
        }
        text
    }
}

impl Told {
    fn incident_table(&self, ink: Ink) -> String {
        let mut table = Table::new(["SINCE", "RAISED", "FOR", "SEVERITY", "ADDRESS", "RULE", "TEXT", "NOT TOLD"]);
        for row in &self.incidents {
            let waited = row.raised.since(row.since);
            table.row([
                Cell::new(row.since.local()),
                Cell::new(if waited.is_zero() {
                    "at once".to_owned()
                } else {
                    format!("after {}", common::time::for_people(waited))
                }),
                match row.duration_ms {
                    Some(ms) => Cell::new(common::time::for_people(Duration::from_millis(ms))),
                    None => Cell::new("still open").tinted(Tint::Bad),
                },
                severity(row.severity),
                Cell::new(&row.address),
                Cell::new(if row.rule == "check" { "" } else { &row.rule }),
                Cell::new(&row.text),
                Cell::new(row.suppressed_by.join(", ")).tinted(Tint::Faint),
            ]);
        }
        table.render(ink)
    }
}

impl Show for Vec<Sum> {
    fn show(&self, ink: Ink) -> String {
        let mut table = Table::new(["RULE", "LOOKS AT", "RAISED", "STILL OPEN", "IN ALL", "LONGEST", "AS WRITTEN"]);
        for sum in self {
            let lasted = |ms: u64| if sum.raised == 0 { String::new() } else { people(ms) };
            let matches = match (&sum.rule, sum.matches) {
                (None, _) => Cell::new(""),
                // A rule that looks at nothing is the mistake to show.
                (Some(_), 0) => Cell::right("nothing").tinted(Tint::Doubtful),
                (Some(_), n) => Cell::right(n.to_string()),
            };
            table.row([
                Cell::new(&sum.name),
                matches,
                Cell::right(sum.raised.to_string()),
                Cell::right(if sum.open == 0 { String::new() } else { sum.open.to_string() }),
                Cell::right(lasted(sum.total_ms)),
                Cell::right(lasted(sum.longest_ms)),
                Cell::new(sum.rule.as_deref().unwrap_or("(up and down)")),
            ]);
        }
        table.render(ink)
    }
}

fn people(ms: u64) -> String {
    common::time::for_people(Duration::from_millis(ms))
}
