//! What the control plane has shards serve besides listening sockets: connections and queues of this host's kernel.

use super::exports::Admits;
use super::handle::Handle;
use super::mailbox::Mail;
use crate::base::VolumeId;
use crate::io::Descriptors;
use crate::shard::ShardNo;
use std::fmt;
use std::os::fd::OwnedFd;
use tokio::sync::oneshot;

/// A queue of a ublk device.
#[derive(Debug)]
pub struct Queue {
    pub volume: VolumeId,
    /// The character device.
    pub device: OwnedFd,
    /// Which of the device's queues.
    pub number: u16,
    /// Its tags.
    pub depth: u16,
    pub descriptors: Descriptors,
}

/// A client of NBD that came under TLS: who it is, and what was agreed on before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// Its name, which its certificate has proven.
    pub client: String,
    /// Why it may attach nothing, for a person; `None` where it may what volumes' lists say.
    pub refused: Option<String>,
    /// Whether the padding behind the answer to `EXPORT_NAME` is waived.
    pub no_zeroes: bool,
}

impl Visitor {
    /// Why it may not attach what is for these clients.
    pub(super) fn refused_by(&self, clients: &Admits) -> Option<&str> {
        let not_listed =
            "this client is not on the volume's list: `sarsen volume set NAME --clients`";
        let listed = clients.admits(&self.client);
        self.refused
            .as_deref()
            .or_else(|| (!listed).then_some(not_listed))
    }
}

/// Why something is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServeError {
    /// The volume is not open here.
    NoSuchVolume,
    /// The process may not open more files.
    TooManyFiles,
    /// The shard has as many as it can.
    Full,
    /// The kernel takes no commands.
    NoRoom,
    Stopped,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ServeError::NoSuchVolume => "the volume is not open",
            ServeError::TooManyFiles => "too many files are open: raise RLIMIT_NOFILE",
            ServeError::Full => "the shard serves as many as it can: raise `shards`",
            ServeError::NoRoom => "the shard's ring takes no commands",
            ServeError::Stopped => "the shards have stopped",
        })
    }
}

impl std::error::Error for ServeError {}

/// Tells when something that is served has ended: it is closed, and nothing of it is in flight.
#[derive(Debug)]
pub struct Ended(oneshot::Receiver<()>);

impl Ended {
    pub async fn wait(&mut self) {
        // Nothing is ever sent: that the other end is dropped is what is waited for.
        let _ = (&mut self.0).await;
    }
}

impl Handle {
    /// Serves a connection of the kernel's nbd. `place` says which of the device's it is: they are
    /// spread over the shards that have the volume.
    pub async fn serve_connected(
        &self,
        volume: VolumeId,
        place: usize,
        socket: OwnedFd,
    ) -> Result<Ended, ServeError> {
        let shard = self.shard_for(volume, place)?;
        let (ended, end) = oneshot::channel();
        let mail = |done| Mail::Connected {
            socket,
            volume,
            ended,
            done,
        };
        let served = self.ask_shard(shard, mail).await;
        served.unwrap_or(Err(ServeError::Stopped))?;
        Ok(Ended(end))
    }

    /// Serves a client whose TLS is done elsewhere: its clear bytes come over `socket`. They are spread over the shards by their number.
    pub async fn serve_visitor(
        &self,
        number: usize,
        socket: OwnedFd,
        visitor: Visitor,
    ) -> Result<(), ServeError> {
        let shard = ShardNo((number % self.shards()) as u16);
        let visitor = Box::new(visitor);
        let mail = |done| Mail::Visitor {
            socket,
            visitor,
            done,
        };
        let served = self.ask_shard(shard, mail).await;
        served.unwrap_or(Err(ServeError::Stopped))
    }

    /// Serves a queue of a ublk device: all its commands go out before this returns.
    pub async fn serve_queue(&self, queue: Queue) -> Result<Ended, ServeError> {
        let shard = self.shard_for(queue.volume, usize::from(queue.number))?;
        let (ended, end) = oneshot::channel();
        let queue = Box::new(queue);
        let mail = |done| Mail::Queue { queue, ended, done };
        let served = self.ask_shard(shard, mail).await;
        served.unwrap_or(Err(ServeError::Stopped))?;
        Ok(Ended(end))
    }

    fn shard_for(&self, volume: VolumeId, place: usize) -> Result<ShardNo, ServeError> {
        let shards = self.shared.places.shards_of(volume);
        let shards = shards.filter(|shards| !shards.is_empty());
        let shards = shards.ok_or(ServeError::NoSuchVolume)?;
        Ok(shards[place % shards.len()])
    }
}
