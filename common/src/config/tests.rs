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

/// What the operator reads, a line for each fixture in the order of their names.
const MISTAKES: &str = r#"
address.toml:2: listen is "localhost": invalid socket address syntax
array-for-table.toml:1: uplink is an array, but must be a table
date.toml:1: watch is "2026-10-01", but must be true or false
drop-ins-are-a-file.d: is a file, but must be a directory of drop-ins
duplicate-key.toml:3: duplicate key name
duplicate-table.toml:4: duplicate key uplink
duration-too-long.toml:5: port.timeout is "11000d", but must be at most 10 years (3650d)
duration-without-unit.toml:5: port.timeout is 10, but must be a duration with its unit, such as "10s"
duration.toml:5: port.timeout is "1 minute", but must be a duration such as "10s", "500ms" or "1m30s"
first-of-two-mistakes.toml:1: watch is "yes", but must be true or false
huge-float.toml:1: load_limit is 1e999, but must be a finite number
huge-integer.toml:5: port.attempts is 99999999999999999999999999, but must be an integer of at most 64 bits
missing-key-of-merged-table.toml:2: missing key uplink.retry_after
missing-key-of-root.toml:1: missing key name
missing-key.toml:8: missing key port.address
nan.toml:1: load_limit is nan, but must be a finite number
negative.toml:5: port.attempts is -1, but must be an integer from 0 to 65535
no-toml.toml:2: key with no value, expected `=`
no-value.toml:2: missing value
not-utf8.toml:2: is not UTF-8 text
nul-byte.toml:2: invalid unquoted key, expected letters, numbers, `-`, `_`, at "\0"
out-of-range.toml:5: port.attempts is 70000, but must be an integer from 0 to 65535
own-words-of-key.toml:2: weights."web 1": a host name has no spaces
own-words.toml:3: limits: low is 5, but must be below high, 3
struct-as-array.toml:1: uplink is an array, but must be a table
syntax-in-drop-in.d/site.toml:3: unclosed array table, expected `]`
table-for-array.toml:3: port is a table, but must be an array: write [[port]]
too-few-entries.toml:1: range is an array of 1, but must be an array of 2
too-many-entries.toml:1: range is an array of 3, but must be an array of 2
unclosed-array.toml:2: unclosed array, expected `]`
unclosed-string.toml:1: invalid basic string, expected `"`
unknown-key-dotted.toml:3: unknown key uplink.retries, known here: address, retry_after
unknown-key-in-drop-in.d/50-site.toml:5: unknown key uplink.retry-after, did you mean retry_after?
unknown-key-near-none.toml:2: unknown key colour, known here: name, watch, listen, load_limit, hosts, tell, range, limits, weights, uplink, port
unknown-key-quoted.toml:2: unknown key "two words\nand a line", known here: name, watch, listen, load_limit, hosts, tell, range, limits, weights, uplink, port
unknown-key.toml:11: unknown key port.intervall, did you mean interval?
unknown-table.toml:3: unknown key uplinks, did you mean uplink?
unknown-variant.toml:1: tell is "everybody", but must be one of all, only
unquoted-text.toml:5: text must be in quotes: "10s"
variant-content.toml:2: an entry of tell.only is 3, but must be a string
variant-of-wrong-type.toml:1: tell is 3, but must be one of all, only
variant-twice.toml:1: tell is a table of 2 keys, but must be a table of one key: one of all, only
variant-with-content.toml:1: tell is a table, but must be only "all"
variant-without-content.toml:1: tell is "only", but must be a table, as in { only = ... }
wrong-type-array.toml:1: hosts is "web1", but must be an array
wrong-type-boolean.toml:1: watch is 1, but must be true or false
wrong-type-entry.toml:3: an entry of hosts is 2, but must be a string
wrong-type-float.toml:5: port.attempts is 2.0, but must be an integer from 0 to 65535
wrong-type-in-drop-in.d/20-wrong.toml:2: watch is "yes", but must be true or false
wrong-type-string.toml:1: name is 3, but must be a string
wrong-type-table.toml:1: uplink is "tcp://monitor:5570", but must be a table
wrong-type.toml:5: port.attempts is "three", but must be an integer from 0 to 65535
"#;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

/// The error, with the file named as if the fixtures were in the current directory.
#[track_caller]
fn messages_of(path: &Path) -> Vec<String> {
    let error = load::<Raw>(path).expect_err("the file has a mistake");
    let dir = format!("{}/", path.parent().expect("the file is in a directory").display());
    error.lines().map(|line| line.replace(&dir, "")).collect()
}

