//! The table that drives a provider: how a text becomes a request, and an answer a verdict.
//!
//! Variables are put in by structure and never by text: a value in a path is one segment of it, in a form one field, in JSON
//! one string. So nothing that a message, a number or a token holds can change what is asked.

use crate::text;
use common::secret::Secret;
use common::severity::Severity;
use reqwest::Url;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Of the name that a receipt is asked for by. Every provider's is below 50.
const MAX_RECEIPT_BYTES: usize = 200;

/// What stands in braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Variable {
    /// The recipient, as configured: `+4912345`.
    To,
    /// The recipient's number without the plus sign.
    ToDigits,
    /// The message.
    Text,
    /// A few words over the message.
    Title,
    /// The message's name, the same when it is sent again.
    Id,
    /// The worst severity in it.
    Severity,
    /// The same as the table's number.
    Priority,
    /// The table's word for the alphabet of the text.
    Alphabet,
    /// The provider's `account`.
    Account,
    /// The provider's `from`.
    From,
    /// The provider's `token_file`.
    Token,
    /// How long the text is worth delivering: in seconds,
    ValiditySecs,
    /// in minutes,
    ValidityMinutes,
    /// or in milliseconds.
    ValidityMs,
    /// The provider's name of a text that it took; only where a receipt is asked for.
    Reference,
    /// The provider's `url`; only in `needs`.
    Url,
}

impl Variable {
    const ALL: [(&'static str, Self); 15] = [
        ("to", Self::To),
        ("to_digits", Self::ToDigits),
        ("text", Self::Text),
        ("title", Self::Title),
        ("id", Self::Id),
        ("severity", Self::Severity),
        ("priority", Self::Priority),
        ("alphabet", Self::Alphabet),
        ("account", Self::Account),
        ("from", Self::From),
        ("token", Self::Token),
        ("validity_secs", Self::ValiditySecs),
        ("validity_minutes", Self::ValidityMinutes),
        ("validity_ms", Self::ValidityMs),
        ("reference", Self::Reference),
    ];

    /// Whether everybody wants a number for it, and no text of digits.
    fn is_number(self) -> bool {
        matches!(self, Self::Priority | Self::ValiditySecs | Self::ValidityMinutes | Self::ValidityMs)
    }
}

/// Text with variables: `/Accounts/{account}/`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Text(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Literal(String),
    Variable(Variable),
}

impl Text {
    fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((literal, behind)) = rest.split_once('{') {
            let (name, behind) = behind.split_once('}').ok_or_else(|| format!("{text:?} lacks a closing brace"))?;
            let found = Variable::ALL.iter().find(|(known, _)| *known == name);
            let (_, variable) = found.ok_or_else(|| {
                let known: Vec<_> = Variable::ALL.iter().map(|(known, _)| *known).collect();
                format!("{{{name}}} is no variable, expected one of {}", known.join(", "))
            })?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            pieces.push(Piece::Variable(*variable));
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    fn variables(&self) -> impl Iterator<Item = Variable> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Variable(variable) => Some(*variable),
            Piece::Literal(_) => None,
        })
    }

    /// None if one of the variables has no value: the field that asks for it is then left out.
    fn render(&self, values: &Values<'_>) -> Option<String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Variable(variable) => text.push_str(&values.get(*variable)?),
            }
        }
        Some(text)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// JSON with variables in its strings.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Text(Text),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
    Fixed(Value),
}

impl Json {
    fn parse(value: Value) -> Result<Self, String> {
        Ok(match value {
            Value::String(text) => Self::Text(Text::parse(&text)?),
            Value::Array(values) => Self::Array(values.into_iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(key, value)| Ok((key, Self::parse(value)?)));
                Self::Object(fields.collect::<Result<_, String>>()?)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Fixed(value),
        })
    }

    fn texts(&self) -> Vec<&Text> {
        match self {
            Self::Text(text) => vec![text],
            Self::Array(values) => values.iter().flat_map(Self::texts).collect(),
            Self::Object(fields) => fields.iter().flat_map(|(_, value)| value.texts()).collect(),
            Self::Fixed(_) => Vec::new(),
        }
    }

