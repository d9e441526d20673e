//! Rows in and out through the guards: every byte in its place, and in the ledger.

mod common;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write, pipe};
use std::os::fd::AsFd;

use common::{account, nv12, one_segment, row};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use shrbuf::exporter::Memfd;
use shrbuf::{Format, Layout, Ledger, Reason, Shrbuf};

fn never() -> io::Result<()> {
    Err(io::Error::other("no room"))
}

fn buffer(layout: &Layout) -> Shrbuf {
    Memfd::new("access").allocate(layout).unwrap()
}

#[test]
fn part_of_a_row_leaves_its_neighbours() {
    let mut buffer = buffer(&one_segment());
    buffer.write().unwrap().plane(0).write(1, 8, &[9; 4], &account());
    let expected: Vec<u8> = (0..256).map(|x| if (8..12).contains(&x) { 9 } else { 0 }).collect();
    assert_eq!(row(&buffer, 0, 1), expected);
    assert_eq!([row(&buffer, 0, 0), row(&buffer, 0, 2)], [[0; 256], [0; 256]]);
}

#[test]
fn planes_lie_where_the_layout_says() {
    let mut whole = buffer(&nv12([0, 0], [0, 64 * 48]));
    whole.write().unwrap().plane(1).write(0, 0, &[5; 64], &account());
    let fd = whole.export(0).unwrap();
    drop(whole);
    let rows = Shrbuf::import(vec![fd], Layout::linear(Format::Grey, 64, 72, 1).unwrap()).unwrap();
    assert_eq!([47, 48, 49].map(|y| row(&rows, 0, y)[63]), [0, 5, 0]);
}

#[test]
fn row_is_copied_between_buffers() {
    let (mut from, mut to) = (buffer(&one_segment()), buffer(&one_segment()));
    from.write().unwrap().plane(0).write(4, 0, &[4; 256], &account());
    let transfer = Ledger::default().account("copy", Reason::Transfer);
    to.write().unwrap().plane(0).copy_row(7, &from.read().unwrap().plane(0), 4, &transfer);
    assert_eq!(row(&to, 0, 7), [4; 256]);
    assert_eq!(transfer.bytes(), 256);
}

#[test]
fn rows_go_to_a_descriptor_and_back() {
    let (mut from, mut to) = (buffer(&one_segment()), buffer(&one_segment()));
    from.write().unwrap().plane(0).write(2, 0, &[6; 256], &account());
    let (reading, writing) = pipe().unwrap();
    let file = Ledger::default().account("file", Reason::File);
    from.read().unwrap().plane(0).write_row_to(2, writing.as_fd(), &mut never, &file).unwrap();
    to.write().unwrap().plane(0).read_row_from(3, reading.as_fd(), &file).unwrap();
    assert_eq!(row(&to, 0, 3), [6; 256]);
    assert_eq!(file.bytes(), 512);
}

#[test]
fn end_of_file_within_a_row_returns_error() {
    let mut buffer = buffer(&one_segment());
    let (reading, mut writing) = pipe().unwrap();
    writing.write_all(&[1; 100]).unwrap();
    drop(writing);
    let file = account();
    let error = buffer.write().unwrap().plane(0).read_row_from(0, reading.as_fd(), &file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(file.bytes(), 100);
}

#[test]
fn full_device_returns_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let buffer = buffer(&one_segment());
    let written = buffer.read().unwrap().plane(0).write_row_to(0, full.as_fd(), &mut never, &account());
    assert_eq!(written.unwrap_err().kind(), ErrorKind::StorageFull);
}

#[test]
fn a_descriptor_that_does_not_block_is_waited_for() {
    let mut buffer = buffer(&Layout::linear(Format::Grey, 1024, 1024, 1).unwrap());
    buffer.write().unwrap().plane(0).write(1023, 0, &[7; 1024], &account());
    let (mut reading, writing) = pipe().unwrap();
    fcntl(&writing, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut read = Vec::new();
    let mut room = || {
        let mut chunk = [0; 50_000];
        let n = reading.read(&mut chunk)?;
        read.extend_from_slice(&chunk[..n]);
        Ok(())
    };

    buffer.read().unwrap().plane(0).write_to(writing.as_fd(), &mut room, &account()).unwrap();

    drop(writing);
    reading.read_to_end(&mut read).unwrap();
    assert_eq!((read.len(), &read[1023 * 1024..]), (1024 * 1024, &[7; 1024][..]));
}

#[test]
fn who_does_not_want_to_wait_says_why() {
    let buffer = buffer(&Layout::linear(Format::Grey, 1024, 1024, 1).unwrap());
    let (_reading, writing) = pipe().unwrap();
    fcntl(&writing, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let error = buffer.read().unwrap().plane(0).write_to(writing.as_fd(), &mut never, &account()).unwrap_err();
    assert_eq!(error.to_string(), "no room");
}

#[test]
#[should_panic(expected = "bytes 253..253+4 of row 0 of a plane of 256x48")]
fn bytes_beyond_the_row_panic() {
    buffer(&one_segment()).read().unwrap().plane(0).read(0, 253, &mut [0; 4], &account());
}

#[test]
#[should_panic(expected = "of row 48 of a plane of 256x48")]
fn row_beyond_the_plane_panics() {
    buffer(&one_segment()).write().unwrap().plane(0).write(48, 0, &[0; 4], &account());
}

#[test]
fn two_threads_on_one_buffer_see_some_bytes() {
    let mut writer = buffer(&one_segment());
    let reader = writer.clone();
    std::thread::scope(|s| {
        s.spawn(|| {
            for n in 0..200 {
                writer.write().unwrap().plane(0).write(0, 0, &[n; 256], &account());
            }
        });
        let seen = s.spawn(|| (0..200).flat_map(|_| row(&reader, 0, 0)).max()).join().unwrap();
        assert!(seen < Some(200));
    });
    assert_eq!(row(&reader, 0, 0), [199; 256]);
}

#[test]
fn memfd_is_written_by_its_other_owners_too() {
    let buffer = buffer(&one_segment());
    let mut file = File::from(buffer.export(0).unwrap());
    file.write_all(&[8; 300]).unwrap();
    assert_eq!((row(&buffer, 0, 0)[255], row(&buffer, 0, 1)[43], row(&buffer, 0, 1)[44]), (8, 8, 0));
    let mut rest = [1];
    file.read_exact(&mut rest).unwrap();
    assert_eq!(rest, [0]);
}
