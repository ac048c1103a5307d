//! Peers of other makes against the real daemons: what PROTOCOL.md promises to somebody who writes the other end.
//!
//! The Python ones (pyzmq, msgpack) are in `tests/python`, each a peer with its own assertions; the Rust ones are on the
//! crate `zeromq`, which shares no code with the daemons. PROTOCOL.md itself is held against the code at the end.

use common::message;
use cprocessd::engine::RESERVED;
use cprocessd::engine::order::Command as Ordered;
use cprocessd::engine::rule::Rule;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::{Plugin, Process, Suite, Target, binaries, python, repository, wait_at_most, wait_for};
use zeromq::{ReqSocket, Socket, SocketRecv, SocketSend, SubSocket, ZmqMessage};

/// A script has deadlines of its own, and says where it hangs.
const SCRIPT_PATIENCE: Duration = Duration::from_mins(3);

/// Runs a script of `tests/python` to its end, which must be a good one.
#[track_caller]
fn run(script: &str, args: &[&Path]) {
    let path = repository().join("tests/python").join(script);
    // -B: nothing is written beside the scripts.
    let mut process = Process::start(Command::new(python()).arg("-B").arg(path).args(args).stdin(Stdio::null()));
    let running = format!("{script} ends");
    wait_at_most(SCRIPT_PATIENCE, &running, || (!process.runs()).then_some(()));
    assert_eq!(process.exit_code(), 0, "{script} says above what is wrong");
}

/// No alarms but those that a test configures, and none of the machine's numbers.
const QUIET: (&str, &str) = ("[machine]\nenabled = false\n", "default_rules = false\n");

#[test]
fn every_question_is_answered_in_both_formats() {
    let target = Target::new();
    let ports = format!(
        "[[port]]\nname = \"www (http)\"\naddress = \"127.0.0.1:{}\"\ninterval = \"200ms\"\n\
         [[port]]\nname = \"gone\"\naddress = \"127.0.0.1:1\"\ninterval = \"200ms\"\nattempts = 1\n",
        target.port
    );
    // What is shipped looks at this machine's disks, and they may well be full.
    let alarms = "default_rules = false\n\
                  [[alarm]]\nname = \"memory gone\"\nrule = \"*!machine.memory:physical.used_percentage > 100% ERR\"\n\
                  [[alarm]]\nname = \"queue long\"\nrule = \"*!mail.queue:*.length > 100 WARN\"\n\
                  [[alarm]]\nname = \"no backup\"\nrule = \"testhost!backup:nightly absent for 1s CRIT\"\n";
    let suite = Suite::running(&ports, alarms);
    run("questions.py", &[&suite.path("run")]);
}

#[test]
fn what_cannot_be_answered_is_an_error_in_kind() {
    let suite = Suite::running(QUIET.0, QUIET.1);
    run("errors.py", &[&suite.path("run")]);
}

#[test]
fn long_answers_come_in_pages_of_one_state() {
    let suite = Suite::running(QUIET.0, QUIET.1);
    run("paging.py", &[&suite.path("run")]);
}

#[test]
fn a_plugin_of_2013_and_its_newer_words_are_understood() {
    let suite = Suite::running(QUIET.0, QUIET.1);
    run("plugin.py", &[&suite.path("run")]);
}

#[test]
fn peers_that_send_heartbeats_stay_connected() {
    let suite = Suite::running(QUIET.0, QUIET.1);
    run("heartbeats.py", &[&suite.path("run")]);
}

#[test]
fn dealers_ask_many_questions_at_once() {
    let suite = Suite::running(QUIET.0, QUIET.1);
    run("dealer.py", &[&suite.path("run")]);
}

