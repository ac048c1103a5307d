//! What is not told for a while, and what is told again.

use super::*;
use crate::engine::dependency::{Dependencies, Dependency, target};
use crate::engine::ladder::Rung;
use crate::engine::window::{When, Window, date_time};
use common::message::EventId;
use common::zone::{time_of_day, weekday};

const WWW: &str = "web1!port:www";

fn silence(pattern: &str, until_secs: u64) -> Request {
    Request { pattern: Some(pattern.into()), until: Some(wall(until_secs * 1000)), ..Request::order("silence") }
}

fn unsilence(id: &str) -> Request {
    Request { silence: Some(id.into()), ..Request::order("unsilence") }
}

fn ack(pattern: &str, until_secs: Option<u64>) -> Request {
    let until = until_secs.map(|secs| wall(secs * 1000));
    Request { pattern: Some(pattern.into()), until, ..Request::order("ack") }
}

fn unack(pattern: &str) -> Request {
    Request { pattern: Some(pattern.into()), ..Request::order("unack") }
}

/// With the usual ladder.
fn lasting(settings: Settings) -> Settings {
    Settings { ladder: Ladder::default(), ..settings }
}

fn depending(list: &[(&str, &[&str])]) -> Settings {
    let list = list.iter().map(|(pattern, on)| Dependency {
        pattern: pattern.parse().expect("pattern"),
        on: on.iter().map(|text| target(text).expect("check")).collect(),
    });
    Settings { dependencies: Dependencies::new(list.collect()).expect("no circle"), ..settings(&[]) }
}

/// web1 lives and its web server is up.
fn running(settings: Settings) -> Timeline {
    let timeline = Timeline::with(settings).live("web1").up(WWW);
    Timeline { told: Vec::new(), ..timeline }
}

#[track_caller]
fn last_text(timeline: &Timeline) -> &str {
    &timeline.drafts.last().expect("an event").text
}

fn row(timeline: &Timeline) -> common::message::DownRow {
    timeline.engine.down_list().into_iter().next().expect("something is open")
}

#[test]
fn what_opens_in_a_silence_is_kept_and_told_when_the_silence_is_over() {
    let timeline = running(settings(&[])).at(10).order("s1", silence("web1", 100)).down(WWW).at(50);
    assert!(row(&timeline).silenced && !row(&timeline).unreachable && !row(&timeline).acked);
    assert_eq!(timeline.engine.silence_list()[0].open, 1);
    let timeline = timeline.restart().at(101).expect([
        "10s INFO silence monitor!cprocessd: [order]",
        "ordered ",
        "10s ERR down web1!port:www (silence:s1)",
        "100s INFO silence monitor!cprocessd: [order]",
        "100s ERR revealed web1!port:www",
    ]);
    assert_eq!(last_text(&timeline), "silence by ann ended; port www is down for 1m 30s: refused");
    assert_eq!(timeline.drafts.last().expect("an event").since, wall(10_000));
    assert!(timeline.engine.silence_list().is_empty());
    assert!(!row(&timeline).silenced && row(&timeline).suppressed_by.is_empty());
    timeline.restart().at(200).up(WWW).expect(["200s INFO up web1!port:www after 190s"]);
}

#[test]
fn what_was_told_before_a_silence_is_not_told_again_after_it() {
    let timeline = running(settings(&[])).at(10).down(WWW).order("s1", silence("web1!port", 100)).at(200);
    timeline.expect([
        "10s ERR down web1!port:www",
        "10s INFO silence monitor!cprocessd: [order]",
        "ordered web1!port:www",
        "100s INFO silence monitor!cprocessd: [order]",
    ]);
}

#[test]
fn what_ended_in_a_silence_is_not_revealed() {
    running(settings(&[])).order("s1", silence("web1", 100)).at(10).down(WWW).at(20).up(WWW).at(200).expect([
        "0s INFO silence monitor!cprocessd: [order]",
        "ordered ",
        "10s ERR down web1!port:www (silence:s1)",
        "20s INFO up web1!port:www after 10s",
        "100s INFO silence monitor!cprocessd: [order]",
    ]);
}

#[test]
fn only_the_last_of_several_silences_reveals() {
    running(settings(&[]))
        .order("s1", silence("web1", 100))
        .order("s2", silence("*!port", 200))
        .at(10)
        .down(WWW)
        .at(150)
        .expect([
            "0s INFO silence monitor!cprocessd: [order]",
            "ordered ",
            "0s INFO silence monitor!cprocessd: [order]",
            "ordered ",
            "10s ERR down web1!port:www (silence:s1) (silence:s2)",
            "100s INFO silence monitor!cprocessd: [order]",
        ])
        .order("u1", unsilence("s2"))
        .expect(["150s INFO silence monitor!cprocessd: [order]", "150s ERR revealed web1!port:www", "ordered "]);
}

