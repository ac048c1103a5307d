//! Asks what became of texts that a provider took: a text that was accepted is not yet one that arrived, and a push that was
//! sent is not yet one that somebody has seen. What is learned stands in the ledger beside the text.
//!
//! Providers call back as well, but for that they would have to reach this machine; asking works from behind any firewall.
//! What is not known when we stop is not asked for again: the text itself is safe, and its receipt is a comfort.

use crate::provider::Provider;
use crate::table::{Fate, Values};
use common::notifier::{MessageId, Note};
use common::time::for_people;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// After which the first question goes; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// And the longest. Nobody asks for more than a question each 5 seconds.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Beyond the time that a text is worth delivering, for what the provider itself learns late.
const GRACE: Duration = Duration::from_mins(5);
/// For one question.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Of one lane. Beyond it the oldest is no longer asked for.
const MAX_OPEN: usize = 200;

/// A text that a provider took.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) id: MessageId,
    /// Which provider, by its place.
    pub(crate) provider: usize,
    /// What it calls the text.
    pub(crate) receipt: String,
    pub(crate) to: String,
}

/// Texts whose fate is not known.
#[derive(Debug)]
pub(crate) struct Receipts {
    open: Mutex<Vec<Open>>,
    /// Before the first question.
    pub(crate) first_pause: Duration,
}

#[derive(Clone, Debug)]
struct Open {
    taken: Taken,
    lifetime: Duration,
    ask_at: Instant,
    pause: Duration,
    until: Instant,
}

impl Default for Receipts {
    fn default() -> Self {
        Self { open: Mutex::default(), first_pause: FIRST_PAUSE }
    }
}

impl Receipts {
    /// From now on its fate is asked for.
    pub(crate) fn add(&self, taken: Taken, lifetime: Duration) {
        let now = Instant::now();
        let pause = self.first_pause;
        let open = Open { taken, lifetime, ask_at: now + pause, pause, until: now + lifetime + GRACE };
        self.with(|all| {
            if all.len() == MAX_OPEN {
                all.remove(0);
            }
            all.push(open);
        });
    }

    /// Waits until the fate of one of them is known, or nobody will know it any more. May be cancelled.
    pub(crate) async fn next(&self, providers: &[Provider]) -> Note {
        loop {
            let Some(open) = self.with(|all| all.iter().min_by_key(|open| open.ask_at).cloned()) else {
                return std::future::pending().await;
            };
            sleep_until(open.ask_at).await;
            let (id, now) = (open.taken.id, Instant::now());
            // Before it is asked: whoever cancels us must not make us ask faster.
            self.with(|all| {
                for open in all.iter_mut().filter(|open| open.taken.id == id) {
                    open.ask_at = now + open.pause;
                    open.pause = (open.pause * 2).min(LONGEST_PAUSE);
                }
            });
            let fate = ask(&open, providers).await;
            let words = match fate {
                Some(Fate::Delivered(words)) => words,
                Some(Fate::Failed(words)) => {
                    let provider = &providers[open.taken.provider];
                    provider.counters.count("sms", "not_delivered");
                    tracing::warn!("message {id}: {} says {words}", provider.name);
                    words
                }
                None if now >= open.until => format!("no receipt within {}", for_people(open.lifetime + GRACE)),
                None => continue,
            };
            self.with(|all| all.retain(|open| open.taken.id != id));
            return Note { id, words };
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Vec<Open>) -> T) -> T {
        change(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn ask(open: &Open, providers: &[Provider]) -> Option<Fate> {
    let Taken { provider, receipt, to, .. } = &open.taken;
    let values = Values { reference: Some(receipt), ..Values::about(to, open.lifetime) };
    providers[*provider].ask_for_receipt(values, TIMEOUT).await
}
