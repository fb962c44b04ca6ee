//! Data links: connections that are made and authenticated here, and then given to a shard.
//!
//! A shard waits in its own ring, so it takes the bare socket, and the state of TLS as rustls' *unbuffered* connection, which does no reading and writing. The
//! handshake runs here, over tokio, with that same connection. What was read too much goes along.

use crate::base::NodeId;
use crate::trust::{explain, explain_tls};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, ServerConfig};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes that are read at once.
const READ_LEN: usize = 16 << 10;
/// Bytes of TLS that are held until a record or message of the handshake is whole. Both are smaller.
const HELD_MAX: usize = 128 << 10;
/// What a record adds to its bytes, and more: head, kind, tag.
const RECORD_EXTRA: usize = 64;
/// Bytes of a record before it is sealed.
const RECORD_LEN: usize = 16 << 10;

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Dialled,
    Accepted,
}

/// An authenticated connection for data.
pub struct Link {
    /// Who is at the other end: proven by its certificate, or believed where connections are plain.
    pub peer: NodeId,
    /// The shard of the accepting node that it is for.
    pub shard: u16,
    /// Of calls, which both sides speak; the data's own versions are agreed on by its own hello.
    pub version: u16,
    pub end: End,
    pub address: SocketAddr,
    /// Non-blocking, without Nagle's delay.
    pub socket: std::net::TcpStream,
    pub cover: LinkCover,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Link {
            peer,
            shard,
            end,
            address,
            ..
        } = self;
        write!(f, "Link({end:?}, node {peer} at {address}, shard {shard})")
    }
}

impl Link {
    /// Says and hears the first words of who will have it.
    ///
    /// # Errors
    /// Where the connection ends before so many bytes came.
    pub async fn exchange(self, says: &[u8], hears: &mut [u8]) -> io::Result<Link> {
        let socket = TcpStream::from_std(self.socket)?;
        let mut tunnel = Tunnel {
            socket,
            cover: self.cover,
        };
        tunnel.write_all(says).await?;
        tunnel.read_exact(hears).await?;
        tunnel.into_link(self.peer, self.shard, self.version, self.end, self.address)
    }
}

/// The state of TLS, without a socket.
enum LinkTls {
    Plain,
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// TLS of a link, with the bytes that are between it and the socket. Where the link is plain it does nothing to them.
///
/// It keeps what it was given and is not whole, because rustls refers to it from one step to the next.
pub struct LinkCover {
    tls: LinkTls,
    /// What came and is not opened, behind so many bytes that are.
    sealed: Vec<u8>,
    done: usize,
    /// What is opened and was not taken.
    opened: Vec<u8>,
    /// Why it is over. rustls is not asked again then: it asserts that nobody does.
    ended: Option<String>,
}

/// How far a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Look again: there may be more.
    Again,
    /// What was put out has to be sent first.
    Transmit,
    /// Bytes are needed, and the handshake is not over.
    Blocked,
    /// The handshake is over; bytes are needed for anything to be opened.
    Ready,
    Closed,
}

impl fmt::Debug for LinkCover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its keys and bytes are nobody's to read.
        f.debug_struct("LinkCover").finish_non_exhaustive()
    }
}

impl LinkCover {
    fn new(tls: LinkTls) -> LinkCover {
        LinkCover {
            tls,
            sealed: Vec::new(),
            done: 0,
            opened: Vec::new(),
            ended: None,
        }
    }

    /// Whether it does nothing to the bytes.
    pub fn is_plain(&self) -> bool {
        matches!(self.tls, LinkTls::Plain)
    }

