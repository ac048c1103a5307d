//! Numbers and the rules that look at them.

use super::*;

fn disk_rule(text: &str) -> Timeline {
    Timeline::with(settings(&[("disk", text)])).live("web1").expect(["0s DEBUG up web1!alive: [initial]"])
}

#[test]
fn an_alarm_opens_at_its_limit_and_is_solved_at_its_clear() {
    disk_rule("*!machine.disk:*.used_percentage > 90 clear 80 ERR")
        .value(DISK, 90.0)
        .at(1)
        .value(DISK, 91.0)
        .at(2)
        .value(DISK, 89.0)
        .at(3)
        .value(DISK, 92.0)
        .at(4)
        .value(DISK, 80.0)
        .expect([
            "1s ERR alarm web1!machine.disk:/.used_percentage [disk]",
            "4s INFO solved web1!machine.disk:/.used_percentage [disk] after 3s",
        ]);
}

#[test]
fn an_alarm_with_for_waits_in_the_observers_time() {
    disk_rule("*!machine.disk:*.used_percentage > 90 for 10s ERR")
        .value(DISK, 95.0)
        .at(9)
        .value(DISK, 95.0)
        .expect([])
        .at(10)
        .value(DISK, 95.0)
        .expect(["10s ERR alarm web1!machine.disk:/.used_percentage [disk]"])
        .at(11)
        .value(DISK, 5.0)
        .expect(["11s INFO solved web1!machine.disk:/.used_percentage [disk] after 11s"]);
}

#[test]
fn a_number_that_recovers_in_time_raises_nothing() {
    disk_rule("*!machine.disk:*.used_percentage > 90 for 10s ERR")
        .value(DISK, 95.0)
        .at(9)
        .value(DISK, 5.0)
        .at(10)
        .value(DISK, 95.0)
        .at(19)
        .value(DISK, 95.0)
        .expect([]);
}

#[test]
fn an_alarm_keeps_its_first_date_across_a_restart_pending_or_open() {
    disk_rule("*!machine.disk:*.used_percentage > 90 for 10s ERR")
        .value(DISK, 95.0)
        .at(5)
        .restart()
        .at(10)
        .value(DISK, 95.0)
        .expect(["10s ERR alarm web1!machine.disk:/.used_percentage [disk]"])
        .restart()
        .value(DISK, 95.0)
        .at(20)
        .value(DISK, 1.0)
        .expect(["20s INFO solved web1!machine.disk:/.used_percentage [disk] after 20s"]);
}

#[test]
fn an_alarm_whose_rule_is_gone_is_retired() {
    let mut timeline = disk_rule("*!machine.disk:*.used_percentage > 90 ERR").value(DISK, 95.0);
    let now = Now { monotonic: Duration::ZERO, wall: wall(0) };
    let outputs = timeline.engine.reconfigure(now, settings(&[]));
    timeline.take(outputs);
    timeline.value(DISK, 99.0).expect([
        "0s ERR alarm web1!machine.disk:/.used_percentage [disk]",
        "0s INFO retired web1!machine.disk:/.used_percentage [disk] after 0s",
    ]);
}

#[test]
fn numbers_that_are_none_are_refused_and_the_last_value_stays() {
    let timeline = disk_rule("*!machine.disk:*.used_percentage > 90 ERR")
        .value(DISK, 5.0)
        .value(DISK, f64::NAN)
        .value(DISK, f64::INFINITY);
    assert_eq!(timeline.refused, ["not_finite", "not_finite"]);
    let rows = timeline.engine.last_value(&"*!machine.disk".parse().expect("pattern"));
    assert_eq!(rows.iter().map(|row| row.value).collect::<Vec<_>>(), [5.0]);
}

#[test]
fn a_value_is_stale_after_three_intervals() {
    let stale = |t: &Timeline| t.engine.last_value(&"*".parse().expect("pattern"))[0].stale;
    let timeline = Timeline::new().live("web1").value(DISK, 1.0).at(3);
    assert!(!stale(&timeline));
    assert!(stale(&timeline.at(4)));
}

