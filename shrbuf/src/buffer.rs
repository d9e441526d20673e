//! The shared buffer itself: `clone` is get, `drop` is put.

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::attach::next_consumer;
use crate::fence::{Access, Fence};
use crate::layout::Layout;
use crate::pool::Home;
use crate::refs::Refs;
use crate::segment::{ImportError, MemoryKind, Segment};
use crate::state::{State, StateCell};
use crate::sys::dma_buf;

/// A buffer's number in this process; never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(u64);

impl fmt::Display for BufferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Importers, by themselves and at any time.
const EXPECTED: u8 = 1;
/// Somebody here, since the buffer was last without pending ones.
const IMPORTED: u8 = 2;

/// What a frame changes comes first, beside the counts of its `Arc`: so that one cache line or two of it go along with a
/// frame to another processor, not four.
#[repr(C)]
pub(crate) struct Core {
    pub(crate) refs: Refs,
    /// Of these, who may have attached fences to the dma-buf, which is asked before it is written again.
    fenced: AtomicU8,
    state: StateCell,
    pub(crate) home: OnceLock<Home>,
    id: BufferId,
    layout: Layout,
    segments: Box<[Arc<Segment>]>,
    attachments: Mutex<Vec<(u64, Arc<dyn Any + Send + Sync>)>>,
}

/// A reference to a frame's memory. Cloning and dropping cost two atomics each and never block; the last drop gives
/// the buffer back to its pool (or frees it), from whichever thread that is.
///
/// ```
/// use shrbuf::{exporter::Memfd, Format, Layout, Shrbuf};
/// let a = Memfd::new("frame").allocate(&Layout::linear(Format::Xr24, 64, 64, 1)?)?;
/// let fd = a.export(0)?;                                  // for another process
/// let b = Shrbuf::import(vec![fd], *a.layout())?;         // the same kernel object is the same buffer
/// assert_eq!(a.id(), b.id());
/// assert_eq!(a.references(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Shrbuf {
    pub(crate) core: Arc<Core>,
}

/// A handle that keeps nothing alive.
#[derive(Clone)]
pub struct WeakShrbuf(Weak<Core>);

static NEXT: AtomicU64 = AtomicU64::new(1);
/// Held while [`Shrbuf::new`] looks for a buffer of its segments and enters the new one with all of them.
static MAKING: Mutex<()> = Mutex::new(());

impl Shrbuf {
    /// A buffer of these segments. The layout names them by index; a segment that is given twice is kept once, and the
    /// buffer's layout names it so.
    ///
    /// # Errors
    /// [`ImportError::Layout`] where a plane lies outside its segment; [`ImportError::OtherLayout`] where some of the
    /// memory is a buffer of another layout already; [`ImportError::WithProducer`] where that buffer is not in flight.
    pub fn new(segments: Vec<Arc<Segment>>, layout: Layout) -> Result<Shrbuf, ImportError> {
        let sizes: Vec<u64> = segments.iter().map(|s| s.size()).collect();
        layout.fits(&sizes)?;
        let (segments, layout) = distinct(segments, layout);

        // Dropping the last handle of a buffer runs code that is not ours (a pool's hook, an importer's clean-up) and
        // may well come back here. So whatever is looked at under the lock is kept until after it.
        let mut seen = Vec::new();
        let making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        for segment in &segments {
            let Some(core) = segment.buffer().upgrade() else { continue };
            if core.refs.try_get() {
                let found = Shrbuf { core };
                let same_memory = found.core.segments.len() == segments.len()
                    && found.core.segments.iter().zip(&segments).all(|(a, b)| Arc::ptr_eq(a, b));
                drop(making);
                if same_memory && found.core.layout == layout {
                    return Ok(found);
                }
                return Err(ImportError::OtherLayout { have: describe(&found.core.layout), asked: describe(&layout) });
            }
            let comes_back = core.home.get().is_some_and(Home::is_there);
            seen.push(core);
            if comes_back {
                return Err(ImportError::WithProducer);
            }
            // Its last reference has been dropped and nobody can make a new one: it is as good as freed.
        }
        let core = Arc::new(Core {
            refs: Refs::held(),
            fenced: AtomicU8::new(0),
            state: StateCell::new(State::Empty),
            home: OnceLock::new(),
            id: BufferId(NEXT.fetch_add(1, Ordering::Relaxed)),
            layout,
            segments: segments.into_boxed_slice(),
            attachments: Mutex::new(Vec::new()),
        });
        for segment in &core.segments {
            *segment.buffer() = Arc::downgrade(&core);
        }
        Ok(Shrbuf { core })
    }

