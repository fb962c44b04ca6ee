//! What other nodes ask of this one. Handlers refer to the cluster weakly, so that they do not keep it alive.

use super::look::Here;
use super::site::{Inner, lock};
use crate::base::NodeId;
use crate::calls::{Admitted, Caller, Calls, Joiner, Service};
use crate::manager::{Manager, ProposeError};
use crate::protocol::catalog::{Command, Entry, Event, LEVEL};
use crate::trust::Authority;
use std::sync::{Arc, Weak};

const ENDS: &str = "this node is shutting down";

fn alive(inner: &Weak<Inner>) -> Result<(Arc<Inner>, Manager), String> {
    let inner = inner.upgrade().ok_or(ENDS)?;
    let manager = inner.manager.get().cloned().ok_or(ENDS)?;
    Ok((inner, manager))
}

fn known(caller: Caller) -> Result<NodeId, String> {
    let node = caller.node;
    node.ok_or_else(|| "only nodes of the cluster are answered; join it first".into())
}

impl Inner {
    /// What every node answers.
    pub fn serve(self: &Arc<Inner>, calls: &Calls) {
        for service in [Service::Manager, Service::Snapshot, Service::Catalog] {
            let weak = Arc::downgrade(self);
            calls.handle(service, move |caller, body| {
                let weak = weak.clone();
                async move {
                    let (_, manager) = alive(&weak)?;
                    Ok(manager.serve(known(caller)?, &body).await)
                }
            });
        }
        let weak = Arc::downgrade(self);
        calls.handle(Service::Presence, move |caller, _| {
            let weak = weak.clone();
            async move {
                known(caller)?;
                let (inner, manager) = alive(&weak)?;
                let here = Here {
                    index: manager.index().0,
                    version: env!("CARGO_PKG_VERSION").into(),
                    places: lock(&inner.places).clone(),
                    work: Some(lock(&inner.work).clone()),
                    level: LEVEL,
                };
                serde_json::to_vec(&here).map_err(|error| error.to_string())
            }
        });
        let weak = Arc::downgrade(self);
        calls.admit_by(move |node| {
            let (_, manager) = alive(&weak)?;
            let catalog = manager.catalog();
            // A node whose catalog does not have itself has none yet, and certificates are all it can go by.
            let is_new = catalog.node(manager.node()).is_none();
            match is_new || catalog.node(node).is_some() {
                true => Ok(()),
                false if node.0 <= catalog.nodes_ever() => {
                    Err(format!("node {node} was removed from the cluster"))
                }
                false => Err(format!(
                    "node {node} has joined a moment ago, and is not known here yet"
                )),
            }
        });
    }

    /// What a node answers that holds the authority.
    pub fn serve_as_member(self: &Arc<Inner>, calls: &Calls, authority: &Arc<Authority>) {
        calls.serve_renewals(Arc::clone(authority));
        let weak = Arc::downgrade(self);
        calls.serve_joins(Arc::clone(authority), move |joiner| {
            let weak = weak.clone();
            async move {
                let (inner, manager) = alive(&weak)?;
                inner.admit(&manager, joiner).await
            }
        });
        if !calls.is_authenticated() {
            // It would go over the network for everybody to read.
            return;
        }
        let weak = Arc::downgrade(self);
        let authority = Arc::clone(authority);
        calls.handle(Service::Authority, move |caller, _| {
            let (weak, authority) = (weak.clone(), Arc::clone(&authority));
            async move {
                let (_, manager) = alive(&weak)?;
                let node = known(caller)?;
                match manager.members().voters.contains(&node) {
                    true => {
                        tracing::info!(%node, "a member is given the cluster's authority");
                        Ok(authority.export_for_member())
                    }
                    false => Err(format!("node {node} is no member of the manager")),
                }
            }
        });
    }

    /// Makes a node of a joiner, durably.
    async fn admit(&self, manager: &Manager, joiner: Joiner) -> Result<Admitted, String> {
        let entry = Entry {
            key: joiner.key.to_string(),
            token: joiner.token.to_string(),
        };
        let command = Command::JoinNode {
            name: joiner.name,
            addresses: joiner.addresses.iter().map(ToString::to_string).collect(),
            entry,
        };
        let events = manager
            .propose(command)
            .await
            .map_err(|error| match error {
                ProposeError::Refused(refusal) => format!("{} ({})", refusal.reason, refusal.hint),
                error => format!("{error}; say it again with the same token"),
            })?;
        let node = match events.first() {
            Some(Event::NodeAdded { node } | Event::NodeChanged { node }) => node.id,
            _ => return Err("the catalog added no node; see the log of the leader".into()),
        };
        let mut members = self.members_reached_at();
        if let (true, Some(running)) = (members.is_empty(), &*lock(&self.running)) {
            members.push(crate::calls::Member {
                node: manager.node(),
                addresses: vec![running.reached_at],
            });
        }
        Ok(Admitted { node, members })
    }
}
