//! Mail for Cairn's notifier frame, as a library so that tests can put a server in front of it.
//!
//! Start reading at [`medium`]; [`compose`] writes a mail, as text and as HTML, [`relays`] hands it to the first server that
//! takes it, and [`smtp`] knows how to talk to one. What a day or a week comes to, by the [`schedule`] of each recipient, is
//! gathered in `digests`.

pub mod compose;
pub mod config;
mod digest;
mod digests;
mod dkim;
mod entry;
mod files;
mod html;
mod journal;
pub mod medium;
mod page;
mod plain;
pub mod relays;
pub mod schedule;
pub mod smtp;
mod stream;
mod text;
