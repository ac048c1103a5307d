//! What must be so once everything has come to rest, worked out from the world and not from the engine.

use super::history::{History, clock};
use super::judge::{Judge, Shadow};
use super::notifier::{Heard, Reader, opened_as};
use super::plan::{Judging, RECIPIENTS};
use super::wish::Wish;
use super::world::Host;
use common::message::{Delivery, DownRow, Kind, LedgerRow, ServerRow};
use common::severity::Severity;
use common::subscriber::{Cursor, Want};
use common::time::UnixMillis;
use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What an incident must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Open,
    Closed,
    /// The world does not say.
    Either,
}

type Key = (String, String);

/// The open incidents of each cprocessd are the truth of the world.
pub fn judged(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    for (judge, open) in history.judges.iter().zip(history.open_by_judge()) {
        let Some(process) = &judge.process else { continue };
        let mut expected: BTreeMap<Key, Expected> = BTreeMap::new();
        for host in history.hosts.iter().filter(|host| history.setup.follows(judge.at, host.feed)) {
            let feed_runs = history.owner(host.feed).running;
            expect_of_host(host, feed_runs, process.engine.knows(&host.name), &mut expected);
        }
        expect_of_clocks(history, judge, &mut expected);
        for (key, must) in &expected {
            let is_open = open.contains_key(key);
            if (*must == Expected::Open && !is_open) || (*must == Expected::Closed && is_open) {
                let expected = if is_open { "closed" } else { "open" };
                wrong.push(format!("{}: {} [{}] must be {expected}, and is not", judge.name, key.0, key.1));
            }
        }
        wrong.extend(reached(history, judge, &open));
        for key in open.keys().filter(|key| !expected.contains_key(*key)) {
            wrong.push(format!("{}: {} [{}] is open, of which the world knows nothing", judge.name, key.0, key.1));
        }
    }
    wrong
}

/// What every process depends on, and what that does.
const WEB: [&str; 2] = ["web1!port:www", "web1!alive:"];

/// What is open behind something that is down cannot be reached: what a host has, what is heard over it alone, and what
/// depends on it by the one pattern of the settings.
fn reached(history: &History, judge: &Judge, open: &BTreeMap<Key, DownRow>) -> Vec<String> {
    let mut wrong = Vec::new();
    let is_open = |address: &str| open.contains_key(&(address.to_owned(), "check".to_owned()));
    let is_down = |host: &Host| is_open(&format!("{}!alive:", host.name));
    for (key, row) in open {
        let Some(host) = history.hosts.iter().find(|host| key.0.starts_with(&format!("{}!", host.name))) else {
            continue;
        };
        let owner = history.owner(host.feed);
        let is_alive = key.0 == format!("{}!alive:", host.name);
        let by_pattern = key.0.contains("!process:") && WEB.iter().any(|on| is_open(on));
        let must = (is_down(host) && !is_alive) || (is_down(owner) && !host.owns_feed) || by_pattern;
        if row.unreachable != must {
            let not = if must { "cannot" } else { "can" };
            wrong.push(format!("{}: {} [{}] {not} be reached, which it does not say", judge.name, key.0, key.1));
        }
    }
    wrong
}

