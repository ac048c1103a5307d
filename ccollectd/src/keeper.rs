//! Knows the state of every check of this host, and what of it is news.
//!
//! A repeated state may be lost on its way, as the next one says the same; a change must not be, or a short outage would
//! leave no trace. So the keeper remembers what each check was, and tells changes from repetitions: the one goes through
//! the journal together with the row that remembers it across a restart, the other is only published.
//!
//! Plugins of the old kind say a state once, when it changes. The keeper goes on saying it for them. Where a plugin
//! promises with `ttl_ms` to be heard of, the keeper says that it was not: that is no judgement, only what it observed.
//!
//! It reads no clock and touches no socket or disk: it is told the time and what happened, and answers with what should
//! be done.

use crate::sources::plugins::{Report, Said};
use common::address::{CheckAddress, HostName, Name, Pattern, Unit};
use common::message::{Alive, Check, FeedSnapshotHost, LogEvent, Sample};
use common::time::{UnixMillis, for_people};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A plugin's state is repeated this often, or as often as its `ttl_ms`, if that is less.
const REPEAT_EVERY: Duration = Duration::from_secs(10);
/// But never more often than this, however short the `ttl_ms`.
const REPEAT_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// Ticks further apart than this were a pause of ours (a slow disk, a suspended machine), in which nobody could be heard.
const OWN_PAUSE: Duration = Duration::from_secs(2);
/// A plugin's unit that is overdue to be forgotten when we start has this long to be heard of.
const FORGET_GRACE: Duration = Duration::from_mins(10);
/// The time a plugin was last heard is saved this often at most, where `forget_after` needs it.
const SAVE_HEARD_EVERY: Duration = Duration::from_mins(1);

/// Both clocks: dates are taken from the wall clock, absence is measured by the other one, which does not jump.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// For absence.
    pub(crate) monotonic: Instant,
    /// For dates.
    pub(crate) wall: UnixMillis,
}

impl Now {
    /// This moment.
    pub(crate) fn read() -> Self {
        Self { monotonic: Instant::now(), wall: UnixMillis::now() }
    }
}

/// One look at a configured check.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Observed {
    /// `port` or `process`.
    pub(crate) service: Name,
    /// The configured name.
    pub(crate) unit: Unit,
    /// When it was seen.
    pub(crate) time: UnixMillis,
    /// The next look is due this much later.
    pub(crate) interval: Duration,
    /// What was seen.
    pub(crate) up: bool,
    /// Attempts that failed before this outcome.
    pub(crate) retries: u32,
    /// What was seen, for people.
    pub(crate) text: String,
}

/// Everything that can happen to the keeper.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A source of ours looked at a configured check.
    Observed(Observed),
    /// A local program said something.
    Reported(Report),
    /// These are the configured checks from now on.
    Configured(Vec<CheckAddress>),
    /// A person wants these addresses gone until they are seen again.
    Forget(Pattern),
    /// Time has passed. Comes several times a second, after all input that was waiting.
    Tick,
}

/// Everything the keeper can want done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// Publish these numbers.
    Number(Box<Sample>),
    /// Publish this state, which is no news.
    Repeated(Box<Check>),
    /// Journal this state, which is news, and save the row with it.
    Changed(Box<Check>, Box<Row>),
    /// Journal this event.
    Happened(Box<LogEvent>),
    /// Journal what is watched from now on, and save its hash with it.
    Watched(Alive),
    /// Save this row, although there is no news.
    Saved(Box<Row>),
    /// Remove the row of this check.
    Dropped(CheckAddress),
    /// Count a report that was refused, by the reason's name in the counters.
    Refused(&'static str),
}

impl Output {
    /// The check that it drops, if it does.
    pub(crate) fn dropped(&self) -> Option<&CheckAddress> {
        match self {
            Output::Dropped(address) => Some(address),
            Output::Number(_)
            | Output::Repeated(_)
            | Output::Changed(..)
            | Output::Happened(_)
            | Output::Watched(_)
            | Output::Saved(_)
            | Output::Refused(_) => None,
        }
    }
}

