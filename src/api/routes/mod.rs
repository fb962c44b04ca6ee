//! The routes: each takes apart a request, hands it to the host, and puts the answer into JSON. Nothing is
//! decided here.

mod attachments;
mod clients;
mod cluster;
mod data;
mod disks;
mod nodes;
mod pools;
mod reply;
mod role;
mod status;
mod upgrade;
mod volumes;

use super::host::Host;
use super::model::{DATA_BYTES_MAX, ErrorBody, ErrorCode};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post, put};
use reply::Failure;

/// The largest JSON body that is taken, in bytes.
const JSON_BYTES_MAX: usize = 64 << 10;

/// All routes, each for callers whose role is enough for it.
pub(super) fn by_role(host: Host) -> Router {
    all(host.clone()).layer(from_fn_with_state(host, role::check))
}

pub(super) fn all(host: Host) -> Router {
    let one_volume = get(volumes::show)
        .patch(volumes::change)
        .delete(volumes::delete);
    let attach = post(attachments::attach).delete(attachments::detach);
    let data = get(data::read).put(data::write);
    Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/nodes", get(status::nodes))
        .route("/v1/alerts", get(status::alerts))
        .route("/v1/bench", post(status::bench))
        .route("/v1/upgrade", post(upgrade::upgrade))
        .route("/metrics", get(status::metrics))
        .route("/v1/volumes", get(volumes::list).post(volumes::create))
        .route("/v1/volumes/{name}", one_volume)
        .route("/v1/volumes/{name}/import", post(volumes::finish_import))
        .route("/v1/volumes/{name}/map", get(data::map))
        .route("/v1/volumes/{name}/attach", attach)
        .route("/v1/cluster", get(cluster::show).post(cluster::found))
        .route("/v1/cluster/tokens", post(cluster::token))
        .route(
            "/v1/cluster/clients",
            get(clients::list).post(clients::make),
        )
        .route("/v1/cluster/clients/{name}", delete(clients::revoke))
        .route("/v1/cluster/api-tokens", post(clients::make_token))
        .route("/v1/cluster/join", post(cluster::join))
        .route("/v1/cluster/members", put(cluster::set_members))
        .route("/v1/cluster/nodes", get(nodes::list))
        .route(
            "/v1/cluster/nodes/{name}",
            get(nodes::show).delete(nodes::remove),
        )
        .route("/v1/cluster/nodes/{name}/drain", post(nodes::drain))
        .route(
            "/v1/cluster/nodes/{name}/maintenance",
            post(nodes::maintenance),
        )
        .route("/v1/cluster/nodes/{name}/rack", post(nodes::rack))
        .route("/v1/attachments", get(attachments::list))
        .route("/v1/disks", get(disks::list).post(disks::add))
        .route("/v1/disks/{id}", get(disks::show).delete(disks::remove))
        .route("/v1/disks/{id}/drain", post(disks::drain))
        .route("/v1/disks/{id}/grow", post(disks::grow))
        .route("/v1/disks/{id}/removal", get(disks::removal))
        .route("/v1/disks/{id}/replace", post(disks::replace))
        .route("/v1/disks/{id}/scrub", post(disks::scrub))
        .route("/v1/pools", get(pools::list).post(pools::create))
        .route("/v1/pools/{name}", get(pools::show).patch(pools::set))
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX))
        .merge(
            Router::new()
                .route("/v1/volumes/{name}/data", data)
                .layer(DefaultBodyLimit::max(DATA_BYTES_MAX as usize)),
        )
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .with_state(host)
}

async fn no_such_route(uri: Uri) -> Failure {
    let message = format!("there is no {}", uri.path());
    Failure(ErrorBody::new(
        ErrorCode::NotFound,
        "",
        message,
        "the API is below /v1",
    ))
}

async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let message = format!("{method} is not possible on {}", uri.path());
    Failure(ErrorBody::invalid("", message, "try GET"))
}
