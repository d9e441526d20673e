//! What a plane takes: formats, and the modifiers of each.

use std::fmt;

use shrbuf::Modifier;
use shrbuf::format::fourcc_name;

/// Formats that a plane takes, in the driver's order, each with its modifiers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlaneFormats(Vec<(u32, Vec<u64>)>);

impl PlaneFormats {
    /// The formats of a driver that knows no modifiers: linear ones, which is what such drivers take.
    pub(super) fn linear(fourccs: &[u32]) -> PlaneFormats {
        PlaneFormats(fourccs.iter().map(|&fourcc| (fourcc, vec![Modifier::LINEAR.0])).collect())
    }

    /// Each DRM fourcc with its modifiers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u64])> {
        self.0.iter().map(|(fourcc, modifiers)| (*fourcc, modifiers.as_slice()))
    }

    /// The modifiers of `fourcc`; empty where the plane does not take it.
    pub fn modifiers(&self, fourcc: u32) -> &[u64] {
        self.0.iter().find(|(f, _)| *f == fourcc).map_or(&[], |(_, modifiers)| modifiers)
    }

    /// Whether the plane lists a format; no modifier means whatever the driver takes without one.
    pub fn takes(&self, fourcc: u32, modifier: Option<u64>) -> bool {
        match modifier {
            Some(modifier) => self.modifiers(fourcc).contains(&modifier),
            None => self.0.iter().any(|(f, _)| *f == fourcc),
        }
    }

    fn add(&mut self, fourcc: u32, modifier: u64) {
        match self.0.iter_mut().find(|(f, _)| *f == fourcc) {
            Some((_, modifiers)) => modifiers.push(modifier),
            None => self.0.push((fourcc, vec![modifier])),
        }
    }
}

impl fmt::Display for PlaneFormats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (fourcc, modifiers)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}", fourcc_name(*fourcc))?;
            if modifiers.as_slice() != [Modifier::LINEAR.0] {
                let names: Vec<String> = modifiers.iter().map(|m| Modifier(*m).to_string()).collect();
                write!(f, " ({})", names.join(" "))?;
            }
        }
        Ok(())
    }
}

/// Reads an `IN_FORMATS` blob (`struct drm_format_modifier_blob` in `drm_mode.h`): a list of fourccs, and a list of
/// modifiers, each with a 64-bit mask of the formats it goes with, counted from an offset. `None` where the blob
/// points outside of itself.
pub(super) fn parse_in_formats(blob: &[u8]) -> Option<PlaneFormats> {
    let u32_at = |at: usize| Some(u32::from_ne_bytes(blob.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_ne_bytes(blob.get(at..at.checked_add(8)?)?.try_into().ok()?));
    let [count_formats, formats_offset, count_modifiers, modifiers_offset] =
        [u32_at(8)? as usize, u32_at(12)? as usize, u32_at(16)? as usize, u32_at(20)? as usize];

    let mut fourccs = Vec::new();
    for i in 0..count_formats {
        fourccs.push(u32_at(formats_offset.checked_add(i.checked_mul(4)?)?)?);
    }
    let mut pairs = Vec::new();
    for i in 0..count_modifiers {
        let at = modifiers_offset.checked_add(i.checked_mul(24)?)?;
        let (mask, first, modifier) = (u64_at(at)?, u32_at(at + 8)? as usize, u64_at(at + 16)?);
        for bit in (0..64).filter(|bit| mask & (1 << bit) != 0) {
            let index = first.checked_add(bit)?;
            pairs.push((index, *fourccs.get(index)?, modifier));
        }
    }
    // By format first: the order of formats is the driver's preference, as is that of modifiers within one.
    pairs.sort_by_key(|&(index, _, _)| index);
    let mut formats = PlaneFormats::default();
    for (_, fourcc, modifier) in pairs {
        formats.add(fourcc, modifier);
    }
    Some(formats)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(formats: &[u32], modifiers: &[(u64, u32, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        let formats_offset = 24;
        let modifiers_offset = formats_offset + formats.len() * 4;
        for word in [1, 0, formats.len(), formats_offset, modifiers.len(), modifiers_offset] {
            out.extend((word as u32).to_ne_bytes());
        }
        formats.iter().for_each(|f| out.extend(f.to_ne_bytes()));
        for (mask, first, modifier) in modifiers {
            out.extend(mask.to_ne_bytes());
            out.extend(first.to_ne_bytes());
            out.extend(0u32.to_ne_bytes());
            out.extend(modifier.to_ne_bytes());
        }
        out
    }

    #[test]
    fn masks_name_the_formats_of_each_modifier() {
        let formats = parse_in_formats(&blob(&[10, 20, 30], &[(0b101, 0, 7), (0b111, 0, 0)])).unwrap();
        assert_eq!(formats.modifiers(10), [7, 0]);
        assert_eq!(formats.modifiers(20), [0]);
        assert_eq!(formats.modifiers(30), [7, 0]);
        assert!(formats.takes(30, Some(7)) && formats.takes(20, None));
        assert!(!formats.takes(20, Some(7)) && !formats.takes(40, None));
    }

    #[test]
    fn a_mask_counts_from_its_offset() {
        let mut fourccs = vec![1; 64];
        fourccs.push(99);
        let formats = parse_in_formats(&blob(&fourccs, &[(1, 64, 5)])).unwrap();
        assert_eq!(formats.modifiers(99), [5]);
    }

    #[test]
    fn a_blob_that_points_outside_itself_is_refused() {
        let good = blob(&[10, 20], &[(0b11, 0, 0)]);
        for length in 0..good.len() {
            assert_eq!(parse_in_formats(&good[..length]), None, "{length} bytes");
        }
        assert_eq!(parse_in_formats(&blob(&[10], &[(0b10, 0, 0)])), None);
        assert_eq!(parse_in_formats(&blob(&[10], &[(1, u32::MAX, 0)])), None);
    }

    #[test]
    fn formats_are_shown_with_the_modifiers_that_are_not_plain() {
        let mut formats = PlaneFormats::linear(&[u32::from_le_bytes(*b"XR24")]);
        formats.add(u32::from_le_bytes(*b"NV12"), 0);
        formats.add(u32::from_le_bytes(*b"NV12"), 0x0300000000000001);
        assert_eq!(formats.to_string(), "XR24, NV12 (LINEAR 0x0300000000000001)");
    }
}
