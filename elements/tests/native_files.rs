//! `file-src` and `file-sink`: round trips, and files that are not what they should be.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use shrbuf::{Format, Reason, Shrbuf};
use shrbuf_elements::Memory;
use shrbuf_elements::file_sink::{Container, FileSink};
use shrbuf_elements::file_src::FileSrc;
use shrbuf_elements::screen_sink::{ScreenSink, TerminalUse};
use shrbuf_pipeline::property::Bytes;
use shrbuf_pipeline::run::start;
use shrbuf_pipeline::supervise::{RunOptions, Verdict, run};
use shrbuf_pipeline::{
    Build, Colorimetry, Context, Element, Events, Failure, FailureKind, Frame, Graph, Ports, Range, Rate, Refusal,
    Role, Size, Start, Stream, Timestamp,
};
use shrbuf_tests::native::{Feed, Probe, line, noise, picture, plane, run_well, stream};

const SIZES: [Size; 3] = [Size::new(64, 32), Size::new(37, 21), Size::new(2, 1)];

/// A path in this test's own folder.
fn scratch(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("native_files");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

fn source(path: &Path) -> FileSrc {
    FileSrc { path: path.to_owned(), free_run: true, memory: Memory::Memfd, ..FileSrc::default() }
}

fn sink(path: &Path) -> FileSink {
    FileSink { path: path.to_owned(), ..FileSink::default() }
}

fn contents(buffer: &Shrbuf) -> Vec<u8> {
    (0..buffer.layout().planes().len()).flat_map(|p| plane(buffer, p).0).collect()
}

fn pictures(format: Format, size: Size, n: u64) -> Vec<Shrbuf> {
    (0..n).map(|i| picture(format, size, noise(i))).collect()
}

fn write(sink: FileSink, buffers: &[Shrbuf], range: Range, stream: Stream) -> Graph {
    let color = Colorimetry { range, ..Colorimetry::default() };
    let frame = |(n, b): (usize, &Shrbuf)| Frame { color, ..Frame::new(b.clone(), Timestamp(n as u64), n as u64) };
    let feed = Feed(buffers.iter().enumerate().map(frame).collect());
    run_well(line(vec![Box::new(feed), sink.build().unwrap()], &[stream]), None)
}

fn collect(source: FileSrc, stream: Stream, frames: Option<u64>) -> (Vec<(Vec<u8>, Colorimetry)>, Graph) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&seen);
    let probe = Probe(move |f: Frame| {
        let mut seen = keep.lock().unwrap();
        assert_eq!(f.sequence, seen.len() as u64);
        seen.push((contents(&f.buffer), f.color));
    });
    let graph = run_well(line(vec![source.build().unwrap(), Box::new(probe)], &[stream]), frames);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (seen, graph)
}

/// What comes of reading this file.
fn failure(source: FileSrc, stream: Stream) -> String {
    let ended = match shrbuf_pipeline::run::start(
        line(vec![source.build().unwrap(), Box::new(Probe(drop))], &[stream]),
        None,
    ) {
        Ok(running) => running.join(),
        Err(ended) => *ended,
    };
    ended.failure.map(|f| f.to_string()).unwrap_or_default()
}

#[test]
fn raw_files_of_every_format_hold_the_same_bytes() {
    for format in Format::all() {
        for size in SIZES {
            let path = scratch(&format!("{format}-{size}.raw"));
            let before = pictures(format, size, 3);
            let graph = write(sink(&path), &before, Range::Limited, stream(format, size));
            let bytes: Vec<u8> = before.iter().flat_map(contents).collect();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            let entry = &graph.ledger().entries()[0];
            assert_eq!((entry.reason, entry.bytes), (Reason::File, bytes.len() as u64));
            assert_eq!(graph.ledger().copied(), 0);

            let raw = FileSrc { format: Some(format), size: Some(size), ..source(&path) };
            let (after, graph) = collect(raw, stream(format, size), None);
            assert_eq!(
                after.into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>(),
                before.iter().map(contents).collect::<Vec<_>>()
            );
            assert_eq!((graph.ledger().entries()[0].bytes, graph.ledger().copied()), (bytes.len() as u64, 0));
        }
    }
}

