//! The element.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::base_src::CreateSuccess;
use gst_base::subclass::prelude::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use shrbuf::ipc::{Connection, Consumer, IpcError, Next, Received, Wishes};
use shrbuf::pool::MAX_BUFFERS;
use shrbuf::{MemoryKind, State};
use shrbuf_gst_memory::Lender;

use super::Policy;
use super::unfit::Unfit;
use crate::video::{self, Picture};
use crate::{clock, lock};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long no frame comes, downstream having all that the producer lets out, until that is said.
const PATIENCE_MS: u16 = 2000;

static CATEGORY: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("shrbufsrc", gst::DebugColorFlags::empty(), Some("frames of another process"))
});

struct Settings {
    path: Option<String>,
    policy: Policy,
    window: u32,
    timeout: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        let timeout = DEFAULT_TIMEOUT.as_nanos() as u64;
        Settings { path: None, policy: Policy::default(), window: 0, timeout }
    }
}

/// What everybody may ask about.
struct Stream {
    caps: gst::Caps,
    usual: bool,
    duration: Option<gst::ClockTime>,
    window: u32,
    wake: Arc<EventFd>,
}

enum Link {
    /// Frames are not wanted yet.
    Connected(Connection),
    Consuming(Box<Consumer>),
    /// It has changed, and is not connected to again yet; or starting it failed, which has been said.
    Lost,
}

#[derive(Clone, Copy)]
enum Last {
    Ended,
    Changed,
}

/// The streaming thread's own.
struct Run {
    link: Link,
    lender: Lender,
    /// Frames that came before they were filled, and those after them.
    waiting: VecDeque<Received>,
    /// No more come.
    last: Option<Last>,
    /// That downstream keeps all frames there may be has been said.
    warned: bool,
    /// Matrix and range that the caps say.
    color: (u8, bool),
    wake: Arc<EventFd>,
}

/// See [`super`].
#[derive(Default, glib::Properties)]
#[properties(wrapper_type = super::ShrbufSrc)]
pub struct ShrbufSrc {
    #[property(
        name = "path", nick = "Path", get, set, type = Option<String>, member = path,
        blurb = "Socket of the producer"
    )]
    #[property(
        name = "policy", nick = "Policy", get, set, type = Policy, member = policy,
        blurb = "What happens to frames for which there is no room here",
        builder(Policy::default())
    )]
    #[property(
        name = "window", nick = "Window", get, set, type = u32, member = window, maximum = MAX_BUFFERS as u32,
        blurb = "Frames to hold at once, as far as the producer allows; 0 for what it allows"
    )]
    #[property(
        name = "granted", nick = "Granted", get = Self::granted, type = u32, maximum = MAX_BUFFERS as u32,
        blurb = "Frames that may be held at once, as the producer answered; 0 while there is no connection"
    )]
    #[property(
        name = "timeout", nick = "Timeout", get, set, type = u64, member = timeout,
        default = DEFAULT_TIMEOUT.as_nanos() as u64,
        blurb = "Longest time, in ns, that the producer may take to answer as it is connected to"
    )]
    settings: Mutex<Settings>,
    stream: Mutex<Option<Stream>>,
    run: Mutex<Option<Run>>,
    /// The thread that pauses the element just now.
    pausing: Mutex<Option<ThreadId>>,
}

#[glib::object_subclass]
impl ObjectSubclass for ShrbufSrc {
    const NAME: &'static str = "GstShrbufSrc";
    type Type = super::ShrbufSrc;
    type ParentType = gst_base::PushSrc;
}

#[glib::derived_properties]
impl ObjectImpl for ShrbufSrc {
    fn constructed(&self) {
        self.parent_constructed();
        let source = self.obj();
        source.set_live(true);
        source.set_format(gst::Format::Time);
    }
}

impl GstObjectImpl for ShrbufSrc {}

impl ElementImpl for ShrbufSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            let about = "Frames of another process, in that process's memory";
            gst::subclass::ElementMetadata::new("Shared buffer source", "Source/Video", about, "shrbuf")
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let always = gst::PadPresence::Always;
            // Fails only for a name or caps that cannot be.
            gst::PadTemplate::new("src", gst::PadDirection::Src, always, &video::template()).into_iter().collect()
        });
        &TEMPLATES
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let pauses = transition == gst::StateChange::PlayingToPaused;
        *lock(&self.pausing) = pauses.then(|| std::thread::current().id());
        let changed = self.parent_change_state(transition);
        *lock(&self.pausing) = None;
        changed
    }
}

fn gst_error(error: &IpcError) -> gst::ErrorMessage {
    use gst::{ResourceError as E, error_msg};
    match error {
        IpcError::NoProducer { .. } => error_msg!(E::NotFound, ["{error}"]),
        IpcError::Refused { .. } => error_msg!(E::Busy, ["{error}"]),
        IpcError::Gone => error_msg!(E::Read, ["{error}"]),
        _ => error_msg!(E::OpenRead, ["{error}"]),
    }
}

