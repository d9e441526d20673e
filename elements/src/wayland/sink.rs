//! `wayland-sink`: frames in a window, by commits of imported buffers.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use shrbuf::{Account, MemoryKind, Reason, Shrbuf};
use shrbuf_pipeline::{
    Build, BuildError, Consumes, Context, Element, Environment, Events, Failure, FailureKind, Frame, InputOffer, Ports,
    Refusal, Start, Stream, Video, Wanted, Watch, choices, properties,
};

use super::buffer::shm_formats;
use super::error::WaylandError;
use super::feedback::Feedback;
use super::place::Fit;
use super::session::{Session, socket_path};
use super::window::WindowSpec;

choices! {
    /// Which frame is shown when several wait.
    pub enum Order {
        /// Every one, in order. Of those that come while the window is hidden most are dropped, and counted: or a camera
        /// would have no buffer left.
        Fifo = "fifo",
        /// The newest; the others are dropped and counted.
        Latest = "latest",
    }
}

properties! {
    /// Frames in a window of a Wayland desktop, without a copy where they are dma-bufs.
    ///
    /// Each buffer is made known to the compositor once (linux-dmabuf, with the modifiers that its feedback lists); a
    /// frame is one commit, at the compositor's pace. Its buffer is let go when the compositor says so, by a point of a
    /// timeline (linux-drm-syncobj) or with a fence (linux-explicit-synchronization) where it does that; that is looked for
    /// when the next frame comes, if not before. Memory that is no dma-buf goes through wl_shm: no copy is made here, but the
    /// compositor makes one, which the plan says (`shrbuf explain`) and `copies` does not deny. What YUV code values mean is told (wp_color_representation_v1) where the compositor can be; where
    /// it cannot, and they are none of those that compositors guess, a warning says so. Closing the window ends the run.
    ///
    /// The window has a title bar where the compositor draws one (xdg-decoration); where it leaves that to its clients, as
    /// GNOME does, there is none, and the window is moved and closed by the desktop's keys or its overview.
    ///
    /// ```toml
    /// [element.window]
    /// type = "wayland-sink"
    /// title = "camera"
    /// ```
    pub struct WaylandSink = "wayland-sink" {
        /// Compositor's socket, a name or a path; not set, that of WAYLAND_DISPLAY.
        display: Option<String> = None,
        /// Title of the window; not set, the element's name.
        title: Option<String> = None,
        /// By what the desktop knows the program (its icon, its rules for windows).
        app_id: String = "shrbuf".into(),
        /// Takes the whole screen.
        fullscreen: bool = false,
        /// How the picture fills a window of another shape, where the compositor can scale.
        fit: Fit = Fit::Contain,
        /// Which frame is shown when several wait.
        order: Order = Order::Fifo,
        /// Longest time without an answer of the compositor before the run fails as stalled; not set, 5 s.
        stall: Option<Duration> = None,
        /// PNG of the last frame, written at the end.
        screenshot: Option<PathBuf> = None,
    }
}

impl Build for WaylandSink {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        Ok(Box::new(Sink {
            config: self,
            name: String::new(),
            account: None,
            session: None,
            stream: None,
            running: None,
            renegotiates: false,
            counts: Counts::default(),
        }))
    }
}

const SOCKET: u32 = 0;
const WATCHDOG: u32 = 1;
const RELEASED: u32 = 2;

const TICK: Duration = Duration::from_millis(500);
/// Longest time for an answer: desktops call a client hung after about as long.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A compositor that has answered in this time, but has not asked for another frame, does not show the window.
const HIDDEN_TICKS: u32 = 2;

/// Frames held on the steady path: on screen, on its way there, and one that came early, or that the compositor has done
/// with.
const HOLDS: u32 = 3;
/// Ticks for which everything is heard at once after the window has got another size: more are likely to follow, with a
/// person who looks at it.
const RESIZING: u32 = 2;

/// What a stream was agreed to be, and on which word of the compositor.
struct Agreed {
    stream: Stream,
    feedback: Feedback,
}

