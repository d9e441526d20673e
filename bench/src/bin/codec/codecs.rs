//! What a codec does here, and the codecs that know nothing of pictures.

use shrbuf_bench::Result;
use shrbuf_bench::sets::{Format, Set};

use crate::filter::Filter;
use crate::lzo::Lzo;

/// A codec with the frames of one set. Only `compress` and `decompress` run against the clock; both reuse their memory.
pub trait Codec {
    /// As users know it.
    fn name(&self) -> &str;

    /// Whether it can code such frames at all.
    fn takes(&self, set: &Set) -> bool;

    /// Takes the frames, in the form that it works on, and may learn from those before them.
    ///
    /// # Errors
    /// It cannot be opened for them.
    fn load(&mut self, set: &Set, frames: &[Vec<u8>], earlier: &[Vec<u8>]) -> Result<()>;

    /// Compresses a frame by its number and keeps the result: bytes.
    ///
    /// # Errors
    /// It does not want to.
    fn compress(&mut self, frame: usize) -> Result<usize>;

    /// Decompresses what it kept of a frame.
    ///
    /// # Errors
    /// It does not know its own output.
    fn decompress(&mut self, frame: usize) -> Result<()>;

    /// What the last `decompress` gave, as the set has it.
    ///
    /// # Errors
    /// It gave nothing.
    fn restored(&mut self) -> Result<Vec<u8>>;
}

/// A compressor of bytes.
pub trait Bytes {
    /// Compresses into `to`, which is long enough for anything: bytes of it.
    ///
    /// # Errors
    /// It does not want to.
    fn compress(&mut self, from: &[u8], to: &mut [u8]) -> Result<usize>;

    /// Decompresses into `to`, which has the length of the original.
    ///
    /// # Errors
    /// It does not know its own output.
    fn decompress(&mut self, from: &[u8], to: &mut [u8]) -> Result<()>;
}

/// A compressor of bytes behind a filter, or without one.
struct General {
    name: String,
    bytes: Box<dyn Bytes>,
    filter: Option<Filter>,
    /// The one format that it is for, if it is.
    only: Option<Format>,
    set: Option<Set>,
    frames: Vec<Vec<u8>>,
    packets: Vec<(Vec<u8>, usize)>,
    /// Between filter and compressor, both ways.
    filtered: Vec<u8>,
    restored: Vec<u8>,
}

impl General {
    fn new(name: &str, bytes: impl Bytes + 'static) -> General {
        General {
            name: name.into(),
            bytes: Box::new(bytes),
            filter: None,
            only: None,
            set: None,
            frames: Vec::new(),
            packets: Vec::new(),
            filtered: Vec::new(),
            restored: Vec::new(),
        }
    }

    fn behind(self, filter: Filter) -> General {
        General { name: format!("{} + {}", filter.name(), self.name), filter: Some(filter), ..self }
    }
}

impl Codec for General {
    fn name(&self) -> &str {
        &self.name
    }

    fn takes(&self, set: &Set) -> bool {
        self.only.is_none_or(|only| only == set.format)
    }

    fn load(&mut self, set: &Set, frames: &[Vec<u8>], _: &[Vec<u8>]) -> Result<()> {
        let size = set.frame_bytes();
        self.set = Some(set.clone());
        self.frames = frames.to_vec();
        // Twice is more than any of them ever asks for.
        self.packets = vec![(vec![1; size * 2], 0); frames.len()];
        self.filtered = vec![1; size];
        self.restored = vec![1; size];
        Ok(())
    }

    fn compress(&mut self, frame: usize) -> Result<usize> {
        let (packet, length) = &mut self.packets[frame];
        let from = match (self.filter, &self.set) {
            (Some(filter), Some(set)) => {
                filter.apply(set, &self.frames[frame], &mut self.filtered);
                &self.filtered
            }
            _ => &self.frames[frame],
        };
        *length = self.bytes.compress(from, packet)?;
        Ok(*length)
    }

    fn decompress(&mut self, frame: usize) -> Result<()> {
        let (packet, length) = &self.packets[frame];
        match (self.filter, &self.set) {
            (Some(filter), Some(set)) => {
                self.bytes.decompress(&packet[..*length], &mut self.filtered)?;
                filter.undo(set, &self.filtered, &mut self.restored);
                Ok(())
            }
            _ => self.bytes.decompress(&packet[..*length], &mut self.restored),
        }
    }

