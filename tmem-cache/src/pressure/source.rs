//! Where readings come from: PSI and the cgroup, or what is left where they are not to be had.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::law::Reading;

/// A trigger fires after 50 ms of stall within 1 s; the kernel allows windows of 0.5 to 10 s, of 2 s multiples to those
/// without CAP_SYS_RESOURCE.
const TRIGGERS: [&[u8]; 2] = [b"some 50000 1000000\0", b"some 100000 2000000\0"];

/// The system's or a cgroup's memory.
#[derive(Debug)]
pub struct System {
    /// `/`, but for tests.
    root: PathBuf,
    /// `memory.pressure` of the cgroup, or `/proc/pressure/memory`.
    pressure: Option<PathBuf>,
    trigger: Option<File>,
    /// The cgroup's directory (version 2), where there is one.
    cgroup: Option<PathBuf>,
    total: Option<u64>,
    events: u64,
    looked: Instant,
}

impl System {
    /// What this process can see. What it has to do without is said once in a process, as a `tracing` warning: without
    /// PSI, stalls are taken from the cgroup's `memory.events` (`high`, `max`) and free memory from `MemAvailable` alone.
    pub fn new() -> System {
        System::at(Path::new("/"))
    }

    /// As [`System::new`], of a system whose `proc` and `sys` are in `root`: readings that a test writes itself.
    pub fn at(root: &Path) -> System {
        static NO_PSI: Once = Once::new();
        static NO_TRIGGER: Once = Once::new();
        let cgroup = own_cgroup(root).filter(|c| c.join("memory.current").exists());
        let candidates = cgroup.iter().map(|c| c.join("memory.pressure")).chain([root.join("proc/pressure/memory")]);
        let pressure = candidates.into_iter().find(|p| fs::read_to_string(p).is_ok_and(|s| total(&s).is_some()));
        let trigger = pressure.as_deref().map(open_trigger);
        match &trigger {
            None => NO_PSI.call_once(|| {
                tracing::warn!("no PSI here (CONFIG_PSI, psi=1): memory.events and MemAvailable serve instead");
            }),
            Some(Err(e)) => NO_TRIGGER.call_once(|| {
                tracing::warn!("no PSI trigger ({e}): pressure is noticed at the next look, not at once");
            }),
            Some(Ok(_)) => {}
        }
        let trigger = trigger.and_then(Result::ok);
        let root = root.to_owned();
        let mut system = System { root, pressure, trigger, cgroup, total: None, events: 0, looked: Instant::now() };
        system.total = system.stalled();
        system.events = system.high_events();
        system
    }

    /// **Blocks** until there is pressure, or for `timeout`. A trigger whose cgroup has vanished is let go of.
    pub fn wait(&mut self, timeout: Duration) {
        self.wait_or(timeout, None);
    }

