//! What a person may configure, checked once.

use crate::engine::RESERVED;
use crate::engine::dependency::{self, Dependencies, Dependency};
use crate::engine::ladder::{Ladder, Rung};
use crate::engine::rule::{Rule, RuleOrigin};
use crate::engine::settings::{Agree, Class, PartialTuning, Settings, Tuning};
use crate::engine::window::{self, MonthDay, When, Window};
use common::address::{CheckAddress, HostName, Name, Pattern, Unit};
use common::config::{ConfigError, HumanBytes, HumanDuration, check_name, check_range, check_unique};
use common::journal::Retention;
use common::message::Kind;
use common::severity::Severity;
use common::zone::{self, Zone};
use jiff::civil::{DateTime, Time, Weekday};
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The alarms of a fresh install.
const DEFAULT_RULES: &str = include_str!("../../deploy/default-rules.toml");

/// Each is followed, and each follows the others.
const MAX_PEERS: usize = 16;
/// The names of peers begin with this where feeds have theirs, too.
pub const PEER_PREFIX: &str = "peer:";

/// The longest that a step of the ladder may wait.
const YEAR: Duration = Duration::from_hours(365 * 24);

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default = "default_run_dir")]
    run_dir: PathBuf,
    #[serde(default = "default_state_dir")]
    state_dir: PathBuf,
    #[serde(default)]
    host: Option<HostName>,
    #[serde(default)]
    feeds: Option<Vec<PathBuf>>,
    #[serde(default)]
    peers: Vec<PathBuf>,
    #[serde(default = "default_control_group")]
    control_group: String,
    #[serde(default)]
    journal_entries: Option<u64>,
    #[serde(default)]
    journal_age: Option<HumanDuration>,
    #[serde(default)]
    journal_bytes: Option<HumanBytes>,
    #[serde(default = "default_max_addresses")]
    max_addresses_per_host: usize,
    #[serde(default = "yes")]
    default_rules: bool,
    #[serde(default)]
    judging: RawTuning,
    #[serde(default)]
    alarm: Vec<RawAlarm>,
    #[serde(default)]
    setting: Vec<RawSetting>,
    #[serde(default)]
    classify: Vec<RawClass>,
    /// Absent: the usual ladder; empty: none.
    #[serde(default)]
    persistent: Option<Vec<RawRung>>,
    #[serde(default)]
    dependency: Vec<RawDependency>,
    #[serde(default)]
    maintenance: Vec<RawWindow>,
}

fn default_run_dir() -> PathBuf {
    "/run/cairn".into()
}

fn default_state_dir() -> PathBuf {
    "/var/lib/cairn/cprocessd".into()
}

fn default_control_group() -> String {
    "cairn-admin".to_owned()
}

