//! `kms-sink`: frames on a display, by atomic commits of imported buffers.

use std::path::PathBuf;
use std::sync::Arc;

use shrbuf::{Account, Format, ImportCache, Ledger, MemoryKind, Modifier, Reason, Shrbuf};
use shrbuf_pipeline::Layer as Composed;
use shrbuf_pipeline::{
    Build, BuildError, Composition, Consumes, Context, Element, Environment, Events, Failure, FailureKind, Frame,
    InputOffer, Modifiers, Origin, OutputOffer, Ports, Produces, Rates, Refusal, Role, Size, SizeOffer, Sizes, Start,
    Stream, Video, Wanted, choices, properties,
};

use super::capture::Capture;
use super::failure::{device_failed, output_failed};
use super::share;
use super::show::{FLIP_LIMIT, HOLDS, Running, TICKS};
use super::{ArrangeError, Card, DumbBuffer, FrameBuffer, Layer, Output, Placement, Planes, Spot, Writeback};

choices! {
    /// Which frame is shown when several wait.
    pub enum Order {
        /// Every one, in order.
        Fifo = "fifo",
        /// The newest; the others are dropped and counted. One that came while a flip was under way is held back for up
        /// to a refresh, in favour of the next if that is in time for the same refresh: or one frame that is early once
        /// would make every frame after it wait for the one before.
        Latest = "latest",
    }
}

properties! {
    /// Frames on a display, without a copy.
    ///
    /// Each buffer is imported once (PRIME, AddFB2 with its modifier); a frame is one atomic commit. Its buffer is let go
    /// when another has replaced it on screen, which is looked for when the next frame comes, if not before. What was on
    /// the display before comes back at the end.
    ///
    /// ```toml
    /// [element.display]
    /// type = "kms-sink"
    /// connector = "HDMI-A-1"
    /// ```
    ///
    /// Several inputs, each on a plane of the display controller, which puts them together as it scans them out: nothing
    /// is composed, and no picture is copied. Each is linked by its name, as in `path = ["camera", "display.left"]`.
    ///
    /// ```toml
    /// [element.display]
    /// type = "kms-sink"
    /// planes = { left = [0, 0, 640, 360], right = [640, 0, 640, 360] }
    /// ```
    ///
    /// All planes change in one commit a refresh, with the frames that have come by then; an input without a new one
    /// goes on showing its last, also after its end. The first commit waits for a frame of every input. Whether the
    /// hardware can do it, the driver says before anything starts (a TEST_ONLY commit of all planes). Where it cannot,
    /// negotiation has a GPU compose the inputs into one picture, and says why: a picture is made for each frame of the
    /// lowest input then, whose end is the end. Where there is none, that is refused with what stands in the way. An
    /// input whose camera is unplugged ends the run with an error that names the camera, as with one input; with a
    /// `placeholder` at that camera, the others go on beside it.
    ///
    /// Several of these may show on different displays of one card. The first is the card's DRM master, the others are
    /// leased a display each. The matrix and range of YUV frames go to planes that have COLOR_ENCODING and COLOR_RANGE.
    pub struct KmsSink = "kms-sink" {
        /// Card node, such as "/dev/dri/card0"; not set, the first with a display.
        card: Option<PathBuf> = None,
        /// Connector, such as "HDMI-A-1"; not set, the first with a display.
        connector: Option<String> = None,
        /// Size of the display's mode, such as [1920, 1080]; not set, that of the frames, or of what `planes` cover, where
        /// the display has it, else a larger one.
        mode: Option<Size> = None,
        /// Where each of several inputs is shown: [x, y, width, height] by the input's name, in pixels of the mode. More
        /// can be said as in { at = [0, 0, 640, 360], z = 1, opacity = 0.5 }: a higher z is nearer to the viewer (0;
        /// equals go by their names), and where planes can be seen through, opacity is from 0 to 1.
        planes: Planes = Planes::default(),
        /// Which frame is shown when several wait.
        order: Order = Order::Fifo,
        /// PNG of the screen with the last frame on it, through the card's writeback connector; where there is none
        /// (most cards), of the frame alone.
        screenshot: Option<PathBuf> = None,
    }
}

impl Build for KmsSink {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        Ok(Box::new(Display::new(self)))
    }
}

/// What a capture callback is given: the frame of each input that is on screen, and the screen with them, mode-sized XR24.
pub type OnCapture = Box<dyn FnMut(&[&Frame], &Shrbuf) + Send>;

impl KmsSink {
    /// The element, which also reads the screen back after every flip and shows it to `captured`. For tests of a
    /// display path; needs a writeback connector.
    pub fn build_capturing(self, captured: OnCapture) -> Box<dyn Element> {
        let mut display = Display::new(self);
        display.on_capture = Some(captured);
        Box::new(display)
    }
}

