//! Where tensors lie in their commitment's polynomial: largest first, each in aligned slots, so that a tensor's evaluation is made of
//! the polynomial's at points prefixed by the slots' numbers (stacking, as in "Minimal zkVM for Lean Ethereum", section 3.7).
//!
//! A small tensor is one slot, padded to powers of two on every axis. A large one of the base model or of an adapter is several: an axis
//! of 768 positions is a block of 512 and one of 256, and each combination of its axes' blocks has a slot. Past its blocks a tensor is zero,
//! whoever committed it.

use crate::ir::{Group, TensorId};
use crate::public::eq_at;
use crate::relation::Relation;
use p3_field::Field;

/// Smallest committed polynomial, in variables: below it the opening's first rounds make no sense.
pub const MIN_LOG: usize = 13;

/// Tensors of two to this many values, padding included, and more are split. Below it padding costs less than claims on more slots.
pub const SPLIT_LOG: usize = 20;

/// Most slots of one tensor: the verifier pays for each of them in every claim.
const MAX_SLOTS: usize = 8;

/// A split has to spare one of this many values.
const WORTH: usize = 16;

/// One slot: a tensor, or the part of it where some of its variables have fixed values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The tensor.
    pub tensor: TensorId,
    /// First position; a multiple of `2^log`.
    pub offset: usize,
    /// Log size: the number of variables that aren't fixed.
    pub log: usize,
    /// The tensor's variables, outermost first: fixed to a bit, or not.
    pub variables: Vec<Option<bool>>,
}

impl Slot {
    /// Whether it holds the whole tensor.
    pub fn is_whole(&self) -> bool {
        self.log == self.variables.len()
    }

    /// What a claim at a point of the tensor is on this slot: a weight, and the point of the variables that aren't fixed.
    pub fn claim<E: Field>(&self, point: &[E]) -> (E, Vec<E>) {
        let mut weight = E::ONE;
        let mut free = Vec::with_capacity(self.log);
        for (&x, variable) in point.iter().zip(&self.variables) {
            match variable {
                Some(bit) => weight *= eq_at(&[x], usize::from(*bit)),
                None => free.push(x),
            }
        }
        (weight, free)
    }

    /// Runs of the tensor's positions that are consecutive in the slot too, in the slot's order: the first position of each, and their length.
    pub fn runs(&self) -> (Vec<usize>, usize) {
        let inner = self.variables.iter().rev().take_while(|v| v.is_none()).count();
        let mut starts = vec![0usize];
        for (i, variable) in self.variables[..self.variables.len() - inner].iter().enumerate() {
            let bit = 1usize << (self.variables.len() - 1 - i);
            match variable {
                Some(false) => {}
                Some(true) => starts.iter_mut().for_each(|start| *start += bit),
                None => starts = starts.iter().flat_map(|&start| [start, start + bit]).collect(),
            }
        }
        (starts, 1 << inner)
    }
}

/// A commitment's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Slots, by offset.
    pub slots: Vec<Slot>,
    /// Variables of the polynomial.
    pub log: usize,
}

impl Layout {
    /// Stacks parts of tensors, given by the tensors' variables.
    pub fn stack(parts: impl IntoIterator<Item = (TensorId, Vec<Option<bool>>)>, min_log: usize) -> Self {
        let log = |variables: &[Option<bool>]| variables.iter().filter(|v| v.is_none()).count();
        let mut parts: Vec<_> = parts.into_iter().map(|(tensor, variables)| Slot { tensor, offset: 0, log: log(&variables), variables }).collect();
        parts.sort_by(|a, b| (b.log, a.tensor, &a.variables).cmp(&(a.log, b.tensor, &b.variables)));
        let mut offset = 0;
        for slot in &mut parts {
            slot.offset = offset;
            offset += 1usize << slot.log;
        }
        let log = (offset.max(1).next_power_of_two().trailing_zeros() as usize).max(min_log);
        Self { slots: parts, log }
    }

    /// The layout of a group; `None` if the relation commits nothing in it.
    pub fn of(relation: &Relation, group: Group) -> Option<Self> {
        let own = relation.tensors.iter().enumerate().filter(|(_, t)| t.group == group);
        let parts: Vec<_> = own
            .flat_map(|(i, t)| {
                // An index grows along its rows and stays as it is; a trace's padding isn't zeros.
                let is_split = matches!(group, Group::Base | Group::Adapter) && relation.log(&t.axes) >= SPLIT_LOG;
                let axes: Vec<(usize, usize)> = t.axes.iter().map(|a| (relation.axes[a.0].size, relation.axes[a.0].log)).collect();
                let parts = if is_split { split(&axes) } else { vec![vec![None; relation.log(&t.axes)]] };
                parts.into_iter().map(move |variables| (TensorId(i), variables))
            })
            .collect();
        (!parts.is_empty()).then(|| Self::stack(parts, MIN_LOG))
    }

    /// A tensor's slots.
    pub fn slots(&self, tensor: TensorId) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |s| s.tensor == tensor)
    }

    /// Number of elements that carry data.
    pub fn used(&self) -> usize {
        self.slots.iter().map(|s| 1 << s.log).sum()
    }
}

/// A block of an axis: its first position, and the logarithm of its length, which divides it.
type AxisBlock = (usize, usize);

/// The first positions of an axis in up to `most` blocks; the last may reach past them.
fn blocks(size: usize, most: usize) -> Vec<AxisBlock> {
    let (mut start, mut out) = (0, vec![]);
    while start < size {
        let left = size - start;
        let log = if out.len() + 1 == most { left.next_power_of_two().trailing_zeros() } else { left.ilog2() };
        out.push((start, log as usize));
        start += 1 << log;
    }
    out
}

