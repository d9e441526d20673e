//! EGL's side: the library, devices, displays, images of dma-bufs.
//!
//! Extensions are called by their own names and not as parts of EGL 1.5, whose attributes are of another width: so what
//! is checked for is what is called.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use khronos_egl as egl;
use shrbuf::Modifier;

use super::super::error::{Denied, GpuError};

type Int = egl::Int;
type Function = extern "system" fn();
type QueryDevices = unsafe extern "system" fn(Int, *mut *mut c_void, *mut Int) -> egl::Boolean;
type QueryDeviceString = unsafe extern "system" fn(*mut c_void, Int) -> *const std::ffi::c_char;
type CreateImage =
    unsafe extern "system" fn(egl::EGLDisplay, egl::EGLContext, egl::Enum, *mut c_void, *const Int) -> *mut c_void;
type DestroyImage = unsafe extern "system" fn(egl::EGLDisplay, *mut c_void) -> egl::Boolean;
type QueryModifiers =
    unsafe extern "system" fn(egl::EGLDisplay, Int, Int, *mut u64, *mut egl::Boolean, *mut Int) -> egl::Boolean;

const PLATFORM_DEVICE: egl::Enum = 0x313F;
const PLATFORM_SURFACELESS: egl::Enum = 0x31DD;
const TRACK_REFERENCES: egl::Attrib = 0x3352;
const DRM_RENDER_NODE_FILE: Int = 0x3377;
const LINUX_DMA_BUF: egl::Enum = 0x3270;
const LINUX_DRM_FOURCC: Int = 0x3271;
const PLANE0_FD: Int = 0x3272;
const PLANE0_OFFSET: Int = 0x3273;
const PLANE0_PITCH: Int = 0x3274;
const PLANE0_MODIFIER_LO: Int = 0x3443;
const PLANE0_MODIFIER_HI: Int = 0x3444;

/// libEGL, which stays once it has been loaded: displays, and threads that drivers start, outlive who uses it here.
#[derive(Clone, Copy)]
pub(in super::super) struct Egl(pub(super) &'static egl::DynamicInstance<egl::EGL1_5>);

static LIBRARY: Mutex<Option<&'static egl::DynamicInstance<egl::EGL1_5>>> = Mutex::new(None);

/// Somewhere to render.
#[derive(Debug, Clone)]
pub(in super::super) enum Place {
    /// A GPU by its render node.
    Node { path: PathBuf, device: usize },
    /// A renderer that runs on the CPU.
    Software { device: usize },
    /// Whatever the library takes without a display.
    Surfaceless,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Node { path, .. } => path.display().fmt(f),
            Place::Software { .. } => f.write_str("software"),
            Place::Surfaceless => f.write_str("surfaceless"),
        }
    }
}

impl Egl {
    pub(in super::super) fn load() -> Result<Egl, GpuError> {
        let mut loaded = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(api) = *loaded {
            return Ok(Egl(api));
        }
        // SAFETY: the library is the system's own EGL, whose initialisers are made to be run by whoever loads it; and
        // it offers the functions of EGL 1.5 under their names, which loading checks.
        let api = unsafe { egl::DynamicInstance::<egl::EGL1_5>::load_required() };
        let api = api.map_err(|e| GpuError::Library(e.to_string()))?;
        Ok(Egl(loaded.insert(Box::leak(Box::new(api)))))
    }

    /// Looks a function up and takes it for an `F`, which is what its extension says it is.
    ///
    /// # Safety
    /// `F` is the type of a function of that name.
    pub(super) unsafe fn function<F: Copy>(&self, name: &'static str) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<Function>()) };
        // SAFETY: both are pointers to functions, of which the caller knows the type.
        self.0.get_proc_address(name).map(|f| unsafe { std::mem::transmute_copy::<Function, F>(&f) })
    }

    fn devices(&self) -> Vec<*mut c_void> {
        // SAFETY: the type is that of EGL_EXT_device_enumeration.
        let Some(query) = (unsafe { self.function::<QueryDevices>("eglQueryDevicesEXT") }) else { return Vec::new() };
        let mut devices = [std::ptr::null_mut(); 32];
        let mut count = 0;
        // SAFETY: the array has room for as many as it is said to have.
        let done = unsafe { query(devices.len() as Int, devices.as_mut_ptr(), &raw mut count) };
        let count = if done == egl::TRUE { usize::try_from(count).unwrap_or(0).min(devices.len()) } else { 0 };
        devices[..count].to_vec()
    }

