//! A connection to a producer: connecting, and one message after the other.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::sys::seqpacket::{self, Received};

use super::IpcError;
use super::message::{NAME, Reason, ToConsumer, ToProducer};
use super::packet::{MAX_MESSAGE, Packet};
use super::path::LONGEST;
use super::wire::VERSION;

const NOT_WHOLE: &str = "a message was too long, or brought descriptors that it should not";

/// One end of a connection.
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    /// Where it leads, for messages.
    pub(super) path: PathBuf,
}

impl Socket {
    /// Connects before `end`.
    pub(super) fn connect(path: &Path, end: Deadline<'_>) -> Result<Socket, IpcError> {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None);
        let fd = fd.map_err(IpcError::os("socket"))?;
        let address = UnixAddr::new(path).map_err(|e| match e {
            nix::Error::ENAMETOOLONG => IpcError::TooLong { path: path.to_owned(), most: LONGEST },
            // A zero in it.
            _ => IpcError::Path { call: "connect", path: path.to_owned(), source: e.into() },
        })?;
        let connected = loop {
            // connect(2) waits for room in the listener's queue, for as long as a send may take. 0 would be for ever.
            let wait = TimeVal::microseconds(end.slice().as_micros().clamp(1, i64::MAX as u128 / 2) as i64);
            setsockopt(&fd, SendTimeout, &wait).map_err(IpcError::os("SO_SNDTIMEO"))?;
            match connect(fd.as_raw_fd(), &address) {
                Err(nix::Error::EAGAIN) if !end.over() => end.check()?,
                connected => break connected,
            }
        };
        connected.map_err(|e| {
            let path = path.to_owned();
            match e {
                nix::Error::EAGAIN => IpcError::Late { path, waited: end.asked },
                // Of a file that is no socket too.
                nix::Error::ECONNREFUSED if path.symlink_metadata().is_ok_and(|m| !m.file_type().is_socket()) => {
                    IpcError::NoSocket { path }
                }
                nix::Error::ENOENT | nix::Error::ECONNREFUSED => IpcError::NoProducer { path, source: e.into() },
                nix::Error::EPROTOTYPE => IpcError::Foreign { path },
                nix::Error::EACCES => IpcError::NoAccess { path },
                _ => IpcError::Path { call: "connect", path, source: e.into() },
            }
        })?;
        Ok(Socket::new(fd, path))
    }

