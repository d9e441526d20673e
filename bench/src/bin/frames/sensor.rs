//! A photograph as a camera would have taken it: light, colour filter, electrons, 12 bits, and back to colours.

use crate::noise::{self, Level, Random};
use crate::picture::{Rgb, Yuv};

/// The value of a dark pixel; sensors have one so that noise around black is not cut off.
const BLACK: f32 = 240.0;
const WHITE: f32 = 4095.0;
/// How much of the full well the brightest pixel fills.
const EXPOSURE: f32 = 0.9;

/// Light of an sRGB value, both from 0 to 1.
fn light(value: f32) -> f32 {
    if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

/// The inverse of `light`.
fn value(light: f32) -> f32 {
    if light <= 0.003_130_8 { light * 12.92 } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 }
}

/// What the sensor put out: RGGB, 12 bits.
#[derive(Debug)]
pub struct Mosaic {
    width: usize,
    height: usize,
    samples: Vec<u16>,
    /// Mean over the samples of the bits that their noise costs.
    pub noise_bits: f64,
}

impl Mosaic {
    /// Takes the photograph.
    pub fn expose(scene: &Rgb, level: &Level, random: &mut Random) -> Mosaic {
        let lights: Vec<f32> = (0..=255u8).map(|v| light(f32::from(v) / 255.0) * EXPOSURE).collect();
        let scale = WHITE - BLACK;
        let costs: Vec<f64> = lights.iter().map(|l| noise::bits(level.deviation(*l) * scale)).collect();
        let (mut samples, mut bits) = (Vec::with_capacity(scene.pixels.len()), 0.0);
        for (i, pixel) in scene.pixels.iter().enumerate() {
            let (x, y) = (i % scene.width, i / scene.width);
            let value = usize::from(pixel[x % 2 + y % 2]);
            let electrons = random.poisson(lights[value] * level.full_well) + random.gauss() * level.read;
            samples.push((BLACK + electrons / level.full_well * scale).round().clamp(0.0, WHITE) as u16);
            bits += costs[value];
        }
        Mosaic { width: scene.width, height: scene.height, noise_bits: bits / samples.len() as f64, samples }
    }

    /// As it lies in memory.
    pub fn rg12(&self) -> Vec<u8> {
        self.samples.iter().flat_map(|s| s.to_le_bytes()).collect()
    }

    /// Colours, by the filters of Malvar, He and Cutler ("High-quality linear interpolation for demosaicing", 2004).
    pub fn develop(&self) -> Rgb {
        let values: Vec<u8> = (0..=4095u16).map(|l| (value(f32::from(l) / 4095.0) * 255.0).round() as u8).collect();
        let tone = |sample: i32| {
            let light = (sample as f32 / 8.0 - BLACK) / (WHITE - BLACK) / EXPOSURE;
            values[(light * 4095.0).round().clamp(0.0, 4095.0) as usize]
        };
        let mut pixels = Vec::with_capacity(self.samples.len());
        for y in 0..self.height {
            for x in 0..self.width {
                let at = |dx: isize, dy: isize| i32::from(self.near(x, y, dx, dy));
                let centre = at(0, 0);
                let cross = at(-1, 0) + at(1, 0) + at(0, -1) + at(0, 1);
                let diagonal = at(-1, -1) + at(1, -1) + at(-1, 1) + at(1, 1);
                let (far_x, far_y) = (at(-2, 0) + at(2, 0), at(0, -2) + at(0, 2));
                // All times 8.
                let green = 4 * centre + 2 * cross - far_x - far_y;
                let along = 5 * centre + 4 * (at(-1, 0) + at(1, 0)) - diagonal - far_x + far_y / 2;
                let across = 5 * centre + 4 * (at(0, -1) + at(0, 1)) - diagonal - far_y + far_x / 2;
                let opposite = 6 * centre + 2 * diagonal - (far_x + far_y) * 3 / 2;
                let own = 8 * centre;
                let [r, g, b] = match (y % 2, x % 2) {
                    (0, 0) => [own, green, opposite],
                    (0, _) => [along, own, across],
                    (_, 0) => [across, own, along],
                    _ => [opposite, green, own],
                };
                pixels.push([tone(r), tone(g), tone(b)]);
            }
        }
        Rgb { width: self.width, height: self.height, pixels }
    }

    /// A sample some steps away, mirrored at the edge so that it has the same colour filter.
    fn near(&self, x: usize, y: usize, dx: isize, dy: isize) -> u16 {
        let mirror = |at: usize, by: isize, size: usize| match at.checked_add_signed(by) {
            Some(there) if there < size => there,
            _ => at.wrapping_add_signed(-by),
        };
        self.samples[mirror(y, dy, self.height) * self.width + mirror(x, dx, self.width)]
    }
}

/// A film's frame as a camera of that level would have seen it, and the mean of the bits that the noise costs a sample of
/// it. Each sample has noise of its own: Y what the sensor would have after tone mapping, U and V half of that.
pub fn disturb(frame: &Yuv, level: &Level, random: &mut Random) -> (Yuv, f64) {
    let deviations: Vec<f32> = (0..=255u8)
        .map(|v| {
            let light = light(((f32::from(v) - 16.0) / 219.0).clamp(0.0, 1.0)).max(1e-4);
            let slope = (value(light * 1.01) - value(light * 0.99)) / (light * 0.02);
            level.deviation(light * EXPOSURE) / EXPOSURE * slope * 219.0
        })
        .collect();
    let costs = |part: f32| -> Vec<f64> { deviations.iter().map(|d| noise::bits(d * part)).collect() };
    let (of_luma, of_chroma) = (costs(1.0), costs(0.5));
    let mut noisy =
        |sample: u8, deviation: f32| (f32::from(sample) + deviation * random.gauss()).round().clamp(1.0, 254.0) as u8;
    let mut result = frame.clone();
    let mut bits = 0.0;
    for (to, &y) in result.y.iter_mut().zip(&frame.y) {
        *to = noisy(y, deviations[usize::from(y)]);
        bits += of_luma[usize::from(y)];
    }
    let half = frame.width / 2;
    for (i, (u, v)) in result.u.iter_mut().zip(&mut result.v).enumerate() {
        let luma = usize::from(frame.y[i / half * frame.rows * frame.width + i % half * 2]);
        (*u, *v) = (noisy(*u, deviations[luma] / 2.0), noisy(*v, deviations[luma] / 2.0));
        bits += of_chroma[luma] * 2.0;
    }
    (result, bits / (frame.y.len() + frame.u.len() * 2) as f64)
}
