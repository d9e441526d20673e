//! What the lines of a trace say of a program between two of its camera's frames.

use std::collections::{BTreeMap, HashMap};

use super::drawing::Drawing;
use super::{Steady, Watch};

/// `__NR_ioctl` of x86-64, and `__NR_sendto` and `__NR_sendmsg`: without and with file descriptors.
const IOCTL: i64 = 16;
const SENDS: [i64; 2] = [44, 46];
/// `__NR_futex`, its operation that wakes (but for flags), and how many it wakes at a barrier: all.
const FUTEX: i64 = 202;
const WAKE: (u64, u64) = (1, 0x7fff_ffff);
const FUTEX_COMMAND: u64 = 0x7f;
/// Type and number of `DRM_IOCTL_MODE_PAGE_FLIP` and `_ATOMIC`; each ends in an event at a vertical blank.
const SHOWS: [u64; 2] = [0x64b0, 0x64bc];
/// Threads of Mesa's renderer for the CPU.
const RENDERER: &str = "llvmpipe-";

#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    name: &'a str,
    thread: u32,
    /// Unknown for the idle task.
    process: Option<u32>,
    /// In µs.
    time: f64,
    event: &'a str,
    text: &'a str,
}

/// `comm-TID (TGID) [CPU] flags TIME: EVENT: TEXT`
fn parse(line: &str) -> Option<Line<'_>> {
    let (task, rest) = line.split_once(" (")?;
    let (process, rest) = rest.split_once(')')?;
    let (at, rest) = rest.split_once(": ")?;
    let (event, text) = rest.split_once(": ")?;
    let (name, thread) = task.trim().rsplit_once('-')?;
    Some(Line {
        name,
        thread: thread.trim().parse().ok()?,
        process: process.trim().parse().ok(),
        time: at.rsplit(' ').next()?.parse::<f64>().ok()? * 1e6,
        event,
        text,
    })
}

/// What stands behind `key`.
fn field<T: std::str::FromStr>(text: &str, key: &str) -> Option<T> {
    let rest = text.split_once(key)?.1.trim_start();
    rest.split([' ', ',', ')']).next()?.parse().ok()
}

/// Argument `index` of a system call.
fn argument(text: &str, index: usize) -> Option<u64> {
    let argument = text.split([',', '(', ')']).nth(index + 1)?;
    u64::from_str_radix(argument.trim(), 16).ok()
}

#[derive(Default)]
struct Thread {
    process: Option<u32>,
    renders: bool,
    in_call: bool,
    in_device: bool,
    user_since: Option<f64>,
    running_since: Option<f64>,
    device_since: Option<f64>,
    user: f64,
    cpu: f64,
    device: f64,
    calls: BTreeMap<i64, u64>,
}

impl Thread {
    fn leave_user(&mut self, now: f64) {
        self.user += self.user_since.take().map_or(0.0, |since| now - since);
    }

    fn enter_device(&mut self, now: f64) {
        self.in_device = true;
        self.device_since = Some(now);
    }

    fn leave_device(&mut self, now: f64) {
        self.in_device = false;
        self.device += self.device_since.take().map_or(0.0, |since| now - since);
    }

    fn switch_in(&mut self, now: f64) {
        self.running_since = Some(now);
        self.user_since = (!self.in_call).then_some(now);
        self.device_since = self.in_device.then_some(now);
    }

    fn switch_out(&mut self, now: f64) {
        self.leave_user(now);
        self.cpu += self.running_since.take().map_or(0.0, |since| now - since);
        self.device += self.device_since.take().map_or(0.0, |since| now - since);
    }

    /// Brings the sums up to now.
    fn settle(&mut self, now: f64) {
        if self.running_since.is_some() {
            self.switch_out(now);
            self.switch_in(now);
        }
    }

    /// CPU time, and what of it is the program's own.
    fn take(&mut self) -> (f64, f64, f64) {
        let [user, cpu, device] = [&mut self.user, &mut self.cpu, &mut self.device].map(std::mem::take);
        (user, cpu, if self.renders { 0.0 } else { cpu - device })
    }
}

