//! Asks cprocessd what people want to know, and takes their orders there: the shell beside a connection.
//!
//! Every publisher is asked, and what they answer is put together: of redundant ones that is the same twice, of sharded ones
//! each has its own hosts. An order goes to all of them under one id, by which those that share their orders carry it out
//! once.

use crate::answer::{Answer, badness, merged};
use crate::command::{Order, Question, Target};
use crate::session::{Asked, Requested};
use common::counters::Counters;
use common::message::{
    AlarmRow, DownRow, ErrorCode, Explanation, Ordered, Request, ServerRow, ServerStatus, ServiceRow, SilenceRow,
    ValueRow,
};
use common::notifier::one_line;
use common::query::{AskError, ask_for};
use common::socket::{Requester, SocketError};
use common::subscriber::MAX_STREAM_STATE_BYTES;
use common::time::UnixMillis;
use serde::de::DeserializeOwned;
use std::cmp::Reverse;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use uuid::Uuid;

/// For each page of an answer. Who waits longer has asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often an order is given, under its one id, before a person is told that nobody answers.
const ATTEMPTS: usize = 2;
/// The same order of the same person is taken for a repetition for so long.
const SAME_WITHIN: Duration = Duration::from_mins(1);
/// Commands that wait for us, of this connection and of those before it.
const MAX_WAITING: usize = 16;

/// The way to the task that asks. A command goes with the number of its connection, and so does its answer.
pub(crate) struct Asker {
    pub(crate) commands: mpsc::Sender<(u64, Asked)>,
    pub(crate) answers: mpsc::Receiver<(u64, Asked, Answer)>,
}

impl Asker {
    /// Begins to ask these publishers for people on `network`, until it is dropped.
    pub(crate) fn start(network: &str, publishers: &[PathBuf], counters: &Counters) -> Self {
        let (commands, mut inbox) = mpsc::channel(MAX_WAITING);
        let (out, answers) = mpsc::channel(MAX_WAITING);
        let mut clerk = Clerk {
            network: network.to_owned(),
            publishers: publishers.to_owned(),
            counters: counters.clone(),
            orders: Orders::default(),
        };
        tokio::spawn(async move {
            while let Some((connection, asked)) = inbox.recv().await {
                let answer = clerk.answer(&asked).await;
                if out.send((connection, asked, answer)).await.is_err() {
                    return;
                }
            }
        });
        Self { commands, answers }
    }
}

/// What is asked for one network.
struct Clerk {
    network: String,
    publishers: Vec<PathBuf>,
    counters: Counters,
    orders: Orders,
}

/// What the publishers said.
struct Heard<T> {
    /// Those that answered.
    answers: Vec<T>,
    /// What one of those said that would not.
    refusal: Option<String>,
    /// How many did not answer at all.
    silent: usize,
}

impl Clerk {
    async fn answer(&mut self, asked: &Asked) -> Answer {
        let answer = match &asked.request {
            Requested::Question(question) => self.question(question).await,
            Requested::Order { order, account } => self.order(order, account).await,
        };
        answer.unwrap_or_else(Answer::Refused)
    }

