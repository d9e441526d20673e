//! Texts that errors point into.

use std::ops::Range;
use std::sync::Arc;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// A file or an override, as it is shown in errors.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    text: String,
}

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Arc<Source> {
        // A broken file may hold anything, and its lines go to a terminal: escape sequences must not. One byte takes the
        // place of one byte, so that spans stay true.
        let text = text.replace(|c: char| c.is_ascii_control() && !matches!(c, '\n' | '\r' | '\t'), "?");
        Arc::new(Source { name: name.to_owned(), text })
    }

    pub(super) fn spot(self: &Arc<Source>, span: Range<usize>) -> Spot {
        let start = self.boundary(span.start);
        let mut end = self.boundary(span.end.max(start));
        // A label that spans lines is drawn around the text; what is wrong is visible in the first.
        if let Some(newline) = self.text[start..end].find('\n').filter(|&n| n > 0) {
            end = start + newline;
        }
        Spot { source: self.clone(), span: start..end }
    }

    pub(super) fn end(self: &Arc<Source>) -> Spot {
        self.spot(self.text.len()..self.text.len())
    }

    fn boundary(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        (0..=at).rev().find(|&i| self.text.is_char_boundary(i)).unwrap_or(0)
    }

    fn position(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..self.boundary(at)];
        let line = before.rsplit('\n').next().unwrap_or_default();
        let column = line.chars().filter(|&c| c != '\u{feff}').count();
        (before.matches('\n').count() + 1, column + 1)
    }
}

impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        context_lines_before: usize,
        context_lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let contents = self.text.read_span(span, context_lines_before, context_lines_after)?;
        let (line, column) = match context_lines_before {
            // This is what the headline shows; miette itself counts a column in bytes.
            0 => {
                let (line, column) = self.position(span.offset());
                (line - 1, column - 1)
            }
            _ => (contents.line(), contents.column()),
        };
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            contents.data(),
            *contents.span(),
            line,
            column,
            contents.line_count(),
        )))
    }
}

/// A place in a source.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) source: Arc<Source>,
    pub(super) span: Range<usize>,
}

impl Spot {
    /// Line and column, from 1, the column in characters.
    pub(super) fn position(&self) -> (usize, usize) {
        self.source.position(self.span.start)
    }

    /// What stands there.
    pub(super) fn text(&self) -> &str {
        &self.source.text[self.span.clone()]
    }

    /// From here to the end of `other`.
    pub(super) fn to(&self, other: &Spot) -> Spot {
        self.source.spot(self.span.start..other.span.end)
    }
}
