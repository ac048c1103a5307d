//! A modelled ccollectd that costs next to nothing: one host's batch is encoded once, and only its name and the time are
//! patched in before it is written.
//!
//! It writes ZMTP itself, blocking: what the subscriber does not take yet waits in the kernel and then here, so nothing can
//! be lost on the way and no high-water mark drops anything.

use common::counters::Counters;
use common::message::{Alive, Beat, Epoch, ErrorBody, ErrorCode, Sample, Values, encode};
use common::query::Answer;
use common::questions::Questions;
use common::startup;
use common::time::UnixMillis;
use rmpv::Value;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tests::raw;
use tests::wait_for;

/// What is written at once, about.
const CHUNK_BYTES: usize = 64 << 10;
/// Attributes of each thing, and how many things a host with a hundred series has.
pub(crate) const ATTRIBUTES: [&str; 10] = [
    "used_bytes",
    "free_bytes",
    "used_percentage",
    "reads_per_s",
    "writes_per_s",
    "errors_per_s",
    "latency_ms",
    "queue",
    "in_flight",
    "total",
];
/// Stands in the template where the host's name will.
const HOST: [u8; 7] = *b"h000000";

/// The modelled ccollectd's sockets.
pub(crate) struct Feed {
    wire: Arc<Mutex<Wire>>,
}

/// The connection of the subscriber, once there is one.
#[derive(Default)]
struct Wire {
    stream: Option<UnixStream>,
    beat_at: Option<Instant>,
    epoch: Option<Epoch>,
}

impl Wire {
    /// Writes whole messages, and a beat before them if it is time for one.
    fn write(&mut self, messages: &[u8]) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        if self.beat_at.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            self.beat_at = Some(Instant::now());
            let beat = Beat {
                time: UnixMillis::now(),
                epoch: self.epoch.clone().expect("given with the sockets"),
                head_seq: 0,
                host: Some("bench".parse().expect("a host")),
                nth: None,
            };
            let own = alive("bench", &[]);
            let messages = [raw::message(&[b"beat.", &encode(&beat)]), raw::message(&[b"alive.bench!", &own])];
            stream.write_all(&messages.concat())?;
        }
        stream.write_all(messages)
    }
}

impl Feed {
    /// Binds `feed` and `feed-query` in `run`, and answers there with an empty journal.
    pub(crate) fn open(run: &Path, runtime: &tokio::runtime::Runtime) -> Self {
        let epoch = Epoch::random();
        let wire = Arc::new(Mutex::new(Wire { epoch: Some(epoch.clone()), ..Wire::default() }));
        let listener = UnixListener::bind(run.join("feed")).expect("the feed is ours");
        let accepting = wire.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                // One that breaks off redials.
                let _ = serve(stream, &accepting);
            }
        });
        let beating = wire.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(200));
                let _ = beating.lock().unwrap_or_else(PoisonError::into_inner).write(&[]);
            }
        });
        let mut questions = runtime
            .block_on(Questions::bind(&run.join("feed-query"), &Counters::default()))
            .expect("the questions are ours");
        runtime.spawn(async move {
            let started = Instant::now();
            while let Ok((route, frame)) = questions.recv().await {
                let Some((asker, request)) = questions.read(route, frame.as_ref()).await else { continue };
                let answer = match request.query.as_deref() {
                    Some("snapshot") => Ok(Answer::Lists {
                        plain: vec![("epoch", epoch.as_str().into()), ("seq", 0.into())],
                        lists: vec![
                            ("hosts", common::query::Rows::default()),
                            ("checks", common::query::Rows::default()),
                        ],
                    }),
                    Some("events") => Ok(Answer::Whole(Value::Map(vec![
                        ("epoch".into(), epoch.as_str().into()),
                        ("head_seq".into(), 0.into()),
                        ("events".into(), Value::Array(Vec::new())),
                    ]))),
                    Some("health") => {
                        let health = startup::health("ccollectd", Some(&epoch), 0, started, &Counters::default());
                        Ok(Answer::whole(&health))
                    }
                    _ => Err(ErrorBody::new(ErrorCode::UnknownRequest, "not modelled")),
                };
                questions.answer(asker, answer).await;
            }
        });
        Self { wire }
    }

    /// Until cprocessd has connected.
    pub(crate) fn wait_for_subscriber(&self) {
        wait_for("cprocessd connects to the feed", || {
            self.wire.lock().unwrap_or_else(PoisonError::into_inner).stream.is_some().then_some(())
        });
    }

    /// Whoever connected is gone; the next one will be another.
    pub(crate) fn forget_subscriber(&self) {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner).stream = None;
    }

    /// Writes whole messages as they are.
    pub(crate) fn write(&self, messages: &[u8]) {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner).write(messages).expect("cprocessd reads");
    }

    /// One sample of one number of the host `probe`.
    pub(crate) fn probe(&self, unit: &str, level: f64) {
        self.write(&probe(unit, level));
    }
}

