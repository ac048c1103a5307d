//! What a medium has to bring.

use crate::config::{check_name, check_unique};
use crate::message::Event;
use crate::notifier::{Base, Cap, MessageId, Pace, Selection, Story};
use crate::time::UnixMillis;
use std::collections::BTreeMap;
use std::time::Duration;

/// Of a recipient's name.
const MAX_NAME_BYTES: usize = 200;

/// A way to tell people: bytes out, and what became of them.
///
/// The frame never has more than one message under way in a [`Lane`]. A medium is built while the configuration is read,
/// and again at each reload, so it must not connect, or touch anything, before [`ready`](Self::ready) is first called.
pub trait Medium: Send + Sync + 'static {
    /// Where a message goes: a mailbox, a channel, a telephone number. Checked when the configuration was read.
    type Address: Clone + PartialEq + Send + Sync + 'static;

    /// As which medium subscribers name it (`via`), if it takes any. They are told through the first lane.
    const VIA: Option<&'static str> = None;

    /// Writes as many of the stories as fit into one message, from the first on. Depends on nothing but its arguments and
    /// the configuration: the same letter gives the same bytes, or a message that is sent again would be another one.
    fn compose(&self, to: &Self::Address, letter: &Letter<'_>) -> Composed;

    /// As [`compose`](Self::compose), for the last message before messages to this recipient pause for a cap. It must say so,
    /// and how many of the `waiting` stories it has no room for. For media under a cap.
    fn compose_last(&self, to: &Self::Address, letter: &Letter<'_>, waiting: usize) -> Composed {
        let _ = waiting;
        self.compose(to, letter)
    }

    /// How fast this recipient is told at most. Called once for each reading of the configuration.
    fn pace(&self, _to: &Recipient<Self::Address>) -> Pace {
        Pace::default()
    }

    /// What all messages to all recipients of this daemon may cost. Every lane says the same.
    fn caps(&self) -> Vec<Cap> {
        Vec::new()
    }

    /// What a message costs at most, in millionths of the currency of the [`caps`](Self::caps), and no more than the
    /// recipient's [`dearest`](Pace::dearest).
    fn cost(&self, _to: &Self::Address, _bytes: &[u8]) -> u64 {
        0
    }

    /// What the message that [`send`](Self::send) has just been through did cost, if that is known to be less.
    fn paid(&self) -> Option<u64> {
        None
    }

    /// Twice a second: whether every publisher has been heard just now. Must not wait. For whoever watches us from outside.
    fn alive(&self, _beating: bool) {}

    /// Returns when there is something to add to the ledger about a message that was accepted earlier: it arrived, somebody
    /// confirmed it. Must be safe to cancel and to call again.
    fn noted(&self) -> impl Future<Output = Note> + Send {
        std::future::pending()
    }

    /// Returns when it makes sense to send: at once, or for a medium with a standing connection when that stands. What
    /// waits for it is then told in one message. Must be safe to cancel and to call again.
    fn ready(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Sends, and waits until the medium has accepted it or not: SMTP's reply after DATA, the provider's success rule, the
    /// PONG to a PING sent after the line, a file synced and renamed. Must end within about a minute, whatever the other
    /// side does.
    ///
    /// `id` is the same whenever this message is sent again: it is the Message-ID or idempotency key, where there is one.
    fn send(&self, to: &Self::Address, id: MessageId, bytes: &[u8]) -> impl Future<Output = Outcome> + Send;

    /// What it has to say beside what the streams bring: a digest. Asked about twice a second, so it only hands over what is
    /// ready. It is told whatever the recipient selects, and once for each recipient and event id, also over restarts.
    fn says(&self, recipients: &BTreeMap<String, Recipient<Self::Address>>, now: UnixMillis) -> Vec<Said> {
        let _ = (recipients, now);
        Vec::new()
    }

    /// Where somebody is told who subscribed under this name. They are first asked whether they want to be, with a story that
    /// [`is_question`](Story::is_question). The error says why they cannot be told, as a phrase.
    fn subscriber(&self, name: &str) -> Result<Self::Address, String> {
        Err(format!("{name:?} is no address of this medium"))
    }

    /// The daemon stops: a medium with a standing connection says goodbye. Nothing is sent any more. It gets a second.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Something that a medium itself has to say to somebody.
#[derive(Clone, Debug)]
pub struct Said {
    /// The recipient's name.
    pub recipient: String,
    /// It begins and ends nothing.
    pub event: Event,
}

/// What became known of a message after it was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The message.
    pub id: MessageId,
    /// In a few words, for the ledger: `delivered`.
    pub words: String,
}

/// What a message is to say.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The name of this message.
    pub id: MessageId,
    /// The recipient's name in the configuration.
    pub recipient: &'a str,
    /// What to say, at least one. More than one because they waited together: worst first, what is still open before what
    /// is over.
    pub stories: &'a [Story],
    /// This message may have been accepted before: the outcome was lost. It must say so.
    pub again: bool,
    /// Now, for ages: "down since 14:03, 12 minutes ago".
    pub now: UnixMillis,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// What [`Medium::send`] is given.
    pub bytes: Vec<u8>,
    /// How many stories it names, from the first on; at least 1. The others wait for the next message.
    pub told: usize,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The medium has accepted it, in these words. For the ledger.
    Sent(String),
    /// Not now: it is sent again later.
    Retry {
        /// Why, for the log and the ledger.
        why: String,
        /// What else it holds up.
        scope: Scope,
        /// Whether it may have been accepted all the same: the connection broke, or time ran out, after the last byte was
        /// handed over. It is then sent again with the same id and marked.
        maybe_accepted: bool,
        /// Not earlier than this, where the medium says so. Otherwise the frame's own back-off.
        after: Option<Duration>,
    },
    /// Never: the medium refuses this message for good. It is on record, and not tried again.
    Never(String),
}

