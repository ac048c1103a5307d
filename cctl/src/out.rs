//! Standard output. Written to directly and not with `print!`, which panics when the reader is gone.

use crate::args::When;
use crate::failure::Failure;
use crate::text::Ink;
use common::time::UnixMillis;
use std::io::{self, IsTerminal, Write};

/// How to write to standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    colour: bool,
}

impl Out {
    /// Coloured when the person wants it.
    pub(crate) fn new(when: When) -> Self {
        let colour = match when {
            When::Always => true,
            When::Never => false,
            // no-color.org: set and not empty.
            When::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()),
        };
        Self { colour }
    }

    /// Colours and the present moment.
    pub(crate) fn ink(self) -> Ink {
        Ink { colour: self.colour, now: UnixMillis::now() }
    }
}

/// Writes and flushes: whoever reads a pipe sees each event when it happens.
pub(crate) fn put(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}
