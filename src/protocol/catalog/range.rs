//! Who owns a volume's range: a node, by a turn that has an epoch.
//!
//! A plain volume is one range. The epoch of a turn is the last one with the host's part raised by one, so none is given twice
//! (R4), not by a restart and not by another node. Sites count from one: a node that is alone has nobody to give its volumes' epochs, and those that it makes
//! itself are of site zero, below all of these. Who takes a range names the epoch that it saw, so of two that take at once
//! one is refused.
//!
//! A range that another node owns is taken only after that one gave it up, or with the number of a lease that surely has ended
//! and is no lower than the one that the owner took it under ([`Expired`](crate::protocol::membership::GrantorOutput::Expired)
//! says which). An owner whose lease broke takes its range again under the new one, so an older proof is void then. Where nothing is
//! known of the owner's lease a person may force it; that raises the generation (O13).
//!
//! A turn that ends without a word may leave writes that are on some replicas and not on others. That is recorded ([`Left`]), until an owner
//! has settled them and given the range up in order. It says whether a snapshot has something to wait for (R21).
//!
//! Invariants: *epochs-only-grow*; *owners-are-known*. It does not know what is sealed or drained, but by its owner's word.

use super::state::{Volume, VolumeState};
use super::volume::{no_volume, not_ready};
use super::{Catalog, Code, Event, Refusal};
use crate::base::{Epoch, NodeId, VolumeId};
use crate::protocol::membership::LeaseNumber;
use serde::{Deserialize, Serialize};

/// Below it are the epochs of nodes that are alone.
const FIRST_SITE: u32 = 1;

/// A node's turn at a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub node: NodeId,
    /// The lease that it was taken under.
    pub lease: LeaseNumber,
}

/// How the turns that are over left a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// Every write that was begun is on every replica, and nobody is left who could write: the owner has said so as it gave the range up.
    Settled,
    /// That is not known. Who seals and recovers all of its PGs knows it then.
    #[default]
    Unsettled,
}

/// A range that was taken at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// Of the present turn, or of the last one where nobody owns it.
    pub epoch: Epoch,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// As the present owner found it, or the last one left it.
    #[serde(default)]
    pub left: Left,
}

/// Why a range may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakeWhy {
    /// Nobody owns it, or the node itself did.
    Free,
    /// The owner's lease of this number, and every lower one, has surely ended.
    LeaseEnded { lease: LeaseNumber },
}

/// Why a turn ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GiveWhy {
    /// The owner has drained it, and what it found unsettled is settled.
    Drained,
    /// It gives it up as it is: what was in flight is for the next owner to recover.
    Undrained,
    /// As with [`TakeWhy`]: the owner will not come back to it.
    LeaseEnded { lease: LeaseNumber },
}

impl Catalog {
    pub(super) fn take_range(
        &mut self,
        id: VolumeId,
        taker: Owner,
        after: Option<Epoch>,
        why: TakeWhy,
    ) -> Result<Vec<Event>, Refusal> {
        self.check_taker(id, taker, after)?;
        if let Some(held) = self.range(id).and_then(|range| range.owner) {
            let ended = match why {
                TakeWhy::LeaseEnded { lease } => lease >= held.lease,
                TakeWhy::Free => false,
            };
            if held.node == taker.node && taker.lease < held.lease {
                let reason = format!("node {} took it under a later lease", held.node);
                let hint = "an earlier start of a node takes nothing any more";
                return Err(Refusal::conflict("lease", reason, hint));
            }
            if held.node != taker.node && !ended {
                let reason = format!("node {} owns it, and its lease may be live", held.node);
                let hint = "detach it there, or wait until that node's lease is over";
                return Err(Refusal::conflict("why", reason, hint));
            }
        }
        let last = after.unwrap_or_default();
        // Nobody was told how the turn of an owner ended that has to be replaced, be it the same node.
        let left = match self.range(id) {
            None => Left::Settled,
            Some(range) if range.owner.is_none() => range.left,
            Some(_) => Left::Unsettled,
        };
        self.own(id, taker, last.generation, left)
    }

    pub(super) fn force_take_range(
        &mut self,
        id: VolumeId,
        taker: Owner,
        after: Option<Epoch>,
    ) -> Result<Vec<Event>, Refusal> {
        self.check_taker(id, taker, after)?;
        let Some(generation) = after.unwrap_or_default().generation.checked_add(1) else {
            return Err(no_epoch_left());
        };
        self.own(id, taker, generation, Left::Unsettled)
    }

