//! A notifier: the real desk and followers, and media that do what they are told. What its recipients read is kept, to see
//! that it makes sense to them.

use super::judge::Following;
use super::plan::{Death, LANES, MediumDoes, RECIPIENTS, Setup};
use super::wish::{DEAREST, Limits, Wish};
use super::world::wall;
use common::counters::Counters;
use common::message::{Delivery, DownRow, Event, Kind, LedgerRow, Request};
use common::notifier::desk::{Composer, Desk, Input, Now, Store, Teller, Who};
use common::notifier::{Composed, Letter, Mark, MessageId, Outcome, Scope, Story};
use common::severity::Severity;
use common::subscriber::{Cursor, Start, Step};
use common::time::UnixMillis;
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
    pub started: u64,
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
    /// Of these they read one severity for several outages, the worst.
    overstated: BTreeSet<(String, String)>,
    /// The incidents whose beginning they read.
    begun: BTreeSet<(String, String, String)>,
    /// Texts of log events, and how often each was read.
    pub logs: BTreeMap<String, u32>,
}

/// What one telephone was sent, and who pays for it.
#[derive(Debug, Default)]
struct Account {
    /// When each message was accepted, and what it cost.
    accepted: Vec<(u64, u64)>,
    /// Until when each of them may have been accepted for all that the notifier knows.
    counted: Vec<u64>,
}

/// The writer of a message, who keeps what it says.
struct Writer {
    does: MediumDoes,
    stories: Vec<Story>,
    again: bool,
}

/// The first that somebody read of an incident that they did not know to be open.
#[derive(Debug)]
pub struct Telling {
    pub who: String,
    pub incident: String,
    /// When it had lasted for long enough and was not hushed any more.
    pub due: u64,
}

/// An event that the notifier was handed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Heard {
    pub event: String,
    pub incident: String,
    pub address: String,
}

