//! One connection, from the moment it stands until it is lost: who we are there, in which channels, and what became of the
//! message under way.
//!
//! It is a state machine that is given lines, messages and the time, and answers with [`Output`]s; it reads no clock and
//! has no socket. Everything that waits has a deadline, so a server that says nothing, or nonsense, costs time and no more.
//!
//! A line to a channel gets no answer when it is accepted. So a PING follows the lines of a message: servers work in order,
//! and when its PONG is there without an error before it, the lines were taken. An error that names the channel says that
//! one of them was not. Answers to commands go when no message is under way, with what is left of the pace.

mod listener;
mod nick;

use crate::answer::Answer;
use crate::bucket::Bucket;
use crate::options::{Channel, Mechanism, Options, Sasl};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::notifier::{MessageId, Outcome, Scope, one_line};
use common::time::UnixMillis;
use irc_proto::{CapSubCommand, Command, Message, Prefix};
#[cfg(test)]
pub(crate) use listener::To;
pub(crate) use listener::{Asked, Requested};
use listener::{Listener, Speaker, Vouched};
pub(crate) use nick::fold;
use nick::{alternate, same};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Level;

/// From the connection to the end of the MOTD. Servers look up names and idents first.
const REGISTER_WITHIN: Duration = Duration::from_secs(40);
/// From the welcome to the end of the MOTD, which some servers do not say.
const MOTD_WITHIN: Duration = Duration::from_secs(5);
/// For the answer to a JOIN.
const JOIN_WITHIN: Duration = Duration::from_secs(20);
/// So long do messages for other channels wait until each channel was tried.
const TRIED_WITHIN: Duration = Duration::from_secs(10);
/// So long waits a message for its channel.
const WAIT_FOR_CHANNEL: Duration = Duration::from_secs(15);
/// From the PING after a message to its PONG. A server that slows us down may need a while.
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// Between two tries to join, doubled up to the second.
const REJOIN_AFTER: Duration = Duration::from_secs(5);
const REJOIN_AT_MOST: Duration = Duration::from_mins(5);
/// Who was in a channel for so long, and was put out, begins again with the shortest wait.
const WELL_JOINED: Duration = Duration::from_mins(1);
/// Between two tries to get the configured nick back.
const REGAIN_AFTER: Duration = Duration::from_mins(3);
/// More lines in one window than any server says, even while we join a large channel.
const FLOOD_LINES: u32 = 10_000;
const FLOOD_WINDOW: Duration = Duration::from_secs(10);
/// AUTHENTICATE takes the response in pieces of this size (IRCv3 SASL 3.1).
const SASL_PIECE_BYTES: usize = 400;
/// What the network says with each line (IRCv3): of which account it is, and whether a bot said it.
const TAG_CAPABILITIES: [&str; 2] = ["account-tag", "message-tags"];
const BOT_TAGS: [&str; 3] = ["bot", "draft/bot", "inspircd.org/bot"];
/// Begins the token of the PING after answers.
const SAID: &str = "cairn-said-";
/// Of what a server says, in our log and ledger.
const MAX_QUOTED_CHARS: usize = 200;

/// What has to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    /// This line goes to the server.
    Send(String),
    /// What became of the message under way.
    Done(Outcome),
    /// The connection is of no use any more, for this reason.
    Close(String),
    /// The server, or somebody there, said what it may not, by this name in the counters.
    Refused(&'static str),
    /// Somebody wants to know something, or orders it, and may.
    Ask(Box<Asked>),
    /// Worth a log line: something changed.
    Say(Level, String),
}

/// A connection that stands.
#[derive(Debug)]
pub(crate) struct Session {
    options: Arc<Options>,
    stage: Stage,
    began: Instant,
    /// When the server last said something.
    heard: Instant,
    /// When it was asked whether it is there.
    pinged: Option<Instant>,
    nick: String,
    /// Which alternate of the configured nick that is.
    attempt: usize,
    /// The longest nick that this server takes, as far as we know.
    nick_bytes: usize,
    /// When to try for the configured nick; none while we have it, or cannot have it.
    regain_at: Option<Instant>,
    logged_in: bool,
    channels: Vec<Presence>,
    bucket: Bucket,
    message: Option<UnderWay>,
    /// How many messages there were: makes each PING another one.
    serial: u64,
    window: (Instant, u32),
    /// What the server offers, as far as it has said so.
    offered: Offered,
    /// Each line says of which account it is.
    is_vouched: bool,
    listener: Listener,
    said: Said,
    /// The last thing that the server complained about before it would have us.
    complaint: Option<String>,
    outputs: Vec<Output>,
}

