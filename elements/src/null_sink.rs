//! `null-sink`.

use shrbuf::Format;
use shrbuf_pipeline::property::{Build, BuildError};
use shrbuf_pipeline::{Consumes, Context, Element, Failure, Frame, InputOffer, Ports, Timestamp, Video, Wanted};

shrbuf_pipeline::properties! {
    /// Drops every frame as soon as it comes, and records how old it was.
    ///
    /// Takes every format, size and kind of memory. For measuring what lies before it, and for outputs that nobody
    /// needs.
    ///
    /// ```toml
    /// [element.drop]
    /// type = "null-sink"
    /// ```
    pub struct NullSink = "null-sink" {}
}

impl Build for NullSink {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        Ok(Box::new(self))
    }
}

impl Element for NullSink {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        Ok(InputOffer {
            video: Format::all()
                .chain(Format::compressed())
                .map(|f| Video { plane_segments: true, ..Video::linear(f) })
                .collect(),
            memory: Consumes::cpu(),
            wanted: Wanted::default(),
            natural: None,
        })
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        context.shown(frame.timestamp, Timestamp::now());
        Ok(())
    }
}
