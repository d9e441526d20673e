//! The way from one domain to another: a bounded ring that wakes only a sleeping reader.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crossbeam_queue::ArrayQueue;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::frame::Frame;
use crate::queue::{Full, QueueSpec};
use crate::spin::Spin;
use crate::stats::NodeStats;
use crate::sync::{AtomicBool, Ordering, fence};

/// Wakes a domain's loop, with a system call only where it sleeps.
#[derive(Debug)]
pub(crate) struct Bell {
    event: EventFd,
    sleeping: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Bell> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Bell { event, sleeping: AtomicBool::new(false) })
    }

    /// To be called after whatever the loop is to notice has been made visible.
    pub(crate) fn ring(&self) {
        // Pairs with the fence in `sleep`: either we see it sleeping, or it sees our work.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            // Cannot fail: the counter is far from full, as only the sleeper's ringer writes.
            let _ = self.event.write(1);
        }
    }

    /// Says that the loop is about to sleep. It must look for work once more after this.
    pub(crate) fn sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Waits until `fd` is writable or in error, which is true, or somebody rings. To be called after `sleep`.
    pub(crate) fn wait_writable(&self, fd: BorrowedFd<'_>) -> nix::Result<bool> {
        let mut fds = [PollFd::new(fd, PollFlags::POLLOUT), PollFd::new(self.fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE)?;
        // A ring that is not read would end every wait after it. The loop watches for edges, and does not miss it.
        let _ = self.event.read();
        Ok(fds[0].any() == Some(true))
    }

    /// Whether somebody has rung since the last look.
    #[cfg(all(test, loom))]
    pub(crate) fn has_rung(&self) -> bool {
        self.event.read().is_ok()
    }

    /// To be watched edge-triggered, so that it need not be read.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Pauses in which a reader at work makes room for several frames.
const SEVERAL: u32 = 512;

/// What comes out of a ring.
#[derive(Debug)]
pub(crate) enum Item {
    Frame(Frame),
    /// The last.
    End,
}

/// One writer, one reader.
pub(crate) struct Ring {
    frames: ArrayQueue<Frame>,
    full: Full,
    reader: Arc<Bell>,
    writer: OnceLock<Thread>,
    writer_waits: AtomicBool,
    closed: AtomicBool,
    /// The end is to be read once there is no frame left. It takes no place: one it took could be the last frame's.
    ended: AtomicBool,
    /// Before the writer waits.
    spin: Spin,
    /// Of the queue element this ring stands for.
    stats: Arc<NodeStats>,
}

impl Ring {
    pub(crate) fn new(spec: QueueSpec, reader: Arc<Bell>, stats: Arc<NodeStats>) -> Ring {
        Ring {
            frames: ArrayQueue::new(spec.capacity() as usize),
            full: spec.full,
            reader,
            writer: OnceLock::new(),
            writer_waits: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            spin: Spin::new(),
            stats,
        }
    }

    /// Puts a frame in. Blocks with `Full::Block` while there is no room, until the ring is closed.
    pub(crate) fn push(&self, frame: Frame) {
        if self.full == Full::Block {
            self.push_waiting(frame);
        } else if self.frames.force_push(frame).is_some() {
            self.stats.dropped(1);
        }
        self.reader.ring();
    }

    /// Says that no frame will come after those that have. Does not block.
    pub(crate) fn end(&self) {
        // Pairs with the load in `pop`: who sees the end sees every frame before it.
        self.ended.store(true, Ordering::Release);
        self.reader.ring();
    }

    fn push_waiting(&self, mut frame: Frame) {
        loop {
            frame = match self.frames.push(frame) {
                Ok(()) => return,
                Err(back) => back,
            };
            if self.spin.until(|spent| self.has_room(spent)) {
                continue;
            }
            self.writer.get_or_init(std::thread::current);
            self.writer_waits.store(true, Ordering::Relaxed);
            // Pairs with the fences in `pop` and `close`: either they see us waiting, or we see what they did.
            fence(Ordering::SeqCst);
            if self.closed.load(Ordering::Relaxed) {
                return;
            }
            if self.frames.is_full() {
                std::thread::park();
            }
            self.writer_waits.store(false, Ordering::Relaxed);
        }
    }

    /// Whether a writer that has waited for so many pauses goes on. For a while it wants room for several frames: with one
    /// it would be back at once, and each look takes the line that the reader writes from it.
    fn has_room(&self, spent: u32) -> bool {
        let capacity = self.frames.capacity();
        self.frames.len() <= if spent < SEVERAL { capacity * 3 / 4 } else { capacity - 1 }
    }

    pub(crate) fn pop(&self) -> Option<Item> {
        // Before the frames: were it after, the last of them could come between.
        let ended = self.ended.load(Ordering::Acquire);
        let Some(frame) = self.frames.pop() else {
            if ended {
                self.ended.store(false, Ordering::Relaxed);
            }
            return ended.then_some(Item::End);
        };
        fence(Ordering::SeqCst);
        if self.writer_waits.load(Ordering::Relaxed) {
            self.wake_writer();
        }
        Some(Item::Frame(frame))
    }

    /// Whether there is nothing to read, not even the end.
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty() && !self.ended.load(Ordering::Relaxed)
    }

    /// Whether its writer waits for room.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.writer_waits.load(Ordering::Relaxed)
    }

    /// Nobody will read any more, or nobody is to wait: a waiting writer goes on, what it brings is dropped.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.wake_writer();
    }

    fn wake_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use shrbuf::exporter::Memfd;
    use shrbuf::{Format, Layout};

    use super::*;
    use crate::frame::Timestamp;

    #[test]
    fn a_writer_waits_for_room_for_several_and_in_the_end_for_one() {
        let buffer = Memfd::new("ring").allocate(&Layout::linear(Format::Grey, 1, 1, 1).unwrap()).unwrap();
        for (depth, several) in [(1, 1), (2, 1), (3, 1), (8, 2), (60, 15)] {
            let bell = Arc::new(Bell::new().unwrap());
            let ring = Ring::new(QueueSpec { depth, full: Full::Block }, bell, Arc::default());
            (0..depth).for_each(|i| ring.push(Frame::new(buffer.clone(), Timestamp(0), i.into())));
            let reads_until = |spent| (0..=depth).find(|_| ring.has_room(spent) || ring.pop().is_none());

            assert_eq!(reads_until(SEVERAL), Some(1), "{depth}");
            assert_eq!(reads_until(0), Some(several - 1), "{depth}");
        }
    }
}
