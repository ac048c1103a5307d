//! Goes from one provider to the next until one has the text.
//!
//! Only the first that takes it costs anything, so a definite no leads to the next provider at once. The hard case is a
//! request that was sent and never answered: the provider may have the text. None of the known ones drops a second request
//! by its key (Vonage, MessageBird and Sinch take our id as a reference for people), so asking anybody again may double it.
//! A text too many is better than none when something is CRIT: the next one is asked, with `(again?)` before the text.

use crate::compose::{self, Form, Message, PERHAPS_AGAIN};
use crate::heart::Heart;
use crate::number::masked;
use crate::provider::Provider;
use crate::receipts::{Receipts, Taken};
use crate::table::{Values, Verdict};
use crate::text::{Limit, segments};
use common::notifier::{Cap, Composed, Folder, Letter, Medium, MessageId, Note, Outcome, Pace, Recipient, Scope, Tier};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// For all providers of one text together; a send must end within about a minute.
pub(crate) const TOTAL_TIMEOUT: Duration = Duration::from_mins(1);
/// For one of them.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(20);

/// Short messages and push.
#[derive(Debug)]
pub struct Sms {
    pub(crate) providers: Arc<Vec<Provider>>,
    pub(crate) folder: Folder,
    /// For all providers of one text together.
    pub(crate) total_timeout: Duration,
    /// How long a text is worth delivering.
    pub(crate) lifetime: Duration,
    /// What all texts together may cost.
    pub(crate) caps: Vec<Cap>,
    /// What the last text cost. One is under way at a time.
    pub(crate) paid: AtomicU64,
    /// Texts whose fate is not known.
    pub(crate) receipts: Receipts,
    /// Who is to notice if we are gone; on one of the lanes.
    pub(crate) heart: Option<Arc<Heart>>,
}

/// Where a text goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// A number in E.164, a topic, a key; validated. Empty only for a folder.
    pub(crate) to: String,
    /// Which providers may be asked, in this order; none is the folder.
    pub(crate) providers: Vec<usize>,
    /// What all of them take.
    pub(crate) limit: Limit,
    /// No more texts than this.
    pub(crate) tiers: Vec<Tier>,
    /// The first recipient with this number, under whose name all texts to it are counted.
    pub(crate) account: String,
    /// What one text costs at most, should every provider take it.
    pub(crate) dearest: u64,
}

impl Destination {
    /// Room for the mark of a text that another provider may have sent already.
    fn reserve(&self) -> usize {
        if self.providers.len() > 1 { PERHAPS_AGAIN.len() } else { 0 }
    }
}

impl Medium for Sms {
    type Address = Destination;

    fn compose(&self, to: &Destination, letter: &Letter<'_>) -> Composed {
        self.write(to, letter, None)
    }

    fn compose_last(&self, to: &Destination, letter: &Letter<'_>, waiting: usize) -> Composed {
        self.write(to, letter, Some(waiting))
    }

    fn pace(&self, to: &Recipient<Destination>) -> Pace {
        let Destination { tiers, account, dearest, .. } = to.address.clone();
        Pace { account, tiers, dearest, ..Pace::default() }
    }

    fn caps(&self) -> Vec<Cap> {
        self.caps.clone()
    }

    fn cost(&self, to: &Destination, bytes: &[u8]) -> u64 {
        let Ok(message) = serde_json::from_slice::<Message>(bytes) else { return 0 };
        let segments = segments(&message.text, to.reserve());
        to.providers.iter().map(|&index| self.providers[index].cost(segments)).sum()
    }

    fn paid(&self) -> Option<u64> {
        Some(self.paid.load(Ordering::Relaxed))
    }

    fn alive(&self, beating: bool) {
        if let Some(heart) = &self.heart {
            heart.beat(beating);
        }
    }

    async fn noted(&self) -> Note {
        self.receipts.next(&self.providers).await
    }

