//! Who is told beside those of the configuration: whom people subscribed at cprocessd, as far as they agreed. Pure: it is given
//! what the publishers say and the time.
//!
//! What the publishers list is the truth, and is asked for whenever an order about subscribers was heard. Only an end is taken
//! from the order itself, at its place in the stream: who has just unsubscribed is not told what comes after it. Of several
//! publishers the newest word counts. One that was away when somebody unsubscribed still lists them, as of a time before that,
//! and is not believed; one that cannot be reached changes nothing.
//!
//! Somebody who has not agreed yet is asked once for each time that they were subscribed, at most once a day, and all of
//! them together at most twenty in an hour: nobody is to be flooded through us.

use crate::address::Pattern;
use crate::message::{Event, EventId, Request, SubscriberRow, decode};
use crate::notifier::Selection;
use crate::severity::Severity;
use crate::time::UnixMillis;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Told or asked at most: those who agreed before those who did not yet, of the former the oldest first and of the latter the
/// newest, since the others had their question. For more people there are mailing lists.
const MAX_SUBSCRIBERS: usize = 500;
/// Remembered at most, those included who are gone. Beyond it, who is new is left out.
const MAX_KNOWN: usize = 10_000;
/// Nobody is asked again within this,
const ASKED_EVERY: Duration = Duration::from_hours(24);
/// and within this at most
const HOUR: Duration = Duration::from_hours(1);
/// so many are.
const ASKED_PER_HOUR: usize = 20;

/// Where somebody stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// They have not agreed yet.
    Pending,
    /// They are told.
    Confirmed,
    /// They are subscribed no longer.
    Gone,
}

impl Standing {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Standing::Pending => "pending",
            Standing::Confirmed => "confirmed",
            Standing::Gone => "gone",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Confirmed, Self::Gone].into_iter().find(|standing| standing.as_str() == text)
    }
}

/// What is known of somebody.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Subscriber {
    pub(crate) severity: Severity,
    pub(crate) pattern: Pattern,
    /// Who subscribed them, and when.
    pub(crate) author: String,
    pub(crate) since: UnixMillis,
    pub(crate) standing: Standing,
    /// The last order that ended it, and when. What is listed as of a time before that is over.
    pub(crate) removed: Option<(UnixMillis, EventId)>,
    /// When they were last asked.
    pub(crate) asked: Option<UnixMillis>,
}

impl Subscriber {
    fn is_over(&self, row: &SubscriberRow) -> bool {
        self.removed.is_some_and(|(removed, _)| row.since <= removed)
    }

    fn was_asked_within(&self, time: Duration, now: UnixMillis) -> bool {
        // By the distance, so that a clock that was put back does not silence us until it is there again.
        self.asked.is_some_and(|asked| now.since(asked).max(asked.since(now)) < time)
    }

    /// What they are told.
    pub(crate) fn selection(&self) -> Selection {
        Selection { only: vec![self.pattern.clone()], ..Selection::at_least(self.severity) }
    }
}

/// What an order about subscribers says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The publishers are to be asked.
    Changed,
    /// Somebody is to be told no longer, and the publishers are to be asked.
    Removed(String),
}

/// The order that an event carries; [`Event::read`] leaves it out.
pub(crate) fn order_in(payload: &[u8]) -> Option<Request> {
    #[derive(Deserialize)]
    struct Carrier {
        data: Request,
    }
    decode::<Carrier>(payload).ok().map(|carrier| carrier.data)
}

/// The state.
#[derive(Debug)]
pub(crate) struct Subscribers {
    via: &'static str,
    publishers: usize,
    /// What each publisher listed last.
    lists: BTreeMap<String, BTreeMap<String, SubscriberRow>>,
    known: BTreeMap<String, Subscriber>,
}

impl Subscribers {
    /// Goes on from what was kept. `via` is the medium, as subscribers name it.
    pub(crate) fn new(via: &'static str, publishers: usize, kept: BTreeMap<String, Subscriber>) -> Self {
        Self { via, publishers, lists: BTreeMap::new(), known: kept }
    }

