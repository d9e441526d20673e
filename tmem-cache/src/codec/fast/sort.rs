//! Differences sorted by component, so that what is alike is coded together.
//!
//! A *unit* has so many vectors as there are sorts of samples: `N`.

use super::kernel::Kernel;

/// Differences of a unit to residuals, component by component.
#[inline(always)]
pub(super) fn sort<K: Kernel, const N: usize>(kernel: K, unit: [K::Vector; N]) -> [K::Vector; N] {
    let mut v = unit;
    if N == 2 {
        (v[0], v[1]) = kernel.split(v[0], v[1]);
    }
    if N == 4 {
        let (first, second) = kernel.split(v[0], v[1]);
        let (third, fourth) = kernel.split(v[2], v[3]);
        (v[0], v[2]) = kernel.split(first, third);
        (v[1], v[3]) = kernel.split(second, fourth);
    }
    for v in &mut v {
        *v = kernel.zigzag::<false>(*v);
    }
    v
}

/// The reverse.
#[inline(always)]
pub(super) fn unsort<K: Kernel, const N: usize>(kernel: K, unit: [K::Vector; N]) -> [K::Vector; N] {
    let mut v = unit;
    for v in &mut v {
        *v = kernel.unzigzag::<false>(*v);
    }
    if N == 2 {
        (v[0], v[1]) = kernel.join(v[0], v[1]);
    }
    if N == 4 {
        let (first, third) = kernel.join(v[0], v[2]);
        let (second, fourth) = kernel.join(v[1], v[3]);
        (v[0], v[1]) = kernel.join(first, second);
        (v[2], v[3]) = kernel.join(third, fourth);
    }
    v
}
