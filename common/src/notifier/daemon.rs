//! The shell of a notifier: streams in, messages out, questions answered. What it decides is decided in `teller` and
//! `outbox`.

use crate::config::ConfigError;
use crate::counters::Counters;
use crate::database::DatabaseError;
use crate::message::{self, DownRow, ErrorBody, ErrorCode, Event, Kind, Request, StreamSnapshot, SubscriberRow};
use crate::notifier::desk::{Composer, Desk, Outgoing, Who};
use crate::notifier::own::{OwnChecks, OwnReport, report_to};
use crate::notifier::store::Store;
use crate::notifier::subscribers::{Heard, Standing, Subscribers, order_in};
use crate::notifier::teller::{Input, Now, Teller};
use crate::notifier::{
    Composed, Lane, Letter, Medium, MessageId, Note, Outcome, Pace, Recipient, Said, Scope, Setup, one_line,
};
use crate::query::{Answer, AskError, ask_for};
use crate::questions::Questions;
use crate::socket::{Requester, Route};
use crate::startup::{self, Asked, DaemonArgs, Fatal, Signals};
use crate::subscriber::{Cursor, Delivery, MAX_STREAM_STATE_BYTES, Publication, Start, follow};
use crate::time::{UnixMillis, for_people};
use crate::traffic::Traffic;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

/// Deliveries of all streams that wait for us. Beyond it the streams' own sockets keep them, and their journals after that.
const WAITING_DELIVERIES: usize = 64;
/// Deliveries that share one commit.
const BATCH: usize = 256;
/// The watchdog, silence, pauses that end.
const TICK: Duration = Duration::from_millis(500);
/// A medium that has not ended by then has lost the message.
const SEND_AT_MOST: Duration = Duration::from_mins(3);
/// At a stop, how long a message that is under way may take to get its answer.
const DRAIN: Duration = Duration::from_secs(15);
/// And after that, how long a medium may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long a comparison may take per publisher.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a publisher may take to list its subscribers,
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// and when it is asked again if it did not, or if nothing was heard of a change.
const LIST_RETRY: Duration = Duration::from_secs(5);
const LIST_EVERY: Duration = Duration::from_mins(5);
/// A lane that cannot be reached for this long is down.
const DOWN_AFTER: Duration = Duration::from_secs(30);
/// A publisher that was not heard for longer is not said to be alive. It beats each second.
const BEATS_WITHIN: Duration = Duration::from_secs(10);
/// Between two attempts to write to a disk that refused.
const DISK_RETRY: Duration = Duration::from_secs(1);
/// Between two cleanings of the ledger.
const CLEAN_EVERY: Duration = Duration::from_hours(1);
/// Of a text, this much is logged.
const LOGGED_CHARS: usize = 200;

/// Reads and checks a notifier's configuration, within the runtime. Its media count what they refuse under names of their own.
type Load<M> = fn(&Path, &Counters) -> Result<Setup<M>, ConfigError>;

/// Runs a notifier: the whole of its `main` after the command line. `load` reads and checks its configuration, and gets what
/// its media count with.
pub fn run<M: Medium>(name: &'static str, args: &DaemonArgs, load: Load<M>) -> Result<(), Fatal> {
    let path = args.config_path(name);
    let print = args.print;
    let check_only = args.check_config;
    startup::block_on(async move {
        let counters = Counters::default();
        let setup = load(&path, &counters)?;
        if check_only {
            return startup::say_fine(&path);
        }
        let mut daemon = Daemon::start(name, setup, path, load, counters, print).await?;
        startup::notify_ready();
        daemon.run().await?;
        daemon.stop().await;
        Ok(())
    })
}

struct Daemon<M: Medium> {
    name: &'static str,
    config_path: PathBuf,
    load: Load<M>,
    run_dir: PathBuf,
    state_dir: PathBuf,
    publishers: Vec<PathBuf>,
    /// When each was heard last.
    heard: BTreeMap<String, Instant>,
    started: Instant,
    desk: Desk,
    lanes: BTreeMap<String, Running<M>>,
    /// How many tasks were ever started for a lane.
    generations: u64,
    give_up_after: Duration,
    /// Through which subscribers are told.
    first_lane: Option<String>,
    /// Those of the configuration, each with their lane.
    configured: BTreeMap<String, (String, Recipient<M::Address>)>,
    subscribers: Subscribers,
    /// Wakes the task that asks a publisher for its subscribers.
    list: BTreeMap<String, Arc<Notify>>,
    /// Subscribers who cannot be told, which has been said.
    refused: BTreeSet<String>,
    /// All of them,
    recipients: BTreeMap<String, Recipient<M::Address>>,
    /// and what they hear of.
    who: BTreeMap<String, Who>,
    counters: Counters,
    traffic: Traffic,
    signals: Signals,
    own: Questions,
    own_checks: OwnChecks,
    own_reports: mpsc::Sender<OwnReport>,
    deliveries: mpsc::Receiver<(String, Delivery)>,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    /// When the disk refused last; nothing is tried for a moment.
    refused_at: Option<Instant>,
    /// The disk refuses, and that has been said.
    disk_refuses: bool,
    /// The outbox was found damaged.
    is_damaged: bool,
    tick_at: Instant,
    clean_at: Instant,
}

