//! `--print`: all of a daemon's traffic as JSON, one message a line, on standard output.

use crate::query::to_json;
use std::io::Write;

/// Prints messages, or does nothing.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    on: bool,
}

impl Traffic {
    /// Prints if `on`.
    pub fn new(on: bool) -> Self {
        Self { on }
    }

    /// Whether it prints, for those who would have to gather what it prints.
    pub fn is_on(self) -> bool {
        self.on
    }

    /// Prints one message with the way it goes, `in` or `out`. A terminal that is gone is no reason to stop.
    pub fn print(self, way: &str, topic: &[u8], payload: &[u8]) {
        if !self.on {
            return;
        }
        let message = match rmpv::decode::read_value(&mut &*payload) {
            Ok(value) => to_json(value),
            Err(error) => format!("undecodable: {error}").into(),
        };
        let line = serde_json::json!({ "way": way, "topic": String::from_utf8_lossy(topic), "message": message });
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}
