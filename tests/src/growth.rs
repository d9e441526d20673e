//! Whether a run of thousands of frames grows.

use std::sync::{Arc, Mutex};

use crate::{Footprint, Watch};

/// What a process has at some frame.
#[derive(Debug)]
struct Noted {
    footprint: Footprint,
    /// Memory of its own in KiB: without that of files, of whose code ever more is mapped as it is first called.
    memory: u64,
}

impl Noted {
    fn now() -> Noted {
        // First, so that what looking at it takes has been allocated once.
        let footprint = Footprint::now();
        // The numbers in /proc/self/status are off by up to 32 pages for each CPU; these are counted page by page.
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
        let line = rollup.lines().find(|l| l.starts_with("Anonymous:")).unwrap_or_default();
        let memory = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("the kernel's word on memory");
        Noted { footprint, memory }
    }
}

/// What a run has after each tenth of it.
#[derive(Clone)]
pub struct Growth {
    frames: u64,
    seen: Arc<Mutex<(u64, Vec<Noted>)>>,
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
        seen.0 += 1;
        if seen.0.is_multiple_of(self.frames / 10) {
            let now = Noted::now();
            seen.1.push(now);
        }
    }

    /// Panics where there is more at the end than early on, but for descriptors that are on their way at any time.
    pub fn assert_none(&self, on_their_way: usize) {
        let seen = self.seen.lock().unwrap();
        let (frames, [early, .., late]) = (seen.0, &seen.1[..]) else { panic!("only {} frames were seen", seen.0) };
        let (was, is) = (&early.footprint, &late.footprint);
        let count = |f: &Footprint| f.descriptors.values().sum::<usize>();
        assert!(
            count(is) <= count(was) + on_their_way,
            "descriptors: {:?}, then {:?}",
            was.descriptors,
            is.descriptors
        );
        assert_eq!((&is.dma_bufs, is.mappings), (&was.dma_bufs, was.mappings));
        // What is lost with each frame is lost in every stretch; what the allocator takes for good it takes in some.
        let memory: Vec<u64> = seen.1.iter().map(|n| n.memory).collect();
        let flat = memory.windows(2).filter(|pair| pair[1] <= pair[0]).count();
        assert!(flat * 2 >= memory.len() - 1, "KiB after each tenth of {frames} frames: {memory:?}");
        println!("KiB after each tenth of {frames} frames: {memory:?}");
    }
}
