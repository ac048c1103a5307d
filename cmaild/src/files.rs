//! The attachments of log events, as files of the mail that tells of them.
//!
//! The notifier's outbox keeps no attachments: with ten thousand events that wait, it would grow by hundreds of megabytes.
//! cprocessd's journal has them on disk, so they are asked for when a mail goes. A composed mail that may have some ends in
//! an epilogue (RFC 2046 §5.1.1), which no mail reader shows: a line `EPOCH SEQ NAME` for each event. Where the journal
//! cannot be asked, or has forgotten the event, the mail goes without and says so.

use common::message::{Epoch, Event, EventsPage, Kind, Request};
use common::notifier::{Mark, MessageId, Story};
use common::query::{ask_for, to_json};
use common::socket::Requester;
use lettre::message::SinglePart;
use lettre::message::header::{ContentDisposition, ContentTransferEncoding, ContentType};
use rmpv::Value;
use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Of one mail. The others stay in the journal.
const MAX_FILES: usize = 10;
/// Of all files of one mail, before they are encoded. cprocessd keeps 64 KiB of an attachment, of which JSON can make more.
const MAX_BYTES: usize = 1024 * 1024;
/// For all questions of one mail.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Of a file's name, without what it ends in.
const NAME_BYTES: usize = 60;

/// An event that may have an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    epoch: Epoch,
    seq: u64,
    /// Of the file, without what it ends in.
    name: String,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.epoch, self.seq, self.name)
    }
}

impl Wanted {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let epoch = Epoch::try_from(words.next()?.to_owned()).ok()?;
        Some(Self { epoch, seq: words.next()?.parse().ok()?, name: words.next()?.to_owned() })
    }
}

/// What parts a mail with attachments.
pub(crate) fn boundary(id: MessageId) -> String {
    format!("=_{id}_mixed")
}

/// The events that may have attachments: what a log or a plugin said once. Ours have no place in a journal, and what was
/// ordered says all in its text.
pub(crate) fn wanted(stories: &[Story]) -> Vec<Wanted> {
    let logs = stories.iter().filter(|story| story.mark == Mark::Once && story.event.kind == Kind::Log);
    let events = logs.map(|story| &story.event).filter(|event| event.seq > 0).take(MAX_FILES);
    events.map(|event| Wanted { epoch: event.epoch.clone(), seq: event.seq, name: name(event) }).collect()
}

/// `web1-app-checkout`: nothing in it means anything to a shell, a file system or a header.
fn name(event: &Event) -> String {
    let mut name = String::new();
    for part in [event.host.as_str(), event.service.as_str(), event.unit.as_str()] {
        let part = part.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        for word in part {
            if !name.is_empty() {
                name.push('-');
            }
            name.push_str(word);
        }
    }
    name.truncate(NAME_BYTES);
    name
}

/// The mail with what its epilogue asks for in its place.
pub(crate) async fn attached<'a>(id: MessageId, mail: &'a [u8], publishers: &[PathBuf]) -> Cow<'a, [u8]> {
    let Some((head, wanted)) = split(id, mail) else { return Cow::Borrowed(mail) };
    let deadline = Instant::now() + ASK_TIMEOUT;
    let mut parts = Vec::new();
    let mut bytes = 0;
    for (nth, wanted) in (1..).zip(&wanted) {
        // The first needs no number.
        let name = if nth == 1 { wanted.name.clone() } else { format!("{nth}-{}", wanted.name) };
        match ask(publishers, wanted, deadline).await {
            Ok(None) => {}
            Ok(Some(data)) => {
                let (ending, kind, content) = file(data);
                bytes += content.len();
                parts.push(if bytes <= MAX_BYTES {
                    part(&format!("{name}.{ending}"), kind, content)
                } else {
                    note(&format!("{name}.{ending} is left out: the attachments would have more than 1 MiB."))
                });
            }
            Err(why) => parts.push(note(&format!("Whether {name} has an attachment is not known: {why}."))),
        }
    }
    Cow::Owned(assembled(id, head, &parts))
}

/// A mail up to its last boundary, and what its epilogue names; nothing for one that wants nothing.
fn split(id: MessageId, mail: &[u8]) -> Option<(&[u8], Vec<Wanted>)> {
    let end = format!("\r\n--{}--\r\n", boundary(id));
    let at = mail.windows(end.len()).rposition(|window| window == end.as_bytes())?;
    let epilogue = std::str::from_utf8(&mail[at + end.len()..]).ok()?;
    Some((&mail[..at], epilogue.lines().filter_map(Wanted::parse).collect()))
}

