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
use outcome::Story;
use serde::de::DeserializeOwned;
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
    let tried = (!wanted.rules.is_empty()).then(|| wanted.rules.len());
    let told = replay.finish(reader.path(), tried);
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

    fn finish(self, file: &std::path::Path, tried: Option<usize>) -> outcome::Told {
        let rules = self.engine.alarm_list();
        self.story.end(file, self.began, self.at, &rules, tried.is_some())
    }
}
