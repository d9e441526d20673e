//! Bytes and frames to their stored form and back, with scratch that is kept from one to the next.

use shrbuf::{Account, Layout, Ledger, Reason, Shrbuf};

use super::chunk::{Coding, Form};
use super::error::{GetError, PutError};
use super::options::{Admission, Poor};
use super::reference::SharedReference;
use super::scene::{self, Recent, Sizes};
use crate::codec::reference::{means, sum_up};
use crate::codec::{DecodeError, Decoder, Encoder, Picture, Reference, Region, Rows, RowsMut, Tier};
use crate::sync::{Mutex, lock};
use crate::sys::segment::Extent;
use zstd::zstd_safe;

/// Scratch above this is not kept. What is reserved and not written takes no memory.
const KEPT: usize = 64 << 20;

/// zstd's level for idle chunks: where its ratio stops growing by much.
const DENSE_LEVEL: i32 = 3;

/// Bytes of the dense tier's room for each of a stripe, as a word of 16 bits has it in all of its arrays, and of its
/// tables.
const DENSE_ROOM: usize = 16;
const DENSE_TABLES: usize = 2 << 20;

/// One thread's tools at a time.
#[derive(Debug)]
pub(crate) struct Coder {
    encoder: Encoder,
    decoder: Decoder,
    pub out: Vec<u8>,
    /// A stripe of a frame, the sums of that of several, and their mean.
    stripe: Vec<u8>,
    sums: Vec<u32>,
    mean: Vec<u8>,
    /// The largest stripe for which there was room on the dense tier.
    dense: usize,
}

/// Tools nobody is using, and the ledger's accounts for what they move and what they look at.
#[derive(Debug)]
pub(crate) struct Coders {
    idle: Mutex<Vec<Coder>>,
    account: Account,
    pub looks: Account,
}

/// What is to be put.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    Bytes(&'a [u8]),
    Frame(&'a Shrbuf),
}

impl Source<'_> {
    /// The picture of a frame that the codec takes.
    pub(crate) fn picture(&self) -> Option<Picture> {
        let Source::Frame(buffer) = self else { return None };
        Picture::of(buffer.layout()).ok()
    }
}