#[test]
fn absence_of_a_number_or_a_check_is_an_alarm_of_its_own() {
    Timeline::with(settings(&[
        ("no backup", "*!backup absent for 1h ERR"),
        ("no disk", "*!machine.disk absent for 60s WARN"),
    ]))
    .live("web1")
    .expect(["0s DEBUG up web1!alive: [initial]"])
    .up("web1!backup:db")
    .expect(["0s DEBUG up web1!backup:db [initial]"])
    .value(DISK, 5.0)
    .unreported("web1!backup:db")
    .at(4000)
    .expect([
        "60500ms WARN absent web1!machine.disk:/.used_percentage [no disk]",
        "3600500ms ERR absent web1!backup:db [no backup]",
    ])
    .value(DISK, 5.0)
    .up("web1!backup:db")
    .expect([
        "4000s INFO solved web1!machine.disk:/.used_percentage [no disk] after 3999s",
        "4000s INFO solved web1!backup:db [no backup] after 3999s",
    ]);
}

#[test]
fn what_a_rule_expects_by_name_may_be_absent_from_the_start() {
    Timeline::with(settings(&[("no backup", "web1!backup:db absent for 1h ERR")]))
        .live("web1")
        .expect(["0s DEBUG up web1!alive: [initial]"])
        .at(4000)
        .expect(["3602500ms ERR absent web1!backup:db [no backup]"])
        .up("web1!backup:db")
        .expect([
            "4000s INFO solved web1!backup:db [no backup] after 3997s",
            "4000s DEBUG up web1!backup:db [initial]",
        ]);
}

#[test]
fn one_host_cannot_fill_our_memory() {
    let mut timeline = Timeline::new().live("web1");
    for i in 0..150 {
        timeline = timeline.value(&format!("web1!app.queue:q{i}.length"), 1.0).up(&format!("web1!app:q{i}"));
    }
    assert!(timeline.refused.iter().all(|reason| *reason == "too_many_addresses"));
    assert_eq!(timeline.refused.len(), 200);
    let rows =
        timeline.engine.last_value(&"*".parse().expect("pattern")).len() + timeline.engine.service_list(None).len();
    assert_eq!(rows, 100);
}

#[test]
fn an_alarm_with_for_is_not_late_by_the_hour_that_a_clock_was_put_back() {
    let mut timeline = disk_rule("*!machine.disk:*.used_percentage > 90 for 10s ERR").at(4000).value(DISK, 95.0);
    // Its clock is an hour back from here on; ours is not.
    for secs in 401..=420 {
        timeline.now_ms = secs * 1000;
        timeline = timeline.value(DISK, 95.0);
    }
    timeline.expect(["411s ERR alarm web1!machine.disk:/.used_percentage [disk]"]);
}

#[test]
fn what_a_rule_misses_is_not_forgotten_before_or_after_it_is_missed() {
    Timeline::with(settings(&[
        ("no backup", "*!backup absent for 25h ERR"),
        ("no disk", "*!machine.disk absent for 25h WARN"),
    ]))
    .live("web1")
    .up("web1!backup:db")
    .value(DISK, 5.0)
    .unreported("web1!backup:db")
    .at(60 * 3600)
    .expect([
        "0s DEBUG up web1!alive: [initial]",
        "0s DEBUG up web1!backup:db [initial]",
        "90000500ms ERR absent web1!backup:db [no backup]",
        "90000500ms WARN absent web1!machine.disk:/.used_percentage [no disk]",
    ])
    .up("web1!backup:db")
    .value(DISK, 5.0)
    .expect([
        "216000s INFO solved web1!backup:db [no backup] after 215999s",
        "216000s INFO solved web1!machine.disk:/.used_percentage [no disk] after 215999s",
    ]);
}

#[test]
fn a_check_is_absent_for_as_long_as_it_was_not_heard_of_whatever_its_host_did_meanwhile() {
    Timeline::with(settings(&[("no backup", "*!backup absent for 1h ERR")]))
        .live("web1")
        .up("web1!backup:db")
        .expect(["0s DEBUG up web1!alive: [initial]", "0s DEBUG up web1!backup:db [initial]"])
        .unreported("web1!backup:db")
        .at(1800)
        .silent("web1")
        .at(1900)
        .live("web1")
        .at(4000)
        .expect([
            "1810500ms CRIT down web1!alive:",
            "1900s INFO up web1!alive: after 100s",
            "3600500ms ERR absent web1!backup:db [no backup]",
        ]);
}

