//! `sarsen disk add PATH`

use super::show::for_people;
use crate::api::model::{Arrival, Disk, DiskAdd};
use crate::api::size::{human, parse};
use crate::cli::output::fields;
use crate::cli::{Context, Failure};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct Add {
    /// A block device, or a file
    path: PathBuf,
    /// Make a sparse file of this size
    #[arg(long, value_parser = parse)]
    size: Option<u64>,
    /// The pool that it becomes a part of [default: default]
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Only say what would come of it, or why it cannot be done; nothing is made or written
    #[arg(long)]
    dry_run: bool,
}

impl Add {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let add = DiskAdd {
            path: meant(&self.path)?,
            size_bytes: self.size,
            pool: self.pool,
            dry_run: self.dry_run,
        };
        let disk = context.client.add_disk(&add).await?;
        context.output.show(&disk, |disk| match &disk.arrival {
            Some(arrival) => format!("{}\n\n{}", for_people(disk), would_be(disk, arrival)),
            None => for_people(disk),
        })
    }
}

/// The path that is meant here: the daemon runs in another folder.
pub(super) fn meant(path: &Path) -> Result<String, Failure> {
    let whole = std::path::absolute(path).map_err(|error| Failure::local(path.display(), error))?;
    match whole.to_str() {
        Some(path) => Ok(path.into()),
        None => {
            let message = format!("{} is not UTF-8", whole.display());
            let hint = "give it another name, or a link";
            Err(Failure::usage("PATH", message, hint))
        }
    }
}

/// What is said to a dry run.
pub(super) fn would_be(disk: &Disk, arrival: &Arrival) -> String {
    let part = disk.size_bytes as f64 / arrival.pool_size_bytes.max(1) as f64;
    let moves = match (arrival.copies, arrival.bytes) {
        (0, _) => format!("nothing: {}", arrival.reason),
        (copies, Some(bytes)) => {
            format!(
                "about {}, in {copies} copies of placement groups",
                human(bytes)
            )
        }
        (copies, None) => format!(
            "{copies} copies of placement groups; how much they hold nobody says now: a node does not answer, or is of an older version"
        ),
    };
    let all = human(arrival.pool_size_bytes);
    fields([
        ("for data", human(arrival.capacity_bytes)),
        (
            "share",
            format!("{:.1} % of the pool's {all}", part * 100.0),
        ),
        ("moves to it", moves),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_the_share_and_what_would_move_or_why_nothing() {
        let disk = Disk {
            id: 4,
            node: "a".into(),
            pool: "default".into(),
            path: "/dev/vdb".into(),
            store: String::new(),
            size_bytes: 1 << 30,
            state: "serving".into(),
            reason: String::new(),
            pgs: 0,
            moves: None,
            arrival: None,
        };
        let mut arrival = Arrival {
            capacity_bytes: 1 << 29,
            pool_size_bytes: 3 << 30,
            copies: 5,
            bytes: Some(2 << 30),
            reason: String::new(),
        };
        let says = |arrival: &Arrival, all: &[&str]| {
            let text = would_be(&disk, arrival);
            all.iter()
                .for_each(|one| assert!(text.contains(one), "{one:?} in {text}"));
        };
        says(&arrival, &["512 MiB", "33.3 % of the pool's 3 GiB"]);
        says(&arrival, &["about 2 GiB, in 5 copies"]);
        arrival.bytes = None;
        says(&arrival, &["5 copies", "nobody says now"]);
        arrival.copies = 0;
        arrival.reason = "one copy".into();
        says(&arrival, &["nothing: one copy"]);
    }
}