#[test]
fn y4m_files_hold_the_same_bytes_and_say_what_they_are() {
    for format in [Format::Yu12, Format::Yu16, Format::Yu24, Format::Grey] {
        for (size, range) in [(SIZES[0], Range::Full), (SIZES[1], Range::Limited)] {
            let path = scratch(&format!("{format}-{size}.y4m"));
            let before = pictures(format, size, 3);
            let stream = Stream { rate: Some(Rate::new(30000, 1001)), ..stream(format, size) };
            write(sink(&path), &before, range, stream);

            let mut element = source(&path).build().unwrap();
            let offer = element.output_offer(0, None).unwrap();
            assert_eq!(offer.video.iter().map(|v| v.format).collect::<Vec<_>>(), [format]);
            assert!(offer.video[0].sizes[0].sizes.contains(size));
            let paced = FileSrc { free_run: false, ..source(&path) };
            assert_eq!(paced.build().unwrap().output_offer(0, None).unwrap().wanted.rate, stream.rate);

            let (after, _) = collect(source(&path), stream, None);
            assert_eq!(after.len(), 3);
            for (buffer, (bytes, color)) in before.iter().zip(after) {
                assert_eq!(bytes, contents(buffer));
                assert_eq!(color.range, range);
            }
        }
    }
}

#[test]
fn numbered_pngs_hold_the_same_pixels() {
    for (format, alpha) in [(Format::Xr24, true), (Format::Bg24, false)] {
        for size in SIZES {
            let pattern = scratch(&format!("{format}-{size}-%03d.png"));
            // The fourth byte of XR24 means nothing and comes back as 255.
            let fill = |n| move |p, y, x| if alpha && x % 4 == 3 { 255 } else { noise(n)(p, y, x) };
            let before: Vec<Shrbuf> = (0..3).map(|n| picture(format, size, fill(n))).collect();
            write(sink(&pattern), &before, Range::Limited, stream(format, size));
            assert!(scratch(&format!("{format}-{size}-002.png")).exists());
            let (after, _) = collect(source(&pattern), stream(format, size), None);
            assert_eq!(
                after.into_iter().map(|(b, _)| b).collect::<Vec<_>>(),
                before.iter().map(contents).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn a_png_without_a_number_holds_the_last_frame() {
    let path = scratch("last.png");
    let before = pictures(Format::Bg24, SIZES[1], 4);
    write(sink(&path), &before, Range::Limited, stream(Format::Bg24, SIZES[1]));
    let (after, _) = collect(source(&path), stream(Format::Bg24, SIZES[1]), None);
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].0, contents(&before[3]));
}

#[test]
fn one_of_so_many_frames_is_written() {
    let path = scratch("every.raw");
    let before = pictures(Format::Grey, SIZES[0], 7);
    let config = FileSink { every: 3, ..sink(&path) };
    let graph = write(config, &before, Range::Limited, stream(Format::Grey, SIZES[0]));
    let expected: Vec<u8> = [0, 3, 6].iter().flat_map(|n| contents(&before[*n])).collect();
    assert_eq!(std::fs::read(&path).unwrap(), expected);
    assert_eq!(graph.counts()[1].own, [("written", 3)]);
}

#[test]
fn files_repeat_from_their_first_frame() {
    let size = SIZES[0];
    let before = pictures(Format::Yu12, size, 3);
    for name in ["repeat.raw", "repeat.y4m"] {
        let path = scratch(name);
        write(sink(&path), &before, Range::Limited, stream(Format::Yu12, size));
        let config = FileSrc { repeat: true, format: Some(Format::Yu12), size: Some(size), ..source(&path) };
        let (after, _) = collect(config, stream(Format::Yu12, size), Some(8));
        assert_eq!(after.len(), 8);
        for (n, (bytes, _)) in after.iter().enumerate() {
            assert_eq!(*bytes, contents(&before[n % 3]), "{name} {n}");
        }
    }
    let path = scratch("repeat.png");
    write(sink(&path), &pictures(Format::Bg24, size, 1), Range::Limited, stream(Format::Bg24, size));
    let (after, _) = collect(FileSrc { repeat: true, ..source(&path) }, stream(Format::Bg24, size), Some(9));
    assert!(after.len() == 9 && after.iter().all(|f| *f == after[0]));
}

#[test]
fn paced_frames_wait_for_buffers_and_none_is_lost() {
    let size = SIZES[0];
    let path = scratch("paced.raw");
    write(sink(&path), &pictures(Format::Grey, size, 12), Range::Limited, stream(Format::Grey, size));
    let (sender, receiver) = std::sync::mpsc::channel::<Frame>();
    let slow = std::thread::spawn(move || {
        // Slower than the frames come.
        receiver
            .into_iter()
            .map(|f| (std::thread::sleep(std::time::Duration::from_millis(3)), f.sequence).1)
            .collect::<Vec<u64>>()
    });
    let config = FileSrc { free_run: false, format: Some(Format::Grey), size: Some(size), ..source(&path) };
    let probe = Probe(move |f| sender.send(f).unwrap());
    let stream = Stream { rate: Some(Rate::new(1000, 1)), buffers: 2, ..stream(Format::Grey, size) };
    drop(run_well(line(vec![config.build().unwrap(), Box::new(probe)], &[stream]), None));
    assert_eq!(slow.join().unwrap(), (0..12).collect::<Vec<u64>>());
}

#[test]
fn a_file_cut_off_in_a_frame_is_reported_after_the_frames_before() {
    let size = SIZES[0];
    let before = pictures(Format::Yu12, size, 2);
    for name in ["short.raw", "short.y4m"] {
        let path = scratch(name);
        write(sink(&path), &before, Range::Limited, stream(Format::Yu12, size));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 100]).unwrap();
        let config = FileSrc { format: Some(Format::Yu12), size: Some(size), ..source(&path) };
        assert_eq!(
            failure(config, stream(Format::Yu12, size)),
            format!(
                "`e0`: bad data: {} ends in the middle of frame 1: 2972 of 3072 bytes are there; it was cut off, or \
                 format and size are not those of the file",
                path.display()
            )
        );
    }
}

