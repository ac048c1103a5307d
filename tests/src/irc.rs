//! Real IRC servers in a folder and on ports of their own, and somebody in a channel who writes down what is said.

use crate::pki::Pki;
use crate::servers::{self, free_ports, unprivileged};
use crate::{Process, wait_for};
use futures_util::StreamExt;
use irc::client::prelude::{Client, Command as Irc, Config, Message, Response};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The account that atheme knows, and its password.
pub const ACCOUNT: (&str, &str) = ("keeper", "open-sesame");
/// A channel that ngircd keeps with this key. On InspIRCd, whoever comes first sets one.
pub const KEYED: (&str, &str) = ("#keyed", "sekrit");

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Disconnects who floods it.
    Inspircd,
    /// Does not.
    PatientInspircd,
    /// Slows down who floods it, and takes nicks of nine letters.
    Ngircd,
}

/// Whether it knows accounts, and how it tells whose is whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accounts {
    None,
    Whois,
    Tags,
}

/// A server, and its services if it has any. Both end with the test.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    /// For clients, in plaintext.
    pub port: u16,
    /// For clients, by TLS.
    pub tls_port: u16,
    /// Who vouches for its certificate.
    pub pki: Pki,
    process: Option<Process>,
    services: Option<Process>,
    dir: tempfile::TempDir,
}

impl Server {
    /// InspIRCd.
    pub fn inspircd() -> Self {
        Self::started(Kind::Inspircd, Accounts::None)
    }

    /// InspIRCd as somebody may set it up for bots of their own: it lets them talk as fast as they like.
    pub fn patient_inspircd() -> Self {
        Self::started(Kind::PatientInspircd, Accounts::None)
    }

    /// InspIRCd with atheme, which has [`ACCOUNT`] and offers SASL.
    pub fn inspircd_with_services() -> Self {
        Self::started(Kind::Inspircd, Accounts::Whois)
    }

    /// As above, and each line says of which account it is to who asks for that (IRCv3 account-tag).
    pub fn inspircd_with_account_tags() -> Self {
        Self::started(Kind::Inspircd, Accounts::Tags)
    }

    /// [`patient_inspircd`](Self::patient_inspircd) with the accounts of
    /// [`inspircd_with_services`](Self::inspircd_with_services).
    pub fn patient_inspircd_with_services() -> Self {
        Self::started(Kind::PatientInspircd, Accounts::Whois)
    }

    /// And with the tags of [`inspircd_with_account_tags`](Self::inspircd_with_account_tags).
    pub fn patient_inspircd_with_account_tags() -> Self {
        Self::started(Kind::PatientInspircd, Accounts::Tags)
    }

    /// ngircd.
    pub fn ngircd() -> Self {
        Self::started(Kind::Ngircd, Accounts::None)
    }

