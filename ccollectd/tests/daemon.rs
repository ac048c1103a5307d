//! The real daemon in a folder of its own, as it would run: what comes out of its sockets, and what a signal does.
//!
//! Nothing sleeps for a fixed time: each test waits for a condition, with a deadline.

use common::address::CheckAddress;
use common::message::{
    Alive, Beat, Check, ErrorCode, EventsPage, FeedSnapshot, Health, LogEvent, Ordered, Request, Sample, decode,
    decode_batch,
};
use common::query::{AskError, ask, ask_for};
use common::socket::{Requester, Subscriber};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rmpv::Value;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use zeromq::{PushSocket, Socket, SocketSend};

const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon in a temporary folder. Killed when dropped.
struct Daemon {
    dir: tempfile::TempDir,
    child: Child,
    questions: Requester,
}

impl Daemon {
    async fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        write_config(dir.path(), config);
        let child = spawn(dir.path());
        let questions = Requester::new(&dir.path().join("run/feed-query"));
        let mut daemon = Self { dir, child, questions };
        daemon.wait_until_ready().await;
        daemon
    }

    async fn wait_until_ready(&mut self) {
        let begin = Instant::now();
        while ask(&mut self.questions, &Request::query("health"), Duration::from_millis(200)).await.is_err() {
            assert!(begin.elapsed() < PATIENCE, "the daemon does not answer");
        }
    }

    async fn restart(&mut self) {
        assert!(self.stop().success());
        self.child = spawn(self.dir.path());
        self.questions = Requester::new(&self.dir.path().join("run/feed-query"));
        self.wait_until_ready().await;
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), signal).expect("our own child");
    }

    fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.child.wait().expect("our own child")
    }

    async fn follow(&self) -> Feed {
        let feed = Subscriber::connect(&self.dir.path().join("run/feed"), &[""]).await.expect("connected");
        Feed { feed }
    }

    async fn pusher(&self) -> PushSocket {
        let mut socket = PushSocket::new();
        let path = self.dir.path().join("run/plugins");
        socket.connect(&format!("ipc://{}", path.display())).await.expect("connected");
        socket
    }

    async fn ask(&mut self, request: Request) -> Value {
        ask(&mut self.questions, &request, PATIENCE).await.expect("an answer")
    }

    async fn refusal(&mut self, request: Request) -> ErrorCode {
        match ask(&mut self.questions, &request, PATIENCE).await {
            Err(AskError::Refused(error)) => error.code,
            other => panic!("{other:?}"),
        }
    }

    async fn health(&mut self) -> Health {
        ask_for(&mut self.questions, &Request::query("health"), PATIENCE).await.expect("an answer")
    }

    async fn snapshot(&mut self) -> FeedSnapshot {
        ask_for(&mut self.questions, &Request::query("snapshot"), PATIENCE).await.expect("an answer")
    }

    /// The check, once it is as it should be.
    async fn check(&mut self, address: &str, is_right: impl Fn(&Check) -> bool) -> Check {
        let address: CheckAddress = address.parse().expect("an address");
        let begin = Instant::now();
        loop {
            let snapshot = self.snapshot().await;
            if let Some(check) = snapshot.checks.iter().find(|check| check.address() == address && is_right(check)) {
                return check.clone();
            }
            assert!(begin.elapsed() < PATIENCE, "{address} is not as it should be: {:?}", snapshot.checks);
        }
    }

    async fn count(&mut self, counter: &str, n: u64) {
        let begin = Instant::now();
        loop {
            let counters = self.health().await.counters;
            if counters.get(counter) == Some(&n) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{counter} is not {n}: {counters:?}");
        }
    }

    /// Waits for a line in the log.
    async fn says(&self, text: &str) {
        let begin = Instant::now();
        while !std::fs::read_to_string(self.dir.path().join("log")).is_ok_and(|log| log.contains(text)) {
            assert!(begin.elapsed() < PATIENCE, "{text:?} was never logged");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn journal(&mut self) -> Vec<Value> {
        let request = Request { after: Some(0), ..Request::query("events") };
        let page: EventsPage<Value> = ask_for(&mut self.questions, &request, PATIENCE).await.expect("an answer");
        page.events
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Feed {
    feed: Subscriber,
}

impl Feed {
    /// The first message under the topic that is as it should be, from wherever in a batch.
    async fn first<T: serde::de::DeserializeOwned>(&self, topic: &str, is_right: impl Fn(&T) -> bool) -> T {
        let find = async {
            loop {
                let (found, payload) = self.feed.recv().await.expect("a message");
                if found == topic.as_bytes() {
                    let messages: Vec<T> = decode_batch(&payload).expect("a message of this topic");
                    if let Some(right) = messages.into_iter().find(|message| is_right(message)) {
                        return right;
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("nothing came under {topic}"))
    }
}

fn write_config(dir: &Path, config: &str) {
    let dir_name = dir.display();
    let text = format!("host = \"h\"\nrun_dir = \"{dir_name}/run\"\nstate_dir = \"{dir_name}/state\"\n{config}");
    std::fs::write(dir.join("ccollectd.toml"), text).expect("written");
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ccollectd"));
    command.arg("--config").arg(dir.join("ccollectd.toml")).stdin(Stdio::null());
    command
}

fn spawn(dir: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).expect("a log");
    command(dir).stderr(log).spawn().expect("started")
}

fn exit_code(command: &mut Command) -> Option<i32> {
    command.stderr(Stdio::null()).status().expect("started").code()
}

/// A message as people would write it as JSON.
async fn push(socket: &mut PushSocket, json: serde_json::Value) {
    let bytes = rmp_serde::to_vec(&json).expect("JSON is MessagePack");
    socket.send(bytes.into()).await.expect("sent");
}

fn port(name: &str, address: &str) -> String {
    format!("[[port]]\nname = {name:?}\naddress = {address:?}\ninterval = \"100ms\"\ntimeout = \"5s\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_observed_from_the_first_message_to_the_goodbye() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let mut daemon = Daemon::start(&port("www (test)", &address)).await;
    let feed = daemon.follow().await;

    let sample: Sample = feed.first("value.h!", |sample: &Sample| sample.resource.as_str() == "memory").await;
    assert_eq!((sample.service.as_str(), sample.from.as_str()), ("machine", "h"));
    let disk: Sample = feed.first("value.h!", |sample: &Sample| sample.resource.as_str() == "disk").await;
    assert_eq!(disk.interval_ms, 1000);
    let beat: Beat = feed.first("beat.", |_| true).await;
    assert_eq!(beat.host.expect("a feed's beat has a host").as_str(), "h");
    let alive: Alive = feed.first("alive.h!", |_| true).await;
    let live: Check = feed.first("check.h!", |check: &Check| check.seq.is_none()).await;
    assert!(live.up && live.head_seq.is_some());

    let snapshot = daemon.snapshot().await;
    assert_eq!((&snapshot.epoch, &snapshot.hosts[0].hash), (&beat.epoch, &alive.inventory));
    assert_eq!(snapshot.hosts[0].inventory, ["h!port:www (test)".parse().expect("an address")]);
    let topics: Vec<_> = daemon.journal().await.iter().map(|event| event["topic"].to_string()).collect();
    assert_eq!(topics, ["\"alive.h!\"", "\"check.h!\""]);

    drop(listener);
    let down: Check = feed.first("check.h!", |check: &Check| !check.up).await;
    assert!(down.seq.is_some() && down.origin.is_some(), "a change is journaled: {down:?}");
    assert_eq!(down.text, "connection refused");

    daemon.signal(Signal::SIGTERM);
    let goodbye: Alive = feed.first("alive.h!", |alive: &Alive| alive.goodbye).await;
    assert!(goodbye.seq.is_some());
    assert_eq!(daemon.child.wait().expect("our own child").code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_gets_an_answer() {
    let mut daemon = Daemon::start("machine.enabled = false").await;
    assert_eq!(daemon.refusal(Request::query("down-list")).await, ErrorCode::UnknownRequest);
    assert_eq!(daemon.refusal(Request::query("events")).await, ErrorCode::BadArgument);
    assert_eq!(daemon.refusal(Request::order("forget")).await, ErrorCode::BadArgument);
    let future = Request { after: Some(1000), ..Request::query("events") };
    assert_eq!(daemon.refusal(future).await, ErrorCode::Gone);
    let page = Request { page: Some("1.1000".to_owned()), ..Request::query("snapshot") };
    assert_eq!(daemon.refusal(page).await, ErrorCode::PageExpired);

    let answer = daemon.questions.ask(b"\xff".to_vec(), PATIENCE).await.expect("an answer");
    let reply: common::message::Reply = decode(&answer).expect("a reply");
    assert_eq!(reply.error.expect("an error").code, ErrorCode::Undecodable);
    daemon.count("feed-query.undecodable", 1).await;
    let answer = daemon.questions.ask(b"{\"query\": \"health\"}".to_vec(), PATIENCE).await.expect("an answer");
    assert!(answer.starts_with(b"{"), "a question in JSON is answered in JSON");

    let mut own = Requester::new(&daemon.dir.path().join("run/ccollectd.sock"));
    let health: Health = ask_for(&mut own, &Request::query("health"), PATIENCE).await.expect("an answer");
    assert_eq!((health.daemon.as_str(), health.head_seq), ("ccollectd", 1));
    let refused = ask(&mut own, &Request::query("snapshot"), PATIENCE).await;
    assert!(matches!(refused, Err(AskError::Refused(error)) if error.code == ErrorCode::UnknownRequest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugins_state_outlives_a_restart_with_its_date() {
    let mut daemon = Daemon::start("machine.enabled = false").await;
    let mut socket = daemon.pusher().await;
    push(&mut socket, serde_json::json!({"service": "app", "msg_type": "down", "unit": "db", "text": "broken"})).await;
    let before = daemon.check("h!app:db", |check| !check.up).await;
    let head = daemon.health().await.head_seq;

    daemon.restart().await;
    let after = daemon.check("h!app:db", |check| !check.up).await;
    assert_eq!((after.changed, after.text), (before.changed, before.text));
    assert_eq!(daemon.health().await.head_seq, head + 1, "only the goodbye was journaled");

    let forget = Request { pattern: Some("*!app".to_owned()), ..Request::order("forget") };
    let forgotten: Ordered = ask_for(&mut daemon.questions, &forget, PATIENCE).await.expect("an answer");
    assert_eq!(forgotten.addresses, ["h!app:db"]);
    daemon.restart().await;
    assert!(daemon.snapshot().await.checks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_falls_silent_is_down() {
    let mut daemon = Daemon::start("machine.enabled = false").await;
    let mut socket = daemon.pusher().await;
    let message = serde_json::json!({"service": "backup", "msg_type": "up", "ttl_ms": 300});
    push(&mut socket, message).await;
    let up = daemon.check("h!backup:", |check| check.up).await;
    let down = daemon.check("h!backup:", |check| !check.up).await;
    assert_eq!(down.text, "no report for 300ms");
    let late = down.changed.millis_since(up.changed);
    assert!((300..1000).contains(&late), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_plugin_stops_the_daemon_and_a_flood_costs_no_event() {
    const FLOOD: u64 = 5000;
    let mut daemon = Daemon::start("machine.enabled = false\nplugins.max_units = 3").await;
    let feed = daemon.follow().await;
    let _: Beat = feed.first("beat.", |_| true).await;
    let mut socket = daemon.pusher().await;

    for garbage in [&b""[..], b"\xff", b"{}", b"\x81\xa7service\x01"] {
        socket.send(garbage.to_vec().into()).await.expect("sent");
    }
    push(&mut socket, serde_json::json!({"service": "port", "msg_type": "up", "unit": "www"})).await;
    push(&mut socket, serde_json::json!({"service": "a", "msg_type": "up", "time": "yesterday"})).await;
    let mut two = zeromq::ZmqMessage::from(b"a".to_vec());
    two.push_back(b"b".to_vec().into());
    socket.send(two).await.expect("sent");
    daemon.count("plugins.frames", 1).await;
    daemon.count("plugins.undecodable", 4).await;
    daemon.count("plugins.reserved", 1).await;
    daemon.count("plugins.bad_time", 1).await;

    let values = serde_json::json!({"service": "a", "msg_type": "value", "resource_type": "jobs", "unit": "u", "values": {"done": 1}});
    push(&mut socket, values).await;
    let sample: Sample = feed.first("value.h!", |sample: &Sample| sample.service.as_str() == "a").await;
    assert_eq!((sample.interval_ms, sample.resource.as_str()), (0, "jobs"));

    for nth in 0..FLOOD {
        let message =
            serde_json::json!({"service": "log", "msg_type": "event", "severity": "INFO", "text": nth.to_string()});
        push(&mut socket, message).await;
    }
    for unit in 0..5 {
        push(&mut socket, serde_json::json!({"service": "many", "msg_type": "up", "unit": unit.to_string()})).await;
    }
    daemon.count("plugins.too_many_units", 3).await;
    let last: LogEvent = feed.first("event.h!", |event: &LogEvent| event.text == (FLOOD - 1).to_string()).await;
    assert!(last.seq.is_some());
    // The inventory, the units a, many:0 and many:1, and every event.
    assert_eq!(daemon.health().await.head_seq, 1 + 3 + FLOOD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_swaps_what_is_watched_and_a_bad_file_swaps_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let mut daemon = Daemon::start(&port("old", &address)).await;
    let feed = daemon.follow().await;
    daemon.check("h!port:old", |check| check.up).await;

    write_config(daemon.dir.path(), "[[port]]\nname = \"new\"");
    daemon.signal(Signal::SIGHUP);
    daemon.says("the configuration stays as it was").await;
    daemon.says("address").await;
    let watched = &daemon.snapshot().await.hosts[0].inventory;
    assert_eq!(*watched, ["h!port:old".parse().expect("an address")]);
    write_config(daemon.dir.path(), &port("new", &address));
    daemon.signal(Signal::SIGHUP);
    daemon.says("the configuration was read again").await;
    let new: CheckAddress = "h!port:new".parse().expect("an address");
    let watched: Alive = feed.first("alive.h!", |alive: &Alive| alive.addresses == Some(vec![new.clone()])).await;
    assert!(watched.seq.is_some());
    daemon.check("h!port:new", |check| check.up).await;
    let snapshot = daemon.snapshot().await;
    assert_eq!(snapshot.checks.iter().map(Check::address).collect::<Vec<_>>(), [new]);
    assert_eq!(snapshot.hosts[0].hash, watched.inventory);
}

#[test]
fn exit_codes_say_who_must_act() {
    let dir = tempfile::tempdir().expect("a folder");
    write_config(dir.path(), "");
    assert_eq!(exit_code(command(dir.path()).arg("--check-config")), Some(0));
    assert_eq!(exit_code(command(dir.path()).arg("--no-such-option")), Some(64));
    write_config(dir.path(), "machine.interval = \"1ms\"");
    assert_eq!(exit_code(command(dir.path()).arg("--check-config")), Some(78));
    assert_eq!(exit_code(&mut command(dir.path())), Some(78));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_folders_is_refused_and_the_first_one_goes_on() {
    let mut daemon = Daemon::start("machine.enabled = false").await;
    assert_eq!(exit_code(&mut command(daemon.dir.path())), Some(1));
    assert_eq!(daemon.ask(Request::query("health")).await["daemon"], Value::from("ccollectd"));
}
