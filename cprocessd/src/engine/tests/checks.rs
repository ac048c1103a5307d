//! Up, down, blips, silence.

use super::*;

#[test]
fn the_first_sight_of_something_that_works_is_for_the_record_only() {
    up_and_running().at(3600).expect([]);
}

#[test]
fn the_first_sight_of_something_down_opens_an_incident() {
    Timeline::new()
        .live("web1")
        .at(1)
        .down("web1!port:www")
        .at(60)
        .expect(["0s DEBUG up web1!alive: [initial]", "1s ERR down web1!port:www"]);
}

#[test]
fn an_outage_is_told_once_and_its_end_with_its_length() {
    up_and_running()
        .at(10)
        .down("web1!port:www")
        .at(100)
        .up("web1!port:www")
        .at(200)
        .expect(["10s ERR down web1!port:www", "100s INFO up web1!port:www after 90s"]);
}

#[test]
fn the_topic_of_a_recovery_is_as_severe_as_its_outage_was() {
    let timeline = up_and_running().at(10).down("web1!port:www").at(20).up("web1!port:www");
    let (down, up) = (&timeline.drafts[2], &timeline.drafts[3]);
    assert_eq!((up.severity, up.top_severity), (Severity::Info, Severity::Err));
    assert_eq!((down.incident, down.since), (up.incident, up.since));
    assert_ne!(down.id, up.id);
}

#[test]
fn a_down_is_dated_by_its_observer() {
    let mut timeline = up_and_running().at(100);
    let mut message = timeline.check_message(&"web1!port:www".parse().expect("address"), false, wall(95_500).0, 0);
    message.time = wall(95_500);
    timeline.apply(Input::Check(message));
    timeline.expect(["95500ms ERR down web1!port:www"]);
}

#[test]
fn success_after_retries_is_one_blip_until_it_was_clean_for_ten_minutes() {
    up_and_running()
        .at(10)
        .retried("web1!port:www")
        .at(100)
        .retried("web1!port:www")
        .at(690)
        .retried("web1!port:www")
        .expect(["10s WARN blip web1!port:www [blip]"])
        .at(1290)
        .retried("web1!port:www")
        .expect(["1290s WARN blip web1!port:www [blip]"]);
}

#[test]
fn a_blip_that_comes_again_with_the_journal_is_no_news() {
    let mut timeline = up_and_running().at(10).retried("web1!port:www").at(1000).retried("web1!port:www");
    let blips = ["10s WARN blip web1!port:www [blip]", "1000s WARN blip web1!port:www [blip]"];
    for secs in [10, 1000] {
        let mut message = timeline.check_message(&"web1!port:www".parse().expect("address"), true, wall(10_000).0, 2);
        message.time = wall(secs * 1000);
        timeline.apply(Input::Check(message));
    }
    timeline.expect(blips);
}

#[test]
fn an_outage_that_ends_with_a_retry_has_its_end_and_no_blip() {
    up_and_running()
        .at(10)
        .down("web1!port:www")
        .at(20)
        .retried("web1!port:www")
        .expect(["10s ERR down web1!port:www", "20s INFO up web1!port:www after 10s"]);
}

#[test]
fn what_happened_once_is_said_once_by_whichever_way_it_comes() {
    let mut timeline = up_and_running().at(10);
    let origin = Some(timeline.journaled());
    let log = LogEvent {
        host: host("web1"),
        from: host("web1"),
        service: "app".parse().expect("a name"),
        unit: "log".parse().expect("a unit"),
        time: wall(10_000),
        severity: Severity::Err,
        text: "disk on fire".into(),
        data: None,
        epoch: None,
        seq: None,
        origin,
    };
    timeline.apply(Input::Log(log.clone()));
    let mut timeline = timeline.at(12).restart();
    timeline.apply(Input::Log(log));
    timeline.expect(["10s ERR log web1!app:log [log]"]);
}

