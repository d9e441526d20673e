//! The codec from outside: what goes in comes out, and nothing else ever does.

use shrbuf::exporter::Memfd;
use shrbuf::{Format, Layout, Ledger, Reason};
use tmem_cache::codec::{
    DecodeError, Decoder, EncodeError, Encoder, Picture, Reference, Region, Rows, RowsMut, Tier, WrongRows,
};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// About normal: standard deviation 1.
    fn noise(&mut self) -> f64 {
        (0..12).map(|_| self.next() as f64 / u64::MAX as f64).sum::<f64>() - 6.0
    }
}

fn picture(format: Format, width: u32, height: u32) -> Picture {
    Picture::of(&Layout::linear(format, width, height, 1).unwrap()).unwrap()
}

/// A ramp with noise, as 16-bit words or bytes.
fn natural(format: Format, width: u32, height: u32, seed: u64) -> Vec<u8> {
    let size = if format.bits() > 8 { 2 } else { 1 };
    let (samples, top) = (picture(format, width, height).bytes() / size, f64::from((1u32 << format.bits().max(8)) - 1));
    let mut random = Random(seed);
    let value = |i: usize| (0.5 + 0.3 * (i as f64 / samples as f64) + 0.02 * random.noise()).clamp(0.0, 1.0) * top;
    (0..samples).map(value).flat_map(|v| (v as u16).to_le_bytes()[..size].to_vec()).collect()
}

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    std::iter::repeat_with(|| random.next() as u8).take(bytes).collect()
}

fn encode(picture: &Picture, frame: &[u8], reference: Option<&Reference>, tier: Tier) -> Vec<u8> {
    let mut stream = Vec::new();
    let summary = Encoder::new(1).encode(picture, Rows::Packed(frame), reference, tier, &mut stream).unwrap();
    assert_eq!((summary.bytes_in, summary.bytes_out), (frame.len(), stream.len()));
    stream
}

fn decode(picture: &Picture, stream: &[u8], reference: Option<&Reference>) -> Result<Vec<u8>, DecodeError> {
    let mut frame = vec![0xa5; picture.bytes()];
    Decoder::new(1).decode(picture, stream, reference, RowsMut::Packed(&mut frame)).map(|()| frame)
}

/// Pairs of rows that are half the range apart: the largest residual there is, for blocks on end.
fn steps(format: Format, width: u32, height: u32) -> Vec<u8> {
    let size = if format.bits() > 8 { 2 } else { 1 };
    let rows = |s: &shrbuf::format::Sampling| {
        let row = (width.div_ceil(s.hsub) * s.bytes) as usize;
        let value = move |y: u32, i: usize| if y / 2 % 2 == 1 && i % size == size - 1 { 128 } else { 0 };
        (0..height.div_ceil(s.vsub)).flat_map(move |y| (0..row).map(move |i| value(y, i))).collect::<Vec<u8>>()
    };
    format.planes().iter().flat_map(rows).collect()
}

/// Pictures that are hard in different ways.
fn contents(picture: &Picture, format: Format, width: u32, height: u32) -> Vec<(&'static str, Vec<u8>)> {
    let n = picture.bytes();
    let mut impulse = vec![0; n];
    impulse[n / 2] = 255;
    vec![
        ("black", vec![0; n]),
        ("white", vec![255; n]),
        ("ramp", (0..n).map(|i| (i / 3) as u8).collect()),
        ("stripes", (0..n).map(|i| if i % 2 == 0 { 0 } else { 255 }).collect()),
        ("impulse", impulse),
        ("steps", steps(format, width, height)),
        ("natural", natural(format, width, height, 1)),
        ("noise", noise(n, 2)),
        ("columns", noise(n, 3).iter().enumerate().map(|(i, v)| if i / 400 % 2 == 0 { 0 } else { *v }).collect()),
        ("runs", runs(n)),
    ]
}

/// Runs of few values, as drawn pictures have them.
fn runs(n: usize) -> Vec<u8> {
    let random = noise(2 * n, 4);
    let run = |two: &[u8; 2]| std::iter::repeat_n([7, 30, 131, 250][usize::from(two[0] % 4)], usize::from(two[1] % 16));
    random.as_chunks().0.iter().flat_map(run).chain(std::iter::repeat(0)).take(n).collect()
}

const SIZES: [(u32, u32); 9] = [(1, 1), (2, 1), (1, 9), (3, 2), (5, 11), (33, 17), (64, 8), (127, 30), (661, 37)];

