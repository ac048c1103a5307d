//! What local programs PUSH to the `plugins` socket, in the form of the 2013 `stats-*` plugins.

use crate::address::{Name, Unit};
use crate::message::Values;
use crate::severity::Severity;
use serde::Deserialize;

/// One report of a local program.
///
/// - **Path:** any local program (PUSH) to ccollectd (PULL), one frame.
/// - **When:** whenever the program has something to say. Old programs send a state only when it changes.
/// - **If lost:** it is not, while ccollectd runs and the program waits for its socket to drain.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PluginMessage {
    /// The program's name for itself.
    pub service: Name,
    /// The thing it is about; a plugin with only one thing may leave it out.
    #[serde(default = "no_unit")]
    pub unit: Unit,
    /// When, in milliseconds since the Unix epoch. Anything else, or more than a day off, is replaced by the time of
    /// reception; hence any type is taken.
    #[serde(default)]
    pub time: Option<rmpv::Value>,
    /// A unit not heard of for this long is down.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
    /// What it says.
    #[serde(flatten)]
    pub report: PluginReport,
}

fn no_unit() -> Unit {
    Unit::default()
}

/// The part of a plugin's message that `msg_type` decides about.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "msg_type", rename_all = "lowercase")]
pub enum PluginReport {
    /// Numbers.
    Value {
        /// The kind of thing.
        resource_type: Name,
        /// The numbers by attribute.
        values: Values,
    },
    /// The unit works.
    Up {
        /// What was seen, for people.
        #[serde(default)]
        text: String,
    },
    /// The unit does not work.
    Down {
        /// What was seen, for people.
        #[serde(default)]
        text: String,
    },
    /// The unit needed a second attempt.
    Blip {
        /// What was seen, for people.
        #[serde(default)]
        text: String,
    },
    /// Something happened once.
    Event {
        /// As bad as the program thinks it is.
        severity: Severity,
        /// What happened, for people.
        #[serde(default)]
        text: String,
        /// Any value, for programs.
        #[serde(default)]
        data: Option<rmpv::Value>,
    },
}
