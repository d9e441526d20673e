//! What can be set on the element, and what that means for each input.

use std::collections::BTreeMap;

use shrbuf::Format;
use shrbuf_pipeline::property::{Property, Value};
use shrbuf_pipeline::{BuildError, Rect, Size, choices, properties};

use super::buffers::Memory;
use super::geometry::{Place, Rotate, Turn, inside};
use super::render::{MAX_INPUTS, OPAQUE, Setting};

choices! {
    /// How a picture of another size is made.
    pub enum Filter {
        /// The mean of the four nearest pixels, by their distance.
        Bilinear = "bilinear",
        /// The nearest pixel.
        Nearest = "nearest",
    }
}

/// A part of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part(pub Rect);

impl Property for Part {
    fn expected() -> String {
        "[x, y, width, height] in pixels, such as [0, 0, 640, 360]".into()
    }

    fn parse(value: &Value) -> Result<Part, String> {
        let numbers: Option<Vec<u32>> = match value {
            Value::Array(list) => list.iter().map(|n| n.as_integer().and_then(|n| n.try_into().ok())).collect(),
            // The command line's form.
            Value::String(s) => s.split(',').map(|n| n.trim().parse().ok()).collect(),
            _ => None,
        };
        match numbers.as_deref() {
            Some(&[x, y, width, height]) => {
                let rect = Rect { x, y, width, height };
                let all = Size::new(65535, 65535);
                if inside(rect, all) { Ok(Part(rect)) } else { Err("it has no pixels, or some beyond 65535".into()) }
            }
            _ => Err(String::new()),
        }
    }

    fn show(&self) -> String {
        format!("[{}, {}, {}, {}]", self.0.x, self.0.y, self.0.width, self.0.height)
    }
}

properties! {
    /// Pictures in another format, size or place, made by a GPU of the very buffers that devices use.
    ///
    /// dma-bufs are imported once and sampled where they are; what is made lies in dma-bufs too. In one pass over the
    /// target it crops, turns, scales and converts; and composes up to 16 inputs: then a picture is made for each frame
    /// of `in0`, with the newest of the others so far, the first lowest; inputs with alpha (premultiplied, as KMS has
    /// it), or that are to be seen through, let through what is below, which can be in RGB alone. YUV is understood by
    /// the colorimetry that comes with each frame, and comes out right to one step; chroma is neither moved nor smoothed.
    /// YUV made of RGB is of limited range. Everything but mosaics can be sampled and made. A source that can is asked for
    /// pictures as large as they are drawn.
    ///
    /// Who still writes a frame is waited for by the GPU, and what goes out carries a fence. Where the driver has no
    /// such fences (counter `waits`) this thread waits until the picture is there. No GPU reaches a memfd: one that comes
    /// in is uploaded (counter `uploads`), and where a machine has no memory but that (no /dev/udmabuf, dma-heap or card
    /// that gives some) what is made is downloaded into one (counter `downloads`), for which this thread waits. Both are
    /// copies and need `copies = "allow"`: the ledger counts what is handed to GL and what GL hands out, and not what GL's
    /// driver does between there and the GPU. Where every output buffer is in use, the frame is dropped and counted. A GPU
    /// that was reset fails as "device error"; a restart begins anew, and finds it "unplugged" where it is not back.
    ///
    /// ```toml
    /// [element.half]
    /// type = "gpu"
    /// format = "XR24"
    /// size = [640, 360]
    /// ```
    pub struct Gpu = "gpu" {
        /// Render node, such as "/dev/dri/renderD128", or "software" to have the CPU render; not set, the first GPU, or
        /// what Mesa's LIBGL_ALWAYS_SOFTWARE asks for, with which a node is refused.
        device: Option<String> = None,
        /// Pixel format to make; not set, what the consumers like best.
        format: Option<Format> = None,
        /// Size to make, which what is seen of the input fills; not set, that of what is seen. Several inputs need it.
        size: Option<Size> = None,
        /// The part of the input that is seen; not set, the frame's own crop, or all. Where neither size, crop, rotate
        /// nor mirror is set, a frame's own crop goes on with it.
        crop: Option<Part> = None,
        /// Degrees by which the picture is turned, clockwise.
        rotate: Rotate = Rotate::None,
        /// Left and right change places, after turning.
        mirror: bool = false,
        /// How a picture of another size is made.
        filter: Filter = Filter::Bilinear,
        /// Memory: "auto" takes the first that all consumers can import, "memfd" only where there is no other.
        memory: Memory = Memory::Auto,
        /// Inputs: one is called `in`, several `in0`, `in1` and so on.
        inputs: u32 = 1,
        /// Of several inputs, what becomes of each: `in1 = { place = [960, 40, 280, 160], crop = [0, 0, 640, 360],
        /// rotate = "90", mirror = true, opacity = 0.5 }`, of which `place` is where in the output it goes, partly outside
        /// if it is to be, and opacity is from 0 to 1. What is not said is as it is by default; the place is everything.
        layout: BTreeMap<String, Value> = BTreeMap::new(),
    }
}

