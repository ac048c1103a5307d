//! The orders: one request with an id and an author, one answer, printed.
//!
//! An order whose answer did not come may have been carried out. So it is given again with its id, which cprocessd carries
//! out once, before a person hears of it; and that person gets the id, to give it again with.

use crate::args::Global;
use crate::ask::{Daemon, block_on};
use crate::failure::{Failure, Outcome, notice};
use crate::out::Out;
use crate::questions::{ask, print};
use clap::{ArgGroup, Args as ClapArgs, Subcommand};
use common::address::Pattern;
use common::config::HumanDuration;
use common::message::{AlarmRow, Ordered, Request, SubscriberRow};
use common::query::AskError;
use common::severity::Severity;
use common::socket::SocketError;
use common::time::UnixMillis;
use cprocessd::engine::rule::Rule;
use uuid::Uuid;

/// How often an order is given before a person is bothered.
const ATTEMPTS: usize = 2;

/// Who gives an order, and which one it is.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Giver {
    /// Who gives the order; by default you, also behind sudo
    #[arg(long, value_name = "NAME", value_parser = line_of_text)]
    author: Option<String>,
    /// Give an order again whose answer was lost: with the same id it is carried out once
    #[arg(long, value_name = "ID", value_parser = line_of_text)]
    id: Option<String>,
}

/// When something ends.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct End {
    /// For this long, as 30m, 2h or 1d12h
    #[arg(long = "for", value_name = "DURATION")]
    lasting: Option<HumanDuration>,
    /// Until then: 2026-12-01T08:00 by this machine's clock and zone, or with Z or +01:00 at the end
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "lasting")]
    until: Option<UnixMillis>,
}

impl End {
    fn until(self) -> Option<UnixMillis> {
        let after = |lasting: HumanDuration| {
            let ms = i64::try_from(lasting.0.as_millis()).unwrap_or(i64::MAX);
            UnixMillis(UnixMillis::now().0.saturating_add(ms))
        };
        self.until.or_else(|| self.lasting.map(after))
    }
}

/// What is not to be told, why, and how long.
#[derive(Clone, Debug, ClapArgs)]
#[command(group = ArgGroup::new("end").args(["lasting", "until"]).required(true))]
pub(crate) struct Quiet {
    /// Which addresses, as 'web1', 'web*!port' or '*!machine.disk:/var'; written as for last-value
    pattern: Pattern,
    /// When it ends; it always does.
    #[command(flatten)]
    end: End,
    /// Why, for those who wonder
    #[arg(long, value_name = "TEXT", value_parser = line_of_text)]
    reason: String,
    /// By whom.
    #[command(flatten)]
    giver: Giver,
}

/// What somebody looks after.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Ack {
    /// The incident's id, as events and down-list --json show it, or a pattern: every incident that is open there
    what: String,
    /// When it ends; without it, with the incident.
    #[command(flatten)]
    end: End,
    /// Why, for those who wonder
    #[arg(long, value_name = "TEXT", value_parser = line_of_text)]
    reason: Option<String>,
    /// By whom.
    #[command(flatten)]
    giver: Giver,
}

/// What nobody looks after any more.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Unack {
    /// The incident's id, or a pattern
    what: String,
    /// By whom.
    #[command(flatten)]
    giver: Giver,
}

/// Which silence ends.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Unsilence {
    /// Its id, as silence-list shows it
    silence: String,
    /// By whom.
    #[command(flatten)]
    giver: Giver,
}

/// What to forget.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Forget {
    /// As 'web1!port:old*'; written as for last-value
    pattern: Pattern,
    /// By whom.
    #[command(flatten)]
    giver: Giver,
}

/// Rules that hold without a change of the configuration.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Rules {
    /// Add a rule, or replace the added one of that name. Try it with replay first
    Add {
        /// Names its incidents
        #[arg(value_parser = line_of_text)]
        name: String,
        /// As in cprocessd.toml: '*!machine.disk:/srv.used_percentage > 80 for 5m WARN'
        #[arg(value_parser = rule)]
        rule: String,
        /// By whom.
        #[command(flatten)]
        giver: Giver,
    },
    /// Remove an added rule; what is open under it is closed
    Remove {
        /// Its name, as rule list shows it
        #[arg(value_parser = line_of_text)]
        name: String,
        /// By whom.
        #[command(flatten)]
        giver: Giver,
    },
    /// List all rules and where each comes from
    List,
}

