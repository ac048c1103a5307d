//! The keys that every notifier has.

use crate::address::HostName;
use crate::config::{HumanDuration, check_range};
use crate::startup;
use std::path::PathBuf;
use std::time::Duration;

/// For how long a message may be tried. Less would give up during the restart of a server, and what is older than the most
/// is news to nobody.
const GIVE_UP_AFTER: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(30 * 24));

/// The keys as they were written. They stand in each notifier's own raw struct, since a flattened one would lose the line of
/// a mistake.
#[derive(Debug, Default)]
pub struct RawBase {
    /// `run_dir`, by default `/run/cairn`.
    pub run_dir: Option<PathBuf>,
    /// `state_dir`, by default `/var/lib/cairn/NAME`.
    pub state_dir: Option<PathBuf>,
    /// `host`, by default the system's name.
    pub host: Option<HostName>,
    /// `publishers`, by default the stream in `run_dir`.
    pub publishers: Option<Vec<PathBuf>>,
    /// `give_up_after`, by default the medium's own.
    pub give_up_after: Option<HumanDuration>,
}

/// The keys, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Where `NAME.sock` is bound.
    pub run_dir: PathBuf,
    /// Where `NAME.db` is kept.
    pub state_dir: PathBuf,
    /// Our own host, for what is said about ourselves.
    pub host: HostName,
    /// The streams to follow, at least one. The question socket of each is `query` in the same folder.
    pub publishers: Vec<PathBuf>,
    /// How long a message is tried before it has failed for good: 1 minute to 30 days.
    pub give_up_after: Duration,
}

impl RawBase {
    /// Fills in what is missing, and checks. The error is a phrase that names the key.
    pub fn checked(self, daemon: &str, give_up_after: Duration) -> Result<Base, String> {
        let give_up_after = self.give_up_after.unwrap_or(HumanDuration(give_up_after));
        let (least, most) = GIVE_UP_AFTER;
        check_range("give_up_after", give_up_after, HumanDuration(least)..=HumanDuration(most))?;
        let run_dir = self.run_dir.unwrap_or_else(|| "/run/cairn".into());
        let publishers = self.publishers.unwrap_or_else(|| vec![run_dir.join("stream")]);
        if publishers.is_empty() {
            return Err("publishers is empty, but must name at least one stream".to_owned());
        }
        Ok(Base {
            host: startup::host_or_system(self.host).map_err(|error| error.to_string())?,
            state_dir: self.state_dir.unwrap_or_else(|| format!("/var/lib/cairn/{daemon}").into()),
            run_dir,
            publishers,
            give_up_after: give_up_after.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(raw: RawBase) -> Result<Base, String> {
        RawBase { host: Some("mon1".parse().expect("a host")), ..raw }.checked("cmaild", Duration::from_hours(24))
    }

    #[test]
    fn nothing_has_to_be_written() {
        let base = checked(RawBase::default()).expect("fine");
        assert_eq!(base.publishers, [PathBuf::from("/run/cairn/stream")]);
        assert_eq!(base.state_dir, PathBuf::from("/var/lib/cairn/cmaild"));
        assert_eq!(base.give_up_after, Duration::from_hours(24));
        let elsewhere = checked(RawBase { run_dir: Some("/x".into()), ..RawBase::default() }).expect("fine");
        assert_eq!(elsewhere.publishers, [PathBuf::from("/x/stream")]);
    }

    #[test]
    fn mistakes_are_named() {
        for (secs, complains) in [(59, true), (60, false), (2_592_000, false), (2_592_001, true)] {
            let after = Some(HumanDuration(Duration::from_secs(secs)));
            let said = checked(RawBase { give_up_after: after, ..RawBase::default() });
            assert_eq!(said.is_err_and(|said| said.contains(", but must be 1m to 30d")), complains, "{secs}");
        }
        let said = checked(RawBase { publishers: Some(Vec::new()), ..RawBase::default() });
        assert_eq!(said, Err("publishers is empty, but must name at least one stream".to_owned()));
    }
}