    /// The error is a phrase for whoever asked.
    async fn question(&self, question: &Question) -> Result<Answer, String> {
        let query = Request::query;
        Ok(match question {
            Question::Status => {
                let servers = self.ask::<Vec<ServerRow>>(query("server-list")).await;
                let down = self.down().await;
                let silent = servers.silent;
                let answer = Answer::Status { servers: hosts(servers.some()?), down: down.some()?.concat() };
                self.noted(answer, silent)
            }
            Question::Servers => {
                let heard = self.ask::<Vec<ServerRow>>(query("server-list")).await;
                self.whole(heard, |all| Answer::Servers(hosts(all)))?
            }
            Question::Server(host) => {
                let request = Request { host: Some(host.to_string()), ..query("server-status") };
                let heard = self.ask::<ServerStatus>(request).await;
                let worst = |all: Vec<ServerStatus>| {
                    all.into_iter().max_by_key(|one| (badness(one.server.state), one.incidents.len()))
                };
                self.whole(heard, |all| Answer::Server(Box::new(worst(all).expect("somebody answered"))))?
            }
            Question::Services(host) => {
                let request = Request { host: Some(host.to_string()), ..query("service-list") };
                let heard = self.ask::<Vec<ServiceRow>>(request).await;
                let key = |row: &ServiceRow| (row.service.clone(), row.unit.clone());
                self.whole(heard, |all| Answer::Services(host.clone(), merged(all, key, |row| badness(row.state))))?
            }
            Question::Down => {
                let heard = self.down().await;
                self.whole(heard, |all| Answer::Down(all.concat()))?
            }
            Question::Last(pattern) => {
                let request = Request { pattern: Some(pattern.to_string()), ..query("last-value") };
                let heard = self.ask::<Vec<ValueRow>>(request).await;
                let key = |row: &ValueRow| row.address.to_string();
                self.whole(heard, |all| Answer::Values(pattern.clone(), merged(all, key, |row| row.time)))?
            }
            Question::Alarms => {
                let heard = self.ask(query("alarm-list")).await;
                self.whole(heard, |all| Answer::Alarms(rules(all)))?
            }
            Question::Rules => {
                let heard = self.ask(query("alarm-list")).await;
                self.whole(heard, |all| Answer::Rules(rules(all)))?
            }
            Question::Silences => {
                let heard = self.ask(query("silence-list")).await;
                self.whole(heard, |all| Answer::Silences(silences(all)))?
            }
            Question::Explain(address) => {
                let request = Request { pattern: Some(address.clone()), ..query("explain") };
                let heard = self.ask::<Explanation>(request).await;
                let worst = |all: Vec<Explanation>| all.into_iter().max_by_key(|one| badness(one.state));
                self.whole(heard, |all| Answer::Explanation(Box::new(worst(all).expect("somebody answered"))))?
            }
        })
    }

    /// What is open, as one list.
    async fn down(&self) -> Heard<Vec<DownRow>> {
        let heard = self.ask::<Vec<DownRow>>(Request::query("down-list")).await;
        if heard.answers.is_empty() {
            return heard;
        }
        let mut rows = merged(heard.answers, |row| row.incident, |row| row.severity);
        rows.sort_by_key(|row| (Reverse(row.severity), row.since));
        Heard { answers: vec![rows], ..heard }
    }

