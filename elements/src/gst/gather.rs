//! A source's first pictures, made while it is negotiated: in which memory they are, and where that is GStreamer's own,
//! all of its buffers.

use std::collections::VecDeque;
use std::time::Duration;

use gst::ClockTime;
use gst_app::AppSink;
use gst_video::VideoInfo;
use shrbuf::pool::MAX_BUFFERS;
use shrbuf::{MemoryKind, Shrbuf};
use shrbuf_gst_memory::{Gathering, Place, Seen};
use shrbuf_pipeline::{Failure, FailureKind, Timestamp};

use super::fragment::Fragment;
use super::message::{Heard, origin_of};
use super::run;

/// A fragment that plays already.
#[derive(Debug)]
pub(super) struct Begun {
    /// CLOCK_MONOTONIC at running time 0.
    pub(super) base: u64,
    /// What it has made, to come out first.
    pub(super) held: VecDeque<gst::Sample>,
    /// What it has said.
    pub(super) heard: Heard,
}

/// The memory of a frame that is not ours: of which kind, where it could be shared.
pub(super) fn kind_of(frame: &gst::BufferRef, info: &VideoInfo) -> Option<MemoryKind> {
    Place::of(frame, info, None).map(|place| place.kind())
}

/// Plays `fragment`, with running time 0 at this moment.
pub(super) fn play(fragment: &Fragment) -> Result<Begun, Failure> {
    let Timestamp(base) = Timestamp::now();
    fragment.play(base)?;
    Ok(Begun { base, held: VecDeque::new(), heard: Heard::default() })
}

impl Begun {
    /// **Blocks** until there is a picture; `None` where there is none after `longest`, or no further one.
    fn picture(
        &mut self,
        fragment: &Fragment,
        sink: &AppSink,
        longest: Duration,
    ) -> Result<Option<gst::Sample>, Failure> {
        let longest = ClockTime::try_from(longest).unwrap_or(ClockTime::SECOND);
        let sample = sink.try_pull_sample(longest);
        if sample.is_none() {
            self.heard.hear_all(&fragment.bus()?)?;
        }
        Ok(sample)
    }
}

/// The first picture of one that is live.
pub(super) fn first(fragment: &Fragment, sink: &AppSink, longest: Duration) -> Result<Begun, Failure> {
    let mut begun = play(fragment)?;
    let first = begun.picture(fragment, sink, longest)?;
    begun.held.extend(first);
    Ok(begun)
}

/// All buffers of the memory that pictures lie in.
///
/// What is not live loses nothing: `needed` frames are kept, for which it needs as many buffers, and come out first; more
/// buffers may come later. What is live goes on until one comes again, so that all have been here; what it gives until the
/// start is dropped, as of a camera that does not run yet. It may have `begun` before, with the first of these.
pub(super) fn all(
    fragment: &Fragment,
    sink: &AppSink,
    info: &VideoInfo,
    needed: usize,
    longest: Duration,
    begun: Option<Begun>,
) -> Result<(Vec<Shrbuf>, Begun), Failure> {
    let at_its_time = sink.is_sync();
    sink.set_sync(false);
    let (live, mut begun) = match begun {
        // Others do not play before they have been looked at.
        Some(begun) => (true, begun),
        None => (!fragment.reach(gst::State::Paused, longest)?, play(fragment)?),
    };
    let mut before = std::mem::take(&mut begun.held);
    let mut gathering = Gathering::default();
    let config = |what: String| Failure::new(FailureKind::Config, what);
    let enough = |gathering: &Gathering| gathering.buffers().len() >= needed;
    while !(enough(&gathering) && (!live || gathering.buffers().len() == MAX_BUFFERS)) {
        let (origin, there) = (|| origin_of(sink), gathering.buffers().len());
        let sample =
            before.pop_front().map_or_else(|| begun.picture(fragment, sink, longest), |sample| Ok(Some(sample)));
        let Some(sample) = sample? else {
            let text = if sink.is_eos() {
                format!("{} ends before its {needed} buffers have been seen; set `holds` lower", origin())
            } else {
                format!(
                    "{} gives no further picture while {there} are held, and {needed} are needed at once; set `holds` \
                     lower, have it allocate more, or set `timeout` where it is slow",
                    origin()
                )
            };
            return Err(config(text));
        };
        match sample.buffer().map_or(Seen::Not, |frame| gathering.see(frame, info, None)) {
            Seen::Again if live && enough(&gathering) => break,
            Seen::Not if there == 0 => return Err(config(format!("{}; {}", run::elsewhere(sink), run::ADVICE))),
            Seen::Not => return Err(config(format!("{} makes {there} frames alike, and then another", origin()))),
            Seen::New | Seen::Again => begun.held.push_back(sample),
        }
        if live && enough(&gathering) {
            begun.held.clear();
        }
        if begun.held.len() > 2 * MAX_BUFFERS {
            return Err(config(format!(
                "{} gives pictures in {there} buffers again and again, where {needed} are needed at once",
                origin()
            )));
        }
    }
    if live {
        begun.held.clear();
        // Only the newest until the start.
        sink.set_drop(true);
    }
    sink.set_sync(at_its_time);
    Ok((gathering.into_buffers(), begun))
}
