//! A connection to a compositor, with one window on it.
//!
//! Before frames flow it may wait for the compositor, for a limited time. While they flow nothing waits: requests are
//! sent as far as the socket takes them, and events are read as they come.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;
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
use wayland_client::protocol::{wl_display, wl_surface};
use wayland_protocols::wp::linux_explicit_synchronization::zv1::client::zwp_linux_surface_synchronization_v1 as surface_sync;
use wayland_protocols::wp::presentation_time::client::wp_presentation;
use wayland_protocols::wp::viewporter::client::wp_viewport;
use wayland_protocols::xdg::shell::client::xdg_surface;

use super::buffer::{DmaBuf, ImportError, WaylandBuffer, of_memfd};
use super::color::Color;
use super::error::WaylandError;
use super::feedback::Feedback;
use super::globals::Globals;
use super::object::{DISPLAY, Kind};
use super::place::{Fit, place, within};
use super::state::{Held, Left, Made, Released, State};
use super::timeline::Timelines;
use super::window::{Window, WindowSpec};
use super::wire::{Arg, Input, Wire};
use crate::fences;

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
    fd.and_then(|fd| connect(fd.as_raw_fd(), &address?).map(|()| fd.into())).map_err(|e| WaylandError::Connect {
        path: path.to_owned(),
        source: e.into(),
        others: sockets_beside(path),
    })
}

/// Sockets of compositors in XDG_RUNTIME_DIR, other than that one.
fn sockets_beside(path: &Path) -> Vec<String> {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").unwrap_or_default();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sockets = entries.filter(|e| e.path() != path && e.file_type().is_ok_and(|t| t.is_socket()));
    let names = sockets.map(|e| e.file_name().display().to_string());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("wayland-")).collect();
    names.sort();
    names
}

/// A window, and the compositor that shows it.
pub(super) struct Session {
    connection: Connection,
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
}

/// A socket, and who speaks on it.
struct Connection {
    socket: Arc<UnixStream>,
    wire: Wire,
    input: Input,
    /// Longest time for an answer.
    limit: Duration,
}

fn gone(source: io::Error) -> WaylandError {
    WaylandError::Gone { source }
}

impl Connection {
    fn new(socket: UnixStream, limit: Duration) -> Connection {
        let socket = Arc::new(socket);
        Connection { wire: Wire::new(Arc::clone(&socket)), input: Input::new(Arc::clone(&socket)), socket, limit }
    }

    /// Sends what there is; false where the socket is full.
    fn flush(&mut self, state: &mut State) -> Result<bool, WaylandError> {
        self.wire.flush().or_else(|error| {
            // Before a compositor closes, it says why.
            self.read(state, |_| false)?;
            Err(gone(error))
        })
    }

    /// Takes what has come, as far as it is not `enough` before that.
    fn read(&mut self, state: &mut State, enough: impl Fn(&State) -> bool) -> Result<(), WaylandError> {
        loop {
            let more = self.input.fill().map_err(gone)?;
            while let Some(event) = self.input.event()? {
                state.event(event, &mut self.wire)?;
            }
            if !more || enough(state) {
                return Ok(());
            }
        }
    }

    /// Has the compositor answer when it has done all that it was asked so far.
    fn sync(&mut self) {
        let answer = self.wire.new_object(Kind::Answer);
        self.wire.request(DISPLAY, wl_display::REQ_SYNC_OPCODE, [Arg::Id(answer)]);
    }

    /// **Blocks** until `done`, no longer than the limit.
    fn wait(
        &mut self,
        state: &mut State,
        what: &'static str,
        done: impl Fn(&State) -> bool,
    ) -> Result<(), WaylandError> {
        let until = Instant::now() + self.limit;
        loop {
            let sent = self.flush(state)?;
            self.read(state, |_| false)?;
            if done(state) {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(WaylandError::Silent { what, seconds: self.limit.as_secs() });
            }
            let wanted = if sent { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), wanted)], left) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(gone(e.into())),
            }
        }
    }

    /// As [`wait`](Self::wait), until the compositor has done all that it was asked so far.
    fn round_trip(&mut self, state: &mut State, what: &'static str) -> Result<(), WaylandError> {
        let answers = state.answers;
        self.sync();
        self.wait(state, what, |s| s.answers > answers)
    }
}

