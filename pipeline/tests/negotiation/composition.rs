//! A display that takes no two pictures on planes of their own, and what composes them for it.

use shrbuf::Shrbuf;
use shrbuf_pipeline::{
    Composition, Context, Element, Failure, Frame, InputOffer, Layer, OutputOffer, Ports, Role, Size, Stream,
};

use super::*;

/// Named inputs, and what has them in one.
struct Planes {
    each: Scripted,
    names: &'static [&'static str],
    composed: Option<Composition>,
    most: usize,
    /// Inputs that have one.
    taken: Vec<usize>,
}

impl Planes {
    /// Of which so many are shown together.
    fn showing(most: usize) -> Box<Planes> {
        let each = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
        Box::new(Planes { each, names: &["left", "right"], composed: None, most, taken: Vec::new() })
    }
}

impl Element for Planes {
    fn ports(&self) -> Ports {
        if self.composed.is_some() {
            return Ports::sink();
        }
        Ports { inputs: self.names.iter().map(|n| (*n).to_owned()).collect(), outputs: vec![] }
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        self.each.input_offer(0)
    }

    fn import(&mut self, input: usize, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        self.taken.retain(|i| *i != input);
        refuse_if(self.taken.len() == self.most, "there is no plane left")?;
        self.each.import(input, stream, buffers)?;
        self.taken.push(input);
        Ok(())
    }

    fn composition(&self) -> Option<Composition> {
        let layer = |x| Layer { x, y: 0, size: Size::new(640, 480), opacity: 1.0 };
        let composition = Composition { size: Size::new(1280, 480), layers: vec![layer(0), layer(640)] };
        self.composed.is_none().then_some(composition)
    }

    fn take_composed(&mut self, composed: Option<&Composition>) {
        self.composed = composed.cloned();
        self.taken.clear();
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// Several inputs, and one picture of them.
struct Mixer {
    each: Scripted,
    inputs: usize,
}

impl Element for Mixer {
    fn ports(&self) -> Ports {
        Ports { inputs: (0..self.inputs).map(|n| format!("in{n}")).collect(), outputs: vec!["out".into()] }
    }

    fn role(&self) -> Role {
        Role::Endpoint
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        self.each.input_offer(0)
    }

    fn output_offer(&mut self, output: usize, input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        assert_eq!(input, None);
        self.each.output_offer(output, None)
    }

    fn allocate(&mut self, output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.each.allocate(output, stream)
    }

    fn import(&mut self, _input: usize, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        self.each.import(0, stream, buffers)
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

fn mixer(composition: &Composition, reads: shrbuf::Format) -> Box<dyn Element> {
    let (width, height) = (composition.size.width, composition.size.height);
    let each = Scripted::source_and_sink(vec![video(Xr24, &[(width, height)], &[])], vec![Video::linear(reads)]);
    Box::new(Mixer { each, inputs: composition.layers.len() })
}

/// Does not convert what these displays do not take, but composes.
const COMPOSES: Converter = Converter { compose: Some(|c| Ok(mixer(c, Xr24))), ..GPU };
const READS_OTHERS: Converter = Converter { compose: Some(|c| Ok(mixer(c, Grey))), ..GPU };
const ABSENT: Converter = Converter { present: || Err("no GPU can be used".into()), ..COMPOSES };
const TOO_FEW: Converter = Converter { compose: Some(|_| Err("it composes one input, these are 2".into())), ..GPU };

fn two_cameras(display: Box<Planes>) -> Graph {
    let mut graph = Graph::new("test");
    graph.add("display", display).unwrap();
    // Linked against the order of the inputs, which stays.
    for (camera, input) in [("second", "display.right"), ("first", "display.left")] {
        graph.add(camera, Box::new(Scripted::source(vec![video(Xr24, &[(640, 480)], &[30])]))).unwrap();
        let (output, input) = (graph.output(camera).unwrap(), graph.input(input).unwrap());
        graph.link_ports(output, input, None).unwrap();
    }
    graph
}

fn with(graph: &mut Graph, converters: &'static [Converter]) -> Result<shrbuf_pipeline::plan::Plan, String> {
    negotiate(graph, &NegotiateOptions { converters }).map_err(|e| e.to_string())
}

const ON_PLANES: [&str; 2] = [
    "second → display.right: XR24 640x480 at 30 fps from v4l2, stride 2560, zero-copy",
    "first → display.left: XR24 640x480 at 30 fps from v4l2, stride 2560, zero-copy",
];

#[test]
fn what_the_display_takes_is_not_composed() {
    assert_eq!(links(&with(&mut two_cameras(Planes::showing(2)), &[COMPOSES, CPU]).unwrap()), ON_PLANES);
}

#[test]
fn what_the_display_refuses_together_is_composed_and_says_why() {
    let mut graph = two_cameras(Planes::showing(1));
    for _again in 0..2 {
        let plan = with(&mut graph, &[COMPOSES, CPU]).unwrap();
        assert_eq!(
            links(&plan),
            [
                "second → inputs→display gpu.in1: XR24 640x480 at 30 fps from v4l2, stride 2560, zero-copy",
                "first → inputs→display gpu.in0: XR24 640x480 at 30 fps from v4l2, stride 2560, zero-copy",
                "inputs→display gpu → display: XR24 1280x480 from v4l2, stride 5120, zero-copy",
            ]
        );
        assert_eq!(
            reasons(&plan)[2],
            "2 inputs in one of XR24 1280x480 writes 2.5 MB per frame; by `gpu`, which is needed: \
             XR24 640x480 at 30 fps from v4l2: display.left: there is no plane left"
        );
    }
    graph.remove_inserted();
    let text = with(&mut graph, &[]).unwrap_err();
    assert!(text.starts_with("first → display.left: every candidate was refused"), "{text}");
}

#[test]
fn an_element_of_the_users_that_fails_while_others_are_composed_ends_negotiation() {
    let mut graph = two_cameras(Planes::showing(1));
    let third = Scripted::source(vec![video(Xr24, HD, &[30])]).missing();
    let third = graph.add("third", Box::new(third)).unwrap();
    let sink = graph.add("sink", Box::new(Scripted::sink(vec![up_to(Xr24, 4096, 4096)]))).unwrap();
    graph.link(third, sink).unwrap();
    for converters in [&[COMPOSES][..], &[COMPOSES, CPU]] {
        assert_eq!(with(&mut graph, converters).unwrap_err(), "`third`: configuration: there is no /dev/video7");
    }
}

#[test]
fn without_what_composes_the_displays_own_words_are_the_answer() {
    const ALONE: &str = "first → display.left: every candidate was refused when tried\n  \
                         XR24 640x480 at 30 fps from v4l2: display.left: there is no plane left";
    assert_eq!(with(&mut two_cameras(Planes::showing(1)), &[]).unwrap_err(), ALONE);
    let text = with(&mut two_cameras(Planes::showing(1)), &[READS_OTHERS]).unwrap_err();
    assert_eq!(text.lines().take(2).collect::<Vec<_>>().join("\n"), ALONE);
    assert!(text.contains("\n`gpu` does not help: second → inputs→display gpu.in1: no format in common: "), "{text}");
    let text = with(&mut two_cameras(Planes::showing(1)), &[TOO_FEW]).unwrap_err();
    assert!(text.ends_with("\n`gpu` does not help: it composes one input, these are 2."), "{text}");
    // And no copy is offered where planes would be missing all the same.
    let text = with(&mut two_cameras(Planes::showing(1)), &[ABSENT, CPU]).unwrap_err();
    assert_eq!(text, format!("{ALONE}\n`gpu` does not help: no GPU can be used."));
}
