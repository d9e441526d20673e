//! What GStreamer's bindings have no safe call for: who listens to a signal.

use gst::glib;
use gst::glib::translate::IntoGlib;
use gst::prelude::*;

/// True where somebody is connected to that signal of this very element.
pub(super) fn has_handler(element: &gst::Element, signal: &str) -> bool {
    let Some(signal) = glib::subclass::SignalId::lookup(signal, element.type_()) else { return false };
    // SAFETY: the element lives for the call; with this mask nothing but the signal's number is looked at.
    let found = unsafe {
        glib::gobject_ffi::g_signal_handler_find(
            element.as_ptr().cast(),
            glib::gobject_ffi::G_SIGNAL_MATCH_ID,
            signal.into_glib(),
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    found != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_those_of_one_element_not_of_its_class() {
        gst::init().unwrap();
        let [with, without] = [(); 2].map(|()| gst::ElementFactory::make("identity").build().unwrap());
        with.connect_pad_added(|_, _| {});
        assert_eq!((has_handler(&with, "pad-added"), has_handler(&without, "pad-added")), (true, false));
    }
}
