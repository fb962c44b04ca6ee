//! `sarsen node list`

use crate::api::model::{Node, NodeData, Nodes};
use crate::api::size::human;
use crate::cli::cluster::presence;
use crate::cli::output::table;
use crate::cli::status::left_of;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let nodes = context.client.cluster_nodes().await?;
        context.output.show(&nodes, for_people)
    }
}

fn for_people(list: &Nodes) -> String {
    let rows = list.nodes.iter().map(|node| {
        [
            node.seen.id.to_string(),
            node.seen.name.clone(),
            presence(&node.seen),
            node.seen.role.clone(),
            node.rack.clone().unwrap_or_default(),
            node.disks.len().to_string(),
            human(node.size_bytes),
            data(node),
            node.seen
                .maintenance
                .as_ref()
                .map_or_else(String::new, left_of),
            node.seen.version.clone().unwrap_or_default(),
        ]
    });
    let header = [
        "ID",
        "NODE",
        "STATE",
        "ROLE",
        "RACK",
        "DISKS",
        "SIZE",
        "DATA",
        "MAINTENANCE",
        "VERSION",
    ];
    table(header, rows)
}

/// What a node's disks hold, for people.
pub(super) fn data(node: &Node) -> String {
    match node.data {
        NodeData::None => "none".into(),
        NodeData::Taking => format!("{} copies", node.pgs),
        NodeData::Leaving => format!("{} copies, leaving", node.pgs),
        NodeData::Left => "left".into(),
    }
}
