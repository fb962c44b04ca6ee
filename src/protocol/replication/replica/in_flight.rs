//! What is on its way to the store or from it, under the name that it was asked by.
//!
//! Hashed, because the store answers in any order and what comes again has to be found among what is on its way: with 512 changes in flight a
//! frame cost 0.9 us over an ordered map, most of it in walking it. In steady state it allocates nothing. What walks it here asks for
//! *any* or the *most*, so its order shows nowhere.

use super::Op;
use crate::base::FixedMap;
use std::hash::{Hash, Hasher};

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InFlight<T> {
    by_op: FixedMap<Op, T>,
}

impl<T> Default for InFlight<T> {
    fn default() -> InFlight<T> {
        InFlight {
            by_op: FixedMap::default(),
        }
    }
}

impl<T> InFlight<T> {
    pub fn len(&self) -> usize {
        self.by_op.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_op.is_empty()
    }

    /// Notes what is asked of the store; what was under that name before.
    pub fn insert(&mut self, op: Op, what: T) -> Option<T> {
        self.by_op.insert(op, what)
    }

    pub fn get_mut(&mut self, op: Op) -> Option<&mut T> {
        self.by_op.get_mut(&op)
    }

    pub fn remove(&mut self, op: Op) -> Option<T> {
        self.by_op.remove(&op)
    }

    /// In no order that may show.
    pub fn iter(&self) -> impl Iterator<Item = (Op, &T)> {
        self.by_op.iter().map(|(&op, what)| (op, what))
    }

    /// In no order that may show.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.by_op.values()
    }
}

/// For searches of all states, which tell two of them apart by this: in the order of the names.
impl<T: Hash> Hash for InFlight<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut all: Vec<(Op, &T)> = self.iter().collect();
        all.sort_unstable_by_key(|(op, _)| *op);
        all.hash(state);
    }
}