/// Who is told beside those of the notifiers' configuration. Of the media, mail takes them.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Subscribers {
    /// Add somebody, or change what they are to be told. By mail they are first asked whether they want to be
    Add {
        /// Who: a recipient, by a name or address of the medium
        #[arg(value_parser = line_of_text)]
        name: String,
        /// By which medium, as mail, irc or sms
        #[arg(long, value_name = "MEDIUM", value_parser = line_of_text)]
        via: String,
        /// Only what has been at least this bad: DEBUG, INFO, WARN, ERR or CRIT
        #[arg(long, value_name = "MIN", default_value = "WARN")]
        severity: Severity,
        /// Only what matches
        #[arg(default_value = "*")]
        pattern: Pattern,
        /// By whom.
        #[command(flatten)]
        giver: Giver,
    },
    /// Somebody has agreed to be told, otherwise than by the link in the mail that asked
    Confirm(Subscribed),
    /// Tell somebody no longer
    Remove(Subscribed),
    /// List who is told
    List,
}

/// Somebody who is on the list.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Subscribed {
    /// Who, as subscriber list shows it
    #[arg(value_parser = line_of_text)]
    name: String,
    /// By which medium
    #[arg(long, value_name = "MEDIUM", value_parser = line_of_text)]
    via: String,
    /// By whom.
    #[command(flatten)]
    giver: Giver,
}

/// Nothing that matches is told until it ends.
pub(crate) fn quiet(global: &Global, out: Out, order: &str, quiet: Quiet) -> Result<Outcome, Failure> {
    let request = Request {
        pattern: Some(quiet.pattern.as_str().to_owned()),
        until: quiet.end.until(),
        reason: Some(quiet.reason),
        ..Request::order(order)
    };
    give(global, out, request, quiet.giver)
}

/// A silence ends before its time.
pub(crate) fn unsilence(global: &Global, out: Out, wanted: Unsilence) -> Result<Outcome, Failure> {
    give(global, out, Request { silence: Some(wanted.silence), ..Request::order("unsilence") }, wanted.giver)
}

/// Somebody looks after it.
pub(crate) fn ack(global: &Global, out: Out, ack: Ack) -> Result<Outcome, Failure> {
    let request = Request { until: ack.end.until(), reason: ack.reason, ..of_incident("ack", ack.what)? };
    give(global, out, request, ack.giver)
}

/// Nobody does any more.
pub(crate) fn unack(global: &Global, out: Out, unack: Unack) -> Result<Outcome, Failure> {
    give(global, out, of_incident("unack", unack.what)?, unack.giver)
}

/// What matches is forgotten until it is reported again.
pub(crate) fn forget(global: &Global, out: Out, forget: Forget) -> Result<Outcome, Failure> {
    let pattern = Some(forget.pattern.as_str().to_owned());
    give(global, out, Request { pattern, ..Request::order("forget") }, forget.giver)
}

/// cprocessd reads its configuration again.
pub(crate) fn reload(global: &Global, out: Out, giver: Giver) -> Result<Outcome, Failure> {
    give(global, out, Request::order("reload"), giver)
}

/// Rules that were ordered, or all.
pub(crate) fn rules(global: &Global, out: Out, rules: Rules) -> Result<Outcome, Failure> {
    match rules {
        Rules::Add { name, rule, giver } => {
            give(global, out, Request { name: Some(name), rule: Some(rule), ..Request::order("rule-add") }, giver)
        }
        Rules::Remove { name, giver } => {
            give(global, out, Request { name: Some(name), ..Request::order("rule-remove") }, giver)
        }
        Rules::List => ask::<RuleList>(global, out, &Request::query("alarm-list")).map(|_| Outcome::Fine),
    }
}

/// Those who asked to be told.
pub(crate) fn subscribers(global: &Global, out: Out, subscribers: Subscribers) -> Result<Outcome, Failure> {
    let of = |order: &str, name, via| Request { name: Some(name), via: Some(via), ..Request::order(order) };
    match subscribers {
        Subscribers::Add { name, via, severity, pattern, giver } => {
            let request = Request {
                severity: Some(severity),
                pattern: Some(pattern.as_str().to_owned()),
                ..of("subscriber-add", name, via)
            };
            give(global, out, request, giver)
        }
        Subscribers::Confirm(Subscribed { name, via, giver }) => {
            give(global, out, of("subscriber-confirm", name, via), giver)
        }
        Subscribers::Remove(Subscribed { name, via, giver }) => {
            give(global, out, of("subscriber-remove", name, via), giver)
        }
        Subscribers::List => ask::<Vec<SubscriberRow>>(global, out, &Request::query("subscriber-list")),
    }
}

/// The rows of `alarm-list`, shown by where each rule comes from.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct RuleList(pub(crate) Vec<AlarmRow>);

