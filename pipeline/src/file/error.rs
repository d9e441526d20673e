//! What can be wrong with a pipeline file, in words.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, SourceCode};

use super::source::Spot;
use crate::graph::{GraphError, Span};
use crate::property::BuildError;

/// What is wrong, with the values; its text is one line for the user, [`Problem::help`] says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// No such file.
    #[error("there is no file `{path}`{}", hint(.nearest))]
    NoFile {
        /// Path as given.
        path: String,
        /// The pipeline file beside it whose name is most like it.
        nearest: Option<String>,
    },
    /// A directory.
    #[error("`{path}` is a directory, not a pipeline file")]
    Directory {
        /// Path as given.
        path: String,
    },
    /// No permission.
    #[error("no permission to read `{path}`")]
    Denied {
        /// Path as given.
        path: String,
    },
    /// Any other failure to read.
    #[error("cannot read `{path}`: {error}")]
    Unreadable {
        /// Path as given.
        path: String,
        /// The system's words.
        error: String,
    },
    /// Not a pipeline file by its size.
    #[error("`{path}` is larger than {} KiB, which no pipeline file is", .limit / 1024)]
    TooLarge {
        /// Path as given.
        path: String,
        /// Bytes.
        limit: u64,
    },
    /// Bytes that are no text.
    #[error("the file is not UTF-8 text: byte {byte:#04x} at offset {offset}")]
    NotUtf8 {
        /// The first that does not fit.
        byte: u8,
        /// From the start of the file.
        offset: usize,
    },
    /// The TOML parser's complaint.
    #[error("{message}")]
    Syntax {
        /// What it found and expected.
        message: String,
        /// What to do about it, where the mistake is a common one.
        help: Option<String>,
    },
    /// A key or table that is there twice.
    #[error("`{name}` is defined twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// Nothing in it.
    #[error("{}", if *.blank { "the file is empty" } else { "the file has no elements" })]
    NoElements {
        /// True where there is nothing else either.
        blank: bool,
    },
    /// Elements, but no links.
    #[error("no [[link]] joins the elements")]
    NoLinks,
    /// A key that means nothing in its table.
    #[error("unknown key `{key}` in {table}{}", hint(.nearest))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it stands.
        table: &'static str,
        /// The one most like it.
        nearest: Option<String>,
        /// All there are.
        known: Vec<String>,
    },
    /// A value that will not do.
    #[error("`{key}` expects {expected}, but {why}")]
    Value {
        /// The key.
        key: String,
        /// What it takes.
        expected: String,
        /// What is wrong with it.
        why: String,
        /// What the key is for.
        about: Option<String>,
    },
    /// An element without a type.
    #[error("element `{element}` has no `type`{}", .nearest.as_ref().map(|n| format!(" (is `{n}` meant to be it?)")).unwrap_or_default())]
    NoType {
        /// The element.
        element: String,
        /// The key most like it.
        nearest: Option<String>,
        /// All types.
        known: Vec<String>,
    },
    /// A type that is not there.
    #[error("there is no element type `{name}`{}", hint(.nearest))]
    UnknownType {
        /// The name.
        name: String,
        /// The one most like it.
        nearest: Option<String>,
        /// All types.
        known: Vec<String>,
    },
    /// A property that the element's type does not have.
    #[error("`{element_type}` has no property `{property}`{}", hint(.nearest))]
    UnknownProperty {
        /// Type of the element.
        element_type: &'static str,
        /// The name.
        property: String,
        /// The one most like it.
        nearest: Option<String>,
        /// All it has.
        known: Vec<String>,
    },
    /// A link without a path.
    #[error("this link has no `path`")]
    NoPath,
    /// A path that joins nothing.
    #[error("a path names 2 or more elements, this one {}", if *.names == 0 { "none" } else { "only 1" })]
    ShortPath {
        /// How many.
        names: usize,
    },
    /// Properties that are fine one by one, but not together.
    #[error("element `{element}`: {error}")]
    Build {
        /// The element.
        element: String,
        /// What it says.
        error: BuildError,
        /// What the property is for.
        about: Option<String>,
    },
    /// Elements and links that make no graph.
    #[error("{0}")]
    Graph(GraphError),
    /// Not an override.
    #[error("`{text}` is not of the form element.property=value")]
    Override {
        /// What was given.
        text: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default()
}

const EXAMPLE: &str = "a pipeline has elements and links:\n\
    [element.camera]\ntype = \"test-src\"\n\
    [element.display]\ntype = \"screen-sink\"\n\
    [[link]]\npath = [\"camera\", \"display\"]";