#[test]
fn wrong_files_are_told_apart() {
    let s = stream(Format::Yu12, SIZES[0]);
    let say = |name: &str, bytes: &[u8]| {
        let path = scratch(name);
        std::fs::write(&path, bytes).unwrap();
        let text = failure(source(&path), s);
        text.replace(&path.display().to_string(), "F")
    };
    assert_eq!(say("riff.y4m", b"RIFF\n"), "`e0`: bad data: F: not a Y4M: it does not begin with YUV4MPEG2");
    assert_eq!(say("nothing.y4m", b""), "`e0`: bad data: F holds no frame");
    assert_eq!(say("header.y4m", b"YUV4MPEG2 W64 H32 F30:1\n"), "`e0`: bad data: F holds no frame");
    assert_eq!(
        say("frame.y4m", b"YUV4MPEG2 W64 H32 F30:1\nFRAMES ARE NOT HERE"),
        "`e0`: bad data: F ends in the middle of frame 0: 0 of 3072 bytes are there; it was cut off, or format and size are not those of the file"
    );
    assert_eq!(
        say("noframe.y4m", b"YUV4MPEG2 W64 H32 F30:1\nMARF\n"),
        "`e0`: bad data: F: no `FRAME` before frame 0; the file is damaged there"
    );
    assert!(say("text.png", b"hello").starts_with("`e0`: bad data: F: not a PNG that can be read: "));

    let say = |path: &str| failure(source(Path::new(path)), s);
    assert_eq!(
        say("/nowhere/film.y4m"),
        "`e0`: configuration: cannot open /nowhere/film.y4m: No such file or directory (os error 2); check the path, \
         which is relative to where the command runs"
    );
    let folder = FileSrc { container: Container::Y4m, ..source(Path::new("/tmp")) };
    assert_eq!(
        failure(folder, s),
        "`e0`: configuration: /tmp is a directory; name a file in it, or for numbered pictures a pattern such as /tmp/%04d.png"
    );
}

#[test]
fn pictures_of_another_size_are_refused() {
    let pattern = scratch("resized-%d.png");
    write(sink(&pattern), &pictures(Format::Bg24, SIZES[0], 2), Range::Limited, stream(Format::Bg24, SIZES[0]));
    let other = scratch("resized-1.png");
    write(sink(&other), &pictures(Format::Bg24, SIZES[1], 1), Range::Limited, stream(Format::Bg24, SIZES[1]));
    let text = failure(source(&pattern), stream(Format::Bg24, SIZES[0]));
    assert!(
        text.ends_with("resized-1.png is 37x21, the pictures before it are 64x32; a sequence has one size"),
        "{text}"
    );
}

fn write_failure(config: FileSink) -> String {
    let feed = Feed(vec![Frame::new(picture(Format::Grey, SIZES[0], noise(0)), Timestamp(0), 0)]);
    let graph = line(vec![Box::new(feed), config.build().unwrap()], &[stream(Format::Grey, SIZES[0])]);
    match start(graph, None) {
        Ok(running) => running.join().failure.unwrap().to_string(),
        Err(ended) => ended.failure.unwrap().to_string(),
    }
}

