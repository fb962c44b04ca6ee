//! `sarsen volume resize NAME --size S`

use super::show::for_people;
use crate::api::model::VolumeChange;
use crate::api::size::parse;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Resize {
    name: String,
    /// The new size, which must not be smaller
    #[arg(long, value_parser = parse)]
    size: u64,
}

impl Resize {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let change = VolumeChange {
            size_bytes: Some(self.size),
            ..VolumeChange::default()
        };
        let volume = context.client.change_volume(&self.name, &change).await?;
        context.output.show(&volume, for_people)
    }
}
