//! What several stories have in common. Forty hosts without their web server are one trouble, and so are a dozen checks of
//! one host; a message that folds many stories says so once, with a number, instead of forty times.
//!
//! A story is in at most one cluster. The largest is found first, by host or by what broke, then the largest of what is
//! left: so a dead switch shows as one check of many hosts, and the host that has more than that wrong as itself.

use crate::notifier::Story;
use crate::severity::Severity;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;

/// What the stories of a cluster have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Common {
    /// The check or number, on several hosts: `port:smtp (25)`.
    What(String),
    /// The host.
    Host(String),
    /// It is only one: the address.
    All(String),
}

/// Stories that are told as one.
#[derive(Clone, Debug)]
pub struct Cluster<'a> {
    /// What they have in common.
    pub common: Common,
    /// At least one, in the order in which they were given.
    pub stories: Vec<&'a Story>,
}

impl Cluster<'_> {
    /// What distinguishes a story from the others of the cluster: its host, or what broke there. The address of one alone.
    pub fn name(&self, story: &Story) -> String {
        let (host, what) = parts(story);
        match &self.common {
            Common::What(_) => host,
            Common::Host(_) => what,
            Common::All(address) => address.clone(),
        }
    }

    /// The worst of it.
    pub fn severity(&self) -> Severity {
        self.stories.iter().map(|story| story.severity()).max().unwrap_or(Severity::Debug)
    }
}

/// `port:smtp (25) on 40 hosts`, `web1 (12)`, `web1!port:smtp (25)`.
impl fmt::Display for Cluster<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.common {
            Common::What(what) => {
                let hosts: BTreeSet<_> = self.stories.iter().map(|story| story.event.address.host()).collect();
                write!(f, "{what} on {} hosts", hosts.len())
            }
            Common::Host(host) => write!(f, "{host} ({})", self.stories.len()),
            Common::All(address) => f.write_str(address),
        }
    }
}

/// All stories in clusters of at least `least`, which is 2 or more, or alone: the worst first, of equal ones the largest, then
/// in the order of the stories.
pub fn clusters<'a>(stories: &[&'a Story], least: usize) -> Vec<Cluster<'a>> {
    let mut members: BTreeMap<Common, Vec<usize>> = BTreeMap::new();
    for (at, story) in stories.iter().enumerate() {
        let (host, what) = parts(story);
        members.entry(Common::Host(host)).or_default().push(at);
        members.entry(Common::What(what)).or_default().push(at);
    }
    // Several incidents of one address are of one host.
    members.retain(|common, members| {
        let host = |at: &usize| stories[*at].event.address.host();
        let one_host = members.iter().all(|at| host(at) == host(&members[0]));
        members.len() >= least && (matches!(common, Common::Host(_)) || !one_host)
    });
    let mut largest: BinaryHeap<_> = members.iter().map(|(common, members)| (members.len(), common.clone())).collect();
    let mut is_left = vec![true; stories.len()];
    let mut found: Vec<(usize, Cluster<'_>)> = Vec::new();
    while let Some((size, common)) = largest.pop() {
        let left: Vec<usize> = members[&common].iter().copied().filter(|at| is_left[*at]).collect();
        if left.len() < least {
            continue;
        }
        if left.len() < size {
            largest.push((left.len(), common));
            continue;
        }
        for at in &left {
            is_left[*at] = false;
        }
        let stories = left.iter().map(|at| stories[*at]).collect();
        found.push((left[0], Cluster { common, stories }));
    }
    for (at, story) in stories.iter().enumerate().filter(|(at, _)| is_left[*at]) {
        let common = Common::All(story.event.address.to_string());
        found.push((at, Cluster { common, stories: vec![*story] }));
    }
    found.sort_by_key(|(first, cluster)| (Reverse(cluster.severity()), Reverse(cluster.stories.len()), *first));
    found.into_iter().map(|(_, cluster)| cluster).collect()
}

