//! Volumes on a node of a cluster: how this node comes to have one, and lets go of it again.
//!
//! ```text
//!   NBD client, API ──► hold ──► attached here? ──no──► Command::Attach, without a front end
//!   guest, device ────► (attached by its user)              │
//!                                                           ▼
//!   manager ──► pilot: a turn ──► shards ──► pilot.served() ──► serve_volumes: requests find their way here
//! ```
//!
//! Who uses a volume in passing has it held: this node attaches it for him. When nobody has used it for [`IDLE`], it is let go, so that another
//! node may have it. Guests' disks and devices are attached by name, and stay.
//!
//! On a node that is alone nothing of this happens: it has every volume. Why so is in
//! [`docs`](crate::docs::decisions::volumes_come_to_where_they_are_used).
//!
//! Invariants: *held-while-used* (what is used is not let go: both are looked at under one lock); *no-way-before-its-order* (requests are
//! brought to shards after the order that has them serve).

use super::{Host, lock};
use crate::api::model::ErrorBody;
use crate::base::{DiskId, NodeId, VolumeId};
use crate::pilot::{Lease, Pilot};
use crate::protocol::catalog::{
    self, AttachmentKey, Catalog, Command, FrontEnd, Sharing, VolumeState,
};
use crate::shard::Control;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long nobody uses what is held in passing until it is let go.
const IDLE: Duration = Duration::from_secs(2);
/// Between two looks at that.
const EVERY: Duration = Duration::from_millis(500);
/// How long one who wants what another node holds in passing waits for that node to let go of it.
const LETS_GO: Duration = Duration::from_secs(4);
/// Between two looks at that.
const LOOKS: Duration = Duration::from_millis(50);
/// How long one who uses a volume waits until this node has it: longer than the lease of a node that died lasts.
const WITHIN: Duration = Duration::from_secs(10);
/// How long a start waits for the volumes of its guests.
const AT_START: Duration = Duration::from_secs(5);

/// What this node has, and who uses it.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The volumes whose requests find their way to the shards, with the size that they go by.
    here: watch::Sender<BTreeMap<VolumeId, u64>>,
    /// How many use a volume over the API, or are about to.
    uses: Mutex<BTreeMap<VolumeId, u32>>,
    /// Volumes that are being let go or deleted: nobody new gets them.
    leaving: Mutex<BTreeSet<VolumeId>>,
    /// Why those who wait for a volume do not get it.
    refused: Mutex<BTreeMap<VolumeId, String>>,
    /// Held while a volume is held or let go.
    holding: tokio::sync::Mutex<()>,
}

/// Keeps a volume at this node while it is used.
pub(super) struct Hold(Option<(Host, VolumeId)>);

impl Drop for Hold {
    fn drop(&mut self) {
        let Some((host, volume)) = &self.0 else {
            return;
        };
        let mut uses = lock(&host.inner.taken.uses);
        match uses.get_mut(volume) {
            Some(1) => drop(uses.remove(volume)),
            Some(count) => *count -= 1,
            None => debug_assert!(false, "a hold is given back once"),
        }
    }
}

/// What a client finds of a volume that can be used.
pub(super) enum Found {
    Here,
    /// This node can take it.
    Away,
    Refused(String),
}

impl Host {
    pub(super) fn pilot(&self) -> Option<&Arc<Pilot>> {
        self.inner.parts.pilot.as_ref()
    }

    pub(super) fn is_of_cluster(&self) -> bool {
        self.pilot().is_some()
    }

    /// Ends what drives this node's part of the cluster. The shards have ended before.
    pub async fn end_pilot(&self) {
        if let Some(pilot) = self.pilot() {
            pilot.end().await;
        }
    }

    fn is_here(&self, volume: VolumeId) -> bool {
        self.inner.taken.here.borrow().contains_key(&volume)
    }

    /// Has this node have a volume, and keep it until the hold is dropped.
    pub(super) async fn hold(&self, volume: VolumeId) -> Result<Hold, ErrorBody> {
        if !self.is_of_cluster() {
            return Ok(Hold(None));
        }
        *lock(&self.inner.taken.uses).entry(volume).or_default() += 1;
        let hold = Hold(Some((self.clone(), volume)));
        self.attach_in_passing(volume).await?;
        self.comes_here(volume, WITHIN).await?;
        Ok(hold)
    }