    fn started(kind: Kind, accounts: Accounts) -> Self {
        // Whoever they are has to write here.
        let dir = servers::folder("irc", 0o777);
        let pki = Pki::new(&dir.path().join("pki"));
        let [port, tls_port, links] = free_ports();
        let mut server = Self { kind, port, tls_port, pki, process: None, services: None, dir };
        let links = (accounts != Accounts::None).then_some(links);
        let text = match kind {
            Kind::Inspircd => server.inspircd_conf(links, accounts, 10),
            Kind::PatientInspircd => server.inspircd_conf(links, accounts, 100_000),
            Kind::Ngircd => server.ngircd_conf(),
        };
        fs::write(server.path("ircd.conf"), text).expect("written");
        server.start();
        if let Some(links) = links {
            server.start_services(links);
        }
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it, again after [`kill`](Self::kill) and on the same ports, and waits until it lets people in.
    pub fn start(&mut self) {
        let conf = self.path("ircd.conf");
        let mut command = match self.kind {
            Kind::Inspircd | Kind::PatientInspircd => {
                let mut command = unprivileged("inspircd");
                command.arg("--config").arg(conf).args(["--nofork", "--nopid"]);
                command
            }
            Kind::Ngircd => {
                let mut command = unprivileged("ngircd");
                command.arg("-n").arg("-f").arg(conf);
                command
            }
        };
        self.process = Some(servers::start(&mut command, self.dir.path(), "ircd"));
        wait_for("the IRC server listens", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// SIGKILL: nobody is told goodbye.
    pub fn kill(&mut self) {
        self.process().kill();
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }

    /// Gives [`KEYED`] its key, where that is up to whoever came first.
    pub fn set_key(&self, first: &Observer) {
        if self.kind == Kind::Inspircd {
            first.say(&format!("MODE {} +k {}", KEYED.0, KEYED.1));
            first.wait_for_any(&format!("MODE {} +k", KEYED.0));
        }
    }

    fn ngircd_conf(&self) -> String {
        let Pki { cert, key, .. } = &self.pki;
        format!(
            "[Global]\nName = irc.lab.test\nInfo = lab\nAdminEMail = a@lab.test\nListen = 127.0.0.1\nPorts = {}\n\
             MotdPhrase = hi\n[Limits]\nMaxConnectionsIP = 0\n[Options]\nPAM = no\nIdent = no\nDNS = no\n\
             [SSL]\nCertFile = {}\nKeyFile = {}\nPorts = {}\n[Channel]\nName = {}\nModes = +k {}\nKey = {}\n",
            self.port,
            cert.display(),
            key.display(),
            self.tls_port,
            KEYED.0,
            KEYED.1,
            KEYED.1
        )
    }

    fn inspircd_conf(&self, links: Option<u16>, accounts: Accounts, threshold: u32) -> String {
        let Pki { ca_pem, cert, key } = &self.pki;
        let (dir, port, tls_port) = (self.dir.path().display(), self.port, self.tls_port);
        let mut conf = format!(
            "<config format=\"xml\">
             <server name=\"irc.lab.test\" description=\"lab\" network=\"Lab\" id=\"1AB\">
             <admin name=\"a\" nick=\"a\" email=\"a@lab.test\">
             <bind address=\"127.0.0.1\" port=\"{port}\" type=\"clients\">
             <bind address=\"127.0.0.1\" port=\"{tls_port}\" type=\"clients\" sslprofile=\"tls\">
             <module name=\"ssl_gnutls\"> <module name=\"cap\">
             <sslprofile name=\"tls\" provider=\"gnutls\" hash=\"sha256\" cafile=\"{}\" certfile=\"{}\" keyfile=\"{}\">
             <connect name=\"main\" allow=\"*\" timeout=\"20\" threshold=\"{threshold}\" fakelag=\"no\" recvq=\"8192\"
              sendq=\"262144\" pingfreq=\"30\" localmax=\"50\" globalmax=\"50\" resolvehostnames=\"no\" useident=\"no\">
             <dns server=\"127.0.0.1\" timeout=\"1\">
             <log method=\"file\" type=\"*\" level=\"default\" target=\"{dir}/ircd.log\">
             <path datadir=\"{dir}\" logdir=\"{dir}\" runtimedir=\"{dir}\">\n",
            ca_pem.display(),
            cert.display(),
            key.display()
        );
        if accounts == Accounts::Tags {
            conf.push_str("<module name=\"ircv3_accounttag\"> <module name=\"ircv3_ctctags\">\n");
        }
        if let Some(links) = links {
            for module in [
                "spanningtree",
                "services_account",
                "sslinfo",
                "sasl",
                "hidechans",
                "servprotect",
                "chghost",
                "svshold",
                "rline",
            ] {
                let _ = writeln!(conf, "<module name=\"{module}\">");
            }
            let _ = write!(
                conf,
                "<module name=\"regex_stdlib\"> <sasl target=\"services.lab.test\" requiressl=\"no\">
                 <bind address=\"127.0.0.1\" port=\"{links}\" type=\"servers\">
                 <link name=\"services.lab.test\" ipaddr=\"127.0.0.1\" port=\"{links}\" allowmask=\"127.0.0.1\"
                  sendpass=\"linkpw\" recvpass=\"linkpw\">
                 <uline server=\"services.lab.test\" silent=\"yes\">\n"
            );
        }
        conf
    }

    /// Atheme, linked, with its account.
    fn start_services(&mut self, links: u16) {
        let mut conf = String::new();
        for module in [
            "protocol/inspircd",
            "backend/opensex",
            "crypto/pbkdf2",
            "nickserv/main",
            "nickserv/register",
            "nickserv/identify",
            "nickserv/cert",
            "saslserv/main",
            "saslserv/plain",
            "saslserv/external",
        ] {
            let _ = writeln!(conf, "loadmodule \"modules/{module}\";");
        }
        let _ = write!(
            conf,
            "serverinfo {{ name = \"services.lab.test\"; desc = \"services\"; numeric = \"00A\"; recontime = 1;
               netname = \"Lab\"; hidehostsuffix = \"users.lab.test\"; adminname = \"a\"; adminemail = \"a@lab.test\";
               registeremail = \"a@lab.test\"; mta = \"/bin/true\"; loglevel = {{ error; info; }}; maxcertfp = 0;
               maxlogins = 5; maxusers = 0; mdlimit = 30; emaillimit = 10; emailtime = 300; auth = none;
               casemapping = rfc1459; }};
             uplink \"irc.lab.test\" {{ host = \"127.0.0.1\"; send_password = \"linkpw\"; receive_password = \"linkpw\";
               port = {links}; }};
             nickserv {{ }}; saslserv {{ }}; database {{ }}; general {{ permissive_mode_of_operation; }};\n"
        );
        fs::write(self.path("atheme.conf"), conf).expect("written");
        let mut command = unprivileged("atheme-services");
        command.arg("-n").arg("-c").arg(self.path("atheme.conf")).arg("-l").arg(self.path("atheme.log"));
        command.arg("-p").arg(self.path("atheme.pid")).arg("-D").arg(self.dir.path());
        self.services = Some(servers::start(&mut command, self.dir.path(), "atheme"));
        wait_for("the account is registered", || self.register_account());
    }

    /// Whether the services are there and have made the account.
    fn register_account(&self) -> Option<()> {
        let (nick, password) = ACCOUNT;
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
        write!(stream, "NICK {nick}\r\nUSER {nick} 0 * :{nick}\r\n").ok()?;
        let lines = BufReader::new(stream.try_clone().ok()?).lines();
        for line in lines.map_while(Result::ok) {
            if let Some(token) = line.strip_prefix("PING ") {
                write!(stream, "PONG {token}\r\n").ok()?;
            } else if line.contains(" 422 ") || line.contains(" 376 ") {
                write!(stream, "PRIVMSG NickServ :REGISTER {password} {nick}@lab.test\r\n").ok()?;
            } else if line.contains(" 401 ") {
                // The services are not linked yet.
                std::thread::sleep(Duration::from_millis(100));
                return None;
            } else if line.contains("now registered") || line.contains("already registered") {
                return Some(());
            }
        }
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for name in ["ircd.out", "ircd.log", "atheme.out", "atheme.log"] {
            let read = || fs::read(self.path(name)).unwrap_or_default();
            servers::print_tail_on_failure(name, || String::from_utf8_lossy(&read()).into_owned());
        }
    }
}

