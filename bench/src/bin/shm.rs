//! The peer of `crossing` in GStreamer: `shmsink ! shmsrc`, a frame at each tick, written and read by nobody but for a stamp.
//!
//! `shm send SOCKET BYTES FRAMES` and `shm receive SOCKET FRAMES`; the latter prints its one-way latency. The memory of
//! `fakesrc` is not `shmsink`'s own, as a camera's is not, so `shmsink` copies each frame into its own.

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use shrbuf_bench::Result;
use shrbuf_bench::pace::{latency, timer};
use shrbuf_pipeline::Timestamp;

/// Calls `f` with each buffer that comes to the element called `name`, before the element has it.
fn each(pipeline: &gst::Pipeline, name: &str, mut f: impl FnMut(&mut gst::Buffer) + Send + 'static) -> Result<()> {
    let pad = pipeline.by_name(name).and_then(|e| e.static_pad("sink")).ok_or("no such pad")?;
    let f = Mutex::new(move |buffer: &mut gst::Buffer| f(buffer));
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data
            && let Ok(mut f) = f.lock()
        {
            f(buffer);
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

fn launch(text: &str) -> Result<gst::Pipeline> {
    gst::init()?;
    gst::parse::launch(text)?.downcast().map_err(|_| "not a pipeline".into())
}

/// Plays to the end.
fn play(pipeline: &gst::Pipeline) -> Result<()> {
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().ok_or("a pipeline without a bus")?;
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let last = bus.timed_pop_filtered(gst::ClockTime::NONE, &kinds);
    pipeline.set_state(gst::State::Null)?;
    match last.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Error(error)) => Err(error.error().into()),
        _ => Ok(()),
    }
}

fn send(socket: &str, bytes: u64, frames: u64) -> Result<()> {
    let pipeline = launch(&format!(
        "fakesrc num-buffers={frames} sizetype=fixed sizemax={bytes} filltype=nothing ! \
         shmsink name=out socket-path={socket} shm-size={} wait-for-connection=false sync=false",
        bytes * 8
    ))?;
    let timer = timer()?;
    each(&pipeline, "out", move |buffer| {
        // Without a tick there is no stamp, which the other side would not take for one.
        if timer.wait().is_ok()
            && let Some(buffer) = buffer.get_mut()
            && let Ok(mut map) = buffer.map_writable()
        {
            map[..8].copy_from_slice(&Timestamp::now().0.to_ne_bytes());
        }
    })?;
    play(&pipeline)
}

fn receive(socket: &str, frames: u64) -> Result<()> {
    let pipeline = launch(&format!("shmsrc socket-path={socket} num-buffers={frames} ! fakesink name=in sync=false"))?;
    let ages = Arc::new(Mutex::new(Vec::with_capacity(frames as usize)));
    let noted = Arc::clone(&ages);
    each(&pipeline, "in", move |buffer| {
        let now = Timestamp::now();
        let mut stamp = [0; 8];
        if buffer.copy_to_slice(0, &mut stamp).is_ok()
            && let Ok(mut ages) = noted.lock()
        {
            ages.push(now.since(Timestamp(u64::from_ne_bytes(stamp))));
        }
    })?;
    play(&pipeline)?;
    let ages = std::mem::take(&mut *ages.lock().map_err(|_| "a probe panicked")?);
    println!("{}", latency(ages));
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["send", socket, bytes, frames] => send(socket, bytes.parse()?, frames.parse()?),
        ["receive", socket, frames] => receive(socket, frames.parse()?),
        _ => Err("usage: shm send SOCKET BYTES FRAMES | receive SOCKET FRAMES".into()),
    }
}
