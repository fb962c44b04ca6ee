//! The first bytes of a connection.
//!
//! ```text
//!   dialler                                   acceptor
//!   preamble, 8 bytes, in the clear  ───────►            "SARSEN" │ security u8: 0 plain, 1 TLS │ way u8: 1 calls, 2 link
//!                                    ◄───────  nod, 16 bytes: "SARSENOK" │ zero; or a refusal, where the two differ about TLS
//!   ................ TLS 1.3, where both say so ................
//!   hello, 64 bytes                  ───────►  versions, cluster, who speaks, who is meant, what for
//!                                    ◄───────  welcome, 64 bytes; or a refusal with its reason
//! ```
//!
//! | hello | bytes |   | welcome | bytes |   | refusal | bytes |
//! |---|---|---|---|---|---|---|---|
//! | `SARSENHC` | 8 | | `SARSENWC` | 8 | | `SARSENNO` | 8 |
//! | lowest, highest version | 4 | | lowest, highest version | 4 | | why, a number | 2 |
//! | cluster | 16 | | cluster | 16 | | bytes of the reason | 2 |
//! | flags: 1 a node speaks, 2 one is meant | 1 | | the version that counts | 2 | | zero | 4 |
//! | purpose: 1 urgent, 2 bulk, 3 link, 4 join | 1 | | zero | 2 | | the reason, UTF-8 | at most 1024 |
//! | shard, of a link | 2 | | node | 4 | | | |
//! | node that speaks, or 0 | 4 | | calls in progress at most | 4 | | | |
//! | node that is meant, or 0 | 4 | | | | | | |
//! | zero, then crc32c of all before | 20, 4 | | zero, then crc32c | 20, 4 | | | |
//!
//! Little endian. These forms never change, so that two sides of any versions understand why they do not understand one another. Under TLS what a hello says is
//! held against the certificate; without, it is believed. The preamble is repeated by the hello's purpose, so that who changes it on the way is found out. The nod costs
//! a round trip when a connection is made, and lets the two sides say in words what TLS could not: that one of them does not speak it.

use super::frame::{WORDS_MAX, words};
use super::service::Class;
use crate::base::bytes::{Put, Take};
use crate::base::{ClusterId, NodeId, crc};
use std::fmt;
use std::ops::RangeInclusive;

/// The versions of calls that this build speaks: its own and the one before, as soon as there is one.
pub(super) const VERSIONS: RangeInclusive<u16> = 1..=1;

pub(super) const PREAMBLE_LEN: usize = 8;
pub(super) const HELLO_LEN: usize = 64;
pub(super) const REFUSAL_LEN: usize = 16;
pub(super) const REASON_LEN_MAX: usize = WORDS_MAX;

const PREAMBLE: [u8; 6] = *b"SARSEN";
const HELLO: [u8; 8] = *b"SARSENHC";
const WELCOME: [u8; 8] = *b"SARSENWC";
const REFUSAL: [u8; 8] = *b"SARSENNO";
/// What the acceptor says to a preamble that it goes along with: as long as the head of a refusal.
pub(super) const NOD: [u8; REFUSAL_LEN] = *b"SARSENOK\0\0\0\0\0\0\0\0";

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} is none", self.0)
    }
}

/// Whether a connection is under TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cover {
    Plain,
    Tls,
}

/// What a connection is carried by after its handshake, which is decided before TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Calls,
    Link,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Preamble {
    pub cover: Cover,
    pub way: Way,
}

impl Preamble {
    pub fn encode(self) -> [u8; PREAMBLE_LEN] {
        let mut bytes = [0; PREAMBLE_LEN];
        bytes[..6].copy_from_slice(&PREAMBLE);
        bytes[6] = self.cover as u8;
        bytes[7] = self.way as u8 + 1;
        bytes
    }

