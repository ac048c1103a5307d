//! Slows down who guesses passwords.
//!
//! Each attempt takes a token from the bucket of its address and one from the bucket of all: the first keeps one
//! guesser slow, the second keeps a thousand of them slow together, and both keep the costly hashing from eating the
//! machine. Who is logged in already needs no token, so guessing shuts nobody out who is inside.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Addresses that are remembered. When there are more, those with a full bucket go, then whoever waited longest.
const MAX_ADDRESSES: usize = 4096;

/// One address may try so often at once, and then once in [`ONE_EVERY`].
const OF_ONE: f64 = 5.0;
const ONE_EVERY: Duration = Duration::from_secs(10);
/// All together.
const OF_ALL: f64 = 20.0;
const ALL_EVERY: Duration = Duration::from_secs(1);

/// Decides who may try a password now.
#[derive(Debug)]
pub(crate) struct LoginBuckets {
    all: Bucket,
    each: HashMap<IpAddr, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// Its tokens by now.
    fn tokens(self, now: Duration, most: f64, every: Duration) -> f64 {
        (self.tokens + now.saturating_sub(self.at).as_secs_f64() / every.as_secs_f64()).min(most)
    }
}

impl Default for LoginBuckets {
    fn default() -> Self {
        Self { all: Bucket { tokens: OF_ALL, at: Duration::ZERO }, each: HashMap::new() }
    }
}

impl LoginBuckets {
    /// Takes a token for an attempt from this address, or says how long to wait for one.
    pub(crate) fn take(&mut self, now: Duration, address: IpAddr) -> Result<(), Duration> {
        let key = network_of(address);
        let of_one = self.each.get(&key).map_or(OF_ONE, |bucket| bucket.tokens(now, OF_ONE, ONE_EVERY));
        if of_one < 1.0 {
            return Err(ONE_EVERY.mul_f64(1.0 - of_one));
        }
        let of_all = self.all.tokens(now, OF_ALL, ALL_EVERY);
        if of_all < 1.0 {
            return Err(ALL_EVERY.mul_f64(1.0 - of_all));
        }
        self.all = Bucket { tokens: of_all - 1.0, at: now };
        self.make_room(now);
        self.each.insert(key, Bucket { tokens: of_one - 1.0, at: now });
        Ok(())
    }

    fn make_room(&mut self, now: Duration) {
        if self.each.len() < MAX_ADDRESSES {
            return;
        }
        self.each.retain(|_, bucket| bucket.tokens(now, OF_ONE, ONE_EVERY) < OF_ONE);
        if self.each.len() >= MAX_ADDRESSES
            && let Some(oldest) = self.each.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| *key)
        {
            self.each.remove(&oldest);
        }
    }
}

/// A person with IPv6 has a whole /64 (RFC 6177) and could come from another address each time.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let mut segments = v6.segments();
            segments[4..].fill(0);
            IpAddr::V6(segments.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn after_five_attempts_one_address_waits_ten_seconds_for_each_more() {
        let mut buckets = LoginBuckets::default();
        for _ in 0..5 {
            assert_eq!(buckets.take(secs(100), address(1)), Ok(()));
        }
        assert_eq!(buckets.take(secs(100), address(1)), Err(secs(10)));
        assert_eq!(buckets.take(secs(104), address(1)), Err(secs(6)));
        assert_eq!(buckets.take(secs(104), address(2)), Ok(()));
        assert_eq!(buckets.take(secs(110), address(1)), Ok(()));
        assert!(buckets.take(secs(110), address(1)).is_err());
    }

    #[test]
    fn a_thousand_guessers_are_one_a_second_together() {
        let mut buckets = LoginBuckets::default();
        let taken = (0..1000).filter(|n| buckets.take(secs(1), address(*n)).is_ok()).count();
        assert_eq!(taken, 20);
        assert!(buckets.take(secs(2), address(5000)).is_ok());
        assert!(buckets.take(secs(2), address(5001)).is_err());
    }

    #[test]
    fn one_network_is_one_guesser() {
        let mut buckets = LoginBuckets::default();
        for n in 0..5 {
            assert!(buckets.take(secs(1), format!("2001:db8::{n}").parse().expect("address")).is_ok());
        }
        assert!(buckets.take(secs(1), "2001:db8::ffff".parse().expect("address")).is_err());
        assert!(buckets.take(secs(1), "2001:db8:1::1".parse().expect("address")).is_ok());
    }

    #[test]
    fn addresses_are_forgotten_rather_than_kept_without_bound() {
        let mut buckets = LoginBuckets::default();
        for n in 0..20_000_u32 {
            let _ = buckets.take(secs(u64::from(n)), address(n));
        }
        assert!(buckets.each.len() <= MAX_ADDRESSES);
    }
}
