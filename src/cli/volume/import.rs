//! `sarsen volume import NAME FILE|-`
//!
//! Resumable: what the daemon acknowledged stays. The same command goes on from there, after it has read the
//! beginning of the source again and found the same checksum. `volume delete` undoes it.

use super::progress;
use super::show::for_people;
use super::source::{Piece, Source, Window};
use crate::api::StreamCrc;
use crate::api::client::{Client, ClientError};
use crate::api::model::{
    ErrorBody, ErrorCode, ImportFinish, Locality, Volume, VolumeCreate, VolumeCreatePurpose,
    VolumeState, crc_of_text, crc_text,
};
use crate::api::size::parse;
use crate::cli::{Context, Failure};
use indicatif::ProgressBar;
use std::io;
use std::path::PathBuf;
use tokio::sync::mpsc;

/// Windows that are read ahead of those being sent: reading and sending overlap, and memory stays at 16 MiB.
const AHEAD: usize = 3;

#[derive(Debug, clap::Args)]
pub struct Import {
    /// The volume that is created
    name: String,
    /// A raw image or block device; `-` reads standard input and needs --size
    file: PathBuf,
    /// The volume's size, where it is not the image's
    #[arg(long, value_parser = parse)]
    size: Option<u64>,
    /// The logical sector size in bytes: 512 or 4096
    #[arg(long, default_value_t = 4096)]
    block_size: u32,
    /// Begin anew where an earlier import of this name broke off
    #[arg(long)]
    restart: bool,
}

/// What the reading thread sends: windows, and at last the checksum of the whole source.
enum Read {
    Window(Window),
    End(StreamCrc),
}

impl Import {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let source =
            Source::open(&self.file).map_err(|error| Failure::local(self.file.display(), error))?;
        let size = self.size_for(&source)?;
        let volume = self.begin(&mut context.client, size).await?;
        let mark = match &volume.import {
            Some(import) => {
                let crc = crc_of_text(&import.crc32c).unwrap_or_default();
                StreamCrc::resume(import.through_bytes, crc)
            }
            None => StreamCrc::default(),
        };
        if !mark.is_empty() && !context.output.json {
            eprintln!("going on from byte {}", mark.len());
        }
        let bar = progress::bar(context.output, source.len());
        let (send, receive) = mpsc::channel(AHEAD);
        let reading = std::thread::spawn(move || read(source, mark, size, &send));
        let sent = send_all(&mut context.client, &self.name, receive, &bar).await;
        bar.finish_and_clear();
        let result = match sent {
            Ok(Some(whole)) => self.finish(&mut context.client, whole).await,
            Ok(None) => Err(Failure::local(
                self.file.display(),
                "reading it ended early",
            )),
            Err(failure) => return Err(failure),
        };
        // A failed read is the reason for an early end, and says more than it.
        if let Ok(Err(failure)) = reading.join() {
            return Err(failure);
        }
        context.output.show(&result?, for_people)
    }

    /// The size of the volume.
    fn size_for(&self, source: &Source) -> Result<u64, Failure> {
        let block = u64::from(self.block_size.max(1));
        match (self.size, source.len()) {
            (Some(size), Some(len)) if size < len => {
                let message = format!("{} has {len} bytes, more than {size}", self.file.display());
                Err(Failure::usage("--size", message, "give at least its size"))
            }
            (Some(size), _) => Ok(size),
            (None, Some(0)) => {
                let message = format!("{} is empty", self.file.display());
                Err(Failure::usage(
                    "FILE",
                    message,
                    "say --size for an empty volume",
                ))
            }
            (None, Some(len)) => Ok(len.next_multiple_of(block)),
            (None, None) => {
                let message = "the length of a stream is not known before its end";
                Err(Failure::usage("--size", message, "say --size"))
            }
        }
    }

    /// The volume to fill: a new one, or the one that an earlier import left.
    async fn begin(&self, client: &mut Client, size: u64) -> Result<Volume, Failure> {
        let found = match client.volume(&self.name).await {
            Ok(volume) => Some(volume),
            Err(ClientError::Refused(error)) if error.code == ErrorCode::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(volume) = found {
            if volume.state != VolumeState::Importing {
                let message = format!("there is a volume {} already", self.name);
                let hint = "choose another name, or delete it first";
                let body = ErrorBody::new(ErrorCode::Exists, "name", message, hint);
                return Err(body.into());
            }
            if !self.restart {
                return self.same_shape(volume, size);
            }
            client.delete_volume(&self.name).await?;
        }
        let create = VolumeCreate {
            name: self.name.clone(),
            size_bytes: size,
            block_size_bytes: self.block_size,
            purpose: VolumeCreatePurpose::Import,
            pool: None,
            locality: Locality::Spread,
        };
        Ok(client.create_volume(&create).await?)
    }

    fn same_shape(&self, volume: Volume, size: u64) -> Result<Volume, Failure> {
        if volume.size_bytes == size && volume.block_size_bytes == self.block_size {
            return Ok(volume);
        }
        let message = format!(
            "an import of {} with {} bytes broke off, this one has {size}",
            self.name, volume.size_bytes
        );
        let hint = "import the same image to go on, or say --restart";
        Err(ErrorBody::conflict("size", message, hint).into())
    }

    async fn finish(&self, client: &mut Client, whole: StreamCrc) -> Result<Volume, Failure> {
        let finish = ImportFinish {
            source_bytes: whole.len(),
            crc32c: crc_text(whole.crc()),
        };
        Ok(client.finish_import(&self.name, &finish).await?)
    }
}

/// Sends windows until the end of the source: its checksum then, `None` where reading broke off.
async fn send_all(
    client: &mut Client,
    name: &str,
    mut windows: mpsc::Receiver<Read>,
    bar: &ProgressBar,
) -> Result<Option<StreamCrc>, Failure> {
    while let Some(read) = windows.recv().await {
        match read {
            Read::End(whole) => return Ok(Some(whole)),
            Read::Window(window) => {
                for Piece { offset, bytes } in window.pieces {
                    client.put_data(name, offset, bytes).await?;
                }
                bar.set_position(window.end);
            }
        }
    }
    Ok(None)
}

/// Reads the source to its end. What lies before `mark` is only compared; `size` is where it must have ended.
fn read(
    mut source: Source,
    mark: StreamCrc,
    size: u64,
    to: &mpsc::Sender<Read>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::local("reading the image", error);
    while source.crc().len() < mark.len() {
        if source.next(mark.len()).map_err(failed)?.is_none() {
            break;
        }
    }
    if source.crc() != mark {
        let message = "this is not the image with which the import was begun";
        let hint = "import that image to go on, or say --restart";
        return Err(ErrorBody::conflict("FILE", message, hint).into());
    }
    while let Some(window) = source.next(u64::MAX).map_err(failed)? {
        if window.end > size {
            let message = format!("the image is longer than the volume's {size} bytes");
            let hint = "delete the volume and import with a larger --size";
            return Err(ErrorBody::invalid("--size", message, hint).into());
        }
        if to.blocking_send(Read::Window(window)).is_err() {
            return Ok(()); // sending failed, and says why
        }
    }
    // Nobody takes the end only where sending has failed, which says why.
    let _ = to.blocking_send(Read::End(source.crc()));
    Ok(())
}
