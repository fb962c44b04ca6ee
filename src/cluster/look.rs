//! Who is there: every other node is asked once a second whether it is, and how far its catalog has come.
//!
//! One question a node is under way at a time, and the next round begins when all of the last have ended.

use super::site::{Inner, lock};
use super::tend;
use super::work::Work;
use crate::base::NodeId;
use crate::calls::{CallError, Calls, Reason, Service};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long a node may take to say that it is there. A heartbeat on a busy machine may be a second late.
const WITHIN: Duration = Duration::from_secs(2);

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Here {
    /// The last entry of the manager's log that its catalog has.
    pub index: u64,
    pub version: String,
    /// Of older builds nothing: they have no links.
    #[serde(default)]
    pub places: Places,
    /// Of older builds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// [`LEVEL`](crate::protocol::catalog::LEVEL) of its build; older ones say nothing, and have 0.
    #[serde(default)]
    pub level: u32,
}

/// Where data links of a node lead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// How many shards it has; 0: it takes no links.
    pub shards: u16,
    /// The shard that has each of its disks.
    pub disks: BTreeMap<u32, u16>,
}

/// What was last seen of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Why it does not answer; nothing where it does.
    pub silent: Option<String>,
    /// Seconds since 1970, UTC: since when it answers, or does not.
    pub since: u64,
    /// What it said last.
    pub here: Option<Here>,
    /// Whether it is there and does not take this node for one of the cluster.
    pub disowns: bool,
}

/// Why a node does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Silent {
    pub why: String,
    pub disowns: bool,
}

impl From<String> for Silent {
    fn from(why: String) -> Silent {
        let disowns = false;
        Silent { why, disowns }
    }
}

impl Seen {
    /// What is known after one more look.
    pub fn after(before: Option<Seen>, now: u64, answer: Result<Here, Silent>) -> Seen {
        let (silent, here, disowns) = match answer {
            Ok(here) => (None, Some(here), false),
            Err(Silent { why, disowns }) => (Some(why), None, disowns),
        };
        let same = before
            .as_ref()
            .filter(|before| before.silent.is_some() == silent.is_some());
        Seen {
            since: same.map_or(now, |before| before.since),
            here: here.or_else(|| before.and_then(|before| before.here)),
            silent,
            disowns,
        }
    }
}

/// Looks at the others for as long as the cluster is there.
pub(super) async fn look(inner: Weak<Inner>, calls: Calls) {
    let mut known = BTreeSet::new();
    loop {
        let Some(others) = inner.upgrade().map(|inner| {
            // Who came a moment ago has an address before it is asked.
            if let Some(manager) = inner.manager.get() {
                tend::learn(manager, &calls, &mut known);
            }
            others(&inner)
        }) else {
            return;
        };
        let mut asked = JoinSet::new();
        for node in others {
            let calls = calls.clone();
            asked.spawn(async move { (node, ask(&calls, node).await) });
        }
        while let Some(answered) = asked.join_next().await {
            let (Ok((node, answer)), Some(inner)) = (answered, inner.upgrade()) else {
                continue;
            };
            let now = inner.clock.now().0;
            let mut seen = lock(&inner.seen);
            let before = seen.remove(&node);
            seen.insert(node, Seen::after(before, now, answer));
        }
        if let Some(inner) = inner.upgrade() {
            let level = |seen: &Seen| seen.here.as_ref().map(|here| here.level);
            let seen = lock(&inner.seen);
            let levels = seen.iter().map(|(node, seen)| (*node, level(seen)));
            if let Some(manager) = inner.manager.get() {
                manager.know_levels(levels.collect());
            }
        }
        sleep(EVERY).await;
    }
}

/// Who is asked: the nodes of the catalog. Of who was removed nothing is remembered.
fn others(inner: &Arc<Inner>) -> Vec<NodeId> {
    let Some(manager) = inner.manager.get() else {
        return Vec::new();
    };
    let (catalog, me) = (manager.catalog(), manager.node());
    let others: Vec<NodeId> = catalog
        .nodes()
        .map(|node| node.id)
        .filter(|id| *id != me)
        .collect();
    lock(&inner.seen).retain(|node, _| others.contains(node));
    others
}

async fn ask(calls: &Calls, node: NodeId) -> Result<Here, Silent> {
    let answer = calls
        .call(node, Service::Presence, Vec::new(), WITHIN)
        .await;
    let answer = answer.map_err(|error| Silent {
        disowns: matches!(&error, CallError::NotWelcome { reason, .. } if *reason == Reason::Removed),
        why: error.to_string(),
    })?;
    let here = serde_json::from_slice(&answer);
    here.map_err(|error| format!("its answer is odd: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_seen_since_its_last_change_and_keeps_what_it_said() {
        let here = |index| Here {
            index,
            version: "0.1.0".into(),
            places: Places::default(),
            work: None,
            level: 0,
        };
        let seen = Seen::after(None, 10, Ok(here(1)));
        let seen = Seen::after(Some(seen), 11, Ok(here(2)));
        assert_eq!((seen.since, seen.silent.clone()), (10, None));
        let seen = Seen::after(Some(seen), 12, Err(String::from("cut").into()));
        let seen = Seen::after(Some(seen), 13, Err(String::from("still cut").into()));
        assert_eq!(
            (seen.since, seen.silent.as_deref()),
            (12, Some("still cut"))
        );
        assert_eq!(seen.here, Some(here(2)));
        let seen = Seen::after(Some(seen), 14, Ok(here(5)));
        assert_eq!((seen.since, seen.here), (14, Some(here(5))));
    }
}
