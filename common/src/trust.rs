//! Whose word is taken for who a server is, and what we show it of ourselves.
//!
//! Where the configuration names a private authority, it alone is trusted: whoever runs one knows who signed the server's
//! certificate, and the hundred authorities of the system could only be mistaken or deceived about it.

use crate::file;
use rustls::client::WantsClientCert;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// Some two hundred certificates; the system's own bundle is a fifth of it.
const MAX_BYTES: usize = 1024 * 1024;

/// Makes ring the TLS implementation of this process, for libraries that ask which it is. First thing in `main`.
pub fn install_ring() {
    // Fails only where one is installed already, and nothing in the tree brings another.
    let _ = default_provider().install_default();
}

/// Whether a host is this machine by its name alone: then nobody is on the way to it, and plaintext is as good as TLS. Takes
/// `localhost`, an address, or an IPv6 address in the brackets of a URL.
pub fn is_this_machine(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The authorities whose certificates a server may show.
#[derive(Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    /// The certificates behind the roots; none where they are the system's.
    private: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// The authorities in `file`, PEM, which the configuration `config` names by `key`; without one those of the system. At
    /// least one. The file is where a [`Secret`](crate::secret::Secret)'s would be; the error names key, path and reason.
    pub fn read(key: &str, file: Option<&Path>, config: &Path) -> Result<Self, String> {
        match file {
            Some(file) => Self::private(key, file, config),
            None => Self::system().ok_or_else(|| format!("this system has no authorities to trust: set {key}")),
        }
    }

    /// Nobody: for connections without TLS, where a library asks all the same.
    pub fn nobody() -> Self {
        Self { roots: RootCertStore::empty().into(), private: Vec::new() }
    }

    fn private(key: &str, file: &Path, config: &Path) -> Result<Self, String> {
        let (path, pem) = file::read_named(key, file, config, MAX_BYTES)?;
        let unusable = |why: String| format!("{key}: {} {why}", path.display());
        let mut trust = Self::nobody();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| unusable(format!("is not PEM: {error}")))?;
            roots.add(certificate.clone()).map_err(|error| unusable(format!("holds no authority: {error}")))?;
            trust.private.push(certificate);
        }
        if roots.is_empty() {
            return Err(unusable("holds no certificate in PEM".to_owned()));
        }
        trust.roots = roots.into();
        Ok(trust)
    }

    fn system() -> Option<Self> {
        let mut roots = RootCertStore::empty();
        // What is wrong with one of a hundred concerns only whoever it signed for.
        let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        (usable > 0).then(|| Self { roots: roots.into(), private: Vec::new() })
    }

    /// For a client that shows no certificate of its own.
    pub fn client(&self) -> ClientConfig {
        self.builder().with_no_client_auth()
    }

    /// For a client that shows this certificate to a server that asks for one.
    pub fn client_as(&self, identity: &Identity) -> ClientConfig {
        let client = self.builder().with_client_auth_cert(identity.chain.clone(), identity.key.clone_key());
        client.expect("it was tried when it was read")
    }

    fn builder(&self) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS 1.2 and 1.3 need")
            .with_root_certificates(self.roots.clone())
    }

    /// The private authority's certificates in DER, for a library with a store of its own; none where the system's
    /// authorities are trusted.
    pub fn private_certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.private.iter().map(AsRef::as_ref)
    }
}

/// The private key in `file`, PEM, which the configuration `config` names by `key`. The file is where a
/// [`Secret`](crate::secret::Secret)'s would be; the error names key, path and reason, and nothing of what is in it.
pub fn private_key(key: &str, file: &Path, config: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let (path, pem) = file::read_named(key, file, config, MAX_BYTES)?;
    let holds_none = || format!("{key}: {} holds no private key in PEM", path.display());
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| holds_none())
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.private.is_empty() { "the system's" } else { "private" };
        write!(f, "Trust({whose}, {})", self.roots.len())
    }
}

impl Hash for Trust {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.roots.roots.hash(state);
    }
}

/// A certificate of our own and its key. It does not show itself.
pub struct Identity {
    /// Ours, and those that lead from it to an authority.
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// The certificate and the key in two files, PEM, which the configuration `config` names, each with the name of its key
    /// there. They are where a [`Secret`](crate::secret::Secret)'s would be; the error names key, path and reason, and
    /// nothing of what is in them.
    pub fn read(certificate: (&str, &Path), key: (&str, &Path), config: &Path) -> Result<Self, String> {
        let (path, pem) = file::read_named(certificate.0, certificate.1, config, MAX_BYTES)?;
        let unusable = |why: &str| format!("{}: {} {why}", certificate.0, path.display());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.map_err(|error| unusable(&format!("is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(unusable("holds no certificate in PEM"));
        }
        let der = private_key(key.0, key.1, config)?;
        let tried = Trust::nobody().builder().with_client_auth_cert(chain.clone(), der.clone_key());
        tried.map_err(|error| unusable(&format!("does not go with {}: {error}", key.0)))?;
        Ok(Self { chain, key: der })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.chain.hash(state);
        self.key.secret_der().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_usable_certificate_is_refused_by_its_name() {
        let dir = tempfile::tempdir().expect("folder");
        let config = dir.path().join("cmaild.toml");
        let read = |text: &str| {
            std::fs::write(dir.path().join("ca.pem"), text).expect("file");
            let said = Trust::read("ca_file", Some(Path::new("ca.pem")), &config).expect_err("no certificate");
            said.replace(&format!("{}", dir.path().display()), "DIR")
        };
        assert_eq!(read(""), "ca_file: DIR/ca.pem holds no certificate in PEM");
        assert_eq!(read("ca"), "ca_file: DIR/ca.pem holds no certificate in PEM");
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(read(cut).starts_with("ca_file: DIR/ca.pem is not PEM: "), "{}", read(cut));
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(read(empty).starts_with("ca_file: DIR/ca.pem holds no authority: "), "{}", read(empty));
    }

    #[test]
    fn an_identity_that_is_none_is_refused_by_its_names() {
        let dir = tempfile::tempdir().expect("folder");
        let config = dir.path().join("cbotd.toml");
        let read = |certificate: &str, key: &str| {
            std::fs::write(dir.path().join("bot.pem"), certificate).expect("file");
            std::fs::write(dir.path().join("bot.key"), key).expect("file");
            let said = Identity::read(("cert_file", Path::new("bot.pem")), ("key_file", Path::new("bot.key")), &config);
            said.expect_err("no identity").replace(&format!("{}", dir.path().display()), "DIR")
        };
        let cert = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(read("", key), "cert_file: DIR/bot.pem holds no certificate in PEM");
        assert_eq!(read(cert, "hush"), "key_file: DIR/bot.key holds no private key in PEM");
        let said = read(cert, key);
        assert!(said.starts_with("cert_file: DIR/bot.pem does not go with key_file: "), "{said}");
    }

    #[test]
    fn this_machine_is_known_by_its_loopback() {
        for near in ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "[::ffff:127.0.0.1]"] {
            assert!(is_this_machine(near), "{near}");
        }
        for far in ["", "localhost.example.org", "10.0.0.1", "[::2]", "127.0.0.1.example.org", "0.0.0.0"] {
            assert!(!is_this_machine(far), "{far}");
        }
    }

    #[test]
    fn nobody_is_trusted_where_there_is_no_tls() {
        assert_eq!(format!("{:?}", Trust::nobody()), "Trust(the system's, 0)");
    }
}
