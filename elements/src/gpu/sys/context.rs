//! A context, the thread it is current on, and fences between its work and everybody else's.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use glow::HasContext;
use khronos_egl as egl;

use super::super::error::{Denied, GpuError};
use super::display::Display;

type Int = egl::Int;
type CreateSync = unsafe extern "system" fn(egl::EGLDisplay, egl::Enum, *const Int) -> *mut c_void;
type DestroySync = unsafe extern "system" fn(egl::EGLDisplay, *mut c_void) -> egl::Boolean;
type ClientWait = unsafe extern "system" fn(egl::EGLDisplay, *mut c_void, Int, u64) -> Int;
type Wait = unsafe extern "system" fn(egl::EGLDisplay, *mut c_void, Int) -> Int;
type DupFence = unsafe extern "system" fn(egl::EGLDisplay, *mut c_void) -> Int;
pub(super) type ImageTarget = unsafe extern "system" fn(u32, *mut c_void);

const SYNC_FENCE: egl::Enum = 0x30F9;
const SYNC_NATIVE_FENCE: egl::Enum = 0x3144;
const SYNC_NATIVE_FENCE_FD: Int = 0x3145;
const SYNC_FLUSH_COMMANDS: Int = 1;
const CONDITION_SATISFIED: Int = 0x30F6;
const TIMEOUT_EXPIRED: Int = 0x30F5;
const RESET_NOTIFICATION: Int = 0x3138;
const LOSE_CONTEXT_ON_RESET: Int = 0x31BF;
const GL_CONTEXT_LOST: u32 = 0x0507;

struct Native {
    wait: Wait,
    dup: DupFence,
}

/// An OpenGL ES 3 context without a surface, and its display. All that was made in it goes with it.
pub(in super::super) struct Context {
    pub(super) display: Display,
    raw: egl::Context,
    pub(super) gl: glow::Context,
    pub(super) image_target: ImageTarget,
    create_sync: CreateSync,
    destroy_sync: DestroySync,
    client_wait: ClientWait,
    native: Option<Native>,
    renderer: String,
    software: bool,
    max_texture: u32,
    #[cfg(test)]
    lost: std::sync::atomic::AtomicBool,
    #[cfg(test)]
    done: std::sync::Mutex<Option<OwnedFd>>,
}

