//! When a frame is drawn, where the threads of Mesa's renderer for the CPU draw it.
//!
//! They meet at a barrier before a scene and after it: the last to come wakes all others, a system call whether anybody sleeps
//! or not. Between the two at least one of them is awake. So what was to be drawn is there as they meet for the last time before
//! all of them sleep.

use std::collections::HashSet;

#[derive(Debug, Default)]
pub(super) struct Drawing {
    awake: HashSet<u32>,
    /// When they met last, if they have since the newest frame came.
    met: Option<f64>,
    /// A frame has come.
    begun: bool,
    /// Stamps of the frames that are told of and not known to be drawn.
    open: Vec<f64>,
    /// From each frame's stamp until it was drawn.
    pub(super) drawn_us: Vec<f64>,
    /// Frames of which nothing was drawn or being drawn as the next one came.
    pub(super) undrawn: u64,
}

impl Drawing {
    /// A thread of the renderer goes to sleep, or does anything else.
    pub(super) fn thread(&mut self, thread: u32, sleeps: bool) {
        if sleeps {
            self.awake.remove(&thread);
        } else {
            self.awake.insert(thread);
        }
    }

    /// All have met.
    pub(super) fn met(&mut self, now: f64) {
        self.met = Some(now);
    }

    /// A frame has come from the camera, to be told of or not. What came before it is drawn by now; or else it counts as drawn
    /// together with this one, as nothing says which of the two a scene is for.
    pub(super) fn frame(&mut self, stamp: f64, counts: bool) {
        let met = self.met.take();
        if self.awake.is_empty() {
            match met {
                Some(met) => self.drawn_us.extend(self.open.drain(..).map(|stamp| met - stamp)),
                None => self.undrawn += u64::from(self.begun),
            }
        }
        self.begun = true;
        if counts {
            self.open.push(stamp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREADS: [u32; 2] = [7, 8];

    /// Both are awake, and have met for the first time.
    fn begin(drawing: &mut Drawing, now: f64) {
        THREADS.iter().for_each(|thread| drawing.thread(*thread, false));
        drawing.met(now);
    }

    /// Both have met once more, and sleep.
    fn end(drawing: &mut Drawing, now: f64) {
        drawing.met(now);
        THREADS.iter().for_each(|thread| drawing.thread(*thread, true));
    }

    #[test]
    fn a_frame_is_drawn_at_the_end_of_its_last_scene() {
        let mut drawing = Drawing::default();
        drawing.frame(0.0, false);
        begin(&mut drawing, 10.0);
        end(&mut drawing, 20.0);
        drawing.frame(100.0, true);
        for (first, last) in [(120.0, 130.0), (140.0, 150.0)] {
            begin(&mut drawing, first);
            end(&mut drawing, last);
        }
        // One wakes only now from where they met, and sleeps again.
        [false, true].iter().for_each(|sleeps| drawing.thread(THREADS[0], *sleeps));

        drawing.frame(200.0, true);

        assert_eq!((drawing.drawn_us, drawing.undrawn), (vec![50.0], 0));
    }

    #[test]
    fn a_frame_that_is_being_drawn_as_the_next_comes_counts_as_drawn_with_that() {
        let mut drawing = Drawing::default();
        drawing.frame(100.0, true);
        begin(&mut drawing, 180.0);
        drawing.frame(200.0, true);
        end(&mut drawing, 210.0);
        begin(&mut drawing, 220.0);
        // One waits for the other at the end.
        drawing.thread(THREADS[0], true);
        drawing.frame(300.0, true);
        assert!(drawing.drawn_us.is_empty());
        end(&mut drawing, 310.0);

        drawing.frame(400.0, true);

        assert_eq!((drawing.drawn_us, drawing.undrawn), (vec![210.0, 110.0, 10.0], 0));
    }

    #[test]
    fn a_frame_of_which_nothing_is_drawn_before_the_next_comes_is_told() {
        let mut drawing = Drawing::default();
        drawing.frame(100.0, true);
        drawing.frame(200.0, true);
        begin(&mut drawing, 210.0);
        end(&mut drawing, 220.0);

        drawing.frame(300.0, true);

        assert_eq!((drawing.drawn_us, drawing.undrawn), (vec![120.0, 20.0], 1));
    }
}
