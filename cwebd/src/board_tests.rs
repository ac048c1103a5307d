//! What a browser gets to see, as timelines.

use super::*;
use common::address::Name;
use common::message::{Epoch, Values};

const A: usize = 0;
const B: usize = 1;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn host(name: &str) -> HostName {
    HostName::try_from(name).expect("a host")
}

fn server(name: &str, state: State) -> ServerRow {
    ServerRow {
        host: host(name),
        state,
        since: UnixMillis(1000),
        last_seen: UnixMillis(2000),
        severity: None,
        checks: 0,
        open: 0,
    }
}

fn down(address: &str, severity: Severity, since: i64) -> DownRow {
    let address: Address = address.parse().expect("an address");
    DownRow {
        incident: IncidentId::new(&address, "check", UnixMillis(since)),
        address,
        rule: "check".to_owned(),
        kind: None,
        severity,
        since: UnixMillis(since),
        text: "connection refused".to_owned(),
        acked: false,
        silenced: false,
        unreachable: false,
        step: None,
        suppressed_by: Vec::new(),
    }
}

fn event(kind: Kind, address: &str, severity: Severity, since: i64, time: i64) -> Event {
    let address: Address = address.parse().expect("an address");
    let incident = IncidentId::new(&address, "check", UnixMillis(since));
    Event {
        epoch: Epoch::random(),
        seq: 1,
        nth: 1,
        id: EventId::new(incident, kind, 1),
        incident,
        kind,
        host: address.host().clone(),
        service: address.service().clone(),
        unit: address.unit().clone(),
        severity,
        top_severity: severity,
        state: State::Down,
        since: UnixMillis(since),
        time: UnixMillis(time),
        text: "connection refused".to_owned(),
        value: None,
        rule: "check".to_owned(),
        step: None,
        suppressed_by: Vec::new(),
        duration_ms: None,
        data: None,
        address,
    }
}

fn sample(host_name: &str, resource: &str, unit: &str, attribute: &str, value: f64) -> Sample {
    Sample {
        host: host(host_name),
        from: host(host_name),
        service: Name::try_from("machine").expect("a name"),
        time: UnixMillis(0),
        interval_ms: 1000,
        resource: Name::try_from(resource).expect("a name"),
        unit: unit.parse().expect("a unit"),
        values: Values(vec![(Name::try_from(attribute).expect("a name"), value)]),
        backfill: false,
    }
}

fn board(hosts: &[&str]) -> Board {
    let mut board = Board::new(["a".to_owned(), "b".to_owned()]);
    let rows = hosts.iter().map(|name| server(name, State::Up)).collect();
    board
        .snapshot(A, StreamSnapshot { epoch: Epoch::random(), seq: 0, hosts: rows, checks: vec![], incidents: vec![] });
    assert_eq!(board.take_delta(), Delta::All);
    board
}

/// `host state open severity`, as the page has them.
#[track_caller]
fn expect_hosts(board: &Board, expected: &[&str]) {
    let state = board.state(secs(0), UnixMillis(0));
    let said: Vec<String> = state
        .hosts
        .iter()
        .map(|row| {
            let severity = row.severity.map_or("-", Severity::as_str);
            format!("{} {} {} {severity}", row.host, row.state, row.open)
        })
        .collect();
    assert_eq!(said, expected);
}

