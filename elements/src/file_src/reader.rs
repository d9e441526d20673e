//! The containers: frames into buffers, one after the other.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use shrbuf::{Account, BufferId, Format, Shrbuf};
use shrbuf_pipeline::{Colorimetry, Failure, FailureKind, Rate, Size};

use super::FileSrc;
use crate::container::{Container, FileError, Numbered, y4m};
use crate::image::color::{self, Coefficients};
use crate::image::encode::Encoder;
use crate::image::shape;

/// An open file, or a sequence of pictures.
pub(super) enum Reader {
    /// Raw and Y4M.
    Stream(Stream),
    Png(Box<Pictures>),
}

/// Frames one after the other in one file.
pub(super) struct Stream {
    path: PathBuf,
    file: File,
    format: Format,
    size: Size,
    /// Of Y4M, whose frames have headers too.
    header: Option<y4m::Header>,
    /// The frame that is read next.
    frames: u64,
    /// Where frames begin, as far as they have been read.
    starts: Vec<u64>,
    /// Where the next one begins.
    at: u64,
    line: Vec<u8>,
}

/// PNG files.
pub(super) struct Pictures {
    path: PathBuf,
    numbered: Option<Numbered>,
    first: u64,
    next: u64,
    size: Size,
    /// The last picture, decoded; 8 bits a channel.
    pixels: Vec<u8>,
    rgb: [Vec<u8>; 2],
    encoder: Option<Encoder>,
    /// Buffers that show the only picture already.
    drawn: Vec<BufferId>,
}

fn open(path: &Path) -> Result<File, FileError> {
    let file = File::open(path).map_err(|e| FileError::open(path, e))?;
    match file.metadata() {
        // A directory can be opened, and fails only when it is read.
        Ok(m) if m.is_dir() => Err(FileError::Directory { path: path.to_owned() }),
        _ => Ok(file),
    }
}

impl Reader {
    pub(super) fn open(config: &FileSrc, container: Container) -> Result<Reader, FileError> {
        match (container, config.format, config.size) {
            (Container::Png, ..) => Pictures::open(&config.path).map(|p| Reader::Png(Box::new(p))),
            (Container::Raw, Some(format), Some(size)) => {
                let file = open(&config.path)?;
                Ok(Reader::Stream(Stream::new(&config.path, file, format, size)))
            }
            _ => Stream::y4m(&config.path).map(Reader::Stream),
        }
    }

    pub(super) fn size(&self) -> Size {
        match self {
            Reader::Stream(s) => s.size,
            Reader::Png(p) => p.size,
        }
    }

    pub(super) fn rate(&self) -> Option<Rate> {
        match self {
            Reader::Stream(s) => s.header.and_then(|h| h.rate),
            Reader::Png(_) => None,
        }
    }

    pub(super) fn formats(&self) -> Vec<Format> {
        match self {
            Reader::Stream(s) => vec![s.format],
            Reader::Png(_) => shape::formats().collect(),
        }
    }

    pub(super) fn color(&self) -> Colorimetry {
        match self {
            Reader::Stream(Stream { header: Some(h), size, .. }) => {
                Colorimetry { range: h.range, ..color::usual(*size) }
            }
            _ => color::usual(self.size()),
        }
    }

    /// Frames will be of this format.
    pub(super) fn prepare(&mut self, format: Format) -> Result<(), Failure> {
        let Reader::Png(p) = self else { return Ok(()) };
        p.drawn.clear();
        p.encoder = Encoder::new(format, Coefficients::of(color::usual(p.size)), p.size.width);
        match p.encoder {
            Some(_) => Ok(()),
            None => Err(Failure::new(FailureKind::Config, format!("{format} cannot be made of a PNG"))),
        }
    }

    /// The next frame; false at the end.
    pub(super) fn read(&mut self, buffer: &mut Shrbuf, account: &Account) -> Result<bool, Failure> {
        match self {
            Reader::Stream(s) => s.read(buffer, account),
            Reader::Png(p) => p.read(buffer, account),
        }
    }

    /// To frame `number`, which has been read before, or is the next.
    pub(super) fn seek(&mut self, number: u64) -> Result<(), FileError> {
        match self {
            Reader::Stream(s) => s.seek(number),
            Reader::Png(p) => {
                p.next = p.first + number;
                Ok(())
            }
        }
    }
}

impl Stream {
    fn new(path: &Path, file: File, format: Format, size: Size) -> Stream {
        let (starts, line) = (Vec::new(), Vec::new());
        Stream { path: path.to_owned(), file, format, size, header: None, frames: 0, starts, at: 0, line }
    }

    fn seek(&mut self, number: u64) -> Result<(), FileError> {
        if number == self.frames {
            return Ok(());
        }
        let Some(&start) = self.starts.get(number as usize) else { return Ok(()) };
        self.file.seek(SeekFrom::Start(start)).map_err(|source| FileError::Read { path: self.path.clone(), source })?;
        (self.frames, self.at) = (number, start);
        Ok(())
    }

