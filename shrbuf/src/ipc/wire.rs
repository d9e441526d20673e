//! The messages, as bytes. `shrbuf/PROTOCOL.md` is the description; `shrbuf/include/shrbuf_ipc.h` the same for C.
//!
//! A message is one packet of a SEQPACKET socket, or a record in a pipe, and has exactly the length of its type; numbers are
//! the machine's own, since both sides are on it. Whatever the bytes are, parsing ends in a message or an error: the fuzz target `wire` and
//! the tests below hold it to that.

use crate::format::{Format, Modifier};
use crate::layout::{Layout, MAX_PLANES, Plane};
use crate::pool::MAX_BUFFERS;
use crate::state::State;

use super::channel::RECORD;
use super::message::{
    ConsumerStatus, FrameInfo, NAME, Overview, Policy, REASONS, Role, ToConsumer, ToProducer, Welcome,
};

use super::packet::{Packet, Reader, WireError};

/// `SHRB`.
const MAGIC: u32 = u32::from_ne_bytes(*b"SHRB");
/// The version of the protocol that this crate speaks.
pub const VERSION: u32 = 4;
/// The lowest version that it speaks: as its own, but without [`Reason::Changed`](super::Reason::Changed) and the page's count of
/// what was dropped.
pub(super) const OLDEST: u32 = 3;

mod kind {
    pub(super) const HELLO: u32 = 1;
    pub(super) const READY: u32 = 2;
    pub(super) const START: u32 = 3;
    pub(super) const STOP: u32 = 4;
    pub(super) const WAKE: u32 = 5;
    pub(super) const QUERY: u32 = 6;
    pub(super) const WELCOME: u32 = 0x81;
    pub(super) const BUFFER: u32 = 0x82;
    pub(super) const FRAME: u32 = 0x83;
    pub(super) const STATE: u32 = 0x84;
    pub(super) const BYE: u32 = 0x85;
    pub(super) const OVERVIEW: u32 = 0x86;
    pub(super) const CONSUMER: u32 = 0x87;
    pub(super) const CHANNEL: u32 = 0x88;
}

const CORRUPT: u32 = 1;
const CROP: u32 = 2;
const FULL_RANGE: u32 = 4;
const NO_MODIFIER: u32 = 1;

impl ToProducer {
    pub(crate) fn encode<'a>(&self, packet: &'a mut Packet) -> &'a [u8] {
        match *self {
            ToProducer::Hello { version, role, policy, window, name } => {
                let role = if role == Role::Monitor { 1 } else { 0 };
                packet.begin(kind::HELLO).u32(MAGIC).u32(version).u32(role);
                packet.u32(policy.map_or(0, policy_code)).u32(window).raw(&name)
            }
            ToProducer::Ready { buffers } => packet.begin(kind::READY).u32(buffers),
            ToProducer::Start => packet.begin(kind::START),
            ToProducer::Stop => packet.begin(kind::STOP),
            ToProducer::Wake => packet.begin(kind::WAKE),
            ToProducer::Query => packet.begin(kind::QUERY),
        };
        packet.bytes()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<ToProducer, WireError> {
        let mut r = Reader::new(bytes, |kind| {
            Some(match kind {
                kind::HELLO => 24 + NAME,
                kind::READY => 8,
                kind::START | kind::STOP | kind::WAKE | kind::QUERY => 4,
                _ => return None,
            })
        })?;
        Ok(match r.kind {
            kind::HELLO => {
                let magic = r.u32();
                r.check("magic", magic, magic == MAGIC)?;
                let (version, role, policy, window) = (r.u32(), r.u32(), r.u32(), r.u32());
                r.check("role", role, role <= 1)?;
                let role = if role == 1 { Role::Monitor } else { Role::Consumer };
                let policy = if policy == 0 { None } else { Some(r.policy(policy)?) };
                ToProducer::Hello { version, role, policy, window, name: r.array() }
            }
            kind::READY => ToProducer::Ready { buffers: r.u32() },
            kind::START => ToProducer::Start,
            kind::STOP => ToProducer::Stop,
            kind::WAKE => ToProducer::Wake,
            _ => ToProducer::Query,
        })
    }
}

