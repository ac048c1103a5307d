//! A real mail server, Exim, that delivers what it accepts into a Maildir which tests read.

use crate::pki::Pki;
use crate::servers::{self, NOBODY, free_ports, is_root};
use crate::{Process, python, repository, wait_for};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Debian's package puts it where only root looks.
const EXIM: &str = "/usr/sbin/exim4";

/// Exim on 127.0.0.1. STARTTLS, then AUTH PLAIN as `mon` with [`Exim::PASSWORD`], is required; `busy@` is refused for now
/// (450), `nouser@` for good (550), everybody else is accepted.
#[derive(Debug)]
pub struct Exim {
    dir: tempfile::TempDir,
    process: Option<Process>,
    /// Its port for STARTTLS.
    pub port: u16,
    /// Its port where TLS comes first.
    pub tls_port: u16,
    /// The authority behind its certificate, and the certificate.
    pub pki: Pki,
}

/// A delivered mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// Name and unfolded value, in their order, encoded words decoded where they are ours.
    pub headers: Vec<(String, String)>,
    /// The text, its transfer encoding undone.
    pub body: String,
    /// The same as HTML; empty if there is none.
    pub html: String,
    /// Attachments: name and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// As it was delivered.
    pub raw: String,
    /// The mailbox that got it.
    pub delivered_to: String,
}

impl Mail {
    /// The value of the first header of this name, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// The values of all headers of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Reads a mail of one text part, or of several parts in each other.
    pub fn parse(raw: &str) -> Self {
        let text = raw.replace("\r\n", "\n");
        let (headers, content) = head_and_body(&text);
        let mut mail = Self { headers, raw: raw.to_owned(), ..Self::default() };
        let delivered_to = mail.header("Envelope-To").to_owned();
        mail.delivered_to = delivered_to;
        let headers = mail.headers.clone();
        mail.take(&headers, content);
        mail
    }

    fn take(&mut self, headers: &[(String, String)], content: &str) {
        let header = |name: &str| {
            let found = headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value.as_str())
        };
        let kind = header("Content-Type");
        if let Some((_, boundary)) = kind.split_once("boundary=\"") {
            let between = format!("\n--{}", boundary.split('"').next().expect("the end of a boundary"));
            let content = format!("\n{content}");
            for part in content.split(&between).skip(1).take_while(|part| !part.starts_with("--")) {
                let (headers, content) = head_and_body(part.strip_prefix('\n').expect("a line of its own"));
                self.take(&headers, content);
            }
            return;
        }
        let bytes = match header("Content-Transfer-Encoding").to_lowercase().as_str() {
            "base64" => base64(content),
            "quoted-printable" => quoted_printable(content),
            _ => content.as_bytes().to_owned(),
        };
        let text = || String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        if let Some((_, name)) = header("Content-Disposition").split_once("filename=\"") {
            self.files.push((name.trim_end_matches('"').to_owned(), bytes));
        } else if kind.starts_with("text/html") {
            self.html = text();
        } else {
            self.body.push_str(&text());
        }
    }

    /// What Python's own mail and HTML parsers make of a mail: `tests/python/mail.py`.
    #[track_caller]
    pub fn by_python(raw: &[u8]) -> Value {
        let mut command = Command::new(python());
        command.arg(repository().join("tests/python/mail.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command);
        let mut answer = process.stdout();
        process.stdin().write_all(raw).expect("it reads");
        process.close_stdin();
        let mut said = String::new();
        answer.read_to_string(&mut said).expect("it says something");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said:?}"))
    }

    /// What a foreign verifier says of the DKIM signature in a mail as it was sent, where `record` is what its domain
    /// publishes: `tests/python/signature.py`.
    #[track_caller]
    pub fn signature(raw: &str, record: &str) -> String {
        let mut command = Command::new(python());
        command.arg(repository().join("tests/python/signature.py")).arg(record);
        let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut answer = process.stdout();
        process.stdin().write_all(raw.as_bytes()).expect("it reads");
        process.close_stdin();
        let mut said = String::new();
        answer.read_to_string(&mut said).expect("it says something");
        said.trim().to_owned()
    }
}

/// Headers unfolded and decoded, and what follows the empty line.
fn head_and_body(text: &str) -> (Vec<(String, String)>, &str) {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let unfolded = head.replace("\n ", " ").replace("\n\t", " ");
    let header = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}"));
        (name.to_owned(), decode_words(value.trim()))
    };
    (unfolded.lines().map(header).collect(), body)
}

impl Exim {
    /// The password of `mon`.
    pub const PASSWORD: &str = "s3cret";

    /// Runs, and takes mails.
    pub fn start() -> Self {
        let dir = servers::folder("exim", 0o755);
        let pki = Pki::new(&dir.path().join("pki"));
        for folder in ["spool", "box"] {
            let folder = dir.path().join(folder);
            fs::create_dir(&folder).expect("folder");
            // It refuses to deliver as root.
            if is_root() {
                chown(&folder, Some(NOBODY), Some(NOBODY)).expect("folder");
            }
        }
        let [port, tls_port] = free_ports();
        let mut exim = Self { dir, process: None, port, tls_port, pki };
        fs::write(exim.dir.path().join("exim.conf"), exim.configuration()).expect("file");
        exim.restart();
        exim
    }

