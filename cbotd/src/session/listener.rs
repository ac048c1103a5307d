//! Who may ask or order what, how often, and what is still to be said to them.
//!
//! Whoever is in a channel that takes commands may ask, there or in a query. An order is for the accounts that are configured,
//! and only the network's word counts for whose account it is: the tag `account` on the line itself, or where the network has
//! no such tags, WHOIS, asked anew for each order. A nick proves nothing. Nor does WHOIS prove whose words they were if the
//! nick has changed hands meanwhile, so its user and host have to be those of the line.
//!
//! Everything is bounded, and what is beyond a bound is dropped and counted: a flood of commands costs its answers, and no
//! alert. Nicks are compared as they are written, since servers always write them alike; a server with another idea of upper
//! and lower case than ours could otherwise make two people one.

use super::Output;
use crate::answer::{Answer, Sheet};
use crate::bucket::Bucket;
use crate::command::{self, Command, Heard, Order, Question};
use crate::options::Options;
use crate::paint::cut;
use common::time::UnixMillis;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Level;

/// Commands of one person: so many at once, then one in each interval.
const PERSON_BURST: u32 = 5;
const PERSON_INTERVAL: Duration = Duration::from_secs(4);
/// People whose commands are counted. The next one has to wait until one of them has been quiet for long enough.
const MAX_PEOPLE: usize = 256;
/// Nicks in all channels together. Who is beyond it is not known to be there.
const MAX_MEMBERS: usize = 20_000;
/// Commands that were handed out and not answered yet. The next one is dropped; for orders there is as much room again.
const MAX_ASKED: usize = 4;
/// Orders whose account is being asked for, one of each person. The next one is dropped.
const MAX_VOUCHING: usize = 4;
/// For the answer to WHOIS.
const VOUCHED_WITHIN: Duration = Duration::from_secs(20);
/// Lines that wait to be said. A command that comes meanwhile is dropped; for operators there is as much room again.
const MAX_REPLIES: usize = 16;
/// Of one answer; the rest is for `!more`.
const PAGE_LINES: usize = 4;
/// Answers of which a rest is kept; the oldest makes way.
const MAX_RESTS: usize = 32;
const REST_FOR: Duration = Duration::from_mins(10);
/// Of what people are called, in our log.
const MAX_PERSON_BYTES: usize = 120;
/// What may stand before a nick in a list of names (RPL_ISUPPORT PREFIX, and what servers have had there).
const RANKS: [char; 7] = ['~', '&', '@', '%', '+', '!', '.'];

/// Whom an answer goes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum To {
    /// To somebody in a channel.
    Channel { index: usize, nick: String },
    /// To somebody alone.
    Query { nick: String },
}

impl To {
    fn nick(&self) -> &str {
        match self {
            To::Channel { nick, .. } | To::Query { nick } => nick,
        }
    }
}

/// A command that cprocessd has to answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) to: To,
    pub(crate) request: Requested,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Requested {
    Question(Question),
    /// The account is one of the operators, as the configuration has it.
    Order {
        order: Order,
        account: String,
    },
}

/// Who said something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Speaker {
    pub(super) nick: String,
    pub(super) user: String,
    pub(super) host: String,
    /// What the line itself says of the account, if the network says so with each line.
    pub(super) account: Vouched,
}

/// The network's word for an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Vouched {
    /// It was not given.
    Unasked,
    /// They are not logged in.
    Nobody,
    Account(String),
}

impl Speaker {
    fn shown(&self) -> String {
        cut(&format!("{}!{}@{}", self.nick, self.user, self.host), MAX_PERSON_BYTES)
    }
}

/// An order that waits for the network's word.
#[derive(Debug)]
struct Vouching {
    to: To,
    order: Order,
    speaker: Speaker,
    began: Instant,
    /// WHOIS was asked.
    is_asked: bool,
    /// It speaks of the same user and host.
    is_same: bool,
}

/// How often somebody said something.
#[derive(Debug)]
struct Person {
    bucket: Bucket,
    /// They were told that it is too often.
    is_told: bool,
}

/// What is left of an answer.
#[derive(Debug)]
struct Rest {
    lines: VecDeque<String>,
    at: Instant,
}