    async fn order(&mut self, order: &Order, account: &str) -> Result<Answer, String> {
        let author = format!("irc:{}/{account}", self.network);
        let Given { id, at, is_repeated } = self.orders.give(Instant::now(), UnixMillis::now(), &author, order);
        let until = |lasting: Duration| {
            let ms = i64::try_from(lasting.as_millis()).unwrap_or(i64::MAX);
            Some(UnixMillis(at.0.saturating_add(ms)))
        };
        let some = |reason: &String| Some(reason.clone()).filter(|reason| !reason.is_empty());
        let name = Request::order;
        let requests = match order {
            Order::Ack { what, lasting, reason } => {
                let until = lasting.and_then(until);
                vec![Request { until, reason: some(reason), ..about(what, name("ack")) }]
            }
            Order::Unack { what } => vec![about(what, name("unack"))],
            Order::Silence { pattern, lasting, reason } => {
                let pattern = Some(pattern.to_string());
                vec![Request { pattern, until: until(*lasting), reason: some(reason), ..name("silence") }]
            }
            Order::Unsilence { silence } => {
                let rows = silences(self.ask::<Vec<SilenceRow>>(Request::query("silence-list")).await.some()?);
                let meant = rows.into_iter().filter(|row| row.id == *silence || row.pattern == *silence);
                meant.map(|row| Request { silence: Some(row.id), ..name("unsilence") }).collect()
            }
            Order::AddRule { name: rule_name, rule } => {
                vec![Request { name: Some(rule_name.clone()), rule: Some(rule.clone()), ..name("rule-add") }]
            }
            Order::DelRule { name: rule_name } => {
                vec![Request { name: Some(rule_name.clone()), ..name("rule-remove") }]
            }
        };
        if requests.is_empty() {
            return Err("nothing is silenced by that; !silences shows what is".to_owned());
        }
        let mut done = Ordered::default();
        let mut silent = 0;
        for request in requests {
            // One line may end several silences, and each of these is an order.
            let id = request.silence.as_ref().map_or(id, |silence| Uuid::new_v5(&id, silence.as_bytes()));
            let request = Request { id: Some(id.to_string()), author: Some(author.clone()), ..request };
            let heard = self.give(request).await;
            silent = silent.max(heard.silent);
            let is_unsure = heard.answers.is_empty() && heard.refusal.is_none();
            let answers = heard.some().map_err(|why| {
                tracing::info!("{}: an order of {account} is not carried out: {}", self.network, one_line(&why, 200));
                if is_unsure {
                    format!("{why}; perhaps it is done all the same, so say it again to be sure")
                } else {
                    why
                }
            })?;
            for ordered in answers {
                if !ordered.text.is_empty() && !done.text.contains(&ordered.text) {
                    done.text.push_str(if done.text.is_empty() { "" } else { "; " });
                    done.text.push_str(&ordered.text);
                }
                done.addresses.extend(ordered.addresses);
                done.unreached.extend(ordered.unreached);
            }
        }
        for list in [&mut done.addresses, &mut done.unreached] {
            list.sort();
            list.dedup();
        }
        if is_repeated {
            done.text.insert_str(0, "already done: ");
        }
        tracing::info!("{}: {}", self.network, one_line(&done.text, 200));
        Ok(self.noted(Answer::Ordered(done), silent))
    }

    /// Asks a question of all publishers.
    async fn ask<T: DeserializeOwned + Send + 'static>(&self, request: Request) -> Heard<T> {
        self.hear("query", request, 1).await
    }

    /// Gives an order to all publishers.
    async fn give(&self, request: Request) -> Heard<Ordered> {
        self.hear("control", request, ATTEMPTS).await
    }

    async fn hear<T: DeserializeOwned + Send + 'static>(
        &self,
        socket: &'static str,
        request: Request,
        attempts: usize,
    ) -> Heard<T> {
        let ask = |publisher: &PathBuf| {
            let (path, request) = (publisher.with_file_name(socket), request.clone());
            tokio::spawn(async move {
                let mut requester = Requester::new(&path).at_most(MAX_STREAM_STATE_BYTES);
                let mut attempt = 1;
                loop {
                    match ask_for::<T>(&mut requester, &request, ANSWER_WITHIN).await {
                        Err(AskError::Unreachable(SocketError::Timeout { .. })) if attempt < attempts => attempt += 1,
                        // Asked only now, since cprocessd counts who comes and says nothing.
                        Err(error @ AskError::Unreachable(_)) => return (Err(error), why_closed(&path).await),
                        answer => return (answer, None),
                    }
                }
            })
        };
        let asked: Vec<_> = self.publishers.iter().map(ask).collect();
        let mut heard = Heard { answers: Vec::new(), refusal: None, silent: 0 };
        for answer in asked {
            let (answer, why_closed) = answer.await.expect("it does not panic");
            match answer {
                Ok(answer) => heard.answers.push(answer),
                Err(AskError::Refused(error)) => {
                    // Of several hosts' cprocessds most do not know the one that was asked about.
                    if heard.refusal.is_none() || error.code != ErrorCode::NotFound {
                        heard.refusal = Some(error.message);
                    }
                }
                Err(AskError::BadAnswer(why)) => {
                    heard.refusal = Some(format!("cprocessd's answer is of no use: {why}"));
                }
                Err(AskError::Unreachable(error)) => {
                    heard.silent += 1;
                    if let Some(why) = why_closed {
                        heard.refusal.get_or_insert(format!("cprocessd cannot be reached: {why}"));
                    }
                    if self.counters.count("irc", "unanswered") {
                        tracing::warn!(
                            "{}: a command is not answered: {error}; more of this is only counted",
                            self.network
                        );
                    }
                }
            }
        }
        heard
    }

    fn whole<T>(&self, heard: Heard<T>, answer: impl FnOnce(Vec<T>) -> Answer) -> Result<Answer, String> {
        let silent = heard.silent;
        Ok(self.noted(answer(heard.some()?), silent))
    }

    /// Says if not everybody answered.
    fn noted(&self, answer: Answer, silent: usize) -> Answer {
        if silent == 0 {
            return answer;
        }
        let note = format!("{silent} of {} cprocessds did not answer", self.publishers.len());
        Answer::Partly(Box::new(answer), note)
    }
}

