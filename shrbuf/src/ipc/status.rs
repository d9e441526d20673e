//! Asking a producer who holds what.

use std::path::Path;
use std::time::Duration;

use super::IpcError;
use super::message::{ConsumerStatus, MAX_CONNECTIONS, Overview, Role, ToConsumer, ToProducer};
use super::socket::{Deadline, Socket, name};
use super::wire::VERSION;

/// A producer and its consumers at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// Process of the producer.
    pub pid: u32,
    /// Buffers that frames come in.
    pub buffers: u32,
    /// Frames that somebody took.
    pub frames: u64,
    /// Frames that came while nobody took any.
    pub unseen: u64,
    /// Connections refused, or ended for what the peer sent.
    pub refused: u64,
    /// The moment, in nanoseconds of CLOCK_MONOTONIC.
    pub now: u64,
    /// When the producer began.
    pub since: u64,
    /// Its consumers, those first that connected first.
    pub consumers: Vec<ConsumerStatus>,
}

/// Connected to a producer for asking; takes one of its places, and no frames.
pub struct Monitor(Socket);

impl Monitor {
    /// Connects to the producer at `path`. **Blocks** for `timeout` at most.
    ///
    /// # Errors
    /// [`IpcError::NoProducer`], [`IpcError::NoAccess`], [`IpcError::NoSocket`], [`IpcError::Foreign`], [`IpcError::Late`].
    pub fn open(path: &Path, timeout: Duration) -> Result<Monitor, IpcError> {
        let socket = Socket::connect(path, Deadline::after(timeout))?;
        let (role, name) = (Role::Monitor, name("monitor"));
        socket.tell(ToProducer::Hello { version: VERSION, role, policy: None, window: 0, name })?;
        Ok(Monitor(socket))
    }

    /// How things are. **Blocks** for `timeout` at most. A producer closes the connection of one who asks again within
    /// 20 ms.
    ///
    /// # Errors
    /// [`IpcError::Refused`], [`IpcError::Unanswered`], [`IpcError::Late`], and whatever the producer does wrong.
    pub fn ask(&mut self, timeout: Duration) -> Result<Status, IpcError> {
        self.answer(Deadline::after(timeout)).map_err(|error| match error {
            IpcError::Gone => IpcError::Unanswered { path: self.0.path.clone() },
            error => error,
        })
    }

    fn answer(&self, end: Deadline<'_>) -> Result<Status, IpcError> {
        self.0.tell(ToProducer::Query)?;
        let Overview { consumers, buffers, pid, frames, unseen, refused, now, since } = match self.0.hear_until(end)? {
            ToConsumer::Overview(overview) => overview,
            ToConsumer::Bye { reason, version } => return Err(self.0.refused(reason, version)),
            _ => return Err(self.0.broken("it answered with something other than its status")),
        };
        if consumers > MAX_CONNECTIONS {
            return Err(self.0.broken("it has more consumers than there can be"));
        }
        let mut status = Status { pid, buffers, frames, unseen, refused, now, since, consumers: Vec::new() };
        for _ in 0..consumers {
            match self.0.hear_until(end)? {
                ToConsumer::Consumer(consumer) => status.consumers.push(*consumer),
                _ => return Err(self.0.broken("its status has fewer consumers than it said")),
            }
        }
        Ok(status)
    }
}