/// A second ccollectd, under another name and in another folder, whose feed the suite's cprocessd follows too.
fn another_host(suite: &Suite, host: &str) -> Process {
    let (run, state) = (suite.path(&format!("run-{host}")), suite.path(&format!("state/{host}")));
    let config = suite.path(&format!("etc/{host}.toml"));
    let text = format!("host = '{host}'\nrun_dir = '{}'\nstate_dir = '{}'\n", run.display(), state.display());
    fs::write(&config, text).expect("written");
    let log = fs::File::create(suite.path(&format!("log/{host}.log"))).expect("log");
    let mut command = Command::new(binaries().join("ccollectd"));
    Process::start(command.arg("--config").arg(config).stdin(Stdio::null()).stderr(log))
}

#[test]
fn subscribers_get_what_they_asked_for_and_notice_what_they_missed() {
    let mut suite = Suite::new("", "");
    suite.host = "web1".to_owned();
    suite.configure("ccollectd", "");
    let feeds = format!(
        "default_rules = false\nfeeds = ['{}', '{}']\n",
        suite.path("run/feed").display(),
        suite.path("run-web10/feed").display()
    );
    suite.configure("cprocessd", &feeds);
    let _web10 = another_host(&suite, "web10");
    suite.start("ccollectd");
    suite.start("cprocessd");
    suite.wait_for_host();
    run("stream.py", &[&suite.path("run"), &suite.path("run-web10")]);
}

/// The Rust crate `zeromq`, with a deadline for everything.
fn with_zeromq<F: Future<Output = ()>>(peer: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async { tokio::time::timeout(SCRIPT_PATIENCE, peer).await.expect("in time") });
}

async fn connected<S: Socket>(suite: &Suite, name: &str) -> S {
    let mut socket = S::new();
    socket.connect(&format!("ipc://{}", suite.path("run").join(name).display())).await.expect("connected");
    socket
}

/// The only frame of the reply to the only frame of a question.
async fn exchange(socket: &mut ReqSocket, question: Vec<u8>) -> Vec<u8> {
    socket.send(ZmqMessage::from(question)).await.expect("sent");
    let reply = socket.recv().await.expect("a reply");
    assert_eq!(reply.len(), 1);
    reply.get(0).expect("a frame").to_vec()
}

fn packed(message: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(message).expect("JSON is MessagePack")
}

#[test]
fn the_crate_zeromq_asks_in_both_formats() {
    let suite = Suite::running(QUIET.0, QUIET.1);
    let questions = [
        ("query", "server-list", "0"),
        ("query", "health", "daemon"),
        ("feed-query", "snapshot", "hosts"),
        ("cprocessd.sock", "health", "daemon"),
        ("ccollectd.sock", "health", "daemon"),
    ];
    with_zeromq(async {
        for (name, question, field) in questions {
            let mut socket: ReqSocket = connected(&suite, name).await;
            let question = json!({ "query": question });
            let packed: Value =
                rmp_serde::from_slice(&exchange(&mut socket, packed(&question)).await).expect("MessagePack");
            let text = exchange(&mut socket, question.to_string().into_bytes()).await;
            let text: Value = serde_json::from_slice(&text).expect("JSON");
            for reply in [packed, text] {
                assert_eq!(reply["ok"], true, "{reply}");
                let data = &reply["data"];
                assert!(data.get(field).or_else(|| data.get(0)).is_some(), "{name} {question}: {reply}");
            }
            let refused = exchange(&mut socket, b"\xff".to_vec()).await;
            let refused: Value = rmp_serde::from_slice(&refused).expect("MessagePack");
            assert_eq!(refused["error"]["code"], "undecodable");
        }
    });
}

/// The next message: its topic and its payload.
async fn heard(socket: &mut SubSocket) -> (String, Value) {
    let frames = socket.recv().await.expect("a message").into_vec();
    let [topic, payload] = frames.as_slice() else { panic!("{} frames", frames.len()) };
    (String::from_utf8(topic.to_vec()).expect("text"), rmp_serde::from_slice(payload).expect("MessagePack"))
}

