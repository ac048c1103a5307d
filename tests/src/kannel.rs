//! A real SMS gateway: Kannel's bearerbox and smsbox, and the fake SMSC that comes with it, which prints every short message
//! that reaches it.
//!
//! The status page says when a part is connected, so nothing is sent before the chain stands. Debian: kannel, kannel-extras.

use crate::servers::{self, free_ports};
use crate::{Process, wait_for};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// The user of the sendsms interface.
pub const USER: &str = "tester";
/// Their password.
pub const PASSWORD: &str = "f00bar-kannel";

const FAKESMSC: &str = "/usr/lib/kannel/test/fakesmsc";

/// What arrived at the SMSC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The number, as it was given.
    pub to: String,
    /// What it says, the parts of a long one together.
    pub body: String,
    /// How many short messages carried it.
    pub segments: usize,
}

/// The gateway, in a folder of its own.
#[derive(Debug)]
pub struct Kannel {
    dir: tempfile::TempDir,
    admin_port: u16,
    smsc_port: u16,
    /// The port of the sendsms interface on 127.0.0.1.
    pub port: u16,
    bearerbox: Process,
    smsbox: Process,
    fakesmsc: Process,
}

impl Kannel {
    /// Starts all three and waits until they are connected.
    pub fn start() -> Self {
        let dir = servers::folder("kannel", 0o755);
        let [admin_port, box_port, smsc_port, port] = free_ports();
        let conf = format!(
            "group = core\nadmin-port = {admin_port}\nadmin-interface = 127.0.0.1\nadmin-password = bar\n\
             smsbox-port = {box_port}\nsmsbox-interface = 127.0.0.1\nbox-allow-ip = \"127.0.0.1\"\n\n\
             group = smsc\nsmsc = fake\nsmsc-id = FAKE\nport = {smsc_port}\nconnect-allow-ip = 127.0.0.1\n\n\
             group = smsbox\nbearerbox-host = 127.0.0.1\nsendsms-port = {port}\nsendsms-interface = 127.0.0.1\n\n\
             group = sendsms-user\nusername = {USER}\npassword = {PASSWORD}\nmax-messages = 8\nconcatenation = true\n\n\
             group = sms-service\nkeyword = default\nmax-messages = 0\ntext = \"ok\"\n"
        );
        let path = dir.path().join("kannel.conf");
        fs::write(&path, conf).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("our file");
        let bearerbox = start(dir.path(), "bearerbox", &[&path.display().to_string()]);
        wait_for("bearerbox answers", || status(admin_port));
        let smsbox = start(dir.path(), "smsbox", &[&path.display().to_string()]);
        let fakesmsc = start_fakesmsc(dir.path(), smsc_port);
        let kannel = Self { dir, admin_port, smsc_port, port, bearerbox, smsbox, fakesmsc };
        kannel.wait_for_smsbox();
        kannel.wait_for_smsc();
        kannel
    }

    /// The address of the sendsms interface.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// SIGKILL to the part that takes requests.
    pub fn kill_smsbox(&mut self) {
        self.smsbox.kill();
    }

    /// It takes requests again.
    pub fn restart_smsbox(&mut self) {
        self.smsbox.kill();
        let path = self.dir.path().join("kannel.conf");
        self.smsbox = start(self.dir.path(), "smsbox", &[&path.display().to_string()]);
        self.wait_for_smsbox();
    }

    /// SIGKILL to the SMSC. Kannel keeps what it accepts until there is one again.
    pub fn kill_fakesmsc(&mut self) {
        self.fakesmsc.kill();
    }

    /// The SMSC is back.
    pub fn restart_fakesmsc(&mut self) {
        self.fakesmsc.kill();
        self.fakesmsc = start_fakesmsc(self.dir.path(), self.smsc_port);
        self.wait_for_smsc();
    }

    fn wait_for_smsbox(&self) {
        wait_for("smsbox takes requests", || {
            status(self.admin_port)?.contains("smsbox:").then_some(())?;
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }

    fn wait_for_smsc(&self) {
        wait_for("the SMSC is connected", || status(self.admin_port)?.contains("(online ").then_some(()));
    }

    /// Everything that has arrived whole, in the order of its first parts.
    pub fn texts(&self) -> Vec<Text> {
        let output = fs::read(self.dir.path().join("fakesmsc.out")).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let mut texts: Vec<Vec<Part>> = Vec::new();
        for part in output.split("Got message ").skip(1).filter_map(Part::read) {
            let continued = texts.iter_mut().rev().find(|text| text[0].belongs_with(&part));
            match continued {
                Some(text) => text.push(part),
                None => texts.push(vec![part]),
            }
        }
        texts.iter().filter(|parts| parts.len() == parts[0].parts).map(|parts| Part::join(parts)).collect()
    }

    /// Waits for the first text that contains `what`.
    #[track_caller]
    pub fn wait_for_text(&self, what: &str) -> Text {
        wait_for(&format!("a text with {what:?}"), || self.texts().into_iter().find(|text| text.body.contains(what)))
    }
}

impl Drop for Kannel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for text in self.texts() {
                eprintln!("fakesmsc | {text:?}");
            }
        }
        // In this order, so that none of them logs about the others.
        self.fakesmsc.kill();
        self.smsbox.kill();
        self.bearerbox.kill();
    }
}

