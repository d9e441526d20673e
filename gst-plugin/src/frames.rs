//! Frames of a producer as GStreamer's.

use gst::glib;
use shrbuf::ipc::Received;
use shrbuf_gst_memory::Lender;

/// The frame in the producer's memory, which goes back when the last memory that was made of it is freed.
pub(crate) fn lend(lender: &Lender, received: Received) -> Result<gst::Buffer, glib::BoolError> {
    let Received { buffer: frame, info } = received;
    let unknown = || glib::bool_error!("buffer {} is not one of the connection's, or is still out", frame.id());
    lender.lend(&frame, &info)?.ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use shrbuf::exporter::Memfd;
    use shrbuf::ipc::FrameInfo;
    use shrbuf::{Format, Layout};

    use super::*;
    use crate::video::Picture;

    #[test]
    fn frame_of_no_buffer_of_the_connection_is_an_error() {
        gst::init().unwrap();
        let layout = Layout::linear(Format::Grey, 64, 48, 1).unwrap();
        let [ours, buffer] = [(); 2].map(|()| Memfd::new("test").allocate(&layout).unwrap());
        let buffers = [ours];
        let lender = Lender::new(&buffers, Picture::of(&buffers, None).unwrap().planes).unwrap();
        let lent = lend(&lender, Received { buffer, info: FrameInfo::default() });
        assert!(lent.unwrap_err().to_string().contains("not one of the connection's"));
    }
}
