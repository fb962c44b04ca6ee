//! The part of an image that opening reads: superblocks, root, manifest, journal. With findings on
//! the way.

use super::ReadAt;
use super::finding::{Place, Report, Severity, Wrong};
use crate::base::BLOCK;
use crate::store::chain::{Chain, Found, Step, Survey};
use crate::store::door::{DiskFault, OpenError};
use crate::store::manifest::{self, PageRef};
use crate::store::root::Root;
use crate::store::superblock::{
    PAGES_PER_MANIFEST_BLOCK, SUPERBLOCK_AT, SUPERBLOCK_LEN, Superblock,
};

/// An image that can be opened, or all but its journal.
#[derive(Debug)]
pub(in crate::store) struct Image {
    /// What decoding each copy brought.
    pub copies: [Result<Superblock, OpenError>; 2],
    pub superblock: Superblock,
    pub root: Root,
    pub pages: Vec<Option<PageRef>>,
    pub manifest_damaged: bool,
}

/// Reads `len` bytes; `None` where they cannot be read.
pub(super) fn read(disk: &mut impl ReadAt, offset: u64, len: u64) -> Result<Vec<u8>, DiskFault> {
    let mut bytes = vec![0; len as usize];
    disk.read_at(offset, &mut bytes)?;
    Ok(bytes)
}

impl Image {
    /// Reads everything but the journal.
    pub fn open(
        disk: &mut impl ReadAt,
        disk_bytes: u64,
        report: &mut Report,
    ) -> Result<Image, OpenError> {
        let copies = SUPERBLOCK_AT.map(|at| match read(disk, at, SUPERBLOCK_LEN) {
            Ok(bytes) => Superblock::decode(&bytes),
            Err(fault) => Err(OpenError::Disk(fault)),
        });
        report_copies(&copies, report);
        let [a, b] = copies.clone();
        let superblock = Superblock::choose(a, b, disk_bytes)?;
        let root = read_roots(disk, &superblock, report)?;
        root.check(&superblock.geometry)?;
        let mut image = Image {
            copies,
            superblock,
            root,
            pages: vec![None; superblock.geometry.pages as usize],
            manifest_damaged: false,
        };
        image.read_manifest(disk, report);
        Ok(image)
    }

    fn read_manifest(&mut self, disk: &mut impl ReadAt, report: &mut Report) {
        for (block, named) in (0..).zip(&self.root.manifest) {
            if !named.written {
                continue;
            }
            report.counts.manifest_blocks += 1;
            let geometry = &self.superblock.geometry;
            let at = geometry.manifest_block_at(block, u64::from(named.home));
            let bytes = read(disk, at, BLOCK);
            let decoded = bytes
                .as_ref()
                .ok()
                .and_then(|b| manifest::decode(b, self.superblock.store, block, named.crc));
            let Some(pages) = decoded else {
                self.manifest_damaged = true;
                let place = Place::ManifestBlock { block };
                report.add(Severity::Error, place, wrong_of(&bytes), (at, BLOCK));
                continue;
            };
            let from = (block * PAGES_PER_MANIFEST_BLOCK) as usize;
            for (page, named) in self.pages[from..].iter_mut().zip(pages) {
                *page = named;
            }
        }
    }

    /// Follows the journal, handing each batch to `take`; returns the chain at its end.
    pub fn follow(
        &self,
        disk: &mut impl ReadAt,
        report: &mut Report,
        mut take: impl FnMut(Found, &mut Report),
    ) -> Chain {
        let journal_at = self.superblock.geometry.journal_at;
        let mut chain = Chain::new(&self.superblock, self.root.tail, Survey::Whole);
        loop {
            match chain.step() {
                Step::Read { offset, len } => {
                    let bytes = read(disk, journal_at + offset, len);
                    // What fails at once is asked for again block by block; the survey sees all of
                    // it.
                    if bytes.is_err() && len == BLOCK && chain.is_surveying() {
                        let at = (journal_at + offset, len);
                        report.add(Severity::Warning, Place::Journal, Wrong::Unreadable, at);
                    }
                    chain.feed(len, bytes.as_deref().ok());
                }
                Step::Batch(found) => take(*found, report),
                Step::End => break,
            }
        }
        self.report_ending(&chain, report);
        chain
    }