#[test]
fn who_starts_meanwhile_goes_on_counting_what_confirms_an_outage() {
    let three = PartialTuning { confirm: Some(3), ..PartialTuning::default() };
    let pattern = "*".parse().expect("pattern");
    let mut timeline =
        Timeline::with(Settings { tunings: vec![(pattern, three)], ..settings(&[]) }).live("web1").at(10);
    timeline.told.clear();
    let timeline = timeline.up("web1!port:www").at(20).down("web1!port:www").at(21).restart().at(22);
    let timeline = timeline.expect(["10s DEBUG up web1!port:www [initial]", "22s ERR down web1!port:www"]);
    // What came and went before does not count.
    let timeline = timeline.at(30).up("web1!port:www").at(40).down("web1!port:www").at(41).up("web1!port:www");
    timeline.at(60).expect(["30s INFO up web1!port:www after 10s", "41s WARN blip web1!port:www [blip]"]);
}

#[test]
fn what_is_down_for_less_than_confirm_is_a_blip() {
    let three = PartialTuning { confirm: Some(3), ..PartialTuning::default() };
    let settings = Settings { tunings: vec![("web1!port".parse().expect("pattern"), three)], ..settings(&[]) };
    Timeline::with(settings)
        .live("web1")
        .up("web1!port:www")
        .expect(["0s DEBUG up web1!alive: [initial]", "0s DEBUG up web1!port:www [initial]"])
        .at(10)
        .down("web1!port:www")
        .at(11)
        .up("web1!port:www")
        .expect(["11s WARN blip web1!port:www [blip]"])
        .at(20)
        .down("web1!port:www")
        .at(30)
        .expect(["22s ERR down web1!port:www"])
        .up("web1!port:www")
        .expect(["30s INFO up web1!port:www after 10s"]);
}

#[test]
fn a_person_decides_how_bad_it_is() {
    let class = Class { pattern: "web*!port".parse().expect("pattern"), kind: None, severity: Severity::Crit };
    Timeline::with(Settings { classes: vec![class], ..settings(&[]) })
        .live("web1")
        .down("web1!port:www")
        .at(5)
        .up("web1!port:www")
        .expect([
            "0s DEBUG up web1!alive: [initial]",
            "0s CRIT down web1!port:www",
            "5s INFO up web1!port:www after 5s",
        ]);
}

#[test]
fn a_journaled_message_that_comes_twice_counts_once() {
    let mut timeline = up_and_running().at(10).down("web1!port:www");
    let old = Check {
        origin: Some(Origin { host: host("web1"), epoch: epoch(), seq: timeline.seq - 1 }),
        ..timeline.check_message(&"web1!port:www".parse().expect("address"), true, wall(0).0, 0)
    };
    timeline.apply(Input::Check(old));
    timeline.expect(["10s ERR down web1!port:www"]);
}

#[test]
fn a_configured_check_that_is_not_reported_is_unknown_and_said_so() {
    let timeline = up_and_running().watches("web1", &["web1!port:www"]).at(10).unreported("web1!port:www").at(60);
    assert_eq!(timeline.check_state("web1!port:www"), State::Unknown);
    timeline
        .expect(["13500ms WARN absent web1!port:www [silent]"])
        .up("web1!port:www")
        .expect(["60s INFO solved web1!port:www [silent] after 49s"]);
}

#[test]
fn a_configured_check_that_does_not_come_back_with_its_host_is_missed() {
    up_and_running()
        .watches("web1", &["web1!port:www"])
        .at(10)
        .unreported("web1!port:www")
        .silent("web1")
        .at(60)
        .live("web1")
        .at(120)
        .expect([
            "20500ms CRIT down web1!alive:",
            "60s INFO up web1!alive: after 50s",
            "63500ms WARN absent web1!port:www [silent]",
        ]);
}

#[test]
fn a_check_nobody_configured_is_forgotten_after_a_day_of_silence() {
    let timeline =
        up_and_running().down("web1!backup:db").expect(["0s ERR down web1!backup:db"]).unreported("web1!backup:db");
    let timeline = timeline.at(24 * 3600 - 10).expect([]);
    assert_eq!(timeline.check_state("web1!backup:db"), State::Unknown);
    let timeline = timeline.at(24 * 3600 + 10).expect(["86400500ms INFO retired web1!backup:db after 86400s"]);
    assert!(timeline.engine.service_list(None).iter().all(|row| row.unit.as_str() != "db"));
}

