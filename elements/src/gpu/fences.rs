//! Fences of a GPU that takes its time. The context is given one that signals when the test says so: a renderer on the CPU
//! has finished by the time it gives its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shrbuf::exporter::{Exporter, Udmabuf};
use shrbuf::{Access, BufferId, FenceStatus, Layout, Plane};
use shrbuf_pipeline::supervise::{RunOptions, Verdict, run};
use shrbuf_pipeline::{Graph, Rate, Timestamp};
use shrbuf_tests::native::{Feed, Probe, line, picture_in, run_well, stream};
use shrbuf_tests::{Watch, once_polling, without_sync_files};

use super::loss::{on_dma_bufs, software};
use super::*;
use crate::null_sink::NullSink;
use crate::test_src::TestSrc;

#[path = "../../../shrbuf/tests/common/vgem.rs"]
mod vgem;

use vgem::{Vgem, Work};

const SIZE: Size = Size::new(64, 36);

fn dma_bufs(format: Format) -> Stream {
    Stream { origin: Origin::Udmabuf, ..stream(format, SIZE) }
}

fn picture(stream: &Stream) -> Shrbuf {
    picture_in(&Exporter::Udmabuf(Udmabuf::open("picture").unwrap()), stream, |plane, y, x| (plane + y + x) as u8)
}

/// NV12 with each plane in a dma-buf of its own.
fn in_two_segments() -> Shrbuf {
    let planes = [SIZE.height, SIZE.height / 2].map(|height| {
        picture(&Stream { size: Size::new(SIZE.width, height), ..dma_bufs(Format::Grey) }).export(0).unwrap()
    });
    let at = |segment| Plane { segment, offset: 0, stride: 64 };
    let layout = Layout::new(Format::Nv12, Some(Modifier::LINEAR), SIZE.width, SIZE.height, &[at(0), at(1)]);
    Shrbuf::import(planes.into(), layout.unwrap()).unwrap()
}

/// What `device` draws next is done when the work that is returned ends.
fn takes_its_time(device: &Device) -> Work {
    assert!(device.context.has_native_fences());
    let other = picture(&dma_bufs(Format::Grey));
    let work = Vgem::open().unwrap().begin(Access::Write, &other, 0);
    device.context.done_with(other.export_fence(0, Access::Read).unwrap().unwrap().into());
    work
}

/// Sends each to the output of its number.
struct InTurn(Vec<Frame>);

impl Element for InTurn {
    fn ports(&self) -> Ports {
        Ports { inputs: Vec::new(), outputs: (0..self.0.len()).map(|n| format!("out{n}")).collect() }
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        start.waker(0).wake();
        Ok(())
    }

    fn ready(&mut self, _token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        self.0.drain(..).enumerate().try_for_each(|(output, frame)| context.push(output, frame))?;
        context.end_all()
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

#[test]
fn all_wait_for_what_is_drawn_and_only_writers_for_what_it_is_drawn_of() {
    if !on_dma_bufs() {
        return;
    }
    let sources = [in_two_segments(), picture(&dma_bufs(Format::Yuyv))];
    let config = Gpu { inputs: 2, size: Some(SIZE), ..software().config };
    let mut gpu = GpuElement::new(config).unwrap();
    // The first input comes last, as upon its frames a picture is made.
    for (input, source) in sources.iter().rev().enumerate() {
        gpu.import(input, &dma_bufs(source.layout().format), std::slice::from_ref(source)).unwrap();
    }
    gpu.allocate(0, &dma_bufs(Format::Xr24)).unwrap();
    let work = takes_its_time(&gpu.device().unwrap());
    let drawn: Arc<Mutex<Option<Shrbuf>>> = Arc::default();
    let keep = Arc::clone(&drawn);
    let mut graph = Graph::new("test");
    let frames = sources.iter().map(|s| Frame::new(s.clone(), Timestamp(0), 0)).collect();
    graph.add("source", Box::new(InTurn(frames))).unwrap();
    let gpu = graph.add("gpu", Box::new(gpu)).unwrap();
    let probe = Probe(move |frame: Frame| *keep.lock().unwrap() = Some(frame.buffer));
    let probe = graph.add("probe", Box::new(probe)).unwrap();
    for (from, to) in [("source.out0", "gpu.in1"), ("source.out1", "gpu.in0")] {
        let (from, to) = (graph.output(from).unwrap(), graph.input(to).unwrap());
        graph.link_ports(from, to, None).unwrap();
    }
    graph.link(gpu, probe).unwrap();

    run_well(graph, None);

    let drawn = drawn.lock().unwrap().take().unwrap();
    assert!(drawn.has_fences());
    let pending = |access| {
        let of = |buffer: &Shrbuf| {
            let fences = (0..buffer.segments().len()).map(|s| buffer.export_fence(s, access).unwrap().unwrap());
            fences.map(|f| f.status().unwrap() == FenceStatus::Pending).collect::<Vec<_>>()
        };
        [&drawn, &sources[0], &sources[1]].map(of)
    };
    assert_eq!(pending(Access::Read), [vec![true], vec![false, false], vec![false]]);
    assert_eq!(pending(Access::Write), [vec![true], vec![true, true], vec![true]]);
    work.end();
    assert_eq!(pending(Access::Write), [vec![false], vec![false, false], vec![false]]);
}

/// Ends the work in some time, in which who does not wait would be through. True from then on.
fn ends_later(work: Work) -> Arc<AtomicBool> {
    let ended = Arc::new(AtomicBool::new(false));
    let says = Arc::clone(&ended);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(400));
        says.store(true, Ordering::SeqCst);
        work.end();
    });
    ended
}

