//! Starts the shard threads.

use super::handle::{Config, Line, Shared};
use super::mailbox::{Mailbox, mailbox};
use crate::base::DiskId;
use crate::observe::Registry;
use crate::store::Note;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Starts a thread for each shard.
pub(super) fn start(
    config: &Config,
    _registry: Arc<Registry>,
    _notes: mpsc::Sender<(DiskId, Note)>,
) -> io::Result<(Arc<Shared>, Vec<JoinHandle<()>>)> {
    let mut lines = Vec::new();
    let mut boxes: Vec<Mailbox> = Vec::new();
    for _ in 0..config.shards {
        let (postbox, mailbox) = mailbox()?;
        lines.push(Line::new(postbox));
        boxes.push(mailbox);
    }
    let shared = Arc::new(Shared {
        lines,
        routes: Default::default(),
        attachments: Default::default(),
    });
    Ok((shared, Vec::new()))
}
