//! Whether the programs that should run do, and not too often.
//!
//! Processes are found by name and, where that is not enough, by their command line, from
//! `/proc/N/stat` and `/proc/N/cmdline` (`Documentation/filesystems/proc.rst`, 1.1). One pass
//! serves all rules. It is a picture without a frame: processes begin and end while it is taken,
//! and one that is gone before it was read simply is not in it.

use std::io::{self, Read};
use std::path::Path;

use procfs::process::{Process, all_processes_with_root};

/// Decides whether a name or a command line is meant; in practice a compiled glob.
pub(crate) type Matcher = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// The kernel cuts the name of a program to this many bytes (`TASK_COMM_LEN` less its end).
const NAME_BYTES: usize = 15;

/// How many processes are named as examples.
const SAMPLE: usize = 5;

/// Which processes are counted, and how many there should be.
pub(crate) struct ProcessRule {
    /// The name of the program, as in `ps -e`, or the full name where the kernel has cut it.
    pub(crate) name: Matcher,
    /// The whole command line, its arguments joined by spaces. Threads of the kernel have an empty
    /// one.
    pub(crate) args: Option<Matcher>,
    pub(crate) min: u32,
    pub(crate) max: Option<u32>,
}

/// The processes that a rule has found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) running: u32,
    /// The first few of them, for people.
    pub(crate) pids: Vec<u32>,
}

/// What a rule makes of a count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) up: bool,
    pub(crate) text: String,
}

impl ProcessRule {
    /// Whether so many processes are as it should be, and why not.
    pub(crate) fn judge(&self, counted: &Counted) -> Verdict {
        let running = counted.running;
        if running < self.min {
            return Verdict { up: false, text: format!("{running} running, at least {} wanted", self.min) };
        }
        match self.max {
            Some(max) if running > max => {
                Verdict { up: false, text: format!("{running} running, at most {max} wanted") }
            }
            Some(_) | None => Verdict { up: true, text: format!("{running} running") },
        }
    }

    fn matches(&self, process: &mut Candidate) -> bool {
        if !(self.name)(&process.name) && !process.full_name().is_some_and(|name| (self.name)(&name)) {
            return false;
        }
        self.args.as_ref().is_none_or(|args| args(&process.command_line().joined()))
    }
}

/// Counts for every rule, in one pass over `/proc`; the counts are in the order of the rules.
///
/// It fails only where the list of processes itself cannot be read. Takes some microseconds for
/// each process of the machine, which is too long for an async task where there are thousands.
pub(crate) fn count(rules: &[ProcessRule]) -> io::Result<Vec<Counted>> {
    count_below(Path::new("/proc"), rules)
}

fn count_below(proc: &Path, rules: &[ProcessRule]) -> io::Result<Vec<Counted>> {
    let mut counts = vec![Counted::default(); rules.len()];
    if rules.is_empty() {
        return Ok(counts);
    }
    // An error means that it has ended, or that we may not see it: either way it is not ours to
    // count.
    for process in all_processes_with_root(proc).map_err(io::Error::other)?.flatten() {
        let pid = process.pid.unsigned_abs();
        let Some(mut process) = Candidate::living(process) else {
            continue;
        };
        for (rule, counted) in rules.iter().zip(&mut counts) {
            if rule.matches(&mut process) {
                counted.running = counted.running.saturating_add(1);
                if counted.pids.len() < SAMPLE {
                    counted.pids.push(pid);
                }
            }
        }
    }
    Ok(counts)
}

/// One living process. Its command line is read when a rule first asks for it.
struct Candidate {
    process: Process,
    name: String,
    command_line: Option<CommandLine>,
}

impl Candidate {
    /// A process that has ended and only waits to be noticed (a zombie) is none.
    fn living(process: Process) -> Option<Self> {
        let stat = process.stat().ok()?;
        if matches!(stat.state, 'Z' | 'X' | 'x') {
            return None;
        }
        Some(Self { process, name: stat.comm, command_line: None })
    }

    fn command_line(&mut self) -> &CommandLine {
        self.command_line.get_or_insert_with(|| CommandLine::read(&self.process).unwrap_or_default())
    }

    /// The name of which the kernel shows the beginning, where it has cut it.
    fn full_name(&mut self) -> Option<String> {
        if self.name.len() < NAME_BYTES {
            return None;
        }
        let cut = self.name.clone();
        self.command_line().full_name(&cut)
    }
}

/// The bytes of `/proc/N/cmdline`: arguments, each with a zero behind it.
///
/// Read here, because `Process::cmdline` refuses arguments that are not text, so that a program whose
/// file has a Latin-1 name would be told to be down. It also drops empty arguments.
#[derive(Default)]
struct CommandLine(Vec<u8>);