/// A frame's times, in µs.
#[derive(Debug, Clone, Copy)]
struct Way {
    stamp: f64,
    dequeued: f64,
    committed: f64,
}

/// Frames from the camera to the screen. What is committed is the newest that was dequeued: so it is for a program that
/// shows each frame before it takes the next, and for one that shows the latest. One flip at a time is under way.
#[derive(Default)]
struct Screen {
    newest: Option<Way>,
    committed: Option<Way>,
    /// Its event has been sent, within the vertical blank whose time the trace tells next.
    delivered: Option<Way>,
}

/// Frames to a compositor and through a memory-to-memory device.
#[derive(Default)]
struct Onward {
    /// Stamp of the newest frame.
    newest: Option<f64>,
    /// The same, until a message is sent.
    unsent: Option<f64>,
    /// Stamps of the frames in the device, by the stamps that they have there: not every program passes on the camera's.
    inside: HashMap<u64, f64>,
}

struct Reader {
    pid: u32,
    watch: Watch,
    threads: HashMap<u32, Thread>,
    begun: bool,
    screen: Screen,
    onward: Onward,
    drawing: Drawing,
    steady: Steady,
}

pub(super) fn read(trace: &str, pid: u32, watch: Watch) -> Option<Steady> {
    let lines: Vec<Line<'_>> = trace.lines().filter(|l| !l.starts_with('#')).filter_map(parse).collect();
    let of_camera = |l: &Line<'_>| field(l.text, "minor = ") == Some(watch.camera);
    let dequeued = |l: &&Line<'_>| l.event == "v4l2_dqbuf" && l.process == Some(pid) && of_camera(l);
    let times: Vec<f64> = lines.iter().filter(dequeued).map(|l| l.time).collect();
    let (begin, end) = (*times.get(watch.skip as usize)?, *times.last()?);
    let frames = (times.len() as u64 - 1).checked_sub(watch.skip).filter(|frames| *frames > 0)?;

    let mut reader = Reader {
        pid,
        watch,
        threads: HashMap::new(),
        begun: false,
        screen: Screen::default(),
        onward: Onward::default(),
        drawing: Drawing::default(),
        steady: Steady { frames, seconds: (end - begin) / 1e6, ..Steady::default() },
    };
    for line in lines.iter().take_while(|l| l.time <= end) {
        if dequeued(&line) {
            reader.frame(line.time, line.time >= begin);
        }
        reader.line(line);
    }
    Some(reader.end(end))
}

impl Reader {
    /// A frame has come from the camera.
    fn frame(&mut self, now: f64, counts: bool) {
        let (mut user, mut cpu, mut own) = (0.0, 0.0, 0.0);
        for t in self.threads.values_mut().filter(|t| t.process == Some(self.pid)) {
            t.settle(now);
            let of_thread = t.take();
            user += of_thread.0;
            cpu += of_thread.1;
            own += of_thread.2;
        }
        if self.begun {
            self.steady.user_us.push(user);
            self.steady.cpu_us.push(cpu);
            self.steady.own_us.push(own);
        } else if counts {
            self.begun = true;
            for t in self.threads.values_mut() {
                t.calls.clear();
                if t.process == self.watch.beside {
                    t.settle(now);
                    t.take();
                }
            }
        }
    }

    fn line(&mut self, line: &Line<'_>) {
        let now = line.time;
        let ours = line.process == Some(self.pid);
        let thread = self.threads.entry(line.thread).or_default();
        thread.process = line.process.or(thread.process);
        thread.renders = line.name.starts_with(RENDERER);
        if ours && thread.renders {
            self.drawing.thread(line.thread, line.text.contains("prev_state=S"));
        }
        match line.event {
            "sys_enter" => {
                thread.leave_user(now);
                thread.in_call = true;
                let number = field(line.text, "NR ").unwrap_or(-1);
                *thread.calls.entry(number).or_default() += 1;
                if ours {
                    self.call(number, line);
                }
            }
            "sys_exit" => {
                thread.in_call = false;
                thread.user_since = Some(now);
            }
            "device_in" => thread.enter_device(now),
            "device_out" => thread.leave_device(now),
            "sched_switch" => {
                thread.switch_out(now);
                if let Some(next) = field::<u32>(line.text, "next_pid=") {
                    self.threads.entry(next).or_default().switch_in(now);
                }
            }
            "v4l2_dqbuf" if ours => self.dequeued(line),
            "v4l2_qbuf" if ours => self.queued(line),
            "drm_vblank_event_delivered" => self.screen.delivered = self.screen.committed.take(),
            "drm_vblank_event" => self.shown(line),
            _ => {}
        }
    }

