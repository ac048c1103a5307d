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

/// A mail that a server has not accepted, as far as we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) verdict: Verdict,
    pub(crate) why: String,
}

/// What a failure means for the mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No server will take it: there is no such mailbox, or something is wrong with the mail itself.
    Never,
    /// This server will not take it, by a rule of its own. Another one may.
    NotHere,
    /// This server does not take it now: the mailbox is full, or a person has to permit it.
    NotNow,
    /// The server cannot be reached, or refuses us whatever the mail.
    Away,
    /// The server may have it.
    Unknown,
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

    /// Hands one mail over; the words of the reply. Ends within twice the configured time limit.
    pub(crate) async fn send(&self, from: &Address, to: &Address, bytes: &[u8]) -> Result<String, Refusal> {
        let deadline = Instant::now() + self.settings.timeout;
        self.attempt(from, to, bytes, deadline).await.map_err(|failure| Refusal {
            // With the server that it was, for who reads it at night.
            why: format!("{} {failure}", self.name()),
            verdict: failure.verdict(),
        })
    }

    /// `mail.example.org port 587`.
    pub(crate) fn name(&self) -> String {
        format!("{} port {}", self.settings.host, self.settings.port)
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

    /// A rule of this server, not a fact about the mail (RFC 3463 §3.8): at RCPT whom it relays for, later what it takes for
    /// spam.
    fn is_about_policy(&self) -> bool {
        matches!(&self.what, What::Reply(500.., words) if words.starts_with("5.7."))
    }

    /// RFC 4954 §6.
    fn is_about_authentication(&self) -> bool {
        matches!(self.what, What::Reply(530 | 534 | 535 | 538, _))
    }

    fn verdict(&self) -> Verdict {
        match (self.stage, &self.what) {
            (Stage::Accepting, What::Broken(_) | What::TimedOut) => Verdict::Unknown,
            // About this mail, which a reply at any other stage, and one that ends the connection, is not.
            (Stage::Recipient | Stage::Data | Stage::Accepting, What::Reply(code, _))
                if *code != 421 && !self.is_about_authentication() =>
            {
                match (*code >= 500, self.is_about_policy(), self.stage) {
                    (false, ..) | (true, true, Stage::Recipient) => Verdict::NotNow,
                    (true, true, _) => Verdict::NotHere,
                    (true, false, _) => Verdict::Never,
                }
            }
            _ => Verdict::Away,
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

    fn verdict(stage: Stage, what: What) -> Verdict {
        (Failure { stage, what }).verdict()
    }

    #[test]
    fn what_becomes_of_a_mail_depends_on_how_far_it_got() {
        use Verdict::{Away, Never, NotNow, Unknown};
        let reply = |code| What::Reply(code, "words".into());
        let faults = || [reply(421), reply(451), reply(554), What::Broken("reset".into()), What::TimedOut];
        for (stage, expected) in [
            (Stage::Connect, [Away; 5]),
            (Stage::Tls, [Away; 5]),
            (Stage::Hello, [Away; 5]),
            (Stage::StartTls, [Away; 5]),
            (Stage::Auth, [Away; 5]),
            (Stage::Sender, [Away; 5]),
            (Stage::Recipient, [Away, NotNow, Never, Away, Away]),
            (Stage::Data, [Away, NotNow, Never, Away, Away]),
            (Stage::Text, [Away; 5]),
            (Stage::Accepting, [Away, NotNow, Never, Unknown, Unknown]),
        ] {
            assert_eq!(faults().map(|fault| verdict(stage, fault)), expected, "{stage}");
        }
    }

    #[test]
    fn what_is_the_servers_own_rule_is_no_word_on_the_mail() {
        let reply = |code, words: &str| What::Reply(code, words.into());
        assert_eq!(verdict(Stage::Recipient, reply(530, "authentication required")), Verdict::Away);
        assert_eq!(verdict(Stage::Accepting, reply(530, "5.7.0 authentication required")), Verdict::Away);
        assert_eq!(verdict(Stage::Recipient, reply(550, "5.7.1 relaying denied")), Verdict::NotNow);
        assert_eq!(verdict(Stage::Recipient, reply(550, "5.1.1 no such mailbox")), Verdict::Never);
        assert_eq!(verdict(Stage::Accepting, reply(554, "5.7.1 looks like spam")), Verdict::NotHere);
    }
}
