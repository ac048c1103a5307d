//! The links that mails to subscribers carry: one to agree to be told, one to end it (RFC 8058).
//!
//! Who has a link is the owner of the mailbox that it went to, so neither needs a session, and a foreign page that could make a
//! browser follow one would have to know it. To look at a link changes nothing, since programs that search mails for danger do
//! just that: both need a POST, by the button on the page or, to unsubscribe, by a mail program itself.
//!
//! What is decided is an order to every cprocessd. It counts once one of them has carried it out: notifiers believe whoever
//! heard it last, and one that was away is told for a while yet, beside the answer to the browser.

use crate::page;
use crate::routes::{self, BODY_WITHIN, MAX_BODY_BYTES, Web};
use axum::body::to_bytes;
use axum::extract::{RawQuery, Request as HttpRequest, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use common::message::{ErrorCode, Ordered, Request};
use common::query::{AskError, ask_for};
use common::socket::Requester;
use common::subscription::{Purpose, Refused};
use common::text::html_escaped;
use common::time::UnixMillis;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

/// How long a cprocessd may take for an order, and how often it is given, under its one id.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;
/// Orders under way, one for each cprocessd. Beyond it people are asked to come again.
const MAX_ORDERS: usize = 64;
/// When to come again.
const RETRY_AFTER_SECS: u64 = 30;
/// Bytes of an order's author.
const MAX_AUTHOR_BYTES: usize = 200;

/// Gives orders to every cprocessd.
#[derive(Debug)]
pub(crate) struct Orders {
    controls: Vec<PathBuf>,
    places: Arc<Semaphore>,
}

/// What came of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    /// At least one carried it out.
    Done,
    /// All of them know nobody of that name.
    Nobody,
    /// Nobody knows.
    Unsure,
}

impl Orders {
    /// To the cprocessds of these streams.
    pub(crate) fn new(publishers: &[PathBuf]) -> Self {
        let controls = publishers.iter().map(|stream| stream.with_file_name("control")).collect();
        Self { controls, places: Arc::new(Semaphore::new(MAX_ORDERS)) }
    }

    /// Returns with the first that carried it out; the others go on.
    async fn give(&self, order: &str, name: &str) -> Given {
        let mut author = format!("web:{name}");
        author.truncate(author.floor_char_boundary(MAX_AUTHOR_BYTES));
        let request = Request {
            id: Some(Uuid::new_v4().to_string()),
            author: Some(author),
            name: Some(name.to_owned()),
            via: Some("mail".to_owned()),
            ..Request::order(order)
        };
        let (heard, mut answers) = mpsc::channel(self.controls.len());
        for control in &self.controls {
            let Ok(place) = self.places.clone().try_acquire_owned() else { break };
            let (control, request, heard) = (control.clone(), request.clone(), heard.clone());
            tokio::spawn(async move {
                // Who asked may have their answer already.
                let _ = heard.send(give_one(&control, &request).await).await;
                drop(place);
            });
        }
        drop(heard);
        let mut nobody = 0;
        while let Some(given) = answers.recv().await {
            match given {
                Given::Done => return Given::Done,
                Given::Nobody => nobody += 1,
                Given::Unsure => {}
            }
        }
        if nobody == self.controls.len() { Given::Nobody } else { Given::Unsure }
    }
}

async fn give_one(control: &std::path::Path, request: &Request) -> Given {
    let mut requester = Requester::new(control);
    for _ in 0..ATTEMPTS {
        match ask_for::<Ordered>(&mut requester, request, ANSWER_WITHIN).await {
            Ok(_) => return Given::Done,
            Err(AskError::Refused(error)) if error.code == ErrorCode::NotFound => return Given::Nobody,
            Err(error) => tracing::debug!("{}: {error}", control.display()),
        }
    }
    Given::Unsure
}

/// `GET /subscribe`.
pub(crate) async fn confirm_form(web: State<Arc<Web>>, query: RawQuery) -> Response {
    form(Purpose::Confirm, &web, &query)
}

/// `GET /unsubscribe`.
pub(crate) async fn unsubscribe_form(web: State<Arc<Web>>, query: RawQuery) -> Response {
    form(Purpose::Unsubscribe, &web, &query)
}

/// `POST /subscribe`.
pub(crate) async fn confirm(State(web): State<Arc<Web>>, query: RawQuery, request: HttpRequest) -> Response {
    let link = match Link::of(Purpose::Confirm, &web, &query) {
        Ok(link) => link,
        Err(refused) => return *refused,
    };
    if let Err(wait) = routes::take_link_token(&web, &request) {
        return too_many(wait);
    }
    match web.orders.give("subscriber-confirm", &link.name).await {
        Given::Done => {
            tracing::info!("{} agreed to be told by mail", link.name);
            said(
                StatusCode::OK,
                "Confirmed",
                &format!(
                    "<p>Alerts go to <strong>{}</strong> from now on. Each of them has a link to end that.</p>",
                    html_escaped(&link.name)
                ),
            )
        }
        Given::Nobody => said(
            StatusCode::GONE,
            "Nothing to confirm",
            "<p>This subscription was ended meanwhile, so no alerts are sent.</p>",
        ),
        Given::Unsure => link.later(&web),
    }
}

