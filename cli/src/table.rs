//! Tables, words and a little colour for people.

use shrbuf_pipeline::Role;
use shrbuf_pipeline::outline::{Outline, OutlineElement};
use shrbuf_pipeline::plan::LinkPlan;

use crate::log::colours;

/// Colours where standard output is a terminal that wants them.
#[derive(Clone, Copy)]
pub struct Paint(bool);

impl Paint {
    /// For standard output.
    pub fn stdout() -> Paint {
        Paint(colours(&std::io::stdout()))
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// As it should be.
    pub fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    /// As it should not be.
    pub fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// How a column is set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Columns that are as wide as their widest cell. Columns without any text are left out.
pub struct Table {
    heads: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(heads: &[(&'static str, Align)]) -> Table {
        Table { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the columns are dropped.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().take(self.heads.len()).collect());
    }

    /// The text, each line indented by two.
    pub fn show(&self, paint: Paint) -> String {
        let cell = |row: &[String], i: usize| row.get(i).map_or(0, |c| c.chars().count());
        let widths: Vec<usize> = self
            .heads
            .iter()
            .enumerate()
            .map(|(i, (head, _))| match self.rows.iter().map(|r| cell(r, i)).max().unwrap_or(0) {
                0 => 0,
                widest => widest.max(head.chars().count()),
            })
            .collect();
        let line = |cells: &dyn Fn(usize) -> String| {
            let mut out = String::from("  ");
            for (i, (_, align)) in self.heads.iter().enumerate().filter(|(i, _)| widths[*i] > 0) {
                let width = widths[i];
                out.push_str(&match align {
                    Align::Left => format!("{:width$}  ", cells(i)),
                    Align::Right => format!("{:>width$}  ", cells(i)),
                });
            }
            out.trim_end().to_owned()
        };
        let mut out = paint.bold(&line(&|i| self.heads[i].0.to_owned()));
        out.push('\n');
        for row in &self.rows {
            out.push_str(&line(&|i| row.get(i).cloned().unwrap_or_default()));
            out.push('\n');
        }
        out
    }
}

/// `camera → display`, and with a queue of the link's own `camera → queue → display`: of such a link's two halves only
/// the first has a name.
pub fn link(link: &LinkPlan, outline: &Outline) -> Option<String> {
    let own = |name: &str| outline.elements.iter().any(|e| e.name == name && is_own_queue(e));
    if own(&link.from) {
        return None;
    }
    Some(match link.to.split_once('→').filter(|_| own(&link.to)) {
        Some((_, to)) => format!("{} → queue → {to}", link.from),
        None => format!("{} → {}", link.from, link.to),
    })
}

/// True for the queue that a link's `queue = { … }` stands for.
pub fn is_own_queue(element: &OutlineElement) -> bool {
    matches!(element.role, Role::Queue(_)) && element.name.contains('→')
}

/// `dma-buf (v4l2)`: the kind of memory, and who allocates it where that is not the same.
pub fn memory(link: &LinkPlan) -> String {
    let (kind, origin) = (link.memory.to_string(), link.stream.origin.name());
    if kind == origin { kind } else { format!("{kind} ({origin})") }
}

/// `1 element`, `2 elements`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Bytes in the unit that people would choose.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Nanoseconds in the unit that people would choose.
pub fn time(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_ones_are_left_out() {
        let mut table = Table::new(&[("name", Align::Left), ("nothing", Align::Left), ("n", Align::Right)]);
        table.row(["a→b".into(), String::new(), "1".into()]);
        table.row(["camera".into(), String::new(), "100".into()]);
        assert_eq!(table.show(Paint(false)), "  name      n\n  a→b       1\n  camera  100\n");
    }

    #[test]
    fn units_are_those_people_choose() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
        assert_eq!(time(16_666_666), "16.7 ms");
    }
}