impl<T> Heard<T> {
    /// The answers, at least one. Without, a phrase for whoever asked.
    fn some(self) -> Result<Vec<T>, String> {
        match (self.answers.is_empty(), self.refusal) {
            (false, _) => Ok(self.answers),
            (true, Some(refusal)) => Err(refusal),
            (true, None) => Err("cprocessd does not answer".to_owned()),
        }
    }
}

/// Why nobody is behind a socket that gave no answer, or not for us. None if somebody is, who is only slow.
async fn why_closed(socket: &Path) -> Option<ErrorKind> {
    let error = UnixStream::connect(socket).await.err()?;
    let kind = error.kind();
    matches!(kind, ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ConnectionRefused).then_some(kind)
}

fn about(what: &Target, request: Request) -> Request {
    match what {
        Target::Incident(id) => Request { incident: Some(id.clone()), ..request },
        Target::Pattern(pattern) => Request { pattern: Some(pattern.to_string()), ..request },
    }
}

fn hosts(all: Vec<Vec<ServerRow>>) -> Vec<ServerRow> {
    merged(all, |row| row.host.clone(), |row| (badness(row.state), row.severity, row.open))
}

fn rules(all: Vec<Vec<AlarmRow>>) -> Vec<AlarmRow> {
    merged(all, |row| row.name.clone(), |row| (row.active.len(), row.matches))
}

fn silences(all: Vec<Vec<SilenceRow>>) -> Vec<SilenceRow> {
    merged(all, |row| row.id.clone(), |row| row.open)
}

/// Names orders, so that one which is said twice is carried out once: somebody who saw no answer says it again.
///
/// The id is the UUIDv5 of who gives it, when it was first said, and what it is. It is the same as the last one's if that was
/// the same order of the same person less than a minute ago. After any other order a repetition is meant: `!silence`,
/// `!unsilence`, `!silence`.
#[derive(Debug, Default)]
struct Orders {
    last: Option<(String, Order, Instant, Given)>,
}

/// A named order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Given {
    id: Uuid,
    /// When it was first said, from which it lasts.
    at: UnixMillis,
    is_repeated: bool,
}

impl Orders {
    fn give(&mut self, now: Instant, wall: UnixMillis, author: &str, order: &Order) -> Given {
        if let Some((last_author, last, at, given)) = &self.last
            && (last_author.as_str(), last) == (author, order)
            && now < *at + SAME_WITHIN
        {
            return Given { is_repeated: true, ..*given };
        }
        let name = format!("{author} {} {order:?}", wall.0);
        let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes());
        let given = Given { id, at: wall, is_repeated: false };
        self.last = Some((author.to_owned(), order.clone(), now, given));
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::To;
    use common::address::HostName;
    use common::message::{ErrorBody, State};
    use common::query::{self, Pager};
    use common::socket::Responder;
    use std::sync::{Arc, Mutex};

