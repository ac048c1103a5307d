//! The ways by which a host is heard, and why it may not be.
//!
//! A host is heard by a feed, and on the way to it through the ccollectds that relay it. It may be heard by several. It is down
//! when it is heard by none although it could be; while every way that it was last heard by is closed, because the feed is
//! silent or a relay on it is down, unknown or stopped, nobody can tell. If somebody on each of them is down, that is the
//! trouble, and whatever is open behind them cannot be reached.

use super::host::Host;
use super::{Engine, Feed, PAUSE};
use common::address::{CheckAddress, HostName};
use common::message::State;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Ways of one host that are remembered; the one that was not heard for longest makes way.
const MAX_PATHS: usize = 8;
/// Relays on one way. More is a loop, or nonsense.
pub(super) const MAX_VIA: usize = 16;

/// A way as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPath {
    /// The feed at its end.
    pub feed: String,
    /// The ccollectds on it; empty if the feed is the host's own.
    pub via: Vec<HostName>,
}

/// A way by which a host was heard.
#[derive(Clone, Debug)]
pub(super) struct Path {
    feed: String,
    via: Vec<HostName>,
    /// The feed is the host's own.
    own: bool,
    /// On the clock of attention.
    heard_at: Duration,
}

impl Path {
    /// `own` stands apart, since who kept state before ways were kept knew no `via`.
    pub(super) fn new(feed: String, via: Vec<HostName>, own: bool, heard_at: Duration) -> Self {
        Self { feed, via, own, heard_at }
    }
}

/// All ways of one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths(Vec<Path>);

impl Paths {
    pub(super) fn restored(saved: Vec<SavedPath>, feed: Option<String>, own: bool, heard_at: Duration) -> Self {
        if saved.is_empty() {
            return Self(feed.map(|feed| Path::new(feed, Vec::new(), own, heard_at)).into_iter().collect());
        }
        let path = |SavedPath { feed, via }| {
            let own = via.is_empty();
            Path::new(feed, via, own, heard_at)
        };
        Self(saved.into_iter().map(path).collect())
    }

    pub(super) fn saved(&self) -> Vec<SavedPath> {
        self.0.iter().map(|path| SavedPath { feed: path.feed.clone(), via: path.via.clone() }).collect()
    }

    /// The feed that it was last heard by, and whether that is its own.
    pub(super) fn latest(&self) -> Option<(&str, bool)> {
        let path = self.0.iter().max_by_key(|path| path.heard_at)?;
        Some((&path.feed, path.own))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The feeds that are its own.
    pub(super) fn own_feeds(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|path| path.own).map(|path| path.feed.as_str())
    }

    /// Whether somebody else tells of it.
    pub(super) fn are_carried(&self) -> bool {
        self.0.iter().any(|path| !path.own)
    }

    /// Whether this feed told of it.
    pub(super) fn has_feed(&self, feed: &str) -> bool {
        self.0.iter().any(|path| path.feed == feed)
    }

    /// It was heard by this way. Those that were not for `stale` are forgotten. Whether the ways are others now.
    pub(super) fn heard(&mut self, feed: &str, via: &[HostName], now: Duration, stale: Duration) -> bool {
        let known = self.0.iter_mut().find(|path| path.feed == feed && path.via == via);
        let new = match known {
            Some(path) => {
                path.heard_at = now;
                path.own != std::mem::replace(&mut path.own, via.is_empty())
            }
            None => {
                // Of a way from before ways were kept only the feed is known.
                self.0.retain(|path| path.own || !path.via.is_empty() || path.feed != feed);
                self.0.push(Path::new(feed.to_owned(), via.to_vec(), via.is_empty(), now));
                true
            }
        };
        let before = self.0.len();
        self.0.retain(|path| now.saturating_sub(path.heard_at) <= stale);
        if self.0.len() > MAX_PATHS
            && let Some(oldest) = self.0.iter().enumerate().min_by_key(|(_, path)| path.heard_at).map(|(at, _)| at)
        {
            self.0.remove(oldest);
        }
        new || self.0.len() != before
    }