    /// The buffer behind descriptors that another process or library passed, one for each segment.
    /// The same kernel objects give the same buffer, by whichever descriptors they come. Does not block.
    ///
    /// # Errors
    /// [`ImportError`]; every descriptor is closed then.
    pub fn import(fds: Vec<OwnedFd>, layout: Layout) -> Result<Shrbuf, ImportError> {
        let segments = fds.into_iter().map(Segment::import).collect::<Result<Vec<_>, _>>()?;
        let buffer = Shrbuf::new(segments, layout)?;
        // Whoever passed it may have devices of his own at work on it.
        buffer.core.fenced.fetch_or(EXPECTED, Ordering::Relaxed);
        Ok(buffer)
    }

    /// A descriptor of segment `segment` to pass on, close-on-exec, independent of this handle's life.
    /// From now on the buffer is reused only after the dma-buf's fences have signalled, because whoever has the
    /// descriptor may attach some.
    ///
    /// # Errors
    /// That of `F_DUPFD_CLOEXEC`, the descriptor limit above all; `NotFound` where there is no such segment.
    pub fn export(&self, segment: usize) -> io::Result<OwnedFd> {
        let s = self.core.segments.get(segment).ok_or(io::ErrorKind::NotFound)?;
        self.core.fenced.fetch_or(EXPECTED, Ordering::Relaxed);
        s.as_fd().try_clone_to_owned()
    }

    /// As [`Shrbuf::export`], for someone who is only to read: a memfd is opened anew, read-only, and its file's
    /// permissions taken back to that. How a dma-buf may be accessed was settled when its exporter made the descriptor.
    ///
    /// # Errors
    /// As there, and that of open(2) where /proc is not mounted.
    pub fn export_read_only(&self, segment: usize) -> io::Result<OwnedFd> {
        let s = self.core.segments.get(segment).ok_or(io::ErrorKind::NotFound)?;
        self.core.fenced.fetch_or(EXPECTED, Ordering::Relaxed);
        s.read_only()
    }

    /// Number of this buffer in this process.
    pub fn id(&self) -> BufferId {
        self.core.id
    }

    /// Format, size, planes.
    pub fn layout(&self) -> &Layout {
        &self.core.layout
    }

