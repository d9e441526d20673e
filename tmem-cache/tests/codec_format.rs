//! A decoder written from `FORMAT.md` alone, bit by bit: the fast ones must mean what the text says.

use shrbuf::format::Sampling;
use shrbuf::{Format, Layout};
use tmem_cache::codec::{Encoder, Picture, Reference, Rows, Tier};

#[path = "codec_format/dense.rs"]
mod dense;

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> usize {
        let bit = |at: usize| usize::from(self.bytes[at / 8] >> (at % 8) & 1);
        let value = (0..count).map(|i| bit(self.at + i) << i).sum();
        self.at += count;
        value
    }
}

struct Front<'a>(&'a [u8]);

impl<'a> Front<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let part;
        (part, self.0) = self.0.split_at(len);
        part
    }

    fn number(&mut self, bytes: usize) -> usize {
        self.take(bytes).iter().rev().fold(0, |n, &b| n << 8 | usize::from(b))
    }
}

/// What the first table and "Blocks" say of a plane.
struct Kind {
    bayer: bool,
    wide: bool,
    yuv: bool,
    chroma_first: bool,
    components: usize,
}

impl Kind {
    fn of(format: Format, sampling: &Sampling) -> Kind {
        let bayer = format.family() == shrbuf::Family::Bayer;
        let yuv = matches!(format, Format::Yuyv | Format::Yvyu | Format::Uyvy | Format::Vyuy);
        let chroma_first = matches!(format, Format::Uyvy | Format::Vyuy);
        let components = if bayer { 2 } else { sampling.bytes as usize };
        Kind { bayer, wide: format.bits() > 8, yuv, chroma_first, components }
    }

    fn period(&self) -> usize {
        if self.wide || self.yuv { 4 } else { self.components }
    }

    /// Bytes of a unit, its blocks, and the order of the bits of a place, the highest first.
    fn unit(&self) -> (usize, usize, [u32; 6]) {
        match self.components {
            _ if self.wide => (128, 1, [5, 3, 4, 2, 1, 0]),
            _ if self.yuv => (128, 2, [5, 3, 4, 2, 1, 0]),
            2 => (128, 2, [5, 3, 4, 2, 1, 0]),
            4 => (256, 4, [5, 2, 4, 3, 1, 0]),
            _ => (64, 1, [5, 4, 3, 2, 1, 0]),
        }
    }
}

/// The 64 residuals of a block of width `w`, by their numbers.
fn block(w: usize, whole: usize, fields: &mut Front<'_>, masks: &mut Bits<'_>) -> Vec<usize> {
    let mut field = vec![0; 64];
    let mut low = 0;
    if w > 8 {
        low = 8;
        field.iter_mut().zip(fields.take(64)).for_each(|(f, &b)| *f = usize::from(b));
    }
    let mut bits = Bits { bytes: fields.take(8 * (w - low)), at: 0 };
    for first in [0, 16, 8, 24, 32, 48, 40, 56] {
        for f in &mut field[first..first + 8] {
            *f |= bits.take(w - low) << low;
        }
    }
    if w == 0 || w == whole {
        return field;
    }
    let mut above: Vec<usize> = (0..64).filter(|&i| field[i] >> (w - 1) == 1).collect();
    for _ in 2..=4 {
        above.retain(|_| masks.take(1) == 1);
        above.iter().for_each(|&i| field[i] += 1 << (w - 1));
    }
    field
}

/// Puts a block's exceptions in the place of its fields.
fn except(code: usize, values: &mut [usize], exceptions: &mut Front<'_>) {
    if code == 14 {
        let mask = exceptions.number(8);
        for (_, value) in values.iter_mut().enumerate().filter(|(n, _)| mask >> n & 1 == 1) {
            *value = exceptions.number(1);
        }
        return;
    }
    loop {
        let number = exceptions.number(1);
        assert!(number < 128);
        values[number % 64] = exceptions.number(1);
        if number < 64 {
            return;
        }
    }
}

fn avg(a: usize, b: usize) -> usize {
    (a + b).div_ceil(2)
}

