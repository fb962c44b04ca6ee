//! A link whose TLS is done here, for who takes a bare socket only: what one end of a pair says goes sealed to the peer, and back.
//!
//! ```text
//!   shard ══ pair of unix sockets ══► seal ──► pending ──► TCP ══► peer
//!         ◄═════════════════════════ open ◄───────────────     ◄══
//! ```
//!
//! The two directions do not wait for one another, as TCP's do not: else two peers of which each has much to say could wait for each other for ever. All that goes to the peer is put
//! into `pending` under one lock in the order in which TLS has counted it, what TLS itself answers too, and one task sends it.

use super::link::{Link, LinkCover, LinkTls};
use super::node::lock;
use std::io;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::unix;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Bytes that are read at once, and so what a direction holds.
const PIECE: usize = 128 << 10;

/// A socket on which a link's bytes are in the clear.
#[derive(Debug)]
pub enum Clear {
    /// The link's own: it has no TLS.
    Tcp(std::net::TcpStream),
    /// To where TLS is done.
    Unix(std::os::unix::net::UnixStream),
}

struct Covered {
    cover: LinkCover,
    pending: Vec<u8>,
}

struct Relay {
    covered: Mutex<Covered>,
    /// Told where TLS has something to say by itself.
    answers: Notify,
}

impl Link {
    /// A socket with this link's clear bytes. Where the link has TLS, tasks on `on` do it, until either side ends it; else it is the link's own.
    ///
    /// # Errors
    /// Where there are no more descriptors.
    pub fn into_clear(self, on: &Handle) -> io::Result<Clear> {
        let Link { socket, cover, .. } = self;
        let (tls, sealed, opened) = cover.into_parts();
        if matches!(tls, LinkTls::Plain) {
            return Ok(Clear::Tcp(socket));
        }
        let (theirs, ours) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let cover = LinkCover::from_parts(tls, sealed, opened);
        let _on = on.enter();
        let (socket, ours) = (TcpStream::from_std(socket)?, UnixStream::from_std(ours)?);
        on.spawn(relay(socket, ours, cover));
        Ok(Clear::Unix(theirs))
    }
}

async fn relay(socket: TcpStream, clear: UnixStream, cover: LinkCover) {
    let relay = Relay {
        covered: Mutex::new(Covered {
            cover,
            pending: Vec::new(),
        }),
        answers: Notify::new(),
    };
    let (from_peer, to_peer) = socket.into_split();
    let (from_shard, to_shard) = clear.into_split();
    // When one direction has ended both have: a link is there as a whole or not. What was not sent is lost with it, as links expect.
    let ended = tokio::select! {
        ended = relay.seal(from_shard, to_peer) => ended,
        ended = relay.open(from_peer, to_shard) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a link with TLS has ended");
    }
}

impl Relay {
    async fn seal(&self, mut from: unix::OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let mut sending = Vec::new();
        loop {
            tokio::select! {
                read = from.read(&mut piece) => {
                    let read = read?;
                    if read == 0 {
                        return Ok(());
                    }
                    let covered = &mut *lock(&self.covered);
                    let sealed = covered.cover.seal(&piece[..read], &mut covered.pending);
                    sealed.map_err(io::Error::other)?;
                }
                () = self.answers.notified() => {}
            }
            std::mem::swap(&mut sending, &mut lock(&self.covered).pending);
            to.write_all(&sending).await?;
            sending.clear();
        }
    }

    async fn open(&self, mut from: OwnedReadHalf, mut to: unix::OwnedWriteHalf) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let mut read = 0;
        loop {
            // The first time without new bytes: something may have come right behind the handshake.
            let (ended, opened) = {
                let covered = &mut *lock(&self.covered);
                let ended = covered.cover.open(&piece[..read], &mut covered.pending);
                if !covered.pending.is_empty() {
                    self.answers.notify_one();
                }
                (ended, covered.cover.take_opened())
            };
            to.write_all(&opened).await?;
            ended.map_err(io::Error::other)?;
            read = from.read(&mut piece).await?;
            if read == 0 {
                return Ok(());
            }
        }
    }
}
