//! What happens in a history: who takes part, and the steps, each after a while. A plan follows from its seed alone, and can
//! be cut short step by step, since no step needs another one.

use super::rng::Rng;
use super::wish::{Limits, Wish, begins};
use common::time::for_people;
use std::fmt;
use std::time::Duration;

/// The hosts there can be: `web1` and `db1` have a feed each, `web2` is behind `web1`.
pub const HOSTS: [&str; 3] = ["web1", "web2", "db1"];
/// Which feed, by the place of its host in [`HOSTS`].
pub const FEED_HOSTS: [usize; 2] = [0, 2];
/// The checks of each host, with the interval in milliseconds, and whether they are configured or a plugin's.
pub const THINGS: [(&str, u64, bool); 5] = [
    ("port:www", 2000, true),
    ("port:flaky", 3000, true),
    ("process:cron (nightly)", 10_000, true),
    ("app:worker", 10_000, false),
    ("backup:nightly", 10_000, false),
];
/// The numbers of each host, with a value that is fine, one between limit and clear, and one beyond the limit.
pub const NUMBERS: [(&str, [f64; 3]); 2] =
    [("machine.disk:/.used_percentage", [50.0, 85.0, 95.0]), ("app.queue:out.length", [5.0, 50.0, 150.0])];
/// The recipients: everything that is at least WARN; only CRIT, by another lane; everything of the hosts `web*`.
pub const RECIPIENTS: [&str; 3] = ["ops", "boss", "web"];
/// What orders are about.
pub const PATTERNS: [&str; 5] = ["*", "web1", "*!port", "*!machine", "*!alive"];
/// Their lanes.
pub const LANES: [&str; 2] = ["mail", "sms"];

/// How the work is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judging {
    /// One cprocessd has all feeds.
    One,
    /// Two have all feeds.
    Redundant,
    /// Each has a feed of its own.
    Sharded,
}

/// What does not change during a history.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
pub struct Setup {
    /// The seed of what happens to messages on their way.
    pub seed: u64,
    /// Who judges.
    pub judging: Judging,
    /// How many of [`FEED_HOSTS`] there are.
    pub feeds: usize,
    /// Whether `web2` is there.
    pub relayed: bool,
    /// A journal keeps at most so many entries.
    pub retention: usize,
    /// The medium's failures are given up after this long.
    pub give_up_after: Duration,
    /// A second engine gets all input of the first with another date, to compare what they say.
    pub twins: bool,
    /// What all clocks show at the beginning, in milliseconds after [`ORIGIN`](super::world::ORIGIN).
    pub begins: i64,
    /// What the recipients wish at the beginning.
    pub wishes: [Wish; RECIPIENTS.len()],
    /// How fast they are told.
    pub limits: Limits,
    /// What is maintained: one of [`PATTERNS`], from so many minutes after the beginning on, for so many.
    pub window: Option<(usize, u64, u64)>,
    /// What lasts is said again after seconds instead of minutes.
    pub hasty: bool,
    /// The ledger is compared with all that was heard.
    pub audited: bool,
}

/// Where a daemon dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// At once.
    Now,
    /// When it is about to commit: it has applied input, and loses that.
    BeforeCommit,
    /// When it has committed, and not published or sent anything of it.
    AfterCommit,
    /// A notifier only: when the medium has accepted a message, and that is not on record.
    AfterSending,
}

/// What happens to messages on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// So many of a hundred are lost.
    pub lost: u64,
    /// And delivered twice.
    pub doubled: u64,
    /// Each is delayed by up to so many milliseconds.
    pub delay_ms: u64,
    /// What is not journaled may overtake.
    pub reorders: bool,
}

/// What a medium does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediumDoes {
    /// Takes it.
    Accepts,
    /// Cannot be reached.
    Away,
    /// Takes it, but its answer is lost.
    Mute,
    /// Does not take it, and its answer is lost all the same.
    Deaf,
    /// Refuses it for good.
    Refuses,
    /// Takes it, if it has one story only.
    Small,
}