    fn render(&self, values: &Values<'_>) -> Option<Value> {
        Some(match self {
            Self::Text(text) => match (text.render(values)?, &*text.0) {
                (digits, [Piece::Variable(variable)]) if variable.is_number() => digits.parse::<i64>().ok()?.into(),
                (text, _) => text.into(),
            },
            Self::Array(elements) => elements.iter().filter_map(|element| element.render(values)).collect(),
            Self::Object(fields) => {
                let fields = fields.iter().filter_map(|(key, value)| Some((key.clone(), value.render(values)?)));
                Value::Object(fields.collect())
            }
            Self::Fixed(value) => value.clone(),
        })
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// What a recipient's `to` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A telephone number, E.164.
    #[default]
    Number,
    /// A topic or key.
    Text,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "a number",
            Self::Text => "a topic or key",
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
enum Method {
    #[serde(rename = "GET")]
    Get,
    #[default]
    #[serde(rename = "POST")]
    Post,
    #[serde(rename = "PUT")]
    Put,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Basic {
    user: Text,
    password: Text,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alphabet {
    gsm7: String,
    ucs2: String,
}

/// A rule about answers: the status is one of these, and at the JSON pointer (RFC 6901; `*` is every element of an array)
/// there is one of those values, or any but null if none are named.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    status: Vec<u16>,
    #[serde(default)]
    pointer: Option<String>,
    #[serde(default)]
    equals: Vec<String>,
}

/// The table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// Scheme, host and port; a provider's own `url` replaces it.
    #[serde(default)]
    pub(crate) url: Option<String>,
    /// What follows. Each part between slashes is one segment, whatever its variables hold.
    #[serde(default)]
    path: String,
    #[serde(default)]
    method: Method,
    #[serde(default)]
    pub(crate) to: Kind,
    /// Which of `account`, `from`, `token`, `url` a provider must have.
    #[serde(default)]
    pub(crate) needs: Vec<Variable>,
    #[serde(default)]
    basic: Option<Basic>,
    #[serde(default)]
    bearer: Option<Text>,
    #[serde(default)]
    headers: BTreeMap<String, Text>,
    #[serde(default)]
    query: BTreeMap<String, Text>,
    #[serde(default)]
    form: Option<BTreeMap<String, Text>>,
    #[serde(default)]
    json: Option<Json>,
    #[serde(default)]
    text: Option<Text>,
    #[serde(default)]
    alphabet: Option<Alphabet>,
    #[serde(default)]
    priority: BTreeMap<Severity, i64>,
    /// For what is no short message; without it, segments are counted.
    #[serde(default)]
    pub(crate) max_chars: Option<usize>,
    accepted: Rule,
    /// Answers that are about this recipient or this text, and will not change. By default any 400 and 422.
    #[serde(default)]
    refused: Option<Rule>,
    /// Where the provider's own name of the message is, for the ledger.
    #[serde(default)]
    reference: Option<String>,
    /// How to ask later what became of a text.
    #[serde(default)]
    receipt: Option<Receipt>,
}

/// How to ask what became of a text: a GET with the same credentials, again and again until one of the rules says yes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Receipt {
    /// Where the answer to the text has what `{reference}` is then. By default the table's own `reference`.
    #[serde(default)]
    reference: Option<String>,
    path: String,
    #[serde(default)]
    query: BTreeMap<String, Text>,
    /// It arrived, or whatever `word` says.
    delivered: Rule,
    /// It will not.
    failed: Rule,
    #[serde(default = "delivered")]
    word: String,
    /// Where it says who has confirmed it, or why it failed.
    #[serde(default)]
    detail: Option<String>,
    /// What to say where it failed and nothing says why.
    #[serde(default)]
    why: Option<String>,
}

fn delivered() -> String {
    "delivered".to_owned()
}

/// What became of a text, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered(String),
    Failed(String),
}