/// The host, and the rest of the address.
fn parts(story: &Story) -> (String, String) {
    let address = story.event.address.to_string();
    match address.split_once('!') {
        Some((host, what)) => (host.to_owned(), what.trim_end_matches(':').to_owned()),
        None => (address, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Event;
    use crate::notifier::Mark;
    use proptest::prelude::*;

    fn story(address: &str, severity: &str) -> Story {
        let (host, what) = address.split_once('!').expect("an address");
        let (service, unit) = what.split_once(':').expect("a unit");
        let event: Event = serde_json::from_value(serde_json::json!({
            "epoch": "e", "seq": 1, "nth": 1,
            "id": "00000000-0000-0000-0000-000000000000", "incident": "00000000-0000-0000-0000-000000000000",
            "kind": "down", "address": address, "host": host, "service": service, "unit": unit,
            "severity": severity, "top_severity": severity, "state": "down", "since": 1, "time": 1, "text": "", "rule": "check",
        }))
        .expect("an event");
        Story { mark: Mark::Began, event, outages: 1, told_in: None }
    }

    fn said(stories: &[Story], least: usize) -> Vec<String> {
        let clusters = clusters(&stories.iter().collect::<Vec<_>>(), least);
        let names = |cluster: &Cluster<'_>| {
            let names: Vec<_> = cluster.stories.iter().map(|story| cluster.name(story)).collect();
            names.join(" ")
        };
        clusters.iter().map(|cluster| format!("{} {cluster}: {}", cluster.severity(), names(cluster))).collect()
    }

    #[test]
    fn one_check_of_many_hosts_and_many_checks_of_one_host_are_told_as_one() {
        let mut stories: Vec<Story> = (1..=4).map(|n| story(&format!("web{n}!port:www (80)"), "ERR")).collect();
        stories.extend(["ssh", "sql", "smtp"].map(|unit| story(&format!("web2!port:{unit}"), "ERR")));
        stories.push(story("db1!alive:", "CRIT"));
        stories.push(story("db2!port:x", "ERR"));
        let expected = [
            "CRIT db1!alive:: db1!alive:",
            "ERR port:www (80) on 3 hosts: web1 web3 web4",
            "ERR web2 (4): port:www (80) port:ssh port:sql port:smtp",
            "ERR db2!port:x: db2!port:x",
        ];
        let mut said_of = said(&stories, 2);
        said_of.sort();
        let mut sorted = expected.map(str::to_owned).to_vec();
        sorted.sort();
        assert_eq!(said_of, sorted);
        // Of equal size the host comes first; with nothing worth a number, each stands for itself.
        assert_eq!(said(&stories, 2)[1], "ERR web2 (4): port:www (80) port:ssh port:sql port:smtp");
        assert_eq!(said(&stories, 5).len(), stories.len());
    }

    #[test]
    fn the_worst_comes_first_then_the_largest() {
        let mut stories: Vec<Story> = (0..9).map(|n| story(&format!("a{n}!port:x"), "WARN")).collect();
        stories.extend((0..3).map(|n| story(&format!("b!port:{n}"), "WARN")));
        stories.extend((0..2).map(|n| story(&format!("c{n}!alive:"), "CRIT")));
        let said = said(&stories, 2);
        let starts = ["CRIT alive on 2 hosts: c0 c1", "WARN port:x on 9 hosts: ", "WARN b (3): "];
        assert!(said.iter().zip(starts).all(|(said, start)| said.starts_with(start)), "{said:?}");
    }

    #[test]
    fn two_incidents_of_one_address_are_of_its_host() {
        let twice = [story("a!b:c", "ERR"), story("a!b:c", "WARN")];
        assert_eq!(said(&twice, 2), ["ERR a (2): b:c b:c"]);
    }

    proptest! {
        #[test]
        fn every_story_is_in_one_cluster(places in prop::collection::vec((0..6_u8, 0..6_u8), 0..60), least in 2..5_usize) {
            let stories: Vec<Story> = places.iter().map(|(host, unit)| story(&format!("h{host}!s:{unit}"), "ERR")).collect();
            let stories: Vec<&Story> = stories.iter().collect();
            let clusters = clusters(&stories, least);
            let mut told: Vec<*const Story> = clusters.iter().flat_map(|c| c.stories.iter().map(|s| &raw const **s)).collect();
            let mut given: Vec<*const Story> = stories.iter().map(|story| &raw const **story).collect();
            told.sort();
            given.sort();
            prop_assert_eq!(told, given);
            for cluster in &clusters {
                prop_assert!(cluster.stories.len() == 1 || cluster.stories.len() >= least);
                for story in &cluster.stories {
                    let same = match &cluster.common {
                        Common::Host(host) => story.event.host.as_str() == host,
                        Common::What(what) => format!("s:{}", story.event.unit) == *what,
                        Common::All(_) => cluster.stories.len() == 1,
                    };
                    prop_assert!(same, "{cluster}");
                }
            }
        }
    }
}
