//! `shrbufsrc`, fed by this process or by a `shrbufsink`.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use shrbuf::exporter::Memfd;
use shrbuf::ipc::{Announced, FrameInfo, Options, Policy, Producer};
use shrbuf::layout::Plane;
use shrbuf::{Format, Layout, Ledger, Modifier, Pool, Reason, Shrbuf, State};

use crate::launch::{LEAKS_TRACER, LONG, Launch, PAGE, Temporary, nothing_is_alive, until, until_listening};

/// Nanoseconds between frames.
const PERIOD: u64 = 40_000_000;

fn monotonic() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_nanos() as u64
}

/// Four of them, and what consumers are told of them.
fn buffers(layout: &Layout) -> (Vec<Shrbuf>, Vec<Announced>) {
    let buffers: Vec<_> = (0..4).map(|_| Memfd::new("test").allocate(layout).unwrap()).collect();
    let announced = buffers.iter().map(|b| Announced::of(b).unwrap()).collect();
    (buffers, announced)
}

/// A producer of this process, with four buffers.
struct Source {
    socket: Temporary,
    producer: Producer,
    pool: Pool,
    /// Stamp of the first frame.
    first: u64,
    matrix: u8,
    /// What was sent, rows without padding.
    sent: Vec<u8>,
    next: u64,
}

impl Source {
    fn new(layout: &Layout) -> Source {
        let socket = Temporary::new("source");
        let (buffers, announced) = buffers(layout);
        let pool = Pool::new(buffers, |_| {}).unwrap();
        let options = Options { policy: Policy::Block, window: 3, ..Options::default() };
        let producer = Producer::bind(&socket.0, options, announced, Some((25, 1))).unwrap();
        Source { socket, producer, pool, first: 1, matrix: 2, sent: Vec::new(), next: 0 }
    }

    fn path(&self) -> &str {
        self.socket.as_str()
    }

    fn wait_for_a_consumer(&mut self) {
        while self.producer.consumers() == 0 {
            self.producer.wait(Some(LONG)).unwrap();
        }
    }

    /// A frame of bytes that no other has, stamped `PERIOD` after the one before.
    fn send(&mut self) {
        let mut buffer = loop {
            match self.pool.acquire() {
                Some(buffer) => break buffer,
                None => self.producer.wait(Some(LONG)).unwrap(),
            }
        };
        let account = Ledger::default().account("test", Reason::Generate);
        let layout = *buffer.layout();
        let mut write = buffer.write().unwrap();
        for index in 0..layout.planes().len() {
            let mut plane = write.plane(index);
            for y in 0..plane.rows() {
                let at = |x: usize| (x * 3 + y * 7 + index * 31 + self.next as usize * 13) as u8;
                let row: Vec<u8> = (0..plane.row_bytes()).map(at).collect();
                plane.write(y, 0, &row, &account);
                self.sent.extend(row);
            }
        }
        drop(write);
        buffer.set_state(State::Filled);
        let (sequence, timestamp, matrix) = (self.next, self.first + self.next * PERIOD, self.matrix);
        self.producer.send(&buffer, &FrameInfo { timestamp, sequence, matrix, ..FrameInfo::default() }).unwrap();
        self.next += 1;
    }

    /// Everybody has the last frame, and hears that it was.
    fn end(&mut self) {
        self.until_sent();
        self.producer.end();
    }

    /// Everybody has the last frame, and hears that others come.
    fn change(&mut self, layout: &Layout) {
        self.until_sent();
        let (buffers, announced) = buffers(layout);
        self.producer.change(announced, Some((25, 1))).unwrap();
        self.pool = Pool::new(buffers, |_| {}).unwrap();
        self.wait_for_a_consumer();
    }

    fn until_sent(&mut self) {
        while self.producer.owed() > 0 {
            self.producer.wait(Some(LONG)).unwrap();
        }
    }
}

impl Source {
    /// Answers `launch` until it has ended with an error; its log.
    fn serve_until_bad_end(&mut self, launch: Launch) -> String {
        std::thread::scope(|s| {
            let ended = s.spawn(|| launch.fail());
            while !ended.is_finished() {
                self.producer.wait(Some(Duration::from_millis(20))).unwrap();
            }
            ended.join().unwrap()
        })
    }
}