impl Table {
    /// Says what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        let bodies = [self.form.is_some(), self.json.is_some(), self.text.is_some()];
        if bodies.iter().filter(|body| **body).count() > 1 {
            return Err("form, json and text exclude each other".to_owned());
        }
        if self.basic.is_some() && self.bearer.is_some() {
            return Err("basic and bearer exclude each other".to_owned());
        }
        if !self.path.is_empty() && !self.path.starts_with('/') {
            return Err(format!("path is {:?}, but must begin with /", self.path));
        }
        for part in self.path.split('/') {
            Text::parse(part).map_err(|error| format!("path: {error}"))?;
        }
        if self.uses(Variable::Reference) {
            return Err("{reference} is known only in receipt, once the text was taken".to_owned());
        }
        self.receipt.as_ref().map_or(Ok(()), |receipt| receipt.check(self.reference.is_some()))?;
        for name in self.headers.keys() {
            reqwest::header::HeaderName::try_from(name.as_str())
                .map_err(|_| format!("headers: {name:?} is no name of a header"))?;
        }
        let pointers = [self.accepted.pointer.as_ref(), self.reference.as_ref()];
        let refused = self.refused.as_ref().and_then(|rule| rule.pointer.as_ref());
        for pointer in pointers.into_iter().chain([refused]).flatten() {
            if !pointer.starts_with('/') {
                return Err(format!("pointer is {pointer:?}, but must begin with /"));
            }
        }
        if !self.uses(Variable::Text) {
            return Err("{text} stands nowhere, so nothing would be said".to_owned());
        }
        Ok(())
    }

    /// Whether the variable stands anywhere.
    pub(crate) fn uses(&self, variable: Variable) -> bool {
        let segments = path_segments(&self.path);
        let mut texts: Vec<&Text> = segments.iter().collect();
        texts.extend(self.basic.iter().flat_map(|basic| [&basic.user, &basic.password]));
        texts.extend(self.bearer.iter().chain(&self.text).chain(self.headers.values()).chain(self.query.values()));
        texts.extend(self.form.iter().flat_map(BTreeMap::values));
        texts.extend(self.json.iter().flat_map(Json::texts));
        texts.into_iter().any(|text| text.variables().any(|used| used == variable))
    }

    /// Makes the request. The error says what cannot be written into it.
    pub(crate) fn request(
        &self,
        client: &reqwest::Client,
        base: &Url,
        values: &Values<'_>,
    ) -> Result<reqwest::Request, String> {
        let alphabet = self.alphabet.as_ref();
        let alphabet = alphabet.map(|words| if text::is_gsm(values.text) { &*words.gsm7 } else { &*words.ucs2 });
        let values = &Values { priority: self.priority.get(&values.severity).copied(), alphabet, ..*values };
        let url = target(base, &self.path, &self.query, values)?;
        let method = match self.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
        };
        let mut request = self.with_credentials(client.request(method, url), values)?;
        let typed = |request: reqwest::RequestBuilder, kind: &str| request.header("content-type", kind);
        if let Some(form) = &self.form {
            let mut encoded = Url::parse("form:/").expect("a URL");
            encoded.query_pairs_mut().extend_pairs(render_fields(form, values));
            let body = encoded.query().unwrap_or_default().to_owned();
            request = typed(request, "application/x-www-form-urlencoded").body(body);
        } else if let Some(json) = &self.json {
            let body = json.render(values).unwrap_or_default().to_string();
            request = typed(request, "application/json").body(body);
        } else if let Some(text) = &self.text {
            request = typed(request, "text/plain; charset=utf-8").body(text.render(values).unwrap_or_default());
        }
        // Its error may quote the URL.
        request.build().map_err(|error| error.without_url().to_string())
    }

    /// Asks what became of a text. None if this provider cannot be asked.
    pub(crate) fn receipt_request(
        &self,
        client: &reqwest::Client,
        base: &Url,
        values: &Values<'_>,
    ) -> Option<Result<reqwest::Request, String>> {
        let receipt = self.receipt.as_ref()?;
        let request = || {
            let url = target(base, &receipt.path, &receipt.query, values)?;
            let request = self.with_credentials(client.get(url), values)?;
            request.build().map_err(|error| error.without_url().to_string())
        };
        Some(request())
    }

    /// The name to ask for a receipt by, in the answer to a text that was taken.
    pub(crate) fn receipt_name(&self, body: &[u8]) -> Option<String> {
        let receipt = self.receipt.as_ref()?;
        let json: Value = serde_json::from_slice(body).ok()?;
        let name = found(Some(&json), receipt.reference.as_ref().or(self.reference.as_ref())?).into_iter().next()?;
        (name.len() <= MAX_RECEIPT_BYTES).then_some(name)
    }

    /// What an answer says of the fate of a text; nothing if that is not known yet.
    pub(crate) fn fate(&self, status: u16, body: &[u8]) -> Option<Fate> {
        let receipt = self.receipt.as_ref()?;
        let json: Value = serde_json::from_slice(body).ok()?;
        let values = |pointer: Option<&String>| pointer.map(|pointer| found(Some(&json), pointer)).unwrap_or_default();
        let detail = values(receipt.detail.as_ref()).join(", ");
        let applies = |rule: &Rule, all: bool| {
            let values = values(rule.pointer.as_ref());
            let allowed =
                if all { values.iter().all(|v| rule.allows(v)) } else { values.iter().any(|v| rule.allows(v)) };
            rule.status.contains(&status) && !values.is_empty() && allowed
        };
        if applies(&receipt.delivered, true) {
            let by = if detail.is_empty() { String::new() } else { format!(" by {detail}") };
            return Some(Fate::Delivered(format!("{}{by}", receipt.word)));
        }
        if applies(&receipt.failed, false) {
            let state = || values(receipt.failed.pointer.as_ref()).join(", ");
            let why = if detail.is_empty() { receipt.why.clone().unwrap_or_else(state) } else { detail };
            return Some(Fate::Failed(format!("not {}: {why}", receipt.word)));
        }
        None
    }

    /// What says who we are.
    fn with_credentials(
        &self,
        mut request: reqwest::RequestBuilder,
        values: &Values<'_>,
    ) -> Result<reqwest::RequestBuilder, String> {
        if let Some(basic) = &self.basic
            && let (Some(user), Some(password)) = (basic.user.render(values), basic.password.render(values))
        {
            request = request.basic_auth(user, Some(password));
        }
        if let Some(token) = self.bearer.as_ref().and_then(|bearer| bearer.render(values)) {
            request = request.bearer_auth(token);
        }
        for (name, text) in &self.headers {
            let Some(value) = text.render(values) else { continue };
            let mut value = reqwest::header::HeaderValue::from_bytes(value.as_bytes())
                .map_err(|_| format!("the header {name} would hold control characters"))?;
            value.set_sensitive(text.variables().any(|variable| variable == Variable::Token));
            request = request.header(name, value);
        }
        Ok(request)
    }

    /// What an answer means. `body` is at most what was read of it.
    pub(crate) fn judge(&self, status: u16, body: &[u8]) -> Verdict {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let said = || format!("{status} {}", String::from_utf8_lossy(body)).trim().to_owned();
        let mut unreadable = false;
        if self.accepted.status.contains(&status) {
            match self.accepted.pointer.as_ref().map(|pointer| found(json.as_ref(), pointer)) {
                None => return Verdict::Accepted(self.reference(json.as_ref())),
                Some(values) if values.is_empty() => unreadable = true,
                Some(values) if values.iter().all(|value| self.accepted.allows(value)) => {
                    return Verdict::Accepted(self.reference(json.as_ref()));
                }
                Some(_) => (),
            }
        }
        let refused = match &self.refused {
            None => matches!(status, 400 | 422),
            Some(rule) => {
                rule.status.contains(&status)
                    && rule
                        .pointer
                        .as_ref()
                        .is_none_or(|pointer| found(json.as_ref(), pointer).iter().any(|value| rule.allows(value)))
            }
        };
        match status {
            _ if refused => Verdict::Refused(said()),
            // Accepted by its status, but without the word that would prove it.
            200..=299 if unreadable || !self.accepted.status.contains(&status) => Verdict::Unknown(said()),
            // A gateway gave up waiting for somebody who may have gone on.
            502 | 504 => Verdict::Unknown(said()),
            408 | 429 | 500..=599 => Verdict::Away(said()),
            400 | 422 => Verdict::Odd(said()),
            300..=399 => Verdict::Faulty(format!("{status}, a redirect, which is not followed")),
            _ => Verdict::Faulty(said()),
        }
    }

    fn reference(&self, json: Option<&Value>) -> Option<String> {
        found(json, self.reference.as_ref()?).into_iter().next()
    }
}

