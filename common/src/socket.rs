//! ZeroMQ sockets as Cairn uses them. The only file that names the ZeroMQ crate.
//!
//! Every socket has the same armour, since anyone in the group can reach it: a largest message, a deadline for handshakes,
//! caps on peers and on those in a handshake, heartbeats, high-water marks, and a linger so that the last words before an
//! exit are not lost. A unix socket is locked against a second binder, because binding an `ipc` path silently takes it
//! from whoever had it.
//!
//! A connection costs the library up to 200 KiB, and its high-water marks count messages, whatever they weigh. So the
//! caps are on both: where a cap on peers is reached, the oldest makes way, since a newcomer is more likely to have
//! something to say than one who has sat there; answers that nobody reads are counted in bytes.

use crate::counters::Counters;
use bytes::Bytes;
use omq_tokio::{
    DisconnectReason, Endpoint, IpcPath, Message, MonitorEvent, MonitorStream, Options, Socket, SocketType,
};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long a peer may take from connecting to the end of its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// How many peers may be in a handshake before the oldest of them makes way. A handshake takes a millisecond, so who has
/// been overtaken by this many has nothing to say.
const MAX_PENDING_HANDSHAKES: usize = 32;
/// Here the library refuses newcomers, who have to try again. It bounds what a burst takes before room is made.
const MAX_PENDING_AT_ALL: usize = 128;
/// How many subscriptions a peer may have, and how long each may be: a topic is at most 270 bytes.
const MAX_SUBSCRIPTIONS: usize = 1000;
const MAX_PREFIX_BYTES: usize = 300;
/// Bytes that wait for one subscriber beside what the kernel takes. Beyond it messages to it are dropped.
const MAX_UNSENT_BYTES: usize = 512 << 10;
/// Bytes of answers that wait for one client. Beyond it its questions are dropped, unanswered.
const MAX_UNREAD_BYTES: usize = 256 << 10;
/// And for all clients of a socket. Beyond it the one with the most is disconnected.
const MAX_UNREAD_BYTES_OF_ALL: usize = 8 << 20;
/// Events of the library that may wait for us.
const MONITOR_CAPACITY: usize = 1024;
/// ZMTP PING (RFC 37) is sent this often, and a peer silent for three of them is dropped and redialled.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a closing socket tries to get rid of what is queued.
const LINGER: Duration = Duration::from_secs(2);
/// Between two attempts to ask somebody who closes the connection.
const REDIAL_PAUSE: Duration = Duration::from_millis(50);
/// What an answer may take in memory, if not said otherwise: the state of a feed with all its units.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;
/// The topics of numbers. They are by far the most messages, and most subscribers leave them out.
const VALUES: &[u8] = b"value.";
/// Sockets of people and programs in the group `cairn`.
const MODE: u32 = 0o660;

/// What a socket accepts and keeps, by its job.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest message in bytes; the peer that sends a larger one is disconnected.
    pub max_message_bytes: usize,
    /// Messages on their way to each peer. A PUB drops beyond it, a ROUTER too.
    pub send_hwm: u32,
    /// Messages from each peer. Beyond it the peer waits.
    pub recv_hwm: u32,
    /// Peers of a socket that we bind. Beyond it the oldest makes way.
    pub max_peers: usize,
}

impl Limits {
    /// Feed and stream. A burst of 10,000 events fits; a subscriber that is slower heals from the journal. What comes in
    /// are subscriptions.
    pub const PUBLISHED: Limits = Limits { max_message_bytes: 1 << 10, send_hwm: 10_000, recv_hwm: 8, max_peers: 32 };
    /// Feed and stream, as their subscriber reads them. Batches are cut at 64 KiB, and an attachment has at most that.
    pub const SUBSCRIBED: Limits = Limits { max_message_bytes: 256 << 10, send_hwm: 8, recv_hwm: 128, max_peers: 1 };
    /// Reports of local programs.
    pub const REPORTS: Limits = Limits { max_message_bytes: 64 << 10, send_hwm: 8, recv_hwm: 8, max_peers: 128 };
    /// Questions. They are small.
    pub const QUESTIONS: Limits = Limits { max_message_bytes: 16 << 10, send_hwm: 100, recv_hwm: 4, max_peers: 64 };
    /// Answers, as their reader accepts them: pages of 256 KiB, or of one row that is larger.
    pub const ANSWERS: Limits = Limits { max_message_bytes: 1 << 20, send_hwm: 100, recv_hwm: 4, max_peers: 1 };
}

