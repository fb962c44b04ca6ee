//! `sarsen pool create NAME`

use super::Level;
use super::show::for_people;
use crate::api::model::PoolCreate;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Create {
    name: String,
    /// How many copies there are of everything
    #[arg(long)]
    copies: u32,
    /// The fewest copies that stay in sync when others are taken out
    #[arg(long, default_value_t = 1)]
    min_copies: u32,
    /// How far apart copies lie
    #[arg(long, default_value = "node")]
    level: Level,
    /// Only say how the pool would be, or why it cannot be so
    #[arg(long)]
    dry_run: bool,
}

impl Create {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let create = PoolCreate {
            name: self.name,
            copies: self.copies,
            min_copies: self.min_copies,
            level: self.level.into(),
            dry_run: self.dry_run,
        };
        let pool = context.client.create_pool(&create).await?;
        context.output.show(&pool, for_people)
    }
}