    /// Seals bytes, and appends what is to be sent to `out`.
    ///
    /// # Errors
    /// Where the connection has ended.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        if self.is_plain() {
            out.extend_from_slice(plain);
            return Ok(());
        }
        for record in plain.chunks(RECORD_LEN) {
            loop {
                match self.step(out, Some(record))? {
                    Step::Again | Step::Transmit => {}
                    Step::Ready => break,
                    Step::Blocked | Step::Closed => return Err("the link has ended".into()),
                }
            }
        }
        Ok(())
    }

    /// Opens what came, as far as it is whole; [`LinkCover::take_opened`] has it then. What TLS itself answers is appended to `out`.
    ///
    /// # Errors
    /// Where the bytes are not the other side's, or it has closed the link: from then on always. What was opened before counts, and what is in `out` tells the other
    /// side why.
    pub fn open(&mut self, came: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        if self.is_plain() {
            self.opened.extend_from_slice(came);
            return Ok(());
        }
        self.drop_opened();
        self.sealed.extend_from_slice(came);
        loop {
            match self.step(out, None)? {
                Step::Again | Step::Transmit => {}
                Step::Ready | Step::Blocked => return Ok(()),
                Step::Closed => return Err("the other side closed the link".into()),
            }
        }
    }

    /// What was opened since the last time. Of a link that was just handed out: what came right behind the handshake.
    pub fn take_opened(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.opened)
    }

    /// Shows what was opened since the last time, and keeps nothing of it but the memory.
    pub fn show_opened(&mut self, to: &mut dyn FnMut(&[u8])) {
        if !self.opened.is_empty() {
            to(&self.opened);
            self.opened.clear();
        }
    }

    /// Moves what is not opened to the front: once for all the records that came at once.
    fn drop_opened(&mut self) {
        self.sealed.drain(..self.done);
        self.done = 0;
    }

    fn step(&mut self, out: &mut Vec<u8>, to_seal: Option<&[u8]>) -> Result<Step, String> {
        if let Some(why) = &self.ended {
            return Err(why.clone());
        }
        let step = self.advance(out, to_seal);
        match &step {
            Ok(Step::Closed) => self.ended = Some("the other side closed the link".into()),
            Err(why) => {
                self.ended = Some(why.clone());
                // The alert, which is the next thing that rustls puts out. That it fails again changes nothing.
                self.advance(out, None).ok();
                self.sealed.clear();
                self.done = 0;
            }
            Ok(_) => {}
        }
        step
    }

    fn advance(&mut self, out: &mut Vec<u8>, to_seal: Option<&[u8]>) -> Result<Step, String> {
        let (came, opened) = (&mut self.sealed[self.done..], &mut self.opened);
        let left = came.len();
        let (discard, step) = match &mut self.tls {
            LinkTls::Plain => return Ok(Step::Ready),
            LinkTls::Client(tls) => advance(tls.process_tls_records(came), out, opened, to_seal),
            LinkTls::Server(tls) => advance(tls.process_tls_records(came), out, opened, to_seal),
        };
        self.done += discard.min(left);
        step
    }

    fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match &self.tls {
            LinkTls::Plain => None,
            LinkTls::Client(tls) => tls.peer_certificates(),
            LinkTls::Server(tls) => tls.peer_certificates(),
        }
    }
}

/// One step: how many of the incoming bytes are done with, and what is next.
fn advance<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    out: &mut Vec<u8>,
    opened: &mut Vec<u8>,
    to_seal: Option<&[u8]>,
) -> (usize, Result<Step, String>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(explain_tls(&error)),
        Ok(ConnectionState::EncodeTlsData(mut encode)) => {
            let encoded = grow(out, 1024, |room| {
                encode.encode(room).map_err(|error| match error {
                    EncodeError::InsufficientSize(size) => Some(size.required_size),
                    EncodeError::AlreadyEncoded => None,
                })
            });
            encoded.map(|()| Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            transmit.done();
            Ok(Step::Transmit)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match to_seal {
            None => Ok(Step::Ready),
            Some(plain) => {
                let sealed = grow(out, plain.len() + RECORD_EXTRA, |room| {
                    traffic.encrypt(plain, room).map_err(|error| match error {
                        EncryptError::InsufficientSize(size) => Some(size.required_size),
                        EncryptError::EncryptExhausted => None,
                    })
                });
                sealed.map(|()| Step::Ready)
            }
        },
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut read = Ok(Step::Again);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        opened.extend_from_slice(record.payload);
                    }
                    Err(error) => {
                        read = Err(explain_tls(&error));
                        break;
                    }
                }
            }
            read
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Closed),
        // Early data, which no configuration here takes, or what a later rustls has.
        Ok(_) => Err("TLS is in a state that is not used here".into()),
    };
    (discard, step)
}

/// Appends what `put` writes, giving it the room that it asks for.
fn grow(
    out: &mut Vec<u8>,
    mut room: usize,
    mut put: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), String> {
    let start = out.len();
    // Twice suffices: the second time with what was asked for.
    for _ in 0..2 {
        out.resize(start + room, 0);
        match put(&mut out[start..]) {
            Ok(len) => {
                out.truncate(start + len);
                return Ok(());
            }
            Err(Some(needed)) => room = needed,
            Err(None) => break,
        }
    }
    out.truncate(start);
    Err("the link's keys are used up, or TLS is in disorder".into())
}

