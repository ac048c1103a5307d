//! Whether a check is up, and since when.

use super::agentless::is_alive;
use super::alarm::AbsenceWatch;
use super::due::Tick;
use super::flapping::Flaps;
use super::host::Host;
use super::incident::{CHECK, INITIAL, Key, SILENT, Seen};
use super::settings::Tuning;
use super::votes::{Observers, Said};
use super::{Engine, MISSED_INTERVALS, OVERDUE_AT_ONCE, Output, Saved, SavedCheck, alarm};
use common::address::{CheckAddress, HostName, Name, Unit};
use common::message::{Check, Kind, State};
use common::severity::Severity;
use common::time::{UnixMillis, for_people};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Changes without a place in the journal that are remembered for each check; beyond it the oldest is dropped, and told again
/// if it gets one.
pub(super) const MAX_UNJOURNALED: usize = 32;

/// What we know of a check.
#[derive(Clone, Debug)]
pub(super) struct CheckEntry {
    /// As last observed.
    pub(super) up: bool,
    /// Since when nobody reports it, so that nobody knows.
    unknown: Option<UnixMillis>,
    /// It is unknown because it alone is not reported.
    silent: bool,
    /// Since when it is up or down.
    pub(super) since: UnixMillis,
    pub(super) interval_ms: u64,
    pub(super) text: String,
    /// Of the last row of bad observations: the first, and how many.
    bad_since: UnixMillis,
    bad_count: u32,
    last_bad: UnixMillis,
    last_blip: Option<UnixMillis>,
    pub(super) flaps: Flaps,
    /// Whose observation changed when while that one's disk failed. The same changes come again when they are journaled.
    pub(super) unjournaled: VecDeque<(HostName, UnixMillis)>,
    pub(super) observers: Observers,
    holding: Holding,
    /// On the clock of attention.
    pub(super) heard_at: Duration,
    /// The same, or since when its host can be heard again.
    expected_since: Duration,
    /// By then it is looked at whether it is missed.
    look_at: Tick,
    pub(super) tuning: Arc<Tuning>,
    pub(super) watches: Vec<AbsenceWatch>,
}

impl CheckEntry {
    pub(super) fn restored(
        saved: SavedCheck,
        open: bool,
        silent_since: Option<UnixMillis>,
        tuning: Arc<Tuning>,
        watches: Vec<AbsenceWatch>,
        heard_at: Duration,
    ) -> Self {
        let silent_since = saved.silent.or(silent_since);
        Self {
            up: saved.up,
            unknown: silent_since,
            silent: silent_since.is_some(),
            since: saved.since,
            interval_ms: saved.interval_ms,
            text: saved.text,
            bad_since: saved.bad_since,
            bad_count: saved.bad_count,
            last_bad: saved.bad_since,
            last_blip: saved.last_blip,
            flaps: Flaps::restored(saved.changes, saved.flapping),
            unjournaled: saved.unjournaled.into(),
            observers: Observers::restored(saved.from, saved.votes, heard_at),
            // What it did while its host was down may not have been told before we stopped.
            holding: if open && saved.up { Holding::Released } else { Holding::Told },
            heard_at,
            expected_since: heard_at,
            look_at: Tick::NEVER,
            tuning,
            watches,
        }
    }

    fn saved(&self) -> SavedCheck {
        let (changes, flapping) = self.flaps.saved();
        let (from, votes) = self.observers.saved();
        SavedCheck {
            up: self.up,
            since: self.since,
            interval_ms: self.interval_ms,
            text: self.text.clone(),
            bad_since: self.bad_since,
            bad_count: self.bad_count,
            last_blip: self.last_blip,
            changes,
            flapping,
            silent: self.unknown.filter(|_| self.silent),
            from,
            votes,
            unjournaled: self.unjournaled.iter().cloned().collect(),
        }
    }

    pub(super) fn state(&self) -> State {
        match (self.unknown, self.up) {
            (Some(_), _) => State::Unknown,
            (None, true) => State::Up,
            (None, false) => State::Down,
        }
    }

    /// Since when it is in its [`Self::state`].
    pub(super) fn state_since(&self) -> UnixMillis {
        self.unknown.unwrap_or(self.since)
    }

    /// It is reported, whatever is said.
    pub(super) fn heard(&mut self, attention: Duration) {
        (self.heard_at, self.expected_since) = (attention, attention);
    }

