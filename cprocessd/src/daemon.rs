//! The thin shell around the engine: what arrives is applied, what follows is committed, then published.

use crate::answers;
use crate::peers::{self, FromPeer, Postponed};

use bytes::Bytes;
use common::counters::Counters;
use common::database::{self, Aside, DatabaseError, TELL_OF_DAMAGE_AFTER};
use common::journal::Journal;
use common::message::{Beat, ErrorBody, ErrorCode, Ordered, Samples, decode_batch, encode, event_topic};
use common::notifier::one_line;
use common::publisher::JournaledPublisher;
use common::query::{self, Answer};
use common::questions::{Asker, Questions};
use common::socket::{MAX_ANSWER_BYTES, Requester, Responder, Route, SocketError};
use common::startup::{self, Asked, Fatal, Signals};
use common::subscriber::{Cursor, Delivery, Publication, Start, follow};
use common::time::UnixMillis;
use common::traffic::Traffic;
use cprocessd::backlog::Backlog;
use cprocessd::config::Config;
use cprocessd::engine::order::{Command, Order};
use cprocessd::engine::{Draft, Engine, Input, Now, Output};
use cprocessd::store::{self, Progress};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Deliveries of all feeds that wait for us, and their bytes. Beyond it the feeds' own sockets keep them, and drop what is
/// lossy.
const WAITING_DELIVERIES: usize = 4096;
const WAITING_BYTES: usize = 4 << 20;
/// Deliveries that share one commit, and about their bytes: until then each is there several times over.
const BATCH: usize = 1024;
const BATCH_BYTES: u32 = 1 << 20;
/// And how long taking them may keep a question waiting.
const BATCH_TIME: Duration = Duration::from_millis(50);
/// Questions that are answered in a row, before it is judged on.
const ANSWERS_AT_ONCE: usize = 64;
/// Between two portions of what is overdue at once.
const BREATH: Duration = Duration::from_millis(1);
/// Of a text, this much is logged.
const LOGGED_CHARS: usize = 200;
/// How long a ccollectd may take to forget something.
const ORDER_TIMEOUT: Duration = Duration::from_secs(2);
/// Orders to forget at once. Further ones are refused.
const MAX_FORGETTING: usize = 100;
/// Beats, and the watchdog.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Everything cprocessd has while it runs.
pub(crate) struct Daemon {
    config_path: PathBuf,
    config: Config,
    started: Instant,
    engine: Engine,
    publisher: JournaledPublisher,
    /// How far each feed was applied, and so will have been taken with the next commit.
    progress: Progress,
    counters: Counters,
    traffic: Traffic,
    inbox: Inbox,
    query: Questions,
    control: Questions,
    own: Questions,
    /// What the engine wants and the journal does not have yet, in order.
    uncommitted: Backlog,
    /// Databases that were set aside, of which people are to be told.
    untold: Vec<Aside>,
    /// It is among what is not committed.
    tells_of_damage: bool,
    /// Orders to forget that wait for their ccollectds.
    forgetting: usize,
    /// Orders of peers about what is not open here yet.
    postponed: Postponed,
    /// When the disk refused; the next attempt is a second later.
    refused_at: Option<Instant>,
    beat_at: Instant,
}

/// Every way of being woken but questions.
struct Inbox {
    signals: Signals,
    deliveries: mpsc::Receiver<Waiting>,
    /// Orders given at peers.
    peers: mpsc::Receiver<FromPeer>,
    /// Orders whose ccollectds have answered.
    orders: mpsc::Receiver<Ready>,
    orders_in: mpsc::Sender<Ready>,
}

/// A delivery of a feed, and the room that it takes until it is applied.
struct Waiting {
    feed: Arc<str>,
    delivery: Delivery,
    room: OwnedSemaphorePermit,
}

/// An order that is ready to be applied here.
struct Ready {
    asker: Asker,
    order: Order,
    unreached: Vec<String>,
}

/// What woke the daemon.
enum Woken {
    Delivery(Waiting),
    Peer(FromPeer),
    Query(Route, Option<Bytes>),
    Control(Route, Option<Bytes>),
    Own(Route, Option<Bytes>),
    Order(Box<Ready>),
    Signal(Asked),
    Deadline,
}

