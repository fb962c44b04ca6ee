//! A placement group of the world: its replicas, the writes of one coordinator, and the manager's changes.

use crate::base::{ChunkId, ChunkNo, DiskId, FamilyId, LayerId, PgId, Prng, Stamp};
use crate::protocol::replication::fill::Content;
use crate::protocol::replication::{Configuration, Member, Role};
use crate::protocol::scrub::compare::*;
use std::collections::{BTreeMap, BTreeSet};

pub const CHUNKS: u64 = 3;
pub const BLOCKS: usize = 2;
/// Beside 0, which is absent; all above are data.
const ZERO: u32 = 1;

/// A stamp's version and sequence, and the blocks.
pub type Held = (u32, u64, [u32; BLOCKS]);

#[derive(Debug, Clone, Copy)]
pub struct Write {
    version: u32,
    sequence: u64,
    chunk: u64,
    block: usize,
    value: u32,
}

/// What a replica has.
#[derive(Debug, Clone, Default)]
pub struct Copy {
    pub chunks: BTreeMap<u64, Held>,
    /// The highest version of a tombstone that was let go.
    pub forgotten: u32,
    /// Under which it was filled.
    pub version: u32,
    /// What a chunk was before its last change.
    before: BTreeMap<u64, Option<Held>>,
    /// Frames that are on their way to it; then on the way to the disk, which may have them already.
    coming: Vec<Write>,
    storing: Vec<(Write, bool)>,
    window: Vec<Write>,
    mark: u64,
}

impl Copy {
    fn take(&mut self, write: &Write) {
        let old = self.chunks.get(&write.chunk).copied();
        self.before.insert(write.chunk, old);
        let (version, sequence, mut blocks) = old.unwrap_or_default();
        blocks[write.block] = write.value;
        let stamp = (version, sequence).max((write.version, write.sequence));
        self.chunks.insert(write.chunk, (stamp.0, stamp.1, blocks));
    }

    pub fn motion(&self, chunk: u64) -> Motion {
        let mut storing = self.storing.iter().map(|(write, _)| write);
        let is_of = |write: &Write| write.chunk == chunk;
        match storing.any(is_of) || self.window.iter().any(is_of) {
            true => Motion::Moving,
            false => Motion::Quiet,
        }
    }

    fn is_settled(&self, chunk: u64) -> bool {
        self.motion(chunk) == Motion::Quiet && self.coming.iter().all(|write| write.chunk != chunk)
    }

    /// The blocks of a chunk as a reader tells them apart.
    fn reads(&self, chunk: u64, below: Below) -> [u32; BLOCKS] {
        let blocks = self.chunks.get(&chunk).map_or([0; BLOCKS], |held| held.2);
        blocks.map(|block| reads_as(block, below))
    }
}

fn reads_as(block: u32, below: Below) -> u32 {
    match below {
        Below::Nothing if block == ZERO => 0,
        _ => block,
    }
}

pub fn chunk(number: u64) -> ChunkId {
    ChunkId {
        family: FamilyId(1),
        layer: LayerId(1),
        chunk: ChunkNo(number),
    }
}

pub fn content((version, sequence, blocks): &Held) -> Content {
    let mut of = Content {
        stamp: Stamp {
            version: *version,
            sequence: *sequence,
            ..Stamp::default()
        },
        data: 0,
        zeroes: 0,
        crcs: [0; 16],
    };
    for (at, value) in blocks.iter().enumerate() {
        match *value {
            0 => {}
            ZERO => of.zeroes |= 1 << at,
            value => {
                of.data |= 1 << at;
                of.crcs[at] = value;
            }
        }
    }
    of
}

/// What happened, counted.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub acknowledged: u64,
    pub losses: u64,
    /// A disk lost something while another one lacked something else.
    pub losses_at_once: u64,
    pub torn: u64,
    pub forgotten: u64,
    pub other_stamps: u64,
    pub behind: u64,
    pub found: u64,
    pub outvoted: u64,
    pub emptied_torn: u64,
    pub unknown: u64,
    pub late_reports: u64,
    pub unsettled: u64,
    pub overwritten: u64,
    /// Acknowledged writes whose last copy went with a replica that was emptied: two had lost something.
    pub vanished: u64,
}

pub struct Group {
    pub pg: PgId,
    pub count: usize,
    pub copies: Vec<Copy>,
    /// What the manager has recorded.
    pub configuration: Configuration,
    /// Writes that the coordinator waits for, each with who has it.
    waits: BTreeMap<u64, (Write, BTreeSet<usize>)>,
    sequence: u64,
    /// What was acknowledged last, by chunk and block.
    acknowledged: BTreeMap<(u64, usize), u32>,
    /// Losses that are not mended yet: who, and of which chunk.
    pub losses: BTreeSet<(usize, u64)>,
    pub torn: BTreeSet<usize>,
    /// Who has lost something since it was filled: what it lost may have been written anew since.
    struck: BTreeSet<usize>,
    /// Chunks of which an acknowledged write has vanished.
    gone: BTreeSet<u64>,
    /// Losses, fills and changes of the configuration, with the content of that time.
    story: Vec<String>,
}

