//! Where observations of this host come from, one file a source.
//!
//! A source knows how to look at one kind of thing and nothing about sockets, schedules or
//! addresses: it is asked, looks, and answers with numbers or with up and down. What is asked how
//! often is the caller's business, which also turns the answers into messages.

pub(crate) mod machine;
pub(crate) mod plugins;
pub(crate) mod port;
pub(crate) mod process;

/// One group of numbers about one thing, as a source read it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    /// What kind of thing this is, such as `disk`.
    pub(crate) resource: &'static str,
    /// Which one of its kind, such as `/var`. Empty where there is only one; no control characters.
    pub(crate) unit: String,
    /// The numbers by their names, in the order in which they are documented.
    pub(crate) values: Vec<(&'static str, f64)>,
}

impl Reading {
    /// A reading whose unit can stand in an address, whatever the thing is called on this host.
    ///
    /// A mount point may hold a line feed; an address must not.
    pub(crate) fn new(resource: &'static str, unit: &str, values: Vec<(&'static str, f64)>) -> Self {
        let unit = unit.replace(char::is_control, "\u{fffd}");
        Self { resource, unit, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_feed_in_a_name_does_not_reach_the_address() {
        assert_eq!(Reading::new("disk", "/mnt/a\nb c", vec![]).unit, "/mnt/a\u{fffd}b c");
    }
}