/// `POST /unsubscribe`, by a person or by a mail program (RFC 8058 §3.2): no cookie, no redirect, and as often as they like.
pub(crate) async fn unsubscribe(State(web): State<Arc<Web>>, query: RawQuery, request: HttpRequest) -> Response {
    let link = match Link::of(Purpose::Unsubscribe, &web, &query) {
        Ok(link) => link,
        Err(refused) => return *refused,
    };
    if let Err(wait) = routes::take_link_token(&web, &request) {
        return too_many(wait);
    }
    match tokio::time::timeout(BODY_WITHIN, to_bytes(request.into_body(), MAX_BODY_BYTES)).await {
        Ok(Ok(body)) if is_one_click(&body) => {}
        Ok(_) => {
            web.counters.count("http", "malformed");
            return said(
                StatusCode::BAD_REQUEST,
                "Not understood",
                "<p>The request must say <code>List-Unsubscribe=One-Click</code>.</p>",
            );
        }
        Err(_) => {
            web.counters.count("http", "slow_body");
            return (StatusCode::REQUEST_TIMEOUT, "the request did not arrive\n").into_response();
        }
    }
    match web.orders.give("subscriber-remove", &link.name).await {
        Given::Done | Given::Nobody => {
            tracing::info!("{} unsubscribed", link.name);
            said(
                StatusCode::OK,
                "Unsubscribed",
                &format!("<p>No more alerts go to <strong>{}</strong>.</p>", html_escaped(&link.name)),
            )
        }
        Given::Unsure => link.later(&web),
    }
}

/// A link of ours.
struct Link {
    purpose: Purpose,
    token: String,
    name: String,
}

impl Link {
    /// What the query of a request holds, or the page that says what is wrong with it. Which addresses there are it does not
    /// say.
    fn of(purpose: Purpose, web: &Web, RawQuery(query): &RawQuery) -> Result<Self, Box<Response>> {
        let access = web.access();
        let Some(key) = &access.subscriptions else { return Err(Box::new(page::not_found())) };
        let token = query.as_deref().unwrap_or_default().split('&').find_map(|part| part.strip_prefix("t="));
        let token = token.unwrap_or_default().to_owned();
        match key.name_in(purpose, &token, UnixMillis::now()) {
            Ok(name) => Ok(Self { purpose, token, name }),
            Err(Refused::Expired) => Err(Box::new(said(
                StatusCode::GONE,
                "Too late",
                "<p>This link is no longer good. Whoever subscribed you can do so again.</p>",
            ))),
            Err(Refused::Forged) => {
                web.counters.count("http", "forged_link");
                Err(Box::new(said(
                    StatusCode::BAD_REQUEST,
                    "Not a whole link",
                    "<p>This link is not as we sent it. Copy all of it from the mail.</p>",
                )))
            }
        }
    }

    /// The button. Of the token nothing is left that HTML could take for anything else: it is ours.
    fn button(&self) -> String {
        let (path, token) = (self.purpose.path(), &self.token);
        let label = match self.purpose {
            Purpose::Confirm => "Yes, send alerts",
            Purpose::Unsubscribe => "Unsubscribe",
        };
        format!(
            "<form method=\"post\" action=\"/{path}?t={token}\">\
             <input type=\"hidden\" name=\"List-Unsubscribe\" value=\"One-Click\"><button>{label}</button></form>"
        )
    }

    /// No cprocessd took the order.
    fn later(&self, web: &Web) -> Response {
        if web.counters.count("http", "order_unanswered") {
            tracing::warn!("no cprocessd takes what a subscriber decided; more of this is only counted");
        }
        let text = "<p role=\"alert\">That cannot be noted down at the moment. Please try again in a minute.</p>";
        let mut response = said(StatusCode::SERVICE_UNAVAILABLE, "Not yet", &format!("{text}{}", self.button()));
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS));
        response
    }
}

fn form(purpose: Purpose, web: &Web, query: &RawQuery) -> Response {
    let link = match Link::of(purpose, web, query) {
        Ok(link) => link,
        Err(refused) => return *refused,
    };
    let name = html_escaped(&link.name);
    let (title, question) = match purpose {
        Purpose::Confirm => ("Alerts by mail", format!("<p>Shall alerts go to <strong>{name}</strong>?</p>")),
        Purpose::Unsubscribe => ("Unsubscribe", format!("<p>Shall no more alerts go to <strong>{name}</strong>?</p>")),
    };
    said(StatusCode::OK, title, &format!("{question}{}", link.button()))
}

fn said(status: StatusCode, title: &str, text: &str) -> Response {
    page::plain(status, &format!("{title} · Cairn"), &format!("<h1>{title}</h1>{text}"))
}

fn too_many(wait: Duration) -> Response {
    let text = "<p role=\"alert\">There were too many requests. Wait a little, then try again.</p>";
    let mut response = said(StatusCode::TOO_MANY_REQUESTS, "Too many requests", text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
    response
}

/// Whether a body says `List-Unsubscribe=One-Click`, as a form of either kind.
fn is_one_click(body: &[u8]) -> bool {
    let holds = |word: &[u8]| body.windows(word.len()).any(|window| window == word);
    holds(b"List-Unsubscribe") && holds(b"One-Click")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_a_form_are_one_click() {
        assert!(is_one_click(b"List-Unsubscribe=One-Click"));
        assert!(is_one_click(
            b"--x\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--x--\r\n"
        ));
        for other in [&b""[..], b"List-Unsubscribe", b"One-Click", b"List-Unsubscribe=One-Clic"] {
            assert!(!is_one_click(other), "{other:?}");
        }
    }
}
