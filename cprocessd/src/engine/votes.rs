//! Several observers of one thing.
//!
//! A check that is observed by one host is what that host says. Once a second host reports it too, each one's last word is
//! kept, and `agree` says how many of them make it down. Who has not reported for three of its intervals, or whose own host
//! is silent, has no vote. What they say together is then judged like the word of one: an outage begins and ends at the
//! change, or if nobody changed but a vote was lost or won, at the observation, that turned it.

use super::check::{CheckEntry, MAX_UNJOURNALED};
use super::settings::Agree;
use super::{Engine, MISSED_INTERVALS, OVERTAKEN_AT_MOST_MS, Output};
use common::address::{CheckAddress, HostName};
use common::message::Check;
use common::time::UnixMillis;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::Duration;

/// Observers of one check; of more, the one that was not heard for longest makes way.
const MAX_OBSERVERS: usize = 16;

/// What one observer last said.
#[derive(Clone, Debug)]
pub(super) struct Vote {
    from: HostName,
    up: bool,
    /// When it changed last.
    changed: UnixMillis,
    interval_ms: u64,
    text: String,
    /// On the clock of attention.
    heard_at: Duration,
}

/// The same as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are the fields of a check, as one observer sees it")]
pub struct SavedVote {
    pub from: HostName,
    pub up: bool,
    pub changed: UnixMillis,
    pub interval_ms: u64,
    pub text: String,
}

/// Who observes a check.
#[derive(Clone, Debug, Default)]
pub(super) struct Observers {
    /// Whose word the check's state is, while there is only one. Absent before the first, and in what was kept before
    /// observers were.
    sole: Option<HostName>,
    /// In the order of their names; empty while there is only one.
    several: Vec<Vote>,
}

impl Observers {
    pub(super) fn sole(from: HostName) -> Self {
        Self { sole: Some(from), several: Vec::new() }
    }

    pub(super) fn restored(sole: Option<HostName>, several: Vec<SavedVote>, heard_at: Duration) -> Self {
        let vote = |SavedVote { from, up, changed, interval_ms, text }| Vote {
            from,
            up,
            changed,
            interval_ms,
            text,
            heard_at,
        };
        Self { sole, several: several.into_iter().map(vote).collect() }
    }

    pub(super) fn saved(&self) -> (Option<HostName>, Vec<SavedVote>) {
        let vote = |vote: &Vote| SavedVote {
            from: vote.from.clone(),
            up: vote.up,
            changed: vote.changed,
            interval_ms: vote.interval_ms,
            text: vote.text.clone(),
        };
        (self.sole.clone(), self.several.iter().map(vote).collect())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &HostName> {
        self.sole.iter().chain(self.several.iter().map(|vote| &vote.from))
    }

    fn vote_of(&mut self, from: &HostName) -> Option<&mut Vote> {
        self.several.iter_mut().find(|vote| vote.from == *from)
    }
}

impl CheckEntry {
    /// What this observer said before, and since when; unknown if it is new.
    fn said(&mut self, from: &HostName) -> Option<(bool, UnixMillis)> {
        let sole = self.observers.several.is_empty() && self.observers.sole.as_ref().is_none_or(|sole| sole == from);
        if sole {
            return Some((self.up, self.since));
        }
        self.observers.vote_of(from).map(|vote| (vote.up, vote.changed))
    }
}

/// What an observation comes to once all observers are asked: to be judged as if one had said so.
pub(super) struct Said<'a> {
    pub(super) check: Cow<'a, Check>,
    /// The observer itself sees it up, and the others do not.
    pub(super) dissents: bool,
}

