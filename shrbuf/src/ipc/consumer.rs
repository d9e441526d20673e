//! The consumer's side: a connection with its buffers, and then the frames.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect, setsockopt, shutdown, socket};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::attach;
use crate::buffer::{Shrbuf, WeakShrbuf};
use crate::pool::{MAX_BUFFERS, Pool};
use crate::sys::seqpacket::{self, BATCH, Inbox};

use super::IpcError;
use super::message::{FrameInfo, NAME, Policy, Reason, Role, ToConsumer, ToProducer, Welcome};
use super::packet::{MAX_MESSAGE, Packet};
use super::path::LONGEST;
use super::wire::VERSION;

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

/// One end of a connection, and the sending of what a consumer says.
pub(super) struct Socket {
    fd: OwnedFd,
    /// Where it leads, for messages.
    path: PathBuf,
    /// A bit for each buffer that is given back without having been looked at.
    skipping: AtomicU64,
}

impl Socket {
    /// Connects within `timeout`.
    pub(super) fn connect(path: &Path, timeout: Duration) -> Result<Socket, IpcError> {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None);
        let fd = fd.map_err(IpcError::os("socket"))?;
        // connect(2) waits for room in the listener's queue, for as long as a send may take. 0 would be for ever.
        let wait = TimeVal::microseconds(timeout.as_micros().clamp(1, i64::MAX as u128 / 2) as i64);
        setsockopt(&fd, SendTimeout, &wait).map_err(IpcError::os("SO_SNDTIMEO"))?;
        let address = UnixAddr::new(path).map_err(|_| IpcError::TooLong { path: path.to_owned(), most: LONGEST })?;
        connect(fd.as_raw_fd(), &address).map_err(|e| {
            let path = path.to_owned();
            match e {
                nix::Error::EAGAIN => IpcError::Late { path, waited: timeout },
                // Of a file that is no socket too.
                nix::Error::ECONNREFUSED if path.symlink_metadata().is_ok_and(|m| !m.file_type().is_socket()) => {
                    IpcError::NoSocket { path }
                }
                nix::Error::ENOENT | nix::Error::ECONNREFUSED => IpcError::NoProducer { path, source: e.into() },
                nix::Error::EPROTOTYPE => IpcError::Foreign { path },
                _ => IpcError::Path { call: "connect", path, source: e.into() },
            }
        })?;
        Ok(Socket::new(fd, path))
    }

    fn new(fd: OwnedFd, path: &Path) -> Socket {
        Socket { fd, path: path.to_owned(), skipping: AtomicU64::new(0) }
    }

    /// The producer did what it must not.
    pub(super) fn broken(&self, what: &'static str) -> IpcError {
        IpcError::Protocol { path: self.path.clone(), what }
    }

    /// What a producer's last message comes to.
    pub(super) fn refused(&self, reason: Reason, version: u16) -> IpcError {
        let path = self.path.clone();
        match reason {
            Reason::Version => IpcError::Version { path, ours: VERSION, theirs: u32::from(version) },
            _ => IpcError::Refused { path, reason },
        }
    }

    pub(super) fn say(&self, message: ToProducer) -> Result<(), IpcError> {
        let sent = seqpacket::send(self.fd.as_fd(), message.encode(&mut Packet::default()), &[]);
        sent.map_err(|e| match e.kind() {
            // It has closed: what it said before that is still to be read, by whoever reads next.
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => IpcError::Gone,
            _ => IpcError::os("send")(e),
        })
    }

    /// Runs on whichever thread drops the last reference.
    fn release(&self, index: usize) {
        let bit = 1 << index;
        let skipped = self.skipping.load(Ordering::Relaxed) & bit != 0
            && self.skipping.fetch_and(!bit, Ordering::Relaxed) & bit != 0;
        let message = ToProducer::Release { buffer: index as u32, skipped };
        match self.say(message) {
            Ok(()) | Err(IpcError::Gone) => {}
            // There is room for as many releases as a consumer has frames. A producer that sent more has itself to blame:
            // it takes back everything when the connection closes, and our reader sees the end.
            Err(_) => drop(shutdown(self.fd.as_raw_fd(), Shutdown::Both)),
        }
    }

    /// The next message; `None` where there is none yet.
    pub(super) fn hear(&self) -> Result<Option<ToConsumer>, IpcError> {
        let mut bytes = [0; MAX_MESSAGE];
        let received = self.again(|| seqpacket::receive_plain(self.fd.as_fd(), &mut bytes))?;
        let Some((len, whole)) = received else { return Ok(None) };
        self.message(&bytes[..len], whole).map(Some)
    }

    /// How many messages have come, `most` at most.
    fn hear_several(&self, inbox: &mut Inbox<MAX_MESSAGE>, most: usize) -> Result<usize, IpcError> {
        Ok(self.again(|| seqpacket::receive_several(self.fd.as_fd(), inbox, most))?.unwrap_or(0))
    }

    /// The next message, waited for until `end`.
    pub(super) fn hear_until(&self, end: Deadline) -> Result<ToConsumer, IpcError> {
        self.until(end, || self.hear())
    }

    /// As [`Socket::hear_until`], with descriptors where it brings some.
    fn hear_buffer_until(&self, end: Deadline) -> Result<(ToConsumer, Vec<OwnedFd>), IpcError> {
        self.until(end, || {
            let mut bytes = [0; MAX_MESSAGE];
            let received = self.again(|| seqpacket::receive(self.fd.as_fd(), &mut bytes))?;
            let Some(received) = received else { return Ok(None) };
            let message = self.message(&bytes[..received.len], received.whole)?;
            let fds: Vec<OwnedFd> = received.fds.into_iter().flatten().collect();
            let expected = if let ToConsumer::Buffer { layout, .. } = &message { layout.segments() } else { 0 };
            if fds.len() != expected {
                return Err(self.broken("a message did not bring as many descriptors as it should"));
            }
            Ok(Some((message, fds)))
        })
    }

    /// What a call receives; `None` where there is nothing.
    fn again<T>(&self, mut receive: impl FnMut() -> io::Result<T>) -> Result<Option<T>, IpcError> {
        let mut result = receive();
        if result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset) {
            // Said once, where the producer closed before it had read all of ours; what it said comes after.
            result = receive();
        }
        match result {
            Ok(received) => Ok(Some(received)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Err(IpcError::Gone),
            Err(e) => Err(IpcError::os("recvmsg")(e)),
        }
    }

    fn message(&self, bytes: &[u8], whole: bool) -> Result<ToConsumer, IpcError> {
        if bytes.is_empty() {
            return Err(IpcError::Gone);
        }
        if !whole {
            return Err(self.broken("a message was too long, or brought descriptors that it should not"));
        }
        ToConsumer::parse(bytes).map_err(|source| IpcError::Wire { path: self.path.clone(), source })
    }

    fn until<T>(&self, end: Deadline, hear: impl Fn() -> Result<Option<T>, IpcError>) -> Result<T, IpcError> {
        loop {
            if let Some(heard) = hear()? {
                return Ok(heard);
            }
            let left = end.left();
            if !crate::poll::readable(self.fd.as_fd(), left).map_err(IpcError::os("poll"))? && end.over() {
                return Err(IpcError::Late { path: self.path.clone(), waited: end.asked });
            }
        }
    }
}

