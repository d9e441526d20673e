//! The shared picture that the frames of one object are predicted from.

use memmap2::Mmap;

use super::picture::{Picture, Stripe};
use super::rows::{Rows, WrongRows};

/// A picture that frames are predicted from: a star, not a chain, so that every frame is decoded with it alone.
#[derive(Debug)]
pub struct Reference {
    picture: Picture,
    samples: Samples,
    id: u32,
}

/// Where the packed samples are.
#[derive(Debug)]
enum Samples {
    Heap(Vec<u8>),
    /// A mapping of their own, which goes back to the kernel when they go, and the [`stripe_hash`] of each stripe: a
    /// bit that flips here would damage frames whose own bytes are whole.
    Mapped(Mmap, Vec<u64>),
}

impl Reference {
    /// A reference of these samples.
    ///
    /// # Errors
    /// [`WrongRows`] where they are not the picture's.
    pub fn new(picture: &Picture, rows: Rows<'_>) -> Result<Reference, WrongRows> {
        rows.check(picture)?;
        let mut packed = Vec::with_capacity(picture.bytes());
        let mut room = Vec::new();
        for stripe in (0..picture.stripes()).map(|i| picture.stripe(i)) {
            packed.extend_from_slice(rows.stripe(picture, &stripe, &mut room));
        }
        Ok(Reference::of(picture, Samples::Heap(packed)))
    }

    /// One of a mapping that holds the packed samples; `None` where these are not the picture's. Decoders check each
    /// stripe of it.
    pub(crate) fn mapped(picture: &Picture, packed: Mmap, hashes: Vec<u64>) -> Option<Reference> {
        let fits = packed.len() == picture.bytes() && hashes.len() == picture.stripes();
        fits.then(|| Reference::of(picture, Samples::Mapped(packed, hashes)))
    }

    /// The packed samples of a stripe; `None` where they are not what they were.
    pub(crate) fn checked(&self, stripe: &Stripe) -> Option<&[u8]> {
        let samples = &self.packed()[stripe.bytes.clone()];
        let whole = match &self.samples {
            Samples::Heap(_) => true,
            Samples::Mapped(_, hashes) => stripe_hash(samples) == hashes[stripe.index],
        };
        whole.then_some(samples)
    }

    fn of(picture: &Picture, samples: Samples) -> Reference {
        // 0 says "none" in a stream.
        let id = crc32fast::hash(samples.packed()).max(1);
        Reference { picture: *picture, samples, id }
    }

    /// What streams call it by: a checksum of its samples, never 0.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The picture it is of.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// Its samples, packed as [`Rows::Packed`] wants them: what to store so that streams can be decoded later.
    pub fn packed(&self) -> &[u8] {
        self.samples.packed()
    }
}

impl PartialEq for Reference {
    fn eq(&self, other: &Reference) -> bool {
        self.picture == other.picture && self.packed() == other.packed()
    }
}

impl Eq for Reference {}

impl Samples {
    fn packed(&self) -> &[u8] {
        match self {
            Samples::Heap(bytes) => bytes,
            Samples::Mapped(map, _) => map,
        }
    }
}

/// Of a stripe's packed samples.
pub(crate) fn stripe_hash(samples: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(samples)
}

/// Adds packed samples, little-endian words where `wide`, to their sums.
pub(crate) fn sum_up(sums: &mut [u32], samples: &[u8], wide: bool) {
    if wide {
        let words = samples.as_chunks::<2>().0;
        sums.iter_mut().zip(words).for_each(|(sum, word)| *sum += u32::from(u16::from_le_bytes(*word)));
    } else {
        sums.iter_mut().zip(samples).for_each(|(sum, sample)| *sum += u32::from(*sample));
    }
}

