//! `sarsen volume set NAME --shared | --exclusive`

use super::show::for_people;
use crate::api::model::VolumeChange;
use crate::cli::{Context, Failure};

/// Who may attach it.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Sharing {
    /// Several nodes may attach the volume at once: each write is seen by all, and its range goes to the node that asks
    #[arg(long)]
    shared: bool,
    /// One node at a time, which is how a volume is made
    #[arg(long)]
    exclusive: bool,
}

#[derive(Debug, clap::Args)]
pub struct Set {
    name: String,
    #[command(flatten)]
    sharing: Sharing,
}

impl Set {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let change = VolumeChange {
            size_bytes: None,
            shared: Some(self.sharing.shared),
        };
        let volume = context.client.change_volume(&self.name, &change).await?;
        context.output.show(&volume, for_people)
    }
}
