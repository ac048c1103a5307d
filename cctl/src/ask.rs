//! Questions to a daemon, and what to say when nobody answers.

use crate::failure::Failure;
use common::message::Request;
use common::query::{self, AskError};
use common::socket::{Requester, SocketError};
use nix::unistd::{AccessFlags, access};
use rmpv::Value;
use serde::de::DeserializeOwned;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// One daemon's question socket.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    requester: Requester,
    timeout: Duration,
}

impl Daemon {
    /// The daemon `name`, asked at `socket`.
    pub(crate) fn new(name: &str, socket: &Path, timeout: Duration) -> Self {
        Self { name: name.to_owned(), requester: Requester::new(socket), timeout }
    }

    /// The whole answer.
    pub(crate) async fn ask(&mut self, request: &Request) -> Result<Value, Failure> {
        match self.try_ask(request).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failure(&error)),
        }
    }

    /// The whole answer, for those who act on the kind of refusal.
    pub(crate) async fn try_ask(&mut self, request: &Request) -> Result<Value, AskError> {
        // A socket that is not there would be waited for; a person wants to know at once.
        let path = self.requester.path();
        if let Err(errno) = access(path, AccessFlags::W_OK) {
            return Err(AskError::Unreachable(SocketError::Bind { path: path.to_owned(), source: errno.into() }));
        }
        query::ask(&mut self.requester, request, self.timeout).await
    }

    /// What to tell a person about it.
    pub(crate) fn failure(&self, error: &AskError) -> Failure {
        match error {
            AskError::Unreachable(SocketError::Path(..)) => Failure::Usage(error.to_string()),
            AskError::Unreachable(SocketError::Bind { path, source }) => self.unreachable(path, source),
            AskError::Unreachable(SocketError::Timeout { path, .. }) => match UnixStream::connect(path) {
                Err(source) => self.unreachable(path, &source),
                Ok(_) => {
                    Failure::Unreachable(format!("cannot reach {}: {error}; is it overloaded, or hung?", self.name))
                }
            },
            AskError::Unreachable(_) => Failure::Unreachable(format!("cannot reach {}: {error}", self.name)),
            AskError::Refused(body) => Failure::Other(body.to_string()),
            AskError::BadAnswer(_) => Failure::Other(format!("{}: {error}", self.name)),
        }
    }

    fn unreachable(&self, socket: &Path, source: &io::Error) -> Failure {
        let (name, socket) = (&self.name, socket.display());
        Failure::Unreachable(match source.kind() {
            io::ErrorKind::NotFound => format!(
                "cannot reach {name}: there is no socket {socket}; is {name} running (systemctl status {name}), and is \
                 this its folder (--run DIR or CAIRN_RUN)?"
            ),
            io::ErrorKind::PermissionDenied => format!(
                "cannot reach {name}: you may not use the socket {socket}; are you in its group (ls -l {socket}; id)?"
            ),
            io::ErrorKind::ConnectionRefused => format!(
                "cannot reach {name}: nobody listens at the socket {socket}; is {name} running (systemctl status \
                 {name})?"
            ),
            _ => format!("cannot reach {name}: socket {socket}: {source}"),
        })
    }
}

/// The answer as what it should be.
pub(crate) fn read<T: DeserializeOwned>(answer: &Value) -> Result<T, Failure> {
    query::from_value(answer).map_err(|error| Failure::Other(format!("the answer is not understood: {error}")))
}

/// Runs the few sockets of a command on this thread.
pub(crate) fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(format!("cannot wait for sockets: {error}")))?;
    let result = runtime.block_on(command);
    // The answer is there: nothing that is left is worth waiting for.
    runtime.shutdown_background();
    result
}