/// When a caller's patience ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    asked: Duration,
    /// `None` for a time beyond what the clock can say.
    end: Option<Instant>,
}

impl Deadline {
    pub(super) fn after(asked: Duration) -> Deadline {
        Deadline { asked, end: Instant::now().checked_add(asked) }
    }

    fn left(self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    fn over(self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }
}

/// A consumer's name in a message.
pub(super) fn name(text: &str) -> [u8; NAME] {
    let mut name = [0; NAME];
    for (to, from) in name.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    name
}

/// Connected, with every buffer of the producer: time to import them elsewhere. Frames flow once it has started.
pub struct Connection {
    socket: Socket,
    welcome: Welcome,
    buffers: Vec<Shrbuf>,
}

impl Connection {
    /// Connects to the producer at `path`. **Blocks** for `timeout` at most.
    ///
    /// # Errors
    /// [`IpcError::NoProducer`], [`IpcError::Foreign`], [`IpcError::Refused`], [`IpcError::Version`], [`IpcError::Unanswered`],
    /// [`IpcError::Late`], [`IpcError::Import`], and whatever a producer does wrong.
    pub fn open(path: &Path, wishes: &Wishes, timeout: Duration) -> Result<Connection, IpcError> {
        let end = Deadline::after(timeout);
        Connection::greet(Socket::connect(path, timeout)?, wishes, end).map_err(|error| match error {
            IpcError::Gone => IpcError::Unanswered { path: path.to_owned() },
            error => error,
        })
    }

