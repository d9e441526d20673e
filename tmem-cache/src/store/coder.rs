//! Bytes and frames to their stored form and back, with scratch that is kept from one to the next.

use shrbuf::{Account, Layout, Ledger, Reason, Shrbuf};

use super::chunk::Coding;
use super::error::{GetError, PutError};
use super::options::{Admission, Poor};
use crate::codec::{DecodeError, Decoder, Encoder, Picture, Region, Rows, RowsMut, Tier};
use crate::sync::{Mutex, lock};

/// Scratch above this is not kept.
const KEPT: usize = 16 << 20;

/// zstd's level for idle chunks: where its ratio stops growing by much.
const DENSE_LEVEL: i32 = 3;

/// One thread's tools at a time.
#[derive(Debug)]
pub(crate) struct Coder {
    encoder: Encoder,
    decoder: Decoder,
    pub out: Vec<u8>,
}

/// Tools nobody is using, and the ledger's account for what they move.
#[derive(Debug)]
pub(crate) struct Coders {
    idle: Mutex<Vec<Coder>>,
    account: Account,
}

/// What is to be put.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    Bytes(&'a [u8]),
    Frame(&'a Shrbuf),
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
        Coders { idle: Mutex::new(Vec::new()), account: ledger.account("tmem", Reason::Store) }
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Coder, &Account) -> T) -> T {
        let idle = lock(&self.idle).pop();
        let new = || Coder { encoder: Encoder::new(1), decoder: Decoder::new(1), out: Vec::new() };
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

impl Coder {
    /// Encodes into `self.out`; coding and bytes as they were. `mean` is the pool's ratio so far.
    pub(crate) fn encode(
        &mut self,
        source: Source<'_>,
        admission: &Admission,
        mean: f32,
        account: &Account,
    ) -> Result<(Coding, usize), PutError> {
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
                    return Ok((Coding::Raw, bytes.len()));
                }
                self.out.truncate(n);
                Ok((Coding::Lz4, bytes.len()))
            }
            Source::Frame(buffer) => {
                let picture = Picture::of(buffer.layout())?;
                let bytes = picture.bytes();
                self.out.try_reserve(bytes / 2).map_err(|_| PutError::NoMemory { bytes })?;
                let guard = buffer.read()?;
                self.encoder.encode(&picture, Rows::Guard(&guard, account), None, Tier::Fast, &mut self.out)?;
                if poor(self.out.len(), bytes) && admission.poor == Poor::Refuse {
                    return Err(PutError::Poor { bytes, stored: self.out.len() });
                }
                let Layout { format, width, height, .. } = *buffer.layout();
                // Poor stripes are raw in the stream already.
                Ok((Coding::Frame { format, width, height, dense: false }, bytes))
            }
        }
    }

    /// The dense form of a chunk into `self.out`; `None` where it has none or is in it.
    pub(crate) fn densify(&mut self, coding: Coding, stored: &[u8], original: usize) -> Option<Coding> {
        if coding.is_dense() {
            return None;
        }
        let mut plain = Vec::new();
        plain.try_reserve_exact(original).ok()?;
        plain.resize(original, 0);
        self.out.clear();
        match coding {
            Coding::Frame { format, width, height, .. } => {
                let picture = coding.picture()?;
                self.decoder.decode(&picture, stored, None, RowsMut::Packed(&mut plain)).ok()?;
                self.encoder.encode(&picture, Rows::Packed(&plain), None, Tier::Dense, &mut self.out).ok()?;
                Some(Coding::Frame { format, width, height, dense: true })
            }
            _ => {
                decode_bytes(coding, stored, &mut plain).ok()?;
                self.out = zstd::bulk::compress(&plain, DENSE_LEVEL).ok()?;
                Some(Coding::Zstd)
            }
        }
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
        coding: Coding,
        stored: &[u8],
        original: usize,
        target: &mut Target<'_>,
        account: &Account,
    ) -> Result<usize, GetError> {
        let corrupt = |e: DecodeError| GetError::Corrupt { reason: e.to_string() };
        let no_picture = || GetError::OtherKind { found: coding.name(), asked: "a frame".to_owned() };
        match target {
            Target::Frame(buffer) => {
                let picture = coding.picture().ok_or_else(no_picture)?;
                let mut guard = buffer.write()?;
                let into = RowsMut::Guard(&mut guard, account);
                self.decoder.decode(&picture, stored, None, into).map_err(corrupt)?;
                Ok(original)
            }
            Target::Region(region, into) => {
                let picture = coding.picture().ok_or_else(no_picture)?;
                let n = picture.region_bytes(*region);
                self.decoder.decode_region(&picture, stored, None, *region, &mut into[..n]).map_err(corrupt)?;
                Ok(n)
            }
            Target::Vec(into) => {
                into.clear();
                grow(into, original).map_err(|bytes| GetError::NoMemory { bytes })?;
                self.plain(coding, stored, into)
            }
            Target::Bytes(into) => self.plain(coding, stored, &mut into[..original]),
        }
    }

    fn plain(&mut self, coding: Coding, stored: &[u8], into: &mut [u8]) -> Result<usize, GetError> {
        match coding.picture() {
            Some(picture) => self
                .decoder
                .decode(&picture, stored, None, RowsMut::Packed(into))
                .map_err(|e| GetError::Corrupt { reason: e.to_string() })?,
            None => decode_bytes(coding, stored, into).map_err(|reason| GetError::Corrupt { reason })?,
        }
        Ok(into.len())
    }
}

fn decode_bytes(coding: Coding, stored: &[u8], into: &mut [u8]) -> Result<(), String> {
    let n = match coding {
        Coding::Lz4 => lz4_flex::block::decompress_into(stored, into).map_err(|e| e.to_string())?,
        Coding::Zstd => zstd::bulk::decompress_to_buffer(stored, into).map_err(|e| e.to_string())?,
        _ if stored.len() == into.len() => {
            into.copy_from_slice(stored);
            stored.len()
        }
        _ => stored.len(),
    };
    if n == into.len() { Ok(()) } else { Err(format!("{n} bytes decoded, {} expected", into.len())) }
}

fn grow(vec: &mut Vec<u8>, len: usize) -> Result<(), usize> {
    if vec.len() < len {
        vec.try_reserve_exact(len - vec.len()).map_err(|_| len)?;
        vec.resize(len, 0);
    }
    Ok(())
}
