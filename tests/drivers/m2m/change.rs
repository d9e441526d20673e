//! A decoder whose stream becomes another: every picture comes out, of before the change and of after it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shrbuf::{Format, MemoryKind, Shrbuf};
use shrbuf_elements::file_sink::FileSink;
use shrbuf_elements::queue::Queue;
use shrbuf_elements::v4l2::V4l2M2m;
use shrbuf_pipeline::supervise::{Error, Report};
use shrbuf_pipeline::{
    Build, Consumes, Context, Element, Environment, Events, Failure, FailureKind, Frame, Graph, InputOffer, Modifiers,
    Origin, OutputOffer, Ports, Produces, Rate, Rates, Refusal, Role, Size, SizeOffer, Sizes, Start, Stream, Timestamp,
    Video, Wanted,
};
use shrbuf_tests::{Footprint, Watch, counts, own, run_frames};

use super::codec::{codec, psnr};
use super::{Planes, m2m, planes, row, source};

const SMALL: (u32, u32) = (640, 480);
const LARGE: (u32, u32) = (1280, 720);

fn video(frame: &Frame, sizes: Sizes, rates: Rates) -> Video {
    let layout = frame.buffer.layout();
    let sizes = vec![SizeOffer { sizes, rates }];
    Video { format: layout.format, modifiers: Modifiers::Unknown, sizes, plane_segments: layout.segments() > 1 }
}

/// Frames that were made before, one after another, numbered anew; the last again and again. It goes on where it was
/// when the graph is started again.
pub(super) struct Replay {
    frames: Vec<Frame>,
    pushed: u64,
}

impl Replay {
    pub(super) fn of(frames: Vec<Frame>) -> Box<Replay> {
        Box::new(Replay { frames, pushed: 0 })
    }
}

impl Element for Replay {
    fn ports(&self) -> Ports {
        Ports::source()
    }

    fn output_offer(&mut self, _output: usize, _input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        let layout = self.frames[0].buffer.layout();
        let size = Sizes::Exact(Size::new(layout.width, layout.height));
        let video = video(&self.frames[0], size, Rates::List(vec![Rate::new(30, 1)]));
        let memory = Produces { origins: vec![Origin::V4l2], max_stride_align: 1, keeps: 1, max_buffers: 32 };
        Ok(OutputOffer { video: vec![video], memory, wanted: Wanted::default() })
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        Ok(vec![self.frames[0].buffer.clone(); stream.buffers as usize])
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        start.every(Duration::from_millis(20), 0)?;
        Ok(())
    }

    fn ready(&mut self, _token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        if context.ended() {
            return Ok(());
        }
        let frame = self.frames.get(self.pushed as usize).or(self.frames.last()).unwrap();
        let sequence = self.pushed;
        self.pushed += 1;
        context.push(0, Frame { timestamp: Timestamp((sequence + 1) * 1_000_000), sequence, ..frame.clone() })
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// A sink that keeps every frame, and says so.
struct Keep(u32, Arc<Mutex<Vec<Frame>>>);

impl Element for Keep {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        let memory = Consumes { kinds: vec![MemoryKind::DmaBuf], holds: self.0, ..Consumes::cpu() };
        let video = vec![Video::linear(Format::Fwht)];
        Ok(InputOffer { video, memory, wanted: Wanted::default(), natural: None })
    }

    fn process(&mut self, _input: usize, frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        self.1.lock().unwrap().push(frame);
        Ok(())
    }

    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        context.finish();
        Ok(())
    }
}

/// Of these sources the first, and after each stop the next; the last again and again.
struct InTurn(Vec<Box<dyn Element>>);

impl Element for InTurn {
    fn ports(&self) -> Ports {
        self.0[0].ports()
    }

    fn join(&mut self, environment: &Environment) {
        self.0.iter_mut().for_each(|source| source.join(environment));
    }

    fn output_offer(&mut self, output: usize, input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        self.0[0].output_offer(output, input)
    }

    fn allocate(&mut self, output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.0[0].allocate(output, stream)
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        self.0[0].start(start)
    }

    fn ready(&mut self, token: u32, events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        self.0[0].ready(token, events, context)
    }

    fn process(&mut self, input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        self.0[0].process(input, frame, context)
    }

    fn stop(&mut self) {
        self.0[0].stop();
        if self.0.len() > 1 {
            self.0.remove(0);
        }
    }
}

/// What an encoder made, and of what.
pub(super) struct Recorded {
    pub(super) frames: Vec<Frame>,
    pub(super) pictures: Vec<Planes>,
}

