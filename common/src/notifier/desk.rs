//! Teller, outbox and store together: all of a notifier but the clock, the streams and the medium. Tests drive it through
//! hours of outages, failures and crashes, and the simulator through weeks.

use crate::address::Address;
use crate::counters::Counters;
use crate::database::DatabaseError;
use crate::message::{Delivery, ErrorBody, LedgerRow, Request};
use crate::notifier::outbox::{Age, Change, Outbox, Served, Source};
use crate::notifier::pace::{Cap, Pace, Verdict};
pub use crate::notifier::store::Store;
use crate::notifier::store::{Count, Write, Written};
use crate::notifier::subscribers::Subscriber;
pub use crate::notifier::teller::{Input, Now, Teller};
use crate::notifier::teller::{Key, Output, Role};
use crate::notifier::{Composed, Letter, Mark, MessageId, Outcome, Selection};
use crate::subscriber::Cursor;
use crate::time::{UnixMillis, for_people};
use std::collections::BTreeMap;
use std::time::Duration;

/// A message that is on disk as under way, and can go.
#[derive(Debug)]
pub struct Outgoing {
    /// Whom it tells.
    pub recipient: String,
    /// Its name, whenever it is sent.
    pub id: MessageId,
    /// As the medium composed it.
    pub bytes: Vec<u8>,
}

/// A recipient, as far as it concerns what they are told.
#[derive(Clone, Debug, PartialEq)]
pub struct Who {
    /// The lane through which they are told.
    pub lane: String,
    /// What they want to hear of. Without it they are only asked whether they want to hear of anything.
    pub selection: Option<Selection>,
}

/// Who writes the messages: a closure, or a lane with its medium.
pub trait Composer {
    /// As [`Medium::compose`](super::Medium::compose).
    fn compose(&mut self, recipient: &str, letter: &Letter<'_>) -> Composed;

    /// As [`Medium::compose_last`](super::Medium::compose_last).
    fn compose_last(&mut self, recipient: &str, letter: &Letter<'_>, waiting: usize) -> Composed {
        let _ = waiting;
        self.compose(recipient, letter)
    }

    /// As [`Medium::cost`](super::Medium::cost).
    fn cost(&mut self, _recipient: &str, _bytes: &[u8]) -> u64 {
        0
    }
}

impl<F: FnMut(&str, &Letter<'_>) -> Composed> Composer for F {
    fn compose(&mut self, recipient: &str, letter: &Letter<'_>) -> Composed {
        self(recipient, letter)
    }
}

/// The wall clock was set if it differs by more from what it would be by the monotonic one.
const CLOCK_MOVED_MS: u64 = 1000;

/// The state.
#[derive(Debug)]
pub struct Desk {
    store: Store,
    teller: Teller,
    pub(crate) outbox: Outbox,
    counters: Counters,
    /// What is decided and not on disk yet, in order.
    writes: Vec<Write>,
    /// When we were last called.
    seen: Now,
    /// The wall clock when the monotonic one was 0, as far as what is on disk goes by it, in milliseconds.
    clock: i64,
}

impl Desk {
    /// Goes on from what the store has. Returns how far each stream was read.
    pub fn open(
        store: Store,
        mut teller: Teller,
        recipients: &BTreeMap<String, Who>,
        give_up_after: Duration,
        counters: &Counters,
        now: Now,
    ) -> Result<(Self, BTreeMap<String, Cursor>), DatabaseError> {
        let saved = store.load(now)?;
        if saved.unreadable > 0 {
            counters.add("state", "unreadable", saved.unreadable);
            tracing::error!("{} rows of the saved state cannot be read and are left out", saved.unreadable);
        }
        for (recipient, key, told) in saved.told {
            teller.restore(recipient, key, told);
        }
        for (recipient, selection) in saved.selections {
            teller.restore_selection(recipient, selection);
        }
        let outbox = Outbox::new(store.id(), give_up_after);
        let (counters, clock) = (counters.clone(), clock(now));
        let mut desk = Self { store, teller, outbox, counters, writes: Vec::new(), seen: now, clock };
        if !saved.sent.is_empty() {
            desk.writes.push(Write::Count(Count::Started));
        }
        for (account, sent) in saved.sent {
            desk.outbox.pacer.restore(account, sent);
        }
        desk.set_recipients(recipients, give_up_after, now);
        if !saved.unknown.is_empty() || !saved.waiting.is_empty() {
            let (waiting, unknown) = (saved.waiting.len(), saved.unknown.len());
            tracing::info!("{waiting} events wait, {unknown} messages were under way and will be sent again");
        }
        for (recipient, items) in saved.unknown {
            let changes = desk.outbox.push_unknown(&recipient, items);
            desk.changed(changes);
        }
        desk.push(saved.waiting, now);
        for aside in saved.untold {
            let outputs = desk.teller.apply(now, Input::Damaged { text: aside.to_string() });
            desk.take(outputs, now);
            desk.writes.push(Write::ToldOfDamage);
        }
        Ok((desk, saved.cursors))
    }