#[test]
fn a_silence_that_ends_twice_or_never_was_is_an_error() {
    running(settings(&[]))
        .order("s1", silence("web1", 100))
        .order("u1", unsilence("s1"))
        .order("u2", unsilence("s1"))
        .order("u1", unsilence("s1"))
        .at(200)
        .expect([
            "0s INFO silence monitor!cprocessd: [order]",
            "ordered ",
            "0s INFO silence monitor!cprocessd: [order]",
            "ordered ",
            "not ordered: there is no silence \"s1\"",
            "ordered ",
        ]);
}

#[test]
fn what_happens_once_is_silenced_too() {
    let timeline = running(settings(&[])).order("s1", silence("web1", 100)).at(10).retried(WWW).goodbye("web1");
    timeline.expect([
        "0s INFO silence monitor!cprocessd: [order]",
        "ordered ",
        "10s WARN blip web1!port:www [blip] (silence:s1)",
        "10s INFO stopped web1!alive: (silence:s1)",
    ]);
}

#[test]
fn a_restart_after_the_end_of_a_silence_reveals_it_once_nothing_waits() {
    let timeline = running(settings(&[])).order("s1", silence("web1", 100)).at(10).down(WWW);
    let timeline = Timeline { told: Vec::new(), ..timeline }.paused_until(500).restart();
    // The end of the outage was in the journal of the feed all the while, and takes its time to arrive.
    timeline
        .at(501)
        .up(WWW)
        .at(510)
        .expect(["501s INFO up web1!port:www after 491s", "100s INFO silence monitor!cprocessd: [order]"]);
}

#[test]
fn a_window_suppresses_while_it_lasts_and_reveals_at_its_end() {
    // Second 0 is 2001-09-09T01:46:40Z, a Sunday.
    let window = Window {
        name: "night".into(),
        pattern: "web1".parse().expect("pattern"),
        when: When::Weekly {
            days: vec![weekday("weekly", "sun").expect("day")],
            at: time_of_day("at", "02:00").expect("time"),
            lasting: Duration::from_mins(10),
        },
        zone: "UTC".parse().expect("zone"),
    };
    let settings = Settings { windows: vec![window], ..settings(&[]) };
    let timeline = running(settings).at(790).down(WWW).at(799).up(WWW).at(801).down(WWW);
    let timeline = timeline.expect([
        "790s ERR down web1!port:www",
        "799s INFO up web1!port:www after 9s",
        "801s ERR down web1!port:www (maintenance:night)",
    ]);
    let listed = timeline.engine.maintenance_list();
    assert_eq!(listed[0].active_until, Some(wall(1_400_000)));
    assert_eq!(listed[0].next.len(), 5);
    assert_eq!(listed[0].next[0].0, wall(800_000 + 7 * 86_400_000));
    let timeline = timeline.restart().at(1401).expect(["1400s ERR revealed web1!port:www"]);
    assert_eq!(last_text(&timeline), "maintenance night ended; port www is down for 9m 59s: refused");
    assert_eq!(timeline.engine.maintenance_list()[0].active_until, None);
}

#[test]
fn a_window_that_leaves_the_configuration_ends() {
    let read = |text| date_time("from", text).expect("date");
    let window = Window {
        name: "move".into(),
        pattern: "web1".parse().expect("pattern"),
        when: When::Once { from: read("2001-09-09 01:47"), until: read("2001-09-10 00:00") },
        zone: "UTC".parse().expect("zone"),
    };
    let timeline = running(Settings { windows: vec![window], ..settings(&[]) }).at(30).down(WWW);
    let reloaded = timeline.expect(["30s ERR down web1!port:www (maintenance:move)"]).at(60).reload(settings(&[]));
    reloaded.expect(["60s ERR revealed web1!port:www"]).restart().at(100).expect([]);
}

#[test]
fn what_is_open_on_a_host_that_goes_down_is_unreachable_until_it_is_observed_again() {
    let timeline = running(settings(&[])).at(10).down(WWW).at(15).silent("web1").at(60);
    let timeline = timeline.expect(["10s ERR down web1!port:www", "25500ms CRIT down web1!alive:"]);
    let www = timeline.engine.down_list().into_iter().find(|row| row.rule == "check" && row.severity == Severity::Err);
    assert_eq!(www.expect("open").suppressed_by, ["unreachable:web1!alive:"]);
    // It was told, so there is nothing to reveal.
    timeline.live("web1").at(90).expect(["60s INFO up web1!alive: after 45s"]);
}

/// web1 lives, router1 is looked at from elsewhere.
fn behind_a_router(settings: Settings) -> Timeline {
    let timeline = Timeline::with(settings).live("web1").up(WWW).up("router1!port:ssh").up("router1!alive:");
    Timeline { told: Vec::new(), ..timeline }
}

