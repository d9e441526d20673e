//! Controls by name, with values as a person writes them.

use shrbuf_pipeline::nearest::nearest;

use super::ioctl::{Control, ControlKind, ControlValue, ExtCtrlError, Failure, MenuItem, normalise};

/// Why a control was not found, read or set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No control of that name.
    #[error("there is no control `{name}`{}; this device has {}", meant(name, .known), list(.known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names there are, for a suggestion.
        known: Vec<String>,
    },
    /// The text is no value of this control.
    #[error("control `{name}` takes {expected}, not `{given}`")]
    Value {
        /// The control.
        name: String,
        /// What was given.
        given: String,
        /// What it takes, with its limits.
        expected: String,
    },
    /// The kernel's answer.
    #[error(transparent)]
    Ioctl(#[from] ExtCtrlError),
    /// The controls could not be listed.
    #[error(transparent)]
    Failure(#[from] Failure),
}

fn meant(name: &str, known: &[String]) -> String {
    let nearest = nearest(&normalise(name), known.iter().map(String::as_str));
    nearest.map_or_else(String::new, |nearest| format!(" (did you mean `{nearest}`?)"))
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Finds a control by its name, as v4l2-ctl or as the driver writes it.
pub(super) fn by_name<'a>(controls: &'a [Control], name: &str) -> Result<&'a Control, ControlError> {
    let wanted = normalise(name);
    controls.iter().find(|c| c.name == wanted).ok_or_else(|| ControlError::Unknown {
        name: name.to_owned(),
        known: controls.iter().map(|c| c.name.clone()).collect(),
    })
}

impl Control {
    /// A value from text: a number (decimal or `0x`) within the control's limits; `true`/`false`, `on`/`off`, `1`/`0`;
    /// a menu entry by its name or index; for a button nothing, `true` or `1`.
    ///
    /// # Errors
    /// [`ControlError::Value`] says what the control takes.
    pub fn parse(&self, given: &str) -> Result<ControlValue, ControlError> {
        let given = given.trim();
        let value = match &self.kind {
            ControlKind::Integer { min, max, step, .. } => {
                number(given).filter(|n| on_grid(*n, *min, *max, *step)).map(ControlValue::Integer)
            }
            ControlKind::Boolean { .. } => boolean(given).map(ControlValue::Boolean),
            ControlKind::Menu { items, .. } => menu_index(items, given).map(ControlValue::Integer),
            ControlKind::Bitmask { max, .. } => {
                number(given).filter(|n| n & !i64::from(*max) == 0).map(ControlValue::Integer)
            }
            ControlKind::Text { min, max } => {
                (*min as usize..=*max as usize).contains(&given.len()).then(|| ControlValue::Text(given.to_owned()))
            }
            ControlKind::Button => (given.is_empty() || boolean(given) == Some(true)).then_some(ControlValue::Button),
            ControlKind::Compound(_) => return Err(ExtCtrlError::Compound { name: self.name.clone() }.into()),
        };
        value.ok_or_else(|| ControlError::Value {
            name: self.name.clone(),
            given: given.to_owned(),
            expected: self.expected(),
        })
    }

    /// What the control takes, in words and with its limits.
    pub fn expected(&self) -> String {
        match &self.kind {
            ControlKind::Integer { min, max, step: 1, default, .. } => {
                format!("a whole number from {min} to {max} (default {default})")
            }
            ControlKind::Integer { min, max, step, default, .. } => {
                format!("a whole number from {min} to {max} in steps of {step} (default {default})")
            }
            ControlKind::Boolean { default } => format!("true or false (default {default})"),
            ControlKind::Menu { items, .. } => {
                let items: Vec<_> = items.iter().map(|i| format!("{} `{}`", i.index, i.label)).collect();
                format!("one of {}", items.join(", "))
            }
            ControlKind::Bitmask { max, default } => format!("bits within {max:#x} (default {default:#x})"),
            ControlKind::Text { min, max } => format!("text of {min} to {max} bytes"),
            ControlKind::Button => "no value, or true to press it".to_owned(),
            ControlKind::Compound(kind) => format!("an array or a struct (type {kind:#x})"),
        }
    }
}

fn number(text: &str) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let magnitude = match digits.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    // A second sign would pass the integer parser.
    let unsigned = digits.starts_with(|c: char| c.is_ascii_digit());
    magnitude.ok().filter(|_| unsigned).and_then(|m| i64::try_from(sign * m).ok())
}

fn on_grid(n: i64, min: i64, max: i64, step: u64) -> bool {
    (min..=max).contains(&n) && n.abs_diff(min).is_multiple_of(step.max(1))
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}