    /// Who is to be told from now on, by a configuration that was read again: what failed may work by it at once.
    pub fn set_recipients(&mut self, recipients: &BTreeMap<String, Who>, give_up_after: Duration, now: Now) {
        self.outbox.begin_anew(give_up_after);
        self.change_recipients(recipients, now);
    }

    /// Who is to be told from now on.
    pub(crate) fn change_recipients(&mut self, recipients: &BTreeMap<String, Who>, now: Now) {
        let selections = recipients.iter().filter_map(|(name, who)| Some((name.clone(), who.selection.clone()?)));
        let outputs = self.teller.set_recipients(selections.collect());
        self.take(outputs, now);
        let served = recipients.iter().map(|(name, Who { lane, selection })| {
            let (quiet, after) = selection.as_ref().map_or((Vec::new(), None), |s| (s.quiet.clone(), s.after));
            (name.clone(), Served { lane: lane.clone(), quiet, after })
        });
        let changes = self.outbox.set_recipients(&served.collect());
        self.changed(changes);
    }

    /// What is known of a subscriber changed; without it, nothing needs to be any more.
    pub(crate) fn keep(&mut self, name: String, subscriber: Option<Subscriber>) {
        self.writes.push(Write::Subscriber { name, subscriber });
    }

    /// A recipient is asked whether they want to be told.
    pub(crate) fn ask(&mut self, recipient: String, subscriber: &Subscriber, now: Now) {
        let Subscriber { severity, pattern, author, .. } = subscriber;
        let text = format!("{author} subscribed {recipient} to {pattern} from {severity}");
        let event = self.teller.question(&recipient, text, now);
        let lane = self.outbox.lane_of(&recipient).unwrap_or_default().to_owned();
        self.writes.push(Write::Tell { recipient, lane, role: Role::Once, event });
    }

    /// How fast each recipient is told, and for how much money all of them together.
    pub fn set_paces(&mut self, paces: BTreeMap<String, Pace>, caps: Vec<Cap>) {
        self.outbox.pacer.set(paces, caps);
    }

    /// Something happened. True if the publishers are to be asked what is open.
    #[must_use]
    pub fn apply(&mut self, now: Now, input: Input) -> bool {
        let is_tick = matches!(input, Input::Tick);
        let outputs = self.teller.apply(now, input);
        let mut compare = self.take(outputs, now);
        compare |= is_tick && self.outbox.wants_comparison(now);
        if compare {
            self.teller.asks();
        }
        compare
    }

    /// What the teller wants written. True if it wants the publishers to be asked what is open.
    fn take(&mut self, outputs: Vec<Output>, now: Now) -> bool {
        let mut compare = false;
        for output in outputs {
            match output {
                Output::Tell { recipient, role, event } => {
                    let lane = self.outbox.lane_of(&recipient).unwrap_or_default().to_owned();
                    self.writes.push(Write::Tell { recipient, lane, role, event });
                }
                Output::Save { recipient, key, told } => self.writes.push(Write::Save { recipient, key, told }),
                Output::Forget { recipient, key } => self.writes.push(Write::Forget { recipient, key }),
                Output::Selects { recipient, selection } => self.writes.push(Write::Selects { recipient, selection }),
                Output::Crowded { recipient, forgotten } => {
                    if self.counters.add("told", "forgotten", forgotten) {
                        tracing::warn!("{recipient}: too much is open, the ends of the least severe are not told");
                    }
                }
                Output::Skip { event, whys } => self.writes.push(Write::Skip { event, whys }),
                Output::Compared { recipient, kept_back } => {
                    let changes = self.outbox.compared(&recipient, &kept_back, now);
                    self.changed(changes);
                }
                Output::Compare => compare = true,
            }
        }
        compare
    }

