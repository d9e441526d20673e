//! Any samples of any picture come back, with and without a reference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tmem_cache::codec::{Decoder, Encoder, Reference, Rows, RowsMut, Tier};

#[path = "../shape.rs"]
mod shape;

fuzz_target!(|data: &[u8]| {
    let Some((picture, rest)) = shape::picture(data) else { return };
    // The input over and over: as much as the picture has.
    let frame: Vec<u8> = rest.iter().copied().chain([0]).cycle().take(picture.bytes()).collect();
    let near: Vec<u8> = frame.iter().map(|v| v.wrapping_add(v & 3)).collect();
    let Ok(reference) = Reference::new(&picture, Rows::Packed(&near)) else { unreachable!("it has the picture's size") };
    let tiers = [Tier::Fast, Tier::Dense].into_iter();
    for (tier, reference) in tiers.flat_map(|tier| [(tier, None), (tier, Some(&reference))]) {
        let mut stream = Vec::new();
        let encoded = Encoder::new(1).encode(&picture, Rows::Packed(&frame), reference, tier, &mut stream);
        assert!(encoded.is_ok());
        let mut back = vec![0; frame.len()];
        let decoded = Decoder::new(1).decode(&picture, &stream, reference, RowsMut::Packed(&mut back));
        assert_eq!(decoded, Ok(()));
        assert_eq!(back, frame);
    }
});