/// Something that happens. Hosts, things, numbers, daemons and recipients by their places in the lists above.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the words of each are below")]
pub enum Step {
    Wait,
    Goes {
        host: usize,
        thing: usize,
        up: bool,
    },
    Blips {
        host: usize,
        thing: usize,
    },
    Reports {
        host: usize,
        thing: usize,
        reports: bool,
    },
    Configured {
        host: usize,
        thing: usize,
        configured: bool,
    },
    Value {
        host: usize,
        number: usize,
        zone: usize,
    },
    Happens {
        host: usize,
    },
    HostStops {
        host: usize,
        goodbye: bool,
    },
    HostStarts {
        host: usize,
    },
    HostForgets {
        host: usize,
    },
    HostDisk {
        host: usize,
        works: bool,
    },
    JudgeDies {
        judge: usize,
        how: Death,
    },
    JudgeStarts {
        judge: usize,
    },
    JudgeForgets {
        judge: usize,
    },
    JudgePauses {
        judge: usize,
        secs: u64,
    },
    NotifierDies {
        how: Death,
    },
    NotifierStarts,
    NotifierPauses {
        secs: u64,
    },
    Weather {
        link: usize,
        weather: Weather,
    },
    Medium {
        lane: usize,
        does: MediumDoes,
    },
    HostClock {
        host: usize,
        secs: i64,
    },
    JudgeClock {
        judge: usize,
        secs: i64,
    },
    NotifierClock {
        secs: i64,
    },
    Selects {
        recipient: usize,
        wish: Box<Wish>,
    },
    /// All machines are suspended.
    Sleeps {
        secs: u64,
    },
    Flaps {
        host: usize,
        thing: usize,
        times: u32,
    },
    Silence {
        pattern: usize,
        secs: u64,
    },
    Unsilence {
        last: usize,
    },
    Ack {
        pattern: usize,
        secs: Option<u64>,
    },
    Unack {
        pattern: usize,
    },
    /// Everything comes to rest, and is checked.
    Rest,
}

/// A step and how long after the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Milliseconds.
    pub after: u64,
    /// What happens.
    pub step: Step,
}

/// A history to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who takes part.
    pub setup: Setup,
    /// What happens; everything comes to rest at the end in any case.
    pub steps: Vec<Planned>,
}

impl Plan {
    /// The plan of this seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let judging = rng.pick(&[Judging::One, Judging::Redundant, Judging::Sharded]);
        // Half of the histories are about what each recipient can choose beyond a severity and patterns.
        let choosy = rng.percent(50);
        let begins = if choosy { begins(&mut rng) } else { 0 };
        let wish = |rng: &mut Rng, choice| if choosy { Wish::draw(rng, begins) } else { Wish::plain(choice) };
        let wishes = [wish(&mut rng, 0), wish(&mut rng, 1), wish(&mut rng, 2)];
        let setup = Setup {
            seed,
            judging,
            feeds: if judging == Judging::Sharded || rng.percent(50) { 2 } else { 1 },
            relayed: rng.percent(60),
            retention: rng.pick(&[1_000_000, 1_000_000, 20, 5]),
            give_up_after: Duration::from_secs(rng.pick(&[86_400, 86_400, 120])),
            twins: rng.percent(25),
            begins,
            wishes,
            limits: if choosy { Limits::draw(&mut rng) } else { Limits::default() },
            window: (choosy && rng.percent(20))
                .then(|| (rng.index(PATTERNS.len()), rng.below(5), rng.pick(&[1, 2, 5, 600]))),
            hasty: rng.percent(25),
            audited: rng.percent(20),
        };
        // A history is about few things at a time, or they would never meet.
        let themes: Vec<u64> = (0..=rng.below(4)).map(|_| rng.below(THEMES + u64::from(choosy))).collect();
        let count = 4 + rng.index(24);
        let mut steps: Vec<Planned> = (0..count)
            .map(|_| {
                let after = match rng.below(10) {
                    0..=2 => rng.below(20),
                    3..=5 => rng.below(3000),
                    6..=7 => rng.below(15_000),
                    8 => rng.below(60_000),
                    _ => rng.below(240_000),
                };
                let theme = if rng.percent(45) { 0 } else { themes[rng.index(themes.len())] };
                Planned { after, step: step(&mut rng, &setup, theme, choosy) }
            })
            .collect();
        if rng.percent(40) {
            let at = rng.index(steps.len());
            steps.insert(at, Planned { after: 0, step: Step::Rest });
        }
        Self { setup, steps }
    }
}

