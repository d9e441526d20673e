//! A driver's formats as the pipeline's: layouts, offers, buffers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use shrbuf::exporter::{DmaHeap, Exporter, Udmabuf};
use shrbuf::{Access, Format, Layout, Plane, Segment, Shrbuf};
use shrbuf_pipeline::{Modifiers, Origin, Rate, Rates, Rect, Refusal, Size, SizeOffer, Sizes, Stream, Video};

use super::ioctl::{
    self, FormatRequest, Fraction, FrameIntervals, FrameSizes, PixelFormat, PlanePayload, Selection, SelectionError,
    SelectionTarget,
};
use super::{CaptureQueue, Device, FormatInfo};
use crate::memory;

/// Where the planes of a picture lie in the memory of one buffer of a driver's format, which may have room for more (a
/// codec works in whole blocks); `data_offset` of each memory plane where there are any.
pub(super) fn layout(
    format: Format,
    size: Size,
    driver: &ioctl::Format,
    data_offsets: &[u32],
) -> Result<Layout, Refusal> {
    if format.is_compressed() {
        let plane = Plane { segment: 0, offset: data_offsets.first().copied().unwrap_or(0), stride: 0 };
        let layout = Layout::new(format, None, size.width, size.height, &[plane]);
        return layout.map_err(|e| Refusal::new(e.to_string()));
    }
    let offset_of = |memory: usize| data_offsets.get(memory).copied().unwrap_or(0);
    let mut planes = [Plane::default(); shrbuf::layout::MAX_PLANES];
    let samplings = format.planes();
    let luma = samplings[0];
    let several = driver.planes.len() > 1;
    let mut end = offset_of(0);
    for (i, s) in samplings.iter().enumerate() {
        let Some(memory) = driver.planes.get(if several { i } else { 0 }) else {
            return Err(Refusal::new(format!(
                "{format} has {} planes, the driver {}",
                samplings.len(),
                driver.planes.len()
            )));
        };
        planes[i] = if several {
            Plane { segment: i as u8, offset: offset_of(i), stride: memory.bytesperline }
        } else {
            // In one buffer chroma follows luma, its stride in proportion (V4L2, "YUV planar formats").
            let stride =
                u64::from(memory.bytesperline) * u64::from(s.bytes * luma.hsub) / u64::from(luma.bytes * s.hsub);
            Plane { segment: 0, offset: end, stride: stride as u32 }
        };
        end = end.saturating_add(planes[i].stride.saturating_mul(driver.height.div_ceil(s.vsub)));
    }
    Layout::new(format, None, size.width, size.height, &planes[..samplings.len()])
        .map_err(|e| Refusal::new(e.to_string()))
}

fn rates(intervals: &FrameIntervals) -> Rates {
    let rate = |f: &Fraction| Rate::new(f.denominator, f.numerator);
    match intervals {
        FrameIntervals::Discrete(list) => Rates::List(list.iter().map(rate).collect()),
        FrameIntervals::Stepwise { min, max, .. } => Rates::Range(rate(max), rate(min)),
        FrameIntervals::NotEnumerated => Rates::Any,
    }
}

/// A queue's format as an offer, where it is one of the project's list.
pub(super) fn video(info: &FormatInfo, current: Size) -> Option<Video> {
    let (format, multi) = Format::from_v4l2(info.description.pixelformat.0)?;
    let size = |s: &ioctl::Size| Size::new(s.width, s.height);
    let of = |s: Size| info.intervals.iter().find(|(size, _)| (size.width, size.height) == (s.width, s.height));
    let sizes = match &info.sizes {
        FrameSizes::Discrete(list) => {
            let offers = list
                .iter()
                .map(size)
                .map(|s| SizeOffer { sizes: Sizes::Exact(s), rates: of(s).map_or(Rates::Any, |(_, i)| rates(i)) });
            offers.collect()
        }
        FrameSizes::Stepwise { min, max, step } => vec![SizeOffer {
            sizes: Sizes::Range { min: size(min), max: size(max), step: size(step) },
            // The driver tells the rates of single sizes only; those of the smallest are the widest choice, and
            // what it really sets is checked when the format is.
            rates: info.intervals.first().map_or(Rates::Any, |(_, i)| rates(i)),
        }],
        FrameSizes::NotEnumerated => vec![SizeOffer { sizes: Sizes::Exact(current), rates: Rates::Any }],
    };
    let plane_segments = multi && format.planes().len() > 1;
    Some(Video { format, modifiers: Modifiers::Unknown, sizes, plane_segments })
}

