//! `sarsen cluster members`, and `sarsen cluster members set NODE...`

use crate::api::model::{ClusterMembersSet, ClusterNode, ClusterStatus, MembersChange};
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
        /// Only say who would be added and removed, and whether most of them answer; or why it cannot be
        #[arg(long)]
        dry_run: bool,
    },
}

impl Members {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let cluster = match self.verb {
            None => context.client.cluster().await?,
            Some(Verb::Set { nodes, dry_run }) => {
                let set = ClusterMembersSet { nodes, dry_run };
                context.client.set_members(&set).await?
            }
        };
        context
            .output
            .show(&cluster, |cluster| match &cluster.change {
                Some(change) => would_be(change),
                None => for_people(cluster),
            })
    }
}

/// What is said to a dry run.
fn would_be(change: &MembersChange) -> String {
    let MembersChange {
        members,
        added,
        removed,
        silent,
    } = change;
    let all = members.len();
    let mut parts = vec![format!("members would be {}", members.join(", "))];
    for (what, nodes) in [("added", added), ("removed", removed)] {
        if !nodes.is_empty() {
            parts.push(format!("{what}: {}", nodes.join(", ")));
        }
    }
    if added.is_empty() && removed.is_empty() {
        parts
            .push("nothing would change, but that none becomes a member by itself any more".into());
    }
    parts.push(match silent.is_empty() {
        true => format!("all {all} answer"),
        false => format!(
            "{} of {all} answer, which is a majority; not {}",
            all - silent.len(),
            silent.join(", ")
        ),
    });
    parts.join("\n")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_who_comes_and_goes_and_who_does_not_answer() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let mut change = MembersChange {
            members: names(&["a", "b", "d"]),
            added: names(&["d"]),
            removed: names(&["c"]),
            silent: names(&["b"]),
        };
        let text = would_be(&change);
        for words in [
            "members would be a, b, d",
            "added: d",
            "removed: c",
            "2 of 3 answer, which is a majority; not b",
        ] {
            assert!(text.contains(words), "{words:?} in {text}");
        }
        change.silent.clear();
        change.added.clear();
        change.removed.clear();
        let text = would_be(&change);
        assert!(text.contains("nothing would change"), "{text}");
        assert!(text.ends_with("all 3 answer"), "{text}");
    }
}
