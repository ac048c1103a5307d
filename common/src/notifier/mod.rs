//! The notifier frame: everything between cprocessd's stream and a medium that is not the medium itself. cmaild, cbotd and
//! csmsd share it, and a daemon that tells people by something new needs only a [`Medium`] and its configuration.
//!
//! What must never happen is that an event is lost or told twice, across any crash of ours, of cprocessd or of the medium's
//! server. So an event that somebody is to hear of goes into the outbox in the same transaction as the cursor; a message is
//! marked as under way before it is sent, and its outcome is recorded after. Only between the medium's acceptance and that
//! record a crash can double a message: it is then sent again under the same [`MessageId`], and marked as such.
//!
//! - `teller` decides what to tell to whom, `outbox` in which message and when, and `pace` how fast and for how much money.
//!   All are pure: they are given the time, and tests run hours of outages in milliseconds.
//! - `store` keeps cursors, told-state and the outbox, which is the ledger, in SQLite; [`desk`] is the three together. The
//!   simulator drives it without any of the following.
//! - `subscribers` are those whom no configuration names: whom people subscribed, as far as they agreed.
//! - `cluster` finds what stories have in common, for media that say many at once.
//! - `base` are the keys of the configuration that each of them has, `selection` and `quiet` those of each recipient.
//! - `own` makes our own trouble a check of this machine's ccollectd.
//! - `daemon` is the shell: streams in, messages out, questions answered.

mod base;
mod cluster;
mod daemon;
pub mod desk;
mod folder;
mod medium;
mod outbox;
mod own;
mod pace;
mod quiet;
mod selection;
mod store;
mod story;
mod subscribers;
mod teller;
#[cfg(test)]
mod tests;

pub use base::{Base, RawBase};
pub use cluster::{Cluster, Common, clusters};
pub use daemon::run;
pub use folder::Folder;
pub use medium::{Composed, Lane, Letter, Medium, Note, Outcome, Recipient, Said, Scope, Setup, check_recipients};
pub use pace::{Cap, LONGEST_WINDOW, Pace, Tier, money};
pub use quiet::Quiet;
pub use selection::{RawSelection, Selectable, Selection, Unless};
pub use story::{Mark, MessageId, Story, one_line};

/// The rule name of what only tries out a path: `cctl test-notify`.
pub const TEST_RULE: &str = "test";
/// And of the question whether somebody who was subscribed wants to be told.
pub const SUBSCRIPTION_RULE: &str = "subscription";
