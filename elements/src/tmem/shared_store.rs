//! Stores that several elements share, by name, and what steers each by the system's memory.
//!
//! A shared store is there for as long as an element of the name is. Its limit is the `max` of those that have one, which is
//! the same, or nobody's and then [`MAX`].

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use shrbuf::Ledger;
use shrbuf_pipeline::property::{Bytes, Property};
use tmem_cache::pressure::{Law, Steering, System};
use tmem_cache::store::{OpenError, Store, StoreOptions};

/// Most memory of a store of which nobody says it.
const MAX: Bytes = Bytes(1 << 30);
/// Bytes that a store keeps whatever the pressure: some frames.
const LEAST: u64 = 32 << 20;
/// Bytes of memory that are left to others.
const OTHERS: u64 = 128 << 20;

static STORES: Mutex<BTreeMap<String, Named>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Default)]
struct Named {
    members: Vec<Weak<Claim>>,
    steered: Weak<Steered>,
}

/// What an element says of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    element: String,
    max: Option<Bytes>,
}

/// An element's share in the store of a name.
#[derive(Debug)]
pub(super) struct Share {
    name: String,
    claim: Arc<Claim>,
}

/// Two elements have different limits for the one store.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "store `{store}` has max = {max} by `{element}`, and max = {other_max} by `{other}`; give both the same, or one of \
     them none"
)]
pub(super) struct MaxDiffers {
    store: String,
    element: String,
    max: String,
    other: String,
    other_max: String,
}

