//! Which shard has which disk and which volume: the control plane's side of it, and the changes of both.
//!
//! A disk goes to the shard that has the fewest. A volume is opened on every shard that has the disk of one of its PGs,
//! and each coordinates the extents of those. Only when all of them serve it do requests find their
//! way there, and before it is closed none does any more; what is on its way then is refused.

use super::handle::{AttachError, Handle, Silent};
use super::mailbox::Mail;
use crate::base::{DiskId, PgId, VolumeId};
use crate::io;
use crate::shard::{Control, ControlError, DiskSlot, RouteChange, Router, ShardNo};
use crate::store::{StoreError, VolumeMeta};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The control plane's router, and what disks each shard was given. Never locked on the path of a client's request.
#[derive(Debug)]
pub(super) struct Places {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    router: Router,
    /// The slots that were given out, by shard.
    slots: Vec<u16>,
}

impl Places {
    pub fn new(shards: usize) -> Places {
        let known = Known {
            router: Router::default(),
            slots: vec![0; shards],
        };
        Places {
            known: Mutex::new(known),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Changes are single calls: what a panic leaves behind is whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard to ask for the byte at `offset`; `None` where the volume is not open.
    pub fn home(&self, volume: VolumeId, offset: u64) -> Option<ShardNo> {
        let known = self.known();
        let routes = known.router.volume(volume)?;
        Some(routes.run(offset, offset).0)
    }

    /// The shards that have a part of a volume that is open.
    pub fn shards_of(&self, volume: VolumeId) -> Option<Vec<ShardNo>> {
        let known = self.known();
        Some(known.router.volume(volume)?.shards())
    }

    pub(super) fn disk(&self, disk: DiskId) -> Option<ShardNo> {
        self.known().router.disk(disk)
    }

    /// A place for one more disk.
    fn next_slot(&self) -> (ShardNo, DiskSlot) {
        let mut known = self.known();
        let shards = known.slots.iter_mut().enumerate();
        let (shard, slots) = shards
            .min_by_key(|(_, slots)| **slots)
            .expect("there is a shard");
        let slot = DiskSlot(*slots);
        *slots += 1;
        (ShardNo(shard as u16), slot)
    }
}

impl Handle {
    /// Gives a disk to the shard that has the fewest; the slot is what [`Control::OpenDisk`] then names.
    pub async fn attach_disk(&self, id: DiskId, disk: io::Disk) -> Result<DiskSlot, AttachError> {
        let (shard, slot) = self.shared.places.next_slot();
        let mail = |done| Mail::AttachDisk { slot, disk, done };
        let answer = self.ask_shard(shard, mail).await;
        answer.unwrap_or(Err(AttachError::Stopped))?;
        let told = self.tell(RouteChange::Place { disk: id, shard }).await;
        told.map_err(|_| AttachError::Stopped)?;
        tracing::debug!(disk = %id, shard = shard.0, "a disk was given to a shard");
        Ok(slot)
    }

    /// Asks a control operation of every shard that it concerns, and answers when all have answered: with the first
    /// error, where there is one. `StoreError::NotOpen` where the shards have stopped, and `NoSuchDisk` where
    /// no shard was given any disk that is named. To be awaited to its end: a change that is left half done is.
    pub async fn control(&self, control: Control) -> Result<(), ControlError> {
        match control {
            Control::OpenDisk { disk, .. }
            | Control::PutOpenings { disk, .. }
            | Control::Grow { disk, .. }
            | Control::Scrub { disk } => {
                let shard = self.shared.places.disk(disk);
                let shard = shard.ok_or(ControlError::NoSuchDisk)?;
                self.ask_control(&[shard], &control).await
            }
            Control::OpenVolume { meta, pgs } => self.open_volume(meta, pgs).await,
            Control::CloseVolume { volume } | Control::DropVolume { volume } => {
                // New requests are refused from here on; the shards refuse those that are on their way.
                self.tell(RouteChange::Close { volume }).await?;
                self.ask_control(&self.all(), &control).await
            }
            Control::HoldVolume { volume } | Control::ResumeVolume { volume } => {
                let shards = self.shared.places.shards_of(volume);
                let shards = shards.ok_or(ControlError::NoSuchVolume)?;
                self.ask_control(&shards, &control).await
            }
            Control::PutVolume { .. } | Control::Checkpoint | Control::Close { .. } => {
                self.ask_control(&self.all(), &control).await
            }
        }
    }

    async fn open_volume(
        &self,
        meta: VolumeMeta,
        pgs: Vec<(PgId, DiskId)>,
    ) -> Result<(), ControlError> {
        // What lies on a disk that no shard was given answers with an error; what lies on the others is served.
        let known = pgs
            .iter()
            .filter_map(|(_, disk)| self.shared.places.disk(*disk));
        let mut shards: Vec<_> = known.collect();
        shards.sort_unstable();
        shards.dedup();
        if shards.is_empty() {
            return Err(ControlError::NoSuchDisk);
        }
        let (volume, family, size) = (meta.id, meta.family, meta.size);
        let was = self.shared.places.shards_of(volume);
        if let Some(was) = was.as_ref().filter(|was| was.len() > 1) {
            // A change of layers is a cut: nothing is in flight on any shard when the first of them makes it.
            let held = self.ask_control(was, &Control::HoldVolume { volume }).await;
            if held.is_err() {
                self.ask_control(was, &Control::ResumeVolume { volume })
                    .await?;
                return held;
            }
        }
        let open = Control::OpenVolume {
            meta,
            pgs: pgs.clone(),
        };
        let opened = self.ask_control(&shards, &open).await;
        if opened.is_err() {
            if was.is_none() {
                // None of it is served rather than some.
                self.ask_control(&shards, &Control::CloseVolume { volume })
                    .await?;
            }
            return opened;
        }
        let change = RouteChange::Open {
            volume,
            family,
            size,
            pgs,
        };
        self.tell(change).await?;
        // A shard that has no part of it any more refuses what is still on its way there.
        let left: Vec<_> = was.unwrap_or_default();
        let left: Vec<_> = left.into_iter().filter(|s| !shards.contains(s)).collect();
        self.ask_control(&left, &Control::CloseVolume { volume })
            .await
    }

    async fn ask_control(&self, shards: &[ShardNo], control: &Control) -> Result<(), ControlError> {
        let mail = |done| Mail::Control {
            control: Box::new(control.clone()),
            done,
        };
        let answers = self.ask_shards(shards, mail).await?;
        answers.into_iter().collect()
    }

    /// After this time without an answer requests of a volume are answered with an error ([`IoError::Failed`](crate::base::IoError::Failed)); without
    /// one they wait.
    pub async fn set_io_timeout(&self, volume: VolumeId, after: Option<Duration>) {
        let _ = self.tell(RouteChange::TimeOut { volume, after }).await; // they have stopped
    }

    /// Tells every router of a change.
    pub(super) async fn tell(&self, change: RouteChange) -> Result<(), Silent> {
        let mail = |done| Mail::Route {
            change: Box::new(change.clone()),
            done,
        };
        self.shared.places.known().router.apply(&change);
        self.ask_shards(&self.all(), mail).await.map(drop)
    }
}

impl From<Silent> for ControlError {
    fn from(_: Silent) -> ControlError {
        ControlError::Store(StoreError::NotOpen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_spread_over_the_shards() {
        let places = Places::new(2);
        let slots: Vec<_> = (0..5).map(|_| places.next_slot()).collect();
        let of = |shard, slot| (ShardNo(shard), DiskSlot(slot));
        assert_eq!(slots, [of(0, 0), of(1, 0), of(0, 1), of(1, 1), of(0, 2)]);
    }
}
