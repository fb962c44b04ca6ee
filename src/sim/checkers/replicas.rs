//! *replicas*: what a replica was told and given is there after power loss: fences, marks, windows, stamps, tombstones.
//!
//! The model knows one replica. Of each chunk it keeps what it holds, or may hold since a power cut; of each change whether it
//! is durable. A window must have every durable change that no mark has passed, and may have any that was ever asked for.

use super::{Checker, Failure};
use crate::base::{BLOCK, BlockNo, BlockRun, LayerId, VolumeId, crc};
use crate::sim::payload::Value;
use crate::store::{ChunkId, Epoch, Holding, Openings, Replica, Stamp, Takes};
use std::collections::{BTreeMap, BTreeSet};

/// One block of a chunk, as a layer itself holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Block {
    #[default]
    Absent,
    Zero,
    Data(Value),
}

/// What a layer holds of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    blocks: [Block; 16],
    stamp: Stamp,
}

/// A change of blocks.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    Write {
        mask: u16,
        value: Value,
    },
    /// What becomes of the blocks depends on whether the layer has a parent.
    Zero {
        mask: u16,
        into: Block,
    },
    Fill {
        mask: u16,
        data: u16,
        zero: u16,
        value: Value,
    },
}

impl State {
    fn after(&self, change: Change, stamp: Stamp) -> State {
        let mut next = self.clone();
        let mut put = |mask: u16, block: Block| {
            for place in (0..16).filter(|place| mask & (1 << place) != 0) {
                next.blocks[place] = block;
            }
        };
        let replaces_all = match change {
            Change::Write { mask, value } => {
                put(mask, Block::Data(value));
                mask == u16::MAX
            }
            Change::Zero { mask, into } => {
                put(mask, into);
                false
            }
            Change::Fill {
                mask,
                data,
                zero,
                value,
            } => {
                put(mask, Block::Absent);
                put(zero, Block::Zero);
                put(data, Block::Data(value));
                let outside = |place: &usize| mask & (1 << place) == 0;
                (0..16)
                    .filter(outside)
                    .all(|place| self.blocks[place] == Block::Absent)
            }
        };
        next.stamp = match replaces_all {
            true => stamp,
            false => self.stamp.max(stamp),
        };
        next
    }

    fn is_absent(&self) -> bool {
        self.blocks == [Block::Absent; 16]
    }

    fn mask(&self, of: impl Fn(Block) -> bool) -> u16 {
        let bit = |place: usize| u16::from(of(self.blocks[place])) << place;
        (0..16).map(bit).sum()
    }

    fn is_held(&self, at: ChunkId, holding: &Holding, bytes: &[u8]) -> bool {
        let data = self.mask(|block| matches!(block, Block::Data(_)));
        let zero = self.mask(|block| block == Block::Zero);
        let right = |place: usize| match self.blocks[place] {
            Block::Data(value) => {
                let bytes = &bytes[place * BLOCK as usize..][..BLOCK as usize];
                let number = at.chunk.block(place as u32);
                value.is(number.0 * BLOCK, bytes)
                    && crc::of_block(at.layer, number, bytes) == holding.crcs[place]
            }
            _ => true,
        };
        (holding.data, holding.zero, holding.stamp) == (data, zero, self.stamp)
            && (0..16).all(right)
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// In flight, or a power cut fell on it and nobody has looked.
    Open,
    Durable,
    Never,
}

/// A change as its window sees it.
#[derive(Debug, Clone)]
struct Written {
    at: Vec<ChunkId>,
    mask: u16,
    stamp: Stamp,
    fate: Fate,
    in_window: bool,
    /// A mark has passed it.
    passed: bool,
}

#[derive(Debug, Clone, Default)]
struct Chunk {
    sure: State,
    /// What it is if the change of that number happens, or happened.
    maybe: Option<(State, usize)>,
    /// The change is in flight.
    busy: bool,
}

/// Fences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fences {
    pub version: u32,
    pub session: u32,
    pub epoch: Epoch,
}

/// What one replica may hold.
#[derive(Debug, Clone, Default)]
pub struct Model {
    chunks: BTreeMap<ChunkId, Chunk>,
    written: Vec<Written>,
    /// `None`: it was never fenced, or dropped since.
    pub fences: Option<Fences>,
    /// What they may be instead: a fence or a drop is in flight, or a power cut fell on it.
    telling: Option<Option<Fences>>,
    pub mark: u64,
    pub forgotten: u32,
    /// What it may say at most of tombstones that are missing since it was made.
    let_go_first: u32,
    /// The numbers of the store's opening, and those that it may have instead.
    pub openings: Openings,
    pub openings_maybe: Option<Openings>,
}

