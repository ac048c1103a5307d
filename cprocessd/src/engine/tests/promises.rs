//! What holds for every history, random ones included.

use super::*;
use crate::engine::alarm::Phase;
use crate::engine::paths::Verdict;

/// A step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Up(u8),
    Down(u8),
    Retried(u8),
    Value(f64),
    Silent,
    Live,
    Goodbye,
    Restart,
    Pause,
    Wait(u8),
    /// Long enough for what flapped to be calm.
    Calm,
    /// Its host no longer reports it.
    Unreported(u8),
    /// The first so many are configured.
    Watches(u8),
    Forget,
    Beats(bool),
    /// Other rules.
    Reload(bool),
    /// Down and up again, so many times.
    Flap(u8, u8),
    /// A router without a ccollectd, as web1 sees it.
    Router(bool),
    /// Its port, as web1 or db1 sees it.
    Port(u8, bool),
    Unobserved(u8),
    /// db1 lives, or not.
    Other(bool),
}

const RULES: [&str; 2] = ["*!machine.disk > 50 for 5s clear 40 WARN", "*!machine.disk:/other > 50 WARN"];

const OBSERVERS: [&str; 2] = ["web1", "db1"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..3u8).prop_map(Step::Up),
        (0..3u8).prop_map(Step::Down),
        (0..3u8).prop_map(Step::Retried),
        (0.0..100.0).prop_map(Step::Value),
        Just(Step::Silent),
        Just(Step::Live),
        Just(Step::Goodbye),
        Just(Step::Restart),
        Just(Step::Pause),
        (1..30u8).prop_map(Step::Wait),
        Just(Step::Calm),
        (0..3u8).prop_map(Step::Unreported),
        (0..4u8).prop_map(Step::Watches),
        Just(Step::Forget),
        any::<bool>().prop_map(Step::Beats),
        any::<bool>().prop_map(Step::Reload),
        any::<bool>().prop_map(Step::Router),
        (0..2u8, any::<bool>()).prop_map(|(from, up)| Step::Port(from, up)),
        (0..2u8).prop_map(Step::Unobserved),
        any::<bool>().prop_map(Step::Other),
        (0..3u8, 1..5u8).prop_map(|(n, times)| Step::Flap(n, times)),
    ];
    prop::collection::vec(step, 1..60)
}