struct Running {
    waiting: VecDeque<Frame>,
    /// Kept for a screenshot alone.
    last: Option<Frame>,
    ending: bool,
    closed: bool,
    /// Requests are waiting for room in the socket.
    unsent: bool,
    /// Ticks since the compositor last read, or answered.
    silent: u32,
    /// Ticks since the last commit.
    idle: u32,
    /// Ticks left in which the window may get yet another size.
    resizing: u32,
    /// On while somebody waits for what the compositor says. Otherwise it is read when the next frame comes, and what the
    /// compositor has done with goes back then: one or two wake-ups a frame less, and [`HOLDS`] counts that frame anyway.
    socket: Watch,
    /// As `socket`, of the points of timelines.
    points: Option<Watch>,
}

impl Running {
    /// Whether what the compositor says is wanted at once. No frame comes to read it where there is none for a while, or
    /// where too few buffers are left.
    fn listens(&self, held: usize) -> bool {
        let stopped = self.ending || self.idle > 1;
        stopped || !self.waiting.is_empty() || self.resizing > 0 || held > HOLDS as usize
    }

    /// Whether frames flow: one was committed since the last tick, for which the compositor had asked. The next will read what
    /// else it says.
    fn flows(&self) -> bool {
        self.idle == 0 && !self.ending && !self.unsent && !self.socket.is_on()
    }

    fn tick(&mut self) {
        self.idle += 1;
        self.resizing = self.resizing.saturating_sub(1);
    }
}

/// How what the compositor says is taken.
type Read = fn(&mut Session) -> Result<bool, WaylandError>;

/// Over all connections.
#[derive(Default, Clone, Copy)]
struct Counts {
    commits: u64,
    waited: u64,
    presented: u64,
    discarded: u64,
    scanned_out: u64,
    imports: u64,
    miscolored: u64,
}

struct Sink {
    config: WaylandSink,
    name: String,
    account: Option<Account>,
    session: Option<Session>,
    stream: Option<Agreed>,
    running: Option<Running>,
    /// The run ends because of better formats: the window stays for the next.
    renegotiates: bool,
    counts: Counts,
}

impl Sink {
    fn open(&mut self) -> Result<&mut Session, WaylandError> {
        let path = socket_path(self.config.display.as_deref())?;
        let title = self.config.title.as_deref().unwrap_or(&self.name);
        let spec = WindowSpec {
            title,
            app_id: &self.config.app_id,
            fullscreen: self.config.fullscreen,
            patience: self.patience(),
        };
        let session = Session::open(&path, &spec, self.config.fit)?;
        if session.state.clock.is_none() {
            let why = match session.globals.presentation {
                None => "the compositor does not say when a frame is shown (wp_presentation)",
                Some(_) => "the compositor's clock is none that this machine has",
            };
            tracing::warn!(element = self.name, why, "latency is not measured");
        }
        Ok(self.session.insert(session))
    }

    fn patience(&self) -> Duration {
        self.config.stall.unwrap_or(ANSWER_LIMIT)
    }

    /// Ends the session, and keeps what it has counted.
    fn close(&mut self) {
        self.counts = self.all_counts();
        self.session = None;
    }

    fn all_counts(&self) -> Counts {
        let Some(session) = &self.session else { return self.counts };
        let state = &session.state;
        Counts {
            presented: self.counts.presented + state.presented,
            discarded: self.counts.discarded + state.discarded,
            scanned_out: self.counts.scanned_out + state.scanned_out,
            imports: self.counts.imports + session.imports(),
            ..self.counts
        }
    }

    /// Commits what waits, unless the compositor has not asked for another frame yet.
    fn next(&mut self) -> Result<(), Failure> {
        let (Some(running), Some(session)) = (&mut self.running, &mut self.session) else { return Ok(()) };
        if session.state.in_flight {
            return Ok(());
        }
        let Some(frame) = running.waiting.pop_front() else { return Ok(()) };
        if self.config.screenshot.is_some() {
            running.last = Some(frame.clone());
        }
        let color = frame.color;
        if !session.show(frame)? {
            if self.counts.miscolored == 0 {
                tracing::warn!(
                    element = self.name,
                    matrix = ?color.matrix,
                    range = ?color.range,
                    "the compositor cannot be told of these colours (wp_color_representation_v1), and most take BT.601 of \
                     limited range for granted: they may look wrong; RGB (through `gpu`) would not"
                );
            }
            self.counts.miscolored += 1;
        }
        self.counts.commits += 1;
        running.idle = 0;
        Ok(())
    }

