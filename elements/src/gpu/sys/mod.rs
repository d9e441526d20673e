//! EGL, OpenGL ES and GBM behind safe calls; all `unsafe` of the element is here.

mod context;
mod display;
mod gbm;
mod gl;

pub(super) use context::{Context, Current};
pub(super) use display::{Display, Egl, Place, Plane};
pub(super) use gbm::{Gbm, Memory};
pub(super) use gl::{Framebuffer, Program, Texels, Texture, Uniforms};
