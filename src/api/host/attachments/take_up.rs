//! Taking up what the catalog wants: at the daemon's start, and again where it did not work.

use super::{Device, DeviceKind, Now};
use crate::api::host::{AlertKind, Host, Phase, lock};
use crate::api::model::ErrorBody;
use crate::base::VolumeId;
use crate::protocol::catalog::{self, Attachment, Catalog, Command, FrontEnd};
use crate::runtime::Guest;
use std::time::Duration;

/// How often what failed is tried again: about as often as QEMU tries to connect.
const AGAIN: Duration = Duration::from_secs(2);

impl Host {
    /// Serves every attachment of this node. One that cannot be is an alert; the others do not wait for it.
    pub async fn take_up_attachments(&self) {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        // What is only held has nothing that would have to be served.
        let own = |one: &&Attachment| {
            one.node == self.inner.parts.node && one.front_end != FrontEnd::None
        };
        let sockets = &self.front_ends().sockets;
        sockets.retain(|key| catalog.attachment(key).is_some());
        let handed = &self.front_ends().handed;
        let mut wanted: Vec<_> = catalog.attachments().filter(own).collect();
        // Of two guests of one volume the one whose rings ran is the one that goes on.
        wanted.sort_by_key(|attachment| !handed.ran(attachment.key.0));
        for attachment in wanted {
            self.take_up(&catalog, attachment).await;
        }
        handed.close();
    }

    /// Tries again what failed, for as long as the daemon runs.
    pub async fn watch_attachments(&self) {
        loop {
            tokio::time::sleep(AGAIN).await;
            if self.phase() == Phase::Serving {
                self.look_after_attachments().await;
            }
        }
    }

    pub(in crate::api::host) async fn look_after_attachments(&self) {
        let _changing = self.inner.changing.lock().await;
        let catalog = self.manager().catalog();
        self.end_what_was_taken_over(&catalog).await;
        let own = |one: &&Attachment| one.node == self.inner.parts.node;
        for attachment in catalog.attachments().filter(own) {
            let now = lock(&self.inner.attached.now).get(&attachment.key).cloned();
            let Some(now) = now else { continue };
            if now.failed.is_some() || self.is_lost(attachment) {
                self.take_up(&catalog, attachment).await;
            } else if now.resize_due {
                self.tell_device_of_size(&catalog, attachment).await;
            }
        }
    }

    /// Ends what is served here and is another node's by now: that one has taken it over. Nothing of it can have been carried out here since.
    async fn end_what_was_taken_over(&self, catalog: &Catalog) {
        let keys: Vec<_> = lock(&self.inner.attached.now).keys().copied().collect();
        for key in keys {
            if catalog.attachment(key).is_some() {
                continue;
            }
            tracing::warn!(%key, "an attachment of this node was taken over by another one");
            let front_ends = self.front_ends();
            let ended = match front_ends.guests.state(key.0) {
                Some(_) => front_ends.guests.end(key.0, true).await,
                None => front_ends.devices.stop(key.0, true).await,
            };
            if let Err(why) = ended {
                tracing::warn!(%key, why, "what served it did not end well");
            }
            lock(&self.inner.attached.now).remove(&key);
        }
        let sockets = &self.front_ends().sockets;
        sockets.retain(|key| catalog.attachment(key).is_some());
    }

    /// Tells what serves a volume that it has another size. Guests learn it by the exports.
    pub(in crate::api::host) async fn resized_attachment(
        &self,
        catalog: &Catalog,
        volume: VolumeId,
    ) {
        let own = catalog.attached_at(volume, self.inner.parts.node);
        if let Some(own) = own.filter(|own| own.front_end.is_device()) {
            self.tell_device_of_size(catalog, own).await;
        }
    }

