//! From text to tables, and the parser's complaints in plainer words.

use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use super::error::{FileError, Problem};
use super::source::Source;

/// Parses `text`, which is what `source` shows.
pub(super) fn parse<'a>(source: &Arc<Source>, text: &'a str) -> Result<Spanned<DeTable<'a>>, FileError> {
    DeTable::parse(text).map_err(|error| {
        let spot = error.span().map_or_else(|| source.end(), |span| source.spot(span));
        let problem = match error.message() {
            "duplicate key" => Problem::Duplicate { name: spot.text().to_owned() },
            message => Problem::Syntax { message: message.to_owned(), help: help(message) },
        };
        FileError::at(&spot, problem)
    })
}

fn help(_message: &str) -> Option<&'static str> {
    None
}
