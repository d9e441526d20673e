//! Which device it is, where none is named: vim2m and vicodec's three nodes stand beside a camera.

use shrbuf::Format;
use shrbuf_elements::v4l2::{Device, OpenError, V4l2M2m};
use shrbuf_pipeline::{Build, FailureKind};
use shrbuf_tests::run_frames;

use super::codec::codec;
use super::{m2m, node, row, source};

fn any(format: Format) -> V4l2M2m {
    V4l2M2m { format: Some(format), ..V4l2M2m::default() }
}

fn refused(element: V4l2M2m) -> String {
    let failure = element.build().unwrap().input_offer(0).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Config);
    failure.to_string()
}

/// vim2m makes YUYV too, and comes first.
#[test]
fn of_two_that_make_the_format_it_is_the_one_that_takes_what_comes_in() {
    let (Some(_), Some(_)) = (node("vim2m", false, false), codec()) else { return };
    let coded = vec![source(Format::Yuyv, 640, 480).build().unwrap(), any(Format::Fwht).build().unwrap()];
    let decoded = coded.into_iter().chain([any(Format::Yuyv).build().unwrap()]).collect();
    let converted = vec![source(Format::Bg24, 320, 240).build().unwrap(), any(Format::Yuyv).build().unwrap()];
    for elements in [decoded, converted] {
        let (graph, sent, made) = row(elements);

        let report = run_frames(graph, 5);

        assert!(report.error.is_none(), "{}", report.error.unwrap());
        assert_eq!(made.sequences(), sent.sequences());
    }
}

#[test]
fn a_device_without_the_controls_is_passed_over() {
    let (Some(_), Some(_)) = (node("vim2m", false, false), codec()) else { return };
    // All of vim2m's controls are known to no codec, and it makes this as the decoder does.
    let controls = [("horizontal_flip".to_owned(), shrbuf_pipeline::property::Value::Boolean(true))];
    let mut flips = V4l2M2m { controls: controls.into(), ..any(Format::Yuyv) }.build().unwrap();
    let takes = flips.input_offer(0).unwrap();
    assert!(takes.video.iter().all(|v| v.format != Format::Fwht));
    assert!(takes.video.iter().any(|v| v.format == Format::Bg24));
}

#[test]
fn a_format_that_none_makes_is_refused_with_what_each_takes_and_makes() {
    let Some((encoder, decoder)) = codec() else { return };
    let Some(converter) = node("vim2m", false, false) else { return };
    let said = refused(any(Format::H264));
    assert!(said.starts_with("configuration: no memory-to-memory device makes H264; "), "{said}");
    let listed = |said: &str| {
        assert!(said.contains(&format!("{encoder} (vicodec: YU12, YV12, YU16, NV12 and ")), "{said}");
        assert!(said.contains(" more → FWHT)"), "{said}");
        assert!(said.contains(&format!("{decoder} (vicodec: FWHT → YU12, ")), "{said}");
        assert!(said.contains(&format!("{converter} (vim2m: RG16, BG24, RG24 → ")), "{said}");
        // vicodec's stateless decoder is of no use to anybody here.
        assert_eq!(said.matches("/dev/video").count(), 3 + usize::from(said.contains("does not make")), "{said}");
    };
    listed(&said);

    let wrong = refused(m2m(&converter, Some(Format::Fwht)));
    assert!(wrong.contains(&format!("{converter} does not make FWHT; ")), "{wrong}");
    listed(&wrong);
}

#[test]
fn a_camera_or_no_device_at_all_is_refused_with_those_that_would_do() {
    let (Some((encoder, _)), Ok(camera)) = (codec(), Device::first()) else { return };
    let camera = camera.path().display().to_string();
    let error = Device::open_m2m(&camera).unwrap_err();
    assert!(matches!(&error, OpenError::OtherKind { card, .. } if card == "vivid"), "{error:?}");
    let (as_camera, null) = (error.to_string(), Device::open_m2m("/dev/null").unwrap_err().to_string());
    let missing = Device::open_m2m("/dev/video99").unwrap_err().to_string();
    assert!(as_camera.contains("vivid is no memory-to-memory device"), "{as_camera}");
    assert!(null.contains("not a V4L2 device"), "{null}");
    assert!(missing.contains("there is no such device"), "{missing}");
    for said in [as_camera, null, missing] {
        assert!(said.contains(&format!("{encoder} (vicodec: ")) && !said.contains("modprobe"), "{said}");
    }
    let captures = Device::open(&encoder).unwrap_err().to_string();
    let told = format!("{encoder}: vicodec captures no video here; devices that capture video: {camera} (vivid)");
    assert_eq!(captures, told);
}

#[test]
fn all_are_found_with_what_they_take_and_make() {
    let Some((encoder, decoder)) = codec() else { return };
    let found: Vec<_> = Device::find_m2m().into_iter().map(Result::unwrap).collect();
    let of = |path: &str| found.iter().find(|m| m.path.to_str() == Some(path)).unwrap();
    let fwht = |formats: &[shrbuf_elements::v4l2::FormatInfo]| {
        formats.iter().any(|f| f.description.pixelformat.0 == Format::Fwht.v4l2())
    };
    assert!(fwht(&of(&encoder).gives) && !fwht(&of(&encoder).takes));
    assert!(fwht(&of(&decoder).takes) && !fwht(&of(&decoder).gives));
}
