//! The shell around a [`Session`]: TCP, TLS, bytes, the clock, and a new connection when one is lost.
//!
//! One task holds the connection of one network, from the first time that the frame wants to send until the [`Network`] is
//! dropped. It holds at most one message, since the frame has no more than one under way. Beside it another asks cprocessd
//! what people want to know, so that no question holds up a message.

use crate::answer::Answer;
use crate::asker::Asker;
use crate::compose::compose;
use crate::lines::{Endless, Lines, MAX_LINE_BYTES};
use crate::options::{Channel, Mechanism, Options, Sasl};
use crate::session::{Output, Session};
use common::counters::Counters;
use common::notifier::{Composed, Letter, Medium, MessageId, Outcome, Scope, one_line};
use common::time::UnixMillis;
use rustls::pki_types::ServerName;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use uuid::Uuid;

/// For names, TCP, and TLS, each.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// A server that does not read for so long is gone.
const WRITE_WITHIN: Duration = Duration::from_secs(15);
/// For our last line.
const QUIT_WITHIN: Duration = Duration::from_secs(1);
/// A message is answered within its own deadlines; this is for what those forgot.
const SEND_WITHIN: Duration = Duration::from_secs(75);
/// Between two connections, doubled each time, and a random part of it: many bots of one network that restarts shall not
/// come back in the same second.
const RECONNECT_AFTER: Duration = Duration::from_secs(2);
const RECONNECT_AT_MOST: Duration = Duration::from_mins(5);
/// A connection that was of use for so long is no reason for patience when it is lost.
const STABLE: Duration = Duration::from_mins(1);
/// Read at once.
const CHUNK_BYTES: usize = 4096;
/// Of reasons, in the log.
const MAX_REASON_CHARS: usize = 300;

/// One IRC network.
pub struct Network {
    options: Arc<Options>,
    /// The streams whose question sockets know what people ask for.
    publishers: Vec<PathBuf>,
    counters: Counters,
    link: OnceLock<Link>,
}

/// The way to the task that holds the connection.
struct Link {
    orders: mpsc::Sender<Order>,
    ready: watch::Receiver<bool>,
}

/// What the task is to do.
enum Order {
    Send(Message),
    /// Say goodbye and end.
    Quit,
}

/// A message to be sent.
struct Message {
    to: Channel,
    id: MessageId,
    lines: Vec<String>,
    reply: oneshot::Sender<Outcome>,
}

impl Network {
    pub(crate) fn new(options: Options, publishers: Vec<PathBuf>, counters: Counters) -> Self {
        Self { options: Arc::new(options), publishers, counters, link: OnceLock::new() }
    }

    fn link(&self) -> &Link {
        self.link.get_or_init(|| {
            // The frame sends one message at a time, so nothing waits here.
            let (orders, inbox) = mpsc::channel(1);
            let (standing, ready) = watch::channel(false);
            let connection = Connection {
                options: self.options.clone(),
                counters: self.counters.clone(),
                inbox,
                asker: Asker::start(&self.options.name, &self.publishers, &self.counters),
                connections: 0,
                standing,
                waiting: None,
                trouble: None,
            };
            tokio::spawn(connection.run());
            Link { orders, ready }
        })
    }
}

impl Medium for Network {
    type Address = Channel;

    fn compose(&self, to: &Channel, letter: &Letter<'_>) -> Composed {
        compose(&self.options, to, letter)
    }

    async fn ready(&self) {
        // It only fails when the task is gone, and then there is nothing to wait for.
        if self.link().ready.clone().wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn send(&self, to: &Channel, id: MessageId, bytes: &[u8]) -> Outcome {
        let lines = match commands(to, bytes) {
            Ok(lines) => lines,
            Err(why) => {
                self.counters.count("irc", "not_one_line");
                return Outcome::Never(why);
            }
        };
        let (reply, outcome) = oneshot::channel();
        let order = Order::Send(Message { to: to.clone(), id, lines, reply });
        let answered = async {
            self.link().orders.send(order).await.ok()?;
            outcome.await.ok()
        };
        match timeout(SEND_WITHIN, answered).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) | Err(_) => Outcome::Retry {
                why: format!("no outcome from the connection to {}", self.options.name),
                scope: Scope::Lane,
                maybe_accepted: true,
                after: None,
            },
        }
    }

    async fn stop(&self) {
        // Who was never connected has nobody to take leave of.
        if let Some(Link { orders, .. }) = self.link.get()
            && orders.send(Order::Quit).await.is_ok()
        {
            orders.closed().await;
        }
    }
}

