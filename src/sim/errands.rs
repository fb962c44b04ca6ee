//! Control operations: opening, snapshots, clones, new and dropped volumes, growth, scrubs and closing.

use super::checkers::space::{self, Room, Slots};
use super::checkers::{Checker, Failure};
use super::node::Machine;
use super::register::Tick;
use super::volumes::Volume;
use super::workload::draw_by_weight;
use super::world::{Phase, World};
use crate::base::{BLOCK, BufRef, CHUNK, DiskId, PgId};
use crate::shard::{Control, ControlError, ControlId, DiskSlot, Input};
use crate::store::{self, Closing, Levels, StoreError};

/// What a store has for its own use: the least that it takes.
const SCRATCH_BLOCKS: u32 = 128;
/// The most volumes and layers of one volume, so that a run stays readable.
const VOLUMES_MAX: usize = 8;
const LAYERS_MAX: usize = 12;

/// A control operation that is not answered yet.
#[derive(Debug, Clone)]
pub enum Errand {
    OpenDisk,
    /// Serve a volume, or serve it with another size.
    Open {
        volume: usize,
    },
    /// Freeze the top layer of a volume, and perhaps branch another volume off; the copy's state is one
    /// since `since`.
    Snapshot {
        volume: usize,
        branch: Option<Branch>,
        since: Tick,
    },
    Drop {
        volume: usize,
    },
    Grow,
    Checkpoint,
    Scrub,
    Close,
}

/// What becomes of the frozen state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    /// A volume that can only be read.
    Snapshot,
    /// A volume with a layer of its own.
    Clone,
}

impl<M: Machine> World<M> {
    fn control(&mut self, errand: Errand, control: Control) -> Result<(), Failure> {
        let id = ControlId(self.next_name);
        self.next_name += 1;
        self.idle_turns = 0;
        self.controls.ask(id.0, self.node.now(), errand);
        self.node.step(Input::Control { id, control })?;
        self.handle_all()
    }

    /// Tells a new shard its disks.
    pub(super) fn open_disks(&mut self) -> Result<(), Failure> {
        for n in 0..self.node.disks.len() as u16 {
            let mut entropy = [0; 16];
            self.prng.fill(&mut entropy);
            let scratch = self.node.buffers.take(SCRATCH_BLOCKS);
            let options = store::Options {
                disk_bytes: self.node.disks[usize::from(n)].len(),
                scratch: BufRef {
                    id: scratch.expect("a new node has all its buffers"),
                    block: 0,
                },
                scratch_blocks: SCRATCH_BLOCKS,
                overlay_bytes: self.knobs.overlay_bytes,
                zero_ahead: self.knobs.zero_ahead,
                discard: self.knobs.discard,
                entropy,
                breaks: self.breaks,
            };
            let (disk, slot) = (DiskId(u32::from(n)), DiskSlot(n));
            self.control(
                Errand::OpenDisk,
                Control::OpenDisk {
                    disk,
                    slot,
                    options,
                },
            )?;
        }
        Ok(())
    }

    /// Tells a new shard the volumes.
    pub(super) fn open_volumes(&mut self) -> Result<(), Failure> {
        let living: Vec<usize> = self.volumes.living().map(|(n, _)| n).collect();
        for volume in living {
            // The power was cut before a drop was done: it was decided all the same. The volume is not opened for that, or
            // disks that have dropped it already would get it back.
            match self.volumes.list[volume].dropping {
                true => self.drop_volume(volume)?,
                false => self.open_volume(Errand::Open { volume }, volume)?,
            }
        }
        Ok(())
    }

    fn open_volume(&mut self, errand: Errand, volume: usize) -> Result<(), Failure> {
        let Volume { meta, pgs, .. } = &self.volumes.list[volume];
        let control = Control::OpenVolume {
            meta: meta.clone(),
            pgs: pgs.clone(),
        };
        self.volumes.list[volume].busy = true;
        self.control(errand, control)
    }

    /// Decides that there is another volume; it is open only when the shard was told.
    pub(super) fn decide_volume(&mut self) -> usize {
        let bytes = self.knobs.volume_bytes;
        let disks = self.knobs.disks;
        let first = self.prng.below(disks);
        // A PG is of the pool: whatever volumes have it, it is on one disk.
        let pg = |n| (PgId(n as u32), DiskId((n % disks) as u32));
        let pgs = (first..first + self.knobs.pgs).map(pg).collect();
        let model = self.model.create(bytes);
        self.volumes.create(model, bytes, pgs)
    }

