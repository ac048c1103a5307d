//! From the start of the process to its first answer, with much that was kept.

use crate::Table;
use crate::judge::{Disk, Judge};
use common::address::{CheckAddress, HostName};
use common::journal::{Journal, Retention};
use common::message::{Epoch, State};
use cprocessd::engine::Saved;
use cprocessd::store;
use std::path::Path;
use tests::table::{Target, row};

const HOSTS: usize = 100_000;

pub(crate) fn measure(table: &Table) {
    for checks in [0, 10] {
        let mut judge = Judge::start("", Disk::Real);
        judge.restart(|path| fill(path, checks));
        let [took] = table.medians(|| [judge.restart(|_| ()).as_secs_f64()]);
        let what = format!("start with {HOSTS} hosts of {checks} checks kept");
        row(format!("{what}: first answer"), took, "s", Target::Below(3.0));
        row(format!("{what}: RSS"), judge.memory("VmRSS:"), "MiB", Target::None);
    }
}

/// The state of that many hosts, without a sync each: this is not what is measured.
fn fill(path: &Path, checks: usize) {
    let mut journal = Journal::open(path, Retention::default(), "cprocessd", &store::MIGRATIONS).expect("opens");
    journal.db().execute_batch("PRAGMA synchronous = OFF").expect("set");
    for hosts in (0..HOSTS).collect::<Vec<_>>().chunks(1000) {
        let rows = hosts.iter().flat_map(|&n| (0..checks).map(move |i| check(n, i)).chain([host(n, checks)]));
        journal
            .commit(|commit| rows.into_iter().try_for_each(|row| store::write(commit.state(), &row)))
            .expect("written");
    }
}

fn name(n: usize) -> HostName {
    format!("host{n:06}.example.org").parse().expect("a host")
}

fn address(host: usize, n: usize) -> CheckAddress {
    let service = "port".parse().expect("a name");
    CheckAddress { host: name(host), service, unit: format!("service{n}").parse().expect("a unit") }
}

/// A check as it is kept.
pub(crate) fn check(host: usize, n: usize) -> Saved {
    let fields = rmpv::Value::Map(vec![
        ("up".into(), true.into()),
        ("since".into(), 1_795_263_797_615_i64.into()),
        ("interval_ms".into(), 1000.into()),
        ("text".into(), "answers within 12 ms".into()),
        ("bad_since".into(), 0.into()),
        ("bad_count".into(), 0.into()),
        ("last_blip".into(), rmpv::Value::Nil),
    ]);
    Saved::Check(address(host, n), Some(rmpv::ext::from_value(fields).expect("a check")))
}

fn host(n: usize, checks: usize) -> Saved {
    let time: rmpv::Value = 1_795_263_797_615_i64.into();
    let inventory = (0..checks).map(|check| address(n, check).to_string().into()).collect();
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
    Saved::Host(name(n), Some(rmpv::ext::from_value(fields).expect("a host")))
}