    /// Sends what there is to send, then gives back what the compositor has done with: that is what queues it at the camera
    /// again.
    fn flush(&mut self) -> Result<(), Failure> {
        let (Some(running), Some(session)) = (&mut self.running, &mut self.session) else { return Ok(()) };
        running.unsent = !session.flush()?;
        session.give_back()?;
        let listens = running.listens(session.state.held.len());
        running.socket.set(listens)?;
        if let Some(points) = &mut running.points {
            points.set(listens)?;
            if listens {
                session.await_points()?;
            }
        }
        Ok(())
    }

    /// What the compositor has said since nobody listened, by this `read`.
    fn catch_up(&mut self, context: &mut Context<'_>, read: Read) -> Result<(), Failure> {
        let (Some(running), Some(session)) = (&self.running, &mut self.session) else { return Ok(()) };
        if running.socket.is_on() {
            return Ok(());
        }
        session.reap()?;
        self.event(context, read)
    }

    /// What the compositor had to say, by this `read`.
    fn event(&mut self, context: &mut Context<'_>, read: Read) -> Result<(), Failure> {
        let (Some(running), Some(session)) = (&mut self.running, &mut self.session) else { return Ok(()) };
        if read(session)? {
            running.resizing = RESIZING;
        }
        for (captured, shown) in session.state.shown.drain(..) {
            context.shown(captured, shown);
        }
        if session.state.closed && !running.closed {
            running.closed = true;
            running.waiting.clear();
            context.end_run();
        }
        if std::mem::take(&mut session.state.feedback_is_new) {
            self.follow()?;
        }
        self.next()
    }

    /// Whether the compositor's new word on formats asks for other buffers.
    fn follow(&mut self) -> Result<(), Failure> {
        let (Some(session), Some(Agreed { stream, feedback })) = (&self.session, &self.stream) else { return Ok(()) };
        let (Some(now), Some(fourcc)) = (&session.state.feedback, stream.format.drm()) else { return Ok(()) };
        if stream.origin.kind() != MemoryKind::DmaBuf {
            return Ok(());
        }
        let gone = now.takes(fourcc, stream.modifier).is_none();
        // Who knows of no modifiers can do nothing better.
        let better = stream.modifier.is_some_and(|m| now.is_better_with_another(feedback, fourcc, m));
        let moved = stream.modifier.is_some() && now.main_device != feedback.main_device;
        let why = match (gone, moved, better) {
            (true, ..) => "does not take it any more",
            (_, true, _) => "draws on another device now",
            (_, _, true) => "would rather have other modifiers now",
            _ => return Ok(()),
        };
        self.renegotiates = true;
        Err(Failure::new(FailureKind::Changed, format!("{stream}: the compositor {why}")))
    }

    fn watch(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        if let Some(running) = self.running.as_mut().filter(|r| r.flows()) {
            running.silent = 0;
            running.tick();
            return Ok(());
        }
        self.catch_up(context, Session::read)?;
        self.flush()?;
        let patience = self.patience();
        let (Some(running), Some(session)) = (&mut self.running, &mut self.session) else { return Ok(()) };
        running.tick();
        // At the end, for word of what was shown too: one that shows nothing (its screen is off) may never send it.
        let waits = session.state.in_flight || (running.ending && session.state.untold > 0);
        let answers = !running.unsent && (!waits || session.ask());
        running.silent = if answers { 0 } else { running.silent + 1 };
        // Counted, and not taken from a clock: where this thread itself was kept away it has ticked once.
        if TICK * running.silent >= patience {
            let what = if running.unsent { "room in its socket" } else { "an answer" };
            return Err(WaylandError::Silent { what, seconds: patience.as_secs() }.into());
        }
        if waits && answers && running.idle > HIDDEN_TICKS {
            let kept = usize::from(!running.ending);
            let dropped = running.waiting.len().saturating_sub(kept);
            running.waiting.drain(..dropped);
            context.dropped(dropped as u64);
            if running.ending {
                context.finish();
            }
        }
        self.flush()
    }

    fn finish_if_done(&mut self, context: &mut Context<'_>) {
        let (Some(running), Some(session)) = (&self.running, &self.session) else { return };
        let told = !session.state.in_flight && session.state.untold == 0;
        if running.ending && running.waiting.is_empty() && (told || running.closed) {
            context.finish();
        }
    }

    fn write_screenshot(&self) -> Result<(), Box<dyn std::error::Error>> {
        let frame = self.running.as_ref().and_then(|r| r.last.as_ref());
        if let (Some(path), Some(frame), Some(account)) = (&self.config.screenshot, frame, &self.account) {
            crate::image::write_png(path, &frame.buffer, frame.color, account)?;
        }
        Ok(())
    }
}

