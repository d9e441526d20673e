//! The consumer's side: a connection with its buffers, and then the frames.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::read;

use crate::attach;
use crate::buffer::{Shrbuf, WeakShrbuf};
use crate::layout::Layout;
use crate::pool::{MAX_BUFFERS, Pool};
use crate::segment::check;
use crate::sys::page::Page;

use super::IpcError;
use super::channel::{self, RECORD};
use super::later::Later;
use super::message::{FrameInfo, Policy, Reason, Role, ToConsumer, ToProducer, Welcome};
use super::socket::{Deadline, Socket, close_apart, name};
use super::wire::{OLDEST, VERSION};

/// What a consumer asks for.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// What it calls itself; the first 32 bytes count.
    pub name: String,
    /// What happens to frames for which it has no room; `None` for what the producer has set.
    pub policy: Option<Policy>,
    /// Frames to hold at once, as far as the producer allows; 0 for what it allows.
    pub window: u32,
}

/// Reads before the caller has its turn.
const TURN: usize = 256;
/// Bytes read at once where only the newest frame counts: those of all that a window can be.
const ROOM: usize = 2 * MAX_BUFFERS * RECORD;

const UNTOLD: &str = "a frame in a buffer that it did not tell of";

/// What frames are given back by, from whichever thread drops the last reference.
pub(super) struct Way {
    socket: Socket,
    page: Page,
}

impl Way {
    pub(super) fn release(&self, index: usize) {
        if !self.page.give_back(index as u32) {
            return;
        }
        match self.socket.say(ToProducer::Wake) {
            Ok(()) | Err(IpcError::Gone) => {}
            // There is room for more of them than a consumer has frames. A producer that does not read has itself to blame:
            // it takes back everything when the connection closes, and our reader sees the end.
            Err(_) => drop(shutdown(self.socket.fd.as_raw_fd(), Shutdown::Both)),
        }
    }
}

/// Connected, with every buffer of the producer: time to import them elsewhere. Frames flow once it has started.
pub struct Connection {
    way: Way,
    pipe: Option<OwnedFd>,
    welcome: Welcome,
    buffers: Vec<Shrbuf>,
}

impl Connection {
    /// Connects to the producer at `path`. **Blocks** for `timeout` at most.
    ///
    /// # Errors
    /// [`IpcError::NoProducer`], [`IpcError::NoAccess`], [`IpcError::NoSocket`], [`IpcError::Foreign`], [`IpcError::Refused`],
    /// [`IpcError::Version`], [`IpcError::Unanswered`], [`IpcError::Late`], [`IpcError::Import`], and whatever a producer does
    /// wrong.
    pub fn open(path: &Path, wishes: &Wishes, timeout: Duration) -> Result<Connection, IpcError> {
        Connection::open_before(path, wishes, Deadline::after(timeout))
    }

    /// As [`Connection::open`], but no longer than until `stop` is readable.
    ///
    /// # Errors
    /// As there; [`IpcError::Stopped`] within a tenth of a second of that.
    pub fn open_unless(
        path: &Path,
        wishes: &Wishes,
        timeout: Duration,
        stop: BorrowedFd<'_>,
    ) -> Result<Connection, IpcError> {
        Connection::open_before(path, wishes, Deadline::after(timeout).or(stop))
    }

    fn open_before(path: &Path, wishes: &Wishes, end: Deadline<'_>) -> Result<Connection, IpcError> {
        loop {
            let socket = Socket::connect(path, end)?;
            match Connection::greet(socket, wishes, end) {
                Err(IpcError::Gone) => return Err(IpcError::Unanswered { path: path.to_owned() }),
                // They have changed just now.
                Err(IpcError::Refused { reason: Reason::Changed, .. }) if !end.over() => {}
                greeted => return greeted,
            }
        }
    }

    /// As [`Connection::open`], over a socket that is connected already. For the fuzz target.
    #[doc(hidden)]
    pub fn over(socket: OwnedFd, wishes: &Wishes, timeout: Duration) -> Result<Connection, IpcError> {
        Connection::greet(Socket::new(socket, Path::new("")), wishes, Deadline::after(timeout))
    }

