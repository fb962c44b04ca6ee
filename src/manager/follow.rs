//! How a node that is no member keeps its catalog: it asks a member for everything behind what it has, and the member answers when there is
//! something. One call is under way at a time, and an idle cluster makes one in [`Times::follow`](super::Times::follow).
//!
//! A member that hears its leader asks nobody. One that does not hears as much as others can tell it, and whether it is still one: a
//! member that was removed while it was away is told so here, and stands for election no more.

use super::consensus::Consensus;
use super::door::{Known, Shared};
use super::message::{self, Follow, Followed, Further, Part};
use super::transport::{PART_BYTES, SNAPSHOT_BYTES_MAX};
use crate::base::NodeId;
use crate::protocol::catalog::Catalog;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How long one part of a snapshot may take.
const PART_TIME: Duration = Duration::from_secs(5);

/// Follows the members for as long as it is not aborted.
pub(super) async fn follow(shared: Arc<Shared>) {
    let pause = shared.times.heartbeat;
    let mut turn = 0;
    loop {
        if needs_nobody(&shared) {
            sleep(shared.times.election_max).await;
            continue;
        }
        let others = shared.to_ask();
        let Some(&to) = others.get(turn % others.len().max(1)) else {
            sleep(pause).await;
            continue;
        };
        if let Err(why) = ask(&shared, to).await {
            tracing::debug!(node = %to, why, "no news of the manager");
            // The next one, so that who is dead or cut off is not asked for ever.
            turn += 1;
            sleep(pause).await;
        }
    }
}

/// Whether it hears all by Raft.
fn needs_nobody(shared: &Shared) -> bool {
    let standing = shared.group.standing();
    let me = shared.group.me();
    let takes_part = standing.voters.contains(&me) || standing.learners.contains(&me);
    takes_part && standing.is_current
}

async fn ask(shared: &Shared, to: NodeId) -> Result<(), String> {
    let wait = shared.times.follow;
    let question = message::follow(&Follow {
        after: shared.board.index(),
        wait_ms: wait.as_millis() as u64,
    });
    // An answer without news comes after `wait`; half of it more for the way.
    let answer = shared.transport.call(to, question, wait + wait / 2).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let told: Followed = message::read_reply_json(&answer).map_err(|error| error.to_string())?;
    let is_current = told.is_current;
    let before = shared.board.index();
    match told.news {
        Further::Entries(ref entries) => shared.board.apply_ahead(entries),
        Further::Snapshot { index, bytes } => fetch(shared, to, index, bytes).await?,
    }
    learn(shared, told);
    match is_current || shared.board.index() > before {
        true => Ok(()),
        false => Err("it hears no leader".into()),
    }
}

/// Takes over what is newer. Who the members are is that from anybody, because only the later of two entries counts; who leads is it only
/// from who hears it.
fn learn(shared: &Shared, told: Followed) {
    let me = shared.group.me();
    let own = shared.group.standing();
    let is_out = !told.voters.contains(&me) && !told.learners.contains(&me);
    if told.members_at > own.members_at && is_out && own.voters.contains(&me) {
        shared.group.stand_no_more();
    }
    let leader = told.leader.filter(|_| told.is_current);
    shared.learn(Known {
        voters: told.voters,
        learners: told.learners,
        at: told.members_at,
        leader,
        ..Known::default()
    });
    if told.is_current {
        let other = leader.filter(|leader| *leader != me);
        shared.board.hear_of(other);
    }
}

/// Gets a whole snapshot, part by part.
async fn fetch(shared: &Shared, to: NodeId, index: u64, length: u64) -> Result<(), String> {
    if length > SNAPSHOT_BYTES_MAX {
        return Err(format!("a snapshot of {length} bytes is not taken"));
    }
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        let offset = bytes.len() as u64;
        let question = message::part(&Part { index, offset });
        let answer = shared.transport.call(to, question, PART_TIME).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let part = message::read_reply(&answer).map_err(|error| error.to_string())?;
        if part.is_empty() || part.len() > PART_BYTES {
            return Err(format!(
                "a part of a snapshot has {} bytes at {offset} of {length}",
                part.len()
            ));
        }
        bytes.extend_from_slice(part);
    }
    if bytes.len() as u64 != length {
        return Err(format!(
            "a snapshot has {} bytes instead of {length}",
            bytes.len()
        ));
    }
    let restored = tokio::task::spawn_blocking(move || Catalog::restore(&bytes)).await;
    let restored = restored.map_err(|stopped| stopped.to_string())?;
    let catalog = restored.map_err(|error| error.to_string())?;
    shared.board.install_ahead(index, catalog);
    Ok(())
}
