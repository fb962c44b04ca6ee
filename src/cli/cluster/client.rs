//! `sarsen cluster client NAME`

use crate::api::model::{ClientRole, ClusterClientMade, ClusterClientMake};
use crate::cli::output::seconds;
use crate::cli::{Context, Failure};
use serde::Serialize;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A certificate, with its key, as the three files that QEMU and libnbd look for too. The daemon keeps neither.
#[derive(Debug, clap::Args)]
pub struct Client {
    /// The client's name: what is revoked
    name: String,
    /// What it may do at the API: reader (see everything but data), operator (everyday work that loses nothing), admin
    #[arg(long, value_enum, default_value = "reader")]
    role: ClientRole,
    /// How long it is good for: 1h, 30d; at most 400d
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "365d")]
    expires: u64,
    /// The folder for ca-cert.pem, client-cert.pem and client-key.pem; it is made, and what is there is not overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// What was made, without the key.
#[derive(Debug, Serialize)]
struct Made {
    name: String,
    role: ClientRole,
    expires: String,
    folder: PathBuf,
}

const FILES: [&str; 3] = ["ca-cert.pem", "client-cert.pem", "client-key.pem"];

impl Client {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        // Before anything is issued that could then not be kept.
        prepare(&self.out)?;
        let make = ClusterClientMake {
            name: self.name,
            role: self.role,
            expires_seconds: self.expires,
        };
        let made = context.client.make_client(&make).await?;
        let ClusterClientMade {
            name,
            role,
            expires,
            ca_cert,
            client_cert,
            client_key,
        } = made;
        let folder = self.out;
        for (file, text) in FILES.into_iter().zip([ca_cert, client_cert, client_key]) {
            write(&folder.join(file), &text)?;
        }
        let made = Made {
            name,
            role,
            expires,
            folder,
        };
        context.output.show(&made, for_people)
    }
}

fn prepare(folder: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| Failure::local(folder.display(), error))?;
    let there = FILES.into_iter().map(|file| folder.join(file));
    match there.into_iter().find(|path| path.exists()) {
        None => Ok(()),
        Some(path) => {
            let message = format!("{} is there already", path.display());
            Err(Failure::usage(
                "--out",
                message,
                "name another folder, or move it away",
            ))
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| Failure::local(path.display(), error))
}

fn for_people(made: &Made) -> String {
    let Made {
        name,
        role,
        expires,
        folder,
    } = made;
    let role = format!("{role:?}").to_lowercase();
    format!(
        "{name} ({role}) has a certificate until {expires}, in {}: it and its key are nowhere else.\n\
         \x20 sarsen --api https://HOST:PORT --tls {} status",
        folder.display(),
        folder.display()
    )
}
