//! `sarsen disk grow ID`

use super::show::{for_people, id_of};
use crate::api::model::DiskGrow;
use crate::api::size::parse;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Grow {
    /// The disk's number, or its path
    disk: String,
    /// Make the file this long; without it, take into use what the device has by now
    #[arg(long, value_parser = parse)]
    size: Option<u64>,
}

impl Grow {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let id = id_of(context, &self.disk).await?;
        let grow = DiskGrow {
            size_bytes: self.size,
        };
        let disk = context.client.grow_disk(id, &grow).await?;
        context.output.show(&disk, for_people)
    }
}