    fn restored(&mut self) -> Result<Vec<u8>> {
        Ok(self.restored.clone())
    }
}

/// No compression: what the machine's memory does.
struct Copy;

impl Bytes for Copy {
    fn compress(&mut self, from: &[u8], to: &mut [u8]) -> Result<usize> {
        to[..from.len()].copy_from_slice(from);
        Ok(from.len())
    }

    fn decompress(&mut self, from: &[u8], to: &mut [u8]) -> Result<()> {
        to.copy_from_slice(from);
        Ok(())
    }
}

struct Lz4;

impl Bytes for Lz4 {
    fn compress(&mut self, from: &[u8], to: &mut [u8]) -> Result<usize> {
        Ok(lz4::block::compress_to_buffer(from, None, false, to)?)
    }

    fn decompress(&mut self, from: &[u8], to: &mut [u8]) -> Result<()> {
        let size = i32::try_from(to.len())?;
        lz4::block::decompress_to_buffer(from, Some(size), to)?;
        Ok(())
    }
}

struct Zstd {
    compressor: zstd::bulk::Compressor<'static>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl Zstd {
    fn new(level: i32) -> Result<Zstd> {
        Ok(Zstd { compressor: zstd::bulk::Compressor::new(level)?, decompressor: zstd::bulk::Decompressor::new()? })
    }
}

impl Bytes for Zstd {
    fn compress(&mut self, from: &[u8], to: &mut [u8]) -> Result<usize> {
        Ok(self.compressor.compress_to_buffer(from, to)?)
    }

    fn decompress(&mut self, from: &[u8], to: &mut [u8]) -> Result<()> {
        self.decompressor.decompress_to_buffer(from, to)?;
        Ok(())
    }
}

struct Snappy {
    encoder: snap::raw::Encoder,
    decoder: snap::raw::Decoder,
}

impl Bytes for Snappy {
    fn compress(&mut self, from: &[u8], to: &mut [u8]) -> Result<usize> {
        Ok(self.encoder.compress(from, to)?)
    }

    fn decompress(&mut self, from: &[u8], to: &mut [u8]) -> Result<()> {
        self.decoder.decompress(from, to)?;
        Ok(())
    }
}

/// QOI of four channels. It only wants to know how many pixels there are, so they pass as one row.
struct Qoi;

impl Bytes for Qoi {
    fn compress(&mut self, from: &[u8], to: &mut [u8]) -> Result<usize> {
        Ok(qoi::encode_to_buf(to, from, u32::try_from(from.len() / 4)?, 1)?)
    }

    fn decompress(&mut self, from: &[u8], to: &mut [u8]) -> Result<()> {
        qoi::decode_to_buf(to, from)?;
        Ok(())
    }
}

/// All of them, the cheap ones first.
///
/// # Errors
/// One of them cannot be set up.
pub fn all() -> Result<Vec<Box<dyn Codec>>> {
    let mut all = vec![
        General::new("memcpy", Copy),
        General::new("lz4", Lz4),
        General::new("snappy", Snappy { encoder: snap::raw::Encoder::new(), decoder: snap::raw::Decoder::new() }),
    ];
    match Lzo::open() {
        Ok(lzo) => all.push(General::new("lzo1x-1", lzo)),
        Err(why) => eprintln!("codec: no lzo: {why}"),
    }
    for level in [1, 3] {
        let zstd = || -> Result<General> { Ok(General::new(&format!("zstd -{level}"), Zstd::new(level)?)) };
        all.push(zstd()?);
        // The yardstick of a goal at level 1; no gain at level 3.
        let filters =
            if level == 1 { &[Filter::Group, Filter::Left, Filter::Above][..] } else { &[Filter::Left, Filter::Above] };
        for filter in filters {
            all.push(zstd()?.behind(*filter));
        }
    }
    all.push(General { only: Some(Format::Xr24), ..General::new("qoi", Qoi) });
    Ok(all.into_iter().map(|codec| Box::new(codec) as Box<dyn Codec>).collect())
}
