//! What a processor does in its own way: vectors of 64 bytes, and bits picked by masks.

/// Bytes of a vector.
pub(crate) const BYTES: usize = 64;

/// All kernels do the same. A value of one is the proof that the processor has what the kernel needs.
///
/// Where a method has `WIDE`, a vector is 32 little-endian words of 16 bits, else 64 bytes.
pub(crate) trait Kernel: Copy {
    /// 64 bytes.
    type Vector: Copy;

    fn load(self, bytes: &[u8; BYTES]) -> Self::Vector;
    fn store(self, v: Self::Vector, bytes: &mut [u8; BYTES]);
    fn zero(self) -> Self::Vector;
    /// `v`, or zeros.
    fn only_if(self, condition: bool, v: Self::Vector) -> Self::Vector;

    /// The mean, rounded up.
    fn avg<const WIDE: bool>(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn add<const WIDE: bool>(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub<const WIDE: bool>(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Signed numbers to unsigned ones, small ones staying small: 0, -1, 1, -2, ….
    fn zigzag<const WIDE: bool>(self, v: Self::Vector) -> Self::Vector;
    fn unzigzag<const WIDE: bool>(self, v: Self::Vector) -> Self::Vector;
    /// Each number added to the one `period` (1 to 4) bytes before it, that being added already. `before` is what comes
    /// before.
    fn along<const WIDE: bool>(self, v: Self::Vector, period: usize, before: &[u8; 16]) -> Self::Vector;
    /// Words times 2^k.
    fn shift_words(self, v: Self::Vector, k: u32) -> Self::Vector;

    /// The bytes at even and at odd places of 128, both with bits 3 and 4 of their numbers swapped: what AVX2 does
    /// fastest.
    fn split(self, a: Self::Vector, b: Self::Vector) -> (Self::Vector, Self::Vector);
    /// The reverse.
    fn join(self, even: Self::Vector, odd: Self::Vector) -> (Self::Vector, Self::Vector);

    /// The sum of all numbers.
    fn sum<const WIDE: bool>(self, v: Self::Vector) -> u32;
    /// The largest byte.
    fn most(self, v: Self::Vector) -> u32;
    /// The largest word of both.
    fn most_words(self, a: Self::Vector, b: Self::Vector) -> u32;

    /// Bytes to fields of k + 1 bits and quotients. `k` is 7 at most.
    fn cut(self, v: Self::Vector, k: u32) -> (Self::Vector, Quotients);
    /// The same of 64 words, `k` being 15 at most. The low and the high bytes of fields come as from [`Kernel::split`],
    /// and so do the bits of masks.
    fn cut_words(self, a: Self::Vector, b: Self::Vector, k: u32) -> (Self::Vector, Self::Vector, Quotients);
    /// Stores fields of `width` (1 to 8) bits: eight fields next to each other in `width` bytes, the eights of the
    /// vector in the order 0, 2, 1, 3, 4, 6, 5, 7. Writes beyond these `8 * width` bytes what it likes.
    fn pack(self, fields: Self::Vector, width: u32, to: &mut [u8; BYTES]);
    /// The fields that [`Kernel::pack`] stored, and which of them have their highest bit. With a `width` of 0 they
    /// are 0.
    fn unpack(self, from: &[u8; BYTES], width: u32) -> (Self::Vector, u64);
    /// Bytes of which `planes` are two adjacent bits, the lower one of which has the value `one`.
    fn spread(self, planes: [u64; 2], one: u8) -> Self::Vector;

    /// The bits of `value` where `mask` has ones, moved together.
    fn extract(self, value: u64, mask: u64) -> u64;
    /// The lowest bits of `value`, moved to where `mask` has ones.
    fn deposit(self, value: u64, mask: u64) -> u64;
}

/// What 64 residuals have from bit `k` on: quotients q of 4 at most.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quotients {
    /// Which are 1 or more.
    pub first: u64,
    /// The two bits of q - 1, 0 where q is 0.
    pub more: [u64; 2],
}

/// The order of eights in a vector that a [`Kernel`] has split or is to pack.
pub(crate) const EIGHTS: [usize; 8] = [0, 2, 1, 3, 4, 6, 5, 7];