/// An order about an incident by its id, or about all that are open where a pattern matches.
fn of_incident(order: &str, what: String) -> Result<Request, Failure> {
    if Uuid::try_parse(&what).is_ok() {
        return Ok(Request { incident: Some(what), ..Request::order(order) });
    }
    match what.parse::<Pattern>() {
        Ok(_) => Ok(Request { pattern: Some(what), ..Request::order(order) }),
        Err(error) => Err(Failure::Usage(format!("neither the id of an incident nor a pattern: {error}"))),
    }
}

/// Gives the order, and prints what it did.
fn give(global: &Global, out: Out, request: Request, giver: Giver) -> Result<Outcome, Failure> {
    let id = giver.id.unwrap_or_else(|| Uuid::new_v4().to_string());
    let order = Request { id: Some(id.clone()), author: Some(giver.author.unwrap_or_else(author)), ..request };
    let mut daemon = Daemon::new("cprocessd", &global.run.join("control"), global.timeout);
    let answer = block_on(async {
        let mut attempt = 1;
        loop {
            match daemon.try_ask(&order).await {
                Err(AskError::Unreachable(SocketError::Timeout { .. })) if attempt < ATTEMPTS => attempt += 1,
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    if may_be_done(&order, &error) {
                        notice(&format!("perhaps it was carried out; to be sure, give it again with --id {id}"));
                    }
                    return Err(daemon.failure(&error));
                }
            }
        }
    })?;
    let ordered = print::<Ordered>(global, out, &answer)?;
    if !ordered.unreached.is_empty() {
        notice(&format!("could not tell {}: what is still reported there comes back", ordered.unreached.join(", ")));
    }
    Ok(Outcome::Fine)
}

/// It was sent, and what came of it is not known.
fn may_be_done(order: &Request, error: &AskError) -> bool {
    use common::message::ErrorCode;
    match error {
        AskError::Unreachable(error) => matches!(error, SocketError::Timeout { .. } | SocketError::Failed(..)),
        AskError::BadAnswer(_) => true,
        AskError::Refused(error) => error.code == ErrorCode::Failed && order.order.as_deref() != Some("reload"),
    }
}

/// Who gives the order: the person behind sudo, not root.
fn author() -> String {
    ["SUDO_USER", "USER"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| line_of_text(user).is_ok()))
        .unwrap_or_else(|| format!("uid {}", nix::unistd::getuid()))
}

/// As cprocessd takes them.
fn line_of_text(text: &str) -> Result<String, String> {
    match text.len() {
        1..=200 if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err("must be 1 to 200 bytes without control characters".to_owned()),
    }
}

/// Checked here, so that a mistake is one of the command line; sent as written.
fn rule(text: &str) -> Result<String, String> {
    Rule::parse("", text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// A date and a time of day in the zone of this system, or with an offset of its own. Of an hour that comes twice the first
/// is meant, of one that is left out the hour after it.
fn moment(text: &str) -> Result<UnixMillis, String> {
    if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
        return Ok(UnixMillis(timestamp.as_millisecond()));
    }
    let here = text.parse::<jiff::civil::DateTime>().and_then(|time| time.to_zoned(jiff::tz::TimeZone::system()));
    match here {
        Ok(zoned) => Ok(UnixMillis(zoned.timestamp().as_millisecond())),
        Err(_) => Err("must be a time such as 2026-12-01T08:00, 2026-12-01T08:00+01:00 or 2026-12-01".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_local_unless_it_says_otherwise() {
        assert_eq!(moment("2026-12-01T08:00+01:00"), Ok(UnixMillis(1_796_108_400_000)));
        assert_eq!(moment("2026-12-01T07:00:00Z"), Ok(UnixMillis(1_796_108_400_000)));
        let local = moment("2026-12-01T08:00").expect("local time");
        assert_eq!(local.local(), "2026-12-01 08:00:00");
        assert_eq!(moment("2026-12-01 08:00"), Ok(local));
        assert_eq!(moment("2026-12-01").expect("midnight").local(), "2026-12-01 00:00:00");
        for wrong in ["", "soon", "2026-13-01", "08:00", "2026-12-01T25:00"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_acknowledged_is_an_incident_or_a_pattern() {
        let by_id = of_incident("ack", "01234567-89ab-cdef-0123-456789abcdef".into()).expect("an id");
        assert!(by_id.incident.is_some() && by_id.pattern.is_none());
        let by_pattern = of_incident("ack", "web1!port".into()).expect("a pattern");
        assert!(by_pattern.incident.is_none() && by_pattern.pattern.is_some());
        assert!(matches!(of_incident("ack", "not a pattern:x".into()), Err(Failure::Usage(_))));
    }
}
