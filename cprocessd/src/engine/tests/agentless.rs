//! Hosts without a ccollectd.

use super::*;

const ALIVE: &str = "router1!alive:";
const SSH: &str = "router1!port:ssh";

fn with_a_router() -> Timeline {
    Timeline::new().live("web1").observed("web1", ALIVE, true).observed("web1", SSH, true).at(10).expect([
        "0s DEBUG up web1!alive: [initial]",
        "0s DEBUG up router1!alive: [initial]",
        "0s DEBUG up router1!port:ssh [initial]",
    ])
}

#[test]
fn a_router_lives_by_its_check() {
    let timeline = with_a_router();
    assert_eq!(timeline.state_of("router1"), State::Up);
    let timeline = timeline.observed("web1", ALIVE, false).observed("web1", SSH, false).at(20);
    assert_eq!((timeline.state_of("router1"), timeline.check_state(SSH)), (State::Down, State::Unknown));
    let timeline = timeline.observed("web1", ALIVE, true).observed("web1", SSH, true).at(30);
    assert_eq!((timeline.state_of("router1"), timeline.check_state(SSH)), (State::Up, State::Up));
    timeline.expect(["10s CRIT down router1!alive:", "20s INFO up router1!alive: after 10s"]);
}

#[test]
fn what_is_still_down_when_the_router_is_back_is_told_with_its_date() {
    let timeline = with_a_router().observed("web1", ALIVE, false).at(15).observed("web1", SSH, false).at(20);
    let timeline = timeline.observed("web1", ALIVE, true).at(30);
    assert_eq!(timeline.drafts.last().expect("event").since, wall(15_000));
    timeline.expect([
        "10s CRIT down router1!alive:",
        "20s INFO up router1!alive: after 10s",
        "21s ERR down router1!port:ssh",
    ]);
}

#[test]
fn what_was_down_before_the_router_was_is_told_up_after_it() {
    with_a_router()
        .observed("web1", SSH, false)
        .at(15)
        .observed("web1", ALIVE, false)
        .at(20)
        .observed("web1", SSH, true)
        .at(30)
        .observed("web1", ALIVE, true)
        .at(40)
        .expect([
            "10s ERR down router1!port:ssh",
            "15s CRIT down router1!alive:",
            "30s INFO up router1!alive: after 15s",
            "20s INFO up router1!port:ssh after 10s",
        ]);
}

#[test]
fn a_restart_while_the_router_is_down_changes_nothing() {
    let timeline = with_a_router().observed("web1", ALIVE, false).at(15).restart();
    let timeline = timeline.observed("web1", SSH, false).at(20);
    assert_eq!((timeline.state_of("router1"), timeline.check_state(SSH)), (State::Down, State::Unknown));
    let timeline = timeline.restart().observed("web1", ALIVE, true).observed("web1", SSH, true).at(30);
    timeline.expect(["10s CRIT down router1!alive:", "20s INFO up router1!alive: after 10s"]);
}

#[test]
fn a_router_whose_only_observer_is_dead_is_unknown() {
    let timeline = with_a_router().live("a").expect(["10s DEBUG up a!alive: [initial]"]);
    let timeline = timeline.unobserved("web1", ALIVE).observed("a", ALIVE, true).at(20).at(25);
    assert_eq!(timeline.state_of("router1"), State::Up);
    let timeline = timeline.silent("a").at(60);
    assert_eq!((timeline.state_of("router1"), timeline.check_state(SSH)), (State::Unknown, State::Up));
    let timeline = timeline.silent("web1").at(90);
    assert_eq!((timeline.state_of("router1"), timeline.check_state(SSH)), (State::Unknown, State::Unknown));
    let timeline = timeline.live("a").at(95);
    assert_eq!(timeline.state_of("router1"), State::Up);
    timeline.expect(["35500ms CRIT down a!alive:", "70500ms CRIT down web1!alive:", "90s INFO up a!alive: after 65s"]);
}

#[test]
fn once_it_speaks_for_itself_the_check_is_refused() {
    let timeline = with_a_router().observed("web1", ALIVE, false).at(20).live("router1").at(30);
    assert_eq!(timeline.state_of("router1"), State::Up);
    assert!(timeline.refused.iter().all(|reason| *reason == "alive_by_another") && timeline.refused.len() > 5);
    assert_eq!(timeline.engine.service_list(Some(&host("router1"))).len(), 1);
    timeline
        .expect(["10s CRIT down router1!alive:", "20s INFO up router1!alive: after 10s"])
        .silent("router1")
        .at(60)
        .expect(["40500ms CRIT down router1!alive:"]);
}

#[test]
fn a_router_that_is_forgotten_is_gone_until_it_is_reported() {
    let timeline = with_a_router().unobserved("web1", ALIVE).unobserved("web1", SSH).forget("router1", "1").at(100);
    assert!(timeline.engine.server_list().iter().all(|row| row.host != host("router1")));
    let timeline = timeline.observed("web1", ALIVE, true).at(110);
    assert_eq!(timeline.state_of("router1"), State::Up);
}

#[test]
fn a_router_whose_check_is_no_longer_configured_is_unknown() {
    let timeline = with_a_router().watches("web1", &[ALIVE, SSH]).observed("web1", ALIVE, false).at(15);
    let timeline = timeline.unobserved("web1", ALIVE).watches("web1", &[SSH]).at(20);
    assert_eq!((timeline.state_of("router1"), timeline.check_state(SSH)), (State::Unknown, State::Up));
    timeline.expect(["10s CRIT down router1!alive:", "15s INFO retired router1!alive: after 5s"]);
}
