//! Joins the parts: what comes in goes to the keeper, and what the keeper wants goes to the feed.

use crate::config::{Config, Plugins};
use crate::feed::Feed;
use crate::inbox::{Batch, Door, Question};
use crate::keeper::{Input, Keeper, Limits, Now};
use crate::questions::{self, Ask};
use crate::scheduler::{Observation, Scheduler};
use common::counters::Counters;
use common::message::{Alive, ErrorBody, FeedSnapshot, Ordered};
use common::query::{self, Answer, Pager, Rows};
use common::startup::{self, Fatal};
use common::traffic::Traffic;
use std::path::PathBuf;
use std::time::Instant;
use tokio::sync::mpsc;

/// Everything that lives as long as the daemon.
pub(crate) struct Daemon {
    path: PathBuf,
    config: Config,
    keeper: Keeper,
    feed: Feed,
    scheduler: Scheduler,
    feed_pages: Pager,
    own_pages: Pager,
    counters: Counters,
    started: Instant,
}

impl Daemon {
    /// Goes on from what the last run saved, says what is watched, and begins to watch it.
    pub(crate) async fn start(
        path: PathBuf,
        config: Config,
        observer: mpsc::Sender<Observation>,
        counters: Counters,
        traffic: Traffic,
    ) -> Result<Self, Fatal> {
        let state_dir = &config.fixed.state_dir;
        std::fs::create_dir_all(state_dir)
            .map_err(|error| Fatal::Other(format!("cannot make folder {}: {error}", state_dir.display())))?;
        let (feed, keeper) = Feed::open(&config.fixed, limits(&config.plugins), &counters, traffic).await?;
        let mut daemon = Self {
            path,
            keeper,
            feed,
            scheduler: Scheduler::new(config.fixed.host.clone(), observer),
            config,
            feed_pages: Pager::default(),
            own_pages: Pager::default(),
            counters,
            started: Instant::now(),
        };
        let (host, epoch, head) = (&daemon.config.fixed.host, daemon.feed.epoch(), daemon.feed.head());
        tracing::info!("observing {host}, journal {epoch} at {head}");
        daemon.configure();
        Ok(daemon)
    }

    /// Handles all that was there at once, with one write to the disk.
    pub(crate) fn take_in(&mut self, batch: Batch) {
        let now = Now::read();
        let mut outputs = Vec::new();
        let mut samples = Vec::new();
        for observation in batch.observations {
            match observation {
                // Numbers that were read together stay together.
                Observation::Numbers(numbers) => samples.push(numbers),
                Observation::State(observed) => outputs.extend(self.keeper.apply(now, Input::Observed(observed))),
            }
        }
        for waiting in batch.reports {
            outputs.extend(self.keeper.apply(now, Input::Reported(waiting.report)));
        }
        self.feed.carry_out(now.monotonic, outputs);
        for numbers in samples {
            self.feed.publish_samples(numbers);
        }
    }

    /// Handles what was waiting, and then what follows from the silence of the rest.
    pub(crate) fn tick(&mut self, batch: Batch) {
        let is_full = batch.is_full;
        self.take_in(batch);
        // While more is waiting than fits, nobody can be said to be silent.
        if !is_full {
            let now = Now::read();
            let outputs = self.keeper.apply(now, Input::Tick);
            self.feed.carry_out(now.monotonic, outputs);
        }
    }

    /// Says that we live, to the feed and to the service manager.
    pub(crate) fn beat(&mut self) {
        let now = Now::read();
        self.feed.beat(now, &self.keeper.alive(now));
        startup::notify_watchdog();
    }

    /// An error if the journal was found damaged.
    pub(crate) fn check_sound(&self) -> Result<(), Fatal> {
        self.feed.check_sound()
    }

    /// The answer to any question, in the asker's own format.
    pub(crate) fn answer(&mut self, question: &Question) -> Vec<u8> {
        let now = Instant::now();
        let door = question.door;
        let (format, request) = query::parse(question.frame.as_deref());
        let result = match request {
            Err(error) => {
                if self.counters.count(door.socket(), "undecodable") {
                    tracing::warn!("{} got what is no request: {error}; more of this is only counted", door.socket());
                }
                Err(error)
            }
            Ok(request) => {
                if let Some(page) = &request.page {
                    return query::write(format, &self.pages(door).next(now, page));
                }
                questions::read(door, request).and_then(|ask| self.carry_out(ask))
            }
        };
        query::write(format, &self.pages(door).first(now, result))
    }

    /// Reads the configuration again. A bad one changes nothing.
    pub(crate) fn reload(&mut self) {
        let new = match Config::load(&self.path) {
            Ok(new) => new,
            Err(error) => {
                common::startup::stays_configured(&error);
                return;
            }
        };
        for key in self.config.fixed.differences(&new.fixed) {
            tracing::warn!("{key} has changed in the configuration, but needs a restart to take effect");
        }
        self.config = Config { fixed: self.config.fixed.clone(), ..new };
        self.keeper.set_limits(limits(&self.config.plugins));
        self.configure();
        tracing::info!("the configuration was read again");
    }

    /// The last words.
    pub(crate) async fn stop(mut self, last: Batch) {
        self.scheduler.stop();
        self.take_in(last);
        let now = Now::read();
        let goodbye = Alive { goodbye: true, ..self.keeper.alive(now) };
        self.feed.close(now.monotonic, goodbye).await;
        tracing::info!("stopped");
    }

    fn configure(&mut self) {
        let now = Now::read();
        let addresses = self.config.sources.addresses(&self.config.fixed.host);
        let outputs = self.keeper.apply(now, Input::Configured(addresses));
        self.feed.carry_out(now.monotonic, outputs);
        self.scheduler.run(&self.config.sources);
    }

    fn carry_out(&mut self, ask: Ask) -> Result<Answer, ErrorBody> {
        match ask {
            Ask::Events(request) => self.feed.events(&request),
            Ask::Snapshot => Ok(self.snapshot()),
            Ask::Health => {
                let (epoch, head) = (self.feed.epoch(), self.feed.head());
                let health = startup::health("ccollectd", Some(epoch), head, self.started, &self.counters);
                Ok(Answer::whole(&health.kept_in(self.feed.database())))
            }
            Ask::Forget(pattern) => {
                tracing::info!("forgetting {}", pattern.as_str());
                let outputs = self.keeper.apply(Now::read(), Input::Forget(pattern));
                let addresses = outputs.iter().filter_map(|output| output.dropped()).map(ToString::to_string).collect();
                self.feed.carry_out(Instant::now(), outputs);
                Ok(Answer::whole(&Ordered { addresses, ..Ordered::default() }))
            }
        }
    }

    /// [`FeedSnapshot`], cut into pages by its lists.
    fn snapshot(&self) -> Answer {
        let FeedSnapshot { epoch, seq, hosts, checks } = FeedSnapshot {
            epoch: self.feed.epoch().clone(),
            seq: self.feed.head(),
            hosts: vec![self.keeper.snapshot_host()],
            checks: self.keeper.checks().collect(),
        };
        Answer::Lists {
            plain: vec![("epoch", epoch.as_str().into()), ("seq", seq.into())],
            lists: vec![("hosts", Rows::of(&hosts)), ("checks", Rows::of(&checks))],
        }
    }

    fn pages(&mut self, door: Door) -> &mut Pager {
        match door {
            Door::Feed => &mut self.feed_pages,
            Door::Own => &mut self.own_pages,
        }
    }
}

fn limits(plugins: &Plugins) -> Limits {
    Limits { forget_after: plugins.forget_after, max_units: plugins.max_units }
}
