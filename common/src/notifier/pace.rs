//! Decides how fast, and for how much money, people are told: a telephone that rings all night is switched off, and a bill
//! has no upper end of its own. Pure: it is told the time and what was sent.
//!
//! A bound holds in *any* window of its length, wherever that begins: what was sent is remembered one by one, and the next
//! message waits until enough of it is older than the window. A bucket that is refilled would let twice as many through
//! around the moment of refilling. What waits folds, so what a bound costs is time and detail, and no news.
//!
//! Money works likewise, over all recipients together. Out of each cap, the price of one message is kept back for every
//! recipient who has not been told that messages pause: so there is always one left that says it.
//!
//! A message counts from before it is sent until its outcome is known, and from then on by the time of that outcome: two
//! messages are then never closer at the other end than they are here. One that was certainly not accepted does not count.
//!
//! Windows are measured by the monotonic clock. The wall clock only carries them over a restart, and whoever keeps them
//! there moves them along when it jumps ([`Desk`](super::desk::Desk)).

use crate::config::HumanDuration;
use crate::notifier::MessageId;
use crate::notifier::outbox::Age;
use serde::{Deserialize, Deserializer, de};
use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;
use std::time::Duration;

/// No bound has a longer window: a month of any length fits into it.
pub const LONGEST_WINDOW: Duration = Duration::from_hours(31 * 24);

/// So many messages in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// At least 1.
    pub messages: usize,
    /// At most [`LONGEST_WINDOW`].
    pub window: Duration,
}

impl FromStr for Tier {
    type Err = String;

    /// `5/15m`: 1 to 1000 messages, a second to [`LONGEST_WINDOW`].
    fn from_str(text: &str) -> Result<Self, String> {
        let tier = text.split_once('/').and_then(|(messages, window)| {
            let (messages, HumanDuration(window)) = (messages.parse().ok()?, window.parse().ok()?);
            let bounded = (1..=1000).contains(&messages) && (Duration::from_secs(1)..=LONGEST_WINDOW).contains(&window);
            bounded.then_some(Self { messages, window })
        });
        let longest = HumanDuration(LONGEST_WINDOW);
        tier.ok_or_else(|| {
            format!("bucket is {text:?}, but must be 1 to 1000 messages in 1s to {longest}, as in \"5/15m\"")
        })
    }
}

impl<'de> Deserialize<'de> for Tier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// So much money in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// In millionths of the currency that prices are given in.
    pub cost: u64,
    /// At most [`LONGEST_WINDOW`].
    pub window: Duration,
}

/// How fast one recipient is told. By default as fast as the medium takes it, and for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Under which name it is counted. Recipients with the same one share what they are sent: it is the same telephone.
    pub account: String,
    /// All of them hold.
    pub tiers: Vec<Tier>,
    /// What one message costs at most, in millionths of the currency. What costs nothing is under no cap.
    pub dearest: u64,
    /// For so long after a message about a storm, what is no worse waits for what else comes of it. 0 where the news counts
    /// more than the number of messages.
    pub after_storm: Duration,
}

/// A message that was sent, or may have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) message: MessageId,
    pub(crate) at: Age,
    /// In millionths of the currency.
    pub(crate) cost: u64,
    /// It said that messages pause.
    pub(crate) last: bool,
}

/// What is known of a message in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// It was accepted, or may have been, and cost so much.
    Cost(u64),
    /// It was not accepted.
    Not,
}

/// Whether a recipient may be told something now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    /// Once more, and it has to say that messages pause.
    Last,
    /// Not before `until`.
    Wait {
        until: Age,
        bound: Bound,
    },
}

/// What holds a message up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Tier(Tier),
    Cap(Cap),
}

impl Bound {
    /// For the ledger.
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Tier(Tier { messages, window }) => {
                format!("no more than {messages} in {} to this recipient", HumanDuration(window))
            }
            Self::Cap(Cap { cost, window }) => {
                format!("the cap of {} in {} is reached", money(cost), HumanDuration(window))
            }
        }
    }
}

