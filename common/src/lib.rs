//! The words the Cairn daemons share.

pub mod config;
pub mod number;
