//! The command line.

use crate::notify::{Ledger, Test};
use crate::orders::{Ack, Forget, Giver, Quiet, Rules, Subscribers, Unack, Unsilence};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use common::address::{HostName, Pattern};
use common::config::HumanDuration;
use common::severity::Severity;
use cprocessd::engine::rule::Rule;
use std::path::PathBuf;
use std::time::Duration;

/// Ask the daemons of Cairn how the hosts are, and give them orders
#[derive(Debug, Parser)]
#[command(name = "cctl", version, arg_required_else_help = true, after_help = EXIT_STATUS, max_term_width = 120)]
pub(crate) struct Args {
    /// What every subcommand takes.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A person has gone home by then.
const MAX_TIMEOUT: Duration = Duration::from_hours(1);

const EXIT_STATUS: &str = "\
Exit status:
   0  fine
   1  the daemon refused, nothing matched, or anything else
   2  something is down or an alarm is open (server-list, server-status, service-list, down-list, alarm-list,
      explain)
  64  the command line is wrong
  69  the daemon cannot be reached
  78  demo: a daemon's configuration is wrong
 141  whoever read our output is gone";

/// Options of all subcommands.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Global {
    /// Folder of the daemons' sockets
    #[arg(
        long,
        value_name = "DIR",
        env = "CAIRN_RUN",
        hide_env_values = true,
        default_value = "/run/cairn",
        global = true
    )]
    pub(crate) run: PathBuf,
    /// Print the answer as one JSON document (watch: one event a line)
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto, global = true)]
    pub(crate) color: When,
    /// How long an answer may take, as 500ms, 5s or 2m
    #[arg(long, value_name = "DURATION", value_parser = timeout, default_value = "5s", global = true)]
    pub(crate) timeout: Duration,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Also into a pipe.
    Always,
    /// Not at all.
    Never,
}

/// The subcommands; the questions carry their own names.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the hosts: up or down, since when, and how many incidents are open
    ServerList,
    /// Show one host: its checks, open incidents and last values
    ServerStatus {
        /// The host, as server-list shows it
        host: HostName,
    },
    /// List the checks of all hosts, or of one
    ServiceList {
        /// Only of this host
        host: Option<HostName>,
    },
    /// List the open incidents
    DownList,
    /// Show the last values of the addresses that match
    LastValue {
        /// HOST!SERVICE.RESOURCE:UNIT.ATTRIBUTE, as '*!machine.disk:/var.free' or 'web*!machine'
        ///
        /// What is left out at the end matches anything. `*`, `?` and `[ab]` work as in a shell: put it in quotes
        pattern: Pattern,
    },
    /// List the alarm rules, and what is over their limits
    AlarmList,
    /// Show events of the journal; without --after the last ones
    Events {
        /// Those after this number
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
        /// At most this many; without --after 20 by default
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Show the whole state: hosts, checks, open incidents
    Snapshot,
    /// Show how a daemon itself is: memory, journal, what it refused or lost
    Health {
        /// As cprocessd or cmaild
        #[arg(value_parser = daemon_name)]
        daemon: String,
    },
    /// Explain one address: its state and why, which rules look at it, what suppresses it, what it depends on. Or one
    /// incident: who was told of it and who was not, and why
    Explain {
        /// As any table shows it: 'web1!port:www (443)', 'web1!machine.disk:/.free', or a host; or an incident's id, as
        /// events --json and down-list --json show it
        address: String,
    },
    /// List what is not told for now, until when, and by whose order
    SilenceList,
    /// List the maintenance windows of the configuration, and when each is next
    MaintenanceList,
    /// Order: do not tell of what matches for a while. It is judged and shown all the same
    Silence(Quiet),
    /// Order: end a silence, or a maintenance that was ordered
    Unsilence(Unsilence),
    /// Order: maintenance of what matches, from now on
    Maintenance(Quiet),
    /// Order: you look after an incident, so it is not told again
    Ack(Ack),
    /// Order: take back an acknowledgement
    Unack(Unack),
    /// Order: add or remove an alarm rule while cprocessd runs, or list them all
    #[command(subcommand)]
    Rule(Rules),
    /// Order: add or remove somebody who is told, or list them
    #[command(subcommand)]
    Subscriber(Subscribers),
    /// Order: forget the addresses that match, until they are reported again
    Forget(Forget),
    /// Order: read the configuration again; a bad one changes nothing, and what is wrong is said here
    Reload(Giver),
    /// Show who was told what, when, and with what result, by mail, IRC, SMS and push
    Ledger(Ledger),
    /// Send a marked test to every recipient, or one, by the way that alerts go
    TestNotify(Test),
    /// Follow the events as they happen
    Watch(Watch),
    /// Copy all state of all daemons into a folder while they run
    Backup {
        /// Made if it is not there, else empty. Copied back below /var/lib/cairn while the daemons are stopped, it is a
        /// restore
        dir: PathBuf,
    },
    /// Record the feed into a file, for replay
    Record(Recording),
    /// Try rules on a recorded feed: what they would have raised, when, and for how long
    Replay(Trial),
    /// Run all daemons on this machine, all files in one folder
    Demo {
        /// The folder; its configuration is written when absent and never overwritten
        dir: PathBuf,
    },
    /// Print the completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them into a folder
    Man {
        /// Write cctl.1 and a page for each subcommand here
        dir: Option<PathBuf>,
    },
}

