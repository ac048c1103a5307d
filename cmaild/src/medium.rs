//! Mail as a medium of the notifier frame: composed alike, then handed to a server or put into a folder.

use crate::compose::Composer;
use crate::smtp::Smtp;
use common::notifier::{Composed, Folder, Letter, Medium, MessageId, Outcome};
use lettre::Address;
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
    /// The mailboxes that one mail goes to. At least one.
    type Address = Vec<Mailbox>;

    fn compose(&self, to: &Vec<Mailbox>, letter: &Letter<'_>) -> Composed {
        self.composer.compose(to, letter)
    }

    async fn send(&self, to: &Vec<Mailbox>, id: MessageId, bytes: &[u8]) -> Outcome {
        match &self.way {
            Way::Smtp(smtp) => {
                let to: Vec<Address> = to.iter().map(|mailbox| mailbox.email.clone()).collect();
                smtp.send(&self.composer.from.email, &to, id, bytes).await
            }
            Way::Folder(folder) => folder.write(&format!("{id}.eml"), bytes).await,
        }
    }
}