    /// What an order says about subscribers of this medium, if it does; `event` is the one that it became. Where it ends a
    /// subscription, that holds at once.
    pub(crate) fn heard(&mut self, event: &Event, order: &Request) -> Option<Heard> {
        let name = order.name.as_ref().filter(|_| order.via.as_deref() == Some(self.via))?;
        match order.order.as_deref()? {
            "subscriber-remove" => {
                let Some(known) = self.known.get_mut(name) else { return Some(Heard::Changed) };
                // The same order, carried out by another cprocessd later.
                let is_copy = known.removed.is_some_and(|(_, id)| id == event.id);
                if is_copy || known.since > event.time {
                    return Some(Heard::Changed);
                }
                known.removed = Some((event.time, event.id));
                known.standing = Standing::Gone;
                Some(Heard::Removed(name.clone()))
            }
            "subscriber-add" | "subscriber-confirm" => Some(Heard::Changed),
            _ => None,
        }
    }

    /// What a publisher lists by now. Who changed by it, and how many there was no room for.
    pub(crate) fn listed(&mut self, publisher: &str, rows: Vec<SubscriberRow>) -> (Vec<String>, u64) {
        let ours = rows.into_iter().filter(|row| row.via == self.via);
        self.lists.insert(publisher.to_owned(), ours.map(|row| (row.name.clone(), row)).collect());
        let names: BTreeSet<String> =
            self.lists.values().flat_map(BTreeMap::keys).chain(self.known.keys()).cloned().collect();
        let (mut changed, mut left_out) = (Vec::new(), 0);
        for name in names {
            let before = self.known.get(&name);
            let rows = self.lists.values().filter_map(|list| list.get(&name));
            let rows: Vec<_> = rows.filter(|row| before.is_none_or(|known| !known.is_over(row))).collect();
            let newest = rows.iter().max_by_key(|row| row.since);
            let after = match (newest, before) {
                (Some(row), _) => {
                    let Ok(pattern) = row.pattern.parse() else { continue };
                    let agreed = rows.iter().any(|row| row.confirmed.is_some());
                    Subscriber {
                        severity: row.severity,
                        pattern,
                        author: row.author.clone(),
                        since: row.since,
                        standing: if agreed { Standing::Confirmed } else { Standing::Pending },
                        removed: before.and_then(|known| known.removed),
                        asked: before.and_then(|known| known.asked),
                    }
                }
                (None, Some(known)) if self.lists.len() >= self.publishers => {
                    Subscriber { standing: Standing::Gone, ..known.clone() }
                }
                (None, _) => continue,
            };
            if before == Some(&after) {
                continue;
            }
            if before.is_none() && self.known.len() >= MAX_KNOWN {
                left_out += 1;
                continue;
            }
            self.known.insert(name.clone(), after);
            changed.push(name);
        }
        (changed, left_out)
    }

    /// What is known of somebody.
    pub(crate) fn get(&self, name: &str) -> Option<&Subscriber> {
        self.known.get(name)
    }

    /// Those who are subscribed, agreed or not, as many as there is room for; and how many there are beside them.
    pub(crate) fn current(&self) -> (BTreeMap<&str, &Subscriber>, usize) {
        let all = self.known.iter().filter(|(_, known)| known.standing != Standing::Gone);
        let mut all: Vec<_> = all.map(|(name, known)| (name.as_str(), known)).collect();
        all.sort_by_key(|(_, known)| match known.standing {
            Standing::Confirmed | Standing::Gone => (false, known.since.0),
            Standing::Pending => (true, known.since.0.saturating_neg()),
        });
        let beside = all.len().saturating_sub(MAX_SUBSCRIBERS);
        all.truncate(MAX_SUBSCRIBERS);
        (all.into_iter().collect(), beside)
    }

