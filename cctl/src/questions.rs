//! The questions: one request, one answer, printed.

use crate::args::Global;
use crate::ask::{Daemon, block_on, read};
use crate::failure::{Failure, Outcome};
use crate::out::{Out, put};
use crate::show::Show;
use common::message::{ErrorCode, Event, EventsPage, Health, Request, ValueRow};
use common::query::{AskError, to_json};
use rmpv::Value;
use serde::de::DeserializeOwned;

/// Events shown when nobody says how many.
const LAST_EVENTS: u64 = 20;

/// Asks cprocessd, and prints what a `T` looks like.
pub(crate) fn ask<T: Show + DeserializeOwned>(
    global: &Global,
    out: Out,
    request: &Request,
) -> Result<Outcome, Failure> {
    let mut daemon = Daemon::new("cprocessd", &global.run.join("query"), global.timeout);
    let answer = block_on(daemon.ask(request))?;
    Ok(print::<T>(global, out, &answer)?.outcome())
}

/// The last values; it is an error if there are none, so that a script notices a wrong pattern.
pub(crate) fn last_value(global: &Global, out: Out, request: &Request) -> Result<Outcome, Failure> {
    let mut daemon = Daemon::new("cprocessd", &global.run.join("query"), global.timeout);
    let answer = block_on(daemon.ask(request))?;
    let rows: Vec<ValueRow> = read(&answer)?;
    if global.json || !rows.is_empty() {
        print::<Vec<ValueRow>>(global, out, &answer)?;
    }
    match (rows.is_empty(), &request.pattern) {
        (true, Some(pattern)) => Err(Failure::Other(format!("no value matches {pattern}"))),
        _ => Ok(Outcome::Fine),
    }
}

/// The events after `after`, or the last ones.
pub(crate) fn events(global: &Global, out: Out, after: Option<u64>, limit: Option<u64>) -> Result<Outcome, Failure> {
    let mut daemon = Daemon::new("cprocessd", &global.run.join("query"), global.timeout);
    let answer = block_on(async {
        match after {
            Some(_) => daemon.ask(&Request { after, limit, ..Request::query("events") }).await,
            None => last_events(&mut daemon, limit.unwrap_or(LAST_EVENTS)).await,
        }
    })?;
    Ok(print::<EventsPage<Event>>(global, out, &answer)?.outcome())
}

async fn last_events(daemon: &mut Daemon, limit: u64) -> Result<Value, Failure> {
    let health: Health = read(&daemon.ask(&Request::query("health")).await?)?;
    let mut after = health.head_seq.saturating_sub(limit);
    loop {
        let request = Request { after: Some(after), limit: Some(limit), ..Request::query("events") };
        match daemon.try_ask(&request).await {
            // The journal keeps fewer than that.
            Err(AskError::Refused(error)) if error.code == ErrorCode::Gone && error.first_seq > Some(after + 1) => {
                after = error.first_seq.unwrap_or(0).saturating_sub(1);
            }
            answer => return answer.map_err(|error| daemon.failure(&error)),
        }
    }
}

/// How a daemon itself is; each answers on its own socket.
pub(crate) fn health(global: &Global, out: Out, name: &str) -> Result<Outcome, Failure> {
    let mut daemon = Daemon::new(name, &global.run.join(format!("{name}.sock")), global.timeout);
    let answer = block_on(daemon.ask(&Request::query("health")))?;
    Ok(print::<Health>(global, out, &answer)?.outcome())
}

/// Prints the answer as JSON or as a table. The JSON comes first and is the answer itself, also the part of it that
/// this cctl does not know.
pub(crate) fn print<T: Show + DeserializeOwned>(global: &Global, out: Out, answer: &Value) -> Result<T, Failure> {
    if global.json {
        put(&crate::text::json_line(&to_json(answer.clone())))?;
        return read(answer);
    }
    let answer: T = read(answer)?;
    put(&answer.show(out.ink()))?;
    Ok(answer)
}
