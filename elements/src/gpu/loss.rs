//! A GPU that is lost in mid-stream. The context is made to say so, as none of a renderer on the CPU ever does.

use std::time::Duration;

use shrbuf::exporter::Udmabuf;
use shrbuf_pipeline::supervise::{Error, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Graph, Rate};
use shrbuf_tests::Watch;

use super::*;
use crate::null_sink::NullSink;
use crate::test_src::TestSrc;

const SIZE: Size = Size::new(64, 36);

/// True where there are dma-bufs; elsewhere than in the virtual machine a test may have none, and says so.
pub(super) fn on_dma_bufs() -> bool {
    let there = Udmabuf::open("test").is_ok();
    if !there {
        assert!(std::env::var_os("SHRBUF_REQUIRE_DRIVERS").is_none(), "udmabuf is required and missing");
        println!("needs udmabuf: scripts/test-guest runs this in the virtual machine");
    }
    there
}

pub(super) fn software() -> GpuElement {
    let config = Gpu { device: Some("software".into()), format: Some(Format::Xr24), ..Gpu::default() };
    GpuElement::new(config).unwrap()
}

/// A run in which the GPU is lost before the frame of this number, once.
fn losing(at: u32, retry: Option<Duration>) -> Report {
    let source = TestSrc { size: SIZE, format: Some(Format::Yuyv), rate: Rate::new(100, 1), ..TestSrc::default() };
    let mut element = software();
    let first = Arc::downgrade(&element.device().unwrap());
    let mut frames = 0;
    let watch = Watch::new(move |_| {
        if frames == at {
            first.upgrade().unwrap().context.lose();
        }
        frames += 1;
    });
    let mut graph = Graph::new("test");
    graph.set_retry(retry);
    let source = graph.add("source", source.build().unwrap()).unwrap();
    let watch = graph.add("watch", watch).unwrap();
    let gpu = graph.add("gpu", Box::new(element)).unwrap();
    let sink = graph.add("sink", NullSink {}.build().unwrap()).unwrap();
    [(source, watch), (watch, gpu), (gpu, sink)].into_iter().for_each(|(from, to)| graph.link(from, to).unwrap());
    run(graph, &RunOptions { frames: Some(30), ..RunOptions::default() }, |_| Verdict::Continue)
}

#[test]
fn a_lost_gpu_is_a_device_error_that_says_so() {
    if !on_dma_bufs() {
        return;
    }
    let report = losing(10, None);
    let Some(Error::Element(failure)) = &report.error else { panic!("{:?}", report.error) };
    assert_eq!((failure.kind(), failure.element()), (FailureKind::Device, Some("gpu")));
    assert!(failure.to_string().contains("the GPU was reset or is gone"), "{failure}");
}

#[test]
fn with_retry_it_streams_again_in_a_new_context() {
    if !on_dma_bufs() {
        return;
    }
    let report = losing(10, Some(Duration::from_secs(20)));
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(report.restarts, 1);
    let sink = report.graph.counts().into_iter().find(|c| c.name == "sink").unwrap().counts;
    // All but the one with which it was lost, and those for which there was no buffer.
    assert!((11..30).contains(&sink.frames), "{} frames", sink.frames);
}

#[test]
fn a_gpu_lost_between_two_runs_is_replaced_when_the_next_is_negotiated() {
    if !on_dma_bufs() {
        return;
    }
    let mut element = software();
    let stream = |format, origin| Stream {
        format,
        modifier: Some(Modifier::LINEAR),
        size: SIZE,
        rate: None,
        origin,
        stride_align: 1,
        block: None,
        plane_segments: false,
        read_only: false,
        buffers: 3,
    };
    let (from, to) = (stream(Format::Yuyv, Origin::Udmabuf), stream(Format::Xr24, Origin::Udmabuf));
    let source = crate::memory::allocate(&from, "source").unwrap();
    element.import(0, &from, &source).unwrap();
    let first = element.device().unwrap();
    first.context.lose();

    element.allocate(0, &to).unwrap();

    let second = element.device().unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    // And what had been imported into the first is not taken for something in the second.
    second.context.lose();
    element.import(0, &from, &source).unwrap();
    let third = element.device().unwrap();
    assert!(!Arc::ptr_eq(&second, &third));
    // And one that found out.
    assert_eq!(element.inputs[0].imports.misses(), 3 + 1 + 3);
    assert_eq!(third.context.with(|current| current.check("all")).map_err(|e| e.to_string()), Ok(()));
}

#[test]
fn a_gpu_that_does_not_come_back_is_unplugged() {
    let mut element = software();
    element.lose();
    element.config.device = Some("/dev/dri/renderD999".into());
    let failure = element.input_offer(0).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Unplugged);
    assert!(failure.to_string().contains("the GPU that was lost is not back: no GPU can be used"), "{failure}");
}
