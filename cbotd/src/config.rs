//! What a person may configure, checked once.

use crate::network::Network;
use crate::options::{Channel, Mechanism, Options, Sasl};
use crate::session::fold;
use common::address::{HostName, Pattern};
use common::config::{ConfigError, HumanDuration, check_name, check_range, check_unique, load_checked};
use common::counters::Counters;
use common::notifier::{Lane, Quiet, RawBase, RawSelection, Recipient, Selectable, Setup, Unless};
use common::secret::{Secret, fingerprint};
use common::severity::Severity;
use common::trust::{Identity, Trust};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A channel is read now or not at all: after a day, the page knows better.
const GIVE_UP_AFTER: Duration = Duration::from_hours(24);
/// From here on a channel is told that does not say otherwise.
const DEFAULT_SEVERITY: Severity = Severity::Warn;
/// What has more does not fit into one line beside its command.
const MAX_SECRET_BYTES: usize = 400;
const PING_BOUNDS: RangeInclusive<HumanDuration> =
    HumanDuration(Duration::from_secs(1))..=HumanDuration(Duration::from_mins(10));

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    run_dir: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    host: Option<HostName>,
    publishers: Option<Vec<PathBuf>>,
    give_up_after: Option<HumanDuration>,
    #[serde(default)]
    network: Vec<RawNetwork>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    name: String,
    server: String,
    port: Option<u16>,
    #[serde(default = "yes")]
    tls: bool,
    ca_file: Option<PathBuf>,
    #[serde(default = "default_nick")]
    nick: String,
    user: Option<String>,
    #[serde(default = "default_realname")]
    realname: String,
    password_file: Option<PathBuf>,
    sasl: Option<RawSasl>,
    nickserv_password_file: Option<PathBuf>,
    #[serde(default = "default_line_interval")]
    line_interval: HumanDuration,
    #[serde(default = "default_burst")]
    burst: u32,
    #[serde(default = "default_ping_after")]
    ping_after: HumanDuration,
    #[serde(default = "default_ping_timeout")]
    ping_timeout: HumanDuration,
    #[serde(default)]
    operators: Vec<String>,
    #[serde(default)]
    channel: Vec<RawChannel>,
}

fn yes() -> bool {
    true
}

fn default_nick() -> String {
    "cairn".to_owned()
}

fn default_realname() -> String {
    "Cairn monitoring".to_owned()
}

/// What the strictest of the common servers bear for ever.
fn default_line_interval() -> HumanDuration {
    HumanDuration(Duration::from_secs(2))
}

fn default_burst() -> u32 {
    4
}

fn default_ping_after() -> HumanDuration {
    HumanDuration(Duration::from_mins(1))
}

