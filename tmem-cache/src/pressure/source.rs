//! Where readings come from: PSI and the cgroup, or what is left where they are not to be had.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::law::Reading;

/// A trigger fires after 50 ms of stall within 1 s; the kernel allows windows of 0.5 to 10 s, of 2 s multiples to those
/// without CAP_SYS_RESOURCE.
const TRIGGERS: [&[u8]; 2] = [b"some 50000 1000000\0", b"some 100000 2000000\0"];

/// The system's or a cgroup's memory.
#[derive(Debug)]
pub struct System {
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
    /// What this process can see. Says once, as a `tracing` warning, what it has to do without: without PSI, stalls are
    /// taken from the cgroup's `memory.events` (`high`, `max`) and free memory from `MemAvailable` alone.
    pub fn new() -> System {
        let cgroup = own_cgroup().filter(|c| c.join("memory.current").exists());
        let candidates =
            cgroup.iter().map(|c| c.join("memory.pressure")).chain([PathBuf::from("/proc/pressure/memory")]);
        let pressure = candidates.into_iter().find(|p| fs::read_to_string(p).is_ok_and(|s| total(&s).is_some()));
        let trigger = pressure.as_deref().map(open_trigger);
        match &trigger {
            None => tracing::warn!("no PSI here (CONFIG_PSI, psi=1): memory.events and MemAvailable serve instead"),
            Some(Err(e)) => tracing::warn!("no PSI trigger ({e}): pressure is noticed at the next look, not at once"),
            Some(Ok(_)) => {}
        }
        let trigger = trigger.and_then(Result::ok);
        let mut system = System { pressure, trigger, cgroup, total: None, events: 0, looked: Instant::now() };
        system.total = system.stalled();
        system.events = system.high_events();
        system
    }

    /// **Blocks** until there is pressure, or for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let Some(trigger) = &self.trigger else { return std::thread::sleep(timeout) };
        let mut fds = [PollFd::new(trigger.as_fd(), PollFlags::POLLPRI)];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        // A signal ends it early, which costs one more look.
        let _ = poll(&mut fds, timeout);
    }

    /// Readable (POLLPRI) while there is pressure, for callers with a loop of their own.
    pub fn as_trigger(&self) -> Option<BorrowedFd<'_>> {
        self.trigger.as_ref().map(AsFd::as_fd)
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
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
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

fn own_cgroup() -> Option<PathBuf> {
    let all = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = all.lines().find_map(|l| l.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

#[cfg(test)]
mod tests {
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
}