#[test]
fn the_cpu_reads_a_picture_when_it_is_drawn() {
    if !on_dma_bufs() {
        return;
    }
    let source = picture(&dma_bufs(Format::Yuyv));
    let mut gpu = software();
    let mut work = Some(takes_its_time(&gpu.device().unwrap()));
    let came: Arc<Mutex<Option<bool>>> = Arc::default();
    let noted = Arc::clone(&came);
    let probe = Probe(move |frame: Frame| {
        let ended = ends_later(work.take().unwrap());
        let _guard = frame.buffer.read().unwrap();
        *noted.lock().unwrap() = Some(ended.load(Ordering::SeqCst));
    });
    let feed = Feed(vec![Frame::new(source, Timestamp(0), 0)]);
    let streams = [dma_bufs(Format::Yuyv), dma_bufs(Format::Xr24)];

    run_well(line(vec![Box::new(feed), Box::new(gpu), Box::new(probe)], &streams), None);

    assert_eq!(*came.lock().unwrap(), Some(true));
}

/// How often the element has waited for its pictures of `source`, on a kernel without sync_files of dma-bufs. `work` is
/// what it has to wait for before the probe gets one.
fn waits_without_sync_files(mut gpu: GpuElement, source: Shrbuf, work: Work) -> u64 {
    let (mut work, ended) = (Some(work), Arc::new(AtomicBool::new(false)));
    let says = Arc::clone(&ended);
    let before = Watch::new(move |_| {
        let (work, says) = (work.take().unwrap(), Arc::clone(&says));
        once_polling(move || {
            says.store(true, Ordering::SeqCst);
            work.end();
        });
    });
    let came: Arc<Mutex<Option<bool>>> = Arc::default();
    let noted = Arc::clone(&came);
    let probe = Probe(move |_| *noted.lock().unwrap() = Some(ended.load(Ordering::SeqCst)));
    let feed = Feed(vec![Frame::new(source.clone(), Timestamp(0), 0)]);
    let mut graph = Graph::new("test");
    gpu.import(0, &dma_bufs(Format::Yuyv), std::slice::from_ref(&source)).unwrap();
    gpu.allocate(0, &dma_bufs(Format::Xr24)).unwrap();
    let elements: [(&str, Box<dyn Element>); 4] =
        [("feed", Box::new(feed)), ("before", before), ("gpu", Box::new(gpu)), ("probe", Box::new(probe))];
    let nodes = elements.map(|(name, element)| graph.add(name, element).unwrap());
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());
    without_sync_files();

    let graph = run_well(graph, None);

    assert_eq!(*came.lock().unwrap(), Some(true));
    let own = graph.counts().into_iter().find(|c| c.name == "gpu").unwrap().own;
    own.into_iter().find(|(name, _)| *name == "waits").unwrap().1
}

#[test]
fn without_sync_files_of_dma_bufs_what_is_still_written_is_waited_for() {
    if !on_dma_bufs() {
        return;
    }
    let source = picture(&dma_bufs(Format::Yuyv));
    let writing = Vgem::open().unwrap().begin(Access::Write, &source, 0);
    assert_eq!(waits_without_sync_files(software(), source, writing), 0);
}

#[test]
fn without_sync_files_of_dma_bufs_what_is_drawn_is_waited_for() {
    if !on_dma_bufs() {
        return;
    }
    let mut gpu = software();
    let drawing = takes_its_time(&gpu.device().unwrap());
    assert_eq!(waits_without_sync_files(gpu, picture(&dma_bufs(Format::Yuyv)), drawing), 1);
}

/// These in a line, for so many frames.
fn run_frames(elements: [Box<dyn Element>; 5], frames: u64) {
    let mut graph = Graph::new("test");
    let mut number = 0..;
    let nodes = elements.map(|e| graph.add(&format!("e{}", number.next().unwrap()), e).unwrap());
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());
    let report = run(graph, &RunOptions { frames: Some(frames), ..RunOptions::default() }, |_| Verdict::Continue);
    assert!(report.error.is_none(), "{}", report.error.unwrap());
}

