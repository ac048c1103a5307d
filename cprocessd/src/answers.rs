//! The questions that cprocessd answers, DESIGN §4.

use common::address::{Address, CheckAddress, HostName, Pattern};
use common::message::{ErrorBody, ErrorCode, Request};
use common::publisher::JournaledPublisher;
use common::query::{Answer, Rows, to_value};
use cprocessd::engine::Engine;

/// Their names, for who asks for something else.
const QUESTIONS: &str = "alarm-list, down-list, events, explain, health, last-value, maintenance-list, server-list, \
                         server-status, service-list, silence-list, snapshot, subscriber-list";

/// The answer to a question about the engine's state or its journal. `health` is answered by the daemon.
pub(crate) fn answer(engine: &Engine, publisher: &JournaledPublisher, request: &Request) -> Result<Answer, ErrorBody> {
    let Some(question) = request.query.as_deref() else {
        let message = match request.order {
            Some(_) => "orders go to the socket control",
            None => "a request has a field query",
        };
        return Err(ErrorBody::new(ErrorCode::UnknownRequest, message));
    };
    match question {
        "server-list" => Ok(Answer::list(&engine.server_list())),
        "server-status" => {
            let host = host(request)?.ok_or_else(|| bad("server-status needs a host"))?;
            let status = engine.server_status(&host).ok_or_else(|| not_found(&host))?;
            Ok(Answer::Lists {
                plain: vec![("server", to_value(&status.server))],
                lists: vec![
                    ("services", Rows::of(&status.services)),
                    ("incidents", Rows::of(&status.incidents)),
                    ("values", Rows::of(&status.values)),
                ],
            })
        }
        "service-list" => match host(request)? {
            Some(host) if !engine.knows(&host) => Err(not_found(&host)),
            host => Ok(Answer::list(&engine.service_list(host.as_ref()))),
        },
        "down-list" => Ok(Answer::list(&engine.down_list())),
        "last-value" => {
            let pattern = request.pattern.as_deref().ok_or_else(|| bad("last-value needs a pattern"))?;
            Ok(Answer::list(&engine.last_value(&self::pattern(pattern)?)))
        }
        "alarm-list" => Ok(Answer::list(&engine.alarm_list())),
        "silence-list" => Ok(Answer::list(&engine.silence_list())),
        "maintenance-list" => Ok(Answer::list(&engine.maintenance_list())),
        "subscriber-list" => Ok(Answer::list(&engine.subscriber_list())),
        "explain" => {
            let text =
                request.pattern.as_deref().ok_or_else(|| bad("explain needs a pattern, which is one address"))?;
            let known = engine.explain(&address(text)?);
            let message = || format!("nothing is known of {:?}", short(text));
            known.map(|known| Answer::whole(&known)).ok_or_else(|| ErrorBody::new(ErrorCode::NotFound, message()))
        }
        "events" => publisher.events(request),
        "snapshot" => Ok(Answer::Lists {
            plain: vec![
                ("epoch", publisher.journal().epoch().as_str().into()),
                ("seq", publisher.journal().head().into()),
            ],
            lists: vec![
                ("hosts", Rows::of(&engine.server_list())),
                ("checks", Rows::of(&engine.service_list(None))),
                ("incidents", Rows::of(&engine.down_list())),
            ],
        }),
        other => {
            let message = format!("there is no question {:?} here, only {QUESTIONS}", short(other));
            Err(ErrorBody::new(ErrorCode::UnknownRequest, message))
        }
    }
}

/// A pattern from outside.
pub(crate) fn pattern(text: &str) -> Result<Pattern, ErrorBody> {
    text.parse().map_err(|error: common::address::AddressError| bad(error.to_string()))
}

/// An address from outside; a host alone is the address of its own incident.
fn address(text: &str) -> Result<Address, ErrorBody> {
    if let Ok(host) = HostName::try_from(text) {
        return Ok(CheckAddress::alive(host).into());
    }
    text.parse().map_err(|error: common::address::AddressError| bad(error.to_string()))
}

fn host(request: &Request) -> Result<Option<HostName>, ErrorBody> {
    let host = request.host.as_deref().map(HostName::try_from);
    host.transpose().map_err(|error| bad(error.to_string()))
}

/// An argument that is missing or wrong.
pub(crate) fn bad(message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::BadArgument, message)
}

fn not_found(host: &HostName) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, format!("host {host} is not known"))
}

/// What somebody sent, cut to a length that an error message can bear.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(60).collect()
}
