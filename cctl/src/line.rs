//! An event as a line, for people.

use crate::text::{Ink, Tint, escape};
use common::message::{Event, Kind};
use common::number;
use cprocessd::engine::RESERVED;
use std::time::Duration;

/// A trouble that was seen this much later than it began says when it began.
const WORTH_A_DATE_MS: u64 = 60_000;

/// `2026-11-21 05:45:06 [ DOWN ]    ERR   web1!port:www (443)  connection refused`, with its end.
pub(crate) fn line(ink: Ink, event: &Event) -> String {
    let tag = format!("{:<11}", format!("[ {} ]", event.kind.to_string().to_uppercase()));
    let severity = format!("{:<5}", event.severity);
    let mut line = format!(
        "{} {} {} {}",
        event.time.local(),
        ink.paint(tint_of(event), &tag),
        ink.paint(event.severity.into(), &severity),
        ink.paint(Tint::Strong, &escape(&event.address.to_string()))
    );
    for detail in details(event) {
        line += "  ";
        line += &escape(&detail);
    }
    line.push('\n');
    line
}

/// Good news is green whatever its severity; the rest is as bad as it is.
fn tint_of(event: &Event) -> Tint {
    match event.kind {
        Kind::Up | Kind::Solved | Kind::Started => Tint::Good,
        Kind::Down
        | Kind::Blip
        | Kind::Alarm
        | Kind::Absent
        | Kind::Retired
        | Kind::Log
        | Kind::Stopped
        | Kind::Flapping
        | Kind::Persistent
        | Kind::Revealed
        | Kind::Watchdog
        | Kind::Ack
        | Kind::Silence
        | Kind::Order
        | Kind::Other => event.severity.into(),
    }
}

/// A rule that a person may want to look up, and no word of cprocessd's own, as `initial`.
fn rule_of(event: &Event) -> Option<&str> {
    let is_own = RESERVED.contains(&event.rule.as_str());
    (!is_own).then_some(event.rule.as_str())
}

fn details(event: &Event) -> Vec<String> {
    let mut details = Vec::new();
    if let Some(duration_ms) = event.duration_ms {
        details.push(format!("after {}", common::time::for_people(Duration::from_millis(duration_ms))));
    } else if event.time.millis_since(event.since) >= WORTH_A_DATE_MS {
        details.push(format!("since {}", event.since.local()));
    }
    if !event.text.is_empty() {
        details.push(event.text.clone());
    } else if let Some(value) = event.value {
        details.push(number::for_people(value));
    }
    details.extend(rule_of(event).map(|rule| format!("(rule {rule})")));
    if !event.suppressed_by.is_empty() {
        details.push(format!("(not told: {})", event.suppressed_by.join(", ")));
    }
    details
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use common::message::{Epoch, EventId, IncidentId, State};
    use common::severity::Severity;
    use common::time::UnixMillis;

    const PLAIN: Ink = Ink { colour: false, now: UnixMillis(0) };
    const TIME: UnixMillis = UnixMillis(1_795_236_306_000);

    /// Something that happened at [`TIME`].
    pub(crate) fn event(kind: Kind, severity: Severity, address: &str, text: &str) -> Event {
        let address: common::address::Address = address.parse().expect("an address");
        let incident = IncidentId::new(&address, "check", TIME);
        Event {
            epoch: Epoch::try_from("e1".to_owned()).expect("an epoch"),
            seq: 7,
            nth: 1,
            id: EventId::new(incident, kind, 1),
            incident,
            kind,
            host: address.host().clone(),
            service: address.service().clone(),
            unit: address.unit().clone(),
            address,
            severity,
            top_severity: severity,
            state: State::Down,
            since: TIME,
            time: TIME,
            text: text.to_owned(),
            value: None,
            rule: "check".to_owned(),
            step: None,
            suppressed_by: Vec::new(),
            duration_ms: None,
            data: None,
        }
    }

    /// The line without its date, which depends on the time zone of the test.
    #[track_caller]
    fn shown(event: &Event) -> String {
        let line = line(PLAIN, event);
        let rest = line.strip_prefix(&TIME.local()).expect("the local time first");
        rest.trim_start().to_owned()
    }

    #[test]
    fn each_kind_has_its_line() {
        let port = "web1!port:www (443)";
        let disk = "web1!machine.disk:/.used_percentage";
        let mut lines = Vec::new();
        lines.push(shown(&event(Kind::Down, Severity::Err, port, "connection refused")));
        let up =
            Event { duration_ms: Some(243_000), rule: "initial".into(), ..event(Kind::Up, Severity::Info, port, "") };
        lines.push(shown(&up));
        lines.push(shown(&event(Kind::Blip, Severity::Warn, port, "2 retries")));
        let number_of = |kind, severity, value, duration_ms| Event {
            value: Some(value),
            rule: "disk".into(),
            duration_ms,
            ..event(kind, severity, disk, "")
        };
        lines.push(shown(&number_of(Kind::Alarm, Severity::Crit, 96.5, None)));
        lines.push(shown(&number_of(Kind::Solved, Severity::Info, 80.0, Some(3_600_000))));
        for kind in [Kind::Absent, Kind::Retired, Kind::Log, Kind::Started, Kind::Stopped, Kind::Order, Kind::Other] {
            lines.push(shown(&event(kind, Severity::Debug, "web1!alive:", "why")));
        }
        assert_eq!(
            lines.concat(),
            "\
[ DOWN ]    ERR   web1!port:www (443)  connection refused
[ UP ]      INFO  web1!port:www (443)  after 4m 3s
[ BLIP ]    WARN  web1!port:www (443)  2 retries
[ ALARM ]   CRIT  web1!machine.disk:/.used_percentage  96.5  (rule disk)
[ SOLVED ]  INFO  web1!machine.disk:/.used_percentage  after 1h 0m  80  (rule disk)
[ ABSENT ]  DEBUG web1!alive:  why
[ RETIRED ] DEBUG web1!alive:  why
[ LOG ]     DEBUG web1!alive:  why
[ STARTED ] DEBUG web1!alive:  why
[ STOPPED ] DEBUG web1!alive:  why
[ ORDER ]   DEBUG web1!alive:  why
[ OTHER ]   DEBUG web1!alive:  why
"
        );
    }

    #[test]
    fn a_trouble_seen_late_says_since_when() {
        let late = Event { since: UnixMillis(TIME.0 - 600_000), ..event(Kind::Down, Severity::Err, "web1!port:x", "") };
        assert!(shown(&late).ends_with(&format!("web1!port:x  since {}\n", late.since.local())));
    }

    #[test]
    fn a_log_line_cannot_paint_the_terminal() {
        let evil = event(Kind::Log, Severity::Warn, "web1!log:syslog", "\x1b[2J\nforged [ UP ]");
        assert_eq!(shown(&evil), "[ LOG ]     WARN  web1!log:syslog  \\u{1b}[2J\\nforged [ UP ]\n");
    }

    #[test]
    fn colour_adds_to_the_words() {
        let ink = Ink { colour: true, ..PLAIN };
        let line = line(ink, &event(Kind::Up, Severity::Info, "web1!port:x", ""));
        assert!(line.contains("\x1b[32m[ UP ]     \x1b[0m \x1b[32mINFO \x1b[0m"), "{line:?}");
    }
}
