//! The folder of a demo: configuration, state, sockets, logs.

use crate::failure::Failure;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What a unix socket's path may have at most, without its end mark (unix(7)).
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// Longer than the name of any socket in `run`.
const LONGEST_SOCKET_NAME: &str = "cprocessd.sock";
/// Where the page is, if it can be.
const PAGE_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8436);
/// How far the next free port is looked for.
const PORTS_TRIED: u16 = 50;
/// A larger log makes way for a new one at the next start.
const MAX_LOG_BYTES: u64 = 10 << 20;

/// A folder that is ours alone for as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes what is missing of the folder, and takes it for us.
    pub(super) fn open(dir: &Path, daemons: &[&str]) -> Result<Self, Failure> {
        fs::create_dir_all(dir).map_err(|error| Failure::file("make", dir, &error))?;
        let root = dir.canonicalize().map_err(|error| Failure::file("find", dir, &error))?;
        let text = root.to_str().filter(|path| !path.contains(char::is_control));
        let Some(text) = text else {
            return Err(Failure::Usage(format!("{} is no text that a configuration file can hold", root.display())));
        };
        check_length(text)?;
        let lock = take(&root.join("demo.lock"))?;
        let folder = Self { root, _lock: lock };
        for name in ["etc", "run", "log", "state"] {
            folder.make(name)?;
        }
        for daemon in daemons {
            folder.make(&format!("etc/{daemon}.d"))?;
            folder.make(&format!("state/{daemon}"))?;
            folder.refuse_left_over(daemon)?;
        }
        Ok(folder)
    }

    /// Where the sockets are.
    pub(super) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Where the logs are.
    pub(super) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The daemon's configuration file.
    pub(super) fn config(&self, daemon: &str) -> PathBuf {
        self.root.join("etc").join(format!("{daemon}.toml"))
    }

    /// The daemon's log, to append to.
    pub(super) fn open_log(&self, daemon: &str) -> Result<File, Failure> {
        let path = self.log().join(format!("{daemon}.log"));
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > MAX_LOG_BYTES) {
            let old = path.with_extension("log.1");
            fs::rename(&path, &old).map_err(|error| Failure::file("make way for a new log with", &old, &error))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.map_err(|error| Failure::file("write", &path, &error))
    }

    /// Writes the configuration files that are not there. A person may have changed the others, so they are only looked
    /// at.
    pub(super) fn write_configuration(&self) -> Result<(), Failure> {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let host = host.filter(|name| name.parse::<common::address::HostName>().is_ok());
        let paths = |daemon: &str| {
            format!("run_dir = {}\nstate_dir = {}\n", toml(&self.run()), toml(&self.root.join("state").join(daemon)))
        };
        let host = host.as_deref().unwrap_or("*");
        self.write_config("ccollectd", &ccollectd_toml(&paths("ccollectd")))?;
        self.write_config("cprocessd", &cprocessd_toml(&paths("cprocessd"), host))?;
        write_secret(&self.root.join("etc/subscription-secret"))?;
        self.write_config("cmaild", &cmaild_toml(&paths("cmaild"), &toml(&self.root.join("mail"))))?;
        self.write_config("cbotd", &cbotd_toml(&paths("cbotd")))?;
        self.write_config("csmsd", &csmsd_toml(&paths("csmsd"), &toml(&self.root.join("sms"))))?;
        self.write_config("cwebd", &cwebd_toml(&paths("cwebd")))
    }

    /// The address that cwebd.toml names, or if somebody else has it the next free port, which a drop-in then says.
    pub(super) fn choose_page_address(&self) -> Result<SocketAddr, Failure> {
        let text = fs::read_to_string(self.config("cwebd")).unwrap_or_default();
        let table = text.parse::<toml::Table>().unwrap_or_default();
        let listen = table.get("listen").and_then(toml::Value::as_str).and_then(|listen| listen.parse().ok());
        let wanted: SocketAddr = listen.unwrap_or(PAGE_ADDRESS);
        let drop_in = |daemon: &str| self.root.join(format!("etc/{daemon}.d/port-is-taken.toml"));
        let ports = wanted.port()..wanted.port().saturating_add(PORTS_TRIED);
        let mut addresses = ports.map(|port| SocketAddr::new(wanted.ip(), port));
        let Some(free) = addresses.find(|address| TcpListener::bind(address).is_ok()) else {
            return Err(Failure::Other(format!(
                "no port for the page: {wanted} and the {PORTS_TRIED} after it are taken"
            )));
        };
        // The page itself, and the links that lead to it.
        for (daemon, key) in
            [("cwebd", format!("listen = \"{free}\"")), ("cmaild", format!("page = \"http://{free}/\""))]
        {
            let drop_in = drop_in(daemon);
            if free == wanted {
                match fs::remove_file(&drop_in) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(Failure::file("remove", &drop_in, &error));
                    }
                    Ok(()) | Err(_) => {}
                }
            } else {
                let text = format!("# Written anew whenever the demo starts and {wanted} is taken.\n{key}\n");
                fs::write(&drop_in, text).map_err(|error| Failure::file("write", &drop_in, &error))?;
            }
        }
        Ok(free)
    }

    fn write_config(&self, daemon: &str, text: &str) -> Result<(), Failure> {
        let path = self.config(daemon);
        let failed = |error| Failure::file("write", &path, &error);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => file.write_all(text.as_bytes()).map_err(failed),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.check_run_dir(&path),
            Err(error) => Err(failed(error)),
        }
    }

    /// A folder that was moved still has its old place in its files: the daemons would talk past us. Any other mistake
    /// the daemon itself explains better.
    fn check_run_dir(&self, path: &Path) -> Result<(), Failure> {
        let text = fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))?;
        let Ok(table) = text.parse::<toml::Table>() else { return Ok(()) };
        let run_dir = table.get("run_dir").and_then(toml::Value::as_str);
        if run_dir.is_some_and(|run_dir| Path::new(run_dir) == self.run()) {
            return Ok(());
        }
        Err(Failure::Config(format!(
            "{}: run_dir is {}, but must be {}: was the folder moved? Correct it, or delete the file to have it \
             written anew",
            path.display(),
            run_dir.map_or_else(|| "missing".to_owned(), |run_dir| format!("{run_dir:?}")),
            toml(&self.run())
        )))
    }

    /// For a person who has just seen the host come up.
    pub(super) fn what_next(&self, own: &Path, host: &str, page: SocketAddr) -> String {
        let cctl = format!("{} --run {}", shell(own), shell(&self.run()));
        let root = self.root.display();
        let reload = |daemon: &str| format!("kill -HUP $(cat {})", shell(&self.run().join(format!("{daemon}.pid"))));
        format!(
            "
{host} is watched: http://{page}
Mails become files in {root}/mail, texts in {root}/sms, until etc/cmaild.toml and etc/csmsd.toml say
where else to. IRC begins with a network in etc/cbotd.toml. Try in another terminal:

  {cctl} server-list
  {cctl} watch
  {cctl} test-notify
  {cctl} ledger

Watch a port: write this into {root}/etc/ccollectd.d/www.toml

  [[port]]
  name = \"www\"
  address = \"127.0.0.1:8000\"

and have it read: {}
Set an alarm: its example is in {root}/etc/cprocessd.toml; have it read: {}
Ctrl-C stops the demo; started again it goes on with its state.

",
            reload("ccollectd"),
            reload("cprocessd")
        )
    }

    fn make(&self, name: &str) -> Result<(), Failure> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(|error| Failure::file("make", &path, &error))
    }

    /// A daemon that has outlived its demo holds its socket's lock, and a second one would only fail again and again.
    fn refuse_left_over(&self, daemon: &str) -> Result<(), Failure> {
        let socket = self.run().join(format!("{daemon}.sock"));
        let Ok(lock) = File::open(self.run().join(format!("{daemon}.sock.lock"))) else { return Ok(()) };
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => Err(Failure::Other(format!(
                "a {daemon} already has the socket {}; is it left over from a demo that was killed? End it first",
                socket.display()
            ))),
            Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
        }
    }
}