fn default_max_addresses() -> usize {
    20_000
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTuning {
    confirm: Option<u32>,
    host_down_after: Option<HumanDuration>,
    stop_grace: Option<HumanDuration>,
    blip_quiet: Option<HumanDuration>,
    forget_discovered_after: Option<HumanDuration>,
    flap_changes: Option<usize>,
    flap_window: Option<HumanDuration>,
    flap_calm: Option<HumanDuration>,
    agree: Option<Agree>,
    clock_skew: Option<HumanDuration>,
}

/// As [`RawTuning`], for the addresses that match. The keys stand again because a flattened table would lose the line of a
/// mistake.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSetting {
    pattern: Pattern,
    confirm: Option<u32>,
    host_down_after: Option<HumanDuration>,
    stop_grace: Option<HumanDuration>,
    blip_quiet: Option<HumanDuration>,
    forget_discovered_after: Option<HumanDuration>,
    flap_changes: Option<usize>,
    flap_window: Option<HumanDuration>,
    flap_calm: Option<HumanDuration>,
    agree: Option<Agree>,
    clock_skew: Option<HumanDuration>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlarm {
    name: String,
    #[serde(deserialize_with = "rule")]
    rule: Rule,
}

/// Read here and not later, so that a mistake is reported with its line.
fn rule<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Rule, D::Error> {
    let text = String::deserialize(deserializer)?;
    Rule::parse("", &text).map_err(serde::de::Error::custom)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClass {
    pattern: Pattern,
    #[serde(default, deserialize_with = "judged_kind")]
    kind: Option<Kind>,
    severity: Severity,
}

/// A kind whose severity is classified: what people did has none of its own.
fn judged_kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Kind>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match Kind::deserialize(text.as_str().into_deserializer())? {
        Kind::Other => Err(serde::de::Error::custom(format!("no event is of the kind {text:?}"))),
        Kind::Ack | Kind::Silence | Kind::Order => {
            Err(serde::de::Error::custom(format!("events of the kind {text:?} are not classified")))
        }
        kind => Ok(Some(kind)),
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRung {
    after: HumanDuration,
    severity: Option<Severity>,
    repeat: Option<HumanDuration>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDependency {
    pattern: Pattern,
    #[serde(deserialize_with = "targets")]
    on: Vec<CheckAddress>,
}

fn targets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CheckAddress>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| dependency::target(text)).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

/// A maintenance window: `from` and `until`, or one of `weekly` and `monthly` with `at` and `lasting`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWindow {
    name: String,
    pattern: Pattern,
    #[serde(default, deserialize_with = "zone")]
    zone: Option<Zone>,
    #[serde(default, deserialize_with = "from")]
    from: Option<DateTime>,
    #[serde(default, deserialize_with = "until")]
    until: Option<DateTime>,
    #[serde(default, deserialize_with = "weekdays")]
    weekly: Option<Vec<Weekday>>,
    #[serde(default, deserialize_with = "month_day")]
    monthly: Option<MonthDay>,
    #[serde(default, deserialize_with = "at")]
    at: Option<Time>,
    lasting: Option<HumanDuration>,
}

/// Text is read by `read` right here, so that a mistake is reported with its line.
fn read<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, D::Error> {
    read(&String::deserialize(deserializer)?).map(Some).map_err(serde::de::Error::custom)
}

fn zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Zone>, D::Error> {
    read(deserializer, str::parse)
}

fn from<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime>, D::Error> {
    read(deserializer, |text| window::date_time("from", text))
}

fn until<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime>, D::Error> {
    read(deserializer, |text| window::date_time("until", text))
}

fn at<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    read(deserializer, |text| zone::time_of_day("at", text))
}

fn weekdays<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Weekday>>, D::Error> {
    let days = Vec::<String>::deserialize(deserializer)?;
    if days.is_empty() {
        return Err(serde::de::Error::custom("weekly holds no day"));
    }
    days.iter()
        .map(|day| zone::weekday("weekly", day))
        .collect::<Result<_, _>>()
        .map(Some)
        .map_err(serde::de::Error::custom)
}

fn month_day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MonthDay>, D::Error> {
    struct NumberOrText;

    impl serde::de::Visitor<'_> for NumberOrText {
        type Value = MonthDay;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a day of the month, or as \"first sun\"")
        }

        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<MonthDay, E> {
            MonthDay::from_number(number).map_err(E::custom)
        }

        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<MonthDay, E> {
            self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<MonthDay, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_any(NumberOrText).map(Some)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDefaults {
    alarm: Vec<RawAlarm>,
}

/// What holds after loading: rule names are unique and not the engine's own, all bounds are in range.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the sockets.
    pub run_dir: PathBuf,
    /// Folder of the database.
    pub state_dir: PathBuf,
    /// The PUB sockets of the feeds; the question socket of each is beside it, `-query`.
    pub feeds: Vec<PathBuf>,
    /// The streams of the cprocessds whose orders are carried out here, too; the question socket `query` of each is beside it.
    pub peers: Vec<PathBuf>,
    /// The group that may give orders.
    pub control_group: String,
    /// How much the journal keeps. At least 1000 events.
    pub retention: Retention,
    /// All that judging depends on.
    pub settings: Settings,
}

