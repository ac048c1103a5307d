//! What holds for every history in which something is not told for a while.

use super::*;
use crate::engine::dependency::{Dependencies, Dependency, target};
use crate::engine::ladder::Rung;
use crate::engine::window::{When, Window};
use common::address::Pattern;
use common::zone::{time_of_day, weekday};

/// What can be open. The first two are on a host that lives, the others are looked at from there.
const CHECKS: [&str; 5] = ["web1!port:www", "web1!port:sql", "router1!port:ssh", "uplink!port:x", "db1!port:sql"];
const PATTERNS: [&str; 4] = ["web1", "*!port:www", "router1", "*"];
/// Longer than any silence, acknowledgement and step of a history, and than what flaps has to be calm; and when the window is
/// over at the latest.
const QUIET_SECS: u64 = 400;
const WINDOW_OVER_SECS: u64 = 1450;

#[derive(Clone, Debug)]
enum Step {
    Up(usize),
    Down(usize),
    Silence(usize, u8),
    Unsilence,
    Ack(usize, Option<u8>),
    Unack(usize),
    Wait(u8),
    Host(bool),
    Restart,
    Forget(usize),
    /// Whether anything depends on anything.
    Reload(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (check, pattern) = (0..CHECKS.len(), 0..PATTERNS.len());
    let step = prop_oneof![
        4 => check.clone().prop_map(Step::Down),
        3 => check.prop_map(Step::Up),
        2 => (pattern.clone(), 1..200u8).prop_map(|(pattern, secs)| Step::Silence(pattern, secs)),
        1 => Just(Step::Unsilence),
        1 => (pattern.clone(), prop::option::of(1..200u8)).prop_map(|(pattern, secs)| Step::Ack(pattern, secs)),
        1 => pattern.clone().prop_map(Step::Unack),
        2 => (1..100u8).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Host),
        2 => Just(Step::Restart),
        1 => pattern.prop_map(Step::Forget),
        1 => any::<bool>().prop_map(Step::Reload),
    ];
    prop::collection::vec(step, 1..40)
}

/// A window of ten minutes begins at second 800, a ladder says more after one and three minutes.
fn world(depends: bool) -> Settings {
    let dependency = |pattern: &str, on: &str| Dependency {
        pattern: pattern.parse().expect("pattern"),
        on: vec![target(on).expect("check")],
    };
    let list = vec![dependency("web1", "router1!port:ssh"), dependency("router1!port", "uplink!port:x")];
    let window = Window {
        name: "night".into(),
        pattern: "db1".parse().expect("pattern"),
        when: When::Weekly {
            days: vec![weekday("weekly", "sun").expect("day")],
            at: time_of_day("at", "02:00").expect("time"),
            lasting: Duration::from_mins(10),
        },
        zone: "UTC".parse().expect("zone"),
    };
    let rung = |mins| Rung { after: Duration::from_mins(mins), severity: None, repeat: None };
    Settings {
        dependencies: if depends { Dependencies::new(list).expect("no circle") } else { Dependencies::default() },
        windows: vec![window],
        ladder: Ladder::new(vec![rung(1), rung(3)]).expect("in order"),
        ..settings(&[])
    }
}

/// The history up to its last step.
fn history(steps: &[Step], restarts: bool, hosts: bool) -> Timeline {
    let mut timeline = Timeline::with(world(true)).live("web1").at(700);
    let mut silences = Vec::new();
    for (n, step) in steps.iter().enumerate() {
        let secs = timeline.now_ms / 1000 + 1;
        timeline = timeline.at(secs);
        // As often as the host of those that are looked at from elsewhere would.
        let until = |more: u8| Some(wall((secs + u64::from(more)) * 1000));
        let pattern = |at: usize| Some(PATTERNS[at].to_owned());
        let id = format!("o{n}");
        timeline = match step {
            Step::Up(check) => timeline.up(CHECKS[*check]),
            Step::Down(check) => timeline.down(CHECKS[*check]),
            Step::Silence(at, more) => {
                silences.push(id.clone());
                let request = Request { pattern: pattern(*at), until: until(*more), ..Request::order("silence") };
                timeline.order(&id, request)
            }
            Step::Unsilence => match silences.pop() {
                Some(silence) => timeline.order(&id, Request { silence: Some(silence), ..Request::order("unsilence") }),
                None => timeline,
            },
            Step::Ack(at, more) => {
                let until = more.and_then(until);
                timeline.order(&id, Request { pattern: pattern(*at), until, ..Request::order("ack") })
            }
            Step::Unack(at) => timeline.order(&id, Request { pattern: pattern(*at), ..Request::order("unack") }),
            Step::Wait(more) => timeline.at(secs + u64::from(*more)),
            Step::Host(_) if !hosts => timeline,
            Step::Host(true) => timeline.live("web1"),
            Step::Host(false) => timeline.silent("web1"),
            // Whose restart takes a moment: what was due in it is said a little later.
            Step::Restart => if restarts { timeline.restart() } else { timeline }.at(secs + 5),
            Step::Forget(at) => {
                // Or it would be back at once, as the incident that it was.
                let pattern: Pattern = PATTERNS[*at].parse().expect("pattern");
                timeline.repeated.retain(|address, _| !pattern.matches(&address.parse().expect("address")));
                timeline.forget(PATTERNS[*at], &id)
            }
            Step::Reload(depends) => timeline.reload(world(*depends)),
        };
        observe_all(&mut timeline);
    }
    timeline
}

