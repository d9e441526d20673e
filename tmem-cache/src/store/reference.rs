//! The memory of a shared reference: drawn stripe by stripe, then read only, gone with the last chunk that needs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::MmapMut;

use super::stats::{Counters, add, count, sub};
use crate::codec::reference::stripe_hash;
use crate::codec::{Picture, Reference};
use crate::sys::segment::Charge;

/// Bytes of a reference, counted as the store's and as the pool's.
#[derive(Debug)]
struct Cost {
    /// Ends with this.
    _charge: Charge,
    counters: Arc<Counters>,
    bytes: u64,
}

impl Drop for Cost {
    fn drop(&mut self) {
        sub(&self.counters.bytes_references, self.bytes);
    }
}

/// A reference in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    picture: Picture,
    samples: MmapMut,
    /// Of the stripes that are drawn, from the first on.
    hashes: Vec<u64>,
    cost: Cost,
}

/// What frames of a still scene are predicted from. Each chunk that is holds it.
#[derive(Debug)]
pub(crate) struct SharedReference {
    /// The picture itself.
    pub reference: Reference,
    damaged: AtomicBool,
    /// Ends with this.
    _cost: Cost,
}

impl Draft {
    /// Room for one, paid for with `charge`; `None` where the kernel has none.
    pub(crate) fn new(picture: &Picture, charge: Charge, counters: &Arc<Counters>) -> Option<Draft> {
        let bytes = picture.bytes();
        let samples = MmapMut::map_anon(bytes).ok()?;
        add(&counters.bytes_references, bytes as u64);
        let cost = Cost { _charge: charge, counters: counters.clone(), bytes: bytes as u64 };
        Some(Draft { picture: *picture, samples, hashes: Vec::with_capacity(picture.stripes()), cost })
    }

    /// The picture it will be of.
    pub(crate) fn picture(&self) -> &Picture {
        &self.picture
    }

    /// The stripe to be drawn next; `None` where all are.
    pub(crate) fn next(&self) -> Option<usize> {
        Some(self.hashes.len()).filter(|next| *next < self.picture.stripes())
    }

    /// Draws the next stripe, of which these are the packed samples.
    pub(crate) fn draw(&mut self, samples: &[u8]) {
        let stripe = self.picture.stripe(self.hashes.len());
        self.samples[stripe.bytes].copy_from_slice(samples);
        self.hashes.push(stripe_hash(samples));
    }

    /// The reference, once all stripes are drawn. From here on nobody writes it.
    pub(crate) fn finish(self) -> Option<SharedReference> {
        let Draft { picture, samples, hashes, cost } = self;
        let reference = Reference::mapped(&picture, samples.make_read_only().ok()?, hashes)?;
        count(&cost.counters.references);
        Some(SharedReference { reference, damaged: AtomicBool::new(false), _cost: cost })
    }
}

