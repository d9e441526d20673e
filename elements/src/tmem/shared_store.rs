//! Stores that several elements share, by name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tmem_cache::store::{OpenError, Pool, PoolOptions, Store, StoreOptions};

/// Pools keep their store alive; this only finds it.
static STORES: Mutex<Option<HashMap<String, Store>>> = Mutex::new(None);

/// A pool in a store of `max` bytes of its own, or in the one called `name`, which the first to name it makes.
pub(super) fn pool(name: Option<&str>, max: usize, options: PoolOptions) -> Result<Pool, OpenError> {
    let Some(name) = name else { return Store::new(&StoreOptions::new(max))?.pool(options) };
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let stores = stores.get_or_insert_default();
    if !stores.contains_key(name) {
        stores.insert(name.to_owned(), Store::new(&StoreOptions::new(max))?);
    }
    stores[name].pool(options)
}
