//! `sarsen volume export NAME FILE|-`

use super::progress;
use super::sink::Sink;
use crate::api::client::Client;
use crate::api::model::{DATA_BYTES_MAX, MapRun, Volume};
use crate::api::size::human;
use crate::cli::{Context, Failure};
use indicatif::ProgressBar;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Export {
    /// The volume
    name: String,
    /// The raw image that is made; `-` writes to standard output
    file: PathBuf,
    /// Replace a file that exists
    #[arg(long)]
    overwrite: bool,
}

impl Export {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let volume = context.client.volume(&self.name).await?;
        let failed = |error| Failure::local(self.file.display(), error);
        let mut sink = Sink::create(&self.file, self.overwrite).map_err(failed)?;
        let bar = progress::bar(context.output, Some(volume.size_bytes));
        // Dropping the sink on the way out removes what was written.
        let data_bytes = tokio::select! {
            copied = self.copy(&mut context.client, &volume, &mut sink, &bar) => copied?,
            stopped = tokio::signal::ctrl_c() => {
                let why = stopped.map_or_else(|error| error.to_string(), |()| "interrupted".into());
                return Err(Failure::local(self.file.display(), why));
            }
        };
        bar.finish_and_clear();
        if sink.is_stream() {
            return Ok(());
        }
        let done = serde_json::json!({
            "volume": self.name,
            "file": self.file,
            "size_bytes": volume.size_bytes,
            "data_bytes": data_bytes,
        });
        context.output.show(&done, |_| {
            let (size, data) = (human(volume.size_bytes), human(data_bytes));
            format!("{}: {size}, {data} of it data", self.file.display())
        })
    }

    /// Copies what is not zero; how many bytes that is.
    async fn copy(
        &self,
        client: &mut Client,
        volume: &Volume,
        sink: &mut Sink,
        bar: &ProgressBar,
    ) -> Result<u64, Failure> {
        let failed = |error: std::io::Error| match sink_gone(&error) {
            true => Failure::OutputClosed,
            false => Failure::local(self.file.display(), error),
        };
        let (mut at, mut data_bytes) = (0, 0);
        while at < volume.size_bytes {
            let map = client.map(&self.name, at, volume.size_bytes - at).await?;
            for run in &map.runs {
                for (offset, len) in parts(run) {
                    let bytes = client.data(&self.name, offset, len).await?;
                    sink.write(offset, &bytes).map_err(failed)?;
                    data_bytes += len;
                    bar.set_position(offset + len);
                }
                at = run.offset_bytes + run.len_bytes;
                bar.set_position(at);
            }
            if map.runs.is_empty() {
                return Err(Failure::local(
                    &self.name,
                    "the daemon's map ends before the volume",
                ));
            }
        }
        sink.finish(volume.size_bytes).map_err(failed)?;
        Ok(data_bytes)
    }
}

fn sink_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}

/// The parts in which a run is read; none where it is zero.
fn parts(run: &MapRun) -> impl Iterator<Item = (u64, u64)> {
    let end = run.offset_bytes + if run.zero { 0 } else { run.len_bytes };
    let mut at = run.offset_bytes;
    std::iter::from_fn(move || {
        let len = (end - at).min(DATA_BYTES_MAX);
        at += len;
        (len > 0).then_some((at - len, len))
    })
}
