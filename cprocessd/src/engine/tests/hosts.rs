//! Signs of life, goodbyes, and our own blindness.

use super::*;

#[test]
fn a_host_without_a_sign_of_life_is_down_with_one_event_and_its_checks_are_unknown() {
    let timeline = up_and_running()
        .up("web1!port:ssh")
        .expect(["0s DEBUG up web1!port:ssh [initial]"])
        .at(10)
        .silent("web1")
        .at(60);
    assert_eq!(timeline.state_of("web1"), State::Down);
    assert_eq!(timeline.check_state("web1!port:www"), State::Unknown);
    timeline
        .expect(["20500ms CRIT down web1!alive:"])
        .live("web1")
        .at(70)
        .expect(["60s INFO up web1!alive: after 50s"]);
}

#[test]
fn a_check_that_was_down_before_its_host_went_is_told_up_once_when_it_is() {
    up_and_running()
        .at(5)
        .down("web1!port:www")
        .at(10)
        .silent("web1")
        .at(60)
        .live("web1")
        .up("web1!port:www")
        .at(120)
        .expect([
            "5s ERR down web1!port:www",
            "20500ms CRIT down web1!alive:",
            "60s INFO up web1!alive: after 50s",
            "60s INFO up web1!port:www after 55s",
        ]);
}

#[test]
fn a_silent_feed_is_the_trouble_of_its_own_host_and_those_behind_it_are_unknown() {
    let timeline = up_and_running().live("db1").expect(["0s DEBUG up db1!alive: [initial]"]);
    let timeline = timeline.at(10).beats_stop().silent("web1").silent("db1").at(60);
    assert_eq!(timeline.state_of("db1"), State::Unknown);
    let mut timeline = timeline.expect(["20500ms CRIT down web1!alive:"]);
    timeline.beating = true;
    timeline.live("web1").live("db1").at(90).expect(["60s INFO up web1!alive: after 50s"]);
}

#[test]
fn a_host_behind_a_beating_feed_is_down_by_itself() {
    up_and_running()
        .live("db1")
        .expect(["0s DEBUG up db1!alive: [initial]"])
        .at(10)
        .silent("db1")
        .at(60)
        .expect(["20500ms CRIT down db1!alive:"]);
}

#[test]
fn a_goodbye_buys_five_minutes() {
    up_and_running()
        .at(10)
        .goodbye("web1")
        .at(200)
        .expect(["10s INFO stopped web1!alive:"])
        .live("web1")
        .expect(["200s INFO started web1!alive:"])
        .at(400)
        .expect([]);
}

#[test]
fn while_its_ccollectd_is_stopped_a_host_and_its_checks_are_unknown() {
    let timeline = up_and_running().at(10).goodbye("web1").at(60);
    assert_eq!((timeline.state_of("web1"), timeline.check_state("web1!port:www")), (State::Unknown, State::Unknown));
    let timeline = timeline.live("web1").at(70);
    assert_eq!((timeline.state_of("web1"), timeline.check_state("web1!port:www")), (State::Up, State::Up));
}

#[test]
fn a_host_that_does_not_come_back_is_down_since_its_goodbye() {
    let timeline = up_and_running().at(10).goodbye("web1").at(1000);
    assert_eq!(timeline.drafts.last().expect("event").since, wall(10_000));
    timeline.expect(["10s INFO stopped web1!alive:", "310500ms CRIT down web1!alive:"]);
}

#[test]
fn nobody_is_blamed_for_our_pause() {
    let timeline = up_and_running().at(10).paused_until(70);
    timeline.at(71).expect([]).at(200).expect([]);
}

#[test]
fn nobody_is_blamed_for_our_restart() {
    up_and_running().at(10).paused_until(3600).restart().at(3700).expect([]);
}

#[test]
fn after_our_pause_a_host_that_stays_silent_is_still_found() {
    up_and_running().at(10).silent("web1").at(15).paused_until(75).at(90).expect(["81s CRIT down web1!alive:"]);
}

#[test]
fn a_host_that_a_snapshot_names_is_up_with_its_first_sign_of_life() {
    let mut timeline = Timeline::new();
    let row = FeedSnapshotHost { host: host("web1"), via: Vec::new(), inventory: Vec::new(), hash: String::new() };
    let snapshot = FeedSnapshot { epoch: epoch(), seq: 0, hosts: vec![row], checks: Vec::new() };
    timeline.apply(Input::Snapshot { feed: FEED.into(), snapshot });
    timeline.expect([]).live("web1").at(5).expect(["0s DEBUG up web1!alive: [initial]"]);
}

#[test]
fn a_host_behind_a_feed_that_was_silent_has_as_long_as_ever_to_be_heard() {
    let timeline = up_and_running().live("db1").expect(["0s DEBUG up db1!alive: [initial]"]);
    let mut timeline = timeline.at(10).beats_stop().silent("web1").silent("db1").at(60);
    timeline.beating = true;
    timeline
        .live("web1")
        .at(65)
        .live("db1")
        .at(90)
        .expect(["20500ms CRIT down web1!alive:", "60s INFO up web1!alive: after 50s"]);
}

