//! Attaching: wanted first, then served; what cannot be served is not wanted any more.

use super::DeviceKind;
use crate::api::host::Host;
use crate::api::host::cluster::name_of;
use crate::api::model::{Attach, Attachment, ErrorBody, FrontEnd};
use crate::protocol::catalog::{self, Catalog, Command, Event, QUEUES_MAX, Sharing, check_name};
use std::time::Duration;

/// How long it may take until this node has the volume.
const WITHIN: Duration = Duration::from_secs(10);

impl Host {
    pub async fn attach(&self, name: &str, attach: Attach) -> Result<Attachment, ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        check_name("volume", name)?;
        let catalog = self.manager().catalog();
        let volume = catalog.volume_named(name)?;
        self.come_from_elsewhere(&catalog, volume, &attach).await?;
        let first = catalog.attachments_of(volume.id).0;
        let taken = first.is_some_and(|first| first.front_end != catalog::FrontEnd::None);
        let front_end = self.front_end(name, &attach, taken)?;
        let command = Command::Attach {
            volume: volume.id,
            node: self.inner.parts.node,
            front_end,
        };
        let events = self.manager().propose(command).await?;
        let Some(Event::Attached { attachment }) = events.into_iter().next() else {
            let message = "the catalog did not say what it attached";
            return Err(ErrorBody::unavailable(message, "see `sarsen attachments`"));
        };
        let started = async {
            self.comes_here(attachment.volume, WITHIN).await?;
            self.start_attachment(&attachment).await
        };
        if let Err(error) = started.await {
            self.take_back(&attachment).await;
            return Err(error);
        }
        tracing::info!(volume = name, key = %attachment.key, front_end = %attachment.front_end, "attached");
        let catalog = self.manager().catalog();
        // With the device's number, which came after the event.
        let now = catalog.attachment(attachment.key).unwrap_or(&attachment);
        Ok(self.view_attachment(&catalog, now))
    }

    /// Takes a volume from the node that it is attached to, where that has it for nobody any more, or does not answer and this is asked for.
    async fn come_from_elsewhere(
        &self,
        catalog: &Catalog,
        volume: &catalog::Volume,
        &Attach {
            incoming,
            take_over,
            ..
        }: &Attach,
    ) -> Result<(), ErrorBody> {
        let me = self.inner.parts.node;
        let (first, _) = catalog.attachments_of(volume.id);
        let Some(first) = first.filter(|first| first.node != me) else {
            return Ok(());
        };
        if volume.sharing == Sharing::Shared || incoming {
            return Ok(());
        }
        let (name, node) = (&volume.name, name_of(catalog, first.node));
        if !self.is_silent(first.node) {
            self.wait_until_let_go(volume.id).await;
            let now = self.manager().catalog();
            if now
                .attachments_of(volume.id)
                .0
                .is_none_or(|of| of.node == me)
            {
                return Ok(());
            }
            let message = format!("the volume {name} is attached to node {node}, which answers");
            let hint = "detach it there first";
            return Err(ErrorBody::conflict("name", message, hint));
        }
        if !take_over {
            let message =
                format!("the volume {name} is attached to node {node}, which does not answer");
            let hint = "`--take-over` takes it from there when that node's lease has ended";
            return Err(ErrorBody::conflict("name", message, hint));
        }
        tracing::warn!(volume = %name, node, "a volume is taken over from a node that does not answer");
        let command = Command::Detach {
            volume: volume.id,
            key: Some(first.key),
        };
        self.manager().propose(command).await?;
        Ok(())
    }

    /// What was asked for, with everything that was left open.
    fn front_end(
        &self,
        name: &str,
        attach: &Attach,
        taken: bool,
    ) -> Result<catalog::FrontEnd, ErrorBody> {
        let shards = u16::try_from(self.runtime().shards()).unwrap_or(QUEUES_MAX);
        let queues = attach.queues.unwrap_or(shards.clamp(1, QUEUES_MAX));
        let for_guests = |field: &str| {
            let message = format!("only a guest's disk has {field}");
            Err(ErrorBody::invalid(
                field,
                message,
                "leave it out, or use vhost_user",
            ))
        };
        if attach.front_end != FrontEnd::VhostUser {
            if attach.socket.is_some() {
                return for_guests("socket");
            }
            if attach.incoming {
                return for_guests("incoming");
            }
        }
        let kind = match attach.front_end {
            FrontEnd::VhostUser => {
                let sockets = &self.front_ends().sockets;
                let socket = attach.socket.clone();
                return Ok(catalog::FrontEnd::VhostUser {
                    socket: socket.unwrap_or_else(|| sockets.path_for(name)),
                    queues,
                    incoming: attach.incoming,
                });
            }
            // The catalog will refuse it, which says more than what the kernel has.
            FrontEnd::Device if taken => DeviceKind::Ublk,
            FrontEnd::Device => {
                let best = self.front_ends().devices.best_kind();
                best.map_err(|why| ErrorBody::unavailable(why, ""))?
            }
            FrontEnd::Ublk => DeviceKind::Ublk,
            FrontEnd::Nbd => DeviceKind::Nbd,
            FrontEnd::None => {
                let hint = "use vhost_user, device, ublk or nbd";
                return Err(ErrorBody::invalid(
                    "front_end",
                    "nothing would serve it",
                    hint,
                ));
            }
        };
        let device = None;
        Ok(match kind {
            DeviceKind::Ublk => catalog::FrontEnd::Ublk { device, queues },
            DeviceKind::Nbd if attach.front_end == FrontEnd::Nbd && attach.queues > Some(1) => {
                let message = "the kernel's nbd is served by one connection";
                let hint = "leave it out, or use ublk";
                return Err(ErrorBody::invalid("queues", message, hint));
            }
            DeviceKind::Nbd => catalog::FrontEnd::Nbd { device, queues: 1 },
        })
    }

    /// Undoes the proposal of an attachment that could not be started.
    async fn take_back(&self, attachment: &catalog::Attachment) {
        self.forget_attachment(attachment);
        let command = Command::Detach {
            volume: attachment.volume,
            key: Some(attachment.key),
        };
        if let Err(error) = self.manager().propose(command).await {
            // It stays wanted, and will be taken up at the next start or shown as failed until then.
            tracing::error!(key = %attachment.key, %error, "a failed attachment could not be taken back");
        }
    }
}
