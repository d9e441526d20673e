//! Where a frame could go: candidates in order of preference, and refusals that say what there is instead.

use std::fmt;

use drm::control::PlaneType;
use nix::errno::Errno;
use shrbuf::Modifier;
use shrbuf::format::fourcc_name;

use super::device::DeviceError;
use super::formats::PlaneFormats;
use super::import::ImportError;
use super::output::{Placement, size};
use super::state::Rect;

/// How a frame fits on a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fit {
    /// The mode is of the frame's size.
    Exact,
    /// The frame is in the middle of a larger mode, pixel for pixel.
    Window,
    /// The plane scales the frame, with its aspect kept.
    Scaled,
}

/// A place for a frame that is worth a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Index of the mode.
    pub(super) mode: usize,
    pub(super) at: Rect,
    pub(super) fit: Fit,
}

/// All places worth a try, best first. Among equals the current mode is best, since it needs no change, then the
/// preferred one, then the list's order.
pub(super) fn candidates(
    sizes: &[(u32, u32)],
    current: Option<usize>,
    preferred: Option<usize>,
    (width, height): (u32, u32),
) -> Vec<Candidate> {
    let mut order: Vec<usize> = current.into_iter().chain(preferred).chain(0..sizes.len()).collect();
    let mut seen = vec![false; sizes.len()];
    order.retain(|&i| sizes.get(i).is_some() && !std::mem::replace(&mut seen[i], true));

    let exact = order.iter().copied().filter(|&i| sizes[i] == (width, height)).map(|mode| {
        let at = Rect { x: 0, y: 0, width, height };
        Candidate { mode, at, fit: Fit::Exact }
    });
    let larger = |i: usize| sizes[i].0 >= width && sizes[i].1 >= height && sizes[i] != (width, height);
    let smallest =
        order.iter().copied().filter(|&i| larger(i)).min_by_key(|&i| u64::from(sizes[i].0) * u64::from(sizes[i].1));
    let favourites: Vec<usize> =
        order.iter().copied().filter(|&i| Some(i) == current || Some(i) == preferred).collect();
    let mut windows: Vec<usize> = favourites.iter().copied().filter(|&i| larger(i)).collect();
    windows.extend(smallest.filter(|i| !windows.contains(i)));
    let windows =
        windows.into_iter().map(|mode| Candidate { mode, at: centred(sizes[mode], (width, height)), fit: Fit::Window });
    let scaled = favourites.into_iter().filter(|&i| sizes[i] != (width, height)).filter_map(|mode| {
        let at = centred(sizes[mode], scale((width, height), sizes[mode])?);
        Some(Candidate { mode, at, fit: Fit::Scaled })
    });
    exact.chain(windows).chain(scaled).collect()
}

/// The middle of the screen, at even coordinates, which formats with subsampled chroma need.
fn centred(screen: (u32, u32), (width, height): (u32, u32)) -> Rect {
    let half = |screen: u32, size: u32| ((screen.saturating_sub(size) / 2) & !1) as i32;
    Rect { x: half(screen.0, width), y: half(screen.1, height), width, height }
}

/// The largest even size of the frame's aspect that fits on the screen.
fn scale((width, height): (u32, u32), screen: (u32, u32)) -> Option<(u32, u32)> {
    let by_width = u64::from(screen.0) * u64::from(height) <= u64::from(screen.1) * u64::from(width);
    let fit =
        |side: u32, by: u32, of: u32| Some(((u64::from(side) * u64::from(by)).checked_div(u64::from(of))? & !1) as u32);
    let size =
        if by_width { (screen.0, fit(height, screen.0, width)?) } else { (fit(width, screen.1, height)?, screen.1) };
    (size.0 > 0 && size.1 > 0).then_some(size)
}

/// A way that the driver refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Try {
    /// What was tried.
    pub placement: Placement,
    /// What the TEST_ONLY commit said.
    pub errno: Errno,
}

impl fmt::Display for Try {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = &self.placement;
        let ((width, height), at) = (size(&p.mode), p.at);
        write!(f, "{} plane at {}x{}+{}+{}", kind(p.kind), at.width, at.height, at.x, at.y)?;
        let why = match self.errno {
            // What drm_atomic_helper_check_plane_state says to a factor outside of the plane's.
            Errno::ERANGE => "it does not scale that way",
            errno => errno.desc(),
        };
        write!(f, " of {width}x{height}{}: {why}", if p.backdrop { " over black" } else { "" })
    }
}

