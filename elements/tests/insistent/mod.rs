//! A GStreamer element that insists on dma-bufs on both sides, as those of some devices do: it takes frames of no other
//! caps than such, and writes them, each byte inverted, to the pool of the next one.

use std::sync::Mutex;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

/// What both of its pads have, of NV12.
pub const CAPS: &str = if cfg!(feature = "gstreamer-v1_24") {
    "video/x-raw(memory:DMABuf), format=DMA_DRM, drm-format=NV12"
} else {
    "video/x-raw(memory:DMABuf), format=NV12"
};

/// Makes it known as `insistent`.
pub fn register() {
    gst::init().unwrap();
    gst::Element::register(None, "insistent", gst::Rank::NONE, Insistent::static_type()).unwrap();
}

glib::wrapper! {
    pub struct Insistent(ObjectSubclass<Imp>) @extends gst::Element, gst::Object;
}

pub struct Imp {
    sink: gst::Pad,
    src: gst::Pad,
    pool: Mutex<Option<gst::BufferPool>>,
}

#[glib::object_subclass]
impl ObjectSubclass for Imp {
    const NAME: &'static str = "Insistent";
    type Type = Insistent;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Imp {
        let pad = |name| gst::Pad::builder_from_template(&class.pad_template(name).unwrap());
        let chain = |_: &gst::Pad, parent: Option<&gst::Object>, frame: gst::Buffer| {
            Imp::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.invert(&frame))
        };
        // What is told of frames is told of those that go out as well.
        let sink = pad("sink").flags(gst::PadFlags::PROXY_CAPS).chain_function(chain).build();
        Imp { sink, src: pad("src").build(), pool: Mutex::default() }
    }
}

impl ObjectImpl for Imp {
    fn constructed(&self) {
        self.parent_constructed();
        self.obj().add_pad(&self.sink).unwrap();
        self.obj().add_pad(&self.src).unwrap();
    }
}

impl GstObjectImpl for Imp {}

impl ElementImpl for Imp {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: std::sync::LazyLock<gst::subclass::ElementMetadata> = std::sync::LazyLock::new(|| {
            gst::subclass::ElementMetadata::new("Insists on dma-bufs", "Filter/Video", "For tests", "shrbuf")
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: std::sync::LazyLock<Vec<gst::PadTemplate>> = std::sync::LazyLock::new(|| {
            let caps: gst::Caps = CAPS.parse().unwrap();
            let template = |name, direction| gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps);
            vec![template("sink", gst::PadDirection::Sink).unwrap(), template("src", gst::PadDirection::Src).unwrap()]
        });
        &TEMPLATES
    }

    fn change_state(&self, change: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let changed = self.parent_change_state(change)?;
        if change == gst::StateChange::PausedToReady
            && let Some(pool) = self.pool.lock().unwrap().take()
        {
            pool.set_active(false).unwrap();
        }
        Ok(changed)
    }
}

impl Imp {
    fn invert(&self, frame: &gst::BufferRef) -> Result<gst::FlowSuccess, gst::FlowError> {
        assert!(frame.iter_memories().all(|memory| memory.is_type("dmabuf")), "these are no dma-bufs: {frame:?}");
        let pool = self.pool.lock().unwrap().get_or_insert_with(|| self.pool()).clone();
        let mut inverted = pool.acquire_buffer(None)?;
        assert!(inverted.iter_memories().all(|memory| memory.is_type("dmabuf")), "these are no dma-bufs: {inverted:?}");
        let writable = inverted.get_mut().unwrap();
        frame.copy_into(writable, gst::BufferCopyFlags::TIMESTAMPS, ..).unwrap();
        let (from, mut to) = (frame.map_readable().unwrap(), writable.map_writable().unwrap());
        assert_eq!(from.len(), to.len());
        to.iter_mut().zip(from.iter()).for_each(|(to, from)| *to = !from);
        drop(to);
        self.src.push(inverted)
    }

    /// The next one's.
    fn pool(&self) -> gst::BufferPool {
        let caps = self.src.current_caps().unwrap();
        let mut query = gst::query::Allocation::new(Some(&caps), true);
        assert!(self.src.peer_query(&mut query));
        let (pool, size, least, most) = query.allocation_pools().next().unwrap();
        let pool = pool.unwrap();
        let mut config = pool.config();
        config.set_params(Some(&caps), size, least, most);
        pool.set_config(config).unwrap();
        pool.set_active(true).unwrap();
        pool
    }
}