const THEMES: u64 = 13;

fn step(rng: &mut Rng, setup: &Setup, theme: u64, choosy: bool) -> Step {
    let hosts: Vec<usize> = (0..HOSTS.len()).filter(|host| setup.has_host(*host)).collect();
    let host = rng.pick(&hosts);
    let thing = rng.index(THINGS.len());
    let judge = rng.index(setup.judges());
    let how = rng.pick(&[Death::Now, Death::BeforeCommit, Death::AfterCommit, Death::AfterSending]);
    let secs = rng.pick(&[3, 12, 40, 600, 3 * 86_400]);
    let jump = rng.pick(&[-3600, -60, -2, 2, 60, 3600, 86_400]);
    match theme {
        1 => match rng.below(3) {
            0 => Step::Value { host, number: rng.index(NUMBERS.len()), zone: rng.index(3) },
            1 => Step::Happens { host },
            _ => Step::Blips { host, thing },
        },
        2 => match rng.below(4) {
            0 => Step::HostStops { host, goodbye: rng.percent(40) },
            1 => Step::HostForgets { host },
            _ => Step::HostStarts { host },
        },
        3 => match rng.below(3) {
            0 => Step::Reports { host, thing, reports: rng.percent(40) },
            1 => Step::Configured { host, thing: rng.index(3), configured: rng.percent(50) },
            _ => Step::HostDisk { host, works: rng.percent(50) },
        },
        4 => match rng.below(5) {
            0 | 1 => Step::JudgeDies { judge, how },
            2 => Step::JudgePauses { judge, secs },
            3 if rng.percent(30) => Step::JudgeForgets { judge },
            _ => Step::JudgeStarts { judge },
        },
        5 => match rng.below(4) {
            0 | 1 => Step::NotifierDies { how },
            2 => Step::NotifierPauses { secs },
            _ => Step::NotifierStarts,
        },
        6 => {
            let weather = Weather {
                lost: rng.pick(&[0, 5, 50, 100]),
                doubled: rng.pick(&[0, 0, 20]),
                delay_ms: rng.pick(&[0, 20, 1500, 8000]),
                reorders: rng.percent(50),
            };
            Step::Weather { link: rng.index(setup.links()), weather }
        }
        7 => {
            use MediumDoes::{Accepts, Away, Deaf, Mute, Refuses, Small};
            Step::Medium {
                lane: rng.index(LANES.len()),
                does: rng.pick(&[Accepts, Accepts, Away, Deaf, Mute, Refuses, Small]),
            }
        }
        8 => match rng.below(3) {
            0 => Step::HostClock { host, secs: jump },
            1 => Step::JudgeClock { judge, secs: jump },
            _ => Step::NotifierClock { secs: jump },
        },
        10 => Step::Flaps { host, thing: rng.index(4), times: 2 + u32::try_from(rng.below(8)).unwrap_or(0) },
        11 => {
            let (pattern, secs) = (rng.index(PATTERNS.len()), rng.pick(&[2, 15, 60, 300, 4000]));
            match rng.below(5) {
                0 | 1 => Step::Silence { pattern, secs },
                2 => Step::Unsilence { last: rng.index(2) },
                3 => Step::Ack { pattern, secs: rng.percent(50).then_some(secs) },
                _ => Step::Unack { pattern },
            }
        }
        // What happens once is lost for good if it is lost.
        12 => match rng.below(4) {
            0 | 1 => Step::Happens { host },
            2 => Step::JudgeDies { judge, how: rng.pick(&[Death::BeforeCommit, Death::AfterCommit]) },
            _ => Step::JudgeStarts { judge },
        },
        9 => {
            let recipient = rng.index(RECIPIENTS.len());
            let wish = if choosy { Wish::draw(rng, setup.begins) } else { Wish::plain(rng.index(4)) };
            Step::Selects { recipient, wish: Box::new(wish) }
        }
        13 => Step::Sleeps { secs: rng.pick(&[600, 4 * 3600, 9 * 3600, 86_400, 7 * 86_400]) },
        _ => match rng.below(8) {
            0 => Step::Wait,
            1 => Step::Value { host, number: rng.index(NUMBERS.len()), zone: rng.index(3) },
            _ => Step::Goes { host, thing: rng.index(4), up: rng.percent(50) },
        },
    }
}