    fn y4m(path: &Path) -> Result<Stream, FileError> {
        let file = open(path)?;
        let mut line = Vec::new();
        let there = y4m::read_line(&file, &mut line);
        if !there.map_err(|source| FileError::Read { path: path.to_owned(), source })? {
            return Err(FileError::Empty { path: path.to_owned() });
        }
        let header = y4m::Header::parse(&line).map_err(|what| FileError::Y4m { path: path.to_owned(), what })?;
        let (format, size, start) = (header.format, header.size, line.len() as u64 + 1);
        Ok(Stream { header: Some(header), at: start, ..Stream::new(path, file, format, size) })
    }

    fn read(&mut self, buffer: &mut Shrbuf, account: &Account) -> Result<bool, Failure> {
        let mut bytes = self.format.frame_bytes(self.size.width, self.size.height);
        if self.header.is_some() {
            if !y4m::read_line(&self.file, &mut self.line).map_err(|e| self.failed(e))? {
                return self.end();
            }
            if !self.line.starts_with(y4m::FRAME.trim_ascii_end()) {
                return Err(FileError::NoFrame { path: self.path.clone(), frame: self.frames }.into());
            }
            bytes += self.line.len() as u64 + 1;
        }
        let before = account.bytes();
        let planes = buffer.layout().planes().len();
        let mut guard = buffer.write().map_err(|e| Failure::new(FailureKind::Device, e))?;
        for p in 0..planes {
            match guard.plane(p).read_from(self.file.as_fd(), account) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                    let found = account.bytes() - before;
                    if found == 0 && self.header.is_none() {
                        return self.end();
                    }
                    let expected = self.format.frame_bytes(self.size.width, self.size.height);
                    let (path, frame) = (self.path.clone(), self.frames);
                    return Err(FileError::Short { path, frame, expected, found }.into());
                }
                Err(e) => return Err(self.failed(e).into()),
            }
        }
        if self.starts.len() as u64 == self.frames {
            self.starts.push(self.at);
        }
        self.frames += 1;
        self.at += bytes;
        Ok(true)
    }

    fn failed(&self, source: std::io::Error) -> FileError {
        FileError::Read { path: self.path.clone(), source }
    }

    fn end(&self) -> Result<bool, Failure> {
        if self.frames == 0 {
            return Err(FileError::Empty { path: self.path.clone() }.into());
        }
        Ok(false)
    }
}

impl Pictures {
    fn open(path: &Path) -> Result<Pictures, FileError> {
        let numbered = Numbered::parse(path);
        let first = match &numbered {
            Some(n) => u64::from(!n.path(0).exists()),
            None => 0,
        };
        let mut pictures = Pictures {
            path: path.to_owned(),
            numbered,
            first,
            next: first,
            size: Size::new(0, 0),
            pixels: Vec::new(),
            rgb: [Vec::new(), Vec::new()],
            encoder: None,
            drawn: Vec::new(),
        };
        let path = pictures.current();
        let (size, _) = pictures.decode(&path)?;
        pictures.size = size;
        pictures.rgb = [0, 1].map(|_| vec![0; size.width as usize * 3]);
        Ok(pictures)
    }

    fn current(&self) -> PathBuf {
        self.numbered.as_ref().map_or_else(|| self.path.clone(), |n| n.path(self.next))
    }

    /// Decodes a file into `pixels`; its size and bytes a pixel.
    fn decode(&mut self, path: &Path) -> Result<(Size, usize), FileError> {
        let bad = |source| FileError::Png { path: path.to_owned(), source };
        let mut decoder = png::Decoder::new(BufReader::new(open(path)?));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(bad)?;
        let bytes = reader.output_buffer_size().ok_or_else(|| bad(png::DecodingError::LimitsExceeded))?;
        self.pixels.resize(bytes, 0);
        let info = reader.next_frame(&mut self.pixels).map_err(bad)?;
        Ok((Size::new(info.width, info.height), info.color_type.samples()))
    }

    fn read(&mut self, buffer: &mut Shrbuf, account: &Account) -> Result<bool, Failure> {
        let path = self.current();
        let over = match self.numbered {
            Some(_) => self.next != self.first && !path.exists(),
            None => self.next > self.first,
        };
        if over {
            return Ok(false);
        }
        self.next += 1;
        if self.numbered.is_none() && self.drawn.contains(&buffer.id()) {
            return Ok(true);
        }
        let (found, channels) = self.decode(&path)?;
        if found != self.size {
            return Err(FileError::Resized { path, expected: self.size, found }.into());
        }
        self.draw(buffer, channels, account)?;
        self.drawn.push(buffer.id());
        Ok(true)
    }

    fn draw(&mut self, buffer: &mut Shrbuf, channels: usize, account: &Account) -> Result<(), Failure> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        let mut guard = buffer.write().map_err(|e| Failure::new(FailureKind::Device, e))?;
        let stride = self.size.width as usize * channels;
        for y in (0..self.size.height).step_by(2) {
            for (dy, rgb) in self.rgb.iter_mut().enumerate() {
                let row = (y + dy as u32).min(self.size.height - 1) as usize * stride;
                let pixels = self.pixels[row..row + stride].chunks_exact(channels);
                for (out, p) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
                    // Grey, grey and alpha, or at least three channels.
                    *out = if channels < 3 { [p[0]; 3] } else { [p[0], p[1], p[2]] };
                }
            }
            encoder.encode(&self.rgb[0], &self.rgb[1]);
            encoder.put(&mut guard, 0, y, account);
        }
        Ok(())
    }
}
