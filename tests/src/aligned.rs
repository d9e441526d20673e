//! A consumer that takes no other rows than of a multiple of so many bytes, as some GPUs and displays do.

use shrbuf::Format;
use shrbuf_pipeline::{Consumes, Context, Element, Failure, Frame, InputOffer, Ports, Video, Wanted};

/// Drops every frame.
pub struct Aligned {
    /// Bytes.
    pub rows: u32,
}

impl Element for Aligned {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        let video = Format::all().map(Video::linear).collect();
        let memory = Consumes { stride_align: self.rows, ..Consumes::cpu() };
        Ok(InputOffer { video, memory, wanted: Wanted::default(), natural: None })
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }

    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        context.finish();
        Ok(())
    }
}