/// The first frames that the encoder makes, of which only the first stands for itself, in its own buffers.
pub(super) fn record(encoder: &str, (width, height): (u32, u32), frames: u32) -> Recorded {
    let pictures: Arc<Mutex<Vec<Planes>>> = Arc::default();
    let kept: Arc<Mutex<Vec<Frame>>> = Arc::default();
    let seen = Arc::clone(&pictures);
    let elements: [Box<dyn Element>; 4] = [
        source(Format::Yu12, width, height).build().unwrap(),
        Watch::new(move |frame| seen.lock().unwrap().push(planes(&frame.buffer))),
        m2m(encoder, None).build().unwrap(),
        Box::new(Keep(frames, Arc::clone(&kept))),
    ];
    let mut graph = Graph::new("record");
    let add = |(n, element)| graph.add(&format!("e{n}"), element).unwrap();
    let nodes: Vec<_> = elements.into_iter().enumerate().map(add).collect();
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());

    let report = run_frames(graph, frames.into());

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let (frames, pictures) = (kept.lock().unwrap().split_off(0), pictures.lock().unwrap().split_off(0));
    assert_eq!(frames.len(), pictures.len());
    Recorded { frames, pictures }
}

/// So many frames of each size in turn, and what they are of.
fn in_turn(encoder: &str, sizes: &[(u32, u32)], frames: u32) -> Recorded {
    let parts: Vec<_> = sizes.iter().map(|&size| record(encoder, size, frames)).collect();
    let (mut frames, mut pictures) = (Vec::new(), Vec::new());
    for part in parts {
        frames.extend(part.frames);
        pictures.extend(part.pictures);
    }
    Recorded { frames, pictures }
}

/// What has come, by number, and how often.
type Came = Arc<Mutex<BTreeMap<u64, Vec<Planes>>>>;

fn watch(came: &Came) -> Box<Watch> {
    let came = Arc::clone(came);
    Watch::new(move |frame| came.lock().unwrap().entry(frame.sequence).or_default().push(planes(&frame.buffer)))
}

