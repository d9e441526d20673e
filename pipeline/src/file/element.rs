//! `[element.NAME]` tables, and what `--set` changes in them.

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::error::{Errors, FileError, Problem};
use super::overrides::Override;
use super::source::Spot;
use super::table::{Entry, Item, entries};
use crate::element::Element;
use crate::graph::{Graph, GraphError, NodeId};
use crate::nearest::nearest;
use crate::property::{ElementType, PropertyInfo, SetError};

const PLACEHOLDER: &str = "placeholder";

/// An element as the file describes it.
pub(super) struct Description {
    pub(super) name: String,
    pub(super) key: Spot,
    settings: Vec<Setting>,
    placeholder: Option<Box<Description>>,
}

#[derive(Clone)]
struct Setting {
    name: String,
    key: Spot,
    value: Spot,
    found: String,
    plain: Value,
}

impl Setting {
    fn read(name: &str, key: &Spot, item: &Item<'_>) -> Result<Setting, FileError> {
        Ok(Setting {
            name: name.to_owned(),
            key: key.clone(),
            value: item.spot.clone(),
            found: item.found(),
            plain: item.plain(name)?,
        })
    }
}

/// Every element in the order of the file.
pub(super) fn descriptions(entry: &Entry<'_>, errors: &mut Errors) -> Vec<Description> {
    let form = "tables of the form [element.NAME]";
    let Some(tables) = errors.take(entry.item.entries(entry.name, form)) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for table in tables {
        let DeValue::Table(inner) = table.item.value else {
            errors.push(nameless(&table));
            // What is said of the first property right under [element] holds for all.
            break;
        };
        all.push(Description::read(table.name, table.key, inner, errors));
    }
    all
}

fn nameless(entry: &Entry<'_>) -> FileError {
    let problem = Problem::Value {
        key: format!("element.{}", entry.name),
        expected: "a table".into(),
        why: entry.item.found(),
        about: Some("an element has a name of your own in its header, such as [element.camera]".into()),
    };
    FileError::at(&entry.item.spot, problem)
}

/// Puts `overrides` in the place of what the file says; of two for one property the later holds.
pub(super) fn apply(overrides: &[Override], elements: &mut [Description], errors: &mut Errors) {
    for o in overrides {
        let Some(element) = elements.iter_mut().find(|e| e.name == o.element()) else {
            let known: Vec<_> = elements.iter().map(|e| e.name.clone()).collect();
            let nearest = nearest(o.element(), known.iter().map(String::as_str)).map(str::to_owned);
            let error = GraphError::UnknownElement { name: o.element().to_owned(), nearest, known };
            errors.push(FileError::at(&o.element, Problem::Graph(error)));
            continue;
        };
        let setting = Setting {
            name: o.key().to_owned(),
            key: o.key.clone(),
            value: o.value.clone(),
            found: o.found.clone(),
            plain: o.plain.clone(),
        };
        element.settings.retain(|s| s.name != o.key());
        element.settings.push(setting);
    }
}

impl Description {
    fn read(name: &str, key: Spot, table: &DeTable<'_>, errors: &mut Errors) -> Description {
        let (mut settings, mut placeholder) = (Vec::new(), None);
        for entry in entries(&key.source, table) {
            match (entry.name, entry.item.value) {
                (PLACEHOLDER, DeValue::Table(inner)) => {
                    placeholder = Some(Box::new(Description::read(name, entry.key, inner, errors)));
                }
                (PLACEHOLDER, _) => {
                    let form = "an element in braces, such as { type = \"test-src\" }";
                    errors.push(entry.item.unexpected(PLACEHOLDER, form));
                }
                _ => settings.extend(errors.take(Setting::read(entry.name, &entry.key, &entry.item))),
            }
        }
        Description { name: name.to_owned(), key, settings, placeholder }
    }

