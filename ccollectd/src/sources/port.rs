//! Whether something answers on a TCP port.
//!
//! A connection that is made is enough: what is spoken on it is for other probes. One lost packet
//! is not an outage, so a probe may try several times; that it had to is part of its answer,
//! because an engine further on may call it a blip.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};

/// How long the other side gets to close after us.
const PARTING: Duration = Duration::from_millis(100);

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortResult {
    pub(crate) up: bool,
    /// Attempts that failed before the one that counts.
    pub(crate) retries: u32,
    /// For people, such as `connected in 0.3 ms` or `connection refused`.
    pub(crate) text: String,
    /// How long the connection took to be made, without looking up the name. Zero where none was.
    pub(crate) connect: Duration,
}

/// Tries up to `attempts` times (but once at least) to connect to `address`, which is `host:port`
/// or `[::1]:port`.
///
/// An attempt, including the look-up of the name, takes at most `limit`; between two attempts it
/// waits for `pause`. All addresses of a name are tried in turn, each with an equal part of the
/// time that is left, so that a dead first address does not hide a living second one. It can be
/// cancelled at any point.
pub(crate) async fn probe(address: &str, attempts: u32, limit: Duration, pause: Duration) -> PortResult {
    repeat(attempts, pause, || attempt(address, limit)).await
}

async fn repeat<A>(attempts: u32, pause: Duration, mut attempt: impl FnMut() -> A) -> PortResult
where
    A: Future<Output = Result<Duration, Failure>>,
{
    let mut retries = 0;
    loop {
        match attempt().await {
            Ok(connect) => {
                let text = format!("connected in {:.1} ms", connect.as_secs_f64() * 1000.0);
                return PortResult { up: true, retries, text, connect };
            }
            Err(failure) if retries.saturating_add(1) >= attempts => {
                return PortResult { up: false, retries, text: failure.to_string(), connect: Duration::ZERO };
            }
            Err(_) => {
                retries += 1;
                sleep(pause).await;
            }
        }
    }
}

/// Why an attempt came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("name not found: {}", plain(.0))]
    NoSuchName(io::Error),
    #[error("name not found: it has no address")]
    NoAddress,
    /// What the operating system says: refused, unreachable.
    #[error("{}", plain(.0))]
    NotConnected(io::Error),
    #[error("timed out after {0:?}")]
    TimedOut(Duration),
}

/// The words of a system error, without its number and capital: `connection refused`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let words = words.strip_prefix("failed to lookup address information: ").unwrap_or(words);
    let mut characters = words.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

/// Connects once; returns how long that took.
async fn attempt(address: &str, limit: Duration) -> Result<Duration, Failure> {
    let begin = Instant::now();
    let found = timeout(limit, lookup_host(address)).await.map_err(|_| Failure::TimedOut(limit))?;
    let addresses: Vec<SocketAddr> = found.map_err(Failure::NoSuchName)?.collect();

    let mut failure = Failure::NoAddress;
    let mut untried = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let start = Instant::now();
        let share = limit.saturating_sub(begin.elapsed()) / untried.max(1);
        untried = untried.saturating_sub(1);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) if is_own_echo(&stream) => {
                failure = Failure::NotConnected(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(Ok(stream)) => {
                let connect = start.elapsed();
                part(stream).await;
                return Ok(connect);
            }
            Ok(Err(error)) => failure = Failure::NotConnected(error),
            Err(_) => failure = Failure::TimedOut(limit),
        }
    }
    Err(failure)
}

/// Whether a connection leads from a port to itself.
///
/// The kernel makes one of those when it happens to give us, for the way out, the very port of this
/// machine that we look for: nobody listens there, and yet the connection is made.
fn is_own_echo(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(here), Ok(there)) if here == there)
}

