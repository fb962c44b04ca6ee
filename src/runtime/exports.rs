//! What NBD clients can attach, and who is attached.
//!
//! The control plane sets the table as a whole; shards hold it by `Arc` and look names up only when a
//! client negotiates. Attachments are counted here: a volume with a count is not deleted.

use crate::base::VolumeId;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// One volume as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// What a client asks for.
    pub name: String,
    pub volume: VolumeId,
    /// In bytes.
    pub size: u64,
    /// The logical block size in bytes: 512 or 4096.
    pub block_size: u32,
    pub read_only: bool,
    /// Why a client may not attach now, for a person; `None` where it may.
    pub refused: Option<String>,
    /// Whether this node would have to take it first: who wants to attach waits until the control plane, which is told, has brought that about or
    /// says why not.
    pub is_away: bool,
    /// Which of those that come under TLS may know of it and attach it.
    pub clients: Admits,
}

/// Which clients, by the name that their certificates prove, a volume is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Admits {
    #[default]
    Nobody,
    /// All that come, but for these.
    AllBut(Vec<String>),
    Only(Vec<String>),
}

impl Admits {
    /// Whether this client is one of them.
    pub fn admits(&self, client: &str) -> bool {
        match self {
            Admits::Nobody => false,
            Admits::AllBut(names) => !names.iter().any(|name| name == client),
            Admits::Only(names) => names.iter().any(|name| name == client),
        }
    }
}

/// The exports of a node, by name.
#[derive(Debug, Default)]
pub struct Exports {
    by_name: BTreeMap<String, Export>,
}

impl Exports {
    pub fn new(exports: Vec<Export>) -> Exports {
        Exports {
            by_name: exports.into_iter().map(|e| (e.name.clone(), e)).collect(),
        }
    }

    pub fn by_name(&self, name: &str) -> Option<&Export> {
        self.by_name.get(name)
    }

    pub fn by_volume(&self, volume: VolumeId) -> Option<&Export> {
        self.by_name.values().find(|e| e.volume == volume)
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Export> {
        self.by_name.values()
    }
}

/// How many connections each volume has, over all shards.
#[derive(Debug, Default)]
pub struct Attachments {
    counts: Mutex<BTreeMap<VolumeId, usize>>,
}

impl Attachments {
    pub fn take(&self, volume: VolumeId) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(volume).or_default() += 1;
    }

    pub fn give_back(&self, volume: VolumeId) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&volume) {
            Some(1) => {
                counts.remove(&volume);
            }
            Some(count) => *count -= 1,
            None => debug_assert!(false, "an attachment is given back once"),
        }
    }

    pub fn count(&self, volume: VolumeId) -> usize {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&volume).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_disconnect_gives_the_attachment_back() {
        let attachments = Attachments::default();
        attachments.take(VolumeId(1));
        attachments.take(VolumeId(1));
        attachments.give_back(VolumeId(1));
        assert_eq!(attachments.count(VolumeId(1)), 1);
        attachments.give_back(VolumeId(1));
        assert_eq!(attachments.count(VolumeId(1)), 0);
    }
}
