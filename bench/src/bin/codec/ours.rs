//! The frame codec of `tmem-cache`.

use shrbuf::Layout;
use shrbuf_bench::Result;
use shrbuf_bench::sets::{Format, Set};
use tmem_cache::codec::{Decoder, Encoder, Picture, Reference, ReferenceBuilder, Rows, RowsMut, Tier};

use crate::codecs::Codec;

/// One of its modes.
struct Ours {
    name: &'static str,
    tier: Tier,
    /// Whether it predicts from the average of earlier frames of the set. That average is not counted as compressed: it
    /// is one frame for all of an object's.
    referring: bool,
    encoder: Encoder,
    decoder: Decoder,
    open: Option<Open>,
}

/// All that belongs to one set.
struct Open {
    picture: Picture,
    reference: Option<Reference>,
    frames: Vec<Vec<u8>>,
    streams: Vec<Vec<u8>>,
    restored: Vec<u8>,
}

/// All of its modes, on one thread.
pub fn all() -> Vec<Box<dyn Codec>> {
    let mode = |name, tier, referring| {
        let (encoder, decoder) = (Encoder::new(1), Decoder::new(1));
        Box::new(Ours { name, tier, referring, encoder, decoder, open: None }) as Box<dyn Codec>
    };
    vec![
        mode("ours, fast", Tier::Fast, false),
        mode("ours, fast + reference", Tier::Fast, true),
        mode("ours, dense", Tier::Dense, false),
        mode("ours, dense + reference", Tier::Dense, true),
    ]
}

fn format(format: Format) -> shrbuf::Format {
    match format {
        Format::Yuyv => shrbuf::Format::Yuyv,
        Format::Nv12 => shrbuf::Format::Nv12,
        Format::Xr24 => shrbuf::Format::Xr24,
        Format::Grey => shrbuf::Format::Grey,
        Format::Rg12 => shrbuf::Format::Srggb12,
    }
}

impl Codec for Ours {
    fn name(&self) -> &str {
        self.name
    }

    fn takes(&self, set: &Set) -> bool {
        !self.referring || set.frames >= crate::EARLIER + crate::FRAMES
    }

    fn load(&mut self, set: &Set, frames: &[Vec<u8>], earlier: &[Vec<u8>]) -> Result<()> {
        let layout = Layout::linear(format(set.format), u32::try_from(set.width)?, u32::try_from(set.height)?, 1)?;
        let picture = Picture::of(&layout)?;
        let mut reference = None;
        if self.referring {
            let mut average = ReferenceBuilder::new(&picture);
            for frame in earlier {
                average.add(Rows::Packed(frame))?;
            }
            reference = average.build();
        }
        let restored = vec![1; set.frame_bytes()];
        // As long as streams ever get, so that the first round does not differ from the others.
        let streams = vec![Vec::with_capacity(restored.len() * 2); frames.len()];
        self.open = Some(Open { picture, reference, frames: frames.to_vec(), streams, restored });
        Ok(())
    }

    fn compress(&mut self, frame: usize) -> Result<usize> {
        let open = self.open.as_mut().ok_or("nothing was loaded")?;
        let (rows, stream) = (Rows::Packed(&open.frames[frame]), &mut open.streams[frame]);
        stream.clear();
        self.encoder.encode(&open.picture, rows, open.reference.as_ref(), self.tier, stream)?;
        Ok(stream.len())
    }

    fn decompress(&mut self, frame: usize) -> Result<()> {
        let open = self.open.as_mut().ok_or("nothing was loaded")?;
        let into = RowsMut::Packed(&mut open.restored);
        Ok(self.decoder.decode(&open.picture, &open.streams[frame], open.reference.as_ref(), into)?)
    }

    fn restored(&mut self) -> Result<Vec<u8>> {
        let open = self.open.as_ref().ok_or("nothing was loaded")?;
        Ok(open.restored.clone())
    }
}