impl Daemon {
    /// Opens the state, goes on from it, binds the sockets and follows the feeds.
    pub(crate) async fn start(config: Config, config_path: PathBuf, print: bool) -> Result<Self, Fatal> {
        let counters = Counters::default();
        // A socket first: a second daemon on the same folders is refused before it touches the journal.
        let run = &config.run_dir;
        std::fs::create_dir_all(run)
            .map_err(|error| Fatal::Other(format!("cannot make folder {}: {error}", run.display())))?;
        let query = Questions::bind(&run.join("query"), &counters).await?;
        let journal = open_journal(&config)?;
        let path = journal.path().to_owned();
        let sqlite = |source| Fatal::from(DatabaseError::Sqlite { path: path.clone(), source });
        let untold = database::untold(journal.db()).map_err(sqlite)?;
        let (mut saved, unreadable) = store::load(journal.db()).map_err(sqlite)?;
        store::complete(&mut saved);
        if unreadable > 0 {
            counters.add("state", "unreadable", unreadable as u64);
            tracing::error!("{unreadable} rows of the saved state cannot be read and are left out");
        }
        let feeds: Vec<String> = config.feeds.iter().map(|feed| feed.display().to_string()).collect();
        let mut cursors = BTreeMap::new();
        for feed in &feeds {
            if let Some(cursor) = store::cursor(journal.db(), feed).map_err(sqlite)? {
                cursors.insert(feed.clone(), cursor);
            }
        }
        for peer in config.peers.iter().map(|peer| peers::name(peer)) {
            if let Some(cursor) = store::cursor(journal.db(), &peer).map_err(sqlite)? {
                cursors.insert(peer, cursor);
            }
        }
        let nth = store::nth(journal.db()).map_err(sqlite)?;
        let engine = Engine::new(config.settings.clone(), &feeds, saved);
        tracing::info!("judging {}, journal {} at {}", feeds.join(", "), journal.epoch(), journal.head());

        let publisher = JournaledPublisher::bind(&run.join("stream"), journal, &counters).await?;
        let control = Questions::bind(&run.join("control"), &counters).await?;
        let own = Questions::bind(&run.join("cprocessd.sock"), &counters).await?;
        give_to_group(control.socket(), &config.control_group);
        let (orders_in, orders) = mpsc::channel(100);
        let deliveries = follow_feeds(&config.feeds, &cursors, &counters);
        let peers = peers::follow_all(&config.peers, &cursors, &counters);
        Ok(Self {
            config_path,
            started: Instant::now(),
            engine,
            publisher,
            progress: Progress { cursors, nth },
            counters,
            traffic: Traffic::new(print),
            inbox: Inbox { signals: Signals::new()?, deliveries, peers, orders, orders_in },
            query,
            control,
            own,
            uncommitted: Backlog::default(),
            untold,
            tells_of_damage: false,
            forgetting: 0,
            postponed: Postponed::default(),
            refused_at: None,
            beat_at: Instant::now(),
            config,
        })
    }

    /// Judges until asked to stop.
    pub(crate) async fn run(&mut self) -> Result<(), Fatal> {
        loop {
            match self.wait().await {
                Woken::Delivery(waiting) => self.take_batch(waiting),
                Woken::Peer(orders) => self.take_from_peer(orders),
                Woken::Query(route, frame) => self.answer_waiting(route, frame).await,
                Woken::Own(route, frame) => self.answer_own(route, frame.as_ref()).await,
                Woken::Control(route, frame) => self.begin_order(route, frame.as_ref()).await,
                Woken::Order(order) => {
                    self.forgetting -= 1;
                    self.finish_order(*order).await;
                }
                Woken::Signal(Asked::Reload) => self.reload(),
                Woken::Signal(Asked::Stop) => return Ok(()),
                Woken::Deadline => {}
            }
            // What waits in the inbox is applied before anything is called overdue; it has its turn right away.
            if self.inbox.deliveries.is_empty() {
                self.apply(Input::Idle);
            }
            self.commit();
            self.beat();
            self.publisher.check_sound()?;
        }
    }

    /// Makes what is pending last and lets the sockets drain.
    pub(crate) async fn stop(mut self) {
        startup::notify_stopping();
        self.refused_at = None;
        self.commit();
        let Self { publisher, query, control, own, .. } = self;
        tokio::join!(publisher.close(), query.close(), control.close(), own.close());
        tracing::info!("stopped");
    }

