//! Files that are right, files that cannot be read, and files of every kind of damage.

mod types;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use miette::GraphicalReportHandler;
use shrbuf::Format;
use shrbuf_pipeline::file::{self, FileError, MAX_BYTES, Override, Problem};
use shrbuf_pipeline::outline::Outline;
use shrbuf_pipeline::property::{Properties, Value};
use shrbuf_pipeline::{
    Build, BuildError, Copies, Element, ElementType, Full, Graph, QueueSpec, Rate, Role, Size, properties, queue::Queue,
};
use types::{FileSink, KmsSink, Pattern, Room, Tee, TestSrc, V4l2Src, types};

const EXAMPLE: &str = r#"
[pipeline]
name = "camera-to-display"
copies = "deny"                 # deny | warn | allow

[element.camera]
type = "v4l2-src"
device = "/dev/video0"
format = "XR24"
size = [1280, 720]
rate = 60

[element.display]
type = "kms-sink"
connector = "Virtual-1"

[[link]]
path = ["camera", "display"]
queue = { depth = 3, full = "drop-oldest" }
"#;

/// Every form there is; on one line as far as it can be, so that damage does not only hit blanks.
const EVERYTHING: &str = r#"
[pipeline]
name = "größe"
copies = "warn"
retry = "10s"
[element.camera]
type = "v4l2-src"
size = [640, 480]
rate = 29.97
controls = { brightness = 0x80, "exposure-auto" = 1, 'gain.a' = [1.5e1, true] }
[element."tee_1"]
type = 'tee'
[element]
display = { type = "kms-sink", show = "latest" }
record.type = "file-sink"
record.path = """/tmp/\
   frames.raw"""
[[link]]
path = ["camera.out", "tee_1", "display.in"] # a comment
queue = { depth = 2, full = "block" }
[[link]]
path = [
  "tee_1",
  "record",
]
"#;

fn load(text: &str) -> Result<Graph, FileError> {
    file::load("test.toml", text, &types(), &[])
}

fn rendered(error: &FileError) -> String {
    let mut out = String::new();
    GraphicalReportHandler::new().render_report(&mut out, error).unwrap();
    out
}

/// The outline without its places, which a graph made in Rust does not have.
fn shape(graph: &Graph) -> Outline {
    let mut outline = graph.outline();
    outline.elements.iter_mut().for_each(|e| e.span = None);
    outline
}

#[test]
fn toml_and_rust_make_the_same_graph() {
    let from_file = load(EXAMPLE).unwrap();

    let mut graph = Graph::new("camera-to-display");
    graph.set_copies(Copies::Deny);
    let source = V4l2Src { size: Some(Size::new(1280, 720)), ..V4l2Src::default() };
    let camera = graph.add("camera", source.build().unwrap()).unwrap();
    let display = graph.add("display", KmsSink::default().build().unwrap()).unwrap();
    graph.link_queued(camera, display, QueueSpec { depth: 3, full: Full::DropOldest }).unwrap();

    assert_eq!(from_file.name(), graph.name());
    assert_eq!(from_file.retry(), None);
    assert_eq!(shape(&from_file), shape(&graph));
}

#[test]
fn a_placeholder_takes_no_place_of_its_own() {
    let text = r#"
        [element.camera]
        type = "v4l2-src"
        placeholder = { type = "test-src", pattern = "ramp" }
        [element.display]
        type = "kms-sink"
        [[link]]
        path = ["camera", "display"]
    "#;
    let graph = load(text).unwrap();
    let names: Vec<_> = graph.outline().elements.into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["camera", "display"]);
    assert!(!graph.is_placeholder("camera"));
}

#[test]
fn elements_and_links_keep_the_order_of_the_file() {
    let text = r#"
        link = [
            { path = ["zebra", "split", "lion"] },
            { path = ["split", "ape"], queue = { full = "latest" } },
        ]
        [element.zebra]
        type = "test-src"
        [element.split]
        type = "tee"
        [element.lion]
        type = "kms-sink"
        [element.ape]
        type = "kms-sink"
        [pipeline]
        retry = "1.5s"
    "#;
    let graph = load(text).unwrap();
    let outline = graph.outline();
    let names: Vec<_> = outline.elements.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["zebra", "split", "lion", "ape", "split.out1→ape"]);
    assert_eq!(outline.elements[4].role, Role::Queue(QueueSpec { depth: 2, full: Full::Latest }));
    let links: Vec<_> = outline.links.iter().map(|l| (l.from_port.as_str(), l.to_port.as_str())).collect();
    assert_eq!(
        links,
        [("zebra", "split"), ("split.out0", "lion"), ("split.out1", "split.out1→ape"), ("split.out1→ape", "ape")]
    );
    assert_eq!((graph.name(), graph.retry()), ("test", Some(Duration::from_millis(1500))));
}

