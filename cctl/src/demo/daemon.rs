//! One daemon of the demo: started, its output copied, started again when it dies, stopped.

use super::folder::Folder;
use crate::failure::{Failure, notice};
use crate::out::{Out, put};
use crate::text::{Tint, escape};
use common::startup::{EXIT_CONFIG, EXIT_USAGE};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::spawn_local;

/// Before a daemon that died is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// From SIGTERM to SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// For the last lines of a daemon that is gone. A program it started may hold the pipe open.
const LAST_LINES: Duration = Duration::from_millis(500);
/// A line longer than this is cut in two.
const MAX_LINE_BYTES: usize = 16 << 10;

/// What is asked of a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Keep the daemon running.
    Run,
    /// SIGTERM, and SIGKILL after [`STOP_TIMEOUT`].
    Stop,
    /// SIGKILL now.
    Kill,
}

/// How a supervisor ended. The daemon is gone in both cases.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was told to.
    AsAsked,
    /// Starting the daemon again would not help.
    Failed(Failure),
}

/// What to start, and where its words go.
#[derive(Debug)]
pub(super) struct Program {
    name: &'static str,
    path: PathBuf,
    config: PathBuf,
    pid_file: PathBuf,
    log: RefCell<File>,
}

impl Program {
    /// The daemon that was built with this cctl.
    pub(super) fn beside(own: &Path, name: &'static str, folder: &Folder) -> Result<Self, Failure> {
        let path = own.with_file_name(name);
        if !path.is_file() {
            return Err(Failure::Other(format!(
                "there is no {}; the demo starts the daemons beside its own program, so build them all: deploy/demo",
                path.display()
            )));
        }
        let log = RefCell::new(folder.open_log(name)?);
        let pid_file = folder.run().join(format!("{name}.pid"));
        Ok(Self { name, path, config: folder.config(name), pid_file, log })
    }

    /// In a process group of its own, so that Ctrl-C reaches only cctl, which stops the daemons in order.
    fn start(&self, out: Out, tied: bool) -> Result<Running, Failure> {
        let mut command = Command::new(if tied { Path::new("setpriv") } else { &self.path });
        if tied {
            command.args(["--pdeathsig", "TERM", "--"]).arg(&self.path);
        }
        let command = command
            .arg("--config")
            .arg(&self.config)
            // They are not the service that systemd may have started.
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| Failure::file("start", &self.path, &error))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        if let Some(pid) = pid {
            std::fs::write(&self.pid_file, format!("{pid}\n"))
                .map_err(|error| Failure::file("write", &self.pid_file, &error))?;
        }
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        Ok(Running { child, pid, out, stdout, stderr })
    }

    /// A line of the daemon's, to its log as it is and to the terminal with its name.
    fn copy(&self, out: Out, line: &[u8]) {
        // A full disk must not take the demo down, and there is nobody to tell but the terminal.
        let _ = self.log.borrow_mut().write_all(&[line, b"\n"].concat());
        let name = out.ink().paint(Tint::Faint, &format!("{} |", self.name));
        let _ = put(&format!("{name} {}\n", escape(&String::from_utf8_lossy(line))));
    }
}

struct Running {
    child: Child,
    pid: Option<Pid>,
    out: Out,
    stdout: Option<tokio::process::ChildStdout>,
    stderr: Option<tokio::process::ChildStderr>,
}

/// Keeps the daemon running until it is told otherwise, or until that is hopeless.
pub(super) async fn supervise(program: Rc<Program>, out: Out, mut orders: watch::Receiver<Order>) -> Ended {
    let tied = can_tie().await;
    loop {
        let mut running = match program.start(out, tied) {
            Ok(running) => running,
            Err(failure) => return Ended::Failed(failure),
        };
        let copies = running.copy_output(&program);
        let status = running.until_exit_or_order(&mut orders).await;
        let _ = tokio::time::timeout(LAST_LINES, copies).await;
        let _ = std::fs::remove_file(&program.pid_file);
        let Some(status) = status else { return Ended::AsAsked };
        if let Some(failure) = hopeless(program.name, status) {
            return Ended::Failed(failure);
        }
        notice(&format!("{} ended ({status}), starting it again in 1s", program.name));
        tokio::select! {
            () = tokio::time::sleep(RESTART_PAUSE) => {}
            _ = orders.wait_for(|order| *order != Order::Run) => return Ended::AsAsked,
        }
    }
}

