//! `sarsen pool show NAME`

use super::word;
use crate::api::model::Pool;
use crate::api::size::human;
use crate::cli::output::fields;
use crate::cli::status::{how_long, since_unix, states};
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
    let pgs = format!("{}, {}", pool.pgs.all, states(&pool.pgs));
    let state = match (pool.reason.is_empty(), pool.since_unix_seconds) {
        (true, _) => "whole".to_owned(),
        (false, None) => pool.reason.clone(),
        (false, Some(since)) => format!("for {}: {}", since_unix(since), pool.reason),
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
            "rebuild limit",
            match pool.rebuild_limit_bytes_per_second {
                Some(rate) => format!("{}/s for each disk that is filled", human(rate)),
                None => "none: as fast as guests leave room for".into(),
            },
        ),
        (
            "disks",
            format!("{} with {}", pool.disks, human(pool.capacity_bytes)),
        ),
        ("promised", human(pool.promised_bytes)),
        ("pgs", pgs),
        ("state", state),
        (
            "rebuild",
            match &pool.rebuild {
                Some(rebuild) => how_long(rebuild),
                None => "nothing is to be filled".into(),
            },
        ),
    ])
}
