//! From text to tables, and the parser's complaints in plainer words.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

use super::error::{FileError, Problem};
use super::source::Source;

/// Parses `text`, which is what `source` shows.
pub(super) fn parse<'a>(source: &Arc<Source>, text: &'a str) -> Result<Spanned<DeTable<'a>>, FileError> {
    if let Some(span) = too_deep(text) {
        let problem = Problem::Syntax { message: format!("more than {DEPTH} levels deep"), help: None };
        return Err(FileError::at(&source.spot(span), problem));
    }
    DeTable::parse(text).map_err(|error| {
        let spot = error.span().map_or_else(|| source.end(), |span| source.spot(span));
        let problem = match error.message() {
            "duplicate key" => Problem::Duplicate { name: spot.text().to_owned() },
            message => complaint(message, spot.text(), text),
        };
        FileError::at(&spot, problem)
    })
}

/// Levels of arrays and tables in one another, and parts of a dotted key.
const DEPTH: usize = 16;

/// Where `text` goes deeper than [`DEPTH`]. The parser's own limits are 80 nested values with keys of 80 parts each, and
/// tables of 6400 levels overflow the stack when they are dropped.
fn too_deep(text: &str) -> Option<Range<usize>> {
    let (mut nested, mut parts) = (0_usize, 0);
    for token in toml_parser::Source::new(text).lex() {
        match token.kind() {
            TokenKind::Dot => parts += 1,
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => (nested, parts) = (nested + 1, 0),
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                (nested, parts) = (nested.saturating_sub(1), 0);
            }
            TokenKind::Equals | TokenKind::Comma | TokenKind::Newline => parts = 0,
            _ => {}
        }
        if nested > DEPTH || parts >= DEPTH {
            return Some(token.span().start()..token.span().end());
        }
    }
    None
}

/// The tables in `text`, if it is TOML.
pub(super) fn tables(text: &str) -> Option<DeTable<'_>> {
    let text = Some(text).filter(|t| too_deep(t).is_none())?;
    DeTable::parse(text).ok().map(Spanned::into_inner)
}

/// The parser's `message` about the words `there` in `text`, and what its readers mostly have to do.
fn complaint(message: &str, there: &str, text: &str) -> Problem {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let (message, help) = match what {
        // Said of a value that is not there, too.
        "string values must be quoted" if there.is_empty() => {
            ("missing value, expected a string, a number, true, false, `[` or `{`", "")
        }
        "string values must be quoted" => {
            let help = Some(format!("write \"{}\"", there.escape_debug()));
            return Problem::Syntax { message: what.into(), help };
        }
        "missing escaped value" => {
            ("a `\\` in double quotes begins an escape", "write `\\\\`, or put the string in single quotes")
        }
        "key with no value" => (message, "every line is a [table] or key = value"),
        "invalid key-value pair" if text.trim_start().starts_with('{') => {
            ("expected a key or a [table]", "this looks like JSON; a pipeline file is TOML")
        }
        "invalid basic string" if expected == "`\"`" => (message, "close the string on the line where it begins"),
        "invalid literal string" if expected == "`'`" => (message, "close the string on the line where it begins"),
        "invalid boolean" => (message, "write true or false, in small letters"),
        "missing comma between array elements" => {
            (message, "put a `,` between the values, or close the array with `]`")
        }
        "unexpected key or value" => ("a second key or value on one line, expected a line break", ""),
        _ if expected == "nothing" => (what, ""),
        _ => (message, ""),
    };
    Problem::Syntax { message: message.into(), help: Some(help.to_owned()).filter(|h| !h.is_empty()) }
}