/// The commands that say these lines in a channel.
fn commands(to: &Channel, bytes: &[u8]) -> Result<Vec<String>, String> {
    let text = str::from_utf8(bytes).map_err(|_| "the message is not UTF-8 text".to_owned())?;
    let lines: Vec<String> = text.split('\n').map(|line| format!("{} {} :{line}", to.verb(), to.name)).collect();
    match lines.iter().find(|line| !is_one_line(line)) {
        Some(line) => Err(format!("{:?} is not one line of IRC", one_line(line, 60))),
        None => Ok(lines),
    }
}

/// The last guard, whatever came before: what has a line break, or is too long, is not one command but two, or cut.
fn is_one_line(line: &str) -> bool {
    line.len() + "\r\n".len() <= MAX_LINE_BYTES && !line.contains(['\r', '\n', '\0'])
}

/// The task.
struct Connection {
    options: Arc<Options>,
    counters: Counters,
    inbox: mpsc::Receiver<Order>,
    asker: Asker,
    /// How many there were: an answer for people on another than this is for nobody.
    connections: u64,
    standing: watch::Sender<bool>,
    /// Who waits for the outcome of the message under way.
    waiting: Option<oneshot::Sender<Outcome>>,
    /// Since when and why we are not connected, as it was logged.
    trouble: Option<(Instant, String)>,
}

/// The end of one connection.
enum End {
    /// It was lost for this reason, after being of use for so long.
    Lost(String, Duration),
    /// Nobody wants it any more.
    Unwanted,
}