#[test]
fn the_crate_zeromq_pushes_a_report_and_hears_what_became_of_it() {
    let suite = Suite::running(QUIET.0, QUIET.1);
    with_zeromq(async {
        let mut stream: SubSocket = connected(&suite, "stream").await;
        for prefix in ["event.ERR.testhost!", "event.CRIT.", "beat."] {
            stream.subscribe(prefix).await.expect("subscribed");
        }
        let (topic, first) = heard(&mut stream).await;
        assert_eq!(topic, "beat.");
        let mut plugins: zeromq::PushSocket = connected(&suite, "plugins").await;
        for (unit, severity) in [("quiet", "INFO"), ("loud", "CRIT")] {
            let event = json!({ "service": "app", "unit": unit, "msg_type": "event", "severity": severity });
            plugins.send(ZmqMessage::from(packed(&event))).await.expect("sent");
        }
        // The form of 2013.
        let down = json!({ "service": "nginx", "msg_type": "down", "unit": "all", "initial": true });
        plugins.send(ZmqMessage::from(packed(&down))).await.expect("sent");
        let mut events = Vec::new();
        let mut beats = 0;
        // Past the daemons' own heartbeat of 5 s: this peer speaks ZMTP 3.0, which has none, and must be left alone.
        while events.len() < 2 || beats < 8 {
            let (topic, message) = heard(&mut stream).await;
            if topic == "beat." {
                beats += 1;
                assert_eq!(message["epoch"], first["epoch"]);
            } else {
                events.push((topic, message));
            }
        }
        let topics: Vec<&str> = events.iter().map(|(topic, _)| topic.as_str()).collect();
        assert_eq!(topics, ["event.CRIT.testhost!", "event.ERR.testhost!"]);
        let down = &events[1].1;
        assert_eq!((&down["address"], &down["state"]), (&json!("testhost!nginx:all"), &json!("down")));
    });
}

#[test]
fn the_three_small_programs_of_deploy_examples_work() {
    let suite = Suite::running(QUIET.0, QUIET.1);
    let example = |name: &str| {
        let path = repository().join("deploy/examples").join(name);
        let lines = fs::read_to_string(&path).expect("an example").lines().count();
        assert!(lines <= 10, "{name} has {lines} lines, but must have at most 10");
        let mut command = Command::new(python());
        command.arg(path).arg(suite.path("run"));
        command
    };
    let seen = suite.path("seen");
    let log = fs::File::create(&seen).expect("a file");
    let _watch = Process::start(example("watch.py").args(["event.ERR.", "beat."]).stdout(log));
    let seen = || fs::read_to_string(&seen).expect("a file");
    wait_for("watch.py is connected", || seen().starts_with("beat. {").then_some(()));

    let pushed = example("plugin.py").args(["backup", "nightly", "down", "90000000"]).output().expect("it runs");
    assert!(pushed.status.success(), "{pushed:?}");
    let event = wait_for("watch.py prints the event", || {
        seen().lines().find_map(|line| Some(line.strip_prefix("event.ERR.testhost! ")?.to_owned()))
    });
    let event: Value = serde_json::from_str(&event).expect("JSON");
    assert_eq!((&event["address"], &event["kind"]), (&json!("testhost!backup:nightly"), &json!("down")));

    let asked = example("ask.py").arg(r#"{"query": "down-list"}"#).output().expect("it runs");
    let reply: Value = serde_json::from_slice(&asked.stdout).expect("JSON");
    assert_eq!(reply["data"][0]["incident"], event["incident"]);
}

fn protocol() -> String {
    fs::read_to_string(repository().join("PROTOCOL.md")).expect("PROTOCOL.md")
}

/// The fenced blocks of PROTOCOL.md: what follows the language in the opening line, and the content.
fn blocks(language: &str) -> Vec<(String, String)> {
    let text = protocol();
    let parts: Vec<&str> = text.split("\n```").collect();
    let fenced = parts.iter().skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    let of_language = fenced.filter_map(|(opening, content)| {
        let (this, name) = opening.split_once(' ')?;
        (this == language).then(|| (name.to_owned(), content.to_owned()))
    });
    of_language.collect()
}

/// The example as JSON, after a way through the type that the daemons use.
fn through<T: serde::Serialize + serde::de::DeserializeOwned>(example: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(example.clone())?)
}