    /// When it will be missed if nothing comes, unless it is already: soonest of silence, `absent` rules and oblivion.
    fn missed_at(&self) -> Duration {
        let silent = (!self.silent && self.interval_ms > 0).then(|| self.expected_since + self.allowed());
        let absent = self.watches.iter().filter(|watch| !watch.open).map(|watch| self.heard_at + watch.lasting);
        let forgotten = self.expected_since + self.tuning.forget_discovered_after;
        absent.chain(silent).fold(forgotten, Duration::min)
    }

    fn allowed(&self) -> Duration {
        Duration::from_millis(self.interval_ms).saturating_mul(MISSED_INTERVALS)
    }

    /// Whether the `absent` rule at this place in the settings looks at it.
    pub(super) fn is_watched_by(&self, rule: usize) -> bool {
        self.watches.iter().any(|watch| watch.rule == rule)
    }
}

pub(super) fn key(address: &CheckAddress, rule: &str) -> Key {
    Key { address: address.clone().into(), rule: rule.to_owned() }
}

/// Where the checks of a host begin, in the order of addresses.
pub(super) fn first_of(host: &HostName) -> CheckAddress {
    // The least of the characters that a name may hold.
    let service = Name::try_from("-").expect("a name");
    CheckAddress { host: host.clone(), service, unit: Unit::default() }
}

/// Whether what changes is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    Told,
    /// Its host, which lives by its check `alive`, is down: what changes is kept.
    Held,
    /// No longer, but something may not have been told yet.
    Released,
}

/// What one observation means for an entry.
enum Meaning {
    Initial,
    Same,
    WentDown,
    CameUp,
}

/// What the silence about a check means.
enum Missed {
    Forgotten(Duration),
    Silent { listed: bool, allowed: Duration },
    Absent { rule: usize, lasting: Duration },
}

impl Engine {
    pub(super) fn check(&mut self, check: &Check) {
        if check.backfill {
            return;
        }
        let address = check.address();
        if self.is_alive_of_an_agent(&address) {
            self.outputs.push(Output::Refused("alive_by_another"));
            return;
        }
        let Some(Said { check, dissents }) = self.hear(&address, check) else {
            return self.look_at_check(&address);
        };
        let check = check.as_ref();
        let known = self.checks.get(&address).map(|entry| entry.up);
        let meaning = match known {
            Some(up) if up == check.up => Meaning::Same,
            Some(_) if check.up => Meaning::CameUp,
            Some(_) => Meaning::WentDown,
            None if self.admit(&address.host, 1) == 1 => Meaning::Initial,
            None => return,
        };
        if matches!(meaning, Meaning::Initial) {
            self.create(&address, check);
        }
        // Until it changed it was as before.
        let same_until = if matches!(meaning, Meaning::Same) { check.time } else { check.changed };
        self.calm_down(&address, same_until, check.origin.is_none());
        let attention = self.attention;
        let Some(entry) = self.checks.get_mut(&address) else { return };
        if entry.holding != Holding::Held {
            entry.unknown = None;
        }
        let was_silent = std::mem::take(&mut entry.silent);
        entry.heard(attention);
        entry.interval_ms = check.interval_ms;
        let text_before = std::mem::replace(&mut entry.text, check.text.clone());
        let released = entry.holding == Holding::Released;
        let seen = Seen { time: check.time, text: check.text.clone(), value: None, state: entry.state() };
        if was_silent {
            self.save_check(&address);
            self.heard_again(&address, &seen);
        }
        self.end_absence(&address, &seen);
        if matches!(meaning, Meaning::Initial) {
            self.end_expectation(&address.clone().into(), &seen);
        }
        match meaning {
            Meaning::Initial if check.up => self.say(&key(&address, INITIAL), Kind::Up, Severity::Debug, seen),
            Meaning::Same if check.up || dissents => {
                if released {
                    self.conclude(&address, check.time, false);
                }
            }
            Meaning::Same => {
                self.bad(&address, check, false);
                if text_before != check.text {
                    self.save_check(&address);
                }
            }
            Meaning::Initial | Meaning::WentDown => self.bad(&address, check, true),
            Meaning::CameUp => self.good(&address, check),
        }
        self.look_at_check(&address);
        // What was down and needed them to come up is told as its end.
        if known != Some(false) && check.up && check.retries > 0 {
            let attempts = if check.retries == 1 { "attempt" } else { "attempts" };
            self.blip(&address, check.time, format!("up after {} failed {attempts}", check.retries));
        }
        self.host_lives_by(&address);
        if self.awaits_observations(&address.host) {
            self.observed(&address.into(), check.time);
        }
    }

