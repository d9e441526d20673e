//! `examples/wall.toml`: four cameras on four planes of one display, and test pictures where there are none.

use shrbuf_elements::types;
use shrbuf_pipeline::file::{Override, load};
use shrbuf_pipeline::{BuildError, ElementType, properties};

use super::*;

const WALL: Size = Size::new(1280, 720);
/// From the back to the front, as the display has its inputs.
const QUARTERS: [&str; 4] = ["north-east", "north-west", "south-east", "south-west"];
/// By their names: where one is on the wall.
const PLACES: [(usize, usize); 4] = [(640, 0), (0, 0), (640, 360), (0, 360)];
/// Blue, green, red of what each camera shows beside its moving numbers.
const COLOURS: [(&str, [u8; 3]); 4] =
    [("100% Green", [0, 255, 0]), ("100% Red", [0, 0, 255]), ("100% White", [255; 3]), ("100% Blue", [255, 0, 0])];
const FRAMES: u64 = 10;

/// A picture of the wall.
struct Picture {
    /// Every pixel of each quarter is that of the frame that is on its plane.
    right: [bool; 4],
    /// One pixel of each quarter, away from what moves.
    corners: [[u8; 3]; 4],
}

static PICTURES: Mutex<Vec<Picture>> = Mutex::new(Vec::new());

properties! {
    /// `kms-sink`, with the wall read back after every change.
    pub struct ReadBack = "kms-sink" {
        /// As there.
        mode: Option<Size> = None,
        /// As there.
        planes: Planes = Planes::default(),
    }
}

impl Build for ReadBack {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        let display = KmsSink { mode: self.mode, planes: self.planes, ..KmsSink::default() };
        Ok(display.build_capturing(Box::new(|frames, screen| {
            let mut pictures = PICTURES.lock().unwrap();
            // Comparing takes longer than showing: some will do.
            if pictures.len() < FRAMES as usize {
                pictures.push(Picture::of(frames, &rows(screen)));
            }
        })))
    }
}

impl Picture {
    fn of(frames: &[&Frame], wall: &Pixels<u8>) -> Picture {
        let (width, height) = (WALL.width as usize / 2, WALL.height as usize / 2);
        let frames: Vec<Pixels<u8>> = frames.iter().map(|frame| rows(&frame.buffer)).collect();
        let right = |i: usize| {
            let (x, y) = PLACES[i];
            let quarter = wall[y..y + height].iter().map(|row| &row[x..x + width]);
            frames.len() == QUARTERS.len() && frames[i].len() == height && quarter.eq(frames[i].iter())
        };
        let corner = |(x, y): (usize, usize)| wall[y + height - 1][x + width - 1];
        Picture { right: std::array::from_fn(right), corners: PLACES.map(corner) }
    }
}

/// The example with these cameras, what was on the wall, and with `changes` to the file.
fn wall(changes: &[&str]) -> (Report, Vec<Picture>) {
    let text = include_str!("../../../examples/wall.toml");
    let types: Vec<ElementType> =
        types().into_iter().map(|t| if t.name == "kms-sink" { ElementType::of::<ReadBack>() } else { t }).collect();
    let of = |(quarter, (pattern, _)): (&&str, &(&str, _))| {
        let controls = format!("{quarter}.controls={{ test_pattern = \"{pattern}\" }}");
        [format!("{quarter}.format=XR24"), format!("{quarter}.rate=10"), controls]
    };
    let cameras = QUARTERS.iter().zip(&COLOURS).flat_map(of).chain(changes.iter().map(|c| (*c).to_owned()));
    let overrides: Vec<Override> = cameras.map(|o| o.parse().unwrap()).collect();
    PICTURES.lock().unwrap().clear();
    let graph = load("wall.toml", text, &types, &overrides).unwrap();

    let report = run_frames(graph, FRAMES);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.plan.is_zero_copy());
    let pictures = std::mem::take(&mut *PICTURES.lock().unwrap());
    let wrong: Vec<[bool; 4]> = pictures.iter().map(|p| p.right).filter(|right| *right != [true; 4]).collect();
    assert!(wrong.is_empty(), "{wrong:?} of {}", pictures.len());
    assert!(pictures.len() as u64 >= FRAMES / 2, "{} pictures", pictures.len());
    (report, pictures)
}

#[test]
fn four_cameras_are_shown_each_in_its_quarter() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, pictures) = wall(&[]);

    assert_eq!(report.restarts, 0, "four cameras are needed");
    assert_eq!(report.graph.ledger().copied(), 0);
    assert_eq!(counts(&report.graph, "display").frames, 4 * FRAMES);
    let v4l2 = report.plan.links.iter().filter(|l| l.stream.origin == shrbuf_pipeline::Origin::V4l2);
    assert_eq!(v4l2.count(), 4);
    assert!(pictures.iter().all(|p| p.corners == COLOURS.map(|(_, colour)| colour)), "{:?}", pictures[0].corners);
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_test_picture_has_the_place_of_a_camera_that_is_missing() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, pictures) = wall(&["north-east.device=/dev/video70", "south-west.device=/dev/video71"]);

    let missing = QUARTERS.map(|quarter| report.graph.is_placeholder(quarter));
    assert_eq!(missing, [true, false, false, true]);
    for i in [1, 2] {
        assert!(pictures.iter().all(|p| p.corners[i] == COLOURS[i].1), "{:?}", pictures[0].corners);
    }
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}
