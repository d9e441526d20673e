//! Buffers that are used again and again, and what happens when the last reference to one is dropped.
//!
//! A buffer of a pool is *idle* (with the pool, or with its producer), *in flight* (references exist), or *draining*
//! (no reference, but a device's fence is pending). From the last drop, on the thread that does it:
//! no fence pending → idle, and the pool's hook runs (a camera's hook is VIDIOC_QBUF); a fence pending → draining, and
//! [`Pool::fences_fd`] becomes readable when it signals, upon which the owner calls [`Pool::reap`].
//!
//! videobuf2 waits for no fence at QBUF, so this is where a picture still being read is kept from being overwritten.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock, Weak};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::buffer::{Core, Shrbuf};
use crate::idle::IdleSet;
use crate::state::State;

/// Most buffers in a pool: a bit of a word each.
pub const MAX_BUFFERS: usize = 64;

/// Why there is no pool of these buffers.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Too many.
    #[error("{0} buffers asked for; a pool holds 1 to {MAX_BUFFERS}")]
    Count(usize),
    /// Somebody else has a reference already, or the buffer is or has been in another pool.
    #[error("buffer {0} is in use elsewhere, so its last reference would not be this pool's")]
    InUse(crate::buffer::BufferId),
    /// No epoll instance to be had.
    #[error("epoll_create1 failed: {0}; raise the descriptor limit (ulimit -n)")]
    Os(#[from] io::Error),
}

type Hook = Box<dyn Fn(usize) + Send + Sync>;

struct Inner {
    slots: Vec<Arc<Core>>,
    idle: IdleSet,
    draining: IdleSet,
    fences: Epoll,
    /// Set once the pool has its buffers: their handover is no release.
    hook: OnceLock<Hook>,
}

/// A pooled buffer's way back.
pub(crate) struct Home {
    pool: Weak<Inner>,
    index: usize,
}

impl Home {
    pub(crate) fn released(&self, core: &Arc<Core>) {
        // Without the pool the buffer is simply freed with its last Arc.
        if let Some(pool) = self.pool.upgrade() {
            pool.release(core, self.index);
        }
    }

    /// False where the pool is gone, so that the buffer will not be acquired again.
    pub(crate) fn is_there(&self) -> bool {
        self.pool.strong_count() > 0
    }
}

impl Inner {
    fn release(&self, core: &Core, index: usize) {
        core.state().set(State::Empty);
        while let Some(fd) = core.pending_fence() {
            // Before the watch, because another thread may reap as soon as there is one.
            self.draining.insert(index);
            let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT;
            if self.fences.add(fd, EpollEvent::new(flags, index as u64)).is_ok() {
                return;
            }
            // No watch to be had (memory, epoll's user limit): wait here rather than let it be overwritten.
            self.draining.remove(index);
            if crate::poll::writable(fd, None).is_err() {
                break;
            }
        }
        // Before the hook, which may hand it to a device that has it finished before the hook returns.
        self.idle.insert(index);
        if let Some(hook) = self.hook.get() {
            hook(index);
        }
    }

    fn unwatch(&self, index: usize) {
        for segment in self.slots[index].segments() {
            // One of them is watched; which one does not matter any more.
            let _ = self.fences.delete(segment.as_fd());
        }
    }
}

/// Buffers with a way back. Dropping the pool frees the idle and the draining ones (the kernel keeps a dma-buf's memory
/// for the devices at work on it); those in flight live until their last reference, and no hook runs for them.
///
/// ```
/// use shrbuf::{exporter::Memfd, Format, Layout, Pool};
/// let exporter = Memfd::new("frames");
/// let layout = Layout::linear(Format::Nv12, 64, 64, 1)?;
/// let buffers = (0..2).map(|_| exporter.allocate(&layout)).collect::<Result<_, _>>()?;
/// let pool = Pool::new(buffers, |_index| {})?;
/// let (a, b) = (pool.acquire().unwrap(), pool.acquire().unwrap());
/// assert!(pool.acquire().is_none());
/// drop(a);
/// assert!(pool.acquire().is_some());
/// # drop(b);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pool(Arc<Inner>);