    /// A stream was read up to here.
    pub fn read_to(&mut self, publisher: String, cursor: Cursor) {
        self.writes.push(Write::Cursor { publisher, cursor });
    }

    /// Everything that was decided in one transaction; then the outbox learns of what is new. True if there was anything to
    /// write. On an error nothing is written, and it can be tried again.
    pub fn commit(&mut self, now: Now) -> Result<bool, DatabaseError> {
        self.follow_clock(now);
        if self.writes.is_empty() {
            return Ok(false);
        }
        let written = self.store.commit(&self.writes, now)?;
        self.writes.clear();
        self.push(written, now);
        Ok(true)
    }

    /// The next message of a free lane, if one can go now. On disk as under way before it is returned: after a crash we know
    /// that it may have been accepted.
    pub fn next(
        &mut self,
        lane: &str,
        now: Now,
        mut composer: impl Composer,
    ) -> Result<Option<Outgoing>, DatabaseError> {
        self.follow_clock(now);
        let Some(ready) = self.outbox.next(lane, now) else { return Ok(None) };
        let recipient = ready.recipient;
        let mut stories = ready.stories;
        for story in stories.iter_mut().filter(|story| story.mark == Mark::Ended) {
            let told = self.teller.told(&recipient, &Key::of(&story.event));
            story.told_in = told.and_then(|told| told.message);
        }
        let waiting = stories.len();
        let mut told = waiting;
        // A message that is sent again keeps its name, even if the mark leaves room for less than it told.
        let again = ready.again.then(|| self.outbox.message_id(&recipient, &sorted_items(&ready.sources)));
        // A message's name depends on what it tells, and what fits into it may depend on its name: fewer each time round.
        let (id, items, bytes) = loop {
            let items = sorted_items(&ready.sources[..told]);
            let id = again.unwrap_or_else(|| self.outbox.message_id(&recipient, &items));
            let stories = &stories[..told];
            let letter = Letter { id, recipient: &recipient, stories, again: ready.again, now: now.wall };
            let Composed { bytes, told: fits } = if ready.last {
                composer.compose_last(&recipient, &letter, waiting)
            } else {
                composer.compose(&recipient, &letter)
            };
            if fits >= told {
                break (id, items, bytes);
            }
            told = fits.max(1);
        };
        let told_stories = stories[..told].iter().zip(&ready.sources);
        for (story, _) in told_stories.filter(|(_, source)| source.begins) {
            let key = Key::of(&story.event);
            if let Some(Output::Save { recipient, key, told }) = self.teller.told_in(&recipient, &key, id) {
                self.writes.push(Write::Save { recipient, key, told });
            }
        }
        let decided = self.writes.len();
        self.writes.push(Write::Sending { items: items.clone(), message: id, again: ready.again });
        let (cost, last) = (composer.cost(&recipient, &bytes), ready.last);
        if let Some(account) = self.outbox.pacer.account_of(&recipient).map(str::to_owned) {
            self.writes.push(Write::Count(Count::Sending { account, message: id, cost, last }));
        }
        if let Err(error) = self.commit(now) {
            // It does not go, so it is not under way.
            self.writes.truncate(decided);
            return Err(error);
        }
        if last {
            self.counters.count("outbox", "paused");
            tracing::warn!("{recipient}: the cap is nearly reached, so message {id} is the last for now and says so");
        }
        self.outbox.begin(&recipient, id, &items, ready.again);
        self.outbox.pacer.begin(&recipient, id, cost, last, now.monotonic);
        Ok(Some(Outgoing { recipient, id, bytes }))
    }

    /// What a message that is still under way has cost. Without it, it has cost what it costs at most.
    pub fn paid(&mut self, id: MessageId, cost: u64) {
        self.outbox.pacer.paid(id, cost);
    }

    /// What became of a message to `recipient`.
    pub fn done(&mut self, lane: &str, recipient: &str, id: MessageId, outcome: Outcome, now: Now) {
        let accepted = matches!(outcome, Outcome::Sent(_) | Outcome::Retry { maybe_accepted: true, .. });
        let counted = self.outbox.pacer.done(id, accepted, now.monotonic);
        self.writes.extend(counted.map(|counted| Write::Count(Count::Done { message: id, counted })));
        let changes = self.outbox.done(lane, recipient, id, outcome, now.monotonic);
        self.changed(changes);
    }

