//! `kms-sink`: frames on a display, by atomic commits of imported buffers.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shrbuf::{Access, Account, Fence, Format, ImportCache, Ledger, MemoryKind, Modifier, Reason, Shrbuf};
use shrbuf_pipeline::{
    Alarm, Build, BuildError, Consumes, Context, Element, Environment, Events, Failure, FailureKind, Frame, InputOffer,
    Modifiers, Ports, Rates, Refusal, Size, SizeOffer, Sizes, Start, Stream, Timestamp, Video, Wanted, Watch, choices,
    properties,
};

use super::{
    Card, CommitError, DeviceError, DumbBuffer, EventBuffer, Flip, FrameBuffer, Output, OutputError, Placement,
    PlanError, Screen, Writeback, refresh_ns,
};

choices! {
    /// Which frame is shown when several wait.
    pub enum Order {
        /// Every one, in order.
        Fifo = "fifo",
        /// The newest; the others are dropped and counted. One that came while a flip was under way is held back for up
        /// to a refresh, in favour of the next if that is in time for the same refresh: or one frame that is early once
        /// would make every frame after it wait for the one before.
        Latest = "latest",
    }
}

properties! {
    /// Frames on a display, without a copy.
    ///
    /// Each buffer is imported once (PRIME, AddFB2 with its modifier); a frame is one atomic commit. Its buffer is let go
    /// when another has replaced it on screen, which is looked for when the next frame comes, if not before. What was on
    /// the display before comes back at the end.
    ///
    /// ```toml
    /// [element.display]
    /// type = "kms-sink"
    /// connector = "HDMI-A-1"
    /// ```
    pub struct KmsSink = "kms-sink" {
        /// Card node, such as "/dev/dri/card0"; not set, the first with a display.
        card: Option<PathBuf> = None,
        /// Connector, such as "HDMI-A-1"; not set, the first with a display.
        connector: Option<String> = None,
        /// Which frame is shown when several wait.
        order: Order = Order::Fifo,
        /// PNG of the screen with the last frame on it, through the card's writeback connector; where there is none
        /// (most cards), of the frame alone.
        screenshot: Option<PathBuf> = None,
    }
}

impl Build for KmsSink {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        Ok(Box::new(Display::new(self)))
    }
}

/// What a capture callback is given: the frame that was flipped to, and the screen with it, mode-sized XR24.
pub type OnCapture = Box<dyn FnMut(&Frame, &Shrbuf) + Send>;

impl KmsSink {
    /// The element, which also reads the screen back after every flip and shows it to `captured`. For tests of a
    /// display path; needs a writeback connector.
    pub fn build_capturing(self, captured: OnCapture) -> Box<dyn Element> {
        let mut display = Display::new(self);
        display.on_capture = Some(captured);
        Box::new(display)
    }
}

const EVENT: u32 = 0;
const WATCHDOG: u32 = 1;
const HELD: u32 = 2;

/// Longest time for a flip: far above any refresh, far below a person's patience. A display that takes longer has
/// been switched off or has lost its cable or clock, and KMS itself gives up on a flip after 10 s.
const FLIP_LIMIT: Duration = Duration::from_millis(1500);
/// Of the watchdog, which counts them: where this thread itself was kept away it has ticked once.
type Ticks = u32;
const TICKS: Ticks = 3;

/// Flips in a row that nobody waits for, after which they are not watched: more, and frames that come now just before a
/// refresh and now just after it would cost two calls more each time.
const UNWAITED: u32 = 8;

/// How long before a refresh a frame must come to be in time for it, as a part of the refresh.
const IN_TIME: u64 = 4;

/// Longest time for a capture: vkms composes in software, and takes a second where it is emulated and busy.
const CAPTURE_LIMIT: Duration = Duration::from_secs(20);

/// Frames held on the steady path: on screen, on its way there, and one that came early.
const HOLDS: u32 = 3;