#[derive(Debug)]
pub(super) struct Listener {
    options: Arc<Options>,
    /// Who is in which of the channels.
    members: Vec<BTreeSet<String>>,
    people: BTreeMap<String, Person>,
    vouching: VecDeque<Vouching>,
    /// How many commands were handed out and not answered.
    asked: usize,
    replies: VecDeque<(To, String)>,
    rests: BTreeMap<To, Rest>,
    outputs: Vec<Output>,
}

impl Listener {
    pub(super) fn new(options: Arc<Options>) -> Self {
        Self {
            members: vec![BTreeSet::new(); options.channels.len()],
            options,
            people: BTreeMap::new(),
            vouching: VecDeque::new(),
            asked: 0,
            replies: VecDeque::new(),
            rests: BTreeMap::new(),
            outputs: Vec::new(),
        }
    }

    pub(super) fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    // Who is there.

    /// A part of the list of names of a channel.
    pub(super) fn named(&mut self, channel: usize, names: &str) {
        for name in names.split(' ') {
            self.joined(channel, name.trim_start_matches(RANKS));
        }
    }

    pub(super) fn joined(&mut self, channel: usize, nick: &str) {
        let is_full = self.members.iter().map(BTreeSet::len).sum::<usize>() >= MAX_MEMBERS;
        if !is_full && super::is_word(nick) && self.options.channels[channel].commands {
            self.members[channel].insert(nick.to_owned());
        }
    }

    pub(super) fn parted(&mut self, channel: usize, nick: &str) {
        self.members[channel].remove(nick);
        self.forget_unless_here(nick);
    }

    /// We are not in a channel any more, so we do not see who comes and goes.
    pub(super) fn left(&mut self, channel: usize) {
        self.members[channel].clear();
        self.replies.retain(|(to, _)| !matches!(to, To::Channel { index, .. } if *index == channel));
    }

    /// A nick is nobody's any more, or another's.
    pub(super) fn gone(&mut self, nick: &str) {
        for members in &mut self.members {
            members.remove(nick);
        }
        // Whoever has the nick next did not order it.
        self.vouching.retain(|vouching| vouching.speaker.nick != nick);
        self.rests.retain(|to, _| to.nick() != nick);
        self.forget_unless_here(nick);
    }

    pub(super) fn renamed(&mut self, old: &str, new: &str) {
        let channels: Vec<usize> = (0..self.members.len()).filter(|index| self.members[*index].contains(old)).collect();
        self.gone(old);
        for channel in channels {
            self.joined(channel, new);
        }
    }

    fn forget_unless_here(&mut self, nick: &str) {
        if !self.is_here(nick) {
            self.replies.retain(|(to, _)| !matches!(to, To::Query { nick: other } if other == nick));
        }
    }

    /// In one of the channels.
    fn is_here(&self, nick: &str) -> bool {
        self.members.iter().any(|members| members.contains(nick))
    }

    // What is said.

    /// Somebody says something: in a channel, or to us alone.
    pub(super) fn hear(&mut self, now: Instant, speaker: &Speaker, channel: Option<usize>, line: &str) {
        let nick = speaker.nick.clone();
        let (to, may_ask) = match channel {
            Some(index) => (To::Channel { index, nick: nick.clone() }, self.members[index].contains(&nick)),
            None => (To::Query { nick: nick.clone() }, self.is_here(&nick)),
        };
        if channel.is_some_and(|index| !self.options.channels[index].commands) || !self.options.takes_commands() {
            return;
        }
        let heard = match command::parse(line) {
            Heard::Chatter => return,
            // Perhaps another bot's.
            Heard::Unknown(_) if channel.is_some() => return,
            heard => heard,
        };
        if !may_ask {
            self.outputs.push(Output::Refused("command_refused"));
            return;
        }
        if !self.is_patient_with(now, speaker, &to) {
            return;
        }
        match heard {
            Heard::Chatter => {}
            Heard::Unknown(word) => self.tell(&to, format!("there is no command !{word}; !help lists those there are")),
            Heard::Mistake(why) => self.tell(&to, why),
            Heard::Command(Command::Help(about)) => self.page(now, &to, command::help(about.as_deref()).into()),
            Heard::Command(Command::More) => self.more(now, &to),
            Heard::Command(Command::Question(question)) => self.ask(to, Requested::Question(question)),
            Heard::Command(Command::Order(order)) => self.order(now, to, speaker, order),
        }
    }

