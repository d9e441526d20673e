//! A frame as a PNG file.

use std::fs::File;
use std::io::{self, BufWriter};
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
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    let mut stream = writer.stream_writer()?;
    for y in 0..height as usize {
        decoder.row(&guard, &color, y, &mut rgb, account);
        io::Write::write_all(&mut stream, &rgb)?;
    }
    Ok(stream.finish()?)
}
