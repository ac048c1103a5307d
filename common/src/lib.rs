//! The words the Cairn daemons share, and no policy.

pub mod address;