/// A daemon that does not understand its command line or its configuration will not the next time either.
fn hopeless(name: &str, status: ExitStatus) -> Option<Failure> {
    let code = status.code().and_then(|code| u8::try_from(code).ok())?;
    (code == EXIT_USAGE || code == EXIT_CONFIG)
        .then(|| Failure::Config(format!("{name} ended with exit code {code}; what is wrong it says above")))
}

impl Running {
    /// Ends when both pipes are closed.
    fn copy_output(&mut self, program: &Rc<Program>) -> impl Future<Output = ()> + use<> {
        let stdout = self.stdout.take().map(|pipe| spawn_local(copy_lines(Rc::clone(program), self.out, pipe)));
        let stderr = self.stderr.take().map(|pipe| spawn_local(copy_lines(Rc::clone(program), self.out, pipe)));
        async move {
            for copy in [stdout, stderr].into_iter().flatten() {
                let _ = copy.await;
            }
        }
    }

    /// How it ended by itself; `None` if it was told to.
    async fn until_exit_or_order(&mut self, orders: &mut watch::Receiver<Order>) -> Option<ExitStatus> {
        tokio::select! {
            status = self.child.wait() => return status.ok().or(Some(ExitStatus::default())),
            _ = orders.wait_for(|order| *order != Order::Run) => {}
        }
        if let Some(pid) = self.pid {
            let _ = kill(pid, Signal::SIGTERM);
        }
        let impatient = tokio::select! {
            _ = self.child.wait() => return None,
            () = tokio::time::sleep(STOP_TIMEOUT) => "did not stop in time",
            _ = orders.wait_for(|order| *order == Order::Kill) => "is killed",
        };
        notice(&format!("process {} {impatient}", self.pid.unwrap_or(Pid::from_raw(0))));
        if let Some(pid) = self.pid {
            // What it started as well.
            let _ = killpg(pid, Signal::SIGKILL);
        }
        let _ = self.child.wait().await;
        None
    }
}

async fn copy_lines(program: Rc<Program>, out: Out, mut pipe: impl AsyncRead + Unpin) {
    let mut pending = Vec::new();
    let mut chunk = [0; 8192];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        pending.extend_from_slice(&chunk[..read]);
        for line in take_lines(&mut pending) {
            program.copy(out, &line);
        }
    }
    if !pending.is_empty() {
        program.copy(out, &pending);
    }
}

/// The whole lines, and what is too long to wait for its end.
fn take_lines(pending: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    while let Some(end) = pending.iter().take(MAX_LINE_BYTES).position(|byte| *byte == b'\n') {
        let rest = pending.split_off(end + 1);
        pending.pop();
        lines.push(std::mem::replace(pending, rest));
    }
    if pending.len() >= MAX_LINE_BYTES {
        lines.push(std::mem::take(pending));
    }
    lines
}

/// Whether setpriv(1) can have the kernel end a daemon when cctl is killed. Without it, daemons outlive a cctl that
/// gets SIGKILL; the next demo says so.
async fn can_tie() -> bool {
    let probe = Command::new("setpriv").args(["--pdeathsig", "TERM", "--", "true"]).stderr(Stdio::null()).status();
    probe.await.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn only_a_daemon_that_refuses_its_configuration_is_given_up() {
        let exit = |code: i32| hopeless("ccollectd", ExitStatus::from_raw(code << 8));
        assert!(matches!(exit(64), Some(Failure::Config(_))));
        assert!(matches!(exit(78), Some(Failure::Config(_))));
        assert!(exit(0).is_none() && exit(1).is_none());
        assert!(hopeless("ccollectd", ExitStatus::from_raw(9)).is_none(), "killed");
    }

    #[test]
    fn output_comes_in_lines_and_none_is_endless() {
        let mut pending = b"one\ntwo\nthr".to_vec();
        assert_eq!(take_lines(&mut pending), [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(pending, b"thr");
        let mut endless = vec![b'x'; MAX_LINE_BYTES];
        assert_eq!(take_lines(&mut endless).len(), 1);
        assert!(endless.is_empty());
    }
}
