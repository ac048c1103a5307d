//! Slows down who guesses passwords, and who uses the links in mails to no end.
//!
//! Each attempt takes a token from the bucket of its address and one from the bucket of all: the first keeps one
//! guesser slow, the second keeps a thousand of them slow together, and both keep the costly hashing, or the orders that
//! links become, from eating the machine. Who is logged in already needs no token, and a link is only counted if it is one of
//! ours, so guessing shuts nobody out who is inside.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Addresses that are remembered. When there are more, those with a full bucket go, then whoever waited longest.
const MAX_ADDRESSES: usize = 4096;

/// How often is not too often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// One address may try so often at once, and then once in `one_every`.
    of_one: f64,
    one_every: Duration,
    /// All together.
    of_all: f64,
    all_every: Duration,
}

/// Of attempts to log in.
pub(crate) const LOGIN: Rates =
    Rates { of_one: 5.0, one_every: Duration::from_secs(10), of_all: 20.0, all_every: Duration::from_secs(1) };
/// Of links. A provider of mail unsubscribes many people from one address.
pub(crate) const LINKS: Rates =
    Rates { of_one: 20.0, one_every: Duration::from_secs(2), of_all: 60.0, all_every: Duration::from_millis(200) };

/// Decides who may try now.
#[derive(Debug)]
pub(crate) struct Buckets {
    rates: Rates,
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

impl Buckets {
    /// All of them full.
    pub(crate) fn new(rates: Rates) -> Self {
        Self { rates, all: Bucket { tokens: rates.of_all, at: Duration::ZERO }, each: HashMap::new() }
    }

    /// Takes a token for an attempt from this address, or says how long to wait for one.
    pub(crate) fn take(&mut self, now: Duration, address: IpAddr) -> Result<(), Duration> {
        let Rates { of_one: most, one_every, of_all, all_every } = self.rates;
        let key = network_of(address);
        let of_one = self.each.get(&key).map_or(most, |bucket| bucket.tokens(now, most, one_every));
        if of_one < 1.0 {
            return Err(one_every.mul_f64(1.0 - of_one));
        }
        let of_all = self.all.tokens(now, of_all, all_every);
        if of_all < 1.0 {
            return Err(all_every.mul_f64(1.0 - of_all));
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
        let Rates { of_one, one_every, .. } = self.rates;
        self.each.retain(|_, bucket| bucket.tokens(now, of_one, one_every) < of_one);
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
        let mut buckets = Buckets::new(LOGIN);
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
        let mut buckets = Buckets::new(LOGIN);
        let taken = (0..1000).filter(|n| buckets.take(secs(1), address(*n)).is_ok()).count();
        assert_eq!(taken, 20);
        assert!(buckets.take(secs(2), address(5000)).is_ok());
        assert!(buckets.take(secs(2), address(5001)).is_err());
    }

    #[test]
    fn one_network_is_one_guesser() {
        let mut buckets = Buckets::new(LOGIN);
        for n in 0..5 {
            assert!(buckets.take(secs(1), format!("2001:db8::{n}").parse().expect("address")).is_ok());
        }
        assert!(buckets.take(secs(1), "2001:db8::ffff".parse().expect("address")).is_err());
        assert!(buckets.take(secs(1), "2001:db8:1::1".parse().expect("address")).is_ok());
    }

    #[test]
    fn addresses_are_forgotten_rather_than_kept_without_bound() {
        let mut buckets = Buckets::new(LOGIN);
        for n in 0..20_000_u32 {
            let _ = buckets.take(secs(u64::from(n)), address(n));
        }
        assert!(buckets.each.len() <= MAX_ADDRESSES);
    }
}