/// What is remembered of a check across a restart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// Its service.
    pub(crate) service: Name,
    /// Its unit.
    pub(crate) unit: Unit,
    /// Its state.
    pub(crate) up: bool,
    /// Since when.
    pub(crate) changed: UnixMillis,
    /// When it was last observed, as of saving.
    pub(crate) time: UnixMillis,
    /// What was seen.
    pub(crate) text: String,
    /// How often it is published.
    pub(crate) interval: Duration,
    /// What a plugin said, if it is a plugin's.
    pub(crate) plugin: Option<PluginRow>,
}

/// What is remembered of a plugin's check beside its state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PluginRow {
    /// The last state the plugin itself reported, if it ever did.
    pub(crate) reported: Option<bool>,
    /// How long it may be silent.
    pub(crate) ttl: Option<Duration>,
    /// When it was last heard, by our clock, as of saving.
    pub(crate) heard: UnixMillis,
}

/// How plugins are kept.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// A unit without a report for this long is forgotten; never, if absent.
    pub(crate) forget_after: Option<Duration>,
    /// At most this many units of plugins. What is new beyond it is refused, so that what is known stays known.
    pub(crate) max_units: usize,
}

/// The state of every check of this host.
#[derive(Debug)]
pub(crate) struct Keeper {
    host: HostName,
    limits: Limits,
    /// At most the configured checks and `max_units`.
    checks: BTreeMap<CheckAddress, Kept>,
    plugin_units: usize,
    configured: BTreeSet<CheckAddress>,
    inventory: String,
    /// The inventory that was journaled last.
    journaled_inventory: Option<String>,
    last_tick: Instant,
}

#[derive(Debug)]
struct Kept {
    up: bool,
    changed: UnixMillis,
    time: UnixMillis,
    text: String,
    interval: Duration,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Configured,
    Plugin(Plugin),
}

#[derive(Debug)]
struct Plugin {
    reported: Option<bool>,
    ttl: Option<Duration>,
    /// When it was last heard; after a restart, the restart, so that a full `ttl` is granted.
    heard: Instant,
    heard_wall: UnixMillis,
    /// `heard_wall` as of the last saving.
    saved_heard: UnixMillis,
    /// How long it had been silent before the restart.
    silent_before: Duration,
    /// The silence has been said.
    overdue: bool,
    repeat_at: Instant,
}

impl Keeper {
    /// Goes on from the saved rows: what has not changed meanwhile is no change.
    ///
    /// The first repetitions of plugins' states are spread over their interval, so that they never come all at once.
    pub(crate) fn restore(
        now: Now,
        host: HostName,
        limits: Limits,
        rows: Vec<Row>,
        journaled_inventory: Option<String>,
    ) -> Self {
        let plugin_units = rows.iter().filter(|row| row.plugin.is_some()).count();
        let mut nth: u32 = 0;
        let share = u32::try_from(plugin_units.max(1)).unwrap_or(u32::MAX);
        let checks = rows.into_iter().map(|row| {
            let address = CheckAddress { host: host.clone(), service: row.service, unit: row.unit };
            let source = match row.plugin {
                None => Source::Configured,
                Some(plugin) => {
                    nth = nth.saturating_add(1);
                    Source::Plugin(Plugin {
                        reported: plugin.reported,
                        ttl: plugin.ttl,
                        heard: now.monotonic,
                        heard_wall: plugin.heard,
                        saved_heard: plugin.heard,
                        silent_before: now.wall.since(plugin.heard),
                        overdue: false,
                        repeat_at: now.monotonic + row.interval * nth / share,
                    })
                }
            };
            let Row { up, changed, time, text, interval, .. } = row;
            (address, Kept { up, changed, time, text, interval, source })
        });
        Self {
            checks: checks.collect(),
            host,
            limits,
            plugin_units,
            configured: BTreeSet::new(),
            inventory: String::new(),
            journaled_inventory,
            last_tick: now.monotonic,
        }
    }

    /// Replaces the limits. Units beyond a lower `max_units` stay until they are forgotten.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes note of `input` and says what should be done about it, in this order.
    pub(crate) fn apply(&mut self, now: Now, input: Input) -> Vec<Output> {
        match input {
            Input::Observed(observed) => self.observed(observed).into_iter().collect(),
            Input::Reported(report) => self.reported(now, report),
            Input::Configured(addresses) => self.configured(now, addresses),
            Input::Forget(pattern) => self.drop_where(|address, _| pattern.matches_check(address)),
            Input::Tick => self.tick(now),
        }
    }

