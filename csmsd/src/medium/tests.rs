//! The medium against servers that are broken in one way each, and what push services are sent.

use super::*;
use crate::compose::Message;
use common::counters::Counters;
use common::severity::Severity;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

/// What a server does once it has read a request.
#[derive(Clone)]
enum Habit {
    /// Answers with these bytes.
    Says(String),
    /// Answers with these, one after the other, and the last one from then on.
    SaysInTurn(Vec<String>),
    /// Keeps the connection and says nothing.
    Silent,
    /// Closes the connection.
    HangsUp,
    /// Answers 200, and its body has no end.
    Endless,
}

struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(habit: Habit) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        thread::spawn(move || {
            for (nth, stream) in listener.incoming().enumerate() {
                let mut stream = stream.expect("a connection");
                let habit = match &habit {
                    Habit::SaysInTurn(answers) => Habit::Says(answers[nth.min(answers.len() - 1)].clone()),
                    other => other.clone(),
                };
                let Some(request) = read_request(&mut stream) else { continue };
                seen.lock().expect("no panic").push(request);
                thread::spawn(move || behave(stream, &habit));
            }
        });
        Self { url, requests }
    }

    fn says(status: &str, body: &str) -> Self {
        Self::new(Habit::Says(answer(status, body)))
    }

    fn says_in_turn(answers: &[(&str, &str)]) -> Self {
        Self::new(Habit::SaysInTurn(answers.iter().map(|(status, body)| answer(status, body)).collect()))
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").clone()
    }

    /// The body of the only request.
    #[track_caller]
    fn body(&self) -> String {
        let requests = self.requests();
        assert_eq!(requests.len(), 1);
        requests[0].split_once("\r\n\r\n").expect("a body").1.to_owned()
    }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Headers, and as much body as they announce.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().expect("a length")) {
                return Some(text);
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(length) => request.extend_from_slice(&buffer[..length]),
        }
    }
}

fn behave(mut stream: TcpStream, habit: &Habit) {
    match habit {
        Habit::Says(answer) => {
            let _ = stream.write_all(answer.as_bytes());
        }
        Habit::SaysInTurn(_) => unreachable!("one of them was taken"),
        Habit::Silent => {
            // Until the other side gives up.
            let _ = stream.read(&mut [0; 1]);
        }
        Habit::HangsUp => {
            let _ = stream.shutdown(Shutdown::Both);
        }
        Habit::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
            loop {
                match stream.write_all(chunk.as_bytes()) {
                    Ok(()) => (),
                    Err(error) if error.kind() == ErrorKind::Interrupted => (),
                    Err(_) => return,
                }
            }
        }
    }
}

const TOKEN: &str = "s3cr&t/tok n";

fn provider(name: &str, url: &str) -> String {
    format!(
        "[[provider]]\nname='{name}'\nurl='{url}'\ntoken_file='TOKEN'\n[provider.request]\nbearer='{{token}}'\n\
         form={{to='{{to}}',text='{{text}}',key='{{id}}'}}\naccepted={{status=[200],pointer='/ok',equals=['true']}}\n"
    )
}

fn preset(name: &str, rest: &str, url: &str) -> String {
    format!("[[provider]]\nname='{name}'\npreset='{name}'\nurl='{url}'\n{rest}\n")
}

/// Sends one text by this configuration.
async fn send_by(sms: &Sms, to: &Destination, text: &str) -> Outcome {
    let message = Message { severity: Severity::Crit, title: "CRIT DOWN web1".into(), text: text.into() };
    let id = MessageId::parse("11111111-2222-5333-8444-555555555555").expect("an id");
    sms.send(to, id, &serde_json::to_vec(&message).expect("JSON")).await
}

