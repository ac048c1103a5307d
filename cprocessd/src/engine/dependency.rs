//! What cannot be reached because something else is down.
//!
//! A check depends on its host, which goes without saying; more is said by patterns. What depends on something that is down,
//! or on something that itself cannot be reached, is *unreachable*: the trouble is that of the thing at the root.

use common::address::{Address, CheckAddress, HostName, Pattern};
use std::collections::{BTreeMap, BTreeSet};

/// What matches depends on each of these.
#[derive(Clone, Debug, PartialEq)]
pub struct Dependency {
    /// What cannot be reached.
    pub pattern: Pattern,
    /// While one of these is down.
    pub on: Vec<CheckAddress>,
}

/// All dependencies, free of cycles.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dependencies {
    list: Vec<Dependency>,
    /// What anything depends on by a pattern, each with what it depends on itself.
    nodes: BTreeMap<CheckAddress, Vec<CheckAddress>>,
    /// For each dependency all that it leads to.
    reach: Vec<BTreeSet<CheckAddress>>,
}

impl Dependencies {
    /// Refuses a cycle, naming it: `router1!alive: -> router2!alive: -> router1!alive:`.
    pub fn new(list: Vec<Dependency>) -> Result<Self, String> {
        let mut dependencies = Self { list, ..Self::default() };
        let mut nodes: Vec<CheckAddress> = dependencies.list.iter().flat_map(|d| d.on.iter().cloned()).collect();
        while let Some(node) = nodes.pop() {
            if !dependencies.nodes.contains_key(&node) {
                let on = dependencies.direct(&node.clone().into());
                nodes.extend(on.iter().cloned());
                dependencies.nodes.insert(node, on);
            }
        }
        let mut done = BTreeSet::new();
        for node in dependencies.nodes.keys() {
            dependencies.refuse_cycle(node, &mut Vec::new(), &mut done)?;
        }
        dependencies.reach = dependencies.list.iter().map(|d| dependencies.closure(&d.on)).collect();
        Ok(dependencies)
    }

    fn refuse_cycle(
        &self,
        node: &CheckAddress,
        path: &mut Vec<CheckAddress>,
        done: &mut BTreeSet<CheckAddress>,
    ) -> Result<(), String> {
        if done.contains(node) {
            return Ok(());
        }
        if let Some(at) = path.iter().position(|before| before == node) {
            let names: Vec<_> = path[at..].iter().chain([node]).map(ToString::to_string).collect();
            return Err(format!("dependencies make a circle: {}", names.join(" -> ")));
        }
        path.push(node.clone());
        for on in self.nodes.get(node).into_iter().flatten() {
            self.refuse_cycle(on, path, done)?;
        }
        path.pop();
        done.insert(node.clone());
        Ok(())
    }

    fn closure(&self, from: &[CheckAddress]) -> BTreeSet<CheckAddress> {
        let mut reached = BTreeSet::new();
        let mut waiting = from.to_vec();
        while let Some(node) = waiting.pop() {
            waiting.extend(self.nodes.get(&node).into_iter().flatten().cloned());
            reached.insert(node);
        }
        reached
    }

    /// What this depends on itself: its host, then what patterns say. Nothing depends on itself, and no host on its own
    /// checks, so that a pattern for many hosts may include that of the thing they depend on.
    pub(super) fn direct(&self, address: &Address) -> Vec<CheckAddress> {
        let alive = CheckAddress::alive(address.host().clone());
        let is_host = Address::from(alive.clone()) == *address;
        let mut direct = if is_host { Vec::new() } else { vec![alive] };
        for on in self.list.iter().filter(|d| d.pattern.matches(address)).flat_map(|d| &d.on) {
            let own = Address::from(on.clone()) == *address || (is_host && on.host == *address.host());
            if !own && !direct.contains(on) {
                direct.push(on.clone());
            }
        }
        direct
    }

    /// What is down and makes this unreachable. Of a chain only its end: what is down behind something that is down is not
    /// the trouble.
    pub(super) fn roots(&self, address: &Address, is_down: impl Fn(&CheckAddress) -> bool) -> BTreeSet<CheckAddress> {
        let mut known = BTreeMap::new();
        let mut roots = BTreeSet::new();
        for on in self.direct(address) {
            roots.extend(self.roots_of_node(&on, &is_down, &mut known));
        }
        roots
    }

    /// Its roots, or itself if it is down without any.
    fn roots_of_node(
        &self,
        node: &CheckAddress,
        is_down: &impl Fn(&CheckAddress) -> bool,
        known: &mut BTreeMap<CheckAddress, BTreeSet<CheckAddress>>,
    ) -> BTreeSet<CheckAddress> {
        if let Some(roots) = known.get(node) {
            return roots.clone();
        }
        let mut roots = BTreeSet::new();
        let direct = self.nodes.get(node).cloned().unwrap_or_else(|| self.direct(&node.clone().into()));
        for on in &direct {
            roots.extend(self.roots_of_node(on, is_down, known));
        }
        if roots.is_empty() && is_down(node) {
            roots.insert(node.clone());
        }
        known.insert(node.clone(), roots.clone());
        roots
    }

