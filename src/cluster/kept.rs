//! What a node remembers of its cluster between two starts, beside keys and certificates: `cluster.json`.
//!
//! It is replaced in one step, as those are, and is no secret.

use super::error::ClusterError;
use crate::base::NodeId;
use crate::calls::Member;
use crate::trust;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const FILE: &str = "cluster.json";
/// The form of the file. 1 was the first.
const FORM: u32 = 1;
/// Bytes of a file that is read: members with their addresses have some hundred.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// How this node came to its cluster, which is where its catalog lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum How {
    Founded,
    Joined,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    form: u32,
    pub how: How,
    pub node: NodeId,
    /// That this node listens on, where the configuration leaves it to the system.
    pub port: u16,
    /// Whom to ask at the next start: the members of the manager, as this node last heard.
    pub members: Vec<Member>,
}

impl Kept {
    pub fn new(how: How, node: NodeId, port: u16, members: Vec<Member>) -> Kept {
        Kept {
            form: FORM,
            how,
            node,
            port,
            members,
        }
    }

    pub fn path(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// What lies in `folder`; nothing where there is nothing.
    pub fn read(folder: &Path) -> Result<Option<Kept>, ClusterError> {
        let path = Kept::path(folder);
        let wrong = |why: String| ClusterError::Kept {
            path: path.clone(),
            why,
        };
        let length = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        if length > FILE_BYTES_MAX {
            return Err(wrong(format!("{length} bytes are too many")));
        }
        let bytes = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        let kept: Kept =
            serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        match kept.form {
            FORM => Ok(Some(kept)),
            form => Err(wrong(format!(
                "it has form {form}, and this build reads {FORM}"
            ))),
        }
    }

    /// Keeps it in `folder`, durably.
    pub fn write(&self, folder: &Path) -> Result<(), ClusterError> {
        let path = Kept::path(folder);
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| ClusterError::Kept {
            path: path.clone(),
            why: error.to_string(),
        })?;
        Ok(trust::write_public(&path, &bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::Folder;

    #[test]
    fn what_is_kept_is_found_again_and_what_is_odd_is_refused_with_its_path() {
        let folder = Folder::new("kept");
        assert_eq!(Kept::read(folder.path()).unwrap(), None);
        let member = Member {
            node: NodeId(1),
            addresses: vec!["127.0.0.1:7400".parse().unwrap()],
        };
        let kept = Kept::new(How::Joined, NodeId(2), 7401, vec![member]);
        kept.write(folder.path()).unwrap();
        assert_eq!(Kept::read(folder.path()).unwrap(), Some(kept));
        let text = fs::read_to_string(Kept::path(folder.path())).unwrap();
        for (odd, why) in [
            (text.replace("\"form\": 1", "\"form\": 2"), "form 2"),
            (text.replace("joined", "dreamt"), "dreamt"),
            (text[..text.len() / 2].to_owned(), "EOF"),
            (" ".repeat(70_000), "too many"),
        ] {
            fs::write(Kept::path(folder.path()), odd).unwrap();
            let error = Kept::read(folder.path()).unwrap_err().to_string();
            assert!(
                error.contains("cluster.json") && error.contains(why),
                "{error}"
            );
        }
    }
}
