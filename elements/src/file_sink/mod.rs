//! `file-sink`.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use shrbuf::{Account, Format, Ledger, Reason, Shrbuf};
use shrbuf_pipeline::property::{Build, BuildError};
use shrbuf_pipeline::{
    Consumes, Context, Element, Environment, Failure, FailureKind, Frame, InputOffer, Ports, Refusal, Size, Start,
    Stream, Timestamp, Video, Wanted,
};

pub use crate::container::{Container, FileError};
use crate::container::{Numbered, y4m};
use crate::image;
use crate::new_file::NewFile;

shrbuf_pipeline::properties! {
    /// Writes frames to a file: raw, Y4M or PNG.
    ///
    /// Raw and Y4M go from the frame's memory to the file without a stop in between. Y4M takes YU12, YU16, YU24 and
    /// GREY; the others take every format. A PNG whose name has a number in it (`%d`, `%04d`) becomes many, numbered
    /// from 0; one without keeps the last frame. Writing may take longer than a frame; put a `queue` before it. A pipe
    /// needs its reader first, and is waited for where that is slower. A pipeline that is started again, as a stream has
    /// changed, goes on with the file; into a Y4M, of one size throughout, frames of another are refused.
    ///
    /// ```toml
    /// [element.file]
    /// type = "file-sink"
    /// path = "frame-%04d.png"
    /// every = 10
    /// ```
    pub struct FileSink = "file-sink" {
        /// Where to write; what is there is overwritten, once a frame comes.
        path: PathBuf = PathBuf::new(),
        /// What to write: "auto" goes by the name.
        container: Container = Container::Auto,
        /// Pixel format; not set, what the producer likes best.
        format: Option<Format> = None,
        /// Writes one of so many frames, beginning with the first.
        every: u32 = 1,
    }
}

impl Build for FileSink {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        if self.path.as_os_str().is_empty() {
            return Err(BuildError::of("path", "is not set; it says where to write, such as \"out.y4m\""));
        }
        if self.every == 0 {
            return Err(BuildError::of("every", "must be 1 or more"));
        }
        let Some(container) = self.container.resolve(&self.path) else {
            let what = format!("cannot be told from `{}`; set it to \"raw\", \"y4m\" or \"png\"", self.path.display());
            return Err(BuildError::of("container", what));
        };
        let environment = Environment::new("file-sink", Ledger::default());
        let account = environment.ledger.account(&environment.name, Reason::File);
        let sink =
            Sink { config: self, container, environment, account, stream: None, run: None, y4m: None, written: 0 };
        Ok(Box::new(sink))
    }
}

struct Sink {
    config: FileSink,
    container: Container,
    environment: Environment,
    account: Account,
    stream: Option<Stream>,
    run: Option<Run>,
    /// The pictures of the Y4M file that it has begun.
    y4m: Option<Stream>,
    /// Frames, in all runs.
    written: u64,
}

struct Run {
    writer: Writer,
    /// Frames that came.
    came: u64,
}

enum Writer {
    Raw(NewFile),
    /// Without its header before the first frame, which says how code values are to be understood.
    Y4m {
        file: NewFile,
        header: bool,
    },
    Numbered {
        paths: Numbered,
        _first: NewFile,
    },
    /// The last frame waits for the end.
    Last {
        last: Option<Frame>,
        _file: NewFile,
    },
}

impl Element for Sink {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn join(&mut self, environment: &Environment) {
        self.environment = environment.clone();
        self.account = environment.ledger.account(&environment.name, Reason::File);
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        let formats: Vec<Format> = match self.container {
            Container::Y4m => y4m::formats().collect(),
            Container::Png => image::shape::formats().collect(),
            _ => Format::all().collect(),
        };
        let last = self.container == Container::Png && Numbered::parse(&self.config.path).is_none();
        Ok(InputOffer {
            video: formats.into_iter().map(|f| Video { plane_segments: true, ..Video::linear(f) }).collect(),
            memory: Consumes { holds: if last { 2 } else { 1 }, ..Consumes::cpu() },
            wanted: Wanted { format: self.config.format, ..Wanted::default() },
            natural: None,
        })
    }

    fn import(&mut self, _input: usize, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        if let Some(begun) = self.y4m.filter(|b| (b.format, b.size) != (stream.format, stream.size)) {
            let (path, is, is_to_be) = (self.config.path.display(), begun.size, stream.size);
            let what = format!(
                "`{path}` has frames of {} {is} already, and Y4M knows one size for all: {} {is_to_be} does not go into it",
                begun.format, stream.format
            );
            return Err(
                Refusal::new(what).instead(format!("`gpu` before it, with size = [{}, {}]", is.width, is.height))
            );
        }
        self.stream = Some(*stream);
        // Maps them, so that a buffer which a CPU cannot read shows now.
        buffers.iter().try_for_each(|b| b.read().map(drop)).map_err(|e| Refusal::new(e.to_string()))
    }

