//! vgem, which begins to write a dma-buf, so to speak, and ends when it is told to.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};

use shrbuf::Shrbuf;

mod raw {
    #[repr(C)]
    pub struct Prime {
        pub handle: u32,
        pub flags: u32,
        pub fd: i32,
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

    nix::ioctl_readwrite!(prime_fd_to_handle, b'd', 0x2e, Prime);
    nix::ioctl_readwrite!(fence_attach, b'd', 0x41, Attach);
    nix::ioctl_write_ptr!(fence_signal, b'd', 0x42, Signal);
}

/// Writing that has not ended.
pub struct Writing {
    vgem: File,
    fence: u32,
}

impl Writing {
    pub fn begin(buffer: &Shrbuf) -> Writing {
        let is_vgem = |n: &fs::DirEntry| fs::read_link(n.path().join("device")).is_ok_and(|d| d.ends_with("vgem"));
        let nodes = fs::read_dir("/sys/class/drm").unwrap().flatten().filter(is_vgem);
        let name = nodes.map(|n| n.file_name()).find(|n| n.to_string_lossy().starts_with("render")).unwrap();
        let vgem = File::options().read(true).write(true).open(format!("/dev/dri/{}", name.display())).unwrap();
        let mut prime = raw::Prime { handle: 0, flags: 0, fd: buffer.segments()[0].as_fd().as_raw_fd() };
        // SAFETY: the pointer is to a live struct of its ioctl's type.
        unsafe { raw::prime_fd_to_handle(vgem.as_raw_fd(), &mut prime) }.unwrap();
        let mut attach = raw::Attach { handle: prime.handle, flags: 1, out_fence: 0, pad: 0 };
        // SAFETY: as above.
        unsafe { raw::fence_attach(vgem.as_raw_fd(), &mut attach) }.unwrap();
        buffer.expect_fences();
        Writing { vgem, fence: attach.out_fence }
    }

    pub fn end(self) {
        let signal = raw::Signal { fence: self.fence, flags: 0 };
        // SAFETY: the pointer is to a live struct of its ioctl's type.
        unsafe { raw::fence_signal(self.vgem.as_raw_fd(), &signal) }.unwrap();
    }
}
