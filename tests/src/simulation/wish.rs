//! What recipients wish: drawn, handed to the frame as its own selection and pace, and stated once more for the oracle, in other
//! words and without the frame's help. The clocks of the zones are a table of the changes of 2027, not the system's database.

use super::rng::Rng;
use super::world::ORIGIN;
use common::address::Pattern;
use common::message::Kind;
use common::notifier::{Cap, Pace, Quiet, Selection, Tier};
use common::severity::Severity;
use common::time::UnixMillis;
use std::fmt;
use std::time::Duration;

const MINUTE_MS: i64 = 60_000;
const DAY_MINUTES: i64 = 1440;

/// A zone: its name, how many minutes it is ahead of UTC from a moment on, in ms since the epoch, the earliest first.
type ZoneTable = (&'static str, [(i64, i64); 3]);

const ZONES: [ZoneTable; 5] = [
    ("UTC", [(0, 0), (0, 0), (0, 0)]),
    ("Asia/Kolkata", [(0, 330), (0, 330), (0, 330)]),
    ("Europe/Berlin", [(0, 60), (1_806_195_600_000, 120), (1_824_944_400_000, 60)]),
    ("America/New_York", [(0, -300), (1_805_007_600_000, -240), (1_825_567_200_000, -300)]),
    // By half an hour.
    ("Australia/Lord_Howe", [(0, 660), (1_806_764_400_000, 630), (1_822_491_000_000, 660)]),
];

/// A stretch of quiet as it is configured. Times in minutes of the day.
#[derive(Clone, Debug, PartialEq)]
pub struct Hours {
    from: i64,
    until: i64,
    /// Monday is 1, Tuesday 2, Wednesday 4; every day if it is 0.
    days: u8,
    zone: usize,
    except: Severity,
}

/// What one recipient wishes to be told, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// Severity and patterns, by [`select`].
    pub choice: usize,
    pub kinds: Vec<Kind>,
    pub reminders: bool,
    pub quiet: Vec<Hours>,
    /// Seconds.
    pub after: Option<u64>,
    pub unless_acked: bool,
}

/// How fast everybody is told; it does not change during a history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Of each recipient: messages, in seconds.
    pub tiers: [Vec<(usize, u64)>; 3],
    /// The second and the third have the same telephone.
    pub one_phone: bool,
    /// What all messages may cost, in seconds.
    pub cap: Option<(u64, u64)>,
}

/// What a message costs at most.
pub const DEAREST: u64 = 3;

/// What the clocks show when a history begins: near a change of some zone's clock, or any day.
pub fn begins(rng: &mut Rng) -> i64 {
    let (_, changes) = ZONES[rng.index(ZONES.len())];
    let (change, _) = changes[rng.index(changes.len())];
    if change == 0 {
        return i64::try_from(rng.below(7 * 86_400_000)).expect("a week");
    }
    // The change comes by itself, or while everybody sleeps.
    let before = rng.below(15 * 60_000) + rng.pick(&[0, 0, 8 * 3_600_000, 86_400_000]);
    change - ORIGIN - i64::try_from(before).expect("a day")
}

impl Hours {
    fn draw(rng: &mut Rng, begins: i64) -> Self {
        let zone = rng.index(ZONES.len());
        let minutes = |rng: &mut Rng, most: u64| i64::try_from(rng.below(most)).expect("few");
        let now = ORIGIN + begins;
        let (_, minute) = local(zone, now);
        let (from, until) = match rng.below(4) {
            // It ends soon, or begins soon, or has nothing to do with now.
            0 | 1 => (minute - 2 - minutes(rng, 600), minute + 1 + minutes(rng, 8)),
            2 => (minute + 1 + minutes(rng, 5), minute + 7 + minutes(rng, 600)),
            _ => (22 * 60, rng.pick(&[7 * 60, 2 * 60 + 30, 22 * 60])),
        };
        let days = if rng.percent(60) { 0 } else { u8::try_from(1 + rng.below(127)).expect("seven bits") };
        let except = rng.pick(&[Severity::Crit, Severity::Crit, Severity::Err, Severity::Warn]);
        Self { from: from.rem_euclid(DAY_MINUTES), until: until.rem_euclid(DAY_MINUTES), days, zone, except }
    }

