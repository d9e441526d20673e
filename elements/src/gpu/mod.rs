//! `gpu`: the same buffers, seen and made by a GPU.
//!
//! | module | story |
//! | --- | --- |
//! | `config` | properties |
//! | `device` | which GPU |
//! | `plan` | a format's planes as textures |
//! | `shader` | programs |
//! | `geometry` | where a pixel comes from |
//! | `picture` | a buffer as a GPU has it |
//! | `buffers` | what is rendered into |
//! | `render` | one frame |
//! | `sys` | EGL and GL |

mod buffers;
mod config;
mod device;
mod error;
mod geometry;
mod picture;
mod plan;
mod render;
mod shader;
mod sys;

use std::sync::{Arc, OnceLock};

use shrbuf::pool::MAX_BUFFERS;
use shrbuf::{Format, ImportCache, Ledger, MemoryKind, Modifier, Pool, Reason, Shrbuf};
use shrbuf_pipeline::{
    Build, BuildError, Composition, Consumes, Context, Copies, Element, Environment, Events, Failure, FailureKind,
    Frame, InputOffer, Layer, Modifiers, Origin, OutputOffer, Ports, Produces, Rates, Refusal, Role, Size, SizeOffer,
    Sizes, Start, Stream, Video, Wanted, solve,
};

pub use buffers::Memory;
pub use config::{Filter, Gpu, Part};
pub use error::GpuError;
pub use geometry::Rotate;

use self::device::Gpu as Device;
use self::geometry::Place;
use self::picture::Picture;
use self::render::{Counts, Download, Input, Layer as Drawn, MAX_INPUTS, Renderer, Setting, Target};
use self::sys::Current;

/// What negotiation puts into a link whose ends have no format in common, on a machine with a GPU.
pub const CONVERTER: solve::Converter = solve::Converter {
    make: || Box::new(GpuElement::with(Gpu::default(), vec![Port::default()])),
    present: is_present,
    name: "gpu",
    copies: false,
    compose: Some(compose),
};

/// The element that makes a picture as a [`Composition`] says.
fn compose(composition: &Composition) -> Result<Box<dyn Element>, String> {
    let Composition { size, layers } = composition;
    if layers.len() > MAX_INPUTS {
        return Err(format!("it composes up to {MAX_INPUTS} inputs, these are {}", layers.len()));
    }
    let port = |layer: &Layer| {
        let Size { width, height } = layer.size;
        let place = Some(Place { x: layer.x, y: layer.y, width, height });
        let alpha = config::alpha(layer.opacity);
        Port { setting: Setting { place, alpha, fills: true, ..Setting::PLAIN }, ..Port::default() }
    };
    let config = Gpu { size: Some(*size), inputs: layers.len() as u32, ..Gpu::default() };
    Ok(Box::new(GpuElement::with(config, layers.iter().map(port).collect())))
}

/// Whether there is a GPU, or why not. Looked for once: that takes as long as loading its driver.
fn is_present() -> Result<(), String> {
    static PRESENT: OnceLock<Result<(), String>> = OnceLock::new();
    PRESENT.get_or_init(|| Device::open(None).map(drop).map_err(|error| error.to_string())).clone()
}

impl Build for Gpu {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        Ok(Box::new(GpuElement::new(self)?))
    }
}

/// An input, negotiated or not.
struct Port {
    setting: Setting,
    stream: Option<Stream>,
    /// Bytes of the longest row, where pictures have to be uploaded.
    row: usize,
    imports: ImportCache<Picture>,
    /// The newest, of several inputs.
    newest: Option<Frame>,
}

impl Default for Port {
    fn default() -> Port {
        Port { setting: Setting::PLAIN, stream: None, row: 0, imports: ImportCache::new(), newest: None }
    }
}

/// What exists between start and stop.
struct Run {
    pool: Pool,
    target: Target,
    inputs: Vec<Input>,
    download: Download,
}

struct GpuElement {
    config: Gpu,
    environment: Environment,
    copies: Copies,
    inputs: Vec<Port>,
    targets: ImportCache<Picture>,
    output: Option<Stream>,
    /// Between negotiation and start.
    buffers: Vec<Shrbuf>,
    run: Option<Run>,
    counts: Counts,
    device: Option<Arc<Device>>,
    /// There has been one, and it is given up.
    lost: bool,
}

const FENCES: u32 = 0;

/// Formats by how well GPUs make them.
const PREFERRED: [Format; 4] = [Format::Xr24, Format::Ar24, Format::Nv12, Format::Yuyv];

fn config(what: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Config, what.into())
}

impl GpuElement {
    fn new(config: Gpu) -> Result<GpuElement, BuildError> {
        let inputs = config.settings()?.into_iter().map(|setting| Port { setting, ..Port::default() }).collect();
        Ok(GpuElement::with(config, inputs))
    }

