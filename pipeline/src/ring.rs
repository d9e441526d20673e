//! The way from one domain to another: a bounded ring that wakes only a sleeping reader.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crossbeam_queue::ArrayQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::frame::Frame;
use crate::queue::{Full, QueueSpec};
use crate::spin::Spin;
use crate::stats::NodeStats;

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

    /// To be watched edge-triggered, so that it never needs to be read.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// What goes through a ring.
#[derive(Debug)]
pub(crate) enum Item {
    Frame(Frame),
    End,
}

/// One writer, one reader.
pub(crate) struct Ring {
    items: ArrayQueue<Item>,
    full: Full,
    reader: Arc<Bell>,
    writer: OnceLock<Thread>,
    writer_waits: AtomicBool,
    closed: AtomicBool,
    /// Before the writer waits.
    spin: Spin,
    /// Of the queue element this ring stands for.
    stats: Arc<NodeStats>,
}

impl Ring {
    pub(crate) fn new(spec: QueueSpec, reader: Arc<Bell>, stats: Arc<NodeStats>) -> Ring {
        Ring {
            items: ArrayQueue::new(spec.capacity() as usize),
            full: spec.full,
            reader,
            writer: OnceLock::new(),
            writer_waits: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            spin: Spin::new(),
            stats,
        }
    }

    /// Puts an item in. Blocks with `Full::Block` while there is no room, until the ring is closed.
    pub(crate) fn push(&self, item: Item) {
        if self.full == Full::Block {
            self.push_waiting(item);
        } else if let Some(Item::Frame(_)) = self.items.force_push(item) {
            self.stats.dropped(1);
        }
        self.reader.ring();
    }

    fn push_waiting(&self, mut item: Item) {
        loop {
            item = match self.items.push(item) {
                Ok(()) => return,
                Err(back) => back,
            };
            if self.spin.until(|| !self.items.is_full()) {
                continue;
            }
            self.writer.get_or_init(std::thread::current);
            self.writer_waits.store(true, Ordering::Relaxed);
            // Pairs with the fence in `pop`: either it sees us waiting, or we see the room it made.
            fence(Ordering::SeqCst);
            if self.closed.load(Ordering::Relaxed) {
                return;
            }
            if self.items.is_full() {
                std::thread::park();
            }
            self.writer_waits.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn pop(&self) -> Option<Item> {
        let item = self.items.pop()?;
        fence(Ordering::SeqCst);
        if self.writer_waits.load(Ordering::Relaxed) {
            self.wake_writer();
        }
        Some(item)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Nobody will read any more: a waiting writer goes on, what it brings is dropped with the ring.
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
