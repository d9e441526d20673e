//! poll(2) on a descriptor or a few, repeated over EINTR with the time that is left.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

fn wait<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    flags: PollFlags,
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    // A time beyond what the clock can say is for ever.
    let end = timeout.and_then(|t| Instant::now().checked_add(t));
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let mut fds = fds.map(|fd| PollFd::new(fd, flags));
        match poll(&mut fds, left.map_or(PollTimeout::NONE, milliseconds)) {
            // poll(2) counts to 24 days; a longer wait takes several.
            Ok(0) if left.is_some_and(|left| left.as_millis() > i32::MAX as u128) => {}
            Ok(0) => return Ok([false; N]),
            Ok(_) => return Ok(fds.map(|fd| fd.revents().is_some_and(|r| r.intersects(flags)))),
            Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Rounded up, so that the last millisecond does not become a busy loop.
fn milliseconds(left: Duration) -> PollTimeout {
    let ms = left.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128);
    PollTimeout::try_from(ms as i32).unwrap_or(PollTimeout::MAX)
}

/// Waits for POLLIN; `None` waits for ever, zero only asks. False at the end of the time.
pub(crate) fn readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    wait([fd], PollFlags::POLLIN, timeout).map(|[ready]| ready)
}

/// As [`readable`], of several descriptors: which of them are.
pub(crate) fn any_readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    wait(fds, PollFlags::POLLIN, timeout)
}

/// True where the other end of a socket is closed, whatever it has sent that was not read.
pub(crate) fn hung_up(fd: BorrowedFd<'_>) -> io::Result<bool> {
    wait([fd], PollFlags::POLLHUP, Some(Duration::ZERO)).map(|[gone]| gone)
}

/// Waits for POLLOUT: of a dma-buf, that no reader's and no writer's fence is pending.
pub(crate) fn writable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    wait([fd], PollFlags::POLLOUT, timeout).map(|[ready]| ready)
}
