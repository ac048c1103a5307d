//! What a network was configured with, once it was checked.

use common::secret::Secret;
use common::trust::{Identity, Trust};
use std::time::Duration;

/// The longest host that servers show of a client.
const MAX_HOST_BYTES: usize = 63;
/// Services may give a nick of their own, `Guest12345` and the like.
const MAX_FORCED_NICK_BYTES: usize = 16;
/// The time that lines of one message may need, when the bucket is empty at its beginning. With the waiting before and
/// after it, a message then ends within a minute.
const LINES_WITHIN: Duration = Duration::from_secs(24);
/// More lines than people read at once.
const MAX_LINES: usize = 12;
/// In a storm, summaries follow each other in steps of this length. One that is paid for within it, with the PING after it,
/// leaves nothing owed: the next goes at once, and the worst that came meanwhile is said within this time.
const STORM_STEP: Duration = Duration::from_secs(8);
/// A summary has a heading, names and a count of the others, but without names where a line takes most of that step,
const LEAST_SUMMARY: usize = 3;
const LEAST_LINES: usize = 2;
/// and this is long enough wherever lines are cheap.
const LONGEST_SUMMARY: usize = 8;

/// A channel, as a place where messages go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Channel {
    pub(crate) name: String,
    pub(crate) key: Option<Secret>,
    pub(crate) colour: bool,
    pub(crate) notice: bool,
    /// Whoever is there may ask.
    pub(crate) commands: bool,
}

impl Channel {
    pub(crate) fn verb(&self) -> &'static str {
        if self.notice { "NOTICE" } else { "PRIVMSG" }
    }
}

/// One network. Every text in it is one word or one line without control characters; channels differ also by the
/// network's idea of upper and lower case.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) server: String,
    pub(crate) port: u16,
    /// Who may vouch for the server; none for plaintext, which was asked for.
    pub(crate) trust: Option<Trust>,
    pub(crate) nick: String,
    pub(crate) user: String,
    pub(crate) realname: String,
    pub(crate) password: Option<Secret>,
    pub(crate) sasl: Option<Sasl>,
    pub(crate) nickserv: Option<Secret>,
    /// One line costs this.
    pub(crate) line_interval: Duration,
    /// At least 1.
    pub(crate) burst: u32,
    /// After this silence the server is asked whether it is there.
    pub(crate) ping_after: Duration,
    /// And after this without an answer it is not.
    pub(crate) ping_timeout: Duration,
    /// At least one.
    pub(crate) channels: Vec<Channel>,
    /// The accounts of this network that may give orders.
    pub(crate) operators: Vec<String>,
}

/// An account to log in to.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Sasl {
    pub(crate) mechanism: Mechanism,
    /// Rather not be there than be there without it.
    pub(crate) required: bool,
}

/// How to log in.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Mechanism {
    /// SASL PLAIN (RFC 4616).
    Plain { user: String, password: Secret },
    /// SASL EXTERNAL (RFC 4422 appendix A): the server knows our certificate. There is TLS.
    External(Identity),
}

impl Options {
    /// How many bytes of text fit into one line to this channel, when the server has put our prefix before it:
    /// `:nick!~user@host PRIVMSG #channel :text` and the line break are at most 512 bytes.
    pub(crate) fn text_bytes(&self, channel: &Channel) -> usize {
        self.text_bytes_behind(channel.verb(), &channel.name)
    }

    /// As [`text_bytes`](Self::text_bytes), by any command and to anyone.
    pub(crate) fn text_bytes_behind(&self, verb: &str, target: &str) -> usize {
        let nick = self.nick.len().max(MAX_FORCED_NICK_BYTES);
        let prefix = ":!~@ ".len() + nick + self.user.len() + MAX_HOST_BYTES;
        let command = verb.len() + 1 + target.len() + " :".len();
        crate::lines::MAX_LINE_BYTES - "\r\n".len() - prefix - command
    }

    /// Whether anybody may ask anything.
    pub(crate) fn takes_commands(&self) -> bool {
        self.channels.iter().any(|channel| channel.commands)
    }

    /// The operator whose account this is, as the configuration has it. Services take upper and lower case for the same.
    pub(crate) fn operator(&self, account: &str) -> Option<&str> {
        self.operators.iter().map(String::as_str).find(|operator| operator.eq_ignore_ascii_case(account))
    }

    /// How many lines one message may have.
    pub(crate) fn max_lines(&self) -> usize {
        let fit = LINES_WITHIN.as_millis().checked_div(self.line_interval.as_millis());
        fit.and_then(|lines| usize::try_from(lines).ok()).unwrap_or(MAX_LINES).clamp(1, MAX_LINES)
    }

    /// How many lines a summary may have that another may follow.
    pub(crate) fn summary_lines(&self) -> usize {
        let paid = STORM_STEP.as_millis().checked_div(self.line_interval.as_millis());
        let lines = paid.and_then(|lines| usize::try_from(lines).ok()).unwrap_or(MAX_LINES).saturating_sub(1);
        lines.clamp(LEAST_SUMMARY, LONGEST_SUMMARY).min(self.max_lines()).max(LEAST_LINES)
    }

    /// How many it may have if that leaves nothing to another: as a rule nothing is owed before it.
    pub(crate) fn last_summary_lines(&self) -> usize {
        (self.summary_lines() * 2).min(self.max_lines()).max(LEAST_LINES)
    }
}
