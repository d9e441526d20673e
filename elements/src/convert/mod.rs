//! `convert`: the same picture in another format, or in other memory, by the CPU.

mod chroma;
mod kernel;

use shrbuf::{Account, Format, Ledger, Pool, Reason, Shrbuf};
use shrbuf_pipeline::property::{Build, BuildError};
use shrbuf_pipeline::{
    Consumes, Context, Element, Environment, Events, Failure, FailureKind, Frame, InputOffer, OutputOffer, Ports,
    Rates, Refusal, Role, SizeOffer, Sizes, Start, Stream, Video, Wanted, solve,
};

use self::kernel::{Kernel, Target};
use crate::image::shape;
use crate::memory::{self, Memory};

shrbuf_pipeline::properties! {
    /// The same picture in another format or in other memory, made by the CPU.
    ///
    /// The one element that copies, so the engine puts it in only where `copies` allow that. From every format to
    /// XR24, AR24, RG24, RG16, NV12 and YU12; and from every format to itself in memory that the consumer can reach. YUV
    /// is understood by the colorimetry that comes with each frame; YUV made of RGB is of limited range. Mosaics are
    /// interpolated bilinearly. Where every output buffer is in use, the frame is dropped and counted.
    ///
    /// ```toml
    /// [element.to-rgb]
    /// type = "convert"
    /// format = "XR24"
    /// ```
    pub struct Convert = "convert" {
        /// Pixel format to make; not set, what the consumers like best.
        format: Option<Format> = None,
        /// Memory: "auto" takes the first that all consumers can import.
        memory: Memory = Memory::Auto,
    }
}

/// What negotiation puts into a link which cannot do without a copy, where copies are allowed.
pub const CONVERTER: solve::Converter = solve::Converter {
    make: || Convert::default().element(),
    present: || Ok(()),
    name: "convert",
    copies: true,
    compose: None,
};

impl Build for Convert {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        Ok(self.element())
    }
}

impl Convert {
    /// As [`Build::build`], which cannot fail.
    fn element(self) -> Box<dyn Element> {
        let environment = Environment::new("convert", Ledger::default());
        Box::new(Converter { config: self, environment, input: None, output: None, buffers: Vec::new(), run: None })
    }
}

struct Converter {
    config: Convert,
    environment: Environment,
    input: Option<Stream>,
    output: Option<Stream>,
    /// Between negotiation and start.
    buffers: Vec<Shrbuf>,
    run: Option<Run>,
}

/// What exists between start and stop.
struct Run {
    pool: Pool,
    from: Stream,
    work: Work,
}

enum Work {
    /// The same bytes in other memory.
    Transfer(Account),
    Convert {
        kernel: Box<Kernel>,
        read: Account,
        written: Account,
    },
}

const FENCES: u32 = 0;

fn failure(kind: FailureKind) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> Failure {
    move |e| Failure::new(kind, e)
}

impl Element for Converter {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Transform
    }

    fn join(&mut self, environment: &Environment) {
        self.environment = environment.clone();
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        Ok(InputOffer {
            video: shape::formats().map(|f| Video { plane_segments: true, ..Video::linear(f) }).collect(),
            memory: Consumes::cpu(),
            wanted: Wanted::default(),
            natural: None,
        })
    }

    fn output_offer(&mut self, _output: usize, input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        // A transfer is the cheapest, so the same format comes first.
        let same = input.map(|s| s.format);
        let made = Target::formats().filter(|f| Some(*f) != same);
        let sizes = SizeOffer {
            sizes: input.map_or(Sizes::ANY, |s| Sizes::Exact(s.size)),
            rates: input.and_then(|s| s.rate).map_or(Rates::Any, |r| Rates::List(vec![r])),
        };
        let video = same.into_iter().chain(made).map(|f| Video { sizes: vec![sizes.clone()], ..Video::linear(f) });
        Ok(OutputOffer {
            video: video.collect(),
            memory: self.config.memory.offer(),
            wanted: Wanted { format: self.config.format, ..Wanted::default() },
        })
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.buffers.clear();
        self.buffers = memory::allocate(stream, &self.environment.name)?;
        self.output = Some(*stream);
        Ok(self.buffers.clone())
    }

    fn import(&mut self, _input: usize, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        self.input = Some(*stream);
        // Maps them, so that a buffer which a CPU cannot read shows now.
        buffers.iter().try_for_each(|b| b.read().map(drop)).map_err(|e| Refusal::new(e.to_string()))
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let config = |what: String| Failure::new(FailureKind::Config, what);
        let (Some(from), Some(to)) = (self.input, self.output) else {
            return Err(config("started before it was negotiated".into()));
        };
        let account = |reason| self.environment.ledger.account(&self.environment.name, reason);
        let work = if from.format == to.format {
            Work::Transfer(account(Reason::Transfer))
        } else {
            let kernel = Kernel::new(from.format, to.format, from.size)
                .ok_or_else(|| config(format!("{} cannot be made of {}", to.format, from.format)))?;
            let (read, written) = (account(Reason::Inspect), account(Reason::Convert));
            Work::Convert { kernel: Box::new(kernel), read, written }
        };
        let buffers = std::mem::take(&mut self.buffers);
        let limit = failure(FailureKind::Limit);
        let pool = Pool::new(buffers, |_index| {}).map_err(|e| limit(e.into()))?;
        let fences = pool.fences_fd().try_clone_to_owned().map_err(|e| limit(e.into()))?;
        start.watch(fences, FENCES)?;
        self.run = Some(Run { pool, from, work });
        Ok(())
    }

    fn ready(&mut self, _token: u32, _events: Events, _context: &mut Context<'_>) -> Result<(), Failure> {
        match &self.run {
            Some(run) => run.pool.reap().map_err(|e| Failure::new(FailureKind::Device, e)),
            None => Ok(()),
        }
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let Some(buffer) = run.pool.acquire() else {
            context.dropped(1);
            return Ok(());
        };
        let made = run.make(&frame, buffer)?;
        drop(frame);
        context.push(0, made)
    }

    fn stop(&mut self) {
        self.run = None;
    }
}

impl Run {
    fn make(&mut self, frame: &Frame, mut buffer: Shrbuf) -> Result<Frame, Failure> {
        let layout = frame.buffer.layout();
        let size = self.from.size;
        if (layout.format, layout.width, layout.height) != (self.from.format, size.width, size.height) {
            let what = format!(
                "a frame of {} {}x{} came, {} {size} was agreed",
                layout.format, layout.width, layout.height, self.from.format
            );
            return Err(Failure::new(FailureKind::Changed, what));
        }
        let device = failure(FailureKind::Device);
        let mut color = frame.color;
        {
            let from = frame.buffer.read().map_err(|e| device(e.into()))?;
            let mut into = buffer.write().map_err(|e| device(e.into()))?;
            match &mut self.work {
                Work::Transfer(account) => {
                    for p in 0..layout.planes().len() {
                        let (source, mut plane) = (from.plane(p), into.plane(p));
                        for y in 0..source.rows() {
                            plane.copy_row(y, &source, y, account);
                        }
                    }
                }
                Work::Convert { kernel, read, written } => {
                    color = kernel.output_color(frame.color);
                    let result = kernel.convert(&from, &mut into, frame.color, read, written);
                    result.map_err(|e| Failure::new(FailureKind::Data, e))?;
                }
            }
        }
        buffer.set_state(frame.buffer.state());
        Ok(Frame { buffer, color, ..frame.clone() })
    }
}
