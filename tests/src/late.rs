//! An element that has its frames in memory which nobody knew of in negotiation.

use shrbuf::exporter::{Exporter, Udmabuf};
use shrbuf::{Layout, Ledger, Pool, Reason, State};
use shrbuf_pipeline::{Context, Element, Failure, Frame, Ports, Role};

/// Passes every frame on in one of so many buffers of its own, by turns, as a decoder of GStreamer's may: udmabufs laid out
/// like the frame's, or in rows of a multiple of so many bytes.
pub struct Late {
    buffers: usize,
    rows: u32,
    pool: Option<Pool>,
    next: usize,
}

impl Late {
    /// See [`Late`].
    pub fn new(buffers: usize, rows: u32) -> Box<Late> {
        Box::new(Late { buffers, rows, pool: None, next: 0 })
    }

    fn pool(&mut self, layout: &Layout) -> &Pool {
        let (buffers, rows) = (self.buffers, self.rows);
        self.pool.get_or_insert_with(|| {
            let longer = || Layout::linear(layout.format, layout.width, layout.height, rows).expect("a layout");
            let layout = if rows == 0 { *layout } else { longer() };
            let exporter = Exporter::Udmabuf(Udmabuf::open("late").expect("/dev/udmabuf"));
            let all = (0..buffers).map(|_| exporter.allocate(&layout).expect("a udmabuf")).collect();
            Pool::new(all, |_| {}).expect("a pool")
        })
    }
}

impl Element for Late {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        let (at, buffers) = (self.next, self.buffers);
        let pool = self.pool(frame.buffer.layout());
        let free = (0..buffers).map(|n| (at + n) % buffers).find_map(|index| Some((index, pool.take(index)?)));
        let Some((index, mut own)) = free else {
            context.dropped(1);
            return Ok(());
        };
        self.next = index + 1;
        let account = Ledger::default().account("late", Reason::Generate);
        let (from, planes) = (frame.buffer.read().expect("readable"), frame.buffer.layout().planes().len());
        let mut to = own.write().expect("writable");
        for index in 0..planes {
            let mut plane = to.plane(index);
            let mut row = vec![0; plane.row_bytes()];
            for y in 0..plane.rows() {
                from.plane(index).read(y, 0, &mut row, &account);
                plane.write(y, 0, &row, &account);
            }
        }
        drop((from, to));
        own.set_state(State::Filled);
        context.push(0, Frame { buffer: own, ..frame })
    }

    fn stop(&mut self) {
        self.pool = None;
    }
}
