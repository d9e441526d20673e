//! Consumers without manners, by what they share with their producer: the page and the pipe.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};
use nix::sys::uio::pwrite;
use nix::unistd::read;
use shrbuf::ipc::{Options, Policy, Returns};

use crate::common::{Descriptors, opened_again};
use crate::fake::words;
use crate::hostile::{READY, START, WAKE, greeted, greeting};
use crate::source::{Source, options, socket};

/// A consumer by hand.
struct Peer {
    socket: OwnedFd,
    page: OwnedFd,
    pipe: OwnedFd,
}

/// What a producer has sent over `socket`, up to the channel: descriptors of its page and its pipe; EAGAIN where it has not come
/// that far, and none where it has closed before.
pub fn channel(socket: &OwnedFd) -> nix::Result<Vec<OwnedFd>> {
    loop {
        let (mut bytes, mut space) = ([0; 640], cmsg_space!([i32; 4]));
        let mut part = [std::io::IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut part, Some(&mut space), flags)?;
        let mut fds = Vec::new();
        for control in message.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(rights) = control {
                // SAFETY: recvmsg(2) has just installed them for us.
                fds.extend(rights.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if message.bytes == 0 || bytes[..4] == 0x88_u32.to_ne_bytes() {
            return Ok(fds);
        }
    }
}

/// Writes over a word of the page, as no consumer should.
pub fn scribble(page: &OwnedFd, at: i64, word: u64) {
    pwrite(page, &word.to_ne_bytes(), at).unwrap();
}

impl Peer {
    /// Connected and started.
    fn new(path: &Path, source: &mut Source) -> Peer {
        let all = [greeting(path)];
        source.until(|_| greeted(&all) == 1);
        let [socket] = all;
        let mut fds = channel(&socket).unwrap();
        let (pipe, page) = (fds.pop().unwrap(), fds.pop().unwrap());
        let peer = Peer { socket, page, pipe };
        peer.say(&[READY, source.pool.len() as u32]);
        peer.say(&[START]);
        source.until(|s| s.producer.consumers() == 1);
        peer
    }

    fn say(&self, message: &[u32]) {
        send(self.socket.as_raw_fd(), &words(message), MsgFlags::MSG_NOSIGNAL).unwrap();
    }

    /// The buffer of the frame that has come.
    fn frame(&self) -> u32 {
        let mut record = [0; 64];
        assert_eq!(read(&self.pipe, &mut record), Ok(64));
        u32::from_ne_bytes(record[4..8].try_into().unwrap())
    }
}

fn rows() -> [Options; 2] {
    [Returns::AtOnce, Returns::WhenNeeded].map(|returns| Options { returns, ..options(1, 2, Policy::Block) })
}

#[test]
fn a_bit_of_a_buffer_that_is_not_held_closes_the_connection() {
    for options in rows() {
        let descriptors = Descriptors::count();
        let path = socket("bit");
        let mut source = Source::new(&path, options, 4);
        let peer = Peer::new(&path, &mut source);
        assert!(source.send());
        scribble(&peer.page, 0, 1 << 63);
        assert!(source.send());
        assert_eq!((source.producer.consumers(), source.producer.counts().refused, source.pool.idle()), (0, 1, 4));
        drop((peer, source));
        descriptors.assert_same();
    }
}

#[test]
fn a_wake_up_is_worth_a_frame_given_back_and_no_more() {
    for options in rows() {
        let _alone = Descriptors::count();
        let path = socket("wakes");
        let mut source = Source::new(&path, options, 4);
        let peer = Peer::new(&path, &mut source);
        for _ in 0..3 {
            assert!(source.send());
            scribble(&peer.page, 0, 1 << peer.frame());
            peer.say(&[WAKE]);
            source.until(|s| s.pool.idle() == 4);
        }
        assert_eq!(source.producer.consumers(), 1);
        peer.say(&[WAKE]);
        source.until(|s| s.producer.consumers() == 0);
        assert_eq!(source.producer.counts().refused, 1);
    }
}

#[test]
fn one_who_gives_back_what_it_has_not_read_is_closed_when_its_pipe_is_full() {
    let _alone = Descriptors::count();
    let path = socket("unread");
    let mut source = Source::new(&path, Options { returns: Returns::WhenNeeded, ..options(1, 1, Policy::Block) }, 1);
    let peer = Peer::new(&path, &mut source);
    fcntl(&peer.pipe, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    for frame in 0..64 {
        assert!(source.send(), "frame {frame}");
        scribble(&peer.page, 0, 1);
        peer.say(&[WAKE]);
        source.until(|s| s.pool.idle() == 1);
    }
    assert_eq!(source.producer.consumers(), 1);
    assert!(source.send());
    assert_eq!((source.producer.consumers(), source.producer.counts().refused, source.pool.idle()), (0, 1, 1));
}

#[test]
fn the_pipe_is_for_reading_and_a_consumer_that_closes_it_raises_no_signal() {
    let _alone = Descriptors::count();
    let path = socket("closes");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 4);
    let Peer { socket, page: _page, pipe } = Peer::new(&path, &mut source);
    let flags = OFlag::from_bits_retain(fcntl(&pipe, FcntlArg::F_GETFL).unwrap());
    assert_eq!(flags & OFlag::O_ACCMODE, OFlag::O_RDONLY);
    drop((opened_again(&pipe, OFlag::O_RDONLY).unwrap(), pipe));
    assert!(source.send(), "what it does with its end is its own affair");
    assert_eq!(source.producer.consumers(), 1);
    drop(socket);
    source.until(|s| s.pool.idle() == 4);
}