/// A link in its handshake.
pub(super) struct Tunnel {
    socket: TcpStream,
    cover: LinkCover,
}

impl Tunnel {
    pub fn plain(socket: TcpStream) -> Tunnel {
        Tunnel {
            socket,
            cover: LinkCover::new(LinkTls::Plain),
        }
    }

    /// A client's handshake. What it has to say where it fails is said.
    pub async fn connect(
        socket: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Tunnel, String> {
        let tls = UnbufferedClientConnection::new(config, name);
        let tls = tls.map_err(|error| explain_tls(&error))?;
        let cover = LinkCover::new(LinkTls::Client(Box::new(tls)));
        let mut tunnel = Tunnel { socket, cover };
        tunnel.shake_hands().await?;
        Ok(tunnel)
    }

    /// A server's handshake. Where it fails the socket is given back, to be ended with care.
    pub async fn accept(
        socket: TcpStream,
        config: Arc<ServerConfig>,
    ) -> Result<Tunnel, (String, TcpStream)> {
        let tls = match UnbufferedServerConnection::new(config) {
            Ok(tls) => tls,
            Err(error) => return Err((explain_tls(&error), socket)),
        };
        let cover = LinkCover::new(LinkTls::Server(Box::new(tls)));
        let mut tunnel = Tunnel { socket, cover };
        match tunnel.shake_hands().await {
            Ok(()) => Ok(tunnel),
            Err(why) => Err((why, tunnel.socket)),
        }
    }

    async fn shake_hands(&mut self) -> Result<(), String> {
        let mut out = Vec::new();
        loop {
            match self.cover.step(&mut out, None) {
                Ok(Step::Again) => {}
                Ok(Step::Transmit) => self.send(&mut out).await?,
                Ok(Step::Blocked) => {
                    self.send(&mut out).await?;
                    self.receive().await.map_err(|error| explain(&error))?;
                }
                Ok(Step::Ready) => return self.send(&mut out).await,
                Ok(Step::Closed) => {
                    return Err("the other side closed the connection without a word".into());
                }
                Err(why) => {
                    // The alert.
                    self.send(&mut out).await.ok();
                    return Err(why);
                }
            }
        }
    }

    async fn send(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let sent = self.socket.write_all(out).await;
        out.clear();
        sent.map_err(|error| error.to_string())
    }

    /// Waits for bytes, and puts them to what came.
    async fn receive(&mut self) -> io::Result<()> {
        self.cover.drop_opened();
        let sealed = &mut self.cover.sealed;
        let held = sealed.len();
        if held >= HELD_MAX {
            return Err(io::Error::other("what came is not whole after 128 KiB"));
        }
        sealed.resize(held + READ_LEN, 0);
        let read = self.socket.read(&mut sealed[held..]).await;
        sealed.truncate(held + read.as_ref().map_or(0, |len| *len));
        match read? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    pub async fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        if self.cover.is_plain() {
            return self.socket.read_exact(bytes).await.map(|_| ());
        }
        let mut out = Vec::new();
        loop {
            let went_on = self.cover.open(&[], &mut out);
            if self.cover.opened.len() >= bytes.len() {
                break;
            }
            went_on.map_err(io::Error::other)?;
            self.send(&mut out).await.map_err(io::Error::other)?;
            self.receive().await?;
        }
        bytes.copy_from_slice(&self.cover.opened[..bytes.len()]);
        self.cover.opened.drain(..bytes.len());
        self.send(&mut out).await.map_err(io::Error::other)
    }

    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = Vec::new();
        self.cover.seal(bytes, &mut out).map_err(io::Error::other)?;
        self.socket.write_all(&out).await
    }

    pub fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.cover.certificates()
    }

    /// The socket, and TLS with what came behind the handshake.
    pub fn into_parts(self) -> (TcpStream, LinkCover) {
        (self.socket, self.cover)
    }

    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// The link, once both sides have said hello.
    pub fn into_link(
        self,
        peer: NodeId,
        shard: u16,
        version: u16,
        end: End,
        address: SocketAddr,
    ) -> io::Result<Link> {
        Ok(Link {
            peer,
            shard,
            version,
            end,
            address,
            socket: self.socket.into_std()?,
            cover: self.cover,
        })
    }
}
