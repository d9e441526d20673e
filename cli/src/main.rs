//! The `shrbuf` command: it parses, calls, prints.
//!
//! A subcommand is a file that returns an [`Outcome`](outcome::Outcome); only this file writes it out. What goes wrong with a file or the
//! arguments is exit code 2, what goes wrong while a pipeline is negotiated or runs is 1.

mod args;
mod check;
mod devices;
mod error;
mod explain;
mod graph;
mod inspect;
mod json;
mod log;
mod outcome;
mod progress;
mod run;
mod signals;
mod summary;
mod sys;
mod table;
mod top;

use std::process::ExitCode;

use clap::Parser;
use indicatif::ProgressBar;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are such errors too, with exit code 0 and for standard output.
            let code = u8::try_from(error.exit_code()).unwrap_or(outcome::WRONG);
            let Err(unwritten) = error.print() else { return ExitCode::from(code) };
            return ExitCode::from(if error.use_stderr() { code } else { outcome::unwritten(&unwritten, code) });
        }
    };
    if cli.verbose == 0 {
        // Mesa writes several lines for each GPU that is none, past everything that is said here.
        sys::set_default("EGL_LOG_LEVEL", "fatal");
    }
    let bar = ProgressBar::hidden();
    log::start(cli.verbose, &bar);
    match cli.command {
        Command::Run(args) => run::run(&args, &bar),
        Command::Check(args) => check::check(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Devices(args) => devices::devices(&args),
        Command::Graph(args) => graph::graph(&args),
        Command::Top(args) => top::top(&args),
    }
    .write()
}
