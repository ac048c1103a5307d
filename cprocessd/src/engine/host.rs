//! Whether a host is alive: its own incident is `HOST!alive:`, and while it lasts its checks are unknown rather than down.

use super::clock::Clock;
use super::due::Tick;
use super::incident::{CHECK, INITIAL, Key, Seen};
use super::paths::{MAX_VIA, Paths, Quiet, Verdict};
use super::settings::Tuning;
use super::{Engine, Feed, OVERDUE_AT_ONCE, PAUSE, SETTLE, Saved, SavedHost};
use common::address::{CheckAddress, HostName};
use common::message::{Alive, Beat, FeedSnapshot, Kind, State};
use common::severity::Severity;
use common::time::{UnixMillis, for_people};
use std::collections::BTreeSet;
use std::sync::Arc;
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
    /// The same on the clock of attention, by whichever way.
    pub(super) heard_at: Duration,
    /// Its last silence.
    pub(super) silence: Quiet,
    /// Since when it is up, on the clock of attention: what it has may be expected since then.
    up_at: Duration,
    pub(super) clock: Clock,
    /// When it was last saved, on the clock of attention.
    saved_at: Duration,
    /// It has given a sign of life at all.
    pub(super) heard: bool,
    /// The ways by which it is heard; none if it is only spoken of.
    pub(super) paths: Paths,
    /// It was asked to stop, at this time by its own clock and by our attention.
    pub(super) goodbye: Option<(UnixMillis, Duration)>,
    inventory_hash: String,
    /// Its configured checks.
    pub(super) inventory: BTreeSet<CheckAddress>,
    /// Checks and numbers that it has, for the bound.
    pub(super) addresses: usize,
    /// Of `HOST!alive:`.
    pub(super) tuning: Arc<Tuning>,
    /// When it is looked at whether it is silent.
    look_at: Tick,
    /// When its checks are looked at.
    pub(super) look_at_checks: Tick,
}

impl Host {
    fn unheard(now: UnixMillis, attention: Duration, tuning: Arc<Tuning>) -> Self {
        Self {
            state: State::Unknown,
            since: now,
            last_seen: now,
            last_alive: now,
            heard_at: attention,
            silence: Quiet::default(),
            up_at: attention,
            clock: Clock::default(),
            saved_at: attention,
            heard: false,
            paths: Paths::default(),
            goodbye: None,
            inventory_hash: String::new(),
            inventory: BTreeSet::new(),
            addresses: 0,
            tuning,
            look_at: Tick::NEVER,
            look_at_checks: Tick::NEVER,
        }
    }

    /// Since when what it has may be expected: now, while the host itself cannot be heard.
    pub(super) fn expected_since(&self, attention: Duration) -> Duration {
        if self.is_away() { attention } else { self.up_at }
    }

    /// Whether its ccollectd cannot be heard, so that the silence of its checks says nothing about them.
    pub(super) fn is_away(&self) -> bool {
        !self.paths.is_empty() && self.state != State::Up
    }

    /// Its silence counts from the start: nobody is blamed for our being away.
    pub(super) fn restored(saved: SavedHost, clock: Clock, heard_at: Duration, tuning: Arc<Tuning>) -> Self {
        Self {
            state: saved.state,
            since: saved.since,
            last_seen: saved.last_seen,
            last_alive: saved.last_alive,
            heard_at,
            silence: Quiet::default(),
            up_at: heard_at,
            clock,
            saved_at: Duration::ZERO,
            heard: saved.heard,
            paths: Paths::restored(saved.paths, saved.feed, saved.own, heard_at),
            goodbye: saved.goodbye.map(|time| (time, heard_at)),
            inventory_hash: saved.inventory_hash,
            inventory: saved.inventory.into_iter().collect(),
            addresses: 0,
            tuning,
            look_at: Tick::NEVER,
            look_at_checks: Tick::NEVER,
        }
    }

    /// Whether it gives signs of life.
    pub(super) fn is_heard(&self) -> bool {
        self.heard && self.state == State::Up
    }

    /// Whether what it does not say says something.
    pub(super) fn can_be_heard(&self, attention: Duration) -> bool {
        attention > SETTLE
            && self.state == State::Up
            && self.goodbye.is_none()
            && attention.saturating_sub(self.heard_at) <= PAUSE
    }

    /// Whether nobody can be heard through its ccollectd. One that was never heard itself says nothing of those that are.
    pub(super) fn carries_nothing(&self) -> bool {
        self.state == State::Down || self.goodbye.is_some() || (self.state == State::Unknown && self.heard)
    }

