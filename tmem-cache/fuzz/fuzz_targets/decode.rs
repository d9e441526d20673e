//! Any bytes as a stream of any picture, with and without a reference, whole and by regions: an error or a picture, never
//! anything else, and the same one on every processor. Checksums are mended, so that the fuzzer gets behind them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tmem_cache::codec::{Decoder, RowsMut, fuzzing};

#[path = "../shape.rs"]
mod shape;

fuzz_target!(|data: &[u8]| {
    let Some(shape::Shape { picture, reference, whole: all, region, rest }) = shape::of(data) else { return };
    let reference = reference.as_ref();
    let mut stream = rest.to_vec();
    fuzzing::mend(&picture, reference, &mut stream);
    let mut frame = vec![0; picture.bytes()];
    let mut decoder = Decoder::new(1);
    let whole = decoder.decode(&picture, &stream, reference, RowsMut::Packed(&mut frame));
    for (way, _, mut other) in fuzzing::ways() {
        let mut same = vec![0; picture.bytes()];
        assert_eq!(other.decode(&picture, &stream, reference, RowsMut::Packed(&mut same)), whole, "{way}");
        assert!(whole.is_err() || same == frame, "{way}");
    }
    let mut part = vec![0; picture.region_bytes(region)];
    let of_region = decoder.decode_region(&picture, &stream, reference, region, &mut part);
    assert!(of_region.is_ok() || whole.is_err(), "{of_region:?}");
    let mut again = vec![0; picture.bytes()];
    assert_eq!(decoder.decode_region(&picture, &stream, reference, all, &mut again).is_ok(), whole.is_ok());
    assert!(whole.is_err() || again == frame);
});
