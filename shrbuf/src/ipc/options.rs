//! What a producer allows, and what it has counted.

use std::ops::Add;

use crate::pool::MAX_BUFFERS;

use super::IpcError;
use super::message::{MAX_CONNECTIONS, Policy};

/// What a producer allows.
#[derive(Debug, Clone)]
pub struct Options {
    /// Permission bits of the socket: who has `w` may connect.
    pub mode: u32,
    /// Users who may connect; empty for all whom the mode lets.
    pub users: Vec<u32>,
    /// Consumers at most, 1 to 1024.
    pub consumers: u32,
    /// Frames that each may hold at once, 1 to 64.
    pub window: u32,
    /// What happens to a frame for a consumer that lags. A consumer may ask for another policy, but for
    /// [`Policy::Block`] only where it stands here.
    pub policy: Policy,
    /// Frames that wait for a consumer whose policy drops the oldest, 1 to 64.
    pub depth: u32,
    /// When a buffer that a consumer gives back comes back here.
    pub returns: Returns,
    /// Connections a second that are taken of one user, 1 to 1,000,000, beyond a burst of twice as many as there can be.
    pub arrivals: u32,
}

/// When buffers come back that consumers have given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returns {
    /// At once: that makes the producer's descriptor ready.
    AtOnce,
    /// With the next frame, or when one waits for room, or somebody asks who holds what: a wake-up less for each frame and
    /// consumer. For those who have a buffer for the next frame even then, that is `window` buffers more for each consumer than they
    /// need themselves.
    WhenNeeded,
}

impl Default for Options {
    /// The same user, 8 consumers that hold 2 frames each, the latest for those that lag, buffers back at once, 200
    /// connections a second.
    fn default() -> Options {
        Options {
            mode: 0o600,
            users: Vec::new(),
            consumers: 8,
            window: 2,
            policy: Policy::Latest,
            depth: 2,
            returns: Returns::AtOnce,
            arrivals: 200,
        }
    }
}

impl Options {
    /// Whether a producer of so many buffers can be so.
    pub(super) fn check(&self, buffers: usize) -> Result<(), IpcError> {
        let most = MAX_BUFFERS as u64;
        let ranges = [
            ("consumers", u64::from(self.consumers), u64::from(MAX_CONNECTIONS)),
            ("window", u64::from(self.window), most),
            ("depth", u64::from(self.depth), most),
            ("buffers", buffers as u64, most),
            ("arrivals", u64::from(self.arrivals), 1_000_000),
        ];
        match ranges.into_iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            Some((name, value, most)) => Err(IpcError::Options(format!("{name} is {value}; it can be 1 to {most}"))),
            None => Ok(()),
        }
    }
}

/// What a producer has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Frames that somebody took, counted once.
    pub frames: u64,
    /// Frames that came while nobody took any.
    pub unseen: u64,
    /// Frames sent, for each consumer.
    pub sent: u64,
    /// Frames dropped for a consumer that lagged, for each.
    pub dropped: u64,
    /// Connections that were refused, or ended for what the peer sent.
    pub refused: u64,
}

impl Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            frames: self.frames + other.frames,
            unseen: self.unseen + other.unseen,
            sent: self.sent + other.sent,
            dropped: self.dropped + other.dropped,
            refused: self.refused + other.refused,
        }
    }
}
