//! Decides who is to hear of what. Pure: it is told the time and what happened, and answers with what is to be told and
//! remembered.
//!
//! Told-state is what each recipient knows of each incident key. Whatever it already says is a copy, whoever sent it, and a
//! recipient hears of an end only if they heard of the beginning. That is also what makes a lost journal harmless: the
//! publisher's whole state is compared with what was told, and only the difference is news.

use crate::address::{Address, CheckAddress, HostName, Name, Unit};
use crate::message::{DownRow, Epoch, Event, EventId, IncidentId, Kind, MAX_RULE_BYTES, State, kept};
use crate::notifier::selection::kind_of_rule;
use crate::notifier::{MessageId, SUBSCRIPTION_RULE, Selection, TEST_RULE};
use crate::severity::Severity;
use crate::time::{UnixMillis, for_people};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// A publisher that has not been heard for this long is silent, and that is said.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(30);
/// What is told as open is compared with what the publishers say is open this often. What is missing for that long, from all
/// of them and each time, is closed.
const COMPARE_EVERY: Duration = Duration::from_mins(5);
/// A publisher beats, for the comparison, if it was heard within this.
const BEATING: Duration = Duration::from_secs(5);
/// A gap between two calls that is longer than this was our own pause, and nobody's silence.
const MAX_GAP: Duration = Duration::from_secs(2);
/// What is over is remembered for this long, so that a publisher that lags by less cannot tell it again.
const REMEMBERED: Duration = Duration::from_hours(30 * 24);
/// Keys that are remembered, all recipients together, each having an equal share,
const MAX_TOLD: usize = 50_000;
/// but at least so many. Beyond it the least severe are forgotten, those that are over before those that are open: their ends are
/// not told any more. What is new is always told.
const LEAST_TOLD: usize = 1_000;
/// The rule name of a publisher's silence.
const WATCH_RULE: &str = "watchdog";

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Time since the daemon started. Measures silence.
    pub monotonic: Duration,
    /// For dates.
    pub wall: UnixMillis,
}

/// What an incident is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) address: Address,
    pub(crate) rule: String,
}

impl Key {
    pub(crate) fn of(event: &Event) -> Self {
        Self { address: event.address.clone(), rule: event.rule.clone() }
    }
}

/// What an event does to an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Opens it.
    Begin,
    /// Makes it worse for a recipient who knows that it is open.
    Worse,
    /// Closes it.
    End,
    /// Neither.
    Once,
}

impl Role {
    /// Of an event of the stream, for a recipient who knows nothing yet. What closed an incident says how long that was open.
    pub(crate) fn of(event: &Event) -> Self {
        match event.kind {
            Kind::Down | Kind::Alarm | Kind::Absent | Kind::Persistent | Kind::Revealed => Role::Begin,
            Kind::Up | Kind::Solved | Kind::Retired | Kind::Watchdog if event.duration_ms.is_some() => Role::End,
            Kind::Watchdog if event.state == State::Open => Role::Begin,
            Kind::Up
            | Kind::Solved
            | Kind::Retired
            | Kind::Blip
            | Kind::Log
            | Kind::Started
            | Kind::Stopped
            | Kind::Flapping
            | Kind::Watchdog
            | Kind::Ack
            | Kind::Silence
            | Kind::Order
            | Kind::Other => Role::Once,
        }
    }
}

/// What a recipient knows of one key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) incident: IncidentId,
    pub(crate) open: bool,
    /// Of the last incident.
    pub(crate) since: UnixMillis,
    /// The worst that was told.
    pub(crate) severity: Severity,
    /// The highest step of the ladder that was told, 0 before the first.
    pub(crate) step: u32,
    /// Who said that it is over.
    pub(crate) closed_by: Option<String>,
    /// The message that told of the beginning, once it is on its way.
    pub(crate) message: Option<MessageId>,
}

impl Told {
    /// Whether the event is of an earlier incident than the one that is open: a publisher lags, and another one has told of
    /// this one already. An end has the `since` of its beginning, so that of the open one is none, whatever the clocks.
    fn is_later_than(&self, event: &Event) -> bool {
        event.since < self.since && event.time <= self.since
    }
}

