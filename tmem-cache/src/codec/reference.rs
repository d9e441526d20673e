//! The shared picture that the frames of one object are predicted from.

use super::dense::lanes::Lanes;
use super::dense::sample::Sample;
use super::picture::{Picture, Stripe};
use super::rows::{Rows, WrongRows};

/// A picture that frames are predicted from: a star, not a chain, so that every frame is decoded with it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    picture: Picture,
    packed: Vec<u8>,
    /// Its rows taken apart, plane after plane: those of 8-bit planes, and those of wider ones.
    bytes: Vec<u8>,
    words: Vec<u16>,
    /// Where each plane starts in one of these.
    starts: [usize; 3],
    id: u32,
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
        Ok(Reference::of(picture, packed))
    }

    fn of(picture: &Picture, packed: Vec<u8>) -> Reference {
        let (mut bytes, mut words, mut starts) = (Vec::new(), Vec::new(), [0; 3]);
        for (plane, start) in picture.planes().iter().zip(&mut starts) {
            let rows = &packed[plane.start..plane.start + plane.row_bytes * plane.rows];
            let lanes = Lanes::of(plane);
            if plane.wide {
                *start = take_apart(&lanes, rows, plane.row_bytes, &mut words);
            } else {
                *start = take_apart(&lanes, rows, plane.row_bytes, &mut bytes);
            }
        }
        // 0 says "none" in a stream.
        let id = crc32fast::hash(&packed).max(1);
        Reference { picture: *picture, packed, bytes, words, starts, id }
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
        &self.packed
    }

    pub(crate) fn byte_rows(&self, stripe: &Stripe, lanes: &Lanes) -> &[u8] {
        let start = self.starts[stripe.plane];
        &self.bytes[start + stripe.rows.start * lanes.size()..start + stripe.rows.end * lanes.size()]
    }

    pub(crate) fn word_rows(&self, stripe: &Stripe, lanes: &Lanes) -> &[u16] {
        let start = self.starts[stripe.plane];
        &self.words[start + stripe.rows.start * lanes.size()..start + stripe.rows.end * lanes.size()]
    }
}

/// Appends the rows, taken apart, to `all`; returns where they start.
fn take_apart<S: Sample>(lanes: &Lanes, rows: &[u8], row_bytes: usize, all: &mut Vec<S>) -> usize {
    let start = all.len();
    let mut room = vec![S::default(); lanes.samples()];
    let mut spare = vec![S::default(); 2 * lanes.samples()];
    for row in rows.chunks_exact(row_bytes) {
        let at = all.len();
        all.resize(at + lanes.size(), S::default());
        lanes.split(S::load(row, &mut room), &mut all[at..], &mut spare);
    }
    start
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
            let size = if self.picture.planes()[stripe.plane].wide { 2 } else { 1 };
            let (sums, after) = std::mem::take(&mut rest).split_at_mut(bytes.len() / size);
            for (sum, sample) in sums.iter_mut().zip(bytes.chunks_exact(size)) {
                *sum += sample.iter().rev().fold(0, |value, &b| value << 8 | u32::from(b));
            }
            rest = after;
        }
        Ok(())
    }

    /// The average, rounded; `None` where nothing was added.
    pub fn build(&self) -> Option<Reference> {
        let frames = (self.frames > 0).then_some(self.frames)?;
        let mut packed = Vec::with_capacity(self.picture.bytes());
        let mut sums = self.sums.iter().map(|sum| (sum + frames / 2) / frames);
        for plane in self.picture.planes() {
            for mean in sums.by_ref().take(plane.samples() * plane.rows) {
                packed.push(mean as u8);
                if plane.wide {
                    packed.push((mean >> 8) as u8);
                }
            }
        }
        Some(Reference::of(&self.picture, packed))
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