    /// SIGKILL, to it and to the processes that serve its connections.
    pub fn kill(&mut self) {
        self.process = None;
        // Each of its processes names this folder, and nothing else in the world does.
        let ours = self.dir.path().display().to_string();
        for entry in fs::read_dir("/proc").expect("/proc").filter_map(Result::ok) {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if command.starts_with(EXIM.as_bytes()) && String::from_utf8_lossy(&command).contains(&ours) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }

    /// Runs again, on the same ports, with what it had accepted.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        let mut command = servers::unprivileged(EXIM);
        command.arg("-bdf").arg("-q10s").arg("-C").arg(self.dir.path().join("exim.conf"));
        self.process = Some(servers::start(&mut command, self.dir.path(), "exim"));
        wait_for("exim listens", || {
            [self.port, self.tls_port].iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()).then_some(())
        });
    }

    /// What was delivered, the oldest first.
    pub fn mails(&self) -> Vec<Mail> {
        let Ok(listing) = fs::read_dir(self.dir.path().join("box/new")) else {
            return Vec::new();
        };
        let mut files: Vec<PathBuf> = listing.map(|file| file.expect("listed").path()).collect();
        // By time of arrival: Maildir names begin with the second and then count.
        files.sort_by_key(|file| fs::metadata(file).and_then(|file| file.modified()).ok());
        files.iter().map(|file| Mail::parse(&String::from_utf8_lossy(&fs::read(file).expect("a mail")))).collect()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        ["spool/mainlog", "spool/rejectlog", "spool/paniclog", "exim.out"].map(read).concat()
    }

    /// A file with this password, to be named in a configuration.
    pub fn password_file(&self, password: &str) -> PathBuf {
        let file = self.dir.path().join(format!("password-{}", password.len()));
        fs::write(&file, format!("{password}\n")).expect("file");
        file
    }

    fn configuration(&self) -> String {
        let (dir, port, tls_port) = (self.dir.path().display(), self.port, self.tls_port);
        let (cert, key) = (self.pki.cert.display(), self.pki.key.display());
        let (user, group) = if is_root() {
            ("nobody".to_owned(), "nogroup".to_owned())
        } else {
            (nix::unistd::geteuid().to_string(), nix::unistd::getegid().to_string())
        };
        let password = Self::PASSWORD;
        format!(
            "exim_path = {EXIM}
keep_environment =
add_environment = PATH=/usr/bin
primary_hostname = mx.lab.test
exim_user = {user}
exim_group = {group}
spool_directory = {dir}/spool
log_file_path = {dir}/spool/%slog
pid_file_path = {dir}/spool/exim.pid
local_interfaces = <; 127.0.0.1.{port} ; 127.0.0.1.{tls_port}
daemon_smtp_ports = {port} : {tls_port}
tls_on_connect_ports = {tls_port}
tls_advertise_hosts = *
tls_certificate = {cert}
tls_privatekey = {key}
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
acl_smtp_rcpt = r
acl_smtp_data = d
never_users =
queue_only = false
smtp_accept_max = 0
host_lookup =
begin acl
r:
  defer message = mailbox busy
    local_parts = busy
  deny message = no such user
    local_parts = nouser
  accept authenticated = *
  deny message = auth required
d:
  accept
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  directory = {dir}/box
  maildir_format
  create_directory
  envelope_to_add
  return_path_add
  user = {user}
begin authenticators
PLAIN:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{mon}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
"
        )
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        self.kill();
        servers::print_tail_on_failure("exim", || self.log());
    }
}

/// RFC 2047 in the two forms that there are, UTF-8 assumed.
fn decode_words(value: &str) -> String {
    let mut decoded = String::new();
    let mut rest = value;
    while let Some((before, word)) = rest.split_once("=?") {
        let mut parts = word.splitn(4, '?');
        let (Some(charset), Some(encoding), Some(text), Some(after)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            break;
        };
        let Some(after) = after.strip_prefix('=').filter(|_| charset.eq_ignore_ascii_case("utf-8")) else { break };
        // White space between two encoded words is not shown.
        if decoded.is_empty() || !before.trim().is_empty() {
            decoded.push_str(before);
        }
        let bytes =
            if encoding.eq_ignore_ascii_case("b") { base64(text) } else { quoted_printable(&text.replace('_', " ")) };
        decoded.push_str(&String::from_utf8_lossy(&bytes));
        rest = after;
    }
    decoded + rest
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| ALPHABET.iter().position(|digit| *digit == byte));
    let (mut bytes, mut bits, mut have) = (Vec::new(), 0u32, 0);
    for digit in digits {
        bits = (bits << 6) | u32::try_from(digit).expect("below 64");
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push(((bits >> have) & 0xff) as u8);
        }
    }
    bytes
}

fn quoted_printable(text: &str) -> Vec<u8> {
    let joined = text.replace("=\n", "");
    let (mut bytes, mut rest) = (Vec::new(), joined.as_bytes());
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'=') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}