    fn greet(socket: Socket, wishes: &Wishes, end: Deadline<'_>) -> Result<Connection, IpcError> {
        let (policy, window, name) = (wishes.policy, wishes.window, name(&wishes.name));
        socket.tell(ToProducer::Hello { version: VERSION, role: Role::Consumer, policy, window, name })?;
        let welcome = match socket.hear_until(end)? {
            ToConsumer::Welcome(welcome) => welcome,
            ToConsumer::Bye { reason, version } => return Err(socket.refused(reason, version)),
            _ => return Err(socket.broken("it began with something other than a welcome")),
        };
        if !(OLDEST..=VERSION).contains(&welcome.version) {
            return Err(IpcError::Version { path: socket.path, ours: VERSION, theirs: welcome.version });
        }
        let in_range = |n: u32| (1..=MAX_BUFFERS as u32).contains(&n);
        if !in_range(welcome.buffers) || !in_range(welcome.window) {
            return Err(socket.broken("its welcome is outside the limits"));
        }
        let mut buffers = Vec::with_capacity(welcome.buffers as usize);
        for next in 0..welcome.buffers {
            match socket.hear_with_descriptors_until(end)? {
                (ToConsumer::Buffer { index, layout }, fds) if index == next => {
                    let import = Shrbuf::import(fds, layout);
                    buffers.push(import.map_err(|source| IpcError::Import { index, source })?);
                }
                (ToConsumer::Bye { reason, version }, _) => return Err(socket.refused(reason, version)),
                _ => return Err(socket.broken("it left out a buffer")),
            }
        }
        let fds = match socket.hear_with_descriptors_until(end)? {
            (ToConsumer::Channel { .. }, fds) => fds,
            (ToConsumer::Bye { reason, version }, _) => return Err(socket.refused(reason, version)),
            _ => return Err(socket.broken("it left out the channel")),
        };
        let mut fds = fds.iter();
        let page = fds.next().and_then(channel::map);
        let page = page.ok_or_else(|| socket.broken("its page for releases is no sealed memfd that can be written"))?;
        let page = page.map_err(IpcError::os("mmap"))?;
        let pipe = fds.next().map(|pipe| open(&socket, pipe)).transpose()?;
        socket.tell(ToProducer::Ready { buffers: welcome.buffers })?;
        Ok(Connection { way: Way { socket, page }, pipe, welcome, buffers })
    }

    /// The buffers that frames will come in.
    pub fn buffers(&self) -> &[Shrbuf] {
        &self.buffers
    }

    /// Frames that may be held here at once.
    pub fn window(&self) -> u32 {
        self.welcome.window
    }

    /// What happens to a frame for which there is no room.
    pub fn policy(&self) -> Policy {
        self.welcome.policy
    }

    /// Frames a second, as a fraction, where the producer knows.
    pub fn rate(&self) -> Option<(u32, u32)> {
        self.welcome.rate
    }

    /// Has the producer send. No other handle on the buffers may be left by then.
    ///
    /// # Errors
    /// [`IpcError::Pool`] where there is one.
    pub fn start(self) -> Result<Consumer, IpcError> {
        let Connection { way, pipe, welcome, buffers } = self;
        let weak: Vec<WeakShrbuf> = buffers.iter().map(Shrbuf::downgrade).collect();
        let way = Arc::new(way);
        // Whoever still has a frame when the consumer is dropped keeps the socket open, and with it the producer's
        // reference: the buffer must not be written yet.
        let number = attach::next_consumer();
        buffers.iter().for_each(|b| b.attach(number, Arc::clone(&way) as _));
        let released = Arc::clone(&way);
        let first = buffers.first().map(|b| (*b.layout(), b.kind()));
        let pool = Pool::new(buffers, move |index| released.release(index)).inspect_err(|_| {
            weak.iter().for_each(|w| w.detach(number));
        })?;
        let later = Later::new(number, first, &pool)?;
        way.socket.tell(ToProducer::Start)?;
        let skips = welcome.policy == Policy::Latest;
        let (room, newest, said, over) = (Box::new([0; ROOM]), None, None, None);
        let (received, skipped, dropped) = (0, 0, 0);
        Ok(Consumer { way, pipe, pool, weak, later, skips, room, newest, said, over, received, skipped, dropped })
    }
}

