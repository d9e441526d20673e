//! What compositors do that Weston without a display never does.

use std::time::{Duration, Instant};

use shrbuf::Format;
use shrbuf_elements::Memory;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_pipeline::supervise::Report;
use shrbuf_pipeline::{Build, FailureKind, Rate};
use shrbuf_tests::{Footprint, counts, on_test_drivers, run_frames};

use crate::fake::{Behaviour, Command, Compositor};
use crate::{alone, graph, pictures, window_at};

fn source(memory: Memory) -> TestSrc {
    TestSrc { memory, format: Some(Format::Xr24), rate: Rate::new(30, 1), ..pictures() }
}

/// A run of so many frames, in which the compositor is given `command` at the twentieth.
fn with_command(compositor: &Compositor, memory: Memory, command: Option<Command>, frames: u64) -> Report {
    let commands = compositor.commands();
    let (mut seen, mut command) = (0, command);
    let mut graph = graph(source(memory).build().unwrap(), window_at(compositor.socket()), move |_| {
        seen += 1;
        if let Some(command) = command.take_if(|_| seen == 20) {
            commands.send(command).unwrap();
        }
    });
    graph.set_retry(None);
    run_frames(graph, frames)
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
    let compositor = Compositor::start(Behaviour { refuses: true, ..Behaviour::default() });

    let report = with_command(&compositor, Memory::Udmabuf, None, 60);

    let error = format!("{:?}", report.error.unwrap());
    assert!(error.contains("refuses XR24 320x180 with modifier LINEAR"), "{error}");
    assert!(error.contains("it lists XR24 with LINEAR"), "{error}");
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