    fn device_string(&self, device: *mut c_void, name: Int) -> Option<String> {
        // SAFETY: the type is that of EGL_EXT_device_query.
        let query = unsafe { self.function::<QueryDeviceString>("eglQueryDeviceStringEXT") }?;
        // SAFETY: `device` is one that the library enumerated; they live as long as it does.
        let text = unsafe { query(device, name) };
        // SAFETY: what is returned is null or a string that ends with a zero and lives as long as the library.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    /// Every place to render: GPUs, then what runs on the CPU.
    pub(in super::super) fn places(&self) -> Vec<Place> {
        let (mut nodes, mut software) = (Vec::new(), Vec::new());
        for (device, handle) in self.devices().into_iter().enumerate() {
            let extensions = self.device_string(handle, egl::EXTENSIONS).unwrap_or_default();
            let has = |name: &str| extensions.split(' ').any(|e| e == name);
            if has("EGL_MESA_device_software") {
                software.push(Place::Software { device });
            } else if has("EGL_EXT_device_drm_render_node")
                && let Some(path) = self.device_string(handle, DRM_RENDER_NODE_FILE)
            {
                nodes.push(Place::Node { path: path.into(), device });
            }
        }
        nodes.extend(software);
        nodes.push(Place::Surfaceless);
        nodes
    }

    /// The last error, of `call`.
    pub(super) fn error(&self, call: &'static str) -> GpuError {
        self.denied().of(call)
    }

    /// The last error.
    fn denied(&self) -> Denied {
        self.0.get_error().map_or_else(|| Denied::Code("no reason given".to_owned()), Denied::from)
    }
}

/// A plane to import, as one picture of its own.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Plane<'a> {
    pub(in super::super) fd: BorrowedFd<'a>,
    pub(in super::super) fourcc: u32,
    pub(in super::super) width: u32,
    pub(in super::super) height: u32,
    pub(in super::super) offset: u32,
    pub(in super::super) stride: u32,
    pub(in super::super) modifier: Modifier,
}

/// An open display.
pub(in super::super) struct Display {
    pub(super) egl: Egl,
    pub(super) raw: egl::Display,
    name: String,
    extensions: String,
    /// Whoever else has this display open goes on using it when it is closed here.
    counted: bool,
    create_image: CreateImage,
    destroy_image: DestroyImage,
    query_modifiers: Option<QueryModifiers>,
}

// SAFETY: EGL's displays may be used from any thread (EGL 1.5, 2.2), and the library is loaded for good.
unsafe impl Send for Display {}
// SAFETY: as above; what else is in it is not written after it has been made.
unsafe impl Sync for Display {}

impl Display {
    pub(in super::super) fn open(egl: &Egl, place: &Place) -> Result<Display, GpuError> {
        let client = egl.0.query_string(None, egl::EXTENSIONS).map(|s| s.to_string_lossy()).unwrap_or_default();
        let counted = client.split(' ').any(|e| e == "EGL_KHR_display_reference");
        let attributes: &[egl::Attrib] =
            if counted { &[TRACK_REFERENCES, egl::TRUE as egl::Attrib, egl::ATTRIB_NONE] } else { &[egl::ATTRIB_NONE] };
        let (platform, native) = match place {
            Place::Node { device, .. } | Place::Software { device } => {
                let devices = egl.devices();
                (PLATFORM_DEVICE, *devices.get(*device).ok_or_else(|| egl.error("eglQueryDevicesEXT"))?)
            }
            Place::Surfaceless => (PLATFORM_SURFACELESS, std::ptr::null_mut()),
        };
        // SAFETY: `native` is what the platform takes: a device that was enumerated, or null.
        let raw = unsafe { egl.0.get_platform_display(platform, native, attributes) };
        let raw = raw.map_err(|e| Denied::from(e).of("eglGetPlatformDisplay"))?;
        egl.0.initialize(raw).map_err(|e| Denied::from(e).of("eglInitialize"))?;
        let opened = Display::with_functions(egl, raw, place.to_string(), counted);
        if opened.is_err() && counted {
            // Nothing can be done about a display that cannot be closed.
            let _ = egl.0.terminate(raw);
        }
        opened
    }