/// The pipe that frames are to come by, as ours.
fn open(socket: &Socket, pipe: &OwnedFd) -> Result<OwnedFd, IpcError> {
    if !channel::is_ours(socket.fd.as_fd()) {
        return Err(socket.broken("it is another user's, and has a pipe that it could stop this process by"));
    }
    let pipe = channel::reopen(pipe).ok_or_else(|| socket.broken("what it sends frames by is no pipe"))?;
    pipe.map_err(IpcError::os("opening the pipe in /proc/self/fd"))
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection to a producer of {} buffers", self.buffers.len())
    }
}

/// A frame that has come. Dropping its buffer's last reference gives it back.
#[derive(Debug)]
pub struct Received {
    /// The memory, for reading.
    pub buffer: Shrbuf,
    /// What is known about the picture.
    pub info: FrameInfo,
}

/// What [`Consumer::receive`] found.
#[derive(Debug)]
pub enum Next {
    /// A frame.
    Frame(Received),
    /// None yet.
    Nothing,
    /// There will be no more.
    Ended,
    /// There will be no more on this connection: the producer has others now, for those who [connect](Connection::open) again.
    Changed,
}

/// What reading has brought.
enum Step {
    Frame(Received),
    More,
    Nothing,
    Over(Over),
}

/// Frames from another process. Dropped, it takes no more; those it gave out stay valid, and the producer has them back
/// when the last of them is dropped.
pub struct Consumer {
    way: Arc<Way>,
    /// What frames come by; `None` for the socket.
    pipe: Option<OwnedFd>,
    pool: Pool,
    weak: Vec<WeakShrbuf>,
    /// Buffers that it was told of since.
    later: Later,
    /// Only the newest frame counts.
    skips: bool,
    room: Box<[u8; ROOM]>,
    /// With the producer's number of its buffer.
    newest: Option<(u32, Received)>,
    /// The end, as the socket told it while the pipe was empty: it counts once the pipe is found empty again, as frames may
    /// have been written between.
    said: Option<Result<Step, IpcError>>,
    /// How it ended, to be said once the newest frame has been taken.
    over: Option<Over>,
    received: u64,
    skipped: u64,
    dropped: u64,
}

enum Over {
    Ended,
    Changed,
    Failed(IpcError),
    /// The failure has been told.
    Told,
}

impl Consumer {
    /// The next frame, if one has come; with [`Policy::Latest`] the newest of those that have. Does not block.
    ///
    /// # Errors
    /// [`IpcError::Gone`] where the producer died, [`IpcError::Refused`] where it closed the connection, and whatever it
    /// does wrong. Frames given out before stay valid.
    pub fn receive(&mut self) -> Result<Next, IpcError> {
        for _ in 0..TURN {
            if self.over.is_some() {
                break;
            }
            match self.turn() {
                Ok(Step::Frame(frame)) => return Ok(Next::Frame(frame)),
                Ok(Step::More) => {}
                Ok(Step::Nothing) => break,
                Ok(Step::Over(over)) => self.over = Some(over),
                Err(error) => {
                    // Where it has closed, descriptors stay readable; what else it did wrong is to be told at once.
                    if !matches!(error, IpcError::Gone | IpcError::Refused { .. }) {
                        self.newest = None;
                    }
                    self.over = Some(Over::Failed(error));
                }
            }
            if self.over.is_some() {
                self.dropped = self.dropped.max(self.way.page.dropped());
                // Stays readable from now on, whatever the producer does, until its caller has heard of it.
                let _ = shutdown(self.way.socket.fd.as_raw_fd(), Shutdown::Read);
            }
        }
        if let Some((_, frame)) = self.newest.take() {
            self.received += 1;
            return Ok(Next::Frame(frame));
        }
        match &mut self.over {
            None => Ok(Next::Nothing),
            Some(Over::Ended) => Ok(Next::Ended),
            Some(Over::Changed) => Ok(Next::Changed),
            Some(over) => match std::mem::replace(over, Over::Told) {
                Over::Failed(error) => Err(error),
                _ => Err(IpcError::Gone),
            },
        }
    }

