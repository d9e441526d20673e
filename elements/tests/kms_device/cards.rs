//! Cards, outputs, imports.

use crate::*;

#[test]
fn a_card_says_what_it_has() {
    let Some(vkms) = vkms() else { return };
    let info = vkms.card.info().unwrap();
    for connector in &info.connectors {
        let modes: Vec<_> = connector.modes.iter().map(|m| (m.size(), m.vrefresh())).collect();
        println!("{} writeback={} connected={}: {modes:?}", connector.name, connector.writeback, connector.connected);
    }
    info.planes.iter().for_each(|p| println!("{:?} {:?}: {}", p.handle, p.kind, p.formats));
    assert_eq!((info.driver.as_str(), info.in_use), ("vkms", false));
    let display = info.connectors.iter().find(|c| c.name == "Virtual-1").unwrap();
    assert!(display.connected && !display.writeback);
    assert_eq!(display.preferred().map(|m| m.size()), Some((1024, 768)));
    assert!(info.connectors.iter().any(|c| c.name == "Writeback-1" && c.writeback && !c.connected));
    assert!(info.planes.iter().all(|p| p.formats.takes(XR24, Some(0)) && p.formats.takes(RG16, None)));
    assert!(vkms.card.has_modifiers());
}

#[test]
fn a_card_that_only_renders_is_no_display() {
    let Some(_vkms) = vkms() else { return };
    assert!(matches!(Card::open("/dev/dri/card1"), Err(DeviceError::NoDisplay { driver, .. }) if driver == "vgem"));
    let missing = Card::open("/dev/dri/card9").unwrap_err().to_string();
    assert_eq!(missing, "/dev/dri/card9: No such file or directory (os error 2); is the driver loaded (ls /dev/dri)?");
}

#[test]
fn an_output_is_found_by_name_or_refused_by_name() {
    let Some(vkms) = vkms() else { return };
    assert_eq!(Output::find(&vkms.card, Some("Virtual-1")).unwrap().name(), "Virtual-1");
    assert_eq!(Output::find(&vkms.card, None).unwrap().name(), "Virtual-1");
    let refused = Output::find(&vkms.card, Some("HDMI-A-1")).unwrap_err();
    assert!(matches!(refused, OutputError::NoSuchConnector { .. }));
    assert_eq!(refused.to_string(), "there is no connector HDMI-A-1; vkms has Virtual-1");
}

#[test]
fn importing_twice_is_one_handle_closed_once() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let (first, buffer) = frame(card, XR24, (640, 480), 1);
    let second = FrameBuffer::of_shrbuf(card, &buffer).unwrap();
    let handle = first.gem_handles().next().unwrap();
    assert_eq!(second.gem_handles().next(), Some(handle));
    assert_ne!(first.id(), second.id());
    assert_eq!(card.gem_handles(), 1);

    let raw = drm::control::from_u32(handle).unwrap();
    drop(first);
    assert_eq!(card.gem_handles(), 1);
    // The handle lives: the kernel can still name its dma-buf, and the second frame buffer can be shown.
    card.buffer_to_prime_fd(raw, drm::CLOEXEC).unwrap();
    Output::find(card, None).unwrap().plan_for(&second).unwrap();

    drop(second);
    assert_eq!(card.gem_handles(), 0);
    card.buffer_to_prime_fd(raw, drm::CLOEXEC).unwrap_err();
    card.close_buffer(raw).unwrap_err();
}

#[test]
fn threads_that_import_and_drop_one_buffer_never_lose_its_handle() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let buffer = Udmabuf::open("test").unwrap().allocate(&layout(XR24, 64, 64)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..250).for_each(|_| drop(FrameBuffer::of_shrbuf(card, &buffer).unwrap())));
        }
    });
    assert_eq!(card.gem_handles(), 0);
}

/// vkms has none; vgem, which the fences of other tests are from, has one and drives no display.
#[test]
fn render_nodes_are_found_with_their_drivers() {
    let Some(_vkms) = vkms() else { return };
    let found = render_nodes();
    let path = |node: &RenderNode| node.path.to_str().unwrap().starts_with("/dev/dri/renderD");
    assert!(found.iter().all(path), "{found:?}");
    assert!(found.iter().any(|node| node.driver.as_deref().is_ok_and(|d| d == "vgem")), "{found:?}");
}
