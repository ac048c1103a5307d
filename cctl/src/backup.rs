//! `cctl backup DIR`: a copy of all state of all daemons, while they run.
//!
//! Each daemon says where its databases are, and SQLite copies each as it is at one moment: a reader holds up nobody who
//! writes. The copies are of different moments, some milliseconds apart, which costs nothing: a copy takes a new name when
//! a daemon opens it, so that whoever follows it compares states instead of going on from a place in the old one.

use crate::args::Global;
use crate::ask::{Daemon, block_on, read};
use crate::failure::{Failure, Outcome, notice};
use crate::out::put;
use crate::text::{escape, json_line};
use common::config::HumanBytes;
use common::database;
use common::message::{Health, Request};
use serde_json::json;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A database that was copied.
struct Copied {
    daemon: String,
    from: String,
    to: PathBuf,
    bytes: u64,
}

/// Copies everything into `dir`, which is made or empty: `DIR/DAEMON/FILE`, as below `/var/lib/cairn`.
pub(crate) fn run(global: &Global, dir: &Path) -> Result<Outcome, Failure> {
    let daemons = daemons(&global.run)?;
    make_empty(dir)?;
    let mut missing = Vec::new();
    let mut copied = Vec::new();
    for name in daemons {
        let mut daemon = Daemon::new(&name, &global.run.join(format!("{name}.sock")), global.timeout);
        let health = match block_on(daemon.ask(&Request::query("health"))) {
            Ok(answer) => read::<Health>(&answer)?,
            // The others are copied all the same: half a backup is better than none, if it says so.
            Err(Failure::Unreachable(why)) => {
                notice(&why);
                missing.push(name);
                continue;
            }
            Err(error) => return Err(error),
        };
        for from in health.databases {
            copied.push(copy(&name, from, dir)?);
        }
    }
    sync(dir)?;
    say(global, &copied)?;
    if missing.is_empty() {
        Ok(Outcome::Fine)
    } else {
        Err(Failure::Unreachable(format!("the backup is not complete: {} could not be asked", missing.join(", "))))
    }
}

/// Whoever has a socket of their own, by name.
fn daemons(run: &Path) -> Result<Vec<String>, Failure> {
    let entries = fs::read_dir(run).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::Unreachable(format!("there is no folder {}: does any daemon run (--run DIR)?", run.display()))
        }
        _ => Failure::file("read", run, &error),
    })?;
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| Failure::file("read", run, &error))?.file_name();
        found.extend(name.to_str().and_then(|name| name.strip_suffix(".sock")).map(str::to_owned));
    }
    if found.is_empty() {
        return Err(Failure::Unreachable(format!("no daemon has a socket in {} (--run DIR)", run.display())));
    }
    found.sort();
    Ok(found)
}

/// What is told to recipients and who is logged in is nobody else's business, so the folder is ours alone.
fn make_empty(dir: &Path) -> Result<(), Failure> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Failure::Other(format!("{} is not empty, and nothing in it is replaced", dir.display()))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|error| Failure::file("make", dir, &error))
        }
        Err(error) => Err(Failure::file("read", dir, &error)),
    }
}

fn copy(daemon: &str, from: String, dir: &Path) -> Result<Copied, Failure> {
    let source = PathBuf::from(&from);
    let Some(name) = source.file_name() else {
        return Err(Failure::Other(format!("{daemon} says that it keeps {from:?}, which is no file")));
    };
    let folder = dir.join(daemon);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|error| Failure::file("make", &folder, &error))?;
    let to = folder.join(name);
    database::copy(&source, &to)
        .map_err(|error| Failure::Other(format!("the backup is not complete: {daemon}: {error}")))?;
    sync(&folder)?;
    let bytes = to.metadata().map_err(|error| Failure::file("read", &to, &error))?.len();
    Ok(Copied { daemon: daemon.to_owned(), from, to, bytes })
}

fn sync(dir: &Path) -> Result<(), Failure> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| Failure::file("sync", dir, &error))
}

fn say(global: &Global, copied: &[Copied]) -> Result<(), Failure> {
    if global.json {
        let rows = copied.iter().map(|Copied { daemon, from, to, bytes }| {
            json!({ "daemon": daemon, "database": from, "copy": to, "bytes": bytes })
        });
        return put(&json_line(&rows.collect()));
    }
    let lines = copied.iter().map(|Copied { daemon, from, to, bytes }| {
        let kib = HumanBytes(bytes.div_ceil(1024) * 1024);
        escape(&format!("{daemon}: {from} to {} ({kib})", to.display())) + "\n"
    });
    put(&lines.collect::<String>())
}
