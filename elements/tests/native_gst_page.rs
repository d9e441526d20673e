//! docs/gstreamer.md and the examples with `gst`, run as they stand but for paths, ports, displays and how long.
#![cfg(feature = "gstreamer")]

use std::io::{self, Write};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr};
use nix::sys::socket::{accept, bind, listen, recv, send, socket};
use shrbuf_pipeline::file;
use shrbuf_pipeline::solve::NegotiateOptions;
use shrbuf_pipeline::supervise::{self, Report, RunOptions, Verdict};

const PAGE: &str = include_str!("../../docs/gstreamer.md");
/// Longer than anything takes on a busy machine: what takes longer hangs.
const LONG: Duration = Duration::from_secs(30);

/// A directory of this test's own in the place of /tmp, and a port in that of 5004.
struct Place {
    directory: PathBuf,
    port: u16,
}

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("shrbuf-page-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Place { directory, port }
    }

    fn put(&self, code: &str) -> String {
        let directory = format!("{}/", self.directory.display());
        let here = code.replace("/tmp/", &directory).replace("5004", &self.port.to_string());
        // The examples' files are relative to where they are run.
        ["film.mkv", "preroll.mkv", "out.mkv"]
            .iter()
            .fold(here, |code, name| code.replace(&format!("location={name}"), &format!("location={directory}{name}")))
    }

    /// Until somebody receives at the port.
    fn until_bound(&self) {
        let begin = Instant::now();
        let port = format!(":{:04X} ", self.port);
        while !std::fs::read_to_string("/proc/net/udp").unwrap().contains(&port) {
            assert!(begin.elapsed() < LONG, "nobody receives at port {}", self.port);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.directory.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn launch(&self, job: &str) -> Launch {
        // This machine may have no display.
        let line = self.put(block(job, "sh")).replace("autovideosink", "fakesink sync=true");
        let child = Command::new("gst-launch-1.0").arg("-q").args(line.split_whitespace().skip(1)).spawn();
        Launch(child.expect("gst-launch-1.0 (gstreamer1.0-tools)"))
    }

    fn run(&self, job: &str) -> Report {
        let toml = block(job, "toml");
        let frames = toml.lines().find_map(|line| line.strip_prefix("# shrbuf run --frames ")?.parse().ok());
        run_well(&self.put(toml), frames, None)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// gst-launch-1.0, killed at the end.
struct Launch(Child);

impl Launch {
    fn end_well(mut self) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < LONG, "gst-launch-1.0 does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success());
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The block of code of that kind under a job's heading.
fn block(job: &str, kind: &str) -> &'static str {
    let section = PAGE.split("\n### ").find(|section| section.starts_with(job)).unwrap();
    let code = section.split(&format!("```{kind}\n")).nth(1).unwrap();
    code.split("```").next().unwrap()
}

fn run(toml: &str, frames: Option<u64>, duration: Option<Duration>) -> Result<Report, file::FileError> {
    // The first to come is heard by all. What a busy machine has others warn of is not the page's.
    let of_gst = tracing_subscriber::fmt().with_env_filter("shrbuf_elements::gst=warn");
    let _ = of_gst.with_ansi(false).with_writer(|| Warnings).try_init();
    let graph = file::load("page.toml", toml, &shrbuf_elements::types(), &[])?;
    let negotiate = NegotiateOptions { converters: shrbuf_elements::CONVERTERS };
    let options = RunOptions { frames, duration, negotiate, tick: Duration::from_millis(50) };
    let begin = Instant::now();
    let verdict = |_: supervise::Progress<'_>| if begin.elapsed() < LONG { Verdict::Continue } else { Verdict::Stop };
    let report = supervise::run(graph, &options, verdict);
    assert!(begin.elapsed() < LONG, "it hangs:\n{toml}");
    Ok(report)
}

/// What `gst` warned of in this process, in GStreamer's words or its own.
static WARNINGS: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Warnings;

impl Write for Warnings {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        WARNINGS.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn warnings() -> String {
    String::from_utf8(WARNINGS.lock().unwrap().clone()).unwrap()
}

/// Nothing fails, nothing is warned of, and nothing is copied.
fn run_well(toml: &str, frames: Option<u64>, duration: Option<Duration>) -> Report {
    let report = run(toml, frames, duration).unwrap_or_else(|e| panic!("{e}\n{toml}"));
    assert!(report.error.is_none(), "{}\n{toml}", report.error.unwrap());
    assert_eq!(report.graph.ledger().copied(), 0, "{toml}");
    assert_eq!(warnings(), "", "in this run or in one beside it:\n{toml}");
    report
}

fn frames(report: &Report, element: &str) -> u64 {
    report.graph.counts().iter().find(|e| e.name == element).unwrap().counts.frames
}

#[test]
fn films_of_both_are_shown_by_both() {
    let (theirs, ours) = (Place::new(), Place::new());
    theirs.launch("3. Record").end_well();
    ours.run("3. Record");
    for place in [theirs, ours] {
        place.launch("4. Show").end_well();
        let shown = frames(&place.run("4. Show"), "display");
        // Our camera drops a frame for which there is no buffer.
        assert!((45..=60).contains(&shown), "{shown} of 60");
    }
}

#[test]
fn recorded_while_it_is_shown() {
    let (theirs, ours) = (Place::new(), Place::new());
    theirs.launch("5. Record and").end_well();
    let report = ours.run("5. Record and");
    assert!(frames(&report, "record") > 40 && frames(&report, "display") > 40);
    for place in [theirs, ours] {
        // EBML, and then more than a header.
        let film = place.bytes("film.webm");
        assert!(film.starts_with(&[0x1A, 0x45, 0xDF, 0xA3]) && film.len() > 2000, "{} bytes", film.len());
    }
}

#[test]
fn rtp_of_both_is_received_by_both() {
    for (sender, receiver) in [(false, false), (false, true), (true, false), (true, true)] {
        let place = Place::new();
        std::thread::scope(|scope| {
            // First whoever receives: the first picture is the one that the others build on.
            let received = scope.spawn(|| match receiver {
                true => drop(place.run("6. Receive")),
                false => place.launch("6. Receive").end_well(),
            });
            place.until_bound();
            match sender {
                true => drop(place.run("7. Send")),
                false => place.launch("7. Send").end_well(),
            }
            received.join().unwrap();
        });
        let (bytes, picture) = (place.bytes("received.raw").len(), 640 * 360 * 3 / 2);
        assert!(bytes >= 15 * picture && bytes.is_multiple_of(picture), "{bytes} bytes by {sender} {receiver}");
    }
}

#[test]
fn pictures_are_made_smaller_by_both() {
    let (theirs, ours) = (Place::new(), Place::new());
    theirs.launch("8. Make").end_well();
    let report = ours.run("8. Make");
    let picture = 320 * 180 * 3 / 2;
    assert_eq!(theirs.bytes("small.raw").len(), 60 * picture);
    assert_eq!(ours.bytes("small.raw").len() as u64, frames(&report, "file") * picture as u64);
    assert!(frames(&report, "file") > 40);
}

#[test]
fn picture_and_film_without_an_encoder_are_files_of_the_same_kind() {
    let (theirs, ours) = (Place::new(), Place::new());
    for job in ["9. One", "10. An"] {
        theirs.launch(job).end_well();
        ours.run(job);
    }
    for place in [theirs, ours] {
        assert!(place.bytes("picture.png").starts_with(b"\x89PNG\r\n\x1a\n"));
        let film = place.bytes("film.y4m");
        assert!(film.starts_with(b"YUV4MPEG2 ") && film.len() > 40 * 640 * 360 * 3 / 2, "{} bytes", film.len());
    }
}

#[test]
fn part_of_a_line_is_an_element() {
    let section = PAGE.split("\n## GStreamer inside a pipeline\n").nth(1).unwrap();
    let record = section.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let place = Place::new();
    let camera = "[element.camera]\ntype = \"test-src\"\nsize = [640, 360]\n";
    let link = "[[link]]\npath = [\"camera\", \"record\"]\n";
    run_well(&place.put(&format!("{camera}{record}{link}")), Some(10), None);
    assert!(place.bytes("out.mkv").len() > 1000);
}

const RECORD: &str = include_str!("../../examples/gst-record.toml");
const PLAY: &str = include_str!("../../examples/gst-play.toml");
const RTP_OUT: &str = include_str!("../../examples/gst-rtp-out.toml");
const RTP_IN: &str = include_str!("../../examples/gst-rtp-in.toml");
const PREROLL: &str = include_str!("../../examples/gst-preroll.toml");

#[test]
fn examples_record_and_play() {
    let place = Place::new();
    let recorded = frames(&run_well(&place.put(RECORD), Some(20), None), "record");
    let shown = frames(&run_well(&place.put(PLAY), None, None), "display");
    assert!(recorded > 10 && shown == recorded, "{shown} of {recorded}");
}

#[test]
fn examples_send_and_show_at_the_same_time() {
    let place = Place::new();
    let (out, shown) = (place.put(RTP_OUT), place.put(RTP_IN));
    std::thread::scope(|scope| {
        let shown = scope.spawn(|| run_well(&shown, Some(20), None));
        let sent = scope.spawn(|| run_well(&out, None, Some(Duration::from_secs(3))));
        assert!(frames(&sent.join().unwrap(), "send") > 50);
        assert_eq!(frames(&shown.join().unwrap(), "receive"), 20);
    });
}

#[test]
fn example_encodes_what_was_before_the_trigger_and_nothing_without_one() {
    for trigger in [false, true] {
        let place = Place::new();
        let toml = place.put(PREROLL).replace("stdin = true\n", "").replace("after = \"5s\"", "after = \"100ms\"");
        let control = place.directory.join("preroll");
        let report = std::thread::scope(|scope| {
            scope.spawn(|| {
                let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
                let begin = Instant::now();
                // From a second on there is something to encode.
                while trigger && (begin.elapsed().as_secs() < 1 || sender.send_to(b"trigger", &control).is_err()) {
                    assert!(begin.elapsed() < LONG, "no socket");
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            run_well(&toml, None, Some(Duration::from_secs(2)))
        });
        let encoded = frames(&report, "record");
        assert_eq!(encoded > 20, trigger, "{encoded}");
        let film = place.bytes("preroll.mkv").len();
        assert_eq!(film > 5000, trigger, "{film} bytes of {encoded} frames");
    }
}

/// Rows of the last table: what is wrong, and what is said.
fn wrong() -> impl Iterator<Item = (&'static str, &'static str)> {
    let table = PAGE.split("\n## When something is wrong\n").nth(1).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    rows.skip(2)
}

#[test]
fn what_the_page_says_of_bad_input_is_what_is_said() {
    let mut tried = 0;
    for (wrong, said) in wrong().filter(|(wrong, _)| wrong.starts_with("`launch = ")) {
        let camera = "[element.camera]\ntype = \"test-src\"\nformat = \"NV12\"\nmemory = \"memfd\"\n";
        let toml = format!(
            "{camera}[element.part]\ntype = \"gst\"\n{}\n[[link]]\npath = [\"camera\", \"part\"]\n",
            wrong.trim_matches('`')
        );
        let error = match run(&toml, Some(1), None) {
            Err(error) => error.to_string(),
            Ok(report) => report.error.map(|e| e.to_string()).unwrap_or_default(),
        };
        assert!(error.contains(said), "{wrong} says\n{error}\nnot\n{said}");
        tried += 1;
    }
    assert_eq!(tried, 11);
}

#[test]
fn wrong_sockets_and_versions_are_named() {
    let of = |wanted: &str| wrong().find(|(wrong, _)| wrong.contains(wanted)).unwrap().1;
    let toml = |path: &str| {
        format!(
            "[element.part]\ntype = \"ipc-src\"\npath = \"{path}\"\n[element.sink]\ntype = \"null-sink\"\n\
             [[link]]\npath = [\"part\", \"sink\"]\n"
        )
    };
    let fails = |path: &str| run(&toml(path), None, None).unwrap().error.expect("it does not fail").to_string();
    let error = fails("/nowhere/socket");
    assert!(error.contains(of("/nowhere/socket")), "{error}");

    // A producer of a later version takes our hello for one of an earlier, and says so.
    let place = Place::new();
    let path = place.directory.join("later");
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&fd, Backlog::new(1).unwrap()).unwrap();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            let peer = accept(std::os::fd::AsRawFd::as_raw_fd(&fd)).unwrap();
            let mut hello = [0; 256];
            recv(peer, &mut hello, MsgFlags::empty()).unwrap();
            // BYE, with the reason "version" and the lowest that it speaks: shrbuf/PROTOCOL.md.
            let bye: Vec<u8> = [0x85u32, 3 | 5 << 16].into_iter().flat_map(u32::to_ne_bytes).collect();
            send(peer, &bye, MsgFlags::empty()).unwrap();
            nix::unistd::close(peer).unwrap();
        });
        fails(path.to_str().unwrap())
    });
    assert!(error.contains(of("another version")), "{error}");
}
