//! A compositor that shows nothing and does what a test says.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use wayland_protocols::wp::linux_dmabuf::zv1::server::{
    zwp_linux_buffer_params_v1 as params, zwp_linux_dmabuf_feedback_v1 as feedback, zwp_linux_dmabuf_v1 as dmabuf,
};
use wayland_protocols::xdg::shell::server::{xdg_surface, xdg_toplevel, xdg_wm_base};
use wayland_server::backend::ClientData;
use wayland_server::protocol::{wl_buffer, wl_callback, wl_compositor, wl_region, wl_shm, wl_shm_pool, wl_surface};
use wayland_server::{
    Client, DataInit, Dispatch, Display, DisplayHandle, GlobalDispatch, ListeningSocket, New, Resource,
};

/// How it behaves from the start.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Offers no xdg-shell.
    pub no_windows: bool,
    /// Never asks for another frame.
    pub hidden: bool,
    /// Says "failed" to every dma-buf.
    pub refuses: bool,
    /// Ends the connection with an error at this commit of a frame.
    pub error_at: Option<u32>,
}

/// What it does when it is told to.
#[derive(Debug)]
pub enum Command {
    /// Has the user close the window.
    Close,
    /// Moves to another device, and says so.
    Move,
    /// Stops taking XR24, and says so.
    Forget,
    Quit,
}

/// What it has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    pub windows: u32,
    pub frames: u32,
    pub imports: u32,
}

pub struct Compositor {
    socket: PathBuf,
    commands: Sender<Command>,
    seen: Arc<Mutex<Seen>>,
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
        let state = State { behaviour, seen: Arc::clone(&seen), ..State::default() };
        let thread = Some(std::thread::spawn(move || serve(state, &listening, &told)));
        Compositor { socket, commands, seen, thread }
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
    loop {
        while let Some(stream) = socket.accept().unwrap() {
            handle.insert_client(stream, Arc::new(Anyone)).unwrap();
        }
        match told.try_recv() {
            Ok(Command::Quit) => return,
            Ok(Command::Close) => state.toplevel.as_ref().unwrap().close(),
            Ok(Command::Move) => {
                state.device += 1;
                state.tell(&[b"XR24", b"NV12"]);
            }
            Ok(Command::Forget) => state.tell(&[b"NV12"]),
            Err(_) => {}
        }
        display.dispatch_clients(&mut state).unwrap();
        display.flush_clients().unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl State {
    /// Feedback of linear formats in one tranche.
    fn tell(&self, fourccs: &[&[u8; 4]]) {
        let Some(feedback) = &self.feedback else { return };
        let mut table = Vec::new();
        for fourcc in fourccs {
            table.extend(u32::from_le_bytes(**fourcc).to_ne_bytes());
            table.extend([0; 12]);
        }
        let path = std::env::temp_dir().join(format!("shrbuf-table-{}-{:p}", std::process::id(), self));
        File::create(&path).unwrap().write_all(&table).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let device = vec![self.device; 8];
        let indices = (0..fourccs.len() as u16).flat_map(u16::to_ne_bytes).collect();
        feedback.format_table(file.as_fd(), table.len() as u32);
        feedback.main_device(device.clone());
        feedback.tranche_target_device(device);
        feedback.tranche_flags(feedback::TrancheFlags::empty());
        feedback.tranche_formats(indices);
        feedback.tranche_done();
        feedback.done();
    }

    fn commit(&mut self, surface: &wl_surface::WlSurface) {
        let (Some(shell_surface), Some(toplevel)) = (&self.shell_surface, &self.toplevel) else { return };
        if !self.configured {
            self.configured = true;
            toplevel.configure(0, 0, vec![]);
            shell_surface.configure(1);
        }
        let Some(buffer) = self.attached.take() else { return };
        let frames = {
            let mut seen = self.seen.lock().unwrap();
            seen.frames += 1;
            seen.frames
        };
        if self.behaviour.error_at == Some(frames) {
            surface.post_error(wl_surface::Error::InvalidSize, "a test wants it so");
            return;
        }
        if let Some(replaced) = self.shown.replace(buffer) {
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
    globals wl_compositor::WlCompositor, dmabuf::ZwpLinuxDmabufV1, xdg_wm_base::XdgWmBase;
    objects wl_region::WlRegion, wl_buffer::WlBuffer, wl_callback::WlCallback, xdg_toplevel::XdgToplevel,
        feedback::ZwpLinuxDmabufFeedbackV1
);

impl GlobalDispatch<wl_shm::WlShm, ()> for State {
    fn bind(
        _: &mut State,
        _: &DisplayHandle,
        _: &Client,
        new: New<wl_shm::WlShm>,
        _: &(),
        init: &mut DataInit<'_, State>,
    ) {
        init.init(new, ()).format(wl_shm::Format::Xrgb8888);
    }
}

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

object!(xdg_surface::XdgSurface, |state, _, _, request, _, init| {
    if let xdg_surface::Request::GetToplevel { id } = request {
        state.seen.lock().unwrap().windows += 1;
        state.toplevel = Some(init.init(id, ()));
    }
});

object!(dmabuf::ZwpLinuxDmabufV1, |state, _, _, request, _, init| match request {
    dmabuf::Request::CreateParams { params_id } => drop(init.init(params_id, ())),
    dmabuf::Request::GetSurfaceFeedback { id, .. } => {
        state.feedback = Some(init.init(id, ()));
        state.tell(&[b"XR24", b"NV12"]);
    }
    _ => {}
});

object!(params::ZwpLinuxBufferParamsV1, |state, client, params, request, handle, _| {
    if let params::Request::Create { .. } = request {
        if state.behaviour.refuses {
            return params.failed();
        }
        state.seen.lock().unwrap().imports += 1;
        params.created(&client.create_resource::<wl_buffer::WlBuffer, (), State>(handle, 1, ()).unwrap());
    }
});