#[test]
fn what_depends_on_something_down_is_revealed_only_by_its_own_next_observation() {
    let timeline = behind_a_router(depending(&[("web*", &["router1!port:ssh"])]));
    let timeline = timeline
        .at(10)
        .down("router1!port:ssh")
        .at(12)
        .down(WWW)
        .at(30)
        .expect(["10s ERR down router1!port:ssh", "12s ERR down web1!port:www (unreachable:router1!port:ssh)"]);
    assert!(timeline.engine.down_list().iter().any(|row| row.unreachable && !row.silenced));
    // The router is seen to be up before the check behind it is looked at again.
    let mut timeline = timeline.up("router1!port:ssh").expect(["30s INFO up router1!port:ssh after 20s"]);
    timeline.apply(Input::Idle);
    timeline.expect([]).up(WWW).at(100).expect(["30s INFO up web1!port:www after 18s"]);
}

#[test]
fn what_is_still_bad_after_the_recovery_is_revealed() {
    let timeline = behind_a_router(depending(&[("web*", &["router1!port:ssh"])]));
    let timeline = timeline.at(10).down("router1!port:ssh").at(12).down(WWW).at(30).up("router1!port:ssh").at(40);
    let timeline = timeline.expect([
        "10s ERR down router1!port:ssh",
        "12s ERR down web1!port:www (unreachable:router1!port:ssh)",
        "30s INFO up router1!port:ssh after 20s",
        "31s ERR revealed web1!port:www",
    ]);
    let text = &timeline.drafts.last().expect("an event").text;
    assert_eq!(text, "router1!port:ssh is up again; port www is down for 19s: refused");
}

#[test]
fn what_is_not_observed_after_the_recovery_is_revealed_after_a_while() {
    let timeline = behind_a_router(depending(&[("web*", &["router1!port:ssh"])]));
    let timeline = timeline.at(10).down("router1!port:ssh").at(12).down(WWW).unreported(WWW).at(20);
    let timeline = timeline.up("router1!port:ssh").restart().at(60);
    timeline.expect([
        "10s ERR down router1!port:ssh",
        "12s ERR down web1!port:www (unreachable:router1!port:ssh)",
        "20s INFO up router1!port:ssh after 10s",
        "30500ms ERR revealed web1!port:www",
    ]);
}

#[test]
fn of_a_chain_the_root_is_named_and_what_is_between_takes_its_place() {
    let chain = depending(&[("web*", &["router1!port:ssh"]), ("router1!port:ssh", &["uplink!port:x"])]);
    let timeline = behind_a_router(chain).up("uplink!port:x").at(5);
    let timeline = Timeline { told: Vec::new(), ..timeline };
    let timeline = timeline.at(10).down("uplink!port:x").down("router1!port:ssh").down(WWW).at(20).expect([
        "10s ERR down uplink!port:x",
        "10s ERR down router1!port:ssh (unreachable:uplink!port:x)",
        "10s ERR down web1!port:www (unreachable:uplink!port:x)",
    ]);
    // The repetitions of live hosts only come from web1: the router is observed by hand.
    let timeline = timeline.up("uplink!port:x").at(25);
    let www = timeline.engine.down_list().into_iter().find(|row| row.address.to_string() == WWW).expect("open");
    assert_eq!(www.suppressed_by, ["unreachable:router1!port:ssh"]);
    let timeline = timeline
        .down("router1!port:ssh")
        .expect(["20s INFO up uplink!port:x after 10s", "25s ERR revealed router1!port:ssh"]);
    timeline
        .at(30)
        .up("router1!port:ssh")
        .at(40)
        .expect(["30s INFO up router1!port:ssh after 20s", "31s ERR revealed web1!port:www"]);
}

#[test]
fn the_first_telling_is_told_though_acknowledged_and_the_steps_are_not() {
    let timeline = running(lasting(settings(&[]))).at(10).down(WWW).at(20).order("a1", ack("web1", None)).at(400);
    assert!(row(&timeline).acked);
    assert_eq!(row(&timeline).suppressed_by, ["ack:ann"]);
    let timeline = timeline.restart().at(500).expect([
        "10s ERR down web1!port:www",
        "20s INFO ack monitor!cprocessd: [order]",
        "ordered web1!port:www",
        "310s ERR persistent web1!port:www step 1 (ack:ann)",
    ]);
    let timeline = timeline.order("a2", unack("web1!port")).expect([
        "500s INFO ack monitor!cprocessd: [order]",
        "500s ERR revealed web1!port:www step 1",
        "ordered web1!port:www",
    ]);
    assert!(
        timeline
            .drafts
            .iter()
            .any(|draft| { draft.text == "acknowledgement by ann ended; port www is down for 8m 10s: refused" })
    );
}

