//! A buffer as a GPU has it: a texture for each plane, and framebuffers where it is rendered into. Made once a buffer.

use std::sync::Arc;

use shrbuf::{Account, Format, Layout, MemoryKind, Modifier, Shrbuf};

use super::device::{Gone, Gpu, Names};
use super::error::{Denied, GpuError};
use super::plan::{self, Surface};
use super::sys::{Current, Plane, Texels};

/// What a GPU made of a buffer.
pub(super) struct Picture {
    names: Names,
    gone: Arc<Gone>,
    /// How rows are uploaded or downloaded, where the memory is none that a GPU reaches; for each plane.
    rows: Vec<(Texels, Surface)>,
}

impl Drop for Picture {
    fn drop(&mut self) {
        self.gone.add(std::mem::take(&mut self.names));
    }
}

impl Picture {
    /// A picture to sample.
    pub(super) fn source(gpu: &Gpu, current: &Current<'_>, buffer: &Shrbuf) -> Result<Picture, GpuError> {
        let mut picture = Picture { names: Names::default(), gone: Arc::clone(&gpu.gone), rows: Vec::new() };
        let layout = buffer.layout();
        for (plane, surface) in surfaces(gpu, layout)?.into_iter().enumerate() {
            let texture = if buffer.kind() == MemoryKind::DmaBuf {
                import(gpu, current, buffer, plane, &surface)?
            } else {
                let texels = Texels::of(surface.fourcc).ok_or(GpuError::Format(layout.format))?;
                picture.rows.push((texels, surface));
                let made = current.texture(texels, surface.width, surface.height);
                made.map_err(|denied| denied.or(|code| refused(gpu, layout, plane, &surface, code)))?
            };
            picture.names.textures.push(texture);
        }
        Ok(picture)
    }

    /// A picture to render into.
    pub(super) fn target(gpu: &Gpu, current: &Current<'_>, buffer: &Shrbuf) -> Result<Picture, GpuError> {
        let mut picture = Picture::source(gpu, current, buffer)?;
        let layout = buffer.layout();
        for (plane, &texture) in picture.names.textures.iter().enumerate() {
            let refused = |code| GpuError::Target {
                plane,
                format: layout.format,
                width: layout.width,
                height: layout.height,
                code,
                advice: "XR24 is what every GPU renders into".to_owned(),
            };
            let target = current.target(texture).map_err(|denied: Denied| denied.or(refused))?;
            picture.names.targets.push(target);
        }
        Ok(picture)
    }

    pub(super) fn textures(&self) -> &[super::sys::Texture] {
        &self.names.textures
    }

    pub(super) fn targets(&self) -> &[super::sys::Framebuffer] {
        &self.names.targets
    }

    /// Brings over what is in memory that the GPU does not reach; false where there was nothing to do. `row` is scratch
    /// memory of a row, since nothing but copies of what others may be writing is handed out; `account` counts that. GL
    /// takes the row before it returns, into memory of the driver's: a copy of its own, which nobody is told of.
    pub(super) fn upload(
        &self,
        current: &Current<'_>,
        buffer: &Shrbuf,
        row: &mut [u8],
        account: &Account,
    ) -> Result<bool, GpuError> {
        if self.rows.is_empty() {
            return Ok(false);
        }
        let guard = buffer.read()?;
        for (i, ((texels, surface), texture)) in self.rows.iter().zip(&self.names.textures).enumerate() {
            let plane = guard.plane(i);
            let bytes = &mut row[..plane.row_bytes()];
            for y in 0..surface.height {
                plane.read(y as usize, 0, bytes, account);
                current.upload(*texture, *texels, y, bytes);
            }
        }
        Ok(true)
    }

    /// Brings what has been rendered into memory that the GPU does not reach. `pixels` is scratch memory of
    /// [`downloaded`] bytes, and `account` counts what is copied from there.
    pub(super) fn download(
        &self,
        current: &Current<'_>,
        buffer: &mut Shrbuf,
        pixels: &mut [u8],
        account: &Account,
    ) -> Result<(), GpuError> {
        let mut guard = buffer.write()?;
        for (i, ((texels, surface), target)) in self.rows.iter().zip(&self.names.targets).enumerate() {
            let pixels = &mut pixels[..bytes(surface)];
            current.download(*target, surface.width, pixels);
            let mut plane = guard.plane(i);
            for (y, row) in pixels.chunks_exact_mut(4 * surface.width as usize).enumerate() {
                plane.write(y, 0, texels.pack(row), account);
            }
        }
        current.check("glReadPixels")
    }
}

