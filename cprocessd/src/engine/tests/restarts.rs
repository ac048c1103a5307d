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
