//! The table that a benchmark prints: what was measured, what was asked of it, and whether that is reached. It informs and
//! never fails: a figure also says how the machine was on that day.

#![expect(clippy::print_stdout, reason = "a table for people")]

use std::fmt::{Display, Formatter};
use std::fs;

/// What a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Nothing is asked; it explains the others.
    None,
    /// Not more.
    AtMost(f64),
    /// Less.
    Below(f64),
    /// Not less.
    AtLeast(f64),
}

impl Target {
    fn is_reached(self, figure: f64) -> Option<bool> {
        match self {
            Target::None => None,
            Target::AtMost(bound) => Some(figure <= bound),
            Target::Below(bound) => Some(figure < bound),
            Target::AtLeast(bound) => Some(figure >= bound),
        }
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::None => f.pad(""),
            Target::AtMost(bound) => f.pad(&format!("<= {bound}")),
            Target::Below(bound) => f.pad(&format!("< {bound}")),
            Target::AtLeast(bound) => f.pad(&format!(">= {bound}")),
        }
    }
}

/// Prints the machine and the names of the columns.
pub fn head() {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (processors, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let model = field(&processors, "model name").next().unwrap_or("unknown processor");
    let kib: u64 = field(&memory, "MemTotal").next().and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
    let cores = field(&processors, "processor").count();
    println!("{cores} cores of {model}, {} GiB, Linux {}", kib >> 20, read("/proc/sys/kernel/osrelease").trim());
    println!("{:<68} {:>10} {:<22} {:>10}  reached", "what", "figure", "unit", "target");
}

/// The values of a field of a file of `/proc`.
fn field<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

/// Prints a figure.
pub fn row(what: impl Display, figure: f64, unit: &str, target: Target) {
    let reached = match target.is_reached(figure) {
        None => "",
        Some(true) => "yes",
        Some(false) => "NO",
    };
    let figure = match figure.abs() {
        ..10.0 => format!("{figure:.3}"),
        10.0..1000.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    };
    let line = format!("{what:<68} {figure:>10} {unit:<22} {target:>10}  {reached}");
    println!("{}", line.trim_end());
}
