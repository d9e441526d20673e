//! Where elements lie: columns along the way of the frames, and rows, so that no thread's area covers another's.

use shrbuf_pipeline::outline::Outline;

/// Places of a graph's elements and threads.
#[derive(Debug, Default, PartialEq)]
pub struct Layout {
    /// Column of each element: links lead to higher ones.
    pub column: Vec<usize>,
    /// Row of each element's middle; the topmost is 0.
    pub row: Vec<f64>,
    /// Area of each domain.
    pub areas: Vec<Area>,
}

/// A rectangle of columns and rows, both ends included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    pub columns: (usize, usize),
    pub rows: (f64, f64),
}

impl Area {
    fn meets(&self, other: &Area) -> bool {
        self.columns.0 <= other.columns.1
            && other.columns.0 <= self.columns.1
            && self.rows.0 < other.rows.1 + 1.0
            && other.rows.0 < self.rows.1 + 1.0
    }

    fn moved(&self, down: f64) -> Area {
        Area { rows: (self.rows.0 + down, self.rows.1 + down), ..*self }
    }
}

impl Layout {
    /// Lays out a graph without cycles.
    pub fn of(outline: &Outline) -> Layout {
        let column = columns(outline);
        let mut row = vec![0.0; outline.elements.len()];
        let domains = outline.elements.iter().map(|e| e.domain + 1).max().unwrap_or(0);
        let mut areas: Vec<Area> = (0..domains).map(|d| within(outline, d, &column, &mut row)).collect();
        // From left to right, so that what feeds a domain has its place before it.
        let mut order: Vec<usize> = (0..domains).collect();
        order.sort_by_key(|&d| areas[d].columns.0);
        let mut placed: Vec<Area> = Vec::new();
        for d in order {
            let down = free(&areas[d], wish(outline, d, &row), &placed);
            areas[d] = areas[d].moved(down);
            placed.push(areas[d]);
            for (i, _) in outline.elements.iter().enumerate().filter(|(_, e)| e.domain == d) {
                row[i] += down;
            }
        }
        let top = row.iter().copied().fold(f64::INFINITY, f64::min);
        row.iter_mut().for_each(|r| *r -= top);
        areas.iter_mut().for_each(|a| *a = a.moved(-top));
        Layout { column, row, areas }
    }
}

/// The longest way from a source to each element.
fn columns(outline: &Outline) -> Vec<usize> {
    let mut column = vec![0; outline.elements.len()];
    // A way has at most as many steps as there are elements.
    for _ in 0..outline.elements.len() {
        let mut settled = true;
        for l in &outline.links {
            if column[l.to] <= column[l.from] {
                column[l.to] = column[l.from] + 1;
                settled = false;
            }
        }
        if settled {
            break;
        }
    }
    column
}

/// Rows inside a domain, from 0, and its area: each end has a row, what leads to several lies in their middle.
fn within(outline: &Outline, domain: usize, column: &[usize], row: &mut [f64]) -> Area {
    let members: Vec<usize> = (0..outline.elements.len()).filter(|&i| outline.elements[i].domain == domain).collect();
    let mut after = members.clone();
    after.sort_by_key(|&i| std::cmp::Reverse(column[i]));
    let inner = |i: usize| outline.links.iter().filter(move |l| l.from == i && outline.elements[l.to].domain == domain);
    let fed = |i: usize| outline.links.iter().any(|l| l.to == i && outline.elements[l.from].domain == domain);
    // Ends in the order in which a walk from the domain's beginnings meets them.
    let mut next = 0.0;
    let mut seen = Vec::new();
    let mut stack: Vec<usize> = members.iter().rev().copied().filter(|&i| !fed(i)).collect();
    while let Some(i) = stack.pop() {
        if seen.contains(&i) {
            continue;
        }
        seen.push(i);
        let before = stack.len();
        stack.extend(inner(i).map(|l| l.to));
        stack[before..].reverse();
        if stack.len() == before {
            row[i] = next;
            next += 1.0;
        }
    }
    for &i in &after {
        let rows: Vec<f64> = inner(i).map(|l| row[l.to]).collect();
        if let (Some(first), Some(last)) =
            (rows.iter().copied().reduce(f64::min), rows.iter().copied().reduce(f64::max))
        {
            row[i] = f64::midpoint(first, last);
        }
    }
    let columns = members.iter().map(|&i| column[i]);
    Area {
        columns: (columns.clone().min().unwrap_or(0), columns.max().unwrap_or(0)),
        rows: (0.0, (next - 1.0_f64).max(0.0)),
    }
}

