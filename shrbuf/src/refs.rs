//! The count of a buffer's references, with a state for "nobody has it".

use crate::sync::{AtomicU32, Ordering, fence};

/// 0 is idle: the buffer is with its pool or producer. `take` makes the first reference, `get` and `put` the rest.
#[derive(Debug)]
pub(crate) struct Refs(AtomicU32);

impl Refs {
    pub(crate) fn held() -> Refs {
        Refs(AtomicU32::new(1))
    }

    /// From idle to one reference; false where somebody holds it.
    pub(crate) fn take(&self) -> bool {
        self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// One more. The caller holds one, so it cannot be idle.
    pub(crate) fn get(&self) {
        overflow_aborts(self.0.fetch_add(1, Ordering::Relaxed));
    }

    /// One more unless idle, for those who hold only a weak handle.
    pub(crate) fn try_get(&self) -> bool {
        let mut n = self.0.load(Ordering::Relaxed);
        while n != 0 {
            overflow_aborts(n);
            match self.0.compare_exchange_weak(n, n + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => n = now,
            }
        }
        false
    }

    /// One less, by someone who holds one; true for whoever dropped the last, who now sees every write made under any reference.
    pub(crate) fn put(&self) -> bool {
        if self.0.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            return true;
        }
        false
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// As in std's Arc: leaking 2^31 handles is a bug that must not wrap into an early release.
fn overflow_aborts(count: u32) {
    if count > u32::MAX / 2 {
        std::process::abort();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn put_is_true_for_the_last_only() {
        let refs = Refs::held();
        refs.get();
        assert!(!refs.put());
        assert!(refs.put());
        assert_eq!(refs.count(), 0);
    }

    #[test]
    fn idle_count_gives_no_reference_to_a_weak_handle() {
        let refs = Refs::held();
        refs.put();
        assert!(!refs.try_get());
        assert_eq!(refs.count(), 0);
    }

    #[test]
    fn take_succeeds_once() {
        let refs = Refs::held();
        assert!(!refs.take());
        refs.put();
        assert!(refs.take());
        assert!(!refs.take());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;

    use super::Refs;

    /// What the references protect, as two threads that are not ordered would show to loom.
    #[derive(Default)]
    struct Pixels(UnsafeCell<u32>);
    // SAFETY: loom reports every access that is not ordered; that is what the models are for.
    unsafe impl Sync for Pixels {}

    impl Pixels {
        /// A plain write that only its maker may do.
        fn write(&self) {
            // SAFETY: loom checks that no other access is concurrent.
            self.0.with_mut(|p| unsafe { *p += 1 });
        }

        fn read(&self) -> u32 {
            // SAFETY: as above.
            self.0.with(|p| unsafe { *p })
        }
    }

    #[test]
    fn loom_one_put_is_last_and_sees_all_reads() {
        loom::model(|| {
            let shared = Arc::new((Refs::held(), Pixels::default(), AtomicUsize::new(0)));
            let holders: Vec<_> = (0..2)
                .map(|_| {
                    shared.0.get();
                    let shared = shared.clone();
                    thread::spawn(move || {
                        shared.1.read();
                        if shared.0.put() {
                            shared.1.write();
                            shared.2.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            if shared.0.put() {
                shared.1.write();
                shared.2.fetch_add(1, Ordering::Relaxed);
            }
            holders.into_iter().for_each(|h| h.join().unwrap());
            assert_eq!(shared.2.load(Ordering::Relaxed), 1);
            assert_eq!(shared.0.count(), 0);
        });
    }

    #[test]
    fn loom_weak_handle_never_brings_an_idle_buffer_back() {
        loom::model(|| {
            let shared = Arc::new((Refs::held(), AtomicUsize::new(0)));
            let weak = {
                let shared = shared.clone();
                thread::spawn(move || {
                    if shared.0.try_get() {
                        // The buffer is ours: the last put cannot have been before.
                        assert_eq!(shared.1.load(Ordering::Relaxed), 0);
                        shared.1.fetch_add(usize::from(shared.0.put()), Ordering::Relaxed);
                    }
                })
            };
            shared.1.fetch_add(usize::from(shared.0.put()), Ordering::Relaxed);
            weak.join().unwrap();
            assert_eq!(shared.1.load(Ordering::Relaxed), 1);
            assert!(!shared.0.try_get());
        });
    }

    #[test]
    fn loom_take_is_exclusive_and_sees_the_last_holder() {
        loom::model(|| {
            let shared = Arc::new((Refs::held(), Pixels::default(), AtomicUsize::new(0)));
            let takers: Vec<_> = (0..2)
                .map(|_| {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        if shared.0.take() {
                            shared.1.write();
                            shared.2.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            shared.1.write();
            shared.0.put();
            takers.into_iter().for_each(|t| t.join().unwrap());
            assert!(shared.2.load(Ordering::Relaxed) <= 1);
            // Whoever took it still has it.
            assert_eq!(shared.0.count() as usize, shared.2.load(Ordering::Relaxed));
        });
    }
}