/// A notifier, running or not.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of the history that changes by itself")]
pub struct Notifier {
    store: Option<Store>,
    pub process: Option<Process>,
    pub generation: u32,
    pub doom: Option<Death>,
    pub clock: i64,
    pub media: [MediumDoes; LANES.len()],
    who: BTreeMap<String, Who>,
    /// What each recipient has wished for, the last of which holds.
    pub wishes: BTreeMap<String, Vec<Wish>>,
    limits: Limits,
    accounts: BTreeMap<String, Account>,
    /// Messages whose outcome the notifier does not know, and the account of each.
    under_way: Vec<(MessageId, String)>,
    /// By how much its clock jumped while it could not see that.
    unseen_jump: i64,
    /// Some clock has jumped, or dates differ for another reason.
    pub clocks_differ: bool,
    /// Whether each recipient was not to hear of an incident's end when it came, and how often that was written since: it comes to
    /// disk with one commit, and what follows from it with the next.
    ended: BTreeMap<(String, String), (bool, u32)>,
    /// First tellings that nobody has looked at yet.
    pub tellings: Vec<Telling>,
    /// All that it was handed, if that is to be looked up in its ledger, with whether that is on disk.
    pub heard: Option<BTreeMap<Heard, bool>>,
    /// When somebody was last told something, and when each event was heard, since it was started.
    told_at: BTreeMap<String, u64>,
    heard_at: BTreeMap<String, u64>,
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

impl Notifier {
    pub fn new(setup: &Setup) -> Self {
        let who = RECIPIENTS.iter().zip(&setup.wishes).enumerate().map(|(i, (name, wish))| {
            let lane = LANES[usize::from(i == 1)].to_owned();
            ((*name).to_owned(), Who { lane, selection: Some(wish.selection()) })
        });
        let wishes = RECIPIENTS.iter().zip(&setup.wishes);
        Self {
            store: Some(Store::in_memory(Uuid::from_u128(1)).expect("memory")),
            process: None,
            generation: 0,
            doom: None,
            clock: setup.begins,
            media: [MediumDoes::Accepts; LANES.len()],
            who: who.collect(),
            wishes: wishes.map(|(name, wish)| ((*name).to_owned(), vec![wish.clone()])).collect(),
            limits: setup.limits.clone(),
            accounts: BTreeMap::new(),
            under_way: Vec::new(),
            unseen_jump: 0,
            clocks_differ: false,
            ended: BTreeMap::new(),
            tellings: Vec::new(),
            heard: setup.audited.then(BTreeMap::new),
            told_at: BTreeMap::new(),
            heard_at: BTreeMap::new(),
            give_up_after: setup.give_up_after,
            readers: RECIPIENTS.iter().map(|name| ((*name).to_owned(), Reader::default())).collect(),
            faults: Vec::new(),
            copies_look_new: false,
            has_read: false,
            has_written: false,
            judges: setup.judges(),
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
        let (mut desk, cursors) = Desk::open(store, teller, &self.who, self.give_up_after, &Counters::default(), now)
            .expect("memory does not fail");
        let paces = RECIPIENTS.iter().enumerate().map(|(i, name)| ((*name).to_owned(), self.limits.pace(i)));
        desk.set_paces(paces.collect(), self.limits.caps());
        self.counted_anew(at);
        self.told_at.clear();
        self.heard_at.clear();
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
        self.ended.retain(|_, (_, commits)| *commits > 1);
        self.heard.iter_mut().for_each(|heard| heard.retain(|_, is_kept| *is_kept));
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

    /// The wall clock is set.
    pub fn clock_jumps(&mut self, by: i64) {
        self.clock += by;
        self.unseen_jump += by;
        self.clocks_differ = true;
    }

    /// It starts: what was under way may have been accepted until now, and who sets the clock of a machine on which nothing
    /// runs makes all that was sent older or younger.
    fn counted_anew(&mut self, at: u64) {
        for (_, account) in std::mem::take(&mut self.under_way) {
            self.accounts.entry(account).or_default().counted.push(at);
        }
        let jump = std::mem::take(&mut self.unseen_jump);
        for account in self.accounts.values_mut() {
            if jump > 0 {
                account.accepted.clear();
            }
            if jump < 0 {
                account.counted.iter_mut().for_each(|counted| *counted = at);
            }
        }
    }

    pub fn set_wish(&mut self, at: u64, recipient: usize, wish: &Wish) {
        let name = RECIPIENTS[recipient];
        self.wishes.get_mut(name).expect("a recipient").push(wish.clone());
        self.who.get_mut(name).expect("a recipient").selection = Some(wish.selection());
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
                    self.hear(at, &event);
                    self.apply(at, Input::Event { publisher: publisher.clone(), event: Arc::new((*event).clone()) });
                }
                self.read_to(publisher, cursor);
            }
            Step::Live { message: StreamMessage::Beat(_) } => self.apply(at, Input::Beat { publisher }),
            Step::Live { .. } | Step::Lost { .. } | Step::Overtaken | Step::NewJournal { .. } => {}
        }
    }

