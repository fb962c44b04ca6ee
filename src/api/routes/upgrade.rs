//! `/v1/upgrade`

use super::reply::{Answer, Body};
use crate::api::host::Host;
use crate::api::model::{Upgrade, Upgrading};
use axum::Json;
use axum::extract::State;

pub(super) async fn upgrade(
    State(host): State<Host>,
    Body(upgrade): Body<Upgrade>,
) -> Answer<Upgrading> {
    let work = host.clone();
    let begun = host.to_the_end(async move { work.upgrade(upgrade).await });
    Ok(Json(begun.await?))
}
