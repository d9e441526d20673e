//! Which code runs: the best that the processor has, chosen once.

use std::collections::TryReserveError;

use super::dense::{self, Bucket, RowScratch};
use super::fast::portable::Portable;
use super::fast::{self, Kernel, Shape};

/// A way to code stripes. All make and take the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Path {
    /// All that this processor has, the best last.
    pub fn available() -> impl Iterator<Item = Path> {
        #[cfg(target_arch = "x86_64")]
        let paths = {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt");
            // Skylake-X has not all of it: there AVX2 does.
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vbmi");
            [Some(Path::Portable), avx2.then_some(Path::Avx2), avx512.then_some(Path::Avx512)]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let paths = [Some(Path::Portable)];
        paths.into_iter().flatten()
    }

    pub fn best() -> Path {
        Path::available().last().unwrap_or(Path::Portable)
    }

    /// See [`fast::encode::encode`].
    pub fn encode(self, task: &fast::Task<'_>, samples: &[u8], room: &mut fast::encode::Room, out: &mut Vec<u8>) {
        match self {
            Path::Portable => encode(Portable, task, samples, room, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a path other than the portable one comes from `available` alone, which has asked the processor.
            Path::Avx2 => unsafe { x86::encode_avx2(task, samples, room, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Path::Avx512 => unsafe { x86::encode_avx512(task, samples, room, out) },
        }
    }

    /// See [`fast::decode::decode`].
    pub fn decode(
        self,
        task: &fast::Task<'_>,
        coded: &[u8],
        room: &mut fast::decode::Room,
        samples: &mut [u8],
    ) -> Result<(), &'static str> {
        match self {
            Path::Portable => decode(Portable, task, coded, room, samples),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Path::Avx2 => unsafe { x86::decode_avx2(task, coded, room, samples) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Path::Avx512 => unsafe { x86::decode_avx512(task, coded, room, samples) },
        }
    }

    /// See [`dense::encode::encode`].
    pub fn encode_dense<S: Bucket>(
        self,
        task: &dense::Task<'_, S>,
        samples: &[u8],
        rows: &mut dense::encode::Rows<S>,
        shared: &mut dense::encode::Shared,
        out: &mut Vec<u8>,
    ) -> bool {
        match self {
            Path::Portable => dense::encode::encode(dense::rans::Portable, task, samples, rows, shared, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Path::Avx2 => unsafe { x86::encode_dense_avx2(task, samples, rows, shared, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Path::Avx512 => unsafe { x86::encode_dense_avx512(task, samples, rows, shared, out) },
        }
    }

    /// See [`dense::decode::decode`].
    pub fn decode_dense<S: Bucket>(
        self,
        task: &dense::Task<'_, S>,
        coded: &[u8],
        scratch: &mut RowScratch<S>,
        room: &mut dense::decode::Room,
        samples: &mut [u8],
    ) -> Result<(), &'static str> {
        match self {
            Path::Portable => dense::decode::decode(dense::rans::Portable, task, coded, scratch, room, samples),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Path::Avx2 => unsafe { x86::decode_dense_avx2(task, coded, scratch, room, samples) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Path::Avx512 => unsafe { x86::decode_dense_avx512(task, coded, scratch, room, samples) },
        }
    }
}

#[inline(always)]
fn encode<K: Kernel>(
    kernel: K,
    task: &fast::Task<'_>,
    samples: &[u8],
    room: &mut fast::encode::Room,
    out: &mut Vec<u8>,
) {
    match Shape::of(task.plane) {
        Shape::Single => fast::encode::encode::<K, 1, false>(kernel, task, samples, room, out),
        Shape::Pairs => fast::encode::encode::<K, 2, false>(kernel, task, samples, room, out),
        Shape::Quads => fast::encode::encode::<K, 4, false>(kernel, task, samples, room, out),
        Shape::Words => fast::encode::encode::<K, 2, true>(kernel, task, samples, room, out),
    }
}

#[inline(always)]
fn decode<K: Kernel>(
    kernel: K,
    task: &fast::Task<'_>,
    coded: &[u8],
    room: &mut fast::decode::Room,
    samples: &mut [u8],
) -> Result<(), &'static str> {
    match Shape::of(task.plane) {
        Shape::Single => fast::decode::decode::<K, 1, false>(kernel, task, coded, room, samples),
        Shape::Pairs => fast::decode::decode::<K, 2, false>(kernel, task, coded, room, samples),
        Shape::Quads => fast::decode::decode::<K, 4, false>(kernel, task, coded, room, samples),
        Shape::Words => fast::decode::decode::<K, 2, true>(kernel, task, coded, room, samples),
    }
}

/// The same code once more for an instruction set.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::fast::avx2::Avx2;
    use super::super::fast::avx512::Avx512;
    use super::*;

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub fn encode_avx2(task: &fast::Task<'_>, samples: &[u8], room: &mut fast::encode::Room, out: &mut Vec<u8>) {
        // SAFETY: this function has these features.
        super::encode(unsafe { Avx2::new() }, task, samples, room, out);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi1,bmi2,lzcnt,popcnt")]
    pub fn encode_avx512(task: &fast::Task<'_>, samples: &[u8], room: &mut fast::encode::Room, out: &mut Vec<u8>) {
        // SAFETY: as above.
        super::encode(unsafe { Avx512::new() }, task, samples, room, out);
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub fn decode_avx2(
        task: &fast::Task<'_>,
        coded: &[u8],
        room: &mut fast::decode::Room,
        samples: &mut [u8],
    ) -> Result<(), &'static str> {
        // SAFETY: as above.
        super::decode(unsafe { Avx2::new() }, task, coded, room, samples)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi1,bmi2,lzcnt,popcnt")]
    pub fn decode_avx512(
        task: &fast::Task<'_>,
        coded: &[u8],
        room: &mut fast::decode::Room,
        samples: &mut [u8],
    ) -> Result<(), &'static str> {
        // SAFETY: as above.
        super::decode(unsafe { Avx512::new() }, task, coded, room, samples)
    }

    /// Plain loops become vector code, too.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub fn encode_dense_avx2<S: Bucket>(
        task: &dense::Task<'_, S>,
        samples: &[u8],
        rows: &mut dense::encode::Rows<S>,
        shared: &mut dense::encode::Shared,
        out: &mut Vec<u8>,
    ) -> bool {
        // SAFETY: as above.
        dense::encode::encode(unsafe { dense::avx2::Avx2::new() }, task, samples, rows, shared, out)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi1,bmi2,lzcnt,popcnt")]
    pub fn encode_dense_avx512<S: Bucket>(
        task: &dense::Task<'_, S>,
        samples: &[u8],
        rows: &mut dense::encode::Rows<S>,
        shared: &mut dense::encode::Shared,
        out: &mut Vec<u8>,
    ) -> bool {
        // SAFETY: as above.
        dense::encode::encode(unsafe { dense::avx512::Avx512::new() }, task, samples, rows, shared, out)
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub fn decode_dense_avx2<S: Bucket>(
        task: &dense::Task<'_, S>,
        coded: &[u8],
        scratch: &mut RowScratch<S>,
        room: &mut dense::decode::Room,
        samples: &mut [u8],
    ) -> Result<(), &'static str> {
        // SAFETY: as above.
        dense::decode::decode(unsafe { dense::avx2::Avx2::new() }, task, coded, scratch, room, samples)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi1,bmi2,lzcnt,popcnt")]
    pub fn decode_dense_avx512<S: Bucket>(
        task: &dense::Task<'_, S>,
        coded: &[u8],
        scratch: &mut RowScratch<S>,
        room: &mut dense::decode::Room,
        samples: &mut [u8],
    ) -> Result<(), &'static str> {
        // SAFETY: as above.
        dense::decode::decode(unsafe { dense::avx512::Avx512::new() }, task, coded, scratch, room, samples)
    }
}

/// Room for one stripe in work.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub encode: fast::encode::Room,
    pub decode: fast::decode::Room,
    /// The two kinds of rows that dense stripes have.
    pub bytes: RowScratch<u8>,
    pub words: RowScratch<u16>,
    pub dense: dense::Room,
    /// Another form of a stripe, until it is known which one is the smallest.
    pub other: Vec<u8>,
    /// Samples of a stripe on their way into or out of a buffer's mapping.
    pub stripe: Vec<u8>,
}

impl Scratch {
    /// Room for encoding stripes of so many bytes on the fast tier.
    pub fn reserve(&mut self, stripe: usize) -> Result<(), TryReserveError> {
        self.encode.reserve(stripe)?;
        fast::reserve(&mut self.other, fast::most_bytes(stripe))?;
        fast::reserve(&mut self.stripe, stripe)
    }

    /// Room for decoding them.
    pub fn reserve_decoding(&mut self, stripe: usize) -> Result<(), TryReserveError> {
        self.decode.reserve(stripe)?;
        fast::reserve(&mut self.stripe, stripe)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, Encoder, Picture, Reference, Rows, RowsMut, Tier};
    use super::*;
    use shrbuf::{Format, Layout};

    /// Frames whose noise grows from nothing to all bits, so that every kind of block occurs.
    fn frame(bytes: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let value = |i: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (i / 7) as u8 ^ ((state >> 24) as u8).checked_shr(8 - (9 * i / bytes) as u32).unwrap_or(0)
        };
        (0..bytes).map(value).collect()
    }

    fn make_the_same_bytes_and_take_each_others(tier: Tier, formats: impl IntoIterator<Item = Format>) {
        for format in formats {
            for (width, height) in [(1, 1), (65, 19), (640, 50)] {
                let picture = Picture::of(&Layout::linear(format, width, height, 1).unwrap()).unwrap();
                let frame = frame(picture.bytes(), 1);
                let near: Vec<u8> = frame.iter().map(|v| v ^ 1).collect();
                let reference = Reference::new(&picture, Rows::Packed(&near)).unwrap();
                for reference in [None, Some(&reference)] {
                    let encode = |path| {
                        let (mut encoder, mut stream) = (Encoder::with_path(1, path), Vec::new());
                        encoder.encode(&picture, Rows::Packed(&frame), reference, tier, &mut stream).unwrap();
                        stream
                    };
                    let portable = encode(Path::Portable);
                    for path in Path::available() {
                        assert!(encode(path) == portable, "{picture} {path:?}");
                        let mut back = vec![0; frame.len()];
                        let mut decoder = Decoder::with_path(1, path);
                        decoder.decode(&picture, &portable, reference, RowsMut::Packed(&mut back)).unwrap();
                        assert!(back == frame, "{picture} {path:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn fast_paths_make_the_same_bytes_and_take_each_others() {
        make_the_same_bytes_and_take_each_others(Tier::Fast, Format::all());
    }

    #[test]
    fn dense_paths_make_the_same_bytes_and_take_each_others() {
        make_the_same_bytes_and_take_each_others(Tier::Dense, Format::all());
    }

    /// For an emulated processor, which would take minutes over all formats.
    #[test]
    fn dense_paths_of_some_formats_make_the_same_bytes() {
        make_the_same_bytes_and_take_each_others(Tier::Dense, [Format::Grey, Format::Yuyv, Format::Srggb12]);
    }

    /// What a stripe decodes to, or why it does not, is the same on all paths even for bytes that no encoder makes.
    #[test]
    fn all_paths_agree_on_arbitrary_stripes() {
        for (format, width) in
            [(Format::Grey, 67), (Format::Yuyv, 34), (Format::Rg24, 23), (Format::Xr24, 17), (Format::Srggb12, 33)]
        {
            let picture = Picture::of(&Layout::linear(format, width, 21, 1).unwrap()).unwrap();
            let plane = &picture.planes()[0];
            let task = fast::Task { plane, reference: None };
            let mut whole = Vec::new();
            Path::Portable.encode(&task, &frame(picture.bytes(), 3), &mut Default::default(), &mut whole);
            let (mut good, mut bad) = (0, 0);
            for i in 0..whole.len() * 8 {
                let mut coded = whole.clone();
                coded[i / 8] ^= 1 << (i % 8);
                let decode = |path: Path| {
                    let mut samples = vec![0; picture.bytes()];
                    path.decode(&task, &coded, &mut Default::default(), &mut samples).map(|()| samples)
                };
                let portable = decode(Path::Portable);
                if portable.is_ok() {
                    good += 1
                } else {
                    bad += 1
                }
                for path in Path::available() {
                    assert_eq!(decode(path), portable, "{picture} bit {i} {path:?}");
                }
            }
            assert!(good > 100 && bad > 100, "{picture}: {good} decoded, {bad} refused");
        }
    }

    #[test]
    fn all_paths_agree_on_arbitrary_dense_stripes() {
        let layout = Layout::linear(Format::Srggb12, 67, 21, 1).unwrap();
        let picture = Picture::of(&layout).unwrap();
        let plane = &picture.planes()[0];
        let lanes = dense::lanes::Lanes::of(plane);
        let task = dense::Task::<u16> { plane, lanes: &lanes, rows: 21, reference: None };
        let (mut room, mut whole) = (dense::Room::default(), Vec::new());
        let frame = frame(67 * 2 * 21, 3);
        Path::Portable.encode_dense(&task, &frame, &mut room.words, &mut room.encode, &mut whole);
        let (mut good, mut bad) = (0, 0);
        for i in (0..whole.len() * 8).step_by(3) {
            let mut coded = whole.clone();
            coded[i / 8] ^= 1 << (i % 8);
            let mut decode = |path: Path| {
                let mut samples = vec![0; frame.len()];
                let mut rows = RowScratch::default();
                path.decode_dense(&task, &coded, &mut rows, &mut room.decode, &mut samples).map(|()| samples)
            };
            let portable = decode(Path::Portable);
            if portable.is_ok() {
                good += 1
            } else {
                bad += 1
            }
            for path in Path::available() {
                assert!(decode(path) == portable, "bit {i} {path:?}");
            }
        }
        assert!(good > 100 && bad > 100, "{good} decoded, {bad} refused");
    }
}
