//! Sizes and rates: what two lists have in common, and in which order it is worth trying.

use std::cmp::Reverse;

use crate::offer::{Rate, Rates, Size, SizeOffer, Sizes, Stream};

/// Where nobody asks for a rate, one above this is taken only if there is no other: displays refresh at 60, and a camera
/// that can do 120 pays for it with light and bandwidth.
const USUAL_RATE: Rate = Rate::new(60, 1);

/// Where nobody asks for a size, a range (a scaler, a test picture) is used up to here and not to its end, which is often
/// only what a 16-bit field can hold.
const USUAL_SIZE: Size = Size::new(3840, 2160);

/// The sizes in both, if any.
pub(super) fn common_sizes(a: &Sizes, b: &Sizes) -> Option<Sizes> {
    match (*a, *b) {
        (Sizes::Exact(size), _) => b.contains(size).then_some(Sizes::Exact(size)),
        (_, Sizes::Exact(size)) => a.contains(size).then_some(Sizes::Exact(size)),
        (Sizes::Range { min, max, step }, Sizes::Range { min: min2, max: max2, step: step2 }) => {
            let (w0, w1, ws) = common_steps((min.width, max.width, step.width), (min2.width, max2.width, step2.width))?;
            let (h0, h1, hs) =
                common_steps((min.height, max.height, step.height), (min2.height, max2.height, step2.height))?;
            Some(Sizes::Range { min: Size::new(w0, h0), max: Size::new(w1, h1), step: Size::new(ws, hs) })
        }
    }
}

/// What two progressions (first, last, step) have in common, as one.
fn common_steps(a: (u32, u32, u32), b: (u32, u32, u32)) -> Option<(u32, u32, u32)> {
    let (step_a, step_b) = (u64::from(a.2.max(1)), u64::from(b.2.max(1)));
    // No size is larger than a 16-bit field, whatever a driver says.
    let last = u64::from(a.1.min(b.1).min(65535));
    let step = lcm(step_a, step_b);
    let from = |first: u32, step: u64, floor: u64| {
        let first = u64::from(first);
        first + floor.saturating_sub(first).div_ceil(step) * step
    };
    let floor = u64::from(a.0.max(b.0));
    // Both meet within one common step of the first place that both have reached, or never.
    let mut meet = from(a.0, step_a, floor);
    while meet <= last && meet < floor + step && !(meet - u64::from(b.0)).is_multiple_of(step_b) {
        meet += step_a;
    }
    if meet > last || !(meet - u64::from(b.0)).is_multiple_of(step_b) {
        return None;
    }
    let last = meet + (last - meet) / step * step;
    Some((meet as u32, last as u32, step.min(u64::from(u32::MAX)) as u32))
}

/// Greatest common divisor.
pub(super) fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Least common multiple of two numbers above 0.
pub(super) fn lcm(a: u64, b: u64) -> u64 {
    a / gcd(a, b) * b
}

/// The rates in both, if any.
pub(super) fn common_rates(a: &Rates, b: &Rates) -> Option<Rates> {
    match (a, b) {
        (Rates::Any, other) | (other, Rates::Any) => Some(other.clone()),
        (Rates::List(list), other) | (other, Rates::List(list)) => {
            let both: Vec<Rate> = list.iter().copied().filter(|&r| other.contains(r)).collect();
            (!both.is_empty()).then_some(Rates::List(both))
        }
        (Rates::Range(a0, a1), Rates::Range(b0, b1)) => {
            let (min, max) = (*a0.max(b0), *a1.min(b1));
            (min <= max).then_some(Rates::Range(min, max))
        }
    }
}

/// Frames a second from which movement looks smooth.
const SMOOTH: Rate = Rate::new(24, 1);

/// Sizes and rates to try, best first: each size at its best rate and then its others, sizes as
/// `natural` has them, then the stream's that comes in, then the largest that moves smoothly, then the largest.
pub(super) fn points(offers: &[SizeOffer], natural: &[Size], input: Option<&Stream>) -> Vec<(Size, Option<Rate>)> {
    let liked: Vec<Size> = natural.iter().copied().chain(input.map(|s| s.size)).collect();
    let mut sizes: Vec<(Size, Vec<Option<Rate>>)> = Vec::new();
    for offer in offers {
        let rates = rate_points(&offer.rates, input);
        for size in size_points(&offer.sizes, &liked) {
            sizes.push((size, rates.clone()));
        }
    }
    let place = |size: &Size| liked.iter().position(|l| l == size).unwrap_or(usize::MAX);
    let area = |size: &Size| u64::from(size.width) * u64::from(size.height);
    // Many a camera has its largest sizes at a few frames a second, for stills.
    let smooth = |rates: &[Option<Rate>]| rates.iter().any(|rate| rate.is_none_or(|r| r >= SMOOTH));
    sizes.sort_by_key(|(size, rates)| (place(size), !smooth(rates), Reverse(area(size)), Reverse(size.width)));
    // A size may come from several entries with rates each.
    sizes.dedup_by(|later, first| {
        let same = later.0 == first.0;
        if same {
            first.1.append(&mut later.1);
        }
        same
    });
    let preferred = input.and_then(|s| s.rate);
    let mut points = Vec::new();
    for (size, mut rates) in sizes {
        rates.sort_by_key(|rate| rate_order(*rate, preferred));
        rates.dedup();
        points.extend(rates.into_iter().map(|rate| (size, rate)));
    }
    points
}

