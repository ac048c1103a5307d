//! Who is logged in.
//!
//! A session is a random token of 256 bits that only the browser has; we keep its hash, in memory and in SQLite, so
//! that neither a restart logs anybody out nor a copy of the database logs anybody in. A session also ends when the
//! password changes.

use crate::password::Password;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blake2::{Blake2b512, Digest as _};
use common::database::{self, DatabaseError};
use common::time::UnixMillis;
use rusqlite::{Connection, params};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Sessions at once; the oldest makes way.
const MAX_SESSIONS: usize = 1000;
/// One migration a version.
const MIGRATIONS: [&str; 1] =
    ["CREATE TABLE session (token BLOB PRIMARY KEY, expires INTEGER NOT NULL, password BLOB NOT NULL) STRICT"];

/// The hash of a token, or of a password's hash.
type Hash = [u8; 64];

/// The sessions that hold. Pure: is told the time, keeps nothing on disk.
#[derive(Debug, Default)]
pub(crate) struct Sessions(HashMap<Hash, Session>);

#[derive(Clone, Copy, Debug)]
struct Session {
    expires: UnixMillis,
    /// The password it was made with.
    password: Hash,
}

impl Sessions {
    fn add(&mut self, now: UnixMillis, token: Hash, session: Session) {
        self.0.retain(|_, session| session.expires > now);
        if self.0.len() >= MAX_SESSIONS
            && let Some(oldest) = self.0.iter().min_by_key(|(_, session)| session.expires).map(|(token, _)| *token)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(token, session);
    }

    /// Whether the browser with this token is logged in.
    pub(crate) fn holds(&self, now: UnixMillis, token: &str, password: &Password) -> bool {
        let session = self.0.get(&hash(token.as_bytes()));
        session.is_some_and(|session| session.expires > now && session.password == hash(password.as_bytes()))
    }
}

/// Sessions, and their copy on disk.
#[derive(Debug)]
pub(crate) struct SessionStore {
    path: PathBuf,
    db: Connection,
    sessions: Sessions,
}

impl SessionStore {
    /// Opens or makes the database, and reads who is logged in.
    pub(crate) fn open(path: &Path, now: UnixMillis) -> Result<Self, DatabaseError> {
        let db = database::open(path, &[("sessions", &MIGRATIONS)])?;
        // Who is logged out logs in again: nobody else needs to know.
        db.execute("DELETE FROM aside", [])
            .map_err(|source| DatabaseError::Sqlite { path: path.to_owned(), source })?;
        let sessions = load(&db, now).map_err(|source| DatabaseError::Sqlite { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), db, sessions })
    }

    /// Who is logged in.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// A new session, as the token for the browser. It holds in memory even where the disk refuses.
    pub(crate) fn begin(&mut self, now: UnixMillis, lifetime: Duration, password: &Password) -> String {
        let mut random = [0; 32];
        getrandom::fill(&mut random).expect("the kernel has random numbers since 3.17");
        let token = URL_SAFE_NO_PAD.encode(random);
        let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
        let session =
            Session { expires: UnixMillis(now.0.saturating_add(lifetime)), password: hash(password.as_bytes()) };
        self.sessions.add(now, hash(token.as_bytes()), session);
        self.save();
        token
    }

    /// Logs out the browser with this token.
    pub(crate) fn end(&mut self, token: &str) {
        if self.sessions.0.remove(&hash(token.as_bytes())).is_some() {
            self.save();
        }
    }

    /// All of them anew: they are few, and this is rare.
    fn save(&mut self) {
        let mut write = || {
            let tx = self.db.transaction()?;
            tx.execute("DELETE FROM session", [])?;
            for (token, session) in &self.sessions.0 {
                tx.execute(
                    "INSERT INTO session VALUES (?1, ?2, ?3)",
                    params![token, session.expires.0, session.password],
                )?;
            }
            tx.commit()
        };
        if let Err(error) = write() {
            tracing::error!("{}: {error}; sessions will not outlast a restart", self.path.display());
        }
    }
}

fn load(db: &Connection, now: UnixMillis) -> rusqlite::Result<Sessions> {
    let mut sessions = Sessions::default();
    let mut statement = db.prepare("SELECT token, expires, password FROM session ORDER BY expires LIMIT ?1")?;
    let mut rows = statement.query([MAX_SESSIONS])?;
    while let Some(row) = rows.next()? {
        let session = Session { expires: UnixMillis(row.get(1)?), password: row.get(2)? };
        if session.expires > now {
            sessions.add(now, row.get(0)?, session);
        }
    }
    Ok(sessions)
}

fn hash(bytes: &[u8]) -> Hash {
    Blake2b512::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn password(text: &str) -> Password {
        Password::from_hash(&Password::hash(text).expect("hashes")).expect("reads")
    }

    fn at(days: u64) -> UnixMillis {
        UnixMillis(i64::try_from(DAY.as_millis()).expect("small") * i64::try_from(days).expect("small"))
    }

    #[test]
    fn a_session_holds_until_it_expires_or_is_ended_and_survives_a_restart() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("cwebd.db");
        let ours = password("correct horse");
        let mut store = SessionStore::open(&path, at(0)).expect("opens");
        let first = store.begin(at(0), DAY * 7, &ours);
        let second = store.begin(at(1), DAY * 7, &ours);
        assert_eq!(first.len(), 43, "256 bits");
        store.end(&second);
        drop(store);

        let store = SessionStore::open(&path, at(2)).expect("opens");
        assert!(store.sessions().holds(at(2), &first, &ours));
        assert!(!store.sessions().holds(at(2), &second, &ours), "it was ended");
        assert!(!store.sessions().holds(at(2), "", &ours));
        assert!(!store.sessions().holds(at(7), &first, &ours), "it expired");
        drop(store);
        let raw = std::fs::read(&path).expect("read");
        assert!(!raw.windows(first.len()).any(|part| part == first.as_bytes()), "the token itself is not on disk");
    }

    #[test]
    fn another_password_ends_every_session() {
        let dir = tempfile::tempdir().expect("folder");
        let mut store = SessionStore::open(&dir.path().join("cwebd.db"), at(0)).expect("opens");
        let (old, new) = (password("correct horse"), password("battery staple"));
        let token = store.begin(at(0), DAY, &old);
        assert!(store.sessions().holds(at(0), &token, &old));
        assert!(!store.sessions().holds(at(0), &token, &new));
    }

    #[test]
    fn the_oldest_session_makes_way() {
        let mut sessions = Sessions::default();
        let session = |n: i64| Session { expires: UnixMillis(1000 + n), password: [0; 64] };
        for n in 0..1200_i64 {
            sessions.add(UnixMillis(0), hash(&n.to_le_bytes()), session(n));
        }
        assert_eq!(sessions.0.len(), MAX_SESSIONS);
        assert!(!sessions.0.contains_key(&hash(&199_i64.to_le_bytes())));
        assert!(sessions.0.contains_key(&hash(&200_i64.to_le_bytes())));
    }

    #[test]
    fn a_newer_database_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("cwebd.db");
        drop(SessionStore::open(&path, at(0)).expect("opens"));
        let db = Connection::open(&path).expect("opens");
        db.execute("UPDATE schema SET version = 9", []).expect("changes");
        let error = SessionStore::open(&path, at(0)).expect_err("refused").to_string();
        assert!(error.contains("has schema 9"), "{error}");
    }
}
