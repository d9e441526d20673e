//! `kms-capture`: a display that is read back, through the writeback connector of its CRTC.
//!
//! Writeback is part of a commit: who asks for a picture says so in the very commit that changes the screen, and only
//! the DRM master may commit. So it is not a device of its own that a second element could read beside the one which
//! drives the display, and `kms-capture` is a `kms-sink` with an output.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use shrbuf::{BufferId, Fence, FenceStatus, Pool, Shrbuf};
use shrbuf_pipeline::{
    Build, BuildError, Element, Failure, FailureKind, Frame, Refusal, Size, Start, Stream, Timestamp, properties,
};

use super::planes::Planes;
use super::sink::{Display, KmsSink, Order};
use super::{Card, DumbBuffer, FrameBuffer};
use crate::image::color;

properties! {
    /// What is on a display, as frames: to record or to pass on a screen that the same pipeline drives.
    ///
    /// It shows what comes in as `kms-sink` does, with the same properties, and gives out pictures of the screen, all
    /// planes composed, which the display controller's writeback connector writes into buffers of the card: no CPU copies
    /// them. One comes for each change of the screen, or fewer where one takes longer to write than to the next change;
    /// where nothing changes, none comes. The first commit, which sets the mode, gives none. A frame carries the time at which
    /// it was on screen, and its number counts changes, with gaps for those that were not captured. For a consumer that reads
    /// whole blocks (a codec) the buffers have room for these.
    ///
    /// The kernel has a picture written only as part of a commit, and lets only the DRM master commit. So this drives the
    /// display itself, and cannot look over the shoulder of another program. Few display controllers have a writeback
    /// connector: vc4, msm, rcar-du, komeda, malidp, some amdgpu, and vkms.
    ///
    /// ```toml
    /// [element.screen]
    /// type = "kms-capture"
    ///
    /// [[link]]
    /// path = ["camera", "screen", "file"]
    /// ```
    pub struct KmsCapture = "kms-capture" {
        /// Card node, such as "/dev/dri/card0"; not set, the first with a display.
        card: Option<PathBuf> = None,
        /// Connector, such as "HDMI-A-1"; not set, the first with a display.
        connector: Option<String> = None,
        /// Size of the display's mode, and so of the pictures; as `kms-sink` has it.
        mode: Option<Size> = None,
        /// Where each of several inputs is shown; as `kms-sink` has it.
        planes: Planes = Planes::default(),
        /// Which frame is shown when several wait.
        order: Order = Order::Fifo,
    }
}

impl Build for KmsCapture {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        let KmsCapture { card, connector, mode, planes, order } = self;
        let sink = KmsSink { card, connector, mode, planes, order, screenshot: None };
        Ok(Box::new(Display::capturing(sink)))
    }
}

/// What a display needs in order to be read back.
#[derive(Default)]
pub(super) struct Capture {
    buffers: Vec<Shrbuf>,
    targets: Vec<(BufferId, FrameBuffer)>,
    run: Option<Run>,
    /// Changes of the screen that were not captured, since none was free to write to.
    pub(super) missed: u64,
}

struct Run {
    pool: Pool,
    /// Readable once the picture under way is written.
    fences: Epoll,
    writing: Option<Writing>,
    /// What is on that picture: vkms reads it until the picture is written, long after it has left the screen.
    of: Vec<Frame>,
}

/// A picture under way.
struct Writing {
    picture: Shrbuf,
    fence: Fence,
    number: u64,
    /// When it was on screen.
    at: Option<Timestamp>,
}

fn limit<E: Into<Box<dyn std::error::Error + Send + Sync>>>(error: E) -> Failure {
    Failure::new(FailureKind::Limit, error)
}

impl Capture {
    /// Buffers of `card` that pictures are written to, with room behind and beside them for a consumer that reads whole
    /// blocks: a writeback connector writes a frame buffer, which need not be all of its memory. How long rows are is the
    /// driver's to say, and looked at by those who import.
    pub(super) fn allocate(&mut self, card: &Card, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.forget();
        let fourcc = stream.format.drm().ok_or_else(|| Refusal::new(format!("DRM knows no {}", stream.format)))?;
        let (size, room) = (stream.size, stream.room());
        for _ in 0..stream.buffers.max(1) {
            let made = DumbBuffer::with_room(card, (size.width, size.height), (room.width, room.height), fourcc);
            let (target, buffer) = made.map_err(|e| Refusal::new(e.to_string()))?.into_parts();
            self.targets.push((buffer.id(), target));
            self.buffers.push(buffer);
        }
        Ok(self.buffers.clone())
    }

