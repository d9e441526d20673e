//! Elements of GStreamer's for tests: a source that brings memory of its own, as cameras and decoders do, and one that
//! notes what passes.

use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_video::VideoInfo;
use shrbuf::exporter::{Exporter, Memfd, Udmabuf};
use shrbuf::{Layout, MemoryKind};
use shrbuf_gst_memory::{FdMemories, dma_buf, video};

pub const SIZE: (u32, u32) = (64, 48);

/// Memories of sources that are there: each is gone when GStreamer and all frames are.
static MEMORIES: AtomicUsize = AtomicUsize::new(0);

pub fn memories() -> usize {
    MEMORIES.load(Ordering::Relaxed)
}

/// Times that a source was started.
static STARTS: AtomicUsize = AtomicUsize::new(0);

/// Since the last call.
pub fn starts() -> usize {
    STARTS.swap(0, Ordering::Relaxed)
}

/// What `noting` has seen: stamps, and sums of all pixels.
static NOTED: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

pub fn noted() -> Vec<(u64, u64)> {
    std::mem::take(&mut NOTED.lock().unwrap())
}

/// The same, which stay.
pub fn peek() -> Vec<(u64, u64)> {
    NOTED.lock().unwrap().clone()
}

/// The byte at `at` of frame `n`, rows one behind the other without padding.
pub fn byte(n: u64, at: usize) -> u8 {
    (n as usize * 7 + at * 3 + at / 64) as u8
}

/// A sum in which the place of each byte counts.
pub fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Makes them known as `bringing` and `noting`.
pub fn register() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gst::Element::register(None, "bringing", gst::Rank::NONE, Bringing::static_type()).unwrap();
        gst::Element::register(None, "noting", gst::Rank::NONE, Noting::static_type()).unwrap();
    });
}

/// Of one memory; its file.
struct Alive(Option<(MemoryKind, OwnedFd)>);

impl Alive {
    fn new(file: Option<(MemoryKind, OwnedFd)>) -> Alive {
        MEMORIES.fetch_add(1, Ordering::Relaxed);
        Alive(file)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        MEMORIES.fetch_sub(1, Ordering::Relaxed);
    }
}

glib::wrapper! {
    pub struct Bringing(ObjectSubclass<Source>) @extends gst::Element, gst::Object;
}

/// NV12 frames, in buffers of its own whatever it is offered.
#[derive(glib::Properties)]
#[properties(wrapper_type = Bringing)]
pub struct Source {
    /// Frames until it ends; 0 for ever.
    #[property(name = "num-buffers", get, set, type = u32)]
    frames: Mutex<u32>,
    /// Buffers at least; so many and no more with `fixed`.
    #[property(name = "buffers", get, set, type = u32)]
    buffers: Mutex<u32>,
    #[property(name = "fixed", get, set, type = bool)]
    fixed: Mutex<bool>,
    /// In udmabuf, not memfd.
    #[property(name = "dma-bufs", get, set, type = bool)]
    dma_bufs: Mutex<bool>,
    /// Only where caps say so.
    #[property(name = "told", get, set, type = bool)]
    told: Mutex<bool>,
    #[property(name = "live", get, set, type = bool)]
    live: Mutex<bool>,
    /// Bytes that rows are longer than pictures are wide.
    #[property(name = "padding", get, set, type = u32)]
    padding: Mutex<u32>,
    /// Each frame is in a new memory, of another descriptor of the same file.
    #[property(name = "rewraps", get, set, type = bool)]
    rewraps: Mutex<bool>,
    next: Mutex<u64>,
    pool: Mutex<Option<OwnPool>>,
    pad: gst::Pad,
}

#[glib::object_subclass]
impl ObjectSubclass for Source {
    const NAME: &'static str = "Bringing";
    type Type = Bringing;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Source {
        let pad = gst::Pad::from_template(&class.pad_template("src").unwrap());
        Source {
            frames: Mutex::default(),
            buffers: Mutex::default(),
            fixed: Mutex::default(),
            dma_bufs: Mutex::default(),
            told: Mutex::default(),
            live: Mutex::default(),
            padding: Mutex::default(),
            rewraps: Mutex::default(),
            next: Mutex::default(),
            pool: Mutex::default(),
            pad,
        }
    }
}

