//! `test-src`: markers, pace, starvation, steady cost.

use std::sync::{Arc, Mutex};

use shrbuf::{Format, Ledger, Reason};
use shrbuf_elements::Memory;
use shrbuf_elements::convert::Convert;
use shrbuf_elements::test_src::{Pattern, TestSrc, read_marker};
use shrbuf_pipeline::{Build, Frame, Rate, Size};
use shrbuf_tests::allocations;
use shrbuf_tests::native::{Probe, SIZES, line, run_well, stream};

fn source(pattern: Pattern, free_run: bool) -> TestSrc {
    TestSrc { pattern, free_run, memory: Memory::Memfd, ..TestSrc::default() }
}

#[test]
fn every_frame_of_every_format_and_pattern_carries_its_marker() {
    for pattern in [Pattern::Bars, Pattern::Ramp, Pattern::Box, Pattern::Noise] {
        for size in SIZES {
            for format in Format::all() {
                let account = Ledger::default().account("test", Reason::Inspect);
                let mut expected = 0;
                let probe = Probe(move |frame: Frame| {
                    let marker =
                        read_marker(&frame.buffer, &account).unwrap_or_else(|e| panic!("{format} {size}: {e}"));
                    assert_eq!((u64::from(marker.frame), marker.timestamp), (frame.sequence, frame.timestamp));
                    assert_eq!(frame.sequence, expected);
                    expected += 1;
                });
                let elements = vec![source(pattern, true).build().unwrap(), Box::new(probe)];
                run_well(line(elements, &[stream(format, size)]), Some(9));
            }
        }
    }
}

#[test]
fn small_and_odd_pictures_are_drawn_too() {
    for pattern in [Pattern::Bars, Pattern::Ramp, Pattern::Box, Pattern::Noise] {
        for size in [
            Size::new(1, 1),
            Size::new(2, 7),
            Size::new(63, 5),
            Size::new(65, 8),
            Size::new(131, 17),
            Size::new(641, 33),
        ] {
            for format in Format::all() {
                let elements = vec![source(pattern, true).build().unwrap(), Box::new(Probe(drop))];
                run_well(line(elements, &[stream(format, size)]), Some(5));
            }
        }
    }
}

#[test]
fn paced_frames_come_at_equal_times() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&times);
    let probe = Probe(move |f: Frame| seen.lock().unwrap().push((f.sequence, f.timestamp.0)));
    let config = TestSrc { rate: Rate::new(200, 1), ..source(Pattern::Bars, false) };
    let stream = shrbuf_pipeline::Stream { rate: Some(Rate::new(200, 1)), ..stream(Format::Xr24, SIZES[0]) };
    run_well(line(vec![config.build().unwrap(), Box::new(probe)], &[stream]), Some(20));
    let times = times.lock().unwrap();
    let (first, start) = times[0];
    for (sequence, time) in &times[..] {
        assert_eq!(time - start, (sequence - first) * 5_000_000);
    }
}

#[test]
fn frames_without_a_buffer_are_counted_and_leave_a_gap() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&held);
    let mut sequences = Vec::new();
    let probe = Probe(move |f: Frame| {
        sequences.push(f.sequence);
        match sequences[..] {
            // Four frames are all there are.
            [.., _] if sequences.len() <= 4 => keep.lock().unwrap().push(f),
            // Then they come back at once, at least three ticks later.
            [_, _, _, last, first] => assert!(first > last + 3, "{sequences:?}"),
            _ => {}
        }
    });
    let config = TestSrc { rate: Rate::new(100, 1), ..source(Pattern::Bars, false) };
    let stream = shrbuf_pipeline::Stream { rate: Some(Rate::new(100, 1)), ..stream(Format::Xr24, SIZES[0]) };
    let graph = line(vec![config.build().unwrap(), Box::new(probe)], &[stream]);
    let mut running = shrbuf_pipeline::run::start(graph, Some(6)).unwrap_or_else(|_| panic!("start"));
    let until = |done: &dyn Fn() -> bool| {
        let begin = std::time::Instant::now();
        while !done() {
            assert!(begin.elapsed() < std::time::Duration::from_secs(20), "it does not come to that");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    };
    until(&|| held.lock().unwrap().len() == 4);
    until(&|| running.graph().counts()[0].counts.dropped > 3);
    held.lock().unwrap().clear();
    assert!(running.wait(std::time::Duration::from_secs(5)));
    assert_eq!(running.join().graph.counts()[0].counts.frames, 6);
}

#[test]
fn free_running_goes_on_when_a_buffer_comes_back_from_another_thread() {
    let (sender, receiver) = std::sync::mpsc::channel::<Frame>();
    let returns = std::thread::spawn(move || {
        receiver.into_iter().for_each(|f| {
            std::thread::sleep(std::time::Duration::from_micros(50));
            drop(f);
        });
    });
    let probe = Probe(move |f: Frame| sender.send(f).unwrap());
    let graph =
        line(vec![source(Pattern::Box, true).build().unwrap(), Box::new(probe)], &[stream(Format::Nv12, SIZES[2])]);
    let graph = run_well(graph, Some(2000));
    let counts = graph.counts();
    assert_eq!((counts[0].counts.frames, counts[0].counts.dropped), (2000, 0));
    drop(graph);
    returns.join().unwrap();
}

/// A sink that notes how often its thread has allocated between two of its frames.
fn steady(first: u64, last: u64, noted: &Arc<Mutex<Vec<u64>>>) -> Probe<impl FnMut(Frame) + Send + 'static> {
    let (noted, mut seen, mut before) = (Arc::clone(noted), 0, 0);
    Probe(move |_| {
        seen += 1;
        if seen == first {
            before = allocations();
        }
        if seen == last {
            let since = allocations() - before;
            noted.lock().unwrap().push(since);
        }
    })
}

#[test]
fn the_steady_path_allocates_nothing_with_or_without_a_conversion() {
    let noted = Arc::default();
    for pattern in [Pattern::Bars, Pattern::Box, Pattern::Noise] {
        let elements = vec![source(pattern, true).build().unwrap(), Box::new(steady(10, 110, &noted))];
        run_well(line(elements, &[stream(Format::Yuyv, SIZES[0])]), Some(120));
    }
    for (from, to) in [(Format::Yuyv, Format::Xr24), (Format::Xr24, Format::Nv12), (Format::Srggb10, Format::Rg16)] {
        let convert = Convert { memory: Memory::Memfd, ..Convert::default() }.build().unwrap();
        let elements =
            vec![source(Pattern::Bars, true).build().unwrap(), convert, Box::new(steady(10, 30, &noted)) as _];
        run_well(line(elements, &[stream(from, SIZES[0]), stream(to, SIZES[0])]), Some(40));
    }
    assert_eq!(*noted.lock().unwrap(), [0; 6]);
}

#[test]
fn everything_written_is_in_the_ledger_and_none_of_it_is_a_copy() {
    let elements = vec![source(Pattern::Bars, true).build().unwrap(), Box::new(Probe(drop))];
    let graph = run_well(line(elements, &[stream(Format::Xr24, SIZES[0])]), Some(10));
    let entries = graph.ledger().entries();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].place.as_str(), entries[0].reason), ("e0", Reason::Generate));
    assert_eq!(graph.ledger().copied(), 0);
}
