//! What a person may configure, checked once.

use crate::password::Password;
use common::config::{ConfigError, HumanDuration, load_checked};
use common::secret::Secret;
use common::subscription::TokenKey;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Publishers to follow at most: the page is for people, and each costs memory.
const MAX_PUBLISHERS: usize = 16;

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default = "default_run_dir")]
    run_dir: PathBuf,
    #[serde(default = "default_state_dir")]
    state_dir: PathBuf,
    publishers: Option<Vec<PathBuf>>,
    #[serde(default = "default_listen")]
    listen: SocketAddr,
    password_file: Option<PathBuf>,
    subscription_secret_file: Option<PathBuf>,
    #[serde(default)]
    public: Public,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    behind_proxy: bool,
    #[serde(default = "default_session_lifetime")]
    session_lifetime: HumanDuration,
}

fn default_run_dir() -> PathBuf {
    "/run/cairn".into()
}

fn default_state_dir() -> PathBuf {
    "/var/lib/cairn/cwebd".into()
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8436))
}

fn default_session_lifetime() -> HumanDuration {
    HumanDuration(Duration::from_hours(7 * 24))
}

/// What somebody may see who is not logged in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Public {
    /// The form to log in.
    #[default]
    None,
    /// The page.
    ReadOnly,
}

/// What holds after loading: if `listen` is not this machine alone, there is a password; there is a publisher.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) run_dir: PathBuf,
    pub(crate) state_dir: PathBuf,
    /// The PUB sockets of the streams; the question socket `query` is in the same folder.
    pub(crate) publishers: Vec<PathBuf>,
    pub(crate) listen: SocketAddr,
    pub(crate) access: AccessConfig,
}

/// Who may see the page, and by which way. Changes with a reload.
#[derive(Clone, Debug)]
pub(crate) struct AccessConfig {
    pub(crate) password: Option<Password>,
    pub(crate) public: Public,
    /// Names the page is called by, in lower case, beside those of this machine's loopback.
    pub(crate) hosts: Vec<String>,
    /// Whether other names than these are refused.
    pub(crate) only_known_hosts: bool,
    /// A proxy says who asks, and whether by https.
    pub(crate) behind_proxy: bool,
    pub(crate) session_lifetime: Duration,
    /// What knows the links in the mails to subscribers; without it there are none.
    pub(crate) subscriptions: Option<TokenKey>,
}

impl Config {
    /// Reads and checks the file, its drop-ins and the password's hash.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        load_checked(path, |raw| checked(raw, path).map_err(|text| ConfigError::in_file(path, text)))
    }
}

fn checked(raw: Raw, path: &Path) -> Result<Config, String> {
    let password = match &raw.password_file {
        Some(file) => {
            let hash = Secret::read("password_file", file, path)?;
            Some(
                Password::from_hash(hash.reveal())
                    .map_err(|text| format!("password_file: {} {text}", file.display()))?,
            )
        }
        None => None,
    };
    let subscriptions = match &raw.subscription_secret_file {
        Some(file) => Some(TokenKey::read("subscription_secret_file", file, path)?),
        None => None,
    };
    let is_local = raw.listen.ip().to_canonical().is_loopback();
    if !is_local && password.is_none() {
        return Err(format!(
            "listen is {}, but must be a loopback address as long as there is no password_file (public = \"read-only\" \
             needs one too)",
            raw.listen
        ));
    }
    let publishers = raw.publishers.unwrap_or_else(|| vec![raw.run_dir.join("stream")]);
    if publishers.is_empty() || publishers.len() > MAX_PUBLISHERS {
        return Err(format!("publishers has {} entries, but must have 1 to {MAX_PUBLISHERS}", publishers.len()));
    }
    for host in &raw.hosts {
        if host.is_empty()
            || host.len() > 253
            || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
        {
            return Err(format!(
                "hosts has {host:?}, but must have names or addresses as a browser shows them, without a port"
            ));
        }
    }
    let lifetime = raw.session_lifetime.0;
    if lifetime < Duration::from_mins(1) || lifetime > Duration::from_hours(24 * 365) {
        return Err(format!("session_lifetime is {} s, but must be 1m to 365d", lifetime.as_secs()));
    }
    Ok(Config {
        run_dir: raw.run_dir,
        state_dir: raw.state_dir,
        publishers,
        listen: raw.listen,
        access: AccessConfig {
            password,
            public: raw.public,
            // On a public address the names are nobody's secret and there is a password; on loopback a foreign page
            // could have its own name resolve to 127.0.0.1 and read what we answer (DNS rebinding).
            only_known_hosts: is_local || !raw.hosts.is_empty(),
            hosts: raw.hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect(),
            behind_proxy: raw.behind_proxy,
            session_lifetime: lifetime,
            subscriptions,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("cwebd.toml");
        std::fs::write(&path, text.replace("DIR", &dir.path().display().to_string())).expect("file");
        std::fs::write(dir.path().join("good"), Password::hash("correct horse").expect("hashes") + "\n").expect("file");
        std::fs::write(dir.path().join("plain"), "hunter22\n").expect("file");
        Config::load(&path).map_err(|error| error.to_string().replace(&format!("{}", dir.path().display()), "DIR"))
    }

    #[test]
    fn an_empty_file_listens_to_this_machine_alone() {
        let config = load("").expect("loads");
        assert_eq!(config.listen, "127.0.0.1:8436".parse().expect("address"));
        assert_eq!(config.publishers, [PathBuf::from("/run/cairn/stream")]);
        assert_eq!(config.access.public, Public::None);
        assert!(config.access.only_known_hosts && config.access.password.is_none());
    }

    #[test]
    fn the_example_loads() {
        Config::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/cwebd.example.toml"))).expect("loads");
    }

    #[test]
    fn it_listens_elsewhere_only_with_a_password() {
        for listen in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
            let complaint = load(&format!("listen = '{listen}'\npublic = 'read-only'")).expect_err("refused");
            assert!(
                complaint.contains("must be a loopback address as long as there is no password_file"),
                "{complaint}"
            );
            load(&format!("listen = '{listen}'\npassword_file = 'DIR/good'")).expect("loads");
        }
        for listen in ["127.0.0.1:80", "127.1.2.3:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            load(&format!("listen = '{listen}'")).expect("loads");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let complaint = |text: &str| load(text).expect_err("a mistake");
        assert!(complaint("listen = 'localhost'").starts_with("DIR/cwebd.toml:1: listen"));
        assert!(complaint("publik = 'none'").contains("did you mean public?"));
        assert!(complaint("public = 'all'").contains("DIR/cwebd.toml:1: public"));
        let plain = complaint("password_file = 'DIR/plain'");
        assert!(plain.contains("DIR/plain must hold one line, as `cwebd --hash-password` prints it"), "{plain}");
        assert!(!plain.contains("hunter22"), "{plain}");
        assert!(complaint("password_file = '/nonexistent'").contains("does not exist"));
        let short = complaint("subscription_secret_file = 'DIR/plain'");
        assert!(short.contains("DIR/plain has 8 bytes, but must have at least 32"), "{short}");
        assert!(complaint("publishers = []").contains("has 0 entries"));
        assert!(complaint("hosts = ['http://x']").contains("without a port"));
        assert!(complaint("session_lifetime = '1s'").contains("must be 1m to 365d"));
    }
}
