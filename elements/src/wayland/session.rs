//! A connection to a compositor, with one window on it.
//!
//! Before frames flow it may wait for the compositor, for a limited time. While they flow nothing waits: requests are
//! sent as far as the socket takes them, and events are read as they come.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use shrbuf::{Access, Fence, ImportCache, MemoryKind, Shrbuf};
use shrbuf_pipeline::{Frame, Rect, Size};
use wayland_backend::client as backend;
use wayland_client::{Connection, EventQueue, QueueHandle};

use super::buffer::{DmaBuf, ImportError, WaylandBuffer, of_memfd};
use super::color::Color;
use super::error::WaylandError;
use super::feedback::Feedback;
use super::globals::{DMABUF_FEEDBACK, Globals};
use super::place::{Fit, place, within};
use super::state::{Asked, Held, Left, Made, Released, State};
use super::timeline::Timelines;
use super::window::{Window, WindowSpec};

/// Where the compositor listens: `display` or WAYLAND_DISPLAY, a name in XDG_RUNTIME_DIR or a path.
///
/// # Errors
/// [`WaylandError::NoDisplay`], [`WaylandError::NoRuntimeDir`].
pub fn socket_path(display: Option<&str>) -> Result<PathBuf, WaylandError> {
    let name = display.map_or_else(|| std::env::var_os("WAYLAND_DISPLAY"), |name| Some(name.into()));
    locate(name, std::env::var_os("XDG_RUNTIME_DIR"))
}

fn locate(name: Option<OsString>, folder: Option<OsString>) -> Result<PathBuf, WaylandError> {
    let name = name.filter(|n| !n.is_empty()).ok_or(WaylandError::NoDisplay)?;
    if Path::new(&name).is_absolute() {
        return Ok(name.into());
    }
    let folder = folder.filter(|f| !f.is_empty());
    let folder = folder.ok_or_else(|| WaylandError::NoRuntimeDir { name: name.display().to_string() })?;
    Ok(PathBuf::from(folder).join(name))
}

/// Connects, without waiting where the compositor does not accept.
pub(super) fn reach(path: &Path) -> Result<UnixStream, WaylandError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None);
    let address = UnixAddr::new(path);
    fd.and_then(|fd| connect(fd.as_raw_fd(), &address?).map(|()| fd.into()))
        .map_err(|e| WaylandError::Connect { path: path.to_owned(), source: e.into() })
}

/// A window, and the compositor that shows it.
pub(super) struct Session {
    pub(super) connection: Connection,
    queue: EventQueue<State>,
    pub(super) state: State,
    pub(super) globals: Globals,
    window: Window,
    imports: ImportCache<WaylandBuffer>,
    timelines: Option<Timelines>,
    fit: Fit,
    color: Color,
    /// The part of the buffer that was last shown.
    picture: Option<Rect>,
    commits: u64,
    /// Number of the answer that was last asked for.
    asked: u64,
    /// Longest time for an answer.
    limit: Duration,
}

/// The connection while there is no window yet.
struct Opening {
    connection: Connection,
    queue: EventQueue<State>,
    state: State,
    limit: Duration,
}

