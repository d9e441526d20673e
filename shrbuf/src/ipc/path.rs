//! The socket's place in the file system: who may connect, and that there is one producer at it.
//!
//! A lock beside it tells a producer that lives from the leftovers of one that was killed, as libwayland does it: only
//! whoever holds the lock may remove the socket. The kernel lets go of the lock whatever ends its holder. Nothing is removed
//! or replaced that a producer has not made: a lock is an empty file of the same user, and a socket one that nobody serves.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::unistd::geteuid;

use super::IpcError;

/// Connections that wait to be accepted; the kernel has further ones wait in connect(2).
const BACKLOG: i32 = 32;
/// Bytes of a socket's path at most (`sun_path` of unix(7), which ends with a zero here).
pub(super) const LONGEST: usize = 107;
/// What a socket is called until it listens.
const MAKING: &str = ".new";

/// A socket that listens, removed on drop.
pub(super) struct Listener {
    pub(super) socket: OwnedFd,
    // Before the lock, so that it goes while that is held.
    _name: Name,
    _lock: Lock,
}

/// A file's name, removed on drop where it still is that file's.
struct Name {
    path: PathBuf,
    file: (u64, u64),
}

/// A locked file, removed on drop.
struct Lock {
    // Before the lock itself, as above.
    _name: Name,
    _file: Flock<File>,
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(ending);
    beside.into()
}

impl Listener {
    /// Listens at `path`, to which the permission bits `mode` let people connect (those with `w`).
    pub(super) fn bind(path: &Path, mode: u32) -> Result<Listener, IpcError> {
        let os = |call| move |source: io::Error| IpcError::Path { call, path: path.to_owned(), source };
        let most = LONGEST - MAKING.len();
        if path.as_os_str().len() > most {
            return Err(IpcError::TooLong { path: path.to_owned(), most });
        }
        let lock = Lock::claim(path)?;
        check_free(path)?;
        // It gets its name once it listens, in place of what a killed producer left: whoever sees it can connect.
        let making = beside(path, MAKING);
        check_free(&making)?;
        // A producer that was killed half-way has left one; else there is nothing to remove.
        let _ = fs::remove_file(&making);
        let call = |call| move |e: nix::Error| os(call)(e.into());
        let socket = seqpacket().map_err(call("socket"))?;
        let address = UnixAddr::new(&making).map_err(call("bind"))?;
        bind(socket.as_raw_fd(), &address).map_err(call("bind"))?;
        let mut name = Name::of(making).map_err(os("lstat"))?;
        // Nobody can connect before it listens, so the mode is right from the first on.
        fs::set_permissions(&name.path, Permissions::from_mode(mode & 0o777)).map_err(os("chmod"))?;
        listen(&socket, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN)).map_err(call("listen"))?;
        fs::rename(&name.path, path).map_err(os("rename"))?;
        name.path = path.to_owned();
        Ok(Listener { socket, _name: name, _lock: lock })
    }
}

fn seqpacket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

/// Nothing is there, or a socket that nobody serves any more. Whoever holds the lock asks.
fn check_free(path: &Path) -> Result<(), IpcError> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    let path = path.to_owned();
    if !found.file_type().is_socket() {
        return Err(IpcError::Taken { path });
    }
    let failed = |call: &'static str| {
        let path = path.clone();
        move |e: nix::Error| IpcError::Path { call, path, source: e.into() }
    };
    let asking = seqpacket().map_err(failed("socket"))?;
    let address = UnixAddr::new(&path).map_err(failed("connect"))?;
    match connect(asking.as_raw_fd(), &address) {
        Err(nix::Error::ECONNREFUSED | nix::Error::ENOENT) => Ok(()),
        // No producer has it, or the lock would not be ours.
        _ => Err(IpcError::Foreign { path }),
    }
}

