//! Starts of a node are numbered: each is above every one before (R19), and its number is durable before anybody hears it. `start.json` in the folder of
//! the cluster.
//!
//! The catalog records a start when the node first asks for its lease under it, so it is the second witness: where the file was lost with its disk, or comes
//! from a backup, a start goes above what is recorded. Where the catalog is old too, the manager refuses the lease, and the next start knows better.

use crate::protocol::membership::Incarnation;
use crate::trust;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

const FILE: &str = "start.json";
/// The form of the file. 1 was the first.
const FORM: u32 = 1;
/// Bytes of a file that is read; it has some thirty.
const FILE_BYTES_MAX: u64 = 4 << 10;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    form: u32,
    start: u64,
}

/// Why this start has no number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoStart {
    pub path: PathBuf,
    pub why: String,
}

impl std::fmt::Display for NoStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: the number of this start: {}; where the file is damaged, remove it while this node's catalog is there",
            self.path.display(),
            self.why
        )
    }
}

impl std::error::Error for NoStart {}

/// Begins a start of the node whose things lie in `folder`: its number, which is kept there durably. `recorded`: what the catalog has of the node.
///
/// # Errors
/// The file cannot be read or written, or is not one of ours.
pub fn next_start(folder: &Path, recorded: Incarnation) -> Result<Incarnation, NoStart> {
    let path = folder.join(FILE);
    let wrong = |why: String| NoStart {
        path: path.clone(),
        why,
    };
    let last = read(&path).map_err(wrong)?.max(recorded.0);
    let start = last.checked_add(1);
    let start = start.ok_or_else(|| wrong("no number is left".into()))?;
    let kept = Kept { form: FORM, start };
    let bytes = serde_json::to_vec(&kept).expect("plain structs are JSON");
    trust::write_public(&path, &bytes).map_err(|error| wrong(error.to_string()))?;
    Ok(Incarnation(start))
}

/// The last start that the file knows of; 0 where there is none.
fn read(path: &Path) -> Result<u64, String> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    match kept.form {
        FORM => Ok(kept.start),
        form => Err(format!("it has form {form}, and this build reads {FORM}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Folder;
    use super::*;

    #[test]
    fn every_start_is_above_all_before_it_and_above_what_the_catalog_has() {
        let folder = Folder::new("starts");
        let next = |recorded| next_start(folder.path(), Incarnation(recorded)).unwrap().0;
        assert_eq!([next(0), next(0), next(1)], [1, 2, 3]);
        assert_eq!([next(9), next(9)], [10, 11], "the file was an old one");
        fs::remove_file(folder.path().join(FILE)).unwrap();
        assert_eq!(next(11), 12, "the file was lost");
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused_and_left_alone() {
        let folder = Folder::new("starts-odd");
        let path = folder.path().join(FILE);
        for (odd, why) in [
            ("", "EOF"),
            (r#"{"form":2,"start":1}"#, "form 2"),
            (r#"{"form":1,"start":-1}"#, "invalid value"),
            (r#"{"form":1,"start":18446744073709551615}"#, "no number"),
            (&" ".repeat(5_000), "EOF"),
        ] {
            fs::write(&path, odd).unwrap();
            let error = next_start(folder.path(), Incarnation(0)).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("start.json") && error.contains(why),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), odd);
        }
    }
}
