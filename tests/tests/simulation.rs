//! A few hundred simulated histories, as many as this profile plays in half a minute: `tests/run` plays ten thousand with the
//! command `simulate`, built in a profile of its own. `CAIRN_HISTORIES` and `CAIRN_HISTORIES_FROM` choose how many, from which
//! seed on; `CAIRN_FILES` how many of them are played on real files.

use tests::simulation::plan::Plan;
use tests::simulation::{explain, files, history, run};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn whatever_happens_every_promise_holds_once_all_is_at_rest() {
    let (from, count) = (number("CAIRN_HISTORIES_FROM", 0), number("CAIRN_HISTORIES", 500));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let report = run(from, count, threads, 1);
    if let Some((seed, fault)) = report.failed.first() {
        panic!("seed {seed}: {fault}\n\n{}\nagain: simulate --seed {seed}", explain(*seed, true));
    }
    assert_eq!(report.histories, count);
}

#[test]
fn a_history_follows_from_its_seed() {
    for seed in [3, 77, 4711] {
        let [one, two] = [(), ()].map(|()| history::play(&Plan::new(seed), true).timeline);
        assert_eq!(one, two);
    }
}

#[test]
fn what_was_committed_survives_torn_and_truncated_files() {
    let from = number("CAIRN_HISTORIES_FROM", 0);
    for seed in from..from + number("CAIRN_FILES", 8) {
        let folder = tempfile::tempdir().expect("folder");
        files::survive(seed, 12, folder.path()).expect("nothing is wrong");
    }
}