/// The way to a server that leads nowhere until somebody opens it: whoever takes it is there later than a reader.
#[derive(Debug)]
pub struct Gate {
    /// On 127.0.0.1.
    pub port: u16,
    is_open: Arc<AtomicBool>,
}

impl Gate {
    /// A way to this port, open.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let is_open = Arc::new(AtomicBool::new(true));
        let opened = is_open.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Who comes too early is hung up on, as by a server that is away.
                if opened.load(Ordering::SeqCst)
                    && let Ok(server) = TcpStream::connect(("127.0.0.1", server))
                {
                    pass(&client, &server);
                    pass(&server, &client);
                }
            }
        });
        Self { port, is_open }
    }

    /// Lets people through from now on, or not. Who is through stays.
    pub fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::SeqCst);
    }
}

/// Passes on what comes from one side, until either ends.
fn pass(from: &TcpStream, to: &TcpStream) {
    let [mut from, mut to] = [from, to].map(|stream| stream.try_clone().expect("a descriptor"));
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

/// A line that somebody said in a channel.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was heard.
    pub at: Instant,
    /// Where.
    pub channel: String,
    /// Who said it.
    pub nick: String,
    /// What, with its colours.
    pub text: String,
}

/// Somebody in channels, on a thread of their own, until dropped.
#[derive(Debug)]
pub struct Observer {
    heard: Arc<Mutex<Heard>>,
    commands: mpsc::UnboundedSender<String>,
}

