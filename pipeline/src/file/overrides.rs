//! `--set element.property=value`.

use std::str::FromStr;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Value};

use super::error::{FileError, Problem};
use super::source::{Source, Spot};
use super::syntax;
use super::table::{Item, clip};

/// A property set from the command line, over what the file says. The value is TOML; what is none is a string, so that
/// a shell's user needs no second pair of quotes. Errors about it point into it, not into the file.
///
/// ```
/// use shrbuf_pipeline::file::Override;
/// let device: Override = "camera.device=/dev/video1".parse()?;
/// assert_eq!((device.element(), device.key()), ("camera", "device"));
/// assert_eq!(device.value().as_str(), Some("/dev/video1"));
/// let depth: Override = "room.depth=3".parse()?;
/// assert_eq!(depth.value().as_integer(), Some(3));
/// assert!("camera".parse::<Override>().is_err());
/// # Ok::<(), shrbuf_pipeline::file::FileError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Override {
    pub(super) element: Spot,
    pub(super) key: Spot,
    pub(super) value: Spot,
    pub(super) found: String,
    pub(super) plain: Value,
}

impl Override {
    /// Name of the element.
    pub fn element(&self) -> &str {
        self.element.text()
    }

    /// Name of the property.
    pub fn key(&self) -> &str {
        self.key.text()
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.plain
    }
}

impl FromStr for Override {
    type Err = FileError;

    fn from_str(text: &str) -> Result<Override, FileError> {
        let source = Source::new(super::OVERRIDE, text);
        let malformed = || {
            let problem = Problem::Override { text: text.to_owned() };
            FileError::at(&source.spot(0..text.len()), problem)
        };
        let (path, word) = text.split_once('=').ok_or_else(malformed)?;
        let (element, key) = path.split_once('.').ok_or_else(malformed)?;
        if element.is_empty() || key.is_empty() {
            return Err(malformed());
        }
        let value = source.spot(path.len() + 1..text.len());
        // As it stands an override is a line of TOML, if its value is.
        let tables = syntax::tables(text);
        let parsed = tables.as_ref().and_then(|t| only(t, element)).and_then(|e| only(e.get_ref().as_table()?, key));
        let (plain, found) = match parsed {
            Some(value) => {
                let item = Item::new(&source, value);
                (item.plain(key)?, item.found())
            }
            None => (Value::String(word.to_owned()), format!("found the string `{}`", clip(word))),
        };
        Ok(Override {
            element: source.spot(0..element.len()),
            key: source.spot(element.len() + 1..path.len()),
            value,
            found,
            plain,
        })
    }
}

/// The entry `key` of a table that has no other.
fn only<'a>(table: &'a DeTable<'a>, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
    table.get(key).filter(|_| table.len() == 1)
}
