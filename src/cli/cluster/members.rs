//! `sarsen cluster members`, and `sarsen cluster members set NODE...`

use crate::api::model::{ClusterMembersSet, ClusterNode, ClusterStatus};
use crate::cli::output::table;
use crate::cli::status::since_unix;
use crate::cli::{Context, Failure};
use clap::Subcommand;

#[derive(Debug, clap::Args)]
pub struct Members {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Name the nodes that have a vote, by name or number: 1, 3 or 5. Who is new is filled first, and who is dead is replaced so
    Set {
        #[arg(required = true, value_name = "NODE", num_args = 1..=5)]
        nodes: Vec<String>,
    },
}

impl Members {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let cluster = match self.verb {
            None => context.client.cluster().await?,
            Some(Verb::Set { nodes }) => {
                context
                    .client
                    .set_members(&ClusterMembersSet { nodes })
                    .await?
            }
        };
        context.output.show(&cluster, for_people)
    }
}

/// The nodes as a table.
pub fn for_people(cluster: &ClusterStatus) -> String {
    let rows = cluster.nodes.iter().map(|node| {
        [
            node.id.to_string(),
            node.name.clone(),
            match node.leads {
                true => format!("{}, leads", node.role),
                false => node.role.clone(),
            },
            presence(node),
            node.lag.map_or_else(String::new, |lag| lag.to_string()),
            node.addresses.join(" "),
            node.version.clone().unwrap_or_default(),
        ]
    });
    let header = ["ID", "NODE", "ROLE", "STATE", "LAG", "ADDRESS", "VERSION"];
    let nodes = table(header, rows);
    let leader = match &cluster.leader {
        Some(_) => String::new(),
        None => "\nnobody leads as far as this node hears: the catalog takes no changes".into(),
    };
    let silent = cluster.nodes.iter().filter(|node| !node.reason.is_empty());
    let silent: String = silent
        .map(|node| format!("\n{}: {}", node.name, node.reason))
        .collect();
    format!("{nodes}{leader}{silent}")
}

/// Whether a node is there, and since when.
pub fn presence(node: &ClusterNode) -> String {
    match node.since_unix_seconds {
        Some(since) => format!("{} for {}", node.state, since_unix(since)),
        None => node.state.clone(),
    }
}