/// A lane and the task that sends on it.
struct Running<M: Medium> {
    fingerprint: String,
    medium: Arc<M>,
    jobs: mpsc::Sender<Job<M::Address>>,
    /// Tells the reports of this task from those of its predecessor, which may still be sending when we reload.
    generation: u64,
    /// It can send, and has nothing under way.
    is_free: bool,
    /// Since when it is not ready to send, with nothing under way.
    waits_since: Option<Instant>,
    /// Since when it cannot be reached, and why.
    away: Option<(Instant, String)>,
}

/// A message for a lane's task.
struct Job<A> {
    recipient: String,
    to: A,
    id: MessageId,
    bytes: Vec<u8>,
}

/// What a lane's task, or a comparison, has to say.
enum Report {
    Ready { lane: String, generation: u64 },
    Done { lane: String, generation: u64, recipient: String, id: MessageId, outcome: Outcome, paid: Option<u64> },
    Noted(Note),
    Compared { open: Vec<DownRow> },
    Listed { publisher: String, rows: Vec<SubscriberRow> },
}

/// What woke the daemon.
enum Woken {
    Delivery(String, Delivery),
    Report(Report),
    Question(Route, Option<Bytes>),
    Signal(Asked),
    Tick,
}

impl<M: Medium> Daemon<M> {
    async fn start(
        name: &'static str,
        setup: Setup<M>,
        config_path: PathBuf,
        load: Load<M>,
        counters: Counters,
        print: bool,
    ) -> Result<Self, Fatal> {
        for dir in [&setup.base.run_dir, &setup.base.state_dir] {
            std::fs::create_dir_all(dir)
                .map_err(|error| Fatal::Other(format!("cannot make folder {}: {error}", dir.display())))?;
        }
        // A socket first: a second daemon on the same folders is refused before it touches the outbox.
        let own = Questions::bind(&setup.base.run_dir.join(format!("{name}.sock")), &counters).await?;
        let store = Store::open(&setup.base.state_dir, name)?;
        let started = Instant::now();
        let now = Now { monotonic: Duration::ZERO, wall: UnixMillis::now() };
        let names: Vec<String> = setup.base.publishers.iter().map(|path| path.display().to_string()).collect();
        let teller = Teller::new(name, setup.base.host.clone(), &names, now);
        let (known, unreadable) = store.subscribers()?;
        if unreadable > 0 {
            counters.add("state", "unreadable", unreadable);
            tracing::error!("{unreadable} subscribers cannot be read and are left out");
        }
        let subscribers = Subscribers::new(M::VIA.unwrap_or_default(), names.len(), known);
        let configured = configured(&setup.lanes);
        let Roster { who, .. } =
            roster(&configured, &subscribers, setup.lanes.first().map(|lane| (&*lane.name, &lane.medium)));
        let (desk, cursors) = Desk::open(store, teller, &who, setup.base.give_up_after, &counters, now)?;
        let (reporter, reports) = mpsc::channel(1000);
        let list = M::VIA.map(|_| list_all(&setup.base.publishers, &reporter)).unwrap_or_default();
        let deliveries = follow_all(&setup.base.publishers, &cursors, &counters);
        tracing::info!("following {}", names.join(", "));
        let mut daemon = Self {
            name,
            config_path,
            load,
            run_dir: setup.base.run_dir.clone(),
            state_dir: setup.base.state_dir.clone(),
            publishers: setup.base.publishers.clone(),
            heard: BTreeMap::new(),
            started,
            desk,
            lanes: BTreeMap::new(),
            generations: 0,
            give_up_after: setup.base.give_up_after,
            first_lane: None,
            configured: BTreeMap::new(),
            subscribers,
            list,
            refused: BTreeSet::new(),
            recipients: BTreeMap::new(),
            who,
            counters,
            traffic: Traffic::new(print),
            signals: Signals::new()?,
            own,
            own_checks: OwnChecks::new(name),
            own_reports: report_to(setup.base.run_dir.join("plugins")),
            deliveries,
            reports,
            reporter,
            refused_at: None,
            disk_refuses: false,
            is_damaged: false,
            tick_at: started,
            clean_at: started,
        };
        daemon.install(setup.lanes);
        Ok(daemon)
    }