impl Problem {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Problem::NoFile { .. } => "paths are relative to the directory the command is run in".into(),
            Problem::Directory { .. } => "name a file in it".into(),
            Problem::Denied { path } => format!("make it readable: chmod a+r '{path}'"),
            Problem::TooLarge { .. } => "is this a pipeline file, or a video?".into(),
            Problem::NotUtf8 { .. } => "save it as UTF-8; if this is no text file, the wrong file was named".into(),
            Problem::Syntax { help, .. } => return help.clone(),
            Problem::Duplicate { .. } => "a name stands for one thing: remove one of the two, or rename it".into(),
            Problem::NoElements { .. } => EXAMPLE.into(),
            Problem::NoLinks => "add a link:\n[[link]]\npath = [\"from\", \"to\"]".into(),
            Problem::UnknownKey { table, known, .. } if known.is_empty() => format!("{table} has no keys"),
            Problem::UnknownKey { table, known, .. } => format!("keys of {table}: {}", known.join(", ")),
            Problem::Value { about, .. } | Problem::Build { about, .. } => return about.clone(),
            Problem::NoType { known, .. } => format!("add type = \"…\"; types: {}", known.join(", ")),
            Problem::UnknownType { known, .. } => {
                format!("types: {}; `shrbuf inspect` describes them", known.join(", "))
            }
            Problem::UnknownProperty { element_type, known, .. } if known.is_empty() => {
                format!("`{element_type}` has no properties at all")
            }
            Problem::UnknownProperty { element_type, known, .. } => {
                format!("properties of `{element_type}`: {}", known.join(", "))
            }
            Problem::NoPath => "add path = [\"from\", \"to\"] to it".into(),
            Problem::ShortPath { .. } => "write path = [\"from\", \"to\"]".into(),
            Problem::Graph(GraphError::UnknownPort { element, direction: "output", known, .. }) if known.is_empty() => {
                format!("frames end at `{element}`: it can only be last in a path")
            }
            Problem::Graph(GraphError::UnknownPort { element, direction: "input", known, .. }) if known.is_empty() => {
                format!("frames begin at `{element}`: it can only be first in a path")
            }
            Problem::Graph(GraphError::Cycle { .. }) => "take one of these links out: frames cannot go round".into(),
            Problem::Override { .. } => "for example camera.device=/dev/video1".into(),
            Problem::Graph(_) | Problem::Unreadable { .. } => return None,
        })
    }

    fn label(&self) -> Option<&'static str> {
        Some(match self {
            Problem::NotUtf8 { .. } => "not text",
            Problem::Duplicate { .. } => "again",
            Problem::NoLinks => "joined to nothing",
            Problem::UnknownKey { .. } => "unknown key",
            Problem::Value { .. } => "this value",
            Problem::NoType { .. } => "no type",
            Problem::UnknownType { .. } => "unknown type",
            Problem::UnknownProperty { .. } => "unknown property",
            Problem::NoPath | Problem::ShortPath { .. } => "this link",
            _ => "here",
        })
    }
}

/// A file was not loaded: what is wrong, where, and what to do. Rendered by `miette` it shows the line.
///
/// ```
/// let text = "[pipeline]\ncopys = \"deny\"";
/// let error = shrbuf_pipeline::file::load("my.toml", text, &[], &[]).unwrap_err();
/// assert_eq!((error.line(), error.column()), (2, 1));
/// assert_eq!(error.to_string(), "unknown key `copys` in [pipeline] (did you mean `copies`?)");
/// ```
#[derive(Debug, Clone)]
pub struct FileError(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    problem: Problem,
    spot: Option<Spot>,
    others: Vec<FileError>,
}

impl FileError {
    /// Of something that has no text to point into.
    pub(super) fn unread(problem: Problem) -> FileError {
        FileError(Arc::new(Inner { problem, spot: None, others: Vec::new() }))
    }

    pub(super) fn at(spot: &Spot, problem: Problem) -> FileError {
        FileError(Arc::new(Inner { problem, spot: Some(spot.clone()), others: Vec::new() }))
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// Name of the file, or `--set` for an override.
    pub fn name(&self) -> Option<&str> {
        self.0.spot.as_ref().map(|s| s.source.name.as_str())
    }

    /// Bytes in the text that are wrong.
    pub fn span(&self) -> Option<Span> {
        self.0.spot.as_ref().map(|s| s.span.clone())
    }

    /// Line of its start, from 1; 1 too where no text was read.
    pub fn line(&self) -> usize {
        self.0.spot.as_ref().map_or(1, |s| s.position().0)
    }

    /// Column of its start in characters, from 1; 1 too where no text was read.
    pub fn column(&self) -> usize {
        self.0.spot.as_ref().map_or(1, |s| s.position().1)
    }

    /// What else is wrong, in the order of the file; the first 19 of it.
    pub fn others(&self) -> &[FileError] {
        &self.0.others
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names come from the file: they may hold line breaks and escape sequences, and be as long as it is.
        for (i, c) in self.0.problem.to_string().chars().enumerate() {
            match c {
                _ if i == 500 => return f.write_str("…"),
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for FileError {}

impl Diagnostic for FileError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.problem.help().map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0.spot.as_ref().map(|s| s.source.as_ref() as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span()?;
        let label = self.0.problem.label().map(str::to_owned);
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(label, span))))
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        if self.0.others.is_empty() {
            return None;
        }
        Some(Box::new(self.0.others.iter().map(|e| e as &dyn Diagnostic)))
    }
}

/// As many errors as are told at once; whoever has more mends these first.
const MOST: usize = 20;

/// Errors found so far. Independent ones are told all at once, so that a file is mended in one go.
#[derive(Default)]
pub(super) struct Errors(Vec<FileError>);

impl Errors {
    pub(super) fn push(&mut self, error: FileError) {
        self.0.push(error);
    }

    /// The value, or `None` and the error is kept.
    pub(super) fn take<T>(&mut self, result: Result<T, FileError>) -> Option<T> {
        result.map_err(|e| self.push(e)).ok()
    }

    pub(super) fn finish(mut self) -> Result<(), FileError> {
        self.0.sort_by_key(|e| (e.name() == Some(super::OVERRIDE), e.span().map_or(0, |s| s.start)));
        let mut all = self.0.into_iter().take(MOST);
        let Some(first) = all.next() else { return Ok(()) };
        let Inner { problem, spot, .. } = &*first.0;
        Err(FileError(Arc::new(Inner { problem: problem.clone(), spot: spot.clone(), others: all.collect() })))
    }
}
