//! A question socket and the pages it has given out: the part of answering that is the same everywhere.

use crate::counters::Counters;
use crate::message::{ErrorBody, Request};
use crate::query::{self, Answer, Format, Pager, Ready};
use crate::socket::{Responder, Route, SocketError, name_of};
use bytes::Bytes;
use std::path::Path;
use std::time::Instant;

/// A bound question socket.
#[derive(Debug)]
pub struct Questions {
    name: String,
    socket: Responder,
    pager: Pager,
    counters: Counters,
}

/// Who asked, and how the answer is to be written.
#[derive(Debug)]
pub struct Asker {
    format: Format,
    route: Route,
}

impl Questions {
    /// Binds the unix socket at `path`.
    pub async fn bind(path: &Path, counters: &Counters) -> Result<Self, SocketError> {
        let socket = Responder::bind(path, counters).await?;
        Ok(Self { name: name_of(path), socket, pager: Pager::default(), counters: counters.clone() })
    }

    /// The socket, for its group.
    pub fn socket(&self) -> &Responder {
        &self.socket
    }

    /// What came in next, for [`Self::read`]. Safe to cancel.
    pub async fn recv(&self) -> Result<(Route, Option<Bytes>), SocketError> {
        self.socket.recv().await
    }

    /// Reads what came in. Requests for a further page, and what is no request, are answered here.
    pub async fn read(&mut self, route: Route, frame: Option<&Bytes>) -> Option<(Asker, Request)> {
        let (format, request) = query::parse(frame.map(Bytes::as_ref));
        let asker = Asker { format, route };
        match request {
            Ok(Request { page: Some(page), .. }) => {
                let reply = self.pager.next(Instant::now(), &page);
                self.send(asker, &reply).await;
                None
            }
            Ok(request) => Some((asker, request)),
            Err(error) => {
                if self.counters.count(&self.name, "undecodable") {
                    tracing::warn!("{}: {error}; more of this is only counted", self.name);
                }
                self.answer(asker, Err(error)).await;
                None
            }
        }
    }

    /// Answers; what does not fit on one page waits for its next to be asked for.
    pub async fn answer(&mut self, asker: Asker, result: Result<Answer, ErrorBody>) {
        let reply = self.pager.first(Instant::now(), result);
        self.send(asker, &reply).await;
    }

    async fn send(&self, asker: Asker, reply: &Ready) {
        self.socket.reply(asker.route, query::write(asker.format, reply)).await;
    }

    /// Sends what is queued, for at most the linger of 2 s.
    pub async fn close(self) {
        self.socket.close().await;
    }
}
