//! Orders.

use super::*;

#[test]
fn what_a_person_forgets_is_closed_and_the_same_order_twice_is_one_order() {
    let timeline =
        up_and_running().down("web1!backup:db").unreported("web1!backup:db").at(10).forget("web1!backup", "o1");
    let timeline = timeline.expect([
        "0s ERR down web1!backup:db",
        "10s INFO order monitor!cprocessd: [order]",
        "10s INFO retired web1!backup:db after 10s",
        "ordered web1!backup:db",
    ]);
    timeline.restart().forget("web1!backup", "o1").expect(["ordered web1!backup:db"]);
}

#[test]
fn a_host_that_is_gone_for_good_can_be_forgotten() {
    let timeline = up_and_running().at(10).silent("web1").at(60).forget("web1", "o1");
    assert!(timeline.engine.server_list().is_empty() && timeline.engine.down_list().is_empty());
    assert!(timeline.restart().at(200).engine.server_list().is_empty());
}

#[test]
fn a_host_that_lives_keeps_what_it_watches_when_it_is_forgotten() {
    up_and_running()
        .watches("web1", &["web1!port:www"])
        .at(10)
        .forget("web1", "o1")
        .at(20)
        .unreported("web1!port:www")
        .at(60)
        .expect([
            "10s INFO order monitor!cprocessd: [order]",
            "ordered web1!port:www",
            "11s DEBUG up web1!port:www [initial]",
            "23500ms WARN absent web1!port:www [silent]",
        ]);
}
