//! Field elements side by side, and what every sumcheck does to tables of them.

use circuits::ir::{EF, F};
use p3_field::{ExtensionField, Field, PackedFieldExtension, PackedValue, PrimeCharacteristicRing};
use rayon::prelude::*;

/// Base field elements side by side.
pub type PackedF = <F as Field>::Packing;
/// Extension field elements side by side.
pub type PackedEF = <EF as ExtensionField<F>>::ExtensionPacking;

/// Elements side by side.
pub const WIDTH: usize = PackedF::WIDTH;
/// Log number of packed elements that a task handles.
pub const CHUNK_LOG: usize = 6;

/// The elements side by side, one by one.
pub fn lanes(packed: impl IntoIterator<Item = PackedEF>) -> impl Iterator<Item = EF> {
    <PackedEF as PackedFieldExtension<F, EF>>::to_ext_iter(packed)
}

/// The sum of the elements side by side.
pub fn sum_lanes(packed: PackedEF) -> EF {
    lanes([packed]).sum()
}

/// Binds the first variable of a table.
pub fn fold<A: PrimeCharacteristicRing + Copy + Send + Sync>(table: &mut Vec<A>, r: A) {
    let half = table.len() / 2;
    let (low, high) = table.split_at_mut(half);
    low.par_iter_mut().zip(high).with_min_len(1 << CHUNK_LOG).for_each(|(a, b)| *a += r * (*b - *a));
    table.truncate(half);
}

/// Adds element by element.
pub fn add<A: PrimeCharacteristicRing + Copy, const N: usize>(a: [A; N], b: [A; N]) -> [A; N] {
    std::array::from_fn(|i| a[i] + b[i])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A generator of field elements that look random.
    pub fn elements(seed: u64) -> impl FnMut() -> F {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            F::from_u64(state >> 33)
        }
    }
}
