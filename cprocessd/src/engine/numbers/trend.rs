//! What a rule remembers of a number: its last value for a rate, or a window of it for a prediction.
//!
//! The prediction is a straight line by least squares. A window is at most 64 points, each the mean of what came in its share
//! of the time, so its cost does not depend on how often a number comes. Noise looks like a line too, and the shorter the
//! window the steeper: so an alarm opens only if even the lower edge of what the line may be, at odds of one to ten thousand,
//! is beyond the limit; it closes by the line itself.

use crate::engine::rule::{Condition, Operator};
use common::time::UnixMillis;
use std::time::Duration;

/// Points of a window.
const MAX_POINTS: u32 = 64;
/// Fewer have no line that could be wrong.
const MIN_POINTS: usize = 3;
/// This part of the window must have been seen.
const MIN_SEEN: f64 = 0.25;

/// What a rule remembers of one number. Lost with a restart: it begins anew then.
#[derive(Clone, Debug)]
pub(in crate::engine) enum Memory {
    Nothing,
    /// The last sample.
    Last(Option<(UnixMillis, f64)>),
    Window(Box<Window>),
}

/// What a rule compares with its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct Reading {
    /// Opens an alarm.
    pub(in crate::engine) sure: f64,
    /// Keeps it open.
    pub(in crate::engine) likely: f64,
    /// For a prediction.
    pub(in crate::engine) outlook: Option<Outlook>,
}

/// How a number goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct Outlook {
    /// Until it meets the limit; zero if it is there, absent if it does not.
    pub(in crate::engine) until: Option<Duration>,
    /// Its change per second.
    pub(in crate::engine) slope: f64,
}

impl Reading {
    /// A number for itself.
    pub(in crate::engine) fn of(value: f64) -> Self {
        Self { sure: value, likely: value, outlook: None }
    }
}

impl Memory {
    /// What such a rule remembers before the first sample.
    pub(in crate::engine) fn of(condition: &Condition) -> Self {
        match *condition {
            Condition::Rate { .. } => Self::Last(None),
            Condition::Within { over, .. } => Self::Window(Box::new(Window::new(over))),
            Condition::Beyond { .. } | Condition::Absent { .. } => Self::Nothing,
        }
    }

    /// Whether such a rule remembers the same.
    pub(in crate::engine) fn serves(&self, condition: &Condition) -> bool {
        match (self, *condition) {
            (Self::Last(_), Condition::Rate { .. }) => true,
            (Self::Window(window), Condition::Within { over, .. }) => window.over == over,
            (Self::Nothing | Self::Last(_) | Self::Window(_), _) => false,
        }
    }

    /// Remembers a sample, and says what the rule makes of it; nothing as long as it cannot know.
    pub(in crate::engine) fn read(&mut self, time: UnixMillis, value: f64, condition: &Condition) -> Option<Reading> {
        match (self, *condition) {
            (Self::Last(last), _) => rate(last, time, value).map(Reading::of),
            (Self::Window(window), Condition::Within { operator, limit, within, .. }) => {
                window.add(time, value);
                window.line().and_then(|line| line.reading(value, operator, limit, within))
            }
            (Self::Nothing | Self::Window(_), _) => Some(Reading::of(value)),
        }
    }
}

/// The change per second since the last sample. A number that falls is a counter that began anew.
fn rate(last: &mut Option<(UnixMillis, f64)>, time: UnixMillis, value: f64) -> Option<f64> {
    let (before, was) = match *last {
        // A copy of the last.
        Some((before, _)) if before == time => return None,
        Some(last) => last,
        None => (time, value),
    };
    *last = Some((time, value));
    let rate = (value - was) / time.since(before).as_secs_f64();
    (time > before && value >= was && rate.is_finite()).then_some(rate)
}

/// The last values of a number, in equal parts of the time.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Window {
    /// Of a part, in milliseconds.
    part: i64,
    over: Duration,
    /// The newest last.
    points: Vec<Point>,
    /// The newest sample, in seconds since its part began.
    newest: f64,
}

/// The mean of what came in one part of the window.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// Which part.
    at: i64,
    count: f64,
    /// Seconds since its part began.
    time: f64,
    value: f64,
}

impl Window {
    fn new(over: Duration) -> Self {
        let part = (over / (MAX_POINTS - 1)).as_millis();
        Self { part: i64::try_from(part).unwrap_or(i64::MAX).max(1), over, points: Vec::new(), newest: 0.0 }
    }

