//! Attachments in the API's words.

use super::FrontEnds;
use crate::api::host::{Host, lock};
use crate::api::model::{Attachment, AttachmentList, AttachmentState, FrontEnd};
use crate::protocol::catalog::{self, Catalog};
use crate::runtime::GuestState;

impl Host {
    /// By volume, the incoming one after the first.
    pub fn attachments(&self) -> AttachmentList {
        let catalog = self.manager().catalog();
        let all = catalog.attachments();
        let mut attachments: Vec<Attachment> =
            all.map(|one| self.view_attachment(&catalog, one)).collect();
        attachments.sort_by(|a, b| (&a.volume, a.key).cmp(&(&b.volume, b.key)));
        AttachmentList { attachments }
    }

    pub(in crate::api::host) fn attachments_of(
        &self,
        catalog: &Catalog,
        volume: &catalog::Volume,
    ) -> Vec<Attachment> {
        let (first, incoming) = catalog.attachments_of(volume.id);
        let both = first.into_iter().chain(incoming);
        let all = both.chain(catalog.shared_at(volume.id));
        all.map(|one| self.view_attachment(catalog, one)).collect()
    }

    pub(super) fn front_ends(&self) -> &FrontEnds {
        &self.inner.parts.front_ends
    }

    pub(super) fn view_attachment(
        &self,
        catalog: &Catalog,
        attachment: &catalog::Attachment,
    ) -> Attachment {
        let now = lock(&self.inner.attached.now).get(&attachment.key).cloned();
        let now = now.unwrap_or_default();
        let front_ends = &self.front_ends();
        let node = catalog.nodes().find(|node| node.id == attachment.node);
        let volume = catalog.volume(attachment.volume);
        let socket = attachment.front_end.socket();
        let guest = front_ends.guests.state(attachment.key.0);
        let (state, reason) = match (&attachment.front_end, now.failed, guest) {
            _ if attachment.node != self.inner.parts.node => (
                AttachmentState::Held,
                "another node's, which knows how it is".into(),
            ),
            (catalog::FrontEnd::None, _, _) => (AttachmentState::Held, String::new()),
            (_, Some(why), _) => (AttachmentState::Failed, why),
            (catalog::FrontEnd::VhostUser { .. }, None, None) => {
                (AttachmentState::Failed, "its socket is not served".into())
            }
            (_, None, Some(GuestState::Listening)) => (AttachmentState::Listening, String::new()),
            (_, None, Some(GuestState::Connected)) => (AttachmentState::Connected, String::new()),
            (_, None, Some(GuestState::Running)) => (AttachmentState::Running, String::new()),
            (_, None, None) if front_ends.devices.is_lost(attachment.key.0) => {
                (AttachmentState::Failed, "it is not served any more".into())
            }
            (_, None, None) => (AttachmentState::Serving, String::new()),
        };
        let (front_end, queues) = match attachment.front_end {
            catalog::FrontEnd::None => (FrontEnd::None, 0),
            catalog::FrontEnd::VhostUser { queues, .. } => (FrontEnd::VhostUser, queues),
            catalog::FrontEnd::Ublk { queues, .. } => (FrontEnd::Ublk, queues),
            catalog::FrontEnd::Nbd { queues, .. } => (FrontEnd::Nbd, queues),
        };
        let device = now.device.map(|path| path.display().to_string());
        Attachment {
            key: attachment.key.0,
            volume: volume.map(|volume| volume.name.clone()).unwrap_or_default(),
            node: node.map(|node| node.name.clone()).unwrap_or_default(),
            front_end,
            queues,
            socket: socket.map(str::to_owned),
            path: device.or_else(|| front_ends.sockets.path_of(socket?)),
            incoming: attachment.front_end.is_incoming(),
            state,
            reason,
        }
    }
}
