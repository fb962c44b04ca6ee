//! A connection whose TLS is done here, for who takes a bare socket only: what one end of a pair says goes sealed to the client, and back.
//!
//! ```text
//!   shard ══ pair of unix sockets ══► seal ──► pending ──► TCP ══► client
//!         ◄═════════════════════════ open ◄───────────────     ◄══
//! ```
//!
//! The two directions do not wait for one another, as TCP's do not: else two peers of which each has much to say could wait for each other for ever. All that goes to the peer is put
//! into `pending` under one lock in the order in which TLS has counted it, what TLS itself answers too, and one task sends it.

use super::link::LinkCover;
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

struct Covered {
    cover: LinkCover,
    pending: Vec<u8>,
}

struct Relay {
    covered: Mutex<Covered>,
    /// Told where TLS has something to say by itself.
    answers: Notify,
}

/// A socket with the clear bytes of a connection whose handshake is over. Tasks on `on` do its TLS, until either side ends it.
pub(super) fn spawn(
    socket: std::net::TcpStream,
    cover: LinkCover,
    on: &Handle,
) -> io::Result<std::os::unix::net::UnixStream> {
    let (theirs, ours) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let _on = on.enter();
    let (socket, ours) = (TcpStream::from_std(socket)?, UnixStream::from_std(ours)?);
    on.spawn(relay(socket, ours, cover));
    Ok(theirs)
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