    async fn wait(&mut self) -> Woken {
        let engine_deadline = self.started + self.engine.next_deadline();
        // What is left over is due at once, and still the sockets have a moment to bring what came meanwhile.
        let deadline = engine_deadline.min(self.beat_at + BEAT_EVERY).max(Instant::now() + BREATH);
        let taking = !self.uncommitted.is_full();
        tokio::select! {
            Some(waiting) = self.inbox.deliveries.recv(), if taking => Woken::Delivery(waiting),
            Some(orders) = self.inbox.peers.recv(), if taking => Woken::Peer(orders),
            question = self.query.recv() => question.map_or_else(failed, |(route, frame)| Woken::Query(route, frame)),
            question = self.own.recv() => question.map_or_else(failed, |(route, frame)| Woken::Own(route, frame)),
            order = self.control.recv() => order.map_or_else(failed, |(route, frame)| Woken::Control(route, frame)),
            Some(order) = self.inbox.orders.recv() => Woken::Order(Box::new(order)),
            asked = self.inbox.signals.recv() => Woken::Signal(asked),
            () = tokio::time::sleep_until(deadline.into()) => Woken::Deadline,
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.started.elapsed(), wall: UnixMillis::now() }
    }

    fn apply(&mut self, input: Input) {
        let outputs = self.engine.apply(self.now(), input);
        self.keep(outputs);
    }

