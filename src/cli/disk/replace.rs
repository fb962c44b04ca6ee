//! `sarsen disk replace ID PATH`

use super::add::{meant, would_be};
use super::drain::emptied;
use super::show::id_of;
use crate::api::client::ClientError;
use crate::api::model::{Disk, DiskReplace, DiskReplaced, ErrorBody, ErrorCode};
use crate::api::size::parse;
use crate::cli::{Context, Failure, moves};
use serde::Serialize;
use std::path::PathBuf;

/// Interrupted at any point and said again, it goes on where it was.
#[derive(Debug, clap::Args)]
pub struct Replace {
    /// The number of the disk that goes, or its path
    disk: String,
    /// The new one: a block device, or a file
    path: PathBuf,
    /// Make a sparse file of this size
    #[arg(long, value_parser = parse)]
    size: Option<u64>,
    /// Only say what would come of it, or why it cannot be done; nothing is made or written
    #[arg(long)]
    dry_run: bool,
    /// Remove the old disk when nothing is on it any more, and return then
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
}

/// What was done, or would be.
#[derive(Debug, Serialize)]
struct Replaced {
    /// Nothing where it was removed before.
    old: Option<Disk>,
    new: Disk,
    /// Whether the old one is no part of the cluster any more.
    removed: bool,
}

impl Replace {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let replace = DiskReplace {
            path: meant(&self.path)?,
            size_bytes: self.size,
            dry_run: self.dry_run,
        };
        let begun = match id_of(context, &self.disk).await {
            Ok(id) => context.client.replace_disk(id, &replace).await,
            Err(failure) => Err(ClientError::Refused(refusal(failure)?)),
        };
        let DiskReplaced { mut old, new } = match begun {
            Ok(begun) => begun,
            Err(ClientError::Refused(why)) if is_gone(&why) => {
                return self.was_done(context, &replace.path, why).await;
            }
            Err(error) => return Err(error.into()),
        };
        if self.wait {
            old = emptied(context, old).await?;
            match context.client.remove_disk(old.id).await {
                // By somebody else, a moment ago.
                Err(ClientError::Refused(why)) if is_gone(&why) => {}
                removed => removed?,
            }
        }
        let done = Replaced {
            old: Some(old),
            new,
            removed: self.wait,
        };
        let dry_run = self.dry_run;
        context.output.show(&done, |done| for_people(done, dry_run))
    }

    /// The old disk is not there. Where the new one is, an earlier command was interrupted after all was done.
    async fn was_done(
        &self,
        context: &mut Context,
        path: &str,
        why: ErrorBody,
    ) -> Result<(), Failure> {
        let here = context.client.status().await?.nodes;
        let is_new = |disk: &Disk| disk.path == path && here.iter().any(|of| of.name == disk.node);
        let disks = context.client.disks().await?.disks;
        let Some(new) = disks.into_iter().find(is_new) else {
            return Err(Failure::Refused(why));
        };
        let done = Replaced {
            old: None,
            new,
            removed: true,
        };
        context.output.show(&done, |done| {
            let Disk { id, path, .. } = &done.new;
            let gone = &self.disk;
            format!("there is no disk {gone}, and disk {id} is at {path}: nothing is left to do")
        })
    }
}

/// Whether it says that there is no such disk.
fn is_gone(why: &ErrorBody) -> bool {
    why.code == ErrorCode::NotFound && why.field == "disk"
}

/// What a failure says, where it is a refusal.
fn refusal(failure: Failure) -> Result<ErrorBody, Failure> {
    match failure {
        Failure::Refused(why) => Ok(why),
        other => Err(other),
    }
}

fn for_people(done: &Replaced, dry_run: bool) -> String {
    let Some(old) = &done.old else {
        return String::new();
    };
    let (id, path) = (old.id, &old.path);
    let (new, at) = (done.new.id, &done.new.path);
    if dry_run {
        let mut parts = vec![format!(
            "disk {id} ({path}) would be drained, and disk {new} at {at} take its place"
        )];
        let arrival = &done.new.arrival;
        parts.extend(arrival.iter().map(|arrival| would_be(&done.new, arrival)));
        parts.extend(old.moves.iter().map(moves::for_people));
        return parts.join("\n\n");
    }
    match (done.removed, old.pgs) {
        (true, _) => format!(
            "disk {id} ({path}) is no part of the cluster any more; disk {new} at {at} took its place"
        ),
        (false, 0) => format!(
            "disk {new} is at {at}, and nothing is on disk {id} any more: `sarsen disk remove {id}`"
        ),
        (false, pgs) => format!(
            "disk {new} is at {at}, and {pgs} placement groups leave disk {id}; say the same with --wait, or `sarsen disk remove {id}` when they have (`sarsen disk show {id}`)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(id: u32, path: &str, pgs: u32) -> Disk {
        Disk {
            id,
            node: "a".into(),
            pool: "default".into(),
            path: path.into(),
            store: String::new(),
            size_bytes: 1 << 30,
            state: "draining".into(),
            reason: String::new(),
            pgs,
            moves: None,
            arrival: None,
        }
    }

    #[test]
    fn what_was_done_and_what_to_say_next_is_said() {
        let says = |pgs, removed, dry_run| {
            let done = Replaced {
                old: Some(disk(3, "/dev/vdb", pgs)),
                new: disk(5, "/dev/vdc", 0),
                removed,
            };
            for_people(&done, dry_run)
        };
        let next = says(12, false, false);
        assert!(next.contains("12 placement groups leave disk 3"), "{next}");
        assert!(next.contains("--wait"), "{next}");
        let next = says(0, false, false);
        assert!(next.ends_with("`sarsen disk remove 3`"), "{next}");
        let done = says(0, true, false);
        assert!(done.contains("disk 5 at /dev/vdc took its place"), "{done}");
        let would = says(12, false, true);
        assert!(would.contains("would be drained"), "{would}");
    }
}
