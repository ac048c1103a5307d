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
                open.iter().for_each(|row| folds.iter_mut().for_each(|fold| fold.open(row)));
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
    let low = place(first.seq, first.head_seq.saturating_add(1), begin, async |seq| {
        let request = Request { limit: Some(WINDOW), epoch: Some(epoch.clone()), ..after(seq - 1) };
        let page: EventsPage<Event> = ask_for(questions, &request, ASK_TIMEOUT).await?;
        Ok((page.events.len() as u64, page.events.iter().map(|event| event.time).max()))
    })
    .await?;
    let mut lacks = (first.seq > 1 && first.time > period.from)
        .then(|| format!("its journal begins only at {}", first.time.local()));
    let mut last = low - 1;
    loop {
        let request = Request { limit: Some(PAGE), epoch: Some(epoch.clone()), ..after(last) };
        let page: EventsPage<Event> = ask_for(questions, &request, ASK_TIMEOUT).await?;
        page.events.iter().for_each(|event| folds.iter_mut().for_each(|fold| fold.event(event)));
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

/// The first place from `low` on, and before `high`, that is not certainly earlier than `begin`: `look` says how many entries
/// there are from a place on, of those looked at, and how late the latest of them is.
async fn place(
    mut low: u64,
    mut high: u64,
    begin: UnixMillis,
    mut look: impl AsyncFnMut(u64) -> Result<(u64, Option<UnixMillis>), AskError>,
) -> Result<u64, AskError> {
    while low < high {
        let middle = low + (high - low) / 2;
        let (looked, latest) = look(middle).await?;
        if latest.is_some_and(|latest| latest < begin) {
            low = middle.saturating_add(looked).min(high);
        } else {
            high = middle;
        }
    }
    Ok(low)
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

    /// The place from which on everything is later than `begin`, in a journal with an entry of each of these times.
    async fn found(times: &[i64], begin: i64) -> u64 {
        let mut questions = 0;
        let found = place(1, times.len() as u64 + 1, UnixMillis(begin), async |seq| {
            questions += 1;
            let from = usize::try_from(seq - 1).expect("small");
            let window = &times[from..times.len().min(from + 100)];
            Ok((window.len() as u64, window.iter().max().map(|time| UnixMillis(*time))))
        })
        .await
        .expect("nobody refuses");
        assert!(questions <= 17, "{questions} questions");
        found
    }

    #[tokio::test]
    async fn the_beginning_of_a_period_is_found_whatever_some_clocks_say() {
        let mut times: Vec<i64> = (0..100_000).collect();
        // What is looked at may begin up to a window early, and never late.
        for begin in [0, 1, 50_000, 99_999] {
            let found = found(&times, begin).await;
            assert!((begin - 100..=begin + 1).contains(&i64::try_from(found).expect("small")), "{begin}: {found}");
        }
        assert_eq!(found(&times, 100_000).await, 100_001);
        assert_eq!(found(&[], 5).await, 1);
        // Every third comes from a host whose clock is far behind.
        for nth in 0..times.len() {
            if nth % 3 == 0 {
                times[nth] -= 1_000_000;
            }
        }
        let found = found(&times, 50_000).await;
        assert!((49_900..=50_001).contains(&found), "{found}");
    }
}
