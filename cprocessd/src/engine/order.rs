//! What people order, checked once, and carried out at most once.
//!
//! An order comes from a person, through the socket `control`, or from a peer cprocessd, as the event that its order was.
//! That event carries the whole order, so that who follows the stream can carry it out too: the id of the order keeps it from
//! coming back. Whatever an order needs to be refused for is found out before anything is changed; what is refused is an error
//! answer and no event.

use super::incident::{self, Key, Seen};
use super::rule::{Rule, RuleError, RuleOrigin};
use super::suppression::{Ack, Silence};
use super::{Engine, Output, RESERVED, Saved};
use common::address::{CheckAddress, Pattern};
use common::message::{ErrorBody, ErrorCode, Event, EventId, IncidentId, Kind, Ordered, Request, State};
use common::query::{from_value, to_value};
use common::severity::Severity;
use common::text::masked;
use common::time::UnixMillis;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Orders remembered by id, so that one sent twice is carried out once. Beyond it the oldest is forgotten.
pub(super) const REMEMBERED_ORDERS: usize = 1000;
/// Rules by order, and people who asked to be told. More are refused.
const MAX_ORDERED_RULES: usize = 1000;
const MAX_SUBSCRIBERS: usize = 10_000;
/// Addresses of a remembered answer. The first answer has them all.
const REMEMBERED_ADDRESSES: usize = 1000;
/// Bytes of an order's id, its author, a subscriber's name.
const MAX_NAME_BYTES: usize = 200;
/// Bytes of a reason.
const MAX_REASON_BYTES: usize = 500;
/// Bytes of a rule's name, and of the rule.
const MAX_RULE_NAME_BYTES: usize = 100;
const MAX_RULE_BYTES: usize = 3000;
/// Bytes of the name of a medium.
const MAX_VIA_BYTES: usize = 50;
/// An end is at most this far away: what nobody remembers is not silent for ever.
const MAX_AHEAD: Duration = Duration::from_hours(366 * 24);
/// Of what somebody sent, this much is quoted in an error.
const QUOTED_CHARS: usize = 60;

/// An order that may be carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// The same order twice is carried out once.
    pub id: String,
    /// Whose it is, as said.
    pub author: String,
    /// What is to be done.
    pub command: Command,
}

/// What can be ordered.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are documented in Request, where they are a contract")]
pub enum Command {
    /// `forget`: everything that matches is forgotten.
    Forget { pattern: Pattern },
    /// `silence`, or `maintenance`, which differs only in name: what matches is not told until then.
    Silence { pattern: Pattern, until: UnixMillis, reason: String, maintenance: bool },
    /// `unsilence`: a silence ends before its time.
    Unsilence { silence: String },
    /// `ack`: somebody looks after what is open.
    Ack { target: Target, until: Option<UnixMillis>, reason: String },
    /// `unack`: and no longer does.
    Unack { target: Target },
    /// `rule-add`: a rule beside those of the file.
    RuleAdd { name: String, rule: String },
    /// `rule-remove`: and no longer.
    RuleRemove { name: String },
    /// `subscriber-add`: somebody is to be told, once they have agreed.
    SubscriberAdd { name: String, via: String, severity: Severity, pattern: Pattern },
    /// `subscriber-confirm`: they have agreed.
    SubscriberConfirm { name: String, via: String },
    /// `subscriber-remove`: and no longer.
    SubscriberRemove { name: String, via: String },
    /// `reload`: the configuration is read again, which is the daemon's part.
    Reload,
}

/// What an acknowledgement is about: one incident, or those that are open at matching addresses at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they say what they are")]
pub enum Target {
    Incident(IncidentId),
    Pattern(Pattern),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Incident(id) => write!(f, "incident {id}"),
            Target::Pattern(pattern) => pattern.fmt(f),
        }
    }
}

impl Command {
    /// Their names on the wire.
    pub const NAMES: [&'static str; 12] = [
        "forget",
        "silence",
        "unsilence",
        "maintenance",
        "ack",
        "unack",
        "rule-add",
        "rule-remove",
        "subscriber-add",
        "subscriber-confirm",
        "subscriber-remove",
        "reload",
    ];