#[glib::derived_properties]
impl ObjectImpl for Source {
    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_element_flags(gst::ElementFlags::SOURCE);
        self.obj().add_pad(&self.pad).unwrap();
    }
}

impl GstObjectImpl for Source {}

impl ElementImpl for Source {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: std::sync::LazyLock<gst::subclass::ElementMetadata> = std::sync::LazyLock::new(|| {
            gst::subclass::ElementMetadata::new("Brings its own memory", "Source/Video", "For tests", "shrbuf")
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: std::sync::LazyLock<Vec<gst::PadTemplate>> = std::sync::LazyLock::new(|| {
            let plain: gst::Caps =
                "video/x-raw, format=NV12, width=64, height=48, framerate=[1/1, 1000/1]".parse().unwrap();
            let mut caps = plain.clone();
            caps.merge(dma_buf::caps(&plain));
            vec![gst::PadTemplate::new("src", gst::PadDirection::Src, gst::PadPresence::Always, &caps).unwrap()]
        });
        &TEMPLATES
    }

    fn change_state(&self, change: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let live = *self.live.lock().unwrap();
        if change == gst::StateChange::PausedToReady
            && let Some(pool) = &*self.pool.lock().unwrap()
        {
            pool.set_flushing(true);
        }
        if change == gst::StateChange::ReadyToPaused {
            STARTS.fetch_add(1, Ordering::Relaxed);
        }
        let changed = self.parent_change_state(change)?;
        match change {
            gst::StateChange::ReadyToPaused if !live => self.go_on(),
            gst::StateChange::PausedToPlaying if live => self.go_on(),
            gst::StateChange::PausedToReady => {
                self.pad.stop_task().unwrap();
                *self.next.lock().unwrap() = 0;
                if let Some(pool) = self.pool.lock().unwrap().take() {
                    pool.set_active(false).unwrap();
                }
            }
            _ => {}
        }
        let to_paused = [gst::StateChange::ReadyToPaused, gst::StateChange::PlayingToPaused].contains(&change);
        Ok(if live && to_paused { gst::StateChangeSuccess::NoPreroll } else { changed })
    }
}

impl Source {
    fn go_on(&self) {
        let this = self.obj().downgrade();
        let step = move || {
            if let Some(this) = this.upgrade() {
                this.imp().step();
            }
        };
        self.pad.start_task(step).unwrap();
    }

    /// One frame, or the end.
    fn step(&self) {
        let sent = self.pool().and_then(|pool| self.frame(&pool)).and_then(|frame| self.pad.push(frame));
        if let Err(why) = sent {
            if why != gst::FlowError::Flushing {
                self.pad.push_event(gst::event::Eos::new());
            }
            let _ = self.pad.pause_task();
        }
    }

    /// The pool, once caps are known.
    fn pool(&self) -> Result<OwnPool, gst::FlowError> {
        if let Some(pool) = &*self.pool.lock().unwrap() {
            return Ok(pool.clone());
        }
        let mut caps = self.pad.allowed_caps().ok_or(gst::FlowError::NotNegotiated)?;
        caps.fixate();
        self.pad.push_event(gst::event::StreamStart::new("bringing"));
        self.pad.push_event(gst::event::Caps::new(&caps));
        self.pad.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        let mut query = gst::query::Allocation::new(Some(&caps), true);
        let answered = self.pad.peer_query(&mut query);
        let asked = query.allocation_pools().next().filter(|_| answered).map_or(0, |(_, _, least, _)| least);
        let (buffers, fixed) = (*self.buffers.lock().unwrap(), *self.fixed.lock().unwrap());
        let told = caps.features(0).is_some_and(|features| features.contains(dma_buf::FEATURE));
        let system = *self.told.lock().unwrap() && !told;
        let kind = match (system, *self.dma_bufs.lock().unwrap()) {
            (true, _) => None,
            (false, true) => Some(MemoryKind::DmaBuf),
            (false, false) => Some(MemoryKind::Memfd),
        };
        let pool = OwnPool::of(&dma_buf::info(&caps).unwrap(), *self.padding.lock().unwrap(), kind);
        let mut config = pool.config();
        let (least, most) = if fixed { (buffers, buffers) } else { (asked.max(buffers), 0) };
        config.set_params(Some(&caps), pool.size(), least, most);
        pool.set_config(config).unwrap();
        pool.set_active(true).unwrap();
        Ok(self.pool.lock().unwrap().insert(pool).clone())
    }

