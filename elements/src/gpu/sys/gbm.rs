//! GBM's side: memory of a DRM device's own, for which its node is all that has to be opened.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use shrbuf::Modifier;

use super::super::error::GpuError;

type CreateDevice = unsafe extern "C" fn(c_int) -> *mut c_void;
type Destroy = unsafe extern "C" fn(*mut c_void);
type Create = unsafe extern "C" fn(*mut c_void, u32, u32, u32, u32) -> *mut c_void;
type CreateWith = unsafe extern "C" fn(*mut c_void, u32, u32, u32, *const u64, u32, u32) -> *mut c_void;
type GetInt = unsafe extern "C" fn(*mut c_void) -> c_int;
type GetHandle = unsafe extern "C" fn(*mut c_void) -> Handle;
type GetStride = unsafe extern "C" fn(*mut c_void) -> u32;

const USE_SCANOUT: u32 = 1;
const USE_RENDERING: u32 = 1 << 2;
const USE_LINEAR: u32 = 1 << 4;

/// `union gbm_bo_handle`.
#[repr(C)]
union Handle {
    pointer: *mut c_void,
    number: u32,
    wide: u64,
}

/// `struct drm_prime_handle`.
#[repr(C)]
struct Prime {
    handle: u32,
    flags: u32,
    fd: c_int,
}

nix::ioctl_none!(drop_master, b'd', 0x1f);
nix::ioctl_readwrite!(prime_handle_to_fd, b'd', 0x2d, Prime);

struct Functions {
    create_device: CreateDevice,
    destroy_device: Destroy,
    create: Create,
    /// Since Mesa 21.1.
    create_with: Option<CreateWith>,
    destroy: Destroy,
    handle: GetHandle,
    stride: GetStride,
    planes: GetInt,
}

static LIBRARY: Mutex<Option<&'static Functions>> = Mutex::new(None);

fn functions() -> Result<&'static Functions, String> {
    let mut loaded = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(functions) = *loaded {
        return Ok(functions);
    }
    // SAFETY: the library is the system's own GBM, whose initialisers are made to be run by whoever loads it.
    let library = unsafe { libloading::Library::new("libgbm.so.1") };
    let library = library.map_err(|e| format!("{e}; install libgbm1"))?;
    // What it has loaded goes on for as long as the process does.
    let library: &'static libloading::Library = Box::leak(Box::new(library));
    let missing = |e: libloading::Error| e.to_string();
    // SAFETY: each type is that of gbm.h, which has not changed for a function since there is one.
    let functions = unsafe {
        Functions {
            create_device: *library.get::<CreateDevice>(b"gbm_create_device\0").map_err(missing)?,
            destroy_device: *library.get::<Destroy>(b"gbm_device_destroy\0").map_err(missing)?,
            create: *library.get::<Create>(b"gbm_bo_create\0").map_err(missing)?,
            create_with: library.get::<CreateWith>(b"gbm_bo_create_with_modifiers2\0").ok().map(|f| *f),
            destroy: *library.get::<Destroy>(b"gbm_bo_destroy\0").map_err(missing)?,
            handle: *library.get::<GetHandle>(b"gbm_bo_get_handle\0").map_err(missing)?,
            stride: *library.get::<GetStride>(b"gbm_bo_get_stride\0").map_err(missing)?,
            planes: *library.get::<GetInt>(b"gbm_bo_get_plane_count\0").map_err(missing)?,
        }
    };
    Ok(loaded.insert(Box::leak(Box::new(functions))))
}

/// An allocator of a DRM device.
pub(in super::super) struct Gbm {
    functions: &'static Functions,
    raw: *mut c_void,
    name: String,
    /// Open as long as `raw` is there.
    node: File,
}

// SAFETY: a device of GBM's is bound to no thread; who has it alone may call it from any.
unsafe impl Send for Gbm {}

/// Memory that was made.
#[derive(Debug)]
pub(in super::super) struct Memory {
    pub(in super::super) fd: OwnedFd,
    pub(in super::super) stride: u32,
}

