//! What a person may configure, checked once.

use crate::heart::Heart;
use crate::medium::{Destination, Sms, TOTAL_TIMEOUT};
use crate::number::masked;
use crate::provider::{Provider, Route};
use crate::receipts::Receipts;
use crate::table::{Kind, Table, Variable};
use crate::text::Limit;
use common::address::{HostName, Pattern};
use common::config::{ConfigError, HumanDuration, check_name, check_range, check_unique, load_checked};
use common::counters::Counters;
use common::notifier::{
    Cap, Folder, LONGEST_WINDOW, Lane, Quiet, RawBase, RawSelection, Recipient, Selectable, Setup, Tier, Unless,
    check_recipients, money,
};
use common::secret::{Secret, fingerprint};
use common::severity::Severity;
use common::trust::{Trust, is_this_machine};
use reqwest::Url;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The providers that are known, as tables of the same form as `[provider.request]`.
const PRESETS: [(&str, &str); 10] = [
    ("46elks", include_str!("../presets/46elks.toml")),
    ("gotify", include_str!("../presets/gotify.toml")),
    ("kannel", include_str!("../presets/kannel.toml")),
    ("messagebird", include_str!("../presets/messagebird.toml")),
    ("ntfy", include_str!("../presets/ntfy.toml")),
    ("plivo", include_str!("../presets/plivo.toml")),
    ("pushover", include_str!("../presets/pushover.toml")),
    ("sinch", include_str!("../presets/sinch.toml")),
    ("twilio", include_str!("../presets/twilio.toml")),
    ("vonage", include_str!("../presets/vonage.toml")),
];

/// Of a name, an account, a sender.
const MAX_NAME_BYTES: usize = 200;
/// Each is asked in turn within one send, which must end within a minute.
const MAX_PROVIDERS: usize = 6;
/// A text of more is a mail; 8 × 153 characters is also within what every preset takes.
const MAX_SEGMENTS: usize = 8;
/// What is a day old is known by then.
const GIVE_UP_AFTER: Duration = Duration::from_hours(24);
/// From here on somebody is told who does not say otherwise.
const DEFAULT_SEVERITY: Severity = Severity::Crit;

