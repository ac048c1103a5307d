//! Hands mails to an SMTP server (RFC 5321) and says what became of each.
//!
//! What matters is the stage at which it failed: until the final dot nothing can have been accepted, after it anything can.
//! lettre's transport does not tell, and its time limit bounds only the connect, so its connection is driven here command
//! by command. Two time limits hold: one for everything until the final dot, one for the reply to it.
//!
//! A connection that has just delivered is kept for the next mail, so that a burst does not shake hands for each.

use crate::plain;
use crate::stream::{Bounded, Encrypted};
use common::counters::Counters;
use common::notifier::{Outcome, Scope};
use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::{Response, Severity};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

/// How long a connection is kept for the next mail. Servers close it after minutes (RFC 5321 §4.5.3.2.7).
const KEEP_IDLE: Duration = Duration::from_secs(20);
/// How long a farewell may take: it changes nothing any more.
const FAREWELL: Duration = Duration::from_secs(1);
/// Characters kept of a reply.
const REPLY_CHARS: usize = 300;
/// Bytes handed over at a time.
const CHUNK: usize = 64 * 1024;

/// How the connection is protected.
#[derive(Clone)]
pub enum Security {
    /// STARTTLS (RFC 3207), which the server must offer: otherwise nothing is sent.
    StartTls(TlsParameters),
    /// TLS from the first byte (RFC 8314).
    Tls(Arc<ClientConfig>),
    /// None.
    Plaintext,
}

/// How to reach the server.
pub struct Settings {
    /// Its name or address, which its certificate must bear.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// User and password. Only sent as [`Security`] has it.
    pub credentials: Option<Credentials>,
    /// What we call ourselves.
    pub hello: ClientId,
    /// The bound on everything before the final dot, and again on the reply to it.
    pub timeout: Duration,
}

/// One SMTP server.
pub struct Smtp {
    settings: Settings,
    counters: Counters,
    kept: Arc<Mutex<Kept>>,
}

/// The connection that waits for the next mail.
#[derive(Default)]
struct Kept {
    connection: Option<AsyncSmtpConnection>,
    /// How often one was kept, so that who ends the wait ends its own.
    nth: u64,
}

impl Smtp {
    /// Touches nothing yet. What the server may not say is counted with `counters`.
    pub fn new(settings: Settings, counters: Counters) -> Self {
        Self { settings, counters, kept: Arc::default() }
    }

    /// Hands one mail over. Ends within twice the configured time limit.
    pub async fn send(&self, from: &Address, to: &Address, bytes: &[u8]) -> Outcome {
        let deadline = Instant::now() + self.settings.timeout;
        match self.attempt(from, to, bytes, deadline).await {
            Ok(reply) => Outcome::Sent(format!("{to}: {reply}")),
            Err(failure) => self.named(failure.outcome()),
        }
    }

    /// With the server that it was, for who reads it at night.
    fn named(&self, mut outcome: Outcome) -> Outcome {
        if let Outcome::Retry { why, .. } | Outcome::Never(why) = &mut outcome {
            *why = format!("{} port {} {why}", self.settings.host, self.settings.port);
        }
        outcome
    }

    /// One attempt, and a second one on a new connection if a kept one turns out to be dead, or has had its share of mails.
    async fn attempt(&self, from: &Address, to: &Address, bytes: &[u8], deadline: Instant) -> Result<String, Failure> {
        if let Some(kept) = self.take_kept() {
            match self.transact(kept, from, to, bytes, deadline).await {
                Err(failure) if failure.stage == Stage::Sender => (),
                result => return result,
            }
        }
        let connection = self.connect(deadline).await?;
        self.transact(connection, from, to, bytes, deadline).await
    }

