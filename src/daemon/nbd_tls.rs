//! NBD under TLS: what is said before a shard has a client.
//!
//! ```text
//!   TCP ──► in the clear: TLS is required ──► STARTTLS ──► handshake ──► Identity: is it admitted? ──► a shard, with the client's name
//!                                                                                  clear bytes over a pair of sockets: `calls::Secured`
//! ```
//!
//! All of it, and the TLS of what is then sent and read, is done by a thread of its own beside the shards: unlike the links of nodes, clients are strangers. Nothing about exports is decided here: the
//! shard compares the client's name with each volume's list.

use crate::calls::Secured;
use crate::cluster::Cluster;
use crate::frontend::nbd::{BeforeTls, Clear, Limits};
use crate::io;
use crate::runtime::{Handle, Visitor};
use crate::trust::{Keeper, Purpose};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// How long a client may take until a shard has it.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Clients in their handshake.
const STRANGERS: usize = 256;
/// After an accept that failed, for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a client's kernel may be silent.
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// Serves NBD under TLS until it is dropped.
pub(super) struct Serving {
    tls: Option<runtime::Runtime>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(tls) = self.tls.take() {
            tls.shutdown_background();
        }
    }
}

/// Begins to serve.
pub(super) fn serve(
    listener: std::net::TcpListener,
    cluster: Cluster,
    keeper: Arc<Keeper>,
    handle: Handle,
) -> std::io::Result<Serving> {
    let builder = &mut runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(1).thread_name("nbd-tls");
    let tls = builder.enable_all().build()?;
    listener.set_nonblocking(true)?;
    let door = Door {
        cluster,
        keeper,
        handle,
        tls: tls.handle().clone(),
    };
    let listener = {
        let _on = tls.enter();
        TcpListener::from_std(listener)?
    };
    tls.spawn(accept(listener, door));
    Ok(Serving { tls: Some(tls) })
}

#[derive(Clone)]
struct Door {
    cluster: Cluster,
    keeper: Arc<Keeper>,
    handle: Handle,
    tls: runtime::Handle,
}

async fn accept(listener: TcpListener, door: Door) {
    let places = Arc::new(Semaphore::new(STRANGERS));
    let mut count = 0usize;
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (socket, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "an NBD client was not accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        count = count.wrapping_add(1);
        let (door, number) = (door.clone(), count);
        tokio::spawn(async move {
            let _place = place;
            match timeout(HANDSHAKE, door.welcome(socket, number)).await {
                Ok(Ok(Some(name))) => {
                    tracing::debug!(%address, client = name, "an NBD client is there")
                }
                Ok(Ok(None)) => {}
                Ok(Err(why)) => refused(address, &why),
                Err(_) => refused(address, "its handshake took too long"),
            }
        });
    }
}

fn refused(address: SocketAddr, why: &str) {
    tracing::warn!(%address, why, "an NBD client was refused");
}

impl Door {
    /// Brings a client to a shard: its name; nothing where it went by itself.
    async fn welcome(&self, socket: TcpStream, number: usize) -> Result<Option<String>, String> {
        // Only cost time, or wait longer for who is gone, where they do not work.
        let _ = socket.set_nodelay(true);
        io::with_patience(&socket, DEAD_AFTER);
        let (socket, no_zeroes) = match in_the_clear(socket).await? {
            Some(ready) => ready,
            None => return Ok(None),
        };
        let secured = Secured::accept(socket, &self.keeper, Purpose::Nbd).await?;
        let identity = secured.identity.as_ref();
        let identity = identity.ok_or("its certificate names nobody")?;
        // Who is not admitted hears why when he asks for an export: TLS has no words for it.
        let (client, refused) = match self.cluster.admit(identity) {
            Ok((name, _)) => (name.as_str().to_owned(), None),
            Err(why) => (identity.to_string(), Some(why.to_string())),
        };
        if let Some(why) = &refused {
            tracing::warn!(client, why, "an NBD client is not admitted");
        }
        let visitor = Visitor {
            client: client.clone(),
            refused,
            no_zeroes,
        };
        let clear = secured.into_clear(&self.tls);
        let clear = clear.map_err(|error| error.to_string())?;
        let served = self.handle.serve_visitor(number, clear.into(), visitor);
        served.await.map_err(|error| error.to_string())?;
        Ok(Some(client))
    }
}

/// Speaks until TLS begins: the socket then, of which nothing more was read; and whether the client waived the padding.
async fn in_the_clear(mut socket: TcpStream) -> Result<Option<(TcpStream, bool)>, String> {
    let limits = Limits::default();
    let mut out = Vec::new();
    let mut clear = BeforeTls::new(&mut out);
    let mut bytes = Vec::new();
    loop {
        let sent = socket.write_all(&out).await;
        sent.map_err(|error| error.to_string())?;
        out.clear();
        bytes.resize(clear.wants(), 0);
        if let Err(error) = socket.read_exact(&mut bytes).await {
            // It looked whether somebody listens, or does not speak TLS.
            tracing::debug!(%error, "an NBD client went before TLS began");
            return Ok(None);
        }
        match clear.receive(&limits, &bytes, &mut out) {
            Clear::More => {}
            Clear::StartTls => {
                let sent = socket.write_all(&out).await;
                sent.map_err(|error| error.to_string())?;
                return Ok(Some((socket, clear.no_zeroes())));
            }
            Clear::Ended => {
                // It goes, whether it hears that or not.
                let _ = socket.write_all(&out).await;
                return Ok(None);
            }
            Clear::Violation(violation) => return Err(violation.to_string()),
        }
    }
}
