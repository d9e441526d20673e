//! Streams to frames.

use std::collections::TryReserveError;
use std::sync::{Mutex, PoisonError};

use super::dense::{self, lanes::Lanes};
use super::encoder::lock;
use super::fast;
use super::path::{Path, Scratch};
use super::picture::{Picture, Region, Stripe};
use super::reference::Reference;
use super::rows::{RowsMut, WrongRows};
use super::stream::{Kind, Stream};
use super::workers::Workers;

/// Why a stream does not decode. The destination may then hold anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No stream of this codec, or of a version that this decoder does not know.
    #[error("not a frame stream of version {known}: it begins with {start:02x?}")]
    Header {
        /// The version known.
        known: u8,
        /// How it begins.
        start: [u8; 4],
    },
    /// The stream is shorter than it says.
    #[error("the stream has {given} bytes and needs {needed}; it was cut off")]
    Truncated {
        /// Bytes given.
        given: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// The stream is longer than it says.
    #[error("the stream has {given} bytes and needs {needed}; hand in one frame's stream alone")]
    Trailing {
        /// Bytes given.
        given: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// The stream is of another picture.
    #[error("the stream is of another picture than the one asked for; decode it as the picture it was encoded as")]
    Picture,
    /// The header or the table of stripes is damaged.
    #[error("the checksum of the table of stripes is wrong; drop the frame, or fetch it again")]
    Table,
    /// The stream needs a reference that was not given, or another one.
    #[error("the stream is predicted from reference {needed:08x}, given was {given:08x?}")]
    Reference {
        /// Identity of the reference it was encoded with.
        needed: u32,
        /// Identity of the one given.
        given: Option<u32>,
    },
    /// The reference is damaged, so that the stripe cannot be decoded.
    #[error("stripe {stripe} of the reference is damaged; drop the frames that are predicted from it")]
    ReferenceDamaged {
        /// Which, counted from 0.
        stripe: usize,
    },
    /// A stripe is damaged.
    #[error("stripe {stripe} is damaged: {what}; drop the frame, or fetch it again")]
    Stripe {
        /// Which, counted from 0.
        stripe: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The destination is not the picture's.
    #[error(transparent)]
    Rows(#[from] WrongRows),
    /// The region leaves the picture.
    #[error("{region:?} is empty or leaves the picture, {picture}")]
    Region {
        /// The region.
        region: Region,
        /// Format and size of the picture.
        picture: String,
    },
}

/// Streams to frames; owns its scratch and its worker threads.
#[derive(Debug)]
pub struct Decoder {
    path: Path,
    workers: Workers,
    /// One for each worker.
    scratch: Vec<Mutex<Scratch>>,
}

impl Decoder {
    /// A decoder that spreads a frame's stripes over `threads` threads, the caller's among them; 0 means 1. The others
    /// are started here and sleep between frames.
    pub fn new(threads: usize) -> Decoder {
        Decoder::with_path(threads, Path::best())
    }

    pub(crate) fn with_path(threads: usize, path: Path) -> Decoder {
        let workers = Workers::new(threads);
        let scratch = (0..workers.threads()).map(|_| Mutex::default()).collect();
        Decoder { path, workers, scratch }
    }

    /// Reserves the scratch that a picture's stripes of the fast tier take, so that decoding them allocates nothing.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub(crate) fn reserve(&mut self, picture: &Picture) -> Result<(), TryReserveError> {
        let stripe = picture.largest_stripe();
        let mut all = self.scratch.iter_mut().map(|s| s.get_mut().unwrap_or_else(PoisonError::into_inner));
        all.try_for_each(|scratch| scratch.reserve_decoding(stripe))
    }

    /// Decodes a whole frame.
    ///
    /// # Errors
    /// [`DecodeError`]; the destination may then hold anything.
    pub fn decode(
        &mut self,
        picture: &Picture,
        stream: &[u8],
        reference: Option<&Reference>,
        into: RowsMut<'_, '_>,
    ) -> Result<(), DecodeError> {
        into.check(picture)?;
        let frame = Frame::open(self.path, picture, stream, reference)?;
        let stripes = picture.stripes();
        let result = Mutex::new(Ok(()));
        let fail = |e| *lock(&result) = Err(e);
        match into {
            RowsMut::Packed(bytes) => {
                // The next stripe's number, where it starts in the stream, and all room from there on.
                let rest = Mutex::new((0, 0, bytes));
                self.workers.run(&|worker| {
                    let mut scratch = lock(&self.scratch[worker]);
                    loop {
                        let mut next = lock(&rest);
                        let (index, start) = (next.0, next.1);
                        if index >= stripes || lock(&result).is_err() {
                            return;
                        }
                        let stripe = picture.stripe(index);
                        let (room, after) = std::mem::take(&mut next.2).split_at_mut(stripe.bytes.len());
                        *next = (index + 1, start + frame.stream.size(index), after);
                        drop(next);
                        if let Err(e) = frame.decode(&stripe, start, &mut scratch, room) {
                            return fail(e);
                        }
                    }
                });
            }
            RowsMut::Guard(guard, account) => {
                let guard = Mutex::new(guard);
                let next = Mutex::new((0, 0));
                self.workers.run(&|worker| {
                    let mut scratch = lock(&self.scratch[worker]);
                    let mut room = std::mem::take(&mut scratch.stripe);
                    loop {
                        let mut now = lock(&next);
                        let (index, start) = *now;
                        if index >= stripes || lock(&result).is_err() {
                            break;
                        }
                        *now = (index + 1, start + frame.stream.size(index));
                        drop(now);
                        let stripe = picture.stripe(index);
                        room.resize(stripe.bytes.len(), 0);
                        if let Err(e) = frame.decode(&stripe, start, &mut scratch, &mut room) {
                            fail(e);
                            break;
                        }
                        let mut guard = lock(&guard);
                        let mut plane = guard.plane(stripe.plane);
                        let row_bytes = picture.planes()[stripe.plane].row_bytes;
                        for (y, row) in stripe.rows.zip(room.chunks_exact(row_bytes)) {
                            plane.write(y, 0, row, account);
                        }
                    }
                    scratch.stripe = room;
                });
            }
        }
        result.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decodes a region of a frame into packed rows, as [`Picture::region_bytes`] counts them. Only the stripes it
    /// touches are read and checked, all by the calling thread.
    ///
    /// # Errors
    /// As [`Decoder::decode`], and a region that leaves the picture.
    pub fn decode_region(
        &mut self,
        picture: &Picture,
        stream: &[u8],
        reference: Option<&Reference>,
        region: Region,
        into: &mut [u8],
    ) -> Result<(), DecodeError> {
        let (expected, given) = (picture.region_bytes(region), into.len());
        if expected == 0 {
            return Err(DecodeError::Region { region, picture: picture.to_string() });
        }
        if expected != given {
            return Err(WrongRows::Size { expected, given }.into());
        }
        let frame = Frame::open(self.path, picture, stream, reference)?;
        let mut scratch = lock(&self.scratch[0]);
        let mut room = std::mem::take(&mut scratch.stripe);
        let mut into = into;
        for (number, plane) in picture.planes().iter().enumerate() {
            let Some(window) = picture.window(number, region) else { continue };
            let first = plane.first_stripe + window.rows.start / plane.stripe_rows;
            let last = plane.first_stripe + (window.rows.end - 1) / plane.stripe_rows;
            let mut start = frame.stream.start(first);
            for stripe in (first..=last).map(|i| picture.stripe(i)) {
                room.resize(stripe.bytes.len(), 0);
                frame.decode(&stripe, start, &mut scratch, &mut room)?;
                start += frame.stream.size(stripe.index);
                let rows = stripe.rows.clone().zip(room.chunks_exact(plane.row_bytes));
                for (_, row) in rows.filter(|(y, _)| window.rows.contains(y)) {
                    let (part, rest) = std::mem::take(&mut into).split_at_mut(window.columns.len());
                    part.copy_from_slice(&row[window.columns.clone()]);
                    into = rest;
                }
            }
        }
        scratch.stripe = room;
        Ok(())
    }

    /// Decodes one stripe into its packed samples.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub(crate) fn decode_stripe(
        &mut self,
        picture: &Picture,
        stream: &[u8],
        reference: Option<&Reference>,
        index: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let frame = Frame::open(self.path, picture, stream, reference)?;
        let stripe = picture.stripe(index);
        into.resize(stripe.bytes.len(), 0);
        frame.decode(&stripe, frame.stream.start(index), &mut lock(&self.scratch[0]), into)
    }
}

struct Frame<'a> {
    path: Path,
    picture: &'a Picture,
    stream: Stream<'a>,
    /// Only where the stream was predicted from it.
    reference: Option<&'a Reference>,
}

impl<'a> Frame<'a> {
    fn open(
        path: Path,
        picture: &'a Picture,
        stream: &'a [u8],
        reference: Option<&'a Reference>,
    ) -> Result<Frame<'a>, DecodeError> {
        let reference = reference.filter(|r| r.picture() == picture);
        let stream = Stream::open(stream, picture, reference.map(Reference::id))?;
        let reference = reference.filter(|_| stream.has_reference());
        Ok(Frame { path, picture, stream, reference })
    }

    /// Decodes the stripe that starts there into `samples`, which has its size.
    fn decode(
        &self,
        stripe: &Stripe,
        start: usize,
        scratch: &mut Scratch,
        samples: &mut [u8],
    ) -> Result<(), DecodeError> {
        let (kind, coded) = self.stream.stripe(stripe.index, start)?;
        let plane = &self.picture.planes()[stripe.plane];
        let Scratch { decode, bytes, words, dense, .. } = scratch;
        let (lanes, rows) = (&Lanes::of(plane), stripe.rows.len());
        let damaged = DecodeError::ReferenceDamaged { stripe: stripe.index };
        let reference = match self.reference.filter(|_| kind != Kind::Raw) {
            Some(reference) => Some(reference.checked(stripe).ok_or(damaged)?),
            None => None,
        };
        let result = match kind {
            Kind::Raw if coded.len() == samples.len() => {
                samples.copy_from_slice(coded);
                Ok(())
            }
            Kind::Raw => Err("it is raw and not of its size"),
            Kind::Coded => self.path.decode(&fast::Task { plane, reference }, coded, decode, samples),
            Kind::Dense if plane.wide => {
                let reference = reference.map(|r| dense.word_reference.take(lanes, r, plane.row_bytes));
                let task = dense::Task { plane, lanes, rows, reference };
                self.path.decode_dense(&task, coded, words, &mut dense.decode, samples)
            }
            Kind::Dense => {
                let reference = reference.map(|r| dense.byte_reference.take(lanes, r, plane.row_bytes));
                let task = dense::Task { plane, lanes, rows, reference };
                self.path.decode_dense(&task, coded, bytes, &mut dense.decode, samples)
            }
        };
        result.map_err(|what| DecodeError::Stripe { stripe: stripe.index, what })
    }
}
