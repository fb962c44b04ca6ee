//! `/v1/cluster/nodes`

use super::reply::{Answer, Body, Named, Params};
use crate::api::host::Host;
use crate::api::model::{
    Node, NodeDrain, NodeMaintenance, NodeRack, NodeRemove, NodeRemoved, Nodes,
};
use axum::Json;
use axum::extract::State;

pub(super) async fn list(State(host): State<Host>) -> Json<Nodes> {
    Json(host.cluster_nodes())
}

pub(super) async fn show(State(host): State<Host>, Named(name): Named<String>) -> Answer<Node> {
    Ok(Json(host.cluster_node(&name)?))
}

pub(super) async fn drain(
    State(host): State<Host>,
    Named(name): Named<String>,
    Body(drain): Body<NodeDrain>,
) -> Answer<Node> {
    let work = host.clone();
    let drains = host
        .to_the_end(async move { work.drain_node(&name, drain).await })
        .await?;
    Ok(Json(drains))
}

pub(super) async fn maintenance(
    State(host): State<Host>,
    Named(name): Named<String>,
    Body(set): Body<NodeMaintenance>,
) -> Answer<Node> {
    let work = host.clone();
    let is_set = host
        .to_the_end(async move { work.set_maintenance(&name, set).await })
        .await?;
    Ok(Json(is_set))
}

pub(super) async fn rack(
    State(host): State<Host>,
    Named(name): Named<String>,
    Body(set): Body<NodeRack>,
) -> Answer<Node> {
    let work = host.clone();
    let stands = host
        .to_the_end(async move { work.set_rack(&name, set).await })
        .await?;
    Ok(Json(stands))
}

pub(super) async fn remove(
    State(host): State<Host>,
    Named(name): Named<String>,
    Params(remove): Params<NodeRemove>,
) -> Answer<NodeRemoved> {
    let work = host.clone();
    let removed = host
        .to_the_end(async move { work.remove_node(&name, remove).await })
        .await?;
    Ok(Json(removed))
}
