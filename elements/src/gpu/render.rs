//! One frame: what the inputs have becomes one picture in one buffer, and fences say when.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use shrbuf::{Access, Account, Fence, Format, ImportCache, MemoryKind, Shrbuf};
use shrbuf_pipeline::{Colorimetry, Frame, Rect, Size, Stream};

use super::device::{Gone, Gpu, Names};
use super::error::GpuError;
use super::geometry::{Place, Turn, inside, whole};
use super::picture::Picture;
use super::plan;
use super::shader::{self, Sampler};
use super::sys::{Current, Program, Uniforms};
use crate::fences;
use crate::image::color::{Affine, made_of};
use crate::image::shape::Shape;

/// Longest time for a frame: the kernel's own drivers give a GPU up as hung after ten seconds at most.
const LIMIT: Duration = Duration::from_secs(20);

/// Hides all that is below.
pub(super) const OPAQUE: u16 = u16::MAX;

/// What is done with an input's pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    /// The part that is seen; `None` for all.
    pub(super) part: Option<Rect>,
    pub(super) turn: Turn,
    /// The part of the output that it fills; `None` for all.
    pub(super) place: Option<Place>,
    /// How much of what is below it hides, of [`OPAQUE`].
    pub(super) alpha: u16,
    /// What is seen is to fill a size that was asked for.
    pub(super) fills: bool,
    pub(super) smooth: bool,
}

impl Setting {
    /// Pictures as they are.
    pub(super) const PLAIN: Setting =
        Setting { part: None, turn: Turn::NONE, place: None, alpha: OPAQUE, fills: false, smooth: true };

    /// True where pictures keep their size and every pixel its place.
    pub(super) fn is_plain(&self) -> bool {
        self.part.is_none() && self.place.is_none() && self.turn == Turn::NONE && !self.fills
    }

    /// What is seen of a frame of `size` that has `crop`. Without geometry a crop goes on with the frame.
    fn seen_of(&self, size: Size, crop: Option<Rect>) -> Rect {
        let crop = crop.filter(|c| !self.is_plain() && inside(*c, size));
        self.part.or(crop).unwrap_or(whole(size))
    }

    /// True where pictures, of `format` if that is known, let something of what is below them through.
    pub(super) fn shows_through(&self, format: Option<Format>) -> bool {
        self.alpha != OPAQUE || matches!(format, Some(Format::Ar24 | Format::Ab24))
    }

    /// The size of pictures that need no scaling for a target of `size`; not for those of which a part is seen.
    pub(super) fn unscaled(&self, size: Size) -> Option<Size> {
        let place = self.place.map_or(size, Place::size);
        // Two turns by the same angle are none or a half one, which leave the size alone.
        self.part.is_none().then(|| self.turn.of(place))
    }

    /// The size of what is seen of a picture of `size`.
    pub(super) fn seen(&self, size: Size) -> Size {
        self.turn.of(self.part.map_or(size, |p| Size::new(p.width, p.height)))
    }
}

/// An input while it runs.
pub(super) struct Input {
    pub(super) stream: Stream,
    pub(super) setting: Setting,
    /// For frames of which all is seen, unless they have a crop of their own.
    programs: Programs,
    /// For frames of which something is seen that has to be scaled, where all of them has not.
    scaling: Option<Programs>,
    /// What the programs have been told.
    told: Option<(Colorimetry, Colorimetry, Rect)>,
    /// The last frame is one for `scaling`.
    scales: bool,
    /// A row on its way to the GPU, where its memory is none that a GPU reaches.
    row: Vec<u8>,
    uploaded: Account,
}

/// What the programs make.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) format: Format,
    shape: Shape,
    pub(super) size: Size,
}

impl Target {
    pub(super) fn of(format: Format, size: Size) -> Result<Target, GpuError> {
        let shape = plan::shape(format).ok_or(GpuError::Format(format))?;
        Ok(Target { format, shape, size })
    }

    fn planes(&self) -> usize {
        self.format.planes().len()
    }

    /// Where a part of the picture lies in plane `plane`, in texels.
    fn part(&self, plane: usize, part: Rect) -> Rect {
        if matches!(self.shape, Shape::Rgb { bytes: 3, .. }) {
            return Rect { x: part.x * 3, width: part.width * 3, ..part };
        }
        let s = self.format.planes()[plane];
        Rect {
            x: part.x / s.hsub,
            y: part.y / s.vsub,
            width: part.width.div_ceil(s.hsub),
            height: part.height.div_ceil(s.vsub),
        }
    }

    /// Multiples of pixels at which a part may begin: chroma is not shared out.
    pub(super) fn grid(&self) -> Size {
        let planes = self.format.planes().iter();
        planes.fold(Size::new(1, 1), |g, p| Size::new(g.width.max(p.hsub), g.height.max(p.vsub)))
    }

    /// Whether what is below can show through: each plane of YUV is a picture of its own, without alpha.
    pub(super) fn blends(&self) -> bool {
        matches!(self.shape, Shape::Rgb { bytes: 4, .. } | Shape::Rgb565)
    }

