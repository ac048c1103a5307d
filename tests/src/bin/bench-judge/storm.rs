//! Much at once: alarms, and silence.

use crate::feed::{Fleet, name, probe, signs_of_life};
use crate::judge::{Asked, Disk, Judge, PATIENCE, asker};
use crate::{Table, quantile};
use common::message::{Kind, Request};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tests::table::{Target, row};

const ALARMS: usize = 1000;
const HOSTS: usize = 10_000;
/// Who ask about single hosts meanwhile, and how often each.
const CLIENTS: usize = 20;
const ASK_EVERY: Duration = Duration::from_millis(100);
const HOST_DOWN_AFTER: Duration = Duration::from_secs(5);

pub(crate) fn measure(table: &Table) {
    let [first, last] = table.medians(alarms);
    row("1000 alarms at once: first event", first, "s", Target::None);
    row("1000 alarms at once: last event", last, "s", Target::AtMost(0.2));
    let [last, rss, p99, worst, cpu] = table.medians(silence);
    row("10000 hosts silent at once: last event, since they were due", last, "s", Target::AtMost(2.0));
    row("10000 hosts silent at once: peak RSS", rss, "MiB", Target::None);
    row("10000 hosts silent at once: answers meanwhile, p99", p99 * 1e3, "ms", Target::Below(50.0));
    row("10000 hosts silent at once: answers meanwhile, worst", worst * 1e3, "ms", Target::None);
    row("10000 hosts silent at once: CPU of it all", cpu, "s", Target::None);
}

fn alarms() -> [f64; 2] {
    let mut judge = Judge::start("", Disk::Real);
    for alarm in 0..ALARMS {
        judge.feed.probe(&format!("alarm{alarm}"), 0.0);
    }
    judge.settle();
    let all: Vec<u8> = (0..ALARMS).flat_map(|alarm| probe(&format!("alarm{alarm}"), 1.0)).collect();
    let began = Instant::now();
    judge.feed.write(&all);
    let at: Vec<Instant> = (0..ALARMS).map(|_| judge.next(PATIENCE).expect("each is told").at).collect();
    let after = |at: Instant| at.saturating_duration_since(began).as_secs_f64();
    [after(at[0]), after(at[ALARMS - 1])]
}

fn silence() -> [f64; 5] {
    let settings = format!("[judging]\nhost_down_after = '{}s'\n", HOST_DOWN_AFTER.as_secs());
    let mut judge = Judge::start(&settings, Disk::Real);
    // Each has a few numbers and has been alive for some seconds.
    let fleet = Fleet::new(HOSTS, 1);
    judge.feed.write(&signs_of_life(HOSTS));
    fleet.round(&judge.feed);
    judge.settle();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(1));
        judge.feed.write(&signs_of_life(HOSTS));
    }
    let last_alive = Instant::now();
    let cpu = judge.cpu();
    let stop = Arc::new(AtomicBool::new(false));
    let asking = asking(&judge.run().join("query"), &stop);
    let mut down = 0;
    let mut last = last_alive;
    while down < HOSTS {
        let told = judge.next(PATIENCE).expect("each host is told");
        if told.event.kind == Kind::Down {
            down += 1;
            last = told.at;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let asked = asking.join().expect("they were answered");
    let due = last_alive + HOST_DOWN_AFTER;
    let mut took: Vec<f64> = asked.iter().filter(|asked| (due..last).contains(&asked.at)).map(Asked::took).collect();
    let late = last.saturating_duration_since(due).as_secs_f64();
    let (p99, worst) = (quantile(&mut took, 0.99), quantile(&mut took, 1.0));
    [late, judge.memory("VmHWM:"), p99, worst, judge.cpu() - cpu]
}

/// Asks until told to stop; the clients take turns.
fn asking(socket: &Path, stop: &Arc<AtomicBool>) -> JoinHandle<Vec<Asked>> {
    let (socket, stop) = (socket.to_owned(), stop.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let mut clients = Vec::new();
            for client in 0..CLIENTS {
                let host = move |n: usize| Some(name((n * CLIENTS + client) * 7 % HOSTS));
                let question = move |n: usize| Request { host: host(n), ..Request::query("server-status") };
                clients.push(tokio::spawn(asker(socket.clone(), question, ASK_EVERY, stop.clone())));
                tokio::time::sleep(ASK_EVERY / u32::try_from(CLIENTS).expect("few")).await;
            }
            let mut asked = Vec::new();
            for client in clients {
                asked.extend(client.await.expect("it was answered"));
            }
            asked
        })
    })
}