/// Sets a capture queue to the frames of `stream`; a driver that answers with others is refused. Memory that is to have
/// room for whole blocks has it at the picture's edges where the driver can be told to write to a part of its buffers.
pub(super) fn set_format(device: &Device, stream: &Stream) -> Result<ioctl::Format, Refusal> {
    let (size, room) = (stream.size, stream.room());
    if room != size
        && let Ok(format) = set_room(device, stream, room)
        && (format.width, format.height) == (room.width, room.height)
        && matches!(write_to(device, size), Ok(true))
    {
        return Ok(format);
    }
    let format = set_room(device, stream, size)?;
    let answer = Size::new(format.width, format.height);
    if answer != size {
        return Err(other_size(stream, answer));
    }
    write_to(device, size)?;
    // Planes of their own, and one alone, have room behind them; chroma behind luma begins where the driver has it.
    if room.height != size.height && stream.format.planes().len() > 1 && format.planes.len() == 1 {
        return Err(apart(stream));
    }
    Ok(format)
}

/// The refusal of a stream whose planes the driver puts where no consumer that works in blocks looks for them.
fn apart(stream: &Stream) -> Refusal {
    let Stream { format, size, .. } = *stream;
    let (room, block) = (stream.room(), stream.block.unwrap_or(Size::new(1, 1)));
    let what = format!(
        "a consumer reads {format} in whole blocks of {block}, laid out for {room}; the driver lays {size} out for {size}, \
         and cannot be told to write it to a part of its buffers"
    );
    let below = size.height / block.height * block.height;
    Refusal::new(what).instead(format!("{}x{below}, a format of one plane, or `gpu` between the two", size.width))
}

/// Has a driver that writes to a part of its buffers write to the upper left corner, all of `size`: the part stays what it
/// was when the format is set. False where all of a buffer is written to, always.
fn write_to(device: &Device, size: Size) -> Result<bool, Refusal> {
    let (queue, target) = (device.buf_type(), SelectionTarget::Compose);
    let corner = Selection { left: 0, top: 0, width: size.width, height: size.height };
    let set = match ioctl::g_selection(device, queue, target) {
        Err(SelectionError::None { .. }) => return Ok(false),
        Ok(set) if set == corner => return Ok(true),
        _ => ioctl::s_selection(device, queue, target, corner).map_err(|e| Refusal::new(e.to_string()))?,
    };
    if set == corner {
        return Ok(true);
    }
    let Selection { left, top, width, height } = set;
    let what = format!("the driver writes {width}x{height} at {left},{top} of its buffers, not {size}");
    Err(Refusal::new(what).instead(format!("{width}x{height} would do")))
}

/// Sets a capture queue to buffers with room for `room`, which has the frames of `stream` in it; the driver may take more
/// room. How large a buffer of a codec's frames is has nothing to do with their size.
pub(super) fn set_room(device: &Device, stream: &Stream, room: Size) -> Result<ioctl::Format, Refusal> {
    // Rows of whole blocks may be longer than those of the room.
    let longest = room.width.max(stream.room().width);
    let least = Layout::linear(stream.format, longest, room.height, stream.stride_align);
    let padded = stream.stride_align > 1 || longest > room.width;
    let bytesperline = least.ok().filter(|_| padded).map(|l| l.planes()[0].stride);
    let pixelformat = fourcc(stream.format, stream.plane_segments);
    let (width, height, colorimetry) = (room.width, room.height, ioctl::Colorimetry::default());
    let request = FormatRequest { width, height, pixelformat, bytesperline, colorimetry };
    let format = device.set_format(&request).map_err(|e| Refusal::new(e.to_string()))?;
    roomy(stream, &request, &format)?;
    Ok(format)
}

/// How V4L2 calls `format`, in one buffer or with a buffer for each plane.
pub(super) fn fourcc(format: Format, plane_segments: bool) -> PixelFormat {
    PixelFormat(format.v4l2_multi().filter(|_| plane_segments).unwrap_or(format.v4l2()))
}

/// Refuses a driver's answer that frames of `stream` are not in.
pub(super) fn roomy(stream: &Stream, request: &FormatRequest, format: &ioctl::Format) -> Result<(), Refusal> {
    let (asked, answer) = (request.pixelformat, format.pixelformat);
    if answer != asked {
        let what = format!("the driver answers {answer} to {asked} {}", stream.size);
        return Err(Refusal::new(what).instead(format!("{answer} would do")));
    }
    let small = format.width < stream.size.width || format.height < stream.size.height;
    if small && !stream.format.is_compressed() {
        return Err(other_size(stream, Size::new(format.width, format.height)));
    }
    Ok(())
}