    pub(super) fn new(fd: OwnedFd, path: &Path) -> Socket {
        Socket { fd, path: path.to_owned() }
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

    /// As [`Socket::say`], to a producer that may have closed: whoever reads next finds why.
    pub(super) fn tell(&self, message: ToProducer) -> Result<(), IpcError> {
        match self.say(message) {
            Err(IpcError::Gone) => Ok(()),
            said => said,
        }
    }

    /// The next message, which brings no descriptors; `None` where there is none yet.
    pub(super) fn hear(&self) -> Result<Option<ToConsumer>, IpcError> {
        let mut bytes = [0; MAX_MESSAGE];
        match self.again(|| seqpacket::receive_plain(self.fd.as_fd(), &mut bytes))? {
            None => Ok(None),
            Some((0, _)) => Err(IpcError::Gone),
            Some((_, false)) => Err(self.broken(NOT_WHOLE)),
            Some((len, true)) => self.message(&bytes[..len]).map(Some),
        }
    }

    /// The next message, and its descriptors where it brings some, those to `refuse` where they should not be; `None` where there
    /// is none yet. Allocates only for descriptors.
    pub(super) fn hear_with_descriptors(
        &self,
        refuse: impl FnOnce(Vec<OwnedFd>),
    ) -> Result<Option<(ToConsumer, Vec<OwnedFd>)>, IpcError> {
        let mut bytes = [0; MAX_MESSAGE];
        let received = self.again(|| seqpacket::receive(self.fd.as_fd(), &mut bytes))?;
        let Some(Received { len, fds, whole }) = received else { return Ok(None) };
        let fds: Vec<OwnedFd> = fds.into_iter().flatten().collect();
        let message = match (len, whole) {
            (0, _) => Err(IpcError::Gone),
            (_, false) => Err(self.broken(NOT_WHOLE)),
            _ => self.message(&bytes[..len]),
        };
        let expected = |message: &ToConsumer| match message {
            ToConsumer::Buffer { layout, .. } => layout.segments(),
            ToConsumer::Channel { pipe } => 1 + usize::from(*pipe),
            _ => 0,
        };
        match message {
            Ok(message) if fds.len() == expected(&message) => Ok(Some((message, fds))),
            other => {
                refuse(fds);
                Err(other
                    .err()
                    .unwrap_or_else(|| self.broken("a message did not bring as many descriptors as it should")))
            }
        }
    }

    /// The next message, waited for until `end`.
    pub(super) fn hear_until(&self, end: Deadline<'_>) -> Result<ToConsumer, IpcError> {
        self.until(end, || self.hear())
    }

    /// As [`Socket::hear_until`], with descriptors where it brings some.
    pub(super) fn hear_with_descriptors_until(
        &self,
        end: Deadline<'_>,
    ) -> Result<(ToConsumer, Vec<OwnedFd>), IpcError> {
        self.until(end, || self.hear_with_descriptors(drop))
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

    pub(super) fn message(&self, bytes: &[u8]) -> Result<ToConsumer, IpcError> {
        ToConsumer::parse(bytes).map_err(|source| IpcError::Wire { path: self.path.clone(), source })
    }

    fn until<T>(&self, end: Deadline<'_>, hear: impl Fn() -> Result<Option<T>, IpcError>) -> Result<T, IpcError> {
        loop {
            if let Some(heard) = hear()? {
                return Ok(heard);
            }
            // One of them twice where nobody would say so.
            let fds = [self.fd.as_fd(), end.stop.unwrap_or(self.fd.as_fd())];
            let readable = crate::poll::any_readable(fds, end.left()).map_err(IpcError::os("poll"))?;
            end.check()?;
            if readable == [false; 2] && end.over() {
                return Err(IpcError::Late { path: self.path.clone(), waited: end.asked });
            }
        }
    }
}

/// Closes descriptors that are refused, on a thread of its own: close(2) of one of a file system that a process serves waits for
/// that process.
pub(super) fn close_apart(fds: Vec<OwnedFd>) {
    if !fds.is_empty() {
        // Where there is no thread to be had they are closed here.
        let _ = std::thread::Builder::new().name("shrbuf-close".to_owned()).spawn(move || drop(fds));
    }
}

/// connect(2) is woken by room in the queue, by time or by a signal, and by nothing else. Who may be told to wait no longer
/// comes back to hear of it after so long.
const SLICE: Duration = Duration::from_millis(100);

/// When a caller's patience ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline<'a> {
    asked: Duration,
    /// `None` for a time beyond what the clock can say.
    end: Option<Instant>,
    /// Or when this is readable.
    stop: Option<BorrowedFd<'a>>,
}

impl<'a> Deadline<'a> {
    pub(super) fn after(asked: Duration) -> Deadline<'a> {
        Deadline { asked, end: Instant::now().checked_add(asked), stop: None }
    }

    pub(super) fn or(self, stop: BorrowedFd<'a>) -> Deadline<'a> {
        Deadline { stop: Some(stop), ..self }
    }

    /// Whether the caller has been told to stop.
    fn check(self) -> Result<(), IpcError> {
        let Some(stop) = self.stop else { return Ok(()) };
        let told = crate::poll::readable(stop, Some(Duration::ZERO)).map_err(IpcError::os("poll"))?;
        if told { Err(IpcError::Stopped) } else { Ok(()) }
    }

    /// How long to do what nobody can stop.
    fn slice(self) -> Duration {
        let left = self.left().unwrap_or(self.asked);
        if self.stop.is_some() { left.min(SLICE) } else { left }
    }

    pub(super) fn left(self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    pub(super) fn over(self) -> bool {
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
