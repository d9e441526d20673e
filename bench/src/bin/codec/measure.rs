//! Running codecs by turns, on one core.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use shrbuf_bench::Result;
use shrbuf_bench::sets::Set;

use crate::codecs::Codec;
use crate::{EARLIER, FRAMES, LONG, ROUNDS};

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
    /// Of those that did what they should.
    pub costs: BTreeMap<String, Cost>,
    /// What went wrong with the others.
    pub failures: Vec<String>,
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
/// disturbs them alike. Every round trip of the first round is compared byte by byte. A codec that fails is left out.
///
/// # Errors
/// The set cannot be read.
pub fn measure(codecs: &mut [Box<dyn Codec>], folder: &Path, set: &Set) -> Result<OfSet> {
    let frames = set.read(folder, EARLIER + FRAMES)?;
    // Short sets are measured as a whole.
    let (earlier, frames) = frames.split_at(if frames.len() > EARLIER { EARLIER } else { 0 });
    let mut failures = Vec::new();
    let mut running: Vec<(&mut Box<dyn Codec>, Vec<Cost>)> = Vec::new();
    for codec in codecs.iter_mut().filter(|c| c.takes(set)) {
        match codec.load(set, frames, earlier) {
            Ok(()) => running.push((codec, Vec::new())),
            Err(why) => failures.push(format!("{} on {}: {why}", codec.name(), set.name())),
        }
    }
    for _ in 0..ROUNDS {
        running.retain_mut(|(codec, costs)| match run(codec.as_mut(), frames, costs) {
            Ok(()) => true,
            Err(why) => {
                failures.push(format!("{} on {}: {why}", codec.name(), set.name()));
                false
            }
        });
    }
    let mut costs = BTreeMap::new();
    for (codec, of_frames) in running {
        let mut sum = Cost::default();
        of_frames.iter().for_each(|cost| sum.add(cost));
        costs.insert(codec.name().to_owned(), sum);
    }
    Ok(OfSet { set: set.clone(), costs, failures })
}

/// All frames once, unless that takes long and was done; `costs` is empty in the first round, which is the verified one.
fn run(codec: &mut dyn Codec, frames: &[Vec<u8>], costs: &mut Vec<Cost>) -> Result<()> {
    if costs.iter().map(|cost| cost.compress + cost.decompress).sum::<f64>() > LONG {
        return Ok(());
    }
    for (n, frame) in frames.iter().enumerate() {
        let begin = Instant::now();
        let compressed = codec.compress(n)?;
        let between = Instant::now();
        codec.decompress(n)?;
        let end = Instant::now();
        let (compress, decompress) = ((between - begin).as_secs_f64(), (end - between).as_secs_f64());
        if let Some(cost) = costs.get_mut(n) {
            cost.compress = cost.compress.min(compress);
            cost.decompress = cost.decompress.min(decompress);
            continue;
        }
        if codec.restored()? != *frame {
            return Err(format!("frame {n} came back as another").into());
        }
        costs.push(Cost { bytes: frame.len() as f64, compressed: compressed as f64, compress, decompress });
    }
    Ok(())
}
