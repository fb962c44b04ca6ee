//! `sarsen disk list`

use crate::api::model::DiskList;
use crate::api::size::human;
use crate::cli::output::table;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let disks = context.client.disks().await?;
        context.output.show(&disks, for_people)
    }
}

fn for_people(list: &DiskList) -> String {
    let rows = list.disks.iter().map(|disk| {
        [
            disk.id.to_string(),
            disk.node.clone(),
            disk.state.clone(),
            human(disk.size_bytes),
            disk.pgs.to_string(),
            disk.path.clone(),
        ]
    });
    table(["ID", "NODE", "STATE", "SIZE", "PGS", "PATH"], rows)
}
