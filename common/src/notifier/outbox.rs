//! Decides in which message, and when, what is to be told is told. Pure: it is told the time and the outcomes.
//!
//! One message is under way on a lane at a time. What a recipient is to hear meanwhile waits, and the next message takes all
//! of it. A single event is never delayed for the sake of others; what comes within [`GATHER`] after a message waits for what
//! else comes, for at most [`GATHER_AT_MOST`]. So a storm, or an hour without the medium, folds into few messages by itself.
//! Where a message is worth more than a minute, what follows a storm waits longer ([`Pace::after_storm`](super::Pace)),
//! unless it is worse than all that was told of it.
//! What began and ended while it waited is one story; what the recipient knows already is not repeated.
//!
//! Quiet hours hold back what is not bad enough, and `after` what has not lasted long enough, or what is silenced or looked after
//! by then. What is over before it was to be told is dropped with its end, and that is on record.
//!
//! A message whose outcome is not known is sent again as it was, with the same items and so the same [`MessageId`], before
//! anything else goes to that recipient.

use crate::message::Event;
use crate::notifier::pace::{Pacer, Verdict};
use crate::notifier::teller::{Key, Now, Role};
use crate::notifier::{Mark, MessageId, Outcome, Quiet, Scope, Story};
use crate::severity::Severity;
use crate::time::{UnixMillis, for_people};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// And the longest.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// What may wait for one recipient. Beyond it the oldest beginnings and single events are given up, and that is on record; ends
/// of what was told are kept.
const MAX_WAITING: usize = 10_000;
/// So many at once: what follows from it takes a look at all that wait.
const GIVEN_UP_AT_ONCE: usize = 500;
/// Stories that a message is offered: all, since what has no room by name is counted.
const MAX_STORIES: usize = MAX_WAITING;
/// A message of more than so many events is about a storm.
const STORM: usize = 100;

/// What follows a message within this waits for more, until nothing has come for this long,
const GATHER: Duration = Duration::from_secs(2);
/// or the first of it has waited for this long.
const GATHER_AT_MOST: Duration = Duration::from_secs(8);
/// What has lasted long enough is told after the next comparison with what is open, or after this long without one.
const COMPARED_WITHIN: Duration = Duration::from_secs(30);
/// Between two requests for that comparison.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// And where the last one has said that it is kept back.
const KEPT_BACK_EVERY: Duration = Duration::from_secs(30);

/// Something that a recipient is to hear.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Its row in the ledger, in the order of time.
    pub(crate) id: i64,
    pub(crate) role: Role,
    pub(crate) event: Arc<Event>,
    /// How old it was when we took it in, on the monotonic clock: before 0 for what a restart found. While it is held back it
    /// does not age.
    pub(crate) age_at: Age,
    /// Since when what it tells of has lasted, but not later than we took it in.
    pub(crate) lasts_since: UnixMillis,
}

impl Item {
    /// How bad it is that this is not known yet. An end is good news.
    fn urgency(&self) -> Severity {
        match self.role {
            Role::Begin | Role::Worse | Role::Once => self.event.top_severity,
            Role::End => Severity::Debug,
        }
    }
}

/// A moment on the monotonic clock of this process that may lie before its start, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age(pub(crate) i64);

impl Age {
    pub(crate) fn at(monotonic: Duration) -> Self {
        Self(i64::try_from(monotonic.as_millis()).unwrap_or(i64::MAX))
    }

    /// On the clock of this process: its start for what lies before it.
    pub(crate) fn monotonic(self) -> Duration {
        Duration::from_millis(u64::try_from(self.0).unwrap_or(0))
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    pub(crate) fn until(self, now: Duration) -> Duration {
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        Duration::from_millis(u64::try_from(now.saturating_sub(self.0)).unwrap_or(0))
    }
}

/// A message that could go now.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) recipient: String,
    pub(crate) stories: Vec<Story>,
    /// What each story is made of.
    pub(crate) sources: Vec<Source>,
    /// Sent before, with an unknown outcome, and so to be sent as it was.
    pub(crate) again: bool,
    /// Messages pause after it, and it has to say so.
    pub(crate) last: bool,
}

/// The items that a story tells.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) items: Vec<i64>,
    /// It tells of a beginning, not only that what is known to be open got worse.
    pub(crate) begins: bool,
}

