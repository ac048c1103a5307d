//! Signs mails (DKIM, RFC 6376 and RFC 8463), for a relay that does not.
//!
//! lettre could, but would bring RSA, Ed25519 and SHA-256 a second time, an RSA with an open advisory among them
//! (RUSTSEC-2023-0071), and sign before the attachments are in. ring, which TLS brings, has all that it takes; the rest is
//! to write headers and text in their canonical form, `relaxed`, which bears what relays do to white space.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;
use std::fmt::Write;
use std::sync::Arc;

/// What is signed, as far as a mail has it.
const SIGNED: [&str; 14] = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Auto-Submitted",
    "List-Id",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
];
/// Named once more than there are, so that nobody can add another (RFC 6376 §8.15).
const ONLY_ONCE: [&str; 6] = ["From", "To", "Subject", "Date", "Message-ID", "Content-Type"];
/// Characters of a signature on one line.
const LINE: usize = 72;

/// A key, and where its other half is published: `SELECTOR._domainkey.DOMAIN`.
#[derive(Debug)]
pub(crate) struct Signer {
    domain: String,
    selector: String,
    key: Arc<dyn SigningKey>,
    scheme: Scheme,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Rsa,
    Ed25519,
}

impl Signer {
    /// The error is a phrase behind the key's name.
    pub(crate) fn new(domain: String, selector: String, key: &PrivateKeyDer<'_>) -> Result<Self, String> {
        let key = any_supported_type(key).ok();
        let can = |key: &Arc<dyn SigningKey>, scheme| key.choose_scheme(&[scheme]).is_some();
        match key {
            Some(key) if can(&key, SignatureScheme::RSA_PKCS1_SHA256) => {
                Ok(Self { domain, selector, key, scheme: Scheme::Rsa })
            }
            Some(key) if can(&key, SignatureScheme::ED25519) => {
                Ok(Self { domain, selector, key, scheme: Scheme::Ed25519 })
            }
            _ => Err("holds no RSA key of at least 2048 bits and no Ed25519 key".to_owned()),
        }
    }

    /// The mail with its signature in front. One that is not in our form stays as it is.
    pub(crate) fn signed(&self, mail: &[u8]) -> Vec<u8> {
        let signature = std::str::from_utf8(mail).ok().and_then(|text| text.split_once("\r\n\r\n"));
        let signature = signature.and_then(|(head, body)| self.signature(head, body));
        [signature.unwrap_or_default().as_bytes(), mail].concat()
    }

    /// The header field, with its line break.
    fn signature(&self, head: &str, body: &str) -> Option<String> {
        let fields = fields(head);
        let (mut names, mut data) = (Vec::new(), String::new());
        for name in SIGNED {
            // The last one first (RFC 6376 §5.4.2), should there be several.
            let of_it = fields.iter().rev().filter(|(other, _)| other.trim_end().eq_ignore_ascii_case(name));
            for (name, value) in of_it {
                names.push(name.trim_end().to_ascii_lowercase());
                data.push_str(&relaxed_field(name, value));
            }
            if ONLY_ONCE.contains(&name) {
                names.push(name.to_ascii_lowercase());
            }
        }
        let (algorithm, scheme) = match self.scheme {
            Scheme::Rsa => ("rsa-sha256", SignatureScheme::RSA_PKCS1_SHA256),
            Scheme::Ed25519 => ("ed25519-sha256", SignatureScheme::ED25519),
        };
        let body_hash = STANDARD.encode(digest(&SHA256, relaxed_body(body).as_bytes()));
        let mut value = format!(
            " v=1; a={algorithm}; c=relaxed/relaxed; d={}; s={};\r\n\th={};\r\n\tbh={body_hash};\r\n\tb=",
            self.domain,
            self.selector,
            names.join(":")
        );
        // Signed with everything but itself, and without a line break.
        data.push_str(relaxed_field("DKIM-Signature", &value).trim_end());
        let data = match self.scheme {
            Scheme::Rsa => data.into_bytes(),
            // Of the hash, not of the text (RFC 8463 §3).
            Scheme::Ed25519 => digest(&SHA256, data.as_bytes()).as_ref().to_owned(),
        };
        let signer = self.key.choose_scheme(&[scheme])?;
        let signature = STANDARD.encode(signer.sign(&data).ok()?);
        for (nth, line) in signature.as_bytes().chunks(LINE).enumerate() {
            let line = std::str::from_utf8(line).expect("base64 is ASCII");
            let _ = write!(value, "{}{line}", if nth == 0 { "" } else { "\r\n\t" });
        }
        Some(format!("DKIM-Signature:{value}\r\n"))
    }
}

/// Name and value of each header field, folded as they are.
fn fields(head: &str) -> Vec<(&str, &str)> {
    let mut fields = Vec::new();
    let mut begin = 0;
    for (end, _) in head.match_indices("\r\n").chain([(head.len(), "")]) {
        // What begins with white space belongs to the field before it.
        if head.get(end + 2..).is_some_and(|rest| rest.starts_with([' ', '\t'])) {
            continue;
        }
        fields.extend(head[begin..end].split_once(':'));
        begin = (end + 2).min(head.len());
    }
    fields
}

/// RFC 6376 §3.4.2.
fn relaxed_field(name: &str, value: &str) -> String {
    let value = single_spaced(&value.replace("\r\n", ""));
    format!("{}:{}\r\n", name.trim_end().to_ascii_lowercase(), value.trim())
}

/// RFC 6376 §3.4.4.
fn relaxed_body(body: &str) -> String {
    let lines: Vec<String> = body.split("\r\n").map(|line| single_spaced(line).trim_end().to_owned()).collect();
    let kept = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    lines[..kept].iter().flat_map(|line| [line, "\r\n"]).collect()
}

/// Each run of spaces and tabs is one space.
fn single_spaced(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' ' | '\t' if spaced.ends_with(' ') => {}
            ' ' | '\t' => spaced.push(' '),
            c => spaced.push(c),
        }
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_that_of_the_rfc() {
        // RFC 6376 §3.4.5.
        let fields = fields("A: X\r\nB : Y\t\r\n\tZ  ");
        assert_eq!(fields, [("A", " X"), ("B ", " Y\t\r\n\tZ  ")]);
        let relaxed: String = fields.iter().map(|(name, value)| relaxed_field(name, value)).collect();
        assert_eq!(relaxed, "a:X\r\nb:Y Z\r\n");
        assert_eq!(relaxed_body(" C \r\nD \t E\r\n\r\n\r\n"), " C\r\nD E\r\n");
        assert_eq!([relaxed_body(""), relaxed_body("\r\n\r\n"), relaxed_body("a")], ["", "", "a\r\n"]);
    }

    #[test]
    fn the_hash_of_a_body_is_that_of_the_rfc() {
        // RFC 8463 §A.3.
        let body = "Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n\r\n";
        let hash = STANDARD.encode(digest(&SHA256, relaxed_body(body).as_bytes()));
        assert_eq!(hash, "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=");
    }
}