    /// The order's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Forget { .. } => "forget",
            Command::Silence { maintenance: false, .. } => "silence",
            Command::Silence { maintenance: true, .. } => "maintenance",
            Command::Unsilence { .. } => "unsilence",
            Command::Ack { .. } => "ack",
            Command::Unack { .. } => "unack",
            Command::RuleAdd { .. } => "rule-add",
            Command::RuleRemove { .. } => "rule-remove",
            Command::SubscriberAdd { .. } => "subscriber-add",
            Command::SubscriberConfirm { .. } => "subscriber-confirm",
            Command::SubscriberRemove { .. } => "subscriber-remove",
            Command::Reload => "reload",
        }
    }

    /// The kind of the event that it becomes.
    pub fn kind(&self) -> Kind {
        match self {
            Command::Silence { .. } | Command::Unsilence { .. } => Kind::Silence,
            Command::Ack { .. } | Command::Unack { .. } => Kind::Ack,
            Command::Forget { .. }
            | Command::RuleAdd { .. }
            | Command::RuleRemove { .. }
            | Command::SubscriberAdd { .. }
            | Command::SubscriberConfirm { .. }
            | Command::SubscriberRemove { .. }
            | Command::Reload => Kind::Order,
        }
    }
}

impl Order {
    /// Reads a person's order, given at `wall`. The error names the field.
    pub fn read(request: &Request, wall: UnixMillis) -> Result<Self, ErrorBody> {
        let order = Self::parse(request)?;
        let until = match &order.command {
            Command::Silence { until, .. } => Some(*until),
            Command::Ack { until, .. } => *until,
            _ => None,
        };
        if let Some(until) = until {
            if until <= wall {
                return Err(bad(format!("until is {until}, but must be in the future: it is {wall} here")));
            }
            if until.since(wall) > MAX_AHEAD {
                return Err(bad(format!("until is {until}, but must be at most a year away")));
            }
        }
        Ok(order)
    }

    /// The order that an event of a peer was, if it was one. Its time may have passed meanwhile.
    pub fn from_event(event: &Event) -> Option<Self> {
        let request: Request = from_value(event.data.as_ref()?).ok()?;
        let order = Self::parse(&request).ok()?;
        (event.id == order.event_id() && event.kind == order.command.kind()).then_some(order)
    }

    /// As it is on the wire.
    pub fn request(&self) -> Request {
        let mut request = Request::order(self.command.name());
        (request.id, request.author) = (Some(self.id.clone()), Some(self.author.clone()));
        let reason = |reason: &String| Some(reason.clone()).filter(|reason| !reason.is_empty());
        let text = |pattern: &Pattern| Some(pattern.to_string());
        match &self.command {
            Command::Forget { pattern } => request.pattern = text(pattern),
            Command::Silence { pattern, until, reason: why, .. } => {
                (request.pattern, request.until, request.reason) = (text(pattern), Some(*until), reason(why));
            }
            Command::Unsilence { silence } => request.silence = Some(silence.clone()),
            Command::Ack { target, until, reason: why } => {
                (request.until, request.reason) = (*until, reason(why));
                target.write(&mut request);
            }
            Command::Unack { target } => target.write(&mut request),
            Command::RuleAdd { name, rule } => {
                (request.name, request.rule) = (Some(name.clone()), Some(rule.clone()));
            }
            Command::RuleRemove { name } => request.name = Some(name.clone()),
            Command::SubscriberAdd { name, via, severity, pattern } => {
                (request.name, request.via) = (Some(name.clone()), Some(via.clone()));
                (request.severity, request.pattern) = (Some(*severity), text(pattern));
            }
            Command::SubscriberConfirm { name, via } | Command::SubscriberRemove { name, via } => {
                (request.name, request.via) = (Some(name.clone()), Some(via.clone()));
            }
            Command::Reload => {}
        }
        request
    }

    /// Of the event that it becomes: the same at every cprocessd that carries it out.
    pub fn event_id(&self) -> EventId {
        EventId::of_origin(&self.id, "order")
    }

