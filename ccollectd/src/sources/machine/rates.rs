//! Counters of many things, turned into what happened per second.

use std::collections::HashMap;
use std::time::Instant;

/// The last counters of each thing of one kind, and when they were read.
///
/// A thing that is new, or one of whose counters went backwards (replaced, reset, wrapped around),
/// has no rates for one interval: there is no number that would be true. A thing that is gone is
/// forgotten.
#[derive(Debug)]
pub(super) struct Rates<const N: usize> {
    last: Option<(Instant, HashMap<String, [u64; N]>)>,
}

impl<const N: usize> Default for Rates<N> {
    fn default() -> Self {
        Self { last: None }
    }
}

impl<const N: usize> Rates<N> {
    /// Takes the counters read at `now`; returns the rates per second since the last time, in the
    /// same order.
    pub(super) fn advance(&mut self, now: Instant, counters: Vec<(String, [u64; N])>) -> Vec<(String, [f64; N])> {
        let current = counters.iter().cloned().collect();
        let Some((then, before)) = self.last.replace((now, current)) else {
            return Vec::new();
        };
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        if seconds <= 0.0 {
            return Vec::new();
        }
        let rates_of = |(name, counters): (String, [u64; N])| {
            let rates = per_second(before.get(&name)?, &counters, seconds)?;
            Some((name, rates))
        };
        counters.into_iter().filter_map(rates_of).collect()
    }
}

fn per_second<const N: usize>(before: &[u64; N], after: &[u64; N], seconds: f64) -> Option<[f64; N]> {
    let mut rates = [0.0; N];
    for ((rate, before), after) in rates.iter_mut().zip(before).zip(after) {
        *rate = super::number(after.checked_sub(*before)?) / seconds;
    }
    Some(rates)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn counters(names: &[(&str, u64)]) -> Vec<(String, [u64; 1])> {
        names.iter().map(|(name, count)| ((*name).to_owned(), [*count])).collect()
    }

    /// Feeds readings taken at the given seconds; returns the rates of the last one.
    fn rates_after(readings: &[(u64, &[(&str, u64)])]) -> Vec<(String, f64)> {
        let start = Instant::now();
        let mut rates = Rates::default();
        let mut last = Vec::new();
        for (second, names) in readings {
            last = rates.advance(start + Duration::from_secs(*second), counters(names));
        }
        last.into_iter().map(|(name, [rate])| (name, rate)).collect()
    }

    #[test]
    fn the_first_reading_has_no_rates() {
        assert_eq!(rates_after(&[(0, &[("eth0", 10)])]), []);
    }

    #[test]
    fn a_rate_is_what_was_counted_by_the_time_it_took() {
        assert_eq!(rates_after(&[(0, &[("eth0", 10)]), (4, &[("eth0", 30)])]), [("eth0".to_owned(), 5.0)]);
    }

    #[test]
    fn a_counter_that_goes_backwards_skips_one_interval() {
        assert_eq!(rates_after(&[(0, &[("eth0", 10)]), (1, &[("eth0", 3)])]), []);
        let next = rates_after(&[(0, &[("eth0", 10)]), (1, &[("eth0", 3)]), (2, &[("eth0", 5)])]);
        assert_eq!(next, [("eth0".to_owned(), 2.0)]);
    }

    #[test]
    fn a_new_device_skips_one_interval_and_the_others_go_on() {
        let rates = rates_after(&[(0, &[("eth0", 10)]), (1, &[("tun0", 900), ("eth0", 11)])]);
        assert_eq!(rates, [("eth0".to_owned(), 1.0)]);
    }

    #[test]
    fn a_device_that_left_and_came_back_is_new() {
        let rates = rates_after(&[(0, &[("usb0", 10)]), (1, &[]), (2, &[("usb0", 20)])]);
        assert_eq!(rates, []);
    }

    #[test]
    fn two_readings_at_one_instant_have_no_rates() {
        assert_eq!(rates_after(&[(5, &[("eth0", 10)]), (5, &[("eth0", 30)])]), []);
    }
}