#[test]
fn a_host_whose_last_sign_of_life_came_just_before_its_feed_fell_silent_is_not_blamed() {
    let timeline = up_and_running().live("db1").expect(["0s DEBUG up db1!alive: [initial]"]);
    let timeline = timeline.at(9).silent("db1").at(10).beats_stop().silent("web1").at(60);
    assert_eq!(timeline.state_of("db1"), State::Unknown);
    timeline.expect(["20500ms CRIT down web1!alive:"]);
}

#[test]
fn a_host_whose_clock_was_put_back_while_it_was_stopped_is_back_all_the_same() {
    let mut timeline = up_and_running().at(4000).goodbye("web1").at(4030);
    for secs in 4030..4500 {
        timeline = timeline.at(secs);
        let alive = Alive { time: wall((secs - 3600) * 1000), ..timeline.alive_message("web1") };
        timeline.apply(Input::Alive { feed: FEED.into(), alive });
    }
    assert_eq!(timeline.state_of("web1"), State::Up);
    timeline.expect([
        "4000s INFO stopped web1!alive:",
        "430s INFO started web1!alive:",
        "4035s WARN alarm web1!alive: [clock]",
    ]);
}

#[test]
fn a_goodbye_that_no_disk_took_is_a_goodbye() {
    let mut timeline = up_and_running().at(10);
    let alive = Alive { goodbye: true, ..timeline.alive_message("web1") };
    timeline.apply(Input::Alive { feed: FEED.into(), alive });
    timeline.silent("web1").at(200).expect(["10s INFO stopped web1!alive:"]);
}

