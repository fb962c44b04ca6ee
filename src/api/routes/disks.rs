//! `/v1/disks`

use super::reply::{Answer, Body, Failure, Named};
use crate::api::host::Host;
use crate::api::model::{
    Disk, DiskAdd, DiskDrain, DiskGrow, DiskList, DiskReplace, DiskReplaced, ScrubResult,
};
use crate::base::DiskId;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

pub(super) async fn list(State(host): State<Host>) -> Json<DiskList> {
    Json(host.disks())
}

pub(super) async fn show(State(host): State<Host>, Named(id): Named<u32>) -> Answer<Disk> {
    Ok(Json(host.disk(DiskId(id))?))
}

pub(super) async fn add(
    State(host): State<Host>,
    Body(add): Body<DiskAdd>,
) -> Result<(StatusCode, Json<Disk>), Failure> {
    let work = host.clone();
    let added = host
        .to_the_end(async move { work.add_disk(add).await })
        .await?;
    Ok((StatusCode::CREATED, Json(added)))
}

pub(super) async fn grow(
    State(host): State<Host>,
    Named(id): Named<u32>,
    Body(grow): Body<DiskGrow>,
) -> Answer<Disk> {
    let work = host.clone();
    let grown = host
        .to_the_end(async move { work.grow_disk(DiskId(id), grow).await })
        .await?;
    Ok(Json(grown))
}

pub(super) async fn drain(
    State(host): State<Host>,
    Named(id): Named<u32>,
    Body(drain): Body<DiskDrain>,
) -> Answer<Disk> {
    let work = host.clone();
    let drains = host
        .to_the_end(async move { work.drain_disk(DiskId(id), drain).await })
        .await?;
    Ok(Json(drains))
}

pub(super) async fn replace(
    State(host): State<Host>,
    Named(id): Named<u32>,
    Body(replace): Body<DiskReplace>,
) -> Answer<DiskReplaced> {
    let work = host.clone();
    let replaced = host
        .to_the_end(async move { work.replace_disk(DiskId(id), replace).await })
        .await?;
    Ok(Json(replaced))
}

pub(super) async fn remove(
    State(host): State<Host>,
    Named(id): Named<u32>,
) -> Result<StatusCode, Failure> {
    let work = host.clone();
    host.to_the_end(async move { work.remove_disk(DiskId(id)).await })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether it could be removed. No parameter of `remove`: an older daemon would not read it there, and remove the disk.
pub(super) async fn removal(State(host): State<Host>, Named(id): Named<u32>) -> Answer<Disk> {
    Ok(Json(host.may_remove_disk(DiskId(id))?))
}

pub(super) async fn scrub(State(host): State<Host>, Named(id): Named<u32>) -> Answer<ScrubResult> {
    Ok(Json(host.scrub_disk(DiskId(id)).await?))
}