    fn keep(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Refused(reason) => {
                    if self.counters.count("engine", reason) {
                        tracing::warn!("refused: {}; more of this is only counted", reason.replace('_', " "));
                    }
                }
                Output::Event(_) | Output::Save(_) => self.uncommitted.push(output),
                Output::Notice(text) => tracing::warn!("{text}"),
                // Whoever gave the order takes it out.
                Output::Ordered(_) => {}
            }
        }
    }

    /// One delivery and what waits behind it, so that all of it shares one commit. Their room is given back at the end, at
    /// once: freed piece by piece, it would wake who waits for it with every message.
    fn take_batch(&mut self, first: Waiting) {
        let began = Instant::now();
        let Waiting { feed, delivery, mut room } = first;
        let mut bytes = weight(&delivery);
        self.take(&feed, delivery);
        for _ in 0..BATCH {
            if bytes >= BATCH_BYTES || began.elapsed() >= BATCH_TIME {
                return;
            }
            let Ok(Waiting { feed, delivery, room: more }) = self.inbox.deliveries.try_recv() else { return };
            room.merge(more);
            bytes += weight(&delivery);
            self.take(&feed, delivery);
        }
    }

    fn take(&mut self, feed: &str, delivery: Delivery) {
        match delivery {
            Delivery::Snapshot { cursor, state } => match state.read() {
                Ok(snapshot) => {
                    self.progress.cursors.insert(feed.to_owned(), cursor);
                    self.apply(Input::Snapshot { feed: feed.to_owned(), snapshot });
                }
                Err(error) => self.undecodable("snapshot", &error.to_string()),
            },
            Delivery::Entry { cursor, topic, payload } => {
                self.apply(Input::Entry { feed: feed.to_owned() });
                self.message(feed, &topic, payload);
                self.progress.cursors.insert(feed.to_owned(), cursor);
            }
            Delivery::Live { topic, payload } => self.message(feed, &topic, payload),
            Delivery::Beat(beat) => self.apply(Input::Beat { feed: feed.to_owned(), beat }),
            Delivery::Lost { .. } => tracing::error!("{feed} lost part of its journal"),
        }
    }

    fn message(&mut self, feed: &str, topic: &Bytes, payload: Bytes) {
        self.traffic.print("in", topic, &payload);
        let kind = topic.split(|&b| b == b'.').next().unwrap_or_default();
        let applied = match kind {
            b"value" => self.values(topic, payload),
            b"check" => self.each(&payload, Input::Check),
            b"event" => self.each(&payload, Input::Log),
            b"alive" => self.each(&payload, |alive| Input::Alive { feed: feed.to_owned(), alive }),
            // A topic of a newer ccollectd.
            _ => {
                self.counters.count("feed", "unknown_topic");
                return;
            }
        };
        if let Err(error) = applied {
            self.undecodable(&String::from_utf8_lossy(topic), &error.to_string());
        }
    }

    /// Numbers are judged where they stand, and go on as they came.
    fn values(&mut self, topic: &Bytes, payload: Bytes) -> Result<(), common::message::DecodeError> {
        let samples = Samples::decode(&payload)?;
        let outputs = self.engine.take(self.now(), &samples);
        self.keep(outputs);
        self.publisher.publish_values(topic.clone(), payload);
        Ok(())
    }

    fn each<T: serde::de::DeserializeOwned>(
        &mut self,
        payload: &[u8],
        input: impl Fn(T) -> Input,
    ) -> Result<(), common::message::DecodeError> {
        for message in decode_batch(payload)? {
            self.apply(input(message));
        }
        Ok(())
    }

    fn undecodable(&self, topic: &str, why: &str) {
        if self.counters.count("feed", "undecodable") {
            let (topic, why) = (one_line(topic, LOGGED_CHARS), one_line(why, LOGGED_CHARS));
            tracing::warn!("the feed sent what is no message under {topic:?}: {why}; more of this is only counted");
        }
    }

    /// Everything pending in one transaction, then published.
    fn commit(&mut self) {
        let retry = self.refused_at.is_none_or(|at| at.elapsed() >= Duration::from_secs(1));
        if self.uncommitted.is_empty() || !retry {
            return;
        }
        let epoch = self.publisher.journal().epoch().clone();
        let (mut progress, mut events) = (self.progress.clone(), Vec::new());
        let committed = self.publisher.commit(|commit| {
            events = store::record(commit, &epoch, self.uncommitted.outputs(), &mut progress)?;
            if self.tells_of_damage { database::forget_untold(commit.state()) } else { Ok(()) }
        });
        match committed {
            Ok(()) => {
                self.progress.nth = progress.nth;
                self.uncommitted.clear();
                self.tells_of_damage = false;
                if self.refused_at.take().is_some() {
                    tracing::info!("the journal can be written again");
                }
                for event in &events {
                    let text: String = event.text.chars().take(LOGGED_CHARS).flat_map(char::escape_debug).collect();
                    tracing::info!("{} {} ({}): {text}", event.kind, event.address, event.severity);
                    self.traffic.print("out", event_topic(event.top_severity, &event.host).as_bytes(), &encode(event));
                }
            }
            Err(error) => {
                self.counters.count("journal", "failed");
                if self.refused_at.replace(Instant::now()).is_none() {
                    tracing::error!("{error}; judging goes on, nothing is told until it can be journaled");
                }
            }
        }
    }

    fn tell_of_damage(&mut self) {
        for aside in std::mem::take(&mut self.untold) {
            let draft = Draft::of_damage(&self.config.settings.own, &aside, UnixMillis::now());
            self.uncommitted.push(Output::Event(draft));
            self.tells_of_damage = true;
        }
    }

    fn beat(&mut self) {
        if self.beat_at.elapsed() < BEAT_EVERY {
            return;
        }
        self.beat_at = Instant::now();
        if self.started.elapsed() >= TELL_OF_DAMAGE_AFTER {
            self.tell_of_damage();
        }
        self.order_postponed();
        startup::notify_watchdog();
        let journal = self.publisher.journal();
        let (epoch, head_seq) = (journal.epoch().clone(), journal.head());
        self.publisher.beat(&Beat {
            time: UnixMillis::now(),
            epoch,
            head_seq,
            host: None,
            nth: Some(self.progress.nth.clone()),
        });
    }

    /// Answers this question and those that wait behind it: one a round of judging would be few while there is much to judge.
    async fn answer_waiting(&mut self, mut route: Route, mut frame: Option<Bytes>) {
        for _ in 0..ANSWERS_AT_ONCE {
            self.answer(route, frame.as_ref()).await;
            (route, frame) = tokio::select! {
                biased;
                question = self.query.recv() => question.unwrap_or_else(failed),
                () = std::future::ready(()) => return,
            };
        }
        self.answer(route, frame.as_ref()).await;
    }

    async fn answer(&mut self, route: Route, frame: Option<&Bytes>) {
        let Some((asker, request)) = self.query.read(route, frame).await else { return };
        let answer = match request.query.as_deref() {
            Some("health") => Ok(self.health()),
            _ => answers::answer(&self.engine, &self.publisher, &request),
        };
        self.query.answer(asker, answer).await;
    }

    async fn answer_own(&mut self, route: Route, frame: Option<&Bytes>) {
        let Some((asker, request)) = self.own.read(route, frame).await else { return };
        let answer = match request.query.as_deref() {
            Some("health") => Ok(self.health()),
            _ => Err(ErrorBody::new(
                ErrorCode::UnknownRequest,
                "only health is answered here; questions go to the socket query",
            )),
        };
        self.own.answer(asker, answer).await;
    }

    fn health(&self) -> Answer {
        let journal = self.publisher.journal();
        let health = startup::health("cprocessd", Some(journal.epoch()), journal.head(), self.started, &self.counters);
        Answer::whole(&health.kept_in(journal.path()))
    }

    /// Checks an order, and lets the ccollectds carry out their part first: were it the other way round, their next report
    /// would bring back what was just forgotten. One that was carried out already is answered as it was then, also if it
    /// could not be given any more.
    async fn begin_order(&mut self, route: Route, frame: Option<&Bytes>) {
        let Some((asker, request)) = self.control.read(route, frame).await else { return };
        if let (Some(name), Some(id)) = (&request.order, &request.id)
            && let Some(answer) = self.engine.had_order(id, name)
        {
            return self.answer_order(asker, answer).await;
        }
        let order = match Order::read(&request, UnixMillis::now()) {
            Ok(order) => order,
            Err(error) => return self.control.answer(asker, Err(error)).await,
        };
        if !matches!(order.command, Command::Forget { .. }) {
            return self.finish_order(Ready { asker, order, unreached: Vec::new() }).await;
        }
        if self.forgetting >= MAX_FORGETTING {
            let message = format!("{MAX_FORGETTING} orders to forget wait for their ccollectds; try again later");
            return self.control.answer(asker, Err(ErrorBody::new(ErrorCode::Failed, message))).await;
        }
        self.forgetting += 1;
        let (feeds, done) = (self.config.feeds.clone(), self.inbox.orders_in.clone());
        tokio::spawn(async move {
            let mut unreached = Vec::new();
            for feed in feeds {
                let mut questions = Requester::new(&question_socket(&feed));
                if let Err(error) = query::ask(&mut questions, &request, ORDER_TIMEOUT).await {
                    tracing::warn!("{} did not forget: {error}", feed.display());
                    unreached.push(feed.display().to_string());
                }
            }
            // The receiver lives as long as the daemon.
            let _ = done.send(Ready { asker, order, unreached }).await;
        });
    }

    async fn finish_order(&mut self, Ready { asker, order, unreached }: Ready) {
        let answer = match order.command {
            Command::Reload => self.reload_by(order),
            _ => self.order(order),
        };
        self.answer_order(asker, answer.map(|done| Ordered { unreached, ..done })).await;
    }

    /// Answers when the order is in the journal: what was answered holds, also after a restart.
    async fn answer_order(&mut self, asker: Asker, answer: Result<Ordered, ErrorBody>) {
        self.commit();
        let answer = match answer {
            // Still in memory only. The engine knows the order by its id, so that it is carried out once if it is repeated;
            // if we are restarted before the disk takes it, it never was.
            Ok(_) if !self.uncommitted.is_empty() => Err(ErrorBody::new(
                ErrorCode::Failed,
                "the order holds, but the journal cannot be written, so a restart would forget it: give it again with its id",
            )),
            Ok(done) => Ok(Answer::whole(&done)),
            Err(error) => Err(error),
        };
        self.control.answer(asker, answer).await;
    }

    /// The engine's part of an order.
    fn order(&mut self, order: Order) -> Result<Ordered, ErrorBody> {
        let mut outputs = self.engine.apply(self.now(), Input::Order(order));
        let at = outputs.iter().position(|output| matches!(output, Output::Ordered(_)));
        let Some(Output::Ordered(answer)) = at.map(|at| outputs.remove(at)) else {
            unreachable!("the engine answers every order")
        };
        self.keep(outputs);
        answer
    }

    /// The order `reload`: refused with what is wrong with the file, and then it is no event either.
    fn reload_by(&mut self, order: Order) -> Result<Ordered, ErrorBody> {
        match Config::load(&self.config_path) {
            Ok(config) => {
                let done = self.order(order)?;
                self.swap(config);
                Ok(done)
            }
            Err(error) => Err(ErrorBody::new(ErrorCode::Failed, format!("the configuration stays as it was: {error}"))),
        }
    }

    /// Parse, then swap: a bad file changes nothing.
    fn reload(&mut self) {
        match Config::load(&self.config_path) {
            Ok(config) => self.swap(config),
            Err(error) => common::startup::stays_configured(&error),
        }
    }

    fn swap(&mut self, config: Config) {
        let paths = |config: &Config| {
            (config.run_dir.clone(), config.state_dir.clone(), config.feeds.clone(), config.peers.clone())
        };
        let others = |config: &Config| (config.control_group.clone(), config.retention);
        if paths(&config) != paths(&self.config) || others(&config) != others(&self.config) {
            tracing::warn!("run_dir, state_dir, feeds, peers, control_group and journal_* change only with a restart");
        }
        let outputs = self.engine.reconfigure(self.now(), config.settings.clone());
        self.config.settings = config.settings;
        self.keep(outputs);
        tracing::info!("configuration read again");
    }

    /// What came from a peer: orders, each carried out once whichever way it comes.
    fn take_from_peer(&mut self, FromPeer { peer, cursor, orders }: FromPeer) {
        for order in orders {
            self.order_of_peer(order, Instant::now());
        }
        self.progress.cursors.insert(peer, cursor);
    }

    fn order_of_peer(&mut self, order: Order, came: Instant) {
        if peers::is_only_for_its_own(&order, &self.engine) {
            return;
        }
        let (name, author) = (order.command.name(), one_line(&order.author, LOGGED_CHARS));
        match self.order(order.clone()) {
            Ok(_) => tracing::debug!("{name} by {author} came from a peer"),
            Err(error) if self.postponed.takes(order, &error, came) => {}
            Err(error) => {
                self.counters.count("peer", "refused");
                tracing::debug!("{name} by {author} came from a peer, and is left out: {error}");
            }
        }
    }

    /// What could not be carried out when it came.
    fn order_postponed(&mut self) {
        for (order, came) in self.postponed.take() {
            self.order_of_peer(order, came);
        }
    }
}