#[test]
fn an_acknowledgement_ends_with_its_time_or_its_incident() {
    let timeline =
        running(settings(&[])).at(10).down(WWW).order("a1", ack("web1", Some(60))).restart().at(70).expect([
            "10s ERR down web1!port:www",
            "10s INFO ack monitor!cprocessd: [order]",
            "ordered web1!port:www",
            "60s INFO ack web1!port:www",
        ]);
    assert!(!row(&timeline).acked);
    let timeline = timeline.order("a2", ack("web1", Some(200))).at(80).up(WWW).at(90).down(WWW).at(300);
    assert!(!row(&timeline).acked);
    timeline.expect([
        "70s INFO ack monitor!cprocessd: [order]",
        "ordered web1!port:www",
        "80s INFO up web1!port:www after 70s",
        "90s ERR down web1!port:www",
    ]);
}

#[test]
fn what_opened_in_a_silence_is_revealed_although_somebody_looks_after_it() {
    running(settings(&[]))
        .order("s1", silence("web1", 100))
        .at(10)
        .down(WWW)
        .order("a1", ack("web1", None))
        .at(101)
        .expect([
            "0s INFO silence monitor!cprocessd: [order]",
            "ordered ",
            "10s ERR down web1!port:www (silence:s1)",
            "10s INFO ack monitor!cprocessd: [order]",
            "ordered web1!port:www",
            "100s INFO silence monitor!cprocessd: [order]",
            "100s ERR revealed web1!port:www",
        ]);
}

#[test]
fn by_its_id_one_incident_is_acknowledged() {
    let timeline = running(settings(&[])).at(10).down(WWW).down("web1!port:sql").at(11);
    let id = row(&timeline).incident.to_string();
    let order = Request { incident: Some(id), ..Request::order("ack") };
    let timeline = timeline.order("a1", order);
    assert_eq!(timeline.engine.down_list().iter().filter(|row| row.acked).count(), 1);
    let nobody = Request { incident: Some(EventId::of_origin("x", "y").to_string()), ..Request::order("ack") };
    let told = timeline.order("a2", nobody).order("a3", unack("db1")).told;
    assert!(told[told.len() - 2].starts_with("not ordered: nothing is open for incident "), "{told:?}");
    assert_eq!(told[told.len() - 1], "not ordered: nothing is open for db1");
}

#[test]
fn the_ladder_is_climbed_once_whatever_restarts_and_clocks_do() {
    let timeline = running(lasting(settings(&[])))
        .at(10)
        .down(WWW)
        .at(310)
        .expect(["10s ERR down web1!port:www", "310s ERR persistent web1!port:www step 1"]);
    assert_eq!(row(&timeline).step, Some(1));
    assert_eq!(last_text(&timeline), "still down after 5m 0s: refused");
    let mut timeline = timeline.restart().at(400);
    // The clock is put back by five minutes, and corrected.
    let engine_ms = timeline.now_ms;
    for (monotonic_ms, wall_ms) in
        [(engine_ms + 500, 100_000), (engine_ms + 1000, 105_000), (engine_ms + 1500, engine_ms)]
    {
        let now = Now { monotonic: Duration::from_millis(monotonic_ms), wall: wall(wall_ms) };
        let outputs = timeline.engine.apply(now, Input::Idle);
        timeline.take(outputs);
    }
    timeline.now_ms = engine_ms + 1500;
    let timeline = timeline.at(3620).expect(["3610s ERR persistent web1!port:www step 2"]);
    // Who was away says the last step, and not those before.
    let timeline = timeline.up(WWW).at(3700).down(WWW).paused_until(8000).restart().at(8010);
    let timeline = timeline.expect([
        "3620s INFO up web1!port:www after 3610s step 2",
        "3700s ERR down web1!port:www",
        "8002500ms ERR persistent web1!port:www step 2",
    ]);
    assert_eq!(timeline.drafts.last().expect("an event").id, {
        let incident = row(&timeline).incident;
        EventId::new(incident, Kind::Persistent, 2)
    });
}

#[test]
fn what_flaps_is_not_said_to_be_still_down() {
    let mut timeline = running(lasting(settings(&[])));
    for secs in [10, 20, 30, 40, 50, 60] {
        timeline = timeline.at(secs);
        timeline = if secs % 20 == 10 { timeline.down(WWW) } else { timeline.up(WWW) };
    }
    // Its incident is kept open until it is calm.
    timeline.at(1000).expect([
        "10s ERR down web1!port:www",
        "20s INFO up web1!port:www after 10s",
        "30s ERR down web1!port:www",
        "40s INFO up web1!port:www after 10s",
        "50s ERR down web1!port:www",
        "60s WARN flapping web1!port:www [flapping]",
        "360s INFO flapping web1!port:www [flapping] after 50s",
        "60s INFO up web1!port:www after 10s",
    ]);
}