    async fn attach_in_passing(&self, volume: VolumeId) -> Result<(), ErrorBody> {
        let _holding = self.inner.taken.holding.lock().await;
        let node = self.inner.parts.node;
        // Where it is not let go, the catalog says who has it.
        self.wait_until_let_go(volume).await;
        let is_attached = self.manager().catalog().attached_at(volume, node).is_some();
        if !is_attached {
            let front_end = FrontEnd::None;
            let command = Command::Attach {
                volume,
                node,
                front_end,
            };
            self.manager().propose(command).await?;
        }
        Ok(())
    }

    /// Waits for some seconds until other nodes let go of a volume that they hold in passing. From one that does not answer it is taken: whoever used it there
    /// is not served any more, or will not be when that node's lease has ended, and before that nobody else has it.
    async fn others_let_go(&self, volume: VolumeId) {
        let node = self.inner.parts.node;
        let let_go = async {
            loop {
                let holders = in_passing_elsewhere(&self.manager().catalog(), volume, node);
                if holders.is_empty() {
                    return;
                }
                for (holder, key) in holders {
                    if self.is_silent(holder) {
                        tracing::info!(%volume, node = %holder, "what a node that does not answer held in passing is taken from it");
                        let key = Some(key);
                        let taken = self.manager().propose(Command::Detach { volume, key });
                        taken.await.ok(); // it is looked at again
                    }
                }
                sleep(LOOKS).await;
            }
        };
        timeout(LETS_GO, let_go).await.ok();
    }

    /// The same where one node has a volume at a time: a shared one need not be waited for.
    pub(super) async fn wait_until_let_go(&self, volume: VolumeId) {
        let catalog = self.manager().catalog();
        let of = catalog.volume(volume);
        if of.is_some_and(|of| of.sharing == Sharing::Exclusive) {
            self.others_let_go(volume).await;
        }
    }

    /// Waits until this node has a volume that is attached to it.
    pub(super) async fn comes_here(
        &self,
        volume: VolumeId,
        within: Duration,
    ) -> Result<(), ErrorBody> {
        if !self.is_of_cluster() {
            return Ok(());
        }
        let mut here = self.inner.taken.here.subscribe();
        let comes = here.wait_for(|here| here.contains_key(&volume));
        if timeout(within, comes).await.is_ok() {
            return Ok(());
        }
        let message = format!(
            "this node has not got the volume yet: {}",
            self.why_away(volume)
        );
        Err(ErrorBody::unavailable(
            message,
            "try again; `sarsen status` says how the cluster is",
        ))
    }

    /// Why this node does not have a volume that is attached to it, as far as it knows.
    pub(super) fn why_away(&self, volume: VolumeId) -> String {
        let me = self.inner.parts.node;
        let lease = self.pilot().map(|pilot| pilot.view().lease);
        if let Some(Lease::NotHeld { .. }) = lease {
            return "it holds no lease: it does not reach a majority of the manager's members"
                .into();
        }
        let catalog = self.manager().catalog();
        let owner = catalog.range(volume).and_then(|range| range.owner);
        match owner.filter(|owner| owner.node != me) {
            Some(owner) => {
                let node = super::cluster::name_of(&catalog, owner.node);
                format!("node {node} has it until its lease has ended")
            }
            None => "it is being opened".into(),
        }
    }

    /// Waits at a start until this node has the volumes that are attached to it, so that guests which wait find them.
    pub async fn wait_for_volumes(&self) {
        if !self.is_of_cluster() {
            return;
        }
        let me = self.inner.parts.node;
        let catalog = self.manager().catalog();
        let own = catalog.attachments().filter(|one| one.node == me);
        let own: BTreeSet<VolumeId> = own.map(|one| one.volume).collect();
        let mut here = self.inner.taken.here.subscribe();
        let all = here.wait_for(|here| own.iter().all(|volume| here.contains_key(volume)));
        if timeout(AT_START, all).await.is_err() {
            tracing::warn!("this node has not got all volumes that are attached to it yet");
        }
    }