/// Bytes of scratch memory for a picture that is downloaded.
pub(super) fn downloaded(layout: &Layout) -> usize {
    let surfaces = plan::surfaces(layout.format, layout.width, layout.height);
    surfaces.iter().flatten().map(bytes).max().unwrap_or(0)
}

/// Of the texels, each of four.
fn bytes(surface: &Surface) -> usize {
    4 * surface.width as usize * surface.height as usize
}

/// Bytes of the longest row of a picture.
pub(super) fn longest_row(layout: &Layout) -> usize {
    (0..layout.planes().len()).map(|p| layout.row_bytes(p) as usize).max().unwrap_or(0)
}

fn surfaces(gpu: &Gpu, layout: &Layout) -> Result<Vec<Surface>, GpuError> {
    let Layout { format, width, height, .. } = *layout;
    let surfaces = plan::surfaces(format, width, height).ok_or(GpuError::Format(format))?;
    let most = gpu.context.max_texture();
    match surfaces.iter().map(|s| s.width.max(s.height)).max() {
        Some(texels) if texels > most => Err(GpuError::Size { format, width, height, texels, most }),
        _ => Ok(surfaces),
    }
}

fn import(
    gpu: &Gpu,
    current: &Current<'_>,
    buffer: &Shrbuf,
    plane: usize,
    surface: &Surface,
) -> Result<super::sys::Texture, GpuError> {
    let layout = buffer.layout();
    let at = layout.planes()[plane];
    let segment = &buffer.segments()[usize::from(at.segment)];
    let given = Plane {
        fd: std::os::fd::AsFd::as_fd(&**segment),
        fourcc: surface.fourcc,
        width: surface.width,
        height: surface.height,
        offset: at.offset,
        stride: at.stride,
        modifier: layout.modifier.unwrap_or(Modifier::LINEAR),
    };
    if !layout.is_linear() && !plan::is_native(layout.format) {
        return Err(refused(gpu, layout, plane, surface, "its parts are not where LINEAR has them".to_owned()));
    }
    current.import(&given).map_err(|denied| denied.or(|code| refused(gpu, layout, plane, surface, code)))
}

/// The error for a plane that was not taken, with the nearest that would be.
fn refused(gpu: &Gpu, layout: &Layout, plane: usize, surface: &Surface, code: String) -> GpuError {
    let at = layout.planes()[plane];
    let modifier = layout.modifier.unwrap_or(Modifier::LINEAR);
    GpuError::Import {
        plane,
        format: layout.format,
        width: layout.width,
        height: layout.height,
        fourcc: surface.fourcc,
        stride: at.stride,
        offset: at.offset,
        modifier,
        code,
        advice: advice(&sampled(gpu, layout.format, surface.fourcc), modifier, at.stride, gpu.context.renderer()),
    }
}

/// Arrangements in which a format can be sampled. Where the driver knows of none, LINEAR is what it means by silence.
pub(super) fn sampled(gpu: &Gpu, format: Format, fourcc: u32) -> Vec<Modifier> {
    let all = gpu.context.display().modifiers(fourcc).unwrap_or_else(|| vec![Modifier::LINEAR]);
    if plan::is_native(format) { all } else { vec![Modifier::LINEAR] }
}

/// Strides that GPUs ask for, weakest first: what AMD's do is what all take.
const STRIDES: [u32; 2] = [64, 256];

fn advice(taken: &[Modifier], modifier: Modifier, stride: u32, renderer: &str) -> String {
    if !taken.contains(&modifier) {
        let list: Vec<String> = taken.iter().map(Modifier::to_string).collect();
        return format!("{renderer} takes it as {}", list.join(", "));
    }
    match STRIDES.into_iter().find(|s| !stride.is_multiple_of(*s)) {
        Some(s) => format!(
            "rows that are a multiple of {s} bytes apart are more often taken: {}",
            stride.saturating_add(s - 1) / s * s
        ),
        None => format!("{renderer} may not reach this memory; buffers of udmabuf or of a dma-heap are others to try"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_modifier_then_the_stride_then_the_memory() {
        let linear = [Modifier::LINEAR];
        assert_eq!(advice(&linear, Modifier(1 << 56 | 1), 644, "X"), "X takes it as LINEAR");
        assert!(
            advice(&linear, Modifier::LINEAR, 644, "X")
                .ends_with("multiple of 64 bytes apart are more often taken: 704")
        );
        assert!(advice(&linear, Modifier::LINEAR, 704, "X").ends_with("taken: 768"));
        assert!(advice(&linear, Modifier::LINEAR, 768, "X").contains("udmabuf"));
    }
}