/// Counts how often a buffer comes again.
#[derive(Default)]
struct Again {
    buffer: Option<BufferId>,
    while_drawn: u64,
    after: u64,
}

impl Again {
    fn see(&mut self, frame: &Frame, drawing: bool) {
        if self.buffer == Some(frame.buffer.id()) {
            *(if drawing { &mut self.while_drawn } else { &mut self.after }) += 1;
        }
    }
}

#[derive(Default)]
struct Seen {
    work: Option<Work>,
    source: Again,
    target: Again,
}

#[test]
fn neither_what_is_drawn_nor_what_it_is_drawn_of_is_written_again_meanwhile() {
    if !on_dma_bufs() {
        return;
    }
    const SLOW: u64 = 10;
    const DONE: u64 = 40;
    let mut gpu = software();
    let device = gpu.device().unwrap();
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let (before, behind) = (Arc::clone(&seen), Arc::clone(&seen));
    let mut frames = 0;
    let before = Watch::new(move |frame| {
        let mut seen = before.lock().unwrap();
        let drawing = seen.work.is_some();
        seen.source.see(frame, drawing);
        frames += 1;
        match frames {
            SLOW => {
                seen.work = Some(takes_its_time(&device));
                seen.source.buffer = Some(frame.buffer.id());
            }
            DONE => seen.work.take().unwrap().end(),
            _ => {}
        }
    });
    let behind = Watch::new(move |frame| {
        let mut seen = behind.lock().unwrap();
        let drawing = seen.work.is_some();
        seen.target.see(frame, drawing);
        if drawing && seen.target.buffer.is_none() {
            seen.target.buffer = Some(frame.buffer.id());
        }
    });
    let source = TestSrc { size: SIZE, format: Some(Format::Yuyv), rate: Rate::new(60, 1), ..TestSrc::default() };
    let elements = [source.build().unwrap(), before, Box::new(gpu), behind, NullSink {}.build().unwrap()];

    run_frames(elements, 80);

    let seen = seen.lock().unwrap();
    assert_eq!((seen.source.while_drawn, seen.target.while_drawn), (0, 0));
    // Both came back to their pools when it was done.
    assert!(seen.source.after > 0 && seen.target.after > 0, "{} {}", seen.source.after, seen.target.after);
}

/// A picture that takes its time, and whether that is over.
#[cfg(feature = "kms")]
type Slow = (u64, Arc<AtomicBool>);

#[cfg(feature = "kms")]
#[test]
fn a_picture_is_shown_when_it_is_drawn() {
    use crate::kms::{Card, KmsSink};

    if !on_dma_bufs() {
        return;
    }
    if !Card::find().into_iter().flatten().any(|card| card.driver == "vkms") {
        assert!(std::env::var_os("SHRBUF_REQUIRE_DRIVERS").is_none(), "vkms is required and missing");
        println!("needs vkms: scripts/test-guest runs this in the virtual machine");
        return;
    }
    const MODE: Size = Size::new(640, 480);
    let mut gpu = software();
    let device = gpu.device().unwrap();
    let work: Arc<Mutex<Option<Work>>> = Arc::default();
    let slow: Arc<Mutex<Option<Slow>>> = Arc::default();
    let shown: Arc<Mutex<Vec<(u64, bool)>>> = Arc::default();
    let (begun, drawn) = (Arc::clone(&work), work);
    let (told, known, noted) = (Arc::clone(&slow), Arc::clone(&slow), Arc::clone(&shown));
    let mut frames = 0;
    let before = Watch::new(move |_| {
        frames += 1;
        if frames == 3 {
            *begun.lock().unwrap() = Some(takes_its_time(&device));
        }
    });
    let behind = Watch::new(move |frame| {
        if let Some(work) = drawn.lock().unwrap().take() {
            *told.lock().unwrap() = Some((frame.sequence, ends_later(work)));
        }
    });
    let display = KmsSink { mode: Some(MODE), ..KmsSink::default() }.build_capturing(Box::new(move |frames, _| {
        let ended = known.lock().unwrap().as_ref().is_some_and(|(_, ended)| ended.load(Ordering::SeqCst));
        noted.lock().unwrap().push((frames[0].sequence, ended));
    }));
    let source = TestSrc { size: MODE, format: Some(Format::Yuyv), rate: Rate::new(10, 1), ..TestSrc::default() };
    let elements = [source.build().unwrap(), before, Box::new(gpu), behind, display];

    run_frames(elements, 10);

    let (shown, slow) = (shown.lock().unwrap(), slow.lock().unwrap().take().unwrap().0);
    // The one before was not waiting too.
    assert!(shown.iter().any(|&(number, ended)| number < slow && !ended), "{slow}: {shown:?}");
    assert!(shown.iter().any(|&(number, ended)| number == slow && ended), "{slow}: {shown:?}");
    assert!(!shown.contains(&(slow, false)), "{slow}: {shown:?}");
}