    /// Who is to be asked now; they are taken to have been. Of those who `can` be, since not every name is an address.
    pub(crate) fn ask(&mut self, now: UnixMillis, can: impl Fn(&str) -> bool) -> Vec<String> {
        let waits = |known: &Subscriber| {
            known.standing == Standing::Pending && known.asked.is_none_or(|asked| asked < known.since)
        };
        if !self.known.values().any(waits) {
            return Vec::new();
        }
        let recently = self.known.values().filter(|known| known.was_asked_within(HOUR, now)).count();
        let Some(room) = ASKED_PER_HOUR.checked_sub(recently).filter(|room| *room > 0) else { return Vec::new() };
        // Most servers take a name in any case for the same mailbox.
        let mut asked: BTreeSet<String> = self
            .known
            .iter()
            .filter(|(_, known)| known.was_asked_within(ASKED_EVERY, now))
            .map(|(name, _)| name.to_lowercase())
            .collect();
        let (current, _) = self.current();
        let mut due: Vec<_> = current.into_iter().filter(|(name, known)| waits(known) && can(name)).collect();
        due.sort_by_key(|(_, known)| known.since);
        let due = due.into_iter().filter(|(name, _)| asked.insert(name.to_lowercase()));
        let due: Vec<String> = due.map(|(name, _)| name.to_owned()).take(room).collect();
        for name in &due {
            self.known.get_mut(name).expect("it is current").asked = Some(now);
        }
        due
    }

    /// Who need not be remembered any more: nobody lists them, and they may be asked again.
    pub(crate) fn forget(&mut self, now: UnixMillis) -> Vec<String> {
        if self.lists.len() < self.publishers {
            return Vec::new();
        }
        let lists = &self.lists;
        let old = self.known.extract_if(.., |name, known| {
            let is_listed = lists.values().any(|list| list.contains_key(name));
            known.standing == Standing::Gone && !is_listed && !known.was_asked_within(ASKED_EVERY, now)
        });
        old.map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::encode;
    use crate::query::to_value;
    use serde_json::json;

    const ANN: &str = "ann@example.org";
    const MINUTE: i64 = 60;

    /// Two publishers, or as many as are named; times are in seconds.
    struct Timeline {
        subscribers: Subscribers,
        rows: BTreeMap<&'static str, BTreeMap<String, SubscriberRow>>,
        orders: u32,
    }

    fn at(secs: i64) -> UnixMillis {
        UnixMillis(1_800_000_000_000 + secs * 1000)
    }

    impl Timeline {
        fn new(publishers: usize) -> Self {
            Self {
                subscribers: Subscribers::new("mail", publishers, BTreeMap::new()),
                rows: BTreeMap::new(),
                orders: 0,
            }
        }

        fn add(mut self, secs: i64, publisher: &'static str, name: &str) -> Self {
            let rows = self.rows.entry(publisher).or_default();
            let confirmed = rows.get(name).and_then(|row| row.confirmed);
            let row = SubscriberRow {
                name: name.to_owned(),
                via: "mail".to_owned(),
                severity: Severity::Err,
                pattern: "web*".to_owned(),
                author: "bob".to_owned(),
                since: at(secs),
                confirmed,
            };
            rows.insert(name.to_owned(), row);
            self.list(publisher)
        }

        fn agree(mut self, secs: i64, publisher: &'static str, name: &str) -> Self {
            let row = self.rows.get_mut(publisher).and_then(|rows| rows.get_mut(name)).expect("added");
            row.confirmed = Some(at(secs));
            self.list(publisher)
        }

        fn list(mut self, publisher: &'static str) -> Self {
            let rows = self.rows.get(publisher).cloned().unwrap_or_default();
            drop(self.subscribers.listed(publisher, rows.into_values().collect()));
            self
        }

        /// The event of the order that ends it, without the list that follows.
        fn ends(mut self, secs: i64, publisher: &'static str, name: &str, order: &str) -> Self {
            let payload = removal(secs, name, order);
            let (event, order) = (Event::read(&payload).expect("an event"), order_in(&payload).expect("an order"));
            assert!(self.subscribers.heard(&event, &order).is_some());
            if let Some(rows) = self.rows.get_mut(publisher) {
                rows.remove(name);
            }
            self
        }

        fn remove(mut self, secs: i64, publisher: &'static str, name: &str) -> Self {
            self.orders += 1;
            let order = format!("order {}", self.orders);
            self.ends(secs, publisher, name, &order).list(publisher)
        }

        fn asks(&mut self, secs: i64) -> Vec<String> {
            self.subscribers.ask(at(secs), |_| true)
        }

        fn standing(&self) -> Option<&'static str> {
            self.subscribers.get(ANN).map(|known| known.standing.as_str())
        }
    }

