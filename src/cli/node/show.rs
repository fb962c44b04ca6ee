//! `sarsen node show NODE`

use super::list::data;
use crate::api::model::Node;
use crate::api::size::human;
use crate::cli::cluster::presence;
use crate::cli::output::fields;
use crate::cli::status::left_of;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Show {
    /// The node's name, or its number
    node: String,
}

impl Show {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let node = context.client.cluster_node(&self.node).await?;
        context.output.show(&node, for_people)
    }
}

pub(super) fn for_people(node: &Node) -> String {
    let seen = &node.seen;
    let state = match seen.reason.as_str() {
        "" => presence(seen),
        reason => format!("{}: {reason}", presence(seen)),
    };
    let disks: Vec<String> = node.disks.iter().map(|id| format!("disk {id}")).collect();
    let or_none = |text: String| if text.is_empty() { "none".into() } else { text };
    fields([
        ("node", format!("{} ({})", seen.name, seen.id)),
        ("state", state),
        ("role", seen.role.clone()),
        ("rack", node.rack.clone().unwrap_or_else(|| "none".into())),
        ("addresses", or_none(seen.addresses.join(" "))),
        (
            "version",
            seen.version.clone().unwrap_or_else(|| "unknown".into()),
        ),
        (
            "maintenance",
            seen.maintenance
                .as_ref()
                .map_or_else(|| "off".into(), left_of),
        ),
        ("disks", or_none(disks.join(", "))),
        ("size", human(node.size_bytes)),
        ("data", data(node)),
        ("volumes", or_none(node.volumes.join(", "))),
    ])
}
