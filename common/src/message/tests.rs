//! Each message's bytes are pinned: a change on the wire shows up here.

use super::*;
use crate::address::{CheckAddress, HostName, Name, Unit};
use crate::severity::Severity;
use crate::time::UnixMillis;
use std::collections::BTreeMap;

fn host(name: &str) -> HostName {
    name.parse().expect("a host")
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn unit(text: &str) -> Unit {
    text.parse().expect("a unit")
}

fn epoch() -> Epoch {
    Epoch::try_from("e1".to_owned()).expect("an epoch")
}

/// The bytes as readable text: what is printable stays, the rest is `<hex>`.
fn readable(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|&b| if b.is_ascii_graphic() && b != b'<' { char::from(b).to_string() } else { format!("<{b:02x}>") })
        .collect()
}

#[track_caller]
fn pinned<T>(message: &T, bytes: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let encoded = encode(message);
    assert_eq!(readable(&encoded), bytes);
    assert_eq!(&decode::<T>(&encoded).expect("reads back"), message);
}

fn sample() -> Sample {
    Sample {
        host: host("w"),
        from: host("w"),
        service: name("machine"),
        time: UnixMillis(1),
        interval_ms: 1000,
        resource: name("disk"),
        unit: unit("/"),
        values: Values(vec![(name("free"), 0.5)]),
        backfill: false,
    }
}

fn check() -> Check {
    Check {
        host: host("w"),
        from: host("w"),
        service: name("port"),
        unit: unit("x (1)"),
        time: UnixMillis(2),
        interval_ms: 1000,
        up: true,
        retries: 1,
        text: "ok".to_owned(),
        changed: UnixMillis(1),
        backfill: false,
        head_seq: None,
        epoch: None,
        seq: None,
        origin: None,
    }
}

#[test]
fn sample_bytes() {
    pinned(
        &sample(),
        "<88><a4>host<a1>w<a4>from<a1>w<a7>service<a7>machine<a4>time<01><ab>interval_ms<cd><03><e8>\
         <a8>resource<a4>disk<a4>unit<a1>/<a6>values<81><a4>free<cb>?<e0><00><00><00><00><00><00>",
    );
}

#[test]
fn check_bytes() {
    let live = Check { head_seq: Some(7), ..check() };
    pinned(
        &live,
        "<8b><a4>host<a1>w<a4>from<a1>w<a7>service<a4>port<a4>unit<a5>x<20>(1)<a4>time<02><ab>interval_ms<cd><03><e8>\
         <a2>up<c3><a7>retries<01><a4>text<a2>ok<a7>changed<01><a8>head_seq<07>",
    );
    let journaled = Check {
        epoch: Some(epoch()),
        seq: Some(7),
        origin: Some(Origin { host: host("w"), epoch: epoch(), seq: 7 }),
        ..check()
    };
    pinned(
        &journaled,
        "<8d><a4>host<a1>w<a4>from<a1>w<a7>service<a4>port<a4>unit<a5>x<20>(1)<a4>time<02><ab>interval_ms<cd><03><e8>\
         <a2>up<c3><a7>retries<01><a4>text<a2>ok<a7>changed<01><a5>epoch<a2>e1<a3>seq<07>\
         <a6>origin<83><a4>host<a1>w<a5>epoch<a2>e1<a3>seq<07>",
    );
}

#[test]
fn log_event_bytes() {
    let event = LogEvent {
        host: host("w"),
        from: host("w"),
        service: name("s"),
        unit: unit(""),
        time: UnixMillis(1),
        severity: Severity::Err,
        text: "t".to_owned(),
        data: Some(rmpv::Value::Binary(vec![1])),
        epoch: Some(epoch()),
        seq: Some(1),
        origin: None,
    };
    pinned(
        &event,
        "<8a><a4>host<a1>w<a4>from<a1>w<a7>service<a1>s<a4>unit<a0><a4>time<01><a8>severity<a3>ERR\
         <a4>text<a1>t<a4>data<c4><01><01><a5>epoch<a2>e1<a3>seq<01>",
    );
}