/// What can happen.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields say what they are")]
pub enum Input {
    /// An event of a publisher's journal.
    Event { publisher: String, event: Arc<Event> },
    /// All that is open at a publisher, and what it did not say is not.
    Snapshot { publisher: String, open: Vec<DownRow> },
    /// All that is open at every publisher, asked for by [`Desk::apply`](super::desk::Desk::apply).
    Compared { open: Vec<DownRow> },
    /// A publisher lives.
    Beat { publisher: String },
    /// Somebody tries the path out, to one recipient or to all.
    Test { who: Option<String> },
    /// A medium has something of its own to say to somebody, whatever they select.
    Says { recipient: String, event: Arc<Event> },
    /// Our database was damaged, and what we know was made anew.
    Damaged { text: String },
    /// Time passed.
    Tick,
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// To the outbox. One with an id that this recipient has had is a copy, unless it is a beginning or an end.
    Tell { recipient: String, role: Role, event: Arc<Event> },
    /// Remember.
    Save { recipient: String, key: Key, told: Told },
    /// Remember no longer.
    Forget { recipient: String, key: Key },
    /// Remember that somebody with this selection has heard of all that is open; without one, that they are gone.
    Selects { recipient: String, selection: Option<String> },
    /// More is open, or remembered, for one recipient than is kept: so many keys were forgotten for the sake of newer ones.
    Crowded { recipient: String, forgotten: u64 },
    /// Remember that these recipients are not told of this event, each with the reason.
    Skip { event: Arc<Event>, whys: Vec<(String, String)> },
    /// What is open was compared, and of it this is not to be told to somebody who hears only of what lasts; each with the
    /// reason.
    Compared { recipient: String, kept_back: BTreeMap<Key, String> },
    /// Ask all publishers what is open, and hand it in as [`Input::Compared`] if all of them answered.
    Compare,
}

/// A publisher, as far as it is watched.
#[derive(Debug)]
struct Watched {
    /// On the clock that stands still while we do.
    heard: Duration,
    heard_wall: UnixMillis,
    silent: bool,
}

/// The state.
#[derive(Debug)]
pub struct Teller {
    daemon: &'static str,
    host: HostName,
    recipients: BTreeMap<String, Selection>,
    /// What each recipient selected when all that was open was last compared with what they were told.
    selections: BTreeMap<String, String>,
    told: BTreeMap<String, BTreeMap<Key, Told>>,
    publishers: BTreeMap<String, Watched>,
    /// When we were last called, and for how long we have not been, all in all.
    last: Duration,
    paused: Duration,
    compare_at: Duration,
    /// The publishers were asked and have not answered; and what they will answer is older than what somebody selects.
    asked: bool,
    outdated: bool,
    /// What was missing from the last comparison, and from which one on, on the clock that stands still while we do: who has slept
    /// for a night has asked once.
    missing: BTreeMap<(String, Key), Duration>,
    /// What was listed there as open although somebody was told of the end of a later one.
    doubted: BTreeSet<(String, IncidentId)>,
}

impl Teller {
    /// Tells nobody yet, and has heard of nothing. `host` is where it runs.
    pub fn new(daemon: &'static str, host: HostName, publishers: &[String], now: Now) -> Self {
        let watched = |_| Watched { heard: now.monotonic, heard_wall: now.wall, silent: false };
        Self {
            daemon,
            host,
            recipients: BTreeMap::new(),
            selections: BTreeMap::new(),
            told: BTreeMap::new(),
            publishers: publishers.iter().map(|name| (name.clone(), watched(name))).collect(),
            last: now.monotonic,
            paused: Duration::ZERO,
            compare_at: now.monotonic + COMPARE_EVERY,
            asked: false,
            outdated: false,
            missing: BTreeMap::new(),
            doubted: BTreeSet::new(),
        }
    }