    /// Reads what has come: one record where each frame counts, since those after it would be forgotten here.
    fn turn(&mut self) -> Result<Step, IpcError> {
        let Some(pipe) = &self.pipe else { return self.message() };
        let most = if self.skips { ROOM } else { RECORD };
        let len = match read(pipe, &mut self.room[..most]) {
            // Where the socket says nothing it dies, and that is about to close.
            Ok(0) => return self.said.take().or_else(|| self.end()).unwrap_or(Err(IpcError::Gone)),
            Ok(len) => len,
            Err(nix::Error::EAGAIN) => return self.without_frames(),
            Err(nix::Error::EINTR) => return Ok(Step::Nothing),
            Err(e) => return Err(IpcError::os("read")(e)),
        };
        for at in (0..len).step_by(RECORD) {
            let record = self.way.socket.message(&self.room[at..len.min(at + RECORD)])?;
            match self.step(record)? {
                Step::More => {}
                step => return Ok(step),
            }
        }
        Ok(if len < most { Step::Nothing } else { Step::More })
    }

    /// The next record, or the end, of a producer of another user.
    fn message(&mut self) -> Result<Step, IpcError> {
        match self.way.socket.hear_with_descriptors(close_apart)? {
            None => Ok(Step::Nothing),
            Some((ToConsumer::Bye { reason, version }, _)) => self.bye(reason, version),
            Some((ToConsumer::Buffer { index, layout }, fds)) => self.know(index, layout, fds).map(|()| Step::More),
            Some((record, _)) => self.step(record),
        }
    }

    /// The pipe is empty, but may never be at its end: whoever still has an end for writing keeps it, the producer being dead.
    fn without_frames(&mut self) -> Result<Step, IpcError> {
        if let Some(end) = self.said.take() {
            return end;
        }
        match self.end() {
            None => Ok(Step::Nothing),
            Some(Ok(Step::More)) => Ok(Step::More),
            end => {
                self.said = end;
                Ok(Step::More)
            }
        }
    }

    /// What the socket says: of the end, or of a buffer, after which there may be more; `None` where it says nothing.
    fn end(&mut self) -> Option<Result<Step, IpcError>> {
        match self.way.socket.hear_with_descriptors(close_apart) {
            Ok(None) => None,
            Ok(Some((ToConsumer::Bye { reason, version }, _))) => Some(self.bye(reason, version)),
            Ok(Some((ToConsumer::Buffer { index, layout }, fds))) => {
                Some(self.know(index, layout, fds).map(|()| Step::More))
            }
            Ok(Some(_)) => Some(Err(self.way.socket.broken("a message that has no place there"))),
            Err(error) => Some(Err(error)),
        }
    }

    /// Takes in a buffer that the producer has told of late.
    fn know(&mut self, index: u32, layout: Layout, fds: Vec<OwnedFd>) -> Result<(), IpcError> {
        if index as usize >= MAX_BUFFERS {
            close_apart(fds);
            return Err(self.way.socket.broken("a buffer that has no place"));
        }
        // One that is none is not to be closed here.
        let wrong = fds.iter().find_map(|fd| check(fd).err());
        if let Some(source) = wrong {
            close_apart(fds);
            return Err(IpcError::Import { index, source });
        }
        let buffer = Shrbuf::import(fds, layout).map_err(|source| IpcError::Import { index, source })?;
        if !self.later.is_alike(&buffer) {
            return Err(self.way.socket.broken("a buffer of another kind, format or size than those before"));
        }
        self.later.know(index, buffer, &self.way)
    }

    /// Reads of the socket what a frame is in, which was sent just before it.
    fn catch_up(&mut self) -> Result<(), IpcError> {
        match self.way.socket.hear_with_descriptors(close_apart) {
            Ok(Some((ToConsumer::Buffer { index, layout }, fds))) => self.know(index, layout, fds),
            Err(error) if !matches!(error, IpcError::Gone) => Err(error),
            _ => Err(self.way.socket.broken(UNTOLD)),
        }
    }

