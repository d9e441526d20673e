//! What compositors do that Weston without a display never does.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use shrbuf::{Format, Modifier};
use shrbuf_elements::Memory;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_elements::wayland::{Fit, WaylandSink};
use shrbuf_pipeline::supervise::{Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{
    Build, Colorimetry, Context, Element, Failure, FailureKind, Frame, Graph, Matrix, Ports, Range, Rate, Rect, Role,
};
use shrbuf_tests::{Footprint, counts, on_test_drivers, run_frames};

use crate::fake::{Behaviour, Command, Compositor};
use crate::{alone, graph, own, pictures, window_at};

pub fn source(memory: Memory) -> TestSrc {
    TestSrc { memory, format: Some(Format::Xr24), rate: Rate::new(30, 1), ..pictures() }
}

/// A run of so many frames, in which the compositor is given `command` at the twentieth.
pub fn with_command(compositor: &Compositor, memory: Memory, command: Option<Command>, frames: u64) -> Report {
    with_command_to(compositor, window_at(compositor.socket()), memory, command, frames)
}

fn with_command_to(
    compositor: &Compositor,
    window: WaylandSink,
    memory: Memory,
    command: Option<Command>,
    frames: u64,
) -> Report {
    run_frames(commanding(compositor, window, memory, command), frames)
}

/// A graph that gives the compositor `command` at its twentieth frame.
fn commanding(compositor: &Compositor, window: WaylandSink, memory: Memory, command: Option<Command>) -> Graph {
    let commands = compositor.commands();
    let (mut seen, mut command) = (0, command);
    let mut graph = graph(source(memory).build().unwrap(), window, move |_| {
        seen += 1;
        if let Some(command) = command.take_if(|_| seen == 20) {
            commands.send(command).unwrap();
        }
    });
    graph.set_retry(None);
    graph
}

#[test]
fn a_window_that_is_closed_ends_the_run() {
    let _alone = alone();
    let before = Footprint::now();
    let compositor = Compositor::start(Behaviour::default());
    let begin = Instant::now();

    let report = with_command(&compositor, Memory::Memfd, Some(Command::Close), 10_000);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(counts(&report.graph, "source").frames < 1000, "{}", counts(&report.graph, "source"));
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!(report.restarts, 0);
    drop(report);
    drop(compositor);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_hidden_window_neither_stops_the_stream_nor_the_end() {
    let _alone = alone();
    let compositor = Compositor::start(Behaviour { hidden: true, ..Behaviour::default() });

    let report = with_command(&compositor, Memory::Memfd, None, 60);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(compositor.seen().frames, 1);
    // All that came went: one is on screen, and what the source found no buffer for it has counted itself.
    let window = counts(&report.graph, "window");
    assert_eq!(window.dropped, window.frames - 1, "{window}");
    assert!(window.frames > 10, "{window}");
}

#[test]
fn a_compositor_that_never_says_what_it_showed_does_not_stop_the_end() {
    let _alone = alone();
    let compositor = Compositor::start(Behaviour { never_tells: true, ..Behaviour::default() });
    let begin = Instant::now();

    let report = with_command(&compositor, Memory::Memfd, None, 30);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let window = counts(&report.graph, "window");
    assert_eq!((window.frames, u64::from(compositor.seen().frames)), (30, own(&report, "commits")));
    assert_eq!(own(&report, "presented"), 0);
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[test]
fn a_window_that_is_resized_shows_the_picture_in_its_new_size() {
    let _alone = alone();
    let compositor = Compositor::start(Behaviour::default());
    for (fit, shown) in [(Fit::Contain, (800, 450)), (Fit::Fill, (800, 600))] {
        let before = compositor.seen();
        let window = WaylandSink { fit, ..window_at(compositor.socket()) };

        let report = with_command_to(&compositor, window, Memory::Memfd, Some(Command::Resize(800, 600)), 60);

        assert!(report.error.is_none(), "{}", report.error.unwrap());
        let seen = compositor.seen();
        assert_eq!(seen.destination, Some(shown), "{fit:?}");
        assert_eq!(seen.source, Some([0.0, 0.0, 320.0, 180.0]));
        // The first size of the window, and the second.
        assert_eq!(seen.acknowledged, before.acknowledged + 2);
        assert_eq!((report.restarts, seen.windows), (0, before.windows + 1));
    }
}

#[test]
fn a_full_screen_window_asks_for_the_screen_and_fills_it() {
    let _alone = alone();
    let compositor = Compositor::start(Behaviour { size: (1024, 768), ..Behaviour::default() });
    let window = WaylandSink { fullscreen: true, ..window_at(compositor.socket()) };

    let report = with_command_to(&compositor, window, Memory::Memfd, None, 10);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let seen = compositor.seen();
    assert!(seen.fullscreen, "{seen:?}");
    assert_eq!(seen.destination, Some((1024, 576)));
}

/// Passes frames on with something else said of them.
struct Says(fn(&mut Frame));

impl Element for Says {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn process(&mut self, _input: usize, mut frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        (self.0)(&mut frame);
        context.push(0, frame)
    }
}

/// Ten frames of which something else is said.
fn saying(compositor: &Compositor, format: Format, says: fn(&mut Frame)) -> Report {
    let source = TestSrc { format: Some(format), ..source(Memory::Memfd) };
    let elements: [(&str, Box<dyn Element>); 3] = [
        ("source", source.build().unwrap()),
        ("says", Box::new(Says(says))),
        ("window", window_at(compositor.socket()).build().unwrap()),
    ];
    let mut graph = Graph::new("test");
    graph.set_retry(None);
    let nodes = elements.map(|(name, element)| graph.add(name, element).unwrap());
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());
    run_frames(graph, 10)
}

#[test]
fn a_part_beyond_the_buffer_is_not_shown() {
    let _alone = alone();
    let compositor = Compositor::start(Behaviour::default());

    let report = saying(&compositor, Format::Xr24, |f| {
        f.crop = Some(Rect { x: 10, y: 20, width: 10_000, height: 10_000 });
    });

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(compositor.seen().source, Some([10.0, 20.0, 310.0, 160.0]));

    let report = saying(&compositor, Format::Xr24, |f| f.crop = Some(Rect { x: 320, y: 0, width: 8, height: 8 }));

    let error = report.error.unwrap();
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Data), Some("window")));
    assert!(error.to_string().contains("outside of its buffer of 320x180"), "{error}");
}

