//! Any samples of any picture come back, with and without a reference, and every processor makes the same stream of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tmem_cache::codec::{Decoder, Encoder, Rows, RowsMut, Tier, fuzzing};

#[path = "../shape.rs"]
mod shape;

fuzz_target!(|data: &[u8]| {
    let Some(shape::Shape { picture, reference, rest, .. }) = shape::of(data) else { return };
    let reference = reference.as_ref();
    // The input over and over: as much as the picture has.
    let frame: Vec<u8> = rest.iter().copied().chain([0]).cycle().take(picture.bytes()).collect();
    for tier in [Tier::Fast, Tier::Dense] {
        let mut stream = Vec::new();
        let encoded = Encoder::new(1).encode(&picture, Rows::Packed(&frame), reference, tier, &mut stream);
        assert!(encoded.is_ok());
        for (way, mut other, _) in fuzzing::ways() {
            let mut same = Vec::new();
            assert_eq!(other.encode(&picture, Rows::Packed(&frame), reference, tier, &mut same), encoded, "{way}");
            assert!(same == stream, "{way}");
        }
        let mut back = vec![0; frame.len()];
        let decoded = Decoder::new(1).decode(&picture, &stream, reference, RowsMut::Packed(&mut back));
        assert_eq!(decoded, Ok(()));
        assert_eq!(back, frame);
    }
});
