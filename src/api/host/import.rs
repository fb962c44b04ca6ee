//! Filling a volume: pieces in rising order, each durable when it is acknowledged.
//!
//! Invariants:
//! - *import-only-goes-on*: what lies before the mark is never written again.
//! - *holes-are-zero*: what a source skips reads as zeroes afterwards, also where an import that broke off
//!   had already written there beyond its last recorded mark.
//! - *whole-or-importing*: a volume leaves the state `importing` only when the checksum of all that was
//!   acknowledged, holes included, is that of the source as the client read it.

use super::{Host, lock};
use crate::api::StreamCrc;
use crate::api::model::{ErrorBody, ErrorCode, ImportFinish, Volume, crc_of_text, crc_text};
use crate::base::{VolumeId, crc};
use crate::protocol::catalog::{self, Command, ImportMark, VolumeState};
use std::sync::Arc;

/// How much may be acknowledged before the mark is recorded in the catalog, in bytes: what an import repeats at
/// most when the daemon was killed. One durable commit (a few ms) in 64 MiB is not felt.
const RECORD_EVERY: u64 = 64 << 20;

/// One volume being filled.
pub(super) struct Session {
    /// What was acknowledged.
    stream: StreamCrc,
    /// How far the catalog says so.
    recorded: u64,
    /// Whether an earlier session may have written beyond the mark.
    resumed: bool,
}

impl Host {
    /// Writes one piece, whose checksum is `sum`.
    pub async fn put_data(
        &self,
        name: &str,
        offset: u64,
        bytes: Vec<u8>,
        sum: u32,
    ) -> Result<(), ErrorBody> {
        let len = bytes.len() as u64;
        let seen = crc::of(&bytes);
        if seen != sum {
            let message = format!(
                "the body has the crc32c {}, not {}",
                crc_text(seen),
                crc_text(sum)
            );
            let field = crate::api::model::CRC_HEADER;
            return Err(ErrorBody::new(
                ErrorCode::Checksum,
                field,
                message,
                "send it again",
            ));
        }
        let volume = self.importing_volume(name)?;
        if len == 0 || offset.checked_add(len).is_none_or(|end| end > volume.size) {
            let message = format!("{len} bytes at {offset} leave a volume of {}", volume.size);
            let hint = "send 1 byte to 4 MiB inside the volume";
            return Err(ErrorBody::invalid("offset", message, hint));
        }
        let _held = self.hold(volume.id).await?;
        let session = self.session(&volume);
        let mut session = session.lock().await;
        let through = session.stream.len();
        if offset < through {
            let message = format!("everything before byte {through} was acknowledged already");
            return Err(ErrorBody::conflict("offset", message, "go on from there"));
        }
        if session.resumed {
            self.clear_range(volume.id, through, offset - through)
                .await?;
        }
        self.runtime()
            .write(volume.id, offset, bytes)
            .await
            .map_err(|error| io_error(name, error))?;
        session.stream.push_zeroes(offset - through);
        session.stream.push_summed(sum, len);
        if session.stream.len() - session.recorded >= RECORD_EVERY {
            self.record(volume.id, &mut session).await?;
        }
        Ok(())
    }

    /// Ends an import: from here on the volume can be attached.
    pub async fn finish_import(
        &self,
        name: &str,
        finish: ImportFinish,
    ) -> Result<Volume, ErrorBody> {
        let volume = self.importing_volume(name)?;
        let _held = self.hold(volume.id).await?;
        let session = self.session(&volume);
        let mut session = session.lock().await;
        let through = session.stream.len();
        if finish.source_bytes < through || finish.source_bytes > volume.size {
            let message = format!(
                "{} is not in {through}..={}",
                finish.source_bytes, volume.size
            );
            let hint = "it is the length of the source";
            return Err(ErrorBody::invalid("source_bytes", message, hint));
        }
        let mut whole = session.stream;
        whole.push_zeroes(finish.source_bytes - through);
        if crc_of_text(&finish.crc32c) != Some(whole.crc()) {
            let message = format!("what arrived has the crc32c {}", crc_text(whole.crc()));
            let hint =
                "the source changed or the transfer was damaged: import again with --restart";
            return Err(ErrorBody::new(ErrorCode::Checksum, "crc32c", message, hint));
        }
        if session.resumed {
            self.clear_range(volume.id, through, volume.size - through)
                .await?;
        }
        session.stream = whole;
        let _changing = self.inner.changing.lock().await;
        self.manager()
            .propose(Command::FinishImport { volume: volume.id })
            .await?;
        lock(&self.inner.imports).remove(&volume.id);
        self.show_exports().await;
        tracing::info!(volume = %volume.id, name, bytes = finish.source_bytes, "volume imported");
        self.volume(name)
    }

