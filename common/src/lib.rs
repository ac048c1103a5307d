//! The words the Cairn daemons share: how an address, a severity, a message or a configuration file is written, how
//! messages travel and are journaled, how a daemon starts and stops. No policy: `common` knows what an event looks like
//! on the wire, never when one is due.

pub mod address;
pub mod config;
pub mod counters;
pub mod database;
mod file;
pub mod journal;
pub mod message;
pub mod notifier;
pub mod number;
pub mod publisher;
pub mod query;
pub mod questions;
pub mod secret;
pub mod severity;
pub mod socket;
pub mod startup;
pub mod subscriber;
pub mod subscription;
pub mod text;
pub mod time;
pub mod traffic;
pub mod trust;
pub mod zone;