/// The protocol's numbers.
const BT709: u32 = 2;
const BT601: u32 = 4;
const FULL: u32 = 1;
const LIMITED: u32 = 2;

#[test]
fn a_compositor_that_can_be_told_of_colours_is() {
    let _alone = alone();
    let colors = vec![(BT601, LIMITED), (BT709, LIMITED), (BT709, FULL)];
    let compositor = Compositor::start(Behaviour { colors, ..Behaviour::default() });
    let told = |format, says: fn(&mut Frame)| {
        let report = saying(&compositor, format, says);
        assert!(report.error.is_none(), "{}", report.error.unwrap());
        assert_eq!(own(&report, "miscolored"), 0);
        compositor.seen().color
    };

    let full = told(Format::Yuyv, |f| f.color = Colorimetry { matrix: Matrix::Bt709, range: Range::Full });
    assert_eq!(full, Some((BT709, FULL)));

    let usual = told(Format::Yuyv, |f| f.color = Colorimetry::default());
    assert_eq!(usual, Some((BT601, LIMITED)));

    let changing = told(Format::Yuyv, |f| {
        let matrix = if f.sequence < 5 { Matrix::Bt601 } else { Matrix::Bt709 };
        f.color = Colorimetry { matrix, range: Range::Limited };
    });
    assert_eq!(changing, Some((BT709, LIMITED)));
}

#[test]
fn nothing_is_said_of_the_matrix_of_rgb() {
    let _alone = alone();
    // It would be an error of the protocol.
    let compositor = Compositor::start(Behaviour { colors: vec![(BT709, LIMITED)], ..Behaviour::default() });

    let report = saying(&compositor, Format::Xr24, |f| {
        f.color = Colorimetry { matrix: Matrix::Bt709, range: Range::Limited };
    });

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!((compositor.seen().color, own(&report, "miscolored")), (None, 0));
}

#[test]
fn colours_that_no_compositor_guesses_are_counted_where_none_can_be_told() {
    let _alone = alone();
    let full = |f: &mut Frame| f.color = Colorimetry { matrix: Matrix::Bt601, range: Range::Full };
    for colors in [vec![], vec![(BT709, LIMITED)]] {
        let compositor = Compositor::start(Behaviour { colors, ..Behaviour::default() });

        let report = saying(&compositor, Format::Yuyv, full);

        assert!(report.error.is_none(), "{}", report.error.unwrap());
        assert_eq!(compositor.seen().color, None);
        assert_eq!(own(&report, "miscolored"), own(&report, "commits"));

        let report = saying(&compositor, Format::Yuyv, |f| f.color = Colorimetry::default());

        assert_eq!(own(&report, "miscolored"), 0);
    }
}

#[test]
fn an_error_of_the_protocol_is_named() {
    let _alone = alone();
    let compositor = Compositor::start(Behaviour { error_at: Some(5), ..Behaviour::default() });

    let report = with_command(&compositor, Memory::Memfd, None, 60);

    let error = report.error.unwrap();
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Device), Some("window")));
    assert!(error.to_string().contains("wl_surface") && error.to_string().contains("a test wants it so"), "{error}");
}