/// What a person bears: the buckets of each number, where nobody configured others.
const TIERS: [Tier; 4] = [
    Tier { messages: 1, window: Duration::from_mins(1) },
    Tier { messages: 5, window: Duration::from_mins(15) },
    Tier { messages: 12, window: Duration::from_hours(1) },
    Tier { messages: 20, window: Duration::from_hours(3) },
];
/// More say the same again.
const MAX_TIERS: usize = 10;
/// How long a text is worth delivering: every provider that takes a time takes one within these,
const LIFETIME: (Duration, Duration) = (Duration::from_mins(5), Duration::from_hours(3));
/// and this unless somebody says otherwise.
const DEFAULT_LIFETIME: Duration = Duration::from_hours(1);
/// Of one short message, and of all in a month, in the currency. Whoever has a weaker one writes its thousands.
const MOST_MONEY: f64 = 1_000_000.0;
/// Between two heartbeats.
const EVERY: (Duration, Duration) = (Duration::from_secs(10), DAY);
/// Any 24 hours.
const DAY: Duration = Duration::from_hours(24);

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    run_dir: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    host: Option<HostName>,
    publishers: Option<Vec<PathBuf>>,
    give_up_after: Option<HumanDuration>,
    folder: Option<PathBuf>,
    pace: Option<Vec<Tier>>,
    lifetime: Option<HumanDuration>,
    budget: Option<RawBudget>,
    heartbeat: Option<RawHeartbeat>,
    #[serde(default)]
    provider: Vec<RawProvider>,
    #[serde(default)]
    recipient: Vec<RawRecipient>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBudget {
    #[serde(default)]
    per_day: Option<f64>,
    #[serde(default)]
    per_month: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeartbeat {
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    url_file: Option<PathBuf>,
    #[serde(default)]
    every: Option<HumanDuration>,
    #[serde(default)]
    method: HeartbeatMethod,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    proxy: Option<String>,
    #[serde(default)]
    plain_http: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum HeartbeatMethod {
    #[default]
    #[serde(rename = "GET")]
    Get,
    #[serde(rename = "POST")]
    Post,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProvider {
    name: String,
    #[serde(default)]
    preset: Option<String>,
    #[serde(default)]
    request: Option<Table>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    account: Option<String>,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    token_file: Option<PathBuf>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    proxy: Option<String>,
    #[serde(default)]
    plain_http: bool,
    #[serde(default)]
    price: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecipient {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    to: String,
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
    #[serde(default)]
    providers: Option<Vec<String>>,
    #[serde(default = "default_max_segments")]
    max_segments: usize,
    #[serde(default)]
    pace: Option<Vec<Tier>>,
}

fn default_max_segments() -> usize {
    3
}

/// Reads and checks the file and its drop-ins. What then holds: every recipient's providers exist, have what their tables
/// need, and want the same kind of `to`, which is valid.
pub fn load(path: &Path, counters: &Counters) -> Result<Setup<Sms>, ConfigError> {
    load_checked(path, |raw| checked(raw, path, counters))
}

fn checked(raw: Raw, path: &Path, counters: &Counters) -> Result<Setup<Sms>, ConfigError> {
    let wrong = |text: String| ConfigError::in_file(path, text);
    let base = RawBase {
        run_dir: raw.run_dir,
        state_dir: raw.state_dir,
        host: raw.host,
        publishers: raw.publishers,
        give_up_after: raw.give_up_after,
    };
    let base = base.checked("csmsd", GIVE_UP_AFTER).map_err(wrong)?;
    check_unique("provider.name", raw.provider.iter().map(|provider| provider.name.as_str())).map_err(wrong)?;
    let read = raw.provider.into_iter().map(|raw| provider(raw, path, counters)).collect::<Result<Vec<_>, _>>()?;
    let (providers, fingerprints): (Vec<Provider>, Vec<String>) = read.into_iter().unzip();
    if raw.recipient.is_empty() && !providers.is_empty() {
        return Err(wrong("there is a provider, but nobody to tell: add a [[recipient]]".to_owned()));
    }
    let mut raw_recipients = raw.recipient;
    if raw_recipients.is_empty() {
        raw_recipients.push(operator());
    }
    let tiers = raw.pace.unwrap_or_else(|| TIERS.to_vec());
    check_tiers(&tiers).map_err(wrong)?;
    let recipients = raw_recipients.into_iter().map(|raw| recipient(raw, &providers, &tiers));
    let mut recipients = recipients.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    check_recipients("recipient.name", &recipients).map_err(wrong)?;
    share_accounts(&mut recipients);
    let caps = raw.budget.map(|budget| caps(&budget, &providers, &recipients));
    let caps = caps.transpose().map_err(wrong)?.unwrap_or_default();
    let lifetime = raw.lifetime.unwrap_or(HumanDuration(DEFAULT_LIFETIME));
    let (shortest, longest) = LIFETIME;
    check_range("lifetime", lifetime, HumanDuration(shortest)..=HumanDuration(longest)).map_err(wrong)?;
    let heart = raw.heartbeat.map(|raw| heart(&raw, path, counters)).transpose().map_err(wrong)?;
    let providers = Arc::new(providers);
    let folder = Folder::new(raw.folder.unwrap_or_else(|| base.state_dir.join("outbox")));
    let fingerprint = fingerprint(&(fingerprints, folder.path(), lifetime.0));
    let medium = |heart| Sms {
        providers: providers.clone(),
        folder: folder.clone(),
        total_timeout: TOTAL_TIMEOUT,
        lifetime: lifetime.0,
        caps: caps.clone(),
        paid: AtomicU64::default(),
        receipts: Receipts::default(),
        heart,
    };
    // A lane each: a provider that does not answer one of them must not keep the next from being woken.
    let lanes = recipients.into_iter().map(|recipient| Lane {
        name: format!("sms {}", recipient.name),
        fingerprint: fingerprint.clone(),
        medium: medium(None),
        recipients: vec![recipient],
    });
    // Nobody is told through it, and it is told who beats.
    let heartbeat = heart.map(|(heart, fingerprint)| Lane {
        name: "heartbeat".to_owned(),
        fingerprint,
        medium: medium(Some(Arc::new(heart))),
        recipients: Vec::new(),
    });
    let lanes = lanes.chain(heartbeat).collect();
    Ok(Setup { base, lanes })
}

fn check_tiers(tiers: &[Tier]) -> Result<(), String> {
    check_range("the number of buckets in pace", tiers.len(), 0..=MAX_TIERS)
}

/// Recipients with one number are one telephone: they share its buckets under the first one's name.
fn share_accounts(recipients: &mut [Recipient<Destination>]) {
    for index in 1..recipients.len() {
        let (before, behind) = recipients.split_at_mut(index);
        let to = &mut behind[0].address;
        let is_one = |one: &&Recipient<Destination>| !to.to.is_empty() && one.address.to == to.to;
        if let Some(first) = before.iter().find(is_one) {
            to.account.clone_from(&first.address.account);
        }
    }
}

/// What all texts together may cost. Each cap has room for a text to everybody, twice: one that tells, and the last one.
fn caps(budget: &RawBudget, providers: &[Provider], recipients: &[Recipient<Destination>]) -> Result<Vec<Cap>, String> {
    if providers.iter().all(|provider| provider.price == 0) {
        return Err("budget is given, but no provider has a price".to_owned());
    }
    let everybody: u64 = recipients.iter().map(|recipient| recipient.address.dearest).sum();
    let least = everybody.saturating_mul(2);
    let mut caps = Vec::new();
    for (key, value, window) in [("per_day", budget.per_day, DAY), ("per_month", budget.per_month, LONGEST_WINDOW)] {
        let Some(value) = value else { continue };
        let cost = millionths(&format!("budget.{key}"), value)?;
        if cost < least {
            return Err(format!(
                "budget.{key} is {}, but must be at least {}: two texts of max_segments to everybody",
                money(cost),
                money(least)
            ));
        }
        caps.push(Cap { cost, window });
    }
    if caps.is_empty() {
        return Err("budget is empty, but must have per_day, per_month or both".to_owned());
    }
    Ok(caps)
}

/// An amount of money, more than nothing.
fn millionths(key: &str, value: f64) -> Result<u64, String> {
    let amount = || format!("{value:.6}").replace('.', "").parse::<u64>().ok().filter(|amount| *amount > 0);
    let amount = if (0.0..=MOST_MONEY).contains(&value) { amount() } else { None };
    amount.ok_or_else(|| format!("{key} is {value}, but must be 0.000001 to {MOST_MONEY}"))
}

/// The heartbeat, and its fingerprint.
fn heart(raw: &RawHeartbeat, path: &Path, counters: &Counters) -> Result<(Heart, String), String> {
    let url = match (&raw.url, &raw.url_file) {
        (Some(url), None) => Secret::new(url).map_err(|error| format!("heartbeat.url {error}"))?,
        (None, Some(file)) => Secret::read("heartbeat.url_file", file, path)?,
        _ => return Err("heartbeat must have either url or url_file".to_owned()),
    };
    let parsed = Url::parse(url.reveal()).map_err(|error| format!("heartbeat.url is no URL: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host().is_none() || parsed.password().is_some() {
        return Err("heartbeat.url must begin with https:// or http://, and be without a password".to_owned());
    }
    if parsed.scheme() == "http" && !raw.plain_http && !is_this_machine(parsed.host_str().unwrap_or_default()) {
        return Err("heartbeat.url must begin with https:// unless plain_http = true".to_owned());
    }
    let every = raw.every.unwrap_or(HumanDuration(Duration::from_mins(1)));
    let (shortest, longest) = EVERY;
    check_range("heartbeat.every", every, HumanDuration(shortest)..=HumanDuration(longest))?;
    let route = route("heartbeat.", &parsed, raw.proxy.as_deref(), raw.ca_file.as_deref(), path)?;
    let method = match raw.method {
        HeartbeatMethod::Get => reqwest::Method::GET,
        HeartbeatMethod::Post => reqwest::Method::POST,
    };
    let fingerprint =
        fingerprint(&(&url, every.0, method.as_str(), &route.trust, route.proxy.as_ref().map(Url::as_str)));
    let client = route.client().map_err(|error| format!("heartbeat: cannot do TLS: {error}"))?;
    Ok((Heart::new(client, method, url, every.0, counters.clone()), fingerprint))
}

/// How to reach `url`. `section` stands before the keys in a complaint.
fn route(
    section: &str,
    url: &Url,
    proxy: Option<&str>,
    ca_file: Option<&Path>,
    config: &Path,
) -> Result<Route, String> {
    let proxy = proxy.map(|proxy| checked_url(&format!("{section}proxy"), proxy)).transpose()?;
    let is_tls = std::iter::once(url).chain(&proxy).any(|url| url.scheme() == "https");
    let trust = if is_tls || ca_file.is_some() {
        Trust::read(&format!("{section}ca_file"), ca_file, config)?
    } else {
        Trust::nobody()
    };
    Ok(Route { trust, proxy })
}

/// Who is told in a fresh install, in the folder.
fn operator() -> RawRecipient {
    RawRecipient {
        name: Some("operator".to_owned()),
        to: String::new(),
        severity: None,
        only: Vec::new(),
        except: Vec::new(),
        kinds: Vec::new(),
        reminders: None,
        quiet: Vec::new(),
        after: None,
        unless: None,
        providers: None,
        max_segments: default_max_segments(),
        pace: None,
    }
}

/// The provider, and its fingerprint.
fn provider(raw: RawProvider, path: &Path, counters: &Counters) -> Result<(Provider, String), ConfigError> {
    let name = raw.name.clone();
    let wrong = |text: String| ConfigError::in_file(path, format!("provider {name:?}: {text}"));
    check_name("provider.name", &name, MAX_NAME_BYTES).map_err(|text| ConfigError::in_file(path, text))?;
    let table = table(&raw).map_err(wrong)?;
    table.check().map_err(|text| wrong(format!("request.{text}")))?;
    let token = raw.token_file.as_deref().map(|file| Secret::read("token_file", file, path));
    let token = token.transpose().map_err(wrong)?;
    let url = raw.url.as_ref().or(table.url.as_ref());
    let given = [
        (Variable::Url, "url", url.is_some()),
        (Variable::Account, "account", raw.account.is_some()),
        (Variable::From, "from", raw.from.is_some()),
        (Variable::Token, "token_file", token.is_some()),
    ];
    for (variable, key, given) in given {
        let needed = table.needs.contains(&variable);
        if needed && !given {
            return Err(wrong(format!("{key} is missing")));
        }
        if given && variable != Variable::Url && !table.uses(variable) {
            return Err(wrong(format!("{key} is given, but nothing in the request asks for it")));
        }
    }
    for (key, value) in [("account", &raw.account), ("from", &raw.from)] {
        if let Some(value) = value {
            check_name(key, value, MAX_NAME_BYTES).map_err(wrong)?;
        }
        // As a part of a path these would lead elsewhere.
        if let Some(value @ ("." | "..")) = value.as_deref() {
            return Err(wrong(format!("{key} is {value:?}, which is no {key}")));
        }
    }
    let url = url.ok_or_else(|| wrong("url is missing".to_owned()))?;
    let url = checked_url("url", url).map_err(wrong)?;
    if url.scheme() == "http" && !raw.plain_http && !is_this_machine(url.host_str().unwrap_or_default()) {
        return Err(wrong(format!("url is {url}, but must begin with https:// unless plain_http = true")));
    }
    let route = route("", &url, raw.proxy.as_deref(), raw.ca_file.as_deref(), path).map_err(wrong)?;
    let price = raw.price.map(|price| millionths("price", price)).transpose().map_err(wrong)?.unwrap_or(0);
    let place = (&name, format!("{table:?}"), url.as_str(), route.proxy.as_ref().map(Url::as_str), &route.trust);
    let fingerprint = fingerprint(&(place, &raw.account, &raw.from, &token, price));
    let mut provider = Provider::new(raw.name, table, url, &route, counters.clone())
        .map_err(|text| wrong(format!("cannot do TLS: {text}")))?;
    (provider.account, provider.from, provider.token, provider.price) = (raw.account, raw.from, token, price);
    Ok((provider, fingerprint))
}

fn table(raw: &RawProvider) -> Result<Table, String> {
    match (&raw.preset, &raw.request) {
        (Some(_), Some(_)) => Err("preset and request exclude each other".to_owned()),
        (None, None) => Err(format!("preset is missing, one of {}; or request, for another provider", preset_names())),
        (None, Some(table)) => Ok(table.clone()),
        (Some(preset), None) => {
            let found = PRESETS.iter().find(|(name, _)| name == preset);
            let (name, text) =
                found.ok_or_else(|| format!("preset is {preset:?}, but must be one of {}", preset_names()))?;
            let origin = format!("presets/{name}.toml");
            Ok(common::config::parse(Path::new(&origin), text).expect("a test loads every preset"))
        }
    }
}

fn preset_names() -> String {
    PRESETS.map(|(name, _)| name).join(", ")
}

fn checked_url(key: &str, text: &str) -> Result<Url, String> {
    // The text is not shown: somebody may have put a password into it.
    let url = Url::parse(text).map_err(|error| format!("{key} is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("{key} must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{key} must be without user, password, query and fragment"));
    }
    Ok(url)
}

fn recipient(raw: RawRecipient, providers: &[Provider], tiers: &[Tier]) -> Result<Recipient<Destination>, String> {
    let name = raw.name.unwrap_or_else(|| masked(&raw.to));
    let wrong = |text: String| format!("recipient {name:?}: {text}");
    check_range("max_segments", raw.max_segments, 1..=MAX_SEGMENTS).map_err(wrong)?;
    let indices = match raw.providers {
        None => (0..providers.len()).collect(),
        Some(names) => indices(&names, providers).map_err(wrong)?,
    };
    if indices.len() > MAX_PROVIDERS {
        return Err(wrong(format!("there are {} providers, but must be at most {MAX_PROVIDERS}", indices.len())));
    }
    // A file wakes nobody.
    let usual = if indices.is_empty() { &[] } else { tiers };
    let tiers = raw.pace.unwrap_or_else(|| usual.to_vec());
    check_tiers(&tiers).map_err(wrong)?;
    let tables = || indices.iter().map(|&index| &providers[index].table);
    if let Some(first) = indices.first() {
        let kind = providers[*first].table.to;
        if let Some(other) = indices.iter().find(|&&index| providers[index].table.to != kind) {
            let (one, two) = (&providers[*first], &providers[*other]);
            let (kind, other) = (kind, two.table.to);
            return Err(wrong(format!("provider {} takes {kind}, but {} takes {other}", one.name, two.name)));
        }
        check_to(kind, &raw.to).map_err(wrong)?;
    }
    let is_sms = indices.is_empty() || tables().any(|table| table.max_chars.is_none());
    let limit = Limit {
        segments: is_sms.then_some(raw.max_segments),
        chars: tables().filter_map(|table| table.max_chars).min(),
    };
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
        selection: selection.checked(DEFAULT_SEVERITY).map_err(wrong)?,
        address: Destination {
            dearest: indices.iter().map(|&index| providers[index].cost(raw.max_segments)).sum(),
            account: name.clone(),
            to: raw.to,
            providers: indices,
            limit,
            tiers,
        },
        name,
    })
}

fn indices(names: &[String], providers: &[Provider]) -> Result<Vec<usize>, String> {
    let mut indices = Vec::new();
    for name in names {
        let index = providers.iter().position(|provider| provider.name == *name);
        let index = index.ok_or_else(|| format!("there is no provider {name:?}"))?;
        if indices.contains(&index) {
            return Err(format!("provider {name:?} stands twice"));
        }
        indices.push(index);
    }
    if indices.is_empty() {
        return Err("providers is empty, but must name at least one".to_owned());
    }
    Ok(indices)
}

fn check_to(kind: Kind, to: &str) -> Result<(), String> {
    match kind {
        Kind::Number => {
            let digits = to.strip_prefix('+').unwrap_or_default();
            let valid = (7..=15).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && !digits.starts_with('0');
            if !valid {
                return Err(format!("to is {to:?}, but must be a number as in \"+4912345678\" (E.164)"));
            }
        }
        Kind::Text => {
            if to.is_empty()
                || to.len() > 200
                || !to.bytes().all(|byte| byte.is_ascii_graphic())
                || to == "."
                || to == ".."
            {
                return Err("to must be 1 to 200 letters, digits or marks without spaces".to_owned());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::notifier::Selection;

    fn parsed(text: &str) -> Result<Setup<Sms>, String> {
        with_token("hunter2\n", text)
    }

    fn with_token(token_text: &str, text: &str) -> Result<Setup<Sms>, String> {
        common::trust::install_ring();
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("csmsd.toml");
        let token = dir.path().join("token");
        std::fs::write(&token, token_text).expect("file");
        let text = text.replace("TOKEN", &token.display().to_string());
        std::fs::write(&path, format!("host = 'm'\n{text}")).expect("file");
        load(&path, &Counters::default())
            .map_err(|error| error.to_string().replace(&format!("{}", dir.path().display()), "DIR"))
    }

    #[track_caller]
    fn complaint(text: &str) -> String {
        parsed(text).err().expect("a mistake")
    }

    #[test]
    fn an_empty_file_is_a_working_configuration() {
        let setup = parsed("").expect("loads");
        assert_eq!(setup.base.publishers, [PathBuf::from("/run/cairn/stream")]);
        let [lane] = &setup.lanes[..] else { panic!("one lane") };
        assert_eq!(lane.medium.folder.path(), Path::new("/var/lib/cairn/csmsd/outbox"));
        assert_eq!(lane.recipients[0].name, "operator");
        assert_eq!(lane.recipients[0].selection, Selection::at_least(Severity::Crit));
    }

    #[test]
    fn every_preset_is_a_table_that_names_what_it_needs() {
        for (name, text) in PRESETS {
            let table: Table = common::config::parse(Path::new(name), text).unwrap_or_else(|error| panic!("{error}"));
            table.check().unwrap_or_else(|error| panic!("{name}: {error}"));
            let needed = [Variable::Account, Variable::From, Variable::Token];
            for variable in table.needs.iter().filter(|variable| needed.contains(variable)) {
                assert!(table.uses(*variable), "{name} needs {variable:?}, but does not use it");
            }
            assert!(table.uses(Variable::To) || table.uses(Variable::ToDigits) || name == "gotify", "{name}");
        }
        let missing = complaint("[[provider]]\nname='main'\npreset='twilio'\naccount='AC1'\nfrom='+1'");
        assert_eq!(missing, "DIR/csmsd.toml: provider \"main\": token_file is missing");
    }

    #[test]
    fn the_example_loads() {
        common::trust::install_ring();
        let example = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/csmsd.example.toml"));
        load(example, &Counters::default()).map(|_| ()).expect("loads");
    }

    #[test]
    fn what_the_example_has_in_comments_loads_too() {
        let example = include_str!("../../deploy/csmsd.example.toml");
        let lines = example.lines().filter(|line| !line.starts_with("# host")).map(|line| {
            let Some(setting) = line.strip_prefix("# ") else { return line.to_owned() };
            let is_key =
                setting.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| matches!(b, b'a'..=b'z' | b'_')));
            if setting.starts_with("url_file") {
                "url = 'https://h.example/ping'".to_owned()
            } else if setting.starts_with("token_file") {
                "token_file = 'TOKEN'".to_owned()
            } else if is_key || setting.starts_with('[') {
                setting.to_owned()
            } else {
                line.to_owned()
            }
        });
        let setup = parsed(&lines.collect::<Vec<_>>().join("\n")).expect("loads");
        let names: Vec<_> = setup.lanes[0].medium.providers.iter().map(|provider| provider.name.as_str()).collect();
        assert_eq!(names, ["main", "backup", "inhouse"]);
    }

    const KANNEL: &str = "[[provider]]\nname='main'\npreset='kannel'\naccount='a'\nfrom='1'\ntoken_file='TOKEN'\n[[recipient]]\nto='+4912345678'\n";

    #[test]
    fn failover_goes_in_the_order_of_the_file_or_of_the_recipient() {
        let push = "[[provider]]\nname='push'\npreset='ntfy'\n[[recipient]]\nname='p'\nto='ops'\nproviders=['push']\n";
        let setup = parsed(&format!("{KANNEL}providers=['main']\n{push}")).expect("loads");
        let destinations: Vec<_> = setup.lanes.iter().map(|lane| &lane.recipients[0].address).collect();
        assert_eq!(setup.lanes[0].recipients[0].name, "+4912…78");
        assert_eq!(destinations[0].limit, Limit { segments: Some(3), chars: None });
        assert_eq!(destinations[1].limit, Limit { segments: None, chars: Some(1000) });
        assert_eq!(destinations[1].providers, [1]);
        let mixed = complaint(&format!("{KANNEL}{push}"));
        assert!(
            mixed.contains("provider \"main\" takes a number, but") || mixed.contains("takes a number, but push"),
            "{mixed}"
        );
    }

    #[test]
    fn another_token_is_another_lane_and_no_token_is_shown() {
        let print = |setup: &Setup<Sms>| setup.lanes[0].fingerprint.clone();
        let one = parsed(KANNEL).expect("loads");
        assert_eq!(print(&one), print(&parsed(KANNEL).expect("loads")));
        assert_ne!(print(&one), print(&with_token("hunter3\n", KANNEL).expect("loads")));
        assert!(with_token("one\ntwo\n", KANNEL).is_err_and(|error| error.contains("but must be one line of text")));
        assert!(!format!("{:?}{}", one.lanes[0].medium, print(&one)).contains("hunter2"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("recipent = 1", "unknown key recipent"),
            ("[[provider]]\nname='a'", "preset is missing, one of 46elks, gotify"),
            ("[[provider]]\nname='a'\npreset='twillio'", "preset is \"twillio\", but must be one of 46elks"),
            ("[[provider]]\nname='a'\npreset='ntfy'\naccount='x'", "account is given, but nothing in the request asks"),
            ("[[provider]]\nname='a'\npreset='gotify'\ntoken_file='TOKEN'", "url is missing"),
            (
                "[[provider]]\nname='a'\npreset='gotify'\ntoken_file='/nonexistent'",
                "token_file: /nonexistent does not exist",
            ),
            ("[[provider]]\nname='a'\npreset='ntfy'\nurl='http://ntfy.example'", "but must begin with https://"),
            ("[[provider]]\nname='a'\npreset='ntfy'\nurl='https://u:pw@h/'", "url must be without user, password"),
            ("[[provider]]\nname='a'\npreset='ntfy'\nurl='ftp://h/'", "url must begin with https://"),
            ("[[provider]]\nname='a'\npreset='ntfy'\ntoken_file='TOKEN'", "nobody to tell: add a [[recipient]]"),
            ("[[provider]]\nname='a'\npreset='ntfy'\n[[provider]]\nname='a'\npreset='ntfy'", "\"a\" stands twice"),
            ("[[recipient]]\nname='x'\n[[recipient]]\nname='x'", "recipient.name \"x\" stands twice"),
            ("[[recipient]]\nname='x'\nproviders=['y']", "there is no provider \"y\""),
            ("[[recipient]]\nname='x'\nmax_segments=9", "max_segments is 9, but must be 1 to 8"),
            ("[[recipient]]\nname='x'\nseverity='LOUD'", "csmsd.toml:4: recipient.severity"),
        ] {
            let complaint = complaint(text);
            assert!(complaint.contains(expected), "{text:?} gives {complaint}");
        }
        for to in ["004912345678", "+49 1234", "+0123456789", "+1234567890123456", "", "+49123a5678"] {
            let complaint = complaint(&KANNEL.replace("+4912345678", to));
            assert!(complaint.contains("must be a number as in"), "{to:?} gives {complaint}");
        }
    }

    #[test]
    fn a_number_is_told_at_a_pace_and_a_file_is_not() {
        let setup = parsed(KANNEL).expect("loads");
        let address = |setup: &Setup<Sms>, lane: usize| setup.lanes[lane].recipients[0].address.clone();
        assert_eq!(address(&setup, 0).tiers, TIERS);
        assert_eq!(address(&parsed("").expect("loads"), 0).tiers, []);
        let more = "[[recipient]]\nname='same'\nto='+4912345678'\npace=['2/1m']\n[[recipient]]\nname='b'\nto='+4912345679'\npace=[]\n";
        let setup = parsed(&format!("pace=['3/10m']\n{KANNEL}{more}")).expect("loads");
        let tiers = |messages, mins| vec![Tier { messages, window: Duration::from_mins(mins) }];
        assert_eq!([0, 1, 2].map(|lane| address(&setup, lane).tiers), [tiers(3, 10), tiers(2, 1), Vec::new()]);
        assert_eq!([0, 1, 2].map(|lane| address(&setup, lane).account), ["+4912…78", "+4912…78", "b"]);
        for (pace, expected) in
            [("['1']", "as in \"5/15m\""), ("['0/1m']", "1 to 1000 messages"), ("['1/60d']", "1s to 31d")]
        {
            let complaint = complaint(&format!("pace={pace}"));
            assert!(complaint.contains(expected) && complaint.contains("csmsd.toml:2"), "{complaint}");
        }
        let many = complaint(&format!("pace=[{}]", "'1/1m',".repeat(11)));
        assert!(many.contains("the number of buckets in pace is 11, but must be 0 to 10"), "{many}");
    }

    #[test]
    fn a_budget_has_room_for_everybody() {
        let priced = KANNEL.replace("from='1'", "from='1'\nprice=0.07");
        let setup = parsed(&format!("{priced}[budget]\nper_day=5\nper_month=50.5")).expect("loads");
        let caps = setup.lanes[0].medium.caps.clone();
        assert_eq!(caps, [Cap { cost: 5_000_000, window: DAY }, Cap { cost: 50_500_000, window: LONGEST_WINDOW }]);
        assert_eq!(setup.lanes[0].recipients[0].address.dearest, 210_000);
        for (text, expected) in [
            (format!("{priced}[budget]\nper_day=0.41"), "budget.per_day is 0.41, but must be at least 0.42: two texts"),
            (format!("{priced}[budget]\n"), "budget is empty, but must have per_day, per_month or both"),
            (format!("{priced}[budget]\nper_month=-1"), "budget.per_month is -1, but must be 0.000001 to 1000000"),
            (format!("{KANNEL}[budget]\nper_day=5"), "budget is given, but no provider has a price"),
            (KANNEL.replace("from='1'", "from='1'\nprice=0"), "price is 0, but must be 0.000001 to"),
        ] {
            let complaint = complaint(&text);
            assert!(complaint.contains(expected), "{text:?} gives {complaint}");
        }
    }

    #[test]
    fn a_heartbeat_needs_one_url_that_nobody_can_read_on_the_way() {
        for (text, expected) in [
            ("every='1m'", "heartbeat must have either url or url_file"),
            ("url='https://h/x'\nurl_file='TOKEN'", "heartbeat must have either url or url_file"),
            ("url='nonsense'", "heartbeat.url is no URL"),
            ("url='ftp://h/x'", "heartbeat.url must begin with https://"),
            ("url='http://h.example/x'", "heartbeat.url must begin with https:// unless plain_http = true"),
            ("url='http://127.0.0.1/x'\nevery='5s'", "heartbeat.every is 5s, but must be 10s to 1d"),
            ("url='http://127.0.0.1/x'\nproxy='http://u:p@h/'", "heartbeat.proxy must be without user"),
            ("url='http://127.0.0.1/x'\nca_file='/nonexistent'", "heartbeat.ca_file: /nonexistent does not exist"),
            ("url='http://127.0.0.1/x'\nmethod='PUT'", "heartbeat.method"),
        ] {
            let complaint = complaint(&format!("[heartbeat]\n{text}"));
            assert!(complaint.contains(expected), "{text:?} gives {complaint}");
            assert!(!complaint.contains("/x"), "{complaint}");
        }
        let complaint = complaint("lifetime='4h'");
        assert!(complaint.contains("lifetime is 4h, but must be 5m to 3h"), "{complaint}");
    }

    #[test]
    fn a_table_of_ones_own_is_checked_too() {
        let own = |request: &str| format!("[[provider]]\nname='a'\nurl='https://h'\n[provider.request]\n{request}");
        for (request, expected) in [
            ("json={t='{txt}'}\naccepted={status=[200]}", "{txt} is no variable"),
            ("json={t='{text'}\naccepted={status=[200]}", "lacks a closing brace"),
            ("json={t='{text}'}", "accepted"),
            ("json={t='{to}'}\naccepted={status=[200]}", "{text} stands nowhere"),
            ("json={t='{text}'}\ntext='{text}'\naccepted={status=[200]}", "exclude each other"),
            ("text='{text}'\npath='x'\naccepted={status=[200]}", "path is \"x\", but must begin with /"),
            ("text='{text}'\naccepted={status=[200],pointer='id'}", "pointer is \"id\", but must begin with /"),
            ("text='{text}'\nheaders={'a b'='c'}\naccepted={status=[200]}", "is no name of a header"),
            ("text='{text}{reference}'\naccepted={status=[200]}", "{reference} is known only in receipt"),
            (
                "text='{text}'\naccepted={status=[200]}\nreceipt={path='/x',delivered={status=[200]},failed={status=[200]}}",
                "receipt: {reference} stands nowhere",
            ),
            (
                "text='{text}'\naccepted={status=[200]}\nreceipt={path='/{reference}',delivered={status=[200]},failed={status=[200]}}",
                "receipt: there is no reference to ask by",
            ),
            (
                "text='{text}'\nreference='/id'\naccepted={status=[200]}\nreceipt={path='/{reference}',delivered={status=[200]},failed={status=[200]}}",
                "receipt: delivered and failed must have a pointer",
            ),
        ] {
            let complaint = complaint(&own(request));
            assert!(complaint.contains(expected), "{request:?} gives {complaint}");
        }
    }
}
