//! `test-src`: pictures whose every frame can be told apart, by people and by programs.
//!
//! [`read_marker`] reads a frame's number and time stamp back, from buffers of any format.

mod marker;
mod overlay;
mod pattern;

pub use marker::{Marker, MarkerError, read_marker};
pub use pattern::Pattern;
use shrbuf::{AccessError, Account, Format, Ledger, Reason, Shrbuf};
use shrbuf_pipeline::property::{Build, BuildError};
use shrbuf_pipeline::{
    Colorimetry, Context, Element, Environment, Events, Failure, FailureKind, Frame, OutputOffer, Ports, Rate, Refusal,
    Size, Start, Stream, Timestamp, Video, Waker, Wanted,
};

use self::overlay::Overlay;
use self::pattern::Painter;
use crate::clock::{Grid, Timer};
use crate::image::color::{self, Coefficients};
use crate::image::shape;
use crate::memory::{self, Memory};
use crate::supply::Supply;

shrbuf_pipeline::properties! {
    /// Pictures to test with: colour bars, ramps, a moving box, noise.
    ///
    /// Every frame shows its number and time stamp, in digits and as a strip of black and white cells that programs
    /// read back. Frames come at equal times; one that finds no free buffer is counted as dropped and leaves a gap in
    /// the sequence, as with a camera. YUV is BT.601, or BT.709 from 720 rows on, of limited range.
    ///
    /// ```toml
    /// [element.camera]
    /// type = "test-src"
    /// pattern = "box"
    /// size = [1280, 720]
    /// rate = 60
    /// ```
    pub struct TestSrc = "test-src" {
        /// What to draw.
        pattern: Pattern = Pattern::Bars,
        /// Pixel format; not set, what the consumers like best.
        format: Option<Format> = None,
        /// Width and height.
        size: Size = Size::new(640, 360),
        /// Frames a second.
        rate: Rate = Rate::new(30, 1),
        /// As fast as buffers come back, whatever `rate` says.
        free_run: bool = false,
        /// Memory: "auto" takes the first that all consumers can import.
        memory: Memory = Memory::Auto,
    }
}

const TICK: u32 = 0;
const BUFFER_BACK: u32 = 1;
const FENCES: u32 = 2;

impl Build for TestSrc {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        let environment = Environment::new("test-src", Ledger::default());
        Ok(Box::new(TestSource { config: self, environment, buffers: Vec::new(), stream: None, run: None }))
    }
}

struct TestSource {
    config: TestSrc,
    environment: Environment,
    /// Between negotiation and start.
    buffers: Vec<Shrbuf>,
    stream: Option<Stream>,
    run: Option<Run>,
}

/// What exists between start and stop.
struct Run {
    supply: Supply,
    pace: Pace,
    /// Number of the next frame.
    next: u64,
    painter: Painter,
    overlay: Option<Overlay>,
    color: Colorimetry,
    account: Account,
}

enum Pace {
    Clock { timer: Timer, grid: Grid },
    Free { waker: Waker },
}

fn access(e: AccessError) -> Failure {
    Failure::new(FailureKind::Device, e)
}

impl Element for TestSource {
    fn ports(&self) -> Ports {
        Ports::source()
    }

    fn join(&mut self, environment: &Environment) {
        self.environment = environment.clone();
    }

    fn output_offer(&mut self, _output: usize, _input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        Ok(OutputOffer {
            video: shape::formats().map(Video::linear).collect(),
            memory: self.config.memory.offer(),
            wanted: Wanted {
                format: self.config.format,
                size: Some(self.config.size),
                rate: (!self.config.free_run).then_some(self.config.rate),
            },
        })
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.buffers.clear();
        self.buffers = memory::allocate(stream, &self.environment.name)?;
        self.stream = Some(*stream);
        Ok(self.buffers.clone())
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let config = |what: String| Failure::new(FailureKind::Config, what);
        let stream = self.stream.ok_or_else(|| config("started before it was negotiated".into()))?;
        let color = color::usual(stream.size);
        let coefficients = Coefficients::of(color);
        let account = self.environment.ledger.account(&self.environment.name, Reason::Generate);
        let mut painter = Painter::new(self.config.pattern, stream.format, coefficients, stream.size)
            .ok_or_else(|| config(format!("{} cannot be drawn", stream.format)))?;
        let mut buffers = std::mem::take(&mut self.buffers);
        painter.prepare(&mut buffers, &account).map_err(access)?;

        let waker = start.waker(BUFFER_BACK);
        let supply = Supply::new(buffers, waker.clone(), FENCES, start)?;
        let pace = if self.config.free_run {
            waker.wake();
            Pace::Free { waker }
        } else {
            let timer = Timer::new()?;
            start.watch(timer.watched()?, TICK)?;
            let grid = Grid::new(Timestamp::now(), stream.rate.unwrap_or(self.config.rate));
            timer.arm(grid.time(0))?;
            Pace::Clock { timer, grid }
        };
        let overlay = Overlay::new(stream.format, coefficients, stream.size);
        self.run = Some(Run { supply, pace, next: 0, painter, overlay, color, account });
        Ok(())
    }

    fn ready(&mut self, token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Ok(()) };
        match (token, &run.pace) {
            (FENCES, _) => run.supply.reap(),
            (TICK, _) => run.tick(context),
            (BUFFER_BACK, Pace::Free { .. }) => run.free(context),
            _ => Ok(()),
        }
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }

    fn stop(&mut self) {
        self.run = None;
    }
}

impl Run {
    /// The clock has struck; it may have done so more than once since we looked.
    fn tick(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let Pace::Clock { timer, grid } = &self.pace else { return Ok(()) };
        let due = grid.last_due(Timestamp::now());
        if due < self.next {
            return timer.arm(grid.time(self.next));
        }
        timer.arm(grid.time(due + 1))?;
        let timestamp = grid.time(due);
        context.dropped(due - self.next);
        self.next = due + 1;
        match self.supply.take() {
            Some(buffer) => self.send(buffer, due, timestamp, context),
            None => {
                context.dropped(1);
                Ok(())
            }
        }
    }

    /// One frame; the loop calls again for the next, so that it can see to other things between.
    fn free(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        if context.ended() {
            return Ok(());
        }
        let Some(buffer) = self.supply.take_or_be_woken() else { return Ok(()) };
        if let Pace::Free { waker } = &self.pace {
            waker.again();
        }
        let number = self.next;
        self.next += 1;
        self.send(buffer, number, Timestamp::now(), context)
    }

    fn send(
        &mut self,
        mut buffer: Shrbuf,
        number: u64,
        timestamp: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<(), Failure> {
        buffer.set_state(shrbuf::State::Filling);
        let id = buffer.id();
        let mut guard = buffer.write().map_err(access)?;
        self.painter.draw(id, &mut guard, number, &self.account);
        if let Some(overlay) = &mut self.overlay {
            overlay.draw(&mut guard, number, timestamp, &self.account);
        }
        drop(guard);
        buffer.set_state(shrbuf::State::Filled);
        let frame = Frame { color: self.color, ..Frame::new(buffer, timestamp, number) };
        context.push(0, frame)
    }
}
