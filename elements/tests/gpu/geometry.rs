//! What is seen of a picture, which way round, and how large.

use super::*;

#[test]
fn crop_turn_and_mirror_move_pixels_and_change_none() {
    let Some(memory) = memory() else { return };
    let source = picture_in(&memory, &dma_bufs(Format::Xr24, SIZE), noise(5));
    let input = planes(&source);
    let (x0, y0, w, h) = (5, 3, 20, 10);
    for (rotate, mirror) in
        [(Rotate::Quarter, false), (Rotate::Half, false), (Rotate::ThreeQuarters, false), (Rotate::Quarter, true)]
    {
        let config = Gpu { crop: Some(Part(rect([x0, y0, w, h]))), rotate, mirror, ..software() };
        let sideways = matches!(rotate, Rotate::Quarter | Rotate::ThreeQuarters);
        let size = if sideways { Size::new(h, w) } else { Size::new(w, h) };
        let made = &convert(config, &source, &[Colorimetry::default()], Format::Xr24, size)[0];
        let most = most(Format::Xr24, made, size, |x, y| {
            let x = if mirror { size.width as usize - 1 - x } else { x };
            let (w, h) = (w as usize - 1, h as usize - 1);
            let (x, y) = match rotate {
                Rotate::None => (x, y),
                Rotate::Quarter => (y, h - x),
                Rotate::Half => (w - x, h - y),
                Rotate::ThreeQuarters => (w - y, x),
            };
            sample(Format::Xr24, &input, x0 as usize + x, y0 as usize + y)
        });
        assert_eq!(most, 0.0, "{rotate:?} {mirror}");
    }
}

#[test]
fn scaled_pictures_are_right_to_one_step() {
    let Some(memory) = memory() else { return };
    let source = picture_in(&memory, &dma_bufs(Format::Xr24, SIZE), noise(6));
    let input = planes(&source);
    let part = rect([8, 4, 40, 20]);
    for size in [Size::new(80, 40), Size::new(57, 31), Size::new(24, 12)] {
        for filter in [Filter::Nearest, Filter::Bilinear] {
            let config = Gpu { crop: Some(Part(part)), size: Some(size), filter, ..software() };
            let made = &convert(config, &source, &[Colorimetry::default()], Format::Xr24, size)[0];
            let most = most(Format::Xr24, made, size, |x, y| {
                let along = |at: usize, start: u32, from: u32, to: u32| {
                    f64::from(start) + (at as f64 + 0.5) * f64::from(from) / f64::from(to)
                };
                let x = along(x, part.x, part.width, size.width);
                let y = along(y, part.y, part.height, size.height);
                if filter == Filter::Nearest { nearest(&input, x, y) } else { bilinear(&input, part, x, y) }
            });
            let bound = if filter == Filter::Nearest { 0.0 } else { STEP };
            assert!(most <= bound, "{size} {filter:?}: {most}");
        }
    }
}

/// One picture by frames with these crops of their own: what came out of each, and the crop that went on with it.
fn cropped(config: Gpu, source: &Shrbuf, crops: &[Option<Rect>], size: Size) -> Vec<(Option<Rect>, Made)> {
    let made = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&made);
    let probe = Probe(move |f: Frame| keep.lock().unwrap().push((f.crop, (f.color, planes(&f.buffer)))));
    let frame = |crop: &Option<Rect>| Frame { crop: *crop, ..Frame::new(source.clone(), Timestamp(0), 0) };
    let feed = Feed(crops.iter().map(frame).collect());
    let elements: Vec<Box<dyn Element>> = vec![Box::new(feed), config.build().unwrap(), Box::new(probe)];
    run_well(line(elements, &[dma_bufs(Format::Xr24, SIZE), dma_bufs(Format::Xr24, size)]), None);
    std::mem::take(&mut *made.lock().unwrap())
}

#[test]
fn a_frames_own_crop_fills_the_size_that_was_asked_for() {
    let Some(memory) = memory() else { return };
    let source = picture_in(&memory, &dma_bufs(Format::Xr24, SIZE), noise(12));
    let input = planes(&source);
    let (all, part) = (rect([0, 0, SIZE.width, SIZE.height]), rect([8, 4, 40, 20]));
    // The size of the crop, that of the picture, and neither: what is scaled is another frame each time.
    for size in [Size::new(40, 20), SIZE, Size::new(57, 31)] {
        let config = Gpu { size: Some(size), ..software() };
        let made = cropped(config, &source, &[None, Some(part), None], size);
        assert_eq!(made.len(), 3);
        for ((crop, made), seen) in made.iter().zip([all, part, all]) {
            assert_eq!(*crop, None, "{size}: a crop of the source went on with what was made of it");
            let most = most(Format::Xr24, made, size, |x, y| {
                let along = |at: usize, start: u32, from: u32, to: u32| {
                    f64::from(start) + (at as f64 + 0.5) * f64::from(from) / f64::from(to)
                };
                let x = along(x, seen.x, seen.width, size.width);
                let y = along(y, seen.y, seen.height, size.height);
                bilinear(&input, seen, x, y)
            });
            assert!(most <= STEP, "{size} {seen:?}: {most}");
        }
    }
}

#[test]
fn without_a_size_a_frames_own_crop_goes_on_with_it() {
    let Some(memory) = memory() else { return };
    let source = picture_in(&memory, &dma_bufs(Format::Xr24, SIZE), noise(13));
    let part = Some(rect([8, 4, 40, 20]));
    let made = cropped(software(), &source, &[part], SIZE);
    assert_eq!(made[0].0, part);
    let input = planes(&source);
    assert_eq!(most(Format::Xr24, &made[0].1, SIZE, |x, y| sample(Format::Xr24, &input, x, y)), 0.0);
}

fn nearest(input: &[(Vec<u8>, usize)], x: f64, y: f64) -> [f64; 3] {
    sample(Format::Xr24, input, x as usize, y as usize)
}

fn bilinear(input: &[(Vec<u8>, usize)], part: Rect, x: f64, y: f64) -> [f64; 3] {
    let (x, y) = (x - 0.5, y - 0.5);
    let clamp = |n: f64, start: u32, length: u32| n.clamp(f64::from(start), f64::from(start + length - 1)) as usize;
    let at = |x: f64, y: f64| sample(Format::Xr24, input, clamp(x, part.x, part.width), clamp(y, part.y, part.height));
    let (left, top) = (x.floor(), y.floor());
    let (fx, fy) = (x - left, y - top);
    [0, 1, 2].map(|c| {
        let row = |y: f64| at(left, y)[c] * (1.0 - fx) + at(left + 1.0, y)[c] * fx;
        row(top) * (1.0 - fy) + row(top + 1.0) * fy
    })
}