impl Gpu {
    fn smooth(&self) -> bool {
        self.filter == Filter::Bilinear
    }

    /// What is done with each input.
    pub(super) fn settings(&self) -> Result<Vec<Setting>, BuildError> {
        if self.inputs == 0 || self.inputs as usize > MAX_INPUTS {
            return Err(BuildError::of("inputs", format!("must be from 1 to {MAX_INPUTS}")));
        }
        let turn = Turn { rotate: self.rotate, mirror: self.mirror };
        let fills = self.size.is_some();
        let part = self.crop.map(|c| c.0);
        let one = Setting { part, turn, fills, smooth: self.smooth(), ..Setting::PLAIN };
        if self.inputs == 1 {
            return if self.layout.is_empty() {
                Ok(vec![one])
            } else {
                Err(BuildError::of("layout", "is for several inputs"))
            };
        }
        if one.part.is_some() || turn != Turn::NONE {
            return Err(BuildError::of(
                "layout",
                "says crop, rotate and mirror of each input, where there are several",
            ));
        }
        let Some(size) = self.size else {
            return Err(BuildError::of("size", "is needed where there are several inputs"));
        };
        let mut settings = vec![one; self.inputs as usize];
        for (name, value) in &self.layout {
            let number = name.strip_prefix("in").and_then(|n| n.parse::<usize>().ok());
            let Some(setting) = number.and_then(|n| settings.get_mut(n)) else {
                let last = self.inputs - 1;
                return Err(BuildError::of("layout", format!("names `{name}`; the inputs are `in0` to `in{last}`")));
            };
            read(setting, value).map_err(|why| BuildError::of("layout", format!("of `{name}`: {why}")))?;
            if setting.place.is_some_and(|p| p.within(size).is_none()) {
                return Err(BuildError::of("layout", format!("of `{name}`: no part of the place is inside {size}")));
            }
        }
        Ok(settings)
    }
}

impl Property for Place {
    fn expected() -> String {
        "[x, y, width, height] in pixels, such as [-8, 0, 640, 360]".into()
    }

    fn parse(value: &Value) -> Result<Place, String> {
        let numbers: Option<Vec<i64>> = value.as_array().and_then(|list| list.iter().map(Value::as_integer).collect());
        let edge = |n: i64| i32::try_from(n).ok().filter(|n| n.abs() <= 65535);
        let side = |n: i64| u32::try_from(n).ok().filter(|n| (1..=65535).contains(n));
        let place = |[x, y, width, height]: [i64; 4]| {
            Some(Place { x: edge(x)?, y: edge(y)?, width: side(width)?, height: side(height)? })
        };
        let numbers: [i64; 4] = numbers.and_then(|n| n.try_into().ok()).ok_or_else(String::new)?;
        place(numbers).ok_or_else(|| "it has no pixels, or some beyond 65535".into())
    }