impl Session {
    /// Connects and makes a window, which appears with its first frame. **Blocks** for some round trips.
    ///
    /// # Errors
    /// [`WaylandError`].
    pub(super) fn open(path: &Path, spec: &WindowSpec<'_>, fit: Fit) -> Result<Session, WaylandError> {
        let mut connection = Connection::new(reach(path)?, spec.patience);
        let mut state = State::new();
        let registry = connection.wire.new_object(Kind::Registry);
        connection.wire.request(DISPLAY, wl_display::REQ_GET_REGISTRY_OPCODE, [Arg::Id(registry)]);
        connection.round_trip(&mut state, "its list of interfaces")?;
        let mut globals = Globals::bind(registry, &state.listed, &mut connection.wire)?;
        let timelines = globals.timelines.and_then(|manager| Timelines::new(manager, &mut connection.wire));
        if timelines.is_some() {
            // One of the two is enough.
            globals.explicit_sync = None;
        }
        let window = Window::new(&globals, &mut connection.wire, spec);
        connection.round_trip(&mut state, "its formats")?;
        connection.wait(&mut state, "the window's first size", |s| s.configure.is_some())?;
        if globals.dmabuf.is_some_and(|d| d.gives_feedback()) {
            connection.wait(&mut state, "its dma-buf feedback", |s| s.feedback.is_some())?;
        }
        state.feedback_is_new = false;
        let mut session = Session {
            connection,
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
        };
        session.configure();
        Ok(session)
    }

    /// What the compositor says of dma-bufs; nothing where it takes none.
    pub(super) fn feedback(&self) -> Feedback {
        self.state.feedback.clone().unwrap_or_default()
    }

