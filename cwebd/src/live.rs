//! Between the board and the browsers that watch it.
//!
//! Each change becomes one frame of server-sent events (WHATWG HTML, section 9.2), made once and shared by all
//! browsers. A browser holds only its place in the ring of recent frames; the one that falls behind the ring, since it
//! is slow or never reads, gets the whole state instead of what it missed. So a browser costs nothing that grows,
//! however slow it is.

use crate::board::{Board, Delta, DeltaRow, PublisherRow, StateRow};
use bytes::Bytes;
use common::message::Epoch;
use common::time::UnixMillis;
use serde::Serialize;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Frames kept for browsers that are behind, the oldest making way: about ten seconds of a busy suite.
const MAX_FRAMES: usize = 256;
/// And their bytes.
const MAX_FRAME_BYTES: usize = 2 << 20;
/// The whole state is written at most this often, and the frames since bring it up to date: many slow browsers then
/// share a few copies.
const STATE_VALID: Duration = Duration::from_secs(1);

/// The board, and what browsers have to be told of it.
#[derive(Debug)]
pub(crate) struct Live {
    started: Instant,
    /// Distinguishes our frames from those of the process before.
    boot: Epoch,
    inner: Mutex<Inner>,
    /// The number of the newest frame.
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    board: Board,
    /// Consecutive numbers, the newest last.
    frames: VecDeque<(u64, Bytes)>,
    frame_bytes: usize,
    newest: u64,
    state: Option<Whole>,
}

/// The state as JSON, and the last frame that it includes.
#[derive(Clone, Debug)]
struct Whole {
    made: Instant,
    at: u64,
    json: Bytes,
}

/// What comes next for a browser.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// The frame of this number.
    Frame(u64, Bytes),
    /// It is behind, or has just come: the state as JSON, and the last frame it includes.
    State(u64, Bytes),
    /// Nothing yet.
    Wait,
}

/// What a browser hears each second.
#[derive(Debug, Serialize)]
struct BeatRow {
    now: UnixMillis,
    publishers: Vec<PublisherRow>,
}

impl Live {
    /// Nothing has happened yet.
    pub(crate) fn new(board: Board) -> Self {
        let inner = Inner { board, frames: VecDeque::new(), frame_bytes: 0, newest: 0, state: None };
        let (newest, _) = watch::channel(0);
        Self { started: Instant::now(), boot: Epoch::random(), inner: Mutex::new(inner), newest }
    }

    /// On the clock of the board.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells the board something. Browsers hear of it with the next [`Self::flush`].
    pub(crate) fn tell(&self, what: impl FnOnce(&mut Board)) {
        what(&mut self.lock().board);
    }

    /// Browsers hear what changed, but for loads.
    pub(crate) fn flush(&self) {
        let mut inner = self.lock();
        match inner.board.take_delta() {
            Delta::None => {}
            Delta::Some(delta) => self.push_delta(&mut inner, &delta),
            // Nobody can go on from what came before.
            Delta::All => {
                inner.frames.clear();
                inner.frame_bytes = 0;
                inner.newest += 1;
                inner.state = None;
                self.newest.send_replace(inner.newest);
            }
        }
    }

    /// A second has passed: old numbers go, browsers hear the loads and that the publishers live, or do not.
    pub(crate) fn beat(&self) {
        let now = self.now();
        let mut inner = self.lock();
        inner.board.tick(now);
        if let Delta::Some(delta) = inner.board.take_loads() {
            self.push_delta(&mut inner, &delta);
        }
        let row = BeatRow { now: UnixMillis::now(), publishers: inner.board.publishers(now) };
        self.push(&mut inner, "beat", &json(&row));
    }

    /// Whether some publisher was heard lately.
    pub(crate) fn is_live(&self) -> bool {
        self.lock().board.is_live(self.now())
    }

    /// The state as JSON.
    pub(crate) fn state(&self) -> Bytes {
        self.whole(&mut self.lock()).json
    }

    /// What a browser gets that has had the frame of this number, or nothing yet.
    pub(crate) fn after(&self, seen: Option<u64>) -> Next {
        let mut inner = self.lock();
        let oldest = inner.frames.front().map(|(number, _)| *number);
        match seen {
            Some(seen) if seen == inner.newest => Next::Wait,
            Some(seen) if oldest.is_some_and(|oldest| oldest <= seen + 1) => {
                // They are consecutive.
                let place = usize::try_from(seen + 1 - oldest.unwrap_or(0)).unwrap_or(usize::MAX);
                inner.frames.get(place).map_or(Next::Wait, |(number, frame)| Next::Frame(*number, frame.clone()))
            }
            _ => {
                let whole = self.whole(&mut inner);
                Next::State(whole.at, whole.json)
            }
        }
    }