/// Sends what there is; false where the socket is full.
fn flush(connection: &Connection) -> Result<bool, WaylandError> {
    match connection.flush() {
        Ok(()) => Ok(true),
        Err(backend::WaylandError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Takes what has come.
fn read(queue: &mut EventQueue<State>, state: &mut State) -> Result<(), WaylandError> {
    if let Some(guard) = queue.prepare_read() {
        match guard.read() {
            Err(backend::WaylandError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {}
            result => {
                result?;
            }
        }
    }
    queue.dispatch_pending(state)?;
    state.failure.take().map_or(Ok(()), Err)
}

/// **Blocks** until `done`, no longer than `limit`.
fn wait(
    connection: &Connection,
    queue: &mut EventQueue<State>,
    state: &mut State,
    (what, limit): (&'static str, Duration),
    done: impl Fn(&State) -> bool,
) -> Result<(), WaylandError> {
    let until = Instant::now() + limit;
    loop {
        let sent = flush(connection)?;
        read(queue, state)?;
        if done(state) {
            return Ok(());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(WaylandError::Silent { what, seconds: limit.as_secs() });
        }
        let wanted = if sent { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(connection.as_fd(), wanted)], left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(WaylandError::Gone { source: e.into() }),
        }
    }
}

impl Opening {
    /// Waits until the compositor has done all that it was asked so far.
    fn round_trip(&mut self, what: &'static str) -> Result<(), WaylandError> {
        let answers = self.state.answers;
        self.connection.display().sync(&self.queue.handle(), Asked::Answer);
        self.wait(what, |s| s.answers > answers)
    }

    fn wait(&mut self, what: &'static str, done: impl Fn(&State) -> bool) -> Result<(), WaylandError> {
        wait(&self.connection, &mut self.queue, &mut self.state, (what, self.limit), done)
    }
}

impl Session {
    /// Connects and makes a window, which appears with its first frame. **Blocks** for some round trips.
    ///
    /// # Errors
    /// [`WaylandError`].
    pub(super) fn open(path: &Path, spec: &WindowSpec<'_>, fit: Fit) -> Result<Session, WaylandError> {
        let connection = Connection::from_socket(reach(path)?)
            .map_err(|e| WaylandError::Connect { path: path.to_owned(), source: io::Error::other(e) })?;
        let limit = spec.patience;
        let mut opening = Opening { queue: connection.new_event_queue(), connection, state: State::new(), limit };
        let handle = opening.queue.handle();
        let registry = opening.connection.display().get_registry(&handle, ());
        opening.round_trip("its list of interfaces")?;
        let mut globals = Globals::bind(&registry, &opening.state.listed, &handle)?;
        let timelines = globals.timelines.as_ref().and_then(|manager| Timelines::new(manager, &handle));
        if timelines.is_some() {
            // One of the two is enough.
            globals.explicit_sync = None;
        }
        let window = Window::new(&globals, &handle, spec);
        opening.round_trip("its formats")?;
        opening.wait("the window's first size", |s| s.configure.is_some())?;
        let versions = globals.dmabuf.as_ref().map(wayland_client::Proxy::version);
        if versions.is_some_and(|v| v >= DMABUF_FEEDBACK) {
            opening.wait("its dma-buf feedback", |s| s.feedback.is_some())?;
        }
        let Opening { connection, queue, mut state, limit } = opening;
        state.feedback_is_new = false;
        let mut session = Session {
            connection,
            queue,
            state,
            globals,
            window,
            imports: ImportCache::new(),
            timelines,
            fit,
            color: Color::default(),
            picture: None,
            commits: 0,
            asked: 0,
            limit,
        };
        session.configure();
        Ok(session)
    }

    /// What the compositor says of dma-bufs; nothing where it takes none.
    pub(super) fn feedback(&self) -> Feedback {
        self.state.feedback.clone().unwrap_or_default()
    }

    fn handle(&self) -> QueueHandle<State> {
        self.queue.handle()
    }

    /// Times that a buffer was made known to the compositor.
    pub(super) fn imports(&self) -> u64 {
        self.imports.misses()
    }

    /// Makes every buffer known to the compositor, in place of those before. **Blocks** for a round trip.
    ///
    /// # Errors
    /// [`ImportError`] of the first buffer that is refused, as [`WaylandError::Import`]; those of the connection.
    pub(super) fn import(&mut self, buffers: &[Shrbuf]) -> Result<(), WaylandError> {
        self.imports.clear();
        let feedback = self.feedback();
        let dma_bufs: Vec<&Shrbuf> = buffers.iter().filter(|b| b.kind() == MemoryKind::DmaBuf).collect();
        let asked = dma_bufs.iter().map(|b| DmaBuf::new(b, &feedback)).collect::<Result<Vec<_>, _>>()?;
        let handle = self.handle();
        self.state.made = asked.iter().map(|_| None).collect();
        for (number, dma_buf) in asked.iter().enumerate() {
            let dmabuf = self.globals.dmabuf.as_ref().ok_or(ImportError::NoDmaBuf)?;
            dma_buf.create(&dmabuf.create_params(&handle, number));
        }
        let all = |s: &State| s.made.iter().all(Option::is_some);
        wait(&self.connection, &mut self.queue, &mut self.state, ("it to take a buffer", self.limit), all)?;
        let known = |made: Option<Made>| made.flatten().map(|b| WaylandBuffer::new(b, MemoryKind::DmaBuf));
        // All of them before the first that was refused is looked for: those that were made are to be destroyed then.
        let made: Vec<Option<WaylandBuffer>> = std::mem::take(&mut self.state.made).into_iter().map(known).collect();
        if let Some((_, refused)) = made.iter().zip(&asked).find(|(made, _)| made.is_none()) {
            let refused = refused.refused(&feedback);
            drop(made);
            self.flush()?;
            return Err(refused.into());
        }
        for (buffer, made) in dma_bufs.into_iter().zip(made.into_iter().flatten()) {
            self.imports.get(buffer, |_| Ok::<_, ImportError>(made))?;
        }
        for buffer in buffers.iter().filter(|b| b.kind() == MemoryKind::Memfd) {
            let Session { imports, globals, state, queue, .. } = self;
            let make = |b: &Shrbuf| of_memfd(b, globals, &state.shm_formats, &queue.handle());
            imports.get(buffer, |b| make(b).map(|made| WaylandBuffer::new(made, MemoryKind::Memfd)))?;
        }
        // An error of the protocol is told here, and not at the first frame.
        let answers = self.state.answers;
        self.connection.display().sync(&handle, Asked::Answer);
        let answered = |s: &State| s.answers > answers;
        wait(&self.connection, &mut self.queue, &mut self.state, ("it to take a buffer", self.limit), answered)
    }

    /// Forgets the buffers, and lets go of every frame.
    pub(super) fn let_go(&mut self) {
        self.state.held.clear();
        self.state.left.clear();
        self.imports.clear();
        self.picture = None;
    }

    /// What the compositor knows `buffer` by. One that it has not seen (its producer has made a new one) is made known
    /// without waiting for an answer, so that a refusal ends the connection.
    fn known(&mut self, buffer: &Shrbuf) -> Result<Arc<WaylandBuffer>, ImportError> {
        let Session { imports, globals, state, queue, .. } = self;
        imports.get(buffer, |b| {
            let handle = queue.handle();
            if b.kind() == MemoryKind::Memfd {
                let made = of_memfd(b, globals, &state.shm_formats, &handle)?;
                return Ok(WaylandBuffer::new(made, MemoryKind::Memfd));
            }
            let dmabuf = globals.dmabuf.as_ref().ok_or(ImportError::NoDmaBuf)?;
            let feedback = state.feedback.as_ref().ok_or(ImportError::NoDmaBuf)?;
            let made = DmaBuf::new(b, feedback)?;
            // No event comes for it: the number is never looked up.
            let made = made.create_at_once(&dmabuf.create_params(&handle, usize::MAX), &handle);
            Ok(WaylandBuffer::new(made, MemoryKind::DmaBuf))
        })
    }

    /// Shows `frame` at the next refresh, and holds it for as long as the compositor may read it. False where the compositor
    /// takes its colours for others, and cannot be told.
    ///
    /// # Errors
    /// [`ImportError`] of a new buffer, that of a fence, and a frame that is outside of its buffer.
    pub(super) fn show(&mut self, frame: Frame) -> Result<bool, WaylandError> {
        let layout = *frame.buffer.layout();
        let size = Size::new(layout.width, layout.height);
        let whole = Rect { x: 0, y: 0, width: layout.width, height: layout.height };
        let part = frame.crop.unwrap_or(whole);
        let picture = within(part, size).ok_or(WaylandError::Outside { part, size })?;
        let buffer = self.known(&frame.buffer)?;
        if self.picture != Some(picture) {
            self.picture = Some(picture);
            self.place();
        }
        let handle = self.handle();
        let tells = (self.globals.color.as_ref(), &self.state.colors[..]);
        let right = self.color.tell((layout.format, frame.color), tells, &self.window.surface, &handle);
        self.window.attach(&buffer.buffer);
        let mut released = Released::Buffer;
        match &mut self.timelines {
            Some(timelines) if buffer.kind == MemoryKind::DmaBuf => {
                if buffer.released.get().is_none() {
                    let _ = buffer.released.set(timelines.of_buffer(&handle).map_err(WaylandError::Timeline)?);
                }
                if let Some(of_buffer) = buffer.released.get() {
                    let on = (&self.window.surface, &handle);
                    let point = timelines.commit(on, &frame.buffer, of_buffer).map_err(WaylandError::Timeline)?;
                    released = Released::Point(point);
                }
            }
            Some(timelines) => timelines.leave_out(),
            None => {}
        }
        if let Some(sync) = self.window.sync.as_ref().filter(|_| buffer.kind == MemoryKind::DmaBuf) {
            if let Some(fence) = frame.buffer.export_fences(Access::Read).map_err(WaylandError::Fence)? {
                sync.set_acquire_fence(fence.as_fd());
            }
            sync.get_release(&handle, self.commits);
            released = Released::Commit(self.commits);
        }
        if let Some(presentation) = &self.globals.presentation {
            presentation.feedback(&self.window.surface, &handle, frame.timestamp);
            self.state.untold += 1;
        }
        self.window.surface.frame(&handle, Asked::Frame);
        self.window.surface.commit();
        self.commits += 1;
        self.state.in_flight = true;
        if released == Released::Buffer && buffer.kind == MemoryKind::DmaBuf {
            // Its GPU may go on reading after it has said so, and leaves a fence.
            frame.buffer.expect_fences();
        }
        self.state.held.push(Held { frame, buffer, released, awaited: false });
        Ok(right)
    }

    fn place(&mut self) {
        if let (Some(viewport), Some(picture)) = (&self.window.viewport, self.picture) {
            let placed = place(picture, &self.state.configured, self.fit);
            let s = placed.source;
            viewport.set_source(s.x.into(), s.y.into(), s.width.into(), s.height.into());
            viewport.set_destination(placed.destination.width as i32, placed.destination.height as i32);
        }
    }

    /// Does as the compositor last said about the window's size. False where it has said nothing.
    fn configure(&mut self) -> bool {
        let Some(serial) = self.state.configure.take() else { return false };
        self.window.shell_surface.ack_configure(serial);
        self.place();
        if self.picture.is_some() {
            // On screen already: at once, and not only with the next frame.
            self.window.surface.commit();
        }
        true
    }

    /// What is readable when the compositor has signalled that it has done with a frame that is [awaited](Self::await_points).
    pub(super) fn done(&self) -> Option<Arc<EventFd>> {
        self.timelines.as_ref().map(Timelines::done)
    }

    /// Has [`done`](Self::done) say so of every frame that is held.
    pub(super) fn await_points(&mut self) -> Result<(), WaylandError> {
        let Some(timelines) = &self.timelines else { return Ok(()) };
        for held in self.state.held.iter_mut().filter(|held| !held.awaited) {
            if let (Released::Point(point), Some(timeline)) = (held.released, held.buffer.released.get()) {
                timelines.await_point(timeline, point).map_err(WaylandError::Timeline)?;
                held.awaited = true;
            }
        }
        Ok(())
    }

    /// Takes note of what [`done`](Self::done) has said.
    pub(super) fn heard(&self) {
        if let Some(timelines) = &self.timelines {
            timelines.heard();
        }
    }

    /// Looks which frames the compositor has signalled that it has done with.
    pub(super) fn reap(&mut self) -> Result<(), WaylandError> {
        if self.timelines.is_none() {
            return Ok(());
        }
        let mut failed = None;
        self.state.let_go(|held| match (held.released, held.buffer.released.get()) {
            (Released::Point(point), Some(timeline)) => timeline.is_past(point).unwrap_or_else(|error| {
                failed = Some(error);
                false
            }),
            _ => false,
        });
        failed.map_or(Ok(()), |error| Err(WaylandError::Timeline(error)))
    }

    /// Gives back what the compositor has done with.
    pub(super) fn give_back(&mut self) -> Result<(), WaylandError> {
        for Left { frame, fence } in self.state.left.drain(..) {
            let Some(fence) = fence.map_or(Ok(None), Fence::pending).map_err(WaylandError::Fence)? else { continue };
            for segment in 0..frame.buffer.segments().len() {
                // From there the buffer's pool waits for it, before anybody writes.
                frame.buffer.import_fence(segment, Access::Read, &fence).map_err(WaylandError::Fence)?;
            }
        }
        Ok(())
    }

    /// Takes what the compositor has to say. True where that is another size of the window.
    pub(super) fn read(&mut self) -> Result<bool, WaylandError> {
        read(&mut self.queue, &mut self.state)?;
        Ok(self.configure())
    }

    /// Sends what is to be sent; false where the socket is full.
    pub(super) fn flush(&mut self) -> Result<bool, WaylandError> {
        flush(&self.connection)
    }

    /// Asks the compositor to answer, unless it owes one already: then false.
    pub(super) fn ask(&mut self) -> bool {
        if self.state.answers < self.asked {
            return false;
        }
        self.asked = self.state.answers + 1;
        self.connection.display().sync(&self.handle(), Asked::Answer);
        true
    }
}

#[cfg(test)]
mod tests {
    use shrbuf_pipeline::FailureKind;

    use super::*;

    #[test]
    fn a_socket_is_named_or_given_by_its_path() {
        let located = |name: &str, folder: Option<&str>| locate(Some(name.into()), folder.map(Into::into)).unwrap();
        assert_eq!(located("wayland-0", Some("/run/user/1000")), Path::new("/run/user/1000/wayland-0"));
        assert_eq!(located("/tmp/socket", None), Path::new("/tmp/socket"));
    }

    #[test]
    fn outside_of_a_session_the_error_says_what_to_do() {
        for name in [None, Some(OsString::new())] {
            let error = locate(name, Some("/run/user/1000".into())).unwrap_err();
            assert_eq!(error.kind(), FailureKind::Config);
            assert!(error.to_string().contains("set `display`"), "{error}");
        }
        let error = locate(Some("wayland-0".into()), None).unwrap_err();
        assert!(error.to_string().contains("XDG_RUNTIME_DIR is not set"), "{error}");
    }
}
