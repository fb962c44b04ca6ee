//! What a handshake reads and writes through: a socket, TLS over it, or the tunnel of a link.

use super::link::Tunnel;
use rustls::pki_types::CertificateDer;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

/// How long a side that has refused waits for the other one to read that, and how much it takes from it meanwhile: a socket that is closed with bytes unread
/// resets the connection, and the reason is lost on the way.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: u64 = 1 << 20;

/// Both directions of a connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(super) enum Conduit {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Link(Box<Tunnel>),
}

impl Conduit {
    pub async fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match self {
            Conduit::Plain(socket) => socket.read_exact(bytes).await.map(|_| ()),
            Conduit::Tls(tls) => tls.read_exact(bytes).await.map(|_| ()),
            Conduit::Link(tunnel) => tunnel.read_exact(bytes).await,
        }
    }

    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Conduit::Plain(socket) => socket.write_all(bytes).await,
            Conduit::Tls(tls) => {
                tls.write_all(bytes).await?;
                tls.flush().await
            }
            Conduit::Link(tunnel) => tunnel.write_all(bytes).await,
        }
    }

    /// What the other side showed.
    pub fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match self {
            Conduit::Plain(_) => None,
            Conduit::Tls(tls) => tls.get_ref().1.peer_certificates(),
            Conduit::Link(tunnel) => tunnel.certificates(),
        }
    }

    /// Ends it so that what was written last arrives.
    pub async fn linger(self) {
        match self {
            Conduit::Plain(socket) => linger(socket).await,
            Conduit::Tls(mut tls) => {
                tls.shutdown().await.ok();
                let socket = match *tls {
                    TlsStream::Client(tls) => tls.into_inner().0,
                    TlsStream::Server(tls) => tls.into_inner().0,
                };
                linger(socket).await;
            }
            Conduit::Link(tunnel) => linger(tunnel.into_socket()).await,
        }
    }

    /// For calls; a link is none.
    pub fn into_duplex(self) -> Option<Box<dyn Duplex>> {
        match self {
            Conduit::Plain(socket) => Some(Box::new(socket)),
            Conduit::Tls(tls) => Some(tls),
            Conduit::Link(_) => None,
        }
    }
}

/// Says that nothing more comes, and takes what still arrives.
pub(super) async fn linger(mut socket: TcpStream) {
    socket.shutdown().await.ok();
    drain(socket).await;
}

/// Takes what still arrives, for a while.
pub(super) async fn drain(reader: impl AsyncRead + Unpin) {
    let (mut rest, mut nowhere) = (reader.take(LINGER_BYTES_MAX), tokio::io::sink());
    let all = tokio::io::copy(&mut rest, &mut nowhere);
    timeout(LINGER, all).await.ok();
}
