//! csmsd's requests against what the providers publish: Twilio's OpenAPI, served by prism, and the official Python SDKs.
//! Slow to install, so `tests/contracts/run` does that and runs these.

use common::time::UnixMillis;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use tests::servers::free_port;
use tests::{PATIENCE, Plugin, Process, Suite, repository, wait_for};

const NUMBER: &str = "+4912345678";
const TOKEN: &str = "t0ken";
const FROM: &str = "+12025550100";

/// Where `tests/contracts/run` installed what is needed.
fn contracts() -> PathBuf {
    std::env::var_os("CAIRN_CONTRACTS").expect("tests/contracts/run says where").into()
}

fn suite(providers: &str, recipients: &str) -> Suite {
    let mut suite = Suite::new("", "");
    let token = suite.path("etc/token");
    fs::write(&token, TOKEN).expect("written");
    let providers = providers.replace("TOKEN", &token.display().to_string());
    suite.configure("csmsd", &format!("{providers}{recipients}"));
    for daemon in ["ccollectd", "cprocessd", "csmsd"] {
        suite.start(daemon);
    }
    suite.wait_for_host();
    wait_for("csmsd answers", || suite.ask("csmsd.sock", r#"{"query":"health"}"#));
    suite
}

/// Something CRIT with this text, said by a plugin that has to live until it is heard.
#[must_use]
fn happens(suite: &Suite, text: &str) -> Plugin {
    let time = UnixMillis::now().0;
    let report = json!({ "service": "note", "msg_type": "event", "unit": "contract", "severity": "CRIT", "text": text,
        "time": time });
    let mut plugin = Plugin::connect(suite);
    plugin.push(&report);
    plugin
}

/// The first result in the ledger of this recipient that says something.
#[track_caller]
fn result(suite: &Suite, who: &str) -> String {
    wait_for(&format!("a result of {who}"), || {
        let rows = suite.ask("csmsd.sock", r#"{"query":"ledger"}"#)?;
        let row = rows.as_array()?.iter().find(|row| row["who"] == who && row["result"] != "")?;
        Some(row["result"].as_str()?.to_owned())
    })
}

#[test]
#[ignore = "needs what tests/contracts/run installs"]
fn twilios_own_description_accepts_what_the_preset_sends() {
    let port = free_port();
    let mut command = Command::new(contracts().join("node_modules/.bin/prism"));
    command.args(["mock", "--host", "127.0.0.1", "-p", &port.to_string()]);
    command.arg(contracts().join("package/twilio-oai/spec/json/twilio_api_v2010.json"));
    let _prism = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    wait_for("prism listens", || TcpStream::connect(("127.0.0.1", port)).ok());

    let url = format!("http://127.0.0.1:{port}");
    let account = "AC0123456789abcdef0123456789abcdef";
    let path = format!("/2010-04-01/Accounts/{account}/Messages.json");
    let own = |name: &str, request: &str| {
        format!("[[provider]]\nname='{name}'\nurl='{url}'\n[provider.request]\npath='{path}'\n{request}\n")
    };
    let providers = format!(
        "[[provider]]\nname='preset'\npreset='twilio'\nurl='{url}'\naccount='{account}'\nfrom='{FROM}'\ntoken_file='TOKEN'\n\
         {}{}",
        own("no-to", "basic={user='u',password='p'}\nform={From='+1',Body='{text}'}\naccepted={status=[201]}"),
        own("no-auth", "form={To='{to}',From='+1',Body='{text}'}\naccepted={status=[201]}"),
    );
    let recipients = ["preset", "no-to", "no-auth"]
        .map(|name| format!("[[recipient]]\nname='{name}'\nto='{NUMBER}'\nproviders=['{name}']\n"));
    let suite = suite(&providers, &recipients.concat());
    let _plugin = happens(&suite, "Größe 😀");
    let accepted = result(&suite, "preset");
    assert!(accepted.starts_with("preset took it for +4912…78"), "{accepted}");
    let broken = result(&suite, "no-to");
    assert!(broken.contains("no-to refuses it: 422"), "{broken}");
    let unknown = result(&suite, "no-auth");
    assert!(unknown.contains("no-auth refuses us: 401"), "{unknown}");
}

/// An HTTP request as far as a provider looks at it, in the form of `capture.py`.
fn described(request: &str, host: &str) -> Value {
    let (head, body) = request.split_once("\r\n\r\n").expect("a body");
    let mut lines = head.lines();
    let mut start = lines.next().expect("a request").split(' ');
    let (method, target) = (start.next().expect("a method"), start.next().expect("a target"));
    let headers: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once(": ")).collect();
    let content_type = headers["content-type"];
    let fields = match content_type {
        "application/json" => serde_json::from_str(body).expect("JSON"),
        _ => form(body),
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    json!({ "method": method, "host": host, "path": path, "query": query, "authorization": headers["authorization"],
        "content_type": content_type, "fields": fields })
}

/// application/x-www-form-urlencoded, decoded by another than csmsd's own encoder.
fn form(body: &str) -> Value {
    let script = "import json,sys,urllib.parse as u; print(json.dumps(dict(u.parse_qsl(sys.stdin.read()))))";
    serde_json::from_str(&python(&["-c", script], body)).expect("JSON")
}

fn python(args: &[&str], input: &str) -> String {
    let mut command = Command::new(contracts().join("venv/bin/python"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("python runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{args:?} with {input}");
    String::from_utf8(output.stdout).expect("text")
}

/// Takes requests, passes them on, and answers each with `answer`.
fn capture(answer: &str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (requests, captured) = channel();
    let answer = answer.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            let whole = loop {
                let text = String::from_utf8_lossy(&request).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() >= length.map_or(0, |length| length.parse().expect("a length")) {
                        break text;
                    }
                }
                let length = stream.read(&mut buffer).expect("a request");
                assert!(length > 0, "the request ends early");
                request.extend_from_slice(&buffer[..length]);
            };
            let _ = stream.write_all(answer.as_bytes());
            if requests.send(whole).is_err() {
                return;
            }
        }
    });
    (url, captured)
}

/// What Plivo's SDK adds to every request: that the text is kept in their log, and the method of a delivery report's URL
/// and a tracking that nobody asked for.
const DEFAULTS_OF_PLIVOS_SDK: [&str; 3] = ["log", "method", "trackable"];

/// One text by csmsd and the same one by the provider's SDK: one request.
#[track_caller]
fn agrees(preset: &str, account: &str, status: &str, body: &str, alphabet: &str, text: &str) {
    let length = body.len();
    let (url, captured) = capture(&format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}"));
    let account_key = if account.is_empty() { String::new() } else { format!("account='{account}'\n") };
    let provider = format!(
        "[[provider]]\nname='main'\npreset='{preset}'\nurl='{url}'\nfrom='{FROM}'\ntoken_file='TOKEN'\n{account_key}"
    );
    let suite = suite(&provider, &format!("[[recipient]]\nname='ops'\nto='{NUMBER}'\n"));
    let _plugin = happens(&suite, text);
    let request = captured.recv_timeout(PATIENCE).expect("csmsd sends");
    let words = result(&suite, "ops");
    assert!(words.starts_with("main took it"), "{words}");

    let table = fs::read_to_string(repository().join(format!("csmsd/presets/{preset}.toml"))).expect("the preset");
    let host = table.lines().find_map(|line| line.strip_prefix("url = \"https://")).expect("its address");
    let ours = described(&request, host.trim_end_matches('"'));
    let find = |names: &[&str]| names.iter().find_map(|name| ours["fields"][name].as_str().map(str::to_owned));
    let said = find(&["Body", "text", "body"]).expect("the text is sent");
    assert!(said.contains(text), "{said}");
    let values = json!({ "provider": preset, "account": account, "token": TOKEN, "from": FROM, "to": NUMBER, "text": said,
        "id": find(&["client-ref", "reference", "client_reference"]).unwrap_or_default(), "alphabet": alphabet, "validity_secs": 3600 });
    let script = repository().join("tests/contracts/capture.py");
    let theirs = python(&[&script.display().to_string()], &values.to_string());
    let mut theirs: Value = serde_json::from_str(&theirs).expect("JSON");
    if preset == "plivo" {
        let fields = theirs["fields"].as_object_mut().expect("fields");
        fields.retain(|name, _| !DEFAULTS_OF_PLIVOS_SDK.contains(&name.as_str()));
    }
    assert_eq!(ours, theirs, "{preset}");
}

const PLAIN: (&str, &str) = ("gsm7", "Größe & = + %41");
const WIDE: (&str, &str) = ("ucs2", "привет 😀 & = + %41");

#[test]
#[ignore = "needs what tests/contracts/run installs"]
fn twilio_is_sent_what_its_sdk_sends() {
    for (alphabet, text) in [PLAIN, WIDE] {
        agrees("twilio", "AC0123456789abcdef0123456789abcdef", "201 Created", r#"{"sid":"SM1"}"#, alphabet, text);
    }
}

#[test]
#[ignore = "needs what tests/contracts/run installs"]
fn vonage_is_sent_what_its_sdk_sends() {
    for (alphabet, text) in [PLAIN, WIDE] {
        agrees("vonage", "abcd1234", "200 OK", r#"{"messages":[{"status":"0"}]}"#, alphabet, text);
    }
}

#[test]
#[ignore = "needs what tests/contracts/run installs"]
fn messagebird_is_sent_what_its_sdk_sends() {
    for (alphabet, text) in [PLAIN, WIDE] {
        agrees("messagebird", "", "201 Created", r#"{"id":"e8077d803532c0b5937c639b60216938"}"#, alphabet, text);
    }
}

#[test]
#[ignore = "needs what tests/contracts/run installs"]
fn plivo_is_sent_what_its_sdk_sends() {
    for (alphabet, text) in [PLAIN, WIDE] {
        agrees("plivo", "MA0123456789ABCDEF01", "202 Accepted", r#"{"message_uuid":["db3ce55a"]}"#, alphabet, text);
    }
}

#[test]
#[ignore = "needs what tests/contracts/run installs"]
fn sinch_is_sent_what_its_sdk_sends() {
    for (alphabet, text) in [PLAIN, WIDE] {
        agrees("sinch", "plan1", "201 Created", r#"{"id":"01FC66621XXXXX119Z8PMV1QPQ"}"#, alphabet, text);
    }
}
