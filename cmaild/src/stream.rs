//! What the dialogue runs over. lettre reads a line to its end before it looks at its length, and anybody on the way, or a
//! server gone mad, can send one without an end: so the connection itself has a bound.
//!
//! lettre also keeps what it has read ahead when TLS begins. Whoever is on the way could put answers behind the one to
//! STARTTLS that would then pass for the server's own: a mail would count as accepted that nobody has. So nothing may follow
//! that answer.

use common::counters::Counters;
use lettre::transport::smtp::client::AsyncTokioStream;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Bytes that the server may say in a row without being asked: certificates and a long EHLO reply are a tenth of it.
const MAX_REPLY_BYTES: usize = 256 * 1024;

/// After this command nothing but one reply may come in the clear (RFC 3207 §4.2).
const STARTTLS: &[u8] = b"STARTTLS\r\n";

/// A TCP connection whose other side may say only so much in a row, and after STARTTLS only one reply.
#[derive(Debug)]
pub(crate) struct Bounded {
    stream: TcpStream,
    /// Bytes that may still come before we say something.
    left: usize,
    /// What came since STARTTLS, until we speak again.
    since_starttls: Option<Vec<u8>>,
    counters: Counters,
}

impl Bounded {
    pub(crate) fn new(stream: TcpStream, counters: Counters) -> Self {
        Self { stream, left: MAX_REPLY_BYTES, since_starttls: None, counters }
    }
}

impl AsyncTokioStream for Bounded {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for Bounded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let came = &buf.filled()[before..];
        let Some(left) = self.left.checked_sub(came.len()) else {
            self.counters.count("smtp", "answer_too_long");
            let text = format!("the reply is longer than {MAX_REPLY_BYTES} bytes");
            return Poll::Ready(Err(io::Error::other(text)));
        };
        self.left = left;
        if let Some(reply) = &mut self.since_starttls {
            reply.extend_from_slice(came);
            if goes_on_after_its_end(reply) {
                self.counters.count("smtp", "after_starttls");
                return Poll::Ready(Err(io::Error::other("something follows the reply to STARTTLS")));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether something follows a reply: its last line has a space after the code, or nothing (RFC 5321 §4.2.1).
fn goes_on_after_its_end(reply: &[u8]) -> bool {
    let mut lines = reply.split_inclusive(|byte| *byte == b'\n');
    let last = lines.find(|line| line.ends_with(b"\n") && line.get(3) != Some(&b'-'));
    last.is_some() && lines.next().is_some()
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.left = MAX_REPLY_BYTES;
        self.since_starttls = (buf == STARTTLS).then(Vec::new);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// TLS over it, from the first byte.
#[derive(Debug)]
pub(crate) struct Encrypted(pub(crate) TlsStream<Bounded>);

impl AsyncTokioStream for Encrypted {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().0.peer_addr()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_with_the_first_line_that_announces_no_other() {
        for whole in ["", "220", "220 go", "220 go\r\n", "220-a\r\n220-b\r\n", "220-a\r\n220 b\r\n"] {
            assert!(!goes_on_after_its_end(whole.as_bytes()), "{whole:?}");
        }
        for more in ["220 go\r\n2", "220 go\r\n250 ok\r\n", "220-a\r\n220 b\r\n\r\n", "\r\n220 go"] {
            assert!(goes_on_after_its_end(more.as_bytes()), "{more:?}");
        }
    }
}
