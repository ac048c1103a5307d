//! IRC as a medium of the notifier frame: one lane is one network, its recipients are channels.
//!
//! - `compose` writes the lines of a message: pure, from stories and the clock it is given.
//! - `session` is one connection as a state machine: registration, nick, channels, flood bucket, what became of a message.
//!   It is given lines and the time and answers with lines, so that its tests are timelines.
//! - `command` reads what people say to the bot, `answer` writes what cprocessd says to that: both pure. Who may ask and order
//!   what, and how often, is the session's.
//! - `network` is the shell: TCP, TLS, reconnecting; `asker` is the other, which asks cprocessd.
//! - `config` makes all of it from a file.
//!
//! It is a library beside the daemon so that tests can hold the medium against real servers without the frame.

mod answer;
mod asker;
mod bucket;
mod command;
mod compose;
pub mod config;
mod lines;
mod network;
mod options;
mod paint;
mod session;

pub use network::Network;
pub use options::Channel;
