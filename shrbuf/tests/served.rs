//! A descriptor of a file system that a process serves (FUSE), which does not answer: importing refuses it and waits for
//! nobody. Needs root and /dev/fuse, and says so elsewhere.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use shrbuf::{Format, ImportError, Layout, Shrbuf};

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const INIT: u32 = 26;
/// Closing is not asked about either (FOPEN_NOFLUSH).
const NO_FLUSH: u32 = 1 << 5;

struct Served {
    place: PathBuf,
    mute: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Served {
    /// A file system with one file, which is found by every name; `None` where that is not allowed.
    fn mount() -> Option<Served> {
        let device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let place = std::env::temp_dir().join(format!("shrbuf-served-{}", std::process::id()));
        std::fs::create_dir(&place).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let [what, kind, options] = ["shrbuf", "fuse", &options].map(|text| CString::new(text).unwrap());
        let at = CString::new(place.as_os_str().as_bytes()).unwrap();
        // SAFETY: all four are C strings that live during the call.
        let done = unsafe { libc::mount(what.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) };
        if done < 0 {
            std::fs::remove_dir(&place).unwrap();
            return None;
        }
        let mute = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&mute);
        let server = Some(std::thread::spawn(move || serve(device, &told)));
        Some(Served { place, mute, server })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let at = CString::new(self.place.as_os_str().as_bytes()).unwrap();
        // SAFETY: a C string that lives during the call. Forced, so that whoever waits for an answer gets an error.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_FORCE | libc::MNT_DETACH) };
        self.server.take().unwrap().join().unwrap();
        std::fs::remove_dir(&self.place).unwrap();
    }
}

/// Answers as `include/uapi/linux/fuse.h` says until it is `mute`; ends when the file system has been unmounted.
fn serve(mut device: File, mute: &AtomicBool) {
    let mut request = vec![0; 1 << 17];
    while device.read(&mut request).is_ok_and(|n| n > 0) {
        if mute.load(Ordering::Acquire) {
            continue;
        }
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let attributes = |mode: u32| {
            let mut words = vec![0_u32; 22];
            (words[0], words[2], words[15], words[16]) = (2, 4096, mode, 1);
            words
        };
        let body: Vec<u32> = match word(4) {
            INIT => [vec![7, 31, 0, 0, 0, 4096, 1], vec![0; 9]].concat(),
            // Number 2, and nothing of it may be remembered.
            LOOKUP => [vec![2, 0, 0, 0, 0, 0, 0, 0, 0, 0], attributes(libc::S_IFREG | 0o644)].concat(),
            GETATTR => [vec![0; 4], attributes(libc::S_IFDIR | 0o755)].concat(),
            OPEN => vec![0, 0, NO_FLUSH, 0],
            _ => continue,
        };
        let head = [16 + 4 * body.len() as u32, 0, word(8), word(12)];
        let answer: Vec<u8> = head.iter().chain(&body).flat_map(|w| w.to_ne_bytes()).collect();
        device.write_all(&answer).unwrap();
    }
}

fn import(path: &Path, mute: &AtomicBool) -> ImportError {
    let fd = OwnedFd::from(File::open(path).unwrap());
    mute.store(true, Ordering::Release);
    Shrbuf::import(vec![fd], Layout::linear(Format::Grey, 8, 8, 1).unwrap()).unwrap_err()
}

#[test]
fn descriptor_of_a_file_system_that_does_not_answer_is_refused_at_once() {
    let Some(served) = Served::mount() else {
        println!("needs root and /dev/fuse");
        return;
    };
    let (sender, imported) = channel();
    let (path, mute) = (served.place.join("file"), Arc::clone(&served.mute));
    let importing = std::thread::spawn(move || sender.send(import(&path, &mute)).unwrap());
    let error = imported.recv_timeout(Duration::from_secs(10));
    drop(served);
    importing.join().unwrap();
    let error = error.expect("it waits for an answer");
    assert!(matches!(error, ImportError::NotShareable { found: "regular file" }), "{error}");
}