    fn parse(request: &Request) -> Result<Self, ErrorBody> {
        let Some(order) = request.order.as_deref() else {
            let message = "an order has a field order; questions go to the socket query";
            return Err(ErrorBody::new(ErrorCode::UnknownRequest, message));
        };
        if !Command::NAMES.contains(&order) {
            let message = format!("there is no order {:?} here, only {}", quoted(order), Command::NAMES.join(", "));
            return Err(ErrorBody::new(ErrorCode::UnknownRequest, message));
        }
        let fields = Fields { order, request };
        let id = fields.name("id", request.id.as_ref(), MAX_NAME_BYTES)?;
        let author = fields.name("author", request.author.as_ref(), MAX_NAME_BYTES)?;
        let command = match order {
            "forget" => Command::Forget { pattern: fields.pattern()? },
            "silence" | "maintenance" => Command::Silence {
                pattern: fields.pattern()?,
                until: request.until.ok_or_else(|| bad(format!("{order} needs until")))?,
                reason: fields.reason()?,
                maintenance: order == "maintenance",
            },
            "unsilence" => {
                Command::Unsilence { silence: fields.name("silence", request.silence.as_ref(), MAX_NAME_BYTES)? }
            }
            "ack" => Command::Ack { target: fields.target()?, until: request.until, reason: fields.reason()? },
            "unack" => Command::Unack { target: fields.target()? },
            "rule-add" => {
                let name = fields.name("name", request.name.as_ref(), MAX_RULE_NAME_BYTES)?;
                if RESERVED.contains(&name.as_str()) {
                    return Err(bad(format!("name is {name:?}, which cprocessd uses itself")));
                }
                let rule = fields.name("rule", request.rule.as_ref(), MAX_RULE_BYTES)?;
                Rule::parse(&name, &rule).map_err(|error| bad(format!("rule: {error}")))?;
                Command::RuleAdd { name, rule }
            }
            "rule-remove" => {
                Command::RuleRemove { name: fields.name("name", request.name.as_ref(), MAX_RULE_NAME_BYTES)? }
            }
            "subscriber-add" => Command::SubscriberAdd {
                name: fields.name("name", request.name.as_ref(), MAX_NAME_BYTES)?,
                via: fields.name("via", request.via.as_ref(), MAX_VIA_BYTES)?,
                severity: request.severity.ok_or_else(|| bad("subscriber-add needs severity"))?,
                pattern: fields.pattern()?,
            },
            "subscriber-confirm" => Command::SubscriberConfirm {
                name: fields.name("name", request.name.as_ref(), MAX_NAME_BYTES)?,
                via: fields.name("via", request.via.as_ref(), MAX_VIA_BYTES)?,
            },
            "subscriber-remove" => Command::SubscriberRemove {
                name: fields.name("name", request.name.as_ref(), MAX_NAME_BYTES)?,
                via: fields.name("via", request.via.as_ref(), MAX_VIA_BYTES)?,
            },
            _ => Command::Reload,
        };
        Ok(Self { id, author, command })
    }
}

impl Target {
    fn write(&self, request: &mut Request) {
        match self {
            Target::Incident(id) => request.incident = Some(id.to_string()),
            Target::Pattern(pattern) => request.pattern = Some(pattern.to_string()),
        }
    }
}

/// The fields of an order that is being read.
struct Fields<'a> {
    order: &'a str,
    request: &'a Request,
}

impl Fields<'_> {
    fn name(&self, field: &str, value: Option<&String>, most: usize) -> Result<String, ErrorBody> {
        match value {
            Some(text) if (1..=most).contains(&text.len()) && !text.chars().any(char::is_control) => Ok(text.clone()),
            _ => Err(bad(format!("{} needs {field}, 1 to {most} bytes without control characters", self.order))),
        }
    }

    fn pattern(&self) -> Result<Pattern, ErrorBody> {
        let text = self.request.pattern.as_deref().ok_or_else(|| bad(format!("{} needs a pattern", self.order)))?;
        text.parse().map_err(|error: common::address::AddressError| bad(error.to_string()))
    }

    fn reason(&self) -> Result<String, ErrorBody> {
        let reason = self.request.reason.clone().unwrap_or_default();
        if reason.len() > MAX_REASON_BYTES || reason.chars().any(char::is_control) {
            return Err(bad(format!("reason may be at most {MAX_REASON_BYTES} bytes without control characters")));
        }
        Ok(reason)
    }

    fn target(&self) -> Result<Target, ErrorBody> {
        match (&self.request.incident, &self.request.pattern) {
            (Some(id), None) => match IncidentId::try_from(id.clone()) {
                Ok(id) => Ok(Target::Incident(id)),
                Err(_) => Err(bad("incident must be the id of an incident, as down-list has it")),
            },
            (None, Some(_)) => Ok(Target::Pattern(self.pattern()?)),
            _ => Err(bad(format!("{} needs either incident or pattern", self.order))),
        }
    }
}

fn bad(message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::BadArgument, message)
}

