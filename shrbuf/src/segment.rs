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
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::fstatfs;
use nix::unistd::{Whence, lseek64};

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

/// One piece of shared memory. Closed and unmapped when the last buffer made of it is gone.
pub struct Segment {
    fd: OwnedFd,
    size: u64,
    kind: MemoryKind,
    writable: bool,
    key: Key,
    map: OnceLock<Mapping>,
    /// Buffers made of this segment as their first one, so that an import finds them again.
    pub(crate) buffers: Mutex<Vec<Weak<crate::buffer::Core>>>,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} bytes inode {}", self.kind, self.size, self.key.ino)
    }
}

impl Segment {
    /// The segment of the kernel object behind `fd`. Takes the descriptor; where the object is already known, that
    /// segment is returned and the descriptor closed. Does not block.
    ///
    /// # Errors
    /// [`ImportError`] where the descriptor is no dma-buf and no memfd sealed against shrinking.
    pub fn import(fd: OwnedFd) -> Result<Arc<Segment>, ImportError> {
        let stat = fstat(&fd).map_err(os("fstat"))?;
        let key = Key { dev: stat.st_dev, ino: stat.st_ino };
        let mut map = known();
        let map = map.get_or_insert_with(HashMap::new);
        if let Some(found) = map.get(&key).and_then(Weak::upgrade) {
            return Ok(found);
        }
        let (kind, size) = classify(&fd, stat.st_mode)?;
        let mode = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL).map_err(os("F_GETFL"))?);
        let access = mode & OFlag::O_ACCMODE;
        if access == OFlag::O_WRONLY {
            return Err(ImportError::WriteOnly);
        }
        // A memfd sealed against writing maps only read-only, whatever its descriptor says.
        let sealed = kind == MemoryKind::Memfd
            && SealFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GET_SEALS).map_err(os("F_GET_SEALS"))?)
                .intersects(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_FUTURE_WRITE);
        let segment = Arc::new(Segment {
            writable: access == OFlag::O_RDWR && !sealed,
            fd,
            size,
            kind,
            key,
            map: OnceLock::new(),
            buffers: Mutex::new(Vec::new()),
        });
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
        self.writable
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
        dma_buf::set_name(self.fd.as_fd(), &CString::new(short).map_err(io::Error::other)?)
    }

    /// Maps on first use, for writing where that is allowed.
    pub(crate) fn mapping(&self) -> io::Result<&Mapping> {
        if let Some(map) = self.map.get() {
            return Ok(map);
        }
        let len = usize::try_from(self.size).ok().and_then(NonZeroUsize::new);
        let len = len.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let new = Mapping::new(self.fd.as_fd(), len, self.writable)?;
        Ok(self.map.get_or_init(|| new))
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
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

fn classify(fd: &OwnedFd, mode: u32) -> Result<(MemoryKind, u64), ImportError> {
    let found = match SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => "directory",
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFIFO => "pipe",
        SFlag::S_IFCHR => "character device",
        SFlag::S_IFBLK => "block device",
        _ => "",
    };
    if !found.is_empty() {
        return Err(ImportError::NotShareable { found });
    }
    let size = |kind| match lseek64(fd, 0, Whence::SeekEnd) {
        Ok(0) => Err(ImportError::Empty { kind }),
        Ok(n) => Ok(n.unsigned_abs()),
        Err(e) => Err(os("lseek")(e)),
    };
    if fstatfs(fd).map_err(os("fstatfs"))?.filesystem_type().0 as i64 == dma_buf::MAGIC {
        return Ok((MemoryKind::DmaBuf, size(MemoryKind::DmaBuf)?));
    }
    // Only memfds, and files of tmpfs that nobody can seal, answer F_GET_SEALS.
    match fcntl(fd, FcntlArg::F_GET_SEALS) {
        Ok(seals) if seals & SealFlag::F_SEAL_SHRINK.bits() != 0 => Ok((MemoryKind::Memfd, size(MemoryKind::Memfd)?)),
        Ok(_) => Err(ImportError::Unsealed { size: size(MemoryKind::Memfd).unwrap_or(0) }),
        Err(_) if mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits() => {
            Err(ImportError::NotShareable { found: "regular file" })
        }
        Err(_) => Err(ImportError::NotShareable { found: "descriptor of another kind" }),
    }
}
