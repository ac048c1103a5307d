//! Asks cprocessd for what happened in a period: what is open, then the journal from the period's beginning on.
//!
//! The journal is asked by place and not by time, so the place is searched: dates in it rise, but for what the clocks of
//! observers add, which is what the slack is for.

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
    let (epoch, mut low, mut high) = (first.epoch, first.seq, first.head_seq + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let request = Request { limit: Some(1), epoch: Some(epoch.clone()), ..after(middle - 1) };
        let page: EventsPage<Event> = ask_for(questions, &request, ASK_TIMEOUT).await?;
        match page.events.first() {
            Some(event) if event.time < begin => low = middle + 1,
            _ => high = middle,
        }
    }
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
    let epoch = page.epoch.as_str().to_owned();
    Ok(Some(First { epoch, seq: oldest.seq, head_seq: page.head_seq.max(oldest.seq), time: oldest.time }))
}

fn after(seq: u64) -> Request {
    Request { after: Some(seq), ..Request::query("events") }
}
