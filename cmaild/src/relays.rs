//! Several SMTP servers, of which the first that takes a mail has it.
//!
//! They are asked in the order of the configuration. A definite no of one leads to the next at once, unless it is about the
//! mail itself: a mailbox that does not exist exists at no other relay. One that failed rests, which means that the others
//! are asked before it: with a dead one in front, every mail would wait for its time limit.
//!
//! The hard case is a connection that breaks after the final dot: the server may have the mail. Nobody else is asked within
//! the same attempt, since what would be handed over does not say that it may be a copy. The frame sends it again, under
//! the same Message-ID and marked, and by then that server rests.

use crate::smtp::{Refusal, Smtp, Verdict};
use common::notifier::{Outcome, Scope};
use common::time::for_people;
use lettre::Address;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a server rests after its first failure; twice as long after each further one,
const FIRST_REST: Duration = Duration::from_mins(1);
/// and at most. It only delays the return to the preferred one.
const LONGEST_REST: Duration = Duration::from_mins(8);

/// The servers, at least one.
pub struct Relays {
    servers: Vec<Smtp>,
    rests: Mutex<Rests>,
}

impl Relays {
    /// Touches nothing yet.
    pub fn new(servers: Vec<Smtp>) -> Self {
        let rests = Mutex::new(Rests(vec![Rest::default(); servers.len()]));
        Self { servers, rests }
    }

    /// Hands one mail to the first that takes it. Ends within twice the time limits of all of them together.
    pub async fn send(&self, from: &Address, to: &Address, bytes: &[u8]) -> Outcome {
        let mut tried = Tried { servers: self.servers.len(), ..Tried::default() };
        let order = self.rests.lock().unwrap_or_else(PoisonError::into_inner).order(Instant::now());
        for nth in order {
            let server = &self.servers[nth];
            let answer = server.send(from, to, bytes).await;
            self.remember(nth, answer.as_ref().err());
            match answer {
                Ok(reply) => return Outcome::Sent(tried.sent(to, &server.name(), &reply)),
                Err(refusal) => {
                    if let Some(outcome) = tried.add(refusal) {
                        return outcome;
                    }
                }
            }
        }
        tried.outcome()
    }

    /// Keeps whether it works, and logs the change. Of an only one the frame does.
    fn remember(&self, nth: usize, refusal: Option<&Refusal>) {
        let mut rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        let fails = refusal.filter(|refusal| match refusal.verdict {
            Verdict::Away | Verdict::Unknown => true,
            // It works, if not for this mail.
            Verdict::Never | Verdict::NotHere | Verdict::NotNow => false,
        });
        let changed = match fails {
            Some(_) => rests.failed(nth, Instant::now()),
            None => rests.works(nth),
        };
        if changed && self.servers.len() > 1 {
            match fails {
                Some(Refusal { why, .. }) => {
                    tracing::warn!("a relay fails and is asked last for {}: {why}", for_people(FIRST_REST));
                }
                None => tracing::info!("relay {} is back", self.servers[nth].name()),
            }
        }
    }
}

/// Who is asked last, and until when.
#[derive(Debug)]
struct Rests(Vec<Rest>);

#[derive(Clone, Debug, Default)]
struct Rest {
    /// In a row.
    failures: u32,
    until: Option<Instant>,
}

impl Rests {
    /// As configured, those that rest at the end.
    fn order(&self, now: Instant) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        order.sort_by_key(|&nth| self.0[nth].until.is_some_and(|until| now < until));
        order
    }

    /// Whether it worked before.
    fn failed(&mut self, nth: usize, now: Instant) -> bool {
        let rest = &mut self.0[nth];
        let pause = FIRST_REST.saturating_mul(1 << rest.failures.min(10)).min(LONGEST_REST);
        rest.failures += 1;
        rest.until = Some(now + pause);
        rest.failures == 1
    }

    /// Whether it failed before.
    fn works(&mut self, nth: usize) -> bool {
        std::mem::take(&mut self.0[nth]).failures > 0
    }
}

/// Which servers did not take a mail, and why.
#[derive(Debug, Default)]
struct Tried {
    /// How many there are.
    servers: usize,
    words: Vec<String>,
    /// One of them works, but not for this mail.
    works: bool,
    /// One of them may take it later.
    passing: bool,
}

impl Tried {
    fn sent(&self, to: &Address, server: &str, reply: &str) -> String {
        match (self.servers, self.words.is_empty()) {
            (..2, _) => format!("{to}: {reply}"),
            (_, true) => format!("{to}: {reply}, by {server}"),
            (_, false) => format!("{to}: {reply}, by {server} after {}", self.words.join("; ")),
        }
    }

