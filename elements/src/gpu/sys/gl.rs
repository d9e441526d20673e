//! GL's side: textures of planes, targets, programs, draws.
//!
//! Names are plain numbers that mean something in the context that made them. One that goes stale makes GL report an
//! error, or draw what it should not; it never reaches memory that is not its own.

use glow::HasContext;
use shrbuf_pipeline::Rect;

use super::super::error::{Denied, GpuError};
use super::context::Current;
use super::display::Plane;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Texture(glow::NativeTexture);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Framebuffer(glow::NativeFramebuffer);

/// What a program is told for each picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) struct Uniforms {
    /// Position in the source by that in the target: for each of x and y the factors of x, of y, and of 1.
    pub(in super::super) map: [[f32; 3]; 2],
    /// First and last column and row of the source that may be looked at: left, top, right, bottom.
    pub(in super::super) bounds: [i32; 4],
    /// Columns of the matrix that makes code values of the target out of those of the source.
    pub(in super::super) matrix: [f32; 9],
    /// What is added then.
    pub(in super::super) offset: [f32; 3],
    /// What the picture counts, over what it is drawn on.
    pub(in super::super) opacity: f32,
}

#[derive(Debug)]
struct Locations {
    map_x: Option<glow::NativeUniformLocation>,
    map_y: Option<glow::NativeUniformLocation>,
    bounds: Option<glow::NativeUniformLocation>,
    matrix: Option<glow::NativeUniformLocation>,
    offset: Option<glow::NativeUniformLocation>,
    opacity: Option<glow::NativeUniformLocation>,
}

/// A linked program that samples `plane0`, `plane1` and `plane2`.
#[derive(Debug)]
pub(in super::super) struct Program {
    raw: glow::NativeProgram,
    locations: Locations,
}

/// How GL is to understand bytes that are uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Texels {
    storage: u32,
    format: u32,
    kind: u32,
    bytes: usize,
    blue_first: bool,
    opaque: bool,
}

impl Texels {
    /// Of a DRM format of one, two or four bytes a texel.
    pub(in super::super) fn of(fourcc: u32) -> Option<Texels> {
        let bytes = |storage, format, bytes| Texels {
            storage,
            format,
            kind: glow::UNSIGNED_BYTE,
            bytes,
            blue_first: false,
            opaque: false,
        };
        let four = |blue_first, opaque| Texels { blue_first, opaque, ..bytes(glow::RGBA8, glow::RGBA, 4) };
        Some(match &fourcc.to_le_bytes() {
            b"R8  " => bytes(glow::R8, glow::RED, 1),
            b"GR88" => bytes(glow::RG8, glow::RG, 2),
            b"AR24" => four(true, false),
            b"XR24" => four(true, true),
            b"AB24" => four(false, false),
            b"XB24" => four(false, true),
            b"RG16" => Texels { kind: glow::UNSIGNED_SHORT_5_6_5, ..bytes(glow::RGB565, glow::RGB, 2) },
            _ => return None,
        })
    }

    /// Makes texels as they are downloaded, of which GL knows but RGBA for sure, into what they are, packed at the front.
    pub(in super::super) fn pack(self, row: &mut [u8]) -> &mut [u8] {
        let texels = row.len() / 4;
        for at in 0..texels {
            let [r, g, b, a] = [0, 1, 2, 3].map(|c| row[4 * at + c]);
            match self.bytes {
                1 => row[at] = r,
                2 if self.storage == glow::RGB565 => {
                    let [r, g, b] = [(r, 31), (g, 63), (b, 31)].map(|(c, most)| (u16::from(c) * most + 127) / 255);
                    row[2 * at..][..2].copy_from_slice(&(r << 11 | g << 5 | b).to_le_bytes());
                }
                2 => row[2 * at..][..2].copy_from_slice(&[r, g]),
                _ if self.blue_first => row[4 * at..][..4].copy_from_slice(&[b, g, r, a]),
                _ => {}
            }
        }
        &mut row[..texels * self.bytes]
    }
}

