//! wait4(2), which `std` does not have.

use std::io;
use std::mem::MaybeUninit;

/// Waits for a child: its wait status, and what it used.
pub(crate) fn wait4(pid: i32) -> io::Result<(i32, libc::rusage)> {
    let mut status = 0;
    let mut usage = MaybeUninit::uninit();
    loop {
        // SAFETY: both pointers are to memory of the right type that lives until the call returns.
        let waited = unsafe { libc::wait4(pid, &mut status, 0, usage.as_mut_ptr()) };
        if waited == pid {
            // SAFETY: the kernel has filled it in, as it reported a child.
            return Ok((status, unsafe { usage.assume_init() }));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
