//! The environment, which libraries that are loaded later read.

use std::fs;

/// Sets a variable that the user has not set. To be called before there is a second thread; later it does nothing.
pub fn set_default(name: &str, value: &str) {
    let alone = fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    if alone && std::env::var_os(name).is_none() {
        // SAFETY: the only thread is this one, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var(name, value) };
    }
}