    /// As [`System::wait`], and until `stop` is readable.
    pub(super) fn wait_or(&mut self, timeout: Duration, stop: Option<BorrowedFd<'_>>) {
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // Rounded up, or the last millisecond would be spent in polls that wait for nothing.
            let left = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
            let trigger = self.trigger.as_ref().map(|trigger| PollFd::new(trigger.as_fd(), PollFlags::POLLPRI));
            let stop = stop.map(|stop| PollFd::new(stop, PollFlags::POLLIN));
            let triggered = trigger.is_some();
            let mut fds: Vec<PollFd<'_>> = trigger.into_iter().chain(stop).collect();
            // A signal ends it early, which costs one more look.
            let _ = poll(&mut fds, left);
            let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
            let vanished = triggered && fds[0].revents().is_some_and(|events| events.intersects(gone));
            drop(fds);
            if !vanished {
                return;
            }
            // It would be told of for ever. Looks go on without it.
            self.trigger = None;
        }
    }

    /// What happened since the last look.
    pub fn read(&mut self) -> Reading {
        let passed = self.looked.elapsed().as_micros().max(1) as f64;
        self.looked = Instant::now();
        let stalled = self.stalled();
        let events = self.high_events();
        let some = match (stalled, self.total) {
            (Some(now), Some(before)) => now.saturating_sub(before) as f64 / passed,
            // Reclaim on the cgroup's own account, without PSI to say for how long.
            _ if events > self.events => 0.05,
            _ => 0.0,
        };
        (self.total, self.events) = (stalled, events);
        Reading { some: some.min(1.0), free: self.free() }
    }

    fn stalled(&self) -> Option<u64> {
        total(&fs::read_to_string(self.pressure.as_ref()?).ok()?)
    }

    fn high_events(&self) -> u64 {
        let events = self.cgroup.as_ref().and_then(|c| fs::read_to_string(c.join("memory.events")).ok());
        let fields = events.as_deref().unwrap_or_default().lines().filter_map(|l| l.split_once(' '));
        fields.filter(|(k, _)| ["high", "max"].contains(k)).filter_map(|(_, v)| v.parse::<u64>().ok()).sum()
    }

    fn free(&self) -> u64 {
        let meminfo = fs::read_to_string(self.root.join("proc/meminfo")).unwrap_or_default();
        let available = meminfo
            .lines()
            .find_map(|l| l.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse::<u64>().ok());
        let system = available.map_or(u64::MAX, |kib| kib << 10);
        let number = |name: &str| fs::read_to_string(self.cgroup.as_ref()?.join(name)).ok()?.trim().parse::<u64>().ok();
        let limit = [number("memory.high"), number("memory.max")].into_iter().flatten().min();
        let left = limit.zip(number("memory.current")).map(|(limit, now)| limit.saturating_sub(now));
        left.map_or(system, |left| left.min(system))
    }
}

impl Default for System {
    fn default() -> System {
        System::new()
    }
}

/// Microseconds from the `some` line of a PSI file.
fn total(psi: &str) -> Option<u64> {
    psi.lines().find(|l| l.starts_with("some "))?.split("total=").nth(1)?.trim().parse().ok()
}

fn open_trigger(path: &Path) -> io::Result<File> {
    let mut last = io::ErrorKind::Unsupported.into();
    for trigger in TRIGGERS {
        let written = OpenOptions::new().read(true).write(true).open(path).and_then(|mut f| {
            f.write_all(trigger)?;
            Ok(f)
        });
        match written {
            Ok(file) => return Ok(file),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn own_cgroup(root: &Path) -> Option<PathBuf> {
    let all = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let path = all.lines().find_map(|l| l.strip_prefix("0::/"))?;
    Some(root.join("sys/fs/cgroup").join(path))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn total_is_that_of_the_some_line() {
        let psi = "some avg10=0.00 avg60=0.00 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=45\n";
        assert_eq!(total(psi), Some(123));
        assert_eq!(total("full total=1"), None);
    }

    #[test]
    fn reading_of_this_machine_is_sane() {
        let mut system = System::new();
        let reading = system.read();
        assert!((0.0..=1.0).contains(&reading.some) && reading.free > 0, "{reading:?}");
    }

    fn with_trigger(trigger: impl Into<std::os::fd::OwnedFd>) -> System {
        let trigger = Some(File::from(trigger.into()));
        System { trigger, pressure: None, cgroup: None, ..System::at(Path::new("/nowhere")) }
    }

    #[test]
    fn wait_ends_when_the_trigger_fires() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Bytes out of band are what poll(2) calls POLLPRI, as it does the kernel's word on pressure.
        let mut system = with_trigger(listener.accept().unwrap().0);
        nix::sys::socket::send(sender.as_raw_fd(), b"!", nix::sys::socket::MsgFlags::MSG_OOB).unwrap();
        let started = Instant::now();
        system.wait(Duration::from_secs(60));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn trigger_that_has_vanished_is_let_go_and_the_wait_goes_on() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        // From now on poll(2) says POLLERR.
        drop(reader);
        let mut system = with_trigger(writer);
        let started = Instant::now();
        (0..2).for_each(|_| system.wait(Duration::from_millis(50)));
        assert!(started.elapsed() >= Duration::from_millis(100) && system.trigger.is_none());
    }
}
