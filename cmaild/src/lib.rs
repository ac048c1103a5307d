//! Mail for Cairn's notifier frame, as a library so that tests can put a server in front of it.
//!
//! Start reading at [`medium`]; [`compose`] writes a mail, [`smtp`] hands it over and says what became of it.

pub mod compose;
pub mod config;
pub mod medium;
mod plain;
pub mod smtp;
mod stream;
