//! `sarsen cluster init`

use crate::api::model::ClusterFounded;
use crate::cli::upgrade::next_serves;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Init {}

impl Init {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let instance = context.client.status().await?.instance;
        let founded = context.client.found_cluster().await?;
        if !founded.existed {
            next_serves(&mut context.client, &instance).await?;
        }
        context.output.show(&founded, for_people)
    }
}

fn for_people(founded: &ClusterFounded) -> String {
    let ClusterFounded {
        id,
        address,
        existed,
    } = founded;
    match existed {
        true => format!("this node is of cluster {id} already, at {address}; nothing has changed"),
        false => format!(
            "cluster {id} is made, and this node listens for others at {address}\n\
             `sarsen cluster token` makes a token for the next one"
        ),
    }
}
