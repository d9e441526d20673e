//! Why a producer and its consumers have nothing in common, in values and in words.

use std::fmt;

use shrbuf::{Format, MemoryKind, Modifier};

use super::ranges::{distance, gcd, nearest_size};
use crate::offer::{Origin, Rate, Rates, Size, Sizes, Video, Wanted};

/// Most entries of a list that a message shows.
const SHOWN: usize = 8;

/// Something that an element's user can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// `format`.
    Format(Format),
    /// `size`.
    Size(Size),
    /// `rate`.
    Rate(Rate),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Format(format) => write!(f, "{format}"),
            Asked::Size(size) => write!(f, "{size}"),
            Asked::Rate(rate) => write!(f, "{rate} fps"),
        }
    }
}

/// What one element can do of one kind of thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side<T> {
    /// The element.
    pub name: String,
    /// All it can do, each once.
    pub all: Vec<T>,
    /// What its user asked for.
    pub asked: Option<T>,
}

impl<T: PartialEq + Shown> Side<T> {
    pub(super) fn new(name: &str, all: impl IntoIterator<Item = T>, asked: Option<T>) -> Side<T> {
        let mut unique = Vec::new();
        for item in all {
            if !unique.contains(&item) {
                unique.push(item);
            }
        }
        Side { name: name.to_owned(), all: unique, asked }
    }

    fn say(&self, does: &str) -> String {
        match &self.asked {
            None => format!("{} {does} {}", self.name, list(&self.all)),
            Some(asked) if self.all.len() == 1 => format!("{} is asked for {}", self.name, asked.show()),
            Some(asked) => {
                format!("{} is asked for {} (it {does} {})", self.name, asked.show(), list(&self.all))
            }
        }
    }
}

/// Why nothing came through a sieve. The variants stand in the order of the sieves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// An element is asked for what it cannot do at all.
    NotOffered {
        /// The element.
        element: String,
        /// What it is asked for.
        asked: Asked,
        /// What it has, and where it has what was asked for.
        has: String,
    },
    /// Two users ask for different things.
    Disagree {
        /// Element and what it is asked for.
        first: (String, Asked),
        /// Element and what it is asked for.
        second: (String, Asked),
    },
    /// No format in common.
    Format {
        /// The producer.
        gives: Side<Format>,
        /// The consumers.
        takes: Vec<Side<Format>>,
    },
    /// The planes lie in a buffer each, and consumers want one for all.
    Segments {
        /// The producer.
        producer: String,
        /// The format.
        format: Format,
        /// Consumers that want one buffer.
        one_only: Vec<String>,
    },
    /// No modifier in common.
    Modifier {
        /// The format.
        format: Format,
        /// The producer; one without modifiers means LINEAR.
        gives: Side<Modifier>,
        /// The consumers.
        takes: Vec<Side<Modifier>>,
    },
    /// Memory that consumers cannot import.
    Memory {
        /// The producer.
        gives: Side<Origin>,
        /// The consumers.
        takes: Vec<Side<MemoryKind>>,
        /// For each of them, who within it insists on that.
        insist: Vec<Option<String>>,
    },
    /// No size in common.
    Size {
        /// The format.
        format: Format,
        /// The producer.
        gives: Side<Sizes>,
        /// The consumers.
        takes: Vec<Side<Sizes>>,
        /// The producer's and the consumer's size that are nearest to each other, or to what was asked for.
        nearest: Option<(Size, Size)>,
    },
    /// No rate in common.
    Rate {
        /// The format.
        format: Format,
        /// The size.
        size: Size,
        /// The producer's rates at this size.
        gives: Side<Rates>,
        /// The consumers' rates at this size.
        takes: Vec<Side<Rates>>,
    },
    /// Rows that a consumer cannot read.
    Stride {
        /// The producer.
        producer: String,
        /// Multiple that it can make strides of.
        most: u32,
        /// The consumer.
        consumer: String,
        /// Multiple that it wants.
        align: u32,
        /// The format.
        format: Format,
        /// The size.
        size: Size,
        /// Bytes of a row without padding.
        stride: u32,
    },
}