    /// What is said each second.
    pub(crate) fn alive(&self, now: Now) -> Alive {
        Alive {
            host: self.host.clone(),
            time: now.wall,
            via: Vec::new(),
            inventory: self.inventory.clone(),
            addresses: None,
            goodbye: false,
            epoch: None,
            seq: None,
            origin: None,
        }
    }

    /// Every check as it is now.
    pub(crate) fn checks(&self) -> impl Iterator<Item = Check> {
        self.checks.iter().map(|(address, kept)| kept.message(address, 0))
    }

    /// This host as a snapshot shows it.
    pub(crate) fn snapshot_host(&self) -> FeedSnapshotHost {
        FeedSnapshotHost {
            host: self.host.clone(),
            via: Vec::new(),
            inventory: self.configured.iter().cloned().collect(),
            hash: self.inventory.clone(),
        }
    }

    fn observed(&mut self, observed: Observed) -> Option<Output> {
        let Observed { service, unit, time, interval, up, retries, text } = observed;
        let address = CheckAddress { host: self.host.clone(), service, unit };
        // A probe that was under way when the configuration changed ends here.
        if !self.configured.contains(&address) {
            return None;
        }
        let before = self.checks.get(&address);
        let changed = before.filter(|before| before.up == up).map_or(time, |before| before.changed);
        let is_news = before.is_none_or(|before| before.up != up) || (up && retries > 0);
        let kept = Kept { up, changed, time, text, interval, source: Source::Configured };
        let output = kept.output(&address, retries, is_news);
        self.checks.insert(address, kept);
        Some(output)
    }

    fn reported(&mut self, now: Now, report: Report) -> Vec<Output> {
        let Report { service, unit, time, ttl, said } = report;
        let address = CheckAddress { host: self.host.clone(), service, unit };
        let mut outputs = Vec::new();

        let (statement, text) = match said {
            Said::Value { resource, values } => {
                // A ttl may come without any number that is one; then there is only the check.
                if !values.0.is_empty() {
                    outputs.push(Output::Number(Box::new(Sample {
                        host: self.host.clone(),
                        from: self.host.clone(),
                        service: address.service.clone(),
                        time,
                        interval_ms: ttl.map_or(0, millis),
                        resource,
                        unit: address.unit.clone(),
                        values,
                        backfill: false,
                    })));
                }
                (Statement::Sign, String::new())
            }
            Said::Event { severity, text, data } => {
                outputs.push(Output::Happened(Box::new(LogEvent {
                    host: self.host.clone(),
                    from: self.host.clone(),
                    service: address.service.clone(),
                    unit: address.unit.clone(),
                    time,
                    severity,
                    text,
                    data,
                    epoch: None,
                    seq: None,
                    origin: None,
                })));
                (Statement::Sign, String::new())
            }
            Said::Up { text } => (Statement::Up, text),
            Said::Down { text } => (Statement::Down, text),
            Said::Blip { text } => (Statement::Blip, text),
        };

        if self.checks.contains_key(&address) {
            outputs.extend(self.heard_of_known(now, &address, time, ttl, statement, text));
        } else if ttl.is_some() || statement != Statement::Sign {
            outputs.push(self.heard_of_new(now, address, time, ttl, statement, text));
        }
        outputs
    }

    fn heard_of_new(
        &mut self,
        now: Now,
        address: CheckAddress,
        time: UnixMillis,
        ttl: Option<Duration>,
        statement: Statement,
        text: String,
    ) -> Output {
        if self.plugin_units >= self.limits.max_units {
            return Output::Refused("too_many_units");
        }
        let interval = repeat_interval(ttl);
        let reported = statement.state(None);
        let plugin = Plugin {
            reported,
            ttl,
            heard: now.monotonic,
            heard_wall: now.wall,
            saved_heard: now.wall,
            silent_before: Duration::ZERO,
            overdue: false,
            repeat_at: now.monotonic + interval,
        };
        let up = reported.unwrap_or(true);
        let kept = Kept { up, changed: time, time, text, interval, source: Source::Plugin(plugin) };
        let output = kept.output(&address, statement.retries(), true);
        self.checks.insert(address, kept);
        self.plugin_units += 1;
        output
    }

