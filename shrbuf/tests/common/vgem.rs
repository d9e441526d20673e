//! The device whose work takes as long as a test likes: vgem attaches fences to dma-bufs, and signals them when told to.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use shrbuf::{Access, Shrbuf};

mod raw {
    #[repr(C)]
    pub struct Prime {
        pub handle: u32,
        pub flags: u32,
        pub fd: i32,
    }

    #[repr(C)]
    pub struct Close {
        pub handle: u32,
        pub pad: u32,
    }

    /// `struct drm_vgem_fence_attach`.
    #[repr(C)]
    pub struct Attach {
        pub handle: u32,
        pub flags: u32,
        pub out_fence: u32,
        pub pad: u32,
    }

    /// `struct drm_vgem_fence_signal`.
    #[repr(C)]
    pub struct Signal {
        pub fence: u32,
        pub flags: u32,
    }

    nix::ioctl_write_ptr!(gem_close, b'd', 0x09, Close);
    nix::ioctl_readwrite!(prime_fd_to_handle, b'd', 0x2e, Prime);
    nix::ioctl_readwrite!(fence_attach, b'd', 0x41, Attach);
    nix::ioctl_write_ptr!(fence_signal, b'd', 0x42, Signal);
}

pub struct Vgem(Arc<File>);

/// Work that vgem has been given. It ends by itself after 10 s.
pub struct Work {
    vgem: Arc<File>,
    fence: u32,
}

impl Vgem {
    pub fn open() -> Option<Vgem> {
        let nodes = fs::read_dir("/sys/class/drm").ok()?.flatten();
        let mut cards = nodes.filter(|n| fs::read_link(n.path().join("device")).is_ok_and(|d| d.ends_with("vgem")));
        let name = cards.find(|n| n.file_name().to_string_lossy().starts_with("render"))?.file_name();
        let node = File::options().read(true).write(true).open(format!("/dev/dri/{}", name.display())).ok()?;
        Some(Vgem(Arc::new(node)))
    }

    /// Begins to read or write segment `segment`.
    pub fn begin(&self, access: Access, buffer: &Shrbuf, segment: usize) -> Work {
        // An importer that attaches fences by itself says so.
        buffer.expect_fences();
        self.begin_untold(access, buffer.segments()[segment].as_fd())
    }

    /// As [`Vgem::begin`], on a dma-buf of which nobody is told.
    pub fn begin_untold(&self, access: Access, dma_buf: BorrowedFd<'_>) -> Work {
        let mut prime = raw::Prime { handle: 0, flags: 0, fd: dma_buf.as_raw_fd() };
        let flags = u32::from(access == Access::Write);
        // SAFETY: each pointer is to a live struct of its ioctl's type.
        unsafe {
            raw::prime_fd_to_handle(self.0.as_raw_fd(), &mut prime).unwrap();
            let mut attach = raw::Attach { handle: prime.handle, flags, out_fence: 0, pad: 0 };
            raw::fence_attach(self.0.as_raw_fd(), &mut attach).unwrap();
            // The fence is in the dma-buf, which needs the handle no more.
            raw::gem_close(self.0.as_raw_fd(), &raw::Close { handle: prime.handle, pad: 0 }).unwrap();
            Work { vgem: Arc::clone(&self.0), fence: attach.out_fence }
        }
    }
}

impl Work {
    pub fn end(self) {
        // SAFETY: the pointer is to a live struct of the ioctl's type.
        unsafe { raw::fence_signal(self.vgem.as_raw_fd(), &raw::Signal { fence: self.fence, flags: 0 }) }.unwrap();
    }
}
