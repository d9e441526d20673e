//! The header of YUV4MPEG2, as mjpegtools and FFmpeg write and read it.
//!
//! Source: yuv4mpeg(5) of mjpegtools; `XCOLORRANGE` is FFmpeg's.

use std::fmt::Write;
use std::io;
use std::os::fd::AsFd;

use shrbuf::Format;
use shrbuf_pipeline::{Range, Rate, Size};

const MAGIC: &str = "YUV4MPEG2";
/// What stands before each frame; there may be parameters before the end of the line.
pub(crate) const FRAME: &[u8] = b"FRAME\n";
/// A longer line is no header.
const MAX_LINE: usize = 1024;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) format: Format,
    pub(crate) size: Size,
    /// Not known where the file says `F0:0`.
    pub(crate) rate: Option<Rate>,
    pub(crate) range: Range,
}

/// Why a header will not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is something else.
    #[error("not a Y4M: it does not begin with {MAGIC}")]
    Magic,
    /// A parameter is missing or wrong.
    #[error("the Y4M header has no proper {0}")]
    Parameter(&'static str),
    /// Chroma that no format of the list is.
    #[error("Y4M chroma `{0}` is not supported; C420, C422, C444 and Cmono of 8 bits are")]
    Chroma(String),
}

/// The chroma word of a format; `None` where Y4M cannot express it.
fn chroma(format: Format) -> Option<&'static str> {
    match format {
        Format::Yu12 => Some("420jpeg"),
        Format::Yu16 => Some("422"),
        Format::Yu24 => Some("444"),
        Format::Grey => Some("mono"),
        _ => None,
    }
}

/// Formats that Y4M can express.
pub(crate) fn formats() -> impl Iterator<Item = Format> {
    Format::all().filter(|f| chroma(*f).is_some())
}

impl Header {
    /// From the first line, without its end.
    pub(crate) fn parse(line: &[u8]) -> Result<Header, HeaderError> {
        let text = String::from_utf8_lossy(line);
        let mut words = text.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(HeaderError::Magic);
        }
        let (mut width, mut height, mut rate) = (None, None, None);
        let (mut format, mut range) = (Format::Yu12, Range::Limited);
        let side = |s: &str| s.parse::<u32>().ok().filter(|n| (1..=65535).contains(n));
        for word in words.filter(|w| !w.is_empty()) {
            let (key, value) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
            match key {
                "W" => width = side(value),
                "H" => height = side(value),
                "F" => {
                    let (num, den) = value.split_once(':').ok_or(HeaderError::Parameter("frame rate (F)"))?;
                    let (Ok(num), Ok(den)) = (num.parse(), den.parse()) else {
                        return Err(HeaderError::Parameter("frame rate (F)"));
                    };
                    rate = (num > 0 && den > 0).then(|| Rate::new(num, den));
                }
                "C" => format = parse_chroma(value)?,
                "X" if value == "COLORRANGE=FULL" => range = Range::Full,
                _ => {}
            }
        }
        let width = width.ok_or(HeaderError::Parameter("width (W)"))?;
        let height = height.ok_or(HeaderError::Parameter("height (H)"))?;
        Ok(Header { format, size: Size::new(width, height), rate, range })
    }

    /// The first line, with its end; `None` where Y4M cannot express the format.
    pub(crate) fn line(&self) -> Option<String> {
        let mut line = String::from(MAGIC);
        let (num, den) = self.rate.map_or((0, 0), |r| (r.num, r.den));
        let Size { width, height } = self.size;
        let _ = write!(line, " W{width} H{height} F{num}:{den} Ip A1:1 C{}", chroma(self.format)?);
        line.push_str(match self.range {
            Range::Full => " XCOLORRANGE=FULL\n",
            Range::Limited => " XCOLORRANGE=LIMITED\n",
        });
        Some(line)
    }
}

fn parse_chroma(word: &str) -> Result<Format, HeaderError> {
    match word {
        // They differ in where chroma is sampled, which no format of the list tells.
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Ok(Format::Yu12),
        "422" => Ok(Format::Yu16),
        "444" => Ok(Format::Yu24),
        "mono" => Ok(Format::Grey),
        other => Err(HeaderError::Chroma(other.to_owned())),
    }
}

/// Reads up to the end of a line, and not a byte more, so that pixels can be read straight into frames after it.
/// False at the end of the file; `line` is what was read so far where the file ends, or the line gets too long.
pub(crate) fn read_line(fd: impl AsFd, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut byte = [0];
    while line.len() < MAX_LINE {
        match nix::unistd::read(&fd, &mut byte) {
            Ok(0) if line.is_empty() => return Ok(false),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
            Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_there_and_back() {
        for format in formats() {
            for range in [Range::Full, Range::Limited] {
                for rate in [None, Some(Rate::new(30000, 1001))] {
                    let header = Header { format, size: Size::new(641, 33), rate, range };
                    let line = header.line().unwrap();
                    assert_eq!(Header::parse(line.trim_end().as_bytes()), Ok(header), "{line}");
                }
            }
        }
    }

    #[test]
    fn what_ffmpeg_writes_is_read() {
        let line = b"YUV4MPEG2 W320 H240 F25:1 Ip A1:1 C420jpeg XYSCSS=420JPEG XCOLORRANGE=LIMITED";
        let header = Header::parse(line).unwrap();
        assert_eq!(
            (header.format, header.size, header.rate),
            (Format::Yu12, Size::new(320, 240), Some(Rate::new(25, 1)))
        );
        assert_eq!(Header::parse(b"YUV4MPEG2 W2 H2 F25:1").unwrap().format, Format::Yu12);
    }

    #[test]
    fn wrong_headers_say_what_is_wrong() {
        let error = |line: &str| Header::parse(line.as_bytes()).unwrap_err().to_string();
        assert_eq!(error("RIFF"), "not a Y4M: it does not begin with YUV4MPEG2");
        assert_eq!(error("YUV4MPEG2 H2"), "the Y4M header has no proper width (W)");
        assert_eq!(error("YUV4MPEG2 W0 H2"), "the Y4M header has no proper width (W)");
        assert_eq!(error("YUV4MPEG2 W2 H2 F25"), "the Y4M header has no proper frame rate (F)");
        assert_eq!(
            error("YUV4MPEG2 W2 H2 F25:1 C420p10"),
            "Y4M chroma `420p10` is not supported; C420, C422, C444 and Cmono of 8 bits are"
        );
        assert_eq!(error("YUV4MPEG2 Wé é"), "the Y4M header has no proper width (W)");
    }
}
