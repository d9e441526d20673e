//! Any bytes as a stream of any picture: an error or a picture, never anything else. Checksums are mended, so that the
//! fuzzer gets behind them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tmem_cache::codec::{Decoder, RowsMut, fuzzing};

#[path = "../shape.rs"]
mod shape;

fuzz_target!(|data: &[u8]| {
    let Some((picture, rest)) = shape::picture(data) else { return };
    let mut stream = rest.to_vec();
    fuzzing::mend(&picture, &mut stream);
    let mut frame = vec![0; picture.bytes()];
    let _ = Decoder::new(1).decode(&picture, &stream, None, RowsMut::Packed(&mut frame));
});
