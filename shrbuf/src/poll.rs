//! poll(2) on one descriptor, repeated over EINTR with the time that is left.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

fn wait(fd: BorrowedFd<'_>, flags: PollFlags, timeout: Option<Duration>) -> io::Result<bool> {
    let end = timeout.map(|t| Instant::now() + t);
    loop {
        let left = match end {
            None => PollTimeout::NONE,
            // Rounded up, so that the last millisecond does not become a busy loop.
            Some(end) => {
                let left = end.saturating_duration_since(Instant::now()).as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(left.min(i32::MAX as u128) as i32).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds = [PollFd::new(fd, flags)];
        match poll(&mut fds, left) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(fds[0].revents().is_some_and(|r| r.intersects(flags))),
            Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Waits for POLLIN; `None` waits for ever, zero only asks. False at the end of the time.
pub(crate) fn readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    wait(fd, PollFlags::POLLIN, timeout)
}

/// Waits for POLLOUT: of a dma-buf, that no reader's and no writer's fence is pending.
pub(crate) fn writable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    wait(fd, PollFlags::POLLOUT, timeout)
}