struct Running {
    screen: Option<Screen>,
    events: EventBuffer,
    /// On while somebody waits for a flip. Otherwise it is read when the next frame comes, and what has left the screen
    /// goes back to the camera then: one wake-up a frame less, and [`HOLDS`] counts that frame anyway.
    flips: Watch,
    /// Flips in a row that nobody waited for.
    unwaited: u32,
    on_screen: Option<Frame>,
    /// Committed, with the watchdog's ticks since.
    in_flight: Option<(Frame, Ticks)>,
    waiting: VecDeque<Frame>,
    /// When the last of those came.
    came: Timestamp,
    /// Set while a frame waits for a newer one.
    held: Alarm,
    /// No more will come.
    ending: bool,
    /// Says when the capture of the flip in flight is written.
    capture: Option<Fence>,
}

/// What flips have left behind.
#[derive(Default)]
struct Flipped {
    /// When the last was on screen.
    at: Option<u64>,
    /// What it replaced, to be dropped after what is urgent: that is what queues it at the camera again.
    left: Option<Frame>,
}

struct Display {
    config: KmsSink,
    name: String,
    account: Option<Account>,
    output: Option<Output>,
    placement: Option<Placement>,
    imports: ImportCache<FrameBuffer>,
    target: Option<DumbBuffer>,
    running: Option<Running>,
    on_capture: Option<OnCapture>,
    flips: u64,
    /// Frames that were not committed as they came, since the flip before was still under way.
    waited: u64,
}

fn device_failed(error: DeviceError) -> Failure {
    let kind = match error {
        DeviceError::InUse { .. } => FailureKind::InUse,
        DeviceError::Query { .. } => FailureKind::Device,
        _ => FailureKind::Config,
    };
    Failure::new(kind, error)
}

fn output_failed(error: OutputError) -> Failure {
    match error {
        OutputError::Device(e) => device_failed(e),
        e => Failure::new(FailureKind::Config, e),
    }
}

fn commit_failed(error: CommitError) -> Failure {
    match error {
        CommitError::LostMaster => Failure::new(FailureKind::InUse, error),
        CommitError::Unplugged => Failure::new(FailureKind::Unplugged, error),
        CommitError::Device(e) => device_failed(e),
        e => Failure::new(FailureKind::Device, e),
    }
}

/// The output called `name`, or the first with a display, on whichever card.
fn find_any(name: Option<&str>) -> Result<Output, Failure> {
    let mut refused = None;
    for card in Card::find() {
        let found = card.and_then(|info| Card::open(info.path)).map_err(device_failed);
        match found.and_then(|card| Output::find(&card, name).map_err(output_failed)) {
            Ok(output) => return Ok(output),
            Err(failure) => refused = refused.or(Some(failure)),
        }
    }
    let none = || Failure::new(FailureKind::Config, "there is no display (no /dev/dri/card* with connectors)");
    Err(refused.unwrap_or_else(none))
}

fn wait_for(capture: &Fence) -> std::io::Result<()> {
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no capture in {CAPTURE_LIMIT:?}"));
    if capture.wait(CAPTURE_LIMIT)? { Ok(()) } else { Err(late()) }
}

impl Display {
    fn new(config: KmsSink) -> Display {
        Display {
            config,
            name: String::new(),
            account: None,
            output: None,
            placement: None,
            imports: ImportCache::new(),
            target: None,
            running: None,
            on_capture: None,
            flips: 0,
            waited: 0,
        }
    }

    fn find(&self) -> Result<Output, Failure> {
        let name = self.config.connector.as_deref();
        let output = match &self.config.card {
            Some(path) => Output::find(&Card::open(path).map_err(device_failed)?, name).map_err(output_failed)?,
            None => find_any(name)?,
        };
        output.card().become_master().map_err(device_failed)?;
        Ok(output)
    }

