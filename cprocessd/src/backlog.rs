//! What the engine wants and the journal does not have yet: usually of one round, and of many while the disk refuses.
//!
//! Events are kept in their order, all of them. Of several states of one thing only the last matters, so while the disk
//! refuses the backlog grows with what happens and not with what is merely seen again: judging goes on for as long as
//! there is news.

use crate::engine::Output;
use common::message::encode;
use std::collections::HashSet;

/// Beyond this many outputs no more input is taken, and the feeds' journals keep it.
const MAX_OUTPUTS: usize = 100_000;
/// Nor beyond this many bytes, since an event may carry an attachment.
const MAX_BYTES: usize = 64 << 20;
/// So many are worth looking through for states that were overtaken.
const COMPACT_AT_LEAST: usize = 10_000;

/// Outputs that wait for their commit.
#[derive(Debug)]
pub struct Backlog {
    outputs: Vec<Output>,
    bytes: usize,
    compact_at: usize,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { outputs: Vec::new(), bytes: 0, compact_at: COMPACT_AT_LEAST }
    }
}

impl Backlog {
    /// Adds an event or a state; anything else needs no commit.
    pub fn push(&mut self, output: Output) {
        self.bytes += weight(&output);
        self.outputs.push(output);
        if self.outputs.len() >= self.compact_at {
            self.compact();
        }
    }

    /// Drops the states that a later one replaces.
    fn compact(&mut self) {
        let mut seen = HashSet::new();
        let mut kept = Vec::new();
        while let Some(output) = self.outputs.pop() {
            let is_last = match &output {
                Output::Save(saved) => seen.insert(saved.identity()),
                _ => true,
            };
            if is_last {
                kept.push(output);
            }
        }
        kept.reverse();
        self.outputs = kept;
        self.bytes = self.outputs.iter().map(weight).sum();
        self.compact_at =
            (2 * self.outputs.len()).max(COMPACT_AT_LEAST).min(MAX_OUTPUTS.max(self.outputs.len() + 1000));
    }

    /// In order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Whether everything is committed.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Whether there is room for what one more delivery may lead to. The engine's own deadlines are not asked.
    pub fn is_full(&self) -> bool {
        self.outputs.len() >= MAX_OUTPUTS || self.bytes >= MAX_BYTES
    }

    /// They are committed.
    pub fn clear(&mut self) {
        self.outputs.clear();
        self.bytes = 0;
        self.compact_at = COMPACT_AT_LEAST;
    }
}

/// About what it takes in memory.
fn weight(output: &Output) -> usize {
    let more = match output {
        // A tree of values takes some times as much as its message.
        Output::Event(draft) => draft.text.len() + draft.data.as_ref().map_or(0, |data| 4 * encode(data).len()),
        _ => 0,
    };
    size_of::<Output>() + more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Saved;
    use common::time::UnixMillis;

    fn state(n: u64) -> Output {
        Output::Save(Saved::Origin("w".parse().expect("host"), "e".into(), n))
    }

    fn event(text: &str) -> Output {
        let own = "w!cprocessd:".parse().expect("address");
        let common::address::Address::Check(own) = own else { panic!("a check") };
        let aside = common::database::Aside { file: text.into(), why: String::new(), rows: 0, is_whole: true };
        Output::Event(crate::engine::Draft::of_damage(&own, &aside, UnixMillis(1)))
    }

    #[test]
    fn states_that_repeat_take_no_room_and_the_last_one_counts() {
        let mut backlog = Backlog::default();
        for n in 0..1_000_000 {
            backlog.push(state(n));
        }
        assert!(!backlog.is_full());
        assert!(backlog.outputs().len() < 2 * COMPACT_AT_LEAST);
        assert_eq!(backlog.outputs().last(), Some(&state(999_999)));
    }

    #[test]
    fn events_are_all_kept_in_their_order_until_they_are_too_many() {
        let mut backlog = Backlog::default();
        let mut pushed = Vec::new();
        for n in 0..MAX_OUTPUTS / 4 {
            pushed.push(event(&n.to_string()));
            backlog.push(pushed[n].clone());
            backlog.push(state(n as u64));
        }
        let events: Vec<_> = backlog.outputs().iter().filter(|output| matches!(output, Output::Event(_))).collect();
        assert!(events.iter().copied().eq(&pushed));
        while !backlog.is_full() {
            backlog.push(pushed[0].clone());
        }
        assert!(backlog.outputs().len() <= MAX_OUTPUTS && backlog.bytes < MAX_BYTES + 10_000);
        backlog.clear();
        assert!(backlog.is_empty() && !backlog.is_full());
    }

    #[test]
    fn attachments_count_by_their_size() {
        let mut backlog = Backlog::default();
        let Output::Event(mut draft) = event("x") else { panic!("an event") };
        draft.data = Some(vec![7; 60_000].into());
        let mut pushed = 0;
        while !backlog.is_full() {
            backlog.push(Output::Event(draft.clone()));
            pushed += 1;
        }
        assert!((100..2000).contains(&pushed), "{pushed}");
    }
}