    fn with(config: Gpu, inputs: Vec<Port>) -> GpuElement {
        GpuElement {
            config,
            environment: Environment::new("gpu", Ledger::default()),
            copies: Copies::Deny,
            inputs,
            targets: ImportCache::new(),
            output: None,
            buffers: Vec::new(),
            run: None,
            counts: Counts::default(),
            device: None,
            lost: false,
        }
    }

    fn device(&mut self) -> Result<Arc<Device>, GpuError> {
        if let Some(device) = &self.device {
            return Ok(Arc::clone(device));
        }
        let opened = Device::open(self.config.device.as_deref());
        let device = opened.map_err(|e| if self.lost { GpuError::Away(Box::new(e)) } else { e })?;
        self.lost = false;
        Ok(Arc::clone(self.device.insert(Arc::new(device))))
    }

    /// Gives the GPU up, and all that was made in it. What is needed of that is made in another when it is needed.
    fn lose(&mut self) {
        self.run = None;
        self.targets.clear();
        self.inputs.iter_mut().for_each(|port| port.imports.clear());
        self.device = None;
        self.lost = true;
    }

    /// Does `work` on the GPU; where that turns out to be lost, once more on the one that is there then.
    fn on_device(
        &mut self,
        mut work: impl FnMut(&mut GpuElement, &Device, &Current<'_>) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        let mut attempt = |element: &mut GpuElement| {
            let device = element.device()?;
            device.context.with(|current| {
                device.sweep(current);
                work(element, &device, current)
            })
        };
        match attempt(self) {
            Err(GpuError::Lost) => {
                self.lose();
                attempt(self)
            }
            done => done,
        }
    }

    fn composes(&self) -> bool {
        self.inputs.len() > 1
    }

    /// The size of what is made; of one input, of what it is.
    fn size(&self, input: Option<&Stream>) -> Result<Size, Failure> {
        let setting = &self.inputs[0].setting;
        if let (Some(part), Some(stream)) = (setting.part, input)
            && !geometry::inside(part, stream.size)
        {
            return Err(config(format!(
                "crop {}x{} at {},{} is not inside {}",
                part.width, part.height, part.x, part.y, stream.size
            )));
        }
        match (self.config.size, input) {
            (Some(size), _) => Ok(size),
            (None, Some(stream)) => Ok(setting.seen(stream.size)),
            (None, None) => Err(config("its size is not known before its input's is")),
        }
    }

    /// Whether every input can be put into `target` where it is to be: chroma is shared by neighbours, and has no alpha.
    fn places_fit(&self, target: &Target) -> Result<(), Refusal> {
        let through = |i: &Port| i.setting.shows_through(i.stream.map(|s| s.format));
        if self.composes() && !target.blends() && self.inputs.iter().any(through) {
            let what = format!("nothing can be seen through in {}, as an input is to be", target.format);
            return Err(Refusal::new(what).instead("format = \"XR24\""));
        }
        let grid = target.grid();
        let places = self.inputs.iter().filter_map(|i| i.setting.place?.within(target.size));
        let end = |start: u32, length: u32, all: u32, step: u32| {
            start.is_multiple_of(step) && ((start + length).is_multiple_of(step) || start + length == all)
        };
        let fits = |p: &shrbuf_pipeline::Rect| {
            end(p.x, p.width, target.size.width, grid.width) && end(p.y, p.height, target.size.height, grid.height)
        };
        match places.into_iter().find(|p| !fits(p)) {
            Some(p) => Err(Refusal::new(format!(
                "{} shares chroma among {}x{} pixels; a place of {}x{} at {},{} would share it with what is beside it",
                target.format, grid.width, grid.height, p.width, p.height, p.x, p.y
            ))
            .instead("even numbers in `layout`, or format = \"XR24\"")),
            None => Ok(()),
        }
    }

    fn start_with(&mut self, device: &Device) -> Result<Run, Failure> {
        let Some(output) = self.output else { return Err(config("started before it was negotiated")) };
        let target = Target::of(output.format, output.size)?;
        let account = self.environment.ledger.account(&self.environment.name, Reason::Transfer);
        let inputs = device.context.with(|current| {
            let compile = |port: &Port| {
                let stream = port.stream.ok_or_else(|| config("an input is not linked"))?;
                let uploads = (account.clone(), port.row);
                Input::new(device, current, stream, port.setting, &target, uploads).map_err(Failure::from)
            };
            self.inputs.iter().map(compile).collect::<Result<Vec<_>, Failure>>()
        })?;
        let limit = |e: Box<dyn std::error::Error + Send + Sync>| Failure::new(FailureKind::Limit, e);
        let unreached = self.buffers.iter().filter(|b| b.kind() == MemoryKind::Memfd);
        let pixels = vec![0; unreached.map(|b| picture::downloaded(b.layout())).max().unwrap_or(0)];
        let pool = Pool::new(std::mem::take(&mut self.buffers), |_index| {}).map_err(|e| limit(e.into()))?;
        Ok(Run { pool, target, inputs, download: Download { pixels, account } })
    }