    /// Black, as the texels of a plane.
    fn black(&self, plane: usize, color: Colorimetry) -> [f32; 4] {
        let [y, u, v] = if plan::is_yuv(self.shape) { Affine::from_rgb(color).offset } else { [0.0; 3] };
        let [y, u, v] = [y as f32, u as f32, v as f32];
        match (self.shape, plane) {
            (Shape::Packed422 { y: at, u: at_u, v: at_v }, _) => {
                let mut bytes = [0.0; 4];
                (bytes[at], bytes[at + 2], bytes[at_u], bytes[at_v]) = (y, y, u, v);
                [bytes[2], bytes[1], bytes[0], bytes[3]]
            }
            // U and V of black are the same.
            (_, 1 | 2) => [u, v, 0.0, 1.0],
            _ => [y, 0.0, 0.0, 1.0],
        }
    }
}

/// One program for each plane of the target.
struct Programs {
    all: Vec<Program>,
    gone: Arc<Gone>,
}

impl Drop for Programs {
    fn drop(&mut self) {
        self.gone.add(Names { programs: std::mem::take(&mut self.all), ..Names::default() });
    }
}

impl Programs {
    fn new(
        gpu: &Gpu,
        current: &Current<'_>,
        from: Shape,
        target: &Target,
        (sampler, opaque): (Sampler, bool),
    ) -> Result<Self, GpuError> {
        let mut programs = Programs { all: Vec::new(), gone: Arc::clone(&gpu.gone) };
        for plane in 0..target.planes() {
            let fragment = shader::fragment(from, target.shape, plane, sampler, opaque);
            programs.all.push(current.program(shader::VERTEX, &fragment)?);
        }
        Ok(programs)
    }
}

impl Input {
    /// Compiles what `stream` needs to become `target`.
    pub(super) fn new(
        gpu: &Gpu,
        current: &Current<'_>,
        stream: Stream,
        setting: Setting,
        target: &Target,
        uploads: (Account, usize),
    ) -> Result<Input, GpuError> {
        let from = plan::shape(stream.format).ok_or(GpuError::Format(stream.format))?;
        let place = setting.place.unwrap_or(Place::all(target.size));
        let scaled = setting.seen(stream.size) != place.size();
        // Without scaling there is nothing between pixels, and one fetch does.
        let sampler = match scaled && setting.smooth {
            _ if setting.is_plain() && stream.size == target.size => Sampler::Same,
            true => Sampler::Bilinear,
            false => Sampler::Nearest,
        };
        let compile = |sampler| Programs::new(gpu, current, from, target, (sampler, setting.alpha == OPAQUE));
        let programs = compile(sampler)?;
        // A crop that comes with a frame may need scaling where all of it does not.
        let may_scale = setting.smooth && !scaled && setting.part.is_none() && !setting.is_plain();
        let scaling = may_scale.then(|| compile(Sampler::Bilinear)).transpose()?;
        let (uploaded, row) = uploads;
        Ok(Input { stream, setting, programs, scaling, told: None, scales: false, row: vec![0; row], uploaded })
    }

    /// Those of the frame that was told of last.
    fn programs(&self) -> &[Program] {
        let scaling = self.scaling.as_ref().filter(|_| self.scales);
        &scaling.unwrap_or(&self.programs).all
    }

    /// Tells the programs what `frame` needs, unless they know.
    fn tell(&mut self, current: &Current<'_>, frame: &Frame, target: &Target, color: Colorimetry) {
        let from = self.setting.seen_of(self.stream.size, frame.crop);
        let told = Some((frame.color, color, from));
        if self.told == told {
            return;
        }
        let place = self.setting.place.unwrap_or(Place::all(target.size));
        self.scales = self.setting.turn.of(Size::new(from.width, from.height)) != place.size();
        self.told = told;
        let from_yuv = plan::shape(self.stream.format).is_some_and(plan::is_yuv);
        let affine = match (from_yuv, plan::is_yuv(target.shape)) {
            (true, true) if frame.color == color => Affine::IDENTITY,
            (true, true) => Affine::to_rgb(frame.color).then(&Affine::from_rgb(color)),
            (true, false) => Affine::to_rgb(frame.color),
            (false, true) => Affine::from_rgb(color),
            (false, false) => Affine::IDENTITY,
        };
        let mut matrix = [0.0; 9];
        for (column, row) in (0..3).flat_map(|c| (0..3).map(move |r| (c, r))) {
            matrix[column * 3 + row] = affine.rows[row][column] as f32;
        }
        let edge = |start: u32, length: u32| (start + length - 1) as i32;
        let uniforms = Uniforms {
            map: self.setting.turn.map(from, place),
            bounds: [from.x as i32, from.y as i32, edge(from.x, from.width), edge(from.y, from.height)],
            matrix,
            offset: affine.offset.map(|n| n as f32),
            opacity: f32::from(self.setting.alpha) / f32::from(OPAQUE),
        };
        self.programs().iter().for_each(|p| current.set(p, &uniforms));
    }
}