/// What was asked for is right, but cannot be done.
pub(super) fn refused(message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::Failed, message)
}

pub(super) fn not_found(message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, message)
}

/// What somebody sent, cut to a length that an error can bear.
pub(super) fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS).collect()
}

/// The answer to an order, for who sends it again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedOrder {
    /// Counts up, so that the oldest is forgotten first.
    #[serde(default)]
    pub n: u64,
    /// Its name; empty in what was kept by an earlier cprocessd.
    #[serde(default)]
    pub order: String,
    /// What was done.
    #[serde(default)]
    pub text: String,
    /// What it concerned: the first of them. `value` in what was kept by an earlier cprocessd.
    #[serde(alias = "value")]
    pub addresses: Vec<String>,
}

/// A rule that somebody ordered, under its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are those of Rule, and documented there")]
pub struct SavedRule {
    pub rule: String,
    pub author: String,
    pub added: UnixMillis,
}

impl SavedRule {
    fn parse(&self, name: &str) -> Result<Rule, RuleError> {
        let origin = RuleOrigin::Order { author: self.author.clone(), added: self.added };
        Ok(Rule { origin, ..Rule::parse(name, &self.rule)? })
    }
}

/// Somebody who is to be told, under their medium and name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscriber {
    /// Of what has been at least this bad.
    pub severity: Severity,
    /// Of what matches.
    pub pattern: Pattern,
    /// Who ordered it.
    pub author: String,
    /// When.
    pub since: UnixMillis,
    /// When they agreed. Not yet, in what was kept by an earlier cprocessd: nobody had asked them.
    #[serde(default)]
    pub confirmed: Option<UnixMillis>,
}

impl Engine {
    /// The answer to an order of this name that was carried out already, as far back as they are remembered. The id of an
    /// order of another name is a mistake.
    pub fn had_order(&self, id: &str, name: &str) -> Option<Result<Ordered, ErrorBody>> {
        let (_, had) = self.orders.iter().find(|(known, _)| known == id)?;
        if !had.order.is_empty() && had.order != name {
            return Some(Err(bad(format!("id {:?} is that of another order, {}", quoted(id), had.order))));
        }
        Some(Ok(Ordered { text: had.text.clone(), addresses: had.addresses.clone(), unreached: Vec::new() }))
    }

    /// Carries an order out, unless it was already; either way there is an answer.
    pub(super) fn order(&mut self, order: &Order) {
        if let Some(answer) = self.had_order(&order.id, order.command.name()) {
            self.outputs.push(Output::Ordered(answer));
            return;
        }
        // The event of the order goes before what follows from it, but its text counts what that was.
        let at = self.outputs.len();
        let answer = self.carry_out(order);
        if let Ok(done) = &answer {
            let event = self.order_event(order, done.text.clone());
            self.outputs.insert(at, Output::Event(event));
            self.remember(order, done);
        }
        self.outputs.push(Output::Ordered(answer));
    }

    fn order_event(&self, order: &Order, text: String) -> incident::Draft {
        let key = Key { address: self.settings.own.clone().into(), rule: "order".to_owned() };
        let seen = Seen { time: self.wall, text, value: None, state: State::Resolved };
        let mut draft = incident::passing(&key, order.command.kind(), Severity::Info, seen);
        draft.id = order.event_id();
        draft.data = Some(to_value(&order.request()));
        draft
    }

    fn carry_out(&mut self, order: &Order) -> Result<Ordered, ErrorBody> {
        let author = &order.author;
        match order.command.clone() {
            Command::Forget { pattern } => Ok(self.forget(&pattern, author)),
            Command::Silence { pattern, until, reason, maintenance } => {
                let author = author.clone();
                let silence = Silence { pattern, until, since: self.wall, author, reason, maintenance };
                self.silence(&order.id, silence)
            }
            Command::Unsilence { silence } => self.unsilence(&silence, author),
            Command::Ack { target, until, reason } => {
                let keys = self.open_at_target(&target)?;
                Ok(self.ack(keys, &Ack { order: order.id.clone(), author: author.clone(), until, reason }))
            }
            Command::Unack { target } => {
                let keys = self.open_at_target(&target)?;
                self.unack(keys, author)
            }
            Command::RuleAdd { name, rule } => self.add_rule(name, rule, author),
            Command::RuleRemove { name } => self.remove_rule(&name, author),
            Command::SubscriberAdd { name, via, severity, pattern } => {
                let (author, since) = (author.clone(), self.wall);
                self.subscribe(via, name, Subscriber { severity, pattern, author, since, confirmed: None })
            }
            Command::SubscriberConfirm { name, via } => self.confirm(via, name, author),
            Command::SubscriberRemove { name, via } => self.unsubscribe(via, name, author),
            Command::Reload => Ok(done(format!("{author} let the configuration be read again"))),
        }
    }

