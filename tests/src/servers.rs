//! What the real servers of the tests have in common: ports of their own, a folder of their own, and that they refuse to be
//! root.

use crate::Process;
use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Whoever runs nothing of its own on this machine: Debian's nobody and nogroup.
pub const NOBODY: u32 = 65534;
/// Of a log, in what a test that failed prints.
const TAIL_LINES: usize = 15;

/// Whether we are.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Ports of 127.0.0.1 that nobody listens on. All at once, so that none is given out twice.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// A port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> u16 {
    let [port] = free_ports();
    port
}

/// A temporary folder with these permissions: [`NOBODY`] has to enter it, whatever our umask is.
pub fn folder(prefix: &str, mode: u32) -> TempDir {
    let dir = tempfile::Builder::new().prefix(prefix).tempdir().expect("a temporary folder");
    fs::set_permissions(dir.path(), Permissions::from_mode(mode)).expect("our folder");
    dir
}

/// A program that does not run as root, even if we do. Debian puts servers where only root looks, so both folders of
/// programs are tried.
pub fn unprivileged(program: &str) -> Command {
    let found =
        ["/usr/sbin", "/usr/bin"].map(|dir| Path::new(dir).join(program)).into_iter().find(|path| path.exists());
    let program = found.unwrap_or_else(|| panic!("no {program}: tests/prepare installs it"));
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups", "--"]).arg(program);
    command
}

/// Starts a server in its folder, with what it says appended to `NAME.out` there.
pub fn start(command: &mut Command, dir: &Path, name: &str) -> Process {
    let log = File::options().create(true).append(true).open(dir.join(format!("{name}.out"))).expect("a log");
    let errors = log.try_clone().expect("a log");
    Process::start(command.current_dir(dir).stdin(Stdio::null()).stdout(log).stderr(errors))
}

/// Prints the end of a log where the test has failed.
pub fn print_tail_on_failure(name: &str, log: impl FnOnce() -> String) {
    if std::thread::panicking() {
        let log = log();
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
            eprintln!("{name} | {line}");
        }
    }
}
