//! A notifier that follows several cprocessds: two that watch the same, of which either may be dead, and a third that watches
//! something else. What is told is counted in the mailbox behind Exim.

use common::time::UnixMillis;
use std::collections::BTreeMap;
use std::fs;
use tests::exim::Exim;
use tests::{Plugin, Suite, wait_for};

const QUIET: &str = "default_rules = false\n";
const NO_MACHINE: &str = "[machine]\nenabled = false\n";

fn now() -> i64 {
    UnixMillis::now().0
}

/// A mailbox, and how often it heard what.
struct Mailbox(Exim);

impl Mailbox {
    fn configuration(&self) -> String {
        format!(
            "[smtp]\nhost = 'localhost'\nport = {}\nca_file = '{}'\nuser = 'mon'\npassword_file = '{}'\ntimeout = '5s'\n\
             [[recipient]]\nname = 'ops'\nto = 'ops@lab.test'\nseverity = 'ERR'\n",
            self.0.port,
            self.0.pki.ca_pem.display(),
            self.0.password_file(Exim::PASSWORD).display()
        )
    }

    /// `testhost!drill:a DOWN`, by the headlines of all mails.
    fn told(&self) -> BTreeMap<String, usize> {
        let mut told = BTreeMap::new();
        let mails = self.0.mails();
        let headlines = mails.iter().flat_map(|mail| mail.body.lines()).filter_map(|line| line.strip_prefix("[ERR] "));
        for headline in headlines.filter(|headline| headline.contains("!drill:")) {
            let words: Vec<_> = headline.split(' ').take(2).collect();
            *told.entry(words.join(" ")).or_default() += 1;
        }
        told
    }

    #[track_caller]
    fn wait_for(&self, what: &str) {
        wait_for(what, || self.told().contains_key(what).then_some(()));
    }
}

#[test]
fn what_two_of_three_say_alike_is_told_once_whoever_dies() {
    let mailbox = Mailbox(Exim::start());
    let mut first = Suite::running(NO_MACHINE, QUIET);
    let mut second = Suite::new("", &format!("{QUIET}feeds = ['{}']\n", first.path("run/feed").display()));
    let mut third = Suite::new("", "");
    third.host = "other".to_owned();
    third.configure("ccollectd", NO_MACHINE);
    third.configure("cprocessd", QUIET);
    third.start("ccollectd");
    for suite in [&mut second, &mut third] {
        suite.start("cprocessd");
        suite.wait_for_host();
    }
    let streams = [&first, &second, &third].map(|suite| format!("'{}'", suite.path("run/stream").display()));
    first.configure("cmaild", &format!("publishers = [{}]\n{}", streams.join(", "), mailbox.configuration()));
    first.start("cmaild");
    wait_for("cmaild answers", || first.ask("cmaild.sock", r#"{"query":"health"}"#));
    let (mut here, mut there) = (Plugin::connect(&first), Plugin::connect(&third));

    here.state("down", "a", now());
    there.state("down", "x", now());
    mailbox.wait_for("testhost!drill:a DOWN");
    mailbox.wait_for("other!drill:x DOWN");
    // One of the two is dead: the other says it.
    first.kill("cprocessd");
    here.state("up", "a", now());
    here.state("down", "b", now());
    mailbox.wait_for("testhost!drill:a UP");
    mailbox.wait_for("testhost!drill:b DOWN");
    // Both are: the third is told as ever, and whoever is back first says what was missed.
    second.kill("cprocessd");
    here.state("down", "c", now());
    there.state("down", "y", now());
    mailbox.wait_for("other!drill:y DOWN");
    first.start("cprocessd");
    mailbox.wait_for("testhost!drill:c DOWN");
    // Nor does it matter when the other one comes back, or that one has lost all that it knew.
    third.kill("cprocessd");
    fs::remove_dir_all(third.path("state/cprocessd")).expect("removed");
    third.start("cprocessd");
    third.wait_for_event("down", "drill:x");
    wait_for("it is compared", || {
        (first.log("cmaild").matches("compared what is open").count() > streams.len()).then_some(())
    });
    there.state("up", "x", now());
    mailbox.wait_for("other!drill:x UP");
    // Nor that the notifier dies.
    first.kill("cmaild");
    second.start("cprocessd");
    second.wait_for_event("down", "drill:c");
    here.state("up", "c", now());
    first.start("cmaild");
    mailbox.wait_for("testhost!drill:c UP");
    there.state("down", "last", now());
    mailbox.wait_for("other!drill:last DOWN");
    wait_for("nothing waits", || (first.counter("cmaild", "outbox.waiting") == 0).then_some(()));
    let told = mailbox.told();
    assert!(told.values().all(|count| *count == 1), "{told:#?}");
    let known = ["testhost!drill:b DOWN", "other!drill:y DOWN"];
    assert!(known.iter().all(|open| !told.contains_key(&open.replace("DOWN", "UP"))), "{told:#?}");
    assert_eq!(told.len(), 9, "{told:#?}");
}
