//! A small NBD client of our own, after the protocol's text and nothing of the server's code: fixed newstyle, simple
//! or structured replies, requests sent and replies received independently, so that many can be in flight.

use super::{Step, ensure};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How the server is asked to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replies {
    Simple,
    Structured,
}

/// A request's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Verb {
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    Trim = 4,
    WriteZeroes = 6,
}

/// Of an export: several connections see one another's writes.
pub const CAN_MULTI_CONN: u16 = 1 << 8;
pub const FLAG_FUA: u16 = 1;
pub const FLAG_NO_HOLE: u16 = 2;
pub const EIO: u32 = 5;
pub const EINVAL: u32 = 22;
pub const ENOSPC: u32 = 28;

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const OPTION_GO: u32 = 7;
const OPTION_STRUCTURED_REPLY: u32 = 8;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668e_33ef;
const CHUNK_DONE: u16 = 1;
const CHUNK_DATA: u16 = 1;
const CHUNK_HOLE: u16 = 2;
/// The most that one option reply or chunk may claim; above it is nonsense.
const LENGTH_MAX: u32 = 64 << 20;

/// The longest that a server may be silent where an answer is due.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A negotiated connection.
pub struct Connection {
    stream: UnixStream,
    pub size: u64,
    pub flags: u16,
    next: u64,
}

/// One answered request.
#[derive(Debug)]
pub struct Reply {
    pub cookie: u64,
    /// Zero, or the protocol's error number.
    pub error: u32,
    /// What a read brought.
    pub data: Vec<u8>,
}

/// The halves of a connection, for two threads.
pub struct Sender(UnixStream);
pub struct Receiver(UnixStream);

/// Opens a socket and reads the greeting; nothing was said yet.
pub fn greeted(socket: &Path) -> Step<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting)?;
    ensure!(
        &greeting[..16] == b"NBDMAGICIHAVEOPT",
        "the greeting is {greeting:?}"
    );
    Ok(stream)
}

impl Connection {
    pub fn open(socket: &Path, volume: &str, replies: Replies) -> Step<Connection> {
        let mut stream = greeted(socket)?;
        stream.write_all(&3u32.to_be_bytes())?; // fixed newstyle, no zeroes
        if replies == Replies::Structured {
            send_option(&mut stream, OPTION_STRUCTURED_REPLY, &[])?;
            let (kind, _) = option_reply(&mut stream, OPTION_STRUCTURED_REPLY)?;
            ensure!(
                kind == REPLY_ACK,
                "structured replies are refused: {kind:#x}"
            );
        }
        let mut ask = (volume.len() as u32).to_be_bytes().to_vec();
        ask.extend_from_slice(volume.as_bytes());
        ask.extend_from_slice(&0u16.to_be_bytes());
        send_option(&mut stream, OPTION_GO, &ask)?;
        let mut export = None;
        loop {
            let (kind, data) = option_reply(&mut stream, OPTION_GO)?;
            match kind {
                REPLY_INFO if data.len() == 12 && data[..2] == [0, 0] => {
                    let size = u64::from_be_bytes(data[2..10].try_into()?);
                    export = Some((size, u16::from_be_bytes(data[10..12].try_into()?)));
                }
                REPLY_INFO => {}
                REPLY_ACK => break,
                kind => {
                    let why = String::from_utf8_lossy(&data).into_owned();
                    return Err(format!("export {volume:?} is refused ({kind:#x}): {why}").into());
                }
            }
        }
        let (size, flags) = export.ok_or("GO told no size")?;
        Ok(Connection {
            stream,
            size,
            flags,
            next: 0,
        })
    }

    pub fn split(self) -> Step<(Sender, Receiver)> {
        let other = self.stream.try_clone()?;
        Ok((Sender(self.stream), Receiver(other)))
    }

    /// One request and its answer: the error number of the protocol is the inner error.
    pub fn ask(
        &mut self,
        verb: Verb,
        flags: u16,
        offset: u64,
        len: u32,
        payload: &[u8],
    ) -> Step<Result<Vec<u8>, u32>> {
        self.next += 1;
        let cookie = self.next;
        let request = head(verb as u16, flags, cookie, offset, len);
        self.stream.write_all(&request)?;
        self.stream.write_all(payload)?;
        let want = (verb == Verb::Read).then_some((offset, len));
        let reply = receive(&mut self.stream, |_| want)?;
        ensure!(
            reply.cookie == cookie,
            "an answer to request {}, not {cookie}",
            reply.cookie
        );
        Ok(if reply.error == 0 {
            Ok(reply.data)
        } else {
            Err(reply.error)
        })
    }

    pub fn read(&mut self, offset: u64, len: u32) -> Step<Result<Vec<u8>, u32>> {
        self.ask(Verb::Read, 0, offset, len, &[])
    }