/// Appends the packed samples that are the means, rounded, of as many `frames`, at least one.
pub(crate) fn means(sums: &[u32], frames: u32, wide: bool, out: &mut Vec<u8>) {
    // A shift becomes vector code.
    let shift = frames.is_power_of_two().then(|| frames.ilog2());
    match (shift, wide) {
        (Some(shift), false) => out.extend(sums.iter().map(|sum| ((sum + frames / 2) >> shift) as u8)),
        (None, false) => out.extend(sums.iter().map(|sum| ((sum + frames / 2) / frames) as u8)),
        _ => out.extend(sums.iter().flat_map(|sum| (((sum + frames / 2) / frames) as u16).to_le_bytes())),
    }
}

/// Averages frames into a [`Reference`], which has less noise than any of them.
#[derive(Debug, Clone)]
pub struct ReferenceBuilder {
    picture: Picture,
    sums: Vec<u32>,
    frames: u32,
}

impl ReferenceBuilder {
    /// An average of nothing yet.
    pub fn new(picture: &Picture) -> ReferenceBuilder {
        ReferenceBuilder { picture: *picture, sums: Vec::new(), frames: 0 }
    }

    /// Adds a frame. Those after the 65535th are left out.
    ///
    /// # Errors
    /// As [`Reference::new`].
    pub fn add(&mut self, rows: Rows<'_>) -> Result<(), WrongRows> {
        rows.check(&self.picture)?;
        if self.frames == u32::from(u16::MAX) {
            return Ok(());
        }
        self.frames += 1;
        let samples: usize = self.picture.planes().iter().map(|p| p.samples() * p.rows).sum();
        self.sums.resize(samples, 0);
        let (mut rest, mut room) = (self.sums.as_mut_slice(), Vec::new());
        for stripe in (0..self.picture.stripes()).map(|i| self.picture.stripe(i)) {
            let bytes = rows.stripe(&self.picture, &stripe, &mut room);
            let wide = self.picture.planes()[stripe.plane].wide;
            let (sums, after) = std::mem::take(&mut rest).split_at_mut(bytes.len() / if wide { 2 } else { 1 });
            sum_up(sums, bytes, wide);
            rest = after;
        }
        Ok(())
    }

    /// The average, rounded; `None` where nothing was added.
    pub fn build(&self) -> Option<Reference> {
        let frames = (self.frames > 0).then_some(self.frames)?;
        let mut packed = Vec::with_capacity(self.picture.bytes());
        let mut rest = self.sums.as_slice();
        for plane in self.picture.planes() {
            let (sums, after) = rest.split_at(plane.samples() * plane.rows);
            means(sums, frames, plane.wide, &mut packed);
            rest = after;
        }
        Some(Reference::of(&self.picture, Samples::Heap(packed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shrbuf::{Format, Layout};

    #[test]
    fn average_is_rounded() {
        for format in [Format::Grey, Format::Srggb16] {
            let picture = Picture::of(&Layout::linear(format, 3, 1, 1).unwrap()).unwrap();
            let size = picture.bytes() / 3;
            let frame = |values: [u16; 3]| -> Vec<u8> {
                values.iter().flat_map(|v| v.to_le_bytes()[..size].to_vec()).collect()
            };
            let mut builder = ReferenceBuilder::new(&picture);
            assert_eq!(builder.build(), None);
            for values in [[10, 0, 255], [11, 0, 255], [11, 1, 255]] {
                builder.add(Rows::Packed(&frame(values))).unwrap();
            }
            assert_eq!(builder.build().unwrap().packed(), frame([11, 0, 255]), "{format}");
        }
    }

    #[test]
    fn rows_of_another_size_are_refused() {
        let picture = Picture::of(&Layout::linear(Format::Grey, 3, 1, 1).unwrap()).unwrap();
        let error = WrongRows::Size { expected: 3, given: 2 };
        assert_eq!(Reference::new(&picture, Rows::Packed(&[0, 0])), Err(error.clone()));
        assert_eq!(ReferenceBuilder::new(&picture).add(Rows::Packed(&[0, 0])), Err(error));
    }
}
