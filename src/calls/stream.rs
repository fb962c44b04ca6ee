//! Frames over a connection, in both directions, with everything timed.
//!
//! Between the pieces of a long body others have their turn: the runtime has one thread, sealing 4 MiB takes some ms of it, and tokio alone lets a task go on for 128 pieces. Without
//! this a lease beside snapshots that go both ways took 23 ms, with it 0.8 (both nodes on one thread).

use super::conduit::Duplex;
use super::frame::{Broken, HEAD_LEN, Head, Kind, words};
use super::limits::Limits;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::yield_now;
use tokio::time::timeout;

/// What is read and written at once; also what [`Limits::stall`] is about.
const PIECE: usize = 64 << 10;

pub(super) type Reader = BufReader<ReadHalf<Box<dyn Duplex>>>;
pub(super) type Writer = BufWriter<WriteHalf<Box<dyn Duplex>>>;

pub(super) fn split(stream: Box<dyn Duplex>) -> (Reader, Writer) {
    let (reader, writer) = tokio::io::split(stream);
    let reader = BufReader::with_capacity(PIECE, reader);
    (reader, BufWriter::with_capacity(PIECE, writer))
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The other side closed it, or it was lost.
    Lost(String),
    /// This side has no more use for it.
    Done,
    /// What came breaks the framing.
    Broken(String),
    /// Nothing came, or it took too long.
    Silent(String),
    /// The other side was told to go.
    Expelled(String),
}

impl End {
    pub fn why(&self) -> String {
        match self {
            End::Done => "this node closed the connection".into(),
            End::Lost(why) | End::Broken(why) | End::Silent(why) | End::Expelled(why) => {
                why.clone()
            }
        }
    }

    pub fn lost(error: &io::Error) -> End {
        End::Lost(crate::trust::explain(error))
    }
}

impl From<Broken> for End {
    fn from(broken: Broken) -> End {
        End::Broken(broken.to_string())
    }
}

/// A frame on its way out, and what is held until it is sent.
pub(super) struct Out {
    pub head: Head,
    pub body: Vec<u8>,
    pub held: Vec<OwnedSemaphorePermit>,
}

impl Out {
    pub fn of(kind: Kind, body: Vec<u8>) -> Out {
        Out {
            head: Head::of(kind, &body),
            body,
            held: Vec::new(),
        }
    }
}

/// Reads a head; the body follows.
pub(super) async fn read_head(reader: &mut Reader, limits: &Limits) -> Result<Head, End> {
    let mut bytes = [0; HEAD_LEN];
    match timeout(limits.silence, reader.read_exact(&mut bytes)).await {
        Err(_) => Err(End::Silent(format!(
            "nothing came from the other side for {:?}",
            limits.silence
        ))),
        Ok(Err(error)) => Err(End::lost(&error)),
        Ok(Ok(_)) => Ok(Head::decode(&bytes)?),
    }
}

/// Reads the body that a head announced.
pub(super) async fn read_body(
    reader: &mut Reader,
    head: &Head,
    limits: &Limits,
) -> Result<Vec<u8>, End> {
    // Room is taken as bytes come: a head costs its sender 32 bytes, and is not to cost 4 MiB here.
    let mut body = Vec::new();
    while body.len() < head.len {
        let have = body.len();
        body.resize(head.len.min(have + PIECE), 0);
        match timeout(limits.stall, reader.read_exact(&mut body[have..])).await {
            Err(_) => return Err(too_slow("send", limits.stall)),
            Ok(Err(error)) => return Err(End::lost(&error)),
            Ok(Ok(_)) => {}
        }
        if body.len() < head.len {
            yield_now().await;
        }
    }
    head.fits(&body)?;
    Ok(body)
}

fn too_slow(doing: &str, stall: Duration) -> End {
    let kib = PIECE >> 10;
    End::Silent(format!(
        "the other side is too slow: it did not {doing} {kib} KiB in {stall:?}"
    ))
}

/// Writes what is queued, and a beat where nothing is, until nobody can queue anything more.
pub(super) async fn write_all(
    writer: &mut Writer,
    queue: &mut mpsc::Receiver<Out>,
    limits: &Limits,
) -> End {
    loop {
        let next = match queue.try_recv() {
            Ok(out) => Some(out),
            Err(_) => {
                if let Err(end) = patiently(writer.flush(), limits).await {
                    return end;
                }
                match timeout(limits.beat, queue.recv()).await {
                    Ok(None) => return End::Done,
                    Ok(next) => next,
                    Err(_) => None,
                }
            }
        };
        let out = next.unwrap_or_else(|| Out::of(Kind::Beat, Vec::new()));
        if let Err(end) = write_frame(writer, &out, limits).await {
            return end;
        }
    }
}

/// Says why the connection ends, if the other side still listens, and ends it.
pub(super) async fn say_goodbye(writer: &mut Writer, why: &str, limits: &Limits) {
    let bye = Out::of(Kind::Bye, words(why));
    if write_frame(writer, &bye, limits).await.is_ok() {
        patiently(writer.flush(), limits).await.ok();
        patiently(writer.shutdown(), limits).await.ok();
    }
}

async fn write_frame(writer: &mut Writer, out: &Out, limits: &Limits) -> Result<(), End> {
    patiently(writer.write_all(&out.head.encode()), limits).await?;
    for (number, piece) in out.body.chunks(PIECE).enumerate() {
        if number > 0 {
            yield_now().await;
        }
        patiently(writer.write_all(piece), limits).await?;
    }
    Ok(())
}

async fn patiently(
    doing: impl Future<Output = io::Result<()>>,
    limits: &Limits,
) -> Result<(), End> {
    match timeout(limits.stall, doing).await {
        Err(_) => Err(too_slow("take", limits.stall)),
        Ok(Err(error)) => Err(End::lost(&error)),
        Ok(Ok(())) => Ok(()),
    }
}