    /// Starts what serves an attachment.
    pub(super) async fn start_attachment(&self, attachment: &Attachment) -> Result<(), ErrorBody> {
        let front_ends = &self.front_ends();
        let device = match &attachment.front_end {
            FrontEnd::None => None,
            FrontEnd::VhostUser {
                socket,
                queues,
                incoming,
            } => {
                let guest = Guest {
                    key: attachment.key.0,
                    volume: attachment.volume,
                    listener: front_ends.sockets.open(attachment.key, socket)?,
                    queues: *queues,
                    incoming: *incoming,
                    handed: front_ends.handed.take(attachment.key.0),
                };
                let served = front_ends.guests.serve(guest).await;
                served.map_err(|why| ErrorBody::unavailable(why, ""))?;
                None
            }
            FrontEnd::Ublk { device, queues } | FrontEnd::Nbd { device, queues } => {
                let wanted = Device {
                    key: attachment.key.0,
                    volume: attachment.volume,
                    kind: match attachment.front_end {
                        FrontEnd::Ublk { .. } => DeviceKind::Ublk,
                        _ => DeviceKind::Nbd,
                    },
                    number: *device,
                    queues: *queues,
                };
                let started = front_ends.devices.start(wanted).await;
                let started = started.map_err(|why| ErrorBody::unavailable(why, ""))?;
                if *device != Some(started.number) {
                    self.record_device(attachment, started.number).await?;
                }
                Some(started.path)
            }
        };
        let now = Now {
            device,
            ..Now::default()
        };
        lock(&self.inner.attached.now).insert(attachment.key, now);
        Ok(())
    }

    /// Notes that an attachment is not served, and why.
    pub(super) fn attachment_failed(&self, catalog: &Catalog, attachment: &Attachment, why: &str) {
        let mut now = lock(&self.inner.attached.now);
        now.entry(attachment.key).or_default().failed = Some(why.to_owned());
        drop(now);
        let reason = format!("{}: {why}", attachment.front_end);
        let subject = subject(catalog, attachment);
        self.alerts()
            .raise(AlertKind::AttachmentFailed, &subject, reason);
    }

    async fn take_up(&self, catalog: &Catalog, attachment: &Attachment) {
        let started = async {
            // When it comes, it is tried again.
            self.comes_here(attachment.volume, Duration::ZERO).await?;
            self.start_attachment(attachment).await
        };
        match started.await {
            Ok(()) => {
                let (volume, key) = (attachment.volume, attachment.key);
                tracing::info!(%volume, %key, front_end = %attachment.front_end, "taken up");
                let subject = subject(catalog, attachment);
                self.alerts().clear(AlertKind::AttachmentFailed, &subject);
                if attachment.front_end.is_device() {
                    // The volume may have been resized while nobody told its device.
                    self.tell_device_of_size(catalog, attachment).await;
                }
            }
            Err(error) => self.attachment_failed(catalog, attachment, &error.message),
        }
    }

    /// Whether what was served is not any more.
    fn is_lost(&self, attachment: &Attachment) -> bool {
        let key = attachment.key.0;
        match attachment.front_end {
            FrontEnd::None => false,
            FrontEnd::VhostUser { .. } => self.front_ends().guests.state(key).is_none(),
            FrontEnd::Ublk { .. } | FrontEnd::Nbd { .. } => self.front_ends().devices.is_lost(key),
        }
    }

    /// Remembers which device it is; a device that would be forgotten is not left behind.
    async fn record_device(&self, attachment: &Attachment, device: u32) -> Result<(), ErrorBody> {
        let key = attachment.key;
        let recorded = self
            .manager()
            .propose(Command::RecordDevice { key, device })
            .await;
        let Err(error) = recorded else { return Ok(()) };
        let stopped = self.front_ends().devices.stop(key.0, true).await;
        if let Err(why) = stopped {
            tracing::error!(%key, device, why, "a device that nobody will remember is left behind");
        }
        Err(error.into())
    }

    async fn tell_device_of_size(&self, catalog: &Catalog, attachment: &Attachment) {
        let told = self.front_ends().devices.resized(attachment.volume).await;
        if let Some(now) = lock(&self.inner.attached.now).get_mut(&attachment.key) {
            now.resize_due = told.is_err();
        }
        let subject = subject(catalog, attachment);
        match told {
            Ok(()) => self.alerts().clear(AlertKind::DeviceNotResized, &subject),
            Err(why) => {
                let reason = format!("{}: {why}", attachment.front_end);
                self.alerts()
                    .raise(AlertKind::DeviceNotResized, &subject, reason);
            }
        }
    }
}

/// What an alert about an attachment is about.
fn subject(catalog: &Catalog, attachment: &catalog::Attachment) -> String {
    let volume = catalog.volume(attachment.volume);
    let name = volume.map_or_else(
        || attachment.volume.to_string(),
        |volume| volume.name.clone(),
    );
    format!("volume {name}")
}
