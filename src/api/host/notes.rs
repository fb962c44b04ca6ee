//! What stores say, for people: each note is logged, and what somebody must see to becomes an alert.

use super::{AlertKind, Host, lock};
use crate::base::DiskId;
use crate::runtime::Notes;
use crate::store::Note;

const FAILED_IN_USE: &str = "it failed while it was in use";

/// What the scrubs of a disk found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scrubbed {
    /// How many have ended since the start.
    pub count: u64,
    pub blocks: u64,
    pub bad: u64,
}

impl Host {
    /// Takes notes until the runtime has stopped.
    pub async fn take_notes(&self, mut notes: Notes) {
        while let Some((disk, note)) = notes.recv().await {
            self.take_note(disk, note);
            if note == Note::DiskFailed {
                // In a task of its own: a change of volumes that is under way may take long, and notes go on.
                let host = self.clone();
                tokio::spawn(async move { host.refuse_failed_volumes().await });
            }
        }
    }

    fn take_note(&self, disk: DiskId, note: Note) {
        let path = self
            .manager()
            .catalog()
            .disk(disk)
            .map(|disk| disk.path.clone());
        let subject = subject(disk, path.as_deref());
        if let Some((kind, reason)) = alert_of(&note) {
            self.alerts().raise(kind, &subject, reason);
        }
        match note {
            Note::DiskFailed => {
                let mut disks = lock(&self.inner.disks);
                let now = disks.entry(disk).or_default();
                (now.open, now.failed) = (false, Some(FAILED_IN_USE.into()));
                drop(disks);
                self.raise_disk_failed(disk, &subject, FAILED_IN_USE);
                self.inner.noted.notify_waiters();
            }
            Note::Scrubbed { blocks, bad } => self.scrub_ended(disk, &subject, blocks, bad),
            Note::Checkpoint { number, pages } => {
                tracing::debug!(%disk, number, pages, "checkpoint");
            }
            Note::Mended {
                layer,
                chunk,
                blocks,
            } => {
                let (chunk, blocks) = (chunk.0, blocks.count_ones());
                tracing::info!(%disk, %layer, chunk, blocks, "blocks were damaged, and are mended");
            }
            Note::JournalWrapped { batch } => tracing::debug!(%disk, batch, "journal wrapped"),
            Note::Opened { replayed } => tracing::info!(%disk, replayed, "disk open"),
            Note::TableLoaded { pages } => tracing::info!(%disk, pages, "table loaded"),
            // These became alerts, which are logged when they are raised; each place is worth a line of its own.
            Note::RottenBlock {
                layer,
                block,
                offset,
            }
            | Note::UnreadableBlock {
                layer,
                block,
                offset,
            } => {
                tracing::error!(%disk, %layer, block = block.0, offset, "a block is lost");
            }
            Note::DamagedPage {
                family,
                extent,
                offset,
            } => {
                tracing::error!(%disk, %family, extent, offset, "a table page is damaged");
            }
            Note::DamagedJournal { batch, offset } => {
                tracing::error!(%disk, batch, offset, "the journal is damaged");
            }
        }
    }

    /// Raises the alert of a disk that does not serve, with what that means.
    pub(super) fn raise_disk_failed(&self, disk: DiskId, subject: &str, why: &str) {
        let reason = match self.harmed_by(disk).as_str() {
            "" => why.to_owned(),
            volumes => {
                format!("{why}; what these volumes have there answers with errors: {volumes}")
            }
        };
        self.alerts().raise(AlertKind::DiskFailed, subject, reason);
    }

    fn scrub_ended(&self, disk: DiskId, subject: &str, blocks: u64, bad: u64) {
        tracing::info!(%disk, blocks, bad, "scrub ended");
        let mut disks = lock(&self.inner.disks);
        let scrubbed = &mut disks.entry(disk).or_default().scrubbed;
        *scrubbed = Scrubbed {
            count: scrubbed.count + 1,
            blocks,
            bad,
        };
        drop(disks);
        if bad == 0 {
            // Every block was read and is right: what was rotten has been written again or given back.
            self.alerts().clear(AlertKind::RottenBlock, subject);
            self.alerts().clear(AlertKind::UnreadableBlock, subject);
        }
        self.inner.noted.notify_waiters();
    }
}

/// How alerts name a disk.
pub(super) fn subject(disk: DiskId, path: Option<&str>) -> String {
    match path {
        Some(path) => format!("disk {disk} ({path})"),
        None => format!("disk {disk}"),
    }
}

/// The alert that a note stands for, and its reason.
fn alert_of(note: &Note) -> Option<(AlertKind, String)> {
    Some(match note {
        Note::RottenBlock {
            layer,
            block,
            offset,
        } => (
            AlertKind::RottenBlock,
            format!(
                "block {} of layer {layer}, at byte {offset}, does not match its checksum",
                block.0
            ),
        ),
        Note::UnreadableBlock {
            layer,
            block,
            offset,
        } => (
            AlertKind::UnreadableBlock,
            format!(
                "block {} of layer {layer}, at byte {offset}, cannot be read",
                block.0
            ),
        ),
        Note::DamagedPage {
            family,
            extent,
            offset,
        } => (
            AlertKind::DamagedPage,
            format!("the table page of extent {extent} of family {family}, at byte {offset}"),
        ),
        Note::DamagedJournal { batch, offset } => (
            AlertKind::DamagedJournal,
            format!("the acknowledged journal batch {batch}, at byte {offset}, is damaged"),
        ),
        // Raised with what it means for volumes, which the note alone does not say.
        Note::DiskFailed
        | Note::Opened { .. }
        | Note::Checkpoint { .. }
        | Note::JournalWrapped { .. }
        | Note::TableLoaded { .. }
        | Note::Mended { .. }
        | Note::Scrubbed { .. } => return None,
    })
}