fn check_length(root: &str) -> Result<(), Failure> {
    let longest = format!("{root}/run/{LONGEST_SOCKET_NAME}");
    if longest.len() <= MAX_SOCKET_PATH_BYTES {
        return Ok(());
    }
    let allowed = MAX_SOCKET_PATH_BYTES - (longest.len() - root.len());
    Err(Failure::Usage(format!(
        "{root} has {} bytes, but must have at most {allowed}: the path of a unix socket may have \
         {MAX_SOCKET_PATH_BYTES}, and {longest} has {}",
        root.len(),
        longest.len()
    )))
}

/// A secret that nobody else can read, unless it is there.
fn write_secret(path: &Path) -> Result<(), Failure> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
        // 244 random bits.
        writeln!(file, "{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
    });
    match written {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(Failure::file("write", path, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn take(path: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|error| Failure::file("write", path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::Other(format!("another cctl demo runs in this folder: it holds {}", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(Failure::file("lock", path, &error)),
    }
}

/// A path as TOML text. [`Folder::open`] has refused those that are no text.
fn toml(path: &Path) -> toml::Value {
    toml::Value::String(path.to_string_lossy().into_owned())
}

/// A path as one word for a shell.
fn shell(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+:@%,".contains(&b)) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn ccollectd_toml(paths: &str) -> String {
    format!(
        "\
# ccollectd observes this host. Written by `cctl demo`; it will not be overwritten.
# After a change: kill -HUP the ccollectd. Files in ccollectd.d/*.toml are added to this one.
{paths}
# Load, memory, disks, network and more of this host.
[machine]
interval = \"1s\"

# A TCP port that must accept connections.
# [[port]]
# name = \"www\"
# address = \"127.0.0.1:80\"
# interval = \"5s\"
# attempts = 2
# timeout = \"3s\"

# A program that must run, at least `min` and at most `max` times. `name` is compared with its name, as in `ps -e`,
# and `args` with its whole command line.
# [[process]]
# name = \"cron\"
# args = \"*cron -f*\"
# min = 1
# max = 1
"
    )
}

fn cprocessd_toml(paths: &str, host: &str) -> String {
    format!(
        "\
# cprocessd judges what ccollectd observes. Written by `cctl demo`; it will not be overwritten.
# After a change: kill -HUP the cprocessd. Files in cprocessd.d/*.toml are added to this one.
{paths}
# A rule of your own.
# [[alarm]]
# name = \"root is filling up\"
# rule = \"{host}!machine.disk:/.used_percentage > 90% for 1m clear 85% ERR\"
"
    )
}

fn cmaild_toml(paths: &str, folder: &toml::Value) -> String {
    format!(
        "\
# cmaild tells people by mail. Written by `cctl demo`; it will not be overwritten.
# After a change: kill -HUP the cmaild. Files in cmaild.d/*.toml are added to this one.
{paths}
# Without a server, each mail becomes a file here.
folder = {folder}
# Where the mails say that cwebd's page is, and what it knows the links to subscribe by.
page = \"http://{PAGE_ADDRESS}/\"
subscription_secret_file = \"subscription-secret\"

# [smtp]
# host = \"mail.example.org\"
# user = \"cairn\"
# password_file = \"/etc/cairn/smtp-password\"

[[recipient]]
name = \"operator\"
to = \"operator@example.org\"
severity = \"WARN\"
"
    )
}

fn cbotd_toml(paths: &str) -> String {
    format!(
        "\
# cbotd tells people on IRC. Written by `cctl demo`; it will not be overwritten.
# After a change: kill -HUP the cbotd. Files in cbotd.d/*.toml are added to this one.
{paths}
# [[network]]
# name = \"libera\"
# server = \"irc.libera.chat\"
# nick = \"cairn\"
# [[network.channel]]
# name = \"#ops\"
# severity = \"ERR\"
"
    )
}

fn csmsd_toml(paths: &str, folder: &toml::Value) -> String {
    format!(
        "\
# csmsd tells people by short message and push. Written by `cctl demo`; it will not be overwritten.
# After a change: kill -HUP the csmsd. Files in csmsd.d/*.toml are added to this one.
{paths}
# Without a provider, each text becomes a file here.
folder = {folder}

# [[provider]]
# name = \"main\"
# preset = \"ntfy\"
# token_file = \"/etc/cairn/ntfy.token\"

[[recipient]]
name = \"operator\"
to = \"+10000000000\"
severity = \"CRIT\"
"
    )
}

fn cwebd_toml(paths: &str) -> String {
    format!(
        "\
# cwebd shows it all on a page. Written by `cctl demo`; it will not be overwritten.
# After a change: kill -HUP the cwebd. Files in cwebd.d/*.toml are added to this one.
{paths}
# Anything but this machine's loopback needs a password: deploy/cwebd.example.toml says how.
listen = \"{PAGE_ADDRESS}\"
# Of the links in the mails to subscribers: the same as cmaild's.
subscription_secret_file = \"subscription-secret\"
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAEMONS: [&str; 6] = super::super::DAEMONS;

    fn folder(dir: &Path) -> Result<Folder, Failure> {
        Folder::open(dir, &DAEMONS)
    }

    /// The file as TOML, with the examples in it made real: they must be right, too.
    #[track_caller]
    fn with_examples(path: &Path) -> toml::Table {
        let text = fs::read_to_string(path).expect("a file");
        let keys = |line: &str| {
            line.starts_with("# [") || line.split_once(" = ").is_some_and(|(key, _)| !key[2..].contains(' '))
        };
        let uncommented = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(example) if keys(line) => example,
            _ => line,
        });
        uncommented.collect::<Vec<_>>().join("\n").parse().expect("TOML")
    }

    #[test]
    fn the_configuration_is_toml_with_absolute_paths() {
        let dir = tempfile::tempdir().expect("a folder");
        // What TOML and shells would stumble over.
        let root = dir.path().join("a \"demo\" of 'mine'");
        let folder = folder(&root).expect("a demo");
        folder.write_configuration().expect("written");
        for daemon in DAEMONS {
            let table = with_examples(&folder.config(daemon));
            assert_eq!(table["run_dir"].as_str().map(Path::new), Some(folder.run().as_path()));
            assert!(Path::new(table["state_dir"].as_str().expect("text")).is_dir());
            assert!(folder.root.join("etc").join(format!("{daemon}.d")).is_dir());
        }
        let ccollectd = with_examples(&folder.config("ccollectd"));
        assert_eq!(ccollectd["machine"]["interval"].as_str(), Some("1s"));
        assert_eq!(ccollectd["port"][0]["name"].as_str(), Some("www"));
        assert_eq!(ccollectd["process"][0]["min"].as_integer(), Some(1));
        for daemon in ["cmaild", "cwebd"] {
            let table = with_examples(&folder.config(daemon));
            assert_eq!(table["subscription_secret_file"].as_str(), Some("subscription-secret"));
        }
        let secret = fs::read_to_string(folder.root.join("etc/subscription-secret")).expect("a secret");
        assert_eq!(secret.len(), 65);
        folder.write_configuration().expect("again");
        assert_eq!(fs::read_to_string(folder.root.join("etc/subscription-secret")).expect("a secret"), secret);
        let cprocessd = with_examples(&folder.config("cprocessd"));
        assert!(cprocessd["alarm"][0]["rule"].as_str().is_some_and(|rule| rule.contains("!machine.disk:/.")));
    }

    #[test]
    fn a_page_whose_port_is_taken_moves_and_comes_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = folder(dir.path()).expect("a demo");
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let wanted = taken.local_addr().expect("an address");
        fs::write(folder.config("cwebd"), format!("listen = \"{wanted}\"\n")).expect("written");
        let moved = folder.choose_page_address().expect("an address");
        assert!(moved.port() > wanted.port());
        let drop_in = folder.root.join("etc/cwebd.d/port-is-taken.toml");
        assert!(fs::read_to_string(&drop_in).expect("a drop-in").contains(&format!("listen = \"{moved}\"")));
        let links = fs::read_to_string(folder.root.join("etc/cmaild.d/port-is-taken.toml")).expect("a drop-in");
        assert!(links.contains(&format!("page = \"http://{moved}/\"")), "{links}");
        drop(taken);
        assert_eq!(folder.choose_page_address().expect("an address"), wanted);
        assert!(!drop_in.exists());
    }

    #[test]
    fn what_a_person_wrote_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = folder(dir.path()).expect("a demo");
        folder.write_configuration().expect("written");
        let path = folder.config("ccollectd");
        let mut text = fs::read_to_string(&path).expect("read");
        text += "# mine\n";
        fs::write(&path, &text).expect("written");
        folder.write_configuration().expect("nothing to do");
        assert_eq!(fs::read_to_string(&path).expect("read"), text);
    }

    #[test]
    fn a_folder_that_was_moved_is_noticed() {
        let dir = tempfile::tempdir().expect("a folder");
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        folder(&old).expect("a demo").write_configuration().expect("written");
        fs::rename(&old, &new).expect("moved");
        let why = folder(&new).expect("a demo").write_configuration().expect_err("another run_dir");
        assert!(matches!(&why, Failure::Config(why) if why.contains("was the folder moved?")), "{why}");
    }

    #[test]
    fn one_demo_at_a_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = folder(dir.path()).expect("a demo");
        let why = folder(dir.path()).expect_err("locked");
        assert!(why.to_string().contains("another cctl demo"), "{why}");
        drop(first);
        folder(dir.path()).expect("free again");
    }

    #[test]
    fn a_path_too_long_for_sockets_says_how_long_it_may_be() {
        assert!(check_length(&"x".repeat(88)).is_ok());
        let why = check_length(&"x".repeat(89)).expect_err("too long");
        assert!(why.to_string().contains("has 89 bytes, but must have at most 88"), "{why}");
    }

    #[test]
    fn commands_to_copy_survive_a_shell() {
        assert_eq!(shell(Path::new("/tmp/demo/run")), "/tmp/demo/run");
        assert_eq!(shell(Path::new("/tmp/it's mine")), "'/tmp/it'\\''s mine'");
    }
}