    /// Draws what the inputs have, `frame` being the first's, and sends it on.
    fn make(&mut self, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        let compose = self.composes();
        let (Some(run), Some(device)) = (&mut self.run, &self.device) else { return Ok(()) };
        let Some(mut buffer) = run.pool.acquire() else {
            context.dropped(1);
            return Ok(());
        };
        let mut renderer = Renderer {
            gpu: device,
            target: &run.target,
            targets: &mut self.targets,
            download: &mut run.download,
            counts: &mut self.counts,
        };
        let mut layers = run.inputs.iter_mut().zip(&mut self.inputs).enumerate().filter_map(|(i, (input, port))| {
            let frame = if i == 0 { &frame } else { port.newest.as_ref()? };
            Some(Drawn { input, imports: &mut port.imports, frame })
        });
        let Some(first) = layers.next() else { return Ok(()) };
        let plain = first.input.setting.is_plain() && !compose;
        let color = renderer.color(&first);
        let drawn = renderer.render(std::iter::once(first).chain(layers), &mut buffer, color, compose);
        if let Err(error) = drawn {
            // Whatever it is, a restart is to find a GPU that nothing has happened to.
            self.lose();
            return Err(error.into());
        }
        buffer.set_state(frame.buffer.state());
        let crop = frame.crop.filter(|_| plain);
        let made = Frame { buffer, color, crop, ..frame.clone() };
        drop(frame);
        context.push(0, made)
    }
}

impl Element for GpuElement {
    fn ports(&self) -> Ports {
        if self.composes() {
            Ports { inputs: (0..self.inputs.len()).map(|n| format!("in{n}")).collect(), outputs: vec!["out".into()] }
        } else {
            Ports::filter()
        }
    }

    fn role(&self) -> Role {
        if self.composes() { Role::Endpoint } else { Role::Transform }
    }

    fn join(&mut self, environment: &Environment) {
        self.environment = environment.clone();
    }

    fn allow_copies(&mut self, copies: Copies) {
        self.copies = copies;
    }

    fn copies(&self, _output: usize) -> Option<String> {
        let memfd = |s: &&Stream| s.origin.kind() == MemoryKind::Memfd;
        let uploaded = self.inputs.iter().filter_map(|i| i.stream.as_ref()).find(memfd);
        let up = uploaded
            .map(|s| format!("{} of memfds is uploaded to the GPU, which does not reach them: a copy", s.format));
        let downloaded = self.output.as_ref().filter(memfd);
        let down = downloaded
            .map(|s| format!("{} is downloaded from the GPU into memfds, which it does not reach: a copy", s.format));
        up.into_iter().chain(down).reduce(|up, down| format!("{up}; {down}"))
    }

    fn input_offer(&mut self, input: usize) -> Result<InputOffer, Failure> {
        let device = self.device()?;
        let most = device.context.max_texture();
        let all = Sizes::Range { min: Size::new(1, 1), max: Size::new(most, most), step: Size::new(1, 1) };
        let video = plan::formats().filter_map(|format| {
            let fourcc = plan::surfaces(format, 1, 1)?.first()?.fourcc;
            let modifiers = picture::sampled(&device, format, fourcc);
            (!modifiers.is_empty()).then(|| Video {
                format,
                modifiers: Modifiers::List(modifiers),
                sizes: vec![SizeOffer { sizes: all, rates: Rates::Any }],
                plane_segments: true,
            })
        });
        let mut kinds = vec![MemoryKind::DmaBuf];
        if self.copies != Copies::Deny {
            kinds.push(MemoryKind::Memfd);
        }
        // One that the GPU is still reading, and the next; of several inputs also the newest, to be drawn again.
        let holds = if self.composes() { 3 } else { 2 };
        Ok(InputOffer {
            video: video.collect(),
            memory: Consumes { kinds, holds, ..Consumes::cpu() },
            wanted: Wanted::default(),
            natural: self.inputs.get(input).and_then(|port| port.setting.unscaled(self.config.size?)),
        })
    }