    /// Makes the placeholder, where the file has one for this element.
    pub(super) fn add_placeholder(&self, node: NodeId, graph: &mut Graph, types: &[ElementType], errors: &mut Errors) {
        let Some(placeholder) = &self.placeholder else { return };
        let Some(element) = placeholder.build(types, errors) else { return };
        let set = graph.set_placeholder(node, element);
        errors.take(set.map_err(|error| FileError::at(&placeholder.key, Problem::Graph(error))));
    }

    /// Makes the element.
    pub(super) fn build(&self, types: &[ElementType], errors: &mut Errors) -> Option<Box<dyn Element>> {
        let element_type = errors.take(self.element_type(types))?;
        let mut config = element_type.configure();
        let mut fine = true;
        for s in self.settings.iter().filter(|s| s.name != "type") {
            if let Err(error) = config.set(&s.name, &s.plain) {
                fine = false;
                errors.push(self.not_set(s, error, element_type));
            }
        }
        if !fine {
            return None;
        }
        let built = config.build().map_err(|error| {
            let at = self.settings.iter().find(|s| Some(s.name.as_str()) == error.property);
            let about = element_type.properties().iter().find(|p| Some(p.name.as_str()) == error.property).map(about);
            let problem = Problem::Build { element: self.name.clone(), error, about };
            FileError::at(at.map_or(&self.key, |s| &s.value), problem)
        });
        errors.take(built)
    }

    fn element_type<'t>(&self, types: &'t [ElementType]) -> Result<&'t ElementType, FileError> {
        let known = || types.iter().map(|t| t.name.to_owned()).collect();
        let Some(setting) = self.settings.iter().find(|s| s.name == "type") else {
            let near = self.settings.iter().find(|s| nearest(&s.name, ["type"]).is_some());
            let nearest = near.map(|s| s.name.clone());
            let problem = Problem::NoType { element: self.name.clone(), nearest, known: known() };
            return Err(FileError::at(near.map_or(&self.key, |s| &s.key), problem));
        };
        let Some(name) = setting.plain.as_str() else {
            let problem = Problem::Value {
                key: "type".into(),
                expected: "the name of an element type as a string".into(),
                why: setting.found.clone(),
                about: Some(format!("types: {}", types.iter().map(|t| t.name).collect::<Vec<_>>().join(", "))),
            };
            return Err(FileError::at(&setting.value, problem));
        };
        types.iter().find(|t| t.name == name).ok_or_else(|| {
            let nearest = nearest(name, types.iter().map(|t| t.name)).map(str::to_owned);
            let problem = Problem::UnknownType { name: name.to_owned(), nearest, known: known() };
            FileError::at(&setting.value, problem)
        })
    }

    fn not_set(&self, setting: &Setting, error: SetError, element_type: &ElementType) -> FileError {
        let properties = element_type.properties();
        match error {
            SetError::Unknown => {
                let problem = Problem::UnknownProperty {
                    element_type: element_type.name,
                    property: setting.name.clone(),
                    nearest: nearest(&setting.name, properties.iter().map(|p| p.name.as_str())).map(str::to_owned),
                    known: properties.into_iter().map(|p| p.name).collect(),
                };
                FileError::at(&setting.key, problem)
            }
            SetError::Value { expected, why } => {
                let why = if why.is_empty() { setting.found.clone() } else { why };
                let about = properties.iter().find(|p| p.name == setting.name).map(about);
                let problem = Problem::Value { key: setting.name.clone(), expected, why, about };
                FileError::at(&setting.value, problem)
            }
        }
    }
}

fn about(property: &PropertyInfo) -> String {
    // Its first sentence, over however many lines.
    let lines: Vec<&str> = property.doc.lines().map(str::trim).collect();
    let doc = lines.join(" ");
    let doc = doc.find(". ").map_or(doc.as_str(), |end| &doc[..=end]);
    match property.default.as_str() {
        "" | "\"\"" => format!("`{}`: {doc}", property.name),
        default => format!("`{}`: {doc} Default: {default}", property.name),
    }
}