/// How far down a domain would lie level with what feeds it.
fn wish(outline: &Outline, domain: usize, row: &[f64]) -> f64 {
    let inside = |i: usize| outline.elements[i].domain == domain;
    let feed = outline.links.iter().find(|l| inside(l.to) && !inside(l.from));
    feed.map_or(0.0, |l| row[l.from] - row[l.to])
}

/// How far down from where it is an area lies free, nearest to `wish`: below it, above it, further below, …
fn free(area: &Area, wish: f64, placed: &[Area]) -> f64 {
    let tries = (0..).flat_map(|n| [f64::from(n), -f64::from(n)]).map(|off| wish + off);
    // Every area ends somewhere, so that below all of them there is room.
    let limit = 4 * (placed.len() + placed.iter().map(|a| (a.rows.1 - a.rows.0) as usize).sum::<usize>() + 2);
    let mut tries = tries.take(limit + 2 * (area.rows.1 as usize + 1));
    tries.find(|&down| !placed.iter().any(|p| p.meets(&area.moved(down)))).unwrap_or(wish)
}

#[cfg(test)]
mod tests {
    use shrbuf_pipeline::outline::{OutlineElement, OutlineLink};
    use shrbuf_pipeline::{QueueSpec, Role};

    use super::*;

    /// Elements by their domains, and links; those that change the domain lead to a queue.
    fn outline(domains: &[usize], links: &[(usize, usize)]) -> Outline {
        let element = |(i, &domain): (usize, &usize)| {
            let outside = links.iter().any(|&(from, to)| to == i && domains[from] != domain);
            OutlineElement {
                name: format!("e{i}"),
                role: if outside { Role::Queue(QueueSpec::default()) } else { Role::Endpoint },
                inserted: false,
                has_inputs: links.iter().any(|l| l.1 == i),
                has_outputs: links.iter().any(|l| l.0 == i),
                domain,
                span: None,
            }
        };
        let link = |&(from, to): &(usize, usize)| OutlineLink {
            from,
            to,
            from_port: format!("e{from}"),
            to_port: format!("e{to}"),
        };
        Outline { elements: domains.iter().enumerate().map(element).collect(), links: links.iter().map(link).collect() }
    }

    #[test]
    fn a_chain_over_threads_is_one_row() {
        let layout = Layout::of(&outline(&[0, 1, 1], &[(0, 1), (1, 2)]));
        assert_eq!(layout.column, [0, 1, 2]);
        assert_eq!(layout.row, [0.0, 0.0, 0.0]);
    }

    #[test]
    fn branches_of_a_tee_lie_around_it() {
        let layout = Layout::of(&outline(&[0, 0, 0, 0], &[(0, 1), (1, 2), (1, 3)]));
        assert_eq!(layout.row, [0.5, 0.5, 0.0, 1.0]);
    }

    #[test]
    fn areas_of_threads_do_not_meet() {
        let links = [(0, 1), (1, 2), (1, 3), (3, 4), (1, 5), (5, 6), (1, 7), (7, 8)];
        let layout = Layout::of(&outline(&[0, 0, 0, 1, 1, 2, 2, 3, 3], &links));
        let areas = &layout.areas;
        let meet =
            (0..areas.len()).flat_map(|a| (0..a).map(move |b| (a, b))).filter(|&(a, b)| areas[a].meets(&areas[b]));
        assert_eq!(meet.count(), 0, "{layout:?}");
        assert!(layout.row.iter().all(|r| *r >= 0.0), "{layout:?}");
    }

    #[test]
    fn nothing_at_all_is_laid_out() {
        assert_eq!(Layout::of(&Outline::default()), Layout::default());
    }
}
