//! ffmpeg's lossless codecs, in this process and on one thread, each frame for itself.

use std::ffi::{CStr, CString, c_int};
use std::ptr;

use ffmpeg_sys_next as ff;
use shrbuf_bench::Result;
use shrbuf_bench::sets::{Format, Set};

use crate::codecs::Codec;
use crate::planes::{self, Plane};

/// One of ffmpeg's codecs with its options.
struct Peer {
    label: &'static str,
    codec: &'static CStr,
    options: &'static [(&'static CStr, &'static CStr)],
    /// Which of ffmpeg's formats it takes for ours, and whether as planes.
    pixels: fn(Format) -> Option<(ff::AVPixelFormat, bool)>,
}

fn eight_bit(format: Format) -> Option<(ff::AVPixelFormat, bool)> {
    match format {
        Format::Yuyv => Some((ff::AVPixelFormat::AV_PIX_FMT_YUV422P, true)),
        Format::Nv12 => Some((ff::AVPixelFormat::AV_PIX_FMT_YUV420P, true)),
        Format::Xr24 => Some((ff::AVPixelFormat::AV_PIX_FMT_GBRP, true)),
        Format::Grey | Format::Rg12 => None,
    }
}

fn with_grey(format: Format) -> Option<(ff::AVPixelFormat, bool)> {
    let grey = (ff::AVPixelFormat::AV_PIX_FMT_GRAY8, true);
    eight_bit(format).or((format == Format::Grey).then_some(grey))
}

fn with_words(format: Format) -> Option<(ff::AVPixelFormat, bool)> {
    let words = (ff::AVPixelFormat::AV_PIX_FMT_GRAY16LE, true);
    with_grey(format).or((format == Format::Rg12).then_some(words))
}

fn of_ffv1(format: Format) -> Option<(ff::AVPixelFormat, bool)> {
    match format {
        // Its own transform of RGB takes packed pixels.
        Format::Xr24 => Some((ff::AVPixelFormat::AV_PIX_FMT_BGR0, false)),
        Format::Rg12 => Some((ff::AVPixelFormat::AV_PIX_FMT_GRAY12LE, true)),
        _ => with_grey(format),
    }
}

/// Each with what makes it smallest. FFV1 is in one slice without checksums, as only version 1 allows; its large context
/// model does not pay where each frame stands alone.
const PEERS: [Peer; 5] = [
    Peer { label: "utvideo", codec: c"utvideo", options: &[(c"pred", c"median")], pixels: eight_bit },
    Peer { label: "magicyuv", codec: c"magicyuv", options: &[(c"pred", c"median")], pixels: with_grey },
    Peer {
        label: "ffvhuff",
        codec: c"ffvhuff",
        options: &[(c"pred", c"median"), (c"context", c"1")],
        pixels: with_words,
    },
    Peer {
        label: "ffv1, Rice",
        codec: c"ffv1",
        options: &[(c"level", c"1"), (c"g", c"1"), (c"coder", c"rice")],
        pixels: of_ffv1,
    },
    Peer {
        label: "ffv1, range coder",
        codec: c"ffv1",
        options: &[(c"level", c"1"), (c"g", c"1"), (c"coder", c"range_tab")],
        pixels: of_ffv1,
    },
];

fn check(what: &str, code: c_int) -> Result<()> {
    if code >= 0 {
        return Ok(());
    }
    let mut text = [0u8; 128];
    // SAFETY: it writes a C string, at most as long as it is told.
    unsafe { ff::av_strerror(code, text.as_mut_ptr().cast(), text.len()) };
    Err(format!("{what}: {}", String::from_utf8_lossy(&text).trim_end_matches('\0')).into())
}

/// A codec, opened for coding or for decoding.
struct Context(*mut ff::AVCodecContext);

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it is of avcodec_alloc_context3 or null, and nobody else has it.
        unsafe { ff::avcodec_free_context(&mut self.0) };
    }
}

struct Frame(*mut ff::AVFrame);

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: as above, of av_frame_alloc.
        unsafe { ff::av_frame_free(&mut self.0) };
    }
}

struct Packet(*mut ff::AVPacket);

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: as above, of av_packet_alloc.
        unsafe { ff::av_packet_free(&mut self.0) };
    }
}

