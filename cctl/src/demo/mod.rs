//! `cctl demo DIR`: all of Cairn on this machine, with everything it reads and writes in one folder, so that a newcomer
//! sees it work before installing it. It is also a supervisor, the smallest that will do.

mod daemon;
mod folder;

use crate::args::Global;
use crate::ask::{Daemon, block_on, read};
use crate::failure::{Failure, Outcome, notice};
use crate::out::{Out, put};
use common::message::{Request, ServerRow, State};
use common::startup::Signals;
use common::time::UnixMillis;
use daemon::{Ended, Order, Program, supervise};
use folder::Folder;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};

/// In the order they are stopped: ccollectd's goodbye still reaches cprocessd, and what that says of it is still told.
const DAEMONS: [&str; 6] = ["ccollectd", "cprocessd", "cmaild", "cbotd", "csmsd", "cwebd"];
/// A host that takes longer to show up is worth a word.
const HOST_SHOWS_UP: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(500);

/// Until a signal, or until a daemon says that its configuration is wrong.
pub(crate) fn run(global: &Global, out: Out, dir: &Path) -> Result<Outcome, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::Other(format!("where is cctl itself: {error}")))?;
    let folder = Folder::open(dir, &DAEMONS)?;
    folder.write_configuration()?;
    let page = folder.choose_page_address()?;
    let programs = DAEMONS.map(|name| Program::beside(&own, name, &folder));
    let programs = programs.into_iter().collect::<Result<Vec<Program>, Failure>>()?;
    // On this thread only, as the daemons are tied to the life of the thread that starts them.
    block_on(LocalSet::new().run_until(async {
        let mut signals = Signals::new().map_err(|error| Failure::Other(error.to_string()))?;
        let mut running: Vec<Running> = programs.into_iter().map(|program| Running::start(program, out)).collect();
        let why = tokio::select! {
            _ = signals.recv() => Ok(Outcome::Fine),
            error = any_end(&mut running) => Err(error),
            error = introduce(global, &own, &folder, page) => Err(error),
        };
        notice("stopping");
        for daemon in &mut running {
            daemon.stop(&mut signals).await;
        }
        why
    }))
}

/// A daemon and its supervisor.
struct Running {
    order: watch::Sender<Order>,
    /// Absent when its end has been seen.
    supervisor: Option<JoinHandle<Ended>>,
}

impl Running {
    fn start(program: Program, out: Out) -> Self {
        let (order, orders) = watch::channel(Order::Run);
        let supervisor = tokio::task::spawn_local(supervise(Rc::new(program), out, orders));
        Self { order, supervisor: Some(supervisor) }
    }

    /// Returns when the daemon is gone. Another signal is impatience: then it is killed.
    async fn stop(&mut self, signals: &mut Signals) {
        let Some(mut supervisor) = self.supervisor.take() else { return };
        self.order.send_replace(Order::Stop);
        loop {
            tokio::select! {
                _ = &mut supervisor => return,
                _ = signals.recv() => { self.order.send_replace(Order::Kill); }
            }
        }
    }
}

/// The first daemon that cannot be kept running, and why.
async fn any_end(running: &mut [Running]) -> Failure {
    let ended = poll_fn(|context| {
        for daemon in &mut *running {
            if let Some(supervisor) = &mut daemon.supervisor
                && let Poll::Ready(ended) = Pin::new(supervisor).poll(context)
            {
                daemon.supervisor = None;
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    });
    match ended.await {
        Ok(Ended::Failed(failure)) => failure,
        Ok(Ended::AsAsked) => Failure::Other("a daemon was stopped unasked".to_owned()),
        Err(error) => Failure::Other(format!("a supervisor failed: {error}")),
    }
}

/// Waits for the host, says what to try, and never returns unless nobody reads it.
async fn introduce(global: &Global, own: &Path, folder: &Folder, page: SocketAddr) -> Failure {
    let started = tokio::time::Instant::now();
    let begun = UnixMillis::now();
    let mut late = false;
    loop {
        let mut cprocessd = Daemon::new("cprocessd", &folder.run().join("query"), global.timeout);
        let hosts =
            cprocessd.ask(&Request::query("server-list")).await.and_then(|answer| read::<Vec<ServerRow>>(&answer));
        // A demo that goes on knows its host from before; that is no sign that ccollectd runs.
        let is_heard = |host: &&ServerRow| host.state == State::Up && host.last_seen >= begun;
        if let Some(host) = hosts.iter().flatten().find(is_heard) {
            // That the terminal is gone is no reason to stop: the logs go on.
            let _ = put(&folder.what_next(own, host.host.as_str(), page));
            return std::future::pending().await;
        }
        if started.elapsed() > HOST_SHOWS_UP && !std::mem::replace(&mut late, true) {
            notice(&format!("no host is heard yet; what the daemons say is in {}", folder.log().display()));
        }
        tokio::time::sleep(POLL).await;
    }
}
