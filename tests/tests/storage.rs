//! What happens to state on a disk that is full, that gives back something else than was written, or that was replaced by a
//! backup: nothing is lost silently, and nobody is told twice of what they know.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use tests::{PATIENCE, Plugin, Process, Suite, say_skipped, servers, wait_for};

const HEALTH: &str = r#"{"query":"health"}"#;
const QUIET: &str = "default_rules = false\n";

fn unix_ms() -> i64 {
    common::time::UnixMillis::now().0
}

fn epoch(suite: &Suite) -> String {
    let health = wait_for("cprocessd answers", || suite.ask("cprocessd.sock", HEALTH));
    health["epoch"].as_str().expect("epoch").to_owned()
}

/// The incidents that are open, without the words, which are of the last observation.
fn open(suite: &Suite) -> Vec<(String, String, i64)> {
    let rows = wait_for("down-list is answered", || suite.query(r#"{"query":"down-list"}"#));
    let rows = rows.as_array().expect("rows").iter().map(|row| {
        let text = |key: &str| row[key].as_str().expect("text").to_owned();
        (text("incident"), text("address"), row["since"].as_i64().expect("since"))
    });
    rows.collect()
}

/// Units that are up and then down.
fn take_down(plugin: &mut Plugin, units: std::ops::Range<u32>) {
    for state in ["up", "down"] {
        for unit in units.clone() {
            plugin.state(state, &format!("u{unit}"), unix_ms());
        }
    }
}

#[track_caller]
fn wait_for_open(suite: &Suite, count: usize) -> Vec<(String, String, i64)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open = open(suite);
        if open.len() == count {
            return open;
        }
        assert!(Instant::now() < deadline, "not {count}, but {open:?}");
    }
}

/// What cprocessd told of its damaged database.
fn told_of_damage(suite: &Suite) -> Vec<Value> {
    let events = suite.events().into_iter();
    events.filter(|event| event["service"] == "cprocessd" && event["rule"] == "log").collect()
}

/// It waits for those who take the state of the new journal first, and so would miss it.
fn wait_until_told(suite: &Suite) -> Vec<Value> {
    wait_for("people are told", || Some(told_of_damage(suite)).filter(|told| !told.is_empty()))
}

#[test]
fn of_a_database_garbled_in_the_middle_what_is_open_stays_open_and_people_are_told() {
    let mut suite = Suite::running("", QUIET);
    let mut plugin = Plugin::connect(&suite);
    take_down(&mut plugin, 0..300);
    let before = wait_for_open(&suite, 300);
    let old = epoch(&suite);
    assert_eq!(suite.daemon("cprocessd").terminate(), 0);
    let path = suite.path("state/cprocessd/cprocessd.db");
    let mut bytes = fs::read(&path).expect("read");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 2 * 4096].fill(0x5a);
    fs::write(&path, &bytes).expect("written");
    suite.start("cprocessd");
    let new = epoch(&suite);
    assert_ne!(new, old);
    // Those whose row is lost are found down again, with their dates: ccollectd knows them.
    let after = wait_for_open(&suite, 300);
    assert_eq!(after, before);
    let [told] = wait_until_told(&suite).try_into().expect("told once");
    assert_eq!((&told["severity"], &told["kind"]), (&json!("ERR"), &json!("log")), "{told}");
    assert!(told["text"].as_str().is_some_and(|text| text.contains("cprocessd.db.corrupt-")), "{told}");
    // And not again.
    suite.kill("cprocessd");
    suite.start("cprocessd");
    assert_eq!((epoch(&suite), told_of_damage(&suite).len()), (new, 1));
    // What is open can still end.
    for unit in 0..300 {
        plugin.state("up", &format!("u{unit}"), unix_ms());
    }
    wait_for_open(&suite, 0);
}

#[test]
fn a_torn_log_is_noticed_and_what_was_in_it_is_judged_again() {
    let mut suite = Suite::running("", QUIET);
    let mut plugin = Plugin::connect(&suite);
    take_down(&mut plugin, 0..50);
    let before = wait_for_open(&suite, 50);
    let old = epoch(&suite);
    suite.kill("cprocessd");
    let log = fs::File::options().write(true).open(suite.path("state/cprocessd/cprocessd.db-wal")).expect("a log");
    let middle = log.metadata().expect("size").len() / 2;
    log.write_all_at(&[0x5a; 100], middle).expect("written");
    suite.start("cprocessd");
    assert_ne!(epoch(&suite), old, "a place in the old journal means nothing any more");
    assert_eq!(wait_for_open(&suite, 50), before, "the same incidents, by equal input");
    assert_eq!(wait_until_told(&suite).len(), 1);
}

