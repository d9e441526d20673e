//! Frames of GStreamer's that are out in buffers of ours: each is kept until the last reference to its buffer is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shrbuf::{Pool, PoolError, Shrbuf, State, WeakShrbuf};

/// What a lock guards is whole at every step, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What GStreamer gave us in one of the buffers, for as long as somebody reads it.
#[derive(Default)]
struct Out {
    frame: Option<gst::Buffer>,
    /// Times that it was sent and has yet to come back.
    times: u32,
}

/// A pool of buffers, and what of GStreamer's is out with each.
pub struct Home {
    pool: Pool,
    weak: Vec<WeakShrbuf>,
    out: Arc<[Mutex<Out>]>,
}

impl Home {
    /// Of these, which are nobody else's. `back(index, sent)` is called from any thread when one is free again: whether it
    /// went out by [`Home::send`], and so is GStreamer's again, or by [`Home::take`].
    ///
    /// # Errors
    /// As of [`Pool::new`].
    pub fn of(buffers: Vec<Shrbuf>, back: impl Fn(usize, bool) + Send + Sync + 'static) -> Result<Home, PoolError> {
        let weak = buffers.iter().map(Shrbuf::downgrade).collect();
        let out: Arc<[Mutex<Out>]> = buffers.iter().map(|_| Mutex::default()).collect();
        let of_hook = Arc::clone(&out);
        let pool = Pool::new(buffers, move |index| {
            let mut out = lock(&of_hook[index]);
            out.times = out.times.saturating_sub(1);
            let (last, frame) = (out.times == 0, if out.times == 0 { out.frame.take() } else { None });
            drop(out);
            let sent = frame.is_some();
            // To the pool that it is of, where GStreamer may be waiting for it.
            drop(frame);
            if last {
                back(index, sent);
            }
        })?;
        Ok(Home { pool, weak, out })
    }

    /// The buffer that `frame` is in, filled. `frame` is kept until the last reference is dropped, also where that is
    /// after this is gone.
    pub fn send(&self, index: usize, frame: gst::Buffer) -> Shrbuf {
        let buffer = loop {
            let mut out = lock(&self.out[index]);
            if let Some(buffer) = self.pool.take(index) {
                out.times += 1;
                let before = out.frame.replace(frame);
                drop(out);
                drop(before);
                break buffer;
            }
            // The same frame again, while devices still read what was given back: both come back at once.
            if let Some(buffer) = self.pool.take_draining(index) {
                break buffer;
            }
            drop(out);
            // Or while somebody still has it: another reference. Or its last one is being dropped right now, by another
            // thread, and it will be back in a moment.
            match self.weak[index].upgrade() {
                Some(buffer) => break buffer,
                None => std::thread::yield_now(),
            }
        };
        buffer.set_state(State::Filled);
        buffer
    }

    /// A buffer to be written, which no frame is in; `None` where it is out.
    pub fn take(&self, index: usize) -> Option<Shrbuf> {
        let mut out = lock(&self.out[index]);
        let buffer = self.pool.take(index)?;
        out.times += 1;
        Some(buffer)
    }

    /// Where they come back to.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Frames that are out.
    pub fn frames(&self) -> usize {
        self.out.iter().filter(|out| lock(out).frame.is_some()).count()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for (weak, out) in self.weak.iter().zip(&*self.out) {
            let frame = lock(out).frame.take();
            // Nothing comes back here any more.
            if let (Some(frame), Some(buffer)) = (frame, weak.upgrade()) {
                buffer.keep(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shrbuf::exporter::Memfd;
    use shrbuf::{Format, Layout};

    use super::*;

    fn home() -> Home {
        gst::init().unwrap();
        let layout = Layout::linear(Format::Grey, 64, 48, 1).unwrap();
        Home::of(vec![Memfd::new("test").allocate(&layout).unwrap()], |_, _| {}).unwrap()
    }

    /// A frame, and what is dropped with its memory.
    fn frame() -> (gst::Buffer, Arc<()>) {
        let held = Arc::new(());
        let mut memory = gst::Memory::with_size(16);
        crate::tie(memory.make_mut(), Arc::clone(&held));
        let mut frame = gst::Buffer::new();
        frame.make_mut().append_memory(memory);
        (frame, held)
    }

    #[test]
    fn frame_is_kept_until_the_last_reference() {
        let (home, (frame, held)) = (home(), frame());
        let sent = home.send(0, frame);
        let again = sent.clone();
        drop(sent);
        assert_eq!((home.frames(), Arc::strong_count(&held)), (1, 2));
        drop(again);
        assert_eq!((home.frames(), Arc::strong_count(&held)), (0, 1));
    }

    #[test]
    fn frame_is_kept_until_the_last_reference_where_that_is_after_the_end() {
        let (home, (frame, held)) = (home(), frame());
        let sent = home.send(0, frame);
        drop(home);
        assert_eq!(Arc::strong_count(&held), 2);
        drop(sent);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