    /// Commits `frame`; `Ok(Some)` gives it back where the flip before is still pending.
    fn commit(&mut self, frame: Frame) -> Result<Option<Frame>, Failure> {
        let (Some(running), Some(output)) = (&mut self.running, &self.output) else { return Ok(Some(frame)) };
        let card = output.card();
        let import = |b: &Shrbuf| FrameBuffer::of_shrbuf(card, b);
        let fb = self.imports.get(&frame.buffer, import).map_err(|e| Failure::new(FailureKind::Device, e))?;
        // Whoever is still writing the buffer is waited for by the display, not by us.
        let fence = if frame.buffer.has_fences() {
            frame.buffer.export_fence(0, Access::Read).map_err(|e| Failure::new(FailureKind::Device, e))?
        } else {
            None
        };
        let in_fence = fence.as_ref().map(std::os::fd::AsFd::as_fd);
        let flip = Flip { frame: &fb, in_fence, user_data: frame.sequence };
        let committed = match (&mut running.screen, &self.placement) {
            (Some(screen), _) => match &self.target {
                Some(target) if self.on_capture.is_some() => {
                    screen.flip_and_capture(&flip, target.frame()).map(|fence| running.capture = Some(fence))
                }
                _ => screen.flip(&flip),
            },
            (None, Some(placement)) => {
                let wanted = self.on_capture.is_some() || self.config.screenshot.is_some();
                let writeback = if wanted { Writeback::find(output).map_err(device_failed)? } else { None };
                if let Some(w) = &writeback {
                    let target = w.target(output, placement, Format::Xr24.drm().unwrap_or_default());
                    self.target = Some(target.map_err(|e| Failure::new(FailureKind::Device, e))?);
                }
                Screen::start(output, placement, writeback, &flip).map(|screen| running.screen = Some(screen))
            }
            (None, None) => return Err(Failure::new(FailureKind::Config, "started without a negotiated stream")),
        };
        match committed {
            Ok(()) => {
                self.flips += 1;
                running.in_flight = Some((frame, 0));
                Ok(None)
            }
            Err(CommitError::Busy) => Ok(Some(frame)),
            Err(e) => Err(commit_failed(e)),
        }
    }

    /// Commits what waits, unless a flip is under way.
    fn next(&mut self) -> Result<(), Failure> {
        let Some(running) = &mut self.running else { return Ok(()) };
        if running.in_flight.is_some() {
            return Ok(());
        }
        let Some(frame) = running.waiting.pop_front() else { return Ok(()) };
        running.held.clear();
        if let (Some(back), Some(running)) = (self.commit(frame)?, &mut self.running) {
            running.waiting.push_front(back);
        }
        Ok(())
    }

    /// The flips that are over.
    fn flipped(&mut self, context: &mut Context<'_>) -> Result<Flipped, Failure> {
        let mut flipped = Flipped::default();
        let (Some(running), Some(output)) = (&mut self.running, &self.output) else { return Ok(flipped) };
        let Running { events, screen, in_flight, on_screen, capture, .. } = running;
        let mine = |crtc: Option<_>| screen.as_ref().is_some_and(|s| crtc.is_none_or(|c| c == s.crtc()));
        for event in output.card().read_events(events).map_err(|e| Failure::new(FailureKind::Device, e))? {
            if !mine(event.crtc) {
                continue;
            }
            let Some((frame, _)) = in_flight.take() else { continue };
            context.shown(frame.timestamp, Timestamp(event.time_ns));
            if let (Some(fence), Some(target), Some(captured)) = (capture.take(), &self.target, &mut self.on_capture) {
                wait_for(&fence).map_err(|e| Failure::new(FailureKind::Device, e))?;
                captured(&frame, target.buffer());
            }
            flipped.left = on_screen.replace(frame).or(flipped.left);
            flipped.at = Some(event.time_ns);
        }
        Ok(flipped)
    }

    /// What the display had to say. Watched on while now and then somebody waits.
    fn event(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let flipped = self.flipped(context)?;
        if let (Some(running), Some(_)) = (&mut self.running, flipped.at) {
            let waited = running.ending || !running.waiting.is_empty() || self.on_capture.is_some();
            running.unwaited = if waited { 0 } else { running.unwaited + 1 };
            running.flips.set(running.unwaited < UNWAITED)?;
        }
        match flipped.at {
            Some(at) if self.holds_back(at) => Ok(()),
            _ => self.next(),
        }
    }

