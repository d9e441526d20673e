//! A frame as a PNG file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use shrbuf::{Account, Shrbuf};
use shrbuf_pipeline::Colorimetry;

use super::color::Coefficients;
use super::decode::Decoder;

/// Writes the picture in `buffer` as an 8-bit RGB PNG. **Blocks** for the buffer's fences and for the file.
///
/// # Errors
/// That of the file; `Unsupported` for a format that has no picture.
pub(crate) fn write_png(path: &Path, buffer: &Shrbuf, color: Colorimetry, account: &Account) -> io::Result<()> {
    let layout = buffer.layout();
    let mut decoder = Decoder::of(layout)
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, format!("{} cannot be drawn", layout.format)))?;
    let (width, height) = (layout.width, layout.height);
    let color = Coefficients::of(color);
    let guard = buffer.read().map_err(io::Error::other)?;
    let mut rgb = vec![0; width as usize * 3];
    let mut file = Remembering { file: BufWriter::new(File::create(path)?), failed: None };
    let mut write = || -> Result<(), png::EncodingError> {
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header()?;
        let mut stream = writer.stream_writer()?;
        for y in 0..height as usize {
            decoder.row(&guard, &color, y, &mut rgb, account);
            stream.write_all(&rgb)?;
        }
        stream.finish()?;
        writer.finish()
    };
    let written = write();
    match file.failed.take() {
        Some(e) => Err(e),
        None => written.map_err(io::Error::other).and_then(|()| file.file.flush()),
    }
}

/// Keeps the file's own error, which the PNG encoder turns into text.
struct Remembering {
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

impl Write for Remembering {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).inspect_err(|e| self.failed = copy(e))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().inspect_err(|e| self.failed = copy(e))
    }
}

fn copy(e: &io::Error) -> Option<io::Error> {
    Some(e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error))
}
