//! Makes a history that fails as short as it can be: leaves out half of the steps, then a quarter, down to single ones, as
//! long as it still fails; then the waits, then whoever is not needed.

use super::history::play;
use super::plan::{Judging, Plan};
use super::wish::{Limits, Wish};

/// A history is played at most so often.
const ATTEMPTS: u32 = 600;

/// The shortest plan found that fails as `plan` does, which does.
pub fn shrink(plan: &Plan) -> Plan {
    let mut best = plan.clone();
    let mut attempts = ATTEMPTS;
    let mut fails = |candidate: &Plan| {
        attempts = attempts.saturating_sub(1);
        attempts > 0 && !play(candidate, false).faults.is_empty()
    };
    let mut size = best.steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at < best.steps.len() {
            let mut candidate = best.clone();
            let left_out = at..(at + size).min(best.steps.len());
            // The others happen when they did.
            let waited: u64 = candidate.steps.drain(left_out).map(|planned| planned.after).sum();
            if let Some(next) = candidate.steps.get_mut(at) {
                next.after += waited;
            }
            if fails(&candidate) {
                (best, shorter) = (candidate, true);
            } else {
                at += size;
            }
        }
        if !shorter || size > 1 {
            size /= 2;
        }
    }
    for at in 0..best.steps.len() {
        for after in [0, 1000, 5000, 15_000] {
            let mut candidate = best.clone();
            candidate.steps[at].after = after;
            if after < best.steps[at].after && fails(&candidate) {
                best = candidate;
                break;
            }
        }
    }
    let simpler: [fn(&mut Plan); 9] = [
        |plan| plan.setup.judging = Judging::One,
        |plan| plan.setup.relayed = false,
        |plan| plan.setup.twins = false,
        |plan| plan.setup.retention = 1_000_000,
        |plan| plan.setup.limits = Limits::default(),
        |plan| plan.setup.window = None,
        |plan| plan.setup.wishes[0] = Wish::plain(1),
        |plan| plan.setup.wishes[1] = Wish::plain(1),
        |plan| plan.setup.wishes[2] = Wish::plain(1),
    ];
    for simplify in simpler {
        let mut candidate = best.clone();
        simplify(&mut candidate);
        if candidate.fits() && fails(&candidate) {
            best = candidate;
        }
    }
    best
}