    /// Who there is to tell. What somebody was told under an earlier selection stays told, and so does its end. Whoever is new,
    /// or selects otherwise, is told what is open by now.
    pub(crate) fn set_recipients(&mut self, recipients: BTreeMap<String, Selection>) -> Vec<Output> {
        self.recipients = recipients;
        // Also of who selects otherwise: before they have heard of all that is open they may select what they did.
        let selects = |name: &String, selection: &String| {
            self.recipients.get(name).is_some_and(|selected| format!("{selected:?}") == *selection)
        };
        let gone = self.selections.extract_if(.., |name, selection| !selects(name, selection));
        let outputs = gone.map(|(recipient, _)| Output::Selects { recipient, selection: None }).collect();
        if self.newcomers().next().is_some() {
            self.compare_at = self.last;
            self.outdated = self.asked;
        }
        outputs
    }

    /// The publishers are asked what is open.
    pub(crate) fn asks(&mut self) {
        self.asked = true;
    }

    /// Those who may not have heard of all that is open.
    fn newcomers(&self) -> impl Iterator<Item = (&String, &Selection)> {
        self.recipients.iter().filter(|(name, selection)| self.selections.get(*name) != Some(&format!("{selection:?}")))
    }

    /// Puts back what somebody selected when we stopped. Before [`Self::set_recipients`].
    pub(crate) fn restore_selection(&mut self, recipient: String, selection: String) {
        self.selections.insert(recipient, selection);
    }

    /// Puts back what was saved.
    pub(crate) fn restore(&mut self, recipient: String, key: Key, told: Told) {
        // A publisher that was silent when we stopped is still said to be: its next beat is the end of that.
        if told.open
            && key.rule == WATCH_RULE
            && self.watch_address(key.address.unit().as_str()) == key.address
            && let Some(watched) = self.publishers.get_mut(key.address.unit().as_str())
        {
            watched.silent = true;
        }
        self.told.entry(recipient).or_default().insert(key, told);
    }

    /// What each recipient knows to be open.
    pub(crate) fn told_open(&self) -> impl Iterator<Item = (&str, &Key)> {
        self.told.iter().flat_map(|(recipient, told)| {
            told.iter().filter(|(_, known)| known.open).map(move |(key, _)| (recipient.as_str(), key))
        })
    }

    /// What a recipient knows of a key.
    pub(crate) fn told(&self, recipient: &str, key: &Key) -> Option<&Told> {
        self.told.get(recipient)?.get(key)
    }

    pub(crate) fn apply(&mut self, now: Now, input: Input) -> Vec<Output> {
        let attention = self.attention(now);
        let mut outputs = Vec::new();
        match input {
            Input::Event { publisher, event } => {
                self.heard(&publisher, attention, now, &mut outputs);
                self.event(&publisher, &event, &mut outputs);
            }
            Input::Snapshot { publisher, open } => {
                self.heard(&publisher, attention, now, &mut outputs);
                self.snapshot(&publisher, &open, now, &mut outputs);
            }
            Input::Compared { open } => self.compared(&open, attention, now, &mut outputs),
            Input::Beat { publisher } => self.heard(&publisher, attention, now, &mut outputs),
            Input::Test { who } => self.test(who.as_deref(), now, &mut outputs),
            Input::Says { recipient, event } => {
                if self.recipients.contains_key(&recipient) {
                    outputs.push(tell(&recipient, Role::Once, &event));
                }
            }
            Input::Damaged { text } => self.say_damaged(&text, now, &mut outputs),
            Input::Tick => self.overdue(attention, now, &mut outputs),
        }
        outputs
    }

    /// The message that tells of a beginning is on its way.
    pub(crate) fn told_in(&mut self, recipient: &str, key: &Key, message: MessageId) -> Option<Output> {
        let told = self.told.get_mut(recipient)?.get_mut(key)?;
        told.message = Some(message);
        Some(Output::Save { recipient: recipient.to_owned(), key: key.clone(), told: told.clone() })
    }

    /// The beginning could not be told, for good: then its end is not told either.
    pub(crate) fn untold(&mut self, recipient: &str, key: &Key) -> Option<Output> {
        self.told.get_mut(recipient)?.remove(key)?;
        Some(Output::Forget { recipient: recipient.to_owned(), key: key.clone() })
    }