    /// A connection on which mails are welcome.
    async fn connect(&self, deadline: Instant) -> Result<AsyncSmtpConnection, Failure> {
        let Settings { host, port, security, credentials, hello, .. } = &self.settings;
        let tcp = timeout_at(deadline, TcpStream::connect((host.as_str(), *port))).await;
        let tcp = Stage::Connect.in_time(tcp)?.map_err(|error| Stage::Connect.broken(&error))?;
        let tcp = Bounded::new(tcp, self.counters.clone());
        let stream: Box<dyn AsyncTokioStream> = match security {
            Security::Tls(client) => {
                let name = ServerName::try_from(host.clone()).map_err(|error| Stage::Tls.broken(&error))?;
                let shaken = timeout_at(deadline, TlsConnector::from(client.clone()).connect(name, tcp)).await;
                Box::new(Encrypted(Stage::Tls.in_time(shaken)?.map_err(|error| Stage::Tls.broken(&error))?))
            }
            Security::StartTls(_) | Security::Plaintext => Box::new(tcp),
        };
        let greeted = AsyncSmtpConnection::connect_with_transport(stream, hello);
        let mut connection = Stage::Hello.bound(deadline, greeted).await?;
        if let Security::StartTls(parameters) = security {
            Stage::StartTls.bound(deadline, connection.starttls(parameters.clone(), hello)).await?;
        }
        if let Some(credentials) = credentials {
            let authenticated = connection.auth(DEFAULT_MECHANISMS, credentials);
            if let Err(failure) = Stage::Auth.bound(deadline, authenticated).await {
                say_farewell(connection, &failure).await;
                return Err(failure);
            }
        }
        Ok(connection)
    }

    /// Hands the mail over; the connection is kept if it worked.
    async fn transact(
        &self,
        mut connection: AsyncSmtpConnection,
        from: &Address,
        to: &Address,
        bytes: &[u8],
        deadline: Instant,
    ) -> Result<String, Failure> {
        let result = self.dialogue(&mut connection, from, to, bytes, deadline).await;
        match &result {
            Ok(_) => self.keep(connection),
            Err(failure) => say_farewell(connection, failure).await,
        }
        result
    }

    async fn dialogue(
        &self,
        connection: &mut AsyncSmtpConnection,
        from: &Address,
        to: &Address,
        bytes: &[u8],
        deadline: Instant,
    ) -> Result<String, Failure> {
        let mail = Mail::new(Some(from.clone()), Vec::new());
        Stage::Sender.bound(deadline, connection.command(mail)).await?;
        let rcpt = Rcpt::new(to.clone(), Vec::new());
        Stage::Recipient.bound(deadline, connection.command(rcpt)).await?;
        let reply = Stage::Data.bound(deadline, connection.command(Data)).await?;
        if !reply.has_code(354) {
            return Err(Stage::Data.breach(&reply));
        }
        let reply = self.hand_over(connection, bytes, deadline).await?;
        match reply.code().severity {
            Severity::PositiveCompletion => Ok(words_of(&reply)),
            Severity::PositiveIntermediate
            | Severity::TransientNegativeCompletion
            | Severity::PermanentNegativeCompletion => Err(Stage::Accepting.breach(&reply)),
        }
    }

    /// The mail itself and its final dot. lettre writes the dot once it finds no further chunk: a failure before that was
    /// certainly not accepted.
    async fn hand_over(
        &self,
        connection: &mut AsyncSmtpConnection,
        bytes: &[u8],
        deadline: Instant,
    ) -> Result<Response, Failure> {
        let (dot, mut dot_due) = oneshot::channel();
        let message = connection.message_iter(Chunks { bytes: bytes.to_owned(), at: 0, dot: Some(dot) });
        tokio::pin!(message);
        let early = tokio::select! {
            biased;
            early = &mut message => Some(early),
            Ok(()) = &mut dot_due => None,
            () = tokio::time::sleep_until(deadline) => {
                return Err(Failure { stage: Stage::Text, what: What::TimedOut });
            }
        };
        match early {
            Some(result) if dot_due.try_recv().is_err() => result.map_err(|error| Failure::new(Stage::Text, &error)),
            Some(result) => result.map_err(|error| Failure::new(Stage::Accepting, &error)),
            None => Stage::Accepting.bound(Instant::now() + self.settings.timeout, message).await,
        }
    }

    fn take_kept(&self) -> Option<AsyncSmtpConnection> {
        lock(&self.kept).connection.take()
    }