impl BaseSrcImpl for ShrbufSrc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let limit =
            |e| gst::error_msg!(gst::ResourceError::Settings, ["eventfd failed: {e}; raise the descriptor limit"]);
        let run = self.connect(Arc::new(wake.map_err(limit)?))?;
        *lock(&self.run) = Some(run);
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let run = lock(&self.run).take();
        let stream = lock(&self.stream).take();
        drop((run, stream));
        Ok(())
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn caps(&self, filter: Option<&gst::Caps>) -> Option<gst::Caps> {
        let caps = lock(&self.stream).as_ref().map_or_else(video::template, |stream| stream.caps.clone());
        Some(match filter {
            Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
            None => caps,
        })
    }

    fn negotiate(&self) -> Result<(), gst::LoggableError> {
        if let Some(unfit) = Unfit::of(self.obj().src_pad()) {
            gst::element_imp_error!(self, gst::CoreError::Negotiation, ("{unfit}"));
            return Err(gst::loggable_error!(CATEGORY, "{unfit}"));
        }
        self.parent_negotiate()
    }

    fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        let usual = lock(&self.stream).as_ref().is_none_or(|stream| stream.usual);
        if !usual && query.find_allocation_meta::<gst_video::VideoMeta>().is_none() {
            let message = "the producer pads rows or spreads planes, and downstream does not take GstVideoMeta; put \
                           an element that does behind this one (videoconvert to another format), or have the \
                           producer not pad";
            gst::element_imp_error!(self, gst::CoreError::Negotiation, ["{message}"]);
            return Err(gst::loggable_error!(CATEGORY, "{message}"));
        }
        // The memory is the producer's: no pool is made, nor one of downstream's set going.
        while query.allocation_pools().next().is_some() {
            query.remove_nth_allocation_pool(0);
        }
        Ok(())
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Latency(latency) = query.view_mut()
            && let Some(stream) = &*lock(&self.stream)
        {
            // A frame is as old as it took to capture, and at most as many wait as the producer lets us have.
            let shortest = stream.duration.unwrap_or(gst::ClockTime::ZERO);
            let longest = stream.duration.and_then(|d| d.checked_mul(u64::from(stream.window)));
            latency.set(true, shortest, longest);
            return true;
        }
        BaseSrcImplExt::parent_query(self, query)
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        // While paused it goes on waiting. If it came back because of that, and the pipeline played again by then,
        // GStreamer would take it for the end of the streaming thread.
        if *lock(&self.pausing) == Some(std::thread::current().id()) {
            return Ok(());
        }
        if let Some(stream) = &*lock(&self.stream) {
            // A full counter is readable already.
            let _ = stream.wake.write(1);
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(stream) = &*lock(&self.stream) {
            // Nothing to read where nobody had written.
            let _ = stream.wake.read();
        }
        Ok(())
    }
}

/// Exactly what the producer has. Elements that insist on the feature, or on the kernel's name of the format, can have
/// it; others find out by the memory's kind.
fn caps(picture: &Picture, dma_buf: bool) -> Result<gst::Caps, glib::BoolError> {
    let mut caps = gst::Caps::new_empty();
    if picture.plain {
        let mut plain = picture.planes.info.to_caps()?;
        if let Some(structure) = plain.make_mut().structure_mut(0) {
            // Known with the first frame.
            structure.remove_fields(["colorimetry", "chroma-site"]);
        }
        caps.merge(plain.clone());
        if dma_buf {
            caps.merge(video::with_dma_buf(plain));
        }
    }
    if let Some(drm) = &picture.drm {
        caps.merge(drm.clone());
    }
    Ok(caps)
}

impl PushSrcImpl for ShrbufSrc {
    fn create(&self, _buffer: Option<&mut gst::BufferRef>) -> Result<CreateSuccess, gst::FlowError> {
        let mut run = lock(&self.run);
        let run = run.as_mut().ok_or(gst::FlowError::Flushing)?;
        let received = loop {
            run.begin().map_err(|e| self.fail(&e))?;
            match run.next(self) {
                Ok(received) => break received,
                Err(Stop::Changed) => self.reconnect(run)?,
                Err(Stop::Flow(flow)) => return Err(flow),
                Err(Stop::Failed(e)) => return Err(self.fail(&e)),
            }
        };
        let info = received.info;
        self.say_color(run, (info.matrix, info.full_range))?;
        // It goes back when the last memory that was made of it is freed.
        let mut buffer = run.lender.pass(&received.buffer, &info).map_err(|e| {
            gst::element_imp_error!(self, gst::ResourceError::Failed, ["{e}"]);
            gst::FlowError::Error
        })?;
        drop(received);
        let writable = buffer.make_mut();
        writable.set_pts(clock::running_time(&*self.obj(), info.timestamp));
        writable.set_duration(lock(&self.stream).as_ref().and_then(|stream| stream.duration));
        Ok(CreateSuccess::NewBuffer(buffer))
    }
}

