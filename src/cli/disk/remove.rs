//! `sarsen disk remove ID`

use super::show::id_of;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Remove {
    /// The disk's number, or its path
    disk: String,
}

impl Remove {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let id = id_of(context, &self.disk).await?;
        context.client.remove_disk(id).await?;
        let removed = serde_json::json!({ "removed": id });
        let people = |_: &_| format!("disk {id} is no part of the cluster any more");
        context.output.show(&removed, people)
    }
}
