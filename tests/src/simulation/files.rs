//! A short history on real SQLite, whose files are then found as a power cut may leave them: the write-ahead log cut off, or torn
//! in the middle. What was committed before that place must be there and nothing of what came after it; and whoever goes on
//! from there, with the same feed, must come to the same journal. Where the files show that more was committed than they
//! hold, they are set aside, that is said, and what goes on under another epoch finds what is down.

use super::history::settings;
use super::judge::{Judge, input};
use super::plan::{Judging, Setup};
use super::rng::Rng;
use super::wish::{Limits, Wish};
use super::world::{self, Feed, FeedMessage, Host, wall};
use common::database;
use common::journal::{After, Journal, Retention};
use common::message::{Event, decode};
use common::subscriber::{Cursor, Place};
use cprocessd::engine::{Engine, Input, Now, Output, Saved};
use cprocessd::store::{self, Progress};
use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Few enough commits that SQLite never moves its log into the database, whose end would be another.
const SECONDS: usize = 40;
/// Nothing changes after this, and everything is observed again by the end.
const CHANGES: usize = 28;

/// Where the log is damaged.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// It ends there.
    CutOff(u64),
    /// It is as long as it was, but from there on a sector holds something else.
    Torn(u64),
}

/// What was in the files after a commit.
struct Committed {
    log_bytes: u64,
    head: u64,
    saved: Vec<Saved>,
    cursor: Option<Cursor>,
}

struct Run {
    setup: Setup,
    feed: String,
    /// What the feed published, second by second.
    published: Vec<Vec<Rc<FeedMessage>>>,
}

/// Plays the history of this seed, damages its files in so many ways, and says what is wrong.
pub fn survive(seed: u64, damages: u32, folder: &Path) -> Result<(), String> {
    let mut rng = Rng::new(seed ^ 0xf11e);
    let setup = Setup {
        seed,
        judging: Judging::One,
        feeds: 1,
        relayed: true,
        retention: 1_000_000,
        give_up_after: Duration::from_hours(24),
        twins: false,
        begins: 0,
        wishes: [0, 1, 2].map(Wish::plain),
        limits: Limits::default(),
        window: None,
        hasty: false,
        audited: false,
    };
    let published = world_of(&mut rng);
    let run = Run { setup, feed: Judge::feed_name(0), published };
    let whole = folder.join("whole.db");
    let mut commits = Vec::new();
    let mut journal = open(&whole)?;
    run.go_on(&mut journal, 0, |journal| {
        let (saved, _) = store::load(journal.db()).map_err(|error| error.to_string())?;
        let cursor = store::cursor(journal.db(), &run.feed).map_err(|error| error.to_string())?;
        let log_bytes = log_of(&whole).metadata().map_err(|error| error.to_string())?.len();
        commits.push(Committed { log_bytes, head: journal.head(), saved, cursor });
        Ok(())
    })?;
    let events = ids(&journal)?;
    let down = down(journal.db())?;
    let log_bytes = commits.last().map_or(0, |last| last.log_bytes);
    let first = commits[0].log_bytes;
    for n in 0..damages {
        let at = first + rng.below(log_bytes - first);
        let damage = if rng.percent(50) { Damage::CutOff(at) } else { Damage::Torn(at) };
        let copy = folder.join(format!("{n}.db"));
        // While the journal is open, so that nothing is tidied up.
        damaged_copy(&whole, &copy, damage).map_err(|error| error.to_string())?;
        let told = |why: String| format!("seed {seed}, {damage:?} of {log_bytes} bytes: {why}");
        run.found(&copy, at, &commits, (&events, &down)).map_err(told)?;
    }
    Ok(())
}

fn world_of(rng: &mut Rng) -> Vec<Vec<Rc<FeedMessage>>> {
    let mut feed = Feed::new(0, 1_000_000);
    let mut hosts = [Host::new(0, 0, 0), Host::new(1, 0, 300)];
    let seconds = (0..SECONDS).map(|second| {
        let at = second as u64 * 1000;
        let host = rng.index(hosts.len());
        let (thing, number) = (rng.index(4), rng.index(2));
        match rng.below(6) {
            _ if second >= CHANGES => {}
            0 | 1 => hosts[host].things[thing].up ^= true,
            2 => hosts[host].numbers[number].zone = rng.index(3),
            3 => drop(hosts[host].log(at, second as u64)),
            4 => hosts[host].blips(thing),
            _ => {}
        }
        world::tick(at, 0, &mut feed, &mut hosts)
    });
    seconds.collect()
}