    /// A cprocessd that knows one host, takes every order, and writes down what it was asked.
    async fn cprocessd(dir: &Path, host: &'static str) -> Arc<Mutex<Vec<Request>>> {
        std::fs::create_dir(dir).expect("folder");
        let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
        for socket in ["query", "control"] {
            let responder = Responder::bind(&dir.join(socket), &Counters::default()).await.expect("bound");
            let asked = asked.clone();
            tokio::spawn(async move {
                loop {
                    let (route, frame) = responder.recv().await.expect("a request");
                    let (format, request) = query::parse(frame.as_deref());
                    let request = request.expect("a request");
                    let answer = answer_of(host, &request);
                    asked.lock().expect("no panic").push(request);
                    let reply = Pager::default().first(Instant::now(), answer);
                    responder.reply(route, query::write(format, &reply)).await;
                }
            });
        }
        asked
    }

    fn answer_of(host: &str, request: &Request) -> Result<query::Answer, ErrorBody> {
        let not_found = |what: &str| Err(ErrorBody::new(ErrorCode::NotFound, format!("{what} is not known")));
        match (request.query.as_deref(), request.order.as_deref()) {
            (Some("server-list"), _) => Ok(query::Answer::list(&[server(host)])),
            (Some("down-list"), _) => Ok(query::Answer::list::<DownRow>(&[])),
            (Some("server-status"), _) if request.host.as_deref() != Some(host) => not_found("that host"),
            (Some("server-status"), _) => Ok(query::Answer::whole(&ServerStatus {
                server: server(host),
                services: Vec::new(),
                incidents: Vec::new(),
                values: Vec::new(),
            })),
            (Some("silence-list"), _) => Ok(query::Answer::list(&[SilenceRow {
                id: format!("silence of {host}"),
                pattern: "web*".to_owned(),
                until: UnixMillis(1),
                since: UnixMillis(0),
                author: "bob".to_owned(),
                reason: String::new(),
                maintenance: false,
                open: 0,
            }])),
            (_, Some("ack")) if host != "web1" => not_found("that"),
            (_, Some(order)) => {
                Ok(query::Answer::whole(&Ordered { text: format!("{order} at {host}"), ..Ordered::default() }))
            }
            _ => not_found("the question"),
        }
    }

    fn server(host: &str) -> ServerRow {
        ServerRow {
            host: host.parse().expect("a host"),
            state: State::Up,
            since: UnixMillis(0),
            last_seen: UnixMillis(0),
            severity: None,
            checks: 0,
            open: 0,
        }
    }

    fn asked(request: Requested) -> Asked {
        Asked { to: To::Query { nick: "alice".to_owned() }, request }
    }

    /// What an asker answers.
    async fn answer(asker: &mut Asker, request: Requested) -> Answer {
        asker.commands.send((7, asked(request))).await.expect("taken");
        let (connection, _, answer) = asker.answers.recv().await.expect("an answer");
        assert_eq!(connection, 7);
        answer
    }

    fn ordered(order: &Order) -> Requested {
        Requested::Order { order: order.clone(), account: "alice".to_owned() }
    }

    #[tokio::test]
    async fn several_cprocessds_answer_as_one() {
        let dir = tempfile::tempdir().expect("folder");
        let publishers = ["a", "b"].map(|name| dir.path().join(name).join("stream"));
        cprocessd(&dir.path().join("a"), "web1").await;
        cprocessd(&dir.path().join("b"), "db1").await;
        let mut asker = Asker::start("lab", &publishers, &Counters::default());
        let status = answer(&mut asker, Requested::Question(Question::Status)).await;
        assert_eq!(status, Answer::Status { servers: vec![server("web1"), server("db1")], down: vec![] });
        let host = |name: &str| name.parse::<HostName>().expect("a host");
        match answer(&mut asker, Requested::Question(Question::Server(host("db1")))).await {
            Answer::Server(status) => assert_eq!(status.server, server("db1")),
            other => panic!("{other:?}"),
        }
        let unknown = answer(&mut asker, Requested::Question(Question::Server(host("web9")))).await;
        assert_eq!(unknown, Answer::Refused("that host is not known".to_owned()));
    }

