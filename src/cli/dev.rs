//! `sarsen dev`: the normal daemon, with a configuration that is made here and everything in one folder. With `--nodes`, several of them.

mod nodes;

use super::Failure;
use super::daemon::{check, not_started};
use super::output::say;
use crate::api::host::nbd_uri;
use crate::api::size::parse;
use crate::daemon::{Api, Config, DiskConfig, Nbd, Ready, VhostUser};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct Dev {
    /// The folder that everything is kept in; found again at the next start
    #[arg(long, value_name = "DIR", default_value = "./sarsen-dev")]
    data: PathBuf,
    /// The size of the disk (a sparse file) that the first start makes
    #[arg(long, value_parser = parse, default_value = "16G")]
    size: u64,
    /// Shard threads
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Payload memory
    #[arg(long, value_name = "SIZE", value_parser = parse, default_value = "256M")]
    memory: u64,
    /// Run so many daemons as a cluster, with two copies of everything
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
    nodes: u32,
    /// With --nodes: leave a daemon dead that ends, instead of starting it again
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
        if self.nodes > 1 {
            let nodes = nodes::Nodes {
                folder: data,
                count: self.nodes,
                size: self.size,
                shards: self.shards,
                memory: self.memory,
                again: !self.no_restart,
            };
            return nodes.run();
        }
        let config = self.config(&data);
        if self.check {
            return check(&config);
        }
        let mut told = Ok(());
        let ran = crate::daemon::run(config, |ready| told = say(&usage(&ready)));
        ran.map_err(not_started)?;
        told
    }

    fn config(&self, data: &Path) -> Config {
        Config {
            data_dir: data.into(),
            node: None,
            shards: self.shards,
            pin: None,
            memory: self.memory,
            overcommit_percent: None,
            log: Default::default(),
            api: Api {
                socket: data.join("api.sock"),
                group: None,
                // Only for the user who runs it.
                mode: 0o600,
            },
            nbd: Nbd {
                socket: data.join("nbd.sock"),
                listen: None,
            },
            vhost_user: VhostUser {
                dir: data.join("vhost"),
                group: None,
                mode: 0o600,
            },
            disks: vec![DiskConfig {
                path: data.join("disk0"),
                size: Some(self.size),
            }],
            cluster: None,
            file: PathBuf::new(),
        }
    }
}

/// How to use what was started.
fn usage(ready: &Ready<'_>) -> String {
    let api = ready.config.api.socket.display();
    let socket = ready.config.nbd.socket.display().to_string();
    let name = ready.volumes.first().map_or("first", String::as_str);
    let create = match ready.volumes.is_empty() {
        true => "  sarsen volume create first --size 1G\n",
        false => "",
    };
    let uri = nbd_uri(name, &socket);
    format!(
        "sarsen is ready.\n\n\
         In another terminal:\n\
         \x20 export SARSEN_API={api}\n\
         \x20 sarsen status\n\
         {create}\n\
         A client opens\n\
         \x20 {uri}\n\
         for example\n\
         \x20 nbdinfo '{uri}'\n\
         \x20 qemu-img info '{uri}'\n\
         \x20 nbdfuse mountpoint '{uri}'\n\n\
         Ctrl-C stops it; everything is found again at the next start."
    )
}
