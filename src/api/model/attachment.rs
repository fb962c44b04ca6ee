//! Attachments: volumes that are disks of guests, or devices of the host.

use serde::{Deserialize, Serialize};

/// What a volume is attached through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrontEnd {
    /// A guest's disk, by a vhost-user socket.
    VhostUser,
    /// A device of the host, by ublk where the kernel has it, else by nbd. Only in requests.
    Device,
    /// A device of the host, by the kernel's ublk.
    Ublk,
    /// A device of the host, by the kernel's nbd.
    Nbd,
    /// Nothing serves it; so are attachments of the first builds. Only in answers.
    None,
}

/// `POST /v1/volumes/NAME/attach`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    pub front_end: FrontEnd,
    /// Of `vhost_user`: an absolute path, or `fd:NAME` for a socket that the daemon inherits. Without it, the
    /// daemon makes one in the folder that its configuration names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// 1 to 128; without it, one for each shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// Of `vhost_user`: the second socket, to which a guest migrates that uses the first.
    #[serde(default)]
    pub incoming: bool,
    /// In a cluster: where the volume is attached to a node that does not answer, take it from there. It is served here when that node's lease has ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub take_over: bool,
}

fn is_false(said: &bool) -> bool {
    !said
}

/// Where an attachment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentState {
    /// A guest may connect.
    Listening,
    /// QEMU is connected, and no driver uses the disk.
    Connected,
    /// A guest's driver uses the disk.
    Running,
    /// The device is there.
    Serving,
    /// It should be served, and is not; the reason says why. It is tried again.
    Failed,
    /// Nothing is to serve it.
    Held,
}

/// An attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Never used again for another.
    pub key: u64,
    pub volume: String,
    pub node: String,
    pub front_end: FrontEnd,
    pub queues: u16,
    /// Of `vhost_user`, as it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// What a client opens: the path of the socket, or the device. Not there where it is not known (yet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether a guest is to arrive here that still runs at the volume's first socket.
    pub incoming: bool,
    pub state: AttachmentState,
    /// Why it is `failed`; empty else.
    pub reason: String,
}

/// `GET /v1/attachments`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentList {
    pub attachments: Vec<Attachment>,
}

/// The parameters of `DELETE /v1/volumes/NAME/attach`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detach {
    /// Also while it is used: a guest loses its disk, a file system its device.
    #[serde(default)]
    pub force: bool,
    /// The second socket, of a migration that was given up.
    #[serde(default)]
    pub incoming: bool,
}
