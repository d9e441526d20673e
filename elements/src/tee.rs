//! `tee`.

use shrbuf_pipeline::property::{Build, BuildError};
use shrbuf_pipeline::{Context, Element, Failure, Frame, Ports, Role};

shrbuf_pipeline::properties! {
    /// Sends every frame to several consumers, as references to the same memory.
    ///
    /// Outputs `out0`, `out1`, … come into being with the links that begin at it. The consumers are called one after
    /// the other; put a `queue` before one that is slow.
    ///
    /// ```toml
    /// [element.split]
    /// type = "tee"
    ///
    /// [[link]]
    /// path = ["camera", "split", "display"]
    ///
    /// [[link]]
    /// path = ["split", "file"]
    /// queue = { depth = 4, full = "drop-oldest" }
    /// ```
    pub struct Tee = "tee" {}
}

impl Build for Tee {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        Ok(Box::new(TeeElement { outputs: 0 }))
    }
}

struct TeeElement {
    outputs: usize,
}

impl Element for TeeElement {
    fn ports(&self) -> Ports {
        Ports { inputs: vec!["in".into()], outputs: (0..self.outputs).map(|n| format!("out{n}")).collect() }
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn request_output(&mut self) -> Option<usize> {
        self.outputs += 1;
        Some(self.outputs - 1)
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(last) = self.outputs.checked_sub(1) else {
            return Ok(());
        };
        for output in 0..last {
            context.push(output, frame.clone())?;
        }
        context.push(last, frame)
    }
}
