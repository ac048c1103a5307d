//! The thin shell: what publishers say goes to the board, what changed goes to the browsers.

use crate::board::Board;
use crate::config::Config;
use crate::live::Live;
use crate::routes::{self, Web};
use crate::server;
use crate::session::SessionStore;
use crate::source::{self, Said};
use crate::subscription::Orders;
use bytes::Bytes;
use common::counters::Counters;
use common::message::{ErrorBody, ErrorCode};
use common::query::Answer;
use common::questions::Questions;
use common::socket::Route;
use common::startup::{self, Asked, Fatal, Signals};
use common::time::UnixMillis;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// What publishers said and we have not looked at yet. Beyond it their sockets keep it, and drop what is lossy.
const WAITING: usize = 256;
/// Browsers are told of changes at most this often, so that a flood of events is one frame and not a thousand.
const FLUSH_EVERY: Duration = Duration::from_millis(50);
/// Loads, ages and the watchdog.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Everything cwebd has while it runs.
pub(crate) struct Daemon {
    config: Config,
    config_path: PathBuf,
    started: Instant,
    counters: Counters,
    live: Arc<Live>,
    web: Arc<Web>,
    said: mpsc::Receiver<(usize, Said)>,
    signals: Signals,
    own: Questions,
    server: JoinHandle<()>,
    stopping: watch::Sender<bool>,
    beat_at: Instant,
    flushed_at: Instant,
    /// Something may have changed since.
    is_dirty: bool,
}

/// What woke the daemon.
enum Woken {
    Said(usize, Said),
    Own(Route, Option<Bytes>),
    Signal(Asked),
    Deadline,
}

impl Daemon {
    /// Binds, opens the sessions, and follows the publishers.
    pub(crate) async fn start(config: Config, config_path: PathBuf, print: bool) -> Result<Self, Fatal> {
        // First, since who sees the port open may ask us to stop.
        let signals = Signals::new()?;
        let counters = Counters::default();
        for dir in [&config.run_dir, &config.state_dir] {
            std::fs::create_dir_all(dir)
                .map_err(|error| Fatal::Other(format!("cannot make folder {}: {error}", dir.display())))?;
        }
        let own = Questions::bind(&config.run_dir.join("cwebd.sock"), &counters).await?;
        let sessions = SessionStore::open(&config.state_dir.join("cwebd.db"), UnixMillis::now())?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|error| Fatal::Other(format!("cannot listen on {}: {error}", config.listen)))?;
        let address = listener.local_addr().map_err(|error| Fatal::Other(error.to_string()))?;
        let names = config.publishers.iter().map(|stream| stream.display().to_string());
        let live = Arc::new(Live::new(Board::new(names)));
        let (said_in, said) = mpsc::channel(WAITING);
        for (side, stream) in config.publishers.iter().enumerate() {
            source::start(side, stream, &counters, print, said_in.clone());
        }
        let (stopping, stop) = watch::channel(false);
        let orders = Orders::new(&config.publishers);
        let access = config.access.clone();
        let web = Arc::new(Web::new(live.clone(), access, sessions, orders, counters.clone(), stop.clone()));
        let server = tokio::spawn(server::serve(listener, routes::router(web.clone()), counters.clone(), stop));
        tracing::info!("the page is at http://{address}/");
        Ok(Self {
            config,
            config_path,
            started: Instant::now(),
            counters,
            live,
            web,
            said,
            signals,
            own,
            server,
            stopping,
            beat_at: Instant::now(),
            flushed_at: Instant::now(),
            is_dirty: false,
        })
    }

    /// Shows until asked to stop.
    pub(crate) async fn run(&mut self) -> Result<(), Fatal> {
        loop {
            match self.wait().await {
                Woken::Said(side, said) => self.take(side, said),
                Woken::Own(route, frame) => self.answer(route, frame.as_ref()).await,
                Woken::Signal(Asked::Reload) => self.reload(),
                Woken::Signal(Asked::Stop) => return Ok(()),
                Woken::Deadline => {}
            }
            if self.is_dirty && self.flushed_at.elapsed() >= FLUSH_EVERY {
                self.live.flush();
                self.is_dirty = false;
                self.flushed_at = Instant::now();
            }
            if self.beat_at.elapsed() >= BEAT_EVERY {
                self.beat_at = Instant::now();
                self.live.beat();
                startup::notify_watchdog();
            }
        }
    }

    /// Browsers are told that it is over; what is being answered has its 2 s.
    pub(crate) async fn stop(self) {
        startup::notify_stopping();
        self.stopping.send_replace(true);
        let _ = self.server.await;
        self.own.close().await;
        tracing::info!("stopped");
    }

    async fn wait(&mut self) -> Woken {
        let mut deadline = self.beat_at + BEAT_EVERY;
        if self.is_dirty {
            deadline = deadline.min(self.flushed_at + FLUSH_EVERY);
        }
        tokio::select! {
            Some((side, said)) = self.said.recv() => Woken::Said(side, said),
            question = self.own.recv() => match question {
                Ok((route, frame)) => Woken::Own(route, frame),
                // The library gave up on our socket: a new process has a better chance.
                Err(error) => panic!("{error}"),
            },
            asked = self.signals.recv() => Woken::Signal(asked),
            () = tokio::time::sleep_until(deadline.into()) => Woken::Deadline,
        }
    }

    fn take(&mut self, side: usize, said: Said) {
        let now = self.live.now();
        self.is_dirty |= !matches!(said, Said::Samples(_) | Said::Beat);
        self.live.tell(|board| match said {
            Said::Snapshot(snapshot) => board.snapshot(side, snapshot),
            Said::History(events) => board.history(events),
            Said::Refresh(hosts, incidents) => board.refresh(side, hosts, incidents),
            Said::Event(event) => board.event(side, *event),
            Said::Samples(samples) => samples.iter().for_each(|sample| board.sample(now, sample)),
            Said::Beat => board.beat(now, side),
        });
    }

    async fn answer(&mut self, route: Route, frame: Option<&Bytes>) {
        let Some((asker, request)) = self.own.read(route, frame).await else { return };
        let answer = match request.query.as_deref() {
            Some("health") => {
                let health = startup::health("cwebd", None, 0, self.started, &self.counters);
                Ok(Answer::whole(&health.kept_in(&self.config.state_dir.join("cwebd.db"))))
            }
            _ => Err(ErrorBody::new(ErrorCode::UnknownRequest, "only health is answered here")),
        };
        self.own.answer(asker, answer).await;
    }

    /// Parse, then swap: a bad file changes nothing.
    fn reload(&mut self) {
        match Config::load(&self.config_path) {
            Ok(config) => {
                let fixed = |config: &Config| {
                    (config.run_dir.clone(), config.state_dir.clone(), config.publishers.clone(), config.listen)
                };
                if fixed(&config) != fixed(&self.config) {
                    tracing::warn!("run_dir, state_dir, publishers and listen change only with a restart");
                }
                if self.config.access.password.is_some() && config.access.password.is_none() && !self.is_local() {
                    tracing::error!("the configuration stays as it was: {} needs a password", self.config.listen);
                    return;
                }
                self.web.set_access(config.access.clone());
                self.config.access = config.access;
                tracing::info!("configuration read again");
            }
            Err(error) => common::startup::stays_configured(&error),
        }
    }

    fn is_local(&self) -> bool {
        self.config.listen.ip().to_canonical().is_loopback()
    }
}