    fn create(&mut self, address: &CheckAddress, check: &Check) {
        let holding = match is_alive(address) {
            // A host that was listed and never heard may have been told to be down.
            true => Holding::Released,
            false if self.is_down_by_check(address) => Holding::Held,
            false => Holding::Told,
        };
        let entry = CheckEntry {
            up: check.up,
            unknown: None,
            silent: false,
            since: check.changed,
            interval_ms: check.interval_ms,
            text: check.text.clone(),
            bad_since: check.changed,
            bad_count: 0,
            last_bad: check.changed,
            last_blip: None,
            flaps: Flaps::default(),
            unjournaled: VecDeque::from_iter(check.origin.is_none().then(|| (check.from.clone(), check.changed))),
            observers: Observers::sole(check.from.clone()),
            holding,
            heard_at: self.attention,
            expected_since: self.attention,
            look_at: Tick::NEVER,
            tuning: self.tuning(address),
            watches: alarm::absence_watches(&self.settings.rules, address, &self.incidents),
        };
        self.checks.insert(address.clone(), entry);
        self.observes(&check.from, address);
        self.save_check(address);
    }

    /// A bad observation; `first` if the one before was good.
    fn bad(&mut self, address: &CheckAddress, check: &Check, first: bool) {
        let Some(entry) = self.checks.get_mut(address) else { return };
        // The first sight of something down is no change.
        let changed = std::mem::replace(&mut entry.up, false);
        let counts = first || check.time > entry.last_bad;
        if first {
            (entry.since, entry.bad_since) = (check.changed, check.changed);
            entry.bad_count = 1;
        } else if counts {
            entry.bad_count = entry.bad_count.saturating_add(1);
        }
        entry.last_bad = check.time;
        // Who starts now goes on counting.
        let is_news = first || (counts && entry.bad_count <= entry.tuning.confirm);
        if changed {
            self.count_change(address, check);
        }
        if is_news {
            self.save_check(address);
        }
        self.conclude(address, check.time, changed);
    }

    fn good(&mut self, address: &CheckAddress, check: &Check) {
        let Some(entry) = self.checks.get_mut(address) else { return };
        entry.up = true;
        entry.since = check.changed;
        self.count_change(address, check);
        self.save_check(address);
        self.conclude(address, check.time, true);
    }

    /// Makes what is open agree with what was observed until `time`, unless changes are held.
    pub(super) fn conclude(&mut self, address: &CheckAddress, time: UnixMillis, changed: bool) {
        let Some(entry) = self.checks.get_mut(address) else { return };
        if entry.holding == Holding::Held || entry.flaps.is_flapping() {
            return;
        }
        // What came and went while changes were held is no blip.
        let released = std::mem::replace(&mut entry.holding, Holding::Told) == Holding::Released;
        let check_key = key(address, CHECK);
        let seen = Seen { time, text: entry.text.clone(), value: None, state: State::Down };
        if !entry.up {
            if entry.bad_count >= entry.tuning.confirm {
                let since = entry.bad_since;
                let severity = if is_alive(address) { Severity::Crit } else { Severity::Err };
                self.open(check_key, Kind::Down, severity, since, seen);
            }
        } else if self.incidents.get(&check_key).is_some() {
            // The outage ended when the state changed, which may be before this observation of it.
            let seen = Seen { time: entry.since, state: State::Up, ..seen };
            self.close(&check_key, Kind::Up, seen);
        } else if changed && !released {
            let lasted = for_people(entry.since.since(entry.bad_since));
            self.blip(address, time, format!("was down for {lasted}, too shortly to count"));
        }
    }

    /// One WARN, then none until the check was clean for a while.
    fn blip(&mut self, address: &CheckAddress, time: UnixMillis, text: String) {
        let Some(entry) = self.checks.get_mut(address) else { return };
        let quiet = entry.tuning.blip_quiet;
        let held = entry.holding == Holding::Held || entry.flaps.is_flapping();
        let told = held || entry.last_blip.is_some_and(|last| time.since(last) < quiet);
        // One that was heard live may come again with the journal, behind a later one.
        entry.last_blip = entry.last_blip.max(Some(time));
        let state = entry.state();
        self.save_check(address);
        if !told {
            let seen = Seen { time, text, value: None, state };
            self.say(&key(address, "blip"), Kind::Blip, Severity::Warn, seen);
        }
    }

    fn heard_again(&mut self, address: &CheckAddress, seen: &Seen) {
        let silent = key(address, SILENT);
        if self.incidents.get(&silent).is_some() {
            self.close(&silent, Kind::Solved, Seen { text: "reported again".to_owned(), ..seen.clone() });
        }
    }