    fn with_functions(egl: &Egl, raw: egl::Display, name: String, counted: bool) -> Result<Display, GpuError> {
        let extensions = egl.0.query_string(Some(raw), egl::EXTENSIONS);
        let extensions = extensions.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let missing = |extension, why| GpuError::Extension { device: name.clone(), extension, why };
        for (extension, why) in [
            ("EGL_EXT_image_dma_buf_import", "no dma-buf can be used"),
            ("EGL_KHR_image_base", "no dma-buf can be used"),
            ("EGL_KHR_surfaceless_context", "there is no rendering without a window"),
            ("EGL_KHR_no_config_context", "there is no rendering without a window"),
            ("EGL_KHR_fence_sync", "nobody would know when a frame is done"),
        ] {
            if !extensions.split(' ').any(|e| e == extension) {
                return Err(missing(extension, why));
            }
        }
        // SAFETY: the types are those of EGL_KHR_image_base and EGL_EXT_image_dma_buf_import_modifiers.
        let (create_image, destroy_image, query_modifiers) = unsafe {
            (
                egl.function::<CreateImage>("eglCreateImageKHR"),
                egl.function::<DestroyImage>("eglDestroyImageKHR"),
                egl.function::<QueryModifiers>("eglQueryDmaBufModifiersEXT"),
            )
        };
        let (Some(create_image), Some(destroy_image)) = (create_image, destroy_image) else {
            return Err(missing("EGL_KHR_image_base", "no dma-buf can be used"));
        };
        let modifiers = extensions.split(' ').any(|e| e == "EGL_EXT_image_dma_buf_import_modifiers");
        let query_modifiers = query_modifiers.filter(|_| modifiers);
        Ok(Display { egl: *egl, raw, name, extensions, counted, create_image, destroy_image, query_modifiers })
    }

    /// Node, or what stands for one.
    pub(in super::super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn has(&self, extension: &str) -> bool {
        self.extensions.split(' ').any(|e| e == extension)
    }

    /// Arrangements of a format that can be sampled as they are; `None` where the driver knows of none.
    pub(in super::super) fn modifiers(&self, fourcc: u32) -> Option<Vec<Modifier>> {
        let query = self.query_modifiers?;
        let mut modifiers = [0u64; 128];
        let mut external = [egl::FALSE; 128];
        let mut count = 0;
        // SAFETY: both arrays have room for as many as they are said to have.
        let done = unsafe {
            let most = modifiers.len() as Int;
            query(self.raw.as_ptr(), fourcc as Int, most, modifiers.as_mut_ptr(), external.as_mut_ptr(), &raw mut count)
        };
        let count = usize::try_from(count).unwrap_or(0).min(modifiers.len());
        let all = modifiers[..count].iter().zip(external).filter(|(_, external)| *external == egl::FALSE);
        (done == egl::TRUE && count > 0).then(|| all.map(|(m, _)| Modifier(*m)).collect())
    }

    /// An image of a plane.
    pub(super) fn image(&self, plane: &Plane<'_>) -> Result<Image<'_>, Denied> {
        let mut attributes = vec![
            egl::WIDTH,
            plane.width as Int,
            egl::HEIGHT,
            plane.height as Int,
            LINUX_DRM_FOURCC,
            plane.fourcc as Int,
            PLANE0_FD,
            plane.fd.as_raw_fd(),
            PLANE0_OFFSET,
            plane.offset as Int,
            PLANE0_PITCH,
            plane.stride as Int,
        ];
        if self.query_modifiers.is_some() {
            let modifier = plane.modifier.0;
            attributes.extend([PLANE0_MODIFIER_LO, modifier as u32 as Int]);
            attributes.extend([PLANE0_MODIFIER_HI, (modifier >> 32) as u32 as Int]);
        }
        attributes.push(egl::NONE);
        // SAFETY: the list ends as it must; no context and no client buffer go with this target. The descriptor stays
        // ours.
        let raw = unsafe {
            let (context, buffer) = (egl::NO_CONTEXT, std::ptr::null_mut());
            (self.create_image)(self.raw.as_ptr(), context, LINUX_DMA_BUF, buffer, attributes.as_ptr())
        };
        if raw.is_null() { Err(self.egl.denied()) } else { Ok(Image { display: self, raw }) }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        // Without counting, it would be taken away from whoever else has it; there is one a process then, and it stays.
        if self.counted {
            // Nothing can be done about a display that cannot be closed.
            let _ = self.egl.0.terminate(self.raw);
        }
    }
}

/// An EGLImage. A texture made of it keeps the memory when it is gone.
pub(super) struct Image<'a> {
    display: &'a Display,
    pub(super) raw: *mut c_void,
}

impl Drop for Image<'_> {
    fn drop(&mut self) {
        // SAFETY: it is this display's, and is destroyed once.
        unsafe { (self.display.destroy_image)(self.display.raw.as_ptr(), self.raw) };
    }
}