impl ToConsumer {
    pub(crate) fn encode<'a>(&self, packet: &'a mut Packet) -> &'a [u8] {
        match self {
            ToConsumer::Welcome(w) => {
                let (num, den) = w.rate.unwrap_or((0, 0));
                packet.begin(kind::WELCOME).u32(w.version).u32(w.id).u32(policy_code(w.policy));
                packet.u32(w.window).u32(w.buffers).u32(num).u32(den)
            }
            ToConsumer::Buffer { index, layout } => encode_buffer(packet, *index, layout),
            ToConsumer::Channel { pipe } => packet.begin(kind::CHANNEL).u32(u32::from(*pipe)),
            ToConsumer::Frame { buffer, state, dropped, info, late } => {
                let corrupt = if info.corrupt { CORRUPT } else { 0 };
                let full_range = if info.full_range { FULL_RANGE } else { 0 };
                let flags = corrupt | full_range | if info.crop.is_some() { CROP } else { 0 };
                packet.begin(kind::FRAME).u32(*buffer).u64(info.sequence).u64(info.timestamp).u64(*dropped);
                packet.u32(flags).u32(u32::from(info.matrix)).u32(*state as u32);
                info.crop.unwrap_or_default().into_iter().fold(&mut *packet, |packet, n| packet.u32(n)).u32(*late)
            }
            ToConsumer::State { buffer, state } => {
                packet.begin(kind::STATE).u32(*buffer).u32(*state as u32).raw(&[0; RECORD - 12])
            }
            ToConsumer::Bye { reason, version } => {
                let code = REASONS.iter().position(|r| r == reason).unwrap_or(0) as u32;
                packet.begin(kind::BYE).u32(code | u32::from(*version) << 16)
            }
            ToConsumer::Overview(o) => {
                packet.begin(kind::OVERVIEW).u32(o.consumers).u32(o.buffers).u32(o.pid);
                packet.u64(o.frames).u64(o.unseen).u64(o.refused).u64(o.now).u64(o.since)
            }
            ToConsumer::Consumer(c) => {
                packet.begin(kind::CONSUMER).u32(c.id).u32(c.pid).u32(c.uid).u32(policy_code(c.policy));
                packet.u32(u32::from(c.started)).u32(c.window).u32(c.pending).raw(&c.name).u64(c.since);
                packet.u64(c.sent).u64(c.released).u64(c.dropped).u64(c.skipped);
                c.held_since.iter().fold(&mut *packet, |packet, &since| packet.u64(since))
            }
        };
        packet.bytes()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<ToConsumer, WireError> {
        let mut r = Reader::new(bytes, |kind| {
            Some(match kind {
                kind::WELCOME => 32,
                kind::BUFFER => 40 + 12 * MAX_PLANES,
                kind::FRAME | kind::STATE => RECORD,
                kind::CHANNEL | kind::BYE => 8,
                kind::OVERVIEW => 56,
                kind::CONSUMER => 72 + NAME + 8 * MAX_BUFFERS,
                _ => return None,
            })
        })?;
        Ok(match r.kind {
            kind::WELCOME => {
                let (version, id, policy) = (r.u32(), r.u32(), r.u32());
                let policy = r.policy(policy)?;
                let (window, buffers, num, den) = (r.u32(), r.u32(), r.u32(), r.u32());
                let rate = (num != 0 && den != 0).then_some((num, den));
                ToConsumer::Welcome(Welcome { version, id, policy, window, buffers, rate })
            }
            kind::BUFFER => r.buffer()?,
            kind::CHANNEL => {
                let pipe = r.u32();
                r.check("pipe", pipe, pipe <= 1)?;
                ToConsumer::Channel { pipe: pipe == 1 }
            }
            kind::FRAME => r.frame()?,
            kind::STATE => {
                let (buffer, state) = (r.u32(), r.u32());
                ToConsumer::State { buffer, state: r.state(state)? }
            }
            kind::BYE => {
                let word = r.u32();
                let (code, version) = ((word & 0xffff) as usize, (word >> 16) as u16);
                let reason = REASONS.get(code).copied();
                let reason = reason.ok_or_else(|| r.wrong("reason", u64::from(word)))?;
                ToConsumer::Bye { reason, version }
            }
            kind::OVERVIEW => ToConsumer::Overview(Overview {
                consumers: r.u32(),
                buffers: r.u32(),
                pid: r.u32(),
                frames: r.u64(),
                unseen: r.u64(),
                refused: r.u64(),
                now: r.u64(),
                since: r.u64(),
            }),
            _ => {
                let (id, pid, uid, policy, started) = (r.u32(), r.u32(), r.u32(), r.u32(), r.u32());
                let policy = r.policy(policy)?;
                r.check("started", started, started <= 1)?;
                ToConsumer::Consumer(Box::new(ConsumerStatus {
                    id,
                    pid,
                    uid,
                    policy,
                    started: started == 1,
                    window: r.u32(),
                    pending: r.u32(),
                    name: r.array(),
                    since: r.u64(),
                    sent: r.u64(),
                    released: r.u64(),
                    dropped: r.u64(),
                    skipped: r.u64(),
                    held_since: std::array::from_fn(|_| r.u64()),
                }))
            }
        })
    }
}

