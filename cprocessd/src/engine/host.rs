//! Whether a host is alive: its own incident is `HOST!alive:`, and while it lasts its checks are unknown rather than down.

use super::incident::{CHECK, INITIAL, Key, Seen};
use super::{Engine, Feed, PAUSE, SETTLE, Saved, SavedHost};
use common::address::{CheckAddress, HostName};
use common::message::{Alive, Beat, FeedSnapshot, Kind, State};
use common::severity::Severity;
use common::time::{UnixMillis, for_people};
use std::collections::BTreeSet;
use std::time::Duration;

/// The last sign of life of a host is saved this often: it dates the outage if we restart just before we would notice it.
const SAVE_LAST_ALIVE_EVERY: Duration = Duration::from_mins(1);

/// A sign of life from before a goodbye comes at most this much after it: it was under way, while the goodbye took the way
/// of the journal. What comes later is from a host that is back, whatever its clock says.
const OVERTAKEN_AT_MOST: Duration = Duration::from_secs(10);

/// What we know of a host.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) state: State,
    /// Since when it is in this state.
    pub(super) since: UnixMillis,
    /// When we last heard of it, by our clock.
    pub(super) last_seen: UnixMillis,
    /// The last sign of life, by its own clock.
    last_alive: UnixMillis,
    /// The same on the clock of attention.
    heard_at: Duration,
    /// When it was last saved, on the clock of attention.
    saved_at: Duration,
    /// It has given a sign of life at all.
    heard: bool,
    feed: Option<String>,
    /// The feed it comes by is its own.
    own: bool,
    /// It was asked to stop, at this time by its own clock and by our attention.
    goodbye: Option<(UnixMillis, Duration)>,
    inventory_hash: String,
    /// Its configured checks.
    pub(super) inventory: BTreeSet<CheckAddress>,
    /// Checks and numbers that it has, for the bound.
    pub(super) addresses: usize,
}

impl Host {
    fn unheard(now: UnixMillis, attention: Duration) -> Self {
        Self {
            state: State::Unknown,
            since: now,
            last_seen: now,
            last_alive: now,
            heard_at: attention,
            saved_at: attention,
            heard: false,
            feed: None,
            own: false,
            goodbye: None,
            inventory_hash: String::new(),
            inventory: BTreeSet::new(),
            addresses: 0,
        }
    }

    /// Whether it has a ccollectd, whose silence says something about the host.
    pub(super) fn has_feed(&self) -> bool {
        self.feed.is_some()
    }

    /// Its silence counts from the start: nobody is blamed for our being away.
    pub(super) fn restored(saved: SavedHost, heard_at: Duration) -> Self {
        Self {
            state: saved.state,
            since: saved.since,
            last_seen: saved.last_seen,
            last_alive: saved.last_alive,
            heard_at,
            saved_at: Duration::ZERO,
            heard: saved.heard,
            feed: saved.feed,
            own: saved.own,
            goodbye: saved.goodbye.map(|time| (time, heard_at)),
            inventory_hash: saved.inventory_hash,
            inventory: saved.inventory.into_iter().collect(),
            addresses: 0,
        }
    }

    fn saved(&self) -> SavedHost {
        SavedHost {
            state: self.state,
            since: self.since,
            last_seen: self.last_seen,
            last_alive: self.last_alive,
            heard: self.heard,
            feed: self.feed.clone(),
            own: self.own,
            goodbye: self.goodbye.map(|(time, _)| time),
            inventory_hash: self.inventory_hash.clone(),
            inventory: self.inventory.iter().cloned().collect(),
        }
    }
}

fn alive_key(host: &HostName) -> Key {
    Key { address: CheckAddress::alive(host.clone()).into(), rule: CHECK.to_owned() }
}

impl Engine {
    pub(super) fn beat(&mut self, feed: &str, beat: Beat) {
        let attention = self.attention;
        let known = self.feeds.entry(feed.to_owned()).or_insert_with(|| Feed {
            own: None,
            heard_at: attention,
            entry_at: None,
        });
        let silence = attention.saturating_sub(std::mem::replace(&mut known.heard_at, attention));
        if beat.host.is_some() {
            known.own = beat.host;
        }
        if silence > PAUSE {
            // Those behind it could not be heard for as long.
            for host in self.hosts.values_mut().filter(|host| !host.own && host.feed.as_deref() == Some(feed)) {
                host.heard_at = attention.min(host.heard_at + silence);
            }
        }
    }

    pub(super) fn entry(&mut self, feed: &str) {
        if let Some(feed) = self.feeds.get_mut(feed) {
            feed.entry_at = Some(self.attention);
        }
    }

