//! How many events a second go through group commits, each a sync: `synchronous=FULL`.

use crate::Table;
use common::journal::{Journal, Retention};
use cprocessd::engine::Saved;
use cprocessd::store;
use std::time::{Duration, Instant};
use tests::table::{Target, row};

/// Of one event, with its topic.
const EVENT_BYTES: usize = 380;
const FOR: Duration = Duration::from_secs(2);

/// Events of a usual size in commits of so many, and then each with the state of its check.
pub(crate) fn measure(table: &Table) {
    for batch in [1, 100, 1000] {
        for (with_state, more) in [(false, ""), (true, ", each with a state")] {
            let [per_s, each] = table.medians(|| run(batch, with_state));
            let what = format!("journal, {batch} events a commit{more}");
            let target = if batch == 1 { Target::None } else { Target::AtLeast(100_000.0) };
            row(&what, per_s, "events / s", target);
            if !with_state {
                row(format!("{what}: a commit"), each * 1e3, "ms", Target::None);
            }
        }
    }
}

fn run(batch: usize, with_state: bool) -> [f64; 2] {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("journal.db");
    let mut journal = Journal::open(&path, Retention::default(), "cprocessd", &store::MIGRATIONS).expect("opens");
    let event = vec![7; EVENT_BYTES];
    let states: Vec<Saved> = (0..10_000).map(|n| crate::start::check(n / 10, n % 10)).collect();
    let (began, mut commits) = (Instant::now(), 0);
    while began.elapsed() < FOR {
        let states = states.iter().cycle().skip(commits * batch % states.len());
        let entries = journal.commit(|commit| {
            for state in states.take(batch) {
                commit.append("event.ERR.web1.example.org!".to_owned(), event.clone())?;
                if with_state {
                    store::write(commit.state(), state)?;
                }
            }
            Ok(())
        });
        assert_eq!(entries.expect("commits").len(), batch);
        commits += 1;
    }
    let took = began.elapsed().as_secs_f64();
    [(commits * batch) as f64 / took, took / commits as f64]
}