/// What becomes of an item.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Told; the medium's words.
    Sent { item: i64, words: String },
    /// Waits on, and why.
    Waits { item: i64, why: String },
    /// Is held back, and why.
    Held { item: i64, why: String },
    /// Under way with an unknown outcome; goes again as it was.
    Unknown { item: i64, why: String },
    /// Failed for good.
    Failed { item: i64, why: String },
    /// Not told, because that would make no sense any more.
    Dropped { item: i64, why: String },
    /// What it worsens could not be told: it is the beginning now.
    Begins { item: i64 },
    /// A beginning was not told, for good.
    Untold { recipient: String, key: Key },
}

/// A message that was sent or is being sent.
#[derive(Debug)]
struct Flight {
    id: MessageId,
    items: Vec<Item>,
    again: bool,
    /// What it told when it was sent first and now has no room for. May have been told too.
    rest: Vec<Item>,
}

#[derive(Debug, Default)]
struct Queue {
    lane: String,
    /// In the order of time.
    waiting: VecDeque<Item>,
    /// Messages with an unknown outcome, the oldest first.
    unknown: VecDeque<Vec<Item>>,
    under_way: Option<Flight>,
    /// When the last message was accepted.
    told_at: Option<Duration>,
    /// The last message about a storm.
    storm: Option<Storm>,
    pause: Pause,
    quiet: Vec<Quiet>,
    after: Option<Duration>,
    /// What is open, when it was last compared with what waits.
    look: Option<Look>,
    /// Since when something waits for a comparison.
    unlooked_since: Option<Duration>,
    /// It is full, and that has been said.
    is_full: bool,
    /// Why the last that failed for good did, until something is accepted again.
    failed: Option<String>,
}

/// A message that told of a storm.
#[derive(Clone, Copy, Debug)]
struct Storm {
    told_at: Duration,
    /// Of all that was told since the storm began.
    worst: Severity,
}

/// What a comparison came to.
#[derive(Debug)]
struct Look {
    at: Now,
    /// What had lasted long enough and was not to be told all the same, each with the reason.
    kept_back: BTreeMap<Key, String>,
}

/// Somebody whom an outbox serves.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) lane: String,
    pub(crate) quiet: Vec<Quiet>,
    pub(crate) after: Option<Duration>,
}

/// Back-off.
#[derive(Debug, Default)]
struct Pause {
    failures: u32,
    until: Duration,
}

impl Pause {
    fn failed(&mut self, now: Duration, after: Option<Duration>) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.until = now + pause.max(after.unwrap_or_default());
    }
}

/// The state.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// Names this outbox in the ids of its messages.
    id: Uuid,
    give_up_after: Duration,
    queues: BTreeMap<String, Queue>,
    lanes: BTreeMap<String, Pause>,
    /// When a comparison with what is open was last asked for.
    compare_asked: Option<Duration>,
    /// How fast each recipient may be told.
    pub(crate) pacer: Pacer,
}

impl Outbox {
    pub(crate) fn new(id: Uuid, give_up_after: Duration) -> Self {
        let (queues, lanes) = (BTreeMap::new(), BTreeMap::new());
        Self { id, give_up_after, queues, lanes, compare_asked: None, pacer: Pacer::default() }
    }

    /// Another way may work at once.
    pub(crate) fn begin_anew(&mut self, give_up_after: Duration) {
        self.give_up_after = give_up_after;
        self.queues.values_mut().for_each(|queue| queue.pause = Pause::default());
        self.lanes.clear();
    }

    /// Who there is, by name. What waits for somebody who is gone is dropped.
    pub(crate) fn set_recipients(&mut self, recipients: &BTreeMap<String, Served>) -> Vec<Change> {
        for (recipient, Served { lane, quiet, after }) in recipients {
            let queue = self.queues.entry(recipient.clone()).or_default();
            queue.lane.clone_from(lane);
            queue.quiet.clone_from(quiet);
            queue.after = *after;
        }
        let mut changes = Vec::new();
        for (recipient, mut queue) in self.queues.extract_if(.., |recipient, _| !recipients.contains_key(recipient)) {
            let waiting: Vec<Item> = std::mem::take(&mut queue.waiting).into();
            let under_way = queue.under_way.iter().flat_map(|flight| flight.items.iter().chain(&flight.rest));
            let items = under_way.chain(queue.unknown.iter().flatten()).chain(&waiting);
            let why = "the recipient is no longer configured";
            changes.extend(items.map(|item| Change::Dropped { item: item.id, why: why.to_owned() }));
            changes.extend(queue.beginning_failed(&recipient, &waiting));
        }
        changes
    }

