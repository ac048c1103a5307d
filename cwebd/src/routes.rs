//! What is asked and what is answered: the page, its state, and who may see them.

use crate::bucket::{Buckets, LINKS, LOGIN};
use crate::config::{AccessConfig, Public};
use crate::live::{Live, Next};
use crate::page::{self, LoginTrouble};
use crate::password::Password;
use crate::server::Peer;
use crate::session::SessionStore;
use crate::subscription::{self, Orders};
use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{DefaultBodyLimit, Form, FromRequest as _, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next as NextLayer, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use common::counters::Counters;
use common::time::UnixMillis;
use futures_util::stream;
use serde::Deserialize;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The body of a request: the form to log in, or the few words of a link that is used.
pub(crate) const MAX_BODY_BYTES: usize = 16 << 10;
/// How long it may take to arrive.
pub(crate) const BODY_WITHIN: Duration = Duration::from_secs(10);
/// Browsers that follow at once; the next is refused.
const MAX_FOLLOWERS: usize = 256;
/// Passwords checked at once: each takes 19 MiB and a tenth of a second of one core.
const MAX_CHECKS: usize = 1;
/// Where somebody unsubscribes.
const UNSUBSCRIBE: &str = "/unsubscribe";
/// Where a browser keeps its token.
const COOKIE: &str = "cairn_session";

/// Everything comes from here, nothing runs that is not in a file of ours, and nobody frames us (CSP Level 3).
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Web {
    started: Instant,
    pub(crate) live: Arc<Live>,
    access: RwLock<Arc<AccessConfig>>,
    sessions: Mutex<SessionStore>,
    buckets: Mutex<Buckets>,
    link_buckets: Mutex<Buckets>,
    pub(crate) orders: Orders,
    checks: Semaphore,
    followers: Arc<Semaphore>,
    pub(crate) counters: Counters,
    stopping: watch::Receiver<bool>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Viewer {
    /// May see nothing but the form.
    Stranger,
    /// May look, as everybody may.
    Guest,
    /// Somebody on this machine, where no password is set.
    Local,
    /// Somebody with a session.
    Operator,
}

impl Viewer {
    /// The beginning of each state: who sees it, and whether logging in would show more.
    fn preamble(&self) -> &'static str {
        match self {
            Viewer::Stranger | Viewer::Guest => r#"{"user":null,"can_log_in":true,"board":"#,
            Viewer::Local => r#"{"user":"local","can_log_in":false,"board":"#,
            Viewer::Operator => r#"{"user":"operator","can_log_in":true,"board":"#,
        }
    }
}

impl Web {
    /// Nobody has asked anything yet.
    pub(crate) fn new(
        live: Arc<Live>,
        access: AccessConfig,
        sessions: SessionStore,
        orders: Orders,
        counters: Counters,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            started: Instant::now(),
            live,
            access: RwLock::new(Arc::new(access)),
            sessions: Mutex::new(sessions),
            buckets: Mutex::new(Buckets::new(LOGIN)),
            link_buckets: Mutex::new(Buckets::new(LINKS)),
            orders,
            checks: Semaphore::new(MAX_CHECKS),
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            counters,
            stopping,
        }
    }

    /// The configuration was read again.
    pub(crate) fn set_access(&self, access: AccessConfig) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
    }

    pub(crate) fn access(&self) -> Arc<AccessConfig> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sessions(&self) -> MutexGuard<'_, SessionStore> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn viewer(&self, headers: &HeaderMap) -> Viewer {
        let access = self.access();
        let Some(password) = &access.password else { return Viewer::Local };
        let now = UnixMillis::now();
        if tokens(headers).any(|token| self.sessions().sessions().holds(now, token, password)) {
            Viewer::Operator
        } else if access.public == Public::ReadOnly {
            Viewer::Guest
        } else {
            Viewer::Stranger
        }
    }
}

/// All there is to ask.
pub(crate) fn router(web: Arc<Web>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/assets/{*path}", get(asset))
        .route("/favicon.svg", get(async || page::favicon()))
        .route("/plain.css", get(async || page::style()))
        .route("/api/state", get(state))
        .route("/api/live", get(live))
        .route("/healthz", get(healthz))
        .route("/login", get(login_form).post(login))
        .route("/logout", post(logout))
        .route("/subscribe", get(subscription::confirm_form).post(subscription::confirm))
        .route(UNSUBSCRIBE, get(subscription::unsubscribe_form).post(subscription::unsubscribe))
        .fallback(async || page::not_found())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(web.clone(), guard))
        .with_state(web)
}

