//! Processes of another user: frames come by the socket, and a pipe is neither given nor taken. Needs root, and says so
//! elsewhere, where `SHRBUF_REQUIRE_ROOT` does not make that a failure.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::geteuid;
use shrbuf::State;
use shrbuf::ipc::{FrameInfo, Options, Policy, VERSION};

use crate::child::{command, spawn};
use crate::common::{Descriptors, account};
use crate::fake::Packet::Channel;
use crate::fake::{buffer, good, serve, welcome};
use crate::source::{Source, mark, options, socket};

/// Nobody's number.
const OTHER: u32 = 65534;

fn is_root() -> bool {
    let needs = "needs root, to run a process of another user";
    if !geteuid().is_root() {
        assert!(std::env::var_os("SHRBUF_REQUIRE_ROOT").is_none(), "{needs}");
        println!("{needs}");
    }
    geteuid().is_root()
}

/// A child of another user, of a copy of its program: where that was built may be nobody else's to look into.
fn run(command: &Command) -> Child {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let copy = std::env::temp_dir().join(format!("shrbuf-stranger-{}-{number}", std::process::id()));
    // Not by this process: a child that is forked meanwhile would have it open for writing, and it could not be run.
    assert!(Command::new("cp").arg(command.get_program()).arg(&copy).status().unwrap().success());
    let mut stranger = Command::new(&copy);
    stranger.args(command.get_args()).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = stranger.stdout(Stdio::piped()).stderr(Stdio::piped()).uid(OTHER).gid(OTHER).spawn();
    std::fs::remove_file(&copy).unwrap();
    child.unwrap()
}

fn stranger(role: &str, path: &Path) -> Child {
    run(&command(role, path))
}

fn for_all(test: &str, window: u32, policy: Policy, buffers: usize) -> (PathBuf, Source) {
    let path = socket(test);
    let source = Source::new(&path, Options { mode: 0o666, ..options(2, window, policy) }, buffers);
    (path, source)
}

#[test]
fn frames_come_by_the_socket_from_another_user_and_by_a_pipe_from_ones_own() {
    if !is_root() {
        return;
    }
    let descriptors = Descriptors::count();
    let (path, mut source) = for_all("users-by", 2, Policy::Block, 4);
    let said = [stranger("by", &path), spawn("by", &path)].map(|child| source.said(child));
    assert!(said[0].starts_with("socket:[") && said[1].starts_with("pipe:["), "{said:?}");
    drop(source);
    descriptors.assert_same();
}

#[test]
fn another_users_consumer_gets_every_frame_and_what_it_held_comes_back_when_it_is_killed() {
    if !is_root() {
        return;
    }
    for policy in [Policy::Block, Policy::Latest] {
        let _alone = Descriptors::count();
        let (path, mut source) = for_all("users-frames", 2, policy, 6);
        let mut held = stranger("hold", &path);
        source.until(|s| s.producer.consumers() == 1);
        assert!(source.send() && source.send());
        let child = stranger("consume 300 0", &path);
        source.until(|s| s.producer.consumers() == 2);
        held.kill().unwrap();
        held.wait().unwrap();
        source.send_until(|s| s.sent == 302 || s.producer.consumers() == 0);
        if policy == Policy::Block {
            assert_eq!(source.said(child), "300 0 0");
        } else {
            source.producer.end();
            source.said(child);
        }
        source.until(|s| s.pool.idle() == 6);
    }
}

#[test]
fn another_user_waits_for_the_picture_too() {
    if !is_root() {
        return;
    }
    let _alone = Descriptors::count();
    let (path, mut source) = for_all("users-state", 1, Policy::Block, 1);
    let mut buffer = source.pool.acquire().unwrap();
    let child = stranger("state", &path);
    source.until(|s| s.producer.consumers() == 1);
    buffer.set_state(State::Filling);
    source.producer.send(&buffer, &FrameInfo::default()).unwrap();
    mark(&mut buffer, 77, &account());
    buffer.set_state(State::Filled);
    source.producer.ready().unwrap();
    source.producer.end();
    assert_eq!(source.said(child), "filling");
}

#[test]
fn a_user_whom_the_mode_keeps_out_is_told_what_lets_them_in() {
    if !is_root() {
        return;
    }
    let _alone = Descriptors::count();
    let path = socket("users-mode");
    let mut source = Source::new(&path, options(1, 1, Policy::Block), 1);
    let said = source.said(stranger("barred", &path));
    assert!(said.contains(&format!("may not connect to {path:?}")) && said.contains("`mode`"), "{said}");
    // Nor can they listen in its place.
    let said = source.said(stranger("unbound", &path));
    let lock = format!("{}.lock\", where the lock of the socket's producer should be", path.display());
    assert!(said.contains(&lock), "{said}");
}

#[test]
fn a_user_who_may_not_write_a_directory_is_told_of_the_path_asked_for() {
    if !is_root() {
        return;
    }
    let _alone = Descriptors::count();
    let path = Path::new("/s");
    let output = stranger("unbound", path).wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("no socket can be made at \"/s\" (Permission denied"), "{said}");
}

/// What a stranger makes of a producer that gives it a pipe.
fn given_a_pipe(stranger: &Command, path: &Path) -> Output {
    let producer = serve(path, vec![welcome(VERSION, 2, 1), buffer(0, vec![good()]), Channel]);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let output = run(stranger).wait_with_output().unwrap();
    producer.join().unwrap();
    output
}

#[test]
fn a_pipe_of_another_user_is_refused() {
    if !is_root() {
        return;
    }
    let _alone = Descriptors::count();
    let path = socket("users-pipe");
    let output = given_a_pipe(&command("broken", &path), &path);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(">it is another user's, and has a pipe that it could stop this process by"), "{said}");
    let mut client = Command::new(crate::c_client::client());
    client.arg(&path);
    let output = given_a_pipe(&client, &path);
    assert!(String::from_utf8_lossy(&output.stderr).contains("channel: Protocol error"), "{output:?}");
}
