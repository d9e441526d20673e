//! `frames FROM TO` makes the sets of frames in TO, of the pictures that `bench/data/make` has put into FROM.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use shrbuf_bench::Result;
use shrbuf_bench::sets::{self, Format, Kind, Set};

mod noise;
mod picture;
mod sensor;

use noise::{LEVELS, Level, Random};
use picture::{Rgb, Yuv};
use sensor::Mosaic;

/// Frames of a photograph, of a film, and of a pattern or desktop.
const OF_PHOTO: usize = 8;
/// Of one that stands still at full size: what a store averages must not be what it is measured on.
const OF_STILL: usize = 32;
const OF_FILM: usize = 12;
const OF_PATTERN: usize = 8;
/// Pixels that the camera turns from frame to frame. They are odd, so colour filters meet other parts of the scene.
const TURN: (usize, usize) = (5, 3);

const HD: (usize, usize) = (1280, 720);
const FULL_HD: (usize, usize) = (1920, 1080);

/// Writes sets, and remembers them.
struct Sets {
    folder: PathBuf,
    made: Vec<Set>,
}

/// A frame of a set and what its noise costs, by its number.
type Frame<'a> = &'a mut dyn FnMut(usize) -> (Vec<u8>, Option<f64>);

impl Sets {
    /// Writes one set; `set` lacks only its count and the cost of its noise.
    fn add(&mut self, mut set: Set, frames: usize, frame: Frame) -> Result<()> {
        let path = set.file(&self.folder);
        let mut file = BufWriter::new(File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?);
        let mut bits = Some(0.0);
        for n in 0..frames {
            let (bytes, cost) = frame(n);
            if bytes.len() != set.frame_bytes() {
                return Err(format!("{}: a frame of {} bytes", path.display(), bytes.len()).into());
            }
            bits = bits.zip(cost).map(|(sum, cost)| sum + cost / frames as f64);
            file.write_all(&bytes)?;
        }
        file.flush()?;
        (set.frames, set.noise_bits) = (frames, bits);
        eprintln!("frames: {}", set.name());
        self.made.push(set);
        Ok(())
    }
}

fn set(scene: &str, kind: Kind, noise: &str, format: Format, (width, height): (usize, usize)) -> Set {
    Set { scene: scene.into(), kind, noise: noise.into(), format, width, height, frames: 0, noise_bits: None }
}

fn pictures(from: &Path, name: &str) -> Result<Vec<Rgb>> {
    let path = from.join(format!("{name}.ppm"));
    picture::ppm(&fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?)
}

fn film(from: &Path, name: &str) -> Result<Vec<Yuv>> {
    let path = from.join(format!("{name}.y4m"));
    picture::y4m(&fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?)
}

/// A photograph in every format asked for, still and turning, at some levels of noise.
fn photo(
    to: &mut Sets,
    scene: &str,
    photo: &Rgb,
    size: (usize, usize),
    levels: &[Level],
    formats: &[Format],
) -> Result<()> {
    for kind in [Kind::Still, Kind::Pan] {
        for level in levels {
            let mut random = Random::new(&format!("{scene} {} {}", kind.name(), level.name));
            let window = |n: usize| if kind == Kind::Pan { (n * TURN.0, n * TURN.1) } else { (0, 0) };
            // The same exposures, whatever the format.
            let count = if kind == Kind::Still && size == FULL_HD { OF_STILL } else { OF_PHOTO };
            let shots: Vec<(Mosaic, Rgb)> = (0..count)
                .map(|n| {
                    let (left, top) = window(n);
                    let mosaic = Mosaic::expose(&photo.crop(left, top, size.0, size.1), level, &mut random);
                    let picture = mosaic.develop();
                    (mosaic, picture)
                })
                .collect();
            for &format in formats {
                to.add(set(scene, kind, level.name, format, size), count, &mut |n| {
                    let (mosaic, picture) = &shots[n];
                    (packed(picture, format, mosaic), (format == Format::Rg12).then_some(mosaic.noise_bits))
                })?;
            }
        }
    }
    Ok(())
}

fn packed(picture: &Rgb, format: Format, mosaic: &Mosaic) -> Vec<u8> {
    if format == Format::Rg12 { mosaic.rg12() } else { plain(picture, format) }
}

