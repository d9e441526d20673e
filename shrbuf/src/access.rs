//! CPU access: guards that wait for fences, bracket `DMA_BUF_IOCTL_SYNC`, and never hand out a slice.
//!
//! A device or another process may write the memory while a guard is held; reading then gives some bytes, never
//! undefined behaviour. So pixels are copied out of and into the mapping, row by row, against an
//! [`Account`] of the ledger.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};

use crate::buffer::Shrbuf;
use crate::layout::Layout;
use crate::ledger::Account;
use crate::segment::{MemoryKind, Segment};
use crate::sys::{dma_buf, mapping::Mapping};

/// Why a CPU does not get at the bytes.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The modifier is not linear.
    #[error("the picture is laid out as {modifier}, which a CPU cannot address; ask its producer for LINEAR")]
    Tiled {
        /// The modifier.
        modifier: crate::format::Modifier,
    },
    /// The descriptor, or a seal, allows reading only.
    #[error("the memory was passed for reading only (its descriptor is O_RDONLY, or it is sealed against writing)")]
    ReadOnly,
    /// A fence has not signalled and the caller did not want to wait.
    #[error("a device is still using the buffer")]
    Busy,
    /// The kernel refused.
    #[error("{call} failed on a segment of {size} bytes: {source}")]
    Os {
        /// System call.
        call: &'static str,
        /// Bytes of the segment.
        size: u64,
        /// Its error.
        source: io::Error,
    },
}

/// Brackets all segments of one buffer with DMA_BUF_SYNC_START and _END.
#[derive(Debug)]
struct Bracket<'a> {
    segments: &'a [std::sync::Arc<Segment>],
    access: u32,
}

impl<'a> Bracket<'a> {
    fn open(buffer: &'a Shrbuf, access: u32, wait: bool) -> Result<Bracket<'a>, AccessError> {
        if let Some(modifier) = buffer.layout().modifier.filter(|_| !buffer.layout().is_linear()) {
            return Err(AccessError::Tiled { modifier });
        }
        let mut bracket = Bracket { segments: &buffer.segments()[..0], access };
        for (i, s) in buffer.segments().iter().enumerate() {
            let os = |call| move |source| AccessError::Os { call, size: s.size(), source };
            if access & dma_buf::SYNC_WRITE != 0 && !s.writable() {
                return Err(AccessError::ReadOnly);
            }
            s.mapping().map_err(os("mmap"))?;
            if s.kind() == MemoryKind::DmaBuf {
                if !wait {
                    let writing = access & dma_buf::SYNC_WRITE != 0;
                    let ready = if writing { crate::poll::writable } else { crate::poll::readable };
                    if !ready(s.as_fd(), Some(std::time::Duration::ZERO)).map_err(os("poll"))? {
                        return Err(AccessError::Busy);
                    }
                }
                dma_buf::sync_start(s.as_fd(), access).map_err(os("DMA_BUF_IOCTL_SYNC"))?;
            }
            bracket.segments = &buffer.segments()[..=i];
        }
        Ok(bracket)
    }
}

impl Drop for Bracket<'_> {
    fn drop(&mut self) {
        for s in self.segments.iter().filter(|s| s.kind() == MemoryKind::DmaBuf) {
            // Fails only for a descriptor that is no dma-buf, which `sync_start` has ruled out.
            let _ = dma_buf::sync_end(s.as_fd(), self.access);
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Geometry<'a> {
    map: &'a Mapping,
    offset: usize,
    stride: usize,
    row: usize,
    rows: usize,
}

impl Geometry<'_> {
    fn at(&self, y: usize, x: usize, len: usize) -> usize {
        let inside = y < self.rows && x.checked_add(len).is_some_and(|end| end <= self.row);
        assert!(inside, "bytes {x}..{x}+{len} of row {y} of a plane of {}x{}", self.row, self.rows);
        self.offset + y * self.stride + x
    }

    /// All rows as one run of bytes, where there is no padding between them.
    fn whole(&self) -> Option<(usize, usize)> {
        (self.stride == self.row).then_some((self.offset, self.row * self.rows))
    }

    fn write(&self, at: usize, len: usize, fd: BorrowedFd<'_>, wait: Wait<'_>, account: &Account) -> io::Result<()> {
        let step = |at, len| loop {
            match self.map.write_to_fd(at, len, fd) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait()?,
                written => return written,
            }
        };
        each(at, len, step, io::ErrorKind::WriteZero, account)
    }
}

