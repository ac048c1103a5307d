//! Carries one request out, whatever the other side does: bounded in time and in bytes, one connection per text, no
//! redirects, and no word of the token in what is said about it.

use crate::number::masked;
use crate::table::{Fate, Table, Values, Verdict};
use common::counters::Counters;
use common::notifier::one_line;
use common::secret::Secret;
use common::trust::Trust;
use reqwest::{Client, Url};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// To reach it, TLS included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of an answer. Every provider's is below 2 kB.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Of an answer, in what is said about it.
const MAX_SAID_CHARS: usize = 200;
/// A provider that failed is asked last for this long: with a dead one in front, every text would wait for its timeout.
const REST: Duration = Duration::from_mins(1);
/// The longest wait that is believed of a provider.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// One account with one provider.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) name: String,
    pub(crate) table: Table,
    pub(crate) url: Url,
    pub(crate) account: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) token: Option<Secret>,
    /// What a short message costs, or a push, in millionths of the currency.
    pub(crate) price: u64,
    client: Client,
    pub(crate) counters: Counters,
    /// Until when it is asked last, after a failure.
    resting: Mutex<Option<Instant>>,
}

/// How to reach a provider.
#[derive(Debug)]
pub(crate) struct Route {
    /// Who may vouch for it.
    pub(crate) trust: Trust,
    /// The HTTP proxy to go through. The environment's is not taken: a daemon's environment is nobody's configuration.
    pub(crate) proxy: Option<Url>,
}

impl Route {
    pub(crate) fn client(&self) -> Result<Client, String> {
        let mut builder = Client::builder()
            .user_agent(concat!("cairn-csmsd/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            // A connection that is kept may die under the next request, which is then neither sent nor not sent.
            .pool_max_idle_per_host(0)
            .referer(false)
            .tls_backend_preconfigured(self.trust.client())
            .no_proxy();
        if let Some(proxy) = &self.proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy.clone()).map_err(|error| error.to_string())?);
        }
        builder.build().map_err(|error| chain(&error.without_url()))
    }
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What it means; its words are fit to be shown.
    pub(crate) verdict: Verdict,
    /// Not earlier than this.
    pub(crate) after: Option<Duration>,
    /// What to ask for a receipt by, where there may be one.
    pub(crate) receipt: Option<String>,
}

impl Answer {
    fn of(verdict: Verdict) -> Self {
        Self { verdict, after: None, receipt: None }
    }
}

impl Provider {
    pub(crate) fn new(name: String, table: Table, url: Url, route: &Route, counters: Counters) -> Result<Self, String> {
        let client = route.client()?;
        Ok(Self {
            name,
            table,
            url,
            account: None,
            from: None,
            token: None,
            price: 0,
            client,
            counters,
            resting: Mutex::new(None),
        })
    }

    /// Whether it failed so recently that others are asked before.
    pub(crate) fn rests(&self) -> bool {
        self.resting().is_some_and(|until| Instant::now() < until)
    }

    /// Asks it to send a text, once. Ends within `timeout`.
    pub(crate) async fn ask(&self, values: Values<'_>, timeout: Duration) -> Answer {
        let values = self.identified(values);
        let mut answer = match self.table.request(&self.client, &self.url, &values) {
            Ok(request) => self.carry_out(request, timeout).await,
            Err(why) => Answer::of(Verdict::Odd(why)),
        };
        match &mut answer.verdict {
            Verdict::Accepted(reference) => {
                *reference = reference.as_ref().map(|reference| self.shown(reference, values.to));
            }
            Verdict::Refused(why)
            | Verdict::Odd(why)
            | Verdict::Away(why)
            | Verdict::Faulty(why)
            | Verdict::Unknown(why) => *why = self.shown(why, values.to),
        }
        self.remember(&answer);
        answer
    }

    /// Asks what became of a text that it took under this name. None while nobody knows. Ends within `timeout`.
    pub(crate) async fn ask_for_receipt(&self, values: Values<'_>, timeout: Duration) -> Option<Fate> {
        let values = self.identified(values);
        let request = self.table.receipt_request(&self.client, &self.url, &values)?.ok()?;
        let deadline = tokio::time::Instant::now() + timeout;
        let response = tokio::time::timeout_at(deadline, self.client.execute(request)).await.ok()?.ok();
        let Some(response) = response.filter(|response| response.status().is_success()) else {
            self.counters.count("sms", "receipt_refused");
            return None;
        };
        let status = response.status().as_u16();
        let fate = self.table.fate(status, &read(response, deadline).await)?;
        Some(match fate {
            Fate::Delivered(words) => Fate::Delivered(self.shown(&words, values.to)),
            Fate::Failed(words) => Fate::Failed(self.shown(&words, values.to)),
        })
    }