    /// The flips that nobody has watched for.
    fn catch_up(&mut self, context: &mut Context<'_>) -> Result<Flipped, Failure> {
        match &self.running {
            Some(r) if r.in_flight.is_some() && !r.flips.is_on() => self.flipped(context),
            _ => Ok(Flipped::default()),
        }
    }

    /// Whether the frame that waits is to wait on for a newer one, after a flip at `flipped`. At the display's rate that
    /// comes a refresh after this one, and so as long before the next flip.
    fn holds_back(&self, flipped: u64) -> bool {
        let (Some(running), Some(placement)) = (&self.running, &self.placement) else { return false };
        let Some(refresh) = refresh_ns(&placement.mode) else { return false };
        let in_time = Timestamp(flipped).since(running.came) >= refresh / IN_TIME;
        if self.config.order != Order::Latest || running.waiting.is_empty() || running.ending || !in_time {
            return false;
        }
        running.held.set(Timestamp(flipped + refresh));
        true
    }

    fn watch(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let _left = self.catch_up(context)?.left;
        let Some(running) = &mut self.running else { return Ok(()) };
        if let Some((frame, ticks)) = &mut running.in_flight {
            *ticks += 1;
            if *ticks > TICKS {
                let pending = frame.buffer.has_fences();
                let why = if pending { "; the frame's producer may not have signalled its fence" } else { "" };
                let text = format!("a flip has not completed for {FLIP_LIMIT:.1?}: the display is off or gone{why}");
                return Err(Failure::new(FailureKind::Stalled, text));
            }
        }
        // A flip that was refused as busy though none of ours is under way is tried again.
        self.next()
    }

    fn finish_if_done(&mut self, context: &mut Context<'_>) {
        if self.running.as_ref().is_some_and(|r| r.ending && r.in_flight.is_none() && r.waiting.is_empty()) {
            context.finish();
        }
    }

    fn write_screenshot(&mut self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let (Some(running), Some(account)) = (&mut self.running, &self.account) else { return Ok(()) };
        let Some(frame) = &running.on_screen else { return Ok(()) };
        let card = running.screen.as_ref().map(|s| s.card().clone());
        if let (Some(screen), Some(target), Some(card)) = (&mut running.screen, &self.target, card) {
            let fb = self.imports.get(&frame.buffer, |b| FrameBuffer::of_shrbuf(&card, b))?;
            let flip = Flip { frame: &fb, in_fence: None, user_data: 0 };
            let fence = screen.flip_and_capture(&flip, target.frame())?;
            wait_for(&fence)?;
            return Ok(crate::image::write_png(path, target.buffer(), frame.color, account)?);
        }
        Ok(crate::image::write_png(path, &frame.buffer, frame.color, account)?)
    }
}

impl Element for Display {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn join(&mut self, environment: &Environment) {
        self.name.clone_from(&environment.name);
        let ledger: &Ledger = &environment.ledger;
        self.account = Some(ledger.account(&self.name, Reason::Inspect));
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        self.imports.clear();
        self.target = None;
        self.output = None;
        let output = self.find()?;
        let mut video: Vec<Video> = Vec::new();
        for plane in output.planes() {
            for (fourcc, modifiers) in plane.formats.iter() {
                let Some(format) = Format::from_drm(fourcc) else { continue };
                let modifiers: Vec<Modifier> = modifiers.iter().copied().map(Modifier).collect();
                match video.iter_mut().find(|v| v.format == format) {
                    Some(Video { modifiers: Modifiers::List(known), .. }) => {
                        known.extend(modifiers.into_iter().filter(|m| !known.contains(m)).collect::<Vec<_>>());
                    }
                    _ => video.push(Video {
                        format,
                        modifiers: Modifiers::List(modifiers),
                        // Larger and smaller than a mode may work: TEST_ONLY decides, with a real frame.
                        sizes: vec![SizeOffer { sizes: Sizes::ANY, rates: Rates::Any }],
                        plane_segments: true,
                    }),
                }
            }
        }
        let natural = output.current().or(output.preferred()).map(|m| {
            let (width, height) = m.size();
            Size::new(width.into(), height.into())
        });
        self.output = Some(output);
        Ok(InputOffer {
            video,
            memory: Consumes { kinds: vec![MemoryKind::DmaBuf], stride_align: 1, holds: HOLDS },
            wanted: Wanted::default(),
            natural,
        })
    }

