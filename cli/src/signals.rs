//! SIGINT, SIGTERM, and SIGHUP of a terminal that is closed: the first ends a pipeline, the second stops it, the third ends the process. Where nothing streams
//! yet, the second does, since there is nothing to be given back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use shrbuf_pipeline::supervise::Verdict;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

#[derive(Default)]
struct Seen {
    signals: AtomicU32,
    started: AtomicBool,
}

/// Signals so far.
#[derive(Clone)]
pub struct Interrupts(Arc<Seen>);

impl Interrupts {
    /// Begins to count them, on a thread of its own.
    ///
    /// # Errors
    /// No descriptor, or no thread.
    pub fn watch() -> io::Result<Interrupts> {
        let seen = Arc::new(Seen::default());
        let noted = Arc::clone(&seen);
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        if !is_ignored(SIGHUP) {
            signals.add_signal(SIGHUP)?;
        }
        std::thread::Builder::new().name("shrbuf-signals".into()).spawn(move || {
            for signal in signals.forever() {
                let before = noted.signals.fetch_add(1, Relaxed);
                // A device that hangs in an ioctl, or a pipe that nobody writes, obeys no verdict; nor must the user need
                // `kill -9`.
                if before >= if noted.started.load(Relaxed) { 2 } else { 1 } {
                    std::process::exit(128 + signal);
                }
            }
        })?;
        Ok(Interrupts(seen))
    }

    /// From now on there is something to be given back.
    pub fn started(&self) {
        self.0.started.store(true, Relaxed);
    }

    /// What they mean for a run.
    pub fn verdict(&self) -> Verdict {
        match self.0.signals.load(Relaxed) {
            0 => Verdict::Continue,
            1 => Verdict::End,
            _ => Verdict::Stop,
        }
    }
}

/// Whether whoever started this process wants it to ignore a signal, as nohup(1) does.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 << (signal - 1) != 0)
}
