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
