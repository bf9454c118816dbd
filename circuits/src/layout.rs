//! Where tensors lie in their commitment's polynomial: largest first, each in an aligned slot, so that a tensor's evaluation is
//! the polynomial's at the point prefixed by the slot's number (stacking, as in "Minimal zkVM for Lean Ethereum", section 3.7).

use crate::ir::{Group, TensorId};
use crate::relation::Relation;

/// Smallest committed polynomial, in variables: below it the opening's first rounds make no sense.
pub const MIN_LOG: usize = 13;

/// One tensor's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The tensor.
    pub tensor: TensorId,
    /// First position; a multiple of `2^log`.
    pub offset: usize,
    /// Log size.
    pub log: usize,
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
    /// Stacks items given as `(tensor, log size)`.
    pub fn stack(items: impl IntoIterator<Item = (TensorId, usize)>, min_log: usize) -> Self {
        let mut items: Vec<_> = items.into_iter().collect();
        items.sort_by_key(|&(id, log)| (std::cmp::Reverse(log), id));
        let mut offset = 0;
        let mut place = |(tensor, log): (TensorId, usize)| {
            let slot = Slot { tensor, offset, log };
            offset += 1usize << log;
            slot
        };
        let slots: Vec<Slot> = items.into_iter().map(&mut place).collect();
        let log = (offset.max(1).next_power_of_two().trailing_zeros() as usize).max(min_log);
        Self { slots, log }
    }

    /// The layout of a group; `None` if the relation commits nothing in it.
    pub fn of(relation: &Relation, group: Group) -> Option<Self> {
        let items: Vec<_> =
            relation.tensors.iter().enumerate().filter(|(_, t)| t.group == group).map(|(i, t)| (TensorId(i), relation.log(&t.axes))).collect();
        (!items.is_empty()).then(|| Self::stack(items, MIN_LOG))
    }

    /// A tensor's slot.
    pub fn slot(&self, tensor: TensorId) -> Option<Slot> {
        self.slots.iter().copied().find(|s| s.tensor == tensor)
    }

    /// Number of elements that carry data.
    pub fn used(&self) -> usize {
        self.slots.iter().map(|s| 1 << s.log).sum()
    }
}