    fn frame(&self, pool: &OwnPool) -> Result<gst::Buffer, gst::FlowError> {
        let n = *self.next.lock().unwrap();
        let frames = u64::from(*self.frames.lock().unwrap());
        if frames > 0 && n >= frames {
            return Err(gst::FlowError::Eos);
        }
        let mut frame = pool.acquire_buffer(None)?;
        *self.next.lock().unwrap() += 1;
        let (width, stride) = (SIZE.0 as usize, (SIZE.0 + *self.padding.lock().unwrap()) as usize);
        let writable = frame.get_mut().unwrap();
        let mut map = writable.map_writable().unwrap();
        for (y, row) in map.chunks_exact_mut(stride).enumerate() {
            row[..width].iter_mut().enumerate().for_each(|(x, to)| *to = byte(n, y * width + x));
            row[width..].fill(0xee);
        }
        drop(map);
        let period = gst::ClockTime::from_mseconds(5);
        writable.set_pts(period * n);
        writable.set_duration(period);
        Ok(if *self.rewraps.lock().unwrap() { rewrapped(frame) } else { frame })
    }
}

/// The same frame in a memory made just now, which keeps the one that it is of.
fn rewrapped(frame: gst::Buffer) -> gst::Buffer {
    let memory = frame.peek_memory(0);
    let Alive(Some((kind, fd))) = shrbuf_gst_memory::tied::<Alive>(memory).unwrap() else { panic!("of no file") };
    let mut memory = FdMemories::new().wrap(*kind, fd.try_clone().unwrap(), memory.size()).unwrap();
    let mut again = gst::Buffer::new();
    let writable = again.make_mut();
    frame.copy_into(writable, gst::BufferCopyFlags::TIMESTAMPS, ..).unwrap();
    let meta = frame.meta::<gst_video::VideoMeta>().unwrap();
    let flags = gst_video::VideoFrameFlags::empty();
    gst_video::VideoMeta::add_full(writable, flags, meta.format(), SIZE.0, SIZE.1, meta.offset(), meta.stride())
        .unwrap();
    shrbuf_gst_memory::tie(memory.make_mut(), frame);
    again.make_mut().append_memory(memory);
    again
}

glib::wrapper! {
    pub struct OwnPool(ObjectSubclass<Pool>) @extends gst::BufferPool, gst::Object;
}

#[derive(Default)]
pub struct Pool(Mutex<Option<(Layout, VideoInfo, Option<MemoryKind>)>>);

#[glib::object_subclass]
impl ObjectSubclass for Pool {
    const NAME: &'static str = "BringingPool";
    type Type = OwnPool;
    type ParentType = gst::BufferPool;
}

impl ObjectImpl for Pool {}
impl GstObjectImpl for Pool {}

impl OwnPool {
    fn of(info: &VideoInfo, padding: u32, kind: Option<MemoryKind>) -> OwnPool {
        let plane = |offset| shrbuf::layout::Plane { segment: 0, offset, stride: SIZE.0 + padding };
        let planes = [plane(0), plane((SIZE.0 + padding) * SIZE.1)];
        let layout = video::layout_of(info, None, &planes).unwrap();
        let pool: OwnPool = glib::Object::new();
        *pool.imp().0.lock().unwrap() = Some((layout, info.clone(), kind));
        pool
    }