/// What to follow, and where to.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Watch {
    /// Begin with this event; 0 for the whole journal. Without it, with the next one
    #[arg(long, value_name = "SEQ")]
    pub(crate) from: Option<u64>,
    /// Only events whose incident has been at least this bad: DEBUG, INFO, WARN, ERR or CRIT
    #[arg(long, value_name = "MIN")]
    pub(crate) severity: Option<Severity>,
    /// Append the events as JSON lines to FILE instead of printing them. If it holds events already, go on after its
    /// last one, so that stopped and started again it has every event once. Waits for ever for cprocessd
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
}

/// What to record, and how much of it.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Recording {
    /// The file to make. One that is there already is left alone
    pub(crate) file: PathBuf,
    /// Stop after this long, as 10m or 2d; without it, at Ctrl-C
    #[arg(long = "for", value_name = "DURATION")]
    pub(crate) lasting: Option<HumanDuration>,
    /// Stop when the file is this large, as 500m or 10g
    #[arg(long = "max-size", value_name = "BYTES", value_parser = size, default_value = "4g")]
    pub(crate) max_bytes: u64,
    /// The feed's socket, if it is not the one in the folder of --run
    #[arg(long, value_name = "SOCKET")]
    pub(crate) feed: Option<PathBuf>,
}

/// What to try, and on what.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Trial {
    /// A recording, made by cctl record
    pub(crate) file: PathBuf,
    /// Judge by this configuration of cprocessd; without it, by the rules that are shipped
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Try this rule instead of all others, as '*!machine.cpu:all.load > 90 for 5m WARN'; may be given several times
    #[arg(long = "rule", value_name = "RULE", value_parser = rule)]
    pub(crate) rules: Vec<Rule>,
}

/// Read here, so that a mistake is one of the command line.
fn rule(text: &str) -> Result<Rule, String> {
    Rule::parse("", text).map_err(|error| error.to_string())
}

/// At least a mebibyte, so that the state of a small feed fits.
fn size(text: &str) -> Result<u64, String> {
    const MEBIBYTE: f64 = 1_048_576.0;
    match common::number::parse_bytes_number(text) {
        Ok(bytes) if (MEBIBYTE..=MEBIBYTE * MEBIBYTE).contains(&bytes) =>
        {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in these bounds")]
            Ok(bytes as u64)
        }
        Ok(_) => Err("must be 1m to 1048576m".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Becomes the name of a socket: no way out of the folder.
fn daemon_name(text: &str) -> Result<String, String> {
    match text.len() {
        1..=64 if text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') => Ok(text.to_owned()),
        _ => Err("a daemon's name is 1 to 64 letters, digits, hyphens and underscores".to_owned()),
    }
}

/// Longer than 0, or nothing could ever be answered.
fn timeout(text: &str) -> Result<Duration, String> {
    match text.parse::<HumanDuration>() {
        Ok(HumanDuration(Duration::ZERO)) => Err("must be longer than 0".to_owned()),
        Ok(HumanDuration(timeout)) if timeout > MAX_TIMEOUT => Err("must be at most 1h".to_owned()),
        Ok(HumanDuration(timeout)) => Ok(timeout),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_timeout_has_a_unit_and_a_sane_size() {
        assert_eq!(timeout("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(timeout("2m"), Ok(Duration::from_mins(2)));
        for wrong in ["", "5", "0s", "-1s", "2h"] {
            assert!(timeout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_daemons_name_cannot_leave_the_folder() {
        assert!(daemon_name("cprocessd").is_ok());
        assert!(daemon_name("../../tmp/x").is_err());
        assert!(daemon_name("").is_err());
    }
}