    /// The segments that the layout's planes name.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.core.segments
    }

    /// What holds the memory; a buffer of several segments is a dma-buf only if all are.
    pub fn kind(&self) -> MemoryKind {
        let memfd = self.core.segments.iter().any(|s| s.kind() == MemoryKind::Memfd);
        if memfd { MemoryKind::Memfd } else { MemoryKind::DmaBuf }
    }

    /// References in this process, for messages and tests; another thread may change it at any time.
    pub fn references(&self) -> u32 {
        self.core.refs.count()
    }

    /// A handle that keeps nothing alive.
    pub fn downgrade(&self) -> WeakShrbuf {
        WeakShrbuf(Arc::downgrade(&self.core))
    }

    /// What is in the buffer.
    pub fn state(&self) -> State {
        self.core.state.get()
    }

    /// Says what is in the buffer and wakes whoever waits for that.
    pub fn set_state(&self, state: State) {
        self.core.state.set(state);
    }

    /// **Blocks** until the state is one that `wanted` accepts, or `timeout` is over.
    ///
    /// # Errors
    /// The state found at the end of the time.
    pub fn wait_state(&self, wanted: impl Fn(State) -> bool, timeout: Duration) -> Result<State, State> {
        self.core.state.wait_for(wanted, timeout)
    }

    /// An eventfd that becomes readable at every change of state from now on; reading it (8 bytes) resets it.
    ///
    /// # Errors
    /// That of eventfd(2), the descriptor limit above all.
    pub fn state_fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.core.state.poll_fd()
    }

    /// Says that an importer attaches fences to the dma-buf by itself (a GPU driver's implicit fences): the buffer is
    /// then reused only after they have signalled. Costs one poll(2) a release from then on.
    pub fn expect_fences(&self) {
        self.core.fenced.fetch_or(EXPECTED, Ordering::Relaxed);
    }

    /// True where fences may be pending in the dma-buf, so that a consumer should take them along.
    pub fn has_fences(&self) -> bool {
        self.core.fenced.load(Ordering::Relaxed) != 0
    }

    /// The fences of segment `segment` that someone about to do `access` must wait for, as one.
    /// `None` for a memfd, which has none.
    ///
    /// # Errors
    /// The kernel's: ENOTTY before Linux 6.0.
    pub fn export_fence(&self, segment: usize, access: Access) -> io::Result<Option<Fence>> {
        let s = self.core.segments.get(segment).ok_or(io::ErrorKind::NotFound)?;
        if s.kind() == MemoryKind::Memfd {
            return Ok(None);
        }
        dma_buf::export_sync_file(s.as_fd(), flags(access)).map(|fd| Some(Fence::from_kernel(fd)))
    }

    /// As [`export_fence`](Self::export_fence) of all segments, for those who hand a driver one fence a frame. `None` where
    /// [nothing can be pending](Self::has_fences); also before Linux 6.0, where drivers can only wait implicitly, for what
    /// stands in the dma-bufs, as KMS and GPU drivers do by themselves.
    ///
    /// # Errors
    /// The kernel's: above all that no descriptor is left.
    pub fn export_fences(&self, access: Access) -> io::Result<Option<Fence>> {
        if !self.has_fences() {
            return Ok(None);
        }
        merged((0..self.core.segments.len()).map(|segment| self.export_fence(segment, access)))
    }

    /// Whether the fences that someone about to do `access` must wait for have signalled, **blocking** until they have or
    /// `timeout` is over. It needs no fences as descriptors, which are newer than dma-bufs; and a memfd has none.
    ///
    /// # Errors
    /// That of poll(2).
    pub fn wait(&self, access: Access, timeout: Duration) -> io::Result<bool> {
        let signalled = match access {
            Access::Read => crate::poll::readable,
            Access::Write => crate::poll::writable,
        };
        let end = Instant::now() + timeout;
        for segment in self.core.segments.iter().filter(|s| s.kind() == MemoryKind::DmaBuf) {
            if !signalled(segment.as_fd(), Some(end.saturating_duration_since(Instant::now())))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds a fence: work that does `access` on segment `segment` is done once it signals.
    ///
    /// # Errors
    /// The kernel's: ENOTTY before Linux 6.0, `Unsupported` for a memfd.
    pub fn import_fence(&self, segment: usize, access: Access, fence: &Fence) -> io::Result<()> {
        let s = self.core.segments.get(segment).ok_or(io::ErrorKind::NotFound)?;
        if s.kind() == MemoryKind::Memfd {
            return Err(io::ErrorKind::Unsupported.into());
        }
        dma_buf::import_sync_file(s.as_fd(), flags(access), fence.as_fd())?;
        self.core.fenced.fetch_or(IMPORTED, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps `value` for as long as the memory is there, in anybody's hands: for whoever made it and goes before that.
    pub fn keep(&self, value: impl Any + Send + Sync) {
        self.attach(next_consumer(), Arc::new(value));
    }

    pub(crate) fn attach(&self, consumer: u64, value: Arc<dyn Any + Send + Sync>) {
        self.core.attachments.lock().unwrap_or_else(PoisonError::into_inner).push((consumer, value));
    }
}

/// One fence for all of them; `None` where there are none, or no kernel to give them.
fn merged(fences: impl Iterator<Item = io::Result<Option<Fence>>>) -> io::Result<Option<Fence>> {
    let mut all: Option<Fence> = None;
    for fence in fences {
        let fence = match fence {
            // No DMA_BUF_IOCTL_EXPORT_SYNC_FILE, and so for every segment.
            Err(e) if e.raw_os_error() == Some(libc::ENOTTY) => return Ok(None),
            other => other?,
        };
        all = match (all, fence) {
            (Some(all), Some(fence)) => Some(all.merge(&fence)?),
            (all, fence) => all.or(fence),
        };
    }
    Ok(all)
}

fn flags(access: Access) -> u32 {
    match access {
        Access::Read => dma_buf::SYNC_READ,
        Access::Write => dma_buf::SYNC_READ | dma_buf::SYNC_WRITE,
    }
}

fn describe(l: &Layout) -> String {
    let modifier = l.modifier.map_or("no modifier".to_owned(), |m| m.to_string());
    let planes = l.planes().iter().map(|p| format!("segment {} offset {} stride {}", p.segment, p.offset, p.stride));
    format!("{} {}x{} {modifier} ({})", l.format, l.width, l.height, planes.collect::<Vec<_>>().join(", "))
}

/// Each segment once: planes of one dma-buf often come with a descriptor each (GBM, Wayland's linux-dmabuf).
fn distinct(segments: Vec<Arc<Segment>>, layout: Layout) -> (Vec<Arc<Segment>>, Layout) {
    let mut kept: Vec<Arc<Segment>> = Vec::with_capacity(segments.len());
    let mut now = Vec::with_capacity(segments.len());
    for s in segments {
        let known = kept.iter().position(|k| Arc::ptr_eq(k, &s));
        // Beyond 256 no plane can name it.
        now.push(u8::try_from(known.unwrap_or(kept.len())).unwrap_or(u8::MAX));
        if known.is_none() {
            kept.push(s);
        }
    }
    (kept, layout.renumbered(&now))
}

impl Core {
    pub(crate) fn id(&self) -> BufferId {
        self.id
    }

    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    pub(crate) fn state(&self) -> &StateCell {
        &self.state
    }

    /// The first segment in whose dma-buf a fence is pending. To be called while nobody has a reference, and so nobody imports
    /// another: where none is pending, those that were imported are over.
    pub(crate) fn pending_fence(&self) -> Option<BorrowedFd<'_>> {
        if self.fenced.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut dma_bufs = self.segments.iter().filter(|s| s.kind() == MemoryKind::DmaBuf).map(|s| s.as_fd());
        // Where poll itself fails (no descriptor can be at fault) waiting would not help either.
        let pending = dma_bufs.find(|fd| !crate::poll::writable(*fd, Some(Duration::ZERO)).unwrap_or(true));
        if pending.is_none() {
            self.fenced.fetch_and(!IMPORTED, Ordering::Relaxed);
        }
        pending
    }

    pub(crate) fn detach(&self, consumer: u64) {
        let mut gone = Vec::new();
        let mut all = self.attachments.lock().unwrap_or_else(PoisonError::into_inner);
        let mut i = 0;
        while i < all.len() {
            if all[i].0 == consumer { gone.push(all.swap_remove(i)) } else { i += 1 }
        }
        // What an attachment does when dropped is not done under the lock.
        drop(all);
        drop(gone);
    }
}

impl Clone for Shrbuf {
    fn clone(&self) -> Shrbuf {
        self.core.refs.get();
        Shrbuf { core: Arc::clone(&self.core) }
    }
}

impl Drop for Shrbuf {
    fn drop(&mut self) {
        if self.core.refs.put()
            && let Some(home) = self.core.home.get()
        {
            home.released(&self.core);
        }
    }
}

impl fmt::Debug for Shrbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let l = self.layout();
        write!(f, "Shrbuf {} {} {}x{} {}", self.id(), l.format, l.width, l.height, self.kind())
    }
}

impl WeakShrbuf {
    /// A reference, unless the buffer is gone or back with its producer.
    pub fn upgrade(&self) -> Option<Shrbuf> {
        let core = self.0.upgrade()?;
        // Made only once it is counted: dropping it puts.
        core.refs.try_get().then(|| Shrbuf { core })
    }

    /// True where the memory is gone for good.
    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }

    pub(crate) fn detach(&self, consumer: u64) {
        if let Some(core) = self.0.upgrade() {
            core.detach(consumer);
        }
    }
}

impl fmt::Debug for WeakShrbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakShrbuf")
    }
}

#[cfg(all(test, not(miri), not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_exported_fences_leaves_waiting_to_drivers() {
        let mut asked = 0;
        let old_kernel = (0..2).map(|_| {
            asked += 1;
            Err(io::Error::from_raw_os_error(libc::ENOTTY))
        });
        assert!(merged(old_kernel).unwrap().is_none());
        assert_eq!(asked, 1);
    }

    #[test]
    fn other_errors_of_exporting_a_fence_are_told() {
        let error = merged([Ok(None), Err(io::Error::from_raw_os_error(libc::EMFILE))].into_iter()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    }
}
