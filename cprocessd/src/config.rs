//! What a person may configure, checked once.

use crate::engine::RESERVED;
use crate::engine::rule::{Rule, RuleOrigin};
use crate::engine::settings::{Agree, Class, PartialTuning, Settings, Tuning};
use common::address::{CheckAddress, HostName, Name, Pattern, Unit};
use common::config::{ConfigError, HumanDuration, check_name, check_range, check_unique};
use common::message::Kind;
use common::severity::Severity;
use serde::{Deserialize, Deserializer};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The alarms of a fresh install.
const DEFAULT_RULES: &str = include_str!("../../deploy/default-rules.toml");

/// Each is followed, and each follows the others.
const MAX_PEERS: usize = 16;
/// The names of peers begin with this where feeds have theirs, too.
pub const PEER_PREFIX: &str = "peer:";

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
    #[serde(default = "default_journal_entries")]
    journal_entries: u64,
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

fn default_journal_entries() -> u64 {
    1_000_000
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
    kind: Option<Kind>,
    severity: Severity,
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
    /// How many events the journal keeps.
    pub journal_entries: u64,
    /// All that judging depends on.
    pub settings: Settings,
}

impl Config {
    /// Reads and checks the file and its drop-ins.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::checked(common::config::load(path)?, path)
    }

    /// What holds where nobody configured anything, with the rules that are shipped.
    pub fn shipped() -> Result<Self, ConfigError> {
        let path = Path::new("cprocessd.toml");
        Self::checked(common::config::parse(path, "")?, path)
    }

    fn checked(raw: Raw, path: &Path) -> Result<Self, ConfigError> {
        let wrong = |text: String| ConfigError::in_file(path, text);
        check_range("journal_entries", raw.journal_entries, 1000..=1_000_000_000).map_err(wrong)?;
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
        check_peers(&raw.peers, &raw.run_dir.join("stream"), &feeds).map_err(wrong)?;
        Ok(Self {
            feeds,
            peers: raw.peers,
            run_dir: raw.run_dir,
            state_dir: raw.state_dir,
            control_group: raw.control_group,
            journal_entries: raw.journal_entries,
            settings: Settings {
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
