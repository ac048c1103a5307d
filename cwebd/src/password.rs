//! The password: a file holds its argon2id hash (RFC 9106) as a PHC string, never the password itself.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use std::fmt;

/// A password is at least so long, in characters.
pub(crate) const LEAST_CHARS: usize = 8;
/// And at most so long, in bytes: hashing should not begin with a megabyte.
pub(crate) const MOST_BYTES: usize = 1024;
/// Checking one password may take this much memory, in KiB; argon2's own default is 19 MiB.
const MOST_MEMORY_KIB: u32 = 64 << 10;

/// An argon2id hash that was checked to be one. Not shown in a log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Password {
    /// Takes the hash that [`Self::hash`] made. The error says what is wrong with it, and not what it is.
    pub(crate) fn from_hash(text: &str) -> Result<Self, String> {
        let advice = "must hold one line, as `cwebd --hash-password` prints it";
        let hash = PasswordHash::new(text).map_err(|error| format!("{advice}: {error}"))?;
        if hash.algorithm.as_str() != "argon2id" || hash.hash.is_none() || hash.salt.is_none() {
            return Err(format!("{advice}: it is no whole argon2id hash"));
        }
        let memory_kib = hash.params.get_decimal("m").unwrap_or(0);
        if memory_kib > MOST_MEMORY_KIB {
            return Err(format!("asks for {memory_kib} KiB for each attempt, but must be at most {MOST_MEMORY_KIB}"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The hash to put into the file.
    pub(crate) fn hash(password: &str) -> Result<String, String> {
        if password.chars().count() < LEAST_CHARS {
            return Err(format!("the password must have at least {LEAST_CHARS} characters"));
        }
        if password.len() > MOST_BYTES {
            return Err(format!("the password has {} bytes, but must have at most {MOST_BYTES}", password.len()));
        }
        let hash = Argon2::default().hash_password(password.as_bytes());
        hash.map(|hash| hash.to_string()).map_err(|error| format!("the password cannot be hashed: {error}"))
    }

    /// Whether this is the password. Takes about 0.1 s and 19 MiB, on purpose: call it where that blocks nobody.
    pub(crate) fn is(&self, attempt: &str) -> bool {
        let hash = PasswordHash::new(&self.0).expect("checked when it was read");
        attempt.len() <= MOST_BYTES && Argon2::default().verify_password(attempt.as_bytes(), &hash).is_ok()
    }

    /// What tells this password from another one, for sessions that must not outlive it.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_knows_its_password_and_no_other() {
        let hash = Password::hash("correct horse").expect("hashes");
        assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
        assert_ne!(hash, Password::hash("correct horse").expect("hashes"), "the salt is random");
        let password = Password::from_hash(&hash).expect("reads");
        assert!(password.is("correct horse"));
        assert!(!password.is("correct hors"));
        assert!(!password.is(""));
        assert_eq!(format!("{password:?}"), "Password(..)");
    }

    #[test]
    fn what_is_no_argon2id_hash_is_refused() {
        for bad in [
            "",
            "hunter22",
            "$argon2id$v=19$m=19456,t=2,p=1",
            "$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$WhcBIlPLBvEMx6FSAgGvDw",
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
        ] {
            let error = Password::from_hash(bad).expect_err(bad);
            assert!(error.contains("cwebd --hash-password"), "{error}");
        }
        let greedy = "$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$WhcBIlPLBvEMx6FSAgGvDw";
        assert!(Password::from_hash(greedy).expect_err("refused").contains("at most 65536"));
    }

    #[test]
    fn short_and_endless_passwords_are_refused() {
        assert!(Password::hash("1234567").expect_err("short").contains("at least 8"));
        assert!(Password::hash(&"x".repeat(1025)).expect_err("long").contains("at most 1024"));
    }
}
