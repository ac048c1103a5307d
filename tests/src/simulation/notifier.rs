//! A notifier: the real desk and followers, and media that do what they are told. What its recipients read is kept, to see
//! that it makes sense to them.

use super::judge::Following;
use super::plan::{Death, LANES, MediumDoes, RECIPIENTS};
use super::world::wall;
use common::counters::Counters;
use common::message::{Delivery, DownRow, Event, LedgerRow, Request};
use common::notifier::desk::{Desk, Input, Now, Store, Teller, Who};
use common::notifier::{Composed, Letter, Mark, MessageId, Outcome, Scope, Selection, Story};
use common::severity::Severity;
use common::subscriber::{Cursor, Start, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// A message of a stream.
#[derive(Clone, Debug)]
pub enum StreamMessage {
    Beat(common::message::Beat),
    Event(Rc<Event>),
}

/// What a medium has from us and has not answered.
#[derive(Clone, Debug)]
pub struct Flight {
    pub lane: usize,
    pub recipient: String,
    pub id: MessageId,
    pub outcome: Outcome,
    pub generation: u32,
}

/// A running process.
pub struct Process {
    pub desk: Desk,
    started: u64,
    pub streams: BTreeMap<usize, Following<StreamMessage>>,
    pub paused_until: u64,
    /// A message is under way.
    busy: [bool; LANES.len()],
    /// The publishers have been asked what is open.
    pub comparing: bool,
    pub logged: u64,
}

/// How what somebody reads does not fit what they have read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Confusion {
    /// What they knew to be open is said to begin.
    Repeated,
    /// What they knew to be open is said to have come and gone unnoticed.
    Passed,
    Other,
}

/// What somebody has read.
#[derive(Debug, Default)]
pub struct Reader {
    /// What they think is open, by address and rule: incident, the worst they read, the step.
    pub open: BTreeMap<(String, String), (String, Severity, u32)>,
    /// Messages by their names, so that one marked as sent again is known.
    messages: BTreeSet<String>,
    /// The incidents whose beginning they read.
    begun: BTreeSet<(String, String, String)>,
    /// Texts of log events, and how often each was read.
    pub logs: BTreeMap<String, u32>,
}

/// A notifier, running or not.
pub struct Notifier {
    store: Option<Store>,
    pub process: Option<Process>,
    pub generation: u32,
    pub doom: Option<Death>,
    pub clock: i64,
    pub media: [MediumDoes; LANES.len()],
    pub who: BTreeMap<String, Who>,
    give_up_after: Duration,
    pub readers: BTreeMap<String, Reader>,
    pub faults: Vec<String>,
    /// Two publishers told of a host whose clock was put back: what one says late has no date that shows it to be a copy.
    pub copies_look_new: bool,
    /// It has read something, and it has written something since: also how far it had read.
    has_read: bool,
    has_written: bool,
    judges: usize,
}

/// The selection of a choice.
pub fn selection(choice: usize) -> Selection {
    let pattern = |text: &str| text.parse().expect("a pattern");
    match choice {
        0 => Selection::at_least(Severity::Warn),
        1 => Selection::at_least(Severity::Crit),
        2 => Selection { only: vec![pattern("web*")], ..Selection::at_least(Severity::Info) },
        _ => Selection { except: vec![pattern("*!port:www")], ..Selection::at_least(Severity::Err) },
    }
}

impl Notifier {
    pub fn new(judges: usize, give_up_after: Duration) -> Self {
        let who = RECIPIENTS.iter().enumerate().map(|(i, name)| {
            let lane = LANES[usize::from(i == 1)].to_owned();
            ((*name).to_owned(), Who { lane, selection: Some(selection(i)) })
        });
        Self {
            store: Some(Store::in_memory(Uuid::from_u128(1)).expect("memory")),
            process: None,
            generation: 0,
            doom: None,
            clock: 0,
            media: [MediumDoes::Accepts; LANES.len()],
            who: who.collect(),
            give_up_after,
            readers: RECIPIENTS.iter().map(|name| ((*name).to_owned(), Reader::default())).collect(),
            faults: Vec::new(),
            copies_look_new: false,
            has_read: false,
            has_written: false,
            judges,
        }
    }

    pub fn stream_name(judge: usize) -> String {
        format!("/run/{judge}/stream")
    }

    pub fn starts(&mut self, at: u64) {
        let Some(store) = self.store.take() else { return };
        self.generation += 1;
        self.doom = None;
        let now = Now { monotonic: Duration::ZERO, wall: wall(at, self.clock) };
        let names: Vec<String> = (0..self.judges).map(Self::stream_name).collect();
        let teller = Teller::new("cmaild", "mon".parse().expect("a host"), &names, now);
        let (desk, cursors) = Desk::open(store, teller, &self.who, self.give_up_after, &Counters::default(), now)
            .expect("memory does not fail");
        if self.has_written && cursors.is_empty() {
            self.faults.push("the notifier does not know how far it had read".to_owned());
        }
        let following = (0..self.judges).map(|judge| {
            let cursor: Option<&Cursor> = cursors.get(&names[judge]);
            (judge, Following::new(cursor.map_or(Start::Snapshot, |cursor| Start::After(cursor.clone()))))
        });
        self.process = Some(Process {
            desk,
            started: at,
            streams: following.collect(),
            paused_until: 0,
            busy: [false; LANES.len()],
            comparing: false,
            logged: 0,
        });
    }