/// All that belongs to one set.
struct Open {
    format: Format,
    width: usize,
    planar: bool,
    /// Bytes of a row and rows of each plane.
    shape: Vec<(usize, usize)>,
    coder: Context,
    decoder: Context,
    frames: Vec<Frame>,
    packets: Vec<Packet>,
    decoded: Frame,
}

struct Ffmpeg {
    peer: Peer,
    open: Option<Open>,
}

/// All of them that this machine's libavcodec has.
pub fn all() -> Vec<Box<dyn Codec>> {
    // SAFETY: a global setting, before any codec is opened.
    unsafe { ff::av_log_set_level(ff::AV_LOG_ERROR as c_int) };
    let there = |peer: &Peer| {
        // SAFETY: the name is a C string.
        let found = unsafe { !ff::avcodec_find_encoder_by_name(peer.codec.as_ptr()).is_null() };
        if !found {
            eprintln!("codec: libavcodec has no {}", peer.label);
        }
        found
    };
    PEERS.into_iter().filter(there).map(|peer| Box::new(Ffmpeg { peer, open: None }) as Box<dyn Codec>).collect()
}

/// A coder for pictures of this size, and a decoder for what it makes.
fn contexts(peer: &Peer, pixels: ff::AVPixelFormat, width: usize, height: usize) -> Result<(Context, Context)> {
    // SAFETY: each object is checked before its fields are set, and its owner frees it; libavcodec copies the options
    // and parameters.
    unsafe {
        let codec = ff::avcodec_find_encoder_by_name(peer.codec.as_ptr());
        let coder = Context(ff::avcodec_alloc_context3(codec));
        let context = coder.0.as_mut().ok_or("no memory for a coder")?;
        (context.width, context.height) = (c_int::try_from(width)?, c_int::try_from(height)?);
        context.pix_fmt = pixels;
        context.time_base = ff::AVRational { num: 1, den: 30 };
        context.thread_count = 1;
        context.strict_std_compliance = ff::FF_COMPLIANCE_EXPERIMENTAL as c_int;
        let mut options = ptr::null_mut();
        for (name, value) in peer.options {
            ff::av_dict_set(&mut options, name.as_ptr(), value.as_ptr(), 0);
        }
        let opened = ff::avcodec_open2(coder.0, codec, &mut options);
        let unknown = !options.is_null();
        ff::av_dict_free(&mut options);
        check(&format!("{}: avcodec_open2", peer.label), opened)?;
        if unknown {
            return Err(format!("{} does not know all of {:?}", peer.label, peer.options).into());
        }

        let codec = ff::avcodec_find_decoder((*coder.0).codec_id);
        let decoder = Context(ff::avcodec_alloc_context3(codec));
        let context = decoder.0.as_mut().ok_or("no memory for a decoder")?;
        context.thread_count = 1;
        let mut parameters = ff::avcodec_parameters_alloc();
        let copied = ff::avcodec_parameters_from_context(parameters, coder.0);
        let copied = if copied < 0 { copied } else { ff::avcodec_parameters_to_context(decoder.0, parameters) };
        ff::avcodec_parameters_free(&mut parameters);
        check("avcodec_parameters_to_context", copied)?;
        check(&format!("{}: opening the decoder", peer.label), ff::avcodec_open2(decoder.0, codec, ptr::null_mut()))?;
        Ok((coder, decoder))
    }
}

/// A frame of libavcodec's own memory, so that it takes a reference instead of a copy.
fn frame(coder: &Context, planes: &[Plane], number: usize) -> Result<Frame> {
    // SAFETY: the coder is open. av_frame_get_buffer allocates planes of that format and size, which have at least as
    // many rows as ours and strides at least as long (`split` made ours for the same format and size).
    unsafe {
        let frame = Frame(ff::av_frame_alloc());
        let fields = frame.0.as_mut().ok_or("no memory for a frame")?;
        (fields.width, fields.height) = ((*coder.0).width, (*coder.0).height);
        fields.format = (*coder.0).pix_fmt as c_int;
        fields.pts = number as i64;
        check("av_frame_get_buffer", ff::av_frame_get_buffer(frame.0, 0))?;
        for (i, plane) in planes.iter().enumerate() {
            for (y, row) in plane.bytes.chunks_exact(plane.row).enumerate() {
                let to = (*frame.0).data[i].offset(y as isize * (*frame.0).linesize[i] as isize);
                ptr::copy_nonoverlapping(row.as_ptr(), to, row.len());
            }
        }
        Ok(frame)
    }
}