#[test]
fn a_check_that_leaves_the_configuration_is_retired_with_its_incident() {
    up_and_running()
        .watches("web1", &["web1!port:www"])
        .at(10)
        .down("web1!port:www")
        .at(20)
        .unreported("web1!port:www")
        .watches("web1", &[])
        .at(100)
        .expect(["10s ERR down web1!port:www", "20s INFO retired web1!port:www after 10s"]);
}

#[test]
fn after_a_short_silence_of_its_host_a_check_has_as_long_as_ever_to_be_reported() {
    up_and_running()
        .watches("web1", &["web1!port:www"])
        .at(10)
        .silent("web1")
        .at(15)
        .unreported("web1!port:www")
        .live("web1")
        .at(17)
        .up("web1!port:www")
        .at(60)
        .expect([]);
}

#[test]
fn what_was_journaled_late_does_not_end_an_outage_that_began_after_it() {
    let mut timeline = up_and_running().up("web1!port:www").at(10);
    timeline.told.clear();
    let address: CheckAddress = "web1!port:www".parse().expect("address");
    // Its ccollectd has lost its state and its disk fails: that the port is up is news to it, and then it is down.
    let late = timeline.check_message(&address, true, wall(10_000).0, 0);
    timeline.apply(Input::Check(late.clone()));
    let mut timeline = timeline.unreported("web1!port:www").at(12);
    let down = timeline.check_message(&address, false, wall(12_000).0, 0);
    timeline.apply(Input::Check(down.clone()));
    // That holds for who starts meanwhile, too.
    timeline = timeline.at(13).restart();
    for check in [late, down] {
        let origin = Some(timeline.journaled());
        timeline.apply(Input::Check(Check { origin, ..check }));
    }
    timeline.expect(["12s ERR down web1!port:www"]);
}

#[test]
fn an_outage_that_was_told_while_a_disk_failed_is_not_told_again_when_it_is_journaled() {
    let mut timeline = up_and_running();
    let address: CheckAddress = "web1!port:www".parse().expect("address");
    let mut changes = Vec::new();
    for (secs, up) in [(10, false), (20, true), (30, false), (40, true)] {
        timeline = timeline.unreported("web1!port:www").at(secs);
        let change = timeline.check_message(&address, up, wall(secs * 1000).0, 0);
        timeline.apply(Input::Check(change.clone()));
        changes.push(change);
    }
    for change in changes {
        let origin = Some(timeline.journaled());
        timeline.apply(Input::Check(Check { origin, ..change }));
    }
    timeline
        .expect([
            "10s ERR down web1!port:www",
            "20s INFO up web1!port:www after 10s",
            "30s ERR down web1!port:www",
            "40s INFO up web1!port:www after 10s",
        ])
        .at(50)
        .down("web1!port:www")
        .expect(["50s ERR down web1!port:www"]);
}

/// Changes every so many seconds, from up to down and back, `n` times.
fn flap(mut timeline: Timeline, n: u32, every: u64) -> Timeline {
    for i in 0..n {
        let secs = timeline.now_ms / 1000 + every;
        timeline = timeline.at(secs).check("web1!port:www", i % 2 == 1, 0);
    }
    timeline
}

fn events_of(timeline: &Timeline, kind: Kind) -> Vec<&Draft> {
    timeline.drafts.iter().filter(|draft| draft.kind == kind).collect()
}

#[test]
fn what_changes_too_often_is_told_once_and_its_outcome_when_it_is_calm() {
    let timeline = flap(up_and_running(), 37, 30);
    assert_eq!(timeline.check_state("web1!port:www"), State::Down);
    let timeline = timeline.at(1410).expect([
        "30s ERR down web1!port:www",
        "60s INFO up web1!port:www after 30s",
        "90s ERR down web1!port:www",
        "120s INFO up web1!port:www after 30s",
        "150s ERR down web1!port:www",
        "180s WARN flapping web1!port:www [flapping]",
        "1410s INFO flapping web1!port:www [flapping] after 1080s",
    ]);
    let [begin, end] = events_of(&timeline, Kind::Flapping)[..] else { panic!("{:?}", timeline.told) };
    assert_eq!(begin.text, "6 changes in 2m 30s; single ones are not told until it is calm for 5m 0s");
    assert_eq!(end.text, "calm again after 37 changes in 18m 0s: down");
    assert_eq!((end.state, end.top_severity), (State::Down, Severity::Warn));
    assert_eq!((begin.incident, begin.since), (end.incident, end.since));
    assert_ne!(begin.id, end.id);
    // It is down in the incident that was open before.
    timeline.at(1500).up("web1!port:www").expect(["1500s INFO up web1!port:www after 1350s"]);
}

