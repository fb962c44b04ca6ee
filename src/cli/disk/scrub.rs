//! `sarsen disk scrub ID`

use super::show::id_of;
use crate::api::model::ScrubResult;
use crate::cli::output::fields;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Scrub {
    /// The disk's number, or its path; every disk where none is named
    disk: Option<String>,
}

impl Scrub {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let ids = match &self.disk {
            Some(disk) => vec![id_of(context, disk).await?],
            None => context
                .client
                .disks()
                .await?
                .disks
                .iter()
                .map(|disk| disk.id)
                .collect(),
        };
        let mut results = Vec::new();
        for id in ids {
            results.push(context.client.scrub_disk(id).await?);
        }
        let bad: u64 = results.iter().map(|result| result.bad_blocks).sum();
        match (&self.disk, results.as_slice()) {
            (Some(_), [result]) => context.output.show(result, for_people)?,
            _ => {
                let all = serde_json::json!({ "scrubs": results });
                let people = |_: &_| {
                    results
                        .iter()
                        .map(for_people)
                        .collect::<Vec<_>>()
                        .join("\n\n")
                };
                context.output.show(&all, people)?;
            }
        }
        if bad > 0 { Err(Failure::Told) } else { Ok(()) }
    }
}

fn for_people(result: &ScrubResult) -> String {
    fields([
        ("disk", format!("{} ({})", result.disk, result.path)),
        ("blocks", result.blocks.to_string()),
        ("bad blocks", result.bad_blocks.to_string()),
        ("time", format!("{:.1} s", result.elapsed_ms as f64 / 1e3)),
    ])
}
