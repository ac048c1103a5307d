//! Every way in which ccollectd is woken: sources, local programs, questions, the clock, signals.

use crate::config::Fixed;
use crate::scheduler::Observation;
use crate::sources::plugins::{self, Room, Waiting};
use bytes::Bytes;
use common::counters::Counters;
use common::socket::{Puller, Responder, Route};
use common::startup::{Asked, Fatal, Signals};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Observations and reports each wait here while the disk is waited for. Beyond it sources and, through their sockets,
/// local programs wait: nothing is dropped.
const MAX_WAITING: usize = 1000;
/// How late a silence may be noticed.
const TICK: Duration = Duration::from_millis(200);

/// What woke us.
#[derive(Debug)]
pub(crate) enum Wake {
    /// Something was seen or said.
    Input(Batch),
    /// Time has passed; with what was waiting, so that nobody counts as silent whose word is already here.
    Tick(Batch),
    /// A second has passed.
    Second,
    /// Somebody asks.
    Question(Question),
    /// Somebody wants us to do something else.
    Signal(Asked),
}

/// All that was there at once, to be handled with one write to the disk.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// From our own sources.
    pub(crate) observations: Vec<Observation>,
    /// From local programs.
    pub(crate) reports: Vec<Waiting>,
    /// More reports may be waiting than it could hold.
    pub(crate) is_full: bool,
}

/// Where a question came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// `feed-query`, for cprocessd.
    Feed,
    /// `ccollectd.sock`, for cctl.
    Own,
}

impl Door {
    /// The socket's name, in the folder and in the counters.
    pub(crate) fn socket(self) -> &'static str {
        match self {
            Door::Feed => "feed-query",
            Door::Own => "ccollectd.sock",
        }
    }
}

/// A question as it came, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Question {
    /// Where it came in.
    pub(crate) door: Door,
    /// Its only frame, if it has only one.
    pub(crate) frame: Option<Bytes>,
    route: Route,
}

/// The one place where the main loop waits.
#[derive(Debug)]
pub(crate) struct Inbox {
    observer: mpsc::Sender<Observation>,
    observations: mpsc::Receiver<Observation>,
    reports: mpsc::Receiver<Waiting>,
    room: Room,
    /// Takes in reports; without plugins, what keeps `reports` open.
    receiver: Result<JoinHandle<()>, mpsc::Sender<Waiting>>,
    feed_questions: Responder,
    own_questions: Responder,
    tick: Interval,
    second: Interval,
    signals: Signals,
}

impl Inbox {
    /// Makes the folder of the sockets, if need be, and binds all that we are asked and told on.
    pub(crate) async fn bind(fixed: &Fixed, counters: &Counters) -> Result<Self, Fatal> {
        let run_dir = &fixed.run_dir;
        std::fs::create_dir_all(run_dir)
            .map_err(|error| Fatal::Other(format!("cannot make folder {}: {error}", run_dir.display())))?;
        let feed_questions = Responder::bind(&run_dir.join(Door::Feed.socket()), counters).await?;
        let own_questions = Responder::bind(&run_dir.join(Door::Own.socket()), counters).await?;
        let (observer, observations) = mpsc::channel(MAX_WAITING);
        let (reporter, reports) = mpsc::channel(MAX_WAITING);
        let room = Room::default();
        let receiver = if fixed.takes_plugins {
            let socket = Puller::bind(&run_dir.join(plugins::SOCKET), counters).await?;
            Ok(tokio::spawn(plugins::receive(socket, counters.clone(), room.clone(), reporter)))
        } else {
            Err(reporter)
        };
        let every = |period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks
        };
        Ok(Self {
            observer,
            observations,
            reports,
            room,
            receiver,
            feed_questions,
            own_questions,
            tick: every(TICK),
            second: every(Duration::from_secs(1)),
            signals: Signals::new()?,
        })
    }

    /// Where sources put what they see.
    pub(crate) fn observer(&self) -> mpsc::Sender<Observation> {
        self.observer.clone()
    }

    /// Waits for the next thing. Nothing is preferred, so that no flood of one kind starves the others.
    pub(crate) async fn next(&mut self) -> Result<Wake, Fatal> {
        let mut batch = Batch::default();
        tokio::select! {
            _ = self.observations.recv_many(&mut batch.observations, MAX_WAITING) => Ok(Wake::Input(batch)),
            n = self.reports.recv_many(&mut batch.reports, MAX_WAITING) => match n {
                0 => Err(Fatal::Other(format!("socket {} is lost", plugins::SOCKET))),
                _ => Ok(Wake::Input(batch)),
            },
            question = self.feed_questions.recv() => {
                let (route, frame) = question?;
                Ok(Wake::Question(Question { door: Door::Feed, frame, route }))
            }
            question = self.own_questions.recv() => {
                let (route, frame) = question?;
                Ok(Wake::Question(Question { door: Door::Own, frame, route }))
            }
            _ = self.tick.tick() => Ok(Wake::Tick(self.waiting())),
            _ = self.second.tick() => Ok(Wake::Second),
            asked = self.signals.recv() => Ok(Wake::Signal(asked)),
        }
    }

    /// Sends an answer to where its question came from.
    pub(crate) async fn reply(&self, question: Question, answer: Vec<u8>) {
        match question.door {
            Door::Feed => self.feed_questions.reply(question.route, answer).await,
            Door::Own => self.own_questions.reply(question.route, answer).await,
        }
    }

    /// Takes in nothing more, and hands over what is still here.
    pub(crate) async fn close(mut self) -> Batch {
        if let Ok(receiver) = &self.receiver {
            receiver.abort();
        }
        let last = self.waiting();
        self.feed_questions.close().await;
        self.own_questions.close().await;
        last
    }

    /// What can be had without waiting.
    fn waiting(&mut self) -> Batch {
        let mut batch = Batch { is_full: self.room.is_scarce(), ..Batch::default() };
        while batch.observations.len() < MAX_WAITING
            && let Ok(observation) = self.observations.try_recv()
        {
            batch.observations.push(observation);
        }
        while batch.reports.len() < MAX_WAITING
            && let Ok(report) = self.reports.try_recv()
        {
            batch.reports.push(report);
        }
        batch.is_full |= batch.reports.len() >= MAX_WAITING;
        batch
    }
}
