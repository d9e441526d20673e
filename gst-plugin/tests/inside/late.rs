//! `shrbufsink` behind an upstream that has other memory in mid-stream than it had at first.

use std::fs::File;
use std::os::unix::fs::FileExt;

use gst::prelude::*;
use gst_app::AppSrc;
use shrbuf::exporter::Memfd;
use shrbuf::{Account, Format, Layout, MemoryKind, Shrbuf};
use shrbuf_gst_memory::FdMemories;

use crate::launch::{LONG, Temporary, until};
use crate::roles::{counter, load_plugin};

/// Of a frame. A wider one has fewer rows.
const BYTES: usize = 64 * 48;
pub const WIDTH: u32 = 64;

/// A frame with its number in it, and something of it in each byte.
fn picture(n: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..BYTES).map(|at| (n as usize * 7 + at * 3 + at / 64) as u8).collect();
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    bytes
}

/// The number of such a frame, of which every byte is right.
pub fn read(buffer: &Shrbuf, account: &Account) -> u32 {
    let mut bytes = vec![0; BYTES];
    let read = buffer.read().unwrap();
    for (y, row) in bytes.chunks_exact_mut(buffer.layout().width as usize).enumerate() {
        read.plane(0).read(y, 0, row, account);
    }
    let n = u32::from_le_bytes(bytes[..4].try_into().unwrap());
    assert!(bytes == picture(n), "frame {n} has other bytes");
    n
}

/// One buffer of upstream's own.
pub struct Memory {
    file: File,
    memory: gst::Memory,
    /// The last that was in it.
    frame: gst::Buffer,
}

impl Memory {
    fn new() -> Memory {
        let layout = Layout::linear(Format::Grey, WIDTH, BYTES as u32 / WIDTH, 1).unwrap();
        let fd = Memfd::new("upstream").allocate(&layout).unwrap().export(0).unwrap();
        let file = File::from(fd.try_clone().unwrap());
        let memory = FdMemories::new().wrap(MemoryKind::Memfd, fd, BYTES).unwrap();
        Memory { file, memory, frame: gst::Buffer::new() }
    }

    /// Nobody else has the frame.
    pub fn is_free(&mut self) -> bool {
        self.frame.get_mut().is_some()
    }
}

/// `appsrc ! shrbufsink`.
pub struct Upstream {
    pipeline: gst::Pipeline,
    source: AppSrc,
    pub socket: Temporary,
    next: u32,
}

fn caps(width: u32) -> String {
    format!("video/x-raw,format=GRAY8,width={width},height={},framerate=0/1", BYTES as u32 / width)
}

impl Upstream {
    pub fn start(settings: &str) -> Upstream {
        load_plugin();
        let socket = Temporary::new("late");
        let source = format!("appsrc name=src format=time caps=\"{}\"", caps(WIDTH));
        let line = format!("{source} ! shrbufsink name=sink path={} {settings}", socket.as_str());
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let source = pipeline.by_name("src").unwrap().downcast::<AppSrc>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Upstream { pipeline, source, socket, next: 0 }
    }

    /// Pictures of another width from now on.
    pub fn change(&self, width: u32) {
        self.source.set_caps(Some(&caps(width).parse().unwrap()));
    }

    /// The next picture, in this memory, once nobody has it.
    pub fn push(&mut self, into: &mut Memory) {
        until("the memory's frame before", || into.is_free());
        into.file.write_all_at(&picture(self.next), 0).unwrap();
        let frame = self.frame_in(into);
        into.frame = frame.clone();
        self.push_frame(frame);
    }

    /// A picture of before once more, in the memory that somebody has it in.
    pub fn push_again(&mut self, memory: &Memory) {
        let frame = self.frame_in(memory);
        self.push_frame(frame);
    }

    fn frame_in(&self, memory: &Memory) -> gst::Buffer {
        let mut frame = gst::Buffer::new();
        let writable = frame.get_mut().unwrap();
        writable.append_memory(memory.memory.clone());
        // Or appsrc would send a copy.
        writable.set_pts(gst::ClockTime::from_mseconds(self.next.into()));
        frame
    }

    fn push_frame(&mut self, frame: gst::Buffer) {
        self.source.push_buffer(frame).unwrap();
        self.next += 1;
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.pipeline.by_name("sink").unwrap().property::<gst::Structure>("stats").get(name).unwrap()
    }

