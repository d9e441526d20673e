//! Whether a run of thousands of frames grows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use nix::sys::prctl::set_thp_disable;

use crate::{Footprint, Watch, heap};

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

/// Bytes of the heap that may be on their way at any time. Of a single byte that is lost with each of ten thousand frames
/// there are more at the end.
const ON_ITS_WAY: usize = 2048;

/// What stacks, and the heaps of libraries in C, may come to use more in a run, in KiB: less than 9 bytes for each of ten
/// thousand frames.
const SETTLES: u64 = 64;

/// What was seen so far. It does not itself grow.
#[derive(Default)]
struct Seen {
    frames: u64,
    early: Option<Footprint>,
    late: Option<Footprint>,
    /// After each tenth, in KiB.
    memory: [u64; TENTHS],
    /// After each tenth, in bytes.
    heap: [usize; TENTHS],
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
        // The kernel looks every ten seconds for two aligned mebibytes of which a page is in use, as a heap has them that
        // once was larger, and makes one huge page of them: memory grows by 2 MiB, though nobody asked for any.
        set_thp_disable(true).expect("every Linux has it");
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
        // A little sooner than after each: a source that has sent its last frame is gone before that has arrived.
        let tenth = (self.frames - self.frames / 50) / TENTHS as u64;
        if !seen.frames.is_multiple_of(tenth) || seen.tenths == TENTHS {
            return;
        }
        let at = seen.tenths;
        seen.tenths += 1;
        seen.heap[at] = heap::in_use();
        // After the heap has been looked at, for what is noted here is of it.
        match seen.tenths {
            1 => seen.early = Some(Footprint::now()),
            TENTHS => seen.late = Some(Footprint::now()),
            _ => {}
        }
        // Last, when looking at the rest has taken what it takes.
        seen.memory[at] = memory();
    }

    /// Panics where there is more at the end than early on, but for descriptors that are on their way at any time.
    pub fn assert_none(&self, on_their_way: usize) {
        let memory = self.kept(on_their_way);
        assert!(memory[TENTHS - 1] <= memory[1] + SETTLES, "KiB after each tenth: {memory:?}");
    }

    /// As [`Growth::assert_none`], beside a library whose caches grow for some time, and then now and again.
    pub fn assert_none_but_caches(&self, on_their_way: usize) {
        let memory = self.kept(on_their_way);
        // What is lost with each frame is lost in every stretch.
        let stretches = memory[TENTHS / 2 - 1..].windows(2);
        let flat = stretches.clone().filter(|pair| pair[1] <= pair[0]).count();
        assert!(flat * 2 >= stretches.len(), "KiB after each tenth: {memory:?}");
    }

    /// Panics where there is more at the end than early on, but of memory. Gives that after each tenth, in KiB.
    fn kept(&self, on_their_way: usize) -> [u64; TENTHS] {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.tenths, TENTHS, "only {} frames of {} were seen", seen.frames, self.frames);
        let (Some(was), Some(is)) = (&seen.early, &seen.late) else { panic!("nothing was noted") };
        let count = |f: &Footprint| f.descriptors.values().sum::<usize>();
        assert!(
            count(is) <= count(was) + on_their_way,
            "descriptors: {:?}, then {:?}",
            was.descriptors,
            is.descriptors
        );
        let rest = |f: &Footprint| Footprint { descriptors: BTreeMap::new(), ..f.clone() };
        assert_eq!(rest(is), rest(was));
        let heap = seen.heap;
        println!("bytes of the heap after each tenth of {} frames: {heap:?}", seen.frames);
        println!("KiB after each tenth: {:?}", seen.memory);
        assert!(heap[TENTHS - 1] <= heap[1] + ON_ITS_WAY, "bytes of the heap after each tenth: {heap:?}");
        seen.memory
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::panic::catch_unwind;

    use super::*;

    /// What is said of a run in which `each` is called for each frame.
    fn said(frames: u64, mut each: impl FnMut()) -> String {
        let growth = Growth::over(frames);
        for _ in 0..frames {
            each();
            growth.frame();
        }
        let said = catch_unwind(|| growth.assert_none(0)).err();
        said.map(|panic| *panic.downcast::<String>().unwrap()).unwrap_or_default()
    }

    // One test, for whatever else runs in this process allocates.
    #[test]
    fn what_is_lost_with_each_frame_is_growth() {
        assert_eq!(said(1000, || drop(vec![0_u8; 100])), "");
        let byte = said(10_000, || std::mem::forget(std::hint::black_box(Box::new(1_u8))));
        assert!(byte.contains("bytes of the heap"), "{byte}");
        let mut open = Vec::with_capacity(100);
        let descriptor = said(100, || open.push(File::open("/dev/null").unwrap()));
        assert!(descriptor.contains("descriptors"), "{descriptor}");
    }
}
