//! Counts of what a daemon refused, dropped or lost, by `SOCKET.REASON`, as `health` shows them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by everything in a daemon that can refuse something. Names come from the code, never from input, so the map
/// cannot grow without bound.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counters {
    /// Counts one `reason` at `socket`; true if it is the first, which is when it is worth a log line.
    pub fn count(&self, socket: &str, reason: &str) -> bool {
        self.add(socket, reason, 1)
    }

    /// Counts `n` at once; true if there were none before.
    pub fn add(&self, socket: &str, reason: &str, n: u64) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(format!("{socket}.{reason}")).or_default();
        *count += n;
        *count == n
    }

    /// All counts so far.
    pub fn snapshot(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_of_a_reason_is_news() {
        let counters = Counters::default();
        assert!(counters.count("plugins", "undecodable"));
        assert!(!counters.count("plugins", "undecodable"));
        assert!(counters.count("query", "undecodable"));
        assert_eq!(counters.snapshot()["plugins.undecodable"], 2);
    }
}
