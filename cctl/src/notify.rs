//! What has been told: the ledgers of all notifiers as one, and a test of their ways.

use crate::args::Global;
use crate::ask::{Daemon, block_on, read};
use crate::failure::{Failure, Outcome};
use crate::out::{Out, put};
use crate::show::Show;
use crate::text::{counted, json_line};
use common::message::{Delivery, ErrorCode, IncidentId, LedgerRow, Request};
use common::query::AskError;
use common::time::UnixMillis;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The notifiers, by the names of their sockets.
const NOTIFIERS: [&str; 3] = ["cmaild", "cbotd", "csmsd"];
/// What an explanation has of each notifier: the newest.
const MAX_EXPLAINED: u64 = 1_000;
/// Between two looks at what became of a test.
const POLL: Duration = Duration::from_millis(200);

/// A row and whose it is.
pub(crate) struct Row {
    /// The notifier.
    pub(crate) daemon: &'static str,
    /// Its row.
    pub(crate) row: LedgerRow,
}

/// What the rows of a ledger should say.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Ledger {
    /// Only of this recipient
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Only of this incident, as events and down-list --json show it
    #[arg(long, value_name = "ID")]
    incident: Option<String>,
    /// Only of the last while, as 30m or 2d
    #[arg(long, value_name = "DURATION")]
    since: Option<common::config::HumanDuration>,
    /// Also what somebody was not told of, and why
    #[arg(long)]
    all: bool,
    /// At most this many of each notifier, the newest
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
}

/// Whom to test, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Test {
    /// Only this recipient, as ledger shows it
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// How long to wait for the last of them
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    wait: common::config::HumanDuration,
}

/// Prints the ledgers of all notifiers that run.
pub(crate) fn ledger(global: &Global, out: Out, wanted: &Ledger) -> Result<Outcome, Failure> {
    let request = Request {
        who: wanted.who.clone(),
        incident: wanted.incident.clone(),
        since: wanted.since.map(|since| UnixMillis::now().minus(since.0)),
        limit: Some(wanted.limit),
        all: wanted.all.then_some(true),
        ..Request::query("ledger")
    };
    print(global, out, &of_all(global, &request)?)?;
    Ok(Outcome::Fine)
}

/// Prints who was told of an incident, when and with what result, and who was not, and why.
pub(crate) fn explain(global: &Global, out: Out, incident: IncidentId) -> Result<Outcome, Failure> {
    let request = Request {
        incident: Some(incident.to_string()),
        limit: Some(MAX_EXPLAINED),
        all: Some(true),
        ..Request::query("ledger")
    };
    let rows = of_all(global, &request)?;
    if rows.is_empty() {
        return Err(Failure::Other(format!("no notifier has heard of incident {incident}, or all have forgotten it")));
    }
    print(global, out, &rows)?;
    Ok(Outcome::Fine)
}

/// The rows of all notifiers, the oldest first.
fn of_all(global: &Global, request: &Request) -> Result<Vec<Row>, Failure> {
    block_on(async {
        let mut rows = Vec::new();
        for mut notifier in notifiers(global)? {
            rows.extend(notifier.rows(request).await?);
        }
        rows.sort_by_key(|Row { row, .. }| row.queued);
        Ok(rows)
    })
}

