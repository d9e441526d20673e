//! Pipelines on vivid and vkms, in the virtual machine.

mod colors;
mod composed;
mod endurance;
mod faults;
mod fences;
mod gpu;
mod limits;
mod m2m;
mod mplane;
mod negotiation;
mod output;
mod pixels;
mod planes;
mod processes;
mod properties;
mod signals;
#[path = "../../shrbuf/tests/common/vgem.rs"]
mod vgem;

use shrbuf_pipeline::supervise::{Error, Report};
use shrbuf_pipeline::{Failure, Graph};
use shrbuf_tests::{Footprint, counts, run_frames};

fn failure(report: &Report) -> &Failure {
    match &report.error {
        Some(Error::Element(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

/// Streams again, and leaves as much behind as before.
fn streams_again(graph: Graph, before: &Footprint) {
    let frames = counts(&graph, "display").frames;
    let report = run_frames(graph, frames + 30);
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    drop(report);
    assert_eq!(&Footprint::settled(before), before);
}