fn encode_buffer<'a>(packet: &'a mut Packet, index: u32, layout: &Layout) -> &'a mut Packet {
    let mut name = [0; 8];
    for (to, from) in name.iter_mut().zip(layout.format.name().bytes()) {
        *to = from;
    }
    let flags = if layout.modifier.is_none() { NO_MODIFIER } else { 0 };
    packet.begin(kind::BUFFER).u32(index).raw(&name).u64(layout.modifier.map_or(0, |m| m.0));
    packet.u32(layout.width).u32(layout.height).u32(layout.segments() as u32).u32(flags);
    let planes = layout.planes();
    (0..MAX_PLANES)
        .map(|i| planes.get(i).copied().unwrap_or_default())
        .fold(packet, |packet, plane| packet.u32(u32::from(plane.segment)).u32(plane.offset).u32(plane.stride))
}

fn policy_code(policy: Policy) -> u32 {
    match policy {
        Policy::Block => 1,
        Policy::DropOldest => 2,
        Policy::Latest => 3,
    }
}

impl Reader<'_> {
    fn policy(&self, code: u32) -> Result<Policy, WireError> {
        match code {
            1 => Ok(Policy::Block),
            2 => Ok(Policy::DropOldest),
            3 => Ok(Policy::Latest),
            _ => Err(self.wrong("policy", u64::from(code))),
        }
    }

    fn state(&self, code: u32) -> Result<State, WireError> {
        let all = [State::Empty, State::Filling, State::Filled, State::Corrupt];
        all.into_iter().find(|&s| s as u32 == code).ok_or_else(|| self.wrong("state", u64::from(code)))
    }

    fn buffer(&mut self) -> Result<ToConsumer, WireError> {
        let (index, name, modifier) = (self.u32(), self.array::<8>(), self.u64());
        let (width, height, segments, flags) = (self.u32(), self.u32(), self.u32(), self.u32());
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        let format = std::str::from_utf8(&name[..end]).ok().and_then(|name| name.parse::<Format>().ok());
        // How much of a compressed frame's buffer is frame would not travel along.
        let format = format.filter(|f| !f.is_compressed());
        let format = format.ok_or_else(|| self.wrong("format", u64::from_ne_bytes(name)))?;
        self.check("flags", flags, flags & !NO_MODIFIER == 0)?;
        let modifier = (flags & NO_MODIFIER == 0).then_some(Modifier(modifier));
        let mut planes = [Plane::default(); MAX_PLANES];
        for plane in &mut planes {
            let segment = self.u32();
            self.check("segment", segment, segment < MAX_PLANES as u32)?;
            *plane = Plane { segment: segment as u8, offset: self.u32(), stride: self.u32() };
        }
        let layout = Layout::new(format, modifier, width, height, &planes[..format.planes().len()])?;
        self.check("segments", segments, segments as usize == layout.segments())?;
        Ok(ToConsumer::Buffer { index, layout })
    }

    fn frame(&mut self) -> Result<ToConsumer, WireError> {
        let (buffer, sequence, timestamp, dropped) = (self.u32(), self.u64(), self.u64(), self.u64());
        let (flags, matrix, state) = (self.u32(), self.u32(), self.u32());
        self.check("flags", flags, flags & !(CORRUPT | CROP | FULL_RANGE) == 0)?;
        self.check("matrix", matrix, matrix <= u32::from(u8::MAX))?;
        let state = self.state(state)?;
        let crop: [u32; 4] = std::array::from_fn(|_| self.u32());
        let info = FrameInfo {
            timestamp,
            sequence,
            matrix: matrix as u8,
            full_range: flags & FULL_RANGE != 0,
            crop: (flags & CROP != 0).then_some(crop),
            corrupt: flags & CORRUPT != 0,
        };
        Ok(ToConsumer::Frame { buffer, state, dropped, info, late: self.u32() })
    }
}

/// For the fuzz target.
#[doc(hidden)]
pub mod fuzzing {
    use super::{Packet, ToConsumer, ToProducer};