/// The handshake, and then answers to PING.
fn serve(mut stream: UnixStream, wire: &Arc<Mutex<Wire>>) -> io::Result<()> {
    stream.write_all(&raw::GREETING)?;
    stream.read_exact(&mut [0; 64])?;
    stream.write_all(&raw::ready("PUB"))?;
    frame(&mut stream)?;
    let mut reader = stream.try_clone()?;
    let wire = wire.clone();
    wire.lock().unwrap_or_else(PoisonError::into_inner).stream = Some(stream);
    std::thread::spawn(move || {
        while let Ok((_, body)) = frame(&mut reader) {
            if let Some(pong) = pong(&body) {
                let mut wire = wire.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = wire.stream.as_mut().map(|stream| stream.write_all(&pong));
            }
        }
    });
    Ok(())
}

/// The answer to a PING (RFC 37): its context comes back, its time to live does not.
fn pong(body: &[u8]) -> Option<Vec<u8>> {
    let context = body.strip_prefix(b"\x04PING")?.get(2..)?;
    Some(raw::command(&[b"\x04PONG", context].concat()))
}

/// The next frame: its flags and its body.
fn frame(from: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    from.read_exact(&mut head)?;
    let length = if head[0] & 2 == 0 {
        u64::from(head[1])
    } else {
        let mut rest = [0; 7];
        from.read_exact(&mut rest)?;
        let mut all = [0; 8];
        all[0] = head[1];
        all[1..].copy_from_slice(&rest);
        u64::from_be_bytes(all)
    };
    let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    from.read_exact(&mut body)?;
    Ok((head[0], body))
}

/// A sign of life of a host behind these ccollectds.
fn alive(host: &str, via: &[&str]) -> Vec<u8> {
    encode(&Alive {
        host: host.parse().expect("a host"),
        time: UnixMillis::now(),
        via: via.iter().map(|via| via.parse().expect("a host")).collect(),
        inventory: "0".into(),
        addresses: None,
        goodbye: false,
        epoch: None,
        seq: None,
        origin: None,
    })
}

/// Signs of life of the first `hosts` hosts of a fleet, each a message.
pub(crate) fn signs_of_life(hosts: usize) -> Vec<u8> {
    (0..hosts)
        .flat_map(|host| {
            let name = name(host);
            raw::message(&[format!("alive.{name}!").as_bytes(), &alive(&name, &["bench"])])
        })
        .collect()
}

fn sample(host: &str, resource: &str, unit: &str, values: Vec<(&str, f64)>) -> Sample {
    let name = |text: &str| text.parse().expect("a name");
    Sample {
        host: host.parse().expect("a host"),
        from: host.parse().expect("a host"),
        service: name("app"),
        time: UnixMillis::now(),
        interval_ms: 0,
        resource: name(resource),
        unit: unit.parse().expect("a unit"),
        values: Values(values.into_iter().map(|(attribute, value)| (name(attribute), value)).collect()),
        backfill: false,
    }
}

/// A message with one number of `probe!app.probe:UNIT.level`.
pub(crate) fn probe(unit: &str, level: f64) -> Vec<u8> {
    raw::message(&[b"value.probe!", &encode(&sample("probe", "probe", unit, vec![("level", level)]))])
}

/// Many hosts with the same series.
pub(crate) struct Fleet {
    pub(crate) hosts: usize,
    /// Numbers of each host, and of each of its samples.
    pub(crate) series: usize,
    pub(crate) grouped: usize,
    /// One host's batch as it goes over the wire.
    template: Vec<u8>,
    hosts_at: Vec<usize>,
    times_at: Vec<usize>,
}

fn resource(thing: usize) -> String {
    format!("pool{thing}")
}

/// The name of a host of a fleet.
pub(crate) fn name(host: usize) -> String {
    format!("h{host:06}")
}