    pub fn write(&mut self, offset: u64, payload: &[u8]) -> Step<Result<(), u32>> {
        let answer = self.ask(Verb::Write, 0, offset, payload.len() as u32, payload)?;
        Ok(answer.map(|_| ()))
    }

    pub fn trim(&mut self, offset: u64, len: u32) -> Step<Result<(), u32>> {
        Ok(self.ask(Verb::Trim, 0, offset, len, &[])?.map(|_| ()))
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// What comes until the server closes; fails where it does not within the time.
    pub fn rest(&mut self, within: Duration) -> std::io::Result<Vec<u8>> {
        until_closed(&mut self.stream, within)
    }

    /// Says goodbye and waits until the server has closed, so that it has forgotten the client.
    pub fn close(mut self) -> Step<()> {
        self.stream
            .write_all(&head(Verb::Disconnect as u16, 0, 0, 0, 0))?;
        until_closed(&mut self.stream, Duration::from_secs(10))?;
        Ok(())
    }
}

/// What comes until the server closes; fails where it does not within the time.
pub fn until_closed(stream: &mut UnixStream, within: Duration) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(within))?;
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(rest),
        Err(error) => Err(error),
        Ok(_) => Ok(rest),
    }
}

impl Sender {
    pub fn send(
        &mut self,
        (verb, flags): (Verb, u16),
        cookie: u64,
        offset: u64,
        len: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        self.0
            .write_all(&head(verb as u16, flags, cookie, offset, len))?;
        self.0.write_all(payload)
    }

    /// Nothing more will be sent: what is still answered can be received.
    pub fn finish(&mut self) {
        // Where the server is gone already there is nothing to tell it.
        let _ = self.0.write_all(&head(Verb::Disconnect as u16, 0, 0, 0, 0));
    }
}

impl Receiver {
    /// The next answer. `want` tells offset and length of a read by its cookie, `None` for other requests.
    pub fn receive(&mut self, want: impl Fn(u64) -> Option<(u64, u32)>) -> Step<Reply> {
        receive(&mut self.0, want)
    }
}

/// The 28 bytes of a request.
pub fn head(verb: u16, flags: u16, cookie: u64, offset: u64, len: u32) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
    bytes[4..6].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&verb.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..24].copy_from_slice(&offset.to_be_bytes());
    bytes[24..].copy_from_slice(&len.to_be_bytes());
    bytes
}