    fn add(&mut self, time: UnixMillis, value: f64) {
        let at = time.0.div_euclid(self.part);
        let since = Duration::from_millis(time.0.rem_euclid(self.part).unsigned_abs()).as_secs_f64();
        match self.points.last_mut() {
            Some(last) if last.at == at => {
                last.count += 1.0;
                last.time += (since - last.time) / last.count;
                last.value += (value - last.value) / last.count;
                self.newest = self.newest.max(since);
                return;
            }
            // It came late, and says little; but a clock that was put back makes all we have the future.
            Some(last) if last.at == at.saturating_add(1) => return,
            Some(last) if last.at > at => self.points.clear(),
            Some(_) | None => {}
        }
        self.points.retain(|point| point.at > at.saturating_sub(i64::from(MAX_POINTS)));
        self.points.push(Point { at, count: 1.0, time: since, value });
        self.newest = since;
    }

    /// The line through it, once enough of it has been seen.
    fn line(&self) -> Option<Line> {
        let (Some(first), Some(newest)) = (self.points.first(), self.points.last()) else { return None };
        // Seconds from the newest sample.
        let part = self.part as f64 / 1000.0;
        let time = |point: &Point| (point.at - newest.at) as f64 * part + point.time - self.newest;
        if self.points.len() < MIN_POINTS || -time(first) < self.over.as_secs_f64() * MIN_SEEN {
            return None;
        }
        let count: f64 = self.points.iter().map(|point| point.count).sum();
        let mean = |of: &dyn Fn(&Point) -> f64| self.points.iter().map(|p| p.count * of(p)).sum::<f64>() / count;
        let (mean_time, mean_value) = (mean(&time), mean(&|point| point.value));
        let spread = mean(&|point| (time(point) - mean_time).powi(2));
        let slope = mean(&|point| (time(point) - mean_time) * (point.value - mean_value)) / spread;
        let error = |point: &Point| point.value - mean_value - slope * (time(point) - mean_time);
        let degrees = (self.points.len() - 2) as f64;
        let noise = (mean(&|point| error(point).powi(2)) / degrees).sqrt() * odds(degrees);
        Some(Line { mean_time, mean_value, slope, noise, spread })
    }
}

/// A straight line, time in seconds from the newest sample.
#[derive(Clone, Copy, Debug)]
struct Line {
    mean_time: f64,
    mean_value: f64,
    slope: f64,
    /// How far its middle may be off.
    noise: f64,
    /// The variance of the times.
    spread: f64,
}

impl Line {
    fn at(&self, time: f64) -> f64 {
        self.mean_value + self.slope * (time - self.mean_time)
    }

    /// How far it may be off there.
    fn margin(&self, time: f64) -> f64 {
        self.noise * (1.0 + (time - self.mean_time).powi(2) / self.spread).sqrt()
    }

    fn reading(&self, value: f64, operator: Operator, limit: f64, within: Duration) -> Option<Reading> {
        let ahead = within.as_secs_f64();
        let (end, margin) = (self.at(ahead), self.margin(ahead));
        let (sure, likely) = match operator {
            Operator::Less | Operator::LessOrEqual => (value.min(end + margin), value.min(end)),
            _ => (value.max(end - margin), value.max(end)),
        };
        let until = if operator.holds(value, limit) { 0.0 } else { (limit - self.at(0.0)) / self.slope };
        let until = Duration::try_from_secs_f64(until.max(0.0)).ok().filter(|until| *until <= within);
        let finite = sure.is_finite() && likely.is_finite() && self.slope.is_finite();
        finite.then_some(Reading { sure, likely, outlook: Some(Outlook { until, slope: self.slope }) })
    }
}