    fn start(&mut self, _start: &mut Start<'_>) -> Result<(), Failure> {
        let path = &self.config.path;
        // Started again, as a stream has changed or a device was away, it goes on with what it has.
        let again = self.written > 0;
        let open = |path: &Path| {
            let file = if again { NewFile::go_on(path) } else { NewFile::open(path) };
            file.map_err(|e| FileError::open(path, e))
        };
        let writer = match self.container {
            Container::Y4m => Writer::Y4m { file: open(path)?, header: self.y4m.is_some() },
            Container::Png => match Numbered::parse(path) {
                // A folder that is not there is better known now than with the first frame.
                Some(paths) => Writer::Numbered { _first: open(&paths.path(0))?, paths },
                None => Writer::Last { last: None, _file: open(path)? },
            },
            _ => Writer::Raw(open(path)?),
        };
        self.run = Some(Run { writer, came: 0 });
        Ok(())
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let number = run.came;
        run.came += 1;
        if !number.is_multiple_of(u64::from(self.config.every)) {
            return Ok(());
        }
        let captured = frame.timestamp;
        let to = To { path: &self.config.path, number: self.written, account: &self.account, context };
        if run.writer.write(frame, self.stream, &to)? {
            self.written += 1;
            self.y4m = self.stream.filter(|_| self.container == Container::Y4m);
            context.shown(captured, Timestamp::now());
        }
        Ok(())
    }

    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        self.last()?;
        context.finish();
        Ok(())
    }

    fn stop(&mut self) {
        if let Err(e) = self.last() {
            tracing::error!("{}: {e}", self.environment.name);
        }
        self.run = None;
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        report("written", self.written);
    }
}

impl Sink {
    /// Writes the frame that waited for the end, if one did.
    fn last(&mut self) -> Result<(), FileError> {
        let Some(Run { writer: Writer::Last { last, .. }, .. }) = &mut self.run else { return Ok(()) };
        let Some(frame) = last.take() else { return Ok(()) };
        let path = &self.config.path;
        image::write_png(path, &frame.buffer, frame.color, &self.account).map_err(|e| FileError::write(path, 0, e))
    }
}

/// Where a frame goes.
struct To<'a, 'b> {
    path: &'a Path,
    number: u64,
    account: &'a Account,
    context: &'a Context<'b>,
}

/// The run was stopped while a pipe had no room.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct Stopped;

impl Writer {
    /// Writes a frame; false where the run was stopped before all of it was.
    fn write(&mut self, frame: Frame, stream: Option<Stream>, to: &To<'_, '_>) -> Result<bool, Failure> {
        let written = match self {
            Writer::Raw(file) => match file.begin() {
                Ok(file) => planes(file, &frame, to)?,
                Err(e) => Err(e),
            },
            Writer::Y4m { file, header } => {
                let first = if *header { String::new() } else { first_line(&frame, stream)? };
                *header = true;
                let begin = |file: &File| to.bytes(file, first.as_bytes()).and_then(|()| to.bytes(file, y4m::FRAME));
                match file.begin().and_then(|file| begin(file).map(|()| file)) {
                    Ok(file) => planes(file, &frame, to)?,
                    Err(e) => Err(e),
                }
            }
            Writer::Numbered { paths, .. } => {
                let path = paths.path(to.number);
                let written = image::write_png(&path, &frame.buffer, frame.color, to.account);
                return Ok(written.map(|()| true).map_err(|e| FileError::write(&path, to.number, e))?);
            }
            Writer::Last { last, .. } => {
                *last = Some(frame);
                Ok(())
            }
        };
        match written {
            Ok(()) => Ok(true),
            Err(e) if e.get_ref().is_some_and(|e| e.is::<Stopped>()) => Ok(false),
            Err(e) => Err(FileError::write(to.path, to.number, e).into()),
        }
    }
}

impl To<'_, '_> {
    /// Waits until there is room in `file`.
    fn wait(&self, file: &File) -> io::Result<()> {
        match self.context.wait_writable(file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::other(Stopped)),
            Err(failure) => Err(io::Error::other(failure)),
        }
    }

    fn bytes(&self, mut file: &File, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(file)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn first_line(frame: &Frame, stream: Option<Stream>) -> Result<String, Failure> {
    let layout = frame.buffer.layout();
    let size = Size::new(layout.width, layout.height);
    let rate = stream.and_then(|s| s.rate);
    let header = y4m::Header { format: layout.format, size, rate, range: frame.color.range };
    let none = || Failure::new(FailureKind::Changed, format!("a frame of {} came, which Y4M has not", layout.format));
    header.line().ok_or_else(none)
}

/// All planes, straight from the frame's memory.
fn planes(file: &File, frame: &Frame, to: &To<'_, '_>) -> Result<io::Result<()>, Failure> {
    let guard = frame.buffer.read().map_err(|e| Failure::new(FailureKind::Device, e))?;
    let mut planes = 0..frame.buffer.layout().planes().len();
    Ok(planes.try_for_each(|p| guard.plane(p).write_to(file.as_fd(), &mut || to.wait(file), to.account)))
}
