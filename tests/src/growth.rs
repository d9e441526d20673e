//! Whether a run of thousands of frames grows.

use std::sync::{Arc, Mutex};

use crate::{Footprint, Watch};

/// Memory of this process's own in KiB: without that of files, of whose code ever more is mapped as it is first called.
fn memory() -> u64 {
    // The numbers in /proc/self/status are off by up to 32 pages for each CPU; these are counted page by page.
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find(|l| l.starts_with("Anonymous:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("the kernel's word on memory")
}

/// How many frames a run for growth has: `usual`, which `make test` has time for, or as many as the variable
/// SHRBUF_ENDURANCE says.
pub fn frames(usual: u64) -> u64 {
    std::env::var("SHRBUF_ENDURANCE").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

const TENTHS: usize = 10;

/// What a heap grows by, in KiB. Of the smallest allocation, lost with each of 250 frames, it takes two.
const PAGE: u64 = 4;

/// What was seen so far. It does not itself grow.
#[derive(Default)]
struct Seen {
    frames: u64,
    early: Option<Footprint>,
    late: Option<Footprint>,
    /// After each tenth, in KiB.
    memory: [u64; TENTHS],
    tenths: usize,
}

/// What a run has after each tenth of it.
#[derive(Clone)]
pub struct Growth {
    frames: u64,
    seen: Arc<Mutex<Seen>>,
}

impl Growth {
    /// Of a run of so many frames.
    pub fn over(frames: u64) -> Growth {
        Growth { frames, seen: Arc::default() }
    }

    /// An element that counts the frames and notes when it is time.
    pub fn watch(&self) -> Box<Watch> {
        let this = self.clone();
        Watch::new(move |_| this.frame())
    }

    /// One more frame.
    pub fn frame(&self) {
        let mut seen = self.seen.lock().unwrap();
        seen.frames += 1;
        if !seen.frames.is_multiple_of(self.frames / TENTHS as u64) || seen.tenths == TENTHS {
            return;
        }
        let now = Footprint::now();
        if seen.early.is_none() {
            seen.early = Some(now);
        } else {
            seen.late = Some(now);
        }
        // Last, when looking at the rest has taken what it takes.
        let at = seen.tenths;
        seen.memory[at] = memory();
        seen.tenths += 1;
    }

    /// Panics where there is more at the end than early on, but for descriptors that are on their way at any time.
    pub fn assert_none(&self, on_their_way: usize) {
        let seen = self.seen.lock().unwrap();
        let frames = seen.frames;
        assert_eq!(seen.tenths, TENTHS, "only {frames} frames of {} were seen", self.frames);
        let (Some(was), Some(is)) = (&seen.early, &seen.late) else { panic!("nothing was noted") };
        let count = |f: &Footprint| f.descriptors.values().sum::<usize>();
        assert!(
            count(is) <= count(was) + on_their_way,
            "descriptors: {:?}, then {:?}",
            was.descriptors,
            is.descriptors
        );
        assert_eq!((&is.dma_bufs, is.mappings), (&was.dma_bufs, was.mappings));
        // What is lost with each frame is lost in every stretch; what the allocator takes for good it takes in some.
        let memory = &seen.memory;
        let flat = memory.windows(2).filter(|pair| pair[1] <= pair[0] + PAGE).count();
        println!("KiB after each tenth of {frames} frames: {memory:?}");
        assert!(flat * 2 >= TENTHS - 1, "KiB after each tenth of {frames} frames: {memory:?}");
    }
}