    /// The outcome, if nobody else is to be asked.
    fn add(&mut self, Refusal { verdict, why }: Refusal) -> Option<Outcome> {
        self.words.push(why);
        match verdict {
            Verdict::Never => return Some(Outcome::Never(self.words.join("; "))),
            Verdict::Unknown => {
                // Where there is another, it takes what is for others meanwhile.
                let scope = if self.servers > 1 { Scope::Recipient } else { Scope::Lane };
                let why = self.words.join("; ");
                return Some(Outcome::Retry { why, scope, maybe_accepted: true, after: None });
            }
            Verdict::NotHere => self.works = true,
            Verdict::NotNow => (self.works, self.passing) = (true, true),
            Verdict::Away => self.passing = true,
        }
        None
    }

    /// What nobody took.
    fn outcome(self) -> Outcome {
        let why = self.words.join("; ");
        if !self.passing {
            return Outcome::Never(why);
        }
        let scope = if self.works { Scope::Recipient } else { Scope::Lane };
        Outcome::Retry { why, scope, maybe_accepted: false, after: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Away, Never, NotHere, NotNow, Unknown};

    /// What becomes of a mail that these servers, asked in turn, refuse; and how many of them are asked.
    fn outcome(verdicts: &[Verdict]) -> (String, usize) {
        let mut tried = Tried { servers: verdicts.len(), ..Tried::default() };
        for (nth, verdict) in (1..).zip(verdicts) {
            if let Some(outcome) = tried.add(Refusal { verdict: *verdict, why: format!("{nth}") }) {
                return (word(&outcome), nth);
            }
        }
        (word(&tried.outcome()), verdicts.len())
    }

    fn word(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Sent(words) => words.clone(),
            Outcome::Never(why) => format!("never: {why}"),
            Outcome::Retry { why, scope, maybe_accepted, .. } => {
                let scope = if *scope == Scope::Lane { "lane" } else { "recipient" };
                format!("{scope}{}: {why}", if *maybe_accepted { "?" } else { "" })
            }
        }
    }

    #[test]
    fn the_next_is_asked_unless_the_answer_is_about_the_mail_or_nobody_knows_it() {
        for (verdicts, expected, asked) in [
            (&[Away][..], "lane: 1", 1),
            (&[NotNow], "recipient: 1", 1),
            (&[NotHere], "never: 1", 1),
            (&[Never], "never: 1", 1),
            (&[Unknown], "lane?: 1", 1),
            (&[Away, Away], "lane: 1; 2", 2),
            (&[Away, NotNow], "recipient: 1; 2", 2),
            (&[Never, Away], "never: 1", 1),
            (&[Away, Never, Away], "never: 1; 2", 2),
            (&[Unknown, Away], "recipient?: 1", 1),
            (&[Away, Unknown], "recipient?: 1; 2", 2),
            (&[NotHere, NotHere], "never: 1; 2", 2),
            (&[NotHere, Away], "recipient: 1; 2", 2),
        ] {
            assert_eq!(outcome(verdicts), (expected.to_owned(), asked), "{verdicts:?}");
        }
    }

    #[test]
    fn who_failed_is_asked_last_for_a_while_and_longer_each_time() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut rests = Rests(vec![Rest::default(); 3]);
        assert_eq!(rests.order(at(0)), [0, 1, 2]);
        assert!(rests.failed(0, at(0)));
        assert_eq!(rests.order(at(59)), [1, 2, 0]);
        assert_eq!(rests.order(at(60)), [0, 1, 2]);
        // It fails again, and so does the next.
        assert!(!rests.failed(0, at(60)));
        assert!(rests.failed(1, at(60)));
        assert_eq!(rests.order(at(61)), [2, 0, 1]);
        assert_eq!(rests.order(at(120)), [1, 2, 0]);
        assert_eq!(rests.order(at(180)), [0, 1, 2]);
        for again in 0..10 {
            rests.failed(0, at(180 + again));
        }
        assert_eq!(rests.order(at(189 + 479)), [1, 2, 0]);
        assert_eq!(rests.order(at(189 + 480)), [0, 1, 2]);
        // It works, and begins anew.
        assert!(rests.works(0));
        assert!(!rests.works(0));
        rests.failed(0, at(1000));
        assert_eq!(rests.order(at(1060)), [0, 1, 2]);
    }
}
