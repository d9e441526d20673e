//! Frames on their way into a device: an output, or the side of a memory-to-memory device that takes them.
//!
//! The memory is the frames' own, imported as it comes (`V4L2_MEMORY_DMABUF`). The driver maps a dma-buf anew whenever an
//! index gets another one than the time before, so each buffer keeps to an index of its own: those that negotiation knew from
//! the start, others from the first frame in them on. A frame is held until the driver gives its index back.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use shrbuf::{Access, BufferId, Family, Layout, MemoryKind, Shrbuf, WeakShrbuf};
use shrbuf_pipeline::{Colorimetry, Frame, Refusal, Size, Stream};

use super::ioctl::{
    self, Dequeued, DqbufError, FmtError, FormatRequest, Memory, OutputPlane, QbufError, SelectionTarget,
    StreamonError, VIDEO_MAX_PLANES,
};
use super::{AllocateError, Device, color, picture};
use crate::image::color::usual;

/// `VIDEO_MAX_FRAME`.
const MAX_BUFFERS: u32 = 32;

/// Longest time for a producer's fence: a GPU that takes longer hangs.
const FENCE_LIMIT: Duration = Duration::from_millis(1500);

/// Why a frame is not on its way.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The buffer's segments are not the memory planes that were agreed.
    #[error("a frame came in {given} buffers, agreed were {expected}; its producer has changed without saying so")]
    Planes {
        /// Segments of the frame.
        given: usize,
        /// Memory planes of the format.
        expected: usize,
    },
    /// A compressed frame that takes more than its buffer, or nothing.
    #[error("a compressed frame of {payload} bytes came in a buffer of {size}")]
    Payload {
        /// What the frame says.
        payload: u32,
        /// What there is.
        size: u64,
    },
    /// A buffer that the driver would refuse.
    #[error(
        "a frame came in a buffer of {size} bytes, the driver was set up for {sizeimage} and takes no smaller ones; have its \
         producer make all buffers that large from the start"
    )]
    TooSmall {
        /// What there is.
        size: u64,
        /// What was agreed.
        sizeimage: u32,
    },
    /// A buffer that nobody knew of in negotiation and that the driver would read elsewhere than the frame is.
    #[error("a frame came in a buffer that negotiation did not know, and {0}")]
    Unfit(String),
    /// Whoever writes the frame has not finished in time.
    #[error("the frame's producer has not signalled its fence within {FENCE_LIMIT:.1?}")]
    Fence,
    /// The device was told what the frames' code values mean, and takes other pictures since.
    #[error("the device was told of the frames' colours, whereupon {0}; this is a bug in its driver")]
    Told(String),
    /// No index after that.
    #[error(transparent)]
    Allocate(#[from] AllocateError),
    /// No stream after that.
    #[error(transparent)]
    Streamon(#[from] StreamonError),
    /// The fence could not be had.
    #[error("the frame's fence: {0}")]
    Os(#[from] std::io::Error),
    /// The kernel's answer.
    #[error(transparent)]
    Qbuf(#[from] QbufError),
}

/// What [`OutputQueue::dequeue`] found.
#[derive(Debug)]
pub enum Returned {
    /// A frame that the device is done with.
    Frame {
        /// The frame.
        frame: Frame,
        /// What the kernel says of it.
        buffer: ioctl::Buffer,
    },
    /// None; poll for `POLLOUT`.
    NotReady,
}

#[derive(Debug, Default)]
struct Slot {
    /// The buffer that this index was given last.
    last: Option<(BufferId, WeakShrbuf)>,
    /// When that was, in frames.
    at: u64,
    /// What the driver has.
    frame: Option<Frame>,
}

impl Slot {
    fn is_of(&self, id: BufferId) -> bool {
        self.last.as_ref().is_some_and(|(last, _)| *last == id)
    }

    /// No frame will come in its buffer.
    fn is_unused(&self) -> bool {
        self.last.as_ref().is_none_or(|(_, buffer)| buffer.is_gone())
    }
}

/// See the module. One exists at a time for a [`Device`]; dropping it stops the stream and frees its indices.
#[derive(Debug)]
pub struct OutputQueue {
    device: Device,
    stream: Stream,
    layout: Layout,
    /// What the driver was asked for, and what it has made of that.
    asked: FormatRequest,
    format: ioctl::Format,
    /// Bytes that it wants of each memory plane.
    sizes: Vec<u32>,
    compressed: bool,
    /// Of the last frame, where the driver cares.
    color: Option<Colorimetry>,
    /// The driver takes such frames for others.
    wrong: bool,
    miscolored: u64,
    warned: bool,
    slots: Vec<Slot>,
    /// The buffers that negotiation knew, of which some may be without an index.
    agreed: Vec<(BufferId, WeakShrbuf)>,
    /// There are as many indices as the driver gives.
    full: bool,
    queued: u32,
    frames: u64,
    late: u64,
    streaming: bool,
}

impl OutputQueue {
    /// Sets the device to the frames of `stream`, and has it map every one of `buffers` to see that it can.
    ///
    /// # Errors
    /// What does not fit: the format or size that the driver answers, rows or planes elsewhere than it reads them, a
    /// buffer that is too small, memory that it cannot reach.
    pub fn import(device: &Device, stream: &Stream, buffers: &[Shrbuf]) -> Result<OutputQueue, Refusal> {
        let refuse = |e: &dyn std::fmt::Display| Refusal::new(e.to_string());
        let first = buffers.first().ok_or_else(|| Refusal::new("there are no buffers"))?;
        let asked = request(stream, first.layout());
        let format = device.set_format(&asked).map_err(|e| refuse(&e))?;
        agree(device, stream, &asked, &format)?;
        fits(stream, buffers, &format)?;
        let queue = OutputQueue {
            device: device.clone(),
            stream: *stream,
            layout: *first.layout(),
            sizes: format.planes.iter().map(|p| p.sizeimage).collect(),
            asked,
            format,
            color: None,
            wrong: false,
            miscolored: 0,
            warned: false,
            compressed: stream.format.is_compressed(),
            slots: Vec::new(),
            agreed: Vec::new(),
            full: false,
            queued: 0,
            frames: 0,
            late: 0,
            streaming: false,
        };
        if !device.take_queue() {
            return Err(refuse(&AllocateError::AlreadyAllocated));
        }
        // From here on dropping `queue` gives the indices back.
        let mut queue = queue;
        let count = u32::try_from(buffers.len()).unwrap_or(u32::MAX).clamp(1, MAX_BUFFERS);
        queue.request(count).map_err(|e| refuse(&e))?;
        for (index, buffer) in (0..).zip(buffers).take(queue.slots.len()) {
            let planes = queue.planes(buffer, 0).map_err(|e| refuse(&e))?;
            ioctl::prepare_output(device, device.buf_type(), index, planes).map_err(|e| refuse(&e))?;
        }
        // An index that is prepared stays what it is, whichever frame comes.
        queue.request(count).map_err(|e| refuse(&e))?;
        for (slot, buffer) in queue.slots.iter_mut().zip(buffers) {
            slot.last = Some((buffer.id(), buffer.downgrade()));
        }
        queue.agree_on(buffers);
        Ok(queue)
    }

    /// Agrees that frames of `stream` in `buffers` go on where the frames before them were in others, while it streams.
    ///
    /// # Errors
    /// As [`OutputQueue::import`], so far as that can be told without the driver.
    pub fn go_on(&mut self, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        self.reads(stream, buffers)?;
        self.agree_on(buffers);
        Ok(())
    }

    fn reads(&self, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        let format = self.device.format().map_err(|e| Refusal::new(e.to_string()))?;
        fits(stream, buffers, &format)
    }

    /// Beside those agreed on before, in which frames may be on their way.
    fn agree_on(&mut self, buffers: &[Shrbuf]) {
        self.agreed.retain(|(_, buffer)| !buffer.is_gone());
        self.agreed.extend(buffers.iter().map(|buffer| (buffer.id(), buffer.downgrade())));
    }

    fn request(&mut self, count: u32) -> Result<(), AllocateError> {
        self.slots.clear();
        let granted = ioctl::reqbufs(&self.device, self.device.buf_type(), Memory::Dmabuf, count)?;
        self.slots.resize_with(granted.count as usize, Slot::default);
        Ok(())
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How the pictures that were agreed lie in their memory.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Buffers that negotiation did not know and that had no index when a frame came in them, since this was last asked: the
    /// driver maps each then. Where there are more buffers than indices can be, that is so for many a frame.
    pub fn take_late(&mut self) -> u64 {
        std::mem::take(&mut self.late)
    }

    /// Frames, since this was last asked, that the driver has and takes for frames of other colours, as it cannot be told.
    pub fn take_miscolored(&mut self) -> u64 {
        std::mem::take(&mut self.miscolored)
    }

    /// Frames that the driver has.
    pub fn queued(&self) -> u32 {
        self.queued
    }

    /// Starts the stream, unless it streams already; a driver that needs some frames first waits for them by itself.
    ///
    /// # Errors
    /// See [`StreamonError`].
    pub fn start(&mut self) -> Result<(), StreamonError> {
        if self.streaming {
            return Ok(());
        }
        ioctl::streamon(self.device.as_fd(), self.device.buf_type())?;
        self.streaming = true;
        Ok(())
    }

    /// Tells the driver of the frame's colours where they are others than of the one before, and gives it to the driver, once
    /// its producer's fences have signalled, which is waited for. `Ok(Some)` gives it back where every index is taken.
    ///
    /// # Errors
    /// See [`QueueError`]; the frame is dropped then.
    pub fn queue(&mut self, frame: Frame) -> Result<Option<Frame>, QueueError> {
        if self.color != Some(frame.color) && self.stream.format.family() == Family::Yuv {
            self.tell(frame.color)?;
        }
        let id = frame.buffer.id();
        let known = self.slots.iter().position(|slot| slot.is_of(id) && slot.frame.is_none());
        let Some(index) = known.or_else(|| self.index_for_another()) else { return Ok(Some(frame)) };
        if known.is_none() && !self.compressed {
            let reads = self.reads(&self.stream, std::slice::from_ref(&frame.buffer));
            reads.map_err(|refusal| QueueError::Unfit(refusal.to_string()))?;
        }
        if known.is_none() {
            // One that is repeated while the driver has it has an index already, and takes another.
            let has_one = self.slots.iter().any(|slot| slot.is_of(id));
            self.late += u64::from(!has_one && !self.agreed.iter().any(|(agreed, _)| *agreed == id));
        }
        if frame.buffer.has_fences() && !frame.buffer.wait(Access::Read, FENCE_LIMIT)? {
            return Err(QueueError::Fence);
        }
        let (device, planes) = (&self.device, self.planes(&frame.buffer, frame.payload)?);
        ioctl::qbuf_output(device, device.buf_type(), index as u32, planes, frame.timestamp.0)?;
        self.queued += 1;
        self.frames += 1;
        self.miscolored += u64::from(self.wrong);
        let slot = &mut self.slots[index];
        if known.is_none() {
            slot.last = Some((id, frame.buffer.downgrade()));
        }
        (slot.at, slot.frame) = (self.frames, Some(frame));
        Ok(None)
    }

    /// Tells the driver what code values mean from the next frame on.
    fn tell(&mut self, color: Colorimetry) -> Result<(), QueueError> {
        let Stream { format, size, .. } = self.stream;
        let asked = FormatRequest { colorimetry: color::told(format, color), ..self.asked };
        let why = match self.queued {
            _ if asked == self.asked => None,
            0 => self.set_without_indices(asked)?,
            // An HDMI transmitter can be told at any time. An encoder that forgets over it which part is picture could not be
            // told of that.
            _ if (self.format.width, self.format.height) == (size.width, size.height) => self.set(asked)?,
            _ => None,
        };
        let takes = color::meant(format, self.format.colorimetry, size.width);
        (self.color, self.wrong) = (Some(color), takes != color);
        if self.wrong && !self.warned {
            self.warned = true;
            tracing::warn!(
                device = %self.device.path().display(),
                frames = ?color,
                ?takes,
                why = why.map(|e| e.to_string()),
                "the device cannot be told of the frames' colours, and takes them for others: they may look wrong; RGB \
                 (through `gpu`) would not"
            );
        }
        Ok(())
    }

    /// Asks for the same pictures in other colours. What the driver says where it does not take them now.
    fn set(&mut self, asked: FormatRequest) -> Result<Option<FmtError>, QueueError> {
        let format = match self.device.set_format(&asked) {
            Ok(format) => format,
            Err(error) => return Ok(Some(error)),
        };
        agree(&self.device, &self.stream, &asked, &format).map_err(|refusal| QueueError::Told(refusal.to_string()))?;
        let now = ioctl::Format { colorimetry: self.format.colorimetry, ..format.clone() };
        if now != self.format {
            let ioctl::Format { pixelformat, width, height, .. } = format;
            return Err(QueueError::Told(format!("its buffers are others, of {pixelformat} {width}x{height}")));
        }
        (self.asked, self.format) = (asked, format);
        Ok(None)
    }

    /// The same while the driver has no frame: most take no other format as long as there are indices.
    fn set_without_indices(&mut self, asked: FormatRequest) -> Result<Option<FmtError>, QueueError> {
        let device = self.device.clone();
        // Some go back to their own with the format.
        let interval = device.frame_interval().ok().flatten();
        ioctl::streamoff(&device, device.buf_type()).map_err(StreamonError::Failure)?;
        let streamed = std::mem::take(&mut self.streaming);
        let indices: Vec<_> = self.slots.iter_mut().map(|slot| slot.last.take()).collect();
        self.request(0)?;
        let answer = self.set(asked)?;
        self.request(indices.len() as u32)?;
        for (slot, last) in self.slots.iter_mut().zip(indices) {
            slot.last = last;
        }
        if let Some(interval) = interval {
            let _ = device.set_frame_interval(interval);
        }
        if streamed {
            self.start()?;
        }
        Ok(answer)
    }

    /// A free index for a buffer that has none: one whose own is gone, a new one, or else the one that was used longest ago.
    fn index_for_another(&mut self) -> Option<usize> {
        let free = |slot: &&Slot| slot.frame.is_none();
        if let Some(unused) = self.slots.iter().position(|slot| free(&slot) && slot.is_unused()) {
            return Some(unused);
        }
        if !self.full && self.slots.len() < MAX_BUFFERS as usize {
            let index = ioctl::create_buf(&self.device, self.device.buf_type(), Memory::Dmabuf);
            if index.is_ok_and(|index| index as usize == self.slots.len()) {
                self.slots.push(Slot::default());
                return Some(self.slots.len() - 1);
            }
            self.full = true;
        }
        let oldest = self.slots.iter().filter(free).map(|slot| slot.at).min()?;
        self.slots.iter().position(|slot| free(&slot) && slot.at == oldest)
    }

    /// The memory planes of a picture, all of which the driver can take.
    fn planes<'a>(
        &'a self,
        buffer: &'a Shrbuf,
        payload: u32,
    ) -> Result<impl ExactSizeIterator<Item = OutputPlane<'a>>, QueueError> {
        let (segments, expected) = (buffer.segments(), self.sizes.len());
        if segments.len() != expected || expected > VIDEO_MAX_PLANES {
            return Err(QueueError::Planes { given: segments.len(), expected });
        }
        let of_payload = self.compressed && self.streaming;
        let bytesused = move |sizeimage| if of_payload { payload } else { sizeimage };
        for (segment, &sizeimage) in segments.iter().zip(&self.sizes) {
            let (size, bytesused) = (segment.size(), bytesused(sizeimage));
            if size < u64::from(sizeimage) {
                return Err(QueueError::TooSmall { size, sizeimage });
            }
            if bytesused == 0 || u64::from(bytesused) > size {
                return Err(QueueError::Payload { payload: bytesused, size });
            }
        }
        Ok(segments.iter().zip(&self.sizes).map(move |(segment, &sizeimage)| OutputPlane {
            fd: segment.as_fd(),
            length: u32::try_from(segment.size()).unwrap_or(u32::MAX),
            bytesused: bytesused(sizeimage),
        }))
    }

    /// Takes back a frame that the device is done with. Never waits.
    ///
    /// # Errors
    /// See [`DqbufError`].
    pub fn dequeue(&mut self) -> Result<Returned, DqbufError> {
        let device = &self.device;
        match ioctl::dqbuf(device, device.buf_type(), Memory::Dmabuf, self.sizes.len())? {
            Dequeued::Buffer(buffer) => {
                let slot = self.slots.get_mut(buffer.index as usize);
                let frame = slot.and_then(|slot| slot.frame.take());
                let frame = frame.ok_or(DqbufError::NotQueued { index: buffer.index })?;
                self.queued -= 1;
                Ok(Returned::Frame { frame, buffer })
            }
            Dequeued::NotReady | Dequeued::EndOfStream => Ok(Returned::NotReady),
        }
    }
}

impl OutputQueue {
    /// Stops the stream, and takes back the frames that the device was not done with, in the order in which they were made.
    pub fn into_frames(mut self) -> Vec<Frame> {
        let mut frames: Vec<_> = self.slots.iter_mut().filter_map(|slot| slot.frame.take()).collect();
        frames.sort_by_key(|frame| frame.sequence);
        frames
    }
}

/// For polling.
impl AsFd for OutputQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Drop for OutputQueue {
    fn drop(&mut self) {
        // After an unplug both fail, and the kernel has cleaned up by itself.
        if let Err(failure) = ioctl::streamoff(&self.device, self.device.buf_type()) {
            tracing::debug!(device = %self.device.path().display(), %failure, "stopping an output queue");
        }
        if let Err(error) = ioctl::reqbufs(&self.device, self.device.buf_type(), Memory::Dmabuf, 0) {
            tracing::debug!(device = %self.device.path().display(), %error, "freeing output buffers");
        }
        self.device.put_queue();
    }
}

/// What to ask a driver for that is to take frames of `stream` that lie like this. Most are of the colours that are usual for
/// their size; what they really are shows with the first.
fn request(stream: &Stream, lies: &Layout) -> FormatRequest {
    let Stream { format, size: Size { width, height }, .. } = *stream;
    FormatRequest {
        width,
        height,
        pixelformat: picture::fourcc(format, lies.segments() > 1),
        bytesperline: lies.planes().first().map(|p| p.stride).filter(|&stride| stride > 0),
        colorimetry: color::told(format, usual(stream.size)),
    }
}

/// Whether the driver's answer is what was asked for; it is told which part of a buffer is picture.
fn agree(device: &Device, stream: &Stream, asked: &FormatRequest, format: &ioctl::Format) -> Result<(), Refusal> {
    picture::roomy(stream, asked, format)?;
    if stream.format.is_compressed() {
        return Ok(());
    }
    picture::select(device, SelectionTarget::Crop, stream.size, format)
}

/// Whether the driver, set to `format`, reads frames of `stream` where they lie.
fn fits(stream: &Stream, buffers: &[Shrbuf], format: &ioctl::Format) -> Result<(), Refusal> {
    let refuse = |e: &dyn std::fmt::Display| Refusal::new(e.to_string());
    let reads = picture::layout(stream.format, stream.size, format, &[])?;
    for (index, buffer) in buffers.iter().enumerate() {
        let lies = buffer.layout();
        if lies.segments() != reads.segments() {
            let (given, expected) = (lies.segments(), reads.segments());
            let what =
                format!("buffer {index}: its planes are in {given} buffers, the driver reads them from {expected}");
            return Err(Refusal::new(what).instead("another format, or memory from another allocator, may fit"));
        }
        if let Some(plane) = (0..lies.planes().len()).find(|&p| lies.planes()[p] != reads.planes()[p]) {
            let (l, r) = (lies.planes()[plane], reads.planes()[plane]);
            let what = format!(
                "buffer {index}: plane {plane} begins at byte {} with rows of {}, the driver reads it from byte {} with \
                 rows of {}",
                l.offset, l.stride, r.offset, r.stride
            );
            return Err(Refusal::new(what).instead(nearest(stream, format)));
        }
        for (plane, (segment, memory)) in buffer.segments().iter().zip(&format.planes).enumerate() {
            if segment.kind() != MemoryKind::DmaBuf {
                return Err(Refusal::new(format!("buffer {index} is no dma-buf")).instead("a dma-buf would do"));
            }
            if segment.size() < u64::from(memory.sizeimage) {
                let (index, size, sizeimage) = (index, segment.size(), memory.sizeimage);
                return Err(refuse(&AllocateError::TooSmall { index, plane, size, sizeimage }));
            }
        }
    }
    Ok(())
}

/// Memory that the driver would read.
fn nearest(stream: &Stream, driver: &ioctl::Format) -> String {
    let format = stream.format;
    let rows = driver.planes.first().map_or(0, |p| p.bytesperline);
    let room = (driver.width, driver.height) != (stream.size.width, stream.size.height);
    let room = if room { format!(" in memory laid out for {}x{}", driver.width, driver.height) } else { String::new() };
    let one = if format.planes().len() > 1 { ", or a format of one plane" } else { "" };
    format!("{format} {}{room}, with rows of {rows} bytes, would do{one}", stream.size)
}
