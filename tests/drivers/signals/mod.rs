//! What happens on a camera's inputs: signals that change, go and come, and numbers and time stamps that wrap; and what
//! is shown meanwhile.

mod changed;
mod lost;
mod passed_on;
mod stamps;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shrbuf::{Ledger, Reason};
use shrbuf_elements::v4l2::{Device, V4l2Src};
use shrbuf_pipeline::supervise::Report;
use shrbuf_pipeline::{Context, Element, Events, Failure, Frame, Graph, Ports, Role, Start};
use shrbuf_tests::set_control;

/// The HDMI input of the first camera, without the scaler that would make one size of every signal; and what was
/// selected before.
struct Hdmi(u32);

impl Hdmi {
    const SCALING: [&str; 3] = ["enable_capture_cropping", "enable_capture_composing", "enable_capture_scaler"];

    fn select() -> Hdmi {
        let device = Device::first().unwrap();
        let before = device.input().unwrap().unwrap();
        device.select_input("HDMI 000-0").unwrap();
        Hdmi::SCALING.iter().for_each(|name| set_control(name, "false"));
        Hdmi(before)
    }

    /// As [`Hdmi::select`], with a signal of these timings.
    fn with(timings: &str) -> Hdmi {
        let hdmi = Hdmi::select();
        set_control("dv_timings_signal_mode", "Selected DV Timings");
        set_control("dv_timings", timings);
        hdmi
    }

    fn camera() -> V4l2Src {
        V4l2Src { input: Some("HDMI 000-0".into()), ..V4l2Src::default() }
    }
}

fn comes_back() {
    set_control("dv_timings_signal_mode", "Selected DV Timings");
}

/// Calls a function with each frame that goes by, and while there is none, each 50 ms with how often that was so since the
/// last: the second time all that the camera had told before has been dealt with, as this is its thread.
struct Lull<F> {
    on: F,
    times: u32,
}

enum Comes<'a> {
    Frame(&'a Frame),
    Nothing(u32),
}

impl<F: FnMut(Comes<'_>) + Send + 'static> Lull<F> {
    fn watch(on: F) -> Box<dyn Element> {
        Box::new(Lull { on, times: 0 })
    }
}

impl<F: FnMut(Comes<'_>) + Send> Element for Lull<F> {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        start.every(Duration::from_millis(50), 0)
    }

    fn ready(&mut self, _token: u32, _events: Events, _context: &mut Context<'_>) -> Result<(), Failure> {
        self.times += 1;
        (self.on)(Comes::Nothing(self.times));
        Ok(())
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        self.times = 0;
        (self.on)(Comes::Frame(&frame));
        context.push(0, frame)
    }
}

fn in_a_row<const N: usize>(elements: [(&str, Box<dyn Element>); N]) -> Graph {
    let mut graph = Graph::new("test");
    let nodes = elements.map(|(name, element)| graph.add(name, element).unwrap());
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());
    graph
}

/// What the camera itself has counted.
fn own(report: &Report, name: &str) -> u64 {
    let counts = report.graph.counts();
    let camera = counts.iter().find(|c| c.name == "camera").unwrap();
    camera.own.iter().find(|(own, _)| *own == name).unwrap().1
}

impl Drop for Hdmi {
    fn drop(&mut self) {
        set_control("dv_timings_signal_mode", "Current DV Timings");
        Hdmi::SCALING.iter().for_each(|name| set_control(name, "true"));
        Device::first().unwrap().select_input(&self.0.to_string()).unwrap();
    }
}

/// A frame, and what was drawn on it.
struct Drawn(Frame, Vec<u8>);

/// A frame that somebody holds.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Option<Drawn>>>);

impl Held {
    fn hold(&self, frame: &Frame) {
        *self.0.lock().unwrap() = Some(Drawn(frame.clone(), Held::pixels(frame)));
    }

    /// And lets go of it.
    fn assert_untouched(&self) {
        let Drawn(frame, drawn) = self.0.lock().unwrap().take().unwrap();
        assert!(Held::pixels(&frame) == drawn, "a frame that is held was written to");
    }

    fn pixels(frame: &Frame) -> Vec<u8> {
        let account = Ledger::default().account("test", Reason::Inspect);
        let layout = frame.buffer.layout();
        let (guard, row) = (frame.buffer.read().unwrap(), layout.row_bytes(0) as usize);
        let mut all = vec![0; row * layout.height as usize];
        all.chunks_exact_mut(row).enumerate().for_each(|(y, row)| guard.plane(0).read(y, 0, row, &account));
        all
    }
}