    /// The event of an order, as it is published.
    fn removal(secs: i64, name: &str, order: &str) -> Vec<u8> {
        let mut event: Event = serde_json::from_value(json!({
            "epoch": "00000000-0000-4000-8000-0000000000ee", "seq": 1, "nth": 1,
            "id": EventId::of_origin(order, "order").to_string(), "incident": "00000000-0000-4000-8002-000000000001",
            "kind": "order", "address": "mon!cprocessd:", "host": "mon", "service": "cprocessd", "unit": "",
            "severity": "INFO", "top_severity": "INFO", "state": "resolved", "since": at(secs).0, "time": at(secs).0,
            "text": "", "rule": "order",
        }))
        .expect("an event");
        let (name, via) = (Some(name.to_owned()), Some("mail".to_owned()));
        event.data = Some(to_value(&Request { name, via, ..Request::order("subscriber-remove") }));
        encode(&event)
    }

    #[test]
    fn what_is_no_order_about_subscribers_is_none() {
        let mut subscribers = Subscribers::new("mail", 1, BTreeMap::new());
        let payload = removal(0, ANN, "1");
        let (event, order) = (Event::read(&payload).expect("an event"), order_in(&payload).expect("an order"));
        assert_eq!(subscribers.heard(&event, &order), Some(Heard::Changed));
        for other in [
            Request { via: Some("irc".to_owned()), ..order.clone() },
            Request { name: None, ..order.clone() },
            Request { order: Some("reload".to_owned()), ..order },
        ] {
            assert_eq!(subscribers.heard(&event, &other), None);
        }
        assert_eq!(order_in(b"\xc1"), None);
        assert_eq!(order_in(&encode(&json!({ "kind": "order", "data": 5 }))), None);
    }

    #[test]
    fn somebody_is_asked_once_told_when_they_agree_and_no_more_when_they_leave() {
        let mut timeline = Timeline::new(1).add(0, "a", ANN);
        assert_eq!((timeline.standing(), timeline.asks(1)), (Some("pending"), vec![ANN.to_owned()]));
        assert!(timeline.asks(2).is_empty() && timeline.asks(30 * 24 * 60 * MINUTE).is_empty(), "once");
        let mut timeline = timeline.agree(3, "a", ANN);
        assert_eq!(timeline.standing(), Some("confirmed"));
        let selection = timeline.subscribers.get(ANN).expect("known").selection();
        assert!(selection.wants(Severity::Err, &"web1!port:x".parse().expect("address")));
        assert!(!selection.wants(Severity::Warn, &"web1!port:x".parse().expect("address")));
        assert!(!selection.wants(Severity::Err, &"db1!port:x".parse().expect("address")));
        assert!(timeline.asks(4).is_empty());
        let timeline = timeline.remove(5, "a", ANN);
        assert_eq!(timeline.standing(), Some("gone"));
        assert!(timeline.subscribers.current().0.is_empty());
    }

    #[test]
    fn somebody_is_asked_at_most_once_a_day_however_often_they_are_subscribed() {
        let mut timeline = Timeline::new(1);
        let mut asked = Vec::new();
        for hour in 0..72 {
            let secs = hour * 60 * MINUTE;
            let other = if hour % 2 == 0 { ANN.to_owned() } else { ANN.to_uppercase() };
            timeline = timeline.add(secs, "a", &other).remove(secs + 1, "a", &other).add(secs + 2, "a", &other);
            if !timeline.asks(secs + 3).is_empty() {
                asked.push(hour);
            }
            timeline.subscribers.forget(at(secs + 4));
        }
        assert_eq!(asked, [0, 24, 48]);
    }

