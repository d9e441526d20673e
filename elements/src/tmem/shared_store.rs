//! Stores that several elements share, by name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use shrbuf::Ledger;
use tmem_cache::store::{OpenError, Pool, PoolOptions, Store, StoreOptions};

/// Stores stay for those who name them later; one without pools holds next to nothing.
static STORES: Mutex<Option<HashMap<String, Store>>> = Mutex::new(None);

/// A pool in a store of `max` bytes of its own, or in the one called `name`, which the first to name it makes.
/// Bytes of frames are counted in `ledger`, of a shared store in that of its maker.
pub(super) fn pool(name: Option<&str>, max: usize, ledger: &Ledger, options: PoolOptions) -> Result<Pool, OpenError> {
    let make = || Store::new(&StoreOptions { ledger: ledger.clone(), ..StoreOptions::new(max) });
    let Some(name) = name else { return make()?.pool(options) };
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let stores = stores.get_or_insert_default();
    if !stores.contains_key(name) {
        stores.insert(name.to_owned(), make()?);
    }
    stores[name].pool(options)
}
