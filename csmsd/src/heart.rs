//! Calls a URL while all is well, so that somebody outside notices when it is not: the whole of this machine may be gone, and
//! then nobody in it can say so. What is called is any dead man's switch that takes a plain request, such as healthchecks.io,
//! Uptime Kuma or Dead Man's Snitch.
//!
//! "Well" is: this daemon's main loop turns, and every cprocessd that it follows beats. When one does not, calling stops, and
//! silence is the message.

use crate::provider::chain;
use common::counters::Counters;
use common::secret::Secret;
use reqwest::{Client, Method, Url};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For one call.
const TIMEOUT: Duration = Duration::from_secs(20);
/// After a call that failed, the next one comes no later than this.
const RETRY: Duration = Duration::from_mins(1);

/// The URL and how it is called.
#[derive(Debug)]
pub(crate) struct Heart {
    client: Client,
    method: Method,
    /// Whoever has it can call it, so it is in no log.
    url: Secret,
    every: Duration,
    counters: Counters,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Every publisher beats, as far as we have been told.
    beats: bool,
    /// When the next call is due, once there was one.
    due: Option<Instant>,
    is_calling: bool,
    /// The last call failed.
    fails: bool,
}

impl Heart {
    pub(crate) fn new(client: Client, method: Method, url: Secret, every: Duration, counters: Counters) -> Self {
        Self { client, method, url, every, counters, state: Mutex::default() }
    }

    /// Twice a second: whether every publisher beats. Calls if that is due.
    pub(crate) fn beat(self: &Arc<Self>, beats: bool) {
        if self.is_due(beats, Instant::now()) {
            let heart = self.clone();
            tokio::spawn(async move {
                let outcome = heart.call().await;
                heart.called(outcome, Instant::now());
            });
        }
    }

    fn is_due(&self, beats: bool, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut state.beats, beats) != beats {
            if beats {
                tracing::info!("every publisher beats: calling the heartbeat URL");
            } else {
                tracing::warn!("a publisher does not beat: the heartbeat URL is not called meanwhile");
            }
        }
        let is_due = beats && !state.is_calling && state.due.is_none_or(|due| due <= now);
        if is_due {
            state.is_calling = true;
            state.due = Some(now + self.every);
        }
        is_due
    }

    async fn call(&self) -> Result<(), String> {
        let url = Url::parse(self.url.reveal()).expect("it was parsed when it was configured");
        let request = self.client.request(self.method.clone(), url).timeout(TIMEOUT);
        let response = request.send().await.map_err(|error| chain(&error.without_url()))?;
        if response.status().is_success() { Ok(()) } else { Err(format!("it answers {}", response.status().as_u16())) }
    }

    fn called(&self, outcome: Result<(), String>, now: Instant) {
        self.counters.count("heartbeat", "called");
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_calling = false;
        let failed = std::mem::replace(&mut state.fails, outcome.is_err());
        match outcome {
            Ok(()) if failed => tracing::info!("the heartbeat URL is back"),
            Ok(()) => {}
            Err(why) => {
                self.counters.count("heartbeat", "failed");
                state.due = state.due.map(|due| due.min(now + RETRY));
                if !failed {
                    tracing::warn!("the heartbeat URL cannot be called: {why}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heart(every: u64) -> Heart {
        common::trust::install_ring();
        let url = Secret::new("http://127.0.0.1:9/ping").expect("a line");
        Heart::new(Client::new(), Method::GET, url, Duration::from_secs(every), Counters::default())
    }

    #[tokio::test]
    async fn it_is_called_while_everybody_beats_and_not_twice_at_once() {
        let (heart, start) = (heart(60), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        assert!(!heart.is_due(false, at(0)));
        assert!(heart.is_due(true, at(1)));
        // The call is still under way.
        assert!(!heart.is_due(true, at(62)));
        heart.called(Ok(()), at(62));
        assert!(heart.is_due(true, at(62)));
        heart.called(Ok(()), at(63));
        assert!(!heart.is_due(true, at(121)));
        assert!(!heart.is_due(false, at(122)), "nobody beats");
        assert!(heart.is_due(true, at(400)));
    }

    #[tokio::test]
    async fn a_call_that_failed_is_tried_again_soon_and_counted() {
        let (heart, start) = (heart(86_400), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        assert!(heart.is_due(true, at(0)));
        heart.called(heart.call().await, at(1));
        assert!(!heart.is_due(true, at(60)));
        assert!(heart.is_due(true, at(61)));
        heart.called(Ok(()), at(62));
        assert!(!heart.is_due(true, at(200)));
        let counted = [("heartbeat.called".to_owned(), 2), ("heartbeat.failed".to_owned(), 1)];
        assert_eq!(heart.counters.snapshot(), counted.into());
    }
}
