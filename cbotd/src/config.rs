//! What a person may configure, checked once.

use crate::network::Network;
use crate::options::{Channel, Options, Sasl};
use crate::secret::{Secret, found};
use crate::session::fold;
use common::address::{HostName, Pattern};
use common::config::{ConfigError, HumanDuration};
use common::notifier::{Lane, Recipient, Selection, Setup};
use common::severity::Severity;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default = "default_run_dir")]
    run_dir: PathBuf,
    #[serde(default = "default_state_dir")]
    state_dir: PathBuf,
    host: Option<HostName>,
    publishers: Option<Vec<PathBuf>>,
    #[serde(default = "default_give_up_after")]
    give_up_after: HumanDuration,
    #[serde(default)]
    network: Vec<RawNetwork>,
}

fn default_run_dir() -> PathBuf {
    "/run/cairn".into()
}

fn default_state_dir() -> PathBuf {
    "/var/lib/cairn/cbotd".into()
}

/// A channel is read now or not at all: after a day, the page knows better.
fn default_give_up_after() -> HumanDuration {
    HumanDuration(Duration::from_hours(24))
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
    user: String,
    password_file: PathBuf,
    #[serde(default)]
    required: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChannel {
    name: String,
    key: Option<String>,
    key_file: Option<PathBuf>,
    #[serde(default = "default_severity")]
    severity: Severity,
    #[serde(default)]
    only: Vec<Pattern>,
    #[serde(default)]
    except: Vec<Pattern>,
    #[serde(default = "yes")]
    colour: bool,
    #[serde(default)]
    notice: bool,
}

fn default_severity() -> Severity {
    Severity::Warn
}

/// Reads and checks the file and its drop-ins. Without a network there is nobody to tell, which is valid; the frame says so.
pub fn load(path: &Path) -> Result<Setup<Network>, ConfigError> {
    let raw: Raw = common::config::load(path)?;
    let wrong = |text: String| ConfigError::in_file(path, text);
    check_range("give_up_after in seconds", raw.give_up_after.0.as_secs(), 60, 30 * 24 * 60 * 60).map_err(wrong)?;
    let host = raw.host.map_or_else(|| common::startup::system_host().map_err(|e| wrong(e.to_string())), Ok)?;
    let mut lanes: Vec<Lane<Network>> = Vec::new();
    for network in raw.network {
        let name = network.name.clone();
        let lane = lane(network, path).map_err(|text| wrong(format!("network {name:?}: {text}")))?;
        if lanes.iter().any(|other| other.name == lane.name) {
            return Err(wrong(format!("network.name {name:?} stands twice")));
        }
        lanes.push(lane);
    }
    Ok(Setup {
        publishers: raw.publishers.unwrap_or_else(|| vec![raw.run_dir.join("stream")]),
        run_dir: raw.run_dir,
        state_dir: raw.state_dir,
        host,
        give_up_after: raw.give_up_after.0,
        lanes,
    })
}

fn lane(raw: RawNetwork, config: &Path) -> Result<Lane<Network>, String> {
    check_text("name", &raw.name, 50, |c| c.is_ascii_alphanumeric() || "._-".contains(c))?;
    let secret = |key: &str, file: &Option<PathBuf>| match file {
        Some(file) => Secret::read(file, config).map(Some).map_err(|why| format!("{key}: {why}")),
        None => Ok(None),
    };
    if ServerName::try_from(raw.server.as_str()).is_err() {
        return Err(format!("server is {:?}, but must be a host name or an address", raw.server));
    }
    if raw.ca_file.is_some() && !raw.tls {
        return Err("ca_file is set, but tls is false".to_owned());
    }
    check_nick(&raw.nick)?;
    let user = raw.user.unwrap_or_else(|| "cairn".to_owned());
    check_text("user", &user, 16, |c| c.is_ascii_alphanumeric() || "._-".contains(c))?;
    check_text("realname", &raw.realname, 50, |c| !c.is_control())?;
    check_range("line_interval in milliseconds", millis(raw.line_interval), 0, 10_000)?;
    check_range("burst", raw.burst.into(), 1, 100)?;
    check_range("ping_after in milliseconds", millis(raw.ping_after), 1000, 600_000)?;
    check_range("ping_timeout in milliseconds", millis(raw.ping_timeout), 1000, 600_000)?;
    let sasl = match raw.sasl {
        Some(RawSasl { user, password_file, required }) => {
            check_text("sasl.user", &user, 100, |c| !c.is_control())?;
            let password = Secret::read(&password_file, config).map_err(|why| format!("sasl.password_file: {why}"))?;
            Some(Sasl { user, password, required })
        }
        None => None,
    };
    let (tls, roots) = if raw.tls {
        let (tls, roots) = tls(raw.ca_file.as_deref().map(|file| found(file, config, None)).as_deref())?;
        (Some(tls), roots)
    } else {
        (None, "plaintext".to_owned())
    };
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
        tls,
        nick: raw.nick,
        user,
        realname: raw.realname,
        password: secret("password_file", &raw.password_file)?,
        sasl,
        nickserv: secret("nickserv_password_file", &raw.nickserv_password_file)?,
        line_interval: raw.line_interval.0,
        burst: raw.burst,
        ping_after: raw.ping_after.0,
        ping_timeout: raw.ping_timeout.0,
        channels: recipients.iter().map(|recipient| recipient.address.clone()).collect(),
        name: raw.name,
        server: raw.server,
    };
    Ok(Lane {
        name: options.name.clone(),
        fingerprint: fingerprint(&options, &roots),
        medium: Network::new(options),
        recipients,
    })
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
        (None, Some(file)) => Some(Secret::read(&file, config).map_err(|why| format!("key_file: {why}"))?),
        (None, None) => None,
    };
    if key.as_ref().is_some_and(|key| key.reveal().contains([' ', ',']) || key.reveal().starts_with(':')) {
        return Err("key holds a space or a comma, or begins with a colon, which no channel key can".to_owned());
    }
    Ok(Recipient {
        name: format!("{network}/{}", raw.name),
        selection: Selection { minimum: raw.severity, only: raw.only, except: raw.except },
        address: Channel { name: raw.name, key, colour: raw.colour, notice: raw.notice },
    })
}

