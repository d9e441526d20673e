//! An element that sees every frame go by.

use shrbuf_pipeline::{Context, Element, Failure, Frame, Ports, Role};

type OnFrame = Box<dyn FnMut(&Frame) + Send>;

/// Passes every frame on, having shown it to the test.
pub struct Watch(OnFrame);

impl Watch {
    /// `on_frame` is called for each frame, on its domain's thread.
    pub fn new(on_frame: impl FnMut(&Frame) + Send + 'static) -> Box<Watch> {
        Box::new(Watch(Box::new(on_frame)))
    }
}

impl Element for Watch {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        (self.0)(&frame);
        context.push(0, frame)
    }
}
