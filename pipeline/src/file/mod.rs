//! Pipelines as TOML files.
//!
//! A file says what a program would say through [`Graph`], and goes through it:
//!
//! ```toml
//! [pipeline]
//! name = "camera-to-display"      # default: the file's name
//! copies = "deny"                 # deny | warn | allow, where a link would need a copy
//! retry = "10s"                   # how long to keep trying after a device fails; default: stop at once
//!
//! [element.camera]                # a name of your own
//! type = "v4l2-src"               # `shrbuf inspect` lists types and their properties
//! device = "/dev/video0"
//! placeholder = { type = "test-src" }     # of a source or sink: in its place while its device is away; default: none
//!
//! [element.display]
//! type = "kms-sink"
//!
//! [[link]]
//! path = ["camera", "display"]    # 2 or more of `element` or `element.port`
//! queue = { depth = 2, full = "block" }   # block | drop-oldest | latest; on every hop of the path; default: none
//! ```
//!
//! Whatever can be found wrong without opening a device is found here, at its line and column; see [`FileError`].
//!
//! ```
//! use shrbuf_pipeline::file::{self, Override};
//! # use shrbuf_pipeline::{Build, BuildError, Context, Element, ElementType, Failure, Frame, Ports, properties};
//! # struct End(Ports);
//! # impl Element for End {
//! #     fn ports(&self) -> Ports { self.0.clone() }
//! #     fn process(&mut self, _: usize, _: Frame, _: &mut Context<'_>) -> Result<(), Failure> { Ok(()) }
//! # }
//! # properties! {
//! #     /// A source.
//! #     pub struct Source = "test-src" {
//! #         /// Frames a second.
//! #         rate: u32 = 60,
//! #     }
//! # }
//! # properties! {
//! #     /// A sink.
//! #     pub struct Sink = "null-sink" {}
//! # }
//! # impl Build for Source {
//! #     fn build(self) -> Result<Box<dyn Element>, BuildError> { Ok(Box::new(End(Ports::source()))) }
//! # }
//! # impl Build for Sink {
//! #     fn build(self) -> Result<Box<dyn Element>, BuildError> { Ok(Box::new(End(Ports::sink()))) }
//! # }
//! let types = [ElementType::of::<Source>(), ElementType::of::<Sink>()];
//! let text = r#"
//!     element.camera = { type = "test-src", rate = 30 }
//!     element.display = { type = "null-sink" }
//!     link = [{ path = ["camera", "display"] }]
//! "#;
//! let faster: Override = "camera.rate=120".parse()?;
//! let graph = file::load("camera.toml", text, &types, &[faster])?;
//! assert_eq!(graph.name(), "camera");
//! # Ok::<(), file::FileError>(())
//! ```

mod element;
mod error;
mod link;
mod overrides;
mod read;
mod source;
mod syntax;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use error::{FileError, Problem};
pub use overrides::Override;
pub use read::MAX_BYTES;

use crate::graph::{Copies, Graph};
use crate::property::ElementType;
use error::Errors;
use source::Source;
use table::Entry;

/// What an override is called where a file would have its name.
const OVERRIDE: &str = "--set";

/// The graph that `text` describes, of elements of `types`; `name` is the file's, for errors.
///
/// # Errors
/// All that is wrong with it: [`Problem`]s with their places. The graph's own check is among them.
pub fn load(name: &str, text: &str, types: &[ElementType], overrides: &[Override]) -> Result<Graph, FileError> {
    let source = Source::new(name, text);
    let root = syntax::parse(&source, text)?;
    let mut errors = Errors::default();
    let mut settings = Settings::default();
    let (mut elements, mut paths) = (Vec::new(), Vec::new());
    for entry in table::entries(&source, root.get_ref()) {
        match entry.name {
            "pipeline" => settings = Settings::read(&entry, &mut errors),
            "element" => elements = element::descriptions(&entry, &mut errors),
            "link" => paths = link::paths(&entry, &mut errors),
            _ => errors.push(entry.unknown("the file", &["pipeline", "element", "link"])),
        }
    }
    element::apply(overrides, &mut elements, &mut errors);
    let stem = || Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut graph = Graph::new(&settings.name.unwrap_or_else(stem));
    graph.set_copies(settings.copies);
    graph.set_retry(settings.retry);
    for description in &elements {
        let Some(element) = description.build(types, &mut errors) else { continue };
        let place = |error| FileError::at(&description.key, Problem::Graph(error));
        if let Some(node) = errors.take(graph.add(&description.name, element).map_err(place)) {
            graph.set_span(node, description.key.span.clone());
            description.add_placeholder(node, &mut graph, types, &mut errors);
        }
    }
    // An element that was not made would be missed by every link to it.
    errors.finish()?;
    let Some(last) = elements.last() else {
        let blank = text.trim().is_empty();
        return Err(FileError::at(&source.spot(0..0), Problem::NoElements { blank }));
    };
    if paths.is_empty() {
        return Err(FileError::at(&last.key, Problem::NoLinks));
    }
    link(&paths, &mut graph, &source)?;
    Ok(graph)
}

/// As [`load`], from a file of at most [`MAX_BYTES`].
///
/// ```
/// use shrbuf_pipeline::file::{self, Problem};
/// let error = file::load_file("/nowhere/my.toml".as_ref(), &[], &[]).unwrap_err();
/// assert!(matches!(error.problem(), Problem::NoFile { .. }));
/// ```
///
/// # Errors
/// The file cannot be read, or as for [`load`].
pub fn load_file(path: &Path, types: &[ElementType], overrides: &[Override]) -> Result<Graph, FileError> {
    load(&path.display().to_string(), &read::text(path)?, types, overrides)
}

/// `[pipeline]`.
#[derive(Default)]
struct Settings {
    name: Option<String>,
    copies: Copies,
    retry: Option<Duration>,
}

impl Settings {
    fn read(entry: &Entry<'_>, errors: &mut Errors) -> Settings {
        let mut settings = Settings::default();
        let entries = errors.take(entry.item.entries("pipeline", "a table: [pipeline]")).unwrap_or_default();
        for entry in entries {
            match entry.name {
                "name" => settings.name = errors.take(entry.item.read("name")),
                "copies" => settings.copies = errors.take(entry.item.read("copies")).unwrap_or_default(),
                "retry" => settings.retry = errors.take(entry.item.read("retry")),
                _ => errors.push(entry.unknown("[pipeline]", &["name", "copies", "retry"])),
            }
        }
        settings
    }
}

fn link(paths: &[link::Path<'_>], graph: &mut Graph, source: &Arc<Source>) -> Result<(), FileError> {
    let mut errors = Errors::default();
    for path in paths {
        errors.take(path.link(graph));
    }
    errors.finish()?;
    graph.check().map(|_| ()).map_err(|placed| {
        let spot = placed.span.map_or_else(|| source.end(), |span| source.spot(span));
        FileError::at(&spot, Problem::Graph(placed.error))
    })
}
