//! `sarsen node rack NODE RACK`

use super::show::for_people;
use crate::api::model::NodeRack;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Rack {
    /// The node's name, or its number
    node: String,
    /// The rack's name; one that is new is made
    #[arg(required_unless_present = "none")]
    rack: Option<String>,
    /// It stands in no rack that has a name
    #[arg(long, conflicts_with = "rack")]
    none: bool,
}

impl Rack {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let set = NodeRack { rack: self.rack };
        let node = context.client.set_rack(&self.node, &set).await?;
        context.output.show(&node, for_people)
    }
}