fn menu_index(items: &[MenuItem], given: &str) -> Option<i64> {
    // Names first: an integer menu's entries are numbers themselves, and the entry is what a person means.
    let named = items.iter().find(|i| i.label == given || normalise(&i.label) == normalise(given));
    let indexed = || number(given).and_then(|n| items.iter().find(|i| i.index == n));
    named.or_else(indexed).map(|i| i.index)
}

#[cfg(test)]
mod tests {
    use v4l::control::Flags;

    use super::*;

    fn control(kind: ControlKind) -> Control {
        Control { id: 1, name: "thing".to_owned(), title: "Thing".to_owned(), kind, flags: Flags::empty() }
    }

    fn integer(min: i64, max: i64, step: u64) -> Control {
        control(ControlKind::Integer { min, max, step, default: min, wide: false })
    }

    fn menu(items: &[(i64, &str)]) -> Control {
        let items = items.iter().map(|&(index, label)| MenuItem { index, label: label.to_owned() }).collect();
        control(ControlKind::Menu { items, default: 0 })
    }

    #[test]
    fn integer_takes_decimal_and_hexadecimal() {
        assert_eq!(integer(-10, 300, 1).parse("0xff"), Ok(ControlValue::Integer(255)));
        assert_eq!(integer(-10, 300, 1).parse(" -7 "), Ok(ControlValue::Integer(-7)));
    }

    #[test]
    fn integer_takes_the_whole_range_of_64_bits() {
        let wide = integer(i64::MIN, i64::MAX, 1);
        assert_eq!(wide.parse(&i64::MIN.to_string()), Ok(ControlValue::Integer(i64::MIN)));
    }

    #[test]
    fn integer_out_of_range_says_the_range() {
        let error = integer(0, 255, 1).parse("256").unwrap_err().to_string();
        assert_eq!(error, "control `thing` takes a whole number from 0 to 255 (default 0), not `256`");
    }

    #[test]
    fn integer_off_the_step_says_the_step() {
        let error = integer(0, 100, 10).parse("15").unwrap_err().to_string();
        assert!(error.contains("in steps of 10"), "{error}");
    }

    #[test]
    fn integer_with_two_signs_is_refused() {
        assert!(integer(-10, 10, 1).parse("--1").is_err());
        assert!(integer(-10, 10, 1).parse("-+1").is_err());
    }

    #[test]
    fn menu_takes_the_name_in_any_spelling() {
        let c = menu(&[(0, "Manual Mode"), (3, "Aperture Priority Mode")]);
        assert_eq!(c.parse("aperture_priority_mode"), Ok(ControlValue::Integer(3)));
        assert_eq!(c.parse("3"), Ok(ControlValue::Integer(3)));
    }

    #[test]
    fn menu_index_that_the_device_lacks_lists_the_entries() {
        let error = menu(&[(0, "Off"), (2, "60 Hz")]).parse("1").unwrap_err().to_string();
        assert!(error.contains("0 `Off`, 2 `60 Hz`"), "{error}");
    }

    #[test]
    fn integer_menu_is_chosen_by_its_number_before_its_index() {
        assert_eq!(menu(&[(0, "8"), (8, "64")]).parse("8"), Ok(ControlValue::Integer(0)));
    }

    #[test]
    fn bitmask_outside_its_bits_is_refused() {
        let c = control(ControlKind::Bitmask { max: 0x80ff, default: 0 });
        assert_eq!(c.parse("0x8001"), Ok(ControlValue::Integer(0x8001)));
        assert!(c.parse("0x100").is_err() && c.parse("-1").is_err());
    }

    #[test]
    fn text_is_counted_in_bytes() {
        let c = control(ControlKind::Text { min: 1, max: 3 });
        assert_eq!(c.parse("abc"), Ok(ControlValue::Text("abc".to_owned())));
        assert!(c.parse("a\u{fc}\u{fc}").is_err() && c.parse("").is_err());
    }

    #[test]
    fn button_takes_nothing_or_true() {
        assert_eq!(control(ControlKind::Button).parse(""), Ok(ControlValue::Button));
        assert!(control(ControlKind::Button).parse("false").is_err());
    }

    #[test]
    fn unknown_name_lists_the_known_ones() {
        let controls = [integer(0, 1, 1)];
        let error = by_name(&controls, "thang").unwrap_err().to_string();
        assert_eq!(error, "there is no control `thang` (did you mean `thing`?); this device has thing");
    }

    #[test]
    fn driver_spelling_finds_the_control() {
        assert!(by_name(&[integer(0, 1, 1)], "Thing").is_ok());
    }
}