/// Why there is no store to share.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShareError {
    #[error(transparent)]
    Max(#[from] MaxDiffers),
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A store, and its one steering for as long as some element runs.
#[derive(Debug)]
pub(super) struct Steered {
    pub(super) store: Store,
    /// Who made it, with which limit.
    made: Claim,
    steering: Mutex<Weak<Steering>>,
}

fn stores() -> MutexGuard<'static, BTreeMap<String, Named>> {
    STORES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Named {
    /// Everybody who said a limit, and whoever made the store.
    fn claims(&self) -> Vec<Claim> {
        let made = self.steered.upgrade().map(|steered| steered.made.clone());
        let members = self.members.iter().filter_map(Weak::upgrade).filter(|claim| claim.max.is_some());
        made.into_iter().chain(members.map(|claim| (*claim).clone())).collect()
    }
}

impl Share {
    /// Says that `element` shares the store of that name, for as long as this lives.
    pub(super) fn join(name: &str, element: &str, max: Option<Bytes>) -> Share {
        let claim = Arc::new(Claim { element: element.to_owned(), max });
        let mut stores = stores();
        stores
            .retain(|_, named| named.members.iter().any(|m| m.strong_count() > 0) || named.steered.strong_count() > 0);
        let named = stores.entry(name.to_owned()).or_default();
        named.members.retain(|member| member.strong_count() > 0);
        named.members.push(Arc::downgrade(&claim));
        Share { name: name.to_owned(), claim }
    }

    /// The limit of the store, so far as those who share it agree.
    pub(super) fn max(&self) -> Result<Bytes, MaxDiffers> {
        self.agreed(&stores().entry(self.name.clone()).or_default().claims())
    }

    fn agreed(&self, claims: &[Claim]) -> Result<Bytes, MaxDiffers> {
        let Some(first) = claims.first() else { return Ok(MAX) };
        let show = |claim: &Claim| claim.max.unwrap_or(MAX).show();
        match claims.iter().find(|claim| claim.max != first.max) {
            None => Ok(first.max.unwrap_or(MAX)),
            Some(other) => Err(MaxDiffers {
                store: self.name.clone(),
                element: first.element.clone(),
                max: show(first),
                other: other.element.clone(),
                other_max: show(other),
            }),
        }
    }

    /// The store, which whoever comes first makes. Bytes of frames are counted in the ledger of its maker.
    pub(super) fn open(&self, ledger: &Ledger) -> Result<Arc<Steered>, ShareError> {
        let mut stores = stores();
        let named = stores.entry(self.name.clone()).or_default();
        let max = self.agreed(&named.claims())?;
        if let Some(known) = named.steered.upgrade() {
            return Ok(known);
        }
        let made = Claim { max: Some(max), ..(*self.claim).clone() };
        let steered = Steered::new(made, ledger)?;
        named.steered = Arc::downgrade(&steered);
        Ok(steered)
    }
}

impl Steered {
    /// A store of one element's own.
    pub(super) fn alone(element: &str, max: Option<Bytes>, ledger: &Ledger) -> Result<Arc<Steered>, OpenError> {
        Steered::new(Claim { element: element.to_owned(), max }, ledger)
    }

    fn new(made: Claim, ledger: &Ledger) -> Result<Arc<Steered>, OpenError> {
        let max = usize::try_from(made.max.unwrap_or(MAX).0).unwrap_or(usize::MAX);
        let store = Store::new(&StoreOptions { ledger: ledger.clone(), ..StoreOptions::new(max) })?;
        Ok(Arc::new(Steered { store, made, steering: Mutex::default() }))
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
        let steered = Steered::alone("alone", Some(Bytes(96 << 20)), &Ledger::default()).unwrap();
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

    fn join(name: &str, element: &str, mib: Option<u64>) -> Share {
        Share::join(name, element, mib.map(|mib| Bytes(mib << 20)))
    }

    #[test]
    fn a_name_is_one_store_with_one_steering_for_as_long_as_somebody_has_it() {
        let shares = ["first", "second"].map(|element| join("one store", element, Some(64)));
        let [first, second] = shares.each_ref().map(|share| share.open(&Ledger::default()).unwrap());
        assert!(Arc::ptr_eq(&first, &second) && second.store.limit() == 64 * MIB);
        let [one, other] = [&first, &second].map(|steered| steered.steering(System::new).unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        let ended = Arc::downgrade(&one);
        drop((one, other));
        assert!(ended.upgrade().is_none());

        // Those who come when all have gone have one of their own.
        drop((shares, first, second));
        let later = join("one store", "later", Some(8));
        assert_eq!(later.open(&Ledger::default()).unwrap().store.limit(), 8 * MIB);
    }

    #[test]
    fn limit_is_that_of_whoever_says_it_whoever_starts_first() {
        let [silent, other] = ["silent", "other"].map(|element| join("silent first", element, None));
        assert_eq!(silent.max(), Ok(MAX));
        let says = join("silent first", "says", Some(64));
        assert_eq!((silent.max(), says.max()), (Ok(Bytes(64 << 20)), Ok(Bytes(64 << 20))));
        assert_eq!(silent.open(&Ledger::default()).unwrap().store.limit(), 64 * MIB);
        drop((says, silent));
        assert_eq!(other.max(), Ok(MAX));
    }

    #[test]
    fn two_limits_of_one_store_are_an_error_that_names_both_elements() {
        let large = join("two limits", "large", Some(64));
        let small = join("two limits", "small", Some(8));
        for share in [&large, &small] {
            let error = share.open(&Ledger::default()).unwrap_err().to_string();
            assert!(matches!(share.max(), Err(differs) if differs.to_string() == error));
            for part in ["`two limits`", "`large`", "`small`", "\"64MiB\"", "\"8MiB\""] {
                assert!(error.contains(part), "{error}");
            }
        }
        drop(small);
        let _store = large.open(&Ledger::default()).unwrap();

        // A store that there is has its limit.
        drop(large);
        let late = join("two limits", "late", Some(8));
        assert!(late.max().unwrap_err().to_string().contains("`large`"));
    }

    #[test]
    fn limit_that_nobody_said_is_one_too_once_the_store_is_made() {
        let silent = join("made by default", "silent", None);
        let _store = silent.open(&Ledger::default()).unwrap();
        let error = join("made by default", "says", Some(8)).max().unwrap_err().to_string();
        assert!(error.contains("`silent`") && error.contains("\"1GiB\""), "{error}");
        assert_eq!(join("made by default", "also silent", None).max(), Ok(MAX));
    }
}