    fn import(&mut self, _input: usize, _stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        self.imports.clear();
        self.placement = None;
        let Some(output) = &self.output else { return Err(Refusal::new("the display is not open")) };
        let card = output.card();
        let mut first = None;
        for b in buffers {
            let fb =
                self.imports.get(b, |b| FrameBuffer::of_shrbuf(card, b)).map_err(|e| Refusal::new(e.to_string()))?;
            first.get_or_insert(fb);
        }
        let Some(first) = first else { return Err(Refusal::new("there are no buffers")) };
        let found = output.plan_for(&first).map_err(|e: PlanError| Refusal::new(e.to_string()))?;
        self.placement = found.into_iter().next();
        Ok(())
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let Some(output) = &self.output else {
            return Err(Failure::new(FailureKind::Config, "started without a negotiated stream"));
        };
        let mut flips = start.watch_at_times(output.card().clone(), EVENT)?;
        flips.set(self.on_capture.is_some())?;
        start.every(FLIP_LIMIT / TICKS, WATCHDOG);
        let held = start.alarm(HELD);
        self.running = Some(Running {
            screen: None,
            events: EventBuffer::new(),
            flips,
            unwaited: 0,
            on_screen: None,
            in_flight: None,
            // A pool's worth, so that the steady path never grows it.
            waiting: VecDeque::with_capacity(shrbuf::pool::MAX_BUFFERS),
            came: Timestamp(0),
            held,
            ending: false,
            capture: None,
        });
        Ok(())
    }

    fn ready(&mut self, token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        match token {
            EVENT => self.event(context)?,
            HELD => self.next()?,
            _ => self.watch(context)?,
        }
        self.finish_if_done(context);
        Ok(())
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        let flipped = self.catch_up(context)?;
        let Some(running) = &mut self.running else { return Ok(()) };
        if self.config.order == Order::Latest {
            context.dropped(running.waiting.len() as u64);
            running.waiting.clear();
        }
        running.waiting.push_back(frame);
        if running.in_flight.is_some() {
            running.came = Timestamp::now();
            running.unwaited = 0;
            running.flips.set(true)?;
            self.waited += 1;
        }
        self.next()?;
        drop(flipped.left);
        Ok(())
    }

    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        if let Some(running) = &mut self.running {
            running.ending = true;
            running.flips.set(true)?;
        }
        self.next()?;
        self.finish_if_done(context);
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(path) = self.config.screenshot.clone()
            && let Err(error) = self.write_screenshot(&path)
        {
            tracing::warn!(element = self.name, path = %path.display(), error, "no screenshot");
        }
        if let Some(mut running) = self.running.take() {
            // vkms goes on writing a capture after its mode has changed, past the end of it.
            if let Some(Err(error)) = running.capture.take().map(|fence| wait_for(&fence)) {
                tracing::warn!(element = self.name, %error, "a capture is given up");
            }
            if let Some(screen) = running.screen.take()
                && let Err(error) = screen.stop()
            {
                tracing::warn!(element = self.name, %error, "what was on the display before does not come back");
            }
        }
        self.target = None;
        self.output = None;
        self.imports.clear();
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        report("flips", self.flips);
        report("waited", self.waited);
        report("imports", self.imports.misses());
    }
}
