//! `file-src`.

mod reader;

use std::path::PathBuf;

use shrbuf::{Account, Format, Ledger, Reason, Shrbuf, State};
use shrbuf_pipeline::property::{Build, BuildError, Bytes};
use shrbuf_pipeline::{
    Context, Element, Environment, Events, Failure, FailureKind, Frame, OutputOffer, Ports, Rate, Rates, Refusal, Size,
    SizeOffer, Sizes, Start, Stream, Timestamp, Video, Waker, Wanted,
};

use tmem_cache::store::{Handle, Store, StoreOptions};
use tmem_cache::{FrameCache, FrameCacheStats};

use self::reader::Reader;
use crate::clock::{Grid, Timer};
pub use crate::container::{Container, FileError};
use crate::memory::{self, Memory};
use crate::supply::Supply;

shrbuf_pipeline::properties! {
    /// Frames from a file: raw, Y4M or PNG.
    ///
    /// Raw and Y4M are read straight into the frames' memory; a raw file needs `format` and `size`. A PNG is one
    /// picture, or with a number in its name (`%d`, `%04d`) all from 0 or 1 on; its alpha is left out. A frame that
    /// finds no free buffer waits for one: nothing is dropped. A file that ends in the middle of a frame is an error,
    /// after the frames before.
    ///
    /// ```toml
    /// [element.film]
    /// type = "file-src"
    /// path = "film.y4m"
    /// repeat = true
    /// cache = "256MiB"
    /// ```
    pub struct FileSrc = "file-src" {
        /// What to read; may be a pipe, but then not with `repeat`.
        path: PathBuf = PathBuf::new(),
        /// What it holds: "auto" goes by the name.
        container: Container = Container::Auto,
        /// Pixel format; of a raw file, the one it has.
        format: Option<Format> = None,
        /// Width and height of a raw file.
        size: Option<Size> = None,
        /// Frames a second; not set, those that the file says, or 30.
        rate: Option<Rate> = None,
        /// As fast as buffers come back, whatever the rate.
        free_run: bool = false,
        /// Begins again at its end.
        repeat: bool = false,
        /// Plays forwards and backwards by turns, as one who scrubs.
        back_and_forth: bool = false,
        /// Keeps frames compressed in so much memory; one that is played again comes from there, as long as it is there.
        cache: Option<Bytes> = None,
        /// Memory: "auto" takes the first that all consumers can import.
        memory: Memory = Memory::Auto,
    }
}

const RATE: Rate = Rate::new(30, 1);
const TICK: u32 = 0;
const BUFFER_BACK: u32 = 1;
const FENCES: u32 = 2;

impl Build for FileSrc {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        if self.path.as_os_str().is_empty() {
            return Err(BuildError::of("path", "is not set; it says what to read, such as \"film.y4m\""));
        }
        let Some(container) = self.container.resolve(&self.path) else {
            let what = format!("cannot be told from `{}`; set it to \"raw\", \"y4m\" or \"png\"", self.path.display());
            return Err(BuildError::of("container", what));
        };
        if container == Container::Raw {
            let missing = [("format", self.format.is_none()), ("size", self.size.is_none())];
            if let Some((property, _)) = missing.into_iter().find(|(_, missing)| *missing) {
                return Err(BuildError::of(property, "is not set; a raw file does not say it itself"));
            }
        }
        let environment = Environment::new("file-src", Ledger::default());
        let source = Source {
            config: self,
            container,
            environment,
            buffers: Vec::new(),
            stream: None,
            reader: None,
            place: Place::default(),
            cached: FrameCacheStats::default(),
            run: None,
        };
        Ok(Box::new(source))
    }
}

struct Source {
    config: FileSrc,
    container: Container,
    environment: Environment,
    /// Between negotiation and start.
    buffers: Vec<Shrbuf>,
    stream: Option<Stream>,
    reader: Option<Reader>,
    /// Where it goes on, as it has been started before.
    place: Place,
    cached: FrameCacheStats,
    run: Option<Run>,
}

/// What exists between start and stop.
struct Run {
    supply: Supply,
    pace: Pace,
    reader: Reader,
    cache: Option<FrameCache>,
    turns: Turns,
    place: Place,
    account: Account,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// The frame that is played next, by its place in the file.
    next: u64,
    backwards: bool,
    sequence: u64,
}

/// What comes at the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turns {
    Never,
    ToTheFirst,
    Back,
}

enum Pace {
    /// `due` is the tick that the next frame belongs to.
    Clock {
        timer: Timer,
        grid: Grid,
        due: u64,
    },
    Free {
        waker: Waker,
    },
}

impl Source {
    fn reader(&mut self) -> Result<&mut Reader, FileError> {
        let opened = match self.reader.take() {
            Some(reader) => reader,
            None => Reader::open(&self.config, self.container)?,
        };
        Ok(self.reader.insert(opened))
    }
}

impl Element for Source {
    fn ports(&self) -> Ports {
        Ports::source()
    }

    fn join(&mut self, environment: &Environment) {
        self.environment = environment.clone();
    }

