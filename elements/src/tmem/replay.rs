//! The thread that gets: frames that are wished for go out again, while the keeper goes on putting.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shrbuf_pipeline::{Frame, Timestamp};
use tmem_cache::store::GetError;

use super::command::Command;
use super::keeper::{Counts, Shared, handle};
use super::timeline::Entry;

/// What somebody wishes for, and the newest frame's time stamp then: moments are of the frames' own clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) command: Command,
    pub(super) now: Timestamp,
}

/// A replay under way.
#[derive(Debug, Clone, Copy)]
struct Job {
    /// What was sent last; before the first, where to begin.
    last: Cursor,
    /// The last moment that belongs to it.
    until: Timestamp,
    backward: bool,
    /// Of a trigger: another one that comes meanwhile extends it.
    triggered: bool,
}

#[derive(Debug, Clone, Copy)]
enum Cursor {
    Begin(Timestamp),
    Sent(u64),
}

/// What a job has next.
enum Next {
    Send(Entry),
    /// It goes on when more has been put.
    Later,
    Over,
}

/// Sends what is wished for until the input has ended and every wish is fulfilled, or everything stops.
pub(super) fn run(shared: &Shared, buffers: &shrbuf::Pool, after: Duration) {
    shared.player.is_this();
    let mut jobs: Vec<Job> = Vec::new();
    while !shared.stopping() {
        let drained = shared.drained.load(Ordering::Acquire);
        take_wishes(shared, after, &mut jobs);
        let Some(job) = jobs.first_mut() else {
            shared.needed.store(u64::MAX, Ordering::Release);
            if drained {
                shared.finished.store(true, Ordering::Release);
                return shared.domain.wake();
            }
            std::thread::park();
            continue;
        };
        match next(shared, job) {
            Next::Send(entry) => {
                send(shared, buffers, entry);
                job.last = Cursor::Sent(entry.number);
            }
            Next::Later if !drained => std::thread::park(),
            Next::Later | Next::Over => drop(jobs.remove(0)),
        }
    }
}

/// Wishes become jobs, as soon as there is a frame at all.
fn take_wishes(shared: &Shared, after: Duration, jobs: &mut Vec<Job>) {
    let mut wishes = shared.wishes.lock().unwrap_or_else(PoisonError::into_inner);
    if wishes.is_empty() {
        return;
    }
    let oldest = shared.timeline().oldest();
    let Some(oldest) = oldest else {
        if shared.drained.load(Ordering::Acquire) {
            // Nothing was kept, and nothing will be.
            wishes.clear();
        }
        return;
    };
    for Wish { command, now } in wishes.drain(..) {
        // Before the first frame, the first frame.
        let now = now.max(oldest.timestamp);
        let ago = |duration: Duration| Timestamp(now.0.saturating_sub(nanoseconds(duration)));
        match command {
            Command::Trigger(own) => {
                Counts::add(&shared.counts.triggers);
                let until = Timestamp(now.0.saturating_add(nanoseconds(own.unwrap_or(after))));
                match jobs.iter_mut().find(|job| job.triggered) {
                    Some(job) => job.until = job.until.max(until),
                    None => {
                        let last = Cursor::Begin(oldest.timestamp);
                        jobs.push(Job { last, until, backward: false, triggered: true });
                    }
                }
            }
            Command::Play { from, to } => {
                let backward = to > from;
                let begin =
                    if backward { ago(from) } else { shared.timeline().at(ago(from)).unwrap_or(oldest).timestamp };
                jobs.push(Job { last: Cursor::Begin(begin), until: ago(to), backward, triggered: false });
            }
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn next(shared: &Shared, job: &Job) -> Next {
    let timeline = shared.timeline();
    let found = match (job.last, job.backward) {
        (Cursor::Begin(time), false) => timeline.from(time),
        (Cursor::Begin(time), true) => timeline.at(time),
        (Cursor::Sent(number), false) => timeline.after(number),
        (Cursor::Sent(number), true) => timeline.before(number),
    };
    let (least, next) = match found {
        Some(entry) if job.backward && entry.timestamp >= job.until => {
            (timeline.oldest().map_or(entry.number, |oldest| oldest.number), Next::Send(entry))
        }
        Some(entry) if !job.backward && entry.timestamp <= job.until => (entry.number, Next::Send(entry)),
        None if !job.backward && timeline.newest().is_some_and(|newest| newest.timestamp < job.until) => {
            (u64::MAX, Next::Later)
        }
        _ => (u64::MAX, Next::Over),
    };
    // While the timeline is held, so that nothing that is about to be sent expires.
    shared.needed.store(least, Ordering::Release);
    next
}

/// Brings a frame out of the store into an idle buffer, waiting for one, and on its way.
fn send(shared: &Shared, buffers: &shrbuf::Pool, entry: Entry) {
    loop {
        if shared.stopping() {
            return;
        }
        match shared.pool.get_from(handle(entry.number), buffers) {
            Ok(Some((buffer, _))) => {
                let Entry { timestamp, sequence, color, crop, corrupt, .. } = entry;
                let frame = Frame { color, crop, corrupt, ..Frame::new(buffer, timestamp, sequence) };
                // It has room for every buffer there is.
                let _ = shared.outgoing.push(frame);
                Counts::add(&shared.counts.replayed);
                return shared.domain.wake();
            }
            // The buffers' hook wakes us.
            Err(GetError::NoBuffer) => std::thread::park(),
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, entry.number, "lost");
                break;
            }
        }
    }
    shared.timeline().remove(entry.number);
    Counts::add(&shared.counts.missed);
}
