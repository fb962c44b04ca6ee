//! `/v1/cluster/clients` and `/v1/cluster/api-tokens`

use super::reply::{Answer, Body, Failure, Named};
use crate::api::host::Host;
use crate::api::model::{ClusterApiToken, ClusterClientMade, ClusterClientMake, ClusterClients};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

pub(super) async fn list(State(host): State<Host>) -> Answer<ClusterClients> {
    Ok(Json(host.clients()?))
}

pub(super) async fn make(
    State(host): State<Host>,
    Body(make): Body<ClusterClientMake>,
) -> Answer<ClusterClientMade> {
    let work = host.clone();
    let made = host
        .to_the_end(async move { work.make_client(make).await })
        .await?;
    Ok(Json(made))
}

pub(super) async fn make_token(
    State(host): State<Host>,
    Body(make): Body<ClusterClientMake>,
) -> Answer<ClusterApiToken> {
    let work = host.clone();
    let made = host
        .to_the_end(async move { work.make_api_token(make).await })
        .await?;
    Ok(Json(made))
}

pub(super) async fn revoke(
    State(host): State<Host>,
    Named(name): Named<String>,
) -> Result<StatusCode, Failure> {
    let work = host.clone();
    host.to_the_end(async move { work.revoke_client(&name).await })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
