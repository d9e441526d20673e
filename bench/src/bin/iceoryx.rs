//! The peer of `crossing` in Rust: iceoryx2, its publish-subscribe with an event for each sample.
//!
//! `iceoryx send NAME BYTES FRAMES` and `iceoryx receive NAME FRAMES`; the latter prints its one-way latency. As there, nobody
//! writes or reads a picture; the subscriber holds one sample, and what it has missed is gone.

use iceoryx2::prelude::*;
use shrbuf_bench::Result;
use shrbuf_bench::pace::{latency, timer};
use shrbuf_pipeline::Timestamp;

/// When it was sent, and how many come after it.
type Header = [u64; 2];

/// Samples that wait for a subscriber: as `ipc-sink` with `latest`.
const WAITING: usize = 1;

type Pictures = iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, [u8], Header>;
type Arrivals = iceoryx2::service::port_factory::event::PortFactory<ipc::Service>;

fn open(name: &str) -> Result<(Node<ipc::Service>, Pictures, Arrivals)> {
    set_log_level(LogLevel::Error);
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let name: ServiceName = name.try_into()?;
    let pictures = node.service_builder(&name).publish_subscribe::<[u8]>().user_header::<Header>();
    let pictures = pictures.subscriber_max_buffer_size(WAITING).enable_safe_overflow(true).open_or_create()?;
    let arrivals = node.service_builder(&name).event().open_or_create()?;
    Ok((node, pictures, arrivals))
}

fn send(name: &str, bytes: usize, frames: u64) -> Result<()> {
    let (_node, pictures, arrivals) = open(name)?;
    let publisher = pictures.publisher_builder().initial_max_slice_len(bytes).create()?;
    let notifier = arrivals.notifier_builder().create()?;
    let timer = timer()?;
    while pictures.dynamic_config().number_of_subscribers() == 0 {
        timer.wait()?;
    }
    for left in (0..frames).rev() {
        timer.wait()?;
        let mut sample = publisher.loan_slice_uninit(bytes)?;
        *sample.user_header_mut() = [Timestamp::now().0, left];
        // SAFETY: bytes of shared memory that the kernel has zeroed, which no value of u8 disagrees with.
        unsafe { sample.assume_init() }.send()?;
        notifier.notify()?;
    }
    // What lies in its memory goes with it.
    while pictures.dynamic_config().number_of_subscribers() > 0 {
        timer.wait()?;
    }
    Ok(())
}

fn receive(name: &str, frames: u64) -> Result<()> {
    let (_node, pictures, arrivals) = open(name)?;
    let subscriber = pictures.subscriber_builder().create()?;
    let listener = arrivals.listener_builder().create()?;
    let mut ages = Vec::with_capacity(frames as usize);
    let mut last = false;
    while !last {
        listener.blocking_wait(|_| {})?;
        while let Some(sample) = subscriber.receive()? {
            let [stamp, left] = *sample.user_header();
            ages.push(Timestamp::now().since(Timestamp(stamp)));
            last = left == 0;
        }
    }
    println!("{}", latency(ages));
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["send", name, bytes, frames] => send(name, bytes.parse()?, frames.parse()?),
        ["receive", name, frames] => receive(name, frames.parse()?),
        _ => Err("usage: iceoryx send NAME BYTES FRAMES | receive NAME FRAMES".into()),
    }
}