    /// Keeps a connection until the next mail, or [`KEEP_IDLE`].
    fn keep(&self, connection: AsyncSmtpConnection) {
        let nth = {
            let mut kept = lock(&self.kept);
            kept.connection = Some(connection);
            kept.nth += 1;
            kept.nth
        };
        let waiting = Arc::clone(&self.kept);
        tokio::spawn(async move {
            tokio::time::sleep(KEEP_IDLE).await;
            let over = {
                let mut kept = lock(&waiting);
                if kept.nth == nth { kept.connection.take() } else { None }
            };
            if let Some(mut connection) = over {
                let _ = timeout(FAREWELL, connection.quit()).await;
            }
        });
    }
}

/// The mail in pieces; says when it was asked for one more than there are.
struct Chunks {
    bytes: Vec<u8>,
    at: usize,
    dot: Option<oneshot::Sender<()>>,
}

impl Iterator for Chunks {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.at == self.bytes.len() {
            self.dot.take().map(|dot| dot.send(()));
            return None;
        }
        let end = (self.at + CHUNK).min(self.bytes.len());
        let chunk = self.bytes[self.at..end].to_owned();
        self.at = end;
        Some(chunk)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

/// QUIT, where the server still listens.
async fn say_farewell(mut connection: AsyncSmtpConnection, failure: &Failure) {
    if !failure.is_broken() {
        let _ = timeout(FAREWELL, connection.quit()).await;
    }
}

/// `250 OK id=1abc`.
fn words_of(reply: &Response) -> String {
    let text: Vec<&str> = reply.message().collect();
    plain::line(&format!("{} {}", reply.code(), text.join(" ")), REPLY_CHARS)
}

/// How far a mail got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// TCP.
    Connect,
    /// TLS, where it comes first.
    Tls,
    /// Greeting and EHLO.
    Hello,
    /// STARTTLS, the handshake, and EHLO again.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA.
    Data,
    /// Before the final dot.
    Text,
    /// After the final dot.
    Accepting,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Connect => "connecting",
            Stage::Tls => "TLS",
            Stage::Hello => "greeting",
            Stage::StartTls => "STARTTLS",
            Stage::Auth => "AUTH",
            Stage::Sender => "MAIL",
            Stage::Recipient => "RCPT",
            Stage::Data => "DATA",
            Stage::Text => "the mail",
            Stage::Accepting => "the end of the mail",
        })
    }
}

impl Stage {
    /// The reply, if there is a good one in time.
    async fn bound<T>(self, deadline: Instant, reply: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
        self.in_time(timeout_at(deadline, reply).await)?.map_err(|error| Failure::new(self, &error))
    }

    fn in_time<T>(self, result: Result<T, tokio::time::error::Elapsed>) -> Result<T, Failure> {
        result.map_err(|_| Failure { stage: self, what: What::TimedOut })
    }

    fn broken(self, error: &dyn std::error::Error) -> Failure {
        Failure { stage: self, what: What::Broken(innermost(error)) }
    }

    /// A reply that has no business here.
    fn breach(self, reply: &Response) -> Failure {
        Failure { stage: self, what: What::Broken(format!("unexpected reply {}", words_of(reply))) }
    }
}

/// Why a mail was not accepted, as far as we know.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    stage: Stage,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// The server said no: a 4xx or 5xx code and its words.
    Reply(u16, String),
    /// The connection, TLS or the protocol failed.
    Broken(String),
    /// Nothing came in time.
    TimedOut,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Reply(code, words) => write!(f, "at {}: {code} {words}", self.stage),
            What::Broken(words) => write!(f, "at {}: {words}", self.stage),
            What::TimedOut => write!(f, "at {}: no answer in time", self.stage),
        }
    }
}

impl Failure {
    fn new(stage: Stage, error: &Error) -> Self {
        let what = match error.status() {
            Some(code) => What::Reply(code.into(), words_after_code(error)),
            None => What::Broken(innermost(&error)),
        };
        Self { stage, what }
    }

    /// Nothing was said: the connection is of no use any more.
    fn is_broken(&self) -> bool {
        match &self.what {
            What::Reply(code, _) => *code == 421,
            What::Broken(_) | What::TimedOut => true,
        }
    }

