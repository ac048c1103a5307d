//! Questions while numbers come in.

use crate::feed::{Fleet, Pace, name};
use crate::judge::{Asked, Disk, Judge, asker};
use crate::rules::one_of_a_thousand;
use crate::{Table, quantile};
use common::message::Request;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::table::{Target, row};

const CLIENTS: usize = 20;
const VALUES_PER_S: usize = 200_000;
/// Between two questions of one client: a little more than a thousand a second are asked.
const EVERY: Duration = Duration::from_millis(19);
const FOR: Duration = Duration::from_secs(5);

pub(crate) fn measure(table: &Table) {
    let steady = |fleet: &Fleet, judge: &Judge| {
        let mut pace = Pace::new(fleet, VALUES_PER_S);
        let began = Instant::now();
        while began.elapsed() < FOR {
            pace.step(&judge.feed);
        }
    };
    let flood = |fleet: &Fleet, judge: &Judge| {
        let began = Instant::now();
        while began.elapsed() < FOR {
            fleet.round(&judge.feed);
        }
    };
    let [rate, p50, p99, cpu] = table.medians(|| run(EVERY, steady));
    let what = format!("server-status from {CLIENTS} clients");
    row(format!("{what} under {VALUES_PER_S} values/s: rate"), rate, "answers / s", Target::AtLeast(1000.0));
    row(format!("{what} under {VALUES_PER_S} values/s: p50"), p50 * 1e3, "ms", Target::None);
    row(format!("{what} under {VALUES_PER_S} values/s: p99"), p99 * 1e3, "ms", Target::None);
    row(format!("{what} under {VALUES_PER_S} values/s: cprocessd"), cpu, "cores", Target::None);
    let [rate, _, p99, cpu] = table.medians(|| run(Duration::ZERO, steady));
    row(format!("{what}, as fast as they can: rate"), rate, "answers / s", Target::None);
    row(format!("{what}, as fast as they can: p99"), p99 * 1e3, "ms", Target::None);
    row(format!("{what}, as fast as they can: cprocessd"), cpu, "cores", Target::None);
    let [rate, _, p99, _] = table.medians(|| run(EVERY, flood));
    row(format!("{what}, values as fast as they are taken: rate"), rate, "answers / s", Target::None);
    row(format!("{what}, values as fast as they are taken: p99"), p99 * 1e3, "ms", Target::None);
}

/// Asks while values come in.
fn run(every: Duration, values: impl Fn(&Fleet, &Judge)) -> [f64; 4] {
    let fleet = Fleet::new(50, 10);
    let mut judge = Judge::start(&one_of_a_thousand(), Disk::Real);
    fleet.round(&judge.feed);
    judge.settle();
    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let (socket, stop, hosts) = (judge.run().join("query"), stop.clone(), fleet.hosts);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let clients: Vec<_> = (0..CLIENTS)
                    .map(|client| {
                        let question = move |n: usize| Request {
                            host: Some(name((n + client * 7) % hosts)),
                            ..Request::query("server-status")
                        };
                        tokio::spawn(asker(socket.clone(), question, every, stop.clone()))
                    })
                    .collect();
                let mut took = Vec::new();
                for client in clients {
                    took.extend(client.await.expect("it was answered"));
                }
                took
            })
        })
    };
    let (cpu, began) = (judge.cpu(), Instant::now());
    values(&fleet, &judge);
    let (cpu, elapsed) = (judge.cpu() - cpu, began.elapsed().as_secs_f64());
    stop.store(true, Ordering::Relaxed);
    let mut took: Vec<f64> = asking.join().expect("it was answered").iter().map(Asked::took).collect();
    judge.settle();
    [took.len() as f64 / elapsed, quantile(&mut took, 0.5), quantile(&mut took, 0.99), cpu / elapsed]
}
