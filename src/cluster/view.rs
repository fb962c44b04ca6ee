//! The cluster as this node sees it, to be shown.

use super::look::Seen;
use super::site::{Inner, lock};
use crate::base::{ClusterId, NodeId};
use crate::trust::WallTime;

/// For how many seconds another node says that this one was removed before that is believed.
const DISOWNED_FOR: u64 = 3;

/// What a node is to the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It has a vote.
    Member,
    /// It is about to get one.
    Learner,
    /// It has the catalog of a member.
    Follower,
}

/// Whether a node can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It is this one.
    This,
    /// Nobody has looked yet.
    Unknown,
    /// Since then, in seconds since 1970 UTC.
    Reachable {
        since: u64,
    },
    Unreachable {
        since: u64,
        why: String,
    },
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewed {
    pub node: NodeId,
    pub name: String,
    pub addresses: Vec<String>,
    pub place: Place,
    pub presence: Presence,
    /// How many entries of the manager's log its catalog was behind the newest that this node knows of; where that is known.
    pub lag: Option<u64>,
    /// Of its build; where that is known.
    pub version: Option<String>,
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub cluster: ClusterId,
    pub this: NodeId,
    /// Who leads the manager; nothing where this node hears of nobody who does.
    pub leader: Option<NodeId>,
    /// By their numbers.
    pub nodes: Vec<Viewed>,
}

/// A time in seconds since 1970 UTC, for people.
pub fn date_of(seconds: u64) -> String {
    WallTime(seconds).to_string()
}

impl Inner {
    /// Why this node is one of the cluster no more; nothing where it is one as far as it knows. By its own catalog, or by what others say for a while: one of
    /// them may be behind.
    pub fn removed(&self) -> Option<String> {
        lock(&self.running).as_ref()?;
        let manager = self.manager.get()?;
        let (catalog, me) = (manager.catalog(), manager.node());
        if catalog.node(me).is_none() {
            let was_here = me.0 <= catalog.nodes_ever();
            return was_here.then(|| format!("node {me}, this one, was removed from the cluster"));
        }
        let late = self.clock.now().0.saturating_sub(DISOWNED_FOR);
        let seen = lock(&self.seen);
        let mut disown = seen
            .iter()
            .filter(|(_, seen)| seen.disowns && seen.since <= late);
        let (node, seen) = disown.next()?;
        let name = catalog
            .node(*node)
            .map_or_else(|| node.to_string(), |of| of.name.clone());
        Some(format!("node {name} says: {}", seen.silent.as_deref()?))
    }

    /// The cluster; nothing where this node is alone.
    pub fn view(&self) -> Option<View> {
        let cluster = lock(&self.running)
            .as_ref()
            .map(|running| running.cluster())?;
        let manager = self.manager.get()?;
        let (catalog, members, me) = (manager.catalog(), manager.members(), manager.node());
        let seen = lock(&self.seen).clone();
        let leader = members.leader.filter(|leader| {
            let answers = |seen: &Seen| seen.silent.is_none();
            manager.hears_leader() && (*leader == me || seen.get(leader).is_none_or(answers))
        });
        let index = manager.index().0;
        let indices = seen.values().filter_map(|seen| seen.here.as_ref());
        let newest = indices.map(|here| here.index).chain([index]).max();
        let newest = newest.unwrap_or(index);
        let viewed = |node: &crate::protocol::catalog::Node| {
            let of = seen.get(&node.id);
            let index = match node.id == me {
                true => Some(index),
                false => of.and_then(|seen| Some(seen.here.as_ref()?.index)),
            };
            Viewed {
                node: node.id,
                name: node.name.clone(),
                addresses: node.addresses.clone(),
                place: match node.id {
                    id if members.voters.contains(&id) => Place::Member,
                    id if members.learners.contains(&id) => Place::Learner,
                    _ => Place::Follower,
                },
                presence: match of {
                    _ if node.id == me => Presence::This,
                    None => Presence::Unknown,
                    Some(Seen {
                        silent: None,
                        since,
                        ..
                    }) => Presence::Reachable { since: *since },
                    Some(Seen {
                        silent: Some(why),
                        since,
                        ..
                    }) => Presence::Unreachable {
                        since: *since,
                        why: why.clone(),
                    },
                },
                lag: index.map(|index| newest.saturating_sub(index)),
                version: match node.id == me {
                    true => Some(env!("CARGO_PKG_VERSION").into()),
                    false => of.and_then(|seen| Some(seen.here.as_ref()?.version.clone())),
                },
            }
        };
        Some(View {
            cluster,
            this: me,
            leader,
            nodes: catalog.nodes().map(viewed).collect(),
        })
    }
}
