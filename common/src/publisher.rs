//! The journaled publisher: a PUB socket over a journal, used by the feed and by the stream.
//!
//! What must not be lost is committed first and published then; whoever missed it sees the gap in `seq`, or a beat ahead
//! of its own cursor, and asks `events {after}`. What may be lost is published without a place in the journal.

use crate::counters::Counters;
use crate::database::DatabaseError;
use crate::journal::{After, Commit, Journal};
use crate::message::{Beat, ErrorBody, ErrorCode, Request};
use crate::query::Answer;
use crate::socket::{Publisher, SocketError};
use crate::startup::Fatal;
use rmpv::Value;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

/// Whoever asked for entries within this time and did not get to the end is still expected to ask for the rest.
const ATTENTIVE: Duration = Duration::from_mins(10);
/// Of more than this many the one that asked first is no longer expected.
const MAX_READERS: usize = 1000;

/// A PUB socket and the journal behind it.
#[derive(Debug)]
pub struct JournaledPublisher {
    journal: Journal,
    socket: Publisher,
    readers: RefCell<Readers>,
    counters: Counters,
}

/// Who is on the way through the journal: up to where, and when that was asked for. An asker has no name; one that goes on
/// is known by the place it goes on from. Who reached the end follows by the socket and needs nothing more.
#[derive(Debug, Default)]
struct Readers(VecDeque<(u64, Instant)>);

impl Readers {
    /// Somebody asked for what is after `from`, and got everything up to `to` of a journal that ends at `head`.
    fn read(&mut self, now: Instant, from: u64, to: u64, head: u64) {
        self.0.retain(|(_, at)| now.saturating_duration_since(*at) <= ATTENTIVE);
        if let Some(known) = self.0.iter().position(|(place, _)| *place == from) {
            self.0.remove(known);
        }
        if to < head {
            self.0.truncate(MAX_READERS - 1);
            self.0.push_front((to, now));
        }
    }

    /// The journal begins at `first` now. How many entries somebody was still to ask for, who has not been told `gone` yet.
    fn dropped(&mut self, now: Instant, first: u64) -> u64 {
        let is_behind =
            |&(place, at): &(u64, Instant)| place + 1 < first && now.saturating_duration_since(at) <= ATTENTIVE;
        let missing = self.0.iter().filter(|reader| is_behind(reader)).map(|(place, _)| first - 1 - place).max();
        self.0.retain(|reader| !is_behind(reader));
        missing.unwrap_or(0)
    }
}

impl JournaledPublisher {
    /// Publishes `journal` on the unix socket at `path`.
    pub async fn bind(path: &Path, journal: Journal, counters: &Counters) -> Result<Self, SocketError> {
        let socket = Publisher::bind(path, counters).await?;
        Ok(Self { journal, socket, readers: RefCell::default(), counters: counters.clone() })
    }

    /// The journal, for its epoch, its head and the state beside it.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Makes entries and the state that belongs to them last, then publishes the entries. On an error nothing was
    /// published either.
    pub fn commit(&mut self, write: impl FnOnce(&mut Commit<'_>) -> rusqlite::Result<()>) -> Result<(), DatabaseError> {
        let first = self.journal.first();
        for entry in self.journal.commit(write)? {
            self.socket.send(entry.topic, entry.payload);
        }
        if self.journal.first() > first {
            self.say_dropped();
        }
        Ok(())
    }

    /// Retention may have dropped what somebody is on the way to.
    fn say_dropped(&mut self) {
        let missing = self.readers.get_mut().dropped(Instant::now(), self.journal.first());
        if missing > 0 && self.counters.add("journal", "dropped_unread", missing) {
            tracing::warn!(
                "retention dropped {missing} entries that a consumer has not read yet, and it will be told so: it is too \
                 slow, or too little is kept; more of this is only counted"
            );
        }
    }

    /// An error if the journal was found damaged while it was used. Nothing can be made last any more, and the next start
    /// sets it aside: who judges or observes on without it would soon know what nobody is told.
    pub fn check_sound(&self) -> Result<(), Fatal> {
        if self.journal.is_damaged() {
            let path = self.journal.path().display();
            return Err(Fatal::Other(format!("database {path} is damaged; the next start sets it aside and goes on")));
        }
        Ok(())
    }

    /// Publishes what may be lost.
    pub fn publish(&self, topic: impl Into<bytes::Bytes>, payload: impl Into<bytes::Bytes>) {
        self.socket.send(topic, payload);
    }

    /// Publishes that we live and how long our journal is. Once a second.
    pub fn beat(&self, beat: &Beat) {
        self.socket.send("beat.", crate::message::encode(beat));
    }

    /// The answer to `events {after, epoch?, limit?}`: `{epoch, head_seq, events}`, each event with its `topic` added.
    pub fn events(&self, request: &Request) -> Result<Answer, ErrorBody> {
        let failed = |error: DatabaseError| ErrorBody::new(ErrorCode::Failed, error.to_string());
        let after = request.after.ok_or_else(|| {
            ErrorBody::new(ErrorCode::BadArgument, "events needs after, the seq of the last event you have")
        })?;
        let found = self
            .journal
            .after(request.epoch.as_deref(), after, request.limit.unwrap_or(1000).max(1))
            .map_err(failed)?;
        let entries = match found {
            After::Entries(entries) => entries,
            After::Gone { first_seq } => {
                let message = format!(
                    "the events after {after} of journal {} are not here: this is journal {}, from {first_seq} to {}",
                    request.epoch.as_deref().unwrap_or("(any)"),
                    self.journal.epoch(),
                    self.journal.head()
                );
                return Err(ErrorBody { first_seq: Some(first_seq), ..ErrorBody::new(ErrorCode::Gone, message) });
            }
        };
        let reached = entries.last().map_or(after, |entry| entry.seq);
        self.readers.borrow_mut().read(Instant::now(), after, reached, self.journal.head());
        let events = entries.into_iter().filter_map(|entry| {
            let mut event = rmpv::decode::read_value(&mut entry.payload.as_slice()).ok()?;
            if let Value::Map(fields) = &mut event {
                fields.push(("topic".into(), entry.topic.into()));
            }
            Some(event)
        });
        Ok(Answer::Whole(Value::Map(vec![
            ("epoch".into(), self.journal.epoch().as_str().into()),
            ("head_seq".into(), self.journal.head().into()),
            ("events".into(), Value::Array(events.collect())),
        ])))
    }

    /// Sends what is queued, for at most the socket's linger.
    pub async fn close(self) {
        self.socket.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_still_on_the_way_is_missing_what_is_dropped() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut readers = Readers::default();
        // One goes through all of it, one stops in the middle, one never begins.
        readers.read(at(0), 0, 100, 300);
        readers.read(at(1), 100, 200, 300);
        readers.read(at(2), 200, 300, 300);
        assert_eq!(readers.dropped(at(3), 250), 0);
        readers.read(at(4), 250, 260, 400);
        assert_eq!(readers.dropped(at(5), 261), 0, "what it asks for next is there");
        assert_eq!(readers.dropped(at(6), 281), 20);
        assert_eq!(readers.dropped(at(7), 291), 0, "said once");
    }

    #[test]
    fn who_has_not_asked_for_ten_minutes_is_no_longer_expected() {
        let start = Instant::now();
        let mut readers = Readers::default();
        readers.read(start, 0, 10, 100);
        assert_eq!(readers.dropped(start + Duration::from_secs(601), 50), 0);
        for place in 0..5000 {
            readers.read(start, 10_000 + place, 20_000 + place, 100_000);
        }
        assert_eq!(readers.0.len(), MAX_READERS);
    }
}