    /// Whether it is quiet at this moment: the last `from` that the clock on the wall has shown is less far back, on that clock,
    /// than the stretch is long, and was on one of the days.
    fn is_at(&self, now: i64) -> bool {
        let (day, minute) = local(self.zone, now);
        let passed = (minute - self.from).rem_euclid(DAY_MINUTES);
        let lasts = match (self.until - self.from).rem_euclid(DAY_MINUTES) {
            0 => DAY_MINUTES,
            minutes => minutes,
        };
        let began_on = if minute >= self.from { day } else { day - 1 };
        // The epoch was a Thursday.
        let weekday = (began_on + 3).rem_euclid(7);
        passed < lasts && (self.days == 0 || self.days & (1 << weekday) != 0)
    }

    fn configured(&self) -> Quiet {
        let time = |minutes: i64| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let days: Vec<&str> =
            names.into_iter().enumerate().filter(|(i, _)| self.days & (1 << i) != 0).map(|(_, name)| name).collect();
        let (name, _) = ZONES[self.zone];
        let table = serde_json::json!({
            "from": time(self.from), "until": time(self.until), "days": days, "zone": name,
            "except": self.except.as_str(),
        });
        serde_json::from_value(table).expect("quiet hours")
    }
}

/// The day since the epoch and the minute of it that the clocks of a zone show.
fn local(zone: usize, now: i64) -> (i64, i64) {
    let (_, changes) = ZONES[zone];
    let (_, ahead) = changes.into_iter().rev().find(|(from, _)| now >= *from).expect("after the epoch");
    let minutes = now.div_euclid(MINUTE_MS) + ahead;
    (minutes.div_euclid(DAY_MINUTES), minutes.rem_euclid(DAY_MINUTES))
}

impl Wish {
    /// Only a severity and patterns.
    pub fn plain(choice: usize) -> Self {
        Self { choice, kinds: Vec::new(), reminders: true, quiet: Vec::new(), after: None, unless_acked: false }
    }

    /// Everything that can be chosen, each with some chance.
    pub fn draw(rng: &mut Rng, begins: i64) -> Self {
        use Kind::{Absent, Alarm, Down, Log};
        let kinds: [&[Kind]; 5] = [&[Down], &[Alarm], &[Absent], &[Down, Log], &[Alarm, Absent, Kind::Started]];
        let kinds = if rng.percent(25) { rng.pick(&kinds).to_vec() } else { Vec::new() };
        let stretches = if rng.percent(45) { 1 + rng.index(2) } else { 0 };
        let after = rng.percent(35).then(|| rng.pick(&[10, 30, 60, 300]));
        Self {
            choice: rng.index(4),
            kinds,
            reminders: rng.percent(70),
            quiet: (0..stretches).map(|_| Hours::draw(rng, begins)).collect(),
            after,
            unless_acked: after.is_some() && rng.percent(60),
        }
    }

    /// As the frame takes it.
    pub fn selection(&self) -> Selection {
        let pattern = |text: &str| -> Pattern { text.parse().expect("a pattern") };
        let chosen = match self.choice {
            0 => Selection::at_least(Severity::Warn),
            1 => Selection::at_least(Severity::Crit),
            2 => Selection { only: vec![pattern("web*")], ..Selection::at_least(Severity::Info) },
            _ => Selection { except: vec![pattern("*!port:www")], ..Selection::at_least(Severity::Err) },
        };
        Selection {
            kinds: self.kinds.clone(),
            reminders: self.reminders,
            quiet: self.quiet.iter().map(Hours::configured).collect(),
            after: self.after.map(Duration::from_secs),
            unless_acked: self.unless_acked,
            ..chosen
        }
    }

    /// Whether something at this address that has been this bad is of interest, whatever it is.
    pub fn selects_place(&self, worst: Severity, address: &str) -> bool {
        match self.choice {
            0 => worst >= Severity::Warn,
            1 => worst >= Severity::Crit,
            2 => worst >= Severity::Info && address.starts_with("web"),
            _ => worst >= Severity::Err && !address.ends_with("!port:www"),
        }
    }

