//! Tracing to standard error, past the progress line.

use std::io::{self, IsTerminal, Write};

use indicatif::ProgressBar;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts logging: what `RUST_LOG` says, else warnings, and more with each `-v`.
pub fn start(verbose: u8, bar: &ProgressBar) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let wanted = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let parsed = wanted.as_deref().map(EnvFilter::try_new);
    let refused = parsed.as_ref().and_then(|p| p.as_ref().err()).map(ToString::to_string);
    let filter = parsed.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(PastTheBar(bar.clone()))
        .with_ansi(colours(&io::stderr()))
        .with_target(verbose > 1)
        // It would report a closed standard error on standard error, and panic.
        .log_internal_errors(false)
        .init();
    if let Some(why) = refused {
        tracing::warn!("RUST_LOG is not understood: {why}");
    }
}

/// True where escape sequences are welcome.
pub fn colours(output: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    output.is_terminal() && !refused && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

struct PastTheBar(ProgressBar);

impl<'a> MakeWriter<'a> for PastTheBar {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

struct Line<'a>(&'a ProgressBar);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
