//! `sarsen volume list`

use super::show::state;
use crate::api::model::VolumeList;
use crate::api::size::human;
use crate::cli::output::table;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let volumes = context.client.volumes().await?;
        context.output.show(&volumes, for_people)
    }
}

fn for_people(list: &VolumeList) -> String {
    let rows = list.volumes.iter().map(|volume| {
        [
            volume.name.clone(),
            human(volume.size_bytes),
            state(volume),
            volume.connections.to_string(),
            volume.block_size_bytes.to_string(),
            volume.node.clone(),
        ]
    });
    table(
        ["NAME", "SIZE", "STATE", "CONNECTIONS", "BLOCK SIZE", "NODE"],
        rows,
    )
}
