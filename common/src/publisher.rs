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
use rmpv::Value;
use std::path::Path;

/// A PUB socket and the journal behind it.
#[derive(Debug)]
pub struct JournaledPublisher {
    journal: Journal,
    socket: Publisher,
}

impl JournaledPublisher {
    /// Publishes `journal` on the unix socket at `path`.
    pub async fn bind(path: &Path, journal: Journal, counters: &Counters) -> Result<Self, SocketError> {
        Ok(Self { journal, socket: Publisher::bind(path, counters).await? })
    }

    /// The journal, for its epoch, its head and the state beside it.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Makes entries and the state that belongs to them last, then publishes the entries. On an error nothing was
    /// published either.
    pub fn commit(&mut self, write: impl FnOnce(&mut Commit<'_>) -> rusqlite::Result<()>) -> Result<(), DatabaseError> {
        for entry in self.journal.commit(write)? {
            self.socket.send(entry.topic, entry.payload);
        }
        Ok(())
    }

    /// Publishes what may be lost.
    pub fn publish(&self, topic: impl Into<bytes::Bytes>, payload: impl Into<bytes::Bytes>) {
        self.socket.send(topic, payload);
    }

    /// Publishes numbers, if anybody takes them.
    pub fn publish_values(&self, topic: impl Into<bytes::Bytes>, payload: impl Into<bytes::Bytes>) {
        if self.socket.values_are_taken() {
            self.socket.send(topic, payload);
        }
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
