//! Frames to streams.

use std::collections::TryReserveError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Tier;
use super::dense::{self, lanes::Lanes};
use super::fast;
use super::path::{Path, Scratch};
use super::picture::Picture;
use super::reference::Reference;
use super::rows::{Rows, WrongRows};
use super::stream::{self, Kind};
use super::workers::Workers;

/// What an encoding came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Bytes of the picture without padding.
    pub bytes_in: usize,
    /// Bytes of the stream.
    pub bytes_out: usize,
    /// Stripes of the picture.
    pub stripes: usize,
    /// Stripes stored raw, because coding would not have made them smaller.
    pub raw_stripes: usize,
}

/// Why a frame is not encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The samples given are not the picture's.
    #[error(transparent)]
    Rows(#[from] WrongRows),
    /// The reference is of another picture.
    #[error("the picture is {expected}, the reference is of {given}; make one for this picture")]
    Reference {
        /// Format and size of the picture.
        expected: String,
        /// Format and size of the reference's.
        given: String,
    },
}

/// A stripe as a worker leaves it.
#[derive(Debug)]
struct Coded {
    kind: Kind,
    bytes: Vec<u8>,
}

/// Frames to streams; owns its scratch and its worker threads.
#[derive(Debug)]
pub struct Encoder {
    path: Path,
    workers: Workers,
    /// One for each worker.
    scratch: Vec<Mutex<Scratch>>,
    /// One for each stripe, where more than one worker makes them.
    coded: Vec<Mutex<Coded>>,
}

impl Encoder {
    /// An encoder that spreads a frame's stripes over `threads` threads, the caller's among them; 0 means 1. The others
    /// are started here and sleep between frames.
    pub fn new(threads: usize) -> Encoder {
        Encoder::with_path(threads, Path::best())
    }

    pub(crate) fn with_path(threads: usize, path: Path) -> Encoder {
        let workers = Workers::new(threads);
        let scratch = (0..workers.threads()).map(|_| Mutex::default()).collect();
        Encoder { path, workers, scratch, coded: Vec::new() }
    }

    /// Appends the stream of a frame to `out`.
    ///
    /// # Errors
    /// [`EncodeError`]; `out` is then as it was.
    pub fn encode(
        &mut self,
        picture: &Picture,
        rows: Rows<'_>,
        reference: Option<&Reference>,
        tier: Tier,
        out: &mut Vec<u8>,
    ) -> Result<Summary, EncodeError> {
        rows.check(picture)?;
        if let Some(other) = reference.filter(|r| r.picture() != picture) {
            return Err(EncodeError::Reference { expected: picture.to_string(), given: other.picture().to_string() });
        }
        let frame = Frame { path: self.path, picture, rows, reference, tier };
        let (start, stripes) = (out.len(), picture.stripes());
        let head = start + stream::head_bytes(picture);
        out.resize(head, 0);
        let mut raw_stripes = 0;
        if self.workers.threads() == 1 {
            let mut scratch = lock(&self.scratch[0]);
            for index in 0..stripes {
                let from = out.len();
                let kind = frame.encode(index, &mut scratch, out);
                raw_stripes += usize::from(kind == Kind::Raw);
                let (before, coded) = out.split_at_mut(from);
                stream::put_entry(&mut before[start..], index, kind, coded);
            }
        } else {
            if self.coded.len() < stripes {
                self.coded.resize_with(stripes, || Mutex::new(Coded { kind: Kind::Raw, bytes: Vec::new() }));
            }
            let next = AtomicUsize::new(0);
            self.workers.run(&|worker| {
                let mut scratch = lock(&self.scratch[worker]);
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= stripes {
                        return;
                    }
                    let mut coded = lock(&self.coded[index]);
                    coded.bytes.clear();
                    coded.kind = frame.encode(index, &mut scratch, &mut coded.bytes);
                }
            });
            for (index, coded) in self.coded[..stripes].iter().enumerate() {
                let coded = lock(coded);
                raw_stripes += usize::from(coded.kind == Kind::Raw);
                stream::put_entry(&mut out[start..head], index, coded.kind, &coded.bytes);
                out.extend_from_slice(&coded.bytes);
            }
        }
        stream::put_header(&mut out[start..head], picture, reference.map(Reference::id));
        Ok(Summary { bytes_in: picture.bytes(), bytes_out: out.len() - start, stripes, raw_stripes })
    }

    /// Reserves what the fast tier takes for a picture: in `out` the most that there ever is of its stream, and scratch.
    /// With one thread, an encoding of it then allocates nothing.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub(crate) fn reserve(&mut self, picture: &Picture, out: &mut Vec<u8>) -> Result<(), TryReserveError> {
        let stripe = picture.largest_stripe();
        // A stripe is taken back when it has turned out larger than its samples.
        out.try_reserve(stream::head_bytes(picture) + picture.bytes() + fast::most_bytes(stripe))?;
        let mut all = self.scratch.iter_mut().map(|s| s.get_mut().unwrap_or_else(PoisonError::into_inner));
        all.try_for_each(|scratch| scratch.reserve(stripe))
    }

    /// Bytes that a stripe takes on the fast tier, predicted from each of these samples of its place, or from none.
    ///
    /// # Errors
    /// [`WrongRows`].
    pub(crate) fn measure<const N: usize>(
        &mut self,
        picture: &Picture,
        rows: Rows<'_>,
        index: usize,
        references: [Option<&[u8]>; N],
    ) -> Result<[usize; N], WrongRows> {
        rows.check(picture)?;
        let stripe = picture.stripe(index);
        let plane = &picture.planes()[stripe.plane];
        let mut scratch = lock(&self.scratch[0]);
        let Scratch { encode, stripe: room, other, .. } = &mut *scratch;
        let samples = rows.stripe(picture, &stripe, room);
        Ok(references.map(|reference| {
            other.clear();
            self.path.encode(&fast::Task { plane, reference }, samples, encode, other);
            other.len().min(samples.len())
        }))
    }
}

