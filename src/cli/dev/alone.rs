//! One node: the normal daemon in this process, with a configuration that is made here.

use super::{Dev, MEMORY};
use crate::api::host::nbd_uri;
use crate::cli::Failure;
use crate::cli::daemon::{check, not_started};
use crate::cli::output::say;
use crate::daemon::{Api, Config, DiskConfig, Nbd, Ready, VhostUser};
use std::path::{Path, PathBuf};

pub(super) fn run(dev: &Dev, data: &Path) -> Result<(), Failure> {
    let config = config(dev, data);
    if dev.check {
        return check(&config);
    }
    let mut told = Ok(());
    let ran = crate::daemon::run(config, |ready| told = say(&usage(&ready)));
    ran.map_err(not_started)?;
    told
}

fn config(dev: &Dev, data: &Path) -> Config {
    Config {
        data_dir: data.into(),
        node: None,
        shards: dev.shards,
        pin: None,
        memory: dev.memory.unwrap_or(MEMORY),
        overcommit_percent: None,
        log: Default::default(),
        api: Api {
            listen: None,
            socket: data.join("api.sock"),
            group: None,
            // Only for the user who runs it.
            mode: 0o600,
        },
        nbd: Nbd {
            socket: data.join("nbd.sock"),
            listen: None,
            tls: None,
        },
        vhost_user: VhostUser {
            dir: data.join("vhost"),
            group: None,
            mode: 0o600,
        },
        disks: vec![DiskConfig {
            path: data.join("disk0"),
            size: Some(dev.size),
        }],
        cluster: None,
        file: PathBuf::new(),
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
