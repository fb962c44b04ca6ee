//! Commands about attachments: volumes that are wanted on a node, and what serves them there.
//!
//! A volume has one attachment. During a live migration of a guest it has one more, the *incoming* one: the socket
//! of the process that the guest moves to. When the first is detached, the incoming one takes its place; where the
//! migration is given up, the incoming one is detached by its key.
//!
//! A shared volume has one more at each other node that uses it. Where the first is detached and nothing comes in, the one at the lowest of
//! those nodes is the first from then on.
//!
//! An attachment without a front end *holds* the volume: a node uses it itself, for who comes by NBD or over the API, for as long as they are there. Any other
//! attachment at that node takes its place; at another node it is as good as any.
//!
//! The catalog knows what is wanted, not whether it works: the host starts and stops what serves an attachment.

use super::index::Place;
use super::state::{Attachment, AttachmentKey, FrontEnd, Sharing, Volume, VolumeState};
use super::volume::{no_volume, not_ready};
use super::{Catalog, Code, Event, QUEUES_MAX, Refusal};
use crate::base::{NodeId, VolumeId};

/// The longest path of a unix socket, in bytes (`sun_path` less its end).
const SOCKET_BYTES_MAX: usize = 107;
/// The longest name of an inherited socket, in bytes: what systemd takes.
const FD_NAME_BYTES_MAX: usize = 255;
/// What a socket's name begins with that the daemon inherits instead of making it.
const INHERITED: &str = "fd:";

impl Catalog {
    pub(super) fn attach(
        &mut self,
        id: VolumeId,
        node: NodeId,
        front_end: &FrontEnd,
    ) -> Result<Vec<Event>, Refusal> {
        let volume = self.volume(id).ok_or_else(|| no_volume(id))?;
        let is_usable = match volume.state {
            VolumeState::Ready => true,
            // Who fills it has to hold it.
            VolumeState::Importing { .. } => *front_end == FrontEnd::None,
            VolumeState::Deleting => false,
        };
        if !is_usable {
            return Err(not_ready(volume));
        }
        self.known_node(node)?;
        if let Some(held) = self.attachments.get(&id).filter(|held| {
            (held.node, &held.front_end, front_end) == (node, &FrontEnd::None, &FrontEnd::None)
        }) {
            // The first builds took this twice, and their logs must be readable.
            let attachment = held.clone();
            return Ok(vec![Event::Attached { attachment }]);
        }
        check_front_end(front_end)?;
        self.check_place(volume, node, front_end)?;
        if let Some(socket) = front_end.socket() {
            self.check_socket_is_free(node, socket)?;
        }
        let mut attachment = Attachment {
            key: AttachmentKey(self.next.attachment),
            volume: id,
            node,
            front_end: front_end.clone(),
        };
        let first = self.attachments.get(&id).map(|first| first.node);
        if first.is_some_and(|first| first != node) {
            // The range goes to who asks, so it is one like any other.
            attachment.front_end.arrive();
        }
        self.next.attachment += 1;
        let held = self.attached_at(id, node).filter(|one| is_held(one));
        if let Some(node) = held.map(|held| held.node) {
            let place = match first == Some(node) {
                true => Place::First,
                false => Place::Shared(node),
            };
            self.put_attachment(place, attachment.clone());
            return Ok(vec![Event::Attached { attachment }]);
        }
        let place = match first {
            Some(first) if first != node => Place::Shared(node),
            _ if front_end.is_incoming() => Place::Incoming,
            _ => Place::First,
        };
        self.put_attachment(place, attachment.clone());
        Ok(vec![Event::Attached { attachment }])
    }