    fn saved(&self) -> SavedHost {
        let latest = self.paths.latest();
        SavedHost {
            state: self.state,
            since: self.since,
            last_seen: self.last_seen,
            last_alive: self.last_alive,
            heard: self.heard,
            feed: latest.map(|(feed, _)| feed.to_owned()),
            own: latest.is_some_and(|(_, own)| own),
            paths: self.paths.saved(),
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
        if !self.feeds.contains_key(feed) {
            self.feeds.insert(feed.to_owned(), Feed::new(attention));
        }
        let Some(known) = self.feeds.get_mut(feed) else { return };
        let before = std::mem::replace(&mut known.heard_at, attention);
        known.silence.heard(before, attention);
        if beat.host.is_some() && known.own != beat.host {
            known.own = beat.host;
            self.carried = None;
        }
    }

    pub(super) fn entry(&mut self, feed: &str) {
        if let Some(feed) = self.feeds.get_mut(feed) {
            feed.entry_at = Some(self.attention);
        }
    }

    pub(super) fn alive(&mut self, feed: &str, alive: Alive) {
        if alive.via.len() > MAX_VIA {
            self.outputs.push(super::Output::Refused("too_many_relays"));
            return;
        }
        let attention = self.attention;
        let name = alive.host.clone();
        let first = self.touch_host(&name);
        let Some(host) = self.hosts.get_mut(&name) else { return };
        // From the journal: it may be old, so it is no sign of life and says little of how it is heard now.
        let journaled = alive.seq.is_some();
        let stale = host.tuning.host_down_after;
        let moved = (!journaled || host.paths.is_empty()) && host.paths.heard(feed, &alive.via, attention, stale);
        if moved {
            if host.paths.are_carried() {
                self.carried = None;
            }
            self.look_at_host(&name, attention);
        }
        if let Some(addresses) = alive.addresses {
            if let Some(host) = self.hosts.get_mut(&name) {
                host.inventory_hash = alive.inventory;
            }
            self.inventory(&name, addresses.into_iter().collect());
        }
        if alive.goodbye {
            self.goodbye(&name, alive.time);
        } else if !journaled {
            self.sign_of_life(&name, alive.time, first || moved);
        } else if first || moved {
            self.save_host(&name);
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
        self.forget_clock(name);
        self.save_host(name);
        self.blind_checks(name);
        self.reach_of_host_changed(name, time);
        let seen = Seen { time, text: "ccollectd was asked to stop".into(), value: None, state: State::Unknown };
        self.say(&alive_key(name), Kind::Stopped, Severity::Info, seen);
    }

    fn sign_of_life(&mut self, name: &HostName, time: UnixMillis, news: bool) {
        let (wall, attention) = (self.wall, self.attention);
        let Some(host) = self.hosts.get_mut(name) else { return };
        let before = std::mem::replace(&mut host.heard_at, attention);
        let silence = attention.saturating_sub(before);
        host.silence.heard(before, attention);
        host.last_seen = wall;
        host.last_alive = time;
        let returned = match host.goodbye {
            Some((goodbye, at)) if time <= goodbye && attention.saturating_sub(at) <= OVERTAKEN_AT_MOST => return,
            goodbye => goodbye.is_some(),
        };
        host.goodbye = None;
        self.compare_clocks(name, time);
        let Some(host) = self.hosts.get_mut(name) else { return };
        let first = !std::mem::replace(&mut host.heard, true);
        if first {
            self.lives_by_itself(name);
        }
        let Some(host) = self.hosts.get_mut(name) else { return };
        let was = host.state;
        if was != State::Up {
            (host.state, host.since) = (State::Up, time);
            host.up_at = attention;
            self.look_at_host(name, attention);
            self.count_clocks_anew();
        }
        let Some(host) = self.hosts.get_mut(name) else { return };
        let news = news || attention.saturating_sub(host.saved_at) >= SAVE_LAST_ALIVE_EVERY;
        if returned || was != State::Up || news {
            self.save_host(name);
        }
        if was != State::Up || silence > PAUSE {
            self.expect_checks(name);
        }
        if was == State::Unknown {
            self.reach_of_host_changed(name, time);
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
            if !self.withdraw(&address, name) {
                self.retire_check(&address, "no longer configured");
            }
        }
        if changed {
            self.save_host(name);
            self.look_at_checks(name, self.attention);
        }
    }

    pub(super) fn snapshot(&mut self, feed: &str, snapshot: FeedSnapshot) {
        let attention = self.attention;
        for row in snapshot.hosts {
            self.touch_host(&row.host);
            let Some(host) = self.hosts.get_mut(&row.host) else { continue };
            // What is said here is what is known, not what is heard.
            if !host.paths.has_feed(feed) && row.via.len() <= MAX_VIA {
                let heard_at = host.heard_at;
                host.paths.heard(feed, &row.via, heard_at, Duration::MAX);
                self.carried = None;
                self.reach_of_host_changed(&row.host, self.wall);
            }
            let Some(host) = self.hosts.get_mut(&row.host) else { continue };
            host.inventory_hash = row.hash;
            self.look_at_host(&row.host, attention);
            self.inventory(&row.host, row.inventory.into_iter().collect());
            self.save_host(&row.host);
        }
        for check in snapshot.checks {
            self.check(&check);
        }
    }

    /// Makes room for a host that is spoken of, by a check, a sample or its own ccollectd. Whether it is new.
    pub(super) fn touch_host(&mut self, name: &HostName) -> bool {
        if self.hosts.contains_key(name) {
            return false;
        }
        let tuning = self.tuning(&CheckAddress::alive(name.clone()));
        self.hosts.insert(name.clone(), Host::unheard(self.wall, self.attention, tuning));
        true
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
        let mut counts: Vec<(HostName, usize)> = Vec::new();
        for address in self.checks.keys() {
            match counts.last_mut().filter(|(host, _)| *host == address.host) {
                Some((_, count)) => *count += 1,
                None => counts.push((address.host.clone(), 1)),
            }
        }
        for (name, count) in counts {
            self.touch_host(&name);
            if let Some(host) = self.hosts.get_mut(&name) {
                host.addresses += count;
            }
        }
    }

    /// After a restart: what was not known before is not known now.
    pub(super) fn blind_checks_of_silent_hosts(&mut self) {
        let silent: Vec<_> =
            self.hosts.iter().filter(|(_, host)| host.is_away()).map(|(name, _)| name.clone()).collect();
        for name in silent {
            self.blind_checks(&name);
        }
    }

    /// This host may be overdue from now on, or soon.
    fn look_at_host(&mut self, name: &HostName, moment: Duration) {
        if let Some(host) = self.hosts.get_mut(name)
            && Tick::at(moment) < host.look_at
        {
            host.look_at = self.due_hosts.push(moment, name.clone());
        }
    }

    /// As after a start, or when other times hold.
    pub(super) fn look_at_everything(&mut self, moment: Duration) {
        let names: Vec<_> = self.hosts.keys().cloned().collect();
        for name in names {
            self.look_at_host(&name, moment);
            self.look_at_checks(&name, moment);
        }
    }

    /// Hosts without a sign of life. False if there may be more of them.
    pub(super) fn scan_hosts(&mut self) -> bool {
        let mut overdue = Vec::new();
        while overdue.len() < OVERDUE_AT_ONCE
            && let Some((tick, name)) = self.due_hosts.next(self.attention)
        {
            let Some(host) = self.hosts.get_mut(&name).filter(|host| host.look_at == tick) else { continue };
            // Nearly all have been heard meanwhile, so nothing else needs to be asked about them.
            let silent_at = host.heard_at + host.tuning.host_down_after;
            if host.state == State::Up && self.attention <= silent_at {
                host.look_at = self.due_hosts.push_spread(silent_at, name);
                continue;
            }
            let Some(host) = self.hosts.get(&name) else { continue };
            let verdict = self.verdict(&name, host);
            let unknown = host.state == State::Unknown;
            let look_at = match verdict {
                Verdict::Never | Verdict::Gone | Verdict::Silent => Tick::NEVER,
                Verdict::Wait { until } => self.due_hosts.push(until, name.clone()),
                Verdict::Fine { until } | Verdict::Blind { until } => self.due_hosts.push_spread(until, name.clone()),
            };
            if let Some(host) = self.hosts.get_mut(&name) {
                host.look_at = look_at;
            }
            if matches!(verdict, Verdict::Gone | Verdict::Silent)
                || (matches!(verdict, Verdict::Blind { .. }) && !unknown)
            {
                overdue.push((name, verdict));
            }
        }
        overdue.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, verdict) in overdue {
            let Some(host) = self.hosts.get(&name) else { continue };
            let (since, after, grace) = (host.last_alive, host.tuning.host_down_after, host.tuning.stop_grace);
            match (verdict, host.goodbye) {
                (Verdict::Gone, Some((said, _))) => {
                    let text = format!("said goodbye and has not come back for {}", for_people(grace));
                    self.host_down(&name, said, text);
                }
                (Verdict::Blind { .. }, _) => self.host_unknown(&name),
                _ => self.host_down(&name, since, format!("no sign of life for {}", for_people(after))),
            }
        }
        self.due_hosts.is_done()
    }

    fn host_down(&mut self, name: &HostName, since: UnixMillis, text: String) {
        let wall = self.wall;
        let Some(host) = self.hosts.get_mut(name) else { return };
        (host.state, host.since) = (State::Down, since);
        self.forget_clock(name);
        self.save_host(name);
        self.blind_checks(name);
        let seen = Seen { time: wall, text, value: None, state: State::Down };
        self.open(alive_key(name), Kind::Down, Severity::Crit, since, seen);
    }

    fn host_unknown(&mut self, name: &HostName) {
        let wall = self.wall;
        let Some(host) = self.hosts.get_mut(name) else { return };
        (host.state, host.since) = (State::Unknown, wall);
        self.forget_clock(name);
        self.save_host(name);
        self.blind_checks(name);
        self.reach_of_host_changed(name, wall);
    }

    pub(super) fn save_host(&mut self, name: &HostName) {
        let attention = self.attention;
        let saved = self.hosts.get_mut(name).map(|host| {
            host.saved_at = attention;
            host.saved()
        });
        self.save(Saved::Host(name.clone(), saved));
    }
}