    /// The clock of silence: it stands still while nobody calls us.
    fn attention(&mut self, now: Now) -> Duration {
        let gap = now.monotonic.saturating_sub(self.last);
        if gap > MAX_GAP {
            self.paused += gap;
        }
        self.last = self.last.max(now.monotonic);
        self.last.saturating_sub(self.paused)
    }

    fn event(&mut self, publisher: &str, event: &Arc<Event>, outputs: &mut Vec<Output>) {
        let suppressed = (!event.suppressed_by.is_empty()).then(|| event.suppressed_by.join(", "));
        let mut whys = Vec::new();
        for recipient in self.recipients.keys().cloned().collect::<Vec<_>>() {
            let why = match (Role::of(event), &suppressed) {
                // Who was told of a beginning hears of its end, whatever was silenced meanwhile.
                (Role::Begin | Role::Worse | Role::Once, Some(by)) => Some(by.clone()),
                (Role::Begin | Role::Worse, None) => self.begin(&recipient, Some(publisher), event, outputs),
                (Role::End, _) => self.end(&recipient, Some(publisher), event, outputs),
                (Role::Once, None) => match self.recipients[&recipient].refuses(event) {
                    None => {
                        outputs.push(tell(&recipient, Role::Once, event));
                        None
                    }
                    Some(why) => Some(why.to_string()),
                },
            };
            whys.extend(why.map(|why| (recipient, why)));
        }
        if !whys.is_empty() {
            outputs.push(Output::Skip { event: event.clone(), whys });
        }
        self.missing.retain(|(_, key), _| key.address != event.address || key.rule != event.rule);
    }

    /// Why it is not told, unless it is, or is known. `publisher` is absent where we say it ourselves.
    fn begin(
        &mut self,
        recipient: &str,
        publisher: Option<&str>,
        event: &Arc<Event>,
        outputs: &mut Vec<Output>,
    ) -> Option<String> {
        let selection = &self.recipients[recipient];
        if event.kind != Kind::Watchdog
            && let Some(why) = selection.refuses(event)
        {
            return Some(why.to_string());
        }
        let key = Key::of(event);
        let told = self.told.entry(recipient.to_owned()).or_default();
        if let Some(known) = told.get(&key) {
            let copy = if known.open {
                let reminds_of_earlier =
                    event.kind == Kind::Persistent && event.incident != known.incident && event.since < known.since;
                let no_worse = event.top_severity <= known.severity;
                if no_worse && event.step.unwrap_or(0) > known.step && !selection.reminders {
                    return Some("reminders = false".to_owned());
                }
                let says_no_more = no_worse && event.step.unwrap_or(0) <= known.step;
                // Who reminds of an earlier one was away when that ended and this one began: another has told of both.
                says_no_more || known.is_later_than(event) || reminds_of_earlier
            } else {
                // Who said that the last one is over says this one after it, whatever the clocks; anybody else may be late.
                let other = known.closed_by.as_deref().is_some_and(|closer| Some(closer) != publisher);
                other && event.since <= known.since
            };
            if copy {
                return None;
            }
        }
        let open = told.get(&key).filter(|known| known.open);
        let role = if open.is_some() { Role::Worse } else { Role::Begin };
        let known = Told {
            incident: event.incident,
            open: true,
            since: event.since,
            severity: event.top_severity,
            step: event.step.unwrap_or(0),
            closed_by: None,
            message: open.and_then(|known| known.message),
        };
        told.insert(key.clone(), known.clone());
        outputs.push(tell(recipient, role, event));
        outputs.push(Output::Save { recipient: recipient.to_owned(), key: key.clone(), told: known });
        self.make_room(recipient, &key, outputs);
        None
    }

    /// Forgets a tenth at once: to choose takes a look at all of them. `newest` stays.
    fn make_room(&mut self, recipient: &str, newest: &Key, outputs: &mut Vec<Output>) {
        let share = (MAX_TOLD / self.recipients.len().max(1)).max(LEAST_TOLD);
        let Some(told) = self.told.get_mut(recipient).filter(|told| told.len() > share) else { return };
        let others = told.iter().filter(|(key, _)| *key != newest);
        let mut others: Vec<_> =
            others.map(|(key, known)| (known.open, known.severity, known.since, key.clone())).collect();
        others.sort();
        others.truncate(share / 10);
        outputs.push(Output::Crowded { recipient: recipient.to_owned(), forgotten: others.len() as u64 });
        for (.., key) in others {
            told.remove(&key);
            outputs.push(Output::Forget { recipient: recipient.to_owned(), key });
        }
    }

