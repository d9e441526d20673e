//! Which object has which number.
//!
//! Either side numbers the objects that it makes, the compositor from [`THEIRS`] on. A number of ours is free again when the
//! compositor says so (`wl_display.delete_id`), and not before: events of an object that we have destroyed may be under way.

use shrbuf_pipeline::Timestamp;

/// Number of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(pub(super) u32);

/// The connection itself.
pub(super) const DISPLAY: Id = Id(1);
/// The first number that the compositor gives.
const THEIRS: u32 = 0xff00_0000;
/// More numbers are out of order: the compositor makes no object but those that it was asked for.
const MOST: u32 = 1 << 16;

/// What an object is, and what goes along with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Display,
    Registry,
    /// Of `wl_display.sync`.
    Answer,
    /// Of `wl_surface.frame`.
    Frame,
    Shm,
    Buffer,
    Surface,
    DmaBuf,
    DmaBufFeedback,
    /// The number of the request.
    Params(usize),
    Shell,
    ShellSurface,
    Toplevel,
    Presentation,
    /// The frame's time of capture.
    Feedback(Timestamp),
    /// The number of the commit.
    Release(u64),
    Colors,
    /// No event of this one means anything to us, or it has none.
    Silent(&'static str),
    /// We have destroyed it.
    Destroyed,
}

impl Kind {
    /// In the protocol's words.
    pub(super) fn interface(self) -> &'static str {
        match self {
            Kind::Display => "wl_display",
            Kind::Registry => "wl_registry",
            Kind::Answer | Kind::Frame => "wl_callback",
            Kind::Shm => "wl_shm",
            Kind::Buffer => "wl_buffer",
            Kind::Surface => "wl_surface",
            Kind::DmaBuf => "zwp_linux_dmabuf_v1",
            Kind::DmaBufFeedback => "zwp_linux_dmabuf_feedback_v1",
            Kind::Params(_) => "zwp_linux_buffer_params_v1",
            Kind::Shell => "xdg_wm_base",
            Kind::ShellSurface => "xdg_surface",
            Kind::Toplevel => "xdg_toplevel",
            Kind::Presentation => "wp_presentation",
            Kind::Feedback(_) => "wp_presentation_feedback",
            Kind::Release(_) => "zwp_linux_buffer_release_v1",
            Kind::Colors => "wp_color_representation_manager_v1",
            Kind::Silent(interface) => interface,
            Kind::Destroyed => "a destroyed object",
        }
    }
}

#[derive(Debug)]
pub(super) struct Objects {
    ours: Vec<Option<Kind>>,
    /// Numbers of ours that are free again.
    free: Vec<u32>,
    theirs: Vec<Option<Kind>>,
}

impl Objects {
    pub(super) fn new() -> Objects {
        Objects { ours: vec![None, Some(Kind::Display)], free: Vec::with_capacity(64), theirs: Vec::new() }
    }

    /// The number of a new object of ours.
    pub(super) fn add(&mut self, kind: Kind) -> Id {
        if let Some(number) = self.free.pop() {
            self.ours[number as usize] = Some(kind);
            return Id(number);
        }
        self.ours.push(Some(kind));
        Id(self.ours.len() as u32 - 1)
    }

    fn place(&mut self, Id(number): Id) -> Option<&mut Option<Kind>> {
        match number.checked_sub(THEIRS) {
            Some(theirs) => self.theirs.get_mut(theirs as usize),
            None => self.ours.get_mut(number as usize),
        }
    }

    /// What the compositor has made. False where it cannot have.
    pub(super) fn add_theirs(&mut self, Id(number): Id, kind: Kind) -> bool {
        let Some(at) = number.checked_sub(THEIRS).filter(|&at| at < MOST) else { return false };
        if self.theirs.len() <= at as usize {
            self.theirs.resize(at as usize + 1, None);
        }
        self.theirs[at as usize] = Some(kind);
        true
    }

    /// `None` where there is no such object.
    pub(super) fn kind(&mut self, id: Id) -> Option<Kind> {
        self.place(id).and_then(|place| *place)
    }

    /// We have destroyed it.
    pub(super) fn destroyed(&mut self, id: Id) {
        if let Some(place) = self.place(id) {
            *place = Some(Kind::Destroyed);
        }
    }

    /// The compositor has forgotten that number of ours. False where it was none.
    pub(super) fn deleted(&mut self, id: Id) -> bool {
        let ours = id.0 < THEIRS && id != DISPLAY;
        let is = ours && self.place(id).is_some_and(|place| place.take().is_some());
        if is {
            self.free.push(id.0);
        }
        is
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_again_once_the_compositor_has_forgotten_it() {
        let mut objects = Objects::new();
        let (a, b) = (objects.add(Kind::Surface), objects.add(Kind::Frame));
        assert_eq!((a, b), (Id(2), Id(3)));

        objects.destroyed(a);
        assert_eq!((objects.kind(a), objects.add(Kind::Shm)), (Some(Kind::Destroyed), Id(4)));
        assert!(objects.deleted(a));
        assert_eq!((objects.kind(a), objects.add(Kind::Buffer)), (None, a));
        assert_eq!(objects.kind(a), Some(Kind::Buffer));
    }

    #[test]
    fn what_is_not_there_is_not_forgotten() {
        let mut objects = Objects::new();
        let id = objects.add(Kind::Surface);
        assert!(objects.deleted(id));
        for wrong in [id, Id(0), DISPLAY, Id(77), Id(THEIRS)] {
            assert!(!objects.deleted(wrong), "{wrong:?}");
        }
        assert_eq!(objects.kind(DISPLAY), Some(Kind::Display));
    }

    #[test]
    fn the_compositor_numbers_its_objects_itself() {
        let mut objects = Objects::new();
        assert!(objects.add_theirs(Id(THEIRS + 1), Kind::Buffer));
        assert_eq!((objects.kind(Id(THEIRS)), objects.kind(Id(THEIRS + 1))), (None, Some(Kind::Buffer)));
        for wrong in [Id(2), Id(THEIRS - 1), Id(u32::MAX)] {
            assert!(!objects.add_theirs(wrong, Kind::Buffer), "{wrong:?}");
        }
    }
}