fn history(steps: &[Step], restarts: bool) -> Timeline {
    let rules =
        |other: bool| settings(&[("disk", RULES[usize::from(other)]), ("no port", "*!port:p1 absent for 20s WARN")]);
    let mut timeline = Timeline::with(rules(false)).live("web1");
    for step in steps {
        // Two outages of one check within a millisecond would be one outage to every id.
        let secs = timeline.now_ms / 1000 + 1;
        timeline = timeline.at(secs);
        timeline = match step {
            Step::Up(n) => timeline.up(&format!("web1!port:p{n}")),
            Step::Down(n) => timeline.down(&format!("web1!port:p{n}")),
            Step::Retried(n) => timeline.retried(&format!("web1!port:p{n}")),
            Step::Value(value) => timeline.value(DISK, *value),
            Step::Silent => timeline.silent("web1"),
            Step::Live => timeline.live("web1"),
            Step::Goodbye => timeline.goodbye("web1"),
            Step::Restart if restarts => timeline.restart(),
            Step::Restart => timeline,
            Step::Pause => timeline.paused_until(secs + 60),
            Step::Wait(n) => timeline.at(secs + u64::from(*n)),
            Step::Calm => timeline.at(secs + 310),
            Step::Unreported(n) => timeline.unreported(&format!("web1!port:p{n}")),
            Step::Watches(n) => {
                let addresses = ["web1!port:p0", "web1!port:p1", "web1!port:p2"];
                let (watched, dropped) = addresses.split_at(usize::from(*n));
                dropped.iter().fold(timeline, |timeline, address| timeline.unreported(address)).watches("web1", watched)
            }
            Step::Forget => {
                let repeated: Vec<_> = timeline.repeated.keys().cloned().collect();
                let timeline = repeated.iter().fold(timeline, |timeline, address| timeline.unreported(address));
                timeline.forget("web1!port", &format!("p{secs}")).forget("web1!machine", &format!("m{secs}"))
            }
            Step::Beats(beating) => Timeline { beating: *beating, ..timeline },
            Step::Router(up) => timeline.observed("web1", "router1!alive:", *up),
            Step::Port(from, up) => timeline.observed(OBSERVERS[usize::from(*from)], "router1!port:ssh", *up),
            Step::Unobserved(from) => timeline.unobserved(OBSERVERS[usize::from(*from)], "router1!port:ssh"),
            Step::Other(true) => timeline.live("db1"),
            Step::Other(false) => timeline.silent("db1"),
            Step::Reload(other) => timeline.reload(rules(*other)),
            Step::Flap(n, times) => (0..u64::from(*times) * 2)
                .fold(timeline, |timeline, i| timeline.at(secs + i).check(&format!("web1!port:p{n}"), i % 2 == 1, 0)),
        };
    }
    timeline
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever heard of a beginning hears of the end, nobody hears of an end alone, and what is open is what was begun.
    #[test]
    fn beginnings_and_ends_alternate(steps in steps()) {
        let timeline = history(&steps, true);
        let mut open = BTreeMap::new();
        for draft in &timeline.drafts {
            let key = (draft.address.to_string(), draft.rule.clone());
            match draft.kind {
                Kind::Down | Kind::Alarm | Kind::Absent => {
                    prop_assert!(open.insert(key, draft.incident).is_none(), "opened twice: {draft:?}");
                }
                Kind::Solved | Kind::Retired => prop_assert_eq!(open.remove(&key), Some(draft.incident)),
                Kind::Up if draft.duration_ms.is_some() => prop_assert_eq!(open.remove(&key), Some(draft.incident)),
                _ => {}
            }
        }
        let mut flapping = BTreeMap::new();
        for draft in timeline.drafts.iter().filter(|draft| draft.kind == Kind::Flapping) {
            match draft.duration_ms {
                None => prop_assert!(flapping.insert(&draft.address, draft.incident).is_none(), "flaps twice: {draft:?}"),
                Some(_) => prop_assert_eq!(flapping.remove(&draft.address), Some(draft.incident)),
            }
        }
        let listed: Vec<_> = timeline.engine.down_list().into_iter().map(|row| ((row.address.to_string(), row.rule), row.incident)).collect();
        prop_assert_eq!(open, listed.into_iter().collect::<BTreeMap<_, _>>());
    }

    /// No id is used twice, and equal input makes equal ids.
    #[test]
    fn ids_are_unique_and_reproducible(steps in steps()) {
        let (one, other) = (history(&steps, true), history(&steps, true));
        prop_assert_eq!(&one.drafts, &other.drafts);
        let mut ids = BTreeSet::new();
        for draft in &one.drafts {
            prop_assert!(ids.insert(draft.id), "{draft:?}");
        }
    }

    /// What is kept for the next start is what is so now, and every rule's view of a number or check is that of its incident.
    #[test]
    fn what_is_saved_and_what_is_watched_agree_with_what_is_open(steps in steps()) {
        let timeline = history(&steps, true);
        let engine = &timeline.engine;
        let (mut open, mut pending, mut checks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for saved in timeline.saved.iter().cloned() {
            match saved {
                Saved::Incident(key, Some(incident)) => drop(open.insert(key, incident)),
                Saved::Pending(key, Some(since)) => drop(pending.insert(key, since)),
                Saved::Check(address, Some(check)) => drop(checks.insert(address, check.up)),
                _ => {}
            }
        }
        prop_assert_eq!(&open, &engine.incidents.iter().map(|(key, incident)| (key.clone(), incident.clone())).collect());
        prop_assert_eq!(&pending, &engine.pending);
        prop_assert_eq!(checks, engine.checks.iter().map(|(address, check)| (address.clone(), check.up)).collect());
        for group in engine.numbers.hosts().flat_map(|host| engine.numbers.of_host(host)) {
            for (rule, attribute, watched) in group.phases() {
                let key = Key { address: group.address(attribute), rule: engine.settings.rules[rule].name.clone() };
                let phase = match (open.contains_key(&key), pending.get(&key)) {
                    (true, None) => Phase::Open,
                    (false, Some(since)) => Phase::Pending(*since),
                    (false, None) => Phase::Fine,
                    (true, Some(_)) => panic!("{key:?} is open and pending"),
                };
                prop_assert_eq!(watched, phase, "{:?}", key);
            }
        }
        for (address, check) in &engine.checks {
            for watch in &check.watches {
                let rule = engine.settings.rules[watch.rule].name.clone();
                let key = Key { address: address.clone().into(), rule };
                prop_assert_eq!(watch.open, open.contains_key(&key), "{:?}", key);
            }
        }
    }

    /// What a restart forgets is nothing that anyone is told of.
    #[test]
    fn a_restart_changes_no_incident_of_a_check(steps in steps()) {
        // Liveness, and so what can be reached, staleness and alarms depend on when we looked; what was observed up and down
        // does not.
        let checks = |timeline: &Timeline| -> Vec<Draft> {
            // So does whose vote counts.
            let of_web1 = |d: &Draft| d.address.host().as_str() == "web1" && d.address.service().as_str() == "port";
            let observed = |d: &&Draft| of_web1(d) && matches!(d.kind, Kind::Down | Kind::Up | Kind::Flapping);
            let reachable = |draft: &Draft| Draft { suppressed_by: Vec::new(), ..draft.clone() };
            timeline.drafts.iter().filter(observed).map(reachable).collect()
        };
        prop_assert_eq!(checks(&history(&steps, true)), checks(&history(&steps, false)));
    }

    /// What is looked at only when it may be overdue is never overlooked.
    #[test]
    fn nothing_overdue_is_overlooked(steps in steps()) {
        let timeline = history(&steps, true);
        let secs = timeline.now_ms / 1000 + 1;
        let timeline = timeline.at(secs);
        let engine = &timeline.engine;
        prop_assert_eq!(engine.last_scan, engine.attention);
        for (name, host) in &engine.hosts {
            let verdict = engine.verdict(name, host);
            let fine = matches!(verdict, Verdict::Fine { .. } | Verdict::Wait { .. } | Verdict::Never);
            // Nobody can tell either way, so it is no hurry to say so.
            let silence = engine.attention.saturating_sub(host.heard_at);
            let blind = matches!(verdict, Verdict::Blind { .. })
                && (host.state == State::Unknown || silence <= host.tuning.host_down_after);
            prop_assert!(fine || blind, "{name} {verdict:?} {:?}", host.state);
        }
        for (address, check) in &engine.checks {
            prop_assert!(!engine.is_overlooked(address, check), "{address} {check:?}");
        }
    }
}