fn other_size(stream: &Stream, answer: Size) -> Refusal {
    let what = format!("the driver answers {answer} to {} {}", stream.format, stream.size);
    Refusal::new(what).instead(format!("{answer} would do"))
}

/// Tells the driver which part of a buffer is picture, where it has room for more.
pub(super) fn select(
    device: &Device,
    target: SelectionTarget,
    size: Size,
    format: &ioctl::Format,
) -> Result<(), Refusal> {
    let room = Size::new(format.width, format.height);
    if room == size {
        return Ok(());
    }
    let part = Selection { left: 0, top: 0, width: size.width, height: size.height };
    let no = match ioctl::s_selection(device, device.buf_type(), target, part) {
        Ok(set) if set == part => return Ok(()),
        Ok(set) => format!("it answers {}x{} at {},{} to that", set.width, set.height, set.left, set.top),
        Err(e) => e.to_string(),
    };
    let what = format!("the driver works on {room}, and cannot be told that {size} of it are picture: {no}");
    Err(Refusal::new(what).instead(format!("{room} would do")))
}

/// The part of a decoder's buffers that is picture; all of it where the driver knows of no parts.
pub(super) fn composed(device: &Device, room: Size) -> Result<Rect, ioctl::Failure> {
    match ioctl::g_selection(device, device.buf_type(), SelectionTarget::Compose) {
        Ok(Selection { left, top, width, height })
            if left.saturating_add(width) <= room.width && top.saturating_add(height) <= room.height =>
        {
            Ok(Rect { x: left, y: top, width, height })
        }
        Err(SelectionError::Failure(failure)) => Err(failure),
        _ => Ok(Rect { x: 0, y: 0, width: room.width, height: room.height }),
    }
}

/// A part of a buffer that does not begin at its corner, which a frame is to say.
pub(super) fn off_corner(picture: Rect) -> Option<Rect> {
    Some(picture).filter(|p| (p.x, p.y) != (0, 0))
}

/// The queue of a capture format that is set, and its buffers: the driver's own, or of the stream's allocator.
pub(super) fn allocate(
    device: &Device,
    stream: &Stream,
    format: &ioctl::Format,
    name: &str,
) -> Result<(CaptureQueue, Vec<Shrbuf>), Refusal> {
    let refuse = |e: &dyn std::fmt::Display| Refusal::new(e.to_string());
    if stream.origin != Origin::V4l2 {
        let (queue, buffers) = lent(device, stream, format, name, &[])?;
        let offsets = queue.data_offsets(0).map_err(|e| refuse(&e))?;
        if offsets.iter().all(|&offset| offset == 0) {
            return Ok((queue, buffers));
        }
        // Where the driver begins shows only once it has the memory; with that, laid out anew.
        drop((queue, buffers));
        return lent(device, stream, format, name, &offsets);
    }
    let access = if stream.read_only { Access::Read } else { Access::Write };
    let (queue, exported) = CaptureQueue::mmap(device, stream.buffers, access).map_err(|e| refuse(&e))?;
    let needed = (stream.room() != stream.size).then(|| whole_blocks(stream, format, &[])).transpose()?;
    let buffers = exported.into_iter().map(|b| {
        let fds: Vec<_> = b.planes.into_iter().map(|p| p.fd).collect();
        let offsets = queue.data_offsets(b.index).map_err(|e| refuse(&e))?;
        let layout = layout(stream.format, stream.size, format, &offsets)?;
        let segments = fds.into_iter().map(Segment::import).collect::<Result<Vec<_>, _>>();
        let segments = segments.map_err(|e| refuse(&e))?;
        for (plane, segment) in segments.iter().enumerate() {
            let (has, needs) = (segment.size(), needed.map_or(0, |layout| layout.segment_size(plane)));
            if has < needs {
                let what = format!("the driver's buffers have {has} bytes, room for {} needs {needs}", stream.room());
                return Err(Refusal::new(what).instead("memory = \"dma-heap\" has room"));
            }
        }
        for s in &segments {
            // A name is for people reading debugfs; a kernel without it is no reason to fail.
            let _ = s.set_name(name);
        }
        Shrbuf::new(segments, layout).map_err(|e| refuse(&e))
    });
    let buffers = buffers.collect::<Result<Vec<_>, _>>()?;
    Ok((queue, buffers))
}