/// Sends a marked test through every real way, or one, and waits for what becomes of it.
pub(crate) fn test(global: &Global, out: Out, test: &Test) -> Result<Outcome, Failure> {
    let request = Request { who: test.who.clone(), ..Request::query("test") };
    let rows = block_on(async {
        let mut under_way = Vec::new();
        let mut refusals = Vec::new();
        for mut notifier in notifiers(global)? {
            match notifier.try_rows(&request).await {
                Ok(rows) => under_way.push((notifier, rows)),
                // Another notifier may know this recipient.
                Err(AskError::Refused(error)) if error.code == ErrorCode::NotFound => {
                    refusals.push(format!("{}: {}", notifier.name, error.message));
                }
                Err(error) => return Err(notifier.daemon.failure(&error)),
            }
        }
        if under_way.is_empty() && !refusals.is_empty() {
            return Err(Failure::Other(refusals.join("; ")));
        }
        let deadline = Instant::now() + test.wait.0;
        let mut all = Vec::new();
        for (mut notifier, mut rows) in under_way {
            while rows.iter().any(|Row { row, .. }| is_under_way(row.state)) && Instant::now() < deadline {
                tokio::time::sleep(POLL).await;
                rows = notifier.again(&rows).await?;
            }
            all.extend(rows);
        }
        Ok(all)
    })?;
    print(global, out, &rows)?;
    let failed = rows.iter().filter(|Row { row, .. }| row.state != Delivery::Sent).count();
    match (rows.is_empty(), failed) {
        (true, _) => Err(Failure::Other("nobody is configured, so nobody was told".to_owned())),
        (_, 0) => Ok(Outcome::Fine),
        (_, failed) => Err(Failure::Other(format!("{} not told", counted(failed, "recipient")))),
    }
}

fn is_under_way(state: Delivery) -> bool {
    match state {
        Delivery::Waiting | Delivery::Sending => true,
        Delivery::Sent | Delivery::Failed | Delivery::Dropped | Delivery::Skipped | Delivery::Other => false,
    }
}

struct Notifier {
    name: &'static str,
    daemon: Daemon,
}

impl Notifier {
    async fn rows(&mut self, request: &Request) -> Result<Vec<Row>, Failure> {
        self.try_rows(request).await.map_err(|error| self.daemon.failure(&error))
    }

    async fn try_rows(&mut self, request: &Request) -> Result<Vec<Row>, AskError> {
        let answer = self.daemon.try_ask(request).await?;
        let rows: Vec<LedgerRow> = read(&answer).map_err(|error| AskError::BadAnswer(error.to_string()))?;
        Ok(rows.into_iter().map(|row| Row { daemon: self.name, row }).collect())
    }

    /// These rows as they are now.
    async fn again(&mut self, rows: &[Row]) -> Result<Vec<Row>, Failure> {
        let items: Vec<i64> = rows.iter().map(|Row { row, .. }| row.item).collect();
        let first = items.iter().min().copied().unwrap_or(1);
        let request = Request {
            after: u64::try_from(first.saturating_sub(1)).ok(),
            limit: Some(10_000),
            ..Request::query("ledger")
        };
        let now = self.rows(&request).await?;
        Ok(now.into_iter().filter(|Row { row, .. }| items.contains(&row.item)).collect())
    }
}

/// Those that have a socket; it is an error if none has.
fn notifiers(global: &Global) -> Result<Vec<Notifier>, Failure> {
    let found = NOTIFIERS.into_iter().filter_map(|name| {
        let socket = global.run.join(format!("{name}.sock"));
        let daemon = socket.exists().then(|| Daemon::new(name, &socket, global.timeout))?;
        Some(Notifier { name, daemon })
    });
    let found: Vec<Notifier> = found.collect();
    if found.is_empty() {
        return Err(Failure::Unreachable(format!(
            "no notifier runs: there is no socket of {} in {}",
            NOTIFIERS.join(", "),
            global.run.display()
        )));
    }
    Ok(found)
}

fn print(global: &Global, out: Out, rows: &Vec<Row>) -> Result<(), Failure> {
    if !global.json {
        return put(&rows.show(out.ink()));
    }
    let json: Vec<Value> = rows.iter().map(json_row).collect();
    put(&json_line(&Value::Array(json)))
}

/// As the notifier said it, and which notifier.
fn json_row(Row { daemon, row }: &Row) -> Value {
    let mut value = serde_json::to_value(row).unwrap_or_default();
    value["daemon"] = json!(daemon);
    value
}