/// Capabilities of the server that are of use to us.
#[derive(Debug, Default)]
struct Offered {
    sasl: bool,
    /// Of [`TAG_CAPABILITIES`].
    tags: [bool; 2],
}

/// How far registration has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What the server can do was asked for.
    Capabilities,
    /// SASL was asked for.
    Authenticating,
    /// Nothing is left for us to say.
    Registering,
    /// Our nick is ours; the MOTD follows.
    Welcomed(Instant),
    /// Done.
    Registered(Instant),
}

/// Answers that the server may still refuse. It works in order: until the PONG, a refusal is about them, and not about the
/// message that follows.
#[derive(Debug, Default)]
struct Said {
    /// There are some without a PING after them.
    is_open: bool,
    /// PINGs without a PONG.
    asked: u32,
}

impl Said {
    fn is_settled(&self) -> bool {
        !self.is_open && self.asked == 0
    }
}

/// How we stand in one channel.
#[derive(Debug)]
struct Presence {
    channel: Channel,
    state: Place,
    /// How often in a row it was refused, or ended soon.
    failures: u32,
    /// Why we are not there, as it was logged.
    why: Option<String>,
    /// Whether a first try was answered.
    tried: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Out { again_at: Instant },
    Joining { since: Instant },
    In { since: Instant },
}

/// The message that is being sent.
#[derive(Debug)]
struct UnderWay {
    /// Which of the channels; none if it is not configured.
    channel: usize,
    lines: Vec<String>,
    began: Instant,
    sent: usize,
    refused: usize,
    why: Option<String>,
    /// The token that comes back when all lines were taken, or refused.
    token: String,
    asked: Option<Instant>,
}

impl Session {
    /// The connection stands; what is to be said first is among the outputs.
    pub(crate) fn new(options: Arc<Options>, now: Instant) -> Self {
        let absent = |channel: &Channel| Presence {
            channel: channel.clone(),
            state: Place::Out { again_at: now },
            failures: 0,
            why: None,
            tried: false,
        };
        let asks = options.sasl.is_some() || options.takes_commands();
        let mut session = Self {
            stage: if asks { Stage::Capabilities } else { Stage::Registering },
            began: now,
            heard: now,
            pinged: None,
            nick: options.nick.clone(),
            attempt: 0,
            nick_bytes: options.nick.len().max(nick::COMMON_BYTES),
            regain_at: None,
            logged_in: false,
            channels: options.channels.iter().map(absent).collect(),
            bucket: Bucket::new(options.line_interval, options.burst, now),
            message: None,
            serial: 0,
            window: (now, 0),
            offered: Offered::default(),
            is_vouched: false,
            listener: Listener::new(options.clone()),
            said: Said::default(),
            complaint: None,
            outputs: Vec::new(),
            options,
        };
        let options = session.options.clone();
        if asks {
            session.send_now(now, "CAP LS 302".to_owned());
        }
        if let Some(password) = &options.password {
            session.send_now(now, format!("PASS :{}", password.reveal()));
        }
        session.send_now(now, format!("NICK {}", options.nick));
        session.send_now(now, format!("USER {} 0 * :{}", options.user, options.realname));
        session
    }

    /// What is to be done since this was last asked.
    pub(crate) fn outputs(&mut self) -> Vec<Output> {
        self.outputs.extend(self.listener.outputs());
        std::mem::take(&mut self.outputs)
    }

    /// The nick that we have, or try to have.
    pub(crate) fn nick(&self) -> &str {
        &self.nick
    }

    /// Since when the server has us.
    pub(crate) fn registered(&self) -> Option<Instant> {
        match self.stage {
            Stage::Registered(since) => Some(since),
            Stage::Capabilities | Stage::Authenticating | Stage::Registering | Stage::Welcomed(_) => None,
        }
    }

