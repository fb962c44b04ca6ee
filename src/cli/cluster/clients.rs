//! `sarsen cluster clients`, and `sarsen cluster revoke NAME`

use crate::api::model::ClusterClients;
use crate::cli::output::table;
use crate::cli::{Context, Failure};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, clap::Args)]
pub struct Clients {}

#[derive(Debug, clap::Args)]
pub struct Revoke {
    name: String,
}

impl Clients {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let clients = context.client.clients().await?;
        context.output.show(&clients, for_people)
    }
}

impl Revoke {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.client.revoke_client(&self.name).await?;
        let clients = context.client.clients().await?;
        context.output.show(&clients, for_people)
    }
}

fn for_people(clients: &ClusterClients) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let rows = clients.clients.iter().map(|client| {
        let left = client.until_unix_seconds.saturating_sub(now);
        let state = match (client.revoked, left) {
            (true, _) => "revoked".into(),
            (false, 0) => "ended".into(),
            (false, left) if left >= 2 * 86_400 => format!("{} days left", left / 86_400),
            (false, left) => format!("{} h left", left.div_ceil(3_600)),
        };
        let role = format!("{:?}", client.role).to_lowercase();
        [client.name.clone(), role, state]
    });
    table(["CLIENT", "ROLE", "STATE"], rows)
}