impl CommandLine {
    fn read(process: &Process) -> Option<Self> {
        let mut bytes = Vec::new();
        process.open_relative("cmdline").ok()?.read_to_end(&mut bytes).ok()?;
        Some(Self(bytes))
    }

    fn joined(&self) -> String {
        let end = self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let spaced: Vec<u8> = self.0.iter().take(end).map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
        String::from_utf8_lossy(&spaced).into_owned()
    }

    /// The program's name, or the script's behind its interpreter, whichever begins with what the
    /// kernel shows.
    ///
    /// That condition keeps a script apart from its interpreter, and from a program that calls
    /// itself something else.
    fn full_name(&self, cut: &str) -> Option<String> {
        // A name that was cut inside a character ends in a replacement for the half of it.
        let cut = cut.trim_end_matches('\u{fffd}');
        let names = self.0.split(|byte| *byte == 0).take(2).map(|argument| {
            let argument = String::from_utf8_lossy(argument);
            argument.rsplit('/').next().unwrap_or_default().to_owned()
        });
        names.into_iter().find(|name| name.starts_with(cut))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn rule(name: &'static str) -> ProcessRule {
        ProcessRule { name: Box::new(move |text| text == name), args: None, min: 1, max: None }
    }

    fn rule_with_args(name: &'static str, args: &'static str) -> ProcessRule {
        ProcessRule { args: Some(Box::new(move |text| text == args)), ..rule(name) }
    }

    /// A made-up `/proc`, removed with its owner.
    struct FakeProc(PathBuf);

    impl FakeProc {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let folder = std::env::temp_dir().join(format!("ccollectd-process-{}-{number}", std::process::id()));
            fs::create_dir_all(folder.join("sys")).unwrap();
            fs::write(folder.join("uptime"), "1 1").unwrap();
            Self(folder)
        }

        fn with(self, pid: u32, name: &str, state: char, cmdline: &str) -> Self {
            let folder = self.0.join(pid.to_string());
            fs::create_dir_all(&folder).unwrap();
            fs::write(
                folder.join("stat"),
                format!("{pid} ({name}) {state} 1 {pid} {pid} 0 -1 4194560{}\n", " 1".repeat(43)),
            )
            .unwrap();
            fs::write(folder.join("cmdline"), cmdline).unwrap();
            self
        }

        /// A process that ended after it was listed.
        fn with_vanished(self, pid: u32) -> Self {
            fs::create_dir_all(self.0.join(pid.to_string())).unwrap();
            self
        }

        fn count(&self, rule: ProcessRule) -> u32 {
            count_below(&self.0, &[rule]).unwrap()[0].running
        }
    }

    impl Drop for FakeProc {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[track_caller]
    fn expect_verdict(min: u32, max: Option<u32>, running: u32, up: bool, text: &str) {
        let rule = ProcessRule { min, max, ..rule("x") };
        let verdict = rule.judge(&Counted { running, pids: vec![] });
        assert_eq!(verdict, Verdict { up, text: text.to_owned() });
    }

    #[test]
    fn a_verdict_says_how_many_and_what_was_wanted() {
        expect_verdict(1, None, 0, false, "0 running, at least 1 wanted");
        expect_verdict(1, None, 1, true, "1 running");
        expect_verdict(2, Some(5), 1, false, "1 running, at least 2 wanted");
        expect_verdict(2, Some(5), 2, true, "2 running");
        expect_verdict(2, Some(5), 5, true, "5 running");
        expect_verdict(2, Some(5), 7, false, "7 running, at most 5 wanted");
    }

    #[test]
    fn what_must_not_run_is_up_while_it_does_not() {
        expect_verdict(0, Some(0), 0, true, "0 running");
        expect_verdict(0, Some(0), 1, false, "1 running, at most 0 wanted");
    }

    #[test]
    fn one_pass_counts_for_all_rules() {
        let proc = FakeProc::new().with(10, "nginx", 'S', "").with(11, "nginx", 'R', "").with(12, "cron", 'D', "");
        let counts = count_below(&proc.0, &[rule("nginx"), rule("cron"), rule("exim4")]).unwrap();
        assert_eq!(counts.iter().map(|counted| counted.running).collect::<Vec<_>>(), [2, 1, 0]);
        assert_eq!(counts[1].pids, [12]);
    }

    #[test]
    fn zombies_and_vanished_processes_do_not_count() {
        let proc = FakeProc::new().with(10, "nginx", 'Z', "").with(11, "nginx", 'S', "").with_vanished(12);
        assert_eq!(proc.count(rule("nginx")), 1);
    }

