//! Every format, range and matrix.

use super::*;

#[test]
fn every_format_range_and_matrix_to_rgb_is_right_to_one_step() {
    let Some(memory) = memory() else { return };
    for from in samplable() {
        let source = picture_in(&memory, &dma_bufs(from, ODD), noise(1));
        let input = planes(&source);
        let colours = colours_of(from);
        for (made, color) in convert(software(), &source, &colours, Format::Xr24, ODD).iter().zip(&colours) {
            assert_eq!(made.0.range, Range::Full);
            let most = most(Format::Xr24, made, ODD, |x, y| rgb_of(from, &input, *color, x, y));
            assert!(most <= STEP, "{from} {color:?}: {most}");
        }
    }
}

#[test]
fn yuv_to_rgb_of_each_packing_is_right_to_one_step() {
    let Some(memory) = memory() else { return };
    let from = Format::Nv12;
    let source = picture_in(&memory, &dma_bufs(from, ODD), noise(2));
    let input = planes(&source);
    let colours: Vec<_> = colours().collect();
    for to in [Format::Ar24, Format::Xb24, Format::Rg24, Format::Rg16] {
        for (made, color) in convert(software(), &source, &colours, to, ODD).iter().zip(&colours) {
            let most = most(to, made, ODD, |x, y| rgb_of(from, &input, *color, x, y));
            // RG16 has steps of 8.2 and 4.05, so half a step is right.
            let bound = if to == Format::Rg16 { 8.3 / 2.0 } else { STEP };
            assert!(most <= bound, "{to} {color:?}: {most}");
        }
    }
}

#[test]
fn rgb_to_yuv_of_each_packing_is_right_to_one_step() {
    let Some(memory) = memory() else { return };
    let from = Format::Xr24;
    let source = picture_in(&memory, &dma_bufs(from, ODD), noise(3));
    let input = planes(&source);
    let colours: Vec<_> = colours().filter(|c| c.range == Range::Full).collect();
    // One of each packing: what a program writes takes long to compile in the virtual machine.
    for to in [Format::Yuyv, Format::Nv12, Format::Nv21, Format::Yv12, Format::Yu16, Format::Grey] {
        for (made, color) in convert(software(), &source, &colours, to, ODD).iter().zip(&colours) {
            assert_eq!(made.0, Colorimetry { range: Range::Limited, ..*color });
            let yuv = |x, y| to_yuv_limited(sample(from, &input, x, y), color.matrix);
            let most = most(to, made, ODD, |x, y| {
                // Of GREY there is nothing but luma, and the reference says 128 for the rest.
                let c = |c: usize| if to == Format::Grey { 128.0 } else { chroma(to, ODD, x, y, |x, y| yuv(x, y)[c]) };
                [yuv(x, y)[0], c(1), c(2)]
            });
            assert!(most <= STEP, "{to} {color:?}: {most}");
        }
    }
}

#[test]
fn yuv_to_yuv_keeps_every_luma_and_the_mean_of_chroma() {
    let Some(memory) = memory() else { return };
    for (from, to) in [
        (Format::Yuyv, Format::Nv12),
        (Format::Nv12, Format::Yu12),
        (Format::Yu24, Format::Uyvy),
        (Format::Nv21, Format::Nv12),
        (Format::Yv12, Format::Yv12),
    ] {
        let source = picture_in(&memory, &dma_bufs(from, ODD), noise(4));
        let input = planes(&source);
        let colour = [Colorimetry { matrix: Matrix::Bt709, range: Range::Full }];
        let made = &convert(software(), &source, &colour, to, ODD)[0];
        assert_eq!(made.0, colour[0]);
        let most = most(to, made, ODD, |x, y| {
            let c = |c: usize| chroma(to, ODD, x, y, |x, y| sample(from, &input, x, y)[c]);
            [sample(from, &input, x, y)[0], c(1), c(2)]
        });
        assert!(most <= 0.76, "{from} {to}: {most}");
    }
}