/// A message of the feed or the stream by its name in PROTOCOL.md.
fn message_through(name: &str, example: &Value) -> Result<Value, serde_json::Error> {
    match name {
        "sample" => through::<message::Sample>(example),
        "check" => through::<message::Check>(example),
        "log" => through::<message::LogEvent>(example),
        "alive" => through::<message::Alive>(example),
        "beat" => through::<message::Beat>(example),
        "event" => through::<message::Event>(example),
        "request" => through::<message::Request>(example),
        "refusal" => through::<message::Reply>(example),
        "server-list" => through::<Vec<message::ServerRow>>(example),
        "server-status" => through::<message::ServerStatus>(example),
        "service-list" => through::<Vec<message::ServiceRow>>(example),
        "down-list" => through::<Vec<message::DownRow>>(example),
        "last-value" => through::<Vec<message::ValueRow>>(example),
        "alarm-list" => through::<Vec<message::AlarmRow>>(example),
        "health" => through::<message::Health>(example),
        "snapshot" => through::<message::StreamSnapshot>(example),
        "feed-snapshot" => through::<message::FeedSnapshot>(example),
        "events" => through::<message::EventsPage<Value>>(example),
        "ledger" => through::<Vec<message::LedgerRow>>(example),
        "silence-list" => through::<Vec<message::SilenceRow>>(example),
        "maintenance-list" => through::<Vec<message::MaintenanceRow>>(example),
        "subscriber-list" => through::<Vec<message::SubscriberRow>>(example),
        "explain" => through::<message::Explanation>(example),
        "forget" | "ordered" => through::<message::Ordered>(example),
        // Only ever read by us.
        "plugin" => serde_json::from_value::<message::PluginMessage>(example.clone()).map(|_| example.clone()),
        other => panic!("PROTOCOL.md has an example {other:?} that no test knows"),
    }
}

#[test]
fn each_example_of_the_protocol_is_what_the_daemons_say() {
    let mut seen = BTreeSet::new();
    for (name, content) in blocks("json") {
        for example in serde_json::Deserializer::from_str(&content).into_iter::<Value>() {
            let example = example.unwrap_or_else(|error| panic!("{name}: {error} in {content}"));
            let read = message_through(&name, &example).unwrap_or_else(|error| panic!("{name}: {error} in {example}"));
            assert_eq!(read, example, "{name} has a field that is not, or lacks one");
        }
        seen.insert(name);
    }
    // Real bytes, each with the JSON that they mean.
    for (name, content) in blocks("hex") {
        let digits: String = content.split_whitespace().collect();
        let bytes: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).expect("hexadecimal digits"))
            .collect();
        let value = rmpv::decode::read_value(&mut bytes.as_slice()).expect("MessagePack");
        let value = common::query::to_json(value);
        message_through(&name, &value).unwrap_or_else(|error| panic!("{name}: {error} in {value}"));
        let meant = blocks("json").into_iter().filter(|(other, _)| *other == name);
        let meant: Vec<Value> = meant.filter_map(|(_, content)| serde_json::from_str(&content).ok()).collect();
        assert!(meant.contains(&value), "{name}: these bytes are {value}, which no example shows");
        seen.insert(format!("hex {name}"));
    }
    let needed = "sample check log alive beat event plugin request refusal server-list server-status service-list \
                  down-list last-value alarm-list events snapshot feed-snapshot health silence-list maintenance-list \
                  subscriber-list explain ordered forget ledger";
    for name in needed.split_whitespace().chain(["hex beat", "hex plugin", "hex request"]) {
        assert!(seen.contains(name), "PROTOCOL.md has no example of {name}");
    }
}