impl Gbm {
    /// On the device of `node`.
    pub(in super::super) fn open(node: &Path) -> Result<Gbm, GpuError> {
        let failed = |why: String| GpuError::Gbm { node: node.display().to_string(), why };
        let functions = functions().map_err(failed)?;
        let file = File::options().read(true).write(true).open(node).map_err(|e| failed(e.to_string()))?;
        // SAFETY: no pointers go with it. Whoever opens a card first is its DRM master, which is for those who show
        // something; on a render node, or where there is another, the kernel says no, which is as well.
        let _ = unsafe { drop_master(file.as_raw_fd()) };
        // SAFETY: the descriptor is open, and stays so until the device is destroyed.
        let raw = unsafe { (functions.create_device)(file.as_raw_fd()) };
        if raw.is_null() {
            return Err(failed(format!("no device for GBM: {}", std::io::Error::last_os_error())));
        }
        Ok(Gbm { functions, raw, name: node.display().to_string(), node: file })
    }

    /// Linear memory of so many rows of four-byte texels, that GPUs render into; where it may be, displays show it too.
    pub(in super::super) fn linear(&self, width: u32, height: u32, fourcc: u32) -> Result<Memory, GpuError> {
        let create = |flags| {
            // SAFETY: the device is alive.
            unsafe { (self.functions.create)(self.raw, width, height, fourcc, flags) }
        };
        let rendered = USE_RENDERING | USE_LINEAR;
        let first = create(rendered | USE_SCANOUT);
        self.export(if first.is_null() { create(rendered) } else { first })
    }

    /// A picture arranged as `modifier` says, in one plane.
    pub(in super::super) fn arranged(
        &self,
        width: u32,
        height: u32,
        fourcc: u32,
        modifier: Modifier,
    ) -> Result<Memory, GpuError> {
        let create_with = self.functions.create_with.ok_or_else(|| self.failed("it is older than Mesa 21.1".into()))?;
        let create = |flags| {
            // SAFETY: the device is alive, and the list has one entry.
            unsafe { create_with(self.raw, width, height, fourcc, &raw const modifier.0, 1, flags) }
        };
        let first = create(USE_RENDERING | USE_SCANOUT);
        self.export(if first.is_null() { create(USE_RENDERING) } else { first })
    }

    fn export(&self, object: *mut c_void) -> Result<Memory, GpuError> {
        if object.is_null() {
            return Err(self.failed(format!("it allocates nothing: {}", std::io::Error::last_os_error())));
        }
        // SAFETY: the object is alive, and of a device of this node, for which its handle is a number.
        let (planes, stride, handle) = unsafe {
            let handle = (self.functions.handle)(object).number;
            ((self.functions.planes)(object), (self.functions.stride)(object), handle)
        };
        // GBM's own export gives, for renderers on the CPU, descriptors that cannot be mapped to be written.
        let mut prime = Prime { handle, flags: (libc::O_CLOEXEC | libc::O_RDWR) as u32, fd: -1 };
        // SAFETY: the pointer is to a live struct of its ioctl's type.
        let exported = unsafe { prime_handle_to_fd(self.node.as_raw_fd(), &raw mut prime) };
        // SAFETY: the object is destroyed once; what is exported is another reference to its memory.
        unsafe { (self.functions.destroy)(object) };
        exported.map_err(|e| self.failed(format!("it exports nothing: {e}")))?;
        // SAFETY: the descriptor was made for us by the call, and nobody else has seen it.
        let fd = unsafe { OwnedFd::from_raw_fd(prime.fd) };
        if planes == 1 { Ok(Memory { fd, stride }) } else { Err(self.failed(format!("it needs {planes} planes"))) }
    }

    fn failed(&self, why: String) -> GpuError {
        GpuError::Gbm { node: self.name.clone(), why }
    }
}

impl Drop for Gbm {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once, after all of its objects.
        unsafe { (self.functions.destroy_device)(self.raw) };
    }
}
