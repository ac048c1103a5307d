//! A recorded feed as a file: what `cctl record` writes and `cctl replay` reads.
//!
//! The file begins with the 8 bytes `CAIRNREC`. Then come records, each a length (u32, big-endian), the CRC-32 of as many
//! bytes (u32, big-endian; the polynomial of IEEE 802.3), and these bytes: one MessagePack map. The first is a [`Header`],
//! the others are [`Record`]s in the order of `at_ms`. The file only grows, so whatever ends the recorder leaves whole
//! records and at most one torn one at the end; a disk that changes what was written is noticed by the checksum.

use crate::failure::Failure;
use common::message::{decode, encode};
use common::time::UnixMillis;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What every recording begins with.
const MAGIC: &[u8; 8] = b"CAIRNREC";
/// The format that this cctl writes, and the newest that it reads.
const VERSION: u32 = 1;
/// No record is larger: the state of a whole feed is the largest, and what follows it in the map is small.
const MAX_RECORD_BYTES: usize = common::socket::MAX_ANSWER_BYTES + (64 << 10);

/// Who recorded what, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Of the format. A newer one is refused.
    pub(crate) version: u32,
    /// The recorder's wall clock at offset 0.
    pub(crate) began: UnixMillis,
    /// The PUB socket that was followed.
    pub(crate) feed: String,
    /// The version of the cctl that wrote it.
    pub(crate) cctl: String,
}

/// Something that came from the feed, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Milliseconds since the header's `began`, by the recorder's monotonic clock.
    pub(crate) at_ms: u64,
    /// What it is.
    pub(crate) what: What,
    /// What it was published under; empty for a snapshot and a tick.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) topic: String,
    /// The message as it came, in MessagePack; empty for a tick.
    #[serde(default, skip_serializing_if = "Payload::is_empty")]
    pub(crate) payload: Payload,
}

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    /// The whole state of the feed, as `snapshot` answers it. It replaces what came before.
    Snapshot,
    /// An entry of the feed's journal, published or asked for.
    Entry,
    /// A message without a place in the journal.
    Live,
    /// The feed's beat.
    Beat,
    /// Nothing came for a second, and we were listening. A longer gap without one means that we were not.
    Tick,
    /// Of a newer cctl: left out.
    #[serde(other)]
    Other,
}

/// Bytes, written as MessagePack's `bin` and not as an array of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Payload(pub(crate) Vec<u8>);

impl Payload {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Payload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Payload, E> {
                Ok(Payload(bytes.to_vec()))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Payload, E> {
                Ok(Payload(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// A recording that grows.
#[derive(Debug)]
pub(crate) struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    bytes: u64,
    records: u64,
}

impl Writer {
    /// A new file. One that is there already is left alone: two recordings in one file would be none.
    pub(crate) fn create(path: &Path, feed: &str, began: UnixMillis) -> Result<Self, Failure> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path);
        let file = file.map_err(|error| Failure::file("make", path, &error))?;
        let mut writer = Self { file: BufWriter::new(file), path: path.to_owned(), bytes: 0, records: 0 };
        let cctl = env!("CARGO_PKG_VERSION").to_owned();
        writer.put(MAGIC)?;
        writer.append(&Header { version: VERSION, began, feed: feed.to_owned(), cctl })?;
        Ok(writer)
    }

    /// Adds a record; who reads the file sees it after [`Self::flush`], and it is on the disk after [`Self::sync`].
    pub(crate) fn write(&mut self, record: &Record) -> Result<(), Failure> {
        self.records += 1;
        self.append(record)
    }

    fn append<T: Serialize>(&mut self, record: &T) -> Result<(), Failure> {
        let body = encode(record);
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_RECORD_BYTES);
        let length = length.ok_or_else(|| {
            Failure::Other(format!("a record of {} bytes, but at most {MAX_RECORD_BYTES} are kept", body.len()))
        })?;
        self.put(&length.to_be_bytes())?;
        self.put(&crc32(&body).to_be_bytes())?;
        self.put(&body)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| Failure::file("write to", &self.path, &error))
    }

    /// All that was written is in the file when this returns.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.file.flush().map_err(|error| Failure::file("write to", &self.path, &error))
    }

    /// All that was written is on the disk when this returns.
    pub(crate) fn sync(&mut self) -> Result<(), Failure> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_data());
        synced.map_err(|error| Failure::file("write to", &self.path, &error))
    }

    /// The size of the file so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records so far, without the header.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }
}

/// A recording that is read.
#[derive(Debug)]
pub(crate) struct Reader {
    file: BufReader<File>,
    path: PathBuf,
    header: Header,
    /// Where the next record begins.
    at: u64,
}