    /// Takes over the lanes. One that is as it was keeps its connection.
    fn install(&mut self, lanes: Vec<Lane<M>>) {
        let caps = lanes.first().map(|lane| lane.medium.caps()).unwrap_or_default();
        self.desk.set_paces(paces(&lanes), caps);
        self.configured = configured(&lanes);
        let mut old = std::mem::take(&mut self.lanes);
        let first = lanes.first().map(|lane| lane.name.clone());
        for Lane { name, fingerprint, medium, .. } in lanes {
            let running = match old.remove(&name) {
                Some(running) if running.fingerprint == fingerprint => running,
                _ => self.spawn(&name, fingerprint, medium),
            };
            self.lanes.insert(name, running);
        }
        self.first_lane = first;
        self.look_who_is_told();
        if self.recipients.is_empty() {
            tracing::warn!("nobody is configured, so nobody is told of anything");
        }
    }

    /// By the configuration and what is known of subscribers. True if that is not as it was.
    fn look_who_is_told(&mut self) -> bool {
        let first = self.first_lane.as_deref().and_then(|name| Some((name, &*self.lanes.get(name)?.medium)));
        let Roster { recipients, who, refused, beside } = roster(&self.configured, &self.subscribers, first);
        for (name, why) in &refused {
            if !self.refused.contains(name) {
                tracing::warn!("{} is subscribed, but cannot be told: {why}", one_line(name, LOGGED_CHARS));
            }
        }
        self.refused = refused.into_keys().collect();
        if beside > 0 && self.counters.add("subscribers", "left_out", beside as u64) {
            tracing::warn!("{beside} subscribers are more than are told; those who came last are left out");
        }
        let changed = who != self.who;
        (self.recipients, self.who) = (recipients, who);
        changed
    }

    /// Something is known of subscribers that was not.
    fn subscribers_changed(&mut self, names: Vec<String>) {
        for name in names {
            let subscriber = self.subscribers.get(&name).cloned();
            if let Some(subscriber) = &subscriber {
                let is_asked = self.who.get(&name).is_some_and(|who| who.selection.is_none());
                match subscriber.standing {
                    Standing::Confirmed if is_asked => tracing::info!("{name} agreed, and is told from now on"),
                    Standing::Gone => tracing::info!("{name} is subscribed no longer"),
                    Standing::Confirmed | Standing::Pending => {}
                }
            }
            self.desk.keep(name, subscriber);
        }
        if self.look_who_is_told() {
            self.desk.change_recipients(&self.who, self.now());
        }
    }

    /// Asks those who are to be asked whether they want to be told.
    fn ask_subscribers(&mut self) {
        let now = self.now();
        let who = &self.who;
        let can = |name: &str| who.get(name).is_some_and(|who| who.selection.is_none());
        for name in self.subscribers.ask(now.wall, can) {
            let subscriber = self.subscribers.get(&name).cloned().expect("they are asked");
            tracing::info!("{name} was subscribed by {} and is asked", one_line(&subscriber.author, LOGGED_CHARS));
            // In one transaction: they are asked once, or not yet.
            self.desk.keep(name.clone(), Some(subscriber.clone()));
            self.desk.ask(name, &subscriber, now);
        }
    }

    /// The publisher has something new to say of subscribers.
    fn list_again(&self, publisher: &str) {
        if let Some(list) = self.list.get(publisher) {
            list.notify_one();
        }
    }

    fn spawn(&mut self, lane: &str, fingerprint: String, medium: M) -> Running<M> {
        // Not counted per lane: one that was removed and comes back is not mistaken for the one that still sends.
        self.generations += 1;
        let generation = self.generations;
        let medium = Arc::new(medium);
        // One message is under way at a time.
        let (jobs, inbox) = mpsc::channel(1);
        tokio::spawn(serve(lane.to_owned(), generation, medium.clone(), inbox, self.reporter.clone()));
        Running { fingerprint, medium, jobs, generation, is_free: false, waits_since: Some(Instant::now()), away: None }
    }

    async fn run(&mut self) -> Result<(), Fatal> {
        loop {
            match self.wait().await {
                Woken::Delivery(publisher, delivery) => self.take_batch(publisher, delivery),
                Woken::Report(report) => self.report(report),
                Woken::Question(route, frame) => self.answer(route, frame.as_ref()).await,
                Woken::Signal(Asked::Reload) => self.reload(),
                Woken::Signal(Asked::Stop) => return Ok(()),
                Woken::Tick => self.tick(),
            }
            self.commit();
            self.dispatch();
            if self.is_damaged {
                let outbox = self.database();
                let text =
                    format!("database {} is damaged; the next start sets it aside and goes on", outbox.display());
                return Err(Fatal::Other(text));
            }
        }
    }

    fn database(&self) -> PathBuf {
        self.state_dir.join(format!("{}.db", self.name))
    }

