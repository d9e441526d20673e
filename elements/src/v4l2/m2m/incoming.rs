//! The side of a device that frames go into, while it streams. It outlives a run that ends because a decoder's stream has
//! changed: the decoder still has what comes from there on, which it would lose with its queue.

use std::collections::VecDeque;

use shrbuf_pipeline::{Colorimetry, Failure, Frame, Rect, Stream, Timestamp};

use super::Counts;
use crate::v4l2::failure::{dequeue_failed, queue_failed};
use crate::v4l2::{OutputQueue, Returned};

/// Frames inside a device at once: all that two queues can have.
const INSIDE: usize = 64;

/// What is known of a frame that went in, for the one that comes out.
#[derive(Clone, Copy)]
pub(super) struct Meta {
    pub(super) timestamp: Timestamp,
    pub(super) sequence: u64,
    pub(super) color: Colorimetry,
    pub(super) crop: Option<Rect>,
}

/// See the module.
pub(super) struct Incoming {
    pub(super) queue: OutputQueue,
    pub(super) stream: Stream,
    /// Frames that came while every index was taken.
    waiting: VecDeque<Frame>,
    inside: [Option<Meta>; INSIDE],
    /// How many of these there are.
    number_inside: usize,
    next_inside: usize,
    /// Of the last frame that the device was given.
    pub(super) color: Colorimetry,
    /// Frames that the device was given.
    pub(super) taken: u64,
}

impl Incoming {
    /// `first` come before all others.
    pub(super) fn new(queue: OutputQueue, stream: Stream, first: Vec<Frame>) -> Incoming {
        let mut waiting = VecDeque::with_capacity(INSIDE);
        waiting.extend(first);
        Incoming {
            queue,
            stream,
            waiting,
            inside: [None; INSIDE],
            number_inside: 0,
            next_inside: 0,
            color: Colorimetry::default(),
            taken: 0,
        }
    }

    /// Frames that the device has not read.
    pub(super) fn into_frames(self) -> Vec<Frame> {
        let mut frames = self.queue.into_frames();
        frames.extend(self.waiting);
        frames
    }

    /// Frames of which nothing has come out.
    pub(super) fn unfinished(&self) -> u64 {
        (self.number_inside + self.waiting.len()) as u64
    }

    /// Frames that the device has.
    pub(super) fn queued(&self) -> u32 {
        self.queue.queued()
    }

    /// Whether frames wait for room in the device.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether frames went in that have not come out.
    pub(super) fn is_inside(&self) -> bool {
        self.number_inside > 0
    }

    pub(super) fn take(&mut self, frame: Frame) -> Result<(), Failure> {
        self.waiting.push_back(frame);
        self.feed()
    }

    /// Gives the device what waits, as far as it has room.
    pub(super) fn feed(&mut self) -> Result<(), Failure> {
        while let Some(frame) = self.waiting.pop_front() {
            let Frame { timestamp, sequence, color, crop, .. } = frame;
            if let Some(back) = self.queue.queue(frame).map_err(queue_failed)? {
                self.waiting.push_front(back);
                break;
            }
            self.color = color;
            self.taken += 1;
            self.remember(Meta { timestamp, sequence, color, crop });
        }
        Ok(())
    }

    /// Takes back what the device has read.
    pub(super) fn reap(&mut self, counts: &mut Counts) -> Result<(), Failure> {
        counts.late += self.queue.take_late();
        counts.miscolored += self.queue.take_miscolored();
        // Once it has none, asking would cost a system call a frame to be told so.
        while self.queue.queued() > 0 {
            let Returned::Frame { buffer, frame } = self.queue.dequeue().map_err(dequeue_failed)? else { break };
            counts.not_understood += u64::from(buffer.is_corrupt());
            drop(frame);
        }
        Ok(())
    }

    /// The oldest is forgotten where the device has swallowed so many.
    fn remember(&mut self, meta: Meta) {
        let free = self.inside.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.next_inside = (self.next_inside + 1) % INSIDE;
            self.next_inside
        });
        self.number_inside += usize::from(self.inside[slot].replace(meta).is_none());
    }

    /// Time stamps pass through the kernel in whole microseconds.
    pub(super) fn recall(&mut self, ns: u64) -> Option<Meta> {
        let same = |m: &Option<Meta>| m.as_ref().is_some_and(|m| m.timestamp.0 / 1_000 == ns / 1_000);
        let meta = self.inside.iter_mut().find(|m| same(m))?.take();
        self.number_inside -= usize::from(meta.is_some());
        meta
    }
}