    /// Why it is not told, unless it is, or is known.
    fn end(
        &mut self,
        recipient: &str,
        publisher: Option<&str>,
        event: &Arc<Event>,
        outputs: &mut Vec<Output>,
    ) -> Option<String> {
        let key = Key::of(event);
        let Some(known) = self.told.get_mut(recipient).and_then(|told| told.get_mut(&key)) else {
            return Some("its beginning was not told".to_owned());
        };
        // Dated by when it was said, so a publisher that lags retires an earlier one while this one is open already.
        let retires_earlier =
            event.kind == Kind::Retired && event.incident != known.incident && event.since < known.since;
        if !known.open || known.is_later_than(event) || retires_earlier {
            // Of what they know to be over this is a copy; of anything else they know nothing.
            return (known.incident != event.incident).then(|| "its beginning was not told".to_owned());
        }
        known.open = false;
        known.since = known.since.max(event.since);
        known.closed_by = publisher.map(str::to_owned);
        outputs.push(tell(recipient, Role::End, event));
        outputs.push(Output::Save { recipient: recipient.to_owned(), key, told: known.clone() });
        None
    }

    fn snapshot(&mut self, publisher: &str, open: &[DownRow], now: Now, outputs: &mut Vec<Output>) {
        tracing::info!("{publisher}: compared what is open ({}) with what was told", open.len());
        for row in tellable(open) {
            let event = beginning(row, now);
            for recipient in self.recipients.keys().cloned().collect::<Vec<_>>() {
                drop(self.begin(&recipient, Some(publisher), &event, outputs));
            }
        }
        for recipient in self.recipients.keys().cloned().collect::<Vec<_>>() {
            if self.kept_back_from(&recipient, open).next().is_some() && self.selections.remove(&recipient).is_some() {
                outputs.push(Output::Selects { recipient, selection: None });
            }
        }
        // What was told and is not there closes once it has been missing for long enough.
        self.compare_at = self.last;
    }