    /// Ends the attachment with this key, or without one the volume's first.
    pub(super) fn detach(
        &mut self,
        id: VolumeId,
        key: Option<AttachmentKey>,
    ) -> Result<Vec<Event>, Refusal> {
        let first = self.attachments.get(&id);
        let is_first = first.is_some_and(|first| key.is_none_or(|key| key == first.key));
        let second = self.incoming.get(&id);
        let is_second = second.is_some_and(|second| Some(second.key) == key);
        if is_first {
            self.drop_attachment(Place::First, id);
            let mut events = vec![Event::Detached { volume: id }];
            if let Some(mut moved) = self.drop_attachment(Place::Incoming, id) {
                moved.front_end.arrive();
                self.put_attachment(Place::First, moved.clone());
                events.push(Event::Attached { attachment: moved });
            } else {
                let next = self.shared_at(id).next().map(|next| next.node);
                let next = next.and_then(|node| self.drop_attachment(Place::Shared(node), id));
                if let Some(next) = next {
                    self.put_attachment(Place::First, next);
                }
            }
            return Ok(events);
        }
        let of_key = self.shared_at(id).find(|one| Some(one.key) == key);
        if let Some(node) = of_key.map(|one| one.node) {
            self.drop_attachment(Place::Shared(node), id);
            return Ok(vec![Event::Detached { volume: id }]);
        }
        if is_second {
            self.drop_attachment(Place::Incoming, id);
            return Ok(vec![Event::Detached { volume: id }]);
        }
        let named = self.volume(id).map_or_else(
            || format!("volume {id}"),
            |volume| format!("the volume {}", volume.name),
        );
        let reason = match key {
            None => format!("{named} is not attached"),
            Some(key) => format!("{named} has no attachment {key}"),
        };
        let hint = "`sarsen attachments` shows what is attached";
        Err(Refusal::not_found("volume", reason, hint))
    }

    /// Remembers which device of the host serves an attachment, so that a restart takes the same one.
    pub(super) fn record_device(
        &mut self,
        key: AttachmentKey,
        device: u32,
    ) -> Result<Vec<Event>, Refusal> {
        // An incoming one is no device.
        match self.attachment(key).cloned() {
            Some(mut attachment) if attachment.front_end.is_device() => {
                attachment.front_end.set_device(device);
                let first = self.attachments.get(&attachment.volume);
                let place = match first.is_some_and(|first| first.key == key) {
                    true => Place::First,
                    false => Place::Shared(attachment.node),
                };
                self.put_attachment(place, attachment.clone());
                Ok(vec![Event::Attached { attachment }])
            }
            _ => {
                let reason = format!("there is no device with the key {key}");
                let hint = "`sarsen attachments` shows what is attached";
                Err(Refusal::not_found("key", reason, hint))
            }
        }
    }

    /// Whether the volume has a place for another attachment of this kind.
    fn check_place(&self, volume: &Volume, node: NodeId, wanted: &FrontEnd) -> Result<(), Refusal> {
        let name = &volume.name;
        let held = self.attached_at(volume.id, node).is_some_and(is_held);
        if held && !wanted.is_incoming() {
            return Ok(());
        }
        let Some(first) = self.attachments.get(&volume.id) else {
            if wanted.is_incoming() {
                let reason = format!("{name} is not attached, so no guest can move away from it");
                let hint = "attach it without --incoming";
                return Err(Refusal::conflict("incoming", reason, hint));
            }
            return Ok(());
        };
        if first.node != node {
            return self.check_other_node(volume, first, node, wanted);
        }
        if volume.sharing == Sharing::Exclusive && self.is_shared(volume) {
            let reason = format!("a guest moves with {name} to another node");
            let hint = "wait until it is there, or detach it there first";
            return Err(Refusal::conflict("name", reason, hint));
        }
        if !wanted.is_incoming() {
            let reason = format!("{name} is attached already: {}", first.front_end);
            let hint = match (&first.front_end, wanted) {
                (FrontEnd::VhostUser { .. }, FrontEnd::VhostUser { .. }) => {
                    "detach it first; for a live migration attach the second socket with --incoming"
                }
                _ => "detach it first",
            };
            return Err(Refusal::conflict("name", reason, hint));
        }
        if !matches!(first.front_end, FrontEnd::VhostUser { .. }) {
            let reason = format!("{name} is attached as {}", first.front_end);
            let hint = "only a guest's disk (--vhost-user) migrates; detach it first";
            return Err(Refusal::conflict("incoming", reason, hint));
        }
        if let Some(second) = self.incoming.get(&volume.id) {
            let reason = format!("{name} has an incoming one already: {}", second.front_end);
            let hint = "use that, or take it back with `sarsen detach --incoming`";
            return Err(Refusal::conflict("incoming", reason, hint));
        }
        Ok(())
    }

