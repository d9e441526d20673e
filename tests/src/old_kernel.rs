//! A kernel before Linux 6.0, as far as fences of dma-bufs go.

use nix::libc::{self, sock_filter, sock_fprog};

const EXPORT_SYNC_FILE: u32 = 0xc008_6202;
const IMPORT_SYNC_FILE: u32 = 0x4008_6203;

/// Where `struct seccomp_data` has the number of the call, and the low half of its second argument.
const CALL: u32 = 0;
const REQUEST: u32 = 24;

/// From now on the kernel knows neither DMA_BUF_IOCTL_EXPORT_SYNC_FILE nor DMA_BUF_IOCTL_IMPORT_SYNC_FILE, for this thread
/// and those that it starts.
pub fn without_sync_files() {
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, [0, 0]);
    let is = |value, jumps| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, jumps);
    let end = |with| step(libc::BPF_RET | libc::BPF_K, with, [0, 0]);
    let mut steps = [
        load(CALL),
        is(libc::SYS_ioctl as u32, [0, 3]),
        load(REQUEST),
        is(EXPORT_SYNC_FILE, [2, 0]),
        is(IMPORT_SYNC_FILE, [1, 0]),
        end(libc::SECCOMP_RET_ALLOW),
        end(libc::SECCOMP_RET_ERRNO | libc::ENOTTY as u32),
    ];
    let program = sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program and its steps are alive during the calls, which copy them.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) == 0
    };
    assert!(set, "{}", std::io::Error::last_os_error());
}

fn step(code: u32, k: u32, [jt, jf]: [u8; 2]) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