pub(super) fn error_name(code: u32) -> String {
    match code {
        glow::INVALID_ENUM => "GL_INVALID_ENUM".to_owned(),
        glow::INVALID_VALUE => "GL_INVALID_VALUE".to_owned(),
        glow::INVALID_OPERATION => "GL_INVALID_OPERATION".to_owned(),
        glow::INVALID_FRAMEBUFFER_OPERATION => "GL_INVALID_FRAMEBUFFER_OPERATION".to_owned(),
        glow::OUT_OF_MEMORY => "GL_OUT_OF_MEMORY".to_owned(),
        other => format!("GL error {other:#06x}"),
    }
}

// SAFETY of every block below: a `Current` is proof that its context is current on this thread, which is what GL asks
// for; the names that are passed are ours and checked by GL; slices carry their own lengths.
impl Current<'_> {
    /// A texture that is this plane of a dma-buf.
    pub(in super::super) fn import(&self, plane: &Plane<'_>) -> Result<Texture, Denied> {
        let gl = &self.context.gl;
        let image = self.context.display.image(plane)?;
        // SAFETY: see above; the image is alive.
        unsafe {
            let texture = gl.create_texture().map_err(|why| self.lost_or_code(why))?;
            gl.bind_texture(glow::TEXTURE_2D, Some(texture));
            (self.context.image_target)(glow::TEXTURE_2D, image.raw);
            if let Some(denied) = self.error() {
                gl.delete_texture(texture);
                return Err(denied);
            }
            self.plain();
            Ok(Texture(texture))
        }
    }

    /// A texture of our own, to be uploaded into.
    pub(in super::super) fn texture(&self, texels: Texels, width: u32, height: u32) -> Result<Texture, Denied> {
        let gl = &self.context.gl;
        // SAFETY: see above.
        unsafe {
            let texture = gl.create_texture().map_err(|why| self.lost_or_code(why))?;
            gl.bind_texture(glow::TEXTURE_2D, Some(texture));
            gl.tex_storage_2d(glow::TEXTURE_2D, 1, texels.storage, width as i32, height as i32);
            if texels.blue_first {
                gl.tex_parameter_i32(glow::TEXTURE_2D, glow::TEXTURE_SWIZZLE_R, glow::BLUE as i32);
                gl.tex_parameter_i32(glow::TEXTURE_2D, glow::TEXTURE_SWIZZLE_B, glow::RED as i32);
            }
            if texels.opaque {
                gl.tex_parameter_i32(glow::TEXTURE_2D, glow::TEXTURE_SWIZZLE_A, glow::ONE as i32);
            }
            self.plain();
            match self.error() {
                None => Ok(Texture(texture)),
                Some(denied) => {
                    gl.delete_texture(texture);
                    Err(denied)
                }
            }
        }
    }

    /// Texels as they are: a texture without mipmaps is complete only so.
    fn plain(&self) {
        let gl = &self.context.gl;
        // SAFETY: see above.
        unsafe {
            gl.tex_parameter_i32(glow::TEXTURE_2D, glow::TEXTURE_MIN_FILTER, glow::NEAREST as i32);
            gl.tex_parameter_i32(glow::TEXTURE_2D, glow::TEXTURE_MAG_FILTER, glow::NEAREST as i32);
            gl.tex_parameter_i32(glow::TEXTURE_2D, glow::TEXTURE_WRAP_S, glow::CLAMP_TO_EDGE as i32);
            gl.tex_parameter_i32(glow::TEXTURE_2D, glow::TEXTURE_WRAP_T, glow::CLAMP_TO_EDGE as i32);
        }
    }

    /// Row `y` of a texture of our own. GL copies the bytes before it returns.
    pub(in super::super) fn upload(&self, texture: Texture, texels: Texels, y: u32, row: &[u8]) {
        let gl = &self.context.gl;
        let (y, width) = (y as i32, (row.len() / texels.bytes) as i32);
        // SAFETY: see above; rows are packed, so that GL reads `row` and no more.
        unsafe {
            gl.bind_texture(glow::TEXTURE_2D, Some(texture.0));
            gl.pixel_store_i32(glow::UNPACK_ALIGNMENT, 1);
            let pixels = glow::PixelUnpackData::Slice(Some(row));
            gl.tex_sub_image_2d(glow::TEXTURE_2D, 0, 0, y, width, 1, texels.format, texels.kind, pixels);
        }
    }

    /// The texels of a framebuffer as RGBA, from the first row, into all of `pixels`. **Blocks** until they are rendered.
    pub(in super::super) fn download(&self, from: Framebuffer, width: u32, pixels: &mut [u8]) {
        let gl = &self.context.gl;
        let height = pixels.len() / (4 * width as usize).max(1);
        // SAFETY: see above; rows are packed, and no more than `pixels` has room for, so that GL writes there alone.
        unsafe {
            gl.bind_framebuffer(glow::FRAMEBUFFER, Some(from.0));
            gl.pixel_store_i32(glow::PACK_ALIGNMENT, 1);
            let pixels = glow::PixelPackData::Slice(Some(pixels));
            gl.read_pixels(0, 0, width as i32, height as i32, glow::RGBA, glow::UNSIGNED_BYTE, pixels);
        }
    }

    /// A framebuffer that renders into `texture`, or the reason why not.
    pub(in super::super) fn target(&self, texture: Texture) -> Result<Framebuffer, Denied> {
        let gl = &self.context.gl;
        // SAFETY: see above.
        unsafe {
            let framebuffer = gl.create_framebuffer().map_err(|why| self.lost_or_code(why))?;
            gl.bind_framebuffer(glow::FRAMEBUFFER, Some(framebuffer));
            let (at, kind) = (glow::COLOR_ATTACHMENT0, glow::TEXTURE_2D);
            gl.framebuffer_texture_2d(glow::FRAMEBUFFER, at, kind, Some(texture.0), 0);
            let status = gl.check_framebuffer_status(glow::FRAMEBUFFER);
            let denied = self.error();
            if status == glow::FRAMEBUFFER_COMPLETE && denied.is_none() {
                return Ok(Framebuffer(framebuffer));
            }
            gl.delete_framebuffer(framebuffer);
            Err(match (status, denied) {
                (_, Some(Denied::Lost)) => Denied::Lost,
                (glow::FRAMEBUFFER_COMPLETE, Some(denied)) => denied,
                (glow::FRAMEBUFFER_UNSUPPORTED, _) => Denied::Code("GL_FRAMEBUFFER_UNSUPPORTED".to_owned()),
                (glow::FRAMEBUFFER_INCOMPLETE_ATTACHMENT, _) => {
                    Denied::Code("GL_FRAMEBUFFER_INCOMPLETE_ATTACHMENT".to_owned())
                }
                (other, _) => Denied::Code(format!("framebuffer status {other:#06x}")),
            })
        }
    }

    pub(in super::super) fn delete(&self, textures: &[Texture], framebuffers: &[Framebuffer], programs: &[Program]) {
        let gl = &self.context.gl;
        // SAFETY: see above.
        unsafe {
            framebuffers.iter().for_each(|f| gl.delete_framebuffer(f.0));
            textures.iter().for_each(|t| gl.delete_texture(t.0));
            programs.iter().for_each(|p| gl.delete_program(p.raw));
        }
    }

    /// Compiles and links; its samplers are the first three texture units.
    pub(in super::super) fn program(&self, vertex: &str, fragment: &str) -> Result<Program, GpuError> {
        let gl = &self.context.gl;
        let failed = |why: String| self.lost_or(GpuError::Shader(why));
        // SAFETY: see above.
        unsafe {
            let raw = gl.create_program().map_err(failed)?;
            for (kind, source) in [(glow::VERTEX_SHADER, vertex), (glow::FRAGMENT_SHADER, fragment)] {
                let shader = gl.create_shader(kind).map_err(|why| {
                    gl.delete_program(raw);
                    failed(why)
                })?;
                gl.shader_source(shader, source);
                gl.compile_shader(shader);
                gl.attach_shader(raw, shader);
                let log = (!gl.get_shader_compile_status(shader)).then(|| gl.get_shader_info_log(shader));
                // It lives on as long as the program has it.
                gl.delete_shader(shader);
                if let Some(log) = log {
                    gl.delete_program(raw);
                    return Err(failed(log));
                }
            }
            gl.link_program(raw);
            if !gl.get_program_link_status(raw) {
                let log = gl.get_program_info_log(raw);
                gl.delete_program(raw);
                return Err(failed(log));
            }
            gl.use_program(Some(raw));
            for (unit, name) in ["plane0", "plane1", "plane2"].into_iter().enumerate() {
                gl.uniform_1_i32(gl.get_uniform_location(raw, name).as_ref(), unit as i32);
            }
            let find = |name| gl.get_uniform_location(raw, name);
            let locations = Locations {
                map_x: find("map_x"),
                map_y: find("map_y"),
                bounds: find("bounds"),
                matrix: find("matrix"),
                offset: find("offset"),
                opacity: find("opacity"),
            };
            Ok(Program { raw, locations })
        }
    }

    /// What `program` is told from now on.
    pub(in super::super) fn set(&self, program: &Program, uniforms: &Uniforms) {
        let (gl, at) = (&self.context.gl, &program.locations);
        let [x, y] = uniforms.map;
        let [left, top, right, bottom] = uniforms.bounds;
        let [r, g, b] = uniforms.offset;
        // SAFETY: see above.
        unsafe {
            gl.use_program(Some(program.raw));
            gl.uniform_3_f32(at.map_x.as_ref(), x[0], x[1], x[2]);
            gl.uniform_3_f32(at.map_y.as_ref(), y[0], y[1], y[2]);
            gl.uniform_4_i32(at.bounds.as_ref(), left, top, right, bottom);
            gl.uniform_matrix_3_f32_slice(at.matrix.as_ref(), false, &uniforms.matrix);
            gl.uniform_3_f32(at.offset.as_ref(), r, g, b);
            gl.uniform_1_f32(at.opacity.as_ref(), uniforms.opacity);
        }
    }

    /// Begins to render into part of a framebuffer.
    pub(in super::super) fn render_into(&self, target: Framebuffer, part: Rect) {
        let gl = &self.context.gl;
        // SAFETY: see above.
        unsafe {
            gl.bind_framebuffer(glow::FRAMEBUFFER, Some(target.0));
            gl.viewport(part.x as i32, part.y as i32, part.width as i32, part.height as i32);
        }
    }

    /// Fills the framebuffer that is rendered into.
    pub(in super::super) fn clear(&self, [r, g, b, a]: [f32; 4]) {
        let gl = &self.context.gl;
        // SAFETY: see above.
        unsafe {
            gl.clear_color(r, g, b, a);
            gl.clear(glow::COLOR_BUFFER_BIT);
        }
    }

    /// From now on pictures with alpha, by which they have been multiplied, let through what they are drawn over.
    pub(in super::super) fn blend(&self, on: bool) {
        let gl = &self.context.gl;
        // SAFETY: see above.
        unsafe {
            if on {
                gl.enable(glow::BLEND);
                gl.blend_func(glow::ONE, glow::ONE_MINUS_SRC_ALPHA);
            } else {
                gl.disable(glow::BLEND);
            }
        }
    }

    /// Draws one picture by one program, whose vertex shader makes triangles of `vertices`, over the part that is rendered
    /// into.
    pub(in super::super) fn draw(&self, program: &Program, textures: &[Texture], vertices: i32) {
        let gl = &self.context.gl;
        // SAFETY: see above; vertices are made by the vertex shader, there is no array to read.
        unsafe {
            gl.use_program(Some(program.raw));
            for (unit, texture) in textures.iter().enumerate() {
                gl.active_texture(glow::TEXTURE0 + unit as u32);
                gl.bind_texture(glow::TEXTURE_2D, Some(texture.0));
            }
            gl.draw_arrays(glow::TRIANGLES, 0, vertices);
        }
    }
}
