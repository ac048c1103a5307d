//! The links by which somebody agrees to be told, and ends it, without a password (RFC 8058).
//!
//! cmaild writes them into mails and cwebd takes them back, so the two share a secret and no state: a link carries all that
//! it is about, under a message authentication code that only who has the secret can make (HMAC-SHA256, RFC 2104). Whoever has
//! the link may use it, and nobody else: it went to the mailbox that it is about. What it is for is in the code, so that a
//! link that ends a subscription is none that confirms it.
//!
//! A token is base64url of `version | expiry | name | code`: one byte, 8 bytes (milliseconds, big-endian), as many as there
//! are, 32 bytes.

use crate::secret::{self, Secret};
use crate::time::UnixMillis;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use std::fmt;
use std::path::Path;

/// Of the secret: what HMAC-SHA256 can use (RFC 2104 §3).
const MIN_SECRET_BYTES: usize = 32;
/// Of the name in a token, as of every subscriber's name.
pub const MAX_NAME_BYTES: usize = 200;
/// A token that could be ours is no longer.
const MAX_TOKEN_BYTES: usize = (1 + EXPIRY_BYTES + MAX_NAME_BYTES + CODE_BYTES).div_ceil(3) * 4;
const VERSION: u8 = 1;
const EXPIRY_BYTES: usize = 8;
const CODE_BYTES: usize = 32;
/// The expiry of what does not expire.
const NEVER: i64 = i64::MAX;

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To agree to be told.
    Confirm,
    /// To be told no longer.
    Unsubscribe,
}

impl Purpose {
    /// Where the page has it: `subscribe`, `unsubscribe`.
    pub fn path(self) -> &'static str {
        match self {
            Purpose::Confirm => "subscribe",
            Purpose::Unsubscribe => "unsubscribe",
        }
    }
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nobody who has the secret made it, or it is for something else, or not whole.
    Forged,
    /// It was good once.
    Expired,
}

/// What makes tokens, and knows them again.
#[derive(Clone)]
pub struct TokenKey {
    key: hmac::Key,
    fingerprint: String,
}

impl TokenKey {
    /// Reads the secret from the file that the configuration `config` names by `key`: one line of at least 32 bytes. The error
    /// names key, path and reason.
    pub fn read(key: &str, file: &Path, config: &Path) -> Result<Self, String> {
        let secret = Secret::read(key, file, config)?;
        let bytes = secret.reveal().len();
        if bytes < MIN_SECRET_BYTES {
            let file = file.display();
            return Err(format!("{key}: {file} has {bytes} bytes, but must have at least {MIN_SECRET_BYTES}"));
        }
        Ok(Self::new(&secret))
    }

    /// From a secret that is long enough.
    pub fn new(secret: &Secret) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
        Self { key, fingerprint: secret::fingerprint(secret) }
    }

    /// The link on the page at `page` for what `name` is to decide, at most 660 bytes for a page of 200.
    pub fn link(&self, page: &str, purpose: Purpose, name: &str, expires: Option<UnixMillis>) -> String {
        format!("{}/{}?t={}", page.trim_end_matches('/'), purpose.path(), self.token(purpose, name, expires))
    }

    /// A token for `name`, at most 200 bytes; the same each time.
    pub fn token(&self, purpose: Purpose, name: &str, expires: Option<UnixMillis>) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(expires.map_or(NEVER, |expires| expires.0).to_be_bytes());
        bytes.extend(name.as_bytes());
        let code = hmac::sign(&self.key, &signed(purpose, &bytes));
        bytes.extend(code.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whose token it is, if it is one for this purpose. How long it takes says nothing about the code.
    pub fn name_in(&self, purpose: Purpose, token: &str, now: UnixMillis) -> Result<String, Refused> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refused::Forged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Refused::Forged)?;
        let (content, code) = bytes.split_last_chunk::<CODE_BYTES>().ok_or(Refused::Forged)?;
        hmac::verify(&self.key, &signed(purpose, content), code).map_err(|_| Refused::Forged)?;
        // Ours, so nothing below fails but for what another version has made.
        let (version, content) = content.split_first().ok_or(Refused::Forged)?;
        let (expiry, name) = content.split_first_chunk::<EXPIRY_BYTES>().ok_or(Refused::Forged)?;
        let name = std::str::from_utf8(name).map_err(|_| Refused::Forged)?;
        if *version != VERSION {
            return Err(Refused::Forged);
        }
        let expiry = i64::from_be_bytes(*expiry);
        if expiry != NEVER && expiry <= now.0 { Err(Refused::Expired) } else { Ok(name.to_owned()) }
    }
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

