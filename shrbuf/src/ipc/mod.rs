//! Frames across processes: one producer, any number of consumers, no copy.
//!
//! # How am I supposed to use this?
//! A producer [announces](Announced) its buffers, from the start or as they [come](Producer::announce), and [listens](Producer); it [sends](Producer::send) a reference to each
//! consumer and calls [`Producer::ready`] when its descriptor is readable. A consumer [connects](Connection), looks at the
//! buffers, imports them where it needs to, [starts](Connection::start), and [receives](Consumer::receive) frames as
//! [`Shrbuf`](crate::Shrbuf)s, whose last drop gives them back. In a pipeline the elements `ipc-sink` and `ipc-src` do
//! that.
//!
//! Descriptors and layouts travel once, with SCM_RIGHTS over a SEQPACKET socket; from then on a frame is 64 bytes in a pipe,
//! and giving it back a bit in a page. `shrbuf/PROTOCOL.md` describes them, `shrbuf/include/shrbuf_ipc.h` is for C.
//!
//! ```standalone_crate
//! use std::time::Duration;
//! use shrbuf::ipc::{Announced, Connection, FrameInfo, Next, Options, Producer, Wishes};
//! use shrbuf::{Format, Layout, Ledger, Reason, State, exporter::Memfd};
//!
//! type Result = std::result::Result<(), Box<dyn std::error::Error>>;
//!
//! fn consume(socket: &str) -> Result {
//!     let connection = Connection::open(socket.as_ref(), &Wishes::default(), Duration::from_secs(5))?;
//!     let mut consumer = connection.start()?;
//!     let Next::Frame(frame) = consumer.wait(Duration::from_secs(5))? else { return Err("no frame".into()) };
//!     let mut row = [0; 4];
//!     let account = Ledger::default().account("example", Reason::Inspect);
//!     frame.buffer.read()?.plane(0).read(1, 0, &mut row, &account);
//!     assert_eq!((frame.info.sequence, row), (7, [1, 2, 3, 4]));
//!     Ok(()) // dropping the frame gives it back
//! }
//!
//! fn main() -> Result {
//!     // The consumer is a process of its own: this program once more.
//!     if let Some(socket) = std::env::args().nth(1) {
//!         return consume(&socket);
//!     }
//!     let mut buffer = Memfd::new("example").allocate(&Layout::linear(Format::Grey, 4, 2, 1)?)?;
//!     let account = Ledger::default().account("example", Reason::Generate);
//!     buffer.write()?.plane(0).write(1, 0, &[1, 2, 3, 4], &account);
//!     buffer.set_state(State::Filled);
//!
//!     let socket = std::env::temp_dir().join(format!("shrbuf-example-{}", std::process::id()));
//!     let announced = vec![Announced::of(&buffer)?];
//!     let mut producer = Producer::bind(&socket, Options::default(), announced, None)?;
//!     let mut consumer = std::process::Command::new(std::env::current_exe()?).arg(&socket).spawn()?;
//!     while producer.consumers() == 0 {
//!         producer.wait(None)?;
//!     }
//!     producer.send(&buffer, &FrameInfo { sequence: 7, ..FrameInfo::default() })?;
//!     assert_eq!(buffer.references(), 2);
//!     assert!(consumer.wait()?.success());
//!     while producer.consumers() > 0 {
//!         producer.wait(None)?;
//!     }
//!     assert_eq!(buffer.references(), 1);
//!     Ok(())
//! }
//! ```
//!
//! # Who owns what, and for how long
//! - The producer holds a reference for each consumer that has a frame, so that nobody writes the buffer. It drops it when
//!   the consumer gives the frame back, or when the consumer's end of the socket closes, whatever closed it: the kernel
//!   tells. No timer takes anything back.
//! - A consumer's memory is its own mapping of its own descriptor: a producer that dies takes nothing away.
//! - A consumer that is dropped keeps its socket open until the last of its frames is dropped too.
//! - A dma-buf carries its fences with it, whichever process attached them, so nothing about them travels here: wait with
//!   [`Shrbuf::export_fence`](crate::Shrbuf::export_fence), signal with
//!   [`Shrbuf::import_fence`](crate::Shrbuf::import_fence), as within a process. A frame may be given back before a device
//!   is done with it whose fence is in the dma-buf: the producer's pool waits for that. The [state](crate::State) of a
//!   frame that is sent while it is filled follows, once.
//!
//! # Trust
//! Who may connect is up to the socket's permissions and a list of users. What a peer sends is checked against what it may
//! send then; anything else closes its connection and no other. Frames come by a pipe only within a user, as whoever has one
//! end of it can hold up who uses the other; between users they are messages on the socket. A producer answers nobody who
//! does not read, and nobody who connects more often than [`Options::arrivals`] says.

pub mod access;
mod announced;
mod arrivals;
mod channel;
mod consumer;
mod later;
mod message;
mod options;
mod packet;
mod path;
mod peer;
mod producer;
mod releases;
mod slots;
mod socket;
mod status;
mod wire;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use announced::Announced;
pub use consumer::{Connection, Consumer, Next, Received, Wishes};
pub use message::{ConsumerStatus, FrameInfo, Policy, Reason};
pub use options::{Counts, Options, Returns};
pub use packet::WireError;
pub use producer::Producer;
pub use status::{Monitor, Status};
pub use wire::{VERSION, fuzzing};

use crate::buffer::BufferId;
use crate::pool::{MAX_BUFFERS, PoolError};
use crate::segment::ImportError;

