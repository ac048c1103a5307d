//! What can be asked of ccollectd, and at which socket.

use crate::inbox::Door;
use common::address::{AddressError, Pattern};
use common::message::{ErrorBody, ErrorCode, Request};

/// A question or order that we know, with its arguments.
#[derive(Debug)]
pub(crate) enum Ask {
    /// What the journal has after an entry.
    Events(Box<Request>),
    /// All that is known.
    Snapshot,
    /// How we are.
    Health,
    /// To drop these addresses until they are seen again.
    Forget(Pattern),
}

/// Reads a request that came in at `door`.
pub(crate) fn read(door: Door, request: Request) -> Result<Ask, ErrorBody> {
    match (door, request.query.as_deref(), request.order.as_deref()) {
        (_, Some("health"), None) => Ok(Ask::Health),
        (Door::Feed, Some("events"), None) => Ok(Ask::Events(Box::new(request))),
        (Door::Feed, Some("snapshot"), None) => Ok(Ask::Snapshot),
        (Door::Feed, None, Some("forget")) => forget(request.pattern.as_deref()).map(Ask::Forget),
        (_, query, order) => Err(unknown(door, query.or(order))),
    }
}

fn forget(pattern: Option<&str>) -> Result<Pattern, ErrorBody> {
    let bad = |why: String| ErrorBody::new(ErrorCode::BadArgument, why);
    let pattern = pattern.ok_or_else(|| bad("forget needs pattern, the addresses to forget".to_owned()))?;
    pattern.parse().map_err(|error: AddressError| bad(error.to_string()))
}

fn unknown(door: Door, asked: Option<&str>) -> ErrorBody {
    let known = match door {
        Door::Feed => "the questions events, snapshot and health and the order forget",
        Door::Own => "the question health",
    };
    let asked: String = asked.unwrap_or("nothing").chars().take(40).collect();
    let message = format!("{asked:?} was asked, but {} knows only {known}", door.socket());
    ErrorBody::new(ErrorCode::UnknownRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(door: Door, request: Request) -> ErrorBody {
        read(door, request).expect_err("must be refused")
    }

    #[test]
    fn what_is_not_known_is_answered_with_what_is() {
        let unknown = error(Door::Feed, Request::query("down-list"));
        assert_eq!(unknown.code, ErrorCode::UnknownRequest);
        assert_eq!(
            unknown.message,
            "\"down-list\" was asked, but feed-query knows only the questions events, snapshot and health and the order forget"
        );
        assert_eq!(error(Door::Own, Request::query("snapshot")).code, ErrorCode::UnknownRequest);
        assert_eq!(error(Door::Own, Request::default()).code, ErrorCode::UnknownRequest);
        assert_eq!(error(Door::Feed, Request::query("forget")).code, ErrorCode::UnknownRequest);
    }

    #[test]
    fn forget_needs_a_pattern() {
        assert_eq!(error(Door::Feed, Request::order("forget")).code, ErrorCode::BadArgument);
        let empty = Request { pattern: Some(String::new()), ..Request::order("forget") };
        assert_eq!(error(Door::Feed, empty).code, ErrorCode::BadArgument);
        let good = Request { pattern: Some("*!nginx".to_owned()), ..Request::order("forget") };
        assert!(matches!(read(Door::Feed, good), Ok(Ask::Forget(_))));
    }
}
