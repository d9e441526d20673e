//! `kms-sink` while it runs: frames come in, one commit for all planes goes out at each refresh, and what has left the
//! screen goes back.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shrbuf::{Access, Fence, Format, Shrbuf};
use shrbuf_pipeline::{Alarm, Colorimetry, Context, Failure, FailureKind, Frame, Timestamp, Watch};

use super::capture::Capture;
use super::failure::commit_failed;
use super::sink::{Display, Order};
use super::{CommitError, EventBuffer, Flip, FrameBuffer, Screen, Writeback, refresh_ns};

/// Longest time for a flip: far above any refresh, far below a person's patience. A display that takes longer has
/// been switched off or has lost its cable or clock, and KMS itself gives up on a flip after 10 s.
pub(super) const FLIP_LIMIT: Duration = Duration::from_millis(1500);
/// Of the watchdog, which counts them: where this thread itself was kept away it has ticked once.
type Ticks = u32;
pub(super) const TICKS: Ticks = 8;

/// Flips in a row that nobody waits for, after which they are not watched: more, and frames that come now just before a
/// refresh and now just after it would cost two calls more each time.
const UNWAITED: u32 = 8;

/// How long before a refresh a frame must come to be in time for it, as a part of the refresh.
const IN_TIME: u64 = 4;

/// Longest time for a capture: vkms composes in software, and takes a second where it is emulated and busy.
const CAPTURE_LIMIT: Duration = Duration::from_secs(20);

/// Frames of each input held on the steady path: on screen, on its way there, and one that came early.
pub(super) const HOLDS: u32 = 3;

pub(super) struct Running {
    pub(super) screen: Option<Screen>,
    events: EventBuffer,
    /// On while somebody waits for a flip. Otherwise it is read when the next frame comes, and what has left the screen
    /// goes back to the camera then: one wake-up a frame less, and [`HOLDS`] counts that frame anyway.
    flips: Watch,
    /// Flips in a row that nobody waited for.
    unwaited: u32,
    /// One for each input.
    showing: Vec<Showing>,
    /// Of a commit, the watchdog's ticks since.
    in_flight: Option<Ticks>,
    /// What the next commit changes; empty between commits.
    staged: Vec<Staged>,
    /// When the last of the frames came that wait.
    came: Timestamp,
    /// Set while a frame waits for a newer one.
    held: Alarm,
    /// No more will come.
    ending: bool,
    /// Says when the capture of the flip in flight is written.
    capture: Option<Fence>,
}

/// What an input has on screen and on the way there.
struct Showing {
    on_screen: Option<Frame>,
    in_flight: Option<Frame>,
    waiting: VecDeque<Frame>,
    /// What has left the screen, to be dropped after what is urgent: that is what queues it at the camera again.
    left: Option<Frame>,
    ended: bool,
}

/// A frame of the next commit.
struct Staged {
    layer: usize,
    frame: Arc<FrameBuffer>,
    fence: Option<Fence>,
    color: Colorimetry,
    number: u64,
}

impl Staged {
    fn flip(&self) -> (usize, Flip<'_>) {
        let in_fence = self.fence.as_ref().map(std::os::fd::AsFd::as_fd);
        (self.layer, Flip { frame: &self.frame, in_fence, color: self.color, user_data: self.number })
    }
}

impl Running {
    pub(super) fn new(inputs: usize, flips: Watch, held: Alarm) -> Running {
        let showing = || Showing {
            on_screen: None,
            in_flight: None,
            // A pool's worth, so that the steady path never grows it.
            waiting: VecDeque::with_capacity(shrbuf::pool::MAX_BUFFERS),
            left: None,
            ended: false,
        };
        Running {
            screen: None,
            events: EventBuffer::new(),
            flips,
            unwaited: 0,
            showing: (0..inputs).map(|_| showing()).collect(),
            in_flight: None,
            staged: Vec::with_capacity(inputs),
            came: Timestamp(0),
            held,
            ending: false,
            capture: None,
        }
    }

