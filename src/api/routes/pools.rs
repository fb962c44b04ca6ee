//! `/v1/pools`

use super::reply::{Answer, Body, Failure, Named};
use crate::api::host::Host;
use crate::api::model::{Pool, PoolCreate, PoolList, PoolSet};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

pub(super) async fn list(State(host): State<Host>) -> Json<PoolList> {
    Json(host.pools())
}

pub(super) async fn show(State(host): State<Host>, Named(name): Named<String>) -> Answer<Pool> {
    Ok(Json(host.pool(&name)?))
}

pub(super) async fn create(
    State(host): State<Host>,
    Body(create): Body<PoolCreate>,
) -> Result<(StatusCode, Json<Pool>), Failure> {
    let work = host.clone();
    let made = host
        .to_the_end(async move { work.create_pool(create).await })
        .await?;
    Ok((StatusCode::CREATED, Json(made)))
}

pub(super) async fn set(
    State(host): State<Host>,
    Named(name): Named<String>,
    Body(set): Body<PoolSet>,
) -> Answer<Pool> {
    let work = host.clone();
    let changed = host
        .to_the_end(async move { work.set_pool(&name, set).await })
        .await?;
    Ok(Json(changed))
}
