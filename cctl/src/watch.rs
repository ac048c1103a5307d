//! `cctl watch`: follows the events as they happen, on the terminal or into a file.

use crate::args::{Global, Watch};
use crate::ask::{Daemon, read};
use crate::failure::{Failure, Outcome, notice};
use crate::line::line;
use crate::out::{Out, put};
use crate::resume::{self, ResumeError};
use crate::text::json_line;
use common::counters::Counters;
use common::message::{Event, Health, Request, decode_batch};
use common::query::{from_value, to_json};
use common::severity::Severity;
use common::socket::MAX_ANSWER_BYTES;
use common::startup::Signals;
use common::subscriber::{Cursor, Delivery, Publication, Start, follow};
use rmpv::Value;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Without a beat for so long something is wrong with the publisher; it beats every second.
const QUIET_AFTER: Duration = Duration::from_secs(10);
/// Waiting deliveries. Beyond it the follower waits, and behind it the publisher drops for us, which the journal heals.
const WAITING: usize = 1000;
/// Between two attempts to ask a cprocessd that is not there.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// From a signal to the end, if the reader of our output does not take it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Until a signal.
pub(crate) fn run(global: &Global, out: Out, watch: &Watch) -> Result<Outcome, Failure> {
    let mut sink = match &watch.to {
        Some(path) => Sink::File(EventFile::open(path)?),
        None if global.json => Sink::Json,
        None => Sink::Lines(out),
    };
    // One worker serves sockets and signals while this thread may hang in a write to a terminal that is held.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(async {
        let stop = stop_on_signal()?;
        tokio::select! {
            _ = stop => Ok(Outcome::Fine),
            ended = follow_into(global, watch, &mut sink) => ended.map(|()| Outcome::Fine),
        }
    });
    runtime.shutdown_background();
    result
}

/// Resolves on a signal. If nobody listens then, because the write hangs, the process ends all the same: a torn line of
/// a file is mended at the next start.
fn stop_on_signal() -> Result<oneshot::Receiver<()>, Failure> {
    let mut signals = Signals::new().map_err(|error| Failure::Other(error.to_string()))?;
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        signals.recv().await;
        let _ = sender.send(());
        tokio::time::sleep(LAST_WORDS).await;
        std::process::exit(0);
    });
    Ok(receiver)
}

async fn follow_into(global: &Global, watch: &Watch, sink: &mut Sink) -> Result<(), Failure> {
    let publisher = global.run.join("stream");
    let (cursor, from) = begin(global, watch, sink).await?;
    let mut selection = Selection { from, severity: watch.severity };
    let publication = Publication {
        publisher: publisher.clone(),
        questions: global.run.join("query"),
        prefixes: vec!["event."],
        unwanted: &[],
        max_answer_bytes: MAX_ANSWER_BYTES,
    };
    let (sender, mut deliveries) = mpsc::channel(WAITING);
    let follower = follow(publication, Start::AfterOrOldest(cursor), Counters::default(), sender);
    tokio::pin!(follower);
    let mut beats = Beats { publisher, heard: Instant::now(), missed: false };
    let mut batch = Vec::with_capacity(WAITING);
    loop {
        tokio::select! {
            ended = &mut follower => {
                return Err(match ended {
                    Err(error) => Failure::Other(error.to_string()),
                    Ok(()) => Failure::Other(format!("socket {} failed", beats.publisher.display())),
                });
            }
            _ = deliveries.recv_many(&mut batch, WAITING) => {
                beats.heard();
                let events: Vec<Value> = batch.drain(..).filter_map(|delivery| selection.take(delivery)).collect();
                sink.write(&events)?;
            }
            () = tokio::time::sleep_until(beats.heard + QUIET_AFTER), if !beats.missed => beats.miss(),
        }
    }
}

