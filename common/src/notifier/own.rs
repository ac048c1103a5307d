//! A notifier's own trouble: a check of each lane, `HOST!cmaild:smtp`, for the ccollectd of this machine, so that it is heard
//! of on the other media. Pure but for [`report_to`], which pushes.

use crate::message::encode;
use crate::socket::Reporter;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// What is known is repeated this often: a ccollectd may have been away.
const REPEAT_EVERY: Duration = Duration::from_mins(1);
/// Reports that may wait. Beyond it they are dropped; the state is repeated.
const WAITING_REPORTS: usize = 32;
/// How long one may take.
const PUSHED_WITHIN: Duration = Duration::from_secs(10);
/// Of what a medium says, in a report.
const MAX_TEXT_CHARS: usize = 300;

/// A report of our own, in the form that PROTOCOL.md §3 gives to those of local programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct OwnReport {
    service: &'static str,
    unit: String,
    msg_type: &'static str,
    text: String,
}

/// What was said of each lane.
#[derive(Debug)]
pub(crate) struct OwnChecks {
    daemon: &'static str,
    said: BTreeMap<String, (bool, Duration)>,
}

impl OwnChecks {
    pub(crate) fn new(daemon: &'static str) -> Self {
        Self { daemon, said: BTreeMap::new() }
    }

    /// What is to be said of these lanes, each with its trouble if it has one.
    pub(crate) fn due(&mut self, now: Duration, lanes: &BTreeMap<String, Option<String>>) -> Vec<OwnReport> {
        let mut reports = Vec::new();
        for (lane, trouble) in lanes {
            let is_up = trouble.is_none();
            let is_news = self.said.get(lane).is_none_or(|(was_up, at)| *was_up != is_up || now >= *at + REPEAT_EVERY);
            if is_news {
                self.said.insert(lane.clone(), (is_up, now));
                reports.push(self.report(lane, trouble.as_deref()));
            }
        }
        // Nobody would ever end the trouble of a lane that is gone.
        let gone: Vec<String> = self.said.keys().filter(|lane| !lanes.contains_key(*lane)).cloned().collect();
        for lane in gone {
            if let Some((false, _)) = self.said.remove(&lane) {
                reports.push(OwnReport { text: "no longer configured".to_owned(), ..self.report(&lane, None) });
            }
        }
        reports
    }

    fn report(&self, lane: &str, trouble: Option<&str>) -> OwnReport {
        let (msg_type, text) = match trouble {
            Some(why) => ("down", super::one_line(why, MAX_TEXT_CHARS)),
            None => ("up", "can be told".to_owned()),
        };
        OwnReport { service: self.daemon, unit: lane.to_owned(), msg_type, text }
    }
}

/// Takes reports for the ccollectd whose socket is at `plugins`, if there is one.
pub(crate) fn report_to(plugins: PathBuf) -> mpsc::Sender<OwnReport> {
    let (sender, mut reports) = mpsc::channel::<OwnReport>(WAITING_REPORTS);
    tokio::spawn(async move {
        let mut reporter = None;
        while let Some(report) = reports.recv().await {
            if !plugins.exists() {
                continue;
            }
            if reporter.is_none() {
                reporter = Reporter::connect(&plugins).await.ok();
            }
            let Some(connected) = &reporter else { continue };
            if !matches!(timeout(PUSHED_WITHIN, connected.push(encode(&report))).await, Ok(Ok(()))) {
                // Said again before long, by a new connection.
                reporter = None;
            }
        }
    });
    sender
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(checks: &mut OwnChecks, secs: u64, lanes: &[(&str, Option<&str>)]) -> Vec<String> {
        let lanes = lanes.iter().map(|(lane, trouble)| ((*lane).to_owned(), trouble.map(str::to_owned))).collect();
        let reports = checks.due(Duration::from_secs(secs), &lanes);
        reports.iter().map(|report| format!("{} {}: {}", report.unit, report.msg_type, report.text)).collect()
    }

    #[test]
    fn what_changes_is_said_at_once_and_what_stays_from_time_to_time() {
        let mut checks = OwnChecks::new("cmaild");
        assert_eq!(said(&mut checks, 0, &[("smtp", None)]), ["smtp up: can be told"]);
        assert!(said(&mut checks, 59, &[("smtp", None)]).is_empty());
        assert_eq!(said(&mut checks, 60, &[("smtp", None)]), ["smtp up: can be told"]);
        assert_eq!(said(&mut checks, 61, &[("smtp", Some("no\nroute"))]), ["smtp down: no route"]);
        assert!(said(&mut checks, 62, &[("smtp", Some("timeout"))]).is_empty());
        assert_eq!(said(&mut checks, 121, &[("smtp", Some("timeout"))]), ["smtp down: timeout"]);
        assert_eq!(said(&mut checks, 122, &[("smtp", None)]), ["smtp up: can be told"]);
    }

    #[test]
    fn the_trouble_of_a_lane_ends_with_it() {
        let mut checks = OwnChecks::new("cbotd");
        said(&mut checks, 0, &[("libera", Some("timeout")), ("oftc", None)]);
        assert_eq!(said(&mut checks, 1, &[]), ["libera up: no longer configured"]);
        assert!(said(&mut checks, 2, &[]).is_empty());
    }
}