impl Config {
    /// Reads and checks the file and its drop-ins.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        common::config::load_checked(path, |raw| Self::checked(raw, path))
    }

    /// What holds where nobody configured anything, with the rules that are shipped.
    pub fn shipped() -> Result<Self, ConfigError> {
        let path = Path::new("cprocessd.toml");
        Self::checked(common::config::parse(path, "")?, path)
    }

    fn checked(raw: Raw, path: &Path) -> Result<Self, ConfigError> {
        let wrong = |text: String| ConfigError::in_file(path, text);
        let retention = Retention::checked(raw.journal_entries, raw.journal_age, raw.journal_bytes).map_err(wrong)?;
        check_range("journal_entries", retention.entries, 1000..=1_000_000_000).map_err(wrong)?;
        check_range("max_addresses_per_host", raw.max_addresses_per_host, 10..=10_000_000).map_err(wrong)?;
        let mut rules = named(raw.alarm, path)?;
        if raw.default_rules {
            let defaults: RawDefaults = common::config::parse(Path::new("default-rules.toml"), DEFAULT_RULES)?;
            for rule in named(defaults.alarm, path)? {
                if !rules.iter().any(|own| own.name == rule.name) {
                    rules.push(Rule { origin: RuleOrigin::Default, ..rule });
                }
            }
        }
        let tunings = raw.setting.into_iter().map(|s| {
            let tuning = RawTuning {
                confirm: s.confirm,
                host_down_after: s.host_down_after,
                stop_grace: s.stop_grace,
                blip_quiet: s.blip_quiet,
                forget_discovered_after: s.forget_discovered_after,
                flap_changes: s.flap_changes,
                flap_window: s.flap_window,
                flap_calm: s.flap_calm,
                agree: s.agree,
                clock_skew: s.clock_skew,
            };
            partial(tuning).map(|partial| (s.pattern, partial))
        });
        let tunings = tunings.collect::<Result<Vec<_>, String>>().map_err(|text| wrong(format!("setting.{text}")))?;
        let judging = partial(raw.judging).map_err(|text| wrong(format!("judging.{text}")))?;
        let defaults = Tuning::default().with(judging);
        let classes =
            raw.classify.into_iter().map(|c| Class { pattern: c.pattern, kind: c.kind, severity: c.severity });
        let host = common::startup::host_or_system(raw.host).map_err(|error| wrong(error.to_string()))?;
        let feeds = raw.feeds.unwrap_or_else(|| vec![raw.run_dir.join("feed")]);
        check_unique("feeds", feeds.iter().map(|feed| feed.to_str().unwrap_or_default())).map_err(wrong)?;
        check_peers(&raw.peers, &raw.run_dir.join("stream"), &feeds).map_err(wrong)?;
        Ok(Self {
            feeds,
            peers: raw.peers,
            run_dir: raw.run_dir,
            state_dir: raw.state_dir,
            control_group: raw.control_group,
            retention,
            settings: Settings {
                ladder: ladder(raw.persistent).map_err(wrong)?,
                dependencies: dependencies(raw.dependency).map_err(wrong)?,
                windows: windows(raw.maintenance).map_err(wrong)?,
                rules,
                defaults,
                tunings,
                classes: classes.collect(),
                max_addresses_per_host: raw.max_addresses_per_host,
                ..Settings::new(own_address(host))
            },
        })
    }
}

/// Peers are others, each once, and reachable wherever we were started.
fn check_peers(peers: &[PathBuf], own: &Path, feeds: &[PathBuf]) -> Result<(), String> {
    check_range("the number of peers", peers.len(), 0..=MAX_PEERS)?;
    check_unique("peers", peers.iter().map(|peer| peer.to_str().unwrap_or_default()))?;
    if let Some(feed) = feeds.iter().find(|feed| feed.to_string_lossy().starts_with(PEER_PREFIX)) {
        return Err(format!("feeds has {}, which must not begin with {PEER_PREFIX}", feed.display()));
    }
    for peer in peers {
        let mistake = if !peer.is_absolute() {
            "must be the whole path of the stream of another cprocessd"
        } else if peer == own {
            "is our own stream"
        } else if feeds.contains(peer) {
            "is a feed"
        } else {
            continue;
        };
        return Err(format!("peers has {}, which {mistake}", peer.display()));
    }
    Ok(())
}

/// Where events about cprocessd itself are said.
fn own_address(host: HostName) -> CheckAddress {
    let service = Name::try_from("cprocessd").expect("a name");
    CheckAddress { host, service, unit: Unit::default() }
}

fn named(alarms: Vec<RawAlarm>, path: &Path) -> Result<Vec<Rule>, ConfigError> {
    let wrong = |text: String| ConfigError::in_file(path, text);
    let mut rules: Vec<Rule> = Vec::new();
    for RawAlarm { name, rule } in alarms {
        check_name("alarm.name", &name, 100).map_err(wrong)?;
        if RESERVED.contains(&name.as_str()) {
            return Err(wrong(format!("alarm.name is {name:?}, which cprocessd uses itself")));
        }
        rules.push(Rule { name, ..rule });
    }
    check_unique("alarm.name", rules.iter().map(|rule| rule.name.as_str())).map_err(wrong)?;
    Ok(rules)
}

