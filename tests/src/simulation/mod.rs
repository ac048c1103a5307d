//! A deterministic simulator: the real engine, follower, and notifier's desk in weeks of trouble, in virtual time.
//!
//! A [`plan`] follows from a seed: hosts, checks and numbers that go up and down; daemons that are killed between any two
//! steps, suspended, lose their state; messages that are lost, doubled, late; clocks that jump; media that fail. [`history`]
//! plays it: everything that takes time is in one queue, and time moves from one entry to the next. What is not the subject is
//! modelled: ccollectd by PROTOCOL §4 ([`world`]), journal and disk by their contract (a commit happens or does not), media
//! by what they do with a message. Whenever everything has come to rest, [`oracle`] checks the promises of DESIGN §5 to §7
//! against the truth of the world. A plan that fails is made [short](shrink), and told as a timeline. [`files`] does the
//! same with real files, on a smaller scale.

#![allow(missing_docs, reason = "a test's own fields say what they are; what needs a sentence has one")]

pub mod files;
pub mod history;
pub mod judge;
pub mod notifier;
pub mod oracle;
pub mod plan;
pub mod rng;
pub mod shrink;
pub mod wish;
pub mod world;

use history::{Outcome, play};
use plan::Plan;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What many histories came to.
#[derive(Debug, Default)]
pub struct Report {
    /// How many were played.
    pub histories: u64,
    /// Virtual time, all in all.
    pub lasted: Duration,
    /// How long that took.
    pub took: Duration,
    /// The seeds that failed, and the first fault of each; no more than were asked for.
    pub failed: Vec<(u64, String)>,
}

/// Plays the histories of `count` seeds from `from` on, on `threads` threads, until `most` of them have failed.
pub fn run(from: u64, count: u64, threads: usize, most: usize) -> Report {
    let began = Instant::now();
    let (next, stop) = (AtomicU64::new(from), AtomicBool::new(false));
    let work = || {
        let mut report = Report::default();
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                break;
            }
            let Outcome { faults, lasted, .. } = play(&Plan::new(seed), false);
            report.histories += 1;
            report.lasted += lasted;
            if let Some(fault) = faults.into_iter().next() {
                report.failed.push((seed, fault));
                if report.failed.len() >= most {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
        report
    };
    let mut all = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Report::default();
        for worker in workers {
            let Report { histories, lasted, failed, .. } = worker.join().expect("a history does not panic");
            all.histories += histories;
            all.lasted += lasted;
            all.failed.extend(failed);
        }
        all
    });
    all.failed.sort();
    all.took = began.elapsed();
    all
}

/// The history of a seed as a timeline, as short as it still fails.
pub fn explain(seed: u64, shrinks: bool) -> String {
    let plan = Plan::new(seed);
    let fails = !play(&plan, false).faults.is_empty();
    let plan = if fails && shrinks { shrink::shrink(&plan) } else { plan };
    let Outcome { timeline, .. } = play(&plan, true);
    let setup = &plan.setup;
    let mut text = format!(
        "seed {seed}: {:?}, {} feeds, web2 {}, journals of {} entries, from {} on\n",
        setup.judging,
        setup.feeds,
        if setup.relayed { "behind web1" } else { "is not there" },
        setup.retention,
        world::wall(0, setup.begins),
    );
    for (i, (name, wish)) in plan::RECIPIENTS.into_iter().zip(&setup.wishes).enumerate() {
        let tiers: Vec<String> =
            setup.limits.pace(i).tiers.iter().map(|tier| format!("{} in {:?}", tier.messages, tier.window)).collect();
        let account = setup.limits.account(i);
        text +=
            &[name, " selects ", &wish.to_string(), &format!("; at most {tiers:?}, telephone {account}\n")].concat();
    }
    if let Some((pattern, from, minutes)) = setup.window {
        let [from, minutes] = [from, minutes].map(|minutes| minutes.to_string());
        let pattern = plan::PATTERNS[pattern];
        text += &[pattern, " is maintained from minute ", &from, " on for ", &minutes, " minutes\n"].concat();
    }
    if let Some((cost, secs)) = setup.limits.cap {
        text += &["at most ", &cost.to_string(), " for all in ", &secs.to_string(), " s\n"].concat();
    }
    for line in timeline {
        text.push_str(&line);
        text.push('\n');
    }
    text
}