    fn report_ending(&self, chain: &Chain, report: &mut Report) {
        let journal_at = self.superblock.geometry.journal_at;
        let batch = Place::Batch {
            batch: chain.next.batch,
        };
        if chain.is_checkpoint_lost() {
            let checkpoint = chain.checkpoint_seen;
            let wrong = Wrong::CheckpointLost { checkpoint };
            let place = Place::Superblock { copy: 0 };
            report.add(Severity::Error, place, wrong, (0, SUPERBLOCK_LEN));
        }
        let here = (journal_at + chain.next.offset, BLOCK);
        let torn = chain.torn.map(|torn| (journal_at + torn.offset, torn.len));
        if chain.durable_once >= chain.next.batch {
            let place = torn.unwrap_or(here);
            return report.add(Severity::Error, batch, Wrong::BatchMissing, place);
        }
        if let Some(place) = torn {
            return report.add(Severity::Note, batch, Wrong::Torn, place);
        }
        if !chain.closed && !self.superblock.closed {
            report.add(Severity::Note, batch, Wrong::NotClosed, here);
        }
    }
}

/// What to say of something that was read and is not what it should be.
pub(super) fn wrong_of<T>(read: &Result<T, DiskFault>) -> Wrong {
    match read {
        Ok(_) => Wrong::Damaged,
        Err(_) => Wrong::Unreadable,
    }
}

fn report_copies(copies: &[Result<Superblock, OpenError>; 2], report: &mut Report) {
    let alone = copies.iter().filter(|copy| copy.is_err()).count() == 2;
    for (copy, found) in (0u8..).zip(copies) {
        let wrong = match found {
            Ok(_) => continue,
            Err(OpenError::UnknownVersion { found, .. }) => Wrong::OtherVersion { found: *found },
            Err(OpenError::Inconsistent { field, value }) => Wrong::Impossible {
                field,
                value: *value,
            },
            Err(OpenError::Disk(_)) => Wrong::Unreadable,
            Err(_) => Wrong::Damaged,
        };
        let severity = if alone {
            Severity::Error
        } else {
            Severity::Warning
        };
        let at = (SUPERBLOCK_AT[usize::from(copy)], SUPERBLOCK_LEN);
        report.add(severity, Place::Superblock { copy }, wrong, at);
    }
    let [Ok(a), Ok(b)] = copies else { return };
    if a == b {
        return;
    }
    let copy = u8::from(b.sequence <= a.sequence);
    let sequence = a.sequence.min(b.sequence);
    let same = a.store == b.store && a.instance_key == b.instance_key && a.sequence != b.sequence;
    // Two that are not one store's, or two states under one number: no crash leaves that.
    let severity = if same {
        Severity::Note
    } else {
        Severity::Error
    };
    let at = (SUPERBLOCK_AT[usize::from(copy)], SUPERBLOCK_LEN);
    let place = Place::Superblock { copy };
    report.add(severity, place, Wrong::OlderCopy { sequence }, at);
}

fn read_roots(
    disk: &mut impl ReadAt,
    superblock: &Superblock,
    report: &mut Report,
) -> Result<Root, OpenError> {
    let len = u64::from(superblock.root_bytes);
    let home = superblock.checkpoint % 2;
    let mut good = None;
    let mut bad = Vec::new();
    for copy in 0..2u8 {
        let at = superblock.geometry.root_at(home, u64::from(copy));
        let bytes = read(disk, at, len);
        let root = bytes
            .as_ref()
            .ok()
            .and_then(|bytes| Root::decode_named(bytes, superblock));
        match root {
            Some(root) => good = good.or(Some(root)),
            None => bad.push((copy, at, wrong_of(&bytes))),
        }
    }
    let severity = if good.is_some() {
        Severity::Warning
    } else {
        Severity::Error
    };
    for (copy, at, wrong) in bad {
        report.add(severity, Place::Root { copy }, wrong, (at, len));
    }
    let offset = superblock.geometry.root_at(home, 0);
    good.ok_or(OpenError::DamagedRoot { offset })
}