    fn bye(&self, reason: Reason, version: u16) -> Result<Step, IpcError> {
        match reason {
            Reason::Ended => Ok(Step::Over(Over::Ended)),
            Reason::Changed => Ok(Step::Over(Over::Changed)),
            _ => Err(self.way.socket.refused(reason, version)),
        }
    }

    fn step(&mut self, message: ToConsumer) -> Result<Step, IpcError> {
        match message {
            ToConsumer::Frame { buffer: index, state, dropped, info, late } => {
                match self.later.beyond(late) {
                    ..=0 => {}
                    1 => self.catch_up()?,
                    _ => return Err(self.way.socket.broken(UNTOLD)),
                }
                let buffer = match self.later.of(index) {
                    Some(later) => later.pool.take(0),
                    None => self.pool.take(index as usize),
                };
                let buffer = buffer
                    .ok_or_else(|| self.way.socket.broken("a frame in a buffer that is still held here, or is none"))?;
                buffer.set_state(state);
                self.dropped = self.dropped.max(dropped);
                let frame = Received { buffer, info };
                if !self.skips {
                    self.received += 1;
                    return Ok(Step::Frame(frame));
                }
                if let Some((old, _)) = &self.newest {
                    self.skipped += 1;
                    self.way.page.skip(*old);
                }
                self.newest = Some((index, frame));
            }
            ToConsumer::State { buffer, state } => {
                let later = self.later.of(buffer).map(|later| &later.weak);
                let known = later.or_else(|| self.weak.get(buffer as usize));
                let known = known.ok_or_else(|| self.way.socket.broken("the state of a buffer that there is not"))?;
                // One that was given back meanwhile is nobody's business here.
                if let Some(buffer) = known.upgrade() {
                    buffer.set_state(state);
                }
            }
            _ => return Err(self.way.socket.broken("a message that has no place among frames")),
        }
        Ok(Step::More)
    }

    /// As [`Consumer::receive`], but **blocks** until there is a frame or an end, or `timeout` is over. Meanwhile it gives back
    /// what devices here are done with, as [`Consumer::reap`] does: the frame may have to wait for that.
    ///
    /// # Errors
    /// As there.
    pub fn wait(&mut self, timeout: Duration) -> Result<Next, IpcError> {
        let end = Deadline::after(timeout);
        loop {
            let fds = [self.as_fd(), self.way.socket.fd.as_fd(), self.fences_fd()];
            if let [.., true] = crate::poll::any_readable(fds, end.left()).map_err(IpcError::os("poll"))? {
                self.reap().map_err(IpcError::os("epoll_wait"))?;
            }
            match self.receive()? {
                Next::Nothing if !end.over() => {}
                next => return Ok(next),
            }
        }
    }

    /// Readable too once [`Consumer::receive`] has an end to tell of, where frames come by a pipe: a producer that has died
    /// closes this, even where the pipe's other end is still open in another process. `None` where the consumer's own
    /// descriptor says all.
    pub fn end_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(|_| self.way.socket.fd.as_fd())
    }

    /// Frames received.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Frames that the producer did not send because this consumer lagged, as far as it has told; all of them once it has said
    /// that it ends.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Frames that came and were passed over for a newer one.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Readable while fences of devices here, at work on buffers that were dropped, have signalled: call
    /// [`Consumer::reap`] then.
    pub fn fences_fd(&self) -> BorrowedFd<'_> {
        self.later.fences_fd()
    }

    /// Gives back the buffers whose fences have signalled. Does not block.
    ///
    /// # Errors
    /// That of epoll_wait(2).
    pub fn reap(&self) -> io::Result<()> {
        self.pool.reap().and(self.later.reap())
    }
}

impl AsFd for Consumer {
    /// Readable while [`Consumer::receive`] has a frame; of the end [`Consumer::end_fd`] tells.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_ref().unwrap_or(&self.way.socket.fd).as_fd()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // A producer that is gone needs no telling.
        let _ = self.way.socket.say(ToProducer::Stop);
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Consumer of {:?}, {} received, {} dropped", self.pool, self.received, self.dropped)
    }
}
