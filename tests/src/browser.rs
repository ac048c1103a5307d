//! A real browser: headless Chromium, driven by Playwright in `tests/browser/driver.mjs`.
//!
//! ```no_run
//! let mut browser = tests::browser::Browser::open("http://127.0.0.1:8436");
//! browser.goto("/");
//! browser.wait("document.title.includes('All is well')");
//! browser.complains_of(&[]);
//! ```

use crate::{Process, repository};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

/// How long [`Browser::wait`] waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a person looks at a page.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The window, in CSS pixels.
    pub width: u32,
    /// The window, in CSS pixels.
    pub height: u32,
    /// Whether dark colours are wanted.
    pub dark: bool,
}

impl Look {
    /// A window on a desk.
    pub const LIGHT: Look = Look { width: 1200, height: 900, dark: false };
    /// The same at night.
    pub const DARK: Look = Look { dark: true, ..Look::LIGHT };
    /// A narrow phone.
    pub const PHONE: Look = Look { width: 360, height: 740, dark: false };
}

/// One browser with one page, ended with the test.
#[derive(Debug)]
pub struct Browser {
    driver: Process,
    answers: BufReader<ChildStdout>,
    /// Its profile, and so nobody's cookies.
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser for pages of this origin (`http://HOST:PORT`); whatever it asks elsewhere is a complaint.
    pub fn open(origin: &str) -> Self {
        let modules = repository().join("cwebd/ui/node_modules/playwright-core");
        assert!(modules.exists(), "no {}: cwebd/ui/build installs it", modules.display());
        let profile = tempfile::Builder::new().prefix("chromium").tempdir().expect("a folder");
        let mut command = Command::new("node");
        command.arg(repository().join("tests/browser/driver.mjs")).arg(profile.path()).arg(origin);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut driver = Process::start(&mut command);
        let answers = BufReader::new(driver.stdout());
        let mut browser = Self { driver, answers, _profile: profile };
        browser.answer("the start");
        browser
    }

    /// Loads a page and returns its status.
    #[track_caller]
    pub fn goto(&mut self, path: &str) -> u64 {
        self.ask(&json!({ "command": "goto", "path": path })).as_u64().expect("a status")
    }

    /// The value of an expression in JavaScript, in the page.
    #[track_caller]
    pub fn eval(&mut self, js: &str) -> Value {
        self.ask(&json!({ "command": "eval", "js": js }))
    }

    /// Waits until an expression is true, and returns when that was, in milliseconds since the epoch.
    #[track_caller]
    pub fn wait(&mut self, js: &str) -> i64 {
        let ms = u64::try_from(PATIENCE.as_millis()).expect("seconds");
        self.ask(&json!({ "command": "wait", "js": js, "ms": ms })).as_i64().expect("a time")
    }

    /// Fills a field.
    #[track_caller]
    pub fn type_into(&mut self, selector: &str, text: &str) {
        self.ask(&json!({ "command": "type", "selector": selector, "text": text }));
    }

    /// Presses a key, such as `Enter`.
    #[track_caller]
    pub fn press(&mut self, key: &str) {
        self.ask(&json!({ "command": "press", "key": key }));
    }

    /// Clicks on what a CSS selector finds.
    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        self.ask(&json!({ "command": "click", "selector": selector }));
    }

    /// Another window.
    #[track_caller]
    pub fn look(&mut self, look: Look) {
        let scheme = if look.dark { "dark" } else { "light" };
        self.ask(&json!({ "command": "look", "width": look.width, "height": look.height, "scheme": scheme }));
    }

    /// Writes `target/screenshots/NAME.png`, the whole page, for a person to look at.
    #[track_caller]
    pub fn screenshot(&mut self, name: &str) -> PathBuf {
        let folder = repository().join("target/screenshots");
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("{name}.png"));
        self.ask(&json!({ "command": "screenshot", "path": path, "whole": true }));
        path
    }

    /// Writes what is in the window.
    #[track_caller]
    pub fn picture(&mut self, path: &Path) {
        self.ask(&json!({ "command": "screenshot", "path": path, "whole": false }));
    }

    /// What the page did since the last call that it should not: errors on the console, violations of its content
    /// security policy, requests elsewhere. Each must contain one of `expected`.
    #[track_caller]
    pub fn complains_of(&mut self, expected: &[&str]) {
        let complaints = self.ask(&json!({ "command": "complaints" }));
        let is_expected = |said: &str| expected.iter().any(|text| said.contains(text));
        let surprises: Vec<&str> = complaints
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(Value::as_str)
            .filter(|said| !is_expected(said))
            .collect();
        assert!(surprises.is_empty(), "the page: {surprises:#?}");
    }

    #[track_caller]
    fn ask(&mut self, command: &Value) -> Value {
        writeln!(self.driver.stdin(), "{command}").expect("the driver runs");
        self.answer(&command.to_string())
    }

    #[track_caller]
    fn answer(&mut self, to: &str) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the driver answers");
        let answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{to}: the driver said {line:?}: {error}"));
        assert!(answer["ok"] == true, "{to}: {}", answer["error"].as_str().unwrap_or("no answer"));
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // At the end of its input it closes Chromium, which would otherwise outlive it.
        self.driver.close_stdin();
        if std::thread::panicking() {
            // To wait for it could panic again; a second is what it takes.
            std::thread::sleep(Duration::from_secs(1));
        } else {
            let _ = self.driver.exit_code();
        }
    }
}