    /// How far the import of a volume has come: what this daemon acknowledged, or else what the catalog says.
    pub(super) fn import_mark(&self, volume: &catalog::Volume) -> Option<ImportMark> {
        let VolumeState::Importing { mark } = volume.state else {
            return None;
        };
        let session = lock(&self.inner.imports).get(&volume.id).cloned();
        // A session that is busy writes the next piece: the catalog's mark is behind, and right.
        let live = session.and_then(|session| Some(session.try_lock().ok()?.stream));
        Some(live.map_or(mark, |stream| ImportMark {
            through: stream.len(),
            crc32c: stream.crc(),
        }))
    }

    fn importing_volume(&self, name: &str) -> Result<catalog::Volume, ErrorBody> {
        let catalog = self.manager().catalog();
        let volume = catalog.volume_named(name)?;
        if matches!(volume.state, VolumeState::Importing { .. }) {
            return Ok(volume.clone());
        }
        let message = format!("the volume {name} is not being imported");
        Err(ErrorBody::conflict(
            "name",
            message,
            "import into a new volume; use NBD to write",
        ))
    }

    fn session(&self, volume: &catalog::Volume) -> Arc<tokio::sync::Mutex<Session>> {
        let mark = match volume.state {
            VolumeState::Importing { mark } => mark,
            VolumeState::Ready | VolumeState::Deleting => ImportMark::default(),
        };
        let mut imports = lock(&self.inner.imports);
        let session = imports.entry(volume.id).or_insert_with(|| {
            Arc::new(tokio::sync::Mutex::new(Session {
                stream: StreamCrc::resume(mark.through, mark.crc32c),
                recorded: mark.through,
                // A session that this daemon did not begin itself may have left data anywhere behind the mark.
                resumed: true,
            }))
        });
        Arc::clone(session)
    }

    /// Remembers that a volume was created just now, so nothing can be in it.
    pub(super) fn begin_import(&self, volume: VolumeId) {
        let session = Session {
            stream: StreamCrc::default(),
            recorded: 0,
            resumed: false,
        };
        let session = Arc::new(tokio::sync::Mutex::new(session));
        lock(&self.inner.imports).insert(volume, session);
    }

    async fn record(&self, volume: VolumeId, session: &mut Session) -> Result<(), ErrorBody> {
        let mark = ImportMark {
            through: session.stream.len(),
            crc32c: session.stream.crc(),
        };
        self.manager()
            .propose(Command::RecordImport { volume, mark })
            .await?;
        session.recorded = mark.through;
        Ok(())
    }

    /// Makes a range read as zeroes, without touching what does already.
    async fn clear_range(&self, volume: VolumeId, offset: u64, len: u64) -> Result<(), ErrorBody> {
        if len == 0 {
            return Ok(());
        }
        let failed = |error| io_error(&format!("volume {volume}"), error);
        let runs = self
            .runtime()
            .map(volume, offset, len)
            .await
            .map_err(failed)?;
        let mut at = offset;
        for run in runs {
            if !run.zero {
                self.runtime()
                    .write_zeroes(volume, at, run.len)
                    .await
                    .map_err(failed)?;
            }
            at += run.len;
        }
        Ok(())
    }
}

/// What a shard answered to a request of the control plane, in words.
pub(super) fn io_error(name: &str, error: crate::base::IoError) -> ErrorBody {
    use crate::base::IoError;
    let message = format!("{name}: {error}");
    match error {
        IoError::NoSpace => {
            let hint = "add a disk or delete volumes, then go on";
            ErrorBody::new(ErrorCode::Exhausted, "", message, hint)
        }
        IoError::OutOfRange => ErrorBody::invalid("offset", message, "stay inside the volume"),
        IoError::Failed | IoError::ReadOnly => {
            ErrorBody::io(message, "`sarsen alerts` says what is wrong")
        }
        IoError::Closed | IoError::Busy => ErrorBody::unavailable(message, "try again"),
    }
}