impl Run {
    /// From this second on, a commit for each, from what is in the files.
    fn go_on(
        &self,
        journal: &mut Journal,
        from: usize,
        mut committed: impl FnMut(&Journal) -> Result<(), String>,
    ) -> Result<(), String> {
        let error = |error: rusqlite::Error| error.to_string();
        let (mut saved, _) = store::load(journal.db()).map_err(error)?;
        store::complete(&mut saved);
        let mut progress = Progress { nth: store::nth(journal.db()).map_err(error)?, ..Progress::default() };
        let mut engine = Engine::new(settings(&self.setup, 0), std::slice::from_ref(&self.feed), saved);
        for (second, published) in self.published.iter().enumerate().skip(from) {
            let at = second as u64 * 1000;
            let now = Now { monotonic: Duration::from_millis(at), wall: wall(at, 0) };
            let mut outputs: Vec<Output> = Vec::new();
            for message in published {
                if let Place::Entry { epoch, seq } = message.place() {
                    progress.cursors.insert(self.feed.clone(), Cursor { epoch: Some(epoch), seq });
                    outputs.extend(engine.apply(now, Input::Entry { feed: self.feed.clone() }));
                }
                outputs.extend(engine.apply(now, input(self.feed.clone(), message)));
            }
            outputs.extend(engine.apply(now, Input::Idle));
            let epoch = journal.epoch().clone();
            let written = journal.commit(|commit| store::record(commit, &epoch, &outputs, &mut progress).map(drop));
            written.map_err(|error| error.to_string())?;
            committed(journal)?;
        }
        Ok(())
    }

    /// That what is in these files is what was committed before the damage, and leads to the same events; or that it is said
    /// that it is not, and leads to the same state.
    fn found(
        &self,
        path: &Path,
        at: u64,
        commits: &[Committed],
        (events, were_down): (&[(u64, String)], &[String]),
    ) -> Result<(), String> {
        let whole = commits.iter().take_while(|commit| commit.log_bytes <= at).count();
        let last = &commits[whole - 1];
        let mut journal = open(path)?;
        if !database::untold(journal.db()).map_err(|error| error.to_string())?.is_empty() {
            self.go_on(&mut journal, whole, |_| Ok(()))?;
            let down = down(journal.db())?;
            if whole <= CHANGES && down != were_down {
                return Err(format!("set aside after {whole} commits, it found {down:?} down, not {were_down:?}"));
            }
            return Ok(());
        }
        let (saved, unreadable) = store::load(journal.db()).map_err(|error| error.to_string())?;
        let cursor = store::cursor(journal.db(), &self.feed).map_err(|error| error.to_string())?;
        if journal.head() != last.head || unreadable > 0 {
            let head = journal.head();
            return Err(format!("after {whole} commits the journal has {head} entries, and had {}", last.head));
        }
        if saved != last.saved || cursor != last.cursor {
            return Err(format!("after {whole} commits the state is not what was committed with entry {}", last.head));
        }
        self.go_on(&mut journal, whole, |_| Ok(()))?;
        let now = ids(&journal)?;
        match now.iter().zip(events).find(|(now, before)| now != before) {
            Some((now, before)) => Err(format!("going on from commit {whole} it said {now:?} instead of {before:?}")),
            None if now.len() != events.len() => {
                Err(format!("going on from commit {whole} it said {} events instead of {}", now.len(), events.len()))
            }
            None => Ok(()),
        }
    }
}

fn open(path: &Path) -> Result<Journal, String> {
    Journal::open(path, Retention::default(), "cprocessd", &store::MIGRATIONS).map_err(|error| error.to_string())
}

fn log_of(path: &Path) -> std::path::PathBuf {
    path.with_extension("db-wal")
}

fn damaged_copy(from: &Path, to: &Path, damage: Damage) -> std::io::Result<()> {
    std::fs::copy(from, to)?;
    std::fs::copy(log_of(from), log_of(to))?;
    let mut log = OpenOptions::new().write(true).open(log_of(to))?;
    match damage {
        Damage::CutOff(at) => log.set_len(at),
        Damage::Torn(at) => {
            log.seek(SeekFrom::Start(at))?;
            log.write_all(&[0xa5; 512])
        }
    }
}

/// The checks that are down, and since when.
fn down(db: &rusqlite::Connection) -> Result<Vec<String>, String> {
    let (saved, _) = store::load(db).map_err(|error| error.to_string())?;
    let mut down: Vec<_> = saved
        .iter()
        .filter_map(|saved| match saved {
            Saved::Incident(key, Some(incident)) if key.rule == "check" => {
                Some(format!("{} since {}", key.address, incident.since))
            }
            _ => None,
        })
        .collect();
    down.sort();
    Ok(down)
}

/// All events of a journal: their places and ids.
fn ids(journal: &Journal) -> Result<Vec<(u64, String)>, String> {
    let mut ids = Vec::new();
    while let After::Entries(entries) =
        journal.after(None, ids.len() as u64, 1000).map_err(|error| error.to_string())?
        && !entries.is_empty()
    {
        for entry in entries {
            let event: Event = decode(&entry.payload).map_err(|error| error.to_string())?;
            let Event { id, kind, address, time, .. } = event;
            ids.push((entry.seq, format!("{kind} {address} at {time}, {id}")));
        }
    }
    Ok(ids)
}
