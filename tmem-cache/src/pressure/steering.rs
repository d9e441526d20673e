//! A thread that steers a store by what the system says of its memory, whether anybody puts or not.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::law::Law;
use super::source::System;
use super::steer::steer;
use crate::store::Store;

/// From one look to the next, where no trigger fires meanwhile.
const LOOK: Duration = Duration::from_millis(250);

/// Steering that goes on for as long as this lives: one for each store, since each sets the budget of all of it. Dropping
/// it waits for the end of a step, which with a file tier writes what memory has to give back.
///
/// ```
/// use tmem_cache::{pressure::{Law, Steering, System}, store::{Store, StoreOptions}};
/// let store = Store::new(&StoreOptions::new(1 << 30))?;
/// let steering = Steering::new(&store, Law::new(64 << 20, 1 << 30, 256 << 20), System::new())?;
/// // Puts and gets; meanwhile memory that the system needs is given back.
/// drop(steering);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Steering {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// Readable once it is to stop.
    wake: EventFd,
}

impl Steering {
    /// Starts a thread that looks four times a second, and when the kernel's trigger fires. The law goes on from the
    /// budget that the store has.
    ///
    /// # Errors
    /// That of the system if it has no thread or descriptor to give.
    pub fn new(store: &Store, law: Law, system: System) -> io::Result<Steering> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), wake });
        let (store, theirs) = (store.clone(), shared.clone());
        let law = law.at(store.stats().budget);
        let thread = std::thread::Builder::new().name("tmem-steering".to_owned());
        let thread = thread.spawn(move || theirs.run(&store, law, system))?;
        Ok(Steering { shared, thread: Some(thread) })
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Fails only where the counter is at its end, and readable.
        let _ = self.shared.wake.write(1);
        if let Some(thread) = self.thread.take() {
            // If it panicked, the message is out already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, store: &Store, mut law: Law, mut system: System) {
        loop {
            system.wait_or(LOOK, Some(self.wake.as_fd()));
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            steer(store, &mut law, system.read());
        }
    }
}