    /// Whether any pattern leads to this, so that what is open anywhere may depend on it.
    pub(super) fn leads_to(&self, node: &CheckAddress) -> bool {
        self.reach.iter().any(|reach| reach.contains(node))
    }

    /// Whether something at this address depends on it by a pattern, directly or by its host or a chain.
    pub(super) fn concerns(&self, node: &CheckAddress, address: &Address) -> bool {
        let leading = self.list.iter().zip(&self.reach).filter(|(_, reach)| reach.contains(node));
        let alive: Address = CheckAddress::alive(address.host().clone()).into();
        leading.into_iter().any(|(d, _)| d.pattern.matches(address) || d.pattern.matches(&alive))
    }
}

/// What a dependency is on, as people write it: a check, or a host, which stands for its `alive`.
pub fn target(text: &str) -> Result<CheckAddress, String> {
    if !text.contains('!') {
        let host: HostName = text.parse().map_err(|error: common::address::AddressError| error.to_string())?;
        return Ok(CheckAddress::alive(host));
    }
    text.parse().map_err(|error: common::address::AddressError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dependencies(list: &[(&str, &[&str])]) -> Result<Dependencies, String> {
        let list = list.iter().map(|(pattern, on)| Dependency {
            pattern: pattern.parse().expect("a pattern"),
            on: on.iter().map(|text| target(text).expect("a check")).collect(),
        });
        Dependencies::new(list.collect())
    }

    fn roots(dependencies: &Dependencies, address: &str, down: &[&str]) -> Vec<String> {
        let address = address.parse().expect("an address");
        let is_down = |node: &CheckAddress| down.contains(&node.to_string().as_str());
        dependencies.roots(&address, is_down).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_check_depends_on_its_host_and_a_host_on_nothing() {
        let none = Dependencies::default();
        assert_eq!(roots(&none, "web1!port:www", &["web1!alive:"]), ["web1!alive:"]);
        assert_eq!(roots(&none, "web1!machine.disk:/.free", &["web1!alive:"]), ["web1!alive:"]);
        assert!(roots(&none, "web1!alive:", &["web1!alive:"]).is_empty());
        assert!(roots(&none, "web1!port:www", &["web2!alive:", "web1!port:sql"]).is_empty());
    }

    #[test]
    fn of_a_chain_the_end_is_named() {
        let chain = dependencies(&[("web*", &["router1"]), ("router1", &["uplink!port:x"])]).expect("no circle");
        assert_eq!(roots(&chain, "web1!port:www", &["router1!alive:", "web1!alive:"]), ["router1!alive:"]);
        // Also over what is not known to be down itself.
        assert_eq!(roots(&chain, "web1!port:www", &["uplink!port:x"]), ["uplink!port:x"]);
        assert_eq!(roots(&chain, "web1!alive:", &["uplink!port:x", "router1!alive:"]), ["uplink!port:x"]);
        assert_eq!(roots(&chain, "web1!port:www", &["uplink!alive:", "uplink!port:x"]), ["uplink!alive:"]);
        let node = target("uplink").expect("a host");
        assert!(chain.leads_to(&node) && chain.concerns(&node, &"web1!port:www".parse().expect("an address")));
    }

    #[test]
    fn what_a_host_depends_on_holds_for_its_checks() {
        let host_only = dependencies(&[("web*!alive:", &["router1"])]).expect("no circle");
        assert_eq!(roots(&host_only, "web1!port:www", &["router1!alive:"]), ["router1!alive:"]);
    }

    #[test]
    fn a_pattern_may_include_what_it_depends_on() {
        let all = dependencies(&[("*", &["router1"]), ("db1", &["db1!port:sql"])]).expect("no circle");
        assert!(roots(&all, "router1!alive:", &["router1!alive:"]).is_empty());
        assert_eq!(roots(&all, "db1!port:www", &["db1!port:sql"]), ["db1!port:sql"]);
        assert!(roots(&all, "db1!alive:", &["db1!port:sql"]).is_empty());
    }

    #[test]
    fn a_circle_is_refused_by_name() {
        let two = dependencies(&[("*", &["r1", "r2"])]).expect_err("a circle");
        assert_eq!(two, "dependencies make a circle: r1!alive: -> r2!alive: -> r1!alive:");
        let three = dependencies(&[("a", &["b"]), ("b", &["c!port:x"]), ("c", &["a"])]).expect_err("a circle");
        assert!(three.contains("a!alive: -> b!alive: -> c!port:x -> "), "{three}");
    }
}