impl Name {
    fn of(path: PathBuf) -> io::Result<Name> {
        let file = identity(&fs::symlink_metadata(&path)?);
        Ok(Name { path, file })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // What is gone already needs no removing, and what has come in its place is somebody else's.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Lock {
    /// Locks the file beside the socket `path`, which is made where it is not there.
    fn claim(path: &Path) -> Result<Lock, IpcError> {
        let lock = beside(path, ".lock");
        let os = |call| {
            let path = lock.clone();
            move |source: io::Error| IpcError::Path { call, path, source }
        };
        loop {
            let mut options = OpenOptions::new();
            // A pipe in its place would be waited for.
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            options.create(true).truncate(false).write(true).mode(0o600).custom_flags(flags);
            let file = options.open(&lock).map_err(|e| match e.raw_os_error() {
                Some(libc::ELOOP | libc::EISDIR | libc::ENXIO) => IpcError::NoLock { path: lock.clone() },
                // Another user's, or there is none and none can be made.
                Some(libc::EACCES) if lock.symlink_metadata().is_ok() => IpcError::NoLock { path: lock.clone() },
                Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::EROFS) => {
                    IpcError::NoPlace { path: path.to_owned(), source: e }
                }
                _ => os("open")(e),
            })?;
            let found = file.metadata().map_err(os("fstat"))?;
            if !found.is_file() || found.len() != 0 || found.uid() != geteuid().as_raw() {
                return Err(IpcError::NoLock { path: lock });
            }
            let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
            let file = locked.map_err(|(_, e)| match e {
                nix::Error::EWOULDBLOCK => IpcError::InUse { path: path.to_owned() },
                _ => os("flock")(e.into()),
            })?;
            // Its last holder may have removed it between the two calls: a lock on what has no name keeps nobody out.
            let own = identity(&found);
            if fs::symlink_metadata(&lock).is_ok_and(|named| identity(&named) == own) {
                return Ok(Lock { _name: Name { path: lock, file: own }, _file: file });
            }
        }
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;

    /// A directory of its own, removed on drop.
    struct Place(PathBuf);

    impl Place {
        fn new(test: &str) -> Place {
            let place = std::env::temp_dir().join(format!("shrbuf-path-{}-{test}", std::process::id()));
            fs::create_dir(&place).unwrap();
            Place(place)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> =
                fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn error(path: &Path) -> IpcError {
        Listener::bind(path, 0o600).err().expect("it listens")
    }

    #[test]
    fn socket_and_lock_come_and_go() {
        let place = Place::new("come-and-go");
        let listener = Listener::bind(&place.0.join("s"), 0o600).unwrap();
        assert_eq!(place.names(), ["s", "s.lock"]);
        drop(listener);
        assert!(place.names().is_empty());
    }

    #[test]
    fn lock_of_somebody_else_is_left_alone() {
        let place = Place::new("lock");
        let lock = place.0.join("Cargo.lock");
        fs::write(&lock, "version = 4").unwrap();
        assert!(matches!(error(&place.0.join("Cargo")), IpcError::NoLock { path } if path == lock));
        assert_eq!(fs::read_to_string(&lock).unwrap(), "version = 4");
        assert_eq!(place.names(), ["Cargo.lock"]);
    }

    #[test]
    fn lock_that_is_no_file_is_left_alone_and_not_waited_for() {
        let place = Place::new("kinds");
        let lock = |name: &str| place.0.join(format!("{name}.lock"));
        nix::unistd::mkfifo(&lock("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir(lock("directory")).unwrap();
        std::os::unix::fs::symlink("elsewhere", lock("link")).unwrap();
        for name in ["pipe", "directory", "link"] {
            let error = error(&place.0.join(name));
            assert!(matches!(&error, IpcError::NoLock { path } if *path == lock(name)), "{name}: {error}");
        }
        assert_eq!(place.names(), ["directory.lock", "link.lock", "pipe.lock"]);
    }

    #[test]
    fn file_called_new_is_left_alone() {
        let place = Place::new("new");
        let new = place.0.join("s.new");
        fs::write(&new, "mine").unwrap();
        assert!(matches!(error(&place.0.join("s")), IpcError::Taken { path } if path == new));
        assert_eq!(fs::read_to_string(&new).unwrap(), "mine");
        assert_eq!(place.names(), ["s.new"]);
    }

    #[test]
    fn leftovers_of_a_killed_producer_are_replaced() {
        let place = Place::new("left");
        for name in ["s", "s.new"] {
            bind(seqpacket().unwrap().as_raw_fd(), &UnixAddr::new(&place.0.join(name)).unwrap()).unwrap();
        }
        fs::write(place.0.join("s.lock"), "").unwrap();
        let listener = Listener::bind(&place.0.join("s"), 0o600).unwrap();
        assert_eq!(place.names(), ["s", "s.lock"]);
        drop(listener);
        assert!(place.names().is_empty());
    }

    #[test]
    fn socket_that_another_program_serves_is_left_alone() {
        let place = Place::new("served");
        let path = place.0.join("s");
        let server = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(error(&path), IpcError::Foreign { .. }));
        assert_eq!(place.names(), ["s"]);
        drop(server);
        drop(Listener::bind(&path, 0o600).unwrap());
    }

    #[test]
    fn directory_that_is_not_there_or_none_is_told_by_the_path_that_was_asked_for() {
        let place = Place::new("nowhere");
        fs::write(place.0.join("file"), "mine").unwrap();
        for directory in ["missing", "file"] {
            let path = place.0.join(directory).join("s");
            let error = error(&path);
            assert!(matches!(&error, IpcError::NoPlace { path: named, .. } if *named == path), "{error}");
            assert!(!error.to_string().contains(".lock"), "{error}");
        }
        assert_eq!(place.names(), ["file"]);
    }

    #[test]
    fn what_has_come_in_the_place_of_the_socket_stays() {
        let place = Place::new("instead");
        let path = place.0.join("s");
        let listener = Listener::bind(&path, 0o600).unwrap();
        fs::write(place.0.join("other"), "mine").unwrap();
        fs::rename(place.0.join("other"), &path).unwrap();
        drop(listener);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn path_too_long_is_told_with_what_there_is_room_for() {
        let place = Place::new("long");
        let room = LONGEST - MAKING.len() - place.0.as_os_str().len() - 1;
        let (fits, long) = (place.0.join("s".repeat(room)), place.0.join("s".repeat(room + 1)));
        drop(Listener::bind(&fits, 0o600).unwrap());
        let error = error(&long);
        assert!(matches!(error, IpcError::TooLong { most: 103, .. }), "{error}");
        assert!(error.to_string().contains("103"), "{error}");
        assert!(place.names().is_empty());
    }
}