impl Setup {
    /// How many cprocessds there are.
    pub fn judges(&self) -> usize {
        if self.judging == Judging::One { 1 } else { 2 }
    }

    /// Whether this cprocessd has this feed.
    pub fn follows(&self, judge: usize, feed: usize) -> bool {
        feed < self.feeds && (self.judging != Judging::Sharded || judge == feed)
    }

    /// Whether this host takes part.
    pub fn has_host(&self, host: usize) -> bool {
        match host {
            1 => self.relayed,
            2 => self.feeds > 1,
            _ => true,
        }
    }

    /// The ways of messages: from each feed to each cprocessd, then from each cprocessd to the notifier.
    pub fn links(&self) -> usize {
        self.feeds * self.judges() + self.judges()
    }

    fn link(&self, link: usize) -> String {
        let feeds = self.feeds * self.judges();
        match link.checked_sub(feeds) {
            None => {
                let (feed, judge) = (link / self.judges(), link % self.judges());
                format!("from {} to cprocessd {}", HOSTS[FEED_HOSTS[feed]], letter(judge))
            }
            Some(judge) => format!("from cprocessd {} to the notifier", letter(judge)),
        }
    }

    /// A step in words.
    pub fn words(&self, step: &Step) -> String {
        let check = |host: usize, thing: usize| format!("{}!{}", HOSTS[host], THINGS[thing].0);
        match step {
            Step::Wait => "time passes".to_owned(),
            Step::Goes { host, thing, up } => {
                format!("{} goes {}", check(*host, *thing), if *up { "up" } else { "down" })
            }
            Step::Blips { host, thing } => format!("{} needs a second attempt", check(*host, *thing)),
            Step::Reports { host, thing, reports } => {
                format!(
                    "{} is {}",
                    check(*host, *thing),
                    if *reports { "reported again" } else { "no longer reported" }
                )
            }
            Step::Configured { host, thing, configured } => {
                let words = if *configured { "configured" } else { "no longer configured" };
                format!("{} is {words}", check(*host, *thing))
            }
            Step::Value { host, number, zone } => {
                format!("{}!{} is {} from now on", HOSTS[*host], NUMBERS[*number].0, NUMBERS[*number].1[*zone])
            }
            Step::Happens { host } => format!("{}!app:log says something", HOSTS[*host]),
            Step::HostStops { host, goodbye: true } => {
                format!("ccollectd of {} is asked to stop, and says goodbye", HOSTS[*host])
            }
            Step::HostStops { host, goodbye: false } => format!("ccollectd of {} is killed", HOSTS[*host]),
            Step::HostStarts { host } => format!("ccollectd of {} is started", HOSTS[*host]),
            Step::HostForgets { host } => {
                format!("ccollectd of {} is killed, loses its state and is started", HOSTS[*host])
            }
            Step::HostDisk { host, works } => {
                format!("the disk of ccollectd of {} {}", HOSTS[*host], if *works { "works" } else { "fails" })
            }
            Step::JudgeDies { judge, how } => format!("cprocessd {} is killed {how}", letter(*judge)),
            Step::JudgeStarts { judge } => format!("cprocessd {} is started", letter(*judge)),
            Step::JudgeForgets { judge } => {
                format!("cprocessd {} is killed, loses its state and is started", letter(*judge))
            }
            Step::JudgePauses { judge, secs } => {
                format!("cprocessd {} is suspended for {}", letter(*judge), for_people(Duration::from_secs(*secs)))
            }
            Step::NotifierDies { how } => format!("the notifier is killed {how}"),
            Step::NotifierStarts => "the notifier is started".to_owned(),
            Step::NotifierPauses { secs } => {
                format!("the notifier is suspended for {}", for_people(Duration::from_secs(*secs)))
            }
            Step::Weather { link, weather } => {
                let Weather { lost, doubled, delay_ms, reorders } = weather;
                let order = if *reorders { "states overtake" } else { "in order" };
                let way = self.link(*link);
                format!("messages {way}: {lost}% lost, {doubled}% doubled, up to {delay_ms} ms late, {order}")
            }
            Step::Medium { lane, does } => format!("the medium of {} {does}", LANES[*lane]),
            Step::HostClock { host, secs } => format!("the clock of {} jumps by {secs} s", HOSTS[*host]),
            Step::JudgeClock { judge, secs } => format!("the clock of cprocessd {} jumps by {secs} s", letter(*judge)),
            Step::NotifierClock { secs } => format!("the clock of the notifier jumps by {secs} s"),
            Step::Selects { recipient, wish } => format!("{} now selects {wish}", RECIPIENTS[*recipient]),
            Step::Sleeps { secs } => {
                format!("all machines are suspended for {}", for_people(Duration::from_secs(*secs)))
            }
            Step::Flaps { host, thing, times } => format!("{} changes {times} times", check(*host, *thing)),
            Step::Silence { pattern, secs } => {
                format!("somebody silences {} for {}", PATTERNS[*pattern], for_people(Duration::from_secs(*secs)))
            }
            Step::Unsilence { last: 0 } => "somebody ends the last silence".to_owned(),
            Step::Unsilence { .. } => "somebody ends the silence before the last".to_owned(),
            Step::Ack { pattern, secs: None } => format!("somebody looks after {}", PATTERNS[*pattern]),
            Step::Ack { pattern, secs: Some(secs) } => {
                format!("somebody looks after {} for {}", PATTERNS[*pattern], for_people(Duration::from_secs(*secs)))
            }
            Step::Unack { pattern } => format!("nobody looks after {} any more", PATTERNS[*pattern]),
            Step::Rest => "everything comes to rest".to_owned(),
        }
    }
}

