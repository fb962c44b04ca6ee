//! How routes read bodies and answer: always in our own error format, whatever was wrong with a request.

use crate::api::model::{ErrorBody, ErrorCode};
use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

/// An answer that says no.
pub(super) struct Failure(pub ErrorBody);

pub(super) type Answer<T> = Result<Json<T>, Failure>;

impl From<ErrorBody> for Failure {
    fn from(error: ErrorBody) -> Failure {
        Failure(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.code {
            ErrorCode::Invalid => StatusCode::BAD_REQUEST,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Exists | ErrorCode::Conflict => StatusCode::CONFLICT,
            ErrorCode::Exhausted => StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::Checksum => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::Io => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        };
        (status, Json(self.0)).into_response()
    }
}

/// A JSON body. The content type does not matter: curl's default is none of JSON's.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Failure> {
        let Binary(bytes) = Binary::from_request(request, state).await?;
        let read = serde_json::from_slice(&bytes);
        read.map(Body).map_err(|error| {
            let hint = "see the API's documentation for its fields";
            Failure(ErrorBody::invalid(
                &field_of(&error),
                error.to_string(),
                hint,
            ))
        })
    }
}

/// The field that serde's message names in backquotes; else the body as a whole.
fn field_of(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|begin| message.strip_prefix(begin)?.split_once('`'));
    named.map_or("body", |(field, _)| field).to_owned()
}

/// A body as it is, inside its limit.
pub(super) struct Binary(pub Vec<u8>);

impl<S: Send + Sync> FromRequest<S> for Binary {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Binary, Failure> {
        let read = axum::body::Bytes::from_request(request, state).await;
        read.map(|bytes| Binary(bytes.into()))
            .map_err(|rejected: BytesRejection| {
                let too_large = rejected.status() == StatusCode::PAYLOAD_TOO_LARGE;
                let (code, hint) = match too_large {
                    true => (
                        ErrorCode::TooLarge,
                        "send at most 64 KiB of JSON, 4 MiB of data",
                    ),
                    false => (ErrorCode::Invalid, "send the whole body"),
                };
                Failure(ErrorBody::new(code, "body", rejected.body_text(), hint))
            })
    }
}

/// The parameters behind the question mark.
pub(super) struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Params<T>, Failure> {
        let read = Query::from_request_parts(parts, state).await;
        read.map(|Query(params)| Params(params))
            .map_err(|rejected: QueryRejection| {
                let hint = "numbers are decimal bytes";
                Failure(ErrorBody::invalid("query", rejected.body_text(), hint))
            })
    }
}

/// The variable part of the path.
pub(super) struct Named<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named<T>, Failure> {
        let read = Path::from_request_parts(parts, state).await;
        read.map(|Path(name)| Named(name))
            .map_err(|rejected: PathRejection| {
                let hint = "volumes, pools and nodes go by name, disks by number";
                Failure(ErrorBody::invalid("path", rejected.body_text(), hint))
            })
    }
}
