//! Takes connections and bounds what each may cost, whoever is on the other end.
//!
//! `axum::serve` would leave a client that never ends its headers, or never reads, connected for ever. Here each
//! connection has a deadline for the headers of each request (and for being idle), one for taking what we write, and
//! there is a cap on all of them: beyond it, the one that has waited longest without having asked anything makes way.

use axum::Router;
use common::counters::Counters;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Sleep};

/// Connections at once. Each costs about 20 kB.
const MAX_CONNECTIONS: usize = 1024;
/// How long a client may take for the headers of a request, and stay connected between two.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may leave what we wrote unread.
const READ_WITHIN: Duration = Duration::from_secs(20);
/// The headers of a request, and what is read ahead of it.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// What was asked before we were asked to stop is answered within this time.
const DRAIN: Duration = Duration::from_secs(2);

/// Who is on the other end of the connection that a request came by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The connections there are.
#[derive(Debug, Default)]
struct Connections {
    all: usize,
    next: u64,
    /// Those that have not asked anything yet, the oldest first, each with what ends it.
    silent: BTreeMap<u64, Arc<Notify>>,
}

/// Serves until `stopping` becomes true, and then for at most [`DRAIN`].
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    counters: Counters,
    mut stopping: watch::Receiver<bool>,
) {
    let connections = Arc::new(Mutex::new(Connections::default()));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop_asked(&mut stopping) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(place) = Place::take(&connections, &counters) {
                    tokio::spawn(connection(stream, peer, place, router.clone(), counters.clone(), stopping.clone()));
                }
            }
            Err(error) => {
                // No file descriptor is left, mostly. Those there are end by their deadlines.
                if counters.count("http", "accept_failed") {
                    tracing::warn!("cannot take a connection: {error}; more of this is only counted");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let deadline = Instant::now() + DRAIN;
    while lock(&connections).all > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns when we are asked to stop, or whoever could ask is gone.
async fn stop_asked(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn lock(connections: &Mutex<Connections>) -> MutexGuard<'_, Connections> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection's place among the [`MAX_CONNECTIONS`], given back when dropped.
#[derive(Debug)]
struct Place {
    connections: Arc<Mutex<Connections>>,
    id: u64,
    /// We have to make way.
    ended: Arc<Notify>,
}

impl Place {
    fn take(connections: &Arc<Mutex<Connections>>, counters: &Counters) -> Option<Self> {
        let mut all = lock(connections);
        if all.all >= MAX_CONNECTIONS {
            if counters.count("http", "too_many_connections") {
                tracing::warn!("more than {MAX_CONNECTIONS} connections; more of this is only counted");
            }
            // Everybody there has asked something: the new one is refused.
            let (_, oldest) = all.silent.pop_first()?;
            oldest.notify_one();
        }
        let (id, ended) = (all.next, Arc::new(Notify::new()));
        all.next += 1;
        all.all += 1;
        all.silent.insert(id, ended.clone());
        Some(Self { connections: connections.clone(), id, ended })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = lock(&self.connections);
        all.all -= 1;
        all.silent.remove(&self.id);
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    router: Router,
    counters: Counters,
    mut stopping: watch::Receiver<bool>,
) {
    // An event should not wait for the next one to share a packet with it.
    let _ = stream.set_nodelay(true);
    let connections = place.connections.clone();
    let id = place.id;
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        lock(&connections).silent.remove(&id);
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(Patient::new(stream)), service);
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = place.ended.notified() => return,
        () = stop_asked(&mut stopping) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        let reason = reason_of(&error);
        if counters.count("http", reason) {
            tracing::debug!("{peer}: {error}; more of {reason} is only counted");
        }
    }
}

/// Why a connection ended, for the counters.
fn reason_of(error: &hyper::Error) -> &'static str {
    let is_unread = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<Error>())
        .is_some_and(|source| source.kind() == ErrorKind::TimedOut);
    if is_unread {
        "unread"
    } else if error.is_timeout() {
        "slow_headers"
    } else if error.is_parse() {
        "malformed"
    } else {
        "broken_off"
    }
}

/// A stream whose other end must take what we write within [`READ_WITHIN`].
#[derive(Debug)]
struct Patient {
    stream: TcpStream,
    /// Runs while something waits to be taken.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self { stream, deadline: None }
    }

    /// What a write came to; one that waits for too long is an error.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, written: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(READ_WITHIN)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client does not read")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