fn size_points(sizes: &Sizes, liked: &[Size]) -> Vec<Size> {
    match *sizes {
        Sizes::Exact(size) => vec![size],
        Sizes::Range { min, max, step } => {
            let mut points: Vec<Size> = liked.iter().copied().filter(|&l| sizes.contains(l)).collect();
            let most = |min: u32, max: u32, step: u32, usual: u32| {
                let top = max.min(usual.max(min));
                min + top.saturating_sub(min) / step.max(1) * step.max(1)
            };
            let largest = Size::new(
                most(min.width, max.width, step.width, USUAL_SIZE.width),
                most(min.height, max.height, step.height, USUAL_SIZE.height),
            );
            points.push(largest);
            points
        }
    }
}

fn rate_points(rates: &Rates, input: Option<&Stream>) -> Vec<Option<Rate>> {
    let incoming = input.and_then(|s| s.rate);
    match rates {
        Rates::Any => vec![incoming],
        Rates::List(list) => list.iter().copied().map(Some).collect(),
        Rates::Range(min, max) => {
            let usual = USUAL_RATE.clamp(*min, *max.max(min));
            incoming.filter(|&r| rates.contains(r)).into_iter().chain([usual]).map(Some).collect()
        }
    }
}

/// The incoming rate, then those up to the usual from the highest down, then those above from the lowest up.
fn rate_order(rate: Option<Rate>, preferred: Option<Rate>) -> (bool, bool, Reverse<Option<Rate>>, Option<Rate>) {
    let above = rate.is_some_and(|r| r > USUAL_RATE);
    (rate != preferred, above, Reverse(rate.filter(|_| !above)), rate)
}

/// The size in `sizes` that is nearest to `to`.
pub(super) fn nearest_size(sizes: &[Sizes], to: Size) -> Option<Size> {
    let clamp = |n: u32, min: u32, max: u32, step: u32| {
        let inside = n.clamp(min, max.max(min));
        min + (inside - min) / step.max(1) * step.max(1)
    };
    let one = |s: &Sizes| match *s {
        Sizes::Exact(size) => size,
        Sizes::Range { min, max, step } => Size::new(
            clamp(to.width, min.width, max.width, step.width),
            clamp(to.height, min.height, max.height, step.height),
        ),
    };
    sizes.iter().map(one).min_by_key(|&s| distance(s, to))
}

/// How far two sizes are apart.
pub(super) fn distance(a: Size, b: Size) -> u32 {
    a.width.abs_diff(b.width).saturating_add(a.height.abs_diff(b.height))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(min: (u32, u32), max: (u32, u32), step: (u32, u32)) -> Sizes {
        Sizes::Range { min: Size::new(min.0, min.1), max: Size::new(max.0, max.1), step: Size::new(step.0, step.1) }
    }

    #[test]
    fn stepped_ranges_meet_where_both_step() {
        let a = range((16, 2), (1920, 1080), (16, 2));
        let b = range((24, 1), (1000, 2000), (24, 1));
        assert_eq!(common_sizes(&a, &b), Some(range((48, 2), (960, 1080), (48, 2))));
    }

    #[test]
    fn ranges_that_step_past_each_other_have_nothing_in_common() {
        let a = range((2, 2), (100, 100), (2, 2));
        let b = range((3, 3), (99, 99), (2, 2));
        assert_eq!(common_sizes(&a, &b), None);
    }

    #[test]
    fn any_size_with_itself_is_any_size() {
        assert_eq!(common_sizes(&Sizes::ANY, &Sizes::ANY), Some(Sizes::ANY));
    }

    #[test]
    fn rate_ranges_overlap_or_do_not() {
        let r = |n| Rate::new(n, 1);
        assert_eq!(
            common_rates(&Rates::Range(r(1), r(30)), &Rates::Range(r(24), r(60))),
            Some(Rates::Range(r(24), r(30)))
        );
        assert_eq!(common_rates(&Rates::Range(r(1), r(20)), &Rates::Range(r(24), r(60))), None);
    }

    #[test]
    fn rates_up_to_sixty_come_first_from_the_top() {
        let rates = Rates::List([15, 120, 60, 90, 30].map(|n| Rate::new(n, 1)).to_vec());
        let offer = SizeOffer { sizes: Sizes::Exact(Size::new(640, 480)), rates };
        let order: Vec<f64> =
            points(&[offer], &[], None).into_iter().filter_map(|(_, rate)| rate).map(Rate::hz).collect();
        assert_eq!(order, [60.0, 30.0, 15.0, 90.0, 120.0]);
    }

    #[test]
    fn an_unbounded_range_is_used_up_to_ultra_high_definition() {
        let offer = SizeOffer { sizes: Sizes::ANY, rates: Rates::Any };
        assert_eq!(points(&[offer], &[], None), [(Size::new(3840, 2160), None)]);
    }
}
