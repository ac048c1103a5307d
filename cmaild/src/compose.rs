//! Writes a mail (RFC 5322) about one story, or about several that waited together.
//!
//! **Names.** A mail's Message-ID is the frame's id for that message at our host: a mail that is sent again keeps it, and no
//! two mails share one, whatever they tell of and to whom. The root of a thread is `<INCIDENT@HOST>`, which no mail bears
//! itself: every mail about one incident has it first in its References, as the mails of a bug tracker name their bug. Mail
//! readers thread by it, also where the first mail was deleted or went to somebody else, or the incident was told twice. An
//! end is a reply to the mail that told of the beginning, be that a summary of many. A summary has no root, or it would pull
//! the threads of all its incidents together.
//!
//! **Date** is when this attempt was composed, which is what RFC 5322 §3.6.1 wants; what happened when is in the text.
//!
//! **Form.** Text and HTML say the same ([`entry`](crate::entry)), and the reader's program chooses. Attachments are not in
//! the outbox, which would have to hold ten thousand of them: a mail that wants some ends in an epilogue that names them, and
//! [`files`](crate::files) puts them in its place when it goes.
//!
//! **Room.** The first stories are told in full, the next by name, and what has no room by name is counted by host: a storm is one
//! mail, however large. Only a digest, and what follows one, waits for the next.
//!
//! **Others' words** reach the subject and the two texts only, made harmless by [`plain`]; sender and recipients come from
//! the configuration. Boundaries hold `=_`, which neither quoted-printable nor base64 can bring forth (RFC 2045 §6.7).

use crate::digest::Digest;
use crate::entry::{self, Entry, Section};
use crate::files::{self, Wanted};
use crate::medium::To;
use crate::{html, plain, text};
use common::address::HostName;
use common::message::IncidentId;
use common::notifier::{Cluster, Composed, Letter, MessageId, Story, clusters};
use common::severity::Severity;
use common::subscription::{Purpose, TokenKey};
use common::time::{UnixMillis, for_people};
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder, MultiPart, SinglePart};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

/// The text of a mail, before it is encoded. What has no room in it by name is counted.
const MAX_TEXT_BYTES: usize = 256 * 1024;
/// And the HTML.
const MAX_HTML_BYTES: usize = 512 * 1024;
/// Kept free in both for what surrounds the stories.
const FRAME_BYTES: usize = 8192;
/// And for what is only counted, by so many hosts.
const COUNTED_BYTES: usize = 48 * 1024;
const COUNTED_HOSTS: usize = 100;
/// Characters of a subject, and of the address in it: the word after the address must survive.
const SUBJECT_CHARS: usize = 200;
const SUBJECT_ADDRESS_CHARS: usize = 120;
/// Stories that are told in full. What is beyond is named, or counted.
const MAX_IN_FULL: usize = 100;
/// So many with something in common are said once, and so many of these stand at the top of a mail.
const MIN_CLUSTER: usize = 3;
const MAX_CLUSTERS: usize = 12;
/// Of those, in a subject.
const MAX_CLUSTERS_OF_SUBJECT: usize = 2;
/// Characters of an event's text, alone and among others.
const ALONE_CHARS: usize = 20_000;
const AMONG_OTHERS_CHARS: usize = 1000;
/// How long a link to agree by is good.
const AGREE_WITHIN: Duration = Duration::from_hours(7 * 24);
/// The last second that a mail's date can show, 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// What all our mails have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Composer {
    /// Our host, after the `@` of every Message-ID.
    pub host: HostName,
    /// The sender.
    pub from: Mailbox,
    /// For filters (RFC 2919), without the brackets.
    pub list_id: String,
    /// Where the page is, `https://cairn.example.org/`; without one there are no links.
    pub page: Option<String>,
    /// How subscribers agree and leave; without it there are none.
    pub subscriptions: Option<Subscriptions>,
    /// Whether there is an HTML part beside the text.
    pub html: bool,
}

/// The links by which subscribers agree and leave.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscriptions {
    /// Shared with cwebd.
    pub key: TokenKey,
    /// As [`Composer::page`].
    pub page: String,
}

/// What a mail says, before it is written as text or as HTML.
pub(crate) struct Content<'a> {
    /// The first line, where it is not that of the only entry.
    pub(crate) summary: Option<String>,
    /// What many of the stories have in common.
    pub(crate) common: Vec<String>,
    /// What the reader must know of this mail itself.
    pub(crate) notes: Vec<String>,
    pub(crate) entries: Vec<Entry>,
    /// What is told by its name or number only, or is no story.
    pub(crate) lists: Vec<List>,
    /// What is said in sentences, a paragraph each.
    pub(crate) words: Vec<String>,
    /// What the mail as a whole leads to.
    pub(crate) link: Option<Link>,
    /// Who speaks, and to whom.
    pub(crate) footer: String,
    /// Where a subscriber leaves.
    pub(crate) leave: Option<String>,
    pub(crate) subject: &'a str,
}

/// Where to go, for the text and for the HTML.
pub(crate) struct Link {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) url: String,
}

/// Rows of two parts: what it is about, and what there is to say of it.
pub(crate) struct List {
    pub(crate) title: String,
    pub(crate) rows: Vec<(String, String)>,
}