    /// Lets what is under way come to its end, so that it need not be sent again.
    async fn stop(mut self) {
        startup::notify_stopping();
        let deadline = tokio::time::Instant::now() + DRAIN;
        while self.desk.outbox.under_way() > 0 {
            match tokio::time::timeout_at(deadline, self.reports.recv()).await {
                Ok(Some(report)) => self.report(report),
                Ok(None) | Err(_) => break,
            }
        }
        self.refused_at = None;
        self.commit();
        let goodbyes = self.lanes.values().map(|lane| lane.medium.clone()).map(|medium| {
            tokio::spawn(async move {
                // Who does not answer is left without one.
                let _ = timeout(GOODBYE, medium.stop()).await;
            })
        });
        for goodbye in goodbyes.collect::<Vec<_>>() {
            goodbye.await.expect("it does not panic");
        }
        self.own.close().await;
        tracing::info!("stopped");
    }

    async fn wait(&mut self) -> Woken {
        let pause = self.desk.outbox.next_deadline(self.started.elapsed()).map(|until| self.started + until);
        let deadline = (self.tick_at + TICK).min(pause.unwrap_or(self.tick_at + TICK));
        tokio::select! {
            Some((publisher, delivery)) = self.deliveries.recv(), if self.refused_at.is_none() => {
                Woken::Delivery(publisher, delivery)
            }
            Some(report) = self.reports.recv() => Woken::Report(report),
            question = self.own.recv() => {
                // The library gave up on one of our sockets: a new process has a better chance.
                let (route, frame) = question.unwrap_or_else(|error| panic!("{error}"));
                Woken::Question(route, frame)
            }
            asked = self.signals.recv() => Woken::Signal(asked),
            () = tokio::time::sleep_until(deadline.into()) => Woken::Tick,
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.started.elapsed(), wall: UnixMillis::now() }
    }

    fn apply(&mut self, input: Input) {
        if self.desk.apply(self.now(), input) {
            self.compare();
        }
    }