/// Where a get goes.
#[derive(Debug)]
pub(crate) enum Target<'a> {
    Bytes(&'a mut [u8]),
    Vec(&'a mut Vec<u8>),
    Frame(&'a mut Shrbuf),
    Region(Region, &'a mut [u8]),
}

impl Coders {
    pub(crate) fn new(ledger: &Ledger) -> Coders {
        let [account, looks] = [Reason::Store, Reason::Inspect].map(|reason| ledger.account("tmem", reason));
        Coders { idle: Mutex::new(Vec::new()), account, looks }
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Coder, &Account) -> T) -> T {
        let idle = lock(&self.idle).pop();
        let new = || Coder {
            encoder: Encoder::new(1),
            decoder: Decoder::new(1),
            out: Vec::new(),
            stripe: Vec::new(),
            sums: Vec::new(),
            mean: Vec::new(),
            dense: 0,
        };
        let mut coder = idle.unwrap_or_else(new);
        coder.out.clear();
        let t = f(&mut coder, &self.account);
        if coder.out.capacity() > KEPT {
            coder.out = Vec::new();
        }
        lock(&self.idle).push(coder);
        t
    }
}

/// What an encoding came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoded {
    pub coding: Coding,
    /// Bytes as they were.
    pub original: usize,
    /// It compresses poorly, and is stored as it was.
    pub raw: bool,
}

impl Coder {
    /// Encodes into `self.out`. `mean` is the pool's ratio so far.
    pub(crate) fn encode(
        &mut self,
        source: Source<'_>,
        reference: Option<&Reference>,
        admission: &Admission,
        mean: f32,
        account: &Account,
    ) -> Result<Encoded, PutError> {
        let poor = |stored: usize, bytes: usize| {
            let ratio = stored as f32 / bytes as f32;
            ratio > admission.chunk || (mean > admission.mean && ratio > admission.mean)
        };
        match source {
            Source::Bytes(bytes) => {
                let most = lz4_flex::block::get_maximum_output_size(bytes.len());
                grow(&mut self.out, most).map_err(|bytes| PutError::NoMemory { bytes })?;
                let n = lz4_flex::block::compress_into(bytes, &mut self.out[..most]).unwrap_or(most);
                let poor = poor(n, bytes.len());
                if poor && admission.poor == Poor::Refuse {
                    return Err(PutError::Poor { bytes: bytes.len(), stored: n });
                }
                if poor || n >= bytes.len() {
                    self.out.clear();
                    self.out.extend_from_slice(bytes);
                    return Ok(Encoded { coding: Coding::Raw, original: bytes.len(), raw: true });
                }
                self.out.truncate(n);
                Ok(Encoded { coding: Coding::Lz4, original: bytes.len(), raw: false })
            }
            Source::Frame(buffer) => {
                let picture = Picture::of(buffer.layout())?;
                let bytes = picture.bytes();
                self.encoder.reserve(&picture, &mut self.out).map_err(|_| PutError::NoMemory { bytes })?;
                let guard = buffer.read()?;
                let rows = Rows::Guard(&guard, account);
                self.encoder.encode(&picture, rows, reference, Tier::Fast, &mut self.out)?;
                let raw = poor(self.out.len(), bytes);
                if raw && admission.poor == Poor::Refuse {
                    return Err(PutError::Poor { bytes, stored: self.out.len() });
                }
                if raw {
                    self.out.clear();
                    self.encoder.encode(&picture, rows, None, Tier::Raw, &mut self.out)?;
                }
                let Layout { format, width, height, .. } = *buffer.layout();
                Ok(Encoded { coding: Coding::Frame { format, width, height, dense: false }, original: bytes, raw })
            }
        }
    }

    /// The dense form of a chunk into `self.out`, from the same reference; `None` where it has none.
    ///
    /// # Errors
    /// [`GetError::Corrupt`], [`GetError::NoMemory`].
    pub(crate) fn densify(&mut self, form: &Form, stored: &[u8]) -> Result<Option<Coding>, GetError> {
        let no_memory = |bytes: usize| GetError::NoMemory { bytes };
        let plain = self.unpacked(form, stored)?;
        self.out.clear();
        match form.coding {
            Coding::Frame { format, width, height, .. } => {
                let (Some(picture), rows) = (form.coding.picture(), Rows::Packed(&plain)) else { return Ok(None) };
                self.encoder.reserve(&picture, &mut self.out).map_err(|_| no_memory(plain.len()))?;
                self.ready_for_dense(&picture).map_err(no_memory)?;
                let reference = form.reference.as_ref().map(|shared| &shared.reference);
                let dense = self.encoder.encode(&picture, rows, reference, Tier::Dense, &mut self.out);
                Ok(dense.is_ok().then_some(Coding::Frame { format, width, height, dense: true }))
            }
            _ => {
                let most = zstd_safe::compress_bound(plain.len());
                self.out.try_reserve(most).map_err(|_| no_memory(most))?;
                // Not `zstd::bulk`, which panics where there is no memory.
                let mut context = zstd_safe::CCtx::try_create().ok_or(no_memory(most))?;
                let dense = context.compress(&mut self.out, &plain, DENSE_LEVEL);
                Ok(dense.is_ok().then_some(Coding::Zstd))
            }
        }
    }

    /// The form of a frame that needs no reference, into `self.out`, on the fast tier; `None` where it is damaged.
    pub(crate) fn alone(&mut self, form: &Form, stored: &[u8]) -> Option<Form> {
        let Coding::Frame { format, width, height, .. } = form.coding else { return None };
        let plain = self.unpacked(form, stored).ok()?;
        let picture = form.coding.picture()?;
        self.out.clear();
        self.encoder.reserve(&picture, &mut self.out).ok()?;
        self.encoder.encode(&picture, Rows::Packed(&plain), None, Tier::Fast, &mut self.out).ok()?;
        let coding = Coding::Frame { format, width, height, dense: false };
        Some(Form::of(coding, form.original, &self.out, None))
    }

    /// Room that the dense tier takes for a stripe of a picture: found once, it stays in the tools. It is asked for in one
    /// piece, since what the tier takes of it depends on the samples.
    fn ready_for_dense(&mut self, picture: &Picture) -> Result<(), usize> {
        let stripe = picture.largest_stripe();
        if stripe > self.dense {
            let bytes = DENSE_TABLES + DENSE_ROOM * stripe;
            Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| bytes)?;
            self.dense = stripe;
        }
        Ok(())
    }

    /// Room for decoding a picture.
    fn ready(&mut self, picture: &Picture, coding: Coding) -> Result<(), GetError> {
        if coding.is_dense() {
            self.ready_for_dense(picture).map_err(|bytes| GetError::NoMemory { bytes })?;
        }
        self.decoder.reserve(picture).map_err(|_| GetError::NoMemory { bytes: picture.bytes() })
    }

    fn unpacked(&mut self, form: &Form, stored: &[u8]) -> Result<Vec<u8>, GetError> {
        let mut plain = Vec::new();
        grow(&mut plain, form.original as usize).map_err(|bytes| GetError::NoMemory { bytes })?;
        self.plain(form, stored, &mut plain)?;
        Ok(plain)
    }

    /// The mean of a stripe over those frames of a scene that are in memory; `None` where they are fewer than four.
    pub(crate) fn mean(&mut self, picture: &Picture, index: usize, recent: &Recent) -> Option<&[u8]> {
        let wide = picture.planes()[picture.stripe(index).plane].wide;
        let (mut frames, most) = (0, recent.iter().flatten().count());
        // By a power of two is divided with a shift.
        let most = if most < recent.len() { 4 } else { recent.len() };
        self.sums.clear();
        for chunk in recent.iter().flatten().map(|chunk| &chunk.value) {
            let Some(stored) = chunk.memory.as_ref().and_then(Extent::bytes).filter(|_| frames < most) else {
                continue;
            };
            self.ready(picture, chunk.form.coding).ok()?;
            let reference = chunk.form.reference.as_ref().map(|shared| &shared.reference);
            let bytes = picture.stripe(index).bytes.len();
            [&mut self.stripe, &mut self.mean]
                .into_iter()
                .try_for_each(|v| v.try_reserve(bytes.saturating_sub(v.len())))
                .ok()?;
            self.sums.try_reserve(bytes.saturating_sub(self.sums.len())).ok()?;
            let decoded = self.decoder.decode_stripe(picture, &stored, reference, index, &mut self.stripe);
            if decoded.is_ok() {
                self.sums.resize(self.stripe.len() / if wide { 2 } else { 1 }, 0);
                sum_up(&mut self.sums, &self.stripe, wide);
                frames += 1;
            }
        }
        (frames >= 4).then(|| {
            self.mean.clear();
            means(&self.sums, frames as u32, wide, &mut self.mean);
            self.mean.as_slice()
        })
    }

    /// What some stripes of a frame take, coded alone, from the reference in use and from the mean of the last frames.
    pub(crate) fn sizes(
        &mut self,
        picture: &Picture,
        rows: Rows<'_>,
        recent: &Recent,
        current: Option<&SharedReference>,
    ) -> Option<Sizes> {
        let mut sizes = Sizes::default();
        for index in scene::tried(picture) {
            self.mean(picture, index, recent)?;
            let current = current.map(|shared| &shared.reference.packed()[picture.stripe(index).bytes]);
            let ways = [None, current, Some(self.mean.as_slice())];
            let [alone, with, fresh] = self.encoder.measure(picture, rows, index, ways).ok()?;
            sizes.alone += alone as u64;
            sizes.current += if current.is_some() { with as u64 } else { 0 };
            sizes.fresh += fresh as u64;
        }
        Some(sizes)
    }

    /// Checks that a chunk can go to `target`, before anything is read.
    pub(crate) fn fits(coding: Coding, original: usize, target: &Target<'_>) -> Result<(), GetError> {
        let small = |needed, given| if given < needed { Err(GetError::TooSmall { needed, given }) } else { Ok(()) };
        match (target, coding.picture()) {
            (Target::Bytes(into), _) => small(original, into.len()),
            (Target::Vec(_), _) => Ok(()),
            (Target::Region(region, into), Some(picture)) => match picture.region_bytes(*region) {
                0 => Err(GetError::OtherKind { found: coding.name(), asked: format!("{region:?}, which leaves it") }),
                needed => small(needed, into.len()),
            },
            (Target::Frame(buffer), Some(picture)) if Picture::of(buffer.layout()).as_ref() == Ok(&picture) => Ok(()),
            (Target::Frame(buffer), _) => {
                Err(GetError::OtherKind { found: coding.name(), asked: format!("{buffer:?}") })
            }
            (Target::Region(..), None) => {
                Err(GetError::OtherKind { found: coding.name(), asked: "a region".to_owned() })
            }
        }
    }

    /// Decodes; bytes written.
    pub(crate) fn decode(
        &mut self,
        form: &Form,
        stored: &[u8],
        target: &mut Target<'_>,
        account: &Account,
    ) -> Result<usize, GetError> {
        let (coding, original) = (form.coding, form.original as usize);
        let no_picture = || GetError::OtherKind { found: coding.name(), asked: "a frame".to_owned() };
        let reference = form.reference.as_ref().map(|shared| &shared.reference);
        match target {
            Target::Frame(buffer) => {
                let picture = coding.picture().ok_or_else(no_picture)?;
                self.ready(&picture, coding)?;
                let mut guard = buffer.write()?;
                let into = RowsMut::Guard(&mut guard, account);
                self.decoder.decode(&picture, stored, reference, into).map_err(|e| corrupt(form, &e))?;
                Ok(original)
            }
            Target::Region(region, into) => {
                let picture = coding.picture().ok_or_else(no_picture)?;
                self.ready(&picture, coding)?;
                let n = picture.region_bytes(*region);
                let result = self.decoder.decode_region(&picture, stored, reference, *region, &mut into[..n]);
                result.map_err(|e| corrupt(form, &e))?;
                Ok(n)
            }
            Target::Vec(into) => {
                into.clear();
                grow(into, original).map_err(|bytes| GetError::NoMemory { bytes })?;
                self.plain(form, stored, into)
            }
            Target::Bytes(into) => self.plain(form, stored, &mut into[..original]),
        }
    }

    fn plain(&mut self, form: &Form, stored: &[u8], into: &mut [u8]) -> Result<usize, GetError> {
        match form.coding.picture() {
            Some(picture) => {
                self.ready(&picture, form.coding)?;
                let reference = form.reference.as_ref().map(|shared| &shared.reference);
                let result = self.decoder.decode(&picture, stored, reference, RowsMut::Packed(into));
                result.map_err(|e| corrupt(form, &e))?;
            }
            None => decode_bytes(form.coding, stored, into).map_err(|reason| match reason {
                Some(reason) => GetError::Corrupt { reason },
                None => GetError::NoMemory { bytes: into.len() },
            })?,
        }
        Ok(into.len())
    }
}