    /// What is new, or was waiting when we last stopped. Says what is held back or over already, and what had to make way.
    pub(crate) fn push(&mut self, recipient: &str, item: Item, now: Now) -> Vec<Change> {
        let Some(queue) = self.queues.get_mut(recipient) else {
            let mut changes = vec![Change::Dropped { item: item.id, why: "there is no such recipient".to_owned() }];
            changes.extend(Queue::default().beginning_failed(recipient, &[item]));
            return changes;
        };
        queue.waiting.push_back(item);
        let mut changes = queue.hold_newest(now);
        if queue.waiting.len() <= MAX_WAITING {
            return changes;
        }
        if !std::mem::replace(&mut queue.is_full, true) {
            tracing::warn!("{recipient}: more than {MAX_WAITING} events wait, the oldest are given up");
        }
        let mut given_up: Vec<Item> = Vec::with_capacity(GIVEN_UP_AT_ONCE);
        queue.waiting.retain(|item| {
            let stays = item.role == Role::End || given_up.len() == GIVEN_UP_AT_ONCE;
            if !stays {
                given_up.push(item.clone());
            }
            stays
        });
        if given_up.is_empty() {
            given_up.extend(queue.waiting.pop_front());
        }
        let why = format!("more than {MAX_WAITING} events were waiting");
        let failed = |item: &Item| Change::Failed { item: item.id, why: why.clone() };
        changes.extend(given_up.iter().map(failed));
        changes.extend(queue.beginning_failed(recipient, &given_up));
        queue.failed = Some(why);
        changes
    }

    /// Whether something has lasted long enough, and what is open is to be asked for before it is told.
    pub(crate) fn wants_comparison(&mut self, now: Now) -> bool {
        let asked = self.compare_asked.is_some_and(|asked| now.monotonic < asked + COMPARE_EVERY);
        let mut wants = false;
        for queue in self.queues.values_mut() {
            wants |= queue.wants_comparison(now);
        }
        wants &= !asked;
        if wants {
            self.compare_asked = Some(now.monotonic);
        }
        wants
    }

    /// What is open was compared. Of what is kept back, nothing that has lasted long enough by now is told before another
    /// comparison says otherwise.
    pub(crate) fn compared(&mut self, recipient: &str, kept_back: &BTreeMap<Key, String>, now: Now) -> Vec<Change> {
        let Some(queue) = self.queues.get_mut(recipient) else { return Vec::new() };
        let due =
            queue.held_keys(now).into_iter().filter(|(_, hold)| !matches!(hold, Hold::Quiet(_) | Hold::Lasting(_)));
        let kept_back = due.filter_map(|(key, _)| kept_back.get(&key).cloned().map(|why| (key, why))).collect();
        let before = queue.look.replace(Look { at: now, kept_back });
        let Some(Look { kept_back, .. }) = &queue.look else { return Vec::new() };
        queue.unlooked_since = None;
        let knew = |key: &Key, why: &String| before.as_ref().is_some_and(|look| look.kept_back.get(key) == Some(why));
        let items = queue.waiting.iter().filter(|item| item.role != Role::Once);
        let held = items.filter_map(|item| {
            let key = Key::of(&item.event);
            let why = kept_back.get(&key).filter(|why| !knew(&key, why))?;
            Some(Change::Held { item: item.id, why: why.clone() })
        });
        held.collect()
    }

    /// What was being sent when we last stopped.
    pub(crate) fn push_unknown(&mut self, recipient: &str, items: Vec<Item>) -> Vec<Change> {
        match self.queues.get_mut(recipient) {
            Some(queue) => {
                queue.unknown.push_back(items);
                Vec::new()
            }
            None => {
                let why = "the recipient is no longer configured; the outcome is not known";
                items.iter().map(|item| Change::Dropped { item: item.id, why: why.to_owned() }).collect()
            }
        }
    }

    /// How many items are not told yet.
    pub(crate) fn waiting(&self) -> usize {
        let of = |queue: &Queue| {
            let under_way = queue.under_way.as_ref().map_or(0, |flight| flight.items.len() + flight.rest.len());
            queue.waiting.len() + under_way + queue.unknown.iter().map(Vec::len).sum::<usize>()
        };
        self.queues.values().map(of).sum()
    }

