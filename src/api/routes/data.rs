//! `/v1/volumes/NAME/data` and `/map`: the bytes of a volume, for import and export.

use super::reply::{Answer, Binary, Failure, Named, Params};
use crate::api::host::Host;
use crate::api::model::{CRC_HEADER, ErrorBody, Map, crc_of_text, crc_text};
use crate::base::crc;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct At {
    offset: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    offset: u64,
    len: u64,
}

pub(super) async fn write(
    State(host): State<Host>,
    Named(name): Named<String>,
    Params(At { offset }): Params<At>,
    headers: HeaderMap,
    Binary(bytes): Binary,
) -> Result<StatusCode, Failure> {
    let header = headers
        .get(CRC_HEADER)
        .and_then(|value| value.to_str().ok());
    let Some(sum) = header.and_then(crc_of_text) else {
        let message = "data comes with its crc32c";
        let hint = "8 hexadecimal digits, most significant first";
        return Err(ErrorBody::invalid(CRC_HEADER, message, hint).into());
    };
    let work = host.clone();
    let written = async move { work.put_data(&name, offset, bytes, sum).await };
    host.to_the_end(written).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn read(
    State(host): State<Host>,
    Named(name): Named<String>,
    Params(Range { offset, len }): Params<Range>,
) -> Result<Response, Failure> {
    let bytes = host.data(&name, offset, len).await?;
    let headers = [
        (CRC_HEADER, crc_text(crc::of(&bytes))),
        (
            header::CONTENT_TYPE.as_str(),
            "application/octet-stream".to_owned(),
        ),
    ];
    Ok((headers, bytes).into_response())
}

pub(super) async fn map(
    State(host): State<Host>,
    Named(name): Named<String>,
    Params(Range { offset, len }): Params<Range>,
) -> Answer<Map> {
    Ok(Json(host.map(&name, offset, len).await?))
}