#[test]
fn places_in_the_graph_are_the_names_in_the_file() {
    let outline = load(EXAMPLE).unwrap().outline();
    let texts: Vec<_> = outline.elements.iter().map(|e| &EXAMPLE[e.span.clone().unwrap()]).collect();
    assert_eq!(texts, ["camera", "display", r#""camera", "display""#]);
}

properties! {
    /// A property of every type.
    pub struct All = "all" {
        /// .
        flag: bool = false,
        /// .
        count: u32 = 1,
        /// .
        offset: i64 = -1,
        /// .
        bytes: u64 = 0,
        /// .
        gamma: f64 = 1.0,
        /// .
        title: String = "a".into(),
        /// .
        path: PathBuf = "/a".into(),
        /// .
        format: Format = Format::from_v4l2(u32::from_le_bytes(*b"XR24")).unwrap().0,
        /// .
        size: Size = Size::new(1, 1),
        /// .
        rate: Rate = Rate::new(1, 1),
        /// .
        wait: Duration = Duration::ZERO,
        /// .
        controls: BTreeMap<String, Value> = BTreeMap::new(),
        /// .
        pattern: Pattern = Pattern::Bars,
        /// .
        full: Full = Full::Block,
        /// .
        copies: Copies = Copies::Deny,
        /// .
        maybe: Option<u32> = None,
    }
}

thread_local! {
    static BUILT: RefCell<Option<All>> = const { RefCell::new(None) };
}

impl Build for All {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        BUILT.set(Some(self));
        Ok(Box::new(Queue(QueueSpec::default())))
    }
}

fn all() -> All {
    All {
        flag: true,
        count: u32::MAX,
        offset: i64::MIN,
        bytes: 7_000_000_000,
        gamma: 2.25,
        title: "Ä \"quoted\"\n\\ line".into(),
        path: "/dev/v4l/by-id/my camera".into(),
        format: "NV12".parse().unwrap(),
        size: Size::new(1920, 1080),
        rate: Rate::new(30000, 1001),
        wait: Duration::from_millis(1500),
        controls: BTreeMap::from([("power line".into(), Value::Integer(-2)), ("b".into(), Value::Boolean(true))]),
        pattern: Pattern::MovingBox,
        full: Full::DropOldest,
        copies: Copies::Warn,
        maybe: Some(3),
    }
}

fn between_ends(element: &str) -> String {
    format!(
        "[element.from]\ntype = \"test-src\"\n[element.to]\ntype = \"kms-sink\"\n\
         [[link]]\npath = [\"from\", \"all\", \"to\"]\n[element.all]\ntype = \"all\"\n{element}"
    )
}

#[test]
fn every_type_of_property_comes_back_as_it_is_shown() {
    use shrbuf_pipeline::property::Property;
    let wanted = all();
    let text = between_ends(&format!(
        "flag = {}\ncount = {}\noffset = {}\nbytes = {}\ngamma = {}\ntitle = {}\npath = {}\nformat = {}\nsize = {}\n\
         rate = {}\nwait = {}\ncontrols = {}\npattern = {}\nfull = {}\ncopies = {}\nmaybe = {}\n",
        wanted.flag.show(),
        wanted.count.show(),
        wanted.offset.show(),
        wanted.bytes.show(),
        wanted.gamma.show(),
        wanted.title.show(),
        wanted.path.show(),
        wanted.format.show(),
        wanted.size.show(),
        wanted.rate.show(),
        wanted.wait.show(),
        wanted.controls.show(),
        wanted.pattern.show(),
        wanted.full.show(),
        wanted.copies.show(),
        wanted.maybe.show(),
    ));
    let mut types = types();
    types.push(ElementType::of::<All>());
    file::load("all.toml", &text, &types, &[]).unwrap_or_else(|e| panic!("{}\n{text}", rendered(&e)));
    assert_eq!(BUILT.take(), Some(wanted));
}

#[test]
fn every_shown_default_is_the_default() {
    let mut set = All { count: 5, pattern: Pattern::Noise, ..all() };
    for property in All::properties().iter().filter(|p| !p.default.is_empty()) {
        let table: toml::Table = format!("value = {}", property.default).parse().unwrap();
        set.set(&property.name, &table["value"]).unwrap();
    }
    assert_eq!(All { controls: BTreeMap::new(), maybe: None, ..set }, All::default());
}

#[test]
fn overrides_hold_over_the_file_and_the_last_over_all() {
    let overrides: Vec<Override> = [
        "all.count=7",
        "all.size=640x480",
        "all.title=two words",
        "all.rate=30000/1001",
        "all.count=8",
        "all.maybe=0x10",
    ]
    .iter()
    .map(|o| o.parse().unwrap())
    .collect();
    let mut types = types();
    types.push(ElementType::of::<All>());
    let text = between_ends("count = \"not a number, but never read\"\nflag = true");
    file::load("all.toml", &text, &types, &overrides).unwrap();
    let built = BUILT.take().unwrap();
    assert_eq!((built.count, built.maybe, built.flag), (8, Some(16), true));
    assert_eq!((built.size, built.rate), (Size::new(640, 480), Rate::new(30000, 1001)));
    assert_eq!(built.title, "two words");
}

#[test]
fn a_type_can_be_overridden() {
    let text = "[element.a]\ntype = \"v4l2-src\"\n[element.b]\ntype = \"kms-sink\"\n[[link]]\npath = [\"a\", \"b\"]";
    let sink: Override = "b.type=file-sink".parse().unwrap();
    let path: Override = "b.path=frames.raw".parse().unwrap();
    file::load("test.toml", text, &types(), &[sink, path]).unwrap();
}

#[test]
fn an_error_in_an_override_points_into_it() {
    let error = "camera.controls={ a = 1, b = 99999999999999999999 }".parse::<Override>().unwrap_err();
    assert_eq!((error.name(), error.line(), error.column()), (Some("--set"), 1, 30));

    let wrong: Override = "camera.frobnicate=1".parse().unwrap();
    let error = file::load("test.toml", EXAMPLE, &types(), &[wrong]).unwrap_err();
    assert_eq!((error.name(), error.column()), (Some("--set"), 8));
    assert!(rendered(&error).contains("[--set:1:8]"), "{}", rendered(&error));
}

#[test]
fn an_error_is_drawn_at_its_line_and_column_in_characters() {
    let text = EXAMPLE.replace("\"Virtual-1\"", "\"ÄÖÜ\"\nsize = 1").replace("rate = 60", "# ☃ §\n'rä te' = 60");
    let error = load(&text).unwrap_err();
    assert_eq!((error.line(), error.column(), error.others().len()), (12, 1, 1));
    assert!(rendered(&error).contains("[test.toml:12:1]"), "{}", rendered(&error));

    let error = load("pipeline = { name = 'ÄÖÜ', oops = 1 }").unwrap_err();
    assert_eq!((error.line(), error.column()), (1, 28));
    assert!(rendered(&error).contains("[test.toml:1:28]"), "{}", rendered(&error));
}

#[test]
fn a_file_that_cannot_be_read_is_a_typed_error() {
    let directory = std::env::temp_dir().join(format!("shrbuf-files-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let problem = |path: &Path| file::load_file(path, &types(), &[]).unwrap_err().problem().clone();
    std::fs::write(directory.join("camera.toml"), EXAMPLE).unwrap();
    std::fs::write(directory.join("video.toml"), vec![b'#'; MAX_BYTES as usize + 1]).unwrap();
    std::fs::write(directory.join("latin-1.toml"), b"# na\xefve").unwrap();

    file::load_file(&directory.join("camera.toml"), &types(), &[]).unwrap();
    let missing = problem(&directory.join("camrea.toml"));
    let near = directory.join("camera.toml").display().to_string();
    assert!(matches!(&missing, Problem::NoFile { nearest: Some(n), .. } if *n == near), "{missing:?}");
    assert!(matches!(problem(&directory.join("no/such/place.toml")), Problem::NoFile { nearest: None, .. }));
    assert!(matches!(problem(&directory), Problem::Directory { .. }));
    assert!(matches!(problem(&directory.join("video.toml")), Problem::TooLarge { limit: MAX_BYTES, .. }));
    assert!(matches!(problem(&directory.join("latin-1.toml")), Problem::NotUtf8 { byte: 0xef, offset: 4 }));
    assert!(matches!(problem(Path::new("/proc/self/mem")), Problem::Unreadable { .. }));
    assert!(matches!(problem(Path::new("/dev/zero")), Problem::TooLarge { .. }));
    std::fs::remove_dir_all(&directory).unwrap();
}

/// What must hold whatever the text: a graph, or errors that stand in it and can be drawn.
fn survives(text: &str) -> bool {
    let Err(error) = load(text) else { return true };
    for e in std::iter::once(&error).chain(error.others()) {
        let span = e.span().unwrap();
        assert!(text.get(span.clone()).is_some(), "{span:?} of {e} is not in {text:?}");
        assert!(e.line() >= 1 && e.line() <= text.matches('\n').count() + 1);
        assert!(e.column() >= 1 && e.column() <= text.chars().count() + 1);
        assert!(!e.to_string().is_empty() && !e.to_string().contains('\n'), "{e}");
    }
    let drawn = rendered(&error);
    assert!(!drawn.contains("Failed to read contents"), "{drawn}\n{text:?}");
    assert!(!drawn.contains('\u{1}'), "{drawn}");
    false
}

#[test]
fn no_damage_panics_and_every_error_stands_in_the_text() {
    load(EVERYTHING).unwrap_or_else(|e| panic!("{}", rendered(&e)));
    let boundaries: Vec<usize> = EVERYTHING.char_indices().map(|(i, _)| i).collect();
    let (mut variants, mut fine) = (0, 0);
    let mut try_out = |text: String| {
        variants += 1;
        fine += usize::from(survives(&text));
    };
    for &i in &boundaries {
        let (before, after) = EVERYTHING.split_at(i);
        let behind = &after[after.chars().next().map_or(0, char::len_utf8)..];
        try_out(before.to_owned());
        try_out(after.to_owned());
        try_out(format!("{before}{behind}"));
        for c in ["\"", "[", "]", "=", ".", "\n", "é", "9", "\u{1}", "{", "x", "\r"] {
            try_out(format!("{before}{c}{behind}"));
            try_out(format!("{before}{c}{after}"));
        }
    }
    assert!(variants > 10_000, "{variants}");
    assert!(fine > 100 && fine < variants / 2, "{fine} of {variants}");
}

#[test]
fn a_hostile_megabyte_is_refused_in_time() {
    let long = MAX_BYTES as usize;
    let nested = "a.".repeat(70);
    let deep = format!("[{nested}a]\n{nested}a = {}1{}", format!("{{ {nested}a = ").repeat(70), "}".repeat(70));
    let texts = [
        "[".repeat(long),
        "{".repeat(long),
        "a.".repeat(long / 2),
        "\"".repeat(long),
        "x = [".to_owned() + &"[1],".repeat(long / 4),
        "[element.a]\ntype = \"".to_owned() + &"x".repeat(long) + "\"",
        "\n".repeat(long),
        "# \u{10ffff}\n".repeat(long / 7),
        "[[link]]\npath = [\"a\", \"b\"]\n".repeat(long / 27),
        "[[link]]\npath = [\"a\"]\n".repeat(long / 22),
        (0..long / 120).map(|n| format!("[element.a{n}]\ntype = \"tee\"\n")).collect(),
        (0..long / 30).map(|n| format!("[element.a{n}]\ntype = \"te\"\n")).collect(),
        format!("[element.a.{nested}b]\n").repeat(2),
        format!("[element.a.b]\n{deep}"),
        deep.replacen('[', "[element.a.", 1),
    ];
    for text in texts {
        let started = Instant::now();
        let error = load(&text).unwrap_err();
        assert!(error.to_string().len() < 4000);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}: {error}", started.elapsed());
    }
}

#[test]
fn the_reference_tells_all_of_every_element() {
    let text = shrbuf_pipeline::reference::markdown(&types());
    let names = [V4l2Src::TYPE, TestSrc::TYPE, KmsSink::TYPE, Tee::TYPE, Room::TYPE, FileSink::TYPE];
    for name in names {
        assert!(text.contains(&format!("## `{name}`\n")), "{text}");
    }
    assert!(text.contains("Frames on a display.\n\nRestores what was on screen before.\n"), "{text}");
    assert!(text.contains("| `device` | a path as a string | `\"/dev/video0\"` | The device. |"), "{text}");
    assert!(text.contains("| `format` | a pixel format such as \"XR24\" or \"NV12\" |  | Pixel format. |"), "{text}");
    assert!(text.contains("## `tee`\n\nThe same frames to several.\n\nIt has no properties.\n"), "{text}");

    let text = shrbuf_pipeline::reference::text(&ElementType::of::<Room>());
    assert_eq!(
        text,
        "queue: Room for some frames, and a thread of its own behind it.\n\
         \n  depth = 2\n      takes an integer from 0 to 4294967295\n      Frames.\n\
         \n  full = \"block\"\n      takes \"block\", \"drop-oldest\" or \"latest\"\n      When full.\n"
    );
}
