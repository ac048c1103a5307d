//! `cctl record`: follows the feed and writes everything as it came into a file, for `cctl replay`.

use crate::args::{Global, Recording};
use crate::ask::Daemon;
use crate::failure::{Failure, Outcome, notice};
use crate::out::put;
use crate::recording::{Payload, Record, What, Writer};
use crate::text::{bytes_for_people, counted, json_line};
use common::counters::Counters;
use common::message::{Request, encode};
use common::socket::MAX_ANSWER_BYTES;
use common::startup::Signals;
use common::subscriber::{Delivery, Publication, Start, follow};
use common::time::UnixMillis;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Waiting deliveries. Beyond it the follower waits, and behind it the feed drops for us what is lossy.
const WAITING: usize = 1000;
/// When nothing came for so long, that is written too.
const TICK: Duration = Duration::from_secs(1);
/// How much a power cut may cost.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// Until a signal, the end of `--for`, or the file is full.
pub(crate) fn run(global: &Global, wanted: &Recording) -> Result<Outcome, Failure> {
    // One worker serves sockets while this thread waits for the disk.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(record(global, wanted));
    runtime.shutdown_background();
    result
}

async fn record(global: &Global, wanted: &Recording) -> Result<Outcome, Failure> {
    let mut signals = Signals::new().map_err(|error| Failure::Other(error.to_string()))?;
    let feed = wanted.feed.clone().unwrap_or_else(|| global.run.join("feed"));
    let questions = beside(&feed);
    // A person who mistyped a folder should not wait, and gets no empty file.
    Daemon::new("ccollectd", &questions, global.timeout).ask(&Request::query("health")).await?;

    let (began, start) = (UnixMillis::now(), Instant::now());
    let mut file = Writer::create(&wanted.file, &feed.display().to_string(), began)?;
    let publication = Publication {
        publisher: feed,
        questions,
        prefixes: vec!["value.", "check.", "event.", "alive."],
        unwanted: &[],
        max_answer_bytes: MAX_ANSWER_BYTES,
    };
    let (sender, mut deliveries) = mpsc::channel(WAITING);
    let follower = follow(publication, Start::Snapshot, Counters::default(), sender);
    tokio::pin!(follower);
    let end = wanted.lasting.map(|lasting| start + lasting.0);
    let (mut written_at, mut synced_at) = (start, start);
    let mut batch = Vec::with_capacity(WAITING);
    let at_ms = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    loop {
        let wake = (written_at + TICK).min(end.unwrap_or(written_at + TICK));
        tokio::select! {
            _ = signals.recv() => break,
            ended = &mut follower => {
                return Err(match ended {
                    Err(error) => Failure::Other(error.to_string()),
                    Ok(()) => Failure::Other("the socket of the feed failed".to_owned()),
                });
            }
            _ = deliveries.recv_many(&mut batch, WAITING) => {
                for record in batch.drain(..).filter_map(|delivery| record_of(at_ms(), delivery)) {
                    file.write(&record)?;
                }
                file.flush()?;
                written_at = Instant::now();
            }
            () = tokio::time::sleep_until(wake) => {
                let tick = Record { at_ms: at_ms(), what: What::Tick, topic: String::new(), payload: Payload::default() };
                file.write(&tick)?;
                written_at = Instant::now();
            }
        }
        if synced_at.elapsed() >= SYNC_EVERY {
            file.sync()?;
            synced_at = Instant::now();
        }
        if file.bytes() >= wanted.max_bytes {
            notice(&format!("{} is as large as it may be (--max-size)", wanted.file.display()));
            break;
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
    }
    file.sync()?;
    say(global, wanted, &file, start.elapsed())
}

fn say(global: &Global, wanted: &Recording, file: &Writer, lasted: Duration) -> Result<Outcome, Failure> {
    let text = if global.json {
        json_line(&json!({
            "file": wanted.file.display().to_string(),
            "records": file.records(),
            "bytes": file.bytes(),
            "duration_ms": u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
        }))
    } else {
        format!(
            "recorded {} in {}, {}: {}\n",
            counted(usize::try_from(file.records()).unwrap_or(usize::MAX), "message"),
            common::time::for_people(lasted),
            bytes_for_people(file.bytes()),
            crate::text::escape(&wanted.file.display().to_string())
        )
    };
    put(&text)?;
    Ok(Outcome::Fine)
}

fn record_of(at_ms: u64, delivery: Delivery) -> Option<Record> {
    let of = |what, topic: &[u8], payload: Vec<u8>| {
        let topic = String::from_utf8_lossy(topic).into_owned();
        Some(Record { at_ms, what, topic, payload: Payload(payload) })
    };
    match delivery {
        Delivery::Snapshot { state, .. } => of(What::Snapshot, b"", state.into_bytes()),
        Delivery::Entry { topic, payload, .. } => of(What::Entry, &topic, payload.to_vec()),
        Delivery::Live { topic, payload } => of(What::Live, &topic, payload.to_vec()),
        Delivery::Beat(beat) => of(What::Beat, b"beat.", encode(&beat)),
        // Only who asks for it begins with the oldest entry; we get a snapshot.
        Delivery::Lost { .. } => None,
    }
}

/// The question socket beside a feed.
fn beside(feed: &Path) -> PathBuf {
    let mut name = feed.as_os_str().to_owned();
    name.push("-query");
    name.into()
}
