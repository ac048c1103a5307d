//! Every message between the daemons, in MessagePack maps with named fields. PROTOCOL.md is their reference for other
//! languages; each type here has a test that pins its bytes.

mod codec;
mod feed;
mod plugin;
mod request;
mod samples;
mod stream;

pub use codec::{DecodeError, MAX_BATCH, MAX_DEPTH, decode, decode_batch, encode};
pub use feed::{Alive, Beat, Check, Epoch, LogEvent, Origin, Sample, Stamp, Values};
pub use plugin::{PluginMessage, PluginReport};
pub use request::{
    AlarmRow, AlarmState, Delivery, DownRow, ErrorBody, ErrorCode, EventsPage, Explanation, FeedSnapshot,
    FeedSnapshotHost, Health, LedgerRow, MaintenanceRow, Ordered, Reply, Request, RuleView, ServerRow, ServerStatus,
    ServiceRow, SilenceRow, StreamSnapshot, SubscriberRow, ValueRow,
};
pub use samples::{SampleRef, Samples};
pub use stream::{Event, EventId, IncidentId, Kind, State, event_topic};
pub(crate) use stream::{MAX_RULE_BYTES, kept};

#[cfg(test)]
mod tests;