/// Closes a connection so that the server sees an end and not a reset, which many of them log.
///
/// Closing while the server's greeting is unread resets; so it is read and thrown away.
async fn part(mut stream: TcpStream) {
    let goodbye = async {
        stream.shutdown().await?;
        let mut greeting = [0; 512];
        while stream.read(&mut greeting).await? > 0 {}
        io::Result::Ok(())
    };
    // The port has answered: neither an error nor a server that talks on without end changes that.
    let _ = timeout(PARTING, goodbye).await;
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn once(address: &str, limit: Duration) -> PortResult {
        probe(address, 1, limit, Duration::ZERO).await
    }

    /// A port that nobody listens on and nobody else can take.
    fn reserved() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn a_listening_port_is_up() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let result = once(&listener.local_addr().unwrap().to_string(), SECOND).await;
        assert!(result.up && result.retries == 0, "{result:?}");
        assert!(result.text.starts_with("connected in ") && result.text.ends_with(" ms"), "{result:?}");
        assert!(result.connect > Duration::ZERO && result.connect < SECOND);
    }

    #[tokio::test]
    async fn a_port_is_found_by_name_though_only_one_of_its_addresses_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(once(&format!("localhost:{port}"), SECOND).await.up);
    }

    #[tokio::test]
    async fn an_address_in_brackets_is_version_six() {
        // A machine may be without it.
        let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else {
            return;
        };
        let port = listener.local_addr().unwrap().port();
        assert!(once(&format!("[::1]:{port}"), SECOND).await.up);
    }

    #[tokio::test]
    async fn nobody_listening_is_refused() {
        let (_socket, address) = reserved();
        let result = probe(&address.to_string(), 3, SECOND, Duration::ZERO).await;
        let expected =
            PortResult { up: false, retries: 2, text: "connection refused".to_owned(), connect: Duration::ZERO };
        assert_eq!(result, expected);
    }

    #[tokio::test]
    async fn a_connection_to_itself_is_told_from_a_server() {
        let (socket, address) = reserved();
        assert!(is_own_echo(&socket.connect(address).await.unwrap()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!is_own_echo(&TcpStream::connect(address).await.unwrap()));
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_times_out() {
        // With its queue full, the kernel ignores who knocks, like a firewall that drops.
        let (socket, address) = reserved();
        let _listener = socket.listen(1).unwrap();
        let (_one, _two) = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let start = Instant::now();
        let result = once(&address.to_string(), Duration::from_millis(150)).await;
        assert_eq!((result.up, result.text.as_str()), (false, "timed out after 150ms"));
        assert!(start.elapsed() < 10 * SECOND);
    }

    #[tokio::test]
    async fn a_server_that_comes_back_between_attempts_is_up_after_retries() {
        let (socket, address) = reserved();
        let address = address.to_string();
        let mut socket = Some(socket);
        let mut listener = None;
        let mut attempts = 0;
        let result = repeat(5, Duration::ZERO, || {
            attempts += 1;
            if attempts == 3 {
                listener = socket.take().map(|socket| socket.listen(8).unwrap());
            }
            attempt(&address, SECOND)
        })
        .await;
        assert_eq!((result.up, result.retries), (true, 2));
        assert!(listener.is_some());
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_told_apart() {
        let result = once("no..such..name:80", 10 * SECOND).await;
        assert!(!result.up && result.text.starts_with("name not found: "), "{result:?}");
        let result = once("no port", SECOND).await;
        assert!(!result.up && result.text.starts_with("name not found: "), "{result:?}");
    }

    #[tokio::test]
    async fn no_attempts_is_one_attempt() {
        let (_socket, address) = reserved();
        let result = probe(&address.to_string(), 0, SECOND, Duration::ZERO).await;
        assert_eq!((result.up, result.retries), (false, 0));
    }

    #[tokio::test]
    async fn a_server_with_a_greeting_sees_an_end_and_not_a_reset() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 mail ready\r\n").await.unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await
        };
        let (result, heard) = tokio::join!(once(&address, SECOND), server);
        assert!(result.up);
        assert_eq!(heard.unwrap(), 0, "an end without data");
    }

    #[tokio::test]
    async fn a_probe_can_run_on_any_thread() {
        let (_socket, address) = reserved();
        let address = address.to_string();
        let task = tokio::spawn(async move { once(&address, SECOND).await });
        assert!(!task.await.unwrap().up);
    }

    #[tokio::test]
    async fn a_limit_without_end_is_no_panic() {
        let (_socket, address) = reserved();
        assert!(!once(&address.to_string(), Duration::MAX).await.up);
    }

    #[test]
    fn system_errors_are_told_in_plain_words() {
        assert_eq!(plain(&io::Error::from_raw_os_error(113)), "no route to host");
        assert_eq!(plain(&io::Error::other("")), "");
    }
}