const EVENT: u32 = 0;
const WATCHDOG: u32 = 1;
const HELD: u32 = 2;
const CAPTURED: u32 = 3;
const CAPTURE_BACK: u32 = 4;

/// One input, as it was negotiated.
pub(super) struct Input {
    /// Where it is shown; `None` for one alone, which is shown as it comes.
    spot: Option<Spot>,
    pub(super) imports: ImportCache<FrameBuffer>,
    /// One of its frames, to try with, until it runs.
    sample: Option<Arc<FrameBuffer>>,
    /// It was asked for its offer since the display was found.
    offered: bool,
}

impl Input {
    fn new(spot: Option<Spot>) -> Input {
        Input { spot, imports: ImportCache::new(), sample: None, offered: false }
    }

    fn all(planes: &Planes) -> Vec<Input> {
        if planes.is_empty() {
            return vec![Input::new(None)];
        }
        planes.iter().map(|spot| Input::new(Some(spot.clone()))).collect()
    }
}

pub(super) struct Display {
    pub(super) config: KmsSink,
    name: String,
    pub(super) account: Option<Account>,
    pub(super) output: Option<Output>,
    /// From the back to the front, as `placements`.
    pub(super) inputs: Vec<Input>,
    pub(super) placements: Vec<Placement>,
    pub(super) target: Option<DumbBuffer>,
    pub(super) running: Option<Running>,
    pub(super) on_capture: Option<OnCapture>,
    /// Of `kms-capture`.
    pub(super) capture: Option<Capture>,
    /// What the first input was when planes were found for it.
    placed: Option<Stream>,
    /// The inputs come in one picture of this size.
    composed: Option<Size>,
    pub(super) flips: u64,
    /// Frames that were not committed as they came, since the flip before was still under way.
    pub(super) waited: u64,
}

/// The output called `name`, or the first with a display, on whichever card.
fn find_any(name: Option<&str>) -> Result<Output, Failure> {
    let mut refused = None;
    for card in Card::find() {
        let found = card.map_err(device_failed).and_then(|c| share::output(&c.path, name).map_err(output_failed));
        match found {
            Ok(output) => return Ok(output),
            Err(failure) => refused = refused.or(Some(failure)),
        }
    }
    let none = || {
        let what = "there is no display (no /dev/dri/card* with connectors); load its driver (`modprobe vkms` makes one up), \
                    or let a `screen-sink` stand in";
        Failure::new(FailureKind::Config, what)
    };
    Err(refused.unwrap_or_else(none))
}

impl Display {
    fn new(config: KmsSink) -> Display {
        let inputs = Input::all(&config.planes);
        Display {
            config,
            name: String::new(),
            account: None,
            output: None,
            inputs,
            placements: Vec::new(),
            target: None,
            running: None,
            on_capture: None,
            capture: None,
            placed: None,
            composed: None,
            flips: 0,
            waited: 0,
        }
    }

    /// One that is read back, and has an output for that.
    pub(super) fn capturing(config: KmsSink) -> Display {
        Display { capture: Some(Capture::default()), ..Display::new(config) }
    }

    fn find(&self) -> Result<Output, Failure> {
        let name = self.config.connector.as_deref();
        match &self.config.card {
            Some(path) => share::output(path, name).map_err(output_failed),
            None => find_any(name),
        }
    }

    /// Lets go of everything that was negotiated.
    fn forget(&mut self) {
        for input in &mut self.inputs {
            input.imports.clear();
            input.sample = None;
            input.offered = false;
        }
        if let Some(capture) = &mut self.capture {
            capture.forget();
        }
        self.placements.clear();
        self.placed = None;
        self.target = None;
        self.output = None;
    }

    /// The mode's size, where it is asked for, or where pictures are to have it.
    fn mode(&self) -> Option<(u32, u32)> {
        let captured = || self.capture.as_ref().and_then(Capture::size);
        self.config.mode.or(self.composed).map(|size| (size.width, size.height)).or_else(captured)
    }

