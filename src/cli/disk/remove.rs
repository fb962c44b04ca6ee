//! `sarsen disk remove ID`

use super::show::id_of;
use crate::api::model::Disk;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Remove {
    /// The disk's number, or its path
    disk: String,
    /// Only say whether it can be done, or why not
    #[arg(long)]
    dry_run: bool,
}

impl Remove {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let id = id_of(context, &self.disk).await?;
        if self.dry_run {
            let disk = context.client.may_remove_disk(id).await?;
            let people = |disk: &Disk| {
                let Disk { id, node, path, .. } = disk;
                format!("disk {id} ({path} of node {node}) can be removed: nothing is on it")
            };
            return context.output.show(&disk, people);
        }
        context.client.remove_disk(id).await?;
        let removed = serde_json::json!({ "removed": id });
        let people = |_: &_| format!("disk {id} is no part of the cluster any more");
        context.output.show(&removed, people)
    }
}
