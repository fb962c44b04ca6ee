//! The HTTP servers: on the API socket, and on TCP under TLS.
//!
//! ```text
//!   TCP ──► handshake, many at once ──► Peer: address, and who its certificate proves it to be ──► routes, by role
//! ```
//!
//! Nothing on TCP is answered in the clear. Handshakes have a time and connections a number, so that who sends nothing keeps nobody out for long.

use super::host::Host;
use super::routes;
use crate::trust::{Identity, Keeper, Purpose, explain};
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections under TLS, those in their handshake too.
const CONNECTIONS: usize = 512;
/// After an accept that failed, for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers requests until `stop` comes; then ends those that are being answered, and returns.
pub async fn serve(
    listener: UnixListener,
    host: Host,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let serving = axum::serve(listener, routes::all(host)).with_graceful_shutdown(stop);
    serving.await
}

/// As [`serve`], on TCP: under TLS, with the certificate of this node, by what each caller's role lets him do.
pub async fn serve_tls(
    listener: TcpListener,
    keeper: &Arc<Keeper>,
    host: Host,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let routes = routes::by_role(host).into_make_service_with_connect_info::<Peer>();
    let listener = TlsListener::new(listener, Arc::clone(keeper))?;
    axum::serve(listener, routes)
        .with_graceful_shutdown(stop)
        .await
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub address: SocketAddr,
    /// Whom his certificate proves him to be; nothing where he showed none.
    pub identity: Option<Identity>,
}

/// Connections that have shaken hands.
struct TlsListener {
    ready: mpsc::Receiver<(Secured, Peer)>,
    at: SocketAddr,
    accepting: tokio::task::AbortHandle,
}

/// One of them, as long as it is there.
struct Secured {
    stream: TlsStream<TcpStream>,
    _place: OwnedSemaphorePermit,
}

impl TlsListener {
    fn new(listener: TcpListener, keeper: Arc<Keeper>) -> io::Result<TlsListener> {
        let at = listener.local_addr()?;
        let (done, ready) = mpsc::channel(1);
        let accepting = tokio::spawn(accept(listener, keeper, done)).abort_handle();
        Ok(TlsListener {
            ready,
            at,
            accepting,
        })
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, keeper: Arc<Keeper>, done: mpsc::Sender<(Secured, Peer)>) {
    let acceptor = TlsAcceptor::from(keeper.server_config_for(Purpose::Api));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (socket, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a client of the API was not accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (acceptor, keeper, done) = (acceptor.clone(), Arc::clone(&keeper), done.clone());
        tokio::spawn(async move {
            // Only costs time where it does not work.
            let _ = socket.set_nodelay(true);
            let stream = match timeout(HANDSHAKE, acceptor.accept(socket)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    let why = explain(&error);
                    return tracing::warn!(%address, why, "a client of the API was refused");
                }
                Err(_) => {
                    return tracing::debug!(%address, "a client of the API was too slow");
                }
            };
            let identity = keeper.identity_of(stream.get_ref().1.peer_certificates());
            let peer = Peer { address, identity };
            let secured = Secured {
                stream,
                _place: place,
            };
            // Where nobody takes it any more, the server has ended.
            let _ = done.send((secured, peer)).await;
        });
    }
}

impl Listener for TlsListener {
    type Io = Secured;
    type Addr = Peer;

    async fn accept(&mut self) -> (Secured, Peer) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The task that accepts runs as long as this does; where it was ended, nobody comes any more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer {
            address: self.at,
            identity: None,
        })
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Peer {
        stream.remote_addr().clone()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
