//! The few ioctls of `drm.h` and `drm_mode.h` that crate `drm` lacks, or wraps in a way that a frame's path cannot
//! use: its atomic commit allocates and carries no user data, its AddFB2 takes only the fourccs it knows and asserts
//! on the rest, and CLOSEFB it does not have.
//!
//! Everything here is a plain call: one function, one ioctl, retried while a signal interrupts it, as libdrm does.

#![allow(non_camel_case_types)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::props::{Assignments, OutFencePtr};

#[repr(C)]
#[derive(Default)]
struct drm_mode_atomic {
    flags: u32,
    count_objs: u32,
    objs_ptr: u64,
    count_props_ptr: u64,
    props_ptr: u64,
    prop_values_ptr: u64,
    reserved: u64,
    user_data: u64,
}

#[repr(C)]
#[derive(Default)]
struct drm_mode_fb_cmd2 {
    fb_id: u32,
    width: u32,
    height: u32,
    pixel_format: u32,
    flags: u32,
    handles: [u32; 4],
    pitches: [u32; 4],
    offsets: [u32; 4],
    modifier: [u64; 4],
}

#[repr(C)]
#[derive(Default)]
struct drm_mode_closefb {
    fb_id: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct drm_mode_create_dumb {
    height: u32,
    width: u32,
    bpp: u32,
    flags: u32,
    handle: u32,
    pitch: u32,
    size: u64,
}

#[repr(C)]
#[derive(Default)]
struct drm_prime_handle {
    handle: u32,
    flags: u32,
    fd: i32,
}

#[repr(C)]
#[derive(Default)]
struct drm_gem_close {
    handle: u32,
    pad: u32,
}

#[repr(C)]
struct drm_auth {
    magic: u32,
}

nix::ioctl_write_ptr!(gem_close_ioctl, b'd', 0x09, drm_gem_close);
nix::ioctl_write_ptr!(auth_magic_ioctl, b'd', 0x11, drm_auth);
nix::ioctl_readwrite!(prime_fd_to_handle_ioctl, b'd', 0x2e, drm_prime_handle);
nix::ioctl_readwrite!(rmfb_ioctl, b'd', 0xaf, u32);
nix::ioctl_readwrite!(create_dumb_ioctl, b'd', 0xb2, drm_mode_create_dumb);
nix::ioctl_readwrite!(addfb2_ioctl, b'd', 0xb8, drm_mode_fb_cmd2);
nix::ioctl_readwrite!(atomic_ioctl, b'd', 0xbc, drm_mode_atomic);
nix::ioctl_readwrite!(closefb_ioctl, b'd', 0xd0, drm_mode_closefb);

/// `DRM_MODE_PAGE_FLIP_EVENT`: an event is queued once the commit is on screen.
pub(super) const PAGE_FLIP_EVENT: u32 = 0x01;
/// `DRM_MODE_ATOMIC_TEST_ONLY`: check, change nothing.
pub(super) const TEST_ONLY: u32 = 0x0100;
/// `DRM_MODE_ATOMIC_NONBLOCK`: return before the commit is on screen.
pub(super) const NONBLOCK: u32 = 0x0200;
/// `DRM_MODE_ATOMIC_ALLOW_MODESET`: the mode or the routing may change.
pub(super) const ALLOW_MODESET: u32 = 0x0400;

const FB_MODIFIERS: u32 = 1 << 1;

/// Repeats a call while a signal (or, in DRM's own usage, EAGAIN) cut it short.
fn retry(mut call: impl FnMut() -> nix::Result<i32>) -> io::Result<()> {
    loop {
        match call() {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Issues one `DRM_IOCTL_MODE_ATOMIC` for all of `assignments`.
///
/// Where `out_fence` is given, it is asked for as well, and the sync_file that the kernel then makes is returned.
pub(super) fn atomic(
    fd: BorrowedFd<'_>,
    flags: u32,
    user_data: u64,
    assignments: &mut Assignments,
    out_fence: Option<OutFencePtr>,
) -> io::Result<Option<OwnedFd>> {
    let mut fence: i32 = -1;
    if let Some(property) = out_fence {
        assignments.set_raw(property.object, property.id, &raw mut fence as u64);
    }
    let mut arg = drm_mode_atomic {
        flags,
        count_objs: assignments.objects.len() as u32,
        objs_ptr: assignments.objects.as_mut_ptr() as u64,
        count_props_ptr: assignments.counts.as_mut_ptr() as u64,
        props_ptr: assignments.properties.as_mut_ptr() as u64,
        prop_values_ptr: assignments.values.as_mut_ptr() as u64,
        reserved: 0,
        user_data,
    };
    // SAFETY: `arg` is the struct this ioctl takes. Its pointers are to the four arrays of `assignments`, whose
    // lengths agree by construction and which outlive the call. The only property whose value the kernel uses as an
    // address is OUT_FENCE_PTR: `PropId` cannot name it, so the only such value is the one set above, and `fence` is
    // written during the call only.
    let result = retry(|| unsafe { atomic_ioctl(fd.as_raw_fd(), &mut arg) });
    if out_fence.is_some() {
        // The address of a local must not stay behind in a request that is used again.
        assignments.pop_raw();
    }
    result?;
    if fence < 0 {
        return Ok(None);
    }
    // SAFETY: the kernel made this descriptor for us during the call, and nobody else has seen it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fence) }))
}

/// What `DRM_IOCTL_MODE_ADDFB2` is to make a frame buffer of.
pub(super) struct AddFb2 {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) fourcc: u32,
    pub(super) modifier: Option<u64>,
    pub(super) handles: [u32; 4],
    pub(super) strides: [u32; 4],
    pub(super) offsets: [u32; 4],
}

/// Makes a frame buffer of GEM handles; the frame buffer holds the objects, not the handles.
pub(super) fn add_fb2(fd: BorrowedFd<'_>, fb: &AddFb2) -> io::Result<u32> {
    let mut arg = drm_mode_fb_cmd2 {
        width: fb.width,
        height: fb.height,
        pixel_format: fb.fourcc,
        flags: if fb.modifier.is_some() { FB_MODIFIERS } else { 0 },
        handles: fb.handles,
        pitches: fb.strides,
        offsets: fb.offsets,
        // The kernel wants one modifier for every plane in use, and 0 for the others.
        modifier: fb.handles.map(|h| if h == 0 { 0 } else { fb.modifier.unwrap_or(0) }),
        ..Default::default()
    };
    // SAFETY: `arg` is the struct this ioctl takes and holds no pointers.
    retry(|| unsafe { addfb2_ioctl(fd.as_raw_fd(), &mut arg) })?;
    Ok(arg.fb_id)
}

/// Lets a frame buffer go without touching the planes that show it (`DRM_IOCTL_MODE_CLOSEFB`, Linux 6.8). EINVAL
/// on older kernels.
pub(super) fn close_fb(fd: BorrowedFd<'_>, fb_id: u32) -> io::Result<()> {
    let mut arg = drm_mode_closefb { fb_id, pad: 0 };
    // SAFETY: `arg` is the struct this ioctl takes and holds no pointers.
    retry(|| unsafe { closefb_ioctl(fd.as_raw_fd(), &mut arg) })
}

/// Lets a frame buffer go and turns off every plane that shows it (`DRM_IOCTL_MODE_RMFB`).
pub(super) fn rm_fb(fd: BorrowedFd<'_>, mut fb_id: u32) -> io::Result<()> {
    // SAFETY: this ioctl takes a u32 by pointer.
    retry(|| unsafe { rmfb_ioctl(fd.as_raw_fd(), &mut fb_id) })
}

/// The GEM handle of a dma-buf in this open file; the same one for the same dma-buf while it is open.
pub(super) fn prime_fd_to_handle(fd: BorrowedFd<'_>, dma_buf: BorrowedFd<'_>) -> io::Result<u32> {
    let mut arg = drm_prime_handle { handle: 0, flags: 0, fd: dma_buf.as_raw_fd() };
    // SAFETY: `arg` is the struct this ioctl takes and holds no pointers.
    retry(|| unsafe { prime_fd_to_handle_ioctl(fd.as_raw_fd(), &mut arg) })?;
    Ok(arg.handle)
}

/// Closes a GEM handle.
pub(super) fn gem_close(fd: BorrowedFd<'_>, handle: u32) -> io::Result<()> {
    let arg = drm_gem_close { handle, pad: 0 };
    // SAFETY: `arg` is the struct this ioctl takes and holds no pointers.
    retry(|| unsafe { gem_close_ioctl(fd.as_raw_fd(), &arg) })
}

/// A new dumb buffer.
pub(super) struct Dumb {
    pub(super) handle: u32,
    pub(super) stride: u32,
}

/// Makes a dumb buffer of `bits` a pixel; the driver chooses the stride.
pub(super) fn create_dumb(fd: BorrowedFd<'_>, width: u32, height: u32, bits: u32) -> io::Result<Dumb> {
    let mut arg = drm_mode_create_dumb { height, width, bpp: bits, ..Default::default() };
    // SAFETY: `arg` is the struct this ioctl takes and holds no pointers.
    retry(|| unsafe { create_dumb_ioctl(fd.as_raw_fd(), &mut arg) })?;
    Ok(Dumb { handle: arg.handle, stride: arg.pitch })
}

/// Whether this open file is the DRM master: AUTH_MAGIC is refused with EACCES to all others, and magic 0 with
/// EINVAL to the master (the test that libdrm's `drmIsMaster` makes).
pub(super) fn is_master(fd: BorrowedFd<'_>) -> bool {
    let arg = drm_auth { magic: 0 };
    // SAFETY: `arg` is the struct this ioctl takes and holds no pointers.
    !matches!(unsafe { auth_magic_ioctl(fd.as_raw_fd(), &arg) }, Err(Errno::EACCES))
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;

    /// Sizes in `drm.h` and `drm_mode.h`; they are part of each ioctl's number.
    #[test]
    fn structs_have_the_kernel_s_sizes() {
        assert_eq!(size_of::<drm_mode_atomic>(), 56);
        assert_eq!(size_of::<drm_mode_fb_cmd2>(), 104);
        assert_eq!(size_of::<drm_mode_closefb>(), 8);
        assert_eq!(size_of::<drm_mode_create_dumb>(), 32);
        assert_eq!(size_of::<drm_prime_handle>(), 12);
        assert_eq!(size_of::<drm_gem_close>(), 8);
    }
}