impl Obstacle {
    /// How far a format has come when it meets this.
    pub(super) fn stage(&self) -> u32 {
        match self {
            Obstacle::NotOffered { .. } => 0,
            Obstacle::Disagree { .. } => 1,
            Obstacle::Format { .. } => 2,
            Obstacle::Segments { .. } => 3,
            Obstacle::Modifier { .. } => 4,
            Obstacle::Memory { .. } => 5,
            Obstacle::Size { .. } => 6,
            Obstacle::Rate { .. } => 7,
            Obstacle::Stride { .. } => 8,
        }
    }

    /// See [`Cause::is_of_pictures`](super::search::Cause::is_of_pictures).
    pub(super) fn is_of_pictures(&self) -> bool {
        match self {
            Obstacle::Format { .. }
            | Obstacle::Segments { .. }
            | Obstacle::Modifier { .. }
            | Obstacle::Size { .. }
            | Obstacle::Stride { .. } => true,
            Obstacle::NotOffered { .. }
            | Obstacle::Disagree { .. }
            | Obstacle::Memory { .. }
            | Obstacle::Rate { .. } => false,
        }
    }

    /// The size obstacle, with the nearest sizes found; `common` are the sizes that all have, asked for or not.
    pub(super) fn size(format: Format, gives: Side<Sizes>, takes: Vec<Side<Sizes>>, common: &[Sizes]) -> Obstacle {
        let asked = gives.asked.iter().chain(takes.iter().filter_map(|t| t.asked.as_ref())).find_map(|s| match s {
            Sizes::Exact(size) => Some(*size),
            Sizes::Range { .. } => None,
        });
        let nearest = match asked.and_then(|size| nearest_size(common, size)) {
            Some(size) => Some((size, size)),
            None => match takes.as_slice() {
                [take] => nearest_pair(&gives.all, &take.all),
                _ => None,
            },
        };
        Obstacle::Size { format, gives, takes, nearest }
    }

    /// Checks that an element has what it is asked for itself.
    pub(super) fn not_offered(name: &str, wanted: &Wanted, video: &[Video]) -> Result<(), Obstacle> {
        if *wanted == Wanted::default() {
            return Ok(());
        }
        let fail = |asked, has| Err(Obstacle::NotOffered { element: name.to_owned(), asked, has });
        let as_asked: Vec<&Video> = video.iter().filter(|v| wanted.format.is_none_or(|f| f == v.format)).collect();
        if let (Some(format), true) = (wanted.format, as_asked.is_empty()) {
            return fail(Asked::Format(format), list(&Side::new(name, video.iter().map(|v| v.format), None).all));
        }
        let entries = || as_asked.iter().flat_map(|v| &v.sizes);
        let Some(size) = wanted.size else {
            return match wanted.rate {
                Some(rate) if !entries().any(|s| s.rates.contains(rate)) => {
                    fail(Asked::Rate(rate), fps(&Side::new(name, entries().map(|s| s.rates.clone()), None).all))
                }
                _ => Ok(()),
            };
        };
        if !entries().any(|s| s.sizes.contains(size)) {
            let sizes = Side::new(name, entries().map(|s| s.sizes), None).all;
            let mut has = list(&sizes);
            if let (Some(format), true) = (wanted.format, !sizes.is_empty()) {
                has.push_str(&format!(" as {format}"));
            }
            if let Some(nearest) = nearest_size(&sizes, size).filter(|_| sizes.len() > 1) {
                has.push_str(&format!("; nearest is {nearest}"));
            }
            let elsewhere = video.iter().filter(|v| v.sizes.iter().any(|s| s.sizes.contains(size)));
            let elsewhere = Side::new(name, elsewhere.map(|v| v.format), None).all;
            if !elsewhere.is_empty() {
                has.push_str(&format!("; it has {size} as {}", list(&elsewhere)));
            }
            return fail(Asked::Size(size), has);
        }
        let there = || entries().filter(|s| s.sizes.contains(size));
        match wanted.rate {
            Some(rate) if !there().any(|s| s.rates.contains(rate)) => {
                let mut has =
                    format!("{} at {size}", fps(&Side::new(name, there().map(|s| s.rates.clone()), None).all));
                let elsewhere = entries().filter(|s| s.rates.contains(rate));
                let elsewhere = Side::new(name, elsewhere.map(|s| s.sizes), None).all;
                if !elsewhere.is_empty() {
                    has.push_str(&format!("; it has {rate} fps at {}", list(&elsewhere)));
                }
                fail(Asked::Rate(rate), has)
            }
            _ => Ok(()),
        }
    }