#[test]
fn what_was_open_before_the_flapping_is_closed_at_the_last_change() {
    flap(up_and_running(), 8, 30).at(600).expect([
        "30s ERR down web1!port:www",
        "60s INFO up web1!port:www after 30s",
        "90s ERR down web1!port:www",
        "120s INFO up web1!port:www after 30s",
        "150s ERR down web1!port:www",
        "180s WARN flapping web1!port:www [flapping]",
        "540s INFO flapping web1!port:www [flapping] after 210s",
        "240s INFO up web1!port:www after 90s",
    ]);
}

#[test]
fn what_went_down_while_it_flapped_is_down_since_its_last_change() {
    let timeline = Timeline::new().live("web1").down("web1!port:www").at(1).up("web1!port:www");
    let timeline = flap(timeline, 5, 30);
    assert_eq!(events_of(&timeline, Kind::Flapping).len(), 1);
    let timeline = Timeline { told: Vec::new(), ..timeline }.at(1000);
    assert_eq!(timeline.drafts.last().expect("event").since, wall(151_000));
    timeline.expect(["451s INFO flapping web1!port:www [flapping] after 150s", "451s ERR down web1!port:www"]);
}

#[test]
fn five_changes_in_ten_minutes_are_not_flapping_and_neither_are_six_in_eleven() {
    let timeline = flap(up_and_running(), 5, 30);
    assert!(events_of(&timeline, Kind::Flapping).is_empty());
    let timeline = flap(up_and_running(), 20, 121);
    assert!(events_of(&timeline, Kind::Flapping).is_empty());
    let timeline = flap(up_and_running(), 6, 120);
    assert_eq!(events_of(&timeline, Kind::Flapping).len(), 1);
}

#[test]
fn calm_is_until_the_next_change_even_if_nothing_was_repeated_meanwhile() {
    let timeline = flap(up_and_running(), 8, 30).unreported("web1!port:www").at(600);
    Timeline { told: Vec::new(), ..timeline }.down("web1!port:www").expect([
        "600s INFO flapping web1!port:www [flapping] after 210s",
        "240s INFO up web1!port:www after 90s",
        "600s ERR down web1!port:www",
    ]);
}

#[test]
fn a_restart_while_it_flaps_changes_nothing() {
    let told = |restart: bool| {
        let again = |timeline: Timeline| if restart { timeline.restart() } else { timeline };
        let timeline = again(flap(up_and_running(), 4, 30));
        let timeline = again(flap(again(flap(timeline, 4, 30)), 5, 30));
        timeline.at(1000).drafts
    };
    assert_eq!(told(true), told(false));
    assert_eq!(told(false).iter().filter(|draft| draft.kind == Kind::Flapping).count(), 2);
}

#[test]
fn blips_of_what_flaps_are_not_told_and_it_is_clean_only_later() {
    let timeline = flap(up_and_running(), 8, 30);
    Timeline { told: Vec::new(), ..timeline }
        .retried("web1!port:www")
        .at(800)
        .retried("web1!port:www")
        .expect(["540s INFO flapping web1!port:www [flapping] after 210s", "240s INFO up web1!port:www after 90s"])
        .at(1401)
        .retried("web1!port:www")
        .expect(["1401s WARN blip web1!port:www [blip]"]);
}

#[test]
fn who_heard_that_it_flaps_hears_that_it_is_gone() {
    let timeline = flap(up_and_running().watches("web1", &["web1!port:www"]), 7, 30);
    Timeline { told: Vec::new(), ..timeline }.unreported("web1!port:www").watches("web1", &[]).at(1000).expect([
        "210s INFO flapping web1!port:www [flapping] after 180s",
        "210s INFO retired web1!port:www after 60s",
    ]);
    let timeline = flap(up_and_running(), 8, 30).unreported("web1!port:www");
    Timeline { told: Vec::new(), ..timeline }.forget("web1!port", "1").expect([
        "240s INFO order monitor!cprocessd: [order]",
        "240s INFO flapping web1!port:www [flapping] after 210s",
        "240s INFO retired web1!port:www after 90s",
        "ordered web1!port:www",
    ]);
}

