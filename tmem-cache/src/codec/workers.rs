//! Threads that sleep between frames.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

type Job = &'static (dyn Fn(usize) + Sync);

#[derive(Default)]
struct State {
    /// Counts jobs, so that each thread does each of them once.
    number: u64,
    job: Option<Job>,
    /// Threads that have not finished the job.
    busy: usize,
    panic: Option<Box<dyn Any + Send>>,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    start: Condvar,
    done: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some threads, and the caller's.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("threads", &self.threads()).finish()
    }
}

impl Workers {
    /// `threads` in all, the caller's among them. Where the system gives fewer, there are fewer.
    pub fn new(threads: usize) -> Workers {
        let shared = Arc::new(Shared::default());
        let threads = (1..threads).map_while(|number| {
            let shared = Arc::clone(&shared);
            let name = format!("tmem-codec-{number}");
            std::thread::Builder::new().name(name).spawn(move || work(&shared, number)).ok()
        });
        Workers { threads: threads.collect(), shared }
    }

    /// Threads, the caller's among them.
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `job` on every thread with the thread's number, and returns when all are done.
    ///
    /// # Panics
    /// Where `job` does, on any of them.
    pub fn run(&mut self, job: &(dyn Fn(usize) + Sync)) {
        if self.threads.is_empty() {
            return job(0);
        }
        // SAFETY: the reference is taken back below, before this function returns or unwinds and once no thread is
        // using it; `&mut self` keeps a second job from being given meanwhile.
        let lasting = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        {
            let mut state = self.shared.lock();
            state.number += 1;
            state.job = Some(lasting);
            state.busy = self.threads.len();
        }
        self.shared.start.notify_all();
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut state = self.shared.lock();
        while state.busy > 0 {
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.job = None;
        let panic = own.err().or(state.panic.take());
        drop(state);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

fn work(shared: &Shared, number: usize) {
    let mut last = 0;
    let mut state = shared.lock();
    loop {
        match state.job {
            _ if state.stop => return,
            Some(job) if state.number != last => {
                last = state.number;
                drop(state);
                let result = catch_unwind(AssertUnwindSafe(|| job(number)));
                state = shared.lock();
                state.busy -= 1;
                if let Err(panic) = result {
                    state.panic = Some(panic);
                }
                if state.busy == 0 {
                    shared.done.notify_one();
                }
            }
            _ => state = shared.start.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.start.notify_all();
        for thread in self.threads.drain(..) {
            // What a job panicked with was handed to its caller.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_thread_does_every_job_once() {
        let mut workers = Workers::new(3);
        for _ in 0..200 {
            let counts = [const { AtomicUsize::new(0) }; 3];
            workers.run(&|i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(counts.map(AtomicUsize::into_inner), [1; 3]);
        }
    }

    #[test]
    fn panic_reaches_the_caller_and_leaves_the_threads_working() {
        let mut workers = Workers::new(2);
        for culprit in [0, 1] {
            let caught = catch_unwind(AssertUnwindSafe(|| workers.run(&|i| assert_ne!(i, culprit))));
            assert!(caught.is_err());
        }
        workers.run(&|_| ());
    }
}
