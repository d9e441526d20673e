//! What a producer and its consumers could agree on, by their offers alone, best first.
//!
//! Formats go through a row of sieves: is it asked for, do all take it, in this arrangement, from this memory, at a
//! common size and rate, with strides that can be made. Where nothing comes through, the format that got furthest says
//! why: "no format in common" is no answer where one was and only the size did not fit.

use shrbuf::{Format, Layout, MemoryKind, Modifier};

use super::obstacle::{Asked, Obstacle, Side};
use super::ranges::{common_rates, common_sizes, lcm, points};
use crate::graph::Port;
use crate::offer::{
    InputOffer, Modifiers, Origin, OutputOffer, Rate, Rates, Size, SizeOffer, Sizes, Stream, Video, Wanted,
};

/// A producer's offer and its name for messages.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) offer: OutputOffer,
}

/// A consumer's offer and its name for messages.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) port: Port,
    pub(super) name: String,
    pub(super) offer: InputOffer,
}

/// Every stream that all could do, best first; `input` is what the producer makes it of.
///
/// In the order of the producer's formats and modifiers, at the first size and rate of each; then all again at the
/// second, and so on: where a trial fails, another format is more likely to help than the same in another size.
///
/// # Errors
/// There is none: the sieve that the last formats did not pass.
pub(super) fn candidates(
    producer: &Output,
    consumers: &[&Input],
    input: Option<&Stream>,
    buffers: u32,
) -> Result<Vec<Stream>, Obstacle> {
    let wanted = agreed_wishes(producer, consumers)?;
    let mut ranked: Vec<(usize, Stream)> = Vec::new();
    let mut furthest: Option<Obstacle> = None;
    for video in producer.offer.video.iter().filter(|v| wanted.format.is_none_or(|f| v.format == f)) {
        match of_format(video, producer, consumers, &wanted, input) {
            Ok(streams) => ranked.extend(streams.into_iter().map(|(rank, s)| (rank, Stream { buffers, ..s }))),
            Err(obstacle) => {
                if furthest.as_ref().is_none_or(|f| f.stage() < obstacle.stage()) {
                    furthest = Some(obstacle);
                }
            }
        }
    }
    if ranked.is_empty() {
        return Err(furthest.unwrap_or_else(|| no_format(producer, consumers)));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    Ok(ranked.into_iter().map(|(_, stream)| stream).collect())
}

/// What all users together ask for.
fn agreed_wishes(producer: &Output, consumers: &[&Input]) -> Result<Wanted, Obstacle> {
    let mut parties = vec![(producer.name.as_str(), producer.offer.wanted, &producer.offer.video)];
    parties.extend(consumers.iter().map(|c| (c.name.as_str(), c.offer.wanted, &c.offer.video)));
    for (name, wanted, video) in &parties {
        Obstacle::not_offered(name, wanted, video)?;
    }
    let wishes = || parties.iter().map(|(name, wanted, _)| (*name, wanted));
    Ok(Wanted {
        format: agree(wishes().map(|(name, w)| (name, w.format)), Asked::Format)?,
        size: agree(wishes().map(|(name, w)| (name, w.size)), Asked::Size)?,
        rate: agree(wishes().map(|(name, w)| (name, w.rate)), Asked::Rate)?,
    })
}

/// The one value that is asked for, if any is.
fn agree<'a, T: Copy + PartialEq>(
    wishes: impl Iterator<Item = (&'a str, Option<T>)>,
    asked: impl Fn(T) -> Asked,
) -> Result<Option<T>, Obstacle> {
    let mut first: Option<(&str, T)> = None;
    for (name, wish) in wishes.filter_map(|(name, wish)| Some((name, wish?))) {
        let (other, value) = *first.get_or_insert((name, wish));
        if value != wish {
            let (first, second) = ((other.to_owned(), asked(value)), (name.to_owned(), asked(wish)));
            return Err(Obstacle::Disagree { first, second });
        }
    }
    Ok(first.map(|(_, value)| value))
}

/// The streams of one entry of the producer's list, with the rank of their size and rate.
fn of_format(
    video: &Video,
    producer: &Output,
    consumers: &[&Input],
    wanted: &Wanted,
    input: Option<&Stream>,
) -> Result<Vec<(usize, Stream)>, Obstacle> {
    let format = video.format;
    let mut takes: Vec<Vec<&Video>> =
        consumers.iter().map(|c| c.offer.video.iter().filter(|v| v.format == format).collect()).collect();
    if takes.iter().any(Vec::is_empty) {
        return Err(no_format(producer, consumers));
    }
    // With one plane there is nothing to arrange.
    let split = video.plane_segments && format.planes().len() > 1;
    if split {
        takes.iter_mut().for_each(|t| t.retain(|v| v.plane_segments));
        let one_only = consumers.iter().zip(&takes).filter(|(_, t)| t.is_empty()).map(|(c, _)| c.name.clone());
        let one_only: Vec<String> = one_only.collect();
        if !one_only.is_empty() {
            return Err(Obstacle::Segments { producer: producer.name.clone(), format, one_only });
        }
    }
    let modifiers = common_modifiers(video, &takes);
    if modifiers.is_empty() {
        return Err(Obstacle::Modifier {
            format,
            gives: Side::new(&producer.name, modifier_list(&[video]), None),
            takes: sides(consumers, &takes, |c, t| Side::new(&c.name, modifier_list(t), None)),
        });
    }
    let origins = common_origins(producer, consumers)?;

    let natural: Vec<Size> = consumers.iter().filter_map(|c| c.offer.natural).collect();
    let align = consumers.iter().map(|c| u64::from(c.offer.memory.stride_align.max(1))).fold(1, lcm);
    let align = u32::try_from(align).unwrap_or(u32::MAX);
    let block = common_block(format, consumers);
    let read_only = consumers.iter().any(|c| c.offer.memory.read_only);
    let mut streams = Vec::new();
    let mut furthest: Option<Obstacle> = None;
    for modifier in modifiers {
        let takes: Vec<Vec<&Video>> =
            takes.iter().map(|t| t.iter().copied().filter(|v| accepts(v, modifier)).collect()).collect();
        let made = common_points(video, producer, consumers, &takes, wanted)
            .map(|sizes| points(&sizes, &natural, input))
            .and_then(|points| with_strides(points, format, modifier, align, producer, consumers));
        match made {
            Ok(points) => {
                for (rank, (size, rate)) in points.into_iter().enumerate() {
                    for &origin in &origins {
                        let (stride_align, plane_segments, buffers) = (align, split, 0);
                        let first = Stream {
                            format,
                            modifier,
                            size,
                            rate,
                            origin,
                            stride_align,
                            block,
                            plane_segments,
                            read_only,
                            buffers,
                        };
                        streams.push((rank, first));
                        let padded = paddings(&first, producer, consumers).into_iter();
                        streams.extend(padded.map(|stride_align| (rank, Stream { stride_align, ..first })));
                    }
                }
            }
            Err(obstacle) if furthest.as_ref().is_none_or(|f| f.stage() < obstacle.stage()) => {
                furthest = Some(obstacle);
            }
            Err(_) => {}
        }
    }
    match furthest {
        Some(obstacle) if streams.is_empty() => Err(obstacle),
        _ => Ok(streams),
    }
}

/// The least blocks that are whole for every consumer that has any.
fn common_block(format: Format, consumers: &[&Input]) -> Option<Size> {
    let common = |a: u32, b: u32| u32::try_from(lcm(a.max(1).into(), b.max(1).into())).unwrap_or(1);
    let blocks = consumers.iter().filter_map(|c| c.offer.memory.block(format));
    blocks.reduce(|a, b| Size::new(common(a.width, b.width), common(a.height, b.height)))
}

fn no_format(producer: &Output, consumers: &[&Input]) -> Obstacle {
    let side = |name: &str, wanted: &Wanted, video: &[Video]| Side::new(name, formats(video), wanted.format);
    Obstacle::Format {
        gives: side(&producer.name, &producer.offer.wanted, &producer.offer.video),
        takes: consumers.iter().map(|c| side(&c.name, &c.offer.wanted, &c.offer.video)).collect(),
    }
}

fn formats(video: &[Video]) -> impl Iterator<Item = Format> {
    video.iter().map(|v| v.format)
}

/// True where an input's entry takes a stream of this modifier. A driver without modifiers and its neighbours
/// mean LINEAR by silence.
fn accepts(video: &Video, modifier: Option<Modifier>) -> bool {
    let modifier = modifier.unwrap_or(Modifier::LINEAR);
    match &video.modifiers {
        Modifiers::Unknown => modifier == Modifier::LINEAR,
        Modifiers::List(list) => list.contains(&modifier),
    }
}

fn common_modifiers(video: &Video, takes: &[Vec<&Video>]) -> Vec<Option<Modifier>> {
    let offered: Vec<Option<Modifier>> = match &video.modifiers {
        Modifiers::Unknown => vec![None],
        Modifiers::List(list) => list.iter().copied().map(Some).collect(),
    };
    offered.into_iter().filter(|&m| takes.iter().all(|t| t.iter().any(|v| accepts(v, m)))).collect()
}

fn modifier_list(videos: &[&Video]) -> Vec<Modifier> {
    let lists = videos.iter().map(|v| match &v.modifiers {
        Modifiers::Unknown => &[Modifier::LINEAR][..],
        Modifiers::List(list) => list,
    });
    lists.flatten().copied().collect()
}

fn common_origins(producer: &Output, consumers: &[&Input]) -> Result<Vec<Origin>, Obstacle> {
    let all = |o: &Origin| consumers.iter().all(|c| c.offer.memory.kinds.contains(&o.kind()));
    let origins: Vec<Origin> = producer.offer.memory.origins.iter().copied().filter(all).collect();
    if origins.is_empty() {
        return Err(Obstacle::Memory {
            gives: Side::new(&producer.name, producer.offer.memory.origins.iter().copied(), None),
            takes: consumers.iter().map(|c| Side::new(&c.name, c.offer.memory.kinds.iter().copied(), None)).collect(),
            insist: consumers.iter().map(|c| c.offer.memory.insists.clone()).collect(),
        });
    }
    Ok(origins)
}

/// Sizes that all have, with the rates that all have there; `None` where they have none in common.
type Shared = (Sizes, Option<Rates>);

/// Sizes and rates that all have and that were asked for.
fn common_points(
    video: &Video,
    producer: &Output,
    consumers: &[&Input],
    takes: &[Vec<&Video>],
    wanted: &Wanted,
) -> Result<Vec<SizeOffer>, Obstacle> {
    let offered = video.sizes.iter().map(|s| (s.sizes, Some(s.rates.clone()))).collect();
    let common = takes.iter().fold(offered, |common: Vec<Shared>, t| overlap(&common, t.iter().flat_map(|v| &v.sizes)));
    let asked = SizeOffer {
        sizes: wanted.size.map_or(Sizes::ANY, Sizes::Exact),
        rates: wanted.rate.map_or(Rates::Any, |rate| Rates::List(vec![rate])),
    };
    let right = overlap(&common, [&asked]);
    let usable: Vec<SizeOffer> =
        right.iter().filter_map(|(sizes, rates)| Some(SizeOffer { sizes: *sizes, rates: rates.clone()? })).collect();
    if !usable.is_empty() {
        return Ok(usable);
    }
    // Where sizes meet, it is the rates at the best of them that do not.
    let met: Vec<SizeOffer> = right.iter().map(|(sizes, _)| SizeOffer { sizes: *sizes, rates: Rates::Any }).collect();
    let natural: Vec<Size> = consumers.iter().filter_map(|c| c.offer.natural).collect();
    Err(match points(&met, &natural, None).first() {
        Some(&(size, _)) => Obstacle::Rate {
            format: video.format,
            size,
            gives: rates_at(size, &producer.name, &producer.offer.wanted, &[video]),
            takes: sides(consumers, takes, |c, t| rates_at(size, &c.name, &c.offer.wanted, t)),
        },
        None => Obstacle::size(
            video.format,
            sizes_of(&producer.name, &producer.offer.wanted, &[video]),
            sides(consumers, takes, |c, t| sizes_of(&c.name, &c.offer.wanted, t)),
            &common.iter().map(|(sizes, _)| *sizes).collect::<Vec<_>>(),
        ),
    })
}

fn overlap<'a>(a: &[Shared], b: impl IntoIterator<Item = &'a SizeOffer> + Clone) -> Vec<Shared> {
    let mut both = Vec::new();
    for (sizes, rates) in a {
        for other in b.clone() {
            if let Some(common) = common_sizes(sizes, &other.sizes) {
                both.push((common, rates.as_ref().and_then(|r| common_rates(r, &other.rates))));
            }
        }
    }
    both
}