fn expect_of_host(host: &Host, feed_runs: bool, is_known: bool, expected: &mut BTreeMap<Key, Expected>) {
    use Expected::{Closed, Either, Open};
    let alive = match (host.running, feed_runs) {
        (true, true) => Closed,
        // Nobody told of it.
        _ if !is_known => Closed,
        (false, true) => Open,
        (_, false) if host.owns_feed => Open,
        // What it was when it was last seen.
        (_, false) => Either,
    };
    expected.insert((format!("{}!alive:", host.name), "check".into()), alive);
    let is_seen = host.running && feed_runs;
    for (i, thing) in host.things.iter().enumerate() {
        let key = |rule: &str| (thing.address.to_string(), rule.to_owned());
        let check = match (thing.listed, thing.reports) {
            _ if !is_seen => Either,
            // A plugin is kept; a check that hangs is what it was, if that was confirmed.
            (true, false) => match host.reported_up(i) {
                Some(true) if !thing.has_flapped => Closed,
                _ => Either,
            },
            // Only what is configured can leave.
            (false, _) => Closed,
            (true, true) if thing.up => Closed,
            (true, true) => Open,
        };
        expected.insert(key("check"), check);
        if thing.is_configured {
            let silent = match (thing.listed, thing.reports) {
                (false, _) if feed_runs && host.running => Closed,
                _ if !is_seen => Either,
                (true, false) if host.reported_up(i).is_some() => Open,
                // Its ccollectd has lost its state: who knew of it misses it, others do not.
                (true, false) => Either,
                _ => Closed,
            };
            expected.insert(key("silent"), silent);
        }
        if thing.address.to_string() == "web1!backup:nightly" {
            // Its ccollectd goes on saying what it said last; nothing, if that was nothing.
            let absent = match (is_seen, host.reported_up(i)) {
                (true, Some(_)) => Closed,
                _ => Open,
            };
            expected.insert(key("backup"), absent);
        }
    }
    for (number, rule) in host.numbers.iter().zip(["disk full", "queue long"]) {
        let must = match number.zone {
            _ if !is_seen => Either,
            0 => Closed,
            1 => Either,
            _ => Open,
        };
        expected.insert((number.address.to_string(), rule.to_owned()), must);
    }
}

/// Whose clock is wrong, by how far each that is heard is ahead of that of who judges: most of three or more by the same is
/// the fault of who judges.
fn expect_of_clocks(history: &History, judge: &Judge, expected: &mut BTreeMap<Key, Expected>) {
    let limit = i64::try_from(judge.settings.defaults.clock_skew.as_millis()).expect("a short time");
    let of = |ahead: i64| match ahead.abs() {
        off if off > limit => Expected::Open,
        off if off <= limit / 2 => Expected::Closed,
        _ => Expected::Either,
    };
    let followed = || history.hosts.iter().filter(|host| history.setup.follows(judge.at, host.feed));
    let (heard, unheard): (Vec<_>, Vec<_>) =
        followed().partition(|host| host.running && history.owner(host.feed).running);
    let ahead = |host: &Host| host.clock - judge.clock;
    let mut wrong: Vec<i64> = heard.iter().map(|host| ahead(host)).filter(|ahead| ahead.abs() > limit).collect();
    wrong.sort_unstable();
    let median = wrong.get(wrong.len() / 2).copied().unwrap_or(0);
    let alike = wrong.iter().filter(|ahead| (*ahead - median).abs() <= limit).count();
    let doubtful = heard.iter().any(|host| of(ahead(host)) == Expected::Either);
    let is_ours = heard.len() >= 3 && alike * 2 > heard.len();
    let own = match (is_ours, doubtful) {
        (_, true) => Expected::Either,
        (true, _) => Expected::Open,
        (false, _) => Expected::Closed,
    };
    expected.insert((judge.settings.own.to_string(), "clock".into()), own);
    let off = if is_ours { median } else { 0 };
    for host in heard {
        let agrees_with_ours = is_ours && of(ahead(host)) != Expected::Open;
        let must = if doubtful || agrees_with_ours { Expected::Either } else { of(ahead(host) - off) };
        expected.insert((format!("{}!alive:", host.name), "clock".into()), must);
    }
    for host in unheard {
        expected.insert((format!("{}!alive:", host.name), "clock".into()), Expected::Either);
    }
}

