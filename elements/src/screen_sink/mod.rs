//! `screen-sink`: a display for machines that have none.

mod terminal;

use std::collections::VecDeque;
use std::path::PathBuf;

use shrbuf::{AccessError, Account, Ledger, Reason, Shrbuf};
use shrbuf_pipeline::property::{Build, BuildError};
use shrbuf_pipeline::{
    Consumes, Context, Element, Environment, Events, Failure, FailureKind, Frame, InputOffer, Ports, Rate, Refusal,
    Start, Stream, Timestamp, Video, Wanted,
};

use self::terminal::Terminal;
use crate::clock::{Grid, Timer};
use crate::image;
use crate::new_file::NewFile;

shrbuf_pipeline::choices! {
    /// What a display does when frames come faster than it refreshes.
    pub enum ScreenMode {
        /// Shows the newest at each refresh; the others are counted as dropped.
        Latest = "latest",
        /// Shows one after the other; those for which there is no room are counted as dropped.
        Fifo = "fifo",
    }
}

shrbuf_pipeline::choices! {
    /// Whether the picture is drawn in the terminal.
    pub enum TerminalUse {
        /// If standard error is one.
        Auto = "auto",
        /// Even if it is not, for 80 columns and 24 lines.
        Always = "always",
        /// Not.
        Never = "never",
    }
}

shrbuf_pipeline::properties! {
    /// A display of its own, for machines that have none.
    ///
    /// Holds and releases frames as a display does: one is on screen until the next refresh, others wait for it.
    /// Latency is measured to the refresh at which a frame appears. The picture is drawn in the terminal in half
    /// blocks of 24-bit colour, above the lines that other output uses, and the last one can be kept as a PNG.
    /// Only the rows that are drawn are read.
    ///
    /// ```toml
    /// [element.display]
    /// type = "screen-sink"
    /// png = "last.png"
    /// ```
    pub struct ScreenSink = "screen-sink" {
        /// Refreshes a second.
        rate: Rate = Rate::new(60, 1),
        /// What happens when frames come faster than that.
        mode: ScreenMode = ScreenMode::Latest,
        /// Where to keep the last picture, as it ends; what is there stays where no frame came.
        png: Option<PathBuf> = None,
        /// Whether to draw in the terminal.
        terminal: TerminalUse = TerminalUse::Auto,
    }
}

/// Frames that wait for a refresh in `fifo` mode.
const FIFO: usize = 2;
const REFRESH: u32 = 0;

impl Build for ScreenSink {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        let environment = Environment::new("screen-sink", Ledger::default());
        let account = environment.ledger.account(&environment.name, Reason::Inspect);
        Ok(Box::new(Screen { config: self, environment, account, run: None, flips: 0 }))
    }
}

struct Screen {
    config: ScreenSink,
    environment: Environment,
    account: Account,
    run: Option<Run>,
    flips: u64,
}

/// What exists between start and stop.
struct Run {
    timer: Timer,
    grid: Grid,
    armed: bool,
    shown: Option<Frame>,
    waiting: VecDeque<Frame>,
    ending: bool,
    terminal: Option<Terminal>,
    _png: Option<NewFile>,
}

impl ScreenSink {
    fn room(&self) -> usize {
        match self.mode {
            ScreenMode::Latest => 1,
            ScreenMode::Fifo => FIFO,
        }
    }
}

impl Element for Screen {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn join(&mut self, environment: &Environment) {
        self.environment = environment.clone();
        self.account = environment.ledger.account(&environment.name, Reason::Inspect);
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        let video = image::shape::formats().map(|f| Video { plane_segments: true, ..Video::linear(f) });
        Ok(InputOffer {
            video: video.collect(),
            memory: Consumes { holds: 1 + self.config.room() as u32, ..Consumes::cpu() },
            wanted: Wanted::default(),
            natural: None,
        })
    }

    fn import(&mut self, _input: usize, _stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        // Maps them, so that a buffer which a CPU cannot read shows now.
        let readable = |b: &Shrbuf| b.read().map(drop);
        buffers.iter().try_for_each(readable).map_err(|e: AccessError| Refusal::new(e.to_string()))
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        // A path that will not do is better known now than after the last frame.
        let open = |path: &PathBuf| {
            NewFile::open(path).map_err(|e| {
                let what = format!("cannot write `png = \"{}\"`: {e}", path.display());
                Failure::new(FailureKind::Config, what)
            })
        };
        let png = self.config.png.as_ref().map(open).transpose()?;
        let timer = Timer::new()?;
        start.watch(timer.watched()?, REFRESH)?;
        self.run = Some(Run {
            timer,
            grid: Grid::new(Timestamp::now(), self.config.rate),
            armed: false,
            shown: None,
            waiting: VecDeque::with_capacity(self.config.room()),
            ending: false,
            terminal: Terminal::open(self.config.terminal),
            _png: png,
        });
        Ok(())
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Ok(()) };
        if run.waiting.len() < self.config.room() {
            run.waiting.push_back(frame);
        } else {
            context.dropped(1);
            if self.config.mode == ScreenMode::Latest {
                run.waiting.clear();
                run.waiting.push_back(frame);
            }
        }
        run.arm()
    }

    fn ready(&mut self, _token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Ok(()) };
        run.armed = false;
        if run.waiting.is_empty() {
            run.timer.disarm()?;
        } else {
            self.flips += run.refresh(&self.account, context)?;
        }
        if run.ending && run.waiting.is_empty() {
            context.finish();
        }
        Ok(())
    }

    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        match &mut self.run {
            Some(run) if !run.waiting.is_empty() => run.ending = true,
            _ => context.finish(),
        }
        Ok(())
    }

    fn stop(&mut self) {
        let Some(mut run) = self.run.take() else { return };
        if let Some(terminal) = run.terminal.take() {
            terminal.close();
        }
        let Some(path) = &self.config.png else { return };
        let Some(frame) = run.waiting.pop_back().or(run.shown.take()) else {
            tracing::warn!("{}: no frame came, so {} is not written", self.environment.name, path.display());
            return;
        };
        if let Err(e) = image::write_png(path, &frame.buffer, frame.color, &self.account) {
            tracing::error!("{}: cannot write {}: {e}", self.environment.name, path.display());
        }
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        report("flips", self.flips);
    }
}

impl Run {
    /// Has the next refresh come, unless it is on its way: a display that has nothing new to show need not wake anyone.
    fn arm(&mut self) -> Result<(), Failure> {
        if !self.armed {
            self.armed = true;
            self.timer.arm(self.grid.time(self.grid.last_due(Timestamp::now()) + 1))?;
        }
        Ok(())
    }

    /// Shows the next frame. Gives the number of flips: 1, or 0 where the timer was early.
    fn refresh(&mut self, account: &Account, context: &mut Context<'_>) -> Result<u64, Failure> {
        let Some(frame) = self.waiting.pop_front() else { return Ok(0) };
        let late = Timestamp::now();
        let now = self.grid.time(self.grid.last_due(late));
        // A refresh that this thread comes to late shows what has come meanwhile too: then, and not when it was due.
        context.shown(frame.timestamp, if frame.timestamp > now { late } else { now });
        let frame = self.shown.insert(frame);
        if let Some(terminal) = self.terminal.as_mut().filter(|t| t.wants(now)) {
            let drawn = terminal.draw(frame, now, account);
            drawn.map_err(|e| Failure::new(FailureKind::Device, e))?;
        }
        if self.waiting.is_empty() {
            self.timer.disarm()?
        } else {
            self.arm()?
        }
        Ok(1)
    }
}