impl Connection {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let end = match self.connect().await {
                Some(Ok(stream)) => self.converse(stream).await,
                Some(Err(why)) => End::Lost(why, Duration::ZERO),
                None => End::Unwanted,
            };
            let End::Lost(why, useful) = end else { return };
            if useful >= STABLE {
                failures = 0;
            }
            let why = one_line(&why, MAX_REASON_CHARS);
            self.say_trouble(&why);
            let pause = pause(failures, Uuid::new_v4().as_u128());
            failures += 1;
            tracing::debug!("{}: connecting again in {} ms", self.options.name, pause.as_millis());
            if self.meanwhile(sleep(pause), &why).await.is_none() {
                return;
            }
        }
    }

    /// Does something while there is no connection: messages that come all the same are for later. None when nobody is
    /// there any more to send them.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>, why: &str) -> Option<T> {
        tokio::pin!(what);
        loop {
            tokio::select! {
                done = &mut what => return Some(done),
                order = self.inbox.recv() => match order {
                    Some(Order::Send(message)) => {
                        let why = format!("not connected to {}: {why}", self.options.name);
                        // Who no longer waits has forgotten the message.
                        let _ = message.reply.send(Outcome::unreachable(why));
                    }
                    Some(Order::Quit) | None => return None,
                },
            }
        }
    }

    async fn connect(&mut self) -> Option<Result<Box<dyn Stream>, String>> {
        let options = self.options.clone();
        self.meanwhile(async move { connect(&options).await }, "still connecting").await
    }

    fn say_trouble(&mut self, why: &str) {
        let name = &self.options.name;
        match &mut self.trouble {
            None => {
                tracing::warn!("{name}: {why}; trying again");
                self.trouble = Some((Instant::now(), why.to_owned()));
            }
            Some((_, before)) if before != why => {
                tracing::warn!("{name}: now {why}; trying again");
                why.clone_into(before);
            }
            Some(_) => tracing::debug!("{name}: still {why}"),
        }
    }

    fn say_registered(&mut self, nick: &str) {
        let Options { name, server, port, .. } = &*self.options;
        match self.trouble.take() {
            None => tracing::info!("{name}: on {server} port {port} as {nick}"),
            Some((since, _)) => {
                let away = common::time::for_people(since.elapsed());
                tracing::info!("{name}: on {server} port {port} as {nick}, after {away}");
            }
        }
    }

    async fn converse(&mut self, stream: Box<dyn Stream>) -> End {
        self.connections += 1;
        let mut session = Session::new(self.options.clone(), Instant::now());
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut lines = Lines::default();
        let mut chunk = [0; CHUNK_BYTES];
        let mut said = false;
        let lost = loop {
            if let Err(why) = self.carry_out(&mut session, &mut writer).await {
                break why;
            }
            let now = Instant::now();
            if session.registered().is_some() && !said {
                said = true;
                self.say_registered(session.nick());
            }
            let ready = session.is_ready(now);
            self.standing.send_if_modified(|standing| std::mem::replace(standing, ready) != ready);
            tokio::select! {
                read = reader.read(&mut chunk) => match read {
                    Ok(0) => break "the server closed the connection".to_owned(),
                    Ok(n) => {
                        lines.add(&chunk[..n]);
                        let heard = hear(&mut lines, &mut session);
                        self.count_too_long(&mut lines);
                        if let Err(endless) = heard {
                            break endless.to_string();
                        }
                    }
                    Err(error) => break error.to_string(),
                },
                order = self.inbox.recv() => match order {
                    Some(Order::Send(Message { to, id, lines, reply })) => {
                        self.waiting = Some(reply);
                        session.send(Instant::now(), &to, id, lines);
                    }
                    Some(Order::Quit) | None => {
                        quit(&mut writer).await;
                        return End::Unwanted;
                    }
                },
                Some((connection, asked, answer)) = self.asker.answers.recv() => {
                    if connection == self.connections {
                        session.answer(Instant::now(), UnixMillis::now(), &asked, &answer);
                    }
                }
                () = sleep_until(session.next_deadline(now).into()) => session.tick(Instant::now()),
            }
        };
        self.standing.send_replace(false);
        session.lost(&one_line(&lost, MAX_REASON_CHARS));
        for output in session.outputs() {
            if let Output::Done(outcome) = output {
                self.answer(outcome);
            }
        }
        // Whoever waits without an outcome learns it from the end of its channel.
        self.waiting = None;
        let useful = session.registered().map(|since| since.elapsed()).unwrap_or_default();
        End::Lost(lost, useful)
    }

    fn count_too_long(&self, lines: &mut Lines) {
        let too_long = std::mem::take(&mut lines.too_long);
        if too_long > 0 && self.counters.add("irc", "line_too_long", too_long) {
            tracing::warn!("{}: a line was too long and dropped; more of this is only counted", self.options.name);
        }
    }

    /// The error is why the connection has to end.
    async fn carry_out(
        &mut self,
        session: &mut Session,
        writer: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<(), String> {
        let mut bytes = Vec::new();
        let mut close = None;
        for output in session.outputs() {
            match output {
                Output::Send(line) if is_one_line(&line) => {
                    bytes.extend_from_slice(line.as_bytes());
                    bytes.extend_from_slice(b"\r\n");
                }
                // Only what repeats the server's own words can come to this: a PONG.
                Output::Send(_) => {
                    self.counters.count("irc", "not_one_line");
                    tracing::debug!("{}: a line that would be more than one was not sent", self.options.name);
                }
                Output::Done(outcome) => self.answer(outcome),
                Output::Close(why) => close = Some(why),
                Output::Refused(reason) => drop(self.counters.count("irc", reason)),
                Output::Say(level, text) => self.say(level, &text),
                Output::Ask(asked) => {
                    // There is room for more than a session hands out at a time, unless those before it did so, too.
                    if let Err(refused) = self.asker.commands.try_send((self.connections, *asked)) {
                        let (_, asked) = refused.into_inner();
                        let why = "too much is being asked already";
                        let busy = Answer::Refused(why.to_owned());
                        session.answer(Instant::now(), UnixMillis::now(), &asked, &busy);
                    }
                }
            }
        }
        // What is to be said before the end is not worth waiting for.
        if let Some(why) = close {
            return Err(why);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let write = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        match timeout(WRITE_WITHIN, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the server has read nothing for {} s", WRITE_WITHIN.as_secs())),
        }
    }

    fn say(&self, level: tracing::Level, text: &str) {
        let name = &self.options.name;
        if level == tracing::Level::WARN {
            tracing::warn!("{name}: {text}");
        } else {
            tracing::info!("{name}: {text}");
        }
    }

    fn answer(&mut self, outcome: Outcome) {
        if let Some(waiting) = self.waiting.take() {
            // Who no longer waits has forgotten the message.
            let _ = waiting.send(outcome);
        }
    }
}

fn hear(lines: &mut Lines, session: &mut Session) -> Result<(), Endless> {
    while let Some(line) = lines.next()? {
        session.hear(Instant::now(), &line);
    }
    Ok(())
}

async fn quit(writer: &mut (dyn AsyncWrite + Send + Unpin)) {
    let goodbye = async {
        writer.write_all(b"QUIT :cairn stops\r\n").await?;
        writer.shutdown().await
    };
    // We leave either way.
    let _: Result<io::Result<()>, _> = timeout(QUIT_WITHIN, goodbye).await;
}

/// TCP, or TLS on it.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(options: &Options) -> Result<Box<dyn Stream>, String> {
    let Options { server, port, .. } = options;
    let failed = |what: &str| format!("cannot connect to {server} port {port}: {what}");
    let late = |what: &str| failed(&format!("no {what} within {} s", CONNECT_WITHIN.as_secs()));
    let tcp = timeout(CONNECT_WITHIN, TcpStream::connect((server.as_str(), *port)));
    let tcp = tcp.await.map_err(|_| late("answer"))?.map_err(|error| failed(&error.to_string()))?;
    tcp.set_nodelay(true).map_err(|error| failed(&error.to_string()))?;
    let Some(trust) = &options.trust else { return Ok(Box::new(tcp)) };
    let name = ServerName::try_from(server.clone()).map_err(|error| failed(&error.to_string()))?;
    let client = match &options.sasl {
        Some(Sasl { mechanism: Mechanism::External(identity), .. }) => trust.client_as(identity),
        Some(Sasl { mechanism: Mechanism::Plain { .. }, .. }) | None => trust.client(),
    };
    let tls = timeout(CONNECT_WITHIN, TlsConnector::from(Arc::new(client)).connect(name, tcp));
    let tls = tls.await.map_err(|_| late("TLS"))?.map_err(|error| failed(&format!("TLS: {error}")))?;
    Ok(Box::new(tls))
}

/// How long to wait after so many failures in a row: between half and all of the back-off, by chance.
fn pause(failures: u32, chance: u128) -> Duration {
    let whole = (RECONNECT_AFTER * 2_u32.pow(failures.min(10))).min(RECONNECT_AT_MOST);
    let part = u32::try_from(chance % 1000).expect("below a thousand");
    whole / 2 + whole / 2 * part / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::options;

    #[test]
    fn what_is_not_one_line_is_never_sent() {
        let channel = options("channels").channels[0].clone();
        assert_eq!(commands(&channel, b"a\nb").expect("lines"), ["PRIVMSG #ops :a", "PRIVMSG #ops :b"]);
        for bytes in [&b"a\rQUIT"[..], b"a\0", b"\xff", &[b'x'; 500]] {
            assert!(commands(&channel, bytes).is_err());
        }
    }

    #[test]
    fn reconnecting_takes_longer_each_time_and_never_the_same() {
        assert_eq!(pause(0, 0), Duration::from_secs(1));
        assert_eq!(pause(0, 999), Duration::from_millis(1999));
        assert_eq!(pause(3, 500), Duration::from_secs(12));
        assert_eq!(pause(99, 999), Duration::from_millis(299_850));
    }
}