    pub fn dies(&mut self) {
        if let Some(process) = self.process.take() {
            self.store = Some(process.desk.into_store());
        }
        self.generation += 1;
        self.doom = None;
    }

    pub fn awake(&mut self, at: u64) -> Option<&mut Process> {
        self.process.as_mut().filter(|process| at >= process.paused_until)
    }

    fn now(&self, at: u64) -> Now {
        let started = self.process.as_ref().map_or(at, |process| process.started);
        Now { monotonic: Duration::from_millis(at - started), wall: wall(at, self.clock) }
    }

    pub fn set_selection(&mut self, at: u64, recipient: usize, choice: usize) {
        self.who.get_mut(RECIPIENTS[recipient]).expect("a recipient").selection = Some(selection(choice));
        let now = self.now(at);
        if let Some(process) = &mut self.process {
            process.desk.set_recipients(&self.who, self.give_up_after, now);
        }
    }

    fn apply(&mut self, at: u64, input: Input) {
        let now = self.now(at);
        if let Some(process) = &mut self.process
            && process.desk.apply(now, input)
        {
            process.comparing = true;
        }
    }

    pub fn take(&mut self, at: u64, judge: usize, step: Step<StreamMessage>, open: Option<Vec<DownRow>>) {
        let publisher = Self::stream_name(judge);
        match step {
            Step::Snapshot { cursor } => {
                self.follow(judge).note_snapshot(&cursor);
                self.apply(
                    at,
                    Input::Snapshot { publisher: publisher.clone(), open: open.expect("it was just given") },
                );
                self.read_to(publisher, cursor);
            }
            Step::Entry { cursor, message } => {
                if let Err(why) = self.follow(judge).note_entry(&cursor) {
                    self.faults.push(format!("the notifier lost an event: {why}"));
                }
                if let StreamMessage::Event(event) = message {
                    self.apply(at, Input::Event { publisher: publisher.clone(), event: Arc::new((*event).clone()) });
                }
                self.read_to(publisher, cursor);
            }
            Step::Live { message: StreamMessage::Beat(_) } => self.apply(at, Input::Beat { publisher }),
            Step::Live { .. } | Step::Lost { .. } | Step::Overtaken | Step::NewJournal { .. } => {}
        }
    }

    fn follow(&mut self, judge: usize) -> &mut Following<StreamMessage> {
        self.process.as_mut().and_then(|process| process.streams.get_mut(&judge)).expect("it follows")
    }

    fn read_to(&mut self, publisher: String, cursor: Cursor) {
        if let Some(process) = &mut self.process {
            process.desk.read_to(publisher, cursor);
            self.has_read = true;
        }
    }

    pub fn tick(&mut self, at: u64) {
        self.apply(at, Input::Tick);
        let now = self.now(at);
        if let Some(process) = &mut self.process {
            process.desk.give_up(now);
        }
    }

    pub fn compared(&mut self, at: u64, open: Vec<DownRow>) {
        self.apply(at, Input::Compared { open });
    }

    /// What was decided, in one transaction; false if it died in it.
    #[must_use]
    pub fn commit(&mut self, at: u64) -> bool {
        let now = self.now(at);
        let Some(process) = &mut self.process else { return true };
        // Nobody but the desk knows whether there is anything to write, so this dies at the next chance.
        if self.doom == Some(Death::BeforeCommit) {
            return false;
        }
        let wrote = process.desk.commit(now).expect("memory does not fail");
        self.has_written |= wrote && self.has_read;
        !(wrote && self.doom == Some(Death::AfterCommit))
    }

