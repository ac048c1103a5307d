//! A ZMTP 3.1 peer byte by byte (RFC 37), for what no ZeroMQ library would send.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The greeting of a peer without security.
pub const GREETING: [u8; 64] = {
    let mut greeting = [0; 64];
    (greeting[0], greeting[9], greeting[10], greeting[11]) = (0xff, 0x7f, 3, 1);
    let mechanism = *b"NULL";
    let mut i = 0;
    while i < mechanism.len() {
        greeting[12 + i] = mechanism[i];
        i += 1;
    }
    greeting
};

/// What a frame's first byte says.
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// One connection.
#[derive(Debug)]
pub struct Raw(pub UnixStream);

impl Raw {
    /// Connected, and nothing said. The other side must not keep us: what it does not take or say in 5 s is an error.
    pub fn connect(socket: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self(stream))
    }

    /// Through the handshake, as a socket of this type.
    pub fn handshake(socket: &Path, socket_type: &str) -> std::io::Result<Self> {
        let mut raw = Self::connect(socket)?;
        raw.0.write_all(&GREETING)?;
        raw.0.write_all(&ready(socket_type))?;
        raw.0.read_exact(&mut [0; 64])?;
        let mut header = [0; 2];
        raw.0.read_exact(&mut header)?;
        raw.0.read_exact(&mut vec![0; header[1].into()])?;
        Ok(raw)
    }

    /// Sends a message of these frames.
    pub fn send(&mut self, frames: &[&[u8]]) -> std::io::Result<()> {
        self.0.write_all(&message(frames))
    }

    /// Takes all there is until the other side closes; true if it does so in time.
    pub fn is_dropped(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}

/// A message of these frames.
pub fn message(frames: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (i, body) in frames.iter().enumerate() {
        let more = if i + 1 < frames.len() { MORE } else { 0 };
        frame(&mut bytes, more, body);
    }
    bytes
}

/// The command READY.
pub fn ready(socket_type: &str) -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type".to_vec();
    body.extend(u32::try_from(socket_type.len()).expect("short").to_be_bytes());
    body.extend(socket_type.as_bytes());
    command(&body)
}

/// The command SUBSCRIBE.
pub fn subscribe(prefix: &[u8]) -> Vec<u8> {
    command(&[b"\x09SUBSCRIBE", prefix].concat())
}

/// A command of these bytes.
pub fn command(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(&mut bytes, COMMAND, body);
    bytes
}

/// The header of a frame that claims to have this many bytes.
pub fn claim(bytes: u64) -> Vec<u8> {
    [&[LONG][..], &bytes.to_be_bytes()].concat()
}

fn frame(bytes: &mut Vec<u8>, flags: u8, body: &[u8]) {
    match u8::try_from(body.len()) {
        Ok(length) => bytes.extend([flags, length]),
        Err(_) => {
            bytes.push(flags | LONG);
            bytes.extend((body.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(body);
}
