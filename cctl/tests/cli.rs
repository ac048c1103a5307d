//! The program as a shell sees it: what it prints, where, and with which exit code. The other side is a cprocessd of a few
//! lines, on real sockets.

use common::counters::Counters;
use common::journal::{Journal, Retention};
use common::message::{ErrorBody, ErrorCode, Request, encode};
use common::publisher::JournaledPublisher;
use common::query::{Answer, Pager, parse, write};
use common::socket::Responder;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

fn cctl(run: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cctl"));
    command.env("CAIRN_RUN", run).env_remove("NO_COLOR").args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(run: &Path, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        tokio::time::timeout(PATIENCE, cctl(run, args).output()).await.expect("in time").expect("cctl");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

/// Answers on one socket, without end.
async fn serve(
    run: &Path,
    socket: &str,
    mut answer: impl FnMut(&Request) -> Result<Answer, ErrorBody> + Send + 'static,
) -> JoinHandle<()> {
    let responder = Responder::bind(&run.join(socket), &Counters::default()).await.expect("a socket");
    tokio::spawn(async move {
        let mut pager = Pager::default();
        while let Ok((route, frame)) = responder.recv().await {
            let (format, request) = parse(frame.as_deref());
            let reply = match request {
                Ok(Request { page: Some(token), .. }) => pager.next(Instant::now(), &token),
                request => pager.first(Instant::now(), request.and_then(|request| answer(&request))),
            };
            responder.reply(route, write(format, &reply)).await;
        }
    })
}

fn list(rows: &Value) -> Answer {
    Answer::list(rows.as_array().expect("rows"))
}

fn host(name: &str, state: &str, open: u64) -> Value {
    json!({"host": name, "state": state, "since": 0, "last_seen": 0, "severity": null, "checks": 1, "open": open})
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_line_ends_with_64_and_help_with_0() {
    let dir = temporary();
    for wrong in [
        &["frobnicate"][..],
        &[],
        &["server-list", "--frobnicate"],
        &["last-value", ""],
        &["forget", "not a pattern:x"],
        &["server-status", "no host"],
        &["health", "../x"],
        &["watch", "--severity", "BAD"],
        &["--timeout", "5", "server-list"],
        &["completions", "tcl"],
    ] {
        let (code, stdout, stderr) = run(dir.path(), wrong).await;
        assert_eq!((code, stdout.as_str()), (64, ""), "{wrong:?}: {stderr}");
        assert!(!stderr.is_empty(), "{wrong:?}");
    }
    for right in [&["--help"][..], &["watch", "--help"], &["--version"]] {
        let (code, stdout, stderr) = run(dir.path(), right).await;
        assert_eq!((code, stderr.as_str()), (0, ""), "{right:?}");
        assert!(!stdout.is_empty(), "{right:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_not_there_ends_with_69_and_says_where_to_look() {
    let dir = temporary();
    for args in [&["server-list"][..], &["forget", "web1"], &["health", "cmaild"], &["watch"], &["events"]] {
        let (code, stdout, stderr) = run(dir.path(), args).await;
        assert_eq!((code, stdout.as_str()), (69, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(&dir.path().display().to_string()) && stderr.contains("running"), "{stderr}");
    }
    // Someone was there once, and is no more.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("query")).expect("a socket"));
    let (code, _, stderr) = run(dir.path(), &["--timeout", "200ms", "down-list"]).await;
    assert!(code == 69 && stderr.contains("nobody listens"), "{code} {stderr}");
    // Someone is there and hangs.
    let _hung = std::os::unix::net::UnixListener::bind(dir.path().join("control")).expect("a socket");
    let (code, _, stderr) = run(dir.path(), &["--timeout", "200ms", "forget", "web1"]).await;
    assert!(code == 69 && stderr.contains("no answer from"), "{code} {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_says_whether_something_is_wrong() {
    let dir = temporary();
    let mut quiet = true;
    let (flip, flipped) = std::sync::mpsc::channel();
    let _server = serve(dir.path(), "query", move |request| {
        quiet &= flipped.try_recv().is_err();
        let state = if quiet { "up" } else { "down" };
        let check =
            json!({"host": "web1", "service": "port", "unit": "www", "state": state, "since": 0, "text": "\u{1b}[2J"});
        match request.query.as_deref() {
            Some("server-list") => Ok(list(&json!([host("web1", state, 0)]))),
            Some("service-list") if request.host.as_deref() == Some("web10") => Ok(list(&json!([]))),
            Some("service-list") => Ok(list(&json!([check]))),
            Some("server-status") => Ok(Answer::whole(
                &json!({"server": host("web1", "up", 0), "services": [check], "incidents": [], "values": []}),
            )),
            Some("down-list") if quiet => Ok(list(&json!([]))),
            Some("down-list") => Ok(list(&json!([{"incident": "01234567-89ab-cdef-0123-456789abcdef",
                "address": "web1!port:www", "rule": "check", "severity": "ERR", "since": 0, "text": "refused",
                "acked": false, "silenced": false, "unreachable": false}]))),
            Some("alarm-list") => {
                Ok(list(&json!([{"name": "disk", "rule": "r", "severity": "ERR", "matches": 1, "active": [
                {"address": "web1!machine.disk:/.free", "open": !quiet, "since": 0, "value": 1.5}]}])))
            }
            _ => Err(ErrorBody::new(ErrorCode::UnknownRequest, "no such question")),
        }
    })
    .await;
    let questions =
        [&["server-list"][..], &["service-list"], &["server-status", "web1"], &["down-list"], &["alarm-list"]];
    for expected in [0, 2] {
        for question in questions {
            for format in [&["--json"][..], &["--color=always"], &[]] {
                let (code, stdout, stderr) = run(dir.path(), &[format, question].concat()).await;
                assert_eq!((code, stderr.as_str()), (expected, ""), "{format:?} {question:?}: {stdout}");
                assert!(!stdout.contains("\u{1b}[2J"), "{stdout:?}");
                assert_eq!(stdout.contains("\u{1b}[0m"), format == ["--color=always"] && stdout.lines().count() > 1);
            }
        }
        let _ = flip.send(());
    }
    // A host without checks is fine; one that is not known is an error, which cprocessd says.
    assert_eq!(run(dir.path(), &["service-list", "web10"]).await.0, 0);
    let (code, stdout, stderr) = run(dir.path(), &["snapshot"]).await;
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (1, "", "cctl: no such question\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_the_answer_itself_also_what_this_cctl_does_not_know() {
    let dir = temporary();
    // More than a page.
    let rows: Vec<Value> = (0..2500)
        .map(|n| json!({"address": format!("web{n}!a.b:c.d"), "value": 0.5, "time": n, "stale": false, "new": [null]}))
        .collect();
    let answer = rows.clone();
    let _server = serve(dir.path(), "query", move |request| match request.pattern.as_deref() {
        Some("web*") => Ok(Answer::list(&answer)),
        _ => Ok(list(&json!([]))),
    })
    .await;
    let (code, stdout, _) = run(dir.path(), &["last-value", "web*", "--json"]).await;
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&stdout).expect("one document"), Value::Array(rows));
    let (code, stdout, stderr) = run(dir.path(), &["--json", "last-value", "db*"]).await;
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (1, "[]\n", "cctl: no value matches db*\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_has_an_id_and_an_author_and_says_who_was_not_reached() {
    let dir = temporary();
    let (sender, mut orders) = mpsc::unbounded_channel();
    let _server = serve(dir.path(), "control", move |request| {
        let _ = sender.send(request.clone());
        Ok(Answer::whole(
            &json!({"text": "anna let forget it", "addresses": ["web1!port:old"], "unreached": ["feed of web1"]}),
        ))
    })
    .await;
    let mut command = cctl(dir.path(), &["forget", "web1!port:old*"]);
    command.env("SUDO_USER", "anna").env("USER", "root");
    let output = command.output().await.expect("cctl");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "anna let forget it\n  web1!port:old\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("could not tell feed of web1"));
    let order = orders.recv().await.expect("an order");
    assert_eq!((order.order.as_deref(), order.pattern.as_deref()), (Some("forget"), Some("web1!port:old*")));
    assert_eq!(order.author.as_deref(), Some("anna"));
    assert_eq!(order.id.map(|id| id.len()), Some(36));
}

const ID: &str = "01234567-89ab-cdef-0123-456789abcdef";

#[tokio::test(flavor = "multi_thread")]
async fn every_order_says_on_the_wire_what_was_said_on_the_command_line() {
    let dir = temporary();
    let (sender, mut orders) = mpsc::unbounded_channel();
    let _server = serve(dir.path(), "control", move |request| {
        let _ = sender.send(request.clone());
        Ok(Answer::whole(&json!({"text": "done so", "addresses": [], "unreached": []})))
    })
    .await;
    let until = 1_796_108_400_000_i64;
    let cases: [(&[&str], Value); 13] = [
        (
            &["silence", "web*", "--until", "2026-12-01T08:00+01:00", "--reason", "new disks"],
            json!({"order": "silence", "pattern": "web*", "until": until, "reason": "new disks"}),
        ),
        (
            &["maintenance", "db1", "--until", "2026-12-01T07:00Z", "--reason", "move"],
            json!({"order": "maintenance", "pattern": "db1", "until": until, "reason": "move"}),
        ),
        (&["unsilence", "4711"], json!({"order": "unsilence", "silence": "4711"})),
        (&["ack", ID], json!({"order": "ack", "incident": ID})),
        (
            &["ack", "web1!port", "--until", "2026-12-01T07:00Z", "--reason", "mine"],
            json!({"order": "ack", "pattern": "web1!port", "until": until, "reason": "mine"}),
        ),
        (&["unack", "web1!port"], json!({"order": "unack", "pattern": "web1!port"})),
        (
            &["rule", "add", "disk", "*!machine.disk:*.free < 5g WARN"],
            json!({"order": "rule-add", "name": "disk", "rule": "*!machine.disk:*.free < 5g WARN"}),
        ),
        (&["rule", "remove", "disk"], json!({"order": "rule-remove", "name": "disk"})),
        (
            &["subscriber", "add", "anna", "--via", "mail"],
            json!({"order": "subscriber-add", "name": "anna", "via": "mail", "severity": "WARN", "pattern": "*"}),
        ),
        (
            &["subscriber", "add", "anna", "web*", "--via", "mail", "--severity", "CRIT"],
            json!({"order": "subscriber-add", "name": "anna", "via": "mail", "severity": "CRIT", "pattern": "web*"}),
        ),
        (
            &["subscriber", "remove", "anna", "--via", "mail"],
            json!({"order": "subscriber-remove", "name": "anna", "via": "mail"}),
        ),
        (&["forget", "web1"], json!({"order": "forget", "pattern": "web1"})),
        (&["reload"], json!({"order": "reload"})),
    ];
    for (args, mut expected) in cases {
        let (code, stdout, stderr) = run(dir.path(), &[args, &["--author", "bo", "--id", "one"]].concat()).await;
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "done so\n", ""), "{args:?}");
        let order = orders.recv().await.expect("an order");
        (expected["id"], expected["author"]) = (json!("one"), json!("bo"));
        assert_eq!(serde_json::to_value(order).expect("JSON"), expected, "{args:?}");
    }
    let before = common::time::UnixMillis::now().0;
    run(dir.path(), &["silence", "web1", "--for", "1h30m", "--reason", "x"]).await;
    let order = orders.recv().await.expect("an order");
    let lasts = order.until.expect("an end").0 - before;
    assert!((5_400_000..5_430_000).contains(&lasts), "{lasts}");
    assert!(order.id != Some("one".into()) && order.author.is_some());
    for wrong in [
        &["silence", "web1", "--reason", "x"][..],
        &["silence", "web1", "--for", "1h"],
        &["silence", "web1", "--for", "1h", "--until", "2026-12-01", "--reason", "x"],
        &["silence", "web1", "--for", "soon", "--reason", "x"],
        &["silence", "not a pattern:x", "--for", "1h", "--reason", "x"],
        &["silence", "web1", "--for", "1h", "--reason", "two\nlines"],
        &["silence", "web1", "--for", "1h", "--reason", "x", "--author", ""],
        &["ack", "not a pattern:x"],
        &["rule", "add", "disk", "full"],
        &["rule"],
        &["subscriber", "add", "anna"],
        &["subscriber", "add", "anna", "--via", "mail", "--severity", "BAD"],
        &["unsilence"],
    ] {
        let (code, stdout, stderr) = run(dir.path(), wrong).await;
        assert_eq!((code, stdout.as_str()), (64, ""), "{wrong:?}: {stderr}");
    }
    assert!(orders.try_recv().is_err(), "what is wrong here is not sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_answer_is_lost_is_given_again_with_its_id() {
    let dir = temporary();
    let responder = Responder::bind(&dir.path().join("control"), &Counters::default()).await.expect("a socket");
    let (sender, mut orders) = mpsc::unbounded_channel();
    // The first time that it comes an order is not answered.
    let _server = tokio::spawn(async move {
        let mut had = Vec::new();
        while let Ok((route, frame)) = responder.recv().await {
            let (format, request) = parse(frame.as_deref());
            let request = request.expect("a request");
            let _ = sender.send(request.clone());
            if had.contains(&request.id) && request.pattern.as_deref() != Some("never") {
                let done = Ok(Answer::whole(&json!({"text": "done", "addresses": []})));
                responder.reply(route, write(format, &Pager::default().first(Instant::now(), done))).await;
            }
            had.push(request.id);
        }
    });
    let (code, stdout, stderr) = run(dir.path(), &["forget", "web1", "--timeout", "300ms"]).await;
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "done\n", ""));
    let (first, again) = (orders.recv().await.expect("one"), orders.recv().await.expect("and again"));
    assert_eq!(first, again);
    let (code, _, stderr) = run(dir.path(), &["forget", "never", "--timeout", "300ms"]).await;
    let id = orders.recv().await.and_then(|order| order.id).expect("an id");
    assert!(code == 69 && stderr.contains(&format!("give it again with --id {id}")), "{code} {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_ordered_is_listed_and_an_address_explained() {
    let dir = temporary();
    let _server = serve(dir.path(), "query", move |request| match request.query.as_deref() {
        Some("silence-list") => Ok(list(&json!([{"id": "4711", "pattern": "web*", "until": 4_102_444_800_000_i64,
            "since": 0, "author": "anna", "reason": "new disks", "maintenance": false, "open": 1}]))),
        Some("maintenance-list") => Ok(list(&json!([{"name": "backup", "pattern": "db*", "when": "daily 02:00-03:00",
            "active_until": null, "next": [[4_102_444_800_000_i64, 4_102_448_400_000_i64]]}]))),
        Some("subscriber-list") => Ok(list(&json!([{"name": "anna", "via": "mail", "severity": "ERR", "pattern": "*",
            "author": "anna", "since": 0}]))),
        Some("alarm-list") => Ok(list(&json!([{"name": "disk", "rule": "r", "severity": "ERR", "matches": 1,
            "active": [], "origin": "order", "author": "anna", "added": 0}]))),
        Some("explain") if request.pattern.as_deref() == Some("web1!port:www (443)") => Ok(Answer::whole(&json!({
            "address": "web1!port:www (443)", "state": "down", "since": 0, "why": ["it does not answer"],
            "last": "refused", "incidents": [], "rules": [], "suppressed_by": ["silence:4711"],
            "depends_on": [["web1!alive:", "up"]]}))),
        _ => Err(ErrorBody::new(ErrorCode::NotFound, "nothing is known of it")),
    })
    .await;
    let questions: [(&[&str], i32, &[&str]); 6] = [
        (&["silence-list"], 0, &["web*", "anna", "new disks", "4711"]),
        (&["maintenance-list"], 0, &["backup", "daily 02:00-03:00", "next:", "1h 0m"]),
        (&["subscriber", "list"], 0, &["anna", "mail", "ERR"]),
        (&["rule", "list"], 0, &["disk", "an order", "anna"]),
        (
            &["explain", "web1!port:www (443)"],
            2,
            &["is down since", "it does not answer", "silence:4711", "web1!alive:  up"],
        ),
        (&["explain", "web2"], 1, &[]),
    ];
    for (args, expected, words) in questions {
        let (code, stdout, _) = run(dir.path(), args).await;
        assert!(code == expected && words.iter().all(|word| stdout.contains(word)), "{args:?} {code}: {stdout}");
        let (code, json, _) = run(dir.path(), &[&["--json"], args].concat()).await;
        assert_eq!(code, expected);
        assert!(code == 1 || serde_json::from_str::<Value>(&json).is_ok(), "{json}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_is_no_reason_to_complain() {
    let dir = temporary();
    // More than the pipe holds.
    let rows: Vec<Value> = (0..5000).map(|n| host(&format!("web{n}"), "up", 0)).collect();
    let _server = serve(dir.path(), "query", move |_| Ok(Answer::list(&rows))).await;
    let mut child =
        cctl(dir.path(), &["server-list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cctl");
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut stderr).await.expect("text");
    assert_eq!((child.wait().await.expect("ended").code(), stderr.as_str()), (Some(141), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shell_has_completions_and_every_subcommand_a_page() {
    let dir = temporary();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, stdout, _) = run(dir.path(), &["completions", shell]).await;
        assert!(code == 0 && stdout.contains("server-list"), "{shell}");
    }
    let (code, page, _) = run(dir.path(), &["man"]).await;
    assert!(code == 0 && page.contains(".TH cctl 1") && page.contains("Exit status"), "{page}");
    let folder = dir.path().join("man1");
    let (code, stdout, stderr) = run(dir.path(), &["man", folder.to_str().expect("UTF-8")]).await;
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
    for page in [
        "cctl-rule-add.1",
        "cctl-replay.1",
        "cctl.1",
        "cctl-server-list.1",
        "cctl-watch.1",
        "cctl-demo.1",
        "cctl-man.1",
    ] {
        assert!(std::fs::metadata(folder.join(page)).expect(page).len() > 200, "{page}");
    }
}

/// A cprocessd that says what it is told to.
struct Stream {
    append: mpsc::Sender<(u64, oneshot::Sender<()>)>,
    task: JoinHandle<()>,
}

fn event(epoch: &str, seq: u64) -> Value {
    let severity = if seq.is_multiple_of(2) { "WARN" } else { "ERR" };
    json!({
        "epoch": epoch, "seq": seq, "nth": seq, "id": "01234567-89ab-cdef-0123-456789abcdef",
        "incident": "01234567-89ab-cdef-0123-456789abcdef", "kind": "down", "address": "web1!port:www", "host": "web1",
        "service": "port", "unit": "www", "severity": severity, "top_severity": severity, "state": "down",
        "since": 0, "time": 0, "text": format!("number {seq}"), "rule": "check",
    })
}

impl Stream {
    /// On the sockets in `run`, with the journal in the file `journal` there.
    async fn start(run: &Path, journal: &str) -> Self {
        let counters = Counters::default();
        let journal =
            Journal::open(&run.join(journal), Retention { entries: 1000, ..Retention::default() }, "test", &[])
                .expect("a journal");
        let mut stream = JournaledPublisher::bind(&run.join("stream"), journal, &counters).await.expect("stream");
        let questions = Responder::bind(&run.join("query"), &counters).await.expect("query");
        let (append, mut inbox) = mpsc::channel::<(u64, oneshot::Sender<()>)>(10);
        let task = tokio::spawn(async move {
            let mut pager = Pager::default();
            let mut clock = tokio::time::interval(Duration::from_millis(200));
            loop {
                let (epoch, head) = (stream.journal().epoch().clone(), stream.journal().head());
                tokio::select! {
                    told = inbox.recv() => {
                        let Some((n, done)) = told else { break };
                        let write = |seq| encode(&event(epoch.as_str(), seq));
                        stream
                            .commit(|commit| {
                                (0..n).try_for_each(|_| commit.append("event.ERR.web1!".into(), write(commit.next_seq())))
                            })
                            .expect("committed");
                        let _ = done.send(());
                    }
                    _ = clock.tick() => {
                        let beat = json!({"time": 0, "epoch": epoch.as_str(), "head_seq": head});
                        stream.publish("beat.", encode(&beat));
                    }
                    question = questions.recv() => {
                        let (route, frame) = question.expect("a question");
                        let (format, request) = parse(frame.as_deref());
                        let answer = request.and_then(|request| match request.query.as_deref() {
                            Some("events") => stream.events(&request),
                            Some("health") => Ok(Answer::whole(&common::startup::health(
                                "cprocessd", Some(&epoch), head, Instant::now(), &counters,
                            ))),
                            _ => Err(ErrorBody::new(ErrorCode::UnknownRequest, "no such question")),
                        });
                        questions.reply(route, write(format, &pager.first(Instant::now(), answer))).await;
                    }
                }
            }
            stream.close().await;
            questions.close().await;
        });
        Self { append, task }
    }

    /// When this returns they are in the journal.
    async fn append(&self, n: u64) {
        let (done, is_done) = oneshot::channel();
        self.append.send((n, done)).await.expect("the stream runs");
        is_done.await.expect("appended");
    }

    async fn stop(self) {
        drop(self.append);
        self.task.await.expect("stopped");
    }
}

fn watching(run: &Path, args: &[&str]) -> Child {
    cctl(run, &[&["watch"], args].concat()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cctl")
}

fn terminate(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = i32::try_from(child.id().expect("it runs")).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("a signal");
}

/// The whole lines of the file, as `(epoch, seq)` counted from the first epoch on.
fn written(file: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["seq"].as_u64().expect("seq")).collect()
}

async fn until_written(file: &Path, expected: &[u64]) {
    let deadline = Instant::now() + PATIENCE;
    while written(file) != expected {
        assert!(Instant::now() < deadline, "{:?}, not {expected:?}", written(file));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_shows_events_as_they_happen_and_ends_with_0() {
    let dir = temporary();
    let stream = Stream::start(dir.path(), "journal").await;
    stream.append(3).await;
    for signal in [nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGTERM] {
        let mut child = watching(dir.path(), &["--from", "2", "--severity", "err"]);
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let line =
            tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("text").expect("one");
        assert!(line.ends_with("[ DOWN ]    ERR   web1!port:www  number 3") || line.contains("since"), "{line}");
        terminate(&child, signal);
        assert_eq!(child.wait().await.expect("ended").code(), Some(0));
    }
    let mut child = watching(dir.path(), &["--json", "--from", "0"]);
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    // The last one is published, the others are asked for; they look alike.
    for seq in 1..=4 {
        if seq == 4 {
            stream.append(1).await;
        }
        let line =
            tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("text").expect("one");
        let shown: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(shown, event(shown["epoch"].as_str().expect("epoch"), seq));
    }
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_every_event_once_although_cctl_and_cprocessd_are_killed() {
    let dir = temporary();
    let file = dir.path().join("events.jsonl");
    let args = ["--from", "1", "--to", file.to_str().expect("UTF-8")];
    // It waits for a cprocessd that is not there yet.
    let mut watch = watching(dir.path(), &args);
    let deadline = Instant::now() + PATIENCE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "it does not wait for its cprocessd");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut stream = Stream::start(dir.path(), "journal").await;
    stream.append(5).await;
    until_written(&file, &[1, 2, 3, 4, 5]).await;
    assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o640);
    for round in 1..=3 {
        watch.kill().await.expect("killed");
        let mut torn = std::fs::read(&file).expect("read");
        torn.extend_from_slice(&b"{\"epoch\":\"e"[..round * 3]);
        std::fs::write(&file, torn).expect("torn");
        stream.append(3).await;
        watch = watching(dir.path(), &args);
        stream.append(2).await;
        stream.stop().await;
        stream = Stream::start(dir.path(), "journal").await;
        stream.append(1).await;
        until_written(&file, &(1..=5 + 6 * round as u64).collect::<Vec<_>>()).await;
    }
    // Another journal: its events follow, and it is said.
    stream.stop().await;
    let stream = Stream::start(dir.path(), "other").await;
    stream.append(2).await;
    until_written(&file, &(1..=23).chain(1..=2).collect::<Vec<_>>()).await;
    terminate(&watch, nix::sys::signal::Signal::SIGTERM);
    let mut stderr = String::new();
    watch.stderr.take().expect("stderr").read_to_string(&mut stderr).await.expect("text");
    assert_eq!(watch.wait().await.expect("ended").code(), Some(0));
    assert!(stderr.contains("torn event") && stderr.contains("before event 1 is lost"), "{stderr}");
    stream.stop().await;
}

/// What a demo runs, in the order it is stopped.
const DAEMONS: [&str; 6] = ["ccollectd", "cprocessd", "cmaild", "cbotd", "csmsd", "cwebd"];

/// A cctl beside daemons that are these shell scripts; those that are not given sleep.
///
/// Other programs write the files: one that we had open for writing could not be executed while a process that another
/// test forks just then still has it, too.
fn with_daemons(dir: &Path, ccollectd: &str, cprocessd: &str) -> PathBuf {
    let bin = dir.join("bin");
    std::fs::create_dir(&bin).expect("a folder");
    let own = bin.join("cctl");
    let done = |command: &mut std::process::Command| assert!(command.status().expect("it runs").success());
    done(std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_cctl")).arg(&own));
    for name in DAEMONS {
        let script = match name {
            "ccollectd" => ccollectd,
            "cprocessd" => cprocessd,
            _ => SLEEPS,
        };
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\" && chmod 755 \"$0\"";
        done(std::process::Command::new("sh").arg("-c").arg(write).arg(bin.join(name)).arg(script));
    }
    own
}

fn demo(own: &Path, dir: &Path) -> Command {
    let mut command = Command::new(own);
    command.arg("demo").arg(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Does nothing until SIGTERM.
const SLEEPS: &str = "echo ready; trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done";

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_restarts_what_dies_and_stops_in_order() {
    let dir = temporary();
    let own = with_daemons(dir.path(), &format!("test -e ran || {{ touch ran; exit 3; }}\n{SLEEPS}"), SLEEPS);
    let root = dir.path().join("demo");
    let mut child = demo(&own, &root).current_dir(dir.path()).spawn().expect("cctl");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let mut seen = Vec::new();
    while seen.len() < DAEMONS.len() {
        let line =
            tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("text").expect("one");
        seen.push(line);
    }
    seen.sort_unstable();
    let mut ready = DAEMONS.map(|name| format!("{name} | ready"));
    ready.sort_unstable();
    assert_eq!(seen, ready);
    // A second one is refused.
    let second = demo(&own, &root).output().await.expect("cctl");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another cctl demo runs in this folder"));
    terminate(&child, nix::sys::signal::Signal::SIGINT);
    for name in DAEMONS {
        assert_eq!(lines.next_line().await.expect("text"), Some(format!("{name} | bye")));
    }
    let mut stderr = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut stderr).await.expect("text");
    assert_eq!(child.wait().await.expect("ended").code(), Some(0));
    assert_eq!(stderr, "cctl: ccollectd ended (exit status: 3), starting it again in 1s\ncctl: stopping\n");
    assert_eq!(std::fs::read_to_string(root.join("log/ccollectd.log")).expect("a log"), "ready\nbye\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_stops_when_a_configuration_is_wrong_or_a_daemon_is_missing() {
    let dir = temporary();
    let own = with_daemons(dir.path(), SLEEPS, "echo 'line 3: no' >&2; exit 78");
    let output = demo(&own, &dir.path().join("demo")).output().await.expect("cctl");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(stdout.contains("cprocessd | line 3: no") && stderr.contains("cprocessd ended with exit code 78"));
    std::fs::remove_file(dir.path().join("bin/ccollectd")).expect("removed");
    let output = demo(&own, &dir.path().join("demo")).output().await.expect("cctl");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("bin/ccollectd"));
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_do_not_outlive_a_demo_that_is_killed() {
    if !std::process::Command::new("setpriv").args(["--pdeathsig", "TERM", "true"]).status().is_ok_and(|s| s.success())
    {
        eprintln!("skipped: no setpriv --pdeathsig on this system");
        return;
    }
    let dir = temporary();
    let own = with_daemons(dir.path(), SLEEPS, SLEEPS);
    let root = dir.path().join("demo");
    let mut child = demo(&own, &root).spawn().expect("cctl");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    for _ in DAEMONS {
        lines.next_line().await.expect("text").expect("ready");
    }
    let pids = DAEMONS.map(|name| {
        let pid = std::fs::read_to_string(root.join("run").join(format!("{name}.pid"))).expect("a pid file");
        PathBuf::from("/proc").join(pid.trim())
    });
    assert!(pids.iter().all(|process| process.exists()));
    child.kill().await.expect("killed");
    let deadline = Instant::now() + PATIENCE;
    // A dead process that nobody waited for still has its folder, but no command line.
    let is_running = |process: &PathBuf| std::fs::read(process.join("cmdline")).is_ok_and(|line| !line.is_empty());
    while pids.iter().any(is_running) {
        assert!(Instant::now() < deadline, "a daemon lives on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
