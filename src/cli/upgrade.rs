//! `sarsen upgrade [--binary PATH]`

use super::{Context, Failure};
use crate::api::client::{Client, ClientError};
use crate::api::model::{ErrorBody, Restart, Upgrade as Asked, Upgrading};
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
    /// Only try the binary and say whether I/O would wait meanwhile: exit code 1 where it would
    #[arg(long)]
    dry_run: bool,
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
        let dry_run = self.dry_run;
        let asked = Asked { binary, dry_run };
        if dry_run {
            let would = context.client.upgrade(&asked).await?;
            context.output.show(&would, would_be)?;
            let waits = |restart: Restart| !restart.reason.is_empty();
            return match would.restart.is_some_and(waits) {
                true => Err(Failure::Told),
                false => Ok(()),
            };
        }
        let instance = context.client.status().await?.instance;
        let begun = context.client.upgrade(&asked).await?;
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

/// How many volumes and placement groups are named.
const NAMES_MAX: usize = 5;

/// What is said to a dry run.
fn would_be(would: &Upgrading) -> String {
    let Upgrading {
        binary,
        from_version,
        to_version,
        hands_over,
        restart,
    } = would;
    let guests = match hands_over {
        true => "guests' connections would be handed over",
        false => "guests would connect again: that version cannot take their connections over",
    };
    let text = format!("{binary} would take over, from {from_version} to {to_version}; {guests}");
    match restart {
        Some(restart) => format!("{text}\n{}", may_be_away(restart)),
        None => text,
    }
}

fn may_be_away(restart: &Restart) -> String {
    let mut text = match restart.reason.as_str() {
        "" => "no I/O would wait meanwhile, but for the pause of what is used on this node".into(),
        reason => format!("I/O WOULD WAIT meanwhile: {reason}"),
    };
    let pgs = restart.pgs.iter().map(u32::to_string).collect();
    let volumes = restart.volumes.clone();
    for (what, names) in [("volumes", volumes), ("placement groups", pgs)] {
        let names: Vec<String> = names;
        let (some, rest) = names.split_at(names.len().min(NAMES_MAX));
        if !some.is_empty() {
            text += &format!("\n{what}: {}", some.join(", "));
        }
        if !rest.is_empty() {
            text += &format!(" and {} more", rest.len());
        }
    }
    if !restart.pools_lacking.is_empty() {
        let pools = restart.pools_lacking.join(", ");
        text += &format!("\ncopies are lacking now in pool {pools}: wait until it is whole");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_what_would_wait_or_that_nothing_would() {
        let mut restart = Restart::default();
        assert!(may_be_away(&restart).starts_with("no I/O would wait"));
        restart.pools_lacking = vec!["default".into()];
        let text = may_be_away(&restart);
        assert!(text.contains("lacking now in pool default"), "{text}");
        restart.reason = "without node b, all is lost".into();
        restart.pgs = (1..=7).collect();
        restart.volumes = vec!["v".into()];
        let would = Upgrading {
            binary: "/usr/bin/sarsen".into(),
            from_version: "1".into(),
            to_version: "2".into(),
            hands_over: true,
            restart: Some(restart),
        };
        let text = would_be(&would);
        for words in [
            "from 1 to 2",
            "would be handed over",
            "I/O WOULD WAIT meanwhile: without node b",
            "volumes: v\n",
            "placement groups: 1, 2, 3, 4, 5 and 2 more",
        ] {
            assert!(text.contains(words), "{words:?} in {text}");
        }
    }
}
