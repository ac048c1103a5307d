//! What is said again about an outage that lasts: the ladder.
//!
//! Each rung is said once the incident is so old, and again as often as it says, until the next rung. What was said is a
//! number, kept with the incident: the count of all rungs and repetitions so far. A restart, or a clock that jumps back, thus
//! says nothing twice, and who was away says the highest that has been reached and not all of them.

use common::config::HumanDuration;
use common::severity::Severity;
use std::time::Duration;

/// One rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Said when the incident is this old.
    pub after: Duration,
    /// The incident is at least this bad from then on.
    pub severity: Option<Severity>,
    /// And said again each time this has passed, until the next rung.
    pub repeat: Option<Duration>,
}

/// The rungs: each later than the one before. Without any nothing is said again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder(Vec<Rung>);

impl Default for Ladder {
    /// 5 minutes, an hour, a day.
    fn default() -> Self {
        let rung = |after| Rung { after, severity: None, repeat: None };
        Self([Duration::from_mins(5), Duration::from_hours(1), Duration::from_hours(24)].map(rung).to_vec())
    }
}

impl Ladder {
    /// Refuses rungs that are not in the order of their time, or that repeat without a pause.
    pub fn new(rungs: Vec<Rung>) -> Result<Self, String> {
        if let Some(late) = rungs.windows(2).find(|pair| pair[0].after >= pair[1].after) {
            let [before, after] = [late[0].after, late[1].after].map(HumanDuration);
            return Err(format!("after is {after}, but must be more than that of the step before, {before}"));
        }
        Ok(Self(rungs))
    }

    /// What an incident of this age has reached: how many steps, and the worst severity that they ask for.
    pub(super) fn reached(&self, age: Duration) -> (u32, Option<Severity>) {
        let (mut steps, mut severity) = (0_u32, None);
        for (rung, next) in self.with_next() {
            if rung.after > age {
                break;
            }
            steps = steps.saturating_add(rung.said_until(age, next));
            severity = severity.max(rung.severity);
        }
        (steps, severity)
    }

    /// How old an incident is at its step of this number, counted from 1.
    pub(super) fn age_at(&self, step: u32) -> Option<Duration> {
        let mut before = step.checked_sub(1)?;
        for (rung, next) in self.with_next() {
            let said = next.map(|next| rung.said_until(next, Some(next)));
            match (said, rung.repeat) {
                (Some(said), _) if before >= said => before -= said,
                (None, None) if before > 0 => return None,
                (_, repeat) => return Some(rung.after + repeat.unwrap_or_default() * before),
            }
        }
        None
    }

    fn with_next(&self) -> impl Iterator<Item = (Rung, Option<Duration>)> {
        self.0.iter().enumerate().map(|(i, rung)| (*rung, self.0.get(i + 1).map(|next| next.after)))
    }
}

impl Rung {
    /// How often it has been said at this age, which is not before its time; the next rung ends it.
    fn said_until(self, age: Duration, next: Option<Duration>) -> u32 {
        let Some(repeat) = self.repeat.filter(|repeat| !repeat.is_zero()) else { return 1 };
        let last = match next {
            Some(next) if age >= next => next.saturating_sub(Duration::from_millis(1)),
            _ => age,
        };
        let repeats = last.saturating_sub(self.after).as_millis() / repeat.as_millis().max(1);
        u32::try_from(repeats).unwrap_or(u32::MAX - 1) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mins(mins: u64) -> Duration {
        Duration::from_mins(mins)
    }

    fn rung(after: u64, repeat: Option<u64>) -> Rung {
        Rung { after: mins(after), severity: None, repeat: repeat.map(mins) }
    }

    #[test]
    fn the_usual_ladder_has_three_steps() {
        let ladder = Ladder::default();
        let ages: Vec<_> = (1..5).map(|step| ladder.age_at(step)).collect();
        assert_eq!(ages, [Some(mins(5)), Some(mins(60)), Some(mins(24 * 60)), None]);
        let reached = |age| ladder.reached(age).0;
        assert_eq!((reached(Duration::from_millis(299_999)), reached(mins(5)), reached(mins(6))), (0, 1, 1));
        assert_eq!((reached(mins(60)), reached(mins(100_000))), (2, 3));
        assert_eq!((Ladder(vec![]).reached(mins(100_000)), Ladder(vec![]).age_at(1)), ((0, None), None));
    }

    #[test]
    fn a_rung_repeats_until_the_next_and_the_last_for_ever() {
        let ladder = Ladder::new(vec![rung(5, Some(10)), rung(25, None), rung(60, Some(30))]).expect("in order");
        let ages: Vec<_> = (1..7).map(|step| ladder.age_at(step).expect("a step").as_secs() / 60).collect();
        assert_eq!(ages, [5, 15, 25, 60, 90, 120]);
    }

    #[test]
    fn a_severity_holds_from_its_rung_on() {
        let worse = Rung { severity: Some(Severity::Crit), ..rung(60, None) };
        let ladder = Ladder::new(vec![rung(5, None), worse, rung(90, None)]).expect("in order");
        assert_eq!(ladder.reached(mins(59)), (1, None));
        assert_eq!(ladder.reached(mins(60)), (2, Some(Severity::Crit)));
        assert_eq!(ladder.reached(mins(95)), (3, Some(Severity::Crit)));
    }

    #[test]
    fn rungs_out_of_order_are_refused() {
        assert!(Ladder::new(vec![rung(60, None), rung(5, None)]).is_err());
        assert!(Ladder::new(vec![rung(5, None), rung(5, None)]).is_err());
    }

    proptest! {
        /// The steps reached at an age are those whose time has come.
        #[test]
        fn ages_and_steps_agree(
            rungs in prop::collection::vec((1..500u64, prop::option::of(1..100u64)), 0..5),
            age in 0..3000u64,
        ) {
            let mut at = 0;
            let rungs = rungs.into_iter().map(|(more, repeat)| { at += more; rung(at, repeat) }).collect();
            let ladder = Ladder::new(rungs).expect("in order");
            let (steps, _) = ladder.reached(mins(age));
            prop_assert!(steps == 0 || ladder.age_at(steps).is_some_and(|due| due <= mins(age)));
            prop_assert!(ladder.age_at(steps + 1).is_none_or(|due| due > mins(age)));
        }
    }
}
