//! Pictures: read from what ffmpeg wrote, packed as cameras and screens pack them.

use shrbuf_bench::Result;

/// Rows of pixels, 8-bit sRGB.
#[derive(Debug, Clone)]
pub struct Rgb {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// R, G and B of each.
    pub pixels: Vec<[u8; 3]>,
}

/// Planes of 8-bit 4:2:0, or of 4:2:2 if each row has chroma of its own.
#[derive(Debug, Clone)]
pub struct Yuv {
    /// Pixels, even.
    pub width: usize,
    /// Pixels, even.
    pub height: usize,
    /// Rows of luma for each row of chroma.
    pub rows: usize,
    /// Full size.
    pub y: Vec<u8>,
    /// Half as wide.
    pub u: Vec<u8>,
    /// Half as wide.
    pub v: Vec<u8>,
}

/// The pictures of a file of PPMs, one after the other.
///
/// # Errors
/// It is no such file.
pub fn ppm(mut bytes: &[u8]) -> Result<Vec<Rgb>> {
    let mut pictures = Vec::new();
    while !bytes.is_empty() {
        let mut word = || -> Result<&str> {
            let end = bytes.iter().position(u8::is_ascii_whitespace).ok_or("a PPM ends in its header")?;
            let (word, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            Ok(std::str::from_utf8(word)?)
        };
        if word()? != "P6" {
            return Err("not a PPM".into());
        }
        let (width, height): (usize, usize) = (word()?.parse()?, word()?.parse()?);
        if word()? != "255" {
            return Err("a PPM of more than 8 bits".into());
        }
        let (pixels, rest) = bytes.split_at_checked(width * height * 3).ok_or("a PPM ends in its pixels")?;
        bytes = rest;
        pictures.push(Rgb { width, height, pixels: pixels.as_chunks().0.to_vec() });
    }
    Ok(pictures)
}

/// The frames of a Y4M file of 4:2:0.
///
/// # Errors
/// It is no such file.
pub fn y4m(bytes: &[u8]) -> Result<Vec<Yuv>> {
    let line = |bytes: &[u8]| bytes.iter().position(|&b| b == b'\n').ok_or("a Y4M ends in a header");
    let end = line(bytes)?;
    let header = std::str::from_utf8(&bytes[..end])?;
    let field = |letter: char| -> Result<&str> {
        let field = header.split(' ').skip(1).find_map(|f| f.strip_prefix(letter));
        Ok(field.ok_or_else(|| format!("a Y4M without {letter}"))?)
    };
    if !header.starts_with("YUV4MPEG2") || !field('C')?.starts_with("420") {
        return Err("not a Y4M of 4:2:0".into());
    }
    let (width, height): (usize, usize) = (field('W')?.parse()?, field('H')?.parse()?);
    let (mut rest, mut frames) = (&bytes[end + 1..], Vec::new());
    while !rest.is_empty() {
        rest = &rest[line(rest)? + 1..];
        let mut plane = |size: usize| -> Result<Vec<u8>> {
            let (plane, after) = rest.split_at_checked(size).ok_or("a Y4M ends in its pixels")?;
            rest = after;
            Ok(plane.to_vec())
        };
        let size = width * height;
        frames.push(Yuv { width, height, rows: 2, y: plane(size)?, u: plane(size / 4)?, v: plane(size / 4)? });
    }
    Ok(frames)
}

impl Rgb {
    /// The window at a place.
    pub fn crop(&self, left: usize, top: usize, width: usize, height: usize) -> Rgb {
        let row = |y: usize| &self.pixels[(top + y) * self.width + left..][..width];
        Rgb { width, height, pixels: (0..height).flat_map(row).copied().collect() }
    }

    /// Y, and U and V of 4:4:4 times 4, by BT.601 in its limited range.
    fn yuv(&self, x: usize, y: usize) -> [i32; 3] {
        let [r, g, b] = self.pixels[y * self.width + x].map(i32::from);
        [(66 * r + 129 * g + 25 * b + 128 + (16 << 8)) >> 8, -38 * r - 74 * g + 112 * b, 112 * r - 94 * g - 18 * b]
    }

    fn chroma(sum: i32, count: i32) -> u8 {
        ((sum / count + (128 << 8) + 128) >> 8).clamp(16, 240) as u8
    }

    /// Packed 4:2:2.
    pub fn yuyv(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.width * self.height * 2);
        for y in 0..self.height {
            for x in (0..self.width).step_by(2) {
                let (a, b) = (self.yuv(x, y), self.yuv(x + 1, y));
                bytes.extend([a[0] as u8, Rgb::chroma(a[1] + b[1], 2), b[0] as u8, Rgb::chroma(a[2] + b[2], 2)]);
            }
        }
        bytes
    }

    /// Y, then U and V by turns.
    pub fn nv12(&self) -> Vec<u8> {
        let places = (0..self.height).flat_map(|y| (0..self.width).map(move |x| (x, y)));
        let mut bytes: Vec<u8> = places.map(|(x, y)| self.yuv(x, y)[0] as u8).collect();
        for y in (0..self.height).step_by(2) {
            for x in (0..self.width).step_by(2) {
                let four = [self.yuv(x, y), self.yuv(x + 1, y), self.yuv(x, y + 1), self.yuv(x + 1, y + 1)];
                bytes.extend([1, 2].map(|c| Rgb::chroma(four.iter().map(|p| p[c]).sum(), 4)));
            }
        }
        bytes
    }

    /// B, G, R and 255.
    pub fn xr24(&self) -> Vec<u8> {
        self.pixels.iter().flat_map(|[r, g, b]| [*b, *g, *r, 255]).collect()
    }

    /// The green ones.
    pub fn grey(&self) -> Vec<u8> {
        self.pixels.iter().map(|[_, g, _]| *g).collect()
    }
}

impl Yuv {
    /// With chroma for each row.
    pub fn to_422(&self) -> Yuv {
        let double = |plane: &[u8]| plane.chunks(self.width / 2).flat_map(|row| [row, row].concat()).collect();
        Yuv { rows: 1, u: double(&self.u), v: double(&self.v), ..self.clone() }
    }

    /// Packed 4:2:2, of what has chroma for each row.
    pub fn yuyv(&self) -> Vec<u8> {
        let (luma, _) = self.y.as_chunks::<2>();
        luma.iter().zip(&self.u).zip(&self.v).flat_map(|((y, u), v)| [y[0], *u, y[1], *v]).collect()
    }

    /// Y, then U and V by turns, of 4:2:0.
    pub fn nv12(&self) -> Vec<u8> {
        let mut bytes = self.y.clone();
        bytes.extend(self.u.iter().zip(&self.v).flat_map(|(u, v)| [*u, *v]));
        bytes
    }
}
