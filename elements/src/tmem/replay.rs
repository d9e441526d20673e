//! The thread that gets: frames that are wished for go out again, while the keeper goes on putting.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shrbuf_pipeline::{Frame, Timestamp};
use tmem_cache::preroll::{Entry, Got, Next, Replays};

use super::command::Command;
use super::keeper::{Counts, Info, Shared};

/// What somebody wishes for, and the newest frame's time stamp then: moments are of the frames' own clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) command: Command,
    pub(super) now: Timestamp,
}

/// Sends what is wished for until the input has ended and every wish is fulfilled, or everything stops.
pub(super) fn run(shared: &Shared, buffers: &shrbuf::Pool, after: Duration) {
    shared.player.is_this();
    let mut replays = Replays::default();
    while !shared.stopping() {
        let drained = shared.drained.load(Ordering::Acquire);
        take_wishes(shared, after, &mut replays);
        match replays.next(&shared.preroll) {
            Next::Send(entry) => send(shared, buffers, entry),
            Next::Later if drained => replays.give_up(),
            Next::Idle if drained => {
                shared.finished.store(true, Ordering::Release);
                return shared.domain.wake();
            }
            Next::Later | Next::Idle => std::thread::park(),
        }
    }
}

/// Wishes become replays, as soon as there is a frame at all.
fn take_wishes(shared: &Shared, after: Duration, replays: &mut Replays) {
    let mut wishes = shared.wishes.lock().unwrap_or_else(PoisonError::into_inner);
    wishes.retain(|Wish { command, now }| {
        let taken = match *command {
            Command::Trigger(own) => {
                let taken = replays.trigger(&shared.preroll, now.0, own.unwrap_or(after));
                shared.counts.triggers.fetch_add(taken.into(), Ordering::Relaxed);
                taken
            }
            Command::Play { from, to } => replays.play(&shared.preroll, now.0, from, to),
        };
        // Where nothing was kept, and nothing will be, there is nothing to wait for.
        !taken && !shared.drained.load(Ordering::Acquire)
    });
}

/// Brings a frame out of the store into an idle buffer, waiting for one, and on its way.
fn send(shared: &Shared, buffers: &shrbuf::Pool, entry: Entry<Info>) {
    while !shared.stopping() {
        match shared.preroll.get(&entry, buffers) {
            Got::Frame(buffer) => {
                let Info { sequence, color, crop, corrupt } = entry.info;
                let frame = Frame { color, crop, corrupt, ..Frame::new(buffer, Timestamp(entry.at), sequence) };
                // It has room for every buffer there is.
                let _ = shared.outgoing.push(frame);
                Counts::add(&shared.counts.replayed);
                return shared.domain.wake();
            }
            // The buffers' hook wakes us.
            Got::NoBuffer => std::thread::park(),
            Got::Gone => return Counts::add(&shared.counts.missed),
        }
    }
}
