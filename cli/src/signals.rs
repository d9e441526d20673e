//! SIGINT and SIGTERM: the first ends a pipeline, the second stops it, the third ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use shrbuf_pipeline::supervise::Verdict;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Signals so far.
#[derive(Clone)]
pub struct Interrupts(Arc<AtomicU32>);

impl Interrupts {
    /// Begins to count them, on a thread of its own.
    ///
    /// # Errors
    /// No descriptor, or no thread.
    pub fn watch() -> io::Result<Interrupts> {
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        std::thread::Builder::new().name("shrbuf-signals".into()).spawn(move || {
            for signal in signals.forever() {
                // A device that hangs in an ioctl obeys no verdict; nor must the user need `kill -9`.
                if counted.fetch_add(1, Relaxed) == 2 {
                    std::process::exit(128 + signal);
                }
            }
        })?;
        Ok(Interrupts(count))
    }

    /// What they mean for a run.
    pub fn verdict(&self) -> Verdict {
        match self.0.load(Relaxed) {
            0 => Verdict::Continue,
            1 => Verdict::End,
            _ => Verdict::Stop,
        }
    }
}
