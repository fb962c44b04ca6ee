//! `sarsen pool list`

use super::word;
use crate::api::model::PoolList;
use crate::api::size::human;
use crate::cli::output::table;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let pools = context.client.pools().await?;
        context.output.show(&pools, for_people)
    }
}

fn for_people(list: &PoolList) -> String {
    let rows = list.pools.iter().map(|pool| {
        [
            pool.name.clone(),
            pool.copies.to_string(),
            pool.min_copies.to_string(),
            word(pool.level).to_owned(),
            pool.disks.to_string(),
            human(pool.capacity_bytes),
            human(pool.promised_bytes),
            format!("{} of {} whole", pool.pgs.whole, pool.pgs.all),
        ]
    });
    let head = [
        "NAME", "COPIES", "MIN", "LEVEL", "DISKS", "CAPACITY", "PROMISED", "PGS",
    ];
    table(head, rows)
}