    pub(super) fn alive(&mut self, feed: &str, alive: Alive) {
        let (wall, attention) = (self.wall, self.attention);
        let name = alive.host.clone();
        let first = !self.hosts.contains_key(&name);
        let host = self.hosts.entry(name.clone()).or_insert_with(|| Host::unheard(wall, attention));
        let own = alive.via.is_empty();
        let moved = host.feed.as_deref() != Some(feed) || host.own != own;
        (host.feed, host.own) = (Some(feed.to_owned()), own);
        if let Some(addresses) = alive.addresses {
            host.inventory_hash = alive.inventory;
            self.inventory(&name, addresses.into_iter().collect());
        }
        match alive.seq {
            _ if alive.goodbye => self.goodbye(&name, alive.time),
            // From the journal: it may be old, so it is no sign of life.
            Some(_) if first || moved => self.save_host(&name),
            Some(_) => {}
            None => self.sign_of_life(&name, alive.time, first || moved),
        }
    }

    fn goodbye(&mut self, name: &HostName, time: UnixMillis) {
        let attention = self.attention;
        let Some(host) = self.hosts.get_mut(name) else { return };
        host.goodbye = Some((time, attention));
        host.last_alive = time;
        // Nobody looks at it any more, which is neither up nor down.
        if host.state == State::Up {
            (host.state, host.since) = (State::Unknown, time);
        }
        self.save_host(name);
        self.blind_checks(name);
        let seen = Seen { time, text: "ccollectd was asked to stop".into(), value: None, state: State::Unknown };
        self.say(&alive_key(name), Kind::Stopped, Severity::Info, seen);
    }

    fn sign_of_life(&mut self, name: &HostName, time: UnixMillis, news: bool) {
        let (wall, attention) = (self.wall, self.attention);
        let Some(host) = self.hosts.get_mut(name) else { return };
        let silence = attention.saturating_sub(std::mem::replace(&mut host.heard_at, attention));
        host.last_seen = wall;
        host.last_alive = time;
        let returned = match host.goodbye {
            Some((goodbye, at)) if time <= goodbye && attention.saturating_sub(at) <= OVERTAKEN_AT_MOST => return,
            goodbye => goodbye.is_some(),
        };
        host.goodbye = None;
        let first = !std::mem::replace(&mut host.heard, true);
        let was = host.state;
        if was != State::Up {
            (host.state, host.since) = (State::Up, time);
        }
        let news = news || attention.saturating_sub(host.saved_at) >= SAVE_LAST_ALIVE_EVERY;
        if returned || was != State::Up || news {
            self.save_host(name);
        }
        if was != State::Up || silence > PAUSE {
            self.expect_checks(name);
        }
        let key = alive_key(name);
        let seen = |text: &str| Seen { time, text: text.to_owned(), value: None, state: State::Up };
        if self.incidents.get(&key).is_some() {
            self.close(&key, Kind::Up, seen("heard again"));
        } else if returned {
            self.say(&key, Kind::Started, Severity::Info, seen("ccollectd runs again"));
        } else if first {
            let key = Key { rule: INITIAL.to_owned(), ..key };
            self.say(&key, Kind::Up, Severity::Debug, seen("heard for the first time"));
        }
    }