impl Element for Sink {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn join(&mut self, environment: &Environment) {
        self.name.clone_from(&environment.name);
        self.account = Some(environment.ledger.account(&self.name, Reason::Inspect));
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        if !std::mem::take(&mut self.renegotiates) {
            self.close();
        }
        let session = match &mut self.session {
            Some(session) => session,
            None => self.open()?,
        };
        let feedback = session.feedback();
        let mut video = feedback.video();
        let mut kinds = Vec::new();
        if !video.is_empty() {
            kinds.push(MemoryKind::DmaBuf);
        }
        for format in shm_formats(&session.state.shm_formats) {
            if !video.iter().any(|v| v.format == format) {
                video.push(Video::linear(format));
            }
        }
        kinds.push(MemoryKind::Memfd);
        let configured = session.state.configured;
        let natural = configured.size.or(configured.bounds);
        let holds = HOLDS + u32::from(self.config.screenshot.is_some());
        let memory = Consumes { kinds, holds, ..Consumes::cpu() };
        Ok(InputOffer { video, memory, wanted: Wanted::default(), natural })
    }

    fn import(&mut self, _input: usize, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        let Some(session) = &mut self.session else { return Err(Refusal::new("there is no window")) };
        session.import(buffers).map_err(|error| match error {
            WaylandError::Import(refused) => refused.into(),
            error => Refusal::new(error.to_string()),
        })?;
        self.stream = Some(Agreed { stream: *stream, feedback: session.feedback() });
        Ok(())
    }

    fn copied(&self, _input: usize) -> Option<String> {
        let memfd = self.stream.as_ref().is_some_and(|agreed| agreed.stream.origin.kind() == MemoryKind::Memfd);
        memfd.then(|| "copied by the compositor (wl_shm)".to_owned())
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let Some(session) = &self.session else {
            return Err(Failure::new(FailureKind::Config, "started without a negotiated stream"));
        };
        let socket = start.watch_at_times(session.socket(), SOCKET)?;
        let points = session.done().map(|done| start.watch_at_times(done, RELEASED)).transpose()?;
        start.every(TICK, WATCHDOG)?;
        self.running = Some(Running {
            // A pool's worth, so that the steady path never grows it.
            waiting: VecDeque::with_capacity(shrbuf::pool::MAX_BUFFERS),
            last: None,
            ending: false,
            closed: false,
            unsent: false,
            silent: 0,
            idle: 0,
            resizing: 0,
            socket,
            points,
        });
        Ok(())
    }

    fn ready(&mut self, token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        match token {
            SOCKET => {
                self.event(context, Session::read)?;
                self.flush()?;
            }
            RELEASED => {
                if let Some(session) = &mut self.session {
                    // Before the frames are asked: what is signalled after that is told again.
                    session.heard();
                    session.reap()?;
                }
                self.flush()?;
            }
            _ => self.watch(context)?,
        }
        self.finish_if_done(context);
        Ok(())
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        self.catch_up(context, Session::read_for_next)?;
        let (Some(running), Some(session)) = (&mut self.running, &self.session) else { return Ok(()) };
        if running.closed {
            context.dropped(1);
            return self.flush();
        }
        if self.config.order == Order::Latest {
            context.dropped(running.waiting.len() as u64);
            running.waiting.clear();
        }
        running.waiting.push_back(frame);
        if session.state.in_flight {
            self.counts.waited += 1;
        }
        self.next()?;
        self.flush()
    }

    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        if let Some(running) = &mut self.running {
            running.ending = true;
            running.idle = 0;
        }
        self.next()?;
        self.flush()?;
        self.finish_if_done(context);
        Ok(())
    }

    fn stop(&mut self) {
        if let Err(error) = self.write_screenshot() {
            tracing::warn!(element = self.name, error, "no screenshot");
        }
        self.running = None;
        match &mut self.session {
            Some(session) if self.renegotiates => session.let_go(),
            _ => self.close(),
        }
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let counts = self.all_counts();
        report("commits", counts.commits);
        report("waited", counts.waited);
        report("presented", counts.presented);
        report("discarded", counts.discarded);
        report("scanned-out", counts.scanned_out);
        report("imports", counts.imports);
        report("miscolored", counts.miscolored);
    }
}
