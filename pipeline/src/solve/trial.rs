//! The trial: a candidate is allocated and imported for real, and what works stays.

use std::rc::Rc;

use shrbuf::{Layout, Modifier, Shrbuf};

use super::candidate::Input;
use super::error::sum;
use super::route::Route;
use crate::element::Refusal;
use crate::graph::{Graph, Port};
use crate::offer::Stream;

/// What the producer made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Granted {
    /// Buffers.
    pub(super) buffers: u32,
    /// Bytes from row to row of the first plane.
    pub(super) stride: u32,
}

/// Who said no, and why.
#[derive(Debug)]
pub(super) struct Refused {
    /// The consumer; `None` where it was the producer.
    pub(super) by: Option<Port>,
    pub(super) refusal: Refusal,
}

/// Has the producer allocate and every consumer import. The buffers are theirs alone when this returns.
pub(super) fn trial(
    graph: &mut Graph,
    route: &Route,
    consumers: &[Rc<Input>],
    holders: &[(String, u32)],
    stream: &Stream,
) -> Result<Granted, Refused> {
    let producer = |refusal| Refused { by: None, refusal };
    let element = &mut graph.nodes[route.from.node.0].element;
    let buffers = element.allocate(route.from.port, stream).map_err(producer)?;
    let count = u32::try_from(buffers.len()).unwrap_or(u32::MAX);
    let Some(first) = buffers.first().filter(|_| count >= stream.buffers) else {
        return Err(producer(Refusal::new(format!("gave {count} buffers, needed are {}", sum(holders)))));
    };
    let stride = first.layout().planes().first().map_or(0, |p| p.stride);
    for buffer in &buffers {
        as_agreed(buffer.layout(), stream).map_err(producer)?;
    }
    for consumer in consumers {
        let refused = |refusal| Refused { by: Some(consumer.port), refusal };
        readable(&buffers, consumer).map_err(refused)?;
        let element = &mut graph.nodes[consumer.port.node.0].element;
        element.import(consumer.port.port, stream, &buffers).map_err(refused)?;
    }
    Ok(Granted { buffers: count, stride })
}

/// A driver may make something else of what it is asked for (VIDIOC_S_FMT adjusts and succeeds).
fn as_agreed(layout: &Layout, stream: &Stream) -> Result<(), Refusal> {
    let linear = |m: Option<Modifier>| m.unwrap_or(Modifier::LINEAR);
    let (width, height) = (stream.size.width, stream.size.height);
    if (layout.format, layout.width, layout.height) != (stream.format, width, height)
        || linear(layout.modifier) != linear(stream.modifier)
    {
        return Err(Refusal::new(format!(
            "made {} {}x{} {} of it",
            layout.format,
            layout.width,
            layout.height,
            linear(layout.modifier)
        )));
    }
    Ok(())
}

/// Whether a consumer can read buffers laid out like this.
fn readable(buffers: &[Shrbuf], consumer: &Input) -> Result<(), Refusal> {
    let align = consumer.offer.memory.stride_align.max(1);
    for layout in buffers.iter().map(Shrbuf::layout) {
        let odd = layout.planes().iter().find(|p| layout.is_linear() && !p.stride.is_multiple_of(align));
        if let Some(plane) = odd {
            return Err(Refusal::new(format!(
                "takes strides of a multiple of {align} bytes, this is {}",
                plane.stride
            )));
        }
        let splits = consumer.offer.video.iter().any(|v| v.format == layout.format && v.plane_segments);
        if layout.segments() > 1 && !splits {
            return Err(Refusal::new(format!("takes all planes in one buffer, these are in {}", layout.segments())));
        }
    }
    Ok(())
}
