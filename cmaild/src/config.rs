//! What a person may configure, checked once.

use crate::compose::{Composer, Subscriptions};
use crate::digests::Digests;
use crate::dkim::Signer;
use crate::medium::{Mailer, To, Way};
use crate::page;
use crate::relays::Relays;
use crate::schedule::{Every, Schedule};
use crate::smtp::{Security, Settings, Smtp};
use common::address::{HostName, Pattern};
use common::config::{ConfigError, HumanDuration, check_name, check_range, load_checked};
use common::counters::Counters;
use common::notifier::{
    Folder, Lane, Quiet, RawBase, RawSelection, Recipient, Selectable, Selection, Setup, Unless, check_recipients,
};
use common::secret::{Secret, fingerprint};
use common::severity::Severity;
use common::subscription::TokenKey;
use common::trust::{Trust, is_this_machine, private_key};
use common::zone::{Zone, time_of_day, weekday};
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use lettre::Address;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A mail is still read days later.
const GIVE_UP_AFTER: Duration = Duration::from_hours(72);
/// From here on somebody is told who does not say otherwise.
const DEFAULT_SEVERITY: Severity = Severity::Warn;
/// Of one attempt to hand a mail over, for all relays together: the frame waits for three minutes.
const ALL_RELAYS: Duration = Duration::from_mins(2);
/// Each has its share of that time.
const MAX_RELAYS: usize = 6;
/// When people begin to work.
const DIGEST_AT: Time = Time::constant(7, 0, 0, 0);
/// Each has mails of its own. For more people there are mailing lists.
const MAX_MAILBOXES: usize = 500;

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    run_dir: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    host: Option<HostName>,
    publishers: Option<Vec<PathBuf>>,
    give_up_after: Option<HumanDuration>,
    from: Option<Box1>,
    list_id: Option<String>,
    page: Option<String>,
    subscription_secret_file: Option<PathBuf>,
    html: Option<bool>,
    folder: Option<PathBuf>,
    #[serde(default)]
    smtp: RawRelays,
    dkim: Option<RawDkim>,
    #[serde(default)]
    recipient: Vec<RawRecipient>,
}

/// `[smtp]`, or `[[smtp]]` for each of several.
#[derive(Default)]
struct RawRelays(Vec<RawSmtp>);

