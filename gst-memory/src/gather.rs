//! GStreamer's own memory: which dma-bufs and sealed memfds a pool of its has, found out from the frames that come.
//!
//! Whoever imports buffers wants to know all of them before it begins, but nobody can ask a pool of GStreamer's what is in
//! it. Its buffers come one after the other, and when one comes again all have been here, unless frames were kept.

use gst_video::VideoInfo;
use shrbuf::Shrbuf;
use shrbuf::pool::MAX_BUFFERS;

use crate::Place;
use crate::dma_buf::Drm;

/// What has come so far.
#[derive(Debug, Default)]
pub struct Gathering(Vec<Shrbuf>);

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// In memory that has not been here.
    New,
    /// In memory that has.
    Again,
    /// In memory that is no dma-buf and no sealed memfd, or is in a pool of this process already, or unlike the others.
    Not,
}

impl Gathering {
    /// Takes in a frame's memory, which is as `info` and its `GstVideoMeta` say, or `drm`.
    pub fn see(&mut self, frame: &gst::BufferRef, info: &VideoInfo, drm: Option<Drm>) -> Seen {
        let Some(place) = Place::of(frame, info, drm) else { return Seen::Not };
        if self.0.iter().any(|buffer| place.is(buffer)) {
            return Seen::Again;
        }
        let alike = |buffer: &Shrbuf| {
            let first = self.0.first().unwrap_or(buffer);
            (first.layout(), first.kind()) == (buffer.layout(), buffer.kind())
        };
        match place.buffer_of_its_own().filter(|buffer| self.0.len() < MAX_BUFFERS && alike(buffer)) {
            Some(buffer) => {
                self.0.push(buffer);
                Seen::New
            }
            None => Seen::Not,
        }
    }

    /// Those that have come.
    pub fn buffers(&self) -> &[Shrbuf] {
        &self.0
    }

    /// The same, for keeps.
    pub fn into_buffers(self) -> Vec<Shrbuf> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use gst_video::VideoFormat;
    use shrbuf::exporter::Memfd;
    use shrbuf::{Format, MemoryKind};

    use super::*;
    use crate::{FdMemories, video};

    fn info() -> VideoInfo {
        gst::init().unwrap();
        VideoInfo::builder(VideoFormat::Nv12, 64, 48).build().unwrap()
    }

    /// As of a pool of somebody else's.
    fn frame(info: &VideoInfo) -> gst::Buffer {
        let layout = video::layout(Format::Nv12, info).unwrap();
        let fd = Memfd::new("test").allocate(&layout).unwrap().export(0).unwrap();
        let mut frame = gst::Buffer::new();
        frame.make_mut().append_memory(FdMemories::new().wrap(MemoryKind::Memfd, fd, info.size()).unwrap());
        frame
    }

    #[test]
    fn memory_is_known_by_what_it_is_and_not_by_the_frame_that_it_came_in() {
        let info = info();
        let frames = [frame(&info), frame(&info)];
        let mut gathering = Gathering::default();
        let seen = |frame: &gst::Buffer, gathering: &mut Gathering| gathering.see(frame, &info, None);
        assert_eq!([seen(&frames[0], &mut gathering), seen(&frames[1], &mut gathering)], [Seen::New, Seen::New]);
        // Another descriptor of the same file, in another memory.
        let fd = gathering.buffers()[1].export(0).unwrap();
        let mut again = gst::Buffer::new();
        again.make_mut().append_memory(FdMemories::new().wrap(MemoryKind::Memfd, fd, info.size()).unwrap());
        assert_eq!([seen(&again, &mut gathering), seen(&frames[0].copy(), &mut gathering)], [Seen::Again; 2]);
        assert_eq!(gathering.into_buffers().len(), 2);
    }

    #[test]
    fn memory_of_a_pool_of_this_process_is_none() {
        let info = info();
        let buffer = Memfd::new("test").allocate(&video::layout(Format::Nv12, &info).unwrap()).unwrap();
        let fd = buffer.export(0).unwrap();
        let pool = shrbuf::Pool::new(vec![buffer], |_| {}).unwrap();
        let _held = pool.acquire().unwrap();
        let mut frame = gst::Buffer::new();
        frame.make_mut().append_memory(FdMemories::new().wrap(MemoryKind::Memfd, fd, info.size()).unwrap());
        assert_eq!(Gathering::default().see(&frame, &info, None), Seen::Not);
    }

    #[test]
    fn memory_that_cannot_be_sent_is_none() {
        let info = info();
        let mut gathering = Gathering::default();
        let plain = gst::Buffer::with_size(info.size()).unwrap();
        assert_eq!(gathering.see(&plain, &info, None), Seen::Not);
        // A part of a sealed memfd and a part of other memory.
        let mut mixed = frame(&info);
        let writable = mixed.make_mut();
        writable.set_size(64 * 48);
        writable.append_memory(gst::Memory::with_size(64 * 24));
        assert_eq!(gathering.see(&mixed, &info, None), Seen::Not);
    }

    #[test]
    fn memory_that_is_laid_out_otherwise_is_another() {
        let info = info();
        let mut frame = frame(&info);
        let mut gathering = Gathering::default();
        assert_eq!(gathering.see(&frame, &info, None), Seen::New);
        let flags = gst_video::VideoFrameFlags::empty();
        let offsets = [0, 64 * 40];
        gst_video::VideoMeta::add_full(frame.make_mut(), flags, VideoFormat::Nv12, 64, 48, &offsets, &[64, 64])
            .unwrap();
        assert_eq!(gathering.see(&frame, &info, None), Seen::Not);
    }
}