#[test]
fn every_format_size_and_content_comes_back() {
    for format in Format::all() {
        for (width, height) in SIZES {
            let picture = picture(format, width, height);
            for (name, frame) in contents(&picture, format, width, height) {
                for tier in [Tier::Fast, Tier::Dense] {
                    let stream = encode(&picture, &frame, None, tier);
                    assert!(decode(&picture, &stream, None) == Ok(frame.clone()), "{picture} {name} {tier:?}");
                }
            }
        }
    }
}

/// Rows of which eight are more than a stripe usually has, and the last stripe is one.
#[test]
fn wide_rows_come_back() {
    let (width, height) = (8200, 9);
    for format in
        [Format::Grey, Format::Yuyv, Format::Nv12, Format::Rg24, Format::Xr24, Format::Srggb8, Format::Srggb12]
    {
        let picture = picture(format, width, height);
        for (name, frame) in contents(&picture, format, width, height) {
            let stream = encode(&picture, &frame, None, Tier::Fast);
            assert!(decode(&picture, &stream, None) == Ok(frame), "{picture} {name}");
        }
        let frame = natural(format, width, height, 21);
        let stream = encode(&picture, &frame, None, Tier::Dense);
        assert!(decode(&picture, &stream, None) == Ok(frame), "{picture} dense");
    }
}

#[test]
fn every_format_comes_back_by_its_reference() {
    for format in Format::all() {
        let picture = picture(format, 133, 29);
        let base = natural(format, 133, 29, 3);
        let reference = Reference::new(&picture, Rows::Packed(&base)).unwrap();
        for frame in [base.clone(), natural(format, 133, 29, 4), noise(base.len(), 5)] {
            for tier in [Tier::Fast, Tier::Dense] {
                let stream = encode(&picture, &frame, Some(&reference), tier);
                assert!(decode(&picture, &stream, Some(&reference)) == Ok(frame.clone()), "{format} {tier:?}");
            }
        }
        let same = encode(&picture, &base, Some(&reference), Tier::Fast).len();
        let alone = encode(&picture, &base, None, Tier::Fast).len();
        assert!(same * 4 < alone, "{format}: the reference itself takes {same} bytes, {alone} without it");
    }
}

#[test]
fn stream_with_another_reference_is_refused() {
    let picture = picture(Format::Nv12, 64, 32);
    let frame = natural(Format::Nv12, 64, 32, 1);
    let reference = |seed| Reference::new(&picture, Rows::Packed(&natural(Format::Nv12, 64, 32, seed))).unwrap();
    let (right, wrong) = (reference(2), reference(3));
    let stream = encode(&picture, &frame, Some(&right), Tier::Fast);
    let needed = right.id();
    assert_eq!(decode(&picture, &stream, None), Err(DecodeError::Reference { needed, given: None }));
    let given = Some(wrong.id());
    assert_eq!(decode(&picture, &stream, Some(&wrong)), Err(DecodeError::Reference { needed, given }));
    // One that needs none does not mind.
    let alone = encode(&picture, &frame, None, Tier::Fast);
    assert_eq!(decode(&picture, &alone, Some(&wrong)), Ok(frame));
}

#[test]
fn reference_of_another_picture_is_refused() {
    let (small, large) = (picture(Format::Grey, 8, 8), picture(Format::Grey, 8, 9));
    let reference = Reference::new(&small, Rows::Packed(&[0; 64])).unwrap();
    let mut out = vec![1, 2];
    let result = Encoder::new(1).encode(&large, Rows::Packed(&[0; 72]), Some(&reference), Tier::Fast, &mut out);
    let (expected, given) = ("GREY 8x9".to_owned(), "GREY 8x8".to_owned());
    assert_eq!(result, Err(EncodeError::Reference { expected, given }));
    assert_eq!(out, [1, 2]);
}

#[test]
fn buffers_with_padding_come_back_without_it_being_touched() {
    for format in Format::all() {
        let tight = Layout::linear(format, 131, 45, 1).unwrap();
        let wide = Layout::linear(format, 131, 45, 256).unwrap();
        let picture = Picture::of(&tight).unwrap();
        assert_eq!(picture, Picture::of(&wide).unwrap());
        let frame = natural(format, 131, 45, 7);
        let account = Ledger::default().account("codec", Reason::Transfer);
        let mut buffer = Memfd::new("codec").allocate(&wide).unwrap();
        let mut from_packed = Vec::new();
        let (mut encoder, mut decoder) = (Encoder::new(2), Decoder::new(2));
        encoder.encode(&picture, Rows::Packed(&frame), None, Tier::Fast, &mut from_packed).unwrap();
        {
            let mut guard = buffer.write().unwrap();
            decoder.decode(&picture, &from_packed, None, RowsMut::Guard(&mut guard, &account)).unwrap();
        }
        assert_eq!(account.bytes(), frame.len() as u64);
        let mut from_buffer = Vec::new();
        let guard = buffer.read().unwrap();
        encoder.encode(&picture, Rows::Guard(&guard, &account), None, Tier::Fast, &mut from_buffer).unwrap();
        assert!(from_buffer == from_packed, "{format}");
        assert_eq!(account.bytes(), 2 * frame.len() as u64);
    }
}