fn wrong(what: String) -> Failure {
    Failure::new(Checker::Replicas, what)
}

impl Model {
    /// Whether a chunk is known for sure, and nothing of it is in flight.
    pub fn is_settled(&self, at: ChunkId) -> bool {
        self.chunks
            .get(&at)
            .is_none_or(|chunk| chunk.maybe.is_none())
    }

    pub fn is_busy(&self, at: ChunkId) -> bool {
        self.chunks.get(&at).is_some_and(|chunk| chunk.busy)
    }

    /// A change of these chunks begins; its number.
    pub fn change_began(
        &mut self,
        at: &[ChunkId],
        change: Change,
        stamp: Stamp,
        window: Option<u16>,
    ) -> usize {
        let number = self.written.len();
        for &at in at {
            let chunk = self.chunks.entry(at).or_default();
            chunk.maybe = Some((chunk.sure.after(change, stamp), number));
            chunk.busy = true;
        }
        self.written.push(Written {
            at: at.to_vec(),
            mask: window.unwrap_or(0),
            stamp,
            fate: Fate::Open,
            in_window: window.is_some(),
            passed: false,
        });
        number
    }

    /// It ended; where it was refused, it did not happen.
    pub fn change_ended(&mut self, number: usize, happened: bool) {
        let written = &mut self.written[number];
        written.fate = match happened {
            true => Fate::Durable,
            false => Fate::Never,
        };
        for at in &written.at {
            let chunk = self.chunks.entry(*at).or_default();
            chunk.busy = false;
            if let Some((state, _)) = chunk.maybe.take()
                && happened
            {
                chunk.sure = state;
            }
        }
    }

    pub fn telling(&mut self, fences: Option<Fences>) {
        self.telling = Some(fences);
    }

    pub fn told(&mut self) {
        if let Some(fences) = self.telling.take() {
            self.adopt(fences);
        }
    }

    fn adopt(&mut self, fences: Option<Fences>) {
        if fences.map(|f| f.epoch) != self.fences.map(|f| f.epoch) {
            self.mark = 0;
        }
        if let (None, Some(first)) = (self.fences, fences) {
            self.let_go_first = first.session.saturating_sub(1);
        }
        self.fences = fences;
        if fences.is_none() {
            self.chunks.clear();
            self.written.clear();
            self.forgotten = 0;
        }
    }

    /// The highest mark that a coordinator could say: all up to it is acknowledged.
    pub fn mark_max(&self) -> u64 {
        let Some(fences) = self.fences else { return 0 };
        let of = |written: &&Written| written.stamp.epoch == fences.epoch && written.in_window;
        let mine = || self.written.iter().filter(of);
        let open = mine().filter(|written| written.fate == Fate::Open);
        let first_open = open.map(|written| written.stamp.sequence).min();
        let last = mine().map(|written| written.stamp.sequence).max();
        first_open.map_or(last.unwrap_or(0), |open| open - 1)
    }

    pub fn marked(&mut self, mark: u64) {
        let Some(fences) = self.fences else { return };
        self.mark = self.mark.max(mark);
        for written in &mut self.written {
            let Stamp {
                version,
                epoch,
                sequence,
            } = written.stamp;
            written.passed |=
                epoch == fences.epoch && sequence <= mark && version >= fences.session;
        }
    }

    pub fn power_cut(&mut self) {
        self.chunks
            .values_mut()
            .for_each(|chunk| chunk.busy = false);
    }