/// Before and after everything: refuses what no page of ours sends, and says how our pages are to be treated.
async fn guard(State(web): State<Arc<Web>>, request: Request, next: NextLayer) -> Response {
    let refused = refusal(&web.access(), &request);
    let mut response = match refused {
        Some((status, reason, text)) => {
            if web.counters.count("http", reason) {
                tracing::warn!("refused a request: {text}; more of this is only counted");
            }
            let mut response = (status, format!("{text}\n")).into_response();
            // What else it sends is not worth reading.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &str); 5] = [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not no-referrer: the form would then be sent with `Origin: null`.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Why a request is not looked at: status, counter, words.
fn refusal(access: &AccessConfig, request: &Request) -> Option<(StatusCode, &'static str, &'static str)> {
    let headers = request.headers();
    if request.body().size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Some((StatusCode::PAYLOAD_TOO_LARGE, "too_large", "a request may have at most 16 kB"));
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    if access.only_known_hosts && !is_known(&host, &access.hosts) {
        let text = "cwebd is not known by this name; add it to `hosts` in cwebd.toml";
        return Some((StatusCode::MISDIRECTED_REQUEST, "unknown_host", text));
    }
    // A browser says with each form who made it (RFC 6454, section 7). Programs that are none say nothing. Whoever has the
    // link to unsubscribe may use it, and a mail program in a browser does so from its own page.
    if request.method() == Method::POST
        && request.uri().path() != UNSUBSCRIBE
        && let Some(origin) = headers.get(header::ORIGIN)
    {
        let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        let authority = origin.strip_prefix("https://").or(origin.strip_prefix("http://"));
        if authority != Some(&*host) {
            return Some((StatusCode::FORBIDDEN, "foreign_origin", "this form belongs to another page"));
        }
    }
    None
}

/// Whether the `Host` of a request, in lower case, names us. The port is for the client to know.
fn is_known(host: &str, hosts: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]") || hosts.iter().any(|known| known == name)
}

/// Our tokens among the cookies.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

async fn index(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    match web.viewer(&headers) {
        Viewer::Stranger => Redirect::to("/login").into_response(),
        Viewer::Guest | Viewer::Local | Viewer::Operator => page::index(&headers),
    }
}

async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    page::file(&format!("assets/{path}"), &headers).unwrap_or_else(page::not_found)
}

async fn healthz(State(web): State<Arc<Web>>) -> Response {
    if web.live.is_live() { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "stale\n") }
        .into_response()
}

fn unauthorized() -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::UNAUTHORIZED, headers, r#"{"error":"log in first"}"#).into_response()
}

async fn state(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let viewer = web.viewer(&headers);
    if viewer == Viewer::Stranger {
        return unauthorized();
    }
    let parts = [Bytes::from_static(viewer.preamble().as_bytes()), web.live.state(), Bytes::from_static(b"}\n")];
    let body = Body::from_stream(stream::iter(parts.map(Ok::<_, std::convert::Infallible>)));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A browser that follows.
struct Follower {
    web: Arc<Web>,
    viewer: Viewer,
    headers: HeaderMap,
    seen: Option<u64>,
    newest: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    /// What is left of a state: its parts are sent one by one, since the longest is shared.
    parts: std::vec::IntoIter<Bytes>,
    _place: OwnedSemaphorePermit,
}

async fn live(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let viewer = web.viewer(&headers);
    if viewer == Viewer::Stranger {
        return unauthorized();
    }
    let Ok(place) = web.followers.clone().try_acquire_owned() else {
        if web.counters.count("live", "too_many") {
            tracing::warn!("more than {MAX_FOLLOWERS} browsers follow; more of this is only counted");
        }
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], "too many follow already\n")
            .into_response();
    };
    // Of the request, only what says who asks.
    let mut kept = HeaderMap::new();
    for cookie in headers.get_all(header::COOKIE) {
        kept.append(header::COOKIE, cookie.clone());
    }
    let follower = Follower {
        viewer,
        headers: kept,
        seen: None,
        newest: web.live.watch(),
        stopping: web.stopping.clone(),
        parts: Vec::new().into_iter(),
        web,
        _place: place,
    };
    let frames = stream::unfold(follower, async |mut follower| {
        let frame = follower.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), follower))
    });
    // For proxies that would rather wait until they have more.
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (HeaderName::from_static("x-accel-buffering"), "no")];
    (headers, Body::from_stream(frames)).into_response()
}

impl Follower {
    /// What to send next; none when it is over, because we stop or it may no longer see this.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(part) = self.parts.next() {
                return Some(part);
            }
            if *self.stopping.borrow() || self.web.viewer(&self.headers) != self.viewer {
                return None;
            }
            self.newest.borrow_and_update();
            match self.web.live.after(self.seen) {
                Next::Frame(number, frame) => {
                    self.seen = Some(number);
                    return Some(frame);
                }
                Next::State(number, json) => {
                    if self.seen.replace(number).is_some() {
                        self.web.counters.count("live", "resynced");
                    }
                    let (begin, end) = self.web.live.around_state(number);
                    let preamble = Bytes::from_static(self.viewer.preamble().as_bytes());
                    self.parts = vec![begin, preamble, json, Bytes::from_static(b"}"), end].into_iter();
                }
                Next::Wait => {
                    tokio::select! {
                        changed = self.newest.changed() => changed.ok()?,
                        _ = self.stopping.changed() => return None,
                    }
                }
            }
        }
    }
}

