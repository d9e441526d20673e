//! Which GPU: the first that renders, or the one that was asked for.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::GpuError;
use super::sys::{Context, Current, Display, Egl, Framebuffer, Place, Program, Texture};

/// What a picture or its programs were in a context, to be deleted when that is next current somewhere.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) textures: Vec<Texture>,
    pub(super) targets: Vec<Framebuffer>,
    pub(super) programs: Vec<Program>,
}

/// The names of what is gone. A buffer may be freed on any thread; its names can go only on the context's.
#[derive(Debug, Default)]
pub(super) struct Gone(Mutex<Vec<Names>>);

impl Gone {
    pub(super) fn add(&self, names: Names) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(names);
    }
}

/// A GPU in use by one element.
pub(super) struct Gpu {
    pub(super) context: Context,
    pub(super) gone: Arc<Gone>,
}

/// The word for a renderer that runs on the CPU.
pub(super) const SOFTWARE: &str = "software";

impl Gpu {
    /// `wanted` is a render node or [`SOFTWARE`]; without, it is the first GPU, or what Mesa's own
    /// LIBGL_ALWAYS_SOFTWARE asks for.
    pub(super) fn open(wanted: Option<&str>) -> Result<Gpu, GpuError> {
        let egl = Egl::load()?;
        let software = match wanted {
            Some(name) => name == SOFTWARE,
            None => std::env::var("LIBGL_ALWAYS_SOFTWARE").is_ok_and(|v| matches!(v.as_str(), "1" | "true" | "yes")),
        };
        let fits = |place: &Place| match (place, wanted) {
            (Place::Node { path, .. }, Some(name)) => path == Path::new(name),
            (Place::Node { .. }, None) => !software,
            (Place::Software { .. }, _) => software,
            (Place::Surfaceless, None) => true,
            (Place::Surfaceless, Some(_)) => software,
        };
        let mut tried = Vec::new();
        for place in egl.places().iter().filter(|p| fits(p)) {
            match Gpu::at(&egl, place, software) {
                Ok(gpu) => {
                    let (renderer, name) = (gpu.context.renderer(), gpu.context.display().name());
                    tracing::debug!(renderer, name, fences = gpu.context.has_native_fences(), "a GPU");
                    return Ok(gpu);
                }
                Err(error) => tried.push(format!("{place}: {error}")),
            }
        }
        if tried.is_empty() {
            tried.push(format!("there is no {}", wanted.unwrap_or("render node")));
        }
        Err(GpuError::NoDevice { tried })
    }

    fn at(egl: &Egl, place: &Place, software: bool) -> Result<Gpu, GpuError> {
        let context = Context::new(Display::open(egl, place)?)?;
        if context.is_software() && !software {
            return Err(GpuError::Software { renderer: context.renderer().to_owned() });
        }
        Ok(Gpu { context, gone: Arc::default() })
    }

    /// Deletes the names of what is gone.
    pub(super) fn sweep(&self, current: &Current<'_>) {
        let mut gone = self.gone.0.lock().unwrap_or_else(PoisonError::into_inner);
        for names in gone.drain(..) {
            current.delete(&names.textures, &names.targets, &names.programs);
        }
    }
}
