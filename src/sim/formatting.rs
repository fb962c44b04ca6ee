//! New disks: what `sarsen disk format` would have written, and where things lie then.

use super::disk::Layout;
use super::medium::Medium;
use super::swarm::Knobs;
use crate::base::{Prng, StoreId};
use crate::store::{self, Plan, TooSmall};

/// A freshly formatted medium for these knobs, where things lie on it.
pub fn formatted(knobs: &Knobs, prng: &mut Prng) -> Result<(Medium, Layout), TooSmall> {
    let (mut id, mut key) = ([0; 16], [0; 16]);
    prng.fill(&mut id);
    prng.fill(&mut key);
    let formatted = store::format(&Plan {
        store: StoreId(id),
        instance_key: key,
        disk_bytes: knobs.disk_bytes,
        journal_bytes: Some(knobs.journal_bytes),
        pages: Some(knobs.table_pages),
    })?;
    // What is to be zeroed is: the medium is new.
    let mut medium = Medium::new(knobs.disk_bytes);
    for (offset, bytes) in formatted.writes.iter().chain(&formatted.superblocks) {
        medium.write(*offset, bytes);
    }
    let geometry = formatted.geometry;
    let journal = geometry.journal_at..geometry.journal_at + geometry.journal_len;
    let layout = Layout {
        table: geometry.table_at..geometry.slots_at,
        head: 0..geometry.journal_at,
        journal,
    };
    Ok((medium, layout))
}