    /// Whether there is room for another command, of this person and at all.
    fn is_patient_with(&mut self, now: Instant, speaker: &Speaker, to: &To) -> bool {
        let is_operator =
            matches!(&speaker.account, Vouched::Account(account) if self.options.operator(account).is_some());
        if self.replies.len() >= if is_operator { MAX_REPLIES * 2 } else { MAX_REPLIES } {
            return self.drop_command();
        }
        // Not the nick, which costs nothing to change.
        let person = match &speaker.account {
            Vouched::Account(account) => account.clone(),
            Vouched::Unasked | Vouched::Nobody => format!("{}@{}", speaker.user, speaker.host),
        };
        if !self.people.contains_key(&person) {
            if self.people.len() >= MAX_PEOPLE {
                self.people.retain(|_, person| !person.bucket.is_idle(now));
            }
            if self.people.len() >= MAX_PEOPLE {
                return self.drop_command();
            }
        }
        let fresh = || Person { bucket: Bucket::new(PERSON_INTERVAL, PERSON_BURST, now), is_told: false };
        let person = self.people.entry(person).or_insert_with(fresh);
        if person.bucket.allows(now) {
            person.bucket.take(now);
            person.is_told = false;
            return true;
        }
        if !std::mem::replace(&mut person.is_told, true) {
            let secs = PERSON_INTERVAL.as_secs();
            self.tell(to, format!("too many commands: one in {secs} s is answered, the others are not"));
        }
        self.drop_command()
    }

    fn drop_command(&mut self) -> bool {
        self.outputs.push(Output::Refused("command_dropped"));
        false
    }

    fn ask(&mut self, to: To, request: Requested) {
        let most = match request {
            Requested::Question(_) => MAX_ASKED,
            Requested::Order { .. } => MAX_ASKED * 2,
        };
        if self.asked >= most {
            self.drop_command();
            return;
        }
        self.asked += 1;
        self.outputs.push(Output::Ask(Box::new(Asked { to, request })));
    }

    // Whose order it is.

    fn order(&mut self, now: Instant, to: To, speaker: &Speaker, order: Order) {
        if self.options.operators.is_empty() {
            return self.tell(&to, "orders are not taken here: no operators are configured".to_owned());
        }
        let is_being_asked = self.vouching.iter().any(|vouching| vouching.speaker.nick == speaker.nick);
        match &speaker.account {
            Vouched::Unasked if is_being_asked || self.vouching.len() >= MAX_VOUCHING => {
                self.drop_command();
            }
            Vouched::Unasked => {
                let speaker = speaker.clone();
                let vouching = Vouching { to, order, speaker, began: now, is_asked: false, is_same: false };
                self.vouching.push_back(vouching);
            }
            Vouched::Nobody | Vouched::Account(_) => self.judge(to, speaker, order),
        }
    }

    /// The network has said whose account it is.
    fn judge(&mut self, to: To, speaker: &Speaker, order: Order) {
        let account = match &speaker.account {
            Vouched::Account(account) => self.options.operator(account).map(str::to_owned).ok_or(Some(account)),
            Vouched::Unasked | Vouched::Nobody => Err(None),
        };
        match account {
            Ok(account) => self.ask(to, Requested::Order { order, account }),
            Err(account) => {
                let (said, logged) = match account {
                    Some(account) => {
                        (format!("account {account} may not give orders here"), format!("account {account}"))
                    }
                    None => ("orders are for accounts: log in to yours first".to_owned(), "no account".to_owned()),
                };
                self.outputs.push(Output::Refused("command_refused"));
                let refused = format!("an order of {} ({logged}) is refused", speaker.shown());
                self.outputs.push(Output::Say(Level::WARN, refused));
                self.tell(&to, said);
            }
        }
    }

    /// Whose account is to be asked for next.
    pub(super) fn whois(&mut self) -> Option<String> {
        let vouching = self.vouching.iter_mut().find(|vouching| !vouching.is_asked)?;
        vouching.is_asked = true;
        Some(vouching.speaker.nick.clone())
    }

    /// A reply to WHOIS. Servers answer in order, so it is about the first that was asked for this nick.
    pub(super) fn whois_says(&mut self, number: u16, args: &[String]) {
        let Some(nick) = args.get(1) else { return };
        let is_asked = |vouching: &Vouching| vouching.is_asked && vouching.speaker.nick == *nick;
        let Some(index) = self.vouching.iter().position(is_asked) else { return };
        match (number, args) {
            (311, [_, _, user, host, ..]) => {
                let vouching = &mut self.vouching[index];
                vouching.is_same = vouching.speaker.user == *user && vouching.speaker.host == *host;
            }
            (330, [_, _, account, _, ..]) => {
                self.vouching[index].speaker.account = Vouched::Account(super::quoted(account));
            }
            (318, _) => {
                let Some(Vouching { to, order, mut speaker, is_same, .. }) = self.vouching.remove(index) else {
                    return;
                };
                if !is_same {
                    speaker.account = Vouched::Nobody;
                }
                self.judge(to, &speaker, order);
            }
            _ => {}
        }
    }

