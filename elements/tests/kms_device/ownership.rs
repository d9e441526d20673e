//! Who has the display and its memory, and what is left when they let go.

use crate::*;

#[test]
fn refused_imports_say_which_value_is_wrong() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let buffer = Udmabuf::open("test").unwrap().allocate(&layout(XR24, 640, 480)).unwrap();
    let fd: OwnedFd = buffer.export(0).unwrap();
    let good = FramePlane { fd: fd.as_fd(), offset: 0, stride: 2560 };
    let import = |fourcc, modifier, width, planes: &[FramePlane<'_>]| {
        let refused =
            FrameBuffer::import(card, &FrameSpec { width, height: 480, fourcc, modifier, planes }).unwrap_err();
        println!("{refused}");
        refused
    };
    let stride = import(XR24, None, 640, &[FramePlane { stride: 2559, ..good }]);
    assert!(matches!(stride, ImportError::Stride { plane: 0, stride: 2559, row: 2560 }));
    let offset = import(XR24, None, 640, &[FramePlane { offset: 4096, ..good }]);
    assert!(matches!(offset, ImportError::Extent { plane: 0, offset: 4096, bytes: 1_228_800, .. }));
    let format = import(u32::from_le_bytes(*b"YUYV"), None, 640, &[good]);
    assert!(matches!(format, ImportError::Format { takes, .. } if !takes.is_empty()));
    let modifier = import(XR24, Some(0x0100_0000_0000_0001), 640, &[good]);
    assert!(matches!(modifier, ImportError::Modifier { takes, .. } if takes == [0]));
    let size = import(XR24, None, 9, &[good]);
    assert!(matches!(size, ImportError::Size { widths, .. } if widths == (10..=8192)));
    let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
    let not_dma_buf = import(XR24, None, 640, &[FramePlane { fd: socket.as_fd(), ..good }]);
    assert!(matches!(not_dma_buf, ImportError::NotDmaBuf { plane: 0, .. }));
    assert!(matches!(import(XR24, None, 640, &[]), ImportError::PlaneCount { given: 0, .. }));
    assert_eq!(card.gem_handles(), 0, "nothing stays imported");
}

#[test]
fn memory_of_every_exporter_can_be_shown() {
    let Some(vkms) = vkms() else { return };
    let layout = layout(XR24, 1024, 768);
    let heap = DmaHeap::open("system", "test").unwrap().allocate(&layout).unwrap();
    let udmabuf = Udmabuf::open("test").unwrap().allocate(&layout).unwrap();
    let output = Output::find(&vkms.card, None).unwrap();
    for buffer in [heap, udmabuf] {
        let frame = FrameBuffer::of_shrbuf(&vkms.card, &buffer).unwrap();
        assert_eq!(frame.modifier(), Some(Modifier::LINEAR.0));
        // The frame buffer holds the memory by itself.
        drop(buffer);
        show(&output, &frame, None);
    }
}

#[test]
fn a_second_master_is_refused_and_told_what_to_do() {
    let Some(vkms) = vkms() else { return };
    assert!(vkms.card.is_master());
    let other = Card::open(vkms.card.path()).unwrap();
    assert!(!other.is_master());
    let refused = other.become_master().unwrap_err();
    assert!(matches!(refused, DeviceError::InUse { .. }));
    let said = refused.to_string();
    assert!(said.contains("in use by another DRM master; stop the desktop session"), "{said}");
    assert!(said.contains("type = \"wayland-sink\" shows the frames in a window"), "{said}");
    let output = Output::find(&other, None).unwrap();
    let (frame, _) = frame(&other, XR24, (1024, 768), 1);
    assert!(matches!(output.plan_for(&frame), Err(PlanError::Device(DeviceError::InUse { .. }))));
    // Once the first lets go, the second may.
    drm::Device::release_master_lock(&vkms.card).unwrap();
    other.become_master().unwrap();
    assert!(Card::find().into_iter().flatten().any(|c| c.driver == "vkms" && c.in_use));
}

#[test]
fn losing_master_in_mid_stream_is_typed_and_can_be_recovered() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let output = Output::find(card, None).unwrap();
    let (frame, _) = frame(card, XR24, (1024, 768), 1);
    let mut screen = show(&output, &frame, None);
    drm::Device::release_master_lock(card).unwrap();
    assert!(matches!(screen.flip(&flip(&frame, 1)), Err(CommitError::LostMaster)));
    card.become_master().unwrap();
    screen.flip(&flip(&frame, 2)).unwrap();
    assert_eq!(next_event(card, &mut EventBuffer::new()).user_data, 2);
}

