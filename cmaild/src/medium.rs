//! Mail as a medium of the notifier frame: composed alike, then handed to a server or put into a folder.

use crate::compose::Composer;
use crate::smtp::Smtp;
use common::notifier::{Composed, Folder, Letter, Medium, MessageId, Outcome};
use lettre::message::Mailbox;

/// Where mails go.
pub enum Way {
    /// To a server.
    Smtp(Box<Smtp>),
    /// To a folder, as `ID.eml`.
    Folder(Folder),
}

/// Tells people by mail.
pub struct Mailer {
    /// Writes them.
    pub composer: Composer,
    /// Hands them on.
    pub way: Way,
}

impl Medium for Mailer {
    /// Each mailbox is a recipient of its own: what one refuses must not keep the news from another.
    type Address = Mailbox;

    fn compose(&self, to: &Mailbox, letter: &Letter<'_>) -> Composed {
        self.composer.compose(to, letter)
    }

    async fn send(&self, to: &Mailbox, id: MessageId, bytes: &[u8]) -> Outcome {
        match &self.way {
            Way::Smtp(smtp) => smtp.send(&self.composer.from.email, &to.email, bytes).await,
            Way::Folder(folder) => folder.write(&format!("{id}.eml"), bytes).await,
        }
    }
}
