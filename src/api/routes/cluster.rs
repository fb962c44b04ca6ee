//! `/v1/cluster`

use super::reply::{Answer, Body};
use crate::api::host::Host;
use crate::api::model::{
    ClusterFounded, ClusterJoin, ClusterJoined, ClusterMembersSet, ClusterStatus, ClusterToken,
    ClusterTokenMake,
};
use axum::Json;
use axum::extract::State;

pub(super) async fn show(State(host): State<Host>) -> Answer<ClusterStatus> {
    Ok(Json(host.cluster_status()?))
}

pub(super) async fn found(State(host): State<Host>) -> Answer<ClusterFounded> {
    let work = host.clone();
    let founded = host
        .to_the_end(async move { work.found_cluster().await })
        .await?;
    Ok(Json(founded))
}

pub(super) async fn token(
    State(host): State<Host>,
    Body(make): Body<ClusterTokenMake>,
) -> Answer<ClusterToken> {
    Ok(Json(host.make_token(make.expires_seconds)?))
}

pub(super) async fn join(
    State(host): State<Host>,
    Body(join): Body<ClusterJoin>,
) -> Answer<ClusterJoined> {
    let work = host.clone();
    let joined = host
        .to_the_end(async move { work.join_cluster(join).await })
        .await?;
    Ok(Json(joined))
}

pub(super) async fn set_members(
    State(host): State<Host>,
    Body(set): Body<ClusterMembersSet>,
) -> Answer<ClusterStatus> {
    let work = host.clone();
    let set = host
        .to_the_end(async move { work.set_members(set).await })
        .await?;
    Ok(Json(set))
}
