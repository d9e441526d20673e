//! What was measured, as tables and as JSON.

use serde_json::{Value, json};
use shrbuf_bench::sets::{Format, Kind, Set};

use crate::measure::{Cost, OfSet};

/// What speeds are compared to.
pub const YARDSTICK: &str = "zstd -3";

/// Sets that make one table.
pub struct Group {
    /// Its heading.
    pub name: String,
    holds: Box<dyn Fn(&Set) -> bool>,
}

impl Group {
    fn new(name: impl Into<String>, holds: impl Fn(&Set) -> bool + 'static) -> Group {
        Group { name: name.into(), holds: Box::new(holds) }
    }

    /// Its sets of all.
    pub fn of<'a>(&self, measured: &'a [OfSet]) -> Vec<&'a OfSet> {
        measured.iter().filter(|of_set| (self.holds)(&of_set.set)).collect()
    }
}

/// A photograph that does not move, or moves slowly.
fn photo(set: &Set) -> bool {
    matches!(set.kind, Kind::Still | Kind::Pan)
}

/// All tables.
pub fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for (format, name) in [(Format::Yuyv, "YUYV"), (Format::Nv12, "NV12"), (Format::Rg12, "12-bit Bayer")] {
        for noise in ["low", "medium", "high"] {
            let holds = move |set: &Set| photo(set) && set.format == format && set.noise == noise;
            groups.push(Group::new(format!("{name}, photographs with {noise} noise"), holds));
        }
    }
    let of = |kind| move |set: &Set| set.kind == kind;
    groups.extend([
        Group::new("XR24, photographs with medium noise", |set| photo(set) && set.format == Format::Xr24),
        Group::new("films as they are, NV12", |set| set.kind == Kind::Video && set.noise == "none"),
        Group::new("films with noise, NV12 and YUYV", |set| set.kind == Kind::Video && set.noise != "none"),
        Group::new("pairs of pictures as they are", of(Kind::Pair)),
        Group::new("test patterns", of(Kind::Pattern)),
        Group::new("a desktop", of(Kind::Screen)),
        Group::new("random bytes", of(Kind::Random)),
    ]);
    groups
}

/// What a codec came to on all of these sets; `None` unless it took every one.
pub fn sum(of_sets: &[&OfSet], codec: &str) -> Option<Cost> {
    let mut sum = Cost::default();
    for of_set in of_sets {
        sum.add(of_set.costs.get(codec)?);
    }
    (sum.bytes > 0.0).then_some(sum)
}

/// Bits that a codec spends on a sample beyond what its noise costs anyway, over the sets where that is known.
fn above_noise(of_sets: &[&OfSet], codec: &str) -> Option<f64> {
    let mut sum = (0.0, 0.0);
    for of_set in of_sets {
        let (Some(cost), Some(noise)) = (of_set.costs.get(codec), of_set.set.noise_bits) else { continue };
        let samples = if of_set.set.format == Format::Rg12 { cost.bytes / 2.0 } else { cost.bytes };
        sum = (sum.0 + cost.compressed * 8.0 - noise * samples, sum.1 + samples);
    }
    (sum.1 > 0.0).then(|| sum.0 / sum.1)
}

/// A table for each group that has sets, in Markdown's form, codecs in this order.
pub fn text(measured: &[OfSet], order: &[&str]) -> String {
    let mut text = String::new();
    for group in groups() {
        let of_sets = group.of(measured);
        if of_sets.is_empty() {
            continue;
        }
        text += &format!("\n{}, {} sets\n", group.name, of_sets.len());
        text += &format!("| {:<24} | {:>6} | {:>8} | {:>10} ", "codec", "ratio", "compress", "decompress");
        text += &format!("| {:>9} | {:>9} | {:>11} |\n", "× zstd -3", "× zstd -3", "above noise");
        text += "| ------------------------ | -----: | -------: | ---------: | --------: | --------: | ----------: |\n";
        let yardstick = sum(&of_sets, YARDSTICK);
        for codec in order {
            let Some(cost) = sum(&of_sets, codec) else { continue };
            let times = |part: fn(&Cost) -> f64| yardstick.as_ref().map_or(f64::NAN, |y| part(y) / part(&cost));
            let above = above_noise(&of_sets, codec).map_or("-".into(), |bits| format!("{bits:.2}"));
            text += &format!(
                "| {codec:<24} | {:6.2} | {:8.2} | {:10.2} | {:9.2} | {:9.2} | {above:>11} |\n",
                cost.ratio(),
                cost.compress_speed(),
                cost.decompress_speed(),
                times(|c| c.compress),
                times(|c| c.decompress),
            );
        }
    }
    text + "\nSpeeds are GB/s of frames on one core; \"above noise\" is bits a sample beyond log2(4.13 s).\n"
}

/// Everything, set by set.
pub fn json(measured: &[OfSet]) -> Value {
    let line = |of_set: &OfSet| {
        let costs: serde_json::Map<String, Value> =
            of_set.costs.iter().map(|(name, cost)| (name.clone(), cost.to_json())).collect();
        json!({ "set": of_set.set.name(), "noise_bits": of_set.set.noise_bits, "codecs": costs, "failures": of_set.failures })
    };
    measured.iter().map(line).collect()
}
