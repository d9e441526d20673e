//! How likely each symbol is: 256 distributions that both sides know, so that a stripe names one by a byte.
//!
//! Residuals of one context are near to Student's t-distribution: of many degrees of freedom in plain noise, of few where
//! edges are among them. Made by whole numbers alone, so that every machine makes the same.

/// Bits of a probability.
pub(crate) const BITS: u32 = 11;

/// All probabilities together.
pub(crate) const TOTAL: usize = 1 << BITS;

/// The symbol that stands for one that its distribution does not have.
pub(crate) const ESCAPE: u8 = 255;

/// Distributions.
pub(crate) const MODELS: usize = 256;

/// Scales of each shape.
const SCALES: usize = 64;

/// How often each symbol occurs in [`TOTAL`]; 0 where it is escaped. Symbols 2d - 1 and 2d are residuals of size d.
pub(crate) fn frequencies(model: u8) -> [u16; 256] {
    let (shape, scale) = (usize::from(model) / SCALES, u32::from(model) % SCALES as u32);
    let width = [16u64, 20, 25][scale as usize % 3] << (scale / 3);
    let weight = |size: u64| {
        let mut weight = (width << 31) / (width + ((size * size) << 10));
        for _ in 0..SQUARINGS[shape] {
            weight = (weight * weight) >> 31;
        }
        weight
    };
    // Of no residual larger than a byte's, nor of the escape's own number.
    let weights: [u64; 256] = std::array::from_fn(|v| if v < 255 { weight((v as u64).div_ceil(2)) } else { 0 });
    let sum: u64 = weights.iter().sum();
    let mut out = [0; 256];
    let (mut left, mut rare) = (TOTAL as u64, 0);
    for (out, weight) in out.iter_mut().zip(weights) {
        let share = weight * TOTAL as u64 / sum;
        *out = share as u16;
        left -= share;
        if share == 0 {
            rare += weight;
        }
    }
    let escape = (rare * TOTAL as u64 / sum).max(1);
    let mut at = 0;
    if left < escape {
        // Only where rounding down lost nothing, as with a single symbol.
        out[0] -= (escape - left) as u16;
        left = escape;
    }
    while left > escape {
        out[at] += 1;
        left -= 1;
        at = if out[(at + 1) % 256] == 0 { 0 } else { at + 1 };
    }
    out[usize::from(ESCAPE)] = escape as u16;
    out
}

/// How often a shape's weight is squared: 1, 3, 7 and 31 degrees of freedom.
const SQUARINGS: [u32; 4] = [0, 1, 2, 4];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_distribution_is_whole() {
        for model in 0..=255 {
            let frequencies = frequencies(model);
            let sum: usize = frequencies.iter().map(|&f| usize::from(f)).sum();
            assert_eq!(sum, TOTAL, "{model}");
            assert!(frequencies[255] > 0 && frequencies.iter().all(|&f| usize::from(f) < TOTAL), "{model}");
            assert!(frequencies[..255].is_sorted_by(|a, b| a >= b), "{model}");
        }
    }
}