fn plain(picture: &Rgb, format: Format) -> Vec<u8> {
    match format {
        Format::Yuyv => picture.yuyv(),
        Format::Nv12 => picture.nv12(),
        Format::Xr24 => picture.xr24(),
        Format::Grey | Format::Rg12 => picture.grey(),
    }
}

/// A film, as it is (NV12 only: its chroma is 4:2:0) and at some levels of noise.
fn noisy_film(to: &mut Sets, scene: &str, frames: &[Yuv], levels: &[Level], formats: &[Format]) -> Result<()> {
    let count = frames.len().min(OF_FILM);
    let size = frames.first().map(|f| (f.width, f.height)).ok_or("a film without frames")?;
    to.add(set(scene, Kind::Video, "none", Format::Nv12, size), count, &mut |n| (frames[n].nv12(), None))?;
    for level in levels {
        for &format in formats {
            let mut random = Random::new(&format!("{scene} {} {}", level.name, format.name()));
            to.add(set(scene, Kind::Video, level.name, format, size), count, &mut |n| {
                if format == Format::Nv12 {
                    let (frame, bits) = sensor::disturb(&frames[n], level, &mut random);
                    return (frame.nv12(), Some(bits));
                }
                let (frame, bits) = sensor::disturb(&frames[n].to_422(), level, &mut random);
                (frame.yuyv(), Some(bits))
            })?;
        }
    }
    Ok(())
}

/// Pictures as they are.
fn as_they_are(to: &mut Sets, scene: &str, kind: Kind, frames: &[Rgb], formats: &[Format]) -> Result<()> {
    let size = frames.first().map(|f| (f.width, f.height)).ok_or("no pictures")?;
    for &format in formats {
        to.add(set(scene, kind, "none", format, size), frames.len().min(OF_PATTERN), &mut |n| {
            (plain(&frames[n], format), None)
        })?;
    }
    Ok(())
}

fn main() -> Result<()> {
    use Format::{Grey, Nv12, Rg12, Xr24, Yuyv};
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (from, folder) = arguments.next().zip(arguments.next()).ok_or("usage: frames FROM TO")?;
    let to = &mut Sets { folder, made: Vec::new() };
    let one = |name: &str| -> Result<Rgb> {
        pictures(&from, name)?.pop().ok_or_else(|| format!("{name}: no picture").into())
    };
    for scene in ["dune", "leaf", "ladybird"] {
        photo(to, scene, &one(scene)?, HD, &LEVELS, &[Yuyv, Nv12, Rg12])?;
    }
    let medium = &LEVELS[1..2];
    photo(to, "flower", &one("flower")?, HD, medium, &[Xr24])?;
    photo(to, "wood", &one("wood")?, FULL_HD, &LEVELS[..2], &[Yuyv, Nv12])?;
    noisy_film(to, "street", &film(&from, "street")?, &LEVELS, &[Yuyv, Nv12])?;
    noisy_film(to, "bikes", &film(&from, "bikes")?, medium, &[Nv12])?;
    noisy_film(to, "bunny", &film(&from, "bunny")?, medium, &[Yuyv])?;
    as_they_are(to, "whale", Kind::Pair, &pictures(&from, "whale")?, &[Yuyv, Xr24])?;
    as_they_are(to, "basketball", Kind::Pair, &pictures(&from, "basketball")?, &[Grey])?;
    as_they_are(to, "testsrc2", Kind::Pattern, &pictures(&from, "testsrc2")?, &[Yuyv, Xr24])?;
    as_they_are(to, "smptebars", Kind::Pattern, &pictures(&from, "smptebars")?, &[Yuyv])?;
    as_they_are(to, "desktop", Kind::Screen, &pictures(&from, "desktop")?, &[Xr24, Nv12])?;
    let mut random = Random::new("random");
    let bytes = Yuyv.frame_bytes(HD.0, HD.1);
    to.add(set("bytes", Kind::Random, "none", Yuyv, HD), OF_PATTERN, &mut |_| (random.bytes(bytes), None))?;
    sets::save(&to.folder, &to.made)
}
