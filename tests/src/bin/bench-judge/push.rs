//! The load alone, for a harness that starts cprocessd and measures it in its own way.

use crate::feed::{Fleet, probe};
use crate::judge::{PATIENCE, own_cpu, subscribe};
use common::time::UnixMillis;
use std::path::Path;
use std::time::Instant;

const HOSTS: usize = 50;

/// Becomes the feed in `run`, sends about this many values of 5,000 series, waits until they are judged and prints what it did
/// as JSON. cprocessd must have a rule `probe!app.probe:*.level > 0.5`, whose event shows that all before it was judged.
#[expect(clippy::print_stdout, reason = "the harness reads it")]
pub(crate) fn push(run: &Path, values: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let feed = crate::feed::Feed::open(run, &runtime);
    let fleet = Fleet::new(HOSTS, 10);
    let events = subscribe(run);
    feed.wait_for_subscriber();
    let settle = |unit: &str| {
        feed.write(&probe(unit, 1.0));
        while events.recv_timeout(PATIENCE).expect("it is told").of_probe().as_deref() != Some(unit) {}
    };
    fleet.round(&feed);
    settle("first");
    let rounds = values.div_ceil(fleet.all_series());
    let (start, began, own) = (UnixMillis::now(), Instant::now(), own_cpu());
    for _ in 0..rounds {
        fleet.round(&feed);
    }
    settle("last");
    let (took, own) = (began.elapsed().as_secs_f64(), own_cpu() - own);
    let sent = rounds * fleet.all_series();
    let mut message = Vec::new();
    fleet.put(&mut message, 0, start);
    let report = serde_json::json!({
        "values": sent,
        "series": fleet.all_series(),
        "batch": fleet.series,
        "conns": 1,
        "start": start.0 as f64 / 1000.0,
        "push_s": took,
        "values_per_s": sent as f64 / took,
        "gen_cpu_s": own,
        "bytes_per_value": message.len() as f64 / fleet.series as f64,
    });
    println!("{report}");
}
