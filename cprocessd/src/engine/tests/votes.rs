//! Several observers of one check.

use super::*;

const WWW: &str = "shop!port:www";

/// Hosts a, b and c, of which each sees the check up.
fn observed_by_three(agree: Agree) -> Timeline {
    let agree = PartialTuning { agree: Some(agree), ..PartialTuning::default() };
    let settings = Settings { tunings: vec![("shop!port".parse().expect("pattern"), agree)], ..settings(&[]) };
    let timeline = Timeline::with(settings).live("web1").live("a").live("b").live("c").at(1);
    let timeline = timeline.observed("a", WWW, true).observed("b", WWW, true).observed("c", WWW, true).at(10);
    Timeline { told: Vec::new(), ..timeline }
}

fn text_of(timeline: &Timeline) -> String {
    timeline.engine.service_list(Some(&host("shop"))).remove(0).text
}

#[test]
fn it_is_down_when_any_of_its_observers_says_so() {
    let timeline = observed_by_three(Agree::Any).at(20).observed("b", WWW, false).at(30);
    assert_eq!(timeline.drafts.last().expect("event").text, "refused (seen by b of 3)");
    let timeline = timeline.observed("a", WWW, false).at(40).observed("b", WWW, true).at(50);
    assert_eq!(text_of(&timeline), "refused (seen by a of 3)");
    timeline
        .expect(["20s ERR down shop!port:www"])
        .observed("a", WWW, true)
        .at(60)
        .expect(["50s INFO up shop!port:www after 30s"]);
}

#[test]
fn it_is_down_when_more_than_half_say_so_since_the_one_that_made_it_so() {
    let timeline = observed_by_three(Agree::Majority).at(20).observed("b", WWW, false).at(30).expect([]);
    assert_eq!((timeline.check_state(WWW), text_of(&timeline).as_str()), (State::Up, "fine (down as seen by b of 3)"));
    let timeline = timeline.observed("c", WWW, false).at(40);
    assert_eq!(timeline.drafts.last().expect("event").text, "refused (seen by b, c of 3)");
    let timeline = timeline.expect(["30s ERR down shop!port:www"]).observed("b", WWW, true);
    timeline.expect(["40s INFO up shop!port:www after 10s"]);
}

#[test]
fn it_is_down_when_all_say_so() {
    let timeline = observed_by_three(Agree::All).at(20).observed("b", WWW, false).observed("a", WWW, false).at(30);
    timeline
        .expect([])
        .observed("c", WWW, false)
        .at(40)
        .observed("a", WWW, true)
        .at(50)
        .expect(["30s ERR down shop!port:www", "40s INFO up shop!port:www after 10s"]);
}

#[test]
fn who_does_not_report_has_no_vote() {
    let timeline =
        observed_by_three(Agree::Any).observed("a", WWW, false).at(20).expect(["10s ERR down shop!port:www"]);
    let timeline = timeline.unobserved("a", WWW).at(30).expect(["24s INFO up shop!port:www after 14s"]);
    // Nor does who is dead itself, whatever its interval.
    let mut message = timeline.check_message(&WWW.parse().expect("address"), false, wall(30_000).0, 0);
    (message.from, message.interval_ms) = (host("b"), 3_600_000);
    let mut timeline = timeline.unobserved("b", WWW);
    timeline.apply(Input::Check(message));
    timeline.silent("b").at(60).expect([
        "30s ERR down shop!port:www",
        "40500ms CRIT down b!alive:",
        "41s INFO up shop!port:www after 11s",
    ]);
}

#[test]
fn a_check_that_nobody_can_observe_is_unknown_without_an_event() {
    let timeline = observed_by_three(Agree::Any).silent("a").silent("b").at(30);
    assert_eq!(timeline.check_state(WWW), State::Up);
    let timeline = timeline.silent("c").at(60);
    assert_eq!(timeline.check_state(WWW), State::Unknown);
    let timeline = timeline.live("c").at(70);
    assert_eq!(timeline.check_state(WWW), State::Up);
    timeline.expect([
        "20500ms CRIT down a!alive:",
        "20500ms CRIT down b!alive:",
        "40500ms CRIT down c!alive:",
        "60s INFO up c!alive: after 30s",
    ]);
}

