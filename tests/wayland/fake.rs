//! A compositor that shows nothing and does what a test says.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use drm::control::syncobj;
use wayland_protocols::wp::color_representation::v1::server::{
    wp_color_representation_manager_v1 as color_manager, wp_color_representation_surface_v1 as color_surface,
};
use wayland_protocols::wp::linux_dmabuf::zv1::server::{
    zwp_linux_buffer_params_v1 as params, zwp_linux_dmabuf_feedback_v1 as feedback, zwp_linux_dmabuf_v1 as dmabuf,
};
use wayland_protocols::wp::linux_drm_syncobj::v1::server::{
    wp_linux_drm_syncobj_manager_v1 as syncobj_manager, wp_linux_drm_syncobj_surface_v1 as syncobj_surface,
    wp_linux_drm_syncobj_timeline_v1 as syncobj_timeline,
};
use wayland_protocols::wp::linux_explicit_synchronization::zv1::server::{
    zwp_linux_buffer_release_v1 as buffer_release, zwp_linux_explicit_synchronization_v1 as explicit_sync,
    zwp_linux_surface_synchronization_v1 as surface_sync,
};
use wayland_protocols::wp::presentation_time::server::{
    wp_presentation as presentation, wp_presentation_feedback as presentation_feedback,
};
use wayland_protocols::wp::viewporter::server::{wp_viewport as viewport, wp_viewporter as viewporter};
use wayland_protocols::xdg::shell::server::{xdg_surface, xdg_toplevel, xdg_wm_base};
use wayland_server::backend::ClientData;
use wayland_server::protocol::{wl_buffer, wl_callback, wl_compositor, wl_region, wl_shm, wl_shm_pool, wl_surface};
use wayland_server::{
    Client, DataInit, Dispatch, Display, DisplayHandle, GlobalDispatch, ListeningSocket, New, Resource,
};

use crate::explicit::{Commits, Said};
use crate::formats::{LINEAR, Tranche, X_TILED, tell};
use crate::points::{Card, Point, Points};

/// How it behaves from the start.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Offers no xdg-shell.
    pub no_windows: bool,
    /// Never asks for another frame.
    pub hidden: bool,
    /// Says "failed" to the dma-buf of this number, and all after it.
    pub refuses_from: Option<u32>,
    /// Is told by points of timelines when frames are ready, and says by others when it has done with them.
    pub timelines: bool,
    /// Is told by fences when frames are ready, and says of each commit that it has done with it.
    pub explicit_sync: bool,
    /// Offers to say when frames are shown, and never does.
    pub never_tells: bool,
    /// Matrices and ranges of YUV that it can be told of, by the protocol's numbers; none, and it knows no such protocol.
    pub colors: Vec<(u32, u32)>,
    /// The window's size from the start; 0 leaves it to the client.
    pub size: (i32, i32),
    /// Ends the connection with an error at this commit of a frame.
    pub error_at: Option<u32>,
}

/// What it does when it is told to.
#[derive(Debug)]
pub enum Command {
    /// Has the user close the window.
    Close,
    /// Has the user make the window so large.
    Resize(i32, i32),
    /// Moves to another device, and says so.
    Move,
    /// Stops taking XR24, and says so.
    Forget,
    /// Can show XR24 of another modifier without composing, and says so.
    Prefer,
    /// Has done with the frame of this number only once the fence has signalled.
    FenceRelease(u32, OwnedFd),
    Quit,
}

/// What it has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Seen {
    pub windows: u32,
    pub frames: u32,
    /// Buffers that were made.
    pub imports: u32,
    /// Of these, those that are no more.
    pub destroyed: u32,
    /// Frames that came with points of timelines.
    pub pointed: u32,
    /// Frames that came with a release of their own.
    pub synchronized: u32,
    /// Of these, those that came with a fence.
    pub fenced: u32,
    pub fullscreen: bool,
    /// Configuration that was acknowledged last.
    pub acknowledged: u32,
    /// As the last frame was committed with: the part of the buffer, and its size on screen.
    pub source: Option<[f64; 4]>,
    pub destination: Option<(i32, i32)>,
    /// Matrix and range, by the protocol's numbers.
    pub color: Option<(u32, u32)>,
}

