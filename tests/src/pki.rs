//! A certificate authority of the tests' own, so that TLS is verified in them as it is outside.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A private authority and one server certificate for `localhost` and 127.0.0.1, all in PEM.
#[derive(Clone, Debug)]
pub struct Pki {
    /// The authority's certificate, which a client is to trust.
    pub ca_pem: PathBuf,
    /// The server's certificate.
    pub cert: PathBuf,
    /// The server's key, readable by anybody: the servers of the tests run as another user.
    pub key: PathBuf,
}

impl Pki {
    /// Makes both by openssl(1) in `dir`, which is made if need be.
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("folder");
        fs::set_permissions(dir, Permissions::from_mode(0o755)).expect("folder");
        let extensions =
            "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n";
        fs::write(dir.join("ext"), extensions).expect("file");
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let ca = ["-x509", "-days", "30", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Cairn test CA"];
        openssl(dir, &[&["req"], &ca[..], &key[..]].concat());
        let request = ["-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"];
        openssl(dir, &[&["req"], &request[..], &key[..]].concat());
        let by = ["-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30"];
        openssl(dir, &[&["x509", "-req"], &by[..], &["-extfile", "ext", "-out", "server.pem"]].concat());
        let pki = Self { ca_pem: dir.join("ca.pem"), cert: dir.join("server.pem"), key: dir.join("server.key") };
        for file in [&pki.ca_pem, &pki.cert, &pki.key] {
            fs::set_permissions(file, Permissions::from_mode(0o644)).expect("file");
        }
        pki
    }

    /// SHA-256 of the server's certificate, as IRC servers and services write it.
    pub fn fingerprint(&self) -> String {
        let cert = self.cert.display().to_string();
        let arguments = ["x509", "-in", &cert, "-noout", "-fingerprint", "-sha256"];
        let output = Command::new("openssl").args(arguments).output().expect("openssl runs");
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().rsplit('=').next().unwrap_or_default().replace(':', "").to_lowercase()
    }
}

fn openssl(dir: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(dir).output().expect("openssl runs");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