    /// Planes for the inputs whose frames are known, which are all once the last is imported.
    fn arrange(&self) -> Result<Vec<Placement>, Refusal> {
        let Some(output) = &self.output else { return Err(Refusal::new("the display is not open")) };
        let spots: Vec<&Spot> = self.inputs.iter().filter_map(|input| input.spot.as_ref()).collect();
        if let ([], Some(frame)) = (&spots[..], &self.inputs[0].sample) {
            let found = output.plan_in(frame, self.mode()).map_err(|e| Refusal::new(e.to_string()))?;
            return Ok(found.into_iter().take(1).collect());
        }
        let places: Vec<_> = spots.iter().map(|spot| spot.at).collect();
        let layers = self.inputs.iter().filter_map(|Input { spot, sample, .. }| {
            let (spot, frame) = (spot.as_ref()?, sample.as_ref()?);
            Some(Layer { name: &spot.name, frame, at: spot.at, alpha: spot.alpha() })
        });
        let layers: Vec<Layer<'_>> = layers.collect();
        let arranged = output.modes_around(&places, self.mode()).and_then(|modes| output.arrange(&layers, &modes));
        // That `gpu` would compose them is for negotiation to find, which knows whether there is one.
        arranged.map_err(|error| match &error {
            ArrangeError::Refused { what, offer, .. } => Refusal::new(error.to_string()).instead(what.instead(offer)),
            _ => Refusal::new(error.to_string()),
        })
    }
}

impl Element for Display {
    fn ports(&self) -> Ports {
        let mut ports = if self.capture.is_some() { Ports::filter() } else { Ports::sink() };
        if !self.config.planes.is_empty() && self.composed.is_none() {
            ports.inputs = self.config.planes.iter().map(|spot| spot.name.clone()).collect();
        }
        ports
    }

    fn role(&self) -> Role {
        if self.capture.is_some() { Role::Transform } else { Role::Endpoint }
    }

    fn join(&mut self, environment: &Environment) {
        self.name.clone_from(&environment.name);
        let ledger: &Ledger = &environment.ledger;
        self.account = Some(ledger.account(&self.name, Reason::Inspect));
    }

    fn input_offer(&mut self, input: usize) -> Result<InputOffer, Failure> {
        if self.output.is_none() || self.inputs[input].offered {
            self.forget();
        }
        self.inputs[input].offered = true;
        let output = match self.output.take() {
            Some(output) => output,
            None => self.find()?,
        };
        let mut video: Vec<Video> = Vec::new();
        for plane in output.planes() {
            for (fourcc, modifiers) in plane.formats.iter() {
                let Some(format) = Format::from_drm(fourcc) else { continue };
                let modifiers: Vec<Modifier> = modifiers.iter().copied().map(Modifier).collect();
                match video.iter_mut().find(|v| v.format == format) {
                    Some(Video { modifiers: Modifiers::List(known), .. }) => {
                        known.extend(modifiers.into_iter().filter(|m| !known.contains(m)).collect::<Vec<_>>());
                    }
                    _ => video.push(Video {
                        format,
                        modifiers: Modifiers::List(modifiers),
                        // Larger and smaller than a mode may work: TEST_ONLY decides, with a real frame.
                        sizes: vec![SizeOffer { sizes: Sizes::ANY, rates: Rates::Any }],
                        plane_segments: true,
                    }),
                }
            }
        }
        let shown = self.inputs[input].spot.as_ref().map(|spot| (spot.at.width, spot.at.height)).or(self.mode());
        let mode = || output.current().or(output.preferred()).map(|m| super::output::size(&m));
        let natural = shown.or_else(mode).map(|(width, height)| Size::new(width, height));
        self.output = Some(output);
        Ok(InputOffer {
            video,
            memory: Consumes {
                kinds: vec![MemoryKind::DmaBuf],
                // And what is on the picture under way.
                holds: HOLDS + u32::from(self.capture.is_some()),
                ..Consumes::cpu()
            },
            wanted: Wanted::default(),
            natural,
        })
    }

    fn output_offer(&mut self, _output: usize, input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        let config = |what: String| Failure::new(FailureKind::Config, what);
        let output = self.output.as_ref().ok_or_else(|| config("the display is not open".to_owned()))?;
        let writeback = Writeback::find(output).map_err(device_failed)?.ok_or_else(|| {
            let (card, name) = (output.card(), output.name());
            let (path, driver) = (card.path().display(), card.driver());
            config(format!(
                "{path} ({driver}) has no writeback connector for {name}, so its screen cannot be read back; `kms-sink` \
                 shows without, and a `tee` in front of it gives the frames that are shown"
            ))
        })?;
        // Before planes are found, any mode may be the one.
        let placed = self.placements.first().filter(|_| input.is_some() && self.placed.as_ref() == input);
        let modes = match placed {
            Some(placement) => vec![placement.mode],
            None => output.usable_modes(self.mode()),
        };
        let rates = input.and_then(|stream| stream.rate).map_or(Rates::Any, |rate| Rates::List(vec![rate]));
        let sizes: Vec<SizeOffer> = modes
            .iter()
            .map(super::output::size)
            .map(|(w, h)| SizeOffer { sizes: Sizes::Exact(Size::new(w, h)), rates: rates.clone() })
            .collect();
        let formats = writeback.formats().iter().filter_map(|fourcc| Format::from_drm(*fourcc));
        Ok(OutputOffer {
            video: formats.map(|format| Video { sizes: sizes.clone(), ..Video::linear(format) }).collect(),
            memory: Produces {
                origins: vec![Origin::Dumb],
                max_stride_align: 1,
                keeps: 1,
                max_buffers: shrbuf::pool::MAX_BUFFERS as u32,
            },
            wanted: Wanted::default(),
        })
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        let (Some(capture), Some(output)) = (&mut self.capture, &self.output) else {
            return Err(Refusal::new("this element captures nothing"));
        };
        capture.allocate(output.card(), stream)
    }

