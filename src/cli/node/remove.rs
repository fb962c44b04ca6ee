//! `sarsen node remove NODE`

use crate::api::model::{NodeRemove, NodeRemoved};
use crate::cli::moving::Moving;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Remove {
    /// The node's name, or its number
    node: String,
    /// It does not answer and will not come back: what it held is made anew elsewhere at once, and what was attached to it is taken from it
    #[arg(long)]
    force: bool,
    /// Return when it is removed, after all that it held was made anew; interrupted, that goes on all the same
    #[arg(long, requires = "force", conflicts_with = "dry_run")]
    wait: bool,
    /// Only say whether it can be done
    #[arg(long)]
    dry_run: bool,
}

impl Remove {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let remove = NodeRemove {
            force: self.force,
            dry_run: self.dry_run,
        };
        let mut done = context.client.remove_node(&self.node, remove).await?;
        if self.wait {
            let moving = Moving::new(done.pgs);
            while !done.removed {
                moving.wait(context, done.pgs).await?;
                done = context.client.remove_node(&self.node, remove).await?;
            }
        }
        let dry_run = self.dry_run;
        context.output.show(&done, |done| for_people(done, dry_run))
    }
}

fn for_people(done: &NodeRemoved, dry_run: bool) -> String {
    let NodeRemoved { name, removed, pgs } = done;
    match (removed, dry_run) {
        (true, _) => format!("node {name} is no part of the cluster any more"),
        (false, true) => format!("node {name} can be removed"),
        (false, false) => format!(
            "{pgs} copies that node {name} held are made anew elsewhere; say it again when they are (`sarsen node show {name}`), or with --wait"
        ),
    }
}