    fn output_offer(&mut self, _output: usize, input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        let device = self.device()?;
        let size = self.size(input)?;
        let rates = input.and_then(|s| s.rate).map_or(Rates::Any, |r| Rates::List(vec![r]));
        let sizes = vec![SizeOffer { sizes: Sizes::Exact(size), rates }];
        let first = input.map(|s| s.format).filter(|f| plan::shape(*f).is_some()).into_iter().chain(PREFERRED);
        let mut formats: Vec<Format> = Vec::new();
        for format in first.chain(plan::formats()) {
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        let origins = self.config.memory.origins(&device, self.copies)?;
        let own = origins.contains(&Origin::Gbm);
        // LINEAR, which all know, comes first; what else this GPU knows is for those who do not take that.
        let arranged = |format: Format| {
            let known = format.drm().filter(|_| own && plan::is_native(format));
            let known = known.map(|fourcc| picture::sampled(&device, format, fourcc)).unwrap_or_default();
            let others = known.into_iter().filter(|m| *m != Modifier::LINEAR);
            Modifiers::List(std::iter::once(Modifier::LINEAR).chain(others).collect())
        };
        let video = |f| Video { sizes: sizes.clone(), modifiers: arranged(f), ..Video::linear(f) };
        Ok(OutputOffer {
            video: formats.into_iter().map(video).collect(),
            memory: Produces { origins, max_stride_align: 4096, keeps: 1, max_buffers: MAX_BUFFERS as u32 },
            wanted: Wanted { format: self.config.format, ..Wanted::default() },
        })
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.buffers.clear();
        self.targets.clear();
        self.places_fit(&Target::of(stream.format, stream.size)?)?;
        let buffers = buffers::allocate(&*self.device()?, stream, &self.environment.name)?;
        self.on_device(|element, device, current| {
            let import = |b: &Shrbuf| Picture::target(device, current, b);
            buffers.iter().try_for_each(|b| element.targets.get(b, import).map(drop))
        })?;
        self.output = Some(*stream);
        self.buffers = buffers;
        Ok(self.buffers.clone())
    }

    fn import(&mut self, input: usize, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        let Some(port) = self.inputs.get_mut(input) else { return Ok(()) };
        port.imports.clear();
        self.on_device(|element, device, current| {
            let import = |b: &Shrbuf| Picture::source(device, current, b);
            buffers.iter().try_for_each(|b| element.inputs[input].imports.get(b, import).map(drop))
        })?;
        let port = &mut self.inputs[input];
        let uploaded = buffers.iter().filter(|b| b.kind() == MemoryKind::Memfd);
        port.row = uploaded.map(|b| picture::longest_row(b.layout())).max().unwrap_or(0);
        port.stream = Some(*stream);
        Ok(())
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let device = self.device()?;
        let run = self.start_with(&device).inspect_err(|_| self.lose())?;
        let fences = run.pool.fences_fd().try_clone_to_owned();
        start.watch(fences.map_err(|e| Failure::new(FailureKind::Limit, e))?, FENCES)?;
        self.run = Some(run);
        Ok(())
    }

    fn ready(&mut self, _token: u32, _events: Events, _context: &mut Context<'_>) -> Result<(), Failure> {
        match &self.run {
            Some(run) => run.pool.reap().map_err(|e| Failure::new(FailureKind::Device, e)),
            None => Ok(()),
        }
    }

    fn process(&mut self, input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(port) = self.inputs.get_mut(input) else { return Ok(()) };
        if let Some(agreed) = &port.stream {
            let layout = frame.buffer.layout();
            if (layout.format, layout.width, layout.height) != (agreed.format, agreed.size.width, agreed.size.height) {
                let what = format!(
                    "a frame of {} {}x{} came, {} {} was agreed",
                    layout.format, layout.width, layout.height, agreed.format, agreed.size
                );
                return Err(Failure::new(FailureKind::Changed, what));
            }
        }
        if input > 0 {
            port.newest = Some(frame);
            return Ok(());
        }
        self.make(frame, context)
    }

    fn end(&mut self, input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        // The pictures of an input that has ended stay as they are; the first is what makes frames go out.
        if input == 0 { context.end_all() } else { Ok(()) }
    }

    fn stop(&mut self) {
        self.run = None;
        self.targets.clear();
        for port in &mut self.inputs {
            port.newest = None;
            port.imports.clear();
        }
        let Some(device) = self.device.clone() else { return };
        let swept = device.context.with(|current| {
            device.sweep(current);
            current.check("glDeleteTextures")
        });
        if let Err(error) = swept {
            tracing::warn!(element = self.environment.name, %error, "a GPU is given up");
            self.lose();
        }
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let imports = self.inputs.iter().map(|i| i.imports.misses()).sum::<u64>();
        report("imports", imports + self.targets.misses());
        report("waits", self.counts.waits);
        report("uploads", self.counts.uploads);
        report("downloads", self.counts.downloads);
    }
}

#[cfg(test)]
mod fences;
#[cfg(test)]
mod loss;