    /// What this text costs here.
    pub(crate) fn cost(&self, segments: usize) -> u64 {
        let parts = if self.table.max_chars.is_some() { 1 } else { segments };
        self.price.saturating_mul(u64::try_from(parts).unwrap_or(u64::MAX))
    }

    fn identified<'a>(&'a self, values: Values<'a>) -> Values<'a> {
        Values { account: self.account.as_deref(), from: self.from.as_deref(), token: self.token.as_ref(), ..values }
    }

    async fn carry_out(&self, request: reqwest::Request, timeout: Duration) -> Answer {
        let deadline = tokio::time::Instant::now() + timeout;
        let response = match tokio::time::timeout_at(deadline, self.client.execute(request)).await {
            Ok(Ok(response)) => response,
            // Refused, unreachable, or no TLS that we trust: nothing was said yet.
            Ok(Err(error)) if error.is_connect() => {
                return Answer::of(Verdict::Away(format!("cannot connect: {}", chain(&error.without_url()))));
            }
            Ok(Err(error)) => {
                return Answer::of(Verdict::Unknown(format!("no answer: {}", chain(&error.without_url()))));
            }
            Err(_) => return Answer::of(Verdict::Unknown(format!("no answer within {} s", timeout.as_secs()))),
        };
        let status = response.status().as_u16();
        let after = retry_after(&response).filter(|_| matches!(status, 429 | 500..=599));
        if matches!(status, 300..=399) {
            self.counters.count("sms", "redirect");
        }
        let body = read(response, deadline).await;
        if body.len() == MAX_ANSWER_BYTES {
            self.counters.count("sms", "answer_too_large");
        }
        let verdict = self.table.judge(status, &body);
        let receipt = matches!(verdict, Verdict::Accepted(_)).then(|| self.table.receipt_name(&body)).flatten();
        Answer { verdict, after, receipt }
    }

    /// Words for the log and the ledger: one line, without our token, and without the whole number, should the provider
    /// have quoted them.
    fn shown(&self, words: &str, to: &str) -> String {
        let mut words = words.to_owned();
        if let Some(token) = self.token.as_ref().map(Secret::reveal) {
            let encoded: String = reqwest::Url::parse_with_params("form:/", [("", token)])
                .ok()
                .and_then(|url| url.query().map(|query| query.trim_start_matches('=').to_owned()))
                .unwrap_or_default();
            let in_a_path = encoded.replace('+', "%20");
            for form in [token, &encoded, &in_a_path].into_iter().filter(|form| !form.is_empty()) {
                words = words.replace(form, "***");
            }
        }
        // A shorter one is no number and no key, but may be a part of any word.
        let digits = to.trim_start_matches('+');
        if digits.len() > 6 {
            words = words.replace(to, &masked(to)).replace(digits, &masked(digits));
        }
        one_line(words.trim(), MAX_SAID_CHARS)
    }

    /// Keeps whether it works, and logs the change.
    fn remember(&self, answer: &Answer) {
        let was = self.resting().is_some();
        let fails = match &answer.verdict {
            Verdict::Away(why) | Verdict::Faulty(why) | Verdict::Unknown(why) => Some(why),
            // About this text, and it works.
            Verdict::Accepted(_) | Verdict::Refused(_) | Verdict::Odd(_) => None,
        };
        *self.resting.lock().unwrap_or_else(PoisonError::into_inner) =
            fails.map(|_| Instant::now() + answer.after.unwrap_or(REST));
        match fails {
            Some(why) if !was => tracing::warn!("provider {} fails: {why}", self.name),
            None if was => tracing::info!("provider {} is back", self.name),
            Some(_) | None => (),
        }
    }

    fn resting(&self) -> Option<Instant> {
        *self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is of the body until the deadline, the bound, or an error: a verdict needs little of it, and a status that
/// has come is not taken back by a connection that breaks behind it.
async fn read(mut response: reqwest::Response, deadline: tokio::time::Instant) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(deadline, response.chunk()).await {
        let room = MAX_ANSWER_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == MAX_ANSWER_BYTES {
            break;
        }
    }
    body
}

/// Seconds (RFC 9110 §10.2.3); a date is not worth a parser, and the frame waits by itself.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let secs = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(secs).min(MAX_RETRY_AFTER))
}

/// An error with what caused it, which reqwest's own words leave out.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !words.contains(&cause) {
            words.push_str(": ");
            words.push_str(&cause);
        }
        source = error.source();
    }
    words
}