/// How a recording ends before its end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// The last record was being written when the recorder ended. Everything before it is as it was.
    #[error("its last {0} bytes were a torn record and are left out")]
    Torn(u64),
    /// It was changed after it was written.
    #[error("it is damaged at byte {at}: {why}; what follows is left out")]
    Damaged {
        /// Where the record begins.
        at: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// The next record, the end, or how it is broken.
pub(crate) type Next = Result<Option<Record>, Broken>;

impl Reader {
    /// Opens a recording and reads its header.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| Failure::file("read", path, &error))?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut magic = [0; 8];
        let is_ours = file.read_exact(&mut magic).is_ok() && magic == *MAGIC;
        let no_recording = |why: &str| Failure::Other(format!("{} is no recording: {why}", path.display()));
        if !is_ours {
            return Err(no_recording("it does not begin with CAIRNREC"));
        }
        let header = Header { version: 0, began: UnixMillis(0), feed: String::new(), cctl: String::new() };
        let mut reader = Self { file, path: path.to_owned(), header, at: 8 };
        reader.header = match reader.body() {
            Ok(Some(body)) => decode(&body).map_err(|error| no_recording(&format!("its header: {error}")))?,
            Ok(None) => return Err(no_recording("it has no header")),
            Err(broken) => return Err(no_recording(&broken.to_string())),
        };
        if reader.header.version > VERSION {
            return Err(Failure::Other(format!(
                "{} has format {} of cctl {}, but this one reads only up to {VERSION}",
                path.display(),
                reader.header.version,
                reader.header.cctl
            )));
        }
        Ok(reader)
    }

    /// Who recorded what, and when.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next record. After an error there is no other.
    pub(crate) fn next(&mut self) -> Next {
        let at = self.at;
        let Some(body) = self.body()? else { return Ok(None) };
        match decode(&body) {
            Ok(record) => Ok(Some(record)),
            Err(error) => Err(Broken::Damaged { at, why: error.to_string() }),
        }
    }

    fn body(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        let at = self.at;
        let damaged = |why: String| Broken::Damaged { at, why };
        let mut head = [0; 8];
        match self.fill(&mut head).map_err(|error| damaged(error.to_string()))? {
            0 => return Ok(None),
            8 => {}
            n => return Err(Broken::Torn(n as u64)),
        }
        let [a, b, c, d, sum @ ..] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(1..=MAX_RECORD_BYTES).contains(&length) {
            return Err(damaged(format!("a record of {length} bytes, but there are 1 to {MAX_RECORD_BYTES}")));
        }
        // Not at once: a length that lies must not cost memory.
        let mut body = Vec::new();
        let read = Read::by_ref(&mut self.file).take(length as u64).read_to_end(&mut body);
        read.map_err(|error| damaged(error.to_string()))?;
        if body.len() < length {
            return Err(Broken::Torn(8 + body.len() as u64));
        }
        if crc32(&body) != u32::from_be_bytes(sum) {
            return Err(damaged("its checksum is another one".to_owned()));
        }
        self.at += 8 + length as u64;
        Ok(Some(body))
    }

    /// As many bytes as there are, at most what fits.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// CRC-32 of IEEE 802.3, reflected, by a table.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0_u32;
        while n < 256 {
            let mut rest = n;
            let mut bit = 0;
            while bit < 8 {
                rest = if rest & 1 == 1 { (rest >> 1) ^ 0xedb8_8320 } else { rest >> 1 };
                bit += 1;
            }
            table[n as usize] = rest;
            n += 1;
        }
        table
    };
    let step = |sum: u32, byte: &u8| TABLE[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ (sum >> 8);
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn record(at_ms: u64, payload: &[u8]) -> Record {
        Record { at_ms, what: What::Live, topic: "value.web1!".into(), payload: Payload(payload.to_vec()) }
    }

    fn written(path: &Path) -> Vec<Record> {
        let records = vec![
            record(0, &[0xc0; 300]),
            Record { at_ms: 1000, what: What::Tick, topic: String::new(), payload: Payload::default() },
            record(1500, &[1, 2, 3]),
        ];
        let mut writer = Writer::create(path, "/run/cairn/feed", UnixMillis(1_795_236_306_000)).expect("a file");
        for record in &records {
            writer.write(record).expect("written");
        }
        writer.sync().expect("on the disk");
        assert_eq!(writer.bytes(), std::fs::metadata(path).expect("a file").len());
        records
    }

    /// All records and how it ended.
    fn read(path: &Path) -> (Vec<Record>, Option<Broken>) {
        let mut reader = Reader::open(path).expect("a recording");
        let mut records = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => return (records, None),
                Err(broken) => return (records, Some(broken)),
            }
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("r");
        let records = written(&path);
        assert_eq!(read(&path), (records, None));
        assert_eq!(Reader::open(&path).expect("a recording").header().began, UnixMillis(1_795_236_306_000));
        let error = Writer::create(&path, "", UnixMillis(0)).expect_err("it is there");
        assert!(error.to_string().contains("File exists"), "{error}");
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn wherever_it_is_cut_off_the_whole_records_are_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("r");
        let records = written(&path);
        let whole = std::fs::read(&path).expect("read");
        let header = 16 + u32::from_be_bytes(whole[8..12].try_into().expect("four bytes")) as usize;
        for length in header..whole.len() {
            std::fs::write(&path, &whole[..length]).expect("written");
            let (read, broken) = read(&path);
            assert_eq!(read, records[..read.len()]);
            assert!(matches!(broken, None | Some(Broken::Torn(_))), "{length}: {broken:?}");
        }
        for length in 0..header {
            std::fs::write(&path, &whole[..length]).expect("written");
            let error = Reader::open(&path).expect_err("no header");
            assert!(error.to_string().contains("is no recording"), "{error}");
        }
    }

    #[test]
    fn a_byte_that_was_changed_is_noticed_wherever_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("r");
        let records = written(&path);
        let whole = std::fs::read(&path).expect("read");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            std::fs::write(&path, &changed).expect("written");
            let Ok(_) = Reader::open(&path) else { continue };
            let (read, broken) = read(&path);
            assert!(broken.is_some(), "{at}");
            assert_eq!(read, records[..read.len()], "{at}");
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("r");
        let header = Header { version: 2, began: UnixMillis(0), feed: String::new(), cctl: "9.9.9".into() };
        let body = encode(&header);
        let mut file = MAGIC.to_vec();
        file.extend(u32::try_from(body.len()).expect("small").to_be_bytes());
        file.extend(crc32(&body).to_be_bytes());
        file.extend(body);
        std::fs::write(&path, file).expect("written");
        let error = Reader::open(&path).expect_err("newer").to_string();
        assert!(error.ends_with("has format 2 of cctl 9.9.9, but this one reads only up to 1"), "{error}");
    }
}