impl ShrbufSrc {
    /// Connects to the producer, whose frames everybody can ask about then.
    fn connect(&self, wake: Arc<EventFd>) -> Result<Run, gst::ErrorMessage> {
        let (path, wishes, timeout) = {
            let settings = lock(&self.settings);
            let path = settings.path.clone().filter(|path| !path.is_empty()).ok_or_else(|| {
                gst::error_msg!(gst::ResourceError::Settings, ["path is not set; it is the socket of the producer"])
            })?;
            let policy = match settings.policy {
                Policy::Producer => None,
                Policy::Block => Some(shrbuf::ipc::Policy::Block),
                Policy::DropOldest => Some(shrbuf::ipc::Policy::DropOldest),
                Policy::Latest => Some(shrbuf::ipc::Policy::Latest),
            };
            let wishes = Wishes { name: self.obj().name().into(), policy, window: settings.window };
            (path, wishes, Duration::from_nanos(settings.timeout))
        };
        let connection =
            Connection::open_unless(path.as_ref(), &wishes, timeout, wake.as_fd()).map_err(|e| gst_error(&e))?;
        self.warn_of_less(&wishes, &connection);
        let rate = connection.rate();
        let failed = |e: &dyn std::fmt::Display| gst::error_msg!(gst::ResourceError::Settings, ["{e}"]);
        let picture = Picture::of(connection.buffers(), rate).map_err(|e| failed(&e))?;
        let dma_buf = connection.buffers().iter().all(|b| b.kind() == MemoryKind::DmaBuf);
        let caps = caps(&picture, dma_buf).map_err(|e| failed(&e))?;
        let usual = picture.is_usual();
        let lender = Lender::new(connection.buffers(), picture.planes).map_err(|e| failed(&e))?;
        let duration = rate
            .filter(|(num, _)| *num > 0)
            .and_then(|(num, den)| gst::ClockTime::SECOND.mul_div_floor(u64::from(den), u64::from(num)));
        let window = connection.window();
        gst::info!(CATEGORY, imp = self, "connected to {path}: {caps}, {} buffers", connection.buffers().len());
        *lock(&self.stream) = Some(Stream { caps, usual, duration, window, wake: Arc::clone(&wake) });
        // As many as there can be, so that it never grows.
        let waiting = VecDeque::with_capacity(MAX_BUFFERS);
        let (link, color) = (Link::Connected(connection), (2, false));
        Ok(Run { link, lender, waiting, last: None, warned: false, color, wake })
    }

    /// The producer has other frames: takes those from now on, and downstream with it. Where the thread is wanted meanwhile, that
    /// is tried again as it comes back.
    fn reconnect(&self, run: &mut Run) -> Result<(), gst::FlowError> {
        run.link = Link::Lost;
        *run = match self.connect(Arc::clone(&run.wake)) {
            Ok(connected) => connected,
            Err(_) if is_wanted(&run.wake) => return Err(gst::FlowError::Flushing),
            Err(e) => {
                self.post_error_message(e);
                return Err(gst::FlowError::Error);
            }
        };
        let source = self.obj();
        if !source.negotiate() {
            // In a flush too, upon which GStreamer does it again.
            let wanted = is_wanted(&run.wake);
            return Err(if wanted { gst::FlowError::Flushing } else { gst::FlowError::NotNegotiated });
        }
        // Nobody minds where there is no bus to hear of it.
        let _ = source.post_message(gst::message::Latency::builder().src(&*source).build());
        Ok(())
    }

    fn granted(&self) -> u32 {
        lock(&self.stream).as_ref().map_or(0, |stream| stream.window)
    }

    fn fail(&self, error: &IpcError) -> gst::FlowError {
        self.post_error_message(gst_error(error));
        gst::FlowError::Error
    }