/// Student's t at one to ten thousand: how many standard errors chance alone may make, of so many degrees of freedom.
fn odds(degrees: f64) -> f64 {
    match degrees {
        ..=1.0 => 3183.0,
        ..=2.0 => 70.7,
        ..=3.0 => 22.2,
        ..=4.0 => 13.0,
        ..=5.0 => 9.7,
        ..=7.0 => 8.0,
        ..=9.0 => 6.5,
        _ => 3.72 + 20.0 / degrees,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn full_within(within: Duration, over: Duration) -> Condition {
        let lasting = Duration::ZERO;
        Condition::Within { operator: Operator::GreaterOrEqual, limit: 100.0, clear: 100.0, within, over, lasting }
    }

    fn rates(samples: &[(i64, f64)]) -> Vec<Option<f64>> {
        let mut last = None;
        samples.iter().map(|(secs, value)| rate(&mut last, UnixMillis(secs * 1000), *value)).collect()
    }

    #[test]
    fn a_rate_is_the_change_per_second_of_observation_time() {
        assert_eq!(rates(&[(0, 5.0), (1, 7.0), (5, 27.0), (6, 27.0)]), [None, Some(2.0), Some(5.0), Some(0.0)]);
    }

    #[test]
    fn a_counter_that_begins_anew_and_a_clock_that_goes_back_have_no_rate() {
        assert_eq!(rates(&[(0, 5.0), (1, 3.0), (2, 4.0)]), [None, None, Some(1.0)]);
        assert_eq!(rates(&[(10, 5.0), (7, 6.0), (8, 8.0)]), [None, None, Some(2.0)]);
        assert_eq!(rates(&[(0, 5.0), (0, 5.0), (2, 9.0)]), [None, None, Some(2.0)]);
    }

    #[test]
    fn the_window_is_bounded_and_forgets_what_is_older() {
        let mut window = Window::new(HOUR);
        for secs in 0..100_000 {
            window.add(UnixMillis(secs * 1000), if secs < 90_000 { 500.0 } else { 7.0 });
        }
        assert!(window.points.len() <= 64, "{}", window.points.len());
        let line = window.line().expect("a line");
        assert!((line.at(0.0) - 7.0).abs() < 1e-9 && line.slope.abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn a_clock_that_is_put_back_begins_the_window_anew() {
        let mut window = Window::new(HOUR);
        for secs in 0..3600 {
            window.add(UnixMillis(secs * 1000), 50.0);
        }
        window.add(UnixMillis(1_000_000), 50.0);
        assert_eq!(window.points.len(), 1);
        assert!(window.line().is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// However often a number comes, and however long the window.
        #[test]
        fn a_straight_line_is_predicted_exactly(
            start in 0.0..90.0f64,
            per_hour in 0.01..500.0f64,
            every_secs in 1..600i64,
            over_mins in 10..600u64,
            ahead_hours in 1..48u64,
        ) {
            let over = Duration::from_mins(over_mins);
            // A window with fewer samples than three has no line.
            prop_assume!(every_secs * 3 < i64::try_from(over.as_secs()).expect("small"));
            let within = Duration::from_hours(ahead_hours);
            let condition = full_within(within, over);
            let mut memory = Memory::of(&condition);
            let mut secs = 0;
            while secs < i64::try_from(over.as_secs()).expect("small") * 2 {
                let value = start + per_hour * secs as f64 / 3600.0;
                let reading = memory.read(UnixMillis(secs * 1000), value, &condition);
                let seen = secs as f64 >= over.as_secs_f64() * 0.3 && secs >= every_secs * 3;
                prop_assert!(reading.is_some() || !seen);
                if let Some(reading) = reading {
                    let truth = value + per_hour * ahead_hours as f64;
                    prop_assert!((reading.likely - truth).abs() < 1e-6 * truth, "{reading:?} {truth}");
                    prop_assert!((reading.sure - truth).abs() < 1e-4 * truth, "{reading:?} {truth}");
                    let until = (100.0 - value).max(0.0) / per_hour * 3600.0;
                    let told = reading.outlook.expect("an outlook").until.map(|until| until.as_secs_f64());
                    if until < within.as_secs_f64() * 0.999 {
                        prop_assert!((told.expect("within") - until).abs() < 1.0 + until * 1e-6, "{told:?} {until}");
                    } else if until > within.as_secs_f64() * 1.001 {
                        prop_assert_eq!(told, None);
                    }
                }
                secs += every_secs;
            }
        }

        /// A window of a quarter of the time ahead, as by default, and noise of a fifth of the way to the limit.
        #[test]
        fn noise_around_a_flat_line_never_fires(
            level in 0.0..80.0f64,
            every_secs in 1..120i64,
            noise in prop::collection::vec(-0.2..0.2f64, 2000),
        ) {
            let condition = full_within(HOUR * 4, HOUR);
            let mut memory = Memory::of(&condition);
            for (at, noise) in (0..).zip(noise) {
                let value = level + noise * (100.0 - level);
                let reading = memory.read(UnixMillis(at * every_secs * 1000), value, &condition);
                prop_assert!(reading.is_none_or(|reading| reading.sure < 100.0), "{at}: {reading:?}");
            }
        }
    }
}
