//! `sarsen pool set NAME`

use super::Level;
use super::show::for_people;
use crate::api::model::PoolSet;
use crate::api::size::parse;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
#[group(id = "what", required = true, multiple = true, args = ["copies", "min_copies", "level", "overcommit", "rebuild_limit"])]
pub struct Set {
    name: String,
    /// How many copies there are of everything
    #[arg(long)]
    copies: Option<u32>,
    /// The fewest copies that stay in sync when others are taken out
    #[arg(long)]
    min_copies: Option<u32>,
    /// How far apart copies lie [default: node, where there are to be several from now on]
    #[arg(long)]
    level: Option<Level>,
    /// How much may be promised of what there is, in percent
    #[arg(long, value_name = "PERCENT")]
    overcommit: Option<u32>,
    /// How many bytes a second each disk may be filled with, whatever for (1M to 1T, as in 200M), or `none`: as many as guests leave room for, which is how a pool is made
    #[arg(long, value_name = "BYTES", value_parser = limit)]
    rebuild_limit: Option<u64>,
    /// Only say how the pool would be, or why it cannot be so
    #[arg(long)]
    dry_run: bool,
}

/// In bytes a second; 0 for none.
fn limit(text: &str) -> Result<u64, String> {
    match text {
        "none" => Ok(0),
        text => match parse(text)? {
            0 => Err("0 would fill nothing: write a size a second like 200M, or none".into()),
            rate => Ok(rate),
        },
    }
}

impl Set {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let set = PoolSet {
            copies: self.copies,
            min_copies: self.min_copies,
            level: self.level.map(Into::into),
            overcommit_percent: self.overcommit,
            rebuild_limit_bytes_per_second: self.rebuild_limit,
            dry_run: self.dry_run,
        };
        let pool = context.client.set_pool(&self.name, &set).await?;
        context.output.show(&pool, for_people)
    }
}
