//! What ccollectd is told to do: `ccollectd.toml`, read as it is written and then checked once.

use common::address::{CheckAddress, HostName, Name, TextGlob, Unit};
use common::config::{ConfigError, HumanBytes, HumanDuration, check_range, load};
use common::journal::Retention;
use common::startup::system_host;
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

const INTERVALS: RangeInclusive<HumanDuration> =
    HumanDuration(Duration::from_millis(100))..=HumanDuration(Duration::from_hours(24));
const TIMEOUTS: RangeInclusive<HumanDuration> =
    HumanDuration(Duration::from_millis(10))..=HumanDuration(Duration::from_mins(1));
const ATTEMPTS: RangeInclusive<u32> = 1..=10;
/// A unit is kept in memory with its text, so at worst this many take some gigabytes, and far less in practice.
const MAX_UNITS: usize = 1_000_000;
const FORGET_AFTER_AT_LEAST: HumanDuration = HumanDuration(Duration::from_secs(1));

/// The whole configuration, checked: every value is within its bounds, and no two checks share an address.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// What cannot change while we run.
    pub(crate) fixed: Fixed,
    /// How plugins are kept.
    pub(crate) plugins: Plugins,
    /// What is looked at.
    pub(crate) sources: Sources,
}

/// What takes effect at a start only, because sockets, addresses and the journal hang on it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fixed {
    /// Our own name in every address.
    pub(crate) host: HostName,
    /// Where the sockets are.
    pub(crate) run_dir: PathBuf,
    /// Where the journal is.
    pub(crate) state_dir: PathBuf,
    /// How much the journal keeps.
    pub(crate) retention: Retention,
    /// Whether there is a socket for plugins.
    pub(crate) takes_plugins: bool,
}

/// How plugins are kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plugins {
    /// A unit without a report for this long is forgotten; never, if absent.
    pub(crate) forget_after: Option<Duration>,
    /// At most this many units.
    pub(crate) max_units: usize,
}

/// What is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// How often the machine itself is, if at all.
    pub(crate) machine: Option<Duration>,
    /// TCP ports that should answer.
    pub(crate) ports: Vec<Port>,
    /// Programs that should run.
    pub(crate) processes: Vec<Process>,
}

/// A TCP port that should answer.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    /// Its name, not empty.
    pub(crate) unit: Unit,
    /// `host:port` or `[::1]:port`.
    pub(crate) address: String,
    /// How often it is tried.
    pub(crate) interval: Duration,
    /// How many times in a row before it counts as down; at least once.
    pub(crate) attempts: u32,
    /// How long each attempt may take.
    pub(crate) timeout: Duration,
}

/// A program that should run.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// `NAME`, or `NAME (ARGS)` with the arguments as a comment.
    pub(crate) unit: Unit,
    /// The program's name.
    pub(crate) name: TextGlob,
    /// Its command line.
    pub(crate) args: Option<TextGlob>,
    /// Fewer than this is down.
    pub(crate) min: u32,
    /// More than this is down; not less than `min`.
    pub(crate) max: Option<u32>,
    /// How often it is counted.
    pub(crate) interval: Duration,
}

impl Fixed {
    /// The keys in which `new` differs.
    pub(crate) fn differences(&self, new: &Fixed) -> Vec<&'static str> {
        let keys = [
            ("host", self.host == new.host),
            ("run_dir", self.run_dir == new.run_dir),
            ("state_dir", self.state_dir == new.state_dir),
            ("journal_entries", self.retention.entries == new.retention.entries),
            ("journal_age", self.retention.age == new.retention.age),
            ("journal_bytes", self.retention.bytes == new.retention.bytes),
            ("plugins.enabled", self.takes_plugins == new.takes_plugins),
        ];
        keys.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }
}

impl Sources {
    /// The service of ports.
    pub(crate) fn port() -> Name {
        "port".parse().expect("a word is a name")
    }

    /// The service of processes.
    pub(crate) fn process() -> Name {
        "process".parse().expect("a word is a name")
    }

    /// The address of every check that will be reported.
    pub(crate) fn addresses(&self, host: &HostName) -> Vec<CheckAddress> {
        let address = |service: Name, unit: &Unit| CheckAddress { host: host.clone(), service, unit: unit.clone() };
        let ports = self.ports.iter().map(|port| address(Self::port(), &port.unit));
        let processes = self.processes.iter().map(|process| address(Self::process(), &process.unit));
        ports.chain(processes).collect()
    }
}