#[test]
fn what_is_found_late_begins_on_the_step_it_has_reached() {
    let timeline = running(lasting(settings(&[]))).at(4000);
    let mut check = timeline.check_message(&WWW.parse().expect("address"), false, wall(100_000).0, 0);
    check.time = wall(4_000_000);
    let mut timeline = timeline;
    timeline.repeated.insert(WWW.into(), (false, wall(100_000).0));
    timeline.apply(Input::Check(check));
    timeline.at(4100).expect(["4000s ERR down web1!port:www step 2"]);
}

#[test]
fn a_step_makes_it_worse_and_repeats() {
    let rungs = vec![
        Rung { after: Duration::from_mins(1), severity: None, repeat: None },
        Rung { after: Duration::from_mins(2), severity: Some(Severity::Crit), repeat: Some(Duration::from_mins(2)) },
    ];
    let settings = Settings { ladder: Ladder::new(rungs).expect("in order"), ..settings(&[]) };
    running(settings).down(WWW).at(300).up(WWW).expect([
        "0s ERR down web1!port:www",
        "60s ERR persistent web1!port:www step 1",
        "120s CRIT persistent web1!port:www step 2",
        "240s CRIT persistent web1!port:www step 3",
        "300s INFO up web1!port:www after 300s step 3",
    ]);
}

#[test]
fn steps_in_a_silence_are_revealed_as_the_last_of_them() {
    let timeline = running(lasting(settings(&[]))).at(10).down(WWW).order("s1", silence("*", 4000)).at(4001);
    timeline.expect([
        "10s ERR down web1!port:www",
        "10s INFO silence monitor!cprocessd: [order]",
        "ordered web1!port:www",
        "310s ERR persistent web1!port:www step 1 (silence:s1)",
        "3610s ERR persistent web1!port:www step 2 (silence:s1)",
        "4000s INFO silence monitor!cprocessd: [order]",
        "4000s ERR revealed web1!port:www step 2",
    ]);
}

#[test]
fn rules_by_order_look_at_once_and_their_incidents_go_with_them() {
    let add = |name: &str, rule: &str| Request {
        name: Some(name.into()),
        rule: Some(rule.into()),
        ..Request::order("rule-add")
    };
    let remove = |name: &str| Request { name: Some(name.into()), ..Request::order("rule-remove") };
    let configured = settings(&[("disk", "*!machine.disk > 90 ERR")]);
    let timeline = Timeline::with(configured.clone()).live("web1").value(DISK, 50.0);
    let timeline = Timeline { told: Vec::new(), ..timeline };
    let timeline = timeline.order("r1", add("half", "*!machine.disk > 40 WARN")).value(DISK, 51.0).at(1).restart();
    let timeline = timeline.at(2).value(DISK, 52.0).expect([
        "0s INFO order monitor!cprocessd: [order]",
        "ordered ",
        "0s WARN alarm web1!machine.disk:/.used_percentage [half]",
    ]);
    let listed = timeline.engine.alarm_list().into_iter().find(|row| row.name == "half").expect("listed");
    assert_eq!((listed.origin.as_str(), listed.author.as_deref(), listed.matches), ("order", Some("ann"), 1));
    assert_eq!(listed.added, Some(wall(0)));
    let timeline = timeline.order("r2", add("disk", "*!machine.disk > 10 WARN")).order("r3", remove("disk")).expect([
        "not ordered: rule \"disk\" is in the configuration, and is changed there",
        "not ordered: rule \"disk\" is in the configuration, and is removed there",
    ]);
    let timeline = timeline.order("r4", remove("half")).at(10).value(DISK, 53.0).expect([
        "2s INFO order monitor!cprocessd: [order]",
        "2s INFO retired web1!machine.disk:/.used_percentage [half] after 2s",
        "ordered ",
    ]);
    // The name appears in the file, which goes before.
    let timeline = timeline.order("r5", add("half", "*!machine.disk > 40 WARN"));
    let both = settings(&[("disk", "*!machine.disk > 90 ERR"), ("half", "*!machine.disk > 45 CRIT")]);
    Timeline { told: Vec::new(), ..timeline }.reload(both).value(DISK, 54.0).expect([
        "notice: rule \"half\" of the configuration takes the place of the one that was ordered",
        "10s CRIT alarm web1!machine.disk:/.used_percentage [half]",
    ]);
}