    #[test]
    fn an_hour_sees_twenty_questions_and_the_rest_come_later() {
        let mut timeline = Timeline::new(1);
        for n in 0..45 {
            timeline = timeline.add(0, "a", &format!("x{n}@example.org"));
        }
        let asked: Vec<usize> = (0..5).map(|half| timeline.asks(half * 30 * MINUTE + 1).len()).collect();
        assert_eq!(asked, [20, 0, 20, 0, 5]);
        assert_eq!(timeline.subscribers.ask(at(0), |_| false).len(), 0);
    }

    #[test]
    fn who_unsubscribed_is_believed_before_a_publisher_that_was_away() {
        let both =
            |timeline: Timeline| timeline.add(0, "a", ANN).add(0, "b", ANN).agree(1, "a", ANN).agree(1, "b", ANN);
        // `b` did not hear of it.
        let timeline = both(Timeline::new(2)).remove(5, "a", ANN).list("b");
        assert_eq!(timeline.standing(), Some("gone"));
        // Nor does a list that was on its way, or the same order at the other one, a day later, undo what came between.
        let timeline = timeline.add(10, "a", ANN).agree(11, "a", ANN).ends(90, "b", ANN, "order 1").list("b");
        assert_eq!(timeline.standing(), Some("confirmed"));
        // An older order that comes late.
        let timeline = timeline.ends(9, "b", ANN, "another").list("b");
        assert_eq!(timeline.standing(), Some("confirmed"));
        assert_eq!(timeline.remove(12, "a", ANN).standing(), Some("gone"));
    }

    #[test]
    fn a_publisher_that_says_nothing_changes_nothing() {
        let kept = Timeline::new(2).add(0, "a", ANN).agree(1, "a", ANN).subscribers.known;
        let mut timeline = Timeline { subscribers: Subscribers::new("mail", 2, kept), ..Timeline::new(2) };
        assert_eq!(timeline.standing(), Some("confirmed"), "after a restart");
        timeline = timeline.list("b");
        assert_eq!(timeline.standing(), Some("confirmed"), "a has not spoken");
        timeline = timeline.list("a");
        assert_eq!(timeline.standing(), Some("gone"), "nobody knows them");
        assert_eq!(timeline.subscribers.forget(at(2)), [ANN]);
        assert_eq!(timeline.standing(), None);
    }

    #[test]
    fn one_who_is_subscribed_at_either_is_one_and_the_newest_wish_counts() {
        let timeline = Timeline::new(2).add(0, "a", ANN).agree(1, "a", ANN).add(7, "b", ANN);
        assert_eq!(timeline.standing(), Some("confirmed"), "they have agreed");
        assert_eq!(timeline.subscribers.get(ANN).map(|known| known.since), Some(at(7)));
        assert_eq!(timeline.subscribers.current().0.len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut subscribers = Subscribers::new("mail", 1, BTreeMap::new());
        let row = |n: i64| SubscriberRow {
            name: format!("x{n}@example.org"),
            via: if n == 0 { "irc".to_owned() } else { "mail".to_owned() },
            severity: Severity::Err,
            pattern: "*".to_owned(),
            author: "bob".to_owned(),
            since: at(n),
            confirmed: None,
        };
        let (changed, left_out) = subscribers.listed("a", (0..=10_005).map(row).collect());
        assert_eq!((changed.len(), left_out), (MAX_KNOWN, 5));
        let (current, beside) = subscribers.current();
        assert_eq!((current.len(), beside), (MAX_SUBSCRIBERS, MAX_KNOWN - MAX_SUBSCRIBERS));
        assert!(current.contains_key("x10005@example.org") && !current.contains_key("x1@example.org"));
        // Who has agreed goes before all of them, however long ago.
        drop(subscribers.listed("a", vec![SubscriberRow { confirmed: Some(at(1)), ..row(1) }, row(2)]));
        assert!(subscribers.current().0.contains_key("x1@example.org"));
        let mut subscribers = Subscribers::new("mail", 1, BTreeMap::new());
        let agreed = |n: i64| SubscriberRow { confirmed: Some(at(n)), ..row(n) };
        drop(subscribers.listed("a", (1..=500).map(agreed).chain((501..=600).map(row)).collect()));
        let (current, beside) = subscribers.current();
        assert!(current.values().all(|known| known.standing == Standing::Confirmed) && beside == 100);
    }
}