impl Receipt {
    fn check(&self, has_reference: bool) -> Result<(), String> {
        if !self.path.starts_with('/') {
            return Err(format!("receipt.path is {:?}, but must begin with /", self.path));
        }
        for part in self.path.split('/') {
            Text::parse(part).map_err(|error| format!("receipt.path: {error}"))?;
        }
        let segments = path_segments(&self.path);
        let mut used = segments.iter().chain(self.query.values()).flat_map(Text::variables);
        if !used.any(|variable| variable == Variable::Reference) {
            return Err("receipt: {reference} stands nowhere, so nothing would be asked".to_owned());
        }
        if self.reference.is_none() && !has_reference {
            return Err("receipt: there is no reference to ask by".to_owned());
        }
        for rule in [&self.delivered, &self.failed] {
            if rule.pointer.is_none() {
                return Err("receipt: delivered and failed must have a pointer".to_owned());
            }
        }
        let pointers = [&self.reference, &self.detail, &self.delivered.pointer, &self.failed.pointer];
        match pointers.into_iter().flatten().find(|pointer| !pointer.starts_with('/')) {
            Some(pointer) => Err(format!("receipt: pointer is {pointer:?}, but must begin with /")),
            None => Ok(()),
        }
    }
}

/// The segments of a checked path.
fn path_segments(path: &str) -> Vec<Text> {
    let parts = path.strip_prefix('/').map(|path| path.split('/')).into_iter().flatten();
    parts.map(|part| Text::parse(part).expect("checked when it was read")).collect()
}