    /// What it says next, of such messages.
    fn says(&self, kinds: &[gst::MessageType]) -> String {
        let bus = self.pipeline.bus().unwrap();
        let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(LONG.as_secs()), kinds).unwrap();
        match message.view() {
            gst::MessageView::Error(e) => e.error().to_string() + &e.debug().unwrap_or_default(),
            gst::MessageView::Warning(e) => e.error().to_string() + &e.debug().unwrap_or_default(),
            other => format!("{other:?}"),
        }
    }

    pub fn end(self) {
        self.source.end_of_stream().unwrap();
        let said = self.says(&[gst::MessageType::Eos, gst::MessageType::Error]);
        assert!(said.contains("Eos"), "{said}");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

pub fn memories(count: usize) -> Vec<Memory> {
    (0..count).map(|_| Memory::new()).collect()
}

pub const ALL: &str = "policy=block wait-for=1 consumers=1 window=2";

#[test]
fn memory_that_shows_in_mid_stream_reaches_consumers_whole_and_is_told_of_once() {
    let mut upstream = Upstream::start(ALL);
    let mut pool = memories(3);
    // It is known to be all there is when the first comes again; the frames before that are nobody's.
    for memory in &mut pool {
        upstream.push(memory);
    }
    let (seen, late) = (3 + 20 * 3 + 20 * 5 + 20 * 4 + 70 - 3, 2 + 4 + 70);
    let other = counter(upstream.socket.as_str(), seen, 3 + late);
    (0..20).for_each(|_| pool.iter_mut().for_each(|memory| upstream.push(memory)));
    // It grows.
    pool.extend(memories(2));
    (0..20).for_each(|_| pool.iter_mut().for_each(|memory| upstream.push(memory)));
    until("its frames", || upstream.stat("frames") == 160);
    assert_eq!((upstream.stat("unseen"), upstream.stat("late")), (3, 2));
    // It is another one.
    pool = memories(4);
    (0..20).for_each(|_| pool.iter_mut().for_each(|memory| upstream.push(memory)));
    until("its frames", || upstream.stat("frames") == 240);
    assert_eq!(upstream.stat("late"), 6);
    // It has no end: of more than consumers can know at once, each takes the place of one that has gone.
    (0..70).for_each(|_| upstream.push(&mut Memory::new()));
    let said = upstream.says(&[gst::MessageType::Warning, gst::MessageType::Error]);
    assert!(said.contains("src has passed frames in more than 64 buffers"), "{said}");
    until("its frames", || upstream.stat("frames") == 310);
    assert_eq!((upstream.stat("late"), upstream.stat("copied-frames")), (late as u64, 0));
    upstream.end();
    other.end_well();
}

#[test]
fn memory_that_never_comes_again_is_told_of_when_there_is_room_for_no_more() {
    let mut upstream = Upstream::start(ALL);
    let other = counter(upstream.socket.as_str(), 36, 36);
    (0..100).for_each(|_| upstream.push(&mut Memory::new()));
    until("its frames", || upstream.stat("frames") == 36);
    assert_eq!((upstream.stat("unseen"), upstream.stat("late")), (64, 36));
    upstream.end();
    other.end_well();
}

#[test]
fn consumer_that_is_stopped_holds_an_upstream_whose_pool_grows_and_nothing_is_lost() {
    let mut upstream = Upstream::start(ALL);
    let mut pool = memories(2);
    pool.iter_mut().for_each(|memory| upstream.push(memory));
    let other = counter(upstream.socket.as_str(), 101, 101);
    upstream.push(&mut pool[0]);
    until("a frame that is back", || upstream.stat("sent") == 1 && pool[0].is_free());
    other.stop();
    // Of which there are more than consumers may know.
    (0..100).for_each(|_| upstream.push(&mut Memory::new()));
    // window, one that waits, and `buffers`.
    until("as many as may be out", || upstream.stat("late") == 2 + 1 + 4);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!((upstream.stat("late"), upstream.stat("sent"), upstream.stat("lagged")), (7, 3, 0));
    other.go_on();
    upstream.end();
    other.end_well();
}

/// A frame in memory that upstream was offered.
fn offered(upstream: &Upstream) -> gst::Buffer {
    let pad = upstream.source.static_pad("src").unwrap();
    let mut pool = None;
    until("a pool", || {
        let mut query = gst::query::Allocation::new(pad.current_caps().as_ref(), true);
        let answered = pad.current_caps().is_some() && pad.peer_query(&mut query);
        pool = query.allocation_pools().next().filter(|_| answered).and_then(|(pool, ..)| pool);
        pool.is_some()
    });
    let pool = pool.unwrap();
    pool.set_active(true).unwrap();
    let mut frame = pool.acquire_buffer(None).unwrap();
    frame.get_mut().unwrap().map_writable().unwrap().copy_from_slice(&picture(upstream.next));
    frame
}

#[test]
fn memory_of_upstreams_own_beside_that_which_it_was_offered_is_told_of_too() {
    let mut upstream = Upstream::start(ALL);
    let other = counter(upstream.socket.as_str(), 31, 4);
    let frame = offered(&upstream);
    upstream.push_frame(frame);
    let mut pool = memories(3);
    (0..10).for_each(|_| pool.iter_mut().for_each(|memory| upstream.push(memory)));
    until("its frames", || upstream.stat("frames") == 31);
    assert_eq!((upstream.stat("late"), upstream.stat("copied-frames")), (3, 0));
    upstream.end();
    other.end_well();
}

#[test]
fn memory_of_upstreams_own_for_which_there_is_no_room_is_an_error_that_says_so() {
    let mut upstream = Upstream::start("consumers=1 window=40 buffers=23");
    let frame = offered(&upstream);
    upstream.push_frame(frame);
    upstream.push(&mut Memory::new());
    let said = upstream.says(&[gst::MessageType::Error]);
    let why = "consumers can know 64 buffers, of which 64 are of the pool that it was offered, and 0 may be others";
    assert!(said.contains("src passes frames in memory of its own") && said.contains(why), "{said}");
}

#[test]
fn memory_that_consumers_cannot_have_is_an_error_after_such_that_they_can() {
    let mut upstream = Upstream::start("consumers=1");
    let mut pool = memories(2);
    (0..2).for_each(|_| pool.iter_mut().for_each(|memory| upstream.push(memory)));
    upstream.push_frame(gst::Buffer::with_size(BYTES).unwrap());
    let said = upstream.says(&[gst::MessageType::Error]);
    let why = "src passes a frame in other memory than before, when it was in memfds of its own";
    assert!(said.contains(why) && said.contains("have it allocate more"), "{said}");
}
