//! Where commands come from while a pipeline runs: standard input, a socket, a file.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::stat::{Mode, fchmod};
use shrbuf_pipeline::{Failure, FailureKind};

use super::command::Command;

/// Longest line.
const LINE: usize = 256;
/// Longest datagram.
const DATAGRAM: usize = 4096;

enum Origin {
    /// A stream of lines: standard input, a FIFO.
    Lines { fd: OwnedFd, begun: Vec<u8> },
    /// Lines in each datagram.
    Socket { socket: UnixDatagram, path: PathBuf },
    /// A level, `0` or `1` as text, that the kernel tells changes of by EPOLLPRI, as sysfs does of a GPIO line.
    Level { file: File, high: bool },
}

/// All of them behind one descriptor. One that has ended is left out, which a domain's loop could not do.
pub(super) struct Control {
    epoll: Epoll,
    origins: Vec<Origin>,
}

fn config(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Failure {
    move |e| Failure::new(FailureKind::Config, format!("{what}: {e}"))
}

/// Why there is no socket at `path`.
fn unbound(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |e| {
        let is_socket = || std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
        let (kind, why) = match e.kind() {
            io::ErrorKind::AddrInUse if is_socket() => {
                (FailureKind::InUse, "another program listens there; end it, or set another path".to_owned())
            }
            io::ErrorKind::AddrInUse => (
                FailureKind::Config,
                "there is a file already, and nothing is overwritten; set another path".to_owned(),
            ),
            _ => (FailureKind::Config, format!("{e}; it is made here, in a folder that there is")),
        };
        Failure::new(kind, format!("`socket` cannot be {}: {why}", path.display()))
    }
}

impl Control {
    /// Opens what is asked for; `None` where that is nothing.
    ///
    /// # Errors
    /// One that cannot be opened or waited for.
    pub(super) fn open(stdin: bool, socket: Option<&Path>, file: Option<&Path>) -> Result<Option<Control>, Failure> {
        if !stdin && socket.is_none() && file.is_none() {
            return Ok(None);
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        let epoll = epoll.map_err(|e| Failure::new(FailureKind::Limit, format!("epoll_create1 failed: {e}")))?;
        let mut control = Control { epoll, origins: Vec::new() };
        if stdin {
            let fd = io::stdin().as_fd().try_clone_to_owned().map_err(config("standard input"))?;
            let what = "standard input cannot be waited for (it is a file or /dev/null; a pipe or a terminal can, and \
                        with `stdin` left out nothing is)";
            control.add(Origin::Lines { fd, begun: Vec::new() }).map_err(config(what))?;
        }
        if let Some(path) = socket {
            let socket = bind(path).map_err(unbound(path))?;
            control.add(Origin::Socket { socket, path: path.to_owned() }).map_err(config(path.display()))?;
        }
        if let Some(path) = file {
            let what = format!(
                "`trigger` cannot be {}, which is to be a FIFO, or a GPIO line's value in sysfs",
                path.display()
            );
            level_or_lines(path).and_then(|origin| control.add(origin)).map_err(config(what))?;
        }
        Ok(Some(control))
    }

    fn add(&mut self, origin: Origin) -> io::Result<()> {
        let flags = if let Origin::Level { .. } = origin { EpollFlags::EPOLLPRI } else { EpollFlags::EPOLLIN };
        self.epoll.add(&origin, EpollEvent::new(flags, self.origins.len() as u64))?;
        self.origins.push(origin);
        Ok(())
    }

    /// Readable while a command may be waiting.
    pub(super) fn fd(&self) -> io::Result<OwnedFd> {
        self.epoll.0.as_fd().try_clone_to_owned()
    }

    /// Hands every command that has come to `command`. Never blocks. What is none is logged and passed over.
    pub(super) fn read(&mut self, mut command: impl FnMut(Command)) {
        let mut events = [EpollEvent::empty(); 4];
        let Ok(n) = self.epoll.wait(&mut events, EpollTimeout::ZERO) else { return };
        let mut take = |line: &[u8]| match String::from_utf8_lossy(line).parse() {
            Ok(wish) => command(wish),
            Err(error) => tracing::warn!(%error, "not understood"),
        };
        for (at, origin) in self.origins.iter_mut().enumerate() {
            let told = events[..n].iter().any(|event| event.data() == at as u64);
            if !origin.read(told, &mut take) {
                // It has ended, and would be readable for ever.
                let _ = self.epoll.delete(&*origin);
            }
        }
    }
}

impl Origin {
    /// One read where the kernel told of this one, of a level anyhow; false where no more will come.
    fn read(&mut self, told: bool, take: &mut impl FnMut(&[u8])) -> bool {
        let mut bytes = [0; LINE];
        match self {
            Origin::Lines { .. } | Origin::Socket { .. } if !told => true,
            Origin::Lines { fd, begun } => match nix::unistd::read(&*fd, &mut bytes) {
                Ok(0) => {
                    // The last line need not have an end.
                    if !begun.is_empty() {
                        take(begun);
                    }
                    false
                }
                Ok(n) => {
                    for &byte in &bytes[..n] {
                        if byte == b'\n' {
                            take(begun);
                            begun.clear();
                        } else if begun.len() < LINE {
                            begun.push(byte);
                        }
                    }
                    true
                }
                Err(nix::Error::EINTR | nix::Error::EAGAIN) => true,
                Err(_) => false,
            },
            Origin::Socket { socket, .. } => {
                let mut bytes = [0; DATAGRAM];
                if let Ok(n) = socket.recv(&mut bytes) {
                    let lines = bytes[..n].strip_suffix(b"\n").unwrap_or(&bytes[..n]);
                    lines.split(|&b| b == b'\n').for_each(take);
                }
                true
            }
            // Where only rises are told of (a GPIO line's `edge` is `rising`) nobody sees it fall, so each is one. Of the
            // files in /proc/sys the loop that has our descriptor has heard what there was to hear, so it is looked at.
            Origin::Level { file, high } => match file.read_at(&mut bytes, 0) {
                Ok(n) => {
                    let now = n > 0 && bytes[0] == b'1';
                    if now && (told || !*high) {
                        take(b"");
                    }
                    *high = now;
                    true
                }
                Err(error) => {
                    tracing::warn!(%error, "the trigger's file can no longer be read");
                    false
                }
            },
        }
    }
}

impl AsFd for Origin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Origin::Lines { fd, .. } => fd.as_fd(),
            Origin::Socket { socket, .. } => socket.as_fd(),
            Origin::Level { file, .. } => file.as_fd(),
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Origin::Socket { path, .. } = self {
            // It may have been removed by others.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A socket for this user alone. One that a process left behind is replaced; one that somebody still reads is not.
fn bind(path: &Path) -> io::Result<UnixDatagram> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
    let left_behind = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
        && UnixDatagram::unbound()?.connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if left_behind {
        std::fs::remove_file(path)?;
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    // The file that bind(2) makes has the socket's mode.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(path)?)?;
    Ok(UnixDatagram::from(fd))
}

/// A FIFO has lines, kept open for writing too, so that it does not end with its first writer; another file has a level.
fn level_or_lines(path: &Path) -> io::Result<Origin> {
    let fifo = std::fs::metadata(path)?.file_type().is_fifo();
    let mut open = std::fs::OpenOptions::new();
    let file = open.read(true).write(fifo).custom_flags(libc::O_NONBLOCK).open(path)?;
    if fifo {
        return Ok(Origin::Lines { fd: file.into(), begun: Vec::new() });
    }
    let mut origin = Origin::Level { file, high: false };
    // The level now is no rise; and only after a read does sysfs tell of a change.
    origin.read(false, &mut |_| {});
    Ok(origin)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    /// A path that nobody else has.
    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("shrbuf-control-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn read(control: &mut Control) -> Vec<Command> {
        let mut commands = Vec::new();
        control.read(|command| commands.push(command));
        commands
    }

    #[test]
    fn a_fifo_has_lines_from_any_number_of_writers() {
        let path = scratch("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let mut control = Control::open(false, None, Some(&path)).unwrap().unwrap();
        assert_eq!(read(&mut control), []);
        for (line, expected) in [
            (
                &b"trigger\nat 2\nnonsense\ntri"[..],
                vec![
                    Command::Trigger(None),
                    Command::Play { from: Duration::from_secs(2), to: Duration::from_secs(2) },
                ],
            ),
            (b"gger 1\n\n", vec![Command::Trigger(Some(Duration::from_secs(1))), Command::Trigger(None)]),
        ] {
            // Each writer comes and goes.
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(line).unwrap();
            assert_eq!(read(&mut control), expected);
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_in_the_way_of_a_socket_is_told_and_left_alone() {
        let refused = |path: &Path| Control::open(false, Some(path), None).err().unwrap();
        let path = scratch("taken");
        std::fs::write(&path, "mine").unwrap();
        let error = refused(&path);
        assert!(error.to_string().contains("there is a file already, and nothing is overwritten"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        std::fs::remove_file(&path).unwrap();
        let error = refused(&path.join("nowhere"));
        assert!(error.to_string().contains("in a folder that there is"), "{error}");
    }

    #[test]
    fn a_last_line_needs_no_end() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        nix::unistd::write(&writer, b"trigger\ntrigger 3").unwrap();
        drop(writer);
        let mut lines = Origin::Lines { fd: reader, begun: Vec::new() };
        let mut read = Vec::new();
        while lines.read(true, &mut |line| read.push(String::from_utf8_lossy(line).into_owned())) {}
        assert_eq!(read, ["trigger", "trigger 3"]);
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let path = scratch("long");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let mut control = Control::open(false, None, Some(&path)).unwrap().unwrap();
        let mut writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        for _ in 0..20 {
            writer.write_all(&[b'x'; LINE]).unwrap();
            assert_eq!(read(&mut control), []);
        }
        let Origin::Lines { begun, .. } = &control.origins[0] else { unreachable!() };
        assert_eq!(begun.len(), LINE);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_socket_is_this_users_and_goes_with_its_maker() {
        use std::os::unix::fs::PermissionsExt;
        let path = scratch("socket");
        let mut control = Control::open(false, Some(&path), None).unwrap().unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !0o600, 0, "{mode:o}");
        let sender = UnixDatagram::unbound().unwrap();
        let second = Duration::from_secs(1);
        for (datagram, expected) in [
            (&b"trigger 2\n"[..], vec![Command::Trigger(Some(Duration::from_secs(2)))]),
            (b"\n", vec![Command::Trigger(None)]),
            (b"", vec![Command::Trigger(None)]),
            (b"trigger\nat 1", vec![Command::Trigger(None), Command::Play { from: second, to: second }]),
            (b"\xff\xfe", vec![]),
        ] {
            sender.send_to(datagram, &path).unwrap();
            assert_eq!(read(&mut control), expected, "{datagram:?}");
        }
        drop(control);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not() {
        let path = scratch("left");
        drop(UnixDatagram::bind(&path).unwrap());
        let first = Control::open(false, Some(&path), None).unwrap().unwrap();
        let second = Control::open(false, Some(&path), None).err().unwrap();
        let says = format!("`socket` cannot be {}: another program listens there; end it", path.display());
        assert_eq!(second.kind(), FailureKind::InUse);
        assert!(second.to_string().contains(&says), "{second}");
        drop(first);
    }

    /// The host name in a namespace of this thread's own: a file that has 0 or 1 where one is called so, and whose changes
    /// the kernel tells by POLLPRI, as those of a GPIO line's `value`.
    #[test]
    fn a_level_triggers_when_it_rises() {
        // SAFETY: it takes a number, and changes what this thread sees of host names.
        if unsafe { libc::unshare(libc::CLONE_NEWUTS) } != 0 {
            println!("needs CAP_SYS_ADMIN, for a UTS namespace");
            return;
        }
        let path = Path::new("/proc/sys/kernel/hostname");
        let set = |name: &str| std::fs::write(path, name).unwrap();
        set("1");
        let mut control = Control::open(false, None, Some(path)).unwrap().unwrap();
        // As a domain's loop waits.
        let outer = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        outer.add(control.fd().unwrap(), EpollEvent::new(EpollFlags::EPOLLIN, 0)).unwrap();
        let woken = |control: &mut Control| {
            let n = outer.wait(&mut [EpollEvent::empty()], EpollTimeout::from(50u16)).unwrap();
            if n == 0 { Vec::new() } else { read(control) }
        };
        assert_eq!(woken(&mut control), [], "it was 1 before");
        for _ in 0..3 {
            set("0");
            assert_eq!(woken(&mut control), []);
            set("1");
            assert_eq!(woken(&mut control), [Command::Trigger(None)]);
            assert_eq!(woken(&mut control), []);
        }
        // Told of a rise where nobody saw it fall.
        set("0");
        set("1");
        assert_eq!(read(&mut control), [Command::Trigger(None)]);
        // What is neither is no level.
        set("camera");
        assert_eq!(woken(&mut control), []);
    }

    /// As of a GPIO line that is unexported, which would be readable for ever.
    #[test]
    fn a_level_that_cannot_be_read_any_more_has_ended() {
        let path = scratch("level");
        let mut level = Origin::Level { file: File::create(&path).unwrap(), high: false };
        assert!(!level.read(true, &mut |line| panic!("{line:?}")));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_waited_for_is_refused() {
        let path = scratch("file");
        std::fs::write(&path, "0").unwrap();
        assert!(Control::open(false, None, Some(&path)).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(Control::open(false, None, Some(&path)).is_err());
    }
}
