//! Plays a plan: one queue of what is due, in virtual milliseconds, and everything that takes part.

use super::judge::{Committed, Judge};
use super::notifier::{Flight, Notifier, StreamMessage, Telling};
use super::oracle;
use super::plan::{Death, FEED_HOSTS, Judging, PATTERNS, Plan, Planned, Setup, Step, Weather, letter};
use super::rng::Rng;
use super::world::{self, Feed, FeedMessage, Host};
use common::address::{CheckAddress, Pattern};
use common::message::{Beat, DownRow, Epoch, FeedSnapshot};
use common::severity::Severity;
use common::subscriber::{Place, Want};
use cprocessd::engine::Input;
use cprocessd::engine::dependency::{Dependencies, Dependency};
use cprocessd::engine::ladder::{Ladder, Rung};
use cprocessd::engine::order::{Command, Order, Target};
use cprocessd::engine::rule::Rule;
use cprocessd::engine::settings::{PartialTuning, Settings, Tuning};
use cprocessd::engine::window::{When, Window, date_time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

/// After a question that nobody answered.
const UNANSWERED_MS: u64 = 500;
const RETRY_MS: u64 = 200;
/// Everything is delivered, every deadline has passed and every pause of an outbox is over within this.
const REST_MS: u64 = 80_000;
/// What is missing from the snapshots of all publishers for 5 minutes, asked each 5 minutes, is closed within this.
const CLOSED_MS: u64 = 11 * 60_000;

/// What a follower is answered.
enum Answer {
    FeedEvents(Epoch, u64, Vec<(u64, Rc<FeedMessage>)>),
    FeedSnapshot(Box<FeedSnapshot>),
    StreamEvents(Epoch, u64, Vec<(u64, StreamMessage)>),
    StreamSnapshot(Epoch, u64, Vec<DownRow>),
    Gone(u64),
    Nothing,
}

/// Who follows: a cprocessd a feed, or the notifier a stream.
#[derive(Clone, Copy, Debug)]
enum Consumer {
    Judge { judge: usize, feed: usize },
    Notifier { judge: usize },
}

enum Due {
    Feed(usize),
    Judge { judge: usize, generation: u32 },
    Notifier { generation: u32 },
    FeedArrives { judge: usize, feed: usize, generation: u32, message: Rc<FeedMessage> },
    StreamArrives { judge: usize, generation: u32, message: StreamMessage },
    Asked { consumer: Consumer, generation: u32, want: Want },
    Answered { consumer: Consumer, generation: u32, answer: Box<Answer> },
    Landed(Box<Flight>),
    Compared { generation: u32, open: Vec<DownRow> },
}

struct Queued {
    at: u64,
    n: u64,
    due: Due,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.n) == (other.at, other.n)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.n).cmp(&(other.at, other.n))
    }
}

/// One way of messages.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    weather: Weather,
    last: u64,
}

/// What a history came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was promised and is not so. Empty if all is well.
    pub faults: Vec<String>,
    /// What happened, if that was asked for.
    pub timeline: Vec<String>,
    /// Virtual time that passed.
    pub lasted: Duration,
}

/// Everything that takes part.
pub struct History {
    pub setup: Setup,
    rng: Rng,
    pub at: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    n: u64,
    /// Between two ticks of each daemon: longer in a long calm, which has nothing to miss.
    tick_ms: u64,
    pub feeds: Vec<Feed>,
    pub hosts: Vec<Host>,
    pub judges: Vec<Judge>,
    pub notifier: Notifier,
    links: Vec<Link>,
    log_texts: u64,
    /// The log events that are in the journal of a feed.
    pub logs: Vec<String>,
    /// Who judges may have missed something for good: a journal was lost, or cut, before it was read.
    pub cut: bool,
    /// A cprocessd has lost its state.
    pub forgotten: bool,
    /// The ids of the silences that were ordered.
    pub silences: Vec<String>,
    orders: u32,
    /// Since when somebody looks after an incident, by the word of everybody who knows of it.
    acked_since: BTreeMap<String, u64>,
    /// When a cprocessd last started, stopped or was suspended.
    judges_troubled: u64,
    pub timeline: Option<Vec<String>>,
    pub faults: Vec<String>,
}

/// What this cprocessd judges by.
pub fn settings(setup: &Setup, judge: usize) -> Settings {
    let rule = |name: &str, text: &str| Rule { name: name.into(), ..Rule::parse(name, text).expect("a rule") };
    let own: CheckAddress = format!("mon-{}!cprocessd:", letter(judge)).parse().expect("an address");
    let mut rules = vec![
        rule("disk full", "*!machine.disk:/.used_percentage > 90% for 10s clear 80% ERR"),
        rule("queue long", "*!app.queue:out.length > 100 clear 20 WARN"),
    ];
    // Who never hears of an address must not miss it.
    if setup.follows(judge, 0) {
        rules.push(rule("backup", "web1!backup:nightly absent for 40s CRIT"));
    }
    let jobs = Dependency {
        pattern: "*!process".parse().expect("a pattern"),
        on: vec!["web1!port:www".parse().expect("an address")],
    };
    let rung = |secs, severity| Rung { after: Duration::from_secs(secs), severity, repeat: None };
    let hasty = Ladder::new(vec![rung(15, None), rung(40, None), rung(100, Some(Severity::Crit))]).expect("in order");
    Settings {
        rules,
        dependencies: Dependencies::new(vec![jobs]).expect("no circle"),
        defaults: Tuning {
            stop_grace: Duration::from_secs(20),
            blip_quiet: Duration::from_mins(1),
            forget_discovered_after: Duration::from_mins(1),
            flap_window: Duration::from_mins(1),
            flap_calm: Duration::from_secs(20),
            ..Tuning::default()
        },
        tunings: vec![(
            "*!port:flaky".parse().expect("a pattern"),
            PartialTuning { confirm: Some(3), ..PartialTuning::default() },
        )],
        windows: setup.window.iter().map(|window| maintenance(setup, *window)).collect(),
        ladder: if setup.hasty { hasty } else { Ladder::default() },
        ..Settings::new(own)
    }
}