    fn heard_of_known(
        &mut self,
        now: Now,
        address: &CheckAddress,
        time: UnixMillis,
        ttl: Option<Duration>,
        statement: Statement,
        text: String,
    ) -> Vec<Output> {
        // The services of our own checks are closed to plugins, so what is known is a plugin's.
        let Some(kept) = self.checks.get_mut(address) else { return Vec::new() };
        let Source::Plugin(plugin) = &mut kept.source else { return Vec::new() };
        let was_overdue = std::mem::take(&mut plugin.overdue);
        let new_ttl = ttl.is_some() && ttl != plugin.ttl;
        plugin.heard = now.monotonic;
        plugin.heard_wall = now.wall;
        plugin.silent_before = Duration::ZERO;
        plugin.ttl = ttl.or(plugin.ttl);
        let reported = statement.state(plugin.reported);
        // A restart must know these, even where the state is the same.
        let must_save = new_ttl || reported != plugin.reported;
        plugin.reported = reported;
        let up = reported.unwrap_or(true);
        let has_changed = up != kept.up;
        let is_repetition = !has_changed && statement == Statement::Sign;

        kept.interval = repeat_interval(plugin.ttl);
        if !is_repetition {
            plugin.repeat_at = now.monotonic + kept.interval;
        } else if new_ttl {
            plugin.repeat_at = plugin.repeat_at.min(now.monotonic + kept.interval);
        }
        kept.up = up;
        kept.time = time;
        if has_changed {
            kept.changed = time;
        }
        match statement {
            Statement::Up | Statement::Down | Statement::Blip => kept.text = text,
            Statement::Sign if has_changed || was_overdue => "reports again".clone_into(&mut kept.text),
            Statement::Sign => {}
        }
        if has_changed || statement == Statement::Blip {
            return vec![kept.news(address, statement.retries())];
        }
        let mut outputs = Vec::new();
        if must_save {
            outputs.push(kept.saved(address));
        }
        if !is_repetition {
            outputs.push(kept.output(address, 0, false));
        }
        outputs
    }

    fn configured(&mut self, now: Now, addresses: Vec<CheckAddress>) -> Vec<Output> {
        self.configured = addresses.into_iter().collect();
        self.inventory = hash(&self.configured);
        let configured = std::mem::take(&mut self.configured);
        let mut outputs =
            self.drop_where(|address, kept| matches!(kept.source, Source::Configured) && !configured.contains(address));
        self.configured = configured;
        if self.journaled_inventory.as_ref() != Some(&self.inventory) {
            self.journaled_inventory = Some(self.inventory.clone());
            let addresses = Some(self.configured.iter().cloned().collect());
            outputs.push(Output::Watched(Alive { addresses, ..self.alive(now) }));
        }
        outputs
    }

    fn drop_where(&mut self, is_unwanted: impl Fn(&CheckAddress, &Kept) -> bool) -> Vec<Output> {
        let dropped: Vec<_> = self.checks.extract_if(.., |address, kept| is_unwanted(address, kept)).collect();
        self.plugin_units -= dropped.iter().filter(|(_, kept)| matches!(kept.source, Source::Plugin(_))).count();
        dropped.into_iter().map(|(address, _)| Output::Dropped(address)).collect()
    }

    fn tick(&mut self, now: Now) -> Vec<Output> {
        let pause = now.monotonic.saturating_duration_since(self.last_tick);
        self.last_tick = now.monotonic;
        let blind_for = if pause > OWN_PAUSE { pause } else { Duration::ZERO };

        let mut outputs = match self.limits.forget_after {
            None => Vec::new(),
            Some(forget_after) => self.drop_where(|_, kept| kept.is_forgettable(now, forget_after)),
        };
        let saves_heard = self.limits.forget_after.is_some();
        for (address, kept) in &mut self.checks {
            let Source::Plugin(plugin) = &mut kept.source else { continue };
            // What was heard after the pause is not older for it.
            plugin.heard = now.monotonic.min(plugin.heard + blind_for);
            if let Some(ttl) = plugin.ttl
                && !plugin.overdue
                && let Some(over_by) = now.monotonic.checked_duration_since(plugin.heard + ttl)
            {
                plugin.overdue = true;
                kept.text = format!("no report for {}", for_people(ttl));
                let became_overdue = now.wall.minus(over_by);
                if kept.up {
                    (kept.up, kept.changed, kept.time) = (false, became_overdue, became_overdue);
                    plugin.repeat_at = now.monotonic + kept.interval;
                    outputs.push(kept.news(address, 0));
                    continue;
                }
                plugin.repeat_at = now.monotonic;
            }
            if plugin.repeat_at <= now.monotonic {
                plugin.repeat_at = now.monotonic + kept.interval;
                kept.time = now.wall;
                outputs.push(kept.output(address, 0, false));
            }
            if saves_heard && kept.has_been_heard_long_since_saved() {
                outputs.push(kept.saved(address));
            }
        }
        outputs
    }
}

