//! One piece of memory that a file descriptor stands for: a dma-buf or a sealed memfd.
//!
//! A process has one [`Segment`] for one kernel object, however often and by whichever descriptor it is imported:
//! the identity is device and inode number of the dma-buf's or memfd's file, which cannot be given to another object
//! while a segment holds the file open.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::{Whence, lseek64};

use crate::buffer::Core;
use crate::sys::{dma_buf, mapping::Mapping};

/// What kind of kernel object holds the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemoryKind {
    /// A dma-buf: devices can import it.
    DmaBuf,
    /// A sealed memfd: CPUs of any process can map it.
    Memfd,
}

impl fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            MemoryKind::DmaBuf => "dma-buf",
            MemoryKind::Memfd => "memfd",
        })
    }
}

/// Why a descriptor was not taken. The descriptor has been closed in every case.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The descriptor is something else.
    #[error("a {found} cannot hold a frame; pass a dma-buf, or a memfd sealed with F_SEAL_SHRINK")]
    NotShareable {
        /// What it is.
        found: &'static str,
    },
    /// A memfd that its owner could shrink, which would raise SIGBUS in every reader.
    #[error(
        "memfd of {size} bytes is not sealed against shrinking; its owner must add F_SEAL_SHRINK (fcntl F_ADD_SEALS) before passing it"
    )]
    Unsealed {
        /// Its size.
        size: u64,
    },
    /// The descriptor does not allow reading, which mapping needs.
    #[error("the descriptor is open for writing only; open it O_RDWR or O_RDONLY")]
    WriteOnly,
    /// Nothing there.
    #[error("the {kind} has size 0")]
    Empty {
        /// What it is.
        kind: MemoryKind,
    },
    /// The layout does not fit the segments.
    #[error(transparent)]
    Layout(#[from] crate::layout::LayoutError),
    /// The same memory is already known with another layout.
    #[error("this memory is already imported as {have}; asked for {asked}")]
    OtherLayout {
        /// Format and size known.
        have: String,
        /// Format and size asked for.
        asked: String,
    },
    /// The buffer is known here and is with its producer right now.
    #[error("the buffer is with its producer, which may be writing it; take a reference while its frame is in flight")]
    WithProducer,
    /// The kernel refused a question about the descriptor.
    #[error("{call} failed on the descriptor: {source}")]
    Os {
        /// System call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

fn os(call: &'static str) -> impl Fn(nix::Error) -> ImportError {
    move |e| ImportError::Os { call, source: e.into() }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    dev: u64,
    ino: u64,
}

static KNOWN: Mutex<Option<HashMap<Key, Weak<Segment>>>> = Mutex::new(None);

fn known() -> MutexGuard<'static, Option<HashMap<Key, Weak<Segment>>>> {
    // A panic while the lock was held leaves the map whole: every change to it is a single call.
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A descriptor, whether it may be written through, and its mapping once there is one.
struct Opening {
    fd: OwnedFd,
    writable: bool,
    map: OnceLock<Mapping>,
}

/// One piece of shared memory. Closed and unmapped when the last buffer made of it is gone.
pub struct Segment {
    size: u64,
    kind: MemoryKind,
    key: Key,
    first: Opening,
    /// The descriptor for reading and writing that came after one for reading only.
    better: OnceLock<Opening>,
    /// The buffer made of this segment, so that an import finds it again.
    buffer: Mutex<Weak<Core>>,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} bytes inode {}", self.kind, self.size, self.key.ino)
    }
}

impl Segment {
    /// The segment of the kernel object behind `fd`. Takes the descriptor; where the object is already known, that
    /// segment is returned and the descriptor closed, unless it is the first to allow writing. Does not block.
    ///
    /// # Errors
    /// [`ImportError`] where the descriptor is no dma-buf and no memfd sealed against shrinking.
    pub fn import(fd: OwnedFd) -> Result<Arc<Segment>, ImportError> {
        let Checked { kind, size, writable } = check(&fd)?;
        let stat = fstat(&fd).map_err(os("fstat"))?;
        let key = Key { dev: stat.st_dev, ino: stat.st_ino };
        let opening = Opening { fd, writable, map: OnceLock::new() };
        let mut map = known();
        let map = map.get_or_insert_with(HashMap::new);
        if let Some(found) = map.get(&key).and_then(Weak::upgrade) {
            if writable && !found.writable() {
                // Another thread may have been faster; its descriptor serves both.
                let _ = found.better.set(opening);
            }
            return Ok(found);
        }
        let (better, buffer) = (OnceLock::new(), Mutex::new(Weak::new()));
        let segment = Arc::new(Segment { size, kind, key, first: opening, better, buffer });
        map.insert(key, Arc::downgrade(&segment));
        Ok(segment)
    }

    /// Bytes, as the kernel says; never changes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Kind of kernel object.
    pub fn kind(&self) -> MemoryKind {
        self.kind
    }

    /// True where the memory may be written through this process's descriptor.
    pub fn writable(&self) -> bool {
        self.opening().writable
    }

    /// Inode number: what `/sys/kernel/debug/dma_buf/bufinfo` lists.
    pub fn inode(&self) -> u64 {
        self.key.ino
    }

    /// Names a dma-buf for `/sys/kernel/debug/dma_buf/bufinfo`; the first 31 bytes count. A memfd keeps its own name.
    ///
    /// # Errors
    /// The kernel's, where it refuses.
    pub fn set_name(&self, name: &str) -> io::Result<()> {
        if self.kind == MemoryKind::Memfd {
            return Ok(());
        }
        let short: Vec<u8> = name.bytes().filter(|&b| b != 0).take(31).collect();
        dma_buf::set_name(self.as_fd(), &CString::new(short).map_err(io::Error::other)?)
    }