#[test]
fn a_foreign_check_that_is_configured_and_not_reported_is_missed_while_its_observer_is_heard() {
    Timeline::new()
        .live("web1")
        .watches("web1", &[WWW])
        .observed("web1", WWW, true)
        .at(10)
        .expect(["0s DEBUG up web1!alive: [initial]", "0s DEBUG up shop!port:www [initial]"])
        .unobserved("web1", WWW)
        .at(60)
        .expect(["13500ms WARN absent shop!port:www [silent]"])
        .watches("web1", &[])
        .expect(["60s INFO retired shop!port:www [silent] after 49s"]);
}

#[test]
fn a_check_that_one_of_two_no_longer_watches_is_what_the_other_says() {
    let timeline = Timeline::new().live("web1").live("a").watches("web1", &[WWW]);
    let timeline = timeline.observed("web1", WWW, false).observed("a", WWW, true).at(10);
    let timeline = Timeline { told: Vec::new(), ..timeline }.unobserved("web1", WWW).watches("web1", &[]).at(11);
    timeline.expect(["11s INFO up shop!port:www after 11s"]);
}

#[test]
fn bad_observations_of_those_who_dissent_confirm_nothing() {
    let timeline = observed_by_three(Agree::Any);
    let mut settings = timeline.settings.clone();
    settings.defaults.confirm = 3;
    let timeline = timeline.reload(settings).observed("b", WWW, false).unobserved("b", WWW).at(12).expect([]);
    let timeline = timeline.observed("b", WWW, false).expect([]).at(13);
    timeline.expect(["13s ERR down shop!port:www"]);
}

#[test]
fn votes_survive_a_restart() {
    let timeline = observed_by_three(Agree::Majority).observed("b", WWW, false).at(20).restart().at(30);
    timeline
        .expect([])
        .observed("a", WWW, false)
        .at(40)
        .restart()
        .expect(["30s ERR down shop!port:www"])
        .at(50)
        .expect([]);
}

#[test]
fn a_change_told_while_a_disk_failed_is_not_told_again_and_is_that_of_its_observer() {
    let mut timeline = observed_by_three(Agree::Any);
    let mut changes = Vec::new();
    for (secs, up) in [(20, false), (21, true)] {
        timeline = timeline.at(secs);
        for from in ["a", "b"] {
            timeline = timeline.observed(from, WWW, up);
            let message = timeline.check_message(&WWW.parse().expect("address"), up, wall(secs * 1000).0, 0);
            changes.push(Check { from: host(from), ..message });
        }
    }
    timeline = timeline.at(30);
    for change in changes {
        let origin = Some(timeline.journaled());
        timeline.apply(Input::Check(Check { origin, ..change }));
    }
    timeline.at(40).expect(["20s ERR down shop!port:www", "21s INFO up shop!port:www after 1s"]);
}

#[test]
fn a_repeated_state_that_came_by_a_slower_way_is_not_taken_for_news() {
    let mut timeline = up_and_running().at(10);
    let old = timeline.check_message(&"web1!port:www".parse().expect("address"), true, wall(0).0, 0);
    timeline = timeline.at(11).down("web1!port:www");
    timeline.apply(Input::Check(old));
    timeline.at(20).expect(["11s ERR down web1!port:www"]);
}

#[test]
fn observers_are_bounded() {
    let mut timeline = Timeline::new().live("web1");
    for i in 0..20 {
        timeline.now_ms += 1;
        let message = timeline.check_message(&WWW.parse().expect("address"), true, wall(0).0, 0);
        timeline.apply(Input::Check(Check { from: host(&format!("o{i}")), ..message }));
    }
    assert_eq!(timeline.refused, ["too_many_observers"; 4]);
    assert_eq!(timeline.engine.observations.len(), 16);
    let timeline = timeline.forget("shop", "1");
    assert!(timeline.engine.observations.is_empty());
}