#[test]
fn each_mistake_is_named_with_its_file_line_and_key() {
    let files = fs::read_dir(fixtures()).expect("the fixtures are there");
    let files = files.map(|entry| entry.expect("is readable").path());
    let mains: BTreeSet<_> = files.filter(|file| file.extension().is_some_and(|ext| ext == "toml")).collect();

    let expected: Vec<_> = MISTAKES.trim().lines().collect();
    assert_eq!(mains.len(), expected.len());
    for (main, expected) in mains.iter().zip(expected) {
        // Most of these files lack a key as well.
        let messages = messages_of(main);
        assert!(messages.iter().any(|message| message == expected), "{expected}: {messages:#?}");
    }
}

/// A configuration and its drop-ins in a directory of their own.
struct Site(tempfile::TempDir);

impl Site {
    fn new(main: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        fs::write(dir.path().join("main.toml"), main).expect("is writable");
        Self(dir)
    }

    fn with(self, drop_in: &str, text: &str) -> Self {
        fs::create_dir_all(self.0.path().join("main.d")).expect("is writable");
        fs::write(self.0.path().join("main.d").join(drop_in), text).expect("is writable");
        self
    }

    fn main(&self) -> PathBuf {
        self.0.path().join("main.toml")
    }

    #[track_caller]
    fn load(&self) -> Raw {
        load(&self.main()).expect("the configuration is right")
    }

    #[track_caller]
    fn expect_message(&self, message: &str) {
        assert_eq!(messages_of(&self.main()), [message]);
    }
}

const FULL: &str = r#"
name = "web1"
hosts = ["db1", "db2"]
load_limit = 4
tell = { only = ["ada"] }
range = [1, 2]
weights = { db1 = 5 }
limits = { low = 1, high = 2 }

[uplink]
address = "tcp://monitor:5570"
retry_after = "1m30s"

[[port]]
name = "mail"
address = "[::1]:25"
interval = "10s"
timeout = "500ms"
attempts = 3
"#;

#[test]
fn a_right_file_is_read() {
    let raw = Site::new(FULL).load();
    assert_eq!((raw.name.as_str(), raw.watch), ("web1", false));
    assert_eq!(raw.hosts, ["db1", "db2"]);
    assert_eq!(raw.load_limit, Some(4.0));
    assert_eq!(raw.tell, Some(Tell::Only(vec!["ada".to_owned()])));
    assert_eq!(raw.range, Some((1, 2)));
    assert_eq!(raw.limits.expect("is set").high, 2);
    assert_eq!(raw.weights, BTreeMap::from([(HostName("db1".to_owned()), 5)]));
    assert_eq!(raw.uplink.expect("is set").retry_after.to_string(), "1m30s");
    let port = &raw.port[0];
    assert_eq!((port.attempts, port.interval.to_string().as_str()), (Some(3), "10s"));
    assert_eq!(port.timeout.map(|timeout| timeout.to_string()).as_deref(), Some("500ms"));
}

#[test]
fn a_drop_in_replaces_values_and_merges_tables() {
    let raw = Site::new(FULL)
        .with("site.toml", "name = 'web2'\nhosts = ['db3']\ntell = 'all'\nweights.db2 = 6\nuplink.retry_after = '5s'")
        .load();
    assert_eq!(raw.name, "web2");
    assert_eq!(raw.hosts, ["db3"]);
    assert_eq!(raw.tell, Some(Tell::All));
    assert_eq!(raw.weights.values().copied().collect::<Vec<_>>(), [5, 6]);
    let uplink = raw.uplink.expect("is set");
    assert_eq!((uplink.address.as_str(), uplink.retry_after.to_string().as_str()), ("tcp://monitor:5570", "5s"));
}

#[test]
fn a_drop_in_appends_to_arrays_of_tables() {
    let irc = "[[port]]\nname = 'irc'\naddress = '[::1]:6667'\ninterval = '10s'";
    let web = "port = [{ name = 'web', address = '[::1]:80', interval = '10s' }]";
    let raw = Site::new(FULL).with("20.toml", web).with("10.toml", irc).load();
    let names: Vec<_> = raw.port.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["mail", "irc", "web"]);
}

#[test]
fn an_empty_array_drops_the_tables_before_it() {
    assert!(Site::new(FULL).with("site.toml", "port = []").load().port.is_empty());
}