fn sides<T>(consumers: &[&Input], takes: &[Vec<&Video>], side: impl Fn(&Input, &[&Video]) -> Side<T>) -> Vec<Side<T>> {
    consumers.iter().zip(takes).map(|(c, t)| side(c, t)).collect()
}

fn sizes_of(name: &str, wanted: &Wanted, videos: &[&Video]) -> Side<Sizes> {
    let all = videos.iter().flat_map(|v| v.sizes.iter().map(|s| s.sizes));
    Side::new(name, all, wanted.size.map(Sizes::Exact))
}

fn rates_at(size: Size, name: &str, wanted: &Wanted, videos: &[&Video]) -> Side<Rates> {
    let there = videos.iter().flat_map(|v| &v.sizes).filter(|s| s.sizes.contains(size));
    Side::new(name, there.map(|s| s.rates.clone()), wanted.rate.map(|r| Rates::List(vec![r])))
}

/// Leaves the sizes whose rows all consumers can read: rows that are right without padding, or that the producer can
/// pad. A producer that cannot say (1: the driver alone decides) is asked for real, by the trial.
fn with_strides(
    points: Vec<(Size, Option<Rate>)>,
    format: Format,
    modifier: Option<Modifier>,
    align: u32,
    producer: &Output,
    consumers: &[&Input],
) -> Result<Vec<(Size, Option<Rate>)>, Obstacle> {
    let most = producer.offer.memory.max_stride_align;
    let linear = modifier.is_none_or(|m| m == Modifier::LINEAR);
    if !linear || most == 1 || align <= most {
        return Ok(points);
    }
    let unpadded = |size: Size| Layout::linear(format, size.width, size.height, 1).ok();
    let fits = |size: Size| unpadded(size).is_some_and(|l| l.planes().iter().all(|p| p.stride.is_multiple_of(align)));
    let first = points.first().map(|(size, _)| *size);
    let fitting: Vec<_> = points.into_iter().filter(|(size, _)| fits(*size)).collect();
    match first {
        Some(size) if fitting.is_empty() => Err(Obstacle::Stride {
            producer: producer.name.clone(),
            most,
            consumer: strictest(consumers),
            align,
            format,
            size,
            stride: unpadded(size).and_then(|l| l.planes().first().map(|p| p.stride)).unwrap_or(0),
        }),
        _ => Ok(fitting),
    }
}

