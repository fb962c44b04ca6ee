//! Changes of volumes: the catalog first, then the shards, then what clients see.

use super::health::Health;
use super::held::Found;
use super::{AlertKind, Host, lock};
use crate::api::model::{
    self, ErrorBody, NbdClients, Volume, VolumeChange, VolumeCreate, VolumeCreatePurpose,
};
use crate::base::VolumeId;
use crate::manager::ProposeError;
use crate::pilot;
use crate::protocol::catalog::{
    self, Command, Locality, Purpose, Sharing, VolumeState, check_name,
};
use crate::runtime::{Admits, Export};
use crate::shard::{Control, ControlError};
use crate::trust::UserName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl Host {
    pub async fn create_volume(&self, create: VolumeCreate) -> Result<Volume, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let command = Command::CreateVolume {
            name: create.name.clone(),
            size: create.size_bytes,
            block_size: create.block_size_bytes,
            purpose: match create.purpose {
                VolumeCreatePurpose::Use => Purpose::Use,
                VolumeCreatePurpose::Import => Purpose::Import,
                VolumeCreatePurpose::Bench => Purpose::Bench,
            },
            pool: create.pool.clone(),
            locality: match create.locality {
                model::Locality::Spread => Locality::Spread,
                model::Locality::Local => Locality::Local {
                    home: self.inner.parts.node,
                },
            },
        };
        let asked = self.manager().propose(command).await;
        self.known(&format!("volume {}", create.name), asked)?;
        let catalog = self.manager().catalog();
        let volume = catalog.volume_named(&create.name)?;
        if create.purpose == VolumeCreatePurpose::Import {
            self.begin_import(volume.id);
        }
        if self.is_of_cluster() {
            // It comes to where it is used.
            self.show_exports().await;
            tracing::info!(volume = %volume.id, name = volume.name, size = volume.size, "volume created");
            return self.volume(&create.name);
        }
        let opened = match self.health(&catalog, volume) {
            Health::Whole => self.open_volume(volume).await,
            // What is new should not begin with parts that are lost.
            Health::Degraded(why) | Health::Failed(why) => {
                let message = format!("volume {} cannot be whole: {why}", volume.name);
                Err(ErrorBody::io(message, LOOK))
            }
        };
        if let Err(error) = opened {
            // What cannot be served must not look as if it had been created. Where the disks cannot take it back
            // either, it stays in deletion, and the next start or `volume delete` ends that.
            if let Err(kept) = self.give_back(volume, 0).await {
                tracing::warn!(volume = %volume.id, error = %kept, "a failed creation is kept");
            }
            return Err(error);
        }
        self.show_exports().await;
        tracing::info!(volume = %volume.id, name = volume.name, size = volume.size, "volume created");
        self.volume(&create.name)
    }

    /// Changes one thing of a volume: all of it or nothing.
    pub async fn change_volume(
        &self,
        name: &str,
        change: VolumeChange,
    ) -> Result<Volume, ErrorBody> {
        let VolumeChange {
            size_bytes,
            shared,
            io_timeout_seconds,
            clients,
        } = change;
        match (size_bytes, shared, io_timeout_seconds, clients) {
            (Some(size), None, None, None) => self.resize_volume(name, size).await,
            (None, Some(shared), None, None) => self.share_volume(name, shared).await,
            (None, None, Some(seconds), None) => self.time_volume_out(name, seconds).await,
            (None, None, None, Some(clients)) => self.let_clients_use(name, clients).await,
            _ => {
                let message = "one thing is changed at a time";
                let hint = "give `size_bytes`, `shared`, `io_timeout_seconds` or `clients`";
                Err(ErrorBody::invalid("shared", message, hint))
            }
        }
    }

    async fn time_volume_out(&self, name: &str, seconds: u32) -> Result<Volume, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let command = Command::SetIoTimeout {
            name: name.to_owned(),
            seconds: (seconds > 0).then_some(seconds),
        };
        let asked = self.manager().propose(command).await;
        self.known(&format!("volume {name}"), asked)?;
        self.look_at_timeouts().await;
        self.volume(name)
    }

    async fn let_clients_use(&self, name: &str, clients: NbdClients) -> Result<Volume, ErrorBody> {
        let clients = match clients {
            NbdClients::None => catalog::NbdClients::Nobody,
            NbdClients::Any => catalog::NbdClients::Anybody,
            NbdClients::Only(mut names) => {
                names.sort();
                names.dedup();
                if let Some(odd) = names.iter().find(|name| UserName::new(name).is_none()) {
                    let message = format!("{odd:?} is no name of a client");
                    let hint = "`sarsen cluster clients` shows their names";
                    return Err(ErrorBody::invalid("clients", message, hint));
                }
                catalog::NbdClients::Only(names)
            }
        };
        let _changing = self.inner.changing.lock().await;
        let name = name.to_owned();
        let volume = name.clone();
        let asked = self
            .manager()
            .propose(Command::SetClients { name, clients });
        self.known(&format!("volume {volume}"), asked.await)?;
        // When this is answered it counts here; at other nodes when they hear of it.
        self.show_exports().await;
        self.volume(&volume)
    }

    /// Tells the shards of the volumes' `io_timeout`s, where these are others than they were told.
    pub(super) async fn look_at_timeouts(&self) {
        let catalog = self.manager().catalog();
        let with = catalog.volumes().filter_map(|volume| {
            let seconds = volume.io_timeout?;
            Some((volume.id, Duration::from_secs(seconds.into())))
        });
        let wanted: BTreeMap<VolumeId, Duration> = with.collect();
        let mut told = self.inner.timeouts.lock().await;
        let all: BTreeSet<VolumeId> = told.keys().chain(wanted.keys()).copied().collect();
        for volume in all {
            let after = wanted.get(&volume).copied();
            if told.get(&volume).copied() != after {
                self.runtime().set_io_timeout(volume, after).await;
            }
        }
        *told = wanted;
    }

    async fn share_volume(&self, name: &str, shared: bool) -> Result<Volume, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let volume = self.manager().catalog().volume_named(name)?.id;
        // Nobody may have it meanwhile, but who has it in passing lets go of it.
        self.nobody_has_it_in_passing(volume).await;
        let sharing = match shared {
            true => Sharing::Shared,
            false => Sharing::Exclusive,
        };
        let command = Command::SetSharing {
            name: name.to_owned(),
            sharing,
        };
        let asked = self.manager().propose(command).await;
        self.known(&format!("volume {name}"), asked)?;
        tracing::info!(%volume, name, shared, "volume is shared by nodes, or not");
        self.volume(name)
    }

    async fn resize_volume(&self, name: &str, size: u64) -> Result<Volume, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        let name = name.to_owned();
        let resize = Command::ResizeVolume {
            name: name.clone(),
            size,
        };
        let asked = self.manager().propose(resize).await;
        self.known(&format!("volume {name}"), asked)?;
        let catalog = self.manager().catalog();
        let volume = catalog.volume_named(&name)?;
        match self.is_of_cluster() {
            true => self.look_at_served().await,
            false => {
                self.open_volume(volume).await?;
                self.show_exports().await;
                self.resized_attachment(&catalog, volume.id).await;
            }
        }
        tracing::info!(volume = %volume.id, name, size, "volume resized");
        self.volume(&name)
    }

    pub async fn delete_volume(&self, name: &str) -> Result<(), ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        if self.is_of_cluster() {
            return self.delete_of_cluster(name).await;
        }
        let catalog = self.manager().catalog();
        let volume = catalog.volume_named(name)?;
        // Before anything is taken away from those who use it.
        catalog.may_delete(volume)?;
        // First no new client, then count those that are there: the number can be believed.
        self.set_exports_without(Some(volume.id)).await;
        let connections = self.runtime().connections(volume.id) as u64;
        let given = self.give_back(volume, connections).await;
        self.show_exports().await;
        given?;
        tracing::info!(volume = %volume.id, name, "volume deleted");
        Ok(())
    }

    /// Takes a volume out of the catalog and its space off the disks.
    async fn give_back(&self, volume: &catalog::Volume, connections: u64) -> Result<(), ErrorBody> {
        let name = volume.name.clone();
        let delete = Command::DeleteVolume { name, connections };
        let asked = self.manager().propose(delete).await;
        self.known(&format!("volume {}", volume.name), asked)?;
        self.finish_deletion(volume).await
    }

    /// Raises an alert where nobody knows whether the catalog was changed: it may be later, and what follows a change here is then not done before the next
    /// start.
    pub(super) fn known<T>(
        &self,
        subject: &str,
        asked: Result<T, ProposeError>,
    ) -> Result<T, ErrorBody> {
        match &asked {
            Err(error @ ProposeError::Unknown(_)) => {
                let reason = format!("what was asked is recorded or not: {error}");
                self.alerts()
                    .raise(AlertKind::ChangeUnknown, subject, reason);
            }
            _ => self.alerts().clear(AlertKind::ChangeUnknown, subject),
        }
        Ok(asked?)
    }

    async fn finish_deletion(&self, volume: &catalog::Volume) -> Result<(), ErrorBody> {
        let drop = Control::DropVolume { volume: volume.id };
        match self.runtime().control(drop).await {
            // It was never opened, or the crash came after the disks had forgotten it.
            Ok(()) | Err(ControlError::NoSuchVolume) => {}
            Err(error) => return Err(control_error(&error, &format!("volume {}", volume.name))),
        }
        self.manager()
            .propose(Command::ForgetVolume { volume: volume.id })
            .await?;
        self.registry().forget_volume(volume.id);
        lock(&self.inner.imports).remove(&volume.id);
        lock(&self.inner.unavailable).remove(&volume.id);
        self.alerts().clear(
            AlertKind::VolumeUnavailable,
            &format!("volume {}", volume.name),
        );
        Ok(())
    }

    /// Serves what the catalog says: after a start, or after a crash between two steps of a change.
    pub(super) async fn open_volumes(&self) {
        if self.is_of_cluster() {
            return self.show_exports().await;
        }
        let catalog = self.manager().catalog();
        for volume in catalog.volumes() {
            if volume.state != VolumeState::Deleting {
                // What is wrong with it is an alert.
                let _ = self.open_volume(volume).await;
                continue;
            }
            // It is not opened for that: a disk that has dropped it already would get it back, with layers whose slots
            // may have been given to others since. Where none of its disks serves, it waits for them.
            if !matches!(self.health(&catalog, volume), Health::Failed(_))
                && let Err(error) = self.finish_deletion(volume).await
            {
                tracing::error!(volume = %volume.id, %error, "a deletion could not be ended");
            }
        }
        self.show_exports().await;
    }

    /// Has the shards serve a volume as the catalog says. Where it is served already, changes its size and name.
    async fn open_volume(&self, volume: &catalog::Volume) -> Result<(), ErrorBody> {
        let subject = format!("volume {}", volume.name);
        let opened = self.ask_to_open(volume, &subject).await;
        match &opened {
            Ok(()) => {
                self.registry().name_volume(volume.id, &volume.name);
                lock(&self.inner.unavailable).remove(&volume.id);
                self.alerts().clear(AlertKind::VolumeUnavailable, &subject);
            }
            Err(error) => {
                self.alerts().raise(
                    AlertKind::VolumeUnavailable,
                    &subject,
                    error.message.as_str(),
                );
                lock(&self.inner.unavailable).insert(volume.id, error.message.clone());
            }
        }
        opened
    }

    async fn ask_to_open(&self, volume: &catalog::Volume, subject: &str) -> Result<(), ErrorBody> {
        let catalog = self.manager().catalog();
        // Where a part of the disks serves, that part of the volume is served, and the rest answers with errors: a
        // guest's file system gets to what is there. Where none does, nobody should attach to find that out.
        if let Health::Failed(why) = self.health(&catalog, volume) {
            return Err(ErrorBody::io(format!("{subject}: {why}"), LOOK));
        }
        let pgs = catalog.placement(volume);
        let open = Control::OpenVolume {
            meta: pilot::meta(volume),
            pgs,
        };
        let done = self.runtime().control(open).await;
        done.map_err(|error| control_error(&error, subject))
    }

    /// Shows clients the volumes of the catalog.
    pub(super) async fn show_exports(&self) {
        self.set_exports_without(None).await;
    }

    async fn set_exports_without(&self, closing: Option<VolumeId>) {
        let _showing = self.inner.showing.lock().await;
        let catalog = self.manager().catalog();
        let unavailable = lock(&self.inner.unavailable).clone();
        let revoked = catalog.clients().filter(|(_, client)| client.revoked);
        let revoked: BTreeSet<&str> = revoked.map(|(name, _)| name).collect();
        let export = |volume: &catalog::Volume| {
            let (refused, is_away) = match volume.state {
                _ if closing == Some(volume.id) => (Some("it is being deleted".into()), false),
                VolumeState::Importing { .. } => (Some("it is being imported".into()), false),
                VolumeState::Deleting => (Some("it is being deleted".into()), false),
                VolumeState::Ready if self.is_of_cluster() => match self.find(&catalog, volume) {
                    Found::Here => (None, false),
                    Found::Away => (None, true),
                    Found::Refused(why) => (Some(why), false),
                },
                VolumeState::Ready => (unavailable.get(&volume.id).cloned(), false),
            };
            Export {
                name: volume.name.clone(),
                volume: volume.id,
                size: volume.size,
                block_size: volume.block_size,
                read_only: false,
                refused,
                is_away,
                clients: admitted(&volume.clients, &revoked),
            }
        };
        self.runtime()
            .set_exports(catalog.volumes().map(export).collect())
            .await;
    }

    /// A volume that can be used: it has all its data and is not on its way out.
    pub(super) fn ready_volume(&self, name: &str) -> Result<catalog::Volume, ErrorBody> {
        check_name("volume", name)?;
        let catalog = self.manager().catalog();
        let volume = catalog.volume_named(name)?;
        let why = match volume.state {
            VolumeState::Ready => return Ok(volume.clone()),
            VolumeState::Importing { .. } => "is being imported",
            VolumeState::Deleting => "is being deleted",
        };
        let hint =
            "an import ends with `sarsen volume import`, or is undone by `sarsen volume delete`";
        Err(ErrorBody::conflict(
            "name",
            format!("the volume {name} {why}"),
            hint,
        ))
    }
}