fn default_ping_timeout() -> HumanDuration {
    HumanDuration(Duration::from_secs(30))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSasl {
    user: Option<String>,
    password_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    #[serde(default)]
    required: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChannel {
    name: String,
    key: Option<String>,
    key_file: Option<PathBuf>,
    severity: Option<Severity>,
    #[serde(default)]
    only: Vec<Pattern>,
    #[serde(default)]
    except: Vec<Pattern>,
    #[serde(default)]
    kinds: Vec<Selectable>,
    reminders: Option<bool>,
    #[serde(default)]
    quiet: Vec<Quiet>,
    after: Option<HumanDuration>,
    unless: Option<Unless>,
    #[serde(default = "yes")]
    colour: bool,
    #[serde(default)]
    notice: bool,
    #[serde(default = "yes")]
    commands: bool,
}

/// Reads and checks the file and its drop-ins. Without a network there is nobody to tell, which is valid; the frame says so.
pub fn load(path: &Path, counters: &Counters) -> Result<Setup<Network>, ConfigError> {
    load_checked(path, |raw| checked(raw, path, counters))
}

fn checked(raw: Raw, path: &Path, counters: &Counters) -> Result<Setup<Network>, ConfigError> {
    let wrong = |text: String| ConfigError::in_file(path, text);
    let base = RawBase {
        run_dir: raw.run_dir,
        state_dir: raw.state_dir,
        host: raw.host,
        publishers: raw.publishers,
        give_up_after: raw.give_up_after,
    };
    let base = base.checked("cbotd", GIVE_UP_AFTER).map_err(wrong)?;
    check_unique("network.name", raw.network.iter().map(|network| network.name.as_str())).map_err(wrong)?;
    let lanes = raw.network.into_iter().map(|network| {
        let name = network.name.clone();
        lane(network, path, &base.publishers, counters).map_err(|text| wrong(format!("network {name:?}: {text}")))
    });
    let lanes = lanes.collect::<Result<_, _>>()?;
    Ok(Setup { base, lanes })
}

fn lane(raw: RawNetwork, config: &Path, publishers: &[PathBuf], counters: &Counters) -> Result<Lane<Network>, String> {
    check_text("name", &raw.name, 50, |c| c.is_ascii_alphanumeric() || "._-".contains(c))?;
    let secret = |key: &str, file: Option<PathBuf>| file.map(|file| read_secret(key, &file, config)).transpose();
    if ServerName::try_from(raw.server.as_str()).is_err() {
        return Err(format!("server is {:?}, but must be a host name or an address", raw.server));
    }
    if raw.ca_file.is_some() && !raw.tls {
        return Err("ca_file is set, but tls is false".to_owned());
    }
    check_nick(&raw.nick)?;
    let user = raw.user.unwrap_or_else(|| "cairn".to_owned());
    check_text("user", &user, 16, |c| c.is_ascii_alphanumeric() || "._-".contains(c))?;
    check_name("realname", &raw.realname, 50)?;
    check_range("line_interval", raw.line_interval, Duration::ZERO.into()..=Duration::from_secs(10).into())?;
    check_range("burst", raw.burst, 1..=100)?;
    check_range("ping_after", raw.ping_after, PING_BOUNDS)?;
    check_range("ping_timeout", raw.ping_timeout, PING_BOUNDS)?;
    let sasl = raw.sasl.map(|sasl| check_sasl(sasl, raw.tls, config)).transpose()?;
    for operator in &raw.operators {
        check_text("operators", operator, 100, |c| !c.is_control() && !c.is_whitespace() && c != '*')?;
    }
    check_unique("operators", raw.operators.iter().map(String::as_str))?;
    let trust = raw.tls.then(|| Trust::read("ca_file", raw.ca_file.as_deref(), config)).transpose()?;
    if raw.channel.is_empty() {
        return Err("has no [[network.channel]]".to_owned());
    }
    let mut recipients: Vec<Recipient<Channel>> = Vec::new();
    for channel in raw.channel {
        let name = channel.name.clone();
        let recipient = recipient(&raw.name, channel, config).map_err(|text| format!("channel {name:?}: {text}"))?;
        if recipients.iter().any(|other| fold(&other.address.name) == fold(&name)) {
            return Err(format!("channel.name {name:?} stands twice"));
        }
        recipients.push(recipient);
    }
    let options = Options {
        port: raw.port.unwrap_or(if raw.tls { 6697 } else { 6667 }),
        trust,
        nick: raw.nick,
        user,
        realname: raw.realname,
        password: secret("password_file", raw.password_file)?,
        sasl,
        nickserv: secret("nickserv_password_file", raw.nickserv_password_file)?,
        line_interval: raw.line_interval.0,
        burst: raw.burst,
        ping_after: raw.ping_after.0,
        ping_timeout: raw.ping_timeout.0,
        channels: recipients.iter().map(|recipient| recipient.address.clone()).collect(),
        operators: raw.operators,
        name: raw.name,
        server: raw.server,
    };
    Ok(Lane {
        name: options.name.clone(),
        fingerprint: fingerprint(&options),
        medium: Network::new(options, publishers.to_owned(), counters.clone()),
        recipients,
    })
}

/// By a password, or by a certificate.
fn check_sasl(raw: RawSasl, tls: bool, config: &Path) -> Result<Sasl, String> {
    let RawSasl { user, password_file, cert_file, key_file, required } = raw;
    let mechanism = match (user, password_file, cert_file, key_file) {
        (Some(user), Some(password_file), None, None) => {
            check_name("sasl.user", &user, 100)?;
            Mechanism::Plain { user, password: read_secret("sasl.password_file", &password_file, config)? }
        }
        (None, None, Some(_), Some(_)) if !tls => {
            return Err("sasl.cert_file is set, but tls is false".to_owned());
        }
        (None, None, Some(cert), Some(key)) => {
            Mechanism::External(Identity::read(("sasl.cert_file", &cert), ("sasl.key_file", &key), config)?)
        }
        _ => return Err("sasl must have either user and password_file or cert_file and key_file".to_owned()),
    };
    Ok(Sasl { mechanism, required })
}

fn read_secret(key: &str, file: &Path, config: &Path) -> Result<Secret, String> {
    let secret = Secret::read(key, file, config)?;
    check_length(key, &secret)?;
    Ok(secret)
}

fn check_length(key: &str, secret: &Secret) -> Result<(), String> {
    match secret.reveal().len() {
        0..=MAX_SECRET_BYTES => Ok(()),
        bytes => Err(format!("{key} has {bytes} bytes, but must have at most {MAX_SECRET_BYTES} to fit into a line")),
    }
}

fn recipient(network: &str, raw: RawChannel, config: &Path) -> Result<Recipient<Channel>, String> {
    // RFC 2812 section 1.3, and no character that ends or splits an argument.
    check_text("name", &raw.name, 64, |c| !c.is_control() && !c.is_whitespace() && c != ',')?;
    if !raw.name.starts_with(['#', '&', '+', '!']) {
        return Err("name must begin with #, &, + or !".to_owned());
    }
    let key = match (raw.key, raw.key_file) {
        (Some(_), Some(_)) => return Err("has both key and key_file, but must have one of them".to_owned()),
        (Some(key), None) => Some(Secret::new(&key).map_err(|why| format!("key {why}"))?),
        (None, Some(file)) => Some(Secret::read("key_file", &file, config)?),
        (None, None) => None,
    };
    key.iter().try_for_each(|key| check_length("key", key))?;
    if key.as_ref().is_some_and(|key| key.reveal().contains([' ', ',']) || key.reveal().starts_with(':')) {
        return Err("key holds a space or a comma, or begins with a colon, which no channel key can".to_owned());
    }
    let selection = RawSelection {
        severity: raw.severity,
        only: raw.only,
        except: raw.except,
        kinds: raw.kinds,
        reminders: raw.reminders,
        quiet: raw.quiet,
        after: raw.after,
        unless: raw.unless,
    };
    Ok(Recipient {
        name: format!("{network}/{}", raw.name),
        selection: selection.checked(DEFAULT_SEVERITY)?,
        address: Channel { name: raw.name, key, colour: raw.colour, notice: raw.notice, commands: raw.commands },
    })
}

/// RFC 2812 section 2.3.1: letters, digits and a few marks, no digit first.
fn check_nick(nick: &str) -> Result<(), String> {
    check_text("nick", nick, 30, |c| c.is_ascii_alphanumeric() || "[]\\`_^{|}-".contains(c))?;
    if nick.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return Err(format!("nick is {nick:?}, but must begin with a letter"));
    }
    Ok(())
}

fn check_text(key: &str, text: &str, most: usize, allows: impl Fn(char) -> bool) -> Result<(), String> {
    if text.is_empty() || text.len() > most {
        return Err(format!("{key} has {} bytes, but must have 1 to {most}", text.len()));
    }
    match text.chars().find(|c| !allows(*c)) {
        Some(c) => Err(format!("{key} holds {c:?}, which it must not")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::notifier::Selection;

    const LAB: &str = "[[network]]\nname = 'lab'\nserver = 'irc.lab.test'\ntls = false\n";

    #[track_caller]
    fn load_text(text: &str) -> Result<Setup<Network>, String> {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("pw"), "hush\n").expect("file");
        let path = dir.path().join("cbotd.toml");
        std::fs::write(&path, text).expect("file");
        load(&path, &Counters::default())
            .map_err(|error| error.to_string().replace(&format!("{}", dir.path().display()), "DIR"))
    }

    #[track_caller]
    fn complaint(text: &str) -> String {
        load_text(text).err().unwrap_or_else(|| panic!("no mistake in {text}"))
    }

    #[test]
    fn an_empty_file_tells_nobody() {
        let setup = load_text("").expect("loads");
        assert!(setup.lanes.is_empty());
        assert_eq!(setup.base.publishers, [PathBuf::from("/run/cairn/stream")]);
        assert_eq!(setup.base.state_dir, PathBuf::from("/var/lib/cairn/cbotd"));
    }

    #[test]
    fn a_network_with_two_channels() {
        let text = format!(
            "{LAB}sasl = {{ user = 'cairn', password_file = 'pw' }}\n[[network.channel]]\nname = '#ops'\nkey_file = 'pw'\n\
             [[network.channel]]\nname = '#calm'\nseverity = 'CRIT'\nonly = ['web*']\ncolour = false\n"
        );
        let setup = load_text(&text).expect("loads");
        let lane = &setup.lanes[0];
        let names: Vec<&str> = lane.recipients.iter().map(|recipient| &*recipient.name).collect();
        assert_eq!(names, ["lab/#ops", "lab/#calm"]);
        assert_eq!(lane.recipients[0].selection, Selection::at_least(Severity::Warn));
        assert_eq!(lane.recipients[1].selection.minimum, Severity::Crit);
        assert_eq!(lane.recipients[0].address.key.as_ref().map(Secret::reveal), Some("hush"));
        assert!(!lane.fingerprint.contains("hush"));
        let other = load_text(&text.replace("burst", "x").replace("colour = false", "colour = true")).expect("loads");
        assert_ne!(lane.fingerprint, other.lanes[0].fingerprint);
        assert_eq!(lane.fingerprint, load_text(&text).expect("loads").lanes[0].fingerprint);
    }

    #[test]
    fn the_example_loads() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/cbotd.example.toml"));
        let setup = load_text(&text.expect("the example is there")).expect("loads");
        assert_eq!(setup.lanes.len(), 1);
        assert_eq!(setup.lanes[0].recipients.len(), 2);
    }

    #[test]
    fn mistakes_are_named() {
        let with = |more: &str| format!("{LAB}{more}\n[[network.channel]]\nname = '#ops'\n");
        let named = |more: &str| {
            let complaint = complaint(&with(more));
            let (place, mistake) = complaint.split_once(" network \"lab\": ").expect("it names the network");
            assert!(place.starts_with("DIR/cbotd.toml:"), "{place}");
            mistake.to_owned()
        };
        assert!(load_text(&with("")).is_ok());
        assert_eq!(named("nick = '1x'"), "nick is \"1x\", but must begin with a letter");
        assert_eq!(named("nick = 'a b'"), "nick holds ' ', which it must not");
        assert_eq!(named("burst = 0"), "burst is 0, but must be 1 to 100");
        assert_eq!(named("line_interval = '11s'"), "line_interval is 11s, but must be 0s to 10s");
        assert_eq!(named("ca_file = 'x'"), "ca_file is set, but tls is false");
        let long = format!("key = '{}'", "x".repeat(401));
        assert!(complaint(&format!("{}{long}", with(""))).contains("key has 401 bytes, but must have at most 400"));
        assert!(named("password_file = 'none'").starts_with("password_file: DIR/none does not exist"));
        let both = "sasl must have either user and password_file or cert_file and key_file";
        assert_eq!(named("sasl = { user = 'a' }"), both);
        assert_eq!(named("sasl = { user = 'a', cert_file = 'pw', key_file = 'pw' }"), both);
        assert_eq!(named("sasl = { cert_file = 'pw', key_file = 'pw' }"), "sasl.cert_file is set, but tls is false");
        assert_eq!(complaint(LAB), "DIR/cbotd.toml: network \"lab\": has no [[network.channel]]");
        assert!(load_text(&with("operators = ['Alice', 'b[o]b']")).is_ok());
        assert_eq!(named("operators = ['a b']"), "operators holds ' ', which it must not");
        assert_eq!(named("operators = ['*']"), "operators holds '*', which it must not");
        assert_eq!(named("operators = ['']"), "operators has 0 bytes, but must have 1 to 100");
        assert_eq!(named("operators = ['a', 'a']"), "operators \"a\" stands twice");
        assert!(complaint(&with("nik = 'x'")).contains("did you mean nick?"));
        assert!(complaint(&with("").replace("#ops", "ops")).contains("name must begin with #, &, + or !"));
        assert!(complaint(&with("").replace("#ops", "#a,#b")).contains("name holds ','"));
        let channel = |more: &str| complaint(&format!("{}{more}", with("")));
        assert!(channel("key = 'a'\nkey_file = 'pw'").contains("has both key and key_file"));
        assert!(channel("key = 'a b'").contains("which no channel key can"));
        assert!(channel("[[network.channel]]\nname = '#OPS'").contains("\"#OPS\" stands twice"));
        assert!(channel("severity = 'ERROR'").starts_with("DIR/cbotd.toml:"));
        let twice = format!("{}{}", with(""), with(""));
        assert!(complaint(&twice).contains("\"lab\" stands twice"));
        assert!(complaint("give_up_after = '1s'").contains("give_up_after is 1s, but must be 1m to 30d"));
        let tls = with("ca_file = 'pw'").replace("tls = false", "tls = true");
        assert!(complaint(&tls).contains("holds no certificate"));
        assert!(complaint(&with("").replace("irc.lab.test", "no host")).contains("must be a host name or an address"));
    }
}