impl Composer {
    /// Writes all of the letter's stories into one mail, but a digest or a question has one to itself.
    pub fn compose(&self, to: &To, letter: &Letter<'_>) -> Composed {
        if let [story, ..] = letter.stories
            && let Some(digest) = Digest::of(story)
        {
            let letter = Letter { stories: &letter.stories[..1], ..*letter };
            return Composed { bytes: self.digest(to, &letter, &digest), told: 1 };
        }
        if let [story, ..] = letter.stories
            && story.is_question()
        {
            let letter = Letter { stories: &letter.stories[..1], ..*letter };
            return Composed { bytes: self.question(to, &letter, story), told: 1 };
        }
        let is_told = |story: &&Story| Digest::of(story).is_none() && !story.is_question();
        let told = letter.stories.iter().take_while(is_told).count();
        let stories = &letter.stories[..told];
        let (entries, mut lists, shown) = self.fitting(stories, letter.now);
        lists.extend(by_host(&stories[shown..]));
        let subject = subject(stories);
        let summary = (told > 1).then(|| format!("{}.", counts(stories)));
        let content =
            Content { summary, common: common(stories), entries, lists, ..self.content(to, letter, &subject) };
        let mut mail = self.headed(to, letter, &subject);
        mail = self.thread(mail, stories);
        mail = raw(mail, "X-Cairn-Severity", worst(stories).as_str());
        if let [story] = stories {
            mail = raw(mail, "X-Cairn-Incident", &story.incident().to_string());
            mail = raw(mail, "X-Cairn-Event", &story.event.id.to_string());
        }
        mail = raw(mail, "X-Cairn-Stories", &told.to_string());
        Composed { bytes: self.formatted(mail, letter.id, &content, &files::wanted(stories)), told }
    }

    fn digest(&self, to: &To, letter: &Letter<'_>, digest: &Digest) -> Vec<u8> {
        let zone = to.digest.as_ref().map_or_else(jiff::tz::TimeZone::system, |schedule| schedule.zone.clone());
        let subject = format!("{} on {}", digest.headline(), self.host);
        let mut content = Content {
            summary: Some(format!("{}.", digest.span(&zone))),
            lists: digest.lists(),
            link: self.page.clone().map(|url| Link { name: "Page", label: "Show the page", url }),
            ..self.content(to, letter, &subject)
        };
        content.notes.extend(digest.missing().map(|missing| format!("This digest is not complete: {missing}.")));
        if content.lists.is_empty() {
            content.notes.push("Nothing that you select was down or over a limit.".to_owned());
        }
        let mail = raw(self.headed(to, letter, &subject), "X-Cairn-Digest", digest.every());
        self.formatted(mail, letter.id, &content, &[])
    }

    /// Whether somebody who was subscribed wants to be told.
    fn question(&self, to: &To, letter: &Letter<'_>, story: &Story) -> Vec<u8> {
        let subject = format!("Do you want alerts from Cairn on {}?", self.host);
        let asked = plain::line(&story.event.text, ALONE_CHARS);
        let words = vec![
            format!("{asked}."),
            format!("Mails about what Cairn on {} watches would then come to this address.", self.host),
            format!(
                "To have them, open this page within {} and press the button. If you do nothing, none is sent.",
                for_people(AGREE_WITHIN)
            ),
        ];
        let expires =
            UnixMillis(story.event.time.0.saturating_add(AGREE_WITHIN.as_millis().try_into().unwrap_or(i64::MAX)));
        let link = self.subscriptions.as_ref().map(|Subscriptions { key, page }| {
            let url = key.link(page, Purpose::Confirm, letter.recipient, Some(expires));
            Link { name: "Confirm", label: "Confirm", url }
        });
        let content = Content { words, link, ..self.content(to, letter, &subject) };
        self.formatted(self.headed(to, letter, &subject), letter.id, &content, &[])
    }

    /// Where a subscriber leaves: in every mail but the first, by which they have not come yet.
    fn leave(&self, to: &To, letter: &Letter<'_>) -> Option<String> {
        let is_question = letter.stories.first().is_some_and(Story::is_question);
        let Subscriptions { key, page } = self.subscriptions.as_ref().filter(|_| to.is_subscriber && !is_question)?;
        Some(key.link(page, Purpose::Unsubscribe, letter.recipient, None))
    }

    /// Without what it tells.
    fn content<'a>(&self, to: &To, letter: &Letter<'_>, subject: &'a str) -> Content<'a> {
        let recipient = plain::line(letter.recipient, plain::ADDRESS_CHARS);
        let again = "This mail may have reached you before: what became of it was not known.";
        Content {
            summary: None,
            common: Vec::new(),
            notes: letter.again.then(|| again.to_owned()).into_iter().collect(),
            entries: Vec::new(),
            lists: Vec::new(),
            words: Vec::new(),
            link: None,
            footer: format!("Cairn on {}, for {recipient}", self.host),
            leave: self.leave(to, letter),
            subject,
        }
    }