/// The bytes of an option.
pub fn option(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn send_option(stream: &mut UnixStream, kind: u32, data: &[u8]) -> std::io::Result<()> {
    stream.write_all(&option(kind, data))
}

fn option_reply(stream: &mut UnixStream, to: u32) -> Step<(u32, Vec<u8>)> {
    let magic = u64::from_be_bytes(take(stream)?);
    let (option, kind) = (
        u32::from_be_bytes(take(stream)?),
        u32::from_be_bytes(take(stream)?),
    );
    let len = u32::from_be_bytes(take(stream)?);
    ensure!(
        magic == OPTION_REPLY_MAGIC && option == to,
        "no reply to option {to}: {magic:#x}"
    );
    Ok((kind, bytes(stream, len)?))
}

fn receive(stream: &mut UnixStream, want: impl Fn(u64) -> Option<(u64, u32)>) -> Step<Reply> {
    let magic = u32::from_be_bytes(take(stream)?);
    if magic == SIMPLE_MAGIC {
        let (error, cookie) = (
            u32::from_be_bytes(take(stream)?),
            u64::from_be_bytes(take(stream)?),
        );
        let len = want(cookie)
            .filter(|_| error == 0)
            .map_or(0, |(_, len)| len);
        return Ok(Reply {
            cookie,
            error,
            data: bytes(stream, len)?,
        });
    }
    ensure!(
        magic == STRUCTURED_MAGIC,
        "a reply with the magic {magic:#x}"
    );
    let mut reply: Option<(Reply, u64)> = None;
    let mut magic_read = true;
    loop {
        if !std::mem::take(&mut magic_read) {
            let again = u32::from_be_bytes(take(stream)?);
            ensure!(again == STRUCTURED_MAGIC, "a reply goes on with {again:#x}");
        }
        let (flags, kind) = (
            u16::from_be_bytes(take(stream)?),
            u16::from_be_bytes(take(stream)?),
        );
        let (cookie, len) = (
            u64::from_be_bytes(take(stream)?),
            u32::from_be_bytes(take(stream)?),
        );
        let data = bytes(stream, len)?;
        let (reply_so_far, start) = reply.get_or_insert_with(|| {
            let (offset, len) = want(cookie).unwrap_or((0, 0));
            (
                Reply {
                    cookie,
                    error: 0,
                    data: vec![0; len as usize],
                },
                offset,
            )
        });
        // This client never has chunks of two replies interleaved by this server; were it so, it must be told.
        ensure!(
            reply_so_far.cookie == cookie,
            "chunks of two replies are interleaved"
        );
        place(reply_so_far, *start, kind, &data)?;
        if flags & CHUNK_DONE != 0 {
            return reply
                .map(|(reply, _)| reply)
                .ok_or_else(|| "no reply".into());
        }
    }
}

/// Puts a chunk of a structured reply where it belongs.
fn place(reply: &mut Reply, start: u64, kind: u16, data: &[u8]) -> Step<()> {
    match kind {
        CHUNK_DATA | CHUNK_HOLE => {
            ensure!(
                data.len() >= 8,
                "a chunk of {} bytes has no offset",
                data.len()
            );
            let at = u64::from_be_bytes(data[..8].try_into()?);
            let at = at
                .checked_sub(start)
                .ok_or("a chunk begins before its request")? as usize;
            // Holes stay the zeroes that they are.
            let body = if kind == CHUNK_DATA { &data[8..] } else { &[] };
            let room = reply.data.get_mut(at..at + body.len());
            room.ok_or("a chunk leaves its request")?
                .copy_from_slice(body);
        }
        0 => {}
        kind if kind & 1 << 15 != 0 => {
            ensure!(data.len() >= 4, "an error chunk of {} bytes", data.len());
            reply.error = u32::from_be_bytes(data[..4].try_into()?);
        }
        kind => return Err(format!("a chunk of type {kind}").into()),
    }
    Ok(())
}

fn take<const N: usize>(stream: &mut UnixStream) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn bytes(stream: &mut UnixStream, len: u32) -> Step<Vec<u8>> {
    ensure!(len <= LENGTH_MAX, "a reply claims {len} bytes");
    let mut bytes = vec![0; len as usize];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The server's side of the handshake, for a disk of a guest that is served to the load: whether replies are to be
/// structured. Any name is the one export.
pub fn serve_handshake(stream: &mut UnixStream, size: u64) -> Step<bool> {
    /// Flags, flush, FUA, trim, write zeroes, several connections.
    const CAN: u16 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | CAN_MULTI_CONN;
    let mut greeting = b"NBDMAGICIHAVEOPT".to_vec();
    greeting.extend_from_slice(&3u16.to_be_bytes());
    stream.write_all(&greeting)?;
    let _flags: [u8; 4] = take(stream)?;
    let mut structured = false;
    loop {
        let magic = u64::from_be_bytes(take(stream)?);
        ensure!(magic == OPTION_MAGIC, "an option with the magic {magic:#x}");
        let option = u32::from_be_bytes(take(stream)?);
        let len = u32::from_be_bytes(take(stream)?);
        bytes(stream, len)?;
        let mut answer = |kind: u32, data: &[u8]| {
            let mut reply = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
            for number in [option, kind, data.len() as u32] {
                reply.extend_from_slice(&number.to_be_bytes());
            }
            reply.extend_from_slice(data);
            stream.write_all(&reply)
        };
        match option {
            OPTION_STRUCTURED_REPLY => {
                structured = true;
                answer(REPLY_ACK, &[])?;
            }
            OPTION_GO => {
                let mut export = 0u16.to_be_bytes().to_vec();
                export.extend_from_slice(&size.to_be_bytes());
                export.extend_from_slice(&CAN.to_be_bytes());
                answer(REPLY_INFO, &export)?;
                answer(REPLY_ACK, &[])?;
                return Ok(structured);
            }
            _ => answer(1 << 31 | 1, &[])?, // not known here
        }
    }
}

/// A server's reply.
pub fn reply(structured: bool, cookie: [u8; 8], error: u32, offset: u64, data: &[u8]) -> Vec<u8> {
    const CHUNK_ERROR: u16 = 1 << 15 | 1;
    let mut reply = Vec::with_capacity(32 + data.len());
    if !structured {
        reply.extend_from_slice(&SIMPLE_MAGIC.to_be_bytes());
        reply.extend_from_slice(&error.to_be_bytes());
        reply.extend_from_slice(&cookie);
        reply.extend_from_slice(data);
        return reply;
    }
    let (kind, len) = match error {
        0 if data.is_empty() => (0, 0),
        0 => (CHUNK_DATA, 8 + data.len() as u32),
        _ => (CHUNK_ERROR, 6),
    };
    reply.extend_from_slice(&STRUCTURED_MAGIC.to_be_bytes());
    reply.extend_from_slice(&CHUNK_DONE.to_be_bytes());
    reply.extend_from_slice(&kind.to_be_bytes());
    reply.extend_from_slice(&cookie);
    reply.extend_from_slice(&len.to_be_bytes());
    match kind {
        CHUNK_DATA => {
            reply.extend_from_slice(&offset.to_be_bytes());
            reply.extend_from_slice(data);
        }
        CHUNK_ERROR => {
            reply.extend_from_slice(&error.to_be_bytes());
            reply.extend_from_slice(&0u16.to_be_bytes());
        }
        _ => {}
    }
    reply
}