impl Engine {
    /// What all observers say after this observation; nothing new if we had it before, or a later one.
    pub(super) fn hear<'a>(&mut self, address: &CheckAddress, check: &'a Check) -> Option<Said<'a>> {
        let attention = self.attention;
        let Some(entry) = self.checks.get_mut(address) else {
            return Some(Said { check: Cow::Borrowed(check), dissents: false });
        };
        let before = entry.said(&check.from);
        if check.origin.is_some() {
            let same = |(from, changed): &(HostName, UnixMillis)| *from == check.from && *changed == check.changed;
            if let Some(at) = entry.unjournaled.iter().position(same) {
                entry.unjournaled.remove(at);
                if before.is_some_and(|(up, _)| up != check.up) {
                    return None;
                }
            } else if before.is_some_and(|(up, _)| up != check.up)
                && entry.unjournaled.iter().any(|(from, changed)| *from == check.from && *changed > check.changed)
            {
                // No change when it was heard, as we knew it from before, and older than what was heard since.
                return None;
            }
        } else if let Some((up, changed)) = before
            && up != check.up
            && check.time < changed
            && check.time.distance(changed) <= OVERTAKEN_AT_MOST_MS
        {
            entry.heard(attention);
            return None;
        }
        let turned = before.is_none_or(|(up, _)| up != check.up);
        if check.origin.is_none() && turned {
            entry.unjournaled.push_back((check.from.clone(), check.changed));
            if entry.unjournaled.len() > MAX_UNJOURNALED {
                entry.unjournaled.pop_front();
            }
        }
        if before.is_some() && entry.observers.several.is_empty() {
            if entry.observers.sole.is_none() {
                entry.observers.sole = Some(check.from.clone());
                self.observes(&check.from.clone(), address);
            }
            return Some(Said { check: Cow::Borrowed(check), dissents: false });
        }
        self.take_vote(address, check, before.map(|(up, _)| up))
    }

    fn take_vote<'a>(&mut self, address: &CheckAddress, check: &'a Check, before: Option<bool>) -> Option<Said<'a>> {
        let attention = self.attention;
        let entry = self.checks.get_mut(address)?;
        let vote = Vote {
            from: check.from.clone(),
            up: check.up,
            changed: check.changed,
            interval_ms: check.interval_ms,
            text: check.text.clone(),
            heard_at: attention,
        };
        if let Some(known) = entry.observers.vote_of(&check.from) {
            *known = vote;
        } else {
            if let Some(sole) = entry.observers.sole.take() {
                let (up, changed) = (entry.up, entry.since);
                let (interval_ms, text) = (entry.interval_ms, entry.text.clone());
                entry.observers.several.push(Vote {
                    from: sole,
                    up,
                    changed,
                    interval_ms,
                    text,
                    heard_at: entry.heard_at,
                });
            }
            entry.observers.several.push(vote);
            entry.observers.several.sort_by(|a, b| a.from.cmp(&b.from));
            self.observes(&check.from, address);
            self.drop_observers(address);
        }
        let entry = self.checks.get(address)?;
        let hosts = &self.hosts;
        let fresh = |vote: &&Vote| {
            let allowed = Duration::from_millis(vote.interval_ms).saturating_mul(MISSED_INTERVALS);
            let heard = vote.interval_ms == 0 || attention.saturating_sub(vote.heard_at) <= allowed;
            vote.from == check.from || heard && !hosts.get(&vote.from).is_some_and(super::host::Host::carries_nothing)
        };
        let votes: Vec<_> = entry.observers.several.iter().filter(fresh).collect();
        let down: Vec<_> = votes.iter().filter(|vote| !vote.up).collect();
        let up = match entry.tuning.agree {
            Agree::Any => down.is_empty(),
            Agree::Majority => down.len() * 2 <= votes.len(),
            Agree::All => down.len() < votes.len(),
        };
        // What one who agrees says; this one if it does.
        let spokesman = votes.iter().find(|vote| vote.from == check.from && vote.up == up);
        let text = spokesman.or_else(|| votes.iter().find(|vote| vote.up == up)).map_or("", |vote| vote.text.as_str());
        let names: Vec<_> = down.iter().map(|vote| vote.from.as_str()).collect();
        let text = match (names.len(), votes.len()) {
            (0, _) | (_, 1) => text.to_owned(),
            (_, n) if up => format!("{text} (down as seen by {} of {n})", names.join(", ")),
            (_, n) => format!("{text} (seen by {} of {n})", names.join(", ")),
        };
        let itself = before.is_some_and(|before| before != check.up);
        let effective = Check {
            up,
            changed: if itself { check.changed } else { check.time },
            interval_ms: votes.iter().map(|vote| vote.interval_ms).max().unwrap_or(check.interval_ms),
            retries: if up { check.retries } else { 0 },
            text,
            ..check.clone()
        };
        if before != Some(check.up) {
            self.save_check(address);
        }
        Some(Said { check: Cow::Owned(effective), dissents: check.up && !up })
    }

    /// One too many makes way, and so does who was not heard for as long as it takes to forget a check.
    fn drop_observers(&mut self, address: &CheckAddress) {
        let attention = self.attention;
        let Some(entry) = self.checks.get_mut(address) else { return };
        let after = entry.tuning.forget_discovered_after;
        let (kept, mut gone): (Vec<_>, Vec<_>) = std::mem::take(&mut entry.observers.several)
            .into_iter()
            .partition(|vote| attention.saturating_sub(vote.heard_at) <= after);
        entry.observers.several = kept;
        if entry.observers.several.len() > MAX_OBSERVERS {
            let votes = entry.observers.several.iter().enumerate();
            if let Some(oldest) = votes.min_by_key(|(_, vote)| vote.heard_at).map(|(at, _)| at) {
                gone.push(entry.observers.several.remove(oldest));
                self.outputs.push(Output::Refused("too_many_observers"));
            }
        }
        for vote in gone {
            self.observes_no_more(&vote.from, address);
        }
    }

    /// This observer no longer watches it. Whether others do.
    pub(super) fn withdraw(&mut self, address: &CheckAddress, from: &HostName) -> bool {
        let Some(entry) = self.checks.get_mut(address) else { return false };
        if entry.observers.several.is_empty() {
            return entry.observers.sole.as_ref().is_some_and(|sole| sole != from);
        }
        let before = entry.observers.several.len();
        entry.observers.several.retain(|vote| vote.from != *from);
        let remaining = entry.observers.several.len();
        if remaining < before {
            self.observes_no_more(from, address);
            self.save_check(address);
        }
        remaining > 0
    }

    /// Only what is observed by another host than its own has to be found by its observer.
    pub(super) fn observes(&mut self, from: &HostName, address: &CheckAddress) {
        if *from != address.host {
            self.observations.entry(from.clone()).or_default().insert(address.clone());
        }
    }

    pub(super) fn observes_no_more(&mut self, from: &HostName, address: &CheckAddress) {
        if let Some(observed) = self.observations.get_mut(from) {
            observed.remove(address);
            if observed.is_empty() {
                self.observations.remove(from);
            }
        }
    }

    /// Checks of other hosts that this one observes.
    pub(super) fn observed_by(&self, from: &HostName) -> Vec<CheckAddress> {
        self.observations.get(from).into_iter().flatten().cloned().collect()
    }

    /// Whether nobody who observes it can be heard.
    pub(super) fn is_unobserved(&self, entry: &CheckEntry) -> bool {
        let mut names = entry.observers.names();
        names.all(|from| self.hosts.get(from).is_some_and(super::host::Host::carries_nothing))
    }
}