    /// One delivery and what waits behind it, so that all of it shares one commit.
    fn take_batch(&mut self, publisher: String, delivery: Delivery) {
        self.take(publisher, delivery);
        for _ in 1..BATCH {
            match self.deliveries.try_recv() {
                Ok((publisher, delivery)) => self.take(publisher, delivery),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, publisher: String, delivery: Delivery) {
        self.heard.insert(publisher.clone(), Instant::now());
        match delivery {
            Delivery::Snapshot { cursor, state } => match state.read::<StreamSnapshot>() {
                Ok(snapshot) => {
                    self.apply(Input::Snapshot { publisher: publisher.clone(), open: snapshot.incidents });
                    self.list_again(&publisher);
                    self.desk.read_to(publisher, cursor);
                }
                Err(error) => self.undecodable("snapshot", &error.to_string()),
            },
            Delivery::Entry { cursor, topic, payload } => {
                self.traffic.print("in", &topic, &payload);
                match Event::read(&payload) {
                    Ok(event) => {
                        self.hear_of_subscribers(&publisher, &event, &payload);
                        self.apply(Input::Event { publisher: publisher.clone(), event: Arc::new(event) });
                    }
                    Err(error) => self.undecodable(&String::from_utf8_lossy(&topic), &error.to_string()),
                }
                self.desk.read_to(publisher, cursor);
            }
            Delivery::Beat(_) => self.apply(Input::Beat { publisher }),
            Delivery::Live { topic, .. } => {
                self.undecodable(&String::from_utf8_lossy(&topic), "it has no place in the journal");
            }
            // Only for a start that prefers the oldest entry to a snapshot; ours does not.
            Delivery::Lost { .. } => {}
        }
    }

    fn hear_of_subscribers(&mut self, publisher: &str, event: &Event, payload: &[u8]) {
        if event.kind != Kind::Order || self.list.is_empty() {
            return;
        }
        match order_in(payload).and_then(|order| self.subscribers.heard(event, &order)) {
            Some(Heard::Removed(name)) => {
                self.subscribers_changed(vec![name]);
                self.list_again(publisher);
            }
            Some(Heard::Changed) => self.list_again(publisher),
            None => {}
        }
    }

    fn undecodable(&self, topic: &str, why: &str) {
        if self.counters.count("stream", "undecodable") {
            let (topic, why) = (one_line(topic, LOGGED_CHARS), one_line(why, LOGGED_CHARS));
            tracing::warn!("the stream sent what is no message under {topic:?}: {why}; more of this is only counted");
        }
    }

    /// Everything that was decided in one transaction; then the outbox learns of what is new.
    fn commit(&mut self) {
        if self.refused_at.is_some_and(|at| at.elapsed() < DISK_RETRY) {
            return;
        }
        self.refused_at = None;
        match self.desk.commit(self.now()) {
            Ok(wrote) => {
                if wrote && std::mem::take(&mut self.disk_refuses) {
                    tracing::info!("the outbox can be written again");
                }
            }
            Err(error) => self.disk_refused(&error),
        }
    }

    fn disk_refused(&mut self, error: &DatabaseError) {
        if error.is_damage() && !self.is_damaged {
            self.is_damaged = true;
            error.mark_damage();
        }
        self.counters.count("outbox", "write_failed");
        self.refused_at = Some(Instant::now());
        if !std::mem::replace(&mut self.disk_refuses, true) {
            tracing::error!("{error}; nothing more is read or told until the outbox can be written");
        }
    }

    /// Starts a message on each lane that is free.
    fn dispatch(&mut self) {
        let free: Vec<String> =
            self.lanes.iter().filter(|(_, lane)| lane.is_free).map(|(name, _)| name.clone()).collect();
        for lane in free {
            if self.refused_at.is_some() {
                return;
            }
            let writer = Writer { medium: self.lanes[&lane].medium.clone(), recipients: &self.recipients };
            let now = self.now();
            match self.desk.next(&lane, now, writer) {
                Ok(Some(Outgoing { recipient, id, bytes })) => {
                    self.traffic.print("out", recipient.as_bytes(), &bytes);
                    let to = self.recipients[&recipient].address.clone();
                    let running = self.lanes.get_mut(&lane).expect("it was free");
                    (running.is_free, running.waits_since) = (false, None);
                    let sent = running.jobs.try_send(Job { recipient, to, id, bytes });
                    sent.unwrap_or_else(|_| panic!("the task of lane {lane} has room for the one job it asked for"));
                }
                Ok(None) => {}
                Err(error) => self.disk_refused(&error),
            }
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Ready { lane, generation } => {
                if let Some(running) = self.lanes.get_mut(&lane).filter(|running| running.generation == generation) {
                    (running.is_free, running.waits_since) = (true, None);
                }
            }
            Report::Done { lane, generation, recipient, id, outcome, paid } => {
                self.log(&lane, generation, &recipient, id, &outcome);
                if let Some(running) = self.lanes.get_mut(&lane).filter(|running| running.generation == generation) {
                    running.waits_since = Some(Instant::now());
                }
                if let Some(paid) = paid {
                    self.desk.paid(id, paid);
                }
                self.desk.done(&lane, &recipient, id, outcome, self.now());
            }
            Report::Noted(Note { id, words }) => {
                tracing::info!("message {id}: {}", one_line(&words, LOGGED_CHARS));
                self.desk.note(id, words);
            }
            Report::Compared { open } => self.apply(Input::Compared { open }),
            Report::Listed { publisher, rows } => {
                let (changed, left_out) = self.subscribers.listed(&publisher, rows);
                if left_out > 0 && self.counters.add("subscribers", "left_out", left_out) {
                    tracing::warn!("there are more subscribers than are remembered; {left_out} are left out");
                }
                if !changed.is_empty() {
                    self.subscribers_changed(changed);
                }
            }
        }
    }

    /// The change, not each attempt.
    fn log(&mut self, lane: &str, generation: u64, recipient: &str, id: MessageId, outcome: &Outcome) {
        let running = self.lanes.get_mut(lane).filter(|running| running.generation == generation);
        match outcome {
            Outcome::Sent(words) => {
                if let Some((since, _)) = running.and_then(|running| running.away.take()) {
                    tracing::info!("{lane}: back after {}", for_people(since.elapsed()));
                }
                tracing::info!("told {recipient}, message {id}: {}", one_line(words, LOGGED_CHARS));
            }
            Outcome::Never(why) => {
                tracing::error!("{recipient}: message {id} failed for good: {}", one_line(why, LOGGED_CHARS));
            }
            Outcome::Retry { why, scope: Scope::Lane, .. } => {
                let Some(running) = running else { return };
                let why = one_line(why, LOGGED_CHARS);
                match &mut running.away {
                    Some((_, known)) => *known = why,
                    None => {
                        tracing::warn!("{lane}: unavailable, will retry: {why}");
                        running.away = Some((Instant::now(), why));
                    }
                }
            }
            Outcome::Retry { why, scope: Scope::Recipient, .. } => {
                if self.desk.outbox.is_first_failure(recipient) {
                    tracing::warn!("{recipient}: not accepted, will retry: {}", one_line(why, LOGGED_CHARS));
                }
            }
        }
    }

    fn tick(&mut self) {
        if self.tick_at.elapsed() >= TICK {
            self.tick_at = Instant::now();
            startup::notify_watchdog();
            // What has arrived is heard before anybody is called silent.
            if self.deliveries.is_empty() {
                self.apply(Input::Tick);
            }
            let now = self.now().wall;
            let says = self.lanes.values().flat_map(|lane| lane.medium.says(&self.recipients, now));
            for Said { recipient, event } in says.collect::<Vec<_>>() {
                self.apply(Input::Says { recipient, event: Arc::new(event) });
            }
            self.ask_subscribers();
            self.desk.give_up(self.now());
            self.report_ourselves();
            let beating = self.publishers.iter().all(|publisher| {
                self.heard.get(&publisher.display().to_string()).is_some_and(|heard| heard.elapsed() < BEATS_WITHIN)
            });
            self.lanes.values().for_each(|lane| lane.medium.alive(beating));
        }
        if self.clean_at.elapsed() >= CLEAN_EVERY {
            self.clean_at = Instant::now();
            for name in self.subscribers.forget(UnixMillis::now()) {
                self.desk.keep(name, None);
            }
            if let Err(error) = self.desk.clean(UnixMillis::now()) {
                tracing::error!("the ledger could not be cleaned: {error}");
            }
        }
    }

    /// To the ccollectd of this machine, if it has one.
    fn report_ourselves(&mut self) {
        let mut troubles: BTreeMap<String, Option<String>> = BTreeMap::new();
        for (name, lane) in &self.lanes {
            let trouble = match (&lane.away, lane.waits_since) {
                (Some((since, why)), _) if since.elapsed() >= DOWN_AFTER => Some(why.clone()),
                (_, Some(since)) if since.elapsed() >= DOWN_AFTER => Some("not connected".to_owned()),
                _ => None,
            };
            troubles.insert(name.clone(), trouble);
        }
        // Who does not get our question has not asked to be told: that is in the ledger.
        let is_told = |recipient: &str| self.who.get(recipient).is_some_and(|who| who.selection.is_some());
        for (lane, recipient, why) in self.desk.outbox.failures().filter(|(_, recipient, _)| is_told(recipient)) {
            let trouble = troubles.entry(lane.to_owned()).or_default();
            trouble.get_or_insert_with(|| format!("{recipient} was not told of something, for good: {why}"));
        }
        for report in self.own_checks.due(self.started.elapsed(), &troubles) {
            // A full queue is a ccollectd that hangs; the state is said again.
            let _ = self.own_reports.try_send(report);
        }
    }

    /// Asks every publisher what is open. Nothing follows unless all of them answer.
    fn compare(&self) {
        let (publishers, reporter) = (self.publishers.clone(), self.reporter.clone());
        tokio::spawn(async move {
            let mut open = Vec::new();
            for publisher in publishers {
                let mut questions = Requester::new(&question_socket(&publisher)).at_most(MAX_STREAM_STATE_BYTES);
                let asked =
                    ask_for::<Vec<DownRow>>(&mut questions, &Request::query("down-list"), COMPARE_TIMEOUT).await;
                match asked {
                    Ok(rows) => open.extend(rows),
                    Err(error) => {
                        tracing::debug!("{}: what is open cannot be compared: {error}", publisher.display());
                        return;
                    }
                }
            }
            // The receiver lives as long as the daemon.
            let _ = reporter.send(Report::Compared { open }).await;
        });
    }

    async fn answer(&mut self, route: Route, frame: Option<&Bytes>) {
        let Some((asker, request)) = self.own.read(route, frame).await else { return };
        let answer = match request.query.as_deref() {
            Some("health") => Ok(self.health()),
            Some("ledger") => self.ledger(&request),
            Some("test") => self.test(&request),
            other => {
                let question = one_line(other.unwrap_or("nothing"), 60);
                let message = format!("there is no question {question:?} here, only health, ledger, test");
                Err(ErrorBody::new(ErrorCode::UnknownRequest, message))
            }
        };
        self.own.answer(asker, answer).await;
    }

    /// What waits for a lane says what is wrong with that.
    fn ledger(&self, request: &Request) -> Result<Answer, ErrorBody> {
        let mut rows = self.desk.ledger(request)?;
        for row in rows.iter_mut().filter(|row| row.state == message::Delivery::Waiting && row.result.is_empty()) {
            row.result = match self.lanes.get(&row.via).map(|lane| (&lane.away, lane.is_free)) {
                Some((Some((since, why)), _)) => format!("unavailable for {}: {why}", for_people(since.elapsed())),
                Some((None, false)) => format!("{} is not ready, or busy; see the log", row.via),
                Some((None, true)) | None => String::new(),
            };
        }
        Ok(Answer::list(&rows))
    }

    fn health(&self) -> Answer {
        let mut health = startup::health(self.name, None, 0, self.started, &self.counters);
        health.counters.insert("outbox.waiting".to_owned(), self.desk.outbox.waiting() as u64);
        Answer::whole(&health.kept_in(&self.database()))
    }

    /// A marked test to one recipient or to all, by the way that everything goes. The answer is their rows of the ledger.
    fn test(&mut self, request: &Request) -> Result<Answer, ErrorBody> {
        if let Some(who) = &request.who
            && self.who.get(who).is_none_or(|who| who.selection.is_none())
        {
            let known: Vec<&str> =
                self.who.iter().filter(|(_, who)| who.selection.is_some()).map(|(name, _)| name.as_str()).collect();
            let who = one_line(who, 60);
            let message = format!("there is no recipient {who:?} here, only {}", known.join(", "));
            return Err(ErrorBody::new(ErrorCode::NotFound, message));
        }
        let failed = |why: String| ErrorBody::new(ErrorCode::Failed, why);
        self.commit();
        if self.refused_at.is_some() {
            return Err(failed("the outbox cannot be written".to_owned()));
        }
        let newest = self.desk.newest().map_err(|error| failed(error.to_string()))?;
        self.apply(Input::Test { who: request.who.clone() });
        self.commit();
        let rows = self.desk.ledger(&Request { after: Some(newest), limit: Some(10_000), ..Request::default() })?;
        Ok(Answer::list(&rows))
    }

    /// Parse, then swap: a bad file changes nothing.
    fn reload(&mut self) {
        match (self.load)(&self.config_path, &self.counters) {
            Ok(setup) => {
                if (&setup.base.run_dir, &setup.base.state_dir, &setup.base.publishers)
                    != (&self.run_dir, &self.state_dir, &self.publishers)
                {
                    tracing::warn!("run_dir, state_dir and publishers change only with a restart");
                }
                self.give_up_after = setup.base.give_up_after;
                self.install(setup.lanes);
                self.desk.set_recipients(&self.who, self.give_up_after, self.now());
                tracing::info!("configuration read again");
            }
            Err(error) => crate::startup::stays_configured(&error),
        }
    }
}

/// The task of a lane: waits for the medium, takes a message, sends it, says what became of it.
async fn serve<M: Medium>(
    lane: String,
    generation: u64,
    medium: Arc<M>,
    mut jobs: mpsc::Receiver<Job<M::Address>>,
    reports: mpsc::Sender<Report>,
) {
    loop {
        tokio::select! {
            () = medium.ready() => {}
            // There is no job before we say that we are ready: a reload has replaced us.
            _ = jobs.recv() => return,
        }
        if reports.send(Report::Ready { lane: lane.clone(), generation }).await.is_err() {
            return;
        }
        let job = loop {
            tokio::select! {
                job = jobs.recv() => break job,
                note = medium.noted() => {
                    if reports.send(Report::Noted(note)).await.is_err() {
                        return;
                    }
                }
            }
        };
        let Some(Job { recipient, to, id, bytes }) = job else { return };
        let outcome = timeout(SEND_AT_MOST, medium.send(&to, id, &bytes)).await.unwrap_or_else(|_| Outcome::Retry {
            why: format!("no outcome within {}", for_people(SEND_AT_MOST)),
            scope: Scope::Lane,
            maybe_accepted: true,
            after: None,
        });
        let paid = medium.paid();
        let done = Report::Done { lane: lane.clone(), generation, recipient, id, outcome, paid };
        if reports.send(done).await.is_err() {
            return;
        }
    }
}

/// A lane's medium, which knows its recipients by name.
struct Writer<'a, M: Medium> {
    medium: Arc<M>,
    recipients: &'a BTreeMap<String, Recipient<M::Address>>,
}

impl<M: Medium> Composer for Writer<'_, M> {
    fn compose(&mut self, recipient: &str, letter: &Letter<'_>) -> Composed {
        self.medium.compose(&self.recipients[recipient].address, letter)
    }

