//! TLS for a connection that began in the clear: the server's side, done here for who takes a bare socket only, as with links (`relay`).

use super::link::Tunnel;
use super::relay;
use crate::trust::{Identity, Keeper, Purpose};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// A connection that has shaken hands, as far as who is there goes.
pub struct Secured {
    /// Whom its certificate proves the client to be.
    pub identity: Option<Identity>,
    tunnel: Tunnel,
}

impl Secured {
    /// Shakes hands with a client that speaks TLS from the next byte on. Where that fails it was told so by TLS.
    ///
    /// # Errors
    /// Why it is not let in, for the log.
    pub async fn accept(
        socket: TcpStream,
        keeper: &Arc<Keeper>,
        purpose: Purpose,
    ) -> Result<Secured, String> {
        let config = keeper.server_config_for(purpose);
        let tunnel = Tunnel::accept(socket, config).await;
        let tunnel = tunnel.map_err(|(why, _)| why)?;
        Ok(Secured {
            identity: keeper.identity_of(tunnel.certificates()),
            tunnel,
        })
    }

    /// A socket with the connection's clear bytes. Tasks on `on` do its TLS until either side ends it.
    ///
    /// # Errors
    /// Where there are no more descriptors.
    pub fn into_clear(self, on: &Handle) -> io::Result<UnixStream> {
        let (socket, cover) = self.tunnel.into_parts();
        relay::spawn(socket.into_std()?, cover, on)
    }
}
