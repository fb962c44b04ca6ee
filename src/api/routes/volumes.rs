//! `/v1/volumes`

use super::reply::{Answer, Body, Failure, Named};
use crate::api::host::Host;
use crate::api::model::{
    ErrorBody, ErrorCode, ImportFinish, Volume, VolumeChange, VolumeCreate, VolumeList,
};
use crate::trust::Role;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};

pub(super) async fn list(State(host): State<Host>) -> Json<VolumeList> {
    Json(host.volumes())
}

pub(super) async fn show(State(host): State<Host>, Named(name): Named<String>) -> Answer<Volume> {
    Ok(Json(host.volume(&name)?))
}

pub(super) async fn create(
    State(host): State<Host>,
    Body(create): Body<VolumeCreate>,
) -> Result<(StatusCode, Json<Volume>), Failure> {
    let work = host.clone();
    let created = host
        .to_the_end(async move { work.create_volume(create).await })
        .await?;
    Ok((StatusCode::CREATED, Json(created)))
}

pub(super) async fn change(
    State(host): State<Host>,
    Named(name): Named<String>,
    role: Option<Extension<Role>>,
    Body(change): Body<VolumeChange>,
) -> Answer<Volume> {
    // Who may use a volume is about who may what; on the unix socket nobody has a role.
    if let (Some(Extension(role)), Some(_)) = (role, &change.clients)
        && role < Role::Admin
    {
        let message = format!("changing `clients` needs the role admin, and you are {role}");
        let hint = "ask an admin for `sarsen volume set NAME --clients`";
        return Err(ErrorBody::new(ErrorCode::Forbidden, "clients", message, hint).into());
    }
    let work = host.clone();
    let changed = host
        .to_the_end(async move { work.change_volume(&name, change).await })
        .await?;
    Ok(Json(changed))
}

pub(super) async fn delete(
    State(host): State<Host>,
    Named(name): Named<String>,
) -> Result<StatusCode, Failure> {
    let work = host.clone();
    host.to_the_end(async move { work.delete_volume(&name).await })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn finish_import(
    State(host): State<Host>,
    Named(name): Named<String>,
    Body(finish): Body<ImportFinish>,
) -> Answer<Volume> {
    let work = host.clone();
    let whole = host
        .to_the_end(async move { work.finish_import(&name, finish).await })
        .await?;
    Ok(Json(whole))
}
