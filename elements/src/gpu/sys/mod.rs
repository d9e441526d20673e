//! EGL and OpenGL ES behind safe calls; all `unsafe` of the element is here.

mod context;
mod display;
mod gl;

pub(super) use context::{Context, Current};
pub(super) use display::{Display, Egl, Place, Plane};
pub(super) use gl::{Framebuffer, Program, Texels, Texture, Uniforms};