    /// Notes whether somebody is not to be disturbed by what ends now.
    fn hear(&mut self, at: u64, event: &Event) {
        let now = self.now(at).wall;
        let incident = event.incident.to_string();
        if event.duration_ms.is_some() {
            for (who, wishes) in &self.wishes {
                let wish = wishes.last().expect("one at least");
                let lasted = now.since(event.since);
                let short = wish.after.is_some_and(|after| lasted < Duration::from_secs(after)) && !self.clocks_differ;
                let held = short || wish.hushes(event.top_severity, now);
                self.ended.entry((who.clone(), incident.clone())).or_insert((held, 0));
            }
        }
        self.heard_at.entry(event.id.to_string()).or_insert(at);
        if let Some(heard) = &mut self.heard {
            let heard_now = Heard { event: event.id.to_string(), incident, address: event.address.to_string() };
            heard.entry(heard_now).or_insert(false);
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
        self.unseen_jump = 0;
        self.ended.values_mut().for_each(|(_, commits)| *commits += 1);
        self.heard.iter_mut().flat_map(BTreeMap::values_mut).for_each(|is_kept| *is_kept = true);
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
            let does = self.media[lane];
            let mut writer = Writer { does, stories: Vec::new(), again: false };
            let Some(outgoing) = process.desk.next(name, now, &mut writer).expect("memory does not fail") else {
                continue;
            };
            let Writer { stories, again, .. } = writer;
            process.busy[lane] = true;
            let account = self.account_of(&outgoing.recipient);
            self.under_way.push((outgoing.id, account));
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
                self.accept(at, &outgoing.recipient, outgoing.id, &stories, again);
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
        let accepted = matches!(flight.outcome, Outcome::Sent(_) | Outcome::Retry { maybe_accepted: true, .. });
        for (_, account) in self.under_way.extract_if(.., |(id, _)| *id == flight.id) {
            if accepted {
                self.accounts.entry(account).or_default().counted.push(at);
            }
        }
        if matches!(flight.outcome, Outcome::Sent(_)) {
            self.told_at.insert(flight.recipient.clone(), at);
        }
        if let Some(process) = &mut self.process {
            process.busy[flight.lane] = false;
            process.desk.done(LANES[flight.lane], &flight.recipient, flight.id, flight.outcome, now);
        }
    }

    /// The recipient reads it.
    fn accept(&mut self, at: u64, recipient: &str, id: MessageId, stories: &[Story], again: bool) {
        self.faults.extend(self.unpaced(at, recipient, stories));
        let account = self.account_of(recipient);
        self.accounts.entry(account).or_default().accepted.push((at, cost(stories.len())));
        // What may have been accepted is not decided anew.
        if !again {
            let unwelcome: Vec<String> =
                stories.iter().filter_map(|story| self.unwelcome(at, recipient, story)).collect();
            self.faults.extend(unwelcome.into_iter().map(|why| format!("{recipient} was told {why}")));
            self.faults.extend(self.ungathered(at, recipient, stories));
            self.note_tellings(at, recipient, stories);
        }
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
                Confusion::Repeated if self.copies_look_new || self.closed_unsaid(recipient, &address) => true,
                // The beginning was given up without knowing that it had been accepted.
                Confusion::Repeated | Confusion::Passed => self.gave_up(recipient, &address),
                Confusion::Other => false,
            };
            if !excused {
                self.faults.push(fault);
            }
        }
    }

    /// Why this story must not be told now, in the words of the one who wished otherwise.
    fn unwelcome(&self, at: u64, recipient: &str, story: &Story) -> Option<String> {
        let now = self.now(at).wall;
        let (event, wishes) = (&story.event, &self.wishes[recipient]);
        let what = || format!("{} {} [{}] since {}", story.word(), event.address, event.rule, event.since);
        if wishes.last().is_some_and(|wish| wish.hushes(event.top_severity, now)) {
            return Some(format!("{}, while it was quiet", what()));
        }
        let knows = self.reader_knows(recipient, event);
        let is_once = story.mark == Mark::Once;
        // It may have been selected by any wish that held since it happened.
        let any = |selects: &dyn Fn(&Wish) -> bool| wishes.iter().any(selects);
        let address = event.address.to_string();
        if story.mark != Mark::Ended && event.kind != Kind::Watchdog {
            let kind = if is_once { event.kind } else { opened_as(&event.rule) };
            if !any(&|wish| wish.selects_place(event.top_severity, &address) && wish.selects_kind(kind)) {
                return Some(format!("{}, which they did not select", what()));
            }
        }
        if is_once && event.kind != Kind::Watchdog && !any(&|wish| wish.after.is_none()) {
            return Some(format!("{}, which neither lasts nor ends", what()));
        }
        // What came again before they were told of the end of the last, or while the last waited, is told with that.
        let alone = story.outages == 1 && knows.is_none();
        // Each of two cprocessds has a date of its own for what it misses; what is said again may be of the other's incident.
        let says_again = matches!(event.kind, Kind::Persistent | Kind::Revealed) && self.judges > 1;
        if alone && matches!(story.mark, Mark::Began | Mark::Passed) && !self.clocks_differ && !says_again {
            let least = wishes.iter().map(|wish| wish.after.unwrap_or(0)).min().unwrap_or(0);
            if now.since(event.since) < Duration::from_secs(least) {
                return Some(format!("{}, although it had not lasted for {least} s", what()));
            }
        }
        if alone && story.mark == Mark::Passed {
            let ended = self.ended.get(&(recipient.to_owned(), event.incident.to_string()));
            if ended.is_some_and(|(held, _)| *held) && wishes.len() == 1 {
                return Some(format!("{}, which was over before it was to be told", what()));
            }
        }
        let reminds = matches!(knows, Some((incident, worst, _))
            if *incident == event.incident.to_string() && *worst >= event.top_severity);
        // One who could not be told of the beginning for all we know hears of the next step as if it were that.
        let overstated = &self.readers[recipient].overstated;
        let is_sure = !overstated.contains(&(address.clone(), event.rule.clone()));
        let reminds = reminds && is_sure && !any(&|wish| wish.reminders);
        if story.mark == Mark::Began && reminds && !self.copies_look_new && !self.gave_up(recipient, &address) {
            return Some(format!("{} again, who wants no reminders", what()));
        }
        None
    }

    fn reader_knows(&self, recipient: &str, event: &Event) -> Option<&(String, Severity, u32)> {
        self.readers[recipient].open.get(&(event.address.to_string(), event.rule.clone()))
    }

    /// What exceeds a bucket or a cap, now that one more is accepted.
    fn unpaced(&self, at: u64, recipient: &str, stories: &[Story]) -> Option<String> {
        let within = |account: &Account, secs: u64| -> (usize, u64) {
            let recent = account.accepted.iter().rev().take_while(|(when, _)| when + secs * 1000 > at);
            recent.fold((0, 0), |(count, sum), (_, cost)| (count + 1, sum + cost))
        };
        let (place, account) = (place_of(recipient), self.account_of(recipient));
        for (messages, secs) in &self.limits.tiers[self.limits.account(place)] {
            let (count, _) = self.accounts.get(&account).map_or((0, 0), |account| within(account, *secs));
            if count >= *messages {
                return Some(format!("{recipient} got {} messages within {secs} s", count + 1));
            }
        }
        let (most, secs) = self.limits.cap?;
        let before: u64 = self.accounts.values().map(|account| within(account, secs).1).sum();
        let spent = before + cost(stories.len());
        (spent > most).then(|| format!("all messages within {secs} s have cost {spent} instead of {most}"))
    }

    /// What followed a message closely and did not wait for more.
    fn ungathered(&self, at: u64, recipient: &str, stories: &[Story]) -> Option<String> {
        let [story] = stories else { return None };
        let is_all = !self.media.contains(&MediumDoes::Small) && self.wishes[recipient].len() == 1;
        let heard = *self.heard_at.get(&story.event.id.to_string())?;
        let told = *self.told_at.get(recipient)?;
        let is_one = matches!(story.mark, Mark::Once) || story.mark == Mark::Ended && story.outages == 1;
        let early = is_all && is_one && heard >= told && heard < told + 2000 && at < heard + 2000;
        early.then(|| format!("{recipient} was told of {} {} ms after the last", story.event.address, at - told))
    }

    fn note_tellings(&mut self, at: u64, recipient: &str, stories: &[Story]) {
        let wishes = &self.wishes[recipient];
        let Some(Wish { after: Some(after), unless_acked: true, quiet, .. }) = wishes.last() else { return };
        if wishes.len() > 1 || self.clocks_differ {
            return;
        }
        let wish = wishes.last().expect("it was there");
        let now = self.now(at).wall;
        for story in stories.iter().filter(|story| story.mark == Mark::Began && story.outages == 1) {
            if self.reader_knows(recipient, &story.event).is_some() || story.event.kind == Kind::Watchdog {
                continue;
            }
            let lasted = now.millis_since(story.event.since).saturating_sub(after * 1000);
            let mut due = at.saturating_sub(lasted);
            // The last minute of quiet, if there was any since.
            let minutes = (0..=lasted / 60_000 + 1).take(1440);
            let hushed =
                minutes.map(|minutes| now.0 / 60_000 * 60_000 - 1 - i64::try_from(minutes * 60_000).expect("a day"));
            let is_quiet = |moment: i64| wish.hushes(story.event.top_severity, UnixMillis(moment));
            if !quiet.is_empty()
                && let Some(last) = hushed.into_iter().find(|moment| is_quiet(*moment))
            {
                due = due.max(at.saturating_sub(now.millis_since(UnixMillis(last))));
            }
            let incident = story.event.incident.to_string();
            self.tellings.push(Telling { who: recipient.to_owned(), incident, due });
        }
    }

    fn account_of(&self, recipient: &str) -> String {
        self.limits.account(place_of(recipient)).to_string()
    }

    /// The date, for a running notifier.
    pub fn wall(&self, at: u64) -> UnixMillis {
        self.now(at).wall
    }

    /// Until when what waits for this recipient may wait for a bucket or a cap, if it may.
    pub fn paced_until(&self, at: u64, recipient: &str) -> Option<u64> {
        let place = place_of(recipient);
        let own = self.accounts.get(&self.account_of(recipient));
        let full = |(messages, secs): &(usize, u64)| {
            let mut counted: Vec<u64> = own?.counted.clone();
            counted.sort_unstable();
            let oldest = counted.len().checked_sub(*messages)?;
            Some(counted[oldest] + secs * 1000).filter(|until| *until > at)
        };
        let tiers = self.limits.tiers[self.limits.account(place)].iter().filter_map(full).max();
        // Once messages pause, they do until a good part of the money is there again: at the latest when all of it is.
        let cap = self.limits.cap.and_then(|(_, secs)| {
            let last = self.accounts.values().flat_map(|account| &account.counted).max()?;
            Some(last + secs * 1000).filter(|until| *until > at)
        });
        tiers.max(cap)
    }

    /// Whether it is on record that something of this address could not be told. What is withdrawn because it is over, or kept
    /// back, could have been.
    pub fn gave_up(&self, who: &str, address: &str) -> bool {
        let given_up = |row: &LedgerRow| match row.state {
            Delivery::Failed => true,
            Delivery::Dropped => row.result == "its beginning could not be told",
            _ => false,
        };
        self.ledger(who).iter().any(|row| row.address.to_string() == address && given_up(row))
    }

    /// Whether something of this address was closed because no cprocessd knew of it any more: one that lost its state may hear of
    /// it again.
    fn closed_unsaid(&self, who: &str, address: &str) -> bool {
        let unsaid = |row: &LedgerRow| row.text == "no longer reported by any cprocessd";
        self.ledger(who).iter().any(|row| row.address.to_string() == address && unsaid(row))
    }

    /// All that is on record, also of what nobody was told.
    pub fn whole_ledger(&self) -> Vec<LedgerRow> {
        let Some(process) = &self.process else { return Vec::new() };
        let request = Request { all: Some(true), limit: Some(10_000), ..Request::default() };
        process.desk.ledger(&request).expect("memory does not fail")
    }

    /// The ledger of somebody, all of it.
    pub fn ledger(&self, who: &str) -> Vec<LedgerRow> {
        let Some(process) = &self.process else { return Vec::new() };
        let request = Request { who: Some(who.to_owned()), after: Some(0), limit: Some(10_000), ..Request::default() };
        process.desk.ledger(&request).expect("memory does not fail")
    }
}