#[test]
fn a_frame_smaller_than_the_first_is_refused() {
    let Some(vkms) = vkms() else { return };
    let output = Output::find(&vkms.card, None).unwrap();
    let (first, _) = frame(&vkms.card, XR24, (1024, 768), 1);
    let (small, _) = frame(&vkms.card, XR24, (1000, 700), 1);
    let refused = show(&output, &first, None).flip(&flip(&small, 1)).unwrap_err();
    assert_eq!(refused.to_string(), "the frame is smaller than 1024x768, which the plane was set up for");
}

#[test]
fn what_was_on_screen_comes_back() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let console = on_screen();
    assert!(console.contains("\tactive=1"), "the console is on: {console}");
    let output = Output::find(card, None).unwrap();
    let (first, _) = frame(card, XR24, (800, 600), 1);
    let (second, _) = frame(card, RG16, (500, 300), 2);

    let outer = show(&output, &first, None);
    let shown = on_screen();
    assert!(shown.contains(&format!("fb={}", u32::from(first.id()))) && shown.contains("\"800x600\""), "{shown}");
    let writeback = Writeback::find(&output).unwrap();
    let window = output.plan_for(&second).unwrap().remove(0);
    let inner = Screen::start(&output, &window, writeback, &flip(&second, 0)).unwrap();
    assert!(on_screen().contains(&format!("fb={}", u32::from(second.id()))));
    drop(inner);
    assert_eq!(on_screen(), shown);
    outer.stop().unwrap();
    assert_eq!(on_screen(), console);
}

#[test]
fn what_was_on_screen_comes_back_after_a_panic() {
    let Some(vkms) = vkms() else { return };
    let console = on_screen();
    let output = Output::find(&vkms.card, None).unwrap();
    let panicked = std::thread::scope(|scope| {
        let panics = || {
            let (frame, _) = frame(&vkms.card, XR24, (800, 600), 1);
            let _screen = show(&output, &frame, None);
            panic!("on purpose");
        };
        scope.spawn(panics).join().is_err()
    });
    assert!(panicked);
    assert_eq!(on_screen(), console);
}

#[test]
fn nothing_on_screen_comes_back_as_nothing() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let crtc = Output::find(card, None).unwrap().crtc();
    card.set_crtc(crtc, None, (0, 0), &[], None).unwrap();
    let dark = on_screen();
    assert!(dark.contains("\tactive=0"), "{dark}");
    let output = Output::find(card, None).unwrap();
    let (frame, _) = frame(card, XR24, (800, 600), 1);
    let screen = show(&output, &frame, None);
    assert_ne!(on_screen(), dark);
    screen.stop().unwrap();
    assert_eq!(on_screen(), dark);
}

#[test]
fn what_is_gone_by_then_leaves_nothing_on_screen() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let console = on_screen();
    let output = Output::find(card, None).unwrap();
    let (first, _) = frame(card, XR24, (800, 600), 1);
    let (second, _) = frame(card, XR24, (1024, 768), 2);
    let outer = show(&output, &first, None);
    let inner = show(&output, &second, None);
    drop(first);
    let gone = inner.stop().unwrap_err();
    assert!(matches!(gone, RestoreError::Gone { .. }), "{gone}");
    assert!(on_screen().contains("\tactive=0") && !on_screen().contains("\tcrtc=crtc-0"), "{}", on_screen());
    outer.stop().unwrap();
    assert_eq!(on_screen(), console);
}

#[test]
fn a_frame_buffer_dropped_while_on_screen_leaves_the_screen_on() {
    let Some(vkms) = vkms() else { return };
    let output = Output::find(&vkms.card, None).unwrap();
    let (frame, _) = frame(&vkms.card, XR24, (1024, 768), 1);
    let screen = show(&output, &frame, None);
    let count = || on_screen().matches("\tcrtc=crtc-0").count();
    let shown = count();
    drop(frame);
    assert_eq!(count(), shown, "{}", on_screen());
    drop(screen);
}

#[test]
fn everything_is_given_back() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let once = || {
        let output = Output::find(card, None).unwrap();
        let frames: Vec<_> = (0..3).map(|seed| frame(card, XR24, (640, 480), seed)).collect();
        let writeback = Writeback::find(&output).unwrap().unwrap();
        let mut screen = show(&output, &frames[0].0, Some(writeback.clone()));
        let picture = writeback.target(&output, screen.placements().next().unwrap(), XR24).unwrap();
        for i in 0..10 {
            let fence = screen.flip_and_capture(&flip(&frames[i % 3].0, i as u64), picture.frame()).unwrap();
            next_event(card, &mut EventBuffer::new());
            assert!(fence.wait(CAPTURE).unwrap());
        }
        DumbBuffer::new(card, 100, 100, RG16).unwrap();
    };
    let held = || (card.gem_handles(), dma_bufs(), on_screen());
    let before = held();
    assert_eq!(before.0, 0);
    // The kernel frees captures and old frames from work queues.
    let settle = || {
        let begin = Instant::now();
        while held() != before && begin.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(held(), before);
        open_fds()
    };
    once();
    let fds = settle();
    (0..5).for_each(|_| once());
    assert_eq!(settle(), fds);
}