#[test]
fn subscribers_are_kept() {
    let add = Request {
        name: Some("ops".into()),
        via: Some("mail".into()),
        severity: Some(Severity::Err),
        pattern: Some("web*".into()),
        ..Request::order("subscriber-add")
    };
    let remove = Request { name: Some("ops".into()), via: Some("mail".into()), ..Request::order("subscriber-remove") };
    let timeline = Timeline::new().order("1", add).restart();
    let rows = timeline.engine.subscriber_list();
    assert_eq!((rows.len(), rows[0].name.as_str(), rows[0].pattern.as_str()), (1, "ops", "web*"));
    let timeline = timeline.order("2", remove.clone()).order("3", remove).restart();
    assert!(timeline.engine.subscriber_list().is_empty());
    assert_eq!(timeline.told.last().map(String::as_str), Some("not ordered: \"ops\" is not subscribed by \"mail\""));
}

#[test]
fn who_has_agreed_to_be_told_has_agreed_until_removed() {
    let order = |name: &str| Request { name: Some("a@b.c".into()), via: Some("mail".into()), ..Request::order(name) };
    let add = |severity| Request { severity: Some(severity), pattern: Some("*".into()), ..order("subscriber-add") };
    let confirmed = |timeline: &Timeline| timeline.engine.subscriber_list()[0].confirmed;
    let timeline = Timeline::new().order("1", order("subscriber-confirm"));
    let refused = Some("not ordered: \"a@b.c\" is not subscribed by \"mail\"");
    assert_eq!(timeline.told.last().map(String::as_str), refused);
    let timeline = timeline.order("2", add(Severity::Err));
    assert_eq!(confirmed(&timeline), None);
    let timeline = timeline.at(5).order("3", order("subscriber-confirm")).restart();
    let agreed = confirmed(&timeline);
    assert_eq!(agreed, Some(wall(5000)));
    // Again, and to be told of something else.
    let timeline = timeline.at(9).order("4", order("subscriber-confirm")).order("5", add(Severity::Crit)).restart();
    assert_eq!((confirmed(&timeline), timeline.engine.subscriber_list()[0].severity), (agreed, Severity::Crit));
    let timeline = timeline.order("6", order("subscriber-remove")).order("7", add(Severity::Err));
    assert_eq!(confirmed(&timeline), None);
}

#[test]
fn an_address_is_explained() {
    let settings = Settings {
        rules: settings(&[("no www", "*!port:www absent for 1h WARN")]).rules,
        ..depending(&[("web*", &["router1"])])
    };
    let timeline = running(settings).at(10).down(WWW).order("s1", silence("web1", 100));
    let explained = timeline.engine.explain(&WWW.parse().expect("address")).expect("known");
    assert_eq!((explained.state, explained.since), (State::Down, Some(wall(10_000))));
    assert_eq!(explained.last.as_deref(), Some("refused"));
    assert_eq!(explained.suppressed_by, ["silence:s1"]);
    assert_eq!((explained.rules.len(), explained.rules[0].phase.as_str()), (1, "fine"));
    let depends: Vec<_> = explained.depends_on.iter().map(|(on, state)| format!("{on} {state}")).collect();
    assert_eq!(depends, ["web1!alive: up", "router1!alive: unknown"]);
    assert_eq!(
        explained.why,
        [
            "it is down (ERR) since 2001-09-09T01:46:50.000Z: refused",
            "ann silenced web1 until 2001-09-09T01:48:20.000Z",
        ]
    );
    assert!(timeline.engine.explain(&"web9!port:www".parse().expect("address")).is_none());
    assert_eq!(timeline.engine.explain(&"web1!alive:".parse().expect("address")).expect("known").state, State::Up);
}

#[test]
fn what_is_wrong_with_an_order_is_named() {
    let told = |request: Request| Timeline::new().at(1).order("o1", request).told.concat();
    let pattern = |name: &str| Request { pattern: Some("web*".into()), ..Request::order(name) };
    assert!(told(Request::query("health")).contains("an order has a field order"));
    assert!(told(Request::order("dance")).contains("there is no order \"dance\" here, only forget, silence"));
    assert!(told(Request::order("forget")).contains("forget needs a pattern"));
    assert!(told(pattern("silence")).contains("silence needs until"));
    assert!(told(Request { until: Some(wall(500)), ..pattern("silence") }).contains("must be in the future"));
    let year = Some(UnixMillis(wall(0).0 + 400 * 86_400_000));
    assert!(told(Request { until: year, ..pattern("maintenance") }).contains("at most a year away"));
    let reason = Some("x".repeat(501));
    assert!(
        told(Request { reason, until: Some(wall(9000)), ..pattern("silence") }).contains("reason may be at most 500")
    );
    assert!(told(Request::order("ack")).contains("ack needs either incident or pattern"));
    assert!(told(Request { incident: Some("x".into()), ..Request::order("ack") }).contains("as down-list has it"));
    let rule = |name: &str, rule: &str| Request {
        name: Some(name.into()),
        rule: Some(rule.into()),
        ..Request::order("rule-add")
    };
    assert!(told(rule("check", "a > 5 WARN")).contains("which cprocessd uses itself"));
    assert!(
        told(rule("x", "a > five WARN")).contains("rule: ") && told(rule("", "a > 5 WARN")).contains("1 to 100 bytes")
    );
    let author = |id: &str, author: &str| {
        let request = Request { id: Some(id.into()), author: Some(author.into()), ..pattern("forget") };
        Order::read(&request, wall(0)).map(|order| order.id).map_err(|error| error.to_string())
    };
    assert_eq!(author("1", "ann"), Ok("1".to_owned()));
    assert!(author("", "ann").is_err_and(|error| error.contains("needs id")));
    assert!(author("1", "a\nb").is_err_and(|error| error.contains("needs author")));
}