/// An amount in millionths as people write it: `5.00`.
pub fn money(millionths: u64) -> String {
    let hundredths = millionths.saturating_add(5_000) / 10_000;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// What one telephone was sent.
#[derive(Debug, Default)]
struct Account {
    /// The most that a message costs any of its recipients; 0 if it has none any more.
    dearest: u64,
    /// In the order of time.
    sent: VecDeque<Sent>,
    /// Their outcome is not known yet: more than one where several recipients are the same telephone.
    under_way: Vec<Sent>,
}

/// The state.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    paces: BTreeMap<String, Pace>,
    caps: Vec<Cap>,
    accounts: BTreeMap<String, Account>,
}

impl Pacer {
    /// The bounds from now on. What was sent before counts under them.
    pub(crate) fn set(&mut self, paces: BTreeMap<String, Pace>, caps: Vec<Cap>) {
        (self.paces, self.caps) = (paces, caps);
        self.accounts.values_mut().for_each(|account| account.dearest = 0);
        for pace in self.paces.values() {
            let account = self.accounts.entry(pace.account.clone()).or_default();
            account.dearest = account.dearest.max(pace.dearest);
        }
    }

    /// Puts back what was sent before we started, in the order of time.
    pub(crate) fn restore(&mut self, account: String, sent: Sent) {
        self.accounts.entry(account).or_default().sent.push_back(sent);
    }

    /// Where a message to this recipient is counted. None if nothing bounds it.
    pub(crate) fn account_of(&self, recipient: &str) -> Option<&str> {
        let pace = self.paces.get(recipient)?;
        let bounded = !pace.tiers.is_empty() || (pace.dearest > 0 && !self.caps.is_empty());
        bounded.then_some(pace.account.as_str())
    }

    /// How long what follows a storm waits.
    pub(crate) fn after_storm(&self, recipient: &str) -> Duration {
        self.paces.get(recipient).map(|pace| pace.after_storm).unwrap_or_default()
    }

    /// Whether this recipient may be told something now.
    pub(crate) fn verdict(&self, recipient: &str, now: Duration) -> Verdict {
        let (Some(pace), Some(_)) = (self.paces.get(recipient), self.account_of(recipient)) else { return Verdict::Go };
        let account = &self.accounts[&pace.account];
        let now = Age::at(now);
        let free = pace.tiers.iter().filter_map(|tier| Some((account.free_at(*tier, now)?, *tier)));
        match free.max_by_key(|(until, _)| *until) {
            Some((until, tier)) => Verdict::Wait { until, bound: Bound::Tier(tier) },
            None => self.affordable(account, pace.dearest, now),
        }
    }

    /// Whether there is money for it.
    fn affordable(&self, account: &Account, dearest: u64, now: Age) -> Verdict {
        if dearest == 0 || self.caps.is_empty() {
            return Verdict::Go;
        }
        let pauses = account.was_told_to_pause() && self.exhausted(now).is_some();
        let promised = self.promised(now);
        if !pauses && self.broken(promised.saturating_add(dearest), now).is_none() {
            return Verdict::Go;
        }
        if !pauses && self.broken(promised, now).is_none() {
            return Verdict::Last;
        }
        let cap = self.exhausted(now).unwrap_or(self.caps[0]);
        let mut expiries: Vec<Age> = self.expiries().filter(|at| *at > now).collect();
        expiries.sort_unstable();
        let recovered = expiries.partition_point(|at| self.exhausted(*at).is_some());
        let until = expiries.get(recovered).copied().unwrap_or(now.plus(cap.window));
        Verdict::Wait { until, bound: Bound::Cap(cap) }
    }

    /// What is kept back: a message for everybody who does not know yet that messages pause.
    fn promised(&self, now: Age) -> u64 {
        let recovered = self.exhausted(now).is_none();
        let open = self.accounts.values().filter(|account| recovered || !account.was_told_to_pause());
        open.map(|account| account.dearest).sum()
    }

