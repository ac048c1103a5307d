//! Hosts without a ccollectd: a router, a printer.
//!
//! Such a host lives by a check that somebody else makes of it, at the address `HOST!alive:` where every host has its own
//! incident. Its state is that check's; while it is down its other checks are unknown, and what they do meanwhile is held,
//! so that there is one event. Once the host gives a sign of life itself, its own word counts: the check is dropped, and what
//! is still reported of it is refused. `cctl forget` makes it a host without a ccollectd again.

use super::check::first_of;
use super::incident::CHECK;
use super::{Engine, Saved};
use common::address::{CheckAddress, HostName};
use common::message::State;

/// Whether this is the address of a host itself.
pub(super) fn is_alive(address: &CheckAddress) -> bool {
    address.service.as_str() == "alive" && address.unit.as_str().is_empty()
}

impl Engine {
    /// Whether a check speaks for this host, since it gave no sign of life itself.
    pub(super) fn lives_by_check(&self, name: &HostName) -> bool {
        self.hosts.get(name).is_some_and(|host| !host.heard)
            && self.checks.contains_key(&CheckAddress::alive(name.clone()))
    }

    /// Whether somebody else speaks for a host that speaks for itself.
    pub(super) fn is_alive_of_an_agent(&self, address: &CheckAddress) -> bool {
        is_alive(address) && self.hosts.get(&address.host).is_some_and(|host| host.heard)
    }

    /// Whether the host of this check is down by its check `alive`.
    pub(super) fn is_down_by_check(&self, address: &CheckAddress) -> bool {
        !is_alive(address)
            && self.hosts.get(&address.host).is_some_and(|host| host.state == State::Down)
            && self.lives_by_check(&address.host)
    }

    /// After an observation of this check: if it speaks for its host, the host is as it says.
    pub(super) fn host_lives_by(&mut self, address: &CheckAddress) {
        if !is_alive(address) {
            return;
        }
        let wall = self.wall;
        let Some(entry) = self.checks.get(address) else { return };
        let (state, since) = (entry.state(), entry.state_since());
        let Some(host) = self.hosts.get_mut(&address.host) else { return };
        if state != State::Unknown {
            host.last_seen = wall;
        }
        if host.state == state {
            return;
        }
        (host.state, host.since) = (state, since);
        self.host_changed(&address.host, state);
    }

    fn host_changed(&mut self, name: &HostName, state: State) {
        self.save_host(name);
        self.hold_checks(name, state == State::Down);
        match state {
            State::Up => self.expect_checks(name),
            _ => self.blind_checks(name),
        }
    }

    /// A check is gone: if it spoke for its host, nobody knows any more.
    pub(super) fn host_loses(&mut self, address: &CheckAddress) {
        let wall = self.wall;
        let Some(host) = self.hosts.get_mut(&address.host) else { return };
        if is_alive(address) && !host.heard && host.state != State::Unknown {
            (host.state, host.since) = (State::Unknown, wall);
            self.host_changed(&address.host, State::Unknown);
        }
    }

    /// The host has given its first sign of life. What is open at its address is closed by who was told so.
    pub(super) fn lives_by_itself(&mut self, name: &HostName) {
        let address = CheckAddress::alive(name.clone());
        self.hold_checks(name, false);
        let Some(entry) = self.checks.remove(&address) else { return };
        self.release(name, 1);
        self.save(Saved::Check(address.clone(), None));
        for from in entry.observers.names() {
            self.observes_no_more(from, &address);
        }
        self.end_flapping(&address, entry, "its own ccollectd is heard");
        // All but what the sign of life itself closes.
        let keys: Vec<_> = self.incidents.at(&address.into()).map(|(key, _)| key.clone()).collect();
        for key in keys.into_iter().filter(|key| key.rule != CHECK) {
            self.retire(&key, "its own ccollectd is heard");
        }
    }

    /// After a restart: who observes what, and what is held.
    pub(super) fn find_observers(&mut self) {
        let observers: Vec<_> = self
            .checks
            .iter()
            .flat_map(|(address, entry)| entry.observers.names().map(move |from| (from.clone(), address.clone())))
            .filter(|(from, address)| *from != address.host)
            .collect();
        for (from, address) in observers {
            self.observes(&from, &address);
        }
        let down = self.hosts.iter().filter(|(name, host)| host.state == State::Down && self.lives_by_check(name));
        let down: Vec<_> = down.map(|(name, _)| name.clone()).collect();
        for name in down {
            self.hold_checks(&name, true);
            self.blind_checks(&name);
        }
    }

    /// Whether anything is checked of this host.
    pub(super) fn has_checks(&self, name: &HostName) -> bool {
        self.checks.range(first_of(name)..).next().is_some_and(|(address, _)| address.host == *name)
    }
}