#[test]
fn an_order_travels_in_its_event() {
    let requests = [
        silence("web1", 100),
        Request { reason: Some("disks".into()), ..silence("*!port:a b", 100) },
        Request { order: Some("maintenance".into()), ..silence("web1", 100) },
        unsilence("s1"),
        ack("web1", Some(60)),
        Request { incident: Some(EventId::of_origin("x", "y").to_string()), ..Request::order("unack") },
        Request { name: Some("r".into()), rule: Some("a > 5 WARN".into()), ..Request::order("rule-add") },
        Request { name: Some("r".into()), ..Request::order("rule-remove") },
        Request { name: Some("r".into()), via: Some("mail".into()), ..Request::order("subscriber-remove") },
        Request { name: Some("r".into()), via: Some("mail".into()), ..Request::order("subscriber-confirm") },
        Request::order("reload"),
    ];
    for request in requests {
        let request = Request { id: Some("o1".into()), author: Some("ann".into()), ..request };
        let order = Order::read(&request, wall(0)).expect("an order");
        assert_eq!(order.request(), request);
        let mut timeline = running(settings(&[])).down(WWW).order("s1", silence("db1", 1000));
        let before = timeline.drafts.len();
        timeline.apply(Input::Order(order.clone()));
        for draft in &timeline.drafts[before..] {
            let event = crate::store::stamped(draft, &epoch(), 1, 1);
            let again = Order::from_event(&event);
            assert_eq!(again.as_ref(), (draft.rule == "order").then_some(&order), "{draft:?}");
        }
    }
}

const SQL: &str = "db1!port:sql";
const BY_R1: (&str, &[&str]) = (FEED, &["r1", "web1"]);
const BY_R2: (&str, &[&str]) = (FEED, &["r2", "web1"]);