impl Fleet {
    /// `things` of ten numbers on each host, each with all its numbers in one sample.
    pub(crate) fn new(hosts: usize, things: usize) -> Self {
        let samples = (0..things).map(|thing| {
            let values = ATTRIBUTES.iter().enumerate().map(|(i, name)| (*name, thing as f64 + i as f64 / 4.0));
            sample(&String::from_utf8_lossy(&HOST), &resource(thing), &format!("/data/{thing}"), values.collect())
        });
        Self::of_samples(hosts, &samples.collect::<Vec<_>>())
    }

    /// A hundred numbers on each host, each a thing of its own: they have nothing in common, so none costs more.
    pub(crate) fn ungrouped(hosts: usize) -> Self {
        Self::single(hosts, |n| format!("/data/{n}"))
    }

    /// A hundred numbers of ten things on each host, but each in a sample of its own.
    pub(crate) fn scattered(hosts: usize) -> Self {
        Self::single(hosts, |n| format!("/data/{}", n / ATTRIBUTES.len()))
    }

    fn single(hosts: usize, unit: impl Fn(usize) -> String) -> Self {
        let samples = (0..100).map(|n| {
            let values = vec![(ATTRIBUTES[n % ATTRIBUTES.len()], n as f64 / 4.0)];
            sample(&String::from_utf8_lossy(&HOST), &resource(n / ATTRIBUTES.len()), &unit(n), values)
        });
        Self::of_samples(hosts, &samples.collect::<Vec<_>>())
    }

    fn of_samples(hosts: usize, samples: &[Sample]) -> Self {
        let template = raw::message(&[&[b"value.", &HOST[..], b"!"].concat(), &encode(&samples)]);
        let at = |needle: &[u8]| -> Vec<usize> {
            let found = template.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle);
            found.map(|(at, _)| at).collect()
        };
        // The key, and the mark of 64 bits that every date of ours has.
        let times_at: Vec<usize> = at(b"\xa4time\xcf").into_iter().map(|at| at + 6).collect();
        assert_eq!(times_at.len(), samples.len(), "a date in each sample");
        let hosts_at = at(&HOST);
        let series = samples.iter().map(|sample| sample.values.0.len()).sum();
        Self { hosts, series, grouped: series / samples.len(), template, hosts_at, times_at }
    }

    /// All its numbers.
    pub(crate) fn all_series(&self) -> usize {
        self.hosts * self.series
    }

    /// Appends one host's batch of this moment.
    pub(crate) fn put(&self, out: &mut Vec<u8>, host: usize, time: UnixMillis) {
        let start = out.len();
        out.extend_from_slice(&self.template);
        let wire = &mut out[start..];
        let mut digits = HOST;
        let mut rest = host;
        for digit in digits[1..].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
        }
        for &at in &self.hosts_at {
            wire[at..at + digits.len()].copy_from_slice(&digits);
        }
        let time = time.0.to_be_bytes();
        for &at in &self.times_at {
            wire[at..at + 8].copy_from_slice(&time);
        }
    }

    /// One batch of every host, as fast as it is taken. Returns the date that it carries.
    pub(crate) fn round(&self, feed: &Feed) -> UnixMillis {
        let time = UnixMillis::now();
        let mut chunk = Vec::with_capacity(2 * CHUNK_BYTES);
        for host in 0..self.hosts {
            self.put(&mut chunk, host, time);
            if chunk.len() >= CHUNK_BYTES {
                feed.write(&chunk);
                chunk.clear();
            }
        }
        feed.write(&chunk);
        time
    }
}

/// Numbers at a steady rate, one host's batch after the other.
pub(crate) struct Pace<'a> {
    fleet: &'a Fleet,
    every: Duration,
    due: Instant,
    host: usize,
    /// Numbers so far.
    pub(crate) sent: usize,
}

impl<'a> Pace<'a> {
    pub(crate) fn new(fleet: &'a Fleet, values_per_s: usize) -> Self {
        let every = Duration::from_secs_f64(fleet.series as f64 / values_per_s as f64);
        Self { fleet, every, due: Instant::now(), host: 0, sent: 0 }
    }

    /// Writes what is due, waiting a little for it.
    pub(crate) fn step(&mut self, feed: &Feed) {
        std::thread::sleep(Duration::from_millis(1));
        let (now, time) = (Instant::now(), UnixMillis::now());
        let mut chunk = Vec::new();
        while self.due <= now && chunk.len() < CHUNK_BYTES {
            self.fleet.put(&mut chunk, self.host, time);
            self.host = (self.host + 1) % self.fleet.hosts;
            self.sent += self.fleet.series;
            self.due += self.every;
        }
        feed.write(&chunk);
    }
}
