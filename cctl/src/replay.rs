//! `cctl replay`: a recorded feed through the engine of cprocessd under other rules, so that a rule is tried before it is
//! trusted.
//!
//! It is the engine itself, in virtual time: the recorder's clocks are its clocks, and between two records it is told of
//! every deadline, as a cprocessd that has nothing to do would tell it. Nothing waits, so hours take seconds.

mod outcome;

use crate::args::{Global, Trial};
use crate::failure::{Failure, Outcome, notice};
use crate::out::{Out, put};
use crate::recording::{Broken, Reader, Record, What};
use crate::show::Show;
use crate::text::json_line;
use common::message::{Beat, DecodeError, decode, decode_batch};
use common::time::UnixMillis;
use cprocessd::config::Config;
use cprocessd::engine::rule::Rule;
use cprocessd::engine::settings::Settings;
use cprocessd::engine::{Engine, Input, Now, Output};
use outcome::{Story, Told};
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::Duration;

/// The feed's name in the engine. There is only one.
const FEED: &str = "recording";
/// The recorder writes at least once a second while it listens. In a longer gap it did not, and nobody is to blame for it.
const DEAF: Duration = Duration::from_secs(2);

/// Reads the recording to its end, or as far as it is whole.
pub(crate) fn run(global: &Global, out: Out, wanted: &Trial) -> Result<Outcome, Failure> {
    let settings = settings(wanted)?;
    let mut reader = Reader::open(&wanted.file)?;
    let mut replay = Replay::new(settings, reader.header().began);
    let broken = loop {
        match reader.next() {
            Ok(Some(record)) => replay.take(record),
            Ok(None) => break None,
            Err(broken) => break Some(broken),
        }
    };
    let told = replay.finish(reader.path(), !wanted.rules.is_empty());
    put(&if global.json { json_line(&told.json(broken.as_ref())) } else { told.show(out.ink()) })?;
    match broken {
        None => Ok(Outcome::Fine),
        Some(torn @ Broken::Torn(_)) => {
            notice(&format!("{}: {torn}", wanted.file.display()));
            Ok(Outcome::Fine)
        }
        Some(damaged @ Broken::Damaged { .. }) => Err(Failure::Other(format!("{}: {damaged}", wanted.file.display()))),
    }
}

/// Those of the file, or the shipped ones; with rules on the command line these alone.
fn settings(wanted: &Trial) -> Result<Settings, Failure> {
    let config = match &wanted.config {
        Some(path) => Config::load(path),
        None => Config::shipped(),
    };
    let settings = config.map_err(|error| Failure::Config(error.to_string()))?.settings;
    if wanted.rules.is_empty() {
        return Ok(settings);
    }
    let named = |(n, rule): (usize, &Rule)| Rule { name: format!("rule {}", n + 1), ..rule.clone() };
    Ok(Settings { rules: wanted.rules.iter().enumerate().map(named).collect(), ..settings })
}

/// The engine, and what it has said so far.
struct Replay {
    engine: Engine,
    began: UnixMillis,
    /// How far the recording was taken.
    at: Duration,
    story: Story,
}

impl Replay {
    fn new(settings: Settings, began: UnixMillis) -> Self {
        let engine = Engine::new(settings, &[FEED.to_owned()], Vec::new());
        Self { engine, began, at: Duration::ZERO, story: Story::default() }
    }

    fn take(&mut self, record: Record) {
        let at = Duration::from_millis(record.at_ms).max(self.at);
        self.pass_until(at);
        if record.what != What::Tick {
            self.story.count_message();
        }
        if let Err(error) = self.input(record)
            && self.story.count_undecodable()
        {
            notice(&format!("a message is not understood: {error}; more of this is only counted"));
        }
    }

    /// Everything that is due until then. A gap in which the recorder was deaf passes at once, as the engine's own pause.
    fn pass_until(&mut self, at: Duration) {
        if at.saturating_sub(self.at) <= DEAF {
            loop {
                let due = self.engine.next_deadline().max(self.at);
                if due >= at {
                    break;
                }
                // A deadline that has passed is due now; a millisecond later, or it would be due for ever.
                self.at = due + Duration::from_millis(1);
                self.apply(Input::Idle);
            }
        }
        self.at = self.at.max(at);
    }

