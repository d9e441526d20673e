//! The Wayland protocol as bytes: requests to the compositor, and its events.
//!
//! Spoken here and not by a crate, since a window's frame is half a dozen requests and as many events: around each of these
//! wayland-client takes locks and makes objects, and it calls the kernel twice for every time that there is something to
//! read. Its constants are used. A request is a row of words that waits to be sent; an event is read where it lies.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use shrbuf::rights::{self, Received};

use super::error::WaylandError;
use super::object::{Id, Kind, Objects};

/// Room for requests: far more than a frame's.
const OUT: usize = 4096;
/// Room for events. The longest that a message can say it is.
const IN: usize = 1 << 16;
/// A message's first two words: its object; its size and opcode.
const HEADER: usize = 8;
/// No text of ours is longer; libwayland ends the connection over a message of more than 4096 bytes.
const LONGEST_TEXT: usize = 1024;

/// An argument of a request.
#[derive(Debug)]
pub(super) enum Arg<'a> {
    Int(i32),
    Uint(u32),
    /// With 8 bits behind the point.
    Fixed(f64),
    /// Cut where it is too long, or holds a NUL.
    Text(&'a str),
    Id(Id),
    /// No object.
    Null,
    Fd(OwnedFd),
}

/// Objects that were dropped, by whichever thread: the compositor is told with what is sent next.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    any: AtomicBool,
    /// With their destructor.
    objects: Mutex<Vec<(Id, u16)>>,
}

/// An object that is destroyed when it is dropped.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) id: Id,
    destructor: u16,
    dropped: Arc<Dropped>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.dropped.objects.lock().unwrap_or_else(PoisonError::into_inner).push((self.id, self.destructor));
        self.dropped.any.store(true, Ordering::Release);
    }
}

/// The way to the compositor.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Arc<UnixStream>,
    out: Vec<u8>,
    fds: Vec<OwnedFd>,
    objects: Objects,
    dropped: Arc<Dropped>,
}

impl Wire {
    pub(super) fn new(socket: Arc<UnixStream>) -> Wire {
        let (out, fds) = (Vec::with_capacity(OUT), Vec::with_capacity(rights::MOST));
        Wire { socket, out, fds, objects: Objects::new(), dropped: Arc::default() }
    }