    /// The headers of every mail.
    fn headed(&self, to: &To, letter: &Letter<'_>, subject: &str) -> MessageBuilder {
        let mut mail = lettre::Message::builder().from(self.from.clone()).to(to.mailbox.clone()).date(date(letter.now));
        mail = mail.message_id(Some(self.message_id(letter.id))).subject(subject);
        mail = raw(mail, "Auto-Submitted", "auto-generated");
        mail = raw(mail, "List-Id", &format!("<{}>", self.list_id));
        if let Some(leave) = self.leave(to, letter) {
            mail = raw(mail, "List-Unsubscribe", &format!("<{leave}>"));
            // Of https alone (RFC 8058 §3.1): a program shows the other kind to a person.
            if leave.starts_with("https://") {
                mail = raw(mail, "List-Unsubscribe-Post", "List-Unsubscribe=One-Click");
            }
        }
        if letter.again {
            mail = raw(mail, "X-Cairn-Resent", "outcome unknown, sent again");
        }
        mail
    }

    /// The stories that there is room for: the first in full, at least one, of what is beyond [`MAX_IN_FULL`] the names; and how
    /// many these are.
    fn fitting(&self, stories: &[Story], now: UnixMillis) -> (Vec<Entry>, Vec<List>, usize) {
        let text_chars = if stories.len() == 1 { ALONE_CHARS } else { AMONG_OTHERS_CHARS };
        let [mut text_room, mut html_room] =
            [MAX_TEXT_BYTES, MAX_HTML_BYTES].map(|most| most - FRAME_BYTES - COUNTED_BYTES);
        // A storm is mostly names.
        let share = if stories.len() > MAX_IN_FULL { 2 } else { 1 };
        let (text_kept, html_kept) = (text_room - text_room / share, html_room - html_room / share);
        let mut entries = Vec::new();
        for story in stories.iter().take(MAX_IN_FULL) {
            let entry = Entry::of(story, text_chars, now, self.page.as_deref());
            let left = text_room.checked_sub(text::block(&entry).len()).filter(|left| *left >= text_kept);
            let html_left = html_room.checked_sub(html::block(&entry).len()).filter(|left| *left >= html_kept);
            let (Some(text_left), Some(html_left)) = (left, html_left) else { break };
            (text_room, html_room) = (text_left, html_left);
            entries.push(entry);
        }
        let rest: Vec<&Story> = stories[entries.len()..].iter().collect();
        let fits = |lists: &[List]| {
            let size = |bytes: fn(&List) -> String| lists.iter().map(|list| bytes(list).len()).sum::<usize>();
            size(text::list) <= text_room && size(html::list) <= html_room
        };
        let counts: Vec<usize> = (0..=rest.len()).collect();
        // One story more never makes the lists shorter by much.
        let most = counts.partition_point(|&count| fits(&named(&rest[..count]))).saturating_sub(1);
        let shown = entries.len() + most;
        (entries, named(&rest[..most]), shown)
    }

    fn formatted(&self, mail: MessageBuilder, id: MessageId, content: &Content<'_>, wanted: &[Wanted]) -> Vec<u8> {
        let complete = "it has a sender and a recipient";
        let text = part(ContentType::TEXT_PLAIN, text::write(content));
        let alternative = self.html.then(|| {
            MultiPart::alternative()
                .boundary(format!("=_{id}_alternative"))
                .singlepart(text.clone())
                .singlepart(part(ContentType::TEXT_HTML, html::write(content)))
        });
        if wanted.is_empty() {
            return match alternative {
                Some(alternative) => mail.multipart(alternative),
                None => mail.singlepart(text),
            }
            .expect(complete)
            .formatted();
        }
        let mixed = MultiPart::mixed().boundary(files::boundary(id));
        let mixed = match alternative {
            Some(alternative) => mixed.multipart(alternative),
            None => mixed.singlepart(text),
        };
        let mut bytes = mail.multipart(mixed).expect(complete).formatted();
        bytes.extend(wanted.iter().flat_map(|wanted| format!("{wanted}\r\n").into_bytes()));
        bytes
    }

    fn message_id(&self, id: MessageId) -> String {
        format!("<{id}@{}>", self.host)
    }

    fn root(&self, incident: IncidentId) -> String {
        format!("<{incident}@{}>", self.host)
    }

    /// In-Reply-To and References, where all stories agree on them.
    fn thread(&self, mut mail: MessageBuilder, stories: &[Story]) -> MessageBuilder {
        let root = common_to(stories, |story| Some(story.incident())).map(|incident| self.root(incident));
        let parent = common_to(stories, |story| story.told_in).map(|told_in| self.message_id(told_in));
        if let Some(parent) = &parent {
            mail = mail.in_reply_to(parent.clone());
        }
        let references: Vec<String> = root.into_iter().chain(parent).collect();
        if references.is_empty() { mail } else { mail.references(references.join(" ")) }
    }
}

/// Quoted-printable whatever it holds: a text in which `=_` stays as it is might hold a boundary.
fn part(content_type: ContentType, text: String) -> SinglePart {
    SinglePart::builder().header(content_type).header(ContentTransferEncoding::QuotedPrintable).body(text)
}

/// What is the same in all stories.
fn common_to<T: PartialEq>(stories: &[Story], what: impl Fn(&Story) -> Option<T>) -> Option<T> {
    let first = what(stories.first()?)?;
    stories.iter().all(|story| what(story).as_ref() == Some(&first)).then_some(first)
}