    /// How many messages are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.queues.values().filter(|queue| queue.under_way.is_some()).count()
    }

    /// The lane of a recipient.
    pub(crate) fn lane_of(&self, recipient: &str) -> Option<&str> {
        self.queues.get(recipient).map(|queue| queue.lane.as_str())
    }

    /// Whether the last attempt at this recipient, if there was one, was a success.
    pub(crate) fn is_first_failure(&self, recipient: &str) -> bool {
        self.queues.get(recipient).is_some_and(|queue| queue.pause.failures == 0)
    }

    /// What has waited for too long, and was not held back.
    pub(crate) fn give_up(&mut self, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        for (recipient, queue) in &mut self.queues {
            changes.extend(queue.drop_over(now));
            queue.keep_held_young(now);
            let limit = self.give_up_after;
            let old = |item: &Item| item.age_at.until(now.monotonic) > limit;
            let mut given_up: Vec<Item> = Vec::new();
            while queue.unknown.front().is_some_and(|items| items.iter().any(old)) {
                given_up.extend(queue.unknown.pop_front().expect("it was there"));
            }
            queue.waiting.retain(|item| {
                if old(item) {
                    given_up.push(item.clone());
                }
                !old(item)
            });
            if given_up.is_empty() {
                continue;
            }
            let limit = for_people(limit);
            let why = match self.pacer.verdict(recipient, now.monotonic) {
                Verdict::Wait { bound, .. } => format!("could not be told within {limit}: {}", bound.reason()),
                Verdict::Go | Verdict::Last => format!("not accepted within {limit}"),
            };
            changes.extend(given_up.iter().map(|item| Change::Failed { item: item.id, why: why.clone() }));
            changes.extend(queue.beginning_failed(recipient, &given_up));
            if !given_up.is_empty() {
                queue.failed = Some(why);
            }
        }
        changes
    }

    /// How long what follows a storm waits: never until it is given up.
    fn after_storm(&self, recipient: &str) -> Duration {
        self.pacer.after_storm(recipient).min(self.give_up_after / 2)
    }

    /// For how long what waits for a recipient still waits for the rest of a storm, if it does.
    pub(crate) fn rests_after_storm(&self, recipient: &str, now: Duration) -> Option<Duration> {
        let queue = self.queues.get(recipient)?;
        let after_storm = self.after_storm(recipient);
        let until = queue.storm?.told_at + after_storm;
        let gathers = queue.gathered_at(&queue.waiting, after_storm) >= until;
        until.checked_sub(now).filter(|rest| gathers && !rest.is_zero())
    }

    /// Who was not told of something, for good, since they were last told of anything: their lane, their name and why.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.queues
            .iter()
            .filter_map(|(recipient, queue)| Some((queue.lane.as_str(), recipient.as_str(), queue.failed.as_deref()?)))
    }

    /// The next message of a lane with nothing under way, if one can go now: that of the recipient who has waited longest.
    pub(crate) fn next(&self, lane: &str, now: Now) -> Option<Ready> {
        if self.lanes.get(lane).is_some_and(|pause| now.monotonic < pause.until) {
            return None;
        }
        let free =
            |queue: &Queue| queue.lane == lane && queue.under_way.is_none() && now.monotonic >= queue.pause.until;
        let queues = self.queues.iter().filter(|(_, queue)| free(queue));
        let ready = queues.filter_map(|(recipient, queue)| {
            let (items, again) = queue.next(now, self.after_storm(recipient))?;
            let verdict = self.pacer.verdict(recipient, now.monotonic);
            let goes = matches!(verdict, Verdict::Go | Verdict::Last);
            goes.then(|| (items[0].id, recipient, items, again, verdict))
        });
        let (_, recipient, items, again, verdict) = ready.min_by_key(|(id, ..)| *id)?;
        let most = if again { usize::MAX } else { MAX_STORIES };
        let last = verdict == Verdict::Last;
        let (stories, sources) = fold(&items, most);
        Some(Ready { recipient: recipient.clone(), stories, sources, again, last })
    }

    /// These items of a recipient go now, in one message.
    pub(crate) fn begin(&mut self, recipient: &str, id: MessageId, items: &[i64], again: bool) {
        let Some(queue) = self.queues.get_mut(recipient) else { return };
        let items: BTreeSet<i64> = items.iter().copied().collect();
        let chosen = |item: &Item| items.contains(&item.id);
        let (items, rest) = if again {
            queue.unknown.pop_front().unwrap_or_default().into_iter().partition(chosen)
        } else {
            let (items, rest): (Vec<Item>, Vec<Item>) =
                std::mem::take(&mut queue.waiting).into_iter().partition(chosen);
            queue.waiting = rest.into();
            queue.is_full &= queue.waiting.len() > MAX_WAITING / 2;
            (items, Vec::new())
        };
        queue.under_way = Some(Flight { id, items, again, rest });
    }

    /// The name of the message that tells these items.
    pub(crate) fn message_id(&self, recipient: &str, items: &[i64]) -> MessageId {
        MessageId::new(self.id, recipient, items)
    }

    /// What became of a message to `recipient`. Of one that was dropped with its recipient, nothing.
    pub(crate) fn done(
        &mut self,
        lane: &str,
        recipient: &str,
        id: MessageId,
        outcome: Outcome,
        now: Duration,
    ) -> Vec<Change> {
        let after_storm = self.after_storm(recipient);
        let Some(queue) = self.queues.get_mut(recipient) else { return Vec::new() };
        let Some(Flight { mut items, again, rest, .. }) = queue.under_way.take_if(|flight| flight.id == id) else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        if !rest.is_empty() && !matches!(outcome, Outcome::Retry { .. }) {
            queue.unknown.push_front(rest.clone());
        }
        match outcome {
            Outcome::Sent(words) => {
                let words = if again { format!("outcome unknown, sent again; {words}") } else { words };
                changes.extend(items.iter().map(|item| Change::Sent { item: item.id, words: words.clone() }));
                queue.pause = Pause::default();
                queue.failed = None;
                queue.told_at = Some(now);
                queue.note_storm(&items, now, after_storm);
                self.lanes.remove(lane);
            }
            Outcome::Never(why) => {
                changes.extend(items.iter().map(|item| Change::Failed { item: item.id, why: why.clone() }));
                changes.extend(queue.beginning_failed(recipient, &items));
                queue.pause = Pause::default();
                queue.failed = Some(why);
            }
            Outcome::Retry { why, scope, maybe_accepted, after } => {
                if maybe_accepted || again {
                    changes.extend(items.iter().map(|item| Change::Unknown { item: item.id, why: why.clone() }));
                    // It stays one message, under the name that it was first sent with.
                    items.extend(rest);
                    items.sort_by_key(|item| item.id);
                    queue.unknown.push_front(items);
                } else {
                    changes.extend(items.iter().map(|item| Change::Waits { item: item.id, why: why.clone() }));
                    let mut all: Vec<Item> = items.into_iter().chain(std::mem::take(&mut queue.waiting)).collect();
                    all.sort_by_key(|item| item.id);
                    queue.waiting = all.into();
                }
                match scope {
                    Scope::Lane => self.lanes.entry(lane.to_owned()).or_default().failed(now, after),
                    Scope::Recipient => queue.pause.failed(now, after),
                }
            }
        }
        changes
    }

    /// When a pause ends, or enough was gathered, the earliest. What is held back is looked at anew from time to time.
    pub(crate) fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let queues = self.queues.iter().filter(|(_, queue)| !queue.waiting.is_empty() || !queue.unknown.is_empty());
        let until = queues.map(|(recipient, queue)| {
            let lane = self.lanes.get(&queue.lane).map_or(Duration::ZERO, |pause| pause.until);
            let after_storm = self.after_storm(recipient);
            let gathered =
                if queue.unknown.is_empty() { queue.gathered_at(&queue.waiting, after_storm) } else { Duration::ZERO };
            let pace = match self.pacer.verdict(recipient, now) {
                Verdict::Wait { until, .. } => until.monotonic(),
                Verdict::Go | Verdict::Last => Duration::ZERO,
            };
            queue.pause.until.max(lane).max(gathered).max(pace)
        });
        until.filter(|&until| until > now).min()
    }
}