    /// Whether a kind of event is: of an incident, what it began with. Nobody can choose not to hear of a silent publisher.
    pub fn selects_kind(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind) || kind == Kind::Watchdog
    }

    /// Whether what has been this bad is not to disturb them at this moment.
    pub fn hushes(&self, worst: Severity, now: UnixMillis) -> bool {
        self.quiet.iter().any(|hours| worst < hours.except && hours.is_at(now.0))
    }

    /// The next moment from which on something that is hushed now no longer is; none within nine days.
    pub fn wakes(&self, now: UnixMillis) -> Option<UnixMillis> {
        let next = now.0.div_euclid(MINUTE_MS) + 1;
        let minutes = (next..next + 9 * DAY_MINUTES).map(|minute| minute * MINUTE_MS);
        let quiet = |at: i64| self.quiet.iter().filter(|hours| hours.is_at(at)).map(|hours| hours.except).max();
        let before = quiet(now.0)?;
        minutes.into_iter().find(|at| quiet(*at).is_none_or(|except| except < before)).map(UnixMillis)
    }
}

impl Limits {
    pub fn draw(rng: &mut Rng) -> Self {
        let tiers: [&[(usize, u64)]; 4] = [&[(1, 20)], &[(1, 5), (2, 60)], &[(2, 30), (3, 300)], &[(3, 3600)]];
        let mut draw = || if rng.percent(25) { rng.pick(&tiers).to_vec() } else { Vec::new() };
        let tiers = [draw(), draw(), draw()];
        // Room for a message to everybody, twice, as a configuration must have.
        let cap = rng.percent(15).then(|| (6 * DEAREST + rng.below(20), rng.pick(&[60, 600, 3600])));
        Self { tiers, one_phone: rng.percent(20), cap }
    }

    /// Under which name a recipient is counted.
    pub fn account(&self, recipient: usize) -> usize {
        if self.one_phone { recipient.min(1) } else { recipient }
    }

    pub fn pace(&self, recipient: usize) -> Pace {
        let tiers = self.tiers[self.account(recipient)].iter();
        Pace {
            account: self.account(recipient).to_string(),
            tiers: tiers
                .map(|(messages, secs)| Tier { messages: *messages, window: Duration::from_secs(*secs) })
                .collect(),
            dearest: if self.cap.is_some() { DEAREST } else { 0 },
            ..Pace::default()
        }
    }

    pub fn caps(&self) -> Vec<Cap> {
        self.cap.iter().map(|(cost, secs)| Cap { cost: *cost, window: Duration::from_secs(*secs) }).collect()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (zone, _) = ZONES[self.zone];
        write!(f, "quiet from {:02}:{:02}", self.from / 60, self.from % 60)?;
        write!(f, " until {:02}:{:02} {zone}", self.until / 60, self.until % 60)?;
        if self.days != 0 {
            write!(f, " on days {:07b}", self.days)?;
        }
        write!(f, " but for {}", self.except)
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["all from WARN on", "CRIT", "all of web*", "all from ERR on but port:www"][self.choice])?;
        if !self.kinds.is_empty() {
            let kinds: Vec<String> = self.kinds.iter().map(ToString::to_string).collect();
            write!(f, ", only {}", kinds.join(" and "))?;
        }
        if !self.reminders {
            f.write_str(", no reminders")?;
        }
        self.quiet.iter().try_for_each(|hours| write!(f, ", {hours}"))?;
        if let Some(after) = self.after {
            write!(f, ", after {after} s{}", if self.unless_acked { " unless acked" } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::zone::Zone;

    #[test]
    fn the_zones_are_those_of_the_database() {
        let hour = 3_600_000;
        for (zone, (name, _)) in ZONES.iter().enumerate() {
            let theirs: Zone = name.parse().expect("a zone");
            // From the first history on until the last has ended.
            for half_hours in 0..2 * 24 * 340 {
                let now = ORIGIN + half_hours * hour / 2;
                let shown = theirs.local(UnixMillis(now)).expect("a date");
                let (_, minute) = local(zone, now);
                let theirs = i64::from(shown.hour()) * 60 + i64::from(shown.minute());
                assert_eq!(minute, theirs, "{name} at {now}");
            }
        }
    }
}