pub struct Compositor {
    socket: PathBuf,
    commands: Sender<Command>,
    seen: Arc<Mutex<Seen>>,
    first_ready: Arc<Mutex<Option<Instant>>>,
    thread: Option<JoinHandle<()>>,
}

impl Compositor {
    pub fn start(behaviour: Behaviour) -> Compositor {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("shrbuf-fake-{}-{number}", std::process::id()));
        let listening = ListeningSocket::bind_absolute(socket.clone()).unwrap();
        let (commands, told) = channel();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let first_ready: Arc<Mutex<Option<Instant>>> = Arc::default();
        let (seen_there, first) = (Arc::clone(&seen), Arc::clone(&first_ready));
        let state = State { behaviour, seen: seen_there, first_ready: first, ..State::default() };
        let thread = Some(std::thread::spawn(move || serve(state, &listening, &told)));
        Compositor { socket, commands, seen, first_ready, thread }
    }

    pub fn socket(&self) -> String {
        self.socket.display().to_string()
    }

    pub fn commands(&self) -> Sender<Command> {
        self.commands.clone()
    }

    pub fn seen(&self) -> Seen {
        *self.seen.lock().unwrap()
    }

    /// When the first frame that is explicitly synchronized was ready to be read.
    pub fn first_ready(&self) -> Option<Instant> {
        *self.first_ready.lock().unwrap()
    }

    /// What it has seen once that is so, or after some seconds: it reads what a client sent when it comes to that.
    pub fn seen_once(&self, so: impl Fn(&Seen) -> bool) -> Seen {
        for _ in 0..5000 {
            if so(&self.seen()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.seen()
    }
}

impl Drop for Compositor {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Quit);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[derive(Default)]
struct State {
    behaviour: Behaviour,
    seen: Arc<Mutex<Seen>>,
    toplevel: Option<xdg_toplevel::XdgToplevel>,
    shell_surface: Option<xdg_surface::XdgSurface>,
    feedback: Option<feedback::ZwpLinuxDmabufFeedbackV1>,
    configured: bool,
    attached: Option<wl_buffer::WlBuffer>,
    shown: Option<wl_buffer::WlBuffer>,
    callbacks: Vec<wl_callback::WlCallback>,
    device: u8,
    asked: u32,
    /// Configurations sent.
    serial: u32,
    /// What the next commit sets.
    pending: Seen,
    points: Option<Points>,
    commits: Commits,
    first_ready: Arc<Mutex<Option<Instant>>>,
}

struct Anyone;
impl ClientData for Anyone {}

fn serve(mut state: State, socket: &ListeningSocket, told: &Receiver<Command>) {
    let mut display = Display::<State>::new().unwrap();
    let mut handle = display.handle();
    handle.create_global::<State, wl_compositor::WlCompositor, ()>(6, ());
    handle.create_global::<State, wl_shm::WlShm, ()>(1, ());
    handle.create_global::<State, dmabuf::ZwpLinuxDmabufV1, ()>(4, ());
    if !state.behaviour.no_windows {
        handle.create_global::<State, xdg_wm_base::XdgWmBase, ()>(5, ());
    }
    handle.create_global::<State, viewporter::WpViewporter, ()>(1, ());
    if state.behaviour.timelines {
        state.points = Card::find().map(Points::on);
        handle.create_global::<State, syncobj_manager::WpLinuxDrmSyncobjManagerV1, ()>(1, ());
    }
    if state.behaviour.explicit_sync {
        handle.create_global::<State, explicit_sync::ZwpLinuxExplicitSynchronizationV1, ()>(1, ());
    }
    if state.behaviour.never_tells {
        handle.create_global::<State, presentation::WpPresentation, ()>(1, ());
    }
    if !state.behaviour.colors.is_empty() {
        handle.create_global::<State, color_manager::WpColorRepresentationManagerV1, ()>(1, ());
    }
    loop {
        while let Some(stream) = socket.accept().unwrap() {
            handle.insert_client(stream, Arc::new(Anyone)).unwrap();
        }
        match told.try_recv() {
            Ok(Command::Quit) => return,
            Ok(Command::Close) => state.toplevel.as_ref().unwrap().close(),
            Ok(Command::Resize(width, height)) => state.configure(width, height),
            Ok(Command::Move) => {
                state.device += 1;
                state.tell(&[LINEAR]);
            }
            Ok(Command::Forget) => state.tell(&[&[(b"NV12", 0)]]),
            Ok(Command::Prefer) => state.tell(&[&[(b"XR24", X_TILED)], LINEAR]),
            Ok(Command::FenceRelease(frame, fence)) => drop(state.commits.fences.insert(frame, fence)),
            Err(_) => {}
        }
        display.dispatch_clients(&mut state).unwrap();
        display.flush_clients().unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl State {
    fn tell(&self, tranches: &[&Tranche]) {
        if let Some(feedback) = &self.feedback {
            tell(feedback, self.device, tranches);
        }
    }

    fn configure(&mut self, width: i32, height: i32) {
        let (Some(shell_surface), Some(toplevel)) = (&self.shell_surface, &self.toplevel) else { return };
        self.serial += 1;
        let fullscreen = u32::from(xdg_toplevel::State::Fullscreen).to_ne_bytes().to_vec();
        let states = if self.seen.lock().unwrap().fullscreen { fullscreen } else { vec![] };
        toplevel.configure(width, height, states);
        shell_surface.configure(self.serial);
    }

    fn commit(&mut self, surface: &wl_surface::WlSurface) {
        if self.toplevel.is_none() {
            return;
        }
        if !self.configured {
            self.configured = true;
            let (width, height) = self.behaviour.size;
            self.configure(width, height);
        }
        let Seen { source, destination, color, .. } = self.pending;
        let Some(buffer) = self.attached.take() else { return };
        let frames = {
            let mut seen = self.seen.lock().unwrap();
            seen.frames += 1;
            *seen = Seen { source, destination, color, ..*seen };
            seen.frames
        };
        if self.behaviour.error_at == Some(frames) {
            surface.post_error(wl_surface::Error::InvalidSize, "a test wants it so");
            return;
        }
        let pointed = self.points.as_mut().is_some_and(Points::commit);
        let said = self.commits.commit(frames);
        let synchronized = said != Said::Nothing;
        if pointed || synchronized {
            let mut seen = self.seen.lock().unwrap();
            seen.pointed += u32::from(pointed);
            seen.synchronized += u32::from(synchronized);
            seen.fenced += u32::from(said == Said::Fenced);
            self.first_ready.lock().unwrap().get_or_insert_with(Instant::now);
        }
        // Of frames with points, or a release of their own, it is said by these alone.
        if let Some(replaced) = self.shown.replace(buffer).filter(|_| !pointed && !synchronized) {
            replaced.release();
        }
        if !self.behaviour.hidden {
            self.callbacks.drain(..).for_each(|c| c.done(0));
        }
    }
}

/// Globals that say nothing when they are bound, and objects whose requests mean nothing here.
macro_rules! plain {
    (globals $($global:ty),*; objects $($object:ty),*) => {
        $(impl GlobalDispatch<$global, ()> for State {
            fn bind(_: &mut State, _: &DisplayHandle, _: &Client, new: New<$global>, _: &(), init: &mut DataInit<'_, State>) {
                init.init(new, ());
            }
        })*
        $(impl Dispatch<$object, ()> for State {
            fn request(
                _: &mut State, _: &Client, _: &$object, _: <$object as Resource>::Request, _: &(), _: &DisplayHandle,
                _: &mut DataInit<'_, State>,
            ) {}
        })*
    };
}

plain!(
    globals wl_compositor::WlCompositor, dmabuf::ZwpLinuxDmabufV1, xdg_wm_base::XdgWmBase, viewporter::WpViewporter,
        syncobj_manager::WpLinuxDrmSyncobjManagerV1, explicit_sync::ZwpLinuxExplicitSynchronizationV1;
    objects wl_region::WlRegion, wl_callback::WlCallback, feedback::ZwpLinuxDmabufFeedbackV1,
        presentation_feedback::WpPresentationFeedback, buffer_release::ZwpLinuxBufferReleaseV1
);

/// Globals with something to say: `|state, object|`.
macro_rules! global {
    ($global:ty, |$state:pat_param, $this:ident| $body:expr) => {
        impl GlobalDispatch<$global, ()> for State {
            fn bind(
                $state: &mut State,
                _: &DisplayHandle,
                _: &Client,
                new: New<$global>,
                _: &(),
                init: &mut DataInit<'_, State>,
            ) {
                let $this = init.init(new, ());
                $body
            }
        }
    };
}

global!(wl_shm::WlShm, |_, shm| {
    shm.format(wl_shm::Format::Xrgb8888);
    shm.format(wl_shm::Format::Yuyv);
});

// CLOCK_MONOTONIC.
global!(presentation::WpPresentation, |_, presentation| presentation.clock_id(1));

global!(color_manager::WpColorRepresentationManagerV1, |state, manager| {
    for &(coefficients, range) in &state.behaviour.colors {
        manager.supported_coefficients_and_ranges(
            color_surface::Coefficients::try_from(coefficients).unwrap(),
            color_surface::Range::try_from(range).unwrap(),
        );
    }
    manager.done();
});

/// Objects with requests that mean something: `|state, client, object, request, handle, init|`.
macro_rules! object {
    ($object:ty, |$state:pat_param, $client:pat_param, $this:pat_param, $request:pat_param, $handle:pat_param, $init:pat_param| $body:expr) => {
        impl Dispatch<$object, ()> for State {
            fn request(
                $state: &mut State,
                $client: &Client,
                $this: &$object,
                $request: <$object as Resource>::Request,
                _: &(),
                $handle: &DisplayHandle,
                $init: &mut DataInit<'_, State>,
            ) {
                $body
            }
        }
    };
}

object!(wl_compositor::WlCompositor, |_, _, _, request, _, init| match request {
    wl_compositor::Request::CreateSurface { id } => drop(init.init(id, ())),
    wl_compositor::Request::CreateRegion { id } => drop(init.init(id, ())),
    _ => {}
});

object!(wl_surface::WlSurface, |state, _, surface, request, _, init| match request {
    wl_surface::Request::Attach { buffer, .. } => state.attached = buffer,
    wl_surface::Request::Frame { callback } => state.callbacks.push(init.init(callback, ())),
    wl_surface::Request::Commit => state.commit(surface),
    _ => {}
});

object!(wl_shm::WlShm, |_, _, _, request, _, init| if let wl_shm::Request::CreatePool { id, .. } = request {
    init.init(id, ());
});

object!(wl_shm_pool::WlShmPool, |state, _, _, request, _, init| {
    if let wl_shm_pool::Request::CreateBuffer { id, .. } = request {
        state.seen.lock().unwrap().imports += 1;
        init.init(id, ());
    }
});

object!(xdg_wm_base::XdgWmBase, |state, _, _, request, _, init| {
    if let xdg_wm_base::Request::GetXdgSurface { id, .. } = request {
        state.configured = false;
        state.shell_surface = Some(init.init(id, ()));
    }
});

object!(xdg_surface::XdgSurface, |state, _, _, request, _, init| match request {
    xdg_surface::Request::GetToplevel { id } => {
        state.seen.lock().unwrap().windows += 1;
        state.toplevel = Some(init.init(id, ()));
    }
    xdg_surface::Request::AckConfigure { serial } => state.seen.lock().unwrap().acknowledged = serial,
    _ => {}
});

object!(xdg_toplevel::XdgToplevel, |state, _, _, request, _, _| {
    if let xdg_toplevel::Request::SetFullscreen { .. } = request {
        state.seen.lock().unwrap().fullscreen = true;
    }
});

object!(wl_buffer::WlBuffer, |state, _, _, request, _, _| {
    if let wl_buffer::Request::Destroy = request {
        state.seen.lock().unwrap().destroyed += 1;
    }
});

object!(viewporter::WpViewporter, |_, _, _, request, _, init| {
    if let viewporter::Request::GetViewport { id, .. } = request {
        init.init(id, ());
    }
});

object!(viewport::WpViewport, |state, _, _, request, _, _| match request {
    viewport::Request::SetSource { x, y, width, height } => state.pending.source = Some([x, y, width, height]),
    viewport::Request::SetDestination { width, height } => state.pending.destination = Some((width, height)),
    _ => {}
});

object!(syncobj_manager::WpLinuxDrmSyncobjManagerV1, |state, _, _, request, _, init| match request {
    syncobj_manager::Request::GetSurface { id, .. } => drop(init.init(id, ())),
    syncobj_manager::Request::ImportTimeline { id, fd } => {
        let timeline = state.points.as_ref().unwrap().import(fd.as_fd());
        init.init(id, timeline);
    }
    _ => {}
});

impl Dispatch<syncobj_timeline::WpLinuxDrmSyncobjTimelineV1, syncobj::Handle> for State {
    fn request(
        _: &mut State,
        _: &Client,
        _: &syncobj_timeline::WpLinuxDrmSyncobjTimelineV1,
        _: syncobj_timeline::Request,
        _: &syncobj::Handle,
        _: &DisplayHandle,
        _: &mut DataInit<'_, State>,
    ) {
    }
}

object!(syncobj_surface::WpLinuxDrmSyncobjSurfaceV1, |state, _, _, request, _, _| {
    let Some(points) = &mut state.points else { return };
    let point = |timeline: syncobj_timeline::WpLinuxDrmSyncobjTimelineV1, high: u32, low: u32| {
        let timeline = *timeline.data::<syncobj::Handle>().unwrap();
        Some(Point { timeline, at: u64::from(high) << 32 | u64::from(low) })
    };
    match request {
        syncobj_surface::Request::SetAcquirePoint { timeline, point_hi, point_lo } => {
            points.acquire = point(timeline, point_hi, point_lo);
        }
        syncobj_surface::Request::SetReleasePoint { timeline, point_hi, point_lo } => {
            points.release = point(timeline, point_hi, point_lo);
        }
        _ => {}
    }
});

object!(explicit_sync::ZwpLinuxExplicitSynchronizationV1, |_, _, _, request, _, init| {
    if let explicit_sync::Request::GetSynchronization { id, .. } = request {
        init.init(id, ());
    }
});

object!(surface_sync::ZwpLinuxSurfaceSynchronizationV1, |state, _, _, request, _, init| match request {
    surface_sync::Request::SetAcquireFence { fd } => state.commits.acquire = Some(fd),
    surface_sync::Request::GetRelease { release } => state.commits.release = Some(init.init(release, ())),
    _ => {}
});

object!(presentation::WpPresentation, |_, _, _, request, _, init| {
    if let presentation::Request::Feedback { callback, .. } = request {
        init.init(callback, ());
    }
});

object!(color_manager::WpColorRepresentationManagerV1, |_, _, _, request, _, init| {
    if let color_manager::Request::GetSurface { id, .. } = request {
        init.init(id, ());
    }
});

object!(color_surface::WpColorRepresentationSurfaceV1, |state, _, _, request, _, _| match request {
    color_surface::Request::SetCoefficientsAndRange { coefficients, range } => {
        state.pending.color = Some((coefficients.into(), range.into()));
    }
    color_surface::Request::Destroy => state.pending.color = None,
    _ => {}
});

object!(dmabuf::ZwpLinuxDmabufV1, |state, _, _, request, _, init| match request {
    dmabuf::Request::CreateParams { params_id } => drop(init.init(params_id, ())),
    dmabuf::Request::GetSurfaceFeedback { id, .. } => {
        state.feedback = Some(init.init(id, ()));
        state.tell(&[LINEAR]);
    }
    _ => {}
});

object!(params::ZwpLinuxBufferParamsV1, |state, client, params, request, handle, _| {
    if let params::Request::Create { .. } = request {
        state.asked += 1;
        if state.behaviour.refuses_from.is_some_and(|first| state.asked >= first) {
            return params.failed();
        }
        state.seen.lock().unwrap().imports += 1;
        params.created(&client.create_resource::<wl_buffer::WlBuffer, (), State>(handle, 1, ()).unwrap());
    }
});
