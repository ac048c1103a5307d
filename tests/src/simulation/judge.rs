//! cprocessd: the real engine and the real follower in a shell that commits before it publishes, on a disk of our own.

use super::plan::{Death, letter};
use super::world::{FeedMessage, epoch, wall};
use common::message::{DownRow, Epoch, Event, Kind, ServerRow, ServiceRow};
use common::severity::Severity;
use common::subscriber::{Cursor, Follower, Place, Start, Step};
use cprocessd::engine::settings::Settings;
use cprocessd::engine::{Draft, Engine, Input, Now, Output, Saved};
use cprocessd::store::stamped;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// What a crash leaves.
#[derive(Debug)]
pub struct Disk {
    pub epoch: Epoch,
    epochs: u32,
    pub first: u64,
    pub journal: VecDeque<Rc<Event>>,
    pub saved: BTreeMap<String, Saved>,
    cursors: BTreeMap<usize, Cursor>,
    nth: BTreeMap<Severity, u64>,
}

impl Disk {
    pub fn head(&self) -> u64 {
        self.first - 1 + self.journal.len() as u64
    }
}

/// A follower, and what waits in its socket.
#[derive(Debug)]
pub struct Following<M> {
    pub follower: Follower<M>,
    pub inbox: VecDeque<(Place, M)>,
    /// A question is under way.
    pub asking: bool,
    /// The last entry that was handed on, to see that none is missing.
    last: Option<Cursor>,
}

impl<M> Following<M> {
    pub fn new(start: Start) -> Self {
        let last = if let Start::After(cursor) = &start { Some(cursor.clone()) } else { None };
        Self { follower: Follower::new(start), inbox: VecDeque::new(), asking: false, last }
    }

    /// That this entry comes next, or why it must not.
    pub fn note_entry(&mut self, cursor: &Cursor) -> Result<(), String> {
        let last = self.last.replace(cursor.clone());
        match last {
            Some(last) if last.epoch == cursor.epoch && cursor.seq == last.seq + 1 => Ok(()),
            // The first of a journal that began while we followed it.
            Some(last) if last.epoch.is_none() && cursor.seq == last.seq + 1 => Ok(()),
            last => Err(format!("entry {cursor:?} was handed on after {last:?}")),
        }
    }

    pub fn note_snapshot(&mut self, cursor: &Cursor) {
        self.last = Some(cursor.clone());
    }
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    pub engine: Engine,
    /// Gets the same input, by another clock.
    twin: Option<(Engine, i64)>,
    /// Gets the same input, but was restarted.
    pub shadow: Option<Shadow>,
    started: u64,
    pub feeds: BTreeMap<usize, Following<Rc<FeedMessage>>>,
    uncommitted: Vec<Output>,
    progress: BTreeMap<usize, Cursor>,
    pub paused_until: u64,
}

/// An engine that was restarted, and what it and the one that ran on have said since, with when.
#[derive(Debug)]
pub struct Shadow {
    pub engine: Engine,
    said: [Vec<(u64, String)>; 2],
}

impl Shadow {
    pub fn new(engine: Engine) -> Self {
        Self { engine, said: [Vec::new(), Vec::new()] }
    }

    /// How they differ. They look for what is due at slightly different times.
    pub fn difference(&self, at: u64) -> Option<String> {
        let [ran, restarted] = &self.said;
        let lacks = |one: &[(u64, String)], two: &[(u64, String)]| {
            let settled = one.iter().filter(|(when, _)| when + 3000 < at);
            settled.map(|(_, said)| said).find(|said| !two.iter().any(|(_, other)| other == *said)).cloned()
        };
        lacks(ran, restarted)
            .map(|said| format!("said {said}, but not if it was restarted before"))
            .or_else(|| lacks(restarted, ran).map(|said| format!("says {said} only because it was restarted")))
    }
}

/// A cprocessd, running or not.
#[derive(Debug)]
pub struct Judge {
    pub at: usize,
    pub name: String,
    pub settings: Settings,
    pub clock: i64,
    pub disk: Disk,
    pub process: Option<Process>,
    /// Answers to a process that is gone are for nobody.
    pub generation: u32,
    pub doom: Option<Death>,
    twins: bool,
    /// What is open by the events of its journal.
    open: BTreeSet<(String, String)>,
    /// Each event with its id, of this journal.
    ids: BTreeSet<String>,
    /// What has gone wrong.
    pub faults: Vec<String>,
    /// The texts of the log events in its journals.
    pub logs: BTreeMap<String, u32>,
}

/// What it became of a commit.
pub enum Committed {
    /// Publish these.
    Events(Vec<Rc<Event>>),
    /// It died in it.
    Died,
}