fn corrupt(form: &Form, error: &DecodeError) -> GetError {
    if let (DecodeError::ReferenceDamaged { .. }, Some(shared)) = (error, &form.reference) {
        shared.set_damaged();
    }
    GetError::Corrupt { reason: error.to_string() }
}

/// `Err(None)` where there is no memory for it.
fn decode_bytes(coding: Coding, stored: &[u8], into: &mut [u8]) -> Result<(), Option<String>> {
    let n = match coding {
        Coding::Lz4 => lz4_flex::block::decompress_into(stored, into).map_err(|e| Some(e.to_string()))?,
        Coding::Zstd => {
            let mut context = zstd_safe::DCtx::try_create().ok_or(None)?;
            context.decompress(into, stored).map_err(|e| Some(zstd_safe::get_error_name(e).to_owned()))?
        }
        _ if stored.len() == into.len() => {
            into.copy_from_slice(stored);
            stored.len()
        }
        _ => stored.len(),
    };
    if n == into.len() { Ok(()) } else { Err(Some(format!("{n} bytes decoded, {} expected", into.len()))) }
}

fn grow(vec: &mut Vec<u8>, len: usize) -> Result<(), usize> {
    if vec.len() < len {
        vec.try_reserve_exact(len - vec.len()).map_err(|_| len)?;
        vec.resize(len, 0);
    }
    Ok(())
}