    /// What is not told at the moment, and this recipient does not know of.
    fn kept_back_from<'a>(&self, recipient: &str, open: &'a [DownRow]) -> impl Iterator<Item = &'a DownRow> {
        let (told, selection) = (self.told.get(recipient), &self.recipients[recipient]);
        open.iter().filter(move |row| {
            !is_tellable(row)
                && selection.wants(row.severity, &row.address)
                && !told.and_then(|told| told.get(&key_of(row))).is_some_and(|known| known.open)
        })
    }

    fn compared(&mut self, open: &[DownRow], attention: Duration, now: Now, outputs: &mut Vec<Output>) {
        let newcomers: Vec<(String, String)> =
            self.newcomers().map(|(name, selection)| (name.clone(), format!("{selection:?}"))).collect();
        let mut doubted = BTreeSet::new();
        for (recipient, selection) in newcomers {
            let mut doubts = false;
            for row in tellable(open) {
                // Listed again it is no copy that came late: a clock was set back.
                let listed_before = self.doubted.contains(&(recipient.clone(), row.incident));
                let publisher = self.sole_publisher().filter(|_| listed_before);
                drop(self.begin(&recipient, publisher.as_deref(), &beginning(row, now), outputs));
                if self.is_doubtful(&recipient, row) {
                    doubts |= doubted.insert((recipient.clone(), row.incident));
                }
            }
            // Who was told of it before hears no more when it is no longer kept back, so it is compared until then.
            if !self.outdated && !doubts && self.kept_back_from(&recipient, open).next().is_none() {
                self.selections.insert(recipient.clone(), selection.clone());
                outputs.push(Output::Selects { recipient, selection: Some(selection) });
            }
        }
        self.doubted = doubted;
        for (recipient, selection) in self.recipients.iter().filter(|(_, selection)| selection.after.is_some()) {
            let kept_back = open.iter().filter_map(|row| Some((key_of(row), kept_back(row, selection)?))).collect();
            outputs.push(Output::Compared { recipient: recipient.clone(), kept_back });
        }
        let open: BTreeSet<(&Address, &str)> = open.iter().map(|row| (&row.address, row.rule.as_str())).collect();
        let mut missing = BTreeMap::new();
        for (recipient, told) in &self.told {
            for (key, known) in told {
                let listed = open.contains(&(&key.address, key.rule.as_str()));
                if known.open && !listed && key.rule != WATCH_RULE {
                    let entry = (recipient.clone(), key.clone());
                    let from = self.missing.get(&entry).copied().unwrap_or(attention);
                    missing.insert(entry, from);
                }
            }
        }
        let long = missing.iter().filter(|(_, from)| attention.saturating_sub(**from) >= COMPARE_EVERY);
        let gone: Vec<(String, Key)> = long.map(|(entry, _)| entry.clone()).collect();
        for (recipient, key) in gone {
            let Some(known) = self.told(&recipient, &key) else { continue };
            let event = synthetic(
                &key.address,
                &key.rule,
                known.incident,
                known.since,
                now,
                Draft {
                    kind: Kind::Solved,
                    severity: Severity::Info,
                    top_severity: known.severity,
                    state: State::Resolved,
                    text: "no longer reported by any cprocessd".to_owned(),
                    step: None,
                    duration_ms: Some(now.wall.millis_since(known.since)),
                },
            );
            drop(self.end(&recipient, None, &event, outputs));
            missing.remove(&(recipient, key));
        }
        self.missing = missing;
        // Counted from the answer: the next one then comes late enough to close what this one missed.
        let outdated = std::mem::take(&mut self.outdated);
        self.asked = false;
        self.compare_at = if outdated { self.last } else { now.monotonic + COMPARE_EVERY };
        self.forget_old(now, outputs);
    }

    /// The only one, if there is but one: what it lists is then its own word.
    fn sole_publisher(&self) -> Option<String> {
        self.publishers.keys().next().filter(|_| self.publishers.len() == 1).cloned()
    }

    /// Whether it is open by the word of the one who has said that a later one is over.
    fn is_doubtful(&self, recipient: &str, row: &DownRow) -> bool {
        let key = key_of(row);
        self.publishers.len() == 1
            && self.recipients[recipient].wants(row.severity, &row.address)
            && self
                .told(recipient, &key)
                .is_some_and(|known| !known.open && row.incident != known.incident && row.since <= known.since)
    }

    fn forget_old(&mut self, now: Now, outputs: &mut Vec<Output>) {
        for (recipient, told) in &mut self.told {
            let old = told.extract_if(.., |_, known| !known.open && now.wall.since(known.since) > REMEMBERED);
            outputs.extend(old.map(|(key, _)| Output::Forget { recipient: recipient.clone(), key }));
        }
    }

    fn heard(&mut self, publisher: &str, attention: Duration, now: Now, outputs: &mut Vec<Output>) {
        let Some(watched) = self.publishers.get_mut(publisher) else { return };
        let was_silent = std::mem::take(&mut watched.silent);
        (watched.heard, watched.heard_wall) = (attention, now.wall);
        if was_silent {
            self.end_silences("heard again; what happened meanwhile follows", now, outputs);
        }
    }

    /// Whoever was told of a silence that is none, or none any more, is told of its end.
    fn end_silences(&mut self, text: &str, now: Now, outputs: &mut Vec<Output>) {
        let silent = self.publishers.iter().filter(|(_, watched)| watched.silent);
        let silent: BTreeSet<Address> = silent.map(|(publisher, _)| self.watch_address(publisher)).collect();
        let told = self.told.iter().filter(|(recipient, _)| self.recipients.contains_key(*recipient));
        let over: Vec<(String, Arc<Event>)> = told
            .flat_map(|(recipient, told)| told.iter().map(move |(key, known)| (recipient, key, known)))
            .filter(|(_, key, known)| known.open && key.rule == WATCH_RULE && !silent.contains(&key.address))
            .map(|(recipient, key, known)| {
                let draft = Draft {
                    kind: Kind::Watchdog,
                    severity: Severity::Info,
                    top_severity: Severity::Crit,
                    state: State::Resolved,
                    text: text.to_owned(),
                    step: None,
                    duration_ms: Some(now.wall.millis_since(known.since)),
                };
                let event = synthetic(&key.address, WATCH_RULE, known.incident, known.since, now, draft);
                (recipient.clone(), event)
            })
            .collect();
        for (recipient, event) in over {
            drop(self.end(&recipient, None, &event, outputs));
        }
    }

    fn overdue(&mut self, attention: Duration, now: Now, outputs: &mut Vec<Output>) {
        let mut silent = Vec::new();
        for (publisher, watched) in &mut self.publishers {
            if !watched.silent && attention.saturating_sub(watched.heard) >= SILENT_AFTER {
                watched.silent = true;
                silent.push((publisher.clone(), watched.heard_wall));
            }
        }
        for (publisher, since) in silent {
            tracing::warn!("{publisher}: no beat for {}", for_people(SILENT_AFTER));
            let address = self.watch_address(&publisher);
            let incident = IncidentId::new(&address, WATCH_RULE, since);
            let text = format!(
                "no beat for {}: cprocessd is down, hangs or cannot be reached, and nothing is heard of it meanwhile",
                for_people(SILENT_AFTER)
            );
            let event = synthetic(
                &address,
                WATCH_RULE,
                incident,
                since,
                now,
                Draft {
                    kind: Kind::Watchdog,
                    severity: Severity::Crit,
                    top_severity: Severity::Crit,
                    state: State::Open,
                    text,
                    step: None,
                    duration_ms: None,
                },
            );
            for recipient in self.recipients.keys().cloned().collect::<Vec<_>>() {
                drop(self.begin(&recipient, None, &event, outputs));
            }
        }
        // Of a publisher that is no longer followed, or to somebody who was away when it was heard again.
        self.end_silences("no longer silent, or no longer followed", now, outputs);
        let anything_open = self.told.values().flatten().any(|(key, known)| known.open && key.rule != WATCH_RULE);
        let all_beat = self.publishers.values().all(|watched| attention.saturating_sub(watched.heard) < BEATING);
        if now.monotonic >= self.compare_at && all_beat && (anything_open || self.newcomers().next().is_some()) {
            self.compare_at = now.monotonic + COMPARE_EVERY;
            outputs.push(Output::Compare);
        }
    }

    fn test(&mut self, who: Option<&str>, now: Now, outputs: &mut Vec<Output>) {
        let address = self.address_of(self.daemon, Unit::default());
        for recipient in self.recipients.keys().filter(|name| who.is_none_or(|who| who == *name)) {
            // Each test is an event of its own.
            let key = format!("{TEST_RULE} {}", Uuid::new_v4());
            let incident = IncidentId::new(&address, &key, now.wall);
            let event = synthetic(
                &address,
                TEST_RULE,
                incident,
                now.wall,
                now,
                Draft {
                    kind: Kind::Log,
                    severity: Severity::Info,
                    top_severity: Severity::Info,
                    state: State::Unknown,
                    text: format!("a test of the way from {} to {recipient}; nothing is wrong", self.daemon),
                    step: None,
                    duration_ms: None,
                },
            );
            outputs.push(tell(recipient, Role::Once, &event));
        }
    }

    /// Whether somebody wants to be told. Each question is an event of its own.
    pub(crate) fn question(&self, recipient: &str, text: String, now: Now) -> Arc<Event> {
        let address = self.address_of(self.daemon, Unit::default());
        let incident = IncidentId::new(&address, &format!("{SUBSCRIPTION_RULE} {recipient}"), now.wall);
        let draft = Draft {
            kind: Kind::Log,
            severity: Severity::Info,
            top_severity: Severity::Info,
            state: State::Unknown,
            text,
            step: None,
            duration_ms: None,
        };
        synthetic(&address, SUBSCRIPTION_RULE, incident, now.wall, now, draft)
    }

    /// To everybody, since nobody knows who has missed something.
    fn say_damaged(&self, text: &str, now: Now, outputs: &mut Vec<Output>) {
        let address = self.address_of(self.daemon, Unit::default());
        let draft = Draft {
            kind: Kind::Log,
            severity: Severity::Err,
            top_severity: Severity::Err,
            state: State::Unknown,
            text: format!("{} may tell you again what you know, or not tell the end of it: {text}", self.daemon),
            step: None,
            duration_ms: None,
        };
        let incident = IncidentId::new(&address, "log", now.wall);
        let event = synthetic(&address, "log", incident, now.wall, now, draft);
        outputs.extend(self.recipients.keys().map(|recipient| tell(recipient, Role::Once, &event)));
    }

    /// Where a publisher's silence is said: `HOST!cprocessd:/run/cairn/stream`.
    fn watch_address(&self, publisher: &str) -> Address {
        self.address_of("cprocessd", Unit::try_from(publisher).unwrap_or_default())
    }

    fn address_of(&self, daemon: &str, unit: Unit) -> Address {
        let service = Name::try_from(daemon).expect("a daemon's name is a name");
        Address::from(CheckAddress { host: self.host.clone(), service, unit })
    }
}