    /// What would make it fit, where that follows from the obstacle itself.
    pub(super) fn remedy(&self) -> Option<String> {
        match self {
            Obstacle::NotOffered { .. } | Obstacle::Rate { .. } => None,
            Obstacle::Disagree { first, second } => {
                Some(format!("ask both for the same, or leave the choice to {} or {}", first.0, second.0))
            }
            Obstacle::Format { gives, takes } => Some(match takes.as_slice() {
                [take] if gives.all.is_empty() => format!("have {} give {}", gives.name, any_of(&take.all)),
                [take] => format!(
                    "have {} give {}, or {} take {}",
                    gives.name,
                    any_of(&take.all),
                    take.name,
                    any_of(&gives.all)
                ),
                _ => format!("have {} take the same of {}", names(takes), list(&gives.all)),
            }),
            Obstacle::Segments { producer, format, .. } => {
                Some(format!("have {producer} give {format} in one buffer, or a format of one plane"))
            }
            Obstacle::Modifier { format, gives, takes } => Some(match takes.as_slice() {
                [take] => format!("have {} arrange {format} as {}", gives.name, any_of(&take.all)),
                _ => format!("have {} take the same of {}", names(takes), list(&gives.all)),
            }),
            Obstacle::Memory { gives, takes, .. } => {
                let all = |kind| takes.iter().all(|t| t.all.contains(&kind));
                let kinds: Vec<MemoryKind> =
                    [MemoryKind::DmaBuf, MemoryKind::Memfd].into_iter().filter(|&k| all(k)).collect();
                let advice = match kinds.first() {
                    None => return None,
                    Some(MemoryKind::DmaBuf) => {
                        "; /dev/udmabuf and /dev/dma_heap make dma-bufs where this user may open them"
                    }
                    Some(MemoryKind::Memfd) => "",
                };
                Some(format!("have {} allocate {} memory{advice}", gives.name, any_of(&kinds)))
            }
            Obstacle::Size { nearest, .. } => nearest.map(|(a, b)| match a == b {
                true => format!("the nearest size that all have is {a}"),
                false => format!("the nearest sizes are {a} and {b}"),
            }),
            Obstacle::Stride { align, format, .. } => {
                let s = format.planes()[0];
                let pixels = u64::from(*align) / gcd(u64::from(*align), u64::from(s.bytes)) * u64::from(s.hsub);
                Some(format!("a width that is a multiple of {pixels} pixels"))
            }
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::NotOffered { element, asked, has } => {
                write!(f, "{element} is asked for {asked}, but has {has}")
            }
            Obstacle::Disagree { first, second } => {
                write!(f, "{} is asked for {}, {} for {}", first.0, first.1, second.0, second.1)
            }
            Obstacle::Format { gives, takes } => {
                write!(f, "no format in common: {}; {}", gives.say("gives"), say_all(takes))
            }
            Obstacle::Segments { producer, format, one_only } => write!(
                f,
                "{producer} gives {format} with each plane in a buffer of its own; {} {} all in one",
                one_only.join(" and "),
                if one_only.len() == 1 { "takes" } else { "take" }
            ),
            Obstacle::Modifier { format, gives, takes } => {
                write!(f, "no modifier of {format} in common: {}; {}", gives.say("gives"), say_all(takes))
            }
            Obstacle::Memory { gives, takes, insist } => {
                write!(f, "no memory in common: {}", gives.say("allocates from"))?;
                for (takes, insists) in takes.iter().zip(insist) {
                    write!(f, "; {}", takes.say("imports"))?;
                    if let Some(who) = insists {
                        write!(f, ", on which {who} insists")?;
                    }
                }
                Ok(())
            }
            Obstacle::Size { format, gives, takes, .. } => {
                write!(f, "no size of {format} in common: {}; {}", gives.say("gives"), say_all(takes))
            }
            Obstacle::Rate { format, size, gives, takes } => {
                write!(f, "no rate of {format} {size} in common: {}; {}", gives.say("gives"), say_all(takes))
            }
            Obstacle::Stride { producer, most, consumer, align, format, size, stride } => write!(
                f,
                "{consumer} takes rows of a multiple of {align} bytes; a row of {format} {size} is {stride} bytes, and \
                 {producer} pads to multiples of at most {most}"
            ),
        }
    }
}

