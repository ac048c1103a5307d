//! Asks cprocessd for what happened in a period: what is open, then the journal from the period's beginning on.
//!
//! The journal is asked by place and not by time, so the place is searched. Dates in it rise, but for what the clocks of
//! observers add, some of which may be a year behind: so a place is as late as the latest of many events there, and the
//! search begins a little early.

use crate::digest::Fold;
use crate::files::question_socket;
use crate::schedule::Period;
use common::message::{DownRow, ErrorCode, Event, EventsPage, Request};
use common::query::{AskError, ask_for};
use common::socket::Requester;
use common::time::UnixMillis;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For each question.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How far the dates of the journal may be out of order.
const SLACK: Duration = Duration::from_hours(1);
/// Looked at in one place.
const WINDOW: u64 = 100;
/// Asked for at once; cprocessd sends fewer if they are large.
const PAGE: u64 = 1_000;
/// Of one journal.
const MAX_EVENTS: u64 = 1_000_000;

/// Fills the folds. What is missing, for people; an error if nobody could be asked.
pub(crate) async fn gather(
    publishers: &[PathBuf],
    period: &Period,
    folds: &mut [Fold],
) -> Result<Option<String>, String> {
    let mut missing = Vec::new();
    let mut answering = Vec::new();
    // All lists before any events: those may say that what is listed is over.
    for publisher in publishers {
        let mut questions = Requester::new(&question_socket(publisher));
        match ask_for::<Vec<DownRow>>(&mut questions, &Request::query("down-list"), ASK_TIMEOUT).await {
            Ok(open) => {
                for row in &open {
                    for fold in folds.iter_mut() {
                        fold.open(row);
                    }
                }
                answering.push((publisher, questions));
            }
            Err(error) => missing.push(unanswered(publisher, &error)),
        }
    }
    let mut asked = 0;
    for (publisher, mut questions) in answering {
        match events(&mut questions, period, folds).await {
            Ok(lacks) => {
                asked += 1;
                missing.extend(lacks.map(|lacks| format!("{}: {lacks}", publisher.display())));
            }
            Err(error) => missing.push(unanswered(publisher, &error)),
        }
    }
    let missing = (!missing.is_empty()).then(|| missing.join("; "));
    match missing {
        Some(missing) if asked == 0 => Err(missing),
        missing => Ok(missing),
    }
}

fn unanswered(publisher: &Path, error: &AskError) -> String {
    format!("{} did not answer: {error}", publisher.display())
}

/// The events of one journal, and what is missing of them.
async fn events(questions: &mut Requester, period: &Period, folds: &mut [Fold]) -> Result<Option<String>, AskError> {
    let Some(first) = first(questions).await? else { return Ok(None) };
    let begin = period.from.minus(SLACK);
    let epoch = first.epoch;
    let mut search = Search { low: first.seq, high: first.head_seq.saturating_add(1), begin };
    while let Some(seq) = search.look_at() {
        let request = Request { limit: Some(WINDOW), epoch: Some(epoch.clone()), ..after(seq - 1) };
        let page: EventsPage<Event> = ask_for(questions, &request, ASK_TIMEOUT).await?;
        search.saw(seq, page.events.len() as u64, page.events.iter().map(|event| event.time).max());
    }
    let low = search.low;
    let mut lacks = (first.seq > 1 && first.time > period.from)
        .then(|| format!("its journal begins only at {}", first.time.local()));
    let mut last = low - 1;
    loop {
        let request = Request { limit: Some(PAGE), epoch: Some(epoch.clone()), ..after(last) };
        let page: EventsPage<Event> = ask_for(questions, &request, ASK_TIMEOUT).await?;
        for event in &page.events {
            for fold in folds.iter_mut() {
                fold.event(event);
            }
        }
        // What does not rise would never end.
        let Some(newest) = page.events.last().filter(|newest| newest.seq > last) else { break };
        last = newest.seq;
        if last - (low - 1) >= MAX_EVENTS {
            lacks = Some(format!("only {MAX_EVENTS} events are counted, up to {}", newest.time.local()));
            break;
        }
    }
    Ok(lacks)
}

/// Looks for the first place that is not certainly earlier than `begin`. It is not before `low`, nor behind `high`.
struct Search {
    low: u64,
    high: u64,
    begin: UnixMillis,
}

impl Search {
    /// Where to look next; nowhere once `low` is the place.
    fn look_at(&self) -> Option<u64> {
        (self.low < self.high).then(|| self.low + (self.high - self.low) / 2)
    }

    /// The latest of so many entries from `seq` on.
    fn saw(&mut self, seq: u64, entries: u64, latest: Option<UnixMillis>) {
        if latest.is_some_and(|latest| latest < self.begin) {
            self.low = seq.saturating_add(entries).min(self.high);
        } else {
            self.high = seq;
        }
    }
}

/// The oldest entry of a journal.
struct First {
    epoch: String,
    seq: u64,
    head_seq: u64,
    time: UnixMillis,
}

/// None of an empty journal.
async fn first(questions: &mut Requester) -> Result<Option<First>, AskError> {
    let mut request = Request { limit: Some(1), ..after(0) };
    let page: EventsPage<Event> = match ask_for(questions, &request, ASK_TIMEOUT).await {
        Err(AskError::Refused(error)) if error.code == ErrorCode::Gone && error.first_seq.is_some() => {
            request.after = error.first_seq.map(|seq| seq.saturating_sub(1));
            ask_for(questions, &request, ASK_TIMEOUT).await?
        }
        answer => answer?,
    };
    let Some(oldest) = page.events.first() else { return Ok(None) };
    let (epoch, seq) = (page.epoch.as_str().to_owned(), oldest.seq.max(1));
    Ok(Some(First { epoch, seq, head_seq: page.head_seq.max(seq), time: oldest.time }))
}

fn after(seq: u64) -> Request {
    Request { after: Some(seq), ..Request::query("events") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place that is found in a journal with an entry of each of these times.
    fn found(times: &[i64], begin: i64) -> i64 {
        let mut search = Search { low: 1, high: times.len() as u64 + 1, begin: UnixMillis(begin) };
        let mut questions = 0;
        while let Some(seq) = search.look_at() {
            questions += 1;
            let from = usize::try_from(seq - 1).expect("small");
            let window = &times[from..times.len().min(from + 100)];
            search.saw(seq, window.len() as u64, window.iter().max().map(|time| UnixMillis(*time)));
        }
        assert!(questions <= 17, "{questions} questions");
        i64::try_from(search.low).expect("small")
    }

    #[test]
    fn the_beginning_of_a_period_is_found_whatever_some_clocks_say() {
        let mut times: Vec<i64> = (0..100_000).collect();
        // What is looked at may begin up to a window early, and never late.
        for begin in [0, 1, 50_000, 99_999] {
            assert!((begin - 100..=begin + 1).contains(&found(&times, begin)), "{begin}: {}", found(&times, begin));
        }
        assert_eq!(found(&times, 100_000), 100_001);
        assert_eq!(found(&[], 5), 1);
        // Every third comes from a host whose clock is far behind.
        times.iter_mut().step_by(3).for_each(|time| *time -= 1_000_000);
        assert!((49_900..=50_001).contains(&found(&times, 50_000)), "{}", found(&times, 50_000));
    }
}
