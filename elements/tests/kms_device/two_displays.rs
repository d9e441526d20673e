//! Two displays of one card, with a CRTC each: QEMU's virtio-gpu, which imports no dma-bufs, so frames are its own.
//!
//! `scripts/test-guest "two displays"`. Elsewhere the tests say so and pass.

use shrbuf_elements::kms::KmsSink;
use shrbuf_pipeline::supervise::{RunOptions, Verdict, run};
use shrbuf_pipeline::{
    Build, Context, Element, Events, Failure, Frame, Graph, Origin, OutputOffer, Ports, Produces, Refusal, Start,
    Stream, Timestamp, Video, Wanted,
};

use crate::*;

/// A card with two displays, the second forced on: nobody looks at QEMU's screens.
fn two_displays() -> Option<Card> {
    let found = Card::find().into_iter().flatten().find(|card| card.driver == "virtio_gpu");
    let Some(found) = found else {
        assert!(std::env::var_os("SHRBUF_REQUIRE_TWO_DISPLAYS").is_none(), "virtio-gpu is required and missing");
        println!("needs virtio-gpu: run through guest/run");
        return None;
    };
    let number = found.path.file_name().unwrap().to_str().unwrap().to_owned();
    for name in ["Virtual-1", "Virtual-2"] {
        std::fs::write(format!("/sys/class/drm/{number}-{name}/status"), "on").unwrap();
    }
    Some(Card::open(found.path).unwrap())
}

/// So many flips one after the other; how many events of other displays came between.
fn flips(card: &Card, name: &str, count: u64) -> usize {
    let output = Output::find(card, Some(name)).unwrap();
    let (width, height) = output.preferred().map(|m| m.size()).unwrap();
    let frames: Vec<DumbBuffer> =
        (0..2).map(|_| DumbBuffer::new(card, width.into(), height.into(), XR24).unwrap()).collect();
    let screen = Screen::start(&output, &exact(&output, frames[0].frame()), None, &flip(frames[0].frame(), 0));
    let mut screen = screen.unwrap();
    let mut buffer = EventBuffer::new();
    let mut foreign = usize::from(next_event(card, &mut buffer).crtc != Some(screen.crtc()));
    for i in 1..=count {
        screen.flip(&flip(frames[i as usize % 2].frame(), i)).unwrap();
        let event = next_event(card, &mut buffer);
        assert_eq!(event.user_data, i);
        foreign += usize::from(event.crtc != Some(screen.crtc()));
    }
    screen.stop().unwrap();
    foreign
}

#[test]
fn two_displays_of_one_card_flip_side_by_side() {
    let Some(card) = two_displays() else { return };
    let fds = open_fds();
    let second = Output::find(&card, Some("Virtual-2")).unwrap();
    assert_ne!(second.crtc(), Output::find(&card, Some("Virtual-1")).unwrap().crtc());
    let lease = card.lease(&second).unwrap();
    let names: Vec<String> = lease.connectors().unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["Virtual-2"], "a lease knows no other display");

    let foreign = std::thread::scope(|scope| {
        let other = scope.spawn(|| flips(&lease, "Virtual-2", 300));
        (flips(&card, "Virtual-1", 300), other.join().unwrap())
    });

    assert_eq!(foreign, (0, 0), "events come where their display is driven");
    drop((second, lease));
    assert_eq!((card.gem_handles(), open_fds()), (0, fds));
}

/// Frames in the card's own memory, one each 10 ms.
struct Source {
    card: Card,
    frames: Vec<DumbBuffer>,
    sent: u64,
}

impl Element for Source {
    fn ports(&self) -> Ports {
        Ports::source()
    }

    fn output_offer(&mut self, _output: usize, _input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        let memory = Produces { origins: vec![Origin::Dumb], max_stride_align: 1, keeps: 1, max_buffers: 16 };
        Ok(OutputOffer { video: vec![Video::linear(Format::Xr24)], memory, wanted: Wanted::default() })
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        let (width, height) = (stream.size.width, stream.size.height);
        let make = |_| DumbBuffer::new(&self.card, width, height, XR24).unwrap();
        self.frames = (0..stream.buffers).map(make).collect();
        Ok(self.frames.iter().map(|f| f.buffer().clone()).collect())
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        start.every(Duration::from_millis(10), 0)?;
        Ok(())
    }

    fn ready(&mut self, _token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        let buffer = self.frames[self.sent as usize % self.frames.len()].buffer().clone();
        self.sent += 1;
        context.push(0, Frame::new(buffer, Timestamp::now(), self.sent))
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

#[test]
fn two_displays_of_one_card_are_two_sinks_in_one_pipeline() {
    const FRAMES: u64 = 100;
    let Some(card) = two_displays() else { return };
    drm::Device::release_master_lock(&card).unwrap();
    let fds = open_fds();
    let mut graph = Graph::new("two displays");
    for connector in ["Virtual-1", "Virtual-2"] {
        let source = Box::new(Source { card: card.clone(), frames: Vec::new(), sent: 0 });
        let sink = KmsSink { connector: Some(connector.to_owned()), ..KmsSink::default() };
        let source = graph.add(&format!("for-{connector}"), source).unwrap();
        let sink = graph.add(connector, sink.build().unwrap()).unwrap();
        graph.link(source, sink).unwrap();
    }

    let options = RunOptions { frames: Some(FRAMES), ..RunOptions::default() };
    let report = run(graph, &options, |_| Verdict::Continue);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    for connector in ["Virtual-1", "Virtual-2"] {
        let counts = report.graph.counts().into_iter().find(|c| c.name == connector).unwrap();
        let flips = counts.own.iter().find(|(name, _)| *name == "flips").unwrap().1;
        assert_eq!((counts.counts.frames, flips, counts.counts.dropped), (FRAMES, FRAMES, 0), "{connector}");
    }
    drop(report);
    assert_eq!((card.gem_handles(), open_fds()), (0, fds));
}