fn raw(mail: MessageBuilder, name: &'static str, value: &str) -> MessageBuilder {
    mail.raw_header(HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned()))
}

fn date(now: UnixMillis) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(now.0 / 1000).unwrap_or(0).min(LAST_SECOND))
}

fn worst(stories: &[Story]) -> Severity {
    stories.iter().map(entry::severity).max().unwrap_or(Severity::Info)
}

fn subject(stories: &[Story]) -> String {
    let subject = match stories {
        [story] => entry::headline(story, SUBJECT_ADDRESS_CHARS),
        stories => {
            let common: Vec<String> =
                common_of(stories).iter().take(MAX_CLUSTERS_OF_SUBJECT).map(ToString::to_string).collect();
            let common = if common.is_empty() { String::new() } else { format!(": {}", common.join(", ")) };
            format!("[{}] {}{common}", worst(stories), counts(stories))
        }
    };
    plain::line(&subject, SUBJECT_CHARS)
}

/// These stories by their names only.
fn named(stories: &[&Story]) -> Vec<List> {
    let lists = Section::ALL.into_iter().map(|(section, title)| {
        let of_section = stories.iter().filter(|story| Section::of(story) == section);
        let mut groups: BTreeMap<(Reverse<Severity>, &str), Vec<&Story>> = BTreeMap::new();
        for story in of_section {
            groups.entry((Reverse(entry::severity(story)), story.word())).or_default().push(story);
        }
        let rows = groups.into_iter().flat_map(|((Reverse(severity), word), members)| {
            let names = |cluster: &Cluster<'_>| -> Vec<String> {
                let name = |story: &&Story| plain::line(&cluster.name(story), plain::ADDRESS_CHARS);
                cluster.stories.iter().map(name).collect()
            };
            let (together, alone): (Vec<_>, Vec<_>) =
                clusters(&members, MIN_CLUSTER).into_iter().partition(|cluster| cluster.stories.len() > 1);
            let what = |common: &str| format!("[{severity}]{common} {word}");
            let shown = |cluster: &Cluster<'_>| plain::line(&format!(" {cluster}"), plain::ADDRESS_CHARS);
            let rows = together.iter().map(|cluster| (what(&shown(cluster)), names(cluster).join(", ")));
            let alone: Vec<String> = alone.iter().flat_map(names).collect();
            let alone = (!alone.is_empty()).then(|| (what(""), alone.join(", ")));
            rows.chain(alone).collect::<Vec<_>>()
        });
        List { title: format!("{title}, more"), rows: rows.collect() }
    });
    lists.filter(|list| !list.rows.is_empty()).collect()
}

/// What many have in common of what is open, or else of what is over, the worst first.
fn common(stories: &[Story]) -> Vec<String> {
    let shown = |cluster: Cluster<'_>| {
        let common = plain::line(&cluster.to_string(), plain::ADDRESS_CHARS);
        format!("[{}] {common}", cluster.severity())
    };
    common_of(stories).into_iter().take(MAX_CLUSTERS).map(shown).collect()
}

fn common_of(stories: &[Story]) -> Vec<Cluster<'_>> {
    let of = |section: Section| stories.iter().filter(move |story| Section::of(story) == section).collect::<Vec<_>>();
    let sections = Section::ALL.into_iter().map(|(section, _)| of(section));
    let first = sections.into_iter().find(|stories| !stories.is_empty()).unwrap_or_default();
    clusters(&first, MIN_CLUSTER).into_iter().filter(|cluster| cluster.stories.len() > 1).collect()
}

/// `7 problems on 3 hosts, 2 over`.
fn counts(stories: &[Story]) -> String {
    let of = |section: Section| stories.iter().filter(|story| Section::of(story) == section).count();
    // Where something is open, that is what people ask about.
    let matters = |story: &&Story| of(Section::Open) == 0 || Section::of(story) == Section::Open;
    let hosts = stories.iter().filter(matters).map(|story| &story.event.host).collect::<BTreeSet<_>>().len();
    let on = counted(hosts, "host");
    let mut counts = match (of(Section::Open), of(Section::Over)) {
        (0, 0) => return format!("{} on {on}", counted(of(Section::Other), "notice")),
        (0, over) => format!("{} over on {on}", counted(over, "problem")),
        (open, 0) => format!("{} on {on}", counted(open, "problem")),
        (open, over) => format!("{} on {on}, {over} over", counted(open, "problem")),
    };
    if of(Section::Other) > 0 {
        let _ = write!(counts, ", {}", counted(of(Section::Other), "notice"));
    }
    counts
}

/// What has no room by name: how many on which host, in the order of the stories, which is that of their weight.
fn by_host(stories: &[Story]) -> Option<List> {
    let mut hosts: Vec<(&str, Vec<&Story>)> = Vec::new();
    let mut place: BTreeMap<&str, usize> = BTreeMap::new();
    for story in stories {
        let host = story.event.host.as_str();
        let at = *place.entry(host).or_insert_with(|| {
            hosts.push((host, Vec::new()));
            hosts.len() - 1
        });
        hosts[at].1.push(story);
    }
    let others = hosts.split_off(hosts.len().min(COUNTED_HOSTS));
    let mut rows: Vec<(String, String)> =
        hosts.into_iter().map(|(host, stories)| (host.to_owned(), how_many(&stories))).collect();
    if !others.is_empty() {
        let stories: Vec<&Story> = others.iter().flat_map(|(_, stories)| stories.iter().copied()).collect();
        rows.push((counted(others.len(), "more host"), how_many(&stories)));
    }
    (!rows.is_empty()).then(|| List { title: format!("{} more, by host", stories.len()), rows })
}

