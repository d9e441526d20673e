//! Which GPU: the first that renders, or the one that was asked for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::error::GpuError;
use super::sys::{Context, Current, Display, Egl, Framebuffer, Gbm, Place, Program, Texture};

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
    /// Opened when it is first needed; else why there is none.
    gbm: OnceLock<Result<Mutex<Gbm>, Vec<String>>>,
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
        Ok(Gpu { context, gone: Arc::default(), gbm: OnceLock::new() })
    }

    /// Memory of its own; of a renderer on the CPU, which has none, that of the first card that gives some.
    pub(super) fn memory(&self) -> Result<MutexGuard<'_, Gbm>, GpuError> {
        let nodes = || if self.context.is_software() { cards() } else { vec![self.context.display().name().into()] };
        let gbm = self.gbm.get_or_init(|| {
            let mut tried = Vec::new();
            for node in nodes() {
                // Many a device can be opened and gives nothing: displays without memory, accelerators.
                match Gbm::open(&node).and_then(|gbm| gbm.linear(64, 8, XR24).map(|_| gbm)) {
                    Ok(gbm) => return Ok(Mutex::new(gbm)),
                    Err(error) => tried.push(error.to_string()),
                }
            }
            Err(tried)
        });
        let gbm = gbm.as_ref().map_err(|tried| GpuError::NoGbm { tried: tried.clone() })?;
        Ok(gbm.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Deletes the names of what is gone.
    pub(super) fn sweep(&self, current: &Current<'_>) {
        let mut gone = self.gone.0.lock().unwrap_or_else(PoisonError::into_inner);
        for names in gone.drain(..) {
            current.delete(&names.textures, &names.targets, &names.programs);
        }
    }
}

const XR24: u32 = u32::from_le_bytes(*b"XR24");

fn cards() -> Vec<PathBuf> {
    let nodes = std::fs::read_dir("/dev/dri").into_iter().flatten().flatten().map(|n| n.path());
    let is_card = |n: &PathBuf| n.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"card"));
    let mut cards: Vec<PathBuf> = nodes.filter(is_card).collect();
    cards.sort();
    cards
}