#[test]
fn an_alarm_whose_rule_no_longer_looks_at_its_number_is_retired() {
    let mut timeline = disk_rule("*!machine.disk:*.used_percentage > 90 ERR")
        .value(DISK, 95.0)
        .value("web1!machine.disk:/b.free", 1.0);
    let now = Now { monotonic: Duration::ZERO, wall: wall(0) };
    let outputs = timeline.engine.reconfigure(now, settings(&[("disk", "*!machine.disk:/b.used_percentage > 90 ERR")]));
    timeline.take(outputs);
    timeline.value(DISK, 99.0).expect([
        "0s ERR alarm web1!machine.disk:/.used_percentage [disk]",
        "0s INFO retired web1!machine.disk:/.used_percentage [disk] after 0s",
    ]);
}

#[test]
fn a_rule_that_expects_by_name_finds_what_has_a_comment_and_an_interface_with_a_dot() {
    Timeline::with(settings(&[
        ("no irc", "web1!port:irc absent for 60s ERR"),
        ("no vlan", "web1!machine.network:eth0.100 absent for 60s ERR"),
    ]))
    .live("web1")
    .up("web1!port:irc (6667)")
    .expect(["0s DEBUG up web1!alive: [initial]", "0s DEBUG up web1!port:irc (6667) [initial]"])
    .value("web1!machine.network:eth0.100.in", 1.0)
    .at(59)
    .value("web1!machine.network:eth0.100.in", 1.0)
    .at(100)
    .expect([]);
}

#[test]
fn what_a_rule_expects_by_name_and_comes_late_with_a_comment_ends_the_alarm() {
    Timeline::with(settings(&[("no irc", "web1!port:irc absent for 60s ERR")]))
        .live("web1")
        .at(100)
        .up("web1!port:irc (6667)")
        .expect([
            "0s DEBUG up web1!alive: [initial]",
            "62500ms ERR absent web1!port:irc [no irc]",
            "100s INFO solved web1!port:irc [no irc] after 97s",
            "100s DEBUG up web1!port:irc (6667) [initial]",
        ]);
}

#[test]
fn refused_numbers_leave_nothing_behind() {
    let mut timeline = Timeline::new().live("web1");
    for i in 0..150 {
        timeline = timeline.value(&format!("web1!app.queue:q{i}.length"), 1.0);
        timeline = timeline.value(&format!("web1!app.queue:r{i}.length"), f64::NAN);
    }
    let groups = timeline.engine.numbers.hosts().flat_map(|host| timeline.engine.numbers.of_host(host));
    assert_eq!(groups.count(), 100);
}

/// A value each minute from `from` on, `from + per_minute`, and so on.
fn each_minute(mut timeline: Timeline, minutes: std::ops::Range<u64>, value: impl Fn(u64) -> f64) -> Timeline {
    for minute in minutes {
        timeline = timeline.at(minute * 60).value(DISK, value(minute));
    }
    timeline
}

#[test]
fn a_rate_over_its_limit_is_an_alarm_and_a_counter_that_begins_anew_is_none() {
    let errors = "web1!app.queue:in.errors";
    let timeline = Timeline::with(settings(&[("errors", "rate(*!app.queue:*.errors) > 10 clear 5 WARN")]))
        .live("web1")
        .value(errors, 1000.0)
        .at(10)
        .value(errors, 1100.0)
        .expect(["0s DEBUG up web1!alive: [initial]"])
        .at(20)
        .value(errors, 1201.0)
        .expect(["20s WARN alarm web1!app.queue:in.errors [errors]"])
        .at(30)
        .value(errors, 1261.0)
        .at(40)
        .value(errors, 3.0)
        .expect([])
        .at(50)
        .value(errors, 53.0)
        .expect(["50s INFO solved web1!app.queue:in.errors [errors] after 30s"]);
    let texts: Vec<_> = timeline.drafts.iter().map(|draft| (draft.text.as_str(), draft.value)).collect();
    assert_eq!(texts[1..], [("10.1 per second > 10", Some(10.1)), ("back at 5 per second", Some(5.0))]);
}

