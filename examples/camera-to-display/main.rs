//! The first camera on the first display, or in a window of a desktop session; without them, a picture in a terminal:
//! `camera-to-display [SECONDS] [PICTURE.png]`

use std::{env, error::Error, path::PathBuf, process::ExitCode, time::Duration};

use shrbuf_elements::kms::{Card, KmsSink, Order};
use shrbuf_elements::v4l2::{Device, V4l2Src};
use shrbuf_elements::wayland::{self, WaylandSink};
use shrbuf_elements::{CONVERTERS, screen_sink::ScreenSink, test_src::TestSrc};
use shrbuf_pipeline::supervise::{Progress, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Copies, Element, Graph};

fn camera() -> Result<Box<dyn Element>, Box<dyn Error>> {
    match Device::first() {
        Ok(device) => {
            println!("camera:  {} ({})", device.path().display(), device.capability().card);
            Ok(V4l2Src { device: Some(device.path().display().to_string()), ..V4l2Src::default() }.build()?)
        }
        Err(why) => {
            println!("camera:  none ({why}); a test picture instead");
            Ok(TestSrc::default().build()?)
        }
    }
}

fn display(screenshot: Option<PathBuf>) -> Result<Box<dyn Element>, Box<dyn Error>> {
    // Inside a session the displays belong to its compositor.
    match wayland::compositor() {
        Ok(socket) => {
            println!("display: a window of the Wayland compositor at {}", socket.display());
            let (title, order) = (Some("camera".into()), wayland::Order::Latest);
            return Ok(WaylandSink { title, screenshot, order, ..WaylandSink::default() }.build()?);
        }
        Err(wayland::WaylandError::NoDisplay) => {}
        Err(why) => println!("display: no window ({why})"),
    }
    for card in Card::find().into_iter().flatten() {
        let Some(c) = card.connectors.iter().find(|c| c.connected && !c.writeback) else { continue };
        let name = format!("{} of {}", c.name, card.path.display());
        if card.in_use {
            println!("display: {name} is in use by another program");
            continue;
        }
        println!("display: {name} ({})", card.driver);
        // Live: a frame that came too late for its refresh is not waited for.
        return Ok(KmsSink { card: Some(card.path), screenshot, order: Order::Latest, ..KmsSink::default() }.build()?);
    }
    println!("display: none; this terminal instead");
    Ok(ScreenSink { png: screenshot, ..ScreenSink::default() }.build()?)
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let Err(error) = show() else { return ExitCode::SUCCESS };
    eprintln!("camera-to-display: {error}");
    ExitCode::FAILURE
}

fn show() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let seconds = arguments.next().map_or(Ok(10.0), |s| s.to_string_lossy().parse());
    let seconds = seconds.map_err(|_| "usage: camera-to-display [SECONDS] [PICTURE.png]")?;
    let mut graph = Graph::new("camera-to-display");
    graph.set_copies(Copies::Warn);
    let camera = graph.add("camera", camera()?)?;
    let display = graph.add("display", display(arguments.next().map(PathBuf::from))?)?;
    graph.link(camera, display)?;
    let mut options = RunOptions { duration: Some(Duration::try_from_secs_f64(seconds)?), ..RunOptions::default() };
    options.negotiate.converters = CONVERTERS;
    let report = run(graph, &options, |progress| {
        if let Progress::Negotiated(_, plan) = progress {
            plan.links.iter().for_each(|l| println!("{} → {}: {}, {}", l.from, l.to, l.stream, l.reason));
        }
        Verdict::Continue
    });
    report.graph.counts().iter().for_each(|e| println!("{}: {}", e.name, e.counts));
    println!("{} bytes copied", report.graph.ledger().copied());
    report.error.map_or(Ok(()), |error| Err(error.into()))
}