/// All that a pipeline behind `shrbufsrc` writes to a file while `frames` are sent to it.
fn through(source: &mut Source, filters: &str, frames: u32) -> Vec<u8> {
    let file = Temporary::new("raw");
    let pipeline = format!("shrbufsrc path={} ! {filters} filesink location={}", source.path(), file.as_str());
    let launch = Launch::new(&pipeline);
    source.wait_for_a_consumer();
    (0..frames).for_each(|_| source.send());
    source.end();
    launch.end_well();
    std::fs::read(&file.0).unwrap()
}

#[test]
fn file_has_what_was_sent() {
    for format in [Format::Nv12, Format::Yu12, Format::Yv12, Format::Yuyv, Format::Xr24, Format::Grey, Format::Nv16] {
        let mut source = Source::new(&Layout::linear(format, 320, 240, 1).unwrap());
        let got = through(&mut source, "", 40);
        assert!(got == source.sent, "{format}: {} bytes of {}, or others", got.len(), source.sent.len());
    }
}

#[test]
fn planes_in_memories_of_their_own_are_one_frame() {
    let plane = |segment| Plane { segment, offset: 0, stride: 320 };
    let layout = Layout::new(Format::Nv12, None, 320, 240, &[plane(0), plane(1)]).unwrap();
    let mut source = Source::new(&layout);
    let got = through(&mut source, "", 40);
    assert!(got == source.sent, "{} bytes of {}, or others", got.len(), source.sent.len());
}

#[test]
fn frames_that_are_others_from_now_on_come_with_their_caps() {
    let mut source = Source::new(&Layout::linear(Format::Grey, 64, 48, 1).unwrap());
    let file = Temporary::new("raw");
    // The queue still has frames of before as the others come.
    let line = format!(
        "shrbufsrc path={} ! queue ! identity sleep-time=2000 ! filesink buffer-mode=2 location=",
        source.path()
    );
    let launch = Launch::new(&format!("-v {line}{}", file.as_str()));
    source.wait_for_a_consumer();
    (0..20).for_each(|_| source.send());
    for (format, width) in [(Format::Grey, 128), (Format::Nv12, 32)] {
        source.change(&Layout::linear(format, width, 24, 1).unwrap());
        (0..20).for_each(|_| source.send());
    }
    source.end();
    let log = launch.end_well();
    assert!(std::fs::read(&file.0).unwrap() == source.sent, "other bytes");
    let sink = |l: &&str| l.contains("filesink") && l.contains("sink: caps");
    let widths: Vec<_> = log.lines().filter(sink).filter_map(|l| l.split("width=(int)").nth(1)).collect();
    assert_eq!(widths.iter().map(|w| w.split(',').next().unwrap()).collect::<Vec<_>>(), ["64", "128", "32"], "{log}");
}

#[test]
fn what_the_producer_does_not_grant_is_said() {
    let socket = Temporary::new("less");
    let path = socket.as_str();
    let producer = Launch::new(&format!("videotestsrc is-live=true num-buffers=30 ! shrbufsink path={path}"));
    until_listening(&socket);
    let log = Launch::new(&format!("shrbufsrc path={path} policy=block window=40 ! fakesink")).end_well();
    assert!(log.contains("WARNING") && log.contains("does not let frames wait as policy=block says"), "{log}");
    assert!(log.contains("lets 3 frames be held here at once, where window=40"), "{log}");
    producer.end_well();
}

/// Rows of 1284 bytes, each padded to 2048, which GStreamer would not do.
fn padded() -> Source {
    Source::new(&Layout::linear(Format::Xr24, 321, 24, 1024).unwrap())
}

