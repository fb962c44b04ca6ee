//! `sarsen node maintenance NODE on|off`

use super::show::for_people;
use crate::api::model::{NodeMaintenance, Switch};
use crate::cli::output::seconds;
use crate::cli::{Context, Failure};
use clap::ValueEnum;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum To {
    On,
    Off,
}

/// A node that somebody works at is stopped and started as before: maintenance stops nothing. It ends by itself.
#[derive(Debug, clap::Args)]
pub struct Maintenance {
    /// The node's name, or its number
    node: String,
    to: To,
    /// How long, from now on: 90s, 30m, 2h; at most 7d. Said again, it counts anew [default: 30m]
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    lasts: Option<u64>,
    /// Only say whether it can be done
    #[arg(long)]
    dry_run: bool,
}

impl Maintenance {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let set = NodeMaintenance {
            maintenance: match self.to {
                To::On => Switch::On,
                To::Off => Switch::Off,
            },
            for_seconds: self.lasts,
            dry_run: self.dry_run,
        };
        let node = context.client.set_maintenance(&self.node, &set).await?;
        context.output.show(&node, for_people)
    }
}