    fn compose_last(&mut self, recipient: &str, letter: &Letter<'_>, waiting: usize) -> Composed {
        self.medium.compose_last(&self.recipients[recipient].address, letter, waiting)
    }

    fn cost(&mut self, recipient: &str, bytes: &[u8]) -> u64 {
        self.medium.cost(&self.recipients[recipient].address, bytes)
    }
}

/// How fast the recipients of all lanes are told.
fn paces<M: Medium>(lanes: &[Lane<M>]) -> BTreeMap<String, Pace> {
    let each = |lane: &Lane<M>, to: &Recipient<M::Address>| (to.name.clone(), lane.medium.pace(to));
    lanes.iter().flat_map(|lane| lane.recipients.iter().map(move |to| each(lane, to))).collect()
}

/// The recipients of all lanes.
fn configured<M: Medium>(lanes: &[Lane<M>]) -> BTreeMap<String, (String, Recipient<M::Address>)> {
    let each = |lane: &Lane<M>, recipient: &Recipient<M::Address>| {
        (recipient.name.clone(), (lane.name.clone(), recipient.clone()))
    };
    lanes.iter().flat_map(|lane| lane.recipients.iter().map(move |recipient| each(lane, recipient))).collect()
}

/// Who there is.
struct Roster<A> {
    recipients: BTreeMap<String, Recipient<A>>,
    who: BTreeMap<String, Who>,
    /// Subscribers who cannot be told, and why.
    refused: BTreeMap<String, String>,
    /// How many subscribers there is no room for.
    beside: usize,
}

