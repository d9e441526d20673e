//! How often somebody may connect: each user a burst, and then so many connections a second.
//!
//! Whoever connects is told of every buffer, by the thread that sends the frames. One that comes again and again would have
//! all of it; so it is sent away, and the next one looked at only after a while. Meanwhile connections wait in the kernel.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timer::Expiration;
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::IpcError;

/// Users that are remembered.
const USERS: usize = 64;

pub(super) struct Arrivals {
    /// Between two of one user, in ns.
    apart: u64,
    burst: u64,
    users: Vec<User>,
    rest: TimerFd,
}

struct User {
    uid: u32,
    /// When it will have all of its burst again.
    whole: u64,
}

impl Arrivals {
    pub(super) fn new(per_second: u32, burst: u32) -> Result<Arrivals, IpcError> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let rest = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(IpcError::os("timerfd_create"))?;
        let (apart, burst) = (1_000_000_000 / u64::from(per_second.max(1)), u64::from(burst));
        Ok(Arrivals { apart, burst, users: Vec::with_capacity(USERS), rest })
    }

    /// Whether user `uid` may come now.
    pub(super) fn may_come(&mut self, uid: u32, now: u64) -> bool {
        let at = self.users.iter().position(|u| u.uid == uid).unwrap_or_else(|| {
            if self.users.len() == USERS {
                // The one that has been here least lately.
                let oldest = (0..USERS).min_by_key(|&i| self.users[i].whole).unwrap_or(0);
                self.users.swap_remove(oldest);
            }
            self.users.push(User { uid, whole: 0 });
            self.users.len() - 1
        });
        let user = &mut self.users[at];
        let whole = user.whole.max(now) + self.apart;
        let may = whole <= now + self.burst * self.apart;
        if may {
            user.whole = whole;
        }
        may
    }

    /// Nobody is looked at until the descriptor is readable.
    pub(super) fn rest(&self) -> nix::Result<()> {
        let apart = TimeSpec::from_duration(Duration::from_nanos(self.apart.max(1)));
        self.rest.set(Expiration::OneShot(apart), TimerSetTimeFlags::empty())
    }

    pub(super) fn rested(&self) {
        // Not blocking, and there is nothing in it to know.
        let _ = self.rest.wait();
    }
}

impl AsFd for Arrivals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rest.as_fd()
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_then_so_many_a_second_for_each_user() {
        let mut arrivals = Arrivals::new(10, 3).unwrap();
        let mut come = |uid, now| (0..20).filter(|_| arrivals.may_come(uid, now)).count();
        assert_eq!(come(1, SECOND), 3);
        assert_eq!(come(2, SECOND), 3, "another user has a burst of its own");
        assert_eq!(come(1, SECOND + SECOND / 10), 1);
        assert_eq!(come(1, SECOND + SECOND / 10 * 3), 2);
        assert_eq!(come(1, 10 * SECOND), 3, "no more than the burst, however long it was away");
    }

    #[test]
    fn users_without_end_take_no_more_memory_and_the_busy_one_is_remembered() {
        let mut arrivals = Arrivals::new(10, 3).unwrap();
        for uid in 0..1000 {
            while arrivals.may_come(u32::MAX, SECOND) {}
            assert!(arrivals.may_come(uid, SECOND));
            assert!(!arrivals.may_come(u32::MAX, SECOND), "after {uid}");
        }
        assert_eq!(arrivals.users.len(), USERS);
    }
}
