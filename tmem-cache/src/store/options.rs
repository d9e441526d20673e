//! What a store and its pools are made with.

use std::path::PathBuf;

use shrbuf::Ledger;

/// What the segments' memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backing {
    /// Anonymous memory in huge pages: 256 MiB go back to the kernel in 2 to 6 ms.
    #[default]
    Anonymous,
    /// A memfd. Only where `transparent_hugepage/shmem_enabled` is `advise` does it get huge pages; without, giving back
    /// 256 MiB takes 50 to 105 ms (an AMD EPYC virtual machine), whichever call does it.
    Memfd,
}

/// What a store is made with.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Most bytes of memory for segments, ever. Rounded down to segments of 4 MiB, at least two.
    pub limit: usize,
    /// What the memory is.
    pub backing: Backing,
    /// The file tier, if there is one.
    pub file: Option<FileOptions>,
    /// Where the bytes of frames that are put and got are counted, as [`shrbuf::Reason::Store`].
    pub ledger: Ledger,
}

impl StoreOptions {
    /// Memory only, counted by itself.
    pub fn new(limit: usize) -> StoreOptions {
        StoreOptions { limit, backing: Backing::default(), file: None, ledger: Ledger::default() }
    }
}

/// The file tier.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// A directory for it alone, made if it is not there.
    pub directory: PathBuf,
    /// Most bytes that files take, holes left out.
    pub limit: u64,
    /// Most bytes written in 24 hours, for the life of flash, restarts or not; a quarter of it may come at once.
    pub writes_per_day: u64,
}

/// How long a pool keeps chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Life {
    /// A chunk may be gone at the next get.
    Ephemeral,
    /// A chunk whose put was accepted is there until it is flushed.
    Persistent,
}

/// Who gets chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// One client; a get of an ephemeral chunk takes it out.
    Private,
    /// Several clients; a get leaves the chunk.
    Shared,
}

/// What becomes of a chunk that compresses poorly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poor {
    /// It is stored as it is, so that a get costs a copy and no decoding, until upkeep finds that the dense tier makes it
    /// smaller.
    StoreRaw,
    /// The put is refused.
    Refuse,
}

/// When a chunk compresses poorly. Ratios are compressed ÷ original bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Admission {
    /// A chunk above this is poor.
    pub chunk: f32,
    /// While the pool's chunks together are above this, each that is above it too is poor.
    pub mean: f32,
    /// What becomes of it.
    pub poor: Poor,
}

impl Default for Admission {
    fn default() -> Admission {
        Admission { chunk: 0.97, mean: 1.0, poor: Poor::StoreRaw }
    }
}

/// Most halvings that make a difference: it takes a store of 64 GiB to have segments for more.
pub(crate) const HALVINGS: u8 = 12;

/// What a pool is made with.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolOptions {
    /// How long it keeps chunks.
    pub life: Life,
    /// Who gets them.
    pub sharing: Sharing,
    /// Its share of a full store, relative to the other pools' weights. 0 counts as 1.
    pub weight: u32,
    /// Most bytes of segments, whatever the weight.
    pub quota: Option<usize>,
    /// What to do with chunks that compress poorly.
    pub admission: Admission,
    /// How often old chunks are halved before the oldest segment goes whole: of the older half of the segments, chunks
    /// of odd indices go; of the older quarter, those whose index is no multiple of 4, and so on. So of 2ⁿ neighbours by
    /// index one stays, and frames are at even distances. A step needs two segments (of 4 MiB) of its own, so it takes 64
    /// MiB for three. Ephemeral pools; 0 is not at all, more than 12 are 12.
    pub thinning: u8,
    /// The name under which its chunks are found again after a restart; persistent pools of stores with a file tier. Each
    /// chunk is written when it is put; one that is there already, as 110 bytes.
    pub durable: Option<String>,
    /// While a scene stands still, its frames are predicted from an average of some of them, which the pool keeps for as
    /// long as it has such a frame. Durable pools, and what goes to the file tier, do without; so do pools that may have
    /// less than 64 MiB, or 16 times a frame.
    pub references: bool,
}

impl PoolOptions {
    fn of(life: Life, sharing: Sharing) -> PoolOptions {
        let admission = Admission::default();
        PoolOptions { life, sharing, weight: 1, quota: None, admission, thinning: 0, durable: None, references: true }
    }

    /// A pool whose chunks may vanish.
    pub fn ephemeral(sharing: Sharing) -> PoolOptions {
        PoolOptions::of(Life::Ephemeral, sharing)
    }

    /// A pool whose chunks stay.
    pub fn persistent(sharing: Sharing) -> PoolOptions {
        PoolOptions::of(Life::Persistent, sharing)
    }

    /// Its share.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> PoolOptions {
        self.weight = weight;
        self
    }

    /// Most bytes.
    #[must_use]
    pub fn quota(mut self, bytes: usize) -> PoolOptions {
        self.quota = Some(bytes);
        self
    }

    /// Admission.
    #[must_use]
    pub fn admission(mut self, admission: Admission) -> PoolOptions {
        self.admission = admission;
        self
    }

    /// How often old chunks are halved.
    #[must_use]
    pub fn thinning(mut self, halvings: u8) -> PoolOptions {
        self.thinning = halvings;
        self
    }

    /// Whether frames of a still scene share a reference.
    #[must_use]
    pub fn references(mut self, references: bool) -> PoolOptions {
        self.references = references;
        self
    }

    /// Chunks survive the process, under this name.
    #[must_use]
    pub fn durable(mut self, name: &str) -> PoolOptions {
        self.durable = Some(name.to_owned());
        self
    }

    /// True where old chunks are halved.
    pub(crate) fn thins(&self) -> bool {
        self.life == Life::Ephemeral && self.thinning > 0
    }

    /// True where a get takes the chunk out.
    pub fn destructive(&self) -> bool {
        self.life == Life::Ephemeral && self.sharing == Sharing::Private
    }
}