    /// Says what of the wishes the producer does not grant.
    fn warn_of_less(&self, wishes: &Wishes, connection: &Connection) {
        if wishes.policy.is_some_and(|wish| wish != connection.policy()) {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("the producer does not let frames wait as policy=block says, and drops those for which there is no room here; \
                     set that policy there (`lag = \"block\"` of an ipc-sink), or another here")
            );
        }
        let (asked, granted) = (wishes.window, connection.window());
        if asked > granted {
            let help = "set the producer's `window` higher, or this one lower";
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("the producer lets {granted} frames be held here at once, where window={asked}; {help}")
            );
        }
    }

    /// Downstream has all frames that there may be: an encoder that looks ahead would wait for ever.
    fn warn_of_kept(&self, frames: u32) {
        gst::element_imp_warning!(
            self,
            gst::CoreError::Failed,
            (
                "no frame for {} s: downstream keeps {frames}, all that the producer lets out at once (its `window`); where it \
                 keeps more before it gives one back, have it look less far ahead (x264enc: tune=zerolatency), or set the \
                 producer's `window` higher",
                PATIENCE_MS / 1000
            )
        );
    }

    /// Tells downstream of a matrix and range other than before, if it takes them.
    fn say_color(&self, run: &mut Run, color: (u8, bool)) -> Result<(), gst::FlowError> {
        if run.color == color {
            return Ok(());
        }
        run.color = color;
        let source = self.obj();
        let pad = source.src_pad();
        let Some(mut caps) = pad.current_caps() else { return Ok(()) };
        let Some(structure) = caps.make_mut().structure_mut(0) else { return Ok(()) };
        match video::colorimetry(color.0, color.1) {
            Some(colorimetry) => structure.set("colorimetry", colorimetry.to_string()),
            None => structure.remove_field("colorimetry"),
        }
        if !pad.peer_query_accept_caps(&caps) {
            gst::warning!(CATEGORY, imp = self, "downstream does not take {caps}; it goes on by what it has");
            return Ok(());
        }
        source.set_caps(&caps).map_err(|_| gst::FlowError::NotNegotiated)
    }
}

/// Why there is no frame.
enum Stop {
    Flow(gst::FlowError),
    /// The producer has others.
    Changed,
    Failed(IpcError),
}

impl Run {
    /// Has the producer send, the first time that a frame is wanted.
    fn begin(&mut self) -> Result<(), IpcError> {
        if let Link::Connected(_) = &self.link
            && let Link::Connected(connection) = std::mem::replace(&mut self.link, Link::Lost)
        {
            self.link = Link::Consuming(Box::new(connection.start()?));
        }
        Ok(())
    }

    /// **Blocks** until there is a whole frame, an end, or `wake`. Says once where that takes long because downstream keeps
    /// all frames there may be.
    fn next(&mut self, element: &ShrbufSrc) -> Result<Received, Stop> {
        let mut patience = if self.warned { PollTimeout::NONE } else { PATIENCE_MS.into() };
        loop {
            // One that is not filled when the producer ends stays what it is.
            let whole = |f: &mut Received| f.buffer.state() != State::Filling;
            let ready = self.waiting.front_mut().is_some_and(|f| self.last.is_some() || whole(f));
            if ready && let Some(mut frame) = self.waiting.pop_front() {
                frame.info.corrupt |= frame.buffer.state() != State::Filled;
                return Ok(frame);
            }
            match self.last {
                None => {}
                Some(Last::Ended) => return Err(Stop::Flow(gst::FlowError::Eos)),
                Some(Last::Changed) => return Err(Stop::Changed),
            }
            let Link::Consuming(consumer) = &mut self.link else { return Err(Stop::Failed(IpcError::Gone)) };
            match consumer.receive().map_err(Stop::Failed)? {
                Next::Frame(frame) => self.waiting.push_back(frame),
                Next::Ended => self.last = Some(Last::Ended),
                Next::Changed => self.last = Some(Last::Changed),
                // Paused, it is downstream's to keep frames.
                Next::Nothing => {
                    if !wait(consumer, &self.wake, patience)? && element.obj().current_state() == gst::State::Playing {
                        // Downstream can only have fewer until the next comes.
                        patience = PollTimeout::NONE;
                        let granted = element.granted();
                        if self.lender.lent() >= granted as usize {
                            self.warned = true;
                            element.warn_of_kept(granted);
                        }
                    }
                }
            }
        }
    }
}

/// Whether `unlock` has been called, and `unlock_stop` not yet.
fn is_wanted(wake: &EventFd) -> bool {
    let mut fds = [PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
    // Of a descriptor that is open, it does not fail.
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// False where nothing has happened for so long.
fn wait(consumer: &Consumer, wake: &EventFd, patience: PollTimeout) -> Result<bool, Stop> {
    let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let frames = consumer.as_fd();
    let end = consumer.end_fd().unwrap_or(frames);
    let mut fds = [readable(wake.as_fd()), readable(consumer.fences_fd()), readable(frames), readable(end)];
    let os = |call| move |source| Stop::Failed(IpcError::Os { call, source });
    match poll(&mut fds, patience) {
        Ok(0) => return Ok(false),
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(e) => return Err(os("poll")(e.into())),
    }
    if fds[0].any().unwrap_or(false) {
        return Err(Stop::Flow(gst::FlowError::Flushing));
    }
    if fds[1].any().unwrap_or(false) {
        consumer.reap().map_err(os("epoll_wait"))?;
    }
    Ok(true)
}