    /// Starts a message on each free lane. False if it died meanwhile.
    #[must_use]
    pub fn dispatch(&mut self, at: u64, flights: &mut Vec<Flight>) -> bool {
        let now = self.now(at);
        for (lane, name) in LANES.into_iter().enumerate() {
            let Some(process) = &mut self.process else { return true };
            if process.busy[lane] {
                continue;
            }
            let (mut stories, mut again) = (Vec::new(), false);
            let does = self.media[lane];
            let compose = |_: &str, letter: &Letter<'_>| {
                let told = if does == MediumDoes::Small { 1 } else { letter.stories.len() };
                again = letter.again;
                stories = letter.stories[..told].to_vec();
                Composed { bytes: Vec::new(), told }
            };
            let Some(outgoing) = process.desk.next(name, now, compose).expect("memory does not fail") else {
                continue;
            };
            process.busy[lane] = true;
            if self.doom == Some(Death::AfterCommit) {
                return false;
            }
            let lost = |maybe_accepted| Outcome::Retry {
                why: "no answer".to_owned(),
                scope: if at.is_multiple_of(2) { Scope::Lane } else { Scope::Recipient },
                maybe_accepted,
                after: None,
            };
            let (accepts, outcome) = match does {
                MediumDoes::Accepts | MediumDoes::Small => (true, Outcome::Sent("ok".to_owned())),
                MediumDoes::Mute => (true, lost(true)),
                MediumDoes::Deaf => (false, lost(true)),
                MediumDoes::Away => (false, lost(false)),
                MediumDoes::Refuses => (false, Outcome::Never("no such mailbox".to_owned())),
            };
            if accepts {
                self.accept(&outgoing.recipient, outgoing.id, &stories, again);
                if self.doom == Some(Death::AfterSending) {
                    return false;
                }
            }
            let (recipient, id, generation) = (outgoing.recipient, outgoing.id, self.generation);
            flights.push(Flight { lane, recipient, id, outcome, generation });
        }
        true
    }

    pub fn landed(&mut self, at: u64, flight: Flight) {
        let now = self.now(at);
        if flight.generation != self.generation {
            return;
        }
        if let Some(process) = &mut self.process {
            process.busy[flight.lane] = false;
            process.desk.done(LANES[flight.lane], &flight.recipient, flight.id, flight.outcome, now);
        }
    }

    /// The recipient reads it.
    fn accept(&mut self, recipient: &str, id: MessageId, stories: &[Story], again: bool) {
        let reader = self.readers.get_mut(recipient).expect("a recipient");
        let copy = !reader.messages.insert(id.to_string());
        if copy && !again {
            self.faults.push(format!("{recipient} got message {id} twice, and the second was not marked"));
        }
        let mut faults = Vec::new();
        for story in stories {
            // What did not fit into the copy comes in another one.
            if let Err((what, why)) = reader.read(story, again) {
                faults.push((what, story.event.address.to_string(), format!("{recipient} {why}")));
            }
        }
        for (what, address, fault) in faults {
            let excused = match what {
                Confusion::Repeated if self.copies_look_new => true,
                // The beginning was given up without knowing that it had been accepted.
                Confusion::Repeated | Confusion::Passed => self.gave_up(recipient, &address),
                Confusion::Other => false,
            };
            if !excused {
                self.faults.push(fault);
            }
        }
    }

    /// Whether it is on record that something of this address could not be told.
    pub fn gave_up(&self, who: &str, address: &str) -> bool {
        let given_up = |state: Delivery| matches!(state, Delivery::Failed | Delivery::Dropped);
        self.ledger(who).iter().any(|row| row.address.to_string() == address && given_up(row.state))
    }

    /// The ledger of somebody, all of it.
    pub fn ledger(&self, who: &str) -> Vec<LedgerRow> {
        let Some(process) = &self.process else { return Vec::new() };
        let request = Request { who: Some(who.to_owned()), after: Some(0), limit: Some(10_000), ..Request::default() };
        process.desk.ledger(&request).expect("memory does not fail")
    }
}

impl Reader {
    /// Takes note of a story; an error if it makes no sense to who has read the ones before. `copy`: the whole message was
    /// here before.
    fn read(&mut self, story: &Story, copy: bool) -> Result<(), (Confusion, String)> {
        let event = &story.event;
        let key = (event.address.to_string(), event.rule.clone());
        let words = format!("{} {} since {}", story.word(), event.address, event.since);
        match story.mark {
            Mark::Once => {
                if event.kind == common::message::Kind::Log {
                    // A copy may be the first that arrives.
                    let read = self.logs.entry(event.text.clone()).or_default();
                    *read = if copy { (*read).max(1) } else { *read + 1 };
                }
                Ok(())
            }
            Mark::Began => {
                let (incident, step) = (event.incident.to_string(), event.step.unwrap_or(0));
                let known = self.open.insert(key.clone(), (incident.clone(), event.top_severity, step));
                let first = self.begun.insert((key.0, key.1, incident));
                match known {
                    // Another incident: the end of the first is in the same story.
                    Some((same, severity, was))
                        if !copy
                            && same == event.incident.to_string()
                            && severity >= event.top_severity
                            && was >= step =>
                    {
                        Err((Confusion::Repeated, format!("was told of {words}, which they knew to be open")))
                    }
                    None if !copy && !first => Err((Confusion::Repeated, format!("was told of {words} twice"))),
                    _ => Ok(()),
                }
            }
            Mark::Ended => match self.open.remove(&key) {
                None if !copy => Err((Confusion::Other, format!("was told of an end alone: {words}"))),
                _ => Ok(()),
            },
            Mark::Passed if copy => Ok(()),
            Mark::Passed => match self.open.remove(&key) {
                Some(_) => {
                    let why = format!("was told that {words} has passed, which they knew to be open");
                    Err((Confusion::Passed, why))
                }
                None => Ok(()),
            },
        }
    }
}

impl StreamMessage {
    /// Where it stands in the stream's journal.
    pub fn place(&self) -> common::subscriber::Place {
        use common::subscriber::Place;
        match self {
            StreamMessage::Beat(beat) => Place::Beat { epoch: beat.epoch.clone(), head_seq: beat.head_seq },
            StreamMessage::Event(event) => Place::Entry { epoch: event.epoch.clone(), seq: event.seq },
        }
    }
}
