//! How fast lines may go: servers kill who floods them.

use std::time::{Duration, Instant};

/// A token bucket, kept as the moment until which the server is busy with us. One line costs `interval`; as many as
/// `burst` may be owed.
#[derive(Debug)]
pub(crate) struct Bucket {
    interval: Duration,
    burst: u32,
    busy_until: Instant,
}

impl Bucket {
    pub(crate) fn new(interval: Duration, burst: u32, now: Instant) -> Self {
        Self { interval, burst, busy_until: now }
    }

    /// When the next line may go: now, or later.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        let owed = self.busy_until.saturating_duration_since(now);
        now + owed.saturating_sub(self.interval * (self.burst - 1))
    }

    /// When the next line may go that has to leave half of the burst to others: what may wait does so, and what may not has
    /// room at once.
    pub(crate) fn next_in_half(&self, now: Instant) -> Instant {
        let owed = self.busy_until.saturating_duration_since(now);
        now + owed.saturating_sub(self.interval * ((self.burst - 1) / 2))
    }

    pub(crate) fn allows(&self, now: Instant) -> bool {
        self.next(now) <= now
    }

    /// Nothing is owed.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        self.busy_until <= now
    }

    /// A line goes. What may not wait, such as an answer to PING, is counted too, but no more than a second burst of it:
    /// a server that asks too much must not keep us silent.
    pub(crate) fn take(&mut self, now: Instant) {
        let most = now + self.interval * (self.burst * 2);
        self.busy_until = (self.busy_until.max(now) + self.interval).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which lines go that all wait from the beginning.
    fn moments(interval_secs: u64, burst: u32, lines: usize) -> Vec<u64> {
        let start = Instant::now();
        let mut bucket = Bucket::new(Duration::from_secs(interval_secs), burst, start);
        let mut now = start;
        let mut moments = Vec::new();
        for _ in 0..lines {
            now = bucket.next(now);
            assert!(bucket.allows(now));
            bucket.take(now);
            moments.push((now - start).as_secs());
        }
        moments
    }

    #[test]
    fn a_burst_and_then_one_by_one() {
        assert_eq!(moments(2, 4, 7), [0, 0, 0, 0, 2, 4, 6]);
        assert_eq!(moments(2, 1, 3), [0, 2, 4]);
        assert_eq!(moments(0, 1, 3), [0, 0, 0]);
    }

    #[test]
    fn what_may_wait_leaves_half_of_the_burst() {
        let start = Instant::now();
        let second = |n| start + Duration::from_secs(n);
        let mut bucket = Bucket::new(Duration::from_secs(2), 4, start);
        let mut moments = Vec::new();
        let mut now = start;
        for _ in 0..4 {
            now = bucket.next_in_half(now);
            bucket.take(now);
            moments.push(now);
        }
        assert_eq!(moments, [0, 0, 2, 4].map(second));
        // What may not wait goes at once, twice.
        for _ in 0..2 {
            assert!(bucket.allows(second(4)));
            bucket.take(second(4));
        }
        assert!(!bucket.allows(second(4)));
        assert_eq!(Bucket::new(Duration::from_secs(2), 1, start).next_in_half(start), start);
    }

    #[test]
    fn what_goes_out_of_turn_is_owed_within_bounds() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Duration::from_secs(2), 4, start);
        for _ in 0..1000 {
            bucket.take(start);
        }
        assert_eq!(bucket.next(start) - start, Duration::from_secs(10));
    }
}
