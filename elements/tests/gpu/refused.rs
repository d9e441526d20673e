//! What is said of what cannot be.

use super::*;

#[test]
fn the_converter_is_there_where_the_environment_asks_for_it() {
    if std::env::var_os("LIBGL_ALWAYS_SOFTWARE").is_none() {
        println!("needs LIBGL_ALWAYS_SOFTWARE: scripts/test-guest runs this in the virtual machine");
        return;
    }
    let kind = shrbuf_elements::gpu::CONVERTER;
    assert_eq!((kind.present)(), Ok(()));
    let mut converter = (kind.make)();
    assert_eq!(converter.role(), Role::Transform);
    let formats = converter.input_offer(0).unwrap().video.len();
    assert_eq!(formats, samplable().count());
}

/// What is said of a buffer that is not taken.
fn import_error(source: &Shrbuf) -> String {
    let mut element = software().build().unwrap();
    element.join(&Environment::new("gpu", shrbuf::Ledger::default()));
    let layout = source.layout();
    let stream = dma_bufs(layout.format, Size::new(layout.width, layout.height));
    element.import(0, &stream, std::slice::from_ref(source)).unwrap_err().to_string()
}

#[test]
fn what_a_gpu_does_not_take_is_refused_with_what_it_would() {
    let Some(memory) = memory() else { return };
    let linear = picture_in(&memory, &dma_bufs(Format::Nv12, SIZE), noise(8));
    let tiled = Layout::new(Format::Nv12, Some(Modifier(0x0100_0000_0000_0001)), 64, 34, linear.layout().planes());
    let fd = linear.export(0).unwrap();
    drop(linear);
    let text = import_error(&Shrbuf::import(vec![fd], tiled.unwrap()).unwrap());
    assert!(text.contains("0x0100000000000001") && text.contains("takes it as LINEAR"), "{text}");

    let mosaic = import_error(&picture_in(&memory, &dma_bufs(Format::Srggb8, SIZE), noise(8)));
    assert!(mosaic.contains("SRGGB8 cannot be sampled") && mosaic.contains("GREY"), "{mosaic}");

    let wide = import_error(&picture_in(&memory, &dma_bufs(Format::Grey, Size::new(40000, 2)), noise(8)));
    assert!(wide.contains("40000x2") && wide.contains("up to"), "{wide}");
}

#[test]
fn what_cannot_be_is_said_before_anything_streams() {
    let Some(_memory) = memory() else { return };
    let mut element = Gpu { device: Some("/dev/dri/renderD999".into()), ..Gpu::default() }.build().unwrap();
    let text = element.input_offer(0).unwrap_err().to_string();
    assert!(text.contains("there is no /dev/dri/renderD999") && text.contains("\"software\""), "{text}");

    let mut element = Gpu { device: Some("/dev/dri/card0".into()), ..Gpu::default() }.build().unwrap();
    let text = element.input_offer(0).unwrap_err().to_string();
    assert!(text.contains("/dev/dri/card0 is no render node that EGL knows; it knows /dev/dri/renderD"), "{text}");

    let mut element = Gpu { crop: Some(Part(rect([60, 0, 8, 8]))), ..software() }.build().unwrap();
    let text = element.output_offer(0, Some(&dma_bufs(Format::Xr24, SIZE))).unwrap_err().to_string();
    assert!(text.contains("crop 8x8 at 60,0 is not inside 64x34"), "{text}");
}

/// With both, Mesa crashes.
#[test]
fn a_gpu_by_its_node_is_refused_where_the_environment_asks_for_none() {
    if std::env::var_os("LIBGL_ALWAYS_SOFTWARE").is_none() {
        println!("needs LIBGL_ALWAYS_SOFTWARE: scripts/test-guest runs this in the virtual machine");
        return;
    }
    let link = std::env::temp_dir().join(format!("gpu-{}", std::process::id()));
    std::os::unix::fs::symlink("/dev/dri/renderD128", &link).unwrap();
    for device in ["/dev/dri/renderD128", link.to_str().unwrap()] {
        let mut element = Gpu { device: Some(device.into()), ..Gpu::default() }.build().unwrap();
        let failure = element.input_offer(0).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Config);
        let expected = "device = \"/dev/dri/renderD128\" asks for a GPU, and LIBGL_ALWAYS_SOFTWARE in the environment \
                        for none: drop the one or the other";
        assert!(failure.to_string().contains(expected), "{failure}");
    }
}