#[test]
fn padded_rows_are_found_by_elements_that_look_for_them() {
    let mut source = padded();
    let got = through(&mut source, "videoconvert ! video/x-raw,format=RGBx !", 3);
    assert_eq!(got.len(), source.sent.len());
    let (got, sent) = (got.as_chunks::<4>().0, source.sent.as_chunks::<4>().0);
    assert!(got.iter().zip(sent).all(|(rgbx, bgrx)| rgbx[..3] == [bgrx[2], bgrx[1], bgrx[0]]), "other pictures");
}

#[test]
fn padded_rows_are_refused_where_nobody_would_find_them() {
    let mut source = padded();
    let launch = Launch::new(&format!("shrbufsrc path={} ! fakesink", source.path()));
    let log = source.serve_until_bad_end(launch);
    assert!(log.contains("the producer pads rows"), "{log}");
}

#[test]
fn format_that_gstreamer_has_no_name_for_is_refused_with_its_name() {
    let mut source = Source::new(&Layout::linear(Format::Srggb10, 320, 240, 1).unwrap());
    let launch = Launch::new(&format!("shrbufsrc path={} ! fakesink", source.path()));
    let log = source.serve_until_bad_end(launch);
    assert!(log.contains("no name for the format SRGGB10"), "{log}");
}

#[test]
fn tiles_that_caps_have_no_name_for_are_refused_with_what_has() {
    let plane = Plane { segment: 0, offset: 0, stride: 256 };
    // AMD's 64K_S.
    let tiled = Modifier(0x0200_0000_0000_0901);
    let mut source = Source::new(&Layout::new(Format::Xr24, Some(tiled), 64, 48, &[plane]).unwrap());
    let launch = Launch::new(&format!("shrbufsrc path={} ! fakesink", source.path()));
    let log = source.serve_until_bad_end(launch);
    assert!(log.contains(&format!("laid out as {tiled}")), "{log}");
    let has = if cfg!(feature = "v1_24") { "for dma-bufs" } else { "cargo feature `v1_24`" };
    assert!(log.contains(has), "{log}");
}

#[test]
fn frames_that_downstream_does_not_take_are_named_and_what_would_help() {
    let of_the_page =
        PAGE.lines().find_map(|line| line.strip_prefix("| `shrbufsrc ! vp8enc`, of a producer of NV12 | "));
    let of_the_page = of_the_page.unwrap().trim_end_matches(" |");
    for (line, said) in [
        ("vp8enc ! fakesink", ["format=(string)NV12", "vp8enc0 takes", "format=(string)I420", of_the_page]),
        ("identity ! video/x-raw,width=100 ! fakesink", ["width=(int)320", "identity0 takes", "100", "`videoscale`"]),
        ("video/x-raw(memory:DMABuf) ! fakesink", ["NV12", "capsfilter0 takes", "DMABuf", "these are no dma-bufs"]),
    ] {
        let mut source = Source::new(&Layout::linear(Format::Nv12, 320, 240, 1).unwrap());
        let launch = Launch::new(&format!("shrbufsrc path={} ! {line}", source.path()));
        let log = source.serve_until_bad_end(launch);
        assert!(said.iter().all(|said| log.contains(said)), "{line}: {log}");
    }
}

#[test]
fn downstream_that_keeps_all_frames_there_may_be_is_warned_of_and_one_without_any_is_not() {
    let mut source = Source::new(&Layout::linear(Format::Grey, 64, 48, 1).unwrap());
    let launch = |rest: &str| Launch::new(&format!("shrbufsrc path={} ! {rest} ! fakesink", source.path()));
    // As an encoder that looks that far ahead.
    let (keeping, passing) = (launch("queue min-threshold-buffers=4"), launch("identity"));
    while source.producer.consumers() < 2 {
        source.producer.wait(Some(LONG)).unwrap();
    }
    (0..3).for_each(|_| source.send());
    until("a warning", || keeping.log().contains("WARNING"));
    // The other has waited for as long, less the time that a frame takes.
    std::thread::sleep(Duration::from_millis(300));
    source.producer.end();
    let [keeping, passing] = [keeping, passing].map(Launch::end_well);
    assert!(keeping.contains("downstream keeps 3, all that the producer lets out at once (its `window`)"), "{keeping}");
    assert_eq!(keeping.matches("WARNING").count(), 1, "{keeping}");
    assert!(!passing.contains("WARNING"), "{passing}");
}