    /// Judges what a store says of the replica right after it was opened.
    pub fn judge_opened(
        &mut self,
        range: VolumeId,
        found: Option<&Replica>,
    ) -> Result<(), Failure> {
        let seen = found.map(|replica| Fences {
            version: replica.version,
            session: replica.session,
            epoch: replica
                .range(range)
                .map_or(Epoch::default(), |range| range.epoch),
        });
        let telling = self.telling.take();
        if seen != self.fences && telling != Some(seen) {
            let told = self.fences;
            return Err(wrong(format!(
                "fences are {seen:?}, told were {told:?}, then {telling:?}"
            )));
        }
        self.adopt(seen);
        let Some(found) = found else { return Ok(()) };
        if found.forgotten > self.forgotten {
            return Err(wrong(format!("{} was never forgotten", found.forgotten)));
        }
        if found.let_go > self.forgotten.max(self.let_go_first) {
            return Err(wrong(format!("{} was never let go", found.let_go)));
        }
        let range = found.range(range).cloned().unwrap_or_default();
        if range.mark > self.mark {
            return Err(wrong(format!(
                "the mark is {}, said was {}",
                range.mark, self.mark
            )));
        }
        let mut window = BTreeMap::new();
        for entry in range.window() {
            let key = |written: &&Written| {
                written.stamp == entry.stamp
                    && written.in_window
                    && written.at.contains(&entry.at)
                    && entry.blocks & !written.mask == 0
            };
            if !self.written.iter().any(|written| key(&written)) {
                return Err(wrong(format!("nobody wrote {entry:?}")));
            }
            window.insert((entry.stamp, entry.at), entry.blocks);
        }
        let must = |written: &&Written| {
            written.in_window && written.fate == Fate::Durable && !written.passed
        };
        for written in self.written.iter().filter(must) {
            for &at in &written.at {
                let covered = self.covered(written, at);
                let has = window.get(&(written.stamp, at)).copied().unwrap_or(0);
                if written.mask & !covered & !has != 0 {
                    let stamp = written.stamp;
                    return Err(wrong(format!(
                        "{stamp:?} of {at:?} is above the mark, and in no window"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The blocks that changes of higher epochs may have covered.
    fn covered(&self, written: &Written, at: ChunkId) -> u16 {
        let later = |other: &&Written| {
            other.stamp.epoch > written.stamp.epoch
                && other.fate != Fate::Never
                && other.in_window
                && other.at.contains(&at)
        };
        self.written
            .iter()
            .filter(later)
            .fold(0, |mask, other| mask | other.mask)
    }

    /// Whether what is held may be nothing at all: a tombstone that nobody needs any more.
    fn may_be_gone(&self, state: &State) -> bool {
        state.is_absent() && state.stamp.version <= self.forgotten
    }

    /// Whether a chunk may be missing where tombstones up to that version are said to be let go.
    fn is_said_gone(&self, state: &State, let_go: u32) -> bool {
        self.may_be_gone(state) && state.stamp.version <= let_go
    }

    /// What is known for sure of a chunk; `None`: nothing is.
    fn sure(&self, at: ChunkId) -> Option<State> {
        match self.chunks.get(&at) {
            None => Some(State::default()),
            Some(chunk) if chunk.busy || chunk.maybe.is_some() => None,
            Some(chunk) => Some(chunk.sure.clone()),
        }
    }

    /// Judges what the table was said to have of a chunk that nothing was on its way to.
    pub fn judge_inspected(
        &self,
        at: ChunkId,
        found: Option<&Holding>,
        let_go: u32,
    ) -> Result<(), Failure> {
        let Some(state) = self.sure(at) else {
            return Ok(());
        };
        let is_right = match found {
            None => state == State::default() || self.is_said_gone(&state, let_go),
            Some(holding) => {
                let mut bytes = vec![0; 16 * BLOCK as usize];
                for (place, block) in state.blocks.iter().enumerate() {
                    if let Block::Data(value) = block {
                        let number = at.chunk.block(place as u32);
                        let into = &mut bytes[place * BLOCK as usize..][..BLOCK as usize];
                        value.fill(number.0 * BLOCK, into);
                    }
                }
                state.is_held(at, holding, &bytes)
            }
        };
        match is_right {
            true => Ok(()),
            false => Err(wrong(format!(
                "{at:?} is said to be {found:?}, let go {let_go}, known is {state:?}"
            ))),
        }
    }

    /// Judges whether data was rightly said to take a slot.
    pub fn judge_looked(&self, at: ChunkId, takes: Takes) -> Result<(), Failure> {
        let Some(state) = self.sure(at) else {
            return Ok(());
        };
        let has_data = state.mask(|block| matches!(block, Block::Data(_))) != 0;
        match has_data == (takes == Takes::Nothing) {
            true => Ok(()),
            false => Err(wrong(format!("{at:?} takes {takes:?}, known is {state:?}"))),
        }
    }

    /// Judges blocks that were read as another node reads them, through to the layer below.
    pub fn judge_loaded(
        &self,
        (at, run): (ChunkId, BlockRun),
        below: Option<LayerId>,
        found: &Holding,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let Some(state) = self.sure(at) else {
            return Ok(());
        };
        let below = match below.map(|layer| self.sure(ChunkId { layer, ..at })) {
            Some(None) => return Ok(()),
            Some(Some(below)) => below,
            None => State::default(),
        };
        for (n, place) in run.blocks().enumerate() {
            let block = match state.blocks[place as usize] {
                Block::Absent => below.blocks[place as usize],
                block => block,
            };
            let bytes = &bytes[n * BLOCK as usize..][..BLOCK as usize];
            let number = at.chunk.block(place);
            let (is_data, is_zero) = (found.data & 1 << place != 0, found.zero & 1 << place != 0);
            let is_right = match block {
                Block::Data(value) => {
                    let crc = crc::of_block(at.layer, number, bytes);
                    let crc_is_right = crc == found.crcs[place as usize];
                    is_data && !is_zero && crc_is_right && value.is(number.0 * BLOCK, bytes)
                }
                _ => is_zero && !is_data && bytes.iter().all(|byte| *byte == 0),
            };
            if !is_right {
                return Err(wrong(format!(
                    "block {place} of {at:?} was read as {found:?}, known is {block:?}"
                )));
            }
        }
        Ok(())
    }

    /// Judges the numbers of openings right after one.
    pub fn judge_openings(&mut self, found: Openings) -> Result<(), Failure> {
        let maybe = self.openings_maybe.take();
        if found != self.openings && maybe != Some(found) {
            let known = self.openings;
            return Err(wrong(format!(
                "openings are {found:?}, told were {known:?}, then {maybe:?}"
            )));
        }
        self.openings = found;
        Ok(())
    }

    /// Judges what was fetched of a chunk that is not in flight, and learns from it.
    pub fn judge_fetched(
        &mut self,
        at: ChunkId,
        holding: &Holding,
        bytes: &[u8],
        let_go: u32,
    ) -> Result<(), Failure> {
        let chunk = self.chunks.get(&at).cloned().unwrap_or_default();
        let is = |state: &State| {
            let gone = *holding == Holding::default() && self.is_said_gone(state, let_go);
            gone || state.is_held(at, holding, bytes)
        };
        let (is_sure, maybe) = (is(&chunk.sure), chunk.maybe);
        let fate_of = |number: usize| self.written[number].fate;
        let happened = match maybe {
            // Of two tombstones that may be gone nothing tells them apart. Which one it was may show after the next power cut, which brings it
            // back where it was let go in memory only; so nothing is learned unless another chunk has told.
            Some((state, number)) if is(&state) && is_sure => match fate_of(number) {
                Fate::Never => Some((chunk.sure, number, Fate::Never)),
                Fate::Durable => Some((state, number, Fate::Durable)),
                Fate::Open => return Ok(()),
            },
            Some((state, number)) if is(&state) => Some((state, number, Fate::Durable)),
            Some((_, number)) if is_sure => Some((chunk.sure, number, Fate::Never)),
            None if is_sure => None,
            _ => {
                let known = &self.chunks.get(&at);
                return Err(wrong(format!(
                    "{at:?} holds {holding:?}, known is {known:?}"
                )));
            }
        };
        let Some((state, number, fate)) = happened else {
            return Ok(());
        };
        let written = &mut self.written[number];
        if written.fate != Fate::Open && written.fate != fate {
            return Err(wrong(format!(
                "{written:?} happened in some chunks, not in {at:?}"
            )));
        }
        written.fate = fate;
        self.chunks.insert(
            at,
            Chunk {
                sure: state,
                maybe: None,
                busy: false,
            },
        );
        Ok(())
    }

    /// Judges a list of what was changed since a version; `changing` are the chunks that were changed meanwhile.
    pub fn judge_listed(
        &self,
        since: u32,
        found: &[(ChunkId, Stamp)],
        changing: &BTreeSet<ChunkId>,
    ) -> Result<(), Failure> {
        let key = |at: ChunkId| (at.family, at.chunk, at.layer);
        if !found.is_sorted_by(|(a, _), (b, _)| key(*a) < key(*b)) {
            return Err(wrong(format!("a list is out of order: {found:?}")));
        }
        let listed: BTreeMap<ChunkId, Stamp> = found.iter().copied().collect();
        for (at, stamp) in &listed {
            let known = self.chunks.get(at);
            let is = |state: &State| state.stamp == *stamp;
            let fits = known.is_some_and(|chunk| {
                is(&chunk.sure) || chunk.maybe.as_ref().is_some_and(|(state, _)| is(state))
            });
            if stamp.version <= since || (!fits && !changing.contains(at)) {
                return Err(wrong(format!(
                    "{at:?} was listed with {stamp:?}, known is {known:?}"
                )));
            }
        }
        let missing = |(at, chunk): &(&ChunkId, &Chunk)| {
            let must = |state: &State| state.stamp.version > since && !self.may_be_gone(state);
            must(&chunk.sure)
                && chunk.maybe.as_ref().is_none_or(|(state, _)| must(state))
                && !listed.contains_key(at)
                && !changing.contains(at)
        };
        match self.chunks.iter().find(missing) {
            None => Ok(()),
            Some((at, chunk)) => Err(wrong(format!(
                "{at:?} was not listed since {since}: {chunk:?}"
            ))),
        }
    }

    /// The most slots that it may have.
    pub fn slots_max(&self) -> u64 {
        self.chunks.len() as u64
    }
}

/// The crcs of a chunk that holds a value in each block.
pub fn crcs(layer: LayerId, first: BlockNo, bytes: &[u8]) -> [u32; 16] {
    std::array::from_fn(|place| {
        let bytes = &bytes[place * BLOCK as usize..][..BLOCK as usize];
        crc::of_block(layer, BlockNo(first.0 + place as u64), bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ChunkNo, FamilyId};

    const AT: ChunkId = ChunkId {
        family: FamilyId(1),
        layer: LayerId(1),
        chunk: ChunkNo(3),
    };

    fn stamp(version: u32, sequence: u64) -> Stamp {
        Stamp {
            version,
            sequence,
            ..Stamp::default()
        }
    }

    fn fenced() -> Model {
        let mut model = Model::default();
        let (version, session, epoch) = (1, 0, Epoch::default());
        model.telling(Some(Fences {
            version,
            session,
            epoch,
        }));
        model.told();
        model
    }

    fn zeroed(model: &mut Model, stamp: Stamp) -> usize {
        let (mask, into) = (u16::MAX, Block::Absent);
        model.change_began(&[AT], Change::Zero { mask, into }, stamp, Some(mask))
    }

    #[test]
    fn a_lost_fence_and_one_from_nowhere_are_found() {
        let range = VolumeId(1);
        assert!(fenced().judge_opened(range, None).is_err());
        assert!(
            fenced()
                .judge_opened(range, Some(&Replica::default()))
                .is_err()
        );
        let mut cut = fenced();
        cut.telling(None);
        assert!(cut.judge_opened(range, None).is_ok());
    }

    #[test]
    fn a_chunk_that_is_missing_from_a_list_or_held_otherwise_is_found() {
        let mut model = fenced();
        let number = zeroed(&mut model, stamp(2, 1));
        model.change_ended(number, true);
        let nothing = BTreeSet::new();
        assert!(
            model
                .judge_listed(1, &[(AT, stamp(2, 1))], &nothing)
                .is_ok()
        );
        assert!(
            model
                .judge_listed(1, &[(AT, stamp(2, 2))], &nothing)
                .is_err()
        );
        assert!(model.judge_listed(1, &[], &nothing).is_err());
        assert!(model.judge_listed(2, &[], &nothing).is_ok());
        assert!(
            model
                .judge_fetched(AT, &Holding::default(), &[], 9)
                .is_err()
        );
        assert!(model.judge_inspected(AT, None, 9).is_err());
        assert!(model.judge_looked(AT, Takes::Nothing).is_err());
        model.forgotten = 2;
        assert!(model.judge_inspected(AT, None, 1).is_err());
        assert!(model.judge_inspected(AT, None, 2).is_ok());
        assert!(
            model
                .judge_fetched(AT, &Holding::default(), &[], 1)
                .is_err()
        );
        assert!(model.judge_listed(1, &[], &nothing).is_ok());
        assert!(model.judge_fetched(AT, &Holding::default(), &[], 9).is_ok());
    }

    #[test]
    fn numbers_of_an_opening_that_nobody_told_are_found() {
        let mut model = fenced();
        let (old, new) = (
            Openings::default(),
            Openings {
                last: 3,
                recorded: 1,
            },
        );
        assert!(model.judge_openings(new).is_err());
        model.openings_maybe = Some(new);
        assert!(model.clone().judge_openings(old).is_ok());
        assert!(model.judge_openings(new).is_ok());
        assert!(model.judge_openings(old).is_err());
    }

    #[test]
    fn what_a_power_cut_left_open_is_decided_by_the_first_look() {
        let mut model = fenced();
        let number = zeroed(&mut model, stamp(2, 1));
        model.power_cut();
        assert!(!model.is_settled(AT) && !model.is_busy(AT));
        assert_eq!(model.mark_max(), 0);
        let mut happened = model.clone();
        let held = Holding {
            stamp: stamp(2, 1),
            ..Holding::default()
        };
        assert!(happened.judge_fetched(AT, &held, &[], 9).is_ok());
        assert_eq!(
            (happened.mark_max(), happened.written[number].fate),
            (1, Fate::Durable)
        );
        assert!(
            happened
                .judge_fetched(AT, &Holding::default(), &[], 9)
                .is_err()
        );
        assert!(model.judge_fetched(AT, &Holding::default(), &[], 9).is_ok());
        assert!(model.judge_fetched(AT, &held, &[], 9).is_err());
    }
}