impl Judge {
    pub fn new(at: usize, settings: Settings, twins: bool) -> Self {
        Self {
            at,
            name: format!("cprocessd {}", letter(at)),
            settings,
            clock: 0,
            disk: Disk {
                epoch: epoch(&format!("j{at}e1")),
                epochs: 1,
                first: 1,
                journal: VecDeque::new(),
                saved: BTreeMap::new(),
                cursors: BTreeMap::new(),
                nth: BTreeMap::new(),
            },
            process: None,
            generation: 0,
            doom: None,
            twins,
            open: BTreeSet::new(),
            ids: BTreeSet::new(),
            faults: Vec::new(),
            logs: BTreeMap::new(),
        }
    }

    pub fn feed_name(feed: usize) -> String {
        format!("/run/{feed}/feed")
    }

    /// A new engine from what was saved.
    pub fn restored(&self, feeds: &[usize]) -> Engine {
        let names: Vec<String> = feeds.iter().map(|feed| Self::feed_name(*feed)).collect();
        Engine::new(self.settings.clone(), &names, self.disk.saved.values().cloned().collect())
    }

    pub fn starts(&mut self, at: u64, feeds: &[usize]) {
        self.generation += 1;
        self.doom = None;
        let following = feeds.iter().map(|feed| {
            let start = self.disk.cursors.get(feed).map_or(Start::Snapshot, |cursor| Start::After(cursor.clone()));
            (*feed, Following::new(start))
        });
        let off = if self.generation.is_multiple_of(2) { 0 } else { 90_500 };
        self.process = Some(Process {
            engine: self.restored(feeds),
            twin: self.twins.then(|| (self.restored(feeds), off)),
            shadow: None,
            started: at,
            feeds: following.collect(),
            uncommitted: Vec::new(),
            progress: self.disk.cursors.clone(),
            paused_until: 0,
        });
    }

    pub fn dies(&mut self) {
        self.process = None;
        self.generation += 1;
        self.doom = None;
    }

    pub fn forgets(&mut self) {
        self.dies();
        let disk = &mut self.disk;
        disk.epochs += 1;
        disk.epoch = epoch(&format!("j{}e{}", self.at, disk.epochs));
        disk.first = 1;
        disk.journal.clear();
        disk.saved.clear();
        disk.cursors.clear();
        disk.nth.clear();
        self.open.clear();
        self.ids.clear();
        // What it is told of hosts that it never heard is dated by its own clock.
        self.twins = false;
    }

    /// The process, if it runs and is not suspended.
    pub fn awake(&mut self, at: u64) -> Option<&mut Process> {
        self.process.as_mut().filter(|process| at >= process.paused_until)
    }

    pub fn apply(&mut self, at: u64, input: Input) {
        let Some(process) = &mut self.process else { return };
        let now = Now { monotonic: Duration::from_millis(at - process.started), wall: wall(at, self.clock) };
        let twin = process.twin.as_mut().map(|(twin, off)| {
            let now = Now { wall: wall(at, self.clock + *off), ..now };
            (twin.apply(now, input.clone()), *off)
        });
        let restarted = process.shadow.as_mut().map(|shadow| shadow.engine.apply(now, input.clone()));
        let outputs = process.engine.apply(now, input);
        if let (Some(restarted), Some(shadow)) = (restarted, &mut process.shadow) {
            for (said, outputs) in shadow.said.iter_mut().zip([&outputs, &restarted]) {
                said.extend(drafts(outputs, 0).iter().map(|draft| (at, words(draft))));
            }
        }
        if let Some((others, off)) = twin {
            self.faults.extend(difference(&outputs, &others, off));
        }
        if let Some(process) = &mut self.process {
            process.uncommitted.extend(outputs);
        }
    }

    /// One step of a follower, into the engine.
    pub fn take(
        &mut self,
        at: u64,
        feed: usize,
        step: Step<Rc<FeedMessage>>,
        snapshot: Option<common::message::FeedSnapshot>,
    ) {
        let name = Self::feed_name(feed);
        match step {
            Step::Snapshot { cursor } => {
                self.follow(feed).note_snapshot(&cursor);
                self.progress(feed, cursor);
                self.apply(at, Input::Snapshot { feed: name, snapshot: snapshot.expect("it was just given") });
            }
            Step::Entry { cursor, message } => {
                let noted = self.follow(feed).note_entry(&cursor);
                if let Err(why) = noted {
                    self.faults.push(format!("{} lost an entry of its feed: {why}", self.name));
                }
                self.apply(at, Input::Entry { feed: name.clone() });
                self.message(at, name, &message);
                self.progress(feed, cursor);
            }
            Step::Live { message } => self.message(at, name, &message),
            Step::Lost { .. } | Step::Overtaken | Step::NewJournal { .. } => {}
        }
    }

    fn follow(&mut self, feed: usize) -> &mut Following<Rc<FeedMessage>> {
        self.process.as_mut().and_then(|process| process.feeds.get_mut(&feed)).expect("it follows")
    }