fn setup(providers: &[String], to: &str) -> (Sms, Destination) {
    common::trust::install_ring();
    let dir = tempfile::tempdir().expect("folder");
    let (path, token) = (dir.path().join("csmsd.toml"), dir.path().join("token"));
    std::fs::write(&token, TOKEN).expect("file");
    let providers = providers.concat().replace("TOKEN", &token.display().to_string());
    std::fs::write(&path, format!("host='m'\n{providers}[[recipient]]\nto='{to}'\n")).expect("file");
    let mut setup = crate::config::load(&path, &Counters::default()).unwrap_or_else(|error| panic!("{error}"));
    let mut lane = setup.lanes.remove(0);
    lane.medium.total_timeout = Duration::from_secs(2);
    lane.medium.receipts.first_pause = Duration::from_millis(20);
    (lane.medium, lane.recipients.remove(0).address)
}

async fn send(providers: &[String]) -> Outcome {
    let (sms, to) = setup(providers, "+4912345678");
    send_by(&sms, &to, "text").await
}

const FINE: &str = r#"{"ok":true}"#;

#[tokio::test]
async fn the_first_that_takes_it_is_the_only_one_asked() {
    let (one, two) = (Server::says("200 OK", FINE), Server::says("200 OK", FINE));
    let outcome = send(&[provider("one", &one.url), provider("two", &two.url)]).await;
    assert_eq!(outcome, Outcome::Sent("one took it for +4912…78".to_owned()));
    assert_eq!(one.body(), "key=11111111-2222-5333-8444-555555555555&text=text&to=%2B4912345678");
    assert_eq!(two.requests().len(), 0);
}

#[tokio::test]
async fn a_definite_no_leads_to_the_next_one() {
    for status in ["500 Broken", "503 Busy", "401 Who", "403 No", "404 What", "400 Bad", "429 Slow"] {
        let (one, two) = (Server::says(status, "no"), Server::says("200 OK", FINE));
        let outcome = send(&[provider("one", &one.url), provider("two", &two.url)]).await;
        let Outcome::Sent(words) = outcome else { panic!("{status}: {outcome:?}") };
        assert!(words.starts_with("two took it for +4912…78 after one "), "{words}");
        assert!(two.body().contains("text=text&"), "{status}: {}", two.body());
    }
}

#[tokio::test]
async fn nobody_there_is_known_at_once_and_nothing_was_accepted() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address").port();
    let outcome = send(&[provider("one", &format!("http://127.0.0.1:{port}"))]).await;
    let Outcome::Retry { why, scope: Scope::Lane, maybe_accepted: false, after: None } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(why.contains("one is away: cannot connect") && why.contains("refused"), "{why}");
}

#[tokio::test]
async fn all_say_never_is_never_and_otherwise_it_is_tried_again() {
    let (one, two) = (Server::says("400 Bad", "no such number +4912345678"), Server::says("422 Bad", ""));
    let outcome = send(&[provider("one", &one.url), provider("two", &two.url)]).await;
    let why = "to +4912…78: one refuses it: 400 no such number +4912…78; two refuses it: 422";
    assert_eq!(outcome, Outcome::Never(why.to_owned()));
    let three = Server::says("401 Who", "");
    let outcome = send(&[provider("one", &one.url), provider("three", &three.url)]).await;
    // The first works for others: they are not held up.
    assert!(matches!(outcome, Outcome::Retry { scope: Scope::Recipient, maybe_accepted: false, .. }), "{outcome:?}");
    let outcome = send(&[provider("three", &three.url)]).await;
    assert!(matches!(outcome, Outcome::Retry { scope: Scope::Lane, maybe_accepted: false, .. }), "{outcome:?}");
}

