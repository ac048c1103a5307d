//! Nicks: which are the same, and what to be called when ours is taken.

/// So long may a nick be everywhere (RFC 2812 section 1.2.1).
pub(super) const SHORTEST_LIMIT_BYTES: usize = 9;
/// So long may it be on a server that did not complain.
pub(super) const COMMON_BYTES: usize = 9;
/// Then the network is against us.
const MAX_ATTEMPTS: usize = 20;

/// Lower case as RFC 1459 has it: `{}|~` are the lower case of `[]\^`. A server with plain ASCII has fewer equals, and two
/// names that differ in nothing else are not worth the difference.
pub(crate) fn fold(name: &str) -> String {
    let lower = |c: char| match c {
        '[' => '{',
        ']' => '}',
        '\\' => '|',
        '^' => '~',
        c => c.to_ascii_lowercase(),
    };
    name.chars().map(lower).collect()
}

pub(crate) fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && fold(one) == fold(other)
}

/// What to be called at this attempt, from 0: `cairn`, `cairn_`, `cairn2` ... A nick that is too long with its end is cut
/// before it, so that alternates help on a server with short nicks, too.
pub(super) fn alternate(nick: &str, attempt: usize, max_bytes: usize) -> Option<String> {
    let end = match attempt {
        0 => String::new(),
        1 => "_".to_owned(),
        2..=MAX_ATTEMPTS => attempt.to_string(),
        _ => return None,
    };
    // Nicks are ASCII, which the configuration made sure of.
    let kept = nick.len().min(max_bytes.saturating_sub(end.len()));
    Some(format!("{}{end}", nick.get(..kept).unwrap_or(nick)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternates_fit() {
        let all = |nick: &str, max| (0..4).map(|i| alternate(nick, i, max).expect("nick")).collect::<Vec<_>>();
        assert_eq!(all("cairn", 9), ["cairn", "cairn_", "cairn2", "cairn3"]);
        assert_eq!(all("monitoring1", 9), ["monitorin", "monitori_", "monitori2", "monitori3"]);
        assert_eq!(all("monitoring1", 11), ["monitoring1", "monitoring_", "monitoring2", "monitoring3"]);
        assert_eq!(alternate("cairn", 21, 9), None);
    }

    #[test]
    fn case_is_that_of_irc() {
        assert!(same("#Ops[1]", "#oPS{1}"));
        assert!(!same("#ops", "#ops2"));
    }
}