    /// What became known of a message after it was accepted.
    pub fn note(&mut self, id: MessageId, words: String) {
        self.writes.push(Write::Note { message: id, words });
    }

    /// What has waited for too long is given up.
    pub fn give_up(&mut self, now: Now) {
        let changes = self.outbox.give_up(now);
        self.changed(changes);
    }

    /// Drops what is old from the ledger.
    pub fn clean(&self, now: UnixMillis) -> Result<(), DatabaseError> {
        self.store.clean(now)
    }

    /// The answer to `ledger`. What waits for a bucket or a cap says so.
    pub fn ledger(&self, request: &Request) -> Result<Vec<LedgerRow>, ErrorBody> {
        let mut rows = self.store.ledger(request)?;
        let now = self.seen.monotonic;
        let mut reasons: BTreeMap<String, Option<String>> = BTreeMap::new();
        for row in rows.iter_mut().filter(|row| row.state == Delivery::Waiting) {
            let reason =
                reasons.entry(row.who.clone()).or_insert_with(|| match self.outbox.pacer.verdict(&row.who, now) {
                    Verdict::Wait { until, bound } => {
                        let wait = until.monotonic().saturating_sub(now);
                        Some(format!("waits for {}: {}", for_people(wait), bound.reason()))
                    }
                    Verdict::Go | Verdict::Last => {
                        let rest = self.outbox.rests_after_storm(&row.who, now);
                        rest.map(|rest| format!("waits for {}: what follows a storm is one message", for_people(rest)))
                    }
                });
            if let Some(reason) = reason {
                row.result.clone_from(reason);
            }
        }
        Ok(rows)
    }

    /// The newest item of the ledger, 0 before the first.
    pub fn newest(&self) -> Result<u64, DatabaseError> {
        self.store.newest()
    }

    /// What each recipient has been told, or will be, and not that it is over: the recipient, the address, the rule.
    pub fn told_open(&self) -> impl Iterator<Item = (&str, &Address, &str)> {
        self.teller.told_open().map(|(recipient, key)| (recipient, &key.address, key.rule.as_str()))
    }

    /// How many items are not told yet.
    pub fn waiting(&self) -> usize {
        self.outbox.waiting()
    }

    /// The process ends here: what is on disk stays, and nothing else.
    pub fn into_store(self) -> Store {
        self.store
    }

    /// Moves what was sent along with the wall clock on disk, where only that tells its age after a restart.
    fn follow_clock(&mut self, now: Now) {
        self.seen = now;
        let by = clock(now).saturating_sub(self.clock);
        if by.unsigned_abs() > CLOCK_MOVED_MS {
            self.clock = self.clock.saturating_add(by);
            // Before what is written by the new clock.
            self.writes.insert(0, Write::Count(Count::ClockMoved { by }));
        }
    }

    fn push(&mut self, written: Vec<Written>, now: Now) {
        for Written { recipient, item } in written {
            let verdict = self.outbox.pacer.verdict(&recipient, now.monotonic);
            if matches!(verdict, Verdict::Wait { .. }) {
                self.counters.count("outbox", "held");
            }
            let changes = self.outbox.push(&recipient, item, now);
            self.changed(changes);
        }
    }

    /// Records what became of items, and what follows from it for what was told.
    fn changed(&mut self, changes: Vec<Change>) {
        for change in changes {
            let reason = match &change {
                Change::Sent { .. } => "sent",
                Change::Waits { .. } | Change::Unknown { .. } => "retried",
                Change::Held { .. } => "held",
                Change::Failed { .. } => "failed",
                Change::Dropped { .. } => "dropped",
                Change::Begins { .. } => {
                    self.writes.push(Write::Change(change));
                    continue;
                }
                Change::Untold { recipient, key } => {
                    if let Some(Output::Forget { recipient, key }) = self.teller.untold(recipient, key) {
                        self.writes.push(Write::Forget { recipient, key });
                    }
                    continue;
                }
            };
            self.counters.count("outbox", reason);
            self.writes.push(Write::Change(change));
        }
    }
}

/// What the wall clock showed when the monotonic one began.
fn clock(now: Now) -> i64 {
    now.wall.0.saturating_sub(Age::at(now.monotonic).0)
}

/// All of these items, in the order of time.
fn sorted_items(sources: &[Source]) -> Vec<i64> {
    let mut items: Vec<i64> = sources.iter().flat_map(|source| source.items.iter().copied()).collect();
    items.sort_unstable();
    items
}