#[test]
fn stamps_are_the_producers_in_running_time() {
    let mut source = Source::new(&Layout::linear(Format::Grey, 64, 48, 1).unwrap());
    let launch = Launch::new(&format!("-v shrbufsrc path={} ! identity silent=false ! fakesink", source.path()));
    source.wait_for_a_consumer();
    source.first = monotonic();
    for n in 0..5 {
        // What has not been yet would be taken for now.
        until("the frame's time", || monotonic() > source.first + n * PERIOD);
        source.send();
    }
    source.end();
    let log = launch.end_well();
    let times: Vec<u64> = log.lines().filter(|l| l.contains("chain")).filter_map(pts).collect();
    let steps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(steps, [PERIOD; 4], "{log}");
    assert!(log.contains("duration: 0:00:00.040000000"), "{log}");
}

/// Nanoseconds of "pts: 0:00:01.123456789".
fn pts(line: &str) -> Option<u64> {
    let time = line.split("pts: ").nth(1)?.split([',', ' ']).next()?;
    let digits = |text: &str| text.parse::<u64>().ok();
    let (whole, nanoseconds) = time.split_once('.')?;
    let seconds = whole.split(':').try_fold(0, |sum, part| Some(sum * 60 + digits(part)?))?;
    Some(seconds * 1_000_000_000 + digits(nanoseconds)?)
}

#[test]
fn what_is_known_of_a_frame_comes_along() {
    let mut source = Source::new(&Layout::linear(Format::Nv12, 64, 48, 1).unwrap());
    source.matrix = 9;
    let launch = Launch::new(&format!("-v shrbufsrc path={} ! fakesink silent=false", source.path()));
    source.wait_for_a_consumer();
    source.send();
    source.end();
    let log = launch.end_well();
    assert!(log.contains("colorimetry=(string)bt2020"), "{log}");
    assert!(log.contains("framerate=(fraction)25/1"), "{log}");
}

#[test]
fn nobody_at_the_path_is_said() {
    let log = Launch::new("shrbufsrc path=/tmp/shrbuf-nobody ! fakesink").fail();
    assert!(log.contains("no producer listens at \"/tmp/shrbuf-nobody\""), "{log}");
    let log = Launch::new("shrbufsrc ! fakesink").fail();
    assert!(log.contains("path is not set; it is the socket of the producer"), "{log}");
}

#[test]
fn producer_that_is_killed_is_an_error_and_not_an_end() {
    let socket = Temporary::new("kill");
    let path = socket.as_str();
    let mut producer = Launch::new(&format!("videotestsrc is-live=true ! shrbufsink path={path}"));
    until_listening(&socket);
    let file = Temporary::new("raw");
    let consumer = Launch::new(&format!("shrbufsrc path={path} ! filesink location={} buffer-mode=2", file.as_str()));
    until("a frame", || std::fs::metadata(&file.0).is_ok_and(|file| file.len() > 0));
    let pipes = producer.pipes();
    assert!(!pipes.is_empty());
    producer.kill();
    let log = consumer.fail();
    assert!(log.contains("the producer has gone"), "{log}");
    drop(pipes);
}

#[test]
fn nothing_of_gstreamers_is_left_at_the_end() {
    let socket = Temporary::new("leaks");
    let path = socket.as_str();
    let pictures = "videotestsrc num-buffers=60 ! video/x-raw,format=NV12,width=320,height=240";
    for copies in ["", "tee ! "] {
        let sink = format!("{pictures} ! {copies}shrbufsink path={path} policy=block wait-for=1 copies=allow");
        let producer = Launch::with(&sink, &LEAKS_TRACER);
        until_listening(&socket);
        // The queue still has frames when the producer ends.
        let source = format!("shrbufsrc path={path} ! queue ! identity sleep-time=2000 ! fakesink");
        let consumer = Launch::with(&source, &LEAKS_TRACER);
        [producer, consumer].into_iter().for_each(|launch| nothing_is_alive(&launch.end_well()));
    }
}
