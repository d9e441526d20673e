//! The picture in a terminal: half blocks, two pixels each, in 24-bit colour.
//!
//! The terminal's upper lines are ours; the lower [`OTHERS`] scroll by themselves, for whatever else is printed. A
//! thread does the writing, because a terminal may be slow and a display must not be: while it writes, new pictures
//! are not drawn.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use shrbuf::{AccessError, Account, Layout};
use shrbuf_pipeline::{Frame, Timestamp};
use terminal_size::{Height, Width, terminal_size_of};

use super::TerminalUse;
use crate::image::color::Coefficients;
use crate::image::decode::Decoder;

/// Lines left to progress and log.
const OTHERS: usize = 3;
/// Fewer lines than this are no picture.
const LEAST: usize = 4;
/// 15 pictures a second.
const PERIOD_NS: u64 = 1_000_000_000 / 15;

/// Columns and lines of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    columns: usize,
    lines: usize,
}

/// A small picture: `columns` x `rows` pixels of RGB; a line of text shows two rows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Picture {
    columns: usize,
    rows: usize,
    rgb: Vec<[u8; 3]>,
}

/// A terminal that shows pictures.
pub(super) struct Terminal {
    always: bool,
    pictures: SyncSender<(Picture, Extent)>,
    /// Pictures that have been drawn, to be filled again.
    used: Receiver<Picture>,
    thread: JoinHandle<()>,
    next: Timestamp,
    sampler: Option<(Layout, Decoder, Vec<u8>)>,
}

impl Terminal {
    /// The terminal behind standard error, where it is to be used.
    pub(super) fn open(usage: TerminalUse) -> Option<Terminal> {
        let always = match usage {
            TerminalUse::Never => return None,
            TerminalUse::Auto => false,
            TerminalUse::Always => true,
        };
        let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
        if !always && (dumb || !io::stderr().is_terminal()) {
            return None;
        }
        let (pictures, receiver) = sync_channel(1);
        let (back, used) = sync_channel(2);
        for _ in 0..2 {
            let _ = back.try_send(Picture::default());
        }
        let paint = move || painter(&receiver, &back);
        // No thread, no picture; the display works without.
        let thread = std::thread::Builder::new().name("terminal".into()).spawn(paint).ok()?;
        Some(Terminal { always, pictures, used, thread, next: Timestamp(0), sampler: None })
    }

    /// True where it is time for another picture.
    pub(super) fn wants(&self, now: Timestamp) -> bool {
        now >= self.next
    }

    /// Draws the frame, or leaves it where the terminal is still busy or too small.
    pub(super) fn draw(&mut self, frame: &Frame, now: Timestamp, account: &Account) -> Result<(), AccessError> {
        self.next = Timestamp(now.0 + PERIOD_NS);
        let Some(extent) = self.extent() else { return Ok(()) };
        let Ok(mut picture) = self.used.try_recv() else { return Ok(()) };
        let layout = frame.buffer.layout();
        let (columns, rows) = fit(layout, extent);
        picture.columns = columns;
        picture.rows = rows;
        picture.rgb.resize(columns * rows, [0; 3]);
        self.sample(frame, &mut picture, account)?;
        match self.pictures.try_send((picture, extent)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            // Cannot be: there is room for one, and of the two pictures at most one is with the painter.
            Err(TrySendError::Full(_)) => Ok(()),
        }
    }

    fn extent(&self) -> Option<Extent> {
        let extent = match terminal_size_of(io::stderr()) {
            Some((Width(columns), Height(lines))) => Extent { columns: columns.into(), lines: lines.into() },
            None if self.always => Extent { columns: 80, lines: 24 },
            None => return None,
        };
        (extent.lines >= OTHERS + LEAST && extent.columns >= LEAST).then_some(extent)
    }

    /// Reads one row of the frame for each row of the picture.
    fn sample(&mut self, frame: &Frame, picture: &mut Picture, account: &Account) -> Result<(), AccessError> {
        let layout = *frame.buffer.layout();
        if self.sampler.as_ref().is_none_or(|(known, ..)| *known != layout) {
            self.sampler = Decoder::of(&layout).map(|d| (layout, d, vec![0; layout.width as usize * 3]));
        }
        let Some((_, decoder, row)) = &mut self.sampler else { return Ok(()) };
        let color = Coefficients::of(frame.color);
        let guard = frame.buffer.read()?;
        let (width, height) = (layout.width as usize, layout.height as usize);
        for (y, out) in picture.rgb.chunks_exact_mut(picture.columns).enumerate() {
            decoder.row(&guard, &color, (2 * y + 1) * height / (2 * picture.rows), row, account);
            let pixels = row.as_chunks::<3>().0;
            for (x, rgb) in out.iter_mut().enumerate() {
                let start = x * width / picture.columns;
                let end = ((x + 1) * width / picture.columns).max(start + 1);
                *rgb = mean(&pixels[start..end]);
            }
        }
        Ok(())
    }

    /// Waits for the last picture and gives the terminal back.
    pub(super) fn close(self) {
        drop(self.pictures);
        // A painter that panicked has nothing to give back.
        let _ = self.thread.join();
    }
}

