//! Dense stripes, as "A dense stripe" tells of them.

use super::{Bits, Front, Kind, avg};

/// The places in a row of each component's samples.
fn components(kind: &Kind, samples: usize) -> Vec<Vec<usize>> {
    let from = |first: usize, step: usize| (first..samples).step_by(step).collect();
    match (kind.yuv, kind.chroma_first) {
        (true, false) => vec![from(0, 2), from(1, 4), from(3, 4)],
        (true, true) => vec![from(1, 2), from(0, 4), from(2, 4)],
        (false, _) => (0..kind.components).map(|c| from(c, kind.components)).collect(),
    }
}

/// The samples of a component in a row.
#[derive(Clone, Copy)]
struct Row<'a>(&'a [i64]);

impl Row<'_> {
    /// `p[j]`, the last index counted from 1.
    fn sample(self, p: usize, j1: usize) -> i64 {
        let Some(j) = j1.checked_sub(1) else { return self.0[0] };
        self.0.get(4 * j + p).copied().unwrap_or_else(|| self.0[(self.0.len() - 1) / 4 * 4])
    }

    /// The same of symbols, which are 0 beyond a lane.
    fn symbol(self, p: usize, j1: usize) -> i64 {
        j1.checked_sub(1).and_then(|j| self.0.get(4 * j + p)).copied().unwrap_or(0)
    }
}

/// L and R of lanes 1, 2 and 3.
fn sides(p: usize, j1: usize) -> [(usize, usize); 2] {
    [[(0, 0); 2], [(0, j1), (2, j1)], [(0, j1), (0, j1 + 1)], [(2, j1), (0, j1 + 1)]][p]
}

fn mean(a: i64, b: i64) -> i64 {
    avg(a as usize, b as usize) as i64
}

struct Place<'a> {
    row: Row<'a>,
    above: Option<Row<'a>>,
    reference: Option<Row<'a>>,
    reference_above: Option<Row<'a>>,
    /// Lane, and index from 1.
    p: usize,
    j1: usize,
    most: i64,
}

impl Place<'_> {
    fn between(&self) -> i64 {
        let (p, j1) = (self.p, self.j1);
        let [l, r] = sides(p, j1).map(|(p, j1)| self.row.sample(p, j1));
        match (p, self.above) {
            (0, None) if j1 == 1 => 0,
            (0, None) => self.row.sample(0, j1 - 1),
            (0, Some(up)) => mean(up.sample(0, j1), mean(up.sample(3, j1 - 1), up.sample(1, j1))),
            (_, None) => mean(l, r),
            (_, Some(up)) => {
                let [lu, ru] = sides(p, j1).map(|(p, j1)| up.sample(p, j1));
                let g = mean(l, r);
                mean(g, (up.sample(p, j1) + g - mean(lu, ru)).clamp(0, self.most))
            }
        }
    }

    fn weighted(&self, weights: &[i8], up: Row<'_>) -> i64 {
        let (p, j1) = (self.p, self.j1);
        let at = |row: Row<'_>| sides(p, j1).map(|(p, j1)| row.sample(p, j1));
        let a = up.sample(p, j1);
        let [[x0, x1], [x2, x3]] = match p {
            0 => [[(3, j1 - 1), (1, j1)], [(2, j1 - 1), (2, j1)]].map(|two| two.map(|(p, j1)| up.sample(p, j1))),
            _ => [at(up), at(self.row)],
        };
        let mut x = vec![x0, x1, x2, x3];
        if let (Some(t), Some(tu)) = (self.reference, self.reference_above) {
            let [l, r] = if p == 0 { [t.sample(3, j1 - 1), t.sample(1, j1)] } else { at(t) };
            x.extend([t.sample(p, j1), tu.sample(p, j1), mean(l, r)]);
        }
        let mut s = 32;
        for (x, &w) in x.iter().zip(weights) {
            s += (x - a) * i64::from(w);
            if self.most == 255 {
                s = s.clamp(-32768, 32767);
            }
        }
        (a + (s >> 6)).clamp(0, self.most)
    }

    fn prediction(&self, mode: u8, weights: &[i8]) -> i64 {
        let t = || self.reference.unwrap().sample(self.p, self.j1);
        match (mode, self.above) {
            (0, Some(up)) => up.sample(self.p, self.j1),
            (0 | 1, _) | (4, None) => self.between(),
            (2, _) => t(),
            (3, None) if self.p == 0 => t(),
            (3, _) => mean(self.between(), t()),
            (4, Some(up)) => self.weighted(weights, up),
            _ => panic!("mode {mode}"),
        }
    }
}

/// The metric of a symbol.
fn metric(row: Row<'_>, above: Option<Row<'_>>, p: usize, j1: usize) -> i64 {
    let [l, r] = sides(p, j1).map(|(p, j1)| row.symbol(p, j1));
    let sum = match (p, above) {
        (0, None) => 255,
        (_, None) => 2 * l + 2 * r,
        (0, Some(up)) => up.symbol(3, j1 - 1) + up.symbol(1, j1) + 2 * up.symbol(0, j1),
        (2, Some(up)) => l + r + up.symbol(1, j1) + up.symbol(3, j1),
        (_, Some(up)) => l + r + 2 * up.symbol(p, j1),
    };
    sum.min(255)
}