    /// The configured checks of a host, all of them.
    fn inventory(&mut self, name: &HostName, addresses: BTreeSet<CheckAddress>) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        let before = std::mem::replace(&mut host.inventory, addresses);
        let gone: Vec<_> = before.difference(&host.inventory).cloned().collect();
        let changed = before != host.inventory;
        for address in gone {
            self.retire_check(&address, "no longer configured");
        }
        if changed {
            self.save_host(name);
        }
    }

    pub(super) fn snapshot(&mut self, feed: &str, snapshot: FeedSnapshot) {
        let (wall, attention) = (self.wall, self.attention);
        for row in snapshot.hosts {
            let host = self.hosts.entry(row.host.clone()).or_insert_with(|| Host::unheard(wall, attention));
            (host.feed, host.own) = (Some(feed.to_owned()), row.via.is_empty());
            host.inventory_hash = row.hash;
            self.inventory(&row.host, row.inventory.into_iter().collect());
            self.save_host(&row.host);
        }
        for check in snapshot.checks {
            self.check(&check);
        }
    }

    /// A host that is only spoken of, by a check or a sample, without a ccollectd of its own.
    pub(super) fn touch_host(&mut self, name: &HostName) {
        if !self.hosts.contains_key(name) {
            self.hosts.insert(name.clone(), Host::unheard(self.wall, self.attention));
        }
    }

    /// How many of `wanted` new addresses of this host are acceptable; they are counted as had.
    pub(super) fn admit(&mut self, name: &HostName, wanted: usize) -> usize {
        self.touch_host(name);
        let bound = self.settings.max_addresses_per_host;
        let host = self.hosts.get_mut(name).expect("touched just now");
        let admitted = wanted.min(bound.saturating_sub(host.addresses));
        host.addresses += admitted;
        if admitted < wanted {
            self.outputs.push(super::Output::Refused("too_many_addresses"));
        }
        admitted
    }

    pub(super) fn release(&mut self, name: &HostName, n: usize) {
        if let Some(host) = self.hosts.get_mut(name) {
            host.addresses = host.addresses.saturating_sub(n);
        }
    }

    /// After a restart: what each host has.
    pub(super) fn count_checks(&mut self) {
        let names: Vec<_> = self.checks.keys().map(|address| address.host.clone()).collect();
        for name in names {
            self.touch_host(&name);
            if let Some(host) = self.hosts.get_mut(&name) {
                host.addresses += 1;
            }
        }
    }

    /// After a restart: what was not known before is not known now.
    pub(super) fn blind_checks_of_silent_hosts(&mut self) {
        let silent = |host: &&Host| host.feed.is_some() && host.state != State::Up;
        let silent = self.hosts.iter().filter(|(_, host)| silent(host));
        for name in silent.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.blind_checks(&name);
        }
    }

    /// Feeds without a beat, then hosts without a sign of life.
    pub(super) fn scan_hosts(&mut self) {
        let overdue: Vec<_> = self
            .hosts
            .iter()
            .filter(|(_, host)| host.feed.is_some())
            .filter_map(|(name, host)| Some((name.clone(), self.overdue(name, host)?)))
            .collect();
        for (name, overdue) in overdue {
            match overdue {
                Overdue::Down { since, text } => self.host_down(&name, since, text),
                Overdue::Blind => self.host_unknown(&name),
            }
        }
    }

    /// Why a host can no longer be called up, if so.
    fn overdue(&self, name: &HostName, host: &Host) -> Option<Overdue> {
        if host.state == State::Down {
            return None;
        }
        let tuning = self.settings.tuning(&CheckAddress::alive(name.clone()));
        let feed = host.feed.as_ref().and_then(|feed| self.feeds.get(feed));
        // Its journal comes before what is live, and that may take its time.
        let entry_at = feed.and_then(|feed| feed.entry_at);
        if entry_at.is_some_and(|at| self.attention.saturating_sub(at) <= tuning.host_down_after)
            && feed.is_some_and(|feed| self.attention.saturating_sub(feed.heard_at) > PAUSE)
        {
            return None;
        }
        // A host behind somebody else's ccollectd cannot be seen while that one is silent.
        if let (false, Some(feed)) = (host.own, feed) {
            let own = feed.own.as_ref().and_then(|own| self.hosts.get(own));
            let silence = self.attention.saturating_sub(feed.heard_at);
            if silence > tuning.host_down_after
                || own.is_some_and(|own| own.state == State::Down || own.goodbye.is_some())
            {
                return (host.state != State::Unknown).then_some(Overdue::Blind);
            }
            // It may be the next to beat, or be found silent itself.
            if silence > PAUSE {
                return None;
            }
        }
        if let Some((said, at)) = host.goodbye {
            let gone = self.attention.saturating_sub(at) > tuning.stop_grace;
            let text = format!("said goodbye and has not come back for {}", for_people(tuning.stop_grace));
            return gone.then_some(Overdue::Down { since: said, text });
        }
        let silence = self.attention.saturating_sub(host.heard_at);
        let text = format!("no sign of life for {}", for_people(tuning.host_down_after));
        (silence > tuning.host_down_after).then_some(Overdue::Down { since: host.last_alive, text })
    }

    fn host_down(&mut self, name: &HostName, since: UnixMillis, text: String) {
        let wall = self.wall;
        let Some(host) = self.hosts.get_mut(name) else { return };
        (host.state, host.since) = (State::Down, since);
        self.save_host(name);
        self.blind_checks(name);
        let seen = Seen { time: wall, text, value: None, state: State::Down };
        self.open(alive_key(name), Kind::Down, Severity::Crit, since, seen);
    }

    fn host_unknown(&mut self, name: &HostName) {
        let wall = self.wall;
        let Some(host) = self.hosts.get_mut(name) else { return };
        (host.state, host.since) = (State::Unknown, wall);
        self.save_host(name);
        self.blind_checks(name);
    }

    fn save_host(&mut self, name: &HostName) {
        let attention = self.attention;
        let saved = self.hosts.get_mut(name).map(|host| {
            host.saved_at = attention;
            host.saved()
        });
        self.save(Saved::Host(name.clone(), saved));
    }

    /// Whether a check's silence says something about the check, and not about its host or us.
    pub(super) fn can_be_heard(&self, name: &HostName) -> bool {
        self.attention > SETTLE
            && self.hosts.get(name).is_some_and(|host| {
                host.state == State::Up
                    && host.goodbye.is_none()
                    && self.attention.saturating_sub(host.heard_at) <= Duration::from_secs(2)
            })
    }
}

/// Why a host is not up any more.
enum Overdue {
    Down {
        since: UnixMillis,
        text: String,
    },
    /// The only one who could tell is silent.
    Blind,
}