    /// Asks for a control operation, by the knobs.
    pub(super) fn run_errand(&mut self) -> Result<(), Failure> {
        let wanted = &self.knobs.controls;
        let weights = [
            wanted.snapshot,
            wanted.clone,
            wanted.create,
            wanted.drop,
            wanted.resize,
            wanted.scrub,
            wanted.grow,
        ];
        let living = self.volumes.living();
        let at_ease: Vec<usize> = living
            .filter(|(_, volume)| volume.at_ease())
            .map(|(n, _)| n)
            .collect();
        // The disks carry out one of these at a time, and the operator waits.
        let waiting =
            |errand: &Errand| matches!(errand, Errand::Scrub | Errand::Grow | Errand::Checkpoint);
        let engaged = self.controls.iter().any(waiting);
        let (Some(kind), false) = (draw_by_weight(&mut self.prng, &weights), at_ease.is_empty())
        else {
            return Ok(());
        };
        let volume = at_ease[self.prng.below(at_ease.len() as u64) as usize];
        let room = self.volumes.living().count() < VOLUMES_MAX;
        match kind {
            0 => self.snapshot(volume, None),
            1 if room && self.prng.one_in(2) => self.snapshot(volume, Some(Branch::Snapshot)),
            1 if room => self.snapshot(volume, Some(Branch::Clone)),
            2 if room => {
                let volume = self.decide_volume();
                self.open_volume(Errand::Open { volume }, volume)
            }
            3 if at_ease.len() > 1 => self.drop_volume(volume),
            4 => self.resize(volume),
            5 if !engaged => {
                let disk = DiskId(self.prng.below(self.knobs.disks) as u32);
                self.control(Errand::Scrub, Control::Scrub { disk })
            }
            6 if !engaged => self.grow(),
            _ => Ok(()),
        }
    }

    fn snapshot(&mut self, volume: usize, branch: Option<Branch>) -> Result<(), Failure> {
        let source = &self.volumes.list[volume];
        if !source.writable() || source.meta.layers.len() >= LAYERS_MAX {
            return Ok(());
        }
        self.counts.snapshots += 1;
        self.volumes.freeze(volume);
        // Everything that may be in the frozen layer must stay known until the copy is made.
        let since = self.model.began();
        self.open_volume(
            Errand::Snapshot {
                volume,
                branch,
                since,
            },
            volume,
        )
    }

    fn resize(&mut self, volume: usize) -> Result<(), Failure> {
        let more = self.prng.between(1, 600) * BLOCK;
        let Volume { meta, model, .. } = &mut self.volumes.list[volume];
        if meta.size + more > 4 * self.knobs.volume_bytes {
            return Ok(());
        }
        // Requests keep to the old size until the shard has heard of the new one: see `Errand::Open`.
        meta.size += more;
        self.model.resize(*model, meta.size);
        self.open_volume(Errand::Open { volume }, volume)
    }

    fn grow(&mut self) -> Result<(), Failure> {
        let n = self.prng.below(self.knobs.disks) as usize;
        let bytes = self.node.disks[n].len() + self.prng.between(1, 64) * CHUNK;
        if bytes > 2 * self.knobs.disk_bytes {
            // It is long enough: what else makes a checkpoint is asked for.
            return self.control(Errand::Checkpoint, Control::Checkpoint);
        }
        self.node.disks[n].grow(bytes);
        let disk = DiskId(n as u32);
        self.control(Errand::Grow, Control::Grow { disk, bytes })
    }

    fn drop_volume(&mut self, volume: usize) -> Result<(), Failure> {
        let dropped = &mut self.volumes.list[volume];
        dropped.dropping = true;
        dropped.busy = true;
        let id = dropped.meta.id;
        self.control(Errand::Drop { volume }, Control::DropVolume { volume: id })
    }

    /// Drops everything: the run is at its end.
    pub(super) fn drop_all(&mut self) -> Result<(), Failure> {
        self.drop_replica()?;
        let living: Vec<usize> = self.volumes.living().map(|(n, _)| n).collect();
        for volume in living {
            if !self.volumes.list[volume].dropping {
                self.drop_volume(volume)?;
            }
        }
        Ok(())
    }

    /// All volumes are dropped.
    pub(super) fn dropped_all(&mut self) -> Result<(), Failure> {
        self.phase = Phase::Closing;
        self.close(Closing::Whole)
    }

    pub(super) fn close(&mut self, how: Closing) -> Result<(), Failure> {
        self.control(Errand::Close, Control::Close { how })
    }