fn maintenance(setup: &Setup, (pattern, after, minutes): (usize, u64, u64)) -> Window {
    let at = |minutes: u64| {
        let moment = world::wall(minutes * 60_000, setup.begins).to_string();
        // To the minute.
        date_time("until", &moment[..16]).expect("a date and a time")
    };
    Window {
        name: "maintenance".to_owned(),
        pattern: pattern_of(pattern),
        when: When::Once { from: at(after), until: at(after + minutes) },
        zone: "UTC".parse().expect("a zone"),
    }
}

/// Plays a plan; with a timeline if somebody is to read it.
pub fn play(plan: &Plan, with_timeline: bool) -> Outcome {
    let mut history = History::new(&plan.setup, with_timeline);
    history.begin();
    for Planned { after, step } in &plan.steps {
        history.pass(*after);
        history.step(step);
        if !history.found().is_empty() {
            break;
        }
    }
    if history.found().is_empty() {
        history.step(&Step::Rest);
    }
    let faults = history.found();
    let mut timeline = history.timeline.take().unwrap_or_default();
    timeline.extend(faults.iter().map(|fault| format!("{}  FAULT: {fault}", clock(history.at))));
    Outcome { faults, timeline, lasted: Duration::from_millis(history.at) }
}

/// `12m 3.250s`.
pub fn clock(at: u64) -> String {
    let (minutes, seconds, ms) = (at / 60_000, at / 1000 % 60, at % 1000);
    format!("{minutes:>4}m {seconds:>2}.{ms:03}s")
}

impl History {
    fn new(setup: &Setup, with_timeline: bool) -> Self {
        let mut rng = Rng::new(setup.seed ^ 0x5eed);
        let hosts = (0..super::plan::HOSTS.len()).filter(|host| setup.has_host(*host));
        let mut hosts: Vec<Host> = hosts.map(|host| Host::new(host, usize::from(host == 2), rng.below(1000))).collect();
        let judges = (0..setup.judges()).map(|judge| Judge::new(judge, settings(setup, judge), setup.twins));
        let mut judges: Vec<Judge> = judges.collect();
        for host in &mut hosts {
            host.clock = setup.begins;
        }
        for judge in &mut judges {
            judge.clock = setup.begins;
        }
        Self {
            feeds: (0..setup.feeds).map(|feed| Feed::new(feed, setup.retention)).collect(),
            hosts,
            judges,
            notifier: Notifier::new(setup),
            links: vec![Link::default(); setup.links()],
            setup: setup.clone(),
            rng,
            at: 0,
            queue: BinaryHeap::new(),
            n: 0,
            tick_ms: 1000,
            log_texts: 0,
            logs: Vec::new(),
            cut: false,
            forgotten: false,
            silences: Vec::new(),
            orders: 0,
            acked_since: BTreeMap::new(),
            judges_troubled: 0,
            timeline: with_timeline.then(Vec::new),
            faults: Vec::new(),
        }
    }

    fn begin(&mut self) {
        for feed in 0..self.feeds.len() {
            self.queue(self.at + 100 * feed as u64, Due::Feed(feed));
        }
        for judge in 0..self.judges.len() {
            self.start_judge(judge);
        }
        self.start_notifier();
        self.pass(5000);
    }

    /// All that is wrong so far.
    fn found(&self) -> Vec<String> {
        let judges = self.judges.iter().flat_map(|judge| &judge.faults);
        judges.chain(&self.notifier.faults).chain(&self.faults).cloned().collect()
    }

    pub fn say(&mut self, words: impl FnOnce() -> String) {
        let at = clock(self.at);
        if let Some(timeline) = &mut self.timeline {
            timeline.push(format!("{at}  {}", words()));
        }
    }

    fn queue(&mut self, at: u64, due: Due) {
        self.n += 1;
        self.queue.push(Reverse(Queued { at, n: self.n, due }));
    }