    /// Those by which it was heard when it was last heard. One by which it had not been heard for a while then is no
    /// longer its way.
    fn current(&self) -> impl Iterator<Item = &Path> {
        let newest = self.0.iter().map(|path| path.heard_at).max().unwrap_or_default();
        self.0.iter().filter(move |path| newest.saturating_sub(path.heard_at) <= PAUSE)
    }
}

/// Silences of one who carries others' signs of life.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quiet {
    /// The last that was longer than [`PAUSE`], on the clock of attention.
    last: Option<(Duration, Duration)>,
}

impl Quiet {
    /// Heard again at `now` after having been heard at `before`.
    pub(super) fn heard(&mut self, before: Duration, now: Duration) {
        if now.saturating_sub(before) > PAUSE {
            self.last = Some((before, now));
        }
    }

    /// How long of it fell behind this moment: for as long nobody behind it could be heard.
    fn since(self, moment: Duration) -> Duration {
        self.last.map_or(Duration::ZERO, |(from, until)| until.saturating_sub(from.max(moment)))
    }
}

/// Why a host can no longer be called up, or when to look again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not before this moment.
    Fine { until: Duration },
    /// Not before this moment, and every scan may bring news.
    Wait { until: Duration },
    /// Nothing is overdue before it is heard of.
    Never,
    /// Nobody who could tell can be heard.
    Blind { until: Duration },
    /// It said goodbye.
    Gone,
    /// It is not heard although it could be.
    Silent,
}

/// What a way is like while nothing is heard by it.
enum Way {
    Open,
    /// Old entries of the feed's journal come first: live it has been silent since the first, and is called so at the second
    /// if nothing more comes.
    Replaying(Duration, Duration),
    /// Somebody on it has been silent since the first, and is found so at the second.
    Doubtful(Duration, Duration),
    /// Somebody on it is silent, down, unknown or stopped, since then.
    Closed(Duration),
}

impl Engine {
    /// What is to be said of a host that may be silent.
    pub(super) fn verdict(&self, name: &HostName, host: &Host) -> Verdict {
        if host.state == State::Down || host.paths.is_empty() || (!host.heard && self.lives_by_check(name)) {
            return Verdict::Never;
        }
        let now = self.attention;
        let after = host.tuning.host_down_after;
        let heard_at = host.heard_at;
        // At the earliest, if what has been silent since `from` is heard again at once.
        let earliest = |from: Duration| now + after.saturating_sub(from.saturating_sub(heard_at));
        let (mut open, mut excused, mut until) = (false, heard_at, None::<Duration>);
        let mut doubtful = false;
        for path in host.paths.current() {
            let next = match self.way(name, path, after) {
                Way::Replaying(..) if path.own => return Verdict::Wait { until: now },
                Way::Replaying(from, end) => return Verdict::Wait { until: end.min(earliest(from)) },
                Way::Open => {
                    let unheard = self.unheard(path);
                    excused = excused.max(now.min(path.heard_at + unheard));
                    open = true;
                    continue;
                }
                Way::Doubtful(from, found) => {
                    doubtful = true;
                    found.min(earliest(from))
                }
                Way::Closed(from) => earliest(from),
            };
            until = Some(until.map_or(next, |earlier| earlier.min(next)));
        }
        if !open {
            let until = until.unwrap_or(now);
            // What is heard is not unknown.
            let heard = now.saturating_sub(heard_at) <= PAUSE;
            return if doubtful || heard { Verdict::Wait { until } } else { Verdict::Blind { until } };
        }
        if let Some((_, at)) = host.goodbye {
            let until = at + host.tuning.stop_grace;
            return if now > until { Verdict::Gone } else { Verdict::Fine { until } };
        }
        let until = excused + after;
        if now > until { Verdict::Silent } else { Verdict::Fine { until } }
    }