/// The library gave up on one of our sockets: a new process has a better chance.
#[expect(clippy::needless_pass_by_value, reason = "it stands where errors are handed over")]
fn failed<T>(error: SocketError) -> T {
    panic!("{error}")
}

fn open_journal(config: &Config) -> Result<Journal, Fatal> {
    let dir = &config.state_dir;
    std::fs::create_dir_all(dir).map_err(|error| Fatal::Other(format!("cannot make {}: {error}", dir.display())))?;
    Ok(Journal::open(&dir.join("cprocessd.db"), config.retention, "cprocessd", &store::MIGRATIONS)?)
}

/// The question socket beside a feed.
fn question_socket(feed: &Path) -> PathBuf {
    let mut name = feed.as_os_str().to_owned();
    name.push("-query");
    name.into()
}

/// One task a feed, all into one inbox.
fn follow_feeds(feeds: &[PathBuf], cursors: &BTreeMap<String, Cursor>, counters: &Counters) -> mpsc::Receiver<Waiting> {
    let (inbox, deliveries) = mpsc::channel(WAITING_DELIVERIES);
    let room = Arc::new(Semaphore::new(WAITING_BYTES));
    for feed in feeds {
        let name: Arc<str> = feed.display().to_string().into();
        let start = cursors.get(&*name).map_or(Start::Snapshot, |cursor| Start::After(cursor.clone()));
        let publication = Publication {
            publisher: feed.clone(),
            questions: question_socket(feed),
            prefixes: vec!["value.", "check.", "event.", "alive."],
            unwanted: &[],
            max_answer_bytes: MAX_ANSWER_BYTES,
        };
        let (counters, inbox, room) = (counters.clone(), inbox.clone(), room.clone());
        // What waits here is not in WAITING_BYTES yet, and may be 256 KiB each.
        let (out, mut followed) = mpsc::channel(8);
        let forward = async move {
            while let Some(delivery) = followed.recv().await {
                let room = room.clone().acquire_many_owned(weight(&delivery)).await.expect("nobody closes it");
                if inbox.send(Waiting { feed: name.clone(), delivery, room }).await.is_err() {
                    return;
                }
            }
        };
        // One task for both: what one hands to the other wakes no other thread.
        tokio::spawn(async move {
            let (ended, ()) = tokio::join!(follow(publication, start, counters, out), forward);
            if let Err(error) = ended {
                panic!("cannot follow a feed: {error}");
            }
        });
    }
    deliveries
}

/// What a delivery takes of [`WAITING_BYTES`]. The state of a whole feed takes it all.
fn weight(delivery: &Delivery) -> u32 {
    let bytes = match delivery {
        Delivery::Snapshot { .. } => WAITING_BYTES,
        Delivery::Entry { payload, .. } | Delivery::Live { payload, .. } => payload.len().min(WAITING_BYTES),
        Delivery::Beat(_) | Delivery::Lost { .. } => 0,
    };
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn give_to_group(control: &Responder, group: &str) {
    match nix::unistd::Group::from_name(group) {
        Ok(Some(found)) => {
            if let Err(error) = control.set_group(found.gid.as_raw()) {
                tracing::warn!("the socket control cannot be given to group {group}: {error}");
            }
        }
        Ok(None) | Err(_) => tracing::debug!("there is no group {group}: the socket control keeps ours"),
    }
}
