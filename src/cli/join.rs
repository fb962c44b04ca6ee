//! `sarsen join ADDR --token T`

use super::upgrade::next_serves;
use super::{Context, Failure};
use crate::api::model::{ClusterJoin, ClusterJoined};

#[derive(Debug, clap::Args)]
pub struct Join {
    /// A member of the cluster, as HOST:PORT; `sarsen cluster token` says which
    #[arg(value_name = "ADDR")]
    address: String,
    /// What `sarsen cluster token` printed
    #[arg(long)]
    token: String,
}

impl Join {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let instance = context.client.status().await?.instance;
        let join = ClusterJoin {
            address: self.address,
            token: self.token,
        };
        let joined = context.client.join_cluster(&join).await?;
        next_serves(&mut context.client, &instance).await?;
        context.output.show(&joined, for_people)
    }
}

fn for_people(joined: &ClusterJoined) -> String {
    let ClusterJoined { node, name } = joined;
    format!(
        "this is node {node} of the cluster now, named {name}\n\
         `sarsen cluster members` shows all of them; add disks with `sarsen disk add`"
    )
}