    /// Whether it makes sense to send: we are registered, and each channel was tried or took too long.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.registered().is_some_and(|since| self.all_tried() || now >= since + TRIED_WITHIN)
    }

    /// When [`tick`](Self::tick) is due, if nothing happens before.
    pub(crate) fn next_deadline(&self, now: Instant) -> Instant {
        let mut due = match self.pinged {
            Some(pinged) => pinged + self.options.ping_timeout,
            None => self.heard + self.options.ping_after,
        };
        let free = self.bucket.next(now);
        match self.stage {
            Stage::Capabilities | Stage::Authenticating | Stage::Registering => {
                due = due.min(self.began + REGISTER_WITHIN);
            }
            Stage::Welcomed(since) => due = due.min(since + MOTD_WITHIN),
            Stage::Registered(since) => {
                if !self.all_tried() && now < since + TRIED_WITHIN {
                    due = due.min(since + TRIED_WITHIN);
                }
                for presence in &self.channels {
                    match presence.state {
                        Place::Out { again_at } => due = due.min(again_at.max(free)),
                        Place::Joining { since } => due = due.min(since + JOIN_WITHIN),
                        Place::In { .. } => (),
                    }
                }
                if let Some(at) = self.regain_at {
                    due = due.min(at.max(free));
                }
                if let Some(message) = &self.message {
                    due = due.min(match message.asked {
                        Some(asked) => asked + PONG_WITHIN,
                        None if !self.is_in(message.channel) => message.began + WAIT_FOR_CHANNEL,
                        None => free,
                    });
                } else if self.listener.is_waiting() {
                    due = due.min(self.bucket.next_in_half(now));
                }
                if let Some(at) = self.listener.next_deadline() {
                    due = due.min(at);
                }
            }
        }
        due
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        match self.stage {
            Stage::Capabilities | Stage::Authenticating | Stage::Registering if now >= self.began + REGISTER_WITHIN => {
                let complaint = self.complaint.as_ref().map(|text| format!(" after {text}")).unwrap_or_default();
                return self.close(format!("not registered within {} s{complaint}", REGISTER_WITHIN.as_secs()));
            }
            Stage::Welcomed(since) if now >= since + MOTD_WITHIN => self.register(now),
            Stage::Capabilities
            | Stage::Authenticating
            | Stage::Registering
            | Stage::Welcomed(_)
            | Stage::Registered(_) => (),
        }
        match self.pinged {
            Some(pinged) if now >= pinged + self.options.ping_timeout => {
                let silent = now.duration_since(self.heard).as_secs();
                return self.close(format!("nothing heard for {silent} s"));
            }
            None if now >= self.heard + self.options.ping_after => {
                self.pinged = Some(now);
                self.send_now(now, "PING :cairn-alive".to_owned());
            }
            Some(_) | None => (),
        }
        if self.registered().is_some() {
            self.join(now);
            self.deliver(now);
            self.listener.tick(now);
            self.answer_people(now);
            self.regain(now);
        }
    }

    /// Sends a message. `lines` are whole commands. One at a time: what was under way before is forgotten.
    pub(crate) fn send(&mut self, now: Instant, to: &Channel, id: MessageId, lines: Vec<String>) {
        self.serial += 1;
        let Some(channel) = self.channels.iter().position(|presence| same(&presence.channel.name, &to.name)) else {
            let why = format!("{} is not among the channels of {}", to.name, self.options.name);
            return self.outputs.push(Output::Done(Outcome::Never(why)));
        };
        let token = format!("cairn-{id}-{}", self.serial);
        self.message =
            Some(UnderWay { channel, lines, began: now, sent: 0, refused: 0, why: None, token, asked: None });
        self.tick(now);
    }

    /// What cprocessd says to what was handed out, which is said when it is its turn. `wall` is for ages.
    pub(crate) fn answer(&mut self, now: Instant, wall: UnixMillis, asked: &Asked, answer: &Answer) {
        self.listener.answered(now, wall, asked, answer);
    }

    /// The connection is lost, or was closed.
    pub(crate) fn lost(&mut self, why: &str) {
        if let Some(message) = self.message.take() {
            self.outputs.push(Output::Done(Outcome::Retry {
                why: format!("the connection to {} was lost: {why}", self.options.name),
                scope: Scope::Lane,
                maybe_accepted: message.sent > message.refused,
                after: None,
            }));
        }
    }

    /// A line of the server, without its end. What is no IRC is passed over.
    pub(crate) fn hear(&mut self, now: Instant, line: &str) {
        self.heard = now;
        self.pinged = None;
        if now.duration_since(self.window.0) > FLOOD_WINDOW {
            self.window = (now, 0);
        }
        self.window.1 += 1;
        if self.window.1 > FLOOD_LINES {
            // Once for all that was read with the first of them.
            if self.window.1 == FLOOD_LINES + 1 {
                self.outputs.push(Output::Refused("flood"));
            }
            return self.close(format!("more than {FLOOD_LINES} lines in {} s", FLOOD_WINDOW.as_secs()));
        }
        match line.parse::<Message>() {
            Ok(message) => self.understand(now, &message),
            Err(_) => self.outputs.push(Output::Refused("undecodable")),
        }
        self.tick(now);
    }

    fn understand(&mut self, now: Instant, message: &Message) {
        let source = message.source_nickname().unwrap_or_default();
        let ours = same(source, &self.nick);
        if !ours {
            self.watch(now, message, source);
        }
        match &message.command {
            Command::PING(token, None) => self.send_now(now, format!("PONG :{token}")),
            Command::PING(token, Some(second)) => self.send_now(now, format!("PONG {token} :{second}")),
            Command::PONG(first, second) => self.answered(second.as_ref().unwrap_or(first)),
            Command::ERROR(text) => self.close(format!("the server says {:?}", quoted(text))),
            Command::CAP(_, CapSubCommand::LS, more, list) => {
                // The star before the list says that more lines of it follow.
                let (list, more) =
                    if let Some(list) = list { (Some(list), more.is_some()) } else { (more.as_ref(), false) };
                self.offered(now, list.map_or("", String::as_str), more);
            }
            Command::CAP(_, CapSubCommand::ACK, one, other) => {
                let is_given = |capability| lists(one.as_ref(), other.as_ref(), capability);
                if is_given("account-tag") {
                    self.is_vouched = true;
                }
                if let Some(Sasl { mechanism, .. }) = &self.options.sasl
                    && self.stage == Stage::Authenticating
                    && is_given("sasl")
                {
                    let name = match mechanism {
                        Mechanism::Plain { .. } => "PLAIN",
                        Mechanism::External(_) => "EXTERNAL",
                    };
                    self.send_now(now, format!("AUTHENTICATE {name}"));
                }
            }
            Command::CAP(_, CapSubCommand::NAK, one, other)
                if !TAG_CAPABILITIES.iter().any(|tags| lists(one.as_ref(), other.as_ref(), tags)) =>
            {
                self.not_logged_in(now, "the server refuses SASL", true);
            }
            Command::CAP(_, CapSubCommand::DEL, one, other) if lists(one.as_ref(), other.as_ref(), "account-tag") => {
                self.is_vouched = false;
            }
            Command::AUTHENTICATE(text) if text == "+" => self.authenticate(now),
            Command::NICK(new) if ours => self.renamed(new),
            Command::NICK(_) | Command::QUIT(_) if same(source, &self.wanted_nick()) && self.regain_at.is_some() => {
                self.regain_at = Some(now);
            }
            Command::JOIN(channel, ..) if ours => self.joined(now, channel),
            Command::PART(channel, _) if ours => self.left(now, channel, "made to leave"),
            Command::KICK(channel, nick, reason) if same(nick, &self.nick) => {
                let reason = reason.as_ref().map(|text| format!(": {}", quoted(text))).unwrap_or_default();
                self.left(now, channel, &format!("kicked by {}{reason}", quoted(source)));
            }
            Command::INVITE(_, channel) => {
                if let Some(Presence { state: Place::Out { again_at }, .. }) = self.presence(channel) {
                    *again_at = now;
                }
            }
            Command::Response(response, args) => self.numeric(now, *response as u16, args),
            Command::Raw(command, args) => {
                if let Ok(number) = command.parse() {
                    self.numeric(now, number, args);
                }
            }
            _ => (),
        }
    }

    /// What others do and say.
    fn watch(&mut self, now: Instant, message: &Message, source: &str) {
        let position = |name: &str| self.position(name);
        match &message.command {
            Command::JOIN(channel, ..) => {
                if let Some(index) = position(channel) {
                    self.listener.joined(index, source);
                }
            }
            Command::PART(channel, _) => {
                if let Some(index) = position(channel) {
                    self.listener.parted(index, source);
                }
            }
            Command::KICK(channel, nick, _) => {
                if let Some(index) = position(channel) {
                    self.listener.parted(index, nick);
                }
            }
            Command::QUIT(_) => self.listener.gone(source),
            Command::NICK(new) => self.listener.renamed(source, new),
            Command::PRIVMSG(target, text) => {
                let channel = position(target);
                if channel.is_none() && !same(target, &self.nick) {
                    return;
                }
                if let Some(speaker) = self.speaker(message) {
                    self.listener.hear(now, &speaker, channel, text);
                }
            }
            _ => (),
        }
    }

    /// Who says this, unless it is a server or another bot.
    fn speaker(&self, message: &Message) -> Option<Speaker> {
        let Some(Prefix::Nickname(nick, user, host)) = &message.prefix else { return None };
        let tags = message.tags.as_deref().unwrap_or_default();
        if !is_nick(nick) || !is_word(user) || !is_host(host) || tags.iter().any(|tag| BOT_TAGS.contains(&&*tag.0)) {
            return None;
        }
        let account = tags.iter().find(|tag| tag.0 == "account").and_then(|tag| tag.1.clone());
        let account = match account {
            _ if !self.is_vouched => Vouched::Unasked,
            Some(account) => Vouched::Account(quoted(&account)),
            None => Vouched::Nobody,
        };
        Some(Speaker { nick: nick.clone(), user: user.clone(), host: host.clone(), account })
    }

    fn numeric(&mut self, now: Instant, number: u16, args: &[String]) {
        match number {
            1 => {
                if let Some(nick) = args.first().filter(|nick| is_word(nick)) {
                    self.nick.clone_from(nick);
                }
                if self.registered().is_none() {
                    self.stage = Stage::Welcomed(now);
                }
            }
            5 => self.supports(args),
            311 | 318 | 330 => self.listener.whois_says(number, args),
            // Names of a channel: whose list we are given, its kind, the channel, the names.
            353 => {
                if let [_, _, channel, names] = args
                    && let Some(index) = self.position(channel)
                {
                    self.listener.named(index, names);
                }
            }
            // The end of the MOTD, or that there is none.
            376 | 422 => {
                if let Stage::Welcomed(_) = self.stage {
                    self.register(now);
                }
            }
            903 | 907 => {
                self.logged_in = true;
                self.end_capabilities(now);
            }
            902 | 904 | 905 | 906 | 908 if self.stage == Stage::Authenticating => {
                let says = args.last().map_or_else(String::new, |text| format!(": {}", quoted(text)));
                let by = match self.options.sasl.as_ref().map(|sasl| &sasl.mechanism) {
                    Some(Mechanism::Plain { user, .. }) => format!("as {user}"),
                    Some(Mechanism::External(_)) | None => "by certificate".to_owned(),
                };
                self.not_logged_in(now, &format!("SASL {by} failed ({number}{says})"), false);
            }
            400..600 => self.error(now, number, args),
            _ => (),
        }
    }

    fn error(&mut self, now: Instant, number: u16, args: &[String]) {
        let says = args.last().map(|text| quoted(text)).unwrap_or_default();
        let named = args.iter().skip(1).find_map(|arg| self.position(arg));
        match (number, named) {
            (_, Some(channel)) => self.refused(now, channel, number, &says),
            // It is about an answer.
            (411 | 412 | 417, None) if !self.said.is_settled() => (),
            // A server that does not know CAP.
            (421 | 451, None) if self.stage == Stage::Capabilities && args.iter().any(|arg| arg == "CAP") => {
                match &self.options.sasl {
                    Some(_) => self.not_logged_in(now, "the server has no SASL", true),
                    None => self.stage = Stage::Registering,
                }
            }
            // No recipient, no text, a line too long: meant is the last line that we sent.
            (411 | 412 | 417, None) => {
                if let Some(message) = self.message.as_mut().filter(|message| message.sent > message.refused) {
                    message.refused += 1;
                    message.why = Some(format!("{number} {says}"));
                }
            }
            (431..=433 | 436 | 437, None) => self.nick_refused(now, number, &says),
            (_, None) if self.registered().is_none() => self.complaint = Some(format!("{number} {says}")),
            (_, None) => (),
        }
    }

    // Registration.

    fn offered(&mut self, now: Instant, list: &str, more: bool) {
        if self.stage != Stage::Capabilities {
            return;
        }
        for capability in list.split(' ') {
            let name = capability.split_once('=').map_or(capability, |(name, _)| name);
            self.offered.sasl |= name == "sasl";
            for (known, is_offered) in TAG_CAPABILITIES.iter().zip(&mut self.offered.tags) {
                *is_offered |= *known == name;
            }
        }
        if more {
            return;
        }
        // Each by its own line, as one is refused with all that stand beside it.
        if self.options.takes_commands() {
            for (capability, _) in TAG_CAPABILITIES.iter().zip(self.offered.tags).filter(|(_, is_offered)| *is_offered)
            {
                self.send_now(now, format!("CAP REQ :{capability}"));
            }
        }
        match (&self.options.sasl, self.offered.sasl) {
            (Some(_), true) => {
                self.stage = Stage::Authenticating;
                self.send_now(now, "CAP REQ :sasl".to_owned());
            }
            (Some(_), false) => self.not_logged_in(now, "the server has no SASL", true),
            (None, _) => self.end_capabilities(now),
        }
    }

    fn authenticate(&mut self, now: Instant) {
        let Some(sasl) = self.options.sasl.clone().filter(|_| self.stage == Stage::Authenticating) else { return };
        let response = match &sasl.mechanism {
            Mechanism::Plain { user, password } => STANDARD.encode(format!("\0{user}\0{}", password.reveal())),
            // The certificate has said it all.
            Mechanism::External(_) => String::new(),
        };
        for piece in response.as_bytes().chunks(SASL_PIECE_BYTES) {
            self.send_now(now, format!("AUTHENTICATE {}", String::from_utf8_lossy(piece)));
        }
        // A last piece of full size needs an end.
        if response.len().is_multiple_of(SASL_PIECE_BYTES) {
            self.send_now(now, "AUTHENTICATE +".to_owned());
        }
    }

    /// `missing`: SASL as such, for which a password for NickServ makes up.
    fn not_logged_in(&mut self, now: Instant, why: &str, missing: bool) {
        if !matches!(self.stage, Stage::Capabilities | Stage::Authenticating) {
            return;
        }
        let required = self.options.sasl.as_ref().is_some_and(|sasl| sasl.required);
        if required && !(missing && self.options.nickserv.is_some()) {
            return self.close(format!("{why}, and sasl_required is set"));
        }
        self.say(Level::WARN, format!("{why}; going on without it"));
        self.end_capabilities(now);
    }

    fn end_capabilities(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Capabilities | Stage::Authenticating) {
            self.stage = Stage::Registering;
            self.send_now(now, "CAP END".to_owned());
        }
    }

    fn register(&mut self, now: Instant) {
        self.stage = Stage::Registered(now);
        // What it took to come in is not held against what we came for.
        self.bucket = Bucket::new(self.options.line_interval, self.options.burst, now);
        if !same(&self.nick, &self.wanted_nick()) {
            self.regain_at = Some(now + REGAIN_AFTER);
        }
        if let Some(password) = self.options.nickserv.clone().filter(|_| !self.logged_in) {
            self.send_now(now, format!("PRIVMSG NickServ :IDENTIFY {}", password.reveal()));
        }
    }

    fn supports(&mut self, tokens: &[String]) {
        let nicklen = tokens.iter().find_map(|token| token.strip_prefix("NICKLEN=")?.parse().ok());
        if let Some(nicklen @ 1..) = nicklen {
            self.nick_bytes = nicklen;
        }
    }

    // The nick.

    fn wanted_nick(&self) -> String {
        alternate(&self.options.nick, 0, self.nick_bytes).unwrap_or_else(|| self.options.nick.clone())
    }

    fn nick_refused(&mut self, now: Instant, number: u16, says: &str) {
        if self.registered().is_some() {
            // A nick that this server does not allow need not be tried again.
            self.regain_at = self.regain_at.filter(|_| number != 432).map(|_| now + REGAIN_AFTER);
            return;
        }
        if matches!(self.stage, Stage::Welcomed(_)) {
            return;
        }
        // Not allowed may mean too long, and the limit is not known before the welcome.
        if number == 432 && self.nick.len() > nick::SHORTEST_LIMIT_BYTES {
            self.nick_bytes = nick::SHORTEST_LIMIT_BYTES;
            self.attempt = 0;
        } else {
            self.attempt += 1;
        }
        match alternate(&self.options.nick, self.attempt, self.nick_bytes) {
            Some(nick) => {
                self.say(Level::INFO, format!("nick {} refused ({number} {says}), trying {nick}", self.nick));
                self.send_now(now, format!("NICK {nick}"));
                self.nick = nick;
            }
            None => self.close(format!("no nick was free, the last refused with {number} {says}")),
        }
    }

    fn renamed(&mut self, new: &str) {
        if !is_word(new) {
            return;
        }
        self.say(Level::INFO, format!("nick is {new} now"));
        new.clone_into(&mut self.nick);
        let lost = !same(new, &self.wanted_nick());
        self.regain_at = lost.then(|| self.heard + REGAIN_AFTER);
    }

    fn regain(&mut self, now: Instant) {
        if self.regain_at.is_some_and(|at| at <= now) && self.bucket.allows(now) {
            self.regain_at = Some(now + REGAIN_AFTER);
            self.send_now(now, format!("NICK {}", self.wanted_nick()));
        }
    }

    // Channels.

    fn position(&self, name: &str) -> Option<usize> {
        self.channels.iter().position(|presence| same(&presence.channel.name, name))
    }

    fn presence(&mut self, name: &str) -> Option<&mut Presence> {
        self.position(name).map(|index| &mut self.channels[index])
    }

    fn is_in(&self, channel: usize) -> bool {
        matches!(self.channels[channel].state, Place::In { .. })
    }

    fn all_tried(&self) -> bool {
        self.channels.iter().all(|presence| presence.tried)
    }

    fn join(&mut self, now: Instant) {
        for index in 0..self.channels.len() {
            match self.channels[index].state {
                Place::Out { again_at } if again_at <= now && self.bucket.allows(now) => {
                    self.channels[index].state = Place::Joining { since: now };
                    let Channel { name, key, .. } = &self.channels[index].channel;
                    let line = match key {
                        Some(key) => format!("JOIN {name} {}", key.reveal()),
                        None => format!("JOIN {name}"),
                    };
                    self.send_now(now, line);
                }
                Place::Joining { since } if now >= since + JOIN_WITHIN => {
                    self.stay_out(now, index, "no answer to JOIN");
                }
                Place::Out { .. } | Place::Joining { .. } | Place::In { .. } => (),
            }
        }
    }

    fn joined(&mut self, now: Instant, name: &str) {
        let Some(presence) = self.presence(name) else { return };
        presence.state = Place::In { since: now };
        presence.tried = true;
        let again = if presence.why.take().is_some() { " again" } else { "" };
        let text = format!("in {}{again}", presence.channel.name);
        self.say(Level::INFO, text);
    }

    fn left(&mut self, now: Instant, name: &str, why: &str) {
        if let Some(index) = self.position(name) {
            self.stay_out(now, index, why);
        }
    }

    /// Not in a channel, and to be tried again later. Logged when the reason is another than last time.
    fn stay_out(&mut self, now: Instant, index: usize, why: &str) {
        self.listener.left(index);
        let presence = &mut self.channels[index];
        if let Place::In { since } = presence.state
            && now >= since + WELL_JOINED
        {
            presence.failures = 0;
        }
        let wait = (REJOIN_AFTER * 2_u32.pow(presence.failures.min(8))).min(REJOIN_AT_MOST);
        presence.failures += 1;
        presence.state = Place::Out { again_at: now + wait };
        presence.tried = true;
        if presence.why.as_deref() != Some(why) {
            presence.why = Some(why.to_owned());
            let text = format!("not in {}: {why}; trying again", presence.channel.name);
            self.say(Level::WARN, text);
        }
    }

    /// An error about a channel: of a JOIN, or of a line of the message under way.
    fn refused(&mut self, now: Instant, index: usize, number: u16, says: &str) {
        let why = format!("{number} {says}");
        if let Place::Joining { .. } = self.channels[index].state {
            return self.stay_out(now, index, &why);
        }
        if self.said.is_settled()
            && let Some(message) = &mut self.message
            && message.channel == index
            && message.refused < message.sent
        {
            message.refused += 1;
            message.why = Some(why.clone());
        }
        // Not on that channel, or there is none: we were mistaken.
        if matches!(number, 403 | 442) && self.is_in(index) {
            self.stay_out(now, index, &why);
        }
    }

    // The message under way.

    fn deliver(&mut self, now: Instant) {
        let Some(channel) = self.message.as_ref().map(|message| message.channel) else { return };
        let is_in = self.is_in(channel);
        let Some(message) = &mut self.message else { return };
        if let Some(asked) = message.asked {
            if now >= asked + PONG_WITHIN {
                self.close(format!("no PONG within {} s after a message", PONG_WITHIN.as_secs()));
            }
            return;
        }
        if !is_in && message.sent == 0 {
            if now >= message.began + WAIT_FOR_CHANNEL {
                let Presence { channel, why, .. } = &self.channels[channel];
                let why = format!("not in {}: {}", channel.name, why.as_deref().unwrap_or("no answer to JOIN"));
                self.done(Outcome::Retry { why, scope: Scope::Recipient, maybe_accepted: false, after: None });
            }
            return;
        }
        if message.sent == 0 {
            self.end_answers(now);
        }
        let Some(message) = &mut self.message else { return };
        // What was refused, or lost its channel, ends here; the PONG then tells how much of it was taken.
        while is_in && message.refused == 0 && message.sent < message.lines.len() {
            if !self.bucket.allows(now) {
                return;
            }
            self.bucket.take(now);
            self.outputs.push(Output::Send(message.lines[message.sent].clone()));
            message.sent += 1;
        }
        message.asked = Some(now);
        // It costs nothing in the bucket: nothing more is sent before it is answered, which is a brake of its own.
        self.outputs.push(Output::Send(format!("PING :{}", message.token)));
    }

    /// Says what people asked for while there is no message: those go first, and have room at once for some lines.
    fn answer_people(&mut self, now: Instant) {
        while self.message.is_none() && self.listener.is_waiting() && self.bucket.next_in_half(now) <= now {
            if let Some(nick) = self.listener.whois() {
                self.send_now(now, format!("WHOIS {nick}"));
            } else if let Some((to_channel, line)) = self.listener.next_reply() {
                self.said.is_open |= to_channel;
                self.send_now(now, line);
            }
        }
        if !self.listener.is_waiting() {
            self.end_answers(now);
        }
    }

    /// Has the server tell when it is through with the answers.
    fn end_answers(&mut self, now: Instant) {
        if std::mem::take(&mut self.said.is_open) {
            self.said.asked += 1;
            self.serial += 1;
            self.send_now(now, format!("PING :{SAID}{}", self.serial));
        }
    }

    /// A PONG.
    fn answered(&mut self, token: &str) {
        if token.starts_with(SAID) {
            self.said.asked = self.said.asked.saturating_sub(1);
        }
        let Some(message) = self.message.take_if(|message| message.asked.is_some() && message.token == token) else {
            return;
        };
        // What was said before it is answered, too, whether or not its own PONG has come.
        self.said = Said::default();
        let channel = &self.channels[message.channel].channel.name;
        let outcome = if message.sent == message.lines.len() && message.refused == 0 {
            Outcome::Sent(format!("taken by {} for {channel}, PONG after {} lines", self.options.name, message.sent))
        } else {
            let why = message.why.as_deref().unwrap_or("put out of it");
            Outcome::Retry {
                why: format!(
                    "{channel} took {} of {} lines: {why}",
                    message.sent - message.refused,
                    message.lines.len()
                ),
                scope: Scope::Recipient,
                maybe_accepted: message.sent > message.refused,
                after: None,
            }
        };
        self.outputs.push(Output::Done(outcome));
    }

    fn done(&mut self, outcome: Outcome) {
        self.message = None;
        self.outputs.push(Output::Done(outcome));
    }

    /// What keeps the connection alive, or opens a channel, waits for nothing but is counted.
    fn send_now(&mut self, now: Instant, line: String) {
        self.bucket.take(now);
        self.outputs.push(Output::Send(line));
    }

    fn close(&mut self, why: String) {
        if !self.outputs.iter().any(|output| matches!(output, Output::Close(_))) {
            self.outputs.push(Output::Close(why));
        }
    }

    fn say(&mut self, level: Level, text: String) {
        self.outputs.push(Output::Say(level, text));
    }
}

/// Of what the server says.
fn quoted(text: &str) -> String {
    one_line(text, MAX_QUOTED_CHARS)
}

/// Whether a list of capabilities has this one. It is the last argument, wherever that was put.
fn lists(one: Option<&String>, other: Option<&String>, wanted: &str) -> bool {
    other.or(one).is_some_and(|list| list.split(' ').any(|capability| capability == wanted))
}

/// What may be asked about, and answered: one nick, and no pattern, list or channel.
fn is_nick(text: &str) -> bool {
    is_word(text) && !text.contains([',', '*', '?', '!', '@', ':', '#', '&', '$'])
}

/// What servers show of a client, or let it show.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// What may stand as one argument.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
pub(crate) mod tests;
