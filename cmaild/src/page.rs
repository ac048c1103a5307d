//! Links to cwebd's page. What it looks at is in its URL behind `#`: a host, words that all must be in an event, and a moment,
//! the minute of which stands out.

use common::address::Address;
use common::time::UnixMillis;
use std::fmt::Write;

/// Characters of an address that becomes a filter: a longer one would make a link that mail readers break.
const FILTER_CHARS: usize = 120;

/// The page at `page`, showing what it has about an address: its host, and the events of the address, at this moment.
pub(crate) fn link(page: &str, address: &Address, at: UnixMillis) -> String {
    let mut link = format!("{page}#host={}", encoded(address.host().as_str()));
    let filter = address.to_string();
    if filter.chars().count() <= FILTER_CHARS {
        let _ = write!(link, "&filter={}", encoded(&filter));
    }
    let _ = write!(link, "&at={}", at.0);
    link
}

/// The URL of a page without what a link puts behind it. The error says what is wrong with it.
pub(crate) fn checked(text: &str) -> Result<String, String> {
    let bad = |why: &str| Err(format!("page is {text:?}, but must {why}"));
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else { return bad("begin with https:// or http://") };
    let good = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]@!$&()*+,;=%".contains(c);
    if rest.is_empty() || rest.starts_with('/') || text.len() > 200 || !rest.chars().all(good) {
        return bad("be a URL of at most 200 bytes, without ? and #");
    }
    Ok(if rest.contains('/') { text.to_owned() } else { format!("{text}/") })
}

/// Percent-encoded but for what needs it nowhere (RFC 3986 §2.3).
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_shows_the_host_and_the_events_of_the_address() {
        let link = |address: &str| link("https://x/", &address.parse().expect("an address"), UnixMillis(17));
        assert_eq!(link("web1!port:smtp (25)"), "https://x/#host=web1&filter=web1%21port%3Asmtp%20%2825%29&at=17");
        assert_eq!(link("web1!a:\"><b>&ü"), "https://x/#host=web1&filter=web1%21a%3A%22%3E%3Cb%3E%26%C3%BC&at=17");
        assert_eq!(link(&format!("web1!a:{}", "u".repeat(200))), "https://x/#host=web1&at=17");
    }

    #[test]
    fn a_page_is_a_plain_url() {
        assert_eq!(checked("https://cairn.example.org"), Ok("https://cairn.example.org/".to_owned()));
        assert_eq!(checked("http://[::1]:8436/x"), Ok("http://[::1]:8436/x".to_owned()));
        for bad in [
            "cairn.example.org",
            "https://",
            "https:///x",
            "https://a b",
            "javascript:x",
            "https://a/#b",
            "https://a/\"x",
        ] {
            assert!(checked(bad).is_err_and(|why| why.starts_with("page is ")), "{bad}");
        }
    }
}