/// A lock that was held when another stripe panicked guards nothing that is half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Frame<'a> {
    path: Path,
    picture: &'a Picture,
    rows: Rows<'a>,
    reference: Option<&'a Reference>,
    tier: Tier,
}

impl Frame<'_> {
    /// Appends a stripe to `out`.
    fn encode(&self, index: usize, scratch: &mut Scratch, out: &mut Vec<u8>) -> Kind {
        let stripe = self.picture.stripe(index);
        let Scratch { encode, stripe: room, dense, other, .. } = scratch;
        other.clear();
        let samples = self.rows.stripe(self.picture, &stripe, room);
        let start = out.len();
        if self.tier == Tier::Raw {
            out.extend_from_slice(samples);
            return Kind::Raw;
        }
        let plane = &self.picture.planes()[stripe.plane];
        let packed = self.reference.map(|r| &r.packed()[stripe.bytes.clone()]);
        let fast = &fast::Task { plane, reference: packed };
        if self.tier == Tier::Dense {
            let (lanes, rows) = (&Lanes::of(plane), stripe.rows.len());
            let doubtful = if plane.wide {
                let reference = packed.map(|r| dense.word_reference.take(lanes, r, plane.row_bytes));
                let task = dense::Task { plane, lanes, rows, reference };
                self.path.encode_dense(&task, samples, &mut dense.words, &mut dense.encode, out)
            } else {
                let reference = packed.map(|r| dense.byte_reference.take(lanes, r, plane.row_bytes));
                let task = dense::Task { plane, lanes, rows, reference };
                self.path.encode_dense(&task, samples, &mut dense.bytes, &mut dense.encode, out)
            };
            if !doubtful {
                return Kind::Dense;
            }
            self.path.encode(fast, samples, encode, other);
            if out.len() - start < other.len().min(samples.len()) {
                return Kind::Dense;
            }
            out.truncate(start);
            out.extend_from_slice(other);
        } else {
            self.path.encode(fast, samples, encode, out);
        }
        if out.len() - start < samples.len() {
            return Kind::Coded;
        }
        out.truncate(start);
        out.extend_from_slice(samples);
        Kind::Raw
    }
}
