//! What must not be seen: tokens, and most of a person's number.

use std::fmt;

/// A token or password. It shows itself to nobody who does not ask by name.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// For the request, and nothing else.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A number or key that a person recognises and nobody can use: `+4912…45`.
pub(crate) fn masked(to: &str) -> String {
    let chars: Vec<char> = to.chars().collect();
    let (start, end) = match chars.len() {
        0..=3 => (0, 0),
        4..=8 => (2, 0),
        _ => (5, 2),
    };
    format!("{}…{}", chars[..start].iter().collect::<String>(), chars[chars.len() - end..].iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2".into()))), "Some(***)");
    }

    #[test]
    fn a_number_is_recognised_but_not_known() {
        assert_eq!(masked("+491234567845"), "+4912…45");
        assert_eq!(masked("ops"), "…");
        assert_eq!(masked("topic"), "to…");
    }
}