/// Every name on the wire that the code of the messages defines: fields, and the words of the enums.
fn words_of_the_messages() -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for file in ["feed.rs", "plugin.rs", "request.rs", "stream.rs"] {
        let text = fs::read_to_string(repository().join("common/src/message").join(file)).expect("source");
        let mut variants = false;
        for line in text.lines() {
            let code = line.trim();
            if line.starts_with("pub enum ") {
                variants = true;
            } else if line == "}" {
                variants = false;
            } else if let Some((name, _)) = code.strip_prefix("pub ").and_then(|rest| rest.split_once(": ")) {
                if !name.contains(' ') {
                    words.insert(name.to_owned());
                }
            } else if variants
                && let Some((name, _)) = line.strip_prefix("        ").and_then(|rest| rest.split_once(": "))
            {
                // A field of a variant.
                if name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                    words.insert(name.to_owned());
                }
            } else if variants && let Some(name) = code.strip_suffix([',', '{']) {
                let name = name.trim();
                if name.chars().all(char::is_alphabetic) && name.starts_with(char::is_uppercase) {
                    words.insert(kebab(name));
                }
            }
        }
    }
    // The messages' own structure, not names on the wire.
    for inner in ["report", "other"] {
        words.remove(inner);
    }
    words
}

/// The lines of the blocks ```` ```text NAME ```` of a document.
fn lines_of(document: &str, name: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join(document)).expect("a document");
    let opening = format!("```text {name}\n");
    let blocks = text.split(&opening).skip(1).map(|rest| rest.split_once("```").expect("the end of a block").0);
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

#[test]
fn each_rule_and_order_of_the_documents_is_one() {
    for document in ["PROTOCOL.md", "README.md"] {
        let rules = lines_of(document, "rules");
        assert!(rules.len() >= 5, "{document} has {rules:?}");
        for rule in rules {
            Rule::parse("r", &rule).unwrap_or_else(|error| panic!("{document}: {rule}: {error}"));
        }
    }
    let text = protocol();
    for name in Ordered::NAMES {
        assert!(text.contains(&format!("| `{name}`")) || text.contains(&format!(", `{name}` |")), "{name}");
    }
    for name in RESERVED {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
}

fn kebab(name: &str) -> String {
    let mut word = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.extend(c.to_lowercase());
    }
    word
}

/// The reasons in the counters of `health`, as the code names them.
fn reasons() -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    for folder in ["common/src", "ccollectd/src", "cprocessd/src", "cmaild/src", "cbotd/src", "csmsd/src", "cwebd/src"]
    {
        let mut folders = vec![repository().join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                    let text = fs::read_to_string(path).expect("source");
                    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                    reasons.extend(code.lines().filter_map(reason_in));
                }
            }
        }
    }
    reasons
}

fn reason_in(line: &str) -> Option<String> {
    let after = |marker: &str| line.split_once(marker).map(|(_, rest)| rest);
    let argument = after("counters.count(").or_else(|| after("counters.add(")).and_then(|args| args.split_once(", "));
    let literal = match argument {
        Some((_, second)) => second.strip_prefix('"')?,
        None => ["Refused(\"", "mended.push((\""].into_iter().find_map(after).or_else(|| {
            let (variant, reason) = line.split_once(" => \"")?;
            variant.contains("Refusal::").then_some(reason)
        })?,
    };
    let (reason, _) = literal.split_once('"')?;
    Some(reason.to_owned())
}