#[test]
fn damage_that_is_met_while_running_ends_the_daemon_and_the_next_start_mends_it() {
    let mut suite = Suite::running("", QUIET);
    let mut plugin = Plugin::connect(&suite);
    take_down(&mut plugin, 0..50);
    let before = wait_for_open(&suite, 50);
    let path = suite.path("state/cprocessd/cprocessd.db");
    // All of it is in the file, and none of what the daemon has in memory is still current.
    let db = rusqlite::Connection::open(&path).expect("opens");
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA user_version = 7; PRAGMA wal_checkpoint(TRUNCATE)")
        .expect("copied");
    let file = fs::File::options().write(true).open(&path).expect("opens");
    let pages = file.metadata().expect("size").len() / 4096;
    for page in 1..pages {
        file.write_all_at(&[0x5a; 4096], page * 4096).expect("written");
    }
    drop(db);
    plugin.state("down", "another", unix_ms());
    assert_eq!(suite.daemon("cprocessd").exit_code(), 1);
    let log = suite.log("cprocessd");
    assert!(log.contains("is damaged; the next start sets it aside"), "{log}");
    suite.start("cprocessd");
    let after = wait_for_open(&suite, 51);
    assert!(before.iter().all(|incident| after.contains(incident)), "{before:?} {after:?}");
    assert_eq!(wait_until_told(&suite).len(), 1);
}

#[test]
fn people_hear_of_a_damaged_journal_of_ccollectd() {
    let mut suite = Suite::running("", QUIET);
    assert_eq!(suite.daemon("ccollectd").terminate(), 0);
    fs::write(suite.path("state/ccollectd/feed.db"), "").expect("emptied");
    suite.start("ccollectd");
    let told = suite.wait_for_event("log", "ccollectd:");
    assert!(told["text"].as_str().is_some_and(|text| text.contains("feed.db.corrupt-")), "{told}");
    assert!(suite.log("cprocessd").contains("no longer has all that was not read yet"), "{}", suite.log("cprocessd"));
}

/// A small file system of its own, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, said, where we may not mount.
    fn mount(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).expect("folder");
        if !servers::is_root() {
            say_skipped("a full disk", "only root can mount a small one");
            return None;
        }
        let size = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(path.to_owned())),
            Ok(output) => {
                say_skipped("a full disk", &String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                say_skipped("a full disk", &error.to_string());
                None
            }
        }
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let file = fs::File::create(self.0.join("filler")).expect("made");
        let block = [1; 4096];
        let mut at = 0;
        while file.write_all_at(&block, at).is_ok() {
            at += 4096;
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its daemons end after it does.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Each fault with its beginning and its end, once each.
fn assert_told_once(suite: &Suite, units: u32) {
    let events = wait_for("all is told", || {
        let events = suite.events();
        let ends = events.iter().filter(|event| event["service"] == "drill" && event["kind"] == "up").count();
        // One when it is first seen, one when it comes back.
        (ends >= 2 * units as usize).then_some(events)
    });
    for unit in 0..units {
        let unit = format!("u{unit}");
        let kinds = events.iter().filter(|event| event["service"] == "drill" && event["unit"] == unit.as_str());
        let kinds: Vec<&str> = kinds.map(|event| event["kind"].as_str().expect("kind")).collect();
        assert_eq!(kinds, ["up", "down", "up"], "{unit}");
    }
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().expect("seq")).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
}

#[test]
fn a_full_disk_stops_neither_judging_nor_answers_and_loses_nothing() {
    let mut suite = Suite::new("", QUIET);
    let Some(disk) = SmallDisk::mount(&suite.path("state/cprocessd"), "8m") else { return };
    suite.start("ccollectd");
    suite.start("cprocessd");
    suite.wait_for_host();
    let mut plugin = Plugin::connect(&suite);
    disk.fill();
    take_down(&mut plugin, 0..200);
    // Judged and answered, and not told.
    wait_for_open(&suite, 200);
    wait_for("it is counted", || (suite.counter("cprocessd", "journal.failed") >= 2).then_some(()));
    assert!(!suite.events().iter().any(|event| event["kind"] == "down"));
    let said = |text: &str| suite.log("cprocessd").matches(text).count();
    assert_eq!(said("nothing is told until it can be journaled"), 1, "{}", suite.log("cprocessd"));
    assert!(suite.daemon("cprocessd").memory("VmRSS:") < tests::MAX_RSS_BYTES);
    disk.free();
    for unit in 0..200 {
        plugin.state("up", &format!("u{unit}"), unix_ms());
    }
    assert_told_once(&suite, 200);
    let log = suite.log("cprocessd");
    assert_eq!(log.matches("the journal can be written again").count(), 1, "{log}");
    // What waited in memory when it was killed comes from the feed again.
    disk.fill();
    plugin.state("down", "late", unix_ms());
    wait_for_open(&suite, 1);
    suite.kill("cprocessd");
    disk.free();
    suite.start("cprocessd");
    let event = suite.wait_for_event("down", "drill:late");
    assert_eq!(suite.events().iter().filter(|other| other["id"] == event["id"]).count(), 1);
}