    fn apply(&mut self, input: Input) {
        let wall = UnixMillis(self.began.0.saturating_add(i64::try_from(self.at.as_millis()).unwrap_or(i64::MAX)));
        for output in self.engine.apply(Now { monotonic: self.at, wall }, input) {
            if let Output::Event(draft) = output {
                self.story.take(draft);
            }
        }
    }

    /// As cprocessd takes what its feed delivers.
    fn input(&mut self, record: Record) -> Result<(), DecodeError> {
        let feed = || FEED.to_owned();
        let payload = record.payload.0;
        match record.what {
            What::Tick | What::Other => {}
            What::Snapshot => self.apply(Input::Snapshot { feed: feed(), snapshot: decode(&payload)? }),
            What::Beat => self.apply(Input::Beat { feed: feed(), beat: decode::<Beat>(&payload)? }),
            What::Entry => {
                self.apply(Input::Entry { feed: feed() });
                self.message(&record.topic, &payload)?;
            }
            What::Live => self.message(&record.topic, &payload)?,
        }
        Ok(())
    }

    fn message(&mut self, topic: &str, payload: &[u8]) -> Result<(), DecodeError> {
        match topic.split('.').next().unwrap_or_default() {
            "value" => self.each(payload, Input::Sample),
            "check" => self.each(payload, Input::Check),
            "event" => self.each(payload, Input::Log),
            "alive" => self.each(payload, |alive| Input::Alive { feed: FEED.to_owned(), alive }),
            // A topic of a newer ccollectd.
            _ => Ok(()),
        }
    }

    fn each<T: DeserializeOwned>(&mut self, payload: &[u8], input: impl Fn(T) -> Input) -> Result<(), DecodeError> {
        for message in decode_batch(payload)? {
            self.apply(input(message));
        }
        Ok(())
    }