    #[tokio::test]
    async fn an_order_goes_to_all_under_one_id_and_is_done_if_one_of_them_did_it() {
        let dir = tempfile::tempdir().expect("folder");
        let publishers = ["a", "b"].map(|name| dir.path().join(name).join("stream"));
        let both = [cprocessd(&dir.path().join("a"), "web1").await, cprocessd(&dir.path().join("b"), "db1").await];
        let counters = Counters::default();
        let mut asker = Asker::start("lab", &publishers, &counters);
        let ack = Order::Ack {
            what: Target::Pattern("web1".parse().expect("a pattern")),
            lasting: Some(Duration::from_mins(1)),
            reason: "on it".to_owned(),
        };
        let done = |text: &str| Answer::Ordered(Ordered { text: text.to_owned(), ..Ordered::default() });
        assert_eq!(answer(&mut asker, ordered(&ack)).await, done("ack at web1"));
        assert_eq!(answer(&mut asker, ordered(&ack)).await, done("already done: ack at web1"));
        let taken = || both.each_ref().map(|asked| std::mem::take(&mut *asked.lock().expect("no panic")));
        let given = taken().concat();
        assert_eq!(given.len(), 4);
        assert!(given.iter().all(|request| *request == given[0]), "{given:#?}");
        assert_eq!(given[0].author.as_deref(), Some("irc:lab/alice"));
        assert!(given[0].until.is_some_and(|until| until.distance(UnixMillis::now()) < 61_000));

        // Two silences have this pattern: an order for each.
        answer(&mut asker, ordered(&Order::Unsilence { silence: "web*".to_owned() })).await;
        let [given, _] = taken();
        let ended: Vec<&str> = given.iter().filter_map(|request| request.silence.as_deref()).collect();
        assert_eq!(ended, ["silence of web1", "silence of db1"]);
        assert_ne!(given[1].id, given[2].id);
        let none = answer(&mut asker, ordered(&Order::Unsilence { silence: "db*".to_owned() })).await;
        assert!(matches!(none, Answer::Refused(why) if why.starts_with("nothing is silenced by that")));
        assert!(counters.snapshot().is_empty());
    }

    #[tokio::test]
    async fn who_does_not_answer_is_said() {
        let dir = tempfile::tempdir().expect("folder");
        cprocessd(&dir.path().join("a"), "web1").await;
        let publishers = ["a", "b"].map(|name| dir.path().join(name).join("stream"));
        let counters = Counters::default();
        let mut both = Asker::start("lab", &publishers, &counters);
        let mut gone = Asker::start("lab", &publishers[1..], &counters);
        let servers = || Requested::Question(Question::Servers);
        let (of_both, of_gone) = tokio::join!(answer(&mut both, servers()), answer(&mut gone, servers()));
        let note = "1 of 2 cprocessds did not answer".to_owned();
        assert_eq!(of_both, Answer::Partly(Box::new(Answer::Servers(vec![server("web1")])), note));
        assert_eq!(of_gone, Answer::Refused("cprocessd cannot be reached: entity not found".to_owned()));
        assert_eq!(counters.snapshot(), [("irc.unanswered".to_owned(), 2)].into());
    }

    #[test]
    fn an_order_said_twice_has_one_id() {
        let start = Instant::now();
        let mut orders = Orders::default();
        let mut give = |second: u64, author: &str, name: &str| {
            let order = Order::DelRule { name: name.to_owned() };
            let wall = UnixMillis(1_795_236_306_000 + i64::try_from(second * 1000).expect("small"));
            orders.give(start + Duration::from_secs(second), wall, author, &order)
        };
        let first = give(0, "irc:lab/alice", "a");
        assert!(!first.is_repeated);
        assert_eq!(give(59, "irc:lab/alice", "a"), Given { is_repeated: true, ..first });
        let others = [give(60, "irc:lab/alice", "a"), give(61, "irc:lab/bob", "a"), give(62, "irc:lab/alice", "a")];
        let mut ids: Vec<Uuid> = others.iter().map(|given| given.id).collect();
        ids.extend([first.id, give(63, "irc:lab/alice", "b").id]);
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 5);
        assert!(others.iter().all(|given| !given.is_repeated));
    }
}