    pub fn decode(bytes: &[u8; PREAMBLE_LEN]) -> Result<Preamble, Malformed> {
        // What a TLS client says first.
        if bytes[0] == 0x16 {
            return Err(Malformed(
                "preamble (it is TLS at once: another kind of client)",
            ));
        }
        if bytes[..6] != PREAMBLE {
            return Err(Malformed("preamble"));
        }
        let cover = match bytes[6] {
            0 => Cover::Plain,
            1 => Cover::Tls,
            _ => return Err(Malformed("preamble's security")),
        };
        let way = match bytes[7] {
            1 => Way::Calls,
            2 => Way::Link,
            _ => return Err(Malformed("preamble's way")),
        };
        Ok(Preamble { cover, way })
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Calls(Class),
    /// Data, to this shard.
    Link(u16),
    Join,
}

impl Purpose {
    pub fn way(self) -> Way {
        match self {
            Purpose::Link(_) => Way::Link,
            _ => Way::Calls,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub versions: RangeInclusive<u16>,
    pub cluster: ClusterId,
    /// Who speaks; nobody yet, where he joins.
    pub from: Option<NodeId>,
    /// Who is meant; whoever answers, where somebody joins.
    pub to: Option<NodeId>,
    pub purpose: Purpose,
}

impl Hello {
    pub fn encode(&self) -> [u8; HELLO_LEN] {
        let mut bytes = Vec::with_capacity(HELLO_LEN);
        let mut put = Put(&mut bytes);
        put.bytes(&HELLO);
        put_versions(&self.versions, &mut put);
        put.bytes(&self.cluster.0);
        put.u8(u8::from(self.from.is_some()) | u8::from(self.to.is_some()) << 1);
        let (purpose, shard) = match self.purpose {
            Purpose::Calls(Class::Urgent | Class::Lease) => (1, 0),
            Purpose::Calls(Class::Bulk) => (2, 0),
            Purpose::Link(shard) => (3, shard),
            Purpose::Join => (4, 0),
        };
        put.u8(purpose);
        put.u16(shard);
        put.u32(self.from.map_or(0, |node| node.0));
        put.u32(self.to.map_or(0, |node| node.0));
        sealed(bytes)
    }

    pub fn decode(bytes: &[u8; HELLO_LEN]) -> Result<Hello, Malformed> {
        let mut take = opened(bytes, &HELLO, "hello")?;
        let mut fields = || {
            let versions = take_versions(&mut take)?;
            let cluster = ClusterId(take.key()?);
            let (flags, purpose, shard) = (take.u8()?, take.u8()?, take.u16()?);
            let (from, to) = (take.u32()?, take.u32()?);
            let node = |bit: u8, number: u32| match (flags & bit != 0, number) {
                (true, number) => Some(Some(NodeId(number))),
                (false, 0) => Some(None),
                (false, _) => None,
            };
            let purpose = match (purpose, shard) {
                (1, 0) => Purpose::Calls(Class::Urgent),
                (2, 0) => Purpose::Calls(Class::Bulk),
                (3, shard) => Purpose::Link(shard),
                (4, 0) => Purpose::Join,
                _ => return None,
            };
            (flags < 4).then_some(Hello {
                versions,
                cluster,
                from: node(1, from)?,
                to: node(2, to)?,
                purpose,
            })
        };
        let hello = fields().ok_or(Malformed("hello"))?;
        closed(take, "hello")?;
        Ok(hello)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Welcome {
    pub versions: RangeInclusive<u16>,
    pub cluster: ClusterId,
    pub version: u16,
    pub node: NodeId,
    /// Calls that the acceptor works on at once for this connection.
    pub in_progress_max: u32,
}

impl Welcome {
    pub fn encode(&self) -> [u8; HELLO_LEN] {
        let mut bytes = Vec::with_capacity(HELLO_LEN);
        let mut put = Put(&mut bytes);
        put.bytes(&WELCOME);
        put_versions(&self.versions, &mut put);
        put.bytes(&self.cluster.0);
        put.u16(self.version);
        put.u16(0);
        put.u32(self.node.0);
        put.u32(self.in_progress_max);
        sealed(bytes)
    }

    pub fn decode(bytes: &[u8; HELLO_LEN]) -> Result<Welcome, Malformed> {
        let mut take = opened(bytes, &WELCOME, "welcome")?;
        let mut fields = || {
            let versions = take_versions(&mut take)?;
            let cluster = ClusterId(take.key()?);
            let (version, zero) = (take.u16()?, take.u16()?);
            let (node, in_progress_max) = (NodeId(take.u32()?), take.u32()?);
            let sane = zero == 0 && versions.contains(&version) && in_progress_max > 0;
            sane.then_some(Welcome {
                versions,
                cluster,
                version,
                node,
                in_progress_max,
            })
        };
        let welcome = fields().ok_or(Malformed("welcome"))?;
        closed(take, "welcome")?;
        Ok(welcome)
    }
}

/// Why somebody is not welcome, by number; the words stand beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Reason {
    /// No version in common.
    Version = 1,
    /// Of another cluster.
    Cluster = 2,
    /// Another node is meant than is here.
    Node = 3,
    /// Who speaks is not who he says, or may not.
    Identity = 4,
    /// One side is under TLS and the other is not.
    Security = 5,
    /// What it is for is not served here.
    NotServed = 6,
    /// There are too many connections.
    Busy = 7,
    /// What came breaks the form.
    Malformed = 8,
    /// It did not come in time.
    Slow = 9,
    /// It is no node of the cluster, or not any more.
    Removed = 10,
}

impl Reason {
    pub const ALL: [Reason; 10] = [
        Reason::Version,
        Reason::Cluster,
        Reason::Node,
        Reason::Identity,
        Reason::Security,
        Reason::NotServed,
        Reason::Busy,
        Reason::Malformed,
        Reason::Slow,
        Reason::Removed,
    ];
}

/// A refusal, in its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotWelcome {
    pub reason: Reason,
    pub words: String,
}

impl NotWelcome {
    pub fn encode(&self) -> Vec<u8> {
        let words = words(&self.words);
        let mut bytes = Vec::new();
        let mut put = Put(&mut bytes);
        put.bytes(&REFUSAL);
        put.u16(self.reason as u16);
        put.u16(words.len() as u16);
        put.u32(0);
        put.bytes(&words);
        bytes
    }

    /// Whether an answer begins like one. No nod does, and no welcome.
    pub fn is_begun_by(answer: &[u8; REFUSAL_LEN]) -> bool {
        answer[..8] == REFUSAL
    }

    /// Reads the head of one: why, and how many bytes of words follow.
    pub fn decode_head(bytes: &[u8; REFUSAL_LEN]) -> Result<(Reason, usize), Malformed> {
        const WRONG: Malformed = Malformed("refusal");
        let mut take = Take::new(&bytes[8..]);
        let fields = (take.u16(), take.u16(), take.u32());
        let (true, (Some(number), Some(len), Some(0))) = (Self::is_begun_by(bytes), fields) else {
            return Err(WRONG);
        };
        let known = Reason::ALL
            .into_iter()
            .find(|reason| *reason as u16 == number);
        match (known, usize::from(len)) {
            // One that a later version knows has words all the same.
            (reason, len) if len <= REASON_LEN_MAX => {
                Ok((reason.unwrap_or(Reason::NotServed), len))
            }
            _ => Err(WRONG),
        }
    }
}

fn put_versions(versions: &RangeInclusive<u16>, put: &mut Put<'_>) {
    put.u16(*versions.start());
    put.u16(*versions.end());
}

fn take_versions(take: &mut Take<'_>) -> Option<RangeInclusive<u16>> {
    let (lowest, highest) = (take.u16()?, take.u16()?);
    (lowest > 0 && lowest <= highest).then_some(lowest..=highest)
}

fn sealed(mut bytes: Vec<u8>) -> [u8; HELLO_LEN] {
    Put(&mut bytes).pad_to(0, HELLO_LEN - 4);
    let sum = crc::of(&bytes);
    Put(&mut bytes).u32(sum);
    let mut sealed = [0; HELLO_LEN];
    sealed.copy_from_slice(&bytes);
    sealed
}

fn opened<'a>(
    bytes: &'a [u8; HELLO_LEN],
    magic: &[u8; 8],
    what: &'static str,
) -> Result<Take<'a>, Malformed> {
    let (rest, sum) = bytes.split_last_chunk::<4>().unwrap_or((&[], &[0; 4]));
    match bytes[..8] == *magic && u32::from_le_bytes(*sum) == crc::of(rest) {
        true => Ok(Take::new(&rest[8..])),
        false => Err(Malformed(what)),
    }
}

/// What has no meaning yet is zero.
fn closed(mut take: Take<'_>, what: &'static str) -> Result<(), Malformed> {
    let rest = take.bytes(take.left()).unwrap_or_default();
    match rest.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(Malformed(what)),
    }
}
