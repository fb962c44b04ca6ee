//! `sarsen disk drain ID`

use super::show::{for_people, id_of};
use crate::api::model::{Disk, DiskDrain};
use crate::cli::moving::Moving;
use crate::cli::{Context, Failure, moves};

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
            disk = emptied(context, disk).await?;
        }
        context.output.show(&disk, |disk| match &disk.moves {
            Some(moves) => format!("{}\n\n{}", for_people(disk), moves::for_people(moves)),
            None => for_people(disk),
        })
    }
}

/// Waits until nothing is on a disk any more that is being drained, or made anew elsewhere.
pub(super) async fn emptied(context: &mut Context, mut disk: Disk) -> Result<Disk, Failure> {
    let moving = Moving::new(disk.pgs);
    while disk.pgs > 0 {
        if takes_data(&disk) {
            let message = format!(
                "disk {} takes data again: its drain was taken back",
                disk.id
            );
            return Err(Failure::undone("disk", message));
        }
        moving.wait(context, disk.pgs).await?;
        disk = context.client.disk(disk.id).await?;
    }
    Ok(disk)
}

/// Another node's disk that serves is `elsewhere`. Of one that failed it is not seen, and it takes none.
fn takes_data(disk: &Disk) -> bool {
    matches!(disk.state.as_str(), "serving" | "elsewhere")
}