fn geometry(buffer: &Shrbuf, plane: usize) -> Geometry<'_> {
    let layout = buffer.layout();
    let p = layout.planes()[plane];
    let Some(map) = buffer.segments()[usize::from(p.segment)].mapped() else {
        unreachable!("Bracket::open has mapped every segment")
    };
    Geometry {
        map,
        offset: p.offset as usize,
        stride: p.stride as usize,
        row: layout.row_bytes(plane) as usize,
        rows: layout.rows(plane) as usize,
    }
}

/// Waits until a descriptor that does not block has room.
pub type Wait<'a> = &'a mut dyn FnMut() -> io::Result<()>;

/// A plane open for reading.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a>(Geometry<'a>);

/// A plane open for writing and reading.
#[derive(Debug)]
pub struct PlaneMut<'a>(Geometry<'a>, PhantomData<&'a mut ()>);

/// Does `step` for `len` bytes from `at` on, in as many pieces as it takes; one of no bytes is the error `end`.
fn each(
    at: usize,
    len: usize,
    mut step: impl FnMut(usize, usize) -> io::Result<usize>,
    end: io::ErrorKind,
    account: &Account,
) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        match step(at + done, len - done) {
            Ok(0) => return Err(end.into()),
            Ok(n) => {
                done += n;
                account.add(n as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

macro_rules! reading {
    ($type:ident) => {
        impl $type<'_> {
            /// Bytes of a row, without padding.
            pub fn row_bytes(&self) -> usize {
                self.0.row
            }

            /// Rows.
            pub fn rows(&self) -> usize {
                self.0.rows
            }

            /// Copies `dst.len()` bytes of row `y` from byte `x` on.
            ///
            /// # Panics
            /// Where that leaves the row.
            pub fn read(&self, y: usize, x: usize, dst: &mut [u8], account: &Account) {
                self.0.map.read(self.0.at(y, x, dst.len()), dst);
                account.add(dst.len() as u64);
            }

            /// Writes row `y` to `fd` straight from the mapping, without padding. Where `fd` does not block and has no
            /// room, `wait` is to wait for some.
            ///
            /// # Errors
            /// That of write(2) or of `wait`; a full device is `WriteZero`.
            ///
            /// # Panics
            /// Where there is no such row.
            pub fn write_row_to(
                &self,
                y: usize,
                fd: BorrowedFd<'_>,
                wait: Wait<'_>,
                account: &Account,
            ) -> io::Result<()> {
                self.0.write(self.0.at(y, 0, self.0.row), self.0.row, fd, wait, account)
            }

            /// Writes all rows to `fd`, without padding: by one system call where they follow one another directly.
            ///
            /// # Errors
            /// As [`Self::write_row_to`].
            pub fn write_to(&self, fd: BorrowedFd<'_>, wait: Wait<'_>, account: &Account) -> io::Result<()> {
                match self.0.whole() {
                    Some((at, len)) => self.0.write(at, len, fd, wait, account),
                    None => (0..self.0.rows).try_for_each(|y| self.write_row_to(y, fd, &mut *wait, account)),
                }
            }
        }
    };
}
reading!(Plane);
reading!(PlaneMut);

impl PlaneMut<'_> {
    /// Copies `src` into row `y` from byte `x` on.
    ///
    /// # Panics
    /// Where that leaves the row.
    pub fn write(&mut self, y: usize, x: usize, src: &[u8], account: &Account) {
        self.0.map.write(self.0.at(y, x, src.len()), src);
        account.add(src.len() as u64);
    }

    /// Copies row `y` of `from`, which has rows of the same length, without an intermediate buffer.
    ///
    /// # Panics
    /// Where the rows differ in length, or there is no such row in one of them.
    pub fn copy_row(&mut self, y: usize, from: &Plane<'_>, from_y: usize, account: &Account) {
        let len = from.0.row;
        from.0.map.copy(from.0.at(from_y, 0, len), self.0.map, self.0.at(y, 0, len), len);
        account.add(len as u64);
    }

    /// Fills row `y` from `fd`, straight into the mapping.
    ///
    /// # Errors
    /// That of read(2); the end of the file is `UnexpectedEof`.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn read_row_from(&mut self, y: usize, fd: BorrowedFd<'_>, account: &Account) -> io::Result<()> {
        let step = |at, len| self.0.map.read_from_fd(at, len, fd);
        each(self.0.at(y, 0, self.0.row), self.0.row, step, io::ErrorKind::UnexpectedEof, account)
    }

    /// Fills all rows from `fd`: by one system call where they follow one another directly.
    ///
    /// # Errors
    /// As [`PlaneMut::read_row_from`].
    pub fn read_from(&mut self, fd: BorrowedFd<'_>, account: &Account) -> io::Result<()> {
        if let Some((at, len)) = self.0.whole() {
            let step = |at, len| self.0.map.read_from_fd(at, len, fd);
            return each(at, len, step, io::ErrorKind::UnexpectedEof, account);
        }
        (0..self.0.rows).try_for_each(|y| self.read_row_from(y, fd, account))
    }
}

