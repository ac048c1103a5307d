//! The files of the page, put into the binary by build.rs, and the few pages that need no JavaScript.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

/// What `npm run build` made in `ui/dist`, each under its path there. A file with `.gz` behind its name is the
/// compressed form of the other.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The look of the pages below.
static STYLE: &str = include_str!("plain.css");
/// And their sign.
static FAVICON: &str = include_str!("../ui/public/favicon.svg");

/// The answer for `/`.
pub(crate) fn index(headers: &HeaderMap) -> Response {
    file("index.html", headers).unwrap_or_else(|| {
        let text = "<h1>The page is not in this binary</h1>\
            <p>It was built without npm. With Node.js 20 or newer, in the repository of Cairn:</p>\
            <pre>cwebd/ui/build\ncargo build --release -p cwebd</pre>\
            <p>What it would show is at <a href=\"/api/state\">/api/state</a>.</p>";
        plain(StatusCode::OK, "Cairn", text)
    })
}

/// A file of the page, compressed where the browser takes it, unless there is none of this path.
pub(crate) fn file(path: &str, headers: &HeaderMap) -> Option<Response> {
    let whole = find(path)?;
    let takes_gzip = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim() == "gzip" || coding.trim().starts_with("gzip;q=1"));
    let packed = if takes_gzip { find(&format!("{path}.gz")) } else { None };
    let mut response = Bytes::from_static(packed.unwrap_or(whole)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(path)));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if packed.is_some() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    // The name of an asset has a hash of what is in it.
    let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    Some(response)
}

fn find(path: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, bytes)| *bytes)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

/// `/favicon.svg`, which is there without the page too.
pub(crate) fn favicon() -> Response {
    let headers = [(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, "no-cache")];
    (headers, FAVICON).into_response()
}

/// `/plain.css`.
pub(crate) fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, STYLE).into_response()
}

/// A page of our own words; `body` is HTML, and whatever came from outside is escaped in it.
pub(crate) fn plain(status: StatusCode, title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
        <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
        <link rel=\"icon\" href=\"/favicon.svg\"><link rel=\"stylesheet\" href=\"/plain.css\"></head>\
        <body><main>{body}</main></body></html>\n"
    );
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, html).into_response()
}

/// What is wrong with the last attempt to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoginTrouble {
    /// There was none.
    None,
    /// That is not the password.
    Wrong,
    /// Too many attempts.
    TooMany,
}

/// The form to log in.
pub(crate) fn login(trouble: LoginTrouble) -> Response {
    /// The form, with words above it.
    macro_rules! form {
        ($said:literal) => {
            concat!(
                "<h1>Cairn</h1>",
                $said,
                "<form method=\"post\" action=\"/login\">\
                <label for=\"password\">Password</label>\
                <input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required autofocus>\
                <button>Log in</button></form>"
            )
        };
    }
    let (status, body) = match trouble {
        LoginTrouble::None => (StatusCode::OK, form!("")),
        LoginTrouble::Wrong => (StatusCode::UNAUTHORIZED, form!("<p role=\"alert\">That is not the password.</p>")),
        LoginTrouble::TooMany => (
            StatusCode::TOO_MANY_REQUESTS,
            form!("<p role=\"alert\">There were too many attempts. Wait a little, then try again.</p>"),
        ),
    };
    plain(status, "Log in · Cairn", body)
}

/// Nothing is here.
pub(crate) fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "Not found · Cairn", "<h1>Not found</h1><p><a href=\"/\">To the page</a></p>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_table() {
        for path in ["../Cargo.toml", "/etc/passwd", "assets/../index.html", "assets/", ""] {
            assert!(file(path, &HeaderMap::new()).is_none(), "{path}");
        }
    }

    #[test]
    fn without_the_built_page_the_index_says_what_to_run() {
        let response = index(&HeaderMap::new());
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    }
}