    /// Parses bytes as a message in each direction; one that is accepted has to say the same once encoded.
    ///
    /// # Panics
    /// Where it does not.
    pub fn parse(bytes: &[u8]) {
        let mut packet = Packet::default();
        if let Ok(message) = ToProducer::parse(bytes) {
            assert_eq!(ToProducer::parse(message.encode(&mut packet)), Ok(message));
        }
        if let Ok(message) = ToConsumer::parse(bytes) {
            assert_eq!(ToConsumer::parse(message.encode(&mut packet)), Ok(message));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn to_producer() -> Vec<ToProducer> {
        let hello = |role, policy| ToProducer::Hello { version: 3, role, policy, window: 7, name: [b'n'; NAME] };
        vec![
            hello(Role::Consumer, None),
            hello(Role::Consumer, Some(Policy::Block)),
            hello(Role::Monitor, Some(Policy::DropOldest)),
            hello(Role::Monitor, Some(Policy::Latest)),
            ToProducer::Ready { buffers: 9 },
            ToProducer::Start,
            ToProducer::Stop,
            ToProducer::Wake,
            ToProducer::Query,
        ]
    }

    fn to_consumer() -> Vec<ToConsumer> {
        let info =
            FrameInfo { timestamp: 1 << 60, sequence: u64::MAX, matrix: 9, full_range: true, ..Default::default() };
        let cropped = FrameInfo { crop: Some([1, 2, 3, u32::MAX]), corrupt: true, full_range: false, ..info };
        let frame = |info, state| ToConsumer::Frame { buffer: 5, state, dropped: 1 << 40, info, late: 3 };
        let welcome = |policy, rate| Welcome { version: 1, id: 2, policy, window: 3, buffers: 64, rate };
        let status = ConsumerStatus {
            id: 1,
            pid: 2,
            uid: 3,
            name: [b'x'; NAME],
            policy: Policy::Latest,
            started: true,
            window: 4,
            pending: 5,
            since: 6,
            sent: 7,
            released: 8,
            dropped: 9,
            skipped: 10,
            held_since: std::array::from_fn(|i| i as u64),
        };
        let overview =
            Overview { consumers: 1, buffers: 2, pid: 3, frames: 4, unseen: 5, refused: 6, now: 7, since: 8 };
        let mut all = vec![
            ToConsumer::Welcome(welcome(Policy::Block, Some((30000, 1001)))),
            ToConsumer::Welcome(welcome(Policy::Latest, None)),
            frame(info, State::Filled),
            frame(cropped, State::Filling),
            ToConsumer::Channel { pipe: false },
            ToConsumer::Channel { pipe: true },
            ToConsumer::State { buffer: 1, state: State::Corrupt },
            ToConsumer::State { buffer: 1, state: State::Empty },
            ToConsumer::Overview(overview),
            ToConsumer::Consumer(Box::new(status)),
        ];
        all.extend(REASONS.map(|reason| ToConsumer::Bye { reason, version: 3 }));
        all.extend(Format::all().map(|format| {
            let mut layout = Layout::linear(format, 1281, 721, 64).unwrap();
            layout.modifier = None;
            ToConsumer::Buffer { index: 7, layout }
        }));
        let mut tiled = Layout::linear(Format::Nv12, 64, 64, 1).unwrap();
        tiled.modifier = Some(Modifier(1 << 56 | 1));
        all.push(ToConsumer::Buffer { index: 0, layout: tiled });
        all
    }

    #[test]
    fn every_message_survives_the_wire() {
        let mut packet = Packet::default();
        for message in to_producer() {
            assert_eq!(ToProducer::parse(message.encode(&mut packet)), Ok(message));
        }
        for message in to_consumer() {
            assert_eq!(ToConsumer::parse(message.encode(&mut packet)), Ok(message));
        }
    }

    #[test]
    fn a_byte_more_or_less_is_refused() {
        let mut packet = Packet::default();
        let mut all: Vec<Vec<u8>> = to_producer().iter().map(|m| m.encode(&mut packet).to_vec()).collect();
        all.extend(to_consumer().iter().map(|m| m.encode(&mut packet).to_vec()));
        for bytes in all {
            let short = &bytes[..bytes.len() - 1];
            let long = [&bytes[..], &[0]].concat();
            for wrong in [short, &long] {
                assert!(ToProducer::parse(wrong).is_err() && ToConsumer::parse(wrong).is_err(), "{wrong:?}");
            }
        }
    }

    #[test]
    fn random_bytes_are_an_error_or_a_message_that_encodes_back() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut packet = Packet::default();
        let mut all: Vec<Vec<u8>> = to_producer().iter().map(|m| m.encode(&mut packet).to_vec()).collect();
        all.extend(to_consumer().iter().map(|m| m.encode(&mut packet).to_vec()));
        let mut taken = 0;
        let rounds = if cfg!(miri) { 300 } else { 200_000 };
        for i in 0..rounds {
            let mut bytes = all[i % all.len()].clone();
            for _ in 0..1 + random() % 3 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            if let Ok(message) = ToProducer::parse(&bytes) {
                taken += 1;
                assert_eq!(ToProducer::parse(message.encode(&mut packet)), Ok(message));
            }
            if let Ok(message) = ToConsumer::parse(&bytes) {
                taken += 1;
                assert_eq!(ToConsumer::parse(message.encode(&mut packet)), Ok(message));
            }
        }
        assert!(taken > rounds / 20, "only {taken} were messages");
    }
}