/// What a shard refused, in words; `subject` is what it was asked about.
pub(super) fn control_error(error: &ControlError, subject: &str) -> ErrorBody {
    use crate::store::StoreError;
    let (why, hint) = match error {
        ControlError::Store(StoreError::NoSpace) => {
            let message = format!("{subject}: the disk has no room for its records");
            let hint = "add a disk or delete volumes";
            return ErrorBody::new(crate::api::model::ErrorCode::Exhausted, "", message, hint);
        }
        ControlError::Store(StoreError::Damaged | StoreError::Torn) => {
            ("its records are damaged".into(), CHECK)
        }
        ControlError::Store(StoreError::DiskFailed) => ("its disk has failed".into(), LOOK),
        ControlError::Store(StoreError::ReadOnly) => ("its disk takes no writes".into(), LOOK),
        ControlError::Store(StoreError::Busy) => {
            let message = format!("{subject}: the same is under way there already");
            return ErrorBody::conflict("", message, "wait until it has ended, then try again");
        }
        ControlError::Store(StoreError::NotOpen) => ("its disk is not open".into(), LOOK),
        ControlError::Store(StoreError::NoSuchLayer) => ("its disk does not know it".into(), CHECK),
        ControlError::Store(StoreError::BadSize) => (
            "the size does not fit its disk".into(),
            "see `sarsen disk show`",
        ),
        ControlError::Open(error) => (error.to_string(), CHECK),
        ControlError::NoSuchVolume => ("it is not open".into(), "restart the daemon"),
        ControlError::NoSuchDisk => ("a disk that it lies on is not open".into(), LOOK),
        ControlError::OfCluster => ("its node is one of a cluster".into(), "attach it"),
    };
    ErrorBody::io(format!("{subject}: {why}"), hint)
}

