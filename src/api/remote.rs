//! How a client speaks to a daemon on another host: over TLS, known by a certificate or a token.

use crate::trust::{
    CA_FILE, CERTIFICATE_FILE, ClientFiles, Clock, Credential, KEY_FILE, Keeper, Purpose, Token,
    client_config_by_token, explain,
};
use std::error::Error;
use std::io;
use std::path::Path;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

/// A daemon on another host, and what is shown to it.
pub struct Remote {
    /// As `host:port`.
    pub(super) address: String,
    connector: TlsConnector,
    pub(super) token: Option<String>,
}

impl Remote {
    /// The daemon at `address` (`host:port`), that is taken for one only where its certificate is that of a node of the cluster: of the certificate in the folder
    /// `tls`, or else of the token.
    ///
    /// # Errors
    /// Where there is neither, or one of them cannot be used.
    pub fn new(address: &str, tls: Option<&Path>, token: Option<&str>) -> Result<Remote, String> {
        let token = token.map(|line| line.trim().to_owned());
        let clock = Clock::system();
        let config = match (tls, &token) {
            (Some(folder), _) => {
                let files = ClientFiles {
                    authority: read(folder, CA_FILE)?,
                    certificate: read(folder, CERTIFICATE_FILE)?,
                    key: read(folder, KEY_FILE)?,
                };
                let credential = Credential::of_client_files(&files);
                let credential =
                    credential.map_err(|why| format!("{}: {why}", folder.display()))?;
                Keeper::new(credential, None, &[], clock).client_config_for(Purpose::Api)
            }
            (None, Some(line)) => {
                let token = Token::read(line).map_err(|error| error.to_string())?;
                client_config_by_token(&token, &clock)
            }
            (None, None) => {
                return Err(
                    "nothing is there to be known by: neither a certificate nor a token".into(),
                );
            }
        };
        Ok(Remote {
            address: address.to_owned(),
            connector: TlsConnector::from(config),
            token,
        })
    }

    pub(super) async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(&self.address).await?;
        socket.set_nodelay(true)?;
        // It is not said and not compared: a node is known by its authority.
        let nobody = ServerName::try_from("sarsen.invalid");
        let nobody = nobody.map_err(io::Error::other)?;
        self.connector.connect(nobody, socket).await
    }
}

fn read(folder: &Path, name: &str) -> Result<String, String> {
    let path = folder.join(name);
    let read = std::fs::read_to_string(&path);
    read.map_err(|error| format!("{}: {error}", path.display()))
}

/// What lies at the bottom of an error: a refusal under TLS is told in words.
pub(super) fn reason(error: &(dyn Error + 'static)) -> String {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return explain(error);
        }
        next = error.source();
    }
    error.to_string()
}