    /// A cap without so much room that a pause is over: it takes more than what each message leaves behind in its turn.
    fn exhausted(&self, now: Age) -> Option<Cap> {
        let all: u64 = self.accounts.values().map(|account| account.dearest).sum();
        let full = |cap: &&Cap| self.spent(cap.window, now).saturating_add(all) > cap.cost / 4 * 3;
        self.caps.iter().find(full).copied()
    }

    /// The first cap that does not allow so much more.
    fn broken(&self, more: u64, now: Age) -> Option<Cap> {
        self.caps.iter().copied().find(|cap| self.spent(cap.window, now).saturating_add(more) > cap.cost)
    }

    fn spent(&self, window: Duration, now: Age) -> u64 {
        let of = |account: &Account| -> u64 {
            let sent = account.sent.iter().rev().take_while(|sent| sent.at.plus(window) > now);
            sent.chain(&account.under_way).map(|sent| sent.cost).sum()
        };
        self.accounts.values().map(of).sum()
    }

    fn expiries(&self) -> impl Iterator<Item = Age> {
        let sent = self.accounts.values().flat_map(|account| &account.sent).filter(|sent| sent.cost > 0);
        sent.flat_map(|sent| self.caps.iter().map(|cap| sent.at.plus(cap.window)))
    }

    /// A message to this recipient is on its way, and costs at most so much.
    pub(crate) fn begin(&mut self, recipient: &str, message: MessageId, cost: u64, last: bool, now: Duration) {
        let Some(account) = self.account_of(recipient).map(str::to_owned) else { return };
        let account = self.accounts.entry(account).or_default();
        account.under_way.push(Sent { message, at: Age::at(now), cost, last });
    }

    /// What a message on its way has cost, which may be less than it might have.
    pub(crate) fn paid(&mut self, message: MessageId, cost: u64) {
        let under_way = self.accounts.values_mut().flat_map(|account| &mut account.under_way);
        under_way.filter(|sent| sent.message == message).for_each(|sent| sent.cost = sent.cost.min(cost));
    }

    /// The outcome is known. Returns what it cost if it counts: if it may have been `accepted`. None of a message that nothing
    /// bounds.
    pub(crate) fn done(&mut self, message: MessageId, accepted: bool, now: Duration) -> Option<Counted> {
        let now = Age::at(now);
        let mut counted = None;
        for account in self.accounts.values_mut() {
            for sent in account.under_way.extract_if(.., |sent| sent.message == message) {
                counted = Some(if accepted { Counted::Cost(sent.cost) } else { Counted::Not });
                account.sent.extend(accepted.then_some(Sent { at: now, ..sent }));
            }
        }
        self.forget_old(now);
        counted
    }

    /// What counts in no window any more.
    fn forget_old(&mut self, now: Age) {
        let tiers = self.paces.values().flat_map(|pace| &pace.tiers).map(|tier| tier.window);
        let Some(longest) = tiers.chain(self.caps.iter().map(|cap| cap.window)).max() else { return };
        for account in self.accounts.values_mut() {
            while account.sent.front().is_some_and(|sent| sent.at.plus(longest) <= now) {
                account.sent.pop_front();
            }
        }
    }
}

impl Account {
    /// When this tier has room, if it has none now.
    fn free_at(&self, tier: Tier, now: Age) -> Option<Age> {
        // What is under way may be accepted at any moment from now on.
        let needed = tier.messages.checked_sub(self.under_way.len()).filter(|needed| *needed > 0);
        let Some(needed) = needed else { return Some(now.plus(tier.window)) };
        let oldest = self.sent.len().checked_sub(needed)?;
        let free_at = self.sent[oldest].at.plus(tier.window);
        (free_at > now).then_some(free_at)
    }

    fn was_told_to_pause(&self) -> bool {
        self.under_way.last().or(self.sent.back()).is_some_and(|sent| sent.last)
    }
}

#[cfg(test)]
mod tests;