    /// Whether there is something to commit, and to begin with, of every input that still can have something.
    fn may_commit(&self) -> bool {
        let waits = |s: &Showing| !s.waiting.is_empty();
        self.in_flight.is_none()
            && self.showing.iter().any(waits)
            && (self.screen.is_some() || self.showing.iter().all(|s| waits(s) || s.ended))
    }

    fn anything_waits(&self) -> bool {
        self.showing.iter().any(|s| !s.waiting.is_empty())
    }

    /// Drops what has left the screen.
    fn let_go(&mut self) {
        self.showing.iter_mut().for_each(|s| s.left = None);
    }
}

fn late() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no capture in {CAPTURE_LIMIT:?}"))
}

fn wait_for(capture: &Fence) -> std::io::Result<()> {
    if capture.wait(CAPTURE_LIMIT)? { Ok(()) } else { Err(late()) }
}

fn device<E: Into<Box<dyn std::error::Error + Send + Sync>>>(error: E) -> Failure {
    Failure::new(FailureKind::Device, error)
}

impl Display {
    /// A frame has come.
    pub(super) fn show(&mut self, input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        self.catch_up(context)?;
        let Some(running) = &mut self.running else { return Ok(()) };
        // While another input has had none yet, this one shows none either, and need not keep more than the newest.
        let newest = self.config.order == Order::Latest || (running.screen.is_none() && running.showing.len() > 1);
        let showing = &mut running.showing[input];
        if newest {
            context.dropped(showing.waiting.len() as u64);
            showing.waiting.clear();
        }
        showing.waiting.push_back(frame);
        if running.in_flight.is_some() {
            running.came = Timestamp::now();
            running.unwaited = 0;
            running.flips.set(true)?;
            self.waited += 1;
        }
        self.next()?;
        if let Some(running) = &mut self.running {
            running.let_go();
        }
        Ok(())
    }

    /// No more frames will come to an input. What it showed last stays while others go on.
    pub(super) fn input_ended(&mut self, input: usize) -> Result<(), Failure> {
        if let Some(running) = &mut self.running {
            running.showing[input].ended = true;
            if running.showing.iter().all(|s| s.ended) {
                running.ending = true;
                running.flips.set(true)?;
            }
        }
        self.next()
    }

    /// Commits the first frame that waits of each input, unless a flip is under way.
    pub(super) fn next(&mut self) -> Result<(), Failure> {
        let Some(running) = &mut self.running else { return Ok(()) };
        if !running.may_commit() {
            return Ok(());
        }
        running.held.clear();
        self.stage()?;
        let committed =
            if self.running.as_ref().is_some_and(|r| r.screen.is_some()) { self.flip() } else { self.begin() };
        let Some(running) = &mut self.running else { return Ok(()) };
        if committed.is_ok() {
            self.flips += 1;
            running.in_flight = Some(0);
            for staged in &running.staged {
                let showing = &mut running.showing[staged.layer];
                showing.in_flight = showing.waiting.pop_front();
            }
            if let Some(capture) = &mut self.capture {
                capture.hold(running.showing.iter().filter_map(|s| s.in_flight.as_ref().or(s.on_screen.as_ref())));
            }
        }
        running.staged.clear();
        match committed {
            Ok(()) | Err(CommitError::Busy) => Ok(()),
            Err(e) => Err(commit_failed(e)),
        }
    }

    fn stage(&mut self) -> Result<(), Failure> {
        let (Some(running), Some(output)) = (&mut self.running, &self.output) else { return Ok(()) };
        running.staged.clear();
        for (layer, (input, showing)) in self.inputs.iter_mut().zip(&running.showing).enumerate() {
            let Some(frame) = showing.waiting.front() else { continue };
            let import = |b: &Shrbuf| FrameBuffer::of_shrbuf(output.card(), b);
            let imported = input.imports.get(&frame.buffer, import).map_err(device)?;
            // Whoever is still writing the buffer is waited for by the display, not by us.
            let fence = frame.buffer.export_fences(Access::Read).map_err(device)?;
            running.staged.push(Staged { layer, frame: imported, fence, color: frame.color, number: frame.sequence });
        }
        Ok(())
    }