/// The parts of a tensor with these axes, given by size and padded log size: one axis after another gets as many blocks more as it takes to
/// spare anything, the one that spares most first.
fn split(axes: &[(usize, usize)]) -> Vec<Vec<Option<bool>>> {
    let cover = |counts: &[usize]| -> Vec<Vec<AxisBlock>> { axes.iter().zip(counts).map(|(&(size, _), &most)| blocks(size, most)).collect() };
    let slots = |cover: &[Vec<AxisBlock>]| cover.iter().map(Vec::len).product::<usize>();
    let values = |cover: &[Vec<AxisBlock>]| cover.iter().map(|blocks| blocks.iter().map(|&(_, log)| 1usize << log).sum::<usize>()).product::<usize>();
    let mut counts = vec![1; axes.len()];
    let mut chosen = cover(&counts);
    loop {
        let spares = |counts: &Vec<usize>| values(&cover(counts)) < values(&chosen);
        let finer = (0..axes.len()).filter_map(|axis| {
            let more =
                (counts[axis] + 1..=MAX_SLOTS).map(|count| counts.iter().enumerate().map(|(a, &c)| if a == axis { count } else { c }).collect());
            more.into_iter().find(spares)
        });
        let fits = finer.filter(|counts| slots(&cover(counts)) <= MAX_SLOTS);
        let Some(best) = fits.min_by_key(|counts| values(&cover(counts))) else { break };
        let (now, then) = (values(&chosen), values(&cover(&best)));
        if now - then < now / WORTH {
            break;
        }
        (chosen, counts) = (cover(&best), best);
    }
    let mut parts = vec![vec![]];
    for (&(_, padded), blocks) in axes.iter().zip(&chosen) {
        let variables = |&(start, log): &AxisBlock| (0..padded).map(move |i| (i < padded - log).then(|| (start >> (padded - 1 - i)) & 1 == 1));
        parts =
            parts.iter().flat_map(|part: &Vec<_>| blocks.iter().map(move |block| part.iter().copied().chain(variables(block)).collect())).collect();
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::EF;
    use crate::public::eq_table;
    use p3_field::PrimeCharacteristicRing;

    fn count(parts: &[Vec<Option<bool>>]) -> usize {
        parts.iter().map(|p| 1usize << p.iter().filter(|v| v.is_none()).count()).sum()
    }

    #[test]
    fn large_tensors_are_split_where_it_pays() {
        // Powers of two stay whole; GPT-2's axes need two blocks each, its vocabulary three.
        assert_eq!(split(&[(1024, 10), (4096, 12)]), [vec![None; 22]]);
        let ff = split(&[(12, 4), (3072, 12), (768, 10)]);
        assert_eq!((ff.len(), count(&ff)), (8, 12 * 3072 * 768));
        let embed = split(&[(50_257, 16), (768, 10)]);
        assert!(embed.len() <= MAX_SLOTS && count(&embed) <= 50_257 * 768 * 103 / 100, "{} slots, {} values", embed.len(), count(&embed));
        // What spares too little isn't done: 1000 of 1024.
        assert_eq!(split(&[(1000, 10), (1024, 10)]), [vec![None; 20]]);
    }

    /// Slots cover each position within the true sizes once, and none twice.
    #[test]
    fn slots_cover_a_tensor() {
        let axes = [(5, 3), (3, 2), (12, 4)];
        let log = 9;
        let layout = Layout::stack(split(&axes).into_iter().map(|v| (TensorId(3), v)), MIN_LOG);
        assert!(layout.slots.len() > 1 && layout.slots.iter().all(|s| s.offset % (1 << s.log) == 0));
        let mut covered = vec![0; 1 << log];
        for slot in layout.slots(TensorId(3)) {
            let (starts, len) = slot.runs();
            assert_eq!(starts.len() * len, 1 << slot.log);
            starts.iter().for_each(|start| covered[*start..start + len].iter_mut().for_each(|c| *c += 1));
        }
        for (position, &count) in covered.iter().enumerate() {
            let inside = position >> 6 < 5 && (position >> 4) & 3 < 3 && position & 15 < 12;
            assert!(count <= 1 && (count == 1 || !inside), "{position}");
        }
    }

    /// A tensor's evaluation is the weighted sum of its slots': what claims on it are reduced to.
    #[test]
    fn a_claim_is_the_sum_of_its_slots() {
        let (axes, log) = ([(5usize, 3usize), (12, 4), (7, 3)], 10usize);
        let layout = Layout::stack(split(&axes).into_iter().map(|v| (TensorId(0), v)), MIN_LOG);
        let inside = |x: usize| x >> 7 < 5 && (x >> 3) & 15 < 12 && x & 7 < 7;
        let values: Vec<EF> = (0..1 << log).map(|x| if inside(x) { EF::from_usize(x * x + 3) } else { EF::ZERO }).collect();
        let point: Vec<EF> = (0..log as u64).map(|i| EF::from_u64(i * 77_777 + 5).square()).collect();
        let whole: EF = eq_table(&point).iter().zip(&values).map(|(&e, &x)| e * x).sum();
        let parts: EF = layout
            .slots
            .iter()
            .map(|slot| {
                let (weight, free) = slot.claim(&point);
                let (starts, len) = slot.runs();
                let own = starts.iter().flat_map(|&start| &values[start..start + len]);
                weight * eq_table(&free).iter().zip(own).map(|(&e, &x)| e * x).sum::<EF>()
            })
            .sum();
        assert_eq!(parts, whole);
    }
}