    /// How a client finds a volume that is ready.
    pub(super) fn find(&self, catalog: &Catalog, volume: &catalog::Volume) -> Found {
        let me = self.inner.parts.node;
        let taken = &self.inner.taken;
        if let Some(why) = lock(&taken.refused).get(&volume.id) {
            return Found::Refused(why.clone());
        }
        let (first, _) = catalog.attachments_of(volume.id);
        let is_here = catalog.attached_at(volume.id, me).is_some();
        let is_theirs = !is_here && volume.sharing == Sharing::Exclusive;
        let theirs = first.filter(|first| first.node != me && is_theirs);
        match theirs {
            // It may let go of it.
            Some(first) if first.front_end == FrontEnd::None => Found::Away,
            Some(first) => {
                let node = super::cluster::name_of(catalog, first.node);
                Found::Refused(format!("it is attached to node {node}"))
            }
            None if lock(&taken.leaving).contains(&volume.id) => Found::Away,
            None if self.is_here(volume.id) => Found::Here,
            None => Found::Away,
        }
    }

    /// A client waits for a volume that is away.
    pub fn wanted(&self, volume: VolumeId) {
        let host = self.clone();
        tokio::spawn(async move {
            match host.hold(volume).await {
                Ok(hold) => {
                    host.show_exports().await;
                    // Until it is connected it is not counted.
                    sleep(EVERY).await;
                    drop(hold);
                }
                Err(error) => {
                    // Told to those who wait now; who comes later may have more luck.
                    let refused = &host.inner.taken.refused;
                    lock(refused).insert(volume, error.message);
                    host.show_exports().await;
                    lock(refused).remove(&volume);
                    host.show_exports().await;
                }
            }
        });
    }

    /// Brings requests to the volumes that this node comes to have, for as long as the daemon runs.
    pub async fn serve_volumes(&self) {
        let Some(pilot) = self.pilot() else { return };
        let mut served = pilot.served();
        loop {
            self.look_at_served().await;
            if served.changed().await.is_err() {
                return;
            }
        }
    }

    /// Has requests find their way to what the shards serve now, by its present size.
    pub(super) async fn look_at_served(&self) {
        let Some(pilot) = self.pilot() else { return };
        let showing = self.inner.showing.lock().await;
        let served = pilot.served().borrow().clone();
        let catalog = self.manager().catalog();
        let here = &self.inner.taken.here;
        let before = here.borrow().clone();
        let (mut came, mut resized) = (false, Vec::new());
        for volume in served.iter().filter_map(|id| catalog.volume(*id)) {
            if before.get(&volume.id) == Some(&volume.size) {
                continue;
            }
            let pgs = catalog.pgs_of_volume(volume).to_vec();
            let (id, size) = (volume.id, volume.size);
            self.runtime()
                .serve_volume(id, volume.family, size, pgs)
                .await;
            self.registry().name_volume(id, &volume.name);
            here.send_modify(|here| {
                here.insert(id, size);
            });
            match before.contains_key(&id) {
                true => resized.push(id),
                false => came = true,
            }
        }
        for volume in before.keys().filter(|id| !served.contains(id)) {
            self.runtime().stop_serving(*volume).await;
            here.send_modify(|here| {
                here.remove(volume);
            });
        }
        drop(showing);
        self.show_exports().await;
        for volume in resized {
            // Wherever that was asked for.
            self.resized_attachment(&catalog, volume).await;
        }
        if came {
            let host = self.clone();
            tokio::spawn(async move { host.look_after_attachments().await });
        }
    }

    /// Lets go of what nobody uses, for as long as the daemon runs.
    pub async fn let_go_of_volumes(&self) {
        let mut idle: BTreeMap<VolumeId, Instant> = BTreeMap::new();
        loop {
            sleep(EVERY).await;
            let held = self.held();
            idle.retain(|volume, _| held.contains_key(volume));
            for (volume, key) in held {
                if self.is_used(volume) {
                    idle.remove(&volume);
                    continue;
                }
                let since = *idle.entry(volume).or_insert_with(Instant::now);
                if since.elapsed() >= IDLE {
                    self.let_go(volume, key).await;
                }
            }
        }
    }

    /// What this node holds in passing.
    fn held(&self) -> BTreeMap<VolumeId, AttachmentKey> {
        let me = self.inner.parts.node;
        let catalog = self.manager().catalog();
        let held = |one: &&catalog::Attachment| one.node == me && one.front_end == FrontEnd::None;
        let held = catalog.attachments().filter(held);
        held.map(|one| (one.volume, one.key)).collect()
    }

    fn is_used(&self, volume: VolumeId) -> bool {
        lock(&self.inner.taken.uses).contains_key(&volume) || self.runtime().connections(volume) > 0
    }

