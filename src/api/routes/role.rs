//! Who may do what over TCP: a request is let through to its route where the caller's role is enough for that. On the unix socket nobody is asked.
//!
//! A token in the header `authorization` decides where there is one, else the certificate of the connection. What is new needs `admin` until it stands in
//! [`needed`].

use super::reply::Failure;
use crate::api::host::Host;
use crate::api::model::{ErrorBody, ErrorCode};
use crate::api::server::Peer;
use crate::trust::{Role, UserName};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The least role that a request to a route needs.
pub(super) fn needed(method: &Method, route: &str) -> Role {
    use Role::{Admin, Operator, Reader};
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match (method.as_str(), route) {
        // What is in a volume is not for who looks after the cluster only.
        (_, "/v1/volumes/{name}/data" | "/v1/volumes/{name}/map") => Operator,
        _ if reads => Reader,
        ("POST", "/v1/volumes" | "/v1/volumes/{name}/import") => Operator,
        ("PATCH", "/v1/volumes/{name}") => Operator,
        ("POST" | "DELETE", "/v1/volumes/{name}/attach") => Operator,
        ("POST", "/v1/disks/{id}/drain" | "/v1/disks/{id}/grow" | "/v1/disks/{id}/scrub") => {
            Operator
        }
        ("POST", "/v1/cluster/nodes/{name}/drain" | "/v1/cluster/nodes/{name}/maintenance") => {
            Operator
        }
        // Deleting volumes, disks that are overwritten or removed, how many copies there are; members, tokens, clients; another binary; load.
        _ => Admin,
    }
}

/// Lets a request through, or says why not.
pub(super) async fn check(
    State(host): State<Host>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let (name, role) = match caller(&host, &peer, request.headers()) {
        Ok(caller) => caller,
        Err(why) => return unknown(&peer, why),
    };
    // Without a route the answer is that there is none.
    let route = request.extensions().get::<MatchedPath>();
    let least = route.map_or(Role::Reader, |route| {
        needed(request.method(), route.as_str())
    });
    if role < least {
        let (method, path) = (request.method(), request.uri().path());
        tracing::warn!(peer = %peer.address, client = name.as_str(), %role, %method, path, "an API request was refused: its role is not enough");
        let message = format!(
            "{method} {path} needs the role {least}, and {} is {role}",
            name.as_str()
        );
        let hint = "an admin issues another: `sarsen cluster client` or `sarsen cluster api-token`, with --role";
        return Failure(ErrorBody::new(ErrorCode::Forbidden, "", message, hint)).into_response();
    }
    request.extensions_mut().insert(role);
    next.run(request).await
}

fn caller(host: &Host, peer: &Peer, headers: &HeaderMap) -> Result<(UserName, Role), String> {
    let Some(token) = headers.get(header::AUTHORIZATION) else {
        let Some(identity) = &peer.identity else {
            return Err("neither a certificate nor a token was shown".into());
        };
        let admitted = host.cluster().admit(identity);
        return admitted.map_err(|error| error.to_string());
    };
    let token = token.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let token = token.ok_or("the header is not `authorization: Bearer TOKEN`")?;
    let admitted = host.cluster().admit_token(token);
    admitted.map_err(|error| error.to_string())
}

fn unknown(peer: &Peer, why: String) -> Response {
    tracing::warn!(peer = %peer.address, why, "an API request was refused");
    let hint = "show a client's certificate of this cluster (--tls DIR, `sarsen cluster client`), or a token (SARSEN_API_TOKEN, `sarsen cluster api-token`)";
    let error = ErrorBody::new(ErrorCode::Unauthenticated, "authorization", why, hint);
    let mut answer = Failure(error).into_response();
    let scheme = HeaderValue::from_static("Bearer");
    answer
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, scheme);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_do_its_part_and_what_is_unknown_is_an_admins() {
        for (method, route, role) in [
            ("GET", "/v1/status", Role::Reader),
            ("HEAD", "/metrics", Role::Reader),
            ("GET", "/v1/cluster/clients", Role::Reader),
            ("GET", "/v1/volumes/{name}", Role::Reader),
            ("GET", "/v1/volumes/{name}/data", Role::Operator),
            ("PUT", "/v1/volumes/{name}/data", Role::Operator),
            ("POST", "/v1/volumes", Role::Operator),
            ("PATCH", "/v1/volumes/{name}", Role::Operator),
            ("DELETE", "/v1/volumes/{name}/attach", Role::Operator),
            ("POST", "/v1/disks/{id}/drain", Role::Operator),
            (
                "POST",
                "/v1/cluster/nodes/{name}/maintenance",
                Role::Operator,
            ),
            ("DELETE", "/v1/volumes/{name}", Role::Admin),
            ("POST", "/v1/disks", Role::Admin),
            ("DELETE", "/v1/disks/{id}", Role::Admin),
            ("PATCH", "/v1/pools/{name}", Role::Admin),
            ("DELETE", "/v1/cluster/nodes/{name}", Role::Admin),
            ("PUT", "/v1/cluster/members", Role::Admin),
            ("POST", "/v1/cluster/tokens", Role::Admin),
            ("POST", "/v1/cluster/clients", Role::Admin),
            ("POST", "/v1/cluster/api-tokens", Role::Admin),
            ("DELETE", "/v1/cluster/clients/{name}", Role::Admin),
            ("POST", "/v1/upgrade", Role::Admin),
            ("POST", "/v1/bench", Role::Admin),
            ("POST", "/v1/what/comes/next", Role::Admin),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(needed(&method, route), role, "{method} {route}");
        }
    }
}
