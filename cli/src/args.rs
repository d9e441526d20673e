//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use shrbuf_pipeline::Graph;
use shrbuf_pipeline::file::{FileError, Override, load_file};
use shrbuf_pipeline::property::{Property, Value};

/// Zero-copy media pipelines on dma-buf.
#[derive(Parser)]
#[command(
    name = "shrbuf",
    version,
    after_help = "\
Examples:
  shrbuf devices                        which cameras, displays, codecs and GPUs there are
  shrbuf run pipeline.toml              run until Ctrl-C
  shrbuf explain pipeline.toml          what each link carries, and why

Exit codes: 0 done, 1 the pipeline failed, 2 the file or the arguments are wrong."
)]
pub struct Cli {
    /// Say more on standard error; twice and three times for still more. RUST_LOG overrides it.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run a pipeline
    Run(RunArgs),
    /// Check a pipeline file without opening any device
    Check(CheckArgs),
    /// Negotiate a pipeline and say what each link carries, and why
    Explain(ExplainArgs),
    /// List the types of elements, or describe one
    Inspect(InspectArgs),
    /// List cameras, displays and sources of memory
    Devices(DevicesArgs),
    /// Draw a pipeline
    Graph(GraphArgs),
    /// Show who holds the buffers of an `ipc-sink`
    Top(TopArgs),
}

/// A pipeline file, and what is changed in it.
#[derive(Args)]
pub struct Source {
    /// Pipeline in TOML
    pub file: PathBuf,
    /// Set a property of an element, over what the file says; may be repeated
    #[arg(long, value_name = "ELEMENT.KEY=VALUE")]
    pub set: Vec<Override>,
}

impl Source {
    /// The graph that the file describes.
    pub fn load(&self) -> Result<Graph, FileError> {
        load_file(&self.file, &shrbuf_elements::types(), &self.set)
    }
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  shrbuf run camera.toml --duration 10
  shrbuf run camera.toml --frames 600 --set camera.device=/dev/video2 --set camera.size=1920x1080
  shrbuf run camera.toml --frames 600 --json | tail -n 1 | jq .elements.display.latency_us

On a terminal, a line on standard error shows progress; its latency is that of the slowest sink,
p50/p99.
Ctrl-C ends the sources, lets frames on their way arrive, and prints the summary; a second one
stops at once.
SIGTERM does the same, and SIGHUP as a terminal is closed, but under nohup.
What does not even stop then, such as a driver that hangs, is ended by a third.

The JSON object, in this order:
  frames            frames that reached every sink: the least of the sinks' counts, without what
                    they dropped
  dropped           frames dropped by all elements together
  duration_s        seconds in which frames flowed
  bytes_copied      bytes that the CPU wrote a second time (conversions and transfers; 0 is
                    zero-copy)
  cpu_us_per_frame  CPU time of the process (user + system) in microseconds, by frames; null
                    without frames
  interrupted       true where a signal ended it
  restarts          times that it was started again after a device failed
  links[]           from, to, format, modifier, width, height, rate, memory, allocator, stride,
                    zero_copy, reason
  elements{}        frames, dropped, corrupt, misdated, counters{} of its own; of sinks
                    latency_us {p50, p99, max}, from the time stamp of the capture to when a
                    frame was shown or consumed; of stores held {seconds, bytes, bytes_stored,
                    ratio}. Frames shown before the moment of their own time stamp count as
                    misdated: they are not in latency_us, which is left out where there were no
                    others
  error             kind, element, message; only where it failed

Exit codes: 0 done, 1 the pipeline failed, 2 the file or the arguments are wrong.")]
pub struct RunArgs {
    #[command(flatten)]
    pub source: Source,
    /// End after each source has sent this many frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub frames: Option<u64>,
    /// End after this time: seconds, or with a unit (500ms, 2min)
    #[arg(long, value_name = "S", value_parser = duration, allow_negative_numbers = true)]
    pub duration: Option<Duration>,
    /// Print the summary as one JSON object, on the last line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  shrbuf check camera.toml
  shrbuf check camera.toml --json | jq -r '.errors[] | \"\\(.line):\\(.column): \\(.message)\"'

Exit codes: 0 the file is fine, 2 it is not.")]
pub struct CheckArgs {
    #[command(flatten)]
    pub source: Source,
    /// Print one JSON object: elements and links, or errors with file, line, column, message and help
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  shrbuf explain camera.toml
  shrbuf explain camera.toml --set camera.format=YUYV

Opens the devices and allocates the buffers, but streams nothing.
Exit codes: 0 it can run, 1 it cannot, 2 the file or the arguments are wrong.")]
pub struct ExplainArgs {
    #[command(flatten)]
    pub source: Source,
    /// Print one JSON object: links, budgets, rejected, or error
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  shrbuf inspect
  shrbuf inspect v4l2-src
  shrbuf inspect --markdown > elements.md")]
pub struct InspectArgs {
    /// Type of element to describe
    pub element: Option<String>,
    /// Print the reference of all types, or of this one, as Markdown
    #[arg(long)]
    pub markdown: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  shrbuf devices
  shrbuf devices --json | jq -r '.cameras[].path'

Opens each device for a moment; nothing is changed on them.")]
pub struct DevicesArgs {
    /// Print one JSON object: cameras, displays, outputs, m2m, gpus, gpu, compositor, dma_heaps, heaps, udmabuf
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  shrbuf graph camera.toml
  shrbuf graph camera.toml --svg camera.svg

Links are labelled with what they carry where the pipeline can be negotiated here and now.")]
pub struct GraphArgs {
    #[command(flatten)]
    pub source: Source,
    /// Write an SVG picture to this file, instead of text to standard output
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  shrbuf top /run/user/1000/camera
  shrbuf top /run/user/1000/camera --json | jq '.consumers[] | {name, fps, lagged}'

Rates are those since the last time; in JSON, and the first time, those since the beginning.
Ctrl-C ends it.
Exit codes: 0 done, 1 there is no producer, or no longer.")]
pub struct TopArgs {
    /// Socket of the producer
    pub socket: PathBuf,
    /// Print one JSON object, once: pid, up_s, frames, fps, unseen, refused, buffers, consumers[] with what each holds
    #[arg(long)]
    pub json: bool,
    /// Time between two looks
    #[arg(long, value_name = "S", value_parser = interval, default_value = "1s")]
    pub interval: Duration,
    /// End after so many looks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub times: Option<u64>,
}

/// A producer sends those away who ask more often.
fn interval(text: &str) -> Result<Duration, String> {
    let least = Duration::from_millis(50);
    let interval = duration(text)?;
    if interval < least { Err(format!("the shortest is {least:?}")) } else { Ok(interval) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let plain = text.parse().ok().map(Duration::try_from_secs_f64);
    let duration = match plain {
        Some(Ok(duration)) => duration,
        Some(Err(error)) => return Err(error.to_string()),
        None => Duration::parse(&Value::from(text)).map_err(|why| {
            let why = if why.is_empty() { why } else { format!(": {why}") };
            format!("expected seconds, or {}{why}", Duration::expected())
        })?,
    };
    if duration.is_zero() { Err("a pipeline cannot run for no time".into()) } else { Ok(duration) }
}
