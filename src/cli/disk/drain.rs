//! `sarsen disk drain ID`

use super::show::{for_people, id_of};
use crate::api::model::DiskDrain;
use crate::cli::output::moving;
use crate::cli::{Context, Failure, moves};
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks at how far it is.
const EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub struct Drain {
    /// The disk's number, or its path
    disk: String,
    /// Take it back: the disk stays
    #[arg(long, conflicts_with = "wait")]
    undo: bool,
    /// Only say what would move and where to, or why it cannot be done
    #[arg(long)]
    dry_run: bool,
    /// Return when nothing is on the disk any more; interrupted, it goes on all the same
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
}

impl Drain {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let id = id_of(context, &self.disk).await?;
        let drain = DiskDrain {
            undo: self.undo,
            dry_run: self.dry_run,
        };
        let mut disk = context.client.drain_disk(id, &drain).await?;
        if self.wait {
            let bar = moving(disk.pgs);
            let all = disk.pgs;
            while disk.pgs > 0 {
                sleep(EVERY).await;
                disk = context.client.disk(id).await?;
                bar.set_position(all.saturating_sub(disk.pgs).into());
            }
            bar.finish_and_clear();
        }
        context.output.show(&disk, |disk| match &disk.moves {
            Some(moves) => format!("{}\n\n{}", for_people(disk), moves::for_people(moves)),
            None => for_people(disk),
        })
    }
}
