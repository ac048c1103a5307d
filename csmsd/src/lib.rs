//! csmsd tells people by short message and push.
//!
//! Everything about waiting, remembering and trying again is the notifier frame's; here is one medium. Providers differ only
//! in the shape of one HTTP request, so there is one provider that is driven by a table, and the known ones are tables in
//! `presets/`.
//!
//! - [`config`] reads who is told, and through what.
//! - `compose` writes a text, and `text` knows how many short messages it is.
//! - `table` makes a request of a text, and judges the answer. It touches no network.
//! - `provider` carries one request out; `medium` goes from one provider to the next, and asks for receipts later.
//! - `heart` tells somebody outside that all of this lives.

mod compose;
pub mod config;
mod heart;
mod medium;
mod number;
mod provider;
mod receipts;
mod table;
mod text;

pub use medium::{Destination, Sms};
