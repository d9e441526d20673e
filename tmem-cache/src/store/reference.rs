//! The memory of a shared reference: drawn stripe by stripe, then read only, and gone with the last chunk that needs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::MmapMut;

use super::chunk::hash;
use super::stats::{Counters, add, count, sub};
use crate::codec::{Picture, Reference, Region};
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
    /// Of each stripe: a bit that flips here would damage frames whose own bytes are whole.
    hashes: Vec<u64>,
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
        self.hashes.push(hash(samples));
    }

    /// The reference, once all stripes are drawn. From here on nobody writes it.
    pub(crate) fn finish(self) -> Option<SharedReference> {
        let Draft { picture, samples, hashes, cost } = self;
        let reference = Reference::mapped(&picture, samples.make_read_only().ok()?)?;
        count(&cost.counters.references);
        Some(SharedReference { reference, hashes, damaged: AtomicBool::new(false), _cost: cost })
    }
}

impl SharedReference {
    /// The reference, with all stripes checked, or those alone that a region touches; `None` where one is damaged.
    pub(crate) fn checked(&self, region: Option<Region>) -> Option<&Reference> {
        let picture = self.reference.picture();
        let touched = |index: &usize| {
            let stripe = picture.stripe(*index);
            let touches = |region| {
                let window = picture.window(stripe.plane, region);
                window.is_some_and(|w| w.rows.start < stripe.rows.end && stripe.rows.start < w.rows.end)
            };
            region.is_none_or(touches)
        };
        let whole = |index: usize| hash(&self.reference.packed()[picture.stripe(index).bytes]) == self.hashes[index];
        let whole = (0..picture.stripes()).filter(touched).all(whole);
        if !whole {
            self.damaged.store(true, Ordering::Relaxed);
        }
        whole.then_some(&self.reference)
    }

    /// True once a check has failed: no new frame is to be predicted from it.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }
}
