//! What a person may configure, checked once.

use crate::engine::RESERVED;
use crate::engine::rule::{Rule, RuleOrigin};
use crate::engine::settings::{Class, PartialTuning, Settings, Tuning};
use common::address::{CheckAddress, HostName, Name, Pattern, Unit};
use common::config::{ConfigError, HumanBytes, HumanDuration, check_name, check_range, check_unique};
use common::journal::Retention;
use common::message::Kind;
use common::severity::Severity;
use serde::{Deserialize, Deserializer};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The alarms of a fresh install.
const DEFAULT_RULES: &str = include_str!("../../deploy/default-rules.toml");

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
        let raw: Raw = common::config::load(path)?;
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
            };
            partial(tuning).map(|partial| (s.pattern, partial))
        });
        let tunings = tunings.collect::<Result<Vec<_>, String>>().map_err(|text| wrong(format!("setting.{text}")))?;
        let judging = partial(raw.judging).map_err(|text| wrong(format!("judging.{text}")))?;
        let plain = Tuning::default();
        let defaults = Tuning {
            confirm: judging.confirm.unwrap_or(plain.confirm),
            host_down_after: judging.host_down_after.unwrap_or(plain.host_down_after),
            stop_grace: judging.stop_grace.unwrap_or(plain.stop_grace),
            blip_quiet: judging.blip_quiet.unwrap_or(plain.blip_quiet),
            forget_discovered_after: judging.forget_discovered_after.unwrap_or(plain.forget_discovered_after),
        };
        let classes =
            raw.classify.into_iter().map(|c| Class { pattern: c.pattern, kind: c.kind, severity: c.severity });
        let host = common::startup::host_or_system(raw.host).map_err(|error| wrong(error.to_string()))?;
        Ok(Self {
            feeds: raw.feeds.unwrap_or_else(|| vec![raw.run_dir.join("feed")]),
            run_dir: raw.run_dir,
            state_dir: raw.state_dir,
            control_group: raw.control_group,
            retention,
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
    Ok(PartialTuning {
        confirm: raw.confirm,
        host_down_after: raw.host_down_after.map(|d| d.0),
        stop_grace: raw.stop_grace.map(|d| d.0),
        blip_quiet: raw.blip_quiet.map(|d| d.0),
        forget_discovered_after: raw.forget_discovered_after.map(|d| d.0),
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
        assert!(complaint("[judging]\nconfirm = 0").contains("judging.confirm is 0, but must be 1 to 1000"));
        assert!(complaint("[judging]\nhost_down_after = '1s'").contains("host_down_after is 1s, but must be 3s to 1d"));
        assert!(complaint("[judging]\nhost_down_afte = '10s'").contains("did you mean host_down_after?"));
    }
}
