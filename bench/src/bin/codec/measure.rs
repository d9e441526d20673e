//! Running codecs by turns, on one core.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use shrbuf_bench::Result;
use shrbuf_bench::sets::Set;

use crate::codecs::Codec;
use crate::{EARLIER, FRAMES, ROUNDS};

/// What was measured of one codec on one set.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Bytes of the frames.
    pub bytes: f64,
    /// Bytes of what they were compressed to.
    pub compressed: f64,
    /// Seconds: of each frame the least over all rounds, added up.
    pub compress: f64,
    /// The same.
    pub decompress: f64,
}

impl Cost {
    /// How many times smaller.
    pub fn ratio(&self) -> f64 {
        self.bytes / self.compressed
    }

    /// GB/s of frames.
    pub fn compress_speed(&self) -> f64 {
        self.bytes / self.compress / 1e9
    }

    /// GB/s of frames.
    pub fn decompress_speed(&self) -> f64 {
        self.bytes / self.decompress / 1e9
    }

    /// Both.
    pub fn add(&mut self, other: &Cost) {
        self.bytes += other.bytes;
        self.compressed += other.compressed;
        self.compress += other.compress;
        self.decompress += other.decompress;
    }

    /// For the JSON file.
    pub fn to_json(self) -> Value {
        json!({
            "ratio": self.ratio(), "compress_gb_per_s": self.compress_speed(),
            "decompress_gb_per_s": self.decompress_speed(),
        })
    }
}

/// What all codecs came to on one set, by their names.
pub struct OfSet {
    /// The set.
    pub set: Set,
    /// In the order of their names.
    pub costs: BTreeMap<String, Cost>,
}

/// Binds this process to the last CPU that it may use: on most machines the one with the fewest interrupts.
///
/// # Errors
/// The kernel refuses.
pub fn pin() -> Result<usize> {
    // SAFETY: a set of bits that the calls fill in and read, with its true size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let size = size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, size, &mut set) != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        let cpu =
            (0..libc::CPU_SETSIZE as usize).rev().find(|&c| libc::CPU_ISSET(c, &set)).ok_or("no CPU to run on")?;
        libc::CPU_ZERO(&mut set);
        libc::CPU_SET(cpu, &mut set);
        if libc::sched_setaffinity(0, size, &set) != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(cpu)
    }
}

/// Every codec that takes the set, by turns: all of them once, then all of them again, so that what disturbs the machine
/// disturbs them alike. Every round trip of the first round is compared byte by byte.
///
/// # Errors
/// A codec fails, or gives back something else than it got.
pub fn measure(codecs: &mut [Box<dyn Codec>], folder: &Path, set: &Set) -> Result<OfSet> {
    let frames = set.read(folder, EARLIER + FRAMES)?;
    // Short sets are measured as a whole.
    let (earlier, frames) = frames.split_at(if frames.len() > EARLIER { EARLIER } else { 0 });
    let mut costs = BTreeMap::new();
    let mut of_codecs: Vec<(&mut Box<dyn Codec>, Vec<Cost>)> = Vec::new();
    for codec in codecs.iter_mut().filter(|c| c.takes(set)) {
        codec.load(set, frames, earlier).map_err(|why| format!("{} on {}: {why}", codec.name(), set.name()))?;
        of_codecs.push((codec, vec![Cost::default(); frames.len()]));
    }
    for round in 0..ROUNDS {
        for (codec, of_frames) in &mut of_codecs {
            for (n, (frame, cost)) in frames.iter().zip(of_frames.iter_mut()).enumerate() {
                let failed = |name: &str, why| format!("{name} on {}, frame {n}: {why}", set.name());
                let begin = Instant::now();
                let compressed = codec.compress(n).map_err(|why| failed(codec.name(), why))?;
                let between = Instant::now();
                codec.decompress(n).map_err(|why| failed(codec.name(), why))?;
                let end = Instant::now();
                let (compress, decompress) = ((between - begin).as_secs_f64(), (end - between).as_secs_f64());
                if round == 0 {
                    if codec.restored()? != *frame {
                        return Err(failed(codec.name(), "gives back another frame".into()).into());
                    }
                    let (bytes, compressed) = (frame.len() as f64, compressed as f64);
                    *cost = Cost { bytes, compressed, compress, decompress };
                } else {
                    cost.compress = cost.compress.min(compress);
                    cost.decompress = cost.decompress.min(decompress);
                }
            }
        }
    }
    for (codec, of_frames) in of_codecs {
        let mut sum = Cost::default();
        of_frames.iter().for_each(|cost| sum.add(cost));
        costs.insert(codec.name().to_owned(), sum);
    }
    Ok(OfSet { set: set.clone(), costs })
}
