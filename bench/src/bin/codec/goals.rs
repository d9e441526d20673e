//! What is asked of the frame codec (issue 3, section 2), and whether it does it.

use shrbuf_bench::sets::{Format, Kind, Set};
use shrbuf_bench::table::{Goal, Row};

use crate::measure::{Cost, OfSet};
use crate::summary::{YARDSTICK, sum};

/// Ours, as `ours` names them.
const FAST: &str = "ours, fast";
const FAST_REFERENCE: &str = "ours, fast + reference";
const DENSE: &str = "ours, dense";
/// What a user of zstd would try on pictures. The goal was set by the first; the others are harder to beat.
const DELTA: [&str; 3] = ["byte delta + zstd -1", "delta + zstd -1", "delta above + zstd -1"];
const FFV1: [&str; 2] = ["ffv1, Rice", "ffv1, range coder"];

type Part = fn(&Cost) -> f64;
const SPEEDS: [(&str, Part); 2] = [("compression", Cost::compress_speed), ("decompression", Cost::decompress_speed)];

fn those(measured: &[OfSet], holds: impl Fn(&Set) -> bool) -> Vec<&OfSet> {
    measured.iter().filter(|of_set| holds(&of_set.set)).collect()
}

/// Ours and another on the same sets.
fn row(measure: String, of_sets: &[&OfSet], ours: &str, theirs: &str, part: Part, goal: Goal) -> Row {
    let cost = |codec| sum(of_sets, codec).as_ref().map(part);
    Row::new(measure, cost(ours), cost(theirs), goal)
}

/// The set on which ours does worst beside another.
fn worst(of_sets: &[&OfSet], what: &str, theirs: &str, part: Part, goal: f64) -> Row {
    let pair = |of_set: &&OfSet| {
        let (ours, theirs) = (of_set.costs.get(FAST)?, of_set.costs.get(theirs)?);
        Some((part(ours), part(theirs), of_set.set.name()))
    };
    let pairs: Vec<_> = of_sets.iter().filter_map(pair).collect();
    let met = pairs.iter().filter(|(ours, theirs, _)| *ours >= goal * theirs).count();
    let worst = pairs.iter().min_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let which = worst.map_or(String::new(), |(_, _, name)| format!(", worst {name}"));
    Row::new(
        format!("natural sets: fast, {what}, to {theirs}: {met} of {} meet it{which}", pairs.len()),
        worst.map(|(ours, ..)| *ours),
        worst.map(|(_, theirs, _)| *theirs),
        Goal::Times(goal),
    )
}

/// One line for each goal.
pub fn rows(measured: &[OfSet]) -> Vec<Row> {
    let photo = |set: &Set| matches!(set.kind, Kind::Still | Kind::Pan);
    let medium = those(measured, |set| photo(set) && set.format == Format::Yuyv && set.noise == "medium");
    let mut rows =
        vec![row("YUYV, medium noise: fast, ratio".into(), &medium, FAST, YARDSTICK, Cost::ratio, Goal::AtLeast(1.8))];
    for ((what, speed), times) in SPEEDS.into_iter().zip([18.0, 4.8]) {
        let measure = format!("YUYV, medium noise: fast, {what} GB/s, to {YARDSTICK}");
        rows.push(row(measure, &medium, FAST, YARDSTICK, speed, Goal::Times(times)));
    }
    for noise in ["low", "medium", "high"] {
        let still = those(measured, |set| set.kind == Kind::Still && set.format == Format::Yuyv && set.noise == noise);
        let measure = format!("YUYV, still, {noise} noise: fast with a shared reference, ratio, to without");
        rows.push(row(measure, &still, FAST_REFERENCE, FAST, Cost::ratio, Goal::AtLeast(2.5)));
    }
    let natural = those(measured, |set| set.kind.natural());
    for theirs in DELTA {
        rows.push(worst(&natural, "ratio", theirs, Cost::ratio, 1.0));
        for (what, speed) in SPEEDS {
            rows.push(worst(&natural, &format!("{what} GB/s"), theirs, speed, 4.0));
        }
    }
    // Whichever of the two is smaller.
    let ratio = |codec: &&str| sum(&natural, codec).map_or(0.0, |cost| cost.ratio());
    let ffv1 = FFV1.into_iter().max_by(|a, b| ratio(a).total_cmp(&ratio(b))).unwrap_or(FFV1[0]);
    let measure = |what: &str| format!("natural sets: dense, {what}, to {ffv1}");
    rows.push(row(measure("ratio"), &natural, DENSE, ffv1, Cost::ratio, Goal::Times(1.0)));
    for (what, speed) in SPEEDS {
        rows.push(row(measure(&format!("{what} GB/s")), &natural, DENSE, ffv1, speed, Goal::Times(20.0)));
    }
    for codec in [FAST, DENSE] {
        let expansion = |of_set: &OfSet| Some(100.0 / of_set.costs.get(codec)?.ratio() - 100.0);
        let most = measured.iter().filter_map(expansion).reduce(f64::max);
        rows.push(Row::new(format!("every set: {codec}, largest expansion, %"), most, None, Goal::AtMost(1.0)));
    }
    rows
}
