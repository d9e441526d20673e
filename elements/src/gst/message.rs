//! What GStreamer says of itself while it runs: errors in its own words, and which kind of failure each is.

use gst::prelude::*;
use gst::{MessageView, glib};
use gst_app::AppSink;
use shrbuf_pipeline::{Failure, FailureKind};

/// An element of the fragment has failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("GStreamer's {element}: {message}{}{}", detail(.more), lacking(.missing))]
pub struct GstError {
    /// Its name in the fragment, and its type.
    pub element: String,
    /// Its own words.
    pub message: String,
    /// What it adds for those who look closer.
    pub more: Option<String>,
    /// What GStreamer said to be missing before that: decoders, encoders, elements.
    pub missing: Vec<String>,
}

fn detail(more: &Option<String>) -> String {
    more.as_ref().map(|more| format!(" ({more})")).unwrap_or_default()
}

fn lacking(missing: &[String]) -> String {
    if missing.is_empty() {
        return String::new();
    }
    format!(
        "; missing is: {}; a package of GStreamer plugins (-good, -bad, -ugly, -libav) may have it",
        missing.join(", ")
    )
}

/// `vp8enc0 (vp8enc)`.
pub(super) fn name_of(source: Option<&gst::Object>) -> String {
    let Some(source) = source else { return "pipeline".to_owned() };
    let factory = source.downcast_ref::<gst::Element>().and_then(|e| e.factory());
    match factory {
        Some(factory) => format!("{} ({})", source.name(), factory.name()),
        None => source.name().into(),
    }
}

/// The element that the frames come from which come to `sink`.
pub(super) fn origin_of(sink: &AppSink) -> String {
    let mut pad = sink.static_pad("sink").and_then(|pad| pad.peer());
    // Past those that only hand frames on.
    while let Some(element) = pad.as_ref().and_then(|pad| pad.parent_element()) {
        let hands_on = element.metadata(gst::ELEMENT_METADATA_KLASS).is_some_and(|class| class.contains("Generic"));
        match element.sink_pads().first().and_then(|sink| sink.peer()).filter(|_| hands_on) {
            Some(before) => pad = Some(before),
            None => return name_of(Some(element.upcast_ref())),
        }
    }
    "GStreamer".to_owned()
}

fn kind(error: &glib::Error) -> FailureKind {
    if let Some(resource) = error.kind::<gst::ResourceError>() {
        return match resource {
            gst::ResourceError::Busy => FailureKind::InUse,
            gst::ResourceError::NoSpaceLeft => FailureKind::Limit,
            gst::ResourceError::Read | gst::ResourceError::Write | gst::ResourceError::Sync => FailureKind::Device,
            _ => FailureKind::Config,
        };
    }
    match error.kind::<gst::CoreError>() {
        Some(_) => FailureKind::Config,
        None => FailureKind::Data,
    }
}

/// Collects what messages say.
#[derive(Debug, Default)]
pub(super) struct Heard {
    missing: Vec<String>,
    /// The stream has ended, in every sink.
    pub(super) ended: bool,
    /// Elements that say how long they take have said so.
    pub(super) latency: Vec<gst::Object>,
}

impl Heard {
    /// Takes in a message.
    ///
    /// # Errors
    /// It is an error.
    pub(super) fn hear(&mut self, message: &gst::Message) -> Result<(), Failure> {
        match message.view() {
            MessageView::Eos(_) => self.ended = true,
            MessageView::Latency(latency) => self.latency.extend(latency.src().cloned()),
            MessageView::Warning(warning) => {
                let (element, error) = (name_of(warning.src()), warning.error());
                tracing::warn!(%element, "{}", error.message());
            }
            MessageView::Error(error) => {
                let (why, debug) = (error.error(), error.debug());
                let more = debug.as_deref().and_then(|debug| debug.split_once('\n')).map(|(_, more)| more.trim());
                let gst_error = GstError {
                    element: name_of(error.src()),
                    message: why.message().trim_end_matches('.').to_owned(),
                    more: more.filter(|more| !more.is_empty()).map(|more| more.replace('\n', "; ")),
                    missing: std::mem::take(&mut self.missing),
                };
                return Err(Failure::new(kind(&why), gst_error));
            }
            MessageView::Element(element) => {
                let missing = element.structure().filter(|s| s.name() == "missing-plugin");
                self.missing.extend(missing.and_then(|s| s.get::<String>("name").ok()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes in all that there is. Does not block.
    ///
    /// # Errors
    /// The first error among it.
    pub(super) fn hear_all(&mut self, bus: &gst::Bus) -> Result<(), Failure> {
        while let Some(message) = bus.pop() {
            self.hear(&message)?;
        }
        Ok(())
    }
}