/// Who there is by the configuration and by subscription. Where a subscriber has the name of one of the configuration, that
/// one is meant already.
fn roster<M: Medium>(
    configured: &BTreeMap<String, (String, Recipient<M::Address>)>,
    subscribers: &Subscribers,
    first: Option<(&str, &M)>,
) -> Roster<M::Address> {
    let (current, beside) = subscribers.current();
    let mut roster = Roster { recipients: BTreeMap::new(), who: BTreeMap::new(), refused: BTreeMap::new(), beside };
    for (name, (lane, recipient)) in configured {
        let who = Who { lane: lane.clone(), selection: Some(recipient.selection.clone()) };
        roster.recipients.insert(name.clone(), recipient.clone());
        roster.who.insert(name.clone(), who);
    }
    let Some((lane, medium)) = first else { return roster };
    for (name, subscriber) in current.into_iter().filter(|(name, _)| !configured.contains_key(*name)) {
        let name = name.to_owned();
        let address = match medium.subscriber(&name) {
            Ok(address) => address,
            Err(why) => {
                roster.refused.insert(name, why);
                continue;
            }
        };
        let selection = subscriber.selection();
        let agreed = (subscriber.standing == Standing::Confirmed).then(|| selection.clone());
        roster.recipients.insert(name.clone(), Recipient { name: name.clone(), selection, address });
        roster.who.insert(name, Who { lane: lane.to_owned(), selection: agreed });
    }
    roster
}