#[test]
fn a_full_disk_of_ccollectd_stops_no_observation_and_is_made_up_for() {
    let mut suite = Suite::new("", QUIET);
    let Some(disk) = SmallDisk::mount(&suite.path("state/ccollectd"), "8m") else { return };
    suite.start("ccollectd");
    suite.start("cprocessd");
    suite.wait_for_host();
    let mut plugin = Plugin::connect(&suite);
    disk.fill();
    take_down(&mut plugin, 0..200);
    wait_for_open(&suite, 200);
    let log = suite.log("ccollectd");
    assert_eq!(log.matches("nothing can be journaled").count(), 1, "{log}");
    assert!(suite.counter("ccollectd", "journal.failed") >= 1);
    disk.free();
    for unit in 0..200 {
        plugin.state("up", &format!("u{unit}"), unix_ms());
    }
    assert_told_once(&suite, 200);
    let written = || suite.log("ccollectd").matches("the journal can be written again").count() == 1;
    wait_for("it is said", || written().then_some(()));
    // The feed's journal has them too, each once.
    let changes = suite.journal("feed-query");
    let downs = changes.iter().filter(|entry| entry["service"] == "drill" && entry["up"] == false).count();
    assert_eq!(downs, 200);
}

#[test]
fn who_reads_too_slowly_is_told_what_retention_has_dropped() {
    let suite = Suite::running("", "default_rules = false\njournal_entries = 1000\n");
    let mut plugin = Plugin::connect(&suite);
    take_down(&mut plugin, 0..200);
    wait_for_open(&suite, 200);
    // A consumer that stops after its first page.
    suite.query(r#"{"query":"events","after":0,"limit":10}"#).expect("a page");
    for round in 0..5 {
        let state = if round % 2 == 0 { "up" } else { "down" };
        for unit in 0..200 {
            plugin.state(state, &format!("u{unit}"), unix_ms());
        }
    }
    wait_for("it is counted", || (suite.counter("cprocessd", "journal.dropped_unread") > 0).then_some(()));
    let log = suite.log("cprocessd");
    assert_eq!(log.matches("entries that a consumer has not read yet").count(), 1, "{log}");
    assert!(suite.query(r#"{"query":"events","after":10}"#).is_none(), "gone");
}

/// The files of a backup where daemons of this suite find them.
fn restore(backup: &Path, suite: &Suite) {
    for daemon in ["ccollectd", "cprocessd"] {
        let folder = suite.path(&format!("state/{daemon}"));
        fs::create_dir_all(&folder).expect("folder");
        for entry in fs::read_dir(backup.join(daemon)).expect("copied") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), folder.join(entry.file_name())).expect("restored");
        }
    }
}