    /// What it came to; with `only_rules` only what the rules would have raised.
    fn finish(self, file: &Path, only_rules: bool) -> Told {
        let rules = self.engine.alarm_list();
        self.story.end(file, self.began, self.at, &rules, only_rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Payload, Writer};
    use crate::text::Ink;
    use common::message::{Alive, Epoch, FeedSnapshot, FeedSnapshotHost, Sample, Values, encode};
    use std::path::PathBuf;

    const BEGAN: UnixMillis = UnixMillis(1_795_236_306_000);

    /// A recording of web1's feed, second by second.
    struct Tape {
        file: Writer,
        at_ms: u64,
        path: PathBuf,
    }

    impl Tape {
        fn new(dir: &Path) -> Self {
            let path = dir.join("tape");
            let mut tape = Self { file: Writer::create(&path, "feed", BEGAN).expect("a file"), at_ms: 0, path };
            let host = FeedSnapshotHost { host: host(), via: vec![], inventory: vec![], hash: "h".into() };
            let snapshot = FeedSnapshot { epoch: epoch(), seq: 0, hosts: vec![host], checks: vec![] };
            tape.put(What::Snapshot, "", encode(&snapshot));
            tape
        }

        fn put(&mut self, what: What, topic: &str, payload: Vec<u8>) {
            let record = Record { at_ms: self.at_ms, what, topic: topic.to_owned(), payload: Payload(payload) };
            self.file.write(&record).expect("written");
        }

        fn time(&self) -> UnixMillis {
            UnixMillis(BEGAN.0 + i64::try_from(self.at_ms).expect("small"))
        }

        /// The host lives, and its queue is this long.
        fn seconds(&mut self, n: u64, length: f64) {
            for _ in 0..n {
                self.at_ms += 1000;
                let time = self.time();
                let beat = Beat { time, epoch: epoch(), head_seq: 0, host: Some(host()), nth: None };
                let alive = Alive {
                    host: host(),
                    time,
                    via: vec![],
                    inventory: "h".into(),
                    addresses: None,
                    goodbye: false,
                    epoch: None,
                    seq: None,
                    origin: None,
                };
                let sample = Sample {
                    host: host(),
                    from: host(),
                    service: "mail".parse().expect("a name"),
                    time,
                    interval_ms: 1000,
                    resource: "queue".parse().expect("a name"),
                    unit: "out".parse().expect("a unit"),
                    values: Values(vec![("length".parse().expect("a name"), length)]),
                    backfill: false,
                };
                self.put(What::Beat, "beat.", encode(&beat));
                self.put(What::Live, "alive.web1!", encode(&alive));
                self.put(What::Live, "value.web1!", encode(&sample));
            }
        }

        /// Nothing comes.
        fn silence(&mut self, n: u64) {
            for _ in 0..n {
                self.at_ms += 1000;
                self.put(What::Tick, "", Vec::new());
            }
        }

        /// The recorder itself stands still.
        fn deaf(&mut self, secs: u64) {
            self.at_ms += secs * 1000;
        }

        /// What these rules come to, as a person sees it, without the first line.
        fn replay(&mut self, rules: &[&str]) -> String {
            self.file.sync().expect("on the disk");
            let rules: Vec<Rule> = rules.iter().map(|rule| Rule::parse("", rule).expect("a rule")).collect();
            let only_rules = !rules.is_empty();
            let trial = Trial { file: self.path.clone(), config: None, rules };
            let mut replay = Replay::new(settings(&trial).expect("settings"), BEGAN);
            let mut reader = Reader::open(&self.path).expect("a recording");
            while let Some(record) = reader.next().expect("whole") {
                replay.take(record);
            }
            let text = replay.finish(&self.path, only_rules).show(Ink { colour: false, now: BEGAN });
            text.split_once("\n\n").map(|(_, rest)| rest.to_owned()).expect("a head")
        }
    }

    fn host() -> common::address::HostName {
        "web1".parse().expect("a host")
    }

    fn epoch() -> Epoch {
        Epoch::try_from("e1".to_owned()).expect("an epoch")
    }

    #[test]
    fn a_rule_is_tried_and_says_when_and_for_how_long_it_would_have_spoken() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut tape = Tape::new(dir.path());
        tape.seconds(100, 3.0);
        tape.seconds(400, 7.0);
        tape.seconds(100, 3.0);
        tape.seconds(3600, 4.0);
        tape.seconds(10, 9.0);
        let since = UnixMillis(BEGAN.0 + 101_000).local();
        let last = UnixMillis(BEGAN.0 + 4_201_000).local();
        assert_eq!(
            tape.replay(&[
                "*!mail.queue:*.length > 5 for 5m WARN",
                "*!mail.queue:*.length > 8 ERR",
                "*!x.y:z.a > 1 ERR"
            ]),
            format!(
                "SINCE                RAISED       FOR         SEVERITY  ADDRESS                     RULE    TEXT\n\
                 {since}  after 5m 0s  6m 40s      WARN      web1!mail.queue:out.length  rule 1  7 > 5\n\
                 {last}  at once      still open  ERR       web1!mail.queue:out.length  rule 2  9 > 8\n\
                 \n\
                 by rule:\n\
                 RULE    LOOKS AT  RAISED  STILL OPEN  IN ALL  LONGEST  AS WRITTEN\n\
                 rule 1         1       1              6m 40s   6m 40s  *!mail.queue:*.length > 5 for 5m WARN\n\
                 rule 2         1       1           1    9.0s     9.0s  *!mail.queue:*.length > 8 ERR\n\
                 rule 3   nothing       0                               *!x.y:z.a > 1 ERR\n"
            )
        );
    }

    #[test]
    fn a_silent_feed_is_an_outage_and_a_deaf_recorder_is_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut tape = Tape::new(dir.path());
        tape.seconds(30, 1.0);
        tape.deaf(3600);
        tape.seconds(30, 1.0);
        let text = tape.replay(&[]);
        assert!(text.starts_with("nothing would have been raised\n"), "{text}");
        tape.silence(60);
        tape.seconds(30, 1.0);
        let text = tape.replay(&[]);
        assert!(text.contains("CRIT      web1!alive:") && text.lines().count() > 3, "{text}");
    }

    #[test]
    fn what_is_no_message_is_left_out() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut tape = Tape::new(dir.path());
        tape.put(What::Live, "value.web1!", vec![0xc1]);
        tape.put(What::Other, "", vec![0xc1]);
        tape.put(What::Live, "new.web1!", vec![0xc1]);
        tape.seconds(5, 9.0);
        let text = tape.replay(&["*!mail.queue:*.length > 8 ERR"]);
        assert!(text.contains("9 > 8"), "{text}");
    }
}
