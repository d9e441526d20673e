//! What the compositor can take as dma-bufs: the feedback of linux-dmabuf, versions 4 and up, and the plain list of
//! version 3.
//!
//! The table of formats lies in shared memory that the compositor goes on owning. It is read with pread(2) and not
//! mapped, as the protocol also suggests: so it is copied once, a table that shrinks is an error and no SIGBUS, and
//! nothing that it holds is trusted but as numbers.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use shrbuf::{Format, Modifier};
use shrbuf_pipeline::{Modifiers, Rates, SizeOffer, Sizes, Video};

use super::error::WaylandError;

/// DRM_FORMAT_MOD_INVALID: the memory's arrangement is what its driver knows of it, and nobody says it.
pub const IMPLICIT: u64 = 0x00ff_ffff_ffff_ffff;

/// Bytes of an entry: fourcc, padding, modifier.
const ENTRY: usize = 16;
/// Entries that the 16-bit indices of a tranche can name.
const MOST_ENTRIES: usize = 1 << 16;

/// A format as the compositor names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// DRM fourcc.
    pub fourcc: u32,
    /// DRM modifier, or [`IMPLICIT`].
    pub modifier: u64,
}

/// Formats that one device takes, in no order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tranche {
    /// `dev_t` of the device, as the compositor wrote it.
    pub device: Vec<u8>,
    /// Formats.
    pub pairs: Vec<Pair>,
    /// Buffers of these formats may go to the display as they are.
    pub scanout: bool,
}

/// What the compositor would like to be given for one surface, best first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Feedback {
    /// `dev_t` of the device on which the compositor draws; empty where it says none.
    pub main_device: Vec<u8>,
    /// Best first.
    pub tranches: Vec<Tranche>,
}

/// Reads a table of formats.
pub(super) fn read_table(fd: OwnedFd, size: u32) -> Result<Vec<Pair>, WaylandError> {
    let bytes = (size as usize).min(MOST_ENTRIES * ENTRY);
    let mut table = vec![0; bytes];
    File::from(fd).read_exact_at(&mut table, 0).map_err(|source| WaylandError::FormatTable { size, source })?;
    Ok(parse_table(&table))
}

fn parse_table(table: &[u8]) -> Vec<Pair> {
    let pair = |entry: &[u8]| {
        let fourcc = u32::from_ne_bytes(entry[..4].try_into().unwrap_or_default());
        let modifier = u64::from_ne_bytes(entry[8..].try_into().unwrap_or_default());
        Pair { fourcc, modifier }
    };
    table.chunks_exact(ENTRY).map(pair).collect()
}

/// The pairs that a tranche names by 16-bit indices into the table; an index beyond the table names none.
pub(super) fn named<'a>(table: &'a [Pair], indices: &'a [u8]) -> impl Iterator<Item = Pair> + 'a {
    let indices = indices.chunks_exact(2).map(|i| usize::from(u16::from_ne_bytes([i[0], i[1]])));
    indices.filter_map(|i| table.get(i).copied())
}

impl Feedback {
    /// Every pair, best first.
    pub fn pairs(&self) -> impl Iterator<Item = Pair> {
        self.tranches.iter().flat_map(|t| t.pairs.iter().copied())
    }

    /// How the modifier of a buffer is told to the compositor, where it takes such a buffer: what the buffer's producer
    /// says, and for linear memory nothing at all where that is the only way.
    pub fn takes(&self, fourcc: u32, modifier: Option<Modifier>) -> Option<u64> {
        let has = |wanted| self.pairs().any(|p| p == Pair { fourcc, modifier: wanted });
        match modifier {
            Some(m) if has(m.0) => Some(m.0),
            Some(m) if m != Modifier::LINEAR => None,
            _ if has(Modifier::LINEAR.0) => Some(Modifier::LINEAR.0),
            _ => has(IMPLICIT).then_some(IMPLICIT),
        }
    }

    /// Whether somebody who allocates anew for this feedback would get a better modifier than `modifier`, which was the
    /// best that `before` had.
    pub fn is_better_with_another(&self, before: &Feedback, fourcc: u32, modifier: Modifier) -> bool {
        let best = |f: &Feedback| {
            let mut of_format = f.tranches.iter().map(|t| t.pairs.iter().filter(|p| p.fourcc == fourcc));
            of_format.find_map(|pairs| {
                let all: Vec<u64> = pairs.map(|p| p.modifier).filter(|&m| m != IMPLICIT).collect();
                (!all.is_empty()).then_some(all)
            })
        };
        let now = best(self);
        now != best(before) && now.is_some_and(|modifiers| !modifiers.contains(&modifier.0))
    }