fn names<T>(takes: &[Side<T>]) -> String {
    takes.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(" and ")
}

fn say_all<T: PartialEq + Shown>(takes: &[Side<T>]) -> String {
    takes.iter().map(|t| t.say("takes")).collect::<Vec<_>>().join("; ")
}

fn nearest_pair(gives: &[Sizes], takes: &[Sizes]) -> Option<(Size, Size)> {
    let pair = |a: &[Sizes], b: &[Sizes]| {
        let exact = a.iter().filter_map(|s| if let Sizes::Exact(size) = s { Some(*size) } else { None });
        exact.filter_map(|size| Some((size, nearest_size(b, size)?))).min_by_key(|&(a, b)| distance(a, b))
    };
    pair(gives, takes).or_else(|| pair(takes, gives).map(|(a, b)| (b, a)))
}

/// Something that lists in messages are made of.
pub trait Shown {
    /// As a message has it.
    fn show(&self) -> String;
}

macro_rules! shown {
    ($($type:ty),+) => {
        $(impl Shown for $type {
            fn show(&self) -> String {
                self.to_string()
            }
        })+
    };
}
shown!(Format, Modifier, Origin, MemoryKind);

impl Shown for Sizes {
    fn show(&self) -> String {
        match *self {
            Sizes::Exact(size) => size.to_string(),
            Sizes::ANY => "any size".into(),
            Sizes::Range { min, max, step } if step.width <= 1 && step.height <= 1 => format!("{min} to {max}"),
            Sizes::Range { min, max, step } => format!("{min} to {max} in steps of {step}"),
        }
    }
}

impl Shown for Rates {
    fn show(&self) -> String {
        match self {
            Rates::Any => "any rate".into(),
            Rates::List(list) => format!("{} fps", shortened(list.iter().map(ToString::to_string))),
            Rates::Range(min, max) => format!("{min} to {max} fps"),
        }
    }
}

fn list<T: Shown>(items: &[T]) -> String {
    shortened(items.iter().map(Shown::show))
}

fn fps(rates: &[Rates]) -> String {
    list(rates)
}

/// `A, B or C`.
fn any_of<T: Shown>(items: &[T]) -> String {
    match items {
        [first @ .., last] if !first.is_empty() && items.len() <= SHOWN => {
            format!("{} or {}", list(first), last.show())
        }
        _ => list(items),
    }
}

fn shortened(items: impl ExactSizeIterator<Item = String>) -> String {
    let count = items.len();
    if count == 0 {
        return "nothing".into();
    }
    let shown: Vec<String> = items.take(SHOWN).collect();
    match count.saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