/// Shared by all who are told: 10,000 of them may wait for each.
fn tell(recipient: &str, role: Role, event: &Arc<Event>) -> Output {
    Output::Tell { recipient: recipient.to_owned(), role, event: event.clone() }
}

/// What an event says that no cprocessd said.
struct Draft {
    kind: Kind,
    severity: Severity,
    top_severity: Severity,
    state: State,
    text: String,
    step: Option<u32>,
    duration_ms: Option<u64>,
}

fn synthetic(
    address: &Address,
    rule: &str,
    incident: IncidentId,
    since: UnixMillis,
    now: Now,
    draft: Draft,
) -> Arc<Event> {
    Arc::new(Event {
        epoch: Epoch::random(),
        seq: 0,
        nth: 0,
        id: EventId::new(incident, draft.kind, 1),
        incident,
        kind: draft.kind,
        address: address.clone(),
        host: address.host().clone(),
        service: address.service().clone(),
        unit: address.unit().clone(),
        severity: draft.severity,
        top_severity: draft.top_severity,
        state: draft.state,
        since,
        time: now.wall,
        text: draft.text,
        value: None,
        rule: rule.to_owned(),
        step: draft.step,
        duration_ms: draft.duration_ms,
        suppressed_by: Vec::new(),
        data: None,
    })
}

