//! A producer whose frames are others from one moment on.

use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, read};
use shrbuf::exporter::Memfd;
use shrbuf::ipc::{Announced, Monitor, Policy};
use shrbuf::{Format, Layout, Pool, Shrbuf};

use crate::c_client::{client, hash};
use crate::child::spawn;
use crate::common::{Descriptors, one_segment};
use crate::fake::words;
use crate::hostile::{READY, START, greeted, hello, raw};
use crate::page::channel;
use crate::source::{PATIENCE, Source, options, socket};
use crate::wrong_sockets::OLDEST;

impl Source {
    /// Begins anew with so many buffers of such frames; how many consumers have heard of it, and the buffers of before.
    fn change(&mut self, layout: &Layout, buffers: usize) -> (usize, Pool) {
        let memory = Memfd::new("ipc-test");
        let buffers: Vec<Shrbuf> = (0..buffers).map(|_| memory.allocate(layout).unwrap()).collect();
        let announced = buffers.iter().map(|b| Announced::of(b).unwrap()).collect();
        let before = std::mem::replace(&mut self.pool, Pool::new(buffers, |_| {}).unwrap());
        (self.producer.change(announced, None).unwrap(), before)
    }
}

#[test]
fn consumers_connect_again_and_have_the_other_frames() {
    let descriptors = Descriptors::count();
    let path = socket("change");
    let mut source = Source::new(&path, options(2, 2, Policy::Block), 4);
    let children = [spawn("follow", &path), spawn("follow", &path)];
    let width = one_segment().width;
    let mut sent = Vec::new();
    for factor in [1, 2, 1] {
        let layout = Layout::linear(Format::Xr24, width * factor, 32, 1).unwrap();
        if factor == 2 || sent.len() == 2 {
            assert_eq!(source.change(&layout, 4).0, 2);
        }
        source.until(|s| s.producer.consumers() == 2);
        let before = source.sent;
        source.send_until(|s| s.sent == before + 20);
        source.until(|s| s.producer.owed() == 0);
        sent.push(format!("{} 20 0", width * factor));
    }
    source.producer.end();
    for child in children {
        assert_eq!(source.said(child), sent.join(", "));
    }
    let counts = source.producer.counts();
    assert_eq!((counts.sent, counts.dropped, counts.refused), (120, 0, 0));
    drop(source);
    descriptors.assert_same();
}

#[test]
fn frames_of_before_come_back_and_those_that_waited_are_counted_on_both_sides() {
    let _alone = Descriptors::count();
    let path = socket("change-held");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 5);
    let child = spawn("follow", &path);
    source.until(|s| s.producer.consumers() == 1);
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    // Two in its hands, three that wait.
    (0..5).for_each(|_| assert!(source.send()));
    assert_eq!((source.pool.idle(), source.producer.owed()), (0, 3));
    let (told, before) = source.change(&one_segment(), 4);
    assert_eq!((told, before.idle(), source.producer.owed()), (1, 5, 0));
    kill(pid, Signal::SIGCONT).unwrap();
    source.until(|s| s.producer.consumers() == 1);
    source.producer.end();
    let width = one_segment().width;
    assert_eq!(source.said(child), format!("{width} 2 3, {width} 0 0"));
    let counts = source.producer.counts();
    assert_eq!((counts.sent, counts.dropped), (2, 3));
}

#[test]
fn those_who_need_not_have_every_frame_are_told_and_not_counted() {
    let _alone = Descriptors::count();
    let path = socket("change-latest");
    let mut source = Source::new(&path, options(1, 2, Policy::Latest), 4);
    let child = spawn("follow", &path);
    source.until(|s| s.producer.consumers() == 1);
    assert_eq!(source.change(&one_segment(), 4).0, 0);
    source.until(|s| s.producer.consumers() == 1);
    source.producer.end();
    let width = one_segment().width;
    assert_eq!(source.said(child), format!("{width} 0 0, {width} 0 0"));
}

#[test]
fn who_asks_goes_on_asking() {
    let _alone = Descriptors::count();
    let path = socket("change-monitor");
    let mut source = Source::new(&path, options(1, 1, Policy::Block), 2);
    let child = spawn("follow", &path);
    source.until(|s| s.producer.consumers() == 1);
    let mut monitor = Monitor::open(&path, PATIENCE).unwrap();
    for buffers in [2, 3] {
        let told = std::thread::scope(|scope| {
            let asking = scope.spawn(|| monitor.ask(PATIENCE).unwrap());
            source.until(|_| asking.is_finished());
            asking.join().unwrap()
        });
        assert_eq!((told.buffers, told.consumers.len()), (buffers, 1));
        source.change(&one_segment(), 3);
        // As often as one may ask.
        std::thread::sleep(Duration::from_millis(25));
        source.until(|s| s.producer.consumers() == 1);
    }
    source.producer.end();
    source.said(child);
}

#[test]
fn a_consumer_of_version_3_hears_nothing_that_it_does_not_know() {
    let descriptors = Descriptors::count();
    let path = socket("change-older");
    let mut source = Source::new(&path, options(1, 1, Policy::Block), 2);
    let peer = [raw(&path)];
    let say = |bytes: &[u8]| send(peer[0].as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).unwrap();
    say(&hello(OLDEST));
    source.until(|_| greeted(&peer) == 1);
    let fds = channel(&peer[0]).unwrap();
    say(&words(&[READY, 2]));
    say(&words(&[START]));
    source.until(|s| s.producer.consumers() == 1);
    assert_eq!(source.change(&one_segment(), 2).0, 0);
    assert_eq!(recv(peer[0].as_raw_fd(), &mut [0; 64], MsgFlags::empty()), Ok(0), "the socket's end");
    assert_eq!(read(&fds[1], &mut [0; 64]), Ok(0), "the pipe's");
    drop((peer, fds, source));
    descriptors.assert_same();
}

#[test]
fn the_client_in_c_connects_again_too() {
    let client = client();
    let _alone = Descriptors::count();
    let path = socket("change-c");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 4);
    let child = Command::new(client).arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    source.until(|s| s.producer.consumers() == 1);
    for frames in [10, 20] {
        source.send_until(|s| s.sent == frames);
        source.until(|s| s.pool.idle() == 4);
        if frames == 10 {
            assert_eq!(source.change(&one_segment(), 4).0, 1);
            source.until(|s| s.producer.consumers() == 1);
        }
    }
    source.producer.end();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let expected: String = (0..20).map(|n| format!("{n} {:016x}\n", hash(n))).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