    #[test]
    fn arguments_are_matched_as_they_were_typed() {
        let proc = FakeProc::new().with(10, "java", 'S', "/usr/bin/java\0-jar\0/opt/a.jar\0").with(
            11,
            "java",
            'S',
            "/usr/bin/java\0-jar\0/opt/b.jar\0\0\0",
        );
        assert_eq!(proc.count(rule("java")), 2);
        assert_eq!(proc.count(rule_with_args("java", "/usr/bin/java -jar /opt/a.jar")), 1);
        assert_eq!(proc.count(rule_with_args("java", "/usr/bin/java -jar /opt/b.jar")), 1);
    }

    #[test]
    fn threads_of_the_kernel_have_no_arguments() {
        let proc = FakeProc::new().with(2, "kthreadd", 'S', "");
        assert_eq!(proc.count(rule("kthreadd")), 1);
        assert_eq!(proc.count(rule_with_args("kthreadd", "")), 1);
        assert_eq!(proc.count(rule_with_args("kthreadd", "x")), 0);
    }

    #[test]
    fn a_name_that_the_kernel_has_cut_is_completed_from_the_command_line() {
        let proc = FakeProc::new()
            .with(10, "systemd-timesyn", 'S', "/lib/systemd/systemd-timesyncd\0")
            .with(11, "backup-all-host", 'S', "/bin/sh\0/usr/local/bin/backup-all-hosts.sh\0-v\0")
            .with(12, "exactly-fifteen", 'S', "/bin/exactly-fifteen\0");
        for name in ["systemd-timesyncd", "systemd-timesyn", "backup-all-hosts.sh", "exactly-fifteen"] {
            assert_eq!(proc.count(rule(name)), 1, "{name}");
        }
        assert_eq!(proc.count(rule("sh")), 0, "a script is not its interpreter");
    }

    #[test]
    fn a_short_name_is_not_looked_for_in_the_command_line() {
        let proc = FakeProc::new().with(10, "postgres", 'S', "/opt/postgresql\0");
        assert_eq!(proc.count(rule("postgresql")), 0);
    }

    #[test]
    fn the_command_line_is_read_only_where_it_is_needed() {
        let proc = FakeProc::new().with(10, "nginx", 'S', "").with(11, "cron", 'S', "");
        fs::remove_file(proc.0.join("11/cmdline")).unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&asked);
        let args: Matcher = Box::new(move |_| counter.fetch_add(1, Ordering::Relaxed) < 100);
        assert_eq!(proc.count(ProcessRule { args: Some(args), ..rule("nginx") }), 1);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_name_may_look_like_the_rest_of_the_line() {
        let proc = FakeProc::new().with(7, "a) Z (b", 'S', "").with(8, "two\nlines", 'R', "");
        assert_eq!(proc.count(rule("a) Z (b")), 1);
        assert_eq!(proc.count(rule("two\nlines")), 1);
    }

    /// Why the command line is not read by the crate.
    #[test]
    fn the_crate_refuses_arguments_that_are_not_text_and_drops_empty_ones() {
        let proc = FakeProc::new().with(10, "cat", 'S', "cat\0\0-n\0").with(11, "cat", 'S', "");
        fs::write(proc.0.join("11/cmdline"), b"cat\0caf\xe9\0").unwrap();
        let process = |pid: &str| Process::new_with_root(proc.0.join(pid)).unwrap();
        assert_eq!(process("10").cmdline().unwrap(), ["cat", "-n"]);
        assert!(process("11").cmdline().is_err());
        assert_eq!(proc.count(rule_with_args("cat", "cat  -n")), 1);
        assert_eq!(proc.count(rule_with_args("cat", "cat caf\u{fffd}")), 1);
    }

    #[test]
    fn texts_that_make_no_sense_are_no_processes() {
        let proc = FakeProc::new().with(10, "x", 'S', "");
        for stat in [&b""[..], b"7", b"7 (", b")", b"7 (x", b"7 (x) S"] {
            fs::write(proc.0.join("10/stat"), stat).unwrap();
            assert_eq!(proc.count(rule("x")), 0, "{stat:?}");
        }
        assert_eq!(CommandLine(vec![0, 0]).joined(), "");
        assert_eq!(CommandLine(vec![b'a', 0, 0xff, 0]).joined(), "a \u{fffd}");
        assert_eq!(CommandLine(vec![]).full_name("fifteen-letters"), None);
    }

    #[test]
    fn a_process_of_this_machine_is_found_until_it_ends() {
        let mut child = Command::new("sleep").arg("4711").stdin(Stdio::null()).spawn().expect("every system has sleep");
        let pid = child.id();
        // Between fork and exec the child still has our name.
        let found = std::iter::repeat_with(|| count(&[rule_with_args("sleep", "sleep 4711")]).unwrap().remove(0))
            .take(1000)
            .find(|counted| counted.pids.contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.is_some());
        assert!(!count(&[rule_with_args("sleep", "sleep 4711")]).unwrap()[0].pids.contains(&pid));
    }
}
