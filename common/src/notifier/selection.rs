//! Which events a recipient is to hear of.

use crate::address::{Address, Pattern};
use crate::severity::Severity;

/// The choice of one recipient, channel or telephone.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// At least as bad as this. Compared with the worst an incident has been, so who hears of its beginning hears of its
    /// end.
    pub minimum: Severity,
    /// Only addresses that one of these matches; all of them if it is empty.
    pub only: Vec<Pattern>,
    /// But none that one of these matches.
    pub except: Vec<Pattern>,
}

impl Selection {
    /// Everything that is at least as bad as `minimum`.
    pub fn at_least(minimum: Severity) -> Self {
        Self { minimum, only: Vec::new(), except: Vec::new() }
    }

    /// Whether an event of this worst severity and address is selected.
    pub fn wants(&self, top_severity: Severity, address: &Address) -> bool {
        top_severity >= self.minimum
            && (self.only.is_empty() || self.only.iter().any(|pattern| pattern.matches(address)))
            && !self.except.iter().any(|pattern| pattern.matches(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_then_inclusion_then_exclusion() {
        let pattern = |text: &str| text.parse::<Pattern>().expect("pattern");
        let address = |text: &str| text.parse::<Address>().expect("address");
        let selection =
            Selection { minimum: Severity::Warn, only: vec![pattern("web*")], except: vec![pattern("*!port:test*")] };
        assert!(selection.wants(Severity::Err, &address("web1!port:smtp")));
        assert!(!selection.wants(Severity::Info, &address("web1!port:smtp")));
        assert!(!selection.wants(Severity::Crit, &address("db1!port:smtp")));
        assert!(!selection.wants(Severity::Crit, &address("web1!port:test 1")));
        assert!(Selection::at_least(Severity::Debug).wants(Severity::Debug, &address("x!y:z")));
    }
}