/// One short message.
#[derive(Debug)]
struct Part {
    to: String,
    body: Vec<u8>,
    /// Of a long text: its number, and which part of it this is, from 1 (3GPP TS 23.040 §9.2.3.24.1).
    place: Option<(u8, u8)>,
    /// How many parts the text has.
    parts: usize,
}

impl Part {
    /// Reads `1: <FROM TO KIND BODY>`. None while it is still being written.
    fn read(message: &str) -> Option<Self> {
        let (_, message) = message.split_once('<')?;
        let message = &message[..message.find(">\n")?];
        let mut words = message.splitn(4, ' ');
        let (_from, to, kind, rest) = (words.next()?, words.next()?, words.next()?, words.next().unwrap_or_default());
        let (place, parts, body) = match kind {
            "udh" => {
                let (header, body) = rest.split_once(" data ")?;
                let header = url_decoded(header);
                let [5, 0, 3, number, parts, part] = header[..] else { panic!("no concatenation in {header:?}") };
                (Some((number, part)), parts.into(), url_decoded(body))
            }
            "ucs-2" => (None, 1, url_decoded(rest)),
            _ => (None, 1, rest.as_bytes().to_vec()),
        };
        Some(Self { to: to.to_owned(), body, place, parts })
    }

    /// Whether `later` goes on with the text of which we are the first part. Numbers are used again, but not so soon.
    fn belongs_with(&self, later: &Self) -> bool {
        let number = |part: &Self| part.place.map(|(number, _)| number);
        later.place.is_some_and(|(_, part)| part > 1) && number(self) == number(later) && self.to == later.to
    }

    fn join(parts: &[Self]) -> Text {
        let mut ordered: Vec<&Self> = parts.iter().collect();
        ordered.sort_by_key(|part| part.place);
        let bytes: Vec<u8> = ordered.iter().flat_map(|part| part.body.iter().copied()).collect();
        // Only the alphabet of a short one is printed; every text of ours begins with a letter of ASCII.
        let body = if bytes.contains(&0) {
            let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16_lossy(&units)
        } else {
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Text { to: parts[0].to.clone(), body, segments: parts.len() }
    }
}

fn url_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let code = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let (decoded, behind) = match (byte, code.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(decoded)) => (decoded, &behind[2..]),
            (b'+', _) => (b' ', behind),
            _ => (byte, behind),
        };
        bytes.push(decoded);
        rest = behind;
    }
    bytes
}

fn start_fakesmsc(dir: &Path, smsc_port: u16) -> Process {
    // It makes no messages of its own, but wants to be told of which kind.
    let port = smsc_port.to_string();
    start(dir, FAKESMSC, &["-H", "127.0.0.1", "-r", &port, "-i", "1", "-m", "0", "100 200 text nop"])
}

/// With its output in a file of its name.
fn start(dir: &Path, program: &str, args: &[&str]) -> Process {
    let name = Path::new(program).file_name().expect("a name").to_string_lossy();
    servers::start(servers::unprivileged(program).args(args), dir, &name)
}

/// Bearerbox's status page, if it answers.
fn status(admin_port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", admin_port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /status.txt?password=bar HTTP/1.0\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    page.contains("Status: running").then_some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_fake_smsc_prints_is_read() {
        let read = |message: &str| {
            let text = Part::join(&[Part::read(message)?]);
            Some((text.to, text.body))
        };
        let text = |body: &str| Some(("+491".to_owned(), body.to_owned()));
        assert_eq!(read("1: <2001 +491 text Grüße {a} <b> c>\nrest"), text("Grüße {a} <b> c"));
        assert_eq!(read("2: <2001 +491 ucs-2 %00a%04%3F%00+%D8%3D%DE%00>\n"), text("aп 😀"));
        assert_eq!(read("3: <2001 +491 text not yet"), None);
        assert_eq!(read("4: <2001 +491 udh %05%00%03%01%02%02 data %C3%A4%7B>\n"), text("ä{"));
    }
}
