//! `sarsen volume show NAME`

use crate::api::model::{NbdClients, Volume, VolumeState};
use crate::api::size::human;
use crate::cli::output::{exact, fields};
use crate::cli::status::states;
use crate::cli::{Context, Failure, attachments};

#[derive(Debug, clap::Args)]
pub struct Show {
    name: String,
}

impl Show {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let volume = context.client.volume(&self.name).await?;
        context.output.show(&volume, for_people)
    }
}

pub(super) fn for_people(volume: &Volume) -> String {
    let layers = volume
        .layers
        .iter()
        .map(|layer| format!("{} ({})", layer.id, layer.state));
    fields([
        ("volume", volume.name.clone()),
        ("size", exact(volume.size_bytes)),
        ("block size", volume.block_size_bytes.to_string()),
        ("state", with_reason(volume)),
        (
            "pool",
            format!(
                "{}, over {} placement groups{}",
                volume.pool,
                volume.pgs,
                states_of(volume)
            ),
        ),
        ("connections", volume.connections.to_string()),
        ("attached", attached(volume)),
        ("shared", if volume.shared { "yes" } else { "no" }.into()),
        (
            "io timeout",
            match volume.io_timeout_seconds {
                Some(seconds) => format!("{seconds} s"),
                None => "none".into(),
            },
        ),
        (
            "clients",
            match &volume.clients {
                None | Some(NbdClients::None) => "none".into(),
                Some(NbdClients::Any) => "any".into(),
                Some(NbdClients::Only(names)) => names.join(", "),
            },
        ),
        ("layers", layers.collect::<Vec<_>>().join(", ")),
        ("uri", volume.uri.clone()),
    ])
}

/// How its placement groups are, where they are not whole and at rest.
fn states_of(volume: &Volume) -> String {
    match &volume.pg_states {
        Some(pgs) if pgs.lacking() > 0 || pgs.filling > 0 => format!(": {}", states(pgs)),
        _ => String::new(),
    }
}

/// What serves it to a guest, or as a device.
fn attached(volume: &Volume) -> String {
    let all: Vec<String> = volume.attachments.iter().map(attachments::short).collect();
    match all.is_empty() {
        true => "no".into(),
        false => all.join("; "),
    }
}

fn with_reason(volume: &Volume) -> String {
    match volume.reason.as_str() {
        "" => state(volume),
        reason => format!("{}: {reason}", state(volume)),
    }
}

pub(super) fn state(volume: &Volume) -> String {
    match (volume.state, &volume.import) {
        (VolumeState::Ready, _) => "ready".into(),
        (VolumeState::Degraded, _) => "degraded".into(),
        (VolumeState::Failed, _) => "failed".into(),
        (VolumeState::Deleting, _) => "deleting".into(),
        (VolumeState::Importing, None) => "importing".into(),
        (VolumeState::Importing, Some(import)) => {
            format!("importing, {} done", human(import.through_bytes))
        }
    }
}