    /// Has `of` do something, with the next [`flush`](Self::flush).
    pub(super) fn request<const N: usize>(&mut self, of: Id, opcode: u16, args: [Arg<'_>; N]) {
        let start = self.out.len();
        self.word(of.0);
        self.word(0);
        for arg in args {
            match arg {
                Arg::Int(n) => self.word(n as u32),
                Arg::Uint(n) => self.word(n),
                Arg::Fixed(n) => self.word((n * 256.0).round() as i32 as u32),
                Arg::Text(text) => self.text(text),
                Arg::Id(id) => self.word(id.0),
                Arg::Null => self.word(0),
                Arg::Fd(fd) => self.fds.push(fd),
            }
        }
        let size = (self.out.len() - start) as u32;
        self.out[start + 4..start + HEADER].copy_from_slice(&(size << 16 | u32::from(opcode)).to_ne_bytes());
    }

    fn word(&mut self, word: u32) {
        self.out.extend_from_slice(&word.to_ne_bytes());
    }

    /// Its length with the NUL, itself, the NUL, up to a whole word.
    fn text(&mut self, text: &str) {
        let text = text.split('\0').next().unwrap_or_default();
        let whole = (0..=LONGEST_TEXT.min(text.len())).rfind(|&end| text.is_char_boundary(end)).unwrap_or(0);
        self.word(whole as u32 + 1);
        self.out.extend_from_slice(&text.as_bytes()[..whole]);
        self.out.push(0);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }

    /// The number of a new object, for the request that makes it.
    pub(super) fn new_object(&mut self, kind: Kind) -> Id {
        self.objects.add(kind)
    }

    /// Has `object` be destroyed when what this returns is dropped.
    pub(super) fn owned(&self, object: Id, destructor: u16) -> Owned {
        Owned { id: object, destructor, dropped: Arc::clone(&self.dropped) }
    }

    /// Asks for an object's end; its last events may still come.
    pub(super) fn destroy(&mut self, object: Id, destructor: u16) {
        self.request(object, destructor, []);
        self.objects.destroyed(object);
    }

    /// What the compositor's events are of.
    pub(super) fn objects(&mut self) -> &mut Objects {
        &mut self.objects
    }

    /// Sends what there is, as far as the socket takes it: false where it is full.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        if self.dropped.any.load(Ordering::Relaxed) && self.dropped.any.swap(false, Ordering::Acquire) {
            let dropped = std::mem::take(&mut *self.dropped.objects.lock().unwrap_or_else(PoisonError::into_inner));
            dropped.into_iter().for_each(|(object, destructor)| self.destroy(object, destructor));
        }
        let mut sent = 0;
        let mut result = Ok(());
        while sent < self.out.len() {
            // Those that one message has no room for go before, with a byte each time: every descriptor has come then when its
            // request has.
            let crowded = self.fds.len() > rights::MOST;
            let (fds, end) = if crowded { (rights::MOST, sent + 1) } else { (self.fds.len(), self.out.len()) };
            match rights::send(self.socket.as_fd(), &self.out[sent..end], &self.fds[..fds]) {
                Ok(bytes) => {
                    sent += bytes;
                    self.fds.drain(..fds);
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.out.drain(..sent);
        match result {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(self.out.is_empty()),
        }
    }
}

/// The way from the compositor.
#[derive(Debug)]
pub(super) struct Input {
    socket: Arc<UnixStream>,
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    fds: VecDeque<OwnedFd>,
}

impl Input {
    pub(super) fn new(socket: Arc<UnixStream>) -> Input {
        let (bytes, fds) = (vec![0; IN].into(), VecDeque::with_capacity(rights::MOST));
        Input { socket, bytes, start: 0, end: 0, fds }
    }

    /// Takes what has come, without waiting. True where more may have.
    ///
    /// # Errors
    /// That of recvmsg(2); `UnexpectedEof` where the compositor has closed the connection.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let fds = self.fds.len();
        let room = self.bytes.len() - self.end;
        let (into, take) = (&mut self.bytes[self.end..], |fd| self.fds.push_back(fd));
        let bytes = match rights::receive(self.socket.as_fd(), into, rights::MOST, take) {
            Ok(Received { whole: false, .. }) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "descriptors of the compositor's did not arrive",
                ));
            }
            Ok(Received { len: 0, .. }) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Received { len, .. }) => len,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        };
        self.end += bytes;
        // What came with descriptors is not read together with what came after it.
        Ok(bytes == room || self.fds.len() > fds)
    }

    /// The next event, where all of it has come.
    ///
    /// # Errors
    /// [`WaylandError::BadMessage`].
    pub(super) fn event(&mut self) -> Result<Option<Event<'_>>, WaylandError> {
        let Some((header, _)) = self.bytes[self.start..self.end].split_first_chunk::<HEADER>() else { return Ok(None) };
        let words = header.as_chunks::<4>().0;
        let [of, second] = [words[0], words[1]].map(u32::from_ne_bytes);
        let (size, opcode) = ((second >> 16) as usize, second as u16);
        if size < HEADER || size % 4 != 0 {
            return Err(WaylandError::BadMessage(format!("an event of {size} bytes")));
        }
        if self.end - self.start < size {
            return Ok(None);
        }
        let body = &self.bytes[self.start + HEADER..self.start + size];
        self.start += size;
        Ok(Some(Event { of: Id(of), opcode, body, fds: &mut self.fds }))
    }
}

/// An event, of which the arguments are taken one by one.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub(super) of: Id,
    pub(super) opcode: u16,
    body: &'a [u8],
    fds: &'a mut VecDeque<OwnedFd>,
}

impl<'a> Event<'a> {
    #[cold]
    fn short(&self) -> WaylandError {
        WaylandError::BadMessage(format!("event {} of object {} ends too early", self.opcode, self.of.0))
    }

    pub(super) fn uint(&mut self) -> Result<u32, WaylandError> {
        let (word, rest) = self.body.split_first_chunk().ok_or_else(|| self.short())?;
        self.body = rest;
        Ok(u32::from_ne_bytes(*word))
    }

    pub(super) fn int(&mut self) -> Result<i32, WaylandError> {
        self.uint().map(|n| n as i32)
    }

    pub(super) fn id(&mut self) -> Result<Id, WaylandError> {
        self.uint().map(Id)
    }

