//! Clients of the cluster: who uses it from outside, with a certificate or a token.

use serde::{Deserialize, Serialize};

/// What a client may do at the API. A later one may do all that an earlier one may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum ClientRole {
    /// Sees everything but data; changes nothing.
    Reader,
    /// Everyday work: volumes, attachments, drains, maintenance. Nothing that loses data, and nothing about who may what.
    Operator,
    /// Everything.
    Admin,
}

/// `POST /v1/cluster/clients` and `/v1/cluster/api-tokens`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterClientMake {
    /// 1 to 64 of a-z, 0-9, `.`, `_` and `-`.
    pub name: String,
    pub role: ClientRole,
    pub expires_seconds: u64,
}

/// A certificate of a client, with its key. The daemon keeps neither.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterClientMade {
    pub name: String,
    pub role: ClientRole,
    /// When it ends, for people.
    pub expires: String,
    /// PEM, as the rest.
    pub ca_cert: String,
    pub client_cert: String,
    pub client_key: String,
}

/// A token for the API.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterApiToken {
    pub name: String,
    pub role: ClientRole,
    /// When it ends, for people.
    pub expires: String,
    pub token: String,
}

/// `GET /v1/cluster/clients`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterClients {
    pub clients: Vec<ClusterClient>,
}

/// A client, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterClient {
    pub name: String,
    /// The highest that it was issued.
    pub role: ClientRole,
    /// When the last of what it was issued ends: seconds since 1970-01-01 UTC.
    pub until_unix_seconds: u64,
    /// Whether nothing that it shows is taken any more.
    pub revoked: bool,
}