    fn output_offer(&mut self, _output: usize, _input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        let (format, rate, free_run) = (self.config.format, self.config.rate, self.config.free_run);
        let memory = self.config.memory.offer();
        let reader = self.reader()?;
        let rate = rate.or(reader.rate()).unwrap_or(RATE);
        let sizes = vec![SizeOffer { sizes: Sizes::Exact(reader.size()), rates: Rates::Any }];
        let video = reader.formats().into_iter().map(|f| Video { sizes: sizes.clone(), ..Video::linear(f) });
        Ok(OutputOffer {
            video: video.collect(),
            memory,
            wanted: Wanted { format, size: None, rate: (!free_run).then_some(rate) },
        })
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.buffers.clear();
        self.buffers = memory::allocate(stream, &self.environment.name)?;
        self.stream = Some(*stream);
        Ok(self.buffers.clone())
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let stream =
            self.stream.ok_or_else(|| Failure::new(FailureKind::Config, "started before it was negotiated"))?;
        self.reader()?;
        let Some(mut reader) = self.reader.take() else { return Ok(()) };
        reader.prepare(stream.format)?;
        let waker = start.waker(BUFFER_BACK);
        let supply = Supply::new(std::mem::take(&mut self.buffers), waker.clone(), FENCES, start)?;
        let pace = if self.config.free_run {
            waker.wake();
            Pace::Free { waker }
        } else {
            let timer = Timer::new()?;
            start.watch(timer.watched()?, TICK)?;
            let grid = Grid::new(Timestamp::now(), stream.rate.unwrap_or(RATE));
            timer.arm(grid.time(0))?;
            Pace::Clock { timer, grid, due: 0 }
        };
        let account = self.environment.ledger.account(&self.environment.name, Reason::File);
        let turns = match (self.config.back_and_forth, self.config.repeat) {
            (true, _) => Turns::Back,
            (false, true) => Turns::ToTheFirst,
            _ => Turns::Never,
        };
        let cache = self.config.cache.map(|max| {
            let max = usize::try_from(max.0).unwrap_or(usize::MAX);
            let ledger = self.environment.ledger.clone();
            FrameCache::new(&Store::new(&StoreOptions { ledger, ..StoreOptions::new(max) })?, 1)
        });
        let cache = cache.transpose().map_err(|e| Failure::new(FailureKind::Limit, e))?;
        let place = self.place;
        self.run = Some(Run { supply, pace, reader, cache, turns, place, account });
        Ok(())
    }

    fn ready(&mut self, token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Ok(()) };
        match token {
            FENCES => run.supply.reap(),
            _ if context.ended() => Ok(()),
            _ => run.next(context),
        }
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }

    fn stop(&mut self) {
        let Some(Run { reader, place, cache, .. }) = self.run.take() else { return };
        // What comes through a pipe cannot be had again by opening it anew.
        (self.reader, self.place) = (Some(reader), place);
        if let Some(cache) = cache {
            let now = cache.stats();
            self.cached.hits += now.hits;
            self.cached.misses += now.misses;
            self.cached.refetches += now.refetches;
        }
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        if self.config.cache.is_some() {
            report("cache-hits", self.cached.hits);
            report("cache-misses", self.cached.misses);
            report("refetches", self.cached.refetches);
        }
    }
}

impl Run {
    /// A tick has struck, or a buffer has come back: sends the next frame if it is due and there is a buffer.
    fn next(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let mut timestamp = Timestamp::now();
        if let Pace::Clock { timer, grid, due } = &self.pace {
            let tick = grid.last_due(timestamp);
            if tick < *due {
                return timer.arm(grid.time(*due));
            }
            timestamp = grid.time(tick);
        }
        let Some(buffer) = self.supply.take_or_be_woken() else {
            return match &self.pace {
                Pace::Clock { timer, .. } => timer.disarm(),
                Pace::Free { .. } => Ok(()),
            };
        };
        match &mut self.pace {
            Pace::Clock { timer, grid, due } => {
                // Late frames come at the next ticks, not all at once.
                *due = grid.last_due(Timestamp::now()) + 1;
                timer.arm(grid.time(*due))?;
            }
            Pace::Free { waker } => waker.again(),
        }
        self.send(buffer, timestamp, context)
    }

    /// The next frame's picture, out of the cache or the file; false at the end.
    fn fill(&mut self, buffer: &mut Shrbuf) -> Result<bool, Failure> {
        let (reader, account, next) = (&mut self.reader, &self.account, self.place.next);
        let mut read = |buffer: &mut Shrbuf| {
            reader.seek(next)?;
            reader.read(buffer, account)
        };
        match &self.cache {
            Some(cache) => cache.fill(Handle::new(0, next as u32), buffer, read),
            None => read(buffer),
        }
    }

    fn send(&mut self, mut buffer: Shrbuf, timestamp: Timestamp, context: &mut Context<'_>) -> Result<(), Failure> {
        buffer.set_state(State::Filling);
        if !self.fill(&mut buffer)? {
            match self.turns {
                Turns::Never => return context.end_all(),
                Turns::ToTheFirst => self.place.next = 0,
                Turns::Back => {
                    self.place.backwards = true;
                    self.place.next = self.place.next.saturating_sub(2);
                }
            }
            self.fill(&mut buffer)?;
        }
        if self.place.backwards && self.place.next == 0 {
            self.place.backwards = false;
        }
        self.place.next = if self.place.backwards { self.place.next - 1 } else { self.place.next + 1 };
        buffer.set_state(State::Filled);
        let frame = Frame { color: self.reader.color(), ..Frame::new(buffer, timestamp, self.place.sequence) };
        self.place.sequence += 1;
        context.push(0, frame)
    }
}