/// Strides to try after `stream` was refused: what some devices want without saying so, Mali multiples of 64 bytes and
/// AMD of 256. Only where the producer can be told, a device imports, and the rows come out longer.
fn paddings(stream: &Stream, producer: &Output, consumers: &[&Input]) -> Vec<u32> {
    const DEVICES: [u32; 2] = [64, 256];
    let most = producer.offer.memory.max_stride_align;
    let linear = stream.modifier.is_none_or(|m| m == Modifier::LINEAR);
    let device = consumers.iter().any(|c| !c.offer.memory.kinds.contains(&MemoryKind::Memfd));
    if !linear || !device {
        return Vec::new();
    }
    let layout = |align| Layout::linear(stream.format, stream.size.width, stream.size.height, align).ok();
    let mut before = layout(stream.stride_align);
    let mut longer = |align: &u32| {
        let padded = layout(*align);
        let longer =
            *align <= most && align.is_multiple_of(stream.stride_align) && padded.is_some() && padded != before;
        if longer {
            before = padded;
        }
        longer
    };
    DEVICES.into_iter().filter(|align| longer(align)).collect()
}

fn strictest(consumers: &[&Input]) -> String {
    let most = consumers.iter().max_by_key(|c| c.offer.memory.stride_align);
    most.map(|c| c.name.clone()).unwrap_or_default()
}