    fn import(&mut self, input: usize, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        let imported = &mut self.inputs[input];
        imported.imports.clear();
        imported.sample = None;
        self.placements.clear();
        if let Some(capture) = self.capture.as_mut().filter(|_| input == 0) {
            // Made of this stream, they are made anew.
            capture.forget();
            self.placed = Some(*stream);
        }
        let Some(output) = &self.output else { return Err(Refusal::new("the display is not open")) };
        for buffer in buffers {
            let import = |b: &Shrbuf| FrameBuffer::of_shrbuf(output.card(), b);
            let frame = imported.imports.get(buffer, import).map_err(|e| Refusal::new(e.to_string()))?;
            imported.sample.get_or_insert(frame);
        }
        if imported.sample.is_none() {
            return Err(Refusal::new("there are no buffers"));
        }
        match self.arrange() {
            Ok(placements) => self.placements = placements,
            Err(refusal) => {
                self.inputs[input].sample = None;
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn composition(&self) -> Option<Composition> {
        let output = self.output.as_ref().filter(|_| self.inputs.len() > 1)?;
        let spots = || self.config.planes.iter();
        let places: Vec<_> = spots().map(|spot| spot.at).collect();
        let modes = output.modes_around(&places, self.mode()).ok()?;
        let (width, height) = super::output::size(modes.first()?);
        let layer = |Spot { at, opacity, .. }: &Spot| Composed {
            x: at.x,
            y: at.y,
            size: Size::new(at.width, at.height),
            opacity: *opacity,
        };
        Some(Composition { size: Size::new(width, height), layers: spots().map(layer).collect() })
    }

    fn take_composed(&mut self, composed: Option<&Composition>) {
        self.forget();
        self.composed = composed.map(|c| c.size);
        self.inputs = if composed.is_some() { vec![Input::new(None)] } else { Input::all(&self.config.planes) };
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let negotiated = self.output.as_ref().filter(|_| self.placements.len() == self.inputs.len());
        let Some(output) = negotiated else {
            return Err(Failure::new(FailureKind::Config, "started without a negotiated stream"));
        };
        let mut flips = start.watch_at_times(output.card().clone(), EVENT)?;
        flips.set(self.on_capture.is_some())?;
        start.every(FLIP_LIMIT / TICKS, WATCHDOG)?;
        let held = start.alarm(HELD);
        self.inputs.iter_mut().for_each(|input| input.sample = None);
        if let Some(capture) = &mut self.capture {
            capture.start(start, CAPTURED, CAPTURE_BACK, self.inputs.len())?;
        }
        self.running = Some(Running::new(self.inputs.len(), flips, held));
        Ok(())
    }

    fn ready(&mut self, token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        match token {
            EVENT => self.event(context)?,
            HELD => self.next()?,
            CAPTURED => self.captured(context)?,
            CAPTURE_BACK => self.capture.as_mut().map_or(Ok(()), Capture::reap)?,
            _ => self.watch(context)?,
        }
        self.finish_if_done(context)
    }

    fn process(&mut self, input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        self.show(input, frame, context)
    }

    fn end(&mut self, input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        self.input_ended(input)?;
        self.finish_if_done(context)
    }

    fn stop(&mut self) {
        if let Some(path) = self.config.screenshot.clone()
            && let Err(error) = self.write_screenshot(&path)
        {
            tracing::warn!(element = self.name, path = %path.display(), error, "no screenshot");
        }
        if let Some(mut running) = self.running.take() {
            if let Err(error) = self.finish_captures(&mut running) {
                tracing::warn!(element = self.name, %error, "a capture is given up");
            }
            if let Some(screen) = running.screen.take()
                && let Err(error) = screen.stop()
            {
                tracing::warn!(element = self.name, %error, "what was on the display before does not come back");
            }
        }
        self.forget();
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        report("flips", self.flips);
        report("waited", self.waited);
        if let Some(capture) = &self.capture {
            report("not-captured", capture.missed);
        }
        report("imports", self.inputs.iter().map(|input| input.imports.misses()).sum());
    }
}
