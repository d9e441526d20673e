//! What properties can hold: numbers, words, sizes, rates, times, and how each is written in TOML.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use shrbuf::Format;

use super::{Property, Value};
use crate::offer::{Rate, Size};

macro_rules! scalar {
    ($type:ty, $expected:literal, $get:ident) => {
        impl Property for $type {
            fn expected() -> String {
                $expected.into()
            }
            fn parse(value: &Value) -> Result<Self, String> {
                value.$get().map(Into::into).ok_or_else(String::new)
            }
            fn show(&self) -> String {
                toml::Value::from(self.clone()).to_string()
            }
        }
    };
}
scalar!(bool, "true or false", as_bool);
scalar!(String, "a string", as_str);

impl Property for f64 {
    fn expected() -> String {
        "a number".into()
    }
    fn parse(value: &Value) -> Result<Self, String> {
        value.as_float().or_else(|| value.as_integer().map(|n| n as f64)).ok_or_else(String::new)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! integer {
    ($type:ty) => {
        impl Property for $type {
            fn expected() -> String {
                format!("an integer from {} to {}", <$type>::MIN, <$type>::MAX)
            }
            fn parse(value: &Value) -> Result<Self, String> {
                let n = value.as_integer().ok_or_else(String::new)?;
                n.try_into().map_err(|_| format!("{n} is out of range"))
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    };
}
integer!(u32);
integer!(i64);

impl Property for u64 {
    fn expected() -> String {
        "an integer of 0 or more".into()
    }
    fn parse(value: &Value) -> Result<Self, String> {
        let n = value.as_integer().ok_or_else(String::new)?;
        n.try_into().map_err(|_| format!("{n} is negative"))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Property for PathBuf {
    fn expected() -> String {
        "a path as a string".into()
    }
    fn parse(value: &Value) -> Result<Self, String> {
        value.as_str().filter(|s| !s.is_empty()).map(PathBuf::from).ok_or_else(String::new)
    }
    fn show(&self) -> String {
        format!("\"{}\"", self.display())
    }
}

impl<T: Property> Property for Option<T> {
    fn expected() -> String {
        T::expected()
    }
    fn parse(value: &Value) -> Result<Self, String> {
        T::parse(value).map(Some)
    }
    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
}

impl Property for Format {
    fn expected() -> String {
        "a pixel format such as \"XR24\" or \"NV12\"".into()
    }
    fn parse(value: &Value) -> Result<Self, String> {
        let name = value.as_str().ok_or_else(String::new)?;
        name.parse().map_err(|_| {
            let all = Format::all().chain(Format::compressed()).map(Format::name);
            match crate::nearest::nearest(&name.to_uppercase(), all) {
                Some(near) => format!("`{name}` is no pixel format; did you mean `{near}`?"),
                None => format!("`{name}` is no pixel format"),
            }
        })
    }
    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Property for Size {
    fn expected() -> String {
        "[width, height] in pixels, such as [1280, 720]".into()
    }
    fn parse(value: &Value) -> Result<Self, String> {
        let numbers: Option<Vec<i64>> = match value {
            Value::Array(list) => list.iter().map(Value::as_integer).collect(),
            // The command line's form.
            Value::String(s) => s.split('x').map(|n| n.parse().ok()).collect(),
            _ => None,
        };
        let Some([w, h]) = numbers.as_deref() else {
            return Err(String::new());
        };
        let side = |n: i64| u32::try_from(n).ok().filter(|n| (1..=65535).contains(n));
        match (side(*w), side(*h)) {
            (Some(w), Some(h)) => Ok(Size::new(w, h)),
            _ => Err(format!("{w}x{h} is outside 1x1..65535x65535")),
        }
    }
    fn show(&self) -> String {
        format!("[{}, {}]", self.width, self.height)
    }
}

impl Property for Rate {
    fn expected() -> String {
        "frames a second: 60, 29.97 or \"30000/1001\"".into()
    }
    fn parse(value: &Value) -> Result<Self, String> {
        let of = |num: u32, den: u32| match num {
            0 => Err("a rate of 0 gives no frames".to_owned()),
            _ => Ok(Rate::new(num, den)),
        };
        match value {
            Value::Integer(n) => of(u32::try_from(*n).map_err(|_| format!("{n} is out of range"))?, 1),
            // 29.97, 59.94 and 23.976 are said for thousands over 1001.
            Value::Float(f) if *f > 0.0 && *f < 1e6 => {
                let ntsc = (f * 1.001).round();
                if (ntsc * 1000.0 / 1001.0 - f).abs() < 0.005 && (f - f.round()).abs() > 0.001 {
                    of(ntsc as u32 * 1000, 1001)
                } else {
                    of((f * 1000.0).round() as u32, 1000)
                }
            }
            Value::String(s) => {
                let (num, den) = s.split_once('/').unwrap_or((s, "1"));
                match (num.trim().parse(), den.trim().parse()) {
                    (Ok(num), Ok(den)) if den > 0 => of(num, den),
                    _ => Err(String::new()),
                }
            }
            _ => Err(String::new()),
        }
    }
    fn show(&self) -> String {
        if self.den == 1 { self.num.to_string() } else { format!("\"{self}\"") }
    }
}

/// So many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
}

impl Property for Bytes {
    fn expected() -> String {
        "a number of bytes such as \"512MiB\" or \"2GiB\"".into()
    }
    fn parse(value: &Value) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(String::new)?;
        let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(String::new)?;
        let n: f64 = text[..split].trim().parse().map_err(|_| String::new())?;
        let unit = Bytes::UNITS.iter().find(|(unit, _)| *unit == &text[split..]);
        let (_, unit) = unit.ok_or_else(|| format!("`{}` is no unit; units are B, KiB, MiB, GiB", &text[split..]))?;
        let bytes = n * *unit as f64;
        if (0.0..u64::MAX as f64).contains(&bytes) {
            Ok(Bytes(bytes as u64))
        } else {
            Err(format!("`{text}` is out of range"))
        }
    }
    fn show(&self) -> String {
        let fits = |(_, unit): &&(&str, u64)| self.0 >= *unit && self.0.is_multiple_of(*unit);
        let (name, unit) = Bytes::UNITS.iter().find(fits).unwrap_or(&("B", 1));
        format!("\"{}{name}\"", self.0 / unit)
    }
}

impl Property for Duration {
    fn expected() -> String {
        "a duration such as \"500ms\", \"2s\" or \"1min\"".into()
    }
    fn parse(value: &Value) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(String::new)?;
        let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(String::new)?;
        let n: f64 = text[..split].trim().parse().map_err(|_| String::new())?;
        let unit = match &text[split..] {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "min" => 60.0,
            "h" => 3600.0,
            other => return Err(format!("`{other}` is no unit; units are us, ms, s, min, h")),
        };
        Duration::try_from_secs_f64(n * unit).map_err(|_| format!("`{text}` is out of range"))
    }
    fn show(&self) -> String {
        if self.subsec_millis() == 0 {
            format!("\"{}s\"", self.as_secs())
        } else {
            format!("\"{}ms\"", self.as_millis())
        }
    }
}

/// Named values, such as a camera's controls.
impl Property for BTreeMap<String, Value> {
    fn expected() -> String {
        "a table, such as { brightness = 128 }".into()
    }
    fn parse(value: &Value) -> Result<Self, String> {
        let table = value.as_table().ok_or_else(String::new)?;
        Ok(table.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
    }
    fn show(&self) -> String {
        if self.is_empty() { String::new() } else { Value::Table(self.clone().into_iter().collect()).to_string() }
    }
}

/// Declares an enum whose values are words in TOML.
///
/// ```
/// shrbuf_pipeline::choices! {
///     /// What to draw.
///     pub enum Pattern {
///         /// Colour bars.
///         Bars = "bars",
///         /// A grey ramp.
///         Ramp = "ramp",
///     }
/// }
/// use shrbuf_pipeline::property::Property;
/// assert_eq!(Pattern::parse(&toml::Value::from("ramp")), Ok(Pattern::Ramp));
/// assert_eq!(Pattern::expected(), "\"bars\" or \"ramp\"");
/// ```
#[macro_export]
macro_rules! choices {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $crate::property::Property for $name {
            fn expected() -> String {
                $crate::property::one_of(&[$($word),+])
            }
            fn parse(value: &$crate::property::Value) -> Result<Self, String> {
                match value.as_str() {
                    $(Some($word) => Ok($name::$variant),)+
                    Some(other) => Err($crate::property::not_one_of(other, &[$($word),+])),
                    None => Err(String::new()),
                }
            }
            fn show(&self) -> String {
                match self { $($name::$variant => concat!("\"", $word, "\"").into(),)+ }
            }
        }
    };
}

#[doc(hidden)]
pub fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|w| format!("\"{w}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
#[doc(hidden)]
pub fn not_one_of(found: &str, words: &[&str]) -> String {
    match crate::nearest::nearest(found, words.iter().copied()) {
        Some(near) => format!("`{found}` is not one of them; did you mean `{near}`?"),
        None => format!("`{found}` is not one of them"),
    }
}