#[test]
fn a_full_disk_says_so() {
    let full = |container| write_failure(FileSink { container, ..sink(Path::new("/dev/full")) });
    let text = "`e1`: system limit: no space for frame 0 of /dev/full: No space left on device (os error 28); make room, \
                or write fewer frames (`every`)";
    assert_eq!(full(Container::Raw), text);
    assert_eq!(full(Container::Y4m), text);
    assert!(full(Container::Png).contains("no space for frame 0 of /dev/full"), "{}", full(Container::Png));
}

#[test]
fn paths_that_cannot_be_written_are_refused_at_the_start() {
    let text = write_failure(sink(Path::new("/nowhere/%04d.png")));
    assert!(text.starts_with("`e1`: configuration: cannot open /nowhere/0000.png: No such file"), "{text}");
    let text = write_failure(FileSink { container: Container::Raw, ..sink(Path::new("/tmp")) });
    assert!(text.starts_with("`e1`: configuration: /tmp is a directory"), "{text}");
}

/// A source that does not start; by then its sink has.
struct Broken;

impl Element for Broken {
    fn ports(&self) -> Ports {
        Ports::source()
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        Ok(pictures(stream.format, stream.size, 1))
    }

    fn start(&mut self, _start: &mut Start<'_>) -> Result<(), Failure> {
        Err(Failure::new(FailureKind::Device, "a test"))
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

#[test]
fn a_run_without_frames_leaves_what_was_there() {
    let names = ["kept.raw", "kept.y4m", "kept-%d.png", "kept.png", "screen.png"];
    let before: [Option<&[u8]>; 2] = [None, Some(b"the last run's")];
    for (name, before) in names.iter().flat_map(|name| before.map(|before| (name, before))) {
        let path = scratch(name);
        let there = scratch(&name.replace("%d", "0"));
        let element = || match *name {
            "screen.png" => {
                let terminal = TerminalUse::Never;
                ScreenSink { png: Some(path.clone()), terminal, ..ScreenSink::default() }.build().unwrap()
            }
            _ => sink(&path).build().unwrap(),
        };
        let stream = stream(if name.ends_with("png") { Format::Bg24 } else { Format::Grey }, SIZES[0]);
        let _ = std::fs::remove_file(&there);
        if let Some(bytes) = before {
            std::fs::write(&there, bytes).unwrap();
        }

        let failed = start(line(vec![Box::new(Broken), element()], &[stream]), None).err().unwrap();
        assert_eq!(failed.failure.unwrap().element(), Some("e0"));
        assert_eq!(std::fs::read(&there).ok().as_deref(), before, "{name}, a run that failed");

        run_well(line(vec![Box::new(Feed(Vec::new())), element()], &[stream]), None);
        assert_eq!(std::fs::read(&there).ok().as_deref(), before, "{name}, a run that ended");
    }
}

#[test]
fn the_first_frame_takes_the_place_of_what_was_there() {
    for name in ["new.raw", "new.y4m", "new.png"] {
        let (path, format) = (scratch(name), if name.ends_with("png") { Format::Bg24 } else { Format::Grey });
        let frames = pictures(format, SIZES[0], 1);
        let _ = std::fs::remove_file(&path);
        write(sink(&path), &frames, Range::Full, stream(format, SIZES[0]));
        let alone = std::fs::read(&path).unwrap();
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();

        write(sink(&path), &frames, Range::Full, stream(format, SIZES[0]));

        assert!(std::fs::read(&path).unwrap() == alone, "{name}");
    }
}

#[test]
fn a_file_without_permission_says_so() {
    let path = scratch("secret.y4m");
    std::fs::write(&path, b"YUV4MPEG2 W64 H32 F30:1\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    let text = failure(source(&path), stream(Format::Yu12, SIZES[0]));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    // The superuser may read it, and finds no frame.
    let denied = text.contains("Permission denied") && text.ends_with("of the folders above it");
    assert!(denied || text.ends_with("secret.y4m holds no frame"), "{text}");
}

#[test]
fn properties_that_cannot_work_are_refused() {
    let source = |config: FileSrc| config.build().err().map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(source(FileSrc::default()), "`path` is not set; it says what to read, such as \"film.y4m\"");
    let path = |p: &str| FileSrc { path: p.into(), ..FileSrc::default() };
    assert_eq!(source(path("a.raw")), "`format` is not set; a raw file does not say it itself");
    let grey = FileSrc { format: Some(Format::Grey), ..path("a.raw") };
    assert_eq!(source(grey), "`size` is not set; a raw file does not say it itself");
    assert_eq!(source(path("a.mp4")), "`container` cannot be told from `a.mp4`; set it to \"raw\", \"y4m\" or \"png\"");
    let sink = |config: FileSink| config.build().err().map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(sink(FileSink { every: 0, path: "a.raw".into(), ..FileSink::default() }), "`every` must be 1 or more");
}

/// Pictures and counters of so many frames.
fn played(source: FileSrc, stream: Stream, frames: u64) -> (Vec<Vec<u8>>, Vec<(&'static str, u64)>) {
    let (played, graph) = collect(source, stream, Some(frames));
    let own = graph.counts().into_iter().next().unwrap().own;
    (played.into_iter().map(|(bytes, _)| bytes).collect(), own)
}

#[test]
fn a_file_is_scrubbed_out_of_the_cache() {
    let (format, size) = (Format::Yu12, SIZES[1]);
    let path = scratch("scrub.y4m");
    let before = pictures(format, size, 4);
    let stream = stream(format, size);
    write(sink(&path), &before, Range::Limited, stream);
    let turns = [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1];
    let expected: Vec<Vec<u8>> = turns.iter().map(|&n| contents(&before[n])).collect();

    let scrubbed = FileSrc { back_and_forth: true, ..source(&path) };
    let (plain, none) = played(scrubbed.clone(), stream, turns.len() as u64);
    let (cached, counters) = played(FileSrc { cache: Some(Bytes(32 << 20)), ..scrubbed }, stream, turns.len() as u64);

    assert_eq!(plain, expected);
    assert_eq!(none, []);
    assert_eq!(cached, expected);
    // The misses beyond the four are the end of the file, twice.
    assert_eq!(counters, [("cache-hits", 8), ("cache-misses", 6), ("refetches", 4)]);
}

#[test]
fn a_film_repeats_out_of_the_cache() {
    let (format, size) = (Format::Nv12, SIZES[2]);
    let path = scratch("film.raw");
    let before = pictures(format, size, 3);
    let stream = stream(format, size);
    write(sink(&path), &before, Range::Limited, stream);
    let film =
        FileSrc { format: Some(format), size: Some(size), repeat: true, cache: Some(Bytes(32 << 20)), ..source(&path) };

    let (shown, counters) = played(film, stream, 7);

    let expected: Vec<Vec<u8>> = [0, 1, 2, 0, 1, 2, 0].iter().map(|&n: &usize| contents(&before[n])).collect();
    assert_eq!(shown, expected);
    assert_eq!(counters[0], ("cache-hits", 4));
}

/// Says once, at this frame, that the stream is another from there on, and passes that and what comes on after the next
/// start.
struct Halts {
    at: u64,
    kept: Vec<Frame>,
    over: bool,
}

impl Element for Halts {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        self.over = false;
        start.waker(0).wake();
        Ok(())
    }

    fn ready(&mut self, _token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        self.kept.drain(..).try_for_each(|frame| context.push(0, frame))
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        if frame.sequence != self.at && !self.over {
            self.ready(0, Events::default(), context)?;
            return context.push(0, frame);
        }
        self.kept.push(frame);
        if std::mem::replace(&mut self.over, true) {
            return Ok(());
        }
        context.change(Failure::new(FailureKind::Changed, "a test"))
    }
}

#[test]
fn what_is_started_again_goes_on_where_it_was() {
    let size = SIZES[0];
    for name in ["again.raw", "again.y4m"] {
        let (from, to) = (scratch(name), scratch(&format!("copy-of-{name}")));
        write(sink(&from), &pictures(Format::Grey, size, 12), Range::Full, stream(Format::Grey, size));
        let mut graph = Graph::new("again");
        let raw = name.ends_with("raw").then_some(size);
        let rate = Some(Rate::new(30, 1));
        let source = FileSrc { format: Some(Format::Grey), size: raw, rate, free_run: false, ..source(&from) };
        let halts = Halts { at: 5, kept: Vec::new(), over: false };
        let elements: [(&str, Box<dyn Element>); 3] =
            [("source", source.build().unwrap()), ("halts", Box::new(halts)), ("sink", sink(&to).build().unwrap())];
        let nodes = elements.map(|(name, element)| graph.add(name, element).unwrap());
        nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());

        let report = run(graph, &RunOptions::default(), |_| Verdict::Continue);

        assert!(report.error.is_none(), "{}", report.error.unwrap());
        assert_eq!(report.restarts, 1);
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap(), "{name}");
    }
}