    /// It can become better neither by itself nor by a person mending our configuration.
    fn is_final(&self) -> bool {
        match (&self.what, self.stage) {
            (What::Reply(500.., _), Stage::Recipient) => !self.is_about_permission(),
            (What::Reply(500.., _), Stage::Data | Stage::Accepting) => !self.is_about_authentication(),
            _ => false,
        }
    }

    /// The server would take the mail from somebody else, or after AUTH.
    fn is_about_permission(&self) -> bool {
        let relaying = matches!(&self.what, What::Reply(500.., words) if words.starts_with("5.7."));
        relaying || self.is_about_authentication()
    }

    /// RFC 4954 §6.
    fn is_about_authentication(&self) -> bool {
        matches!(self.what, What::Reply(530 | 534 | 535 | 538, _))
    }

    /// What the frame is to make of it.
    fn outcome(&self) -> Outcome {
        let why = self.to_string();
        if self.is_final() {
            return Outcome::Never(why);
        }
        let about_this_mail = matches!(self.stage, Stage::Recipient | Stage::Data | Stage::Accepting)
            && !self.is_broken()
            && !self.is_about_authentication();
        Outcome::Retry {
            why,
            scope: if about_this_mail { Scope::Recipient } else { Scope::Lane },
            maybe_accepted: self.stage == Stage::Accepting && matches!(self.what, What::Broken(_) | What::TimedOut),
            after: None,
        }
    }
}

/// The words of a 4xx or 5xx reply.
fn words_after_code(error: &Error) -> String {
    let words = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    plain::line(words.trim(), REPLY_CHARS)
}

/// What is wrong, without the layers around it that each say that something is.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.to_string().as_str() {
        // lettre's words for a reply that ends before it is complete.
        "incomplete response" => "the server closed the connection".into(),
        other => plain::line(other, REPLY_CHARS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `lane`, `recipient` or `never`, with a `?` where it may have been accepted.
    fn outcome(stage: Stage, what: What) -> String {
        match (Failure { stage, what }).outcome() {
            Outcome::Sent(words) => words,
            Outcome::Never(_) => "never".into(),
            Outcome::Retry { scope, maybe_accepted, .. } => {
                let scope = if scope == Scope::Lane { "lane" } else { "recipient" };
                format!("{scope}{}", if maybe_accepted { "?" } else { "" })
            }
        }
    }

    #[test]
    fn what_becomes_of_a_mail_depends_on_how_far_it_got() {
        let reply = |code| What::Reply(code, "words".into());
        let faults = || [reply(421), reply(451), reply(554), What::Broken("reset".into()), What::TimedOut];
        for (stage, expected) in [
            (Stage::Connect, ["lane", "lane", "lane", "lane", "lane"]),
            (Stage::Tls, ["lane", "lane", "lane", "lane", "lane"]),
            (Stage::Hello, ["lane", "lane", "lane", "lane", "lane"]),
            (Stage::StartTls, ["lane", "lane", "lane", "lane", "lane"]),
            (Stage::Auth, ["lane", "lane", "lane", "lane", "lane"]),
            (Stage::Sender, ["lane", "lane", "lane", "lane", "lane"]),
            (Stage::Recipient, ["lane", "recipient", "never", "lane", "lane"]),
            (Stage::Data, ["lane", "recipient", "never", "lane", "lane"]),
            (Stage::Text, ["lane", "lane", "lane", "lane", "lane"]),
            (Stage::Accepting, ["lane", "recipient", "never", "lane?", "lane?"]),
        ] {
            assert_eq!(faults().map(|fault| outcome(stage, fault)), expected, "{stage}");
        }
    }

    #[test]
    fn a_mail_is_not_given_up_for_what_a_person_can_mend() {
        assert_eq!(outcome(Stage::Recipient, What::Reply(530, "authentication required".into())), "lane");
        assert_eq!(outcome(Stage::Recipient, What::Reply(550, "5.7.1 relaying denied".into())), "recipient");
        assert_eq!(outcome(Stage::Recipient, What::Reply(550, "5.1.1 no such mailbox".into())), "never");
        assert_eq!(outcome(Stage::Accepting, What::Reply(554, "5.7.1 looks like spam".into())), "never");
    }
}