    fn call(&mut self, number: i64, line: &Line<'_>) {
        let now = line.time;
        if number == IOCTL && argument(line.text, 1).is_some_and(|r| SHOWS.contains(&(r & 0xffff))) {
            self.screen.committed = self.screen.newest.take().map(|way| Way { committed: now, ..way });
        }
        if SENDS.contains(&number)
            && let Some(stamp) = self.onward.unsent.take()
            && self.begun
        {
            self.steady.sent_us.push(now - stamp);
        }
        if number == FUTEX
            && line.name.starts_with(RENDERER)
            && argument(line.text, 1).map(|operation| operation & FUTEX_COMMAND).zip(argument(line.text, 2))
                == Some(WAKE)
        {
            self.drawing.met(now);
        }
    }

    fn dequeued(&mut self, line: &Line<'_>) {
        let (now, Some(ns)) = (line.time, field::<u64>(line.text, "timestamp = ")) else { return };
        let stamp = ns as f64 / 1e3;
        if field(line.text, "minor = ") == Some(self.watch.camera) {
            self.screen.newest = Some(Way { stamp, dequeued: now, committed: now });
            self.onward.newest = Some(stamp);
            self.onward.unsent = Some(stamp);
            self.drawing.frame(stamp, self.begun);
        } else if is_capture(line.text)
            && let Some(stamp) = self.onward.inside.remove(&ns)
            && self.begun
        {
            self.steady.made_us.push(now - stamp);
        }
    }

    fn queued(&mut self, line: &Line<'_>) {
        if field(line.text, "minor = ") != Some(self.watch.camera)
            && !is_capture(line.text)
            && let (Some(ns), Some(stamp)) = (field::<u64>(line.text, "timestamp = "), self.onward.newest.take())
        {
            self.onward.inside.insert(ns, stamp);
        }
    }

    fn shown(&mut self, line: &Line<'_>) {
        if let (Some(way), Some(ns)) = (self.screen.delivered.take(), field::<f64>(line.text, "time="))
            && self.begun
        {
            let shown = ns / 1e3;
            self.steady.latencies_us.push(shown - way.stamp);
            let parts = [way.dequeued - way.stamp, way.committed - way.dequeued, shown - way.committed];
            self.steady.parts_us.iter_mut().zip(parts).for_each(|(all, part)| all.push(part));
        }
    }

    fn end(mut self, end: f64) -> Steady {
        let mut steady = self.steady;
        let frames = steady.frames as f64;
        for t in self.threads.values_mut() {
            if t.process == Some(self.pid) {
                for (number, calls) in &t.calls {
                    let each = *calls as f64 / frames;
                    steady.calls += each;
                    *steady.by_number.entry(*number).or_default() += each;
                }
            } else if t.process.is_some() && t.process == self.watch.beside {
                t.settle(end);
                steady.beside_us += t.cpu / frames;
            }
        }
        (steady.drawn_us, steady.undrawn) = (self.drawing.drawn_us, self.drawing.undrawn);
        let [first, second, third] = &mut steady.parts_us;
        let all = [&mut steady.user_us, &mut steady.cpu_us, &mut steady.own_us, &mut steady.latencies_us];
        let rest = [&mut steady.sent_us, &mut steady.made_us, &mut steady.drawn_us, first, second, third];
        all.into_iter().chain(rest).for_each(|values| values.sort_by(f64::total_cmp));
        steady
    }
}

