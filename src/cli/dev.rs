//! `sarsen dev`: a cluster for trying out, in the foreground, with everything in one folder.
//!
//! ```text
//!   sarsen dev            ── the daemon itself, in this process                         (alone)
//!   sarsen dev --nodes 3  ── watches three: sarsen daemon --config DIR/nodeK/sarsen.toml (nodes)
//!                              │ place     where a node keeps what it has
//!                              │ process   its daemon: started, seen to end, started again, stopped
//!                              └ set_up    the first start: founded, joined, disks, two copies; by the API
//! ```
//!
//! Several nodes are processes, not threads of one: what is to be tried is that one of them is killed, which a thread cannot be.

mod alone;
mod nodes;
mod place;
mod process;
mod set_up;

use super::Failure;
use crate::api::size::parse;
use nodes::Nodes;
use std::path::{Path, PathBuf};

/// What a daemon that is the only one keeps its catalog in (`src/docs/cluster.md`).
const CATALOG: &str = "catalog.redb";
/// Payload memory of a daemon that is the only one, and of each of several, in bytes.
const MEMORY: u64 = 256 << 20;
const MEMORY_OF_EACH: u64 = 128 << 20;

#[derive(Debug, clap::Args)]
pub struct Dev {
    /// The folder that everything is kept in; found again at the next start
    #[arg(long, value_name = "DIR", default_value = "./sarsen-dev")]
    data: PathBuf,
    /// Daemons, each with a disk of its own; several are a cluster with two copies of everything, 9 at most [default: as many as DIR has, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: Option<u8>,
    /// The size of the disk (a sparse file) that the first start makes, for each node
    #[arg(long, value_parser = parse, default_value = "16G")]
    size: u64,
    /// Shard threads of each node
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Payload memory of each node [default: 256M, or 128M where there are several]
    #[arg(long, value_name = "SIZE", value_parser = parse)]
    memory: Option<u64>,
    /// Of several nodes, leave one that died dead, and say how it is started by hand
    #[arg(long)]
    no_restart: bool,
    /// Say whether it would start, and end
    #[arg(long, hide = true)]
    check: bool,
}

impl Dev {
    pub(super) fn run(self) -> Result<(), Failure> {
        let data = std::path::absolute(&self.data)
            .map_err(|error| Failure::local(self.data.display(), error))?;
        let count = count(&data, self.nodes)?;
        // Asked so is only a daemon, before it becomes another binary: several are none.
        if count > 1 && !self.check {
            let nodes = Nodes {
                count,
                size: self.size,
                shards: self.shards,
                memory: self.memory.unwrap_or(MEMORY_OF_EACH),
                restart: !self.no_restart,
                data,
            };
            return nodes.run();
        }
        if self.no_restart {
            let message = "there is one node, and it ends with this command";
            return Err(Failure::usage("--no-restart", message, "name --nodes 3"));
        }
        alone::run(&self, &data)
    }
}

/// How many nodes there are to be: as many as are wanted, and not fewer than the folder has.
fn count(data: &Path, wanted: Option<u8>) -> Result<u8, Failure> {
    let found = place::found(data);
    let Some(wanted) = wanted else {
        return Ok(found.max(1));
    };
    let at = data.display();
    let (message, hint) = if wanted < found {
        (
            format!("{at} has {found} nodes, and their data lies on the disks of all"),
            "leave --nodes out, or name another folder with --data",
        )
    } else if wanted > 1 && data.join(CATALOG).exists() {
        (
            format!("{at} is that of one node, which cannot become several"),
            "name another folder with --data",
        )
    } else {
        return Ok(wanted);
    };
    Err(Failure::usage("--nodes", message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_the_number_of_its_nodes_or_gets_more() {
        let dir = std::env::temp_dir().join(format!("sarsen-dev-count-{}", std::process::id()));
        let is = |wanted| count(&dir, wanted).ok();
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!((is(None), is(Some(3))), (Some(1), Some(3)));
        for number in 1..=3 {
            let node = dir.join(format!("node{number}"));
            std::fs::create_dir(&node).unwrap();
        }
        assert_eq!((is(None), is(Some(5))), (Some(3), Some(5)));
        assert_eq!((is(Some(1)), is(Some(2))), (None, None));
        std::fs::remove_dir_all(&dir).unwrap();
        // What one daemon made stays one daemon's.
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(CATALOG), "").unwrap();
        assert_eq!(
            (is(None), is(Some(1)), is(Some(2))),
            (Some(1), Some(1), None)
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