    fn open_at_target(&self, target: &Target) -> Result<Vec<Key>, ErrorBody> {
        let keys = match target {
            Target::Incident(id) => self.open_incident(*id),
            Target::Pattern(pattern) => self.open_matching(pattern),
        };
        if keys.is_empty() {
            return Err(not_found(format!("nothing is open for {target}")));
        }
        Ok(keys)
    }

    fn add_rule(&mut self, name: String, text: String, author: &str) -> Result<Ordered, ErrorBody> {
        let existing = self.settings.rules.iter().find(|rule| rule.name == name).map(|rule| &rule.origin);
        if let Some(RuleOrigin::File | RuleOrigin::Default) = existing {
            return Err(refused(format!("rule {name:?} is in the configuration, and is changed there")));
        }
        if existing.is_none() && self.ordered_rules.len() >= MAX_ORDERED_RULES {
            return Err(refused(format!("there are {MAX_ORDERED_RULES} rules by order already; remove one first")));
        }
        let saved = SavedRule { rule: text, author: author.to_owned(), added: self.wall };
        let rule = saved.parse(&name).map_err(|error| bad(format!("rule: {error}")))?;
        // What is open under another rule of this name is none of the new one's.
        if existing.is_some() {
            self.drop_rule(&name);
        }
        let text = format!("{author} added rule {name}: {}", rule.text);
        self.save(Saved::Rule(name.clone(), Some(saved)));
        self.ordered_rules.insert(name, rule);
        self.merge_ordered_rules();
        self.rules_changed();
        Ok(done(text))
    }

    fn remove_rule(&mut self, name: &str, author: &str) -> Result<Ordered, ErrorBody> {
        if !self.ordered_rules.contains_key(name) {
            let configured = self.settings.rules.iter().any(|rule| rule.name == name);
            return Err(if configured {
                refused(format!("rule {name:?} is in the configuration, and is removed there"))
            } else {
                not_found(format!("there is no rule {:?}", quoted(name)))
            });
        }
        self.drop_rule(name);
        Ok(done(format!("{author} removed rule {name}")))
    }

    /// What is open or pending under it goes with it.
    fn drop_rule(&mut self, name: &str) {
        self.ordered_rules.remove(name);
        self.save(Saved::Rule(name.to_owned(), None));
        self.merge_ordered_rules();
        self.rules_changed();
    }

    /// The rules by order come behind those of the file, in the order of their names, whenever they were added.
    pub(super) fn merge_ordered_rules(&mut self) {
        let rules = &mut self.settings.rules;
        rules.retain(|rule| !matches!(rule.origin, RuleOrigin::Order { .. }));
        let configured = rules.len();
        for rule in self.ordered_rules.values() {
            if !rules[..configured].iter().any(|own| own.name == rule.name) {
                rules.push(rule.clone());
            }
        }
    }

    /// Says that a rule by order has no effect: the file has one of its name.
    pub(super) fn notice_shadowed_rules(&mut self) {
        for rule in self.settings.rules.iter().filter(|rule| self.ordered_rules.contains_key(&rule.name)) {
            let text = format!("rule {:?} of the configuration takes the place of the one that was ordered", rule.name);
            self.outputs.push(Output::Notice(text));
        }
    }

    pub(super) fn restore_rule(&mut self, name: String, saved: &SavedRule) {
        match saved.parse(&name) {
            Ok(rule) => drop(self.ordered_rules.insert(name, rule)),
            Err(error) => self.outputs.push(Output::Notice(format!("rule {name:?} is left out: {error}"))),
        }
    }