/// Why something waits that could go.
#[derive(Clone, Debug, PartialEq)]
enum Hold {
    /// It has not lasted for this long.
    Lasting(Duration),
    /// It has, but whether it is still to be told is not known yet.
    Uncompared,
    /// It has, and is not to be told all the same.
    KeptBack(String),
    /// It is not bad enough for the hour.
    Quiet(String),
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lasting(after) => write!(f, "waits until it has lasted for {}", for_people(*after)),
            Self::Uncompared => f.write_str("waits for what its cprocessd says is open"),
            Self::KeptBack(why) | Self::Quiet(why) => f.write_str(why),
        }
    }
}

impl Queue {
    /// What goes next, at least one item, and whether it goes again.
    fn next(&self, now: Now, after_storm: Duration) -> Option<(Vec<&Item>, bool)> {
        if let Some(items) = self.unknown.front() {
            return Some((items.iter().collect(), true));
        }
        let items = self.not_held(now);
        let goes = !items.is_empty() && now.monotonic >= self.gathered_at(items.iter().copied(), after_storm);
        goes.then_some((items, false))
    }

    /// When enough was gathered of these: at once, unless somebody was just told of something else.
    fn gathered_at<'a>(&self, items: impl IntoIterator<Item = &'a Item>, after_storm: Duration) -> Duration {
        let Some(told_at) = self.told_at else { return Duration::ZERO };
        let mut span: Option<(Duration, Duration)> = None;
        let mut worst = Severity::Debug;
        for item in items {
            let at = item.age_at.monotonic();
            span = Some(span.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
            worst = worst.max(item.urgency());
        }
        let gathered = match span {
            Some((first, last)) if first < told_at + GATHER => (last + GATHER).min(first + GATHER_AT_MOST),
            Some(_) | None => Duration::ZERO,
        };
        let storm = self.storm.filter(|storm| worst <= storm.worst);
        storm.map_or(gathered, |storm| gathered.max(storm.told_at + after_storm))
    }

    /// These were told.
    fn note_storm(&mut self, items: &[Item], now: Duration, after_storm: Duration) {
        let worst = items.iter().map(|item| item.event.top_severity).max().unwrap_or(Severity::Debug);
        let before = self.storm.take().filter(|storm| now < storm.told_at + after_storm);
        let worst = before.map_or(worst, |storm| storm.worst.max(worst));
        let told_at = if items.len() > STORM { Some(now) } else { before.map(|storm| storm.told_at) };
        self.storm = told_at.map(|told_at| Storm { told_at, worst });
    }

    fn holds(&self) -> bool {
        self.after.is_some() || !self.quiet.is_empty()
    }

    /// What waits and could go.
    fn not_held(&self, now: Now) -> Vec<&Item> {
        if !self.holds() {
            return self.waiting.iter().collect();
        }
        let keys = self.held_keys(now);
        let quiet = self.quiet_at(now);
        let held = |item: &&Item| match item.role {
            Role::Once => hushed(quiet, item.event.top_severity).is_some(),
            Role::Begin | Role::Worse | Role::End => keys.contains_key(&Key::of(&item.event)),
        };
        self.waiting.iter().filter(|item| !held(item)).collect()
    }

    /// The stretches of quiet that are now.
    fn quiet_at(&self, now: Now) -> Option<&Quiet> {
        let quiet = self.quiet.iter().filter(|quiet| quiet.is_at(now.wall));
        quiet.max_by_key(|quiet| quiet.except())
    }

    /// The incidents whose waiting items are held back.
    fn held_keys(&self, now: Now) -> BTreeMap<Key, Hold> {
        if !self.holds() {
            return BTreeMap::new();
        }
        let quiet = self.quiet_at(now);
        let held = self.incidents().into_iter().filter_map(|(key, (first, worst))| {
            let hold = hushed(quiet, worst).or_else(|| self.too_short(&key, first, now))?;
            Some((key, hold))
        });
        held.collect()
    }

    /// The incidents that something waits of: the first of it, and the worst.
    fn incidents(&self) -> BTreeMap<Key, (&Item, Severity)> {
        let mut keys: BTreeMap<Key, (&Item, Severity)> = BTreeMap::new();
        for item in self.waiting.iter().filter(|item| item.role != Role::Once) {
            let (_, worst) = keys.entry(Key::of(&item.event)).or_insert((item, item.event.top_severity));
            *worst = item.event.top_severity.max(*worst);
        }
        keys
    }

    /// Why an incident, of whose items `first` is the first, is not told of yet.
    fn too_short(&self, key: &Key, first: &Item, now: Now) -> Option<Hold> {
        let after = self.after.filter(|_| first.role == Role::Begin)?;
        if now.wall.since(first.lasts_since) < after {
            return Some(Hold::Lasting(after));
        }
        let kept_back = self.look.as_ref().and_then(|look| look.kept_back.get(key));
        if let Some(why) = kept_back {
            return Some(Hold::KeptBack(why.clone()));
        }
        // Nobody could be asked for so long.
        let in_vain = self.unlooked_since.is_some_and(|since| now.monotonic >= since + COMPARED_WITHIN);
        (!self.was_compared(first, after) && !in_vain).then_some(Hold::Uncompared)
    }

    /// Whether there was a comparison since it has lasted for so long and nothing else held it back.
    fn was_compared(&self, first: &Item, after: Duration) -> bool {
        self.look.as_ref().is_some_and(|look| {
            look.at.wall.since(first.lasts_since) >= after && Age::at(look.at.monotonic) >= first.age_at
        })
    }

    /// Whether something that waits is to be compared with what is open.
    fn wants_comparison(&mut self, now: Now) -> bool {
        let Some(after) = self.after else { return false };
        let quiet = self.quiet_at(now);
        let (mut lacking, mut kept_back) = (false, false);
        for (key, (first, worst)) in self.incidents() {
            let lasts = first.role == Role::Begin && now.wall.since(first.lasts_since) >= after;
            let is_kept_back = self.look.as_ref().is_some_and(|look| look.kept_back.contains_key(&key));
            let is_awake = lasts && hushed(quiet, worst).is_none();
            lacking |= is_awake && !is_kept_back && !self.was_compared(first, after);
            kept_back |= is_awake && is_kept_back;
        }
        self.unlooked_since = lacking.then(|| self.unlooked_since.unwrap_or(now.monotonic));
        let looked_at = self.look.as_ref().map(|look| look.at.monotonic);
        lacking || kept_back && looked_at.is_none_or(|at| now.monotonic >= at + KEPT_BACK_EVERY)
    }

    /// Of what came last: why it is held back, if it is; and if it ends what was held back all along, none of that is told.
    fn hold_newest(&mut self, now: Now) -> Vec<Change> {
        let Some(newest) = self.waiting.back().filter(|_| self.holds()) else { return Vec::new() };
        let (id, role) = (newest.id, newest.role);
        if role == Role::Once {
            let hold = hushed(self.quiet_at(now), newest.event.top_severity);
            return hold.map(|hold| Change::Held { item: id, why: hold.to_string() }).into_iter().collect();
        }
        let key = Key::of(&newest.event);
        let of_key = |item: &Item| item.role != Role::Once && Key::of(&item.event) == key;
        let items = || self.waiting.iter().filter(|item| of_key(item));
        let worst = items().map(|item| item.event.top_severity).max().unwrap_or(Severity::Debug);
        let Some(first) = items().next() else { return Vec::new() };
        let hold = hushed(self.quiet_at(now), worst).or_else(|| self.too_short(&key, first, now));
        let Some(hold) = hold else { return Vec::new() };
        if role != Role::End || first.role != Role::Begin {
            return vec![Change::Held { item: id, why: hold.to_string() }];
        }
        let why = format!("over before it was told: {hold}");
        let mut changes = Vec::new();
        self.waiting.retain(|item| {
            let over = of_key(item);
            changes.extend(over.then(|| Change::Dropped { item: item.id, why: why.clone() }));
            !over
        });
        changes
    }

    /// What is over and held back all the same: its end came while a message that told of its beginning was under way, in vain.
    fn drop_over(&mut self, now: Now) -> Vec<Change> {
        let held = self.held_keys(now);
        let mut over: BTreeMap<Key, String> = BTreeMap::new();
        for (key, (first, _)) in self.incidents().into_iter().filter(|_| !held.is_empty()) {
            let last = self.waiting.iter().rfind(|item| item.role != Role::Once && Key::of(&item.event) == key);
            if first.role == Role::Begin
                && last.is_some_and(|last| last.role == Role::End)
                && let Some(hold) = held.get(&key)
            {
                over.insert(key, format!("over before it was told: {hold}"));
            }
        }
        let mut changes = Vec::new();
        self.waiting.retain(|item| {
            let why = over.get(&Key::of(&item.event)).filter(|_| item.role != Role::Once);
            changes.extend(why.map(|why| Change::Dropped { item: item.id, why: why.clone() }));
            why.is_none()
        });
        changes
    }

    /// What is held back does not age.
    fn keep_held_young(&mut self, now: Now) {
        if !self.holds() {
            return;
        }
        let free: BTreeSet<i64> = self.not_held(now).into_iter().map(|item| item.id).collect();
        for item in self.waiting.iter_mut().filter(|item| !free.contains(&item.id)) {
            item.age_at = Age::at(now.monotonic);
        }
    }

    /// These were not told, for good. An end that waits for one of them is not told either; what waits and makes it worse is the
    /// beginning now; a beginning that nothing else stands for is untold. Nothing follows where only its getting worse failed:
    /// the recipient knows that it is open.
    fn beginning_failed(&mut self, recipient: &str, failed: &[Item]) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut begun: BTreeMap<Key, i64> = BTreeMap::new();
        for item in failed {
            match item.role {
                Role::Begin => drop(begun.insert(Key::of(&item.event), item.id)),
                Role::End => drop(begun.remove(&Key::of(&item.event))),
                Role::Worse | Role::Once => {}
            }
        }
        // The first that waits behind each of them.
        let mut next: BTreeMap<Key, (i64, Role)> = BTreeMap::new();
        for item in self.waiting.iter().filter(|item| item.role != Role::Once) {
            let key = Key::of(&item.event);
            if begun.get(&key).is_some_and(|begun| item.id > *begun) {
                next.entry(key).or_insert((item.id, item.role));
            }
        }
        let mut dropped = BTreeSet::new();
        for key in begun.into_keys() {
            match next.get(&key) {
                Some((item, Role::End)) => {
                    dropped.insert(*item);
                    let why = "its beginning could not be told".to_owned();
                    changes.push(Change::Dropped { item: *item, why });
                }
                Some((item, Role::Worse)) => {
                    let worse = self.waiting.iter_mut().find(|waiting| waiting.id == *item);
                    worse.expect("it was found").role = Role::Begin;
                    changes.push(Change::Begins { item: *item });
                }
                Some(_) => {}
                None => changes.push(Change::Untold { recipient: recipient.to_owned(), key }),
            }
        }
        self.waiting.retain(|item| !dropped.contains(&item.id));
        changes
    }
}