fn ladder(raw: Option<Vec<RawRung>>) -> Result<Ladder, String> {
    let Some(rungs) = raw else { return Ok(Ladder::default()) };
    check_range("persistent", rungs.len(), 0..=20)?;
    for rung in &rungs {
        check_range("persistent.after", rung.after, Duration::from_secs(1).into()..=YEAR.into())?;
        if let Some(repeat) = rung.repeat {
            check_range("persistent.repeat", repeat, Duration::from_mins(1).into()..=YEAR.into())?;
        }
    }
    let rung =
        |raw: RawRung| Rung { after: raw.after.0, severity: raw.severity, repeat: raw.repeat.map(|repeat| repeat.0) };
    Ladder::new(rungs.into_iter().map(rung).collect()).map_err(|text| format!("persistent.{text}"))
}

fn dependencies(raw: Vec<RawDependency>) -> Result<Dependencies, String> {
    check_range("dependency", raw.len(), 0..=1000)?;
    for dependency in &raw {
        check_range("dependency.on", dependency.on.len(), 1..=100)?;
    }
    let list = raw.into_iter().map(|raw| Dependency { pattern: raw.pattern, on: raw.on });
    Dependencies::new(list.collect())
}

fn windows(raw: Vec<RawWindow>) -> Result<Vec<Window>, String> {
    check_range("maintenance", raw.len(), 0..=1000)?;
    for window in &raw {
        check_name("maintenance.name", &window.name, 100)?;
    }
    check_unique("maintenance.name", raw.iter().map(|window| window.name.as_str()))?;
    raw.into_iter().map(window).collect()
}

fn window(raw: RawWindow) -> Result<Window, String> {
    let wrong = |what: &str| format!("maintenance {:?} {what}", raw.name);
    let lasting = raw.lasting.map(|lasting| lasting.0);
    let when = match (raw.from, raw.until, raw.weekly, raw.monthly, raw.at, lasting) {
        (Some(from), Some(until), None, None, None, None) => {
            if until <= from {
                return Err(wrong("ends before it begins"));
            }
            When::Once { from, until }
        }
        (None, None, Some(days), None, Some(at), Some(lasting)) => When::Weekly { days, at, lasting },
        (None, None, None, Some(day), Some(at), Some(lasting)) => When::Monthly { day, at, lasting },
        _ => return Err(wrong("needs from and until, or one of weekly and monthly with at and lasting")),
    };
    if let When::Weekly { lasting, .. } | When::Monthly { lasting, .. } = &when {
        let bounds = Duration::from_mins(1).into()..=window::MAX_LASTING.into();
        check_range("maintenance.lasting", HumanDuration(*lasting), bounds)?;
    }
    let zone = raw.zone.unwrap_or_else(Zone::system);
    Ok(Window { name: raw.name, pattern: raw.pattern, when, zone })
}