#[test]
fn alive_bytes() {
    let alive = Alive {
        host: host("w"),
        time: UnixMillis(1),
        via: vec![host("r")],
        inventory: "h".to_owned(),
        addresses: None,
        goodbye: false,
        epoch: None,
        seq: None,
        origin: None,
    };
    pinned(&alive, "<84><a4>host<a1>w<a4>time<01><a3>via<91><a1>r<a9>inventory<a1>h");
    let watched = CheckAddress { host: host("w"), service: name("port"), unit: unit("x") };
    let journaled = Alive {
        addresses: Some(vec![watched]),
        goodbye: true,
        epoch: Some(epoch()),
        seq: Some(3),
        via: Vec::new(),
        ..alive
    };
    pinned(
        &journaled,
        "<88><a4>host<a1>w<a4>time<01><a3>via<90><a9>inventory<a1>h<a9>addresses<91><a8>w!port:x\
         <a7>goodbye<c3><a5>epoch<a2>e1<a3>seq<03>",
    );
}

#[test]
fn beat_bytes() {
    let beat = Beat {
        time: UnixMillis(1_795_236_306_001),
        epoch: epoch(),
        head_seq: 9,
        host: None,
        nth: Some(BTreeMap::from([(Severity::Warn, 2)])),
    };
    pinned(&beat, "<84><a4>time<cf><00><00><01><a1><fc>l<1c>Q<a5>epoch<a2>e1<a8>head_seq<09><a3>nth<81><a4>WARN<02>");
}

#[test]
fn event_bytes() {
    let address = CheckAddress { host: host("w"), service: name("port"), unit: unit("x") };
    let incident = IncidentId::new(&address.clone().into(), "check", UnixMillis(5));
    let event = Event {
        epoch: epoch(),
        seq: 1,
        nth: 1,
        id: EventId::new(incident, Kind::Down, 1),
        incident,
        kind: Kind::Down,
        address: address.clone().into(),
        host: address.host,
        service: address.service,
        unit: address.unit,
        severity: Severity::Err,
        top_severity: Severity::Err,
        state: State::Down,
        since: UnixMillis(5),
        time: UnixMillis(5),
        text: "refused".to_owned(),
        value: None,
        rule: "check".to_owned(),
        step: None,
        duration_ms: None,
        suppressed_by: Vec::new(),
        data: None,
    };
    pinned(
        &event,
        "<de><00><11><a5>epoch<a2>e1<a3>seq<01><a3>nth<01>\
         <a2>id<d9>$fae0778f-9a09-51ae-8bac-f014e4f9369c<a8>incident<d9>$9910d752-b329-543f-83c0-d3dcffa668bb\
         <a4>kind<a4>down<a7>address<a8>w!port:x<a4>host<a1>w<a7>service<a4>port<a4>unit<a1>x<a8>severity<a3>ERR\
         <ac>top_severity<a3>ERR<a5>state<a4>down<a5>since<05><a4>time<05><a4>text<a7>refused<a4>rule<a5>check",
    );
    assert_eq!(event_topic(event.top_severity, &event.host), "event.ERR.w!");
}

#[test]
fn ids_are_the_same_on_every_machine() {
    let address = CheckAddress { host: host("web1"), service: name("port"), unit: unit("www") }.into();
    let incident = IncidentId::new(&address, "check", UnixMillis(1_795_236_306_001));
    assert_eq!(incident.to_string(), "73536c91-0be0-52cf-a022-1a59a3409584");
    assert_eq!(EventId::new(incident, Kind::Down, 1).to_string(), "66463f89-08fe-5e28-84c9-29cd1cdfa757");
    assert_ne!(EventId::new(incident, Kind::Down, 2), EventId::new(incident, Kind::Down, 1));
    assert_ne!(EventId::new(incident, Kind::Up, 1), EventId::new(incident, Kind::Down, 1));
}

