//! A client's credential as three files in a folder: `ca-cert.pem`, `client-cert.pem` and `client-key.pem`, which are the names that QEMU's `tls-creds-x509`
//! and libnbd's `tls-certificates` look for.

use super::credential::Credential;
use super::pem;

/// The authority's certificate.
pub const CA_FILE: &str = "ca-cert.pem";
/// The client's.
pub const CERTIFICATE_FILE: &str = "client-cert.pem";
/// Its key: nobody else's to read.
pub const KEY_FILE: &str = "client-key.pem";

/// What is in the three files.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientFiles {
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

/// Without the key.
impl std::fmt::Debug for ClientFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientFiles")
    }
}

impl Credential {
    /// As files for other programs.
    pub fn client_files(&self) -> ClientFiles {
        ClientFiles {
            authority: self.root().certificate_pem(),
            certificate: pem::of_certificate(self.certificate()),
            key: pem::of(self.key(), &[]),
        }
    }

    /// Reads what [`Credential::client_files`] gave.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_client_files(files: &ClientFiles) -> Result<Credential, String> {
        let ClientFiles {
            authority,
            certificate,
            key,
        } = files;
        // Each may have been put down without a line's end.
        Credential::read(format!("{key}\n{certificate}\n{authority}").as_bytes())
    }
}
