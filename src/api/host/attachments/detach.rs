//! Detaching: first nobody serves it any more, then it is not wanted any more.

use super::FrontEnds;
use crate::api::host::cluster::name_of;
use crate::api::host::{AlertKind, Host, lock};
use crate::api::model::{Detach, ErrorBody};
use crate::base::NodeId;
use crate::protocol::catalog::{self, Catalog, Command, check_name};

impl Host {
    pub async fn detach(&self, name: &str, detach: Detach) -> Result<(), ErrorBody> {
        let _changing = self.inner.changing.lock().await;
        check_name("volume", name)?;
        let catalog = self.manager().catalog();
        let attachment = wanted(&catalog, name, self.inner.parts.node, detach)?.clone();
        if attachment.node != self.inner.parts.node {
            let node = name_of(&catalog, attachment.node);
            let message = format!("the volume {name} is attached to node {node}");
            return Err(ErrorBody::conflict("name", message, "say it on that node"));
        }
        self.stop_attachment(&attachment, detach.force).await?;
        let command = Command::Detach {
            volume: attachment.volume,
            key: Some(attachment.key),
        };
        if let Err(error) = self.manager().propose(command).await {
            // It is wanted and not served: the watch takes it up again.
            self.attachment_failed(&catalog, &attachment, "it could not be detached");
            return Err(error.into());
        }
        self.forget_attachment(&attachment);
        // The one that takes its place may have an alert of its own; it raises it again.
        for kind in [AlertKind::AttachmentFailed, AlertKind::DeviceNotResized] {
            self.alerts().clear(kind, &format!("volume {name}"));
        }
        tracing::info!(volume = name, key = %attachment.key, front_end = %attachment.front_end, "detached");
        Ok(())
    }

    /// Ends what serves an attachment.
    async fn stop_attachment(
        &self,
        attachment: &catalog::Attachment,
        force: bool,
    ) -> Result<(), ErrorBody> {
        let key = attachment.key.0;
        let FrontEnds {
            guests, devices, ..
        } = self.front_ends();
        let served = lock(&self.inner.attached.now)
            .get(&attachment.key)
            .is_some_and(|now| now.failed.is_none());
        let stopped = if attachment.front_end.is_device() {
            devices.stop(key, force).await
        } else if guests.state(key).is_some() {
            guests.end(key, force).await
        } else {
            Ok(())
        };
        match stopped {
            Ok(()) => Ok(()),
            // What never worked cannot be ended in good order either, and must still be possible to get rid of.
            Err(why) if !served || force => {
                tracing::warn!(
                    key,
                    why,
                    "an attachment ends though what served it did not end well"
                );
                Ok(())
            }
            Err(why) => {
                let hint = "end its use first, or say --force: whoever uses it will see I/O errors";
                Err(ErrorBody::conflict("name", why, hint))
            }
        }
    }

    /// Forgets what is known of an attachment that is not wanted any more.
    pub(super) fn forget_attachment(&self, attachment: &catalog::Attachment) {
        if let Some(socket) = attachment.front_end.socket() {
            self.front_ends().sockets.close(attachment.key, socket);
        }
        lock(&self.inner.attached.now).remove(&attachment.key);
    }
}

/// The attachment that is meant: where there are several, this node's.
fn wanted<'a>(
    catalog: &'a Catalog,
    name: &str,
    node: NodeId,
    detach: Detach,
) -> Result<&'a catalog::Attachment, ErrorBody> {
    let volume = catalog.volume_named(name)?;
    let (first, incoming) = catalog.attachments_of(volume.id);
    let (found, what) = match detach.incoming {
        false => {
            let here = catalog.attached_at(volume.id, node);
            (here.or(first), "is not attached")
        }
        true => (incoming, "has no incoming attachment"),
    };
    found.ok_or_else(|| {
        let hint = "`sarsen attachments` shows what is attached";
        ErrorBody::conflict("name", format!("the volume {name} {what}"), hint)
    })
}