#[test]
fn drop_ins_are_taken_in_the_order_of_their_names() {
    let site = Site::new("name = 'main'").with("10.toml", "name = '10'").with("9.toml", "name = '9'");
    assert_eq!(site.load().name, "9");
}

#[test]
fn only_visible_toml_files_are_drop_ins() {
    let wrong = "name = [";
    let site = Site::new("name = 'main'").with("x.toml~", wrong).with(".x.toml", wrong);
    let site = site.with("README", wrong).with("x.toml.bak", wrong);
    assert_eq!(site.load().name, "main");
}

#[test]
fn an_empty_drop_in_directory_is_fine() {
    let site = Site::new("name = 'main'");
    fs::create_dir(site.0.path().join("main.d")).expect("is writable");
    assert_eq!(site.load().name, "main");
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_fine() {
    Site::new("\u{feff}name = 'x'\r\nwatch = 1\r\n")
        .expect_message("main.toml:2: watch is 1, but must be true or false");
}

#[test]
fn a_missing_file_is_named() {
    let site = Site::new("").with("x.toml", "name = 'x'");
    fs::remove_file(site.main()).expect("is writable");
    site.expect_message("main.toml: does not exist");
}

#[test]
fn what_is_no_file_is_named() {
    let site = Site::new("name = 'x'").with("x.toml", "");
    let drop_in = site.0.path().join("main.d/x.toml");
    fs::remove_file(&drop_in).expect("is writable");
    fs::create_dir(&drop_in).expect("is writable");
    site.expect_message("main.d/x.toml: is a directory, but must be a file");

    fs::remove_dir(&drop_in).expect("is writable");
    let _socket = std::os::unix::net::UnixListener::bind(&drop_in).expect("is writable");
    site.expect_message("main.d/x.toml: is a device, pipe or socket, but must be a file");
}

#[test]
fn a_dangling_link_in_the_drop_ins_is_named() {
    let site = Site::new("name = 'x'").with("a.toml", "");
    std::os::unix::fs::symlink("nowhere", site.0.path().join("main.d/b.toml")).expect("is writable");
    site.expect_message("main.d/b.toml: does not exist");
}

#[test]
fn a_file_of_over_a_mebibyte_is_refused() {
    let line = "# Of 24 bytes exactly.\n";
    assert_eq!(Site::new(&("name = 'x'\n".to_owned() + &line.repeat(40_000))).load().name, "x");
    Site::new(&line.repeat(50_000)).expect_message("main.toml: is larger than 1 MiB");
}

#[test]
fn a_contradiction_names_the_file() {
    let text = "timeout is 20s, but must be below interval, 10s";
    let error = ConfigError::in_file(Path::new("x.toml"), text);
    assert_eq!(error.to_string(), format!("x.toml: {text}"));
}

#[test]
fn a_mistake_about_the_whole_file_has_no_line() {
    let error = parse::<Limits>(Path::new("x.toml"), "low = 2\nhigh = 1").expect_err("is refused");
    assert_eq!(error.to_string(), "x.toml: low is 2, but must be below high, 1");
}

#[test]
fn an_unknown_key_of_a_buffered_table_keeps_its_line() {
    #[derive(Debug, Deserialize)]
    #[serde(tag = "by", rename_all = "snake_case")]
    enum Send {
        Mail(Mail),
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Mail {
        server: String,
    }
    let read = |text| parse::<BTreeMap<String, Send>>(Path::new("x.toml"), text);

    let Send::Mail(mail) = &read("send = { by = 'mail', server = 'x' }").expect("is right")["send"];
    assert_eq!(mail.server, "x");
    let error = read("[send]\nby = 'mail'\nserver = 'x'\nservr = 'y'").expect_err("is refused");
    assert_eq!(error.to_string(), "x.toml:4: unknown key send.servr, did you mean server?");
}

#[test]
fn long_values_and_control_characters_stay_one_short_line() {
    let text = format!("watch = \"\\u001b[31m{}\"", "x".repeat(100_000));
    let error = parse::<Raw>(Path::new("two\nlines.toml"), &text).expect_err("is refused");
    let shown = format!("\"\\u{{1b}}[31m{}\"...", "x".repeat(55));
    let message = format!("two\\nlines.toml:1: watch is {shown}, but must be true or false");
    assert!(error.lines().any(|line| line == message), "{error}");
}

/// Parses with a quarter of the stack that a thread has by default.
#[track_caller]
fn on_a_small_stack(text: String) -> Result<serde_json::Value, String> {
    let read = move || parse(Path::new("x.toml"), &text).map_err(|error| error.to_string());
    let thread = std::thread::Builder::new().stack_size(512 * 1024).spawn(read).expect("a thread can start");
    thread.join().expect("does not panic")
}

#[test]
fn hostile_nesting_is_refused() {
    let key = vec!["a"; 79].join(".");
    let hostile = [
        "[".repeat(100_000),
        "a = ".to_owned() + &"[".repeat(100_000),
        "a = ".to_owned() + &"[".repeat(100_000) + &"]".repeat(100_000),
        "a = ".to_owned() + &"[\n".repeat(100_000),
        "a = ".to_owned() + &"{a = ".repeat(100_000),
        "a = ".to_owned() + &"[{a = ".repeat(100_000),
        // A long string may end in five quotes, of which the first two belong to it.
        "a = \"\"\"\"x\"\"\"\"\"\nb = ".to_owned() + &"[".repeat(100_000),
        "a = \"\"\"x\"\"\"\", ".to_owned() + &"[".repeat(100_000),
        "a.".repeat(100_000) + "a = 1",
        format!("[{}a]", "a.".repeat(100_000)),
        format!("[[{}a]]", "a.".repeat(100_000)),
        // Within each of the bounds of `toml`, and 6400 levels deep.
        format!("[{key}]\n{}1{}", format!("{key} = {{").repeat(79), "}".repeat(79)),
    ];
    for text in hostile {
        let start: String = text.chars().take(20).collect();
        let error = on_a_small_stack(text).expect_err(&start);
        assert!(error.ends_with("is nested deeper than 64 levels"), "{start}: {error}");
    }
}

#[test]
fn nesting_is_bounded_to_the_level() {
    let too_deep = Err("x.toml:2: is nested deeper than 64 levels".to_owned());
    let arrays = |depth: usize| format!("\na = {}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(on_a_small_stack(arrays(63)).is_ok());
    for depth in [64, 65, 80, 81] {
        assert_eq!(on_a_small_stack(arrays(depth)), too_deep);
    }

    let header = |parts: usize| format!("[{}]\n{} = 1", vec!["a"; parts].join("."), vec!["b"; parts].join("."));
    assert!(on_a_small_stack(header(32)).is_ok());
    assert_eq!(on_a_small_stack(header(33)), too_deep);
}

#[test]
fn brackets_that_do_not_nest_are_not_counted() {
    let many = "[.{".repeat(100);
    for text in [
        format!("# {many}"),
        format!("a = '{many}'"),
        format!(r#"a = "\"{many}""#),
        format!(r#"a = "\\" # "{many}"#),
        format!("a = \"\"\"\n\"{many}\n\"\"\"\"\"\nb = 1"),
        format!("a = '''\n'{many}\n'''"),
        format!("a = [{}]", "[1.5], {b.c = 2.5}, ".repeat(1000)),
        "[[a.b]]\nc.d = 1.5\n".repeat(1000),
    ] {
        let read = on_a_small_stack(text.clone());
        assert!(read.is_ok(), "{text}: {read:?}");
    }
}

#[test]
fn only_plausible_keys_are_suggested() {
    let known = &["interval", "address", "up", "max_size", "port", "uplink"];
    let nearest = |name| error::nearest(name, known);
    assert_eq!(nearest("intervall"), Some("interval"));
    assert_eq!(nearest("Interval"), Some("interval"));
    assert_eq!(nearest("addr"), Some("address"));
    assert_eq!(nearest("max-size"), Some("max_size"));
    assert_eq!(nearest("prot"), Some("port"));
    assert_eq!(nearest("ports"), Some("port"));
    assert_eq!(nearest("ip"), None);
    assert_eq!(nearest(""), None);
    assert_eq!(nearest("colour"), None);
    assert_eq!(nearest(&"x".repeat(1_000_000)), None);
}

const TOML_TOKENS: &[&str] = &[
    "name",
    "uplink",
    "port",
    "tell",
    "a",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\n",
    "\r\n",
    "#",
    "\\",
    " ",
    "1",
    "-1.5",
    "1e999",
    "nan",
    "0x1f",
    "true",
    "2026-10-01",
    "08:30:00",
    "\"10s\"",
    "\0",
    "\u{feff}",
    "[a]\n",
    "[[port]]\n",
    "name = \"x\"\n",
    "uplink.address = ",
    "a = 1\n",
];

/// Text that gets further into the parser than arbitrary characters do.
fn toml_like() -> impl Strategy<Value = String> {
    let token = prop_oneof![9 => proptest::sample::select(TOML_TOKENS).prop_map(str::to_owned), 1 => ".{0,5}"];
    proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn no_text_panics_and_each_error_is_one_line(text in prop_oneof![".*", toml_like()]) {
        if let Err(error) = parse::<Raw>(Path::new("x.toml"), &text) {
            let error = error.to_string();
            prop_assert!(error.starts_with("x.toml:") && !error.contains(char::is_control), "{}", error);
        }
        drop(parse::<serde_json::Value>(Path::new("x.toml"), &text));
    }

    #[test]
    fn no_drop_in_panics(main in toml_like(), over in toml_like()) {
        let file = Path::new("x.toml");
        if let (Ok(mut root), Ok(over)) = (tree::parse(0, file, &main), tree::parse(1, file, &over)) {
            root.merge(over);
            drop(check_all::<Raw, Raw>(&root, &[file.to_owned(), file.to_owned()], Ok));
        }
    }
}

/// Every mistake of a text, the checks behind the tree included.
#[track_caller]
fn all_of(text: &str) -> Vec<String> {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("x.toml");
    std::fs::write(&path, text).expect("written");
    let checked = load_checked(&path, |raw: Raw| {
        let wrong = |text: String| ConfigError::in_file(&path, text);
        for port in &raw.port {
            let key = format!("port {:?}: attempts", port.name);
            check_range(&key, port.attempts.unwrap_or(1), 1..=10).map_err(wrong)?;
        }
        check_unique("port.name", raw.port.iter().map(|port| port.name.as_str())).map_err(wrong)?;
        if raw.port.iter().all(|port| port.name != "main") && !raw.port.is_empty() {
            return Err(wrong("there is no port main".to_owned()));
        }
        Ok(raw)
    });
    let error = checked.map(drop).expect_err("it has mistakes");
    error.lines().map(|line| line.replace(&format!("{}/", dir.path().display()), "")).collect()
}

#[test]
fn every_mistake_is_found_at_once_and_in_order() {
    let found = all_of(
        "name = 7\nwatch = 'yes'\nnonsense = 1\n[[port]]\nname = 'main'\naddress = 'x'\ninterval = 'soon'\n\
         [[port]]\nname = 'b'\ninterval = '1s'\nunknown = 1\n[[port]]\nname = 'main'\naddress = 'y'\ninterval = '1s'\nattempts = 99\n",
    );
    let starts = [
        "x.toml:1: name is 7",
        "x.toml:2: watch is \"yes\"",
        "x.toml:3: unknown key nonsense",
        "x.toml:7: port.interval is \"soon\"",
        "x.toml:8: missing key port.address",
        "x.toml:11: unknown key port.unknown",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    assert!(found.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{found:#?}");
}

#[test]
fn what_the_checks_behind_the_tree_find_has_its_line_too() {
    let port = |name: &str, attempts: u32| {
        format!("[[port]]\nname = '{name}'\naddress = 'x'\ninterval = '1s'\nattempts = {attempts}\n")
    };
    let found = all_of(&format!("name = 'n'\nwatch = 1\n{}{}{}", port("main", 99), port("b", 0), port("main", 2)));
    assert_eq!(
        found,
        [
            "x.toml:2: watch is 1, but must be true or false",
            "x.toml:7: port \"main\": attempts is 99, but must be 1 to 10",
            "x.toml:12: port \"b\": attempts is 0, but must be 1 to 10",
            "x.toml:14: port.name \"main\" stands twice",
        ]
    );
    // What refers to what was taken out is no mistake; without such, it is one of the file.
    let found = all_of(
        "name = 'n'\n[[port]]\nname = 'main'\ninterval = '1s'\n[[port]]\nname = 'b'\naddress = 'x'\ninterval = '1s'\n",
    );
    assert_eq!(found, ["x.toml:2: missing key port.address"]);
    assert_eq!(all_of(&format!("name = 'n'\n{}", port("b", 1))), ["x.toml: there is no port main"]);
}

#[test]
fn an_error_is_shown_as_its_first_mistake_and_how_many_more() {
    let error = parse::<Raw>(Path::new("x.toml"), "name = 'n'\na = 1\nb = 1\nc = 1").expect_err("unknown");
    let text = error.to_string();
    assert!(text.starts_with("x.toml:2: unknown key a"), "{text}");
    assert!(text.ends_with("; and 2 more mistakes, which --check-config shows"), "{text}");
}