/// What went wrong between processes.
#[derive(Debug, thiserror::Error)]
pub enum IpcError {
    /// Something about the socket's path.
    #[error("{call} failed for {path:?}: {source}")]
    Path {
        /// System call.
        call: &'static str,
        /// Path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another producer listens there.
    #[error("another producer listens at {path:?}; end it, or choose another path")]
    InUse {
        /// Path of the socket.
        path: PathBuf,
    },
    /// No file can be made there.
    #[error(
        "no socket can be made at {path:?} ({source}); its directory has to be there, and this user has to be allowed to \
             write it: make it, or choose another path"
    )]
    NoPlace {
        /// Path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is a file of another kind where a producer's socket should be made.
    #[error("there is a file at {path:?} already, which is not a socket; choose another path, nothing is overwritten")]
    Taken {
        /// Path.
        path: PathBuf,
    },
    /// There is a file of another kind where a producer should listen.
    #[error("{path:?} is not a socket, so no producer listens there; check the path")]
    NoSocket {
        /// Path.
        path: PathBuf,
    },
    /// There is a file where a producer's lock should be.
    #[error(
        "{path:?}, where the lock of the socket's producer should be, is not an empty file of this user; choose another path \
             for the socket, or remove it if nobody needs it: nothing is overwritten"
    )]
    NoLock {
        /// Path of the file.
        path: PathBuf,
    },
    /// Somebody else's socket.
    #[error("{path:?} is the socket of another program, which is no producer; choose another path")]
    Foreign {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The path does not fit into a socket's address.
    #[error("{path:?} is too long for a socket; {most} bytes is the most there is room for here")]
    TooLong {
        /// Path of the socket.
        path: PathBuf,
        /// Bytes that it may have.
        most: usize,
    },
    /// The socket's mode, or that of a directory above it, keeps this user out.
    #[error(
        "this user may not connect to {path:?}; have its producer allow it (an `ipc-sink` by `mode`, such as \"666\", with the \
             users named in `users`), and the directories above too"
    )]
    NoAccess {
        /// Path of the socket.
        path: PathBuf,
    },
    /// Nobody listens there.
    #[error("no producer listens at {path:?} ({source}); start it first, and check the path")]
    NoProducer {
        /// Path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The producer closed the connection and said why.
    #[error("the producer at {path:?} closed the connection: {reason}")]
    Refused {
        /// Path of the socket.
        path: PathBuf,
        /// What it said.
        reason: Reason,
    },
    /// The two sides have no version of the protocol in common.
    #[error(
        "the producer at {path:?} speaks version {theirs} of the protocol, this program version {ours}; use the same \
             release of shrbuf for both"
    )]
    Version {
        /// Path of the socket.
        path: PathBuf,
        /// The version of this program.
        ours: u32,
        /// The lowest that the producer speaks.
        theirs: u32,
    },
    /// The producer closed the connection without a word.
    #[error("the producer has gone; frames already received stay valid")]
    Gone,
    /// Whoever listens closed the connection before it had said anything, or instead of an answer.
    #[error("whoever listens at {path:?} closed the connection without a word: a producer that ended, or no producer")]
    Unanswered {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The producer did not answer in the time that the caller gave it. One whose frames are yet to come answers when they do.
    #[error(
        "no answer from {path:?} in {waited:.1?}; its producer has no frames yet (its camera may be away), or is stopped, or it is \
             none; where it may take longer, wait longer (`timeout`)"
    )]
    Late {
        /// Path of the socket.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The caller was told to wait for the producer no longer.
    #[error("connecting was given up, as was asked for")]
    Stopped,
    /// The peer sent what is no message.
    #[error("the producer at {path:?} broke the protocol (version {VERSION} here): {source}")]
    Wire {
        /// Path of the socket.
        path: PathBuf,
        /// Why it is none.
        source: WireError,
    },
    /// The peer sent a message that has no place there.
    #[error("the producer at {path:?} broke the protocol (version {VERSION} here): {what}")]
    Protocol {
        /// Path of the socket.
        path: PathBuf,
        /// What it did.
        what: &'static str,
    },
    /// The memory that the producer passed is not to be had.
    #[error("buffer {index} of the producer: {source}{}", within(.source))]
    Import {
        /// The producer's number of it.
        index: u32,
        /// Why not.
        source: ImportError,
    },
    /// The buffers cannot be given out again and again.
    #[error("{0}; frames of an earlier connection are still held here, or the producer is this process")]
    Pool(#[from] PoolError),
    /// Options that cannot be.
    #[error("{0}")]
    Options(String),
    /// A frame in a buffer that was not announced.
    #[error("buffer {0} was not announced to the consumers (`Producer::announce`)")]
    NotAnnounced(BufferId),
    /// A buffer that frames cannot come in beside those announced before.
    #[error(
        "frames are in {have}s of another {what} than the buffers that consumers know; what they agreed on cannot change while \
             they are connected"
    )]
    Unlike {
        /// What holds its memory.
        have: crate::segment::MemoryKind,
        /// What is other.
        what: &'static str,
    },
    /// More buffers than there can be.
    #[error(
        "{MAX_BUFFERS} buffers are announced and in use, and one more comes; have whoever makes them use them again"
    )]
    TooMany,
    /// The kernel refused.
    #[error("{call} failed: {source}")]
    Os {
        /// What was tried.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl IpcError {
    fn os<E: Into<io::Error>>(call: &'static str) -> impl Fn(E) -> IpcError {
        move |e| IpcError::Os { call, source: e.into() }
    }
}

fn within(error: &ImportError) -> &'static str {
    match error {
        ImportError::WithProducer | ImportError::OtherLayout { .. } => {
            "; within one process, link the elements instead"
        }
        _ => "",
    }
}

/// Nanoseconds of CLOCK_MONOTONIC.
fn now() -> u64 {
    match nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) {
        Ok(t) => t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64,
        // Linux always has it.
        Err(_) => 0,
    }
}
