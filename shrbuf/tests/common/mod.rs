//! What the integration tests share: a quiet process whose descriptors are counted, and ways for a descriptor to travel.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use shrbuf::layout::Plane;
use shrbuf::{Account, Format, Layout, Ledger, Modifier, Reason, Shrbuf};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The process's descriptors, while no other test of this binary runs.
pub struct Descriptors {
    before: Vec<String>,
    _alone: MutexGuard<'static, ()>,
}

impl Descriptors {
    pub fn count() -> Descriptors {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Descriptors { before: open(), _alone }
    }

    /// Number and target of each that is open now.
    pub fn open_now() -> Vec<String> {
        open()
    }

    /// # Panics
    /// Where one is open that was not, or closed that was open.
    pub fn assert_same(&self) {
        assert_eq!(open(), self.before, "descriptors leaked, or closed that are not ours");
    }

    /// The same, where some are closed on a thread of its own, which is given half a minute.
    ///
    /// # Panics
    /// As [`Descriptors::assert_same`].
    pub fn assert_settle(&self) {
        let begin = Instant::now();
        while open() != self.before && begin.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.assert_same();
    }
}

/// What a test does that finds no driver. Where `SHRBUF_REQUIRE_DRIVERS` is set, as in the guest, that is a failure.
pub fn without_drivers(needs: &str) {
    assert!(std::env::var_os("SHRBUF_REQUIRE_DRIVERS").is_none(), "{needs}");
    println!("{needs}: run through guest/run");
}

/// Number and target of each open descriptor.
fn open() -> Vec<String> {
    let mut all: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter_map(|path| Some(format!("{} {}", path.display(), fs::read_link(&path).ok()?.display())))
        // The one that lists them.
        .filter(|line| !line.contains("/proc/") || !line.ends_with("/fd"))
        .collect();
    all.sort();
    all
}

/// Runs `f` while the process may open `spare` descriptors more and no further one.
pub fn with_descriptors_left<T>(spare: usize, f: impl FnOnce() -> T) -> T {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // The kernel gives the lowest free number: these would be next.
    let next: Vec<OwnedFd> = (0..=spare).map(|_| OwnedFd::from(fs::File::open("/dev/null").unwrap())).collect();
    let limit = next[spare].as_raw_fd() as u64;
    drop(next);
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    let result = f();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    result
}

/// The descriptor as another process would get it, by SCM_RIGHTS.
pub fn through_a_socket(fd: OwnedFd) -> OwnedFd {
    let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let rights = [fd.as_raw_fd()];
    sendmsg::<()>(a.as_raw_fd(), &[IoSlice::new(b"f")], &[ControlMessage::ScmRights(&rights)], MsgFlags::empty(), None)
        .unwrap();
    drop(fd);
    let (mut byte, mut space) = ([0], nix::cmsg_space!([i32; 1]));
    let mut data = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(b.as_raw_fd(), &mut data, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    let ControlMessageOwned::ScmRights(fds) = message.cmsgs().unwrap().next().unwrap() else { panic!("no descriptor") };
    // SAFETY: recvmsg(2) has just installed it for us.
    unsafe { OwnedFd::from_raw_fd(fds[0]) }
}

/// The file behind `fd`, opened anew.
pub fn opened_again(fd: impl AsFd, flags: OFlag) -> nix::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    nix::fcntl::open(path.as_str(), flags | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
}

/// 64x48, one segment.
pub fn one_segment() -> Layout {
    Layout::linear(Format::Xr24, 64, 48, 64).unwrap()
}

/// 64x48 NV12, a segment for each plane.
pub fn two_segments() -> Layout {
    nv12([0, 1], [0, 0])
}

/// 64x48 NV12.
pub fn nv12(segments: [u8; 2], offsets: [u32; 2]) -> Layout {
    let planes = [0, 1].map(|i| Plane { segment: segments[i], offset: offsets[i], stride: 64 });
    Layout::new(Format::Nv12, Some(Modifier::LINEAR), 64, 48, &planes).unwrap()
}

pub fn account() -> Account {
    Ledger::default().account("test", Reason::Inspect)
}

pub fn row(buffer: &Shrbuf, plane: usize, y: usize) -> Vec<u8> {
    let guard = buffer.read().unwrap();
    let plane = guard.plane(plane);
    let mut row = vec![0xee; plane.row_bytes()];
    plane.read(y, 0, &mut row, &account());
    row
}

/// Numbers without a pattern, below what is asked for, the same in each run (xorshift).
pub fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}