    pub(super) fn array(&mut self) -> Result<&'a [u8], WaylandError> {
        let length = self.uint()? as usize;
        let (whole, rest) = self.body.split_at_checked(length.next_multiple_of(4)).ok_or_else(|| self.short())?;
        self.body = rest;
        Ok(&whole[..length])
    }

    pub(super) fn text(&mut self) -> Result<String, WaylandError> {
        let bytes = self.array()?;
        Ok(String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned())
    }

    pub(super) fn fd(&mut self) -> Result<OwnedFd, WaylandError> {
        self.fds.pop_front().ok_or_else(|| self.short())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn pair() -> (Wire, Input) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Wire::new(ours.into()), Input::new(theirs.into()))
    }

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn what_is_sent_is_what_comes() {
        let (mut wire, mut input) = pair();
        let args = [Arg::Uint(7), Arg::Int(-2), Arg::Fixed(-1.5), Arg::Text("four"), Arg::Null, Arg::Id(Id(3))];
        wire.request(Id(9), 4, args);
        wire.request(Id(1), 0, [Arg::Fd(fd()), Arg::Text("a\0b")]);
        assert!(wire.flush().unwrap());

        assert!(input.fill().unwrap(), "descriptors came");
        let mut event = input.event().unwrap().unwrap();
        assert_eq!((event.of, event.opcode), (Id(9), 4));
        assert_eq!((event.uint().unwrap(), event.int().unwrap()), (7, -2));
        assert_eq!(f64::from(event.int().unwrap()) / 256.0, -1.5);
        assert_eq!((event.text().unwrap().as_str(), event.uint().unwrap(), event.id().unwrap()), ("four", 0, Id(3)));
        assert!(event.uint().is_err());
        let mut event = input.event().unwrap().unwrap();
        assert_eq!((event.of, event.opcode), (Id(1), 0));
        assert!(event.fd().is_ok() && event.fd().is_err());
        assert_eq!(event.text().unwrap(), "a");
        assert!(input.event().unwrap().is_none());
        assert!(!input.fill().unwrap());
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_two_characters() {
        let (mut wire, mut input) = pair();
        let text = "a".to_owned() + &"ä".repeat(LONGEST_TEXT);
        wire.request(Id(1), 0, [Arg::Text(&text)]);
        wire.flush().unwrap();
        input.fill().unwrap();

        assert_eq!(input.event().unwrap().unwrap().text().unwrap(), &text[..LONGEST_TEXT - 1]);
    }

    #[test]
    fn more_descriptors_than_a_message_has_room_for_come_in_order() {
        let (mut wire, mut input) = pair();
        for n in 0..70 {
            wire.request(Id(1), 0, [Arg::Uint(n), Arg::Fd(fd())]);
        }
        assert!(wire.flush().unwrap());

        let mut seen = 0;
        while input.fill().unwrap() {
            while let Some(mut event) = input.event().unwrap() {
                assert_eq!(event.uint().unwrap(), seen);
                event.fd().unwrap();
                seen += 1;
            }
        }
        assert_eq!((seen, input.fds.len()), (70, 0));
    }

    #[test]
    fn half_an_event_is_none_yet() {
        let (theirs, ours) = UnixStream::pair().unwrap();
        let mut input = Input::new(ours.into());
        let event: Vec<u8> = [5u32, 12 << 16 | 3, 77].iter().flat_map(|w| w.to_ne_bytes()).collect();
        for byte in &event[..11] {
            (&theirs).write_all(&[*byte]).unwrap();
            input.fill().unwrap();
            assert!(input.event().unwrap().is_none());
        }
        (&theirs).write_all(&event[11..]).unwrap();
        input.fill().unwrap();

        let mut event = input.event().unwrap().unwrap();
        assert_eq!((event.of, event.opcode, event.uint().unwrap()), (Id(5), 3, 77));
    }

    #[test]
    fn senseless_events_are_errors() {
        for size in [0u32, 4, 9] {
            let (theirs, ours) = UnixStream::pair().unwrap();
            let mut input = Input::new(ours.into());
            let header: Vec<u8> = [5, size << 16].iter().flat_map(|w| w.to_ne_bytes()).collect();
            (&theirs).write_all(&header).unwrap();
            input.fill().unwrap();
            assert!(matches!(input.event(), Err(WaylandError::BadMessage(_))), "{size} bytes");
        }
    }

    #[test]
    fn an_array_that_is_longer_than_its_event_is_an_error() {
        for length in [5, u32::MAX] {
            let (mut wire, mut input) = pair();
            wire.request(Id(1), 0, [Arg::Uint(length), Arg::Uint(0)]);
            wire.flush().unwrap();
            input.fill().unwrap();
            assert!(input.event().unwrap().unwrap().array().is_err(), "{length}");
        }
    }

    #[test]
    fn a_connection_that_was_closed_is_an_error() {
        let (theirs, ours) = UnixStream::pair().unwrap();
        let mut input = Input::new(ours.into());
        drop(theirs);
        assert_eq!(input.fill().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_dropped_is_destroyed_with_what_is_sent_next() {
        let (mut wire, mut input) = pair();
        let object = wire.new_object(Kind::Buffer);
        drop(wire.owned(object, 6));
        wire.flush().unwrap();
        input.fill().unwrap();

        let event = input.event().unwrap().unwrap();
        assert_eq!((event.of, event.opcode), (object, 6));
    }
}