/// What a buffer has room for: what the driver writes, what it wants beside that, and whole blocks.
fn whole_blocks(stream: &Stream, format: &ioctl::Format, data_offsets: &[u32]) -> Result<Layout, Refusal> {
    let of = |height: u32| {
        let driver = ioctl::Format { height, ..format.clone() };
        layout(stream.format, Size::new(format.width, height), &driver, data_offsets)
    };
    let height = format.height.max(stream.room().height);
    let room = of(height)?;
    let missing = |(memory, plane): (usize, &ioctl::PlaneFormat)| {
        let bytes = u64::from(plane.sizeimage).saturating_sub(room.segment_size(memory));
        // Lines of the picture: chroma may have half of them.
        let lines = stream.format.planes().get(memory).map_or(1, |p| u64::from(p.vsub));
        bytes.div_ceil(plane.bytesperline.max(1).into()) * lines
    };
    let rows = format.planes.iter().enumerate().map(missing).max().unwrap_or(0);
    if rows == 0 { Ok(room) } else { of(height.saturating_add(u32::try_from(rows).unwrap_or(u32::MAX))) }
}

fn lent(
    device: &Device,
    stream: &Stream,
    format: &ioctl::Format,
    name: &str,
    data_offsets: &[u32],
) -> Result<(CaptureQueue, Vec<Shrbuf>), Refusal> {
    let buffers = lend_at(stream, format, name, data_offsets)?;
    let fds = dma_bufs(&buffers).map_err(|e| Refusal::new(e.to_string()))?;
    Ok((CaptureQueue::dmabuf(device, fds).map_err(|e| Refusal::new(e.to_string()))?, buffers))
}

/// Buffers of the stream's allocator, as the driver wants them.
pub(super) fn lend(stream: &Stream, format: &ioctl::Format, name: &str) -> Result<Vec<Shrbuf>, Refusal> {
    lend_at(stream, format, name, &[])
}

fn lend_at(stream: &Stream, format: &ioctl::Format, name: &str, data_offsets: &[u32]) -> Result<Vec<Shrbuf>, Refusal> {
    let exporter = match stream.origin {
        Origin::DmaHeap => DmaHeap::open("system", name).map(Exporter::DmaHeap),
        _ => Udmabuf::open(name).map(Exporter::Udmabuf),
    };
    let exporter = exporter.map_err(|e| Refusal::new(e.to_string()))?;
    let picture = layout(stream.format, stream.size, format, data_offsets)?;
    let room = whole_blocks(stream, format, data_offsets)?;
    let roomy = |_| exporter.allocate(&room).map_err(|e| Refusal::new(e.to_string()));
    (0..stream.buffers).map(roomy).map(|buffer| memory::inside(buffer?, picture)).collect()
}

/// The dma-bufs of `buffers`, a list for each.
pub(super) fn dma_bufs(buffers: &[Shrbuf]) -> io::Result<Vec<Vec<OwnedFd>>> {
    buffers.iter().map(|b| b.segments().iter().map(|s| s.as_fd().try_clone_to_owned()).collect()).collect()
}

/// What a whole picture has in a memory plane.
pub(super) struct Whole {
    data_offset: u32,
    /// First byte after it.
    end: u64,
}

impl Whole {
    pub(super) fn of(layout: &Layout) -> Vec<Whole> {
        let first = |segment| layout.planes().iter().find(|p| usize::from(p.segment) == segment);
        let whole = |segment| Some(Whole { data_offset: first(segment)?.offset, end: layout.segment_bytes(segment) });
        (0..).map_while(whole).collect()
    }