// SAFETY: a context may be made current on any thread, on one at a time (EGL 1.5, 3.7.3), which eglMakeCurrent checks;
// the functions in `gl` are called only through a `Current`, which stays on the thread where that was done.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub(in super::super) fn new(display: Display) -> Result<Context, GpuError> {
        let egl = display.egl;
        let failed = |call: &'static str| move |e: egl::Error| Denied::from(e).of(call);
        egl.0.bind_api(egl::OPENGL_ES_API).map_err(failed("eglBindAPI"))?;
        let robust = [egl::CONTEXT_CLIENT_VERSION, 3, RESET_NOTIFICATION, LOSE_CONTEXT_ON_RESET, egl::NONE];
        let plain = [egl::CONTEXT_CLIENT_VERSION, 3, egl::NONE];
        let attributes: &[Int] = if display.has("EGL_EXT_create_context_robustness") { &robust } else { &plain };
        // SAFETY: no configuration is what EGL_KHR_no_config_context allows, which the display has.
        let none = unsafe { egl::Config::from_ptr(std::ptr::null_mut()) };
        let raw = egl.0.create_context(display.raw, none, None, attributes).map_err(failed("eglCreateContext"))?;
        let undo = Made { display: &display, raw };
        egl.0.make_current(display.raw, None, None, Some(raw)).map_err(failed("eglMakeCurrent"))?;

        let extension = |extension| GpuError::Extension {
            device: display.name().to_owned(),
            extension,
            why: "frames cannot be bound as textures, or nobody would know when they are done",
        };
        // SAFETY: each type is that of its extension.
        let (image_target, create_sync, destroy_sync, client_wait, wait, dup) = unsafe {
            (
                egl.function::<ImageTarget>("glEGLImageTargetTexture2DOES"),
                egl.function::<CreateSync>("eglCreateSyncKHR"),
                egl.function::<DestroySync>("eglDestroySyncKHR"),
                egl.function::<ClientWait>("eglClientWaitSyncKHR"),
                egl.function::<Wait>("eglWaitSyncKHR"),
                egl.function::<DupFence>("eglDupNativeFenceFDANDROID"),
            )
        };
        let image_target = image_target.ok_or_else(|| extension("GL_OES_EGL_image"))?;
        let (Some(create_sync), Some(destroy_sync), Some(client_wait)) = (create_sync, destroy_sync, client_wait)
        else {
            return Err(extension("EGL_KHR_fence_sync"));
        };
        let both = display.has("EGL_ANDROID_native_fence_sync") && display.has("EGL_KHR_wait_sync");
        let native = wait.zip(dup).filter(|_| both).map(|(wait, dup)| Native { wait, dup });

        // SAFETY: a context is current, and EGL finds its functions.
        let gl = unsafe {
            glow::Context::from_loader_function(|name| {
                egl.0.get_proc_address(name).map_or(std::ptr::null(), |f| f as *const c_void)
            })
        };
        if !gl.supported_extensions().contains("GL_OES_EGL_image") {
            return Err(extension("GL_OES_EGL_image"));
        }
        // SAFETY: the context is current. Dithering, which is on unless it is turned off, would make values inexact.
        let (renderer, max_texture) = unsafe {
            gl.disable(glow::DITHER);
            (gl.get_parameter_string(glow::RENDERER), gl.get_parameter_i32(glow::MAX_TEXTURE_SIZE))
        };
        let software = ["llvmpipe", "softpipe", "SwiftShader"].iter().any(|s| renderer.contains(s));
        let max_texture = u32::try_from(max_texture).unwrap_or(2048);
        egl.0.make_current(display.raw, None, None, None).map_err(failed("eglMakeCurrent"))?;
        std::mem::forget(undo);
        Ok(Context {
            display,
            raw,
            gl,
            image_target,
            create_sync,
            destroy_sync,
            client_wait,
            native,
            renderer,
            software,
            max_texture,
            #[cfg(test)]
            lost: std::sync::atomic::AtomicBool::new(false),
            #[cfg(test)]
            done: std::sync::Mutex::new(None),
        })
    }

    /// What the driver calls the GPU.
    pub(in super::super) fn renderer(&self) -> &str {
        &self.renderer
    }

    /// True where the renderer is a program on the CPU.
    pub(in super::super) fn is_software(&self) -> bool {
        self.software
    }

    /// Texels of a side that a texture may have.
    pub(in super::super) fn max_texture(&self) -> u32 {
        self.max_texture
    }

    pub(in super::super) fn display(&self) -> &Display {
        &self.display
    }

    /// True where fences go in and out as sync_files.
    pub(in super::super) fn has_native_fences(&self) -> bool {
        self.native.is_some()
    }

    /// Makes it current on this thread, if it is not; it stays so until [`Context::leave`].
    pub(in super::super) fn enter(&self) -> Result<Current<'_>, GpuError> {
        let egl = &self.display.egl.0;
        if egl.get_current_context() != Some(self.raw) {
            let made = egl.make_current(self.display.raw, None, None, Some(self.raw));
            made.map_err(|e| Denied::from(e).of("eglMakeCurrent"))?;
        }
        Ok(Current { context: self, thread: PhantomData })
    }

    /// From now on this context is as after a reset of the GPU, which no renderer on the CPU has.
    #[cfg(test)]
    pub(in super::super) fn lose(&self) {
        self.lost.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// What is submitted next is done when this sync_file says so, as a GPU's work is some time later. A renderer on the
    /// CPU has done it by then.
    #[cfg(test)]
    pub(in super::super) fn done_with(&self, fence: OwnedFd) {
        *self.done.lock().unwrap() = Some(fence);
    }

    /// Gives the context up, so that another thread can have it.
    pub(in super::super) fn leave(&self) {
        if self.display.egl.0.get_current_context() == Some(self.raw) {
            // A thread without a context is what a failure would leave too.
            let _ = self.display.egl.0.make_current(self.display.raw, None, None, None);
        }
    }

    /// Calls `work` with the context current, and gives it up again.
    pub(in super::super) fn with<T, E: From<GpuError>>(
        &self,
        work: impl FnOnce(&Current<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let done = self.enter().map_err(E::from).and_then(|current| work(&current));
        self.leave();
        done
    }

    fn sync(&self, kind: egl::Enum, attributes: &[Int]) -> Result<EglSync<'_>, GpuError> {
        // SAFETY: the list ends with EGL_NONE and is what this kind of sync takes.
        let raw = unsafe { (self.create_sync)(self.display.raw.as_ptr(), kind, attributes.as_ptr()) };
        if raw.is_null() { Err(self.display.egl.error("eglCreateSyncKHR")) } else { Ok(EglSync { context: self, raw }) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.leave();
        // Fails only where the display is gone, and the context with it.
        let _ = self.display.egl.0.destroy_context(self.display.raw, self.raw);
    }
}

/// A context that is not yet a [`Context`].
struct Made<'a> {
    display: &'a Display,
    raw: egl::Context,
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        let egl = &self.display.egl.0;
        // As in the drop of `Context`.
        let _ = egl.make_current(self.display.raw, None, None, None);
        let _ = egl.destroy_context(self.display.raw, self.raw);
    }
}