impl Composer for &mut Writer {
    fn compose(&mut self, _: &str, letter: &Letter<'_>) -> Composed {
        let told = if self.does == MediumDoes::Small { 1 } else { letter.stories.len() };
        self.again = letter.again;
        self.stories = letter.stories[..told].to_vec();
        Composed { bytes: vec![0; told], told }
    }

    fn cost(&mut self, _: &str, bytes: &[u8]) -> u64 {
        cost(bytes.len())
    }
}

/// What a message costs.
fn cost(stories: usize) -> u64 {
    (stories as u64).min(DEAREST)
}

fn place_of(recipient: &str) -> usize {
    RECIPIENTS.iter().position(|name| *name == recipient).expect("a recipient")
}

/// What an incident of this rule begins with.
pub fn opened_as(rule: &str) -> Kind {
    match rule {
        "check" => Kind::Down,
        "silent" | "backup" => Kind::Absent,
        "watchdog" => Kind::Watchdog,
        _ => Kind::Alarm,
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
                if event.kind == Kind::Log {
                    // A copy may be the first that arrives.
                    let read = self.logs.entry(event.text.clone()).or_default();
                    *read = if copy { (*read).max(1) } else { *read + 1 };
                }
                Ok(())
            }
            Mark::Began => {
                let (incident, step) = (event.incident.to_string(), event.step.unwrap_or(0));
                let known = self.open.insert(key.clone(), (incident.clone(), event.top_severity, step));
                let is_other = known.as_ref().is_some_and(|(known, ..)| *known != incident);
                if is_other || story.outages > 1 {
                    self.overstated.insert(key.clone());
                } else if known.is_none() {
                    self.overstated.remove(&key);
                }
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