/// Without the secret, but another one shows as another.
impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", self.fingerprint)
    }
}

/// What the code is made of: the purpose, which is in no token, and what is.
fn signed(purpose: Purpose, content: &[u8]) -> Vec<u8> {
    [b"cairn ", purpose.path().as_bytes(), b"\0", content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    const NAME: &str = "alice@example.org";

    fn key(secret: &str) -> TokenKey {
        TokenKey::new(&Secret::new(secret).expect("a line"))
    }

    fn ours() -> TokenKey {
        key("0123456789abcdef0123456789abcdef")
    }

    #[test]
    fn a_token_names_whom_it_is_for_until_it_expires() {
        let forever = ours().token(Purpose::Unsubscribe, NAME, None);
        assert_eq!(ours().name_in(Purpose::Unsubscribe, &forever, UnixMillis(i64::MAX - 1)), Ok(NAME.to_owned()));
        let week = ours().token(Purpose::Confirm, NAME, Some(UnixMillis(1000)));
        assert_eq!(ours().name_in(Purpose::Confirm, &week, UnixMillis(999)), Ok(NAME.to_owned()));
        assert_eq!(ours().name_in(Purpose::Confirm, &week, UnixMillis(1000)), Err(Refused::Expired));
        let longest = "x".repeat(MAX_NAME_BYTES);
        let token = ours().token(Purpose::Confirm, &longest, None);
        assert!(token.len() <= MAX_TOKEN_BYTES, "{}", token.len());
        assert_eq!(ours().name_in(Purpose::Confirm, &token, UnixMillis(0)), Ok(longest));
    }

    /// Made by Python's hmac and base64, so that another daemon could take them.
    #[test]
    fn the_bytes_of_a_token_are_these() {
        let token = "AX__________YWxpY2VAZXhhbXBsZS5vcmdkGpgwbCtwFzfcgl8de6CTbq0YxLv6k27wvA6g5x8cdw";
        assert_eq!(ours().token(Purpose::Unsubscribe, NAME, None), token);
        assert_eq!(
            ours().link("https://x/", Purpose::Unsubscribe, NAME, None),
            format!("https://x/unsubscribe?t={token}")
        );
    }

    #[test]
    fn what_another_made_or_for_something_else_is_forged() {
        let token = ours().token(Purpose::Confirm, NAME, Some(UnixMillis(1000)));
        let refused = |key: &TokenKey, purpose, token: &str| key.name_in(purpose, token, UnixMillis(0));
        let forged = Err(Refused::Forged);
        assert_eq!(refused(&ours(), Purpose::Unsubscribe, &token), forged);
        assert_eq!(refused(&key("another secret that is long enough"), Purpose::Confirm, &token), forged);
        for end in 0..token.len() {
            assert_eq!(refused(&ours(), Purpose::Confirm, &token[..end]), forged, "{end}");
        }
        for bad in ["", "=", "ü", &"A".repeat(100_000), &format!("{token}="), &format!("{token}AAAA")] {
            assert_eq!(refused(&ours(), Purpose::Confirm, bad), forged, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_token_with_one_other_byte_is_forged(name in "[ -~]{1,60}", at in 0..1000_usize, flip in 1..=255_u8) {
            let token = ours().token(Purpose::Confirm, &name, None);
            prop_assert_eq!(ours().name_in(Purpose::Confirm, &token, UnixMillis(0)), Ok(name));
            let mut bytes = URL_SAFE_NO_PAD.decode(&token).expect("ours");
            let at = at % bytes.len();
            bytes[at] ^= flip;
            let other = URL_SAFE_NO_PAD.encode(bytes);
            prop_assert!(ours().name_in(Purpose::Confirm, &other, UnixMillis(0)) == Err(Refused::Forged));
        }
    }

    #[test]
    fn a_secret_is_long_enough_and_does_not_show_itself() {
        let dir = tempfile::tempdir().expect("folder");
        let read = |text: &str| {
            std::fs::write(dir.path().join("secret"), text).expect("file");
            TokenKey::read("secret_file", Path::new("secret"), &dir.path().join("cmaild.toml"))
        };
        let short = read("hush0123456789012345678901234567\n".split_at(31).0).expect_err("short");
        assert_eq!(short, "secret_file: secret has 31 bytes, but must have at least 32");
        let key = read("hush0123456789012345678901234567\n").expect("long enough");
        assert!(!format!("{key:?}").contains("hush"), "{key:?}");
        assert_ne!(format!("{key:?}"), format!("{:?}", ours()));
        assert!(key != ours() && ours() == ours());
    }
}