fn stripe(
    kind: &Kind,
    row_bytes: usize,
    bytes: usize,
    coded: &[u8],
    reference: Option<&[u8]>,
    seen: &mut u32,
) -> Vec<u8> {
    let mut front = Front(coded);
    let modes = front.take(bytes.div_ceil(4096));
    let (c, m) = (front.number(2), front.number(4));
    let (mut packed, masks, mut fields) = (Front(front.take(c)), front.take(m), Front(front.0));
    let mut masks = Bits { bytes: masks, at: 0 };
    let mut codes = Vec::new();
    while !packed.0.is_empty() {
        let pair = packed.number(1);
        codes.extend([pair & 15, pair >> 4]);
        if pair == 0 {
            let more = packed.number(1);
            codes.extend(vec![0; 2 * more]);
        }
    }
    let (size, whole) = if kind.wide { (2, 16) } else { (1, 8) };
    let (unit, blocks, order) = kind.unit();
    // Residuals in the order of the samples.
    let mut residuals = vec![0; bytes.next_multiple_of(unit) / size];
    let width = |code: usize| match code {
        9..=13 if !kind.wide => code - 9,
        14 if !kind.wide => 0,
        15 => 16,
        _ => code,
    };
    let mut exceptions = Front(fields.take(8 * codes.iter().map(|&code| width(code)).sum::<usize>()));
    std::mem::swap(&mut fields, &mut exceptions);
    let mut codes = codes.into_iter();
    for first in (0..residuals.len()).step_by(unit / size) {
        for b in 0..blocks {
            let code = codes.next().unwrap();
            let mut values = block(width(code), whole, &mut fields, &mut masks);
            if !kind.wide && code > 8 {
                except(code, &mut values, &mut exceptions);
                *seen |= 1 << code;
            }
            for place in 0..64 {
                let number = order.iter().fold(0, |n, bit| n << 1 | place >> bit & 1);
                residuals[first + place * blocks + b] = values[number];
            }
        }
    }
    assert!(fields.0.is_empty() && exceptions.0.is_empty() && masks.at.div_ceil(8) == masks.bytes.len());

    let above = if kind.bayer { 2 * row_bytes } else { row_bytes };
    let back = (1..).map(|n| n * above).find(|&b| b >= 72).unwrap();
    let (period, head) = (kind.period(), (back + 8).next_multiple_of(64));
    let read = |x: &[u8], i: usize| (0..size).map(|b| usize::from(x[i + b]) << (8 * b)).sum::<usize>();
    let mut x = vec![0; bytes];
    for i in (0..bytes).step_by(size) {
        let mode = modes[i / 4096];
        let t = reference.map_or(0, |t| read(t, i));
        let p = match mode {
            0 | 1 if i < head => i.checked_sub(period).map_or(0, |i| read(&x, i)),
            2 | 3 if i < head => t,
            0 => read(&x, i - back),
            2 => t,
            _ => {
                let smooth = avg(read(&x, i - back), avg(read(&x, i - back - period), read(&x, i - back + period)));
                if mode == 1 { smooth } else { avg(smooth, t) }
            }
        };
        let r = residuals[i / size];
        let d = if r % 2 == 0 { r / 2 } else { usize::MAX - r / 2 };
        x[i..i + size].copy_from_slice(&p.wrapping_add(d).to_le_bytes()[..size]);
    }
    x
}

fn decode(format: Format, width: u32, height: u32, stream: &[u8], reference: Option<&[u8]>, seen: &mut u32) -> Vec<u8> {
    let planes: Vec<(&Sampling, usize, usize)> = format
        .planes()
        .iter()
        .map(|s| (s, (width.div_ceil(s.hsub) * s.bytes) as usize, height.div_ceil(s.vsub) as usize))
        .collect();
    let rows_of = |row_bytes: usize| (65536 / row_bytes).clamp(8, 4096);
    let stripes: usize = planes.iter().map(|(_, row_bytes, rows)| rows.div_ceil(rows_of(*row_bytes))).sum();
    let mut front = Front(stream);
    front.take(16);
    let mut table = Front(front.take(8 * stripes));
    let mut picture: Vec<u8> = Vec::new();
    for (sampling, row_bytes, rows) in planes {
        for first in (0..rows).step_by(rows_of(row_bytes)) {
            let bytes = row_bytes * rows_of(row_bytes).min(rows - first);
            let entry = table.number(4);
            table.take(4);
            let coded = front.take(entry & ((1 << 30) - 1));
            let reference = reference.map(|r| &r[picture.len()..picture.len() + bytes]);
            let kind = Kind::of(format, sampling);
            match entry >> 30 {
                0 => picture.extend_from_slice(coded),
                1 => picture.extend(stripe(&kind, row_bytes, bytes, coded, reference, seen)),
                2 => {
                    picture.extend(dense::stripe(&kind, row_bytes, bytes, coded, reference));
                    *seen |= if reference.is_some() { 2 } else { 1 };
                }
                kind => panic!("kind {kind}"),
            }
        }
    }
    picture
}

/// A ramp with noise that grows from nothing to all bits, here and there something else altogether, and an even end with
/// a few spots.
fn frame(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut value = |i: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = ((state >> 24) as u8).checked_shr(8 - (9 * i / bytes) as u32).unwrap_or(0);
        let other = (state >> 16).is_multiple_of(61) && (i / 512).is_multiple_of(3);
        match i {
            _ if i > bytes - bytes / 8 => {
                if (i / 64).is_multiple_of(5) && i.is_multiple_of(3) || i.is_multiple_of(97) {
                    (state >> 24) as u8
                } else {
                    7
                }
            }
            _ if other => (state >> 24) as u8,
            _ => (i / 300) as u8 ^ noise,
        }
    };
    (0..bytes).map(&mut value).collect()
}

fn means_what_the_format_says(tier: Tier, sizes: &[(u32, u32)]) -> u32 {
    let mut seen = 0;
    for format in Format::all() {
        for &(width, height) in sizes {
            let picture = Picture::of(&Layout::linear(format, width, height, 1).unwrap()).unwrap();
            let (samples, near) = (frame(picture.bytes(), 1), frame(picture.bytes(), 2));
            let reference = Reference::new(&picture, Rows::Packed(&near)).unwrap();
            for reference in [None, Some(&reference)] {
                let mut stream = Vec::new();
                let rows = Rows::Packed(&samples);
                Encoder::new(1).encode(&picture, rows, reference, tier, &mut stream).unwrap();
                let back = decode(format, width, height, &stream, reference.map(Reference::packed), &mut seen);
                assert!(back == samples, "{picture} {}", reference.is_some());
            }
        }
    }
    seen
}

#[test]
fn coded_stripes_mean_what_the_format_says() {
    let seen = means_what_the_format_says(Tier::Fast, &[(2, 3), (37, 60), (200, 70), (1400, 90)]);
    assert_eq!(seen, 0b0111_1110_0000_0000, "blocks with exceptions of every kind");
}

#[test]
fn dense_stripes_mean_what_the_format_says() {
    let seen = means_what_the_format_says(Tier::Dense, &[(2, 3), (37, 60), (200, 70)]);
    assert_eq!(seen & 3, 3, "dense stripes with a reference and without");
}