    pub(super) fn are_in(whole: &[Whole], payloads: &[PlanePayload]) -> bool {
        let is_in = |(whole, payload): (&Whole, &PlanePayload)| {
            let end = u64::from(payload.data_offset) + u64::from(payload.bytesused);
            payload.data_offset == whole.data_offset && end >= whole.end
        };
        whole.len() == payloads.len() && whole.iter().zip(payloads).all(is_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a driver answers for 64x48 in memory planes of these strides.
    fn driver(strides: &[u32]) -> ioctl::Format {
        ioctl::Format {
            width: 64,
            height: 48,
            pixelformat: PixelFormat(0),
            field: ioctl::Field::None,
            colorimetry: ioctl::Colorimetry::default(),
            premultiplied: false,
            planes: strides.iter().map(|&bytesperline| ioctl::PlaneFormat { bytesperline, sizeimage: 0 }).collect(),
        }
    }

    fn layout(format: Format, driver: &ioctl::Format, data_offsets: &[u32]) -> Result<Layout, Refusal> {
        super::layout(format, Size::new(64, 48), driver, data_offsets)
    }

    fn planes(layout: &Layout) -> Vec<(u8, u32, u32)> {
        layout.planes().iter().map(|p| (p.segment, p.offset, p.stride)).collect()
    }

    #[test]
    fn planes_in_one_memory_follow_each_other() {
        let nv12 = layout(Format::Nv12, &driver(&[128]), &[]).unwrap();
        assert_eq!(planes(&nv12), [(0, 0, 128), (0, 128 * 48, 128)]);
        let yu12 = layout(Format::Yu12, &driver(&[128]), &[]).unwrap();
        assert_eq!(planes(&yu12), [(0, 0, 128), (0, 128 * 48, 64), (0, 128 * 48 + 64 * 24, 64)]);
        let late = layout(Format::Nv12, &driver(&[64]), &[256]).unwrap();
        assert_eq!(planes(&late), [(0, 256, 64), (0, 256 + 64 * 48, 64)]);
    }

    #[test]
    fn planes_in_a_memory_each_have_its_stride_and_begin_where_it_says() {
        let nv16 = layout(Format::Nv16, &driver(&[64, 128]), &[128, 0]).unwrap();
        assert_eq!(planes(&nv16), [(0, 128, 64), (1, 0, 128)]);
        let yu12 = layout(Format::Yu12, &driver(&[64, 32, 48]), &[]).unwrap();
        assert_eq!(planes(&yu12), [(0, 0, 64), (1, 0, 32), (2, 0, 48)]);
    }

    #[test]
    fn a_driver_with_fewer_memories_than_planes_is_refused() {
        let refusal = layout(Format::Yu12, &driver(&[64, 32]), &[]).unwrap_err();
        assert!(refusal.to_string().contains("YU12 has 3 planes, the driver 2"), "{refusal}");
    }

    #[test]
    fn lent_memory_has_room_for_whole_blocks_and_for_what_the_driver_wants() {
        let stream = |format, block| Stream {
            format,
            modifier: None,
            size: Size::new(64, 42),
            rate: None,
            origin: Origin::DmaHeap,
            stride_align: 1,
            block,
            plane_segments: false,
            read_only: false,
            buffers: 1,
        };
        let (one, sixteen) = (None, Some(Size::new(16, 16)));
        let bytes = |format, block, planes: &[(u32, u32)]| {
            let plane = |&(bytesperline, sizeimage): &_| ioctl::PlaneFormat { bytesperline, sizeimage };
            let driver = ioctl::Format { height: 42, planes: planes.iter().map(plane).collect(), ..driver(&[]) };
            let room = whole_blocks(&stream(format, block), &driver, &[]).unwrap();
            (0..planes.len()).map(|memory| room.segment_size(memory)).collect::<Vec<_>>()
        };
        assert_eq!(bytes(Format::Grey, one, &[(64, 64 * 42)]), [64 * 42]);
        assert_eq!(bytes(Format::Grey, sixteen, &[(64, 64 * 42)]), [64 * 48]);
        // A codec may keep what it needs for later frames behind the picture.
        assert!(bytes(Format::Nv12, one, &[(64, 9000)])[0] >= 9000);
        assert_eq!(bytes(Format::Nv12, one, &[(64, 64 * 42), (64, 64 * 24)]), [64 * 48, 64 * 24]);
    }

    fn payload(data_offset: u32, bytesused: u32) -> PlanePayload {
        PlanePayload { data_offset, bytesused }
    }

    #[test]
    fn a_picture_is_whole_where_every_plane_is() {
        let nv16 = layout(Format::Nv16, &driver(&[64, 64]), &[128, 0]).unwrap();
        let whole = Whole::of(&nv16);
        let (luma, chroma) = (payload(128, 64 * 48), payload(0, 64 * 48));
        assert!(Whole::are_in(&whole, &[luma, chroma]));
        let short = |p: PlanePayload| PlanePayload { bytesused: p.bytesused - 1, ..p };
        assert!(!Whole::are_in(&whole, &[short(luma), chroma]));
        assert!(!Whole::are_in(&whole, &[luma, short(chroma)]));
        assert!(!Whole::are_in(&whole, &[payload(0, 64 * 50), chroma]), "it begins elsewhere");
        assert!(!Whole::are_in(&whole, &[luma]), "a plane is missing");
        assert!(!Whole::are_in(&whole, &[luma, chroma, chroma]), "a plane too many");
    }

    #[test]
    fn a_picture_of_planes_in_one_memory_is_whole_to_the_end_of_the_last() {
        let whole = Whole::of(&layout(Format::Yu12, &driver(&[64]), &[]).unwrap());
        let bytes = 64 * 48 * 3 / 2;
        assert!(Whole::are_in(&whole, &[payload(0, bytes)]));
        assert!(!Whole::are_in(&whole, &[payload(0, bytes - 1)]));
    }
}
