//! The picture as SVG.

use std::fmt::Write;

use shrbuf_pipeline::QueueSpec;

use super::{Label, Picture, full, queue, role};
use crate::table::is_own_queue;

/// All in pixels.
const MARGIN: f64 = 24.0;
const TITLE: f64 = 34.0;
const PITCH: f64 = 112.0;
const BOX: f64 = 48.0;
/// From an area's edge to the boxes in it; above them stands its title.
const PAD: f64 = 18.0;
const QUEUE: (f64, f64) = (44.0, 28.0);
/// From a box to where its arrows turn.
const STEM: f64 = 20.0;
const CORNER: f64 = 8.0;
/// Most slots of a queue that are drawn.
const SLOTS: u32 = 6;

/// Fill and ink of the areas, in turn.
const COLOURS: [(&str, &str); 6] = [
    ("#e8f1fb", "#2563a8"),
    ("#fdf1e0", "#a8651b"),
    ("#e9f6ec", "#2f7d46"),
    ("#f5ebfa", "#7a3f9d"),
    ("#fbe9ee", "#a83255"),
    ("#e6f5f5", "#1f7a7a"),
];
const GOOD: &str = "#2f7d46";
const BAD: &str = "#c02f2f";
const INK: &str = "#1f2937";
const FAINT: &str = "#64748b";

/// Where everything is.
struct Drawing<'a> {
    picture: &'a Picture,
    /// Left edge and width of each column.
    columns: Vec<(f64, f64)>,
    out: String,
}

/// Draws it.
pub fn draw(picture: &Picture) -> String {
    let mut drawing = Drawing { picture, columns: columns(picture), out: String::new() };
    let layout = &picture.layout;
    let right = drawing.columns.last().map_or(0.0, |(left, width)| left + width) + PAD + MARGIN;
    let width = right.max(text_width(&picture.name, 18.0) + 2.0 * MARGIN);
    let lowest = layout.row.iter().copied().fold(0.0, f64::max);
    let height = drawing.y(lowest) + BOX / 2.0 + PAD + MARGIN + 6.0;
    let _ = write!(
        drawing.out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"Inter, 'DejaVu Sans', system-ui, sans-serif\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"{:.0}\" font-size=\"18\" font-weight=\"600\" fill=\"{INK}\">{}</text>\n",
        MARGIN + 10.0,
        escape(&picture.name),
    );
    for domain in 0..layout.areas.len() {
        drawing.area(domain);
    }
    for link in 0..picture.outline.links.len() {
        drawing.link(link);
    }
    for element in 0..picture.outline.elements.len() {
        match queue(&picture.outline.elements[element]) {
            Some(spec) => drawing.queue(element, spec),
            None => drawing.element(element),
        }
    }
    drawing.out.push_str("</svg>\n");
    drawing.out
}

fn columns(picture: &Picture) -> Vec<(f64, f64)> {
    let layout = &picture.layout;
    let elements = &picture.outline.elements;
    let count = layout.column.iter().map(|c| c + 1).max().unwrap_or(0);
    let mut left = MARGIN + PAD;
    let mut columns = Vec::new();
    for c in 0..count {
        let members = || (0..elements.len()).filter(|&i| layout.column[i] == c);
        let width = members().map(|i| box_width(picture, i)).fold(0.0, f64::max);
        columns.push((left, width));
        let links = picture.outline.links.iter().zip(&picture.labels).filter(|(l, _)| layout.column[l.from] == c);
        let label = links.map(|(_, l)| text_width(&l.what, 12.0).max(text_width(&l.how, 11.0))).fold(0.0, f64::max);
        // The area of the thread behind a queue begins in the queue's middle; the one before has ended there.
        let border = if (0..elements.len()).any(|i| layout.column[i] == c + 1 && queue(&elements[i]).is_some()) {
            14.0
        } else {
            0.0
        };
        left += width + STEM + label + 34.0 + border;
    }
    columns
}

fn box_width(picture: &Picture, element: usize) -> f64 {
    let e = &picture.outline.elements[element];
    if queue(e).is_some() {
        return QUEUE.0;
    }
    (text_width(&e.name, 14.0) + 32.0).max(96.0)
}