fn mean(pixels: &[[u8; 3]]) -> [u8; 3] {
    let n = pixels.len() as u32;
    [0, 1, 2].map(|c| (pixels.iter().map(|p| u32::from(p[c])).sum::<u32>() / n.max(1)) as u8)
}

/// Columns and rows of the picture: as large as fits, in the frame's proportions; half a cell is about square.
fn fit(layout: &Layout, extent: Extent) -> (usize, usize) {
    let (width, height) = (layout.width as usize, layout.height as usize);
    let (columns, rows) = (extent.columns, (extent.lines - OTHERS) * 2);
    if columns * height <= rows * width {
        (columns, (columns * height / width).max(1).next_multiple_of(2))
    } else {
        ((rows * width / height).max(1), rows)
    }
}

fn painter(pictures: &Receiver<(Picture, Extent)>, used: &SyncSender<Picture>) {
    let mut text = String::new();
    let mut before: Option<(Picture, Extent)> = None;
    for (picture, extent) in pictures {
        text.clear();
        let same_place =
            |(p, e): &(Picture, Extent)| *e == extent && p.columns == picture.columns && p.rows == picture.rows;
        if !before.as_ref().is_some_and(same_place) {
            if let Some((picture, _)) = before.take() {
                let _ = used.try_send(picture);
            }
            claim(&mut text, extent);
        }
        paint(&mut text, &picture, before.as_ref().map(|(p, _)| p));
        // Where standard error is gone, there is nobody to see it.
        let _ = io::stderr().write_all(text.as_bytes());
        if let Some((old, _)) = before.replace((picture, extent)) {
            let _ = used.try_send(old);
        }
    }
    if let Some((_, extent)) = before {
        text.clear();
        release(&mut text, extent);
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// Scrolls away what is there, hides the cursor, and leaves the lower lines to others.
fn claim(text: &mut String, Extent { lines, .. }: Extent) {
    text.extend(std::iter::repeat_n('\n', lines));
    let top = lines - OTHERS + 1;
    let _ = write!(text, "\x1b[?25l\x1b[r\x1b[2J\x1b[{top};{lines}r\x1b[{top};1H");
}

/// Gives all lines back and puts the cursor below the picture.
fn release(text: &mut String, Extent { lines, .. }: Extent) {
    let _ = write!(text, "\x1b7\x1b[r\x1b8\x1b[0m\x1b[?25h");
    let _ = writeln!(text, "\x1b[{lines};1H");
}

/// The lines that differ from the picture before, between saving and restoring the cursor.
fn paint(text: &mut String, picture: &Picture, before: Option<&Picture>) {
    // A terminal that knows mode 2026 shows all at once, others ignore it.
    text.push_str("\x1b[?2026h\x1b7");
    let pair = picture.columns * 2;
    for (line, cells) in picture.rgb.chunks_exact(pair).enumerate() {
        if before.is_some_and(|b| b.rgb[line * pair..][..pair] == *cells) {
            continue;
        }
        let _ = write!(text, "\x1b[{};1H", line + 1);
        let (upper, lower) = cells.split_at(picture.columns);
        let mut last = None;
        for colours in upper.iter().zip(lower) {
            if last != Some(colours) {
                let ([r, g, b], [lr, lg, lb]) = colours;
                let _ = write!(text, "\x1b[38;2;{r};{g};{b};48;2;{lr};{lg};{lb}m");
                last = Some(colours);
            }
            text.push('▀');
        }
        text.push_str("\x1b[0m");
    }
    text.push_str("\x1b8\x1b[?2026l");
}

#[cfg(test)]
mod tests {
    use shrbuf::Format;

    use super::*;

    #[test]
    fn pictures_keep_their_proportions_and_leave_room() {
        let layout = |w, h| Layout::linear(Format::Xr24, w, h, 1).unwrap();
        let extent = Extent { columns: 80, lines: 24 };
        assert_eq!(fit(&layout(640, 360), extent), (74, 42));
        assert_eq!(fit(&layout(1000, 100), extent), (80, 8));
        assert_eq!(fit(&layout(1, 65535), extent), (1, 42));
        assert_eq!(fit(&layout(65535, 1), extent), (80, 2));
    }

    #[test]
    fn only_lines_that_changed_are_written() {
        let picture = |second| Picture { columns: 2, rows: 4, rgb: [[[9; 3]; 4], [[second; 3]; 4]].concat() };
        let mut text = String::new();
        paint(&mut text, &picture(1), Some(&picture(2)));
        assert!(!text.contains("\x1b[1;1H") && text.contains("\x1b[2;1H"), "{text:?}");
        assert_eq!(text.matches('▀').count(), 2);
        assert_eq!(text.matches("38;2;1;1;1;48;2;1;1;1m").count(), 1);
    }

    #[test]
    fn what_was_claimed_is_released() {
        let mut text = String::new();
        let extent = Extent { columns: 80, lines: 24 };
        claim(&mut text, extent);
        assert!(text.contains("\x1b[22;24r") && text.contains("\x1b[?25l"));
        text.clear();
        release(&mut text, extent);
        assert!(text.contains("\x1b[r") && text.ends_with("\x1b[?25h\x1b[24;1H\n"));
    }
}
