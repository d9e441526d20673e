//! The frames that codecs are compared on: raw files, and the manifest beside them.
//!
//! `bench/data/make` makes them; it says where they are.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Result;

/// The file that lists the sets.
pub const MANIFEST: &str = "manifest.json";

/// How samples lie in a frame. Nothing is padded: a row is exactly as long as its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Packed 4:2:2, two bytes a pixel.
    Yuyv,
    /// Y, then U and V by turns at half the size each way.
    Nv12,
    /// B, G, R and an unused byte.
    Xr24,
    /// One byte a pixel.
    Grey,
    /// Bayer RGGB, 12 bits in little-endian words of 16.
    Rg12,
}

impl Format {
    const ALL: [(Format, &str); 5] = [
        (Format::Yuyv, "yuyv"),
        (Format::Nv12, "nv12"),
        (Format::Xr24, "xr24"),
        (Format::Grey, "grey"),
        (Format::Rg12, "rg12"),
    ];

    /// Its name in the file names and the manifest.
    pub fn name(self) -> &'static str {
        Format::ALL.iter().find(|(format, _)| *format == self).map_or("", |(_, name)| name)
    }

    /// Bytes of a frame.
    pub fn frame_bytes(self, width: usize, height: usize) -> usize {
        width * height * [2, 1, 4, 1, 2][self as usize] + if self == Format::Nv12 { width * height / 2 } else { 0 }
    }
}

/// What a set shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A photograph as a camera on a tripod sees it: the same picture, new noise in each frame.
    Still,
    /// A photograph as a slowly turning camera sees it, new noise in each frame.
    Pan,
    /// A film, with noise where the set has a level of it.
    Video,
    /// Two pictures of a scene, as the camera left them.
    Pair,
    /// A test pattern.
    Pattern,
    /// A desktop.
    Screen,
    /// Bytes that nothing can compress.
    Random,
}

impl Kind {
    const ALL: [(Kind, &str); 7] = [
        (Kind::Still, "still"),
        (Kind::Pan, "pan"),
        (Kind::Video, "video"),
        (Kind::Pair, "pair"),
        (Kind::Pattern, "pattern"),
        (Kind::Screen, "screen"),
        (Kind::Random, "random"),
    ];

    /// Its name in the file names and the manifest.
    pub fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// Whether a camera saw it.
    pub fn natural(self) -> bool {
        matches!(self, Kind::Still | Kind::Pan | Kind::Video | Kind::Pair)
    }
}

/// One file of raw frames, one after the other.
#[derive(Debug, Clone)]
pub struct Set {
    /// What is in the picture.
    pub scene: String,
    /// How it moves.
    pub kind: Kind,
    /// `none`, `low`, `medium` or `high`: the noise that was added.
    pub noise: String,
    /// How samples lie.
    pub format: Format,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// How many.
    pub frames: usize,
    /// Mean of log2(4.13 s) bits over the samples, s being the standard deviation of the noise that each was given on its
    /// own: no codec needs less. Unknown where noise went through a demosaic, which spreads it over neighbours.
    pub noise_bits: Option<f64>,
}

impl Set {
    /// `scene-kind-noise-format-WxH`.
    pub fn name(&self) -> String {
        let Set { scene, noise, width, height, .. } = self;
        format!("{scene}-{}-{noise}-{}-{width}x{height}", self.kind.name(), self.format.name())
    }

    /// Where it is, below the folder of the manifest.
    pub fn file(&self, folder: &Path) -> PathBuf {
        folder.join(self.name() + ".raw")
    }

    /// Bytes of one of its frames.
    pub fn frame_bytes(&self) -> usize {
        self.format.frame_bytes(self.width, self.height)
    }

    /// The first frames of it, `most` at most.
    ///
    /// # Errors
    /// The file cannot be read, or is too short.
    pub fn read(&self, folder: &Path, most: usize) -> Result<Vec<Vec<u8>>> {
        let path = self.file(folder);
        let mut file = BufReader::new(File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?);
        let mut frame = || -> Result<Vec<u8>> {
            let mut bytes = vec![0; self.frame_bytes()];
            file.read_exact(&mut bytes).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok(bytes)
        };
        (0..self.frames.min(most)).map(|_| frame()).collect()
    }

    fn to_json(&self) -> Value {
        json!({
            "file": self.name() + ".raw", "scene": self.scene, "kind": self.kind.name(), "noise": self.noise,
            "format": self.format.name(), "width": self.width, "height": self.height, "frames": self.frames,
            "frame_bytes": self.frame_bytes(), "noise_bits": self.noise_bits,
        })
    }

    fn from_json(value: &Value) -> Option<Set> {
        let text = |key: &str| value[key].as_str();
        let number = |key: &str| Some(value[key].as_u64()? as usize);
        Some(Set {
            scene: text("scene")?.into(),
            kind: Kind::ALL.iter().find(|(_, name)| Some(*name) == text("kind"))?.0,
            noise: text("noise")?.into(),
            format: Format::ALL.iter().find(|(_, name)| Some(*name) == text("format"))?.0,
            width: number("width")?,
            height: number("height")?,
            frames: number("frames")?,
            noise_bits: value["noise_bits"].as_f64(),
        })
    }
}

/// The sets of a folder.
///
/// # Errors
/// There is no manifest in it, or it is not one.
pub fn load(folder: &Path) -> Result<Vec<Set>> {
    let path = folder.join(MANIFEST);
    let text = std::fs::read_to_string(&path)
        .map_err(|e| format!("{}: {e}; bench/data/make makes the sets", path.display()))?;
    let bad = || format!("{}: not a manifest of this version; remove it and run bench/data/make", path.display());
    let sets: Value = serde_json::from_str(&text)?;
    sets.as_array().ok_or_else(bad)?.iter().map(|set| Set::from_json(set).ok_or_else(|| bad().into())).collect()
}

/// Writes the list, which is what says that all of them are whole.
///
/// # Errors
/// It cannot be written.
pub fn save(folder: &Path, sets: &[Set]) -> Result<()> {
    let list: Value = sets.iter().map(Set::to_json).collect();
    Ok(std::fs::write(folder.join(MANIFEST), format!("{list:#}\n"))?)
}