/// How to trust a server: by this private authority alone, or by the system's. And that as text.
fn tls(ca_file: Option<&Path>) -> Result<(Arc<ClientConfig>, String), String> {
    let mut roots = RootCertStore::empty();
    let mut text = String::new();
    match ca_file {
        Some(file) => {
            let unusable = |why: String| format!("ca_file: {} {why}", file.display());
            let pem = std::fs::read(file).map_err(|error| unusable(format!("cannot be read: {error}")))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| unusable(format!("is not PEM: {error}")))?;
                let _ = write!(text, "{} ", Uuid::new_v5(&Uuid::NAMESPACE_OID, &certificate));
                roots.add(certificate).map_err(|error| unusable(format!("holds no authority: {error}")))?;
            }
            if roots.is_empty() {
                return Err(unusable("holds no certificate".to_owned()));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            let (usable, _) = roots.add_parsable_certificates(found.certs);
            if usable == 0 {
                return Err("tls needs the system's authorities, of which there are none: set ca_file".to_owned());
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((Arc::new(config), text))
}

/// Changes with everything that a connection depends on, and shows nothing of it.
fn fingerprint(options: &Options, roots: &str) -> String {
    // Named one by one, so that a new one is not forgotten.
    let Options {
        name,
        server,
        port,
        tls: _,
        nick,
        user,
        realname,
        password,
        sasl,
        nickserv,
        line_interval,
        burst,
        ping_after,
        ping_timeout,
        channels,
    } = options;
    let reveal = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
    let sasl = sasl.as_ref().map(|sasl| (&sasl.user, sasl.password.reveal(), sasl.required));
    let channels: Vec<_> = channels.iter().map(|c| (&c.name, reveal(&c.key), c.colour, c.notice)).collect();
    let place = (name, server, port, roots, nick, user, realname);
    let rest = (reveal(password), sasl, reveal(nickserv), line_interval, burst, ping_after, ping_timeout, channels);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{place:?} {rest:?}").as_bytes()).to_string()
}

fn millis(duration: HumanDuration) -> u64 {
    u64::try_from(duration.0.as_millis()).unwrap_or(u64::MAX)
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

fn check_range(key: &str, value: u64, least: u64, most: u64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(format!("{key} is {value}, but must be {least} to {most}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAB: &str = "[[network]]\nname = 'lab'\nserver = 'irc.lab.test'\ntls = false\n";

    #[track_caller]
    fn load_text(text: &str) -> Result<Setup<Network>, String> {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("pw"), "hush\n").expect("file");
        let path = dir.path().join("cbotd.toml");
        std::fs::write(&path, text).expect("file");
        load(&path).map_err(|error| error.to_string().replace(&format!("{}", dir.path().display()), "DIR"))
    }

    #[track_caller]
    fn complaint(text: &str) -> String {
        load_text(text).err().unwrap_or_else(|| panic!("no mistake in {text}"))
    }

    #[test]
    fn an_empty_file_tells_nobody() {
        let setup = load_text("").expect("loads");
        assert!(setup.lanes.is_empty());
        assert_eq!(setup.publishers, [PathBuf::from("/run/cairn/stream")]);
        assert_eq!(setup.state_dir, PathBuf::from("/var/lib/cairn/cbotd"));
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
        let named = |more: &str| complaint(&with(more)).replace("DIR/cbotd.toml: network \"lab\": ", "");
        assert!(load_text(&with("")).is_ok());
        assert_eq!(named("nick = '1x'"), "nick is \"1x\", but must begin with a letter");
        assert_eq!(named("nick = 'a b'"), "nick holds ' ', which it must not");
        assert_eq!(named("burst = 0"), "burst is 0, but must be 1 to 100");
        assert_eq!(named("line_interval = '11s'"), "line_interval in milliseconds is 11000, but must be 0 to 10000");
        assert_eq!(named("ca_file = 'x'"), "ca_file is set, but tls is false");
        assert!(named("password_file = 'none'").starts_with("password_file: DIR/none cannot be read"));
        assert_eq!(complaint(LAB), "DIR/cbotd.toml: network \"lab\": has no [[network.channel]]");
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
        assert!(complaint("give_up_after = '1s'").contains("must be 60 to 2592000"));
        let tls = with("ca_file = 'pw'").replace("tls = false", "tls = true");
        assert!(complaint(&tls).contains("holds no certificate"));
        assert!(complaint(&with("").replace("irc.lab.test", "no host")).contains("must be a host name or an address"));
    }
}