    /// The same where another node has the volume attached.
    fn check_other_node(
        &self,
        volume: &Volume,
        first: &Attachment,
        node: NodeId,
        wanted: &FrontEnd,
    ) -> Result<(), Refusal> {
        let (name, of) = (&volume.name, first.node);
        let (field, reason, hint) = if self
            .attached_at(volume.id, node)
            .is_some_and(|one| !is_held(one))
        {
            let reason = format!("{name} is attached to node {node} already");
            ("name", reason, "detach it there first")
        } else if volume.sharing == Sharing::Shared {
            return Ok(());
        } else if !wanted.is_incoming() {
            let hint = match first.front_end {
                FrontEnd::VhostUser { .. } => {
                    "detach it there first; to migrate its guest attach it here with --incoming"
                }
                _ => "detach it there first",
            };
            ("name", format!("{name} is attached to node {of}"), hint)
        } else if first.front_end.socket().is_none() {
            let reason = format!("{name} is attached to node {of} as {}", first.front_end);
            let hint = "only a guest's disk (--vhost-user) migrates; detach it there first";
            ("incoming", reason, hint)
        } else if self.is_shared(volume) || self.incoming.contains_key(&volume.id) {
            let hint = "wait until it is there, or detach it there first";
            (
                "incoming",
                format!("a guest moves with {name} already"),
                hint,
            )
        } else {
            return Ok(());
        };
        Err(Refusal::conflict(field, reason, hint))
    }

    fn check_socket_is_free(&self, node: NodeId, socket: &str) -> Result<(), Refusal> {
        let sockets = self.index.sockets.get(&node);
        let Some(other) = sockets.and_then(|sockets| sockets.get(socket)) else {
            return Ok(());
        };
        let by = self.volume(*other);
        let by = by.map_or_else(|| other.to_string(), |volume| volume.name.clone());
        let reason = format!("{socket} is the socket of {by} already");
        let hint = "name another socket, or detach that volume first";
        Err(Refusal::new(Code::Exists, "socket", reason, hint))
    }
}

/// Whether it gives its place to another one of its node.
fn is_held(attachment: &Attachment) -> bool {
    attachment.front_end == FrontEnd::None
}

fn check_front_end(front_end: &FrontEnd) -> Result<(), Refusal> {
    let queues = match front_end {
        // It only holds the volume: nothing to check.
        FrontEnd::None => return Ok(()),
        FrontEnd::VhostUser { socket, queues, .. } => {
            check_socket(socket)?;
            *queues
        }
        FrontEnd::Ublk { queues, .. } | FrontEnd::Nbd { queues, .. } => *queues,
    };
    if !(1..=QUEUES_MAX).contains(&queues) {
        let reason = format!("{queues} queues are not in 1..={QUEUES_MAX}");
        let hint = "as many as the guest has CPUs are enough";
        return Err(Refusal::invalid("queues", reason, hint));
    }
    Ok(())
}

fn check_socket(socket: &str) -> Result<(), Refusal> {
    let reason = if let Some(name) = socket.strip_prefix(INHERITED) {
        let odd = |c: char| !c.is_ascii() || c.is_ascii_control() || c == ':';
        if name.is_empty() || name.len() > FD_NAME_BYTES_MAX || name.contains(odd) {
            format!("{name:?} cannot be the name of an inherited socket")
        } else {
            return Ok(());
        }
    } else if !socket.starts_with('/') {
        format!("{socket:?} is not an absolute path")
    } else if socket.len() > SOCKET_BYTES_MAX {
        format!(
            "the path has {} bytes, and a socket's at most {SOCKET_BYTES_MAX}",
            socket.len()
        )
    } else if socket.chars().any(char::is_control) {
        format!("{socket:?} has a control character")
    } else if socket[1..]
        .split('/')
        .any(|part| matches!(part, "" | "." | ".."))
    {
        // One socket has one name, or two attachments could have the same.
        format!("{socket:?} is not the plain form of a path")
    } else {
        return Ok(());
    };
    let hint = "name a socket like /run/sarsen/vhost/vm1.sock, or fd:NAME for one that the daemon inherits";
    Err(Refusal::invalid("socket", reason, hint))
}