#[test]
fn a_compositor_without_windows_is_a_typed_error() {
    let _alone = alone();
    let compositor = Compositor::start(Behaviour { no_windows: true, ..Behaviour::default() });

    let report = with_command(&compositor, Memory::Memfd, None, 60);

    let error = report.error.unwrap();
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Config), Some("window")));
    assert!(error.to_string().contains("xdg_wm_base"), "{error}");
}

#[test]
fn a_dma_buf_that_is_refused_is_named() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let compositor = Compositor::start(Behaviour { refuses_from: Some(1), ..Behaviour::default() });

    let report = with_command(&compositor, Memory::Udmabuf, None, 60);

    let error = format!("{:?}", report.error.unwrap());
    assert!(error.contains("refuses XR24 320x180 with modifier LINEAR, stride 1280, offset 0"), "{error}");
    // What was refused is no advice, and there is nothing else on its list.
    assert!(error.contains("memory of another allocator may do") && !error.contains("it lists XR24"), "{error}");
}

#[test]
fn a_frame_is_one_wake_up() {
    let _alone = alone();
    const FIRST: u64 = 30;
    const LAST: u64 = 90;
    let compositor = Compositor::start(Behaviour::default());
    let waits: Arc<Mutex<Vec<i64>>> = Arc::default();
    let noted = Arc::clone(&waits);
    let mut seen = 0;
    let mut graph = graph(source(Memory::Memfd).build().unwrap(), window_at(compositor.socket()), move |_| {
        seen += 1;
        if [FIRST, LAST].contains(&seen) {
            let used = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
            noted.lock().unwrap().push(used.voluntary_context_switches());
        }
    });
    graph.set_retry(None);

    let report = run_frames(graph, 100);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let (waits, frames) = (waits.lock().unwrap(), (LAST - FIRST) as i64);
    // For the source's clock. What the compositor says of a frame would be one or two more; the watchdog's are two a second.
    let each = waits[1] - waits[0];
    assert!(each <= frames + frames / 2, "{each} for {frames} frames");
    assert_eq!(compositor.seen().frames, 100);
}

#[test]
fn of_buffers_of_which_one_is_refused_none_stays() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let compositor = Compositor::start(Behaviour { refuses_from: Some(3), ..Behaviour::default() });

    let report = with_command(&compositor, Memory::Udmabuf, None, 60);

    assert!(format!("{:?}", report.error.unwrap()).contains("refuses XR24"));
    let seen = compositor.seen_once(|s| s.destroyed == s.imports);
    assert_eq!((seen.imports, seen.destroyed), (2, 2), "{seen:?}");
}

#[test]
fn a_compositor_that_moves_to_another_device_gets_new_buffers_in_the_same_window() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let compositor = Compositor::start(Behaviour::default());

    let report = with_command(&compositor, Memory::Udmabuf, Some(Command::Move), 60);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!((report.restarts, counts(&report.graph, "source").frames), (1, 60));
    let seen = compositor.seen();
    let buffers = report.plan.links[0].stream.buffers;
    assert_eq!((seen.windows, seen.imports), (1, 2 * buffers), "{seen:?}");
    assert!(seen.frames >= 50, "{seen:?}");
    drop(report);
    drop(compositor);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_compositor_that_would_rather_have_another_modifier_is_offered_buffers_anew_once() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let compositor = Compositor::start(Behaviour::default());
    let graph = commanding(&compositor, window_at(compositor.socket()), Memory::Udmabuf, Some(Command::Prefer));
    let mut told = Vec::new();

    let report = run(graph, &RunOptions { frames: Some(40), ..RunOptions::default() }, |progress| {
        if let Progress::Retrying(why, _) = progress {
            told.push(why.to_string());
        }
        Verdict::Continue
    });

    // The source has linear memory alone, which is in the second tranche now.
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(told.iter().all(|why| why.contains("would rather have other modifiers now")), "{told:?}");
    assert_eq!((report.restarts, counts(&report.graph, "source").frames), (1, 40), "{told:?}");
    assert_eq!(report.plan.links[0].stream.modifier, Some(Modifier::LINEAR));
    let (seen, buffers) = (compositor.seen(), report.plan.links[0].stream.buffers);
    assert_eq!((seen.windows, seen.imports), (1, 2 * buffers), "{seen:?}");
}

#[test]
fn a_format_that_the_compositor_gives_up_is_negotiated_again() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let compositor = Compositor::start(Behaviour::default());

    let report = with_command(&compositor, Memory::Udmabuf, Some(Command::Forget), 60);

    // XR24 was asked for, and is not to be had any more.
    assert_eq!(report.restarts, 1);
    let error = format!("{:?}", report.error.unwrap());
    assert!(error.contains("XR24"), "{error}");
}