impl Config {
    /// Reads `path` and its drop-ins.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let raw: Raw = load(path)?;
        let host = system_host().map_err(|error| error.to_string());
        raw.checked(host).map_err(|fault| ConfigError::in_file(path, fault))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    host: Option<HostName>,
    run_dir: PathBuf,
    state_dir: PathBuf,
    journal_entries: Option<u64>,
    journal_age: Option<HumanDuration>,
    journal_bytes: Option<HumanBytes>,
    machine: RawMachine,
    plugins: RawPlugins,
    port: Vec<RawPort>,
    process: Vec<RawProcess>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            host: None,
            run_dir: "/run/cairn".into(),
            state_dir: "/var/lib/cairn/ccollectd".into(),
            journal_entries: None,
            journal_age: None,
            journal_bytes: None,
            machine: RawMachine::default(),
            plugins: RawPlugins::default(),
            port: Vec::new(),
            process: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMachine {
    enabled: bool,
    interval: HumanDuration,
}

impl Default for RawMachine {
    fn default() -> Self {
        Self { enabled: true, interval: a_second() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPlugins {
    enabled: bool,
    forget_after: Option<HumanDuration>,
    max_units: usize,
}

impl Default for RawPlugins {
    fn default() -> Self {
        Self { enabled: true, forget_after: None, max_units: 5_000 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPort {
    name: String,
    #[serde(deserialize_with = "host_and_port")]
    address: String,
    #[serde(default = "a_second")]
    interval: HumanDuration,
    #[serde(default = "two")]
    attempts: u32,
    #[serde(default = "a_second")]
    timeout: HumanDuration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProcess {
    name: String,
    #[serde(default)]
    args: Option<String>,
    #[serde(default = "one")]
    min: u32,
    #[serde(default)]
    max: Option<u32>,
    #[serde(default = "a_second")]
    interval: HumanDuration,
}

fn a_second() -> HumanDuration {
    HumanDuration(Duration::from_secs(1))
}

fn one() -> u32 {
    1
}

fn two() -> u32 {
    2
}

impl Raw {
    /// The error is a phrase that names the key.
    fn checked(self, system_host: Result<HostName, String>) -> Result<Config, String> {
        let host = match &self.host {
            Some(host) => host.clone(),
            None => system_host?,
        };
        let retention = Retention::checked(self.journal_entries, self.journal_age, self.journal_bytes)?;
        let machine = self.machine.enabled.then_some(self.machine.interval.0);
        check_range("machine.interval", self.machine.interval, INTERVALS)?;
        check_range("plugins.max_units", self.plugins.max_units, 0..=MAX_UNITS)?;
        if let Some(forget_after) = self.plugins.forget_after.filter(|after| *after < FORGET_AFTER_AT_LEAST) {
            return Err(format!(
                "plugins.forget_after is {forget_after}, but must be at least {FORGET_AFTER_AT_LEAST}"
            ));
        }
        let ports = self.port.into_iter().map(RawPort::checked).collect::<Result<Vec<_>, _>>()?;
        refuse_twice("port", ports.iter().map(|port| &port.unit))?;
        let processes = self.process.into_iter().map(RawProcess::checked).collect::<Result<Vec<_>, _>>()?;
        refuse_twice("process", processes.iter().map(|process| &process.unit))?;
        Ok(Config {
            fixed: Fixed {
                host,
                run_dir: self.run_dir,
                state_dir: self.state_dir,
                retention,
                takes_plugins: self.plugins.enabled,
            },
            plugins: Plugins {
                forget_after: self.plugins.forget_after.map(|forget_after| forget_after.0),
                max_units: self.plugins.max_units,
            },
            sources: Sources { machine, ports, processes },
        })
    }
}

impl RawPort {
    fn checked(self) -> Result<Port, String> {
        let Self { name, address, interval, attempts, timeout } = self;
        let unit = unit("port.name", &name)?;
        let key = |key: &str| format!("port {name:?}: {key}");
        check_range(&key("interval"), interval, INTERVALS)?;
        check_range(&key("timeout"), timeout, TIMEOUTS)?;
        check_range(&key("attempts"), attempts, ATTEMPTS)?;
        Ok(Port { unit, address, interval: interval.0, attempts, timeout: timeout.0 })
    }
}

impl RawProcess {
    fn checked(self) -> Result<Process, String> {
        let Self { name, args, min, max, interval } = self;
        let full = match &args {
            Some(args) => format!("{name} ({args})"),
            None => name.clone(),
        };
        let key = |key: &str| format!("process {full:?}: {key}");
        if name.is_empty() {
            return Err("process.name is empty, but must be the name of a program".to_owned());
        }
        let unit = unit("process.name", &full)?;
        check_range(&key("interval"), interval, INTERVALS)?;
        if max.is_some_and(|max| max < min) {
            let max = max.unwrap_or_default();
            return Err(format!("{} is {max}, but must be at least min, which is {min}", key("max")));
        }
        let glob = |part: &str, text: &str| text.parse().map_err(|error| format!("{}: {error}", key(part)));
        let name = glob("name", &name)?;
        let args = args.as_deref().map(|args| glob("args", args)).transpose()?;
        Ok(Process { unit, name, args, min, max, interval: interval.0 })
    }
}

fn unit(key: &str, text: &str) -> Result<Unit, String> {
    if text.is_empty() {
        return Err(format!("{key} is empty, but must name what is checked"));
    }
    text.parse().map_err(|error| format!("{key}: {error}"))
}

fn refuse_twice<'a>(key: &str, units: impl Iterator<Item = &'a Unit>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for unit in units {
        if !seen.insert(unit) {
            return Err(format!("{key}.name is {:?} twice, but must be different for each {key}", unit.as_str()));
        }
    }
    Ok(())
}

/// Checked while it is read: the commonest mistake is then named by its line.
fn host_and_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let address = String::deserialize(deserializer)?;
    if is_host_and_port(&address) {
        return Ok(address);
    }
    let must_be = "HOST:PORT or [IPV6]:PORT, as in \"127.0.0.1:80\"";
    Err(D::Error::invalid_value(Unexpected::Str(&address), &must_be))
}

fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let is_host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')),
    };
    // The parser would also take `+80`.
    is_host && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let path = Path::new("ccollectd.toml");
        let raw: Raw = common::config::parse(path, text).map_err(|error| error.to_string())?;
        raw.checked("here.example".parse().map_err(|_| String::new()))
            .map_err(|fault| ConfigError::in_file(path, fault).to_string())
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(read(text).expect_err("must be refused"), format!("ccollectd.toml{expected}"));
    }

    #[test]
    fn an_empty_file_is_a_configuration() {
        let config = read("").expect("a configuration");
        assert_eq!(config.fixed.host.as_str(), "here.example");
        assert_eq!(config.fixed.run_dir, Path::new("/run/cairn"));
        assert_eq!(config.sources.machine, Some(Duration::from_secs(1)));
        assert_eq!(config.plugins, Plugins { forget_after: None, max_units: 5_000 });
    }

    #[test]
    fn the_example_loads_and_shows_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/ccollectd.example.toml");
        let config = Config::load(&path).expect("the example");
        assert!(!config.sources.ports.is_empty() && !config.sources.processes.is_empty());
        let text = std::fs::read_to_string(&path).expect("the example");
        for key in [
            "host",
            "run_dir",
            "state_dir",
            "journal_entries",
            "[machine]",
            "enabled",
            "interval",
            "[plugins]",
            "forget_after",
            "max_units",
            "[[port]]",
            "name",
            "address",
            "attempts",
            "timeout",
            "[[process]]",
            "args",
            "min",
            "max",
        ] {
            assert!(text.contains(key), "{key} is missing");
        }
    }

    #[test]
    fn checks_are_addressed_by_service_and_name() {
        let config = read(
            "host = \"w\"
            [[port]]
            name = \"www (443)\"
            address = \"[::1]:443\"
            [[process]]
            name = \"java\"
            args = \"*tomcat*\"
            [[process]]
            name = \"cron\"",
        )
        .expect("a configuration");
        let addresses: Vec<_> = config.sources.addresses(&config.fixed.host).iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["w!port:www (443)", "w!process:java (*tomcat*)", "w!process:cron"]);
    }