#[tokio::test]
async fn one_who_does_not_answer_may_have_it_so_the_next_text_says_so() {
    for habit in [Habit::Silent, Habit::HangsUp, Habit::Endless] {
        let (one, two) = (Server::new(habit), Server::says("200 OK", FINE));
        let started = Instant::now();
        let outcome = send(&[provider("one", &one.url), provider("two", &two.url)]).await;
        let Outcome::Sent(words) = outcome else { panic!("{outcome:?}") };
        assert!(words.contains("after one may have taken it"), "{words}");
        assert!(two.body().contains("text=%28again%3F%29+text&"), "{}", two.body());
        assert!(started.elapsed() < Duration::from_secs(5));
        let alone = send(&[provider("one", &one.url)]).await;
        assert!(matches!(alone, Outcome::Retry { maybe_accepted: true, .. }), "{alone:?}");
    }
}

#[tokio::test]
async fn of_an_endless_answer_little_is_read_and_it_is_counted() {
    let (sms, to) = setup(&[provider("one", &Server::new(Habit::Endless).url)], "+4912345678");
    send_by(&sms, &to, "text").await;
    assert_eq!(sms.providers[0].counters.snapshot(), [("sms.answer_too_large".to_owned(), 1)].into());
}

#[tokio::test]
async fn a_text_that_is_marked_already_is_not_marked_twice() {
    let (one, two) = (Server::new(Habit::HangsUp), Server::says("200 OK", FINE));
    let (sms, to) = setup(&[provider("one", &one.url), provider("two", &two.url)], "+4912345678");
    send_by(&sms, &to, "(again) text").await;
    assert!(two.body().contains("text=%28again%29+text&"), "{}", two.body());
}