#[test]
fn what_flapped_when_its_host_died_flaps_until_it_is_observed_again() {
    let timeline = flap(up_and_running(), 8, 30);
    Timeline { told: Vec::new(), ..timeline }.silent("web1").at(1000).live("web1").at(1001).expect([
        "250500ms CRIT down web1!alive:",
        "1000s INFO up web1!alive: after 760s",
        "1001s INFO flapping web1!port:www [flapping] after 210s",
        "240s INFO up web1!port:www after 90s",
    ]);
}

#[test]
fn what_fell_silent_while_it_flapped_is_missed_as_ever() {
    let timeline = flap(up_and_running().watches("web1", &["web1!port:www"]), 8, 30);
    Timeline { told: Vec::new(), ..timeline }
        .unreported("web1!port:www")
        .at(1000)
        .expect(["243500ms WARN absent web1!port:www [silent]"])
        .up("web1!port:www")
        .expect([
            "1000s INFO flapping web1!port:www [flapping] after 210s",
            "240s INFO up web1!port:www after 90s",
            "1000s INFO solved web1!port:www [silent] after 759s",
        ]);
}

#[test]
fn a_clock_that_is_put_back_while_a_check_flaps_begins_the_wait_anew() {
    let mut timeline = flap(up_and_running().at(4000), 8, 30).silent("web1");
    timeline.told.clear();
    let address: CheckAddress = "web1!port:www".parse().expect("address");
    for secs in 640..=940 {
        timeline.now_ms = secs * 1000;
        let message = timeline.check_message(&address, true, wall(640_000).0, 0);
        timeline.apply(Input::Check(message));
    }
    assert_eq!(timeline.told.len(), 2, "{:?}", timeline.told);
    assert!(timeline.told[0].starts_with("940s INFO flapping"), "{:?}", timeline.told);
}

#[test]
fn unconfirmed_downs_flap_too_and_a_down_afterwards_has_to_be_confirmed() {
    let three = PartialTuning { confirm: Some(3), ..PartialTuning::default() };
    let settings = Settings { tunings: vec![("web1!port".parse().expect("pattern"), three)], ..settings(&[]) };
    let timeline = flap(Timeline::with(settings).live("web1").up("web1!port:www"), 7, 1);
    let timeline = timeline.unreported("web1!port:www").at(1000);
    let mut timeline = Timeline { told: Vec::new(), ..timeline };
    for (secs, told) in [(1000, 1), (1001, 2), (1002, 2)] {
        timeline.now_ms = secs * 1000;
        let message = timeline.check_message(&"web1!port:www".parse().expect("address"), false, wall(7000).0, 0);
        timeline.apply(Input::Check(message));
        assert_eq!(timeline.told.len(), told, "{:?}", timeline.told);
    }
    timeline.expect(["1000s INFO flapping web1!port:www [flapping] after 6s", "1001s ERR down web1!port:www"]);
}

#[test]
fn who_heard_that_it_flaps_hears_that_it_is_calm_and_nobody_else() {
    let order = |timeline: Timeline, id: &str, until_secs: u64| {
        let (pattern, until) = (Some("web1!port".into()), Some(wall(until_secs * 1000)));
        timeline.order(id, Request { pattern, until, ..Request::order("silence") })
    };
    let calm = |timeline: &Timeline| {
        events_of(timeline, Kind::Flapping).iter().map(|draft| draft.suppressed_by.clone()).collect::<Vec<_>>()
    };
    let told = flap(up_and_running(), 8, 30);
    assert_eq!(calm(&order(told, "s1", 1000).at(600)), [vec![], Vec::<String>::new()]);
    let untold = flap(order(up_and_running(), "s1", 300), 8, 30);
    assert_eq!(calm(&untold.at(600)), [["silence:s1"], ["silence:s1"]]);
}
