//! `/v1/status`, `/v1/nodes`, `/v1/alerts`, `/v1/bench` and `/metrics`

use super::reply::{Answer, Body};
use crate::api::host::Host;
use crate::api::model::{AlertList, BenchRequest, BenchResult, NodeList, Status};
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

pub(super) async fn status(State(host): State<Host>) -> Json<Status> {
    Json(host.status())
}

pub(super) async fn nodes(State(host): State<Host>) -> Json<NodeList> {
    Json(host.nodes())
}

pub(super) async fn alerts(State(host): State<Host>) -> Json<AlertList> {
    Json(host.alert_list())
}

pub(super) async fn bench(
    State(host): State<Host>,
    Body(bench): Body<BenchRequest>,
) -> Answer<BenchResult> {
    Ok(Json(host.bench(bench).await?))
}

/// What OpenMetrics asks of the content type.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn metrics(State(host): State<Host>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], host.metrics()).into_response()
}
