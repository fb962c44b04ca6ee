//! `/v1/attachments` and `/v1/volumes/NAME/attach`

use super::reply::{Body, Failure, Named, Params};
use crate::api::host::Host;
use crate::api::model::{Attach, Attachment, AttachmentList, Detach};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

pub(super) async fn list(State(host): State<Host>) -> Json<AttachmentList> {
    Json(host.attachments())
}

pub(super) async fn attach(
    State(host): State<Host>,
    Named(name): Named<String>,
    Body(attach): Body<Attach>,
) -> Result<(StatusCode, Json<Attachment>), Failure> {
    let work = host.clone();
    let attached = host
        .to_the_end(async move { work.attach(&name, attach).await })
        .await?;
    Ok((StatusCode::CREATED, Json(attached)))
}

pub(super) async fn detach(
    State(host): State<Host>,
    Named(name): Named<String>,
    Params(detach): Params<Detach>,
) -> Result<StatusCode, Failure> {
    let work = host.clone();
    host.to_the_end(async move { work.detach(&name, detach).await })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