    /// What is said of subscribers goes to the page and to every channel, so mail addresses are masked in it; the event's order
    /// has them. Who has agreed to be told has agreed, whatever they are told of later.
    fn subscribe(&mut self, via: String, name: String, mut subscriber: Subscriber) -> Result<Ordered, ErrorBody> {
        let key = (via, name);
        let known = self.subscribers.get(&key);
        if known.is_none() && self.subscribers.len() >= MAX_SUBSCRIBERS {
            return Err(refused(format!("there are {MAX_SUBSCRIBERS} subscribers already; remove one first")));
        }
        subscriber.confirmed = known.and_then(|known| known.confirmed);
        let (via, name) = key.clone();
        let Subscriber { severity, pattern, author, .. } = &subscriber;
        let text = format!("{} subscribed {} by {via} to {pattern} from {severity}", masked(author), masked(&name));
        self.save(Saved::Subscriber { via, name, subscriber: Some(subscriber.clone()) });
        self.subscribers.insert(key, subscriber);
        Ok(done(text))
    }

    fn confirm(&mut self, via: String, name: String, author: &str) -> Result<Ordered, ErrorBody> {
        let key = (via, name);
        let Some(subscriber) = self.subscribers.get_mut(&key) else { return Err(not_subscribed(&key)) };
        let (via, name) = key;
        let text = format!("{} confirmed the subscription of {} by {via}", masked(author), masked(&name));
        if subscriber.confirmed.is_none() {
            subscriber.confirmed = Some(self.wall);
            let subscriber = Some(subscriber.clone());
            self.save(Saved::Subscriber { via, name, subscriber });
        }
        Ok(done(text))
    }

    fn unsubscribe(&mut self, via: String, name: String, author: &str) -> Result<Ordered, ErrorBody> {
        let key = (via, name);
        if self.subscribers.remove(&key).is_none() {
            return Err(not_subscribed(&key));
        }
        let (via, name) = key;
        let text = format!("{} ended the subscription of {} by {via}", masked(author), masked(&name));
        self.save(Saved::Subscriber { via, name, subscriber: None });
        Ok(done(text))
    }

    fn remember(&mut self, Order { id, command, .. }: &Order, done: &Ordered) {
        let n = self.orders.back().map_or(0, |(_, last)| last.n + 1);
        let addresses = done.addresses.iter().take(REMEMBERED_ADDRESSES).cloned().collect();
        let answer = SavedOrder { n, order: command.name().to_owned(), text: done.text.clone(), addresses };
        self.save(Saved::Order(id.clone(), Some(answer.clone())));
        self.orders.push_back((id.clone(), answer));
        if self.orders.len() > REMEMBERED_ORDERS
            && let Some((oldest, _)) = self.orders.pop_front()
        {
            self.save(Saved::Order(oldest, None));
        }
    }

    fn forget(&mut self, pattern: &Pattern, author: &str) -> Ordered {
        let mut forgotten: Vec<String> = Vec::new();
        let why = format!("forgotten by {author}");
        let checks: Vec<_> = self.checks.keys().filter(|address| pattern.matches_check(address)).cloned().collect();
        for address in checks {
            self.retire_check(&address, &why);
            forgotten.push(address.to_string());
        }
        forgotten.extend(self.forget_numbers(pattern, &why));
        // A host that lives would be back in a second, but what it watches is told only once.
        let hosts: Vec<_> = self
            .hosts
            .iter()
            .filter(|(_, host)| host.state != State::Up)
            .map(|(name, _)| name.clone())
            .filter(|name| pattern.matches_check(&CheckAddress::alive(name.clone())))
            .collect();
        for host in hosts {
            self.retire_incidents_at(&CheckAddress::alive(host.clone()).into(), &why);
            self.hosts.remove(&host);
            self.save(Saved::Host(host.clone(), None));
            forgotten.push(CheckAddress::alive(host).to_string());
        }
        // What is open about an address that nobody reports any more.
        let open: Vec<_> =
            self.incidents.iter().map(|(key, _)| key.address.clone()).filter(|a| pattern.matches(a)).collect();
        for address in open {
            self.retire_incidents_at(&address, &why);
            forgotten.push(address.to_string());
        }
        forgotten.sort();
        forgotten.dedup();
        let addresses = if forgotten.len() == 1 { "address" } else { "addresses" };
        let text = format!("{author} let forget {pattern}: {} {addresses}", forgotten.len());
        Ordered { text, addresses: forgotten, unreached: Vec::new() }
    }
}

fn not_subscribed((via, name): &(String, String)) -> ErrorBody {
    not_found(format!("{:?} is not subscribed by {:?}", quoted(name), quoted(via)))
}

/// What was done, for an answer.
pub(super) fn done(text: String) -> Ordered {
    Ordered { text, ..Ordered::default() }
}