/// Every entry has reached everybody, and everybody waits for the next.
pub fn followed(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |who: String, want: &Want, waiting: usize, cursor: &Cursor, epoch, head| {
        let at_head = cursor.epoch.as_ref() == Some(epoch) && cursor.seq == head;
        if *want != Want::Message || waiting > 0 || !at_head {
            wrong.push(format!(
                "{who} is at {cursor:?} and wants {want:?}, but the journal is {epoch} with {head} entries"
            ));
        }
    };
    for judge in &history.judges {
        let Some(process) = &judge.process else { continue };
        for (feed, following) in process.feeds.iter().filter(|(feed, _)| history.owner(**feed).running) {
            let source = &history.feeds[*feed];
            let who = format!("{} after feed {feed}", judge.name);
            let follower = &following.follower;
            check(who, follower.want(), following.inbox.len(), follower.cursor(), &source.epoch, source.head());
        }
    }
    if let Some(process) = &history.notifier.process {
        for (judge, following) in &process.streams {
            let disk = &history.judges[*judge].disk;
            let who = format!("the notifier after {}", history.judges[*judge].name);
            let follower = &following.follower;
            check(who, follower.want(), following.inbox.len(), follower.cursor(), &disk.epoch, disk.head());
        }
    }
    wrong.extend(logged(history));
    wrong
}

/// Each log event is in each journal once, and was read once by each who selects it.
fn logged(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    for judge in &history.judges {
        for (text, count) in judge.logs.iter().filter(|(_, count)| **count > 1) {
            wrong.push(format!("{} said {text:?} {count} times", judge.name));
        }
    }
    for (who, reader) in &history.notifier.readers {
        for (text, count) in reader.logs.iter().filter(|(_, count)| **count > 1) {
            wrong.push(format!("{who} read {text:?} {count} times"));
        }
    }
    if history.cut || !history.all_feeds_run() {
        return wrong;
    }
    for text in &history.logs {
        if !history.judges.iter().any(|judge| judge.logs.contains_key(text)) {
            wrong.push(format!("the event {text:?} of a feed's journal is in no stream"));
        }
    }
    wrong
}

/// DESIGN 7.5, for each recipient.
pub fn told(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut open: BTreeMap<Key, DownRow> = BTreeMap::new();
    for rows in history.open_by_judge() {
        for (key, row) in rows {
            // The worst of those who say so.
            match open.get_mut(&key) {
                Some(other) => {
                    other.severity = other.severity.max(row.severity);
                    // Who missed the order tells of it.
                    other.silenced |= row.silenced;
                    other.unreachable |= row.unreachable;
                    other.acked |= row.acked;
                }
                None => drop(open.insert(key, row)),
            }
        }
    }
    let Some(process) = &history.notifier.process else { return wrong };
    // Two whose own clocks differ say each the truth about the same clock, and the last word counts.
    let clocks_differ = history.judges.iter().any(|judge| judge.clock != history.judges[0].clock);
    // A value between limit and clear is what it was, and samples may be lost by one of two.
    let judges = history.open_by_judge();
    let only_one_says =
        |key: &Key| history.setup.judging == Judging::Redundant && judges.iter().any(|open| !open.contains_key(key));
    let between = |key: &Key| ["disk full", "queue long"].contains(&key.1.as_str()) && only_one_says(key);
    // One of two has said the end and then lost its state; the other missed that end, and the feed is silent by now.
    let silent = |host: &Host| !host.running || !history.owner(host.feed).running;
    let of_silent =
        |key: &Key| history.hosts.iter().any(|host| silent(host) && key.0.starts_with(&format!("{}!", host.name)));
    let forgotten = |key: &Key| history.forgotten && of_silent(key) && only_one_says(key);
    let disputed = |key: &Key| (clocks_differ && key.1 == "clock") || between(key) || forgotten(key);
    for (who, reader) in &history.notifier.readers {
        let waits = Waits::of(history, who, reader);
        let wish = waits.wish;
        let on_record = |address: &str| history.notifier.gave_up(who, address);
        for (key, row) in open.iter().filter(|(key, _)| !disputed(key)) {
            let kept_back = row.silenced || row.unreachable || row.acked;
            let selected = wish.selects_place(row.severity, &key.0) && wish.selects_kind(opened_as(&key.1));
            let wanted = selected && !kept_back;
            let waits = || waits.for_now(&key.0) && waits.may_begin_later(row);
            if wanted && !reader.open.contains_key(key) && !waits() && !on_record(&key.0) {
                wrong.push(format!("{who} was not told of {} [{}], which is open since {}", key.0, key.1, row.since));
            }
        }
        let over = reader.open.keys().filter(|key| !open.contains_key(*key) && !disputed(key));
        for key in over.filter(|key| !waits.for_now(&key.0) && !on_record(&key.0)) {
            wrong.push(format!("{who} was told of {} [{}], but not that it is over", key.0, key.1));
        }
        let known: BTreeSet<Key> = process
            .desk
            .told_open()
            .filter(|(recipient, ..)| recipient == who)
            .map(|(_, address, rule)| (address.to_string(), rule.to_owned()))
            .collect();
        let apart = |key: &&Key| !waits.for_now(&key.0) && !on_record(&key.0);
        for key in known.iter().filter(|key| !reader.open.contains_key(*key)).filter(apart) {
            wrong.push(format!("told-state says that {who} knows of {} [{}], but they do not", key.0, key.1));
        }
        for key in reader.open.keys().filter(|key| !known.contains(*key)).filter(apart) {
            wrong.push(format!("{who} knows of {} [{}], but told-state does not say so", key.0, key.1));
        }
        if process.desk.waiting() > 0 {
            wrong.extend(waits.needlessly().map(|row| {
                format!("{} {} waits for nothing, to be told to {who}: {:?}", row.address, row.kind, row.result)
            }));
        }
    }
    if wrong.is_empty() {
        wrong.extend(accounted(history));
    }
    if !history.cut && history.all_feeds_run() && wrong.is_empty() {
        wrong.extend(events_told(history));
    }
    wrong
}