/// Where a request goes.
fn target(base: &Url, path: &str, query: &BTreeMap<String, Text>, values: &Values<'_>) -> Result<Url, String> {
    let mut url = base.clone();
    let segments = path_segments(path);
    if !segments.is_empty() {
        let mut path = url.path_segments_mut().map_err(|()| "the URL has no path".to_owned())?;
        path.pop_if_empty();
        for segment in &segments {
            path.push(&segment.render(values).unwrap_or_default());
        }
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(render_fields(query, values));
    }
    Ok(url)
}

impl Rule {
    fn allows(&self, value: &str) -> bool {
        self.equals.is_empty() || self.equals.iter().any(|equal| equal == value)
    }
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The provider has the text, under this name.
    Accepted(Option<String>),
    /// Not this text to this recipient, now or ever.
    Refused(String),
    /// Not this text to this recipient, for a reason that may pass.
    Odd(String),
    /// Nothing now: busy, or broken.
    Away(String),
    /// Nothing until a person mends it: credentials, credit, the wrong URL.
    Faulty(String),
    /// The provider may have the text.
    Unknown(String),
}

/// The values at a pointer as text, null left out.
fn found(json: Option<&Value>, pointer: &str) -> Vec<String> {
    let mut values: Vec<&Value> = json.into_iter().collect();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        values = values
            .into_iter()
            .flat_map(|value| match value {
                Value::Array(elements) if part == "*" => elements.iter().collect::<Vec<_>>(),
                Value::Array(elements) => part.parse().ok().and_then(|n: usize| elements.get(n)).into_iter().collect(),
                Value::Object(fields) => fields.get(&part).into_iter().collect(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
            })
            .collect();
    }
    let texts = values.into_iter().filter_map(|value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(value.to_string()),
    });
    texts.collect()
}

fn render_fields(fields: &BTreeMap<String, Text>, values: &Values<'_>) -> Vec<(String, String)> {
    fields.iter().filter_map(|(name, text)| Some((name.clone(), text.render(values)?))).collect()
}

