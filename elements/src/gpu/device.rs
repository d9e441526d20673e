//! Which GPU: the first that renders, or the one that was asked for.

use std::fs::File;
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
    /// variables ask for.
    pub(super) fn open(wanted: Option<&str>) -> Result<Gpu, GpuError> {
        let egl = Egl::load()?;
        let forced = forced(|name| std::env::var(name).ok());
        let software = wanted.map_or(forced.is_some(), |name| name == SOFTWARE);
        // It may be a link, such as those of /dev/dri/by-path.
        let wanted_node = wanted.map(|name| std::fs::canonicalize(name).unwrap_or_else(|_| name.into()));
        let fits = |place: &Place| match (place, &wanted_node) {
            (Place::Node { path, .. }, Some(node)) => path == node,
            (Place::Node { .. }, None) => !software,
            (Place::Software { .. }, _) => software,
            (Place::Surfaceless, None) => true,
            (Place::Surfaceless, Some(_)) => software,
        };
        let places = egl.places();
        let mut tried = Vec::new();
        for place in places.iter().filter(|p| fits(p)) {
            // Mesa warns of that at best, and crashes.
            if let (Place::Node { path, .. }, Some(by)) = (place, forced) {
                return Err(GpuError::Forced { node: path.display().to_string(), by });
            }
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
            tried.push(nothing(wanted, &places));
        }
        Err(GpuError::NoDevice { tried })
    }

    fn at(egl: &Egl, place: &Place, software: bool) -> Result<Gpu, GpuError> {
        if let Place::Node { path, .. } = place {
            // EGL only says that it could not initialise.
            File::options().read(true).write(true).open(path).map_err(GpuError::Node)?;
        }
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

/// Which of Mesa's variables, of which `value` tells, has the CPU render whatever is there.
fn forced(value: impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    // As Mesa reads it.
    let is_yes = |v: String| ["1", "y", "yes", "t", "true"].iter().any(|yes| v.eq_ignore_ascii_case(yes));
    let always = value("LIBGL_ALWAYS_SOFTWARE").is_some_and(is_yes).then_some("LIBGL_ALWAYS_SOFTWARE");
    let driver = value("MESA_LOADER_DRIVER_OVERRIDE").is_some_and(|v| v == "swrast");
    always.or(driver.then_some("MESA_LOADER_DRIVER_OVERRIDE"))
}

/// Why none of `places` is what is `wanted`.
fn nothing(wanted: Option<&str>, places: &[Place]) -> String {
    let Some(name) = wanted else { return "there is no render node".to_owned() };
    let nodes = places.iter().filter(|p| matches!(p, Place::Node { .. })).map(Place::to_string).collect::<Vec<_>>();
    let known = if nodes.is_empty() { "none".to_owned() } else { nodes.join(", ") };
    if Path::new(name).exists() {
        format!("{name} is no render node that EGL knows; it knows {known}")
    } else {
        format!("there is no {name}; of render nodes EGL knows {known}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mesa_is_told_is_understood_as_mesa_does() {
        let told = |name: &'static str, value: &'static str| forced(|n| (n == name).then(|| value.to_owned()));
        let always = "LIBGL_ALWAYS_SOFTWARE";
        assert!(["1", "y", "YES", "t", "True"].into_iter().all(|yes| told(always, yes) == Some(always)));
        assert!(["", "0", "2", "no", "false", "yes "].into_iter().all(|no| told(always, no).is_none()));
        let driver = "MESA_LOADER_DRIVER_OVERRIDE";
        assert_eq!([told(driver, "swrast"), told(driver, "iris"), forced(|_| None)], [Some(driver), None, None]);
    }

    #[test]
    fn what_is_no_gpu_is_told_from_what_is_not_there() {
        let node = |path: &str| Place::Node { path: path.into(), device: 0 };
        let places = [node("/dev/dri/renderD128"), node("/dev/dri/renderD129"), Place::Surfaceless];
        let said = nothing(Some("/dev/null"), &places);
        assert_eq!(
            said,
            "/dev/null is no render node that EGL knows; it knows /dev/dri/renderD128, /dev/dri/renderD129"
        );
        assert_eq!(nothing(Some("/dev/nil"), &[]), "there is no /dev/nil; of render nodes EGL knows none");
    }
}