/// What a report says about the state of its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statement {
    Up,
    Down,
    /// Whatever it was before; up, if nothing was.
    Blip,
    /// Only that somebody is there.
    Sign,
}

impl Statement {
    /// What the plugin has reported, given what it had reported before.
    fn state(self, before: Option<bool>) -> Option<bool> {
        match self {
            Statement::Up => Some(true),
            Statement::Down => Some(false),
            Statement::Blip => before.or(Some(true)),
            Statement::Sign => before,
        }
    }

    fn retries(self) -> u32 {
        match self {
            Statement::Blip => 1,
            Statement::Up | Statement::Down | Statement::Sign => 0,
        }
    }
}

impl Kept {
    fn message(&self, address: &CheckAddress, retries: u32) -> Check {
        Check {
            host: address.host.clone(),
            from: address.host.clone(),
            service: address.service.clone(),
            unit: address.unit.clone(),
            time: self.time,
            interval_ms: millis(self.interval),
            up: self.up,
            retries,
            text: self.text.clone(),
            changed: self.changed,
            backfill: false,
            head_seq: None,
            epoch: None,
            seq: None,
            origin: None,
        }
    }

    fn row(&self, address: &CheckAddress) -> Row {
        Row {
            service: address.service.clone(),
            unit: address.unit.clone(),
            up: self.up,
            changed: self.changed,
            time: self.time,
            text: self.text.clone(),
            interval: self.interval,
            plugin: match &self.source {
                Source::Configured => None,
                Source::Plugin(plugin) => {
                    Some(PluginRow { reported: plugin.reported, ttl: plugin.ttl, heard: plugin.heard_wall })
                }
            },
        }
    }

    fn news(&mut self, address: &CheckAddress, retries: u32) -> Output {
        self.note_saved();
        self.output(address, retries, true)
    }

    fn saved(&mut self, address: &CheckAddress) -> Output {
        self.note_saved();
        Output::Saved(Box::new(self.row(address)))
    }

    fn note_saved(&mut self) {
        if let Source::Plugin(plugin) = &mut self.source {
            plugin.saved_heard = plugin.heard_wall;
        }
    }

    fn has_been_heard_long_since_saved(&self) -> bool {
        match &self.source {
            Source::Configured => false,
            Source::Plugin(plugin) => plugin.heard_wall.since(plugin.saved_heard) >= SAVE_HEARD_EVERY,
        }
    }

    fn output(&self, address: &CheckAddress, retries: u32, is_news: bool) -> Output {
        let check = Box::new(self.message(address, retries));
        if is_news { Output::Changed(check, Box::new(self.row(address))) } else { Output::Repeated(check) }
    }

    fn is_forgettable(&self, now: Now, forget_after: Duration) -> bool {
        match &self.source {
            Source::Configured => false,
            Source::Plugin(plugin) => {
                let silent = now.monotonic.saturating_duration_since(plugin.heard);
                silent >= forget_after.min(FORGET_GRACE) && silent + plugin.silent_before >= forget_after
            }
        }
    }
}

/// How often a plugin's state is repeated.
fn repeat_interval(ttl: Option<Duration>) -> Duration {
    ttl.unwrap_or(REPEAT_EVERY).clamp(REPEAT_AT_MOST_EVERY, REPEAT_EVERY)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// 16 hexadecimal digits that differ when the list does, and are the same on every machine and in every version.
fn hash(addresses: &BTreeSet<CheckAddress>) -> String {
    // No address holds a line feed, so the text stands for one list only.
    let text = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, text.as_bytes()).simple().to_string();
    id[..16].to_owned()
}

#[cfg(test)]
mod tests;
