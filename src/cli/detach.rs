//! `sarsen detach NAME [--force]`

use super::{Context, Failure};
use crate::api::model;

#[derive(Debug, clap::Args)]
pub struct Detach {
    name: String,
    /// Also while it is used: a guest loses its disk, a file system its device
    #[arg(long)]
    force: bool,
    /// Take back the second socket, of a migration that was given up
    #[arg(long)]
    incoming: bool,
}

impl Detach {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let Detach {
            name,
            force,
            incoming,
        } = self;
        let detach = model::Detach { force, incoming };
        context.client.detach(&name, detach).await?;
        let detached = serde_json::json!({ "detached": name });
        context
            .output
            .show(&detached, |_| format!("{name} is detached"))
    }
}