/// db1 is heard over these relays, and its database is down since second 10, which was told.
fn relayed(settings: Settings, paths: &[(&'static str, &[&str])]) -> Timeline {
    let timeline = Timeline::with(settings).behind("db1", paths).live("web1").live("r1").live("r2").live("db1").up(SQL);
    let timeline = timeline.at(10).down(SQL);
    Timeline { told: Vec::new(), ..timeline }
}

#[test]
fn what_is_open_behind_its_only_relay_is_not_told_again_while_the_relay_is_down() {
    let timeline = relayed(lasting(settings(&[])), &[BY_R1]).at(100).silent("r1").at(1000);
    assert_eq!(row(&timeline).address.to_string(), "r1!alive:");
    let open = &timeline.engine.down_list()[1];
    assert!(open.unreachable && open.suppressed_by == ["unreachable:r1!alive:"]);
    timeline
        .expect([
            "110500ms CRIT down r1!alive:",
            "310s ERR persistent db1!port:sql step 1 (unreachable:r1!alive:)",
            "400s CRIT persistent r1!alive: step 1",
        ])
        .restart()
        .at(1100)
        .expect([])
        .live("r1")
        .at(1200)
        .expect(["1100s INFO up r1!alive: after 1000s step 1", "1101s ERR revealed db1!port:sql step 1"]);
}

#[test]
fn what_was_told_and_ended_behind_a_dead_relay_is_told_when_it_is_heard() {
    let timeline = relayed(lasting(settings(&[])), &[BY_R1]).at(100).silent("r1").at(200).live("r1").up(SQL).at(900);
    timeline.expect([
        "110500ms CRIT down r1!alive:",
        "200s INFO up r1!alive: after 100s",
        "200s INFO up db1!port:sql after 190s",
    ]);
}

#[test]
fn what_was_never_told_to_have_lasted_is_not_revealed() {
    let timeline = relayed(lasting(settings(&[])), &[BY_R1]).at(100).silent("r1").at(200).live("r1").at(250);
    timeline.expect(["110500ms CRIT down r1!alive:", "200s INFO up r1!alive: after 100s"]);
}

#[test]
fn a_host_that_was_down_before_its_relay_cannot_be_reached_either() {
    let timeline = relayed(lasting(settings(&[])), &[BY_R1]).silent("db1").at(100).silent("r1").at(1000);
    timeline.expect([
        "20500ms CRIT down db1!alive:",
        "110500ms CRIT down r1!alive:",
        "310s CRIT persistent db1!alive: step 1 (unreachable:r1!alive:)",
        "310s ERR persistent db1!port:sql step 1 (unreachable:r1!alive:)",
        "400s CRIT persistent r1!alive: step 1",
    ]);
}

#[test]
fn a_host_that_does_not_come_back_with_its_relay_is_down_and_what_it_has_is_not_revealed() {
    let timeline = relayed(lasting(settings(&[])), &[BY_R1]).at(100).silent("r1").silent("db1").at(1000).live("r1");
    let timeline = Timeline { told: Vec::new(), ..timeline }.at(1100);
    timeline.expect(["1010500ms CRIT down db1!alive: step 1"]);
}

#[test]
fn of_two_relays_both_must_be_down() {
    let timeline = relayed(lasting(settings(&[])), &[BY_R1, BY_R2]).at(100).silent("r1").at(350);
    let timeline = timeline.expect(["110500ms CRIT down r1!alive:", "310s ERR persistent db1!port:sql step 1"]);
    let timeline = timeline.silent("r2").at(400);
    assert_eq!(timeline.engine.down_list()[2].suppressed_by, ["unreachable:r2!alive:"]);
    let both = relayed(lasting(settings(&[])), &[BY_R1, BY_R2]).at(100).silent("r1").silent("r2").at(200);
    assert_eq!(both.engine.down_list()[2].suppressed_by, ["unreachable:r1!alive:", "unreachable:r2!alive:"]);
    let timeline = both.live("r2").at(400);
    assert!(timeline.engine.down_list()[1].suppressed_by.is_empty());
    // It could be heard over the other one, so it is down by itself.
    let alone = relayed(settings(&[]), &[BY_R1, BY_R2]).at(100).silent("r1").silent("db1").at(200);
    let unreachable = alone.engine.down_list().into_iter().filter(|row| row.unreachable);
    assert_eq!(unreachable.map(|row| row.address.to_string()).collect::<Vec<_>>(), [SQL]);
    alone.expect(["110500ms CRIT down db1!alive:", "110500ms CRIT down r1!alive:"]);
}

#[test]
fn of_a_chain_of_relays_the_one_that_is_down_is_named() {
    let chain = (FEED, &["r1", "r2", "web1"] as &[&str]);
    let timeline =
        relayed(settings(&[]), &[chain]).behind("r1", &[BY_R2]).at(20).silent("r1").at(40).silent("r2").at(60);
    let unreachable: Vec<_> = timeline.engine.down_list().into_iter().map(|row| row.suppressed_by.join(" ")).collect();
    assert_eq!(unreachable, ["unreachable:r2!alive:", "", "unreachable:r2!alive:"]);
    let timeline = timeline.beats_stop().silent("web1").at(80);
    assert_eq!(timeline.engine.down_list().iter().filter(|row| !row.unreachable).count(), 1);
}

#[test]
fn what_depends_on_something_behind_a_dead_relay_is_told_all_the_same_unless_that_is_down() {
    let settings = depending(&[("web2", &["db1"])]);
    let timeline = Timeline::with(settings).behind("db1", &[BY_R1]).live("web1").live("web2").live("r1").live("db1");
    let timeline = timeline.up("web2!port:www").silent("r1").at(100);
    assert_eq!(timeline.state_of("db1"), State::Unknown);
    let timeline = timeline.down("web2!port:www");
    assert_eq!(timeline.told.last().expect("an event"), "100s ERR down web2!port:www");
}

#[test]
fn of_two_that_hide_each_other_both_are_told() {
    let settings = depending(&[("r1", &[SQL])]);
    let timeline = relayed(settings, &[BY_R1]).at(100).silent("r1").at(200);
    // As long as the database is heard it is the trouble.
    let timeline =
        timeline.expect(["110500ms CRIT down r1!alive: (unreachable:db1!port:sql)", "131s CRIT revealed r1!alive:"]);
    assert!(timeline.engine.down_list().iter().all(|row| !row.unreachable));
}

#[test]
fn explain_names_the_only_relay() {
    let timeline = relayed(settings(&[]), &[BY_R1]).at(20).silent("r1").at(60);
    let explain = |address: &str| timeline.engine.explain(&address.parse().expect("address")).expect("known");
    let on: Vec<_> = explain("db1!alive:").depends_on.iter().map(|(on, state)| format!("{on} {state}")).collect();
    assert_eq!(on, ["r1!alive: down", "web1!alive: up"]);
    assert_eq!(explain("web1!alive:").depends_on, []);
    let why = explain(SQL).why;
    assert!(why.contains(&"it cannot be reached while r1!alive: is down".to_owned()), "{why:?}");
}
