//! Frames as ffmpeg's codecs want them: a plane for each component. This runs outside the clock, so their figures are
//! better than users of packed formats get.

use shrbuf_bench::sets::Format;

/// Rows of samples without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plane {
    /// Bytes of a row.
    pub row: usize,
    /// All of them.
    pub bytes: Vec<u8>,
}

fn every(frame: &[u8], from: usize, step: usize, row: usize) -> Plane {
    Plane { row, bytes: frame[from..].iter().step_by(step).copied().collect() }
}

/// A frame in planes.
pub fn split(format: Format, width: usize, frame: &[u8]) -> Vec<Plane> {
    match format {
        Format::Yuyv => {
            [(0, 2, width), (1, 4, width / 2), (3, 4, width / 2)].map(|(f, s, r)| every(frame, f, s, r)).into()
        }
        Format::Nv12 => {
            let (luma, chroma) = frame.split_at(frame.len() / 3 * 2);
            let luma = Plane { row: width, bytes: luma.to_vec() };
            vec![luma, every(chroma, 0, 2, width / 2), every(chroma, 1, 2, width / 2)]
        }
        // G, B, R.
        Format::Xr24 => [1, 0, 2].map(|from| every(frame, from, 4, width)).into(),
        Format::Grey => vec![Plane { row: width, bytes: frame.to_vec() }],
        // The four colours under each other, each a picture of a quarter: neighbours are of one colour then.
        Format::Rg12 => {
            let quarters = quarters(width, frame.len() / 2).flat_map(|at| [frame[at * 2], frame[at * 2 + 1]]);
            vec![Plane { row: width, bytes: quarters.collect() }]
        }
    }
}

/// Where the samples of the quarters are in the mosaic.
fn quarters(width: usize, samples: usize) -> impl Iterator<Item = usize> {
    let quarter = move |(top, left)| {
        let rows = (top..samples / width).step_by(2);
        rows.flat_map(move |y| (left..width).step_by(2).map(move |x| y * width + x))
    };
    [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().flat_map(quarter)
}

fn put(frame: &mut [u8], from: usize, step: usize, plane: &Plane) {
    for (to, byte) in frame[from..].iter_mut().step_by(step).zip(&plane.bytes) {
        *to = *byte;
    }
}

/// The inverse of `split`. The unused byte of XR24 is 255 in every set.
pub fn join(format: Format, width: usize, planes: &[Plane]) -> Vec<u8> {
    let samples: usize = planes.iter().map(|p| p.bytes.len()).sum();
    match format {
        Format::Yuyv => {
            let mut frame = vec![0; samples];
            for (plane, (from, step)) in planes.iter().zip([(0, 2), (1, 4), (3, 4)]) {
                put(&mut frame, from, step, plane);
            }
            frame
        }
        Format::Nv12 => {
            let mut frame = planes[0].bytes.clone();
            frame.resize(samples, 0);
            for (plane, from) in planes[1..].iter().zip(0..) {
                put(&mut frame[planes[0].bytes.len()..], from, 2, plane);
            }
            frame
        }
        Format::Xr24 => {
            let mut frame = vec![255; samples / 3 * 4];
            for (plane, from) in planes.iter().zip([1, 0, 2]) {
                put(&mut frame, from, 4, plane);
            }
            frame
        }
        Format::Grey => planes[0].bytes.clone(),
        Format::Rg12 => {
            let mut frame = vec![0; samples];
            for (at, word) in quarters(width, samples / 2).zip(planes[0].bytes.as_chunks::<2>().0) {
                frame[at * 2..][..2].copy_from_slice(word);
            }
            frame
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_undoes_split_in_every_format() {
        for format in [Format::Yuyv, Format::Nv12, Format::Xr24, Format::Grey, Format::Rg12] {
            let mut frame: Vec<u8> = (0..format.frame_bytes(8, 4)).map(|i| (i * 37 % 251) as u8).collect();
            if format == Format::Xr24 {
                frame.iter_mut().skip(3).step_by(4).for_each(|x| *x = 255);
            }
            assert_eq!(join(format, 8, &split(format, 8, &frame)), frame, "{format:?}");
        }
    }
}