impl Codec for Ffmpeg {
    fn name(&self) -> &str {
        self.peer.label
    }

    fn takes(&self, set: &Set) -> bool {
        (self.peer.pixels)(set.format).is_some()
    }

    fn load(&mut self, set: &Set, frames: &[Vec<u8>], _: &[Vec<u8>]) -> Result<()> {
        let (pixels, planar) = (self.peer.pixels)(set.format).ok_or("a format that it does not take")?;
        let split: Vec<Vec<Plane>> = if planar {
            frames.iter().map(|f| planes::split(set.format, set.width, f)).collect()
        } else {
            frames.iter().map(|f| vec![Plane { row: set.width * 4, bytes: f.clone() }]).collect()
        };
        let shape: Vec<_> = split[0].iter().map(|p| (p.row, p.bytes.len() / p.row)).collect();
        // `split` stacks the quarters of a mosaic.
        let (width, height) =
            if set.format == Format::Rg12 { (set.width / 2, set.height * 2) } else { (set.width, set.height) };
        let (coder, decoder) = contexts(&self.peer, pixels, width, height)?;
        let frames =
            split.iter().enumerate().map(|(n, planes)| frame(&coder, planes, n)).collect::<Result<Vec<_>>>()?;
        // SAFETY: it takes nothing; null is refused when it is used.
        let packets = frames.iter().map(|_| Packet(unsafe { ff::av_packet_alloc() })).collect();
        // SAFETY: the same.
        let decoded = Frame(unsafe { ff::av_frame_alloc() });
        let (format, width) = (set.format, set.width);
        self.open = Some(Open { format, width, planar, shape, coder, decoder, frames, packets, decoded });
        Ok(())
    }

    fn compress(&mut self, number: usize) -> Result<usize> {
        let open = self.open.as_mut().ok_or("nothing was loaded")?;
        let packet = &open.packets[number];
        // SAFETY: coder, frame and packet are live; a packet is emptied before it is filled again.
        unsafe {
            check("avcodec_send_frame", ff::avcodec_send_frame(open.coder.0, open.frames[number].0))?;
            check("avcodec_receive_packet", ff::avcodec_receive_packet(open.coder.0, packet.0))?;
            Ok((*packet.0).size as usize)
        }
    }

    fn decompress(&mut self, number: usize) -> Result<()> {
        let open = self.open.as_mut().ok_or("nothing was loaded")?;
        // SAFETY: decoder, packet and frame are live; the frame is emptied before it is filled again.
        unsafe {
            check("avcodec_send_packet", ff::avcodec_send_packet(open.decoder.0, open.packets[number].0))?;
            check("avcodec_receive_frame", ff::avcodec_receive_frame(open.decoder.0, open.decoded.0))
        }
    }

    fn restored(&mut self) -> Result<Vec<u8>> {
        let open = self.open.as_mut().ok_or("nothing was loaded")?;
        // SAFETY: the frame is live, and the decoder filled it in for the format and size that the coder had, so that its
        // planes have these rows.
        let (data, strides, format) =
            unsafe { ((*open.decoded.0).data, (*open.decoded.0).linesize, (*open.decoded.0).format) };
        // SAFETY: the coder is open.
        let expected = unsafe { (*open.coder.0).pix_fmt as c_int };
        if format != expected {
            return Err(format!("decoded as pixel format {format}, not {expected}").into());
        }
        let plane = |(i, &(row, rows)): (usize, &(usize, usize))| {
            let bytes = (0..rows).flat_map(|y| {
                // SAFETY: as above.
                unsafe { std::slice::from_raw_parts(data[i].offset(y as isize * strides[i] as isize), row) }
            });
            Plane { row, bytes: bytes.copied().collect() }
        };
        let planes: Vec<Plane> = open.shape.iter().enumerate().map(plane).collect();
        if open.planar {
            return Ok(planes::join(open.format, open.width, &planes));
        }
        let mut frame = planes[0].bytes.clone();
        // It drops the unused byte, which is 255 in every set.
        frame.iter_mut().skip(3).step_by(4).for_each(|unused| *unused = 255);
        Ok(frame)
    }
}

/// Which version, for the record.
pub fn version() -> String {
    // SAFETY: they give constant C strings.
    let version = unsafe { CStr::from_ptr(ff::av_version_info()) };
    CString::from(version).to_string_lossy().into_owned()
}
