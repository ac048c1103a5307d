//! Clocks that are wrong.

use super::*;

fn four_hosts() -> Timeline {
    let timeline = Timeline::new().live("web1").live("a").live("b").live("c").at(20);
    Timeline { told: Vec::new(), ..timeline }
}

#[test]
fn a_clock_that_is_off_is_told_once_and_when_it_is_right_again() {
    let timeline = four_hosts().ahead("a", 123_000).at(100);
    let told = timeline.drafts.last().expect("event");
    assert_eq!((told.text.as_str(), told.since), ("its clock is 2m 3s ahead of ours", wall(21_000)));
    let timeline = timeline.expect(["26s WARN alarm a!alive: [clock]"]).ahead("a", 29_000).at(120).expect([]);
    timeline.ahead("a", 14_000).at(140).expect(["121s INFO solved a!alive: [clock] after 100s"]);
}

#[test]
fn a_clock_that_is_behind_is_told_too_and_two_signs_of_life_prove_nothing() {
    let timeline = four_hosts().ahead("a", -40_000).at(22).ahead("a", 0).at(100).expect([]);
    let timeline = timeline.ahead("a", -40_000).at(120);
    assert_eq!(timeline.drafts.last().expect("event").text, "its clock is 40s behind ours");
    timeline.expect(["106s WARN alarm a!alive: [clock]"]);
}

#[test]
fn signs_of_life_that_waited_on_their_way_prove_nothing() {
    let mut timeline = four_hosts().silent("a").at(25);
    for _ in 0..50 {
        let alive = Alive { time: wall(0), ..timeline.alive_message("a") };
        timeline.apply(Input::Alive { feed: FEED.into(), alive });
        timeline.now_ms += 5;
    }
    timeline.now_ms = 25_500;
    timeline.live("a").at(100).expect([]);
}

#[test]
fn when_most_clocks_differ_by_the_same_it_is_ours() {
    let timeline = four_hosts().own_ahead(600_000).at(60);
    assert_eq!(timeline.drafts.last().expect("event").text, "our clock is 10m 0s ahead of those of 4 of 4 hosts");
    let timeline = timeline.expect(["626s WARN alarm monitor!cprocessd: [clock]"]);
    // One that is wrong beside ours is told of.
    let timeline = timeline.ahead("a", -100_000).at(100);
    assert_eq!(timeline.drafts.last().expect("event").text, "its clock is 1m 40s behind ours");
    timeline
        .expect(["664s WARN alarm a!alive: [clock]"])
        .ahead("a", 0)
        .at(150)
        .expect(["701s INFO solved a!alive: [clock] after 40s"])
        .own_ahead(0)
        .at(200)
        .expect(["151s INFO solved monitor!cprocessd: [clock] after 0s"]);
}

#[test]
fn two_hosts_cannot_outvote_us() {
    let timeline = Timeline::new().live("web1").live("a").at(20);
    Timeline { told: Vec::new(), ..timeline }
        .own_ahead(-600_000)
        .at(60)
        .expect(["-574s WARN alarm a!alive: [clock]", "-574s WARN alarm web1!alive: [clock]"]);
}

#[test]
fn a_wrong_clock_stays_told_across_a_restart_and_an_outage() {
    let timeline = four_hosts().ahead("a", 123_000).at(60).expect(["26s WARN alarm a!alive: [clock]"]);
    let timeline = timeline.restart().at(100).expect([]).silent("a").at(150);
    let timeline = timeline.expect(["110500ms CRIT down a!alive:"]).ahead("a", 0).live("a").at(200);
    timeline.expect(["150s INFO solved a!alive: [clock] after 129s", "150s INFO up a!alive: after 0s"]);
}

#[test]
fn our_own_wrong_clock_stays_told_across_a_restart() {
    let timeline = four_hosts().own_ahead(600_000).at(60).expect(["626s WARN alarm monitor!cprocessd: [clock]"]);
    let timeline = timeline.restart().at(100).expect([]).own_ahead(0).restart().at(150);
    timeline.expect(["108500ms INFO solved monitor!cprocessd: [clock] after 0s"]);
}

#[test]
fn a_host_that_is_forgotten_is_told_of_no_more() {
    let timeline = four_hosts().ahead("a", 123_000).at(60).silent("a").at(100).forget("a!alive", "1").at(200);
    timeline.expect([
        "26s WARN alarm a!alive: [clock]",
        "70500ms CRIT down a!alive:",
        "100s INFO order monitor!cprocessd: [order]",
        "100s INFO retired a!alive: after 0s",
        "100s INFO retired a!alive: [clock] after 79s",
        "ordered a!alive:",
    ]);
}

#[test]
fn what_was_told_of_a_clock_before_ours_was_blamed_is_not_told_again_as_the_same() {
    let mut timeline = four_hosts().ahead("a", -60_000).at(40).ahead("b", -60_000).ahead("c", -60_000).at(80);
    let first = timeline.drafts.iter().find(|draft| draft.kind == Kind::Alarm).expect("event").id;
    timeline.told.clear();
    let timeline = timeline.ahead("b", 0).ahead("c", 0).at(120);
    assert_ne!(timeline.drafts.last().expect("event").id, first);
    timeline.expect(["81s INFO solved monitor!cprocessd: [clock] after 35s", "84s WARN alarm a!alive: [clock]"]);
}

#[test]
fn whose_clock_it_is_depends_on_how_many_hosts_are_heard() {
    let timeline = four_hosts().ahead("a", 60_000).ahead("b", 60_000).ahead("c", 60_000).at(60);
    let timeline = timeline.expect(["26s WARN alarm monitor!cprocessd: [clock]"]);
    let timeline = timeline.silent("web1").silent("c").at(100).expect([
        "70500ms CRIT down web1!alive:",
        "71s INFO solved monitor!cprocessd: [clock] after 45s",
        "74s WARN alarm a!alive: [clock]",
        "74s WARN alarm b!alive: [clock]",
    ]);
    // And it is the same for who starts now.
    timeline.restart().at(120).expect([]);
}

#[test]
fn a_clock_that_is_as_wrong_as_ours_is_not_taken_for_right_after_a_restart() {
    let most = four_hosts().ahead("web1", 60_000).ahead("b", 60_000).ahead("c", 60_000);
    let timeline = most.ahead("a", 3_600_000).at(60);
    timeline
        .expect(["26s WARN alarm monitor!cprocessd: [clock]", "26s WARN alarm a!alive: [clock]"])
        .own_ahead(3_600_000)
        .at(100)
        .expect([])
        .restart()
        .at(140)
        .expect([]);
}