    /// Lets go of a volume that is held in passing, where nobody uses it; whether it did.
    pub(super) async fn let_go(&self, volume: VolumeId, key: AttachmentKey) -> bool {
        let taken = &self.inner.taken;
        let _holding = taken.holding.lock().await;
        // First no new client, then count those that are there: the number can be believed.
        lock(&taken.leaving).insert(volume);
        self.show_exports().await;
        let lets_go = !self.is_used(volume);
        if lets_go {
            let key = Some(key);
            let detached = self
                .manager()
                .propose(Command::Detach { volume, key })
                .await;
            if let Err(error) = detached {
                tracing::debug!(%volume, %error, "a volume is not let go yet");
            } else {
                let mut here = taken.here.subscribe();
                let gone = here.wait_for(|here| !here.contains_key(&volume));
                if timeout(WITHIN, gone).await.is_err() {
                    tracing::warn!(%volume, "a volume that was let go is still here");
                }
            }
        }
        lock(&taken.leaving).remove(&volume);
        self.show_exports().await;
        lets_go
    }

    /// The same where it is held in passing at all.
    async fn let_go_at_once(&self, volume: VolumeId) {
        if let Some(key) = self.held().get(&volume) {
            self.let_go(volume, *key).await;
        }
    }

    /// Waits for some seconds until no node has a volume in passing.
    pub(super) async fn nobody_has_it_in_passing(&self, volume: VolumeId) {
        self.let_go_at_once(volume).await;
        self.others_let_go(volume).await;
    }

    /// Deletes a volume of the cluster.
    pub(super) async fn delete_of_cluster(&self, name: &str) -> Result<(), ErrorBody> {
        let id = self.manager().catalog().volume_named(name)?.id;
        self.nobody_has_it_in_passing(id).await;
        let given_up = async {
            let mut watch = self.manager().watch();
            let owned = || {
                let catalog = self.manager().catalog();
                catalog.range(id).is_some_and(|range| range.owner.is_some())
                    && catalog.attachments_of(id).0.is_none()
            };
            while owned() {
                watch.next().await;
            }
        };
        // Where it is not given up in time the catalog says who has it.
        timeout(WITHIN, given_up).await.ok();
        let is_deleting = |catalog: &Catalog| {
            let volume = catalog.volume(id);
            volume.is_some_and(|volume| volume.state == VolumeState::Deleting)
        };
        if !is_deleting(&self.manager().catalog()) {
            let connections = self.runtime().connections(id) as u64;
            let delete = Command::DeleteVolume {
                name: name.to_owned(),
                connections,
            };
            let asked = self.manager().propose(delete).await;
            self.known(&format!("volume {name}"), asked)?;
        }
        // The nodes give its space back when they hear of this; who is away does it when it comes back.
        let forget = Command::ForgetVolume { volume: id };
        self.manager().propose(forget).await?;
        self.registry().forget_volume(id);
        lock(&self.inner.imports).remove(&id);
        self.show_exports().await;
        tracing::info!(volume = %id, name, "volume deleted");
        Ok(())
    }

    /// Gives back the space of volumes that a store knows and the catalog has no more. One that the catalog does not have yet, because it is behind, is left alone.
    pub(super) async fn drop_forgotten(&self, disks: &[DiskId]) {
        if !self.is_of_cluster() {
            return;
        }
        let mut gone = BTreeSet::new();
        for disk in disks {
            let known = self.runtime().volumes_of(*disk).await;
            let catalog = self.manager().catalog();
            let ever = catalog.volumes_ever();
            let is_gone = |id: &VolumeId| id.0 <= ever && catalog.volume(*id).is_none();
            gone.extend(known.into_iter().filter(is_gone));
        }
        for volume in gone {
            let dropped = self.runtime().control(Control::DropVolume { volume }).await;
            match dropped {
                Ok(()) => tracing::info!(%volume, "the space of a deleted volume is given back"),
                Err(error) => {
                    tracing::warn!(%volume, ?error, "a deleted volume keeps its space until the next start");
                }
            }
        }
    }
}

/// The other nodes that hold a volume for who uses it there in passing.
fn in_passing_elsewhere(
    catalog: &Catalog,
    volume: VolumeId,
    me: NodeId,
) -> Vec<(NodeId, AttachmentKey)> {
    let first = catalog.attachments_of(volume).0.into_iter();
    let all = first.chain(catalog.shared_at(volume));
    let held = all.filter(|one| one.node != me && one.front_end == FrontEnd::None);
    held.map(|one| (one.node, one.key)).collect()
}