    fn way(&self, name: &HostName, path: &Path, after: Duration) -> Way {
        let Some(feed) = self.feeds.get(&path.feed) else { return Way::Open };
        let now = self.attention;
        let silent = |heard_at: Duration, than: Duration| now.saturating_sub(heard_at) > than;
        // Its journal comes before what is live, and that may take its time.
        if let Some(at) = feed.entry_at
            && !silent(at, after)
            && silent(feed.heard_at, PAUSE)
        {
            return Way::Replaying(feed.heard_at, at + after);
        }
        // Whoever hears of itself by its own feed depends on nobody.
        if path.own {
            return Way::Open;
        }
        let own = feed.own.as_ref().filter(|own| *own != name).and_then(|own| self.hosts.get(own));
        let closed = own.filter(|own| own.carries_nothing());
        if silent(feed.heard_at, after) || closed.is_some() {
            return Way::Closed(closed.map_or(feed.heard_at, |own| own.heard_at));
        }
        let relays = || path.via.iter().filter(|relay| *relay != name).filter_map(|relay| self.hosts.get(relay));
        if let Some(relay) = relays().find(|relay| relay.carries_nothing()) {
            return Way::Closed(relay.heard_at);
        }
        // It may be the next to beat, or be found silent itself.
        if silent(feed.heard_at, PAUSE) {
            return Way::Doubtful(feed.heard_at, feed.heard_at + after);
        }
        match relays().find(|relay| relay.heard && silent(relay.heard_at, PAUSE)) {
            Some(relay) => Way::Doubtful(relay.heard_at, relay.heard_at + relay.tuning.host_down_after),
            None => Way::Open,
        }
    }

    /// Whose ccollectds carry what this host says, on this way of it.
    fn carriers<'a>(&'a self, name: &'a HostName, path: &'a Path) -> impl Iterator<Item = &'a HostName> {
        let feed = self.feeds.get(&path.feed).and_then(|feed| feed.own.as_ref());
        feed.filter(|_| !path.own).into_iter().chain(&path.via).filter(move |carrier| *carrier != name)
    }

    /// Without whom this host would be heard by nobody.
    pub(super) fn carried_only_by(&self, name: &HostName) -> BTreeSet<CheckAddress> {
        let mut ways = self.hosts.get(name).into_iter().flat_map(|host| host.paths.current());
        let carriers = |path| self.carriers(name, path).cloned().map(CheckAddress::alive).collect::<BTreeSet<_>>();
        let first = ways.next().map(carriers).unwrap_or_default();
        ways.fold(first, |common, path| common.intersection(&carriers(path)).cloned().collect())
    }

    /// Who is down, if this host is not heard and somebody is on each of its ways.
    pub(super) fn barred_by(&self, name: &HostName) -> BTreeSet<CheckAddress> {
        let mut down = BTreeSet::new();
        let Some(host) = self.hosts.get(name).filter(|host| host.is_away()) else { return down };
        for path in host.paths.current() {
            let alive = self.carriers(name, path).cloned().map(CheckAddress::alive);
            let barring: Vec<_> = alive.filter(|alive| self.is_down(alive)).collect();
            if barring.is_empty() {
                return BTreeSet::new();
            }
            down.extend(barring);
        }
        down
    }

    /// The hosts that have a way over this one, and maybe some that had.
    pub(super) fn carried_by(&mut self, carrier: &HostName) -> BTreeSet<HostName> {
        let index = self.carried.take().unwrap_or_else(|| {
            let mut index: BTreeMap<HostName, BTreeSet<HostName>> = BTreeMap::new();
            for (name, host) in &self.hosts {
                for on_way in host.paths.0.iter().flat_map(|path| self.carriers(name, path)) {
                    index.entry(on_way.clone()).or_default().insert(name.clone());
                }
            }
            index
        });
        self.carried.insert(index).get(carrier).cloned().unwrap_or_default()
    }

    /// For how long since it was last heard nobody could have heard it by this way.
    fn unheard(&self, path: &Path) -> Duration {
        if path.own {
            return Duration::ZERO;
        }
        let feed = self.feeds.get(&path.feed).map(|feed| feed.silence);
        let relays = path.via.iter().filter_map(|relay| self.hosts.get(relay)).map(|relay| relay.silence);
        feed.into_iter().chain(relays).map(|silence| silence.since(path.heard_at)).max().unwrap_or_default()
    }
}

/// The hosts whose own feed each is.
pub(super) fn own_feeds(hosts: &BTreeMap<HostName, Host>, feeds: &mut HashMap<String, Feed>) {
    for (name, host) in hosts {
        for feed in host.paths.own_feeds() {
            if let Some(feed) = feeds.get_mut(feed) {
                feed.own = Some(name.clone());
            }
        }
    }
}
