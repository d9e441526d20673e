//! What went wrong, for people on standard error and for programs as JSON.

use std::error::Error as _;
use std::path::Path;

use miette::{Diagnostic, NamedSource, Report, SourceSpan};
use serde::Serialize;
use shrbuf_pipeline::element::{Failure, FailureKind};
use shrbuf_pipeline::file::{FileError, Problem};
use shrbuf_pipeline::graph::Span;
use shrbuf_pipeline::outline::Outline;
use shrbuf_pipeline::solve::NegotiationError;
use shrbuf_pipeline::supervise::Error;

use crate::json;
use crate::outcome::{Outcome, WRONG};

/// A wrong file as JSON.
#[derive(Serialize)]
struct WrongFile {
    /// The first error.
    error: json::Error,
    /// All of them, in the order of the file.
    errors: Vec<Place>,
}

#[derive(Serialize)]
struct Place {
    /// The file, or `--set`; null where there was nothing to read.
    file: Option<String>,
    /// From 1.
    line: usize,
    /// In characters, from 1.
    column: usize,
    message: String,
    help: Option<String>,
}

impl Place {
    fn of(error: &FileError) -> Place {
        Place {
            file: error.name().map(str::to_owned),
            line: error.line(),
            column: error.column(),
            message: error.to_string(),
            help: error.problem().help(),
        }
    }
}

/// The outcome of a file that describes no pipeline.
pub fn wrong_file(error: FileError, as_json: bool) -> Outcome {
    let mut outcome = Outcome::failed(WRONG, "");
    let left_out: String = std::iter::once(&error).chain(error.others()).filter_map(left_out).collect();
    if as_json {
        let first = json::Error { kind: "file", element: None, message: error.to_string() };
        let errors = std::iter::once(&error).chain(error.others()).map(Place::of).collect();
        outcome.out = json::line(&WrongFile { error: first, errors });
    }
    outcome.err = show(error) + &left_out;
    outcome
}

fn left_out(error: &FileError) -> Option<String> {
    let Problem::UnknownType { name, .. } = error.problem() else { return None };
    built_with(name).map(|line| format!("  {line}\n"))
}

/// What makes an unknown type known, where a build has it.
pub fn built_with(name: &str) -> Option<String> {
    let (_, feature) = shrbuf_elements::left_out().find(|(of, _)| *of == name)?;
    Some(format!("`{name}` is left out of this build: cargo build --release -p shrbuf-cli --features {feature}"))
}

/// An error as people read it, in colour where standard error is a terminal.
pub fn show(error: impl Diagnostic + Send + Sync + 'static) -> String {
    format!("{:?}", Report::new(error))
}

/// Why a pipeline cannot run, with the place in its file.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
struct Trouble {
    message: String,
    #[help]
    help: Option<String>,
    #[source_code]
    text: Option<NamedSource<String>>,
    #[label("here")]
    span: Option<SourceSpan>,
}

/// A negotiation that failed, as people read it.
pub fn show_negotiation(error: &NegotiationError, file: &Path) -> String {
    let text = match error {
        NegotiationError::Element { failure, .. } => message(failure),
        _ => error.to_string(),
    };
    show(trouble(&text, error.span(), file))
}

/// A run that failed, as people read it.
pub fn show_run(error: &Error, outline: &Outline, file: &Path) -> String {
    match error {
        Error::Negotiation(error) => show_negotiation(error, file),
        Error::Unfit { error: unfit, .. } => show(trouble(&error.to_string(), unfit.span(), file)),
        Error::Element(failure) => {
            let element = outline.elements.iter().find(|e| Some(e.name.as_str()) == failure.element());
            show(trouble(&message(failure), element.and_then(|e| e.span.clone()), file))
        }
    }
}

/// What is wrong stands in the first line and in those that are indented; what would help in the others.
fn trouble(text: &str, span: Option<Span>, file: &Path) -> Trouble {
    let mut lines = text.lines();
    let mut message = lines.next().unwrap_or_default().to_owned();
    let mut help = Vec::new();
    for line in lines {
        if line.starts_with(' ') && help.is_empty() {
            message.push('\n');
            message.push_str(line);
        } else {
            help.push(line);
        }
    }
    if text.contains("Too many open files") {
        help.push(
            "each buffer is a descriptor or more: `ulimit -n` says how many there may be, and with a number sets that",
        );
    }
    let help = Some(help.join("\n")).filter(|h| !h.is_empty());
    let source = span.as_ref().and_then(|span| source(file, span));
    let span = source.as_ref().and(span).map(SourceSpan::from);
    Trouble { message, help, text: source, span }
}

/// The file once more, unless it cannot be read again or is another by now.
fn source(file: &Path, span: &Span) -> Option<NamedSource<String>> {
    let text = file.is_file().then(|| std::fs::read_to_string(file).ok()).flatten()?;
    text.get(span.clone()).is_some().then(|| NamedSource::new(file.display().to_string(), text))
}

/// What failed, and its causes, as far as they say something new.
fn message(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// A negotiation that failed, for JSON.
pub fn negotiation(error: &NegotiationError) -> json::Error {
    match error {
        NegotiationError::Element { failure, .. } => element(failure),
        _ => json::Error { kind: "negotiation", element: None, message: error.to_string() },
    }
}

/// A run that failed, for JSON.
pub fn run(error: &Error) -> json::Error {
    match error {
        Error::Negotiation(error) => negotiation(error),
        Error::Unfit { change, .. } => json::Error { message: error.to_string(), ..element(change) },
        Error::Element(failure) => element(failure),
    }
}

fn element(failure: &Failure) -> json::Error {
    let kind = match failure.kind() {
        FailureKind::Unplugged => "unplugged",
        FailureKind::InUse => "in-use",
        FailureKind::Changed => "changed",
        FailureKind::Stalled => "stalled",
        FailureKind::Limit => "limit",
        FailureKind::Data => "data",
        FailureKind::Config => "config",
        FailureKind::Panic => "panic",
        _ => "device",
    };
    json::Error { kind, element: failure.element().map(str::to_owned), message: message(failure) }
}
