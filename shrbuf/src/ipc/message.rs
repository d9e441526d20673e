//! What the two sides say to each other.

use crate::layout::Layout;
use crate::pool::MAX_BUFFERS;
use crate::state::State;

/// Bytes of a consumer's name.
pub(crate) const NAME: usize = 32;

/// Most connections that a producer has.
pub(crate) const MAX_CONNECTIONS: u32 = 1024;

/// What happens to a frame for a consumer that holds as many as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// It waits until the consumer has given one back; once the pool has nothing else left, so does the source.
    Block,
    /// It waits, and the oldest that waits goes where there are too many; counted.
    DropOldest,
    /// It waits, and the one that waited goes; counted.
    Latest,
}

/// What is known about one picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameInfo {
    /// When it was captured: nanoseconds of CLOCK_MONOTONIC.
    pub timestamp: u64,
    /// The producer's count, with gaps where it dropped frames.
    pub sequence: u64,
    /// MatrixCoefficients of ITU-T H.273: 1 BT.709, 6 BT.601, 9 BT.2020; 2 where nobody knows.
    pub matrix: u8,
    /// VideoFullRangeFlag of ITU-T H.273.
    pub full_range: bool,
    /// The part that is picture, as x, y, width, height in pixels; `None` for all of it.
    pub crop: Option<[u32; 4]>,
    /// The producer says that the picture is damaged.
    pub corrupt: bool,
}

/// What somebody who connects is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Consumer,
    Monitor,
}

/// Why a producer closes a connection; its last message says so where it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The stream is at its end.
    Ended,
    /// The user is not on the producer's list.
    NotAllowed,
    /// The producer has as many consumers, or monitors, as it takes.
    Full,
    /// The producer speaks no version of the protocol that the peer does.
    Version,
    /// The peer broke the protocol.
    Protocol,
    /// The peer asked more often than it may.
    Rate,
    /// The peer's socket has no room, or the machine no descriptors.
    Resources,
    /// The frames are others from now on, for those who connect again.
    Changed,
}

pub(super) const REASONS: [Reason; 8] = [
    Reason::Ended,
    Reason::NotAllowed,
    Reason::Full,
    Reason::Version,
    Reason::Protocol,
    Reason::Rate,
    Reason::Resources,
    Reason::Changed,
];

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reason::Ended => "the stream has ended",
            Reason::NotAllowed => "this user is not on the producer's list (`users` of an `ipc-sink`)",
            Reason::Full => "it has as many consumers, or monitors, as it takes; end one of them",
            Reason::Version => "the producer speaks another version of the protocol",
            Reason::Protocol => "the protocol was broken",
            Reason::Rate => "asked more often than allowed",
            Reason::Resources => "the socket was full, or the producer had no descriptors left",
            Reason::Changed => "its frames are others from now on, for those who connect again",
        })
    }
}

/// From a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToProducer {
    Hello { version: u32, role: Role, policy: Option<Policy>, window: u32, name: [u8; NAME] },
    Ready { buffers: u32 },
    Start,
    Stop,
    Wake,
    Query,
}

/// From a producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToConsumer {
    Welcome(Welcome),
    Buffer {
        index: u32,
        layout: Layout,
    },
    Channel {
        /// Frames come by a pipe, which goes with it.
        pipe: bool,
    },
    Frame {
        buffer: u32,
        state: State,
        dropped: u64,
        info: FrameInfo,
        /// Buffers that this consumer has been told of since its channel.
        late: u32,
    },
    State {
        buffer: u32,
        state: State,
    },
    Bye {
        reason: Reason,
        /// The lowest that the producer speaks.
        version: u16,
    },
    Overview(Overview),
    Consumer(Box<ConsumerStatus>),
}

/// What a consumer is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) version: u32,
    pub(crate) id: u32,
    pub(crate) policy: Policy,
    pub(crate) window: u32,
    pub(crate) buffers: u32,
    pub(crate) rate: Option<(u32, u32)>,
}

/// The head of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overview {
    pub(crate) consumers: u32,
    pub(crate) buffers: u32,
    pub(crate) pid: u32,
    pub(crate) frames: u64,
    pub(crate) unseen: u64,
    pub(crate) refused: u64,
    pub(crate) now: u64,
    pub(crate) since: u64,
}

/// What a producer knows of a consumer. Times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerStatus {
    /// Number at this producer; never given twice.
    pub id: u32,
    /// Process that connected; 0 where it is of another PID namespace.
    pub pid: u32,
    /// User that it had then.
    pub uid: u32,
    /// What it calls itself.
    pub(crate) name: [u8; NAME],
    /// What happens when it lags.
    pub policy: Policy,
    /// True where it takes frames.
    pub started: bool,
    /// Frames that it may hold at once.
    pub window: u32,
    /// Frames that wait for it.
    pub pending: u32,
    /// When it connected.
    pub since: u64,
    /// Frames sent to it.
    pub sent: u64,
    /// Frames that it gave back.
    pub released: u64,
    /// Frames not sent to it because it lagged.
    pub dropped: u64,
    /// Of those given back, the ones that it passed over for newer ones.
    pub skipped: u64,
    /// For each buffer, since when it has it; 0 where it has not.
    pub held_since: [u64; MAX_BUFFERS],
}

impl ConsumerStatus {
    /// What it calls itself, without what a terminal might obey.
    pub fn name(&self) -> String {
        let end = self.name.iter().position(|&b| b == 0).unwrap_or(NAME);
        String::from_utf8_lossy(&self.name[..end]).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }

    /// Buffers that it holds.
    pub fn held(&self) -> usize {
        self.held_since.iter().filter(|&&since| since != 0).count()
    }
}