/// The buffer is open for reading by the CPU until this is dropped.
#[derive(Debug)]
pub struct ReadGuard<'a> {
    buffer: &'a Shrbuf,
    _bracket: Bracket<'a>,
}

impl ReadGuard<'_> {
    /// Format, size and planes of the buffer.
    pub fn layout(&self) -> &Layout {
        self.buffer.layout()
    }

    /// Plane `plane` of the layout.
    ///
    /// # Panics
    /// Where there is no such plane.
    pub fn plane(&self, plane: usize) -> Plane<'_> {
        Plane(geometry(self.buffer, plane))
    }
}

/// The buffer is open for writing by the CPU until this is dropped.
#[derive(Debug)]
pub struct WriteGuard<'a> {
    buffer: &'a Shrbuf,
    _bracket: Bracket<'a>,
}

impl WriteGuard<'_> {
    /// Format, size and planes of the buffer.
    pub fn layout(&self) -> &Layout {
        self.buffer.layout()
    }

    /// Plane `plane` of the layout.
    ///
    /// # Panics
    /// Where there is no such plane.
    pub fn plane(&mut self, plane: usize) -> PlaneMut<'_> {
        PlaneMut(geometry(self.buffer, plane), PhantomData)
    }
}

impl Shrbuf {
    /// Opens the buffer for reading by the CPU. Maps it on first use. **Blocks** until writers' fences have signalled.
    ///
    /// # Errors
    /// [`AccessError`]: a layout that is not linear, or what the kernel says.
    pub fn read(&self) -> Result<ReadGuard<'_>, AccessError> {
        Ok(ReadGuard { buffer: self, _bracket: Bracket::open(self, dma_buf::SYNC_READ, true)? })
    }

    /// As [`Shrbuf::read`] without blocking.
    ///
    /// # Errors
    /// [`AccessError::Busy`] where a fence is pending, else as there.
    pub fn try_read(&self) -> Result<ReadGuard<'_>, AccessError> {
        Ok(ReadGuard { buffer: self, _bracket: Bracket::open(self, dma_buf::SYNC_READ, false)? })
    }

    /// Opens the buffer for writing by the CPU. **Blocks** until everybody's fences have signalled.
    ///
    /// # Errors
    /// As [`Shrbuf::read`], and [`AccessError::ReadOnly`].
    pub fn write(&mut self) -> Result<WriteGuard<'_>, AccessError> {
        let access = dma_buf::SYNC_READ | dma_buf::SYNC_WRITE;
        Ok(WriteGuard { buffer: self, _bracket: Bracket::open(self, access, true)? })
    }
}