/// What waits is told within this once nothing keeps it back: a look at what is open takes up to 30 s and gathering 8.
pub const RELEASED_WITHIN_MS: u64 = 45_000;

/// What waits for one recipient, and what it may wait for.
struct Waits<'a> {
    history: &'a History,
    who: &'a str,
    wish: &'a Wish,
    reader: &'a Reader,
    rows: LazyCell<Vec<LedgerRow>, Box<dyn FnOnce() -> Vec<LedgerRow> + 'a>>,
}

impl<'a> Waits<'a> {
    fn of(history: &'a History, who: &'a str, reader: &'a Reader) -> Self {
        let rows = move || {
            let waits = |row: &LedgerRow| matches!(row.state, Delivery::Waiting | Delivery::Sending);
            history.notifier.ledger(who).into_iter().filter(waits).collect()
        };
        let wish = history.notifier.wishes[who].last().expect("one at least");
        Self { history, who, wish, reader, rows: LazyCell::new(Box::new(rows)) }
    }

    /// Whether the ledger says that something of this address waits.
    fn for_now(&self, address: &str) -> bool {
        self.rows.iter().any(|row| row.address.to_string() == address)
    }

    fn now(&self) -> UnixMillis {
        self.history.notifier.wall(self.history.at)
    }

    /// Whether it is quiet for what was this bad, or was until just now.
    fn hushed(&self, worst: Severity) -> bool {
        let now = self.now();
        let before = (0..=RELEASED_WITHIN_MS / 1000).map(|secs| now.minus(Duration::from_secs(secs)));
        !self.wish.quiet.is_empty() && before.into_iter().any(|moment| self.wish.hushes(worst, moment))
    }

    /// Until when a bucket or a cap holds up what waits.
    fn paced(&self) -> bool {
        let before = self.history.at.saturating_sub(RELEASED_WITHIN_MS);
        self.history.notifier.paced_until(before, self.who).is_some()
    }

