//! Hosts whose clock is wrong, by what their signs of life say against ours.
//!
//! Dates come from those who observe, so a clock that is minutes off shifts every outage that its host tells of: it is worth a
//! warning. One sign of life proves nothing, as it may have waited on its way, so it takes three in a row that came apart. If
//! most hosts differ by the same amount at once, it is our own clock that jumped, and that is said once, about ourselves.

use super::Engine;
use super::incident::{CLOCK, Key, Seen};
use common::address::{CheckAddress, HostName};
use common::message::{Kind, State};
use common::severity::Severity;
use common::time::{UnixMillis, for_people};
use std::collections::BTreeMap;
use std::time::Duration;

/// Signs of life in a row that prove a clock wrong.
const PROOF: u8 = 3;
/// Signs of life that come nearer together than this waited on their way and count as one.
const APART: Duration = Duration::from_millis(500);
/// Once one clock is proved wrong, the others have this long to be, before it is said whose fault it is.
const CONSIDER: Duration = Duration::from_secs(3);
/// Of fewer hosts it cannot be said that they agree against us.
const QUORUM: usize = 3;

/// What the signs of life of one host say of its clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// How many in a row are beyond the limit.
    beyond: u8,
    /// The first of them, by our clock.
    since: Option<UnixMillis>,
    /// On the clock of attention.
    counted_at: Duration,
    /// An incident is open.
    told: bool,
}

impl Clock {
    pub(super) fn restored(told: bool) -> Self {
        Self { told, ..Self::default() }
    }
}

/// A clock that is proved wrong.
#[derive(Clone, Copy, Debug)]
struct Wrong {
    /// How far it is ahead of ours.
    ahead_ms: i64,
    /// Since when, by our clock, and when it was proved, by our attention.
    since: UnixMillis,
    proved_at: Duration,
    limit: Duration,
}

/// All clocks that are proved wrong, and whether it is ours.
#[derive(Debug)]
pub(super) struct Clocks {
    wrong: BTreeMap<HostName, Wrong>,
    /// How far the others are ahead of ours, while ours is told to be wrong.
    own_ahead_ms: Option<i64>,
    /// Something has changed since it was last considered.
    news: bool,
}

impl Default for Clocks {
    /// What an earlier process told has to be looked at.
    fn default() -> Self {
        Self { wrong: BTreeMap::new(), own_ahead_ms: None, news: true }
    }
}

impl Clocks {
    /// How far the others are ahead of ours, if that is ours to be blamed for.
    fn off_by_ms(&self) -> i64 {
        self.own_ahead_ms.unwrap_or(0)
    }

    /// By how much most of the wrong ones are ahead, and how many they are.
    fn common(&self, limit: Duration) -> Option<(i64, usize)> {
        let mut ahead: Vec<_> = self.wrong.values().map(|wrong| wrong.ahead_ms).collect();
        ahead.sort_unstable();
        let median = *ahead.get(ahead.len() / 2)?;
        Some((median, ahead.iter().filter(|ms| within(ms.saturating_sub(median), limit)).count()))
    }
}

fn within(ms: i64, limit: Duration) -> bool {
    u128::from(ms.unsigned_abs()) <= limit.as_millis()
}

fn clock_key(host: &HostName) -> Key {
    Key { address: CheckAddress::alive(host.clone()).into(), rule: CLOCK.to_owned() }
}

fn direction(ahead_ms: i64) -> &'static str {
    if ahead_ms < 0 { "behind" } else { "ahead of" }
}

fn amount(ahead_ms: i64) -> String {
    for_people(Duration::from_millis(ahead_ms.unsigned_abs()))
}

fn seconds(ahead_ms: i64) -> f64 {
    Duration::from_millis(ahead_ms.unsigned_abs()).as_secs_f64().copysign(if ahead_ms < 0 { -1.0 } else { 1.0 })
}

impl Engine {
    /// A live sign of life was given at this time by its host's clock.
    pub(super) fn compare_clocks(&mut self, name: &HostName, time: UnixMillis) {
        let (wall, attention) = (self.wall, self.attention);
        let Some(host) = self.hosts.get_mut(name) else { return };
        let limit = host.tuning.clock_skew;
        let ahead_ms = time.0.saturating_sub(wall.0);
        let known = self.clocks.wrong.contains_key(name);
        // As long as ours is told to be wrong, the others are right.
        let off_ms = ahead_ms.saturating_sub(self.clocks.off_by_ms());
        if within(ahead_ms, limit) && host.clock.beyond == 0 && !known && !host.clock.told {
            return;
        }
        if within(ahead_ms, limit) {
            host.clock.beyond = 0;
        } else if host.clock.beyond == 0 || attention.saturating_sub(host.clock.counted_at) >= APART {
            if host.clock.beyond == 0 {
                host.clock.since = Some(wall);
            }
            host.clock.beyond = PROOF.min(host.clock.beyond + 1);
            host.clock.counted_at = attention;
        }
        let (proved, since, told) = (host.clock.beyond == PROOF, host.clock.since.unwrap_or(wall), host.clock.told);
        if proved && !known {
            let wrong = Wrong { ahead_ms, since, proved_at: attention, limit };
            self.clocks.wrong.insert(name.clone(), wrong);
            self.clocks.news = true;
        } else if within(ahead_ms, limit / 2) && known {
            self.clocks.wrong.remove(name);
            self.clocks.news = true;
        } else if let Some(wrong) = self.clocks.wrong.get_mut(name)
            && !within(wrong.ahead_ms.saturating_sub(ahead_ms), limit / 2)
        {
            (wrong.ahead_ms, wrong.since, wrong.proved_at) = (ahead_ms, wall, attention);
            self.clocks.news = true;
        }
        if told && within(off_ms, limit / 2) && !self.forgot_own_skew() {
            let text = "its clock agrees with ours again".to_owned();
            self.close(&clock_key(name), Kind::Solved, Seen { time: wall, text, value: None, state: State::Resolved });
            if let Some(host) = self.hosts.get_mut(name) {
                host.clock.told = false;
            }
            // If it is wrong after all, that is another incident than the one that ended.
            if let Some(wrong) = self.clocks.wrong.get_mut(name) {
                wrong.since = wall;
            }
        }
    }

