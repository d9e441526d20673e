//! The JSON that the command prints. Keys stay; new ones may come. Their order is that of these structs.

use serde::{Serialize, Serializer};
use shrbuf_pipeline::plan::{Budget, LinkPlan, Plan};
use shrbuf_pipeline::run::ElementCounts;

/// One link of a negotiated pipeline.
#[derive(Debug, Serialize)]
pub struct Link {
    /// Element, or `element.port` where it has several outputs.
    from: String,
    /// Element, or `element.port` where it has several inputs.
    to: String,
    /// Pixel format, as in TOML.
    format: &'static str,
    /// DRM format modifier: `LINEAR`, or hexadecimal; null where the producer knows of none.
    modifier: Option<String>,
    /// Pixels.
    width: u32,
    /// Pixels.
    height: u32,
    /// Frames a second; null where not known.
    rate: Option<f64>,
    /// Kind of kernel object: `dma-buf` or `memfd`.
    memory: String,
    /// Who allocates it: `v4l2`, `udmabuf`, `dma-heap`, `memfd`, or another `process`.
    allocator: &'static str,
    /// Bytes from row to row of the first plane.
    stride: u32,
    /// False where the CPU writes the picture a second time.
    zero_copy: bool,
    /// Why it is so.
    reason: String,
}

impl Link {
    fn of(link: &LinkPlan) -> Link {
        let stream = &link.stream;
        Link {
            from: link.from.clone(),
            to: link.to.clone(),
            format: stream.format.name(),
            modifier: stream.modifier.map(|m| m.to_string()),
            width: stream.size.width,
            height: stream.size.height,
            rate: stream.rate.map(|r| r.hz()),
            memory: link.memory.to_string(),
            allocator: stream.origin.name(),
            stride: link.stride,
            zero_copy: link.zero_copy,
            reason: link.reason.clone(),
        }
    }

    /// Every link of a plan.
    pub fn all(plan: &Plan) -> Vec<Link> {
        plan.links.iter().map(Link::of).collect()
    }
}

/// Who holds how many of a stream's buffers.
#[derive(Debug, Serialize)]
pub struct Buffers {
    /// The producer.
    producer: String,
    /// Buffers it made.
    granted: u32,
    /// Frames that each element holds at once, by name, the producer's own first.
    #[serde(serialize_with = "in_order")]
    holders: Vec<(String, u32)>,
}

impl Buffers {
    /// Every budget of a plan.
    pub fn all(plan: &Plan) -> Vec<Buffers> {
        let of = |b: &Budget| Buffers { producer: b.producer.clone(), granted: b.granted, holders: b.holders.clone() };
        plan.budgets.iter().map(of).collect()
    }
}

/// What an element counted.
#[derive(Debug, Serialize)]
pub struct Element {
    /// Frames that came in, or of a source, that went out.
    frames: u64,
    /// Frames dropped here.
    dropped: u64,
    /// Frames that their producer marked as damaged.
    corrupt: u64,
    /// Of a sink: frames shown or consumed before the moment of their time stamp, which are in no latency.
    misdated: u64,
    /// What the element itself counts.
    #[serde(serialize_with = "in_order")]
    counters: Vec<(&'static str, u64)>,
    /// Of a sink: from the capture time stamp to when the frame was shown or consumed; left out where that is known of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<Latency>,
    /// Of a store: what it holds at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Held>,
}

/// What a store holds.
#[derive(Debug, Serialize)]
pub struct Held {
    seconds: f64,
    bytes: u64,
    bytes_stored: u64,
    ratio: f64,
}

/// A distribution of microseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Element {
    /// By name, in the order of the graph.
    pub fn all(counts: &[ElementCounts]) -> Vec<(String, Element)> {
        let us = |ns: u64| ns as f64 / 1e3;
        counts
            .iter()
            .map(|e| {
                let latency = e.counts.latency.map(|l| Latency { p50: us(l.p50), p99: us(l.p99), max: us(l.max) });
                let element = Element {
                    frames: e.counts.frames,
                    dropped: e.counts.dropped,
                    corrupt: e.counts.corrupt,
                    misdated: e.counts.misdated,
                    counters: e.own.clone(),
                    latency_us: latency,
                    held: e.counts.held.map(|h| Held {
                        seconds: h.time.as_secs_f64(),
                        bytes: h.original,
                        bytes_stored: h.stored,
                        ratio: h.ratio(),
                    }),
                };
                (e.name.clone(), element)
            })
            .collect()
    }
}

/// Why something failed.
#[derive(Debug, Serialize)]
pub struct Error {
    /// `file`, `negotiation`, or of an element `unplugged`, `in-use`, `changed`, `stalled`, `device`, `limit`, `data`
    /// or `config`.
    pub kind: &'static str,
    /// The element that failed; null where it is none alone.
    pub element: Option<String>,
    /// For people.
    pub message: String,
}

/// How a run went; `shrbuf run --help` describes it.
#[derive(Debug, Serialize)]
pub struct Run {
    pub frames: u64,
    pub dropped: u64,
    pub duration_s: f64,
    pub bytes_copied: u64,
    pub cpu_us_per_frame: Option<f64>,
    pub interrupted: bool,
    pub restarts: u32,
    pub links: Vec<Link>,
    #[serde(serialize_with = "in_order")]
    pub elements: Vec<(String, Element)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// A line of JSON.
pub fn line(value: &impl Serialize) -> String {
    // Strings, numbers and maps with string keys: nothing that JSON could refuse.
    serde_json::to_string(value).unwrap_or_default() + "\n"
}

/// An object whose keys keep their order.
pub fn in_order<K: Serialize, V: Serialize, S: Serializer>(pairs: &[(K, V)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(pairs.iter().map(|(k, v)| (k, v)))
}
