//! `sarsen volume`

mod create;
mod delete;
mod export;
mod import;
mod list;
mod progress;
mod resize;
mod set;
mod show;
mod sink;
mod source;

use super::{Context, Failure};
use clap::Subcommand;

/// The unit in which zeroes are looked for, in bytes: the store's unit of allocation.
const PIECE: usize = 64 << 10;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create an empty volume
    Create(create::Create),
    /// List the volumes
    List(list::List),
    /// Show one volume
    Show(show::Show),
    /// Make a volume larger
    Resize(resize::Resize),
    /// Change whether several nodes may attach a volume at once, and how long its I/O waits
    Set(set::Set),
    /// Delete a volume and its data
    Delete(delete::Delete),
    /// Create a volume from a raw image
    Import(import::Import),
    /// Write a volume to a raw image
    Export(export::Export),
}

impl Verb {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Verb::Create(create) => create.run(context).await,
            Verb::List(list) => list.run(context).await,
            Verb::Show(show) => show.run(context).await,
            Verb::Resize(resize) => resize.run(context).await,
            Verb::Set(set) => set.run(context).await,
            Verb::Delete(delete) => delete.run(context).await,
            Verb::Import(import) => import.run(context).await,
            Verb::Export(export) => export.run(context).await,
        }
    }
}
