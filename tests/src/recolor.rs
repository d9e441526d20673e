//! An element that says other colours of frames than they came with.

use shrbuf_pipeline::{Colorimetry, Context, Element, Failure, Frame, Ports, Role};

type Says = Box<dyn FnMut(u64) -> Colorimetry + Send>;

/// Passes every frame on as one of other colours.
pub struct Recolor(Says);

impl Recolor {
    /// `says` is asked of each frame by its sequence.
    pub fn new(says: impl FnMut(u64) -> Colorimetry + Send + 'static) -> Box<Recolor> {
        Box::new(Recolor(Box::new(says)))
    }
}

impl Element for Recolor {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn process(&mut self, _input: usize, mut frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        frame.color = (self.0)(frame.sequence);
        context.push(0, frame)
    }
}