/// What the variables stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values<'a> {
    pub(crate) to: &'a str,
    pub(crate) text: &'a str,
    pub(crate) title: &'a str,
    pub(crate) id: &'a str,
    pub(crate) severity: Severity,
    pub(crate) account: Option<&'a str>,
    pub(crate) from: Option<&'a str>,
    pub(crate) token: Option<&'a Secret>,
    /// How long the text is worth delivering.
    pub(crate) validity: Duration,
    /// Only of a text that was taken.
    pub(crate) reference: Option<&'a str>,
    /// Filled in by the table.
    pub(crate) priority: Option<i64>,
    /// Filled in by the table.
    pub(crate) alphabet: Option<&'a str>,
}

impl<'a> Values<'a> {
    /// Of a text to `to`, with nothing in it yet.
    pub(crate) fn about(to: &'a str, validity: Duration) -> Self {
        Self {
            to,
            text: "",
            title: "",
            id: "",
            severity: Severity::Info,
            account: None,
            from: None,
            token: None,
            validity,
            reference: None,
            priority: None,
            alphabet: None,
        }
    }

    fn get(&self, variable: Variable) -> Option<String> {
        let text = match variable {
            Variable::To => self.to,
            Variable::ToDigits => self.to.trim_start_matches('+'),
            Variable::Text => self.text,
            Variable::Title => self.title,
            Variable::Id => self.id,
            Variable::Severity => self.severity.as_str(),
            Variable::Priority => return self.priority.map(|priority| priority.to_string()),
            Variable::Alphabet => self.alphabet?,
            Variable::Account => self.account?,
            Variable::From => self.from?,
            Variable::Token => self.token?.reveal(),
            Variable::Reference => self.reference?,
            Variable::ValiditySecs => return Some(self.validity.as_secs().to_string()),
            Variable::ValidityMinutes => return Some(self.validity.as_secs().div_ceil(60).to_string()),
            Variable::ValidityMs => return Some(self.validity.as_millis().to_string()),
            Variable::Url => return None,
        };
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn table(text: &str) -> Table {
        let table: Table = common::config::parse(Path::new("test"), text).unwrap_or_else(|error| panic!("{error}"));
        table.check().unwrap_or_else(|error| panic!("{error}"));
        table
    }

    fn preset(name: &str) -> Table {
        let path = format!("{}/presets/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        table(&std::fs::read_to_string(path).expect("a preset"))
    }

    /// Everything in it could break out of a URL, a form, JSON or a header.
    const NASTY: &str = "a/b?c=d&e#f%2e\"{text}\\ ü+\u{1}";

    fn values(token: &Secret) -> Values<'_> {
        Values {
            to: "+4912345678",
            text: NASTY,
            title: "title",
            id: "id",
            severity: Severity::Crit,
            account: Some("../x/y?z"),
            from: Some("me&to=+1"),
            token: Some(token),
            validity: Duration::from_hours(1),
            reference: None,
            priority: None,
            alphabet: None,
        }
    }

    fn request(table: &Table, values: &Values<'_>) -> reqwest::Request {
        common::trust::install_ring();
        let base = Url::parse(table.url.as_deref().unwrap_or("https://h/base/")).expect("a URL");
        table.request(&reqwest::Client::new(), &base, values).expect("a request")
    }

    fn body(request: &reqwest::Request) -> String {
        String::from_utf8(request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default().to_vec()).expect("text")
    }

    #[test]
    fn a_value_stays_in_its_place() {
        let token = Secret::new("to&ken").expect("a line");
        let twilio = request(&preset("twilio"), &values(&token));
        assert_eq!(twilio.url().as_str(), "https://api.twilio.com/2010-04-01/Accounts/..%2Fx%2Fy%3Fz/Messages.json");
        let form = Url::parse(&format!("form:/?{}", body(&twilio))).expect("a form");
        let fields: Vec<_> = form.query_pairs().into_owned().collect();
        let expected = [("Body", NASTY), ("From", "me&to=+1"), ("To", "+4912345678"), ("ValidityPeriod", "3600")];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));

        let kannel = request(&preset("kannel"), &values(&token));
        let query: Vec<_> = kannel.url().query_pairs().filter(|(name, _)| name == "to").collect();
        assert_eq!(query.len(), 1, "{}", kannel.url());