/// Whether what was at worst this bad waits for the end of the quiet hours.
fn hushed(quiet: Option<&Quiet>, worst: Severity) -> Option<Hold> {
    quiet.filter(|quiet| worst < quiet.except()).map(|quiet| Hold::Quiet(quiet.to_string()))
}

/// One story per key, and one per single event: what is open first, then by severity, then by time. At most `most`.
fn fold(items: &[&Item], most: usize) -> (Vec<Story>, Vec<Source>) {
    let mut keys: BTreeMap<Key, Vec<&Item>> = BTreeMap::new();
    let mut sketches = Vec::new();
    for &item in items {
        match item.role {
            Role::Once => sketches.push(Sketch::of_one(item)),
            Role::Begin | Role::Worse | Role::End => keys.entry(Key::of(&item.event)).or_default().push(item),
        }
    }
    sketches.extend(keys.into_values().map(Sketch::of_one_key));
    sketches.sort_by_key(Sketch::place);
    sketches.truncate(most);
    sketches.into_iter().map(Sketch::folded).collect()
}

/// A story that is not written out yet: thousands may wait while a message has room for a few.
struct Sketch<'a> {
    mark: Mark,
    /// At least one, in the order of time.
    items: Vec<&'a Item>,
    worst: Severity,
    outages: usize,
}

