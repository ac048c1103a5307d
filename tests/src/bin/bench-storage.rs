//! What the disk costs: `bench-storage DIR` prints how many events a second go through group commits, and how long a start
//! with the state of 100,000 hosts takes. DIR is on the disk in question; its files are removed.
#![expect(clippy::print_stdout, reason = "the table is the point")]

use common::address::{CheckAddress, HostName};
use common::journal::{Journal, Retention};
use common::message::{Epoch, State};
use cprocessd::engine::settings::Settings;
use cprocessd::engine::{Engine, Saved};
use cprocessd::store;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const HOSTS: usize = 100_000;
const CHECKS: usize = 10;

fn main() {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from).join("bench-storage");
    std::fs::create_dir_all(&dir).expect("a folder");
    journal(&dir);
    start(&dir);
    std::fs::remove_dir_all(&dir).expect("ours");
}

/// Events of a usual size, each with the state of its check, in commits of so many.
fn journal(dir: &Path) {
    println!("{:>12} {:>12} {:>12} {:>14}", "a commit", "events/s", "ms/commit", "state as well");
    for batch in [1_u32, 10, 100, 1000, 10_000] {
        let [plain, with_state] = [false, true].map(|with_state| {
            let path = dir.join(format!("journal-{batch}-{with_state}.db"));
            let mut journal =
                Journal::open(&path, Retention::default(), "cprocessd", &store::MIGRATIONS).expect("opens");
            let event = vec![7; 380];
            let rows: Vec<Saved> = (0..10_000_u32).map(|n| check(n as usize / CHECKS, n as usize % CHECKS)).collect();
            let (began, mut commits) = (Instant::now(), 0_u32);
            while began.elapsed() < Duration::from_secs(3) {
                let entries = journal.commit(|commit| {
                    for row in rows.iter().take(batch as usize) {
                        commit.append("event.ERR.web1.example.org!".to_owned(), event.clone())?;
                        if with_state {
                            store::write(commit.state(), row)?;
                        }
                    }
                    Ok(())
                });
                assert_eq!(entries.expect("commits").len(), batch as usize);
                commits += 1;
            }
            (f64::from(commits * batch) / began.elapsed().as_secs_f64(), began.elapsed() / commits)
        });
        println!("{batch:>12} {:>12.0} {:>12.2} {:>14.0}", plain.0, plain.1.as_secs_f64() * 1e3, with_state.0);
    }
}

fn host(n: usize) -> HostName {
    format!("host{n:06}.example.org").parse().expect("a host")
}

fn address(host_n: usize, n: usize) -> CheckAddress {
    let service = "port".parse().expect("a name");
    CheckAddress { host: host(host_n), service, unit: format!("service{n}").parse().expect("a unit") }
}

fn check(host_n: usize, n: usize) -> Saved {
    let fields = rmpv::Value::Map(vec![
        ("up".into(), true.into()),
        ("since".into(), 1_795_263_797_615_i64.into()),
        ("interval_ms".into(), 1000.into()),
        ("text".into(), "answers within 12 ms".into()),
        ("bad_since".into(), 0.into()),
        ("bad_count".into(), 0.into()),
        ("last_blip".into(), rmpv::Value::Nil),
    ]);
    Saved::Check(address(host_n, n), Some(rmpv::ext::from_value(fields).expect("a check")))
}

fn saved_host(n: usize) -> Saved {
    let time: rmpv::Value = 1_795_263_797_615_i64.into();
    let inventory = (0..CHECKS).map(|check| address(n, check).to_string().into()).collect();
    let fields = rmpv::Value::Map(vec![
        ("state".into(), rmpv::ext::to_value(State::Up).expect("a state")),
        ("since".into(), time.clone()),
        ("last_seen".into(), time.clone()),
        ("last_alive".into(), time),
        ("heard".into(), true.into()),
        ("feed".into(), "/run/cairn/feed".into()),
        ("own".into(), false.into()),
        ("goodbye".into(), rmpv::Value::Nil),
        ("inventory_hash".into(), Epoch::random().as_str().into()),
        ("inventory".into(), rmpv::Value::Array(inventory)),
    ]);
    Saved::Host(host(n), Some(rmpv::ext::from_value(fields).expect("a host")))
}

fn start(dir: &Path) {
    let path = dir.join("start.db");
    let open = || Journal::open(&path, Retention::default(), "cprocessd", &store::MIGRATIONS).expect("opens");
    let mut journal = open();
    for n in 0..HOSTS {
        let rows = (0..CHECKS).map(|check| self::check(n, check)).chain([saved_host(n)]);
        let rows: Vec<Saved> = rows.collect();
        write(&mut journal, &rows, n);
    }
    drop(journal);
    let bytes = path.metadata().expect("there").len();
    println!("\nstart with {HOSTS} hosts of {CHECKS} checks, {} MB on disk", bytes >> 20);
    for name in ["after a proper stop", "after a crash"] {
        let is_crash = name == "after a crash";
        if is_crash {
            // A log that was not cleared makes the file be read through.
            let db = open();
            std::mem::forget(db);
        }
        let began = Instant::now();
        let journal = open();
        let opened = began.elapsed();
        let (saved, unreadable) = store::load(journal.db()).expect("loads");
        let loaded = began.elapsed();
        assert_eq!((saved.len(), unreadable), (HOSTS * (CHECKS + 1), 0));
        let own = CheckAddress {
            host: host(0),
            service: "cprocessd".parse().expect("a name"),
            unit: "".parse().expect("a unit"),
        };
        let engine = Engine::new(Settings::new(own), &["/run/cairn/feed".to_owned()], saved);
        let restored = began.elapsed();
        println!(
            "{name}: open {:.2} s, load {:.2} s, engine {:.2} s, together {:.2} s",
            opened.as_secs_f64(),
            loaded.saturating_sub(opened).as_secs_f64(),
            restored.saturating_sub(loaded).as_secs_f64(),
            restored.as_secs_f64()
        );
        drop(engine);
    }
}

/// Without a sync each: this is not what is measured.
fn write(journal: &mut Journal, rows: &[Saved], n: usize) {
    if n == 0 {
        journal.db().execute_batch("PRAGMA synchronous = OFF").expect("set");
    }
    journal.commit(|commit| rows.iter().try_for_each(|row| store::write(commit.state(), row))).expect("written");
}
