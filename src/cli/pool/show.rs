//! `sarsen pool show NAME`

use super::word;
use crate::api::model::{Pool, PoolPgs};
use crate::api::size::human;
use crate::cli::output::fields;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Show {
    name: String,
}

impl Show {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let pool = context.client.pool(&self.name).await?;
        context.output.show(&pool, for_people)
    }
}

pub(super) fn for_people(pool: &Pool) -> String {
    let PoolPgs {
        all,
        whole,
        degraded,
        waiting,
        unreachable,
        filling,
    } = pool.pgs;
    let mut pgs = format!("{all}, {whole} whole");
    for (count, what) in [
        (degraded, "degraded"),
        (waiting, "below min_copies"),
        (unreachable, "out of reach"),
        (filling, "being filled"),
    ] {
        if count > 0 {
            pgs += &format!(", {count} {what}");
        }
    }
    let state = match pool.reason.is_empty() {
        true => "whole".to_owned(),
        false => pool.reason.clone(),
    };
    fields([
        ("pool", pool.name.clone()),
        (
            "copies",
            format!("{} on different {}s", pool.copies, word(pool.level)),
        ),
        ("min copies", pool.min_copies.to_string()),
        ("overcommit", format!("{} %", pool.overcommit_percent)),
        (
            "disks",
            format!("{} with {}", pool.disks, human(pool.capacity_bytes)),
        ),
        ("promised", human(pool.promised_bytes)),
        ("pgs", pgs),
        ("state", state),
    ])
}
