//! Plays simulated histories: `simulate --count 10000`, `simulate --from 20000 --count 100000`, `simulate --seed 17` (`--whole`
//! to leave it as long as it is). `--most N` goes on until so many have failed, `--plain` leaves out the timeline.

use std::process::ExitCode;
use tests::simulation::{explain, run};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| -> Option<u64> {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse().ok()
    };
    if let Some(seed) = value("--seed") {
        let shrinks = !arguments.iter().any(|argument| argument == "--whole");
        let text = explain(seed, shrinks);
        say(&text);
        return if text.contains("FAULT") { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let (from, count) = (value("--from").unwrap_or(0), value("--count").unwrap_or(1000));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let threads = value("--threads").and_then(|n| usize::try_from(n).ok()).unwrap_or(threads);
    let most = value("--most").and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
    let report = run(from, count, threads, most);
    let weeks = report.lasted.as_secs_f64() / 604_800.0;
    say(&format!(
        "{} histories from seed {from} on, {weeks:.1} weeks of virtual time, in {:.1} s: {:.0} a second\n",
        report.histories,
        report.took.as_secs_f64(),
        report.histories as f64 / report.took.as_secs_f64()
    ));
    for (seed, fault) in &report.failed {
        say(&format!("seed {seed}: {fault}\n"));
    }
    if arguments.iter().any(|argument| argument == "--plain") {
        return if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some((seed, _)) = report.failed.first() {
        say(&format!("\n{}", explain(*seed, true)));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[expect(clippy::print_stdout, reason = "a command's answer goes to its standard output")]
fn say(text: &str) {
    print!("{text}");
}