#[test]
fn a_rate_has_to_last_as_long_as_its_rule_says() {
    let errors = "web1!app.queue:in.errors";
    Timeline::with(settings(&[("errors", "rate(*!app.queue:*.errors) > 10 for 20s WARN")]))
        .live("web1")
        .value(errors, 0.0)
        .at(10)
        .value(errors, 200.0)
        .at(20)
        .value(errors, 400.0)
        .expect(["0s DEBUG up web1!alive: [initial]"])
        .at(30)
        .value(errors, 600.0)
        .expect(["30s WARN alarm web1!app.queue:in.errors [errors]"]);
}

#[test]
fn a_disk_that_will_be_full_is_told_of_in_time_and_solved_when_it_no_longer_will() {
    let timeline = disk_rule("*!machine.disk:*.used_percentage full within 4h over 1h ERR");
    // 0.1 a minute: full after 200 minutes more, seen after a quarter of the window.
    let timeline = each_minute(timeline, 0..15, |minute| 80.0 + minute as f64 * 0.1).expect([]);
    let timeline = each_minute(timeline, 15..16, |minute| 80.0 + minute as f64 * 0.1)
        .expect(["900s ERR alarm web1!machine.disk:/.used_percentage [disk]"]);
    assert_eq!(timeline.drafts.last().expect("the alarm").text, "full in about 3h 5m at 6 per hour");
    assert_eq!(timeline.drafts.last().expect("the alarm").value, Some(81.5));
    // Somebody makes room.
    let timeline = each_minute(timeline, 16..18, |_| 40.0)
        .expect(["960s INFO solved web1!machine.disk:/.used_percentage [disk] after 60s"]);
    let solved = &timeline.drafts.last().expect("the end").text;
    assert!(solved.starts_with("at 40 and -") && solved.ends_with("no longer expected within 4h 0m"), "{solved}");
}

#[test]
fn what_is_beyond_its_limit_already_stays_an_alarm_although_it_moves_no_more() {
    let timeline = disk_rule("*!machine.disk:*.used_percentage full within 4h over 1h ERR");
    let timeline = each_minute(timeline, 0..180, |minute| (90.0 + minute as f64).min(100.0));
    assert_eq!(timeline.drafts.last().expect("the alarm").text, "full already, at 100");
    timeline.expect(["900s ERR alarm web1!machine.disk:/.used_percentage [disk]"]);
}

#[test]
fn room_that_runs_out_is_predicted_downwards_too() {
    let free = "web1!machine.disk:/.free";
    let mut timeline =
        Timeline::with(settings(&[("room", "*!machine.disk:*.free < 100 within 2h over 1h for 5m WARN")]))
            .live("web1")
            .expect(["0s DEBUG up web1!alive: [initial]"]);
    for minute in 0..=20 {
        timeline = timeline.at(minute * 60).value(free, 1000.0 - minute as f64 * 10.0);
    }
    assert_eq!(timeline.drafts.last().expect("the alarm").text, "< 100 in about 1h 10m at -600 per hour");
    timeline.expect(["1200s WARN alarm web1!machine.disk:/.free [room]"]);
}

#[test]
fn a_prediction_begins_anew_with_a_restart_and_what_is_open_stays_so() {
    let timeline = disk_rule("*!machine.disk:*.used_percentage full within 4h over 1h ERR");
    let timeline = each_minute(timeline, 0..20, |minute| 80.0 + minute as f64 * 0.1)
        .expect(["900s ERR alarm web1!machine.disk:/.used_percentage [disk]"])
        .restart();
    // For a quarter of the window nobody can know.
    let timeline = each_minute(timeline, 20..35, |_| 82.0).expect([]);
    each_minute(timeline, 35..36, |_| 82.0)
        .expect(["2100s INFO solved web1!machine.disk:/.used_percentage [disk] after 1200s"]);
}

#[test]
fn a_reload_keeps_what_a_prediction_has_seen() {
    let rule = "*!machine.disk:*.used_percentage full within 4h over 1h ERR";
    let timeline = each_minute(disk_rule(rule), 0..14, |minute| 80.0 + minute as f64 * 0.1);
    let timeline = timeline.reload(settings(&[("another", "*!machine > 1t WARN"), ("disk", rule)]));
    each_minute(timeline, 14..16, |minute| 80.0 + minute as f64 * 0.1)
        .expect(["900s ERR alarm web1!machine.disk:/.used_percentage [disk]"]);
}