    /// How long it is still too early to tell of what is open since then.
    fn too_early_ms(&self, since: UnixMillis) -> Option<u64> {
        let after = self.wish.after? * 1000;
        after.checked_sub(self.now().millis_since(since)).filter(|left| *left > 0)
    }

    fn may_begin_later(&self, row: &DownRow) -> bool {
        let early = self.wish.after.is_some_and(|after| {
            self.now().millis_since(row.since) < after * 1000 + RELEASED_WITHIN_MS
                || self.history.notifier.clocks_differ
        });
        // Who hears of what lasts does so once nothing else speaks against it.
        let kept_back = row.silenced || row.unreachable || row.acked && self.wish.unless_acked;
        let kept_back = self.wish.after.is_some() && kept_back;
        early || kept_back || self.hushed(row.severity) || self.paced()
    }

    /// What nothing holds back.
    fn needlessly(&self) -> impl Iterator<Item = &LedgerRow> {
        let may_be_early = self.wish.after.is_some();
        self.rows.iter().filter(move |row| {
            let (incident, address) = (row.incident.to_string(), row.address.to_string());
            // Only an end has the worst of the incident, which is another for who judges by another clock.
            let ends = matches!(row.kind, Kind::Up | Kind::Solved | Kind::Retired);
            let ends = ends && !self.history.notifier.clocks_differ;
            let read = self.reader.open.values().filter(|(known, ..)| ends && *known == incident);
            let read = read.map(|(_, worst, _)| *worst);
            let hushed = self.hushed(read.fold(row.severity, Severity::max));
            // It may have come just now.
            let is_new = self.now().millis_since(row.queued) < 10_000;
            !(is_new || self.paced() || hushed || may_be_early && self.is_early(&address))
        })
    }

    /// Whether what waits of this address has not lasted for long enough, or is kept back. What is over by now is of an earlier
    /// outage, and told with this one.
    fn is_early(&self, address: &str) -> bool {
        let mut rows = self.history.open_by_judge().into_iter().flat_map(BTreeMap::into_values);
        rows.any(|row| row.address.to_string() == address && self.may_begin_later(&row))
    }
}

/// When something that waits for its time may go, in the time of the history.
pub fn holds(history: &History) -> Vec<u64> {
    let mut until = Vec::new();
    if history.notifier.process.as_ref().is_none_or(|process| process.desk.waiting() == 0) {
        return until;
    }
    for (who, reader) in &history.notifier.readers {
        let waits = Waits::of(history, who, reader);
        if waits.rows.is_empty() {
            continue;
        }
        let now = waits.now();
        let quiet = waits.wish.wakes(now).map(|wakes| history.at + wakes.millis_since(now));
        let early = history.open_by_judge().into_iter().flat_map(BTreeMap::into_values);
        let early = early.filter(|row| waits.rows.iter().any(|waiting| waiting.incident == row.incident));
        until.extend(early.filter_map(|row| Some(history.at + waits.too_early_ms(row.since)?)));
        until.extend(quiet.into_iter().chain(history.notifier.paced_until(history.at, who)));
    }
    until
}

/// Of everything that the notifier was handed, the ledger says for each recipient that they were told, or why not.
fn accounted(history: &History) -> Vec<String> {
    let Some(heard) = &history.notifier.heard else { return Vec::new() };
    let rows = history.notifier.whole_ledger();
    let mut known: BTreeSet<(&str, String)> = BTreeSet::new();
    // A second cprocessd, or one that has forgotten, tells of what is known under another name.
    let may_differ = history.judges.len() > 1 || history.cut || history.notifier.clocks_differ;
    for row in &rows {
        known.insert((&row.who, row.event.to_string()));
        if row.state != Delivery::Skipped {
            known.insert((&row.who, row.incident.to_string()));
            if may_differ {
                known.insert((&row.who, row.address.to_string()));
            }
        }
    }
    let lacks = |who: &str, Heard { event, incident, address }: &Heard| {
        [event, incident, address].into_iter().all(|name| !known.contains(&(who, name.clone())))
    };
    let of = |who: &'static str| heard.keys().filter(move |heard| lacks(who, heard)).map(move |heard| (who, heard));
    let lacking = RECIPIENTS.into_iter().flat_map(of);
    lacking.map(|(who, heard)| format!("the ledger does not say what became of {heard:?} for {who}")).collect()
}