#[test]
fn buffer_of_another_picture_is_refused() {
    let layout = Layout::linear(Format::Nv12, 16, 16, 1).unwrap();
    let mut buffer = Memfd::new("codec").allocate(&layout).unwrap();
    let account = Ledger::default().account("codec", Reason::Transfer);
    let other = picture(Format::Grey, 16, 24);
    let error = WrongRows::Buffer { expected: "GREY 16x24".to_owned(), given: "NV12 16x16".to_owned() };
    let stream = encode(&other, &[0; 16 * 24], None, Tier::Fast);
    let result = {
        let mut guard = buffer.write().unwrap();
        Decoder::new(1).decode(&other, &stream, None, RowsMut::Guard(&mut guard, &account))
    };
    assert_eq!(result, Err(error.clone().into()));
    let guard = buffer.read().unwrap();
    let mut out = Vec::new();
    let result = Encoder::new(1).encode(&other, Rows::Guard(&guard, &account), None, Tier::Fast, &mut out);
    assert_eq!(result, Err(error.into()));
}

#[test]
fn threads_make_no_difference() {
    let picture = picture(Format::Yuyv, 640, 480);
    let frame = natural(Format::Yuyv, 640, 480, 9);
    let one = encode(&picture, &frame, None, Tier::Dense);
    let mut encoder = Encoder::new(3);
    let mut decoder = Decoder::new(3);
    for _ in 0..20 {
        let mut stream = Vec::new();
        encoder.encode(&picture, Rows::Packed(&frame), None, Tier::Dense, &mut stream).unwrap();
        assert!(stream == one);
        let mut back = vec![0; frame.len()];
        decoder.decode(&picture, &stream, None, RowsMut::Packed(&mut back)).unwrap();
        assert!(back == frame);
    }
}

#[test]
fn any_flipped_bit_is_found() {
    for format in [Format::Nv12, Format::Srggb12] {
        let picture = picture(format, 24, 10);
        let frame = natural(format, 24, 10, 11);
        let stream = encode(&picture, &frame, None, Tier::Dense);
        for bit in 0..stream.len() * 8 {
            let mut damaged = stream.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&picture, &damaged, None).is_err(), "{format} bit {bit}");
        }
    }
}

#[test]
fn damaged_stripe_is_named() {
    let picture = picture(Format::Yuyv, 640, 480);
    let stripes = picture.stripes();
    let mut stream = encode(&picture, &natural(Format::Yuyv, 640, 480, 12), None, Tier::Fast);
    *stream.last_mut().unwrap() ^= 1;
    let error = DecodeError::Stripe { stripe: stripes - 1, what: "its checksum is wrong" };
    assert_eq!(decode(&picture, &stream, None), Err(error));
}

#[test]
fn stream_cut_or_extended_anywhere_is_found() {
    let picture = picture(Format::Yu12, 21, 13);
    let stream = encode(&picture, &natural(Format::Yu12, 21, 13, 13), None, Tier::Dense);
    for len in 0..stream.len() {
        let error = decode(&picture, &stream[..len], None).unwrap_err();
        assert!(matches!(error, DecodeError::Truncated { given, needed } if given == len && needed > len), "{error}");
    }
    let longer = [stream.as_slice(), &[0]].concat();
    let error = DecodeError::Trailing { given: longer.len(), needed: stream.len() };
    assert_eq!(decode(&picture, &longer, None), Err(error));
}

#[test]
fn stream_of_another_picture_or_version_is_refused() {
    let (one, other) = (picture(Format::Yuyv, 16, 16), picture(Format::Uyvy, 16, 16));
    let mut stream = encode(&one, &[3; 512], None, Tier::Fast);
    assert_eq!(decode(&other, &stream, None), Err(DecodeError::Picture));
    stream[3] = 9;
    assert_eq!(decode(&one, &stream, None), Err(DecodeError::Header { known: 1, start: *b"TMF\x09" }));
}

