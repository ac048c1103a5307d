//! The suite as a whole: without privileges, and as the demo.

use super::*;

/// Gives a folder and all that is in it to somebody.
fn give(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).expect("given");
    if path.is_dir() {
        fs::read_dir(path).expect("a folder").flatten().for_each(|entry| give(&entry.path(), uid));
    }
}

#[test]
fn everything_is_observed_without_privileges() {
    let target = Target::new();
    let seconds = format!("88{}", std::process::id());
    let process = format!("[[process]]\nname = \"sleep\"\nargs = \"sleep {seconds}\"\ninterval = \"200ms\"\n");
    let mut suite = Suite::new(&format!("{}{process}", port("www", target.port, 200, 1)), QUIET);
    let _somebody_elses = sleeper(&seconds);
    if is_root() {
        // The tree may lie where only root may look. Copied by another program: had we the file open for writing, a
        // process that another test forks just then would keep it from being executed.
        for daemon in ["ccollectd", "cprocessd"] {
            output(Command::new("cp").arg(binaries().join(daemon)).arg(suite.path(daemon)));
        }
        give(&suite.path(""), NOBODY);
        for daemon in ["ccollectd", "cprocessd"] {
            let program = unprivileged(&suite.path(daemon).display().to_string());
            let command = suite.command_by(program, daemon);
            suite.start_by(command, daemon);
        }
    } else {
        suite.start("ccollectd");
        suite.start("cprocessd");
    }
    suite.wait_for_host();
    if is_root() {
        let pid = suite.daemon("ccollectd").pid();
        assert_eq!(fs::metadata(format!("/proc/{pid}")).expect("it runs").uid(), NOBODY);
    }
    wait_for_check(&suite, "www", "up");
    wait_for_check(&suite, &format!("sleep (sleep {seconds})"), "up");
    let mut plugin = Plugin::connect(&suite);
    plugin.state("up", "plugin", unix_ms());
    wait_for_check(&suite, "plugin", "up");
    let core_of = |address: &str| address.split_once(':').map(|(resource, _)| resource.to_owned());
    let mut wanted =
        vec!["cpu", "load_average", "uptime", "processes", "memory", "disk", "network", "process.instances"];
    if Path::new("/proc/pressure/cpu").exists() {
        wanted.push("pressure");
    }
    wait_for(&format!("numbers of {wanted:?}"), || {
        let seen: Vec<String> = last_values(&suite, "*").keys().filter_map(|address| core_of(address)).collect();
        let is_seen = |wanted: &&str| seen.iter().any(|seen| seen == wanted || *seen == format!("machine.{wanted}"));
        wanted.iter().all(is_seen).then_some(())
    });
    assert_eq!(suite.log("ccollectd").matches("cannot read").count(), 0, "{}", suite.log("ccollectd"));
}

/// `cctl demo` in a folder.
struct Demo {
    dir: PathBuf,
    screen: Screen,
}

impl Demo {
    fn command(dir: &Path) -> Command {
        let mut command = Command::new(binaries().join("cctl"));
        command.arg("demo").arg(dir).stdin(Stdio::null());
        command
    }

    /// The host is up in the time that a newcomer waits.
    fn start(dir: &Path) -> Self {
        let begun = unix_ms();
        let demo = Self { dir: dir.to_owned(), screen: Screen::start(&mut Self::command(dir)) };
        // Not what it knows from the time before.
        let is_up = || {
            let host = &demo.cctl_json(&["server-list"])?[0];
            (host["state"] == "up" && host["last_seen"].as_i64() >= Some(begun)).then_some(())
        };
        wait_at_most(Duration::from_secs(15), "the host is up", || demo.screen.line(&["is watched"]));
        assert_eq!(is_up(), Some(()), "said too early");
        demo
    }

    fn cctl_json(&self, args: &[&str]) -> Option<Value> {
        let mut command = Command::new(binaries().join("cctl"));
        let output =
            command.arg("--run").arg(self.dir.join("run")).arg("--json").args(args).output().expect("cctl runs");
        serde_json::from_slice(&output.stdout).ok()
    }

    fn epochs(&self) -> [Value; 2] {
        ["ccollectd", "cprocessd"].map(|daemon| self.cctl_json(&["health", daemon]).expect("it runs")["epoch"].clone())
    }

    fn pid(&self, daemon: &str) -> Option<u32> {
        fs::read_to_string(self.dir.join(format!("run/{daemon}.pid"))).ok()?.trim().parse().ok()
    }

    /// As Ctrl-C does; what has run is gone.
    #[track_caller]
    fn interrupt(mut self) {
        let pids = ["ccollectd", "cprocessd"].map(|daemon| self.pid(daemon).expect("it runs"));
        self.screen.process.signal(Signal::SIGINT);
        assert_eq!(self.screen.process.exit_code(), 0);
        for pid in pids {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} still runs");
        }
    }
}

#[test]
fn the_demo_starts_goes_on_and_leaves_nothing_behind() {
    let dir = tempfile::Builder::new().prefix("cairn").tempdir().expect("a temporary folder");
    let dir = dir.path().join("demo");
    let demo = Demo::start(&dir);
    let epochs = demo.epochs();

    let second = Demo::command(&dir).output().expect("cctl runs");
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("another cctl demo runs in this folder"), "{}", text(&second.stderr));

    for daemon in ["ccollectd", "cprocessd"] {
        let pid = demo.pid(daemon).expect("it runs");
        let killed = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
        nix::sys::signal::kill(killed, Signal::SIGKILL).expect("it runs");
        wait_for("another one runs", || demo.pid(daemon).filter(|new| *new != pid));
        wait_for("it answers", || demo.cctl_json(&["health", daemon]));
    }
    wait_for("the host is up", || (demo.cctl_json(&["server-list"])?[0]["state"] == "up").then_some(()));
    assert_eq!(demo.epochs(), epochs);
    demo.interrupt();

    let demo = Demo::start(&dir);
    assert_eq!(demo.epochs(), epochs, "it goes on with its journals");
    let kinds = || -> Option<Vec<String>> {
        let page = demo.cctl_json(&["events", "--after", "0"])?;
        // Beside what the notifiers say of themselves.
        let of_host = |event: &&Value| event["address"].as_str().is_some_and(|address| address.ends_with("!alive:"));
        page["events"]
            .as_array()?
            .iter()
            .filter(of_host)
            .map(|event| Some(event["kind"].as_str()?.to_owned()))
            .collect()
    };
    wait_for("the return is told", || kinds()?.ends_with(&["stopped".into(), "started".into()]).then_some(()));
    assert_eq!(kinds(), Some(vec!["up".into(), "stopped".into(), "started".into()]), "no kill lasted long enough");
    demo.interrupt();
}