/// `replay → … → decoder → …`: every picture comes out once, as it was but for the loss.
fn all_come_out(sizes: &[(u32, u32)], between: impl Fn() -> Vec<Box<dyn Element>>) {
    const EACH: u32 = 8;
    let Some((encoder, decoder)) = codec() else { return };
    let before = Footprint::now();
    let Recorded { frames, pictures } = in_turn(&encoder, sizes, EACH);
    let number = frames.len() as u64;
    let came = Came::default();
    let mut elements: Vec<Box<dyn Element>> = vec![Replay::of(frames)];
    elements.extend(between());
    elements.push(m2m(&decoder, Some(Format::Yu12)).build().unwrap());
    elements.extend(between());
    elements.push(watch(&came));
    let (graph, _, got) = row(elements);

    let report = run_frames(graph, number);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(report.restarts as usize, sizes.len() - 1);
    assert_eq!(report.graph.ledger().copied(), 0);
    assert_eq!(got.sizes(), sizes.iter().map(|s| Size::new(s.0, s.1)).collect::<Vec<_>>());
    let came = std::mem::take(&mut *came.lock().unwrap());
    assert_eq!(came.keys().copied().collect::<Vec<_>>(), (0..number).collect::<Vec<_>>());
    let quality = |(n, came): (&u64, &Vec<Planes>)| {
        assert_eq!(came.len(), 1, "frame {n} came {} times", came.len());
        psnr(&came[0], &pictures[*n as usize])
    };
    let worst = came.iter().map(quality).fold(f64::INFINITY, f64::min);
    println!("worst of {number} frames {worst:.1} dB, {} restarts in {:.1?}", report.restarts, report.duration);
    assert!(worst > 30.0, "{worst:.1} dB");
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_stream_whose_pictures_grow_and_shrink_loses_none() {
    all_come_out(&[SMALL, LARGE, SMALL], Vec::new);
}

#[test]
fn a_stream_that_changes_between_queues_loses_none() {
    let queue = || Queue { depth: 4, ..Queue::default() }.build().unwrap();
    all_come_out(&[SMALL, LARGE], || vec![queue()]);
}

#[test]
fn a_stream_that_changes_with_its_last_frames_is_drained() {
    // The end has come before the decoder has seen the change.
    all_come_out(&[(640, 368), LARGE, (800, 600), SMALL], Vec::new);
}

/// Every picture that goes by, in turn.
fn pictures(of: &Arc<Mutex<Vec<Planes>>>) -> Box<dyn Element> {
    let pictures = Arc::clone(of);
    Watch::new(move |frame| pictures.lock().unwrap().push(planes(&frame.buffer)))
}

/// `source → encoder → … → decoder`, whose pictures are not what was agreed before it had seen the first.
fn none_is_lost_before_the_first(frames: usize, between: Vec<Box<dyn Element>>) -> Option<Duration> {
    // Nobody waits for a device until that has stalled.
    let patient = |device: &str| V4l2M2m { stall: Duration::from_secs(20), ..m2m(device, None) }.build().unwrap();
    let (encoder, decoder) = codec()?;
    let before = Footprint::now();
    let [sent, got] = <[Arc<Mutex<Vec<Planes>>>; 2]>::default();
    // 4:2:2, where the decoder's own first choice is 4:2:0.
    let camera = source(Format::Yuyv, 640, 480).build().unwrap();
    let mut elements = vec![camera, pictures(&sent), patient(&encoder)];
    elements.extend(between);
    let decodes = format!("e{}", elements.len());
    elements.extend([patient(&decoder), pictures(&got)]);
    let (graph, ..) = row(elements);

    let report = run_frames(graph, frames as u64);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!((report.restarts, report.graph.ledger().copied()), (1, 0));
    // The encoder's buffers of after the change were agreed on, too.
    assert_eq!(own(&report.graph, &decodes, "late"), 0);
    let (sent, got) = (sent.lock().unwrap(), got.lock().unwrap());
    assert_eq!((sent.len(), got.len()), (frames, frames));
    // Of YUYV every second byte.
    let luma = |yuyv: &Planes| vec![yuyv[0].iter().copied().step_by(2).collect::<Vec<_>>()];
    let worst = sent.iter().zip(&*got).map(|(sent, got)| psnr(&luma(sent), &got[..1]));
    let worst = worst.fold(f64::INFINITY, f64::min);
    let took = report.duration;
    println!("worst of {frames} frames {worst:.1} dB, in {took:.1?}");
    assert!(worst > 30.0, "{worst:.1} dB");
    drop((sent, got, report));
    assert_eq!(Footprint::now(), before);
    Some(took)
}

#[test]
fn a_first_picture_that_is_not_as_agreed_loses_none_of_what_an_encoder_has() {
    for frames in [1, 3, 8, 30] {
        let took = none_is_lost_before_the_first(frames, Vec::new());
        assert!(took < Some(Duration::from_secs(10)), "{took:?}");
    }
}

#[test]
fn frames_of_another_stream_than_what_comes_after_a_change_are_counted() {
    let Some((encoder, decoder)) = codec() else { return };
    let before = Footprint::now();
    let [sent, got] = <[Arc<Mutex<Vec<Planes>>>; 2]>::default();
    let camera = |(width, height)| source(Format::Yuyv, width, height).build().unwrap() as Box<dyn Element>;
    let (graph, ..) = row(vec![
        Box::new(InTurn([LARGE, SMALL].map(camera).into())),
        pictures(&sent),
        m2m(&encoder, None).build().unwrap(),
        m2m(&decoder, None).build().unwrap(),
        pictures(&got),
    ]);

    let report = run_frames(graph, 40);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.restarts >= 1, "the decoder's first picture is not as agreed");
    let left: Vec<u64> = ["e2", "e3"].iter().map(|name| own(&report.graph, name, "left_behind")).collect();
    let (sent, got) = (sent.lock().unwrap(), got.lock().unwrap());
    println!("{} sent, {} came, left behind {left:?}, {} restarts", sent.len(), got.len(), report.restarts);
    assert!(left.iter().sum::<u64>() > 0);
    assert_eq!(sent.len() as u64, got.len() as u64 + left.iter().sum::<u64>());
    drop((sent, got, report));
    assert_eq!(Footprint::now(), before);
}

/// Passes frames on, but its second start fails.
struct FailsOnce(u32);

impl Element for FailsOnce {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn start(&mut self, _start: &mut Start<'_>) -> Result<(), Failure> {
        self.0 += 1;
        if self.0 == 2 { Err(Failure::new(FailureKind::Device, "not the second time")) } else { Ok(()) }
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        context.push(0, frame)
    }
}

