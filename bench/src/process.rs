//! Running a program, and what it used.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::{Result, sys};

/// What a finished program used.
#[derive(Debug, Clone, Default)]
pub struct Used {
    /// From start to end.
    pub wall_us: f64,
    /// CPU time in user mode. The kernel samples it by its timer; only the sum with `system_us` is exact.
    pub user_us: f64,
    /// CPU time in the kernel.
    pub system_us: f64,
    /// Largest resident set.
    pub max_rss_kib: i64,
    /// Times it gave up the CPU by itself.
    pub voluntary_switches: i64,
    /// What it wrote.
    pub output: String,
    /// Its number.
    pub pid: u32,
}

impl Used {
    /// CPU time, user and system.
    pub fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }

    /// For the JSON files.
    pub fn to_json(&self) -> Value {
        json!({
            "wall_us": self.wall_us,
            "user_us": self.user_us,
            "system_us": self.system_us,
            "max_rss_kib": self.max_rss_kib,
            "voluntary_switches": self.voluntary_switches,
        })
    }
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be run, or does not end well.
pub fn run(command: &mut Command) -> Result<Used> {
    let what = format!("{command:?}");
    match run_anyhow(command)? {
        (used, 0) => Ok(used),
        (used, status) => Err(format!("{what} ended with wait status {status:#x}: {}", used.output).into()),
    }
}

/// As [`run`], for a program that may hang: it is killed after `limit`.
///
/// # Errors
/// As [`run`], and where it took longer.
pub fn run_within(command: &mut Command, limit: Duration) -> Result<Used> {
    let what = command.get_program().display().to_string();
    match wait(command, Some(limit))? {
        (used, 0) => Ok(used),
        (used, _) if used.wall_us >= limit.as_secs_f64() * 1e6 => {
            Err(format!("{what} did not end in {limit:.0?}").into())
        }
        (used, status) => Err(format!("{what} ended with wait status {status:#x}: {}", used.output).into()),
    }
}

/// As [`run`], for a program that may end as it likes; with its wait status.
///
/// # Errors
/// It cannot be run.
pub fn run_anyhow(command: &mut Command) -> Result<(Used, i32)> {
    wait(command, None)
}

fn wait(command: &mut Command, limit: Option<Duration>) -> Result<(Used, i32)> {
    let what = format!("{command:?}");
    let begin = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|e| format!("{what}: {e}"))?;
    let mut output = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        // It closes its output as it ends.
        let (ended, end) = channel::<()>();
        let pid = Pid::from_raw(child.id() as i32);
        let watch = std::thread::spawn(move || {
            let waited = limit.map_or(Ok(()), |limit| end.recv_timeout(limit));
            if waited == Err(RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let read = stdout.read_to_string(&mut output);
        drop(ended);
        // It is waited for below, so that until here its number is nobody else's.
        let _ = watch.join();
        read?;
    }
    let (status, usage) = sys::wait4(child.id() as i32)?;
    let wall_us = begin.elapsed().as_secs_f64() * 1e6;
    let us = |t: libc::timeval| t.tv_sec as f64 * 1e6 + t.tv_usec as f64;
    let used = Used {
        wall_us,
        user_us: us(usage.ru_utime),
        system_us: us(usage.ru_stime),
        max_rss_kib: usage.ru_maxrss,
        voluntary_switches: usage.ru_nvcsw,
        output,
        pid: child.id(),
    };
    Ok((used, status))
}
