//! Samples to differences from what they are likely to be, and back, a chunk at a time.

use super::kernel::{BYTES, Kernel};
use super::{CHUNK, Geometry, MARGIN, Mode};

/// A chunk's differences.
pub(super) type Differences = [[u8; BYTES]; CHUNK / BYTES];

/// Room for them, none across two lines of the processor's cache, which AVX-512 would be slower with.
#[repr(align(64))]
pub(super) struct Aligned(pub Differences);

/// What predictions are made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Predictor<'a, K, const WIDE: bool> {
    pub kernel: K,
    pub geometry: Geometry,
    /// The reference's samples of the stripe. There where a mode needs them.
    pub reference: Option<&'a [u8]>,
}

impl<K: Kernel, const WIDE: bool> Predictor<'_, K, WIDE> {
    /// What the 64 bytes from `at` on are likely to be, `MODE` being a [`Mode`]. `samples` is the stripe, of which all
    /// before `at` is known; `at` is not in the head.
    #[inline(always)]
    fn likely<const MODE: u8>(&self, samples: &[u8], at: usize, reference: &[u8; BYTES]) -> K::Vector {
        let kernel = self.kernel;
        if MODE == Mode::Reference as u8 {
            return kernel.load(reference);
        }
        let window = &samples[at - self.geometry.back - MARGIN..][..BYTES + 2 * MARGIN];
        let same = kernel.load(part(window, MARGIN));
        if MODE == Mode::Above as u8 {
            return same;
        }
        let period = self.geometry.period.min(MARGIN);
        let left = kernel.load(part(window, MARGIN - period));
        let right = kernel.load(part(window, MARGIN + period));
        let smooth = kernel.avg::<WIDE>(same, kernel.avg::<WIDE>(left, right));
        if MODE == Mode::Both as u8 { kernel.avg::<WIDE>(smooth, kernel.load(reference)) } else { smooth }
    }

    /// As [`Predictor::likely`], for any mode.
    #[inline(always)]
    fn likely_by(&self, mode: Mode, samples: &[u8], at: usize, reference: &[u8; BYTES]) -> K::Vector {
        match mode {
            Mode::Above => self.likely::<{ Mode::Above as u8 }>(samples, at, reference),
            Mode::Smooth => self.likely::<{ Mode::Smooth as u8 }>(samples, at, reference),
            Mode::Reference => self.likely::<{ Mode::Reference as u8 }>(samples, at, reference),
            Mode::Both => self.likely::<{ Mode::Both as u8 }>(samples, at, reference),
        }
    }

    /// The differences of the chunk from `start` on. Beyond the stripe's end they are 0.
    #[inline(always)]
    pub fn differences(&self, mode: Mode, samples: &[u8], start: usize, out: &mut Differences) {
        let (head, whole, end) = self.parts(samples, start);
        for at in (start..head).step_by(BYTES) {
            out[(at - start) / BYTES] = self.difference(mode, samples, at);
        }
        match mode {
            Mode::Above => self.run::<{ Mode::Above as u8 }>(samples, start, head..whole, out),
            Mode::Smooth => self.run::<{ Mode::Smooth as u8 }>(samples, start, head..whole, out),
            Mode::Reference => self.run::<{ Mode::Reference as u8 }>(samples, start, head..whole, out),
            Mode::Both => self.run::<{ Mode::Both as u8 }>(samples, start, head..whole, out),
        }
        for at in (whole..end).step_by(BYTES) {
            out[(at - start) / BYTES] = self.difference(mode, samples, at);
        }
        out[(end - start).div_ceil(BYTES)..].fill([0; BYTES]);
    }

    #[inline(always)]
    fn run<const MODE: u8>(&self, samples: &[u8], start: usize, places: std::ops::Range<usize>, out: &mut Differences) {
        let kernel = self.kernel;
        let rooms = &mut out[(places.start - start) / BYTES..];
        for (at, room) in places.step_by(BYTES).zip(rooms) {
            let likely = self.likely::<MODE>(samples, at, self.whole_reference::<MODE>(at));
            kernel.store(kernel.sub::<WIDE>(kernel.load(part(samples, at)), likely), room);
        }
    }

    /// About how large the differences from `at` on would be.
    #[inline(always)]
    pub fn size(&self, mode: Mode, samples: &[u8], at: usize) -> u32 {
        let reference = part(self.reference.unwrap_or(samples), at);
        let likely = self.likely_by(mode, samples, at, reference);
        let difference = self.kernel.sub::<WIDE>(self.kernel.load(part(samples, at)), likely);
        self.kernel.sum::<WIDE>(self.kernel.zigzag::<WIDE>(difference))
    }

    /// Samples that lie in the head or at the end.
    #[inline(always)]
    fn difference(&self, mode: Mode, samples: &[u8], at: usize) -> [u8; BYTES] {
        let kernel = self.kernel;
        let rest = &samples[at..];
        let n = rest.len().min(BYTES);
        let mut now = [0; MARGIN + BYTES];
        let before = at.min(MARGIN);
        now[MARGIN - before..MARGIN].copy_from_slice(&samples[at - before..at]);
        now[MARGIN..][..n].copy_from_slice(&rest[..n]);
        let likely = if at >= self.geometry.head() {
            self.likely_by(mode, samples, at, &self.reference_at(at))
        } else if mode.needs_reference() {
            kernel.load(&self.reference_at(at))
        } else {
            kernel.load(part(&now, MARGIN - self.geometry.period.min(MARGIN)))
        };
        let mut out = [0; BYTES];
        kernel.store(kernel.sub::<WIDE>(kernel.load(part(&now, MARGIN)), likely), &mut out);
        out[n..].fill(0);
        out
    }

    /// The samples of the chunk from `start` on.
    #[inline(always)]
    pub fn samples(&self, mode: Mode, differences: &Differences, samples: &mut [u8], start: usize) {
        let (head, whole, end) = self.parts(samples, start);
        for at in (start..head).step_by(BYTES) {
            self.sample(mode, samples, at, &differences[(at - start) / BYTES]);
        }
        match mode {
            Mode::Above => self.run_back::<{ Mode::Above as u8 }>(samples, start, head..whole, differences),
            Mode::Smooth => self.run_back::<{ Mode::Smooth as u8 }>(samples, start, head..whole, differences),
            Mode::Reference => self.run_back::<{ Mode::Reference as u8 }>(samples, start, head..whole, differences),
            Mode::Both => self.run_back::<{ Mode::Both as u8 }>(samples, start, head..whole, differences),
        }
        for at in (whole..end).step_by(BYTES) {
            self.sample(mode, samples, at, &differences[(at - start) / BYTES]);
        }
    }

    #[inline(always)]
    fn run_back<const MODE: u8>(
        &self,
        samples: &mut [u8],
        start: usize,
        places: std::ops::Range<usize>,
        differences: &Differences,
    ) {
        let kernel = self.kernel;
        let differences = &differences[(places.start - start) / BYTES..];
        for (at, difference) in places.step_by(BYTES).zip(differences) {
            let likely = self.likely::<MODE>(samples, at, self.whole_reference::<MODE>(at));
            let sample = kernel.add::<WIDE>(kernel.load(difference), likely);
            kernel.store(sample, part_mut(samples, at));
        }
    }

    /// As [`Predictor::difference`].
    #[inline(always)]
    fn sample(&self, mode: Mode, samples: &mut [u8], at: usize, difference: &[u8; BYTES]) {
        let kernel = self.kernel;
        let difference = kernel.load(difference);
        let now = if at >= self.geometry.head() {
            kernel.add::<WIDE>(difference, self.likely_by(mode, samples, at, &self.reference_at(at)))
        } else if mode.needs_reference() {
            kernel.add::<WIDE>(difference, kernel.load(&self.reference_at(at)))
        } else {
            let mut before = [0; 16];
            if let Some(sixteen) = at.checked_sub(16).and_then(|start| samples[start..].first_chunk()) {
                before = *sixteen;
            }
            kernel.along::<WIDE>(difference, self.geometry.period, &before)
        };
        let mut room = [0; BYTES];
        kernel.store(now, &mut room);
        let rest = &mut samples[at..];
        let n = rest.len().min(BYTES);
        rest[..n].copy_from_slice(&room[..n]);
    }

    /// The reference's bytes, where the mode needs them.
    #[inline(always)]
    fn whole_reference<const MODE: u8>(&self, at: usize) -> &[u8; BYTES] {
        match self.reference {
            Some(reference) if MODE == Mode::Reference as u8 || MODE == Mode::Both as u8 => part(reference, at),
            _ => &[0; BYTES],
        }
    }

    /// The reference's bytes, with zeros beyond the stripe's end.
    #[inline(always)]
    fn reference_at(&self, at: usize) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        if let Some(rest) = self.reference.map(|r| &r[at..]) {
            let n = rest.len().min(BYTES);
            out[..n].copy_from_slice(&rest[..n]);
        }
        out
    }

    /// Where the head ends in a chunk, and the last whole vector, and the chunk.
    #[inline(always)]
    fn parts(&self, samples: &[u8], start: usize) -> (usize, usize, usize) {
        let end = samples.len().min(start + CHUNK);
        let head = self.geometry.head().clamp(start, end.next_multiple_of(BYTES));
        (head, head.max(end / BYTES * BYTES), end)
    }
}

/// A vector's worth of bytes from there.
#[inline(always)]
fn part(bytes: &[u8], at: usize) -> &[u8; BYTES] {
    bytes[at..].first_chunk().unwrap_or_else(|| unreachable!("all but the last vector are whole"))
}

/// As [`part`], to be written.
#[inline(always)]
fn part_mut(bytes: &mut [u8], at: usize) -> &mut [u8; BYTES] {
    bytes[at..].first_chunk_mut().unwrap_or_else(|| unreachable!("all but the last vector are whole"))
}