impl Pool {
    /// Takes the buffers, which are idle from then on. `hook(index)` runs on the thread that drops a buffer's last
    /// reference, after its fences have signalled; it must neither block nor panic, and the buffer may be acquired
    /// inside it. It does not run for the handover here.
    ///
    /// # Errors
    /// [`PoolError`]; the handles given are dropped then.
    pub fn new(buffers: Vec<Shrbuf>, hook: impl Fn(usize) + Send + Sync + 'static) -> Result<Pool, PoolError> {
        if buffers.is_empty() || buffers.len() > MAX_BUFFERS {
            return Err(PoolError::Count(buffers.len()));
        }
        let fences = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from)?;
        for b in &buffers {
            if b.references() != 1 || b.core.home.get().is_some() {
                return Err(PoolError::InUse(b.id()));
            }
        }
        let inner = Arc::new(Inner {
            slots: buffers.iter().map(|b| Arc::clone(&b.core)).collect(),
            idle: IdleSet::default(),
            draining: IdleSet::default(),
            fences,
            hook: OnceLock::new(),
        });
        for (index, b) in buffers.iter().enumerate() {
            // Another pool may have been faster, through a weak handle.
            b.core.home.set(Home { pool: Arc::downgrade(&inner), index }).map_err(|_| PoolError::InUse(b.id()))?;
        }
        // Each comes home for the first time, unless a weak handle has become a reference since the look above.
        drop(buffers);
        if let Some(index) = (0..inner.slots.len()).find(|&i| !inner.idle.contains(i) && !inner.draining.contains(i)) {
            return Err(PoolError::InUse(inner.slots[index].id()));
        }
        let _ = inner.hook.set(Box::new(hook));
        Ok(Pool(inner))
    }

    /// Any idle buffer, as its first reference; `None` where all are in flight or draining. Does not block.
    pub fn acquire(&self) -> Option<Shrbuf> {
        let index = self.0.idle.remove_any()?;
        self.first(index)
    }

    /// Buffer `index`, which its producer has just finished; `None` where it is not idle (a driver that returns a
    /// buffer it was not given).
    pub fn take(&self, index: usize) -> Option<Shrbuf> {
        if index < self.0.slots.len() && self.0.idle.remove(index) { self.first(index) } else { None }
    }

    /// Buffer `index` for another reader, though devices may still read it; `None` where it is not draining. The hook has not
    /// run for the use before, and runs once for both.
    pub fn take_draining(&self, index: usize) -> Option<Shrbuf> {
        if index >= self.0.slots.len() || !self.0.draining.remove(index) {
            return None;
        }
        self.0.unwatch(index);
        self.first(index)
    }

    fn first(&self, index: usize) -> Option<Shrbuf> {
        let core = &self.0.slots[index];
        core.refs.take().then(|| Shrbuf { core: Arc::clone(core) })
    }

    /// Readable while fences of draining buffers have signalled; call [`Pool::reap`] then.
    pub fn fences_fd(&self) -> BorrowedFd<'_> {
        self.0.fences.0.as_fd()
    }

    /// Returns draining buffers whose fences have signalled to the pool, running the hook for each. Does not block.
    /// Any thread may call it, several at once.
    ///
    /// # Errors
    /// That of epoll_wait(2).
    pub fn reap(&self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); MAX_BUFFERS];
        let n = match self.0.fences.wait(&mut events, EpollTimeout::ZERO) {
            Ok(n) => n,
            Err(nix::Error::EINTR) => 0,
            Err(e) => return Err(e.into()),
        };
        for event in &events[..n] {
            let index = event.data() as usize;
            let Some(core) = self.0.slots.get(index) else {
                continue;
            };
            self.0.unwatch(index);
            if self.0.draining.remove(index) {
                self.0.release(core, index);
            }
        }
        Ok(())
    }

    /// Buffers in the pool.
    pub fn len(&self) -> usize {
        self.0.slots.len()
    }

    /// Never: a pool has at least one buffer.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Buffers that are neither in flight nor draining.
    pub fn idle(&self) -> usize {
        self.0.idle.len()
    }

    /// Buffers without references whose fences are pending.
    pub fn draining(&self) -> usize {
        self.0.draining.len()
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool of {}, {} idle, {} draining", self.len(), self.idle(), self.draining())
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;
    use crate::exporter::Memfd;
    use crate::format::Format;
    use crate::layout::Layout;

    /// What the buffer's references protect.
    #[derive(Default)]
    struct Pixels(UnsafeCell<u32>);
    // SAFETY: loom reports every access that is not ordered; that is what the models are for.
    unsafe impl Sync for Pixels {}
    // SAFETY: a plain number.
    unsafe impl Send for Pixels {}

    impl Pixels {
        fn write(&self) {
            // SAFETY: loom checks that no other access is concurrent.
            self.0.with_mut(|p| unsafe { *p += 1 });
        }

        fn read(&self) -> u32 {
            // SAFETY: as above.
            self.0.with(|p| unsafe { *p })
        }
    }

    fn frame() -> Shrbuf {
        Memfd::new("loom").allocate(&Layout::linear(Format::Grey, 1, 1, 1).unwrap()).unwrap()
    }

    #[test]
    fn loom_hook_runs_once_a_release_and_sees_every_holder() {
        loom::model(|| {
            let (pixels, runs) = (Arc::new(Pixels::default()), Arc::new(AtomicUsize::new(0)));
            let hook = {
                let (pixels, runs) = (pixels.clone(), runs.clone());
                // A camera that starts to write as soon as it has the buffer.
                move |_| {
                    pixels.write();
                    runs.fetch_add(1, Ordering::Relaxed);
                }
            };
            let pool = Pool::new(vec![frame()], hook).unwrap();
            let first = pool.acquire().unwrap();
            let holders: Vec<_> = (0..2)
                .map(|_| {
                    let (reference, pixels) = (first.clone(), pixels.clone());
                    thread::spawn(move || {
                        pixels.read();
                        drop(reference);
                    })
                })
                .collect();
            drop(first);
            holders.into_iter().for_each(|h| h.join().unwrap());
            assert_eq!(runs.load(Ordering::Relaxed), 1);
            assert_eq!((pool.idle(), pool.draining()), (1, 0));
        });
    }

    #[test]
    fn loom_acquire_elsewhere_sees_what_the_last_holder_did() {
        loom::model(|| {
            let pixels = Arc::new(Pixels::default());
            let pool = Arc::new(Pool::new(vec![frame()], |_| {}).unwrap());
            let held = pool.acquire().unwrap();
            let holder = {
                let pixels = pixels.clone();
                thread::spawn(move || {
                    pixels.write();
                    drop(held);
                })
            };
            // A driver that has finished a buffer takes it by index, everybody else takes any.
            let other = {
                let (pool, pixels) = (pool.clone(), pixels.clone());
                thread::spawn(move || pool.take(0).inspect(|_| pixels.write()).is_some())
            };
            let got = pool.acquire().inspect(|_| pixels.write()).is_some();
            let got = usize::from(got) + usize::from(other.join().unwrap());
            holder.join().unwrap();
            assert_eq!(pixels.read() as usize, 1 + got);
            assert_eq!(pool.idle(), 1);
        });
    }

    #[test]
    fn loom_weak_handle_and_last_drop_release_once() {
        loom::model(|| {
            let runs = Arc::new(AtomicUsize::new(0));
            let hook = {
                let runs = runs.clone();
                move |_| {
                    runs.fetch_add(1, Ordering::Relaxed);
                }
            };
            let pool = Pool::new(vec![frame()], hook).unwrap();
            let held = pool.acquire().unwrap();
            let weak = held.downgrade();
            let looker = thread::spawn(move || drop(weak.upgrade()));
            drop(held);
            looker.join().unwrap();
            assert_eq!(runs.load(Ordering::Relaxed), 1);
            assert_eq!(pool.idle(), 1);
            assert!(pool.acquire().is_some());
        });
    }

    #[test]
    fn loom_pool_dropped_while_a_buffer_comes_home() {
        loom::model(|| {
            let pool = Pool::new(vec![frame()], |_| {}).unwrap();
            let held = pool.acquire().unwrap();
            let weak = held.downgrade();
            let holder = thread::spawn(move || drop(held));
            drop(pool);
            holder.join().unwrap();
            assert!(weak.is_gone());
        });
    }
}