/// Those whose host is not live by itself are observed now.
fn observe_all(timeline: &mut Timeline) {
    for (address, (up, changed)) in timeline.repeated.clone() {
        if !address.starts_with("web1") {
            let message = timeline.check_message(&address.parse().expect("address"), up, changed, 0);
            timeline.apply(Input::Check(message));
        }
    }
}

/// Everything that suppresses ends: what is depended on is up, hosts live, silences and acknowledgements have passed.
fn quiet(timeline: Timeline) -> Timeline {
    let mut timeline = timeline.live("web1");
    for check in &CHECKS[2..4] {
        if timeline.repeated.contains_key(*check) {
            timeline = timeline.up(check);
        }
    }
    let after = timeline.now_ms / 1000;
    for patience in 1..5 {
        timeline = timeline.at(after + patience * 5);
        observe_all(&mut timeline);
    }
    // What was flapping is seen to be calm first, then what depends on it is observed anew.
    for patience in 0..4 {
        timeline = timeline.at(WINDOW_OVER_SECS.max(after + QUIET_SECS) + patience * 5);
        observe_all(&mut timeline);
    }
    let acked: BTreeSet<_> =
        timeline.engine.down_list().into_iter().filter(|row| row.acked).map(|row| row.incident).collect();
    for incident in acked {
        let request = Request { incident: Some(incident.to_string()), ..Request::order("unack") };
        timeline = timeline.order(&incident.to_string(), request);
    }
    timeline
}

fn tells_of_what_is_open(kind: Kind) -> bool {
    matches!(kind, Kind::Down | Kind::Alarm | Kind::Absent | Kind::Persistent | Kind::Revealed)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// Suppression delays telling and never drops it; and what is told is told with the step it has reached.
    #[test]
    fn in_the_end_everything_open_was_told(steps in steps()) {
        let timeline = quiet(history(&steps, true, true));
        let mut told = BTreeMap::new();
        for draft in timeline.drafts.iter().filter(|draft| tells_of_what_is_open(draft.kind) && draft.suppressed_by.is_empty()) {
            told.insert(draft.incident, draft.step);
        }
        for row in timeline.engine.down_list() {
            prop_assert!(row.suppressed_by.is_empty(), "{row:?}");
            prop_assert_eq!(told.get(&row.incident), Some(&row.step), "{:?}", row);
        }
    }

    /// What is revealed is open, and was not told of what it says before.
    #[test]
    fn what_is_revealed_is_open_and_news(steps in steps()) {
        let timeline = quiet(history(&steps, true, true));
        let (mut open, mut told) = (BTreeSet::new(), BTreeMap::new());
        for draft in &timeline.drafts {
            match draft.kind {
                Kind::Down | Kind::Alarm | Kind::Absent => {
                    open.insert(draft.incident);
                }
                _ if draft.duration_ms.is_some() => {
                    open.remove(&draft.incident);
                }
                Kind::Persistent | Kind::Revealed => prop_assert!(open.contains(&draft.incident), "{draft:?}"),
                _ => {}
            }
            if tells_of_what_is_open(draft.kind) && draft.suppressed_by.is_empty() {
                let before = told.insert(draft.incident, draft.step);
                prop_assert!(before.is_none_or(|before| before < draft.step), "told twice: {draft:?}");
            }
        }
    }

    /// A restart anywhere changes nothing that is said, and no id is used twice.
    #[test]
    fn a_restart_changes_nothing(steps in steps()) {
        let said = |timeline: &Timeline| -> Vec<_> {
            let said = timeline.drafts.iter().map(|draft| (draft.id, draft.kind, draft.step, draft.suppressed_by.clone()));
            said.collect()
        };
        let (with, without) = (history(&steps, true, false), history(&steps, false, false));
        prop_assert_eq!(said(&with), said(&without));
        let ids: BTreeSet<_> = with.drafts.iter().map(|draft| draft.id).collect();
        prop_assert_eq!(ids.len(), with.drafts.len());
        prop_assert_eq!(&history(&steps, true, false).drafts, &with.drafts);
    }

    /// What suppresses each incident is what would suppress it if it opened now, or it waits to be observed anew.
    #[test]
    fn what_suppresses_is_what_is_said_to(steps in steps()) {
        let timeline = history(&steps, true, true);
        let engine = &timeline.engine;
        let mut counted = BTreeMap::new();
        for (key, incident) in engine.incidents.iter() {
            for cause in &incident.suppressed_by {
                *counted.entry(cause.clone()).or_insert(0) += 1;
            }
            let causes = engine.causes(&key.address);
            if incident.recovered.is_none() {
                prop_assert_eq!(&incident.suppressed_by, &causes, "{:?}", key);
            } else {
                prop_assert!(causes.is_subset(&incident.suppressed_by), "{key:?}");
            }
        }
        for (cause, count) in counted {
            prop_assert_eq!(engine.suppression.count(&cause), count);
        }
        let kept = |saved: &&Saved| matches!(saved, Saved::Incident(_, Some(_)) | Saved::Silence(_, Some(_)));
        let open = engine.incidents.iter().count() + engine.silence_list().len();
        prop_assert_eq!(timeline.saved.iter().filter(kept).count(), open);
    }
}
