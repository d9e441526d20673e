//! Elements of GStreamer's for tests: a source that brings memory of its own, as cameras and decoders do, and one that
//! notes what passes.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::prelude::*;
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

/// What `noting` has seen: stamps, and sums of all pixels.
static NOTED: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

pub fn noted() -> Vec<(u64, u64)> {
    std::mem::take(&mut NOTED.lock().unwrap())
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
    gst::init().unwrap();
    gst::Element::register(None, "bringing", gst::Rank::NONE, Bringing::static_type()).unwrap();
    gst::Element::register(None, "noting", gst::Rank::NONE, Noting::static_type()).unwrap();
}

struct Alive;

impl Alive {
    fn new() -> Alive {
        MEMORIES.fetch_add(1, Ordering::Relaxed);
        Alive
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        MEMORIES.fetch_sub(1, Ordering::Relaxed);
    }
}

glib::wrapper! {
    pub struct Bringing(ObjectSubclass<Source>) @extends gst_base::PushSrc, gst_base::BaseSrc, gst::Element, gst::Object;
}

/// NV12 frames, in buffers of its own whatever it is offered.
#[derive(Default, glib::Properties)]
#[properties(wrapper_type = Bringing)]
pub struct Source {
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
    /// Each frame is in a new memory of the same descriptor's file.
    #[property(name = "rewraps", get, set, type = bool)]
    rewraps: Mutex<bool>,
    next: Mutex<u64>,
    pool: Mutex<Option<OwnPool>>,
}

#[glib::object_subclass]
impl ObjectSubclass for Source {
    const NAME: &'static str = "Bringing";
    type Type = Bringing;
    type ParentType = gst_base::PushSrc;
}

#[glib::derived_properties]
impl ObjectImpl for Source {
    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_format(gst::Format::Time);
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
}

impl BaseSrcImpl for Source {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        self.obj().set_live(*self.live.lock().unwrap());
        *self.next.lock().unwrap() = 0;
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(pool) = self.pool.lock().unwrap().take() {
            pool.set_active(false).unwrap();
        }
        Ok(())
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(pool) = &*self.pool.lock().unwrap() {
            pool.set_flushing(true);
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(pool) = &*self.pool.lock().unwrap() {
            pool.set_flushing(false);
        }
        Ok(())
    }

    fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        let caps = query.get_owned().0.unwrap();
        let asked = query.allocation_pools().next().map_or(0, |(_, _, least, _)| least);
        let buffers = if *self.fixed.lock().unwrap() {
            *self.buffers.lock().unwrap()
        } else {
            asked.max(*self.buffers.lock().unwrap())
        };
        let most = if *self.fixed.lock().unwrap() { buffers } else { 0 };
        let told = caps.features(0).is_some_and(|features| features.contains(dma_buf::FEATURE));
        let system = *self.told.lock().unwrap() && !told;
        let kind = match (system, *self.dma_bufs.lock().unwrap()) {
            (true, _) => None,
            (false, true) => Some(MemoryKind::DmaBuf),
            (false, false) => Some(MemoryKind::Memfd),
        };
        let pool = OwnPool::of(&dma_buf::info(&caps).unwrap(), *self.padding.lock().unwrap(), kind);
        let mut config = pool.config();
        config.set_params(Some(&caps), pool.size(), buffers, most);
        pool.set_config(config).unwrap();
        pool.set_active(true).unwrap();
        if let Some(before) = self.pool.lock().unwrap().replace(pool) {
            before.set_active(false).unwrap();
        }
        Ok(())
    }
}

impl PushSrcImpl for Source {
    fn create(&self, _: Option<&mut gst::BufferRef>) -> Result<gst_base::subclass::base_src::CreateSuccess, gst::FlowError> {
        let pool = self.pool.lock().unwrap().clone().ok_or(gst::FlowError::Flushing)?;
        let mut frame = pool.acquire_buffer(None)?;
        let n = {
            let mut next = self.next.lock().unwrap();
            *next += 1;
            *next - 1
        };
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
        if *self.rewraps.lock().unwrap() {
            frame = rewrapped(frame);
        }
        Ok(gst_base::subclass::base_src::CreateSuccess::NewBuffer(frame))
    }
}

/// The same frame in a memory made just now, which keeps the one that it is of.
fn rewrapped(frame: gst::Buffer) -> gst::Buffer {
    let memory = frame.peek_memory(0);
    let fd = memory.downcast_memory_ref::<gst_allocators::FdMemory>().unwrap().fd();
    // SAFETY: the memory has it open.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().unwrap();
    let kind = if memory.is_type("dmabuf") { MemoryKind::DmaBuf } else { MemoryKind::Memfd };
    let mut memory = FdMemories::new().wrap(kind, fd, memory.size()).unwrap();
    let mut again = gst::Buffer::new();
    frame.copy_into(again.make_mut(), gst::BufferCopyFlags::TIMESTAMPS | gst::BufferCopyFlags::META, ..).unwrap();
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
        let exported = |exporter: Exporter| -> OwnedFd { exporter.allocate(&layout).unwrap().export(0).unwrap() };
        let mut memory = match kind {
            None => gst::Memory::with_size(size),
            Some(MemoryKind::Memfd) => {
                let fd = exported(Exporter::Memfd(Memfd::new("bringing")));
                FdMemories::new().wrap(MemoryKind::Memfd, fd, size).unwrap()
            }
            Some(MemoryKind::DmaBuf) => {
                let fd = exported(Exporter::Udmabuf(Udmabuf::open("bringing").unwrap()));
                FdMemories::new().wrap(MemoryKind::DmaBuf, fd, size).unwrap()
            }
        };
        shrbuf_gst_memory::tie(memory.make_mut(), Alive::new());
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

/// Waits until something is so.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < Duration::from_secs(10), "not {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
