//! A check that changes too often.
//!
//! A person who is told of each of forty changes learns less than one who is told that it flaps, so from the change that is
//! one too many on single changes are held: no incident opens or closes, while the state that is shown stays true. Once it
//! was calm for long enough the outcome is told, by the same rules as ever.
//!
//! All of it runs in the observer's time and is looked at with each observation, never by our clock: a check that nobody
//! reports, because it fell silent or its host died, goes on flapping until it is observed again, since nobody knows what it
//! did meanwhile. What is retired or forgotten is told to be over: who heard of the beginning hears of the end.

use super::check::{CheckEntry, key};
use super::incident::{FLAPPING, Seen};
use super::settings::Tuning;
use super::{Engine, Output, SavedFlapping, incident};
use common::address::CheckAddress;
use common::message::{Check, EventId, IncidentId, Kind, State};
use common::severity::Severity;
use common::time::{UnixMillis, for_people};
use std::collections::VecDeque;

/// The changes of a check that matter for whether it flaps.
#[derive(Clone, Debug, Default)]
pub(super) struct Flaps {
    /// Those of the last window, oldest first: at most as many as may be without flapping. Empty while it flaps.
    recent: VecDeque<UnixMillis>,
    flapping: Option<SavedFlapping>,
}

impl Flaps {
    pub(super) fn restored(changes: Vec<UnixMillis>, flapping: Option<SavedFlapping>) -> Self {
        Self { recent: changes.into(), flapping }
    }

    pub(super) fn saved(&self) -> (Vec<UnixMillis>, Option<SavedFlapping>) {
        (self.recent.iter().copied().collect(), self.flapping.clone())
    }

    pub(super) fn is_flapping(&self) -> bool {
        self.flapping.is_some()
    }

    /// Counts a change. Whether it is the one too many.
    fn change(&mut self, at: UnixMillis, tuning: &Tuning) -> bool {
        if let Some(flapping) = &mut self.flapping {
            flapping.changes = flapping.changes.saturating_add(1);
            flapping.last = at;
            return false;
        }
        // Later than this one are those from before its clock was put back.
        self.recent.retain(|earlier| *earlier <= at && at.since(*earlier) <= tuning.flap_window);
        self.recent.push_back(at);
        self.recent.len() > tuning.flap_changes
    }

    fn begin(&mut self, top_severity: Severity, suppressed_by: Vec<String>) -> Option<SavedFlapping> {
        let (first, last) = (*self.recent.front()?, *self.recent.back()?);
        let changes = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        self.recent.clear();
        self.flapping = Some(SavedFlapping { since: first, last, changes, top_severity, suppressed_by });
        self.flapping.clone()
    }

    /// Takes the flapping away if nothing has changed for long enough. `live` is what was observed just now, not an old entry
    /// of a journal.
    fn end_if_calm(&mut self, at: UnixMillis, live: bool, tuning: &Tuning) -> Option<SavedFlapping> {
        let flapping = self.flapping.as_mut()?;
        if live && at < flapping.last {
            // Its clock was put back: how long it is calm is not known, so the wait begins anew.
            flapping.last = at;
        }
        if at.since(flapping.last) < tuning.flap_calm { None } else { self.flapping.take() }
    }
}

impl SavedFlapping {
    fn text(&self) -> String {
        format!("{} changes in {}", self.changes, for_people(self.last.since(self.since)))
    }
}

impl Engine {
    /// The check was seen unchanged until this time; `live` if just now, not in an old entry of a journal.
    pub(super) fn calm_down(&mut self, address: &CheckAddress, at: UnixMillis, live: bool) {
        let Some(entry) = self.checks.get_mut(address) else { return };
        let Some(over) = entry.flaps.end_if_calm(at, live, &entry.tuning) else { return };
        let state = if entry.up { State::Up } else { State::Down };
        let text = format!("calm again after {}: {state}", over.text());
        self.save_check(address);
        self.say_flapping(address, &over, 2, Seen { time: at, text, value: None, state });
        self.conclude(address, at, false);
    }

    /// Counts a change, which the entry has already made.
    pub(super) fn count_change(&mut self, address: &CheckAddress, check: &Check) {
        let Some(entry) = self.checks.get_mut(address) else { return };
        if !entry.flaps.change(check.changed, &entry.tuning) {
            return;
        }
        let suppressed_by = self.passing_suppressed_by(Kind::Flapping, &address.clone().into());
        let Some(entry) = self.checks.get_mut(address) else { return };
        let severity = self.settings.classify(Kind::Flapping, &address.clone().into(), Severity::Warn);
        let Some(flapping) = entry.flaps.begin(severity, suppressed_by) else { return };
        let calm = for_people(entry.tuning.flap_calm);
        let text = format!("{}; single ones are not told until it is calm for {calm}", flapping.text());
        let state = if entry.up { State::Up } else { State::Down };
        self.say_flapping(address, &flapping, 1, Seen { time: check.time, text, value: None, state });
    }

    /// The check is gone, and so is its flapping.
    pub(super) fn end_flapping(&mut self, address: &CheckAddress, entry: CheckEntry, why: &str) {
        if let Some(over) = entry.flaps.flapping {
            let text = format!("{why}, after {}", over.text());
            let seen = Seen { time: self.wall, text, value: None, state: State::Unknown };
            self.say_flapping(address, &over, 2, seen);
        }
    }

    fn say_flapping(&mut self, address: &CheckAddress, flapping: &SavedFlapping, ordinal: u32, seen: Seen) {
        let key = key(address, FLAPPING);
        let incident = IncidentId::new(&key.address, &key.rule, flapping.since);
        let ends = ordinal > 1;
        let severity = if ends { Severity::Info } else { flapping.top_severity };
        let duration_ms = ends.then(|| flapping.last.millis_since(flapping.since));
        let draft = incident::Draft {
            id: EventId::new(incident, Kind::Flapping, ordinal),
            incident,
            // Who takes only what is as bad as its beginning hears of its end.
            top_severity: flapping.top_severity,
            since: flapping.since,
            duration_ms,
            // And only who heard of its beginning.
            suppressed_by: flapping.suppressed_by.clone(),
            ..incident::passing(&key, Kind::Flapping, severity, seen)
        };
        self.outputs.push(Output::Event(draft));
    }
}