#[test]
fn regions_are_crops_of_the_whole() {
    for format in [Format::Grey, Format::Yuyv, Format::Nv12, Format::Yu12, Format::Rg24, Format::Srggb10] {
        let (width, height) = (501, 301);
        let picture = picture(format, width, height);
        let frame = natural(format, width, height, 17);
        let stream = encode(&picture, &frame, None, Tier::Dense);
        let mut random = Random(18);
        let mut below = |n: u32| (random.next() % u64::from(n)) as u32;
        for _ in 0..20 {
            let (x, y) = (below(width), below(height));
            let region = Region { x, y, width: 1 + below(width - x), height: 1 + below(height - y) };
            let mut expected = Vec::new();
            let mut start = 0;
            for s in format.planes() {
                let row = (width.div_ceil(s.hsub) * s.bytes) as usize;
                let columns = (x / s.hsub * s.bytes) as usize..((x + region.width).div_ceil(s.hsub) * s.bytes) as usize;
                for y in y / s.vsub..(y + region.height).div_ceil(s.vsub) {
                    expected.extend_from_slice(&frame[start + row * y as usize..][columns.clone()]);
                }
                start += row * height.div_ceil(s.vsub) as usize;
            }
            let mut part = vec![0; picture.region_bytes(region)];
            Decoder::new(1).decode_region(&picture, &stream, None, region, &mut part).unwrap();
            assert!(part == expected, "{format} {region:?}");
        }
    }
}

#[test]
fn region_minds_only_its_own_stripes() {
    let picture = picture(Format::Grey, 1024, 256);
    let mut stream = encode(&picture, &natural(Format::Grey, 1024, 256, 19), None, Tier::Fast);
    *stream.last_mut().unwrap() ^= 1;
    let decode = |y| {
        let region = Region { x: 0, y, width: 1, height: 1 };
        Decoder::new(1).decode_region(&picture, &stream, None, region, &mut [0])
    };
    assert_eq!(decode(0), Ok(()));
    assert!(decode(255).is_err());
}

#[test]
fn region_outside_or_of_wrong_size_is_refused() {
    let picture = picture(Format::Grey, 8, 8);
    let stream = encode(&picture, &[0; 64], None, Tier::Fast);
    let decode = |x, width, room: &mut [u8]| {
        Decoder::new(1).decode_region(&picture, &stream, None, Region { x, y: 0, width, height: 1 }, room)
    };
    for (x, width) in [(0, 9), (8, 1), (0, 0), (u32::MAX, 2)] {
        assert!(matches!(decode(x, width, &mut [0; 9]), Err(DecodeError::Region { .. })), "{x} {width}");
    }
    assert_eq!(decode(0, 4, &mut [0; 5]), Err(WrongRows::Size { expected: 4, given: 5 }.into()));
}

#[test]
fn noise_grows_by_less_than_one_percent() {
    for format in Format::all() {
        let picture = picture(format, 400, 300);
        let frame = noise(picture.bytes(), 23);
        let stream = encode(&picture, &frame, None, Tier::Dense);
        assert!(stream.len() * 100 <= frame.len() * 101, "{picture}: {} of {}", stream.len(), frame.len());
    }
}

#[test]
fn dense_is_never_larger_and_smaller_where_it_matters() {
    for format in Format::all() {
        for (width, height) in [(5, 11), (127, 30), (400, 300)] {
            let picture = picture(format, width, height);
            for (name, frame) in contents(&picture, format, width, height) {
                let [fast, dense] = [Tier::Fast, Tier::Dense].map(|tier| encode(&picture, &frame, None, tier).len());
                assert!(dense <= fast, "{picture} {name}: {dense} of {fast}");
                // By a tenth of a bit a sample at least.
                let samples = picture.bytes() / if format.bits() > 8 { 2 } else { 1 };
                let large = width == 400 && name == "natural";
                assert!(!large || (fast - dense) * 8 * 10 > samples, "{picture} {name}: {dense} of {fast}");
            }
        }
    }
}

#[test]
fn flat_pictures_shrink_to_almost_nothing() {
    let picture = picture(Format::Nv12, 1920, 1080);
    let stream = encode(&picture, &vec![128; picture.bytes()], None, Tier::Fast);
    assert!(picture.bytes() > 200 * stream.len(), "{} of {}", stream.len(), picture.bytes());
}

#[test]
fn noisy_pictures_come_near_the_bound() {
    // Gaussian noise of deviation s in every sample: no code needs less than log2(4.13 s) bits; predicting from noisy
    // neighbours alone costs at least 0.2 bits more, Rice codes 0.1 to 0.2.
    let picture = picture(Format::Grey, 1280, 720);
    let frame = natural(Format::Grey, 1280, 720, 29);
    let bits = 8.0 * encode(&picture, &frame, None, Tier::Fast).len() as f64 / frame.len() as f64;
    let bound = (4.13f64 * 0.02 * 255.0).log2();
    assert!(bits > bound && bits < bound + 0.6, "{bits} bits a sample, the bound is {bound}");
}