    /// When [`tick`](Self::tick) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.vouching.front().map(|vouching| vouching.began + VOUCHED_WITHIN)
    }

    pub(super) fn tick(&mut self, now: Instant) {
        while let Some(late) = self.vouching.pop_front_if(|vouching| now >= vouching.began + VOUCHED_WITHIN) {
            self.tell(&late.to, "the network does not say whose account you use; nothing was done".to_owned());
        }
    }

    // What is answered.

    /// cprocessd's answer to what was handed out.
    pub(super) fn answered(&mut self, now: Instant, wall: UnixMillis, asked: &Asked, answer: &Answer) {
        self.asked = self.asked.saturating_sub(1);
        // Whoever has the nick now did not ask, and where we are not we cannot speak.
        let is_there = match &asked.to {
            To::Channel { index, nick } => self.members[*index].contains(nick),
            To::Query { nick } => self.is_here(nick),
        };
        if !is_there {
            return;
        }
        let lines = self.sheet(&asked.to, wall).lines(answer);
        self.page(now, &asked.to, lines.into());
    }

    fn sheet(&self, to: &To, now: UnixMillis) -> Sheet {
        let (width, colour) = match to {
            To::Channel { index, nick } => {
                let channel = &self.options.channels[*index];
                (self.options.text_bytes(channel).saturating_sub(nick.len() + ": ".len()), channel.colour)
            }
            To::Query { nick } => (self.options.text_bytes_behind("NOTICE", nick), false),
        };
        Sheet { width, colour, now }
    }

    fn more(&mut self, now: Instant, to: &To) {
        match self.rests.remove(to).filter(|rest| now < rest.at + REST_FOR) {
            Some(rest) => self.page(now, to, rest.lines),
            None => self.tell(to, "there is no more".to_owned()),
        }
    }

    /// Says the first lines of an answer, and keeps the rest.
    fn page(&mut self, now: Instant, to: &To, mut lines: VecDeque<String>) {
        self.rests.remove(to);
        let rest = if lines.len() > PAGE_LINES { lines.split_off(PAGE_LINES - 1) } else { VecDeque::new() };
        for line in lines {
            self.reply(to, &line);
        }
        if rest.is_empty() {
            return;
        }
        self.reply(to, &format!("{} more: !more", rest.len()));
        if self.rests.len() >= MAX_RESTS
            && let Some(oldest) = self.rests.iter().min_by_key(|(_, rest)| rest.at).map(|(to, _)| to.clone())
        {
            self.rests.remove(&oldest);
        }
        self.rests.insert(to.clone(), Rest { lines: rest, at: now });
    }

    /// Says a phrase.
    fn tell(&mut self, to: &To, phrase: String) {
        for line in self.sheet(to, UnixMillis(0)).lines(&Answer::Refused(phrase)) {
            self.reply(to, &line);
        }
    }

    /// In a channel each line says whom it answers.
    fn reply(&mut self, to: &To, line: &str) {
        let line = cut(line, self.sheet(to, UnixMillis(0)).width);
        let line = match to {
            To::Channel { index, nick } => {
                let channel = &self.options.channels[*index];
                format!("{} {} :{nick}: {line}", channel.verb(), channel.name)
            }
            To::Query { nick } => {
                // As automatic answers are to be (RFC 2812 section 3.3.2): no other bot reacts to it.
                format!("NOTICE {nick} :{line}")
            }
        };
        self.replies.push_back((to.clone(), line));
    }

    /// The next line that waits to be said, and whether it goes to a channel.
    pub(super) fn next_reply(&mut self) -> Option<(bool, String)> {
        let (to, line) = self.replies.pop_front()?;
        Some((matches!(to, To::Channel { .. }), line))
    }

    /// Whether anything waits for its turn.
    pub(super) fn is_waiting(&self) -> bool {
        !self.replies.is_empty() || self.vouching.iter().any(|vouching| !vouching.is_asked)
    }
}
