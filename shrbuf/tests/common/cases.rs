//! The cases of the conformance suite that do not depend on how a buffer is laid out, for every exporter: those of this
//! crate, and drivers' own.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use shrbuf::{AccessError, BufferId, ImportCache, ImportError, Pool, PoolError, Shrbuf, State};

use crate::common::{account, row, through_a_socket};

/// Makes a new buffer, of one layout always. A case wants two at most.
pub type Make<'a> = &'a mut dyn FnMut() -> Shrbuf;

pub type Case = fn(Make<'_>);

/// A test for each case, as `$run` runs it.
macro_rules! cases {
    ($run:ident) => {
        cases! { $run:
            duplicate_is_the_same_buffer
            descriptor_through_a_socket_is_the_same_buffer
            exported_descriptor_closes_on_exec
            references_are_counted
            weak_handle_of_a_dropped_buffer_gives_none
            pool_reuses_and_runs_the_hook_once_a_release
            hook_may_acquire_and_import
            pool_of_a_buffer_in_use_returns_error
            pool_dropped_first_frees_buffers_as_they_come_back
            idle_buffer_is_not_imported
            memory_of_a_dropped_buffer_is_imported_anew
            import_racing_with_the_last_drop_never_fails
            import_cache_dies_with_its_buffers
            state_is_empty_after_every_release
        }
    };
    ($run:ident: $($case:ident)+) => {
        $(#[test]
        fn $case() {
            $run(crate::cases::$case);
        })+
    };
}

/// A descriptor of each segment.
fn exported(buffer: &Shrbuf) -> Vec<OwnedFd> {
    (0..buffer.segments().len()).map(|segment| buffer.export(segment).unwrap()).collect()
}

fn again(fds: &[OwnedFd]) -> Vec<OwnedFd> {
    fds.iter().map(|fd| fd.try_clone().unwrap()).collect()
}

pub fn duplicate_is_the_same_buffer(make: Make<'_>) {
    let buffer = make();
    let imports: Vec<_> = (0..3).map(|_| Shrbuf::import(exported(&buffer), *buffer.layout()).unwrap()).collect();
    assert_eq!(imports.iter().map(Shrbuf::id).collect::<Vec<_>>(), [buffer.id(); 3]);
    assert_eq!(buffer.references(), 4);
}

pub fn descriptor_through_a_socket_is_the_same_buffer(make: Make<'_>) {
    let buffer = make();
    let fds = exported(&buffer).into_iter().map(through_a_socket).collect();
    let import = Shrbuf::import(fds, *buffer.layout()).unwrap();
    assert_eq!(import.id(), buffer.id());
}

pub fn exported_descriptor_closes_on_exec(make: Make<'_>) {
    let fd = make().export(0).unwrap();
    assert_eq!(FdFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFD).unwrap()), FdFlag::FD_CLOEXEC);
}

pub fn references_are_counted(make: Make<'_>) {
    let a = make();
    let weak = a.downgrade();
    let b = a.clone();
    let c = weak.upgrade().unwrap();
    assert_eq!(a.references(), 3);
    drop(a);
    drop(c);
    assert_eq!(b.references(), 1);
    drop(b);
    assert!(weak.is_gone());
}

pub fn weak_handle_of_a_dropped_buffer_gives_none(make: Make<'_>) {
    let pool = Pool::new(vec![make()], |_| {}).unwrap();
    let weak = pool.acquire().unwrap().downgrade();
    assert!(weak.upgrade().is_none());
    // Asking has not taken it from the pool either.
    let again = pool.acquire().unwrap();
    assert_eq!(again.references(), 1);
    assert_eq!(weak.upgrade().unwrap().id(), again.id());
}

pub fn pool_reuses_and_runs_the_hook_once_a_release(make: Make<'_>) {
    let buffers: Vec<_> = (0..2).map(|_| make()).collect();
    let ids: Vec<BufferId> = buffers.iter().map(Shrbuf::id).collect();
    let released = Arc::new(Mutex::new(Vec::new()));
    let log = released.clone();
    let pool = Pool::new(buffers, move |index| log.lock().unwrap().push(index)).unwrap();
    assert!(released.lock().unwrap().is_empty(), "the handover is no release");

    let (a, b) = (pool.acquire().unwrap(), pool.take(1).unwrap());
    assert_eq!([a.id(), b.id()], ids[..]);
    assert!(pool.acquire().is_none());
    assert!(pool.take(1).is_none());
    assert!(pool.take(2).is_none());

    let second = b.clone();
    drop(b);
    assert!(released.lock().unwrap().is_empty());
    std::thread::spawn(move || drop(second)).join().unwrap();
    drop(a);
    assert_eq!(*released.lock().unwrap(), [1, 0]);
    assert_eq!((pool.idle(), pool.draining()), (2, 0));
}