    fn progress(&mut self, feed: usize, cursor: Cursor) {
        if let Some(process) = &mut self.process {
            process.progress.insert(feed, cursor);
        }
    }

    fn message(&mut self, at: u64, feed: String, message: &FeedMessage) {
        self.apply(at, input(feed, message));
    }

    /// Everything pending in one transaction; what is to be published after it.
    pub fn commit(&mut self, retention: usize) -> Committed {
        let Some(process) = &mut self.process else { return Committed::Events(Vec::new()) };
        if !process.uncommitted.iter().any(|output| matches!(output, Output::Event(_) | Output::Save(_))) {
            process.uncommitted.clear();
            return Committed::Events(Vec::new());
        }
        if self.doom == Some(Death::BeforeCommit) {
            return Committed::Died;
        }
        let mut events = Vec::new();
        for output in std::mem::take(&mut process.uncommitted) {
            match output {
                Output::Event(draft) => {
                    let seq = self.disk.head() + 1;
                    let nth = self.disk.nth.entry(draft.top_severity).or_default();
                    *nth += 1;
                    let event = Rc::new(stamped(&draft, &self.disk.epoch, seq, *nth));
                    self.disk.journal.push_back(event.clone());
                    events.push(event);
                }
                Output::Save(saved) => {
                    self.disk.saved.insert(saved.identity(), saved);
                }
                Output::Refused(_) | Output::Notice(_) | Output::Ordered(_) => {}
            }
        }
        self.disk.cursors = process.progress.clone();
        while self.disk.journal.len() > retention {
            self.disk.journal.pop_front();
            self.disk.first += 1;
        }
        for event in &events {
            self.note(event);
        }
        if self.doom == Some(Death::AfterCommit) { Committed::Died } else { Committed::Events(events) }
    }

    /// That beginnings and ends of a key take turns in the journal, and no id comes twice.
    fn note(&mut self, event: &Event) {
        let key = (event.address.to_string(), event.rule.clone());
        let begins = matches!(event.kind, Kind::Down | Kind::Alarm | Kind::Absent);
        let ends = matches!(event.kind, Kind::Up | Kind::Solved | Kind::Retired) && event.duration_ms.is_some();
        if begins && !self.open.insert(key.clone()) {
            self.faults.push(format!("{} opened {} [{}] twice", self.name, key.0, key.1));
        }
        if ends && !self.open.remove(&key) {
            self.faults.push(format!("{} closed {} [{}], which was not open", self.name, key.0, key.1));
        }
        if event.kind == Kind::Log {
            *self.logs.entry(event.text.clone()).or_default() += 1;
        }
        if !self.ids.insert(event.id.to_string()) {
            let Event { kind, address, since, .. } = event;
            self.faults.push(format!("{} said {kind} {address} since {since} twice under one id", self.name));
        }
    }

    /// What it would answer.
    pub fn views(engine: &Engine) -> (Vec<ServerRow>, Vec<ServiceRow>, Vec<DownRow>) {
        (engine.server_list(), engine.service_list(None), engine.down_list())
    }
}

/// What a message of a feed is to an engine.
pub fn input(feed: String, message: &FeedMessage) -> Input {
    match message.clone() {
        FeedMessage::Beat(beat) => Input::Beat { feed, beat },
        FeedMessage::Alive(alive) => Input::Alive { feed, alive },
        FeedMessage::Check(check) => Input::Check(check),
        FeedMessage::Log(log) => Input::Log(log),
        FeedMessage::Sample(sample) => Input::Sample(sample),
    }
}

/// Whether a state of an incident comes from our own clock and not from an observation.
fn is_ours(draft: &Draft) -> bool {
    !matches!(draft.kind, Kind::Down | Kind::Up | Kind::Alarm | Kind::Blip | Kind::Log | Kind::Started | Kind::Stopped)
}

/// How two engines with equal input differ, of which one has a clock that is `off`.
pub fn difference(one: &[Output], two: &[Output], off: i64) -> Option<String> {
    let (one, two) = (drafts(one, off), drafts(two, off));
    let all = |drafts: &[Draft]| drafts.iter().map(words).collect::<Vec<_>>().join(", ");
    (all(&one) != all(&two)).then(|| {
        format!("two engines with equal input said ({}) and ({}), clocks {off} ms apart", all(&one), all(&two))
    })
}

fn words(draft: &Draft) -> String {
    format!("{} {} [{}] {}", draft.kind, draft.address, draft.rule, draft.id)
}

/// What was said; if the clocks are `off`, only what does not follow from our own clock, which is at another time then.
fn drafts(outputs: &[Output], off: i64) -> Vec<Draft> {
    let drafts = outputs.iter().filter_map(|output| match output {
        Output::Event(draft) if off == 0 || (!is_ours(draft) && draft.rule != "clock") => Some(draft.clone()),
        _ => None,
    });
    drafts.collect()
}