#[test]
fn a_plugin_of_2013_is_understood() {
    // Captured form: {service, msg_type: "value", resource_type, unit, values} and {service, msg_type: "up", unit, initial}.
    let value = b"\x85\xa7service\xa5nginx\xa8msg_type\xa5value\xadresource_type\xa4http\xa4unit\xa3all\xa6values\x81\xa3rps\x05";
    let message: PluginMessage = decode(value).expect("a value");
    assert_eq!(
        message.report,
        PluginReport::Value { resource_type: name("http"), values: Values(vec![(name("rps"), 5.0)]) }
    );
    let up = b"\x84\xa7service\xa5nginx\xa8msg_type\xa2up\xa4unit\xa3all\xa7initial\xc3";
    let message: PluginMessage = decode(up).expect("a state");
    assert_eq!((message.unit.as_str(), message.report), ("all", PluginReport::Up { text: String::new() }));
}

#[test]
fn a_kind_of_a_newer_cprocessd_is_read_as_other() {
    assert_eq!(serde_json::from_str::<Kind>("\"eclipse\"").expect("a kind"), Kind::Other);
}

#[test]
fn numbers_that_are_none_can_be_dropped_one_by_one() {
    let mut values = Values(vec![(name("a"), f64::NAN), (name("b"), 1.0), (name("c"), f64::INFINITY)]);
    assert_eq!(values.drop_non_finite(), 2);
    assert_eq!(values, Values(vec![(name("b"), 1.0)]));
}