async fn login_form(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    match web.viewer(&headers) {
        Viewer::Local | Viewer::Operator => Redirect::to("/").into_response(),
        Viewer::Stranger | Viewer::Guest => page::login(LoginTrouble::None),
    }
}

#[derive(Deserialize)]
struct LoginForm {
    password: String,
}

async fn login(State(web): State<Arc<Web>>, request: Request) -> Response {
    let access = web.access();
    let Some(password) = access.password.clone() else { return Redirect::to("/").into_response() };
    let from = asker(&access, &request);
    let is_https = access.behind_proxy
        && request.headers().get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes() == b"https");
    let admitted = web.buckets.lock().unwrap_or_else(PoisonError::into_inner).take(web.started.elapsed(), from);
    if let Err(wait) = admitted {
        if web.counters.count("http", "login_refused") {
            tracing::warn!("too many attempts to log in, the last from {from}; more of this is only counted");
        }
        let mut response = page::login(LoginTrouble::TooMany);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        return response;
    }
    let form = tokio::time::timeout(BODY_WITHIN, Form::<LoginForm>::from_request(request, &())).await;
    let attempt = match form {
        Ok(Ok(Form(form))) => form.password,
        Ok(Err(rejection)) => {
            web.counters.count("http", "malformed");
            return rejection.into_response();
        }
        Err(_) => {
            web.counters.count("http", "slow_body");
            return (StatusCode::REQUEST_TIMEOUT, "the form did not arrive\n").into_response();
        }
    };
    if !check(&web, password.clone(), attempt).await {
        web.counters.count("http", "login_failed");
        tracing::warn!("somebody at {from} tried a wrong password");
        return page::login(LoginTrouble::Wrong);
    }
    tracing::info!("somebody at {from} logged in");
    let lifetime = access.session_lifetime;
    let begin = move || web.sessions().begin(UnixMillis::now(), lifetime, &password);
    let token = tokio::task::spawn_blocking(begin).await.expect("a panic ends the process");
    let secure = if is_https { "; Secure" } else { "" };
    let age = lifetime.as_secs();
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}");
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}

/// One at a time, on a thread where it blocks nobody. Those that wait are as few as the bucket lets through.
async fn check(web: &Web, password: Password, attempt: String) -> bool {
    let _turn = web.checks.acquire().await.expect("nobody closes it");
    tokio::task::spawn_blocking(move || password.is(&attempt)).await.expect("a panic ends the process")
}

async fn logout(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let ended = headers.clone();
    let end = move || tokens(&ended).for_each(|token| web.sessions().end(token));
    tokio::task::spawn_blocking(end).await.expect("a panic ends the process");
    let cookie = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}

/// Takes a token for a link that is used, or says how long to wait for one.
pub(crate) fn take_link_token(web: &Web, request: &Request) -> Result<(), Duration> {
    let from = asker(&web.access(), request);
    let admitted = web.link_buckets.lock().unwrap_or_else(PoisonError::into_inner).take(web.started.elapsed(), from);
    if admitted.is_err() && web.counters.count("http", "links_refused") {
        tracing::warn!("links are used too often, the last time from {from}; more of this is only counted");
    }
    admitted
}

/// Who asks: the other end, or whom the proxy names last, which is the one name in the list that the proxy itself
/// wrote.
fn asker(access: &AccessConfig, request: &Request) -> IpAddr {
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
    if !access.behind_proxy {
        return peer;
    }
    let forwarded = request.headers().get_all("x-forwarded-for").iter().next_back();
    let last = forwarded.and_then(|list| list.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    last.unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_with_any_port_and_by_its_whole_name() {
        let hosts = ["cairn.example.org".to_owned()];
        for known in ["localhost", "localhost:8436", "127.0.0.1:1", "[::1]:8436", "[::1]", "cairn.example.org:443"] {
            assert!(is_known(known, &hosts), "{known}");
        }
        for unknown in
            ["", ":80", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "cairn.example.org:x"]
        {
            assert!(!is_known(unknown, &hosts), "{unknown}");
        }
    }

    #[test]
    fn a_token_is_found_among_cookies() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; cairn_session=one"));
        headers.append(header::COOKIE, HeaderValue::from_static("cairn_sessions=x;cairn_session=two"));
        assert_eq!(tokens(&headers).collect::<Vec<_>>(), ["one", "two"]);
    }
}
