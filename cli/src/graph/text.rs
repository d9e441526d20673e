//! The picture as text: boxes and arrows.

use super::{Picture, full, queue, role};
use crate::table::is_own_queue;

/// Lines of a box, and from row to row.
const BOX: usize = 4;
const PITCH: f64 = 5.0;
/// The line of a box that arrows meet.
const AXIS: usize = 1;
/// Characters of an arrow besides its label.
const ARROW: usize = 5;

const LEFT: u8 = 1;
const RIGHT: u8 = 2;
const UP: u8 = 4;
const DOWN: u8 = 8;

/// Draws it.
pub fn draw(picture: &Picture) -> String {
    let boxes: Vec<Vec<String>> = (0..picture.outline.elements.len()).map(|i| lines(picture, i)).collect();
    let width = |i: usize| boxes[i].iter().map(|l| l.chars().count()).max().unwrap_or(0) + 4;
    let layout = &picture.layout;
    let columns = layout.column.iter().map(|c| c + 1).max().unwrap_or(0);
    let mut left = vec![0; columns + 1];
    for c in 0..columns {
        let widest = (0..boxes.len()).filter(|&i| layout.column[i] == c).map(width).max().unwrap_or(0);
        let links = picture.outline.links.iter().zip(&picture.labels).filter(|(l, _)| layout.column[l.from] == c);
        let label = links.map(|(_, l)| l.what.chars().count().max(l.how.chars().count())).max().unwrap_or(0);
        left[c + 1] = left[c] + widest + label + ARROW;
    }
    let top = |i: usize| (layout.row[i] * PITCH).round() as usize;
    let mut canvas = Canvas::default();
    for (link, label) in picture.outline.links.iter().zip(&picture.labels) {
        let (from, to) = (link.from, link.to);
        let start = (left[layout.column[from]] + width(from), top(from) + AXIS);
        let end = (left[layout.column[to]] - 1, top(to) + AXIS);
        // Boxes of a column differ in width; arrows turn where the widest ends.
        let turn = (left[layout.column[to]] + 1)
            .saturating_sub(ARROW + label.what.chars().count().max(label.how.chars().count()))
            .max(start.0);
        canvas.line(start, end, turn);
        canvas.put(end.0, end.1, '▶');
        let at = turn + 1;
        canvas.text(at, end.1.saturating_sub(1), &label.what);
        canvas.text(at, end.1 + 1, &label.how);
    }
    for (i, lines) in boxes.iter().enumerate() {
        canvas.rectangle((left[layout.column[i]], top(i)), (width(i), BOX));
        for (n, line) in lines.iter().enumerate() {
            canvas.text(left[layout.column[i]] + 2, top(i) + 1 + n, line);
        }
    }
    canvas.show()
}

/// What stands in a box.
fn lines(picture: &Picture, i: usize) -> Vec<String> {
    let element = &picture.outline.elements[i];
    let thread = match picture.layout.areas.len() {
        0 | 1 => String::new(),
        _ => format!(", thread {}", element.domain + 1),
    };
    match queue(element) {
        Some(spec) if is_own_queue(element) => {
            vec![format!("queue {}", spec.capacity()), full(spec)]
        }
        Some(spec) => vec![element.name.clone(), format!("queue {}, {}", spec.capacity(), full(spec))],
        None => vec![element.name.clone(), format!("{}{thread}", role(element))],
    }
}

/// Characters, and lines that join where they meet.
#[derive(Default)]
struct Canvas {
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    character: Option<char>,
    joins: u8,
}

impl Canvas {
    fn cell(&mut self, x: usize, y: usize) -> &mut Cell {
        if self.rows.len() <= y {
            self.rows.resize(y + 1, Vec::new());
        }
        let row = &mut self.rows[y];
        if row.len() <= x {
            row.resize(x + 1, Cell::default());
        }
        &mut row[x]
    }

    fn put(&mut self, x: usize, y: usize, c: char) {
        self.cell(x, y).character = Some(c);
    }

    fn text(&mut self, x: usize, y: usize, text: &str) {
        for (i, c) in text.chars().enumerate() {
            self.put(x + i, y, c);
        }
    }

    fn join(&mut self, x: usize, y: usize, joins: u8) {
        self.cell(x, y).joins |= joins;
    }

    /// Across to `turn`, up or down, and across to the end.
    fn line(&mut self, start: (usize, usize), end: (usize, usize), turn: usize) {
        (start.0..turn).for_each(|x| self.join(x, start.1, LEFT | RIGHT));
        self.join(turn, start.1, LEFT);
        self.join(turn, end.1, RIGHT);
        let (upper, lower) = (start.1.min(end.1), start.1.max(end.1));
        for y in upper..lower {
            self.join(turn, y, DOWN);
            self.join(turn, y + 1, UP);
        }
        (turn + 1..=end.0).for_each(|x| self.join(x, end.1, LEFT | RIGHT));
    }

    fn rectangle(&mut self, at: (usize, usize), size: (usize, usize)) {
        let (right, bottom) = (at.0 + size.0 - 1, at.1 + size.1 - 1);
        for y in at.1..=bottom {
            (at.0..=right).for_each(|x| *self.cell(x, y) = Cell { character: Some(' '), joins: 0 });
        }
        for x in at.0 + 1..right {
            self.put(x, at.1, '─');
            self.put(x, bottom, '─');
        }
        for y in at.1 + 1..bottom {
            self.put(at.0, y, '│');
            self.put(right, y, '│');
        }
        for (x, y, c) in [(at.0, at.1, '┌'), (right, at.1, '┐'), (at.0, bottom, '└'), (right, bottom, '┘')] {
            self.put(x, y, c);
        }
    }

    fn show(&self) -> String {
        let row = |row: &Vec<Cell>| row.iter().map(Cell::show).collect::<String>().trim_end().to_owned() + "\n";
        self.rows.iter().map(row).collect()
    }
}

impl Cell {
    fn show(&self) -> char {
        const LINES: [char; 16] = [' ', '─', '─', '─', '│', '┘', '└', '┴', '│', '┐', '┌', '┬', '│', '┤', '├', '┼'];
        self.character.unwrap_or(LINES[usize::from(self.joins & 15)])
    }
}