struct EglSync<'a> {
    context: &'a Context,
    raw: *mut c_void,
}

impl Drop for EglSync<'_> {
    fn drop(&mut self) {
        // SAFETY: it is this display's, and is destroyed once.
        unsafe { (self.context.destroy_sync)(self.context.display.raw.as_ptr(), self.raw) };
    }
}

/// A context that is current on this thread; GL's calls are its methods. It does not leave the thread.
pub(in super::super) struct Current<'a> {
    pub(super) context: &'a Context,
    thread: PhantomData<*const ()>,
}

impl Current<'_> {
    /// What comes from now on waits for a sync_file; the GPU does, not this thread. For native fences.
    pub(in super::super) fn wait_for(&self, fence: OwnedFd) -> Result<(), GpuError> {
        let Some(native) = &self.context.native else { return Ok(()) };
        let attributes = [SYNC_NATIVE_FENCE_FD, fence.as_raw_fd(), egl::NONE];
        let sync = self.context.sync(SYNC_NATIVE_FENCE, &attributes).map_err(|e| self.lost_or(e))?;
        // The sync has taken the descriptor over.
        let _ = fence.into_raw_fd();
        // SAFETY: the sync is this display's, and a context is current.
        let done = unsafe { (native.wait)(self.context.display.raw.as_ptr(), sync.raw, 0) };
        if done == egl::TRUE as Int {
            return Ok(());
        }
        Err(self.lost_or(self.context.display.egl.error("eglWaitSyncKHR")))
    }

    /// Hands all work so far to the GPU: a sync_file that signals when it is done, or `None` where the driver has none
    /// and the work is done already, for which this thread has waited.
    pub(in super::super) fn submit(&self, limit: Duration) -> Result<Option<OwnedFd>, GpuError> {
        let context = self.context;
        let display = context.display.raw.as_ptr();
        if let Some(native) = &context.native {
            let sync = context.sync(SYNC_NATIVE_FENCE, &[egl::NONE]).map_err(|e| self.lost_or(e))?;
            // The descriptor exists once the work is on its way.
            // SAFETY: the context is current.
            unsafe { context.gl.flush() };
            // SAFETY: the sync is this display's.
            let fd = unsafe { (native.dup)(display, sync.raw) };
            if fd < 0 {
                return Err(self.lost_or(context.display.egl.error("eglDupNativeFenceFDANDROID")));
            }
            // SAFETY: the descriptor was made for us by the call, and nobody else has seen it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            #[cfg(test)]
            let fd = context.done.lock().unwrap().take().unwrap_or(fd);
            return Ok(Some(fd));
        }
        let sync = context.sync(SYNC_FENCE, &[egl::NONE]).map_err(|e| self.lost_or(e))?;
        let ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the sync is this display's.
        match unsafe { (context.client_wait)(display, sync.raw, SYNC_FLUSH_COMMANDS, ns) } {
            CONDITION_SATISFIED => Ok(None),
            TIMEOUT_EXPIRED => Err(self.lost_or(GpuError::Stalled(limit))),
            _ => Err(self.lost_or(context.display.egl.error("eglClientWaitSyncKHR"))),
        }
    }

    /// GL's errors since the last time, as one.
    pub(in super::super) fn check(&self, call: &'static str) -> Result<(), GpuError> {
        self.error().map_or(Ok(()), |denied| Err(denied.of(call)))
    }

    /// The first of GL's errors since the last time.
    pub(super) fn error(&self) -> Option<Denied> {
        #[cfg(test)]
        if self.context.lost.load(std::sync::atomic::Ordering::Relaxed) {
            return Some(Denied::Lost);
        }
        // SAFETY: the context is current.
        match unsafe { self.context.gl.get_error() } {
            glow::NO_ERROR => None,
            GL_CONTEXT_LOST => Some(Denied::Lost),
            code => Some(Denied::Code(super::gl::error_name(code))),
        }
    }

    /// `error`, unless the context is lost, which is why then.
    pub(super) fn lost_or(&self, error: GpuError) -> GpuError {
        match self.error() {
            Some(Denied::Lost) => GpuError::Lost,
            _ => error,
        }
    }

    /// As [`Current::lost_or`].
    pub(super) fn lost_or_code(&self, code: String) -> Denied {
        self.error().filter(|denied| *denied == Denied::Lost).unwrap_or(Denied::Code(code))
    }
}