/// Whether it is of a queue that a device fills.
fn is_capture(text: &str) -> bool {
    text.contains("type = VIDEO_CAPTURE")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two programs' lines: one with a converter, its device and a renderer's thread, and another beside it.
    const TRACE: &str = "\
# tracer: nop
  <idle>-0    (-------) [000] d.... 0.999990: sched_switch: prev_comm=swapper/0 prev_pid=0 ==> next_comm=app next_pid=10 x
  app-10      (    10) [000] ..... 0.999995: sys_exit: NR 16 = 0
  app-10      (    10) [000] ..... 1.000000: v4l2_dqbuf: minor = 0, index = 0, type = VIDEO_CAPTURE, timestamp = 990000000, x
  app-10      (    10) [000] ..... 1.000010: sys_exit: NR 16 = 0
  app-10      (    10) [000] ..... 1.000110: sys_enter: NR 16 (5, c058560f, 1)
  app-10      (    10) [000] ..... 1.000120: device_in: (device_run+0x4/0x980 [vim2m])
  app-10      (    10) [000] ..... 1.001120: device_out: (v4l2_m2m_qbuf+0x1ab/0x220 [v4l2_mem2mem] <- device_run)
  app-10      (    10) [000] ..... 1.001130: v4l2_qbuf: minor = 1, index = 0, type = VIDEO_OUTPUT, timestamp = 7000, x
  app-10      (    10) [000] ..... 1.001140: sys_exit: NR 16 = 0
  app-10      (    10) [000] ..... 1.001240: sys_enter: NR 46 (3, 0, 0)
  app-10      (    10) [000] ..... 1.001250: sys_exit: NR 46 = 1
  app-10      (    10) [000] ..... 1.001260: sys_enter: NR 232 (3, 0, 0)
  app-10      (    10) [000] d.... 1.001300: sched_switch: prev_comm=app prev_pid=10 ==> next_comm=llvmpipe-0 next_pid=11 x
  llvmpipe-0-11 (    10) [000] d.... 1.001800: sched_switch: prev_comm=llvmpipe-0 prev_pid=11 ==> next_comm=west next_pid=20 x
  west-20     (    20) [000] d.... 1.002000: sched_switch: prev_comm=west prev_pid=20 ==> next_comm=app next_pid=10 x
  app-10      (    10) [000] ..... 1.002010: v4l2_dqbuf: minor = 1, index = 0, type = VIDEO_OUTPUT, timestamp = 7000, x
  app-10      (    10) [000] ..... 1.002020: v4l2_dqbuf: minor = 1, index = 0, type = VIDEO_CAPTURE, timestamp = 7000, x
  app-10      (    10) [000] ..... 1.002100: v4l2_dqbuf: minor = 0, index = 1, type = VIDEO_CAPTURE, timestamp = 991000000, x
";

    #[test]
    fn a_frame_is_one_of_the_camera_and_its_time_is_told_by_who_spent_it() {
        let steady = read(TRACE, 10, Watch { camera: 0, skip: 0, beside: Some(20), deeds: true }).unwrap();
        let near = |value: f64, wanted: f64| assert!((value - wanted).abs() < 0.01, "{value}, not {wanted}");
        assert_eq!(steady.frames, 1);
        near(steady.user_us[0], 100.0 + 100.0 + 10.0 + 500.0);
        near(steady.cpu_us[0], 2100.0 - 200.0);
        near(steady.own_us[0], 2100.0 - 200.0 - 500.0 - 1000.0);
        near(steady.beside_us, 200.0);
        near(steady.calls, 3.0);
        near(steady.sent_us[0], 11_240.0);
        near(steady.made_us[0], 12_020.0);
    }

    /// Threads of a renderer, which draw a frame, and another, which the next comes in the midst of; and what looks like them.
    const DRAWN: &str = "\
  app-10      (    10) [000] ..... 1.000000: v4l2_dqbuf: minor = 0, index = 0, type = VIDEO_CAPTURE, timestamp = 990000000, x
  llvmpipe-0-11 (    10) [000] ..... 1.000100: sys_enter: NR 202 (a4, 81, 7fffffff, 0, a0, f2)
  llvmpipe-1-12 (    10) [001] ..... 1.000110: sys_exit: NR 202 = 0
  llvmpipe-0-11 (    10) [000] ..... 1.000200: sys_enter: NR 202 (a4, 80, f2, 0, a0, f3)
  llvmpipe-0-11 (    10) [000] d.... 1.000210: sched_switch: prev_comm=llvmpipe-0 prev_pid=11 prev_state=S ==> next_comm=app x
  llvmpipe-1-12 (    10) [001] ..... 1.000300: sys_enter: NR 202 (a4, 81, 7fffffff, 0, a0, f4)
  llvmpipe-0-11 (    10) [000] ..... 1.000350: sys_exit: NR 202 = 0
  llvmpipe-0-11 (    10) [000] ..... 1.000360: sys_enter: NR 202 (b4, 81, 1, 0, b0, 0)
  llvmpipe-0-11 (    10) [000] ..... 1.000370: sys_enter: NR 202 (b4, 189, 0, 0, b0, 0)
  llvmpipe-0-11 (    10) [000] d.... 1.000380: sched_switch: prev_comm=llvmpipe-0 prev_pid=11 prev_state=S ==> next_comm=app x
  llvmpipe-1-12 (    10) [001] d.... 1.000390: sched_switch: prev_comm=llvmpipe-1 prev_pid=12 prev_state=S ==> next_comm=app x
  app-10      (    10) [000] ..... 1.000400: sys_enter: NR 202 (c4, 81, 7fffffff, 0, 0, 0)
  llvmpipe-0-21 (    20) [001] ..... 1.000410: sys_enter: NR 202 (a4, 81, 7fffffff, 0, a0, f2)
  app-10      (    10) [000] ..... 1.001000: v4l2_dqbuf: minor = 0, index = 1, type = VIDEO_CAPTURE, timestamp = 991000000, x
  llvmpipe-0-11 (    10) [000] ..... 1.001100: sys_enter: NR 202 (a4, 81, 7fffffff, 0, a0, f2)
  llvmpipe-0-11 (    10) [000] d.... 1.001200: sched_switch: prev_comm=llvmpipe-0 prev_pid=11 prev_state=R ==> next_comm=app x
  app-10      (    10) [000] ..... 1.002000: v4l2_dqbuf: minor = 0, index = 0, type = VIDEO_CAPTURE, timestamp = 992000000, x
  llvmpipe-0-11 (    10) [000] ..... 1.002100: sys_enter: NR 202 (a4, 81, 7fffffff, 0, a0, f4)
  llvmpipe-0-11 (    10) [000] d.... 1.002200: sched_switch: prev_comm=llvmpipe-0 prev_pid=11 prev_state=S ==> next_comm=app x
  app-10      (    10) [000] ..... 1.003000: v4l2_dqbuf: minor = 0, index = 1, type = VIDEO_CAPTURE, timestamp = 993000000, x
";

    #[test]
    fn a_frame_is_drawn_when_the_renderers_threads_have_met_and_sleep() {
        let of_frames = |skip| read(DRAWN, 10, Watch { camera: 0, skip, beside: None, deeds: true }).unwrap();
        let rounded = |steady: &Steady| steady.drawn_us.iter().map(|us| us.round()).collect::<Vec<_>>();
        let all = of_frames(0);
        assert_eq!((rounded(&all), all.undrawn), (vec![10_100.0, 10_300.0, 11_100.0], 0));
        assert_eq!(rounded(&of_frames(1)), [10_100.0, 11_100.0]);
        assert_eq!(rounded(&of_frames(2)), [10_100.0]);
    }

    #[test]
    fn a_trace_with_one_frame_tells_nothing() {
        assert!(read(TRACE, 10, Watch { camera: 0, skip: 1, beside: None, deeds: true }).is_none());
        assert!(read(TRACE, 10, Watch { camera: 2, skip: 0, beside: None, deeds: true }).is_none());
    }
}