impl Outcome {
    /// The medium as a whole cannot be reached, and nothing was accepted.
    pub fn unreachable(why: impl Into<String>) -> Self {
        Self::Retry { why: why.into(), scope: Scope::Lane, maybe_accepted: false, after: None }
    }
}

/// What a failure holds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All recipients: the server is away, or refuses us.
    Lane,
    /// Only this one: its mailbox is full.
    Recipient,
}

/// Somebody to tell.
#[derive(Clone, Debug)]
pub struct Recipient<A> {
    /// Unique in its daemon, and the same across restarts: told-state and ledger go by it. At most 200 bytes, no control
    /// characters; for people (`ops`, `libera/#ops`).
    pub name: String,
    /// What they want to hear of.
    pub selection: Selection,
    /// Where it goes.
    pub address: A,
}

/// Refuses names that no [`Recipient`] may have, and those that stand twice. For all recipients of a daemon; `key` is what
/// the name is called in its configuration.
pub fn check_recipients<A>(key: &str, recipients: &[Recipient<A>]) -> Result<(), String> {
    recipients.iter().try_for_each(|recipient| check_name(key, &recipient.name, MAX_NAME_BYTES))?;
    check_unique(key, recipients.iter().map(|recipient| recipient.name.as_str()))
}

/// One connection: its messages go one after the other, those of several lanes side by side.
pub struct Lane<M: Medium> {
    /// For logs and the ledger: `smtp`, the IRC network's name, `sms`.
    pub name: String,
    /// Everything the medium was configured with, as text without secrets but changing with them (a hash will do). A
    /// reload that leaves it as it was keeps the connection.
    pub fingerprint: String,
    /// The medium.
    pub medium: M,
    /// Who is told through it.
    pub recipients: Vec<Recipient<M::Address>>,
}

/// What a notifier's configuration comes down to.
pub struct Setup<M: Medium> {
    /// What every notifier is told.
    pub base: Base,
    /// Without any there is nobody to tell.
    pub lanes: Vec<Lane<M>>,
}