impl Drawing<'_> {
    fn y(&self, row: f64) -> f64 {
        MARGIN + TITLE + PAD + 14.0 + BOX / 2.0 + row * PITCH
    }

    /// Left edge and vertical middle of an element.
    fn place(&self, element: usize) -> (f64, f64) {
        let layout = &self.picture.layout;
        (self.columns[layout.column[element]].0, self.y(layout.row[element]))
    }

    fn colours(&self, domain: usize) -> (&'static str, &'static str) {
        COLOURS[domain % COLOURS.len()]
    }

    fn area(&mut self, domain: usize) {
        let area = self.picture.layout.areas[domain];
        let (fill, ink) = self.colours(domain);
        let elements = &self.picture.outline.elements;
        let begins_at_queue = (0..elements.len()).any(|i| {
            elements[i].domain == domain
                && queue(&elements[i]).is_some()
                && self.picture.layout.column[i] == area.columns.0
        });
        let inset = if begins_at_queue { QUEUE.0 / 2.0 } else { -PAD };
        let left = self.columns[area.columns.0].0 + inset;
        let (last, width) = self.columns[area.columns.1];
        let right = last + width + PAD;
        let (top, bottom) = (self.y(area.rows.0) - BOX / 2.0 - PAD - 12.0, self.y(area.rows.1) + BOX / 2.0 + PAD);
        let _ = write!(
            self.out,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"12\" fill=\"{fill}\" \
             stroke=\"{ink}\" stroke-opacity=\"0.35\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\" fill=\"{ink}\">thread {}</text>\n",
            right - left,
            bottom - top,
            left + 12.0,
            top + 17.0,
            domain + 1,
        );
    }

    fn link(&mut self, index: usize) {
        let link = &self.picture.outline.links[index];
        let label = &self.picture.labels[index];
        let ((x, from), (end, to)) = (self.place(link.from), self.place(link.to));
        let start = x + box_width(self.picture, link.from);
        let column = self.columns[self.picture.layout.column[link.from]];
        let turn = column.0 + column.1 + STEM;
        let colour = match label.zero_copy {
            Some(true) => GOOD,
            Some(false) => BAD,
            None => FAINT,
        };
        let tip = end - 9.0;
        let path = if (from - to).abs() < 0.5 {
            format!("M{start:.1} {from:.1}H{tip:.1}")
        } else {
            let (r, sign) = (CORNER.min((to - from).abs() / 2.0), (to - from).signum());
            format!(
                "M{start:.1} {from:.1}H{:.1}Q{turn:.1} {from:.1} {turn:.1} {:.1}V{:.1}Q{turn:.1} {to:.1} {:.1} {to:.1}H{tip:.1}",
                turn - r,
                from + sign * r,
                to - sign * r,
                turn + r,
            )
        };
        let _ = writeln!(
            self.out,
            "<g><title>{} → {}: {}</title><path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <path d=\"M{:.1} {to:.1}l-10 -5v10z\" fill=\"{colour}\"/></g>",
            escape(&link.from_port),
            escape(&link.to_port),
            if label.reason.is_empty() { "not negotiated".to_owned() } else { escape(&label.reason) },
            end - 1.0,
        );
        self.label(label, (turn + tip) / 2.0, to, colour);
    }

    fn label(&mut self, label: &Label, x: f64, y: f64, colour: &str) {
        for (text, y, size, colour) in [(&label.what, y - 8.0, 12, INK), (&label.how, y + 17.0, 11, colour)] {
            if !text.is_empty() {
                // The halo keeps it legible across the edge of an area.
                let _ = writeln!(
                    self.out,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{colour}\" text-anchor=\"middle\">{}</text>",
                    escape(text),
                );
            }
        }
    }

    fn element(&mut self, index: usize) {
        let element = &self.picture.outline.elements[index];
        let (x, y) = self.place(index);
        let width = box_width(self.picture, index);
        let (_, ink) = self.colours(element.domain);
        let (ink, dash) = if element.inserted { (BAD, " stroke-dasharray=\"5 3\"") } else { (ink, "") };
        let _ = write!(
            self.out,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{BOX}\" rx=\"8\" fill=\"#ffffff\" \
             stroke=\"{ink}\" stroke-width=\"1.6\"{dash}/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"14\" font-weight=\"600\" fill=\"{INK}\" text-anchor=\"middle\">{}</text>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\" fill=\"{FAINT}\" text-anchor=\"middle\">{}</text>\n",
            y - BOX / 2.0,
            x + width / 2.0,
            y - 2.0,
            escape(&element.name),
            x + width / 2.0,
            y + 14.0,
            role(element),
        );
    }

    fn queue(&mut self, index: usize, spec: QueueSpec) {
        let element = &self.picture.outline.elements[index];
        let (x, y) = self.place(index);
        let (width, height) = QUEUE;
        let (_, ink) = self.colours(element.domain);
        let _ = writeln!(
            self.out,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width}\" height=\"{height}\" rx=\"4\" fill=\"#ffffff\" stroke=\"{ink}\" \
             stroke-width=\"1.6\"/>",
            y - height / 2.0,
        );
        let slots = spec.capacity().min(SLOTS);
        let slot = (width - 8.0) / f64::from(slots);
        for n in 0..slots {
            let _ = writeln!(
                self.out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"1.5\" fill=\"{ink}\" fill-opacity=\"0.28\"/>",
                x + 4.0 + slot * f64::from(n) + 1.0,
                y - height / 2.0 + 5.0,
                slot - 2.0,
                height - 10.0,
            );
        }
        let name = if is_own_queue(element) { String::new() } else { format!("{}: ", element.name) };
        let _ = writeln!(
            self.out,
            "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\" fill=\"{ink}\">{}{} {}</text>",
            x + width / 2.0 + 6.0,
            y + height / 2.0 + 13.0,
            escape(&name),
            spec.capacity(),
            full(spec),
        );
    }
}

/// About as wide as a sans-serif font sets it.
fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.6
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            // XML has no way to write these at all.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