impl Group {
    pub fn new(pg: PgId, count: usize) -> Group {
        Group {
            pg,
            count,
            copies: vec![Copy::default(); count],
            configuration: Configuration::new((0..count as u32).map(DiskId)),
            waits: BTreeMap::new(),
            sequence: 0,
            acknowledged: BTreeMap::new(),
            losses: BTreeSet::new(),
            torn: BTreeSet::new(),
            struck: BTreeSet::new(),
            gone: BTreeSet::new(),
            story: Vec::new(),
        }
    }

    pub fn is_in_sync(&self, disk: usize) -> bool {
        self.configuration.role(DiskId(disk as u32)) == Some(Role::InSync)
    }

    pub fn in_sync(&self) -> Vec<usize> {
        (0..self.count)
            .filter(|disk| self.is_in_sync(*disk))
            .collect()
    }

    /// Who lacks something now, or does not know what it has.
    fn faulty(&self) -> BTreeSet<usize> {
        let lost = self.losses.iter().map(|(disk, _)| *disk);
        lost.chain(self.torn.iter().copied()).collect()
    }

    pub fn write(&mut self, prng: &mut Prng) {
        let (chunk, block) = (prng.below(CHUNKS), prng.below(BLOCKS as u64));
        let block = block as usize;
        let mut waits = self.waits.values();
        if waits.any(|(write, _)| (write.chunk, write.block) == (chunk, block)) {
            return; // no overlap in flight
        }
        self.sequence += 1;
        let write = Write {
            version: self.configuration.version(),
            sequence: self.sequence,
            chunk,
            block,
            value: match prng.one_in(3) {
                true => ZERO,
                false => self.sequence as u32 + ZERO,
            },
        };
        self.waits.insert(self.sequence, (write, BTreeSet::new()));
        for disk in self.in_sync() {
            self.copies[disk].coming.push(write);
        }
    }

    /// A frame goes one step further at a replica: to the disk, onto it, into the window.
    pub fn advance(&mut self, disk: usize, prng: &mut Prng, seen: &mut Seen) {
        let pick = prng.next_u64() as usize;
        let copy = &mut self.copies[disk];
        if !copy.storing.is_empty() && !pick.is_multiple_of(3) {
            let at = pick / 3 % copy.storing.len();
            let (write, is_there) = copy.storing[at];
            if !is_there {
                copy.take(&write);
                copy.storing[at].1 = true;
                return;
            }
            copy.storing.remove(at);
            if write.sequence > copy.mark {
                copy.window.push(write);
            }
            if let Some((of, has)) = self.waits.get_mut(&write.sequence)
                && of.version == write.version
            {
                has.insert(disk);
            }
        } else if !copy.coming.is_empty() {
            let at = pick / 3 % copy.coming.len();
            let write = copy.coming.remove(at);
            copy.storing.push((write, false));
        }
        self.acknowledge(seen);
    }

    fn acknowledge(&mut self, seen: &mut Seen) {
        let members: BTreeSet<usize> = self.in_sync().into_iter().collect();
        let told = &mut self.acknowledged;
        self.waits.retain(|_, (write, has)| {
            let is_done = has.is_superset(&members);
            if is_done {
                told.insert((write.chunk, write.block), write.value);
                seen.acknowledged += 1;
            }
            !is_done
        });
    }

    /// A mark reaches a replica.
    pub fn mark(&mut self, disk: usize) {
        let first = self.waits.keys().next().copied();
        let mark = first.map_or(self.sequence, |first| first - 1);
        let copy = &mut self.copies[disk];
        copy.mark = copy.mark.max(mark);
        copy.window.retain(|write| write.sequence > mark);
    }

    /// The manager changes the configuration; what is in flight starts over under it (R3).
    pub fn reconfigure(&mut self, disk: usize, role: Role) {
        let version = self.configuration.version() + 1;
        self.story.push(format!("v{version}: {disk} {role:?}"));
        let mut members: Vec<Member> = self.configuration.members().to_vec();
        members[disk].role = role;
        self.configuration = Configuration::recorded(version, members).unwrap();
        let members = self.in_sync();
        for (sequence, (write, has)) in &mut self.waits {
            write.version = version;
            has.clear();
            for at in &members {
                let copy = &mut self.copies[*at];
                // What is on its way already is the same change, under a version that does not count any more.
                copy.coming.retain(|of| of.sequence != *sequence);
                let mut storing = copy.storing.iter_mut();
                match storing.find(|(of, _)| of.sequence == *sequence) {
                    Some(storing) => *storing = (*write, false),
                    None => copy.coming.push(*write),
                }
            }
        }
    }