    /// Wakes whoever waits for the next frame.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// A frame of server-sent events.
    fn frame(&self, event: &str, number: u64, data: &str) -> Bytes {
        let mut frame = String::with_capacity(data.len() + 64);
        // JSON has no line breaks outside of texts, and escapes them inside: one `data` line is enough.
        write!(frame, "event: {event}\nid: {}-{number}\ndata: {data}\n\n", self.boot).expect("written to memory");
        Bytes::from(frame)
    }

    /// What stands around the state in its frame.
    pub(crate) fn around_state(&self, number: u64) -> (Bytes, Bytes) {
        (Bytes::from(format!("event: state\nid: {}-{number}\ndata: ", self.boot)), Bytes::from_static(b"\n\n"))
    }

    fn push_delta(&self, inner: &mut Inner, delta: &DeltaRow) {
        self.push(inner, "delta", &json(delta));
    }

    fn push(&self, inner: &mut Inner, event: &str, data: &str) {
        inner.newest += 1;
        let frame = self.frame(event, inner.newest, data);
        inner.frame_bytes += frame.len();
        inner.frames.push_back((inner.newest, frame));
        while inner.frames.len() > MAX_FRAMES || inner.frame_bytes > MAX_FRAME_BYTES {
            let Some((_, oldest)) = inner.frames.pop_front() else { break };
            inner.frame_bytes -= oldest.len();
        }
        self.newest.send_replace(inner.newest);
    }

    /// The state, from which the ring leads on.
    fn whole(&self, inner: &mut Inner) -> Whole {
        let oldest = inner.frames.front().map_or(inner.newest + 1, |(number, _)| *number);
        if let Some(whole) = &inner.state
            && whole.made.elapsed() < STATE_VALID
            && whole.at + 1 >= oldest
        {
            return whole.clone();
        }
        // What is not yet in a frame would come twice, and does no harm.
        let state: StateRow = inner.board.state(self.now(), UnixMillis::now());
        let whole = Whole { made: Instant::now(), at: inner.newest, json: Bytes::from(json(&state)) };
        inner.state = Some(whole.clone());
        whole
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn json<T: Serialize>(row: &T) -> String {
    serde_json::to_string(row).expect("our rows have text keys and finite numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        Live::new(Board::new(["stream".to_owned()]))
    }

    #[test]
    fn a_browser_gets_the_state_and_then_each_frame_once() {
        let live = live();
        let Next::State(at, _) = live.after(None) else { panic!("no state first") };
        assert_eq!(live.after(Some(at)), Next::Wait);
        live.beat();
        live.beat();
        let Next::Frame(first, frame) = live.after(Some(at)) else { panic!("no frame") };
        assert!(frame.starts_with(b"event: beat\nid: "), "{frame:?}");
        let Next::Frame(second, _) = live.after(Some(first)) else { panic!("no frame") };
        assert_eq!((first, second), (at + 1, at + 2));
        assert_eq!(live.after(Some(second)), Next::Wait);
    }

    #[test]
    fn who_falls_behind_the_ring_gets_the_state_again() {
        let live = live();
        let Next::State(at, _) = live.after(None) else { panic!("no state first") };
        for _ in 0..=MAX_FRAMES {
            live.beat();
        }
        let Next::State(now, _) = live.after(Some(at)) else { panic!("not behind") };
        assert!(matches!(live.after(Some(now)), Next::Wait | Next::Frame(..)));
        let inner = live.lock();
        assert!(inner.frames.len() <= MAX_FRAMES && inner.frame_bytes <= MAX_FRAME_BYTES);
    }

    #[test]
    fn a_shared_state_leads_on_without_a_hole() {
        let live = live();
        let Next::State(at, _) = live.after(None) else { panic!("no state") };
        live.beat();
        // Within the second the same copy is given out, and what came since follows.
        let Next::State(again, _) = live.after(None) else { panic!("no state") };
        assert_eq!(again, at);
        assert!(matches!(live.after(Some(again)), Next::Frame(number, _) if number == at + 1));
    }

    #[test]
    fn after_a_snapshot_everybody_gets_the_state() {
        let live = live();
        live.beat();
        let Next::State(at, _) = live.after(None) else { panic!("no state") };
        live.tell(|board| board.history(Vec::new()));
        live.flush();
        assert!(matches!(live.after(Some(at)), Next::State(number, _) if number > at));
    }

    #[test]
    fn a_frame_is_one_line_of_data_whatever_is_in_it() {
        let frame = live().frame("delta", 7, &json(&"a\nb\r\u{2028}<script>"));
        let text = String::from_utf8(frame.to_vec()).expect("UTF-8");
        assert_eq!(text.lines().count(), 4);
        assert!(text.ends_with("\n\n"));
    }
}