fn partial(raw: RawTuning) -> Result<PartialTuning, String> {
    if let Some(confirm) = raw.confirm {
        check_range("confirm", confirm, 1..=1000)?;
    }
    if let Some(after) = raw.host_down_after {
        check_range("host_down_after", after, Duration::from_secs(3).into()..=Duration::from_hours(24).into())?;
    }
    if let Some(changes) = raw.flap_changes {
        check_range("flap_changes", changes, 2..=100)?;
    }
    let minute_to_day = Duration::from_mins(1).into()..=Duration::from_hours(24).into();
    if let Some(window) = raw.flap_window {
        check_range("flap_window", window, minute_to_day.clone())?;
    }
    if let Some(calm) = raw.flap_calm {
        check_range("flap_calm", calm, minute_to_day)?;
    }
    if let Some(skew) = raw.clock_skew {
        check_range("clock_skew", skew, Duration::from_secs(1).into()..=Duration::from_hours(24).into())?;
    }
    Ok(PartialTuning {
        confirm: raw.confirm,
        host_down_after: raw.host_down_after.map(|d| d.0),
        stop_grace: raw.stop_grace.map(|d| d.0),
        blip_quiet: raw.blip_quiet.map(|d| d.0),
        forget_discovered_after: raw.forget_discovered_after.map(|d| d.0),
        flap_changes: raw.flap_changes,
        flap_window: raw.flap_window.map(|d| d.0),
        flap_calm: raw.flap_calm.map(|d| d.0),
        agree: raw.agree,
        clock_skew: raw.clock_skew.map(|d| d.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::address::Address;

    #[track_caller]
    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("cprocessd.toml");
        std::fs::write(&path, text).expect("file");
        Config::load(&path).map_err(|error| error.to_string().replace(&format!("{}", dir.path().display()), "DIR"))
    }

    #[test]
    fn an_empty_file_is_a_working_configuration_with_the_default_rules() {
        let config = load("").expect("loads");
        assert_eq!(config.feeds, [PathBuf::from("/run/cairn/feed")]);
        assert!(config.settings.rules.iter().any(|rule| rule.name == "disk full"));
        assert!(load("default_rules = false").expect("loads").settings.rules.is_empty());
    }

    #[test]
    fn every_default_rule_looks_at_something_that_is_published() {
        let published = [
            "web1!machine.disk:/var.used_percentage",
            "web1!machine.disk:/var.inodes_used_percentage",
            "web1!machine.memory:physical.used_percentage",
            "web1!machine.memory:swap.used_percentage",
            "web1!machine.load_average:.5m_per_core",
            "web1!https.certificate:www (443).days_left",
        ];
        let addresses: Vec<Address> = published.iter().map(|text| text.parse().expect("address")).collect();
        for rule in load("").expect("loads").settings.rules {
            assert!(addresses.iter().any(|address| rule.pattern.matches(address)), "{}", rule.text);
        }
    }

    #[test]
    fn the_example_loads() {
        Config::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/cprocessd.example.toml")))
            .expect("loads");
    }

    #[test]
    fn an_alarm_replaces_the_default_of_its_name() {
        let config =
            load("[[alarm]]\nname = \"disk full\"\nrule = \"*!machine.disk:*.free < 1g CRIT\"").expect("loads");
        let rules: Vec<_> = config.settings.rules.iter().filter(|rule| rule.name == "disk full").collect();
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].severity, Severity::Crit);
    }

    #[test]
    fn windows_dependencies_and_the_ladder_are_read() {
        let config = load(
            r#"
            [[persistent]]
            after = "10m"
            [[persistent]]
            after = "2h"
            severity = "CRIT"
            repeat = "1d"
            [[dependency]]
            pattern = "web*"
            on = ["router1", "db1!port:sql"]
            [[maintenance]]
            name = "nights"
            pattern = "backup*"
            zone = "Europe/Berlin"
            weekly = ["sat", "sun"]
            at = "23:00"
            lasting = "4h"
            [[maintenance]]
            name = "patches"
            pattern = "*"
            monthly = "first sun"
            at = "04:00"
            lasting = "1h"
            [[maintenance]]
            name = "ends"
            pattern = "*"
            monthly = -1
            at = "04:00"
            lasting = "1h"
            [[maintenance]]
            name = "move"
            pattern = "rack4*"
            from = "2026-12-24 22:00"
            until = "2026-12-25T06:00"
            "#,
        );
        let Settings { windows, dependencies, ladder, .. } = config.expect("loads").settings;
        let shown: Vec<_> = windows.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "weekly sat, sun at 23:00 for 4h, Europe/Berlin",
                "monthly on the first sun at 04:00 for 1h",
                "monthly on the last day at 04:00 for 1h",
                "from 2026-12-24 22:00 until 2026-12-25 06:00",
            ]
        );
        assert_ne!(dependencies, Dependencies::default());
        assert_ne!(ladder, Ladder::default());
        assert_eq!(load("persistent = []").expect("loads").settings.ladder, Ladder::new(Vec::new()).expect("none"));
        assert_eq!(load("").expect("loads").settings.ladder, Ladder::default());
    }

    #[test]
    fn mistakes_in_them_are_named() {
        let complaint = |text: &str| load(text).expect_err("a mistake");
        let window = |keys: &str| complaint(&format!("[[maintenance]]\nname = 'w'\npattern = '*'\n{keys}"));
        let zone = window("zone = 'Europe/Atlantis'\nfrom = '2026-01-01 00:00'\nuntil = '2026-01-02 00:00'");
        assert!(
            zone.starts_with("DIR/cprocessd.toml:4: maintenance") && zone.contains("\"Europe/Atlantis\""),
            "{zone}"
        );
        assert!(window("weekly = ['sat']\nat = '23:00'").contains("maintenance \"w\" needs from and until"));
        let both = window("weekly = ['sat']\nmonthly = 1\nat = '23:00'\nlasting = '1h'");
        assert!(both.contains("one of weekly and monthly"), "{both}");
        assert!(window("monthly = 32\nat = '23:00'\nlasting = '1h'").contains("monthly is 32, but must be 1 to 31"));
        assert!(window("weekly = ['Sunday']\nat = '23:00'\nlasting = '1h'").contains("\"Sunday\""));
        assert!(
            window("weekly = ['sat']\nat = '23:00'\nlasting = '40d'").contains("lasting is 40d, but must be 1m to 31d")
        );
        let order = window("from = '2026-01-02 00:00'\nuntil = '2026-01-01 00:00'");
        assert!(order.contains("ends before it begins"), "{order}");

        let circle = complaint("[[dependency]]\npattern='a'\non=['b']\n[[dependency]]\npattern='b'\non=['a']");
        assert!(circle.contains("dependencies make a circle: a!alive: -> b!alive: -> a!alive:"), "{circle}");
        assert!(complaint("[[dependency]]\npattern='a'\non=[]").contains("dependency.on is 0, but must be 1 to 100"));
        assert!(complaint("[[dependency]]\npattern='a'\non=['b*']").contains("DIR/cprocessd.toml:3: dependency"));
        let rungs = complaint("[[persistent]]\nafter='1h'\n[[persistent]]\nafter='5m'");
        assert!(rungs.contains("persistent.after is 5m, but must be more than that of the step before, 1h"), "{rungs}");
        assert!(complaint("[[persistent]]\nafter='1h'\nrepeat='1s'").contains("repeat is 1s, but must be 1m to 365d"));
    }

    #[test]
    fn mistakes_are_named() {
        let complaint = |text: &str| load(text).expect_err("a mistake");
        let bad_rule = complaint("[[alarm]]\nname = \"x\"\nrule = \"a!b.c:d.e > five WARN\"");
        assert!(bad_rule.starts_with("DIR/cprocessd.toml:3: alarm"), "{bad_rule}");
        assert!(bad_rule.contains("five"), "{bad_rule}");
        let twice = complaint("[[alarm]]\nname='x'\nrule='a!b.c:d.e>5 WARN'\n");
        assert!(twice.contains("there is no < <="), "{twice}");
        let twice = complaint("[[alarm]]\nname='x'\nrule='a > 5 WARN'\n[[alarm]]\nname='x'\nrule='a > 5 WARN'\n");
        assert!(twice.contains("\"x\" stands twice"), "{twice}");
        assert!(complaint("[[alarm]]\nname='check'\nrule='a > 5 WARN'").contains("uses itself"));
        assert!(complaint("peers = ['stream']").contains("stream, which must be the whole path"));
        assert!(complaint("peers = ['/run/cairn/stream']").contains("is our own stream"));
        assert!(complaint("peers = ['/run/cairn/feed']").contains("is a feed"));
        assert!(complaint("peers = ['/a/stream', '/a/stream']").contains("stands twice"));
        assert!(complaint("feeds = ['/a/feed', '/a/feed']").contains("feeds \"/a/feed\" stands twice"));
        let class = |kind: &str| complaint(&format!("[[classify]]\npattern = '*'\nkind = '{kind}'\nseverity = 'ERR'"));
        assert!(
            class("dwon").ends_with("cprocessd.toml:3: classify.kind: no event is of the kind \"dwon\""),
            "{}",
            class("dwon")
        );
        assert!(class("ack").contains("are not classified"));
        assert!(complaint("[judging]\nconfirm = 0").contains("judging.confirm is 0, but must be 1 to 1000"));
        assert!(complaint("[judging]\nhost_down_after = '1s'").contains("host_down_after is 1s, but must be 3s to 1d"));
        assert!(complaint("[judging]\nflap_changes = 1").contains("judging.flap_changes is 1, but must be 2 to 100"));
        let window = complaint("[[setting]]\npattern = '*'\nflap_window = '2d'");
        assert!(window.contains("setting.flap_window is 2d, but must be 1m to 1d"), "{window}");
        assert!(complaint("[judging]\nflap_calm = '1s'").contains("judging.flap_calm is 1s, but must be 1m to 1d"));
        assert!(complaint("[judging]\nclock_skew = '0s'").contains("clock_skew is 0s, but must be 1s to 1d"));
        let agree = complaint("[judging]\nagree = 'most'");
        assert!(agree.contains("cprocessd.toml:2") && agree.contains("majority"), "{agree}");
        assert!(complaint("[judging]\nhost_down_afte = '10s'").contains("did you mean host_down_after?"));
    }
}