impl<'a> Sketch<'a> {
    fn of_one(item: &'a Item) -> Self {
        Self { mark: Mark::Once, items: vec![item], worst: item.event.top_severity, outages: 1 }
    }

    /// Beginnings and ends of one key.
    fn of_one_key(items: Vec<&'a Item>) -> Self {
        let ends = items.iter().filter(|item| item.role == Role::End).count();
        let knew = matches!(items[0].role, Role::End | Role::Worse);
        let (mark, outages) = match items[items.len() - 1].role {
            Role::End if knew => (Mark::Ended, ends),
            Role::End => (Mark::Passed, ends),
            // It is open now. What they knew of before that only counts if nothing else does.
            _ if knew => (Mark::Began, ends.max(1)),
            _ => (Mark::Began, ends + 1),
        };
        let worst = items.iter().map(|item| item.event.top_severity).max().unwrap_or(Severity::Debug);
        Self { mark, items, worst, outages }
    }

    fn last(&self) -> &'a Event {
        &self.items[self.items.len() - 1].event
    }

    fn place(&self) -> (bool, Reverse<Severity>, UnixMillis, i64) {
        let last = self.last();
        let over = matches!(self.mark, Mark::Passed | Mark::Ended);
        (over, Reverse(self.mark.severity(last, self.worst)), self.mark.happened(last), self.items[0].id)
    }

    fn folded(self) -> (Story, Source) {
        let event = Event { top_severity: self.worst, ..self.last().clone() };
        let outages = u32::try_from(self.outages).unwrap_or(u32::MAX);
        let begins = self.mark == Mark::Began && self.items.iter().any(|item| item.role == Role::Begin);
        let items = self.items.iter().map(|item| item.id).collect();
        (Story { mark: self.mark, event, outages, told_in: None }, Source { items, begins })
    }
}