/// `12: 10 still open, at worst ERR, 2 over`.
fn how_many(stories: &[&Story]) -> String {
    let of = |section: Section| stories.iter().filter(|story| Section::of(story) == section).count();
    let mut parts = Vec::new();
    if of(Section::Open) > 0 {
        let open = stories.iter().filter(|story| Section::of(story) == Section::Open);
        let worst = open.map(|story| entry::severity(story)).max().expect("one is open");
        parts.push(format!("{} still open, at worst {worst}", of(Section::Open)));
    }
    if of(Section::Over) > 0 {
        parts.push(format!("{} over", of(Section::Over)));
    }
    if of(Section::Other) > 0 {
        parts.push(counted(of(Section::Other), "notice"));
    }
    format!("{}: {}", stories.len(), parts.join(", "))
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tests::exim::Mail;
    use common::message::{Event, Kind};
    use common::notifier::Mark;
    use common::secret::Secret;
    use common::subscription::Refused;
    use serde_json::json;

    const MINUTE: i64 = 60_000;
    const SINCE: i64 = 1_795_236_306_000;

    fn composer() -> Composer {
        Composer {
            host: "mon1".try_into().expect("a host"),
            from: "Cairn <cairn@mon1>".parse().expect("a mailbox"),
            list_id: "alerts.cairn.mon1".into(),
            page: Some("https://cairn.example.org/".into()),
            subscriptions: Some(Subscriptions { key: key(), page: "https://cairn.example.org/".into() }),
            html: true,
        }
    }

    fn id(n: u32) -> MessageId {
        MessageId::parse(&format!("00000000-0000-4000-8000-{n:012}")).expect("an id")
    }

    fn event(n: u32, host: &str, unit: &str) -> Event {
        serde_json::from_value(json!({
            "epoch": "00000000-0000-4000-8000-0000000000ee", "seq": n, "nth": n,
            "id": format!("00000000-0000-4000-8001-{n:012}"), "incident": format!("00000000-0000-4000-8002-{n:012}"),
            "kind": "down", "address": format!("{host}!port:{unit}"), "host": host, "service": "port", "unit": unit,
            "severity": "ERR", "top_severity": "ERR", "state": "down", "since": SINCE, "time": SINCE,
            "text": "connection refused", "rule": "check",
        }))
        .expect("an event")
    }

    fn began(n: u32, host: &str, unit: &str) -> Story {
        Story { mark: Mark::Began, event: event(n, host, unit), outages: 1, told_in: None }
    }

    fn ended(n: u32, host: &str, unit: &str, told_in: MessageId) -> Story {
        let mut event = event(n, host, unit);
        event.kind = Kind::Up;
        event.severity = Severity::Info;
        event.time = UnixMillis(SINCE + 3 * MINUTE);
        event.duration_ms = Some(180_000);
        event.text = "answers".into();
        Story { mark: Mark::Ended, event, outages: 1, told_in: Some(told_in) }
    }

    fn to() -> To {
        To { mailbox: "ops@example.org".parse().expect("a mailbox"), digest: None, is_subscriber: false }
    }

    fn key() -> TokenKey {
        TokenKey::new(&Secret::new("0123456789abcdef0123456789abcdef").expect("a line"))
    }

    /// To a subscriber whose address is as long as one may be.
    fn to_subscriber(stories: &[Story], page: &str) -> (String, Mail) {
        let name = format!("{}@example.org", "a".repeat(64));
        let to = To { mailbox: name.parse().expect("a mailbox"), is_subscriber: true, ..to() };
        let letter = Letter { id: id(1), recipient: &name, stories, again: false, now: UnixMillis(SINCE) };
        let subscriptions = Some(Subscriptions { key: key(), page: page.to_owned() });
        let mail = Composer { subscriptions, ..composer() }.compose(&to, &letter);
        (name, Mail::parse(&String::from_utf8(mail.bytes).expect("ASCII")))
    }

    #[test]
    fn a_mail_to_a_subscriber_says_how_to_leave() {
        let page = format!("https://cairn.example.org/{}/", "p".repeat(170));
        let (name, mail) = to_subscriber(&[began(7, "web1", "smtp (25)")], &page);
        let leave = mail.header("List-Unsubscribe").trim_matches(['<', '>']).to_owned();
        let token = leave.strip_prefix(&format!("{page}unsubscribe?t=")).expect("a link");
        assert_eq!(key().name_in(Purpose::Unsubscribe, token, UnixMillis(i64::MAX - 1)), Ok(name));
        assert_eq!(mail.header("List-Unsubscribe-Post"), "List-Unsubscribe=One-Click");
        assert!(mail.raw.lines().all(|line| line.len() <= 998), "{mail:?}");
        assert!(mail.body.trim_end().ends_with(&format!("\nUnsubscribe: {leave}")), "{}", mail.body);
        assert!(mail.html.contains(&format!("<a href=\"{leave}\">Unsubscribe</a>")), "{}", mail.html);
        // Only what a program may call by itself says so.
        let (_, mail) = to_subscriber(&[began(7, "web1", "smtp (25)")], "http://localhost:8436/");
        assert!(mail.header("List-Unsubscribe").starts_with("<http://localhost:8436/unsubscribe?t="), "{mail:?}");
        assert_eq!(mail.header("List-Unsubscribe-Post"), "");
        // And nobody else's.
        let other = self::mail(1, &[began(7, "web1", "smtp (25)")]);
        assert!(!other.to_lowercase().contains("unsubscribe"), "{other}");
    }

    #[test]
    fn the_question_is_a_mail_to_itself_with_a_link_that_ends() {
        let mut question = Story { mark: Mark::Once, event: event(1, "mon1", ""), outages: 1, told_in: None };
        question.event.kind = Kind::Log;
        question.event.rule = common::notifier::SUBSCRIPTION_RULE.to_owned();
        question.event.text = "bob\r\nBcc: x subscribed a@b.c to <b>* from ERR".to_owned();
        let (name, mail) = to_subscriber(&[question.clone(), began(7, "web1", "smtp (25)")], "https://x/");
        assert_eq!(mail.header("Subject"), "Do you want alerts from Cairn on mon1?");
        assert!(mail.body.starts_with("bob  Bcc: x subscribed a@b.c to <b>* from ERR.\n"), "{}", mail.body);
        assert!(!mail.body.contains("web1") && mail.html.contains("&lt;b&gt;*"), "{mail:?}");
        assert_eq!((mail.header("List-Unsubscribe"), mail.header("Bcc")), ("", ""));
        let (_, token) = mail.body.split_once("\nConfirm: https://x/subscribe?t=").expect("a link");
        let token = token.split_whitespace().next().expect("a token");
        let week = 7 * 24 * 60 * MINUTE;
        let name_after = |millis: i64| key().name_in(Purpose::Confirm, token, UnixMillis(SINCE + millis));
        assert_eq!((name_after(week - 1), name_after(week)), (Ok(name), Err(Refused::Expired)));
        // Behind what else waits, it comes in the next mail.
        let (told, count) = at(1, &[began(7, "web1", "smtp (25)"), question], SINCE);
        assert!(count == 1 && !told.contains("subscribed"), "{told}");
    }

    fn at(n: u32, stories: &[Story], now: i64) -> (String, usize) {
        let letter = Letter { id: id(n), recipient: "ops", stories, again: false, now: UnixMillis(now) };
        let composed = composer().compose(&to(), &letter);
        (String::from_utf8(composed.bytes).expect("ASCII"), composed.told)
    }

    fn mail(n: u32, stories: &[Story]) -> String {
        at(n, stories, SINCE).0
    }

    fn header<'a>(mail: &'a str, name: &str) -> Option<&'a str> {
        mail.split("\r\n\r\n").next()?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    #[test]
    fn a_beginning_and_its_end_are_one_thread() {
        let first = mail(1, &[began(7, "web1", "smtp (25)")]);
        assert_eq!(header(&first, "Subject"), Some("[ERR] web1!port:smtp (25) DOWN"));
        assert_eq!(header(&first, "Message-ID"), Some("<00000000-0000-4000-8000-000000000001@mon1>"));
        assert_eq!(header(&first, "References"), Some("<00000000-0000-4000-8002-000000000007@mon1>"));
        assert_eq!(header(&first, "In-Reply-To"), None);
        let second = mail(2, &[ended(7, "web1", "smtp (25)", id(1))]);
        assert_eq!(header(&second, "Subject"), Some("[ERR] web1!port:smtp (25) UP after 3m 0s"));
        assert_eq!(header(&second, "In-Reply-To"), header(&first, "Message-ID"));
        let unfolded = second.replace("\r\n ", " ");
        let references = format!(
            "{} {}",
            header(&first, "References").expect("it has one"),
            header(&first, "Message-ID").expect("it has one")
        );
        assert_eq!(header(&unfolded, "References"), Some(references.as_str()));
    }

    #[test]
    fn a_mail_is_complete() {
        let mail = mail(1, &[began(7, "web1", "smtp (25)")]);
        assert!(mail.is_ascii());
        for (name, value) in [
            ("From", "\"Cairn\" <cairn@mon1>"),
            ("To", "ops@example.org"),
            ("Date", "Sat, 21 Nov 2026 04:45:06 +0000"),
            ("Auto-Submitted", "auto-generated"),
            ("List-Id", "<alerts.cairn.mon1>"),
            ("X-Cairn-Severity", "ERR"),
            ("X-Cairn-Incident", "00000000-0000-4000-8002-000000000007"),
            ("X-Cairn-Event", "00000000-0000-4000-8001-000000000007"),
            ("MIME-Version", "1.0"),
        ] {
            let found = header(&mail, name).map(|found| found.replace('"', ""));
            assert_eq!(found, Some(value.replace('"', "")), "{name} in {mail}");
        }
        let Mail { body, html, .. } = Mail::parse(&mail);
        assert!(body.starts_with("[ERR] web1!port:smtp (25) DOWN\n    connection refused\nSince: "), "{body}");
        let link = format!("https://cairn.example.org/#host=web1&filter=web1%21port%3Asmtp%20%2825%29&at={SINCE}");
        assert!(body.contains(&format!("\nPage: {link}\n")), "{body}");
        assert!(body.trim_end().ends_with("-- \nCairn on mon1, for ops"), "{body}");
        for part in
            ["<strong>DOWN</strong>", "web1!port:smtp (25)", "connection refused", "Since</span> ", "for ops</p>"]
        {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert!(html.contains(&format!("<a href=\"{}\">", link.replace('&', "&amp;"))), "{html}");
        assert!(mail.lines().all(|line| line.len() <= 100), "{mail}");
    }

    #[test]
    fn without_html_a_mail_is_one_text() {
        let stories = [began(7, "web1", "smtp (25)")];
        let letter = Letter { id: id(1), recipient: "ops", stories: &stories, again: false, now: UnixMillis(SINCE) };
        let mail = Composer { html: false, page: None, ..composer() }.compose(&to(), &letter);
        let mail = Mail::parse(&String::from_utf8(mail.bytes).expect("ASCII"));
        assert_eq!((mail.header("Content-Type"), mail.html.as_str()), ("text/plain; charset=utf-8", ""));
        assert!(mail.body.starts_with("[ERR] web1!port:smtp (25) DOWN\n") && !mail.body.contains("Page:"), "{mail:?}");
    }

    #[test]
    fn a_mail_of_a_log_event_names_the_attachment_to_ask_for() {
        let mut story = Story { mark: Mark::Once, event: event(7, "web1", "../a b\"ü"), outages: 1, told_in: None };
        story.event.kind = Kind::Log;
        let mail = mail(1, &[story.clone()]);
        assert!(mail.ends_with("_mixed--\r\n00000000-0000-4000-8000-0000000000ee 7 web1-port-a-b\r\n"), "{mail}");
        assert!(header(&mail, "Content-Type").is_some_and(|kind| kind.starts_with("multipart/mixed;")), "{mail}");
        // What nobody journaled has none.
        story.event.seq = 0;
        assert!(!self::mail(1, &[story]).contains("_mixed"));
    }

    #[test]
    fn the_same_letter_gives_the_same_bytes_and_again_says_so() {
        let stories = [began(7, "web1", "smtp (25)")];
        assert_eq!(mail(1, &stories), mail(1, &stories));
        let letter = Letter { id: id(1), recipient: "ops", stories: &stories, again: true, now: UnixMillis(SINCE) };
        let again = String::from_utf8(composer().compose(&to(), &letter).bytes).expect("ASCII");
        assert_eq!(header(&again, "Message-ID"), header(&mail(1, &stories), "Message-ID"));
        assert_eq!(header(&again, "X-Cairn-Resent"), Some("outcome unknown, sent again"));
        let Mail { body, html, .. } = Mail::parse(&again);
        assert!(body.starts_with("This mail may have reached you before"), "{body}");
        assert!(html.contains("<em>This mail may have reached you before"), "{html}");
    }

    #[test]
    fn a_summary_counts_first_and_puts_what_is_open_before_what_is_over() {
        let stories =
            [began(1, "web1", "a"), began(2, "web2", "b"), ended(3, "web2", "c", id(9)), ended(4, "db1", "d", id(9))];
        let (mail, told) = at(1, &stories, SINCE + 15 * MINUTE);
        assert_eq!(told, 4);
        assert_eq!(header(&mail, "Subject"), Some("[ERR] 2 problems on 2 hosts, 2 over"));
        assert_eq!((header(&mail, "References"), header(&mail, "In-Reply-To")), (None, None));
        assert_eq!(header(&mail, "X-Cairn-Stories"), Some("4"));
        let Mail { body: text, html, .. } = Mail::parse(&mail);
        let order = [
            "2 problems on 2 hosts, 2 over.",
            "STILL OPEN",
            "[ERR] web1!port:a DOWN",
            ", 15m 0s ago",
            "[ERR] web2!port:b DOWN",
            "OVER",
            "[ERR] web2!port:c UP after 3m 0s",
            ", 12m 0s ago",
            "[ERR] db1!port:d UP after 3m 0s",
        ];
        let places: Vec<_> = order.map(|line| text.find(line).unwrap_or_else(|| panic!("{line} in {text}"))).into();
        assert!(places.is_sorted(), "{text}");
        let order =
            ["2 problems on 2 hosts, 2 over.", ">Still open<", "web1!port:a", "web2!port:b", ">Over<", "db1!port:d"];
        let places: Vec<_> = order.map(|line| html.find(line).unwrap_or_else(|| panic!("{line} in {html}"))).into();
        assert!(places.is_sorted(), "{html}");
    }

    #[test]
    fn what_many_have_in_common_is_said_first_and_what_is_beyond_a_hundred_by_name() {
        let mut stories: Vec<Story> = (0..2000).map(|n| began(n, &format!("web{n}"), "www")).collect();
        stories.extend((0..7).map(|n| began(3000 + n, "db1", &format!("unit {n}"))));
        stories.extend((0..4).map(|n| ended(4000 + n, &format!("x{n}"), "y", id(9))));
        let (mail, told) = at(1, &stories, SINCE);
        assert_eq!(told, 2011);
        let Mail { body, html, .. } = Mail::parse(&mail);
        let start =
            "2007 problems on 2001 hosts, 4 over.\n- [ERR] port:www on 2000 hosts\n- [ERR] db1 (7)\n\nSTILL OPEN\n";
        assert!(body.starts_with(start), "{}", &body[..400]);
        assert_eq!(body.matches("connection refused").count(), 100);
        for part in [
            "\nSTILL OPEN, MORE\n",
            "[ERR] port:www on 1900 hosts DOWN\n    web100, web101, ",
            " web1999\n",
            "OVER, MORE",
        ] {
            assert!(body.contains(part), "{part}");
        }
        assert!(
            html.contains("<strong>[ERR] port:www on 1900 hosts DOWN</strong>")
                && html.contains("<li>[ERR] db1 (7)</li>")
        );
        let subject = header(&mail, "Subject").expect("a subject");
        assert!(subject.starts_with("[ERR] 2007 problems on 2001 hosts, 4 over: port:www on 2000"), "{subject}");
    }

    #[test]
    fn ends_that_were_all_told_in_one_summary_answer_it() {
        let stories = [ended(3, "web2", "c", id(9)), ended(4, "db1", "d", id(9))];
        let mail = mail(1, &stories);
        assert_eq!(header(&mail, "Subject"), Some("[ERR] 2 problems over on 2 hosts"));
        assert_eq!(header(&mail, "In-Reply-To"), Some("<00000000-0000-4000-8000-000000000009@mon1>"));
        assert_eq!(header(&mail, "References"), header(&mail, "In-Reply-To"));
    }

    #[test]
    fn what_has_no_room_by_name_is_counted_by_host() {
        let long = |n: u32| format!("unit {n} {}", "x".repeat(400));
        for text in ["ü".repeat(5000), "\"".repeat(1000), "refused".to_owned()] {
            let mut stories: Vec<Story> = (10..2000).map(|n| began(n, &format!("web{}", n % 150), &long(n))).collect();
            stories.extend((0..10).map(|n| ended(n, "web149", "old", id(9))));
            for story in &mut stories {
                story.event.text.clone_from(&text);
            }
            let (mail, told) = at(1, &stories, SINCE);
            assert_eq!(told, 2000);
            let subject = header(&mail, "Subject").expect("a subject");
            assert!(subject.starts_with("[ERR] 1990 problems on 150 hosts, 10 over"), "{subject}");
            assert_eq!(header(&mail, "X-Cairn-Stories"), Some("2000"));
            let Mail { body, html, .. } = Mail::parse(&mail);
            assert!(body.len() <= MAX_TEXT_BYTES && html.len() <= MAX_HTML_BYTES, "{} {}", body.len(), html.len());
            let (named, counted) = body.split_once(" MORE, BY HOST\n").expect("a list");
            let (named, more) = named.rsplit_once('\n').expect("a line");
            let counts =
                counted.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(':')?.0.parse::<usize>().ok());
            assert_eq!(counts.clone().sum::<usize>().to_string(), more, "{counted}");
            assert_eq!(counts.count(), COUNTED_HOSTS + 1);
            assert!(counted.contains("still open, at worst ERR\n") && counted.contains("50 more hosts\n"), "{counted}");
            assert!(html.contains("<strong>50 more hosts</strong>"), "{html}");
            let units = (10..2000).filter(|n| named.contains(&format!("unit {n} x"))).count();
            assert_eq!((2000 - units).to_string(), more);
        }
        let hosts: Vec<Story> = (0..2000).map(|n| began(n, &format!("{n:0>253}"), &long(n))).collect();
        let Mail { body, html, .. } = Mail::parse(&mail(1, &hosts));
        assert!(body.len() <= MAX_TEXT_BYTES && html.len() <= MAX_HTML_BYTES, "{} {}", body.len(), html.len());
        let mut alone = began(1, "web1", "x");
        alone.event.text = "ü".repeat(500_000);
        assert!(mail(1, &[alone]).len() < MAX_TEXT_BYTES);
    }

    #[test]
    fn a_long_unit_leaves_the_word_in_the_subject_and_every_line_short() {
        let long = mail(1, &[began(1, &"h".repeat(253), &"ü".repeat(500))]);
        assert!(long.lines().all(|line| line.len() <= 998), "{long}");
        let ascii = mail(1, &[began(1, "web1", &"u".repeat(1000))]);
        let subject = header(&ascii, "Subject").expect("a subject").to_owned();
        assert!(ascii.contains("u… DOWN") || subject.contains("=?utf-8?"), "{ascii}");
        assert!(ascii.lines().all(|line| line.len() <= 998), "{ascii}");
    }

    #[test]
    fn an_odd_clock_makes_a_date_all_the_same() {
        for now in [i64::MIN, -1, i64::MAX] {
            let (mail, _) = at(1, &[began(1, "web1", "a")], now);
            assert!(header(&mail, "Date").is_some_and(|date| date.ends_with("+0000")), "{mail}");
        }
    }
}