        let gotify = request(&preset("gotify"), &values(&token));
        assert_eq!(gotify.url().as_str(), "https://h/base/message");
        let json: Value = serde_json::from_str(&body(&gotify)).expect("JSON");
        assert_eq!(json, serde_json::json!({ "title": "title", "message": NASTY, "priority": 10 }));
    }

    #[test]
    fn what_is_not_configured_is_left_out_and_a_header_cannot_be_split() {
        let token = Secret::new("t").expect("a line");
        let without = Values { token: None, ..values(&token) };
        assert!(request(&preset("ntfy"), &without).headers().get("authorization").is_none());
        assert_eq!(request(&preset("ntfy"), &values(&token)).headers()["authorization"], "Bearer t");
        let headers = table("text = '{text}'\nheaders = { X = '{text}' }\naccepted = { status = [200] }");
        let refused =
            headers.request(&reqwest::Client::new(), &Url::parse("https://h").expect("a URL"), &values(&token));
        assert_eq!(refused.map(|_| ()), Err("the header X would hold control characters".to_owned()));
    }

    #[test]
    fn vonage_is_believed_by_its_words_and_not_by_its_status() {
        let vonage = preset("vonage");
        let judge = |body: &str| vonage.judge(200, body.as_bytes());
        let accepted = judge(r#"{"messages":[{"status":"0","message-id":"A"},{"status":"0"}]}"#);
        assert_eq!(accepted, Verdict::Accepted(Some("A".to_owned())));
        assert!(matches!(judge(r#"{"messages":[{"status":"6","error-text":"no such number"}]}"#), Verdict::Refused(_)));
        assert!(matches!(judge(r#"{"messages":[{"status":"4"}]}"#), Verdict::Faulty(_)));
        assert!(matches!(judge(r#"{"messages":[{"status":"0"},{"status":"1"}]}"#), Verdict::Faulty(_)));
        assert!(matches!(judge(r#"{"messages":[]}"#), Verdict::Unknown(_)));
        assert!(matches!(judge("<html>"), Verdict::Unknown(_)));
    }

    #[test]
    fn a_status_says_whose_fault_it_is() {
        let plain = table("text = '{text}'\naccepted = { status = [201] }");
        assert_eq!(plain.judge(201, b"anything"), Verdict::Accepted(None));
        assert_eq!(plain.judge(400, b"bad number"), Verdict::Refused("400 bad number".to_owned()));
        assert_eq!(plain.judge(422, b""), Verdict::Refused("422".to_owned()));
        for status in [401, 402, 403, 404, 301, 307] {
            assert!(matches!(plain.judge(status, b""), Verdict::Faulty(_)), "{status}");
        }
        for status in [408, 429, 500, 503] {
            assert!(matches!(plain.judge(status, b""), Verdict::Away(_)), "{status}");
        }
        for status in [200, 202, 502, 504] {
            assert!(matches!(plain.judge(status, b""), Verdict::Unknown(_)), "{status}");
        }
    }

    #[test]
    fn only_some_complaints_of_twilio_and_pushover_are_about_the_number() {
        let twilio = preset("twilio");
        assert!(matches!(twilio.judge(400, br#"{"code":21211,"message":"invalid To"}"#), Verdict::Refused(_)));
        assert!(matches!(twilio.judge(400, br#"{"code":21606,"message":"From is not yours"}"#), Verdict::Odd(_)));
        let pushover = preset("pushover");
        assert!(matches!(pushover.judge(400, br#"{"user":"invalid","status":0}"#), Verdict::Refused(_)));
        assert!(matches!(pushover.judge(400, br#"{"token":"invalid","status":0}"#), Verdict::Odd(_)));
        assert!(matches!(pushover.judge(200, br#"{"status":1,"request":"R"}"#), Verdict::Accepted(Some(_))));
    }

    #[test]
    fn the_alphabet_is_said_to_those_who_want_to_know() {
        let token = Secret::new("t").expect("a line");
        let kind = |text: &str| {
            let values = Values { text, ..values(&token) };
            let url = request(&preset("kannel"), &values).url().clone();
            url.query_pairs().find(|(name, _)| name == "coding").expect("coding").1.into_owned()
        };
        assert_eq!((kind("Grüße"), kind("привет")), ("0".to_owned(), "2".to_owned()));
    }
}