/// What is counted beyond frames.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Frames for whose rendering this thread has waited, as the driver has no native fences or the kernel takes none.
    pub(super) waits: u64,
    /// Pictures that were brought over from memory that a GPU does not reach.
    pub(super) uploads: u64,
    /// Pictures that were brought into such memory.
    pub(super) downloads: u64,
}

/// The way into memory that a GPU does not reach.
pub(super) struct Download {
    /// Scratch memory, of no bytes where all is reached.
    pub(super) pixels: Vec<u8>,
    pub(super) account: Account,
}

/// Everything that a frame needs.
pub(super) struct Renderer<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) target: &'a Target,
    pub(super) targets: &'a mut ImportCache<Picture>,
    pub(super) download: &'a mut Download,
    pub(super) counts: &'a mut Counts,
}

/// A frame to draw, with what its input knows.
pub(super) struct Layer<'a> {
    pub(super) input: &'a mut Input,
    pub(super) imports: &'a mut ImportCache<Picture>,
    pub(super) frame: &'a Frame,
}

impl Renderer<'_> {
    /// How code values of the output are to be understood, which is as the first input's are.
    pub(super) fn color(&self, first: &Layer<'_>) -> Colorimetry {
        let from_yuv = plan::shape(first.input.stream.format).is_some_and(plan::is_yuv);
        made_of(first.frame.color, from_yuv, plan::is_yuv(self.target.shape))
    }

    /// Draws all layers, the first lowest, into `buffer`. When this returns, whoever waits for the buffer's fences
    /// finds the picture there; and whoever writes what the layers were made of waits until it has been read.
    pub(super) fn render<'l>(
        &mut self,
        layers: impl Iterator<Item = Layer<'l>>,
        buffer: &mut Shrbuf,
        color: Colorimetry,
        compose: bool,
    ) -> Result<(), GpuError> {
        let gpu = self.gpu;
        let current = gpu.context.enter()?;
        let target = self.targets.get(buffer, |b| Picture::target(gpu, &current, b))?;
        if compose {
            for (plane, &into) in target.targets().iter().enumerate() {
                current.render_into(into, self.target.part(plane, whole(self.target.size)));
                current.clear(self.target.black(plane, color));
            }
        }
        let mut read = [const { None }; MAX_INPUTS];
        for (layer, slot) in layers.zip(&mut read) {
            let Layer { input, imports, frame } = layer;
            self.wait_for(&current, &frame.buffer)?;
            let picture = imports.get(&frame.buffer, |b| Picture::source(gpu, &current, b))?;
            let uploaded = picture.upload(&current, &frame.buffer, &mut input.row, &input.uploaded)?;
            self.counts.uploads += u64::from(uploaded);
            input.tell(&current, frame, self.target, color);
            current.blend(compose && input.setting.shows_through(Some(input.stream.format)));
            let place = input.setting.place.unwrap_or(Place::all(self.target.size));
            if let Some(seen) = place.within(self.target.size) {
                for (plane, (&into, program)) in target.targets().iter().zip(input.programs()).enumerate() {
                    current.render_into(into, self.target.part(plane, seen));
                    current.draw(program, picture.textures(), shader::VERTICES);
                }
            }
            *slot = Some(&frame.buffer);
        }
        let done = current.submit(LIMIT)?;
        current.check("glDrawArrays")?;
        self.counts.waits += u64::from(done.is_none());
        // One that has signalled by now is nothing that anybody would have to wait for.
        let fence = done.map(Fence::pending).transpose()?.flatten();
        if buffer.kind() == MemoryKind::Memfd {
            in_time(fence.map_or(Ok(true), |fence| fence.wait(LIMIT)))?;
            let Download { pixels, account } = &mut *self.download;
            target.download(&current, buffer, pixels, account)?;
            self.counts.downloads += 1;
            return Ok(());
        }
        let Some(fence) = fence else { return Ok(()) };
        let mut told = fences::attach(buffer, Access::Write, &fence)?;
        for read in read.into_iter().flatten() {
            told &= fences::attach(read, Access::Read, &fence)?;
        }
        if told {
            return Ok(());
        }
        self.counts.waits += 1;
        in_time(fence.wait(LIMIT))
    }

    /// Whoever is still writing a buffer is waited for: by the GPU, where it can and the kernel can tell it.
    fn wait_for(&self, current: &Current<'_>, buffer: &Shrbuf) -> Result<(), GpuError> {
        if !buffer.has_fences() {
            return Ok(());
        }
        let native = self.gpu.context.has_native_fences();
        match native.then(|| buffer.export_fences(Access::Read)).transpose()?.flatten() {
            Some(fence) => current.wait_for(fence.into()),
            None => in_time(buffer.wait(Access::Read, LIMIT)),
        }
    }
}

/// What a wait of no longer than [`LIMIT`] has come to.
fn in_time(signalled: io::Result<bool>) -> Result<(), GpuError> {
    if signalled? { Ok(()) } else { Err(GpuError::Stalled(LIMIT)) }
}

/// Most inputs of one element.
pub(super) const MAX_INPUTS: usize = 16;