    /// As [`Connection::open`], over a socket that is connected already. For the fuzz target.
    #[doc(hidden)]
    pub fn over(socket: OwnedFd, wishes: &Wishes, timeout: Duration) -> Result<Connection, IpcError> {
        Connection::greet(Socket::new(socket, Path::new("")), wishes, Deadline::after(timeout))
    }

    fn greet(socket: Socket, wishes: &Wishes, end: Deadline) -> Result<Connection, IpcError> {
        let (policy, window, name) = (wishes.policy, wishes.window, name(&wishes.name));
        // A producer that refuses us may have closed already: its reason is there to be read.
        match socket.say(ToProducer::Hello { version: VERSION, role: Role::Consumer, policy, window, name }) {
            Ok(()) | Err(IpcError::Gone) => {}
            Err(e) => return Err(e),
        }
        let welcome = match socket.hear_until(end)? {
            ToConsumer::Welcome(welcome) => welcome,
            ToConsumer::Bye { reason, version } => return Err(socket.refused(reason, version)),
            _ => return Err(socket.broken("it began with something other than a welcome")),
        };
        if welcome.version != VERSION {
            return Err(IpcError::Version { path: socket.path, ours: VERSION, theirs: welcome.version });
        }
        let in_range = |n: u32| (1..=MAX_BUFFERS as u32).contains(&n);
        if !in_range(welcome.buffers) || !in_range(welcome.window) {
            return Err(socket.broken("its welcome is outside the limits"));
        }
        let mut buffers = Vec::with_capacity(welcome.buffers as usize);
        for next in 0..welcome.buffers {
            match socket.hear_buffer_until(end)? {
                (ToConsumer::Buffer { index, layout }, fds) if index == next => {
                    let import = Shrbuf::import(fds, layout);
                    buffers.push(import.map_err(|source| IpcError::Import { index, source })?);
                }
                (ToConsumer::Bye { reason, version }, _) => return Err(socket.refused(reason, version)),
                _ => return Err(socket.broken("it left out a buffer")),
            }
        }
        socket.say(ToProducer::Ready { buffers: welcome.buffers })?;
        Ok(Connection { socket, welcome, buffers })
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
    /// [`IpcError::Pool`] where there is one, [`IpcError::Gone`].
    pub fn start(self) -> Result<Consumer, IpcError> {
        let Connection { socket, welcome, buffers } = self;
        let weak: Vec<WeakShrbuf> = buffers.iter().map(Shrbuf::downgrade).collect();
        let socket = Arc::new(socket);
        // Whoever still has a frame when the consumer is dropped keeps the socket open, and with it the producer's
        // reference: the buffer must not be written yet.
        let number = attach::next_consumer();
        buffers.iter().for_each(|b| b.attach(number, Arc::clone(&socket) as _));
        let released = Arc::clone(&socket);
        let pool = Pool::new(buffers, move |index| released.release(index)).inspect_err(|_| {
            weak.iter().for_each(|w| w.detach(number));
        })?;
        socket.say(ToProducer::Start)?;
        let skips = welcome.policy == Policy::Latest;
        let (inbox, newest, over) = (Box::new(Inbox::new()), None, None);
        Ok(Consumer { socket, pool, weak, skips, inbox, newest, over, received: 0, skipped: 0, dropped: 0 })
    }
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
}

/// What a message brought.
enum Step {
    Frame(Received),
    More,
    Nothing,
    Ended,
}

/// Frames from another process. Dropped, it takes no more; those it gave out stay valid, and the producer has them back
/// when the last of them is dropped.
pub struct Consumer {
    socket: Arc<Socket>,
    pool: Pool,
    weak: Vec<WeakShrbuf>,
    /// Only the newest frame counts.
    skips: bool,
    inbox: Box<Inbox<MAX_MESSAGE>>,
    /// With the producer's number of its buffer.
    newest: Option<(u32, Received)>,
    /// How it ended, to be said once the newest frame has been taken.
    over: Option<Over>,
    received: u64,
    skipped: u64,
    dropped: u64,
}

enum Over {
    Ended,
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
                Ok(Step::Ended) => self.over = Some(Over::Ended),
                Err(error) => self.over = Some(Over::Failed(error)),
            }
            if self.over.is_some() {
                // Stays readable from now on, whatever the producer does, until its caller has heard of it.
                let _ = shutdown(self.socket.fd.as_raw_fd(), Shutdown::Read);
            }
        }
        if let Some((_, frame)) = self.newest.take() {
            self.received += 1;
            return Ok(Next::Frame(frame));
        }
        match &mut self.over {
            None => Ok(Next::Nothing),
            Some(Over::Ended) => Ok(Next::Ended),
            Some(over) => match std::mem::replace(over, Over::Told) {
                Over::Failed(error) => Err(error),
                _ => Err(IpcError::Gone),
            },
        }
    }

    /// What has come; one message where each frame counts, since those after it would be forgotten here.
    fn turn(&mut self) -> Result<Step, IpcError> {
        let most = if self.skips { BATCH } else { 1 };
        let n = self.socket.hear_several(&mut self.inbox, most)?;
        for i in 0..n {
            let (bytes, whole) = self.inbox.message(i);
            match self.step(self.socket.message(bytes, whole)?)? {
                Step::More => {}
                step => return Ok(step),
            }
        }
        Ok(if n < most { Step::Nothing } else { Step::More })
    }

    fn step(&mut self, message: ToConsumer) -> Result<Step, IpcError> {
        match message {
            ToConsumer::Frame { buffer: index, state, dropped, info } => {
                let buffer = self.pool.take(index as usize);
                let buffer = buffer
                    .ok_or_else(|| self.socket.broken("a frame in a buffer that is still held here, or is none"))?;
                buffer.set_state(state);
                self.dropped = dropped;
                let frame = Received { buffer, info };
                if !self.skips {
                    self.received += 1;
                    return Ok(Step::Frame(frame));
                }
                if let Some((old, _)) = &self.newest {
                    self.skipped += 1;
                    self.socket.skipping.fetch_or(1 << old, Ordering::Relaxed);
                }
                self.newest = Some((index, frame));
            }
            ToConsumer::State { buffer, state } => {
                let known = self.weak.get(buffer as usize);
                let known = known.ok_or_else(|| self.socket.broken("the state of a buffer that there is not"))?;
                // One that was given back meanwhile is nobody's business here.
                if let Some(buffer) = known.upgrade() {
                    buffer.set_state(state);
                }
            }
            ToConsumer::Bye { reason: Reason::Ended, .. } => return Ok(Step::Ended),
            ToConsumer::Bye { reason, version } => return Err(self.socket.refused(reason, version)),
            _ => return Err(self.socket.broken("a message that has no place among frames")),
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
            match self.receive()? {
                Next::Nothing if !end.over() => {
                    let ready = crate::poll::either_readable([self.as_fd(), self.fences_fd()], end.left());
                    if let [_, true] = ready.map_err(IpcError::os("poll"))? {
                        self.reap().map_err(IpcError::os("epoll_wait"))?;
                    }
                }
                next => return Ok(next),
            }
        }
    }

    /// Frames received.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Frames that the producer did not send because this consumer lagged.
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
        self.pool.fences_fd()
    }

    /// Gives back the buffers whose fences have signalled. Does not block.
    ///
    /// # Errors
    /// That of epoll_wait(2).
    pub fn reap(&self) -> io::Result<()> {
        self.pool.reap()
    }
}

impl AsFd for Consumer {
    /// Readable while [`Consumer::receive`] has something to say.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.fd.as_fd()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // A producer that is gone needs no telling.
        let _ = self.socket.say(ToProducer::Stop);
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Consumer of {:?}, {} received, {} dropped", self.pool, self.received, self.dropped)
    }
}
