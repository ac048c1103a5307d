//! Each mistake has its file in `tests/config`; the table below says what the operator reads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// A raw struct with one of everything that the daemons use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    #[serde(default)]
    watch: bool,
    #[expect(dead_code, reason = "read only to be refused")]
    listen: Option<SocketAddr>,
    load_limit: Option<f64>,
    #[serde(default)]
    hosts: Vec<String>,
    tell: Option<Tell>,
    range: Option<(u8, u8)>,
    limits: Option<Limits>,
    #[serde(default)]
    weights: BTreeMap<HostName, u32>,
    uplink: Option<Uplink>,
    #[serde(default)]
    port: Vec<Port>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tell {
    All,
    Only(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Uplink {
    address: String,
    retry_after: HumanDuration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    name: String,
    #[expect(dead_code, reason = "required, so that it can be missing")]
    address: String,
    interval: HumanDuration,
    timeout: Option<HumanDuration>,
    attempts: Option<u16>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct HostName(String);

impl TryFrom<String> for HostName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.contains(' ') { Err("a host name has no spaces") } else { Ok(Self(text)) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "RawLimits")]
struct Limits {
    high: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    low: u32,
    high: u32,
}

impl TryFrom<RawLimits> for Limits {
    type Error = String;

    fn try_from(RawLimits { low, high }: RawLimits) -> Result<Self, String> {
        if low < high { Ok(Self { high }) } else { Err(format!("low is {low}, but must be below high, {high}")) }
    }
}

const MISTAKES: &[(&str, &str)] = &[];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

/// The error, with the file named as if the fixtures were in the current directory.
#[track_caller]
fn message_of(path: &Path) -> String {
    let error = load::<Raw>(path).expect_err("the file has a mistake");
    let dir = format!("{}/", path.parent().expect("the file is in a directory").display());
    error.to_string().replace(&dir, "")
}

#[test]
fn each_mistake_is_named_with_its_file_line_and_key() {
    for (fixture, message) in MISTAKES {
        assert_eq!(message_of(&fixtures().join(fixture)), *message, "{fixture}");
    }
}
#[test]
fn show() {
    let mut n: Vec<_> = fs::read_dir(fixtures())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().unwrap() == "toml")
        .collect();
    n.sort();
    for p in n {
        println!("    (\"{}\", r#\"{}\"#),", p.file_name().unwrap().display(), message_of(&p));
    }
}
