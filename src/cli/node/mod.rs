//! `sarsen node`

mod drain;
mod list;
mod maintenance;
mod rack;
mod remove;
mod show;

use super::{Context, Failure};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the nodes
    List(list::List),
    /// Show one node
    Show(show::Show),
    /// Have everything on a node's disks move to others
    Drain(drain::Drain),
    /// Take a node out of the cluster: one that is empty, or is dead for good
    Remove(remove::Remove),
    /// Say that somebody works at a node, so that nothing is made anew elsewhere meanwhile
    Maintenance(maintenance::Maintenance),
    /// Say in which rack a node stands
    Rack(rack::Rack),
}

impl Verb {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Verb::List(list) => list.run(context).await,
            Verb::Show(show) => show.run(context).await,
            Verb::Drain(drain) => drain.run(context).await,
            Verb::Remove(remove) => remove.run(context).await,
            Verb::Maintenance(maintenance) => maintenance.run(context).await,
            Verb::Rack(rack) => rack.run(context).await,
        }
    }
}
