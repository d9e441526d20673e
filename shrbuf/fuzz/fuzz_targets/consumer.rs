//! Any packets from a producer, with any descriptors, and anything in its pipe: the consumer ends with an error or at the end of
//! the stream, and keeps neither a descriptor nor a mapping.
//!
//! An input's first byte says how much of a right beginning comes first, so that the fuzzer finds its way to where frames
//! flow. Then it is a row of packets: a byte for its length, a byte for its descriptors or that it goes into the pipe, and its
//! bytes. A packet of one byte stands for a proper message.
#![no_main]

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, sendmsg, shutdown, socketpair,
};
use nix::sys::uio::pwrite;
use nix::unistd::{pipe2, write};
use shrbuf::ipc::{Connection, Next, VERSION, Wishes};

const BUFFERS: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(10);
/// The codes of a welcome, of all buffers, and of a channel with a pipe.
const BEGINNING: [u8; 2 + BUFFERS as usize] = [0, 1, 1 + 8, 1 + 16, 6];
/// Goes into the pipe, and brings no descriptor.
const INTO_PIPE: u8 = 8;
/// Where among the descriptors the page is, and the pipe.
const PAGE: usize = 7;
const PIPE: usize = 8;

/// The next number that the kernel gives out says whether a descriptor was left.
fn next_number(any: &OwnedFd) -> RawFd {
    any.try_clone().unwrap().as_raw_fd()
}

fn memory(size: i64, seals: SealFlag) -> OwnedFd {
    let fd = memfd_create("fuzz-memory", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
    nix::unistd::ftruncate(&fd, size).unwrap();
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    fd
}

thread_local! {
    /// Three that may be taken and one that may come later, one that could shrink, one too small, one that is no memory, and a page.
    static FDS: Vec<OwnedFd> = {
        let mut fds: Vec<_> = (0..=BUFFERS).map(|_| memory(4096, SealFlag::F_SEAL_SHRINK)).collect();
        fds.push(memory(4096, SealFlag::empty()));
        fds.push(memory(1, SealFlag::F_SEAL_SHRINK));
        fds.push(std::fs::File::open("/dev/null").unwrap().into());
        fds.push(memory(4096, SealFlag::F_SEAL_SHRINK));
        fds
    };
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

/// A message, and which descriptors belong to it.
fn proper(code: u8) -> (Vec<u8>, Vec<usize>) {
    let index = u32::from(code / 8) % (BUFFERS + 1);
    match code % 8 {
        0 => (words(&[0x81, VERSION, 1, 1 + index % 3, 2, BUFFERS, 30, 1]), vec![]),
        1 => {
            let grey =
                [words(&[0x82, index]), b"GREY\0\0\0\0".to_vec(), vec![0; 8], words(&[8, 8, 1, 0, 0, 0, 8])].concat();
            ([grey, vec![0; 36]].concat(), vec![index as usize])
        }
        2 => ([words(&[0x84, index, u32::from(code / 32) % 4]), vec![0; 52]].concat(), vec![]),
        3 => (words(&[0x85, u32::from(code / 8)]), vec![]),
        4 => (words(&[0x83, index, 0, 0, 0, 0, 0, 0, 2, 1, 1, 0, 0, 9, 9, u32::from(code / 64)]), vec![]),
        5 => (words(&[0x83, index, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0]), vec![]),
        6 => (words(&[0x88, 1]), vec![PAGE, PIPE]),
        _ => (words(&[0x88, 0]), vec![PAGE]),
    }
}

fuzz_target!(|data: &[u8]| {
    FDS.with(|fds| {
        let before = next_number(&fds[0]);
        let flags = SockFlag::SOCK_CLOEXEC;
        let (producer, consumer) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        let all: Vec<RawFd> = fds.iter().chain([&out]).map(AsRawFd::as_raw_fd).collect();
        let send = |bytes: &[u8], rights: &[RawFd]| {
            let with = [ControlMessage::ScmRights(rights)];
            let control = if rights.is_empty() { &[][..] } else { &with[..] };
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            sendmsg::<()>(producer.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None).is_ok()
        };
        let (begin, mut rest) = data.split_first().map_or((0, data), |(&n, rest)| (usize::from(n), rest));
        // It is always to be woken, and never listens.
        pwrite(&fds[PAGE], &u64::MAX.to_ne_bytes(), 16).unwrap();
        for &code in BEGINNING.iter().take(begin) {
            let (bytes, own) = proper(code);
            send(&bytes, &own.iter().map(|&i| all[i]).collect::<Vec<_>>());
        }
        while let [len, which, after @ ..] = rest {
            let (packet, after) = after.split_at(usize::from(*len).min(after.len()));
            rest = after;
            let (bytes, own) = if let [code] = packet { proper(*code) } else { (packet.to_vec(), vec![]) };
            let several = (0..which >> 4).map(|i| all[(usize::from(*which) + usize::from(i)) % all.len()]);
            let taken = if which & INTO_PIPE != 0 {
                write(&into, &bytes).is_ok()
            } else {
                send(&bytes, &own.iter().map(|&i| all[i]).chain(several).collect::<Vec<_>>())
            };
            if !taken {
                break;
            }
        }
        drop((out, into));
        // What the consumer says is not read, and it waits for nothing that does not come.
        shutdown(producer.as_raw_fd(), Shutdown::Write).unwrap();
        consume(consumer);
        drop(producer);
        // What comes late and is refused is closed by a thread of its own.
        let begin = Instant::now();
        while next_number(&fds[0]) != before && begin.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        assert_eq!(next_number(&fds[0]), before, "a descriptor was left open");
        assert!(!std::fs::read_to_string("/proc/self/maps").unwrap().contains("fuzz-memory"), "a mapping was left");
    });
});

fn consume(socket: OwnedFd) {
    let Ok(mut consumer) = Connection::over(socket, &Wishes::default(), PATIENCE).and_then(Connection::start) else {
        return;
    };
    let mut held = Vec::new();
    while let Ok(next) = consumer.wait(PATIENCE) {
        match next {
            Next::Frame(frame) => {
                let row = &mut [0; 8];
                let account = shrbuf::Ledger::default().account("fuzz", shrbuf::Reason::Inspect);
                if let Ok(guard) = frame.buffer.read() {
                    guard.plane(0).read(0, 0, row, &account);
                }
                held.insert(0, frame);
            }
            Next::Ended | Next::Changed => break,
            Next::Nothing => panic!("it waits for what does not come"),
        }
        held.truncate(2);
    }
}
