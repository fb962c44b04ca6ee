//! The catalog as bytes and back. JSON, because it is small, a person can read it in an emergency, and fields
//! can be added; with a version, because a meaning may change all the same.

use super::Catalog;
use super::index::Index;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The version of the snapshot's format. 1: the first, one host. 2: many nodes; what a build of before leaves out as unknown here
/// (epochs, sessions) must not be forgotten, so it has to refuse.
pub const SNAPSHOT_VERSION: u32 = 2;

/// Why bytes are not a catalog that this build can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreError {
    /// Written by a newer build.
    NewerVersion { found: u32, newest: u32 },
    /// Not what a snapshot looks like; where and why.
    Malformed(String),
    /// An invariant of the catalog does not hold in it.
    Inconsistent(&'static str),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::NewerVersion { found, newest } => {
                write!(
                    f,
                    "the catalog has version {found}, this build reads up to {newest}"
                )
            }
            RestoreError::Malformed(why) => write!(f, "the catalog cannot be read: {why}"),
            RestoreError::Inconsistent(what) => {
                write!(f, "the catalog contradicts itself: {what} does not hold")
            }
        }
    }
}

impl std::error::Error for RestoreError {}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    catalog: &'a Catalog,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Read {
    catalog: Catalog,
}

impl Catalog {
    /// The whole catalog as bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let written = Written {
            version: SNAPSHOT_VERSION,
            catalog: self,
        };
        serde_json::to_vec(&written).expect("maps keyed by numbers and plain structs are JSON")
    }

    /// The catalog of a snapshot; refused as a whole where anything about it is wrong.
    pub fn restore(bytes: &[u8]) -> Result<Catalog, RestoreError> {
        let malformed = |error: serde_json::Error| RestoreError::Malformed(error.to_string());
        // The version first: what a newer build wrote may not have the shape that this one knows.
        let Version { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version > SNAPSHOT_VERSION {
            return Err(RestoreError::NewerVersion {
                found: version,
                newest: SNAPSHOT_VERSION,
            });
        }
        let Read { mut catalog } = serde_json::from_slice(bytes).map_err(malformed)?;
        catalog.index = Index::of(&catalog);
        catalog.check().map_err(RestoreError::Inconsistent)?;
        Ok(catalog)
    }
}
