//! What a compositor makes of YUV: it is told (`wp_color_representation_v1`), or it guesses.
//!
//! Nothing says what a compositor without that protocol guesses. Most leave it to EGL or Vulkan, which take BT.601 of
//! limited range where nobody says anything else.

use shrbuf::{Family, Format};
use shrbuf_pipeline::{Colorimetry, Matrix, Range};
use wayland_protocols::wp::color_representation::v1::client::{
    wp_color_representation_manager_v1 as manager, wp_color_representation_surface_v1 as told,
};

use super::object::{Id, Kind};
use super::wire::{Arg, Wire};

/// What it guesses.
const GUESS: Colorimetry = Colorimetry { matrix: Matrix::Bt601, range: Range::Limited };

/// A matrix and a range as the protocol names them.
pub(super) type Pair = (told::Coefficients, told::Range);

fn pair(color: Colorimetry) -> Pair {
    let coefficients = match color.matrix {
        Matrix::Bt601 => told::Coefficients::Bt601,
        Matrix::Bt709 => told::Coefficients::Bt709,
        Matrix::Bt2020 => told::Coefficients::Bt2020,
    };
    let codes = match color.range {
        Range::Limited => told::Range::Limited,
        Range::Full => told::Range::Full,
    };
    (coefficients, codes)
}

/// What a surface's frames are said to be.
#[derive(Debug, Default)]
pub(super) struct Color {
    /// Of the last frame; `None` where it was no YUV.
    last: Option<Colorimetry>,
    told: Option<Id>,
    /// The compositor takes the last frame for something else than it is.
    wrong: bool,
}

impl Color {
    /// Says what the next commit's frame is. False where the compositor cannot be told, and its guess is another.
    pub(super) fn tell(
        &mut self,
        (format, color): (Format, Colorimetry),
        (manager, takes): (Option<Id>, &[Pair]),
        surface: Id,
        wire: &mut Wire,
    ) -> bool {
        // It has no matrix, and the compositor would end the connection over one.
        let color = Some(color).filter(|_| format.family() == Family::Yuv);
        if color == self.last {
            return !self.wrong;
        }
        self.last = color;
        let pair = color.map(pair).filter(|pair| takes.contains(pair));
        match (manager, pair) {
            (Some(manager), Some((coefficients, codes))) => {
                let told = *self.told.get_or_insert_with(|| {
                    let told = wire.new_object(Kind::Silent("wp_color_representation_surface_v1"));
                    wire.request(manager, manager::REQ_GET_SURFACE_OPCODE, [Arg::Id(told), Arg::Id(surface)]);
                    told
                });
                let pair = [Arg::Uint(coefficients.into()), Arg::Uint(codes.into())];
                wire.request(told, told::REQ_SET_COEFFICIENTS_AND_RANGE_OPCODE, pair);
                self.wrong = false;
            }
            _ => {
                // What was said of the frames before is not true any more.
                if let Some(told) = self.told.take() {
                    wire.destroy(told, told::REQ_DESTROY_OPCODE);
                }
                self.wrong = color.is_some_and(|color| color != GUESS);
            }
        }
        !self.wrong
    }
}
