//! Properties: what can be set on an element, in Rust as fields, in TOML and on the command line by name.
//!
//! [`properties!`](crate::properties) declares a type of element once; its struct, defaults, parser and reference
//! documentation all come from that declaration.
//!
//! ```
//! use shrbuf_pipeline::property::{BuildError, Build, ElementType};
//! use shrbuf_pipeline::{properties, queue::{Queue, QueueSpec}, Element};
//!
//! properties! {
//!     /// Room for some frames.
//!     ///
//!     /// Cuts the graph into two threads.
//!     pub struct Room = "room" {
//!         /// Frames.
//!         depth: u32 = 2,
//!     }
//! }
//!
//! impl Build for Room {
//!     fn build(self) -> Result<Box<dyn Element>, BuildError> {
//!         if self.depth == 0 {
//!             return Err(BuildError::of("depth", "must be 1 or more"));
//!         }
//!         Ok(Box::new(Queue(QueueSpec { depth: self.depth, ..QueueSpec::default() })))
//!     }
//! }
//!
//! let room = Room { depth: 3 }.build()?;                 // in Rust
//! let mut config = ElementType::of::<Room>().configure(); // by name
//! config.set("depth", &toml::Value::Integer(3))?;
//! assert_eq!(config.build()?.ports(), room.ports());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod values;

pub use toml::Value;

use crate::element::Element;
pub use values::{Bytes, not_one_of, one_of};

/// A type that a property can have.
pub trait Property: Sized {
    /// What TOML must hold, with an example, to follow "expected".
    fn expected() -> String;

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong beyond "expected …", empty where that says it all.
    fn parse(value: &Value) -> Result<Self, String>;

    /// As TOML would have it; empty for "not set".
    fn show(&self) -> String;
}

/// What can be said of one property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PropertyInfo {
    /// Name in TOML.
    pub name: String,
    /// What it does.
    pub doc: String,
    /// What it takes.
    pub expected: String,
    /// Its default in TOML; empty for "not set".
    pub default: String,
}

/// A property was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// There is none of that name.
    #[error("no property of that name")]
    Unknown,
    /// The value will not do.
    #[error("expected {expected}{}", if .why.is_empty() { String::new() } else { format!(": {why}") })]
    Value {
        /// What it takes.
        expected: String,
        /// What is wrong, beyond that; may be empty.
        why: String,
    },
}

/// Properties that are fine one by one do not make an element.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", .property.as_ref().map(|p| format!("`{p}` ")).unwrap_or_default())]
pub struct BuildError {
    /// The property at fault, where it is one.
    pub property: Option<&'static str>,
    /// What is wrong and what would do.
    pub message: String,
}

impl BuildError {
    /// `property` is at fault.
    pub fn of(property: &'static str, message: impl Into<String>) -> BuildError {
        BuildError { property: Some(property), message: message.into() }
    }
}

/// The declaration side of an element's configuration; written by [`properties!`](crate::properties).
pub trait Properties: Default + Send + 'static {
    /// Type name in TOML.
    const TYPE: &'static str;
    /// Documentation: the first line is the summary.
    const DOC: &'static str;

    /// Every property.
    fn properties() -> Vec<PropertyInfo>;

    /// Sets one by its TOML name.
    ///
    /// # Errors
    /// [`SetError`].
    fn set(&mut self, name: &str, value: &Value) -> Result<(), SetError>;
}

/// Makes the element.
pub trait Build: Properties {
    /// Makes the element. Opens nothing yet: a missing device shows when ports are asked for their offers.
    ///
    /// # Errors
    /// [`BuildError`].
    fn build(self) -> Result<Box<dyn Element>, BuildError>;
}

trait Configure: Send {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), SetError>;
    fn build(self: Box<Self>) -> Result<Box<dyn Element>, BuildError>;
}

impl<T: Build> Configure for T {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), SetError> {
        Properties::set(self, name, value)
    }
    fn build(self: Box<Self>) -> Result<Box<dyn Element>, BuildError> {
        Build::build(*self)
    }
}

/// An element's configuration whose type is known only by name.
pub struct Configuration(Box<dyn Configure>);

impl Configuration {
    /// Sets a property by its TOML name.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn set(&mut self, name: &str, value: &Value) -> Result<(), SetError> {
        self.0.set(name, value)
    }

    /// Makes the element.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(self) -> Result<Box<dyn Element>, BuildError> {
        self.0.build()
    }
}

/// A type of element that TOML can name.
#[derive(Clone, Copy)]
pub struct ElementType {
    /// Its name.
    pub name: &'static str,
    /// Documentation: the first line is the summary, the rest Markdown.
    pub doc: &'static str,
    properties: fn() -> Vec<PropertyInfo>,
    make: fn() -> Box<dyn Configure>,
}

impl ElementType {
    /// The type whose configuration is `T`.
    pub fn of<T: Build>() -> ElementType {
        ElementType { name: T::TYPE, doc: T::DOC, properties: T::properties, make: || Box::new(T::default()) }
    }

    /// Every property.
    pub fn properties(&self) -> Vec<PropertyInfo> {
        (self.properties)()
    }

    /// A configuration of defaults.
    pub fn configure(&self) -> Configuration {
        Configuration((self.make)())
    }
}

impl std::fmt::Debug for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Declares an element's configuration; see [`property`](crate::property).
#[macro_export]
macro_rules! properties {
    ($(#[doc = $doc:literal])* pub struct $name:ident = $type:literal {
        $($(#[doc = $pdoc:literal])* $field:ident: $ptype:ty = $default:expr,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $($(#[doc = $pdoc])* pub $field: $ptype,)* }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* }
            }
        }

        impl $crate::property::Properties for $name {
            const TYPE: &'static str = $type;
            const DOC: &'static str = concat!($($doc, "\n",)*);

            fn properties() -> Vec<$crate::property::PropertyInfo> {
                #[allow(unused_variables)]
                let defaults = $name::default();
                vec![$($crate::property::PropertyInfo {
                    name: stringify!($field).replace('_', "-"),
                    doc: concat!($($pdoc, "\n",)*).trim().lines().map(str::trim).collect::<Vec<_>>().join("\n"),
                    expected: <$ptype as $crate::property::Property>::expected(),
                    default: $crate::property::Property::show(&defaults.$field),
                },)*]
            }

            #[allow(unused_variables)]
            fn set(&mut self, name: &str, value: &$crate::property::Value) -> Result<(), $crate::property::SetError> {
                $(if stringify!($field).replace('_', "-") == name {
                    self.$field = <$ptype as $crate::property::Property>::parse(value).map_err(|why| {
                        $crate::property::SetError::Value {
                            expected: <$ptype as $crate::property::Property>::expected(),
                            why,
                        }
                    })?;
                    return Ok(());
                })*
                Err($crate::property::SetError::Unknown)
            }
        }
    };
}