/// The shares of all symbols.
fn model(n: u8) -> Vec<u64> {
    let (shape, s) = (usize::from(n >> 6), usize::from(n & 63));
    let d = [16u64, 20, 25][s % 3] << (s / 3);
    let weight = |v: u64| {
        let z = v.div_ceil(2);
        (0..[0, 1, 2, 4][shape]).fold((d << 31) / (d + 1024 * z * z), |w, _| (w * w) >> 31)
    };
    let weights: Vec<u64> = (0..255).map(weight).collect();
    let sum: u64 = weights.iter().sum();
    let mut shares: Vec<u64> = weights.iter().map(|w| w * 2048 / sum).collect();
    let without: u64 = weights.iter().zip(&shares).filter(|(_, share)| **share == 0).map(|(w, _)| w).sum();
    let escape = (without * 2048 / sum).max(1);
    let left = 2048 - shares.iter().sum::<u64>();
    shares[0] -= escape.saturating_sub(left);
    let some = shares.iter().rposition(|&share| share > 0).unwrap() + 1;
    (0..left.saturating_sub(escape) as usize).for_each(|i| shares[i % some] += 1);
    shares.push(escape);
    shares
}

/// Of a residual or bucket, with its sign.
fn signed(r: i64) -> i64 {
    if r % 2 == 0 { r / 2 } else { -(r + 1) / 2 }
}

pub fn stripe(kind: &Kind, row_bytes: usize, bytes: usize, coded: &[u8], reference: Option<&[u8]>) -> Vec<u8> {
    const LEAST: [i64; 16] = [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181];
    let (size, most) = if kind.wide { (2, 65535) } else { (1, 255) };
    let (rows, up) = (bytes / row_bytes, if kind.bayer { 2 } else { 1 });
    let group = |y: usize| if y < up { 0 } else { 1 + (y - up) / 8 };
    let places = components(kind, row_bytes / size);
    let taken_apart = |packed: &[u8]| -> Vec<Vec<Vec<i64>>> {
        let value = |b: &[u8]| b.iter().rev().fold(0, |v, &b| v << 8 | i64::from(b));
        let row = |row: &[u8]| {
            let of = |places: &Vec<usize>| places.iter().map(|i| value(&row[size * i..][..size])).collect();
            places.iter().map(of).collect()
        };
        packed.chunks(row_bytes).map(row).collect()
    };
    let reference = reference.map(taken_apart);

    let mut front = Front(coded);
    let modes = front.take(group(rows - 1) + 1);
    let each = if reference.is_some() { 7 } else { 4 };
    let weights = front.take(if modes.contains(&4) { places.len() * 4 * each } else { 0 });
    let weights: Vec<i8> = weights.iter().map(|&w| w as i8).collect();
    let low_bits = front.take(places.len());
    let sets: Vec<Vec<u8>> = (0..2 * places.len())
        .map(|_| {
            let used = front.number(2);
            (0..16).map(|context| if used >> context & 1 == 1 { front.number(1) as u8 } else { 0 }).collect()
        })
        .collect();
    let (e, b) = (front.number(4), front.number(4));
    let (mut escapes, low) = (Front(front.take(e)), front.take(b));
    let mut low = Bits { bytes: low, at: 0 };
    let mut states: Vec<u64> = (0..32).map(|_| front.number(4) as u64).collect();
    let models: Vec<Vec<u64>> = (0..=255).map(model).collect();

    let mut out: Vec<Vec<Vec<i64>>> = Vec::new();
    let mut symbols: Vec<Vec<Vec<i64>>> = Vec::new();
    for y in 0..rows {
        out.push(places.iter().map(|places| vec![0; places.len()]).collect());
        symbols.push(out[y].clone());
        for c in 0..places.len() {
            let h = low_bits[c];
            for p in [0, 2, 1, 3] {
                for (number, i) in (p..places[c].len()).step_by(4).enumerate() {
                    let j1 = number + 1;
                    let above = y.checked_sub(up).map(|y| Row(&symbols[y][c]));
                    let metric = metric(Row(&symbols[y][c]), above, p, j1);
                    let context = LEAST.iter().filter(|least| metric >= **least).count() - 1;
                    let shares = &models[usize::from(sets[2 * c + usize::from(p > 0)][context])];
                    let state = &mut states[number % 32];
                    let (mut slot, mut symbol) = (*state % 2048, 0);
                    while slot >= shares[symbol] {
                        slot -= shares[symbol];
                        symbol += 1;
                    }
                    *state = shares[symbol] * (*state >> 11) + slot;
                    if *state < 1 << 15 {
                        *state = *state << 16 | front.number(2) as u64;
                    }
                    let bucket = if symbol == 255 { escapes.number(size) } else { symbol } as i64;
                    symbols[y][c][i] = bucket.min(255);
                    let below = low.take(h.into()) as i64;
                    let d = (signed(bucket) << h | below) - ((1 << h) >> 1);

                    let (before, now) = out.split_at(y);
                    let place = Place {
                        row: Row(&now[0][c]),
                        above: y.checked_sub(up).map(|y| Row(&before[y][c])),
                        reference: reference.as_ref().map(|r| Row(&r[y][c])),
                        reference_above: reference.as_ref().zip(y.checked_sub(up)).map(|(r, y)| Row(&r[y][c])),
                        p,
                        j1,
                        most,
                    };
                    let weights = weights.get((4 * c + p) * each..).unwrap_or_default();
                    let weights = &weights[..each.min(weights.len())];
                    let x = (place.prediction(modes[group(y)], weights) + d) & most;
                    out[y][c][i] = x;
                }
            }
        }
    }
    assert!(front.0.is_empty() && escapes.0.is_empty() && low.at.div_ceil(8) == low.bytes.len());
    assert!(states.iter().all(|&x| x == 1 << 15));

    let mut packed = vec![0; bytes];
    for (row, values) in packed.chunks_mut(row_bytes).zip(&out) {
        for (places, values) in places.iter().zip(values) {
            for (place, value) in places.iter().zip(values) {
                row[size * place..][..size].copy_from_slice(&value.to_le_bytes()[..size]);
            }
        }
    }
    packed
}
