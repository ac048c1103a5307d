//! What holds for every history, random ones included.

use super::*;

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
}

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
    ];
    prop::collection::vec(step, 1..60)
}

fn history(steps: &[Step], restarts: bool) -> Timeline {
    let mut timeline = Timeline::with(settings(&[("disk", "*!machine.disk > 50 for 5s clear 40 WARN")])).live("web1");
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

    /// What a restart forgets is nothing that anyone is told of.
    #[test]
    fn a_restart_changes_no_incident_of_a_check(steps in steps()) {
        // Liveness, staleness and alarms depend on when we looked; what was observed up and down does not.
        let checks = |timeline: &Timeline| -> Vec<Draft> {
            let observed = |d: &&Draft| matches!(d.kind, Kind::Down | Kind::Up) && d.address.service().as_str() == "port";
            timeline.drafts.iter().filter(observed).cloned().collect()
        };
        prop_assert_eq!(checks(&history(&steps, true)), checks(&history(&steps, false)));
    }
}