impl SharedReference {
    /// Some of it is not what it was: no new frame is to be predicted from it.
    pub(crate) fn set_damaged(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    /// True once that is known.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::chunk::hash;
    use super::super::*;
    use crate::codec::Region;
    use shrbuf::exporter::Memfd;
    use shrbuf::{Format, Layout, Ledger, Reason, Shrbuf};

    const LAYOUT: (u32, u32) = (640, 240);

    /// A frame of a still scene: detail, and noise that `seed` makes.
    fn frame(layout: &Layout, seed: u32) -> Shrbuf {
        let mut buffer = Memfd::new("test").allocate(layout).unwrap();
        let account = Ledger::default().account("test", Reason::Generate);
        let mut guard = buffer.write().unwrap();
        for y in 0..LAYOUT.1 {
            let noise = |x: u32, seed: u32| hash(&[x, y, seed].map(u32::to_le_bytes).concat()) as u8;
            let row: Vec<u8> = (0..LAYOUT.0).map(|x| (noise(x, 0) & 63) + (noise(x, seed) & 3)).collect();
            guard.plane(0).write(y as usize, 0, &row, &account);
        }
        drop(guard);
        buffer
    }

    /// Flips a bit of memory that is mapped for reading alone, as a fault of the machine would.
    fn flip(at: &u8) {
        use std::os::unix::fs::FileExt;
        let memory = std::fs::File::options().write(true).open("/proc/self/mem").unwrap();
        memory.write_all_at(&[*at ^ 1], std::ptr::from_ref(at).addr() as u64).unwrap();
    }

    #[test]
    fn frame_whose_bytes_changed_in_memory_is_an_error_once_and_a_miss_from_then_on() {
        let layout = Layout::linear(Format::Grey, LAYOUT.0, LAYOUT.1, 1).unwrap();
        let store = Store::new(&StoreOptions::new(64 << 20)).unwrap();
        let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
        let mut index = 0;
        // In the header, the table, stripes.
        for part in [0.0, 0.001, 0.3, 0.7, 0.999] {
            for dense in [false, true] {
                index += 1;
                pool.put_frame(Handle::new(1, index), &frame(&layout, index), Stamp::default()).unwrap();
                if dense {
                    store.maintain(std::time::Duration::from_secs(5));
                }
                let chunks = pool.0.store.index.of_pool(pool.0.state.id, |chunk| chunk.form.coding.is_dense() == dense);
                let chunk = chunks.last().unwrap();
                let bytes = chunk.value.memory.as_ref().unwrap().bytes().unwrap();
                flip(&bytes[(bytes.len() as f64 * part) as usize]);
                drop(bytes);
                drop(chunks);
                let (handle, mut into) = (Handle::new(1, index), vec![0; 640 * 240]);
                assert!(matches!(pool.get(handle, &mut into), Err(GetError::Corrupt { .. })), "{part} {dense}");
                assert!(matches!(pool.get(handle, &mut into), Ok(None)));
            }
        }
        assert_eq!(pool.stats().damaged, 10);
    }

    #[test]
    fn frames_of_a_damaged_reference_are_an_error_once_and_a_miss_from_then_on() {
        let layout = Layout::linear(Format::Grey, LAYOUT.0, LAYOUT.1, 1).unwrap();
        let store = Store::new(&StoreOptions::new(64 << 20)).unwrap();
        let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
        let put = |index| pool.put_frame(Handle::new(1, index), &frame(&layout, index + 1), Stamp::default()).unwrap();
        (0..40).for_each(put);
        let chunks = pool.0.store.index.of_pool(pool.0.state.id, |chunk| chunk.form.reference.is_some());
        assert!(chunks.len() > 20);
        let shared = chunks[0].value.form.reference.clone().unwrap();
        drop(chunks);

        flip(&shared.reference.packed()[200 * 640 + 100]);

        // The stripes of rows that are whole are still to be had.
        let part = |y| {
            let region = Region { x: 0, y, width: 16, height: 1 };
            pool.get_region(Handle::new(1, 39), region, &mut [0; 16])
        };
        assert!(matches!(part(0), Ok(Some(_))));
        assert!(!shared.is_damaged());
        assert!(matches!(part(200), Err(GetError::Corrupt { .. })));
        assert!(matches!(part(0), Ok(None)), "it has been flushed");
        let mut bytes = vec![0; 640 * 240];
        assert!(matches!(pool.get(Handle::new(1, 38), &mut bytes), Err(GetError::Corrupt { .. })));
        assert!(matches!(pool.get(Handle::new(1, 38), &mut bytes), Ok(None)));
        assert_eq!(pool.stats().damaged, 2);

        // Frames from before it, and new ones, are not touched by it.
        assert!(matches!(pool.get(Handle::new(1, 0), &mut bytes), Ok(Some(_))));
        (100..120).for_each(put);
        let account = Ledger::default().account("test", Reason::Inspect);
        for index in 100..120 {
            assert!(matches!(pool.get(Handle::new(1, index), &mut bytes), Ok(Some(_))), "{index}");
            let (frame, mut row) = (frame(&layout, index + 1), [0; 640]);
            frame.read().unwrap().plane(0).read(200, 0, &mut row, &account);
            assert!(bytes[200 * 640..][..640] == row);
        }
    }
}