    fn size(&self) -> u32 {
        let of = self.imp().0.lock().unwrap();
        let stride = of.as_ref().unwrap().0.planes()[0].stride;
        stride * SIZE.1 * 3 / 2
    }
}

impl BufferPoolImpl for Pool {
    fn alloc_buffer(&self, _: Option<&gst::BufferPoolAcquireParams>) -> Result<gst::Buffer, gst::FlowError> {
        let (layout, info, kind) = self.0.lock().unwrap().clone().unwrap();
        let size = self.obj().size() as usize;
        let exporter = kind.map(|kind| match kind {
            MemoryKind::Memfd => Exporter::Memfd(Memfd::new("bringing")),
            MemoryKind::DmaBuf => Exporter::Udmabuf(Udmabuf::open("bringing").unwrap()),
        });
        let file = exporter.map(|exporter| exporter.allocate(&layout).unwrap().export(0).unwrap());
        let file = kind.zip(file);
        let mut memory = match &file {
            None => gst::Memory::with_size(size),
            Some((kind, fd)) => FdMemories::new().wrap(*kind, fd.try_clone().unwrap(), size).unwrap(),
        };
        shrbuf_gst_memory::tie(memory.make_mut(), Alive::new(file));
        let mut frame = gst::Buffer::new();
        let writable = frame.make_mut();
        writable.append_memory(memory);
        let (offsets, strides): (Vec<usize>, Vec<i32>) =
            layout.planes().iter().map(|p| (p.offset as usize, p.stride as i32)).unzip();
        let flags = gst_video::VideoFrameFlags::empty();
        gst_video::VideoMeta::add_full(writable, flags, info.format(), SIZE.0, SIZE.1, &offsets, &strides).unwrap();
        Ok(frame)
    }
}

glib::wrapper! {
    pub struct Noting(ObjectSubclass<Notes>) @extends gst::Element, gst::Object;
}

/// Passes everything on, and notes each frame's stamp and pixels as GStreamer maps them.
pub struct Notes {
    sink: gst::Pad,
    src: gst::Pad,
}

#[glib::object_subclass]
impl ObjectSubclass for Notes {
    const NAME: &'static str = "Noting";
    type Type = Noting;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Notes {
        let pad = |name| gst::Pad::builder_from_template(&class.pad_template(name).unwrap());
        let proxy = gst::PadFlags::PROXY_CAPS | gst::PadFlags::PROXY_ALLOCATION | gst::PadFlags::PROXY_SCHEDULING;
        let chain = |_: &gst::Pad, parent: Option<&gst::Object>, frame: gst::Buffer| {
            Notes::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.note(frame))
        };
        let sink = pad("sink").flags(proxy).chain_function(chain).build();
        Notes { sink, src: pad("src").flags(proxy).build() }
    }
}

impl ObjectImpl for Notes {
    fn constructed(&self) {
        self.parent_constructed();
        self.obj().add_pad(&self.sink).unwrap();
        self.obj().add_pad(&self.src).unwrap();
    }
}

impl GstObjectImpl for Notes {}

impl ElementImpl for Notes {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: std::sync::LazyLock<gst::subclass::ElementMetadata> = std::sync::LazyLock::new(|| {
            gst::subclass::ElementMetadata::new("Notes frames", "Generic", "For tests", "shrbuf")
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: std::sync::LazyLock<Vec<gst::PadTemplate>> = std::sync::LazyLock::new(|| {
            let caps = gst::Caps::new_any();
            let template = |name, direction| gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps);
            vec![template("sink", gst::PadDirection::Sink).unwrap(), template("src", gst::PadDirection::Src).unwrap()]
        });
        &TEMPLATES
    }
}

impl Notes {
    fn note(&self, frame: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let stamp = frame.pts().map_or(0, |pts| pts.nseconds()) + self.obj().base_time().map_or(0, |t| t.nseconds());
        let mapped = sum(&frame.map_readable().unwrap());
        NOTED.lock().unwrap().push((stamp, mapped));
        self.src.push(frame)
    }
}