/// Why a socket could not be had or used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process has it. Two daemons with one configuration, most often.
    #[error("socket {0} is in use by another process")]
    InUse(PathBuf),
    /// It cannot be made: the folder is missing, or belongs to someone else.
    #[error("cannot make socket {path}: {source}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The path is too long for a unix socket (107 bytes), or no text.
    #[error("{0} is no usable path for a unix socket: {1}")]
    Path(PathBuf, String),
    /// The library gave up on the socket.
    #[error("socket {0} failed: {1}")]
    Failed(PathBuf, String),
    /// Nobody answered in time.
    #[error("no answer from {path} within {}", crate::time::for_people(*timeout))]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        timeout: Duration,
    },
}

fn options(limits: Limits) -> Options {
    Options::default()
        .max_message_size(limits.max_message_bytes)
        .send_hwm(limits.send_hwm)
        .recv_hwm(limits.recv_hwm)
        .transmit_slot_cap(MAX_UNSENT_BYTES)
        .handshake_timeout(HANDSHAKE_TIMEOUT)
        .max_pending_handshakes(MAX_PENDING_AT_ALL)
        .monitor_capacity(MONITOR_CAPACITY)
        .subscription_admission(|asked| asked.prefix.len() <= MAX_PREFIX_BYTES)
        .heartbeat_interval(HEARTBEAT)
        .heartbeat_timeout(HEARTBEAT * 3)
        .heartbeat_ttl(HEARTBEAT * 3)
        .linger(LINGER)
}

fn endpoint(path: &Path) -> Result<Endpoint, SocketError> {
    // sockaddr_un.sun_path holds 108 bytes with its end mark (unix(7)).
    match path.as_os_str().len() {
        1..=107 => Ok(Endpoint::Ipc(IpcPath::Filesystem(path.to_owned()))),
        n => Err(SocketError::Path(path.to_owned(), format!("{n} bytes, but must be 1 to 107"))),
    }
}

/// A bound socket, its lock and its name in the counters.
#[derive(Debug)]
struct Bound {
    socket: Arc<Socket>,
    path: PathBuf,
    counters: Counters,
    watcher: JoinHandle<()>,
    values_taken: Arc<AtomicBool>,
    _lock: File,
}

impl Bound {
    async fn new(kind: SocketType, path: &Path, limits: Limits, counters: &Counters) -> Result<Self, SocketError> {
        let endpoint = endpoint(path)?;
        let bind_error = |source| SocketError::Bind { path: path.to_owned(), source };
        let lock = lock(path)?;
        let socket = Arc::new(Socket::new(kind, options(limits)));
        let values_taken = Arc::new(AtomicBool::new(false));
        let watcher = watch_peers(&socket, path, limits, counters, values_taken.clone());
        socket.bind(endpoint).await.map_err(|error| bind_error(std::io::Error::other(error.to_string())))?;
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(bind_error)?;
        Ok(Self { socket, path: path.to_owned(), counters: counters.clone(), watcher, values_taken, _lock: lock })
    }

    async fn recv(&self) -> Result<Message, SocketError> {
        self.socket.recv().await.map_err(|error| SocketError::Failed(self.path.clone(), error.to_string()))
    }

    /// Sends what is queued, for at most the linger of 2 s.
    async fn close(self) {
        self.watcher.abort();
        // It may be about to disconnect somebody.
        let _ = self.watcher.await;
        if let Some(socket) = Arc::into_inner(self.socket) {
            let _ = socket.close().await;
        }
    }
}

