//! Ratio and speed of the codec on raw frames, on one core, by the time that the processor worked on it, in each way that
//! this processor can run it.
//!
//! `cargo run --release -p tmem-cache --example codec_speed -- YUYV 1280 720 frames.raw…`

use nix::time::{ClockId, clock_gettime};
use shrbuf::{Format, Layout};
use tmem_cache::codec::{Picture, ReferenceBuilder, Rows, RowsMut, Tier, fuzzing};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("FORMAT WIDTH HEIGHT FILE…");
    let (format, width, height) = (next()?.parse::<Format>()?, next()?.parse()?, next()?.parse()?);
    let picture = Picture::of(&Layout::linear(format, width, height, 1)?)?;
    let files: Vec<String> = args.collect();
    let ways = files.iter().flat_map(|file| fuzzing::ways().map(move |way| (file, way)));
    for (file, (way, mut encoder, mut decoder)) in ways {
        let bytes = std::fs::read(file)?;
        let frames: Vec<&[u8]> = bytes.chunks_exact(picture.bytes()).collect();
        let mut reference = ReferenceBuilder::new(&picture);
        frames.iter().try_for_each(|f| reference.add(Rows::Packed(f)))?;
        let reference = reference.build();
        let tiers = [Tier::Fast, Tier::Dense].into_iter().flat_map(|t| [(t, None), (t, reference.as_ref())]);
        for (tier, reference) in tiers {
            let (mut stream, mut back) = (Vec::new(), vec![0; picture.bytes()]);
            let (mut best_in, mut best_out, mut coded) = (f64::MAX, f64::MAX, 0);
            for _ in 0..20 {
                coded = 0;
                for frame in &frames {
                    stream.clear();
                    let start = worked()?;
                    coded += encoder.encode(&picture, Rows::Packed(frame), reference, tier, &mut stream)?.bytes_out;
                    best_in = best_in.min(worked()? - start);
                    let start = worked()?;
                    decoder.decode(&picture, &stream, reference, RowsMut::Packed(&mut back))?;
                    best_out = best_out.min(worked()? - start);
                    assert_eq!(back, *frame);
                }
            }
            let ratio = (frames.len() * picture.bytes()) as f64 / coded as f64;
            let speed = |seconds: f64| picture.bytes() as f64 / seconds / 1e9;
            let with = if reference.is_some() { "with a reference" } else { "alone" };
            println!("{file} {way} {tier:?} {with}: {ratio:.3}, {:.2} and {:.2} GB/s", speed(best_in), speed(best_out));
        }
    }
    Ok(())
}

/// Seconds that this thread has run. Other programs on the same core do not count, as they would in a frame's time.
fn worked() -> nix::Result<f64> {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(now.tv_sec() as f64 + now.tv_nsec() as f64 / 1e9)
}