#[test]
fn attributes_may_come_in_any_order_some_missing_and_some_twice() {
    let mut timeline = Timeline::with(settings(&[("b", "*!app.x:u.b > 5 WARN")])).live("web1");
    let sample = |values: &[(&str, f64)]| Sample {
        host: host("web1"),
        from: host("web1"),
        service: "app".parse().expect("name"),
        time: wall(0),
        interval_ms: 0,
        resource: "x".parse().expect("name"),
        unit: "u".parse().expect("unit"),
        values: Values(values.iter().map(|(name, value)| (name.parse().expect("name"), *value)).collect()),
        backfill: false,
    };
    for values in [&[("a", 1.0), ("b", 2.0)][..], &[("b", 3.0), ("a", 4.0)], &[("c", 5.0)], &[("b", 9.0), ("b", 1.0)]] {
        timeline.apply(Input::Sample(sample(values)));
    }
    let rows = timeline.engine.last_value(&"*".parse().expect("pattern"));
    let rows: Vec<_> = rows.iter().map(|row| (row.address.to_string(), row.value)).collect();
    let expected = [("web1!app.x:u.a", 4.0), ("web1!app.x:u.b", 1.0), ("web1!app.x:u.c", 5.0)];
    assert_eq!(rows, expected.map(|(address, value)| (address.to_owned(), value)));
    timeline
        .expect([
            "0s DEBUG up web1!alive: [initial]",
            "0s WARN alarm web1!app.x:u.b [b]",
            "0s INFO solved web1!app.x:u.b [b] after 0s",
        ])
        .forget("web1!app.x:u.b", "order-1")
        .at(1);
}

#[test]
fn a_number_of_many_is_forgotten_alone_and_the_others_stay_with_their_rules() {
    let mut timeline = Timeline::with(settings(&[("c", "*!machine.disk:/.c > 5 for 10s WARN")])).live("web1");
    for attribute in ["a", "b", "c", "d"] {
        timeline = timeline.value(&format!("web1!machine.disk:/.{attribute}"), 9.0);
    }
    let timeline = timeline.forget("*!machine.disk:/.[ab]", "order-1").at(10).value("web1!machine.disk:/.c", 9.0);
    let rows = timeline.engine.last_value(&"*".parse().expect("pattern"));
    let rows: Vec<_> = rows.iter().map(|row| row.address.to_string()).collect();
    assert_eq!(rows, ["web1!machine.disk:/.c", "web1!machine.disk:/.d"]);
    assert!(timeline.told.contains(&"10s WARN alarm web1!machine.disk:/.c [c]".to_owned()), "{:?}", timeline.told);
}

#[test]
fn a_number_that_a_later_one_has_overtaken_is_not_judged() {
    let mut timeline =
        disk_rule("*!machine.disk:*.used_percentage > 90 ERR").at(10).value(DISK, 95.0).at(15).value(DISK, 5.0);
    timeline.now_ms = 10_000;
    let late = timeline.sample(DISK, 95.0);
    timeline.now_ms = 16_000;
    timeline.apply(Input::Sample(late.clone()));
    let timeline = timeline.at(30).expect([
        "10s ERR alarm web1!machine.disk:/.used_percentage [disk]",
        "15s INFO solved web1!machine.disk:/.used_percentage [disk] after 5s",
    ]);
    // What is older still is from a clock that was put back.
    let mut timeline = timeline;
    timeline.apply(Input::Sample(Sample { time: wall(1000), ..late }));
    timeline.expect(["1s ERR alarm web1!machine.disk:/.used_percentage [disk]"]);
}

#[test]
fn what_lasts_is_counted_anew_when_its_observers_clock_was_put_back() {
    let mut timeline = disk_rule("*!machine.disk:*.used_percentage > 90 for 10s ERR").at(3600).value(DISK, 95.0);
    for secs in [5, 10, 15, 20] {
        timeline = timeline.at(3600 + secs);
        let sample = timeline.sample(DISK, 95.0);
        timeline.apply(Input::Sample(Sample { time: wall(secs * 1000), ..sample }));
    }
    timeline.expect(["15s ERR alarm web1!machine.disk:/.used_percentage [disk]"]);
}