    /// A replica that is out has been filled: with all that one that is in sync has, and what comes to that one comes to it. Of what was there already
    /// and is the same, the stamp may stay.
    pub fn fill(&mut self, disk: usize, prng: &mut Prng, seen: &mut Seen) {
        // Not from who has lost a write, if it can be: two copies of that would outvote the third.
        let faulty = self.faulty();
        let sources = self.in_sync().into_iter();
        let sources = sources.filter(|at| !self.torn.contains(at));
        let Some(source) = sources.max_by_key(|at| !faulty.contains(at)) else {
            return;
        };
        if self.torn.contains(&disk) {
            return; // it is forgotten first
        }
        self.story.push(format!("fill {disk} from {source}"));
        let of_source = self.copies[source].clone();
        let had = std::mem::replace(&mut self.copies[disk], of_source);
        for (at, held) in &mut self.copies[disk].chunks {
            if let Some(had) = had.chunks.get(at)
                && had.2 == held.2
                && (had.0, had.1) != (held.0, held.1)
                && prng.one_in(2)
            {
                (held.0, held.1) = (had.0, had.1);
                seen.other_stamps += 1;
            }
        }
        self.losses.retain(|(of, _)| *of != disk);
        self.struck.remove(&disk);
        let taken_over = self.losses.iter().filter(|(of, _)| *of == source);
        let taken_over: Vec<u64> = taken_over.map(|(_, at)| *at).collect();
        for at in taken_over {
            self.losses.insert((disk, at));
            self.struck.insert(disk);
        }
        self.reconfigure(disk, Role::InSync);
        self.copies[disk].version = self.configuration.version();
    }

    /// Taken out for another reason. Not while something is lost: that would be one failure more.
    pub fn take_out(&mut self, disk: usize) {
        if self.faulty().is_empty() && self.is_in_sync(disk) && self.in_sync().len() > 1 {
            let since = self.configuration.version();
            self.reconfigure(disk, Role::Out { since });
        }
    }

    /// The manager hears a report, and takes the replica out empty if it may.
    ///
    /// # Errors
    /// *nobody-innocent*, and *no-acknowledged-write-vanishes* where it alone had lost something.
    pub fn on_report(
        &mut self,
        (disk, version, why): (DiskId, u32, Wrong),
        below: Below,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let of = disk.0 as usize;
        if version != self.configuration.version() {
            seen.late_reports += 1;
            return Ok(());
        }
        let mut others = self.in_sync().into_iter().filter(|other| *other != of);
        if !self.is_in_sync(of) || others.all(|other| self.torn.contains(&other)) {
            return Ok(());
        }
        let is_struck = match why {
            Wrong::Torn => self.torn.contains(&of),
            _ => self.struck.contains(&of),
        };
        if !is_struck {
            return Err(format!(
                "nobody-innocent: disk {disk}, {why:?}; {}",
                self.tell()
            ));
        }
        match why {
            Wrong::LostWrite => seen.found += 1,
            Wrong::Outvoted => seen.outvoted += 1,
            Wrong::Torn => seen.emptied_torn += 1,
        }
        self.look_at_what_goes(of, below, seen)?;
        self.reconfigure(of, Role::Out { since: 0 });
        Ok(())
    }

    /// A replica is about to be emptied: what was acknowledged must be elsewhere, unless somebody else in sync has lost something too.
    fn look_at_what_goes(
        &mut self,
        disk: usize,
        below: Below,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let is_whole = |other: &usize| *other != disk && !self.torn.contains(other);
        let others: Vec<usize> = self.in_sync().into_iter().filter(is_whole).collect();
        let faulty = self.faulty();
        let is_alone = !self
            .in_sync()
            .iter()
            .any(|at| *at != disk && faulty.contains(at));
        for ((at, block), value) in &self.acknowledged {
            let mut waits = self.waits.values();
            let is_changing = waits.any(|(write, _)| (write.chunk, write.block) == (*at, *block));
            let value = reads_as(*value, below);
            let has = |of: usize| self.copies[of].reads(*at, below)[*block] == value;
            if is_changing || !has(disk) || others.iter().any(|other| has(*other)) {
                continue;
            }
            if is_alone {
                return Err(format!(
                    "no-acknowledged-write-vanishes: chunk {at}; {}",
                    self.tell()
                ));
            }
            seen.vanished += 1;
            self.gone.insert(*at);
        }
        Ok(())
    }

