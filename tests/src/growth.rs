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
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find(|l| l.starts_with("RssAnon")).unwrap_or_default();
        let memory = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("the kernel's word on memory");
        Noted { footprint, memory }
    }
}

/// What a run has after its first tenth, and at its last frame.
#[derive(Clone)]
pub struct Growth {
    frames: u64,
    seen: Arc<Mutex<(u64, Vec<Noted>)>>,
}

impl Growth {
    /// Memory that may come and go, in KiB: some pages of the allocator's and of the threads' stacks.
    const PAGES: u64 = 64;

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
        if seen.0 == self.frames / 10 || seen.0 == self.frames {
            let now = Noted::now();
            seen.1.push(now);
        }
    }

    /// Panics where there is more at the end than early on, but for descriptors that are on their way at any time.
    pub fn assert_none(&self, on_their_way: usize) {
        let seen = self.seen.lock().unwrap();
        let (frames, [early, late]) = (seen.0, &seen.1[..]) else { panic!("only {} frames were seen", seen.0) };
        let (was, is) = (&early.footprint, &late.footprint);
        let count = |f: &Footprint| f.descriptors.values().sum::<usize>();
        assert!(
            count(is) <= count(was) + on_their_way,
            "descriptors: {:?}, then {:?}",
            was.descriptors,
            is.descriptors
        );
        assert_eq!((&is.dma_bufs, is.mappings), (&was.dma_bufs, was.mappings));
        let most = early.memory + Growth::PAGES;
        assert!(late.memory <= most, "{} KiB, then {} KiB at frame {frames}", early.memory, late.memory);
        println!("{frames} frames: {} KiB, then {} KiB", early.memory, late.memory);
    }
}