    /// The host can no longer be heard: its checks are unknown, without an event for each, and for as long as the host is not
    /// up. That is what a restart finds as well, which has nothing but the host to go by. So are those of others that it
    /// alone observes.
    pub(super) fn blind_checks(&mut self, host: &HostName) {
        let Some(since) = self.hosts.get(host).map(|host| host.since) else { return };
        let lives_by_check = self.lives_by_check(host);
        for (address, entry) in self.checks.range_mut(first_of(host)..).take_while(|(address, _)| address.host == *host)
        {
            if !(entry.silent || lives_by_check && is_alive(address)) {
                entry.unknown = Some(since);
            }
        }
        for address in self.observed_by(host) {
            let Some(entry) = self.checks.get(&address).filter(|entry| self.is_unobserved(entry)) else { continue };
            if entry.unknown.is_none() {
                if let Some(entry) = self.checks.get_mut(&address) {
                    entry.unknown = Some(since);
                }
                self.host_lives_by(&address);
            }
        }
    }

    /// From now on changes of this host's checks are kept untold, or no longer.
    pub(super) fn hold_checks(&mut self, host: &HostName, held: bool) {
        for (address, entry) in self.checks.range_mut(first_of(host)..).take_while(|(address, _)| address.host == *host)
        {
            if is_alive(address) {
                continue;
            }
            entry.holding = match (held, entry.holding) {
                (true, _) => Holding::Held,
                (false, Holding::Held) => Holding::Released,
                (false, before) => before,
            };
        }
    }

    /// The host is heard again: its checks have as long as ever to be reported.
    pub(super) fn expect_checks(&mut self, host: &HostName) {
        let attention = self.attention;
        for (_, entry) in self.checks.range_mut(first_of(host)..).take_while(|(address, _)| address.host == *host) {
            entry.expected_since = attention;
        }
        self.look_at_checks(host, attention);
        for address in self.observed_by(host) {
            if let Some(entry) = self.checks.get_mut(&address) {
                entry.expected_since = attention;
            }
            self.look_at_checks(&address.host, attention);
        }
    }

    /// This check is to be looked at when it will be missed, unless its host's checks are looked at before.
    fn look_at_check(&mut self, address: &CheckAddress) {
        let Some(entry) = self.checks.get_mut(address) else { return };
        let missed_at = entry.missed_at();
        if Tick::at(missed_at) < entry.look_at {
            entry.look_at = Tick::at(missed_at);
            self.look_at_checks(&address.host, missed_at);
        }
    }

    /// The checks of this host are to be looked at then, or before.
    pub(super) fn look_at_checks(&mut self, name: &HostName, moment: Duration) {
        if let Some(host) = self.hosts.get_mut(name)
            && Tick::at(moment) < host.look_at_checks
        {
            host.look_at_checks = self.due_checks.push(moment, name.clone());
        }
    }

    /// Checks that are not reported although their host is, or for so long that they are forgotten or a rule misses them.
    /// False if there may be more of them.
    pub(super) fn scan_checks(&mut self) -> bool {
        let mut missed = Vec::new();
        while missed.len() < OVERDUE_AT_ONCE
            && let Some((tick, name)) = self.due_checks.next(self.attention)
        {
            // A host may have been forgotten and its checks not.
            if self.has_checks(&name) {
                self.touch_host(&name);
            }
            if self
                .hosts
                .get(&name)
                .is_some_and(|host| host.look_at_checks == tick || host.look_at_checks == Tick::NEVER)
            {
                self.scan_checks_of(&name, &mut missed);
            }
        }
        missed.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (address, missed) in missed {
            match missed {
                Missed::Forgotten(after) => {
                    self.retire_check(&address, &format!("not reported for {}", for_people(after)));
                }
                Missed::Silent { listed, allowed } => self.fall_silent(&address, listed, allowed),
                Missed::Absent { rule, lasting } => self.absent(rule, address.into(), lasting),
            }
        }
        self.due_checks.is_done()
    }