    /// A descriptor for someone who is only to read, as far as the kind of memory allows.
    pub(crate) fn read_only(&self) -> io::Result<OwnedFd> {
        if self.kind == MemoryKind::DmaBuf || !self.writable() {
            return self.as_fd().try_clone_to_owned();
        }
        let path = format!("/proc/self/fd/{}", self.as_fd().as_raw_fd());
        let fd = open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        // Or whoever has it could do the same for writing. A memfd of another user is that user's to protect, which is
        // the one way for this to fail.
        let _ = fchmod(&fd, Mode::S_IRUSR | Mode::S_IRGRP | Mode::S_IROTH);
        Ok(fd)
    }

    fn opening(&self) -> &Opening {
        self.better.get().unwrap_or(&self.first)
    }

    /// Maps on first use, for writing where that is allowed.
    pub(crate) fn mapping(&self) -> io::Result<&Mapping> {
        let opening = self.opening();
        if let Some(map) = opening.map.get() {
            return Ok(map);
        }
        let len = usize::try_from(self.size).ok().and_then(NonZeroUsize::new);
        let len = len.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let new = Mapping::new(opening.fd.as_fd(), len, opening.writable)?;
        Ok(opening.map.get_or_init(|| new))
    }

    /// The mapping there is, once `mapping` has made one. One for writing stays one, whatever is imported meanwhile.
    pub(crate) fn mapped(&self) -> Option<&Mapping> {
        self.better.get().and_then(|better| better.map.get()).or_else(|| self.first.map.get())
    }

    /// The buffer made of this segment. Only [`Shrbuf::new`](crate::Shrbuf::new) asks and sets, under its own lock.
    pub(crate) fn buffer(&self) -> MutexGuard<'_, Weak<Core>> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opening().fd.as_fd()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Some(map) = known().as_mut() {
            // Someone may have imported the object anew since the last reference went.
            if map.get(&self.key).is_some_and(|w| w.strong_count() == 0) {
                map.remove(&self.key);
            }
        }
    }
}

pub(crate) struct Checked {
    pub(crate) kind: MemoryKind,
    pub(crate) size: u64,
    pub(crate) writable: bool,
}

/// Takes nothing on trust: what the descriptor is, which way it is open, and that the memory cannot go away under a
/// mapping. Whoever passed it may serve its file system (FUSE), and would be waited for by a question to that; so nothing is
/// asked of it before it is known to be memory, which the kernel serves itself.
pub(crate) fn check(fd: &OwnedFd) -> Result<Checked, ImportError> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).map_err(os("F_GETFL"))?);
    let access = flags & OFlag::O_ACCMODE;
    let right_way = |checked| if access == OFlag::O_WRONLY { Err(ImportError::WriteOnly) } else { Ok(checked) };
    let filled = |kind, size: i64| match size.unsigned_abs() {
        0 => Err(ImportError::Empty { kind }),
        size => Ok(size),
    };
    // Only files of tmpfs and hugetlbfs answer: memfds, and others, which nobody can seal.
    let Ok(seals) = fcntl(fd, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain) else {
        let known = dma_buf::known_of(fd.as_fd()).map_err(|source| ImportError::Os { call: "statx", source })?;
        let path = flags.contains(OFlag::O_PATH);
        if path
            || !dma_buf::is(fd.as_fd(), &known)
                .map_err(|source| ImportError::Os { call: "/proc/self/fdinfo", source })?
        {
            return Err(ImportError::NotShareable { found: found(flags, known.mode) });
        }
        let size = filled(MemoryKind::DmaBuf, lseek64(fd, 0, Whence::SeekEnd).map_err(os("lseek"))?)?;
        return right_way(Checked { kind: MemoryKind::DmaBuf, size, writable: access == OFlag::O_RDWR });
    };
    // A hole punched into huge pages is filled again only while the machine has some left, else access raises SIGBUS.
    if fstatfs(fd).map_err(os("fstatfs"))?.filesystem_type() != TMPFS_MAGIC {
        return Err(ImportError::NotShareable { found: "memfd of huge pages" });
    }
    // Asked after the seals, so that it is the size that they keep.
    let size = fstat(fd).map_err(os("fstat"))?.st_size;
    if !seals.contains(SealFlag::F_SEAL_SHRINK) {
        return Err(ImportError::Unsealed { size: size.unsigned_abs() });
    }
    let size = filled(MemoryKind::Memfd, size)?;
    // A memfd sealed against writing maps only read-only, whatever its descriptor says.
    let sealed = seals.intersects(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_FUTURE_WRITE);
    right_way(Checked { kind: MemoryKind::Memfd, size, writable: access == OFlag::O_RDWR && !sealed })
}

/// What a descriptor is that is no memory.
fn found(flags: OFlag, mode: u32) -> &'static str {
    let kind = SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits());
    match kind {
        SFlag::S_IFDIR => "directory",
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFIFO => "pipe",
        SFlag::S_IFCHR => "character device",
        SFlag::S_IFBLK => "block device",
        _ if flags.contains(OFlag::O_PATH) => "descriptor opened with O_PATH",
        SFlag::S_IFREG => "regular file",
        _ => "descriptor of another kind",
    }
}
