//! One step of the control loop: a reading, the law, and what the store does about it.

use super::law::{Law, Reading};
use crate::store::Store;

/// Sets the store's budget to what the law says of a reading, and moves persistent chunks with it: to the file tier where
/// the store is over its budget, and back while less than nine tenths of it are taken. The budget. **Blocks** on the file
/// tier, if there is one.
pub fn steer(store: &Store, law: &mut Law, reading: Reading) -> u64 {
    let budget = law.look(reading);
    let bytes = usize::try_from(budget).unwrap_or(usize::MAX);
    store.set_budget(bytes);
    let held = usize::try_from(store.stats().bytes_memory).unwrap_or(usize::MAX);
    if held > bytes {
        store.push_out(held - bytes);
    } else if law.is_calm() {
        store.bring_back((bytes / 10 * 9).saturating_sub(held));
    }
    budget
}
