//! The thread that puts: frames leave upstream's memory here.

use std::sync::Arc;

use shrbuf::{Account, State as Filling};
use shrbuf_gst_memory::Place;

use super::run::{Incoming, Run, Shared};
use crate::lock;

/// Puts what comes in until everything stops.
pub(super) fn run(shared: &Shared, copies: &Account) {
    while let Some((run, incoming)) = next(shared) {
        let kept = put(&run, &incoming, copies);
        // Upstream has its memory again before anybody hears that it was put.
        drop(incoming);
        // The last reference is not dropped under the lock.
        drop(run);
        let mut state = shared.state();
        state.putting = false;
        match kept {
            Ok(()) => state.counts.kept += 1,
            Err(reason) => {
                state.counts.refused += 1;
                gst::debug!(gst::CAT_RUST, "shrbuftmem refused a frame: {reason}");
            }
        }
        drop(state);
        shared.changed();
    }
}

/// **Blocks** until there is one; `None` once there will be no more.
fn next(shared: &Shared) -> Option<(Arc<Run>, Incoming)> {
    let mut state = shared.state();
    loop {
        if state.stopping {
            return None;
        }
        if let Some(run) = state.run.clone()
            && let Some(incoming) = state.incoming.pop_front()
        {
            state.putting = true;
            return Some((run, incoming));
        }
        state = shared.wait(state);
    }
}

fn put(run: &Run, Incoming { frame, at, info }: &Incoming, copies: &Account) -> Result<(), String> {
    let lasts = info.duration.map_or_else(|| run.frame_time(), Into::into);
    let place = Place::of(frame, &run.video, None);
    if let Some(buffer) = place.and_then(|place| place.buffer().ok()) {
        buffer.set_state(Filling::Filled);
        return run.preroll.put(&buffer, *at, lasts, info.clone()).map_err(|e| e.to_string());
    }
    let mut scratch = lock(&run.scratch);
    shrbuf_gst_memory::copy(frame, &run.video, &mut scratch, copies).map_err(|e| e.to_string())?;
    run.preroll.put(&scratch, *at, lasts, info.clone()).map_err(|e| e.to_string())
}
