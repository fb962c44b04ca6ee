//! `sarsen node drain NODE`

use super::show::for_people;
use crate::api::model::{NodeData, NodeDrain};
use crate::cli::moving::Moving;
use crate::cli::{Context, Failure, moves};

#[derive(Debug, clap::Args)]
pub struct Drain {
    /// The node's name, or its number
    node: String,
    /// Take it back: its disks stay
    #[arg(long, conflicts_with = "wait")]
    undo: bool,
    /// Only say what would move and where to, or why it cannot be done
    #[arg(long)]
    dry_run: bool,
    /// Return when nothing is on its disks any more; interrupted, it goes on all the same
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
}

impl Drain {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let drain = NodeDrain {
            undo: self.undo,
            dry_run: self.dry_run,
        };
        let mut node = context.client.drain_node(&self.node, &drain).await?;
        if self.wait {
            let moving = Moving::new(node.pgs);
            while node.pgs > 0 {
                if node.data == NodeData::Taking {
                    let name = &node.seen.name;
                    let message = format!(
                        "node {name} takes data again: its drain was taken back, or it got a disk"
                    );
                    return Err(Failure::undone("node", message));
                }
                moving.wait(context, node.pgs).await?;
                node = context.client.cluster_node(&self.node).await?;
            }
        }
        context.output.show(&node, |node| match &node.moves {
            Some(moves) => format!("{}\n\n{}", for_people(node), moves::for_people(moves)),
            None => for_people(node),
        })
    }
}
