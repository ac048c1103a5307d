//! What the service manager sees: readiness, the watchdog, the end (sd_notify(3)).

use std::os::unix::net::UnixDatagram;
use tests::{PATIENCE, Process, Suite};

/// The next word on the notification socket that is not the watchdog's.
fn next(socket: &UnixDatagram) -> String {
    loop {
        let word = any(socket);
        if word != "WATCHDOG=1" {
            return word;
        }
    }
}

fn any(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("a notification in time");
    String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
}

#[test]
fn each_daemon_tells_the_service_manager_that_it_is_ready_alive_and_stopping() {
    for daemon in ["ccollectd", "cprocessd", "cmaild", "cbotd", "csmsd", "cwebd"] {
        let suite = Suite::new("", "");
        // By itself, as every unit may be enabled without the others.
        suite.configure(daemon, if daemon == "cwebd" { "listen = '127.0.0.1:0'\n" } else { "" });
        let path = suite.path("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        let mut process = Process::start(suite.command(daemon).env("NOTIFY_SOCKET", &path));
        assert_eq!(next(&socket), "READY=1", "{daemon}");
        // More than once: the loop turns, it was not only started.
        while any(&socket) != "WATCHDOG=1" {}
        while any(&socket) != "WATCHDOG=1" {}
        process.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(next(&socket), "STOPPING=1", "{daemon}");
        assert_eq!(process.exit_code(), 0, "{daemon}");
    }
}

#[test]
fn a_daemon_that_cannot_start_is_never_ready() {
    let suite = Suite::new("prot = 5\n", "");
    let path = suite.path("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    let mut process = Process::start(suite.command("ccollectd").env("NOTIFY_SOCKET", &path));
    assert_eq!(process.exit_code(), 78);
    assert!(socket.recv(&mut [0; 64]).is_err());
    let log = suite.log("ccollectd");
    assert!(log.contains("ccollectd.toml:4: unknown key prot, did you mean port?"), "{log}");
}
