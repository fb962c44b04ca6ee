//! `sarsen node drain NODE`

use super::show::for_people;
use crate::api::model::{NodeData, NodeDrain};
use crate::cli::output::moving;
use crate::cli::{Context, Failure, moves};
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks at how far it is.
const EVERY: Duration = Duration::from_millis(500);

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
            let bar = moving(node.pgs);
            let all = node.pgs;
            while node.pgs > 0 {
                if node.data == NodeData::Taking {
                    bar.finish_and_clear();
                    let name = &node.seen.name;
                    let message = format!(
                        "node {name} takes data again: its drain was taken back, or it got a disk"
                    );
                    return Err(Failure::undone("node", message));
                }
                sleep(EVERY).await;
                node = context.client.cluster_node(&self.node).await?;
                bar.set_position(all.saturating_sub(node.pgs).into());
            }
            bar.finish_and_clear();
        }
        context.output.show(&node, |node| match &node.moves {
            Some(moves) => format!("{}\n\n{}", for_people(node), moves::for_people(moves)),
            None => for_people(node),
        })
    }
}