/// After which entry to begin, and from which number on events count. A file goes on where it ends. Otherwise cprocessd
/// is asked where it stands: a person who mistyped a folder should not wait, but a service does.
async fn begin(global: &Global, watch: &Watch, sink: &Sink) -> Result<(Cursor, u64), Failure> {
    if let Sink::File(EventFile { last: Some(cursor), .. }) = sink {
        return Ok((cursor.clone(), 0));
    }
    let mut daemon = Daemon::new("cprocessd", &global.run.join("query"), global.timeout);
    let mut waiting = false;
    let health: Health = loop {
        match daemon.ask(&Request::query("health")).await {
            Ok(answer) => break read(&answer)?,
            Err(Failure::Unreachable(why)) if watch.to.is_some() => {
                if !std::mem::replace(&mut waiting, true) {
                    notice(&format!("waiting: {why}"));
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    };
    Ok(match watch.from {
        None => (Cursor { epoch: health.epoch, seq: health.head_seq }, 0),
        // A number that is not there yet is waited for; the journal would call the one before it gone.
        Some(from) => (Cursor { epoch: None, seq: from.saturating_sub(1).min(health.head_seq) }, from),
    })
}

/// Which deliveries are events that the person wants.
#[derive(Debug)]
struct Selection {
    from: u64,
    severity: Option<Severity>,
}

impl Selection {
    fn take(&mut self, delivery: Delivery) -> Option<Value> {
        match delivery {
            Delivery::Entry { cursor, payload, .. } => {
                let Some(event) = decode_batch::<Value>(&payload).ok().and_then(|events| events.into_iter().next())
                else {
                    notice(&format!("event {} is no message and is left out", cursor.seq));
                    return None;
                };
                (cursor.seq >= self.from && self.is_bad_enough(&event)).then(|| without_topic(event))
            }
            Delivery::Lost { cursor } => {
                notice(&format!(
                    "what came before event {} is lost: cprocessd has a new journal, or its journal is shorter",
                    cursor.seq + 1
                ));
                self.from = 0;
                None
            }
            Delivery::Beat(_) | Delivery::Live { .. } | Delivery::Snapshot { .. } => None,
        }
    }

    /// By the worst of its incident, so that whoever sees a beginning sees the end. What cannot be told is shown.
    fn is_bad_enough(&self, event: &Value) -> bool {
        let severity = field(event, "top_severity").and_then(|word| word.as_str()?.parse::<Severity>().ok());
        match (severity, self.severity) {
            (Some(severity), Some(least)) => severity >= least,
            (None, _) | (_, None) => true,
        }
    }
}

fn field<'a>(event: &'a Value, name: &str) -> Option<&'a Value> {
    event.as_map()?.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
}

/// The answer to `events` adds the topic to each; the published event does not have it, and both shall look the same.
fn without_topic(mut event: Value) -> Value {
    if let Value::Map(fields) = &mut event {
        fields.retain(|(key, _)| key.as_str() != Some("topic"));
    }
    event
}

/// Whether the publisher lives, said once each way.
#[derive(Debug)]
struct Beats {
    publisher: PathBuf,
    heard: Instant,
    missed: bool,
}

impl Beats {
    fn heard(&mut self) {
        if std::mem::take(&mut self.missed) {
            let quiet = common::time::for_people(self.heard.elapsed());
            notice(&format!("cprocessd is back after {quiet}"));
        }
        self.heard = Instant::now();
    }

    fn miss(&mut self) {
        self.missed = true;
        let quiet = common::time::for_people(QUIET_AFTER);
        notice(&format!("no beat from cprocessd for {quiet} on {}", self.publisher.display()));
    }
}

/// Where events go.
#[derive(Debug)]
enum Sink {
    /// For people.
    Lines(Out),
    /// For programs.
    Json,
    /// To stay.
    File(EventFile),
}

impl Sink {
    fn write(&mut self, events: &[Value]) -> Result<(), Failure> {
        if events.is_empty() {
            return Ok(());
        }
        let json = |events: &[Value]| events.iter().map(|event| json_line(&to_json(event.clone()))).collect::<String>();
        match self {
            Sink::Lines(out) => {
                for event in events {
                    match from_value::<Event>(event) {
                        Ok(event) => put(&line(out.ink(), &event))?,
                        Err(error) => notice(&format!("an event is not understood: {error}")),
                    }
                }
                Ok(())
            }
            Sink::Json => put(&json(events)),
            Sink::File(file) => file.append(json(events).as_bytes()),
        }
    }
}

/// The file of `--to`: whole events up to its end, ours alone.
#[derive(Debug)]
struct EventFile {
    file: File,
    path: PathBuf,
    /// The last event that was in it at the start.
    last: Option<Cursor>,
}

impl EventFile {
    fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error: &io::Error| Failure::file("use", path, error);
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path).map_err(|e| failed(&e))?;
        let length = match file.metadata() {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => return Err(Failure::Usage(format!("{} is no regular file", path.display()))),
            Err(error) => return Err(failed(&error)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::Other(format!("another cctl appends to {}", path.display())));
            }
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        let resume = resume::find(&mut file).map_err(|error| match error {
            ResumeError::Io(error) => failed(&error),
            ResumeError::NotEvents => {
                Failure::Other(format!("{} is not appended to: {error}; name another file", path.display()))
            }
        })?;
        if resume.keep_bytes < length {
            let cut = length - resume.keep_bytes;
            notice(&format!("{}: its last {cut} bytes were a torn event and are cut off", path.display()));
            file.set_len(resume.keep_bytes).map_err(|e| failed(&e))?;
        }
        let file = Self { file, path: path.to_owned(), last: resume.last };
        file.sync_folder()?;
        Ok(file)
    }

    /// On the disk when this returns.
    fn append(&mut self, lines: &[u8]) -> Result<(), Failure> {
        self.file
            .write_all(lines)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| Failure::file("write to", &self.path, &error))
    }

    /// A new file is safe only with its name (fsync(2)).
    fn sync_folder(&self) -> Result<(), Failure> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| Failure::file("write into", folder, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::tests::event;
    use common::message::{Kind, encode};

    fn entry(event: &Event) -> Delivery {
        Delivery::Entry {
            cursor: Cursor { epoch: Some(event.epoch.clone()), seq: event.seq },
            topic: "event.ERR.web1!".into(),
            payload: encode(event).into(),
        }
    }

    #[test]
    fn severity_is_that_of_the_incident() {
        let mut selection = Selection { from: 0, severity: Some(Severity::Err) };
        let up = Event { top_severity: Severity::Crit, ..event(Kind::Up, Severity::Info, "web1!port:x", "") };
        assert!(selection.take(entry(&up)).is_some());
        assert!(selection.take(entry(&event(Kind::Blip, Severity::Warn, "web1!port:x", ""))).is_none());
    }

    #[test]
    fn a_number_that_is_not_there_yet_is_waited_for_unless_the_journal_is_another_one() {
        let down = event(Kind::Down, Severity::Err, "web1!port:x", "");
        let mut selection = Selection { from: down.seq + 1, severity: None };
        assert!(selection.take(entry(&down)).is_none());
        assert!(selection.take(entry(&Event { seq: down.seq + 1, ..down.clone() })).is_some());
        assert!(selection.take(Delivery::Lost { cursor: Cursor { epoch: None, seq: 0 } }).is_none());
        assert!(selection.take(entry(&down)).is_some());
    }

    #[test]
    fn an_event_looks_the_same_whether_published_or_asked_for() {
        let down = event(Kind::Down, Severity::Err, "web1!port:x", "");
        let published = common::query::to_value(&down);
        let mut asked = published.clone();
        if let Value::Map(fields) = &mut asked {
            fields.push(("topic".into(), "event.ERR.web1!".into()));
        }
        assert_eq!(without_topic(asked), without_topic(published));
    }

    #[test]
    fn a_file_has_one_writer_and_nothing_but_events() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("events");
        let mut file = EventFile::open(&path).expect("a new file");
        assert!(matches!(EventFile::open(&path), Err(Failure::Other(why)) if why.contains("another cctl")));
        file.append(b"{\"epoch\":\"e1\",\"seq\":4}\n{\"epo").expect("written");
        drop(file);
        let file = EventFile::open(&path).expect("the same file");
        assert_eq!(file.last.as_ref().map(|cursor| cursor.seq), Some(4));
        assert_eq!(std::fs::read(&path).expect("read"), b"{\"epoch\":\"e1\",\"seq\":4}\n");
        let other = dir.path().join("notes");
        std::fs::write(&other, "my notes\n").expect("written");
        assert!(EventFile::open(&other).is_err());
        assert_eq!(std::fs::read(&other).expect("read"), b"my notes\n");
    }
}
