//! The property `planes`: where each of several inputs is shown.

use shrbuf_pipeline::property::{Property, Value};

use super::state::{OPAQUE, Rect};

/// Inputs with their places, from the back to the front.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Planes(Vec<Spot>);

/// One input's place.
#[derive(Debug, Clone, PartialEq)]
pub struct Spot {
    /// The input's name.
    pub name: String,
    /// Where on the screen.
    pub at: Rect,
    /// Higher is nearer to the viewer.
    pub z: i64,
    /// From 0 to 1.
    pub opacity: f64,
}

impl Spot {
    /// An opaque one.
    pub fn new(name: &str, at: Rect) -> Spot {
        Spot { name: name.to_owned(), at, z: 0, opacity: 1.0 }
    }

    /// The value of a plane's property "alpha".
    pub(super) fn alpha(&self) -> u16 {
        (self.opacity.clamp(0.0, 1.0) * f64::from(OPAQUE)).round() as u16
    }

    fn parse(name: &str, value: &Value) -> Result<Spot, String> {
        let Some(table) = value.as_table() else { return Ok(Spot::new(name, rect(name, value)?)) };
        let at = table.get("at").ok_or_else(|| format!("`{name}` has no `at`"))?;
        let mut spot = Spot::new(name, rect(name, at)?);
        for (key, value) in table {
            match key.as_str() {
                "at" => {}
                "z" => spot.z = value.as_integer().ok_or_else(|| format!("`z` of `{name}` is no integer"))?,
                "opacity" => {
                    let opacity = f64::parse(value).ok().filter(|o| (0.0..=1.0).contains(o));
                    spot.opacity = opacity.ok_or_else(|| format!("`opacity` of `{name}` is not from 0 to 1"))?;
                }
                other => return Err(format!("`{name}` has `at`, `z` and `opacity`, and no `{other}`")),
            }
        }
        Ok(spot)
    }
}

fn rect(name: &str, value: &Value) -> Result<Rect, String> {
    let numbers: Option<Vec<i64>> = value.as_array().and_then(|list| list.iter().map(Value::as_integer).collect());
    let Some([x, y, width, height]) = numbers.as_deref() else {
        return Err(format!("`{name}` is not [x, y, width, height]"));
    };
    let edge = |n: i64| i32::try_from(n).ok().filter(|n| n.abs() <= 65535);
    let side = |n: i64| u32::try_from(n).ok().filter(|n| (1..=65535).contains(n));
    match (edge(*x), edge(*y), side(*width), side(*height)) {
        (Some(x), Some(y), Some(width), Some(height)) => Ok(Rect { x, y, width, height }),
        _ => Err(format!("`{name}`: {width}x{height} at {x},{y} is no rectangle of pixels")),
    }
}

impl Planes {
    /// These, in the order of their `z` and of their names.
    pub fn new(spots: impl IntoIterator<Item = Spot>) -> Planes {
        let mut spots: Vec<Spot> = spots.into_iter().collect();
        spots.sort_by(|a, b| (a.z, &a.name).cmp(&(b.z, &b.name)));
        Planes(spots)
    }

    /// From the back to the front.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Spot> {
        self.0.iter()
    }

    /// True where there is one input, which is shown as it comes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Property for Planes {
    fn expected() -> String {
        "a table of [x, y, width, height], such as { left = [0, 0, 640, 360], right = [640, 0, 640, 360] }".into()
    }

    fn parse(value: &Value) -> Result<Planes, String> {
        let table = value.as_table().ok_or_else(String::new)?;
        let spots: Result<Vec<Spot>, String> = table.iter().map(|(name, value)| Spot::parse(name, value)).collect();
        Ok(Planes::new(spots?))
    }

    fn show(&self) -> String {
        let spots = self.iter().map(|Spot { name, at, z, opacity }| {
            let at = format!("[{}, {}, {}, {}]", at.x, at.y, at.width, at.height);
            format!("{name} = {{ at = {at}, z = {z}, opacity = {opacity} }}")
        });
        let spots: Vec<String> = spots.collect();
        if spots.is_empty() { String::new() } else { format!("{{ {} }}", spots.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Planes, String> {
        Planes::parse(&text.parse().unwrap())
    }

    fn names(planes: &Planes) -> Vec<&str> {
        planes.iter().map(|spot| spot.name.as_str()).collect()
    }

    #[test]
    fn rectangles_are_read_with_or_without_more() {
        let planes =
            parse("{ left = [0, -8, 640, 360], clock = { at = [4, 4, 64, 32], z = 2, opacity = 0.5 } }").unwrap();
        let left = Spot::new("left", Rect { x: 0, y: -8, width: 640, height: 360 });
        let clock = Spot::new("clock", Rect { x: 4, y: 4, width: 64, height: 32 });
        assert_eq!(planes, Planes(vec![left, Spot { z: 2, opacity: 0.5, ..clock }]));
        assert_eq!(planes.iter().map(Spot::alpha).collect::<Vec<_>>(), [0xffff, 0x8000]);
    }

    #[test]
    fn what_is_nearer_comes_later_and_equals_go_by_name() {
        let at = "at = [0, 0, 8, 8]";
        let planes = parse(&format!("{{ b = {{ {at} }}, c = {{ {at}, z = -1 }}, a = {{ {at} }} }}")).unwrap();
        assert_eq!(names(&planes), ["c", "a", "b"]);
    }

    #[test]
    fn what_is_shown_is_read_again() {
        let planes = parse("{ left = [0, 0, 640, 360], right = { at = [640, 0, 640, 360], z = 1 } }").unwrap();
        assert_eq!(parse(&planes.show()), Ok(planes));
    }

    #[test]
    fn what_is_no_place_is_said_by_name() {
        let why = |text: &str| parse(text).unwrap_err();
        assert_eq!(why("{ a = [1, 2, 3] }"), "`a` is not [x, y, width, height]");
        assert_eq!(why("{ a = [0, 0, 0, 8] }"), "`a`: 0x8 at 0,0 is no rectangle of pixels");
        assert_eq!(why("{ a = [0, 9999999999, 8, 8] }"), "`a`: 8x8 at 0,9999999999 is no rectangle of pixels");
        assert_eq!(why("{ a = { z = 1 } }"), "`a` has no `at`");
        assert_eq!(why("{ a = { at = [0, 0, 8, 8], opacity = 2 } }"), "`opacity` of `a` is not from 0 to 1");
        assert_eq!(why("{ a = { at = [0, 0, 8, 8], x = 2 } }"), "`a` has `at`, `z` and `opacity`, and no `x`");
        assert_eq!(why("3"), "");
    }
}