#[derive(Debug, Default)]
struct Heard {
    /// The channels whose list of names was shown, which is the end of joining.
    joined: Vec<String>,
    lines: Vec<Line>,
    /// Everything, as it came.
    all: Vec<String>,
}

impl Observer {
    /// Comes as `nick` and joins the channels, each with its key or an empty one. The first in a channel of InspIRCd is its
    /// operator.
    #[track_caller]
    pub fn join(port: u16, nick: &str, channels: &[(&str, &str)]) -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (commands, orders) = mpsc::unbounded_channel();
        let keys = channels.iter().filter(|(_, key)| !key.is_empty());
        let config = Config {
            nickname: Some(nick.to_owned()),
            server: Some("127.0.0.1".to_owned()),
            port: Some(port),
            channels: channels.iter().map(|(name, _)| (*name).to_owned()).collect(),
            channel_keys: keys.map(|(name, key)| ((*name).to_owned(), (*key).to_owned())).collect(),
            ..Config::default()
        };
        let writer = heard.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(observe(config, orders, &writer));
        });
        let observer = Self { heard, commands };
        wait_for(&format!("{nick} is in its channels"), || {
            let heard = observer.heard.lock().expect("no panic");
            channels.iter().all(|(name, _)| heard.joined.iter().any(|joined| joined == name)).then_some(())
        });
        observer
    }

    /// Logs in to [`ACCOUNT`].
    #[track_caller]
    pub fn log_in(&self) {
        self.say(&format!("PRIVMSG NickServ :IDENTIFY {} {}", ACCOUNT.0, ACCOUNT.1));
        self.wait_for_any("now identified");
    }

    /// What was said in a channel, or to a nick, so far.
    pub fn lines(&self, channel: &str) -> Vec<Line> {
        let heard = self.heard.lock().expect("no panic");
        heard.lines.iter().filter(|line| line.channel == channel).cloned().collect()
    }

    /// The first line of a channel that contains `text`, when it is there.
    #[track_caller]
    pub fn wait_for(&self, channel: &str, text: &str) -> Line {
        wait_for(&format!("{text:?} in {channel}"), || {
            self.lines(channel).into_iter().find(|line| line.text.contains(text))
        })
    }

    /// Waits until the server has said something that contains `text`, be it a JOIN or a MODE.
    #[track_caller]
    pub fn wait_for_any(&self, text: &str) {
        wait_for(&format!("the server says {text:?}"), || {
            let heard = self.heard.lock().expect("no panic");
            heard.all.iter().any(|line| line.contains(text)).then_some(())
        });
    }

    /// Whether the connection has ended, and all that came by it was heard.
    pub fn is_gone(&self) -> bool {
        self.commands.is_closed()
    }

    /// How often the server has said something that contains `text`.
    pub fn count(&self, text: &str) -> usize {
        self.heard.lock().expect("no panic").all.iter().filter(|line| line.contains(text)).count()
    }

    /// Says a line to the server, as it is.
    pub fn say(&self, line: &str) {
        self.commands.send(line.to_owned()).expect("the observer is there");
    }
}

/// Ends with the connection, or when the observer is dropped.
async fn observe(config: Config, mut orders: mpsc::UnboundedReceiver<String>, heard: &Mutex<Heard>) {
    let mut client = Client::from_config(config).await.expect("connects");
    client.identify().expect("says who it is");
    let mut stream = client.stream().expect("the stream, once");
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some(line) = order else { return };
                client.send(line.parse::<Message>().expect("a line of IRC")).expect("sent");
            }
            message = stream.next() => {
                let Some(Ok(message)) = message else { return };
                let mut heard = heard.lock().expect("no panic");
                heard.all.push(message.to_string());
                match &message.command {
                    Irc::PRIVMSG(channel, text) | Irc::NOTICE(channel, text) => {
                        let nick = message.source_nickname().unwrap_or_default().to_owned();
                        heard.lines.push(Line { at: Instant::now(), channel: channel.clone(), nick, text: text.clone() });
                    }
                    Irc::Response(Response::RPL_ENDOFNAMES, args) => heard.joined.extend(args.get(1).cloned()),
                    _ => (),
                }
            }
        }
    }
}