/// What is neither a beginning nor an end is told as well, to who has selected it all the time.
fn events_told(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    if !history.silences.is_empty() || history.setup.window.is_some() {
        return wrong;
    }
    for (who, reader) in &history.notifier.readers {
        let [wish] = &history.notifier.wishes[who][..] else { continue };
        // They are errors of any host.
        let selects = wish.after.is_none() && wish.choice == 0 && wish.selects_kind(Kind::Log);
        for text in history.logs.iter().filter(|text| selects && !reader.logs.contains_key(*text)) {
            let accounts = |state: Delivery| !matches!(state, Delivery::Sent | Delivery::Skipped | Delivery::Other);
            let rows = history.notifier.ledger(who);
            if !rows.iter().any(|row| row.text == **text && accounts(row.state)) {
                wrong.push(format!("{who} was not told of the event {text:?}"));
            }
        }
    }
    wrong
}

/// An engine that starts from what is saved says nothing and answers the same, then and later.
pub fn restarted(history: &mut History) -> Vec<String> {
    let mut wrong = Vec::new();
    // An old entry may tell of a check behind a host that is away, which is unknown again after a restart.
    let away: BTreeSet<String> =
        history.hosts.iter().filter(|host| !host.running).map(|host| host.name.to_string()).collect();
    for judge in &mut history.judges {
        let feeds: Vec<usize> =
            (0..history.feeds.len()).filter(|feed| history.setup.follows(judge.at, *feed)).collect();
        let restored = judge.restored(&feeds);
        if let Some(process) = &mut judge.process {
            wrong.extend(differences(&judge.name, &process.engine, &restored, false, &away));
            process.shadow = Some(Shadow::new(restored));
        }
    }
    history.pass(25_000);
    for judge in &mut history.judges {
        if let Some(process) = &mut judge.process
            && let Some(shadow) = process.shadow.take()
        {
            let said = shadow.difference(history.at).map(|what| format!("{} {what}", judge.name));
            wrong.extend(said.or_else(|| differences(&judge.name, &process.engine, &shadow.engine, true, &away)));
        }
    }
    wrong.into_iter().map(|what| format!("{what} (at {})", clock(history.at))).collect()
}

fn differences(
    name: &str,
    ran: &cprocessd::engine::Engine,
    restored: &cprocessd::engine::Engine,
    heard: bool,
    away: &BTreeSet<String>,
) -> Option<String> {
    let (mut hosts, mut checks, open) = Judge::views(ran);
    let (mut hosts_now, mut checks_now, open_now) = Judge::views(restored);
    for checks in [&mut checks, &mut checks_now] {
        checks.retain(|row| !away.contains(row.host.as_str()));
    }
    if !heard {
        // Saved once a minute.
        for row in hosts.iter_mut().chain(&mut hosts_now) {
            row.last_seen = UnixMillis(0);
        }
    }
    let when = if heard { "25 s after a restart" } else { "after a restart" };
    if open != open_now {
        return Some(format!("{name} answers {open_now:?} {when}, and {open:?} without one"));
    }
    if checks != checks_now {
        let differ = checks.iter().zip(&checks_now).find(|(a, b)| a != b);
        return Some(format!("{name} has checks {differ:?} without and with a restart, {when}"));
    }
    let differ: Vec<(&ServerRow, &ServerRow)> = hosts.iter().zip(&hosts_now).filter(|(a, b)| a != b).collect();
    (hosts != hosts_now).then(|| format!("{name} has hosts {differ:?} without and with a restart, {when}"))
}
