//! Stores that several elements share, by name, and what steers each by the system's memory.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use shrbuf::Ledger;
use tmem_cache::pressure::{Law, Steering, System};
use tmem_cache::store::{OpenError, Store, StoreOptions};

/// Bytes that a store keeps whatever the pressure: some frames.
const LEAST: u64 = 32 << 20;
/// Bytes of memory that are left to others.
const OTHERS: u64 = 128 << 20;

/// Stores stay for those who name them later; one without pools holds next to nothing.
static STORES: Mutex<Option<HashMap<String, Arc<Steered>>>> = Mutex::new(None);

/// A store, and its one steering for as long as some element runs.
#[derive(Debug)]
pub(super) struct Steered {
    pub(super) store: Store,
    steering: Mutex<Weak<Steering>>,
}

impl Steered {
    /// A store of `max` bytes of its own, or the one called `name`, which the first to name it makes. Bytes of frames are
    /// counted in `ledger`, of a shared store in that of its maker.
    pub(super) fn open(name: Option<&str>, max: usize, ledger: &Ledger) -> Result<Arc<Steered>, OpenError> {
        let make = || {
            let store = Store::new(&StoreOptions { ledger: ledger.clone(), ..StoreOptions::new(max) })?;
            Ok(Arc::new(Steered { store, steering: Mutex::default() }))
        };
        let Some(name) = name else { return make() };
        let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
        let stores = stores.get_or_insert_default();
        if let Some(known) = stores.get(name) {
            let limit = known.store.limit();
            if limit != max {
                tracing::warn!(
                    "store `{name}` has at most {limit} bytes, as its first element asked; {max} are not heeded"
                );
            }
            return Ok(Arc::clone(known));
        }
        let made = make()?;
        stores.insert(name.to_owned(), Arc::clone(&made));
        Ok(made)
    }

    /// Its steering, which ends when the last who asked for it lets go.
    pub(super) fn steering(&self, system: impl FnOnce() -> System) -> io::Result<Arc<Steering>> {
        let mut steering = self.steering.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(steering) = steering.upgrade() {
            return Ok(steering);
        }
        let limit = self.store.limit() as u64;
        let law = Law::new(LEAST.min(limit), limit, OTHERS);
        let new = Arc::new(Steering::new(&self.store, law, system())?);
        *steering = Arc::downgrade(&new);
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tmem_cache::store::{Handle, PoolOptions, Sharing, Stamp};

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn memory_is_given_back_while_nothing_comes_in() {
        let root = std::env::temp_dir().join(format!("shrbuf-pressure-{}", std::process::id()));
        std::fs::create_dir_all(root.join("proc")).unwrap();
        let free = |mib: usize| std::fs::write(root.join("proc/meminfo"), format!("MemAvailable: {} kB\n", mib << 10));
        free(4096).unwrap();
        let steered = Steered::open(None, 96 * MIB, &Ledger::default()).unwrap();
        let pool = steered.store.pool(PoolOptions::ephemeral(Sharing::Shared)).unwrap();
        let steering = steered.steering(|| System::at(&root)).unwrap();
        let mut state = 1u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for index in 0..80 {
            let noise: Vec<u8> = (0..MIB).map(|_| byte()).collect();
            pool.put(Handle::new(1, index), &noise, Stamp::default()).unwrap();
        }
        assert!(steered.store.stats().bytes_memory >= 80 * MIB as u64);

        // From here on nobody puts. Of what is left to others, 48 MiB are missing.
        free(80).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while steered.store.stats().bytes_memory > LEAST && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }

        assert!(steered.store.stats().bytes_memory <= LEAST, "{:?}", steered.store.stats());
        drop(steering);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_name_is_one_store_with_one_steering_and_the_limit_of_the_first() {
        let open = |max| Steered::open(Some("one store"), max, &Ledger::default()).unwrap();
        let (first, second) = (open(64 * MIB), open(8 * MIB));
        assert!(Arc::ptr_eq(&first, &second) && second.store.limit() == 64 * MIB);
        let [one, other] = [&first, &second].map(|steered| steered.steering(System::new).unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        let ended = Arc::downgrade(&one);
        drop((one, other));
        assert!(ended.upgrade().is_none());
    }
}