    /// Ours was told to be wrong by an earlier process, and nobody has proved yet by how much.
    fn forgot_own_skew(&self) -> bool {
        self.clocks.own_ahead_ms.is_none() && self.incidents.contains(&self.settings.own.clone().into(), CLOCK)
    }

    /// The host is not heard any more, so its clock says nothing. What was told of it stays so.
    pub(super) fn forget_clock(&mut self, name: &HostName) {
        if let Some(host) = self.hosts.get_mut(name) {
            host.clock = Clock::restored(host.clock.told);
        }
        self.clocks.wrong.remove(name);
        self.count_clocks_anew();
    }

    /// Whether most clocks are wrong depends on how many are heard, of which there is one more or less.
    pub(super) fn count_clocks_anew(&mut self) {
        self.clocks.news |= !self.clocks.wrong.is_empty() || self.clocks.own_ahead_ms.is_some();
    }

    /// Says whose clock is wrong.
    pub(super) fn scan_clocks(&mut self) {
        let attention = self.attention;
        if !self.clocks.news {
            return;
        }
        let considered = |wrong: &Wrong| attention.saturating_sub(wrong.proved_at) >= CONSIDER;
        // After a restart too the hosts have to be heard before it can be said that they no longer differ.
        if attention < super::SETTLE + CONSIDER * 2 || !self.clocks.wrong.values().all(considered) {
            return;
        }
        self.clocks.news = false;
        let hosts = &self.hosts;
        self.clocks.wrong.retain(|name, _| hosts.contains_key(name));
        if self.judge_own_clock() {
            return;
        }
        let off = self.clocks.off_by_ms();
        let wrong: Vec<_> = self
            .clocks
            .wrong
            .iter()
            .map(|(name, wrong)| (name.clone(), Wrong { ahead_ms: wrong.ahead_ms.saturating_sub(off), ..*wrong }))
            .filter(|(_, wrong)| !within(wrong.ahead_ms, wrong.limit))
            .collect();
        for (name, Wrong { ahead_ms, since, .. }) in wrong {
            let text = format!("its clock is {} {} ours", amount(ahead_ms), direction(ahead_ms));
            let seen = Seen { time: self.wall, text, value: Some(seconds(ahead_ms)), state: State::Open };
            self.open(clock_key(&name), Kind::Alarm, Severity::Warn, since, seen);
            if let Some(host) = self.hosts.get_mut(&name) {
                host.clock.told = true;
            }
        }
    }

    /// Whether it was told to be wrong and is no longer, so that all others have to be looked at anew.
    fn judge_own_clock(&mut self) -> bool {
        let wall = self.wall;
        let key = Key { address: self.settings.own.clone().into(), rule: CLOCK.to_owned() };
        // All hosts are walked only if enough of them are wrong, and something is new.
        let common = self.clocks.common(self.settings.defaults.clock_skew).filter(|(_, n)| *n >= 2);
        let up = if common.is_some() { self.hosts.values().filter(|host| host.is_heard()).count() } else { 0 };
        match common {
            Some((ahead_ms, n)) if up >= QUORUM && n * 2 > up => {
                self.clocks.own_ahead_ms = Some(ahead_ms);
                let text = format!(
                    "our clock is {} {} those of {n} of {up} hosts",
                    amount(ahead_ms),
                    if ahead_ms < 0 { "ahead of" } else { "behind" }
                );
                let seen = Seen { time: wall, text, value: Some(-seconds(ahead_ms)), state: State::Open };
                self.open(key, Kind::Alarm, Severity::Warn, wall, seen);
                false
            }
            _ => {
                let over = self.clocks.own_ahead_ms.take().is_some();
                if over {
                    // Of those still called wrong most have only not been heard since.
                    self.clocks.wrong.values_mut().for_each(|wrong| wrong.proved_at = self.attention);
                    self.clocks.news = true;
                }
                let text = "our clock agrees with those of the hosts again".to_owned();
                self.close(&key, Kind::Solved, Seen { time: wall, text, value: None, state: State::Resolved });
                over
            }
        }
    }
}
