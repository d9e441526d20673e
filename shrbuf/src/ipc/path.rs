//! The socket's place in the file system: who may connect, and that there is one producer at it.
//!
//! A lock beside it tells a producer that lives from the leftovers of one that was killed, as libwayland does it: only
//! whoever holds the lock may remove the socket. The kernel lets go of the lock whatever ends its holder.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};

use super::IpcError;

/// Connections that wait to be accepted; the kernel has further ones wait in connect(2).
const BACKLOG: i32 = 32;

/// A socket that listens, removed on drop.
pub(super) struct Listener {
    pub(super) socket: OwnedFd,
    path: PathBuf,
    _lock: Lock,
}

/// A locked file, removed on drop.
struct Lock {
    path: PathBuf,
    _file: Flock<File>,
}

impl Listener {
    /// Listens at `path`, to which the permission bits `mode` let people connect (those with `w`).
    pub(super) fn bind(path: &Path, mode: u32) -> Result<Listener, IpcError> {
        let os = |call| move |source: io::Error| IpcError::Path { call, path: path.to_owned(), source };
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let lock = Lock::claim(beside.into()).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => IpcError::InUse { path: path.to_owned() },
            _ => os("lock")(e),
        })?;
        if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
            return Err(IpcError::NoSocket { path: path.to_owned() });
        }
        // It gets its name once it listens, in place of what a killed producer left: whoever sees it can connect.
        let mut making = path.as_os_str().to_owned();
        making.push(".new");
        let making = PathBuf::from(making);
        // A producer that was killed half-way has left one; else there is nothing to remove.
        let _ = fs::remove_file(&making);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let call = |call| move |e: nix::Error| os(call)(e.into());
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(call("socket"))?;
        let address = UnixAddr::new(&making).map_err(call("bind"))?;
        bind(socket.as_raw_fd(), &address).map_err(call("bind"))?;
        // Nobody can connect before it listens, so the mode is right from the first on.
        let named = fs::set_permissions(&making, Permissions::from_mode(mode & 0o777))
            .map_err(os("chmod"))
            .and_then(|()| listen(&socket, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN)).map_err(call("listen")))
            .and_then(|()| fs::rename(&making, path).map_err(os("rename")));
        if let Err(error) = named {
            let _ = fs::remove_file(&making);
            return Err(error);
        }
        Ok(Listener { socket, path: path.to_owned(), _lock: lock })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // While the lock is held, so that it is ours that goes. What is gone already needs no removing.
        let _ = fs::remove_file(&self.path);
    }
}

impl Lock {
    /// Locks the file called `path`, which is made where it is not there.
    fn claim(path: PathBuf) -> io::Result<Lock> {
        loop {
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            let locked = Flock::lock(options.open(&path)?, FlockArg::LockExclusiveNonblock);
            let file = locked.map_err(|(_, e)| io::Error::from(e))?;
            // Its last holder may have removed it between the two calls: a lock on what has no name keeps nobody out.
            match fs::symlink_metadata(&path) {
                Ok(named) if named.ino() == file.metadata()?.ino() => return Ok(Lock { path, _file: file }),
                _ => {}
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