/// What the daemons are called.
pub fn letter(judge: usize) -> char {
    if judge == 0 { 'A' } else { 'B' }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Death::Now => "",
            Death::BeforeCommit => "when it is about to commit",
            Death::AfterCommit => "after the next commit, before publishing or sending",
            Death::AfterSending => "when the medium has accepted a message, before that is on record",
        })
    }
}

impl fmt::Display for MediumDoes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MediumDoes::Accepts => "accepts",
            MediumDoes::Away => "cannot be reached",
            MediumDoes::Mute => "accepts, but its answers are lost",
            MediumDoes::Deaf => "loses messages, and its answers are lost",
            MediumDoes::Refuses => "refuses for good",
            MediumDoes::Small => "takes one story a message",
        })
    }
}

impl Plan {
    /// Whether everybody whom the steps name takes part.
    pub fn fits(&self) -> bool {
        self.steps.iter().all(|planned| match &planned.step {
            Step::JudgeDies { judge, .. }
            | Step::JudgeStarts { judge }
            | Step::JudgeForgets { judge }
            | Step::JudgePauses { judge, .. }
            | Step::JudgeClock { judge, .. } => *judge < self.setup.judges(),
            Step::Weather { link, .. } => *link < self.setup.links(),
            _ => true,
        })
    }
}