/// Holds `PATH.lock` for as long as the socket lives. The kernel releases it however the process ends.
fn lock(path: &Path) -> Result<File, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        // For us alone: who can open it can also hold it.
        .mode(0o600)
        .open(&name)
        .map_err(|source| SocketError::Bind { path: path.to_owned(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(SocketError::InUse(path.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(SocketError::Bind { path: path.to_owned(), source }),
    }
}

/// The socket's name in counters and logs: the last part of its path.
pub fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Who is connected, in the order of their coming.
#[derive(Debug, Default)]
struct Peers {
    /// In a handshake, or gone during it, which the library does not tell.
    pending: VecDeque<u64>,
    ready: VecDeque<u64>,
    subscriptions: HashMap<u64, usize>,
    /// Who has subscribed to numbers, and perhaps does no longer.
    take_values: HashSet<u64>,
}

impl Peers {
    fn accepted(&mut self, peer: u64) -> Option<u64> {
        self.pending.push_back(peer);
        if self.pending.len() > MAX_PENDING_HANDSHAKES { self.pending.pop_front() } else { None }
    }

    fn made_ready(&mut self, peer: u64, max_peers: usize) -> Option<u64> {
        self.pending.retain(|other| *other != peer);
        self.ready.push_back(peer);
        if self.ready.len() > max_peers { self.ready.pop_front() } else { None }
    }

    fn subscribed(&mut self, peer: u64, prefix: &[u8]) -> Option<u64> {
        if VALUES.starts_with(prefix) || prefix.starts_with(VALUES) {
            self.take_values.insert(peer);
        }
        let count = self.subscriptions.entry(peer).or_default();
        *count += 1;
        (*count > MAX_SUBSCRIPTIONS).then_some(peer)
    }

    fn left(&mut self, peer: u64) {
        self.pending.retain(|other| *other != peer);
        self.ready.retain(|other| *other != peer);
        self.subscriptions.remove(&peer);
        self.take_values.remove(&peer);
    }
}

/// Keeps a socket's peers within their caps, counts what they do wrong below the level of messages, and logs the first of
/// each kind. Ends with the socket, which it does not keep.
fn watch_peers(
    socket: &Arc<Socket>,
    path: &Path,
    limits: Limits,
    counters: &Counters,
    values_taken: Arc<AtomicBool>,
) -> JoinHandle<()> {
    let mut events = socket.monitor();
    let (socket, name, counters) = (Arc::downgrade(socket), name_of(path), counters.clone());
    let mut peers = Peers::default();
    let mut has_lagged = false;
    tokio::spawn(async move {
        let say = |reason: &str, detail: &str| {
            if counters.count(&name, reason) {
                tracing::warn!("a peer of socket {name} was dropped: {detail}; more of this is only counted");
            }
        };
        loop {
            let (unwanted, reason, detail) = match events.recv().await {
                Ok(MonitorEvent::Accepted { connection_id, .. }) => {
                    (peers.accepted(connection_id), "too_many_handshakes", "others came and it said nothing")
                }
                Ok(MonitorEvent::HandshakeSucceeded { peer, .. }) => {
                    let unwanted = peers.made_ready(peer.connection_id, limits.max_peers);
                    (unwanted, "too_many_peers", "it was the oldest of too many")
                }
                Ok(MonitorEvent::SubscribeReceived { connection_id, prefix }) => {
                    let unwanted = peers.subscribed(connection_id, &prefix);
                    values_taken.store(has_lagged || !peers.take_values.is_empty(), Ordering::Relaxed);
                    (unwanted, "too_many_subscriptions", "it subscribed too often")
                }
                Ok(MonitorEvent::HandshakeFailed { reason, .. }) => {
                    say("handshake_failed", &reason);
                    continue;
                }
                Ok(MonitorEvent::Disconnected { peer, reason, .. }) => {
                    peers.left(peer.connection_id);
                    values_taken.store(has_lagged || !peers.take_values.is_empty(), Ordering::Relaxed);
                    if let DisconnectReason::Error(detail) = reason {
                        say("peer_dropped", &detail);
                    }
                    continue;
                }
                Ok(MonitorEvent::SubscribeRejected { .. }) => {
                    counters.count(&name, "subscription_refused");
                    continue;
                }
                Ok(_) => continue,
                Err(omq_tokio::MonitorRecvError::Lagged(missed)) => {
                    counters.add(&name, "monitor_lagged", missed);
                    // Who subscribed meanwhile is not known any more, so numbers go to all who may want them.
                    has_lagged = true;
                    values_taken.store(true, Ordering::Relaxed);
                    let Some(socket) = socket.upgrade() else { return };
                    let known = socket.connections().await.unwrap_or_default();
                    peers.ready = known.into_iter().map(|peer| peer.connection_id).collect();
                    peers.ready.make_contiguous().sort_unstable();
                    let excess = peers.ready.len().saturating_sub(limits.max_peers);
                    for peer in peers.ready.drain(..excess) {
                        say("too_many_peers", "it was the oldest of too many");
                        let _ = socket.disconnect_peer(peer).await;
                    }
                    continue;
                }
                Err(_) => return,
            };
            if let Some(peer) = unwanted {
                let Some(socket) = socket.upgrade() else { return };
                // One that has gone meanwhile is no news.
                if socket.disconnect_peer(peer).await.is_ok() {
                    say(reason, detail);
                }
            }
        }
    })
}

/// PUB: topic and payload to whoever subscribed. Never waits; a subscriber beyond its high-water mark loses messages.
#[derive(Debug)]
pub struct Publisher(Bound);

impl Publisher {
    /// Binds the unix socket at `path`.
    pub async fn bind(path: &Path, counters: &Counters) -> Result<Self, SocketError> {
        Bound::new(SocketType::Pub, path, Limits::PUBLISHED, counters).await.map(Self)
    }

    /// Sends one message of two frames.
    pub fn send(&self, topic: impl Into<Bytes>, payload: impl Into<Bytes>) {
        let message = Message::multipart([topic.into(), payload.into()]);
        if let Err(error) = self.0.socket.try_send(message) {
            tracing::debug!("nothing sent on {}: {error:?}", self.0.path.display());
        }
    }

    /// Whether somebody may be subscribed to numbers, soon after they are. Where nobody is, a message that the library is
    /// given wakes its threads for nothing.
    pub fn values_are_taken(&self) -> bool {
        self.0.values_taken.load(Ordering::Relaxed)
    }

    /// Sends what is queued, for at most the linger of 2 s.
    pub async fn close(self) {
        self.0.close().await;
    }
}

/// SUB: the messages whose topics begin with one of our prefixes. Redials by itself.
#[derive(Debug)]
pub struct Subscriber {
    socket: Socket,
    path: PathBuf,
}

impl Subscriber {
    /// Connects to the unix socket at `path`, which need not exist yet.
    pub async fn connect(path: &Path, prefixes: &[&str]) -> Result<Self, SocketError> {
        let socket = Socket::new(SocketType::Sub, options(Limits::SUBSCRIBED));
        let failed = |error: omq_tokio::Error| SocketError::Failed(path.to_owned(), error.to_string());
        for prefix in prefixes {
            socket.subscribe(Bytes::copy_from_slice(prefix.as_bytes())).await.map_err(failed)?;
        }
        socket.connect(endpoint(path)?).await.map_err(failed)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// The next message of two frames, if there is one already.
    pub fn try_recv(&self) -> Option<(Bytes, Bytes)> {
        loop {
            if let Ok([topic, payload]) = self.socket.try_recv().ok()?.try_as_parts::<2>() {
                return Some((topic, payload));
            }
        }
    }

    /// The next message of two frames. Others are skipped: no publisher of ours sends them. Safe to cancel.
    pub async fn recv(&self) -> Result<(Bytes, Bytes), SocketError> {
        loop {
            let message =
                self.socket.recv().await.map_err(|error| SocketError::Failed(self.path.clone(), error.to_string()))?;
            if let Ok([topic, payload]) = message.try_as_parts::<2>() {
                return Ok((topic, payload));
            }
        }
    }
}

/// PULL: one-frame reports of local programs. Those beyond the high-water mark wait at the sender.
#[derive(Debug)]
pub struct Puller(Bound);

impl Puller {
    /// Binds the unix socket at `path`.
    pub async fn bind(path: &Path, counters: &Counters) -> Result<Self, SocketError> {
        Bound::new(SocketType::Pull, path, Limits::REPORTS, counters).await.map(Self)
    }

    /// The next report's frames, normally one. Safe to cancel.
    pub async fn recv(&self) -> Result<Vec<Bytes>, SocketError> {
        let message = self.0.recv().await?;
        Ok((0..message.len()).filter_map(|i| message.part_bytes(i)).collect())
    }
}

/// Where an answer goes. Keep it as long as the question is being answered.
#[derive(Debug)]
pub struct Route(Vec<Bytes>);

/// ROUTER: questions from REQ and DEALER clients, each answered on its own route, so that a client which never reads
/// blocks only itself.
#[derive(Debug)]
pub struct Responder {
    bound: Bound,
    unread: Arc<Mutex<Unread>>,
}

/// How many bytes of answers each client has not taken yet.
#[derive(Debug, Default)]
struct Unread {
    of_all: usize,
    of_each: HashMap<Bytes, usize>,
}

impl Unread {
    /// Whether this client may have one more.
    fn admits(&self, client: &Bytes) -> bool {
        self.of_each.get(client).is_none_or(|unread| *unread < MAX_UNREAD_BYTES)
    }

    fn add(&mut self, client: &Bytes, bytes: usize) {
        self.of_all += bytes;
        *self.of_each.entry(client.clone()).or_default() += bytes;
    }

    fn remove(&mut self, client: &Bytes, bytes: usize) {
        self.of_all -= bytes;
        if let Some(unread) = self.of_each.get_mut(client) {
            *unread -= bytes;
            if *unread == 0 {
                self.of_each.remove(client);
            }
        }
    }

    /// Who has the most, if all together have too many.
    fn hog(&self) -> Option<Bytes> {
        let most = || self.of_each.iter().max_by_key(|(_, unread)| **unread).map(|(client, _)| client.clone());
        if self.of_all > MAX_UNREAD_BYTES_OF_ALL { most() } else { None }
    }
}

/// An answer that counts as unread until the library lets go of it.
struct Counted {
    answer: Vec<u8>,
    client: Bytes,
    unread: Arc<Mutex<Unread>>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.remove(&self.client, self.answer.len());
    }
}

impl Responder {
    /// Binds the unix socket at `path`.
    pub async fn bind(path: &Path, counters: &Counters) -> Result<Self, SocketError> {
        let bound = Bound::new(SocketType::Router, path, Limits::QUESTIONS, counters).await?;
        Ok(Self { bound, unread: Arc::default() })
    }

    /// The next question and where its answer goes. A question that is not exactly one frame comes as `None`, to be
    /// answered with an error. Those of clients that do not read what they have are dropped. Safe to cancel.
    pub async fn recv(&self) -> Result<(Route, Option<Bytes>), SocketError> {
        loop {
            let (route, question) = self.recv_any().await?;
            let admitted = route.0.first().is_some_and(|client| self.unread().admits(client));
            if admitted {
                return Ok((route, question));
            }
            self.count("answers_unread", "its questions are dropped, since it does not read the answers it has");
        }
    }

    async fn recv_any(&self) -> Result<(Route, Option<Bytes>), SocketError> {
        let message = self.bound.recv().await?;
        let mut frames: Vec<Bytes> = (0..message.len()).filter_map(|i| message.part_bytes(i)).collect();
        // A REQ puts an empty frame between the envelope and the question; a DEALER may.
        let envelope = frames.iter().skip(1).position(Bytes::is_empty).map_or(1, |delimiter| delimiter + 2);
        let mut body = frames.split_off(envelope.min(frames.len()));
        let question = if body.len() == 1 { body.pop() } else { None };
        Ok((Route(frames), question))
    }

    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an answer, without waiting for its client. It is dropped if the client is gone, or has 100 that it never read.
    pub async fn reply(&self, route: Route, answer: Vec<u8>) {
        let Some(client) = route.0.first().cloned() else { return };
        let hog = {
            let mut unread = self.unread();
            unread.add(&client, answer.len());
            unread.hog()
        };
        let answer = Bytes::from_owner(Counted { answer, client, unread: self.unread.clone() });
        let message = Message::multipart(route.0.into_iter().chain([answer]));
        if let Err(error) = self.bound.socket.try_send(message) {
            tracing::debug!("an answer on {} was not sent: {error:?}", self.bound.path.display());
        }
        if let Some(hog) = hog {
            self.disconnect(&hog).await;
        }
    }

    async fn disconnect(&self, client: &Bytes) {
        let connections = self.bound.socket.connections().await.unwrap_or_default();
        if let Some(peer) = connections.into_iter().find(|peer| peer.identity == *client)
            && self.bound.socket.disconnect_peer(peer.connection_id).await.is_ok()
        {
            self.count("client_dropped", "it is disconnected, since it had more unread answers than all others");
        }
    }

    fn count(&self, reason: &str, detail: &str) {
        let name = name_of(&self.bound.path);
        if self.bound.counters.count(&name, reason) {
            tracing::warn!("a client of socket {name}: {detail}; more of this is only counted");
        }
    }

    /// Gives the socket to a group, for those that give orders.
    pub fn set_group(&self, gid: u32) -> std::io::Result<()> {
        std::os::unix::fs::chown(&self.bound.path, None, Some(gid))
    }

    /// Sends what is queued, for at most the linger of 2 s.
    pub async fn close(self) {
        self.bound.close().await;
    }
}

/// PUSH to the PULL of a ccollectd on this machine: what we report of ourselves.
#[derive(Debug)]
pub struct Reporter {
    path: PathBuf,
    socket: Socket,
}

impl Reporter {
    /// To the unix socket at `path`.
    pub async fn connect(path: &Path) -> Result<Self, SocketError> {
        let socket = Socket::new(SocketType::Push, options(Limits::REPORTS));
        let failed = |error: omq_tokio::Error| SocketError::Failed(path.to_owned(), error.to_string());
        socket.connect(endpoint(path)?).await.map_err(failed)?;
        Ok(Self { path: path.to_owned(), socket })
    }

    /// Waits until there is room, or somebody at all.
    pub async fn push(&self, payload: Vec<u8>) -> Result<(), SocketError> {
        let failed = |error: omq_tokio::Error| SocketError::Failed(self.path.clone(), error.to_string());
        self.socket.send(Message::single(payload)).await.map_err(failed)
    }
}

/// One question at a time to a [`Responder`]. After a timeout it dials anew, so that a late answer is never taken for the
/// answer to a later question. Where the connection is closed before the answer it asks again by a new one, so a question may
/// arrive twice: orders carry an id for that.
#[derive(Debug)]
pub struct Requester {
    path: PathBuf,
    max_answer_bytes: usize,
    socket: Option<Socket>,
}

impl Requester {
    /// Will ask at the unix socket at `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), max_answer_bytes: MAX_ANSWER_BYTES, socket: None }
    }

    /// Of an answer, all its pages may take this much memory.
    #[must_use]
    pub fn at_most(self, max_answer_bytes: usize) -> Self {
        Self { max_answer_bytes, ..self }
    }

    /// How much memory an answer may take.
    pub(crate) fn max_answer_bytes(&self) -> usize {
        self.max_answer_bytes
    }

    /// Where it asks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks, and waits for the answer for at most `timeout`. If cancelled, the question counts as unanswered. Where the
    /// other side closes the connection it is asked again, since it may have been too busy to take us in: hence a
    /// question may arrive twice.
    pub async fn ask(&mut self, question: Vec<u8>, timeout: Duration) -> Result<Bytes, SocketError> {
        let question = Bytes::from(question);
        let path = self.path.clone();
        let exchange = async {
            loop {
                let (socket, events) = match self.socket.take() {
                    Some(socket) => {
                        let events = socket.monitor();
                        (socket, events)
                    }
                    None => self.dial().await?,
                };
                if let Some(answer) = self.exchange(&socket, events, question.clone()).await? {
                    self.socket = Some(socket);
                    return Ok(answer);
                }
                tokio::time::sleep(REDIAL_PAUSE).await;
            }
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(SocketError::Timeout { path, timeout }))
    }

    /// A socket, and all that will happen to its connection.
    async fn dial(&self) -> Result<(Socket, MonitorStream), SocketError> {
        let socket = Socket::new(SocketType::Dealer, options(Limits::ANSWERS));
        let events = socket.monitor();
        socket.connect(endpoint(&self.path)?).await.map_err(|error| self.failed(&error))?;
        Ok((socket, events))
    }

    /// The answer, or nothing if the connection that the question went by is gone.
    async fn exchange(
        &self,
        socket: &Socket,
        mut events: MonitorStream,
        question: Bytes,
    ) -> Result<Option<Bytes>, SocketError> {
        let body = |answer: &Message| answer.part_bytes(answer.len().saturating_sub(1)).unwrap_or_default();
        socket.send(Message::multipart([Bytes::new(), question])).await.map_err(|error| self.failed(&error))?;
        let mut connections = 0;
        loop {
            tokio::select! {
                // The answer first: who answers and then goes has answered.
                biased;
                answer = socket.recv() => return answer.map(|answer| Some(body(&answer))).map_err(|error| self.failed(&error)),
                event = events.recv() => match event {
                    Ok(MonitorEvent::Disconnected { .. }) | Err(omq_tokio::MonitorRecvError::Closed) => {
                        return Ok(socket.try_recv().ok().map(|answer| body(&answer)));
                    }
                    // A second connection: the first has ended in its handshake, and the question with it.
                    Ok(MonitorEvent::Connected { .. }) if connections > 0 => return Ok(None),
                    Ok(MonitorEvent::Connected { .. }) => connections += 1,
                    Ok(_) | Err(_) => {}
                },
            }
        }
    }

    fn failed(&self, error: &omq_tokio::Error) -> SocketError {
        SocketError::Failed(self.path.clone(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_second_binder_is_refused_and_the_first_one_keeps_working() {
        let dir = folder();
        let path = dir.path().join("query");
        let counters = Counters::default();
        let first = Responder::bind(&path, &counters).await.expect("first");
        assert!(matches!(Responder::bind(&path, &counters).await, Err(SocketError::InUse(_))));
        let server = tokio::spawn(async move {
            let (route, question) = first.recv().await.expect("a question");
            first.reply(route, question.expect("one frame").to_vec()).await;
            first.close().await;
        });
        let answer = Requester::new(&path).ask(b"hello".to_vec(), PATIENCE).await.expect("an answer");
        assert_eq!(&answer[..], b"hello");
        server.await.expect("server");
    }

    #[test]
    fn the_oldest_peer_makes_way() {
        let mut peers = Peers::default();
        let pending = MAX_PENDING_HANDSHAKES as u64;
        assert!((0..pending).all(|peer| peers.accepted(peer).is_none()));
        assert_eq!(peers.accepted(pending), Some(0));
        assert!((1..=3).all(|peer| peers.made_ready(peer, 3).is_none()));
        peers.left(2);
        assert_eq!(peers.made_ready(4, 3), None);
        assert_eq!(peers.made_ready(5, 3), Some(1));
        assert!((0..MAX_SUBSCRIPTIONS).all(|_| peers.subscribed(5, b"event.").is_none()));
        assert_eq!((peers.subscribed(5, b"event."), peers.subscribed(4, b"event.")), (Some(5), None));
        peers.left(5);
        assert_eq!(peers.subscribed(5, b"event."), None);
    }

    #[test]
    fn who_may_take_numbers_is_known_until_it_leaves() {
        let mut peers = Peers::default();
        for prefix in ["event.", "beat.", "values"] {
            peers.subscribed(1, prefix.as_bytes());
        }
        assert!(peers.take_values.is_empty());
        for (peer, prefix) in (2..).zip(["", "val", "value.", "value.web1!"]) {
            peers.subscribed(peer, prefix.as_bytes());
            assert!(peers.take_values.contains(&peer), "{prefix}");
            peers.left(peer);
            assert!(peers.take_values.is_empty());
        }
    }

    #[test]
    fn unread_answers_count_in_bytes() {
        let client = |n: usize| Bytes::from(n.to_string());
        let mut unread = Unread::default();
        assert!(unread.admits(&client(0)));
        unread.add(&client(0), MAX_UNREAD_BYTES);
        assert!(!unread.admits(&client(0)) && unread.admits(&client(1)));
        assert_eq!(unread.hog(), None);
        unread.add(&client(0), MAX_UNREAD_BYTES);
        let many = MAX_UNREAD_BYTES_OF_ALL / MAX_UNREAD_BYTES;
        (1..many).for_each(|n| unread.add(&client(n), MAX_UNREAD_BYTES));
        assert_eq!(unread.hog(), Some(client(0)));
        unread.remove(&client(0), 2 * MAX_UNREAD_BYTES);
        assert!(unread.admits(&client(0)) && !unread.of_each.contains_key(&client(0)));
        assert_eq!(unread.hog(), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sockets_are_for_their_owner_and_group_only() {
        let dir = folder();
        let path = dir.path().join("feed");
        let _feed = Publisher::bind(&path, &Counters::default()).await.expect("feed");
        let mode = fs::metadata(&path).expect("socket file").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_requester_recovers_from_a_server_that_was_not_there() {
        let dir = folder();
        let path = dir.path().join("query");
        let mut requester = Requester::new(&path);
        let missing = requester.ask(b"anyone?".to_vec(), Duration::from_millis(50)).await;
        assert!(matches!(missing, Err(SocketError::Timeout { .. })));
        let server = Responder::bind(&path, &Counters::default()).await.expect("server");
        tokio::spawn(async move {
            while let Ok((route, Some(question))) = server.recv().await {
                server.reply(route, question.to_vec()).await;
            }
        });
        let answer = requester.ask(b"now?".to_vec(), PATIENCE).await.expect("an answer");
        assert_eq!(&answer[..], b"now?");
    }

    #[tokio::test]
    async fn a_path_too_long_for_a_unix_socket_says_so() {
        let path = PathBuf::from("/tmp").join("x".repeat(120));
        let error = Subscriber::connect(&path, &[""]).await.expect_err("too long");
        assert!(error.to_string().contains("must be 1 to 107"), "{error}");
    }
}
