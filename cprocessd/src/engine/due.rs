//! When to look at what, so that a scan costs nothing for what cannot be overdue.
//!
//! A hundred thousand hosts give a sign of life each second, and each moves a deadline. Keeping them in order would cost more
//! than all else, so nothing is moved: each waits for the time at which it was due when it was last looked at, and then is
//! looked at and waits anew. To look too early is harmless, so what is due together is spread out.

use super::SCAN_EVERY;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A moment on the clock of attention in units of [`SCAN_EVERY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u32);

impl Tick {
    /// For what nobody is going to look at.
    pub(super) const NEVER: Tick = Tick(u32::MAX);

    /// The scan at or after this moment looks at it.
    pub(super) fn at(moment: Duration) -> Self {
        let tick = moment.as_millis() / SCAN_EVERY.as_millis();
        Tick(u32::try_from(tick).unwrap_or(u32::MAX).min(u32::MAX - 1))
    }

    fn next(self) -> Self {
        Tick(self.0.saturating_add(1).min(u32::MAX - 1))
    }
}

/// Who is to be looked at when. Each knows the [`Tick`] that it waits for itself; what waits for another one here is out of
/// date. That is at most one a tick for each.
#[derive(Debug)]
pub(super) struct Due<K> {
    ticks: BTreeMap<Tick, VecDeque<K>>,
    /// The last tick that was looked at, or is being looked at.
    looked: Option<Tick>,
    spread: u32,
}

impl<K> Default for Due<K> {
    fn default() -> Self {
        Self { ticks: BTreeMap::new(), looked: None, spread: 0 }
    }
}

impl<K> Due<K> {
    /// Looks at it in the first scan at or after this moment, but not in the one that is under way.
    pub(super) fn push(&mut self, moment: Duration, key: K) -> Tick {
        let tick = Tick::at(moment).max(self.looked.map_or(Tick(0), Tick::next));
        self.ticks.entry(tick).or_default().push_back(key);
        tick
    }

    /// The same for a moment that is likely to move on until then: what is far ahead is looked at early, and no two
    /// in a row at once.
    pub(super) fn push_spread(&mut self, moment: Duration, key: K) -> Tick {
        /// Nearer than this it is looked at in time.
        const NEAR: u32 = 4;
        let now = self.looked.map_or(0, |tick| tick.0);
        let ahead = Tick::at(moment).0.saturating_sub(now);
        if ahead <= NEAR {
            return self.push(moment, key);
        }
        self.spread = self.spread.wrapping_add(1);
        self.push(moment.saturating_sub(SCAN_EVERY * (self.spread % (ahead / 2))), key)
    }

    /// The next that is due by now, with the tick that it waited for.
    pub(super) fn next(&mut self, now: Duration) -> Option<(Tick, K)> {
        let now = Tick::at(now);
        self.looked = Some(now);
        let mut first = self.ticks.first_entry()?;
        let tick = *first.key();
        if tick > now {
            return None;
        }
        let key = first.get_mut().pop_front();
        if first.get().is_empty() {
            first.remove();
        }
        key.map(|key| (tick, key))
    }

    /// Whether nothing is left of what was due when it was last asked for.
    pub(super) fn is_done(&self) -> bool {
        self.ticks.first_key_value().is_none_or(|(first, _)| self.looked.is_none_or(|looked| *first > looked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// All that is due by now.
    fn take<K>(due: &mut Due<K>, now: Duration) -> Vec<(Tick, K)> {
        std::iter::from_fn(|| due.next(now)).collect()
    }

    #[test]
    fn what_is_due_is_taken_once_and_what_is_looked_at_again_waits_for_the_next_scan() {
        let mut due = Due::default();
        due.push(ms(1200), "a");
        due.push(ms(1500), "b");
        assert_eq!(take(&mut due, ms(900)), []);
        assert_eq!(take(&mut due, ms(1000)), [(Tick(2), "a")]);
        assert_eq!(due.push(ms(1200), "a"), Tick(3));
        assert_eq!(take(&mut due, ms(1700)), [(Tick(3), "b"), (Tick(3), "a")]);
        assert_eq!(take(&mut due, ms(100_000)), []);
    }

    #[test]
    fn what_was_not_taken_is_left_for_later() {
        let mut due = Due::default();
        due.push(ms(1000), "a");
        due.push(ms(1000), "b");
        due.push(ms(2000), "c");
        assert_eq!(due.next(ms(1000)), Some((Tick(2), "a")));
        assert!(!due.is_done());
        assert_eq!(due.push(ms(1000), "a"), Tick(3));
        assert_eq!(due.next(ms(1000)), Some((Tick(2), "b")));
        assert!(due.is_done());
        assert_eq!(due.next(ms(1000)), None);
        assert_eq!(take(&mut due, ms(2000)), [(Tick(3), "a"), (Tick(4), "c")]);
    }

    #[test]
    fn what_is_far_ahead_is_spread_over_the_second_half_of_the_wait() {
        let mut due = Due::default();
        assert_eq!(due.next(ms(0)), None);
        for i in 0..1000 {
            due.push_spread(ms(10_000), i);
        }
        let at_once: Vec<_> = due.ticks.values().map(VecDeque::len).collect();
        assert_eq!(at_once, [100; 10]);
        assert_eq!(due.next(ms(5000)), None);
        assert_eq!(take(&mut due, ms(10_000)).len(), 1000);
    }
}