#[track_caller]
fn delta(board: &mut Board) -> DeltaRow {
    match board.take_delta() {
        Delta::Some(delta) => *delta,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_outage_opens_and_its_end_closes() {
    let mut board = board(&["web1", "web2"]);
    board.event(A, event(Kind::Down, "web1!port:www", Severity::Err, 5, 5));
    expect_hosts(&board, &["web1 up 1 ERR", "web2 up 0 -"]);
    let told = delta(&mut board);
    assert_eq!((told.hosts.len(), told.opened.len(), told.events.len()), (1, 1, 1));
    assert_eq!(told.opened[0].since, UnixMillis(5));

    board.event(A, event(Kind::Up, "web1!port:www", Severity::Info, 5, 9));
    expect_hosts(&board, &["web1 up 0 -", "web2 up 0 -"]);
    assert_eq!(delta(&mut board).closed, [told.opened[0].incident]);
    assert_eq!(board.take_delta(), Delta::None);
}

#[test]
fn a_host_that_falls_silent_is_down_at_once_and_comes_back() {
    let mut board = board(&["web1"]);
    board.event(A, event(Kind::Down, "web1!alive:", Severity::Crit, 5, 15));
    expect_hosts(&board, &["web1 down 1 CRIT"]);
    board.event(A, event(Kind::Up, "web1!alive:", Severity::Info, 5, 20));
    expect_hosts(&board, &["web1 up 0 -"]);
    board.event(A, event(Kind::Stopped, "web1!alive:", Severity::Info, 30, 30));
    expect_hosts(&board, &["web1 unknown 0 -"]);
}

#[test]
fn a_host_that_is_heard_for_the_first_time_appears() {
    let mut board = board(&[]);
    board.event(A, event(Kind::Up, "new1!alive:", Severity::Debug, 5, 5));
    expect_hosts(&board, &["new1 up 0 -"]);
    assert_eq!(delta(&mut board).hosts.len(), 1);
}

#[test]
fn what_no_event_told_is_put_right_by_asking() {
    let mut board = board(&["web1", "web2", "old1"]);
    let mut silenced = down("web1!port:www", Severity::Err, 5);
    board.event(A, event(Kind::Down, "web1!port:www", Severity::Err, 5, 5));
    board.take_delta();
    silenced.silenced = true;
    board.refresh(A, vec![server("web1", State::Up), server("web2", State::Unknown)], vec![silenced]);
    expect_hosts(&board, &["web1 up 1 ERR", "web2 unknown 0 -"]);
    let told = delta(&mut board);
    assert_eq!(told.gone, [host("old1")]);
    assert!(told.opened[0].silenced);
    // The same again is no news.
    let mut silenced = down("web1!port:www", Severity::Err, 5);
    silenced.silenced = true;
    board.refresh(A, vec![server("web1", State::Up), server("web2", State::Unknown)], vec![silenced]);
    assert_eq!(board.take_delta(), Delta::None);
}

#[test]
fn of_two_publishers_the_worse_counts_and_an_incident_is_one() {
    let mut board = board(&["web1"]);
    board.refresh(B, vec![server("web1", State::Up), server("db1", State::Up)], vec![]);
    board.event(B, event(Kind::Down, "web1!alive:", Severity::Crit, 5, 15));
    expect_hosts(&board, &["db1 up 0 -", "web1 down 1 CRIT"]);
    board.event(A, event(Kind::Down, "web1!alive:", Severity::Crit, 5, 15));
    expect_hosts(&board, &["db1 up 0 -", "web1 down 1 CRIT"]);
    assert_eq!(board.state(secs(0), UnixMillis(0)).events.len(), 1, "a copy is dropped by its id");
    // It is over when nobody has it open any more.
    board.event(A, event(Kind::Up, "web1!alive:", Severity::Info, 5, 20));
    expect_hosts(&board, &["db1 up 0 -", "web1 down 1 CRIT"]);
    board.event(B, event(Kind::Up, "web1!alive:", Severity::Info, 5, 20));
    expect_hosts(&board, &["db1 up 0 -", "web1 up 0 -"]);
}

#[test]
fn the_load_is_the_mean_of_processors_memory_and_the_fullest_disk() {
    let mut board = board(&["web1"]);
    let mean = |board: &Board| board.state(secs(0), UnixMillis(0)).hosts[0].load.clone();
    assert_eq!(mean(&board), LoadRow::default());
    board.sample(secs(1), &sample("web1", "cpu", "all", "load", 30.0));
    board.sample(secs(1), &sample("web1", "cpu", "core0", "load", 100.0));
    assert_eq!(mean(&board).mean, Some(30.0));
    board.sample(secs(1), &sample("web1", "memory", "physical", "used_percentage", 60.0));
    board.sample(secs(1), &sample("web1", "memory", "swap", "used_percentage", 99.0));
    board.sample(secs(1), &sample("web1", "disk", "/", "used_percentage", 20.0));
    board.sample(secs(1), &sample("web1", "disk", "/var", "used_percentage", 90.0));
    board.sample(secs(1), &sample("web1", "disk", "/home", "used_percentage", 50.0));
    let load = mean(&board);
    assert_eq!((load.mean, load.disk, load.mount.as_deref()), (Some(60.0), Some(90.0), Some("/var")));
    // The fullest was emptied; the next sample of another is fuller.
    board.sample(secs(2), &sample("web1", "disk", "/var", "used_percentage", 10.0));
    board.sample(secs(2), &sample("web1", "disk", "/home", "used_percentage", 50.0));
    assert_eq!(mean(&board).mount.as_deref(), Some("/home"));
    // Of a host that nobody knows, nothing is kept.
    board.sample(secs(2), &sample("ghost", "cpu", "all", "load", 30.0));
    assert_eq!(board.numbers.len(), 1);
}

#[test]
fn a_number_that_nobody_renews_goes() {
    let mut board = board(&["web1"]);
    board.sample(secs(1), &sample("web1", "cpu", "all", "load", 30.0));
    assert!(matches!(board.take_loads(), Delta::Some(_)));
    board.tick(secs(6));
    assert_eq!(board.take_loads(), Delta::None);
    board.tick(secs(7));
    let Delta::Some(told) = board.take_loads() else { panic!("nothing told") };
    assert_eq!(told.loads[&host("web1")], LoadRow::default());
}

#[test]
fn it_is_live_while_some_publisher_beats() {
    let mut board = board(&[]);
    assert!(!board.is_live(secs(1)));
    board.beat(secs(1), B);
    assert!(board.is_live(secs(3)));
    assert!(!board.is_live(secs(4)));
    let ages: Vec<_> = board.publishers(secs(4)).into_iter().map(|row| row.age_ms).collect();
    assert_eq!(ages, [None, Some(3000)]);
}

#[test]
fn floods_are_bounded() {
    let mut board = board(&["web1"]);
    for n in 0..5000_i64 {
        board.event(A, event(Kind::Down, &format!("web1!port:{n}"), Severity::Err, n, n));
    }
    let told = delta(&mut board);
    assert_eq!((told.events.len(), told.opened.len()), (MAX_EVENTS, MAX_INCIDENTS));
    assert_eq!(told.more_incidents, 3000);
    let state = board.state(secs(0), UnixMillis(0));
    assert_eq!((state.events.len(), state.incidents.len(), state.more_incidents), (MAX_EVENTS, MAX_INCIDENTS, 3000));
    assert_eq!(state.events[0].time, UnixMillis(4999), "newest first");
    let hosts: Vec<_> = (0..6000).map(|n| server(&format!("h{n}"), State::Up)).collect();
    board.refresh(A, hosts, vec![]);
    assert_eq!(board.state(secs(0), UnixMillis(0)).hosts.len(), MAX_HOSTS);
}

#[test]
fn history_comes_before_what_was_heard_and_only_once() {
    let mut board = board(&["web1"]);
    board.event(A, event(Kind::Down, "web1!port:new", Severity::Err, 50, 50));
    let old = event(Kind::Down, "web1!port:old", Severity::Err, 5, 5);
    board.history(vec![old, event(Kind::Down, "web1!port:new", Severity::Err, 50, 50)]);
    let times: Vec<_> = board.state(secs(0), UnixMillis(0)).events.iter().map(|row| row.time.0).collect();
    assert_eq!(times, [50, 5]);
}

#[test]
fn texts_stay_texts_and_have_an_end() {
    let mut board = board(&["web1"]);
    let mut hostile = event(Kind::Down, "web1!port:<img src=x onerror=alert(1)>", Severity::Err, 5, 5);
    hostile.text = "</script>\u{2028}".repeat(1000);
    board.event(A, hostile);
    let state = board.state(secs(0), UnixMillis(0));
    assert_eq!(state.incidents[0].text.chars().count(), MAX_TEXT_CHARS);
    assert!(serde_json::to_string(&state).expect("JSON").contains("<img src=x onerror=alert(1)>"));
}