    /// A disk forgets the last change of a chunk, which is settled everywhere; two may lack something at once.
    pub fn lose(&mut self, disk: usize, at: u64, below: Below, seen: &mut Seen) {
        let of = self.copies[disk].reads(at, below);
        let is_settled = self.is_settled(at, below);
        let faulty = self.faulty();
        if !is_settled || faulty.len() > 1 || faulty.contains(&disk) {
            return;
        }
        let copy = &mut self.copies[disk];
        let Some(before) = copy.before.remove(&at) else {
            return;
        };
        match before {
            Some(before) => copy.chunks.insert(at, before),
            None => copy.chunks.remove(&at),
        };
        self.story
            .push(format!("lost {disk} chunk {at}: {of:?} is {before:?}"));
        self.losses.insert((disk, at));
        self.struck.insert(disk);
        seen.losses += 1;
        seen.losses_at_once += faulty.len() as u64;
    }

    fn is_settled(&self, at: u64, below: Below) -> bool {
        let reads = |disk: usize| self.copies[disk].reads(at, below);
        (0..self.count).all(|disk| {
            let is_whole = self.is_in_sync(disk) && !self.torn.contains(&disk);
            is_whole && self.copies[disk].is_settled(at) && reads(disk) == reads(0)
        })
    }

    /// The table of a disk is damaged, where another one is left.
    pub fn tear(&mut self, disk: usize, seen: &mut Seen) -> bool {
        let faulty = self.faulty();
        let is_whole = |other: &usize| *other != disk && !self.torn.contains(other);
        let may = faulty.len() < 2 && !faulty.contains(&disk) && self.is_in_sync(disk);
        if !may || !self.in_sync().iter().any(is_whole) {
            return false;
        }
        self.story.push(format!("torn {disk}"));
        self.torn.insert(disk);
        seen.torn += 1;
        seen.losses_at_once += faulty.len() as u64;
        true
    }

    /// What is left of a replica is forgotten.
    pub fn forget(&mut self, disk: usize) {
        assert!(self.torn.remove(&disk), "no table is damaged there");
        self.copies[disk] = Copy::default();
    }

    /// A tombstone goes at one replica (R20): all are in sync, and have it below the mark. What is zero is one where nothing lies below, as far as that node knows.
    pub fn let_go(&mut self, disk: usize, at: u64, below: Below, seen: &mut Seen) {
        let Some(&(version, ..)) = self.copies[disk].chunks.get(&at) else {
            return;
        };
        if self.is_settled(at, below) && self.copies[disk].reads(at, below) == [0; BLOCKS] {
            let copy = &mut self.copies[disk];
            copy.chunks.remove(&at);
            copy.before.remove(&at);
            copy.forgotten = copy.forgotten.max(version);
            self.story.push(format!("let go {disk} chunk {at}"));
            seen.forgotten += 1;
        }
    }

    /// What was lost was written anew.
    pub fn look_at_losses(&mut self, below: Below, seen: &mut Seen) {
        for (disk, at) in self.losses.clone() {
            let blocks = |of: usize| self.copies[of].reads(at, below);
            let is_same = (0..self.count).all(|of| blocks(of) == blocks(disk));
            if is_same && self.copies.iter().all(|copy| copy.is_settled(at)) {
                self.story.push(format!("overwritten {disk} chunk {at}"));
                self.losses.remove(&(disk, at));
                seen.overwritten += 1;
            }
        }
    }

    /// In the end the copies are the same, and have what was acknowledged, but for chunks of which it is said that nobody knows.
    pub fn judge(&self, below: Below, unknown: &BTreeSet<u64>) -> Result<(), String> {
        for at in (0..CHUNKS).filter(|at| !unknown.contains(at)) {
            let whole = self.in_sync().into_iter();
            let whole = whole.filter(|disk| !self.torn.contains(disk));
            let all: BTreeSet<[u32; BLOCKS]> = whole
                .map(|disk| self.copies[disk].reads(at, below))
                .collect();
            let told = |block| self.acknowledged.get(&(at, block)).copied();
            let right: [u32; BLOCKS] =
                std::array::from_fn(|block| reads_as(told(block).unwrap_or(0), below));
            if all.len() != 1 || !self.gone.contains(&at) && !all.contains(&right) {
                let what = self.tell();
                return Err(format!(
                    "in-the-end: chunk {at} is {all:?}, was {right:?}; {what}"
                ));
            }
        }
        Ok(())
    }

    fn tell(&self) -> String {
        let held: Vec<_> = self.copies.iter().map(|copy| &copy.chunks).collect();
        format!(
            "{}: lost {:?}, torn {:?}, struck {:?}, {held:?}, {:?}, {:?}",
            self.pg, self.losses, self.torn, self.struck, self.configuration, self.story
        )
    }
}