    /// The mode's size that buffers were allocated for.
    pub(super) fn size(&self) -> Option<(u32, u32)> {
        self.targets.first().map(|(_, target)| (target.width(), target.height()))
    }

    pub(super) fn start(
        &mut self,
        start: &mut Start<'_>,
        written: u32,
        back: u32,
        inputs: usize,
    ) -> Result<(), Failure> {
        // Idle buffers go back to the pool without a word; they are looked for at each commit.
        let pool = Pool::new(std::mem::take(&mut self.buffers), |_| {}).map_err(limit)?;
        let fences = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(limit)?;
        start.watch(fences.0.try_clone().map_err(limit)?, written)?;
        start.watch(pool.fences_fd().try_clone_to_owned().map_err(limit)?, back)?;
        self.run = Some(Run { pool, fences, writing: None, of: Vec::with_capacity(inputs) });
        Ok(())
    }

    /// A buffer to write the next picture to, if the one before is written and not all are held downstream.
    pub(super) fn free(&mut self) -> Option<(Shrbuf, &FrameBuffer)> {
        let run = self.run.as_ref().filter(|run| run.writing.is_none());
        let Some(picture) = run.and_then(|run| run.pool.acquire()) else {
            self.missed += 1;
            return None;
        };
        let target = self.targets.iter().find(|(id, _)| *id == picture.id()).map(|(_, target)| target)?;
        Some((picture, target))
    }

    /// A picture is being written, of change `number` of the screen.
    pub(super) fn began(&mut self, picture: Shrbuf, fence: Fence, number: u64) -> std::io::Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        run.fences.add(&fence, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        run.writing = Some(Writing { picture, fence, number, at: None });
        Ok(())
    }

    /// Holds what is on the picture under way, where it has just begun.
    pub(super) fn hold<'f>(&mut self, frames: impl Iterator<Item = &'f Frame>) {
        if let Some(run) = self.run.as_mut().filter(|run| run.writing.is_some() && run.of.is_empty()) {
            run.of.extend(frames.cloned());
        }
    }

    /// The flip in flight was on screen at `at`.
    pub(super) fn on_screen(&mut self, at: Timestamp) {
        if let Some(writing) = self.run.as_mut().and_then(|run| run.writing.as_mut()) {
            writing.at.get_or_insert(at);
        }
    }

    /// The picture that was under way, if it is written.
    pub(super) fn written(&mut self) -> Result<Option<Frame>, Failure> {
        let device = |e| Failure::new(FailureKind::Device, e);
        let Some(run) = &mut self.run else { return Ok(None) };
        let Some(writing) = &run.writing else { return Ok(None) };
        let status = writing.fence.status().map_err(device)?;
        if status == FenceStatus::Pending {
            return Ok(None);
        }
        run.fences.delete(&writing.fence).map_err(limit)?;
        run.of.clear();
        let Some(Writing { picture, number, at, .. }) = run.writing.take() else { return Ok(None) };
        let size = Size::new(picture.layout().width, picture.layout().height);
        let mut frame = Frame::new(picture, at.unwrap_or_else(Timestamp::now), number);
        frame.color = color::usual(size);
        frame.corrupt = status != FenceStatus::Signalled;
        Ok(Some(frame))
    }

    /// Buffers whose fences have signalled are free again.
    pub(super) fn reap(&mut self) -> Result<(), Failure> {
        let reaped = self.run.as_ref().map_or(Ok(()), |run| run.pool.reap());
        reaped.map_err(|e| Failure::new(FailureKind::Device, e))
    }

    /// Whether no picture is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.run.as_ref().is_none_or(|run| run.writing.is_none())
    }

    /// Waits for the picture under way: vkms goes on writing it after its mode has changed, past the end of it.
    pub(super) fn finish(&mut self, limit: Duration) -> std::io::Result<bool> {
        match self.run.take().and_then(|run| run.writing) {
            Some(writing) => writing.fence.wait(limit),
            None => Ok(true),
        }
    }

    /// Lets go of everything that was negotiated.
    pub(super) fn forget(&mut self) {
        self.run = None;
        self.buffers.clear();
        self.targets.clear();
    }
}
