//! `sarsen disk show ID`

use crate::api::model::Disk;
use crate::cli::output::{exact, fields};
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Show {
    /// The disk's number, or its path
    disk: String,
}

impl Show {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let id = id_of(context, &self.disk).await?;
        let disk = context.client.disk(id).await?;
        context.output.show(&disk, for_people)
    }
}

/// The number of the disk that somebody means by a number or a path.
pub(super) async fn id_of(context: &mut Context, named: &str) -> Result<u32, Failure> {
    if let Ok(id) = named.parse() {
        return Ok(id);
    }
    let path = std::path::absolute(named).map_err(|error| Failure::local(named, error))?;
    let disks = context.client.disks().await?.disks;
    let found = disks
        .iter()
        .find(|disk| std::path::Path::new(&disk.path) == path);
    found.map(|disk| disk.id).ok_or_else(|| {
        let message = format!("there is no disk {named}");
        let hint = "`sarsen disk list` shows what there is";
        Failure::Refused(crate::api::model::ErrorBody::new(
            crate::api::model::ErrorCode::NotFound,
            "disk",
            message,
            hint,
        ))
    })
}

pub(super) fn for_people(disk: &Disk) -> String {
    let state = match disk.reason.as_str() {
        "" => disk.state.clone(),
        reason => format!("{}: {reason}", disk.state),
    };
    fields([
        ("disk", disk.id.to_string()),
        ("node", disk.node.clone()),
        ("pool", disk.pool.clone()),
        ("path", disk.path.clone()),
        ("state", state),
        ("size", exact(disk.size_bytes)),
        ("store", disk.store.clone()),
        ("pgs", disk.pgs.to_string()),
    ])
}