impl<'de> Deserialize<'de> for RawRelays {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = RawRelays;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table: [smtp], or [[smtp]] for each of several relays")
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<RawRelays, A::Error> {
                RawSmtp::deserialize(MapAccessDeserializer::new(table)).map(|smtp| RawRelays(vec![smtp]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<RawRelays, A::Error> {
                let mut relays = Vec::new();
                while let Some(smtp) = array.next_element()? {
                    relays.push(smtp);
                }
                Ok(RawRelays(relays))
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSmtp {
    host: String,
    port: Option<u16>,
    #[serde(default)]
    security: RawSecurity,
    #[serde(default)]
    allow_plaintext: bool,
    ca_file: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    #[serde(default = "default_timeout")]
    timeout: HumanDuration,
    hello: Option<HostName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDkim {
    domain: Option<String>,
    selector: String,
    key_file: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawSecurity {
    #[default]
    StartTls,
    Tls,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecipient {
    name: Option<String>,
    to: Boxes,
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
    digest: Option<RawEvery>,
    #[serde(default, deserialize_with = "digest_at")]
    digest_at: Option<Time>,
    #[serde(default, deserialize_with = "digest_day")]
    digest_day: Option<Weekday>,
    #[serde(default, deserialize_with = "digest_zone")]
    digest_zone: Option<Zone>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawEvery {
    Daily,
    Weekly,
}

/// Text is read right here, so that a mistake is reported with its line.
fn digest_at<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let time = time_of_day("it", &String::deserialize(deserializer)?);
    time.map(Some).map_err(serde::de::Error::custom)
}

fn digest_day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Weekday>, D::Error> {
    let day = weekday("it", &String::deserialize(deserializer)?);
    day.map(Some).map_err(serde::de::Error::custom)
}

fn digest_zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Zone>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(serde::de::Error::custom)
}

fn default_timeout() -> HumanDuration {
    HumanDuration(Duration::from_secs(30))
}

/// One mailbox, `ops@example.org` or `Operators <ops@example.org>`. Read here and not later, so that a mistake is reported
/// with its line.
struct Box1(Mailbox);

impl<'de> Deserialize<'de> for Box1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        mailbox(&String::deserialize(deserializer)?).map(Self).map_err(serde::de::Error::custom)
    }
}

/// One mailbox or an array of them.
struct Boxes(Vec<Mailbox>);

impl<'de> Deserialize<'de> for Boxes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Boxes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mail address or an array of them")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Boxes, E> {
                mailbox(text).map(|mailbox| Boxes(vec![mailbox])).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Boxes, A::Error> {
                let mut boxes = Vec::new();
                while let Some(Box1(mailbox)) = array.next_element()? {
                    boxes.push(mailbox);
                }
                Ok(Boxes(boxes))
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    let bad = |why: &str| format!("{text:?} is no mail address: {why}");
    if text.chars().any(char::is_control) {
        return Err(bad("it holds a control character"));
    }
    let mailbox: Mailbox = text.trim().parse().map_err(|_| bad("expected user@host or Name <user@host>"))?;
    // RFC 6531 would need a server that knows it, and every server behind it.
    if !AsRef::<str>::as_ref(&mailbox.email).is_ascii() {
        return Err(bad("it must be ASCII, its domain in the form xn--"));
    }
    Ok(mailbox)
}

/// The mailbox of somebody who is subscribed under this name: a bare address.
pub(crate) fn subscriber(name: &str) -> Result<Mailbox, String> {
    let address: Address = name.parse().map_err(|_| format!("{name:?} is no mail address: expected user@host"))?;
    mailbox(address.as_ref())
}

/// Reads and checks the file and its drop-ins. Connects to nothing.
pub fn load(path: &Path, counters: &Counters) -> Result<Setup<Mailer>, ConfigError> {
    load_checked(path, |raw| checked(raw, path, counters))
}

fn checked(raw: Raw, path: &Path, counters: &Counters) -> Result<Setup<Mailer>, ConfigError> {
    let wrong = |text: String| ConfigError::in_file(path, text);
    let base = RawBase {
        run_dir: raw.run_dir,
        state_dir: raw.state_dir,
        host: raw.host,
        publishers: raw.publishers,
        give_up_after: raw.give_up_after,
    };
    let base = base.checked("cmaild", GIVE_UP_AFTER).map_err(wrong)?;
    let host = &base.host;
    let RawRelays(smtp) = raw.smtp;
    if !smtp.is_empty() && raw.recipient.is_empty() {
        return Err(wrong("there is [smtp], but no [[recipient]] to send to".into()));
    }
    let at_host = |user: &str| {
        let address = Address::new(user, host.as_str());
        address.map_err(|_| wrong(format!("{user}@{host} is no mail address; set from and a [[recipient]]")))
    };
    let from = match raw.from {
        Some(Box1(from)) => from,
        None => Mailbox::new(Some("Cairn".into()), at_host("cairn")?),
    };
    let recipients = if raw.recipient.is_empty() {
        vec![Recipient {
            name: "operator".into(),
            selection: Selection::at_least(DEFAULT_SEVERITY),
            address: To { mailbox: Mailbox::new(None, at_host("root")?), digest: None, is_subscriber: false },
        }]
    } else {
        recipients(raw.recipient).map_err(wrong)?
    };
    let page = raw.page.map(|page| page::checked(&page)).transpose().map_err(wrong)?;
    let subscriptions = match (raw.subscription_secret_file, &page) {
        (None, _) => None,
        (Some(_), None) => {
            return Err(wrong("subscription_secret_file stands without page, where links lead to".into()));
        }
        (Some(file), Some(page)) => {
            let key = TokenKey::read("subscription_secret_file", &file, path).map_err(wrong)?;
            Some(Subscriptions { key, page: page.clone() })
        }
    };
    let list_id = raw.list_id.unwrap_or_else(|| format!("alerts.cairn.{host}"));
    let composer = Composer {
        list_id: checked_list_id(&list_id).map_err(wrong)?,
        from,
        host: host.clone(),
        page,
        subscriptions,
        html: raw.html.unwrap_or(true),
    };
    if raw.dkim.is_some() && smtp.is_empty() {
        return Err(wrong("there is [dkim], but no [smtp] to send what it signs".into()));
    }
    let (signer, signs) = match raw.dkim {
        Some(dkim) => signer(dkim, &composer.from, path).map(|(signer, signs)| (Some(signer), signs)).map_err(wrong)?,
        None => (None, String::new()),
    };
    let (name, way, fingerprint) = if smtp.is_empty() {
        let folder = raw.folder.unwrap_or_else(|| base.state_dir.join("outbox"));
        let fingerprint = folder.display().to_string();
        ("folder", Way::Folder(Folder::new(folder)), fingerprint)
    } else {
        let (relays, fingerprint) = relays(smtp, host, path, counters).map_err(wrong)?;
        ("smtp", Way::Smtp(relays), fingerprint)
    };
    let lane = Lane {
        name: name.into(),
        fingerprint: format!("{name} {fingerprint} {signs} {composer:?}"),
        medium: Mailer { composer, way, publishers: base.publishers.clone(), signer, digests: Digests::default() },
        recipients,
    };
    Ok(Setup { base, lanes: vec![lane] })
}

/// One recipient a mailbox, since each has its own back-off and its own told-state. The first bears the name alone, so that
/// adding another changes nothing for it; the others are `NAME/ADDRESS`.
fn recipients(raw: Vec<RawRecipient>) -> Result<Vec<Recipient<To>>, String> {
    let mut recipients: Vec<Recipient<To>> = Vec::new();
    for raw in raw {
        let digest = digest(&raw)?;
        let RawRecipient {
            name, to: Boxes(to), severity, only, except, kinds, reminders, quiet, after, unless, ..
        } = raw;
        let Some(first) = to.first() else {
            return Err("recipient.to is empty, but must name at least one mail address".into());
        };
        let name = name.unwrap_or_else(|| first.email.to_string());
        let selection = RawSelection { severity, only, except, kinds, reminders, quiet, after, unless };
        let selection = selection.checked(DEFAULT_SEVERITY).map_err(|wrong| format!("recipient.{wrong}"))?;
        for (nth, mailbox) in to.into_iter().enumerate() {
            let name = if nth == 0 { name.clone() } else { format!("{name}/{}", mailbox.email) };
            let address = To { mailbox, digest: digest.clone(), is_subscriber: false };
            recipients.push(Recipient { name, selection: selection.clone(), address });
        }
    }
    check_recipients("recipient.name", &recipients)?;
    if recipients.len() > MAX_MAILBOXES {
        return Err(format!("there are {} recipients, but must be at most {MAX_MAILBOXES}", recipients.len()));
    }
    Ok(recipients)
}

/// When somebody gets a digest, if they do.
fn digest(raw: &RawRecipient) -> Result<Option<Schedule>, String> {
    let Some(every) = raw.digest else {
        let given = [
            ("digest_at", raw.digest_at.is_some()),
            ("digest_day", raw.digest_day.is_some()),
            ("digest_zone", raw.digest_zone.is_some()),
        ];
        return match given.into_iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(format!("recipient.{key} stands without recipient.digest")),
            None => Ok(None),
        };
    };
    let every = match (every, raw.digest_day) {
        (RawEvery::Daily, Some(_)) => {
            return Err("recipient.digest_day has a meaning only with recipient.digest = \"weekly\"".to_owned());
        }
        (RawEvery::Daily, None) => Every::Day,
        (RawEvery::Weekly, _) => Every::Week,
    };
    let zone = raw.digest_zone.as_ref().map_or_else(TimeZone::system, |zone| zone.rules().clone());
    let (day, at) = (raw.digest_day.unwrap_or(Weekday::Monday), raw.digest_at.unwrap_or(DIGEST_AT));
    Ok(Some(Schedule { every, day, at, zone }))
}

/// RFC 2919 §3, without the brackets.
fn checked_list_id(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if bare.len() > 255 || !bare.contains('.') || bare.split('.').any(str::is_empty) || !bare.chars().all(good) {
        return Err(format!("list_id is {text:?}, but must be like alerts.example.org, at most 255 bytes"));
    }
    Ok(bare.to_owned())
}

/// What signs, and a text that changes with it.
fn signer(raw: RawDkim, from: &Mailbox, config: &Path) -> Result<(Signer, String), String> {
    let RawDkim { domain, selector, key_file } = raw;
    let own = from.email.domain();
    let domain = domain.unwrap_or_else(|| own.to_owned());
    // DMARC's relaxed alignment (RFC 7489 §3.1.1), as far as it can be known without a list of public suffixes.
    if own != domain && !own.ends_with(&format!(".{domain}")) {
        return Err(format!("dkim.domain is {domain:?}, but must be the domain of from, {own:?}, or one above it"));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if selector.is_empty() || selector.len() > 63 || !selector.chars().all(good) {
        return Err(format!(
            "dkim.selector is {selector:?}, but must be 1 to 63 letters, digits, \"-\", \"_\" or \".\""
        ));
    }
    let key = private_key("dkim.key_file", &key_file, config)?;
    let fingerprint = fingerprint(&(&domain, &selector, key.secret_der()));
    Ok((
        Signer::new(domain, selector, &key).map_err(|why| format!("dkim.key_file: {} {why}", key_file.display()))?,
        fingerprint,
    ))
}

/// The relays in their order, and a text that changes with them.
fn relays(raw: Vec<RawSmtp>, own: &HostName, config: &Path, counters: &Counters) -> Result<(Relays, String), String> {
    let count = raw.len();
    if count > MAX_RELAYS {
        return Err(format!("there are {count} [[smtp]], but must be at most {MAX_RELAYS}"));
    }
    // Before the final dot and behind it each has its time limit once.
    let share = ALL_RELAYS / u32::try_from(2 * count).expect("a handful");
    let (mut relays, mut fingerprints) = (Vec::new(), String::new());
    let mut seen = Vec::new();
    for smtp in raw {
        let name = smtp.host.clone();
        // Which of several it is.
        let of_it = |why: String| match why.strip_prefix("smtp.") {
            Some(why) if count > 1 => format!("smtp {name:?}: {why}"),
            Some(_) | None => why,
        };
        let user = smtp.user.clone();
        let (settings, fingerprint) = settings(smtp, own, config).map_err(of_it)?;
        let same = (settings.host.clone(), settings.port, user);
        if seen.contains(&same) {
            return Err(format!("smtp.host {name:?} stands twice"));
        }
        seen.push(same);
        let settings = Settings { timeout: settings.timeout.min(share), ..settings };
        relays.push(Smtp::new(settings, counters.clone()));
        fingerprints.push_str(&fingerprint);
    }
    Ok((Relays::new(relays), fingerprints))
}

/// The settings, and a text that changes with them.
fn settings(raw: RawSmtp, own: &HostName, config: &Path) -> Result<(Settings, String), String> {
    let RawSmtp { host, security, allow_plaintext, ca_file, user, password_file, .. } = raw;
    if host.parse::<IpAddr>().is_err() && HostName::try_from(host.as_str()).is_err() {
        return Err(format!("smtp.host is {host:?}, but must be a host name or an address"));
    }
    check_range("smtp.timeout", raw.timeout, Duration::from_millis(100).into()..=Duration::from_mins(1).into())?;
    let timeout = raw.timeout.0;
    let is_near = is_this_machine(&host);
    if security == RawSecurity::None {
        if ca_file.is_some() {
            return Err("smtp.ca_file has no meaning with smtp.security = \"none\"".into());
        }
        if !is_near && user.is_some() {
            return Err(format!(
                "smtp.user would go to {host} with its password in plaintext: smtp.security is \"none\""
            ));
        }
        if !is_near && !allow_plaintext {
            return Err(format!(
                "smtp.security is \"none\", but {host} is not this machine: use \"starttls\" or \"tls\", or set \
                 smtp.allow_plaintext = true for mails that anybody on the way may read"
            ));
        }
    }
    let default_port = match security {
        RawSecurity::StartTls => 587,
        RawSecurity::Tls => 465,
        RawSecurity::None => 25,
    };
    let port = raw.port.unwrap_or(default_port);
    if port == 0 {
        return Err("smtp.port is 0, but must be 1 to 65535".into());
    }
    let password = password(user.as_deref(), password_file.as_deref(), config)?;
    let hello = raw.hello.unwrap_or_else(|| own.clone());
    let trust = match security {
        RawSecurity::StartTls | RawSecurity::Tls => Trust::read("smtp.ca_file", ca_file.as_deref(), config)?,
        RawSecurity::None => Trust::nobody(),
    };
    let fingerprint = fingerprint(&(&host, port, security, &user, timeout, hello.as_str(), &password, &trust));
    let security = match security {
        RawSecurity::StartTls => Security::StartTls(starttls(&host, &trust)?),
        RawSecurity::Tls => Security::Tls(Arc::new(trust.client())),
        RawSecurity::None => Security::Plaintext,
    };
    let credentials = user.zip(password).map(|(user, password)| Credentials::new(user, password.reveal().to_owned()));
    let hello = ClientId::Domain(hello.to_string());
    Ok((Settings { host, port, security, credentials, hello, timeout }, fingerprint))
}

/// For TLS after STARTTLS, which is lettre's own.
fn starttls(host: &str, trust: &Trust) -> Result<TlsParameters, String> {
    let unusable = |error| format!("smtp: TLS cannot be set up: {error}");
    let mut builder = TlsParameters::builder(host.to_owned());
    for certificate in trust.private_certificates() {
        let certificate = Certificate::from_der(certificate.to_owned()).map_err(unusable)?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
    }
    builder.build().map_err(unusable)
}

fn password(user: Option<&str>, file: Option<&Path>, config: &Path) -> Result<Option<Secret>, String> {
    match (user, file) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err("smtp.password_file stands without smtp.user".into()),
        (Some(_), None) => Err("smtp.user stands without smtp.password_file".into()),
        (Some(user), Some(file)) => {
            // Longer ones need no server accept (RFC 4616).
            check_name("smtp.user", user, 255)?;
            Secret::read("smtp.password_file", file, config).map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::notifier::Medium;
    use std::fs;

    #[track_caller]
    fn load_in(dir: &Path, text: &str) -> Result<Setup<Mailer>, String> {
        let path = dir.join("cmaild.toml");
        fs::write(&path, format!("host = 'mon1'\n{text}")).expect("file");
        load(&path, &Counters::default())
            .map_err(|error| error.to_string().replace(&format!("{}", dir.display()), "DIR"))
    }

    #[track_caller]
    fn loaded(text: &str) -> Setup<Mailer> {
        let dir = tempfile::tempdir().expect("folder");
        load_in(dir.path(), text).expect("loads")
    }

    #[track_caller]
    fn complaint(text: &str) -> String {
        let dir = tempfile::tempdir().expect("folder");
        load_in(dir.path(), text).err().expect("a mistake")
    }

    fn addresses(lane: &Lane<Mailer>) -> Vec<String> {
        lane.recipients.iter().map(|recipient| recipient.address.mailbox.to_string()).collect()
    }

    #[test]
    fn an_empty_file_puts_mails_to_root_into_a_folder() {
        let setup = loaded("");
        assert_eq!(setup.base.publishers, [PathBuf::from("/run/cairn/stream")]);
        assert_eq!(setup.base.give_up_after, Duration::from_hours(72));
        let [lane] = &setup.lanes[..] else { panic!("one lane") };
        assert_eq!((lane.name.as_str(), lane.recipients[0].name.as_str()), ("folder", "operator"));
        assert_eq!(lane.recipients[0].selection, Selection::at_least(Severity::Warn));
        assert_eq!(addresses(lane), ["root@mon1"]);
        assert_eq!(lane.medium.composer.from.to_string(), "Cairn <cairn@mon1>");
        let Way::Folder(folder) = &lane.medium.way else { panic!("a folder") };
        assert_eq!(folder.path(), Path::new("/var/lib/cairn/cmaild/outbox"));
    }

    #[test]
    fn the_example_loads() {
        load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/cmaild.example.toml")), &Counters::default())
            .expect("loads");
    }

    #[test]
    fn recipients_have_their_own_names_mailboxes_and_selections() {
        let setup = loaded(
            "[smtp]\nhost = 'mail.example.org'\n[[recipient]]\nto = 'ops@example.org'\n\
             [[recipient]]\nname = 'boss'\nto = ['Ann <ann@example.org>', 'bob@example.org']\n\
             severity = 'CRIT'\nonly = ['web*']\n",
        );
        let lane = &setup.lanes[0];
        let names: Vec<_> = lane.recipients.iter().map(|recipient| recipient.name.as_str()).collect();
        assert_eq!(names, ["ops@example.org", "boss", "boss/bob@example.org"]);
        assert_eq!(addresses(lane), ["ops@example.org", "Ann <ann@example.org>", "bob@example.org"]);
        for recipient in &lane.recipients[1..] {
            assert_eq!((recipient.selection.minimum, recipient.selection.only.len()), (Severity::Crit, 1));
        }
    }

    #[test]
    fn one_relay_is_a_table_and_several_are_an_array() {
        let recipient = "[[recipient]]\nto = 'ops@example.org'\n";
        let of = |text: &str| loaded(&format!("{text}{recipient}")).lanes.remove(0).fingerprint;
        assert_eq!(of("[smtp]\nhost = 'a'\n"), of("[[smtp]]\nhost = 'a'\n"));
        let both = of("[[smtp]]\nhost = 'a'\n[[smtp]]\nhost = 'b'\n");
        assert_ne!(both, of("[[smtp]]\nhost = 'b'\n[[smtp]]\nhost = 'a'\n"));
        // The same server for two accounts.
        assert_ne!(of("[[smtp]]\nhost = 'a'\nport = 465\n[[smtp]]\nhost = 'a'\n"), both);
    }

    #[test]
    fn a_digest_has_a_time_of_day_somewhere() {
        let of =
            |keys: &str| loaded(&format!("[[recipient]]\nto = 'a@b.c'\n{keys}")).lanes.remove(0).recipients.remove(0);
        assert_eq!(of("").address.digest, None);
        let daily = of("digest = 'daily'").address.digest.expect("a digest");
        assert_eq!((daily.every, daily.at.to_string().as_str()), (Every::Day, "07:00:00"));
        let weekly = "digest = 'weekly'\ndigest_day = 'fri'\ndigest_at = '16:30'\ndigest_zone = 'Asia/Tokyo'";
        let weekly = of(weekly).address.digest.expect("a digest");
        assert_eq!((weekly.every, weekly.day), (Every::Week, Weekday::Friday));
        assert_eq!((weekly.at.hour(), weekly.at.minute(), weekly.zone.iana_name()), (16, 30, Some("Asia/Tokyo")));
    }

    #[test]
    fn subscribers_have_bare_addresses_and_need_a_secret() {
        assert!(loaded("").lanes[0].medium.subscriber("ann@example.org").is_err_and(|why| why.contains("is not set")));
        let dir = tempfile::tempdir().expect("folder");
        let with = |secret: &str| {
            fs::write(dir.path().join("secret"), secret).expect("file");
            let text = "page = 'https://x'\nsubscription_secret_file = 'secret'";
            load_in(dir.path(), text).expect("loads").lanes.remove(0)
        };
        let lane = with("0123456789abcdef0123456789abcdef\n");
        let ann = lane.medium.subscriber("ann@example.org").expect("an address");
        assert!(ann.is_subscriber && ann.mailbox.to_string() == "ann@example.org");
        for bad in
            ["ann", "Ann <ann@example.org>", "ann@example.org, bob@example.org", "ann@example.org\r\nBcc: x", "ä@b.c"]
        {
            assert!(lane.medium.subscriber(bad).is_err_and(|why| why.contains("is no mail address")), "{bad}");
        }
        let other = with("another0123456789abcdef0123456789");
        assert_ne!(lane.fingerprint, other.fingerprint);
        assert!(!lane.fingerprint.contains("0123456789abcdef"), "{}", lane.fingerprint);
    }

    #[test]
    fn the_fingerprint_changes_with_the_password_and_does_not_show_it() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("password");
        let text = format!(
            "[smtp]\nhost = 'mail.example.org'\nuser = 'mon'\npassword_file = '{}'\n[[recipient]]\nto = 'ops@example.org'",
            file.display()
        );
        let fingerprint = |password: &str| {
            fs::write(&file, password).expect("file");
            load_in(dir.path(), &text).expect("loads").lanes[0].fingerprint.clone()
        };
        let first = fingerprint("s3cret\n");
        assert_eq!(first, fingerprint("s3cret"));
        assert_ne!(first, fingerprint("s3cret2"));
        assert!(!first.contains("s3cret"), "{first}");
    }

    #[test]
    fn mistakes_are_named() {
        let smtp = |lines: &str| complaint(&format!("[smtp]\n{lines}\n[[recipient]]\nto = 'ops@example.org'\n"));
        let recipient = |lines: &str| complaint(&format!("[[recipient]]\nto = 'a@b.c'\n{lines}"));
        let relays = |lines: &str| {
            let recipient = "[[recipient]]\nto = 'ops@example.org'\n";
            complaint(&format!("[[smtp]]\nhost = 'first'\n[[smtp]]\n{lines}\n{recipient}"))
        };
        for (said, expected) in [
            (complaint("from = 'me'"), "DIR/cmaild.toml:2: from: \"me\" is no mail address"),
            (complaint("[[recipient]]\nto = 'ops at example'"), "DIR/cmaild.toml:3: recipient.to"),
            (complaint("[[recipient]]\nto = ['a@b.c', 'nobody']"), "\"nobody\" is no mail address: expected user@host"),
            (complaint("[[recipient]]\nto = \"x\\r\\nBcc: <a@b.c>\""), "it holds a control character"),
            (complaint("[[recipient]]\nto = 'jürgen@example.org'"), "it must be ASCII"),
            (complaint("[[recipient]]\nto = []"), "recipient.to is empty"),
            (complaint("[[recipient]]\nto = 'a@b.c'\nseverity = 'BAD'"), "recipient.severity is \"BAD\""),
            (complaint("[[recipient]]\nto = 'a@b.c'\nseverty = 'ERR'"), "did you mean severity?"),
            (complaint("[[recipient]]\nto = 'a@b.c'\n[[recipient]]\nto = 'a@b.c'"), "\"a@b.c\" stands twice"),
            (complaint("[[recipient]]\nto = ['a@b.c', 'd@b.c', 'd@b.c']"), "\"a@b.c/d@b.c\" stands twice"),
            (complaint("[[recipient]]\nname = ''\nto = 'a@b.c'"), "must be 1 to 200 bytes"),
            (
                recipient("digest = 'hourly'"),
                "DIR/cmaild.toml:4: recipient.digest is \"hourly\", but must be one of daily, weekly",
            ),
            (
                recipient("digest = 'daily'\ndigest_at = '7 am'"),
                "DIR/cmaild.toml:5: recipient.digest_at: it is \"7 am\", but must be",
            ),
            (
                recipient("digest = 'daily'\ndigest_zone = 'Mars/Base'"),
                "zone is \"Mars/Base\", but must be a time zone",
            ),
            (
                recipient("digest = 'daily'\ndigest_day = 'sun'"),
                "has a meaning only with recipient.digest = \"weekly\"",
            ),
            (recipient("digest_at = '07:00'"), "recipient.digest_at stands without recipient.digest"),
            (complaint("list_id = 'x y'"), "list_id is \"x y\", but must be like"),
            (complaint("give_up_after = '1s'"), "give_up_after is 1s, but must be 1m to 30d"),
            (
                complaint("page = 'example.org'"),
                "DIR/cmaild.toml:2: page is \"example.org\", but must begin with https://",
            ),
            (complaint("subscription_secret_file = '/x'"), "stands without page, where links lead to"),
            (
                complaint("page = 'https://x'\nsubscription_secret_file = '/nowhere'"),
                "subscription_secret_file: /nowhere does not exist",
            ),
            (
                complaint("page = 'https://x'\nsubscription_secret_file = 'cmaild.toml'"),
                "subscription_secret_file: DIR/cmaild.toml holds a control character",
            ),
            (complaint("publishers = []"), "publishers is empty"),
            (complaint("[smtp]\nhost = 'x'"), "no [[recipient]]"),
            (smtp("host = 'a b'"), "smtp.host is \"a b\", but must be a host name or an address"),
            (smtp("host = 'x'\nport = 0"), "smtp.port is 0"),
            (smtp("host = 'x'\nport = 99999"), "smtp.port"),
            (smtp("host = 'x'\nsecurity = 'ssl'"), "smtp.security"),
            (smtp("host = 'x'\nsecurity = 'none'"), "x is not this machine"),
            (smtp("host = 'x'\nsecurity = 'none'\nallow_plaintext = true\nuser = 'mon'"), "its password in plaintext"),
            (smtp("host = '::1'\nsecurity = 'none'\nca_file = '/x'"), "has no meaning"),
            (smtp("host = 'x'\nuser = 'mon'"), "smtp.user stands without smtp.password_file"),
            (smtp("host = 'x'\npassword_file = '/x'"), "without smtp.user"),
            (
                smtp("host = 'x'\nuser = 'mon'\npassword_file = '/nowhere'"),
                "smtp.password_file: /nowhere does not exist",
            ),
            (smtp("host = 'x'\nuser = 'mon'\npassword_file = '/dev/null'"), "must be a file"),
            (smtp("host = 'x'\nca_file = 'cmaild.toml'"), "smtp.ca_file: DIR/cmaild.toml holds no certificate"),
            (smtp("host = 'x'\ntimeout = '2m'"), "smtp.timeout is 2m, but must be 100ms to 1m"),
            (smtp("host = 'x'\npassword = 's3cret'"), "smtp.password"),
            (complaint("smtp = 'x'"), "smtp is \"x\", but must be a table: [smtp], or [[smtp]] for each of several"),
            (complaint("[[smtp]]\nport = 5"), "DIR/cmaild.toml:2: missing key smtp.host"),
            (relays("host = 'x'\nprot = 5"), "DIR/cmaild.toml:6: unknown key smtp.prot, did you mean port?"),
            (relays("host = 'x'\nport = 0"), "DIR/cmaild.toml:6: smtp \"x\": port is 0"),
            (relays("host = 'x'\nuser = 'mon'"), "smtp \"x\": user stands without smtp.password_file"),
            (relays("host = 'first'\nport = 587"), "DIR/cmaild.toml:5: smtp.host \"first\" stands twice"),
            (
                relays(&(1..=6).map(|n| format!("host = 'x{n}'\n")).collect::<Vec<_>>().join("[[smtp]]\n")),
                "there are 7 [[smtp]], but must be at most 6",
            ),
        ] {
            assert!(said.contains(expected), "{said}\ndoes not say\n{expected}");
            assert!(!said.contains("s3cret"), "{said}");
        }
    }
}
