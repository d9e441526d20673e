//! What a sensor adds to light: shot noise by Poisson, read noise by Gauss; always the same for the same seed.

use std::f32::consts::TAU;

/// A level of noise.
#[derive(Debug, Clone, Copy)]
pub struct Level {
    /// In file names.
    pub name: &'static str,
    /// Electrons of a white pixel.
    pub full_well: f32,
    /// Standard deviation of reading it out, in electrons.
    pub read: f32,
}

/// Daylight, a room, and a room at night.
pub const LEVELS: [Level; 3] = [
    Level { name: "low", full_well: 8000.0, read: 2.5 },
    Level { name: "medium", full_well: 1000.0, read: 2.5 },
    Level { name: "high", full_well: 160.0, read: 2.0 },
];

impl Level {
    /// Standard deviation of a pixel with this part of the full well, as a part of the full well.
    pub fn deviation(&self, light: f32) -> f32 {
        (light * self.full_well + self.read * self.read).sqrt() / self.full_well
    }
}

/// Bits that a sample with this standard deviation costs any codec.
pub fn bits(deviation: f32) -> f64 {
    f64::from((4.13 * deviation).log2().max(0.0))
}

/// SplitMix64, and what is drawn from it.
#[derive(Debug)]
pub struct Random {
    state: u64,
    spare: Option<f32>,
}

impl Random {
    /// Numbers that depend on the name alone.
    pub fn new(name: &str) -> Random {
        // FNV-1a: any well mixed seed does.
        let seed =
            name.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Random { state: seed, spare: None }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes()).flatten().take(count).collect()
    }

    /// Above 0, at most 1.
    fn unit(&mut self) -> f32 {
        ((self.next() >> 40) + 1) as f32 / (1 << 24) as f32
    }

    /// A standard normal number, by Box and Muller.
    pub fn gauss(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * self.unit().ln()).sqrt();
        let (sin, cos) = (TAU * self.unit()).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// A Poisson number: exactly for few, by the normal approximation with its skew for many.
    pub fn poisson(&mut self, mean: f32) -> f32 {
        if mean >= 16.0 {
            let z = self.gauss();
            return (mean + mean.sqrt() * z + (z * z - 1.0) / 6.0).round().max(0.0);
        }
        let limit = (-mean).exp();
        let (mut product, mut count) = (self.unit(), 0.0);
        while product > limit {
            product *= self.unit();
            count += 1.0;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(mut draw: impl FnMut() -> f32) -> (f64, f64) {
        let draws: Vec<f64> = (0..200_000).map(|_| f64::from(draw())).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        (mean, draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / draws.len() as f64)
    }

    #[test]
    fn gauss_has_unit_variance() {
        let mut random = Random::new("gauss");
        let (mean, variance) = moments(|| random.gauss());
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn poisson_has_its_mean_as_variance_on_both_paths() {
        for rate in [0.5, 7.0, 15.9, 16.1, 400.0] {
            let mut random = Random::new("poisson");
            let (mean, variance) = moments(|| random.poisson(rate));
            let rate = f64::from(rate);
            assert!(
                (mean / rate - 1.0).abs() < 0.01 && (variance / rate - 1.0).abs() < 0.03,
                "{rate}: {mean} {variance}"
            );
        }
    }

    #[test]
    fn random_same_name_gives_same_numbers() {
        let draw = |name| Random::new(name).next();
        assert_eq!(draw("a"), draw("a"));
        assert_ne!(draw("a"), draw("b"));
    }
}
