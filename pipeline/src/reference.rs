//! The element reference, written from the elements' own declarations.
//!
//! ```
//! use shrbuf_pipeline::{Build, BuildError, Element, ElementType, properties, queue::{Queue, QueueSpec}, reference};
//!
//! properties! {
//!     /// Room for some frames.
//!     pub struct Room = "room" {
//!         /// Frames.
//!         depth: u32 = 2,
//!     }
//! }
//!
//! impl Build for Room {
//!     fn build(self) -> Result<Box<dyn Element>, BuildError> {
//!         Ok(Box::new(Queue(QueueSpec { depth: self.depth, ..QueueSpec::default() })))
//!     }
//! }
//!
//! let room = ElementType::of::<Room>();
//! assert!(reference::markdown(&[room]).contains("| `depth` | an integer from 0 to 4294967295 | `2` | Frames. |"));
//! assert!(reference::text(&room).starts_with("room: Room for some frames.\n"));
//! ```

use std::fmt::Write;

use crate::property::{ElementType, PropertyInfo};

/// Every type in Markdown: a heading, its documentation, and a table of its properties each.
pub fn markdown(types: &[ElementType]) -> String {
    types.iter().map(section).collect::<Vec<_>>().join("\n")
}

fn section(element_type: &ElementType) -> String {
    let (summary, rest) = doc(element_type);
    let mut out = format!("## `{}`\n\n{summary}\n", element_type.name);
    if !rest.is_empty() {
        let _ = write!(out, "\n{rest}\n");
    }
    let properties = element_type.properties();
    if properties.is_empty() {
        out.push_str("\nIt has no properties.\n");
        return out;
    }
    out.push_str("\n| property | takes | default | |\n| --- | --- | --- | --- |\n");
    for PropertyInfo { name, doc, expected, default } in properties {
        let default = if default.is_empty() { String::new() } else { format!("`{}`", cell(&default)) };
        let _ = writeln!(out, "| `{name}` | {} | {default} | {} |", cell(&expected), cell(&doc));
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// One type as plain text for a terminal.
pub fn text(element_type: &ElementType) -> String {
    let (summary, rest) = doc(element_type);
    let mut out = format!("{}: {summary}\n", element_type.name);
    if !rest.is_empty() {
        let _ = write!(out, "\n{rest}\n");
    }
    for PropertyInfo { name, doc, expected, default } in element_type.properties() {
        let default = if default.is_empty() { "(not set)".to_owned() } else { format!("= {default}") };
        let _ = write!(out, "\n  {name} {default}\n      takes {expected}\n");
        for line in doc.lines() {
            let _ = writeln!(out, "      {line}");
        }
    }
    out
}

/// The summary, and what follows it. `rustdoc` takes one blank off each line, as this does.
fn doc(element_type: &ElementType) -> (String, String) {
    let lines: Vec<&str> = element_type.doc.lines().map(|l| l.strip_prefix(' ').unwrap_or(l).trim_end()).collect();
    let doc = lines.join("\n");
    let (summary, rest) = doc.trim().split_once("\n\n").unwrap_or((doc.trim(), ""));
    (summary.replace('\n', " "), rest.trim().to_owned())
}