#[test]
fn frames_of_before_a_change_are_counted_where_another_element_does_not_start_after_it() {
    let Some((encoder, decoder)) = codec() else { return };
    let before = Footprint::now();
    let [sent, got] = <[Arc<Mutex<Vec<Planes>>>; 2]>::default();
    // Elements start from the last to the first: both codecs have when it fails.
    let (mut graph, ..) = row(vec![
        source(Format::Yuyv, 640, 480).build().unwrap(),
        Box::new(FailsOnce(0)),
        pictures(&sent),
        m2m(&encoder, None).build().unwrap(),
        m2m(&decoder, None).build().unwrap(),
        pictures(&got),
    ]);
    graph.set_retry(Some(Duration::from_secs(20)));

    let report = run_frames(graph, 40);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(report.restarts, 2);
    let left = ["e3", "e4"].map(|name| own(&report.graph, name, "left_behind"));
    let (sent, got) = (sent.lock().unwrap(), got.lock().unwrap());
    println!("{} sent, {} came, left behind {left:?}", sent.len(), got.len());
    assert!(left.iter().all(|&left| left > 0), "{left:?}");
    assert_eq!(sent.len() as u64, got.len() as u64 + left.iter().sum::<u64>());
    drop((sent, got, report));
    assert_eq!(Footprint::now(), before);
}

#[test]
fn an_encoder_out_of_buffers_before_the_first_picture_loses_none() {
    let queue = || Queue { depth: 4, ..Queue::default() }.build().unwrap();
    let mut slow = 12;
    // The decoder is not looked at while there is another frame for it: by then it has all that the encoder can make.
    let slow = Watch::new(move |_| {
        if slow > 0 {
            slow -= 1;
            std::thread::sleep(Duration::from_millis(30));
        }
    });

    none_is_lost_before_the_first(30, vec![queue(), slow]);
}

/// `replay → decode → file`, of so many frames of each size; and how large the file became.
fn into_a_file(name: &str, (encoder, decoder): (String, String), each: u32) -> (Report, u64) {
    let Recorded { frames, .. } = in_turn(&encoder, &[SMALL, LARGE], each);
    let path = std::env::temp_dir().join(name);
    let file = FileSink { path: path.clone(), ..FileSink::default() };
    let mut graph = Graph::new("file");
    let replay = graph.add("replay", Replay::of(frames)).unwrap();
    let decode = graph.add("decode", m2m(&decoder, Some(Format::Yu12)).build().unwrap()).unwrap();
    let file = graph.add("file", file.build().unwrap()).unwrap();
    graph.link(replay, decode).unwrap();
    graph.link(decode, file).unwrap();
    let report = run_frames(graph, 2 * u64::from(each));
    let bytes = std::fs::metadata(&path).unwrap().len();
    std::fs::remove_file(&path).unwrap();
    (report, bytes)
}

#[test]
fn a_raw_file_goes_on_after_a_change() {
    let Some(codec) = codec() else { return };

    let (report, bytes) = into_a_file("shrbuf-change.raw", codec, 4);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let of = |(width, height)| 4 * Format::Yu12.frame_bytes(width, height);
    assert_eq!(bytes, of(SMALL) + of(LARGE));
}

#[test]
fn what_cannot_take_the_new_size_is_said_with_both_and_has_all_of_before() {
    let Some(codec) = codec() else { return };
    let before = Footprint::now();

    let (report, bytes) = into_a_file("shrbuf-change.y4m", codec, 6);

    let error = report.error.as_ref().unwrap();
    println!("{error}");
    assert!(matches!(error, Error::Unfit { .. }), "{error}");
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Changed), Some("decode")));
    let text = error.to_string();
    assert!(text.contains("its pictures are YU12 1280x720 from here on, agreed were YU12 640x480"), "{text}");
    assert!(text.contains("has frames of YU12 640x480 already") && text.contains("size = [640, 480]"), "{text}");
    assert_eq!(counts(&report.graph, "file").frames, 6);
    let pictures = 6 * Format::Yu12.frame_bytes(SMALL.0, SMALL.1);
    assert!((pictures..pictures + 1024).contains(&bytes), "{bytes} bytes");
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_frame_in_a_buffer_smaller_than_agreed_is_bad_data() {
    let Some((encoder, decoder)) = codec() else { return };
    let before = Footprint::now();
    let Recorded { frames, .. } = in_turn(&encoder, &[LARGE, SMALL], 4);
    let (graph, ..) = row(vec![Replay::of(frames), m2m(&decoder, Some(Format::Yu12)).build().unwrap()]);

    let report = run_frames(graph, 8);

    let error = report.error.as_ref().unwrap();
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Data), Some("e1")), "{error}");
    assert!(error.to_string().contains("make all buffers that large from the start"), "{error}");
    drop(report);
    assert_eq!(Footprint::now(), before);
}