#[tokio::test]
async fn who_asks_for_patience_gets_it() {
    let answer = "HTTP/1.1 429 Slow\r\nretry-after: 17\r\ncontent-length: 0\r\n\r\n";
    let busy = Server::new(Habit::Says(answer.to_owned()));
    let outcome = send(&[provider("one", &busy.url)]).await;
    let after = Some(Duration::from_secs(17));
    assert!(matches!(&outcome, Outcome::Retry { after: a, maybe_accepted: false, .. } if *a == after), "{outcome:?}");
    // Another that is only broken may be asked earlier.
    let broken = Server::says("500 Broken", "");
    let outcome = send(&[provider("one", &busy.url), provider("two", &broken.url)]).await;
    assert!(matches!(outcome, Outcome::Retry { after: None, .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::says("200 OK", FINE);
    let answer = format!("HTTP/1.1 307 There\r\nlocation: {}/\r\ncontent-length: 0\r\n\r\n", elsewhere.url);
    let (sms, to) = setup(&[provider("one", &Server::new(Habit::Says(answer)).url)], "+4912345678");
    let outcome = send_by(&sms, &to, "text").await;
    let Outcome::Retry { why, maybe_accepted: false, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("one refuses us: 307, a redirect"), "{why}");
    assert_eq!(sms.providers[0].counters.snapshot(), [("sms.redirect".to_owned(), 1)].into());
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn who_failed_just_now_is_asked_last() {
    let (one, two) = (Server::says("500 Broken", ""), Server::says("200 OK", FINE));
    let (sms, to) = setup(&[provider("one", &one.url), provider("two", &two.url)], "+4912345678");
    for _ in 0..3 {
        assert!(matches!(send_by(&sms, &to, "text").await, Outcome::Sent(_)));
    }
    assert_eq!((one.requests().len(), two.requests().len()), (1, 3));
}

#[tokio::test]
async fn a_token_that_the_provider_quotes_is_not_repeated() {
    let quoted = format!("bad token {TOKEN} for +4912345678, 4912345678, s3cr%26t%2Ftok+n");
    let one = Server::says("401 Who", &quoted);
    let outcome = format!("{:?}", send(&[provider("one", &one.url)]).await);
    assert!(outcome.contains("bad token *** for +4912…78, 49123…78, ***"), "{outcome}");
}

#[tokio::test]
async fn errors_do_not_show_the_url_with_its_password() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address").port();
    for url in [format!("http://127.0.0.1:{port}"), Server::new(Habit::HangsUp).url] {
        let kannel = preset("kannel", "account='a'\nfrom='1'\ntoken_file='TOKEN'", &url);
        let outcome = format!("{:?}", send(&[kannel]).await);
        assert!(outcome.contains("kannel") && !outcome.contains("s3cr"), "{outcome}");
    }
}

#[tokio::test]
async fn ntfy_gets_what_it_documents() {
    let server = Server::says("200 OK", r#"{"id":"sPs71M8A2T","event":"message"}"#);
    let (sms, to) = setup(&[preset("ntfy", "token_file='TOKEN'", &server.url)], "ops-topic");
    let outcome = send_by(&sms, &to, "gone – really").await;
    assert_eq!(outcome, Outcome::Sent("ntfy took it for ops-t…ic as sPs71M8A2T".to_owned()));
    let request = server.requests().remove(0);
    assert!(request.starts_with("POST / HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("authorization: Bearer {TOKEN}\r\n")), "{request}");
    let body: Value = serde_json::from_str(&server.body()).expect("JSON");
    let expected =
        json!({ "topic": "ops-topic", "title": "CRIT DOWN web1", "message": "gone – really", "priority": 5 });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn gotify_gets_what_it_documents() {
    let server = Server::says("200 OK", r#"{"id":25,"appid":5}"#);
    let (sms, to) = setup(&[preset("gotify", "token_file='TOKEN'", &format!("{}/push/", server.url))], "me");
    assert!(matches!(send_by(&sms, &to, "gone").await, Outcome::Sent(words) if words.ends_with(" as 25")));
    let request = server.requests().remove(0);
    assert!(request.starts_with("POST /push/message HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("x-gotify-key: {TOKEN}\r\n")), "{request}");
    let body: Value = serde_json::from_str(&server.body()).expect("JSON");
    assert_eq!(body, json!({ "title": "CRIT DOWN web1", "message": "gone", "priority": 10 }));
}

#[tokio::test]
async fn pushover_gets_what_it_documents() {
    let server = Server::says("200 OK", r#"{"status":1,"request":"647d2300"}"#);
    let (sms, to) = setup(&[preset("pushover", "token_file='TOKEN'", &server.url)], "uQiRzpo4DXghDmr9QzzfQu27cmVRsG");
    assert!(matches!(send_by(&sms, &to, "gone").await, Outcome::Sent(words) if words.ends_with(" as 647d2300")));
    let request = server.requests().remove(0);
    assert!(request.starts_with("POST /1/messages.json HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"), "{request}");
    // Priority 2 demands retry and expire.
    let expected = "expire=3600&message=gone&priority=2&retry=60&title=CRIT+DOWN+web1&token=s3cr%26t%2Ftok+n\
                    &user=uQiRzpo4DXghDmr9QzzfQu27cmVRsG";
    assert_eq!(server.body(), expected);
}

#[tokio::test]
async fn an_emergency_is_asked_after_until_somebody_has_acknowledged_it() {
    let server = Server::says_in_turn(&[
        ("200 OK", r#"{"status":1,"request":"647d2300","receipt":"r4bc"}"#),
        ("500 Broken", ""),
        ("200 OK", r#"{"status":1,"acknowledged":0,"acknowledged_by_device":"","expired":0}"#),
        ("200 OK", r#"{"status":1,"acknowledged":1,"acknowledged_by_device":"phone","expired":0}"#),
    ]);
    let (sms, to) = setup(&[preset("pushover", "token_file='TOKEN'", &server.url)], "uQiRzpo4DXghDmr9QzzfQu27cmVRsG");
    send_by(&sms, &to, "gone").await;
    let id = MessageId::parse("11111111-2222-5333-8444-555555555555").expect("an id");
    assert_eq!(sms.noted().await, Note { id, words: "acknowledged by phone".to_owned() });
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    for request in &requests[1..] {
        assert!(request.starts_with("GET /1/receipts/r4bc.json?token=s3cr%26t%2Ftok+n HTTP/1.1\r\n"), "{request}");
    }
    assert_eq!(sms.providers[0].counters.snapshot(), [("sms.receipt_refused".to_owned(), 1)].into());
    // That is the end of it.
    assert!(tokio::time::timeout(Duration::from_millis(200), sms.noted()).await.is_err());
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_text_that_did_not_arrive_is_known_although_the_provider_took_it() {
    let server = Server::says_in_turn(&[
        ("201 Created", r#"{"sid":"SM1","status":"queued"}"#),
        ("200 OK", r#"{"sid":"SM1","status":"sent","error_message":null}"#),
        ("200 OK", r#"{"sid":"SM1","status":"undelivered","error_message":"no handset at +4912345678"}"#),
    ]);
    let twilio = preset("twilio", "account='AC1'\nfrom='+12025550100'\ntoken_file='TOKEN'", &server.url);
    let (sms, to) = setup(&[twilio], "+4912345678");
    send_by(&sms, &to, "gone").await;
    assert!(server.requests()[0].contains("ValidityPeriod=3600"), "{}", server.requests()[0]);
    assert_eq!(sms.noted().await.words, "not delivered: no handset at +4912…78");
    let request = server.requests().pop().expect("asked");
    assert!(request.starts_with("GET /2010-04-01/Accounts/AC1/Messages/SM1.json HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Basic "), "{request}");
    assert_eq!(sms.providers[0].counters.snapshot(), [("sms.not_delivered".to_owned(), 1)].into());
}

#[tokio::test]
async fn a_text_costs_what_those_take_who_may_have_it() {
    let priced = |name: &str, url: &str, price: &str| {
        provider(name, url).replace("[provider.request]", &format!("price={price}\n[provider.request]"))
    };
    let (mute, fine, broken) = (Server::new(Habit::HangsUp), Server::says("200 OK", FINE), Server::says("500 No", ""));
    let providers =
        [priced("one", &broken.url, "0.5"), priced("two", &mute.url, "0.02"), priced("three", &fine.url, "0.003")];
    let (sms, to) = setup(&providers, "+4912345678");
    let text = "a".repeat(155);
    let bytes = serde_json::to_vec(&Message { severity: Severity::Crit, title: String::new(), text: text.clone() });
    let bytes = bytes.expect("JSON");
    // The mark of a text that may be there already would make two of it.
    assert_eq!(sms.cost(&to, &bytes), 2 * 523_000);
    assert_eq!(to.dearest, 3 * 523_000);
    assert!(matches!(send_by(&sms, &to, &text).await, Outcome::Sent(_)));
    assert_eq!(sms.paid(), Some(20_000 + 2 * 3_000));
    assert!(matches!(send_by(&sms, &to, &text).await, Outcome::Sent(_)));
    // Those who failed just now are asked last.
    assert_eq!(sms.paid(), Some(3_000));
}

#[tokio::test]
async fn the_heartbeat_is_a_plain_request_while_all_beat() {
    let server = Server::says("200 OK", "");
    common::trust::install_ring();
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("csmsd.toml");
    std::fs::write(dir.path().join("url"), format!("{}/ping/s3cret?status=up\n", server.url)).expect("file");
    std::fs::write(&path, "host='m'\n[heartbeat]\nurl_file='url'\nevery='10s'\n").expect("file");
    let setup = crate::config::load(&path, &Counters::default()).unwrap_or_else(|error| panic!("{error}"));
    let lane = setup.lanes.last().expect("a lane");
    assert_eq!((lane.name.as_str(), lane.recipients.len()), ("heartbeat", 0));
    assert!(!format!("{:?}{}", lane.medium, lane.fingerprint).contains("s3cret"));
    lane.medium.alive(false);
    lane.medium.alive(true);
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.requests().is_empty() {
        assert!(Instant::now() < deadline, "it is not called");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(server.requests()[0].starts_with("GET /ping/s3cret?status=up HTTP/1.1\r\n"), "{}", server.requests()[0]);
}
