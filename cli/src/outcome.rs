//! What a subcommand leaves behind: text for both outputs and an exit code.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// The exit code of a pipeline that failed.
pub const FAILED: u8 = 1;
/// The exit code of a wrong file or wrong arguments.
pub const WRONG: u8 = 2;

/// What is left to be written when a subcommand is done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For standard output.
    pub out: String,
    /// For standard error.
    pub err: String,
    /// Exit code.
    pub code: u8,
}

impl Outcome {
    /// All is well.
    pub fn done(out: impl Into<String>) -> Outcome {
        Outcome { out: out.into(), ..Outcome::default() }
    }

    /// It went wrong.
    pub fn failed(code: u8, err: impl Into<String>) -> Outcome {
        Outcome { err: err.into(), code, ..Outcome::default() }
    }

    /// Writes it.
    pub fn write(self) -> ExitCode {
        let code = put(io::stdout().lock(), &self.out).map_or_else(|e| unwritten(&e, self.code), |()| self.code);
        // Where standard error is closed there is nobody to tell.
        let _ = put(io::stderr().lock(), &self.err);
        ExitCode::from(code)
    }
}

/// The exit code, `code` otherwise, where standard output could not be written; that is said. A reader that has gone
/// (`shrbuf devices | head -1`) has what it wanted: that changes nothing.
pub fn unwritten(error: &io::Error, code: u8) -> u8 {
    if error.kind() == ErrorKind::BrokenPipe {
        return code;
    }
    let _ = put(io::stderr(), &format!("error: standard output: {error}\n"));
    code.max(FAILED)
}

fn put(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}
