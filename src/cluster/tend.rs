//! What a node does by itself for the cluster: it says where it is, becomes a member where it is one of the first
//! three, gets the authority where it is one, and renews its certificate.
//!
//! All of it is looked at every half second, against the catalog as it is then, so nothing has to be remembered, and what did not work is
//! tried again.

use super::error::ClusterError;
use super::kept::Kept;
use super::site::{Inner, lock};
use crate::base::NodeId;
use crate::calls::{Calls, Member, Service};
use crate::manager::Manager;
use crate::protocol::catalog::{Command, MembersBy, Node};
use crate::trust::{Authority, Keeper};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// Until what did not work is tried again.
const AGAIN: Duration = Duration::from_secs(3);
/// How many of the first nodes become members by themselves.
const FIRST: usize = 3;
/// How long a member may take to hand over the authority.
const AUTHORITY_WITHIN: Duration = Duration::from_secs(5);
/// How often the clock is looked at for the certificate's sake.
const CLOCK: Duration = Duration::from_secs(60);

/// The addresses of a node, those that can be dialled.
pub(super) fn addresses(node: &Node) -> Vec<SocketAddr> {
    let parsed = node.addresses.iter().filter_map(|at| at.parse().ok());
    parsed.collect()
}

/// Tends for as long as the cluster is there.
pub(super) async fn tend(inner: Weak<Inner>, calls: Calls, reached_at: SocketAddr) {
    let mut again = Instant::now();
    loop {
        sleep(EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        let Some(manager) = inner.manager.get().cloned() else {
            continue;
        };
        keep_members(&inner).await;
        if Instant::now() < again {
            continue;
        }
        for done in [
            tell_address(&manager, reached_at).await,
            make_members(&inner, &manager).await,
            get_authority(&inner, &manager, &calls).await,
        ] {
            if let Err(error) = done {
                tracing::warn!("{error}; it is tried again");
                again = Instant::now() + AGAIN;
            }
        }
    }
}

/// Renews the certificate for as long as the cluster is there. Members hold the authority, this node perhaps among them.
pub(super) async fn renew(inner: Weak<Inner>, calls: Calls, keeper: Arc<Keeper>) {
    let members = move || {
        let inner = inner.upgrade();
        let manager = inner.as_ref().and_then(|inner| inner.manager.get());
        let voters = manager.map(|manager| manager.members().voters);
        voters.unwrap_or_default().into_iter().collect()
    };
    calls.keep_renewed(keeper, members, CLOCK).await;
}

/// Takes over where the nodes of the catalog are, and forgets those that it does not have any more.
pub(super) fn learn(manager: &Manager, calls: &Calls, known: &mut BTreeSet<NodeId>) {
    let (catalog, me) = (manager.catalog(), manager.node());
    if catalog.node(me).is_none() {
        // No catalog yet.
        return;
    }
    let mut now = BTreeSet::new();
    for node in catalog.nodes().filter(|node| node.id != me) {
        let addresses = addresses(node);
        if addresses.is_empty() {
            continue;
        }
        now.insert(node.id);
        if let Err(error) = calls.set_addresses(node.id, &addresses) {
            tracing::warn!(node = %node.id, %error, "its addresses are not taken");
        }
    }
    known.difference(&now).for_each(|node| calls.forget(*node));
    *known = now;
}

/// Keeps who the members are and where, for the next start.
async fn keep_members(inner: &Arc<Inner>) {
    let members: Vec<Member> = inner.members_reached_at();
    let Some(kept) = lock(&inner.kept).clone() else {
        return;
    };
    if members.is_empty() || members == kept.members {
        return;
    }
    let kept = Kept::new(kept.how, kept.node, kept.port, members);
    let (folder, written) = (inner.folder.clone(), kept.clone());
    let written = tokio::task::spawn_blocking(move || written.write(&folder)).await;
    match written {
        Ok(Ok(())) => *lock(&inner.kept) = Some(kept),
        Ok(Err(error)) => tracing::warn!(%error, "who the members are is not kept"),
        Err(error) => tracing::warn!(%error, "who the members are is not kept"),
    }
}

/// Has the catalog say where this node is reached.
pub(super) async fn tell_address(
    manager: &Manager,
    reached_at: SocketAddr,
) -> Result<(), ClusterError> {
    let node = manager.node();
    let now = vec![reached_at.to_string()];
    let is_said = manager
        .catalog()
        .node(node)
        .is_none_or(|node| node.addresses == now);
    if !is_said {
        let addresses = now;
        manager
            .propose(Command::SetAddresses { node, addresses })
            .await?;
    }
    Ok(())
}

/// On the leader: makes the first three nodes that answer the members, where nobody has named any and there is one.
async fn make_members(inner: &Arc<Inner>, manager: &Manager) -> Result<(), ClusterError> {
    let (me, members, catalog) = (manager.node(), manager.members(), manager.catalog());
    let is_due = catalog.members_by() == MembersBy::Arrival
        && members.leader == Some(me)
        && members.voters == BTreeSet::from([me])
        && catalog.nodes().nth(FIRST - 1).is_some();
    if !is_due {
        return Ok(());
    }
    let answers = |node: &NodeId| {
        let seen = lock(&inner.seen);
        *node == me || seen.get(node).is_some_and(|seen| seen.silent.is_none())
    };
    let others = catalog
        .nodes()
        .map(|node| node.id)
        .filter(|node| *node != me);
    let mut first = BTreeSet::from([me]);
    first.extend(others.filter(answers).take(FIRST - 1));
    if first.len() < FIRST {
        return Ok(());
    }
    drop(catalog);
    tracing::info!(?first, "the first nodes become members of the manager");
    manager.set_voters(first).await?;
    Ok(())
}

/// On a member that does not hold the authority: gets it from one that does.
async fn get_authority(
    inner: &Arc<Inner>,
    manager: &Manager,
    calls: &Calls,
) -> Result<(), ClusterError> {
    let voters = manager.members().voters;
    let me = manager.node();
    let root = match &*lock(&inner.running) {
        Some(running) if running.authority.is_none() => running.keeper.root().clone(),
        _ => return Ok(()),
    };
    if !voters.contains(&me) || !calls.is_authenticated() {
        return Ok(());
    }
    let mut last = String::from("nobody else is a member");
    for member in voters.into_iter().filter(|member| *member != me) {
        let asked = calls.call(member, Service::Authority, Vec::new(), AUTHORITY_WITHIN);
        let bytes = match asked.await {
            Ok(bytes) => bytes,
            Err(error) => {
                last = format!("node {member} {error}");
                continue;
            }
        };
        let (folder, clock) = (inner.folder.clone(), inner.clock.clone());
        let taken = Authority::import(&folder, &root, &bytes, clock)?;
        let authority = Arc::new(taken);
        inner.serve_as_member(calls, &authority);
        if let Some(running) = &mut *lock(&inner.running) {
            running.authority = Some(authority);
        }
        tracing::info!(%member, "this member has the cluster's authority now");
        return Ok(());
    }
    let why = format!("the cluster's authority is not here yet: {last}");
    Err(ClusterError::Calls(why))
}