/// All that people ask for, without what moves with the clock.
fn answers(suite: &Suite) -> Vec<Value> {
    let questions = ["down-list", "service-list", "server-list", "alarm-list"];
    let mut answers: Vec<Value> = questions
        .iter()
        .map(|name| wait_for("an answer", || suite.query(&format!(r#"{{"query":"{name}"}}"#))))
        .collect();
    for rows in &mut answers {
        for row in rows.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            row.remove("last_seen");
        }
    }
    answers
}

#[test]
fn a_backup_under_load_restores_to_equal_answers() {
    let mut suite = Suite::running("", QUIET);
    let mut plugin = Plugin::connect(&suite);
    take_down(&mut plugin, 0..300);
    wait_for_open(&suite, 300);
    let old = epoch(&suite);
    // Load that leaves no trace in the answers: each unit ends as it began.
    let busy: Vec<Value> = (0..2000)
        .map(|n| json!({ "service": "drill", "msg_type": "event", "unit": "noise", "severity": "INFO", "text": format!("{n}") }))
        .collect();
    let backup = suite.path("backup");
    let text = backup.display().to_string();
    let mut running = Process::start(&mut suite.cctl_command(&["--json", "backup", &text]));
    for event in &busy {
        plugin.push(event);
    }
    assert_eq!(running.exit_code(), 0);
    let mut files: Vec<PathBuf> = Vec::new();
    for daemon in ["ccollectd", "cprocessd"] {
        files.extend(fs::read_dir(backup.join(daemon)).expect("copied").map(|entry| entry.expect("an entry").path()));
    }
    assert_eq!(files, [backup.join("ccollectd/feed.db"), backup.join("cprocessd/cprocessd.db")], "whole, and no more");
    // Again is refused: nothing is replaced.
    let again = suite.cctl(&["backup", &text]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"), "{again:?}");
    let before = answers(&suite);
    for daemon in ["cprocessd", "ccollectd"] {
        assert_eq!(suite.daemon(daemon).terminate(), 0);
    }

    let mut restored = Suite::new("", QUIET);
    restore(&backup, &restored);
    for daemon in ["ccollectd", "cprocessd"] {
        restored.start(daemon);
    }
    restored.wait_for_host();
    wait_for("equal answers", || (answers(&restored) == before).then_some(()));
    assert_ne!(epoch(&restored), old, "no cursor into the old journal is good here");
    // The history came along.
    assert!(restored.events().len() > 600, "{}", restored.events().len());
}

#[test]
fn a_backup_says_who_is_missing_and_what_it_copied() {
    let mut suite = Suite::running("", QUIET);
    suite.kill("ccollectd");
    let backup = suite.path("backup").display().to_string();
    let output = suite.cctl(&["--json", "backup", &backup]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("not complete: ccollectd"), "{output:?}");
    let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&rows[0]["daemon"], rows.as_array().map(Vec::len)), (&json!("cprocessd"), Some(1)));
    let copy = rows[0]["copy"].as_str().expect("a path");
    assert_eq!(rows[0]["bytes"].as_u64(), Some(fs::metadata(copy).expect("there").len()));
    let mut nobody = Command::new(tests::binaries().join("cctl"));
    let nobody = nobody.args(["--run", "/nonexistent", "backup"]).arg(suite.path("b")).output().expect("it runs");
    assert_eq!(nobody.status.code(), Some(69), "{nobody:?}");
}

/// Makes a database by what a version's own migrations and a day's work left in it.
fn fixture(suite: &Suite, daemon: &str, sql: &str) {
    let folder = suite.path(&format!("state/{daemon}"));
    fs::create_dir_all(&folder).expect("folder");
    let db = rusqlite::Connection::open(folder.join(format!("{daemon}.db"))).expect("opens");
    db.execute_batch("PRAGMA journal_mode = WAL").expect("as ours");
    db.execute_batch(sql).expect("the fixture");
}

#[test]
fn the_state_of_the_previous_version_is_taken_over() {
    let mut suite = Suite::new("", QUIET);
    fixture(&suite, "cprocessd", include_str!("../fixtures/cprocessd-1.sql"));
    fixture(&suite, "cmaild", include_str!("../fixtures/cmaild-1.sql"));
    suite.start("cprocessd");
    let open = wait_for_open(&suite, 1);
    assert_eq!(open[0].1, "oldhost!drill:u0");
    assert_eq!(epoch(&suite), "804ec54156704e1f", "its journal goes on");
    assert!(suite.events().iter().any(|event| event["kind"] == "down"), "{:?}", suite.events());
    suite.configure("cmaild", "[[recipient]]\nname = 'ops'\nto = 'ops@lab.test'\n");
    suite.start("cmaild");
    wait_for("cmaild follows", || suite.ask("cmaild.sock", HEALTH));
    let database =
        |daemon: &str| rusqlite::Connection::open(suite.path(&format!("state/{daemon}/{daemon}.db"))).expect("opens");
    let followed = || database("cmaild").query_row("SELECT seq FROM cursor", [], |row| row.get::<_, i64>(0)).ok();
    wait_for("cmaild has the state", followed);
    // It was told, and is not told again.
    let ledger = suite.ask("cmaild.sock", r#"{"query":"ledger"}"#).expect("a ledger");
    assert_eq!(ledger, json!([]));
    let told = database("cmaild").query_row("SELECT open, step FROM told", [], |row| Ok((row.get(0)?, row.get(1)?)));
    assert_eq!(told.expect("kept"), (1, 0));
    let version = |daemon: &str, what: &str| -> i64 {
        let version = "SELECT version FROM schema WHERE what = ?1";
        database(daemon).query_row(version, [what], |row| row.get(0)).expect("a version")
    };
    assert_eq!((version("cprocessd", "journal"), version("cmaild", "notifier")), (2, 5));
}
