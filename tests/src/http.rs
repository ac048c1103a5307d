//! A tiny HTTP client that does what a test says and nothing of its own: HTTP/1.0, one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What came back.
#[derive(Debug)]
pub struct Response {
    /// The status, 0 where the connection ended without one.
    pub status: u16,
    /// The headers, as they came.
    pub headers: Vec<(String, String)>,
    /// The body, up to the end of the connection.
    pub body: Vec<u8>,
}

impl Response {
    /// A header by its name in lower case, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }
}

/// Connects to this port of 127.0.0.1; whatever takes longer than 20 s is an error.
pub fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

/// `METHOD PATH` with these headers, `Host: localhost` among them unless they have one, and this body.
pub fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Response> {
    let mut stream = connect(port)?;
    stream.write_all(&head(method, path, headers, body.len()))?;
    // Who refuses a body need not read it.
    let _ = stream.write_all(body);
    read(stream)
}

/// GET, which must be answered.
#[track_caller]
pub fn get(port: u16, path: &str, headers: &[(&str, &str)]) -> Response {
    request(port, "GET", path, headers, b"").unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

/// A form, which must be answered.
#[track_caller]
pub fn post(port: u16, path: &str, headers: &[(&str, &str)], form: &str) -> Response {
    let with_type = [headers, &[("Content-Type", "application/x-www-form-urlencoded")]].concat();
    request(port, "POST", path, &with_type, form.as_bytes()).unwrap_or_else(|error| panic!("POST {path}: {error}"))
}

fn head(method: &str, path: &str, headers: &[(&str, &str)], body_bytes: usize) -> Vec<u8> {
    let mut lines = vec![format!("{method} {path} HTTP/1.0")];
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        lines.push("Host: localhost".to_owned());
    }
    if body_bytes > 0 {
        lines.push(format!("Content-Length: {body_bytes}"));
    }
    lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    (lines.join("\r\n") + "\r\n\r\n").into_bytes()
}

/// Reads an answer to its end.
pub fn read(stream: TcpStream) -> std::io::Result<Response> {
    let mut reader = BufReader::new(stream);
    let mut response = read_head(&mut reader)?;
    match reader.read_to_end(&mut response.body) {
        // Who refused without reading everything resets the connection after its answer.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        result => {
            result?;
        }
    }
    Ok(response)
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<Response> {
    let mut response = Response { status: 0, headers: Vec::new(), body: Vec::new() };
    let mut line = String::new();
    reader.read_line(&mut line)?;
    response.status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { return Ok(response) };
        response.headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
}

/// Server-sent events, one after the other.
#[derive(Debug)]
pub struct Events {
    reader: BufReader<TcpStream>,
}

impl Events {
    /// Follows a path; the answer must be 200.
    pub fn follow(port: u16, path: &str, headers: &[(&str, &str)]) -> std::io::Result<Self> {
        let mut stream = connect(port)?;
        stream.write_all(&head("GET", path, headers, 0))?;
        let mut reader = BufReader::new(stream);
        let response = read_head(&mut reader)?;
        if response.status != 200 {
            return Err(std::io::Error::other(format!("status {}", response.status)));
        }
        Ok(Self { reader })
    }

    /// Waits for the next event; its data with it, none at the end.
    pub fn read(&mut self) -> Option<(String, serde_json::Value)> {
        let (mut event, mut data) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end_matches('\n').split_once(": ") {
                Some(("event", value)) => value.clone_into(&mut event),
                Some(("data", value)) => value.clone_into(&mut data),
                Some(_) => {}
                None => return Some((event, serde_json::from_str(&data).expect("data is JSON"))),
            }
        }
    }
}
