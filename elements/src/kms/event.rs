//! Flip events: the kernel's word that a commit is on screen, and when.

use std::io;
use std::os::fd::AsFd;

use drm::control::crtc;

use super::device::Card;

/// Where events are read to; one for each reader, used again and again.
pub struct EventBuffer {
    bytes: [u8; EventBuffer::BYTES],
}

impl EventBuffer {
    /// Room for 32 events: many displays' worth, since each CRTC has at most one flip under way.
    const BYTES: usize = 1024;

    /// An empty buffer.
    pub fn new() -> EventBuffer {
        EventBuffer { bytes: [0; EventBuffer::BYTES] }
    }
}

impl Default for EventBuffer {
    fn default() -> EventBuffer {
        EventBuffer::new()
    }
}

/// A commit is on screen (`DRM_EVENT_FLIP_COMPLETE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlipEvent {
    /// The display's frame counter; it wraps around.
    pub sequence: u32,
    /// CLOCK_MONOTONIC nanoseconds of the first pixel's scan-out, to the microsecond, as the kernel gives it.
    pub time_ns: u64,
    /// Which display; `None` from kernels before 4.12.
    pub crtc: Option<crtc::Handle>,
    /// The number that was given with the commit.
    pub user_data: u64,
}

impl Card {
    /// Reads the events that have come: one read(2), which never blocks and gives an empty list where there are none.
    /// Poll the card for input to know when. Events of all the card's displays come here.
    ///
    /// # Errors
    /// That of read(2).
    pub fn read_events<'b>(&self, buffer: &'b mut EventBuffer) -> io::Result<FlipEvents<'b>> {
        loop {
            match nix::unistd::read(self.as_fd(), &mut buffer.bytes) {
                Ok(length) => return Ok(FlipEvents { bytes: &buffer.bytes[..length] }),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return Ok(FlipEvents { bytes: &[] }),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// The flip events in a buffer; other events are passed over.
#[derive(Debug)]
pub struct FlipEvents<'b> {
    bytes: &'b [u8],
}

impl Iterator for FlipEvents<'_> {
    type Item = FlipEvent;

    fn next(&mut self) -> Option<FlipEvent> {
        const FLIP_COMPLETE: u32 = 2;
        // struct drm_event { type, length }, then struct drm_event_vblank { user_data, tv_sec, tv_usec, sequence, crtc }.
        loop {
            let length = word(self.bytes, 4)? as usize;
            if length < 8 {
                return None;
            }
            let (event, rest) = self.bytes.split_at_checked(length)?;
            self.bytes = rest;
            if word(event, 0)? == FLIP_COMPLETE {
                return Some(FlipEvent {
                    user_data: u64::from_ne_bytes(event.get(8..16)?.try_into().ok()?),
                    time_ns: u64::from(word(event, 16)?) * 1_000_000_000 + u64::from(word(event, 20)?) * 1000,
                    sequence: word(event, 24)?,
                    crtc: drm::control::from_u32(word(event, 28)?),
                });
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u32, user_data: u64, words: [u32; 4]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(kind.to_ne_bytes());
        out.extend(32u32.to_ne_bytes());
        out.extend(user_data.to_ne_bytes());
        words.iter().for_each(|w| out.extend(w.to_ne_bytes()));
        out
    }

    #[test]
    fn flips_are_read_and_other_events_passed_over() {
        let mut bytes = event(2, 7, [3, 5, 9, 40]);
        bytes.extend(event(1, 0, [0; 4]));
        bytes.extend(event(2, u64::MAX, [0, 0, 10, 0]));
        let events: Vec<FlipEvent> = FlipEvents { bytes: &bytes }.collect();
        let first = FlipEvent { sequence: 9, time_ns: 3_000_005_000, crtc: drm::control::from_u32(40), user_data: 7 };
        assert_eq!(events, [first, FlipEvent { sequence: 10, time_ns: 0, crtc: None, user_data: u64::MAX }]);
    }

    #[test]
    fn a_cut_or_senseless_event_ends_the_list() {
        let good = event(2, 7, [0; 4]);
        for length in 0..good.len() {
            assert_eq!(FlipEvents { bytes: &good[..length] }.count(), 0, "{length} bytes");
        }
        let mut short = good;
        short[4..8].copy_from_slice(&0u32.to_ne_bytes());
        assert_eq!(FlipEvents { bytes: &short }.count(), 0);
    }
}