    fn scan_checks_of(&mut self, name: &HostName, missed: &mut Vec<(CheckAddress, Missed)>) {
        let attention = self.attention;
        let Self { checks, hosts, due_checks, .. } = self;
        let Some(host) = hosts.get(name) else { return };
        // Forgotten now, it would come back with its host as another outage of the same date.
        let away = host.is_away();
        let of_host = |(address, _): &(&CheckAddress, &mut CheckEntry)| address.host == *name;
        let mut next = None::<Duration>;
        for (address, entry) in checks.range_mut(first_of(name)..).take_while(of_host) {
            let mut look_again = |at: Duration| next = Some(next.map_or(at, |soonest| soonest.min(at)));
            let silence = attention.saturating_sub(entry.heard_at);
            let listed = is_listed(hosts, host, address, entry);
            // What a rule would miss is not forgotten.
            if !listed && entry.watches.is_empty() && !away {
                let after = entry.tuning.forget_discovered_after;
                if attention.saturating_sub(entry.expected_since) > after {
                    missed.push((address.clone(), Missed::Forgotten(after)));
                    continue;
                }
                look_again(entry.expected_since + after);
            }
            if !entry.silent && entry.interval_ms > 0 {
                let allowed = entry.allowed();
                if attention.saturating_sub(entry.expected_since) <= allowed {
                    look_again(entry.expected_since + allowed);
                } else if is_expected(hosts, attention, address, entry) {
                    missed.push((address.clone(), Missed::Silent { listed, allowed }));
                }
                // Else it is expected anew when its observer is heard again.
            }
            for watch in entry.watches.iter_mut().filter(|watch| !watch.open) {
                if silence > watch.lasting {
                    watch.open = true;
                    missed.push((address.clone(), Missed::Absent { rule: watch.rule, lasting: watch.lasting }));
                } else {
                    look_again(entry.heard_at + watch.lasting);
                }
            }
        }
        let look_at = next.map_or(Tick::NEVER, |next| due_checks.push_spread(next, name.clone()));
        for (_, entry) in checks.range_mut(first_of(name)..).take_while(of_host) {
            entry.look_at = look_at;
        }
        if let Some(host) = hosts.get_mut(name) {
            host.look_at_checks = look_at;
        }
    }

    /// Whether a look at all checks would find that this one is missed.
    #[cfg(test)]
    pub(super) fn is_overlooked(&self, address: &CheckAddress, entry: &CheckEntry) -> bool {
        let silence = self.attention.saturating_sub(entry.heard_at);
        let listed = is_listed(&self.hosts, &self.hosts[&address.host], address, entry);
        let missed_for = self.attention.saturating_sub(entry.expected_since);
        let oblivion = missed_for > entry.tuning.forget_discovered_after && !self.hosts[&address.host].is_away();
        let forgotten = !listed && entry.watches.is_empty() && oblivion;
        let silent = !entry.silent
            && entry.interval_ms > 0
            && missed_for > entry.allowed()
            && is_expected(&self.hosts, self.attention, address, entry);
        forgotten || silent || entry.watches.iter().any(|watch| !watch.open && silence > watch.lasting)
    }

    fn fall_silent(&mut self, address: &CheckAddress, listed: bool, allowed: Duration) {
        let wall = self.wall;
        let Some(entry) = self.checks.get_mut(address) else { return };
        let since = wall.minus(allowed);
        entry.silent = true;
        entry.unknown = Some(since);
        self.save_check(address);
        if listed {
            let text = format!("not reported for {} although configured", for_people(allowed));
            let seen = Seen { time: wall, text, value: None, state: State::Unknown };
            self.open(key(address, SILENT), Kind::Absent, Severity::Warn, since, seen);
        }
        self.host_lives_by(address);
    }

    /// Nobody watches it any more: whatever is open about it is closed.
    pub(super) fn retire_check(&mut self, address: &CheckAddress, why: &str) {
        if let Some(entry) = self.checks.remove(address) {
            self.release(&address.host, 1);
            self.save(Saved::Check(address.clone(), None));
            for from in entry.observers.names() {
                self.observes_no_more(from, address);
            }
            self.end_flapping(address, entry, why);
            self.host_loses(address);
        }
        self.retire_incidents_at(&address.clone().into(), why);
    }

    pub(super) fn save_check(&mut self, address: &CheckAddress) {
        let saved = self.checks.get(address).map(CheckEntry::saved);
        self.save(Saved::Check(address.clone(), saved));
    }
}

/// Whether a configuration asks for it: its own host's, or that of one who observes it.
fn is_listed(hosts: &BTreeMap<HostName, Host>, host: &Host, address: &CheckAddress, entry: &CheckEntry) -> bool {
    let others = entry.observers.names().filter(|from| **from != address.host);
    host.inventory.contains(address)
        || others.filter_map(|from| hosts.get(from)).any(|observer| observer.inventory.contains(address))
}

/// Whether its silence says something about the check, and not about its observers or us.
fn is_expected(
    hosts: &BTreeMap<HostName, Host>,
    attention: Duration,
    address: &CheckAddress,
    entry: &CheckEntry,
) -> bool {
    let can_be_heard = |name: &HostName| hosts.get(name).is_some_and(|host| host.can_be_heard(attention));
    let mut observers = entry.observers.names().peekable();
    // Of what was kept before observers were, only the host is known.
    match observers.peek() {
        Some(_) => observers.any(can_be_heard),
        None => can_be_heard(&address.host),
    }
}