    fn flip(&mut self) -> Result<(), CommitError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let Running { screen: Some(screen), staged, capture, .. } = running else { return Ok(()) };
        let flips = staged.iter().map(Staged::flip);
        if let Some(capture) = &mut self.capture
            && let Some((picture, target)) = capture.free()
        {
            let fence = screen.flip_all_and_capture(flips, target)?;
            let refused = |source| CommitError::Refused { what: "a watch for a capture".to_owned(), source };
            return capture.began(picture, fence, self.flips).map_err(refused);
        }
        match &self.target {
            Some(target) if self.on_capture.is_some() => {
                *capture = Some(screen.flip_all_and_capture(flips, target.frame())?);
                Ok(())
            }
            _ => screen.flip_all(flips),
        }
    }

    /// The first commit, with a change of mode.
    #[cold]
    fn begin(&mut self) -> Result<(), CommitError> {
        let (Some(running), Some(output)) = (&mut self.running, &self.output) else { return Ok(()) };
        let into_target = self.on_capture.is_some() || self.config.screenshot.is_some();
        let writeback = if into_target || self.capture.is_some() { Writeback::find(output)? } else { None };
        if let (Some(writeback), Some(placement), true) = (&writeback, self.placements.first(), into_target) {
            let target = writeback.target(output, placement, Format::Xr24.drm().unwrap_or_default());
            let refused = |e| CommitError::Refused { what: "a capture".to_owned(), source: std::io::Error::other(e) };
            self.target = Some(target.map_err(refused)?);
        }
        let flips = running.staged.iter().map(Staged::flip);
        running.screen = Some(Screen::start_all(output, &self.placements, writeback, flips)?);
        Ok(())
    }

    /// The flips that are over; when the last of them was on screen.
    fn flipped(&mut self, context: &mut Context<'_>) -> Result<Option<u64>, Failure> {
        let (Some(running), Some(output)) = (&mut self.running, &self.output) else { return Ok(None) };
        let Running { events, screen, in_flight, showing, capture, .. } = running;
        let mine = |crtc: Option<_>| screen.as_ref().is_some_and(|s| crtc.is_none_or(|c| c == s.crtc()));
        let mut at = None;
        for event in output.card().read_events(events).map_err(device)? {
            if !mine(event.crtc) || in_flight.take().is_none() {
                continue;
            }
            at = Some(event.time_ns);
            if let Some(capture) = &mut self.capture {
                capture.on_screen(Timestamp(event.time_ns));
            }
            for showing in showing.iter_mut() {
                let Some(frame) = showing.in_flight.take() else { continue };
                context.shown(frame.timestamp, Timestamp(event.time_ns));
                showing.left = showing.on_screen.replace(frame);
            }
            if let (Some(fence), Some(target), Some(captured)) = (capture.take(), &self.target, &mut self.on_capture) {
                wait_for(&fence).map_err(device)?;
                let frames: Vec<&Frame> = showing.iter().filter_map(|s| s.on_screen.as_ref()).collect();
                captured(&frames, target.buffer());
            }
        }
        Ok(at)
    }

    /// What the display had to say. Watched on while now and then somebody waits.
    pub(super) fn event(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let flipped = self.flipped(context)?;
        if let (Some(running), Some(_)) = (&mut self.running, flipped) {
            let waited = running.ending || running.anything_waits() || self.on_capture.is_some();
            running.unwaited = if waited { 0 } else { running.unwaited + 1 };
            running.flips.set(running.unwaited < UNWAITED)?;
        }
        if !flipped.is_some_and(|at| self.holds_back(at)) {
            self.next()?;
        }
        if let Some(running) = &mut self.running {
            running.let_go();
        }
        Ok(())
    }

    /// The flips that nobody has watched for.
    fn catch_up(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        match &self.running {
            Some(r) if r.in_flight.is_some() && !r.flips.is_on() => self.flipped(context).map(drop),
            _ => Ok(()),
        }
    }

    /// Whether the frame that waits is to wait on for a newer one, after a flip at `flipped`. At the display's rate that
    /// comes a refresh after this one, and so as long before the next flip. Several inputs have no one rate.
    fn holds_back(&self, flipped: u64) -> bool {
        let (Some(running), [placement]) = (&self.running, &self.placements[..]) else { return false };
        let Some(refresh) = refresh_ns(&placement.mode) else { return false };
        let in_time = Timestamp(flipped).since(running.came) >= refresh / IN_TIME;
        if self.config.order != Order::Latest || !running.anything_waits() || running.ending || !in_time {
            return false;
        }
        running.held.set(Timestamp(flipped + refresh));
        true
    }

    /// The watchdog.
    pub(super) fn watch(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        self.catch_up(context)?;
        let Some(running) = &mut self.running else { return Ok(()) };
        running.let_go();
        if let Some(ticks) = &mut running.in_flight {
            *ticks += 1;
            if *ticks > TICKS {
                let pending =
                    running.showing.iter().filter_map(|s| s.in_flight.as_ref()).any(|f| f.buffer.has_fences());
                let why = if pending { "; the frame's producer may not have signalled its fence" } else { "" };
                let text = format!("a flip has not completed for {FLIP_LIMIT:.1?}: the display is off or gone{why}");
                return Err(Failure::new(FailureKind::Stalled, text));
            }
        }
        // A flip that was refused as busy though none of ours is under way is tried again.
        self.next()
    }

    /// A picture of the screen may be written.
    pub(super) fn captured(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        // The flip's event, which says when it was on screen, may be no sooner seen than this.
        if self.running.as_ref().is_some_and(|r| r.in_flight.is_some()) {
            self.flipped(context)?;
        }
        let picture = self.capture.as_mut().map_or(Ok(None), Capture::written)?;
        self.next()?;
        if let Some(running) = &mut self.running {
            running.let_go();
        }
        picture.map_or(Ok(()), |picture| context.push(0, picture))
    }

    pub(super) fn finish_if_done(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let done = |r: &Running| r.ending && r.in_flight.is_none() && !r.anything_waits();
        if self.running.as_ref().is_some_and(done) && self.capture.as_ref().is_none_or(Capture::is_idle) {
            return context.end_all();
        }
        Ok(())
    }

    /// Waits for captures under way: vkms goes on writing one after its mode has changed, past the end of it.
    pub(super) fn finish_captures(&mut self, running: &mut Running) -> std::io::Result<()> {
        if let Some(capture) = &mut self.capture
            && !capture.finish(CAPTURE_LIMIT)?
        {
            return Err(late());
        }
        running.capture.take().map_or(Ok(()), |fence| wait_for(&fence))
    }

    pub(super) fn write_screenshot(&mut self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let (Some(running), Some(account)) = (&mut self.running, &self.account) else { return Ok(()) };
        let card = running.screen.as_ref().map(|s| s.card().clone());
        let on_screen = || running.showing.iter().enumerate().filter_map(|(i, s)| Some((i, s.on_screen.as_ref()?)));
        let Some((_, first)) = on_screen().next() else { return Ok(()) };
        let (Some(screen), Some(target), Some(card)) = (&mut running.screen, &self.target, card) else {
            return match running.showing.len() {
                1 => Ok(crate::image::write_png(path, &first.buffer, first.color, account)?),
                _ => Err("the card has no writeback connector, which a picture of several planes takes".into()),
            };
        };
        let mut staged = Vec::new();
        for (layer, frame) in on_screen() {
            let imported = self.inputs[layer].imports.get(&frame.buffer, |b| FrameBuffer::of_shrbuf(&card, b))?;
            staged.push(Staged { layer, frame: imported, fence: None, color: frame.color, number: 0 });
        }
        let fence = screen.flip_all_and_capture(staged.iter().map(Staged::flip), target.frame())?;
        wait_for(&fence)?;
        Ok(crate::image::write_png(path, target.buffer(), Colorimetry::default(), account)?)
    }
}