#[test]
fn answer_bytes() {
    let address = CheckAddress { host: host("w"), service: name("port"), unit: unit("x") };
    let incident = IncidentId::new(&address.clone().into(), "check", UnixMillis(5));
    let number: crate::address::Address = "w!machine.disk:/.free".parse().expect("an address");
    let server = ServerRow {
        host: host("w"),
        state: State::Up,
        since: UnixMillis(1),
        last_seen: UnixMillis(2),
        severity: Some(Severity::Warn),
        checks: 1,
        open: 1,
    };
    pinned(
        &server,
        "<87><a4>host<a1>w<a5>state<a2>up<a5>since<01><a9>last_seen<02><a8>severity<a4>WARN<a6>checks<01>\
         <a4>open<01>",
    );
    let service = ServiceRow {
        host: host("w"),
        service: name("port"),
        unit: unit("x"),
        state: State::Unknown,
        since: UnixMillis(1),
        text: "t".to_owned(),
    };
    pinned(&service, "<86><a4>host<a1>w<a7>service<a4>port<a4>unit<a1>x<a5>state<a7>unknown<a5>since<01><a4>text<a1>t");
    let down = DownRow {
        incident,
        address: address.clone().into(),
        rule: "check".to_owned(),
        kind: Some(Kind::Down),
        severity: Severity::Crit,
        since: UnixMillis(5),
        text: "t".to_owned(),
        acked: false,
        silenced: false,
        unreachable: false,
        step: None,
        suppressed_by: Vec::new(),
    };
    pinned(
        &down,
        "<8a><a8>incident<d9>$9910d752-b329-543f-83c0-d3dcffa668bb<a7>address<a8>w!port:x<a4>rule<a5>check\
         <a4>kind<a4>down<a8>severity<a4>CRIT<a5>since<05><a4>text<a1>t<a5>acked<c2><a8>silenced<c2><ab>unreachable<c2>",
    );
    let value = ValueRow { address: number.clone(), value: 0.5, time: UnixMillis(1), stale: false };
    pinned(
        &value,
        "<84><a7>address<b5>w!machine.disk:/.free<a5>value<cb>?<e0><00><00><00><00><00><00><a4>time<01>\
         <a5>stale<c2>",
    );
    let active = AlarmState { address: number, open: true, since: UnixMillis(1), value: None };
    let alarm = AlarmRow {
        name: "n".to_owned(),
        rule: "r".to_owned(),
        severity: Severity::Err,
        matches: 1,
        active: vec![active],
        origin: "file".to_owned(),
        author: None,
        added: None,
    };
    pinned(
        &alarm,
        "<86><a4>name<a1>n<a4>rule<a1>r<a8>severity<a3>ERR<a7>matches<01><a6>active<91><84><a7>address\
         <b5>w!machine.disk:/.free<a4>open<c3><a5>since<01><a5>value<c0><a6>origin<a4>file",
    );
    let health = Health {
        daemon: "cprocessd".to_owned(),
        version: "0".to_owned(),
        epoch: None,
        head_seq: 1,
        rss_bytes: 2,
        peak_rss_bytes: 3,
        databases: Vec::new(),
        uptime_secs: 4,
        counters: BTreeMap::from([("query.undecodable".to_owned(), 1)]),
    };
    pinned(
        &health,
        "<88><a6>daemon<a9>cprocessd<a7>version<a1>0<a5>epoch<c0><a8>head_seq<01><a9>rss_bytes<02>\
         <ae>peak_rss_bytes<03><ab>uptime_secs<04><a8>counters<81><b1>query.undecodable<01>",
    );
    let row =
        FeedSnapshotHost { host: host("w"), via: vec![host("r")], inventory: vec![address], hash: "h".to_owned() };
    pinned(
        &FeedSnapshot { epoch: epoch(), seq: 1, hosts: vec![row], checks: Vec::new() },
        "<84><a5>epoch<a2>e1<a3>seq<01><a5>hosts<91><84><a4>host<a1>w<a3>via<91><a1>r<a9>inventory<91>\
         <a8>w!port:x<a4>hash<a1>h<a6>checks<90>",
    );
    let snapshot =
        StreamSnapshot { epoch: epoch(), seq: 1, hosts: vec![server], checks: Vec::new(), incidents: Vec::new() };
    assert!(readable(&encode(&snapshot)).starts_with("<85><a5>epoch<a2>e1<a3>seq<01><a5>hosts<91>"));
    pinned(
        &EventsPage { epoch: epoch(), head_seq: 2, events: vec![1_u8] },
        "<83><a5>epoch<a2>e1<a8>head_seq<02><a6>events<91><01>",
    );
    let forgotten = Ordered { addresses: vec!["w!port:x".to_owned()], ..Ordered::default() };
    pinned(&forgotten, "<82><a9>addresses<91><a8>w!port:x<a9>unreached<90>");
}

#[test]
fn ledger_bytes() {
    let address: crate::address::Address =
        CheckAddress { host: host("w"), service: name("port"), unit: unit("x") }.into();
    let incident = IncidentId::new(&address, "check", UnixMillis(5));
    let row = LedgerRow {
        item: 1,
        who: "ops".to_owned(),
        via: "smtp".to_owned(),
        queued: UnixMillis(6),
        kind: Kind::Down,
        address,
        severity: Severity::Err,
        incident,
        event: EventId::new(incident, Kind::Down, 1),
        text: "t".to_owned(),
        state: Delivery::Sent,
        changed: UnixMillis(7),
        attempts: 1,
        again: 0,
        message: None,
        result: "250".to_owned(),
    };
    pinned(
        &row,
        "<de><00><10><a4>item<01><a3>who<a3>ops<a3>via<a4>smtp<a6>queued<06><a4>kind<a4>down<a7>address<a8>w!port:x\
         <a8>severity<a3>ERR<a8>incident<d9>$9910d752-b329-543f-83c0-d3dcffa668bb\
         <a5>event<d9>$fae0778f-9a09-51ae-8bac-f014e4f9369c<a4>text<a1>t<a5>state<a4>sent<a7>changed<07><a8>attempts<01>\
         <a5>again<00><a7>message<c0><a6>result<a3>250",
    );
}
