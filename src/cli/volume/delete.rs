//! `sarsen volume delete NAME`

use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Delete {
    name: String,
}

impl Delete {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.client.delete_volume(&self.name).await?;
        let deleted = serde_json::json!({ "deleted": self.name });
        context
            .output
            .show(&deleted, |_| format!("{} is deleted", self.name))
    }
}
