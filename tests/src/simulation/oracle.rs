//! What must be so once everything has come to rest, worked out from the world and not from the engine.

use super::history::{History, clock};
use super::judge::{Judge, Shadow};
use super::plan::Judging;
use super::world::Host;
use common::message::{Delivery, DownRow, ServerRow};
use common::subscriber::{Cursor, Want};
use common::time::UnixMillis;
use std::collections::{BTreeMap, BTreeSet};

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
    let disputed = |key: &Key| (clocks_differ && key.1 == "clock") || between(key);
    for (who, reader) in &history.notifier.readers {
        let selection = history.notifier.who[who].selection.as_ref().expect("everybody selects something");
        let on_record = |address: &str| history.notifier.gave_up(who, address);
        for (key, row) in open.iter().filter(|(key, _)| !disputed(key)) {
            let kept_back = row.silenced || row.unreachable || row.acked;
            let wanted = selection.wants(row.severity, &row.address) && !kept_back;
            if wanted && !reader.open.contains_key(key) && !on_record(&key.0) {
                wrong.push(format!("{who} was not told of {} [{}], which is open since {}", key.0, key.1, row.since));
            }
        }
        let over = reader.open.keys().filter(|key| !open.contains_key(*key) && !disputed(key));
        for key in over.filter(|key| !on_record(&key.0)) {
            wrong.push(format!("{who} was told of {} [{}], but not that it is over", key.0, key.1));
        }
        let known: BTreeSet<Key> = process
            .desk
            .told_open()
            .filter(|(recipient, ..)| recipient == who)
            .map(|(_, address, rule)| (address.to_string(), rule.to_owned()))
            .collect();
        for key in known.iter().filter(|key| !reader.open.contains_key(*key) && !on_record(&key.0)) {
            wrong.push(format!("told-state says that {who} knows of {} [{}], but they do not", key.0, key.1));
        }
        for key in reader.open.keys().filter(|key| !known.contains(*key) && !on_record(&key.0)) {
            wrong.push(format!("{who} knows of {} [{}], but told-state does not say so", key.0, key.1));
        }
    }
    if process.desk.waiting() > 0 {
        wrong.push(format!("{} events wait for media that work", process.desk.waiting()));
    }
    if !history.cut && history.all_feeds_run() && wrong.is_empty() {
        wrong.extend(events_told(history));
    }
    wrong
}

/// What is neither a beginning nor an end is told as well.
fn events_told(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(reader) = history.notifier.readers.get("ops") else { return wrong };
    let selects_all = history.notifier.who["ops"].selection == Some(super::notifier::selection(0));
    if !selects_all || !history.ops_selects_all || !history.silences.is_empty() {
        return wrong;
    }
    for text in history.logs.iter().filter(|text| !reader.logs.contains_key(*text)) {
        let given_up = |state: Delivery| matches!(state, Delivery::Failed | Delivery::Dropped);
        let rows = history.notifier.ledger("ops");
        if !rows.iter().any(|row| row.text == **text && given_up(row.state)) {
            wrong.push(format!("ops was not told of the event {text:?}"));
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
