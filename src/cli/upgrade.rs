//! `sarsen upgrade [--binary PATH]`

use super::{Context, Failure};
use crate::api::client::{Client, ClientError};
use crate::api::model::{ErrorBody, Upgrade as Asked, Upgrading};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the next daemon may take until it serves: disks are opened and journals replayed before.
const SERVES_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, clap::Args)]
pub struct Upgrade {
    /// The binary that the daemon is to become [default: what lies now where the running one came from]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// How long the daemon may be away: its socket stays open from one to the next, so it has ended, unless the service manager
/// starts it again.
const AWAY_MAX: Duration = Duration::from_secs(15);

/// What was done.
#[derive(Debug, Serialize)]
struct Upgraded {
    #[serde(flatten)]
    begun: Upgrading,
    /// Until the next daemon served.
    milliseconds: u64,
}

impl Upgrade {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let binary = match self.binary {
            None => None,
            Some(path) => {
                let whole = std::path::absolute(&path);
                let whole = whole.map_err(|error| Failure::local(path.display(), error))?;
                Some(whole.display().to_string())
            }
        };
        let instance = context.client.status().await?.instance;
        let begun = context.client.upgrade(&Asked { binary }).await?;
        let since = Instant::now();
        next_serves(&mut context.client, &instance).await?;
        let milliseconds = since.elapsed().as_millis() as u64;
        let done = Upgraded {
            begun,
            milliseconds,
        };
        context.output.show(&done, for_people)
    }
}

/// Waits until another process than `instance` serves.
pub(super) async fn next_serves(client: &mut Client, instance: &str) -> Result<(), Failure> {
    let since = Instant::now();
    let mut seen = since;
    loop {
        match client.status().await {
            Ok(status) if status.instance != instance => return Ok(()),
            Err(ClientError::CannotReach { .. } | ClientError::CannotReachRemote { .. }) => {}
            // The old one has not ended yet, or it is in between.
            Ok(_) | Err(ClientError::Malformed(_) | ClientError::Refused(_)) => {
                seen = Instant::now();
            }
        }
        if since.elapsed() > SERVES_MAX || seen.elapsed() > AWAY_MAX {
            let message = "the next daemon does not serve";
            return Err(Failure::Refused(ErrorBody::unavailable(
                message,
                "see its log",
            )));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn for_people(done: &Upgraded) -> String {
    let Upgrading {
        from_version,
        to_version,
        hands_over,
        ..
    } = &done.begun;
    let guests = match hands_over {
        true => "guests' connections were handed over",
        false => "guests connect again: that version cannot take their connections over",
    };
    let ms = done.milliseconds;
    format!("upgraded from {from_version} to {to_version} in {ms} ms; {guests}")
}
