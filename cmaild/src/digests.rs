//! Sees to it that each digest is gathered once, when it is due.
//!
//! What is due is known from the clock alone. That a digest was told is in the outbox, which takes no second event of one id
//! for one recipient; so after a restart it is gathered once more and not told again. One that could not be gathered, or
//! whose time came while nobody ran, is told later, as long as the next one is further away than the last.

use crate::digest::Fold;
use crate::journal;
use crate::medium::To;
use crate::schedule::Period;
use common::address::HostName;
use common::message::Event;
use common::notifier::{Recipient, Said, Selection};
use common::time::UnixMillis;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// After nobody could be asked.
const RETRY: Duration = Duration::from_mins(1);

/// The digests of all recipients.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digests(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The last that each recipient was told.
    told: BTreeMap<String, Period>,
    is_gathering: bool,
    /// Not before then.
    retry_at: Option<UnixMillis>,
    /// Nobody could be asked, and that has been said.
    has_failed: bool,
    /// Gathered and not handed over yet.
    ready: Vec<Said>,
}

impl State {
    /// A period that is over, and for whom it is to be gathered now.
    fn due<'a>(
        &mut self,
        recipients: impl Iterator<Item = (&'a String, &'a Recipient<To>)>,
        now: UnixMillis,
    ) -> Option<(Period, Vec<(String, Selection)>)> {
        // A clock that was put back makes nobody wait for it.
        let waits = self.retry_at.is_some_and(|at| now < at && at.since(now) <= RETRY);
        if self.is_gathering || waits {
            return None;
        }
        let mut found: Option<(Period, Vec<(String, Selection)>)> = None;
        for (name, recipient) in recipients {
            let Some(period) = recipient.address.digest.as_ref().and_then(|schedule| schedule.last(now)) else {
                continue;
            };
            if !period.is_news(now) || self.told.get(name).is_some_and(|told| told.to >= period.to) {
                continue;
            }
            let entry = (name.clone(), recipient.selection.clone());
            match &mut found {
                Some((same, entries)) if *same == period => entries.push(entry),
                Some(_) => {}
                None => found = Some((period, vec![entry])),
            }
        }
        self.is_gathering = found.is_some();
        found
    }
}

impl Digests {
    /// What is gathered; begins to gather what is due.
    pub(crate) fn says(
        &self,
        recipients: &BTreeMap<String, Recipient<To>>,
        host: &HostName,
        publishers: &[PathBuf],
        now: UnixMillis,
    ) -> Vec<Said> {
        let mut state = self.state();
        if let Some((period, who)) = state.due(recipients.iter(), now) {
            let (digests, host, publishers) = (self.clone(), host.clone(), publishers.to_owned());
            tokio::spawn(async move { digests.gather(period, who, &host, &publishers, now).await });
        }
        std::mem::take(&mut state.ready)
    }

    async fn gather(
        &self,
        period: Period,
        who: Vec<(String, Selection)>,
        host: &HostName,
        publishers: &[PathBuf],
        now: UnixMillis,
    ) {
        // Who selects the same gets the same.
        let mut selections: Vec<Selection> = Vec::new();
        let mut whose = Vec::new();
        for (_, selection) in &who {
            let known = selections.iter().position(|known| known == selection);
            whose.push(known.unwrap_or_else(|| {
                selections.push(selection.clone());
                selections.len() - 1
            }));
        }
        let count = selections.len();
        let fold = |selection| Fold::new(period.clone(), selection, count);
        let mut folds: Vec<Fold> = selections.into_iter().map(fold).collect();
        let gathered = journal::gather(publishers, &period, &mut folds).await;
        let mut state = self.state();
        state.is_gathering = false;
        match gathered {
            Ok(missing) => {
                (state.retry_at, state.has_failed) = (None, false);
                tracing::info!("{} digest gathered for {} recipients", period.every, who.len());
                let digest = |fold: Fold| fold.finish(missing.clone()).event(host, now);
                let events: Vec<Event> = folds.into_iter().map(digest).collect();
                for ((recipient, _), fold) in who.into_iter().zip(whose) {
                    state.told.insert(recipient.clone(), period.clone());
                    state.ready.push(Said { recipient, event: events[fold].clone() });
                }
            }
            Err(why) => {
                state.retry_at =
                    Some(UnixMillis(now.0.saturating_add(i64::try_from(RETRY.as_millis()).expect("a minute"))));
                if !std::mem::replace(&mut state.has_failed, true) {
                    tracing::warn!("a {} digest is due and cannot be gathered, will retry: {why}", period.every);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Every, Schedule};
    use common::severity::Severity;

    const HOUR: i64 = 3_600_000;

    fn recipient(name: &str, digest: Option<(Every, &str)>) -> (String, Recipient<To>) {
        let schedule = |(every, at): (Every, &str)| Schedule {
            every,
            day: jiff::civil::Weekday::Thursday,
            at: at.parse().expect("a time"),
            zone: jiff::tz::TimeZone::UTC,
        };
        let address =
            To { mailbox: "a@b.c".parse().expect("a mailbox"), digest: digest.map(schedule), is_subscriber: false };
        let selection = Selection::at_least(Severity::Warn);
        (name.to_owned(), Recipient { name: name.to_owned(), selection, address })
    }

    #[test]
    fn each_period_is_gathered_once_for_all_whom_it_concerns() {
        let who: BTreeMap<String, Recipient<To>> = [
            recipient("ann", Some((Every::Day, "07:00"))),
            recipient("bob", Some((Every::Day, "07:00"))),
            recipient("cid", Some((Every::Day, "09:00"))),
            // The epoch was a Thursday.
            recipient("dan", Some((Every::Week, "07:00"))),
            recipient("eve", None),
        ]
        .into();
        let mut state = State::default();
        let mut gathered = Vec::new();
        // Every half hour of eight days.
        for half in 0..(8 * 48) {
            let now = UnixMillis(28 * 24 * HOUR + half * HOUR / 2);
            while let Some((period, names)) = state.due(who.iter(), now) {
                state.is_gathering = false;
                let names: Vec<String> = names.into_iter().map(|(name, _)| name).collect();
                state.told.extend(names.iter().map(|name| (name.clone(), period.clone())));
                gathered.push(format!("{} {} {}", half / 2, period.every, names.join(" ")));
            }
        }
        assert_eq!(
            gathered[..7],
            [
                // The weekly one of the week before is half a week old by then: no news. The daily ones are seventeen hours.
                "7 daily ann bob",
                "7 weekly dan",
                "9 daily cid",
                "31 daily ann bob",
                "33 daily cid",
                "55 daily ann bob",
                "57 daily cid",
            ]
        );
        assert_eq!(gathered.len(), 18);
    }

    #[test]
    fn what_could_not_be_gathered_is_tried_again_until_it_is_no_news() {
        let who: BTreeMap<String, Recipient<To>> = [recipient("ann", Some((Every::Day, "07:00")))].into();
        let mut state = State::default();
        let mut tries = 0;
        for minute in 0..(24 * 60) {
            let now = UnixMillis(7 * HOUR + minute * 60_000);
            if state.due(who.iter(), now).is_some() {
                tries += 1;
                state.is_gathering = false;
                state.retry_at = Some(UnixMillis(now.0 + 60_000));
            }
        }
        assert_eq!(tries, 12 * 60);
        // It was put back by a week: nobody waits for it.
        state.retry_at = Some(UnixMillis(14 * 24 * HOUR));
        assert!(state.due(who.iter(), UnixMillis(7 * 24 * HOUR + 8 * HOUR)).is_some());
    }
}
