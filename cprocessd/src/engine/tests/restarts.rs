//! What goes on as if nothing had been.

use super::*;

#[test]
fn an_outage_goes_on_across_a_restart_with_its_first_date() {
    up_and_running()
        .at(10)
        .down("web1!port:www")
        .expect(["10s ERR down web1!port:www"])
        .restart()
        .at(50)
        .restart()
        .at(100)
        .expect([])
        .up("web1!port:www")
        .expect(["100s INFO up web1!port:www after 90s"]);
}

#[test]
fn a_host_that_was_down_stays_down_across_a_restart_and_is_told_up_once() {
    up_and_running()
        .at(10)
        .silent("web1")
        .at(60)
        .expect(["20500ms CRIT down web1!alive:"])
        .restart()
        .at(120)
        .expect([])
        .live("web1")
        .at(130)
        .expect(["120s INFO up web1!alive: after 110s"]);
}

#[test]
fn a_missed_check_that_is_reported_again_right_after_our_restart_is_told() {
    up_and_running()
        .watches("web1", &["web1!port:www"])
        .at(10)
        .unreported("web1!port:www")
        .at(60)
        .expect(["13500ms WARN absent web1!port:www [silent]"])
        .restart()
        .up("web1!port:www")
        .at(70)
        .expect(["60s INFO solved web1!port:www [silent] after 49s"]);
}

#[test]
fn the_checks_of_a_dead_host_stay_unknown_across_a_restart() {
    let timeline = up_and_running().at(10).silent("web1").at(60).restart().at(61);
    assert_eq!((timeline.state_of("web1"), timeline.check_state("web1!port:www")), (State::Down, State::Unknown));
}

#[test]
fn a_host_that_dies_while_we_restart_is_down_since_about_its_last_sign_of_life() {
    let timeline = up_and_running().at(36_000).silent("web1").restart().at(36_060);
    let since = timeline.drafts.last().expect("event").since;
    assert!(since.distance(wall(36_000_000)) <= 60_000, "{since}");
    timeline.expect(["36013s CRIT down web1!alive:"]);
}

#[test]
fn an_alarm_of_a_number_that_never_comes_back_after_our_restart_is_retired() {
    let timeline = Timeline::with(settings(&[
        ("disk", "*!machine.disk:*.used_percentage > 90 ERR"),
        ("long", "*!machine.disk:*.used_percentage > 90 for 1h ERR"),
    ]));
    let timeline = timeline.live("web1").value(DISK, 95.0).restart().at(24 * 3600 + 10).expect([
        "0s DEBUG up web1!alive: [initial]",
        "0s ERR alarm web1!machine.disk:/.used_percentage [disk]",
        "86403s INFO retired web1!machine.disk:/.used_percentage [disk] after 86403s",
    ]);
    assert!(timeline.engine.pending.is_empty());
}

#[test]
fn what_was_open_under_a_rule_that_is_gone_at_our_start_is_retired_at_the_time_of_our_start() {
    let mut timeline = Timeline::with(settings(&[("disk", "*!machine.disk:*.used_percentage > 90 ERR")]))
        .live("web1")
        .value(DISK, 95.0)
        .at(10);
    timeline.settings = settings(&[]);
    timeline.restart().at(11).expect([
        "0s DEBUG up web1!alive: [initial]",
        "0s ERR alarm web1!machine.disk:/.used_percentage [disk]",
        "10500ms INFO retired web1!machine.disk:/.used_percentage [disk] after 10s",
    ]);
}

#[test]
fn nobody_is_blamed_while_we_read_what_we_have_missed() {
    let mut timeline = up_and_running().live("db1").at(10).paused_until(3600).restart();
    // A long journal comes first, and what is live waits behind it.
    for half_secs in 0..120 {
        timeline.now_ms = 3_600_000 + half_secs * 500;
        timeline.apply(Input::Entry { feed: FEED.into() });
        timeline.apply(Input::Idle);
    }
    timeline.at(3720).expect(["0s DEBUG up db1!alive: [initial]"]);
}

#[test]
fn a_feed_that_falls_silent_after_a_long_journal_is_still_found() {
    let mut timeline = up_and_running().at(10).paused_until(3600).restart().silent("web1").beats_stop();
    for half_secs in 0..120 {
        timeline.now_ms = 3_600_000 + half_secs * 500;
        timeline.apply(Input::Entry { feed: FEED.into() });
        timeline.apply(Input::Idle);
    }
    timeline.at(3720).expect(["3670s CRIT down web1!alive:"]);
}

#[test]
fn a_host_that_was_kept_before_there_were_several_ways_is_judged_by_the_one_it_had() {
    let mut timeline = up_and_running().live("db1").at(10);
    for saved in &mut timeline.saved {
        if let Saved::Host(_, Some(host)) = saved {
            host.paths.clear();
        }
    }
    let timeline = Timeline { told: Vec::new(), ..timeline }.beats_stop().silent("web1").silent("db1").restart().at(60);
    assert_eq!(timeline.state_of("db1"), State::Unknown);
    timeline.expect(["23s CRIT down web1!alive:"]);
}