/// One task a publisher, which asks it for its subscribers now, whenever it is woken, and from time to time.
fn list_all(publishers: &[PathBuf], reporter: &mpsc::Sender<Report>) -> BTreeMap<String, Arc<Notify>> {
    let each = |publisher: &PathBuf| {
        let (name, wake) = (publisher.display().to_string(), Arc::new(Notify::new()));
        let questions = Requester::new(&question_socket(publisher)).at_most(MAX_STREAM_STATE_BYTES);
        tokio::spawn(list_subscribers(name.clone(), questions, wake.clone(), reporter.clone()));
        (name, wake)
    };
    publishers.iter().map(each).collect()
}

async fn list_subscribers(
    publisher: String,
    mut questions: Requester,
    wake: Arc<Notify>,
    reporter: mpsc::Sender<Report>,
) {
    let request = Request::query("subscriber-list");
    loop {
        let rows = match ask_for::<Vec<SubscriberRow>>(&mut questions, &request, LIST_TIMEOUT).await {
            // An older cprocessd has none.
            Err(AskError::Refused(error)) if error.code == ErrorCode::UnknownRequest => Ok(Vec::new()),
            answer => answer,
        };
        let pause = match rows {
            Ok(rows) => {
                if reporter.send(Report::Listed { publisher: publisher.clone(), rows }).await.is_err() {
                    return;
                }
                LIST_EVERY
            }
            Err(error) => {
                tracing::debug!("{publisher}: its subscribers cannot be listed: {error}");
                LIST_RETRY
            }
        };
        // Woken or not, it is asked again.
        let _ = timeout(pause, wake.notified()).await;
    }
}

/// The question socket beside a stream.
fn question_socket(stream: &Path) -> PathBuf {
    stream.with_file_name("query")
}

/// One task a stream, all into one inbox.
fn follow_all(
    publishers: &[PathBuf],
    cursors: &BTreeMap<String, Cursor>,
    counters: &Counters,
) -> mpsc::Receiver<(String, Delivery)> {
    let (inbox, deliveries) = mpsc::channel(WAITING_DELIVERIES);
    for publisher in publishers {
        let name = publisher.display().to_string();
        let start = cursors.get(&name).map_or(Start::Snapshot, |cursor| Start::After(cursor.clone()));
        let publication = Publication {
            publisher: publisher.clone(),
            questions: question_socket(publisher),
            prefixes: vec!["event."],
            unwanted: &["hosts", "checks"],
            max_answer_bytes: MAX_STREAM_STATE_BYTES,
        };
        let (counters, inbox) = (counters.clone(), inbox.clone());
        let (out, mut followed) = mpsc::channel(16);
        tokio::spawn(async move {
            if let Err(error) = follow(publication, start, counters, out).await {
                panic!("cannot follow a stream: {error}");
            }
        });
        tokio::spawn(async move {
            while let Some(delivery) = followed.recv().await {
                if inbox.send((name.clone(), delivery)).await.is_err() {
                    return;
                }
            }
        });
    }
    deliveries
}