/// A monitor web1, two relays and a host behind either or both of them, ten seconds after all was heard for the first time.
fn relayed(paths: &[(&'static str, &[&str])]) -> Timeline {
    let timeline = Timeline::new().behind("db1", paths).live("web1").live("r1").live("r2").live("db1").at(10);
    Timeline { told: Vec::new(), ..timeline }
}

const BY_R1: (&str, &[&str]) = (FEED, &["r1", "web1"]);
const BY_R2: (&str, &[&str]) = (FEED, &["r2", "web1"]);

#[test]
fn a_host_behind_a_dead_relay_is_unknown_and_only_the_relay_is_told() {
    let timeline = relayed(&[BY_R1]).up("db1!port:sql").silent("r1").at(60);
    assert_eq!((timeline.state_of("db1"), timeline.check_state("db1!port:sql")), (State::Unknown, State::Unknown));
    let timeline = timeline.expect(["10s DEBUG up db1!port:sql [initial]", "20500ms CRIT down r1!alive:"]);
    let timeline = timeline.restart().at(120).expect([]);
    assert_eq!(timeline.state_of("db1"), State::Unknown);
    let timeline = timeline.live("r1").at(125);
    assert_eq!(timeline.state_of("db1"), State::Up);
    timeline.at(300).expect(["120s INFO up r1!alive: after 110s"]);
}

#[test]
fn a_host_that_does_not_come_back_with_its_relay_is_down_after_as_long_as_ever() {
    relayed(&[BY_R1]).silent("r1").silent("db1").at(60).live("r1").at(100).expect([
        "20500ms CRIT down r1!alive:",
        "60s INFO up r1!alive: after 50s",
        "70500ms CRIT down db1!alive:",
    ]);
}

#[test]
fn a_host_with_two_ways_stays_up_while_it_is_heard_by_one() {
    let timeline = relayed(&[BY_R1, BY_R2]).silent("r1").at(60);
    assert_eq!(timeline.state_of("db1"), State::Up);
    let timeline = timeline.expect(["20500ms CRIT down r1!alive:"]).silent("r2").at(120);
    assert_eq!(timeline.state_of("db1"), State::Unknown);
    timeline.expect(["70500ms CRIT down r2!alive:"]);
}

#[test]
fn a_host_that_is_heard_by_none_of_its_ways_is_down() {
    relayed(&[BY_R1, BY_R2]).silent("db1").at(60).expect(["20500ms CRIT down db1!alive:"]);
}

#[test]
fn a_host_whose_two_relays_die_together_is_unknown() {
    let timeline = relayed(&[BY_R1, BY_R2]).silent("r1").at(11).silent("r2").at(60);
    assert_eq!(timeline.state_of("db1"), State::Unknown);
    timeline.expect(["20500ms CRIT down r1!alive:", "21500ms CRIT down r2!alive:"]);
}

#[test]
fn a_host_that_dies_with_one_of_its_relays_is_down_by_the_other() {
    relayed(&[BY_R1, BY_R2])
        .silent("r1")
        .silent("db1")
        .at(60)
        .expect(["20500ms CRIT down db1!alive:", "20500ms CRIT down r1!alive:"]);
}

#[test]
fn a_way_that_a_host_has_left_says_nothing_of_it() {
    let timeline = relayed(&[BY_R2]).behind("db1", &[BY_R1]).at(15).silent("r1").at(60);
    assert_eq!(timeline.state_of("db1"), State::Unknown);
    timeline.expect(["25500ms CRIT down r1!alive:"]);
}

#[test]
fn behind_a_relay_that_was_stopped_hosts_are_unknown() {
    let timeline = relayed(&[BY_R1]).goodbye("r1").at(60);
    assert_eq!(timeline.state_of("db1"), State::Unknown);
    let timeline = timeline.expect(["10s INFO stopped r1!alive:"]).at(400);
    assert_eq!(timeline.state_of("db1"), State::Unknown);
    timeline.expect(["310500ms CRIT down r1!alive:"]);
}

#[test]
fn behind_a_relay_behind_a_dead_relay_hosts_are_unknown() {
    let timeline = Timeline::new()
        .behind("r2", &[BY_R1])
        .behind("db1", &[(FEED, &["r2", "r1", "web1"])])
        .live("web1")
        .live("r1")
        .live("r2")
        .live("db1")
        .at(10);
    let timeline = Timeline { told: Vec::new(), ..timeline }.silent("r1").at(60);
    assert_eq!((timeline.state_of("r2"), timeline.state_of("db1")), (State::Unknown, State::Unknown));
    timeline.expect(["20500ms CRIT down r1!alive:"]).live("r1").at(120).expect(["60s INFO up r1!alive: after 50s"]);
}

#[test]
fn a_relay_that_was_away_for_a_moment_excuses_those_behind_it_for_as_long() {
    let timeline = relayed(&[BY_R1]).silent("r1").silent("db1").at(18).live("r1").at(19).expect([]);
    timeline.at(60).expect(["28500ms CRIT down db1!alive:"]);
}

#[test]
fn a_host_that_two_feeds_hear_is_down_when_neither_does() {
    let mut timeline = Timeline::new();
    timeline.other_beating = true;
    let timeline = timeline
        .behind("web2", &[(OTHER_FEED, &[])])
        .behind("db1", &[(FEED, &["web1"]), (OTHER_FEED, &["web2"])])
        .live("web1")
        .live("web2")
        .live("db1")
        .at(10);
    let mut timeline = Timeline { told: Vec::new(), ..timeline }.silent("web2");
    timeline.other_beating = false;
    let timeline = timeline.at(60);
    assert_eq!(timeline.state_of("db1"), State::Up);
    timeline.expect(["20500ms CRIT down web2!alive:"]).silent("db1").at(120).expect(["70500ms CRIT down db1!alive:"]);
}

#[test]
fn too_many_relays_are_nonsense_and_too_many_ways_make_way() {
    let mut timeline = up_and_running();
    let via: Vec<_> = (0..17).map(|i| host(&format!("r{i}"))).collect();
    let alive = Alive { via: via.clone(), ..timeline.alive_message("db1") };
    timeline.apply(Input::Alive { feed: FEED.into(), alive });
    assert_eq!(timeline.refused, ["too_many_relays"]);
    for relay in via {
        let alive = Alive { via: vec![relay], ..timeline.alive_message("db1") };
        timeline.apply(Input::Alive { feed: FEED.into(), alive });
    }
    assert_eq!(timeline.engine.hosts[&host("db1")].paths.saved().len(), 8);
}

#[test]
fn of_many_hosts_silent_at_once_some_are_found_and_the_others_right_behind() {
    let names: Vec<String> = (0..250).map(|n| format!("db{n}")).collect();
    let timeline = names.iter().fold(up_and_running(), |timeline, name| timeline.live(name)).at(10);
    let mut timeline = names.iter().fold(timeline, |timeline, name| timeline.silent(name)).at(20);
    timeline.now_ms = 20_500;
    let mut found = Vec::new();
    loop {
        timeline.apply(Input::Idle);
        found.push(timeline.told.iter().filter(|told| told.contains("CRIT down db")).count());
        if timeline.engine.next_deadline() > Duration::from_millis(timeline.now_ms) {
            break;
        }
    }
    assert_eq!(found, [200, 250]);
}

#[test]
fn a_sign_of_life_that_a_goodbye_has_overtaken_does_not_take_it_back() {
    let timeline = up_and_running().at(10);
    let late = Alive { time: wall(9_500), ..timeline.alive_message("web1") };
    let mut timeline = timeline.goodbye("web1");
    timeline.apply(Input::Alive { feed: FEED.into(), alive: late });
    assert_eq!(timeline.state_of("web1"), State::Unknown);
    timeline.at(20).live("web1").expect(["10s INFO stopped web1!alive:", "20s INFO started web1!alive:"]);
}
