//! TOML tables whose entries know where they stand, in the order of the file.

use std::sync::Arc;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::error::{FileError, Problem};
use super::source::{Source, Spot};
use crate::nearest::nearest;
use crate::property::Property;

/// A value in a source.
#[derive(Clone)]
pub(super) struct Item<'a> {
    pub(super) value: &'a DeValue<'a>,
    pub(super) spot: Spot,
}

impl<'a> Item<'a> {
    pub(super) fn new(source: &Arc<Source>, value: &'a toml::Spanned<DeValue<'a>>) -> Item<'a> {
        Item { value: value.get_ref(), spot: source.spot(value.span()) }
    }

    /// "`key` expects `expected`, but found …".
    pub(super) fn unexpected(&self, key: &str, expected: impl Into<String>) -> FileError {
        let problem = Problem::Value { key: key.to_owned(), expected: expected.into(), why: self.found(), about: None };
        FileError::at(&self.spot, problem)
    }

    /// "found the string `"x"`".
    pub(super) fn found(&self) -> String {
        let text = self.spot.text();
        let kind = self.value.type_str();
        // A table's header says nothing about what is in it.
        if self.value.is_table() { format!("found a {kind}") } else { format!("found the {kind} `{}`", clip(text)) }
    }

    pub(super) fn entries(&self, key: &str, expected: &str) -> Result<Vec<Entry<'a>>, FileError> {
        match self.value {
            DeValue::Table(table) => Ok(entries(&self.spot.source, table)),
            _ => Err(self.unexpected(key, expected)),
        }
    }

    pub(super) fn list(&self, key: &str, expected: &str) -> Result<Vec<Item<'a>>, FileError> {
        match self.value {
            DeValue::Array(list) => Ok(list.iter().map(|item| Item::new(&self.spot.source, item)).collect()),
            _ => Err(self.unexpected(key, expected)),
        }
    }

    pub(super) fn text(&self, key: &str, expected: &str) -> Result<&'a str, FileError> {
        self.value.as_str().ok_or_else(|| self.unexpected(key, expected))
    }

    /// Without its places.
    pub(super) fn plain(&self, key: &str) -> Result<Value, FileError> {
        let out_of_range = |expected| self.unexpected(key, expected);
        Ok(match self.value {
            DeValue::String(s) => Value::String(s.to_string()),
            DeValue::Integer(n) => Value::Integer(
                i64::from_str_radix(n.as_str(), n.radix()).map_err(|_| out_of_range("an integer of 64 bits"))?,
            ),
            DeValue::Float(x) => match x.as_str().parse::<f64>() {
                Ok(x) if x.is_finite() => Value::Float(x),
                _ => return Err(out_of_range("a finite number")),
            },
            DeValue::Boolean(b) => Value::Boolean(*b),
            DeValue::Datetime(d) => Value::Datetime(*d),
            DeValue::Array(list) => {
                let items = list.iter().map(|item| Item::new(&self.spot.source, item).plain(key));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => {
                let entries = entries(&self.spot.source, table);
                let values = entries.iter().map(|e| Ok((e.name.to_owned(), e.item.plain(e.name)?)));
                Value::Table(values.collect::<Result<_, _>>()?)
            }
        })
    }

    /// As a property's type.
    pub(super) fn read<T: Property>(&self, key: &str) -> Result<T, FileError> {
        T::parse(&self.plain(key)?).map_err(|why| {
            let why = if why.is_empty() { self.found() } else { why };
            let problem = Problem::Value { key: key.to_owned(), expected: T::expected(), why, about: None };
            FileError::at(&self.spot, problem)
        })
    }
}

/// A key and its value.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) key: Spot,
    pub(super) item: Item<'a>,
}

impl Entry<'_> {
    /// It means nothing in `table`.
    pub(super) fn unknown(&self, table: &'static str, known: &[&str]) -> FileError {
        let problem = Problem::UnknownKey {
            key: self.name.to_owned(),
            table,
            nearest: nearest(self.name, known.iter().copied()).map(str::to_owned),
            known: known.iter().map(|&k| k.to_owned()).collect(),
        };
        FileError::at(&self.key, problem)
    }
}

/// Entries of `table` in the order of the file.
pub(super) fn entries<'a>(source: &Arc<Source>, table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| Entry { name: key.get_ref(), key: source.spot(key.span()), item: Item::new(source, value) })
        .collect();
    entries.sort_by_key(|e| e.key.span.start);
    entries
}

/// Enough of `text` to know it by.
pub(super) fn clip(text: &str) -> String {
    let mut clipped: String = text.chars().take(40).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}