fn assembled(id: MessageId, head: &[u8], parts: &[SinglePart]) -> Vec<u8> {
    let boundary = boundary(id);
    let mut mail = head.to_owned();
    for part in parts {
        mail.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        let part = part.formatted();
        mail.extend_from_slice(part.strip_suffix(b"\r\n").unwrap_or(&part));
    }
    mail.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    mail
}

/// What an attachment is as a file: how its name ends, what it is, and what is in it.
fn file(data: Value) -> (&'static str, ContentType, Vec<u8>) {
    let kind = |text: &str| ContentType::parse(text).expect("it is one");
    match data {
        Value::String(text) if text.is_str() => {
            ("txt", ContentType::TEXT_PLAIN, text.into_str().unwrap_or_default().into_bytes())
        }
        Value::String(text) => ("bin", kind("application/octet-stream"), text.into_bytes()),
        Value::Binary(bytes) => ("bin", kind("application/octet-stream"), bytes),
        data => {
            let mut json = format!("{:#}", to_json(data)).into_bytes();
            json.push(b'\n');
            ("json", kind("application/json"), json)
        }
    }
}

fn part(name: &str, content_type: ContentType, content: Vec<u8>) -> SinglePart {
    SinglePart::builder()
        .header(ContentDisposition::attachment(name))
        .header(content_type)
        .header(ContentTransferEncoding::Base64)
        .body(content)
}

fn note(text: &str) -> SinglePart {
    SinglePart::builder()
        .header(ContentDisposition::inline())
        .header(ContentType::TEXT_PLAIN)
        .header(ContentTransferEncoding::QuotedPrintable)
        .body(format!("{text}\n"))
}

/// The attachment of an event, by the publisher whose journal it is in.
async fn ask(publishers: &[PathBuf], wanted: &Wanted, deadline: Instant) -> Result<Option<Value>, String> {
    let request = Request {
        after: Some(wanted.seq - 1),
        epoch: Some(wanted.epoch.as_str().to_owned()),
        limit: Some(1),
        ..Request::query("events")
    };
    let mut why = "no cprocessd is followed".to_owned();
    for publisher in publishers {
        let mut questions = Requester::new(&question_socket(publisher));
        let asked = ask_for::<EventsPage<Event>>(&mut questions, &request, ASK_TIMEOUT);
        match timeout_at(deadline, asked).await {
            Ok(Ok(page)) => match page.events.into_iter().next() {
                Some(event) if event.seq == wanted.seq => return Ok(event.data),
                _ => "the journal no longer has the event".clone_into(&mut why),
            },
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => "cprocessd did not answer in time".clone_into(&mut why),
        }
    }
    Err(why)
}

/// The question socket beside a stream.
pub(crate) fn question_socket(stream: &Path) -> PathBuf {
    stream.with_file_name("query")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> MessageId {
        MessageId::parse("00000000-0000-4000-8000-000000000001").expect("an id")
    }

    #[test]
    fn only_what_has_an_epilogue_of_ours_is_taken_apart() {
        let wanted = Wanted { epoch: "4ab4".to_owned().try_into().expect("an epoch"), seq: 7, name: "a-b".to_owned() };
        let mail = format!("A: b\r\n\r\n--{0}\r\n\r\ntext\r\n--{0}--\r\n{wanted}\r\nnonsense\r\n", boundary(id()));
        let (head, found) = split(id(), mail.as_bytes()).expect("it has one");
        assert!(head.ends_with(b"\r\ntext"));
        assert_eq!(found, [wanted]);
        let other = MessageId::parse("00000000-0000-4000-8000-000000000002").expect("an id");
        assert_eq!(split(other, mail.as_bytes()), None);
        assert_eq!(split(id(), b"A: b\r\n\r\ntext\r\n"), None);
        let whole = String::from_utf8(assembled(id(), head, &[])).expect("text");
        assert!(mail.starts_with(&whole), "{whole}");
    }

    #[test]
    fn an_attachment_is_the_file_that_it_looks_like() {
        let of = |data: Value| {
            let (ending, _, content) = file(data);
            (ending, String::from_utf8_lossy(&content).into_owned())
        };
        assert_eq!(of("a\nb".into()), ("txt", "a\nb".to_owned()));
        assert_eq!(of(Value::Binary(vec![0, 1])), ("bin", "\0\u{1}".to_owned()));
        assert_eq!(
            of(Value::Map(vec![("order".into(), 4711.into())])),
            ("json", "{\n  \"order\": 4711\n}\n".to_owned())
        );
    }
}