    async fn send(&self, to: &Destination, id: MessageId, bytes: &[u8]) -> Outcome {
        // Until somebody has answered, everybody may have taken it.
        self.paid.store(self.cost(to, bytes), Ordering::Relaxed);
        if to.providers.is_empty() {
            return self.folder.write(&format!("{id}.txt"), bytes).await;
        }
        let Ok(message) = serde_json::from_slice::<Message>(bytes) else {
            return Outcome::Never("the text was not written by this csmsd".to_owned());
        };
        let key = id.to_string();
        let mut tried = Tried::default();
        let mut paid = 0;
        for index in self.in_order(to) {
            let provider = &self.providers[index];
            let text = tried.text(&message);
            let values = Values {
                text: &text,
                title: &message.title,
                id: &key,
                severity: message.severity,
                ..Values::about(&to.to, self.lifetime)
            };
            let answer = provider.ask(values, self.timeout(to.providers.len())).await;
            if matches!(answer.verdict, Verdict::Accepted(_) | Verdict::Unknown(_)) {
                paid += provider.cost(segments(&text, 0));
            }
            if let Verdict::Accepted(reference) = answer.verdict {
                self.paid.store(paid, Ordering::Relaxed);
                if let Some(receipt) = answer.receipt {
                    self.receipts.add(Taken { id, provider: index, receipt, to: to.to.clone() }, self.lifetime);
                }
                return Outcome::Sent(tried.sent(&provider.name, reference, &to.to));
            }
            tried.add(&provider.name, answer.verdict, answer.after);
        }
        self.paid.store(paid, Ordering::Relaxed);
        tried.outcome(&to.to)
    }
}

impl Sms {
    fn write(&self, to: &Destination, letter: &Letter<'_>, last_of: Option<usize>) -> Composed {
        let is_rationed = !to.tiers.is_empty();
        let form = Form { limit: to.limit, reserve: to.reserve(), lifetime: self.lifetime, is_rationed, last_of };
        let (message, told) = compose::compose(letter, form);
        if to.providers.is_empty() {
            let text = format!("To: {}\n\n{}\n", letter.recipient, message.text);
            return Composed { bytes: text.into_bytes(), told };
        }
        compose::composed(&message, told)
    }

    /// As configured, but those that failed just now at the end.
    fn in_order(&self, to: &Destination) -> Vec<usize> {
        let mut providers = to.providers.clone();
        providers.sort_by_key(|&index| self.providers[index].rests());
        providers
    }

    /// So that all providers have their turn within the time of one send.
    fn timeout(&self, providers: usize) -> Duration {
        let share = self.total_timeout / u32::try_from(providers).expect("a handful");
        share.min(PROVIDER_TIMEOUT)
    }
}

/// Which providers did not take a text, and why.
#[derive(Debug, Default)]
struct Tried {
    words: Vec<String>,
    unknown: bool,
    /// Somebody failed in a way that may pass.
    passing: bool,
    /// Somebody works, but not for this text.
    works: bool,
    /// What each of those who may take it later asked for.
    after: Vec<Option<Duration>>,
}

impl Tried {
    fn text(&self, message: &Message) -> String {
        if self.unknown && !message.text.starts_with("(again") {
            format!("{PERHAPS_AGAIN}{}", message.text)
        } else {
            message.text.clone()
        }
    }

    fn add(&mut self, provider: &str, verdict: Verdict, after: Option<Duration>) {
        let (what, why) = match verdict {
            Verdict::Refused(why) => {
                self.works = true;
                self.words.push(format!("{provider} refuses it: {why}"));
                return;
            }
            Verdict::Odd(why) => {
                self.works = true;
                ("does not take it", why)
            }
            Verdict::Away(why) => ("is away", why),
            Verdict::Faulty(why) => ("refuses us", why),
            Verdict::Unknown(why) => {
                self.unknown = true;
                ("may have taken it", why)
            }
            Verdict::Accepted(_) => return,
        };
        self.passing = true;
        self.after.push(after);
        self.words.push(format!("{provider} {what}: {why}"));
    }

    fn sent(&self, provider: &str, reference: Option<String>, to: &str) -> String {
        let mut words = format!("{provider} took it for {}", masked(to));
        if let Some(reference) = reference {
            let _ = write!(words, " as {reference}");
        }
        if !self.words.is_empty() {
            let _ = write!(words, " after {}", self.words.join("; "));
        }
        words
    }

    fn outcome(self, to: &str) -> Outcome {
        let why = format!("to {}: {}", masked(to), self.words.join("; "));
        if !self.passing {
            return Outcome::Never(why);
        }
        // One that asks for nothing may be tried at the frame's own pace.
        let after = self.after.into_iter().min_by_key(|after| after.unwrap_or_default()).flatten();
        let scope = if self.works { Scope::Recipient } else { Scope::Lane };
        Outcome::Retry { why, scope, maybe_accepted: self.unknown, after }
    }
}

#[cfg(test)]
mod tests;
