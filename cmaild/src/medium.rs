//! Mail as a medium of the notifier frame: composed alike, then handed to a server or put into a folder.

use crate::compose::Composer;
use crate::config::subscriber;
use crate::digests::Digests;
use crate::dkim::Signer;
use crate::files;
use crate::relays::Relays;
use crate::schedule::Schedule;
use common::notifier::{Composed, Folder, Letter, Medium, MessageId, Outcome, Pace, Recipient, Said};
use common::time::UnixMillis;
use lettre::message::Mailbox;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What follows a mail about a storm is one mail for this long, unless it is worse. A storm is then three mails: its first
/// event, what came with that, and the rest.
const AFTER_STORM: Duration = Duration::from_mins(5);

/// Where mails go.
pub enum Way {
    /// To the first of these servers that takes it.
    Smtp(Relays),
    /// To a folder, as `ID.eml`.
    Folder(Folder),
}

/// A mailbox, and what it gets beside the events. Each is a recipient of its own: what one refuses must not keep the news
/// from another.
#[derive(Clone, Debug, PartialEq)]
pub struct To {
    /// Where mails go.
    pub mailbox: Mailbox,
    /// When it gets a digest.
    pub digest: Option<Schedule>,
    /// It was subscribed: each of its mails says how to end that.
    pub is_subscriber: bool,
}

/// Tells people by mail.
pub struct Mailer {
    /// Writes them.
    pub composer: Composer,
    /// Hands them on.
    pub way: Way,
    /// The streams whose journals have the attachments, and what digests are made of.
    pub publishers: Vec<PathBuf>,
    /// Signs what goes to a server.
    pub(crate) signer: Option<Signer>,
    pub(crate) digests: Digests,
}

impl Medium for Mailer {
    type Address = To;
    const VIA: Option<&'static str> = Some("mail");

    fn subscriber(&self, name: &str) -> Result<To, String> {
        if self.composer.subscriptions.is_none() {
            return Err("subscription_secret_file is not set".to_owned());
        }
        Ok(To { mailbox: subscriber(name)?, digest: None, is_subscriber: true })
    }

    fn compose(&self, to: &To, letter: &Letter<'_>) -> Composed {
        self.composer.compose(to, letter)
    }

    fn pace(&self, _: &Recipient<To>) -> Pace {
        Pace { after_storm: AFTER_STORM, ..Pace::default() }
    }

    async fn send(&self, to: &To, id: MessageId, bytes: &[u8]) -> Outcome {
        let mail = files::attached(id, bytes, &self.publishers).await;
        match &self.way {
            Way::Smtp(relays) => {
                let signed = self.signer.as_ref().map(|signer| signer.signed(&mail));
                relays.send(&self.composer.from.email, &to.mailbox.email, signed.as_deref().unwrap_or(&mail)).await
            }
            Way::Folder(folder) => folder.write(&format!("{id}.eml"), &mail).await,
        }
    }

    fn says(&self, recipients: &BTreeMap<String, Recipient<To>>, now: UnixMillis) -> Vec<Said> {
        self.digests.says(recipients, &self.composer.host, &self.publishers, now)
    }
}