    /// Readable when the compositor has said something.
    pub(super) fn socket(&self) -> Arc<UnixStream> {
        Arc::clone(&self.connection.socket)
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
        self.state.made = asked.iter().map(|_| None).collect();
        for (number, dma_buf) in asked.iter().enumerate() {
            let dmabuf = self.globals.dmabuf.ok_or(ImportError::NoDmaBuf)?;
            dma_buf.create(number, dmabuf, &mut self.connection.wire)?;
        }
        let all = |s: &State| s.made.iter().all(Option::is_some);
        self.connection.wait(&mut self.state, "it to take a buffer", all)?;
        let wire = &self.connection.wire;
        let known = |made: Option<Made>| made.flatten().map(|b| WaylandBuffer::new(b, MemoryKind::DmaBuf, wire));
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
            self.known(buffer)?;
        }
        // An error of the protocol is told here, and not at the first frame.
        self.connection.round_trip(&mut self.state, "it to take a buffer")
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
    fn known(&mut self, buffer: &Shrbuf) -> Result<Arc<WaylandBuffer>, WaylandError> {
        let Session { imports, globals, state, connection: Connection { wire, .. }, .. } = self;
        imports.get(buffer, |b| {
            let made = match b.kind() {
                MemoryKind::Memfd => of_memfd(b, globals, &state.shm_formats, wire)?,
                MemoryKind::DmaBuf => {
                    let dmabuf = globals.dmabuf.ok_or(ImportError::NoDmaBuf)?;
                    let feedback = state.feedback.as_ref().ok_or(ImportError::NoDmaBuf)?;
                    DmaBuf::new(b, feedback)?.create_at_once(dmabuf, wire)?
                }
            };
            Ok(WaylandBuffer::new(made, b.kind(), wire))
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
        let (wire, surface) = (&mut self.connection.wire, self.window.surface);
        let tells = (self.globals.color, &self.state.colors[..]);
        let right = self.color.tell((layout.format, frame.color), tells, surface, wire);
        self.window.attach(buffer.buffer.id, wire);
        let mut released = Released::Buffer;
        match &mut self.timelines {
            Some(timelines) if buffer.kind == MemoryKind::DmaBuf => {
                if buffer.released.get().is_none() {
                    let _ = buffer.released.set(timelines.of_buffer(wire).map_err(WaylandError::Timeline)?);
                }
                if let Some(of_buffer) = buffer.released.get() {
                    let on = (surface, &mut *wire);
                    let point = timelines.commit(on, &frame.buffer, of_buffer).map_err(WaylandError::Timeline)?;
                    released = Released::Point(point);
                }
            }
            Some(timelines) => timelines.leave_out(wire),
            None => {}
        }
        if let Some(sync) = self.window.sync.filter(|_| buffer.kind == MemoryKind::DmaBuf) {
            if let Some(fence) = frame.buffer.export_fences(Access::Read).map_err(WaylandError::Fence)? {
                wire.request(sync, surface_sync::REQ_SET_ACQUIRE_FENCE_OPCODE, [Arg::Fd(fence.into())]);
            }
            let release = wire.new_object(Kind::Release(self.commits));
            wire.request(sync, surface_sync::REQ_GET_RELEASE_OPCODE, [Arg::Id(release)]);
            released = Released::Commit(self.commits);
        }
        if let Some(presentation) = self.globals.presentation {
            let feedback = wire.new_object(Kind::Feedback(frame.timestamp));
            let args = [Arg::Id(surface), Arg::Id(feedback)];
            wire.request(presentation, wp_presentation::REQ_FEEDBACK_OPCODE, args);
            self.state.untold += 1;
        }
        let callback = wire.new_object(Kind::Frame);
        wire.request(surface, wl_surface::REQ_FRAME_OPCODE, [Arg::Id(callback)]);
        self.window.commit(wire);
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
        if let (Some(viewport), Some(picture)) = (self.window.viewport, self.picture) {
            let (wire, placed) = (&mut self.connection.wire, place(picture, &self.state.configured, self.fit));
            let (s, size) = (placed.source, placed.destination);
            let source = [s.x, s.y, s.width, s.height].map(|n| Arg::Fixed(n.into()));
            wire.request(viewport, wp_viewport::REQ_SET_SOURCE_OPCODE, source);
            let size = [size.width, size.height].map(|n| Arg::Int(n as i32));
            wire.request(viewport, wp_viewport::REQ_SET_DESTINATION_OPCODE, size);
        }
    }

    /// Does as the compositor last said about the window's size. False where it has said nothing.
    fn configure(&mut self) -> bool {
        let Some(serial) = self.state.configure.take() else { return false };
        let acknowledged = [Arg::Uint(serial)];
        self.connection.wire.request(self.window.shell_surface, xdg_surface::REQ_ACK_CONFIGURE_OPCODE, acknowledged);
        self.place();
        if self.picture.is_some() {
            // On screen already: at once, and not only with the next frame.
            self.window.commit(&mut self.connection.wire);
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
            // From there the buffer's pool waits for it, before anybody writes.
            if !fences::attach(&frame.buffer, Access::Read, &fence).map_err(WaylandError::Fence)? {
                // Then it can only be there by the driver that reads.
                frame.buffer.expect_fences();
            }
        }
        Ok(())
    }

    /// Takes what the compositor has to say. True where that is another size of the window.
    pub(super) fn read(&mut self) -> Result<bool, WaylandError> {
        self.connection.read(&mut self.state, |_| false)?;
        Ok(self.configure())
    }

    /// As [`read`](Self::read), until the next frame may be shown. What lies behind a descriptor in the socket takes a system
    /// call more, and can wait for the frame after: when this one was shown, above all.
    pub(super) fn read_for_next(&mut self) -> Result<bool, WaylandError> {
        self.connection.read(&mut self.state, |s| !s.in_flight)?;
        Ok(self.configure())
    }

    /// Sends what is to be sent; false where the socket is full.
    pub(super) fn flush(&mut self) -> Result<bool, WaylandError> {
        self.connection.flush(&mut self.state)
    }

    /// Asks the compositor to answer, unless it owes one already: then false.
    pub(super) fn ask(&mut self) -> bool {
        if self.state.answers < self.asked {
            return false;
        }
        self.asked = self.state.answers + 1;
        self.connection.sync();
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