    fn show(&self) -> String {
        format!("[{}, {}, {}, {}]", self.x, self.y, self.width, self.height)
    }
}

/// Opacity from 0 to 1 as [`Setting::alpha`].
pub(super) fn alpha(opacity: f64) -> u16 {
    (opacity.clamp(0.0, 1.0) * f64::from(OPAQUE)).round() as u16
}

fn read(setting: &mut Setting, value: &Value) -> Result<(), String> {
    fn one<T: Property>(key: &str, value: &Value) -> Result<T, String> {
        T::parse(value).map_err(|why| {
            let colon = if why.is_empty() { "" } else { ": " };
            format!("`{key}` must be {}{colon}{why}", T::expected())
        })
    }
    let table = value.as_table().ok_or("must be a table, such as { place = [0, 0, 640, 360] }")?;
    for (key, value) in table {
        match key.as_str() {
            "place" => setting.place = Some(one(key, value)?),
            "opacity" => match f64::parse(value) {
                Ok(opacity) if (0.0..=1.0).contains(&opacity) => setting.alpha = alpha(opacity),
                _ => return Err("`opacity` must be from 0 to 1".into()),
            },
            "crop" => setting.part = Some(one::<Part>(key, value)?.0),
            "rotate" => setting.turn.rotate = one(key, value)?,
            "mirror" => setting.turn.mirror = one(key, value)?,
            other => return Err(format!("`{other}` is none of place, crop, rotate, mirror, opacity")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(inputs: u32, layout: &[(&str, &str)]) -> Result<Vec<Setting>, String> {
        let table = |text: &str| {
            let (key, text) = text.split_once('=').unwrap();
            let list = text.split(',').map(|n| Value::Integer(n.parse().unwrap())).collect();
            Value::Table([(key.to_owned(), Value::Array(list))].into_iter().collect())
        };
        let layout = layout.iter().map(|(name, text)| ((*name).to_owned(), table(text))).collect();
        let config = Gpu { inputs, layout, size: Some(Size::new(64, 32)), ..Gpu::default() };
        config.settings().map_err(|e| e.to_string())
    }

    #[test]
    fn each_input_has_its_place() {
        let settings = of(2, &[("in1", "place=1,2,3,4")]).unwrap();
        assert_eq!(settings[0].place, None);
        assert_eq!(settings[1].place, Some(Place { x: 1, y: 2, width: 3, height: 4 }));
        let outside = of(2, &[("in0", "place=60,-4,8,8")]).unwrap();
        assert_eq!(outside[0].place, Some(Place { x: 60, y: -4, width: 8, height: 8 }));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let said = |inputs, layout: &[(&str, &str)]| of(inputs, layout).unwrap_err();
        assert_eq!(said(2, &[("in2", "place=0,0,1,1")]), "`layout` names `in2`; the inputs are `in0` to `in1`");
        let nowhere = "`layout` of `in1`: no part of the place is inside 64x32";
        assert_eq!(said(2, &[("in1", "place=64,0,5,5")]), nowhere);
        assert_eq!(said(2, &[("in1", "place=-5,0,5,5")]), nowhere);
        assert_eq!(said(2, &[("in1", "opacity=2,1,1,1")]), "`layout` of `in1`: `opacity` must be from 0 to 1");
        assert_eq!(
            said(2, &[("in1", "where=0,0,1,1")]),
            "`layout` of `in1`: `where` is none of place, crop, rotate, mirror, opacity"
        );
        assert_eq!(said(17, &[]), "`inputs` must be from 1 to 16");
        assert_eq!(said(1, &[("in0", "place=0,0,1,1")]), "`layout` is for several inputs");
        assert!(Part::parse(&Value::String("0,0,0,5".into())).is_err());
    }
}