pub fn hook_may_acquire_and_import(make: Make<'_>) {
    let buffer = make();
    let (fds, layout) = (exported(&buffer), *buffer.layout());
    let (sender, outcome) = mpsc::channel();
    let pool = Pool::new(vec![buffer], move |_| {
        let import = Shrbuf::import(again(&fds), layout);
        sender.send(import.map(|b| b.id())).unwrap();
    })
    .unwrap();
    drop(pool.acquire());
    assert!(matches!(outcome.recv().unwrap(), Err(ImportError::WithProducer)));
    assert_eq!(pool.idle(), 1);
}

pub fn pool_of_a_buffer_in_use_returns_error(make: Make<'_>) {
    let buffer = make();
    let id = buffer.id();
    let error = Pool::new(vec![buffer.clone()], |_| {}).unwrap_err();
    assert!(matches!(error, PoolError::InUse(i) if i == id), "{error}");
    let pool = Pool::new(vec![buffer], |_| {}).unwrap();
    let error = Pool::new(vec![pool.acquire().unwrap()], |_| {}).unwrap_err();
    assert!(matches!(error, PoolError::InUse(i) if i == id), "{error}");
    assert!(matches!(Pool::new(Vec::new(), |_| {}), Err(PoolError::Count(0))));
}

pub fn pool_dropped_first_frees_buffers_as_they_come_back(make: Make<'_>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = runs.clone();
    let buffers = (0..2).map(|_| make()).collect();
    let pool = Pool::new(buffers, move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    let in_flight = pool.acquire().unwrap();
    let weak = in_flight.downgrade();
    drop(pool);
    assert!(in_flight.read().is_ok());
    drop(in_flight);
    assert!(weak.is_gone());
    assert_eq!(runs.load(Ordering::Relaxed), 0);
}

pub fn idle_buffer_is_not_imported(make: Make<'_>) {
    let buffer = make();
    let (fds, layout) = (exported(&buffer), *buffer.layout());
    let pool = Pool::new(vec![buffer], |_| {}).unwrap();
    let error = Shrbuf::import(again(&fds), layout).unwrap_err();
    assert!(matches!(error, ImportError::WithProducer), "{error}");
    drop(pool);
    assert!(Shrbuf::import(fds, layout).is_ok());
}

pub fn memory_of_a_dropped_buffer_is_imported_anew(make: Make<'_>) {
    let mut buffer = make();
    // A camera's are for reading only.
    match buffer.write() {
        Ok(mut writing) => writing.plane(0).write(0, 0, &[9; 64], &account()),
        Err(e) => assert!(matches!(e, AccessError::ReadOnly), "{e}"),
    }
    let before = row(&buffer, 0, 0)[..64].to_vec();
    let (id, fds, layout) = (buffer.id(), exported(&buffer), *buffer.layout());
    drop(buffer);
    let import = Shrbuf::import(fds, layout).unwrap();
    assert_ne!(import.id(), id);
    assert_eq!(row(&import, 0, 0)[..64], before);
}

pub fn import_racing_with_the_last_drop_never_fails(make: Make<'_>) {
    let mut buffer = make();
    let (fds, layout) = (exported(&buffer), *buffer.layout());
    for _ in 0..100 {
        let import = || Shrbuf::import(again(&fds), layout).unwrap();
        buffer = std::thread::scope(|s| {
            s.spawn(move || drop(buffer));
            let (a, b) = (s.spawn(import), s.spawn(import));
            let (a, b) = (a.join().unwrap(), b.join().unwrap());
            assert_eq!(a.id(), b.id());
            a
        });
    }
    assert_eq!(buffer.references(), 1);
}

pub fn import_cache_dies_with_its_buffers(make: Make<'_>) {
    let buffer = make();
    let mut cache = ImportCache::new();
    let import = cache.get(&buffer, |b| b.export(0)).unwrap();
    let again = cache.get(&buffer, |b| b.export(0)).unwrap();
    assert!(Arc::ptr_eq(&import, &again));
    let weak = Arc::downgrade(&import);
    drop((import, again));
    drop(buffer);
    assert!(weak.upgrade().is_none());

    let next = make();
    let weak = Arc::downgrade(&cache.get(&next, |b| b.export(0)).unwrap());
    drop(cache);
    assert!(weak.upgrade().is_none());
}

pub fn state_is_empty_after_every_release(make: Make<'_>) {
    let pool = Pool::new(vec![make()], |_| {}).unwrap();
    pool.acquire().unwrap().set_state(State::Filled);
    assert_eq!(pool.acquire().unwrap().state(), State::Empty);
}