pub(super) const LOOK: &str = "`sarsen alerts` and `sarsen disk list` say more";
const CHECK: &str = "stop the daemon and run `sarsen disk check PATH`";

impl From<ProposeError> for ErrorBody {
    fn from(error: ProposeError) -> ErrorBody {
        match error {
            ProposeError::Refused(refusal) => refusal.into(),
            ProposeError::Unavailable(why) => {
                let message = format!("the catalog takes no changes: {why}");
                ErrorBody::unavailable(message, "see the daemon's log")
            }
            ProposeError::Unknown(_) => ErrorBody::unavailable(
                error.to_string(),
                "look whether it is done before you repeat it; what is there and not served is served after a restart",
            ),
        }
    }
}

/// Who may use a volume of this list under TLS, as long as these clients are revoked: who is one of them and connected is cut off.
fn admitted(list: &catalog::NbdClients, revoked: &BTreeSet<&str>) -> Admits {
    match list {
        catalog::NbdClients::Nobody => Admits::Nobody,
        catalog::NbdClients::Anybody => {
            Admits::AllBut(revoked.iter().map(|name| (*name).to_owned()).collect())
        }
        catalog::NbdClients::Only(names) => {
            let left = names.iter().filter(|name| !revoked.contains(name.as_str()));
            Admits::Only(left.cloned().collect())
        }
    }
}