    /// Lets the time pass.
    pub fn pass(&mut self, ms: u64) {
        let until = self.at + ms;
        while self.queue.peek().is_some_and(|Reverse(next)| next.at <= until) {
            let Some(Reverse(Queued { at, due, .. })) = self.queue.pop() else { break };
            self.at = at;
            // In a long wait everything ticks as slowly as it may without being called absent.
            self.tick_ms = if until - at > 150_000 { 1900 } else { 1000 };
            self.happen(due);
        }
        self.at = until;
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Feed(feed) => {
                let published = world::tick(self.at, feed, &mut self.feeds[feed], &mut self.hosts);
                self.publish_feed(feed, published);
                self.queue(self.at + self.tick_ms, Due::Feed(feed));
            }
            Due::Judge { judge, generation } if self.judges[judge].generation == generation => {
                self.judge_tick(judge);
                self.queue(self.at + self.tick_ms, Due::Judge { judge, generation });
            }
            Due::Notifier { generation } if self.notifier.generation == generation => {
                if self.notifier.awake(self.at).is_some() {
                    for judge in 0..self.judges.len() {
                        self.pump_notifier(judge);
                    }
                    self.notifier.tick(self.at);
                    self.settle_notifier();
                }
                self.queue(self.at + self.tick_ms, Due::Notifier { generation });
            }
            Due::FeedArrives { judge, feed, generation, message } => {
                if self.judges[judge].generation == generation
                    && let Some(process) = &mut self.judges[judge].process
                    && let Some(following) = process.feeds.get_mut(&feed)
                {
                    following.inbox.push_back((message.place(), message));
                    self.pump_judge(judge, feed);
                }
            }
            Due::StreamArrives { judge, generation, message } => {
                if self.notifier.generation == generation
                    && let Some(process) = &mut self.notifier.process
                    && let Some(following) = process.streams.get_mut(&judge)
                {
                    following.inbox.push_back((message.place(), message));
                    self.pump_notifier(judge);
                }
            }
            Due::Asked { consumer, generation, want } => self.asked(consumer, generation, &want),
            Due::Answered { consumer, generation, answer } => self.answered(consumer, generation, *answer),
            Due::Landed(flight) => {
                if self.notifier.awake(self.at).is_some() {
                    self.notifier.landed(self.at, *flight);
                    self.settle_notifier();
                } else if flight.generation == self.notifier.generation {
                    self.queue(self.at + 500, Due::Landed(flight));
                }
            }
            Due::Compared { generation, open } => {
                if self.notifier.generation == generation {
                    self.notifier.compared(self.at, open);
                    self.settle_notifier();
                }
            }
            Due::Judge { .. } | Due::Notifier { .. } => {}
        }
    }

    fn start_judge(&mut self, judge: usize) {
        let feeds: Vec<usize> = (0..self.setup.feeds).filter(|feed| self.setup.follows(judge, *feed)).collect();
        self.judges_troubled = self.at;
        self.judges[judge].starts(self.at, &feeds);
        let generation = self.judges[judge].generation;
        let first = self.at + self.rng.below(1000);
        self.queue(first, Due::Judge { judge, generation });
        for feed in feeds {
            self.pump_judge(judge, feed);
        }
    }

    fn start_notifier(&mut self) {
        self.notifier.starts(self.at);
        let generation = self.notifier.generation;
        let first = self.at + self.rng.below(1000);
        self.queue(first, Due::Notifier { generation });
        for judge in 0..self.judges.len() {
            self.pump_notifier(judge);
        }
        self.settle_notifier();
    }

    /// When something that is sent now arrives; never, or twice, by the weather.
    fn ways(&mut self, link: usize, is_journaled: bool) -> Vec<u64> {
        let Link { weather, last } = &mut self.links[link];
        let Weather { lost, doubled, delay_ms, reorders } = *weather;
        let mut arrivals = Vec::with_capacity(1);
        if !self.rng.percent(lost) {
            arrivals.push(());
            if self.rng.percent(doubled) {
                arrivals.push(());
            }
        }
        let at = self.at;
        let arrivals = arrivals.into_iter().map(|()| {
            let arrives = at + 1 + self.rng.below(delay_ms + 1);
            // Never all of them: a minute without a state is a long time here.
            if reorders && !is_journaled && self.rng.percent(60) {
                return arrives;
            }
            *last = arrives.max(*last);
            *last
        });
        arrivals.collect()
    }

    fn publish_feed(&mut self, feed: usize, published: Vec<Rc<FeedMessage>>) {
        for message in published {
            if let FeedMessage::Log(log) = &*message
                && log.seq.is_some()
            {
                self.logs.push(log.text.clone());
            }
            for judge in 0..self.judges.len() {
                if !self.setup.follows(judge, feed) || self.judges[judge].process.is_none() {
                    continue;
                }
                let is_journaled = matches!(message.place(), Place::Entry { .. });
                let generation = self.judges[judge].generation;
                for at in self.ways(feed * self.setup.judges() + judge, is_journaled) {
                    self.queue(at, Due::FeedArrives { judge, feed, generation, message: message.clone() });
                }
            }
        }
    }

    fn publish_stream(&mut self, judge: usize, message: &StreamMessage) {
        if self.notifier.process.is_none() {
            return;
        }
        let link = self.setup.feeds * self.setup.judges() + judge;
        let generation = self.notifier.generation;
        for at in self.ways(link, matches!(message, StreamMessage::Event(_))) {
            self.queue(at, Due::StreamArrives { judge, generation, message: message.clone() });
        }
    }

    fn judge_tick(&mut self, judge: usize) {
        if self.judges[judge].awake(self.at).is_none() {
            return;
        }
        let feeds: Vec<usize> = (0..self.feeds.len()).filter(|feed| self.setup.follows(judge, *feed)).collect();
        for feed in feeds {
            self.pump_judge(judge, feed);
        }
        self.judges[judge].apply(self.at, Input::Idle);
        self.commit_judge(judge);
        let this = &self.judges[judge];
        if this.process.is_some() {
            let time = world::wall(self.at, this.clock);
            let (epoch, head_seq) = (this.disk.epoch.clone(), this.disk.head());
            self.publish_stream(judge, &StreamMessage::Beat(Beat { time, epoch, head_seq, host: None, nth: None }));
        }
    }

    /// What waits in the socket, as far as the follower takes it.
    fn pump_judge(&mut self, judge: usize, feed: usize) {
        let at = self.at;
        while let Some(following) = self.judges[judge].awake(at).and_then(|process| process.feeds.get_mut(&feed)) {
            if *following.follower.want() != Want::Message {
                break;
            }
            let Some((place, message)) = following.inbox.pop_front() else { break };
            if let Some(step) = following.follower.message(Duration::from_millis(at), place, message) {
                self.judges[judge].take(at, feed, step, None);
            }
        }
        self.commit_judge(judge);
        self.ask(Consumer::Judge { judge, feed });
    }

    fn commit_judge(&mut self, judge: usize) {
        match self.judges[judge].commit(self.setup.retention) {
            Committed::Died => self.judge_died(judge),
            Committed::Events(events) => {
                for event in events {
                    let name = self.judges[judge].name.clone();
                    self.say(|| {
                        format!("    {name}: {} {} [{}] ({})", event.kind, event.address, event.rule, event.text)
                    });
                    self.publish_stream(judge, &StreamMessage::Event(event));
                }
            }
        }
    }

    fn judge_died(&mut self, judge: usize) {
        let (name, doom) = (self.judges[judge].name.clone(), self.judges[judge].doom);
        self.say(|| format!("    {name} dies{}", doom.map_or(String::new(), |how| format!(" {how}"))));
        self.judges_troubled = self.at;
        self.judges[judge].dies();
    }

    fn pump_notifier(&mut self, judge: usize) {
        let at = self.at;
        while let Some(following) = self.notifier.awake(at).and_then(|process| process.streams.get_mut(&judge)) {
            if *following.follower.want() != Want::Message {
                break;
            }
            let Some((place, message)) = following.inbox.pop_front() else { break };
            if let Some(step) = following.follower.message(Duration::from_millis(at), place, message) {
                self.notifier.take(at, judge, step, None);
            }
        }
        self.settle_notifier();
        self.ask(Consumer::Notifier { judge });
    }

    /// Commits, sends, asks.
    fn settle_notifier(&mut self) {
        if self.notifier.awake(self.at).is_none() {
            return;
        }
        let mut flights = Vec::new();
        let read = self.timeline.is_some().then(|| self.open_words());
        let lives = self.notifier.commit(self.at) && self.notifier.dispatch(self.at, &mut flights);
        if let Some(before) = read {
            let after = self.open_words();
            for words in after.iter().filter(|words| !before.contains(words)) {
                self.say(|| format!("    {words}"));
            }
            for words in before.iter().filter(|words| !after.contains(words)) {
                self.say(|| format!("    no longer: {words}"));
            }
        }
        self.check_tellings();
        for flight in flights {
            let at = self.at + 1 + self.rng.below(400);
            self.queue(at, Due::Landed(Box::new(flight)));
        }
        if !lives {
            let doom = self.notifier.doom;
            self.say(|| format!("    the notifier dies{}", doom.map_or(String::new(), |how| format!(" {how}"))));
            self.notifier.dies();
            return;
        }
        let generation = self.notifier.generation;
        if let Some(process) = &mut self.notifier.process
            && std::mem::take(&mut process.comparing)
        {
            let mut open = Vec::new();
            for judge in &self.judges {
                let Some(judge) = judge.process.as_ref().filter(|process| self.at >= process.paused_until) else {
                    return;
                };
                open.extend(judge.engine.down_list());
            }
            let at = self.at + 1 + self.rng.below(300);
            self.queue(at, Due::Compared { generation, open });
        }
    }

    /// Nobody who asked for what nobody looks after is told of what somebody did look after all the time since it was due.
    fn check_tellings(&mut self) {
        let tellings = std::mem::take(&mut self.notifier.tellings);
        let started = self.notifier.process.as_ref().map_or(self.at, |process| process.started);
        let troubled = self.judges_troubled;
        for Telling { who, incident, due } in tellings {
            let due = due.max(started);
            let all_awake = self.judges.iter_mut().all(|judge| judge.awake(self.at).is_some());
            let acked_before = self.acked_since.get(&incident).is_some_and(|since| *since < due);
            if all_awake && troubled < due && acked_before && self.acked().contains(&incident) {
                self.faults
                    .push(format!("{who} was told of {incident}, which somebody looks after, and did when it was due"));
            }
        }
    }

    /// The incidents that somebody looks after, by the word of everybody who knows of them.
    fn acked(&self) -> BTreeSet<String> {
        let rows: Vec<DownRow> = self.open_by_judge().into_iter().flat_map(BTreeMap::into_values).collect();
        let unacked: BTreeSet<String> =
            rows.iter().filter(|row| !row.acked).map(|row| row.incident.to_string()).collect();
        let acked = rows.iter().filter(|row| row.acked).map(|row| row.incident.to_string());
        acked.filter(|incident| !unacked.contains(incident)).collect()
    }

    fn note_acked(&mut self) {
        let acked = self.acked();
        self.acked_since.retain(|incident, _| acked.contains(incident));
        for incident in acked {
            self.acked_since.entry(incident).or_insert(self.at);
        }
    }

    fn open_words(&self) -> Vec<String> {
        let readers = self.notifier.readers.iter();
        readers
            .flat_map(|(name, reader)| {
                let open = reader.open.iter();
                open.map(move |((address, rule), (_, severity, _))| {
                    format!("{name} knows of {severity} {address} [{rule}]")
                })
            })
            .collect()
    }

    /// Asks what a follower wants to know, unless it is asking already.
    fn ask(&mut self, consumer: Consumer) {
        let (want, generation) = match consumer {
            Consumer::Judge { judge, feed } => {
                let generation = self.judges[judge].generation;
                let process = self.judges[judge].process.as_mut();
                let Some(following) = process.and_then(|process| process.feeds.get_mut(&feed)) else { return };
                if following.asking || *following.follower.want() == Want::Message {
                    return;
                }
                following.asking = true;
                (following.follower.want().clone(), generation)
            }
            Consumer::Notifier { judge } => {
                let generation = self.notifier.generation;
                let process = self.notifier.process.as_mut();
                let Some(following) = process.and_then(|process| process.streams.get_mut(&judge)) else { return };
                if following.asking || *following.follower.want() == Want::Message {
                    return;
                }
                following.asking = true;
                (following.follower.want().clone(), generation)
            }
        };
        let at = self.at + 1 + self.rng.below(50);
        self.queue(at, Due::Asked { consumer, generation, want });
    }

    /// The question has reached who is to answer it.
    fn asked(&mut self, consumer: Consumer, generation: u32, want: &Want) {
        let link = match consumer {
            Consumer::Judge { judge, feed } => feed * self.setup.judges() + judge,
            Consumer::Notifier { judge } => self.setup.feeds * self.setup.judges() + judge,
        };
        let Weather { lost, delay_ms, .. } = self.links[link].weather;
        let answer = if self.rng.percent(lost) { Answer::Nothing } else { self.answer(consumer, want) };
        let at = match answer {
            Answer::Nothing => self.at + UNANSWERED_MS,
            _ => self.at + 1 + self.rng.below(delay_ms.min(400) + 20),
        };
        self.queue(at, Due::Answered { consumer, generation, answer: Box::new(answer) });
    }

    fn answer(&mut self, consumer: Consumer, want: &Want) -> Answer {
        // Small pages, so that a long absence takes several.
        let page = 1 + self.rng.index(30);
        match consumer {
            Consumer::Judge { feed, .. } => {
                let own = self.hosts.iter().find(|host| host.feed == feed && host.owns_feed);
                if !own.is_some_and(|host| host.running) {
                    return Answer::Nothing;
                }
                let source = &self.feeds[feed];
                match want {
                    Want::Snapshot => {
                        self.cut |= !self.logs.is_empty();
                        Answer::FeedSnapshot(Box::new(world::snapshot(feed, source, &self.hosts)))
                    }
                    Want::Events { after } => {
                        let Some(skip) = skipped(after, &source.epoch, source.first, source.head()) else {
                            return Answer::Gone(source.first);
                        };
                        let entries = source.journal.iter().enumerate().skip(skip).take(page);
                        let entries = entries.map(|(i, message)| (source.first + i as u64, message.clone())).collect();
                        Answer::FeedEvents(source.epoch.clone(), source.head(), entries)
                    }
                    Want::Message | Want::Health => Answer::Nothing,
                }
            }
            Consumer::Notifier { judge } => {
                if self.judges[judge].awake(self.at).is_none() {
                    return Answer::Nothing;
                }
                let source = &self.judges[judge];
                let disk = &source.disk;
                match want {
                    Want::Snapshot => {
                        self.cut |= !self.logs.is_empty();
                        let open =
                            source.process.as_ref().map(|process| process.engine.down_list()).unwrap_or_default();
                        Answer::StreamSnapshot(disk.epoch.clone(), disk.head(), open)
                    }
                    Want::Events { after } => {
                        let Some(skip) = skipped(after, &disk.epoch, disk.first, disk.head()) else {
                            return Answer::Gone(disk.first);
                        };
                        let entries = disk.journal.iter().skip(skip).take(page);
                        let entries = entries.map(|event| (event.seq, StreamMessage::Event(event.clone()))).collect();
                        Answer::StreamEvents(disk.epoch.clone(), disk.head(), entries)
                    }
                    Want::Message | Want::Health => Answer::Nothing,
                }
            }
        }
    }

    fn answered(&mut self, consumer: Consumer, generation: u32, answer: Answer) {
        let at = self.at;
        match consumer {
            Consumer::Judge { judge, feed } => {
                if self.judges[judge].generation != generation {
                    return;
                }
                let Some(process) = &mut self.judges[judge].process else { return };
                if at < process.paused_until {
                    // It lies in the socket until somebody looks.
                    let due = Due::Answered { consumer, generation, answer: Box::new(answer) };
                    return self.queue(at + 1000, due);
                }
                let Some(following) = process.feeds.get_mut(&feed) else { return };
                following.asking = false;
                let (mut steps, mut state) = (Vec::new(), None);
                match answer {
                    Answer::FeedEvents(epoch, head, entries) => {
                        // Stuck: asked again below.
                        let _ = following.follower.events(&epoch, head, entries, &mut steps);
                    }
                    Answer::FeedSnapshot(snapshot) => {
                        let (epoch, seq) = (snapshot.epoch.clone(), snapshot.seq);
                        following.follower.snapshot(epoch, seq, &mut steps).expect("a small journal");
                        state = Some(*snapshot);
                    }
                    Answer::Gone(first) => following.follower.gone(Some(first)),
                    Answer::Nothing => return self.ask_later(consumer),
                    Answer::StreamEvents(..) | Answer::StreamSnapshot(..) => {}
                }
                for step in steps {
                    self.judges[judge].take(at, feed, step, state.take());
                }
                self.pump_judge(judge, feed);
            }
            Consumer::Notifier { judge } => {
                if self.notifier.generation != generation {
                    return;
                }
                let Some(process) = &mut self.notifier.process else { return };
                if at < process.paused_until {
                    let due = Due::Answered { consumer, generation, answer: Box::new(answer) };
                    return self.queue(at + 1000, due);
                }
                let Some(following) = process.streams.get_mut(&judge) else { return };
                following.asking = false;
                let (mut steps, mut state) = (Vec::new(), None);
                match answer {
                    Answer::StreamEvents(epoch, head, entries) => {
                        let _ = following.follower.events(&epoch, head, entries, &mut steps);
                    }
                    Answer::StreamSnapshot(epoch, seq, open) => {
                        following.follower.snapshot(epoch, seq, &mut steps).expect("a small journal");
                        state = Some(open);
                    }
                    Answer::Gone(first) => following.follower.gone(Some(first)),
                    Answer::Nothing => return self.ask_later(consumer),
                    Answer::FeedEvents(..) | Answer::FeedSnapshot(..) => {}
                }
                for step in steps {
                    self.notifier.take(at, judge, step, state.take());
                }
                self.pump_notifier(judge);
            }
        }
    }

    /// Nobody answered: the same question again, a little later.
    fn ask_later(&mut self, consumer: Consumer) {
        let (want, generation) = match consumer {
            Consumer::Judge { judge, feed } => {
                let generation = self.judges[judge].generation;
                let process = self.judges[judge].process.as_mut();
                let Some(following) = process.and_then(|process| process.feeds.get_mut(&feed)) else { return };
                following.asking = true;
                (following.follower.want().clone(), generation)
            }
            Consumer::Notifier { judge } => {
                let generation = self.notifier.generation;
                let process = self.notifier.process.as_mut();
                let Some(following) = process.and_then(|process| process.streams.get_mut(&judge)) else { return };
                following.asking = true;
                (following.follower.want().clone(), generation)
            }
        };
        self.queue(self.at + RETRY_MS, Due::Asked { consumer, generation, want });
    }

    fn host_at(&mut self, host: usize) -> Option<usize> {
        let name = super::plan::HOSTS[host];
        self.hosts.iter().position(|host| host.name.as_str() == name)
    }

    fn step(&mut self, step: &Step) {
        let words = self.timeline.is_some().then(|| self.setup.words(step));
        if let Some(words) = words {
            self.say(|| words);
        }
        match step {
            Step::Wait => {}
            Step::Goes { host, .. }
            | Step::Blips { host, .. }
            | Step::Reports { host, .. }
            | Step::Configured { host, .. }
            | Step::Value { host, .. }
            | Step::Flaps { host, .. }
            | Step::Happens { host }
            | Step::HostStops { host, .. }
            | Step::HostStarts { host }
            | Step::HostForgets { host }
            | Step::HostDisk { host, .. }
            | Step::HostClock { host, .. } => {
                if let Some(host) = self.host_at(*host) {
                    self.step_of_host(host, step);
                }
            }
            Step::JudgeDies { judge, .. }
            | Step::JudgeStarts { judge }
            | Step::JudgeForgets { judge }
            | Step::JudgePauses { judge, .. }
            | Step::JudgeClock { judge, .. } => self.step_of_judge(*judge, step),
            Step::NotifierDies { .. }
            | Step::NotifierStarts
            | Step::NotifierPauses { .. }
            | Step::NotifierClock { .. }
            | Step::Medium { .. }
            | Step::Selects { .. } => self.step_of_notifier(step),
            Step::Sleeps { secs } => {
                // What no disk has would be forgotten over it.
                self.hosts.iter_mut().for_each(|host| host.set_disk(self.at, true));
                self.pass(1500);
                self.sleep(self.at + secs * 1000);
            }
            Step::Silence { .. } | Step::Unsilence { .. } | Step::Ack { .. } | Step::Unack { .. } => {
                self.step_of_people(step);
            }
            Step::Weather { link, weather } => {
                if let Some(link) = self.links.get_mut(*link) {
                    link.weather = *weather;
                }
            }
            Step::Rest => self.rest(),
        }
    }

    fn step_of_host(&mut self, at: usize, step: &Step) {
        let disk_works = self.hosts[at].disk_works() && self.owner(self.hosts[at].feed).disk_works();
        let host = &mut self.hosts[at];
        match step {
            Step::Goes { thing, up, .. } => host.things[*thing].up = *up,
            Step::Blips { thing, .. } => host.blips(*thing),
            Step::Reports { thing, reports, .. } => host.things[*thing].reports = *reports,
            // What leaves and comes back before its leaving can be journaled would be retired while it is reported.
            Step::Configured { thing, configured, .. } if disk_works => host.set_listed(*thing, *configured),
            Step::Value { number, zone, .. } => host.numbers[*number].zone = *zone,
            Step::Flaps { thing, times, .. } => {
                let thing = &mut host.things[*thing];
                (thing.flaps, thing.has_flapped) = (*times, true);
            }
            Step::Happens { .. } if host.running => {
                self.log_texts += 1;
                host.log(self.at, self.log_texts);
            }
            Step::Configured { .. } | Step::Happens { .. } => {}
            Step::HostStops { goodbye, .. } => self.host_stops(at, *goodbye),
            Step::HostStarts { .. } => self.host_starts(at),
            Step::HostForgets { .. } => self.host_forgets(at),
            Step::HostDisk { works, .. } => host.set_disk(self.at, *works),
            Step::HostClock { secs, .. } => {
                host.clock += jump_ms(*secs);
                self.notifier.clocks_differ = true;
                self.notifier.copies_look_new |= *secs < 0 && self.setup.judging == Judging::Redundant;
            }
            _ => unreachable!("{step:?} is not about a host"),
        }
    }

    fn step_of_judge(&mut self, judge: usize, step: &Step) {
        match step {
            Step::JudgeDies { how: Death::Now, .. } => self.judge_died(judge),
            Step::JudgeDies { how, .. } => {
                if self.judges[judge].process.is_some() {
                    self.judges[judge].doom = Some(*how);
                }
            }
            Step::JudgeStarts { .. } => {
                if self.judges[judge].process.is_none() {
                    self.start_judge(judge);
                }
            }
            Step::JudgeForgets { .. } => {
                (self.cut, self.forgotten) = (true, true);
                // What it finds open is dated anew.
                self.notifier.clocks_differ = true;
                self.judges[judge].forgets();
                self.start_judge(judge);
            }
            Step::JudgePauses { secs, .. } => {
                let until = self.at + secs * 1000;
                self.judges_troubled = until;
                if let Some(process) = &mut self.judges[judge].process {
                    process.paused_until = until;
                }
                if *secs > 3600 {
                    self.sleep(until);
                }
            }
            Step::JudgeClock { secs, .. } => {
                self.judges[judge].clock += jump_ms(*secs);
                self.notifier.clocks_differ = true;
            }
            _ => unreachable!("{step:?} is not about a cprocessd"),
        }
    }

    fn step_of_notifier(&mut self, step: &Step) {
        match step {
            Step::NotifierDies { how: Death::Now } => self.notifier.dies(),
            Step::NotifierDies { how } => {
                if self.notifier.process.is_some() {
                    self.notifier.doom = Some(*how);
                }
            }
            Step::NotifierStarts => {
                if self.notifier.process.is_none() {
                    self.start_notifier();
                }
            }
            Step::NotifierPauses { secs } => {
                let until = self.at + secs * 1000;
                if let Some(process) = &mut self.notifier.process {
                    process.paused_until = until;
                }
                if *secs > 3600 {
                    self.sleep(until);
                }
            }
            Step::NotifierClock { secs } => self.notifier.clock_jumps(jump_ms(*secs)),
            Step::Medium { lane, does } => self.notifier.media[*lane] = *does,
            Step::Selects { recipient, wish } => {
                self.notifier.set_wish(self.at, *recipient, wish);
                self.settle_notifier();
            }
            _ => unreachable!("{step:?} is not about the notifier"),
        }
    }

    fn step_of_people(&mut self, step: &Step) {
        match step {
            Step::Silence { pattern, secs } => {
                let id = self.order(|at, clock| Command::Silence {
                    pattern: pattern_of(*pattern),
                    until: world::wall(at + secs * 1000, clock),
                    reason: String::new(),
                    maintenance: *secs == 300,
                });
                self.silences.push(id);
            }
            Step::Unsilence { last } => {
                let ordered = self.silences.len().checked_sub(last + 1);
                if let Some(silence) = ordered.map(|at| self.silences[at].clone()) {
                    self.order(|_, _| Command::Unsilence { silence: silence.clone() });
                }
            }
            Step::Ack { pattern, secs } => {
                self.order(|at, clock| Command::Ack {
                    target: Target::Pattern(pattern_of(*pattern)),
                    until: secs.map(|secs| world::wall(at + secs * 1000, clock)),
                    reason: String::new(),
                });
            }
            Step::Unack { pattern } => {
                self.order(|_, _| Command::Unack { target: Target::Pattern(pattern_of(*pattern)) });
            }
            _ => unreachable!("{step:?} is no order"),
        }
    }

    /// Its ccollectd is killed, loses its disk and is started.
    fn host_forgets(&mut self, host: usize) {
        self.hosts[host].dies();
        let feed = self.hosts[host].feed;
        let owns = self.hosts[host].owns_feed;
        self.cut = true;
        let feed_journal = if owns { Some(&mut self.feeds[feed]) } else { None };
        self.hosts[host].forgets(feed_journal);
        if owns {
            for other in self.hosts.iter_mut().filter(|other| other.feed == feed && !other.owns_feed) {
                other.known = other.running;
            }
        }
        self.host_starts(host);
    }

    /// Everybody who is there carries out an order, given at this time by the clock of who judges. Its id.
    fn order(&mut self, command: impl Fn(u64, i64) -> Command) -> String {
        self.orders += 1;
        self.note_acked();
        let id = format!("order-{}", self.orders);
        for judge in 0..self.judges.len() {
            let clock = self.judges[judge].clock;
            if self.judges[judge].awake(self.at).is_some() {
                let order = Order { id: id.clone(), author: "ann".to_owned(), command: command(self.at, clock) };
                self.judges[judge].apply(self.at, Input::Order(order));
                self.commit_judge(judge);
            }
        }
        self.note_acked();
        id
    }

    /// All machines are suspended: nobody sees the time pass but the clocks.
    fn sleep(&mut self, until: u64) {
        let slept = until - self.at;
        let queue: Vec<_> = std::mem::take(&mut self.queue).into_vec();
        for Reverse(mut queued) in queue {
            queued.at += slept;
            self.queue.push(Reverse(queued));
        }
        for link in &mut self.links {
            link.last = link.last.max(until);
        }
        self.at = until;
    }

    fn host_starts(&mut self, host: usize) {
        if !self.hosts[host].running {
            let at = self.at;
            self.hosts[host].starts(at);
        }
        let feed = self.hosts[host].feed;
        if self.hosts.iter().any(|other| other.feed == feed && other.owns_feed && other.running) {
            for other in self.hosts.iter_mut().filter(|other| other.feed == feed && other.running) {
                other.known = true;
            }
        }
    }

    fn host_stops(&mut self, host: usize, goodbye: bool) {
        if !self.hosts[host].running {
            return;
        }
        if goodbye {
            let feed = self.hosts[host].feed;
            let published = world::goodbye(self.at, host, &mut self.feeds[feed], &mut self.hosts);
            self.publish_feed(feed, published);
        }
        self.hosts[host].dies();
    }

    /// Everything that is ours runs and works, everything is delivered, every deadline passes; then all promises are checked.
    fn rest(&mut self) {
        for host in &mut self.hosts {
            host.set_disk(self.at, true);
            // Whatever changes has changed.
            for thing in &mut host.things {
                thing.flaps = 0;
            }
        }
        for link in &mut self.links {
            link.weather = Weather::default();
        }
        self.notifier.media = [super::plan::MediumDoes::Accepts; super::plan::LANES.len()];
        for judge in 0..self.judges.len() {
            self.judges[judge].doom = None;
            match &mut self.judges[judge].process {
                Some(process) => process.paused_until = 0,
                None => self.start_judge(judge),
            }
        }
        self.notifier.doom = None;
        match &mut self.notifier.process {
            Some(process) => process.paused_until = 0,
            None => self.start_notifier(),
        }
        self.pass(REST_MS);
        let mut wrong = oracle::judged(self);
        wrong.extend(oracle::followed(self));
        if wrong.is_empty() && !oracle::told(self).is_empty() {
            self.pass(CLOSED_MS);
            wrong = oracle::told(self);
        }
        if wrong.is_empty() {
            wrong = self.released();
        }
        if wrong.is_empty() {
            wrong.extend(oracle::restarted(self));
        }
        self.faults.extend(wrong);
    }

    /// What is held back is told when it no longer is: first what comes next, then all of it.
    fn released(&mut self) -> Vec<String> {
        for last in [false, true] {
            let holds = oracle::holds(self);
            let Some(until) = (if last { holds.into_iter().max() } else { holds.into_iter().min() }) else { break };
            let before = until.saturating_sub(2000);
            if before > self.at + 60_000 {
                self.say(|| "all machines are suspended until something is to be told".to_owned());
                self.sleep(before);
            }
            self.pass(until.saturating_sub(self.at) + oracle::RELEASED_WITHIN_MS);
            // It may be over, and nobody has said so.
            if !oracle::told(self).is_empty() {
                self.pass(CLOSED_MS);
            }
            let wrong = oracle::told(self);
            if !wrong.is_empty() {
                return wrong;
            }
        }
        Vec::new()
    }

    /// The place of the host whose ccollectd has this feed.
    pub fn owner(&self, feed: usize) -> &Host {
        let name = super::plan::HOSTS[FEED_HOSTS[feed]];
        self.hosts.iter().find(|host| host.name.as_str() == name).expect("a feed has a host")
    }

    /// Whether what was journaled can be asked for.
    pub fn all_feeds_run(&self) -> bool {
        (0..self.feeds.len()).all(|feed| self.owner(feed).running)
    }

    /// By name, for the oracle.
    pub fn open_by_judge(&self) -> Vec<BTreeMap<(String, String), DownRow>> {
        let judges = self.judges.iter().map(|judge| {
            let rows = judge.process.as_ref().map(|process| process.engine.down_list()).unwrap_or_default();
            rows.into_iter().map(|row| ((row.address.to_string(), row.rule.clone()), row)).collect()
        });
        judges.collect()
    }
}

/// By how much a clock jumps: never to dates at which something was observed before, since outages of one date are one.
fn jump_ms(secs: i64) -> i64 {
    secs * 1000 + secs.signum() * 137
}

fn pattern_of(pattern: usize) -> Pattern {
    PATTERNS[pattern].parse().expect("a pattern")
}

/// How many entries of a journal come before what follows `after`; none if that is gone.
fn skipped(after: &common::subscriber::Cursor, epoch: &Epoch, first: u64, head: u64) -> Option<usize> {
    let other = after.epoch.as_ref().is_some_and(|wanted| wanted != epoch);
    let gone = other || after.seq > head || after.seq + 1 < first;
    (!gone).then(|| usize::try_from(after.seq + 1 - first).expect("a small journal"))
}