    /// A control operation was answered.
    pub(super) fn controlled(
        &mut self,
        name: u64,
        result: Result<(), ControlError>,
    ) -> Result<(), Failure> {
        let errand = self.controls.answer(name)?;
        if let Errand::Snapshot { since, .. } = errand {
            self.model.ended(since);
        }
        if let Err(error) = result {
            return self.judge_errand(&errand, error);
        }
        match errand {
            Errand::OpenDisk
            | Errand::Grow
            | Errand::Checkpoint
            | Errand::Scrub
            | Errand::Close => {}
            Errand::Open { volume } => self.opened(volume),
            Errand::Snapshot {
                volume,
                branch,
                since,
            } => {
                self.opened(volume);
                if let Some(branch) = branch {
                    return self.branch(volume, branch, since);
                }
            }
            Errand::Drop { volume } => {
                self.model.drop_volume(self.volumes.list[volume].model);
                self.volumes.dropped(volume);
            }
        }
        Ok(())
    }

    fn opened(&mut self, volume: usize) {
        let opened = &mut self.volumes.list[volume];
        opened.open = true;
        opened.served = opened.meta.size;
        opened.busy = false;
    }

    fn branch(&mut self, source: usize, branch: Branch, since: Tick) -> Result<(), Failure> {
        let bytes = self.volumes.list[source].meta.size;
        let model = self.model.copy(self.volumes.list[source].model, since);
        let own_layer = branch == Branch::Clone;
        let volume = self.volumes.branch(source, bytes, model, own_layer);
        self.open_volume(Errand::Open { volume }, volume)
    }

    /// A control operation failed: that is right only where a disk is to blame, or space.
    fn judge_errand(&mut self, errand: &Errand, error: ControlError) -> Result<(), Failure> {
        let damaged = !self.node.damage.is_empty();
        let full = error == ControlError::Store(StoreError::NoSpace);
        let again = matches!(errand, Errand::Drop { .. }) && error == ControlError::NoSuchVolume;
        if again {
            // It was dropped before the power was cut.
            if let Errand::Drop { volume } = *errand {
                self.model.drop_volume(self.volumes.list[volume].model);
                self.volumes.dropped(volume);
            }
            return Ok(());
        }
        if damaged {
            // New disks, where these cannot be opened.
            self.start_over |= matches!(self.phase, Phase::OpeningDisks | Phase::OpeningVolumes);
            return Ok(());
        }
        if matches!(errand, Errand::Grow) && error == ControlError::Store(StoreError::BadSize) {
            return Ok(());
        }
        match full {
            true => self.judge_no_space(Room::default()),
            false => Err(Failure::new(
                Checker::Intact,
                format!("{errand:?} failed ({error:?}), and no disk is to blame"),
            )),
        }
    }

    /// Space was refused to what was asked; `room` is how full the disks were since.
    pub(super) fn judge_no_space(&mut self, room: Room) -> Result<(), Failure> {
        let judged = space::judge_refusal(room.and(self.room()));
        self.with_levels(judged)
    }

    /// Keeps for every request in flight how full the disks are now.
    pub(super) fn note_room(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let now = self.room();
        for asked in self.requests.iter_mut() {
            asked.room = asked.room.and(now);
        }
    }

    /// How full the disks are now.
    fn room(&self) -> Room {
        // Over several disks the model does not know where what is. Behind a damaged page nobody knows what is free.
        // Writes that touch a little of many extents may use up the table pages before the slots.
        let busy = |levels: Levels| {
            levels.sweeping || levels.leaves_unloaded > 0 || levels.pages_used == levels.pages
        };
        if self.knobs.disks > 1 || !self.node.damage.is_empty() || self.node.levels().any(busy) {
            return Room::unclear();
        }
        let in_flight = self.requests.iter().map(|asked| asked.blocks() / 16 + 2);
        let replica = self.replica.as_ref();
        let (held, asked) = replica.map_or((0, 0), |load| {
            (load.model.slots_max(), load.in_flight() * 2)
        });
        Room::at(
            self.slots().total,
            self.volumes.chunks_max() + held,
            in_flight.sum::<u64>() + asked,
        )
    }

    /// Says with a failure what the stores hold.
    fn with_levels(&self, judged: Result<(), Failure>) -> Result<(), Failure> {
        judged.map_err(|mut failure| {
            let levels: Vec<_> = self.node.levels().collect();
            failure.what += &format!("; {levels:?}");
            failure
        })
    }

    /// The slots of all disks; none where that is not known.
    pub(super) fn slots(&self) -> Slots {
        self.node
            .levels()
            .fold(Slots::default(), |sum, levels| Slots {
                total: sum.total + levels.slots,
                free: sum.free + levels.slots - levels.slots_used,
            })
    }

    pub(super) fn judge_empty(&self) -> Result<(), Failure> {
        let slots = self.slots();
        // What was grown is as empty as what was formatted.
        let formatted = Slots {
            free: slots.total,
            ..slots
        };
        self.with_levels(space::judge_empty(slots, formatted))
    }
}