#[test]
fn the_protocol_names_every_field_word_and_counter_of_the_code() {
    let text = protocol();
    let named = |word: &str| [format!("`{word}`"), format!("\"{word}\"")].iter().any(|quoted| text.contains(quoted));
    let words = words_of_the_messages();
    assert!(words.len() >= 85 && words.contains("head_seq") && words.contains("page-expired"), "{words:?}");
    let missing: Vec<&String> = words.iter().filter(|word| !named(word)).collect();
    assert!(missing.is_empty(), "PROTOCOL.md does not name {missing:?}");

    let mut reasons = reasons();
    // These two are not counted under a literal.
    reasons.extend(["handshake_failed", "peer_dropped"].map(str::to_owned));
    assert!(reasons.len() >= 19 && reasons.contains("too_many_units"), "{reasons:?}");
    let missing: Vec<&String> = reasons.iter().filter(|reason| !text.contains(&format!(".{reason}`"))).collect();
    assert!(missing.is_empty(), "PROTOCOL.md does not name the counters {missing:?}");
}

/// Every key of every map in an answer, but those that are data.
fn fields(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| fields(item, into)),
        Value::Object(map) => {
            for (key, inner) in map {
                into.insert(key.clone());
                if !["values", "counters", "nth", "data"].contains(&key.as_str()) || inner.is_array() {
                    fields(inner, into);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_protocol_names_every_question_and_every_field_of_real_answers() {
    let target = Target::new();
    let port = format!("[[port]]\nname = \"www\"\naddress = \"127.0.0.1:{}\"\ninterval = \"200ms\"\n", target.port);
    let suite = Suite::running(&port, "");
    let mut plugin = Plugin::connect(&suite);
    plugin.state("down", "unit", common::time::UnixMillis::now().0);
    // So that no list is empty.
    wait_for("a port, an outage and a number", || {
        let status = suite.query(r#"{"query":"server-status","host":"testhost"}"#)?;
        let is_there = |list: &str, n: usize| status[list].as_array().is_some_and(|rows| rows.len() >= n);
        (is_there("services", 2) && is_there("incidents", 1) && is_there("values", 1)).then_some(())
    });
    let text = protocol();
    let asked = [
        ("query", "server-list", ""),
        ("query", "server-status", r#","host":"testhost""#),
        ("query", "service-list", ""),
        ("query", "down-list", ""),
        ("query", "last-value", r#","pattern":"*!machine""#),
        ("query", "alarm-list", ""),
        ("query", "silence-list", ""),
        ("query", "maintenance-list", ""),
        ("query", "subscriber-list", ""),
        ("query", "explain", r#","pattern":"testhost!drill:unit""#),
        ("query", "events", r#","after":0"#),
        ("query", "snapshot", ""),
        ("query", "health", ""),
        ("feed-query", "events", r#","after":0"#),
        ("feed-query", "snapshot", ""),
        ("feed-query", "health", ""),
    ];
    let mut names = BTreeSet::new();
    for (socket, question, arguments) in asked {
        assert!(text.contains(&format!("`{question}`")), "{question}");
        let answer = wait_for(question, || suite.ask(socket, &format!(r#"{{"query":"{question}"{arguments}}}"#)));
        fields(&answer, &mut names);
    }
    assert!(names.len() > 50, "{names:?}");
    let missing: Vec<&String> = names.iter().filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "PROTOCOL.md does not name {missing:?}");

    // What an unknown question is told is the list of those there are.
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let refusal = runtime.block_on(async {
        let mut requester = common::socket::Requester::new(&suite.path("run/query"));
        common::query::ask(&mut requester, &message::Request::query("?"), Duration::from_secs(5)).await
    });
    let Err(common::query::AskError::Refused(refusal)) = refusal else { panic!("{refusal:?}") };
    let (_, questions) = refusal.message.split_once("only ").expect("the list");
    let known: BTreeSet<&str> =
        asked.iter().filter(|(socket, ..)| *socket == "query").map(|(_, name, _)| *name).collect();
    assert_eq!(questions.split(", ").collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_worked_example_of_ids_is_right() {
    run("ids.py", &[&repository().join("PROTOCOL.md")]);
}