    /// Formats with their modifiers for the solver.
    pub fn video(&self) -> Vec<Video> {
        let mut video: Vec<Video> = Vec::new();
        for pair in self.pairs() {
            let Some(format) = Format::from_drm(pair.fourcc) else { continue };
            let modifier = Modifier(if pair.modifier == IMPLICIT { Modifier::LINEAR.0 } else { pair.modifier });
            match video.iter_mut().find(|v| v.format == format) {
                Some(Video { modifiers: Modifiers::List(known), .. }) => {
                    if !known.contains(&modifier) {
                        known.push(modifier);
                    }
                }
                _ => video.push(Video {
                    format,
                    modifiers: Modifiers::List(vec![modifier]),
                    sizes: vec![SizeOffer { sizes: Sizes::ANY, rates: Rates::Any }],
                    plane_segments: true,
                }),
            }
        }
        video
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XR24: u32 = u32::from_le_bytes(*b"XR24");
    const NV12: u32 = u32::from_le_bytes(*b"NV12");

    fn tranche(pairs: &[(u32, u64)]) -> Tranche {
        let pairs = pairs.iter().map(|&(fourcc, modifier)| Pair { fourcc, modifier }).collect();
        Tranche { pairs, ..Tranche::default() }
    }

    fn feedback(tranches: &[&[(u32, u64)]]) -> Feedback {
        Feedback { main_device: vec![], tranches: tranches.iter().map(|pairs| tranche(pairs)).collect() }
    }

    #[test]
    fn a_table_is_read_as_the_protocol_says() {
        let mut table = Vec::new();
        for (fourcc, modifier) in [(XR24, 7u64), (NV12, 0)] {
            table.extend(fourcc.to_ne_bytes());
            table.extend(0u32.to_ne_bytes());
            table.extend(modifier.to_ne_bytes());
        }
        // Half an entry at the end is none.
        table.extend([1; 8]);

        let pairs = parse_table(&table);

        assert_eq!(pairs, [Pair { fourcc: XR24, modifier: 7 }, Pair { fourcc: NV12, modifier: 0 }]);
        let indices: Vec<u8> = [1u16, 9, 0].iter().flat_map(|i| i.to_ne_bytes()).collect();
        let named: Vec<u32> = named(&pairs, &indices).map(|p| p.fourcc).collect();
        assert_eq!(named, [NV12, XR24], "index 9 is beyond the table");
    }

    #[test]
    fn a_table_shorter_than_it_says_is_an_error() {
        let file = File::open("/dev/null").unwrap();

        let error = read_table(file.into(), 16).unwrap_err();

        assert!(matches!(error, WaylandError::FormatTable { size: 16, .. }), "{error}");
    }

    #[test]
    fn linear_goes_without_saying_only_where_it_must() {
        let both = feedback(&[&[(XR24, 0), (XR24, IMPLICIT)]]);
        assert_eq!(both.takes(XR24, Some(Modifier::LINEAR)), Some(0));
        assert_eq!(both.takes(XR24, None), Some(0));
        assert_eq!(both.takes(XR24, Some(Modifier(5))), None);
        assert_eq!(both.takes(NV12, None), None);
        let implicit = feedback(&[&[(XR24, IMPLICIT)]]);
        assert_eq!(implicit.takes(XR24, Some(Modifier::LINEAR)), Some(IMPLICIT));
    }

    #[test]
    fn modifiers_are_offered_best_tranche_first() {
        let video = feedback(&[&[(XR24, 9)], &[(XR24, 0), (NV12, 0), (XR24, 9)]]).video();
        let modifiers: Vec<_> = video.iter().map(|v| (v.format, v.modifiers.clone())).collect();
        assert_eq!(
            modifiers,
            [
                (Format::Xr24, Modifiers::List(vec![Modifier(9), Modifier::LINEAR])),
                (Format::Nv12, Modifiers::List(vec![Modifier::LINEAR])),
            ]
        );
    }

    #[test]
    fn a_new_first_choice_is_worth_new_buffers_once() {
        let before = feedback(&[&[(XR24, 0)]]);
        let scanout = feedback(&[&[(XR24, 9)], &[(XR24, 0)]]);
        assert!(scanout.is_better_with_another(&before, XR24, Modifier::LINEAR));
        assert!(!scanout.is_better_with_another(&scanout, XR24, Modifier::LINEAR));
        assert!(!scanout.is_better_with_another(&before, XR24, Modifier(9)));
        assert!(!before.is_better_with_another(&scanout, XR24, Modifier::LINEAR));
    }
}
