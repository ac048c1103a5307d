//! What cprocessd judges by, as a library: the engine and what a person may configure of it. The daemon is a thin shell around
//! it, `cctl replay` tries a configuration on a recorded feed with it, and the simulator drives it through weeks of trouble.

pub mod backlog;
pub mod config;
pub mod engine;
pub mod store;