    pub(super) fn give_range(
        &mut self,
        id: VolumeId,
        node: NodeId,
        epoch: Epoch,
        why: GiveWhy,
    ) -> Result<Vec<Event>, Refusal> {
        self.volume(id).ok_or_else(|| no_volume(id))?;
        let owner = self.check_owner(id, node, epoch)?;
        if let GiveWhy::LeaseEnded { lease } = why
            && lease < owner.lease
        {
            let reason = format!("node {node} took it under a later lease");
            let hint = "`sarsen attachments` shows who has what";
            return Err(Refusal::conflict("why", reason, hint));
        }
        let left = match why {
            GiveWhy::Drained => Left::Settled,
            GiveWhy::Undrained | GiveWhy::LeaseEnded { .. } => Left::Unsettled,
        };
        let range = Ownership {
            epoch,
            owner: None,
            left,
        };
        self.put_range(id, range);
        let mut events = vec![Event::RangeGiven { volume: id, range }];
        let is_cutting = self.volume(id).is_some_and(|of| of.cutting().is_some());
        if left == Left::Settled && is_cutting {
            // Nothing is in flight in any layer, and whoever comes next has heard of the newest.
            events.extend(self.change(id, Volume::freeze)?);
        }
        Ok(events)
    }

    pub(super) fn hand_range(
        &mut self,
        id: VolumeId,
        (node, epoch): (NodeId, Epoch),
        to: Owner,
        left: Left,
    ) -> Result<Vec<Event>, Refusal> {
        self.check_owner(id, node, epoch)?;
        self.check_taker(id, to, Some(epoch))?;
        let mut events = Vec::new();
        let is_cutting = self.volume(id).is_some_and(|of| of.cutting().is_some());
        if left == Left::Settled && is_cutting {
            // As in order: nothing is in flight, and who has the turn now knows of the newest layer.
            events.extend(self.change(id, Volume::freeze)?);
        }
        events.extend(self.own(id, to, epoch.generation, left)?);
        Ok(events)
    }

    /// Refuses what a node says of a range that is not its own under this epoch.
    pub(super) fn check_owner(
        &self,
        id: VolumeId,
        node: NodeId,
        epoch: Epoch,
    ) -> Result<Owner, Refusal> {
        let hint = "`sarsen attachments` shows who has what";
        let Some(Ownership {
            epoch: at,
            owner: Some(owner),
            ..
        }) = self.range(id).copied()
        else {
            return Err(Refusal::conflict("volume", "nobody owns it", hint));
        };
        if owner.node != node || at != epoch {
            let reason = format!("node {} owns it, at {}", owner.node, shown(at));
            return Err(Refusal::conflict("epoch", reason, hint));
        }
        Ok(owner)
    }

    /// What is asked of everyone who takes a range: that all is known, and nobody came between.
    fn check_taker(&self, id: VolumeId, taker: Owner, after: Option<Epoch>) -> Result<(), Refusal> {
        let volume = self.volume(id).ok_or_else(|| no_volume(id))?;
        if volume.state == VolumeState::Deleting {
            return Err(not_ready(volume));
        }
        self.known_node(taker.node)?;
        let present = self.range(id).map(|range| range.epoch);
        if present != after {
            let reason = match present {
                Some(epoch) => format!("the range has {} by now", shown(epoch)),
                None => "the range was never taken".into(),
            };
            let hint = "look at who owns it now, and ask again";
            return Err(Refusal::conflict("after", reason, hint));
        }
        if let (Some(first), _) = self.attachments_of(id)
            && first.node != taker.node
            && !self.is_shared(volume)
        {
            let reason = format!("{} is attached to node {}", volume.name, first.node);
            return Err(Refusal::conflict("node", reason, "detach it there first"));
        }
        Ok(())
    }

    fn own(
        &mut self,
        id: VolumeId,
        owner: Owner,
        generation: u32,
        left: Left,
    ) -> Result<Vec<Event>, Refusal> {
        let last = self.range(id).map(|range| range.epoch).unwrap_or_default();
        let host = last.host.checked_add(1).ok_or_else(no_epoch_left)?;
        let range = Ownership {
            epoch: Epoch {
                generation,
                site: last.site.max(FIRST_SITE),
                host,
            },
            owner: Some(owner),
            left,
        };
        self.put_range(id, range);
        Ok(vec![Event::RangeTaken { volume: id, range }])
    }
}

fn no_epoch_left() -> Refusal {
    let reason = "every epoch of this range was used";
    let hint = "copy the volume into a new one";
    Refusal::new(Code::Exhausted, "after", reason, hint)
}

fn shown(epoch: Epoch) -> String {
    let Epoch {
        generation,
        site,
        host,
    } = epoch;
    format!("epoch {generation}.{site}.{host}")
}