/// What is open and nothing keeps from being told.
fn tellable(open: &[DownRow]) -> impl Iterator<Item = &DownRow> {
    open.iter().filter(|row| is_tellable(row)).filter(|row| row.rule.len() <= MAX_RULE_BYTES)
}

fn is_tellable(row: &DownRow) -> bool {
    !row.acked && !row.silenced && !row.unreachable && row.suppressed_by.is_empty()
}

fn key_of(row: &DownRow) -> Key {
    Key { address: row.address.clone(), rule: row.rule.clone() }
}

/// Why somebody who hears of what lasts is not told of this.
fn kept_back(row: &DownRow, selection: &Selection) -> Option<String> {
    let only_acked = row.acked && !row.silenced && !row.unreachable;
    if is_tellable(row) || only_acked && !selection.unless_acked {
        return None;
    }
    let causes = row.suppressed_by.join(", ");
    Some(if causes.is_empty() { "kept back by its cprocessd".to_owned() } else { causes })
}

/// The event that opened an incident, as far as a list of what is open tells.
fn beginning(row: &DownRow, now: Now) -> Arc<Event> {
    let kind = row.kind.unwrap_or_else(|| kind_of_rule(&row.rule, true));
    let state = match kind {
        Kind::Down => State::Down,
        Kind::Absent => State::Unknown,
        _ => State::Open,
    };
    synthetic(
        &row.address,
        &row.rule,
        row.incident,
        row.since,
        now,
        Draft {
            kind,
            severity: row.severity,
            top_severity: row.severity,
            state,
            text: kept(&row.text).to_owned(),
            step: row.step,
            duration_ms: None,
        },
    )
}