#[test]
fn a_flip_waits_for_its_fence() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let output = Output::find(card, None).unwrap();
    let frames: Vec<_> = (0..2).map(|seed| frame(card, XR24, (1024, 768), seed).0).collect();
    let mut screen = show(&output, &frames[0], None);
    let written = DmaHeap::open("system", "test").unwrap().allocate(&layout(XR24, 64, 64)).unwrap();
    let work = vgem::Vgem::open().unwrap().begin(shrbuf::Access::Write, &written, 0);
    let fence = written.export_fence(0, shrbuf::Access::Write).unwrap().unwrap();
    let mut buffer = EventBuffer::new();
    screen.flip(&Flip { frame: &frames[1], in_fence: Some(fence.as_fd()), ..flip(&frames[1], 1) }).unwrap();
    // Six times as long as a flip takes that waits for nothing.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(card.read_events(&mut buffer).unwrap().count(), 0, "the work is not done");
    work.end();
    assert_eq!(next_event(card, &mut buffer).user_data, 1);
}

#[test]
fn an_overlay_shows_a_small_frame_over_black() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let output = Output::find(card, None).unwrap();
    let Some(overlay) = output.planes().find(|p| p.kind == drm::control::PlaneType::Overlay) else {
        println!("needs overlay planes: guest/run --vkms 'enable_writeback=1 enable_overlay=1'");
        return;
    };
    let console = on_screen();
    let (small, memory) = frame(card, XR24, (500, 300), 5);
    let writeback = Writeback::find(&output).unwrap().unwrap();
    for backdrop in [false, true] {
        let window = output.plan_for(&small).unwrap().remove(0);
        let placement = Placement { plane: overlay.handle, kind: overlay.kind, backdrop, ..window };
        let picture = writeback.target(&output, &placement, XR24).unwrap();
        let mut screen = Screen::start(&output, &placement, Some(writeback.clone()), &flip(&small, 0)).unwrap();
        next_event(card, &mut EventBuffer::new());
        let fence = screen.flip_and_capture(&flip(&small, 1), picture.frame()).unwrap();
        assert!(fence.wait(CAPTURE).unwrap());
        assert!(rows(picture.buffer()) == windowed(&rows(&memory), (1024, 768), (262, 234)));
        next_event(card, &mut EventBuffer::new());
        screen.stop().unwrap();
        assert_eq!(on_screen(), console);
    }
}

#[test]
fn a_lease_drives_its_display_and_has_events_of_its_own() {
    let Some(vkms) = vkms() else { return };
    let console = on_screen();
    let owned = Output::find(&vkms.card, None).unwrap();
    let lease = vkms.card.lease(&owned).unwrap();
    assert!(vkms.card.is_master() && lease.is_master());
    let output = Output::find(&lease, None).unwrap();
    assert_eq!((output.name(), output.crtc()), (owned.name(), owned.crtc()));
    assert_eq!(output.planes().count(), owned.planes().count());

    let frames: Vec<_> = (0..2).map(|seed| frame(&lease, XR24, (1024, 768), seed).0).collect();
    let mut screen = show(&output, &frames[0], None);
    screen.flip(&flip(&frames[1], 7)).unwrap();
    assert_eq!(next_event(&lease, &mut EventBuffer::new()).user_data, 7);
    assert_eq!(vkms.card.read_events(&mut EventBuffer::new()).unwrap().count(), 0, "they are the lease's own");
    let again = vkms.card.lease(&owned).unwrap_err();
    assert!(matches!(again, DeviceError::Query { .. }), "{again}");

    screen.stop().unwrap();
    drop((frames, output, lease));
    assert_eq!(on_screen(), console);
    // What the lease held can be driven, and leased, once more.
    let (frame, _) = frame(&vkms.card, XR24, (1024, 768), 1);
    drop(show(&owned, &frame, None));
    vkms.card.lease(&owned).unwrap();
}

#[test]
fn a_lease_outlives_its_card_s_other_users() {
    let Some(vkms) = vkms() else { return };
    let Vkms { card, _alone } = vkms;
    let lease = card.lease(&Output::find(&card, None).unwrap()).unwrap();
    drop(card);
    let output = Output::find(&lease, None).unwrap();
    let (frame, _) = frame(&lease, XR24, (1024, 768), 1);
    show(&output, &frame, None).stop().unwrap();
}