/// What an output has, for a refusal to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The connector.
    pub connector: String,
    /// What each plane takes.
    pub planes: Vec<(PlaneType, PlaneFormats)>,
    /// Sizes of the modes, in the display's order.
    pub modes: Vec<(u32, u32)>,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its planes take: ")?;
        let mut planes: Vec<String> = self.planes.iter().map(|(k, p)| format!("{} {p}", kind(*k))).collect();
        planes.dedup();
        write!(f, "{}; its modes: ", planes.join("; "))?;
        let mut sizes: Vec<String> = Vec::new();
        for (width, height) in &self.modes {
            let size = format!("{width}x{height}");
            if !sizes.contains(&size) {
                sizes.push(size);
            }
        }
        f.write_str(&sizes.join(" "))
    }
}

fn kind(kind: PlaneType) -> &'static str {
    match kind {
        PlaneType::Primary => "primary",
        PlaneType::Overlay => "overlay",
        PlaneType::Cursor => "cursor",
    }
}

/// Why an output cannot show such frames.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No plane lists the format with that modifier.
    #[error("{} cannot show {width}x{height} {}: no plane takes it; {offer}", .offer.connector, format(*.fourcc, *.modifier))]
    NoPlane {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// DRM fourcc.
        fourcc: u32,
        /// Modifier.
        modifier: Option<u64>,
        /// What there is.
        offer: Box<Offer>,
    },
    /// Planes list the format, but every way to show it was refused, or no mode is large enough for a try.
    #[error(
        "{} cannot show {width}x{height} {}: {}; {offer}", .offer.connector, format(*.fourcc, *.modifier),
        if .tries.is_empty() { "no mode is as large".to_owned() } else { tried(.tries) }
    )]
    Refused {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// DRM fourcc.
        fourcc: u32,
        /// Modifier.
        modifier: Option<u64>,
        /// What was tried.
        tries: Vec<Try>,
        /// What there is.
        offer: Box<Offer>,
    },
    /// Only linear frames can be tried without a real one.
    #[error(
        "{} with modifier {} can only be proved with a real frame of it: import one, and plan for that",
        fourcc_name(*.fourcc), Modifier(*.modifier)
    )]
    NeedsFrame {
        /// DRM fourcc.
        fourcc: u32,
        /// Modifier.
        modifier: u64,
    },
    /// The trial frame could not be made.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The card itself.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

fn format(fourcc: u32, modifier: Option<u64>) -> String {
    let name = fourcc_name(fourcc);
    modifier.map_or(name.clone(), |m| format!("{name} ({})", Modifier(m)))
}

pub(super) fn tried(tries: &[Try]) -> String {
    tries.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [(u32, u32); 4] = [(1024, 768), (1920, 1080), (1280, 720), (640, 480)];

    fn plan(current: Option<usize>, frame: (u32, u32)) -> Vec<(usize, Fit, Rect)> {
        candidates(&SIZES, current, Some(0), frame).into_iter().map(|c| (c.mode, c.fit, c.at)).collect()
    }

    fn rect(x: i32, y: i32, width: u32, height: u32) -> Rect {
        Rect { x, y, width, height }
    }

    #[test]
    fn an_exact_mode_comes_first_and_scaling_last() {
        let plan = plan(None, (1280, 720));
        assert_eq!(plan[0], (2, Fit::Exact, rect(0, 0, 1280, 720)));
        assert_eq!(plan[1], (1, Fit::Window, rect(320, 180, 1280, 720)));
        assert_eq!(plan[2], (0, Fit::Scaled, rect(0, 96, 1024, 576)));
        assert_eq!(plan.len(), 3);
    }

    #[test]
    fn a_small_frame_goes_on_the_current_mode_then_the_preferred_then_the_smallest() {
        let windows: Vec<usize> = plan(Some(1), (320, 200))
            .into_iter()
            .filter(|(_, fit, _)| *fit == Fit::Window)
            .map(|(i, _, _)| i)
            .collect();
        assert_eq!(windows, [1, 0, 3]);
    }

    #[test]
    fn of_equal_modes_the_current_one_is_first() {
        let sizes = [(800, 600), (800, 600), (800, 600)];
        let modes: Vec<usize> = candidates(&sizes, Some(2), Some(1), (800, 600)).iter().map(|c| c.mode).collect();
        assert_eq!(modes, [2, 1, 0]);
    }

    #[test]
    fn a_frame_larger_than_every_mode_can_only_be_scaled() {
        let plan = plan(None, (4000, 1000));
        assert_eq!(plan, [(0, Fit::Scaled, rect(0, 256, 1024, 256))]);
    }

    #[test]
    fn windows_sit_at_even_coordinates() {
        assert_eq!(centred((1024, 768), (1021, 765)), rect(0, 0, 1021, 765));
        assert_eq!(centred((1024, 768), (1018, 762)), rect(2, 2, 1018, 762));
    }

    #[test]
    fn sizes_without_a_meaning_give_no_candidates() {
        assert!(candidates(&[], None, None, (0, 0)).is_empty());
        assert!(candidates(&SIZES, Some(9), Some(9), (5000, 0)).is_empty());
    }
}