    #[test]
    fn each_mistake_is_named_by_its_key_and_bound() {
        refused(
            "host = \"a b\"",
            ":1: host: host name \"a b\" holds ' ', but may hold only ASCII letters, digits, `.`, `-` and `_`",
        );
        refused("machine.interval = \"99ms\"", ": machine.interval is 99ms, but must be 100ms to 1d");
        refused("machine.interval = \"2d\"", ": machine.interval is 2d, but must be 100ms to 1d");
        refused("plugins.max_units = 1000001", ": plugins.max_units is 1000001, but must be 0 to 1000000");
        refused("plugins.forget_after = \"10ms\"", ": plugins.forget_after is 10ms, but must be at least 1s");
        refused("journal_entries = 0", ": journal_entries is 0, but must be 1 to 1000000000");
        let port = |more: &str| format!("[[port]]\nname = \"www\"\naddress = \"a:80\"\n{more}");
        refused(&port("attempts = 0"), ": port \"www\": attempts is 0, but must be 1 to 10");
        refused(&port("attempts = 11"), ": port \"www\": attempts is 11, but must be 1 to 10");
        refused(&port("timeout = \"61s\""), ": port \"www\": timeout is 1m1s, but must be 10ms to 1m");
        refused(&port(&port("")), ": port.name is \"www\" twice, but must be different for each port");
        refused(
            "[[port]]\nname = \"www\"\naddress = \"8000\"",
            ":3: port.address is \"8000\", but must be HOST:PORT or [IPV6]:PORT, as in \"127.0.0.1:80\"",
        );
        refused("[[port]]\nname = \"\"\naddress = \"a:1\"", ": port.name is empty, but must name what is checked");
        refused(
            "[[process]]\nname = \"cron\"\nmin = 3\nmax = 2",
            ": process \"cron\": max is 2, but must be at least min, which is 3",
        );
        refused("[[process]]\nname = \"a[\"", ": process \"a[\": name: glob \"a[\" has a `[` without its `]`");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = read("[[port]]\nname = \"a\"\naddress = \"a:1\"\nintervall = \"1s\"").expect_err("refused");
        assert!(error.contains("interval"), "{error}");
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["a:1", "irc.example.org:6667", "127.0.0.1:65535", "[::1]:80", "[fe80::1]:80"] {
            assert!(is_host_and_port(good), "{good}");
        }
        for bad in
            ["", "a", ":80", "a:", "a:0", "a:65536", "a:+1", "::1:80", "[::1]", "[]:80", "[a]:80", "a b:1", "a:1 "]
        {
            assert!(!is_host_and_port(bad), "{bad}");
        }
    }
}
