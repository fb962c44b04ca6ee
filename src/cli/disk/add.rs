//! `sarsen disk add PATH`

use super::show::for_people;
use crate::api::model::DiskAdd;
use crate::api::size::parse;
use crate::cli::{Context, Failure};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Add {
    /// A block device, or a file
    path: PathBuf,
    /// Make a sparse file of this size
    #[arg(long, value_parser = parse)]
    size: Option<u64>,
    /// The pool that it becomes a part of [default: default]
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
}

impl Add {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        // The daemon runs in another folder: the path means what it means here.
        let path = std::path::absolute(&self.path)
            .map_err(|error| Failure::local(self.path.display(), error))?;
        let Some(path) = path.to_str() else {
            let message = format!("{} is not UTF-8", path.display());
            return Err(Failure::usage(
                "PATH",
                message,
                "give it another name, or a link",
            ));
        };
        let add = DiskAdd {
            path: path.into(),
            size_bytes: self.size,
            pool: self.pool,
        };
        let disk = context.client.add_disk(&add).await?;
        context.output.show(&disk, for_people)
    }
}
